//! What a pod asks for in annotations (Calico's `cni.projectcalico.org/`). Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::{AssignError, Family};

const POOLS4: &str = "cni.projectcalico.org/ipv4pools";
const POOLS6: &str = "cni.projectcalico.org/ipv6pools";
const ADDRESSES: &str = "cni.projectcalico.org/ipAddrs";
const UNMANAGED: &str = "cni.projectcalico.org/ipAddrsNoIpam";
const FLOATING: &str = "cni.projectcalico.org/floatingIPs";
const FAMILIES: &str = "cni.projectcalico.org/ipFamilies";

/// What a pod asks for; empty means that it does not care.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Wishes {
    /// IPv4 pools by name or CIDR; the pod's win over its namespace's.
    pub pools4: Vec<String>,
    /// The same for IPv6.
    pub pools6: Vec<String>,
    /// Certain addresses.
    pub addresses: Vec<IpAddr>,
    /// Addresses that its owner manages: nothing is assigned or released.
    pub unmanaged: Vec<IpAddr>,
    families: Vec<String>,
}

impl Wishes {
    /// Reads the annotations of a pod and of its namespace.
    pub fn read(
        pod: &BTreeMap<String, String>,
        namespace: &BTreeMap<String, String>,
    ) -> Result<Self, AssignError> {
        if pod.contains_key(FLOATING) {
            return Err(AssignError::Annotation {
                name: FLOATING,
                reason: "floating IPs are not supported; remove the annotation".to_owned(),
            });
        }
        let unmanaged = addresses(pod, UNMANAGED)?;
        if !unmanaged.is_empty() && pod.contains_key(ADDRESSES) {
            return Err(AssignError::Annotation {
                name: UNMANAGED,
                reason: format!("cannot be used together with {ADDRESSES}"),
            });
        }
        let pools = |name| texts(pod.get(name).or_else(|| namespace.get(name)), name);
        Ok(Self {
            pools4: pools(POOLS4)?,
            pools6: pools(POOLS6)?,
            addresses: addresses(pod, ADDRESSES)?,
            unmanaged,
            families: texts(pod.get(FAMILIES), FAMILIES)?,
        })
    }

    /// Returns the pools that are asked for.
    #[must_use]
    pub fn pools(&self, family: Family) -> &[String] {
        match family {
            Family::V4 => &self.pools4,
            Family::V6 => &self.pools6,
        }
    }

    /// Returns whether an address of a family is wanted; `is_offered` tells whether there is a pool to give one from.
    pub fn wants(&self, family: Family, is_offered: impl FnOnce() -> bool) -> bool {
        if !self.families.is_empty() {
            let name = family.to_string();
            return self.families.iter().any(|wanted| wanted.eq_ignore_ascii_case(&name));
        }
        !self.pools(family).is_empty() || is_offered()
    }
}

/// Reads an annotation that is a JSON list of strings.
fn texts(text: Option<&String>, name: &'static str) -> Result<Vec<String>, AssignError> {
    let Some(text) = text else { return Ok(Vec::new()) };
    serde_json::from_str(text).map_err(|error| AssignError::Annotation {
        name,
        reason: format!("{text:?} is not a JSON list of strings: {error}"),
    })
}

fn addresses(
    pod: &BTreeMap<String, String>,
    name: &'static str,
) -> Result<Vec<IpAddr>, AssignError> {
    let refused = |text: &str| AssignError::Annotation {
        name,
        reason: format!("{text:?} is not an address"),
    };
    let texts = texts(pod.get(name), name)?;
    texts.iter().map(|text| text.parse().map_err(|_| refused(text))).collect()
}
