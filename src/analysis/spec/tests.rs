use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::api::analysis::AnalysisTemplateSpec;

const PATH: &str = "spec.strategy.canary.steps[1].analysis";

fn templates(namespaced: Value, cluster: Value) -> Templates {
    let read = |json: Value| {
        let read: BTreeMap<String, AnalysisTemplateSpec> = serde_json::from_value(json).unwrap();
        read.into_iter().map(|(name, spec)| (name, Arc::new(spec))).collect()
    };
    Templates { namespaced: read(namespaced), cluster: read(cluster) }
}

fn metric(name: &str) -> Value {
    json!({"name": name, "provider": {"web": {"url": "http://x"}}})
}

fn rollout() -> Rollout {
    serde_json::from_value(json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": {
            "name": "shop", "namespace": "prod", "uid": "u-1",
            "labels": {"region": "eu", "a/b": "c"},
            "annotations": {"owner": "team \"x\""},
        },
        "spec": {
            "replicas": 3,
            "template": {"spec": {"containers": [{"name": "web", "image": "shop:2"}]}},
        },
        "status": {"stableRS": "abc"},
    }))
    .unwrap()
}

fn analysis(json: Value) -> RolloutAnalysis {
    serde_json::from_value(json).unwrap()
}

fn made(asked: Value, templates: &Templates) -> Result<AnalysisRunSpec, SpecError> {
    let rollout = rollout();
    for_rollout(&analysis(asked), Source { rollout: &rollout, stable_hash: "old", latest_hash: "new", templates })
}

fn problems(asked: Value, purpose: Purpose, templates: &Templates) -> Vec<String> {
    let rollout = rollout();
    let source = Source { rollout: &rollout, stable_hash: "", latest_hash: "new", templates };
    let errors = validate_reference(&analysis(asked), purpose, &FieldPath::new(PATH), source);
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn templates_are_flattened_each_once_namespaced_ones_first() {
    let templates = templates(
        json!({
            "a": {"metrics": [metric("a")], "templates": [{"templateName": "c"}, {"templateName": "shared", "clusterScope": true}]},
            "b": {"metrics": [metric("b")], "templates": [{"templateName": "a"}]},
            "c": {"metrics": [metric("c")], "templates": [{"templateName": "a"}]},
        }),
        json!({"shared": {"metrics": [metric("shared")], "args": [{"name": "x", "value": "1"}]}}),
    );
    let asked = json!({"templates": [
        {"templateName": "shared", "clusterScope": true}, {"templateName": "a"}, {"templateName": "b"},
    ]});
    let spec = made(asked, &templates).unwrap();
    let names: Vec<&str> = spec.metrics.iter().map(|metric| metric.name.as_str()).collect();
    assert_eq!(names, ["a", "c", "b", "shared"]);
    assert_eq!(serde_json::to_value(&spec.args).unwrap(), json!([{"name": "x", "value": "1"}]));
}

#[test]
fn arguments_of_the_rollout_win_and_unknown_ones_are_left_out() {
    let templates = templates(
        json!({"t": {
            "metrics": [metric("m")],
            "args": [
                {"name": "plain"},
                {"name": "default", "value": "template"},
                {"name": "kept", "value": "template"},
                {"name": "secret", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                {"name": "overridden", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                {"name": "field", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['region']"}}},
                {"name": "stable"}, {"name": "latest"}, {"name": "image"}, {"name": "replicas"}, {"name": "empty"},
            ],
        }}),
        json!({}),
    );
    let asked = json!({
        "templates": [{"templateName": "t"}],
        "args": [
            {"name": "plain", "value": "p"},
            {"name": "default", "value": "rollout"},
            {"name": "overridden", "value": "open"},
            {"name": "unknown", "value": "ignored"},
            {"name": "stable", "valueFrom": {"podTemplateHashValue": "Stable"}},
            {"name": "latest", "valueFrom": {"podTemplateHashValue": "Latest"}},
            {"name": "image", "valueFrom": {"fieldRef": {"fieldPath": "spec.template.spec.containers[0].image"}}},
            {"name": "replicas", "valueFrom": {"fieldRef": {"fieldPath": "spec.replicas"}}},
            {"name": "empty"},
        ],
    });
    let spec = made(asked, &templates).unwrap();
    assert_eq!(
        serde_json::to_value(&spec.args).unwrap(),
        json!([
            {"name": "plain", "value": "p"},
            {"name": "default", "value": "rollout"},
            {"name": "kept", "value": "template"},
            {"name": "secret", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "overridden", "value": "open"},
            {"name": "field", "value": "eu"},
            {"name": "stable", "value": "old"},
            {"name": "latest", "value": "new"},
            {"name": "image", "value": "shop:2"},
            {"name": "replicas", "value": "3"},
            {"name": "empty", "value": ""},
        ])
    );
}

#[test]
fn arguments_of_several_templates_are_merged_by_name() {
    let both = |left: Value, right: Value| {
        let templates = templates(
            json!({"l": {"metrics": [metric("l")], "args": [left]}, "r": {"metrics": [metric("r")], "args": [right]}}),
            json!({}),
        );
        let spec = made(json!({"templates": [{"templateName": "l"}, {"templateName": "r"}]}), &templates);
        spec.map(|spec| serde_json::to_value(&spec.args).unwrap()).map_err(|error| error.to_string())
    };
    let secret = json!({"name": "x", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}});
    let (none, one, two) =
        (json!({"name": "x"}), json!({"name": "x", "value": "1"}), json!({"name": "x", "value": "2"}));
    assert_eq!(both(none.clone(), one.clone()), Ok(json!([one])));
    assert_eq!(both(one.clone(), none.clone()), Ok(json!([one])));
    assert_eq!(both(one.clone(), one.clone()), Ok(json!([one])));
    assert_eq!(both(secret.clone(), none.clone()), Ok(json!([secret])));
    assert_eq!(both(none.clone(), secret.clone()), Ok(json!([secret])));
    assert_eq!(both(one, two), Err("Argument `x` specified multiple times with different values: '1', '2'".to_owned()));
    assert_eq!(both(none.clone(), none), Err("args.x was not resolved".to_owned()));
}

#[test]
fn rules_are_those_of_rollout_and_templates() {
    let templates = templates(
        json!({"t": {
            "metrics": [metric("m")],
            "dryRun": [{"metricName": "m"}],
            "measurementRetention": [{"metricName": "m", "limit": 3}],
        }}),
        json!({}),
    );
    let asked = |rule: &str| {
        json!({
            "templates": [{"templateName": "t"}],
            "dryRun": [{"metricName": rule}],
            "measurementRetention": [{"metricName": ".*", "limit": 7}],
        })
    };
    let spec = made(asked("m.*"), &templates).unwrap();
    assert_eq!(serde_json::to_value(&spec.dry_run).unwrap(), json!([{"metricName": "m.*"}, {"metricName": "m"}]));
    assert_eq!(
        serde_json::to_value(&spec.measurement_retention).unwrap(),
        json!([{"metricName": ".*", "limit": 7}, {"metricName": "m", "limit": 3}])
    );
    let error = made(asked("m"), &templates).unwrap_err();
    assert_eq!(error.to_string(), "two Dry-Run metric rules have the same name 'm'");
}

#[test]
fn a_field_of_the_rollout_is_found_or_named() {
    let rollout = rollout();
    let templates = Templates::default();
    let source = Source { rollout: &rollout, stable_hash: "", latest_hash: "", templates: &templates };
    let field = |path: &str| Lookup { source, missing: Missing::Refused }.field(path);
    for (path, value) in [
        ("metadata.name", "shop"),
        ("metadata.namespace", "prod"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['region']", "eu"),
        ("metadata.labels['absent']", ""),
        ("metadata.annotations['owner']", "team \"x\""),
        ("metadata.labels", "a/b=\"c\"\nregion=\"eu\""),
        ("status.stableRS", "abc"),
        ("spec.replicas", "3"),
        ("spec.template.spec.containers[0].name", "web"),
    ] {
        assert_eq!(field(path).as_deref(), Ok(value), "{path}");
    }
    for (path, problem) in [
        ("status.currentPodHash", "invalid path status.currentPodHash in rollout"),
        ("spec.replicas.more", "invalid path spec.replicas.more in rollout"),
        ("spec.template.spec.containers[1].name", "index 1 out of range"),
        ("spec.template.spec.containers[x].name", "invalid index 'x'"),
        ("spec.template", "path spec.template in rollout must terminate in a primitive value"),
    ] {
        assert_eq!(field(path), Err(problem.to_owned()), "{path}");
    }
    for path in ["metadata.generation", "metadata.labels[region]", "metadata.name['x']", "metadata"] {
        assert!(field(path).unwrap_err().starts_with(&format!("unsupported fieldPath: {path};")), "{path}");
    }
}

#[test]
fn a_reference_is_judged_before_there_is_a_run() {
    let endless = json!({"name": "endless", "interval": "1m", "provider": {"web": {"url": "http://x"}}});
    let templated = json!({
        "name": "m", "interval": "{{args.interval}}", "count": "{{args.count}}",
        "provider": {"web": {"url": "http://{{args.host}}"}},
    });
    let templates = templates(
        json!({
            "fine": {"metrics": [metric("fine")]},
            "fine-too": {"metrics": [metric("fine")]},
            "endless": {"metrics": [endless]},
            "templated": {"metrics": [templated], "args": [
                {"name": "interval", "value": "1m"}, {"name": "count"}, {"name": "host", "value": "x"},
            ]},
            "nesting": {"templates": [{"templateName": "endless"}]},
            "nesting-nothing": {"templates": [{"templateName": "absent"}]},
            "empty": {},
            "unresolvable": {"metrics": [{"name": "m", "interval": "{{args.x}}", "provider": {"web": {}}}]},
            "ruled": {"metrics": [metric("ruled")], "dryRun": [{"metricName": "nothing"}]},
            "kayenta": {"metrics": [{"name": "m", "provider": {"kayenta": {}}}]},
        }),
        json!({}),
    );
    let named = |name: &str| json!({"templates": [{"templateName": name}]});
    let with = |mut asked: Value, field: &str, value: Value| {
        asked[field] = value;
        asked
    };
    let cases = [
        (named("fine"), Purpose::Gate, ""),
        (named("absent"), Purpose::Gate, ".templates: Invalid value: \"absent\": AnalysisTemplate 'absent' not found"),
        (
            json!({"templates": [{"templateName": "fine", "clusterScope": true}]}),
            Purpose::Gate,
            ".templates: Invalid value: \"fine\": ClusterAnalysisTemplate 'fine' not found",
        ),
        (
            named("nesting-nothing"),
            Purpose::Gate,
            ".templates: Invalid value: \"absent\": AnalysisTemplate 'absent' not found",
        ),
        (
            json!({"templates": [{"templateName": "fine"}, {"templateName": "fine-too"}]}),
            Purpose::Gate,
            ".templates: Invalid value: \"templateNames: [fine fine-too]\": two metrics have the same name 'fine'",
        ),
        (
            named("endless"),
            Purpose::Gate,
            ".templates: Invalid value: \"endless\": AnalysisTemplate endless has metric endless which runs indefinitely. Invalid value for count: <nil>",
        ),
        (named("endless"), Purpose::Background, ""),
        (
            named("nesting"),
            Purpose::Gate,
            ".templates: Invalid value: \"endless\": AnalysisTemplate endless has metric endless which runs indefinitely. Invalid value for count: <nil>",
        ),
        (
            named("templated"),
            Purpose::Gate,
            ".templates: Invalid value: \"templateNames: [templated]\": args.count was not resolved",
        ),
        (with(named("templated"), "args", json!([{"name": "count", "value": "3"}])), Purpose::Gate, ""),
        (
            with(named("templated"), "args", json!([{"name": "count", "value": "few"}])),
            Purpose::Gate,
            ".templates: Invalid value: \"templated\": AnalysisTemplate templated: spec.metrics[0].count: Invalid value: \"few\": must be an integer",
        ),
        (
            // The field may come to exist by the time of the run.
            with(
                named("templated"),
                "args",
                json!([{"name": "count", "value": "2"}, {"name": "host", "valueFrom": {"fieldRef": {"fieldPath": "status.nothing"}}}]),
            ),
            Purpose::Gate,
            "",
        ),
        (
            with(
                named("fine"),
                "args",
                json!([{"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "metadata.generation"}}}]),
            ),
            Purpose::Gate,
            ".args[0].valueFrom.fieldRef.fieldPath: Invalid value: \"metadata.generation\": unsupported fieldPath: metadata.generation; supported are metadata.name, metadata.namespace, metadata.uid, metadata.labels, metadata.annotations, metadata.labels['KEY'] and metadata.annotations['KEY']",
        ),
        (
            with(named("fine"), "args", json!([{"name": "a", "valueFrom": {"podTemplateHashValue": "Oldest"}}])),
            Purpose::Gate,
            ".args[0].valueFrom.podTemplateHashValue: Unsupported value: \"Oldest\": supported values: \"Stable\", \"Latest\"",
        ),
        (
            named("empty"),
            Purpose::Gate,
            ".templates: Invalid value: \"empty\": AnalysisTemplate empty: spec.metrics: Required value: no metrics specified",
        ),
        (json!({}), Purpose::Gate, ".templates: Required value: no metrics specified"),
        (
            named("unresolvable"),
            Purpose::Gate,
            ".templates: Invalid value: \"unresolvable\": AnalysisTemplate unresolvable: failed to resolve {{args.x}}",
        ),
        (
            named("kayenta"),
            Purpose::Background,
            ".templates: Invalid value: \"kayenta\": AnalysisTemplate kayenta: spec.metrics[0].provider.kayenta: Forbidden: this provider is not supported yet; prometheus, web and job are",
        ),
        (
            named("ruled"),
            Purpose::Gate,
            ".templates: Invalid value: \"templateNames: [ruled]\": dryRun[0].metricName: Invalid value: \"nothing\": Rule didn't match any metric name(s)",
        ),
        (
            with(named("fine"), "dryRun", json!([{"metricName": "other"}])),
            Purpose::Gate,
            ".dryRun[0].metricName: Invalid value: \"other\": Rule didn't match any metric name(s)",
        ),
    ];
    for (asked, purpose, problem) in cases {
        let expected: Vec<String> = if problem.is_empty() { Vec::new() } else { vec![format!("{PATH}{problem}")] };
        assert_eq!(problems(asked.clone(), purpose, &templates), expected, "{asked}");
    }
}

#[test]
fn an_experiment_gives_its_own_arguments() {
    let templates = templates(
        json!({"t": {"metrics": [metric("m")], "args": [{"name": "a"}, {"name": "b"}, {"name": "f", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}}),
        json!({}),
    );
    let refs = [TemplateRef { template_name: "t".into(), cluster_scope: false }];
    let args = |json: Value| -> Vec<Argument> { serde_json::from_value(json).unwrap() };
    let given = args(json!([
        {"name": "a", "value": "1"},
        {"name": "b", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        {"name": "f", "value": "x"},
    ]));
    let spec = from_templates(&refs, &given, &[], &[], &templates).unwrap();
    assert_eq!(spec.args, given);
    let error = from_templates(&refs, &given[..2], &[], &[], &templates).unwrap_err().to_string();
    assert!(error.starts_with("args[2].valueFrom.fieldRef.fieldPath: Invalid value: \"metadata.name\""), "{error}");
}

#[test]
fn names_are_those_of_argo() {
    assert_eq!(run_name("shop", "6f5d", 2, "1"), "shop-6f5d-2-1");
    assert_eq!(run_name("shop", "6f5d", 2, ""), "shop-6f5d-2");
    assert_eq!(run_name("shop", "6f5d", 2, "pre"), "shop-6f5d-2-pre");
    let names: Vec<String> = (0..3).map(|collisions| collision_name("n", collisions)).collect();
    assert_eq!(names, ["n", "n.1", "n.2"]);
}

#[test]
fn only_what_is_measured_makes_two_runs_differ() {
    let templates = templates(json!({"t": {"metrics": [metric("m")]}}), json!({}));
    let spec = made(json!({"templates": [{"templateName": "t"}]}), &templates).unwrap();
    assert!(semantically_equal(&spec, &AnalysisRunSpec { terminate: true, ..spec.clone() }));
    assert!(!semantically_equal(&spec, &AnalysisRunSpec { metrics: Vec::new(), ..spec.clone() }));
}

#[test]
fn a_rollout_says_which_versions_a_metric_compares() {
    let compare = |source: &str| json!({"name": "errors", "compare": {"source": source}});
    let templates = templates(
        json!({"services": {"metrics": [compare("traefik")]}, "pods": {"metrics": [compare("red")]}}),
        json!({}),
    );
    let asked = |template: &str| json!({"templates": [{"templateName": template}]});
    let made = made(asked("pods"), &templates).unwrap();
    let compared = made.metrics[0].compare.as_ref().unwrap();
    assert_eq!(
        (compared.canary_replica_set.as_deref(), compared.stable_replica_set.as_deref()),
        (Some("shop-new"), Some("shop-old"))
    );
    // It ends by itself, so that a step may wait for it.
    assert_eq!(problems(asked("pods"), Purpose::Gate, &templates), [""; 0]);
    // Nor while there is no update, and both are the same.
    let source = Source { rollout: &rollout(), stable_hash: "old", latest_hash: "old", templates: &templates };
    assert_eq!(validate_reference(&analysis(asked("pods")), Purpose::Background, &FieldPath::new(PATH), source), []);
    let problem = |template: &str, name: &str, purpose| {
        let problems = problems(asked(template), purpose, &templates);
        let [problem] = problems.as_slice() else { panic!("{problems:?}") };
        assert!(
            problem.contains(&format!(
                "AnalysisTemplate {template}: spec.metrics[0].compare.{name}: Required value: the name of the"
            )),
            "{problem}"
        );
    };
    // This Rollout has no Services, and an Experiment knows of no Rollout.
    problem("services", "canaryService", Purpose::Background);
    problem("pods", "canaryReplicaSet", Purpose::Experiment);
}
