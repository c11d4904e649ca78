//! Real TCP connections from inside pods' namespaces.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Enough for the first answer of a busy machine, and what a dropped SYN costs.
pub(super) const PATIENT: Duration = Duration::from_secs(1);
/// For asking again and again.
pub(super) const QUICK: Duration = Duration::from_millis(100);

/// A connection to try.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Target {
    /// Where to.
    pub(super) address: SocketAddr,
    /// Who has to answer there.
    pub(super) name: String,
}

/// Tries all targets at once, from one namespace; `true` where the right pod answered. Blocks.
fn from_namespace(netns: &Path, targets: &[Target], limit: Duration) -> Result<Vec<bool>> {
    kernel::netns::in_netns(netns, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let tries = targets.iter().map(|target| answers(target, limit));
        Ok(runtime.block_on(futures::future::join_all(tries)))
    })?
}

async fn answers(target: &Target, limit: Duration) -> bool {
    let name = timeout(limit, who_is(target.address)).await;
    name.is_ok_and(|name| name.is_ok_and(|name| name == target.name))
}

/// Asks the server of a pod for its name.
async fn who_is(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.trim());
    Ok(body.unwrap_or_default().to_owned())
}

/// Everything a matrix asks: for each source its namespace and targets.
pub(super) type Plan = Vec<(PathBuf, Vec<Target>)>;

/// Tries a whole plan, all sources at once. Blocks.
pub(super) fn run(plan: &Plan, limit: Duration) -> Result<Vec<Vec<bool>>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = plan
            .iter()
            .map(|(netns, targets)| scope.spawn(|| from_namespace(netns, targets, limit)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// Picks the address of a family.
#[must_use]
pub(super) fn of_family(addresses: &[IpAddr], v4: bool) -> Option<IpAddr> {
    addresses.iter().copied().find(|address| address.is_ipv4() == v4)
}
