//! How many pods each version has: setCanaryScale, dynamicStableScale, delays and autoscalers.

use serde_json::{Value, json};

use super::sim::Sim;
use super::{basic_steps, running};

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
