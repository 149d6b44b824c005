//! What a URL says: the route and the query parameters.

use std::collections::BTreeMap;

/// Where a path leads.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Route {
    Resource(ResourcePath),
    /// Discovery, health, OpenAPI: the segments of the path.
    Other(Vec<String>),
}

/// The path of an object or a collection.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ResourcePath {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) plural: String,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) subresource: String,
}

impl Route {
    pub(super) fn parse(path: &str) -> Self {
        let segments: Vec<String> =
            path.split('/').filter(|segment| !segment.is_empty()).map(|segment| decode(segment, false)).collect();
        let at = |index: usize| segments.get(index).cloned().unwrap_or_default();
        let (group, version, rest) = match segments.first().map(String::as_str) {
            Some("api") if segments.len() > 2 => (String::new(), at(1), 2),
            Some("apis") if segments.len() > 3 => (at(1), at(2), 3),
            _ => return Self::Other(segments),
        };
        // `namespaces/NAME` alone, and its subresources, are about the namespace itself.
        let own = |segment: &str| matches!(segment, "status" | "finalize");
        let inside = at(rest) == "namespaces" && segments.len() > rest + 2 && !own(&at(rest + 2));
        let (namespace, rest) = if inside { (at(rest + 1), rest + 2) } else { (String::new(), rest) };
        let (plural, name, subresource) = (at(rest), at(rest + 1), segments.get(rest + 2..).unwrap_or(&[]).join("/"));
        Self::Resource(ResourcePath { group, version, plural, namespace, name, subresource })
    }
}

/// The parameters of a query.
#[derive(Clone, Debug, Default)]
pub(super) struct Params(BTreeMap<String, String>);

impl Params {
    pub(super) fn parse(query: &str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key, true), decode(value, true))
        });
        Self(pairs.collect())
    }

    /// The value of a parameter, empty when absent.
    pub(super) fn text(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        matches!(self.text(key), "true" | "1")
    }

    pub(super) fn number(&self, key: &str) -> Option<u64> {
        self.text(key).parse().ok()
    }
}

fn decode(text: &str, plus_is_space: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let raw = text.as_bytes();
    let mut at = 0;
    while at < raw.len() {
        let hex = (raw[at] == b'%').then(|| raw.get(at + 1..at + 3)).flatten();
        let hex = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (hex, raw[at]) {
            (Some(byte), _) => {
                bytes.push(byte);
                at += 2;
            }
            (None, b'+') if plus_is_space => bytes.push(b' '),
            (None, byte) => bytes.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_resources() {
        for (path, group, version, namespace, plural, name, subresource) in [
            ("/api/v1/pods", "", "v1", "", "pods", "", ""),
            ("/api/v1/namespaces", "", "v1", "", "namespaces", "", ""),
            ("/api/v1/namespaces/x", "", "v1", "", "namespaces", "x", ""),
            ("/api/v1/namespaces/x/status", "", "v1", "", "namespaces", "x", "status"),
            ("/api/v1/namespaces/x/pods/p/eviction", "", "v1", "x", "pods", "p", "eviction"),
            (
                "/apis/argoproj.io/v1alpha1/namespaces/x/rollouts/r/status",
                "argoproj.io",
                "v1alpha1",
                "x",
                "rollouts",
                "r",
                "status",
            ),
            (
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
                "rbac.authorization.k8s.io",
                "v1",
                "",
                "clusterroles",
                "system:node",
                "",
            ),
        ] {
            let Route::Resource(it) = Route::parse(path) else { panic!("{path} leads nowhere") };
            let found = (&*it.group, &*it.version, &*it.namespace, &*it.plural, &*it.name, &*it.subresource);
            assert_eq!(found, (group, version, namespace, plural, name, subresource), "{path}");
        }
        assert_eq!(Route::parse("/apis/apps/v1"), Route::Other(vec!["apis".into(), "apps".into(), "v1".into()]));
    }

    #[test]
    fn parameters_are_decoded() {
        let params = Params::parse("labelSelector=app+in+%28a%2Cb%29&watch=true&limit=5");
        assert_eq!(params.text("labelSelector"), "app in (a,b)");
        assert!(params.flag("watch"));
        assert_eq!(params.number("limit"), Some(5));
    }
}
