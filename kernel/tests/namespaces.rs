//! The rim against the real kernel, each test in namespaces of its own. Needs root, or `unshare -Urnm cargo test`.

#![cfg(test)]

mod common;

use std::time::Duration;

use kernel::{
    Address, Event, MacAddr, Monitor, NetNs, Netlink, NextHop, Route, RouteKind, RouteTable,
    address,
    link::{self, VethEnd},
    neighbour, netns,
    route::{self, Filter, PROTOCOL_BGP, PROTOCOL_WORKLOAD},
    sysctl,
};

use common::{ip, namespace, net, wire};

const PATIENCE: Duration = Duration::from_secs(5);

fn listed(netlink: &Netlink, protocol: u8) -> Vec<String> {
    let routes = route::list(netlink, Filter::protocol(protocol)).unwrap();
    routes.iter().map(ToString::to_string).collect()
}

#[test]
fn a_named_namespace_is_made_entered_and_removed_without_moving_the_caller() {
    let folder = std::env::temp_dir().join(format!("voile-netns-{}", std::process::id()));
    let path = folder.join("blue");
    let before = netns::current_netns_inode().unwrap();
    match netns::create(&path) {
        Err(error) if error.is_denied() => {
            eprintln!("skipped: {error}");
            return;
        }
        other => other.unwrap(),
    }
    assert_eq!(netns::current_netns_inode().unwrap(), before);
    assert!(netns::create(&path).is_err(), "an existing name is refused");
    let inside = netns::in_netns(&path, || netns::current_netns_inode().unwrap()).unwrap();
    assert_eq!(inside, netns::inode(&path).unwrap());
    assert_ne!(inside, before);
    netns::delete(&path).unwrap();
    netns::delete(&path).unwrap();
    assert!(!path.exists());
    std::fs::remove_dir(&folder).unwrap();
}

#[test]
fn veth_is_made_across_namespaces_with_everything_set() {
    let (Some((_host, host)), Some((pod_ns, pod))) = (namespace(), namespace()) else { return };
    let mac: MacAddr = "ee:ee:ee:ee:ee:ee".parse().unwrap();
    let near = VethEnd { name: "cali1".into(), mtu: Some(1400), mac: Some(mac), netns: None };
    let far = VethEnd { name: "eth0".into(), mtu: Some(1400), mac: None, netns: Some(&pod_ns) };
    link::create_veth(&host, &near, &far).unwrap();
    assert!(link::create_veth(&host, &near, &far).unwrap_err().is_existing());

    let cali = link::by_name(&host, "cali1").unwrap().unwrap();
    let eth0 = link::by_name(&pod, "eth0").unwrap().unwrap();
    assert_eq!((cali.mac, cali.mtu, cali.up), (Some(mac), 1400, false));
    assert_eq!((cali.peer, eth0.peer), (Some(eth0.index), Some(cali.index)));
    assert_eq!((cali.kind.as_deref(), eth0.mtu), (Some("veth"), 1400));

    link::set_alias(&host, cali.index, "voile:net:1:eth0").unwrap();
    let alias = link::by_name(&host, "cali1").unwrap().unwrap().alias;
    assert_eq!(alias.as_deref(), Some("voile:net:1:eth0"));
    link::set_up(&host, cali.index, true).unwrap();
    link::set_up(&pod, eth0.index, true).unwrap();
    assert!(link::by_index(&host, cali.index).unwrap().unwrap().is_operational());

    link::create_bridge(&host, "br0").unwrap();
    let bridge = link::index_of(&host, "br0").unwrap();
    link::set_master(&host, cali.index, Some(bridge)).unwrap();
    assert_eq!(link::by_name(&host, "cali1").unwrap().unwrap().master, Some(bridge));

    assert!(link::delete_by_name(&host, "cali1").unwrap());
    assert!(!link::delete_by_name(&host, "cali1").unwrap());
    assert_eq!(link::by_name(&pod, "eth0").unwrap(), None);
}

#[test]
fn addresses_and_neighbours_are_listed_as_added_and_deletions_are_idempotent() {
    let Some((_ns, netlink)) = namespace() else { return };
    let index = wire(&netlink, "d0", &["10.1.2.3/32", "fd00::5/128"]);
    let listed = address::list(&netlink, Some(index)).unwrap();
    let prefixes: Vec<_> = listed.iter().map(|address| address.prefix.to_string()).collect();
    for prefix in ["10.1.2.3/32", "fd00::5/128"] {
        assert!(prefixes.iter().any(|found| found == prefix), "{prefixes:?}");
    }
    assert!(listed.iter().all(|address| !address.no_dad || !address.tentative), "{listed:?}");
    address::replace(&netlink, &Address::new(index, net("fd00::5/128"))).unwrap();
    for _ in 0..2 {
        address::delete(&netlink, index, net("10.1.2.3/32")).unwrap();
    }

    let mac: MacAddr = "ee:ee:ee:ee:ee:ee".parse().unwrap();
    link::create_veth(
        &netlink,
        &VethEnd { name: "v0".into(), ..VethEnd::default() },
        &VethEnd { name: "v1".into(), ..VethEnd::default() },
    )
    .unwrap();
    let veth = link::index_of(&netlink, "v0").unwrap();
    link::set_up(&netlink, veth, true).unwrap();
    neighbour::set_permanent(&netlink, veth, ip("169.254.1.1"), mac).unwrap();
    neighbour::set_permanent(&netlink, veth, ip("fe80::1"), mac).unwrap();
    neighbour::add_proxy(&netlink, veth, ip("fd00::9")).unwrap();
    let entries = neighbour::list(&netlink, veth).unwrap();
    let permanent =
        entries.iter().filter(|entry| entry.permanent && entry.mac == Some(mac)).count();
    let proxies = entries.iter().filter(|entry| entry.proxy).count();
    assert_eq!((permanent, proxies), (2, 1), "{entries:?}");
    for _ in 0..2 {
        neighbour::delete(&netlink, veth, ip("169.254.1.1")).unwrap();
        neighbour::delete_proxy(&netlink, veth, ip("fd00::9")).unwrap();
    }
}

#[test]
fn routes_of_every_shape_come_back_as_written() {
    let Some((_ns, netlink)) = namespace() else { return };
    let d0 = wire(&netlink, "d0", &["192.0.2.1/24", "2001:db8::1/64"]);
    let d1 = wire(&netlink, "d1", &["198.51.100.1/24", "2001:db8:1::1/64"]);
    let hop =
        |gateway: &str, index: u32, weight| NextHop { weight, ..NextHop::via(ip(gateway), index) };
    let cases = [
        Route::device(net("10.0.0.1/32"), d0),
        Route::via(net("10.1.0.0/16"), ip("192.0.2.9"), d0).with_source(Some(ip("192.0.2.1"))),
        Route::unicast(
            net("10.2.0.0/16"),
            vec![hop("192.0.2.9", d0, 1), hop("198.51.100.9", d1, 3)],
        ),
        Route::via(net("10.3.0.0/16"), ip("2001:db8::9"), d0),
        Route::blackhole(net("10.4.0.0/26")),
        Route::via(net("0.0.0.0/0"), ip("192.0.2.9"), d0),
        Route::via(net("10.5.0.0/16"), ip("192.0.2.9"), d0).with_table(1000),
        Route::device(net("fd00::1/128"), d0),
        Route::unicast(
            net("fd00:2::/64"),
            vec![hop("2001:db8::9", d0, 1), hop("2001:db8:1::9", d1, 2)],
        ),
        Route::blackhole(net("fd00:4::/122")),
    ];
    for case in cases {
        let case = case.with_protocol(PROTOCOL_BGP).with_priority(1024).normalized();
        route::add(&netlink, &case).unwrap();
        assert!(route::add(&netlink, &case).unwrap_err().is_existing(), "{case}");
        let filter = Filter { protocol: Some(PROTOCOL_BGP), table: Some(case.table) };
        let found = route::list(&netlink, filter).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(case.is_met_by(&found[0]), "{case:?}\n{:?}", found[0]);
        route::delete(&netlink, &case).unwrap();
        route::delete(&netlink, &case).unwrap();
        assert!(route::list(&netlink, filter).unwrap().is_empty());
    }
}

#[test]
fn replacing_leaves_no_leg_of_the_old_route() {
    let Some((_ns, netlink)) = namespace() else { return };
    let d0 = wire(&netlink, "d0", &["192.0.2.1/24", "2001:db8::1/64"]);
    for (prefix, gateways) in [
        ("10.0.0.0/8", ["192.0.2.7", "192.0.2.8", "192.0.2.9"]),
        ("fd00::/48", ["2001:db8::7", "2001:db8::8", "2001:db8::9"]),
    ] {
        let to = |gateways: &[&str]| {
            let hops = gateways.iter().map(|gateway| NextHop::via(ip(gateway), d0)).collect();
            Route::unicast(net(prefix), hops)
                .with_protocol(PROTOCOL_BGP)
                .with_priority(1024)
                .normalized()
        };
        let blackhole =
            Route::blackhole(net(prefix)).with_protocol(PROTOCOL_BGP).with_priority(1024);
        let local = Route::device(net(prefix), d0).with_protocol(PROTOCOL_BGP).with_priority(1024);
        let steps = [
            to(&gateways),
            to(&gateways[1..]),
            to(&gateways[..1]),
            blackhole,
            to(&gateways),
            local.normalized(),
            to(&gateways[1..]),
        ];
        for step in steps {
            route::replace(&netlink, &step).unwrap();
            let found = route::list(&netlink, Filter::protocol(PROTOCOL_BGP)).unwrap();
            assert_eq!(found.len(), 1, "after {step}: {found:?}");
            assert!(step.is_met_by(&found[0]), "{step:?}\n{:?}", found[0]);
        }
        route::delete(&netlink, &to(&gateways)).unwrap();
        assert!(listed(&netlink, PROTOCOL_BGP).is_empty());
    }
}

/// Feeds everything the monitor has to the table, then applies.
fn settle(table: &mut RouteTable, monitor: &mut Monitor, netlink: &Netlink) -> kernel::Report {
    while let Some(event) = monitor.next_within(Duration::from_millis(50)).unwrap() {
        table.observe(&event, netlink);
    }
    table.apply(netlink).unwrap()
}

#[test]
fn the_table_adopts_repairs_and_sweeps_only_its_own() {
    let Some((ns, netlink)) = namespace() else { return };
    let mut monitor = Monitor::open_in(&ns).unwrap();
    let other = Netlink::open_in(&ns).unwrap();
    let d0 = wire(&other, "d0", &["192.0.2.1/24", "2001:db8::1/64"]);
    let bgp = |prefix: &str, gateway: &str| {
        Route::via(net(prefix), ip(gateway), "d0").with_protocol(PROTOCOL_BGP).with_priority(1024)
    };
    let foreign = Route::blackhole(net("10.8.0.0/16")).with_priority(1024);
    route::add(&other, &foreign).unwrap();
    route::add(&other, &bgp("10.1.0.0/16", "192.0.2.9")).unwrap();
    route::add(&other, &bgp("10.2.0.0/16", "192.0.2.9")).unwrap();

    let mut table = RouteTable::new([PROTOCOL_BGP, PROTOCOL_WORKLOAD]);
    table.set(bgp("10.1.0.0/16", "192.0.2.9"));
    table.set(bgp("10.8.0.0/16", "192.0.2.9"));
    table.set(bgp("fd00:1::/48", "2001:db8::9"));
    let report = settle(&mut table, &mut monitor, &netlink);
    assert_eq!(report.changed(), 1, "only the IPv6 one was missing: {report:?}");
    assert!(report.failed[0].1.contains("another program's route"), "{report:?}");

    // Someone flushes, someone replaces: both are undone.
    route::delete(&other, &bgp("10.1.0.0/16", "192.0.2.9")).unwrap();
    route::replace(&other, &bgp("fd00:1::/48", "2001:db8::8")).unwrap();
    let report = settle(&mut table, &mut monitor, &netlink);
    assert_eq!(report.written.len(), 2, "{report:?}");
    assert_eq!(settle(&mut table, &mut monitor, &netlink).changed(), 0, "own echoes are ignored");

    // The foreign route leaves: ours takes its place.
    route::delete(&other, &foreign).unwrap();
    assert_eq!(settle(&mut table, &mut monitor, &netlink).written.len(), 1);

    table.allow_sweep(PROTOCOL_BGP);
    let report = settle(&mut table, &mut monitor, &netlink);
    assert_eq!(report.removed.len(), 1);
    assert_eq!(
        listed(&netlink, PROTOCOL_BGP),
        [
            format!("10.1.0.0/16 via 192.0.2.9 dev #{d0} proto 186 metric 1024"),
            format!("10.8.0.0/16 via 192.0.2.9 dev #{d0} proto 186 metric 1024"),
            format!("fd00:1::/48 via 2001:db8::9 dev #{d0} proto 186 metric 1024"),
        ]
    );
}

/// One write each, whatever stood there before: the prefix is never without a route, and no leg stays behind.
#[test]
fn a_route_turns_into_a_blackhole_and_back_with_any_number_of_legs() {
    let Some((_netns, netlink)) = namespace() else { return };
    wire(&netlink, "d0", &["10.0.0.1/24", "fd00::1/64"]);
    let mut table = RouteTable::new([PROTOCOL_BGP]);
    let ours = |route: Route| route.with_protocol(PROTOCOL_BGP).with_priority(1024);
    let via = |prefix: &str, gateways: &[&str]| {
        let hops = gateways.iter().map(|gateway| NextHop::gateway(ip(gateway))).collect();
        ours(Route::unicast(net(prefix), hops))
    };
    for (prefix, gateways) in [
        ("10.66.7.7/32", ["10.0.0.2", "10.0.0.3", "10.0.0.4"]),
        ("fd66::7/128", ["fd00::2", "fd00::3", "fd00::4"]),
    ] {
        let blackhole = ours(Route::blackhole(net(prefix)));
        let (one, three) = (via(prefix, &gateways[..1]), via(prefix, &gateways));
        let steps = [&blackhole, &one, &blackhole, &three, &blackhole, &three, &one, &blackhole];
        for (number, step) in steps.into_iter().enumerate() {
            table.set(step.clone());
            let report = table.apply(&netlink).unwrap();
            assert_eq!(
                (report.written.len(), report.removed.len()),
                (1, 0),
                "{number}: {report:?}"
            );
            let found = route::list(&netlink, Filter::protocol(PROTOCOL_BGP)).unwrap();
            let [found] = found.as_slice() else { panic!("{number}: {found:?}") };
            assert!(step.is_met_by(found), "{number}: wanted {step}, found {found}");
            // Another life finds it as it is, and has nothing to write.
            let mut restarted = RouteTable::new([PROTOCOL_BGP]);
            restarted.set(step.clone());
            assert_eq!(restarted.apply(&netlink).unwrap().changed(), 0, "{number}: {step}");
        }
        table.unset(net(prefix), PROTOCOL_BGP);
        assert_eq!(table.apply(&netlink).unwrap().removed.len(), 1);
        assert_eq!(listed(&netlink, PROTOCOL_BGP), Vec::<String>::new());
    }
}

#[test]
fn routes_come_back_when_their_interface_does() {
    let Some((ns, netlink)) = namespace() else { return };
    let mut monitor = Monitor::open_in(&ns).unwrap();
    let mut table = RouteTable::new([PROTOCOL_WORKLOAD]);
    for prefix in ["10.0.0.1/32", "fd00::1/128"] {
        table.set(
            Route::device(net(prefix), "cali1")
                .with_protocol(PROTOCOL_WORKLOAD)
                .with_priority(1024),
        );
    }
    let report = settle(&mut table, &mut monitor, &netlink);
    assert_eq!((report.changed(), report.pending.len()), (0, 2));

    wire(&netlink, "cali1", &[]);
    assert_eq!(settle(&mut table, &mut monitor, &netlink).written.len(), 2);

    link::set_up(&netlink, link::index_of(&netlink, "cali1").unwrap(), false).unwrap();
    let report = settle(&mut table, &mut monitor, &netlink);
    assert_eq!(report.failed.len(), 2, "{report:?}");
    link::set_up(&netlink, link::index_of(&netlink, "cali1").unwrap(), true).unwrap();
    assert_eq!(settle(&mut table, &mut monitor, &netlink).written.len(), 2);

    link::delete_by_name(&netlink, "cali1").unwrap();
    assert_eq!(settle(&mut table, &mut monitor, &netlink).pending.len(), 2);
    wire(&netlink, "cali1", &[]);
    assert_eq!(settle(&mut table, &mut monitor, &netlink).written.len(), 2);
    assert_eq!(listed(&netlink, PROTOCOL_WORKLOAD).len(), 2);
}

#[test]
fn ten_thousand_routes_are_written_and_found_unchanged() {
    let Some((ns, netlink)) = namespace() else { return };
    wire(&netlink, "d0", &["192.0.2.1/24"]);
    let fill = |table: &mut RouteTable| {
        for high in 0..40_u8 {
            for low in 0..250_u8 {
                let prefix = net(&format!("10.{high}.{low}.0/24"));
                table.set(
                    Route::via(prefix, ip("192.0.2.9"), "d0")
                        .with_protocol(PROTOCOL_BGP)
                        .with_priority(1024),
                );
            }
        }
    };
    let mut table = RouteTable::new([PROTOCOL_BGP]);
    fill(&mut table);
    assert_eq!(table.apply(&netlink).unwrap().written.len(), 10_000);
    let mut restarted = RouteTable::new([PROTOCOL_BGP]);
    fill(&mut restarted);
    restarted.allow_sweep(PROTOCOL_BGP);
    assert_eq!(restarted.apply(&Netlink::open_in(&ns).unwrap()).unwrap().changed(), 0);
    restarted.replace_all(PROTOCOL_BGP, []);
    assert_eq!(restarted.apply(&netlink).unwrap().removed.len(), 10_000);
}

#[test]
fn the_monitor_tells_the_life_of_an_interface() {
    let Some((ns, netlink)) = namespace() else { return };
    let mut monitor = Monitor::open_in(&ns).unwrap();
    let index = wire(&netlink, "d0", &["192.0.2.1/24"]);
    route::add(&netlink, &Route::blackhole(net("10.0.0.0/26"))).unwrap();
    link::set_name(&netlink, index, "d1").unwrap();
    link::set_up(&netlink, index, false).unwrap();
    link::delete(&netlink, index).unwrap();
    let mut story = Vec::new();
    loop {
        let event = monitor.next_within(PATIENCE).unwrap().expect("the story goes on");
        match event {
            Event::LinkNew(link)
            | Event::LinkUp(link)
            | Event::LinkDown(link)
            | Event::LinkDeleted(link)
                if !["d0", "d1"].contains(&link.name.as_str()) => {}
            Event::LinkNew(link) => story.push(format!("new {}", link.name)),
            Event::LinkUp(link) => story.push(format!("up {}", link.name)),
            Event::LinkDown(link) => story.push(format!("down {}", link.name)),
            Event::LinkDeleted(link) if link.name == "d1" => break,
            Event::LinkDeleted(link) => story.push(format!("deleted {}", link.name)),
            Event::AddressAdded(address) if address.prefix.addr().is_ipv4() => {
                story.push(format!("address {}", address.prefix));
            }
            Event::RouteAdded { route, origin } if route.kind == RouteKind::Blackhole => {
                assert_eq!(origin, netlink.port());
                story.push(format!("route {route}"));
            }
            _ => (),
        }
    }
    assert_eq!(
        story,
        [
            "new d0",
            "up d0",
            "address 192.0.2.1/24",
            "route blackhole 10.0.0.0/26 proto 4 metric 0",
            "deleted d0",
            "new d1",
            "up d1",
            // The kernel tells addresses again, with the new label.
            "address 192.0.2.1/24",
            "down d1"
        ]
    );
}

#[test]
fn sysctls_are_those_of_the_namespace_and_say_what_is_wrong() {
    let Some((ns, netlink)) = namespace() else { return };
    wire(&netlink, "d0.5", &[]);
    let path = sysctl::ipv4_conf("d0.5", "rp_filter");
    ns.run(|| {
        if let Err(error) = sysctl::write(&path, "2") {
            assert!(
                matches!(error.cause, sysctl::Cause::ReadOnly | sysctl::Cause::Denied),
                "{error}"
            );
            eprintln!("skipped: {error}");
            return;
        }
        assert_eq!(sysctl::read(&path).unwrap(), "2");
        assert!(!sysctl::ensure(&path, "2").unwrap());
        assert!(sysctl::ensure(&path, "0").unwrap());
    })
    .unwrap();
    let error = sysctl::write(&path, "1").unwrap_err();
    assert!(matches!(error.cause, sysctl::Cause::Missing), "{error}");
    assert!(error.to_string().starts_with("write 1 to sysctl net/ipv4/conf/d0.5/rp_filter: "));
}

/// In a mount namespace of its own, with a `/run` that no namespace was ever pinned in.
#[test]
fn what_we_pin_can_be_removed_after_someone_called_ip_netns() {
    use nix::{
        mount::{MsFlags, mount},
        sched::{CloneFlags, unshare},
    };
    let story = || {
        if let Err(errno) = unshare(CloneFlags::CLONE_NEWNS) {
            return eprintln!("SKIPPED: {errno}: run as root or under `unshare -Urnm`");
        }
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
        let path = netns::named("ours");
        drop(NetNs::create(&path).unwrap());
        let theirs = std::process::Command::new("ip").args(["netns", "add", "theirs"]).status();
        if !theirs.is_ok_and(|status| status.success()) {
            return eprintln!("SKIPPED: no `ip netns add` here");
        }
        netns::delete(&path).unwrap();
        assert!(!path.exists());
        netns::delete(&netns::named("theirs")).unwrap();
    };
    std::thread::spawn(story).join().unwrap();
}
