//! Whole updates, told as text: the diff of a committed file is the change of behaviour.

mod blue_green;
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
fn the_window_knows_the_order_of_versions_of_one_second() {
    for (window, skips) in [(1, false), (2, true)] {
        let mut sim = running(Sim::routed(json!({"steps": [{"setWeight": 20}, {"pause": {}}]}), 3));
        sim.edit("a rollback window", |rollout| {
            rollout.spec.rollback_window = serde_json::from_value(json!({"revisions": window})).unwrap();
        });
        for image in ["web:v2", "web:v3"] {
            sim.image(image);
            sim.run(20);
            sim.patch("a user promotes fully", |status| status.promote_full = true);
            sim.run(60);
        }
        let at = sim.world.now;
        sim.world.replica_sets.iter_mut().for_each(|set| set.created = at);
        sim.image("web:v1");
        sim.run(60);
        let expected = if skips { "Healthy" } else { "Paused" };
        assert_eq!(sim.status().phase, expected, "v2 lies between, in a window of {window}");
        // And forward again is no rollback, although v1 has the highest number now.
        sim.patch("a user promotes fully", |status| status.promote_full = true);
        sim.run(60);
        sim.image("web:v3");
        sim.run(60);
        assert_eq!(sim.status().phase, "Paused");
    }
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

/// Nobody can write what the run measures: what nothing judges is not promoted, by time or by a step's promotion.
#[test]
fn a_background_analysis_that_says_nothing_holds_the_update() {
    let mut strategy = basic_steps();
    strategy["analysis"] = json!({"templates": [{"templateName": "errors"}], "startingStep": 1});
    let mut sim = analysed(strategy);
    sim.unwritable = true;
    sim.image("web:v2");
    sim.run(60);
    let silent =
        |sim: &Sim| sim.status().message.contains(" judges nothing yet: its status is empty since it was created");
    assert_eq!(sim.status().current_step_index, Some(1));
    assert_eq!(sim.status().phase, "Paused");
    assert!(silent(&sim), "{}", sim.status().message);
    sim.patch("a user promotes", |status| status.pause_conditions.clear());
    sim.run(600);
    assert_eq!(sim.status().current_step_index, Some(1));
    assert!(silent(&sim), "{}", sim.status().message);
    sim.note("the controller may write again");
    sim.unwritable = false;
    sim.run(90);
    expect!(sim, "analysis_silent");
    assert_eq!(sim.status().phase, "Healthy");
}

#[test]
fn an_update_without_steps_waits_for_its_analysis_too() {
    for replicas in [1, 5] {
        let mut sim = analysed(json!({"analysis": {"templates": [{"templateName": "errors"}]}}));
        sim.edit("replicas", |rollout| rollout.spec.replicas = Some(replicas));
        sim.run(20);
        sim.unwritable = true;
        sim.image("web:v2");
        sim.run(60);
        assert_eq!(sim.status().stable_rs, sim.set("web:v1").hash());
        sim.patch("a user promotes fully: judged by them", |status| status.promote_full = true);
        sim.run(60);
        assert_eq!(sim.status().stable_rs, sim.set("web:v2").hash());
    }
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

/// The spec is broken, Services or the route are gone: an update goes no further, but it goes back.
#[test]
fn nothing_stops_an_abort() {
    type Break = (&'static str, fn(&mut Sim), &'static str);
    let broken: [Break; 5] = [
        ("canary_service", |sim| _ = sim.world.services.remove("canary"), "service \"canary\" not found"),
        ("stable_service", |sim| _ = sim.world.services.remove("stable"), "service \"stable\" not found"),
        ("negative_replicas", |sim| sim.edit("replicas become -1", |it| it.spec.replicas = Some(-1)), "spec.replicas"),
        (
            "new_kind_of_step",
            |sim| {
                sim.edit("a step that is not supported yet", |it| {
                    let steps = &mut it.spec.strategy.canary.as_mut().unwrap().steps;
                    steps.push(serde_json::from_value(json!({"plugin": {"name": "a/b"}})).unwrap());
                });
            },
            "does not act upon this field yet",
        ),
        (
            "invalid_template",
            |sim| {
                sim.edit("a template without containers", |it| {
                    it.spec.template = Some(json!({"metadata": {"labels": {"app": "web"}}, "spec": {}}).into());
                });
            },
            "spec.template",
        ),
    ];
    for (name, break_it, message) in broken {
        let mut sim = running(Sim::routed(basic_steps(), 5));
        sim.image("web:v2");
        sim.run(22);
        assert_eq!(sim.weight(), 50);
        sim.note(name);
        break_it(&mut sim);
        sim.run(30);
        assert_eq!(sim.weight(), 50, "{name}: nothing goes on and nothing goes back by itself");
        assert_eq!(sim.status().phase, "Degraded", "{name}");
        assert!(sim.status().message.starts_with("InvalidSpec: The Rollout \"web\" is invalid: "));
        assert!(sim.status().message.contains(message), "{name}: {}", sim.status().message);
        sim.patch("a user aborts", |status| status.abort = true);
        sim.settle();
        // Without its Service, stable can take no more than it has.
        assert_eq!(sim.weight(), if name == "stable_service" { 50 } else { 0 }, "{name}");
        assert!(sim.status().aborted_at.is_some());
        let both = [message, "; RolloutAborted: Rollout aborted update to revision "];
        assert!(both.iter().all(|part| sim.status().message.contains(part)), "{name}: {}", sim.status().message);
        sim.run(60);
        assert_eq!(sim.set("web:v1").replicas, 5, "{name}");
        if name == "canary_service" {
            expect!(sim, "abort_without_canary_service");
        }
    }
}

/// The canary Service is deleted, so the gateway refuses the route for ever: the time of the deletion counts all the same.
#[test]
fn a_deleted_service_holds_the_canary_for_a_moment_only() {
    let mut strategy = basic_steps();
    strategy["abortScaleDownDelaySeconds"] = 1.into();
    let mut sim = running(Sim::routed(strategy, 5));
    sim.image("web:v2");
    sim.run(22);
    sim.delete("canary");
    sim.refuses = true;
    sim.patch("a user aborts", |status| status.abort = true);
    sim.run(4);
    assert_eq!((sim.weight(), sim.set("web:v2").replicas), (0, 3), "the Service may still be followed");
    sim.run(2);
    assert_eq!(sim.set("web:v2").replicas, 0);
}

#[test]
fn an_abort_without_a_route_waits_for_it() {
    let mut sim = running(Sim::routed(basic_steps(), 5));
    sim.image("web:v2");
    sim.run(22);
    let routes = std::mem::take(&mut sim.world.routes);
    sim.patch("the route is gone, and a user aborts", |status| status.abort = true);
    sim.run(120);
    assert_eq!(sim.set("web:v2").replicas, 0, "neither Service selects its pods any more");
    sim.note("the route is back");
    sim.world.routes = routes;
    sim.run(120);
    expect!(sim, "abort_without_route");
    assert_eq!(sim.weight(), 0);
    assert_eq!(sim.set("web:v2").replicas, 0);
}

#[test]
fn undo_works_with_a_broken_spec() {
    let mut sim = running(Sim::routed(basic_steps(), 5));
    sim.image("web:v2");
    sim.run(22);
    sim.world.services.remove("canary");
    sim.image("web:v1");
    sim.settle();
    assert_eq!(sim.weight(), 0);
    sim.run(90);
    expect!(sim, "undo_without_canary_service");
    assert_eq!(sim.set("web:v2").replicas, 0);
    assert_eq!(sim.status().phase, "Degraded");
}

#[test]
fn spec_paused_does_not_stop_an_abort() {
    let mut sim = running(Sim::new(basic_steps(), 5));
    sim.image("web:v2");
    sim.run(22);
    sim.edit("a user pauses", |rollout| rollout.spec.paused = true);
    sim.patch("and aborts", |status| status.abort = true);
    sim.run(30);
    assert_eq!((sim.set("web:v1").replicas, sim.set("web:v2").replicas), (5, 0));
}

#[test]
fn a_gateway_that_refuses_holds_the_step() {
    let mut sim = running(Sim::routed(basic_steps(), 5));
    sim.refuses = true;
    sim.image("web:v2");
    sim.run(60);
    assert_eq!(sim.status().current_step_index, Some(0));
    assert_eq!(sim.status().canary.weights.as_ref().unwrap().verified, Some(false));
    assert!(sim.status().message.contains("gateway public refuses HTTPRoute shop/web"), "{}", sim.status().message);
    sim.note("the gateway takes it");
    sim.refuses = false;
    sim.settle();
    assert_eq!(sim.status().canary.weights.as_ref().unwrap().verified, None, "nobody has refused the new weight");
    assert_eq!(sim.status().phase, "Paused");
    sim.run(5);
    expect!(sim, "gateway_refuses");
}

#[test]
fn a_replica_set_that_is_created_at_last_is_told() {
    let mut sim = running(Sim::routed(basic_steps(), 5));
    sim.image("web:v2");
    let name = format!("web-{}", sim.world.rollout.spec.template.as_ref().unwrap().hash(None));
    let object = crate::api::resource::ObjectRef::new(crate::api::resource::REPLICA_SET, "shop", name);
    let quota = "exceeded quota".to_owned();
    sim.world.failures = vec![Failure { object, action: FailedAction::Create, error: quota, refused: true }];
    sim.once();
    assert!(sim.status().conditions.iter().any(|condition| condition.reason == "ReplicaSetCreateError"));
    sim.heals = true;
    sim.once();
    sim.world.failures.clear();
    sim.run(60);
    let told = sim.events.iter().filter(|reason| *reason == "NewReplicaSetCreated").count();
    assert_eq!(told, 1, "{:?}", sim.events);
    assert_eq!(sim.status().phase, "Healthy");
}

#[test]
fn a_refusal_is_told_once_for_each_weight_however_slow_the_gateway() {
    let mut sim = running(Sim::routed(basic_steps(), 5));
    let told = |sim: &Sim| sim.events.iter().filter(|reason| *reason == "TrafficRoutingError").count();
    let verified = |sim: &Sim| sim.status().canary.weights.as_ref().unwrap().verified;
    sim.slow = true;
    sim.image("web:v2");
    sim.run(8);
    assert_eq!((sim.weight(), told(&sim), verified(&sim)), (20, 0, None), "nothing is known of the new weight yet");
    (sim.slow, sim.refuses) = (false, true);
    sim.run(60);
    assert_eq!((sim.weight(), told(&sim), verified(&sim)), (20, 1, Some(false)));
    sim.refuses = false;
    sim.run(8);
    assert_eq!((sim.weight(), told(&sim), verified(&sim)), (20, 1, Some(true)));
    (sim.slow, sim.refuses) = (true, true);
    sim.run(8);
    assert_eq!((sim.weight(), told(&sim), verified(&sim)), (50, 1, None));
    sim.slow = false;
    sim.run(60);
    assert_eq!((sim.weight(), told(&sim), verified(&sim)), (50, 2, Some(false)));
}

#[test]
fn what_failed_is_told_and_not_recorded() {
    let mut sim = running(Sim::routed(basic_steps(), 5));
    sim.image("web:v2");
    let name = format!("web-{}", sim.world.rollout.spec.template.as_ref().unwrap().hash(None));
    let object = crate::api::resource::ObjectRef::new(crate::api::resource::REPLICA_SET, "shop", name);
    let quota = "exceeded quota".to_owned();
    sim.world.failures = vec![Failure { object, action: FailedAction::Create, error: quota, refused: true }];
    sim.once();
    sim.world.failures.clear();
    sim.run(4);
    sim.world.now += jiff::SignedDuration::from_secs(1);
    let route = crate::api::resource::ObjectRef::new(crate::api::resource::HTTP_ROUTE, "shop", "web");
    let denied = "denied by a webhook".to_owned();
    sim.world.failures = vec![Failure { object: route, action: FailedAction::Patch, error: denied, refused: true }];
    sim.once();
    assert_eq!(sim.status().canary.weights.as_ref().unwrap().canary.weight, 0);
    sim.world.failures.clear();
    sim.run(5);
    expect!(sim, "failures");
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
    let plan = super::decide(&sim.world);
    assert_eq!((plan.actions, plan.events), (vec![], vec![]));
    let mut status = serde_json::to_value(plan.status).unwrap();
    assert_eq!(status.as_object_mut().unwrap().remove("duration").unwrap()["completionStatus"], Value::Null);
    assert_eq!(status, argo);
    sim.run(120);
    assert_eq!(sim.status().phase, "Healthy");
    assert_eq!(sim.status().stable_rs, "7b8c9d6f5d");
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
fn set_canary_scale_sizes_the_canary_apart_from_its_weight() {
    let steps = json!({"steps": [
        {"setCanaryScale": {"replicas": 3}}, {"pause": {}}, {"setWeight": 20}, {"pause": {}},
        {"setCanaryScale": {"matchTrafficWeight": true}}, {"pause": {}},
    ]});
    let mut sim = running(Sim::routed(steps, 5));
    sim.image("web:v2");
    let mut seen = Vec::new();
    for _ in 0..3 {
        sim.run(30);
        seen.push((sim.status().current_step_index, sim.set("web:v2").replicas, sim.weight()));
        sim.patch("a user promotes", |status| status.pause_conditions.clear());
    }
    assert_eq!(seen, [(Some(1), 3, 0), (Some(3), 3, 20), (Some(5), 1, 20)]);
    sim.run(90);
    expect!(sim, "set_canary_scale");
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

#[test]
fn delays_before_old_pods_go_are_the_users() {
    for (field, seconds, left) in
        [("abortScaleDownDelaySeconds", 100, [3, 3, 0]), ("abortScaleDownDelaySeconds", 0, [0, 0, 0])]
    {
        let mut strategy = basic_steps();
        strategy[field] = seconds.into();
        let mut sim = running(Sim::routed(strategy, 5));
        sim.image("web:v2");
        sim.run(22);
        sim.patch("a user aborts", |status| status.abort = true);
        let pods = [20, 70, 20].map(|seconds| {
            sim.run(seconds);
            sim.set("web:v2").replicas
        });
        assert_eq!(pods, left, "{field}: {seconds}");
    }
    for (seconds, left) in [(100, [5, 5, 0]), (0, [0, 0, 0])] {
        let mut strategy = basic_steps();
        strategy["scaleDownDelaySeconds"] = seconds.into();
        let mut sim = running(Sim::routed(strategy, 5));
        sim.image("web:v2");
        sim.run(35);
        assert_eq!(sim.status().phase, "Healthy");
        let pods = [20, 70, 20].map(|seconds| {
            sim.run(seconds);
            sim.set("web:v1").replicas
        });
        assert_eq!(pods, left, "scaleDownDelaySeconds: {seconds}");
    }
}

fn dynamic_steps() -> Value {
    json!({"dynamicStableScale": true,
        "steps": [{"setWeight": 20}, {"pause": {"duration": "20s"}}, {"setWeight": 60}, {"pause": {"duration": "20s"}}]})
}

/// Both versions have the pods of their weights, and no more once the gateways have followed.
#[test]
fn stable_shrinks_behind_its_weight() {
    let mut sim = running(Sim::routed(dynamic_steps(), 5));
    sim.image("web:v2");
    let mut seen = Vec::new();
    for seconds in [4, 5, 7, 10, 5, 6] {
        sim.run(seconds);
        seen.push((sim.weight(), sim.set("web:v1").replicas, sim.set("web:v2").replicas));
    }
    assert_eq!(seen, [(0, 5, 1), (20, 5, 1), (20, 4, 1), (20, 4, 3), (60, 4, 3), (60, 2, 3)]);
    sim.run(60);
    expect!(sim, "dynamic_stable_scale");
    assert_eq!((sim.set("web:v1").replicas, sim.set("web:v2").replicas), (0, 5));
    assert_eq!(sim.status().phase, "Healthy");
}

/// An aborted canary gives its traffic back as stable grows, without more weight or fewer pods than that in between.
#[test]
fn an_abort_gives_traffic_back_as_stable_grows() {
    for (delay, kept) in [(None, 0), (Some(0), 0), (Some(30), 5)] {
        let mut strategy = dynamic_steps();
        strategy["steps"][2]["setWeight"] = 100.into();
        strategy["steps"][3] = json!({"pause": {}});
        strategy["maxUnavailable"] = 0.into();
        if let Some(delay) = delay {
            strategy["abortScaleDownDelaySeconds"] = delay.into();
        }
        let mut sim = running(Sim::routed(strategy, 5));
        sim.image("web:v2");
        sim.run(60);
        assert_eq!((sim.weight(), sim.set("web:v1").replicas, sim.set("web:v2").replicas), (100, 0, 5));
        sim.patch("a user aborts", |status| status.abort = true);
        sim.settle();
        assert_eq!((sim.weight(), sim.set("web:v1").replicas), (100, 5), "stable has no pods for any of it yet");
        let mut last = 100;
        for _ in 0..20 {
            sim.run(1);
            let (weight, v2) = (sim.weight(), sim.set("web:v2").status.available);
            assert!(weight <= last && i64::from(v2) * 20 >= weight, "{weight} after {last} on {v2} pods");
            last = weight;
        }
        assert_eq!((last, sim.set("web:v2").replicas), (0, kept), "{delay:?}");
        sim.run(60);
        assert_eq!(sim.set("web:v2").replicas, 0, "{delay:?}");
        if delay.is_none() {
            expect!(sim, "dynamic_abort");
        }
    }
}

#[test]
fn a_full_promotion_moves_the_weight_with_the_pods() {
    let mut sim = running(Sim::routed(dynamic_steps(), 5));
    sim.image("web:v2");
    sim.run(12);
    sim.patch("a user promotes fully", |status| status.promote_full = true);
    sim.run(60);
    expect!(sim, "dynamic_promote_full");
    assert_eq!((sim.set("web:v1").replicas, sim.set("web:v2").replicas), (0, 5));
    assert_eq!(sim.status().phase, "Healthy");
}

#[test]
fn what_replaces_a_large_canary_lets_stable_take_its_traffic() {
    for image in ["web:v1", "web:v3"] {
        let mut sim = running(Sim::routed(dynamic_steps(), 5));
        sim.image("web:v2");
        sim.run(45);
        assert_eq!((sim.weight(), sim.set("web:v1").replicas), (60, 2));
        sim.image(image);
        for _ in 0..100 {
            sim.run(1);
            let behind = |service: &str| {
                let hash = sim.world.services[service].object.selector[crate::api::names::POD_TEMPLATE_HASH].clone();
                sim.world.replica_sets.iter().find(|set| set.hash() == hash).unwrap().status.available
            };
            let weight = sim.weight();
            let (stable, canary) = (behind("stable"), behind("canary"));
            // maxUnavailable is 1 of 5: four pods may carry everything.
            assert!(
                i64::from(canary) * 25 >= weight && i64::from(stable) * 25 >= 100 - weight,
                "{weight}: {stable}, {canary}\n{}",
                sim.tail()
            );
        }
        sim.run(60);
        assert_eq!(sim.status().phase, "Healthy");
        assert_eq!((sim.set(image).replicas, sim.set("web:v2").replicas), (5, 0));
    }
}

#[test]
fn a_step_may_ask_for_less_than_the_one_before() {
    for dynamic in [false, true] {
        let mut sim = running(Sim::routed(
            json!({"dynamicStableScale": dynamic,
                "steps": [{"setWeight": 60}, {"pause": {"duration": "20s"}}, {"setWeight": 20}, {"pause": {}}]}),
            5,
        ));
        sim.image("web:v2");
        sim.run(20);
        assert_eq!(sim.weight(), 60);
        sim.run(40);
        assert_eq!((sim.weight(), sim.set("web:v2").replicas), (20, 1), "dynamicStableScale: {dynamic}");
        assert_eq!(sim.set("web:v1").replicas, if dynamic { 4 } else { 5 });
        assert_eq!((sim.status().phase.as_str(), sim.status().current_step_index), ("Paused", Some(3)));
    }
}

#[test]
fn an_autoscaler_changes_both_sizes_in_flight() {
    let steps = json!({"dynamicStableScale": true, "steps": [{"setWeight": 60}, {"pause": {}}]});
    let mut sim = running(Sim::routed(steps, 5));
    sim.image("web:v2");
    sim.run(40);
    for (replicas, expected) in [(10, (4, 6)), (4, (2, 3)), (5, (2, 3))] {
        sim.edit("the autoscaler", |rollout| rollout.spec.replicas = Some(replicas));
        sim.run(20);
        assert_eq!((sim.set("web:v1").replicas, sim.set("web:v2").replicas), expected, "of {replicas}");
        assert_eq!(sim.weight(), 60);
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

/// Whatever users, pods and gateways do, in whatever order, and however often the controller dies: decisions settle, and
/// traffic finds pods.
#[test]
fn random_lives_settle_and_serve() {
    for seed in 0..40 {
        let mut sim = random_life(seed);
        sim.world.failures.clear();
        sim.broken = None;
        (sim.refuses, sim.slow) = (false, false);
        sim.patch("the end of all faults", |status| {
            status.abort = false;
            status.pause_conditions.clear();
        });
        sim.edit("nothing is paused", |rollout| rollout.spec.paused = false);
        sim.image("web:v9");
        sim.run(30);
        sim.patch("promoted", |status| status.promote_full = true);
        sim.run(200);
        assert_eq!(sim.status().phase, "Healthy", "seed {seed}: {}", sim.status().message);
        assert_eq!(sim.status().stable_rs, sim.set("web:v9").hash(), "seed {seed}");
        let others = sim.world.replica_sets.iter().filter(|set| set.hash() != sim.status().stable_rs);
        assert!(others.clone().all(|set| set.replicas == 0), "seed {seed}: {}", sim.tail());
    }
}

fn random_life(seed: u64) -> Sim {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut strategy = step_analysis();
    if random(2) == 0 {
        strategy["analysis"] = json!({"templates": [{"templateName": "errors"}], "startingStep": random(3)});
    }
    strategy["dynamicStableScale"] = (random(2) == 0).into();
    let mut sim = match random(3) {
        0 => Sim::new(basic_steps(), 4),
        1 => Sim::routed(strategy, 5).template("errors"),
        _ => Sim::ping_pong(strategy, 5).template("errors"),
    };
    sim.chance = (random(2) == 0).then_some(seed);
    let images = ["web:v1", "web:v2", "web:v3"];
    for _ in 0..25 {
        match random(12) {
            0 | 1 => sim.image(images[random(3) as usize]),
            2 => sim.patch("abort", |status| status.abort = true),
            3 => sim.patch("retry", |status| status.abort = false),
            4 => sim.patch("promote", |status| status.pause_conditions.clear()),
            5 => sim.patch("promote fully", |status| status.promote_full = true),
            6 => {
                let paused = random(2) == 0;
                sim.edit("spec.paused", |rollout| rollout.spec.paused = paused);
            }
            7 => {
                let replicas = random(8) as i32;
                sim.edit("replicas", |rollout| rollout.spec.replicas = Some(replicas));
            }
            8 => sim.broken = [None, Some("web:v2"), Some("web:v3")][random(3) as usize],
            9 => (sim.refuses, sim.slow) = (random(3) == 0, random(4) == 0),
            10 => {
                let phase =
                    [AnalysisPhase::Successful, AnalysisPhase::Failed, AnalysisPhase::Inconclusive][random(3) as usize];
                let going = sim
                    .world
                    .analysis_runs
                    .iter()
                    .find(|run| run.status.as_ref().is_none_or(|it| !it.phase.completed()));
                if let Some(name) = going.and_then(|run| run.metadata.name.clone()) {
                    sim.judge(&name, phase, "by chance");
                }
            }
            _ => sim.patch("skip", |status| {
                status.pause_conditions.clear();
                status.current_step_index = status.current_step_index.map(|index| index + 1);
            }),
        }
        sim.run(random(20) as i64);
        sim.check_service();
    }
    sim
}
