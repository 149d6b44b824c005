//! How many pods each ReplicaSet should have: plain arithmetic.
//!
//! Which of these sizes are safe at once is not decided here but in [`super::guard`].

use crate::api::canary::{CanaryStrategy, ReplicaProgressThreshold};
use crate::api::int_or_percent::{IntOrString, Round, ScaleError};
use crate::api::rollout_status::RolloutStatus;

use super::world::ReplicaSet;

/// `maxSurge` and `maxUnavailable` as pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub surge: i32,
    pub unavailable: i32,
}

/// How large the canary should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CanaryScale {
    /// As this weight needs it.
    Weight(i32),
    /// That many pods.
    Replicas(i32),
}

/// Pods of one ReplicaSet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// `spec.replicas`
    pub spec: i32,
    /// `status.availableReplicas`
    pub available: i32,
}

/// What the sizes of a canary without traffic routing follow from.
#[derive(Clone, Copy, Debug)]
pub struct Basic<'a> {
    /// `spec.replicas` of the Rollout.
    pub replicas: i32,
    /// Weight of the canary, 0..=`total`.
    pub weight: i32,
    pub total: i32,
    pub limits: Limits,
    /// None while there is no new ReplicaSet.
    pub new: Option<Counts>,
    /// None when there is no stable ReplicaSet, or when it is the new one.
    pub stable: Option<Counts>,
    /// Newest revision first.
    pub others: &'a [Counts],
}

/// Sizes to scale to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub new: i32,
    pub stable: i32,
    /// In the order of [`Basic::others`].
    pub others: Vec<i32>,
}

/// `maxSurge` (rounded up) and `maxUnavailable` (rounded down) of `replicas` pods. 25% each when absent; unavailable is
/// at most `replicas`, and 1 when both are 0, because nothing could move otherwise.
pub fn limits(canary: &CanaryStrategy, replicas: i32) -> Result<Limits, ScaleError> {
    let default = IntOrString::from("25");
    let surge = canary.max_surge.as_ref().unwrap_or(&default).scaled_leniently(replicas, Round::Up)?.max(0);
    let unavailable = canary.max_unavailable.as_ref().unwrap_or(&default).scaled_leniently(replicas, Round::Down)?;
    let unavailable = if surge == 0 { unavailable.max(1) } else { unavailable.max(0) };
    Ok(Limits { surge, unavailable: unavailable.min(replicas) })
}

/// `maxTrafficWeight`, 100 when absent.
pub fn max_weight(canary: &CanaryStrategy) -> i32 {
    canary.traffic_routing.as_ref().and_then(|routing| routing.max_traffic_weight).unwrap_or(100)
}

/// Index of the current step; none when all are done or there are none.
pub fn current_step(canary: &CanaryStrategy, status: &RolloutStatus) -> Option<usize> {
    let index = usize::try_from(status.current_step_index.unwrap_or(0)).unwrap_or(0);
    (index < canary.steps.len()).then_some(index)
}

/// The weight that the steps up to the current one ask for: 0 when aborted, everything when no step is left.
pub fn current_set_weight(canary: &CanaryStrategy, status: &RolloutStatus) -> i32 {
    if status.abort {
        return 0;
    }
    let Some(index) = current_step(canary, status) else { return max_weight(canary) };
    canary.steps[..=index].iter().rev().find_map(|step| step.set_weight).unwrap_or(0)
}

/// The `setCanaryScale` that is in force, if any: only with traffic routing; and after an abort only when the user has
/// asked for the canary to be left running (`abortScaleDownDelaySeconds: 0`).
pub fn set_canary_scale(canary: &CanaryStrategy, status: &RolloutStatus) -> Option<CanaryScale> {
    canary.traffic_routing.as_ref()?;
    if status.abort && canary.abort_scale_down_delay_seconds != Some(0) {
        return None;
    }
    let index = current_step(canary, status)?;
    let step = canary.steps[..=index].iter().rev().find_map(|step| step.set_canary_scale.as_ref())?;
    if step.match_traffic_weight {
        return None;
    }
    step.replicas.map(CanaryScale::Replicas).or(step.weight.map(CanaryScale::Weight))
}

/// How large the canary should be now.
///
/// An update that is promoted in full, a first deployment and a return to stable have no canary: everything is wanted of
/// the new ReplicaSet.
pub fn canary_scale(canary: &CanaryStrategy, status: &RolloutStatus) -> CanaryScale {
    if status.promote_full || status.stable_rs.is_empty() || status.current_pod_hash == status.stable_rs {
        return CanaryScale::Weight(max_weight(canary));
    }
    set_canary_scale(canary, status).unwrap_or_else(|| CanaryScale::Weight(current_set_weight(canary, status)))
}

/// Pods of a canary with traffic routing; stable has all of `replicas` beside it.
///
/// `min_pods` (`minPodsPerReplicaSet`, at most `replicas`) holds for a size that follows from a weight.
pub fn routed_canary(replicas: i32, scale: CanaryScale, total: i32, min_pods: Option<i32>) -> i32 {
    match scale {
        CanaryScale::Replicas(pods) => pods,
        CanaryScale::Weight(weight) => match share_up(weight, replicas, total) {
            0 => 0,
            pods => pods.max(min_pods.unwrap_or(0).min(replicas)),
        },
    }
}

/// Pods of the canary and of stable with `dynamicStableScale`: each as many as its weight needs, the one that it is to
/// have and the one that it was last given, so that pods come before their weight and go after it.
///
/// An aborted canary only shrinks behind its weight, and stable grows to take all of it back.
pub fn dynamic(canary: &CanaryStrategy, status: &RolloutStatus, replicas: i32) -> (i32, i32) {
    let total = max_weight(canary);
    let recorded = recorded_weight(status);
    let needed =
        |weight: i32| routed_canary(replicas, CanaryScale::Weight(weight), total, canary.min_pods_per_replica_set);
    let least =
        |pods: i32| if pods == 0 { 0 } else { pods.max(canary.min_pods_per_replica_set.unwrap_or(0).min(replicas)) };

    let scale = canary_scale(canary, status);
    let size = least(routed_canary(replicas, scale, total, canary.min_pods_per_replica_set));
    if status.abort {
        return (size.max(needed(recorded)), replicas);
    }
    let left = match scale {
        CanaryScale::Weight(weight) => total - weight.min(current_set_weight(canary, status)),
        CanaryScale::Replicas(_) => total,
    };
    (size, needed(left.max(total - recorded)))
}

/// The weight that the canary was last given; 0 when it was given none.
pub fn recorded_weight(status: &RolloutStatus) -> i32 {
    status.canary.weights.as_ref().map_or(0, |weights| weights.canary.weight)
}

/// floor(part / whole × of); all of it when there is no whole.
pub fn share_down(part: i32, of: i32, whole: i32) -> i32 {
    if whole <= 0 {
        return of;
    }
    narrow((i64::from(part) * i64::from(of)).div_euclid(whole.into()))
}

/// ceil(weight / total × replicas): the pods that carry a weight.
pub fn share_up(weight: i32, replicas: i32, total: i32) -> i32 {
    if total <= 0 {
        return replicas;
    }
    let product = i64::from(weight) * i64::from(replicas);
    narrow((product + i64::from(total) - 1).div_euclid(i64::from(total)))
}

/// The sizes of a canary without traffic routing that lead one pass further, within surge and unavailable.
///
/// Growth goes by what is specified: all pods together never exceed `replicas` + surge. Shrinking goes by what is
/// available: never below `replicas` − unavailable. A ReplicaSet that shrinks loses its unavailable pods first.
pub fn basic(basic: &Basic<'_>) -> Sizes {
    let Basic { replicas, limits, others, .. } = *basic;
    let (desired_new, desired_stable) = desired(basic);
    let new = basic.new.unwrap_or_default();
    let stable = basic.stable.unwrap_or_default();
    let most = replicas.saturating_add(limits.surge);
    let fewest = replicas - limits.unavailable;

    // Stable grows first: an aborted update needs it more than a canary needs its next pod.
    let mut budget = narrow(i64::from(most) - specified(new, stable, others));
    let mut grow = |counts: Counts, desired: i32| {
        let added = (desired - counts.spec).clamp(0, budget);
        budget -= added;
        counts.spec + added
    };
    let grown_stable = grow(stable, desired_stable);
    let grown_new = if basic.new.is_some() { grow(new, desired_new) } else { 0 };

    if others.iter().any(|other| other.spec > 0) {
        // Pods of old revisions go before any of stable or new.
        let kept =
            others.iter().fold(new.kept().saturating_add(stable.kept()), |sum, other| sum.saturating_add(other.kept()));
        return Sizes { new: grown_new, stable: grown_stable, others: drain_others(others, kept, fewest) };
    }
    let others = vec![0; others.len()];

    // The side that is to shrink counts with the pods it cannot get ready: they must not keep the other side from growing.
    let increasing = desired_new >= new.spec;
    let drop = new.countable(!increasing).saturating_add(stable.countable(increasing)) - fewest;
    if drop <= 0 {
        return Sizes { new: grown_new, stable: grown_stable, others };
    }
    if increasing {
        let drained = shrink(stable, grown_stable, desired_stable, drop);
        let (stable, new) = fit(drained, stable, grown_new, new, most, fewest);
        Sizes { new, stable, others }
    } else {
        let drained = shrink(new, grown_new, desired_new, drop);
        let (new, stable) = fit(drained, new, grown_stable, stable, most, fewest);
        Sizes { new, stable, others }
    }
}

/// The sizes that new and stable have in the end.
fn desired(basic: &Basic<'_>) -> (i32, i32) {
    match basic.stable {
        None => (basic.replicas, 0),
        Some(_) => ideal_split(basic.replicas, basic.weight, basic.total, basic.limits.surge),
    }
}

/// Pods of the canary and of stable that come nearest to a weight without traffic routing: `replicas` together, or one
/// more if that comes nearer and surge allows it. A weight between the ends leaves a pod on both sides wherever two pods
/// are allowed; a tie favours the canary.
pub fn ideal_split(replicas: i32, weight: i32, total: i32, surge: i32) -> (i32, i32) {
    if replicas <= 0 || total <= 0 {
        return (0, replicas.max(0));
    }
    let share = i64::from(replicas) * i64::from(weight);
    let down = narrow(share.div_euclid(i64::from(total)));
    let up = share_up(weight, replicas, total);
    let zero_allowed = weight == 0 || weight == total || (replicas == 1 && surge == 0);
    let tied = |sum: i32| 2 * (i64::from(sum) * i64::from(weight)).rem_euclid(i64::from(total)) == i64::from(total);

    let mut candidates = Vec::with_capacity(4);
    if up < replicas || zero_allowed {
        candidates.push((up, replicas));
    }
    if !tied(replicas) && (down != 0 || zero_allowed) {
        candidates.push((down, replicas));
    }
    if surge > 0 {
        let sum = replicas.saturating_add(1);
        candidates.push((up, sum));
        if !tied(sum) && (down != 0 || zero_allowed) {
            candidates.push((down, sum));
        }
    }
    // In floating point, as Argo Rollouts has it: near ties must fall the same way.
    let distance = |(canary, sum): (i32, i32)| {
        ((i64::from(canary) * i64::from(total)) as f64 / f64::from(sum) - f64::from(weight)).abs()
    };
    let nearest =
        candidates.into_iter().reduce(|best, other| if distance(other) < distance(best) { other } else { best });
    // No candidate is left only by a tie that rounds up to all the pods without surge (75% of 2). Argo Rollouts runs no
    // canary then; rounding down keeps a pod on both sides.
    let (canary, sum) = nearest.unwrap_or((down, replicas));
    (canary, sum - canary)
}

/// `counts` reduced towards `desired`, by at most `drop` below its specified size.
fn shrink(counts: Counts, grown: i32, desired: i32, drop: i32) -> i32 {
    if counts.spec > desired { desired.max(counts.spec - drop) } else { grown }
}

/// Corrects the sizes of the side that was `drained` and of the other, which may have `grown`, where they still exceed
/// `most`: first the growth is taken back, unless its pods are needed for `fewest`; then more is drained.
fn fit(drained: i32, drained_counts: Counts, grown: i32, grown_counts: Counts, most: i32, fewest: i32) -> (i32, i32) {
    let excess = |other: i32| (other.saturating_add(drained) - most).max(0);
    let reduced = grown - excess(grown);
    let available = drained_counts.kept().min(drained).saturating_add(grown_counts.kept().min(reduced));
    let missing = (fewest - available).max(0);
    let other = reduced + (grown_counts.kept() - reduced).max(0).min(missing);
    (drained - excess(other), other)
}

fn specified(new: Counts, stable: Counts, others: &[Counts]) -> i64 {
    [new, stable].iter().chain(others).map(|counts| i64::from(counts.spec)).sum()
}

/// New sizes of old ReplicaSets, newest first: each loses its unavailable pods; then as many go as the floor allows.
/// `available` is over all ReplicaSets, new and stable too; `fewest` is the floor.
pub fn drain_others(others: &[Counts], available: i32, fewest: i32) -> Vec<i32> {
    let mut budget = (available - fewest).max(0);
    others
        .iter()
        .map(|other| {
            let cut = other.kept().min(budget);
            budget -= cut;
            other.kept() - cut
        })
        .collect()
}

/// Whether a canary is as large as its step wants it, so that traffic and steps may move on.
///
/// `others` are the old ReplicaSets of a canary without traffic routing: their pods still take part of the traffic.
/// With traffic routing they do not count, and `others` is empty. Of stable only that its pods were created counts: an
/// ailing stable version must not keep its successor away.
pub fn at_desired_counts(
    (desired_new, desired_stable): (i32, i32),
    new: Option<&ReplicaSet>,
    stable: Option<&ReplicaSet>,
    others: &[&ReplicaSet],
    threshold: Option<&ReplicaProgressThreshold>,
) -> bool {
    new.is_some_and(|new| enough_available(desired_new, new.into(), threshold))
        && stable.is_none_or(|stable| stable.replicas == desired_stable && stable.status.replicas == desired_stable)
        && others.iter().all(|other| other.status.available == 0)
}

/// Whether enough of `desired` pods are available: all, or as many as the threshold says.
pub fn enough_available(desired: i32, counts: Counts, threshold: Option<&ReplicaProgressThreshold>) -> bool {
    match threshold {
        None => counts.spec == desired && counts.available == desired,
        Some(threshold) => counts.kept() >= required_pods(desired, Some(threshold)),
    }
}

/// How many of `desired` pods count as enough.
pub fn required_pods(desired: i32, threshold: Option<&ReplicaProgressThreshold>) -> i32 {
    match threshold {
        None => desired,
        Some(ReplicaProgressThreshold { type_, value }) if type_ == "Pods" => *value,
        Some(ReplicaProgressThreshold { value, .. }) => share_up(*value, desired, 100),
    }
}

impl Counts {
    /// Pods that are available and stay so: those beyond the specified ones are about to go.
    pub fn kept(self) -> i32 {
        self.available.min(self.spec)
    }

    fn countable(self, ignore_unavailable: bool) -> i32 {
        if ignore_unavailable { self.spec } else { self.kept() }
    }
}

impl From<&ReplicaSet> for Counts {
    fn from(replica_set: &ReplicaSet) -> Self {
        Self { spec: replica_set.replicas, available: replica_set.status.available }
    }
}

fn narrow(pods: i64) -> i32 {
    pods.clamp(0, i32::MAX.into()) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(spec: i32, available: i32) -> Counts {
        Counts { spec, available }
    }

    fn canary(json: &str) -> CanaryStrategy {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn surge_rounds_up_and_unavailable_down() {
        for (json, replicas, surge, unavailable) in [
            ("{}", 10, 3, 2),
            ("{}", 1, 1, 0),
            ("{}", 0, 0, 0),
            (r#"{"maxSurge":"50%","maxUnavailable":"50%"}"#, 5, 3, 2),
            (r#"{"maxSurge":0,"maxUnavailable":0}"#, 5, 0, 1),
            (r#"{"maxSurge":0}"#, 3, 0, 1),
            (r#"{"maxSurge":0,"maxUnavailable":9}"#, 3, 0, 3),
            (r#"{"maxSurge":2147483647}"#, i32::MAX, i32::MAX, i32::MAX / 4),
        ] {
            let limits = limits(&canary(json), replicas).unwrap();
            assert_eq!(limits, Limits { surge, unavailable }, "{json} of {replicas}");
        }
        let error = limits(&canary(r#"{"maxSurge":"many"}"#), 3).unwrap_err();
        assert_eq!(error, ScaleError::NotANumber { value: "many".into() });
    }

    /// Ten replicas: the weight of the step, the weight that was recorded, and the sizes of canary and stable.
    #[test]
    fn with_dynamic_stable_scale_pods_come_before_their_weight_and_go_after_it() {
        use crate::api::rollout_status::{TrafficWeights, WeightDestination};
        let sizes = |scale: &str, weight: i32, recorded: i32, change: fn(&mut RolloutStatus)| {
            let steps = format!(
                r#"{{"steps":[{scale}{{"setWeight":{weight}}},{{"pause":{{}}}}],"trafficRouting":{{}},"minPodsPerReplicaSet":2}}"#
            );
            let canary = canary(&steps);
            let end = canary.steps.len() as i32;
            let mut status = RolloutStatus {
                current_step_index: Some(end - 1),
                stable_rs: "a".into(),
                current_pod_hash: "b".into(),
                ..Default::default()
            };
            let destination = WeightDestination { weight: recorded, ..Default::default() };
            status.canary.weights = Some(TrafficWeights { canary: destination, ..Default::default() });
            change(&mut status);
            dynamic(&canary, &status, 10)
        };
        let as_it_is = |_: &mut RolloutStatus| {};
        assert_eq!(sizes("", 20, 0, as_it_is), (2, 10), "the canary first");
        assert_eq!(sizes("", 20, 20, as_it_is), (2, 8));
        assert_eq!(sizes("", 60, 20, as_it_is), (6, 8));
        assert_eq!(sizes("", 20, 60, as_it_is), (2, 8), "back to a lower weight: stable first");
        assert_eq!(sizes("", 1, 1, as_it_is), (2, 10), "no fewer than two");
        assert_eq!(sizes("", 95, 95, as_it_is), (10, 2));
        assert_eq!(sizes("", 100, 100, as_it_is), (10, 0), "but none is none");
        assert_eq!(sizes(r#"{"setCanaryScale":{"replicas":1}},"#, 20, 20, as_it_is), (2, 10));
        assert_eq!(
            sizes(r#"{"setCanaryScale":{"weight":100}},"#, 10, 10, as_it_is),
            (10, 9),
            "a canary of its own size"
        );
        let aborted = |status: &mut RolloutStatus| status.abort = true;
        assert_eq!(sizes("", 60, 60, aborted), (6, 10), "an aborted canary keeps what its weight needs");
        assert_eq!(sizes("", 60, 30, aborted), (3, 10));
        assert_eq!(sizes("", 60, 0, aborted), (0, 10));
        assert_eq!(sizes("", 20, 20, |status| status.promote_full = true), (10, 8));
    }

    #[test]
    fn the_steps_say_the_weight_and_the_scale() {
        let steps = r#"{"trafficRouting":{"maxTrafficWeight":1000},"steps":[{"pause":{}},{"setWeight":50},
            {"setCanaryScale":{"replicas":3}},{"pause":{}},{"setCanaryScale":{"weight":70}},
            {"setCanaryScale":{"matchTrafficWeight":true}},{"setWeight":600}]}"#;
        let canary = canary(steps);
        use CanaryScale::{Replicas, Weight};
        for (index, weight, scale) in [
            (None, 0, Weight(0)),
            (Some(0), 0, Weight(0)),
            (Some(1), 50, Weight(50)),
            (Some(2), 50, Replicas(3)),
            (Some(3), 50, Replicas(3)),
            (Some(4), 50, Weight(70)),
            (Some(5), 50, Weight(50)),
            (Some(6), 600, Weight(600)),
            (Some(7), 1000, Weight(1000)),
            (Some(99), 1000, Weight(1000)),
        ] {
            let mut status = RolloutStatus {
                current_step_index: index,
                stable_rs: "a".into(),
                current_pod_hash: "b".into(),
                ..Default::default()
            };
            assert_eq!(current_set_weight(&canary, &status), weight, "{index:?}");
            assert_eq!(canary_scale(&canary, &status), scale, "{index:?}");
            status.promote_full = true;
            assert_eq!(canary_scale(&canary, &status), Weight(1000), "{index:?}");
            status.promote_full = false;
            status.abort = true;
            assert_eq!(canary_scale(&canary, &status), Weight(0), "{index:?}");
        }
        let left = CanaryStrategy { abort_scale_down_delay_seconds: Some(0), ..canary.clone() };
        let aborted = RolloutStatus {
            abort: true,
            current_step_index: Some(3),
            stable_rs: "a".into(),
            current_pod_hash: "b".into(),
            ..Default::default()
        };
        assert_eq!(canary_scale(&left, &aborted), Replicas(3), "left running on request");
        let basic = CanaryStrategy { traffic_routing: None, ..canary };
        let third = RolloutStatus { abort: false, ..aborted };
        assert_eq!(canary_scale(&basic, &third), Weight(50), "pods are the weight without traffic routing");
    }

    #[test]
    fn without_traffic_routing_the_nearest_split_is_chosen() {
        for (replicas, weight, surge, split) in [
            (10, 10, 1, (1, 9)),
            (10, 0, 1, (0, 10)),
            (10, 100, 1, (10, 0)),
            (1, 5, 1, (1, 1)),
            (1, 95, 1, (1, 1)),
            (1, 30, 0, (0, 1)),
            (1, 50, 0, (1, 0)),
            (5, 10, 0, (1, 4)),
            (5, 50, 0, (3, 2)),
            (4, 20, 1, (1, 4)),
            (2, 75, 0, (1, 1)),
            (0, 50, 1, (0, 0)),
        ] {
            assert_eq!(ideal_split(replicas, weight, 100, surge), split, "{weight}% of {replicas}, surge {surge}");
        }
        assert_eq!(ideal_split(10, 100, 1000, 1), (1, 9), "a tenth, whatever the total is");
    }

    #[test]
    fn every_weight_between_leaves_a_pod_on_both_sides() {
        for replicas in 1..=12 {
            for surge in 0..=3 {
                for weight in 0..=100 {
                    let (canary, stable) = ideal_split(replicas, weight, 100, surge);
                    let what = format!("{weight}% of {replicas}, surge {surge}: {canary}/{stable}");
                    assert!(canary >= 0 && stable >= 0, "{what}");
                    assert!((replicas..=replicas + surge.min(1)).contains(&(canary + stable)), "{what}");
                    match weight {
                        0 => assert_eq!((canary, stable), (0, replicas), "{what}"),
                        100 => assert_eq!((canary, stable), (replicas, 0), "{what}"),
                        _ if replicas > 1 || surge > 0 => assert!(canary > 0 && stable > 0, "{what}"),
                        _ => {}
                    }
                }
            }
        }
    }

    #[test]
    fn the_first_pass_of_a_canary_without_traffic_routing() {
        let pass = |replicas, weight, unavailable, surge, new: Counts, stable: Counts, others: &[Counts]| {
            let limits = Limits { surge, unavailable };
            let inputs = Basic { replicas, weight, total: 100, limits, new: Some(new), stable: Some(stable), others };
            basic(&inputs)
        };
        let full = counts(10, 10);
        for (weight, unavailable, surge, new, stable, expected) in [
            (10, 1, 1, counts(0, 0), full, (1, 9)),
            (30, 0, 3, counts(0, 0), full, (3, 10)),
            (30, 0, 3, counts(3, 2), full, (3, 8)),
            (30, 0, 3, counts(3, 3), full, (3, 7)),
            (30, 5, 0, counts(0, 0), full, (0, 7)),
            (30, 5, 0, counts(0, 0), counts(7, 7), (3, 7)),
            // Back from 50%: stable regrows first, the canary shrinks as it becomes available.
            (0, 0, 2, counts(5, 5), counts(5, 5), (5, 7)),
            (0, 0, 2, counts(5, 5), counts(7, 7), (3, 7)),
            // A stable version that cannot get ready gives way.
            (100, 0, 1, counts(1, 1), counts(10, 0), (1, 9)),
        ] {
            let sizes = pass(10, weight, unavailable, surge, new, stable, &[]);
            assert_eq!((sizes.new, sizes.stable), expected, "{weight}%, {new:?} {stable:?}");
        }
        for weight in [5, 95] {
            let sizes = pass(1, weight, 0, 1, counts(0, 0), counts(1, 1), &[]);
            assert_eq!((sizes.new, sizes.stable), (1, 1));
        }
        let sizes = pass(10, 50, 2, 2, counts(0, 0), counts(7, 7), &[counts(3, 3), counts(2, 1)]);
        assert_eq!(sizes, Sizes { new: 0, stable: 7, others: vec![0, 1] }, "old revisions go first, the newest first");
        let sizes = pass(10, 50, 2, 2, counts(0, 0), counts(7, 6), &[counts(4, 0), counts(1, 1)]);
        assert_eq!(sizes, Sizes { new: 0, stable: 7, others: vec![0, 1] }, "what is not available can go at once");
        let first = Basic {
            replicas: 10,
            weight: 20,
            total: 100,
            limits: Limits { surge: 3, unavailable: 2 },
            new: Some(counts(0, 0)),
            stable: None,
            others: &[],
        };
        assert_eq!(basic(&first).new, 10, "the first version takes no steps");
    }

    /// From every state of few pods: no pass takes more than its due, whether or not all of its writes are made.
    #[test]
    fn no_pass_leaves_the_limits() {
        for replicas in 0..=4 {
            for (surge, unavailable) in [(0, 1), (1, 0), (1, 1), (2, 1), (0, 3)] {
                let limits = Limits { surge, unavailable: replicas.min(unavailable) };
                for weight in [0, 1, 20, 34, 50, 67, 80, 99, 100] {
                    for [new, stable, other] in states(5) {
                        let inputs = Basic {
                            replicas,
                            weight,
                            total: 100,
                            limits,
                            new: Some(new),
                            stable: Some(stable),
                            others: &[other],
                        };
                        check_pass(&inputs);
                    }
                }
            }
        }
    }

    fn states(most: i32) -> impl Iterator<Item = [Counts; 3]> {
        let counts = move || (0..=most).flat_map(move |spec| (0..=most).map(move |available| counts(spec, available)));
        let few = move || (0..=2).flat_map(move |spec| (0..=2).map(move |available| super::Counts { spec, available }));
        counts().flat_map(move |new| counts().flat_map(move |stable| few().map(move |other| [new, stable, other])))
    }

    fn check_pass(inputs: &Basic<'_>) {
        let sizes = basic(inputs);
        let before = [inputs.new.unwrap(), inputs.stable.unwrap(), inputs.others[0]];
        let after = [sizes.new, sizes.stable, sizes.others[0]];
        let sum = |pods: &dyn Fn(Counts, i32) -> i32| -> i32 {
            before.iter().zip(after).map(|(&counts, size)| pods(counts, size)).sum()
        };
        let specified = sum(&|counts, _| counts.spec);
        assert!(
            sum(&|counts, size| counts.spec.max(size)) <= specified.max(inputs.replicas + inputs.limits.surge),
            "too many: {inputs:?} {sizes:?}"
        );
        let kept = sum(&|counts, _| counts.available.min(counts.spec));
        assert!(
            sum(&|counts, size| counts.available.min(counts.spec).min(size))
                >= kept.min(inputs.replicas - inputs.limits.unavailable),
            "too few: {inputs:?} {sizes:?}"
        );
        assert!(after.iter().all(|size| *size >= 0), "{inputs:?} {sizes:?}");
    }

    #[test]
    fn every_weight_is_reached_when_pods_become_available() {
        for replicas in 0..=12 {
            for surge in 0..=3 {
                for unavailable in 0..=replicas.min(3) {
                    if surge == 0 && unavailable == 0 && replicas > 0 {
                        continue;
                    }
                    for weight in 0..=100 {
                        for start in [(0, replicas), (replicas, 0), (replicas / 2, replicas - replicas / 2)] {
                            converges(replicas, weight, Limits { surge, unavailable }, start);
                        }
                    }
                }
            }
        }
    }

    fn converges(replicas: i32, weight: i32, limits: Limits, (mut new, mut stable): (i32, i32)) {
        let mut other = 1.min(limits.surge);
        for _ in 0..=2 * replicas + 4 {
            let others = [counts(other, other)];
            let inputs = Basic {
                replicas,
                weight,
                total: 100,
                limits,
                new: Some(counts(new, new)),
                stable: Some(counts(stable, stable)),
                others: &others,
            };
            check_pass(&inputs);
            let sizes = basic(&inputs);
            (new, stable, other) = (sizes.new, sizes.stable, sizes.others[0]);
        }
        let ideal = ideal_split(replicas, weight, 100, limits.surge);
        assert_eq!((new, stable, other), (ideal.0, ideal.1, 0), "{weight}% of {replicas}, {limits:?}");
    }

    #[test]
    fn a_canary_with_traffic_routing_is_as_large_as_its_weight() {
        use CanaryScale::{Replicas, Weight};
        for (replicas, scale, total, min_pods, expected) in [
            (10, Weight(0), 100, Some(2), 0),
            (10, Weight(1), 100, None, 1),
            (10, Weight(5), 100, Some(2), 2),
            (10, Weight(33), 100, Some(2), 4),
            (1, Weight(5), 100, Some(3), 1),
            (10, Weight(50), 1000, None, 1),
            (10, Weight(100), 100, None, 10),
            (10, Replicas(1), 100, Some(2), 1),
            (10, Replicas(20), 100, None, 20),
            (i32::MAX, Weight(100), 100, None, i32::MAX),
        ] {
            assert_eq!(routed_canary(replicas, scale, total, min_pods), expected, "{scale:?} of {replicas}");
        }
    }

    #[test]
    fn a_threshold_says_how_many_pods_are_enough() {
        let threshold = |type_: &str, value| Some(ReplicaProgressThreshold { type_: type_.into(), value });
        for (desired, pods, threshold, enough) in [
            (4, counts(4, 4), None, true),
            (4, counts(4, 3), None, false),
            (4, counts(5, 4), None, false),
            (4, counts(4, 3), threshold("Percent", 75), true),
            (4, counts(4, 2), threshold("Percent", 75), false),
            (0, counts(0, 0), threshold("Percent", 75), true),
            (4, counts(4, 1), threshold("Pods", 1), true),
            (4, counts(4, 1), threshold("Pods", 2), false),
        ] {
            assert_eq!(enough_available(desired, pods, threshold.as_ref()), enough, "{desired} {pods:?} {threshold:?}");
        }
    }
}
