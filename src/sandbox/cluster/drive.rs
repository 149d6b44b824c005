//! One task that drives all models: what has changed, what is due, when to look again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Shared;
use crate::sandbox::traffic::{self, Traffic};
use crate::sandbox::workloads::{self, Workloads};
use crate::sandbox::{ApiServer, Change, Op, Subscription};

/// When nothing is due, look again after this long all the same.
const IDLE: Duration = Duration::from_secs(3600);

/// All models of a cluster.
pub(super) struct Models {
    pub(super) workloads: Workloads,
    pub(super) traffic: Traffic,
}

impl Models {
    pub(super) fn new(server: &ApiServer, workloads: workloads::Settings, traffic: Traffic) -> Self {
        let mut models = Self { workloads: Workloads::new(server, workloads), traffic };
        models.observe_all(server);
        models
    }

    /// Takes note of the objects that are there already.
    fn observe_all(&mut self, server: &ApiServer) {
        let (reader, now) = (server.manager("sandbox"), Instant::now());
        let followed: BTreeSet<&str> = workloads::FOLLOWED.into_iter().chain(traffic::FOLLOWED).collect();
        for resource in followed {
            for object in reader.list(resource, "") {
                let change = Change { revision: 0, op: Op::Added, resource: resource.into(), object, previous: None };
                self.observe(&change, now);
            }
        }
    }

    fn observe(&mut self, change: &Change, now: Instant) {
        self.workloads.observe(change, now);
        self.traffic.observe(change, now);
    }

    /// Counts the requests until now. Comes before every change of what answers them.
    pub(super) fn count(&mut self, now: Instant) {
        self.traffic.count(&self.workloads, now);
    }

    /// Does all that is due. Each step sees the changes that the steps before it made.
    fn settle(&mut self, changes: &mut Subscription, now: Instant) {
        self.count(now);
        loop {
            while let Some(change) = changes.try_next() {
                self.observe(&change, now);
            }
            if !self.workloads.step(now) && !self.traffic.step(now) {
                return;
            }
        }
    }

    fn next_due(&self, now: Instant) -> Option<Instant> {
        [self.workloads.next_due(), self.traffic.next_due(now)].into_iter().flatten().min()
    }
}

/// Drives the models until the server is gone.
pub(super) async fn run(shared: Arc<Shared>, mut changes: Subscription) {
    loop {
        let due = {
            let (mut models, now) = (shared.lock(), Instant::now());
            models.settle(&mut changes, now);
            models.next_due(now).unwrap_or(now + IDLE)
        };
        tokio::select! {
            biased;
            change = changes.next() => match change {
                Some(change) => {
                    let (mut models, now) = (shared.lock(), Instant::now());
                    models.count(now);
                    models.observe(&change, now);
                }
                None => return,
            },
            () = shared.changed.notified() => {}
            () = tokio::time::sleep_until(due) => {}
        }
    }
}
