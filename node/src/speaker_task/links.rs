//! Tells the speaker of links that lose or regain their carrier, with the addresses that they had, and of how its next hops
//! are reached; and the configuration of the networks that links are on.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    os::fd::AsFd as _,
};

use bgp::{InterfaceDown, LocalNetworks, NextHopAnswer, Prefix, ResolvingRoute, driver::Handle};
use felix::driver::METRIC;
use ipnet::IpNet;
use kernel::{Event, Monitor, Netlink, Resolver, resolver::Verdict, route::PROTOCOL_BGP};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{mpsc, watch},
};

use super::Seen;

/// Addresses by interface name; kept after a link is gone, because its sessions still use them.
type Addresses = BTreeMap<String, Vec<(IpAddr, Prefix)>>;

/// Returns the networks by interface. Every link has fe80::/10, which tells nothing apart.
fn networks(addresses: &Addresses) -> BTreeMap<String, Vec<Prefix>> {
    let mut all: BTreeMap<String, Vec<Prefix>> = BTreeMap::new();
    for (interface, each) in addresses {
        for (address, prefix) in each {
            if !matches!(address, IpAddr::V6(address) if address.is_unicast_link_local()) {
                all.entry(interface.clone()).or_default().push(*prefix);
            }
        }
    }
    all
}

/// Reads the networks that the interfaces are on now.
pub(super) fn read() -> BTreeMap<String, Vec<Prefix>> {
    let mut addresses = Addresses::new();
    if let Err(error) = refresh(&mut addresses) {
        tracing::error!(%error, "cannot read the addresses of interfaces; rules for interfaces do not match");
    }
    networks(&addresses)
}

/// Reads our addresses, and the networks that we share with others, as they are now.
pub(super) fn local() -> LocalNetworks {
    let mut addresses = Addresses::new();
    if let Err(error) = refresh(&mut addresses) {
        tracing::warn!(%error, "cannot read the addresses of interfaces; next hops are not compared with them");
    }
    let outward = networks(&addresses).into_values().flatten();
    let outward = outward.filter(|network| !network.address().is_loopback());
    LocalNetworks {
        networks: outward.collect(),
        addresses: addresses.into_values().flatten().map(|(address, _)| address).collect(),
    }
}

/// When to listen again after an error.
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);

/// What is to be watched besides.
#[derive(Debug)]
pub(super) enum Ask {
    /// Next hops, from now on (true) or no more.
    NextHops(Vec<(IpAddr, bool)>),
    /// Routes of BGP's protocol that nobody learned: they lead to next hops as others do.
    Gateways(BTreeSet<IpNet>),
}

/// Listens until the task is dropped.
pub(super) async fn run(
    handle: watch::Receiver<Option<Handle>>,
    seen: mpsc::Sender<Seen>,
    mut asks: mpsc::UnboundedReceiver<Ask>,
) {
    let mut resolver = Resolver::new([PROTOCOL_BGP]);
    while !seen.is_closed() {
        if let Err(error) = listen(&handle, &seen, &mut asks, &mut resolver).await {
            tracing::error!(%error, "cannot listen to the kernel's events; until that works BGP notices dead links and lost next hops late");
        }
        // Whatever happened meanwhile was missed.
        resolver.observe(&Event::Overrun);
        tokio::time::sleep(RETRY).await;
    }
}

#[expect(
    deprecated,
    reason = "the replacement is unsafe; an owned descriptor that never moves is not"
)]
async fn listen(
    handle: &watch::Receiver<Option<Handle>>,
    seen: &mpsc::Sender<Seen>,
    asks: &mut mpsc::UnboundedReceiver<Ask>,
    resolver: &mut Resolver,
) -> anyhow::Result<()> {
    let netlink = Netlink::open()?;
    let mut monitor = Monitor::open()?;
    let socket = AsyncFd::with_interest(monitor.as_fd().try_clone_to_owned()?, Interest::READABLE)?;
    let mut addresses = Addresses::new();
    refresh(&mut addresses)?;
    // What there was no word of, before the first event and after an error.
    tell_networks(handle);
    seen.send(Seen::Links(networks(&addresses))).await?;
    resolve(resolver, &netlink, handle)?;
    loop {
        let mut ready = tokio::select! {
            ready = socket.readable() => ready?,
            Some(ask) = asks.recv() => {
                note(ask, resolver);
                resolve(resolver, &netlink, handle)?;
                continue;
            }
        };
        while let Some(event) = monitor.try_next()? {
            resolver.observe(&event);
            match event {
                Event::LinkDown(link) | Event::LinkDeleted(link) => {
                    down(handle, &link.name, &addresses)
                }
                Event::LinkUp(link) => {
                    if let Some(handle) = handle.borrow().as_ref() {
                        // A stopped speaker needs to know nothing.
                        let _ = handle.interface_up(link.name);
                    }
                }
                Event::AddressAdded(_) | Event::AddressRemoved(_) | Event::Overrun => {
                    tell_networks(handle);
                    let before = networks(&addresses);
                    refresh(&mut addresses)?;
                    let after = networks(&addresses);
                    if after != before {
                        seen.send(Seen::Links(after)).await?;
                    }
                }
                Event::LinkNew(_)
                | Event::LinkChanged(_)
                | Event::RouteAdded { .. }
                | Event::RouteRemoved { .. } => {}
            }
        }
        ready.clear_ready();
        resolve(resolver, &netlink, handle)?;
    }
}

fn tell_networks(handle: &watch::Receiver<Option<Handle>>) {
    if let Some(handle) = handle.borrow().as_ref() {
        // A stopped speaker needs to know nothing.
        let _ = handle.networks(local());
    }
}

fn note(ask: Ask, resolver: &mut Resolver) {
    match ask {
        Ask::NextHops(next_hops) => resolver.follow(next_hops),
        Ask::Gateways(prefixes) => resolver.count_also(prefixes),
    }
}

/// Says how next hops are reached where that is new.
fn resolve(
    resolver: &mut Resolver,
    netlink: &Netlink,
    handle: &watch::Receiver<Option<Handle>>,
) -> anyhow::Result<()> {
    if !resolver.is_due() {
        return Ok(());
    }
    let answers = resolver.answers(netlink)?.into_iter();
    let answers = answers.map(|(address, verdict)| answer(address, verdict)).collect();
    if let Some(handle) = handle.borrow().as_ref() {
        // A stopped speaker needs to know nothing.
        let _ = handle.next_hops(answers);
    }
    Ok(())
}

fn answer(address: IpAddr, verdict: Verdict) -> NextHopAnswer {
    let route = verdict.map_err(|why| why.to_string()).and_then(|found| {
        let prefix = Prefix::new(found.prefix.addr(), found.prefix.prefix_len());
        let prefix = prefix.map_err(|error| error.to_string())?;
        let (is_connected, routers) = (found.is_connected(), found.routers(address));
        Ok(ResolvingRoute::new(prefix, is_connected, found.priority, METRIC, routers))
    });
    NextHopAnswer { address, route }
}

fn down(handle: &watch::Receiver<Option<Handle>>, interface: &str, addresses: &Addresses) {
    let Some(had) = addresses.get(interface) else { return };
    if let Some(handle) = handle.borrow().as_ref() {
        tracing::warn!(%interface, "link is down");
        let _ = handle.interface_down(InterfaceDown {
            interface: interface.to_owned(),
            addresses: had.iter().map(|(address, _)| *address).collect(),
            networks: had.iter().map(|(_, network)| *network).collect(),
        });
    }
}

fn refresh(addresses: &mut Addresses) -> anyhow::Result<()> {
    let netlink = Netlink::open()?;
    let links = kernel::link::list(&netlink)?;
    let mut found = Addresses::new();
    for address in kernel::address::list(&netlink, None)? {
        let Some(link) = links.iter().find(|link| link.index == address.interface) else {
            continue;
        };
        let network = Prefix::new(address.prefix.addr(), address.prefix.prefix_len())?;
        found.entry(link.name.clone()).or_default().push((address.prefix.addr(), network));
    }
    addresses.append(&mut found);
    Ok(())
}
