//! Namespaces, links and first settings of a topology.

mod iproute;
#[cfg(test)]
mod tests;

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use kernel::{Address, NetNs, Netlink, address, link, link::VethEnd, netns, sysctl};

pub use self::iproute::{Step, translate};
use crate::{
    paths::Layout,
    state::Ledger,
    topology::{Link, Node, Role, Topology},
};

const BRIDGE: &str = "br0";

/// Makes a namespace, after writing down that it will exist.
pub fn make_netns(path: &Path, ledger: &Ledger) -> Result<NetNs> {
    ledger.change(|state| state.namespaces.insert(path.to_owned(), 0))?;
    let made = NetNs::create(path).with_context(|| {
        format!(
            "cannot make namespace {}; another lab of that name? try `down` first",
            path.display()
        )
    })?;
    let inode = made.inode()?;
    ledger.change(|state| state.namespaces.insert(path.to_owned(), inode))?;
    let netlink = Netlink::open_in(&made)?;
    link::set_up(&netlink, link::index_of(&netlink, "lo")?, true)?;
    Ok(made)
}

/// Removes a namespace and forgets it.
pub fn remove_netns(path: &Path, ledger: &Ledger) -> Result<()> {
    netns::delete(path)?;
    ledger.change(|state| state.namespaces.remove(path))?;
    Ok(())
}

/// Makes all namespaces and links; nothing runs in them yet.
pub fn build(topology: &Topology, layout: &Layout, ledger: &Ledger) -> Result<()> {
    for node in &topology.nodes {
        let made = make_netns(&layout.netns(&node.name), ledger)?;
        if node.role == Role::Bridge {
            let netlink = Netlink::open_in(&made)?;
            link::create_bridge(&netlink, BRIDGE)?;
            link::set_up(&netlink, link::index_of(&netlink, BRIDGE)?, true)?;
        }
        made.run(|| settings(node))??;
    }
    for connection in &topology.links {
        connect(connection, topology, layout).with_context(|| {
            format!("link in line {} of {}", connection.line, topology.file.display())
        })?;
    }
    Ok(())
}

/// Kernel settings: what every node of that role needs, then what the file says. Runs inside the namespace.
fn settings(node: &Node) -> Result<()> {
    let mut wanted =
        vec![("net.ipv4.conf.all.rp_filter", "0"), ("net.ipv4.conf.default.rp_filter", "0")];
    if matches!(node.role, Role::Router(_) | Role::Kubernetes) {
        wanted.extend([
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv6.conf.all.forwarding", "1"),
            ("net.ipv6.conf.default.forwarding", "1"),
            // Flows, not packets, choose among next hops, ports included.
            ("net.ipv4.fib_multipath_hash_policy", "1"),
            ("net.ipv6.fib_multipath_hash_policy", "1"),
        ]);
    }
    for (key, value) in wanted {
        if let Err(error) = sysctl::ensure(&sysctl_path(key), value) {
            tracing::warn!(node = node.name, "{error}");
        }
    }
    for (key, value) in &node.sysctls {
        sysctl::ensure(&sysctl_path(key), value)
            .with_context(|| format!("node {:?}: sysctls: {key}", node.name))?;
    }
    Ok(())
}

/// sysctl(8): dots separate, unless a slash comes first; then slashes do.
fn sysctl_path(key: &str) -> String {
    match (key.find('.'), key.find('/')) {
        (Some(dot), Some(slash)) if dot < slash => key
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect(),
        (Some(_), None) => key.replace('.', "/"),
        _ => key.to_owned(),
    }
}

fn connect(connection: &Link, topology: &Topology, layout: &Layout) -> Result<()> {
    let (a, b) = (&connection.a, &connection.b);
    let (near, far) = (NetNs::open(layout.netns(&a.node))?, NetNs::open(layout.netns(&b.node))?);
    let end = |endpoint: &crate::topology::Endpoint| VethEnd {
        name: endpoint.interface.clone(),
        mtu: connection.mtu,
        mac: endpoint.mac,
        netns: None,
    };
    let netlink = Netlink::open_in(&near)?;
    link::create_veth(&netlink, &end(a), &VethEnd { netns: Some(&far), ..end(b) })?;
    for (endpoint, netns) in [(a, &near), (b, &far)] {
        let netlink = Netlink::open_in(netns)?;
        let index = link::index_of(&netlink, &endpoint.interface)?;
        if topology.node(&endpoint.node).is_some_and(|node| node.role == Role::Bridge) {
            link::set_master(&netlink, index, Some(link::index_of(&netlink, BRIDGE)?))?;
        }
        link::set_up(&netlink, index, true)?;
        let prefixes =
            endpoint.ipv4.map(Into::into).into_iter().chain(endpoint.ipv6.map(Into::into));
        for prefix in prefixes {
            address::add(&netlink, &Address::new(index, prefix))?;
        }
    }
    Ok(())
}

/// Executes a node's `exec` lines in its namespace: what we understand over netlink, the rest as programs.
pub fn configure(node: &Node, layout: &Layout) -> Result<()> {
    let netns = NetNs::open(layout.netns(&node.name))?;
    let netlink = Netlink::open_in(&netns)?;
    for line in &node.exec {
        let words = crate::topology::words(line);
        let words: Vec<String> = words.iter().map(|word| seen(node, word)).collect();
        match translate(&words) {
            Some(step) => step
                .apply(&netlink)
                .or_else(|error| match error {
                    error if error.is_existing() && step.may_exist() => Ok(()),
                    error => Err(error),
                })
                .map_err(anyhow::Error::from),
            None => netns.run(|| execute(&words))?,
        }
        .with_context(|| format!("node {:?}: exec {line:?}", node.name))?;
    }
    Ok(())
}

/// What a bound path is called on the host.
pub fn seen(node: &Node, word: &str) -> String {
    node.bound(word).map_or_else(|| word.to_owned(), |path| path.to_string_lossy().into_owned())
}

fn execute(words: &[String]) -> Result<()> {
    let Some((program, arguments)) = words.split_first() else { return Ok(()) };
    let output = std::process::Command::new(program).args(arguments).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!(
                "program {program:?} is not on this machine; install it (Debian: iproute2 has `ip`)"
            )
        }
        Err(error) => Err(error.into()),
    }
}

/// Switches all links of a node off or on, as pulling and plugging its cables would.
pub fn set_links(topology: &Topology, node: &str, layout: &Layout, up: bool) -> Result<()> {
    let netlink = Netlink::open_in(&NetNs::open(layout.netns(node))?)?;
    for interface in topology.interfaces(node) {
        link::set_up(&netlink, link::index_of(&netlink, interface)?, up)?;
    }
    Ok(())
}
