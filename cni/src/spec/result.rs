//! The result of ADD, kept in its newest form and rendered in the version asked for.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Version;

/// A result (specification, section "Success").
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CniResult {
    /// Version of this form.
    #[serde(default)]
    pub cni_version: String,
    /// Interfaces made.
    #[serde(default)]
    pub interfaces: Vec<Iface>,
    /// Addresses assigned.
    #[serde(default)]
    pub ips: Vec<Ip>,
    /// Routes made in the container.
    #[serde(default)]
    pub routes: Vec<RouteEntry>,
    /// Not ours to say, but some runtimes want the key.
    #[serde(default)]
    pub dns: serde_json::Map<String, serde_json::Value>,
}

/// An interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Iface {
    /// Name.
    pub name: String,
    /// Ethernet address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// MTU, since 1.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Namespace path, absent for the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
}

/// An address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ip {
    /// `4` or `6`, until 0.4.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Address with prefix length.
    pub address: IpNet,
    /// Gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Index into `interfaces`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteEntry {
    /// Destination.
    pub dst: IpNet,
    /// Gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
}

impl CniResult {
    /// Renders it for stdout in the form of `version`.
    pub fn render(&self, version: Version) -> String {
        let mut converted = self.clone();
        version.as_str().clone_into(&mut converted.cni_version);
        for interface in &mut converted.interfaces {
            interface.mtu = interface.mtu.filter(|_| version >= Version::V1_1_0);
        }
        for ip in &mut converted.ips {
            let family = if ip.address.addr().is_ipv4() { "4" } else { "6" };
            ip.version = (version < Version::V1_0_0).then(|| family.to_owned());
        }
        // Nothing in it can fail to serialise: the keys are strings.
        let text = serde_json::to_string_pretty(&converted).unwrap_or_default();
        format!("{text}\n")
    }
}

/// Renders the answer to VERSION.
pub fn versions(asked: &str) -> String {
    let known = Version::ALL.map(Version::as_str);
    let version = if known.contains(&asked) { asked } else { Version::V1_1_0.as_str() };
    format!("{:#}\n", serde_json::json!({"cniVersion": version, "supportedVersions": known}))
}
