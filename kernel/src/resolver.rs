//! How the routes of others lead to addresses: what BGP asks about its next hops (RFC 4271 §9.1.2.1).
//!
//! The kernel itself is asked for each address, so that what decides is what packets would do. Routes of the asker's own
//! protocols do not count, as it knows them and they must not hold themselves up. Where one of them hides what is behind
//! it, the other routes are read once and kept until one changes. Answers are given again only when they are others, and
//! only those are asked for that an event may have changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use ipnet::IpNet;
use nix::errno::Errno;

use crate::{
    Error, Event, Interface, Link, Netlink, Result, Route, RouteKind, link,
    route::{self, Filter},
};

/// `RTN_LOCAL`: packets end here.
const LOCAL: u8 = 2;

/// The route that packets to an address take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// Its destination.
    pub prefix: IpNet,
    /// Metric of the kernel.
    pub priority: u32,
    /// Who installed it (`RTPROT_*`).
    pub protocol: u8,
    /// The ways out whose links are up; at least one.
    pub legs: Vec<Leg>,
}

impl Resolution {
    /// Says whether the address is on a network of ours.
    pub fn is_connected(&self) -> bool {
        self.legs.iter().all(|leg| leg.gateway.is_none())
    }

    /// Lists the routers to send to, each with its interface where the address alone does not say enough; the address itself
    /// where it is on the link.
    pub fn routers(&self, address: IpAddr) -> Vec<(IpAddr, Option<&str>)> {
        let router = self.legs.iter().map(|leg| {
            let gateway = leg.gateway.unwrap_or(address);
            let needed = leg.onlink || is_link_local(&gateway);
            (gateway, needed.then_some(leg.interface.as_str()))
        });
        router.collect()
    }
}

/// One way out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leg {
    /// The router to send to; none: the address itself is on the link.
    pub gateway: Option<IpAddr>,
    /// Name of the interface.
    pub interface: String,
    /// Its index.
    pub index: u32,
    /// The gateway counts as on-link although no route says so.
    pub onlink: bool,
}

/// Why an address cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unresolvable {
    /// No route of others leads there.
    NoRoute,
    /// It is an address of this machine.
    Local,
    /// The longest route drops packets, or is none for packets to one receiver.
    Dropped(IpNet),
    /// All links of the longest route are down.
    LinkDown {
        /// The route.
        prefix: IpNet,
        /// One of its links.
        interface: String,
    },
}

impl fmt::Display for Unresolvable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoute => f.write_str("no route"),
            Self::Local => f.write_str("it is an address of this machine"),
            Self::Dropped(prefix) => write!(f, "its route {prefix} drops packets"),
            Self::LinkDown { prefix, interface } => {
                write!(f, "its route {prefix} is on {interface}, which is down")
            }
        }
    }
}

/// What is known of an address.
pub type Verdict = std::result::Result<Resolution, Unresolvable>;

/// Watches how addresses are reached.
#[derive(Debug)]
pub struct Resolver {
    /// Protocols whose routes do not count, but for those to the prefixes after it.
    own: BTreeSet<u8>,
    counted: BTreeSet<IpNet>,
    watched: BTreeMap<IpAddr, Option<Verdict>>,
    due: BTreeSet<IpAddr>,
    /// None: to be read.
    links: Option<BTreeMap<u32, Link>>,
    /// The best route of others to each prefix; none: to be read when an own one hides them.
    others: Option<BTreeMap<IpNet, Route>>,
}

impl Resolver {
    /// Makes a resolver that passes over the routes of these protocols.
    pub fn new(own: impl IntoIterator<Item = u8>) -> Self {
        Self {
            own: own.into_iter().collect(),
            counted: BTreeSet::new(),
            watched: BTreeMap::new(),
            due: BTreeSet::new(),
            links: None,
            others: None,
        }
    }

    /// Counts the routes to these prefixes although their protocol is one of the asker's own: nobody has learned them.
    pub fn count_also(&mut self, prefixes: BTreeSet<IpNet>) {
        if self.counted != prefixes {
            self.counted = prefixes;
            self.look_at_all();
        }
    }

    /// Begins to watch an address; the first answer is always given.
    pub fn watch(&mut self, address: IpAddr) {
        self.watched.insert(address, None);
        self.due.insert(address);
    }

    /// Watches an address no more.
    pub fn forget(&mut self, address: &IpAddr) {
        self.watched.remove(address);
        self.due.remove(address);
    }

    /// Begins to watch addresses (true), or watches them no more.
    pub fn follow(&mut self, addresses: impl IntoIterator<Item = (IpAddr, bool)>) {
        for (address, follow) in addresses {
            match follow {
                true => self.watch(address),
                false => self.forget(&address),
            }
        }
    }

    /// Says whether [`Resolver::answers`] has something to ask.
    pub fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Takes note of a change in the kernel.
    pub fn observe(&mut self, event: &Event) {
        match event {
            Event::RouteAdded { route, .. } | Event::RouteRemoved { route, .. } => {
                if !self.passes_over(route) {
                    self.others = None;
                    self.look_within(route.prefix);
                }
            }
            Event::LinkNew(link) | Event::LinkUp(link) | Event::LinkChanged(link) => {
                let known = self.links.as_mut().map(|links| links.insert(link.index, link.clone()));
                let rose = matches!(event, Event::LinkUp(_));
                // A route that was passed over while its link was down is told by no event.
                if rose {
                    self.others = None;
                    self.look_at_all();
                } else if known.flatten().is_none_or(|known| known.name != link.name) {
                    self.look_through(link.index);
                }
            }
            Event::LinkDown(link) => {
                if let Some(links) = &mut self.links {
                    links.insert(link.index, link.clone());
                }
                self.link_lost(link.index);
            }
            Event::LinkDeleted(link) => {
                if let Some(links) = &mut self.links {
                    links.remove(&link.index);
                }
                self.link_lost(link.index);
            }
            Event::AddressAdded(added) => self.look_within(IpNet::from(added.prefix.addr())),
            // Routes with that source vanish without a word. Every pod takes a link-local one with it, and routes none.
            Event::AddressRemoved(removed) => {
                if !is_link_local(&removed.prefix.addr()) {
                    self.others = None;
                    self.look_at_all();
                }
            }
            Event::Overrun => {
                (self.links, self.others) = (None, None);
                self.look_at_all();
            }
        }
    }

    /// Asks what is due; returns what is new or different.
    pub fn answers(&mut self, netlink: &Netlink) -> Result<Vec<(IpAddr, Verdict)>> {
        let mut news = Vec::new();
        while let Some(address) = self.due.pop_first() {
            let verdict = self.resolve(netlink, address).inspect_err(|_| {
                self.due.insert(address);
            })?;
            if let Some(known) = self.watched.get_mut(&address)
                && known.as_ref() != Some(&verdict)
            {
                *known = Some(verdict.clone());
                news.push((address, verdict));
            }
        }
        Ok(news)
    }

    fn passes_over(&self, route: &Route) -> bool {
        self.own.contains(&route.protocol) && !self.counted.contains(&route.prefix)
    }

    fn look_at_all(&mut self) {
        self.due.extend(self.watched.keys());
    }

    fn look_within(&mut self, prefix: IpNet) {
        let all = prefix.network()..=prefix.broadcast();
        self.due.extend(self.watched.range(all).map(|(address, _)| *address));
    }

    /// IPv4 routes vanish with their link without a word. Who goes another way does not notice.
    fn link_lost(&mut self, index: u32) {
        self.others = None;
        self.look_through(index);
    }

    fn look_through(&mut self, index: u32) {
        let through = |verdict: &Option<Verdict>| match verdict {
            Some(Ok(resolution)) => resolution.legs.iter().any(|leg| leg.index == index),
            _ => true,
        };
        let addresses = self.watched.iter().filter(|(_, verdict)| through(verdict));
        self.due.extend(addresses.map(|(address, _)| *address));
    }

    fn resolve(&mut self, netlink: &Netlink, address: IpAddr) -> Result<Verdict> {
        let route = match route::lookup(netlink, address) {
            Ok(route) => route.filter(|route| !self.passes_over(route)),
            Err(Error::Refused { errno: Errno::ENETUNREACH | Errno::ESRCH, .. }) => {
                return Ok(Err(Unresolvable::NoRoute));
            }
            // A route that drops packets answers with an error, which says not whose it is.
            Err(Error::Refused { .. }) => None,
            Err(error) => return Err(error),
        };
        let route = match route {
            Some(route) => route,
            None => match self.behind_own(netlink, address)? {
                Some(route) => route,
                None => return Ok(Err(Unresolvable::NoRoute)),
            },
        };
        self.judge(netlink, route)
    }

    /// Returns the longest route of others.
    fn behind_own(&mut self, netlink: &Netlink, address: IpAddr) -> Result<Option<Route>> {
        let others = match self.others.take() {
            Some(others) => others,
            None => self.read_others(netlink)?,
        };
        let longest = IpNet::from(address).prefix_len();
        let mut lengths = (0..=longest).rev();
        let found = lengths.find_map(|length| {
            let prefix = IpNet::new(address, length).ok()?.trunc();
            others.get(&prefix).cloned()
        });
        self.others = Some(others);
        Ok(found)
    }

    fn read_others(&self, netlink: &Netlink) -> Result<BTreeMap<IpNet, Route>> {
        let mut others: BTreeMap<IpNet, Route> = BTreeMap::new();
        let mut routes = route::list(netlink, Filter::default())?;
        routes.retain(|route| !self.passes_over(route));
        for route in routes {
            let better = others
                .get(&route.prefix)
                .is_none_or(|known: &Route| route.priority < known.priority);
            if better {
                others.insert(route.prefix, route);
            }
        }
        Ok(others)
    }

    fn judge(&mut self, netlink: &Netlink, route: Route) -> Result<Verdict> {
        let next_hops = match &route.kind {
            RouteKind::Unicast { next_hops } => next_hops,
            RouteKind::Other(LOCAL) => return Ok(Err(Unresolvable::Local)),
            _ => return Ok(Err(Unresolvable::Dropped(route.prefix))),
        };
        let links = match self.links.take() {
            Some(links) => links,
            None => link::list(netlink)?.into_iter().map(|link| (link.index, link)).collect(),
        };
        let mut legs = Vec::new();
        let mut dead = String::new();
        for hop in next_hops {
            let Some(Interface::Index(index)) = hop.interface else { continue };
            let link = links.get(&index);
            let interface = link.map_or_else(|| format!("#{index}"), |link| link.name.clone());
            if link.is_some_and(Link::is_operational) {
                legs.push(Leg { gateway: hop.gateway, interface, index, onlink: hop.onlink });
            } else {
                dead = interface;
            }
        }
        self.links = Some(links);
        let Route { prefix, priority, protocol, .. } = route;
        if legs.is_empty() {
            return Ok(Err(Unresolvable::LinkDown { prefix, interface: dead }));
        }
        Ok(Ok(Resolution { prefix, priority, protocol, legs }))
    }
}

fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}
