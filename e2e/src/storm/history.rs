//! What was written to the objects of the storm's Rollouts, in the order of etcd.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::Value;

use super::fleet::{self, Kind};

/// The annotation of ingress-nginx that says how much a canary Ingress takes.
const CANARY_WEIGHT: &str = "nginx.ingress.kubernetes.io/canary-weight";
const HASH: &str = "rollouts-pod-template-hash";

/// One write.
#[derive(Clone, Debug)]
pub struct Change {
    /// When it was seen in etcd, since the start of the record.
    pub at: Duration,
    /// etcd's own count of writes, which orders those to different objects.
    pub revision: u64,
    pub resource: Resource,
    pub name: String,
    /// What has become of the object; none when it is gone.
    pub object: Option<Object>,
}

/// What is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    Rollout,
    ReplicaSet,
    Service,
    Route,
    Ingress,
    EndpointSlice,
    Pod,
}

/// An object, reduced to what is judged.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    Rollout(Rollout),
    ReplicaSet(ReplicaSet),
    /// The pod template hash that the Service selects, if it selects one.
    Service(Option<String>),
    /// The weight of each Service.
    Route(BTreeMap<String, i64>),
    /// The weight of a canary Ingress; none for that of the user.
    Ingress(Option<i64>),
    EndpointSlice(Endpoints),
    Pod(Pod),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rollout {
    pub generation: i64,
    pub observed: i64,
    pub phase: String,
    pub stable: String,
    pub current: String,
    pub aborted: bool,
    pub message: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplicaSet {
    pub hash: String,
    /// `spec.replicas`
    pub replicas: i64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Endpoints {
    pub service: String,
    pub ready: usize,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    pub hash: String,
    /// Ready, and not being deleted.
    pub ready: bool,
}

impl Resource {
    /// Where the API server keeps the objects of each kind.
    pub const PREFIXES: [(&str, Self); 7] = [
        ("/registry/argoproj.io/rollouts/", Self::Rollout),
        ("/registry/replicasets/", Self::ReplicaSet),
        ("/registry/services/specs/", Self::Service),
        ("/registry/gateway.networking.k8s.io/httproutes/", Self::Route),
        ("/registry/ingress/", Self::Ingress),
        ("/registry/endpointslices/", Self::EndpointSlice),
        ("/registry/pods/", Self::Pod),
    ];

    /// What is judged of an object of this kind.
    pub fn reduce(self, object: &Value) -> Object {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let hash = || text(&object["metadata"]["labels"][HASH]);
        let status = &object["status"];
        match self {
            Self::Rollout => Object::Rollout(Rollout {
                generation: object["metadata"]["generation"].as_i64().unwrap_or(0),
                observed: status["observedGeneration"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0),
                phase: text(&status["phase"]),
                stable: text(&status["stableRS"]),
                current: text(&status["currentPodHash"]),
                aborted: status["abort"] == true,
                message: text(&status["message"]),
            }),
            Self::ReplicaSet => Object::ReplicaSet(ReplicaSet {
                hash: hash(),
                replicas: object["spec"]["replicas"].as_i64().unwrap_or(1),
            }),
            Self::Service => Object::Service(object["spec"]["selector"][HASH].as_str().map(str::to_owned)),
            Self::Route => {
                let backends = object["spec"]["rules"][0]["backendRefs"].as_array().into_iter().flatten();
                let weights = backends.map(|one| (text(&one["name"]), one["weight"].as_i64().unwrap_or(1)));
                Object::Route(weights.collect())
            }
            Self::Ingress => {
                let weight = object["metadata"]["annotations"][CANARY_WEIGHT].as_str();
                Object::Ingress(weight.and_then(|text| text.parse().ok()))
            }
            Self::EndpointSlice => {
                let endpoints = object["endpoints"].as_array().into_iter().flatten();
                Object::EndpointSlice(Endpoints {
                    service: text(&object["metadata"]["labels"]["kubernetes.io/service-name"]),
                    ready: endpoints.filter(|one| one["conditions"]["ready"] == true).count(),
                })
            }
            Self::Pod => {
                let mut conditions = status["conditions"].as_array().into_iter().flatten();
                let ready = conditions.any(|one| one["type"] == "Ready" && one["status"] == "True");
                Object::Pod(Pod { hash: hash(), ready: ready && object["metadata"]["deletionTimestamp"].is_null() })
            }
        }
    }
}

impl Change {
    /// The Rollout whose object this is.
    pub fn rollout(&self) -> Option<String> {
        fleet::owner(&self.name)
    }
}

/// All objects of one Rollout at one moment.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub rollout: Option<Rollout>,
    /// By name, as are all of these.
    pub replica_sets: BTreeMap<String, ReplicaSet>,
    pub services: BTreeMap<String, Option<String>>,
    pub route: BTreeMap<String, i64>,
    pub canary_ingress: Option<i64>,
    pub endpoints: BTreeMap<String, Endpoints>,
    pub pods: BTreeMap<String, Pod>,
}

impl State {
    pub fn apply(&mut self, change: &Change) {
        let name = || change.name.clone();
        match &change.object {
            Some(Object::Rollout(rollout)) => self.rollout = Some(rollout.clone()),
            Some(Object::ReplicaSet(set)) => drop(self.replica_sets.insert(name(), set.clone())),
            Some(Object::Service(hash)) => drop(self.services.insert(name(), hash.clone())),
            Some(Object::Route(weights)) => self.route = weights.clone(),
            Some(Object::Ingress(weight)) => {
                // That of the user has none and is never changed.
                self.canary_ingress = weight.or(self.canary_ingress);
            }
            Some(Object::EndpointSlice(endpoints)) => drop(self.endpoints.insert(name(), endpoints.clone())),
            Some(Object::Pod(pod)) => drop(self.pods.insert(name(), pod.clone())),
            None => match change.resource {
                Resource::Rollout => self.rollout = None,
                Resource::ReplicaSet => drop(self.replica_sets.remove(&change.name)),
                Resource::Service => drop(self.services.remove(&change.name)),
                Resource::Route => self.route.clear(),
                Resource::Ingress => self.canary_ingress = None,
                Resource::EndpointSlice => drop(self.endpoints.remove(&change.name)),
                Resource::Pod => drop(self.pods.remove(&change.name)),
            },
        }
    }

    /// Percent of the traffic that the objects send to each pod template hash.
    pub fn weights(&self, rollout: &str) -> BTreeMap<String, i64> {
        let mut weights = BTreeMap::new();
        for (service, weight) in self.by_service(rollout) {
            if let Some(Some(hash)) = self.services.get(&service) {
                *weights.entry(hash.clone()).or_insert(0) += weight;
            }
        }
        weights
    }

    /// Percent of the traffic that the objects send to each Service.
    pub fn by_service(&self, rollout: &str) -> BTreeMap<String, i64> {
        match Kind::of(rollout) {
            Some(Kind::Nginx) => {
                let canary = self.canary_ingress.unwrap_or(0);
                BTreeMap::from([(fleet::stable(rollout), 100 - canary), (fleet::canary(rollout), canary)])
            }
            _ => self.route.clone(),
        }
    }

    /// Pods of a hash that are ready.
    pub fn ready(&self, hash: &str) -> i64 {
        count(self.pods.values().filter(|pod| pod.ready && pod.hash == hash))
    }

    /// Pods of any hash that are ready.
    pub fn all_ready(&self) -> i64 {
        count(self.pods.values().filter(|pod| pod.ready))
    }

    /// The pods that the ReplicaSets ask for, together.
    pub fn specified(&self) -> i64 {
        self.replica_sets.values().map(|set| set.replicas).sum()
    }

    /// Endpoints of a Service that are ready.
    pub fn endpoints(&self, service: &str) -> usize {
        self.endpoints.values().filter(|slice| slice.service == service).map(|slice| slice.ready).sum()
    }
}

fn count<T>(all: impl Iterator<Item = T>) -> i64 {
    i64::try_from(all.count()).unwrap_or(i64::MAX)
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:9.3} {:>6} {:?} {} ", self.at.as_secs_f64(), self.revision, self.resource, self.name)?;
        let text = |hash: &Option<String>| hash.clone().unwrap_or_else(|| "every version".to_owned());
        match &self.object {
            None => write!(f, "is gone"),
            Some(Object::Rollout(it)) => {
                let aborted = if it.aborted { ", aborted" } else { "" };
                write!(f, "{}{aborted}, stable {}, current {}: {}", it.phase, it.stable, it.current, it.message)
            }
            Some(Object::ReplicaSet(it)) => write!(f, "wants {} pods", it.replicas),
            Some(Object::Service(hash)) => write!(f, "selects {}", text(hash)),
            Some(Object::Route(weights)) => write!(f, "sends {weights:?}"),
            Some(Object::Ingress(Some(weight))) => write!(f, "takes {weight}"),
            Some(Object::Ingress(None)) => write!(f, "is the user's"),
            Some(Object::EndpointSlice(it)) => write!(f, "has {} ready endpoints", it.ready),
            Some(Object::Pod(it)) => write!(f, "{}", if it.ready { "is ready" } else { "is not ready" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn weights_follow_routes_and_selectors() {
        let mut state = State::default();
        let mut apply = |resource: Resource, name: &str, object: Value| {
            let object = Some(resource.reduce(&object));
            let (at, name) = (Duration::ZERO, name.to_owned());
            state.apply(&Change { at, revision: 1, resource, name, object });
        };
        let selects = |hash: &str| json!({"spec": {"selector": {"app": "a", HASH: hash}}});
        apply(Resource::Service, "nginx-1-stable", selects("blue"));
        apply(Resource::Service, "nginx-1-canary", selects("green"));
        apply(Resource::Ingress, "nginx-1-nginx-1-canary", json!({"metadata": {"annotations": {CANARY_WEIGHT: "30"}}}));
        apply(Resource::Ingress, "nginx-1", json!({}));
        assert_eq!(state.weights("nginx-1"), [("blue".to_owned(), 70), ("green".to_owned(), 30)].into());
    }
}
