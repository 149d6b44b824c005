//! Building the World of a decision from the index.

use std::sync::Arc;

use jiff::Timestamp;
use kube::core::Selector;

use crate::api::resource::{self, ObjectRef};
use crate::api::steps::TemplateRef;
use crate::plan::Failure;
use crate::rollout::World;
use crate::rollout::world::{Routes, Settings, Templates};

use super::envelope::{Object, Unreadable, failed_experiment, failed_run};
use super::index::{Index, Knowledge, selector_of};
use super::references::{self, is_route, is_workload};

/// What there is to decide about a Rollout.
pub enum View {
    /// It does not exist.
    Gone,
    /// Something that it refers to has not been listed yet.
    Waiting(String),
    Unreadable(Arc<Unreadable>),
    Ready(Box<World>),
}

/// The World of a Rollout as the index shows it.
pub fn view(index: &Index, reference: &ObjectRef, now: Timestamp, failures: Vec<Failure>, settings: &Settings) -> View {
    let Some(entry) = index.entry_of(reference) else { return View::Gone };
    let rollout = match &entry.object {
        Object::Rollout(rollout) => rollout.clone(),
        Object::Unreadable(unreadable) => return View::Unreadable(unreadable.clone()),
        _ => return View::Gone,
    };
    let mut world = World {
        now,
        pods: None,
        workload: None,
        replica_sets: Vec::new(),
        services: Default::default(),
        routes: Routes::new(),
        gone: Default::default(),
        analysis_runs: Vec::new(),
        experiments: Vec::new(),
        templates: templates(index, &references::templates(&rollout), &reference.namespace),
        failures,
        settings: settings.clone(),
        rollout,
    };
    if let Some(references) = index.references(reference) {
        for object in &references.objects {
            world.gone.extend(index.gone(object).map(|at| (object.clone(), at)));
            if object.resource == resource::SERVICE && object.namespace == reference.namespace {
                world.services.extend(index.service(object).map(|service| (object.name.clone(), service)));
            } else if is_workload(object.resource) {
                if let Some(waiting) = unlisted(index, object.resource) {
                    return waiting;
                }
                world.workload = index.workload(object);
            } else if is_route(object.resource) {
                if let Some(waiting) = unlisted(index, object.resource) {
                    return waiting;
                }
                world.routes.extend(index.route(object).map(|route| (object.clone(), route)));
            }
        }
        for (resource, namespace, selector) in &references.selected {
            if let Some(waiting) = unlisted(index, *resource) {
                return waiting;
            }
            let routes = index.selected_routes(*resource, namespace, selector);
            world.routes.extend(routes.map(|(object, route)| (object.clone(), route)));
            let gone = index.gone_routes(*resource, namespace, selector);
            world.gone.extend(gone.map(|(object, at)| (object.clone(), at)));
        }
    }
    let managed = index.managed(reference).filter_map(|(managed, _)| index.service(managed));
    world.services.extend(managed.map(|service| (service.object.name.clone(), service)));
    let uid = entry.uid.as_str();
    for child in index.controlled(uid, resource::REPLICA_SET) {
        if let Object::ReplicaSet(replica_set) = &child.object {
            world.replica_sets.push(replica_set.as_ref().clone());
        }
    }
    let of_workload = || Selector::try_from(world.workload.as_ref()?.selector.clone()?).ok();
    if let Some(selector) = selector_of(&world.rollout).or_else(of_workload) {
        let orphans = index.orphans(&reference.namespace, &selector);
        world.replica_sets.extend(orphans.map(|orphan| orphan.as_ref().clone()));
    }
    world.replica_sets.sort_by(|one, other| one.name.cmp(&other.name));
    for child in index.controlled(uid, resource::ANALYSIS_RUN) {
        match &child.object {
            Object::AnalysisRun(run) => world.analysis_runs.push(run.clone()),
            Object::Unreadable(unreadable) => world.analysis_runs.push(Arc::new(failed_run(unreadable))),
            _ => {}
        }
    }
    for child in index.controlled(uid, resource::EXPERIMENT) {
        match &child.object {
            Object::Experiment(experiment) => {
                let templates = experiment.status.iter().flat_map(|status| &status.template_statuses);
                for name in templates.map(|template| &template.service_name).filter(|name| !name.is_empty()) {
                    let service = ObjectRef::new(resource::SERVICE, &reference.namespace, name);
                    world.services.extend(index.service(&service).map(|service| (name.clone(), service)));
                }
                world.experiments.push(experiment.clone());
            }
            Object::Unreadable(unreadable) => world.experiments.push(Arc::new(failed_experiment(unreadable))),
            _ => {}
        }
    }
    View::Ready(Box::new(world))
}

fn unlisted(index: &Index, resource: resource::Resource) -> Option<View> {
    let unknown = matches!(index.knowledge(resource), Knowledge::Unwatched | Knowledge::Syncing);
    unknown.then(|| View::Waiting(format!("{} have not been listed yet", resource.plural)))
}

/// All templates that something in this namespace names, and those that they name.
pub fn templates(index: &Index, named: &[TemplateRef], namespace: &str) -> Templates {
    let mut found = Templates::default();
    let mut open: Vec<ObjectRef> = named.iter().map(|named| references::template(namespace, named)).collect();
    while let Some(reference) = open.pop() {
        let Some(Object::Template(spec)) = index.entry_of(&reference).map(|entry| &entry.object) else { continue };
        let map = if reference.namespace.is_empty() { &mut found.cluster } else { &mut found.namespaced };
        if map.insert(reference.name, spec.clone()).is_none() {
            open.extend(spec.templates.iter().map(|named| references::template(namespace, named)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::api::names;
    use crate::api::resource::Resource;

    use super::*;

    fn see(index: &mut Index, resource: Resource, mut object: Value) {
        let metadata = &mut object["metadata"];
        metadata["uid"] = metadata["name"].clone();
        metadata["resourceVersion"] = "1".into();
        if resource != resource::CLUSTER_ANALYSIS_TEMPLATE {
            metadata["namespace"] = "shop".into();
        }
        index.apply(resource, serde_json::from_value(object).unwrap(), Timestamp::UNIX_EPOCH);
    }

    fn ready(view: View) -> World {
        match view {
            View::Ready(world) => *world,
            View::Gone => panic!("gone"),
            View::Waiting(why) => panic!("waiting: {why}"),
            View::Unreadable(unreadable) => panic!("unreadable: {}", unreadable.error),
        }
    }

    #[test]
    fn a_world_holds_what_belongs_to_the_rollout_and_nothing_else() {
        let mut index = Index::default();
        let web = ObjectRef::new(resource::ROLLOUT, "shop", "web");
        see(
            &mut index,
            resource::ROLLOUT,
            json!({"metadata": {"name": "web"}, "spec": {
                "selector": {"matchLabels": {"app": "web"}},
                "strategy": {"canary": {
                    "stableService": "web-stable", "canaryService": "web-canary",
                    "steps": [{"analysis": {"templates": [{"templateName": "errors", "clusterScope": true}]}}],
                }},
            }}),
        );
        let owner = |kind: &str, name: &str| json!([{"apiVersion": "argoproj.io/v1alpha1", "kind": kind, "name": name, "uid": name, "controller": true}]);
        for name in ["web-stable", "other"] {
            see(
                &mut index,
                resource::SERVICE,
                json!({"metadata": {"name": name}, "spec": {"selector": {"app": name}}}),
            );
        }
        let mark = json!({names::MANAGED_BY: "web"});
        see(
            &mut index,
            resource::SERVICE,
            json!({"metadata": {"name": "web-former", "annotations": mark}, "spec": {}}),
        );
        for (name, owners, app) in [
            ("web-2", owner("Rollout", "web"), "web"),
            ("web-1", json!([]), "web"),
            ("other-1", owner("Rollout", "other"), "web"),
            ("other-2", owner("Deployment", "other"), "web"),
            ("stray", json!([]), "other"),
        ] {
            let metadata = json!({"name": name, "ownerReferences": owners, "labels": {"app": app}});
            see(&mut index, resource::REPLICA_SET, json!({"metadata": metadata, "spec": {}}));
        }
        see(
            &mut index,
            resource::ANALYSIS_RUN,
            json!({
                "metadata": {"name": "web-2-1", "ownerReferences": owner("Rollout", "web")},
                "spec": {"metrics": "none"},
            }),
        );
        see(
            &mut index,
            resource::CLUSTER_ANALYSIS_TEMPLATE,
            json!({
                "metadata": {"name": "errors"}, "spec": {"templates": [{"templateName": "inner"}]},
            }),
        );
        see(&mut index, resource::ANALYSIS_TEMPLATE, json!({"metadata": {"name": "inner"}, "spec": {}}));

        let world = ready(view(&index, &web, Timestamp::UNIX_EPOCH, Vec::new(), &Settings::default()));
        let names: Vec<&str> = world.replica_sets.iter().map(|replica_set| replica_set.name.as_str()).collect();
        assert_eq!(names, ["web-1", "web-2"]);
        let services: Vec<_> = world.services.keys().collect();
        assert_eq!(services, ["web-former", "web-stable"], "also one that is named no more");
        assert_eq!(world.templates.cluster.keys().collect::<Vec<_>>(), ["errors"]);
        assert_eq!(world.templates.namespaced.keys().collect::<Vec<_>>(), ["inner"]);
        let status = world.analysis_runs[0].status.as_ref().unwrap();
        assert_eq!(status.phase.as_str(), "Error");
        assert!(status.message.starts_with("spec.metrics: Invalid value: \"none\""), "{}", status.message);

        let other = ObjectRef::new(resource::ROLLOUT, "shop", "other");
        assert!(matches!(view(&index, &other, Timestamp::UNIX_EPOCH, Vec::new(), &Settings::default()), View::Gone));
    }
}
