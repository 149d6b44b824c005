//! What users of a cluster see of requests, in virtual time.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::clock::Clock;
use crate::sandbox::workloads::Behaviour;
use crate::sandbox::{Cluster, Patch};

const WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: NAME}
spec: {selector: {app: NAME}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: NAME}
spec:
  replicas: 2
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME, rollouts-pod-template-hash: hash-of-NAME}}
    spec: {containers: [{name: web, image: 'web:NAME'}]}
";

const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec: {gatewayClassName: sandbox}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: edge}]
  hostnames: [web.example.com]
  rules:
  - matches: [{path: {value: /}, headers: [{name: X-Canary, value: 'yes'}]}]
    backendRefs: [{name: canary, port: 80}]
  - backendRefs: [{name: stable, port: 80, weight: 90}, {name: canary, port: 80, weight: 10}]
";

const INGRESS: &str = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec: {rules: [{host: web.example.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: stable, port: {number: 80}}}}]}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web-canary, annotations: {nginx.ingress.kubernetes.io/canary: 'true', nginx.ingress.kubernetes.io/canary-weight: '10'}}
spec: {rules: [{host: web.example.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: canary, port: {number: 80}}}}]}}]}
";

const ROUTES: &str = "httproutes.gateway.networking.k8s.io";

/// A stable and a canary version that are ready, and what leads to them.
async fn cluster(routing: &str) -> Cluster {
    let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
    let cluster = Cluster::builder().clock(clock).start();
    for name in ["stable", "canary"] {
        cluster.apply(&WEB.replace("NAME", name)).unwrap();
    }
    cluster.apply(routing).unwrap();
    seconds(5.0).await;
    cluster
}

async fn seconds(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

fn send(cluster: &Cluster, rate: f64) {
    cluster.send("users", Load { target: Target::host("web.example.com"), rate });
}

/// Requests by ReplicaSet since the beginning; `-` where no pod was reached.
fn by_set(cluster: &Cluster) -> BTreeMap<String, Counts> {
    let mut sets = BTreeMap::new();
    for answered in cluster.requests(|record| record.between(jiff::Timestamp::MIN, jiff::Timestamp::MAX)) {
        let set = if answered.replica_set.is_empty() { "-".to_owned() } else { answered.replica_set };
        *sets.entry(set).or_insert_with(Counts::default) += answered.counts;
    }
    sets
}

fn requests(cluster: &Cluster) -> [u64; 3] {
    let sets = by_set(cluster);
    ["stable", "canary", "-"].map(|set| sets.get(set).map_or(0, Counts::requests))
}

fn set_weights(cluster: &Cluster, stable: i64, canary: i64) {
    let edit = |route: &mut Value| {
        route["spec"]["rules"][1]["backendRefs"][0]["weight"] = stable.into();
        route["spec"]["rules"][1]["backendRefs"][1]["weight"] = canary.into();
    };
    cluster.user().edit(ROUTES, "default", "web", edit).unwrap();
}

/// The shares of the Services `stable` and `canary`.
fn split(cluster: &Cluster, target: &Target) -> [f64; 2] {
    let split = cluster.split(target);
    let of =
        |name: &str| split.iter().filter(|(it, _)| it.service == Name::new("default", name)).map(|(_, it)| it).sum();
    ["stable", "canary"].map(of)
}

/// `Accepted` and `ResolvedRefs` of the route as `status/reason/observedGeneration`.
fn report(cluster: &Cluster) -> Vec<String> {
    let route = cluster.user().get(ROUTES, "default", "web").unwrap();
    let conditions = route["status"]["parents"][0]["conditions"].as_array().cloned().unwrap_or_default();
    let text = |it: &Value| {
        format!("{}/{}/{}", it["status"].as_str().unwrap(), it["reason"].as_str().unwrap(), it["observedGeneration"])
    };
    conditions.iter().map(text).collect()
}

#[tokio::test(start_paused = true)]
async fn requests_follow_the_weights() {
    for (what, routing) in [("Gateway API", GATEWAY), ("ingress-nginx", INGRESS)] {
        let cluster = cluster(routing).await;
        send(&cluster, 50.0);
        seconds(100.0).await;
        assert_eq!(requests(&cluster), [4500, 500, 0], "{what}");
        assert_eq!(cluster.requests(|record| record.total().failures()), 0, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_header_leads_to_its_own_rule() {
    let cluster = cluster(GATEWAY).await;
    let headers = [("x-canary".to_owned(), "yes".to_owned())].into();
    let target = Target::Host { host: "web.example.com".into(), path: "/shop".into(), headers };
    assert_eq!(split(&cluster, &target), [0.0, 1.0]);
    assert_eq!(split(&cluster, &Target::host("web.example.com")), [0.9, 0.1]);
    assert_eq!(cluster.split(&Target::host("other.example.com")), BTreeMap::new());
}

#[tokio::test(start_paused = true)]
async fn a_gateway_follows_after_the_propagation_delay_and_says_so() {
    let cluster = cluster(GATEWAY).await;
    assert_eq!(report(&cluster), ["True/Accepted/1", "True/ResolvedRefs/1"]);
    send(&cluster, 1000.0);
    seconds(1.0).await;
    set_weights(&cluster, 50, 50);
    seconds(0.05).await;
    assert_eq!(report(&cluster), ["True/Accepted/1", "True/ResolvedRefs/1"]);
    seconds(1.95).await;
    assert_eq!(report(&cluster), ["True/Accepted/2", "True/ResolvedRefs/2"]);
    // 1.1 s at 10%, 1.9 s at 50%.
    assert_eq!(requests(&cluster)[1], 110 + 950);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_can_refuse_be_slow_lie_and_keep_silent() {
    let refuses = Conduct::Refuses { reason: "NotAllowedByListeners".into(), message: "no".into() };
    // How, after how many seconds, what it says, the share of the canary.
    for (conduct, wait, says, share) in [
        (refuses, 10.0, "False/NotAllowedByListeners/2", 0.1),
        (Conduct::Slow(Duration::from_secs(30)), 29.0, "True/Accepted/1", 0.1),
        (Conduct::Slow(Duration::from_secs(30)), 31.0, "True/Accepted/2", 0.5),
        (Conduct::Lies, 3600.0, "True/Accepted/2", 0.1),
        (Conduct::Silent, 3600.0, "True/Accepted/1", 0.1),
    ] {
        let cluster = cluster(GATEWAY).await;
        cluster.set_gateway(Some(Name::new("default", "web")), conduct.clone());
        set_weights(&cluster, 50, 50);
        seconds(wait).await;
        assert_eq!(report(&cluster)[0], says, "{conduct:?}");
        let split = |cluster: &Cluster| split(cluster, &Target::host("web.example.com"))[1];
        assert_eq!(split(&cluster), share, "{conduct:?}");
        cluster.set_gateway(Some(Name::new("default", "web")), Conduct::Follows);
        seconds(1.0).await;
        assert_eq!((report(&cluster)[0].as_str(), split(&cluster)), ("True/Accepted/2", 0.5), "{conduct:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_does_not_go_back_to_what_it_was_slow_to_follow() {
    let cluster = cluster(GATEWAY).await;
    cluster.set_gateway(Some(Name::new("default", "web")), Conduct::Slow(Duration::from_secs(30)));
    set_weights(&cluster, 50, 50);
    cluster.set_gateway(Some(Name::new("default", "web")), Conduct::Follows);
    set_weights(&cluster, 80, 20);
    for _ in 0..60 {
        seconds(1.0).await;
        assert_eq!(split(&cluster, &Target::host("web.example.com")), [0.8, 0.2]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_gateway_says_of_each_version_when_it_has_followed_that() {
    let cluster = cluster(GATEWAY).await;
    cluster.set_gateway(Some(Name::new("default", "web")), Conduct::Slow(Duration::from_secs(30)));
    seconds(10.0).await;
    set_weights(&cluster, 50, 50);
    for (after, says, share) in [(25.0, "True/Accepted/1", 0.1), (10.0, "True/Accepted/2", 0.5)] {
        seconds(after).await;
        let shares = split(&cluster, &Target::host("web.example.com"));
        assert_eq!(
            (report(&cluster)[0].as_str(), shares[1]),
            (says, share),
            "what was said of the first says nothing more"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_service_is_reported_and_loses_its_share() {
    let cluster = cluster(GATEWAY).await;
    send(&cluster, 100.0);
    cluster.user().delete("services", "default", "canary", &Default::default()).unwrap();
    seconds(1.0).await;
    assert_eq!(report(&cluster)[1], "False/BackendNotFound/1");
    seconds(99.0).await;
    let lost = cluster.requests(|record| record.total());
    assert!((980..=1000).contains(&lost.of(Outcome::NoBackend)), "{lost:?}");
    assert_eq!(lost.failures(), lost.lost());
}

#[tokio::test(start_paused = true)]
async fn a_service_without_endpoints_answers_503() {
    let cluster = cluster(GATEWAY).await;
    send(&cluster, 100.0);
    let none = Patch::Merge(json!({"spec": {"replicas": 0}}));
    cluster.user().patch("replicasets.apps", "default", "canary", &none).unwrap();
    seconds(60.0).await;
    let total = cluster.requests(|record| record.total());
    // The pods answer while they drain: until the gateway knows, nothing is lost.
    assert!(total.of(Outcome::NoEndpoints) > 590 && total.of(Outcome::Refused) == 0, "{total:?}");
}

#[tokio::test(start_paused = true)]
async fn pods_that_do_not_drain_lose_requests_until_gateways_know() {
    let cluster = cluster(GATEWAY).await;
    cluster.set_default_behaviour(Behaviour { drain: Duration::ZERO, ..Behaviour::default() });
    send(&cluster, 1000.0);
    let one = Patch::Merge(json!({"spec": {"replicas": 1}}));
    cluster.user().patch("replicasets.apps", "default", "stable", &one).unwrap();
    seconds(10.0).await;
    let total = cluster.requests(|record| record.total());
    // 100 ms for the endpoints, 100 ms for the gateway, 450 requests a second to the pod.
    assert_eq!((total.failures(), total.of(Outcome::Refused)), (90, 90));
}

#[tokio::test(start_paused = true)]
async fn pods_err_and_slow_down_as_told() {
    let cluster = cluster(GATEWAY).await;
    let bad = Behaviour { error_rate: 0.05, latency: Duration::from_millis(200), ..Behaviour::default() };
    cluster.set_image("web:canary", bad);
    set_weights(&cluster, 50, 50);
    seconds(1.0).await;
    send(&cluster, 200.0);
    seconds(300.0).await;
    let sets = by_set(&cluster);
    let (stable, canary) = (&sets["stable"], &sets["canary"]);
    assert_eq!((stable.failures(), canary.lost()), (0, 0));
    let rate = canary.error_rate().unwrap();
    assert!((rate - 0.05).abs() < 0.005, "{rate}");
    assert!(stable.quantile(0.99).unwrap() < 0.05, "{stable:?}");
    let median = canary.quantile(0.5).unwrap();
    assert!((0.1..0.25).contains(&median) && canary.quantile(0.99).unwrap() > 0.3, "{canary:?}");
    let answered = cluster.requests(|record| record.between(jiff::Timestamp::MIN, jiff::Timestamp::MAX));
    let canary = answered.iter().find(|it| it.replica_set == "canary").unwrap();
    assert_eq!((canary.hash.as_str(), canary.image.as_str()), ("hash-of-canary", "web:canary"));
}

#[tokio::test(start_paused = true)]
async fn nothing_matches_without_a_gateway_and_a_service_needs_none() {
    let cluster = cluster("").await;
    cluster.apply(GATEWAY.split("---").nth(1).unwrap()).unwrap();
    seconds(1.0).await;
    assert_eq!(report(&cluster), Vec::<String>::new(), "nobody speaks for a gateway that does not exist");
    send(&cluster, 10.0);
    cluster.send("inside", Load { target: Target::Service(Name::new("default", "stable")), rate: 10.0 });
    seconds(10.0).await;
    assert_eq!(requests(&cluster), [100, 0, 100]);
    cluster.stop_sending("inside");
    seconds(10.0).await;
    assert_eq!(requests(&cluster), [100, 0, 200]);
}

async fn trace(seed: u64) -> String {
    let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
    let cluster = Cluster::builder().seed(seed).clock(clock).start();
    for name in ["stable", "canary"] {
        cluster.apply(&WEB.replace("NAME", name)).unwrap();
    }
    cluster.apply(GATEWAY).unwrap();
    cluster.set_image("canary", Behaviour { error_rate: 0.2, ..Behaviour::default() });
    send(&cluster, 33.0);
    for (index, (stable, canary)) in [(70, 30), (50, 50), (0, 100)].into_iter().enumerate() {
        seconds(7.3).await;
        set_weights(&cluster, stable, canary);
        let pods = Patch::Merge(json!({"spec": {"replicas": index + 1}}));
        cluster.user().patch("replicasets.apps", "default", "canary", &pods).unwrap();
    }
    seconds(20.0).await;
    cluster.requests(Record::trace)
}

#[test]
fn the_same_seed_gives_the_same_requests() {
    let run = |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(trace(seed))
    };
    let first = run(3);
    assert!(first.lines().count() > 50, "{first}");
    assert!(first == run(3), "two runs with the same seed differ");
    assert!(first != run(4), "the seed makes no difference");
}

const ISTIO: &str = "
apiVersion: networking.istio.io/v1alpha3
kind: DestinationRule
metadata: {name: web}
spec:
  host: stable
  subsets:
  - {name: stable, labels: {rollouts-pod-template-hash: hash-of-stable}}
  - {name: empty, labels: {rollouts-pod-template-hash: hash-of-nobody}}
---
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata: {name: web}
spec:
  hosts: ['*.example.com']
  http:
  - match: [{headers: {x-canary: {regex: 'y.*'}}}]
    route: [{destination: {host: canary}}]
  - match: [{uri: {prefix: /empty}}]
    route: [{destination: {host: stable, subset: empty}}]
  - route:
    - {destination: {host: stable.default.svc.cluster.local, subset: stable}, weight: 75}
    - {destination: {host: canary}, weight: 25}
    mirror: {host: canary}
    mirrorPercentage: {value: 10}
";

#[tokio::test(start_paused = true)]
async fn a_mesh_follows_weights_headers_subsets_and_mirrors() {
    let cluster = cluster(ISTIO).await;
    let split = |path: &str, headers: &[(&str, &str)]| {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let target = Target::Host { host: "web.example.com".to_owned(), path: path.to_owned(), headers };
        split(&cluster, &target)
    };
    assert_eq!(split("/", &[]), [0.75, 0.25]);
    assert_eq!(split("/", &[("X-Canary", "yes")]), [0.0, 1.0]);
    assert_eq!(split("/", &[("X-Canary", "no")]), [0.75, 0.25]);
    send(&cluster, 100.0);
    seconds(10.0).await;
    let all = cluster.requests(|record| record.between(jiff::Timestamp::MIN, jiff::Timestamp::MAX));
    let of = |load: &str, set: &str| {
        let of = all.iter().filter(|it| it.load == load && it.replica_set == set);
        of.map(|it| it.counts.requests()).sum::<u64>()
    };
    assert_eq!((of("users", "stable"), of("users", "canary")), (750, 250));
    assert_eq!((of("users (mirrored)", "stable"), of("users (mirrored)", "canary")), (0, 100));
    let empty =
        Target::Host { host: "web.example.com".to_owned(), path: "/empty".to_owned(), headers: BTreeMap::new() };
    cluster.send("empty", Load { target: empty, rate: 10.0 });
    seconds(1.0).await;
    let all = cluster.requests(|record| record.between(jiff::Timestamp::MIN, jiff::Timestamp::MAX));
    let lost = all.iter().find(|it| it.load == "empty").unwrap();
    assert_eq!((lost.replica_set.as_str(), lost.counts.requests() > 0), ("", true), "a subset without pods");
}
