//! Dynamic neighbours and peers by interface.

use std::net::IpAddr;

use super::lab::{Lab, config, peer, prefix};
use crate::{
    Asn, PeerConfig, PeerGroup, SpeakerConfig, State,
    config::{AcceptedAs, Members},
};

/// r0 accepts routers of AS 65001 to 65003 from 10.0.0.0/29; r1 to r4 are in 65001 to 65004.
fn range(limit: usize) -> Lab {
    let mut configs: Vec<SpeakerConfig> =
        (0..5_usize).map(|index| config(index, 65_000 + u32::try_from(index).unwrap())).collect();
    configs[0].groups.push(PeerGroup {
        name: "rack".into(),
        members: Members::Range(prefix("10.0.0.0/29")),
        asns: AcceptedAs::Ranges(vec![(Asn(65_001), Asn(65_002)), (Asn(65_003), Asn(65_003))]),
        limit,
        template: PeerConfig::new("", IpAddr::from([0, 0, 0, 0]), Asn(0)),
    });
    for config in &mut configs[1..] {
        config.peers.push(peer(0, 65_000));
    }
    Lab::new(configs)
}

fn members(lab: &mut Lab) -> String {
    let peers = lab.speaker(0).snapshot(false).peers;
    let lines = peers.iter().map(|peer| format!("{} AS {} {}\n", peer.name, peer.asn, peer.state));
    lines.collect()
}

#[test]
fn routers_of_the_accepted_systems_come_by_connecting() {
    let mut lab = range(10);
    lab.originate(2, "10.2.0.0/16");
    lab.run(3);
    assert_eq!(lab.fib(0), "10.2.0.0/16 via 10.0.0.3\n");
    let story = lab.tell();
    let refusal =
        "rack[10.0.0.5]: OpenSent -> Idle (peer is AS 65004, which its group does not accept";
    assert!(story.contains(refusal), "{story}");
    assert_eq!(
        members(&mut lab).lines().take(3).collect::<Vec<_>>(),
        [
            "rack[10.0.0.2] AS 65001 Established",
            "rack[10.0.0.3] AS 65002 Established",
            "rack[10.0.0.4] AS 65003 Established"
        ]
    );
    // One leaves for good: nothing remains, and no connection is attempted.
    lab.shutdown(2, crate::Shutdown::Final);
    lab.run(30);
    assert!(!members(&mut lab).contains("10.0.0.3"));
    assert_eq!(lab.fib(0), "");
    assert!(!lab.tell().contains("r0 rack[10.0.0.3]: Active -> Connect"));
}

#[test]
fn a_full_group_refuses() {
    let mut lab = range(2);
    lab.run(20);
    assert_eq!(lab.speaker(0).snapshot(false).peers.len(), 2);
}

#[test]
fn a_member_that_restarts_keeps_its_routes() {
    let mut lab = range(10);
    lab.originate(1, "10.1.0.0/16");
    lab.run(3);
    lab.kill(1);
    lab.run(60);
    assert_eq!(lab.fib(0), "10.1.0.0/16 via 10.0.0.2\n");
    lab.run(70);
    assert_eq!(lab.fib(0), "");
    assert!(!members(&mut lab).contains("10.0.0.2"));
}

#[test]
fn a_changed_template_changes_the_members() {
    let mut lab = range(10);
    lab.originate(1, "10.1.0.0/16");
    lab.run(3);
    lab.tell();
    let mut changed = lab.speaker(0).config().clone();
    changed.groups[0].template.import = crate::filter::Policy::reject();
    let now = lab.now;
    lab.speaker(0).configure(changed.clone(), now);
    lab.run(1);
    assert_eq!(lab.fib(0), "");
    assert!(!lab.tell().contains("rack[10.0.0.2]"), "no session was reset");
    // The range shrinks, and one peer gets a configuration of its own.
    changed.groups[0].members = Members::Range(prefix("10.0.0.0/30"));
    changed.peers.push(peer(1, 65_001));
    let now = lab.now;
    lab.speaker(0).configure(changed, now);
    lab.run(20);
    assert_eq!(members(&mut lab), "r1 AS 65001 Established\nrack[10.0.0.3] AS 65002 Established\n");
}

#[test]
fn a_neighbour_on_an_interface_becomes_a_peer() {
    let mut configs = vec![config(0, 65_000), config(1, 65_001)];
    configs[0].groups.push(PeerGroup {
        name: "eth0".into(),
        members: Members::Interface("eth0".into()),
        asns: AcceptedAs::External,
        limit: 1,
        template: PeerConfig::new("", IpAddr::from([0, 0, 0, 0]), Asn(0)),
    });
    configs[1].peers.push(peer(0, 65_000));
    configs[1].peers[0].passive = true;
    let mut lab = Lab::new(configs);
    lab.run(5);
    assert_eq!(members(&mut lab), "");
    let now = lab.now;
    lab.speaker(0).handle_neighbour("eth1", super::lab::address(1), now);
    lab.speaker(0).handle_neighbour("eth0", super::lab::address(1), now);
    lab.speaker(0).handle_neighbour("eth0", super::lab::address(1), now);
    lab.run(5);
    assert_eq!(members(&mut lab), "eth0 AS 65001 Established\n");
    assert_eq!(lab.state(1, 0), State::Established);
    // It comes back after a failure, unlike a member of a range.
    lab.cut(0, 1);
    lab.run(300);
    lab.mend(0, 1);
    lab.run(30);
    assert_eq!(members(&mut lab), "eth0 AS 65001 Established\n");
    // Advertisements that stop mean nothing while its session is up, or while it may come back.
    let now = lab.now;
    lab.speaker(0).handle_neighbour_silent("eth0", now);
    assert_eq!(members(&mut lab), "eth0 AS 65001 Established\n");
    lab.originate(1, "10.1.0.0/16");
    lab.run(1);
    let again = lab.speaker(1).config().clone();
    lab.kill(1);
    lab.run(100);
    let now = lab.now;
    lab.speaker(0).handle_neighbour_silent("eth0", now);
    assert_ne!(members(&mut lab), "");
    assert_eq!(lab.fibs[0].len(), 1);
    lab.run(100);
    let now = lab.now;
    lab.speaker(0).handle_neighbour_silent("eth1", now);
    assert_ne!(members(&mut lab), "");
    lab.speaker(0).handle_neighbour_silent("eth0", now);
    assert_eq!(members(&mut lab), "");
    lab.start(1, again);
    let now = lab.now;
    lab.speaker(0).handle_neighbour("eth0", super::lab::address(1), now);
    lab.run(5);
    assert_eq!(members(&mut lab), "eth0 AS 65001 Established\n");
    let now = lab.now;
    lab.speaker(0).handle_neighbour_lost("eth0", now);
    lab.run(1);
    assert_eq!(members(&mut lab), "");
}

/// Somebody who knocks once a second for years must not make tables grow.
#[test]
fn numbers_of_members_that_are_gone_are_used_again() {
    let mut lab = range(10);
    lab.run(5);
    let before = lab.speaker(0).next_peer;
    for _ in 0..100 {
        let now = lab.now;
        let (own, stranger) = (super::lab::address(0), super::lab::address(6));
        let knock = lab.speaker(0).handle_accepted(own, stranger, now).unwrap();
        lab.speaker(0).handle_closed(knock, "gone", now);
        lab.run(1);
    }
    assert!(lab.speaker(0).next_peer <= before + 1);
}
