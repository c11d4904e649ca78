//! The unix socket that `voile-cni` talks to: one connection for each runtime command, a request and its answer in turns.
//!
//! The order of ADD is the promise of invariant 2: address, durable record, policy committed in the kernel, and only then
//! the wiring; the host route before the last answer.

mod add;
mod in_flight;
pub(crate) mod machines;
pub(crate) mod remove;
pub(crate) mod repair;

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use api::Key;
use cni::{
    rpc::{self, Del, Request, Response, Wiring},
    spec::{Attachment, CniError, code},
};
use felix::update::{EndpointId, LocalEndpoint, Update};
use ipam::Allocator;
use store::Store;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::{Mutex, watch},
};

use crate::{
    endpoints::{Endpoints, Record},
    sync::SyncState,
    tasks::Context,
};

/// How long policy and routes may take to reach the kernel before ADD gives up.
const KERNEL_PATIENCE: Duration = Duration::from_secs(10);

/// Everything a request needs.
pub(crate) struct Server<S: Store> {
    pub(crate) context: Context,
    pub(crate) store: S,
    pub(crate) ipam: Allocator<S>,
    pub(crate) endpoints: Mutex<Endpoints>,
    pub(crate) sync: watch::Receiver<SyncState>,
    pub(crate) mtu: u32,
    pub(crate) releases: remove::Releases,
    in_flight: in_flight::InFlight,
}

impl<S: Store> Server<S> {
    /// Makes the server; nothing is served before [`serve`].
    pub(crate) fn new(
        context: Context,
        store: S,
        ipam: Allocator<S>,
        endpoints: Endpoints,
        sync: watch::Receiver<SyncState>,
        mtu: u32,
    ) -> Self {
        let releases = remove::Releases::new(&context.run_dir);
        context.addresses.send_replace(local_addresses(&endpoints));
        let endpoints = Mutex::new(endpoints);
        let in_flight = in_flight::InFlight::default();
        Self { context, store, ipam, endpoints, sync, mtu, releases, in_flight }
    }

    /// Tells the speaker which addresses are here, after the records changed.
    fn tell_addresses(&self, endpoints: &Endpoints) {
        let now = local_addresses(endpoints);
        self.context.addresses.send_if_modified(|known| {
            let changed = *known != now;
            *known = now;
            changed
        });
    }

    async fn handle(&self, request: Request) -> Response {
        let result = match request {
            Request::Add(add) => self.add(add).await,
            Request::Wired(wired) => self.wired(wired).await,
            Request::Del(del) => self.del(del).await,
            Request::Check(check) => self.check(&check.attachment).await,
            Request::Gc(gc) => self.gc(gc).await,
            Request::Status => self.status(),
        };
        result.unwrap_or_else(Response::Error)
    }

    async fn check(&self, attachment: &Attachment) -> Result<Response, CniError> {
        let endpoints = self.endpoints.lock().await;
        match endpoints.get(&attachment.container_id, &attachment.ifname) {
            Some(record) => Ok(Response::Wire(wiring(record))),
            None => Err(CniError::new(
                code::UNKNOWN_CONTAINER,
                "unknown container",
                format!(
                    "voile-node has no endpoint for container {} interface {}; it was never added here or was deleted",
                    attachment.container_id, attachment.ifname
                ),
            )),
        }
    }

    fn status(&self) -> Result<Response, CniError> {
        let state = self.sync.borrow();
        if !state.synced {
            let details = state.trouble.iter().next().map_or_else(
                || "the cluster's objects are still being read".to_owned(),
                |(kind, reason)| format!("cannot read {kind}: {reason}"),
            );
            return Err(CniError::new(code::NOT_AVAILABLE, "voile-node is starting", details));
        }
        if self.context.view.datastore_locked() {
            return Err(locked());
        }
        Ok(Response::Done)
    }
}

fn local_addresses(endpoints: &Endpoints) -> std::collections::BTreeSet<std::net::IpAddr> {
    endpoints.iter().flat_map(Record::ips).collect()
}

fn locked() -> CniError {
    CniError::new(
        code::TRY_AGAIN,
        "the datastore is locked",
        "ClusterInformation default has datastoreReady: false; unlock with `calicoctl datastore migrate unlock`",
    )
}

fn wiring(record: &Record) -> Wiring {
    Wiring::new(record.host_interface.clone(), record.mtu, record.addresses.clone())
}

fn endpoint_id(record: &Record) -> EndpointId {
    EndpointId { container_id: record.container_id.clone(), ifname: record.ifname.clone() }
}

/// Returns the update that tells felix of a record.
pub(crate) fn endpoint_update(record: &Record) -> Update {
    let endpoint = LocalEndpoint {
        pod: Key::namespaced(&record.namespace, &record.pod),
        pod_uid: record.pod_uid.clone(),
        host_interface: record.host_interface.clone(),
        addresses: record.ips(),
        mac: None,
    };
    Update::LocalEndpoint(endpoint_id(record), Some(endpoint))
}

/// Listens on the socket: a new file beside the old one, renamed over it, so that a shim never finds none.
///
/// # Errors
/// The path that cannot be listened on, and why.
pub(crate) fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let temporary = path.with_extension("new");
    if let Err(error) = fs::remove_file(&temporary)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error).with_context(|| format!("cannot remove {}", temporary.display()));
    }
    let bind = || {
        let listener = UnixListener::bind(&temporary)?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600))?;
        fs::rename(&temporary, path)?;
        Ok::<_, io::Error>(listener)
    };
    bind().with_context(|| {
        format!("cannot listen on {}; choose another with --cni-socket", path.display())
    })
}

/// Serves until the task is dropped. Each connection is a task of its own; requests of different pods run side by side.
pub(crate) async fn serve<S: Store>(server: Arc<Server<S>>, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let server = Arc::clone(&server);
                tokio::spawn(async move {
                    if let Err(error) = converse(&server, stream).await {
                        tracing::debug!(%error, "conversation with voile-cni ended early");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept from voile-cni");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse<S: Store>(server: &Server<S>, mut stream: UnixStream) -> io::Result<()> {
    loop {
        let mut header = [0; rpc::HEADER];
        match stream.read_exact(&mut header).await {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
        let length = rpc::frame_length(header).map_err(io::Error::other)?;
        let mut contents = vec![0; length];
        stream.read_exact(&mut contents).await?;
        let response = match rpc::decode_request(&contents) {
            Ok(request) => server.handle(request).await,
            Err(answer) => answer,
        };
        let frame = rpc::encode_response(&response).map_err(io::Error::other)?;
        stream.write_all(&frame).await?;
    }
}

/// Takes over the DELs that voile-cni recorded while no daemon ran.
pub(crate) async fn consume_journal<S: Store>(server: &Server<S>, socket: &Path) {
    let pending: Vec<(PathBuf, Result<Del, String>)> = match cni::journal::pending(socket) {
        Ok(pending) => pending,
        Err(error) => {
            tracing::warn!(%error, "cannot read the journal of DELs");
            return;
        }
    };
    for (path, del) in pending {
        match del {
            Ok(del) => {
                tracing::info!(container = %del.attachment.container_id, "DEL made while the daemon was down");
                if let Response::Error(error) = server.handle(Request::Del(del)).await {
                    tracing::warn!(?error, "journalled DEL failed; kept for the next start");
                    continue;
                }
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "unreadable journal entry dropped")
            }
        }
        if let Err(error) = cni::journal::consume(&path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove a journal entry");
        }
    }
}
