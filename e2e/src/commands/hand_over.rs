//! `hand-over`: a release that Argo Rollouts and Tidegate bring to its end together, taking turns. `record` says how to build
//! the controller of Argo Rollouts.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use kube::api::{Api, PostParams};
use serde_json::json;
use tokio::sync::Mutex;

use super::record::Peer;
use super::scenarios::FLAGS;
use crate::cluster::ADMIN;
use crate::controller::Controller;
use crate::scenario::{self, real};

#[derive(Debug, clap::Args)]
pub struct HandOver {
    #[command(flatten)]
    peer: Peer,
}

impl HandOver {
    pub async fn run(self, folder: &Path) -> Result<()> {
        let (environment, controller) = self.peer.start(folder).await?;
        let namespace = serde_json::from_value(json!({"metadata": {"name": "tidegate"}}))?;
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(environment.client.clone());
        namespaces.create(&PostParams::default(), &namespace).await.context("making Tidegate's namespace")?;
        // A folder of its own, for its log.
        let own = folder.join("tidegate");
        std::fs::create_dir_all(&own).with_context(|| format!("making {}", own.display()))?;
        let mut tidegate = Controller::start(&environment.cluster, &own, ADMIN, FLAGS)?;
        tidegate.kill().await;
        let shared = Arc::new(Mutex::new(real::Shared { environment, controller, other: Some(tidegate) }));
        for scenario in scenario::recordings()?.iter().filter(|scenario| scenario.name.starts_with("hand-over")) {
            let trace = real::play(shared.clone(), scenario).await?;
            println!("{trace}");
        }
        // Every scenario has ended, and with it its handle.
        let shared = Arc::into_inner(shared).context("a scenario goes on after its end")?.into_inner();
        shared.controller.stop().await;
        shared.environment.stop().await;
        Ok(())
    }
}
