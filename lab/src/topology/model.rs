//! What a topology means for a lab of namespaces.

use std::{collections::BTreeMap, path::PathBuf};

use ipnet::{Ipv4Net, Ipv6Net};
use kernel::MacAddr;

/// A whole topology.
#[derive(Clone, Debug)]
pub struct Topology {
    /// Name of the lab, unless the command line gives another.
    pub name: String,
    /// The file it was read from.
    pub file: PathBuf,
    /// Nodes in the order of the file.
    pub nodes: Vec<Node>,
    /// Links in the order of the file.
    pub links: Vec<Link>,
}

/// A namespace and what runs in it.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Where the file defines it.
    pub line: usize,
    /// What it is for the lab.
    pub role: Role,
    /// Container image; only its name can matter here.
    pub image: Option<String>,
    /// Files of the host that the node sees under other names.
    pub binds: Vec<Bind>,
    /// Commands to execute after the links are there.
    pub exec: Vec<String>,
    /// Program and arguments of a plain host, `entrypoint` first.
    pub command: Vec<String>,
    /// Environment of what runs in it.
    pub env: BTreeMap<String, String>,
    /// Kernel settings, names as sysctl(8) writes them.
    pub sysctls: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// What a node is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// A Kubernetes node: runs `voile-node` and pods.
    Kubernetes,
    /// A router of the fabric.
    Router(RouterKind),
    /// A namespace with, at most, one command.
    Host,
    /// A switch: all its links are ports of one bridge.
    Bridge,
}

/// Which program routes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RouterKind {
    /// Our own `voile-bgpd`, configured by `/etc/voile/bgpd.toml`.
    Voile,
    /// BIRD 2, configured by `/etc/bird/bird.conf`.
    Bird,
    /// FRR's zebra and bgpd, configured by `/etc/frr/frr.conf`.
    Frr,
}

/// `source:destination[:options]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bind {
    /// Path on the host, relative ones resolved from the topology's folder.
    pub source: PathBuf,
    /// Path as the node sees it.
    pub destination: PathBuf,
}

/// A veth pair between two nodes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Link {
    /// One end.
    pub a: Endpoint,
    /// The other end.
    pub b: Endpoint,
    /// Largest packet.
    pub mtu: Option<u32>,
    /// Where the file defines it.
    pub line: usize,
}

/// One end of a link.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Endpoint {
    /// Node.
    pub node: String,
    /// Interface in that node.
    pub interface: String,
    /// Ethernet address.
    pub mac: Option<MacAddr>,
    /// IPv4 address.
    pub ipv4: Option<Ipv4Net>,
    /// IPv6 address.
    pub ipv6: Option<Ipv6Net>,
}

impl Topology {
    /// Finds a node by name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// Kubernetes nodes in the order of the file.
    pub fn kubernetes_nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.role == Role::Kubernetes)
    }

    /// Routers in the order of the file.
    pub fn routers(&self) -> impl Iterator<Item = (&Node, RouterKind)> {
        self.nodes.iter().filter_map(|node| match node.role {
            Role::Router(kind) => Some((node, kind)),
            _ => None,
        })
    }

    /// Names of interfaces that links give a node.
    pub fn interfaces<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a str> {
        self.links
            .iter()
            .flat_map(|link| [&link.a, &link.b])
            .filter(move |endpoint| endpoint.node == node)
            .map(|endpoint| endpoint.interface.as_str())
    }
}

impl Node {
    /// Finds the host's file behind a path that the node would see.
    #[must_use]
    pub fn bound(&self, destination: &str) -> Option<PathBuf> {
        self.binds.iter().find_map(|bind| {
            let rest = std::path::Path::new(destination).strip_prefix(&bind.destination).ok()?;
            Some(if rest.as_os_str().is_empty() {
                bind.source.clone()
            } else {
                bind.source.join(rest)
            })
        })
    }
}
