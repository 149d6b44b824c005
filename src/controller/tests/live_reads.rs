//! What an action stands on is read once more before it is carried out.

use super::*;

use crate::api::resource::SERVICE;

/// Copies what Service `stable` says of itself to Service `canary`, if both are still as they were seen.
fn copies(world: &World) -> Plan<RolloutStatus> {
    let services = ["stable", "canary"].map(|name| world.services.get(name).map(|service| &service.object));
    let [Some(stable), Some(canary)] = services else { return plan(world, Vec::new(), "no Services yet".to_owned()) };
    if canary.annotations.contains_key("copy") {
        return plan(world, Vec::new(), "done".to_owned());
    }
    let by = [stable, canary].map(|service| Basis {
        object: ObjectRef::new(SERVICE, "default", &service.name),
        uid: service.uid.clone(),
        resource_version: Some(service.resource_version.clone()),
    });
    let copy = json!({"metadata": {"annotations": {"copy": stable.annotations.get("says")}}});
    let object = Basis { resource_version: None, ..by[1].clone() };
    let action = Action::MergePatch { object, patch: copy, what: "copy".to_owned() };
    plan(world, vec![action.confirmed(by.into())], "copying".to_owned())
}

/// One answer takes a second, and what was read first changes in that second.
#[tokio::test(start_paused = true)]
async fn what_was_read_a_second_ago_is_read_again() {
    let cluster = Cluster::new();
    let slow = AtomicBool::new(true);
    *cluster.calls.before.lock().unwrap() = Some(Box::new(move |call| {
        let is_it = call.verb == "get" && call.resource == "services" && call.name == "canary";
        if is_it && slow.swap(false, Relaxed) { Fault::Delay(Duration::from_secs(1)) } else { Fault::None }
    }));
    for name in ["stable", "canary"] {
        let port = json!({"port": 80});
        let annotations = json!({"says": "old"});
        cluster.create(
            "services",
            json!({"metadata": {"name": name, "annotations": annotations}, "spec": {"ports": [port]}}),
        );
    }
    let mut rollout = canary("web");
    rollout["spec"]["strategy"]["canary"]["stableService"] = "stable".into();
    rollout["spec"]["strategy"]["canary"]["canaryService"] = "canary".into();
    cluster.create(ROLLOUTS, rollout);
    let running = cluster.run(copies);
    sleep(Duration::from_millis(900)).await;
    assert_eq!(cluster.count("get", "services"), 2, "{:?}", cluster.trace(|call| call.verb == "get"));
    let edit = Patch::Merge(json!({"metadata": {"annotations": {"says": "new"}}}));
    cluster.server.manager("test").patch("services", "default", "stable", &edit).unwrap();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(cluster.get("services", "canary")["metadata"]["annotations"]["copy"], "new");
    assert_eq!(cluster.status("web")["message"], "done");
    running.stop().await;
}
