//! What stands between the allocators and the API server: a proxy that loses, delays, repeats and refuses as networks and
//! overloaded servers do. It never tells a lie that an API server could not tell.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::json;
use store::random::Random;
use tokio::{net::TcpListener, sync::mpsc, time::Instant};

/// How often each fault happens, of a thousand requests that it could happen to.
const CONFLICT: u32 = 30;
const LOSE_REQUEST: u32 = 6;
const LOSE_ANSWER: u32 = 20;
const LATE: u32 = 6;
const SILENCE: u32 = 1;
const REFUSE: u32 = 6;
const STALE_LIST: u32 = 400;
const WATCH_LAGS: u32 = 500;
const WATCH_CUT: u32 = 250;

/// Longest delay of a watch, and of a write that comes after its client has given up.
const LAG_MILLIS: u64 = 500;
/// How old an old list may be.
const STALE_FOR: Duration = Duration::from_millis(1500);

/// What went wrong, on purpose or by itself.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) requests: AtomicU64,
    pub(crate) conflicts: AtomicU64,
    pub(crate) injected_conflicts: AtomicU64,
    pub(crate) lost_requests: AtomicU64,
    pub(crate) lost_answers: AtomicU64,
    pub(crate) late_writes: AtomicU64,
    pub(crate) refusals: AtomicU64,
    pub(crate) old_lists: AtomicU64,
    pub(crate) lagging_watches: AtomicU64,
    pub(crate) cut_watches: AtomicU64,
}

impl Counts {
    fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }
}

struct Shared {
    upstream: kube::Client,
    random: Mutex<Random>,
    lists: Mutex<BTreeMap<String, (Instant, Answer)>>,
    late: Mutex<Vec<Bytes>>,
    on: AtomicBool,
    counts: Arc<Counts>,
}

/// A running proxy.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    pub(crate) counts: Arc<Counts>,
    shared: Arc<Shared>,
}

/// A whole answer.
#[derive(Clone)]
struct Answer {
    status: StatusCode,
    content_type: Option<header::HeaderValue>,
    body: Bytes,
}

/// Breaks a connection off.
#[derive(Debug, thiserror::Error)]
#[error("broken off on purpose")]
struct Cut;

type Body = BoxBody<Bytes, Cut>;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    Passes,
    Conflicts,
    IsRefused,
    NeverArrives,
    LosesAnswer,
    /// Its client gives up, and then it arrives.
    ArrivesLate,
    /// It arrives, and the connection stays silent.
    NoAnswer,
}

impl Proxy {
    /// Starts in this runtime.
    pub(crate) async fn start(upstream: kube::Client, seed: u64) -> Self {
        let counts = Arc::new(Counts::default());
        let shared = Arc::new(Shared {
            upstream,
            random: Mutex::new(Random::seeded(seed)),
            lists: Mutex::default(),
            late: Mutex::default(),
            on: AtomicBool::new(true),
            counts: Arc::clone(&counts),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, Arc::clone(&shared)));
        Self { address, counts, shared }
    }

    /// From now on everything passes as it is.
    pub(crate) fn behave(&self) {
        self.shared.on.store(false, Relaxed);
    }

    /// Whether a write that names this may have happened after its client was gone: whoever cleaned up after that client may
    /// have come too early.
    pub(crate) fn was_late(&self, name: &str) -> bool {
        let name = format!("\"{name}\"");
        let late = self.shared.late.lock().unwrap();
        late.iter().any(|body| String::from_utf8_lossy(body).contains(&name))
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request| handle(Arc::clone(&shared), request));
        // A connection that breaks is what this is about.
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Cut> {
    Counts::add(&shared.counts.requests);
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    let uri = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let mut forwarded = Request::builder().method(&parts.method).uri(&uri);
    for name in [header::ACCEPT, header::CONTENT_TYPE, header::USER_AGENT] {
        if let Some(value) = parts.headers.get(&name) {
            forwarded = forwarded.header(name, value);
        }
    }
    let arriving = (parts.method != Method::GET)
        .then(|| Arriving { shared: Arc::clone(&shared), body: body.clone() });
    let forwarded = forwarded.body(kube::client::Body::from(body)).map_err(|_| Cut)?;
    if uri.contains("watch=true") {
        return watch(shared, forwarded).await;
    }
    let fate = shared.fate(&parts.method);
    let counts = &shared.counts;
    match fate {
        Fate::Passes => {
            if parts.method == Method::GET && uri.contains("resourceVersion=0") {
                return list(shared, uri, forwarded).await;
            }
            let answer = ask(shared, forwarded).await;
            if let Some(arriving) = arriving {
                arriving.has_arrived();
            }
            answer.map(Answer::respond)
        }
        Fate::Conflicts => {
            Counts::add(&counts.injected_conflicts);
            Ok(Answer::refusal(StatusCode::CONFLICT, "Conflict").respond())
        }
        Fate::IsRefused => {
            Counts::add(&counts.refusals);
            let refusals = [StatusCode::INTERNAL_SERVER_ERROR, StatusCode::TOO_MANY_REQUESTS];
            let which = usize::try_from(shared.below(2)).unwrap_or_default();
            let status = refusals.get(which).copied().unwrap_or_default();
            Ok(Answer::refusal(status, "Injected").respond())
        }
        Fate::NeverArrives => {
            Counts::add(&counts.lost_requests);
            Err(Cut)
        }
        Fate::LosesAnswer => {
            Counts::add(&counts.lost_answers);
            ask(shared, forwarded).await?;
            Err(Cut)
        }
        Fate::ArrivesLate => {
            Counts::add(&counts.late_writes);
            let wait = Duration::from_millis(shared.below(LAG_MILLIS));
            tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                drop(ask(shared, forwarded).await);
            });
            Err(Cut)
        }
        Fate::NoAnswer => {
            Counts::add(&counts.lost_answers);
            ask(shared, forwarded).await?;
            std::future::pending().await
        }
    }
}

impl Shared {
    fn fate(&self, method: &Method) -> Fate {
        if !self.on.load(Relaxed) {
            return Fate::Passes;
        }
        let is_write = *method != Method::GET;
        // A server says "conflict" only where a revision was given.
        let has_revision = *method == Method::PUT || *method == Method::DELETE;
        let mut random = self.random.lock().unwrap();
        let mut chosen = Fate::Passes;
        for (fate, chance, possible) in [
            (Fate::Conflicts, CONFLICT, has_revision),
            (Fate::IsRefused, REFUSE, true),
            (Fate::NeverArrives, LOSE_REQUEST, true),
            (Fate::LosesAnswer, LOSE_ANSWER, is_write),
            (Fate::ArrivesLate, LATE, is_write),
            (Fate::NoAnswer, SILENCE, is_write),
        ] {
            if possible && random.chance(chance) {
                chosen = fate;
            }
        }
        chosen
    }

    fn below(&self, bound: u64) -> u64 {
        self.random.lock().unwrap().below(bound)
    }

    fn chance(&self, per_mille: u32) -> bool {
        self.on.load(Relaxed) && self.random.lock().unwrap().chance(per_mille)
    }
}

/// A write whose client may go away before it has happened.
struct Arriving {
    shared: Arc<Shared>,
    body: Bytes,
}

impl Arriving {
    fn has_arrived(mut self) {
        self.body = Bytes::new();
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if !self.body.is_empty() {
            self.shared.late.lock().unwrap().push(std::mem::take(&mut self.body));
        }
    }
}

/// Asks the server. What was sent arrives, also when the client goes away meanwhile.
async fn ask(shared: Arc<Shared>, request: Request<kube::client::Body>) -> Result<Answer, Cut> {
    let asking = tokio::spawn(async move {
        let response = shared.upstream.send(request).await.map_err(|_| Cut)?;
        if response.status() == StatusCode::CONFLICT {
            Counts::add(&shared.counts.conflicts);
        }
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
        let content_type = parts.headers.get(header::CONTENT_TYPE).cloned();
        Ok(Answer { status: parts.status, content_type, body })
    });
    asking.await.map_err(|_| Cut)?
}

/// Answers a list that may be old with an old one now and then, as one of several API servers does.
async fn list(
    shared: Arc<Shared>,
    uri: String,
    request: Request<kube::client::Body>,
) -> Result<Response<Body>, Cut> {
    let known = shared.lists.lock().unwrap().get(&uri).cloned();
    let known = known.filter(|(since, _)| since.elapsed() < STALE_FOR);
    if let Some((_, old)) = &known
        && shared.chance(STALE_LIST)
    {
        Counts::add(&shared.counts.old_lists);
        return Ok(old.clone().respond());
    }
    let answer = ask(Arc::clone(&shared), request).await?;
    if known.is_none() && answer.status.is_success() {
        shared.lists.lock().unwrap().insert(uri, (Instant::now(), answer.clone()));
    }
    Ok(answer.respond())
}

/// Passes events on in their order, late, until it is cut.
async fn watch(
    shared: Arc<Shared>,
    request: Request<kube::client::Body>,
) -> Result<Response<Body>, Cut> {
    let response = shared.upstream.send(request).await.map_err(|_| Cut)?;
    let (parts, body) = response.into_parts();
    let lag = if shared.chance(WATCH_LAGS) { shared.below(LAG_MILLIS) } else { 0 };
    let ends = shared.chance(WATCH_CUT).then(|| shared.below(2000) + 200);
    let ends = ends.map(|millis| Instant::now() + Duration::from_millis(millis));
    if lag > 0 {
        Counts::add(&shared.counts.lagging_watches);
    }
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut chunks = body.into_data_stream();
        while let Some(Ok(chunk)) = chunks.next().await {
            if sender.send((Instant::now(), chunk)).is_err() {
                break;
            }
        }
    });
    let lag = Duration::from_millis(lag);
    let events = futures::stream::unfold(receiver, move |mut receiver| {
        let shared = Arc::clone(&shared);
        async move {
            let next = async {
                let (arrived, chunk) = receiver.recv().await?;
                tokio::time::sleep_until(arrived + lag).await;
                Some(chunk)
            };
            let chunk = match ends {
                Some(ends) => tokio::select! {
                    chunk = next => chunk?,
                    () = tokio::time::sleep_until(ends) => {
                        Counts::add(&shared.counts.cut_watches);
                        // Closed in good order or broken off, both happen.
                        return shared.chance(500).then_some((Err(Cut), receiver));
                    }
                },
                None => next.await?,
            };
            Some((Ok(Frame::data(chunk)), receiver))
        }
    });
    let mut response = Response::builder().status(parts.status);
    if let Some(content_type) = parts.headers.get(header::CONTENT_TYPE) {
        response = response.header(header::CONTENT_TYPE, content_type);
    }
    response.body(BoxBody::new(StreamBody::new(events))).map_err(|_| Cut)
}

impl Answer {
    fn refusal(status: StatusCode, reason: &str) -> Self {
        let body = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason,
            "code": status.as_u16(), "message": "refused on purpose",
        });
        Self {
            status,
            content_type: Some(header::HeaderValue::from_static("application/json")),
            body: body.to_string().into(),
        }
    }

    fn respond(self) -> Response<Body> {
        let whole = Full::new(self.body).map_err(|never: Infallible| match never {});
        let mut response = Response::new(BoxBody::new(whole));
        *response.status_mut() = self.status;
        if let Some(content_type) = self.content_type {
            response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        }
        response
    }
}
