//! The causes of transitions, as an operator reads them.

use expect_test::{Expect, expect};

use super::lab::{Lab, config, peer};
use crate::{Families, State};

/// The history of r0's peer r1, without times.
fn check(lab: &mut Lab, expected: Expect) {
    let history = lab.peer(0, 1).history;
    let lines = history.iter().map(|each| {
        let times = if each.times > 1 { format!(" x{}", each.times) } else { String::new() };
        format!("{} -> {}: {}{times}\n", each.from, each.to, each.cause)
    });
    expected.assert_eq(&lines.collect::<String>());
}

#[test]
fn a_peer_that_is_down_does_not_push_out_what_came_before() {
    let mut lab = Lab::pair_with(1, 1, |peer| peer.passive = peer.name == "r0");
    lab.run(30);
    lab.cut(0, 1);
    lab.run(100);
    lab.kill(1);
    lab.mend(0, 1);
    lab.run(1000);
    check(
        &mut lab,
        expect![[r#"
        Idle -> Active: configured
        Active -> Connect: connecting
        Connect -> OpenSent: TCP connection established
        OpenSent -> OpenConfirm: received OPEN
        OpenConfirm -> Established: received KEEPALIVE
        Established -> Active: hold timer expired after 90 s: last message UPDATE 90 s ago
        Connect -> Active: 10.0.0.2:179 does not answer x5
        Active -> Connect: connecting x232
        Connect -> Active: connection refused x227
    "#]],
    );
}

#[test]
fn silence_after_a_wrong_key_is_explained_by_the_kernels_counters() {
    let mut lab = Lab::pair(1, 1);
    lab.cut(0, 1);
    lab.run_for(std::time::Duration::from_millis(500));
    lab.speaker(0).set_refused_segments(7);
    lab.run(10);
    check(
        &mut lab,
        expect![[r#"
        Idle -> Active: configured
        Connect -> Active: 10.0.0.2:179 does not answer (TCP-MD5 mismatch suspected: 7 segments refused)
        Active -> Connect: connecting x2
    "#]],
    );
}

#[test]
fn disagreements_of_open_are_named_on_both_sides() {
    let mut configs = vec![config(0, 65001), config(1, 65001)];
    configs[0].peers.push(peer(1, 65001));
    configs[1].peers.push(peer(0, 65001));
    configs[0].peers[0].passive = true;
    configs[0].peers[0].families = Families::IPV6;
    configs[0].peers[0].idle_hold_max = std::time::Duration::from_secs(5);
    let mut lab = Lab::new(configs.clone());
    lab.run(1);
    check(
        &mut lab,
        expect![[r#"
        Idle -> Active: configured
        Active -> OpenSent: peer connected
        OpenSent -> Idle: no address family in common: ours ipv6, theirs ipv4 (sent 2/7 unsupported capability)
    "#]],
    );
    configs[0].peers[0].families = Families::IPV4;
    configs[0].router_id = configs[1].router_id;
    let now = lab.now;
    lab.speaker(0).configure(configs[0].clone(), now);
    lab.run(20);
    check(
        &mut lab,
        expect![[r#"
            Idle -> Active: configured
            Idle -> Active: waited long enough after the error x3
            Active -> OpenSent: peer connected x4
            OpenSent -> Idle: peer has our own BGP identifier 10.0.0.2 (sent 2/3 bad BGP identifier) x4
        "#]],
    );
    assert_ne!(lab.state(0, 1), State::Established);
}
