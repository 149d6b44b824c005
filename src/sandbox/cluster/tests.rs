//! The facade.

use super::*;

fn cluster() -> Cluster {
    Cluster::builder().namespace("shop").clock(Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap())).start()
}

#[tokio::test(start_paused = true)]
async fn manifests_are_applied() {
    let cluster = cluster();
    let rollout = "
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: web, namespace: shop}
spec: {replicas: 1}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec: {rules: []}
";
    assert_eq!(cluster.apply(rollout).unwrap().len(), 2);
    cluster.apply(&rollout.replace("replicas: 1", "replicas: 2")).unwrap();
    assert_eq!(cluster.user().get("rollouts.argoproj.io", "shop", "web").unwrap()["spec"]["replicas"], 2);
    for (yaml, message) in [
        ("{apiVersion: v1, kind: Nothing}", "no kind \"Nothing\" of \"v1\" is served"),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: nowhere}}",
            "Service web: namespaces \"nowhere\" not found",
        ),
    ] {
        assert_eq!(cluster.apply(yaml).unwrap_err().to_string(), message);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_can_go_on_from_the_objects_of_another() {
    let first = cluster();
    first.apply(WEB).unwrap();
    assert!(first.wait_until(Duration::from_secs(10), |it| ready(it) == 3).await);
    let fork = first.server().fork(first.server().clock().clone(), 2);
    let second = Cluster::builder().server(fork).start();
    second.apply(&WEB.replace("replicas: 3", "replicas: 5")).unwrap();
    assert!(second.wait_until(Duration::from_secs(10), |it| ready(it) == 5).await);
    assert_eq!(ready(&first), 3);
    second.stop().await;
}

const WEB: &str = "
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: web, namespace: shop}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: 'web:v1'}]}
";

fn ready(cluster: &Cluster) -> u64 {
    let set = cluster.user().get("replicasets.apps", "shop", "web").unwrap();
    set["status"]["readyReplicas"].as_u64().unwrap_or(0)
}
