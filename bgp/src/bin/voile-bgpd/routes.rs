//! The kernel's side: learned routes go in, connected networks and lost links come out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use bgp::{
    FibNextHop, FibOutcome, FibRoute, InterfaceDown, LocalNetworks, NextHopAnswer, Prefix,
    ResolvingRoute,
    driver::{FibBatch, Handle},
};
use ipnet::IpNet;
use kernel::{
    Event, Netlink, NextHop, Report, Resolver, Route, RouteKind, RouteTable, address, link,
    resolver::Verdict, route,
};

/// Everything we know and want of the kernel.
#[derive(Debug)]
pub(crate) struct Routes {
    netlink: Netlink,
    table: RouteTable,
    /// Watches next hops for the speaker.
    resolver: Resolver,
    metric: u32,
    install: bool,
    /// Addresses by interface, kept for when it is gone.
    addresses: BTreeMap<u32, Vec<IpNet>>,
    /// Interfaces that lead nowhere.
    loopbacks: BTreeSet<u32>,
}

impl Routes {
    pub(crate) fn open(metric: u32, install: bool) -> kernel::Result<Self> {
        let netlink = Netlink::open()?;
        let mut table = RouteTable::new([route::PROTOCOL_BGP]);
        if install {
            table.load(&netlink)?;
        }
        let (addresses, loopbacks) = (BTreeMap::new(), BTreeSet::new());
        let resolver = Resolver::new([route::PROTOCOL_BGP]);
        let mut routes = Self { netlink, table, resolver, metric, install, addresses, loopbacks };
        routes.reload_addresses()?;
        Ok(routes)
    }

    /// Says whether a former run left routes behind.
    pub(crate) fn were_left(&self) -> bool {
        self.table.actual().next().is_some()
    }

    /// Returns the next hops of the routes that a former run left behind. None: a blackhole is among them, and nobody
    /// knows who asked for it.
    pub(crate) fn forwarding_via(&self) -> Option<BTreeSet<IpAddr>> {
        let blackholes = self.table.actual().any(|route| route.kind == RouteKind::Blackhole);
        (!blackholes).then(|| self.table.actual().flat_map(Route::gateways).collect())
    }

    fn reload_addresses(&mut self) -> kernel::Result<()> {
        self.addresses.clear();
        for address in address::list(&self.netlink, None)? {
            self.addresses.entry(address.interface).or_default().push(address.prefix);
        }
        let links = link::list(&self.netlink)?.into_iter();
        self.loopbacks = links.filter(|link| link.loopback).map(|link| link.index).collect();
        Ok(())
    }

    /// Returns our addresses, and the networks that we share with others.
    pub(crate) fn networks(&mut self) -> kernel::Result<LocalNetworks> {
        self.reload_addresses()?;
        let outward = self.addresses.iter().filter(|(link, _)| !self.loopbacks.contains(link));
        let networks = outward.flat_map(|(_, addresses)| addresses);
        Ok(LocalNetworks {
            addresses: self.addresses.values().flatten().map(IpNet::addr).collect(),
            networks: networks.filter(|each| is_global(each.addr())).filter_map(prefix).collect(),
        })
    }

    /// Lists the networks we are on.
    pub(crate) fn connected(&mut self) -> kernel::Result<Vec<Prefix>> {
        self.reload_addresses()?;
        let mut networks = Vec::new();
        for link in link::list(&self.netlink)? {
            if !link.is_operational() && !link.loopback {
                continue;
            }
            let addresses = self.addresses.get(&link.index).into_iter().flatten();
            networks.extend(addresses.filter(|each| is_global(each.addr())).filter_map(prefix));
        }
        Ok(networks)
    }

    /// Writes a batch of the speaker's, and tells it what became of it. Routes of a former run stay until
    /// [`Routes::sweep`].
    pub(crate) fn apply(&mut self, batch: FibBatch, speaker: &Handle) -> kernel::Result<()> {
        self.resolver.follow(batch.next_hops);
        self.resolve(speaker)?;
        if !self.install {
            return Ok(());
        }
        // What the kernel has already is not written again, and is well too.
        let wanted = batch.updates.iter().filter(|update| update.route != FibRoute::Absent);
        let wanted: Vec<Prefix> = wanted.map(|update| update.prefix).collect();
        for update in batch.updates {
            let Some(network) = network(&update.prefix) else { continue };
            let route = match &update.route {
                FibRoute::Absent => {
                    self.table.unset(network, route::PROTOCOL_BGP);
                    continue;
                }
                FibRoute::Via(hops) => Route::unicast(network, hops.iter().map(next_hop).collect()),
                FibRoute::Blackhole => Route::blackhole(network),
            };
            self.table.set(route.with_protocol(route::PROTOCOL_BGP).with_priority(self.metric));
        }
        self.write(wanted, speaker)
    }

    /// Says how next hops are reached where that is new.
    fn resolve(&mut self, speaker: &Handle) -> kernel::Result<()> {
        let answers = self.resolver.answers(&self.netlink)?;
        let answers =
            answers.into_iter().map(|(address, verdict)| answer(address, verdict, self.metric));
        // The speaker ends before we do only while stopping.
        let _ = speaker.next_hops(answers.collect());
        Ok(())
    }

    /// Removes the routes of a former run that nobody announced again.
    pub(crate) fn sweep(&mut self, speaker: &Handle) -> kernel::Result<()> {
        if !self.install {
            return Ok(());
        }
        self.table.allow_sweep(route::PROTOCOL_BGP);
        self.write(Vec::new(), speaker)
    }

    /// Writes the difference; tells the speaker what became of these prefixes, and of others that changed.
    fn write(&mut self, told: Vec<Prefix>, speaker: &Handle) -> kernel::Result<()> {
        let report = if self.table.is_dirty() {
            self.table.apply(&self.netlink)?
        } else {
            Report::default()
        };
        // The speaker ends before we do only while stopping.
        let _ = speaker.fib_outcomes(outcomes(told, &report));
        for (route, reason) in &report.failed {
            tracing::warn!(prefix = %route.prefix, %reason, "route not installed");
        }
        for (route, interface) in &report.pending {
            tracing::warn!(prefix = %route.prefix, %interface, "route waits for an interface");
        }
        tracing::debug!(written = report.written.len(), removed = report.removed.len(), "routes");
        Ok(())
    }

    /// Removes all our routes.
    pub(crate) fn clear(&mut self) -> kernel::Result<()> {
        self.table.replace_all(route::PROTOCOL_BGP, []);
        self.table.allow_sweep(route::PROTOCOL_BGP);
        self.table.apply(&self.netlink).map(drop)
    }

    /// Reads what happened; returns whether connected networks may have changed.
    pub(crate) fn observe(
        &mut self,
        events: impl Iterator<Item = Event>,
        speaker: &Handle,
    ) -> kernel::Result<bool> {
        let mut changed = false;
        for event in events {
            // Routes are looked at before the speaker is told that the link went.
            self.table.observe(&event, &self.netlink);
            self.resolver.observe(&event);
            match &event {
                Event::LinkDown(link) | Event::LinkDeleted(link) => {
                    self.link_down(link, speaker);
                    changed = true;
                }
                Event::LinkUp(link) => {
                    // The speaker ends before we do only while stopping.
                    let _ = speaker.interface_up(link.name.clone());
                    changed = true;
                }
                Event::AddressAdded(_) | Event::AddressRemoved(_) | Event::Overrun => {
                    changed = true;
                }
                _ => (),
            }
        }
        self.resolve(speaker)?;
        if self.install {
            self.write(Vec::new(), speaker)?;
        }
        Ok(changed)
    }

    fn link_down(&self, link: &kernel::Link, speaker: &Handle) {
        let addresses: Vec<IpNet> = self.addresses.get(&link.index).cloned().unwrap_or_default();
        let down = InterfaceDown {
            interface: link.name.clone(),
            addresses: addresses.iter().map(IpNet::addr).collect(),
            networks: addresses.iter().filter_map(prefix).collect(),
        };
        let _ = speaker.interface_down(down);
    }
}

fn outcomes(told: Vec<Prefix>, report: &Report) -> Vec<FibOutcome> {
    let mut answers: BTreeMap<Prefix, Option<String>> = BTreeMap::new();
    answers.extend(told.into_iter().map(|prefix| (prefix, None)));
    let of = |route: &Route| prefix(&route.prefix);
    answers.extend(report.written.iter().filter_map(of).map(|prefix| (prefix, None)));
    let pending = report.pending.iter().filter_map(|(route, interface)| {
        Some((of(route)?, Some(format!("waits for the interface {interface}"))))
    });
    answers.extend(pending);
    let failed = report.failed.iter();
    answers.extend(failed.filter_map(|(route, why)| Some((of(route)?, Some(why.clone())))));
    answers.into_iter().map(|(prefix, refused)| FibOutcome { prefix, refused }).collect()
}

/// What the speaker is told of a next hop; its own routes have this metric.
fn answer(address: IpAddr, verdict: Verdict, metric: u32) -> NextHopAnswer {
    let route = verdict.map_err(|why| why.to_string()).and_then(|found| {
        let prefix = prefix(&found.prefix).ok_or("its route makes no sense")?;
        let (is_connected, routers) = (found.is_connected(), found.routers(address));
        Ok(ResolvingRoute::new(prefix, is_connected, found.priority, metric, routers))
    });
    NextHopAnswer { address, route }
}

fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    }
}

fn prefix(network: &IpNet) -> Option<Prefix> {
    Prefix::new(network.addr(), network.prefix_len()).ok()
}

fn network(prefix: &Prefix) -> Option<IpNet> {
    IpNet::new(prefix.address(), prefix.length()).ok()
}

fn next_hop(hop: &FibNextHop) -> NextHop {
    NextHop::told(hop.address, hop.interface.as_deref())
}
