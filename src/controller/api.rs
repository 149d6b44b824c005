//! Calls to the API server: each under the rate limit, with a time limit, measured, and with an answer that says what is
//! known afterwards.
//!
//! kube's own retries must be off in the client (see [`super::client`]): a write that is silently sent again hides
//! overload and may act twice. Sent again here is only what changes nothing: a read; and, where no decision stands behind it,
//! what the server has certainly not carried out (429).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use kube::client::Body;
use kube::core::Status;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

use crate::api::names::FIELD_MANAGER;
use crate::api::resource::{ObjectRef, Resource, VIRTUAL_SERVICE};

use super::envelope::Meta;
use super::limiter::Limiter;
use super::telemetry::Telemetry;

/// What we ask a write to answer with: nobody reads more than the metadata.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";

/// What we ask for where of a list only the metadata is of use.
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

/// The verb of an eviction.
const EVICT: &str = "Evict";
/// The verb of a list of metadata.
const LIST_METADATA: &str = "ListMetadata";

/// How often a read is sent again after an answer that says that something broke.
///
/// A scale-down reads live all that it stands on: where the server refuses every other call, one attempt each would let
/// none of them through for minutes. Without a pause, so that what was read beside it does not grow old.
const READ_AGAIN: u32 = 3;

/// The way to the API server.
#[derive(Clone)]
pub struct Api {
    client: kube::Client,
    limiter: Arc<Limiter>,
    /// For a whole call, whatever is sent again included.
    timeout: Duration,
    /// Whether a write is sent again that the server had no time for.
    insists: bool,
    telemetry: Arc<Telemetry>,
    istio_version: &'static str,
}

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("{0}")]
    NotFound(String),
    /// The object has changed: a precondition did not hold.
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    AlreadyExists(String),
    /// The server had no time for a write, and has been given some: what was decided may not be right any more.
    #[error("{0}")]
    Busy(String),
    /// The server has understood and said no.
    #[error("{message}")]
    Refused { code: u16, message: String },
    /// Nobody knows whether a write was carried out: no answer, or one that says that something broke.
    #[error("{0}")]
    Unanswered(String),
}

/// A write as the server confirms it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Written {
    pub uid: String,
    pub resource_version: String,
}

/// How the body of a patch is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    Merge,
    Json,
}

/// How much of each object a list shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Whole,
    Metadata,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OnlyMetadata<M> {
    metadata: M,
}

impl Api {
    pub fn new(client: kube::Client, limiter: Arc<Limiter>, timeout: Duration, telemetry: Arc<Telemetry>) -> Self {
        Self { client, limiter, timeout, insists: false, telemetry, istio_version: VIRTUAL_SERVICE.version }
    }

    /// The same way to another version of Istio's kinds.
    #[must_use]
    pub fn with_istio_version(self, istio_version: &'static str) -> Self {
        Self { istio_version, ..self }
    }

    /// The path of all objects of a kind, in a namespace unless that is empty.
    pub fn collection(&self, resource: Resource, namespace: &str) -> String {
        let istio = resource.group == VIRTUAL_SERVICE.group;
        let version = if istio { self.istio_version } else { resource.version };
        collection(Resource { version, ..resource }, namespace)
    }

    fn path(&self, object: &ObjectRef) -> String {
        format!("{}/{}", self.collection(object.resource, &object.namespace), object.name)
    }

    /// The same way with a budget of its own, for writes that no decision stands behind.
    #[must_use]
    pub fn limited_by(&self, limiter: Arc<Limiter>) -> Self {
        Self { limiter, insists: true, ..self.clone() }
    }

    /// The same way with another time limit.
    #[must_use]
    pub fn within(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    pub fn client(&self) -> &kube::Client {
        &self.client
    }

    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// Reads an object as `T`. It is not there only if the answer says so of the object: a proxy, or a server that has not
    /// taken up all kinds yet, knows of nothing at all.
    pub async fn read<T: DeserializeOwned>(&self, object: &ObjectRef) -> Result<T, CallError> {
        let answer = self.call(object, "Get", Method::GET, self.path(object), None, Bytes::new()).await;
        let answer = answer.map_err(|error| match error {
            CallError::NotFound(said) if !said.contains(&format!("\"{}\"", object.name)) => {
                CallError::Unanswered(format!("{object}: answered 404: {said}"))
            }
            error => error,
        })?;
        parse(&answer)
    }

    /// Reads the metadata of an object.
    pub async fn read_metadata(&self, object: &ObjectRef) -> Result<Meta, CallError> {
        self.read::<OnlyMetadata<Meta>>(object).await.map(|object| object.metadata)
    }

    pub async fn create(&self, object: &ObjectRef, body: &impl Serialize) -> Result<Written, CallError> {
        let path = format!("{}?fieldManager={FIELD_MANAGER}", self.collection(object.resource, &object.namespace));
        self.write(object, "Create", Method::POST, path, Some("application/json"), bytes(body)).await
    }

    /// Replaces an object that is wholly ours.
    pub async fn update(&self, object: &ObjectRef, body: &Value) -> Result<Written, CallError> {
        let path = format!("{}?fieldManager={FIELD_MANAGER}", self.path(object));
        self.write(object, "Update", Method::PUT, path, Some("application/json"), bytes(body)).await
    }

    /// Patches an object, or its subresource unless that is empty.
    pub async fn patch(
        &self,
        object: &ObjectRef,
        subresource: &str,
        kind: PatchKind,
        body: &Value,
    ) -> Result<Written, CallError> {
        let slash = if subresource.is_empty() { "" } else { "/" };
        let path = format!("{}{slash}{subresource}?fieldManager={FIELD_MANAGER}", self.path(object));
        let content_type = match kind {
            PatchKind::Merge => "application/merge-patch+json",
            PatchKind::Json => "application/json-patch+json",
        };
        self.write(object, "Patch", Method::PATCH, path, Some(content_type), bytes(body)).await
    }

    /// Deletes the object of this uid; what belongs to it goes in the background.
    pub async fn delete(&self, object: &ObjectRef, uid: &str) -> Result<(), CallError> {
        let options = serde_json::json!({
            "kind": "DeleteOptions", "apiVersion": "v1",
            "preconditions": {"uid": uid}, "propagationPolicy": "Background",
        });
        let body = Bytes::from(options.to_string());
        self.call(object, "Delete", Method::DELETE, self.path(object), Some("application/json"), body).await.map(drop)
    }

    /// Evicts the pod of this uid. A refusal by a disruption budget (429) is answered at once: it lasts.
    pub async fn evict(&self, pod: &ObjectRef, uid: &str) -> Result<(), CallError> {
        let body = serde_json::json!({
            "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": pod.name, "namespace": pod.namespace},
            "deleteOptions": {"preconditions": {"uid": uid}},
        });
        let path = format!("{}/eviction", self.path(pod));
        self.call(pod, EVICT, Method::POST, path, Some("application/json"), Bytes::from(body.to_string()))
            .await
            .map(drop)
    }

    /// Reads one page of a list.
    pub async fn list<T: DeserializeOwned>(
        &self,
        resource: Resource,
        namespace: &str,
        query: &str,
        part: Part,
    ) -> Result<T, CallError> {
        let path = format!("{}?{query}", self.collection(resource, namespace));
        let object = ObjectRef::new(resource, namespace, "");
        let verb = if part == Part::Metadata { LIST_METADATA } else { "List" };
        let answer = self.call(&object, verb, Method::GET, path, None, Bytes::new()).await?;
        parse(&answer)
    }

    async fn write(
        &self,
        object: &ObjectRef,
        verb: &'static str,
        method: Method,
        path: String,
        content_type: Option<&'static str>,
        body: Bytes,
    ) -> Result<Written, CallError> {
        let answer = self.call(object, verb, method, path, content_type, body).await?;
        // It is written, whatever the answer looks like; without a version it will be read again.
        Ok(parse::<OnlyMetadata<Written>>(&answer).map(|object| object.metadata).unwrap_or_default())
    }

    async fn call(
        &self,
        object: &ObjectRef,
        verb: &'static str,
        method: Method,
        path: String,
        content_type: Option<&'static str>,
        body: Bytes,
    ) -> Result<Bytes, CallError> {
        let deadline = Instant::now() + self.timeout;
        let timed = tokio::time::timeout_at(deadline, async {
            let mut broken = 0;
            loop {
                self.limiter.acquire().await;
                let sent = Instant::now();
                let answer = self.send(verb, &method, &path, content_type, body.clone()).await;
                let code = match &answer {
                    Ok((parts, _)) => parts.status.as_u16(),
                    Err(_) => 0,
                };
                self.telemetry.called(object, verb, code, sent.elapsed());
                let (parts, answer) = answer?;
                if parts.status == StatusCode::TOO_MANY_REQUESTS && verb != EVICT {
                    let wait = retry_after(&parts).unwrap_or(Duration::from_secs(1));
                    if Instant::now() + wait < deadline {
                        tokio::time::sleep(wait).await;
                        if method == Method::GET || self.insists {
                            continue;
                        }
                        return Err(CallError::Busy(refusal(parts.status, &answer).to_string()));
                    }
                }
                if parts.status.is_server_error() && method == Method::GET && broken < READ_AGAIN {
                    broken += 1;
                    continue;
                }
                return if parts.status.is_success() { Ok(answer) } else { Err(refusal(parts.status, &answer)) };
            }
        });
        timed.await.unwrap_or_else(|_| {
            self.telemetry.called(object, verb, 0, self.timeout);
            Err(CallError::Unanswered(format!("no answer from the API server within {} s", self.timeout.as_secs_f64())))
        })
    }

    async fn send(
        &self,
        verb: &str,
        method: &Method,
        path: &str,
        content_type: Option<&'static str>,
        body: Bytes,
    ) -> Result<(http::response::Parts, Bytes), CallError> {
        let accept = match verb {
            "Get" | "List" | "Delete" | EVICT => "application/json",
            LIST_METADATA => METADATA_LIST,
            _ => METADATA,
        };
        let mut request = Request::builder().method(method).uri(path).header(header::ACCEPT, accept);
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        // Only a name that no API server accepts could make a path that is not a URI.
        let request = request
            .body(Body::from(body))
            .map_err(|error| CallError::Refused { code: 400, message: format!("{path}: {error}") })?;
        let response: Response<Body> =
            self.client.send(request).await.map_err(|error| CallError::Unanswered(chain(&error)))?;
        let (parts, body) = response.into_parts();
        let body = body.collect_bytes().await.map_err(|error| CallError::Unanswered(chain(&error)))?;
        Ok((parts, body))
    }
}

/// The path of all objects of a kind, in a namespace unless that is empty.
fn collection(resource: Resource, namespace: &str) -> String {
    let Resource { group, version, plural, .. } = resource;
    let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    if namespace.is_empty() { format!("{root}/{plural}") } else { format!("{root}/namespaces/{namespace}/{plural}") }
}

/// An error with its causes, each of which is said once.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// The text of plain data, which always encodes.
fn bytes(body: &impl Serialize) -> Bytes {
    serde_json::to_vec(body).unwrap_or_default().into()
}

fn parse<T: DeserializeOwned>(answer: &[u8]) -> Result<T, CallError> {
    serde_json::from_slice(answer)
        .map_err(|error| CallError::Unanswered(format!("the API server's answer cannot be read: {error}")))
}

fn retry_after(parts: &http::response::Parts) -> Option<Duration> {
    parts.headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

fn refusal(code: StatusCode, answer: &[u8]) -> CallError {
    // A proxy, or a path that is not served, may answer in plain text.
    let status = serde_json::from_slice::<Status>(answer).unwrap_or_else(|_| Status {
        message: String::from_utf8_lossy(&answer[..answer.len().min(500)]).trim().to_owned(),
        ..Status::default()
    });
    let mut message = status.message;
    if message.is_empty() {
        message = format!("the API server answered {code}");
    }
    match code {
        StatusCode::NOT_FOUND => CallError::NotFound(message),
        StatusCode::CONFLICT if status.reason == "AlreadyExists" => CallError::AlreadyExists(message),
        StatusCode::CONFLICT => CallError::Conflict(message),
        // A JSON patch whose `test` fails, and a patch with another uid, are refused as invalid.
        StatusCode::UNPROCESSABLE_ENTITY
            if message.contains("test failed")
                || message.contains("testing ")
                || message.contains("metadata.uid")
                || message == "the server rejected our request due to an error in our request" =>
        {
            CallError::Conflict(message)
        }
        code if code.is_server_error() => CallError::Unanswered(message),
        code => CallError::Refused { code: code.as_u16(), message },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::api::resource::{CLUSTER_ANALYSIS_TEMPLATE, HTTP_ROUTE, SERVICE};

    use super::*;

    #[test]
    fn paths() {
        let path = |object: &ObjectRef| format!("{}/{}", collection(object.resource, &object.namespace), object.name);
        assert_eq!(path(&ObjectRef::new(SERVICE, "shop", "web")), "/api/v1/namespaces/shop/services/web");
        assert_eq!(
            path(&ObjectRef::new(HTTP_ROUTE, "shop", "web")),
            "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/web"
        );
        assert_eq!(
            path(&ObjectRef::new(CLUSTER_ANALYSIS_TEMPLATE, "", "errors")),
            "/apis/argoproj.io/v1alpha1/clusteranalysistemplates/errors"
        );
    }

    #[test]
    fn what_an_answer_means() {
        let answer = |code: u16, reason: &str, message: &str| {
            let body = json!({"kind": "Status", "code": code, "reason": reason, "message": message}).to_string();
            refusal(StatusCode::from_u16(code).unwrap(), body.as_bytes())
        };
        assert_eq!(answer(404, "NotFound", "x"), CallError::NotFound("x".into()));
        assert_eq!(answer(409, "AlreadyExists", "x"), CallError::AlreadyExists("x".into()));
        assert_eq!(answer(409, "Conflict", "x"), CallError::Conflict("x".into()));
        assert!(matches!(answer(422, "Invalid", "metadata.uid: Invalid value"), CallError::Conflict(_)));
        assert!(matches!(answer(422, "Invalid", "spec.replicas: Invalid value"), CallError::Refused { code: 422, .. }));
        assert!(matches!(answer(403, "Forbidden", "x"), CallError::Refused { code: 403, .. }));
        assert!(matches!(answer(503, "", "x"), CallError::Unanswered(_)));
        assert_eq!(
            refusal(StatusCode::NOT_FOUND, b"404 page not found\n"),
            CallError::NotFound("404 page not found".into())
        );
        assert_eq!(
            refusal(StatusCode::BAD_GATEWAY, b""),
            CallError::Unanswered("the API server answered 502 Bad Gateway".into())
        );
    }
}
