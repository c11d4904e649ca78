//! The pod's wire: a veth pair whose ends, addresses, routes and neighbours are all static.
//!
//! The pod sends everything to a gateway that does not exist as an address (169.254.1.1) or only as the host end's
//! link-local one, whose Ethernet address is pinned: no ARP or NDP can be spoofed on this wire, and it works before
//! the host knows the pod. Host routes and policy are the daemon's.

mod container;
mod host;

use std::{net::IpAddr, path::Path};

use ipnet::IpNet;
use kernel::{
    MacAddr, NetNs, Netlink,
    link::{self, VethEnd},
};

use crate::{
    rpc::Wiring,
    spec::{Attachment, CniError, code},
};

/// Why a container could not be wired.
#[derive(Debug, thiserror::Error)]
pub enum PlumbingError {
    /// The kernel refused something.
    #[error("{step}: {}", chain(source))]
    Kernel {
        /// What was being done.
        step: &'static str,
        /// The kernel's answer.
        source: kernel::Error,
    },
    /// A setting without which packets don't pass can't be made.
    #[error(transparent)]
    Sysctl(#[from] kernel::sysctl::SysctlError),
    /// The container has an interface of that name that we did not make.
    #[error(
        "the container has an interface {0} already, which is not ours; remove it or use another CNI_IFNAME"
    )]
    Occupied(String),
    /// The interface was there and is gone.
    #[error("interface {0} vanished while it was being configured; another program removed it")]
    Vanished(String),
}

impl From<PlumbingError> for CniError {
    fn from(error: PlumbingError) -> Self {
        Self::new(code::WIRING_FAILED, "the container could not be wired", error.to_string())
    }
}

/// Text of an error and its causes.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn during(step: &'static str) -> impl Fn(kernel::Error) -> PlumbingError {
    move |source| PlumbingError::Kernel { step, source }
}

/// What wiring made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wired {
    /// Ethernet address inside the container.
    pub container_mac: MacAddr,
    /// Index of the host's end.
    pub host_ifindex: u32,
    /// Settings that could not be made and that packets can pass without.
    pub warnings: Vec<String>,
}

/// Returns the text by which the host's end of an attachment is known again (its alias).
pub fn tag(network: &str, attachment: &Attachment) -> String {
    format!("{}{}:{}", network_tag(network), attachment.container_id, attachment.ifname)
}

fn network_tag(network: &str) -> String {
    format!("voile:{network}:")
}

/// Returns the default route's prefix in the family of `gateway`.
pub(crate) fn default_prefix(gateway: IpAddr) -> IpNet {
    match gateway {
        IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

/// Wires a container; called in the host's namespace. Leftovers of an earlier attempt are removed first, and nothing
/// is left behind on failure.
pub fn wire(
    netns: &Path,
    ifname: &str,
    wiring: &Wiring,
    tag: &str,
) -> Result<Wired, PlumbingError> {
    let netns = NetNs::open(netns).map_err(during("open the container's namespace"))?;
    let host = Netlink::open().map_err(during("connect to the host's namespace"))?;
    let pod = Netlink::open_in(&netns).map_err(during("connect to the container's namespace"))?;
    // An old end of the same name belongs to an earlier sandbox of the same pod.
    link::delete_by_name(&host, &wiring.host_interface)
        .map_err(during("remove the leftover interface"))?;
    if link::by_name(&pod, ifname).map_err(during("look for the container's interface"))?.is_some()
    {
        return Err(PlumbingError::Occupied(ifname.to_owned()));
    }
    let near = VethEnd {
        name: wiring.host_interface.clone(),
        mtu: Some(wiring.mtu),
        mac: Some(wiring.host_mac),
        netns: None,
    };
    let far =
        VethEnd { name: ifname.to_owned(), mtu: Some(wiring.mtu), mac: None, netns: Some(&netns) };
    link::create_veth(&host, &near, &far).map_err(during("create the veth pair"))?;
    configure(&host, &pod, &netns, ifname, wiring, tag).inspect_err(|_| {
        // The first error is the one to tell; DEL tries again.
        drop(link::delete_by_name(&host, &wiring.host_interface));
    })
}

fn configure(
    host: &Netlink,
    pod: &Netlink,
    netns: &NetNs,
    ifname: &str,
    wiring: &Wiring,
    tag: &str,
) -> Result<Wired, PlumbingError> {
    let near = find(host, &wiring.host_interface)?;
    link::set_alias(host, near.index, tag).map_err(during("mark the host's end"))?;
    let mut warnings = host::configure(host, &near, wiring)?;
    let (container_mac, more) = container::configure(pod, netns, ifname, wiring)?;
    warnings.extend(more);
    Ok(Wired { container_mac, host_ifindex: near.index, warnings })
}

fn find(netlink: &Netlink, name: &str) -> Result<link::Link, PlumbingError> {
    let found = link::by_name(netlink, name).map_err(during("look up the new interface"))?;
    found.ok_or_else(|| PlumbingError::Vanished(name.to_owned()))
}

/// Removes an attachment's veth, from whichever end it can still be found; called in the host's namespace. Nothing
/// there is success.
pub fn unwire(netns: Option<&Path>, ifname: &str, tag: &str) -> Result<(), PlumbingError> {
    let host = Netlink::open().map_err(during("connect to the host's namespace"))?;
    for found in tagged(&host, |alias| alias == tag)? {
        link::delete(&host, found.index).map_err(during("remove the host's end"))?;
    }
    // A wiring that was killed before it was marked.
    let Some(netns) = netns else { return Ok(()) };
    match NetNs::open(netns) {
        Ok(netns) => container::remove(&netns, ifname),
        Err(error) if error.is_missing() => Ok(()),
        Err(error) => Err(during("open the container's namespace")(error)),
    }
}

/// Removes the veths of a network's attachments that are not valid any more, and returns their names.
pub fn collect(network: &str, valid: &[Attachment]) -> Result<Vec<String>, PlumbingError> {
    let host = Netlink::open().map_err(during("connect to the host's namespace"))?;
    let ours = network_tag(network);
    let keep: Vec<String> = valid.iter().map(|attachment| tag(network, attachment)).collect();
    let stale =
        tagged(&host, |alias| alias.starts_with(&ours) && !keep.iter().any(|tag| tag == alias))?;
    let mut removed = Vec::new();
    for found in stale {
        link::delete(&host, found.index).map_err(during("remove a stale interface"))?;
        removed.push(found.name);
    }
    Ok(removed)
}

fn tagged(host: &Netlink, wanted: impl Fn(&str) -> bool) -> Result<Vec<link::Link>, PlumbingError> {
    let mut links = link::list(host).map_err(during("list the host's interfaces"))?;
    links.retain(|link| link.alias.as_deref().is_some_and(&wanted));
    Ok(links)
}

/// Compares an attachment with what it should be; called in the host's namespace. Every difference is one text.
pub fn check(netns: &Path, ifname: &str, wiring: &Wiring) -> Result<Vec<String>, PlumbingError> {
    let host = Netlink::open().map_err(during("connect to the host's namespace"))?;
    let netns = NetNs::open(netns).map_err(during("open the container's namespace"))?;
    let pod = Netlink::open_in(&netns).map_err(during("connect to the container's namespace"))?;
    let mut findings = Vec::new();
    let near =
        link::by_name(&host, &wiring.host_interface).map_err(during("look up the host's end"))?;
    let far = link::by_name(&pod, ifname).map_err(during("look up the container's end"))?;
    for (name, end) in [(wiring.host_interface.as_str(), &near), (ifname, &far)] {
        match end {
            None => findings.push(format!("interface {name} is missing")),
            Some(link) if !link.up => findings.push(format!("interface {name} is switched off")),
            Some(link) if link.mtu != wiring.mtu => {
                findings.push(format!("interface {name} has MTU {}, not {}", link.mtu, wiring.mtu));
            }
            Some(_) => (),
        }
    }
    let (Some(near), Some(far)) = (near, far) else { return Ok(findings) };
    if far.peer != Some(near.index) {
        findings.push(format!("interface {ifname} is not the other end of {}", near.name));
    }
    if near.mac != Some(wiring.host_mac) {
        findings.push(format!("interface {} lost its address {}", near.name, wiring.host_mac));
    }
    findings.extend(container::check(&pod, &far, wiring)?);
    Ok(findings)
}
