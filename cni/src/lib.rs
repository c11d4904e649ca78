//! The CNI plugin: a shim that the container runtime executes, and the pieces that the daemon shares with it.
//!
//! The shim holds no credentials and decides nothing. It asks the daemon over a unix socket what to wire, wires it,
//! tells the daemon, and prints the result:
//!
//! ```text
//! runtime --env, stdin--> voile-cni --Add--> voile-node      address, policy in the kernel
//!                                   <-Wire--
//!                         (veth, addresses, routes in the pod)
//!                                   --Wired-> voile-node     host route
//!                                   <-Done--
//! runtime <--result on stdout-- voile-cni
//! ```

pub mod client;
pub mod install;
pub mod journal;
pub mod plugin;
pub mod plumbing;
pub mod rpc;
pub mod spec;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use kernel::MacAddr;
use sha1::{Digest, Sha1};

use crate::rpc::Pod;

/// Where the daemon listens unless the network configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/voile/cni.sock";
/// Ethernet address of the host's end of every pod's veth, as in Calico.
pub const HOST_MAC: MacAddr = MacAddr([0xee; 6]);
/// What pods route IPv4 through; answered by nobody, pinned as a neighbour.
pub const GATEWAY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));
/// What pods route IPv6 through: the link-local address that belongs to [`HOST_MAC`] (RFC 4291 appendix A).
pub const GATEWAY_V6: IpAddr =
    IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee));

/// Returns the name of the host's end of a pod's veth: `cali` and 11 hexadecimal digits of SHA-1 over
/// `NAMESPACE.POD`, as in Calico (`workload_endpoint_default.go`); of the container's id outside of Kubernetes.
pub fn host_interface_name(pod: Option<&Pod>, container_id: &str) -> String {
    let identity = match pod {
        Some(pod) => format!("{}.{}", pod.namespace, pod.name),
        None => container_id.to_owned(),
    };
    let digest: String =
        Sha1::digest(identity.as_bytes()).iter().map(|octet| format!("{octet:02x}")).collect();
    format!("cali{}", digest.get(..11).unwrap_or(&digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_interface_names_are_those_of_calico() {
        let pod = Pod { namespace: "default".into(), name: "web-0".into(), ..Pod::default() };
        // printf default.web-0 | sha1sum
        assert_eq!(host_interface_name(Some(&pod), "x"), "cali0d7763386da");
        assert_eq!(host_interface_name(None, "c1").len(), 15);
    }
}
