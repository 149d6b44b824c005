//! The safety rules, in one place: what of a proposal is safe now.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;

use crate::plan::{Action, Basis};
use crate::traffic::{Router, RouterError, Split};

use super::revision::Revisions;
use super::world::{ReplicaSet, World};

/// What a strategy wants. What it does not name stays as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Proposal {
    /// `spec.replicas` by name of the ReplicaSet.
    pub replicas: BTreeMap<String, i32>,
    /// Names of ReplicaSets to delete.
    pub delete: BTreeSet<String>,
    /// The split for every router; none leaves the routes alone.
    pub split: Option<Split>,
    /// The pod template hash that a Service should select, by name of the Service.
    pub services: BTreeMap<String, String>,
}

/// What of a proposal is safe now. Every subset of the writes that make it is safe.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Admitted {
    /// For every ReplicaSet that was proposed; what is held has its present size or something in between.
    pub replicas: BTreeMap<String, i32>,
    pub delete: BTreeSet<String>,
    /// One for each router, in the order of [`Traffic::observe`]; none leaves its routes alone.
    pub splits: Vec<Option<Split>>,
    /// Those that may be switched now (or select that hash already).
    pub services: BTreeMap<String, String>,
    /// Everything that was proposed and not admitted.
    pub holds: Vec<Hold>,
    /// By name of each ReplicaSet that shrinks: what must still be as it was observed.
    pub confirm: BTreeMap<String, Vec<Basis>>,
}

/// Something that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// What waits (`ReplicaSet web-abc stays at 3`).
    pub what: String,
    /// What it waits for, as `status.message` says it.
    pub why: String,
    /// When it ends even if nothing else happens.
    pub until: Option<Timestamp>,
}

/// Where traffic may go, as observed.
#[derive(Clone, Debug)]
pub struct Traffic<'a> {
    pub stable_service: &'a str,
    pub canary_service: &'a str,
    /// One for each router.
    pub routers: Vec<Result<crate::traffic::ObservedSplit, RouterError>>,
}

impl<'a> Traffic<'a> {
    /// Reads the routes. The Services are those of the roles at present (with `pingPong` they swap); empty without.
    pub fn observe(
        _world: &World,
        _stable_service: &'a str,
        _canary_service: &'a str,
        _routers: &[&dyn Router],
    ) -> Self {
        todo!()
    }
}

/// What of the proposal is safe now.
pub fn admit(_world: &World, _revisions: &Revisions<'_>, _traffic: &Traffic<'_>, _proposal: Proposal) -> Admitted {
    todo!()
}

impl Admitted {
    /// The scaling of a ReplicaSet to its admitted size; none when it has that size. `desired-replicas` is set, and
    /// `scale-down-deadline` removed at 0, beside the given annotations.
    pub fn scale(
        &self,
        _world: &World,
        _replica_set: &ReplicaSet,
        _annotations: BTreeMap<String, Option<String>>,
    ) -> Option<Action> {
        todo!()
    }

    /// The deletions.
    pub fn deletions(&self, _world: &World) -> Vec<Action> {
        todo!()
    }

    /// When the first hold ends by time.
    pub fn wake(&self) -> Option<Timestamp> {
        self.holds.iter().filter_map(|hold| hold.until).min()
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)?;
        match self.until {
            Some(until) => write!(f, " (until {until})"),
            None => Ok(()),
        }
    }
}
