use std::sync::Arc;

use expect_test::expect;

use super::RouteReport;
use crate::{
    FibNextHop, FibRoute,
    attr::{AsPath, Community, PathAttributes},
    decision::Why,
    snapshot::{
        Announcement, FibState, ImportReason, PathExplanation, Rank, RouteExplanation, Usage,
    },
    types::Asn,
};

fn attributes(next_hop: &str, path: &[u32]) -> PathAttributes {
    let next_hop: std::net::IpAddr = next_hop.parse().unwrap();
    PathAttributes {
        next_hop: Some(next_hop.into()),
        as_path: AsPath(path.iter().map(|asn| Asn(*asn)).collect()),
        ..PathAttributes::default()
    }
}

fn path(peer: &str, received: PathAttributes) -> PathExplanation {
    PathExplanation {
        peer: Some(peer.to_owned()),
        address: received.next_hop.map(|hop| hop.address),
        path_id: 0,
        accepted: Some(received.clone()),
        blackhole: None,
        received,
        import: ImportReason::Accepted("no rule matched".to_owned()),
        stale: false,
        usage: Usage::Lost(Why::AsPathLength),
        reached: None,
        rank: None,
    }
}

fn compared(step: Why, this: &str, other: &str) -> Option<Rank> {
    Some(Rank { step, compared: Some((this.to_owned(), other.to_owned())) })
}

fn route() -> RouteExplanation {
    let received = attributes("10.0.1.1", &[65001, 64602]);
    let accepted = PathAttributes {
        local_pref: Some(200),
        communities: vec![Community(65001 << 16 | 7)],
        ..received.clone()
    };
    let best = PathExplanation {
        accepted: Some(accepted),
        import: ImportReason::Changed("rule 2 of filter uplinks".to_owned()),
        usage: Usage::Best(Why::LocalPref),
        rank: compared(Why::LocalPref, "200", "100 (none was sent)"),
        ..path("tor-a", received)
    };
    let second = PathExplanation {
        rank: compared(Why::LocalPref, "100 (none was sent)", "200"),
        ..path("tor-b", attributes("10.0.1.2", &[65001, 64602]))
    };
    let refused = PathExplanation {
        accepted: None,
        import: ImportReason::Rejected("rule 1 of filter uplinks".to_owned()),
        usage: Usage::Rejected("import policy"),
        stale: true,
        ..path("10.0.1.3", attributes("10.0.1.3", &[65003, 65004, 64602]))
    };
    let told = |peer: &str, reason: &str, told: Option<&str>| Announcement {
        peer: peer.to_owned(),
        path: Some(0),
        path_id: 0,
        attributes: told.map(|hop| attributes(hop, &[64601, 65001, 64602])),
        reason: reason.to_owned(),
        told: told.is_some(),
    };
    RouteExplanation {
        prefix: "10.244.7.0/24".parse().unwrap(),
        paths: vec![best, second, refused],
        announcements: vec![
            told("tor-a", "it is from this peer (split horizon)", None),
            told("tor-b", "rejected by export policy: no policy is configured (RFC 8212)", None),
            told("node-with-a-long-name.example.com", "rule 3 of filter all", Some("10.0.1.9")),
            Announcement {
                path: None,
                ..told("worker-2", "no session (Active: nothing listens on 10.0.0.2:179)", None)
            },
        ],
        fib: FibState::Installed(FibRoute::Via(Arc::new([FibNextHop {
            address: "10.0.1.1".parse().unwrap(),
            interface: None,
        }]))),
    }
}

#[test]
fn the_report_fits_eighty_columns() {
    let report = RouteReport::from(&route());
    expect![[r#"
        1.  from tor-a (10.0.1.1): BEST
            route:  via 10.0.1.1, AS path 65001 64602, local preference 200, communities
                    65001:7
            why:    local preference: 200, path 2 has 100 (none was sent)
            import: accepted with changes: rule 2 of filter uplinks (local preference
                    none -> 200, community 65001:7 added)
        2.  from tor-b (10.0.1.2): not used
            route:  via 10.0.1.2, AS path 65001 64602
            why:    local preference: 100 (none was sent), path 1 has 200
            import: accepted: no rule matched
        3.  from 10.0.1.3: REFUSED, stale
            route:  via 10.0.1.3, AS path 65003 65004 64602
            why:    import policy
            import: rejected: rule 1 of filter uplinks
        kernel:   installed via 10.0.1.1
        told:
          tor-a                           no   it is from this peer (split horizon)
          tor-b                           no   rejected by export policy: no policy is
                                          configured (RFC 8212)
          node-with-a-long-name.example.com
                                          yes  rule 3 of filter all
          worker-2                        no   no session (Active: nothing listens on
                                          10.0.0.2:179)
    "#]]
    .assert_eq(&report.to_text(false));
    let widest = |text: String| text.lines().map(|line| line.chars().count()).max();
    assert!(widest(report.to_text(false)) <= Some(80));
    let wide = report.to_text(true);
    let wide = wide.split_whitespace().collect::<Vec<_>>().join(" ");
    let before = "before: via 10.0.1.1, AS path 65001 64602, local preference 100, origin igp";
    assert!(wide.contains(before), "{wide}");
    assert!(wide.contains("next hop 10.0.1.1 -> 10.0.1.9"), "{wide}");
}

#[test]
fn what_the_kernel_has_is_said_in_words() {
    let hops = FibRoute::Via(Arc::new([FibNextHop {
        address: "fe80::1".parse().unwrap(),
        interface: Some("eth0".to_owned()),
    }]));
    let why = "another program's route has this prefix and metric".to_owned();
    let states = [
        FibState::Told(hops.clone()),
        FibState::Refused { route: hops, why: why.clone() },
        FibState::Refused { route: FibRoute::Blackhole, why },
        FibState::Told(FibRoute::Blackhole),
        FibState::Local,
        FibState::NoPath,
        FibState::Off,
    ];
    let lines = states.map(|fib| {
        let report = RouteReport::from(&RouteExplanation { fib, paths: Vec::new(), ..route() });
        report
            .to_text(false)
            .lines()
            .take_while(|line| *line != "told:")
            .collect::<Vec<_>>()
            .join(" ")
    });
    expect![[r#"
        kernel:   not there yet: being written, via fe80::1 dev eth0
        kernel:   NOT installed via fe80::1 dev eth0: another program's route has this           prefix and metric
        kernel:   NOT installed as a blackhole: another program's route has this prefix           and metric
        kernel:   not there yet: being written, as a blackhole
        kernel:   originated here: the way to it is not BGP's to write
        kernel:   no route: no path is usable
        kernel:   not looked after: this speaker writes no routes"#]]
    .assert_eq(&lines.join("\n"));
}

/// What a promtool would complain of: names, types before values, counters called so, values twice.
#[test]
fn metrics_are_as_prometheus_wants_them() {
    #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
    let now = std::time::Instant::now();
    let mut config = crate::SpeakerConfig::new(Asn(65001), crate::RouterId(1));
    for number in 1..3_u8 {
        let address = [10, 0, 0, number].into();
        let mut peer = crate::PeerConfig::new(format!("r\"{number}"), address, Asn(65002));
        peer.max_prefixes = Some(4);
        config.peers.push(peer);
    }
    config.collectors.push(crate::bmp::Collector::new("bmp.example.org:1790", "r"));
    let speaker = crate::Speaker::new(config, 1, now);
    let mut out = super::Exposition::default();
    super::speaker_metrics(&speaker.snapshot(false), &mut out);
    let text = out.into_text();
    let (mut kinds, mut seen) =
        (std::collections::BTreeMap::new(), std::collections::BTreeSet::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(help.ends_with('.') && name.starts_with("voile_"), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(kinds.insert(name, kind).is_none(), "{name} twice");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            let letters = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(name.chars().all(letters), "{name}");
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            assert!(kinds.contains_key(name), "no type of {line}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(seen.insert(series), "{series} twice");
        }
    }
    for part in [
        "voile_bgp_session_state{peer=\"r\\\"1\",address=\"10.0.0.1\",state=\"Idle\"} 0\n",
        "voile_bgp_session_flaps_total{peer=\"r\\\"2\",address=\"10.0.0.2\",cause=\"hold_timer\"} 0\n",
        "voile_bgp_max_prefixes{peer=\"r\\\"1\",address=\"10.0.0.1\"} 4\n",
        "voile_bmp_connected{collector=\"bmp.example.org:1790\"} 0\n",
    ] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
}
