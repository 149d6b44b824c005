//! Sends the requests of a script, to the sandbox or to a real API server alike.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{Request as HttpRequest, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::script::{Condition, Request, Script, Verb, part, resolve, shown};

/// How long an answer may take to become what a script waits for.
const PATIENCE: Duration = Duration::from_secs(30);
/// An answer that has been the same for so long is settled: controllers act within tens of milliseconds.
const SETTLED: Duration = Duration::from_millis(1200);
/// How often a request is sent again.
const AGAIN: Duration = Duration::from_millis(50);
/// How long a watch may be silent before `last`.
const SILENCE: Duration = Duration::from_secs(10);

/// Who sends the requests, as the server sees it; its default for the field manager.
const AGENT: &str = "fidelity/1.0";

/// What a server answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub code: u16,
    pub warnings: Vec<String>,
    /// The body; of a watch, the list of its events.
    pub body: Value,
}

/// Runs a script in a namespace of its own, which is made for it, and answers one answer a request.
///
/// # Errors
/// The server breaks the connection, or never answers what the script waits for.
pub async fn run(client: &Client, namespace: &str, script: &Script) -> Result<Vec<Answer>> {
    let mut kept = BTreeMap::from([("ns".to_owned(), namespace.to_owned())]);
    for (name, _) in script.requests.iter().flat_map(|request| &request.keeps) {
        // What is not kept yet is sent as nothing, too.
        kept.insert(name.clone(), String::new());
    }
    let mut made = Request::new(Verb::Post, "namespaces").body(&json!({"metadata": {"name": namespace}}));
    made.until = vec![Condition::Code(201)];
    send_until(client, &made, &kept).await.context("making the namespace")?;
    let mut answers = Vec::new();
    for request in &script.requests {
        let answer = send_until(client, request, &kept).await.with_context(|| format!("at {}", request.line()))?;
        for (name, path) in &request.keeps {
            // What is not there is sent as nothing.
            let value = if path == "." { Some(&answer.body) } else { part(&answer.body, path) };
            kept.insert(name.clone(), value.map(shown).unwrap_or_default());
        }
        answers.push(answer);
    }
    Ok(answers)
}

async fn send_until(client: &Client, request: &Request, kept: &BTreeMap<String, String>) -> Result<Answer> {
    let started = Instant::now();
    let mut since: Option<(Answer, Instant)> = None;
    loop {
        let answer = send(client, request, kept).await?;
        let met = request.until.iter().all(|condition| condition.holds(answer.code, &answer.body));
        if !request.until.contains(&Condition::Settled) {
            if met {
                return Ok(answer);
            }
        } else if since.as_ref().is_none_or(|(before, _)| body_of(before) != body_of(&answer)) {
            since = Some((answer.clone(), Instant::now()));
        } else if met && since.as_ref().is_some_and(|(_, since)| since.elapsed() >= SETTLED) {
            return Ok(answer);
        }
        if started.elapsed() > PATIENCE {
            bail!("after {PATIENCE:?} the answer is still {} {}", answer.code, answer.body);
        }
        sleep(AGAIN).await;
    }
}

/// Without what other namespaces change.
fn body_of(answer: &Answer) -> Value {
    let mut body = answer.body.clone();
    if body.get("items").is_some() {
        body["metadata"] = Value::Null;
    }
    body
}

async fn send(client: &Client, request: &Request, kept: &BTreeMap<String, String>) -> Result<Answer> {
    let (path, types) = resolve(&request.path, &kept["ns"])?;
    let mut path = substitute(&path, kept);
    if request.verb == Verb::Watch {
        path += if path.contains('?') { "&" } else { "?" };
        path += "watch=true&timeoutSeconds=20";
    }
    let (method, kind) = match request.verb {
        Verb::Get | Verb::Watch => ("GET", ""),
        Verb::Post => ("POST", "application/json"),
        Verb::Put => ("PUT", "application/json"),
        Verb::Delete => ("DELETE", "application/json"),
        Verb::Merge => ("PATCH", "application/merge-patch+json"),
        Verb::Json => ("PATCH", "application/json-patch+json"),
        Verb::Strategic => ("PATCH", "application/strategic-merge-patch+json"),
        Verb::Apply => ("PATCH", "application/apply-patch+yaml"),
    };
    let mut sent = HttpRequest::builder().method(method).uri(path.replace(' ', "%20"));
    let own = |name: &str| request.headers.iter().any(|(header, _)| header.eq_ignore_ascii_case(name));
    for (name, value) in [("User-Agent", AGENT), ("Accept", "application/json"), ("Content-Type", kind)] {
        if !value.is_empty() && !own(name) {
            sent = sent.header(name, value);
        }
    }
    for (name, value) in &request.headers {
        sent = sent.header(name, value);
    }
    let body = body(request, types, kept)?;
    let sent = sent.body(Body::from(body)).context("a request that cannot be sent")?;
    let mut answer = client.send(sent).await?;
    let code = answer.status().as_u16();
    let warnings = answer.headers().get_all("Warning").iter();
    let warnings = warnings.filter_map(|warning| warning.to_str().ok().map(str::to_owned)).collect();
    let body =
        if request.verb == Verb::Watch && code == 200 { events(&mut answer).await? } else { all(answer).await? };
    Ok(Answer { code, warnings, body })
}

fn body(
    request: &Request,
    types: Option<serde_json::Map<String, Value>>,
    kept: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    if request.body.is_empty() {
        return Ok(Vec::new());
    }
    let text = substitute(&request.body, kept);
    if let Some(raw) = text.strip_prefix("raw ") {
        return Ok(raw.trim_end().as_bytes().to_vec());
    }
    let mut body: Value = serde_saphyr::from_str(&text).with_context(|| format!("a body that is no YAML:\n{text}"))?;
    let typed = matches!(request.verb, Verb::Post | Verb::Put | Verb::Apply);
    if let (true, Some(types), Some(fields)) = (typed, types, body.as_object_mut()) {
        for (name, value) in types {
            fields.entry(name).or_insert(value);
        }
    }
    Ok(body.to_string().into_bytes())
}

/// Puts what was kept in the place of `$NAME`, the longest name that fits.
fn substitute(text: &str, kept: &BTreeMap<String, String>) -> String {
    let mut text = text.to_owned();
    for (name, value) in kept.iter().rev() {
        text = text.replace(&format!("${name}"), value);
    }
    text
}

async fn all(answer: Response<Body>) -> Result<Value> {
    let bytes = answer.into_body().collect().await?.to_bytes();
    Ok(serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into()))
}

/// The events of a watch, until the one about the object `last`, an error, or silence.
async fn events(answer: &mut Response<Body>) -> Result<Value> {
    let (mut events, mut pending) = (Vec::new(), Vec::new());
    loop {
        let frame = match timeout(SILENCE, answer.body_mut().frame()).await {
            Ok(Some(frame)) => frame?,
            Ok(None) => return Ok(events.into()),
            Err(_) => {
                events.push(json!({"type": "SILENCE"}));
                return Ok(events.into());
            }
        };
        pending.extend_from_slice(&frame.into_data().unwrap_or_else(|_| Bytes::new()));
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line).context("an event that is no JSON")?;
            let over = event["object"]["metadata"]["name"] == "last" || event["type"] == "ERROR";
            events.push(event);
            if over {
                return Ok(events.into());
            }
        }
    }
}
