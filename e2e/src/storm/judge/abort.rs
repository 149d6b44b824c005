//! S3: after an abort no weight of a version on trial rises.

use std::time::Duration;

use super::{Checker, Moment};

/// A write that was decided before the abort may come after it. It takes no longer than this in a control plane that
/// answers.
const UNDER_WAY: Duration = Duration::from_secs(2);

#[derive(Default)]
pub struct Abort {
    since: Option<Duration>,
}

impl Checker for Abort {
    fn promise(&self) -> &'static str {
        "S3"
    }

    fn see(&mut self, moment: &Moment<'_>) -> Option<String> {
        let rollout = moment.after.rollout.as_ref()?;
        let was = moment.before.rollout.as_ref();
        // Another revision is aborted anew, and one whose generation has not been observed not at all.
        let same = was.is_some_and(|was| was.aborted && was.current == rollout.current);
        self.since = match rollout.aborted && rollout.observed == rollout.generation {
            true if same => self.since.or(Some(moment.at)),
            true => Some(moment.at),
            false => None,
        };
        let since = self.since?;
        if moment.calm_since(since) < UNDER_WAY {
            return None;
        }
        let [before, after] = moment.weights();
        after.iter().filter(|(hash, _)| **hash != rollout.stable).find_map(|(hash, weight)| {
            let old = before.get(hash).copied().unwrap_or(0);
            (*weight > old).then(|| format!("the weight of {hash} rises from {old} to {weight} after an abort"))
        })
    }
}
