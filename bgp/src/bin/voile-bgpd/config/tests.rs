use expect_test::{Expect, expect};

use bgp::config::Blackhole;

use super::*;

const HEAD: &str = "[router]\nas = 65001\nrouter-id = \"10.0.0.1\"\n";

fn check(text: &str, expected: Expect) {
    let own = [IpAddr::from([10, 0, 0, 1])];
    let error = format!("{:#}", parse(text, &own).unwrap_err());
    expected.assert_eq(&error);
}

/// A file with one peer that has these lines beside address and AS.
fn peer(lines: &str) -> String {
    format!("{HEAD}[[peer]]\naddress = \"10.0.0.2\"\nas = 65002\n{lines}\n")
}

#[test]
fn a_whole_file() {
    let config = parse(include_str!("../../../../tests/interop/voile-bgpd.toml"), &[]).unwrap();
    assert_eq!(config.speaker.local_as, Asn(65001));
    assert_eq!(config.networks.len(), 2);
    assert_eq!(config.speaker.peers.len(), 3);
    assert_eq!(config.speaker.peers[0].export.filters.len(), 1);
}

/// The reference's examples are what it says they are.
#[test]
fn every_field_of_the_reference_is_known() {
    let page = include_str!("../../../../../docs/reference/voile-bgpd.md");
    let blocks = page.split("```toml\n").skip(1);
    let blocks: Vec<&str> = blocks.filter_map(|block| block.split("```").next()).collect();
    assert!(blocks.len() > 3);
    for block in blocks {
        let text =
            if block.contains("[router]") { block.to_owned() } else { format!("{HEAD}{block}") };
        if let Err(error) = parse(&text, &[]) {
            panic!("{error:#}\n{text}");
        }
    }
}

#[test]
fn blackholes_are_agreed_one_by_one() {
    let meaning = |lines: &str| {
        let config = parse(&peer(lines), &[]).unwrap();
        config.speaker.peers[0].blackhole.clone()
    };
    let networks = ["192.0.2.0/24", "2001:db8::/32"].map(|text| text.parse().unwrap());
    assert_eq!(meaning(""), Blackhole::None);
    assert_eq!(meaning("blackhole = false"), Blackhole::None);
    assert_eq!(meaning("blackhole = true"), Blackhole::Accepted);
    let list = "blackhole = [\"192.0.2.0/24\", \"2001:db8::/32\"]";
    assert_eq!(meaning(list), Blackhole::Within(networks.to_vec()));
    check(
        &peer("blackhole = []\nmultihop = true\nttl-security = 1"),
        expect![[r#"
            line 7, peer '10.0.0.2', blackhole: the list is empty; leave it out to honour none
            line 9, peer '10.0.0.2', ttl-security: 1 is the link; with multihop the peer is further away"#]],
    );
    for wrong in ["blackhole = \"yes\"", "blackhole = [\"192.0.2.1/24\"]"] {
        let error = format!("{:#}", parse(&peer(wrong), &[]).unwrap_err());
        let expected = "true, false, or a list of prefixes";
        assert!(error.contains("line 7") && error.contains(expected), "{error}");
    }
}

#[test]
fn collectors() {
    let bmp = "[[bmp]]\naddress = \"192.0.2.1:1790\"\nstatistics = 0\nmonitor = [\"loc-rib\"]\n";
    let config = parse(&format!("{HEAD}{bmp}"), &[]).unwrap();
    let [collector] = config.speaker.collectors.as_slice() else { panic!("one") };
    assert!(collector.views.loc_rib && !collector.views.pre_policy);
    assert_eq!((collector.statistics, collector.name.as_str()), (None, "10.0.0.1"));
    check(
        &format!("{HEAD}{bmp}{bmp}retry = 0"),
        expect![[r#"
            line 9, bmp, address: 192.0.2.1:1790 is a collector already
            line 12, bmp, retry: at least 0.1 seconds"#]],
    );
}

#[test]
fn what_toml_itself_finds() {
    check(
        "[router]\nas = 65001\nrouter-id = \"10.0.0\"\n",
        expect![[r#"
        TOML parse error at line 3, column 13
          |
        3 | router-id = "10.0.0"
          |             ^^^^^^^^
        '10.0.0': invalid IPv4 address syntax
    "#]],
    );
    check(
        &peer("hold-time = 2"),
        expect![[r#"
        TOML parse error at line 7, column 13
          |
        7 | hold-time = 2
          |             ^
        hold time 2: write 0 for none, or at least 3 seconds
    "#]],
    );
    check(
        &format!("{HEAD}[[network]]\nprefix = \"10.0.0.0/33\"\n"),
        expect![[r#"
        TOML parse error at line 5, column 10
          |
        5 | prefix = "10.0.0.0/33"
          |          ^^^^^^^^^^^^^
        '10.0.0.0/33' is no prefix; write address/length, like 10.0.0.0/8
    "#]],
    );
    check(
        &format!("{HEAD}[[network]]\nprefix = \"10.1.2.3/16\"\n"),
        expect![[r#"
        TOML parse error at line 5, column 10
          |
        5 | prefix = "10.1.2.3/16"
          |          ^^^^^^^^^^^^^
        '10.1.2.3/16' has bits beyond its length; did you mean 10.1.0.0/16?
    "#]],
    );
    check(
        &format!("{HEAD}[[peer]]\naddress = \"10.0.0.2\"\nas = 0\n"),
        expect![[r#"
        TOML parse error at line 6, column 6
          |
        6 | as = 0
          |      ^
        AS 0 belongs to nobody (RFC 7607)
    "#]],
    );
    let unknown = parse(&peer("hold-tim = 3"), &[]).unwrap_err().to_string();
    assert!(
        unknown.contains("line 7") && unknown.contains("unknown field `hold-tim`"),
        "{unknown}"
    );
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    check(
        &format!(
            "[router]\nas = 0\nrouter-id = \"0.0.0.0\"\nmax-paths = 0\nrestart-time = 5000\n\
             [[peer]]\nas = 1\n\
             [[peer]]\naddress = \"10.0.0.1\"\nas = 1\n\
             [[peer]]\naddress = \"10.0.0.2\"\nas = 1\nimport = [\"x\"]\npassword = \"{}\"\n\
             [[peer]]\nname = \"b\"\naddress = \"10.0.0.2\"\nas = 2\nttl = 3\nttl-security = 1\n\
             [[peer]]\nname = \"b\"\naddress = \"10.0.0.3\"\nas = \"external\"\n\
             [[peer]]\naddress = \"fe80::1\"\nas = 3\nlocal-address = \"10.0.0.1\"\n\
             [[peer]]\nrange = \"10.9.0.0/24\"\nas = [1, \"5-9\"]\nfamilies = []\nbfd = {{ multiplier = 0 }}\n",
            "x".repeat(81)
        ),
        expect![[r#"
            line 2, router, as: AS 0 belongs to nobody (RFC 7607)
            line 3, router, router-id: 0.0.0.0 is no identifier (RFC 6286); an address of this router is one
            line 4, router, max-paths: at least 1 path is needed
            line 5, router, restart-time: it is at most 4095 seconds (RFC 4724)
            line 6, peer: one of address, range and interface is needed
            line 8, peer '10.0.0.1': 10.0.0.1 is an address of this router itself
            line 14, peer '10.0.0.2', import: there is no filter 'x'
            line 15, peer '10.0.0.2', password: TCP MD5 takes 1 to 80 octets, these are 81
            line 16, peer 'b': 10.0.0.2 is the address of peer '10.0.0.2' already
            line 20, peer 'b', ttl: ttl-security sends with 255 always; remove one of the two
            line 22, peer 'b': two peers have this name; give them different ones
            line 25, peer 'b', as: a peer with an address has one AS number; several are for range and interface
            line 27, peer 'fe80::1', address: a link-local address needs an interface
            line 29, peer 'fe80::1', local-address: it is of another family than the peer's address
            line 33, peer '10.9.0.0/24', families: at least one of ipv4 and ipv6 is needed
            line 34, peer '10.9.0.0/24', bfd: multiplier must be at least 1"#]],
    );
}

#[test]
fn rules_that_cannot_mean_anything() {
    check(
        &format!(
            "{HEAD}[[filter]]\nname = \"f\"\n[[filter.rule]]\naction = \"accept\"\nmin-length = 8\n\
             [[filter.rule]]\naction = \"reject\"\nset-med = 1\n\
             [[filter.rule]]\naction = \"accept\"\nprefix = \"10.0.0.0/8\"\nmin-length = 25\nmax-length = 24\n\
             [[filter]]\nname = \"f\"\n"
        ),
        expect![[r#"
            line 6, filter 'f', rule 1: match, min-length and max-length need a prefix
            line 9, filter 'f', rule 2: a rejected route cannot be changed; remove add-, prepend- and set- fields
            line 12, filter 'f', rule 3: lengths 25 to 24 are no range within 0 to 32
            line 18, filter: two filters are called 'f'"#]],
    );
}

#[test]
fn only_peers_of_another_system_need_a_policy() {
    use bgp::filter::Policy;
    let parsed = |text: &str| parse(text, &[]).unwrap().speaker.peers[0].clone();
    assert_eq!(parsed(&peer("")).import, Policy::absent());
    assert_eq!(parsed(&peer("import-default = \"accept\"")).import, Policy::accept());
    assert_eq!(parsed(&peer("import-default = \"accept\"")).export, Policy::absent());
    assert_eq!(parsed(&peer("").replace("65002", "65001")).export, Policy::accept());
    let open = peer("").replace("[router]\n", "[router]\nebgp-requires-policy = false\n");
    assert_eq!(parsed(&open).export, Policy::accept());
}

#[test]
fn files_that_cannot_be_read() {
    let folder = std::env::temp_dir().join(format!("voile-bgpd-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("bgpd.toml");
    let error = |path: &Path| format!("{:#}", read(path).unwrap_err());
    assert!(error(&file).contains("bgpd.toml: No such file"), "{}", error(&file));
    assert!(error(&folder).contains("Is a directory"), "{}", error(&folder));
    std::fs::write(&file, b"[router]\nas = 1\n# caf\xe9\n").unwrap();
    assert!(error(&file).ends_with("bgpd.toml: line 3 is not UTF-8 text; save the file as UTF-8"));
    std::fs::write(&file, "[router]\nas = 1\nrouter-id = \"0.0.0.0\"\n").unwrap();
    assert!(
        error(&file).contains("bgpd.toml: line 3, router, router-id: 0.0.0.0 is no identifier")
    );
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn keys_of_tcp_ao() {
    let keys = "tcp-ao = [{ id = 1, secret = \"one\" }, { send-id = 2, receive-id = 3, algorithm = \"aes-cmac\", secret = \"two\" }]";
    let parsed = parse(&peer(keys), &[]).unwrap().speaker.peers[0].clone();
    let ids: Vec<_> = parsed.tcp_ao.iter().map(|key| (key.send_id, key.receive_id)).collect();
    assert_eq!(ids, [(1, 1), (2, 3)]);
    check(
        &peer(
            "password = \"x\"\ntcp-ao = [{ id = 1, secret = \"\" }, { id = 1, secret = \"y\" }, { secret = \"z\" }]",
        ),
        expect![[r#"
            line 8, peer '10.0.0.2', tcp-ao: TCP-AO takes the place of TCP MD5; remove password
            line 8, peer '10.0.0.2', tcp-ao: a key needs an id, or send-id and receive-id
            line 8, peer '10.0.0.2', tcp-ao: a secret has 1 to 80 octets, these are 0
            line 8, peer '10.0.0.2', tcp-ao: two keys have the same id"#]],
    );
}

/// A kernel without TCP-AO is found out when the file is read, not when the session does not come up.
#[test]
fn what_the_kernel_misses_is_said_with_the_file() {
    let folder = std::env::temp_dir().join(format!("voile-bgpd-keys-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("bgpd.toml");
    std::fs::write(&file, peer("tcp-ao = [{ id = 1, secret = \"one\" }]")).unwrap();
    if let Err(error) = read(&file) {
        let error = format!("{error:#}");
        for part in ["bgpd.toml", "cannot set the TCP-AO keys of 10.0.0.2", "CONFIG_"] {
            assert!(error.contains(part), "{error}");
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
