//! The watches: one task a kind, each with its own connection and its own backoff, so that a kind that cannot be read
//! never slows the others.
//!
//! This is list-then-watch as client-go does it, on kube's client. kube's own `watcher` hides two things that we need:
//! whether a quiet watch is alive (bookmarks and reconnects, for [`Health`]), and a time limit on lists and on the opening
//! of a watch (a request that is never answered would leave a kind deaf for ever).

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::TryStreamExt;
use http::Request;
use kube::core::WatchEvent;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::api::names;
use crate::api::resource::{self, ObjectRef, Resource};

use super::Shell;
use super::api::{CallError, Part, chain};
use super::envelope::Envelope;
use super::references::is_on_demand;
use super::settings::Settings;

/// Objects in one answer of a list: Rollouts with big pod templates take some 10 kB each, so a page stays below 2 MB.
const PAGE: u32 = 200;
/// What the server is asked to end a watch after, in seconds. A connection that has died silently is noticed a little
/// after that, at the latest.
const WATCH_SECONDS: u32 = 290;
/// How much later than asked a watch may end.
const WATCH_MARGIN: Duration = Duration::from_secs(5);
/// How long the server may take to begin answering a watch. A list has the same limit for each page.
const OPEN_LIMIT: Duration = Duration::from_secs(30);
/// How often it is looked whether a kind exists by now that did not when it was first wanted.
const ABSENT_DELAY: Duration = Duration::from_secs(30);
/// After so many failures in a row to take up a watch where it ended, everything is listed again: the version may be one
/// that the server does not know (restored from a backup).
const RESUME_ATTEMPTS: u32 = 4;
/// A watch that has shown no sign of life for so long is broken: twice its length, and a minute for backoff.
const DEAF: Duration = Duration::from_secs(640);

/// The kinds that are watched from the start. Only without the first three nothing can be decided.
pub const ALWAYS: [Resource; 7] = [
    resource::ROLLOUT,
    resource::REPLICA_SET,
    resource::SERVICE,
    resource::ANALYSIS_RUN,
    resource::ANALYSIS_TEMPLATE,
    resource::CLUSTER_ANALYSIS_TEMPLATE,
    resource::EXPERIMENT,
];

/// When each watch last gave a sign of life.
#[derive(Debug, Default)]
pub struct Health(Mutex<BTreeMap<Resource, Instant>>);

impl Health {
    fn alive(&self, resource: Resource) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(resource, Instant::now());
    }

    /// The kinds whose watch has been silent for too long.
    pub fn deaf(&self) -> Vec<&'static str> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.iter().filter(|(_, at)| at.elapsed() > DEAF).map(|(resource, _)| resource.kind).collect()
    }
}

/// Watches a kind for ever.
pub async fn watch(shell: Arc<Shell>, resource: Resource) {
    let mut backoff = Backoff::new(&shell.settings, resource);
    shell.health.alive(resource);
    loop {
        match list(&shell, resource).await {
            Ok(version) => {
                backoff.reset();
                follow(&shell, resource, version, &mut backoff).await;
            }
            Err(error) if absent(resource, &error) => {
                shell.health.alive(resource);
                let effects = shell.index().absent(resource, shell.clock.now());
                shell.take_in(effects);
                debug!(kind = resource.kind, %error, "the cluster does not have this kind");
                tokio::time::sleep(backoff.jitter(ABSENT_DELAY)).await;
            }
            Err(error) => {
                let delay = backoff.next();
                shell.telemetry.watch_failed(resource);
                warn!(kind = resource.kind, %error, ?delay, "cannot list");
                tokio::time::sleep(delay).await;
            }
        }
    }
}

/// Whether the failure of a list means that there is nothing of the kind to be seen.
fn absent(resource: Resource, error: &CallError) -> bool {
    let optional = !matches!(resource, resource::ROLLOUT | resource::REPLICA_SET | resource::SERVICE);
    // A kind that we may not read counts as absent only where the rest works without it.
    let forbidden = matches!(error, CallError::Refused { code: 401 | 403, .. });
    let dispensable = is_on_demand(resource) || matches!(resource, resource::CLUSTER_ANALYSIS_TEMPLATE | resource::JOB);
    optional && (matches!(error, CallError::NotFound(_)) || (forbidden && dispensable))
}

/// Lists everything into the index; the version to watch from.
async fn list(shell: &Shell, resource: Resource) -> Result<String, CallError> {
    shell.index().list_begins(resource);
    let mut count = 0;
    let version = pages(shell, resource, Part::Whole, |objects: Vec<Envelope>| {
        shell.health.alive(resource);
        count += objects.len();
        for envelope in objects {
            shell.observe(resource, envelope);
        }
    });
    let version = version.await?;
    let effects = shell.index().list_ends(resource, shell.clock.now());
    shell.take_in(effects);
    shell.telemetry.listed(resource);
    shell.synced.notify_waiters();
    debug!(kind = resource.kind, count, "listed");
    Ok(version)
}

/// Lists all objects of a kind that are ours to see, page after page; the version that the list shows.
pub async fn pages<T: DeserializeOwned>(
    shell: &Shell,
    resource: Resource,
    part: Part,
    mut take: impl FnMut(Vec<T>),
) -> Result<String, CallError> {
    #[derive(Deserialize)]
    struct Page<T> {
        #[serde(default)]
        metadata: PageMeta,
        items: Option<Vec<T>>,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct PageMeta {
        resource_version: String,
        #[serde(rename = "continue")]
        more: String,
    }

    let api = shell.api.within(OPEN_LIMIT);
    let selector = selector(&shell.settings, resource);
    let mut more = String::new();
    loop {
        let query = query(&[("limit", &PAGE.to_string()), ("labelSelector", &selector), ("continue", &more)]);
        let page: Page<T> = api.list(resource, namespace(&shell.settings, resource), &query, part).await?;
        take(page.items.unwrap_or_default());
        more = page.metadata.more;
        if more.is_empty() {
            return Ok(page.metadata.resource_version);
        }
    }
}

/// Why a watch has ended.
enum End {
    /// As it should after a while, or by a network that gave up.
    Closed,
    /// The server does not know the version any more.
    Expired,
    Failed(String),
}

/// Watches from a version on, until everything has to be listed again.
async fn follow(shell: &Shell, resource: Resource, mut version: String, backoff: &mut Backoff) {
    let mut failures = 0;
    loop {
        let opened = Instant::now();
        let before = version.clone();
        let end = stream(shell, resource, &mut version, backoff).await;
        if version != before {
            failures = 0;
            backoff.reset();
        }
        match end {
            End::Closed if opened.elapsed() > Duration::from_secs(1) => failures = 0,
            End::Closed => tokio::time::sleep(backoff.next()).await,
            End::Expired => {
                info!(kind = resource.kind, "the watch is too old to be resumed: listing again");
                return;
            }
            End::Failed(error) => {
                failures += 1;
                let delay = backoff.next();
                shell.telemetry.watch_failed(resource);
                warn!(kind = resource.kind, error, ?delay, "the watch failed");
                tokio::time::sleep(delay).await;
                if failures >= RESUME_ATTEMPTS {
                    return;
                }
            }
        }
    }
}

/// Follows one watch request to its end, and `version` with it.
async fn stream(shell: &Shell, resource: Resource, version: &mut String, backoff: &mut Backoff) -> End {
    // Watches that began together do not end together.
    let seconds = WATCH_SECONDS - backoff.random.u32(0..50);
    let query = query(&[
        ("watch", "true"),
        ("allowWatchBookmarks", "true"),
        ("timeoutSeconds", &seconds.to_string()),
        ("labelSelector", &selector(&shell.settings, resource)),
        ("resourceVersion", version),
    ]);
    let path = format!("{}?{query}", shell.api.collection(resource, namespace(&shell.settings, resource)));
    let request = match Request::get(path).header(http::header::ACCEPT, "application/json").body(Vec::new()) {
        Ok(request) => request,
        Err(error) => return End::Failed(error.to_string()),
    };
    let opening = shell.api.client().request_events::<Envelope>(request);
    let asked = Instant::now();
    let opened = tokio::time::timeout(OPEN_LIMIT, opening).await;
    let code = match &opened {
        Ok(Ok(_)) => 200,
        Ok(Err(kube::Error::Api(status))) => status.code,
        Ok(Err(_)) | Err(_) => 0,
    };
    let all = ObjectRef::new(resource, namespace(&shell.settings, resource), "");
    shell.telemetry.called(&all, "Watch", code, asked.elapsed());
    let mut events = match opened {
        Ok(Ok(events)) => pin!(events),
        Ok(Err(kube::Error::Api(status))) if status.code == 410 => return End::Expired,
        Ok(Err(error)) => return End::Failed(chain(&error)),
        Err(_) => return End::Failed(format!("no answer within {} s", OPEN_LIMIT.as_secs())),
    };
    shell.health.alive(resource);
    let limit = Duration::from_secs(u64::from(seconds)) + WATCH_MARGIN;
    loop {
        let event = match tokio::time::timeout(limit, events.try_next()).await {
            Ok(Ok(Some(event))) => event,
            Ok(Ok(None)) | Err(_) => return End::Closed,
            Ok(Err(error)) => return End::Failed(chain(&error)),
        };
        shell.health.alive(resource);
        match event {
            WatchEvent::Added(envelope) | WatchEvent::Modified(envelope) => {
                version.clone_from(&envelope.metadata.resource_version);
                shell.observe(resource, envelope);
            }
            WatchEvent::Deleted(envelope) => {
                version.clone_from(&envelope.metadata.resource_version);
                let reference = envelope.metadata.reference(resource);
                let effects = shell.index().remove(&reference, &envelope.metadata.uid, shell.clock.now());
                shell.take_in(effects);
            }
            WatchEvent::Bookmark(bookmark) => *version = bookmark.metadata.resource_version,
            WatchEvent::Error(status) if status.code == 410 => return End::Expired,
            WatchEvent::Error(status) => return End::Failed(status.message),
        }
    }
}

/// The namespace to watch a kind in; empty for all of them.
fn namespace(settings: &Settings, resource: Resource) -> &str {
    if resource == resource::CLUSTER_ANALYSIS_TEMPLATE { "" } else { settings.namespace.as_deref().unwrap_or_default() }
}

/// Which objects of a kind are ours to see.
fn selector(settings: &Settings, resource: Resource) -> String {
    match resource {
        resource::REPLICA_SET => names::POD_TEMPLATE_HASH.to_owned(),
        resource::JOB => names::RUN_UID.to_owned(),
        resource::ROLLOUT
        | resource::ANALYSIS_RUN
        | resource::ANALYSIS_TEMPLATE
        | resource::CLUSTER_ANALYSIS_TEMPLATE
        | resource::EXPERIMENT => {
            if settings.instance_id.is_empty() {
                format!("!{}", names::INSTANCE_ID)
            } else {
                format!("{}={}", names::INSTANCE_ID, settings.instance_id)
            }
        }
        _ => String::new(),
    }
}

/// A query string of the parameters that are not empty.
pub(super) fn query(parameters: &[(&str, &str)]) -> String {
    let mut query = String::new();
    for (name, value) in parameters.iter().filter(|(_, value)| !value.is_empty()) {
        let separator = if query.is_empty() { "" } else { "&" };
        query.push_str(&format!("{separator}{name}="));
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                query.push(char::from(byte));
            } else {
                query.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    query
}

/// Delays after failures: as client-go, from 0.8 s doubling to 30 s, with jitter.
struct Backoff {
    failures: u32,
    random: fastrand::Rng,
}

impl Backoff {
    fn new(settings: &Settings, resource: Resource) -> Self {
        // A different sequence for each kind, the same in each run.
        let kind =
            resource.kind.bytes().fold(settings.seed, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
        Self { failures: 0, random: fastrand::Rng::with_seed(kind) }
    }

    fn next(&mut self) -> Duration {
        let full = Duration::from_millis(800) * 2_u32.pow(self.failures.min(6));
        self.failures += 1;
        self.jitter(full.min(Duration::from_secs(30)))
    }

    /// Between half and all of it.
    fn jitter(&mut self, full: Duration) -> Duration {
        full.mul_f64(0.5 + self.random.f64() / 2.0)
    }

    fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_and_queries() {
        let mut settings = Settings::default();
        let rollouts =
            |settings: &Settings| query(&[("limit", "5"), ("labelSelector", &selector(settings, resource::ROLLOUT))]);
        assert_eq!(rollouts(&settings), "limit=5&labelSelector=%21argo-rollouts.argoproj.io%2Fcontroller-instance-id");
        settings.instance_id = "blue".into();
        assert_eq!(
            rollouts(&settings),
            "limit=5&labelSelector=argo-rollouts.argoproj.io%2Fcontroller-instance-id%3Dblue"
        );
        assert_eq!(selector(&settings, resource::SERVICE), "");
        settings.namespace = Some("shop".into());
        assert_eq!(namespace(&settings, resource::ROLLOUT), "shop");
        assert_eq!(namespace(&settings, resource::CLUSTER_ANALYSIS_TEMPLATE), "");
    }

    #[test]
    fn which_kinds_may_be_missing() {
        let missing = CallError::NotFound("x".into());
        let forbidden = CallError::Refused { code: 403, message: "x".into() };
        assert!(absent(resource::HTTP_ROUTE, &missing) && absent(resource::HTTP_ROUTE, &forbidden));
        assert!(absent(resource::EXPERIMENT, &missing) && !absent(resource::EXPERIMENT, &forbidden));
        assert!(!absent(resource::ROLLOUT, &missing) && !absent(resource::ROLLOUT, &forbidden));
        assert!(!absent(resource::HTTP_ROUTE, &CallError::Unanswered("x".into())));
    }
}
