//! The cluster of the demo: what is on it, what is done to it, and what can be seen of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::names;
use crate::clock::Clock;
use crate::sandbox::prometheus::PrometheusServing;
use crate::sandbox::traffic::{self, Counts, Load, Target};
use crate::sandbox::workloads::Behaviour;
use crate::sandbox::{Cluster, Patch};

use super::before;
use super::view::{Measured, Picture, Version};

const NAME: &str = "web-app";
const NAMESPACE: &str = "default";
const HOST: &str = "shop.example";
const MANIFEST: &str = include_str!("manifest.yaml");

/// The cluster with the Rollout on it.
pub struct Stage {
    pub cluster: Cluster,
    pub clock: Clock,
    /// Keeps Prometheus listening.
    _prometheus: PrometheusServing,
}

impl Stage {
    pub async fn set(clock: Clock) -> anyhow::Result<Self> {
        let tick = Duration::from_millis(250);
        let settings = traffic::Settings { tick, ..traffic::Settings::default() };
        let cluster = Cluster::builder().clock(clock.clone()).traffic(settings).start();
        let loopback: SocketAddr = ([127, 0, 0, 1], 0).into();
        let prometheus = cluster.prometheus().serve(loopback).await?;
        cluster.apply(&MANIFEST.replace("PROMETHEUS", &prometheus.url()))?;
        Ok(Self { cluster, clock, _prometheus: prometheus })
    }

    pub fn send(&self, rate: f64) {
        self.cluster.send("users", Load { target: Target::host(HOST), rate });
    }

    /// Makes the pods of an image fail a share of their requests.
    pub fn misbehave(&self, image: &str, error_rate: f64) {
        let behaviour = self.cluster.default_behaviour();
        self.cluster.set_image(image, Behaviour { error_rate, ..behaviour });
    }

    pub fn set_image(&self, image: &str) -> anyhow::Result<()> {
        let patch = json!({"spec": {"template": {"spec": {"containers": [
            {"name": NAME, "image": image, "ports": [{"name": "http", "containerPort": 8080}]}
        ]}}}});
        self.cluster.user().patch("rollouts.argoproj.io", NAMESPACE, NAME, &Patch::Merge(patch))?;
        Ok(())
    }

    fn rollout(&self) -> Arc<Value> {
        self.cluster.user().get("rollouts.argoproj.io", NAMESPACE, NAME).unwrap_or_default()
    }

    /// Phase and message.
    pub fn phase(&self) -> String {
        let rollout = self.rollout();
        let text = |field: &str| rollout["status"][field].as_str().unwrap_or_default().to_owned();
        let (phase, message) = (text("phase"), text("message"));
        if message.is_empty() { phase } else { format!("{phase} - {message}") }
    }

    pub fn is_healthy(&self) -> bool {
        let rollout = self.rollout();
        let generation = rollout["metadata"]["generation"].to_string();
        rollout["status"]["observedGeneration"] == generation.as_str() && rollout["status"]["phase"] == "Healthy"
    }

    pub fn is_rolled_back(&self) -> bool {
        self.rollout()["status"]["abort"] == true && self.canary_share() == 0.0
    }

    /// Why the last release was aborted, in the words of its analysis.
    pub fn verdict(&self) -> Option<String> {
        let runs = self.cluster.user().list("analysisruns.argoproj.io", NAMESPACE);
        let failed = runs.iter().rev().find(|run| run["status"]["phase"] == "Failed")?;
        let message = failed["status"]["message"].as_str()?;
        let measurements = failed["status"]["metricResults"][0]["measurements"].as_array();
        let values = measurements.into_iter().flatten().filter(|measurement| measurement["phase"] == "Failed");
        let values =
            values.filter_map(|measurement| measurement["value"].as_str()?.trim_matches(['[', ']']).parse().ok());
        let values: Vec<String> = values.map(|value: f64| format!("{value:.3}")).collect();
        Some(format!("{message} (measured: {})", values.join(", ")))
    }

    pub fn counts(&self, from: Timestamp, to: Timestamp) -> Counts {
        self.cluster.requests(|record| record.between(from, to).into_iter().map(|answered| answered.counts).sum())
    }

    /// The share of the canary Service as the gateway makes it, 0..=1.
    fn canary_share(&self) -> f64 {
        self.shares().get("web-app-canary").copied().unwrap_or(0.0)
    }

    /// The share of each Service as the gateway makes it, 0..=1.
    fn shares(&self) -> BTreeMap<String, f64> {
        let split = self.cluster.split(&Target::host(HOST));
        split.into_iter().map(|(destination, share)| (destination.service.name, share)).collect()
    }

    /// The share of the traffic that reaches the pods of a hash: that of all Services which select them.
    fn weight(&self, hash: &str) -> f64 {
        let selects = |service: &str| {
            let service = self.cluster.user().get("services", NAMESPACE, service).unwrap_or_default();
            let selected = &service["spec"]["selector"][names::POD_TEMPLATE_HASH];
            selected.is_null() || *selected == hash
        };
        self.shares()
            .into_iter()
            .filter(|(service, _)| selects(service))
            .map(|(_, share)| share)
            .fold(0.0, |sum, share| sum + share)
    }

    /// All that the view shows.
    pub fn picture(&self) -> Picture {
        let rollout = self.rollout();
        let status = &rollout["status"];
        let now = self.clock.now();
        let stable = status["stableRS"].as_str().unwrap_or_default();
        let current = status["currentPodHash"].as_str().unwrap_or_default();
        let mut requests: BTreeMap<String, Counts> = BTreeMap::new();
        self.cluster.requests(|record| {
            for answered in record.between(before(now), now) {
                *requests.entry(answered.hash.clone()).or_default() += answered.counts;
            }
        });
        let replica_sets = self.cluster.user().list("replicasets.apps", NAMESPACE);
        let mut versions: Vec<Version> = replica_sets
            .iter()
            .filter_map(|replica_set| {
                let hash = replica_set["metadata"]["labels"][names::POD_TEMPLATE_HASH].as_str()?;
                let wanted = replica_set["spec"]["replicas"].as_i64().unwrap_or(0);
                let there = replica_set["status"]["replicas"].as_i64().unwrap_or(0);
                let counts = requests.get(hash).copied().unwrap_or_default();
                if wanted == 0 && there == 0 && counts.requests() == 0 {
                    return None;
                }
                let image = replica_set["spec"]["template"]["spec"]["containers"][0]["image"].as_str()?;
                let role = match hash {
                    hash if hash == stable => "stable",
                    hash if hash == current => "canary",
                    _ => "old",
                };
                Some(Version {
                    name: image.rsplit(':').next().unwrap_or(image).to_owned(),
                    role,
                    ready: replica_set["status"]["readyReplicas"].as_i64().unwrap_or(0),
                    pods: wanted.max(there),
                    weight: self.weight(hash),
                    rate: counts.requests() as f64 / 2.0,
                    errors: counts.error_rate(),
                })
            })
            .collect();
        versions.sort_by(|a, b| a.name.cmp(&b.name));
        Picture {
            now,
            phase: status["phase"].as_str().unwrap_or("Progressing").to_owned(),
            message: status["message"].as_str().unwrap_or_default().to_owned(),
            step: status["currentStepIndex"].as_i64().unwrap_or(0),
            steps: rollout["spec"]["strategy"]["canary"]["steps"].as_array().map_or(0, Vec::len) as i64,
            versions,
            total: self.cluster.requests(|record| record.total()),
            measured: self.measured(current),
        }
    }

    /// The measurements of the analysis of the current release.
    fn measured(&self, hash: &str) -> Vec<Measured> {
        let runs = self.cluster.user().list("analysisruns.argoproj.io", NAMESPACE);
        let mine = runs.iter().filter(|run| run["metadata"]["labels"][names::POD_TEMPLATE_HASH] == hash);
        let results = mine.filter_map(|run| run["status"]["metricResults"].as_array()).flatten();
        let measurements = results.filter_map(|result| result["measurements"].as_array()).flatten();
        measurements
            .map(|measurement| Measured {
                passed: match measurement["phase"].as_str() {
                    Some("Successful") => Some(true),
                    Some("Failed" | "Error") => Some(false),
                    _ => None,
                },
                value: measurement["value"].as_str().unwrap_or_default().trim_matches(['[', ']']).to_owned(),
            })
            .collect()
    }
}
