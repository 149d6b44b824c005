//! Objects as they come from the API server, and what becomes of them.
//!
//! Spec and status stay text at first, so that an object that does not decode never stops the others: it becomes
//! [`Object::Unreadable`], with the path of the field that is wrong. What no decision looks at (`managedFields`, what
//! `kubectl apply` leaves, the record of the release before) is dropped before it takes memory; of `managedFields` only the
//! times are read.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use serde_path_to_error::Segment;

use crate::api::analysis::{AnalysisRun, AnalysisRunStatus, AnalysisTemplateSpec};
use crate::api::common::{Condition, LabelSelector};
use crate::api::experiment::ExperimentStatus;
use crate::api::field_error::FieldError;
use crate::api::names;
use crate::api::pod_template::PodTemplate;
use crate::api::resource::{self, ObjectRef, Resource};
use crate::api::{Experiment, Rollout};
use crate::rollout::world::{ReplicaSet, ReplicaSetStatus, Service, Workload};

/// Any object, with its spec and status still as text: decoded from there, most of it is never a tree of values.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Envelope {
    pub metadata: Meta,
    spec: Option<Box<RawValue>>,
    status: Option<Box<RawValue>>,
    /// Of a PodTemplate, which has no spec.
    template: Option<Box<RawValue>>,
}

/// The metadata that matters to us.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub resource_version: String,
    pub generation: i64,
    pub creation_timestamp: Option<Time>,
    pub deletion_timestamp: Option<Time>,
    pub labels: Option<BTreeMap<String, String>>,
    pub annotations: Option<BTreeMap<String, String>>,
    pub owner_references: Option<Vec<OwnerReference>>,
    pub managed_fields: Option<Vec<ManagedFields>>,
}

/// When one of those who write to an object last changed what is theirs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ManagedFields {
    time: Option<Time>,
    subresource: String,
}

/// An object in the form in which decisions use it.
#[derive(Clone, Debug)]
pub enum Object {
    Rollout(Arc<Rollout>),
    ReplicaSet(Arc<ReplicaSet>),
    Service(Service),
    AnalysisRun(Arc<AnalysisRun>),
    Experiment(Arc<Experiment>),
    Template(Arc<AnalysisTemplateSpec>),
    /// What a `workloadRef` may name.
    Workload(Arc<Workload>),
    /// An object of a router, as raw JSON.
    Route(Arc<Value>),
    /// Known to be there, and nothing else of it matters.
    Bare,
    Unreadable(Arc<Unreadable>),
}

/// An object that does not decode.
#[derive(Clone, Debug)]
pub struct Unreadable {
    pub error: FieldError,
    pub meta: Meta,
    /// The status as JSON: it may hold what is worth keeping.
    pub status: Value,
}

impl Object {
    /// Takes over from an earlier version of the same object what a Service selected then; and the pod template if it has not
    /// changed: with it comes what has been worked out from it, which is more work than all the rest of a decision.
    pub fn remember(&mut self, earlier: &Self) {
        match (self, earlier) {
            (Self::Rollout(now), Self::Rollout(earlier)) if now.spec.template == earlier.spec.template => {
                if let Some(now) = Arc::get_mut(now) {
                    now.spec.template.clone_from(&earlier.spec.template);
                }
            }
            (Self::ReplicaSet(now), Self::ReplicaSet(earlier)) => {
                if let Some(now) = Arc::get_mut(now) {
                    now.remember(earlier);
                }
            }
            (Self::Service(now), Self::Service(earlier)) if now.selector == earlier.selector => {
                now.selected.clone_from(&earlier.selected);
            }
            (Self::Service(now), Self::Service(earlier)) => now.selected = Some(earlier.selector.clone()),
            _ => {}
        }
    }
}

impl Meta {
    pub fn reference(&self, resource: Resource) -> ObjectRef {
        ObjectRef::new(resource, self.namespace.clone(), self.name.clone())
    }

    /// The owner that controls the object, if there is one.
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// When anything but the status last changed, as the API server has noted it in whole seconds; none when it has not.
    pub fn last_changed(&self) -> Option<Timestamp> {
        let writers = self.managed_fields.iter().flatten().filter(|writer| writer.subresource != "status");
        let times: Option<Vec<Timestamp>> = writers.map(|writer| Some(writer.time.as_ref()?.0)).collect();
        times?.into_iter().max()
    }

    fn typed(self) -> ObjectMeta {
        ObjectMeta {
            name: Some(self.name),
            namespace: (!self.namespace.is_empty()).then_some(self.namespace),
            uid: Some(self.uid),
            resource_version: Some(self.resource_version),
            generation: (self.generation != 0).then_some(self.generation),
            creation_timestamp: self.creation_timestamp,
            deletion_timestamp: self.deletion_timestamp,
            labels: self.labels,
            annotations: self.annotations,
            owner_references: self.owner_references,
            ..ObjectMeta::default()
        }
    }
}

impl Envelope {
    /// Turns the envelope into what decisions use of its kind.
    pub fn open(mut self, resource: Resource) -> Object {
        if let Some(annotations) = &mut self.metadata.annotations {
            annotations.remove(names::LAST_APPLIED);
            annotations.remove(names::RELEASE_BEFORE);
        }
        match self.decode(resource) {
            Ok(object) => object,
            Err(error) => {
                let Self { metadata: meta, status, .. } = self;
                Object::Unreadable(Arc::new(Unreadable { error, meta, status: value(status.as_deref()) }))
            }
        }
    }

    fn decode(&mut self, resource: Resource) -> Result<Object, FieldError> {
        Ok(match resource {
            resource::ROLLOUT => Object::Rollout(Arc::new(Rollout {
                spec: decoded(self.spec.as_deref(), "spec")?,
                status: optional(self.status.as_deref(), "status")?,
                metadata: self.take_meta(),
            })),
            resource::ANALYSIS_RUN => Object::AnalysisRun(Arc::new(AnalysisRun {
                spec: decoded(self.spec.as_deref(), "spec")?,
                status: optional(self.status.as_deref(), "status")?,
                metadata: self.take_meta(),
            })),
            resource::EXPERIMENT => Object::Experiment(Arc::new(Experiment {
                spec: decoded(self.spec.as_deref(), "spec")?,
                status: optional(self.status.as_deref(), "status")?,
                metadata: self.take_meta(),
            })),
            resource::ANALYSIS_TEMPLATE | resource::CLUSTER_ANALYSIS_TEMPLATE => {
                Object::Template(Arc::new(decoded(self.spec.as_deref(), "spec")?))
            }
            resource::REPLICA_SET => Object::ReplicaSet(Arc::new(self.replica_set()?)),
            resource::SERVICE => Object::Service(self.service()?),
            resource::DEPLOYMENT | resource::WORKLOAD_REPLICA_SET | resource::POD_TEMPLATE => {
                Object::Workload(Arc::new(self.workload(resource)?))
            }
            resource::JOB => Object::Bare,
            route => Object::Route(Arc::new(self.route(route))),
        })
    }

    fn take_meta(&mut self) -> ObjectMeta {
        std::mem::take(&mut self.metadata).typed()
    }

    fn replica_set(&mut self) -> Result<ReplicaSet, FieldError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Spec {
            replicas: i32,
            selector: LabelSelector,
            min_ready_seconds: i32,
            template: PodTemplate,
        }
        impl Default for Spec {
            fn default() -> Self {
                let template = PodTemplate::from(Value::Null);
                Self { replicas: 1, selector: LabelSelector::default(), min_ready_seconds: 0, template }
            }
        }
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Status {
            replicas: i32,
            ready_replicas: i32,
            available_replicas: i32,
            observed_generation: i64,
            conditions: Vec<ReplicaSetCondition>,
        }
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct ReplicaSetCondition {
            #[serde(rename = "type")]
            type_: String,
            status: String,
            last_transition_time: Option<Time>,
            reason: String,
            message: String,
        }

        let spec: Spec = decoded(self.spec.as_deref(), "spec")?;
        let status: Status = optional(self.status.as_deref(), "status")?.unwrap_or_default();
        let meta = std::mem::take(&mut self.metadata);
        let failure = status.conditions.into_iter().find(|condition| condition.type_ == "ReplicaFailure");
        Ok(ReplicaSet {
            controller: meta.controller().map(|owner| owner.uid.clone()),
            created: meta.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            deleting: meta.deletion_timestamp.is_some(),
            name: meta.name,
            uid: meta.uid,
            resource_version: meta.resource_version,
            labels: meta.labels.unwrap_or_default(),
            annotations: meta.annotations.unwrap_or_default(),
            generation: meta.generation,
            selector: spec.selector,
            min_ready_seconds: spec.min_ready_seconds,
            template: Arc::new(spec.template),
            replicas: spec.replicas,
            status: ReplicaSetStatus {
                replicas: status.replicas,
                ready: status.ready_replicas,
                available: status.available_replicas,
                observed_generation: status.observed_generation,
                least: 0,
                failure: failure.map(|condition| {
                    let time = condition.last_transition_time.unwrap_or(Time(Timestamp::UNIX_EPOCH));
                    Condition {
                        type_: condition.type_,
                        status: condition.status,
                        last_update_time: time.clone(),
                        last_transition_time: time,
                        reason: condition.reason,
                        message: condition.message,
                    }
                }),
            },
        })
    }

    fn workload(&mut self, resource: Resource) -> Result<Workload, FieldError> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Spec {
            replicas: i32,
            selector: Option<LabelSelector>,
            template: PodTemplate,
        }

        let spec = match resource {
            resource::POD_TEMPLATE => {
                Spec { template: decoded(self.template.as_deref(), "template")?, ..Spec::default() }
            }
            _ => decoded(self.spec.as_deref(), "spec")?,
        };
        let meta = std::mem::take(&mut self.metadata);
        Ok(Workload {
            uid: meta.uid,
            resource_version: meta.resource_version,
            generation: meta.generation,
            template: spec.template,
            selector: spec.selector,
            replicas: spec.replicas,
        })
    }

    fn service(&mut self) -> Result<Service, FieldError> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Spec {
            selector: Option<BTreeMap<String, String>>,
            ports: Option<Vec<Port>>,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Port {
            name: String,
            port: i32,
        }

        let spec: Spec = optional(self.spec.as_deref(), "spec")?.unwrap_or_default();
        let meta = std::mem::take(&mut self.metadata);
        Ok(Service {
            name: meta.name,
            uid: meta.uid,
            resource_version: meta.resource_version,
            annotations: meta.annotations.unwrap_or_default(),
            selector: spec.selector.unwrap_or_default(),
            selected: None,
            ports: spec.ports.unwrap_or_default().into_iter().map(|port| (port.name, port.port)).collect(),
        })
    }

    /// The whole object as JSON again, without what was dropped.
    fn route(&mut self, resource: Resource) -> Value {
        let meta = std::mem::take(&mut self.metadata).typed();
        let mut object = json!({
            "apiVersion": resource.api_version(),
            "kind": resource.kind,
            "metadata": meta,
            "spec": value(self.spec.as_deref()),
        });
        if self.status.is_some() {
            object["status"] = value(self.status.as_deref());
        }
        object
    }
}

/// An AnalysisRun that stands for one that does not decode: a run with an error, whose message says why.
pub fn failed_run(unreadable: &Unreadable) -> AnalysisRun {
    let status = AnalysisRunStatus {
        phase: crate::api::analysis::AnalysisPhase::Error,
        message: unreadable.error.to_string(),
        ..AnalysisRunStatus::default()
    };
    AnalysisRun { metadata: unreadable.meta.clone().typed(), status: Some(status), ..AnalysisRun::default() }
}

/// An Experiment that stands for one that does not decode: one with an error, whose message says why.
pub fn failed_experiment(unreadable: &Unreadable) -> Experiment {
    let status = ExperimentStatus {
        phase: crate::api::analysis::AnalysisPhase::Error,
        message: unreadable.error.to_string(),
        ..ExperimentStatus::default()
    };
    Experiment { metadata: unreadable.meta.clone().typed(), status: Some(status), ..Experiment::default() }
}

/// Decodes what is at the field `at` of an object. Unknown fields are ignored.
pub fn field<T: DeserializeOwned>(value: &Value, at: &str) -> Result<T, FieldError> {
    // Following the path costs twice the time, and objects that decode are the rule.
    T::deserialize(value).or_else(|_| serde_path_to_error::deserialize(value)).map_err(|error| {
        let mut found = Some(value);
        let mut path = at.to_owned();
        for segment in error.path() {
            let (child, text) = match segment {
                Segment::Seq { index } => (found.and_then(|value| value.get(index)), format!("[{index}]")),
                Segment::Map { key } => (found.and_then(|value| value.get(key)), format!(".{key}")),
                Segment::Enum { variant } => (found, format!(".{variant}")),
                Segment::Unknown => (found, String::new()),
            };
            found = child;
            path.push_str(&text);
        }
        FieldError::invalid(path, found.cloned().unwrap_or_default(), error.inner().to_string())
    })
}

/// Decodes the text of the field `at` of an object. What decodes, and that is the rule, never becomes a value on the way.
fn decoded<T: DeserializeOwned>(text: Option<&RawValue>, at: &str) -> Result<T, FieldError> {
    let direct = text.and_then(|text| serde_json::from_str(text.get()).ok());
    direct.map_or_else(|| field(&value(text), at), Ok)
}

/// Like [`decoded`], for a field that may be absent.
fn optional<T: DeserializeOwned>(text: Option<&RawValue>, at: &str) -> Result<Option<T>, FieldError> {
    text.map(|text| decoded(Some(text), at)).transpose()
}

fn value(text: Option<&RawValue>) -> Value {
    // The text was taken from JSON as it is.
    text.and_then(|text| serde_json::from_str(text.get()).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(value: Value) -> Envelope {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_wrong_field_is_named_with_its_value() {
        let object = envelope(json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "1", "resourceVersion": "5"},
            "spec": {"strategy": {"canary": {"steps": [{"setWeight": 20}, {"setWeight": "a lot"}]}}},
        }))
        .open(resource::ROLLOUT);
        let Object::Unreadable(unreadable) = object else { panic!("decoded: {object:?}") };
        assert_eq!(unreadable.error.path, "spec.strategy.canary.steps[1].setWeight");
        let message = unreadable.error.to_string();
        assert!(message.contains(r#"Invalid value: "a lot": invalid type: string"#), "{message}");
        assert_eq!(unreadable.meta.name, "web");
    }

    #[test]
    fn what_no_decision_reads_is_dropped() {
        let object = envelope(json!({
            "metadata": {
                "name": "web", "namespace": "shop", "uid": "1", "resourceVersion": "5",
                "annotations": {names::LAST_APPLIED: "{}", "mine": "1"},
                "managedFields": [{"manager": "kubectl"}],
            },
            "spec": {"rules": [{"anything": [1, 2, {"unknown": true}]}]},
        }))
        .open(resource::HTTP_ROUTE);
        let Object::Route(route) = object else { panic!("{object:?}") };
        assert_eq!(
            *route,
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "HTTPRoute",
                "metadata": {
                    "name": "web", "namespace": "shop", "uid": "1", "resourceVersion": "5",
                    "annotations": {"mine": "1"},
                },
                "spec": {"rules": [{"anything": [1, 2, {"unknown": true}]}]},
            })
        );
    }

    #[test]
    fn a_replica_set_keeps_what_decisions_need() {
        let object = envelope(json!({
            "metadata": {
                "name": "web-1", "namespace": "shop", "uid": "2", "resourceVersion": "7", "generation": 3,
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {names::POD_TEMPLATE_HASH: "abc"},
                "ownerReferences": [{"apiVersion": names::API_VERSION, "kind": "Rollout", "name": "web", "uid": "1", "controller": true}],
            },
            "spec": {"replicas": 4, "selector": {"matchLabels": {"app": "web"}}, "template": {"spec": {"x": 1}}},
            "status": {"replicas": 4, "readyReplicas": 3, "observedGeneration": 3,
                "conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota"}]},
        }))
        .open(resource::REPLICA_SET);
        let Object::ReplicaSet(replica_set) = object else { panic!("{object:?}") };
        assert_eq!(replica_set.hash(), "abc");
        assert_eq!(replica_set.controller.as_deref(), Some("1"));
        assert_eq!((replica_set.replicas, replica_set.status.ready, replica_set.status.available), (4, 3, 0));
        assert_eq!(replica_set.status.failure.as_ref().map(|c| c.message.as_str()), Some("quota"));
        assert_eq!(replica_set.template.to_value(), json!({"spec": {"x": 1}}));
    }

    #[test]
    fn a_size_that_is_not_reported_yet_is_remembered_as_the_smallest_since() {
        let seen = |generation: i64, replicas: i32, observed: i64, earlier: Option<&Object>| {
            let mut object = envelope(json!({
                "metadata": {"name": "web-1", "namespace": "shop", "uid": "2", "generation": generation},
                "spec": {"replicas": replicas, "selector": {}, "template": {}},
                "status": {"replicas": 2, "availableReplicas": 2, "observedGeneration": observed},
            }))
            .open(resource::REPLICA_SET);
            earlier.into_iter().for_each(|earlier| object.remember(earlier));
            object
        };
        let least = |object: &Object| match object {
            Object::ReplicaSet(replica_set) => replica_set.status.least,
            _ => panic!("{object:?}"),
        };
        let settled = seen(1, 2, 1, None);
        let grown = seen(2, 4, 1, Some(&settled));
        assert_eq!(least(&grown), 2);
        let smaller = seen(2, 1, 1, Some(&settled));
        let back = seen(3, 2, 1, Some(&smaller));
        assert_eq!((least(&smaller), least(&back)), (1, 1), "one of the two that are reported may be gone");
        let reported = seen(2, 1, 2, Some(&smaller));
        assert_eq!(least(&seen(3, 2, 2, Some(&reported))), 1, "also if it was counted before it went");
        assert_eq!(least(&seen(3, 2, 1, Some(&settled))), 0, "nobody has seen the size in between");
        assert_eq!(least(&seen(3, 2, 1, None)), 0);
    }
}
