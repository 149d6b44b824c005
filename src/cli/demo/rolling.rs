//! The same bad release by a plain rolling update, in virtual time: what users would have noticed.

use std::time::Duration;

use anyhow::bail;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::clock::Clock;
use crate::sandbox::traffic::{Load, Target};
use crate::sandbox::workloads::{Behaviour, Name};
use crate::sandbox::{Cluster, Patch};

use super::super::in_process;
use super::{BAD, RATE, VERSIONS};

const MANIFEST: &str = "
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: web-app}
spec:
  replicas: 10
  selector: {matchLabels: {app: web-app}}
  template:
    metadata: {labels: {app: web-app}}
    spec: {containers: [{name: web-app, image: IMAGE}]}
  strategy: {canary: {}}
---
apiVersion: v1
kind: Service
metadata: {name: web-app}
spec: {selector: {app: web-app}, ports: [{port: 80, targetPort: 8080}]}
";

/// Requests that fail from the change of the image until `took` has passed.
pub fn failures(took: SignedDuration) -> anyhow::Result<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    runtime.block_on(async {
        // Any instant will do: nothing depends on the date.
        let clock = Clock::starting_at(Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24));
        let cluster = Cluster::builder().clock(clock.clone()).start();
        let behaviour = cluster.default_behaviour();
        cluster.set_image(VERSIONS[2], Behaviour { error_rate: BAD, ..behaviour });
        cluster.apply(&MANIFEST.replace("IMAGE", VERSIONS[1]))?;
        let controller = in_process::controller(&cluster, clock.clone(), None, std::future::pending());
        tokio::select! {
            ended = controller => bail!("the controller ended: {ended:?}"),
            failed = release(&cluster, &clock, took) => failed,
        }
    })
}

async fn release(cluster: &Cluster, clock: &Clock, took: SignedDuration) -> anyhow::Result<u64> {
    let phase = |cluster: &Cluster| {
        let rollout = cluster.user().get("rollouts.argoproj.io", "default", "web-app").unwrap_or_default();
        rollout["status"]["phase"].as_str().unwrap_or_default().to_owned()
    };
    if !cluster.wait_until(Duration::from_secs(60), |cluster| phase(cluster) == "Healthy").await {
        bail!("the rolling update's first version did not get ready: {}", phase(cluster));
    }
    cluster.send("users", Load { target: Target::Service(Name::new("default", "web-app")), rate: RATE });
    tokio::time::sleep(Duration::from_secs(2)).await;
    let began = clock.now();
    let containers = json!([{"name": "web-app", "image": VERSIONS[2]}]);
    let patch = json!({"spec": {"template": {"spec": {"containers": containers}}}});
    cluster.user().patch("rollouts.argoproj.io", "default", "web-app", &Patch::Merge(patch))?;
    tokio::time::sleep(took.unsigned_abs()).await;
    let failed = cluster.requests(|record| {
        record.between(began, clock.now()).into_iter().map(|answered| answered.counts.failures()).sum()
    });
    Ok(failed)
}
