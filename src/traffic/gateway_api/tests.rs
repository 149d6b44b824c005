use super::*;
use crate::traffic::fixtures::{self, rollout, rollout_with, with_experiment};

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

fn with<T>(rollout: &Rollout, list: &[Value], f: impl FnOnce(&Context<'_>) -> T) -> T {
    fixtures::with(rollout, HTTP_ROUTE, list, f)
}

fn edited(rollout: &Rollout, route: &Value, wanted: Wanted<'_>) -> Value {
    let list = std::slice::from_ref(route);
    fixtures::edited(&GatewayApiRouter, rollout, HTTP_ROUTE, list, wanted).unwrap().remove(0)
}

#[test]
fn only_our_weights_and_our_label_change() {
    let before = route("web", json!(0), json!(100));
    let after = edited(&native(), &before, Wanted::only(&Split::new(20, 100)));
    let mut expected = before.clone();
    expected["spec"]["rules"][1]["backendRefs"][1]["weight"] = json!(80);
    expected["spec"]["rules"][1]["backendRefs"][2]["weight"] = json!(20);
    expected["metadata"]["labels"][IN_PROGRESS_KEY] = json!(IN_PROGRESS_VALUE);
    assert_eq!(after, expected);
    assert_eq!(edited(&native(), &after, Wanted::only(&Split::new(0, 100))), before);
    // Made already: nothing to write.
    assert_eq!(edited(&native(), &after, Wanted::only(&Split::new(20, 100))), after);
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
    let actions =
        with(&selecting, &list, |context| GatewayApiRouter.edit(context, Wanted::only(&Split::new(5, 100)))).unwrap();
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

/// The managed routes of every step, as if all had been reached.
fn all_steps(rollout: &Rollout) -> Vec<Managed<'_>> {
    crate::traffic::managed::every(rollout).collect()
}

fn stepping(steps: Value) -> Rollout {
    rollout_with(json!({
        "steps": steps,
        "trafficRouting": {"managedRoutes": [{"name": "beta"}, {"name": "copy"}], "gatewayAPI": {"httpRoute": "web"}},
    }))
}

fn header(name: &str, value: Value) -> Value {
    json!({"setHeaderRoute": {"name": "beta", "match": [{"headerName": name, "headerValue": value}]}})
}

#[test]
fn a_header_route_is_a_rule_before_the_users_for_a_part_of_its_requests() {
    for (value, expected) in [
        (json!({"exact": "yes"}), json!({"name": "x-beta", "type": "Exact", "value": "yes"})),
        (json!({"prefix": "v1."}), json!({"name": "x-beta", "type": "RegularExpression", "value": r"v1\..*"})),
        (json!({"regex": "a|b"}), json!({"name": "x-beta", "type": "RegularExpression", "value": "a|b"})),
    ] {
        let rollout = stepping(json!([header("x-beta", value)]));
        let before = route("web", json!(0), json!(100));
        let managed = all_steps(&rollout);
        let split = Split::new(0, 100);
        let after = edited(&rollout, &before, Wanted { split: Some(&split), managed: &managed });
        let made = json!({
            "name": "beta",
            "matches": [{"path": {"value": "/"}, "headers": [expected]}],
            "filters": [{"type": "URLRewrite"}],
            "backendRefs": [{"name": "web-canary", "port": 80, "weight": 1}],
        });
        assert_eq!(after["spec"]["rules"][0], made);
        assert_eq!(after["spec"]["rules"].as_array().unwrap()[1..], before["spec"]["rules"].as_array().unwrap()[..]);

        // What is there already is not written again, whatever the weight; and without a wanted route it goes.
        let observed = with(&rollout, std::slice::from_ref(&after), |it| GatewayApiRouter.observe(it, 100)).unwrap();
        assert!(observed.managed.contains("beta") && observed.makes(&split), "{observed:?}");
        assert_eq!(edited(&rollout, &after, Wanted { split: None, managed: &managed }), after);
        assert_eq!(edited(&rollout, &after, Wanted::only(&split)), before);

        // An API server that does not know names of rules drops them: the rule is known by what it is.
        let mut nameless = after.clone();
        nameless["spec"]["rules"][0].as_object_mut().unwrap().remove("name");
        assert_eq!(edited(&rollout, &nameless, Wanted { split: None, managed: &managed }), nameless);
        assert_eq!(edited(&rollout, &nameless, Wanted::only(&split)), before);
    }
}

#[test]
fn all_headers_of_a_step_must_match_and_replace_those_of_the_rule() {
    let rollout = stepping(json!([{"setHeaderRoute": {"name": "beta", "match": [
        {"headerName": "X-Beta", "headerValue": {"exact": "yes"}}, {"headerName": "x-team", "headerValue": {"exact": "a"}},
    ]}}]));
    let mut before = route("web", json!(0), json!(100));
    before["spec"]["rules"][1]["matches"] =
        json!([{"headers": [{"name": "x-beta", "value": "no"}, {"name": "x-kept", "value": "k"}]}, {"method": "GET"}]);
    let after = edited(&rollout, &before, Wanted { split: None, managed: &all_steps(&rollout) });
    let [beta, team] = [("X-Beta", "yes"), ("x-team", "a")]
        .map(|(name, value)| json!({"name": name, "type": "Exact", "value": value}));
    let expected = json!([{"headers": [{"name": "x-kept", "value": "k"}, beta, team]}, {"method": "GET", "headers": [beta, team]}]);
    assert_eq!(after["spec"]["rules"][0]["matches"], expected);
}

#[test]
fn a_mirror_route_copies_requests_and_splits_them_as_the_rule_does() {
    let mirror = json!({"setMirrorRoute": {
        "name": "copy", "percentage": 20, "match": [{"method": {"exact": "GET"}, "path": {"prefix": "/shop"}}],
    }});
    let rollout = stepping(json!([mirror, header("x-beta", json!({"exact": "yes"}))]));
    let before = route("web", json!(0), json!(100));
    let managed = all_steps(&rollout);
    // As decisions order them: beta comes first in managedRoutes.
    let managed: Vec<_> = managed.into_iter().rev().collect();
    let after = edited(&rollout, &before, Wanted { split: Some(&Split::new(10, 100)), managed: &managed });
    let names: Vec<&str> =
        after["spec"]["rules"].as_array().unwrap().iter().map(|rule| rule["name"].as_str().unwrap_or("-")).collect();
    assert_eq!(names, ["beta", "copy", "-", "-", "header"]);
    let rule = &after["spec"]["rules"][1];
    assert_eq!(rule["matches"], json!([{"method": "GET", "path": {"type": "PathPrefix", "value": "/shop"}}]));
    let backend = json!({"group": "", "kind": "Service", "name": "web-canary", "port": 80});
    let filter = json!({"type": "RequestMirror", "requestMirror": {"backendRef": backend, "percent": 20}});
    assert_eq!(rule["filters"], json!([{"type": "URLRewrite"}, filter]));
    assert_eq!(rule["backendRefs"], after["spec"]["rules"][3]["backendRefs"]);

    // The weights of the copy follow, and count as observed as long as they do not.
    let more = Split::new(50, 100);
    let next = edited(&rollout, &after, Wanted { split: Some(&more), managed: &managed });
    assert_eq!(next["spec"]["rules"][1]["backendRefs"], next["spec"]["rules"][3]["backendRefs"]);
    let mut half = next.clone();
    half["spec"]["rules"][1] = after["spec"]["rules"][1].clone();
    let makes = |route: &Value| {
        with(&rollout, std::slice::from_ref(route), |it| GatewayApiRouter.observe(it, 100)).unwrap().makes(&more)
    };
    assert!(makes(&next) && !makes(&half));
}

#[test]
fn managed_rules_go_even_when_the_users_rule_is_broken() {
    let rollout = stepping(json!([header("x-beta", json!({"exact": "yes"}))]));
    let before = route("web", json!(0), json!(100));
    let mut after = edited(&rollout, &before, Wanted { split: None, managed: &all_steps(&rollout) });
    after["spec"]["rules"][2]["backendRefs"] = json!([{"name": "web-stable", "port": 80}]);
    let left = edited(&rollout, &after, Wanted::only(&Split::new(0, 100)));
    assert_eq!(left["spec"]["rules"].as_array().unwrap().len(), 3);
    let wanted = Split::new(0, 100);
    let error = with(&rollout, &[left], |context| GatewayApiRouter.edit(context, Wanted::only(&wanted))).unwrap_err();
    assert!(error.to_string().contains("no rule of spec.rules has both"), "{error}");
}

#[test]
fn header_routes_are_made_only_where_the_settings_say_so() {
    let routing = json!({"gatewayAPI": {"httpRoutes": [{"name": "web", "useHeaderRoutes": true}, {"name": "inner"}]}});
    let rollout =
        rollout_with(json!({"steps": [header("x-beta", json!({"exact": "yes"}))], "trafficRouting": routing}));
    let list = [route("web", json!(0), json!(100)), route("inner", json!(0), json!(100))];
    let wanted = Wanted { split: None, managed: &all_steps(&rollout) };
    let after = fixtures::edited(&GatewayApiRouter, &rollout, HTTP_ROUTE, &list, wanted).unwrap();
    assert_eq!(after[0]["spec"]["rules"].as_array().unwrap().len(), 4);
    assert_eq!(after[1], list[1]);
}

#[test]
fn backends_of_experiments_come_and_go_and_stable_gives_their_part() {
    let before = route("web", json!(0), json!(100));
    let wanted = with_experiment(20, 15);
    let during = edited(&native(), &before, Wanted::only(&wanted));
    let backends = during["spec"]["rules"][1]["backendRefs"].as_array().unwrap();
    assert_eq!(backends[1]["weight"], json!(65));
    assert_eq!(
        backends[3],
        json!({"group": "", "kind": "Service", "name": "web-exp", "port": 8080, "weight": 15}),
        "the port is that of the Service"
    );
    let observed = with(&native(), std::slice::from_ref(&during), |it| GatewayApiRouter.observe(it, 100)).unwrap();
    assert!(observed.makes(&wanted), "{observed:?}");
    let more = with_experiment(20, 30);
    let changed = edited(&native(), &during, Wanted::only(&more));
    assert_eq!(changed["spec"]["rules"][1]["backendRefs"][3]["weight"], json!(30));
    assert_eq!(edited(&native(), &changed, Wanted::only(&Split::new(0, 100))), before);
}
