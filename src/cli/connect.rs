//! Reaching the cluster, with the flags that kubectl has.

use std::fmt::Debug;
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use k8s_openapi::NamespaceResourceScope;
use kube::api::{Api, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config, Resource};
use serde::de::DeserializeOwned;
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
    /// Cluster of the kubeconfig
    #[arg(long, global = true)]
    pub cluster: Option<String>,
    /// User of the kubeconfig
    #[arg(long, global = true)]
    pub user: Option<String>,
    /// Address of the API server
    #[arg(long, short, global = true)]
    pub server: Option<String>,
    /// Bearer token to show to the API server
    #[arg(long, global = true)]
    pub token: Option<String>,
    /// User to act as
    #[arg(long = "as", global = true)]
    pub act_as: Option<String>,
    /// Do not check the API server's certificate
    #[arg(long, global = true)]
    pub insecure_skip_tls_verify: bool,
}

/// A client and the namespace to work in.
#[derive(Clone)]
pub struct Connected {
    pub client: Client,
    pub namespace: String,
}

impl Connection {
    pub async fn config(&self) -> anyhow::Result<Config> {
        let server = self.server.as_ref();
        let server: Option<http::Uri> =
            server.map(|server| server.parse().with_context(|| format!("--server {server:?}"))).transpose()?;
        let mut config = match (self.found().await, &server) {
            // As for kubectl, the address alone is enough.
            (Err(_), Some(server)) if self.names_nothing() => Config::new(server.clone()),
            (found, _) => found?,
        };
        if let Some(server) = server {
            config.cluster_url = server;
        }
        if let Some(token) = &self.token {
            config.auth_info.token = Some(token.clone().into());
        }
        if let Some(user) = &self.act_as {
            config.auth_info.impersonate = Some(user.clone());
        }
        config.accept_invalid_certs |= self.insecure_skip_tls_verify;
        Ok(config)
    }

    /// What the kubeconfig or the pod says.
    async fn found(&self) -> anyhow::Result<Config> {
        let options =
            KubeConfigOptions { context: self.context.clone(), cluster: self.cluster.clone(), user: self.user.clone() };
        // These errors tell their causes themselves.
        let unusable = |error: KubeconfigError| anyhow!("the kubeconfig cannot be used: {error}");
        match &self.kubeconfig {
            Some(path) => {
                let kubeconfig = Kubeconfig::read_from(path).map_err(|error| anyhow!("{error}"))?;
                Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(unusable)
            }
            None if self.names_nothing() => Config::infer().await.map_err(|error| {
                anyhow!("there is no cluster to talk to: set --kubeconfig, $KUBECONFIG or --server: {error}")
            }),
            None => Config::from_kubeconfig(&options).await.map_err(unusable),
        }
    }

    /// Whether nothing of a kubeconfig is asked for by name.
    fn names_nothing(&self) -> bool {
        let names = [&self.context, &self.cluster, &self.user];
        self.kubeconfig.is_none() && names.iter().all(|name| name.is_none())
    }

    pub async fn connect(&self) -> anyhow::Result<Connected> {
        let config = self.config().await?;
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).context("the cluster cannot be reached")?;
        Ok(Connected { client, namespace })
    }
}

impl Connected {
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn rollouts(&self) -> Api<Rollout> {
        self.api()
    }

    pub async fn rollout(&self, name: &str) -> anyhow::Result<Rollout> {
        self.find(name).await
    }

    pub async fn find<K: Known>(&self, name: &str) -> anyhow::Result<K> {
        self.api::<K>().get(name).await.map_err(|error| self.explain::<K>(error, name))
    }

    /// Writes a merge patch to the object.
    pub async fn patch<K: Known>(&self, name: &str, patch: &Value) -> anyhow::Result<()> {
        let patched = self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.map(drop).map_err(|error| self.explain::<K>(error, name))
    }

    /// Writes a merge patch to the status of a Rollout: through the subresource, or to the object itself where there is none.
    pub async fn patch_status(&self, name: &str, patch: &Value) -> anyhow::Result<()> {
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match self.rollouts().patch_status(name, &parameters, &Patch::Merge(patch)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => self.patch::<Rollout>(name, patch).await,
            Err(error) => Err(self.explain::<Rollout>(error, name)),
        }
    }

    pub fn explain<K: Resource<DynamicType = ()>>(&self, error: kube::Error, name: &str) -> anyhow::Error {
        match error {
            kube::Error::Api(status) if status.code == 404 => {
                let kind = format!("{}.{}", K::plural(&()), K::group(&()));
                anyhow!("{} {name:?} not found in namespace {:?}", kind.trim_end_matches('.'), self.namespace)
            }
            kube::Error::Api(status) => anyhow!("{}", status.message),
            other => anyhow::Error::new(other).context("the cluster cannot be reached"),
        }
    }
}

/// A namespaced kind that commands read and write.
pub trait Known: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned {}

impl<K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned> Known for K {}
