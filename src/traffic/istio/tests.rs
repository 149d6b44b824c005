use serde_json::json;

use super::*;
use crate::api::names::{MANAGED_BY, POD_TEMPLATE_HASH};
use crate::traffic::fixtures::{self, rollout, rollout_with, with_experiment};
use crate::traffic::managed::{self, Managed};
use crate::traffic::{Applied, Split};

fn by_host() -> Rollout {
    rollout(json!({"istio": {"virtualService": {"name": "web"}}}))
}

fn by_subset() -> Rollout {
    rollout(json!({"istio": {
        "virtualService": {"name": "web"},
        "destinationRule": {
            "name": "web", "canarySubsetName": "canary", "stableSubsetName": "stable", "additionalSubsetNames": ["beta"],
        },
    }}))
}

fn to(host: &str, weight: Value) -> Value {
    let mut destination = json!({"destination": {"host": host, "port": {"number": 80}}});
    if !weight.is_null() {
        destination["weight"] = weight;
    }
    destination
}

fn to_subset(subset: &str, weight: i64) -> Value {
    json!({"destination": {"host": "web", "subset": subset}, "weight": weight})
}

fn virtual_service(spec: Value) -> Value {
    json!({
        "kind": "VirtualService",
        "metadata": {"name": "web", "namespace": "shop", "uid": "vs-uid", "resourceVersion": "7"},
        "spec": spec,
    })
}

/// One route by hosts, with a timeout that is nobody's but the user's.
fn simple(canary: Value, stable: Value) -> Value {
    virtual_service(json!({
        "hosts": ["web.example"],
        "http": [{"timeout": "5s", "route": [to("web-stable", stable), to("web-canary", canary)]}],
    }))
}

fn destination_rule(labels: [Value; 2]) -> Value {
    let [stable, canary] = labels;
    json!({
        "kind": "DestinationRule",
        "metadata": {"name": "web", "namespace": "shop", "uid": "dr-uid", "resourceVersion": "3"},
        "spec": {
            "host": "web",
            "trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL"}},
            "subsets": [
                {"name": "beta", "labels": {"track": "beta"}},
                {"name": "stable", "labels": stable, "trafficPolicy": {"connectionPool": {}}},
                {"name": "canary", "labels": canary},
            ],
        },
    })
}

fn with<T>(rollout: &Rollout, list: &[Value], f: impl FnOnce(&Context<'_>) -> T) -> T {
    fixtures::with(rollout, VIRTUAL_SERVICE, list, f)
}

fn observe(rollout: &Rollout, list: &[Value]) -> Result<ObservedSplit, RouterError> {
    with(rollout, list, |context| IstioRouter.observe(context, 100))
}

fn edited(rollout: &Rollout, list: &[Value], wanted: Wanted<'_>) -> Vec<Value> {
    fixtures::edited(&IstioRouter, rollout, VIRTUAL_SERVICE, list, wanted).unwrap()
}

#[test]
fn only_our_weights_change() {
    let before = simple(json!(0), json!(100));
    let after = edited(&by_host(), std::slice::from_ref(&before), Wanted::only(&Split::new(20, 100))).remove(0);
    let mut expected = before.clone();
    expected["spec"]["http"][0]["route"] = json!([to("web-stable", json!(80)), to("web-canary", json!(20))]);
    assert_eq!(after, expected);
    let list = [after];
    with(&by_host(), &list, |context| {
        assert_eq!(IstioRouter.edit(context, Wanted::only(&Split::new(20, 100))), Ok(Vec::new()));
    });
    assert_eq!(edited(&by_host(), &list, Wanted::only(&Split::new(0, 100))), [before]);
}

#[test]
fn the_split_is_read_from_the_objects() {
    for (canary, stable, expected) in [
        (json!(0), json!(100), (0, 100)),
        (json!(25), json!(75), (25, 75)),
        (json!(100), Value::Null, (100, 0)),
        // Without weights Istio refuses the route or sends as it likes.
        (Value::Null, Value::Null, (100, 100)),
        (json!(0), json!(0), (100, 100)),
        // Another sum is scaled, rounded against us.
        (json!(1), json!(2), (34, 67)),
        (json!(-5), json!(100), (0, 100)),
    ] {
        let observed = observe(&by_host(), &[simple(canary.clone(), stable.clone())]).unwrap();
        assert_eq!((observed.split.canary, observed.split.stable), expected, "{canary} {stable}");
        assert_eq!(observed.applied, Applied::Yes);
    }
}

#[test]
fn what_others_have_comes_off_stables_share() {
    for (foreign, canary, stable) in [(10, 20, 70), (10, 95, 0), (0, 20, 80)] {
        let mut before = simple(json!(0), json!(100 - foreign));
        before["spec"]["http"][0]["route"].as_array_mut().unwrap().push(to("partner.other.svc", json!(foreign)));
        let wanted = Split::new(canary, 100);
        let after = edited(&by_host(), &[before], Wanted::only(&wanted));
        let weights: Vec<i64> = after[0]["spec"]["http"][0]["route"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["weight"].as_i64().unwrap())
            .collect();
        assert_eq!(weights, [stable, canary.into(), foreign]);
        assert!(observe(&by_host(), &after).unwrap().makes(&wanted));
    }
}

#[test]
fn a_host_may_be_written_in_full() {
    let full = |namespace: &str| {
        let host = |service: &str| format!("{service}.{namespace}");
        let route = json!([to(&host("web-stable"), json!(100)), to(&host("web-canary"), json!(0))]);
        virtual_service(json!({"http": [{"route": route}]}))
    };
    for namespace in ["shop", "shop.svc.cluster.local"] {
        assert!(observe(&by_host(), &[full(namespace)]).unwrap().makes(&Split::new(0, 100)), "{namespace}");
    }
    assert!(observe(&by_host(), &[full("other")]).is_err(), "a Service of another namespace is not ours");
}

#[test]
fn the_routes_are_those_that_the_settings_mean() {
    let both = |canary: i64| json!([to("web-stable", json!(100 - canary)), to("web-canary", json!(canary))]);
    let foreign = json!([to("api", Value::Null)]);
    let http = json!([
        {"name": "api", "route": foreign},
        {"name": "first", "route": both(0)},
        {"route": both(0)},
        {"name": "second", "route": both(0)},
    ]);
    let tls = json!([
        {"match": [{"port": 443, "sniHosts": ["a.example"]}], "route": both(0)},
        {"match": [{"port": 443, "sniHosts": ["b.example", "c.example"]}], "route": both(0)},
        {"match": [{"port": 443, "sniHosts": ["d.example"]}, {"port": 444, "sniHosts": ["d.example"]}], "route": both(0)},
    ]);
    let tcp = json!([{"match": [{"port": 5432}], "route": both(0)}, {"match": [{"port": 5433}], "route": both(0)}]);
    for (settings, spec, expected) in [
        (json!({}), json!({"http": http}), "http2"),
        (json!({"routes": ["second", "first"]}), json!({"http": http}), "http1 http3"),
        (json!({}), json!({"http": http, "tls": tls, "tcp": tcp}), "http2 tls0 tcp0"),
        (
            json!({"tlsRoutes": [{"port": 443, "sniHosts": ["c.example", "b.example"]}]}),
            json!({"http": [{"route": foreign}], "tls": tls}),
            "tls1",
        ),
        (json!({"tlsRoutes": [{"sniHosts": ["d.example"]}]}), json!({"tls": tls}), "tls2"),
        (json!({"tcpRoutes": [{"port": 5433}]}), json!({"tcp": tcp}), "tcp1"),
        (json!({"routes": ["nowhere"]}), json!({"http": http}), "spec.http has no route named \"nowhere\""),
        (json!({"tcpRoutes": [{"port": 1}]}), json!({"tcp": tcp}), "spec.tcp has no route for port 1"),
        (
            json!({"tlsRoutes": [{"port": 443, "sniHosts": ["b.example"]}]}),
            json!({"tls": tls}),
            "spec.tls has no route for port 443",
        ),
        (
            json!({}),
            json!({"http": [{"name": "a", "route": both(0)}, {"name": "b", "route": both(0)}]}),
            "name those to split in `routes`",
        ),
        (json!({}), json!({"http": [{"route": foreign}]}), "no route has both the host \"web-stable\" and"),
        (
            json!({}),
            json!({"http": [{"route": [to("web-stable", json!(100))]}]}),
            "spec.http[0].route must have both the host \"web-stable\" and the host \"web-canary\"",
        ),
        (json!({"routes": ["api"]}), json!({"http": http}), "spec.http[0].route must have both"),
        (json!({}), json!({}), "no route has both"),
        (json!({}), json!({"http": "none", "tls": {}, "tcp": [{}]}), "no route has both"),
        (json!({}), json!({"http": [{"redirect": {"uri": "/"}}]}), "no route has both"),
    ] {
        let mut named = settings.clone();
        named["name"] = json!("web");
        let rollout = rollout(json!({"istio": {"virtualService": named}}));
        let list = [virtual_service(spec.clone())];
        let wanted = Split::new(30, 100);
        let found = match fixtures::edited(&IstioRouter, &rollout, VIRTUAL_SERVICE, &list, Wanted::only(&wanted)) {
            Ok(after) => {
                let changed = ["http", "tls", "tcp"].into_iter().flat_map(|kind| {
                    let routes = after[0]["spec"][kind].as_array().cloned().unwrap_or_default();
                    let changed = routes.into_iter().enumerate().filter(move |(_, it)| it["route"] == both(30));
                    changed.map(move |(index, _)| format!("{kind}{index}"))
                });
                changed.collect::<Vec<_>>().join(" ")
            }
            Err(error) => error.to_string(),
        };
        assert!(found.contains(expected), "{settings} {spec}: {found}");
    }
}

#[test]
fn several_virtual_services_also_of_other_namespaces() {
    let routing = json!({"istio": {"virtualServices": [{"name": "web"}, {"name": "edge.gateways.svc.cluster.local"}]}});
    let rollout = rollout(routing);
    let mut edge = simple(json!(0), json!(100));
    edge["metadata"] = json!({"name": "edge", "namespace": "gateways", "uid": "e", "resourceVersion": "1"});
    let names: Vec<String> = IstioRouter.needs(&rollout).objects.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["VirtualService shop/web", "VirtualService gateways/edge"]);
    let wanted = Split::new(40, 100);
    let after = edited(&rollout, &[simple(json!(0), json!(100)), edge.clone()], Wanted::only(&wanted));
    assert!(observe(&rollout, &after).unwrap().makes(&wanted));
    // Half-made it is no split at all: the largest weight of either side counts.
    let half = observe(&rollout, &[after[0].clone(), edge.clone()]).unwrap();
    assert_eq!((half.split.canary, half.split.stable), (40, 100));
    // One that is missing is an error, and keeps nothing from the other.
    let error = observe(&rollout, &[edge.clone()]).unwrap_err();
    assert_eq!(error.to_string(), "VirtualService shop/web does not exist");
    let back = edited(&rollout, &[after[1].clone()], Wanted::only(&Split::new(0, 100)));
    assert_eq!(back, [edge]);
    let field = |name: &str, namespace: &str| field_of(&rollout, &ObjectRef::new(VIRTUAL_SERVICE, namespace, name));
    assert_eq!(
        field("edge", "gateways").as_deref(),
        Some("spec.strategy.canary.trafficRouting.istio.virtualServices[1].name")
    );
    assert_eq!(field("edge", "shop"), None);
}

#[test]
fn subsets_are_split_and_the_users_own_keep_their_weight() {
    let spec = |beta: i64, stable: i64, canary: i64| json!({"http": [{"route": [to_subset("beta", beta), to_subset("stable", stable), to_subset("canary", canary)]}]});
    let rule = destination_rule([json!({}), json!({})]);
    let list = [virtual_service(spec(10, 90, 0)), rule.clone()];
    let after = edited(&by_subset(), &list, Wanted::only(&Split::new(25, 100)));
    assert_eq!(after[0]["spec"], spec(10, 65, 25));
    assert_eq!(after[1], rule, "weights leave the subsets alone");
    assert!(observe(&by_subset(), &after).unwrap().makes(&Split::new(25, 100)));
    let by_services = [simple(json!(0), json!(100)), rule];
    assert!(
        observe(&by_subset(), &by_services)
            .unwrap_err()
            .to_string()
            .contains("both the subset \"stable\" and the subset")
    );
}

#[test]
fn a_subset_reaches_whoever_has_its_labels() {
    let rollout = by_subset();
    let list = [destination_rule([json!({"app": "web", POD_TEMPLATE_HASH: "abc"}), Value::Null])];
    with(&rollout, &list, |context| {
        let subsets = destination_rule::as_services(&rollout, context.routes);
        let named: Vec<(&str, Value)> =
            subsets.iter().map(|it| (it.object.name.as_str(), json!(it.object.selector))).collect();
        assert_eq!(
            named,
            [
                ("web (subset stable)", json!({"app": "web", POD_TEMPLATE_HASH: "abc"})),
                ("web (subset canary)", json!({"app": "web"})),
            ]
        );
    });
}

#[test]
fn switching_subsets_keeps_everything_else() {
    let rollout = by_subset();
    let before = destination_rule([json!({POD_TEMPLATE_HASH: "old"}), Value::Null]);
    let (stable, canary) = destination_rule::roles(&rollout).unwrap();
    let hashes = [(stable, "abc".to_owned()), (canary, "def".to_owned())].into();
    let (action, said) =
        with(&rollout, std::slice::from_ref(&before), |it| destination_rule::select(&rollout, it.routes, &hashes))
            .unwrap();
    assert_eq!(said, "DestinationRule web subset updated (canary: def, stable: abc)");
    assert_eq!(action.to_string(), "patch DestinationRule shop/web: canary: def, stable: abc");
    let apply = |object: &Value, action: &Action| {
        let Action::JsonPatch { patch, .. } = action else { panic!("{action}") };
        let mut object = object.clone();
        json_patch::patch(&mut object, patch).unwrap();
        object
    };
    let after = apply(&before, &action);
    let mut expected = before.clone();
    expected["metadata"]["annotations"] = json!({MANAGED_BY: "web"});
    expected["spec"]["subsets"][1]["labels"] = json!({POD_TEMPLATE_HASH: "abc"});
    expected["spec"]["subsets"][2]["labels"] = json!({POD_TEMPLATE_HASH: "def"});
    assert_eq!(after, expected);
    assert!(
        with(&rollout, std::slice::from_ref(&after), |it| destination_rule::select(&rollout, it.routes, &hashes))
            .is_none()
    );

    // Once no Rollout refers to it, what we added goes.
    let reference = ObjectRef::new(DESTINATION_RULE, "shop", "web");
    let released = apply(&after, &destination_rule::release(&reference, &after).unwrap());
    expected["metadata"]["annotations"] = json!({});
    expected["spec"]["subsets"][1]["labels"] = json!({});
    expected["spec"]["subsets"][2]["labels"] = json!({});
    assert_eq!(released, expected);
    assert!(destination_rule::release(&reference, &released).is_none());
}

#[test]
fn a_destination_rule_must_be_fit() {
    let route = virtual_service(json!({"http": [{"route": [to_subset("stable", 100), to_subset("canary", 0)]}]}));
    let error = |list: &[Value]| observe(&by_subset(), list).unwrap_err().to_string();
    assert_eq!(error(std::slice::from_ref(&route)), "DestinationRule shop/web does not exist");
    let mut rule = destination_rule([json!({}), json!({})]);
    rule["metadata"]["annotations"] = json!({MANAGED_BY: "other"});
    assert!(error(&[route.clone(), rule.clone()]).contains("is managed by another Rollout, \"other\""));
    rule["metadata"]["annotations"] = json!({});
    rule["spec"]["subsets"][2]["name"] = json!("canarry");
    assert_eq!(error(&[route, rule]), "DestinationRule shop/web: spec.subsets has no subset named \"canary\"; add it");
}

fn stepping(routes: Value) -> Rollout {
    rollout_with(json!({
        "steps": [
            {"setHeaderRoute": {"name": "beta", "match": [
                {"headerName": "x-beta", "headerValue": {"exact": "yes"}},
                {"headerName": "agent", "headerValue": {"prefix": "curl"}},
            ]}},
            {"setMirrorRoute": {"name": "copy", "percentage": 20, "match": [
                {"method": {"exact": "GET"}, "path": {"regex": "/shop.*"}, "headers": {"x": {"exact": "1"}}},
            ]}},
        ],
        "trafficRouting": {
            "managedRoutes": [{"name": "beta"}, {"name": "copy"}],
            "istio": {"virtualService": {"name": "web", "routes": routes}},
        },
    }))
}

fn every(rollout: &Rollout) -> Vec<Managed<'_>> {
    managed::every(rollout).collect()
}

#[test]
fn header_and_mirror_routes_stand_before_the_route_that_is_split() {
    let rollout = stepping(json!([]));
    let before = simple(json!(0), json!(100));
    let wanted = every(&rollout);
    let split = Split::new(10, 100);
    let after = edited(&rollout, std::slice::from_ref(&before), Wanted { split: Some(&split), managed: &wanted });
    let canary = json!({"host": "web-canary", "port": {"number": 80}});
    let own = json!([to("web-stable", json!(90)), to("web-canary", json!(10))]);
    assert_eq!(
        after[0]["spec"]["http"],
        json!([
            {
                "name": "beta", "timeout": "5s",
                "match": [{"headers": {"x-beta": {"exact": "yes"}}}, {"headers": {"agent": {"prefix": "curl"}}}],
                "route": [{"destination": canary, "weight": 100}],
            },
            {
                "name": "copy", "timeout": "5s",
                "match": [{"method": {"exact": "GET"}, "uri": {"regex": "/shop.*"}, "headers": {"x": {"exact": "1"}}}],
                "route": own, "mirror": canary, "mirrorPercentage": {"value": 20},
            },
            {"timeout": "5s", "route": own},
        ])
    );
    let observed = observe(&rollout, &after).unwrap();
    assert!(observed.makes(&split) && observed.managed.iter().eq(["beta", "copy"]), "{observed:?}");
    with(&rollout, &after, |context| {
        assert_eq!(IstioRouter.edit(context, Wanted { split: Some(&split), managed: &wanted }), Ok(Vec::new()));
    });

    // The copy's weights follow, what is out of order is put right, and in the end everything is as before.
    let more = Split::new(60, 100);
    let next = edited(&rollout, &after, Wanted { split: Some(&more), managed: &wanted });
    assert!(observe(&rollout, &next).unwrap().makes(&more));
    let mut shuffled = next.clone();
    shuffled[0]["spec"]["http"].as_array_mut().unwrap().reverse();
    assert_eq!(edited(&rollout, &shuffled, Wanted { split: Some(&more), managed: &wanted }), next);
    assert_eq!(edited(&rollout, &next, Wanted::only(&Split::new(0, 100))), [before]);
}

#[test]
fn a_managed_route_takes_only_what_the_users_route_takes() {
    let both = json!([to("web-stable", json!(100)), to("web-canary", json!(0))]);
    let http = json!([
        {"name": "shop", "match": [{"uri": {"prefix": "/shop"}, "name": "n"}, {"headers": {"h": {"exact": "1"}}}], "route": both},
        {"name": "beta-1x", "route": [to("other", Value::Null)]},
        {"name": "beta-7", "route": [to("other", Value::Null)]},
        {"name": "rest", "route": both},
    ]);
    let rollout = stepping(json!(["shop", "rest"]));
    let before = virtual_service(json!({"http": http}));
    let wanted = &every(&rollout)[..1];
    let after = edited(&rollout, std::slice::from_ref(&before), Wanted { split: None, managed: wanted });
    let routes = after[0]["spec"]["http"].as_array().unwrap();
    let names: Vec<&str> = routes.iter().map(|route| route["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["beta", "shop", "beta-1x", "beta-7", "beta-1", "rest"]);
    assert_eq!(
        routes[0]["match"],
        json!([
            {"uri": {"prefix": "/shop"}, "headers": {"x-beta": {"exact": "yes"}}},
            {"uri": {"prefix": "/shop"}, "headers": {"agent": {"prefix": "curl"}}},
            {"headers": {"h": {"exact": "1"}, "x-beta": {"exact": "yes"}}},
            {"headers": {"h": {"exact": "1"}, "agent": {"prefix": "curl"}}},
        ])
    );
    assert_eq!(edited(&rollout, &after, Wanted { split: None, managed: &[] }), [before]);
}

#[test]
fn managed_routes_go_even_when_the_users_route_is_broken() {
    let rollout = stepping(json!([]));
    let wanted = every(&rollout);
    let mut after = edited(&rollout, &[simple(json!(0), json!(100))], Wanted { split: None, managed: &wanted });
    after[0]["spec"]["http"][2]["route"] = json!([to("web-stable", json!(100))]);
    let left = edited(&rollout, &after, Wanted::only(&Split::new(0, 100)));
    assert_eq!(left[0]["spec"]["http"].as_array().unwrap().len(), 1);
    assert!(with(&rollout, &left, |it| IstioRouter.edit(it, Wanted::only(&Split::new(0, 100)))).is_err());
    // There is nothing beside which such a route could stand where only connections are routed.
    let tcp = virtual_service(json!({"tcp": [{"route": [to("web-stable", json!(100)), to("web-canary", json!(0))]}]}));
    let error =
        with(&rollout, &[tcp], |it| IstioRouter.edit(it, Wanted { split: None, managed: &wanted })).unwrap_err();
    assert!(error.to_string().contains("has no HTTP route"), "{error}");
}

#[test]
fn destinations_of_experiments_come_and_go() {
    let before = simple(json!(0), json!(100));
    let wanted = with_experiment(20, 15);
    let during = edited(&by_host(), std::slice::from_ref(&before), Wanted::only(&wanted));
    let expected = json!([
        to("web-stable", json!(65)), to("web-canary", json!(20)), {"destination": {"host": "web-exp"}, "weight": 15},
    ]);
    assert_eq!(during[0]["spec"]["http"][0]["route"], expected);
    assert!(observe(&by_host(), &during).unwrap().makes(&wanted));
    let changed = edited(&by_host(), &during, Wanted::only(&with_experiment(20, 5)));
    assert_eq!(changed[0]["spec"]["http"][0]["route"][2]["weight"], json!(5));
    assert_eq!(edited(&by_host(), &changed, Wanted::only(&Split::new(0, 100))), [before]);
}

#[test]
fn an_experiment_with_a_weight_has_a_subset_named_as_its_service() {
    let route = json!({"http": [{"route": [to_subset("stable", 100), to_subset("canary", 0)]}]});
    let before = [virtual_service(route), destination_rule([json!({}), json!({})])];
    let during = edited(&by_subset(), &before, Wanted::only(&with_experiment(20, 15)));
    let subsets = |objects: &[Value]| objects[1]["spec"]["subsets"].as_array().unwrap().clone();
    let own = json!({"name": "web-exp", "labels": {POD_TEMPLATE_HASH: "x1"}});
    assert_eq!(subsets(&during), [subsets(&before), vec![own]].concat());
    let again = edited(&by_subset(), &during, Wanted::only(&with_experiment(20, 15)));
    assert_eq!(again, during);
    let after = edited(&by_subset(), &during, Wanted::only(&Split::new(0, 100)));
    assert_eq!(subsets(&after), subsets(&before));
}
