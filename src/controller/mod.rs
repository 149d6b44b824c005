//! The shell: watches, index, queue, building the World, executing Plans, telemetry.
//!
//! ```text
//! watch ──► index ──► queue ──► reconcile: world ──► decide ──► execute ──► API server
//!   ▲                   ▲                                          │
//!   └───────────────────┴──────────────── expectations ◄───────────┘
//! ```
//!
//! | file | what it does |
//! |---|---|
//! | [`watch`] | one task a kind: list, watch, recover |
//! | [`envelope`] | from JSON to what decisions use of an object |
//! | [`index`], [`relation`], [`references`] | finds objects by what decisions ask for, and whom an event concerns |
//! | [`queue`] | what is due: once each, one at a time, delayed after failures |
//! | [`expectations`] | read your writes |
//! | [`audit`] | what no watch has shown |
//! | [`world`], [`reconcile`], [`execute`] | observe, decide, act |
//! | [`release`] | what Rollouts have left behind in DestinationRules |
//! | [`pods`] | the pods, for the few decisions that need them |
//! | [`analysis`] | AnalysisRuns: measurements between the two halves of a decision |
//! | [`experiment`] | Experiments |
//! | [`api`], [`limiter`] | calls: limited, timed, measured |
//! | [`events`], [`telemetry`], [`server`] | what people and monitoring see |
//! | [`leader`] | one controller at a time |
//!
//! [`run`] is the same on a real cluster, on the sandbox in real time, and on the sandbox in virtual time on one thread.
//! There every run makes the same requests in the same order: time comes from tokio's clock, jitter from one seed, and no
//! unordered map is ever walked through.

pub mod analysis;
pub mod api;
pub mod audit;
pub mod envelope;
pub mod events;
pub mod execute;
pub mod expectations;
pub mod experiment;
pub mod index;
pub mod leader;
pub mod limiter;
pub mod pods;
pub mod queue;
pub mod reconcile;
pub mod references;
pub mod relation;
pub mod release;
pub mod server;
pub mod settings;
pub mod telemetry;
pub mod watch;
pub mod world;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::api::resource::{self, ObjectRef, Resource};
use crate::api::rollout::RolloutStatus;
use crate::clock::Clock;
use crate::plan::{Event, Plan};
use crate::providers::Providers;
use crate::rollout::{self, World};

use self::analysis::Measurements;
use self::api::Api;
use self::envelope::Envelope;
use self::events::Events;
use self::expectations::{Echo, Expectations};
use self::index::{Effects, Index, Knowledge};
use self::leader::Candidate;
use self::limiter::Limiter;
use self::queue::{Next, Queue};
use self::reconcile::Memory;
use self::settings::Settings;
use self::telemetry::Telemetry;
use self::watch::Health;

/// Events are for people: they may take a quarter of the requests that decisions may.
const EVENT_SHARE: f64 = 0.25;

/// Why the controller has ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    #[error(transparent)]
    LeadershipLost(#[from] leader::Lost),
    #[error(transparent)]
    Server(#[from] std::io::Error),
}

/// Everything that the tasks of the controller share.
pub struct Shell {
    pub api: Api,
    pub clock: Clock,
    pub settings: Settings,
    decide: Decide,
    pub decision_settings: crate::rollout::world::Settings,
    index: Mutex<Index>,
    pub expectations: Expectations,
    memories: Mutex<BTreeMap<ObjectRef, Memory>>,
    pub rollouts: Queue,
    pub runs: Queue,
    pub experiments: Queue,
    measurements: Measurements,
    providers: Providers,
    pub events: Events,
    pub telemetry: Arc<Telemetry>,
    pub health: Health,
    /// Told when a kind has been listed.
    pub synced: Notify,
    /// Kinds whose definition has no status subresource.
    without_status: Mutex<BTreeSet<Resource>>,
    wanted: mpsc::UnboundedSender<Resource>,
}

/// Runs the controller until `shutdown` is done, or until it must not go on.
///
/// The client should be one that [`client`] made, or one of the sandbox's; the providers reach what metrics are measured
/// with.
pub async fn run(
    client: kube::Client,
    providers: Providers,
    clock: Clock,
    settings: Settings,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Ended> {
    run_deciding(client, providers, clock, settings, rollout::decide, shutdown).await
}

/// How a Rollout is decided.
pub type Decide = fn(&World) -> Plan<RolloutStatus>;

/// The same with another way to decide: one that looks at what is decided, say.
pub async fn run_deciding(
    client: kube::Client,
    providers: Providers,
    clock: Clock,
    settings: Settings,
    decide: Decide,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Ended> {
    let (shell, write_events, mut wanted) = Shell::new(client, providers, clock, settings, decide);
    let settings = &shell.settings;

    let mut servers = JoinSet::new();
    servers.extend(settings.health_address.map(|address| server::health(shell.clone(), address)));
    servers.extend(settings.metrics_address.map(|address| server::metrics(shell.clone(), address)));

    let mut watches = JoinSet::new();
    watches.spawn(write_events);
    for resource in watch::ALWAYS {
        shell.index().watched(resource);
        watches.spawn(watch::watch(shell.clone(), resource));
        watches.spawn(audit::audit(shell.clone(), resource));
    }
    let looking = shell.clone();
    watches.spawn(async move { release::look_for_leftovers(&looking).await });
    let more_watches = async {
        while let Some(resource) = wanted.recv().await {
            info!(kind = resource.kind, "this kind is needed now: watching it");
            watches.spawn(watch::watch(shell.clone(), resource));
            watches.spawn(audit::audit(shell.clone(), resource));
        }
    };

    let mut candidate = settings.election.clone().map(|election| {
        Candidate::new(&shell.api, shell.clock.clone(), election, &settings.instance_id, settings.seed)
    });
    let mut workers = Workers::default();
    let lead = async {
        if let Some(candidate) = &mut candidate {
            candidate.acquire().await;
        }
        shell.listed().await;
        workers.start(&shell);
        match &mut candidate {
            Some(candidate) => candidate.keep().await,
            None => std::future::pending().await,
        }
    };

    let ended = tokio::select! {
        biased;
        () = shutdown => Ok(()),
        lost = lead => Err(Ended::from(lost)),
        Some(served) = servers.join_next() => Err(Ended::from(match served {
            Ok(Err(error)) => error,
            Ok(Ok(())) | Err(_) => std::io::Error::other("a server has stopped"),
        })),
        () = more_watches => Ok(()),
    };
    shell.measurements.abort();
    match &ended {
        Ok(()) => {
            info!("stopping");
            workers.finish(shell.settings.grace).await;
            if let Some(candidate) = &mut candidate {
                candidate.release().await;
            }
        }
        // Another one may be leading already: nothing more is written.
        Err(error) => warn!(%error, "stopping at once"),
    }
    ended
}

/// A client for the controller: without kube's own retries, which would repeat writes unseen.
pub fn client(mut config: kube::Config) -> kube::Result<kube::Client> {
    config.default_retry = false;
    kube::Client::try_from(config)
}

impl Shell {
    fn new(
        client: kube::Client,
        providers: Providers,
        clock: Clock,
        settings: Settings,
        decide: Decide,
    ) -> (Arc<Self>, impl Future<Output = ()> + Send, mpsc::UnboundedReceiver<Resource>) {
        let telemetry = Arc::new(Telemetry::new());
        let limiter = Arc::new(Limiter::new(settings.qps, settings.burst));
        let api = Api::new(client, limiter, settings.call_timeout, telemetry.clone())
            .with_istio_version(settings.istio_api_version);
        let for_events = Limiter::new(settings.qps * EVENT_SHARE, settings.burst);
        let (events, write_events) =
            Events::new(api.limited_by(Arc::new(for_events)), clock.clone(), telemetry.clone());
        let (wanted, receiver) = mpsc::unbounded_channel();
        let shell = Self {
            api,
            clock,
            decide,
            decision_settings: settings.for_decisions(),
            index: Mutex::default(),
            expectations: Expectations::default(),
            memories: Mutex::default(),
            rollouts: Queue::new(settings.seed, telemetry.queue(queue::ROLLOUTS)),
            measurements: Measurements::default(),
            providers,
            runs: Queue::new(settings.seed.wrapping_add(1), telemetry.queue(queue::ANALYSIS_RUNS)),
            experiments: Queue::new(settings.seed.wrapping_add(2), telemetry.queue(queue::EXPERIMENTS)),
            events,
            telemetry,
            health: Health::default(),
            synced: Notify::new(),
            without_status: Mutex::default(),
            wanted,
            settings,
        };
        (Arc::new(shell), write_events, receiver)
    }

    /// The index. Never held across an await.
    pub fn index(&self) -> MutexGuard<'_, Index> {
        lock(&self.index)
    }

    pub fn memories(&self) -> MutexGuard<'_, BTreeMap<ObjectRef, Memory>> {
        lock(&self.memories)
    }

    /// Takes an object in that a watch has seen.
    pub fn observe(&self, resource: Resource, envelope: Envelope) {
        let reference = envelope.metadata.reference(resource);
        let version = envelope.metadata.resource_version.clone();
        let effects = self.index().apply(resource, envelope, self.clock.now());
        for object in &effects.concerned {
            let Some(queue) = self.queue(object) else { continue };
            match self.expectations.echo(object, &reference, &version) {
                None => queue.add(object),
                Some(Echo::Awaited) => queue.add_own(object),
                Some(Echo::AtRest) => queue.add_if_waiting(object),
            }
        }
        self.take_in(Effects { concerned: BTreeSet::new(), ..effects });
    }

    /// Acts on what has changed in the index.
    pub fn take_in(&self, effects: Effects) {
        for resource in effects.wanted {
            // The other end is gone only when the controller has ended.
            let _ = self.wanted.send(resource);
        }
        for (object, uid) in &effects.removed {
            self.telemetry.deleted(object);
            if object.resource == resource::ROLLOUT {
                let message = format!("Rollout resource deleted: {}/{}", object.namespace, object.name);
                self.events.emit(object, uid, Event::normal("RolloutDeleted", message));
            }
        }
        if !effects.removed.is_empty() {
            self.telemetry.sweep(&self.index());
        }
        for object in &effects.concerned {
            if let Some(queue) = self.queue(object) {
                queue.add(object);
            }
        }
    }

    /// Has a kind watched, unless it is already.
    pub fn want(&self, resource: Resource) {
        let effects = self.index().need(resource);
        self.take_in(effects);
    }

    /// Nothing needs to be remembered of an object that is gone.
    pub fn forget(&self, object: &ObjectRef) {
        self.memories().remove(object);
        self.expectations.forget(object);
    }

    pub fn lacks_status(&self, resource: Resource) -> bool {
        lock(&self.without_status).contains(&resource)
    }

    pub fn remember_status(&self, resource: Resource, has_subresource: bool) {
        let mut without = lock(&self.without_status);
        if has_subresource {
            without.remove(&resource)
        } else {
            without.insert(resource)
        };
    }

    /// The kinds whose first list has not ended.
    pub fn unlisted(&self) -> Vec<&'static str> {
        let index = self.index();
        let unlisted = watch::ALWAYS
            .into_iter()
            .filter(|resource| matches!(index.knowledge(*resource), Knowledge::Unwatched | Knowledge::Syncing));
        unlisted.map(|resource| resource.kind).collect()
    }

    /// When tokio's clock shows what the wall clock calls `at`. Never in the past, so that a decision that asks for a time
    /// that has gone by cannot make a hot loop.
    pub fn instant(&self, at: Timestamp) -> Instant {
        let ahead = Duration::try_from(at.duration_since(self.clock.now())).unwrap_or(Duration::ZERO);
        Instant::now() + ahead.max(Duration::from_millis(10))
    }

    /// When an object that nothing happens to is looked at again: at different times for different objects.
    pub fn resync(&self, object: &ObjectRef) -> Next {
        let resync = self.settings.resync;
        if resync.is_zero() {
            return Next::Idle;
        }
        Next::At(Instant::now() + resync.mul_f64(spread(object)))
    }

    fn queue(&self, object: &ObjectRef) -> Option<&Queue> {
        match object.resource {
            resource::ROLLOUT if !self.settings.analysis_only => Some(&self.rollouts),
            resource::ANALYSIS_RUN => Some(&self.runs),
            resource::EXPERIMENT if !self.settings.analysis_only => Some(&self.experiments),
            _ => None,
        }
    }

    /// Waits until everything that decisions need has been listed once.
    async fn listed(&self) {
        loop {
            let notified = self.synced.notified();
            if self.unlisted().is_empty() {
                return;
            }
            // A kind that turns out to be absent notifies nobody: look again after a while.
            let _ = tokio::time::timeout(Duration::from_millis(200), notified).await;
        }
    }
}

/// The tasks that take objects off the queues.
#[derive(Default)]
struct Workers {
    tasks: JoinSet<()>,
    stop: Option<tokio::sync::watch::Sender<bool>>,
}

impl Workers {
    fn start(&mut self, shell: &Arc<Shell>) {
        let (stop, stopping) = tokio::sync::watch::channel(false);
        self.stop = Some(stop);
        let settings = &shell.settings;
        let rollout_workers = if settings.analysis_only { 0 } else { settings.rollout_workers };
        for _ in 0..rollout_workers {
            self.tasks.spawn(worker(shell.clone(), |shell| &shell.rollouts, stopping.clone()));
        }
        let experiment_workers = if settings.analysis_only { 0 } else { settings.experiment_workers };
        for _ in 0..experiment_workers {
            self.tasks.spawn(worker(shell.clone(), |shell| &shell.experiments, stopping.clone()));
        }
        for _ in 0..settings.analysis_workers {
            self.tasks.spawn(worker(shell.clone(), |shell| &shell.runs, stopping.clone()));
        }
    }

    /// Lets the running decisions end, for so long at most.
    async fn finish(&mut self, grace: Duration) {
        if let Some(stop) = &self.stop {
            let _ = stop.send(true);
        }
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, all).await.is_err() {
            warn!(left = self.tasks.len(), "some decisions have not ended in time");
        }
        self.tasks.abort_all();
    }
}

/// Between 0.9 and 1.1, for each object its own number: what began together does not go on together.
fn spread(object: &ObjectRef) -> f64 {
    let hash = object.name.bytes().fold(7_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
    0.9 + f64::from(hash % 200) / 1000.0
}

async fn worker(shell: Arc<Shell>, queue: fn(&Shell) -> &Queue, mut stopping: tokio::sync::watch::Receiver<bool>) {
    let queue = queue(&shell);
    loop {
        let object = tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => return,
            object = queue.next() => object,
        };
        let next = reconcile::work(&shell, &object).await;
        queue.done(&object, next);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panicking task leaves behind is complete: every change under these locks is a few map operations.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
