//! What the scenarios of all speakers have in common.

use voile_tests::bgp::{Lan, Voile, wait_gone, wait_text};

pub(crate) const SESSION: &str = "session, IPv4 and IPv6 routes both ways, withdrawal";
pub(crate) const RESTART: &str = "graceful restart: our side restarts";

/// Another speaker that runs on host 2 of a network.
pub(crate) trait Router {
    /// Describes what it knows about a prefix.
    fn show(&self, prefix: &str) -> Result<String, String>;
    /// Stops announcing 10.2.0.0/24 and fd00:2::/64.
    fn withdraw(&mut self);
}

/// Our two prefixes.
pub(crate) const NETWORKS: &str = "\
[[network]]
prefix = \"10.1.0.0/24\"
communities = [\"65001:100\"]
large-communities = [\"65001:1:2\"]
[[network]]
prefix = \"fd00:1::/64\"
";

/// A peer with everything accepted.
pub(crate) fn peer(name: &str, address: &str, asn: u32, more: &str) -> String {
    format!(
        "[[peer]]\nname = \"{name}\"\naddress = \"{address}\"\nas = {asn}\nhold-time = 9\n\
         connect-retry = 1\nidle-hold = 0.2\nimport-default = \"accept\"\n\
         export-default = \"accept\"\n{more}\n"
    )
}

/// Both families over a session of their own.
pub(crate) fn two_sessions(asn: u32) -> String {
    let sessions = peer("v4", "10.0.0.2", asn, "") + &peer("v6", "fd00::2", asn, "");
    format!("install-routes = true\n{sessions}")
}

/// Routes go both ways and into the kernel, and go away again. The sessions are called `v4` and `v6`.
pub(crate) fn routes_both_ways(
    lan: &Lan,
    voile: &Voile,
    sessions: &str,
    router: &mut dyn Router,
    own_asn: bool,
) {
    let path = voile.wait_route("10.2.0.0/24", "v4");
    assert_eq!(path["nextHop"], "10.0.0.2");
    assert_eq!(path["asPath"], if own_asn { "" } else { "65002" });
    let path = voile.wait_route("fd00:2::/64", "v6");
    assert_eq!(path["nextHop"], "fd00::2");
    let kernel = || Ok(lan.routes(1));
    wait_text("our kernel", &["10.2.0.0/24 via 10.0.0.2", "fd00:2::/64 via fd00::2"], kernel);
    wait_text("10.1.0.0/24 there", &["10.0.0.1"], || router.show("10.1.0.0/24"));
    wait_text("fd00:1::/64 there", &["fd00::1"], || router.show("fd00:1::/64"));

    voile.configure(sessions);
    wait_gone("10.1.0.0/24 there", "10.0.0.1", || router.show("10.1.0.0/24"));
    wait_gone("fd00:1::/64 there", "fd00::1", || router.show("fd00:1::/64"));
    router.withdraw();
    voile.wait_no_route("10.2.0.0/24");
    voile.wait_no_route("fd00:2::/64");
    wait_gone("our kernel", "10.2.0.0/24", kernel);
    wait_gone("our kernel", "fd00:2::/64", kernel);
    for peer in ["v4", "v6"] {
        let state = voile.peer(peer).unwrap();
        assert_eq!(state["state"], "Established", "{state:#}");
        assert_eq!(state["received"]["opens"], 1, "one session did it all: {state:#}");
    }
}
