//! The daemon's HTTP server: `/metrics`, `/healthz`, `/readyz`, `/status`. It reads snapshots and decides nothing.

use std::{convert::Infallible, future::Future, net::SocketAddr, pin::Pin, sync::Arc};

use bgp::report::{self, Exposition};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, header::CONTENT_TYPE,
    server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// An answer: status, content type, body.
#[derive(Debug)]
pub(crate) struct Page {
    /// HTTP status code.
    pub(crate) status: u16,
    /// Content type.
    pub(crate) content_type: &'static str,
    /// Body.
    pub(crate) body: String,
}

impl Page {
    /// A plain-text answer.
    pub(crate) fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }

    /// Metrics.
    pub(crate) fn metrics(metrics: Exposition) -> Self {
        Self { status: 200, content_type: report::CONTENT_TYPE, body: metrics.into_text() }
    }
}

/// A future page.
pub(crate) type PageFuture = Pin<Box<dyn Future<Output = Page> + Send>>;

/// Makes the page of a path; `None` when there is no such page.
pub(crate) type Pages = Arc<dyn Fn(&str) -> Option<PageFuture> + Send + Sync>;

/// Binds the server's socket.
///
/// # Errors
/// The address that could not be bound, and why.
pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        anyhow::anyhow!(
            "cannot serve metrics on {address}: {error}; choose another with --metrics-address"
        )
    })
}

/// Serves until the task is dropped. Cancel-safe: a connection that is cut is the client's to retry.
pub(crate) async fn serve(listener: TcpListener, pages: Pages) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept an HTTP connection");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let pages = Arc::clone(&pages);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&pages), request));
            if let Err(error) =
                http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
            {
                tracing::debug!(%error, "HTTP connection ended");
            }
        });
    }
}

async fn answer(
    pages: Pages,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let page = if request.method() == Method::GET {
        match pages(request.uri().path()) {
            Some(page) => page.await,
            None => Page::text(404, "no such page; there are /metrics /healthz /readyz /status\n"),
        }
    } else {
        Page::text(405, "only GET\n")
    };
    let mut response = Response::new(Full::new(Bytes::from(page.body)));
    *response.status_mut() =
        StatusCode::from_u16(page.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(value) = page.content_type.parse() {
        response.headers_mut().insert(CONTENT_TYPE, value);
    }
    Ok(response)
}
