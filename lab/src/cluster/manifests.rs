//! Manifests: files of YAML documents, created or merged through the API server as `kubectl create` would.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result, anyhow, bail};
use kube::Client;
use serde::Deserialize as _;
use serde_json::Value;

/// Reads all documents of a text.
pub fn parse(text: &str, name: &str) -> Result<Vec<Value>> {
    let mut documents = Vec::new();
    for document in serde_norway::Deserializer::from_str(text) {
        let value = Value::deserialize(document).with_context(|| format!("{name} is not YAML"))?;
        match value {
            Value::Null => (),
            Value::Object(_) => documents.push(value),
            _ => bail!("{name}: a document is not an object"),
        }
    }
    Ok(documents)
}

/// Reads all `*.yaml` files of a folder, in the order of their names, not those of its subfolders.
pub fn read_folder(folder: &Path) -> Result<Vec<(String, String)>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
        })
        .collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Ok((name, text))
        })
        .collect()
}

/// Knows where each kind lives on the server.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "the client has none")]
pub struct Applier {
    client: Client,
    places: BTreeMap<(String, String), (String, bool)>,
}

impl Applier {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, places: BTreeMap::new() }
    }

    /// Applies all documents of a text and returns what they name (`kind/name`).
    pub async fn apply_text(&mut self, text: &str, name: &str) -> Result<Vec<String>> {
        let mut named = Vec::new();
        for document in parse(text, name)? {
            named.push(self.apply(&document).await.with_context(|| name.to_owned())?);
        }
        Ok(named)
    }

    /// Creates an object, or merges it into the one that is there.
    pub async fn apply(&mut self, object: &Value) -> Result<String> {
        let (collection, label) = self.place(object).await?;
        let name = text(object, "/metadata/name")?;
        let strict = "fieldValidation=Strict&fieldManager=voile-lab";
        let create = http::Request::post(format!("{collection}?{strict}"))
            .header("content-type", "application/json")
            .body(object.to_string().into_bytes())?;
        match self.client.request_text(create).await {
            Ok(_) => return Ok(label),
            Err(kube::Error::Api(status)) if status.code == 409 => (),
            Err(error) => return Err(error).with_context(|| format!("cannot create {label}")),
        }
        let merge = http::Request::patch(format!("{collection}/{name}?{strict}"))
            .header("content-type", "application/merge-patch+json")
            .body(object.to_string().into_bytes())?;
        self.client.request_text(merge).await.with_context(|| format!("cannot change {label}"))?;
        Ok(label)
    }

    /// Deletes the objects that a text names; those gone already are fine.
    pub async fn delete_text(&mut self, text: &str, name: &str) -> Result<()> {
        for document in parse(text, name)? {
            let (collection, label) = self.place(&document).await?;
            let path = format!("{collection}/{}", self::text(&document, "/metadata/name")?);
            let delete = http::Request::delete(path).body(Vec::new())?;
            match self.client.request_text(delete).await {
                Ok(_) => (),
                Err(kube::Error::Api(status)) if status.code == 404 => (),
                Err(error) => return Err(error).with_context(|| format!("cannot delete {label}")),
            }
        }
        Ok(())
    }

    /// Finds the URL of an object's collection.
    async fn place(&mut self, object: &Value) -> Result<(String, String)> {
        let version = text(object, "/apiVersion")?;
        let kind = text(object, "/kind")?;
        let name = text(object, "/metadata/name")?;
        let key = (version.to_owned(), kind.to_owned());
        if !self.places.contains_key(&key) {
            let place = self.discover(version, kind).await?;
            self.places.insert(key.clone(), place);
        }
        let Some((plural, namespaced)) = self.places.get(&key) else {
            bail!("unknown kind {kind}")
        };
        let root = if version.contains('/') {
            format!("/apis/{version}")
        } else {
            format!("/api/{version}")
        };
        let label = format!("{}/{name}", kind.to_lowercase());
        if !namespaced {
            return Ok((format!("{root}/{plural}"), label));
        }
        let namespace =
            object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or("default");
        Ok((format!("{root}/namespaces/{namespace}/{plural}"), label))
    }

    async fn discover(&self, version: &str, kind: &str) -> Result<(String, bool)> {
        let list = if version.contains('/') {
            self.client.list_api_group_resources(version).await
        } else {
            self.client.list_core_api_resources(version).await
        };
        let list = list.with_context(|| format!("the server has no API {version}"))?;
        list.resources
            .into_iter()
            .find(|resource| resource.kind == kind && !resource.name.contains('/'))
            .map(|resource| (resource.name, resource.namespaced))
            .ok_or_else(|| anyhow!("the server has no kind {kind} in {version}"))
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> Result<&'a str> {
    object.pointer(pointer).and_then(Value::as_str).ok_or_else(|| {
        anyhow!("an object has no {}", pointer.trim_start_matches('/').replace('/', "."))
    })
}
