//! Whether a run has had a chance to say anything yet.

use jiff::{SignedDuration, Timestamp};

use super::{Next, Prepared, after, next, result_of};
use crate::api::AnalysisRun;
use crate::api::common::Time;

/// For how long a measurement in flight is waited for when nothing else is: a query has been answered or given up by then. A
/// Job may take hours, and whoever runs one beside a shorter release does not mean to have it waited for: Argo Rollouts
/// ends it with the release.
const PATIENCE: SignedDuration = SignedDuration::from_secs(60);

/// What a run has said nothing of yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    pub metric: String,
    /// When more is known: it is measured then, or is not waited for any longer.
    pub until: Timestamp,
    /// Whether all that there is are errors of the provider.
    pub errors: bool,
    /// Whether it is being measured.
    pub in_flight: bool,
}

/// The metric that a run which is going on has said nothing of yet; of several, the one that takes longest.
///
/// An error says nothing, so it is waited for the next measurement: errors in a row end the run. What is measured for
/// longer than a minute has had its chance. Metrics of a dry run have no say.
pub fn silence(now: Timestamp, run: &AnalysisRun) -> Option<Silence> {
    let status = run.status.as_ref()?;
    let Time(started) = *status.started_at.as_ref()?;
    let Ok(prepared) = Prepared::of(run, now)? else { return None };
    let counting = prepared.metrics.iter().zip(&prepared.rules).filter(|(_, rules)| !rules.dry_run);
    let silent = counting.filter_map(|(metric, rules)| {
        let result = result_of(status, &metric.name);
        if result.is_some_and(|result| result.count > 0) {
            return None;
        }
        let (until, in_flight) = match next(&rules.limits, result, started, now, prepared.terminating) {
            Next::Start(at) => (at, false),
            Next::Resume(_) | Next::Poll => {
                let begun = result.and_then(|result| result.measurements.last()?.started_at.as_ref());
                (after(begun.map_or(started, |Time(begun)| *begun), PATIENCE), true)
            }
            Next::Never | Next::Terminate => return None,
        };
        let errors = result.is_some_and(|result| result.error > 0);
        (!in_flight || now < until).then(|| Silence { metric: metric.name.clone(), until, errors, in_flight })
    });
    silent.max_by_key(|silence| silence.until)
}
