//! The way of the requests to the pods: found among the user's objects, or made up where that is harmless.

use anyhow::bail;
use serde_json::{Value, json};

use super::setting::Cast;
use crate::api::Rollout;
use crate::api::traffic_routing::TrafficRouting;
use crate::cli::in_process::GATEWAY_NAMESPACE;
use crate::sandbox::traffic::Target;
use crate::sandbox::workloads::Name;

/// Where requests go.
pub(super) struct Way {
    pub target: Target,
    pub router: Option<&'static str>,
}

/// Finds the way of the requests. What is missing on it and harmless is made up, with a note.
///
/// # Errors
/// Something is missing that nobody can make up.
pub(super) fn make_up(rollout: &Rollout, value: &Value, cast: &mut Cast) -> anyhow::Result<Way> {
    let strategy = &rollout.spec.strategy;
    let labels = labels(value, cast);
    for name in strategy.services() {
        if !cast.has("Service", name) {
            cast.notes.push(format!("Service {name} is not among the files: made up, with port 80"));
            let service = service(name, cast, &labels);
            cast.add(service);
        }
    }
    let routing = strategy.traffic_routing();
    let way = match (routing, &strategy.canary) {
        (Some(routing), Some(canary)) => {
            let ping_pong = canary.ping_pong.as_ref();
            let stable = ping_pong.map_or(canary.stable_service(), |it| it.ping_service.as_str()).to_owned();
            let other = ping_pong.map_or(canary.canary_service(), |it| it.pong_service.as_str()).to_owned();
            by_router(routing, &stable, &other, cast)?
        }
        _ => None,
    };
    if let Some(way) = way {
        return Ok(way);
    }
    let service = match &strategy.blue_green {
        Some(blue_green) => blue_green.active_service.clone(),
        None => common_service(rollout, cast, &labels),
    };
    Ok(Way { target: Target::Service(Name::new(&cast.namespace, service)), router: None })
}

/// The labels of the pods, as far as the Rollout's selector has them.
fn labels(rollout: &Value, cast: &Cast) -> Value {
    let own = &rollout["spec"]["selector"]["matchLabels"];
    if own.is_object() {
        return own.clone();
    }
    let reference = &rollout["spec"]["workloadRef"];
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let workload = cast.get(text("kind"), &cast.namespace, text("name"));
    workload.map(|workload| workload["spec"]["selector"]["matchLabels"].clone()).unwrap_or_default()
}

fn service(name: &str, cast: &Cast, labels: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": cast.namespace},
        "spec": {"selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    })
}

/// A Service that leads to all pods, for releases without traffic routing.
fn common_service(rollout: &Rollout, cast: &mut Cast, labels: &Value) -> String {
    let own = rollout.metadata.name.clone().unwrap_or_default();
    let of_versions = rollout.spec.strategy.services();
    let leads = |service: &&Value| {
        let selector = service["spec"]["selector"].as_object();
        let fits = selector.is_some_and(|selector| selector.iter().all(|(label, value)| labels[label] == *value));
        let name = service["metadata"]["name"].as_str().unwrap_or_default();
        service["metadata"]["namespace"] == *cast.namespace && fits && !of_versions.contains(name)
    };
    if let Some(found) = cast.of_kind("Service").find(leads) {
        return found["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    }
    let name = format!("{own}-of-this-plan");
    cast.notes.push("no Service leads to the pods of both versions: requests go to one that was made up".to_owned());
    let service = service(&name, cast, labels);
    cast.add(service);
    name
}

fn by_router(routing: &TrafficRouting, stable: &str, canary: &str, cast: &mut Cast) -> anyhow::Result<Option<Way>> {
    if let Some(nginx) = &routing.nginx {
        let ingress = Some(&nginx.stable_ingress).filter(|name| !name.is_empty());
        let Some(ingress) = ingress.or(nginx.stable_ingresses.first()) else { return Ok(None) };
        let target = by_ingress(ingress, stable, cast);
        return Ok(Some(Way { target, router: Some("nginx") }));
    }
    if let Some(istio) = &routing.istio {
        let reference = istio.virtual_service.as_ref().or(istio.virtual_services.first());
        let Some(reference) = reference else { return Ok(None) };
        let by_subsets = istio.destination_rule.is_some();
        if let Some(rule) = &istio.destination_rule
            && !cast.has("DestinationRule", &rule.name)
        {
            bail!("spec.strategy.canary.trafficRouting.istio: DestinationRule {} is not among the files", rule.name);
        }
        let route = reference.routes.first().map(String::as_str);
        let target = by_mesh(&reference.name, route, [stable, canary], by_subsets, cast)?;
        return Ok(Some(Way { target, router: Some("istio") }));
    }
    let Some(settings) = routing.gateway_api_settings() else { return Ok(None) };
    let namespace = Some(settings.namespace.clone()).filter(|it| !it.is_empty());
    let namespace = namespace.unwrap_or_else(|| cast.namespace.clone());
    let first = |one: &str, all: &[crate::api::traffic_routing::GatewayApiRoute]| {
        let one = Some(one.to_owned()).filter(|name| !name.is_empty());
        one.or_else(|| all.first().map(|route| route.name.clone()))
    };
    let selected = |kind: &str, selector: bool| {
        let mut routes = cast.of_kind(kind).filter(|route| {
            selector
                && backends(&route["spec"]["rules"])
                    .any(|backend| backend["name"] == stable || backend["name"] == canary)
        });
        routes.next().and_then(|route| route["metadata"]["name"].as_str().map(str::to_owned))
    };
    let http = first(&settings.http_route, &settings.http_routes)
        .or_else(|| selected("HTTPRoute", settings.http_route_selector.is_some()));
    let grpc = first(&settings.grpc_route, &settings.grpc_routes)
        .or_else(|| selected("GRPCRoute", settings.grpc_route_selector.is_some()));
    let (kind, name) = match (http, grpc) {
        (Some(http), _) => ("HTTPRoute", http),
        (None, Some(grpc)) => ("GRPCRoute", grpc),
        (None, None) => {
            cast.notes
                .push("requests by TCPRoutes and TLSRoutes are not modelled: they go to the stable Service".to_owned());
            let target = Target::Service(Name::new(&cast.namespace, stable));
            return Ok(Some(Way { target, router: Some("gatewayAPI") }));
        }
    };
    let target = by_gateway(kind, &namespace, &name, [stable, canary], cast);
    Ok(Some(Way { target, router: Some("gatewayAPI") }))
}

fn by_ingress(name: &str, stable: &str, cast: &mut Cast) -> Target {
    if !cast.has("Ingress", name) {
        cast.notes.push(format!("Ingress {name} is not among the files: made up, for {name}.example"));
        let backend = json!({"service": {"name": stable, "port": {"number": port(cast, stable)}}});
        let path = json!({"path": "/", "pathType": "Prefix", "backend": backend});
        cast.add(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": name, "namespace": cast.namespace},
            "spec": {"ingressClassName": "nginx", "rules": [
                {"host": format!("{name}.example"), "http": {"paths": [path]}},
            ]},
        }));
    }
    let ingress = cast.get("Ingress", &cast.namespace, name).cloned().unwrap_or_default();
    let rules = ingress["spec"]["rules"].as_array().cloned().unwrap_or_default();
    let paths = rules
        .iter()
        .flat_map(|rule| rule["http"]["paths"].as_array().into_iter().flatten().map(move |path| (&rule["host"], path)));
    let mut to_stable = paths.filter(|(_, path)| path["backend"]["service"]["name"] == stable);
    let (host, path) = to_stable.next().map_or((&Value::Null, &Value::Null), |(host, path)| (host, &path["path"]));
    host_target(host, path)
}

fn by_mesh(
    name: &str,
    route: Option<&str>,
    services: [&str; 2],
    by_subsets: bool,
    cast: &mut Cast,
) -> anyhow::Result<Target> {
    let (name, namespace) = match name.split_once('.') {
        Some((name, namespace)) => (name, namespace.to_owned()),
        None => (name, cast.namespace.clone()),
    };
    if cast.get("VirtualService", &namespace, name).is_none() {
        if by_subsets {
            bail!("spec.strategy.canary.trafficRouting.istio: VirtualService {name} is not among the files");
        }
        cast.notes.push(format!("VirtualService {name} is not among the files: made up, for {name}.example"));
        let to = services.map(|service| json!({"host": service}));
        let destinations =
            to.into_iter().zip([100, 0]).map(|(to, weight)| json!({"destination": to, "weight": weight}));
        cast.add(json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"hosts": [format!("{name}.example")], "http": [
                {"name": route.unwrap_or("primary"), "route": destinations.collect::<Value>()},
            ]},
        }));
    }
    let object = cast.get("VirtualService", &namespace, name).cloned().unwrap_or_default();
    let routes = object["spec"]["http"].as_array().cloned().unwrap_or_default();
    let named = routes.iter().find(|it| route.is_none_or(|route| it["name"] == route));
    let uri = named.map(|route| &route["match"][0]["uri"]).unwrap_or(&Value::Null);
    let path = if uri["exact"].is_string() { &uri["exact"] } else { &uri["prefix"] };
    Ok(host_target(&object["spec"]["hosts"][0], path))
}

fn by_gateway(kind: &str, namespace: &str, name: &str, services: [&str; 2], cast: &mut Cast) -> Target {
    if cast.get(kind, namespace, name).is_none() {
        cast.notes.push(format!("{kind} {name} is not among the files: made up, with one rule"));
        let backends = services
            .iter()
            .zip([100, 0])
            .map(|(service, weight)| json!({"name": service, "port": port(cast, service), "weight": weight}));
        let backends: Value = backends.collect();
        cast.add(json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind,
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "parentRefs": [{"name": "web", "namespace": GATEWAY_NAMESPACE}],
                "rules": [{"backendRefs": backends}],
            },
        }));
    }
    let parents: Vec<(String, String)> = ["HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute"]
        .into_iter()
        .flat_map(|kind| cast.of_kind(kind))
        .flat_map(|route| {
            let own = route["metadata"]["namespace"].as_str().unwrap_or_default();
            let parents = route["spec"]["parentRefs"].as_array().into_iter().flatten();
            let gateways = parents.filter(|parent| parent["kind"].is_null() || parent["kind"] == "Gateway");
            gateways.map(move |parent| {
                let text = |field: &str| parent[field].as_str();
                (text("namespace").unwrap_or(own).to_owned(), text("name").unwrap_or_default().to_owned())
            })
        })
        .collect();
    for (namespace, gateway) in parents {
        let there = namespace == GATEWAY_NAMESPACE && gateway == "web";
        if !there && cast.get("Gateway", &namespace, &gateway).is_none() {
            cast.notes.push(format!("Gateway {namespace}/{gateway} is not among the files: made up"));
            cast.add(json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
                "metadata": {"name": gateway, "namespace": namespace},
                "spec": {"gatewayClassName": "sandbox", "listeners": [{"name": "http", "protocol": "HTTP", "port": 80}]},
            }));
        }
    }
    let route = cast.get(kind, namespace, name).cloned().unwrap_or_default();
    let rules = route["spec"]["rules"].as_array().cloned().unwrap_or_default();
    let leads = |rule: &Value| {
        let mut backends = rule["backendRefs"].as_array().into_iter().flatten();
        backends.any(|backend| services.iter().any(|service| backend["name"] == *service))
    };
    let hosts = &route["spec"]["hostnames"];
    match rules.iter().position(leads) {
        Some(rule) if rule > 0 && hosts[0].is_string() => {
            host_target(&hosts[0], &rules[rule]["matches"][0]["path"]["value"])
        }
        _ => Target::Route(Name::new(namespace, name)),
    }
}

fn backends(rules: &Value) -> impl Iterator<Item = &Value> {
    let rules = rules.as_array().into_iter().flatten();
    rules.flat_map(|rule| rule["backendRefs"].as_array().into_iter().flatten())
}

/// A host and a path that a rule's host and path let pass.
fn host_target(host: &Value, path: &Value) -> Target {
    let host = host.as_str().unwrap_or("users.example");
    let host = host.strip_prefix('*').map_or(host.to_owned(), |rest| format!("users.{}", rest.trim_start_matches('.')));
    let host = if host == "users." { "users.example".to_owned() } else { host };
    let path = path.as_str().filter(|path| path.starts_with('/')).unwrap_or("/").to_owned();
    Target::Host { host, path, headers: Default::default() }
}

/// The first port of a Service.
fn port(cast: &Cast, service: &str) -> i64 {
    let service = cast.get("Service", &cast.namespace, service);
    service.and_then(|service| service["spec"]["ports"][0]["port"].as_i64()).unwrap_or(80)
}
