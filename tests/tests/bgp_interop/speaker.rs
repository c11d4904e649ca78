//! The other speakers: what all of them are asked for, and what they can be asked.

pub(crate) mod bird;
pub(crate) mod exabgp;
pub(crate) mod frr;
pub(crate) mod gobgp;
pub(crate) mod openbgpd;

use voile_tests::bgp::Lan;

/// Another speaker.
#[derive(Debug)]
pub(crate) struct Speaker {
    pub(crate) name: &'static str,
    pub(crate) program: &'static str,
    /// Starts it on a network.
    pub(crate) start: fn(&Lan, &Wish) -> Box<dyn Router>,
    /// How it writes 65003:7, route target 65003:7 and 65003:7:8.
    pub(crate) communities: [&'static str; 3],
    /// How it writes 65535:6.
    pub(crate) llgr_stale: &'static str,
    /// The protocol of its routes in the kernel, as `ip route` calls it.
    pub(crate) kernel: Option<&'static str>,
}

/// Another speaker that runs.
pub(crate) trait Router {
    /// Describes what it knows about a prefix.
    fn show(&self, prefix: &str) -> Result<String, String>;
    /// Stops announcing a prefix.
    fn withdraw(&mut self, prefix: &str);
    /// Whether it keeps routes of ours, among them this one, for the time of our restart.
    fn waits_for_us(&self, prefix: &str) -> Result<bool, String>;
    /// Describes its BFD sessions.
    fn bfd(&self) -> Result<String, String> {
        Err("it has no BFD".to_owned())
    }
    /// Dies without a word.
    fn kill(&mut self);
}

/// What its sessions run over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// IPv4, for IPv4 routes.
    Ipv4,
    /// IPv4, for routes of both families.
    Ipv4ForBoth,
    /// IPv4 for IPv4 routes, and another one over IPv6 for IPv6 routes.
    Both,
    /// IPv6, for routes of both families (RFC 8950).
    Ipv6,
    /// The same, with the router at the other end of `eth0`.
    Interface,
}

/// How another speaker is to be configured.
#[derive(Clone, Copy)]
pub(crate) struct Wish {
    /// Where it runs.
    pub(crate) host: usize,
    pub(crate) asn: u32,
    /// Hosts with their AS numbers, and whether they are reflection clients.
    pub(crate) neighbours: &'static [(usize, u32, bool)],
    pub(crate) over: Over,
    pub(crate) password: Option<&'static str>,
    pub(crate) ttl_security: bool,
    pub(crate) max_prefixes: Option<u32>,
    /// What it announces, each with 65002:100, the route target 65002:100 and 65002:1:2.
    pub(crate) networks: &'static [&'static str],
    /// A second life, with forwarding preserved.
    pub(crate) restarted: bool,
    /// A restart time of three seconds, and a minute as the last choice.
    pub(crate) long_lived: bool,
    pub(crate) add_path: bool,
    pub(crate) role: Option<&'static str>,
    /// BFD with packets every 100 ms.
    pub(crate) bfd: bool,
}

pub(crate) const WISH: Wish = Wish {
    host: 2,
    asn: 65002,
    neighbours: &[(1, 65001, false)],
    over: Over::Ipv4,
    password: None,
    ttl_security: false,
    max_prefixes: None,
    networks: &["10.2.0.0/24"],
    restarted: false,
    long_lived: false,
    add_path: false,
    role: None,
    bfd: false,
};

/// A session that is wished for.
pub(crate) struct Session {
    pub(crate) local: String,
    /// An address, or the name of an interface.
    pub(crate) neighbour: String,
    pub(crate) asn: u32,
    pub(crate) client: bool,
    pub(crate) families: &'static [&'static str],
}

impl Wish {
    pub(crate) fn sessions(&self) -> Vec<Session> {
        const BOTH: &[&str] = &["ipv4", "ipv6"];
        let mut sessions = Vec::new();
        for (host, asn, client) in self.neighbours {
            let mut add = |net: &str, families: &'static [&'static str]| {
                let (local, neighbour) = match self.over {
                    Over::Interface => (String::new(), "eth0".to_owned()),
                    _ => (format!("{net}{}", self.host), format!("{net}{host}")),
                };
                sessions.push(Session { local, neighbour, asn: *asn, client: *client, families });
            };
            match self.over {
                Over::Ipv4 => add("10.0.0.", &["ipv4"]),
                Over::Ipv4ForBoth => add("10.0.0.", BOTH),
                Over::Both => {
                    add("10.0.0.", &["ipv4"]);
                    add("fd00::", &["ipv6"]);
                }
                Over::Ipv6 => add("fd00::", BOTH),
                Over::Interface => add("", BOTH),
            }
        }
        sessions
    }

    /// Returns the prefixes of a family that it announces.
    pub(crate) fn networks_of(&self, wanted: &str) -> impl Iterator<Item = &'static str> {
        self.networks.iter().copied().filter(move |prefix| family(prefix) == wanted)
    }
}

/// Returns the family of a prefix, as most speakers call it.
pub(crate) fn family(prefix: &str) -> &'static str {
    if prefix.contains(':') { "ipv6" } else { "ipv4" }
}
