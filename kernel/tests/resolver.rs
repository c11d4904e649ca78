//! What the kernel says of next hops, each test in namespaces of its own. Needs root, or `unshare -Urnm cargo test`.

#![cfg(test)]

mod common;

use std::{collections::BTreeSet, time::Duration};

use kernel::{
    Event, Monitor, NetNs, Netlink, NextHop, Resolver, Route, address, link,
    resolver::Verdict,
    route::{self, PROTOCOL_BGP},
    sysctl,
};

use common::{ip, namespace, net, wire};

/// A resolver beside the kernel that it watches.
struct Scene {
    ns: NetNs,
    netlink: Netlink,
    monitor: Monitor,
    resolver: Resolver,
}

impl Scene {
    fn new(addresses: &[&str]) -> Option<Self> {
        let (ns, netlink) = namespace()?;
        let monitor = Monitor::open_in(&ns).unwrap();
        let mut resolver = Resolver::new([PROTOCOL_BGP]);
        addresses.iter().for_each(|address| resolver.watch(ip(address)));
        Some(Self { ns, netlink, monitor, resolver })
    }

    /// Lists what is new.
    fn news(&mut self) -> Vec<String> {
        while let Some(event) = self.monitor.next_within(Duration::from_millis(50)).unwrap() {
            self.resolver.observe(&event);
        }
        let news = self.resolver.answers(&self.netlink).unwrap();
        news.iter().map(|(address, verdict)| format!("{address}: {}", words(verdict))).collect()
    }

    fn add(&self, route: Route) {
        route::add(&self.netlink, &route).unwrap();
    }

    fn via(&self, prefix: &str, gateway: &str) -> Route {
        Route::unicast(net(prefix), vec![NextHop::gateway(ip(gateway))]).with_priority(77)
    }

    fn delete(&self, route: &Route) {
        route::delete(&self.netlink, route).unwrap();
    }
}

fn words(verdict: &Verdict) -> String {
    match verdict {
        Err(why) => why.to_string(),
        Ok(resolution) => {
            let leg = |leg: &kernel::resolver::Leg| match leg.gateway {
                Some(gateway) => format!("via {gateway} dev {}", leg.interface),
                None => format!("dev {}", leg.interface),
            };
            let legs: Vec<String> = resolution.legs.iter().map(leg).collect();
            format!("{} {} metric {}", resolution.prefix, legs.join(" "), resolution.priority)
        }
    }
}

#[test]
fn an_address_is_reached_as_the_longest_route_says_and_every_change_is_told_once() {
    let Some(mut scene) = Scene::new(&["10.9.9.9", "192.0.2.7", "192.0.2.1"]) else { return };
    assert_eq!(scene.news(), ["10.9.9.9: no route", "192.0.2.1: no route", "192.0.2.7: no route"]);
    assert_eq!(scene.news(), [""; 0]);
    wire(&scene.netlink, "d0", &["192.0.2.1/24"]);
    assert_eq!(
        scene.news(),
        ["192.0.2.1: it is an address of this machine", "192.0.2.7: 192.0.2.0/24 dev d0 metric 0"]
    );
    let default = scene.via("0.0.0.0/0", "192.0.2.3");
    scene.add(default.clone());
    assert_eq!(scene.news(), ["10.9.9.9: 0.0.0.0/0 via 192.0.2.3 dev d0 metric 77"]);
    scene.add(scene.via("10.9.0.0/16", "192.0.2.4").with_priority(5));
    assert_eq!(scene.news(), ["10.9.9.9: 10.9.0.0/16 via 192.0.2.4 dev d0 metric 5"]);
    // A shorter one that goes matters to nobody, and is not asked for.
    scene.delete(&default);
    assert_eq!(scene.news(), [""; 0]);
    let hops = ["192.0.2.4", "192.0.2.5"].map(|text| NextHop::gateway(ip(text)));
    scene.add(Route::unicast(net("10.9.9.0/24"), hops.to_vec()));
    assert_eq!(
        scene.news(),
        ["10.9.9.9: 10.9.9.0/24 via 192.0.2.4 dev d0 via 192.0.2.5 dev d0 metric 0"]
    );
    scene.add(Route::blackhole(net("10.9.9.9/32")));
    assert_eq!(scene.news(), ["10.9.9.9: its route 10.9.9.9/32 drops packets"]);
    scene.delete(&Route::blackhole(net("10.9.9.9/32")));
    assert_eq!(scene.news().len(), 1);
    scene.resolver.forget(&ip("10.9.9.9"));
    scene.add(Route::blackhole(net("10.9.9.9/32")));
    assert_eq!(scene.news(), [""; 0]);
}

#[test]
fn ipv6_is_no_different() {
    let Some(mut scene) = Scene::new(&["fd09::9", "2001:db8::7"]) else { return };
    assert_eq!(scene.news(), ["2001:db8::7: no route", "fd09::9: no route"]);
    wire(&scene.netlink, "d0", &["2001:db8::1/64"]);
    assert_eq!(scene.news(), ["2001:db8::7: 2001:db8::/64 dev d0 metric 256"]);
    scene.add(scene.via("::/0", "2001:db8::3"));
    assert_eq!(scene.news(), ["fd09::9: ::/0 via 2001:db8::3 dev d0 metric 77"]);
    scene.add(Route::blackhole(net("fd09::/16")));
    assert_eq!(scene.news(), ["fd09::9: its route fd09::/16 drops packets"]);
    scene.delete(&Route::blackhole(net("fd09::/16")));
    assert_eq!(scene.news(), ["fd09::9: ::/0 via 2001:db8::3 dev d0 metric 77"]);
    let own = scene.via("fd09::/32", "2001:db8::4").with_protocol(PROTOCOL_BGP);
    scene.add(own);
    assert_eq!(scene.news(), [""; 0]);
}

/// The far end goes down, and the kernel keeps the routes; the near end does, and it drops them without a word.
#[test]
fn a_dead_link_leads_nowhere() {
    let Some(mut scene) = Scene::new(&["10.9.9.9", "192.0.2.7", "198.51.100.7"]) else { return };
    let near = wire(&scene.netlink, "d0", &["192.0.2.1/24"]);
    wire(&scene.netlink, "d1", &["198.51.100.1/24"]);
    let far = link::index_of(&scene.netlink, "d0p").unwrap();
    let hops = ["192.0.2.3", "198.51.100.3"].map(|text| NextHop::gateway(ip(text)));
    scene.add(Route::unicast(net("10.9.0.0/16"), hops.to_vec()));
    assert_eq!(scene.news().len(), 3);
    link::set_up(&scene.netlink, far, false).unwrap();
    let down = [
        "10.9.9.9: 10.9.0.0/16 via 198.51.100.3 dev d1 metric 0",
        "192.0.2.7: its route 192.0.2.0/24 is on d0, which is down",
    ];
    assert_eq!(scene.news(), down);
    link::set_up(&scene.netlink, far, true).unwrap();
    let up = [
        "10.9.9.9: 10.9.0.0/16 via 192.0.2.3 dev d0 via 198.51.100.3 dev d1 metric 0",
        "192.0.2.7: 192.0.2.0/24 dev d0 metric 0",
    ];
    assert_eq!(scene.news(), up);
    link::set_up(&scene.netlink, near, false).unwrap();
    assert_eq!(scene.news(), [down[0], "192.0.2.7: no route"]);
    link::delete_by_name(&scene.netlink, "d1").unwrap();
    assert_eq!(scene.news(), ["10.9.9.9: no route", "198.51.100.7: no route"]);
}

/// Own routes hide what others have, and must not hold themselves up.
#[test]
fn own_routes_are_passed_over() {
    let Some(mut scene) = Scene::new(&["10.9.9.9"]) else { return };
    wire(&scene.netlink, "d0", &["192.0.2.1/24"]);
    let own = scene.via("10.9.0.0/16", "192.0.2.4").with_protocol(PROTOCOL_BGP);
    scene.add(own.clone());
    assert_eq!(scene.news(), ["10.9.9.9: no route"]);
    let default = scene.via("0.0.0.0/0", "192.0.2.3");
    scene.add(default.clone());
    let by_default = ["10.9.9.9: 0.0.0.0/0 via 192.0.2.3 dev d0 metric 77"];
    assert_eq!(scene.news(), by_default);
    // Of two the one with the smaller metric, as the kernel does it.
    let better = scene.via("0.0.0.0/0", "192.0.2.5").with_priority(50);
    scene.add(better.clone());
    assert_eq!(scene.news(), ["10.9.9.9: 0.0.0.0/0 via 192.0.2.5 dev d0 metric 50"]);
    scene.add(scene.via("0.0.0.0/0", "192.0.2.6").with_priority(60));
    assert_eq!(scene.news(), [""; 0]);
    scene.delete(&scene.via("0.0.0.0/0", "192.0.2.6").with_priority(60));
    scene.delete(&better);
    assert_eq!(scene.news(), by_default);
    scene.delete(&own);
    assert_eq!(scene.news(), [""; 0]);
    scene.add(Route::blackhole(net("10.9.9.0/24")).with_protocol(PROTOCOL_BGP));
    scene.delete(&default);
    assert_eq!(scene.news(), ["10.9.9.9: no route"]);
    scene.add(default);
    assert_eq!(scene.news(), by_default);
    // One that nobody learned counts.
    scene.add(own);
    scene.resolver.count_also(BTreeSet::from([net("10.9.0.0/16")]));
    assert_eq!(scene.news(), ["10.9.9.9: 10.9.0.0/16 via 192.0.2.4 dev d0 metric 77"]);
}

/// The kernel drops the routes of a link without a word, and an own route over another link hides that.
#[test]
fn behind_an_own_route_a_link_is_missed_as_well() {
    let Some(mut scene) = Scene::new(&["10.9.9.9"]) else { return };
    // The routes of IPv6 are told, and it would be looked because of them.
    for name in ["all", "default"] {
        let path = format!("net/ipv6/conf/{name}/disable_ipv6");
        scene.ns.run(|| sysctl::ensure(&path, "1").unwrap()).unwrap();
    }
    let d0 = wire(&scene.netlink, "d0", &["192.0.2.1/24"]);
    wire(&scene.netlink, "d1", &["198.51.100.1/24"]);
    scene.add(scene.via("10.9.0.0/16", "198.51.100.3").with_protocol(PROTOCOL_BGP));
    scene.add(scene.via("0.0.0.0/0", "192.0.2.3"));
    assert_eq!(scene.news(), ["10.9.9.9: 0.0.0.0/0 via 192.0.2.3 dev d0 metric 77"]);
    link::set_up(&scene.netlink, d0, false).unwrap();
    assert_eq!(scene.news(), ["10.9.9.9: no route"]);
}

#[test]
fn what_goes_without_a_word_is_missed_all_the_same() {
    let Some(mut scene) = Scene::new(&["10.9.9.9"]) else { return };
    let d0 = wire(&scene.netlink, "d0", &["192.0.2.1/24", "198.51.100.1/32"]);
    let route = scene.via("10.9.0.0/16", "192.0.2.4").with_source(Some(ip("198.51.100.1")));
    scene.add(route);
    assert_eq!(scene.news().len(), 1);
    address::delete(&scene.netlink, d0, net("198.51.100.1/32")).unwrap();
    assert_eq!(scene.news(), ["10.9.9.9: no route"]);
    // Every route of the table goes at once, as `ip route flush` does it.
    scene.add(scene.via("10.9.0.0/16", "192.0.2.4"));
    assert_eq!(scene.news().len(), 1);
    for route in route::list(&scene.netlink, route::Filter::default()).unwrap() {
        scene.delete(&route);
    }
    assert_eq!(scene.news(), ["10.9.9.9: no route"]);
}

/// The kernel had more to tell than we could take.
#[test]
fn after_lost_events_everything_is_looked_at() {
    let Some(mut scene) = Scene::new(&["10.9.9.9", "192.0.2.7"]) else { return };
    let d0 = wire(&scene.netlink, "d0", &["192.0.2.1/24"]);
    scene.add(scene.via("10.0.0.0/8", "192.0.2.9").with_protocol(PROTOCOL_BGP));
    scene.add(scene.via("0.0.0.0/0", "192.0.2.3"));
    assert_eq!(scene.news().len(), 2);
    scene.delete(&scene.via("0.0.0.0/0", "192.0.2.3"));
    let far = link::index_of(&scene.netlink, "d0p").unwrap();
    link::set_up(&scene.netlink, far, false).unwrap();
    let is_dead = || !link::by_index(&scene.netlink, d0).unwrap().unwrap().carrier;
    while !is_dead() {
        let _ = scene.monitor.next_within(Duration::from_millis(5)).unwrap();
    }
    while scene.monitor.next_within(Duration::from_millis(50)).unwrap().is_some() {}
    assert_eq!(scene.news(), [""; 0]);
    scene.resolver.observe(&Event::Overrun);
    let found = ["10.9.9.9: no route", "192.0.2.7: its route 192.0.2.0/24 is on d0, which is down"];
    assert_eq!(scene.news(), found);
}
