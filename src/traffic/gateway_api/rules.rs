//! The rules of one route: those of the user that are split, and those that steps have made.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, PatchOperation, RemoveOperation, ReplaceOperation, TestOperation};
use serde_json::{Value, json};

use super::managed::{copy, essence, mirrors};
use super::{DEFAULT_WEIGHT, is_service};
use crate::api::resource::ObjectRef;
use crate::traffic::managed::{self, Managed};
use crate::traffic::{Context, ObservedSplit, RouterError, Split, scaled};

/// The rules of a route, sorted out. Each comes with its index in `spec.rules`.
pub(super) struct Rules<'a> {
    context: &'a Context<'a>,
    reference: &'a ObjectRef,
    /// The user's rules that have both Services.
    split: Vec<(usize, &'a Value)>,
    /// The managed ones, with the name that steps know them by.
    managed: Vec<(usize, &'a Value, &'a str)>,
}

impl<'a> Rules<'a> {
    pub(super) fn of(context: &'a Context<'a>, reference: &'a ObjectRef, route: &'a Value) -> Self {
        let names = managed::names(context.rollout);
        let has = |rule: &Value, service| backends(rule).iter().any(|it| is_service(it, service));
        let is_copy = |rule: &Value| !has(rule, context.stable_service) || mirrors(context, rule);
        let owner =
            |rule: &'a Value| managed::owner(&names, rule["name"].as_str().unwrap_or_default(), || is_copy(rule));
        let rules = route["spec"]["rules"].as_array().map_or(&[][..], Vec::as_slice);
        let (named, others): (Vec<_>, Vec<_>) = rules
            .iter()
            .enumerate()
            .map(|(index, rule)| (index, rule, owner(rule)))
            .partition(|(.., name)| name.is_some());
        let mut managed: Vec<_> =
            named.into_iter().filter_map(|(index, rule, name)| Some((index, rule, name?))).collect();
        let mut split: Vec<(usize, &Value)> = others
            .iter()
            .filter(|(_, rule, _)| has(rule, context.canary_service) && has(rule, context.stable_service))
            .map(|(index, rule, _)| (*index, *rule))
            .collect();
        // Where the API server knows no names of rules, ours are known by what they are.
        let possible: Vec<(&str, Value)> = managed::every(context.rollout)
            .flat_map(|one| {
                split
                    .iter()
                    .map(move |(_, base)| (one.name(), essence(&copy(context, one, base, 0))))
                    .collect::<Vec<_>>()
            })
            .collect();
        for (index, rule, _) in others.iter().filter(|(_, rule, _)| rule["name"].is_null()) {
            let known = possible.iter().find(|(_, possible)| *possible == essence(rule));
            if let Some((name, _)) = known {
                managed.push((*index, rule, name));
                split.retain(|(other, _)| other != index);
            }
        }
        managed.sort_by_key(|(index, ..)| *index);
        Self { context, reference, split, managed }
    }

    pub(super) fn observe(&self, observed: &mut ObservedSplit) -> Result<(), RouterError> {
        self.check()?;
        for (_, rule, name) in &self.managed {
            observed.managed.insert((*name).to_owned());
            if !mirrors(self.context, rule) {
                continue;
            }
            self.add(rule, observed);
        }
        self.split.iter().for_each(|(_, rule)| self.add(rule, observed));
        Ok(())
    }

    fn add(&self, rule: &Value, observed: &mut ObservedSplit) {
        let total = observed.split.total;
        let of = |service: &str| backends(rule).iter().find(|it| is_service(it, service)).map_or(0, weight);
        let (canary, stable) = (of(self.context.canary_service), of(self.context.stable_service));
        let additional = self.context.experiment_services.keys();
        let additional: Vec<(&String, i64)> = additional
            .filter(|service| backends(rule).iter().any(|it| is_service(it, service)))
            .map(|service| (service, of(service)))
            .collect();
        // A rule whose own backends all have weight 0 sends nothing to any of them.
        let sum = canary + stable + additional.iter().map(|(_, weight)| weight).sum::<i64>();
        observed.add(scaled(canary, sum, total), scaled(stable, sum, total));
        for (service, weight) in additional {
            observed.add_additional(service, scaled(weight, sum, total));
        }
    }

    /// The operations that lead to a split (if one is wanted) and to these managed rules.
    pub(super) fn edit(
        &self,
        split: Option<&Split>,
        wanted: &[Managed<'_>],
    ) -> Result<Vec<PatchOperation>, RouterError> {
        let mut operations = Vec::new();
        let mut bases = Vec::new();
        match self.check() {
            // Whatever has become of the user's rules: those that are ours can go.
            Err(error) if !wanted.is_empty() || self.managed.is_empty() => return Err(error),
            Err(_) => {}
            Ok(()) => {
                for (index, rule) in &self.split {
                    let mut after = (*rule).clone();
                    if let Some(split) = split {
                        after["backendRefs"] = Value::Array(self.divided(rule, split));
                        operations.extend(changes(*index, backends(rule), backends(&after)));
                    }
                    bases.push(after);
                }
            }
        }
        let copies = |one: &Managed<'_>| {
            let one = *one;
            bases.iter().enumerate().map(move |(index, base)| copy(self.context, one, base, index)).collect::<Vec<_>>()
        };
        operations.extend(self.arrange(wanted.iter().flat_map(copies).collect()));
        Ok(operations)
    }

    /// The backends of a rule with the weights of a split.
    fn divided(&self, rule: &Value, split: &Split) -> Vec<Value> {
        let mut additional = split.additional.clone();
        let mut after = Vec::new();
        for backend in backends(rule) {
            let experiment = self.context.experiment_services.keys().find(|service| is_service(backend, service));
            let wanted = if is_service(backend, self.context.canary_service) {
                Some(split.canary)
            } else if is_service(backend, self.context.stable_service) {
                Some(split.stable)
            } else if let Some(service) = experiment {
                let Some(weight) = additional.remove(service) else { continue };
                Some(weight)
            } else {
                None
            };
            let mut backend = backend.clone();
            if let Some(wanted) = wanted
                && backend["weight"].as_i64() != Some(wanted.into())
            {
                backend["weight"] = json!(wanted);
            }
            after.push(backend);
        }
        after.extend(additional.into_iter().map(|(service, weight)| {
            let port = self.port(&service, rule);
            json!({"group": "", "kind": "Service", "name": service, "port": port, "weight": weight})
        }));
        after
    }

    /// The port of an experiment's Service: the one named `http`, else its first; that of the canary where it is not known.
    fn port(&self, service: &str, rule: &Value) -> Value {
        let ports = self.context.services.get(service).map_or(&[][..], |known| &known.object.ports);
        let named = ports.iter().find(|(name, _)| name == "http").or(ports.first());
        let canary = || backends(rule).iter().find(|it| is_service(it, self.context.canary_service));
        named.map_or_else(|| canary().map_or(Value::Null, |it| it["port"].clone()), |(_, port)| json!(port))
    }

    /// The operations that put these rules, and no other managed ones, before those of the user: of two rules that match
    /// alike the first one is heard. They follow on those that change weights, which count by the present order.
    fn arrange(&self, wanted: Vec<Value>) -> Vec<PatchOperation> {
        let same = |present: &Value, wanted: &Value| {
            let mut wanted = wanted.clone();
            if present["name"].is_null() {
                wanted.as_object_mut().and_then(|fields| fields.remove("name"));
            }
            *present == wanted
        };
        let in_place = self.managed.len() == wanted.len()
            && self
                .managed
                .iter()
                .zip(&wanted)
                .enumerate()
                .all(|(at, ((index, rule, _), wanted))| at == *index && same(rule, wanted));
        if in_place {
            return Vec::new();
        }
        let path = |index: usize| PointerBuf::from_tokens(["spec", "rules", &index.to_string()]);
        let removals = self.managed.iter().rev().flat_map(|(index, rule, _)| {
            let test = TestOperation { path: path(*index), value: (*rule).clone() };
            [PatchOperation::Test(test), PatchOperation::Remove(RemoveOperation { path: path(*index) })]
        });
        let additions = wanted
            .into_iter()
            .enumerate()
            .map(|(index, value)| PatchOperation::Add(AddOperation { path: path(index), value }));
        removals.chain(additions).collect()
    }

    fn check(&self) -> Result<(), RouterError> {
        if !self.split.is_empty() {
            return Ok(());
        }
        let problem = format!(
            "no rule of spec.rules has both Service {:?} (stable) and Service {:?} (canary) among its backendRefs; add them \
             to the rule whose traffic the rollout is to split",
            self.context.stable_service, self.context.canary_service
        );
        Err(RouterError::Unfit { object: self.reference.clone(), problem })
    }
}

fn backends(rule: &Value) -> &[Value] {
    rule["backendRefs"].as_array().map_or(&[][..], Vec::as_slice)
}

fn weight(backend: &Value) -> i64 {
    backend["weight"].as_i64().unwrap_or(DEFAULT_WEIGHT).max(0)
}

/// What changes in the backends of a rule: single weights where nothing else does, with the tests that each lands on the
/// backend that was looked at.
fn changes(rule: usize, before: &[Value], after: &[Value]) -> Vec<PatchOperation> {
    let rule = rule.to_string();
    let name = |backend: &Value| backend["name"].clone();
    if !before.iter().map(name).eq(after.iter().map(name)) {
        let path = || PointerBuf::from_tokens(["spec", "rules", &rule, "backendRefs"]);
        let test = TestOperation { path: path(), value: Value::Array(before.to_vec()) };
        let replace = ReplaceOperation { path: path(), value: Value::Array(after.to_vec()) };
        return vec![PatchOperation::Test(test), PatchOperation::Replace(replace)];
    }
    let mut operations = Vec::new();
    for (index, (old, new)) in before.iter().zip(after).enumerate().filter(|(_, (old, new))| old != new) {
        let index = index.to_string();
        let at = |field| PointerBuf::from_tokens(["spec", "rules", &rule, "backendRefs", &index, field]);
        operations.push(PatchOperation::Test(TestOperation { path: at("name"), value: name(old) }));
        if let Some(written) = old.get("weight") {
            operations.push(PatchOperation::Test(TestOperation { path: at("weight"), value: written.clone() }));
        }
        operations.push(PatchOperation::Add(AddOperation { path: at("weight"), value: new["weight"].clone() }));
    }
    operations
}
