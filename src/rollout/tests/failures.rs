//! What fails for a while: pods, gateways and writes.

use crate::plan::{FailedAction, Failure};

use super::sim::Sim;
use super::{basic_steps, running};

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
