//! A Gateway API controller: it accepts routes, says so in their status, and brings them to the data plane.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::plane::{CLASSES, GATEWAYS, Plane};
use crate::sandbox::workloads::Name;

const CONTROLLER: &str = "sandbox.tidegate.io/gateway-controller";

/// How the gateway controller treats a route.
#[derive(Clone, Debug, PartialEq)]
pub enum Conduct {
    /// It accepts the route and follows it after the propagation delay.
    Follows,
    /// As `Follows`, but after this long.
    Slow(Duration),
    /// It says that it accepts the route at once, and follows it after this long.
    Late(Duration),
    /// It says that it does not accept the route, and goes on as before.
    Refuses {
        /// The condition's reason, such as `NotAllowedByListeners`.
        reason: String,
        /// The condition's message.
        message: String,
    },
    /// It says that it accepts the route, and goes on as before.
    Lies,
    /// It neither says nor does anything.
    Silent,
}

/// Which route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Route {
    pub(super) resource: &'static str,
    pub(super) name: Name,
}

/// A condition's reason, or the reason and the message of what is wrong.
type Verdict<'a> = Result<&'a str, (&'a str, String)>;

impl Plane {
    /// Changes the treatment of one route, or of all that are not treated in a way of their own.
    pub(super) fn set_conduct(&mut self, route: Option<Name>, conduct: Conduct, now: Instant) {
        match route {
            Some(route) => drop(self.conducts.insert(route, conduct)),
            None => self.conduct = conduct,
        }
        for (route, object) in self.seen.clone() {
            self.treat(route, Some(object), now);
        }
    }

    fn conduct_of(&self, route: &Route) -> &Conduct {
        self.conducts.get(&route.name).unwrap_or(&self.conduct)
    }

    pub(super) fn observe_gateway(&mut self, resource: &str, name: Name, object: Option<Arc<Value>>, now: Instant) {
        let types: &[&str] = if resource == CLASSES { &["Accepted"] } else { &["Accepted", "Programmed"] };
        if resource == GATEWAYS {
            let there = object.is_some();
            let changed = if there { self.gateways.insert(name.clone()) } else { self.gateways.remove(&name) };
            if changed {
                self.report_all(now);
            }
        }
        let Some(object) = object else { return };
        let generation = &object["metadata"]["generation"];
        let conditions = types.iter().map(|kind| self.condition(generation, &object["status"], kind, Ok(kind)));
        let conditions = Value::Array(conditions.collect());
        if object["status"]["conditions"] != conditions {
            let edit = |object: &mut Value| object["status"]["conditions"] = conditions;
            // It may have gone already.
            let _ = self.controller.edit_status(resource, &name.namespace, &name.name, edit);
        }
    }

    pub(super) fn observe_route(
        &mut self,
        resource: &'static str,
        name: Name,
        object: Option<Arc<Value>>,
        now: Instant,
    ) {
        let route = Route { resource, name };
        let before = match &object {
            Some(object) => self.seen.insert(route.clone(), object.clone()),
            None => self.seen.remove(&route),
        };
        let same = before.is_some_and(|before| object.as_ref().is_some_and(|object| before["spec"] == object["spec"]));
        if !same {
            self.treat(route, object, now);
        }
    }

    fn treat(&mut self, route: Route, object: Option<Arc<Value>>, now: Instant) {
        let (says_after, follows_after) = match self.conduct_of(&route) {
            Conduct::Slow(delay) => (*delay, Some(*delay)),
            Conduct::Follows => (self.propagation, Some(self.propagation)),
            Conduct::Late(delay) => (self.propagation, Some(*delay)),
            Conduct::Refuses { .. } | Conduct::Lies | Conduct::Silent => (self.propagation, None),
        };
        if let Some(object) = &object {
            let generation = object["metadata"]["generation"].as_i64();
            self.reports.insert((now + says_after, route.clone(), generation));
        }
        if let Some(delay) = follows_after {
            self.send(route.resource.into(), route.name, object, delay, now);
        }
    }

    /// Looks at the status of all routes again: what they refer to has come or gone.
    pub(super) fn report_all(&mut self, now: Instant) {
        let at = now + self.propagation;
        self.reports.extend(self.seen.keys().map(|route| (at, route.clone(), None)));
    }

    /// Writes the status of a route, with the generation that has been taken up; it never goes back.
    pub(super) fn report(&self, route: &Route, generation: Option<i64>) {
        let Ok(object) = self.controller.get(route.resource, &route.name.namespace, &route.name.name) else { return };
        let accepted = match self.conduct_of(route) {
            Conduct::Silent => return,
            Conduct::Refuses { reason, message } => Err((reason.as_str(), message.clone())),
            Conduct::Follows | Conduct::Slow(_) | Conduct::Late(_) | Conduct::Lies => Ok("Accepted"),
        };
        let before = object["status"]["parents"].as_array().cloned().unwrap_or_default();
        let references = object["spec"]["parentRefs"].as_array().cloned().unwrap_or_default();
        let known = references.into_iter().filter(|parent| self.gateways.contains(&gateway(&route.name, parent)));
        let mut parents: Vec<Value> = known
            .map(|parent| {
                let old = before.iter().find(|old| old["controllerName"] == CONTROLLER && old["parentRef"] == parent);
                let old = old.unwrap_or(&Value::Null);
                let reported = old["conditions"][0]["observedGeneration"].as_i64();
                let generation = json!(generation.max(reported));
                let conditions = [
                    self.condition(&generation, old, "Accepted", accepted.clone()),
                    self.condition(&generation, old, "ResolvedRefs", self.resolved(&route.name, &object)),
                ];
                json!({"parentRef": parent, "controllerName": CONTROLLER, "conditions": conditions})
            })
            .collect();
        parents.extend(before.iter().filter(|parent| parent["controllerName"] != CONTROLLER).cloned());
        if before != parents {
            let edit = |object: &mut Value| object["status"] = json!({"parents": parents});
            // It may have gone already.
            let _ = self.controller.edit_status(route.resource, &route.name.namespace, &route.name.name, edit);
        }
    }

    fn resolved(&self, route: &Name, object: &Value) -> Verdict<'static> {
        let rules = object["spec"]["rules"].as_array();
        let backends =
            rules.into_iter().flatten().flat_map(|rule| rule["backendRefs"].as_array().into_iter().flatten());
        for backend in backends {
            let namespace = backend["namespace"].as_str().unwrap_or(&route.namespace);
            let service = Name::new(namespace, backend["name"].as_str().unwrap_or_default());
            if !self.known.contains(&service) {
                return Err(("BackendNotFound", format!("service {service} not found")));
            }
        }
        Ok("ResolvedRefs")
    }

    /// Whether a gateway that exists is among the route's parents.
    pub(super) fn is_attached(&self, route: &Name, object: &Value) -> bool {
        let parents = object["spec"]["parentRefs"].as_array();
        parents.into_iter().flatten().any(|parent| self.gateways.contains(&gateway(route, parent)))
    }

    fn condition(&self, generation: &Value, status: &Value, kind: &str, verdict: Verdict<'_>) -> Value {
        let text = if verdict.is_ok() { "True" } else { "False" };
        let (reason, message) = match verdict {
            Ok(reason) => (reason, String::new()),
            Err(refusal) => refusal,
        };
        let before = status["conditions"].as_array();
        let before = before.and_then(|all| all.iter().find(|it| it["type"] == kind && it["status"] == text));
        let now = || self.controller.server().clock().now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into();
        json!({
            "type": kind,
            "status": text,
            "reason": reason,
            "message": message,
            "observedGeneration": generation,
            "lastTransitionTime": before.map_or_else(now, |before| before["lastTransitionTime"].clone()),
        })
    }
}

/// The Gateway that a parentRef names.
fn gateway(route: &Name, parent: &Value) -> Name {
    let namespace = parent["namespace"].as_str().unwrap_or(&route.namespace);
    Name::new(namespace, parent["name"].as_str().unwrap_or_default())
}
