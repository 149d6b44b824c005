//! Whole updates, told as text: the diff of a committed file is the change of behaviour.

mod sim;

use serde_json::{Value, json};
use sim::Sim;

use crate::api::analysis::AnalysisPhase;
use crate::plan::{FailedAction, Failure};

macro_rules! expect {
    ($sim:expr, $name:literal) => {
        $sim.expect($name, include_str!(concat!("tests/", $name, ".txt")))
    };
}

fn basic_steps() -> Value {
    json!({"steps": [{"setWeight": 20}, {"pause": {"duration": "10s"}}, {"setWeight": 50}, {"pause": {"duration": "10s"}}]})
}

/// A running v1 with nothing written so far.
fn running(mut sim: Sim) -> Sim {
    sim.run(20);
    assert_eq!(sim.status().phase, "Healthy");
    sim.forget();
    sim
}

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
fn first_deploy_by_traffic() {
    let mut sim = Sim::routed(basic_steps(), 2);
    sim.run(20);
    expect!(sim, "first_deploy_by_traffic");
}

/// The events of Argo Rollouts' own end-to-end test, in its order.
#[test]
fn abort_and_retry_tell_what_argo_tells() {
    let steps = json!({"steps": [{"setWeight": 50}, {"pause": {"duration": "20s"}}], "maxUnavailable": 0});
    let mut sim = Sim::new(steps, 1);
    sim.run(20);
    sim.image("web:v2");
    sim.run(10);
    assert_eq!(sim.status().phase, "Paused");
    sim.patch("a user aborts", |status| status.abort = true);
    sim.run(10);
    assert_eq!(sim.status().message, "RolloutAborted: Rollout aborted update to revision 2");
    sim.patch("a user retries", |status| status.abort = false);
    sim.run(60);
    expect!(sim, "abort_and_retry");
    let expected = [
        "RolloutAddedToInformer",
        "RolloutUpdated",
        "NewReplicaSetCreated",
        "RolloutNotCompleted",
        "ScalingReplicaSet",
        "RolloutCompleted",
        "RolloutUpdated",
        "NewReplicaSetCreated",
        "RolloutNotCompleted",
        "ScalingReplicaSet",
        "RolloutStepCompleted",
        "RolloutPaused",
        "ScalingReplicaSet",
        "RolloutAborted",
        "ScalingReplicaSet",
        "RolloutStepCompleted",
        "RolloutPaused",
        "RolloutStepCompleted",
        "RolloutResumed",
        "ScalingReplicaSet",
        "RolloutCompleted",
    ];
    assert_eq!(sim.events, expected);
}

/// From every step, and while pods start, the first plan after an abort takes all weight away.
#[test]
fn abort_at_any_moment() {
    for seconds in (0..45).step_by(3) {
        let mut sim = running(Sim::routed(basic_steps(), 5));
        sim.image("web:v2");
        sim.run(seconds);
        let was_stable = sim.status().stable_rs != sim.set("web:v1").hash();
        sim.patch("a user aborts", |status| status.abort = true);
        sim.settle();
        if was_stable {
            // Too late: v2 is what there is to go back to.
            assert_eq!(sim.status().phase, "Healthy");
            assert!(!sim.status().abort);
            continue;
        }
        assert_eq!(sim.weight(), 0, "after {seconds} s");
        assert_eq!(sim.status().phase, "Degraded");
        sim.run(60);
        assert_eq!(sim.set("web:v2").replicas, 0, "after {seconds} s");
        assert_eq!(sim.set("web:v1").replicas, 5);
    }
}

#[test]
fn abort_by_traffic() {
    let mut sim = running(Sim::routed(basic_steps(), 5));
    sim.image("web:v2");
    sim.run(22);
    sim.patch("a user aborts", |status| status.abort = true);
    sim.run(60);
    expect!(sim, "abort_by_traffic");
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
fn an_abort_ends_a_full_promotion_that_cannot_succeed() {
    let mut sim = running(Sim::routed(basic_steps(), 5));
    sim.broken = Some("web:v2");
    sim.image("web:v2");
    sim.run(10);
    sim.patch("a user promotes fully", |status| status.promote_full = true);
    sim.run(30);
    sim.patch("a user aborts", |status| status.abort = true);
    sim.run(60);
    expect!(sim, "abort_after_promote_full");
    assert_eq!(sim.status().phase, "Degraded");
    assert_eq!(sim.set("web:v2").replicas, 0);
}

#[test]
fn undo_in_flight_goes_back_to_stable() {
    for (name, mut sim) in
        [("undo_by_pods", Sim::new(basic_steps(), 5)), ("undo_by_traffic", Sim::routed(basic_steps(), 5))]
    {
        sim = running(sim);
        sim.image("web:v2");
        sim.run(22);
        sim.image("web:v1");
        sim.run(60);
        match name {
            "undo_by_pods" => expect!(sim, "undo_by_pods"),
            _ => expect!(sim, "undo_by_traffic"),
        }
        assert_eq!(sim.status().phase, "Healthy");
        assert_eq!(sim.set("web:v2").replicas, 0);
    }
}

#[test]
fn a_rollback_within_the_window_skips_the_steps() {
    let mut sim = running(Sim::routed(json!({"steps": [{"setWeight": 20}, {"pause": {}}]}), 3));
    sim.edit("a rollback window of 3", |rollout| {
        rollout.spec.rollback_window = serde_json::from_value(json!({"revisions": 3})).unwrap();
    });
    sim.image("web:v2");
    sim.run(20);
    sim.patch("a user promotes fully", |status| status.promote_full = true);
    sim.run(60);
    sim.forget();
    sim.image("web:v1");
    sim.run(60);
    expect!(sim, "rollback_window");
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
fn the_deadline_passes() {
    let mut sim = running(Sim::routed(basic_steps(), 5));
    sim.broken = Some("web:v2");
    sim.image("web:v2");
    sim.run(700);
    expect!(sim, "deadline");
    assert_eq!(sim.status().phase, "Degraded");
    assert!(sim.status().message.starts_with("ProgressDeadlineExceeded: ReplicaSet \"web-"));
}

#[test]
fn the_deadline_aborts() {
    let mut sim = running(Sim::routed(basic_steps(), 5));
    sim.edit("the deadline aborts", |rollout| {
        rollout.spec.progress_deadline_abort = true;
        rollout.spec.progress_deadline_seconds = Some(60);
    });
    sim.broken = Some("web:v2");
    sim.image("web:v2");
    sim.run(150);
    expect!(sim, "deadline_abort");
    assert!(sim.status().abort);
    assert_eq!(sim.set("web:v2").replicas, 0);
}

fn analysed(strategy: Value) -> Sim {
    running(Sim::routed(strategy, 5).template("errors"))
}

fn step_analysis() -> Value {
    json!({"steps": [{"setWeight": 20}, {"analysis": {"templates": [{"templateName": "errors"}]}}, {"setWeight": 60}, {"pause": {}}]})
}

#[test]
fn a_failed_analysis_aborts() {
    let mut sim = analysed(step_analysis());
    sim.image("web:v2");
    sim.run(20);
    let run = sim.status().canary.current_step_analysis_run_status.clone().unwrap().name;
    sim.judge(&run, AnalysisPhase::Failed, "Metric \"errors\" assessed Failed due to failed (1) > failureLimit (0)");
    sim.run(60);
    sim.patch("a user retries", |status| status.abort = false);
    sim.run(20);
    let retried = sim.status().canary.current_step_analysis_run_status.clone().unwrap().name;
    assert_eq!(retried, format!("{run}.1"));
    sim.judge(&retried, AnalysisPhase::Successful, "");
    sim.run(20);
    expect!(sim, "analysis_failed");
    assert_eq!(sim.status().current_step_index, Some(3));
}

#[test]
fn an_inconclusive_analysis_pauses() {
    let mut sim = analysed(step_analysis());
    sim.image("web:v2");
    sim.run(20);
    let run = sim.status().canary.current_step_analysis_run_status.clone().unwrap().name;
    sim.judge(&run, AnalysisPhase::Inconclusive, "no verdict");
    sim.run(60);
    assert_eq!((sim.status().phase.as_str(), sim.status().message.as_str()), ("Paused", "InconclusiveAnalysisRun"));
    sim.patch("a user resumes", |status| status.pause_conditions.clear());
    sim.run(10);
    let second = sim.status().canary.current_step_analysis_run_status.clone().unwrap().name;
    assert_eq!(second, format!("{run}.1"));
    sim.judge(&second, AnalysisPhase::Successful, "");
    sim.run(20);
    expect!(sim, "analysis_inconclusive");
}

#[test]
fn the_background_analysis_lasts_until_the_end() {
    let mut strategy = basic_steps();
    strategy["analysis"] = json!({"templates": [{"templateName": "errors"}], "startingStep": 2});
    let mut sim = analysed(strategy);
    sim.image("web:v2");
    sim.run(120);
    expect!(sim, "analysis_background");
    assert_eq!(sim.status().phase, "Healthy");
    assert!(sim.world.analysis_runs.iter().all(|run| run.spec.terminate));
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

#[test]
fn an_autoscaler_changes_the_size_in_flight() {
    let mut sim = running(Sim::routed(basic_steps(), 5));
    sim.image("web:v2");
    sim.run(12);
    sim.edit("the autoscaler wants 10", |rollout| rollout.spec.replicas = Some(10));
    sim.run(12);
    sim.edit("the autoscaler wants 4", |rollout| rollout.spec.replicas = Some(4));
    sim.run(120);
    expect!(sim, "autoscaled");
    assert_eq!(sim.status().phase, "Healthy");
}
