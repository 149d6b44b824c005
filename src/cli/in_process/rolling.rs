//! The same release by a plain rolling update, in virtual time: what users would have noticed.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::{controller, in_virtual_time, server};
use crate::clock::Clock;
use crate::controller::Ended;
use crate::sandbox::cluster::ApplyError;
use crate::sandbox::traffic::{Load, Target};
use crate::sandbox::workloads::{Behaviour, Name};
use crate::sandbox::{Cluster, Patch, Refusal};

const MANIFEST: &str = "
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: web-app}
spec:
  replicas: REPLICAS
  selector: {matchLabels: {app: web-app}}
  template:
    metadata: {labels: {app: web-app}}
    spec: {containers: [{name: web-app, image: 'web-app:old'}]}
  strategy: {canary: {}}
---
apiVersion: v1
kind: Service
metadata: {name: web-app}
spec: {selector: {app: web-app}, ports: [{port: 80, targetPort: 8080}]}
";
const IMAGE: &str = "web-app:new";
/// How long the old version may take to get ready, beyond what a pod takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A release by a rolling update.
#[derive(Clone, Debug)]
pub struct Rolling {
    pub replicas: i32,
    /// Requests in a second.
    pub rate: f64,
    pub old: Behaviour,
    pub new: Behaviour,
    /// From the change of the image until the new version behaves like `new`; before, it does like `old`.
    pub onset: Duration,
    /// What is counted: from the change of the image until so much later.
    pub took: Duration,
    pub seed: u64,
}

/// Why there is nothing to compare with.
#[derive(Debug, thiserror::Error)]
pub enum RollingError {
    #[error("no runtime: {0}")]
    Runtime(#[from] std::io::Error),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("the image could not be changed: {}", .0.message)]
    Refused(Box<Refusal>),
    #[error("the controller ended: {0:?}")]
    Ended(Result<(), Ended>),
    #[error("the first version did not get ready: {0}")]
    NotReady(String),
}

impl Rolling {
    /// Requests that fail.
    ///
    /// # Errors
    /// As [`RollingError`] says; none of it is to be expected.
    pub fn failures(&self) -> Result<u64, RollingError> {
        in_virtual_time(async {
            // Any instant will do: nothing depends on the date.
            let clock = Clock::starting_at(Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24));
            let server = server(&clock, self.seed);
            let cluster = Cluster::builder().seed(self.seed).server(server).start();
            cluster.set_default_behaviour(self.old.clone());
            cluster.apply(&MANIFEST.replace("REPLICAS", &self.replicas.to_string()))?;
            let controller = controller(&cluster, clock.clone(), None, std::future::pending());
            tokio::select! {
                ended = controller => Err(RollingError::Ended(ended)),
                failed = self.release(&cluster) => failed,
            }
        })?
    }

    async fn release(&self, cluster: &Cluster) -> Result<u64, RollingError> {
        let phase = |cluster: &Cluster| {
            let rollout = cluster.user().get("rollouts.argoproj.io", "default", "web-app").unwrap_or_default();
            rollout["status"]["phase"].as_str().unwrap_or_default().to_owned()
        };
        let patience = PATIENCE + self.old.ready_after;
        if !cluster.wait_until(patience, |cluster| phase(cluster) == "Healthy").await {
            return Err(RollingError::NotReady(phase(cluster)));
        }
        cluster.send("users", Load { target: Target::Service(Name::new("default", "web-app")), rate: self.rate });
        tokio::time::sleep(Duration::from_secs(2)).await;
        let began = Instant::now();
        let before = cluster.requests(|record| record.total().failures());
        let behave = |behaviour: &Behaviour| cluster.set_image(IMAGE, behaviour.clone());
        behave(if self.onset.is_zero() { &self.new } else { &self.old });
        let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "web-app", "image": IMAGE}]}}}});
        let patched = cluster.user().patch("rollouts.argoproj.io", "default", "web-app", &Patch::Merge(patch));
        patched.map_err(|refusal| RollingError::Refused(Box::new(refusal)))?;
        if !self.onset.is_zero() && self.onset < self.took {
            sleep_until(began + self.onset).await;
            behave(&self.new);
        }
        sleep_until(began + self.took).await;
        Ok(cluster.requests(|record| record.total().failures()) - before)
    }
}
