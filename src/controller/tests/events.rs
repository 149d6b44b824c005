//! Events are told once each, when what they tell of has happened, whatever becomes of a write.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;

use kube::core::Status;

use super::*;

/// What becomes of one write.
#[derive(Clone, Copy, Debug)]
enum Mishap {
    /// Somebody else has changed the object.
    Conflict,
    /// A quota or a webhook says no.
    Refused,
    /// The connection breaks before the server has seen it.
    NotSent,
    /// It breaks afterwards.
    AnswerLost,
}

/// Those that leave the most open, for the long lives.
const TRICKY: [Mishap; 2] = [Mishap::Conflict, Mishap::AnswerLost];
const ALL: [Mishap; 4] = [Mishap::Conflict, Mishap::Refused, Mishap::NotSent, Mishap::AnswerLost];

/// What tells of a mishap itself.
const TROUBLE: [&str; 3] = ["ReplicaSetCreateError", "ReplicaSetUpdateError", "ReconciliationError"];

/// Everything that is told of a life with one mishap, how often each, and how many writes there were.
async fn told(
    life: fn(&Cluster) -> BoxFuture<'_, ()>,
    mishap: Option<(usize, Mishap)>,
) -> (BTreeMap<String, i64>, Vec<String>) {
    let cluster = Cluster::new();
    *cluster.web.answer.lock().unwrap() = json!({"errors": 0});
    let is_write = |call: &Call| !matches!(call.verb, "get" | "list" | "watch") && call.resource != "events";
    if let Some((number, mishap)) = mishap {
        // Whether it is the one: writes come in the same order before and after.
        let counted = || {
            let count = AtomicUsize::new(0);
            move |call: &Call| is_write(call) && count.fetch_add(1, Ordering::Relaxed) == number
        };
        let (before, after) = (counted(), counted());
        let refuse = |code: u16, reason: &str, message: &str| {
            Fault::Refuse(Box::new(Status::failure(message, reason).with_code(code)))
        };
        *cluster.calls.before.lock().unwrap() = Some(Box::new(move |call| match mishap {
            _ if !before(call) => Fault::None,
            Mishap::Conflict => refuse(409, "Conflict", "the object has been modified"),
            Mishap::Refused => refuse(403, "Forbidden", "exceeded quota"),
            Mishap::NotSent => Fault::Break,
            Mishap::AnswerLost => Fault::None,
        }));
        *cluster.calls.after.lock().unwrap() = Some(Box::new(move |call| match mishap {
            Mishap::AnswerLost if after(call) => Fault::Break,
            _ => Fault::None,
        }));
    }
    let running = cluster.run(rollout::decide);
    life(&cluster).await;
    let mut told = BTreeMap::new();
    for event in cluster.server.manager("test").list("events", "default") {
        let (reason, message) = (event["reason"].as_str().unwrap(), event["message"].as_str().unwrap());
        let about = event["involvedObject"]["kind"].as_str().unwrap();
        *told.entry(format!("{about} {reason}: {message}")).or_default() += event["count"].as_i64().unwrap();
    }
    running.stop().await;
    let writes = cluster.trace(is_write);
    (told, writes)
}

async fn every_mishap(life: fn(&Cluster) -> BoxFuture<'_, ()>, mishaps: &[Mishap]) {
    let (expected, writes) = told(life, None).await;
    assert!(writes.len() > 12, "{writes:#?}");
    let mut wrong = Vec::new();
    for (number, write) in writes.iter().enumerate() {
        for mishap in mishaps.iter().copied() {
            let (mut told, _) = told(life, Some((number, mishap))).await;
            told.retain(|event, _| !TROUBLE.iter().any(|reason| event.contains(reason)));
            let more = told.iter().filter(|(event, count)| expected.get(*event) != Some(count));
            let less = expected.iter().filter(|(event, _)| !told.contains_key(*event));
            let more = more.map(|(event, count)| format!("  told {count} times: {event}"));
            let difference: Vec<_> = more.chain(less.map(|(event, _)| format!("  not told: {event}"))).collect();
            if !difference.is_empty() {
                wrong.push(format!("{mishap:?} at {write}:\n{}", difference.join("\n")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn release(cluster: &Cluster, image: &str) {
    let patch = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": image}]);
    let patch = Patch::Json(serde_json::from_value(patch).unwrap());
    cluster.server.manager("test").patch(ROLLOUTS, "default", "web", &patch).unwrap();
}

fn edit_status(cluster: &Cluster, status: Value) {
    let patch = Patch::Merge(json!({"status": status}));
    cluster.server.manager("test").patch_status(ROLLOUTS, "default", "web", &patch).unwrap();
}

fn life_of_a_canary(cluster: &Cluster) -> BoxFuture<'_, ()> {
    Box::pin(async move {
        let template = json!({"metadata": {"name": "errors"}, "spec": {"metrics": [{
            "name": "errors", "successCondition": "result.errors < 1",
            "provider": {"web": {"url": "http://errors.example/"}},
        }]}});
        cluster.create("analysistemplates.argoproj.io", template);
        let mut rollout = canary("web");
        rollout["spec"]["strategy"]["canary"]["steps"] =
            json!([{"setWeight": 50}, {"analysis": {"templates": [{"templateName": "errors"}]}}, {"pause": {}}]);
        cluster.create(ROLLOUTS, rollout);
        sleep(Duration::from_secs(100)).await;
        release(cluster, "web:2");
        sleep(Duration::from_secs(200)).await;
        edit_status(cluster, json!({"abort": true}));
        sleep(Duration::from_secs(100)).await;
        edit_status(cluster, json!({"abort": false}));
        sleep(Duration::from_secs(200)).await;
        edit_status(cluster, json!({"pauseConditions": null}));
        sleep(Duration::from_secs(200)).await;
        assert_eq!(cluster.status("web")["phase"], "Healthy", "{:#}", cluster.status("web"));
    })
}

fn life_of_a_blue_green(cluster: &Cluster) -> BoxFuture<'_, ()> {
    Box::pin(async move {
        for name in ["active", "preview"] {
            let service =
                json!({"metadata": {"name": name}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
            cluster.create("services", service);
        }
        let mut rollout = canary("web");
        rollout["spec"]["strategy"] =
            json!({"blueGreen": {"activeService": "active", "previewService": "preview", "autoPromotionSeconds": 10}});
        cluster.create(ROLLOUTS, rollout);
        sleep(Duration::from_secs(100)).await;
        release(cluster, "web:2");
        sleep(Duration::from_secs(200)).await;
        assert_eq!(cluster.status("web")["phase"], "Healthy", "{:#}", cluster.status("web"));
    })
}

fn life_of_an_experiment(cluster: &Cluster) -> BoxFuture<'_, ()> {
    Box::pin(async move {
        let mut rollout = canary("web");
        rollout["spec"]["strategy"]["canary"]["steps"] = json!([
            {"experiment": {"duration": "20s", "templates": [{"name": "trial", "specRef": "canary", "replicas": 1}]}},
        ]);
        cluster.create(ROLLOUTS, rollout);
        sleep(Duration::from_secs(100)).await;
        release(cluster, "web:2");
        sleep(Duration::from_secs(300)).await;
        assert_eq!(cluster.status("web")["phase"], "Healthy", "{:#}", cluster.status("web"));
    })
}

#[tokio::test(start_paused = true)]
async fn a_canary_is_told_once_whatever_becomes_of_a_write() {
    every_mishap(life_of_a_canary, &TRICKY).await;
}

#[tokio::test(start_paused = true)]
async fn a_blue_green_is_told_once_whatever_becomes_of_a_write() {
    every_mishap(life_of_a_blue_green, &ALL).await;
}

#[tokio::test(start_paused = true)]
async fn an_experiment_is_told_once_whatever_becomes_of_a_write() {
    every_mishap(life_of_an_experiment, &TRICKY).await;
}
