//! What the tests of all routers have in common.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::observed::{Observed, Service};
use super::{Context, Router, RouterError, Split, Wanted};
use crate::api::Rollout;
use crate::api::resource::{
    DESTINATION_RULE, GRPC_ROUTE, HTTP_ROUTE, INGRESS, ObjectRef, Resource, TCP_ROUTE, TLS_ROUTE, VIRTUAL_SERVICE,
};
use crate::plan::Action;

/// A Rollout `shop/web` with two Services and these routers.
pub(super) fn rollout(routing: Value) -> Rollout {
    rollout_with(json!({"trafficRouting": routing}))
}

/// The same with more of the canary strategy.
pub(super) fn rollout_with(strategy: Value) -> Rollout {
    let mut rollout = json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": "web", "namespace": "shop", "uid": "rollout-uid"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"canary": {"stableService": "web-stable", "canaryService": "web-canary"}},
        },
    });
    json_patch::merge(&mut rollout["spec"]["strategy"]["canary"], &strategy);
    serde_json::from_value(rollout).unwrap()
}

/// Looks at objects, all of a kind unless they say theirs, in a namespace where an experiment has the Service `web-exp`.
pub(super) fn with<T>(rollout: &Rollout, kind: Resource, list: &[Value], f: impl FnOnce(&Context<'_>) -> T) -> T {
    let routes = list.iter().map(|object| {
        let text = |field: &str| object["metadata"][field].as_str().unwrap();
        let observed = Observed { object: Arc::new(object.clone()), since: jiff::Timestamp::UNIX_EPOCH };
        (ObjectRef::new(resource(object).unwrap_or(kind), text("namespace"), text("name")), observed)
    });
    let experiment = Service { name: "web-exp".to_owned(), ports: vec![(String::new(), 8080)], ..Service::default() };
    let experiment = Observed { object: experiment, since: jiff::Timestamp::UNIX_EPOCH };
    f(&Context {
        rollout,
        stable_service: "web-stable",
        canary_service: "web-canary",
        services: &BTreeMap::from([("web-exp".to_owned(), experiment)]),
        experiment_services: &BTreeMap::from([("web-exp".to_owned(), "x1".to_owned())]),
        routes: &routes.collect(),
    })
}

fn resource(object: &Value) -> Option<Resource> {
    let all = [INGRESS, HTTP_ROUTE, GRPC_ROUTE, TCP_ROUTE, TLS_ROUTE, VIRTUAL_SERVICE, DESTINATION_RULE];
    all.into_iter().find(|resource| object["kind"] == resource.kind)
}

/// What becomes of these objects by an edit, once the API server has carried it out.
pub(super) fn edited(
    router: &dyn Router,
    rollout: &Rollout,
    kind: Resource,
    list: &[Value],
    wanted: Wanted<'_>,
) -> Result<Vec<Value>, RouterError> {
    let actions = with(rollout, kind, list, |context| router.edit(context, wanted))?;
    let mut list = list.to_vec();
    for action in actions {
        let Action::JsonPatch { patch, object, .. } = &action else { panic!("{action}") };
        let ObjectRef { resource: of, name, .. } = &object.object;
        let is_it = |it: &&mut Value| it["metadata"]["name"] == **name && resource(it).unwrap_or(kind) == *of;
        let object = list.iter_mut().find(is_it).unwrap();
        json_patch::patch(object, patch).unwrap();
    }
    Ok(list)
}

/// Some weight for an experiment beside the canary.
pub(super) fn with_experiment(canary: i32, experiment: i32) -> Split {
    Split::new(canary, 100).with_additional(BTreeMap::from([("web-exp".to_owned(), experiment)]))
}
