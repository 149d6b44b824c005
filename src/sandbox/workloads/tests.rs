//! What users of a cluster see of its ReplicaSets, pods, endpoints and Jobs, in virtual time.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Behaviour, Name};
use crate::clock::Clock;
use crate::sandbox::{Cluster, Op, Patch};

fn cluster() -> Cluster {
    Cluster::builder().seed(1).clock(Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap())).start()
}

fn replica_set(name: &str, replicas: i64, annotations: &Value, spec: &Value) -> Value {
    let mut set = json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}, "annotations": annotations},
                "spec": {"containers": [{"name": "web", "image": "web:v1", "ports": [{"name": "http", "containerPort": 8080}]}]},
            },
        },
    });
    json_patch::merge(&mut set["spec"], spec);
    set
}

fn service(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": "http"}]}})
}

async fn seconds(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

fn status(cluster: &Cluster, set: &str) -> Value {
    cluster.user().get("replicasets.apps", "default", set).unwrap()["status"].clone()
}

fn counts(status: &Value) -> [u64; 3] {
    ["replicas", "readyReplicas", "availableReplicas"].map(|field| status[field].as_u64().unwrap_or(0))
}

/// The ready addresses by Endpoints and by EndpointSlice; both must say the same.
fn ready_addresses(cluster: &Cluster, service: &str) -> usize {
    let endpoints = cluster.user().get("endpoints", "default", service).unwrap();
    let slices = cluster.user().list(super::endpoints::SLICES, "default");
    let slice = slices.iter().find(|slice| slice["metadata"]["labels"][super::endpoints::SERVICE_NAME] == service);
    let in_slice =
        slice.unwrap()["endpoints"].as_array().into_iter().flatten().filter(|it| it["conditions"]["ready"] == true);
    let addresses = endpoints["subsets"][0]["addresses"].as_array().map_or(0, Vec::len);
    assert_eq!(in_slice.count(), addresses, "{endpoints} {slices:?}");
    addresses
}

fn scale(cluster: &Cluster, set: &str, replicas: i64) {
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    cluster.user().patch("replicasets.apps", "default", set, &patch).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_replica_set_gets_its_pods_and_they_become_endpoints() {
    let cluster = cluster();
    let user = cluster.user();
    user.create("services", "default", service("web")).unwrap();
    user.create("replicasets.apps", "default", replica_set("web", 3, &Value::Null, &json!({}))).unwrap();
    seconds(0.5).await;
    assert_eq!(counts(&status(&cluster, "web")), [3, 0, 0]);
    assert_eq!(ready_addresses(&cluster, "web"), 0);
    seconds(1.0).await;
    assert_eq!(
        status(&cluster, "web"),
        json!({"replicas": 3, "fullyLabeledReplicas": 3, "readyReplicas": 3, "availableReplicas": 3, "observedGeneration": 1})
    );
    assert_eq!(ready_addresses(&cluster, "web"), 3);
    let pods = user.list("pods", "default");
    for pod in &pods {
        let name = pod["metadata"]["name"].as_str().unwrap();
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        assert_eq!(pod["metadata"]["ownerReferences"][0]["kind"], "ReplicaSet");
        assert_eq!((&pod["metadata"]["labels"]["app"], &pod["status"]["phase"]), (&json!("web"), &json!("Running")));
    }
    let endpoints = user.get("endpoints", "default", "web").unwrap();
    assert_eq!(endpoints["subsets"][0]["ports"][0]["port"], 8080);
    user.delete("replicasets.apps", "default", "web", &Default::default()).unwrap();
    seconds(5.0).await;
    assert_eq!(user.list("pods", "default").len(), 0, "the garbage is collected and the kubelet lets the pods go");
    assert_eq!(ready_addresses(&cluster, "web"), 0);
}

/// As many writes as kube-controller-manager makes: one for the creation, one for the pods, one for their readiness.
#[tokio::test(start_paused = true)]
async fn a_status_is_written_once_for_pods_that_change_together() {
    let cluster = cluster();
    let mut changes = cluster.server().subscribe();
    let set = replica_set("web", 10, &Value::Null, &json!({}));
    cluster.user().create("replicasets.apps", "default", set).unwrap();
    seconds(10.0).await;
    let mut written = Vec::new();
    while let Some(change) = changes.try_next() {
        if &*change.resource == "replicasets.apps" && change.op == Op::Modified {
            written.push(counts(&change.object["status"]));
        }
    }
    assert_eq!(written, [[0, 0, 0], [10, 0, 0], [10, 10, 10]]);
}

#[tokio::test(start_paused = true)]
async fn pods_behave_as_they_are_told() {
    let annotation = |name: &str, value: &str| json!({format!("sandbox.tidegate.io/{name}"): value});
    // What, the annotations of the pods, seconds, the expected counts then.
    for (what, annotations, wait, expected) in [
        ("slow, before", annotation("ready-after", "20s"), 19.0, [2, 0, 0]),
        ("slow, after", annotation("ready-after", "20s"), 21.0, [2, 2, 2]),
        ("never ready", annotation("never-ready", "true"), 3600.0, [2, 0, 0]),
        ("no image", annotation("image-pull-error", "true"), 3600.0, [2, 0, 0]),
        ("crashing, up", annotation("crash-after", "5s"), 4.0, [2, 2, 2]),
        ("crashing, down", annotation("crash-after", "5s"), 8.0, [2, 0, 0]),
        ("crashing, up again", annotation("crash-after", "5s"), 18.0, [2, 2, 2]),
    ] {
        let cluster = cluster();
        let set = replica_set("web", 2, &annotations, &json!({}));
        cluster.user().create("replicasets.apps", "default", set).unwrap();
        seconds(wait).await;
        assert_eq!(counts(&status(&cluster, "web")), expected, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_ready_pod_is_available_after_min_ready_seconds() {
    let cluster = cluster();
    let set = replica_set("web", 2, &Value::Null, &json!({"minReadySeconds": 10}));
    cluster.user().create("replicasets.apps", "default", set).unwrap();
    seconds(10.5).await;
    assert_eq!(counts(&status(&cluster, "web")), [2, 2, 0]);
    seconds(1.0).await;
    assert_eq!(counts(&status(&cluster, "web")), [2, 2, 2]);
}

#[tokio::test(start_paused = true)]
async fn what_serves_least_goes_first() {
    let cluster = cluster();
    cluster.user().create("replicasets.apps", "default", replica_set("web", 2, &Value::Null, &json!({}))).unwrap();
    seconds(60.0).await;
    let old: Vec<Name> = cluster.user().list("pods", "default").iter().map(|pod| Name::of(pod)).collect();
    scale(&cluster, "web", 4);
    seconds(60.0).await;
    scale(&cluster, "web", 5);
    seconds(0.5).await;
    // One is not ready, two are younger.
    scale(&cluster, "web", 2);
    seconds(60.0).await;
    let left: Vec<Name> = cluster.user().list("pods", "default").iter().map(|pod| Name::of(pod)).collect();
    assert_eq!(left, old);
}

#[tokio::test(start_paused = true)]
async fn readiness_gates_hold_a_pod_back() {
    let cluster = cluster();
    let gate = json!({"template": {"spec": {"readinessGates": [{"conditionType": "example.com/in"}]}}});
    cluster.user().create("replicasets.apps", "default", replica_set("web", 1, &Value::Null, &gate)).unwrap();
    seconds(10.0).await;
    assert_eq!(counts(&status(&cluster, "web")), [1, 0, 0]);
    let pod = Name::of(&cluster.user().list("pods", "default")[0]);
    let open = |pod: &mut Value| {
        let conditions = pod["status"]["conditions"].as_array_mut().unwrap();
        conditions.push(json!({"type": "example.com/in", "status": "True"}));
    };
    cluster.user().edit_status("pods", "default", &pod.name, open).unwrap();
    seconds(1.0).await;
    assert_eq!(counts(&status(&cluster, "web")), [1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_quota_stops_pods_and_says_so() {
    let cluster = cluster();
    cluster.set_quota("default", Some(2));
    cluster.user().create("replicasets.apps", "default", replica_set("web", 3, &Value::Null, &json!({}))).unwrap();
    seconds(5.0).await;
    let stuck = status(&cluster, "web");
    assert_eq!(counts(&stuck), [2, 2, 2]);
    assert_eq!(stuck["conditions"][0]["type"], "ReplicaFailure");
    assert_eq!(stuck["conditions"][0]["reason"], "FailedCreate");
    let message = stuck["conditions"][0]["message"].as_str().unwrap();
    assert!(message.contains("exceeded quota") && message.contains("used: pods=2, limited: pods=2"), "{message}");
    cluster.set_quota("default", None);
    seconds(90.0).await;
    let free = status(&cluster, "web");
    assert_eq!((counts(&free), &free["conditions"]), ([3, 3, 3], &Value::Null));
}

#[tokio::test(start_paused = true)]
async fn a_controller_of_replica_sets_that_is_behind_reports_pods_that_it_has_just_deleted() {
    let cluster = cluster();
    cluster.user().create("replicasets.apps", "default", replica_set("web", 3, &Value::Null, &json!({}))).unwrap();
    seconds(5.0).await;
    cluster.set_replica_sets_behind(Duration::from_secs(1));
    scale(&cluster, "web", 2);
    seconds(0.5).await;
    assert_eq!((counts(&status(&cluster, "web")), pods(&cluster)), ([3, 3, 3], 3), "it has not heard of it");
    seconds(1.0).await;
    let before = status(&cluster, "web");
    assert_eq!((counts(&before), pods(&cluster)), ([3, 3, 3], 2), "counted before one was deleted");
    scale(&cluster, "web", 3);
    assert!(status(&cluster, "web")["observedGeneration"].as_i64() < Some(3));
    cluster.set_replica_sets_behind(Duration::ZERO);
    seconds(5.0).await;
    assert_eq!((counts(&status(&cluster, "web")), pods(&cluster)), ([3, 3, 3], 3));
}

/// The pods that are not about to go.
fn pods(cluster: &Cluster) -> usize {
    let pods = cluster.user().list("pods", "default");
    pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).count()
}

#[tokio::test(start_paused = true)]
async fn evicted_pods_and_pods_of_lost_nodes_are_missed() {
    let cluster = cluster();
    cluster.user().create("services", "default", service("web")).unwrap();
    cluster.user().create("replicasets.apps", "default", replica_set("web", 3, &Value::Null, &json!({}))).unwrap();
    seconds(5.0).await;
    let pod = Name::of(&cluster.user().list("pods", "default")[0]);
    cluster.evict("default", &pod.name).unwrap();
    seconds(0.5).await;
    assert_eq!(ready_addresses(&cluster, "web"), 2);
    seconds(5.0).await;
    assert_eq!(ready_addresses(&cluster, "web"), 3);
    cluster.set_node("node-2", false);
    seconds(0.5).await;
    let ready = ready_addresses(&cluster, "web");
    assert!(ready < 3, "{ready}");
    cluster.set_node("node-2", true);
    seconds(5.0).await;
    assert_eq!(ready_addresses(&cluster, "web"), 3);
}

#[tokio::test(start_paused = true)]
async fn an_image_can_turn_bad_and_good_while_it_runs() {
    let cluster = cluster();
    cluster.user().create("replicasets.apps", "default", replica_set("web", 2, &Value::Null, &json!({}))).unwrap();
    seconds(5.0).await;
    cluster.set_image("v1", Behaviour { never_ready: true, ..cluster.default_behaviour() });
    seconds(1.0).await;
    assert_eq!(counts(&status(&cluster, "web")), [2, 0, 0]);
    cluster.set_image("v1", cluster.default_behaviour());
    seconds(1.0).await;
    assert_eq!(counts(&status(&cluster, "web")), [2, 2, 2]);
}

#[tokio::test(start_paused = true)]
async fn jobs_run_and_succeed_or_fail() {
    let annotation = |name: &str, value: &str| json!({format!("sandbox.tidegate.io/{name}"): value});
    // What, the annotations of the pods, more of the spec, seconds, the conditions then, the pods that were made.
    for (what, annotations, spec, wait, conditions, pods) in [
        ("running", annotation("run-for", "30s"), json!({}), 29.0, "", 1),
        ("complete", annotation("run-for", "30s"), json!({}), 31.0, "SuccessCriteriaMet,Complete", 1),
        ("failed", annotation("exit-code", "1"), json!({"backoffLimit": 0}), 5.0, "FailureTarget,Failed", 1),
        ("retried", annotation("exit-code", "1"), json!({"backoffLimit": 1}), 5.0, "", 1),
        ("retried, failed", annotation("exit-code", "1"), json!({"backoffLimit": 1}), 15.0, "FailureTarget,Failed", 2),
        ("late", annotation("run-for", "1h"), json!({"activeDeadlineSeconds": 20}), 25.0, "FailureTarget,Failed", 0),
        ("no image", annotation("image-pull-error", "true"), json!({}), 25.0, "", 1),
    ] {
        let cluster = cluster();
        let template = json!({
            "metadata": {"annotations": annotations},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "check", "image": "check:v1"}]},
        });
        let mut job = json!({"metadata": {"name": "check"}, "spec": {"template": template}});
        json_patch::merge(&mut job["spec"], &spec);
        cluster.user().create("jobs.batch", "default", job).unwrap();
        seconds(wait).await;
        let job = cluster.user().get("jobs.batch", "default", "check").unwrap();
        let types = job["status"]["conditions"].as_array().into_iter().flatten().map(|it| it["type"].as_str().unwrap());
        assert_eq!(types.collect::<Vec<_>>().join(","), conditions, "{what}: {}", job["status"]);
        assert_eq!(cluster.user().list("pods", "default").len(), pods, "{what}");
    }
}

/// Every change of every object in one run, as text.
async fn trace(seed: u64) -> String {
    let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
    let cluster = Cluster::builder().seed(seed).clock(clock).start();
    let mut changes = cluster.server().subscribe();
    cluster.user().create("services", "default", service("web")).unwrap();
    let set = replica_set("web", 5, &json!({"sandbox.tidegate.io/crash-after": "40s"}), &json!({}));
    cluster.user().create("replicasets.apps", "default", set).unwrap();
    for replicas in [7, 2, 4] {
        seconds(30.0).await;
        scale(&cluster, "web", replicas);
    }
    seconds(300.0).await;
    let mut trace = String::new();
    while let Some(change) = changes.try_next() {
        trace.push_str(&format!("{} {:?} {} {}\n", change.revision, change.op, change.resource, change.object));
    }
    trace
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let run = |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(trace(seed))
    };
    let first = run(3);
    assert!(first.lines().count() > 50, "{first}");
    assert!(first == run(3), "two runs with the same seed differ");
    assert!(first != run(4), "the seed makes no difference");
}
