//! Traffic routers, one file each. Pure.
//!
//! A router knows three things: which objects it needs; which split these objects make as they were observed; and how to
//! edit them towards a wanted split. It never looks at what we wrote last: only at what is there. Of each object it owns
//! its weights and its backends, nothing else.

#[cfg(test)]
mod fixtures;
pub mod former;
pub mod gateway_api;
pub mod istio;
pub mod managed;
pub mod nginx;
pub mod observed;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use crate::api::Rollout;
use crate::api::resource::{ObjectRef, Resource};
use crate::api::traffic_routing::TrafficRouting;
use crate::plan::{Action, Basis};

use self::managed::Managed;
use self::observed::{Observed, Routes, Service};

/// Who gets which part of the traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Weight of the canary Service, 0..=total.
    pub canary: i32,
    /// Weight of the stable Service.
    pub stable: i32,
    /// Weights of an experiment's Services, by Service name.
    pub additional: BTreeMap<String, i32>,
    /// What counts as all of the traffic: `maxTrafficWeight`, 100 by default.
    pub total: i32,
}

/// The split that the observed objects make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedSplit {
    /// The largest weight that any of the objects gives the canary, and the largest that any gives stable, both scaled to
    /// `total`. Where routes differ the two add up to more than the total: so nobody mistakes a half-made split for the
    /// wanted one, and nobody scales down what one of the routes still reaches.
    pub split: Split,
    /// Names of the managed routes that are there: they lead requests to the canary beside its weight.
    pub managed: BTreeSet<String>,
    pub applied: Applied,
}

/// What the objects of a router should make.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// None leaves the weights as they are.
    pub split: Option<&'a Split>,
    /// The routes that header and mirror steps have made, in the order of precedence. Every other managed route goes.
    pub managed: &'a [Managed<'a>],
}

/// Whether the data plane has taken the objects up, as far as their own status tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The router says so, or has no way to say (then only the propagation delay protects).
    Yes,
    /// It has not looked at the newest version yet.
    Pending { why: String },
    /// It refuses the object; the message is the router's.
    Refused { why: String },
}

/// What a router may look at.
pub struct Context<'a> {
    pub rollout: &'a Rollout,
    pub stable_service: &'a str,
    pub canary_service: &'a str,
    /// Services of the namespace that the strategy names.
    pub services: &'a BTreeMap<String, Observed<Service>>,
    /// Services that experiments of this Rollout have, or had, with the hash of their pods (empty when it is not known):
    /// their backends come and go with a split.
    pub experiment_services: &'a BTreeMap<String, String>,
    pub routes: &'a Routes,
}

/// One way to move traffic.
pub trait Router: Send + Sync {
    /// The name as the `traffic_router` label of metrics has it (`Nginx`, `GatewayAPI`, …).
    fn name(&self) -> &'static str;

    /// The objects that the router reads and writes: named ones, and kinds of which it selects by labels.
    fn needs(&self, rollout: &Rollout) -> Needs;

    /// The split that the observed objects make now.
    fn observe(&self, context: &Context<'_>, total: i32) -> Result<ObservedSplit, RouterError>;

    /// The writes that lead from the observed objects to `wanted`; none when they make it already.
    ///
    /// What cannot be made is an error, unless something else can be made: then that is answered first.
    fn edit(&self, context: &Context<'_>, wanted: Wanted<'_>) -> Result<Vec<Action>, RouterError>;

    /// How long the data plane may take to follow a change of the objects, when the user has not said.
    fn propagation_delay(&self) -> Duration {
        Duration::from_secs(5)
    }
}

/// Objects that a router wants to see in [`Context::routes`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Needs {
    pub objects: Vec<ObjectRef>,
    /// Kinds to search by label in a namespace.
    pub selected: Vec<(Resource, String, crate::api::common::LabelSelector)>,
}

/// Why a router cannot read or make a split.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouterError {
    #[error("{0} does not exist")]
    Missing(ObjectRef),
    /// The object is there but does not hold what it must; `problem` says where and what would be right.
    #[error("{object}: {problem}")]
    Unfit { object: ObjectRef, problem: String },
    /// The settings in the Rollout are wrong.
    #[error("{path}: {problem}")]
    Settings { path: String, problem: String },
}

/// Every router, in the order in which they are reconciled. A new router is a new file and one line here.
static ROUTERS: &[(Uses, &dyn Router)] = &[
    (|routing| routing.istio.is_some(), &istio::IstioRouter),
    (|routing| routing.nginx.is_some(), &nginx::NginxRouter),
    (TrafficRouting::uses_gateway_api, &gateway_api::GatewayApiRouter),
];

/// Whether the settings name a router.
type Uses = fn(&TrafficRouting) -> bool;

/// The routers that a Rollout uses.
pub fn routers(routing: &TrafficRouting) -> Vec<&'static dyn Router> {
    ROUTERS.iter().filter(|(uses, _)| uses(routing)).map(|(_, router)| *router).collect()
}

impl Split {
    /// `canary` of `total`, the rest to stable.
    pub fn new(canary: i32, total: i32) -> Self {
        Self { canary, stable: total - canary, additional: BTreeMap::new(), total }
    }

    /// The same with weights of experiments, which stable gives up.
    #[must_use]
    pub fn with_additional(self, additional: BTreeMap<String, i32>) -> Self {
        let stable = (self.total - self.canary - additional.values().sum::<i32>()).max(0);
        Self { stable, additional, ..self }
    }
}

impl ObservedSplit {
    /// Nothing reaches either side yet.
    fn none(total: i32) -> Self {
        let split = Split { canary: 0, stable: 0, additional: BTreeMap::new(), total };
        Self { split, managed: BTreeSet::new(), applied: Applied::Yes }
    }

    /// Takes one more object into account.
    fn add(&mut self, canary: i32, stable: i32) {
        self.split.canary = self.split.canary.max(canary);
        self.split.stable = self.split.stable.max(stable);
    }

    /// Takes the weight of an experiment's Service in one more object into account.
    fn add_additional(&mut self, service: &str, weight: i32) {
        let known = self.split.additional.entry(service.to_owned()).or_default();
        *known = weight.max(*known);
    }

    /// Whether the objects make exactly this split.
    pub fn makes(&self, wanted: &Split) -> bool {
        self.split == *wanted
    }
}

impl Applied {
    /// The worse of two: refused, pending, yes.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (refused @ Self::Refused { .. }, _) | (_, refused @ Self::Refused { .. }) => refused,
            (pending @ Self::Pending { .. }, _) | (_, pending @ Self::Pending { .. }) => pending,
            (Self::Yes, Self::Yes) => Self::Yes,
        }
    }
}

impl<'a> Wanted<'a> {
    /// A split, and no managed route.
    pub fn only(split: &'a Split) -> Self {
        Self { split: Some(split), managed: &[] }
    }
}

/// `weight` of `sum` as a part of `total`, rounded up: a share that does not come out even is no reason to think that
/// nothing flows.
fn scaled(weight: i64, sum: i64, total: i32) -> i32 {
    let sum = sum.max(1);
    i32::try_from((weight.max(0) * i64::from(total) + sum - 1) / sum).unwrap_or(i32::MAX)
}

/// The precondition for a write to an object as it was observed.
pub(crate) fn basis(reference: &ObjectRef, object: &Value) -> Basis {
    let metadata = |key: &str| object["metadata"][key].as_str().map(str::to_owned);
    Basis {
        object: reference.clone(),
        uid: metadata("uid").unwrap_or_default(),
        resource_version: metadata("resourceVersion"),
    }
}
