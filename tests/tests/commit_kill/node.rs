//! A node with pods in network namespaces.

use std::net::IpAddr;

use voile_tests::{Namespace, wire};

pub(crate) const CLIENT: &str = "client";
pub(crate) const SERVER: &str = "server";
pub(crate) const STRANGER: &str = "stranger";
pub(crate) const OUTSIDER: &str = "outsider";
pub(crate) const FILLED: &str = "filled";
/// All pods; the first has number 1.
pub(crate) const PODS: [&str; 5] = [CLIENT, SERVER, STRANGER, OUTSIDER, FILLED];

pub(crate) struct Node {
    pub(crate) router: Namespace,
    pods: Vec<Namespace>,
}

impl Node {
    pub(crate) fn new() -> Self {
        let router = Namespace::new("node");
        // Proxy ARP answers only for what the node has a route to; here it owns the gateway's address.
        let _ = router.output("ip", &["address", "add", "169.254.1.1/32", "dev", "lo"]);
        let pods = (1..).zip(PODS).map(|(number, name)| {
            let pod = Namespace::new(name);
            wire(&router, &interface(number), &pod, "eth0");
            let address = format!("{}/32", address(number));
            for words in [
                ["address", "add", &address, "dev", "eth0"],
                ["route", "add", "169.254.1.1", "dev", "eth0"],
                ["route", "add", "default", "via", "169.254.1.1"],
            ] {
                let _ = pod.output("ip", &words);
            }
            pod
        });
        let pods = pods.collect();
        Self { router, pods }
    }

    pub(crate) fn pod(&self, name: &str) -> (&Namespace, IpAddr) {
        let index = PODS.iter().position(|pod| *pod == name).unwrap();
        (self.pods.get(index).unwrap(), address(u8::try_from(index).unwrap() + 1))
    }
}

pub(crate) fn interface(number: u8) -> String {
    format!("cali{number}")
}

pub(crate) fn address(number: u8) -> IpAddr {
    IpAddr::from([10, 244, 0, number])
}
