//! What is wrong between a Rollout and the objects that it names.

use crate::analysis::spec::{self, Purpose};
use crate::api::field_error::{FieldError, FieldPath};
use crate::api::names::{MANAGED_BY, POD_TEMPLATE_HASH};
use crate::api::validation;

use super::scene::Scene;
use super::traffic::Routing;
use super::world::Service;

/// The message of the `InvalidSpec` condition, if the spec or what it refers to is wrong.
pub(super) fn first_error(scene: &Scene<'_>, routing: &Routing<'_>) -> Option<String> {
    let error = validation::resolved(scene.rollout)
        .into_iter()
        .next()
        .or_else(|| services(scene))
        .or_else(|| analyses(scene))
        .or_else(|| experiments(scene))
        .or_else(|| routes(scene, routing))?;
    Some(validation::message(scene.rollout, &error))
}

fn services(scene: &Scene<'_>) -> Option<FieldError> {
    scene.services().find_map(|(path, name)| {
        let problem = match scene.world.services.get(name) {
            Some(service) => unfit(scene, &service.object)?,
            None => format!("service \"{name}\" not found"),
        };
        Some(FieldError::invalid(path, name, problem))
    })
}

fn unfit(scene: &Scene<'_>, service: &Service) -> Option<String> {
    let name = &service.name;
    if service.annotations.get(MANAGED_BY).is_some_and(|owner| !owner.is_empty() && owner != scene.name()) {
        return Some(format!("Service \"{name}\" is managed by another Rollout"));
    }
    let labels = scene.desired.template.labels();
    let (key, _) =
        service.selector.iter().find(|(key, value)| *key != POD_TEMPLATE_HASH && labels.get(*key) != Some(value))?;
    Some(format!("Service \"{name}\" has unmatch label \"{key}\" in rollout"))
}

fn analyses(scene: &Scene<'_>) -> Option<FieldError> {
    scene.analyses().find_map(|(path, placed)| spec::validate_placed(placed, &path, scene.source()).into_iter().next())
}

fn experiments(scene: &Scene<'_>) -> Option<FieldError> {
    scene.canary.experiment_analyses().into_iter().find_map(|(path, analysis)| {
        spec::validate_reference(&analysis, Purpose::Experiment, &path, scene.source()).into_iter().next()
    })
}

/// A route that is missing or does not hold the Services cannot be moved.
fn routes(scene: &Scene<'_>, routing: &Routing<'_>) -> Option<FieldError> {
    use crate::traffic::{RouterError, istio};
    let error = routing.traffic.routers.iter().find_map(|observed| observed.as_ref().err())?;
    let at = match error {
        RouterError::Missing(object) | RouterError::Unfit { object, .. } => istio::field_of(scene.rollout, object),
        RouterError::Settings { .. } => None,
    };
    let at = FieldPath::new(at.unwrap_or_else(|| "spec.strategy.canary.trafficRouting".to_owned()));
    Some(match error {
        RouterError::Missing(object) => FieldError::invalid(
            at,
            object.name.as_str(),
            format!("{} \"{}\" not found", object.resource.kind, object.name),
        ),
        RouterError::Unfit { object, problem } => FieldError::invalid(at, object.name.as_str(), problem.as_str()),
        RouterError::Settings { path, problem } => FieldError::forbidden(path, problem.as_str()),
    })
}
