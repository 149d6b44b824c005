//! What the API server's audit log says about who wrote what, and when by the API server's clock.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

/// The audit log of one cluster. It has the writes of the users that [`policy`] named.
#[derive(Clone, Debug)]
pub struct Audit {
    file: PathBuf,
}

/// A place in the log; what is logged later comes after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(u64);

/// One request that the API server has answered.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEvent {
    /// `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: String,
    pub user: AuditUser,
    pub object_ref: Option<AuditObject>,
    pub response_status: Option<AuditStatus>,
    /// What was sent, for routes, Ingresses and the status of our own kinds only.
    pub request_object: Option<Value>,
    /// When the request came in.
    pub request_received_timestamp: Timestamp,
    /// When it had been answered.
    pub stage_timestamp: Timestamp,
}

#[derive(Clone, Debug, Deserialize)]
pub struct AuditUser {
    pub username: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuditObject {
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
}

#[derive(Clone, Debug, Deserialize)]
pub struct AuditStatus {
    /// The HTTP status of the answer.
    pub code: u16,
}

impl Audit {
    pub(crate) fn new(file: &Path) -> Self {
        Self { file: file.to_owned() }
    }

    /// The log itself: one JSON object a line.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The present end of the log.
    pub fn mark(&self) -> Mark {
        Mark(std::fs::metadata(&self.file).map_or(0, |metadata| metadata.len()))
    }

    /// The requests that were logged after `mark`, in the order in which they were answered.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn since(&self, mark: Mark) -> Result<Vec<AuditEvent>> {
        let mut file = File::open(&self.file).with_context(|| format!("opening {}", self.file.display()))?;
        file.seek(SeekFrom::Start(mark.0)).context("seeking in the audit log")?;
        let mut events = Vec::new();
        for line in BufReader::new(file).lines() {
            let line = line.context("reading the audit log")?;
            // The last line may be half written.
            if let Ok(event) = serde_json::from_str(&line) {
                events.push(event);
            }
        }
        Ok(events)
    }

    /// How often `user` wrote after `mark`, by verb and resource as in `patch rollouts/status`. Refused writes count.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn writes(&self, user: &str, mark: Mark) -> Result<BTreeMap<String, usize>> {
        let mut counts = BTreeMap::new();
        for event in self.since(mark)? {
            if event.user.username == user {
                *counts.entry(event.what()).or_default() += 1;
            }
        }
        Ok(counts)
    }
}

impl AuditEvent {
    /// The verb and the resource, as in `patch rollouts/status`.
    pub fn what(&self) -> String {
        let object = self.object_ref.clone().unwrap_or_default();
        let separator = if object.subresource.is_empty() { "" } else { "/" };
        format!("{} {}{separator}{}", self.verb, object.resource, object.subresource)
    }

    /// Whether it was carried out, on such an object.
    pub fn is(&self, user: &str, resource: &str, namespace: &str) -> bool {
        let done = self.response_status.as_ref().is_some_and(|status| status.code < 300);
        let object = self.object_ref.as_ref();
        let fits = object.is_some_and(|object| object.resource == resource && object.namespace == namespace);
        done && fits && self.user.username == user
    }

    /// The phase that it writes into a status.
    pub fn phase(&self) -> Option<&str> {
        self.request_object.as_ref()?["status"]["phase"].as_str()
    }

    /// The weight that it gives to a Service: in an HTTPRoute by a JSON patch, in a canary Ingress by its annotation.
    pub fn weight(&self, service: &str) -> Option<i64> {
        let body = self.request_object.as_ref()?;
        if let Some(operations) = body.as_array() {
            let named = |operation: &&Value| operation["op"] == "test" && operation["value"] == service;
            let path = operations.iter().find(named)?["path"].as_str()?.strip_suffix("/name")?;
            let weight = format!("{path}/weight");
            let set = |operation: &&Value| operation["op"] != "test" && operation["path"] == *weight;
            return operations.iter().find(set)?["value"].as_i64();
        }
        let annotations = body["metadata"]["annotations"].as_object()?;
        annotations.iter().find(|(key, _)| key.ends_with("/canary-weight"))?.1.as_str()?.parse().ok()
    }
}

/// An audit policy that logs the writes of `users`, with their bodies where they move traffic or say how an
/// update stands, and their reads if wanted.
pub(crate) fn policy(users: &[&str], reads: bool) -> Value {
    let verbs = ["create", "update", "patch", "delete", "deletecollection"];
    let mut metadata = verbs.to_vec();
    if reads {
        metadata.extend(["get", "list", "watch"]);
    }
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived", "ResponseStarted"],
        "omitManagedFields": true,
        "rules": [
            {
                "level": "Request",
                "users": users,
                "verbs": verbs,
                "resources": [
                    {"group": "gateway.networking.k8s.io"},
                    {"group": "networking.k8s.io", "resources": ["ingresses"]},
                    {"group": "argoproj.io", "resources": ["rollouts/status", "analysisruns", "analysisruns/status"]},
                ],
            },
            {"level": "Metadata", "users": users, "verbs": metadata},
            {"level": "None"},
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(body: Value) -> Option<i64> {
        let event = json!({
            "verb": "patch", "user": {"username": "u"}, "requestObject": body,
            "requestReceivedTimestamp": "2026-01-01T00:00:00Z", "stageTimestamp": "2026-01-01T00:00:00Z",
        });
        serde_json::from_value::<AuditEvent>(event).unwrap().weight("web-canary")
    }

    #[test]
    fn weights_are_read_from_patches() {
        let backend = |index: usize, name: &str, weight: i64| {
            let path = format!("/spec/rules/0/backendRefs/{index}");
            [
                json!({"op": "test", "path": format!("{path}/name"), "value": name}),
                json!({"op": "add", "path": format!("{path}/weight"), "value": weight}),
            ]
        };
        let route = [backend(0, "web-stable", 80), backend(1, "web-canary", 20)].concat();
        assert_eq!(weight(json!(route)), Some(20));
        let ingress = json!({"metadata": {"annotations": {"nginx.ingress.kubernetes.io/canary-weight": "0"}}});
        assert_eq!(weight(ingress), Some(0));
        assert_eq!(weight(json!({"status": {"phase": "Degraded"}})), None);
    }
}
