//! Leader election by the rules of client-go.
//!
//! Whoever holds the Lease leads. A holder counts as gone when *we* have not seen its record change for a lease duration
//! on our own monotonic clock: the times in the record are for people only, so clocks that differ do no harm. A leader
//! that cannot renew for the renew deadline, which is shorter, stops before anybody else takes over.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use serde_json::Value;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::api::resource::{ObjectRef, Resource};
use crate::clock::Clock;

use super::api::{Api, CallError};
use super::settings::Election;

const LEASE: Resource = Resource { group: "coordination.k8s.io", version: "v1", kind: "Lease", plural: "leases" };

/// One candidate.
pub struct Candidate {
    api: Api,
    clock: Clock,
    election: Election,
    lease: ObjectRef,
    random: fastrand::Rng,
    /// The record as it was last seen, and when it was first seen so.
    observed: Option<(Lease, Instant)>,
}

/// Another candidate leads, or may.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lease could not be renewed in time")]
pub struct Lost;

impl Candidate {
    /// A candidate for the lease of the controllers with this instance id.
    pub fn new(api: &Api, clock: Clock, election: Election, instance_id: &str, seed: u64) -> Self {
        let suffix = if instance_id.is_empty() { String::new() } else { format!("-{instance_id}") };
        let lease = ObjectRef::new(LEASE, &election.namespace, format!("argo-rollouts-controller-lock{suffix}"));
        // An answer that comes after the next attempt is due is of no use.
        let api = api.within(election.retry_period.max(std::time::Duration::from_millis(500)));
        Self { api, clock, election, lease, random: fastrand::Rng::with_seed(seed), observed: None }
    }

    /// Waits until we lead.
    pub async fn acquire(&mut self) {
        let mut waiting = false;
        loop {
            match self.try_lead().await {
                Ok(true) => break,
                Ok(false) => {
                    if !std::mem::replace(&mut waiting, true) {
                        info!(lease = %self.lease, holder = self.holder(), "waiting for the lease");
                    }
                }
                Err(error) => warn!(lease = %self.lease, %error, "cannot get the lease"),
            }
            // As client-go: between one and 2.2 periods, so that candidates do not collide for ever.
            tokio::time::sleep(self.election.retry_period.mul_f64(1.0 + 1.2 * self.random.f64())).await;
        }
        info!(lease = %self.lease, identity = self.election.identity, "leading");
    }

    /// Keeps the lead; returns when it is lost.
    pub async fn keep(&mut self) -> Lost {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(self.election.retry_period).await;
            let deadline = renewed + self.election.renew_deadline;
            match tokio::time::timeout_at(deadline, self.try_lead()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => {
                    warn!(lease = %self.lease, holder = self.holder(), "another one holds the lease");
                    return Lost;
                }
                Ok(Err(error)) => warn!(lease = %self.lease, %error, "cannot renew the lease"),
                Err(_) => {}
            }
            if Instant::now() >= deadline {
                return Lost;
            }
        }
    }

    /// Gives the lease up, so that another candidate need not wait for its end. Failing to is no harm.
    pub async fn release(&mut self) {
        let Some((lease, _)) = self.observed.clone() else { return };
        if self.holder() != self.election.identity {
            return;
        }
        let now = self.clock.now();
        let transitions = lease.spec.and_then(|spec| spec.lease_transitions);
        let spec = LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            acquire_time: Some(MicroTime(now)),
            renew_time: Some(MicroTime(now)),
            lease_transitions: transitions,
            ..LeaseSpec::default()
        };
        match self.api.update(&self.lease, &body(lease.metadata, spec)).await {
            Ok(_) => info!(lease = %self.lease, "released the lease"),
            Err(error) => debug!(lease = %self.lease, %error, "could not release the lease"),
        }
    }

    /// Takes or renews the lease if the rules allow it; whether we hold it now.
    async fn try_lead(&mut self) -> Result<bool, CallError> {
        let now = self.clock.now();
        // While we hold it, our last version is very likely the current one: saves reading it.
        if let Some((lease, _)) = self.observed.clone().filter(|_| self.holder() == self.election.identity) {
            match self.write(&lease, now).await {
                Ok(()) => return Ok(true),
                Err(CallError::Conflict(_) | CallError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        match self.api.read::<Lease>(&self.lease).await {
            Ok(lease) => self.observe(lease),
            Err(CallError::NotFound(_)) => {
                let metadata = ObjectMeta {
                    name: Some(self.lease.name.clone()),
                    namespace: Some(self.lease.namespace.clone()),
                    ..ObjectMeta::default()
                };
                let spec = self.spec(now, Some(now), 0);
                let body = body(metadata.clone(), spec.clone());
                let written = self.api.create(&self.lease, &body).await?;
                self.hold(metadata, spec, written.resource_version);
                return Ok(true);
            }
            Err(error) => return Err(error),
        }
        let Some((lease, since)) = self.observed.clone() else { return Ok(false) };
        let holder = self.holder();
        let duration = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or(0);
        let valid = since.elapsed() < std::time::Duration::from_secs(duration.max(0).unsigned_abs().into());
        if !holder.is_empty() && holder != self.election.identity && valid {
            return Ok(false);
        }
        match self.write(&lease, now).await {
            Ok(()) => Ok(true),
            // Another candidate was faster.
            Err(CallError::Conflict(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn write(&mut self, lease: &Lease, now: Timestamp) -> Result<(), CallError> {
        let old = lease.spec.clone().unwrap_or_default();
        let transitions = old.lease_transitions.unwrap_or(0);
        let spec = if old.holder_identity.as_deref() == Some(&self.election.identity) {
            self.spec(now, old.acquire_time.map(|time| time.0), transitions)
        } else {
            self.spec(now, Some(now), transitions + 1)
        };
        let written = self.api.update(&self.lease, &body(lease.metadata.clone(), spec.clone())).await?;
        self.hold(lease.metadata.clone(), spec, written.resource_version);
        Ok(())
    }

    fn spec(&self, now: Timestamp, acquired: Option<Timestamp>, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.election.identity.clone()),
            lease_duration_seconds: i32::try_from(self.election.lease_duration.as_secs()).ok(),
            acquire_time: acquired.map(MicroTime),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    fn hold(&mut self, mut metadata: ObjectMeta, spec: LeaseSpec, resource_version: String) {
        metadata.resource_version = Some(resource_version);
        self.observed = Some((Lease { metadata, spec: Some(spec) }, Instant::now()));
    }

    fn observe(&mut self, lease: Lease) {
        let unchanged = self.observed.as_ref().is_some_and(|(known, _)| known.spec == lease.spec);
        let since = match &self.observed {
            Some((_, since)) if unchanged => *since,
            _ => Instant::now(),
        };
        self.observed = Some((lease, since));
    }

    fn holder(&self) -> &str {
        let spec = self.observed.as_ref().and_then(|(lease, _)| lease.spec.as_ref());
        spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
    }
}

fn body(mut metadata: ObjectMeta, spec: LeaseSpec) -> Value {
    metadata.managed_fields = None;
    // A Lease is made of texts, numbers and times: it always becomes JSON.
    serde_json::to_value(Lease { metadata, spec: Some(spec) }).unwrap_or_default()
}
