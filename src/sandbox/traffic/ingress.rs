//! ingress-nginx: an Ingress, and the canary Ingress that takes a share of its traffic.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::Via;
use super::matching::prefix_fit;
use super::plane::Share;
use crate::sandbox::workloads::Name;

const PREFIX: &str = "nginx.ingress.kubernetes.io";

/// Where requests go; `None` when no Ingress has a fitting path.
pub(super) fn backends(
    ingresses: &BTreeMap<Name, Arc<Value>>,
    host: &str,
    path: &str,
    headers: &BTreeMap<String, String>,
) -> Option<Vec<Share>> {
    let (canaries, mains): (Vec<_>, Vec<_>) =
        ingresses.iter().partition(|(_, ingress)| annotation(ingress, "canary") == Some("true"));
    let fitting = mains.iter().flat_map(|(name, ingress)| {
        paths(ingress, host).filter_map(move |one| Some((prefix_fit(text(&one["path"]), path)?, *name, one)))
    });
    let (_, name, main) = fitting.reduce(|best, next| if next.0 > best.0 { next } else { best })?;
    let share = |namespace: &str, path: &Value, weight: f64, canary: bool| Share {
        service: Name::new(namespace, text(&path["backend"]["service"]["name"])),
        hash: None,
        port: port(path),
        weight,
        via: Via::Nginx {
            ingress: name.name.clone(),
            main: text(&main["backend"]["service"]["name"]).to_owned(),
            canary,
        },
    };
    let canary = canaries.iter().find_map(|(canary, ingress)| {
        let path = paths(ingress, host).find(|path| text(&path["path"]) == text(&main["path"]))?;
        Some(share(&canary.namespace, path, canary_share(ingress, headers), true))
    });
    let rest = 1.0 - canary.as_ref().map_or(0.0, |canary| canary.weight);
    Some([share(&name.namespace, main, rest, false)].into_iter().chain(canary).collect())
}

/// The share that a canary Ingress takes, 0..=1.
fn canary_share(ingress: &Value, headers: &BTreeMap<String, String>) -> f64 {
    if let Some(header) = annotation(ingress, "canary-by-header") {
        let given = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(header)).map(|(_, value)| value.as_str());
        match (given, annotation(ingress, "canary-by-header-value")) {
            (Some(given), Some(wanted)) if given == wanted => return 1.0,
            (Some("always"), None) => return 1.0,
            (Some("never"), None) => return 0.0,
            _ => {}
        }
    }
    let number = |name| annotation(ingress, name).and_then(|text| text.parse::<f64>().ok());
    let total = number("canary-weight-total").unwrap_or(100.0).max(1.0);
    (number("canary-weight").unwrap_or(0.0) / total).clamp(0.0, 1.0)
}

fn annotation<'a>(ingress: &'a Value, name: &str) -> Option<&'a str> {
    ingress["metadata"]["annotations"][format!("{PREFIX}/{name}")].as_str()
}

/// The paths of a host. A rule without a host has them for every host.
fn paths<'a>(ingress: &'a Value, host: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    let host = host.to_owned();
    let rules = ingress["spec"]["rules"].as_array().into_iter().flatten();
    let rules = rules.filter(move |rule| rule["host"].as_str().is_none_or(|name| name.is_empty() || name == host));
    rules.flat_map(|rule| rule["http"]["paths"].as_array().into_iter().flatten())
}

fn port(path: &Value) -> u16 {
    let number = path["backend"]["service"]["port"]["number"].as_u64();
    number.and_then(|number| u16::try_from(number).ok()).unwrap_or(80)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
