//! Where traffic may go: what was observed of routes and Services, and what they may still do unseen.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::api::names;
use crate::api::resource::{DESTINATION_RULE, SERVICE};
use crate::plan::Basis;
use crate::rollout::replicas;
use crate::rollout::services;
use crate::rollout::world::{ReplicaSet, World};
use crate::traffic::former::{self, Former};
use crate::traffic::istio::destination_rule;
use crate::traffic::{Applied, Context, ObservedSplit, Router, RouterError};

/// Seconds for which traffic may still go where a Service or a route sent it before, when nobody has said otherwise.
///
/// What follows an object of the API server (kube-proxy, an ingress, a gateway) does so by its own watch: usually within a
/// second, but a gateway that batches its updates, or a node under load, takes several. Five is what gateways stay below
/// in practice, and short beside the time that a pod needs to start. Cloud load balancers take longer; their routers say so.
const PROPAGATION_DELAY_SECONDS: i64 = 5;

/// Where traffic may go, as observed.
#[derive(Clone, Debug)]
pub struct Traffic<'a> {
    /// The Service that has the role of stable at present; empty without.
    pub stable_service: &'a str,
    /// The Service that has the role of canary at present; empty without.
    pub canary_service: &'a str,
    /// What the objects of each router make, or why that cannot be told.
    pub routers: Vec<Result<ObservedSplit, RouterError>>,
    /// Routes that the Rollout has moved and that its strategy names no more.
    pub left: Vec<Left>,
    /// Whether the Rollout says which routes it moves, so that they are known also when its strategy has changed.
    pub recorded: bool,
    /// Until when traffic may still follow earlier routes; none once that is over.
    pub routes_settle: Option<Timestamp>,
    /// The same for Services, by name; only those for which it is not over.
    pub services_settle: BTreeMap<String, Timestamp>,
    /// For how long what directs traffic may act as it was before.
    pub(super) propagation_delay: SignedDuration,
    total: i32,
}

/// A route that the strategy names no more.
#[derive(Clone, Debug)]
pub struct Left {
    pub former: Former,
    pub stable_service: String,
    pub canary_service: String,
    /// The Service that subsets in these roles narrow; none where the roles are Services.
    pub host: Option<String>,
    /// What it still makes. One that is gone or leads to neither Service any more makes nothing.
    pub observed: Result<ObservedSplit, RouterError>,
}

/// A Service's role in a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Stable,
    Canary,
}

impl<'a> Traffic<'a> {
    /// Reads the routes. The Services are those of the roles at present (with `pingPong` they swap); empty without.
    pub fn observe(world: &World, stable_service: &'a str, canary_service: &'a str, routers: &[&dyn Router]) -> Self {
        let total = world.rollout.spec.strategy.canary.as_ref().map_or(100, replicas::max_weight);
        let context = Context {
            rollout: &world.rollout,
            stable_service,
            canary_service,
            services: &world.services,
            experiment_services: &crate::rollout::traffic::experiment_services(world),
            routes: &world.routes,
        };
        let left: Vec<Left> =
            former::left(&world.rollout).into_iter().map(|former| Left::observe(world, former, total)).collect();
        let former: Vec<_> = left.iter().filter_map(|left| left.former.router()).collect();
        let delay = propagation_delay(world, &[routers, &former].concat());
        let settles = |since: Timestamp| {
            let settled = since.checked_add(delay).unwrap_or(Timestamp::MAX);
            (settled > world.now).then_some(settled)
        };
        // What is gone may go on acting for as long as what has changed.
        let (gone_services, gone_routes): (Vec<_>, Vec<_>) =
            world.gone.iter().partition(|(object, _)| object.resource == SERVICE);
        // With a DestinationRule its subsets are gone, which have the roles.
        let gone_rules = gone_routes.iter().filter(|(object, _)| object.resource == DESTINATION_RULE);
        let gone_subsets: Vec<_> =
            gone_rules.flat_map(|(_, at)| [(stable_service, **at), (canary_service, **at)]).collect();
        let (gone_services, gone_routes) = (gone_services.into_iter(), gone_routes.into_iter());
        Self {
            stable_service,
            canary_service,
            routers: routers.iter().map(|router| router.observe(&context, total)).collect(),
            routes_settle: world
                .routes
                .values()
                .map(|route| route.since)
                .chain(gone_routes.map(|(_, at)| *at))
                .filter_map(settles)
                .max(),
            services_settle: world
                .services
                .iter()
                .map(|(name, service)| (name.as_str(), service.since))
                .chain(gone_services.map(|(service, at)| (service.name.as_str(), *at)))
                .chain(gone_subsets)
                .filter_map(|(name, since)| Some((name.to_owned(), settles(since)?)))
                .collect(),
            propagation_delay: delay,
            left,
            recorded: former::is_recorded(&world.rollout),
            total,
        }
    }

    /// Whether a router decides who gets which part.
    pub fn is_routed(&self) -> bool {
        !self.routers.is_empty()
    }

    /// The largest weight that any router's objects give the canary; none when none can be read.
    pub fn canary_weight(&self) -> Option<i32> {
        self.routers.iter().flatten().map(|observed| observed.split.canary).max()
    }

    /// What counts as all of the traffic.
    pub(super) fn total(&self) -> i32 {
        self.total
    }

    pub(super) fn role(&self, service: &str) -> Option<Role> {
        role(service, self.stable_service, self.canary_service)
    }

    /// The largest weight that the objects of one router give a role; with `unsettled`, also what earlier versions of them
    /// may have given it and a data plane may still be doing.
    pub(super) fn highest(&self, router: usize, role: Role, unsettled: bool) -> i32 {
        match &self.routers[router] {
            Err(_) => self.total,
            Ok(observed) if unsettled && (self.routes_settle.is_some() || observed.applied != Applied::Yes) => {
                self.total
            }
            Ok(observed) => observed.split.of(role),
        }
    }

    /// The same of a route that the strategy names no more.
    pub(super) fn highest_left(&self, left: &Left, role: Role, unsettled: bool) -> i32 {
        let applied = left.observed.as_ref().map_or(&Applied::Yes, |observed| &observed.applied);
        if unsettled && (self.routes_settle.is_some() || *applied != Applied::Yes) {
            return self.total;
        }
        left.observed.as_ref().map_or(0, |observed| observed.split.of(role))
    }

    /// Whether header or mirror routes lead to the canary beside its weight.
    pub(super) fn is_managed(&self, router: usize) -> bool {
        self.routers[router].as_ref().is_ok_and(|observed| !observed.managed.is_empty())
    }

    /// Why it is not known what a router's data plane does, beyond the propagation delay.
    pub(super) fn doubt(&self) -> Option<String> {
        // One of the former routes that is gone leads nobody anywhere.
        let left = self.left.iter().map(|left| &left.observed).filter(|observed| observed.is_ok());
        self.routers.iter().chain(left).find_map(|router| match router {
            Err(error) => Some(error.to_string()),
            Ok(ObservedSplit { applied: Applied::Pending { why } | Applied::Refused { why }, .. }) => Some(why.clone()),
            Ok(_) => None,
        })
    }

    /// Whether a Service may send traffic to a ReplicaSet, and to no other one that has pods.
    ///
    /// Which of several ReplicaSets behind one Service is hit nobody decides: these stand in for each other, and the floor
    /// of available pods protects them together.
    pub(super) fn reaches(&self, world: &World, service: &str, replica_set: &ReplicaSet, unsettled: bool) -> bool {
        if unsettled && self.services_settle.contains_key(service) {
            // What it selected before is not known, only that traffic may still go there.
            return true;
        }
        let Some(observed) = world.services.get(service) else { return false };
        let selector = &observed.object.selector;
        let shared = || {
            let others = world.replica_sets.iter().filter(|other| other.name != replica_set.name && has_pods(other));
            others.into_iter().any(|other| selects(selector, other))
        };
        selects(selector, replica_set) && !shared()
    }

    /// What must still be as observed for a decision on traffic to hold.
    pub(super) fn bases(&self, world: &World) -> Vec<Basis> {
        // A subset is a part of its DestinationRule, which is among the routes.
        let services = world.services.iter().filter(|(name, _)| !destination_rule::is_subset(name));
        let services = services.map(|(_, service)| super::service_basis(world, &service.object));
        services.chain(routes(world)).collect()
    }

    /// What must still be as observed when a Service (or subset) is switched to another version: the routes, if any of
    /// them may give it a weight.
    pub fn behind(&self, world: &World, service: &str) -> Vec<Basis> {
        let weighs = self.role(service).is_some() || self.left.iter().any(|left| left.role(service).is_some());
        if weighs { routes(world).collect() } else { Vec::new() }
    }
}

impl Left {
    fn observe(world: &World, former: Former, total: i32) -> Self {
        let status = world.rollout.status.clone().unwrap_or_default();
        let by_service = || {
            let (stable, canary) = services::roles(&former.piece, &status);
            (stable.to_owned(), canary.to_owned())
        };
        let (stable_service, canary_service) = destination_rule::roles(&former.rollout).unwrap_or_else(by_service);
        let context = Context {
            rollout: &former.rollout,
            stable_service: &stable_service,
            canary_service: &canary_service,
            services: &world.services,
            experiment_services: &crate::rollout::traffic::experiment_services(world),
            routes: &former::unclaimed(&world.rollout, &world.routes),
        };
        let observed = match former.router() {
            Some(router) => router.observe(&context, total),
            None => Err(RouterError::Settings {
                path: "metadata.annotations".to_owned(),
                problem: format!("{} names no router", names::ROUTES),
            }),
        };
        let host = destination_rule::host(&former.rollout, &world.routes).map(str::to_owned);
        Self { former, stable_service, canary_service, host, observed }
    }

    pub(super) fn role(&self, service: &str) -> Option<Role> {
        role(service, &self.stable_service, &self.canary_service)
    }

    pub(super) fn service_of(&self, role: Role) -> &str {
        match role {
            Role::Stable => &self.stable_service,
            Role::Canary => &self.canary_service,
        }
    }

    /// Whether it leads nobody to the canary any more.
    pub fn is_back(&self) -> bool {
        self.observed
            .as_ref()
            .is_ok_and(|it| it.split.canary == 0 && it.split.additional.is_empty() && it.managed.is_empty())
    }
}

impl crate::traffic::Split {
    pub(super) fn of(&self, role: Role) -> i32 {
        match role {
            Role::Stable => self.stable,
            Role::Canary => self.canary,
        }
    }
}

fn routes(world: &World) -> impl Iterator<Item = Basis> {
    world.routes.iter().map(|(reference, route)| crate::traffic::basis(reference, &route.object))
}

/// The longest of the delays, so that one rule holds for Services and routes alike.
fn propagation_delay(world: &World, routers: &[&dyn Router]) -> SignedDuration {
    let set = world.settings.propagation_delay_seconds.map(|seconds| SignedDuration::from_secs(seconds.into()));
    set.unwrap_or_else(|| {
        let default = SignedDuration::from_secs(PROPAGATION_DELAY_SECONDS);
        let delays = routers.iter().map(|router| SignedDuration::try_from(router.propagation_delay()));
        delays.map(|delay| delay.unwrap_or(SignedDuration::MAX)).fold(default, SignedDuration::max)
    })
}

/// Whether a Service with this selector sends to the pods of a ReplicaSet. A Service without a selector has endpoints
/// that somebody else maintains, none of ours.
pub(super) fn selects(wanted: &BTreeMap<String, String>, replica_set: &ReplicaSet) -> bool {
    let labels = replica_set.template.labels();
    let has = |(key, value): (&String, &String)| match key.as_str() {
        names::POD_TEMPLATE_HASH => value == replica_set.hash(),
        _ => labels.get(key) == Some(value),
    };
    !wanted.is_empty() && wanted.iter().all(has)
}

pub(super) fn has_pods(replica_set: &ReplicaSet) -> bool {
    replica_set.replicas > 0 || replica_set.status.replicas > 0
}

/// What a Service is to a route that tells stable from canary by these two.
fn role(service: &str, stable: &str, canary: &str) -> Option<Role> {
    match service {
        "" => None,
        _ if service == stable => Some(Role::Stable),
        _ if service == canary => Some(Role::Canary),
        _ => None,
    }
}
