//! Reaching the cluster, with the flags that kubectl has.

use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use kube::api::{Api, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt};
use serde_json::Value;

use crate::api::Rollout;
use crate::api::names::FIELD_MANAGER;

/// Where the cluster is.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Connection {
    /// Path to the kubeconfig file; $KUBECONFIG, ~/.kube/config or the pod's service account when absent
    #[arg(long, global = true)]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// Namespace; the context's when absent
    #[arg(long, short, global = true)]
    pub namespace: Option<String>,
}

/// A client and the namespace to work in.
#[derive(Clone)]
pub struct Connected {
    pub client: Client,
    pub namespace: String,
}

impl Connection {
    pub async fn config(&self) -> anyhow::Result<Config> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        match &self.kubeconfig {
            Some(path) => {
                let kubeconfig =
                    Kubeconfig::read_from(path).with_context(|| format!("cannot read {}", path.display()))?;
                Config::from_custom_kubeconfig(kubeconfig, &options).await.context("the kubeconfig cannot be used")
            }
            None if self.context.is_some() => {
                Config::from_kubeconfig(&options).await.context("the kubeconfig cannot be used")
            }
            None => Config::infer().await.context("there is no cluster to talk to: set --kubeconfig or $KUBECONFIG"),
        }
    }

    pub async fn connect(&self) -> anyhow::Result<Connected> {
        let config = self.config().await?;
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).context("the cluster cannot be reached")?;
        Ok(Connected { client, namespace })
    }
}

impl Connected {
    pub fn rollouts(&self) -> Api<Rollout> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub async fn rollout(&self, name: &str) -> anyhow::Result<Rollout> {
        self.rollouts().get(name).await.map_err(|error| self.explain(error, name))
    }

    /// Writes a merge patch to the spec.
    pub async fn patch_spec(&self, name: &str, patch: &Value) -> anyhow::Result<()> {
        let patched = self.rollouts().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.map(drop).map_err(|error| self.explain(error, name))
    }

    /// Writes a merge patch to the status: through the subresource, or to the object itself where there is none.
    pub async fn patch_status(&self, name: &str, patch: &Value) -> anyhow::Result<()> {
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match self.rollouts().patch_status(name, &parameters, &Patch::Merge(patch)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => self.patch_spec(name, patch).await,
            Err(error) => Err(self.explain(error, name)),
        }
    }

    pub fn explain(&self, error: kube::Error, name: &str) -> anyhow::Error {
        match error {
            kube::Error::Api(status) if status.code == 404 => {
                anyhow!("rollouts.argoproj.io {name:?} not found in namespace {:?}", self.namespace)
            }
            kube::Error::Api(status) => anyhow!("{}", status.message),
            other => anyhow::Error::new(other).context("the cluster cannot be reached"),
        }
    }
}

/// The name in `NAME` or `rollout NAME`.
pub fn rollout_name(words: &[String]) -> anyhow::Result<&str> {
    match words {
        [name] => Ok(name.strip_prefix("rollout/").unwrap_or(name)),
        [kind, name] if ["rollout", "rollouts", "ro"].contains(&kind.as_str()) => Ok(name),
        [kind, _] => bail!("kind {kind:?} is not known here; known: rollout"),
        _ => bail!("one name is needed: NAME, or rollout NAME"),
    }
}

/// `rollout 'NAME' WHAT`, as kubectl confirms a change.
pub fn confirm(rollout: &Rollout, what: &str) {
    println!("rollout '{}' {what}", rollout.name_any());
}
