//! All tasks and channels of the daemon, in one place.
//!
//! | Task | Owns | Input (depth, when full) | Output |
//! |---|---|---|---|
//! | `sync` | one watch for each kind | API server | felix batches (1024 changes, watches wait) |
//! | `felix::driver` | calculation graph, nft table, route table, their netlink sockets | batches, FIB (keyed by prefix, newest wins), link and nft events | `watch<Status>` |
//! | `bgp::driver` | the `Speaker` | frames, configuration, originated prefixes | FIB updates, events, snapshots |
//! | `speaker_task` | peers, filters, pools and blocks of this node as last seen | API server, `sync`'s watches of pools and affinities (1024, watches wait), link events, addresses of local pods | speaker configuration, originated prefixes |
//! | `fib` | nothing | FIB updates of the speaker, felix's answers (unbounded: one for each route told) | felix's route table; what became of routes to the speaker |
//! | `queries` | which questions were answered | `BgpQuery` objects of this node | their status; removes what is a minute old |
//! | `repair` | what looked stale a moment ago | links, own blocks, endpoint records | releases |
//! | `cni_server` | the unix socket, the endpoint records | `voile-cni` | endpoints to felix, addresses from `ipam` |
//! | `status` | nothing | snapshots | `NodeNetworkState` (at most one write a second) |
//! | `http` | the listener | requests | pages made of snapshots |
//!
//! Shutdown: a task ends when its input closes or when it is aborted; none needs a last word except the speaker, which closes its
//! sessions without a NOTIFICATION when graceful restart was negotiated, and felix, which finishes its transaction. Rules and routes stay.
//! A panic in any task ends the process: the data plane keeps forwarding, the supervisor starts us again.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf};

use ipnet::IpNet;
use tokio::sync::watch;

use crate::pods::PodView;

/// What the tasks share: handles, never state.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// Name of this node in the API.
    pub(crate) node_name: String,
    /// Directory that survives restarts of the daemon.
    pub(crate) run_dir: PathBuf,
    /// Pods, namespaces and the datastore lock as last seen.
    pub(crate) view: PodView,
    /// The policy engine.
    pub(crate) felix: felix::driver::Handle,
    /// Collectors of BMP.
    pub(crate) collectors: Vec<bgp::bmp::Collector>,
    /// Namespace of the daemon: where the secrets of BGP passwords are.
    pub(crate) namespace: String,
    /// Addresses of local pods; written by the CNI server, read by the speaker.
    pub(crate) addresses: watch::Sender<BTreeSet<IpAddr>>,
    /// Blocks of this node; written by the speaker's task, read by the repair.
    pub(crate) blocks: watch::Sender<BTreeSet<IpNet>>,
}
