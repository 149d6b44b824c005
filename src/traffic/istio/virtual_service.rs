//! One VirtualService: which of its routes are split, what they make, and how they are edited.

use std::collections::{BTreeMap, BTreeSet};

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation, ReplaceOperation, TestOperation};
use serde_json::{Map, Value, json};

use super::{Party, party};
use crate::api::resource::ObjectRef;
use crate::api::steps::StringMatch;
use crate::api::traffic_routing::IstioVirtualService;
use crate::plan::Action;
use crate::traffic::managed::{self, Managed};
use crate::traffic::{Context, ObservedSplit, RouterError, Split, Wanted, basis, scaled};

const KINDS: [&str; 3] = ["http", "tls", "tcp"];

/// A VirtualService and what is to be known about it.
pub(super) struct Subject<'a> {
    context: &'a Context<'a>,
    reference: &'a ObjectRef,
    settings: &'a IstioVirtualService,
    object: &'a Value,
    /// Names of managed routes.
    managed: Vec<&'a str>,
}

/// Where a route stands: `spec.KIND[index]`.
type Place = (&'static str, usize);

/// The weights of a route.
#[derive(Debug, Default)]
struct Weights {
    canary: i64,
    stable: i64,
    additional: BTreeMap<String, i64>,
    foreign: i64,
}

impl<'a> Subject<'a> {
    pub(super) fn new(
        context: &'a Context<'a>,
        reference: &'a ObjectRef,
        settings: &'a IstioVirtualService,
        object: &'a Value,
    ) -> Self {
        Self { context, reference, settings, object, managed: managed::names(context.rollout) }
    }

    pub(super) fn observe(&self, observed: &mut ObservedSplit) -> Result<(), RouterError> {
        let split: Vec<&Value> = self.selected()?.into_iter().map(|place| self.route(place)).collect();
        let mut own = Vec::new();
        for (_, route, name) in self.managed_routes() {
            observed.managed.insert(name.to_owned());
            own.extend(is_mirror(route).then_some(route));
        }
        for route in split.into_iter().chain(own) {
            self.weights(route).add_to(observed);
        }
        Ok(())
    }

    pub(super) fn edit(&self, wanted: Wanted<'_>) -> Result<Option<Action>, RouterError> {
        let mut operations = Vec::new();
        let mut bases = Vec::new();
        match self.selected() {
            Ok(selected) => {
                for (kind, index) in selected {
                    let before = self.route((kind, index));
                    let mut after = before.clone();
                    if let Some(split) = wanted.split {
                        after["route"] = self.divided(&before["route"], split);
                    }
                    if before["route"] != after["route"] {
                        let path = || PointerBuf::from_tokens(["spec", kind, &index.to_string(), "route"]);
                        let (old, new) = (before["route"].clone(), after["route"].clone());
                        operations.push(PatchOperation::Test(TestOperation { path: path(), value: old }));
                        operations.push(PatchOperation::Replace(ReplaceOperation { path: path(), value: new }));
                    }
                    if kind == "http" {
                        bases.push((index, after));
                    }
                }
            }
            // Whatever has become of the user's routes: those that are ours can go.
            Err(error) if !wanted.managed.is_empty() || self.managed_routes().next().is_none() => return Err(error),
            Err(_) => {}
        }
        if bases.is_empty() && !wanted.managed.is_empty() {
            return Err(self.unfit("has no HTTP route beside which a header or mirror route could stand".to_owned()));
        }
        operations.extend(self.arrange(wanted.managed, &bases));
        if operations.is_empty() {
            return Ok(None);
        }
        let what = describe(wanted);
        Ok(Some(Action::JsonPatch { object: basis(self.reference, self.object), patch: Patch(operations), what }))
    }

    /// The routes that are split: those that the settings name, or where they name none of any kind, one of each.
    fn selected(&self) -> Result<Vec<Place>, RouterError> {
        let mut selected = Vec::new();
        for kind in KINDS {
            let (places, implied) = self.named(kind)?;
            for place in places {
                let parties = self.parties(self.route(place));
                let complete = parties.contains(&Some(true)) && parties.contains(&Some(false));
                if complete {
                    selected.push(place);
                } else if !implied || !parties.iter().all(Option::is_none) {
                    return Err(self.incomplete(place));
                }
            }
        }
        if selected.is_empty() {
            return Err(self.unfit(format!(
                "no route has both {} and {} among its destinations; add them to the route whose traffic the rollout is \
                 to split",
                self.called(Party::Stable),
                self.called(Party::Canary)
            )));
        }
        Ok(selected)
    }

    /// The routes of one kind that the settings mean, and whether they only imply them.
    fn named(&self, kind: &'static str) -> Result<(Vec<Place>, bool), RouterError> {
        let all = self.all(kind);
        let places = |found: Vec<usize>| found.into_iter().map(|index| (kind, index)).collect();
        let find = |what: String, fits: &dyn Fn(&Value) -> bool| {
            let found = all.iter().position(fits);
            found.ok_or_else(|| {
                self.unfit(format!(
                    "spec.{kind} has no route {what}; see the routes of this VirtualService in the Rollout"
                ))
            })
        };
        let settings = self.settings;
        let found: Result<Vec<usize>, RouterError> = match kind {
            "http" => {
                settings.routes.iter().map(|name| find(format!("named {name:?}"), &|it| it["name"] == **name)).collect()
            }
            "tls" => {
                let fits = |ports: Option<i64>, hosts: &[String], route: &Value| {
                    let wanted: BTreeSet<&str> = hosts.iter().map(String::as_str).collect();
                    only_port(ports, route) && (wanted.is_empty() || hosts_of(route) == wanted)
                };
                let one = |it: &crate::api::traffic_routing::IstioTlsRoute| {
                    let what = format!("for port {:?} and the hosts {:?}", it.port.unwrap_or_default(), it.sni_hosts);
                    find(what, &|route| fits(it.port, &it.sni_hosts, route))
                };
                settings.tls_routes.iter().map(one).collect()
            }
            _ => {
                let one = |it: &crate::api::traffic_routing::IstioTcpRoute| {
                    find(format!("for port {:?}", it.port.unwrap_or_default()), &|route| only_port(it.port, route))
                };
                settings.tcp_routes.iter().map(one).collect()
            }
        };
        let found = found?;
        if !found.is_empty() {
            return Ok((places(found), false));
        }
        if kind != "http" {
            return Ok((places((!all.is_empty()).then_some(0).into_iter().collect()), true));
        }
        // Beside routes of ours the only one of the user is still the only one.
        let own: Vec<usize> = self.managed_routes().map(|(index, ..)| index).collect();
        let users: Vec<usize> = (0..all.len()).filter(|index| !own.contains(index)).collect();
        let unnamed = users.iter().copied().find(|index| all[*index]["name"].as_str().unwrap_or_default().is_empty());
        match (&users[..], unnamed) {
            ([only], _) => Ok((places(vec![*only]), true)),
            ([], _) => Ok((Vec::new(), true)),
            (_, Some(unnamed)) => Ok((places(vec![unnamed]), true)),
            _ if !settings.tls_routes.is_empty() || !settings.tcp_routes.is_empty() => Ok((Vec::new(), true)),
            _ => Err(self
                .unfit("spec.http has several routes and all have names; name those to split in `routes`".to_owned())),
        }
    }

    fn all(&self, kind: &str) -> &'a [Value] {
        self.object["spec"][kind].as_array().map_or(&[][..], Vec::as_slice)
    }

    fn route(&self, (kind, index): Place) -> &'a Value {
        &self.object["spec"][kind][index]
    }

    /// The managed routes that are there, with their index and the name that the steps know them by.
    fn managed_routes(&self) -> impl Iterator<Item = (usize, &'a Value, &str)> {
        self.all("http").iter().enumerate().filter_map(|(index, route)| {
            let is_copy =
                || is_mirror(route) || destinations(route).iter().all(|it| party(self.context, it) == Party::Canary);
            let name = managed::owner(&self.managed, route["name"].as_str()?, is_copy)?;
            Some((index, route, name))
        })
    }

    /// For each destination whether it is the canary's; none where it is not ours.
    fn parties(&self, route: &Value) -> Vec<Option<bool>> {
        let role = |destination: &Value| match party(self.context, destination) {
            Party::Canary => Some(true),
            Party::Stable => Some(false),
            Party::Experiment(_) | Party::Foreign => None,
        };
        destinations(route).iter().map(role).collect()
    }

    fn weights(&self, route: &Value) -> Weights {
        let mut weights = Weights::default();
        for destination in destinations(route) {
            let weight = destination["weight"].as_i64().unwrap_or(0).max(0);
            match party(self.context, destination) {
                Party::Canary => weights.canary += weight,
                Party::Stable => weights.stable += weight,
                Party::Experiment(service) => *weights.additional.entry(service.to_owned()).or_default() += weight,
                Party::Foreign => weights.foreign += weight,
            }
        }
        weights
    }

    /// The destinations of a route with the weights of a split.
    fn divided(&self, route: &Value, split: &Split) -> Value {
        let before = route.as_array().map_or(&[][..], Vec::as_slice);
        let foreign: i64 = before
            .iter()
            .filter(|it| party(self.context, it) == Party::Foreign)
            .map(|it| it["weight"].as_i64().unwrap_or(0).max(0))
            .sum();
        let mut canary = Some(i64::from(split.canary));
        let mut stable = Some((i64::from(split.stable) - foreign).max(0));
        let mut additional = split.additional.clone();
        let mut after = Vec::new();
        for destination in before {
            // Of several destinations that are alike the first one gets everything.
            let weight = match party(self.context, destination) {
                Party::Canary => canary.take().unwrap_or(0),
                Party::Stable => stable.take().unwrap_or(0),
                Party::Experiment(service) => match additional.remove(service) {
                    Some(weight) => i64::from(weight),
                    None => continue,
                },
                Party::Foreign => {
                    after.push(destination.clone());
                    continue;
                }
            };
            let mut destination = destination.clone();
            if destination["weight"].as_i64() != Some(weight) {
                destination["weight"] = json!(weight);
            }
            after.push(destination);
        }
        let new = |(service, weight)| json!({"destination": {"host": service}, "weight": weight});
        after.extend(additional.iter().map(new));
        Value::Array(after)
    }

    /// A managed route beside one of the user's routes. Its rewrites, timeouts and the like hold for it, too.
    fn copy(&self, managed: Managed<'_>, base: &Value, index: usize) -> Value {
        let mut route = base.clone();
        for field in ["mirror", "mirrors", "mirrorPercent", "mirror_percent", "mirrorPercentage"] {
            route.as_object_mut().and_then(|fields| fields.remove(field));
        }
        route["name"] = json!(managed::numbered(managed.name(), index));
        let canary = destinations(base).iter().find(|it| party(self.context, it) == Party::Canary);
        let canary = canary.map_or(Value::Null, |it| it["destination"].clone());
        let matches: Vec<Value> = match managed {
            Managed::Header(header) => {
                route["route"] = json!([{"destination": canary, "weight": 100}]);
                let one = |it: &crate::api::steps::HeaderMatch| {
                    let value = it.header_value.as_ref().map_or(Value::Null, matched);
                    json!({"headers": {&it.header_name: value}})
                };
                header.match_.iter().map(one).collect()
            }
            Managed::Mirror(mirror) => {
                route["mirror"] = canary;
                route["mirrorPercentage"] = json!({"value": mirror.percentage.unwrap_or(100)});
                let one = |it: &crate::api::steps::RouteMatch| {
                    let mut one = Map::new();
                    one.extend(it.method.as_ref().map(|value| ("method".to_owned(), matched(value))));
                    one.extend(it.path.as_ref().map(|value| ("uri".to_owned(), matched(value))));
                    if !it.headers.is_empty() {
                        let headers = it.headers.iter().map(|(name, value)| (name.clone(), matched(value)));
                        one.insert("headers".to_owned(), Value::Object(headers.collect()));
                    }
                    Value::Object(one)
                };
                mirror.match_.iter().map(one).collect()
            }
        };
        route["match"] = Value::Array(managed::narrowed(&base["match"], &matches, narrow));
        route
    }

    /// The operations that put a copy of each managed route, and no other managed ones, before each of the routes that are
    /// split: a request that an earlier route of the user takes stays there. They follow on those that change weights, which
    /// count by the present order.
    fn arrange(&self, wanted: &[Managed<'_>], bases: &[(usize, Value)]) -> Vec<PatchOperation> {
        let present: Vec<(usize, &Value)> = self.managed_routes().map(|(index, route, _)| (index, route)).collect();
        let mut made: Vec<(usize, Value)> = Vec::new();
        let users = (0..self.all("http").len()).filter(|index| !present.iter().any(|(own, _)| own == index));
        for (before, index) in users.enumerate() {
            if let Some(number) = bases.iter().position(|(base, _)| *base == index) {
                let copies = wanted.iter().map(|managed| self.copy(*managed, &bases[number].1, number));
                for copy in copies {
                    made.push((before + made.len(), copy));
                }
            }
        }
        if present.iter().copied().eq(made.iter().map(|(index, route)| (*index, route))) {
            return Vec::new();
        }
        let path = |index: usize, field: Option<&str>| {
            let index = index.to_string();
            PointerBuf::from_tokens(["spec", "http", &index].into_iter().chain(field))
        };
        let removals = present.iter().rev().flat_map(|(index, route)| {
            let test = TestOperation { path: path(*index, Some("name")), value: route["name"].clone() };
            let remove = RemoveOperation { path: path(*index, None) };
            [PatchOperation::Test(test), PatchOperation::Remove(remove)]
        });
        let additions =
            made.into_iter().map(|(index, value)| PatchOperation::Add(AddOperation { path: path(index, None), value }));
        removals.chain(additions).collect()
    }

    fn incomplete(&self, (kind, index): Place) -> RouterError {
        self.unfit(format!(
            "spec.{kind}[{index}].route must have both {} and {} among its destinations",
            self.called(Party::Stable),
            self.called(Party::Canary)
        ))
    }

    /// How a destination is recognised.
    fn called(&self, party: Party<'_>) -> String {
        let canary = party == Party::Canary;
        match super::rule(self.context.rollout) {
            Some(rule) => {
                let subset = if canary { &rule.canary_subset_name } else { &rule.stable_subset_name };
                format!("the subset {subset:?}")
            }
            None => {
                let service = if canary { self.context.canary_service } else { self.context.stable_service };
                format!("the host {service:?}")
            }
        }
    }

    fn unfit(&self, problem: String) -> RouterError {
        RouterError::Unfit { object: self.reference.clone(), problem }
    }
}

impl Weights {
    /// Takes these weights into account. Written as we write them they are read as they were meant: what others have comes
    /// off stable's share.
    fn add_to(&self, observed: &mut ObservedSplit) {
        let total = observed.split.total;
        let additional: i64 = self.additional.values().sum();
        let sum = self.canary + self.stable + additional + self.foreign;
        let ours = self.stable == (i64::from(total) - self.canary - additional - self.foreign).max(0);
        if sum == 0 {
            // Istio refuses such a route or sends as it likes.
            observed.add(total, total);
        } else if ours && self.canary + additional <= i64::from(total) {
            observed.add(self.canary as i32, (i64::from(total) - self.canary - additional) as i32);
        } else {
            observed.add(scaled(self.canary, sum, total), scaled(self.stable + self.foreign, sum, total));
        }
        for (service, weight) in &self.additional {
            let weight = if ours { i32::try_from(*weight).unwrap_or(total) } else { scaled(*weight, sum, total) };
            observed.add_additional(service, weight);
        }
    }
}

fn describe(wanted: Wanted<'_>) -> String {
    let split = wanted.split.map(|split| format!("weight {} to the canary, {} to stable", split.canary, split.stable));
    let names: Vec<&str> = wanted.managed.iter().map(Managed::name).collect();
    let managed = (!names.is_empty()).then(|| format!("managed routes {}", names.join(", ")));
    let parts: Vec<String> = split.into_iter().chain(managed).collect();
    if parts.is_empty() { "no managed routes".to_owned() } else { parts.join("; ") }
}

fn destinations(route: &Value) -> &[Value] {
    route["route"].as_array().map_or(&[][..], Vec::as_slice)
}

fn is_mirror(route: &Value) -> bool {
    route["mirror"].is_object()
}

/// Whether all matches of a route are for this one port; any route if no port is asked for.
fn only_port(port: Option<i64>, route: &Value) -> bool {
    let Some(port) = port.filter(|port| *port != 0) else { return true };
    let ports: BTreeSet<Option<i64>> =
        route["match"].as_array().into_iter().flatten().map(|one| one["port"].as_i64()).collect();
    ports == BTreeSet::from([Some(port)])
}

fn hosts_of(route: &Value) -> BTreeSet<&str> {
    let matches = route["match"].as_array().into_iter().flatten();
    matches.flat_map(|one| one["sniHosts"].as_array().into_iter().flatten()).filter_map(Value::as_str).collect()
}

fn matched(value: &StringMatch) -> Value {
    let (kind, text) = managed::matcher(value);
    json!({ kind: text })
}

/// A match of the user's route that also asks for what a step asks for. Where both speak of the same thing the step, which
/// is the narrower one, is heard.
fn narrow(base: &Value, by: &Value) -> Value {
    let mut narrowed = base.clone();
    for (field, value) in by.as_object().into_iter().flatten() {
        match (field.as_str(), narrowed["headers"].as_object_mut()) {
            ("headers", Some(headers)) => headers.extend(value.as_object().cloned().unwrap_or_default()),
            _ => narrowed[field] = value.clone(),
        }
    }
    // A name of a match is for its statistics, and two must not share one.
    narrowed.as_object_mut().and_then(|fields| fields.remove("name"));
    narrowed
}
