//! A record of every write to the objects of the storm, taken from etcd itself.
//!
//! The API server is paused and restarted in the storm, and a watch of it would lose what was written while it broke off.
//! etcd keeps every write and can be asked for those after any one, so that the record has no gaps. The API server must
//! store its objects as JSON and compact nothing: see [`api_server_args`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::ByteString;
use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::fleet::NAMESPACE;
use super::history::{Change, Resource};

/// A running record. Dropping it ends it.
pub struct Recording {
    started: Instant,
    changes: Arc<Mutex<Vec<Change>>>,
    _task: JoinSet<()>,
}

/// What the API server must be told, so that etcd holds what can be read.
pub fn api_server_args() -> Vec<String> {
    vec!["--storage-media-type=application/json".to_owned(), "--etcd-compaction-interval=0".to_owned()]
}

impl Recording {
    /// Starts to record.
    pub fn start(etcd: &str) -> Self {
        let changes = Arc::new(Mutex::new(Vec::new()));
        let started = Instant::now();
        let mut task = JoinSet::new();
        task.spawn(record(format!("{etcd}/v3/watch"), started, changes.clone()));
        Self { started, changes, _task: task }
    }

    /// When the record began, which is what [`Change::at`] counts from.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Everything so far.
    pub fn changes(&self) -> Vec<Change> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[derive(Deserialize)]
struct Answer {
    result: Option<Watched>,
}

#[derive(Deserialize)]
struct Watched {
    #[serde(default)]
    canceled: bool,
    #[serde(default)]
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Event {
    /// Absent for a write.
    #[serde(default, rename = "type")]
    kind: String,
    kv: KeyValue,
}

#[derive(Deserialize)]
struct KeyValue {
    key: ByteString,
    #[serde(default)]
    value: ByteString,
    mod_revision: String,
}

async fn record(url: String, started: Instant, changes: Arc<Mutex<Vec<Change>>>) {
    let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
    let mut next = 1;
    loop {
        // It ends when etcd does; the next one goes on where it was.
        let _ = watch(&client, &url, started, &changes, &mut next).await;
        sleep(Duration::from_millis(50)).await;
    }
}

async fn watch(
    client: &Client<HttpConnector, Full<Bytes>>,
    url: &str,
    started: Instant,
    changes: &Mutex<Vec<Change>>,
    next: &mut u64,
) -> Result<()> {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    // The second is the first key that is not below the first.
    let range =
        json!({"key": bytes("/registry/"), "range_end": bytes("/registry0"), "start_revision": next.to_string()});
    let body = json!({"create_request": range}).to_string();
    let mut answer = client.request(Request::post(url).body(Full::from(body))?).await?.into_body();
    let mut pending = Vec::new();
    while let Some(frame) = answer.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        pending.extend_from_slice(&data);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            let answer: Answer = serde_json::from_slice(&line).context("an answer of etcd")?;
            let watched = answer.result.context("etcd answered an error")?;
            if watched.canceled {
                bail!("etcd has ended the watch");
            }
            for event in watched.events {
                let revision = event.kv.mod_revision.parse().context("a revision")?;
                *next = revision + 1;
                if let Some(change) = change(&event, revision, started.elapsed()) {
                    changes.lock().unwrap_or_else(PoisonError::into_inner).push(change);
                }
            }
        }
    }
    Ok(())
}

/// None for what is not of the storm.
fn change(event: &Event, revision: u64, at: Duration) -> Option<Change> {
    let key = std::str::from_utf8(&event.kv.key.0).ok()?;
    let (name, resource) = Resource::PREFIXES.iter().find_map(|(prefix, resource)| {
        let (namespace, name) = key.strip_prefix(prefix)?.split_once('/')?;
        (namespace == NAMESPACE).then_some((name, *resource))
    })?;
    let object = match event.kind.as_str() {
        "DELETE" => None,
        _ => Some(resource.reduce(&serde_json::from_slice(&event.kv.value.0).ok()?)),
    };
    Some(Change { at, revision, resource, name: name.to_owned(), object })
}
