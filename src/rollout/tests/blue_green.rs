//! Blue-green: what users of the active Service would notice, in whatever order things happen.

use serde_json::{Value, json};

use super::running;
use super::sim::Sim;
use crate::api::analysis::AnalysisPhase;

fn told(sim: &Sim) -> (&str, &str) {
    (&sim.status().phase, &sim.status().message)
}

/// Which image users get.
fn active(sim: &Sim) -> &'static str {
    let images = ["web:v1", "web:v2", "web:v3"];
    let there = |image: &&str| sim.world.replica_sets.iter().any(|set| super::sim::image_of(set) == *image);
    let hash = sim.selected("active");
    images.into_iter().filter(there).find(|image| sim.set(image).hash() == hash).unwrap_or("")
}

/// The events of Argo Rollouts' own end-to-end test, in its order.
#[test]
fn an_update_tells_what_argo_tells() {
    let mut sim = Sim::blue_green(json!({}), 3);
    sim.run(20);
    sim.image("web:v2");
    sim.run(60);
    let expected = [
        "RolloutAddedToInformer",
        "RolloutUpdated",
        "NewReplicaSetCreated",
        "ScalingReplicaSet",
        "RolloutCompleted",
        "SwitchService",
        "SwitchService",
        "RolloutUpdated",
        "NewReplicaSetCreated",
        "RolloutNotCompleted",
        "ScalingReplicaSet",
        "SwitchService",
        "SwitchService",
        "RolloutCompleted",
        "ScalingReplicaSet",
    ];
    assert_eq!(sim.events, expected, "with two more for the preview Service, and one for old pods after the delay");
    assert_eq!(told(&sim), ("Healthy", ""));
}

#[test]
fn old_pods_stay_for_the_delay_and_come_back_within_it() {
    let mut sim = running(Sim::blue_green(json!({"autoPromotionEnabled": false, "scaleDownDelaySeconds": 60}), 3));
    sim.image("web:v2");
    sim.run(20);
    assert_eq!((told(&sim), active(&sim)), (("Paused", "BlueGreenPause"), "web:v1"));
    sim.patch("promote", |status| status.pause_conditions.clear());
    sim.run(30);
    assert_eq!((told(&sim), active(&sim)), (("Healthy", ""), "web:v2"));
    assert_eq!(sim.set("web:v1").replicas, 3);
    // No pause, and no new pod.
    sim.image("web:v1");
    sim.run(3);
    assert_eq!((told(&sim), active(&sim)), (("Healthy", ""), "web:v1"), "{}", sim.tail());
    assert_eq!(sim.status().duration.as_ref().unwrap().completion_status, "FastRolledBack");
    sim.run(56);
    assert_eq!(sim.set("web:v2").replicas, 3);
    sim.run(8);
    assert_eq!(sim.set("web:v2").replicas, 0);
    // Now it is an update like any other.
    sim.image("web:v2");
    sim.run(20);
    assert_eq!((told(&sim), active(&sim)), (("Paused", "BlueGreenPause"), "web:v1"));
}

/// From every moment of an update, also after the switch, and with pods that crash.
#[test]
fn an_abort_leads_back_from_everywhere() {
    let post = json!({"postPromotionAnalysis": {"templates": [{"templateName": "errors"}]}, "autoPromotionSeconds": 10,
        "prePromotionAnalysis": {"templates": [{"templateName": "errors"}]}, "previewReplicaCount": 1});
    for seconds in 0..40 {
        let mut sim = Sim::blue_green(post.clone(), 4).template("errors");
        sim.run(20);
        sim.image("web:v2");
        sim.run(seconds / 2);
        if let Some(run) = sim.world.analysis_runs.first().and_then(|run| run.metadata.name.clone()) {
            sim.judge(&run, AnalysisPhase::Successful, "");
        }
        sim.run(seconds - seconds / 2);
        sim.broken = (seconds % 3 == 0).then_some("web:v2");
        sim.patch("abort", |status| status.abort = true);
        sim.settle();
        assert_eq!((active(&sim), sim.status().phase.as_str()), ("web:v1", "Degraded"), "after {seconds} s");
        sim.run(90);
        assert_eq!((sim.set("web:v1").replicas, sim.set("web:v2").replicas), (4, 0), "after {seconds} s");
        assert_eq!(sim.selected("preview"), sim.set("web:v2").hash());
    }
}

#[test]
fn an_analysis_after_the_switch_takes_users_back() {
    let strategy = json!({"postPromotionAnalysis": {"templates": [{"templateName": "errors"}]}});
    let mut sim = Sim::blue_green(strategy, 3).template("errors");
    sim.run(20);
    sim.image("web:v2");
    sim.run(60);
    assert_eq!((told(&sim), active(&sim)), (("Progressing", "waiting for analysis to complete"), "web:v2"));
    assert_eq!(sim.set("web:v1").replicas, 3, "whatever the scale-down delay is");
    let run = sim.status().blue_green.post_promotion_analysis_run_status.as_ref().unwrap().name.clone();
    assert!(run.ends_with("-2-post"), "{run}");
    sim.judge(&run, AnalysisPhase::Failed, "too many");
    sim.settle();
    assert_eq!(active(&sim), "web:v1");
    assert_eq!(
        sim.status().message,
        "RolloutAborted: Rollout aborted update to revision 2: Blue/green post-promotion analysis phase error/failed: \
         too many"
    );
}

/// A user's word counts until it is kept, whatever the pods do in between. (Under Argo Rollouts the pause begins anew.)
#[test]
fn a_promotion_waits_for_pods_that_have_just_crashed() {
    for strategy in [json!({"autoPromotionEnabled": false}), json!({"autoPromotionSeconds": 3000})] {
        let mut sim = running(Sim::blue_green(strategy, 3));
        sim.image("web:v2");
        sim.run(20);
        sim.broken = Some("web:v2");
        sim.run(1);
        sim.patch("promote", |status| status.pause_conditions.clear());
        sim.run(60);
        assert_eq!(active(&sim), "web:v1");
        assert!(sim.status().controller_pause && sim.status().pause_conditions.is_empty());
        sim.broken = None;
        sim.run(10);
        assert_eq!((told(&sim), active(&sim)), (("Healthy", ""), "web:v2"));
    }
}

#[test]
fn a_preview_grows_before_it_is_promoted() {
    let mut sim = running(Sim::blue_green(json!({"autoPromotionSeconds": 30, "previewReplicaCount": 1}), 4));
    sim.image("web:v2");
    sim.run(20);
    assert_eq!((sim.set("web:v2").replicas, told(&sim)), (1, ("Paused", "BlueGreenPause")));
    sim.edit("the autoscaler", |rollout| rollout.spec.replicas = Some(6));
    sim.run(10);
    assert_eq!((sim.set("web:v1").replicas, sim.set("web:v2").replicas), (6, 1));
    sim.run(7);
    assert!(sim.status().blue_green.scale_up_preview_check_point);
    assert_eq!((sim.set("web:v2").replicas, active(&sim)), (6, "web:v1"));
    sim.run(10);
    assert_eq!((told(&sim), active(&sim)), (("Healthy", ""), "web:v2"));
    assert!(!sim.status().blue_green.scale_up_preview_check_point);
    assert_eq!((sim.status().hpa_replicas, sim.status().replicas), (6, 12));
    assert!(sim.status().selector.contains(sim.set("web:v2").hash()));
}

#[test]
fn an_analysis_is_no_lack_of_progress() {
    let strategy = json!({"prePromotionAnalysis": {"templates": [{"templateName": "errors"}]}});
    let mut sim = Sim::blue_green(strategy, 2).template("errors");
    sim.run(20);
    sim.edit("a short deadline", |rollout| {
        rollout.spec.progress_deadline_seconds = Some(30);
        rollout.spec.progress_deadline_abort = true;
    });
    sim.image("web:v2");
    sim.run(100);
    assert_eq!((sim.status().phase.as_str(), active(&sim)), ("Progressing", "web:v1"));
    let run = sim.status().blue_green.pre_promotion_analysis_run_status.as_ref().unwrap().name.clone();
    sim.judge(&run, AnalysisPhase::Successful, "");
    sim.run(60);
    assert_eq!((told(&sim), active(&sim)), (("Healthy", ""), "web:v2"));
}

/// In the middle of an update, too, and in both directions: no Service that users may call is ever without its pods.
#[test]
fn the_strategy_may_change_at_any_moment() {
    let blue_green =
        json!({"blueGreen": {"activeService": "active", "previewService": "preview", "autoPromotionSeconds": 9}});
    let canary = json!({"canary": {"stableService": "stable", "canaryService": "canary",
        "steps": [{"setWeight": 50}, {"pause": {"duration": "20s"}}]}});
    let basic = json!({"canary": {"steps": [{"setWeight": 50}, {"pause": {"duration": "20s"}}]}});
    for (from, to) in [(&blue_green, &canary), (&blue_green, &basic), (&canary, &blue_green), (&basic, &blue_green)] {
        for seconds in (0..36).step_by(3) {
            let mut sim = Sim::blue_green(json!({}), 4);
            sim.serve(&["stable", "canary"]);
            let change = |to: &Value| {
                let strategy = serde_json::from_value(to.clone()).unwrap();
                move |rollout: &mut crate::api::Rollout| rollout.spec.strategy = strategy
            };
            sim.edit("the first strategy", change(from));
            sim.run(20);
            sim.image("web:v2");
            let mut least = 0;
            // A canary's own Service has the pods of its weight.
            let called: &[&str] = if to["blueGreen"].is_object() { &["active", "stable"] } else { &["active"] };
            let behind = |sim: &Sim| called.iter().map(|name| sim.behind(name)).min().unwrap().min(3);
            for second in 0..150 {
                if second == seconds {
                    least = behind(&sim);
                    sim.edit("the other strategy", change(to));
                    if seconds % 2 == 0 {
                        sim.image("web:v3");
                    }
                }
                sim.run(1);
                if second >= seconds {
                    assert!(behind(&sim) >= least, "after {seconds} s: {}", sim.tail());
                }
            }
            assert_eq!(told(&sim), ("Healthy", ""), "after {seconds} s: {}", sim.tail());
            let used = |sim: &Sim| sim.world.replica_sets.iter().filter(|set| set.replicas > 0).count();
            assert_eq!(used(&sim), 1, "after {seconds} s: {}", sim.tail());
            let left = ["active", "preview", "stable", "canary"].into_iter().filter(|name| {
                !sim.world.rollout.spec.strategy.services().contains(name) && !sim.selected(name).is_empty()
            });
            assert_eq!(left.collect::<Vec<_>>(), Vec::<&str>::new(), "after {seconds} s");
        }
    }
}
