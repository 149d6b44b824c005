//! Pictures as text, in `pictures/`: `UPDATE_PICTURES=1 cargo test --lib cli::tree` draws them anew, and then they are to be
//! looked at.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-01T00:10:00Z";

fn style() -> Style {
    Style { color: false, now: NOW.parse().unwrap(), width: None }
}

#[track_caller]
fn looks(name: &str, root: &Root, objects: &Objects, style: Style) {
    let drawn = draw(root, objects, style);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/cli/tree/pictures/{name}.txt"));
    if std::env::var_os("UPDATE_PICTURES").is_some() {
        std::fs::write(&path, &drawn).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert!(drawn == expected, "{name} looks different:\n{drawn}");
}

fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// Metadata with an owner, created at the given minute and second after midnight.
fn meta(name: &str, owner: &str, created: &str, extra: Value) -> Value {
    let mut meta = json!({
        "name": name, "namespace": "shop", "uid": name, "creationTimestamp": format!("2026-01-01T00:{created}Z"),
        "ownerReferences": [{"apiVersion": "x", "kind": "x", "name": "x", "uid": owner, "controller": true}],
    });
    json_patch::merge(&mut meta, &extra);
    meta
}

fn rollout(spec: Value, status: Value) -> Root {
    let extra = json!({"generation": 2, "annotations": {names::REVISION: "2"}});
    let mut status = status;
    status["observedGeneration"] = json!("2");
    Root::Rollout(object(json!({"metadata": meta("web", "-", "00:00", extra), "spec": spec, "status": status})))
}

fn replica_set(hash: &str, revision: &str, replicas: i32, available: i32, image: &str) -> ReplicaSet {
    let extra = json!({"labels": {names::POD_TEMPLATE_HASH: hash}, "annotations": {names::REVISION: revision}});
    let created = if revision == "2" { "08:00" } else { "00:30" };
    object(json!({
        "metadata": meta(&format!("web-{hash}"), "web", created, extra),
        "spec": {
            "replicas": replicas, "selector": {},
            "template": {"spec": {"containers": [{"name": "web", "image": image}]}},
        },
        "status": {"replicas": replicas, "availableReplicas": available},
    }))
}

fn pod(name: &str, owner: &str, status: Value) -> Pod {
    let mut container = json!({"name": "web", "image": "", "imageID": "", "ready": true, "restartCount": 0});
    json_patch::merge(&mut container, &status["container"]);
    let mut whole = json!({"phase": "Running", "containerStatuses": [container]});
    json_patch::merge(&mut whole, &status["pod"]);
    object(json!({
        "metadata": meta(name, owner, "08:30", json!({})),
        "spec": {"containers": [{"name": "web"}]},
        "status": whole,
    }))
}

fn good(name: &str, owner: &str) -> Pod {
    pod(name, owner, json!({"pod": {}, "container": {"state": {"running": {}}}}))
}

fn run(name: &str, owner: &str, labels: Value, spec: Value, status: Value) -> AnalysisRun {
    let extra = json!({"labels": labels, "annotations": {names::REVISION: "2"}});
    object(json!({"metadata": meta(name, owner, "09:00", extra), "spec": spec, "status": status}))
}

fn measured(phase: &str, value: &str, at: &str) -> Value {
    json!({"phase": phase, "value": value, "finishedAt": format!("2026-01-01T00:{at}Z")})
}

const REPLICAS: [&str; 4] = ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"];

fn with_replicas(mut status: Value, counts: [i32; 4]) -> Value {
    for (field, count) in REPLICAS.iter().zip(counts) {
        status[*field] = json!(count);
    }
    status["stableRS"] = json!("aaa");
    status["currentPodHash"] = json!("bbb");
    status
}

fn two_versions() -> Objects {
    Objects {
        replica_sets: vec![
            replica_set("000", "0", 0, 0, "shop/web:0"),
            replica_set("aaa", "1", 2, 2, "shop/web:1"),
            replica_set("bbb", "2", 1, 1, "shop/web:2"),
        ],
        pods: vec![good("web-aaa-1", "web-aaa"), good("web-aaa-2", "web-aaa"), good("web-bbb-1", "web-bbb")],
        ..Objects::default()
    }
}

/// A canary that pauses for five minutes while an analysis runs beside it.
fn canary() -> (Root, Objects) {
    let root = rollout(
        json!({"replicas": 2, "strategy": {"canary": {
            "trafficRouting": {"nginx": {}},
            "steps": [{"setWeight": 20}, {"pause": {"duration": "5m"}}, {"setWeight": 60}],
        }}}),
        with_replicas(
            json!({
                "phase": "Paused", "message": "CanaryPauseStep", "currentStepIndex": 1, "controllerPause": true,
                "pauseConditions": [{"reason": "CanaryPauseStep", "startTime": "2026-01-01T00:08:12Z"}],
                "canary": {"weights": {
                    "canary": {"weight": 20, "podTemplateHash": "bbb"},
                    "stable": {"weight": 80, "podTemplateHash": "aaa"},
                }},
            }),
            [3, 1, 3, 3],
        ),
    );
    let background = run(
        "web-bbb-2",
        "web",
        json!({names::ROLLOUT_TYPE: "Background"}),
        json!({"metrics": [
            {
                "name": "success-rate", "interval": "30s", "count": 5, "failureLimit": 1,
                "successCondition": "result[0] >= 0.95",
            },
            {"name": "latency", "initialDelay": "2m", "failureCondition": "result > 500"},
            {"name": "smoke"},
        ]}),
        json!({"phase": "Running", "startedAt": "2026-01-01T00:09:00Z", "metricResults": [
            {"name": "success-rate", "phase": "Running", "successful": 2, "failed": 1, "count": 3, "measurements": [
                measured("Successful", "[0.99]", "09:00"), measured("Failed", "[0.9123456]", "09:42"),
            ]},
            {"name": "smoke", "phase": "Successful", "successful": 1, "count": 1, "measurements": [
                {"phase": "Successful", "metadata": {"job-name": "smoke.1"}, "finishedAt": "2026-01-01T00:09:10Z"},
            ]},
        ]}),
    );
    let job = json!({
        "metadata": meta("smoke.1", "web-bbb-2", "09:01", json!({})),
        "status": {"conditions": [{"type": "Complete", "status": "True"}]},
    });
    (root, Objects { analysis_runs: vec![background], jobs: vec![object(job)], ..two_versions() })
}

#[test]
fn a_canary_on_its_way() {
    let (root, objects) = canary();
    looks("canary", &root, &objects, style());
}

#[test]
fn a_narrow_terminal() {
    let (root, objects) = canary();
    for width in [100, 60] {
        let style = Style { width: Some(width), ..style() };
        let drawn = draw(&root, &objects, style);
        assert!(drawn.lines().all(|line| line.chars().count() <= width), "{drawn}");
        looks(&format!("canary-{width}"), &root, &objects, style);
    }
}

#[test]
fn colours_are_few_and_change_nothing_else() {
    let (root, objects) = canary();
    let plain = draw(&root, &objects, Style { width: Some(60), ..style() });
    let painted = draw(&root, &objects, Style { color: true, width: Some(60), ..style() });
    assert!(painted.contains("\x1b[33m॥ Paused\x1b[0m - CanaryPauseStep"), "{painted}");
    assert!(painted.contains("\x1b[32m✔ Healthy\x1b[0m"), "{painted}");
    let codes = regex::Regex::new("\x1b\\[[0-9]+m").unwrap();
    assert_eq!(codes.replace_all(&painted, ""), plain);
}

#[test]
fn bad_pods_say_what_is_wrong_and_many_good_ones_are_counted() {
    let root = rollout(
        json!({"replicas": 15, "strategy": {"canary": {"steps": [{"setWeight": 50}, {"pause": {}}]}}}),
        with_replicas(
            json!({
                "phase": "Progressing", "message": "more replicas need to be updated", "currentStepIndex": 0,
                "conditions": [{
                    "type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated", "message": "",
                    "lastUpdateTime": "2026-01-01T00:08:00Z", "lastTransitionTime": "2026-01-01T00:08:00Z",
                }],
            }),
            [18, 6, 13, 12],
        ),
    );
    let waiting = |reason: &str, message: &str| {
        json!({"pod": {"phase": "Pending"}, "container": {
            "ready": false, "state": {"waiting": {"reason": reason, "message": message}},
        }})
    };
    let terminated = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
    let mut pods: Vec<Pod> = (1..=12).map(|number| good(&format!("web-aaa-{number:02}"), "web-aaa")).collect();
    pods[4] = pod("web-aaa-05", "web-aaa", json!({"pod": {}, "container": {"restartCount": 3}}));
    pods.extend([
        pod("web-bbb-1", "web-bbb", waiting("ImagePullBackOff", "Back-off pulling image \"shop/web:2\"")),
        pod("web-bbb-2", "web-bbb", {
            let mut crash = waiting("CrashLoopBackOff", "back-off 40s restarting failed container");
            crash["container"]["restartCount"] = json!(4);
            crash
        }),
        pod(
            "web-bbb-3",
            "web-bbb",
            json!({"pod": {}, "container": {
                "ready": false, "started": true, "restartCount": 1, "state": {"running": {}}, "lastState": terminated,
            }}),
        ),
        pod(
            "web-bbb-4",
            "web-bbb",
            json!({"container": {}, "pod": {
                "phase": "Pending", "containerStatuses": null,
                "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}],
            }}),
        ),
        pod("web-bbb-5", "web-bbb", waiting("ContainerCreating", "")),
        pod(
            "web-bbb-6",
            "web-bbb",
            json!({"container": {"ready": false}, "pod": {"phase": "Pending",
                "initContainerStatuses": [{
                    "name": "migrate", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"running": {}},
                }],
            }}),
        ),
    ]);
    let mut failing = replica_set("bbb", "2", 7, 0, "shop/web:2");
    failing.status.as_mut().unwrap().conditions = object(json!([{
        "type": "ReplicaFailure", "status": "True", "message": "exceeded quota: pods",
    }]));
    let objects = Objects {
        replica_sets: vec![replica_set("aaa", "1", 12, 12, "shop/web:1"), failing],
        pods,
        ..Objects::default()
    };
    looks("bad-pods", &root, &objects, style());
}

#[test]
fn a_blue_green_release_before_its_promotion() {
    let root = rollout(
        json!({"replicas": 1, "strategy": {"blueGreen": {
            "activeService": "web", "previewService": "web-preview", "autoPromotionSeconds": 120,
        }}}),
        with_replicas(
            json!({
                "phase": "Paused", "message": "BlueGreenPause", "controllerPause": true,
                "pauseConditions": [{"reason": "BlueGreenPause", "startTime": "2026-01-01T00:09:00Z"}],
                "blueGreen": {"activeSelector": "aaa", "previewSelector": "bbb"},
            }),
            [2, 1, 2, 1],
        ),
    );
    let mut old = replica_set("ccc", "0", 1, 1, "shop/web:0");
    let deadline = (names::SCALE_DOWN_DEADLINE.to_owned(), "2026-01-01T00:10:25Z".to_owned());
    old.metadata.annotations.as_mut().unwrap().extend([deadline]);
    let checked = run(
        "web-bbb-2-pre",
        "web",
        json!({names::ROLLOUT_TYPE: "PrePromotion"}),
        json!({"metrics": [{"name": "check"}]}),
        json!({"phase": "Error", "message": "Metric \"check\" assessed Error", "metricResults": [
            {"name": "check", "phase": "Error", "error": 5, "consecutiveError": 5, "measurements": [
                {"phase": "Error", "message": "connection refused", "finishedAt": "2026-01-01T00:09:50Z"},
            ]},
        ]}),
    );
    let objects = Objects {
        replica_sets: vec![
            old,
            replica_set("aaa", "1", 1, 1, "shop/web:1"),
            replica_set("bbb", "2", 1, 1, "shop/web:2"),
        ],
        pods: vec![good("web-aaa-1", "web-aaa"), good("web-bbb-1", "web-bbb"), good("web-ccc-1", "web-ccc")],
        analysis_runs: vec![checked],
        ..Objects::default()
    };
    looks("blue-green", &root, &objects, style());
}

/// The experiment of a step, with traffic.
fn experiment() -> (Root, Experiment, Objects) {
    let root = rollout(
        json!({"replicas": 2, "strategy": {"canary": {
            "trafficRouting": {"istio": {}, "maxTrafficWeight": 1000},
            "steps": [
                {"setWeight": 100},
                {"experiment": {"templates": [{"name": "baseline"}, {"name": "canary"}], "duration": "3m"}},
                {"setCanaryScale": {"weight": 50}},
            ],
        }}}),
        with_replicas(
            json!({
                "phase": "Progressing", "message": "more replicas need to be updated", "currentStepIndex": 1,
                "canary": {
                    "currentExperiment": "web-bbb-2-1",
                    "weights": {
                        "canary": {"weight": 100, "podTemplateHash": "bbb"}, "stable": {"weight": 850},
                        "additional": [{"weight": 50, "serviceName": "web-baseline", "podTemplateHash": "eee"}],
                        "verified": false,
                    },
                },
            }),
            [3, 1, 3, 3],
        ),
    );
    let extra = json!({"annotations": {names::REVISION: "2"}});
    let pair: Experiment = object(json!({
        "metadata": meta("web-bbb-2-1", "web", "08:50", extra),
        "spec": {"duration": "3m", "templates": [{"name": "baseline"}, {"name": "canary"}]},
        "status": {"phase": "Running", "availableAt": "2026-01-01T00:09:00Z", "templateStatuses": []},
    }));
    let of_template = |name: &str, hash: &str, image: &str| -> ReplicaSet {
        let mut replica_set = replica_set(hash, "0", 1, 1, image);
        let extra = json!({
            "labels": {names::POD_TEMPLATE_HASH: hash}, "annotations": {names::EXPERIMENT_TEMPLATE_NAME: name},
        });
        replica_set.metadata = object(meta(&format!("web-bbb-2-1-{name}"), "web-bbb-2-1", "08:50", extra));
        replica_set
    };
    let compared = run(
        "web-bbb-2-1-compare",
        "web-bbb-2-1",
        json!({}),
        json!({"metrics": [{"name": "p99", "successCondition": "result < 1", "failureCondition": "result > 2"}]}),
        json!({"phase": "Inconclusive", "metricResults": [
            {"name": "p99", "phase": "Inconclusive", "inconclusive": 1, "dryRun": true,
             "measurements": [measured("Inconclusive", "1.5", "09:30")]},
        ]}),
    );
    let mut objects = two_versions();
    objects.replica_sets.push(of_template("baseline", "eee", "shop/web:1"));
    objects.replica_sets.push(of_template("canary", "fff", "shop/web:2"));
    objects.pods.push(good("web-bbb-2-1-baseline-1", "web-bbb-2-1-baseline"));
    objects.experiments.push(pair.clone());
    objects.analysis_runs.push(compared);
    (root, pair, objects)
}

#[test]
fn an_experiment_in_a_step_and_by_itself() {
    let (root, pair, objects) = experiment();
    looks("experiment-step", &root, &objects, style());
    looks("experiment", &Root::Experiment(pair), &objects, style());
}

#[test]
fn what_is_waited_for_is_told_in_every_state() {
    let pause = |reason: &str| json!([{"reason": reason, "startTime": "2026-01-01T00:08:00Z"}]);
    let steps = json!({"canary": {"steps": [
        {"pause": {}},
        {"analysis": {"templates": [{"templateName": "check"}]}},
    ]}});
    let progressing = json!([{
        "type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated", "message": "",
        "lastUpdateTime": "2026-01-01T00:09:00Z", "lastTransitionTime": "2026-01-01T00:09:00Z",
    }]);
    let invalid = json!([{
        "type": "InvalidSpec", "status": "True", "reason": "InvalidSpec", "message": "",
        "lastUpdateTime": "2026-01-01T00:09:00Z", "lastTransitionTime": "2026-01-01T00:09:00Z",
    }]);
    let cases: &[(Value, Value, &[&str])] = &[
        (json!({}), json!({"phase": "Healthy", "availableReplicas": 1, "updatedReplicas": 1}), &[]),
        (json!({}), json!({"conditions": invalid, "phase": "Degraded"}), &["a spec without errors"]),
        (
            json!({}),
            json!({"phase": "Degraded", "abort": true}),
            &["a new version, `tidegate retry web` or `tidegate undo web`"],
        ),
        (json!({"paused": true}), json!({"phase": "Paused"}), &["`tidegate promote web`: spec.paused is set"]),
        (
            json!({}),
            json!({"phase": "Paused", "currentStepIndex": 0, "pauseConditions": pause("CanaryPauseStep")}),
            &["`tidegate promote web` (for 2m now)"],
        ),
        (
            json!({}),
            json!({"phase": "Paused", "currentStepIndex": 1, "pauseConditions": pause("InconclusiveAnalysisRun")}),
            &["your verdict, as the analysis has none: `tidegate promote web`, or abort (for 2m now)"],
        ),
        (
            json!({"replicas": 3}),
            json!({"phase": "Progressing", "currentStepIndex": 0, "conditions": progressing}),
            &["2 pods to become available; the deadline is in 9m"],
        ),
        (
            json!({}),
            json!({
                "phase": "Progressing", "currentStepIndex": 1, "availableReplicas": 1,
                "canary": {"currentStepAnalysisRunStatus": {"name": "web-bbb-2-1", "status": "Running"}},
            }),
            &["analysis run web-bbb-2-1, which measures in 20s"],
        ),
        (
            json!({"restartAt": "2026-01-01T00:10:30Z"}),
            json!({"phase": "Healthy", "availableReplicas": 1}),
            &["the restart in 30s"],
        ),
    ];
    let next = run(
        "web-bbb-2-1",
        "web",
        json!({}),
        json!({"metrics": [{"name": "a", "initialDelay": "1m20s"}, {"name": "b", "initialDelay": "5m"}]}),
        json!({"phase": "Running", "startedAt": "2026-01-01T00:09:00Z"}),
    );
    let objects = Objects {
        analysis_runs: vec![next],
        replica_sets: vec![replica_set("bbb", "2", 3, 1, "shop/web:2")],
        ..Objects::default()
    };
    for (spec, status, expected) in cases {
        let mut whole = json!({"strategy": steps});
        json_patch::merge(&mut whole, spec);
        let Root::Rollout(rollout) = rollout(whole, status.clone()) else { unreachable!() };
        assert_eq!(wait::waits(&rollout, &objects, style()), *expected, "{spec} {status}");
    }
}

#[test]
fn ages_are_as_precise_as_is_useful() {
    for (seconds, text) in [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (600, "10m"),
        (3_600, "1h"),
        (3_900, "1h5m"),
        (30_000, "8h"),
        (90_000, "1d"),
    ] {
        assert_eq!(duration(seconds), text);
    }
}

#[test]
fn what_is_promoted_has_all_of_the_traffic() {
    let mut status = with_replicas(json!({"phase": "Healthy", "currentStepIndex": 1}), [2, 2, 2, 2]);
    status["currentPodHash"] = json!("aaa");
    let to = |weight: i32| json!({"weight": weight, "podTemplateHash": "aaa"});
    status["canary"] = json!({"weights": {"canary": to(0), "stable": to(100)}});
    let spec = json!({"replicas": 2, "strategy": {"canary": {
        "trafficRouting": {"nginx": {}}, "steps": [{"setWeight": 20}],
    }}});
    let drawn = draw(&rollout(spec, status), &two_versions(), style());
    for text in ["Weight:       all to stable", "Step:         1/1 done\n", "stable,weight:100"] {
        assert!(drawn.contains(text), "{drawn}");
    }
    assert!(!drawn.contains("Waiting for"), "{drawn}");
}
