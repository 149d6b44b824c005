//! Istio is installed later than the controller, and DestinationRules are given back.

use super::*;
use crate::sandbox::cluster::route_crds;

const CRDS: &str = "customresourcedefinitions.apiextensions.k8s.io";
const VIRTUAL_SERVICES: &str = "virtualservices.networking.istio.io";
const DESTINATION_RULES: &str = "destinationrules.networking.istio.io";

fn in_mesh(name: &str) -> Value {
    let mut rollout = canary(name);
    rollout["spec"]["strategy"]["canary"]["trafficRouting"] = json!({"istio": {
        "virtualService": {"name": name},
        "destinationRule": {"name": name, "canarySubsetName": "canary", "stableSubsetName": "stable"},
    }});
    rollout
}

fn destination_rule(name: &str, version: &str, manager: &str) -> Value {
    let labels = if manager.is_empty() { json!({}) } else { json!({"a": "b", names::POD_TEMPLATE_HASH: "old"}) };
    let annotations = if manager.is_empty() { json!({}) } else { json!({names::MANAGED_BY: manager}) };
    json!({
        "apiVersion": format!("networking.istio.io/{version}"), "kind": "DestinationRule",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"host": name, "subsets": [{"name": "stable", "labels": labels}, {"name": "canary", "labels": labels}]},
    })
}

fn virtual_service(name: &str, version: &str) -> Value {
    let to = |subset: &str, weight: i32| json!({"destination": {"host": name, "subset": subset}, "weight": weight});
    json!({
        "apiVersion": format!("networking.istio.io/{version}"), "kind": "VirtualService", "metadata": {"name": name},
        "spec": {"hosts": [name], "http": [{"route": [to("stable", 100), to("canary", 0)]}]},
    })
}

#[tokio::test(start_paused = true)]
async fn istio_may_be_installed_later_and_in_another_version() {
    let cluster = Cluster::new();
    let running = cluster.run_with(rollout::decide, Settings { istio_api_version: "v1", ..Settings::default() });
    cluster.create(ROLLOUTS, in_mesh("web"));
    cluster.create(ROLLOUTS, canary("plain"));
    sleep(Duration::from_secs(40)).await;
    let message = cluster.status("web")["message"].to_string();
    assert!(message.contains("istio.destinationRule.name") && message.contains("not found"), "{message}");
    assert_eq!(cluster.status("plain")["phase"], "Healthy", "nobody else is kept waiting");

    for mut definition in route_crds::istio() {
        let versions = definition["spec"]["versions"].as_array_mut().unwrap();
        versions.retain(|version| version["name"] == "v1");
        versions[0]["storage"] = true.into();
        cluster.server.manager("test").create(CRDS, "", definition).unwrap();
    }
    cluster.create(DESTINATION_RULES, destination_rule("web", "v1", ""));
    cluster.create(VIRTUAL_SERVICES, virtual_service("web", "v1"));
    sleep(Duration::from_secs(60)).await;
    let status = cluster.status("web");
    assert_eq!(status["phase"], "Healthy", "{status:#}");
    let rule = cluster.get(DESTINATION_RULES, "web");
    assert_eq!(rule["spec"]["subsets"][0]["labels"][names::POD_TEMPLATE_HASH], status["stableRS"]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_destination_rule_is_given_back_only_when_its_rollout_is_really_gone() {
    let cluster = Cluster::with(crd::all().into_iter().map(|(_, crd)| crd).chain(route_crds::istio()));
    let mut foreign = canary("foreign");
    foreign["metadata"]["labels"] = json!({names::INSTANCE_ID: "another"});
    cluster.create(ROLLOUTS, foreign);
    for (name, manager) in [("web", ""), ("left", "gone"), ("moved", "web"), ("theirs", "foreign")] {
        cluster.create(DESTINATION_RULES, destination_rule(name, "v1alpha3", manager));
    }
    cluster.create(VIRTUAL_SERVICES, virtual_service("web", "v1alpha3"));
    let running = cluster.run(rollout::decide);
    cluster.create(ROLLOUTS, in_mesh("web"));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.status("web")["phase"], "Healthy", "{:#}", cluster.status("web"));
    let left = |name: &str| {
        let rule = cluster.get(DESTINATION_RULES, name);
        let hash = rule["spec"]["subsets"][1]["labels"][names::POD_TEMPLATE_HASH].clone();
        (hash, rule["metadata"]["annotations"][names::MANAGED_BY].clone())
    };
    assert_eq!(left("left"), (Value::Null, Value::Null));
    assert_eq!(left("moved"), (Value::Null, Value::Null), "the Rollout is there and refers to another one");
    assert_eq!(left("theirs"), (json!("old"), json!("foreign")), "another controller's Rollout");
    assert_eq!(cluster.get(DESTINATION_RULES, "left")["spec"]["subsets"][1]["labels"], json!({"a": "b"}));

    let bound = left("web");
    assert_eq!(bound.1, json!("web"));
    cluster.server.manager("test").delete(ROLLOUTS, "default", "web", &Default::default()).unwrap();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(left("web"), (Value::Null, Value::Null));
    running.stop().await;
}
