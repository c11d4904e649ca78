//! What the speaker reports, in the words of the API: read by the status writer, the metrics and `/status`.

use api::PeerStatus;
use serde::Serialize;

/// The speaker at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BgpReport {
    /// Our AS number.
    pub(crate) local_as: u32,
    /// Our BGP identifier.
    pub(crate) router_id: String,
    /// Sessions in the order of their names.
    pub(crate) peers: Vec<PeerStatus>,
    /// Peers and filters that cannot be used, and why.
    pub(crate) problems: Vec<String>,
    /// Blocks of this node that are announced.
    pub(crate) blocks: Vec<String>,
    /// Routes learned and in use.
    pub(crate) routes: u64,
}
