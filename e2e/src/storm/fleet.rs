//! The Rollouts of the storm, and what they need. Everything that belongs to a Rollout has its name at the front.

use anyhow::Result;
use kube::Client;
use serde_json::{Value, json};

use crate::apply;
use crate::gateway::{GATEWAY_NAME, GATEWAY_NAMESPACE};

/// The namespace of all of them.
pub const NAMESPACE: &str = "storm";
/// Pods that each Rollout wants, how many may be missing, and how many a Rollout without traffic routing may have beyond.
pub const REPLICAS: i64 = 4;
pub const UNAVAILABLE: i64 = 1;
pub const SURGE: i64 = 1;
const PORT: u16 = 8080;

/// How a Rollout releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A canary behind an HTTPRoute.
    Gateway,
    /// The same, with a stable version that shrinks as the canary grows.
    Dynamic,
    /// A canary by the objects of ingress-nginx, which nobody serves here.
    Nginx,
    /// Blue-green, its active Service behind an HTTPRoute.
    BlueGreen,
    /// A canary without traffic routing.
    Basic,
}

/// How many there are of each kind: twenty.
pub const FLEET: [(Kind, usize); 5] =
    [(Kind::Gateway, 6), (Kind::Dynamic, 2), (Kind::Nginx, 5), (Kind::BlueGreen, 5), (Kind::Basic, 2)];

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Dynamic => "dynamic",
            Self::Nginx => "nginx",
            Self::BlueGreen => "bluegreen",
            Self::Basic => "basic",
        }
    }

    /// The kind of the Rollout of this name.
    pub fn of(rollout: &str) -> Option<Self> {
        let (word, _) = rollout.split_once('-')?;
        FLEET.iter().map(|(kind, _)| *kind).find(|kind| kind.word() == word)
    }

    /// Whether the gateway leads requests to it.
    pub fn is_served(self) -> bool {
        matches!(self, Self::Gateway | Self::Dynamic | Self::BlueGreen)
    }
}

/// The names of all Rollouts.
pub fn names() -> Vec<String> {
    let numbered = |(kind, count): (Kind, usize)| (1..=count).map(move |number| format!("{}-{number}", kind.word()));
    FLEET.into_iter().flat_map(numbered).collect()
}

/// The Rollout to which an object of this name belongs.
pub fn owner(name: &str) -> Option<String> {
    let mut words = name.splitn(3, '-');
    let rollout = format!("{}-{}", words.next()?, words.next()?);
    Kind::of(&rollout).map(|_| rollout)
}

/// The Service of the trusted version; for blue-green the active one.
pub fn stable(rollout: &str) -> String {
    format!("{rollout}-stable")
}

/// The Service of the version on trial; for blue-green the preview.
pub fn canary(rollout: &str) -> String {
    format!("{rollout}-canary")
}

/// The host by which the gateway knows a Rollout.
pub fn host(rollout: &str) -> String {
    format!("{rollout}.example")
}

/// Makes everything, in its first version.
///
/// # Errors
/// The API server refuses something.
pub async fn deploy(client: &Client) -> Result<()> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    apply::object(client, "", namespace).await?;
    for name in names() {
        for object in objects(&name) {
            apply::object(client, NAMESPACE, object).await?;
        }
    }
    Ok(())
}

/// The container of a version.
pub fn container(version: u32, ready_after: &str) -> Value {
    json!({
        "name": "web", "image": format!("example/web:v{version}"), "ports": [{"containerPort": PORT}],
        "env": [{"name": "READY_AFTER_MS", "value": ready_after}],
    })
}

fn objects(name: &str) -> Vec<Value> {
    // Every name has a kind.
    let kind = Kind::of(name).unwrap_or(Kind::Basic);
    let mut objects = Vec::new();
    if kind != Kind::Basic {
        objects.extend([service(name, &stable(name)), service(name, &canary(name))]);
    }
    match kind {
        Kind::Gateway | Kind::Dynamic => {
            objects.push(route(name, json!([backend(&stable(name), 100), backend(&canary(name), 0)])));
        }
        Kind::BlueGreen => objects.push(route(name, json!([backend(&stable(name), 100)]))),
        Kind::Nginx => objects.push(ingress(name)),
        Kind::Basic => {}
    }
    let labels = json!({"app": name});
    let container = container(1, "200");
    objects.push(json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": name},
        "spec": {
            "replicas": REPLICAS,
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": 20,
            "progressDeadlineAbort": kind == Kind::Nginx,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            "strategy": strategy(name, kind),
        },
    }));
    objects
}

fn strategy(name: &str, kind: Kind) -> Value {
    let pause = |seconds: u32| json!({"pause": {"duration": seconds}});
    let mut canary = json!({
        "maxUnavailable": UNAVAILABLE,
        "maxSurge": SURGE,
        "steps": [{"setWeight": 25}, pause(2), {"setWeight": 50}, pause(3), {"setWeight": 75}, pause(1)],
    });
    let routed = json!({
        "stableService": stable(name), "canaryService": self::canary(name), "abortScaleDownDelaySeconds": 8,
        "dynamicStableScale": kind == Kind::Dynamic,
        "trafficRouting": match kind {
            Kind::Nginx => json!({"nginx": {"stableIngress": name}}),
            _ => json!({"gatewayAPI": {"httpRoute": name}}),
        },
    });
    match kind {
        Kind::BlueGreen => {
            return json!({"blueGreen": {
                "activeService": stable(name), "previewService": self::canary(name),
                "autoPromotionSeconds": 3, "scaleDownDelaySeconds": 12, "abortScaleDownDelaySeconds": 8,
            }});
        }
        Kind::Basic => {}
        Kind::Gateway | Kind::Dynamic | Kind::Nginx => {
            if let (Some(canary), Value::Object(routed)) = (canary.as_object_mut(), routed) {
                canary.extend(routed);
                if kind == Kind::Nginx {
                    canary.insert("scaleDownDelaySeconds".to_owned(), json!(6));
                }
            }
        }
    }
    json!({"canary": canary})
}

fn service(rollout: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": rollout}, "ports": [{"port": PORT}]},
    })
}

fn backend(service: &str, weight: u32) -> Value {
    json!({"name": service, "port": PORT, "weight": weight})
}

fn route(name: &str, backends: Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": name},
        "spec": {
            "parentRefs": [{"name": GATEWAY_NAME, "namespace": GATEWAY_NAMESPACE}],
            "hostnames": [host(name)],
            "rules": [{"backendRefs": backends}],
        },
    })
}

fn ingress(name: &str) -> Value {
    let backend = json!({"service": {"name": stable(name), "port": {"number": PORT}}});
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name},
        "spec": {
            "ingressClassName": "nginx",
            "rules": [{"host": host(name), "http": {"paths": [
                {"path": "/", "pathType": "Prefix", "backend": backend},
            ]}}],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_rollout_and_its_kind() {
        assert_eq!(names().len(), 20);
        assert_eq!(owner("gateway-3-7d4b9c-x2x4p").as_deref(), Some("gateway-3"));
        assert_eq!(owner("nginx-1-nginx-1-canary").as_deref(), Some("nginx-1"));
        assert_eq!(owner("kube-root-ca.crt"), None);
        assert_eq!(Kind::of("bluegreen-2"), Some(Kind::BlueGreen));
    }
}
