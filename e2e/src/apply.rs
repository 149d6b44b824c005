//! Manifests of any kind into the API server, by server-side apply.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use kube::api::{DynamicObject, GroupVersionKind, Patch, PatchParams, TypeMeta};
use kube::core::ApiResource;
use kube::discovery::{ApiCapabilities, Scope, pinned_kind};
use kube::{Api, Client};
use serde_json::Value;

use crate::wait::until;

/// The field manager of everything that is applied here.
const MANAGER: &str = "tidegate-e2e";

/// Applies every document of a YAML text; what names no namespace goes into `namespace`.
///
/// # Errors
/// The text is not YAML, its kind is not served, or the API server refuses it; the object is named.
pub async fn yaml(client: &Client, namespace: &str, text: &str) -> Result<()> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("parsing YAML")?;
    for document in documents.into_iter().filter(|document| !document.is_null()) {
        object(client, namespace, document).await?;
    }
    Ok(())
}

/// Applies one object; if it names no namespace it goes into `namespace`.
///
/// # Errors
/// Its kind is not served, or the API server refuses it; the object is named.
pub async fn object(client: &Client, namespace: &str, document: Value) -> Result<DynamicObject> {
    let object: DynamicObject = serde_json::from_value(document).context("decoding an object")?;
    let types = object.types.clone().context("an object without apiVersion and kind")?;
    let name = object.metadata.name.clone().with_context(|| format!("a {} without a name", types.kind))?;
    let described = format!("{} {name}", types.kind);
    let (resource, capabilities) =
        kind(client, &types).await.with_context(|| format!("finding the resource of {described}"))?;
    let api: Api<DynamicObject> = match capabilities.scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced => {
            let namespace = object.metadata.namespace.as_deref().unwrap_or(namespace);
            Api::namespaced_with(client.clone(), namespace, &resource)
        }
    };
    api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&object))
        .await
        .with_context(|| format!("applying {described}"))
}

/// Applies every CRD in the YAML files of a folder, and waits until they are served.
///
/// # Errors
/// The folder cannot be read, a CRD is refused, or it is not served within 30 s.
pub async fn crds(client: &Client, folder: &Path) -> Result<()> {
    let mut files = std::fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>())
        .with_context(|| format!("reading {}", folder.display()))?;
    files.sort();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "yaml")) {
        let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(&text).with_context(|| format!("parsing {}", file.display()))?;
        for document in documents.into_iter().filter(|document| document["kind"] == "CustomResourceDefinition") {
            let served = served_kind(&document)?;
            object(client, "", document).await?;
            let what = format!("{} {} is served", served.api_version, served.kind);
            until(&what, Duration::from_secs(30), async || kind(client, &served).await.map(|_| true)).await?;
        }
    }
    Ok(())
}

fn served_kind(crd: &Value) -> Result<TypeMeta> {
    let spec = &crd["spec"];
    let text = |value: &Value| value.as_str().map(str::to_owned).context("a CRD without group, kind or version");
    let version = spec["versions"].as_array().into_iter().flatten().find(|version| version["served"] == true);
    let version = text(&version.context("a CRD that serves no version")?["name"])?;
    Ok(TypeMeta { api_version: format!("{}/{version}", text(&spec["group"])?), kind: text(&spec["names"]["kind"])? })
}

/// The resource of a kind, as the API server serves it.
///
/// # Errors
/// It is not served.
pub(crate) async fn kind(client: &Client, types: &TypeMeta) -> Result<(ApiResource, ApiCapabilities)> {
    let kind = GroupVersionKind::try_from(types).context("parsing apiVersion")?;
    Ok(pinned_kind(client, &kind).await?)
}
