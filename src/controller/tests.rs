//! The whole shell on the sandbox's API server, in virtual time.

mod events;
mod istio;
mod live_reads;
mod lost_events;
mod metrics;
mod subresource;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::api::resource::{ObjectRef, REPLICA_SET, ROLLOUT};
use crate::api::rollout::RolloutStatus;
use crate::api::{crd, names};
use crate::clock::Clock;
use crate::plan::{Action, Basis, Event, Plan};
use crate::providers::http::{HttpError, Request, Response, Transport};
use crate::providers::{JobTarget, Providers};
use crate::rollout::{self, World};
use crate::sandbox::{ApiServer, Call, Change, Fault, Faults, Patch, Refusal, WatchFault};

use super::api::{CallError, PatchKind};
use super::leader::{Candidate, Lost};
use super::limiter::Limiter;
use super::settings::{Election, Settings};
use super::telemetry::Telemetry;
use super::{Api, Decide, Ended, run_deciding};

const ROLLOUTS: &str = "rollouts.argoproj.io";
const REPLICA_SETS: &str = "replicasets.apps";
const EXPERIMENTS: &str = "experiments.argoproj.io";

/// A cluster whose ReplicaSets have all their pods at once, and what the controller asked of it.
struct Cluster {
    server: ApiServer,
    calls: Arc<Recorder>,
    web: Arc<Web>,
    start: Instant,
}

struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), Ended>>,
}

type Before = Box<dyn Fn(&Call) -> Fault + Send + Sync>;
type OnEvent = Box<dyn Fn(&Call, &Change) -> WatchFault + Send + Sync>;

/// A web server whose every answer takes a second and says what the test wants.
#[derive(Default)]
struct Web {
    answer: Mutex<Value>,
    asked: Mutex<Vec<String>>,
}

impl Transport for Web {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, HttpError>> {
        Box::pin(async move {
            let token = request.headers.get("token").map(|token| token.to_str().unwrap().to_owned());
            self.asked.lock().unwrap().push(token.unwrap_or_default());
            sleep(Duration::from_secs(1)).await;
            let body = self.answer.lock().unwrap().to_string();
            Ok(Response { status: 200, body: body.into() })
        })
    }
}

/// Notes every call, and lets a test say what goes wrong.
#[derive(Default)]
struct Recorder {
    calls: Mutex<Vec<(Instant, Call)>>,
    before: Mutex<Option<Before>>,
    after: Mutex<Option<Before>>,
    event: Mutex<Option<OnEvent>>,
}

impl Faults for Recorder {
    fn before(&self, call: &Call) -> Fault {
        self.calls.lock().unwrap().push((Instant::now(), call.clone()));
        self.before.lock().unwrap().as_ref().map_or(Fault::None, |fault| fault(call))
    }

    fn after(&self, call: &Call) -> Fault {
        self.after.lock().unwrap().as_ref().map_or(Fault::None, |fault| fault(call))
    }

    fn on_event(&self, call: &Call, change: &Change) -> WatchFault {
        self.event.lock().unwrap().as_ref().map_or(WatchFault::Pass, |fault| fault(call, change))
    }
}

impl Cluster {
    fn new() -> Self {
        Self::with(crd::all().into_iter().map(|(_, crd)| crd))
    }

    fn with(crds: impl IntoIterator<Item = Value>) -> Self {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let clock = Clock::starting_at(Timestamp::from_second(1_790_000_000).unwrap());
        let server = ApiServer::new(clock, 1);
        for crd in crds {
            server.manager("test").create("customresourcedefinitions.apiextensions.k8s.io", "", crd).unwrap();
        }
        let calls = Arc::new(Recorder::default());
        server.set_faults(calls.clone());
        tokio::spawn(pods_follow(server.clone()));
        Self { server, calls, web: Arc::default(), start: Instant::now() }
    }

    fn run(&self, decide: Decide) -> Running {
        self.run_with(decide, Settings::default())
    }

    fn run_with(&self, decide: Decide, settings: Settings) -> Running {
        let (stop, stopped) = oneshot::channel();
        let (client, clock) = (self.server.client("default"), self.server.clock().clone());
        let shutdown = async move {
            let _ = stopped.await;
        };
        let jobs = JobTarget { client: client.clone(), namespace: None, other_cluster: false };
        let providers = Providers::new(self.web.clone(), jobs, clock.clone(), None);
        Running { stop, task: tokio::spawn(run_deciding(client, providers, clock, settings, decide, shutdown)) }
    }

    fn create(&self, resource: &str, object: Value) -> Value {
        (*self.server.manager("test").create(resource, "default", object).unwrap()).clone()
    }

    fn get(&self, resource: &str, name: &str) -> Value {
        (*self.server.manager("test").get(resource, "default", name).unwrap()).clone()
    }

    fn status(&self, rollout: &str) -> Value {
        self.get(ROLLOUTS, rollout)["status"].clone()
    }

    /// The writes to decided objects and what belongs to them, as `verb resource/subresource name`.
    fn writes(&self) -> Vec<String> {
        self.trace(|call| !matches!(call.verb, "get" | "list" | "watch") && call.resource != "events")
    }

    fn trace(&self, wanted: impl Fn(&Call) -> bool) -> Vec<String> {
        let calls = self.calls.calls.lock().unwrap();
        let wanted = calls.iter().filter(|(_, call)| wanted(call));
        wanted
            .map(|(at, call)| {
                let at = at.duration_since(self.start).as_millis();
                format!("{at} {} {}/{} {}", call.verb, call.resource, call.subresource, call.name)
            })
            .collect()
    }

    fn count(&self, verb: &str, resource: &str) -> usize {
        let calls = self.calls.calls.lock().unwrap();
        calls.iter().filter(|(_, call)| call.verb == verb && call.resource == resource).count()
    }

    fn reasons(&self) -> Vec<String> {
        let events = self.server.manager("test").list("events", "default");
        let mut reasons: Vec<(String, String)> = events
            .iter()
            .map(|event| {
                let name = event["metadata"]["name"].as_str().unwrap().to_owned();
                (name, event["reason"].as_str().unwrap().to_owned())
            })
            .collect();
        reasons.sort();
        reasons.into_iter().map(|(_, reason)| reason).collect()
    }
}

impl Running {
    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

/// All pods of a ReplicaSet are there and available as soon as they are asked for.
async fn pods_follow(server: ApiServer) {
    let mut changes = server.subscribe();
    let controllers = server.manager("kube-controller-manager");
    while let Some(change) = changes.next().await {
        if &*change.resource != REPLICA_SETS {
            continue;
        }
        let name = change.object["metadata"]["name"].as_str().unwrap().to_owned();
        let Ok(object) = controllers.get(REPLICA_SETS, "default", &name) else { continue };
        let replicas = object["spec"]["replicas"].clone();
        let status = json!({
            "replicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas,
            "observedGeneration": object["metadata"]["generation"],
        });
        if object["status"]["availableReplicas"] != replicas {
            sleep(Duration::from_millis(200)).await;
            // It may have been deleted meanwhile.
            let _ = controllers.edit_status(REPLICA_SETS, "default", &name, |object| object["status"] = status);
        }
    }
}

fn canary(name: &str) -> Value {
    json!({
        "apiVersion": names::API_VERSION, "kind": "Rollout",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": name}},
            "strategy": {"canary": {"steps": [{"setWeight": 50}, {"pause": {"duration": "30s"}}]}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "web", "image": "web:1"}]},
            },
        },
    })
}

/// What a plan of the deciders below has, beside its actions.
fn plan(world: &World, actions: Vec<Action>, message: String) -> Plan<RolloutStatus> {
    let mut status = world.rollout.status.clone().unwrap_or_default();
    status.message = message;
    Plan { actions, status, events: Vec::new(), wake: None, reason: "as the test says".to_owned() }
}

/// Wants one ReplicaSet with the Rollout's name and size.
fn one_replica_set(world: &World) -> Plan<RolloutStatus> {
    let metadata = &world.rollout.metadata;
    let name = metadata.name.clone().unwrap();
    let object = ObjectRef::new(REPLICA_SET, "default", &name);
    let wanted = world.rollout.spec.desired_replicas();
    let failures: Vec<String> = world.failures.iter().map(|failure| failure.error.clone()).collect();
    let Some(replica_set) = world.replica_sets.iter().find(|replica_set| replica_set.name == name) else {
        let labels = json!({"app": name, names::POD_TEMPLATE_HASH: "hash"});
        let body = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": name, "namespace": "default", "labels": labels, "ownerReferences": [{
                "apiVersion": names::API_VERSION, "kind": "Rollout", "name": name, "uid": metadata.uid,
                "controller": true, "blockOwnerDeletion": true,
            }]},
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}},
            },
        });
        return plan(world, vec![Action::Create { object, body }], format!("creating {failures:?}"));
    };
    if replica_set.replicas != wanted {
        let basis = Basis { object, uid: replica_set.uid.clone(), resource_version: None };
        let scale = Action::Scale {
            replica_set: basis,
            from: replica_set.replicas,
            to: wanted,
            annotations: BTreeMap::from([(names::DESIRED_REPLICAS.to_owned(), Some(wanted.to_string()))]),
        };
        return plan(world, vec![scale], format!("scaling {failures:?}"));
    }
    let abort = world.rollout.status.as_ref().is_some_and(|status| status.abort);
    let mut plan = plan(world, Vec::new(), format!("{} available, abort: {abort}", replica_set.status.available));
    if world.rollout.status.as_ref().is_some_and(|status| status.message != plan.status.message) {
        plan.events.push(Event::normal("Scaled", plan.status.message.clone()));
    }
    plan
}

#[tokio::test(start_paused = true)]
async fn a_rollout_becomes_healthy_and_then_nothing_is_written() {
    let cluster = Cluster::new();
    let running = cluster.run(rollout::decide);
    sleep(Duration::from_secs(1)).await;
    cluster.create(ROLLOUTS, canary("web"));
    sleep(Duration::from_secs(30)).await;
    let status = cluster.status("web");
    assert_eq!(status["phase"], "Healthy", "{status:#}\n{:#?}", cluster.writes());
    assert_eq!((&status["availableReplicas"], &status["replicas"]), (&json!(2), &json!(2)));

    let mut updated = canary("web");
    updated["spec"]["template"]["spec"]["containers"][0]["image"] = "web:2".into();
    let patch = Patch::Merge(json!({"spec": {"template": updated["spec"]["template"]}}));
    cluster.server.manager("test").patch(ROLLOUTS, "default", "web", &patch).unwrap();
    sleep(Duration::from_secs(15)).await;
    assert_eq!(cluster.status("web")["phase"], "Paused", "{:#}", cluster.status("web"));
    sleep(Duration::from_secs(60)).await;
    let status = cluster.status("web");
    assert_eq!(status["phase"], "Healthy", "{status:#}\n{:#?}", cluster.writes());

    sleep(Duration::from_secs(60)).await;
    let before = cluster.writes().len();
    sleep(Duration::from_secs(600)).await;
    assert_eq!(cluster.writes().len(), before, "{:#?}", cluster.writes());
    assert_eq!(cluster.reasons()[0], "RolloutAddedToInformer");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn pods_that_come_and_go_in_a_row_are_told_of_together() {
    let cluster = Cluster::new();
    let running = cluster.run(rollout::decide);
    sleep(Duration::from_secs(1)).await;
    let mut rollout = canary("web");
    rollout["spec"]["replicas"] = 20.into();
    cluster.create(ROLLOUTS, rollout);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(cluster.status("web")["phase"], "Healthy");

    let replica_set = format!("web-{}", cluster.status("web")["stableRS"].as_str().unwrap());
    let kubelets = cluster.server.manager("kube-controller-manager");
    let before = cluster.count("patch", ROLLOUTS);
    for ready in (10..20).chain((10..20).rev()) {
        sleep(Duration::from_millis(100)).await;
        let edit = |object: &mut Value| object["status"]["readyReplicas"] = ready.into();
        kubelets.edit_status(REPLICA_SETS, "default", &replica_set, edit).unwrap();
    }
    sleep(Duration::from_secs(1)).await;
    let writes = cluster.count("patch", ROLLOUTS) - before;
    assert!((4..=6).contains(&writes), "{writes} writes in 2 s of 20 changes");
    assert_eq!(cluster.status("web")["readyReplicas"], 10, "the last is told");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn two_runs_make_the_same_calls_at_the_same_times() {
    async fn run() -> Vec<String> {
        let cluster = Cluster::new();
        let running = cluster.run(rollout::decide);
        for name in ["one", "two", "three"] {
            cluster.create(ROLLOUTS, canary(name));
        }
        sleep(Duration::from_secs(900)).await;
        running.stop().await;
        cluster.trace(|_| true)
    }
    let first = run().await;
    assert!(first.len() > 40, "{first:#?}");
    assert_eq!(first, run().await);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_does_not_decode_stops_no_other() {
    // A definition without a schema lets anything in, as those of old installs do.
    let loose = crd::all().into_iter().map(|(_, mut crd)| {
        let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = json!({
            "type": "object", "properties": {"spec": anything, "status": anything},
        });
        crd
    });
    let cluster = Cluster::with(loose);
    let mut broken = canary("broken");
    broken["spec"]["strategy"]["canary"]["steps"][0]["setWeight"] = "a lot".into();
    cluster.create(ROLLOUTS, broken);
    cluster.create(ROLLOUTS, canary("web"));
    for (name, duration) in [("broken", json!(7)), ("trial", json!("5s"))] {
        let template = json!({"name": "a", "selector": {"matchLabels": {"app": "a"}}, "template": canary("a")["spec"]["template"]});
        let spec = json!({"templates": [template], "duration": duration, "scaleDownDelaySeconds": 1});
        let experiment = json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Experiment", "metadata": {"name": name}, "spec": spec,
        });
        cluster.create(EXPERIMENTS, experiment);
    }
    let running = cluster.run(rollout::decide);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(cluster.status("web")["phase"], "Healthy");
    assert_eq!(cluster.get(EXPERIMENTS, "trial")["status"]["phase"], "Successful");
    let condition = &cluster.get(EXPERIMENTS, "broken")["status"]["conditions"][0];
    let message = condition["message"].as_str().unwrap();
    let expected = "The Experiment \"broken\" is invalid: spec.duration: Invalid value: 7";
    assert!(message.starts_with(expected) && condition["type"] == "InvalidSpec", "{condition}");
    let status = cluster.status("broken");
    assert_eq!(status["phase"], "Degraded");
    assert_eq!(status["conditions"][0]["type"], "InvalidSpec");
    let message = status["message"].as_str().unwrap();
    let expected = "InvalidSpec: The Rollout \"broken\" is invalid: spec.strategy.canary.steps[0].setWeight: Invalid value: \"a lot\"";
    assert!(message.starts_with(expected), "{message}");
    let before = cluster.writes().len();
    sleep(Duration::from_secs(600)).await;
    assert_eq!(cluster.writes().len(), before, "it is said once");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_cut_and_expired_watch_misses_nothing() {
    let cluster = Cluster::new();
    let running = cluster.run(one_replica_set);
    cluster.create(ROLLOUTS, canary("one"));
    sleep(Duration::from_secs(5)).await;
    assert_eq!(cluster.status("one")["message"], "2 available, abort: false");
    // Every watch ends at its next event, no new one is let in, and the server forgets what happened meanwhile.
    *cluster.calls.event.lock().unwrap() = Some(Box::new(|_, _| WatchFault::End));
    *cluster.calls.before.lock().unwrap() =
        Some(Box::new(|call| if call.verb == "watch" { Fault::Break } else { Fault::None }));
    cluster.create(ROLLOUTS, canary("two"));
    let delete = Default::default();
    cluster.server.manager("test").delete(ROLLOUTS, "default", "one", &delete).unwrap();
    sleep(Duration::from_secs(1)).await;
    cluster.server.forget_history();
    *cluster.calls.event.lock().unwrap() = None;
    *cluster.calls.before.lock().unwrap() = None;
    sleep(Duration::from_secs(30)).await;
    assert_eq!(cluster.status("two")["message"], "2 available, abort: false");
    assert!(cluster.reasons().contains(&"RolloutDeleted".to_owned()), "{:?}", cluster.reasons());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_done_twice_on_a_cache_that_lags() {
    let cluster = Cluster::new();
    *cluster.calls.event.lock().unwrap() = Some(Box::new(|call, _| {
        let lags = call.resource == REPLICA_SETS;
        if lags { WatchFault::Delay(Duration::from_secs(3)) } else { WatchFault::Pass }
    }));
    let running = cluster.run(one_replica_set);
    cluster.create(ROLLOUTS, canary("web"));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.status("web")["message"], "2 available, abort: false");
    assert_eq!((cluster.count("create", REPLICA_SETS), cluster.count("patch", REPLICA_SETS)), (1, 1));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_loses_an_event_is_overtaken_by_a_live_read() {
    let cluster = Cluster::new();
    *cluster.calls.event.lock().unwrap() =
        Some(Box::new(|call, _| if call.resource == REPLICA_SETS { WatchFault::Drop } else { WatchFault::Pass }));
    let running = cluster.run(one_replica_set);
    cluster.create(ROLLOUTS, canary("web"));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.get(REPLICA_SETS, "web")["spec"]["replicas"], 2);
    assert_eq!((cluster.count("create", REPLICA_SETS), cluster.count("patch", REPLICA_SETS)), (1, 1));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nobodys_abort_is_overwritten() {
    let cluster = Cluster::new();
    let server = cluster.server.clone();
    let done = AtomicBool::new(false);
    // A user aborts after the decision, right before the status is written.
    *cluster.calls.before.lock().unwrap() = Some(Box::new(move |call| {
        if call.subresource == "status" && !done.swap(true, Ordering::Relaxed) {
            let abort = Patch::Merge(json!({"status": {"abort": true}}));
            server.manager("user").patch_status(ROLLOUTS, "default", "web", &abort).unwrap();
        }
        Fault::None
    }));
    let running = cluster.run(one_replica_set);
    cluster.create(ROLLOUTS, canary("web"));
    sleep(Duration::from_secs(5)).await;
    let status = cluster.status("web");
    assert_eq!(status["abort"], true);
    assert_eq!(status["message"], "2 available, abort: true");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_exists_already_is_ours_or_a_failure() {
    let cluster = Cluster::new();
    let labels = json!({"app": "other", names::POD_TEMPLATE_HASH: "hash"});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}});
    cluster.create(
        REPLICA_SETS,
        json!({
            "metadata": {"name": "web", "labels": labels},
            "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": template},
        }),
    );
    let running = cluster.run(one_replica_set);
    cluster.create(ROLLOUTS, canary("web"));
    sleep(Duration::from_secs(1)).await;
    let message = cluster.status("web")["message"].as_str().unwrap().to_owned();
    assert!(message.contains("already exists") && message.contains("the existing one has no owner"), "{message}");
    sleep(Duration::from_secs(600)).await;
    let tries = cluster.count("create", REPLICA_SETS);
    assert!((10..30).contains(&tries), "backs off to once a minute: {tries}");
    assert!(cluster.count("patch", ROLLOUTS) <= 2, "{:#?}", cluster.writes());

    // The cause goes away: within a minute all is well.
    cluster.server.manager("test").delete(REPLICA_SETS, "default", "web", &Default::default()).unwrap();
    sleep(Duration::from_secs(90)).await;
    assert_eq!(cluster.status("web")["message"], "2 available, abort: false");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_404_that_passes_does_not_keep_later_statuses_from_being_written() {
    let cluster = Cluster::new();
    let gone = cluster.server.manager("test").get(ROLLOUTS, "default", "nobody").unwrap_err();
    let once = Mutex::new(Some(gone));
    *cluster.calls.before.lock().unwrap() = Some(Box::new(move |call| {
        let status = call.verb == "patch" && call.subresource == "status";
        once.lock().unwrap().take_if(|_| status).map_or(Fault::None, Fault::Refuse)
    }));
    let running = cluster.run(one_replica_set);
    cluster.create(ROLLOUTS, canary("web"));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.status("web")["message"], "2 available, abort: false");
    let before = cluster.writes().len();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.writes().len(), before, "and nothing is written again and again");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_answer_is_lost_is_not_made_again() {
    for verb in ["create", "patch"] {
        let cluster = Cluster::new();
        let done = AtomicBool::new(false);
        *cluster.calls.after.lock().unwrap() = Some(Box::new(move |call| {
            let lose = call.verb == verb && call.resource == REPLICA_SETS && !done.swap(true, Ordering::Relaxed);
            if lose { Fault::Break } else { Fault::None }
        }));
        // The watch is too late to tell.
        *cluster.calls.event.lock().unwrap() = Some(Box::new(|call, _| {
            let lags = call.resource == REPLICA_SETS;
            if lags { WatchFault::Delay(Duration::from_secs(5)) } else { WatchFault::Pass }
        }));
        let running = cluster.run(one_replica_set);
        cluster.create(ROLLOUTS, canary("web"));
        sleep(Duration::from_secs(60)).await;
        assert_eq!(cluster.status("web")["message"], "2 available, abort: false", "{verb}");
        let counts = (cluster.count("create", REPLICA_SETS), cluster.count("patch", REPLICA_SETS));
        assert_eq!(counts, (1, 1), "{verb}: {:#?}", cluster.writes());
        running.stop().await;
    }
}

/// A plan that reads several objects live would never get through a server that refuses every other call.
#[tokio::test(start_paused = true)]
async fn what_broke_is_read_again_and_not_written_again() {
    for verb in ["get", "patch"] {
        let cluster = Cluster::new();
        cluster.create(ROLLOUTS, canary("web"));
        let left = AtomicU32::new(2);
        *cluster.calls.before.lock().unwrap() = Some(Box::new(move |call| {
            let refuses = call.verb == verb && call.resource == ROLLOUTS;
            let refuses = refuses && left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
            if refuses { Fault::Refuse(unavailable()) } else { Fault::None }
        }));
        let limiter = Arc::new(Limiter::new(0.0, 1));
        let client = cluster.server.client("default");
        let api = Api::new(client, limiter, Duration::from_secs(10), Arc::new(Telemetry::new()));
        let object = ObjectRef::new(ROLLOUT, "default", "web");
        if verb == "get" {
            assert_eq!(api.read_metadata(&object).await.unwrap().name, "web");
            assert_eq!(cluster.count("get", ROLLOUTS), 3);
        } else {
            let patch = json!({"spec": {"replicas": 3}});
            let error = api.patch(&object, "", PatchKind::Merge, &patch).await.unwrap_err();
            assert!(matches!(error, CallError::Unanswered(_)), "{error:?}");
            assert_eq!(cluster.count("patch", ROLLOUTS), 1);
        }
    }
}

fn unavailable() -> Refusal {
    let message = "refused by the test";
    let status = json!({"status": "Failure", "code": 503, "reason": "ServiceUnavailable", "message": message});
    serde_json::from_value(status).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_never_answered_ends_and_holds_up_nobody() {
    let cluster = Cluster::new();
    *cluster.calls.before.lock().unwrap() =
        Some(Box::new(|call| if call.verb == "create" && call.name == "stuck" { Fault::Hang } else { Fault::None }));
    let running = cluster.run(one_replica_set);
    cluster.create(ROLLOUTS, canary("stuck"));
    cluster.create(ROLLOUTS, canary("web"));
    sleep(Duration::from_secs(5)).await;
    assert_eq!(cluster.status("web")["message"], "2 available, abort: false");
    *cluster.calls.before.lock().unwrap() = None;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.status("stuck")["message"], "2 available, abort: false");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_is_measured_and_judged_and_its_secret_goes_nowhere_else() {
    let cluster = Cluster::new();
    *cluster.web.answer.lock().unwrap() = json!({"errors": 0.5, "echo": "s3cret"});
    let secret = json!({"metadata": {"name": "api"}, "stringData": {"token": "s3cret"}});
    cluster.create("secrets", secret);
    cluster.create(
        "analysisruns.argoproj.io",
        json!({
            "metadata": {"name": "errors"},
            "spec": {
                "args": [{"name": "token", "valueFrom": {"secretKeyRef": {"name": "api", "key": "token"}}}],
                "metrics": [{
                    "name": "errors", "interval": "5s", "count": 3, "successCondition": "result.errors < 1",
                    "provider": {"web": {
                        "url": "http://errors.example/", "headers": [{"key": "token", "value": "{{args.token}}"}],
                    }},
                }],
            },
        }),
    );
    let running = cluster.run(one_replica_set);
    sleep(Duration::from_secs(60)).await;
    let run = cluster.get("analysisruns.argoproj.io", "errors");
    assert_eq!(run["status"]["phase"], "Successful", "{run:#}");
    assert_eq!(run["status"]["metricResults"][0]["successful"], 3);
    assert_eq!(*cluster.web.asked.lock().unwrap(), ["s3cret"; 3]);
    assert!(!run.to_string().contains("s3cret"), "{run:#}");
    let starts: Vec<&str> = run["status"]["metricResults"][0]["measurements"]
        .as_array()
        .unwrap()
        .iter()
        .map(|measurement| measurement["startedAt"].as_str().unwrap())
        .collect();
    assert_eq!(starts.len(), 3, "{starts:?}");
    let before = cluster.writes().len();
    sleep(Duration::from_secs(600)).await;
    assert_eq!(cluster.writes().len(), before);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_answer_aborts_the_update() {
    let cluster = Cluster::new();
    *cluster.web.answer.lock().unwrap() = json!({"errors": 9});
    cluster.create(
        "analysistemplates.argoproj.io",
        json!({
            "metadata": {"name": "errors"},
            "spec": {"metrics": [{
                "name": "errors", "interval": "5s", "failureCondition": "result.errors > 1",
                "provider": {"web": {"url": "http://errors.example/"}},
            }]},
        }),
    );
    let running = cluster.run(rollout::decide);
    let mut rollout = canary("web");
    rollout["spec"]["strategy"]["canary"]["analysis"] = json!({"templates": [{"templateName": "errors"}]});
    cluster.create(ROLLOUTS, rollout.clone());
    sleep(Duration::from_secs(20)).await;
    assert_eq!(cluster.status("web")["phase"], "Healthy", "{:#}", cluster.status("web"));
    rollout["spec"]["template"]["spec"]["containers"][0]["image"] = "web:2".into();
    let patch = Patch::Merge(json!({"spec": {"template": rollout["spec"]["template"]}}));
    cluster.server.manager("test").patch(ROLLOUTS, "default", "web", &patch).unwrap();
    sleep(Duration::from_secs(60)).await;
    let status = cluster.status("web");
    assert_eq!((&status["abort"], &status["phase"]), (&json!(true), &json!("Degraded")), "{status:#}");
    assert!(cluster.reasons().contains(&"AnalysisRunFailed".to_owned()), "{:?}", cluster.reasons());
    running.stop().await;
}

fn candidate(server: &ApiServer, identity: &str) -> Candidate {
    let election = Election {
        namespace: "default".to_owned(),
        identity: identity.to_owned(),
        lease_duration: Duration::from_secs(15),
        renew_deadline: Duration::from_secs(10),
        retry_period: Duration::from_secs(2),
    };
    let limiter = Arc::new(Limiter::new(0.0, 1));
    let api = Api::new(server.client("default"), limiter, Duration::from_secs(10), Arc::new(Telemetry::new()));
    let seed = identity.len() as u64;
    Candidate::new(&api, server.clock().clone(), election, "", seed)
}

#[tokio::test(start_paused = true)]
async fn a_silent_leader_is_replaced_and_not_before_its_lease_has_ended() {
    let cluster = Cluster::new();
    let mut one = candidate(&cluster.server, "one");
    one.acquire().await;
    let keeping = tokio::spawn(async move { one.keep().await });
    let mut two = candidate(&cluster.server, "second");
    assert!(tokio::time::timeout(Duration::from_secs(120), two.acquire()).await.is_err(), "the first one renews");
    keeping.abort();
    let silent = Instant::now();
    two.acquire().await;
    let waited = silent.elapsed();
    assert!(waited >= Duration::from_secs(13) && waited < Duration::from_secs(20), "{waited:?}");
    let lease = cluster.get("leases.coordination.k8s.io", "argo-rollouts-controller-lock");
    assert_eq!(lease["spec"]["holderIdentity"], "second");
    assert_eq!(lease["spec"]["leaseTransitions"], 1);

    two.release().await;
    let freed = Instant::now();
    candidate(&cluster.server, "third!").acquire().await;
    assert!(freed.elapsed() < Duration::from_secs(1), "a released lease is free at once");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stops_before_another_one_may_begin() {
    let cluster = Cluster::new();
    let mut one = candidate(&cluster.server, "one");
    one.acquire().await;
    let renewed = Instant::now();
    *cluster.calls.before.lock().unwrap() = Some(Box::new(|_| Fault::Hang));
    assert_eq!(one.keep().await, Lost);
    let held = renewed.elapsed();
    assert!(held >= Duration::from_secs(9) && held < Duration::from_secs(13), "{held:?}");
}

#[tokio::test(start_paused = true)]
async fn only_the_leader_acts_and_a_stopped_one_hands_over() {
    let cluster = Cluster::new();
    let settings = |identity: &str| Settings {
        election: Some(Election {
            namespace: "default".to_owned(),
            identity: identity.to_owned(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }),
        ..Settings::default()
    };
    let first = cluster.run_with(one_replica_set, settings("first"));
    sleep(Duration::from_secs(1)).await;
    let second = cluster.run_with(one_replica_set, settings("second"));
    cluster.create(ROLLOUTS, canary("one"));
    sleep(Duration::from_secs(30)).await;
    assert_eq!(cluster.count("create", REPLICA_SETS), 1);
    first.stop().await;
    cluster.create(ROLLOUTS, canary("two"));
    sleep(Duration::from_secs(7)).await;
    assert_eq!(cluster.status("two")["message"], "2 available, abort: false");
    second.stop().await;
}
