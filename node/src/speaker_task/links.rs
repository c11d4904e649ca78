//! Tells the speaker of links that lose or regain their carrier, with the addresses that they had.

use std::{collections::BTreeMap, net::IpAddr, os::fd::AsFd as _};

use bgp::{InterfaceDown, Prefix, driver::Handle};
use kernel::{Event, Monitor, Netlink};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
};

/// Addresses by interface name; kept after a link is gone, because its sessions still use them.
type Addresses = BTreeMap<String, Vec<(IpAddr, Prefix)>>;

/// Listens until the task is dropped.
pub(super) async fn run(handle: watch::Receiver<Option<Handle>>) {
    if let Err(error) = listen(&handle).await {
        tracing::error!(%error, "cannot listen to link events; BGP notices dead links by its hold timer only");
    }
    std::future::pending().await
}

#[expect(
    deprecated,
    reason = "the replacement is unsafe; an owned descriptor that never moves is not"
)]
async fn listen(handle: &watch::Receiver<Option<Handle>>) -> anyhow::Result<()> {
    let mut monitor = Monitor::open()?;
    let socket = AsyncFd::with_interest(monitor.as_fd().try_clone_to_owned()?, Interest::READABLE)?;
    let mut addresses = Addresses::new();
    refresh(&mut addresses)?;
    loop {
        let mut ready = socket.readable().await?;
        while let Some(event) = monitor.try_next()? {
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
                Event::AddressAdded(_) | Event::Overrun => refresh(&mut addresses)?,
                Event::LinkNew(_)
                | Event::LinkChanged(_)
                | Event::AddressRemoved(_)
                | Event::RouteAdded { .. }
                | Event::RouteRemoved { .. } => {}
            }
        }
        ready.clear_ready();
    }
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
