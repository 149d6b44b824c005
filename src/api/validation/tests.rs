use serde_json::{Value, json};

use super::*;

/// A valid Rollout, with `patch` merged into its spec.
fn patched(patch: Value) -> Rollout {
    let mut object = json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "web:1"}]},
            },
            "strategy": {"canary": {"steps": [{"setWeight": 10}, {"pause": {}}]}},
        },
    });
    json_patch::merge(&mut object["spec"], &patch);
    serde_json::from_value(object).unwrap()
}

fn errors(patch: Value) -> Vec<String> {
    rollout(&patched(patch)).iter().map(ToString::to_string).collect()
}

fn canary(strategy: Value) -> Value {
    json!({"strategy": {"canary": strategy}})
}

fn routed(mut strategy: Value) -> Value {
    json_patch::merge(
        &mut strategy,
        &json!({
            "stableService": "stable", "canaryService": "canary",
            "trafficRouting": {"gatewayAPI": {"httpRoute": "web"}},
        }),
    );
    canary(strategy)
}

#[test]
fn a_sound_rollout_has_no_errors() {
    assert_eq!(errors(json!({})), [""; 0]);
    assert_eq!(errors(routed(json!({"steps": [{"setCanaryScale": {"replicas": 1}}]}))), [""; 0]);
    let nested = json!({"trafficRouting": {"nginx": {"stableService": "stable", "canaryService": "canary"}}});
    assert_eq!(errors(canary(nested.clone())), [""; 0]);
    assert_eq!(
        warnings(&patched(canary(nested)))[0],
        "spec.strategy.canary.trafficRouting.nginx.stableService: understood as spec.strategy.canary.stableService, where it \
         belongs; move it there"
    );
}

/// Each row: what is changed in a sound Rollout, and the start of the first error that it must give.
#[test]
fn every_rule_names_its_field() {
    let steps = |steps: Value| canary(json!({ "steps": steps }));
    let routed_steps = |steps: Value| routed(json!({ "steps": steps }));
    let istio = |strategy: Value| {
        let mut istio = json!({
            "stableService": "s", "canaryService": "c",
            "trafficRouting": {"istio": {"virtualService": {"name": "web"}}, "managedRoutes": [{"name": "by-header"}]},
        });
        json_patch::merge(&mut istio, &strategy);
        canary(istio)
    };
    for (patch, expected) in [
        (json!({"replicas": -1}), "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        (json!({"minReadySeconds": -1}), "spec.minReadySeconds: Invalid value: -1"),
        (json!({"revisionHistoryLimit": -1}), "spec.revisionHistoryLimit: Invalid value: -1"),
        (json!({"progressDeadlineSeconds": -1}), "spec.progressDeadlineSeconds: Invalid value: -1"),
        (
            json!({"progressDeadlineSeconds": 10, "minReadySeconds": 10}),
            "spec.progressDeadlineSeconds: Invalid value: 10: must be greater than minReadySeconds (10)",
        ),
        (json!({"selector": null}), "spec.selector: Required value"),
        (json!({"selector": {"matchLabels": null}}), "spec.selector: Invalid value: {}: empty selector is invalid"),
        (
            json!({"selector": {"matchExpressions": [{"key": "app", "operator": "Near"}]}}),
            "spec.selector.matchExpressions[0].operator: Unsupported value: \"Near\"",
        ),
        (
            json!({"selector": {"matchLabels": {"app": "other"}}}),
            "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
        ),
        (json!({"template": null}), "spec.template: Required value"),
        (json!({"workloadRef": {"name": "web"}}), "spec.template: Invalid value: "),
        (
            json!({"workloadRef": {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web"}, "template": null}),
            "spec.workloadRef.kind: Invalid value: \"StatefulSet\": workload of type apps/v1/StatefulSet is not supported",
        ),
        (
            json!({"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment"}, "template": null}),
            "spec.workloadRef.name: Required value",
        ),
        (
            json!({
                "workloadRef": {"apiVersion": "v1", "kind": "PodTemplate", "name": "web"},
                "template": null, "selector": null,
            }),
            "spec.selector: Required value: a PodTemplate has none to take it from",
        ),
        (
            json!({
                "workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "scaleDown": "slowly"},
                "template": null,
            }),
            "spec.workloadRef.scaleDown: Unsupported value: \"slowly\"",
        ),
        (json!({"strategy": {"canary": null}}), "spec.strategy: Required value"),
        (json!({"strategy": {"blueGreen": {"activeService": "a"}}}), "spec.strategy: Invalid value"),
        (
            json!({"strategy": {"canary": null, "blueGreen": {}}}),
            "spec.strategy.blueGreen.activeService: Invalid value: \"\"",
        ),
        (
            json!({"strategy": {"canary": null, "blueGreen": {"activeService": "a", "scaleDownDelayRevisionLimit": 11}}}),
            "spec.strategy.blueGreen.scaleDownDelayRevisionLimit: Invalid value: 11",
        ),
        (canary(json!({"maxSurge": 0, "maxUnavailable": "0%"})), "spec.strategy.canary.maxSurge: Invalid value: 0"),
        (
            canary(json!({"maxSurge": "many"})),
            "spec.strategy.canary.maxSurge: Invalid value: \"many\": must be a number",
        ),
        (
            canary(json!({"stableService": "web", "canaryService": "web"})),
            "spec.strategy.canary.stableService: Invalid value: \"web\": must differ from canaryService",
        ),
        (
            canary(json!({"scaleDownDelaySeconds": 5})),
            "spec.strategy.canary.scaleDownDelaySeconds: Invalid value: 5: needs trafficRouting",
        ),
        (
            canary(json!({"antiAffinity": {}})),
            "spec.strategy.canary.antiAffinity: Invalid value: {}: must have exactly one of",
        ),
        (
            canary(json!({"antiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": {"weight": 0}}})),
            "spec.strategy.canary.antiAffinity.preferredDuringSchedulingIgnoredDuringExecution.weight: Invalid value: 0",
        ),
        (steps(json!([{}])), "spec.strategy.canary.steps[0]: Invalid value: {}: a step must have one of"),
        (
            steps(json!([{"setWeight": 5}, {"setWeight": 5, "pause": {}}])),
            "spec.strategy.canary.steps[1]: Invalid value: {\"pause\":{},\"setWeight\":5}: a step must have only one of",
        ),
        (steps(json!([{"setWeight": 101}])), "spec.strategy.canary.steps[0].setWeight: Invalid value: 101"),
        (
            steps(json!([{"pause": {"duration": "10 minutes"}}])),
            "spec.strategy.canary.steps[0].pause.duration: Invalid value: \"10 minutes\": must be a number of seconds",
        ),
        (
            steps(json!([{"pause": {"duration": -5}}])),
            "spec.strategy.canary.steps[0].pause.duration: Invalid value: -5",
        ),
        (
            steps(json!([{"setCanaryScale": {"replicas": 1}}])),
            "spec.strategy.canary.steps[0].setCanaryScale: Invalid value: {\"replicas\":1}: needs trafficRouting",
        ),
        (
            routed_steps(json!([{"setCanaryScale": {"replicas": 1, "weight": 5}}])),
            "spec.strategy.canary.steps[0].setCanaryScale: Invalid value",
        ),
        (
            steps(json!([{"analysis": {}}])),
            "spec.strategy.canary.steps[0].analysis.templates: Required value: at least one AnalysisTemplate",
        ),
        (
            canary(json!({"analysis": {"templates": [{"templateName": "t"}], "startingStep": 3}})),
            "spec.strategy.canary.analysis.startingStep: Invalid value: 3",
        ),
        (
            canary(json!({"trafficRouting": {"gatewayAPI": {"httpRoute": "web"}}})),
            "spec.strategy.canary.stableService: Invalid value: \"\"",
        ),
        (
            canary(json!({"pingPong": {"pingService": "a", "pongService": "b"}})),
            "spec.strategy.canary.pingPong: Invalid value: {\"pingService\":\"a\",\"pongService\":\"b\"}: needs trafficRouting:",
        ),
        (
            canary(
                json!({"pingPong": {"pingService": "a", "pongService": "a"}, "trafficRouting": {"gatewayAPI": {"httpRoute": "web"}}}),
            ),
            "spec.strategy.canary.pingPong.pingService: Invalid value: \"a\": must differ from pongService",
        ),
        (
            routed(
                json!({"pingPong": {"pingService": "a", "pongService": "b"}, "trafficRouting": {"nginx": {"stableIngress": "web"}}}),
            ),
            "spec.strategy.canary.pingPong: Invalid value: {\"pingService\":\"a\",\"pongService\":\"b\"}: needs trafficRouting by",
        ),
        (canary(json!({"trafficRouting": {}})), "spec.strategy.canary.trafficRouting: Required value: a router"),
        (
            istio(json!({"trafficRouting": {"maxTrafficWeight": 1000}})),
            "spec.strategy.canary.trafficRouting.maxTrafficWeight: Invalid value: 1000",
        ),
        (
            steps(json!([{"setHeaderRoute": {"name": "x"}}])),
            "spec.strategy.canary.steps[0].setHeaderRoute: Invalid value: {\"name\":\"x\"}: needs trafficRouting",
        ),
        (
            istio(json!({"steps": [{"setHeaderRoute": {"name": "x"}}]})),
            "spec.strategy.canary.steps[0].setHeaderRoute.name: Invalid value: \"x\": must be listed in",
        ),
        (
            istio(json!({"steps": [{"setHeaderRoute": {"name": "by-header", "match": [{"headerName": "X"}]}}]})),
            "spec.strategy.canary.steps[0].setHeaderRoute.match[0].headerValue: Required value",
        ),
        (
            istio(json!({"steps": [{"setMirrorRoute": {"name": "by-header", "match": [{"path": {}}]}}]})),
            "spec.strategy.canary.steps[0].setMirrorRoute.match[0].path: Invalid value",
        ),
        (
            routed(json!({"trafficRouting": {"nginx": {"stableIngress": "a", "stableIngresses": ["b"]}}})),
            "spec.strategy.canary.trafficRouting.nginx.stableIngress: Invalid value: \"a\": only one of",
        ),
        (
            routed(json!({"trafficRouting": {"nginx": {"stableService": "other"}}})),
            "spec.strategy.canary.trafficRouting.nginx.stableService: Invalid value: \"other\": differs from",
        ),
    ] {
        let found = errors(patch.clone());
        let first = found.first().map_or("", String::as_str);
        assert!(first.starts_with(expected), "{patch}\n  expected {expected}\n  found    {found:#?}");
    }
}

#[test]
fn what_is_not_acted_upon_is_refused() {
    for (patch, path) in [
        (
            routed(json!({"trafficRouting": {"plugins": {"acme/router": {}}}})),
            "spec.strategy.canary.trafficRouting.plugins[acme/router]",
        ),
        (canary(json!({"steps": [{"plugin": {"name": "acme/step"}}]})), "spec.strategy.canary.steps[0].plugin"),
    ] {
        let expected =
            format!("{path}: Forbidden: this version of Tidegate does not act upon this field yet; remove it");
        assert!(errors(patch.clone()).contains(&expected), "{patch}: {:#?}", errors(patch.clone()));
    }
}

#[test]
fn all_errors_come_at_once_and_the_first_is_the_message() {
    let rollout = patched(json!({"replicas": -1, "strategy": {"canary": {"steps": [{"setWeight": 200}]}}}));
    let errors = super::rollout(&rollout);
    assert_eq!(errors.len(), 2, "{errors:#?}");
    assert_eq!(
        message(&rollout, &errors[0]),
        "The Rollout \"web\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"
    );
}
