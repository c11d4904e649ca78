//! Real packets between pods.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use kernel::{NetNs, Netlink, link};

use super::{addr, endpoint, id, isolated, run, soon, start};
use crate::update::Update;

/// A pod: namespace, veth to the node, address, default route.
pub(super) fn pod(number: u8) -> NetNs {
    let netns = NetNs::anonymous().unwrap();
    let netlink = Netlink::open().unwrap();
    let near = link::VethEnd { name: format!("cali{number}"), ..link::VethEnd::default() };
    let far =
        link::VethEnd { name: "eth0".to_owned(), netns: Some(&netns), ..link::VethEnd::default() };
    link::create_veth(&netlink, &near, &far).unwrap();
    run(&format!("ip link set {} up", near.name));
    netns
        .run(|| {
            run("ip link set lo up");
            run("ip link set eth0 up");
            run(&format!("ip addr add {}/32 dev eth0", addr(number)));
            run("ip route add 169.254.1.1 dev eth0");
            run("ip route add default via 169.254.1.1 dev eth0");
        })
        .unwrap();
    netns
}

pub(super) fn connect(from: &NetNs, to: IpAddr, port: u16) -> io::Result<()> {
    let target = SocketAddr::new(to, port);
    let attempt = || TcpStream::connect_timeout(&target, Duration::from_millis(400));
    from.run(attempt).unwrap().map(drop)
}

/// This namespace as a node with three pods, each listening on TCP ports 80 and 81.
pub(super) fn node() -> (Vec<NetNs>, Vec<[TcpListener; 2]>) {
    run("sysctl -qw net.ipv4.ip_forward=1");
    run("ip link set lo up");
    // Proxy ARP answers only for what the node has a route to; here it owns the gateway's address.
    run("ip addr add 169.254.1.1/32 dev lo");
    let pods: Vec<NetNs> = (1..=3).map(pod).collect();
    let listen = || [80, 81].map(|port| TcpListener::bind(("0.0.0.0", port)).unwrap());
    let listeners = pods.iter().map(|pod| pod.run(listen).unwrap()).collect();
    (pods, listeners)
}

#[test]
fn packets_obey_and_an_unknown_pod_is_closed() {
    isolated(|| async {
        let (pods, _listeners) = node();
        let handle = start();
        handle.updates(vec![endpoint(1), endpoint(2), Update::InSync]).await;
        for number in [1, 2] {
            handle.wait_endpoint(id(number), soon()).await.unwrap();
        }
        handle.wait_routes(&[addr(1), addr(2)], soon()).await.unwrap();
        connect(&pods[0], addr(2), 80).unwrap();
        connect(&pods[0], addr(2), 81).unwrap_err();
        connect(&pods[1], addr(1), 80).unwrap_err();
        // The third pod has a route, but no policy: closed.
        run(&format!("ip route add {} dev cali3", addr(3)));
        connect(&pods[0], addr(3), 80).unwrap_err();
        handle.updates(vec![endpoint(3)]).await;
        handle.wait_endpoint(id(3), soon()).await.unwrap();
        connect(&pods[0], addr(3), 80).unwrap();
    });
}
