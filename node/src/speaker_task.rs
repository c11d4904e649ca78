//! The speaker beside the cluster: what it shall be told, and what it tells.

use std::path::Path;

use anyhow::Result;
use store::Store;
use tokio::task::JoinSet;

use crate::tasks::Context;

/// The speaker's ends that this module serves.
pub(crate) struct Bgp {
    pub(crate) handle: bgp::driver::Handle,
}

/// Starts the speaker.
pub(crate) fn spawn(_run_dir: &Path) -> Result<Bgp> {
    Ok(Bgp { handle: bgp::driver::Handle })
}

/// Starts the tasks around it.
pub(crate) fn start<S: Store>(
    _tasks: &mut JoinSet<()>,
    _context: &Context,
    _store: S,
    _bgp: Bgp,
) -> tokio::sync::watch::Receiver<crate::report::BgpReport> {
    tokio::sync::watch::channel(crate::report::BgpReport::default()).1
}
