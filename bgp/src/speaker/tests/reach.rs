//! Next hops that the machine's routes lead to, or do not (RFC 4271 §9.1.2.1).

use std::time::Duration;

use proptest::prelude::*;

use super::lab::{Lab, address, config, mesh_configs, prefix};
use crate::{
    FibNextHop, InterfaceDown, LocalNetworks, LocalRoute, NextHopAnswer, PeerConfig,
    ResolvingRoute, Why,
    config::NextHopMode,
    filter::{Action, Filter, Operation, Rule},
    snapshot::Usage,
};

/// r0 tells r1 of routes with next hops of its choice, and r1 tells r2, of another system. r1 asks about next hops.
fn scene() -> Lab {
    let mut configs = mesh_configs(&[1, 1, 2], &[(0, 1), (1, 2)]);
    configs[0].peers[0].next_hop = NextHopMode::Keep;
    configs[1].follow_next_hops = true;
    let mut lab = Lab::new(configs);
    lab.run(5);
    lab
}

fn announce(lab: &mut Lab, from: usize, text: &str, next_hop: &str) {
    let next_hop = Some(next_hop.parse().unwrap());
    let route = LocalRoute { next_hop, ..LocalRoute::default() };
    lab.speaker(from).originate(prefix(text), route);
    lab.run(1);
}

/// `via`: routers on our links; none where the next hop is on one itself.
fn route(text: &str, metric: u32, via: &[&str]) -> ResolvingRoute {
    let hop = |text: &&str| FibNextHop { address: text.parse().unwrap(), interface: None };
    let (prefix, via) = (prefix(text), via.iter().map(hop).collect());
    ResolvingRoute { prefix, metric, yields: false, via }
}

fn answer(lab: &mut Lab, address: &str, route: Result<ResolvingRoute, &str>) {
    let route = route.map_err(str::to_owned);
    let answer = NextHopAnswer { address: address.parse().unwrap(), route };
    let now = lab.now;
    lab.speaker(1).handle_next_hops(vec![answer], now);
    lab.run(1);
}

fn asked(lab: &mut Lab) -> String {
    std::mem::take(&mut lab.asked[1]).join(", ")
}

/// Why the only path of a prefix is not used.
fn obstacle(lab: &mut Lab, text: &str) -> String {
    let explanation = lab.speaker(1).explain(&prefix(text)).unwrap();
    match &explanation.paths[0].usage {
        Usage::Unreachable(why) => why.clone(),
        usage => format!("{usage:?}"),
    }
}

#[test]
fn a_path_is_used_while_the_machine_has_a_route_to_its_next_hop() {
    let mut lab = scene();
    announce(&mut lab, 0, "10.1.0.0/16", "10.9.9.9");
    assert_eq!(asked(&mut lab), "10.9.9.9?");
    assert_eq!((lab.fib(1).as_str(), lab.fib(2).as_str()), ("", ""));
    let why = "next hop 10.9.9.9: the routing table has yet to be asked";
    assert_eq!(obstacle(&mut lab, "10.1.0.0/16"), why);
    answer(&mut lab, "10.9.9.9", Err("no route"));
    assert_eq!((lab.fib(1).as_str(), lab.fib(2).as_str()), ("", ""));
    let why = "next hop 10.9.9.9 is not reachable: no route";
    assert_eq!(obstacle(&mut lab, "10.1.0.0/16"), why);
    assert_eq!(lab.peer(1, 0).prefixes_accepted, 1);
    assert_eq!(lab.speaker(1).snapshot(false).prefixes_unreachable, 1);
    // A router that is further away: packets go to the one before it.
    answer(&mut lab, "10.9.9.9", Ok(route("10.9.0.0/16", 20, &["10.0.0.7", "10.0.0.8"])));
    assert_eq!(lab.fib(1), "10.1.0.0/16 via 10.0.0.7 10.0.0.8\n");
    assert_eq!(lab.fib(2), "10.1.0.0/16 via 10.0.0.2\n");
    let explanation = lab.speaker(1).explain(&prefix("10.1.0.0/16")).unwrap();
    let way = "10.9.9.9 by 10.9.0.0/16 via 10.0.0.7, 10.0.0.8, cost 20";
    assert_eq!(explanation.paths[0].reached.as_deref(), Some(way));
    assert_eq!(lab.speaker(1).snapshot(false).prefixes_unreachable, 0);
    answer(&mut lab, "10.9.9.9", Ok(route("10.9.9.0/24", 0, &[])));
    assert_eq!(lab.fib(1), "10.1.0.0/16 via 10.9.9.9\n");
    answer(&mut lab, "10.9.9.9", Err("no route"));
    assert_eq!((lab.fib(1).as_str(), lab.fib(2).as_str()), ("", ""));
    assert_eq!(lab.speaker(1).snapshot(false).prefixes_unreachable, 1);
    // It is asked about once, and others with it count at once.
    answer(&mut lab, "10.9.9.9", Ok(route("0.0.0.0/0", 0, &["10.0.0.7"])));
    announce(&mut lab, 0, "10.2.0.0/16", "10.9.9.9");
    assert_eq!(lab.fib(1), "10.1.0.0/16 via 10.0.0.7\n10.2.0.0/16 via 10.0.0.7\n");
    assert_eq!(asked(&mut lab), "");
}

#[test]
fn another_path_takes_over_at_once() {
    let mut configs = mesh_configs(&[1, 1, 1], &[(0, 1), (1, 2)]);
    configs[0].peers[0].next_hop = NextHopMode::Keep;
    configs[2].peers[0].next_hop = NextHopMode::Keep;
    configs[1].max_paths = 1;
    configs[1].follow_next_hops = true;
    let mut lab = Lab::new(configs);
    lab.run(5);
    announce(&mut lab, 0, "10.1.0.0/16", "10.0.9.1");
    announce(&mut lab, 2, "10.1.0.0/16", "10.0.9.2");
    for next_hop in ["10.0.9.1", "10.0.9.2"] {
        answer(&mut lab, next_hop, Ok(route("10.0.9.0/24", 0, &[])));
    }
    assert_eq!(lab.fib(1), "10.1.0.0/16 via 10.0.9.1\n");
    let now = lab.now;
    let why = Err("its route 10.0.9.0/24 is on eth1, which is down".to_owned());
    let gone = NextHopAnswer { address: "10.0.9.1".parse().unwrap(), route: why };
    lab.speaker(1).handle_next_hops(vec![gone], now);
    lab.run_for(Duration::from_millis(1));
    assert_eq!(lab.fib(1), "10.1.0.0/16 via 10.0.9.2\n");
}

/// RFC 4271 §9.1.2.2 e: of paths that are equal so far, the one with the nearer next hop; as near as each other, both.
#[test]
fn the_nearer_of_two_next_hops_is_preferred() {
    let mut configs = mesh_configs(&[1, 1, 1], &[(0, 1), (1, 2)]);
    configs[0].peers[0].next_hop = NextHopMode::Keep;
    configs[2].peers[0].next_hop = NextHopMode::Keep;
    configs[1].follow_next_hops = true;
    let mut lab = Lab::new(configs);
    lab.run(5);
    announce(&mut lab, 0, "10.1.0.0/16", "10.9.0.1");
    announce(&mut lab, 2, "10.1.0.0/16", "10.9.0.2");
    answer(&mut lab, "10.9.0.1", Ok(route("10.9.0.1/32", 20, &["10.0.0.7"])));
    answer(&mut lab, "10.9.0.2", Ok(route("10.9.0.2/32", 10, &["10.0.0.8"])));
    assert_eq!(lab.fib(1), "10.1.0.0/16 via 10.0.0.8\n");
    let paths = lab.speaker(1).explain(&prefix("10.1.0.0/16")).unwrap().paths;
    assert_eq!(paths[0].usage, Usage::Best(Why::InteriorCost));
    let rank = paths[1].rank.clone().unwrap();
    assert_eq!(rank.step, Why::InteriorCost);
    assert_eq!(rank.compared, Some(("20".to_owned(), "10".to_owned())));
    answer(&mut lab, "10.9.0.1", Ok(route("10.9.0.1/32", 10, &["10.0.0.7"])));
    assert_eq!(lab.fib(1), "10.1.0.0/16 via 10.0.0.7 10.0.0.8\n");
    // A route of BGP costs what leads to its own next hop.
    answer(&mut lab, "10.9.0.1", Err("no route"));
    announce(&mut lab, 2, "10.9.0.1/32", "10.0.0.3");
    answer(&mut lab, "10.0.0.3", Ok(route("10.0.0.0/24", 9, &["10.0.0.9"])));
    assert!(lab.fib(1).starts_with("10.1.0.0/16 via 10.0.0.9\n"), "{}", lab.fib(1));
    answer(&mut lab, "10.0.0.3", Ok(route("10.0.0.0/24", 11, &["10.0.0.9"])));
    assert!(lab.fib(1).starts_with("10.1.0.0/16 via 10.0.0.8\n"), "{}", lab.fib(1));
}

/// Who was asked may have died.
#[test]
fn an_answer_that_never_comes_is_not_waited_for_for_ever() {
    let mut lab = scene();
    announce(&mut lab, 0, "10.1.0.0/16", "10.9.9.9");
    lab.run(3);
    assert_eq!(lab.fib(1), "");
    lab.run(2);
    assert_eq!(lab.fib(1), "10.1.0.0/16 via 10.9.9.9\n");
    // Better late than never.
    answer(&mut lab, "10.9.9.9", Err("no route"));
    assert_eq!(lab.fib(1), "");
    // Later ones have the same time, and those that were answered need none.
    announce(&mut lab, 0, "10.2.0.0/16", "10.9.9.8");
    answer(&mut lab, "10.9.9.8", Err("no route"));
    announce(&mut lab, 0, "10.3.0.0/16", "10.9.9.7");
    lab.run(3);
    assert_eq!(lab.fib(1), "");
    lab.run(2);
    assert_eq!(lab.fib(1), "10.3.0.0/16 via 10.9.9.7\n");
    lab.run(20);
    assert_eq!(lab.fib(1), "10.3.0.0/16 via 10.9.9.7\n");
}

/// Otherwise its neighbours would forget the routes that wait (RFC 4724 §4.1).
#[test]
fn a_restart_is_complete_when_the_answers_are_there() {
    let mut lab = scene();
    announce(&mut lab, 0, "10.1.0.0/16", "10.9.9.9");
    answer(&mut lab, "10.9.9.9", Ok(route("10.9.0.0/16", 0, &[])));
    assert_eq!(lab.fib(2), "10.1.0.0/16 via 10.0.0.2\n");
    let again = crate::SpeakerConfig { restarting: true, ..lab.speaker(1).config().clone() };
    lab.kill(1);
    lab.run(1);
    lab.start(1, again);
    lab.fibs[1].clear();
    lab.run(3);
    assert!(!lab.complete[1]);
    assert_eq!(lab.fib(2), "10.1.0.0/16 via 10.0.0.2\n");
    assert!(lab.peer(2, 1).stale.ipv4);
    answer(&mut lab, "10.9.9.9", Ok(route("10.9.0.0/16", 0, &[])));
    assert!(lab.complete[1]);
    assert_eq!(lab.fib(1), "10.1.0.0/16 via 10.9.9.9\n");
    assert_eq!(lab.fib(2), "10.1.0.0/16 via 10.0.0.2\n");
    assert!(lab.peer(2, 1).stale.is_empty());
}

/// No answer: the restart ends all the same.
#[test]
fn a_restart_does_not_wait_for_answers_for_ever() {
    let mut lab = scene();
    announce(&mut lab, 0, "10.1.0.0/16", "10.9.9.9");
    lab.run(6);
    let again = crate::SpeakerConfig { restarting: true, ..lab.speaker(1).config().clone() };
    lab.kill(1);
    lab.run(1);
    lab.start(1, again);
    lab.run(15);
    assert!(lab.complete[1]);
    assert_eq!(lab.fib(2), "10.1.0.0/16 via 10.0.0.2\n");
}

/// What r3 announced was in the kernel as routes to r1, the router before it: that nothing flowed to r3 says nothing.
#[test]
fn a_restart_waits_for_routers_behind_others() {
    for follow in [false, true] {
        let mut configs = mesh_configs(&[1, 1, 1, 1], &[(0, 1), (0, 3)]);
        configs[0].follow_next_hops = follow;
        let again = crate::SpeakerConfig {
            restarting: true,
            forwarding_via: Some([address(1)].into()),
            ..configs[0].clone()
        };
        let mut lab = Lab::new(configs);
        lab.run(5);
        lab.kill(0);
        lab.cut(0, 3);
        lab.start(0, again);
        let now = lab.now;
        let networks = [prefix("10.0.0.0/30")].into();
        let networks = LocalNetworks { addresses: [address(0)].into(), networks };
        lab.speaker(0).handle_networks(networks, now);
        lab.run(8);
        assert_eq!(lab.complete[0], !follow);
        lab.mend(0, 3);
        lab.run(30);
        assert!(lab.complete[0]);
    }
}

/// A default route learned by BGP leads to routers further away, and one to a loopback to that.
#[test]
fn routes_of_bgp_lead_to_next_hops() {
    let mut lab = scene();
    announce(&mut lab, 0, "10.1.0.0/16", "10.9.9.9");
    answer(&mut lab, "10.9.9.9", Err("no route"));
    announce(&mut lab, 0, "0.0.0.0/0", "10.0.0.7");
    assert_eq!(lab.fib(1), "");
    answer(&mut lab, "10.0.0.7", Ok(route("10.0.0.0/24", 0, &[])));
    assert_eq!(lab.fib(1), "0.0.0.0/0 via 10.0.0.7\n10.1.0.0/16 via 10.0.0.7\n");
    // Longer than what leads there now, and itself behind another: the chain is followed.
    announce(&mut lab, 0, "10.9.9.9/32", "10.8.8.8");
    answer(&mut lab, "10.8.8.8", Ok(route("10.8.0.0/16", 5, &["10.0.0.8"])));
    let expected = "0.0.0.0/0 via 10.0.0.7\n10.1.0.0/16 via 10.0.0.8\n10.9.9.9/32 via 10.0.0.8\n";
    assert_eq!(lab.fib(1), expected);
    answer(&mut lab, "10.8.8.8", Ok(route("10.8.0.0/16", 5, &["10.0.0.9"])));
    assert_eq!(lab.fib(1), expected.replace("10.0.0.8", "10.0.0.9"));
    // That of others is longer, then as long.
    answer(&mut lab, "10.9.9.9", Ok(route("10.9.9.9/32", 5, &["10.0.0.6"])));
    assert!(lab.fib(1).contains("10.1.0.0/16 via 10.0.0.6\n"), "{}", lab.fib(1));
    let yielding = ResolvingRoute { yields: true, ..route("10.9.9.9/32", 5, &["10.0.0.6"]) };
    answer(&mut lab, "10.9.9.9", Ok(yielding));
    assert!(lab.fib(1).contains("10.1.0.0/16 via 10.0.0.9\n"), "{}", lab.fib(1));
    answer(&mut lab, "10.9.9.9", Err("no route"));
    lab.withdraw(0, "10.9.9.9/32");
    lab.run(1);
    assert_eq!(lab.fib(1), "0.0.0.0/0 via 10.0.0.7\n10.1.0.0/16 via 10.0.0.7\n");
    lab.withdraw(0, "0.0.0.0/0");
    lab.run(1);
    assert_eq!((lab.fib(1).as_str(), lab.fib(2).as_str()), ("", ""));
}

#[test]
fn a_route_does_not_hold_itself_up() {
    let mut lab = scene();
    announce(&mut lab, 0, "10.9.0.0/16", "10.9.9.9");
    answer(&mut lab, "10.9.9.9", Err("no route"));
    assert_eq!(lab.fib(1), "");
    // Others lead there: it stays so when the route itself is there, and ends with them.
    answer(&mut lab, "10.9.9.9", Ok(route("0.0.0.0/0", 0, &["10.0.0.7"])));
    assert_eq!(lab.fib(1), "10.9.0.0/16 via 10.0.0.7\n");
    lab.come_to_rest(1);
    assert_eq!(lab.fib(1), "10.9.0.0/16 via 10.0.0.7\n");
    answer(&mut lab, "10.9.9.9", Err("no route"));
    assert_eq!((lab.fib(1).as_str(), lab.fib(2).as_str()), ("", ""));
}

/// The same prefix from a neighbour: the way to the next hop of the one path would be the other path.
#[test]
fn a_path_does_not_rest_on_another_of_its_prefix() {
    let mut lab = scene();
    announce(&mut lab, 0, "10.9.0.0/16", "10.9.9.9");
    answer(&mut lab, "10.9.9.9", Err("no route"));
    announce(&mut lab, 2, "10.9.0.0/16", "10.0.0.3");
    answer(&mut lab, "10.0.0.3", Ok(route("10.0.0.0/24", 0, &[])));
    assert_eq!(lab.fib(1), "10.9.0.0/16 via 10.0.0.3\n");
    let explanation = lab.speaker(1).explain(&prefix("10.9.0.0/16")).unwrap();
    let why = "next hop 10.9.9.9 is not reachable: only through this route itself";
    assert_eq!(explanation.paths[1].usage, Usage::Unreachable(why.to_owned()));
    // It leads others there.
    announce(&mut lab, 0, "10.1.0.0/16", "10.9.9.9");
    assert_eq!(lab.fib(1), "10.1.0.0/16 via 10.0.0.3\n10.9.0.0/16 via 10.0.0.3\n");
}

#[test]
fn two_routes_do_not_hold_each_other_up() {
    let mut lab = scene();
    announce(&mut lab, 0, "10.1.0.0/16", "10.2.2.2");
    announce(&mut lab, 0, "10.2.0.0/16", "10.1.1.1");
    for address in ["10.2.2.2", "10.1.1.1"] {
        answer(&mut lab, address, Err("no route"));
    }
    assert_eq!(lab.fib(1), "");
    for address in ["10.2.2.2", "10.1.1.1"] {
        answer(&mut lab, address, Ok(route("0.0.0.0/0", 0, &["10.0.0.7"])));
    }
    let both = "10.1.0.0/16 via 10.0.0.7\n10.2.0.0/16 via 10.0.0.7\n";
    lab.come_to_rest(1);
    assert_eq!(lab.fib(1), both);
    for address in ["10.2.2.2", "10.1.1.1"] {
        answer(&mut lab, address, Err("no route"));
    }
    assert_eq!(lab.fib(1), "");
}

/// Preferred to a route of a neighbour, and each reached through the other's prefix: each would take away what it rests on.
#[test]
fn routes_that_undermine_each_other_come_to_rest() {
    let mut lab = scene();
    for (text, next_hop) in [("10.1.0.0/16", "10.0.0.3"), ("10.2.0.0/16", "10.0.0.3")] {
        announce(&mut lab, 2, text, next_hop);
    }
    answer(&mut lab, "10.0.0.3", Ok(route("10.0.0.0/24", 0, &[])));
    let from_neighbour = lab.fib(1);
    assert_eq!(from_neighbour, "10.1.0.0/16 via 10.0.0.3\n10.2.0.0/16 via 10.0.0.3\n");
    // Shorter paths win.
    announce(&mut lab, 0, "10.1.0.0/16", "10.2.2.2");
    announce(&mut lab, 0, "10.2.0.0/16", "10.1.1.1");
    for address in ["10.2.2.2", "10.1.1.1"] {
        answer(&mut lab, address, Err("no route"));
    }
    lab.come_to_rest(2);
    assert_eq!(lab.fib(1), from_neighbour);
    let best = |lab: &mut Lab, text: &str| {
        lab.speaker(1).explain(&prefix(text)).unwrap().paths[0].peer.clone().unwrap()
    };
    assert_eq!([best(&mut lab, "10.1.0.0/16"), best(&mut lab, "10.2.0.0/16")], ["r0", "r0"]);
}

/// A route of our own is not one that BGP leads to, and a blackhole leads nowhere.
#[test]
fn our_own_routes_lead_nobody() {
    let mut lab = scene();
    lab.originate(1, "10.9.0.0/16");
    announce(&mut lab, 0, "10.1.0.0/16", "10.9.9.9");
    answer(&mut lab, "10.9.9.9", Ok(route("0.0.0.0/0", 0, &["10.0.0.7"])));
    assert_eq!(lab.fib(1), "10.1.0.0/16 via 10.0.0.7\n");
    answer(&mut lab, "10.9.9.9", Err("no route"));
    assert_eq!(lab.fib(1), "");
    assert_eq!(asked(&mut lab), "10.9.9.9?");
}

#[test]
fn nothing_is_asked_by_who_does_not_follow() {
    let mut lab = scene();
    let mut config = lab.speaker(1).config().clone();
    config.follow_next_hops = false;
    let now = lab.now;
    lab.speaker(1).configure(config.clone(), now);
    announce(&mut lab, 0, "10.1.0.0/16", "10.9.9.9");
    assert_eq!((asked(&mut lab).as_str(), lab.fib(1).as_str()), ("", "10.1.0.0/16 via 10.9.9.9\n"));
    config.follow_next_hops = true;
    let now = lab.now;
    lab.speaker(1).configure(config, now);
    lab.run(1);
    assert_eq!((asked(&mut lab).as_str(), lab.fib(1).as_str()), ("10.9.9.9?", ""));
    answer(&mut lab, "10.9.9.9", Ok(route("10.9.0.0/16", 0, &[])));
    assert_eq!(lab.fib(1), "10.1.0.0/16 via 10.9.9.9\n");
}

/// Prefixes whose next hop did not change are not decided about again.
#[test]
fn only_prefixes_of_the_next_hop_are_looked_at_and_in_slices() {
    let mut lab = scene();
    let (one, other) = ("10.9.9.9", "10.9.9.8");
    for number in 0..100 {
        let next_hop = Some(if number % 10 == 0 { one } else { other }.parse().unwrap());
        let text = format!("20.{number}.0.0/16");
        let route = LocalRoute { next_hop, ..LocalRoute::default() };
        lab.speaker(0).originate(prefix(&text), route);
    }
    lab.run(1);
    for address in [one, other] {
        answer(&mut lab, address, Ok(route("10.9.9.0/24", 0, &[])));
    }
    assert_eq!(lab.fibs[1].len(), 100);
    let now = lab.now;
    let address = one.parse().unwrap();
    let gone = NextHopAnswer { address, route: Err("no route".into()) };
    let speaker = lab.speaker(1);
    speaker.handle_next_hops(vec![gone], now);
    let mut sizes = Vec::new();
    while speaker.rib.is_dirty() {
        let taken = speaker.rib.take_dirty(16, &speaker.interner);
        sizes.push(taken.len());
        for id in &taken {
            let outcome = speaker.rib.update(*id, &speaker.interner);
            assert!(outcome.chosen && outcome.fib);
        }
    }
    assert_eq!(sizes.iter().sum::<usize>(), 10);
    assert_eq!(sizes.len(), 7, "{sizes:?}");
}

/// Two neighbours by link-local address, each on a link of its own; on both is fe80::/64.
#[test]
fn a_dead_link_takes_its_own_link_local_next_hops_only() {
    for follow in [false, true] {
        let mut configs = vec![config(0, 1), config(1, 2), config(2, 3)];
        let addresses = ["fe80::1", "fe80::2", "fe80::3"];
        for (index, other) in [(0, 1), (1, 0), (1, 2), (2, 1)] {
            let asn = crate::Asn(u32::try_from(other).unwrap() + 1);
            let address = addresses[other].parse().unwrap();
            let mut peer = PeerConfig::new(format!("r{other}"), address, asn);
            peer.interface = Some(format!("eth{other}"));
            configs[index].peers.push(peer);
        }
        configs[1].follow_next_hops = follow;
        let mut lab = Lab::new(configs);
        lab.renumber(&addresses);
        lab.originate(0, "fd01::/64");
        lab.originate(2, "fd03::/64");
        lab.run(5);
        assert_eq!(lab.fib(1), "fd01::/64 via fe80::1\nfd03::/64 via fe80::3\n");
        assert_eq!(asked(&mut lab), "");
        let now = lab.now;
        let interface = "eth0".to_owned();
        let networks = vec![prefix("fe80::/64")];
        let down = InterfaceDown { interface, addresses: Vec::new(), networks };
        lab.speaker(1).handle_interface_down(down, now);
        lab.run_for(Duration::from_millis(1));
        assert_eq!(lab.fib(1), "fd03::/64 via fe80::3\n");
        let now = lab.now;
        lab.speaker(1).handle_interface_up("eth0", now);
        lab.run(5);
        assert_eq!(lab.fib(1), "fd01::/64 via fe80::1\nfd03::/64 via fe80::3\n");
    }
}

const NEXT_HOPS: [&str; 4] = ["10.1.1.1", "10.2.2.2", "10.3.3.3", "10.0.0.7"];
const PREFIXES: [&str; 5] =
    ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "10.2.2.2/32", "0.0.0.0/0"];

#[derive(Clone, Debug)]
enum Step {
    Announce(usize, usize, usize),
    Withdraw(usize, usize),
    Answer(usize, usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    let speaker = || prop_oneof![Just(0_usize), Just(2)];
    prop_oneof![
        4 => (speaker(), 0..PREFIXES.len(), 0..NEXT_HOPS.len())
            .prop_map(|(from, prefix, hop)| Step::Announce(from, prefix, hop)),
        2 => (speaker(), 0..PREFIXES.len()).prop_map(|(from, prefix)| Step::Withdraw(from, prefix)),
        2 => (0..NEXT_HOPS.len(), 0_usize..4).prop_map(|(hop, what)| Step::Answer(hop, what)),
    ]
}

fn of_machine(what: usize) -> Result<ResolvingRoute, &'static str> {
    match what {
        0 => Err("no route"),
        1 => Ok(route("0.0.0.0/0", 9, &["10.0.0.6"])),
        2 => Ok(route("10.0.0.0/8", 5, &["10.0.0.5"])),
        _ => Ok(ResolvingRoute { yields: true, ..route("10.2.0.0/16", 5, &["10.0.0.4"]) }),
    }
}

/// All routers in one system, so that both may say any next hop; r1 prefers what r2 says.
fn two_tellers() -> Lab {
    let mut configs = mesh_configs(&[1, 1, 1], &[(0, 1), (1, 2)]);
    configs[0].peers[0].next_hop = NextHopMode::Keep;
    configs[2].peers[0].next_hop = NextHopMode::Keep;
    let prefer =
        Rule { operations: vec![Operation::SetLocalPref(200)], ..Rule::new(Action::Accept) };
    let filter = Filter { name: "prefer".into(), rules: vec![prefer] };
    configs[1].peers[1].import.filters.push(filter.into());
    configs[1].follow_next_hops = true;
    let mut lab = Lab::new(configs);
    lab.run(5);
    lab
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// However routes rest on one another, they come to rest, and in the same state as if all had come at once.
    #[test]
    fn what_came_first_does_not_matter(steps in proptest::collection::vec(any_step(), 1..24)) {
        let mut lab = two_tellers();
        let mut routes = std::collections::BTreeMap::new();
        let mut said = [0; NEXT_HOPS.len()];
        for step in &steps {
            match *step {
                Step::Announce(from, prefix, hop) => {
                    announce(&mut lab, from, PREFIXES[prefix], NEXT_HOPS[hop]);
                    routes.insert((from, prefix), hop);
                    // A new one is answered at once.
                    answer(&mut lab, NEXT_HOPS[hop], of_machine(said[hop]));
                }
                Step::Withdraw(from, prefix) => {
                    lab.withdraw(from, PREFIXES[prefix]);
                    routes.remove(&(from, prefix));
                    lab.run(1);
                }
                Step::Answer(hop, what) => {
                    said[hop] = what;
                    answer(&mut lab, NEXT_HOPS[hop], of_machine(what));
                }
            }
        }
        lab.come_to_rest(1);
        let mut fresh = two_tellers();
        for ((from, text), hop) in routes.iter().rev() {
            let next_hop = Some(NEXT_HOPS[*hop].parse().unwrap());
            let route = LocalRoute { next_hop, ..LocalRoute::default() };
            fresh.speaker(*from).originate(prefix(PREFIXES[*text]), route);
        }
        fresh.run(1);
        for (hop, what) in said.iter().enumerate() {
            answer(&mut fresh, NEXT_HOPS[hop], of_machine(*what));
        }
        prop_assert_eq!(lab.fib(1), fresh.fib(1));
        // What the table says it decided is what it decides now.
        for entry in lab.speaker(1).snapshot(true).rib {
            let told = lab.fibs[1].contains_key(&entry.prefix);
            let used = matches!(entry.paths[0].usage, Usage::Best(_));
            prop_assert_eq!(told, used, "{}", entry.prefix);
        }
    }
}

#[test]
fn our_own_routes_need_no_next_hop() {
    let mut lab = scene();
    announce(&mut lab, 1, "10.5.0.0/16", "10.9.9.9");
    lab.run(1);
    assert_eq!(lab.fib(2), "10.5.0.0/16 via 10.0.0.2\n");
}
