//! Managed routes: the routes that header and mirror steps make beside the user's own.
//!
//! They are never remembered: which there should be follows from the steps, and which there are from the objects.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::api::Rollout;
use crate::api::steps::{SetHeaderRoute, SetMirrorRoute, StringMatch};

/// A route that a step has made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Managed<'a> {
    /// Requests with these headers go to the canary.
    Header(&'a SetHeaderRoute),
    /// Of these requests some are copied to the canary; who sent them gets the answer of the first one.
    Mirror(&'a SetMirrorRoute),
}

impl<'a> Managed<'a> {
    pub fn name(&self) -> &'a str {
        match self {
            Self::Header(route) => &route.name,
            Self::Mirror(route) => &route.name,
        }
    }
}

/// The names that managed routes of a Rollout can have, in the order of precedence: that of `managedRoutes`.
pub fn names(rollout: &Rollout) -> Vec<&str> {
    let Some(canary) = &rollout.spec.strategy.canary else { return Vec::new() };
    let listed = canary.traffic_routing.iter().flat_map(|routing| &routing.managed_routes);
    let listed = listed.map(|route| route.name.as_str());
    let mut seen = BTreeSet::new();
    listed.chain(every(rollout).map(|route| route.name())).filter(|name| seen.insert(*name)).collect()
}

/// Every route that any step makes.
pub fn every(rollout: &Rollout) -> impl Iterator<Item = Managed<'_>> {
    let steps = rollout.spec.strategy.canary.iter().flat_map(|canary| &canary.steps);
    steps.flat_map(|step| {
        let header = step.set_header_route.as_deref().filter(|route| !route.match_.is_empty()).map(Managed::Header);
        let mirror = step.set_mirror_route.as_deref().filter(|route| !route.match_.is_empty()).map(Managed::Mirror);
        header.into_iter().chain(mirror)
    })
}

/// The name of the copy that a managed route has for the `index`-th of the user's routes: `NAME`, `NAME-1`, `NAME-2` …
pub(super) fn numbered(name: &str, index: usize) -> String {
    if index == 0 { name.to_owned() } else { format!("{name}-{index}") }
}

/// The managed route whose copy has this name. Numbers are for copies only, so `is_copy` must confirm a numbered name: the
/// user may have a route that is called so.
pub(super) fn owner<'a>(names: &[&'a str], name: &str, is_copy: impl FnOnce() -> bool) -> Option<&'a str> {
    if let Some(exact) = names.iter().find(|known| **known == name) {
        return Some(exact);
    }
    let (base, number) = name.rsplit_once('-')?;
    let numbered = !number.is_empty() && !number.starts_with('0') && number.bytes().all(|byte| byte.is_ascii_digit());
    names.iter().copied().find(|known| numbered && *known == base).filter(|_| is_copy())
}

/// The one matcher that is set, and its kind: `exact`, `prefix` or `regex`. Validation sees to it that there is one.
pub(super) fn matcher(value: &StringMatch) -> (&'static str, &str) {
    if !value.exact.is_empty() {
        ("exact", &value.exact)
    } else if !value.prefix.is_empty() {
        ("prefix", &value.prefix)
    } else {
        ("regex", &value.regex)
    }
}

/// Every match of one list narrowed by every match of the other; a list that is empty matches everything.
pub(super) fn narrowed(base: &Value, by: &[Value], narrow: impl Fn(&Value, &Value) -> Value) -> Vec<Value> {
    let everything = [serde_json::json!({})];
    let base = base.as_array().filter(|list| !list.is_empty()).map_or(&everything[..], Vec::as_slice);
    base.iter().flat_map(|one| by.iter().map(|other| narrow(one, other)).collect::<Vec<_>>()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_numbered_name_needs_to_be_confirmed() {
        let names = ["beta", "beta-1"];
        for (name, is_copy, expected) in [
            ("beta", false, Some("beta")),
            ("beta-1", false, Some("beta-1")),
            ("beta-2", true, Some("beta")),
            ("beta-2", false, None),
            ("beta-02", true, None),
            ("beta-", true, None),
            ("beta-x", true, None),
            ("gamma-1", true, None),
            ("", true, None),
        ] {
            assert_eq!(owner(&names, name, || is_copy), expected, "{name} {is_copy}");
        }
        assert_eq!(numbered("beta", 0), "beta");
        assert_eq!(numbered("beta", 2), "beta-2");
    }
}
