//! What users do to their Rollouts while the storm goes on, each by seeded choices of their own.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use kube::Client;
use kube::api::{Api, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::core::ApiResource;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::fleet::{self, NAMESPACE};

/// How long a user goes on to try while the API server does not answer.
const PATIENCE: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_secs(3);

/// How often each was done.
pub type Deeds = BTreeMap<&'static str, u32>;

/// The user of one Rollout.
pub struct User {
    rollouts: Api<DynamicObject>,
    name: String,
    random: fastrand::Rng,
    /// The newest version that there was, and the one that the template has.
    newest: u32,
    current: u32,
    pub deeds: Deeds,
}

impl User {
    pub fn new(client: &Client, name: &str, seed: u64) -> Self {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Rollout"));
        Self {
            rollouts: Api::namespaced_with(client.clone(), NAMESPACE, &resource),
            name: name.to_owned(),
            random: fastrand::Rng::with_seed(seed),
            newest: 1,
            current: 1,
            deeds: Deeds::new(),
        }
    }

    /// Changes, aborts, retries and promotes until `end`.
    ///
    /// # Errors
    /// The API server refuses something, or does not answer for a minute.
    pub async fn work(&mut self, end: Instant) -> Result<()> {
        loop {
            // Some go on before the last update is out, some see it through.
            let pause = if self.random.u8(0..3) == 0 { 25_000..45_000 } else { 2_000..14_000 };
            let next = Instant::now() + Duration::from_millis(self.random.u64(pause));
            sleep_until(next.min(end)).await;
            if next >= end {
                return Ok(());
            }
            match self.random.u8(0..100) {
                0..40 => self.release("200").await?,
                40..46 => self.release("2000").await?,
                46..52 => self.release("never").await?,
                52..60 => self.undo().await?,
                60..76 => self.status("abort", json!({"abort": true})).await?,
                76..84 => self.status("retry", json!({"abort": false})).await?,
                84..94 => self.status("promote", json!({"pauseConditions": null})).await?,
                _ => self.status("promote full", json!({"promoteFull": true})).await?,
            }
        }
    }

    /// The last deed: a good version, which a few then abort. How they are to end.
    ///
    /// # Errors
    /// As [`User::work`].
    pub async fn finish(&mut self) -> Result<End> {
        self.release("200").await?;
        if self.random.u8(0..4) > 0 {
            return Ok(End::Healthy);
        }
        sleep(Duration::from_millis(self.random.u64(500..9_000))).await;
        self.status("abort", json!({"abort": true})).await?;
        Ok(End::Either)
    }

    async fn release(&mut self, ready_after: &str) -> Result<()> {
        self.newest += 1;
        self.current = self.newest;
        self.template(if ready_after == "never" { "bad release" } else { "release" }, ready_after).await
    }

    async fn undo(&mut self) -> Result<()> {
        // One that was slow to get ready, or never did, is another revision now.
        self.current = self.current.saturating_sub(1).max(1);
        self.template("undo", "200").await
    }

    async fn template(&mut self, deed: &'static str, ready_after: &str) -> Result<()> {
        let containers = json!([fleet::container(self.current, ready_after)]);
        self.patch(deed, json!({"spec": {"template": {"spec": {"containers": containers}}}}), false).await
    }

    async fn status(&mut self, deed: &'static str, status: Value) -> Result<()> {
        self.patch(deed, json!({"status": status}), true).await
    }

    async fn patch(&mut self, deed: &'static str, patch: Value, of_status: bool) -> Result<()> {
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(patch));
        let began = Instant::now();
        loop {
            let answer = timeout(ANSWER, async {
                if of_status {
                    self.rollouts.patch_status(&self.name, &parameters, &patch).await
                } else {
                    self.rollouts.patch(&self.name, &parameters, &patch).await
                }
            });
            let error = match answer.await {
                Ok(Ok(_)) => {
                    *self.deeds.entry(deed).or_default() += 1;
                    return Ok(());
                }
                Ok(Err(error)) => anyhow::Error::from(error),
                Err(late) => late.into(),
            };
            if began.elapsed() > PATIENCE {
                return Err(error).with_context(|| format!("{deed} of {}", self.name));
            }
            sleep(Duration::from_millis(300)).await;
        }
    }
}

/// How a Rollout is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Healthy,
    /// Aborted, or healthy where the abort came after the end of the update.
    Either,
}
