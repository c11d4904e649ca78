//! The Kubernetes API server as datastore.
//!
//! Requests are made by path from [`KindInfo`] and answers stay JSON, so that fields unknown to our types survive. The
//! client underneath is the `kube` crate: kubeconfig files, service account tokens, TLS.

mod connect;
mod error;
mod limit;
mod path;
#[cfg(test)]
mod tests;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::{Key, KindInfo, Resource};
use http::{Method, Request, header};
use http_body_util::BodyExt;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    DeletePreconditions, ListOptions, Listing, Revision, Store, StoreError, Stored, WatchStream,
    random::Random, stored,
};
use error::{Failure, Target};
use limit::TokenBucket;

/// How to find and treat the API server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KubeOptions {
    /// Requests per second in the long run, and how many may come at once. `None` means no limit.
    pub rate: Option<(u32, u32)>,
    /// Longest time for one request, watches aside.
    pub timeout: Duration,
    /// Objects per page of a consistent list.
    pub page_size: u32,
    /// Sent as `User-Agent`.
    pub user_agent: String,
}

impl Default for KubeOptions {
    fn default() -> Self {
        Self {
            rate: Some((50, 100)),
            timeout: Duration::from_secs(30),
            page_size: 500,
            user_agent: concat!("voile/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// A datastore that is a Kubernetes API server. Clones share connections and the rate limit.
#[derive(Clone)]
pub struct KubeStore {
    client: kube::Client,
    server: Arc<str>,
    options: Arc<KubeOptions>,
    bucket: Option<Arc<TokenBucket>>,
}

impl std::fmt::Debug for KubeStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubeStore")
            .field("server", &self.server)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl KubeStore {
    /// Reads a kubeconfig file, and in it the named context or the current one.
    pub async fn from_kubeconfig(
        path: impl Into<PathBuf>,
        context: Option<&str>,
        options: KubeOptions,
    ) -> Result<Self, StoreError> {
        let path = path.into();
        let unusable = |error: &dyn std::fmt::Display| StoreError::Invalid {
            message: format!("kubeconfig {}: {error}", path.display()),
        };
        let file = Kubeconfig::read_from(&path).map_err(|error| unusable(&error))?;
        let choice =
            KubeConfigOptions { context: context.map(str::to_owned), ..Default::default() };
        let config = kube::Config::from_custom_kubeconfig(file, &choice)
            .await
            .map_err(|error| unusable(&error))?;
        Self::from_config(config, options)
    }

    /// Uses the service account of the pod that this process runs in.
    pub fn in_cluster(options: KubeOptions) -> Result<Self, StoreError> {
        let config = kube::Config::incluster().map_err(|error| StoreError::Invalid {
            message: format!("in-cluster configuration: {error}"),
        })?;
        Self::from_config(config, options)
    }

    /// Like [`KubeStore::in_cluster`], with `token` and `ca.crt` in another folder. The token is read again when it is renewed.
    pub fn in_cluster_at(folder: &Path, options: KubeOptions) -> Result<Self, StoreError> {
        let unusable = |error: &dyn std::fmt::Display| StoreError::Invalid {
            message: format!("service account in {}: {error}", folder.display()),
        };
        let variable = |name: &str| {
            std::env::var(name).map_err(|_| unusable(&format!("{name} is not in the environment")))
        };
        let (host, port) =
            (variable("KUBERNETES_SERVICE_HOST")?, variable("KUBERNETES_SERVICE_PORT")?);
        // IPv6 needs brackets in a URL.
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let url = format!("https://{host}:{port}").parse().map_err(|error| unusable(&error))?;
        let (token, ca) = (folder.join("token"), folder.join("ca.crt"));
        if !token.is_file() {
            return Err(unusable(&format!("{} does not exist", token.display())));
        }
        let certificates = CertificateDer::pem_file_iter(&ca)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| unusable(&format!("{}: {error}", ca.display())))?;
        let mut config = kube::Config::new(url);
        config.root_cert = Some(certificates.iter().map(|der| der.to_vec()).collect());
        config.auth_info.token_file = Some(token.to_string_lossy().into_owned());
        Self::from_config(config, options)
    }

    /// Uses `KUBECONFIG` or `~/.kube/config`, else the pod's service account.
    pub async fn infer(options: KubeOptions) -> Result<Self, StoreError> {
        let config = kube::Config::infer()
            .await
            .map_err(|error| StoreError::Invalid { message: error.to_string() })?;
        Self::from_config(config, options)
    }

    /// Uses an explicit client configuration; plain `http` URLs work too.
    pub fn from_config(mut config: kube::Config, options: KubeOptions) -> Result<Self, StoreError> {
        // Retrying is the caller's decision: it knows whether a write may be repeated.
        config.default_retry = false;
        // Watches are quiet for long: requests have their own timeout.
        config.read_timeout = None;
        let server = config.cluster_url.to_string();
        let client = connect::client(config).map_err(|error| StoreError::Invalid {
            message: format!("client for {server}: {error}"),
        })?;
        let bucket = options.rate.map(|(rate, burst)| Arc::new(TokenBucket::new(rate, burst)));
        Ok(Self { client, server: server.into(), options: Arc::new(options), bucket })
    }

    /// Returns the URL of the API server.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Makes a request outside the port (`/version`, `/apis`, other sub-resources) and returns the JSON answer.
    pub async fn raw(
        &self,
        method: Method,
        path_and_query: &str,
        content_type: &str,
        body: Option<&Value>,
    ) -> Result<Value, StoreError> {
        let target = Target { kind: "path", key: path_and_query.to_owned() };
        self.call(method, path_and_query, content_type, body, &target).await
    }

    async fn call(
        &self,
        method: Method,
        uri: &str,
        content_type: &str,
        body: Option<&Value>,
        target: &Target,
    ) -> Result<Value, StoreError> {
        let seconds = self.options.timeout.as_secs();
        let exchange = async {
            let response = self.send(method, uri, content_type, body, target).await?;
            let bytes =
                response.into_body().collect().await.map_err(|error| unreachable(&error))?;
            // Not an answer of ours to judge: a proxy's page, or cut short.
            serde_json::from_slice(&bytes.to_bytes()).map_err(|error| StoreError::Unavailable {
                message: format!("answer to {uri} is not JSON: {error}"),
            })
        };
        tokio::time::timeout(self.options.timeout, exchange).await.unwrap_or_else(|_| {
            Err(StoreError::Unavailable { message: format!("no answer within {seconds} s") })
        })
    }

    /// Sends a request; returns only successful responses.
    async fn send(
        &self,
        method: Method,
        uri: &str,
        content_type: &str,
        body: Option<&Value>,
        target: &Target,
    ) -> Result<http::Response<Body>, StoreError> {
        if let Some(bucket) = &self.bucket {
            bucket.take().await;
        }
        let bytes = body.map(Value::to_string).unwrap_or_default().into_bytes();
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, &self.options.user_agent);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let request = request
            .body(Body::from(bytes))
            .map_err(|error| StoreError::Invalid { message: format!("request {uri}: {error}") })?;
        let response = self.client.send(request).await.map_err(|error| unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (status, retry_after) = (response.status(), error::retry_after(response.headers()));
        let bytes = response.into_body().collect().await.map(|body| body.to_bytes());
        let failure = Failure::new(status, &bytes.unwrap_or_default(), retry_after);
        Err(failure.into_store_error(target))
    }

    async fn write<R: Resource>(
        &self,
        method: Method,
        key: &Key,
        uri: &str,
        content_type: &str,
        body: &Value,
    ) -> Result<Stored<R>, StoreError> {
        let target = Target { kind: R::KIND.kind, key: key.to_string() };
        parse(self.call(method, uri, content_type, Some(body), &target).await?)
    }

    /// Reads all pages. `Gone` in the middle means that the pages' revision was compacted away.
    async fn pages<R: Resource>(
        &self,
        options: &ListOptions,
        limit: Option<u32>,
    ) -> Result<Listing<R>, StoreError> {
        let target = Target { kind: R::KIND.kind, key: "list".to_owned() };
        let collection = path::collection(&R::KIND, options.namespace.as_deref());
        let mut listing =
            Listing { items: Vec::new(), malformed: Vec::new(), revision: Revision::default() };
        let mut next: Option<String> = None;
        loop {
            let query = path::list_query(options, limit, next.as_deref());
            let uri = format!("{collection}{query}");
            let answer = self.call(Method::GET, &uri, JSON, None, &target).await?;
            let page: Page =
                serde_json::from_value(answer).map_err(|error| StoreError::Unavailable {
                    message: format!("answer to {uri} is not a list: {error}"),
                })?;
            for raw in page.items {
                let key = stored::raw_key(&raw);
                match parse::<R>(raw) {
                    Ok(item) => listing.items.push(item),
                    Err(error) => listing.malformed.push((key, error.to_string())),
                }
            }
            listing.revision = Revision::new(page.metadata.resource_version);
            next = page.metadata.next.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(listing);
            }
        }
    }
}

const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";

/// A list as the API server sends it.
#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: PageMeta,
    #[serde(default)]
    items: Vec<Value>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PageMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    next: Option<String>,
}

/// Reads an object, without `managedFields`: they are large, and an update without them keeps the server's.
fn parse<R: Resource>(mut raw: Value) -> Result<Stored<R>, StoreError> {
    if let Some(meta) = raw.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        meta.shift_remove("managedFields");
    }
    Stored::parse(Arc::new(raw))
}

fn unreachable(error: &dyn std::error::Error) -> StoreError {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        source = cause.source();
    }
    StoreError::Unavailable { message }
}

impl Store for KubeStore {
    async fn get<R: Resource>(&self, key: &Key) -> Result<Stored<R>, StoreError> {
        let target = Target { kind: R::KIND.kind, key: key.to_string() };
        let uri = path::object(&R::KIND, key, None);
        parse(self.call(Method::GET, &uri, JSON, None, &target).await?)
    }

    async fn list<R: Resource>(&self, options: &ListOptions) -> Result<Listing<R>, StoreError> {
        let from_cache = options.cached || options.not_older_than.is_some();
        // An API server's cache ignores `limit` for resourceVersion=0 and would page the rest from etcd.
        let limit = (!from_cache).then_some(self.options.page_size);
        let listed = self.pages(options, limit).await;
        let again = match &listed {
            Err(StoreError::Gone) => true,
            // "Too large resource version": the cache is behind what we have seen.
            Err(StoreError::Unavailable { .. }) => options.not_older_than.is_some(),
            _ => false,
        };
        if !again {
            return listed;
        }
        let mut consistent = options.clone();
        (consistent.cached, consistent.not_older_than) = (false, None);
        self.pages(&consistent, None).await
    }

    async fn watch<R: Resource>(
        &self,
        options: &ListOptions,
        from: &Revision,
    ) -> Result<WatchStream<R>, StoreError> {
        // Spread, so that the watches of a restarted server do not end together.
        let seconds = 300 + Random::from_entropy().below(300);
        let target = Target { kind: R::KIND.kind, key: "watch".to_owned() };
        let collection = path::collection(&R::KIND, options.namespace.as_deref());
        let uri = format!("{collection}{}", path::watch_query(options, from, seconds));
        let opening = self.send(Method::GET, &uri, JSON, None, &target);
        let response = tokio::time::timeout(self.options.timeout, opening).await;
        let response = response.map_err(|_| StoreError::Unavailable {
            message: format!("watch of {} did not start", R::KIND.plural),
        })??;
        let patience = Duration::from_secs(seconds + 30);
        Ok(watch::events(response.into_body(), target, patience))
    }

    async fn create<R: Resource>(&self, object: &R) -> Result<Stored<R>, StoreError> {
        let (key, body) = (object.key(), stored::new_body(object)?);
        let uri = path::collection(&R::KIND, key.namespace.as_deref());
        self.write(Method::POST, &key, &uri, JSON, &body).await
    }

    async fn update<R: Resource>(&self, object: &Stored<R>) -> Result<Stored<R>, StoreError> {
        let (key, body) = (object.key(), object.body()?);
        check_revision(&R::KIND, &key, &body)?;
        let uri = path::object(&R::KIND, &key, None);
        self.write(Method::PUT, &key, &uri, JSON, &body).await
    }

    async fn update_status<R: Resource>(
        &self,
        object: &Stored<R>,
    ) -> Result<Stored<R>, StoreError> {
        let (key, body) = (object.key(), object.body()?);
        check_revision(&R::KIND, &key, &body)?;
        let uri = path::object(&R::KIND, &key, Some("status"));
        self.write(Method::PUT, &key, &uri, JSON, &body).await
    }

    async fn patch<R: Resource>(
        &self,
        key: &Key,
        subresource: Option<&str>,
        patch: &Value,
    ) -> Result<Stored<R>, StoreError> {
        let uri = path::object(&R::KIND, key, subresource);
        self.write(Method::PATCH, key, &uri, MERGE_PATCH, patch).await
    }

    async fn delete<R: Resource>(
        &self,
        key: &Key,
        preconditions: &DeletePreconditions,
    ) -> Result<(), StoreError> {
        let target = Target { kind: R::KIND.kind, key: key.to_string() };
        let revision = preconditions.revision.as_ref().map(Revision::as_str);
        // Absent preconditions are null, which the API server reads as none.
        let body = json!({
            "kind": "DeleteOptions", "apiVersion": "v1",
            "preconditions": {"uid": preconditions.uid, "resourceVersion": revision},
        });
        let uri = path::object(&R::KIND, key, None);
        self.call(Method::DELETE, &uri, JSON, Some(&body), &target).await.map(drop)
    }
}

/// Some built-in kinds take an update without a revision as "whatever it is now"; we never mean that.
fn check_revision(kind: &KindInfo, key: &Key, body: &Value) -> Result<(), StoreError> {
    let revision = body.pointer("/metadata/resourceVersion").and_then(Value::as_str);
    if revision.unwrap_or_default().is_empty() {
        return Err(StoreError::Invalid {
            message: format!(
                "{} {key}: metadata.resourceVersion must be specified for an update",
                kind.kind
            ),
        });
    }
    Ok(())
}
