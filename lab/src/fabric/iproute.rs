//! The lines of ip(8) that topologies use, done over netlink so that a lab needs no iproute2.

use std::net::IpAddr;

use ipnet::IpNet;
use kernel::{
    Address, Error, Netlink, NextHop, Route, RouteKind, address, link,
    route::{self},
};

/// One line, understood.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// `ip address add PREFIX dev NAME`
    Address {
        /// Address and prefix length.
        prefix: IpNet,
        /// Interface.
        interface: String,
    },
    /// `ip link set NAME [up|down] [mtu N] [master NAME]`
    Link {
        /// Interface.
        interface: String,
        /// Switch on or off.
        up: Option<bool>,
        /// Largest packet.
        mtu: Option<u32>,
        /// Bridge to become a port of.
        master: Option<String>,
    },
    /// `ip link add NAME type bridge|dummy`
    Create {
        /// Interface.
        interface: String,
        /// Whether a bridge or a dummy.
        bridge: bool,
    },
    /// `ip route add|replace PREFIX [via GATEWAY] [dev NAME] [metric N]`, `ip route add blackhole PREFIX`
    Route {
        /// The route.
        route: Route,
        /// Whether one that exists gives way.
        replace: bool,
    },
}

/// Understands a line; `None` leaves it to the program.
#[must_use]
pub fn translate(words: &[String]) -> Option<Step> {
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    if words.first()?.rsplit('/').next() != Some("ip") {
        return None;
    }
    words.remove(0);
    let mut ipv6 = false;
    while let Some(option @ ("-4" | "-6")) = words.first().copied() {
        ipv6 = option == "-6";
        words.remove(0);
    }
    let object = words.first().filter(|word| !word.is_empty())?;
    let is = |name: &str| name.starts_with(object);
    match words.get(1..)? {
        ["add" | "a", rest @ ..] if is("address") => address_step(rest),
        ["set" | "s", rest @ ..] if is("link") => link_step(rest),
        ["add" | "a", rest @ ..] if is("link") => create_step(rest),
        [verb @ ("add" | "a" | "replace"), rest @ ..] if is("route") => {
            Some(Step::Route { route: route_step(rest, ipv6)?, replace: *verb == "replace" })
        }
        _ => None,
    }
}

fn address_step(words: &[&str]) -> Option<Step> {
    let mut words = words.to_vec();
    words.retain(|word| *word != "nodad");
    match words.as_slice() {
        [prefix, "dev", interface] => {
            Some(Step::Address { prefix: net(prefix)?, interface: (*interface).to_owned() })
        }
        _ => None,
    }
}

fn link_step(words: &[&str]) -> Option<Step> {
    let mut words = words.iter().copied();
    let first = words.next()?;
    let interface = if first == "dev" { words.next()? } else { first }.to_owned();
    let (mut up, mut mtu, mut master) = (None, None, None);
    while let Some(word) = words.next() {
        match word {
            "up" => up = Some(true),
            "down" => up = Some(false),
            "mtu" => mtu = Some(words.next()?.parse().ok()?),
            "master" => master = Some(words.next()?.to_owned()),
            _ => return None,
        }
    }
    Some(Step::Link { interface, up, mtu, master })
}

fn create_step(words: &[&str]) -> Option<Step> {
    let words =
        words.strip_prefix(&["name"]).or_else(|| words.strip_prefix(&["dev"])).unwrap_or(words);
    match words {
        [name, "type", kind @ ("bridge" | "dummy")] => {
            Some(Step::Create { interface: (*name).to_owned(), bridge: *kind == "bridge" })
        }
        _ => None,
    }
}

fn route_step(words: &[&str], ipv6: bool) -> Option<Route> {
    if let ["blackhole", prefix] = words {
        return Some(Route::blackhole(net(prefix)?));
    }
    let (destination, rest) = words.split_first()?;
    let (mut gateway, mut device, mut metric) = (None, None, 0);
    let mut rest = rest.iter();
    while let Some(word) = rest.next() {
        let value = rest.next()?;
        match *word {
            "via" => gateway = Some(value.parse::<IpAddr>().ok()?),
            "dev" => device = Some((*value).to_owned()),
            "metric" => metric = value.parse().ok()?,
            _ => return None,
        }
    }
    let prefix = match *destination {
        "default" if ipv6 || gateway.is_some_and(|gateway| gateway.is_ipv6()) => net("::/0")?,
        "default" => net("0.0.0.0/0")?,
        prefix => net(prefix)?,
    };
    let hop = match (gateway, device) {
        (Some(gateway), Some(device)) => NextHop::via(gateway, device),
        (Some(gateway), None) => NextHop::gateway(gateway),
        (None, Some(device)) => NextHop::device(device),
        (None, None) => return None,
    };
    Some(Route::unicast(prefix, vec![hop]).with_priority(metric))
}

/// ip(8) takes an address without length for a host's.
fn net(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| Some(IpNet::from(text.parse::<IpAddr>().ok()?)))
}

impl Step {
    /// Does it.
    pub fn apply(&self, netlink: &Netlink) -> Result<(), Error> {
        match self {
            Self::Address { prefix, interface } => {
                address::add(netlink, &Address::new(link::index_of(netlink, interface)?, *prefix))
            }
            Self::Link { interface, up, mtu, master } => {
                let index = link::index_of(netlink, interface)?;
                if let Some(mtu) = mtu {
                    link::set_mtu(netlink, index, *mtu)?;
                }
                if let Some(master) = master {
                    link::set_master(netlink, index, Some(link::index_of(netlink, master)?))?;
                }
                up.map_or(Ok(()), |up| link::set_up(netlink, index, up))
            }
            Self::Create { interface, bridge: true } => link::create_bridge(netlink, interface),
            Self::Create { interface, bridge: false } => link::create_dummy(netlink, interface),
            Self::Route { route, replace: true } => route::replace(netlink, route),
            Self::Route { route, replace: false } => route::add(netlink, route),
        }
    }

    /// Says whether "it exists already" is a success; a second `up` of a link's address must not fail a lab.
    #[must_use]
    pub fn may_exist(&self) -> bool {
        match self {
            Self::Address { .. } => true,
            Self::Route { route, .. } => route.kind == RouteKind::Blackhole,
            _ => false,
        }
    }
}
