//! Which objects a Rollout, an Experiment or a template refers to.

use std::collections::BTreeSet;

use kube::core::Selector;

use crate::api::analysis::AnalysisTemplateSpec;
use crate::api::names;
use crate::api::resource::{self, ObjectRef, Resource};
use crate::api::steps::TemplateRef;
use crate::api::{Experiment, Rollout};
use crate::rollout::workload;
use crate::traffic;

/// What an object refers to.
#[derive(Clone, Debug, Default)]
pub struct References {
    /// Named objects: Services, routes, templates.
    pub objects: BTreeSet<ObjectRef>,
    /// Kinds of routes of which a router selects some by labels in a namespace.
    pub selected: Vec<(Resource, String, Selector)>,
}

impl References {
    /// What a Rollout names itself; what its templates name is found through them.
    pub fn of_rollout(rollout: &Rollout) -> Self {
        let namespace = rollout.metadata.namespace.as_deref().unwrap_or_default();
        let mut objects: BTreeSet<ObjectRef> = rollout
            .spec
            .strategy
            .services()
            .into_iter()
            .map(|name| ObjectRef::new(resource::SERVICE, namespace, name))
            .collect();
        objects.extend(workload::referent(rollout));
        objects.extend(templates(rollout).iter().map(|reference| template(namespace, reference)));
        let mut selected = Vec::new();
        let routing = rollout.spec.strategy.traffic_routing();
        // Also routes that it names no more, as long as they are to be put back, and the Services that they lead to.
        let left = traffic::former::left(rollout);
        let services = left.iter().flat_map(|left| left.rollout.spec.strategy.services());
        objects.extend(services.map(|name| ObjectRef::new(resource::SERVICE, namespace, name)));
        let routers = routing.map(traffic::routers).unwrap_or_default();
        let needs = routers.into_iter().map(|router| router.needs(rollout));
        for needs in needs.chain(left.iter().map(traffic::former::Former::needs)) {
            objects.extend(needs.objects);
            selected.extend(needs.selected.into_iter().filter_map(|(resource, namespace, selector)| {
                // A selector that cannot be understood selects nothing; the router's own validation refuses it.
                Some((resource, namespace, Selector::try_from(selector).ok()?))
            }));
        }
        Self { objects, selected }
    }

    /// The templates of an Experiment's analyses, and the Rollout that controls it: the weights that the Rollout sees
    /// decide when pods may go.
    pub fn of_experiment(experiment: &Experiment) -> Self {
        let namespace = experiment.metadata.namespace.as_deref().unwrap_or_default();
        let analyses = experiment.spec.analyses.iter().map(|analysis| template(namespace, &analysis.template()));
        let owner = rollout_of(experiment).map(|(rollout, _)| rollout);
        Self { objects: analyses.chain(owner).collect(), selected: Vec::new() }
    }

    /// The templates that a template in this namespace names. The namespace of a ClusterAnalysisTemplate is empty, and so
    /// is then that of the namespaced templates it names: they are those of whichever Rollout uses it.
    pub fn of_template(namespace: &str, spec: &AnalysisTemplateSpec) -> Self {
        let objects = spec.templates.iter().map(|reference| template(namespace, reference)).collect();
        Self { objects, selected: Vec::new() }
    }

    /// The kinds that are watched only when something refers to them.
    pub fn kinds_on_demand(&self) -> impl Iterator<Item = Resource> + '_ {
        let named = self.objects.iter().map(|object| object.resource);
        named.chain(self.selected.iter().map(|(resource, ..)| *resource)).filter(|resource| is_on_demand(*resource))
    }
}

/// The Rollout that controls an Experiment, and its uid.
pub fn rollout_of(experiment: &Experiment) -> Option<(ObjectRef, String)> {
    let namespace = experiment.metadata.namespace.as_deref().unwrap_or_default();
    let owner = experiment.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
    let is_rollout = owner.kind == resource::ROLLOUT.kind && owner.api_version.starts_with(names::GROUP);
    is_rollout.then(|| (ObjectRef::new(resource::ROLLOUT, namespace, &owner.name), owner.uid.clone()))
}

/// Whether a kind is watched only once a Rollout refers to some of it.
pub fn is_on_demand(resource: Resource) -> bool {
    is_route(resource) || is_workload(resource)
}

/// Whether Rollouts may take their pods from objects of this kind. A cluster has many of these and Rollouts refer to few,
/// so only those are kept.
pub fn is_workload(resource: Resource) -> bool {
    matches!(resource, resource::DEPLOYMENT | resource::WORKLOAD_REPLICA_SET | resource::POD_TEMPLATE)
}

/// Whether a kind belongs to routers, so that it is watched on demand and kept as raw JSON.
pub fn is_route(resource: Resource) -> bool {
    !is_workload(resource)
        && !matches!(
            resource,
            resource::ROLLOUT
                | resource::REPLICA_SET
                | resource::SERVICE
                | resource::ANALYSIS_RUN
                | resource::ANALYSIS_TEMPLATE
                | resource::CLUSTER_ANALYSIS_TEMPLATE
                | resource::EXPERIMENT
                | resource::JOB
        )
}

/// The object that a template reference made in `namespace` means.
pub fn template(namespace: &str, reference: &TemplateRef) -> ObjectRef {
    if reference.cluster_scope {
        ObjectRef::new(resource::CLUSTER_ANALYSIS_TEMPLATE, "", &reference.template_name)
    } else {
        ObjectRef::new(resource::ANALYSIS_TEMPLATE, namespace, &reference.template_name)
    }
}

/// The templates that the strategy names.
pub fn templates(rollout: &Rollout) -> Vec<TemplateRef> {
    let mut all: Vec<TemplateRef> = Vec::new();
    if let Some(blue_green) = &rollout.spec.strategy.blue_green {
        let analyses = [&blue_green.pre_promotion_analysis, &blue_green.post_promotion_analysis];
        all.extend(analyses.into_iter().flatten().flat_map(|analysis| analysis.templates.iter().cloned()));
    }
    if let Some(canary) = &rollout.spec.strategy.canary {
        all.extend(canary.analysis.iter().flat_map(|background| background.analysis.templates.iter().cloned()));
        let steps = canary.steps.iter().filter_map(|step| step.analysis.as_ref());
        all.extend(steps.flat_map(|analysis| analysis.templates.iter().cloned()));
        let experiments = canary.steps.iter().filter_map(|step| step.experiment.as_ref());
        all.extend(experiments.flat_map(|experiment| experiment.analyses.iter().map(|analysis| analysis.template())));
    }
    all
}
