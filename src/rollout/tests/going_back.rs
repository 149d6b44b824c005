//! Aborts, retries and rollbacks: from every state, and with whatever is missing or broken.

use serde_json::json;

use super::sim::Sim;
use super::{basic_steps, running};

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
