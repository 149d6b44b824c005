//! What a decision stands on: the World, read once for the strategy.

use std::sync::LazyLock;

use crate::analysis::spec::Source;
use crate::api::Rollout;
use crate::api::blue_green::BlueGreenStrategy;
use crate::api::canary::{CanaryStrategy, Placed};
use crate::api::field_error::FieldPath;
use crate::api::pod_template::fnv_hash;
use crate::api::rollout::RolloutStatus;
use crate::api::steps::CanaryStep;
use crate::traffic::istio::destination_rule;

use super::World;
use super::conditions;
use super::replicas;
use super::revision::{Desired, Revisions};
use super::services;
use super::world::ReplicaSet;

/// What blue-green has of a canary.
static NO_STEPS: LazyLock<CanaryStrategy> = LazyLock::new(CanaryStrategy::default);

pub(super) struct Scene<'a> {
    pub world: &'a World,
    pub rollout: &'a Rollout,
    /// With blue-green one without steps, Services and routers, so that what both strategies share need not ask.
    pub canary: &'a CanaryStrategy,
    pub blue_green: Option<&'a BlueGreenStrategy>,
    /// The Service that leads to the stable version now, or the subset that passes as one; empty without. With `pingPong` the
    /// two take turns.
    pub stable_service: &'a str,
    /// The Service that leads to the version on trial now; empty without.
    pub canary_service: &'a str,
    /// The status as it was read.
    pub observed: &'a RolloutStatus,
    pub desired: Desired<'a>,
    pub revisions: Revisions<'a>,
    /// `spec.replicas`
    pub replicas: i32,
    /// What `status.currentStepHash` is to be.
    pub step_hash: String,
    /// Whether the steps are others than those that the status was made for.
    steps_changed: bool,
}

impl<'a> Scene<'a> {
    /// None when there is no strategy, or no template or selector to judge anything by.
    pub fn set(world: &'a World, observed: &'a RolloutStatus) -> Option<Self> {
        let rollout = &*world.rollout;
        let strategy = &rollout.spec.strategy;
        // With both, validation refuses; the canary is the one that can go back.
        let blue_green = strategy.blue_green.as_deref().filter(|_| strategy.canary.is_none());
        let canary = strategy.canary.as_ref().or_else(|| blue_green.map(|_| &*NO_STEPS))?;
        let template = rollout.spec.template.as_ref().filter(|template| !template.is_absent())?;
        let desired = Desired { template, selector: rollout.spec.selector.as_ref()? };
        let revisions = Revisions::find(world, desired);
        let (stable_service, canary_service) = subsets(world).unwrap_or_else(|| services::roles(canary, observed));
        let hash_as = |form| if blue_green.is_some() { String::new() } else { step_hash(&canary.steps, form) };
        let newer = hash_as(Form::Newer);
        let is_newer = newer == observed.current_step_hash;
        // What Argo Rollouts 1.8 has left is rare: its form is worked out only where the other is not there.
        let older = Some(Form::Older).filter(|_| !is_newer).map(hash_as);
        let older = older.filter(|older| *older == observed.current_step_hash);
        let steps_changed = !is_newer && older.is_none() && !is_for_this_spec(rollout, observed);
        let step_hash = older.unwrap_or(newer);
        Some(Self {
            stable_service,
            canary_service,
            world,
            rollout,
            canary,
            blue_green,
            observed,
            desired,
            revisions,
            replicas: rollout.spec.desired_replicas(),
            step_hash,
            steps_changed,
        })
    }

    pub fn name(&self) -> &'a str {
        self.rollout.metadata.name.as_deref().unwrap_or_default()
    }

    pub fn namespace(&self) -> &'a str {
        self.rollout.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// The generation, as `status.observedGeneration` holds it.
    pub fn generation(&self) -> String {
        self.rollout.metadata.generation.unwrap_or_default().to_string()
    }

    /// The Services that the strategy names, with their fields.
    pub fn services(&self) -> impl Iterator<Item = (FieldPath, &'a str)> + use<'a> {
        let at = FieldPath::new("spec.strategy");
        let canary = at.child("canary");
        let ping_pong = canary.child("pingPong");
        let mut named = vec![
            (canary.child("stableService"), self.canary.stable_service()),
            (canary.child("canaryService"), self.canary.canary_service()),
        ];
        if let Some(services) = &self.canary.ping_pong {
            named.push((ping_pong.child("pingService"), &services.ping_service));
            named.push((ping_pong.child("pongService"), &services.pong_service));
        }
        if let Some(strategy) = self.blue_green {
            named.push((at.child("blueGreen").child("activeService"), &strategy.active_service));
            named.push((at.child("blueGreen").child("previewService"), &strategy.preview_service));
        }
        named.into_iter().filter(|(_, name)| !name.is_empty())
    }

    /// Every analysis of the strategy with its path.
    pub fn analyses(&self) -> impl Iterator<Item = (FieldPath, Placed<'a>)> + use<'a> {
        self.canary.analyses().chain(self.blue_green.into_iter().flat_map(BlueGreenStrategy::analyses))
    }

    /// What analyses are made from.
    pub fn source(&self) -> Source<'_> {
        Source {
            rollout: self.rollout,
            stable_hash: self.revisions.stable.map_or("", |stable| stable.hash()),
            latest_hash: &self.revisions.hash,
            templates: &self.world.templates,
        }
    }

    /// The stable ReplicaSet, unless it is the new one too.
    pub fn separate_stable(&self) -> Option<&'a ReplicaSet> {
        self.revisions.stable.filter(|_| !self.revisions.is_fully_promoted())
    }

    pub fn routes_traffic(&self) -> bool {
        self.canary.traffic_routing.is_some()
    }

    /// Whether an update to another template or with other steps has to begin.
    pub fn starts_over(&self) -> bool {
        self.observed.current_pod_hash != self.revisions.hash || self.steps_changed
    }

    /// Index of the last step plus one; none without steps.
    pub fn end(&self) -> Option<i32> {
        let count = self.canary.steps.len();
        (count > 0).then(|| i32::try_from(count).unwrap_or(i32::MAX))
    }

    pub fn step(&self, status: &RolloutStatus) -> Option<&'a CanaryStep> {
        self.canary.steps.get(replicas::current_step(self.canary, status)?)
    }

    /// Whether no step is left.
    pub fn at_end(&self, status: &RolloutStatus) -> bool {
        replicas::current_step(self.canary, status).is_none()
    }

    /// Whether the new version is the stable one: nothing is being updated.
    pub fn is_promoted(&self, status: &RolloutStatus) -> bool {
        !status.stable_rs.is_empty() && status.stable_rs == status.current_pod_hash
    }

    /// Whether the desired template is an older one, and near enough to stable that `rollbackWindow` skips the steps.
    pub fn is_rollback_within_window(&self) -> bool {
        let (Some(new), Some(stable)) = (self.revisions.new, self.revisions.stable) else { return false };
        let window = self.rollout.spec.rollback_window.as_ref().and_then(|window| window.revisions).unwrap_or(0);
        let between = self
            .revisions
            .all()
            .filter(|set| !set.annotations.contains_key(crate::api::names::EXPERIMENT_NAME))
            .filter(|set| new.age() < set.age() && set.age() < stable.age())
            .count();
        new.age() < stable.age() && usize::try_from(window).is_ok_and(|window| between < window)
    }
}

/// The subsets that tell the versions apart instead of two Services, by the names under which they pass as such. Where the
/// DestinationRule is missing there is nothing behind either name.
fn subsets(world: &World) -> Option<(&str, &str)> {
    let (stable, canary) = destination_rule::roles(&world.rollout)?;
    let known = |name: &str, missing: &'static str| world.services.get_key_value(name).map_or(missing, |(key, _)| key);
    Some((known(&stable, "missing (subset of stable)"), known(&canary, "missing (subset of the canary)")))
}

/// Whether a status is about the spec as it is now, whoever wrote it: then its steps are these, however they were hashed.
///
/// An invalid spec is observed without being begun, so that nothing follows from its generation.
fn is_for_this_spec(rollout: &Rollout, observed: &RolloutStatus) -> bool {
    let is_invalid = conditions::find(observed, conditions::INVALID_SPEC).is_some();
    let generation = rollout.metadata.generation.unwrap_or_default().to_string();
    !is_invalid && !observed.current_step_hash.is_empty() && observed.observed_generation == generation
}

/// How an analysis step without metadata for its runs is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Without that field: Argo Rollouts 1.9 and newer.
    Newer,
    /// With an empty one: Argo Rollouts 1.8 and older. What these have written back into a spec, newer ones keep.
    Older,
}

/// `status.currentStepHash`: over the JSON that Go's encoder makes of the steps, or an update in flight would begin anew
/// when the controller is exchanged.
fn step_hash(steps: &[CanaryStep], form: Form) -> String {
    if steps.is_empty() {
        return fnv_hash(b"null", None);
    }
    let json: Vec<String> = steps.iter().map(|step| step_json(step, form)).collect();
    let escaped = format!("[{}]", json.join(","))
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029");
    fnv_hash(escaped.as_bytes(), None)
}

fn step_json(step: &CanaryStep, form: Form) -> String {
    // Plain data always encodes.
    let json = serde_json::to_string(step).unwrap_or_default();
    // Inside of a text, quotes are escaped: there it is not found. That of an experiment is always written.
    if form == Form::Newer && step.experiment.is_none() {
        return json.replace(",\"analysisRunMetadata\":{}", "");
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_hash_is_over_the_json_of_go() {
        let steps: Vec<CanaryStep> = serde_json::from_str(
            r#"[{"setWeight":20},{"pause":{}},{"analysis":{"templates":[{"templateName":"a"}],"args":[{"name":"q","value":"a<b"}]}}]"#,
        )
        .unwrap();
        let go = r#"[{"setWeight":20},{"pause":{}},{"analysis":{"templates":[{"templateName":"a"}],"args":[{"name":"q","value":"a\u003cb"}],"analysisRunMetadata":{}}}]"#;
        assert_eq!(step_hash(&steps, Form::Older), fnv_hash(go.as_bytes(), None));
        assert_eq!(step_hash(&[], Form::Newer), fnv_hash(b"null", None));
    }

    /// As the controllers of these versions were seen to write it.
    #[test]
    fn the_step_hash_is_that_of_each_version() {
        let steps: Vec<CanaryStep> = serde_json::from_str(
            r#"[{"setWeight":25},{"pause":{}},{"analysis":{"templates":[{"templateName":"check"}]}},{"setWeight":50},{"pause":{"duration":"40s"}}]"#,
        )
        .unwrap();
        assert_eq!(step_hash(&steps, Form::Older), "bdcf84854", "1.8.5");
        assert_eq!(step_hash(&steps, Form::Newer), "75b5c664c6", "1.9.0");
    }
}
