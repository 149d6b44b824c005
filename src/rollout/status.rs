//! The parts of the status that follow from what is there: counts, selector, phase and message.

use crate::api::blue_green::BlueGreenStrategy;
use crate::api::common::{Condition, LabelSelector};
use crate::api::rollout::RolloutStatus;

use super::conditions::{self, ABORTED, INVALID_SPEC, TIMED_OUT};
use super::draft::Draft;
use super::restart;
use super::scene::Scene;
use super::services;

/// Takes over what was observed of the ReplicaSets.
pub(super) fn count(scene: &Scene<'_>, status: &mut RolloutStatus) {
    let sum = |of: fn(&super::world::ReplicaSetStatus) -> i32| scene.revisions.all().map(|set| of(&set.status)).sum();
    status.replicas = sum(|status| status.replicas);
    status.ready_replicas = sum(|status| status.ready);
    status.available_replicas = sum(|status| status.available);
    status.updated_replicas = scene.revisions.new.map_or(0, |new| new.status.replicas);
    status.hpa_replicas = status.replicas;
    status.selector = format_selector(scene.desired.selector);
    if let Some(strategy) = scene.blue_green {
        count_active(scene, strategy, status);
    }
}

/// With blue-green it is the active version that serves, and that an autoscaler looks at.
fn count_active(scene: &Scene<'_>, strategy: &BlueGreenStrategy, status: &mut RolloutStatus) {
    let selected = |name: &str| {
        scene.world.services.get(name).map_or(String::new(), |service| services::selected(&service.object).to_owned())
    };
    status.blue_green.active_selector = selected(&strategy.active_service);
    status.blue_green.preview_selector = selected(&strategy.preview_service);
    let active = scene.revisions.all().find(|set| set.hash() == status.blue_green.active_selector);
    let Some(active) = active else { return };
    status.ready_replicas = active.status.ready;
    status.available_replicas = active.status.available;
    status.hpa_replicas = active.status.replicas;
    status.selector = format_selector(&active.selector);
}

/// Says where the Rollout stands. The conditions must be final by now.
pub(super) fn conclude(scene: &Scene<'_>, draft: &mut Draft<'_>) {
    draft.status.observed_generation = scene.generation();
    if let Some(doubt) = draft.doubt.clone() {
        draft.wait(doubt);
    }
    let (phase, message) = phase(scene, draft);
    phase.clone_into(&mut draft.status.phase);
    draft.status.message = message;
}

fn phase(scene: &Scene<'_>, draft: &Draft<'_>) -> (&'static str, String) {
    let (status, waits) = (&draft.status, &draft.waits);
    if let Some(degraded) = degraded(status) {
        return degraded;
    }
    if scene.rollout.spec.paused {
        return ("Paused", "manually paused".to_owned());
    }
    if let Some(condition) = status.pause_conditions.first() {
        // The pause alone is what is waited for, unless its end would lead nowhere.
        return ("Paused", with_waits(&condition.reason, draft.doubt.as_slice()));
    }
    let progressing = |message: &str| ("Progressing", message.to_owned());
    if restart::is_asked(scene, status.restarted_at.as_ref()) {
        return ("Progressing", with_waits("rollout is restarting", waits));
    }
    if status.updated_replicas < scene.replicas {
        return ("Progressing", with_waits("more replicas need to be updated", waits));
    }
    if status.available_replicas < status.updated_replicas {
        return progressing("updated replicas are still becoming available");
    }
    if let Some(strategy) = scene.blue_green {
        return match blue_green_wait(strategy, status) {
            Some(wait) => ("Progressing", with_waits(wait, waits)),
            None => ("Healthy", String::new()),
        };
    }
    if !scene.routes_traffic() && status.replicas > status.updated_replicas {
        return progressing("old replicas are pending termination");
    }
    if status.stable_rs.is_empty() || status.stable_rs != status.current_pod_hash {
        return ("Progressing", with_waits("waiting for all steps to complete", waits));
    }
    ("Healthy", String::new())
}

/// What a blue-green update with all of its pods waits for.
fn blue_green_wait(strategy: &BlueGreenStrategy, status: &RolloutStatus) -> Option<&'static str> {
    let active = &status.blue_green.active_selector;
    let post = status.blue_green.post_promotion_analysis_run_status.as_ref();
    if active.is_empty() || *active != status.current_pod_hash {
        return Some("active service cutover pending");
    }
    if status.stable_rs == status.current_pod_hash {
        return None;
    }
    Some(match &strategy.post_promotion_analysis {
        Some(_) if post.is_none_or(|run| !run.status.completed()) => "waiting for analysis to complete",
        _ => "waiting for post-promotion verification to complete",
    })
}

/// The phase of what went wrong, if anything did.
pub(super) fn degraded(status: &RolloutStatus) -> Option<(&'static str, String)> {
    let said = |condition: &Condition| format!("{}: {}", condition.reason, condition.message);
    let wrong = status.conditions.iter().find(|condition| [ABORTED, TIMED_OUT].contains(&condition.reason.as_str()));
    let message = match (conditions::find(status, INVALID_SPEC), wrong) {
        // Who aborts must see that it has been heard, whatever else is wrong.
        (Some(invalid), Some(wrong)) if wrong.reason == ABORTED => format!("{}; {}", said(invalid), said(wrong)),
        (Some(invalid), _) => said(invalid),
        (None, wrong) => said(wrong?),
    };
    Some(("Degraded", message))
}

fn with_waits(message: &str, waits: &[String]) -> String {
    if waits.is_empty() { message.to_owned() } else { format!("{message}: {}", waits.join("; ")) }
}

/// A label selector as text, as Kubernetes formats it: labels by key, then expressions.
fn format_selector(selector: &LabelSelector) -> String {
    let labels = selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}={value}"));
    let expressions = selector.match_expressions.iter().flatten().map(|requirement| {
        let key = &requirement.key;
        let mut values = requirement.values.clone().unwrap_or_default();
        values.sort();
        let values = values.join(",");
        match requirement.operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.clone(),
        }
    });
    labels.chain(expressions).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_reads_as_kubectl_takes_it() {
        let selector: LabelSelector = serde_json::from_str(
            r#"{"matchLabels":{"tier":"front","app":"web"},"matchExpressions":[
                {"key":"zone","operator":"In","values":["b","a"]},{"key":"old","operator":"DoesNotExist"}]}"#,
        )
        .unwrap();
        assert_eq!(format_selector(&selector), "app=web,tier=front,zone in (a,b),!old");
    }
}
