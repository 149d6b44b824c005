//! Metrics: those of Argo Rollouts by name, labels and meaning, and a few of our own that begin with `tidegate_`.
//!
//! What describes objects is computed when it is asked for, from the index; only what counts is kept.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::{
    CounterVec, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
    TextEncoder,
};
use tokio::time::Instant;

use crate::analysis::metric::ProviderKind;
use crate::api::Rollout;
use crate::api::analysis::{AnalysisRun, AnalysisTemplateSpec, Metric};
use crate::api::resource::{self, ObjectRef, REPLICA_SET, Resource};
use crate::api::rollout_status::DurationStatus;
use crate::traffic;

use super::envelope::Object;
use super::events::EVENT;
use super::index::{Entry, Index};
use super::queue::Queue;

/// The `name` of requests that are not counted by object.
const NO_NAME: &str = "N/A";

/// How long the series of an object outlive it, so that its last values are scraped: two usual scrape intervals and a bit.
const AFTERLIFE: Duration = Duration::from_secs(65);

/// Upper bounds of the duration of an update, in seconds: half a minute to eight hours.
const UPDATE_BUCKETS: [f64; 11] = [30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 14400.0, 28800.0];
const RECONCILE_BUCKETS: [f64; 5] = [0.01, 0.15, 0.25, 0.5, 1.0];
/// Those of client-go's work queues: ten nanoseconds to ten seconds.
const QUEUE_BUCKETS: [f64; 10] = [1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0];
const CALL_BUCKETS: [f64; 9] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0, 10.0];

/// All that is counted.
pub struct Telemetry {
    registry: Registry,
    rollout_reconcile: Reconcile,
    analysis_run_reconcile: Reconcile,
    experiment_reconcile: Reconcile,
    durations: [HistogramVec; 3],
    calls: HistogramVec,
    queue_adds: IntCounterVec,
    queue_retries: IntCounterVec,
    queue_waits: HistogramVec,
    queue_work: HistogramVec,
    watch_errors: IntCounterVec,
    watch_lists: IntCounterVec,
    pub stale_waits: IntCounter,
    pub live_reads: IntCounter,
    pub conflicts: IntCounter,
    pub events_dropped: IntCounter,
    decisions: Histogram,
    counts: Mutex<Counts>,
}

/// What a work queue counts.
#[derive(Clone, Debug)]
pub struct QueueCounts {
    pub adds: IntCounter,
    pub retries: IntCounter,
    /// From being due to being handed out, in seconds.
    pub waited: Histogram,
    /// From being handed out to being done, in seconds.
    pub worked: Histogram,
}

/// How long decisions of one kind take, and how often they fail.
struct Reconcile {
    seconds: HistogramVec,
    errors: IntCounterVec,
}

/// How often each of a few things was.
type Tally<T> = Vec<(T, u64)>;

#[derive(Default)]
struct Counts {
    /// By object; by verb and answer. Few for each object, so lists: a map takes half a kilobyte for its first entry.
    requests: BTreeMap<ObjectRef, Tally<(&'static str, u16)>>,
    /// By object; by type and reason.
    events: BTreeMap<ObjectRef, Tally<(&'static str, Box<str>)>>,
    /// Objects that are gone, and when their series go.
    gone: VecDeque<(Instant, ObjectRef)>,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

impl Telemetry {
    pub fn new() -> Self {
        let registry = Registry::new();
        let durations = [
            ("rollout_duration_seconds", "Duration of updates, pauses included."),
            ("rollout_progression_duration_seconds", "Duration of updates without manual pauses."),
            ("rollout_manual_pause_duration_seconds", "Duration of the manual pauses of updates."),
        ]
        .map(|(name, help)| histograms(&registry, name, help, &UPDATE_BUCKETS, &["status"]));
        let info = gauges(&registry, "argo_rollouts_controller_info", "The running controller.", &["version"]);
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        let labels = ["version", "goversion", "goarch", "commit"];
        let build = gauges(&registry, "build_info", "How the running controller was built.", &labels);
        let commit = option_env!("TIDEGATE_COMMIT").unwrap_or("");
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), "", std::env::consts::ARCH, commit]).set(1.0);
        #[cfg(target_os = "linux")]
        register(&registry, prometheus::process_collector::ProcessCollector::for_self());
        Self {
            rollout_reconcile: Reconcile::new(&registry, "rollout"),
            analysis_run_reconcile: Reconcile::new(&registry, "analysis_run"),
            experiment_reconcile: Reconcile::new(&registry, "experiment"),
            durations,
            calls: histograms(
                &registry,
                "tidegate_api_request_duration_seconds",
                "How long the API server takes to answer.",
                &CALL_BUCKETS,
                &["verb"],
            ),
            queue_adds: counters(&registry, "workqueue_adds_total", "Objects that became due.", &["name"]),
            queue_retries: counters(&registry, "workqueue_retries_total", "Decisions to make again.", &["name"]),
            queue_waits: histograms(
                &registry,
                "workqueue_queue_duration_seconds",
                "How long objects wait for a worker.",
                &QUEUE_BUCKETS,
                &["name"],
            ),
            queue_work: histograms(
                &registry,
                "workqueue_work_duration_seconds",
                "How long decisions take.",
                &QUEUE_BUCKETS,
                &["name"],
            ),
            watch_errors: counters(&registry, "tidegate_watch_errors_total", "Failures of watches.", &["kind"]),
            watch_lists: counters(&registry, "tidegate_watch_lists_total", "Complete lists by watches.", &["kind"]),
            stale_waits: counter(
                &registry,
                "tidegate_stale_cache_waits_total",
                "Decisions put off because a write of ours had not been seen yet.",
            ),
            live_reads: counter(&registry, "tidegate_live_reads_total", "Objects read past the watches."),
            conflicts: counter(&registry, "tidegate_conflicts_total", "Writes refused because the object had changed."),
            events_dropped: counter(&registry, "tidegate_events_dropped_total", "Events given up: the queue was full."),
            decisions: {
                let opts =
                    HistogramOpts::new("tidegate_decision_seconds", "From picking an object up to having acted.");
                let histogram = Histogram::with_opts(opts.buckets(CALL_BUCKETS.to_vec()));
                let histogram = histogram.expect("the name and the buckets are constants and valid");
                register(&registry, histogram.clone());
                histogram
            },
            registry,
            counts: Mutex::default(),
        }
    }

    /// What the queue of this name counts.
    pub fn queue(&self, name: &str) -> QueueCounts {
        QueueCounts {
            adds: self.queue_adds.with_label_values(&[name]),
            retries: self.queue_retries.with_label_values(&[name]),
            waited: self.queue_waits.with_label_values(&[name]),
            worked: self.queue_work.with_label_values(&[name]),
        }
    }

    /// A decision about an object took this long, its writes included.
    pub fn decided(&self, object: &ObjectRef, took: Duration, failed: bool) {
        let Some(reconcile) = self.reconcile(object.resource) else { return };
        let labels = [object.namespace.as_str(), &object.name];
        reconcile.seconds.with_label_values(&labels).observe(took.as_secs_f64());
        if failed {
            reconcile.errors.with_label_values(&labels).inc();
        }
        self.decisions.observe(took.as_secs_f64());
    }

    /// The API server was called; `code` is 0 when there was no answer.
    pub fn called(&self, object: &ObjectRef, verb: &'static str, code: u16, took: Duration) {
        self.calls.with_label_values(&[verb]).observe(took.as_secs_f64());
        let mut counts = self.counts();
        if verb == "List" || [EVENT, REPLICA_SET].contains(&object.resource) {
            // There are many of them, each with a name of its own: Argo Rollouts counts them together, too.
            let all = ObjectRef::new(object.resource, object.namespace.clone(), NO_NAME);
            count(counts.requests.entry(all).or_default(), (verb, code));
        } else if let Some(calls) = counts.requests.get_mut(object) {
            count(calls, (verb, code));
        } else {
            counts.requests.insert(object.clone(), vec![((verb, code), 1)]);
        }
    }

    /// An event was emitted.
    pub fn emitted(&self, object: &ObjectRef, warning: bool, reason: &str) {
        let type_ = if warning { "Warning" } else { "Normal" };
        let mut counts = self.counts();
        count(counts.events.entry(object.clone()).or_default(), (type_, reason.into()));
    }

    pub fn watch_failed(&self, resource: Resource) {
        self.watch_errors.with_label_values(&[resource.kind]).inc();
    }

    pub fn listed(&self, resource: Resource) {
        self.watch_lists.with_label_values(&[resource.kind]).inc();
    }

    /// An update has ended.
    pub fn update_ended(&self, duration: &DurationStatus) {
        let (Some(started), Some(finished)) = (&duration.rollout_started_at, &duration.finished_at) else { return };
        let all = finished.0.duration_since(started.0).as_secs_f64();
        let paused = duration.total_manual_pause_duration_seconds.unwrap_or(0) as f64;
        for (histogram, seconds) in self.durations.iter().zip([all, all - paused, paused]) {
            histogram.with_label_values(&[duration.completion_status.as_str()]).observe(seconds.max(0.0));
        }
    }

    /// An object is gone; its series follow.
    pub fn deleted(&self, object: &ObjectRef) {
        self.counts().gone.push_back((Instant::now() + AFTERLIFE, object.clone()));
    }

    /// Drops the series of objects that have been gone for long enough.
    pub fn sweep(&self, index: &Index) {
        let mut counts = self.counts();
        while counts.gone.front().is_some_and(|(at, _)| *at <= Instant::now()) {
            let Some((_, object)) = counts.gone.pop_front() else { return };
            if index.entry_of(&object).is_some() {
                continue;
            }
            counts.requests.remove(&object);
            counts.events.remove(&object);
            if let Some(reconcile) = self.reconcile(object.resource) {
                let labels = [object.namespace.as_str(), &object.name];
                // An error means that there is no such series.
                let _ = reconcile.seconds.remove_label_values(&labels);
                let _ = reconcile.errors.remove_label_values(&labels);
            }
        }
    }

    /// Everything in Prometheus' text format.
    pub fn text(&self, index: &Mutex<Index>, queues: &[(&str, &Queue)]) -> String {
        let scrape = Registry::new();
        {
            let index = index.lock().unwrap_or_else(PoisonError::into_inner);
            self.sweep(&index);
            describe(&scrape, &index);
        }
        let depth = gauges(&scrape, "workqueue_depth", "Objects that wait for a worker.", &["name"]);
        let unfinished =
            gauges(&scrape, "workqueue_unfinished_work_seconds", "How long decisions have been running.", &["name"]);
        let name = "workqueue_longest_running_processor_seconds";
        let longest = gauges(&scrape, name, "How long the longest of them has been running.", &["name"]);
        for (name, queue) in queues {
            let load = queue.load();
            depth.with_label_values(&[name]).set(load.waiting as f64);
            unfinished.with_label_values(&[name]).set(load.unfinished.as_secs_f64());
            longest.with_label_values(&[name]).set(load.longest.as_secs_f64());
        }
        self.counts().describe(&scrape);
        let mut families = self.registry.gather();
        families.extend(scrape.gather());
        families.sort_by(|one, other| one.name().cmp(other.name()));
        // The encoder fails only on families without metrics, which are not gathered.
        TextEncoder::new().encode_to_string(&families).unwrap_or_default()
    }

    fn reconcile(&self, resource: Resource) -> Option<&Reconcile> {
        match resource {
            resource::ROLLOUT => Some(&self.rollout_reconcile),
            resource::ANALYSIS_RUN => Some(&self.analysis_run_reconcile),
            resource::EXPERIMENT => Some(&self.experiment_reconcile),
            _ => None,
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One more of `what`.
fn count<T: PartialEq>(counts: &mut Tally<T>, what: T) {
    match counts.iter_mut().find(|(counted, _)| *counted == what) {
        Some((_, count)) => *count += 1,
        None => counts.push((what, 1)),
    }
}

impl Reconcile {
    fn new(registry: &Registry, kind: &str) -> Self {
        let labels = ["namespace", "name"];
        Self {
            seconds: histograms(
                registry,
                &format!("{kind}_reconcile"),
                "Duration of decisions, in seconds.",
                &RECONCILE_BUCKETS,
                &labels,
            ),
            errors: counters(registry, &format!("{kind}_reconcile_error"), "Decisions that met a failure.", &labels),
        }
    }
}

impl Counts {
    fn describe(&self, registry: &Registry) {
        let labels = ["kind", "namespace", "name", "verb", "status_code"];
        let requests =
            float_counters(registry, "controller_clientset_k8s_request_total", "Requests to the API server.", &labels);
        for (object, calls) in &self.requests {
            for ((verb, code), count) in calls {
                let code = code.to_string();
                let values = [object.resource.plural, object.namespace.as_str(), &object.name, verb, &code];
                requests.with_label_values(&values).inc_by(*count as f64);
            }
        }
        let labels = ["namespace", "name", "type", "reason"];
        let events = float_counters(registry, "rollout_events_total", "Events of Rollouts.", &labels);
        for (object, emitted) in &self.events {
            for ((type_, reason), count) in emitted {
                let values = [object.namespace.as_str(), &object.name, type_, reason];
                events.with_label_values(&values).inc_by(*count as f64);
            }
        }
    }
}

/// The phases of the deprecated `*_phase` metrics.
const ROLLOUT_PHASES: [&str; 6] = ["Completed", "Progressing", "Paused", "Timeout", "Error", "Abort"];
const RUN_PHASES: [&str; 6] = ["Pending", "Running", "Successful", "Failed", "Error", "Inconclusive"];

/// The gauges that describe the objects of the index.
fn describe(registry: &Registry, index: &Index) {
    let gauge = |name: &str, help: &str, labels: &[&str]| gauges(registry, name, help, labels);
    let object = ["namespace", "name"];
    let info = gauge("rollout_info", "Rollouts.", &["namespace", "name", "strategy", "traffic_router", "phase"]);
    let phases = gauge("rollout_phase", "Deprecated: see rollout_info.", &["namespace", "name", "strategy", "phase"]);
    let [available, unavailable, desired, updated] = ["available", "unavailable", "desired", "updated"]
        .map(|what| gauge(&format!("rollout_info_replicas_{what}"), "Pods of Rollouts.", &object));
    for (reference, entry) in index.of_kind(resource::ROLLOUT) {
        let Object::Rollout(rollout) = &entry.object else { continue };
        let (namespace, name) = (reference.namespace.as_str(), reference.name.as_str());
        let (strategy, phase) = (strategy(rollout), phase(rollout));
        info.with_label_values(&[namespace, name, strategy, router(rollout), phase]).set(1.0);
        for other in ROLLOUT_PHASES {
            let value = if other == phase { 1.0 } else { 0.0 };
            phases.with_label_values(&[namespace, name, strategy, other]).set(value);
        }
        let status = rollout.status.as_ref();
        let (all, ready, new) =
            status.map_or((0, 0, 0), |status| (status.replicas, status.available_replicas, status.updated_replicas));
        for (gauge, value) in [
            (&available, ready),
            (&unavailable, (all - ready).max(0)),
            (&desired, rollout.spec.desired_replicas()),
            (&updated, new),
        ] {
            gauge.with_label_values(&[namespace, name]).set(f64::from(value));
        }
    }
    describe_runs(registry, index);
    describe_templates(registry, index);
    describe_experiments(registry, index);
}

fn describe_experiments(registry: &Registry, index: &Index) {
    let labels = ["namespace", "name", "phase"];
    let info = gauges(registry, "experiment_info", "Experiments.", &labels);
    let phases = gauges(registry, "experiment_phase", "Deprecated: see experiment_info.", &labels);
    for (reference, entry) in index.of_kind(resource::EXPERIMENT) {
        let Object::Experiment(experiment) = &entry.object else { continue };
        let (namespace, name) = (reference.namespace.as_str(), reference.name.as_str());
        let phase = match experiment.status.as_ref().map_or("", |status| status.phase.as_str()) {
            "" => "Pending",
            phase => phase,
        };
        info.with_label_values(&[namespace, name, phase]).set(1.0);
        for other in RUN_PHASES {
            let value = if other == phase { 1.0 } else { 0.0 };
            phases.with_label_values(&[namespace, name, other]).set(value);
        }
    }
}

fn describe_runs(registry: &Registry, index: &Index) {
    let labels = ["namespace", "name", "phase"];
    let info = gauges(registry, "analysis_run_info", "AnalysisRuns.", &labels);
    let phases = gauges(registry, "analysis_run_phase", "Deprecated: see analysis_run_info.", &labels);
    let labels = ["namespace", "name", "metric", "type"];
    let types = gauges(registry, "analysis_run_metric_type", "Metrics of AnalysisRuns.", &labels);
    let labels = ["namespace", "name", "metric", "type", "dry_run", "phase"];
    let metric_phases = gauges(registry, "analysis_run_metric_phase", "Phases of metrics of AnalysisRuns.", &labels);
    for (reference, entry) in index.of_kind(resource::ANALYSIS_RUN) {
        let Object::AnalysisRun(run) = &entry.object else { continue };
        let (namespace, name) = (reference.namespace.as_str(), reference.name.as_str());
        let phase = run_phase(run);
        info.with_label_values(&[namespace, name, phase]).set(1.0);
        for other in RUN_PHASES {
            let value = if other == phase { 1.0 } else { 0.0 };
            phases.with_label_values(&[namespace, name, other]).set(value);
        }
        for metric in &run.spec.metrics {
            let type_ = provider(metric);
            types.with_label_values(&[namespace, name, &metric.name, type_]).set(1.0);
            let results = run.status.iter().flat_map(|status| &status.metric_results);
            let result = results.into_iter().find(|result| result.name == metric.name);
            let dry_run = if result.is_some_and(|result| result.dry_run) { "true" } else { "false" };
            let phase = result.map(|result| result.phase.as_str()).filter(|phase| !phase.is_empty());
            for other in RUN_PHASES {
                let value = if phase.unwrap_or("Pending") == other { 1.0 } else { 0.0 };
                metric_phases.with_label_values(&[namespace, name, &metric.name, type_, dry_run, other]).set(value);
            }
        }
    }
}

fn describe_templates(registry: &Registry, index: &Index) {
    let info = gauges(registry, "analysis_template_info", "AnalysisTemplates.", &["namespace", "name"]);
    let labels = ["namespace", "name", "type", "metric"];
    let metrics = gauges(registry, "analysis_template_metric_info", "Metrics of AnalysisTemplates.", &labels);
    let kinds = [resource::ANALYSIS_TEMPLATE, resource::CLUSTER_ANALYSIS_TEMPLATE];
    for (reference, entry) in kinds.into_iter().flat_map(|kind| index.of_kind(kind)) {
        let Entry { object: Object::Template(template), .. } = entry else { continue };
        let template: &AnalysisTemplateSpec = template;
        info.with_label_values(&[reference.namespace.as_str(), &reference.name]).set(1.0);
        for metric in &template.metrics {
            let values = [reference.namespace.as_str(), &reference.name, provider(metric), &metric.name];
            metrics.with_label_values(&values).set(1.0);
        }
    }
}

fn strategy(rollout: &Rollout) -> &'static str {
    match (&rollout.spec.strategy.blue_green, &rollout.spec.strategy.canary) {
        (Some(_), _) => "blueGreen",
        (None, Some(_)) => "canary",
        (None, None) => "none",
    }
}

fn router(rollout: &Rollout) -> &'static str {
    let routing = rollout.spec.strategy.traffic_routing();
    routing.and_then(|routing| traffic::routers(routing).first().map(|router| router.name())).unwrap_or("")
}

/// The phase that Argo Rollouts derives for its metrics from the conditions.
fn phase(rollout: &Rollout) -> &'static str {
    let conditions = rollout.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    if conditions.iter().any(|condition| condition.type_ == "InvalidSpec") {
        return "InvalidSpec";
    }
    let progressing = conditions.iter().find(|condition| condition.type_ == "Progressing");
    match progressing.map_or("", |condition| condition.reason.as_str()) {
        "NewReplicaSetAvailable" => "Completed",
        "RolloutPaused" => "Paused",
        "ProgressDeadlineExceeded" => "Timeout",
        "RolloutAborted" => "Abort",
        "ReplicaSetCreateError" => "Error",
        _ => "Progressing",
    }
}

fn run_phase(run: &AnalysisRun) -> &'static str {
    match run.status.as_ref().map_or("", |status| status.phase.as_str()) {
        "" => "Pending",
        phase => phase,
    }
}

fn provider(metric: &Metric) -> &'static str {
    ProviderKind::of_metric(metric).first().map_or("Unknown Provider", |kind| kind.type_name())
}

// All names, labels and buckets are constants of this file, each registered once in its registry: none of these can fail.

fn register(registry: &Registry, collector: impl prometheus::core::Collector + 'static) {
    registry.register(Box::new(collector)).expect("a valid metric that is registered once");
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
    let gauges = GaugeVec::new(Opts::new(name, help), labels).expect("valid names");
    register(registry, gauges.clone());
    gauges
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let counters = IntCounterVec::new(Opts::new(name, help), labels).expect("valid names");
    register(registry, counters.clone());
    counters
}

fn float_counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> CounterVec {
    let counters = CounterVec::new(Opts::new(name, help), labels).expect("valid names");
    register(registry, counters.clone());
    counters
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    let counter = IntCounter::new(name, help).expect("a valid name");
    register(registry, counter.clone());
    counter
}

fn histograms(registry: &Registry, name: &str, help: &str, buckets: &[f64], labels: &[&str]) -> HistogramVec {
    let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    let histograms = HistogramVec::new(opts, labels).expect("valid names and buckets");
    register(registry, histograms.clone());
    histograms
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn series_follow_their_object() {
        let telemetry = Telemetry::new();
        let index = Mutex::new(Index::default());
        let web = ObjectRef::new(resource::ROLLOUT, "shop", "web");
        let object = json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "1", "resourceVersion": "1"},
            "spec": {"replicas": 3, "strategy": {"canary": {}}},
            "status": {"replicas": 3, "availableReplicas": 2, "conditions": [{
                "type": "Progressing", "status": "True", "reason": "RolloutPaused", "message": "",
                "lastUpdateTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]},
        });
        index.lock().unwrap().apply(resource::ROLLOUT, serde_json::from_value(object).unwrap(), Timestamp::UNIX_EPOCH);
        telemetry.decided(&web, Duration::from_millis(20), true);
        telemetry.called(&web, "Patch", 200, Duration::from_millis(5));
        telemetry.emitted(&web, false, "RolloutPaused");
        for number in 0..3 {
            let event = ObjectRef::new(EVENT, "shop", format!("web.{number}"));
            telemetry.called(&event, "Create", 201, Duration::from_millis(5));
        }

        let set = ObjectRef::new(REPLICA_SET, "shop", "web-1");
        telemetry.called(&set, "Patch", 200, Duration::from_millis(5));
        let queue = Queue::new(1, telemetry.queue("Rollouts"));
        queue.add(&web);
        let text = telemetry.text(&index, &[("Rollouts", &queue)]);
        for line in [
            r#"rollout_info{name="web",namespace="shop",phase="Paused",strategy="canary",traffic_router=""} 1"#,
            r#"rollout_phase{name="web",namespace="shop",phase="Completed",strategy="canary"} 0"#,
            r#"rollout_info_replicas_unavailable{name="web",namespace="shop"} 1"#,
            r#"rollout_reconcile_bucket{name="web",namespace="shop",le="0.15"} 1"#,
            r#"rollout_reconcile_error{name="web",namespace="shop"} 1"#,
            r#"rollout_events_total{name="web",namespace="shop",reason="RolloutPaused",type="Normal"} 1"#,
            r#"controller_clientset_k8s_request_total{kind="rollouts",name="web",namespace="shop",status_code="200",verb="Patch"} 1"#,
            r#"controller_clientset_k8s_request_total{kind="events",name="N/A",namespace="shop",status_code="201",verb="Create"} 3"#,
            r#"controller_clientset_k8s_request_total{kind="replicasets",name="N/A",namespace="shop",status_code="200",verb="Patch"} 1"#,
            r#"workqueue_depth{name="Rollouts"} 1"#,
            r#"workqueue_adds_total{name="Rollouts"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }

        index.lock().unwrap().remove(&web, "", Timestamp::UNIX_EPOCH);
        telemetry.deleted(&web);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(telemetry.text(&index, &[]).contains("rollout_reconcile_error{"));
        tokio::time::advance(Duration::from_secs(6)).await;
        let text = telemetry.text(&index, &[]);
        assert!(!text.contains(r#"name="web""#), "{text}");
    }
}
