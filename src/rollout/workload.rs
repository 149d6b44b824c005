//! `workloadRef`: a Rollout that takes its pods from a Deployment, a ReplicaSet or a PodTemplate, and the Deployment that it
//! takes over from.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::api::Rollout;
use crate::api::common::{LabelSelector, ScaleDown};
use crate::api::field_error::FieldError;
use crate::api::names::{POD_TEMPLATE_HASH, TAKES_OVER, WORKLOAD_GENERATION};
use crate::api::pod_template::PodTemplate;
use crate::api::resource::{DEPLOYMENT, ObjectRef, ROLLOUT};
use crate::api::validation;
use crate::plan::{Action, Basis};

use super::World;
use super::draft::Draft;
use super::guard::{self, Traffic};
use super::revision;
use super::scene::Scene;

/// The object that a Rollout takes its template from; none when it names none, or one of a kind that has no template.
pub fn referent(rollout: &Rollout) -> Option<ObjectRef> {
    let reference = rollout.spec.workload_ref.as_ref()?;
    let namespace = rollout.metadata.namespace.clone().unwrap_or_default();
    Some(ObjectRef::new(reference.resource()?, namespace, reference.name.as_deref()?))
}

/// The World as if the pods of the workload were written in the Rollout itself, and what is wrong with the reference.
///
/// Without the workload the template is that of the present revision: what is wrong then is said, nothing goes forward,
/// and an abort still finds its way back.
pub(super) fn resolve(world: &World) -> (Cow<'_, World>, Option<FieldError>) {
    let rollout = &*world.rollout;
    let Some(reference) = &rollout.spec.workload_ref else { return (Cow::Borrowed(world), None) };
    let wrong = validation::rollout(rollout).into_iter().next();
    let (template, selector, wrong) = match (&world.workload, wrong) {
        (Some(workload), None) => (Some(workload.template.clone()), workload.selector.clone(), None),
        (_, wrong) => {
            let missing = || {
                let name = reference.name.as_deref().unwrap_or_default();
                let kind = reference.kind.as_deref().unwrap_or_default();
                FieldError::invalid("spec.workloadRef", name, format!("{kind} \"{name}\" not found"))
            };
            let (template, selector) = present(world).unzip();
            (template, selector, Some(wrong.unwrap_or_else(missing)))
        }
    };
    let mut world = world.clone();
    let spec = &mut Arc::make_mut(&mut world.rollout).spec;
    spec.template = template;
    spec.selector = spec.selector.take().or(selector);
    (Cow::Owned(world), wrong)
}

/// Template and selector of the present revision, as they were before the ReplicaSet was made of them.
fn present(world: &World) -> Option<(PodTemplate, LabelSelector)> {
    let current = &world.rollout.status.as_ref()?.current_pod_hash;
    let uid = world.rollout.metadata.uid.as_ref();
    let mut sets = world.replica_sets.iter();
    let set = sets.find(|set| !current.is_empty() && set.hash() == current && set.controller.as_ref() == uid)?;
    let mut selector = set.selector.clone();
    if let Some(labels) = &mut selector.match_labels {
        labels.remove(POD_TEMPLATE_HASH);
    }
    Some((revision::own_template(set), selector))
}

/// Records which version of the workload was acted upon: on the Rollout, where clients compare it with the status. Before
/// there is any revision, also that a Deployment's pods are to be taken over: the next one may come before that is done.
pub(super) fn record(draft: &mut Draft<'_>) {
    let rollout = &*draft.world.rollout;
    let noted = rollout.metadata.annotations.as_ref().and_then(|all| all.get(WORKLOAD_GENERATION));
    let generation = match (&rollout.spec.workload_ref, &draft.world.workload) {
        (None, _) => None,
        (Some(_), Some(workload)) => Some(workload.generation.to_string()),
        (Some(_), None) => return,
    };
    if noted != generation.as_ref() {
        let what = generation
            .as_ref()
            .map_or("no workload any more".to_owned(), |generation| format!("workload generation {generation}"));
        draft.because(what.as_str());
        let mut annotations = json!({ (WORKLOAD_GENERATION): generation });
        let is_first = draft.status.current_pod_hash.is_empty();
        if let Some(name) = taken_over(draft.world).filter(|_| is_first) {
            annotations[TAKES_OVER] = name.into();
        }
        annotate(draft, annotations, what);
    }
    draft.status.workload_observed_generation = generation.unwrap_or_default();
}

/// The name of the Deployment whose pods are to go as those of the Rollout come, if it has any.
fn taken_over(world: &World) -> Option<&str> {
    let reference = world.rollout.spec.workload_ref.as_ref()?;
    let scales = matches!(reference.scale_down(), Some(ScaleDown::OnSuccess | ScaleDown::Progressively));
    let has_pods = world.workload.as_ref().is_some_and(|workload| workload.replicas > 0);
    let is_deployment = reference.resource() == Some(DEPLOYMENT);
    reference.name.as_deref().filter(|_| is_deployment && scales && has_pods)
}

/// Changes annotations of the Rollout.
fn annotate(draft: &mut Draft<'_>, annotations: Value, what: String) {
    let metadata = &draft.world.rollout.metadata;
    let object = Basis {
        object: draft.object(ROLLOUT, metadata.name.as_deref().unwrap_or_default()),
        uid: metadata.uid.clone().unwrap_or_default(),
        resource_version: None,
    };
    let patch = json!({ "metadata": { "annotations": annotations } });
    draft.act(Action::MergePatch { object, patch, what }, None);
}

/// Scales the Deployment that the Rollout takes over from, as `scaleDown` says. Only the first revision takes over, and those
/// that come before that is done: later the Deployment is nobody's but its user's.
pub(super) fn take_over(scene: &Scene<'_>, draft: &mut Draft<'_>, traffic: &Traffic<'_>) {
    let Some(object) = referent(scene.rollout).filter(|object| object.resource == DEPLOYMENT) else { return };
    let Some(workload) = &scene.world.workload else { return };
    let mode = scene.rollout.spec.workload_ref.as_ref().and_then(|reference| reference.scale_down());
    let noted = scene.rollout.metadata.annotations.as_ref().and_then(|all| all.get(TAKES_OVER));
    let takes_over = noted == Some(&object.name);
    if workload.replicas == 0 {
        if noted.is_some() {
            annotate(draft, json!({ (TAKES_OVER): null }), format!("{object} is taken over"));
        }
        return;
    }
    if scene.revisions.number() != 1 && !takes_over {
        return;
    }
    let keeps = guard::workload_keeps(scene.world, &scene.revisions, traffic, workload.replicas);
    let promoted = scene.is_promoted(scene.observed);
    let to = match mode {
        Some(ScaleDown::OnSuccess) if promoted => keeps.pods.min(workload.replicas),
        // Pods that the Rollout has lost again come back here, as long as it has not taken over.
        Some(ScaleDown::Progressively) if promoted => keeps.pods.min(workload.replicas),
        Some(ScaleDown::Progressively) => keeps.pods,
        Some(ScaleDown::OnSuccess | ScaleDown::Never) | None => return,
    };
    if let Some(until) = keeps.until {
        draft.wake_at(until);
    }
    if to == workload.replicas {
        return;
    }
    draft.because(format!("scale {object} from {} to {to}", workload.replicas));
    let basis = Basis { object, uid: workload.uid.clone(), resource_version: Some(workload.resource_version.clone()) };
    let action = Action::Scale { replica_set: basis, from: workload.replicas, to, annotations: Default::default() };
    let confirm = if to < workload.replicas { keeps.confirm } else { Vec::new() };
    draft.act(action.confirmed(confirm), None);
}
