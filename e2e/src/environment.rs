//! Everything that a scenario needs beside the controller, started and stopped together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use kube::Client;

use crate::apply;
use crate::cluster::{ADMIN, Cluster, ClusterOptions, KUBELET};
use crate::gateway::{Gateway, GatewayOptions};
use crate::kubelet::{Kubelet, KubeletOptions};
use crate::process::Usage;
use crate::prometheus::Prometheus;
use crate::tools::{Part, Tools};

/// What is to be started, and how.
#[derive(Clone, Debug, Default)]
pub struct EnvironmentOptions {
    pub cluster: ClusterOptions,
    pub kubelet: KubeletOptions,
    /// No gateway (and nothing for Prometheus to scrape) if `None`.
    pub gateway: Option<GatewayOptions>,
    /// Whether there is a Prometheus.
    pub prometheus: bool,
}

impl EnvironmentOptions {
    /// All of it.
    pub fn full() -> Self {
        Self { gateway: Some(GatewayOptions::default()), prometheus: true, ..Self::default() }
    }

    /// What has to be installed for it.
    pub fn parts(&self) -> Vec<Part> {
        let mut parts = vec![Part::Controlplane];
        if self.gateway.is_some() {
            parts.extend([Part::Traefik, Part::GatewayApi]);
        }
        if self.prometheus {
            parts.push(Part::Prometheus);
        }
        parts
    }
}

/// A running environment.
pub struct Environment {
    /// Where the logs and files of everything are.
    pub folder: PathBuf,
    pub tools: Tools,
    pub cluster: Cluster,
    pub kubelet: Kubelet,
    pub gateway: Option<Gateway>,
    pub prometheus: Option<Prometheus>,
    /// A client that may do everything.
    pub client: Client,
}

impl Environment {
    /// Starts everything, with its files in `folder`.
    ///
    /// # Errors
    /// Something is not installed (the message says what to run), or does not start.
    pub async fn start(folder: &Path, options: EnvironmentOptions) -> Result<Self> {
        let tools = Tools::find(&options.parts())?;
        let cluster = Cluster::start(&tools, folder, options.cluster).await?;
        let kubelet = Kubelet::start(cluster.client(KUBELET).await?, folder, options.kubelet).await?;
        let gateway = match options.gateway {
            Some(options) => Some(Gateway::start(&tools, folder, &cluster, options).await?),
            None => None,
        };
        let prometheus = if options.prometheus {
            let targets: Vec<_> = gateway.iter().map(|gateway| ("gateway", gateway.metrics_target())).collect();
            Some(Prometheus::start(&tools, folder, &targets).await?)
        } else {
            None
        };
        let client = cluster.client(ADMIN).await?;
        // There is no mesh here: what is compared are the objects.
        for definition in tidegate::sandbox::cluster::route_crds::istio() {
            apply::object(&client, "", definition).await?;
        }
        Ok(Self { folder: folder.to_owned(), tools, cluster, kubelet, gateway, prometheus, client })
    }

    /// What each program has used, by name.
    ///
    /// # Errors
    /// A part of the control plane has ended.
    pub fn usage(&self) -> Result<BTreeMap<&'static str, Usage>> {
        let mut usage = self.cluster.usage()?;
        usage.extend(self.gateway.as_ref().and_then(Gateway::usage).map(|usage| ("traefik", usage)));
        usage.extend(self.prometheus.as_ref().and_then(Prometheus::usage).map(|usage| ("prometheus", usage)));
        Ok(usage)
    }

    /// Stops everything, the last started first.
    pub async fn stop(self) {
        if let Some(prometheus) = self.prometheus {
            prometheus.stop().await;
        }
        if let Some(gateway) = self.gateway {
            gateway.stop().await;
        }
        drop(self.kubelet);
        self.cluster.stop().await;
    }
}
