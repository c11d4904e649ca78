//! The driver against a real kernel, with a small engine instead of the policy core.

#![expect(clippy::disallowed_methods, reason = "measuring takes a clock")]

mod engine;
mod felix;
mod packets;

use std::{
    future::Future,
    net::IpAddr,
    process::Command,
    time::{Duration, Instant as Clock},
};

use kernel::{NetNs, Netlink, link};
use tokio::time::{Instant, timeout};

use self::engine::Simple;
use super::{Config, Event, FibEntry, FibRoute, Handle, spawn};
use crate::update::{EndpointId, LocalEndpoint, Update};

/// Runs in a fresh network namespace with a runtime.
fn isolated<T: Send, F: Future<Output = T>>(work: impl FnOnce() -> F + Send) -> T {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work())
    };
    NetNs::anonymous().unwrap().run(run).unwrap()
}

fn run(command: &str) -> String {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn start() -> Handle {
    spawn(Config::default(), Simple::default()).unwrap()
}

fn id(number: u8) -> EndpointId {
    EndpointId { container_id: format!("c{number}"), ifname: "eth0".to_owned() }
}

fn addr(number: u8) -> IpAddr {
    IpAddr::from([10, 244, 0, number])
}

fn endpoint(number: u8) -> Update {
    let local = LocalEndpoint {
        pod: api::Key::namespaced("default", format!("p{number}")),
        pod_uid: None,
        host_interface: format!("cali{number}"),
        addresses: vec![addr(number)],
        mac: None,
    };
    Update::LocalEndpoint(id(number), Some(local))
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn veth(number: u8) {
    let netlink = Netlink::open().unwrap();
    let end = |name: String| link::VethEnd { name, ..link::VethEnd::default() };
    link::create_veth(&netlink, &end(format!("cali{number}")), &end(format!("peer{number}")))
        .unwrap();
    for name in [format!("cali{number}"), format!("peer{number}")] {
        let index = link::index_of(&netlink, &name).unwrap();
        link::set_up(&netlink, index, true).unwrap();
    }
}

#[test]
fn nothing_is_written_before_everything_is_known() {
    isolated(|| async {
        let handle = start();
        handle.updates(vec![endpoint(1)]).await;
        let early = Instant::now() + Duration::from_millis(100);
        let error = handle.wait_endpoint(id(1), early).await.unwrap_err();
        assert!(error.to_string().contains("not all known"), "{error}");
        assert_eq!(run("nft list ruleset"), "");
        handle.updates(vec![Update::InSync]).await;
        handle.wait_endpoint(id(1), soon()).await.unwrap();
        assert!(run("nft list table inet voile").contains("\"cali1\" : goto ep-cali1"));
        let status = handle.status().borrow().clone();
        assert_eq!((status.commits, status.endpoints, status.in_sync), (1, 1, true));
        assert!(status.last_commit.is_some());
        handle.shutdown().await;
        assert!(run("nft list table inet voile").contains("ep-cali1"));
    });
}

#[test]
fn a_restarted_driver_writes_nothing() {
    isolated(|| async {
        veth(1);
        let told = || vec![endpoint(1), endpoint(2), Update::InSync];
        let first = start();
        first.updates(told()).await;
        first.wait_routes(&[addr(1)], soon()).await.unwrap();
        first.shutdown().await;
        let (generation, routes) = (run("nft -a list ruleset"), run("ip route show"));
        let second = start();
        second.updates(told()).await;
        second.wait_endpoint(id(1), soon()).await.unwrap();
        second.wait_routes(&[addr(1)], soon()).await.unwrap();
        assert_eq!(second.status().borrow().commits, 0);
        assert_eq!(second.status().borrow().last_commit, None);
        // What is there is reported all the same.
        assert!(second.status().borrow().table.rules > 0);
        assert_eq!((run("nft -a list ruleset"), run("ip route show")), (generation, routes));
    });
}

#[test]
fn what_others_remove_is_back_within_a_second() {
    isolated(|| async {
        let handle = start();
        handle.updates(vec![endpoint(1), endpoint(2), Update::InSync]).await;
        handle.wait_endpoint(id(2), soon()).await.unwrap();
        let before = run("nft list table inet voile");
        let mut events = handle.events();
        let attacks = [
            ("nft flush chain inet voile ep-cali1", "rule removed from chain ep-cali1"),
            ("nft delete table inet voile", "table removed"),
            ("nft flush ruleset", "table removed"),
            ("nft insert rule inet voile forward accept", "rule added to chain forward"),
        ];
        for (attack, words) in attacks {
            let start = Clock::now();
            run(attack);
            let event = timeout(Duration::from_secs(1), events.recv()).await.unwrap().unwrap();
            println!("{attack}: repaired {:?} after nft was started", start.elapsed());
            let Event::Drift { changes, .. } = event else { panic!("{event:?}") };
            assert!(changes.iter().any(|change| change == words), "{changes:?}");
            assert_eq!(run("nft list table inet voile"), before);
        }
        run("nft add table ip foreign");
        handle.updates(vec![endpoint(3)]).await;
        handle.wait_endpoint(id(3), soon()).await.unwrap();
        let status = handle.status().borrow().clone();
        assert_eq!((status.drift_repairs, status.last_error), (4, None));
    });
}

#[test]
fn one_refused_policy_does_not_hold_up_the_others() {
    isolated(|| async {
        let handle = start();
        let mut events = handle.events();
        let broken = Update::LocalEndpoint(
            EndpointId { container_id: "broken".to_owned(), ifname: "eth0".to_owned() },
            Some(LocalEndpoint {
                pod: api::Key::namespaced("default", "broken"),
                pod_uid: None,
                host_interface: "cali9".to_owned(),
                addresses: vec![],
                mac: None,
            }),
        );
        handle.updates(vec![broken, endpoint(1), Update::InSync]).await;
        handle.wait_endpoint(id(1), soon()).await.unwrap();
        let Event::Quarantined { chains, error } = events.recv().await.unwrap() else { panic!() };
        assert_eq!(chains.first().unwrap().as_str(), "ep-cali9");
        assert!(error.contains("jump missing"), "{error}");
        let listed = run("nft list chain inet voile ep-cali9");
        assert!(listed.contains("drop comment \"refused by the kernel\""), "{listed}");
        // The others go on at once.
        handle.updates(vec![endpoint(2)]).await;
        let quick = Instant::now() + Duration::from_millis(90);
        handle.wait_endpoint(id(2), quick).await.unwrap();
    });
}

#[test]
fn routes_follow_interfaces_and_come_back() {
    isolated(|| async {
        let handle = start();
        let mut events = handle.events();
        handle.updates(vec![endpoint(1), Update::InSync]).await;
        let early = Instant::now() + Duration::from_millis(100);
        handle.wait_routes(&[addr(1)], early).await.unwrap_err();
        let start = Clock::now();
        veth(1);
        handle.wait_routes(&[addr(1)], soon()).await.unwrap();
        println!("route after the interface appeared: {:?}", start.elapsed());
        let listed = run("ip route show proto 80");
        assert_eq!(listed.trim(), "10.244.0.1 dev cali1 scope link metric 1024");
        let start = Clock::now();
        run("ip route del 10.244.0.1 dev cali1 metric 1024");
        while !matches!(events.recv().await.unwrap(), Event::RoutesRepaired { routes } if routes == ["10.244.0.1/32"])
        {
        }
        println!("route repaired: {:?}", start.elapsed());
        assert_eq!(run("ip route show proto 80"), listed);
        handle.updates(vec![Update::LocalEndpoint(id(1), None)]).await;
        handle.updates(vec![endpoint(2)]).await;
        handle.wait_endpoint(id(2), soon()).await.unwrap();
        assert_eq!(run("ip route show proto 80"), "");
    });
}

#[test]
fn routes_of_a_former_run_stay_until_bgp_has_told_all() {
    isolated(|| async {
        veth(1);
        run("ip addr add 192.0.2.1/24 dev cali1");
        run("ip route add 10.1.0.0/16 via 192.0.2.2 proto 186 metric 1024");
        run("ip route add 10.9.0.0/16 via 192.0.2.2 proto 4");
        let handle = start();
        handle.updates(vec![endpoint(2), Update::InSync]).await;
        let hops = vec![("192.0.2.2".parse().unwrap(), None), ("192.0.2.3".parse().unwrap(), None)];
        let entry = FibEntry { prefix: "10.2.0.0/16".parse().unwrap(), route: FibRoute::Via(hops) };
        let dropped =
            FibEntry { prefix: "10.3.0.7/32".parse().unwrap(), route: FibRoute::Blackhole };
        handle.set_fib(vec![entry, dropped]).await;
        let mut status = handle.status();
        status.wait_for(|status| status.routes >= 3).await.unwrap();
        let listed = run("ip route show proto 186");
        assert!(listed.contains("blackhole 10.3.0.7"), "{listed}");
        assert!(listed.contains("10.1.0.0/16") && listed.contains("10.2.0.0/16"), "{listed}");
        handle.fib_synced().await;
        handle.updates(vec![endpoint(3)]).await;
        handle.wait_endpoint(id(3), soon()).await.unwrap();
        let listed = run("ip route show proto 186");
        assert!(!listed.contains("10.1.0.0/16") && listed.contains("192.0.2.3"), "{listed}");
        // What was dropped goes on, and back: one write each.
        let via = FibRoute::Via(vec![("192.0.2.2".parse().unwrap(), None)]);
        for (number, route, expected) in
            [(4, via, "10.3.0.7 via 192.0.2.2"), (5, FibRoute::Blackhole, "blackhole 10.3.0.7")]
        {
            let prefix = "10.3.0.7/32".parse().unwrap();
            handle.set_fib(vec![FibEntry { prefix, route }]).await;
            handle.updates(vec![endpoint(number)]).await;
            handle.wait_endpoint(id(number), soon()).await.unwrap();
            let listed = run("ip route show proto 186");
            assert!(listed.contains(expected), "{listed}");
        }
        assert!(run("ip route show proto 4").contains("10.9.0.0/16"));
    });
}
