//! Istio: what proxies make of VirtualServices and DestinationRules.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::Via;
use super::matching::regex_fits;
use super::plane::{Mirror, Share};
use crate::sandbox::workloads::Name;

const HASH: &str = "rollouts-pod-template-hash";

/// Where requests go; `None` when no VirtualService is for the host, or none of its routes fits.
pub(super) fn backends(
    services: &BTreeMap<Name, Arc<Value>>,
    rules: &BTreeMap<Name, Arc<Value>>,
    host: &str,
    path: &str,
    headers: &BTreeMap<String, String>,
) -> Option<(Vec<Share>, Vec<Mirror>)> {
    let (name, service) =
        services.iter().find(|(_, it)| texts(&it["spec"]["hosts"]).any(|one| host_fits(one, host)))?;
    // The first route that fits is taken, not the best.
    let route = list(&service["spec"]["http"]).find(|route| fits(route, path, headers))?;
    let share = |destination: &Value, weight: f64| {
        let to = target(name, &destination["host"]);
        Share {
            hash: hash(rules, &to, name, destination["subset"].as_str()),
            service: to,
            port: destination["port"]["number"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(80),
            weight,
            via: Via::Mesh { virtual_service: name.clone() },
        }
    };
    let only = list(&route["route"]).count() == 1;
    let weight = |it: &Value| if only { 1.0 } else { it["weight"].as_i64().unwrap_or(0).max(0) as f64 };
    let shares = list(&route["route"]).map(|it| share(&it["destination"], weight(it))).collect();
    let mirror = route["mirror"].is_object().then(|| Mirror {
        part: route["mirrorPercentage"]["value"].as_f64().unwrap_or(100.0) / 100.0,
        share: Share { via: Via::Mirrored, ..share(&route["mirror"], 1.0) },
    });
    Some((shares, mirror.into_iter().collect()))
}

/// The hash that pods of a subset must have; none without a subset, or when its labels name none.
fn hash(rules: &BTreeMap<Name, Arc<Value>>, service: &Name, near: &Name, subset: Option<&str>) -> Option<String> {
    let subset = subset?;
    let (_, rule) = rules
        .iter()
        .find(|(name, rule)| name.namespace == near.namespace && target(name, &rule["spec"]["host"]) == *service)?;
    let found = list(&rule["spec"]["subsets"]).find(|it| it["name"] == subset)?;
    found["labels"][HASH].as_str().map(str::to_owned)
}

/// The Service behind a host, which may leave out the namespace.
fn target(near: &Name, host: &Value) -> Name {
    let mut parts = host.as_str().unwrap_or_default().split('.');
    let name = parts.next().unwrap_or_default();
    Name::new(parts.next().unwrap_or(&near.namespace), name)
}

fn host_fits(pattern: &str, host: &str) -> bool {
    pattern.strip_prefix('*').map_or(pattern == host, |suffix| host.ends_with(suffix))
}

fn fits(route: &Value, path: &str, headers: &BTreeMap<String, String>) -> bool {
    let one_fits = |one: &Value| {
        let wanted = one["headers"].as_object().into_iter().flatten();
        let mut wanted = wanted.map(|(name, wanted)| {
            let given = headers.iter().find(|(given, _)| given.eq_ignore_ascii_case(name));
            given.is_some_and(|(_, given)| text_fits(wanted, given))
        });
        let by_method = one["method"].is_null() || text_fits(&one["method"], "GET");
        wanted.all(|fits| fits) && by_method && (one["uri"].is_null() || text_fits(&one["uri"], path))
    };
    list(&route["match"]).next().is_none() || list(&route["match"]).any(one_fits)
}

fn text_fits(wanted: &Value, text: &str) -> bool {
    let of = |kind: &str| wanted[kind].as_str();
    of("exact").is_none_or(|exact| exact == text)
        && of("prefix").is_none_or(|prefix| text.starts_with(prefix))
        && of("regex").is_none_or(|regex| regex_fits(regex, text))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    list(value).filter_map(Value::as_str)
}
