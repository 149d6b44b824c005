use std::collections::BTreeMap;

use super::*;
use crate::traffic::observed::{Observed, Routes};

fn rollout(routing: Value) -> Rollout {
    let rollout = json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": "web", "namespace": "shop", "uid": "rollout-uid"},
        "spec": {"strategy": {"canary": {
            "stableService": "web-stable", "canaryService": "web-canary", "trafficRouting": routing,
        }}},
    });
    serde_json::from_value(rollout).unwrap()
}

fn native() -> Rollout {
    rollout(json!({"gatewayAPI": {"httpRoute": "web"}}))
}

/// A route with a rule that splits, one with filters and a foreign backend beside, and one that is somebody else's.
fn route(name: &str, canary: Value, stable: Value) -> Value {
    let weighted = |name: &str, weight: &Value| {
        let mut backend = json!({"name": name, "port": 80});
        if !weight.is_null() {
            backend["weight"] = weight.clone();
        }
        backend
    };
    json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": "route-uid", "resourceVersion": "7", "generation": 3,
            "labels": {"app": "web"},
        },
        "spec": {"rules": [
            {"backendRefs": [{"name": "api", "port": 80}]},
            {
                "matches": [{"path": {"value": "/"}}],
                "filters": [{"type": "URLRewrite"}],
                "backendRefs": [
                    {"name": "legacy", "port": 80, "weight": 10},
                    weighted("web-stable", &stable),
                    weighted("web-canary", &canary),
                ],
            },
            {"name": "header", "matches": [{"headers": []}], "backendRefs": [{"name": "web-canary", "port": 80}]},
        ]},
        "status": {"parents": [parent("True", "True", 3)]},
    })
}

fn parent(accepted: &str, resolved: &str, generation: i64) -> Value {
    let condition = |type_: &str, status: &str| json!({"type": type_, "status": status, "observedGeneration": generation, "reason": "Why", "message": "because"});
    json!({
        "parentRef": {"name": "public"},
        "conditions": [condition("Accepted", accepted), condition("ResolvedRefs", resolved)],
    })
}

fn routes(list: &[Value]) -> Routes {
    let entry = |route: &Value| {
        let metadata = &route["metadata"];
        let text = |field: &str| metadata[field].as_str().unwrap();
        let observed = Observed { object: Arc::new(route.clone()), since: jiff::Timestamp::UNIX_EPOCH };
        (ObjectRef::new(HTTP_ROUTE, text("namespace"), text("name")), observed)
    };
    list.iter().map(entry).collect()
}

fn with<T>(rollout: &Rollout, list: &[Value], f: impl FnOnce(&Context<'_>) -> T) -> T {
    let routes = routes(list);
    f(&Context {
        rollout,
        stable_service: "web-stable",
        canary_service: "web-canary",
        services: &BTreeMap::new(),
        routes: &routes,
    })
}

fn edited(rollout: &Rollout, route: &Value, wanted: &Split) -> Value {
    let actions = with(rollout, std::slice::from_ref(route), |context| GatewayApiRouter.edit(context, wanted)).unwrap();
    let mut route = route.clone();
    for action in actions {
        let Action::JsonPatch { patch, .. } = action else { panic!("{action}") };
        json_patch::patch(&mut route, &patch).unwrap();
    }
    route
}

#[test]
fn only_our_weights_and_our_label_change() {
    let before = route("web", json!(0), json!(100));
    let after = edited(&native(), &before, &Split::new(20, 100));
    let mut expected = before.clone();
    expected["spec"]["rules"][1]["backendRefs"][1]["weight"] = json!(80);
    expected["spec"]["rules"][1]["backendRefs"][2]["weight"] = json!(20);
    expected["metadata"]["labels"][IN_PROGRESS_KEY] = json!(IN_PROGRESS_VALUE);
    assert_eq!(after, expected);
    assert_eq!(edited(&native(), &after, &Split::new(0, 100)), before);
    // Made already: nothing to write.
    assert_eq!(edited(&native(), &after, &Split::new(20, 100)), after);
}

#[test]
fn the_split_is_read_from_the_route_not_from_memory() {
    for (canary, stable, expected) in [
        (json!(0), json!(100), (0, 100)),
        (json!(25), json!(75), (25, 75)),
        // Weights that are not written count as 1 each: half of the traffic.
        (Value::Null, Value::Null, (50, 50)),
        // Another sum than ours is scaled, rounded against us.
        (json!(1), json!(2), (34, 67)),
        (json!(0), json!(0), (0, 0)),
    ] {
        let list = [route("web", canary, stable)];
        let observed = with(&native(), &list, |context| GatewayApiRouter.observe(context, 100)).unwrap();
        assert_eq!((observed.split.canary, observed.split.stable), expected);
        assert_eq!(observed.applied, Applied::Yes);
    }
}

#[test]
fn a_weight_counts_as_applied_when_every_gateway_says_so() {
    let cases = [
        (json!([]), "no gateway has accepted HTTPRoute shop/web yet"),
        (json!([parent("True", "True", 2)]), "has taken up generation 2 of HTTPRoute shop/web, not yet 3"),
        (
            json!([parent("True", "True", 3), {"parentRef": {"name": "inner"}}]),
            "gateway inner has not reported Accepted",
        ),
        (json!([parent("False", "True", 3)]), "refuses HTTPRoute shop/web: Accepted is False: Why: because"),
        (json!([parent("True", "False", 3)]), "refuses HTTPRoute shop/web: ResolvedRefs is False: Why: because"),
    ];
    for (parents, expected) in cases {
        let mut route = route("web", json!(5), json!(95));
        route["status"]["parents"] = parents;
        let observed = with(&native(), &[route], |context| GatewayApiRouter.observe(context, 100)).unwrap();
        match observed.applied {
            Applied::Pending { why } => assert!(why.contains(expected) && !why.contains("refuses"), "{why}"),
            Applied::Refused { why } => assert!(why.contains(expected), "{why}"),
            Applied::Yes => panic!("applied, expected {expected}"),
        }
    }
}

#[test]
fn the_plugins_settings_are_understood() {
    let config = json!({
        "httpRoute": "web", "httpRoutes": [{"name": "inner", "useHeaderRoutes": true}],
        "grpcRoutes": [{"name": "rpc"}], "namespace": "edge",
    });
    let rollout = rollout(json!({"plugins": {GATEWAY_API_PLUGIN: config}}));
    let needs = GatewayApiRouter.needs(&rollout);
    let expected = [(HTTP_ROUTE, "inner"), (HTTP_ROUTE, "web"), (GRPC_ROUTE, "rpc")];
    assert_eq!(needs.objects, expected.map(|(resource, name)| ObjectRef::new(resource, "edge", name)));

    let selector = json!({"matchLabels": {"app": "web"}});
    let selecting =
        self::rollout(json!({"gatewayAPI": {"httpRouteSelector": selector, "disableInProgressLabel": true}}));
    let needs = GatewayApiRouter.needs(&selecting);
    assert!(needs.objects.is_empty());
    assert_eq!(needs.selected.len(), 1);
    let mut other = route("other", json!(0), json!(100));
    other["metadata"]["labels"] = json!({});
    let list = [route("web", json!(0), json!(100)), other];
    let actions = with(&selecting, &list, |context| GatewayApiRouter.edit(context, &Split::new(5, 100))).unwrap();
    assert_eq!(
        actions.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["patch HTTPRoute shop/web: weight 5 to Service web-canary, 95 to Service web-stable"]
    );
}

#[test]
fn what_cannot_be_done_is_refused_with_the_reason() {
    let observe = |rollout: &Rollout, list: &[Value]| {
        with(rollout, list, |context| GatewayApiRouter.observe(context, 100)).unwrap_err().to_string()
    };
    assert_eq!(observe(&native(), &[]), "HTTPRoute shop/web does not exist");
    let mut unfit = route("web", json!(0), json!(100));
    unfit["spec"]["rules"][1]["backendRefs"][2]["name"] = json!("web-canarry");
    assert!(observe(&native(), &[unfit]).starts_with(
        "HTTPRoute shop/web: no rule of spec.rules has both Service \"web-stable\" (stable) and Service \"web-canary\" (canary)"
    ));
    let nothing = rollout(json!({"gatewayAPI": {}}));
    assert!(observe(&nothing, &[]).contains("no route is named or selected"));
    let wrong = rollout(json!({"plugins": {GATEWAY_API_PLUGIN: {"httpRoutes": [{"nam": "web"}]}}}));
    assert!(
        observe(&wrong, &[]).contains("plugins[\"argoproj-labs/gatewayAPI\"].httpRoutes[0]"),
        "{}",
        observe(&wrong, &[])
    );
    let both =
        rollout(json!({"gatewayAPI": {"httpRoute": "web"}, "plugins": {GATEWAY_API_PLUGIN: {"httpRoute": "web"}}}));
    assert!(observe(&both, &[]).contains("is given twice"));
}
