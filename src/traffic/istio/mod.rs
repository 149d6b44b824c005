//! Istio: weights in VirtualServices, and optionally subsets of a DestinationRule instead of two Services.
//!
//! In the routes that the settings select, the canary's destination gets its weight and the stable one the rest. Every
//! other destination keeps its weight, and what it has comes off stable's share, so that a route's weights add up. Header
//! and mirror steps put routes of their own before those that are split.
//!
//! With a DestinationRule, who the canary is, is decided by the label of a subset as it is elsewhere by the selector of a
//! Service: [`destination_rule`] shows subsets as Services, so that one set of safety rules holds for both.

pub mod destination_rule;
mod virtual_service;

use serde_json::Value;

use super::{Context, Needs, ObservedSplit, Router, RouterError, Wanted};
use crate::api::Rollout;
use crate::api::resource::{DESTINATION_RULE, ObjectRef, VIRTUAL_SERVICE};
use crate::api::traffic_routing::{Istio, IstioDestinationRule, IstioVirtualService};
use crate::plan::Action;

use virtual_service::Subject;

/// The router for Istio.
pub struct IstioRouter;

impl Router for IstioRouter {
    fn name(&self) -> &'static str {
        "Istio"
    }

    fn needs(&self, rollout: &Rollout) -> Needs {
        let mut objects: Vec<ObjectRef> =
            virtual_services(rollout).into_iter().map(|(reference, _)| reference).collect();
        objects.extend(destination_rule::reference(rollout));
        Needs { objects, selected: Vec::new() }
    }

    fn observe(&self, context: &Context<'_>, total: i32) -> Result<ObservedSplit, RouterError> {
        destination_rule::check(context)?;
        let mut observed = ObservedSplit::none(total);
        for (reference, settings) in virtual_services(context.rollout) {
            subject(context, &reference, settings)?.observe(&mut observed)?;
        }
        Ok(observed)
    }

    fn edit(&self, context: &Context<'_>, wanted: Wanted<'_>) -> Result<Vec<Action>, RouterError> {
        let mut actions = Vec::new();
        let mut first_error = destination_rule::check(context).err();
        for (reference, settings) in virtual_services(context.rollout) {
            let edit = subject(context, &reference, settings).and_then(|subject| subject.edit(wanted));
            match edit {
                Ok(edit) => actions.extend(edit),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        let subsets = wanted.split.filter(|_| first_error.is_none());
        actions.extend(subsets.and_then(|split| destination_rule::experiments(context, split)));
        // One that is missing or unfit must not keep an abort from the others.
        match first_error {
            Some(error) if actions.is_empty() => Err(error),
            _ => Ok(actions),
        }
    }
}

/// Where in a Rollout an object of Istio is named.
pub fn field_of(rollout: &Rollout, object: &ObjectRef) -> Option<String> {
    let istio = settings(rollout)?;
    let field = match object.resource {
        DESTINATION_RULE => "destinationRule.name".to_owned(),
        VIRTUAL_SERVICE if istio.virtual_service.is_some() => "virtualService.name".to_owned(),
        VIRTUAL_SERVICE => {
            let index = istio.virtual_services.iter().position(|one| reference(rollout, &one.name) == *object)?;
            format!("virtualServices[{index}].name")
        }
        _ => return None,
    };
    Some(format!("spec.strategy.canary.trafficRouting.istio.{field}"))
}

fn settings(rollout: &Rollout) -> Option<&Istio> {
    rollout.spec.strategy.traffic_routing()?.istio.as_ref()
}

fn rule(rollout: &Rollout) -> Option<&IstioDestinationRule> {
    settings(rollout)?.destination_rule.as_ref()
}

fn namespace(rollout: &Rollout) -> &str {
    rollout.metadata.namespace.as_deref().unwrap_or_default()
}

/// The VirtualServices that the settings name, in either field.
fn virtual_services(rollout: &Rollout) -> Vec<(ObjectRef, &IstioVirtualService)> {
    let Some(istio) = settings(rollout) else { return Vec::new() };
    let all = istio.virtual_service.iter().chain(&istio.virtual_services);
    all.map(|one| (reference(rollout, &one.name), one)).collect()
}

/// `NAME`, `NAME.NAMESPACE` or `NAME.NAMESPACE.svc.DOMAIN`.
fn reference(rollout: &Rollout, name: &str) -> ObjectRef {
    let mut parts = name.split('.');
    let name = parts.next().unwrap_or_default();
    let namespace = parts.next().filter(|part| !part.is_empty()).unwrap_or(namespace(rollout));
    ObjectRef::new(VIRTUAL_SERVICE, namespace, name)
}

fn subject<'a>(
    context: &'a Context<'_>,
    reference: &'a ObjectRef,
    settings: &'a IstioVirtualService,
) -> Result<Subject<'a>, RouterError> {
    let observed = context.routes.get(reference).ok_or_else(|| RouterError::Missing(reference.clone()))?;
    Ok(Subject::new(context, reference, settings, &observed.object))
}

/// Whose a destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Party<'a> {
    Canary,
    Stable,
    /// A Service of an experiment.
    Experiment(&'a str),
    /// Somebody else's, `additionalSubsetNames` among them: its weight stays.
    Foreign,
}

fn party<'a>(context: &'a Context<'_>, destination: &Value) -> Party<'a> {
    let destination = &destination["destination"];
    let host = destination["host"].as_str().unwrap_or_default();
    let is = |service: &str| !service.is_empty() && is_host(host, service, namespace(context.rollout));
    if let Some(experiment) = context.experiment_services.keys().find(|service| is(service)) {
        return Party::Experiment(experiment);
    }
    if let Some(rule) = rule(context.rollout) {
        return match destination["subset"].as_str() {
            Some(subset) if subset == rule.canary_subset_name => Party::Canary,
            Some(subset) if subset == rule.stable_subset_name => Party::Stable,
            _ => Party::Foreign,
        };
    }
    if is(context.canary_service) {
        Party::Canary
    } else if is(context.stable_service) {
        Party::Stable
    } else {
        Party::Foreign
    }
}

/// Whether a host is a Service of this namespace: its name alone, or with the namespace, or with the domain as well.
fn is_host(host: &str, service: &str, namespace: &str) -> bool {
    let mut parts = host.split('.');
    parts.next() == Some(service) && parts.next().is_none_or(|part| part == namespace)
}

#[cfg(test)]
mod tests;
