//! Two network namespaces without names, joined by a wire: they disappear with the last process that uses them.

use std::{net::Ipv4Addr, process::Command};

use anyhow::{Context as _, Result};
use ipnet::{IpNet, Ipv4Net};
use kernel::{Address, NetNs, Netlink, address, link};

/// Name of both ends of the wire.
const WIRE: &str = "wire0";
/// Length of the network on the wire.
const LENGTH: u8 = 16;

/// Where the measured program lives and where its peers do.
#[derive(Debug)]
pub struct Pair {
    /// Namespace of the measured program.
    pub subject: NetNs,
    /// Namespace of the load.
    pub load: NetNs,
}

impl Pair {
    /// Makes both, gives `subject` one address and `load` many.
    pub fn new(subject: Ipv4Addr, load: &[Ipv4Addr]) -> Result<Self> {
        let pair = Self { subject: NetNs::anonymous()?, load: NetNs::anonymous()? };
        let near = Netlink::open_in(&pair.subject)?;
        let far = Netlink::open_in(&pair.load)?;
        let end = |netns| link::VethEnd { name: WIRE.to_owned(), mtu: None, mac: None, netns };
        link::create_veth(&near, &end(None), &end(Some(&pair.load)))?;
        for (netlink, addresses) in [(&near, [subject].as_slice()), (&far, load)] {
            let wire = link::index_of(netlink, WIRE)?;
            for address in addresses {
                let prefix = IpNet::V4(Ipv4Net::new(*address, LENGTH)?);
                address::add(netlink, &Address::new(wire, prefix))?;
            }
            link::set_up(netlink, wire, true)?;
            link::set_up(netlink, link::index_of(netlink, "lo")?, true)?;
        }
        Ok(pair)
    }

    /// Starts the measured program in its namespace.
    pub fn spawn(&self, command: &mut Command) -> Result<std::process::Child> {
        self.subject
            .run(|| command.spawn())?
            .with_context(|| format!("cannot start {}", command.get_program().display()))
    }
}
