use expect_test::{Expect, expect};

use super::fixture::{everything, isolated, net, nft, sync, v4};
use crate::{
    linux::{
        monitor::Monitor,
        nft::{CommitError, Nft},
    },
    nft::{Chain, Element, Expr, Field, KeyType, Rule, Set, Table, Verdict, text},
};

fn check(actual: &str, expected: &Expect) {
    expected.assert_eq(actual);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat listing")]
fn nft_lists_what_was_programmed() {
    let listed = isolated(|| {
        let mut table = everything();
        sync(&mut table, &mut Nft::open().unwrap());
        nft(&["-s", "list", "table", "inet", "voile"])
    });
    check(
        &listed,
        &expect![[r#"
        table inet voile {
        	set s-flows {
        		type ipv4_addr . inet_proto . inet_service
        		elements = { 10.0.0.1 . tcp . 80 }
        	}

        	set s-ifs {
        		type ifname
        		elements = { "cali1" }
        	}

        	set s-nets {
        		type ipv4_addr
        		flags interval
        		elements = { 10.0.0.0/24, 10.0.1.0/25,
        			     192.0.2.1, 255.255.255.0/24 }
        	}

        	set s-nets6 {
        		type ipv6_addr
        		flags interval
        		elements = { fd00::/64 }
        	}

        	set s-pods {
        		type ipv4_addr
        		elements = { 10.0.0.1, 10.0.0.2 }
        	}

        	set s-ranges {
        		type ipv4_addr . inet_proto . inet_service
        		flags interval
        		elements = { 10.1.0.0/24 . tcp . 80-90 }
        	}

        	map m-backends {
        		type mark . integer : ipv4_addr . inet_service
        		elements = { 0x00000007 . 0 : 10.0.0.1 . 6443 }
        	}

        	map m-svc {
        		type ipv4_addr . inet_proto . inet_service : mark
        		elements = { 10.96.0.1 . tcp . 443 : 0x00000007 }
        	}

        	map m-to {
        		type ifname : verdict
        		elements = { "cali1" : goto ep-1,
        			     "cali2" : accept }
        	}

        	chain ep-1 {
        		ip saddr . meta l4proto . th dport @s-flows accept
        		ip saddr . meta l4proto . th dport @s-ranges accept
        		tcp dport { 80-95, 443 } accept
        		meta l4proto { tcp, udp } th sport 1-1023 jump other
        		ip saddr != 10.0.0.0/12 return
        		ip6 daddr fd00::/61 return
        		ip6 daddr fd00::1 continue
        		ip6 saddr @s-nets6 accept
        		iifname @s-ifs accept
        		icmp type echo-request accept
        		icmpv6 type destination-unreachable icmpv6 code addr-unreachable accept
        		ct state established,related iifname "eth0" accept
        		meta mark & 0x000000f0 == 0x00000010 accept
        		fib daddr type local accept
        		meta mark set meta mark | 0x00000008
        		meta nfproto ipv4 limit rate 5/second burst 10 packets log prefix "D|default/web|3" group 1 snaplen 64 queue-threshold 512
        		meta l4proto tcp reject with tcp reset
        		reject with icmpx admin-prohibited comment "end of tier"
        	}

        	chain forward {
        		type filter hook forward priority filter; policy accept;
        		ct state vmap { invalid : drop, established : accept, related : accept }
        		oifname vmap @m-to
        		oifname "cali*" counter drop comment "unknown"
        	}

        	chain nat {
        		type nat hook prerouting priority dstnat; policy accept;
        		meta mark set ip daddr . meta l4proto . th dport map @m-svc
        		meta mark != 0x00000000 dnat ip to meta mark . numgen random mod 64 map @m-backends
        		tcp dport 8080 dnat ip to 10.0.0.1:80
        	}

        	chain nat-out {
        		type nat hook postrouting priority srcnat + 10; policy accept;
        		ip saddr @s-pods ip daddr != @s-nets masquerade fully-random
        	}

        	chain other {
        		return
        	}
        }
    "#]],
    );
}

#[test]
fn the_rendered_text_is_accepted_by_nft() {
    isolated(|| {
        // Marks keyed with `numgen` have no declaration in nft's language.
        let mut table = everything();
        table.remove_map(&"m-backends".into());
        table.remove_chain(&"nat".into());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text::render(&table)).unwrap();
        nft(&["-c", "-f", file.path().to_str().unwrap()]);
    });
}

#[test]
fn what_is_read_back_is_what_was_written() {
    isolated(|| {
        let mut kernel = Nft::open().unwrap();
        let mut table = everything();
        assert!(sync(&mut table, &mut kernel) > 0);
        table.adopt(kernel.read("voile").unwrap());
        let left = table.plan().map(|batch| text::summary(&batch));
        assert_eq!(left, None);
    });
}

#[test]
fn a_restart_writes_nothing() {
    isolated(|| {
        sync(&mut everything(), &mut Nft::open().unwrap());
        let mut kernel = Nft::open().unwrap();
        let generation = kernel.generation().unwrap();
        let mut fresh = Table::new("voile");
        fresh.adopt(kernel.read("voile").unwrap());
        for chain in everything().chains() {
            fresh.put_chain(chain.clone());
        }
        for set in everything().sets() {
            fresh.put_set(set);
        }
        for map in everything().maps() {
            fresh.put_map(map);
        }
        assert_eq!(fresh.plan().map(|batch| text::summary(&batch)), None);
        assert_eq!(kernel.generation().unwrap(), generation);
    });
}

#[test]
fn a_restart_removes_what_is_no_longer_wanted() {
    isolated(|| {
        sync(&mut everything(), &mut Nft::open().unwrap());
        let mut kernel = Nft::open().unwrap();
        let mut fresh = Table::new("voile");
        fresh.adopt(kernel.read("voile").unwrap());
        fresh.put_chain(Chain::new("only".into(), vec![]));
        sync(&mut fresh, &mut kernel);
        let listed = nft(&["list", "table", "inet", "voile"]);
        assert_eq!(listed, "table inet voile {\n\tchain only {\n\t}\n}\n");
    });
}

#[test]
fn everything_can_change_in_one_transaction() {
    isolated(|| {
        let mut kernel = Nft::open().unwrap();
        let mut table = everything();
        sync(&mut table, &mut kernel);
        let before = kernel.generation().unwrap();
        // A set of another type under the same name, a range that grows, a map member that turns.
        table.put_set(Set::exact("s-pods".into(), &[KeyType::Ipv4, KeyType::L4Proto]));
        table.put_chain(Chain::new("other".into(), vec![]));
        table.remove_element(&"s-nets".into(), &net("10.0.1.0/25"));
        table.insert_element(&"s-nets".into(), net("10.0.1.0/24"));
        table.map_insert(&"m-to".into(), Element::ifname("cali1"), Verdict::Accept);
        table.map_insert(&"m-to".into(), Element::ifname("cali2"), Verdict::Goto("ep-1".into()));
        let fields = [Field::Ip4Saddr, Field::L4Proto];
        table.put_chain(Chain::new(
            "new".into(),
            vec![Rule::new(vec![Expr::in_set(&fields, "s-pods".into())], Verdict::Accept)],
        ));
        table.remove_chain(&"nat-out".into());
        sync(&mut table, &mut kernel);
        assert_eq!(kernel.generation().unwrap(), before + 1);
        table.adopt(kernel.read("voile").unwrap());
        assert_eq!(table.plan().map(|batch| text::summary(&batch)), None);
    });
}

#[test]
fn a_set_used_by_rules_can_be_redefined() {
    isolated(|| {
        let mut kernel = Nft::open().unwrap();
        let mut table = Table::new("voile");
        let rule = || Rule::new(vec![Expr::in_set(&[Field::Ip4Saddr], "s".into())], Verdict::Drop);
        table.put_set(Set::exact("s".into(), &[KeyType::Ipv4]).with([v4("10.0.0.1")]));
        table.put_chain(Chain::new("c".into(), vec![rule()]));
        sync(&mut table, &mut kernel);
        table.put_set(Set::interval("s".into(), &[KeyType::Ipv4]).with([net("10.0.0.0/30")]));
        sync(&mut table, &mut kernel);
        let listed = nft(&["list", "table", "inet", "voile"]);
        assert!(listed.contains("10.0.0.0/30") && listed.contains("ip saddr @s drop"), "{listed}");
    });
}

#[test]
fn a_refused_step_is_named_and_nothing_is_written() {
    isolated(|| {
        let mut kernel = Nft::open().unwrap();
        let mut table = everything();
        let broken = Rule::new(vec![], Verdict::Jump("missing".into()));
        table.put_chain(Chain::new("broken".into(), vec![Rule::always(Verdict::Accept), broken]));
        let error = kernel.commit(&table.plan().unwrap()).unwrap_err();
        let words = "kernel refused to write rules of chain broken, rule 1 `jump missing`: \
                     No such file or directory (os error 2)";
        assert_eq!(error.to_string(), words);
        assert_eq!(nft(&["list", "ruleset"]), "");
    });
}

#[test]
fn a_commit_of_someone_else_makes_ours_stale() {
    isolated(|| {
        let mut kernel = Nft::open().unwrap();
        let mut table = everything();
        sync(&mut table, &mut kernel);
        nft(&["add", "table", "ip", "foreign"]);
        table.insert_element(&"s-pods".into(), v4("10.0.0.9"));
        let batch = table.plan().unwrap();
        assert!(matches!(kernel.commit(&batch), Err(CommitError::Stale(_))));
        kernel.commit(&batch).unwrap();
    });
}

#[test]
fn the_monitor_hears_others_and_not_us() {
    isolated(|| {
        let mut kernel = Nft::open().unwrap();
        let mut monitor = Monitor::open("voile", kernel.port()).unwrap();
        sync(&mut everything(), &mut kernel);
        nft(&["add", "table", "ip", "foreign"]);
        assert!(!monitor.drain().unwrap().is_drift());
        nft(&["flush", "chain", "inet", "voile", "other"]);
        nft(&["delete", "element", "inet", "voile", "s-pods", "{ 10.0.0.1 }"]);
        let heard = monitor.drain().unwrap();
        let words = ["rule removed from chain other", "1 members removed from s-pods"];
        assert_eq!(heard.changes, words);
    });
}

#[test]
fn what_others_removed_or_added_comes_back_as_it_was() {
    isolated(|| {
        let mut kernel = Nft::open().unwrap();
        let mut table = everything();
        sync(&mut table, &mut kernel);
        let before = nft(&["list", "table", "inet", "voile"]);
        nft(&["flush", "chain", "inet", "voile", "forward"]);
        nft(&["insert", "rule", "inet", "voile", "ep-1", "accept"]);
        nft(&["add", "chain", "inet", "voile", "intruder"]);
        nft(&["delete", "element", "inet", "voile", "s-nets", "{ 10.0.0.0/24 }"]);
        nft(&["add", "element", "inet", "voile", "s-pods", "{ 6.6.6.6 }"]);
        table.adopt(kernel.read("voile").unwrap());
        sync(&mut table, &mut kernel);
        let sorted = |text: &str| {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&nft(&["list", "table", "inet", "voile"])), sorted(&before));
        nft(&["flush", "ruleset"]);
        table.adopt(kernel.read("voile").unwrap());
        sync(&mut table, &mut kernel);
        assert_eq!(sorted(&nft(&["list", "table", "inet", "voile"])), sorted(&before));
    });
}
