//! Updates that reach their end, and what users do on the way.

use serde_json::{Value, json};

use super::sim::Sim;
use super::{basic_steps, running};

#[test]
fn initial_deploy() {
    let mut sim = Sim::new(basic_steps(), 1);
    sim.run(20);
    expect!(sim, "initial_deploy");
}

#[test]
fn update_by_pods() {
    let mut sim = running(Sim::new(basic_steps(), 10));
    sim.image("web:v2");
    sim.run(120);
    expect!(sim, "update_by_pods");
    assert_eq!(sim.status().phase, "Healthy");
}

#[test]
fn update_of_one_pod() {
    let mut sim = running(Sim::new(basic_steps(), 1));
    sim.image("web:v2");
    sim.run(120);
    expect!(sim, "update_of_one_pod");
    assert_eq!(sim.status().phase, "Healthy");
}

#[test]
fn update_by_traffic() {
    let mut sim = running(Sim::routed(basic_steps(), 5));
    sim.image("web:v2");
    sim.run(180);
    expect!(sim, "update_by_traffic");
    assert_eq!(sim.status().phase, "Healthy");
    assert_eq!(sim.weight(), 0);
}

#[test]
fn update_by_pods_behind_services() {
    let mut sim = running(Sim::served(basic_steps(), 4));
    sim.image("web:v2");
    sim.run(22);
    sim.patch("a user aborts", |status| status.abort = true);
    sim.run(30);
    sim.patch("a user retries", |status| status.abort = false);
    sim.run(90);
    expect!(sim, "update_by_pods_behind_services");
    assert_eq!(sim.status().phase, "Healthy");
}

#[test]
fn update_by_ingress() {
    let mut sim = Sim::ingress(basic_steps(), 2);
    sim.run(20);
    sim.image("web:v2");
    sim.run(120);
    expect!(sim, "update_by_ingress");
    assert_eq!(sim.status().phase, "Healthy");
}

#[test]
fn first_deploy_by_traffic() {
    let mut sim = Sim::routed(basic_steps(), 2);
    sim.run(20);
    expect!(sim, "first_deploy_by_traffic");
}

#[test]
fn promote_ends_a_pause() {
    let mut sim = running(Sim::new(json!({"steps": [{"setWeight": 50}, {"pause": {}}]}), 2));
    sim.image("web:v2");
    sim.run(600);
    assert_eq!((sim.status().phase.as_str(), sim.status().message.as_str()), ("Paused", "CanaryPauseStep"));
    sim.patch("a user promotes", |status| status.pause_conditions.clear());
    sim.run(60);
    expect!(sim, "promote");
    assert_eq!(sim.status().phase, "Healthy");
}

#[test]
fn promote_full_skips_what_is_left() {
    let steps = json!({"steps": [{"setWeight": 20}, {"pause": {}}, {"setWeight": 50}, {"pause": {}}]});
    let mut sim = running(Sim::routed(steps, 5));
    sim.image("web:v2");
    sim.run(20);
    sim.patch("a user promotes fully", |status| status.promote_full = true);
    sim.run(90);
    expect!(sim, "promote_full");
    assert_eq!(sim.status().phase, "Healthy");
}

#[test]
fn a_newer_version_supersedes_the_canary() {
    let mut sim = running(Sim::routed(basic_steps(), 5));
    sim.image("web:v2");
    sim.run(22);
    sim.image("web:v3");
    sim.run(120);
    expect!(sim, "superseded");
    assert_eq!(sim.status().phase, "Healthy");
    assert_eq!(sim.status().stable_rs, sim.set("web:v3").hash());
}

#[test]
fn a_skipped_step_is_skipped() {
    let mut sim =
        running(Sim::routed(json!({"steps": [{"setWeight": 20}, {"pause": {}}, {"setWeight": 60}, {"pause": {}}]}), 5));
    sim.image("web:v2");
    sim.run(20);
    sim.patch("a user goes to step 3", |status| {
        status.pause_conditions.clear();
        status.controller_pause = false;
        status.current_step_index = Some(3);
    });
    sim.run(30);
    expect!(sim, "skip");
    assert_eq!(sim.weight(), 60);
    assert_eq!((sim.status().phase.as_str(), sim.status().current_step_index), ("Paused", Some(3)));
}

#[test]
fn spec_paused_holds_pods_and_steps() {
    let mut sim = running(Sim::new(basic_steps(), 5));
    sim.image("web:v2");
    sim.run(7);
    sim.edit("a user pauses", |rollout| rollout.spec.paused = true);
    sim.run(60);
    assert_eq!((sim.status().phase.as_str(), sim.status().message.as_str()), ("Paused", "manually paused"));
    sim.edit("a user resumes", |rollout| rollout.spec.paused = false);
    sim.run(120);
    expect!(sim, "spec_paused");
    assert_eq!(sim.status().phase, "Healthy");
}

/// Stable has never been available: the fix must get through, and be the one that is kept.
#[test]
fn a_bad_stable_version_is_replaced_by_a_good_one() {
    for mut sim in [Sim::new(basic_steps(), 4), Sim::routed(basic_steps(), 4)] {
        sim.broken = Some("web:v1");
        sim.run(20);
        assert_eq!(sim.status().phase, "Progressing");
        sim.image("web:v2");
        sim.run(180);
        assert_eq!((sim.status().phase.as_str(), sim.status().message.as_str()), ("Healthy", ""));
        assert_eq!(sim.status().stable_rs, sim.set("web:v2").hash());
    }
}

/// A promotion changes neither the weights nor a selector: the Services swap roles.
#[test]
fn two_services_take_turns() {
    let hashes = |sim: &Sim| {
        ["stable", "canary"].map(|name| {
            let selector = &sim.world.services[name].object.selector;
            selector.get(crate::api::names::POD_TEMPLATE_HASH).cloned().unwrap_or_default()
        })
    };
    let mut sim = Sim::ping_pong(basic_steps(), 5);
    sim.run(20);
    assert_eq!((sim.status().phase.as_str(), sim.status().canary.stable_ping_pong.as_str()), ("Healthy", "ping"));
    let v1 = sim.set("web:v1").hash().to_owned();
    assert_eq!(hashes(&sim), [v1.clone(), String::new()], "the Service of a canary leads nowhere yet");
    sim.forget();
    sim.image("web:v2");
    sim.run(120);
    expect!(sim, "ping_pong");
    let v2 = sim.set("web:v2").hash().to_owned();
    assert_eq!((sim.status().phase.as_str(), sim.status().canary.stable_ping_pong.as_str()), ("Healthy", "pong"));
    assert_eq!((hashes(&sim), sim.weight()), ([v1, v2.clone()], 100), "pong carries everything");
    assert_eq!(sim.set("web:v1").replicas, 0, "although ping still selects it");

    sim.image("web:v3");
    sim.run(22);
    let v3 = sim.set("web:v3").hash().to_owned();
    assert_eq!((hashes(&sim), sim.weight()), ([v3, v2], 50));
    sim.patch("a user aborts", |status| status.abort = true);
    sim.settle();
    assert_eq!(sim.weight(), 100, "all of it to pong again");
    sim.run(60);
    assert_eq!((sim.set("web:v2").replicas, sim.set("web:v3").replicas), (5, 0));
}

#[test]
fn durations_tell_how_an_update_ended() {
    let ending = |sim: &Sim| sim.status().duration.clone().unwrap();
    let mut sim = running(Sim::routed(json!({"steps": [{"setWeight": 20}, {"pause": {}}]}), 2));
    assert_eq!(ending(&sim).completion_status, "Promoted");
    sim.image("web:v2");
    sim.run(65);
    assert_eq!(ending(&sim).completion_status, "");
    sim.patch("a user promotes", |status| status.pause_conditions.clear());
    sim.run(60);
    assert_eq!(ending(&sim).completion_status, "Promoted");
    assert_eq!(ending(&sim).total_manual_pause_duration_seconds, Some(60));
    sim.image("web:v3");
    sim.run(20);
    sim.patch("a user aborts", |status| status.abort = true);
    sim.run(60);
    assert_eq!(ending(&sim).completion_status, "Aborted");
    sim.patch("a user retries", |status| status.abort = false);
    sim.run(20);
    assert_eq!(ending(&sim).completion_status, "");
    sim.image("web:v2");
    sim.run(20);
    assert_eq!(ending(&sim).completion_status, "FastRolledBack");
    sim.image("web:v4");
    sim.run(20);
    sim.patch("a user promotes fully", |status| status.promote_full = true);
    sim.run(60);
    assert_eq!(ending(&sim).completion_status, "FastPromoted");
}

#[test]
fn old_revisions_are_forgotten_beyond_the_limit() {
    let mut sim = running(Sim::new(json!({}), 1));
    sim.edit("two old revisions are kept", |rollout| rollout.spec.revision_history_limit = Some(2));
    for version in 2..6 {
        sim.image(&format!("web:v{version}"));
        sim.run(60);
        assert_eq!(sim.status().phase, "Healthy");
    }
    assert_eq!(sim.world.replica_sets.len(), 3);
}

/// A paused canary as Argo Rollouts 1.8 leaves it: hashes that nobody can compute today, conditions in its order.
#[test]
fn a_takeover_writes_nothing_but_what_argo_does_not_know() {
    let mut sim = running(Sim::routed(basic_steps(), 5));
    sim.image("web:v2");
    sim.run(12);
    for (from, to) in
        [(sim.set("web:v1").hash().to_owned(), "6d5f7c9b4f"), (sim.set("web:v2").hash().to_owned(), "7b8c9d6f5d")]
    {
        sim.relabel(&from, to);
    }
    let step_hash = sim.status().current_step_hash.clone();
    let condition = |type_: &str, status: &str, reason: &str, message: &str| {
        json!({"type": type_, "status": status, "reason": reason, "message": message,
            "lastUpdateTime": "2026-01-01T00:00:26Z", "lastTransitionTime": "2026-01-01T00:00:26Z"})
    };
    let argo = json!({
        "HPAReplicas": 6, "availableReplicas": 6, "blueGreen": {}, "canary": {"weights": {
            "canary": {"podTemplateHash": "7b8c9d6f5d", "serviceName": "canary", "weight": 20},
            "stable": {"podTemplateHash": "6d5f7c9b4f", "serviceName": "stable", "weight": 80}}},
        "conditions": [
            condition("Available", "True", "AvailableReason", "Rollout has minimum availability"),
            condition("Healthy", "False", "RolloutHealthy", "Rollout is not healthy"),
            condition("Completed", "False", "RolloutCompleted", "RolloutCompleted"),
            condition("Progressing", "Unknown", "RolloutPaused", "Rollout is paused"),
            condition("Paused", "True", "RolloutPaused", "Rollout is paused"),
        ],
        "controllerPause": true, "currentPodHash": "7b8c9d6f5d", "currentStepHash": step_hash, "currentStepIndex": 1,
        "message": "CanaryPauseStep", "observedGeneration": "2", "phase": "Paused",
        "pauseConditions": [{"reason": "CanaryPauseStep", "startTime": "2026-01-01T00:00:25Z"}],
        "readyReplicas": 6, "replicas": 6, "selector": "app=web", "stableRS": "6d5f7c9b4f", "updatedReplicas": 1,
    });
    sim.patch("another controller takes over", |status| *status = serde_json::from_value(argo.clone()).unwrap());
    let plan = crate::rollout::decide(&sim.world);
    assert_eq!((plan.actions, plan.events), (vec![], vec![]));
    let mut status = serde_json::to_value(plan.status).unwrap();
    assert_eq!(status.as_object_mut().unwrap().remove("duration").unwrap()["completionStatus"], Value::Null);
    assert_eq!(status, argo);
    sim.run(120);
    assert_eq!(sim.status().phase, "Healthy");
    assert_eq!(sim.status().stable_rs, "7b8c9d6f5d");
}
