//! Which rule of which HTTPRoute a request meets, and where the rule leads.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Via;
use super::plane::{Mirror, Share};
use crate::sandbox::workloads::Name;

/// The rule that fits best: by the host, by the length of the path, by the number of headers, the first of equals.
pub(super) fn best_rule<'a>(
    routes: impl Iterator<Item = (&'a Name, &'a Value)>,
    host: &str,
    path: &str,
    headers: &BTreeMap<String, String>,
) -> Option<(&'a Name, &'a Value)> {
    let mut best: Option<((usize, usize, usize), &Name, &Value)> = None;
    for (name, route) in routes {
        let Some(by_host) = host_fit(&route["spec"]["hostnames"], host) else { continue };
        for rule in route["spec"]["rules"].as_array().into_iter().flatten() {
            let everything = [Value::Null];
            let matches = rule["matches"].as_array().map_or(&everything[..], Vec::as_slice);
            let fits = matches.iter().filter_map(|one| match_fit(one, path, headers));
            let Some((by_path, by_headers)) = fits.max() else { continue };
            let fit = (by_host, by_path, by_headers);
            if best.is_none_or(|(best, _, _)| best < fit) {
                best = Some((fit, name, rule));
            }
        }
    }
    best.map(|(_, name, rule)| (name, rule))
}

/// The longer the name that fits, the better; no hostnames fit every host.
fn host_fit(hostnames: &Value, host: &str) -> Option<usize> {
    let hostnames = hostnames.as_array().map_or(&[][..], Vec::as_slice);
    if hostnames.is_empty() {
        return Some(0);
    }
    let fits = hostnames.iter().filter_map(Value::as_str).filter_map(|name| match name.strip_prefix('*') {
        Some(suffix) => host.ends_with(suffix).then_some(suffix.len()),
        None => (name == host).then_some(usize::MAX),
    });
    fits.max()
}

fn match_fit(one: &Value, path: &str, headers: &BTreeMap<String, String>) -> Option<(usize, usize)> {
    let value = one["path"]["value"].as_str().unwrap_or("/");
    let by_path = match one["path"]["type"].as_str() {
        Some("Exact") => (path == value).then_some(usize::MAX)?,
        _ => prefix_fit(value, path)?,
    };
    let wanted = one["headers"].as_array().map_or(&[][..], Vec::as_slice);
    let present = |header: &Value| {
        let (name, value) = (header["name"].as_str().unwrap_or_default(), header["value"].as_str());
        let mut given = headers.iter().filter(|(given, _)| given.eq_ignore_ascii_case(name));
        given.any(|(_, given)| match header["type"].as_str() {
            Some("RegularExpression") => value.is_some_and(|regex| regex_fits(regex, given)),
            _ => Some(given.as_str()) == value,
        })
    };
    wanted.iter().all(present).then_some((by_path, wanted.len()))
}

/// How many bytes of a path a prefix covers, if it ends at the end of a path element.
pub(super) fn prefix_fit(prefix: &str, path: &str) -> Option<usize> {
    let prefix = prefix.trim_end_matches('/');
    let rest = path.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(prefix.len())
}

/// Where a rule leads.
pub(super) fn backends(rule: &Value, route: &Name) -> Vec<Share> {
    let backends = rule["backendRefs"].as_array().into_iter().flatten();
    backends.map(|backend| share(backend, route, Via::Gateway { route: route.name.clone() })).collect()
}

/// Where a rule sends copies.
pub(super) fn mirrors(rule: &Value, route: &Name) -> Vec<Mirror> {
    let filters = rule["filters"].as_array().into_iter().flatten();
    let filters = filters.filter(|filter| filter["type"] == "RequestMirror").map(|filter| &filter["requestMirror"]);
    let mirror = |mirror: &Value| Mirror {
        part: mirror["percent"].as_f64().unwrap_or(100.0) / 100.0,
        share: share(&mirror["backendRef"], route, Via::Mirrored),
    };
    filters.map(mirror).collect()
}

fn share(backend: &Value, route: &Name, via: Via) -> Share {
    Share {
        service: Name::new(
            backend["namespace"].as_str().unwrap_or(&route.namespace),
            backend["name"].as_str().unwrap_or_default(),
        ),
        hash: None,
        port: backend["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(80),
        weight: backend["weight"].as_i64().unwrap_or(1).max(0) as f64,
        via,
    }
}

/// Whether a regular expression matches the whole text. What does not compile matches nothing.
pub(super) fn regex_fits(regex: &str, text: &str) -> bool {
    regex::Regex::new(&format!("^(?:{regex})$")).is_ok_and(|regex| regex.is_match(text))
}
