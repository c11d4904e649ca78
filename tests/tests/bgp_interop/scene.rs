//! What the scenarios have in common: our side's configuration.

pub(crate) mod limits;
pub(crate) mod paths;
pub(crate) mod reflection;
pub(crate) mod restart;
pub(crate) mod session;
pub(crate) mod transport;

use std::net::Ipv4Addr;

use voile_tests::bgp::{
    Lan, Voile,
    raw::{self, Raw, hex},
};

/// Our two prefixes.
const NETWORKS: &str = "\
[[network]]
prefix = \"10.1.0.0/24\"
communities = [\"65001:100\"]
large-communities = [\"65001:1:2\"]
[[network]]
prefix = \"fd00:1::/64\"
";

/// Those of the other side where both families go.
const THEIR_NETWORKS: &[&str] = &["10.2.0.0/24", "fd00:2::/64"];

/// A peer with everything accepted.
fn peer(name: &str, address: &str, asn: u32, more: &str) -> String {
    format!(
        "[[peer]]\nname = \"{name}\"\naddress = \"{address}\"\nas = {asn}\nhold-time = 9\n\
         connect-retry = 1\nidle-hold = 0.2\nimport-default = \"accept\"\n\
         export-default = \"accept\"\n{more}\n"
    )
}

/// One session, to host 2.
fn one_session(more: &str) -> String {
    format!("install-routes = true\n{}", peer("peer", "10.0.0.2", 65002, more))
}

/// Both families over a session of their own.
fn two_sessions(asn: u32, more: &str) -> String {
    let sessions = peer("v4", "10.0.0.2", asn, more) + &peer("v6", "fd00::2", asn, more);
    format!("install-routes = true\n{sessions}")
}

fn with_raw_peer() -> String {
    one_session("") + &peer("raw", "10.0.0.3", 65003, "passive = true")
}

/// A peer of ours on host 3 that is made of bytes; [`with_raw_peer`] has its section.
fn raw_peer(lan: &Lan, voile: &Voile) -> Raw {
    let _ = voile.wait_peer("raw", |_| true);
    let address = Ipv4Addr::new(10, 0, 0, 3);
    let connect = || Raw::connect(address.into(), Ipv4Addr::new(10, 0, 0, 1).into());
    let raw = lan.host(3).run(connect).unwrap();
    // IPv4, four-octet AS numbers, extended messages.
    raw.establish(&raw::open(65003, 90, address, &hex("0104 0001 00 01 4104 0000fdeb 0600")))
}

const RAW_ATTRIBUTES: &str = "400101 00 400206 02 01 0000fdeb 400304 0a000003";
