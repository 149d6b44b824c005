//! Queries as users write them, about requests that were really counted.

use std::time::Duration;

use serde_json::{Value, json};

use super::{PrometheusFault, parse};
use crate::clock::Clock;
use crate::sandbox::Cluster;
use crate::sandbox::traffic::{Load, Target};
use crate::sandbox::workloads::{Behaviour, Name};

const OBJECTS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec: {gatewayClassName: sandbox}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  rules: [{backendRefs: [{name: stable, port: 80, weight: 80}, {name: canary, port: 80, weight: 20}]}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: shop}
spec: {rules: [{host: web.example.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: stable, port: {number: 80}}}}]}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web-canary, namespace: shop, annotations: {nginx.ingress.kubernetes.io/canary: 'true', nginx.ingress.kubernetes.io/canary-weight: '20'}}
spec: {rules: [{host: web.example.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: canary, port: {number: 80}}}}]}}]}
";

const WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: NAME, namespace: shop}
spec: {selector: {app: NAME}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: NAME, namespace: shop}
spec:
  replicas: 1
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME, rollouts-pod-template-hash: hash-of-NAME}}
    spec: {containers: [{name: web, image: 'web:NAME'}]}
";

/// 100 requests a second for two minutes by a route (an Ingress when `ingress`), 20 of them to a canary of which each
/// request fails.
async fn cluster(ingress: bool) -> Cluster {
    let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
    let cluster = Cluster::builder().namespace("shop").clock(clock).start();
    let (routes, ingresses) = OBJECTS.split_at(OBJECTS.match_indices("---").nth(1).unwrap().0);
    cluster.apply(if ingress { ingresses } else { routes }).unwrap();
    for name in ["stable", "canary"] {
        cluster.apply(&WEB.replace("NAME", name)).unwrap();
    }
    cluster.set_image(
        "canary",
        Behaviour { error_rate: 1.0, latency: Duration::from_millis(300), ..Behaviour::default() },
    );
    tokio::time::sleep(Duration::from_secs(5)).await;
    cluster.send("users", Load { target: Target::host("web.example.com"), rate: 100.0 });
    tokio::time::sleep(Duration::from_secs(120)).await;
    cluster
}

fn result(cluster: &Cluster, query: &str) -> Value {
    let answer = cluster.prometheus().query(query, cluster.server().clock().now());
    answer.unwrap_or_else(|error| panic!("{query}: {error}"))["data"]["result"].clone()
}

/// The values of a result, in the order of its labels, rounded to a thousandth.
fn values(result: &Value) -> Vec<f64> {
    let number = |value: &Value| value[1].as_str().unwrap().replace("Inf", "inf").parse::<f64>().unwrap();
    let round = |value: f64| (value * 1000.0).round() / 1000.0;
    match result.as_array().unwrap().as_slice() {
        [Value::Number(_), _] => vec![round(number(result))],
        samples => samples.iter().map(|sample| round(number(&sample["value"]))).collect(),
    }
}

#[tokio::test(start_paused = true)]
async fn queries_have_the_values_that_prometheus_would_give() {
    let cluster = cluster(false).await;
    let traefik = |service: &str| {
        format!("traefik_service_requests_total{{service=\"shop-{service}-http-80@kubernetesgateway\"}}")
    };
    let canary = traefik("canary");
    for (query, expected) in [
        // Selectors.
        ("sum(traefik_service_requests_total)".to_owned(), vec![12_000.0]),
        (canary.clone(), vec![2400.0]),
        ("http_requests_total{rollouts_pod_template_hash='hash-of-stable'}".into(), vec![9600.0]),
        ("istio_requests_total{destination_service_name!~'can.*', response_code=~'[25]..'}".into(), vec![9600.0]),
        ("http_requests_total{service=~'stab'}".into(), vec![]),
        ("http_requests_total{absent_label='', service!='stable'}".into(), vec![2400.0]),
        ("{__name__=~'http_requests_.*', code='500'}".into(), vec![2400.0]),
        ("http_requests_total{service='canary'} offset 1m".into(), vec![1200.0]),
        // Functions of ranges.
        (format!("rate({canary}[1m])").replace("}[", "}["), vec![20.0]),
        (format!("increase({canary}[1m])"), vec![1200.0]),
        (format!("irate({canary}[1m])"), vec![20.0]),
        (format!("rate({canary}[500ms])"), vec![]),
        ("count_over_time(http_requests_total{service='canary'}[10s])".into(), vec![10.0]),
        // The judgements that users write.
        (
            "sum(rate(http_requests_total{service='canary',status!~'5.*'}[1m])) / sum(rate(http_requests_total{service='canary'}[1m]))".into(),
            vec![],
        ),
        (
            "(sum(rate(http_requests_total{service='canary',status!~'5.*'}[1m])) or vector(0)) / sum(rate(http_requests_total{service='canary'}[1m]))".into(),
            vec![0.0],
        ),
        ("sum(rate(istio_requests_total{response_code=~'5..'}[1m])) / sum(rate(istio_requests_total[1m]))".into(), vec![0.2]),
        ("histogram_quantile(0.5, sum(rate(http_request_duration_seconds_bucket{service='stable'}[1m])) by (le)) < bool 0.01".into(), vec![1.0]),
        ("histogram_quantile(0.95, sum by (le, service) (rate(http_request_duration_seconds_bucket[1m]))) > bool 0.3".into(), vec![1.0, 0.0]),
        ("rate(http_request_duration_seconds_sum{service='canary'}[1m]) / rate(http_request_duration_seconds_count{service='canary'}[1m]) > bool 0.28".into(), vec![1.0]),
        // Aggregations.
        ("sum by (service) (rate(http_requests_total[1m]))".into(), vec![20.0, 80.0]),
        ("max(http_requests_total) - min(http_requests_total)".into(), vec![7200.0]),
        ("avg without (service, pod, code, status, rollouts_pod_template_hash) (http_requests_total)".into(), vec![6000.0]),
        ("count(http_requests_total)".into(), vec![2.0]),
        // Operators.
        ("1 + 2 * 3 ^ 2 - 4 / 2".into(), vec![17.0]),
        ("-2 ^ 2".into(), vec![-4.0]),
        ("2 ^ 3 ^ 2".into(), vec![512.0]),
        ("7 % 4 == bool 3".into(), vec![1.0]),
        ("http_requests_total > 5000".into(), vec![9600.0]),
        ("10000 < http_requests_total".into(), vec![]),
        ("http_requests_total / on(service) sum by (service) (http_requests_total)".into(), vec![1.0, 1.0]),
        ("http_requests_total * ignoring(code, status) http_requests_total".into(), vec![5_760_000.0, 92_160_000.0]),
        ("http_requests_total and on(service) http_requests_total{service='canary'}".into(), vec![2400.0]),
        ("http_requests_total unless on(service) http_requests_total{service='canary'}".into(), vec![9600.0]),
        // What is not there.
        ("nothing".into(), vec![]),
        ("nothing or vector(0)".into(), vec![0.0]),
        ("absent(nothing{a='b'})".into(), vec![1.0]),
        ("absent(http_requests_total)".into(), vec![]),
        ("clamp_max(http_requests_total, 3000)".into(), vec![3000.0, 2400.0]),
        ("clamp_min(clamp(vector(7), 1, 5), 2)".into(), vec![5.0]),
        ("scalar(http_requests_total{service='canary'}) / 2".into(), vec![1200.0]),
        ("1 / 0".into(), vec![f64::INFINITY]),
        ("scalar(nothing) > bool 1".into(), vec![0.0]),
    ] {
        assert_eq!(values(&result(&cluster, &query)), expected, "{query}");
    }
    for query in ["0 / 0", "scalar(nothing)", "vector(0) / vector(0)"] {
        assert!(values(&result(&cluster, query))[0].is_nan(), "{query}");
    }
    assert_eq!(
        result(&cluster, "sum by (code) (http_requests_total)"),
        json!([
            {"metric": {"code": "200"}, "value": [1_767_225_725.0, "9600"]},
            {"metric": {"code": "500"}, "value": [1_767_225_725.0, "2400"]},
        ])
    );
}

#[tokio::test(start_paused = true)]
async fn ingress_nginx_tells_canaries_by_their_own_label() {
    let cluster = cluster(true).await;
    for (query, expected) in [
        ("sum(rate(nginx_ingress_controller_requests{ingress='web'}[1m]))", vec![100.0]),
        (
            "rate(nginx_ingress_controller_requests{canary='shop-canary-80',status='500',exported_service='stable'}[1m])",
            vec![20.0],
        ),
        ("rate(nginx_ingress_controller_requests{namespace='shop',service='stable',canary=''}[1m])", vec![80.0]),
        ("sum(rate(nginx_ingress_controller_requests{canary!='',status!~'[4-5].*'}[1m])) or vector(0)", vec![0.0]),
    ] {
        assert_eq!(values(&result(&cluster, query)), expected, "{query}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_counter_begins_with_its_pod_and_ends_with_it() {
    let cluster = cluster(false).await;
    let options = crate::sandbox::DeleteOptions::default();
    cluster.user().delete("replicasets.apps", "shop", "canary", &options).unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(values(&result(&cluster, "http_requests_total{service='canary'}")), Vec::<f64>::new());
    assert_eq!(values(&result(&cluster, "count(rate(http_requests_total{service='canary'}[1m]))")), [1.0]);
    // The gateway goes on counting: now it finds no endpoints.
    let query = "round(sum(rate(traefik_service_requests_total{service=~'shop-canary.*',code='503'}[5s])))";
    assert_eq!(values(&result(&cluster, query)), [20.0]);
}

#[tokio::test(start_paused = true)]
async fn wrong_queries_are_refused_with_a_reason() {
    let cluster = cluster(false).await;
    for (query, kind, reason) in [
        ("", "bad_data", "unexpected end of input"),
        ("sum(", "bad_data", "unexpected end of input"),
        ("a b", "bad_data", "unexpected identifier \"b\""),
        (
            "rate(http_requests_total)",
            "bad_data",
            "expected type range vector in call to function \"rate\", got instant vector",
        ),
        ("rate(http_requests_total[5x])", "bad_data", "bad number or duration syntax: \"5x\""),
        ("sum(1)", "bad_data", "expected type instant vector"),
        ("1 > 2", "bad_data", "comparisons between scalars must use BOOL modifier"),
        ("nosuch(1)", "bad_data", "unknown function with name \"nosuch\""),
        ("topk(1, http_requests_total)", "bad_data", "topk is not supported by the sandbox"),
        ("{a=~'('}", "bad_data", "regex parse error"),
        ("http_requests_total{code='200'", "bad_data", "unexpected end of input"),
        ("vector(1) + on() http_requests_total", "execution", "many-to-many matching not allowed"),
        ("http_requests_total'", "bad_data", "unterminated quoted string"),
    ] {
        let error = cluster.prometheus().query(query, cluster.server().clock().now()).unwrap_err();
        assert!(error.kind == kind && error.message.contains(reason), "{query}: {error:?}");
    }
    let deep = format!("{}1{}", "(".repeat(10_000), ")".repeat(10_000));
    assert!(parse::parse(&deep).unwrap_err().message.contains("too deeply"));
}

#[tokio::test(start_paused = true)]
async fn a_range_query_has_a_value_for_each_step() {
    let cluster = cluster(false).await;
    let end = cluster.server().clock().now();
    let start = end - jiff::SignedDuration::from_secs(60);
    let range = |start, end, step| {
        cluster.prometheus().query_range(
            "sum(http_requests_total{service='canary'})",
            start,
            end,
            Duration::from_secs(step),
        )
    };
    let answer = range(start, end, 30).unwrap();
    assert_eq!(
        answer["data"],
        json!({"resultType": "matrix", "result": [{"metric": {}, "values": [
            [1_767_225_665.0, "1200"], [1_767_225_695.0, "1800"], [1_767_225_725.0, "2400"],
        ]}]})
    );
    for (result, reason) in [
        (range(end, start, 30), "end timestamp must not be before start time"),
        (range(start, end, 0), "zero or negative query resolution step"),
    ] {
        assert!(result.unwrap_err().message.contains(reason));
    }
}

#[tokio::test]
async fn clients_reach_it_over_http() {
    // The binary does this at its start; here another test may have done it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cluster = Cluster::builder().start();
    cluster.apply(&WEB.replace("NAME", "web").replace("namespace: shop", "namespace: default")).unwrap();
    let serving = cluster.prometheus().serve(([127, 0, 0, 1], 0).into()).await.unwrap();
    cluster.send("users", Load { target: Target::Service(Name::new("default", "web")), rate: 10.0 });
    let plain = reqwest::Client::new();
    let api = format!("{}/api/v1", serving.url());
    let infinite = plain.get(format!("{api}/query?query=vector(1)%20/%200")).send().await.unwrap();
    assert_eq!(infinite.json::<Value>().await.unwrap()["data"]["result"][0]["value"][1], "+Inf");
    let range = "query=vector(1)&start=1767225600&end=2026-01-01T00:01:00Z&step=10s";
    let range = plain.get(format!("{api}/query_range?{range}")).send().await.unwrap();
    let range = range.json::<Value>().await.unwrap();
    assert_eq!(range["data"]["result"][0]["values"].as_array().unwrap().len(), 7);
    let form =
        plain.post(format!("{api}/query")).body("query=absent(nothing%7Ba%3D%22b+c%22%7D)").send().await.unwrap();
    assert_eq!(form.json::<Value>().await.unwrap()["data"]["result"][0]["metric"]["a"], "b c");
    let refused = plain.get(format!("{api}/query?query=sum(")).send().await.unwrap();
    assert_eq!(
        (refused.status().as_u16(), &refused.json::<Value>().await.unwrap()["errorType"]),
        (400, &json!("bad_data"))
    );
    let get = || {
        plain.get(format!("{}/api/v1/query?query=vector(1)", serving.url())).timeout(Duration::from_millis(500)).send()
    };
    for (fault, outcome) in [
        (PrometheusFault::None, "200 [\"1\"]"),
        (PrometheusFault::Code(503), "503"),
        (PrometheusFault::NotANumber, "200 [\"NaN\"]"),
        (PrometheusFault::Slow(Duration::from_secs(60)), "timeout"),
        (PrometheusFault::Down, "broken"),
    ] {
        cluster.prometheus().set_fault(fault.clone());
        let seen = match get().await {
            Err(error) if error.is_timeout() => "timeout".to_owned(),
            Err(_) => "broken".to_owned(),
            Ok(answer) if answer.status() != 200 => answer.status().as_u16().to_string(),
            Ok(answer) => match answer.json::<Value>().await {
                Ok(answer) => format!("200 [{}]", answer["data"]["result"][0]["value"][1]),
                Err(_) => "broken".to_owned(),
            },
        };
        assert_eq!(seen, outcome, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn data_can_be_missing_or_late() {
    let cluster = cluster(false).await;
    for (fault, query, expected) in [
        (PrometheusFault::Empty, "sum(rate(http_requests_total[1m]))", vec![]),
        (PrometheusFault::Late(Duration::from_secs(30)), "sum(http_requests_total)", vec![9000.0]),
        (PrometheusFault::Late(Duration::from_secs(90)), "sum(rate(http_requests_total[1m]))", vec![]),
        (PrometheusFault::None, "sum(http_requests_total)", vec![12_000.0]),
    ] {
        cluster.prometheus().set_fault(fault.clone());
        assert_eq!(values(&result(&cluster, query)), expected, "{fault:?}");
    }
}

/// Client and server live in one paused runtime: should tokio take their waiting for idleness, queries would cost time.
#[tokio::test(start_paused = true)]
async fn a_query_over_http_takes_no_virtual_time() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cluster = cluster(false).await;
    let serving = cluster.prometheus().serve(([127, 0, 0, 1], 0).into()).await.unwrap();
    for _ in 0..5 {
        // Not in the pool of connections of the one before.
        let client = reqwest::Client::new();
        let before = tokio::time::Instant::now();
        let timer = tokio::spawn(tokio::time::sleep(Duration::from_millis(3)));
        let url = format!("{}/api/v1/query?query=sum(http_requests_total)", serving.url());
        let answer = client.get(url).timeout(Duration::from_secs(10)).send().await.unwrap();
        let answer = answer.json::<Value>().await.unwrap();
        assert_eq!(answer["data"]["result"][0]["value"][1], "12000");
        assert_eq!(before.elapsed(), Duration::ZERO);
        timer.abort();
    }
}
