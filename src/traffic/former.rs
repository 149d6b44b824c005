//! Routes that a strategy names no more.
//!
//! A strategy may change while the canary has a weight: to blue-green, to another router, to a canary without one. Nobody
//! would take that weight back, and the Service of the canary leads its share of the users to whatever it selects next. So
//! a Rollout says in an annotation which routes it moves, before it gives any of them a weight. What is said there and
//! named no more is put back to stable once, and then forgotten.

use std::collections::BTreeSet;

use super::observed::Routes;
use super::{Needs, Router};
use crate::api::Rollout;
use crate::api::canary::CanaryStrategy;
use crate::api::names::ROUTES;
use crate::api::resource::{DESTINATION_RULE, ObjectRef};
use crate::api::rollout::Strategy;
use crate::api::selector;
use crate::api::traffic_routing::{GatewayApi, GatewayApiRoute, Istio, Nginx, TrafficRouting};

/// A route that the Rollout has moved, and that its strategy names no more.
#[derive(Clone, Debug)]
pub struct Former {
    /// The Rollout as if its strategy moved this route and nothing else.
    pub rollout: Rollout,
    /// What the annotation says of the route.
    pub piece: CanaryStrategy,
}

impl Former {
    pub fn router(&self) -> Option<&'static dyn Router> {
        super::routers(self.piece.traffic_routing.as_ref()?).first().copied()
    }

    pub fn needs(&self) -> Needs {
        self.router().map_or_else(Needs::default, |router| router.needs(&self.rollout))
    }
}

/// The routes that the annotation names and the strategy does not.
pub fn left(rollout: &Rollout) -> Vec<Former> {
    let Some(said) = said(rollout) else { return Vec::new() };
    let current = current(rollout);
    if said == text(&current) {
        return Vec::new();
    }
    let left = recorded(rollout).into_iter().filter(|piece| !current.contains(piece));
    let former = left.map(|piece| {
        let mut rollout = rollout.clone();
        rollout.spec.strategy = Strategy { canary: Some(piece.clone()), blue_green: None };
        Former { rollout, piece }
    });
    former.collect()
}

/// The routes without those that the strategy names: they are no former ones, whatever was said of them before.
pub fn unclaimed(rollout: &Rollout, routes: &Routes) -> Routes {
    let routing = rollout.spec.strategy.traffic_routing();
    let needs: Vec<Needs> = routing.into_iter().flat_map(super::routers).map(|router| router.needs(rollout)).collect();
    let is_claimed = |reference: &ObjectRef, labels: &serde_json::Value| {
        let selected = |(resource, namespace, wanted): &(_, String, _)| {
            *resource == reference.resource
                && *namespace == reference.namespace
                && selector::matches_json(wanted, labels)
        };
        needs.iter().any(|needs| needs.objects.contains(reference) || needs.selected.iter().any(selected))
    };
    // A DestinationRule has no weights, and a former VirtualService cannot be read without it.
    let unclaimed = routes.iter().filter(|(reference, route)| {
        reference.resource == DESTINATION_RULE || !is_claimed(reference, &route.object["metadata"]["labels"])
    });
    unclaimed.map(|(reference, route)| (reference.clone(), route.clone())).collect()
}

/// Whether everything that the strategy moves is named in the annotation.
pub fn is_recorded(rollout: &Rollout) -> bool {
    let current = current(rollout);
    if current.is_empty() || said(rollout).is_some_and(|said| said == text(&current)) {
        return true;
    }
    let recorded = recorded(rollout);
    current.iter().all(|piece| recorded.contains(piece))
}

/// What the annotation says, and everything that the strategy moves.
pub fn with_current(rollout: &Rollout) -> Vec<CanaryStrategy> {
    let mut all = recorded(rollout);
    for piece in current(rollout) {
        if !all.contains(&piece) {
            all.push(piece);
        }
    }
    all
}

/// What the annotation says. What cannot be read was not written by us.
pub fn recorded(rollout: &Rollout) -> Vec<CanaryStrategy> {
    said(rollout).and_then(|said| serde_json::from_str(said).ok()).unwrap_or_default()
}

/// What the strategy moves, a piece for each route: the part of a canary strategy that leads to it.
pub fn current(rollout: &Rollout) -> Vec<CanaryStrategy> {
    let Some(canary) = &rollout.spec.strategy.canary else { return Vec::new() };
    let Some(routing) = &canary.traffic_routing else { return Vec::new() };
    let piece = |part: TrafficRouting| CanaryStrategy {
        stable_service: canary.stable_service().to_owned(),
        canary_service: canary.canary_service().to_owned(),
        ping_pong: canary.ping_pong.clone(),
        traffic_routing: Some(Box::new(TrafficRouting { managed_routes: routing.managed_routes.clone(), ..part })),
        ..CanaryStrategy::default()
    };
    let istio = routing.istio.iter().flat_map(|istio| {
        let services = istio.virtual_service.iter().chain(&istio.virtual_services);
        services.map(|service| TrafficRouting {
            istio: Some(Istio {
                virtual_service: Some(service.clone()),
                destination_rule: istio.destination_rule.clone(),
                virtual_services: Vec::new(),
            }),
            ..TrafficRouting::default()
        })
    });
    let nginx = routing.nginx.iter().flat_map(|nginx| {
        let mut names: BTreeSet<&String> = nginx.stable_ingresses.iter().chain([&nginx.stable_ingress]).collect();
        if names.len() > 1 {
            names.retain(|name| !name.is_empty());
        }
        names.into_iter().map(|name| TrafficRouting {
            nginx: Some(Nginx {
                annotation_prefix: nginx.annotation_prefix.clone(),
                stable_ingress: name.clone(),
                ..Nginx::default()
            }),
            ..TrafficRouting::default()
        })
    });
    let gateway = routing.gateway_api_settings().map_or_else(Vec::new, |settings| routes(&settings));
    let gateway = gateway.into_iter().map(|one| TrafficRouting { gateway_api: Some(one), ..TrafficRouting::default() });
    istio.chain(nginx).chain(gateway).map(piece).collect()
}

/// The annotation's text.
pub fn text(pieces: &[CanaryStrategy]) -> String {
    // Plain data always encodes.
    serde_json::to_string(pieces).unwrap_or_default()
}

fn said(rollout: &Rollout) -> Option<&str> {
    Some(rollout.metadata.annotations.as_ref()?.get(ROUTES)?)
}

/// The settings of the Gateway API, each for one route or one selector.
fn routes(settings: &GatewayApi) -> Vec<GatewayApi> {
    let alone = GatewayApi {
        namespace: settings.namespace.clone(),
        disable_in_progress_label: settings.disable_in_progress_label,
        in_progress_label_key: settings.in_progress_label_key.clone(),
        in_progress_label_value: settings.in_progress_label_value.clone(),
        ..GatewayApi::default()
    };
    let mut pieces = Vec::new();
    let mut add = |single: &String, several: &[GatewayApiRoute], set: fn(&mut GatewayApi, GatewayApiRoute)| {
        let single = Some(GatewayApiRoute { name: single.clone(), use_header_routes: true });
        let single = single.filter(|route| !route.name.is_empty());
        for route in single.iter().chain(several) {
            let mut piece = alone.clone();
            set(&mut piece, route.clone());
            pieces.push(piece);
        }
    };
    add(&settings.http_route, &settings.http_routes, |piece, route| piece.http_routes.push(route));
    add(&settings.grpc_route, &settings.grpc_routes, |piece, route| piece.grpc_routes.push(route));
    add(&settings.tcp_route, &settings.tcp_routes, |piece, route| piece.tcp_routes.push(route));
    add(&settings.tls_route, &settings.tls_routes, |piece, route| piece.tls_routes.push(route));
    let selectors: [(_, fn(&mut GatewayApi, _)); 4] = [
        (&settings.http_route_selector, |piece, wanted| piece.http_route_selector = wanted),
        (&settings.grpc_route_selector, |piece, wanted| piece.grpc_route_selector = wanted),
        (&settings.tcp_route_selector, |piece, wanted| piece.tcp_route_selector = wanted),
        (&settings.tls_route_selector, |piece, wanted| piece.tls_route_selector = wanted),
    ];
    for (wanted, set) in selectors.into_iter().filter(|(wanted, _)| wanted.is_some()) {
        let mut piece = alone.clone();
        set(&mut piece, wanted.clone());
        pieces.push(piece);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rollout(strategy: Value, said: Option<String>) -> Rollout {
        let annotations = said.map(|said| json!({ ROUTES: said }));
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop", "annotations": annotations},
            "spec": {"strategy": strategy},
        }))
        .unwrap()
    }

    fn routed(routing: &Value) -> Value {
        json!({"canary": {"stableService": "stable", "canaryService": "canary", "trafficRouting": routing}})
    }

    /// What is left of the one strategy in a Rollout that has the other one.
    fn left_of(before: &Value, after: &Value) -> Vec<String> {
        let before = rollout(routed(before), None);
        let after = rollout(after.clone(), Some(text(&current(&before))));
        let names = |former: &Former| {
            let objects = former.needs().objects.into_iter().map(|object| object.to_string());
            objects.collect::<Vec<_>>().join(" ")
        };
        left(&after).iter().map(names).collect()
    }

    #[test]
    fn what_the_strategy_names_no_more_is_left() {
        let blue_green = json!({"blueGreen": {"activeService": "stable"}});
        let routes = json!({"gatewayAPI": {"httpRoute": "a", "httpRoutes": [{"name": "b"}], "grpcRoute": "c"}});
        let nginx = json!({"nginx": {"stableIngresses": ["one", "two"]}});
        let rule = json!({"name": "web", "canarySubsetName": "canary", "stableSubsetName": "stable"});
        let istio = json!({"istio": {"virtualServices": [{"name": "x"}, {"name": "y.mesh"}], "destinationRule": rule}});
        for (before, after, expected) in [
            (&routes, &blue_green, vec!["HTTPRoute shop/a", "HTTPRoute shop/b", "GRPCRoute shop/c"]),
            (&routes, &routed(&routes), vec![]),
            (
                &routes,
                &routed(&json!({"gatewayAPI": {"httpRoutes": [{"name": "b"}]}})),
                vec!["HTTPRoute shop/a", "GRPCRoute shop/c"],
            ),
            (
                &nginx,
                &blue_green,
                vec!["Ingress shop/one Ingress shop/web-one-canary", "Ingress shop/two Ingress shop/web-two-canary"],
            ),
            (
                &nginx,
                &routed(&json!({"nginx": {"stableIngress": "one"}})),
                vec!["Ingress shop/two Ingress shop/web-two-canary"],
            ),
            (&json!({"nginx": {}}), &blue_green, vec![""]),
            (
                &istio,
                &json!({"canary": {}}),
                vec![
                    "VirtualService shop/x DestinationRule shop/web",
                    "VirtualService mesh/y DestinationRule shop/web",
                ],
            ),
        ] {
            assert_eq!(left_of(before, after), expected, "{before} {after}");
        }
    }

    #[test]
    fn the_two_places_of_the_gateway_api_are_the_same() {
        let own = rollout(routed(&json!({"gatewayAPI": {"httpRoute": "a"}})), None);
        let plugin = rollout(routed(&json!({"plugins": {"argoproj-labs/gatewayAPI": {"httpRoute": "a"}}})), None);
        assert_eq!(current(&own), current(&plugin));
    }

    #[test]
    fn a_route_that_the_strategy_selects_is_no_former_one() {
        let object = |labels: Value| {
            let object = std::sync::Arc::new(json!({"metadata": {"labels": labels}}));
            super::super::observed::Observed { object, since: jiff::Timestamp::UNIX_EPOCH }
        };
        let reference = |name: &str| ObjectRef::new(crate::api::resource::HTTP_ROUTE, "shop", name);
        let routes: Routes =
            [(reference("a"), object(json!({"app": "web"}))), (reference("b"), object(json!({})))].into();
        let selecting = json!({"gatewayAPI": {"httpRouteSelector": {"matchLabels": {"app": "web"}}}});
        let left = unclaimed(&rollout(routed(&selecting), None), &routes);
        assert_eq!(left.keys().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn what_is_said_is_read_again_and_nonsense_is_not() {
        let strategy = routed(&json!({"nginx": {"stableIngress": "one"}}));
        let unsaid = rollout(strategy.clone(), None);
        assert!(!is_recorded(&unsaid));
        let said = text(&with_current(&unsaid));
        let once = rollout(strategy.clone(), Some(said.clone()));
        assert!(is_recorded(&once) && recorded(&once) == current(&once) && text(&with_current(&once)) == said);
        let nonsense = rollout(strategy, Some("[{".to_owned()));
        assert!(!is_recorded(&nonsense) && left(&nonsense).is_empty());
        assert!(is_recorded(&rollout(json!({"canary": {}}), None)), "it moves nothing");
    }
}
