//! S2: no ReplicaSet shrinks below what the routes send it, or have sent it until less than the propagation delay ago.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::fleet::REPLICAS;
use super::{Checker, Moment};

/// What a write may seem later than it was, compared with another one: both are seen on the same stream of etcd, and the
/// machine may have been busy.
const BLUR: Duration = Duration::from_millis(300);

#[derive(Default)]
pub struct ScaleDown {
    /// The weights that were in force, each with when that ended.
    past: Vec<(Duration, BTreeMap<String, i64>)>,
}

impl Checker for ScaleDown {
    fn promise(&self) -> &'static str {
        "S2"
    }

    fn see(&mut self, moment: &Moment<'_>) -> Option<String> {
        let [before, after] = moment.weights();
        if before != after {
            self.past.push((moment.at, before));
        }
        let since = moment.at.saturating_sub(moment.circumstances.delay.saturating_sub(BLUR));
        self.past.retain(|(until, _)| *until > since);
        if !moment.established {
            return None;
        }
        moment.after.replica_sets.iter().find_map(|(name, set)| {
            let old = moment.before.replica_sets.get(name)?.replicas;
            if set.replicas >= old {
                return None;
            }
            let sent = self.past.iter().map(|(_, weights)| weights).chain([&after]);
            let weight = sent.filter_map(|weights| weights.get(&set.hash)).copied().max().unwrap_or(0);
            let needed = ((weight * REPLICAS + 99) / 100).min(old);
            let replicas = set.replicas;
            (replicas < needed).then(|| {
                format!("{name} shrinks from {old} to {replicas} pods, and up to {weight}% may still go there")
            })
        })
    }
}
