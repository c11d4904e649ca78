//! From HTTP requests to the engine and back.

use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, PoisonError},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{Query, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::Response,
};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Shared,
    deletion::{DeleteOptions, Deleted},
    discovery,
    engine::{Context, Part, Validation},
    kinds::Resource,
    openapi, patch, protobuf,
    selector::Selector,
    status::Failure,
    storage::ObjectKey,
    table::{self, Include},
    target::{Target, read_continue, write_continue},
    value::{at, text},
    watch,
};

/// As much as a real API server takes by default (3 MiB), and some.
const MAX_BODY: usize = 4 << 20;

/// In which form a client wants objects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Shape {
    Plain,
    Table(Include),
    Partial,
}

/// A request, read.
#[derive(Debug)]
struct Call {
    method: Method,
    query: BTreeMap<String, String>,
    headers: HeaderMap,
    body: Bytes,
}

/// Answers one HTTP request.
pub(super) async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Some(path) = authorize(&shared.token, parts.uri.path(), &parts.headers) else {
        return failure(&Failure::unauthorized());
    };
    let Ok(body) = to_bytes(body, MAX_BODY).await else {
        return failure(&Failure::new(
            413,
            "RequestEntityTooLarge",
            format!("body is longer than {MAX_BODY} bytes"),
        ));
    };
    let query = query(&parts.uri);
    let call = Call { method: parts.method, query, headers: parts.headers, body };
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    call.route(&shared, &segments).unwrap_or_else(|refused| failure(&refused))
}

/// Checks the token and returns the path without it. kubectl keeps a token to itself when the server speaks plain HTTP
/// (client-go `clientcmd`: only TLS transports get credentials), so a URL may begin with it instead.
fn authorize<'a>(token: &str, path: &'a str, headers: &HeaderMap) -> Option<&'a str> {
    if let Some(rest) = path.strip_prefix('/').and_then(|path| path.strip_prefix(token)) {
        return (rest.is_empty() || rest.starts_with('/')).then_some(rest);
    }
    let sent = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    (sent.strip_prefix("Bearer ")? == token).then_some(path)
}

fn query(uri: &Uri) -> BTreeMap<String, String> {
    Query::try_from_uri(uri).map(|Query(map)| map).unwrap_or_default()
}

fn respond(code: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn answer(code: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => respond(code, "application/json", body),
        Err(error) => respond(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", error.to_string()),
    }
}

fn failure(failure: &Failure) -> Response {
    answer(
        StatusCode::from_u16(failure.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        &failure.body(),
    )
}

/// A list; objects are shared with the store.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List<'a> {
    kind: &'a str,
    api_version: &'a str,
    metadata: Value,
    items: Vec<Arc<Value>>,
}

impl Call {
    fn parameter(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    fn flag(&self, name: &str) -> bool {
        matches!(self.parameter(name), "true" | "1")
    }

    fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    fn content_type(&self) -> &str {
        self.header(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim()
    }

    fn shape(&self) -> Shape {
        let include = match self.parameter("includeObject") {
            "None" => Include::None,
            "Object" => Include::Object,
            _ => Include::Metadata,
        };
        for accepted in self.header(header::ACCEPT).split(',') {
            let wants = |form: &str| accepted.split(';').any(|parameter| parameter.trim() == form);
            if accepted.contains("json") && wants("as=Table") {
                return Shape::Table(include);
            }
            if accepted.contains("json")
                && (wants("as=PartialObjectMetadata") || wants("as=PartialObjectMetadataList"))
            {
                return Shape::Partial;
            }
        }
        Shape::Plain
    }

    fn context(&self) -> Context {
        let validation = match self.parameter("fieldValidation") {
            "Strict" => Validation::Strict,
            "Ignore" => Validation::Ignore,
            _ => Validation::Warn,
        };
        Context {
            now: Timestamp::now(),
            uid: random_uuid(),
            validation,
            dry_run: self.parameter("dryRun") == "All",
            patch: (self.method == Method::PATCH).then(|| self.quoted_patch()),
            warnings: Vec::new(),
        }
    }

    /// A patch as a real server quotes it in errors: a strategic one in the form in which Go prints maps.
    fn quoted_patch(&self) -> String {
        match serde_json::from_slice(&self.body) {
            Ok(patch) if self.content_type() == "application/strategic-merge-patch+json" => {
                go_text(&patch)
            }
            _ => String::from_utf8_lossy(&self.body).into_owned(),
        }
    }

    fn route(&self, shared: &Arc<Shared>, segments: &[&str]) -> Result<Response, Failure> {
        match segments {
            ["api" | "apis" | "version" | "openapi", ..] => {}
            ["healthz" | "livez" | "readyz", ..] => {
                return Ok(respond(StatusCode::OK, "text/plain", "ok"));
            }
            _ => return Ok(respond(StatusCode::NOT_FOUND, "text/plain", "404 page not found\n")),
        }
        if let Some(document) = self.document(shared, segments)? {
            return Ok(document);
        }
        let (group, version, rest) = match segments {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Err(Failure::no_route()),
        };
        let target = Target::find(shared, group, version, rest).ok_or_else(Failure::no_route)?;
        self.serve(shared, &target)
    }

    /// Discovery and OpenAPI.
    fn document(
        &self,
        shared: &Arc<Shared>,
        segments: &[&str],
    ) -> Result<Option<Response>, Failure> {
        let engine = shared.engine.lock().unwrap_or_else(PoisonError::into_inner);
        let registry = &engine.registry;
        let aggregated = self.header(header::ACCEPT).contains("as=APIGroupDiscoveryList")
            && self.header(header::ACCEPT).contains("v=v2;");
        let document = match segments {
            ["version"] => discovery::version(),
            ["api"] | ["apis"] if aggregated => {
                let body = discovery::aggregated(registry, segments == ["api"]).to_string();
                let kind = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
                return Ok(Some(respond(StatusCode::OK, kind, body)));
            }
            ["api"] => discovery::api_versions(),
            ["apis"] => discovery::group_list(registry),
            ["apis", group] => discovery::group(registry, group).ok_or_else(Failure::no_route)?,
            ["api", version] => {
                discovery::resource_list(registry, "", version).ok_or_else(Failure::no_route)?
            }
            ["apis", group, version] => {
                discovery::resource_list(registry, group, version).ok_or_else(Failure::no_route)?
            }
            ["openapi", "v2"] if self.header(header::ACCEPT).contains("protobuf") => {
                let kind = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
                return Ok(Some(respond(StatusCode::OK, kind, openapi::EMPTY_V2_PROTOBUF)));
            }
            ["openapi", "v2"] => openapi::empty_v2(),
            ["openapi", "v3"] => openapi::index(registry),
            ["openapi", "v3", path @ ..] => {
                openapi::document(registry, &path.join("/")).ok_or_else(Failure::no_route)?
            }
            _ => return Ok(None),
        };
        Ok(Some(answer(StatusCode::OK, &document)))
    }

    fn serve(&self, shared: &Arc<Shared>, target: &Target) -> Result<Response, Failure> {
        match target.subresource.as_deref() {
            Some("log" | "exec") => {
                return Err(Failure::new(
                    501,
                    "NotImplemented",
                    "the lab's pods have no kubelet to ask: use `cargo xtask lab exec <pod> -- <command>`",
                ));
            }
            Some(sub) if !target.resource.subresources.iter().any(|known| known == sub) => {
                return Err(Failure::no_route());
            }
            _ => {}
        }
        match (&self.method, &target.name) {
            (&Method::GET, Some(_)) => self.get(shared, target),
            (&Method::GET, None) if self.flag("watch") => self.watch(shared, target),
            (&Method::GET, None) => self.list(shared, target),
            (&Method::POST, None) => self.create(shared, target),
            (&Method::PUT, Some(name)) => self.write(shared, target, name, |_, before| {
                let mut object = self.json_body()?;
                if protobuf::is_protobuf(&self.body) {
                    protobuf::keep_status(&mut object, before);
                }
                Ok(object)
            }),
            (&Method::PATCH, Some(name)) => self.patch(shared, target, name),
            (&Method::DELETE, Some(name)) => self.delete(shared, target, name),
            (&Method::DELETE, None) => self.delete_collection(shared, target),
            _ => Err(Failure::method()),
        }
    }

    fn object(
        &self,
        code: StatusCode,
        resource: &Resource,
        object: &Value,
        context: Option<&Context>,
    ) -> Response {
        let mut response = match self.shape() {
            Shape::Plain => answer(code, object),
            Shape::Partial => answer(code, &table::partial(object)),
            Shape::Table(include) => {
                let meta = json!({"resourceVersion": object.pointer("/metadata/resourceVersion")});
                let rows = std::iter::once(object);
                answer(code, &table::render(resource, rows, &meta, include, Timestamp::now()))
            }
        };
        for warning in context.map_or(&[][..], |context| &context.warnings) {
            let text = format!("299 - {:?}", warning);
            if let Ok(value) = HeaderValue::from_str(&text) {
                response.headers_mut().append(header::WARNING, value);
            }
        }
        response
    }

    fn json_body(&self) -> Result<Value, Failure> {
        if protobuf::is_protobuf(&self.body) {
            return protobuf::to_json(&self.body);
        }
        match self.content_type() {
            "" | "application/json" => serde_json::from_slice(&self.body).map_err(|error| {
                Failure::bad_request(format!("error decoding the request's JSON: {error}"))
            }),
            other => {
                Err(Failure::media_type(format!("the lab's API server reads JSON, not {other}")))
            }
        }
    }

    fn get(&self, shared: &Arc<Shared>, target: &Target) -> Result<Response, Failure> {
        let engine = shared.engine.lock().unwrap_or_else(PoisonError::into_inner);
        let object = engine.get(&target.resource, &target.key())?;
        drop(engine);
        Ok(self.object(StatusCode::OK, &target.resource, &object, None))
    }

    fn selector(&self, target: &Target) -> Result<Selector, Failure> {
        Selector::parse(
            target.namespace.as_deref(),
            self.parameter("labelSelector"),
            self.parameter("fieldSelector"),
            &target.resource.selectable,
        )
    }

    fn revision(&self) -> Result<Option<u64>, Failure> {
        match self.parameter("resourceVersion") {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                Failure::bad_request(format!(
                    "invalid resource version: resourceVersion: Invalid value: {text:?}: not a number"
                ))
            }),
        }
    }

    /// How many objects a page may have; none or zero is all.
    fn limit(&self) -> Result<usize, Failure> {
        let text = self.parameter("limit");
        let limit = if text.is_empty() { Ok(0) } else { text.parse() };
        let limit = limit.map_err(|_| {
            Failure::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
        })?;
        Ok(if limit == 0 { usize::MAX } else { limit })
    }

    fn list(&self, shared: &Arc<Shared>, target: &Target) -> Result<Response, Failure> {
        let resource = &target.resource;
        if !resource.verbs.iter().any(|verb| verb == "list") {
            return Err(Failure::method());
        }
        self.revision()?;
        let selector = self.selector(target)?;
        let start = Some(self.parameter("continue"))
            .filter(|token| !token.is_empty())
            .map(read_continue)
            .transpose()?;
        let limit = self.limit()?;
        let engine = shared.engine.lock().unwrap_or_else(PoisonError::into_inner);
        let revision = start.as_ref().map_or(engine.storage.revision(), |(revision, _)| *revision);
        let from = start.as_ref().map(|(_, key)| key);
        let collection = resource.collection();
        let mut matching =
            engine.storage.list(&collection, from).filter(|(_, object)| selector.matches(object));
        let page: Vec<(ObjectKey, Arc<Value>)> = matching
            .by_ref()
            .take(limit)
            .map(|(key, object)| (key.clone(), Arc::clone(object)))
            .collect();
        let remaining = matching.count();
        drop(engine);
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if let (Some((key, _)), Some(map)) =
            (page.last().filter(|_| remaining > 0), metadata.as_object_mut())
        {
            map.insert("continue".to_owned(), write_continue(revision, key).into());
            map.insert("remainingItemCount".to_owned(), remaining.into());
        }
        let items: Vec<Arc<Value>> = page.into_iter().map(|(_, object)| object).collect();
        Ok(self.listing(resource, metadata, items))
    }

    fn listing(&self, resource: &Resource, metadata: Value, items: Vec<Arc<Value>>) -> Response {
        match self.shape() {
            Shape::Plain => {
                let api_version = resource.api_version();
                answer(
                    StatusCode::OK,
                    &List { kind: &resource.list_kind, api_version: &api_version, metadata, items },
                )
            }
            Shape::Partial => {
                let items = items.iter().map(|object| Arc::new(table::partial(object))).collect();
                let kind = "PartialObjectMetadataList";
                answer(
                    StatusCode::OK,
                    &List { kind, api_version: "meta.k8s.io/v1", metadata, items },
                )
            }
            Shape::Table(include) => {
                let rows = items.iter().map(|object| &**object);
                answer(
                    StatusCode::OK,
                    &table::render(resource, rows, &metadata, include, Timestamp::now()),
                )
            }
        }
    }

    fn watch(&self, shared: &Arc<Shared>, target: &Target) -> Result<Response, Failure> {
        let timeout = self
            .parameter("timeoutSeconds")
            .parse()
            .ok()
            .filter(|seconds| *seconds > 0)
            .unwrap_or(3600);
        let request = watch::Request {
            resource: Arc::clone(&target.resource),
            selector: self.selector(target)?,
            shape: self.shape(),
            bookmarks: self.flag("allowWatchBookmarks"),
            initial_events: self.flag("sendInitialEvents"),
            from: self.revision()?,
            timeout: Duration::from_secs(timeout),
        };
        let body = watch::start(shared, request, Instant::now())?;
        Ok(respond(StatusCode::OK, "application/json", body))
    }

    fn create(&self, shared: &Arc<Shared>, target: &Target) -> Result<Response, Failure> {
        let resource = &target.resource;
        if !resource.verbs.iter().any(|verb| verb == "create") {
            return Err(Failure::method());
        }
        let mut object = self.json_body()?;
        if resource.is("authorization.k8s.io", "selfsubjectaccessreviews") {
            let reason = "the lab allows everything to who has its token";
            super::value::object_at(&mut object, &[])
                .insert("status".to_owned(), json!({"allowed": true, "reason": reason}));
            return Ok(answer(StatusCode::CREATED, &object));
        }
        let namespace = match (&target.namespace, resource.namespaced) {
            (Some(namespace), true) => namespace.as_str(),
            (None, true) => return Err(Failure::method()),
            (_, false) => "",
        };
        let mut context = self.context();
        let mut engine = shared.engine.lock().unwrap_or_else(PoisonError::into_inner);
        let stored = engine.create(resource, namespace, object, &mut context)?;
        drop(engine);
        Ok(self.object(StatusCode::CREATED, resource, &stored, Some(&context)))
    }

    /// Reads, changes and writes an object in one go.
    fn write(
        &self,
        shared: &Arc<Shared>,
        target: &Target,
        name: &str,
        change: impl FnOnce(&super::engine::Engine, &Value) -> Result<Value, Failure>,
    ) -> Result<Response, Failure> {
        let key = (target.key().0, name.to_owned());
        let part = if target.subresource.is_some() { Part::Status } else { Part::Main };
        let mut context = self.context();
        let mut engine = shared.engine.lock().unwrap_or_else(PoisonError::into_inner);
        let before = engine.get(&target.resource, &key)?;
        let object = change(&engine, &before)?;
        let stored = engine.update(&target.resource, &key, object, part, &mut context)?;
        drop(engine);
        Ok(self.object(StatusCode::OK, &target.resource, &stored, Some(&context)))
    }

    fn patch(
        &self,
        shared: &Arc<Shared>,
        target: &Target,
        name: &str,
    ) -> Result<Response, Failure> {
        // Refused before anything is looked up: it may create what is not there.
        if self.content_type() == "application/apply-patch+yaml" {
            return Err(patch::no_server_side_apply());
        }
        self.write(shared, target, name, |engine, before| {
            let mut object = before.clone();
            let schema =
                engine.registry.schema(&target.resource).filter(|_| !target.resource.is_custom());
            patch::apply(
                self.content_type(),
                &mut object,
                &self.body,
                &engine.registry.schemas,
                schema,
            )?;
            Ok(object)
        })
    }

    fn delete_options(&self) -> Result<DeleteOptions, Failure> {
        let body = if self.body.is_empty() { Value::Null } else { self.json_body()? };
        let grace = at(&body, &["gracePeriodSeconds"]).as_i64();
        let precondition = |field: &str| {
            Some(text(&body, &["preconditions", field]).to_owned())
                .filter(|wanted| !wanted.is_empty())
        };
        Ok(DeleteOptions {
            grace_seconds: grace.or_else(|| self.parameter("gracePeriodSeconds").parse().ok()),
            uid: precondition("uid"),
            revision: precondition("resourceVersion"),
        })
    }

    fn delete_context(&self) -> Context {
        let mut context = self.context();
        let body = self.json_body().unwrap_or_default();
        context.dry_run |=
            at(&body, &["dryRun"]).as_array().is_some_and(|stages| !stages.is_empty());
        context
    }

    fn delete(
        &self,
        shared: &Arc<Shared>,
        target: &Target,
        name: &str,
    ) -> Result<Response, Failure> {
        let resource = &target.resource;
        let (options, context) = (self.delete_options()?, self.delete_context());
        let mut engine = shared.engine.lock().unwrap_or_else(PoisonError::into_inner);
        let deleted =
            engine.delete(resource, &(target.key().0, name.to_owned()), &options, &context)?;
        drop(engine);
        Ok(match deleted {
            Deleted::Waiting(object) => self.object(StatusCode::OK, resource, &object, None),
            Deleted::Gone(object) => answer(
                StatusCode::OK,
                &json!({
                    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                    "details": {
                        "name": name, "group": resource.group, "kind": resource.plural,
                        "uid": text(&object, &["metadata", "uid"]),
                    },
                }),
            ),
        })
    }

    fn delete_collection(
        &self,
        shared: &Arc<Shared>,
        target: &Target,
    ) -> Result<Response, Failure> {
        let resource = &target.resource;
        let selector = self.selector(target)?;
        let (options, context) = (self.delete_options()?, self.delete_context());
        let mut engine = shared.engine.lock().unwrap_or_else(PoisonError::into_inner);
        let keys: Vec<ObjectKey> = engine
            .storage
            .list(&resource.collection(), None)
            .filter(|(_, object)| selector.matches(object))
            .map(|(key, _)| key.clone())
            .collect();
        let mut items = Vec::new();
        for key in keys {
            match engine.delete(resource, &key, &options, &context)? {
                Deleted::Gone(object) | Deleted::Waiting(object) => items.push(object),
            }
        }
        let metadata = json!({"resourceVersion": engine.storage.revision().to_string()});
        drop(engine);
        Ok(self.listing(resource, metadata, items))
    }
}

/// What Go's `%v` prints.
fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(go_text).collect::<Vec<_>>().join(" "))
        }
        Value::Object(map) => {
            let mut fields: Vec<_> = map.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            let fields = fields.iter().map(|(key, value)| format!("{key}:{}", go_text(value)));
            format!("map[{}]", fields.collect::<Vec<_>>().join(" "))
        }
        other => other.to_string(),
    }
}

/// A UUID from the kernel.
pub(super) fn random_uuid() -> String {
    fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default().trim().to_owned()
}
