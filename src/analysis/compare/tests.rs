use serde_json::{Value, json};

use super::*;

fn parsed(compare: Value, more: Value) -> Result<Comparison, String> {
    let mut metric = json!({"name": "errors", "compare": compare});
    metric.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let metric: Metric = serde_json::from_value(metric).unwrap();
    let path = FieldPath::new("spec.metrics[0]");
    Comparison::parse(&metric, metric.compare.as_ref().unwrap(), 1, &path).map_err(|error| error.to_string())
}

#[test]
fn one_word_is_enough() {
    let comparison = parsed(json!({"source": "traefik"}), json!({})).unwrap();
    let settings = &comparison.settings;
    assert_eq!((settings.margin.ratio(), settings.margin.absolute()), (1.25, 0.0));
    assert!((settings.alpha - 0.01).abs() < 1e-12);
    assert_eq!((settings.warm_up, settings.horizon, settings.early), (60.0, 1860.0, false));
    assert_eq!(comparison.undecided, AnalysisPhase::Inconclusive);
    assert_eq!(comparison.dispersion, None);
}

#[test]
fn everything_can_be_said() {
    let compare = json!({
        "source": "istio", "slowerThan": "500ms", "margin": "100%", "tolerance": "0.05%", "confidence": "99.9%",
        "horizon": "2h", "undecided": "Successful", "promoteEarly": true, "dispersion": "2.5",
    });
    let comparison = parsed(compare, json!({"initialDelay": "2m", "interval": "15s"})).unwrap();
    let settings = &comparison.settings;
    assert_eq!((settings.margin.ratio(), settings.margin.absolute()), (2.0, 0.0005));
    assert_eq!((settings.safe.ratio(), settings.safe.absolute()), (2.0, 0.001));
    assert!((settings.alpha - 0.001).abs() < 1e-12);
    assert_eq!((settings.warm_up, settings.horizon, settings.early), (120.0, 7320.0, true));
    assert_eq!((comparison.undecided, comparison.dispersion), (AnalysisPhase::Successful, Some(2.5)));
    assert_eq!(comparison.words.failed, "took longer than 500ms");
}

#[test]
fn what_makes_no_sense_is_refused_where_it_stands() {
    let own = json!({"total": "t", "errors": "e"});
    for (compare, more, message) in [
        (
            json!({}),
            json!({}),
            "compare.source: Required value: one of traefik, nginx, istio, envoy, linkerd, red; or name counters in canary and \
             stable",
        ),
        (
            json!({"source": "haproxy"}),
            json!({}),
            "compare.source: Unsupported value: \"haproxy\": supported values: \"traefik\", \"nginx\", \"istio\", \"envoy\", \
             \"linkerd\", \"red\"",
        ),
        (
            json!({"source": "red", "canary": own}),
            json!({}),
            "compare.canary: Forbidden: the source has its own counters: name one or the other",
        ),
        (json!({"canary": own}), json!({}), "compare.stable: Required value: the version's counters; or name a source"),
        (
            json!({"canary": {"total": "t"}, "stable": own}),
            json!({}),
            "compare.canary.errors: Required value: what counts as failed; or good",
        ),
        (
            json!({"canary": {"total": "t", "errors": "e", "good": "g"}, "stable": own}),
            json!({}),
            "compare.canary.good: Forbidden: errors is set: name one of them",
        ),
        (
            json!({"canary": {"total": " ", "errors": "e"}, "stable": own}),
            json!({}),
            "compare.canary.total: Required value: a counter, such as http_requests_total{service=\"web\"}",
        ),
        (
            json!({"canary": own, "stable": {"total": "sum(rate(t[1m]))", "errors": "e"}}),
            json!({}),
            "compare.stable.total: Invalid value: \"sum(rate(t[1m]))\": must be a counter without functions and ranges: how \
             much it grew is counted for each series, so that neither resets nor new pods distort it",
        ),
        (
            json!({"canary": own, "stable": own, "slowerThan": "1s"}),
            json!({}),
            "compare.slowerThan: Invalid value: \"1s\": needs a source; with counters of your own, name those of a bucket in \
             good",
        ),
        (
            json!({"source": "red", "slowerThan": "soon"}),
            json!({}),
            "compare.slowerThan: Invalid value: \"soon\": invalid duration",
        ),
        (
            json!({"source": "red", "slowerThan": "0s"}),
            json!({}),
            "compare.slowerThan: Invalid value: \"0s\": must be longer than zero",
        ),
        (
            json!({"source": "red", "margin": "1.25"}),
            json!({}),
            "compare.margin: Invalid value: \"1.25\": must be a share from 0% to 10000%",
        ),
        (
            json!({"source": "red", "margin": "NaN%"}),
            json!({}),
            "compare.margin: Invalid value: \"NaN%\": must be a share from 0% to 10000%",
        ),
        (
            json!({"source": "red", "tolerance": "60%"}),
            json!({}),
            "compare.tolerance: Invalid value: \"60%\": must be a share from 0% to 50%",
        ),
        (
            json!({"source": "red", "confidence": "100%"}),
            json!({}),
            "compare.confidence: Invalid value: \"100%\": must be a share from 50% to 99.9999%",
        ),
        (
            json!({"source": "red", "horizon": "10s"}),
            json!({}),
            "compare.horizon: Invalid value: \"10s\": must be at least 1m",
        ),
        (
            json!({"source": "red", "undecided": "Promote"}),
            json!({}),
            "compare.undecided: Unsupported value: \"Promote\": supported values: \"Inconclusive\", \"Successful\", \
             \"Failed\"",
        ),
        (
            json!({"source": "red", "dispersion": 0}),
            json!({}),
            "compare.dispersion: Invalid value: 0: must be from 1 to 50",
        ),
        (
            json!({"source": "red", "dispersion": "many"}),
            json!({}),
            "compare.dispersion: Invalid value: \"many\": must be a number from 1 to 50",
        ),
        (
            json!({"source": "red"}),
            json!({"failureLimit": 3}),
            "failureLimit: Forbidden: compare decides by itself when a metric ends and how; set compare.horizon, confidence \
             and undecided",
        ),
        (
            json!({"source": "red"}),
            json!({"provider": {"web": {"url": "http://x"}}}),
            "provider.web: Forbidden: compare counts with prometheus only",
        ),
        (
            json!({"source": "red"}),
            json!({"provider": {"prometheus": {"query": "up"}}}),
            "provider.prometheus.query: Forbidden: compare makes its own queries; name other counters in compare.canary and \
             compare.stable",
        ),
    ] {
        let error = parsed(compare.clone(), more).unwrap_err();
        assert!(error.starts_with(&format!("spec.metrics[0].{message}")), "{compare}: {error}");
    }
}

#[test]
fn each_source_has_counters_for_both_versions() {
    let versions = Versions {
        namespace: "shop".into(),
        rollout: "web".into(),
        canary_service: "web-canary".into(),
        stable_service: "web-stable".into(),
        canary_hash: "6d4f".into(),
        stable_hash: "58bc".into(),
    };
    for (compare, total, judged, stable) in [
        (
            json!({"source": "traefik"}),
            r#"traefik_service_requests_total{service=~"shop-web-canary-(http-)?[a-z0-9]+@kubernetes.*"}"#,
            Judged::Errors(
                r#"traefik_service_requests_total{service=~"shop-web-canary-(http-)?[a-z0-9]+@kubernetes.*",code=~"5.."}"#
                    .into(),
            ),
            r#"traefik_service_requests_total{service=~"shop-web-stable-(http-)?[a-z0-9]+@kubernetes.*"}"#,
        ),
        (
            json!({"source": "nginx"}),
            r#"nginx_ingress_controller_requests{canary=~"shop-web-canary-[a-z0-9]+"}"#,
            Judged::Errors(
                r#"nginx_ingress_controller_requests{canary=~"shop-web-canary-[a-z0-9]+",status=~"5.."}"#.into(),
            ),
            r#"nginx_ingress_controller_requests{namespace="shop",service="web-stable",canary=""}"#,
        ),
        (
            json!({"source": "istio", "slowerThan": "500ms"}),
            r#"istio_request_duration_milliseconds_count{reporter="destination",destination_workload_namespace="shop",pod=~"web-6d4f-[a-z0-9]+"}"#,
            Judged::Good(
                r#"istio_request_duration_milliseconds_bucket{reporter="destination",destination_workload_namespace="shop",pod=~"web-6d4f-[a-z0-9]+",le=~"500(\\.0)?"}"#.into(),
            ),
            r#"istio_request_duration_milliseconds_count{reporter="destination",destination_workload_namespace="shop",pod=~"web-58bc-[a-z0-9]+"}"#,
        ),
        (
            json!({"source": "envoy"}),
            r#"envoy_cluster_upstream_rq_total{envoy_cluster_name=~"shop[_/]web-canary[_/].+"}"#,
            Judged::Errors(
                r#"envoy_cluster_upstream_rq{envoy_cluster_name=~"shop[_/]web-canary[_/].+",envoy_response_code=~"5.."}"#
                    .into(),
            ),
            r#"envoy_cluster_upstream_rq_total{envoy_cluster_name=~"shop[_/]web-stable[_/].+"}"#,
        ),
        (
            json!({"source": "linkerd"}),
            r#"response_total{direction="inbound",namespace="shop",pod=~"web-6d4f-[a-z0-9]+"}"#,
            Judged::Errors(
                r#"response_total{direction="inbound",namespace="shop",pod=~"web-6d4f-[a-z0-9]+",classification="failure"}"#
                    .into(),
            ),
            r#"response_total{direction="inbound",namespace="shop",pod=~"web-58bc-[a-z0-9]+"}"#,
        ),
        (
            json!({"source": "red", "slowerThan": "250ms"}),
            r#"http_request_duration_seconds_count{namespace="shop",pod=~"web-6d4f-[a-z0-9]+"}"#,
            Judged::Good(
                r#"http_request_duration_seconds_bucket{namespace="shop",pod=~"web-6d4f-[a-z0-9]+",le="0.25"}"#.into(),
            ),
            r#"http_request_duration_seconds_count{namespace="shop",pod=~"web-58bc-[a-z0-9]+"}"#,
        ),
    ] {
        let (canary, other) = parsed(compare, json!({})).unwrap().queries(&versions);
        assert_eq!((canary.total.as_str(), other.total.as_str()), (total, stable));
        assert_eq!(canary.judged, judged);
    }
    let own = |version: &str| json!({"total": format!("t{{v='{version}'}}"), "good": " g "});
    let (canary, stable) =
        parsed(json!({"canary": own("c"), "stable": own("s")}), json!({})).unwrap().queries(&versions);
    assert_eq!((canary.total.as_str(), stable.total.as_str()), ("t{v='c'}", "t{v='s'}"));
    assert_eq!(canary.judged, Judged::Good("g".into()));
}
