//! `tidegate get`: the picture of a Rollout or an Experiment, once or as it changes.

use std::process::ExitCode;

use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::api::ListParams;

use super::connect::{Connected, Connection, Known};
use super::kind::{self, Kind};
use super::screen;
use super::tree::{Objects, Root, Style, draw};
use super::watched;
use crate::api::{AnalysisRun, Experiment, Rollout};
use crate::clock::Clock;

/// Show a rollout or an experiment as a tree of what belongs to it
#[derive(Debug, clap::Args)]
pub struct Get {
    #[command(flatten)]
    connection: Connection,
    /// NAME of a rollout, rollout NAME, or experiment NAME
    #[arg(required = true, num_args = 1..=2, value_name = "NAME")]
    object: Vec<String>,
    /// Keep showing it as it changes, until Ctrl-C
    #[arg(long, short)]
    watch: bool,
    /// No colours, as $NO_COLOR has it too
    #[arg(long)]
    no_color: bool,
}

impl Get {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let (kind, name) = kind::one(&self.object, &[Kind::Rollout, Kind::Experiment], Some(Kind::Rollout))?;
        let connected = self.connection.connect().await?;
        // Also when it is watched: what is not there is said at once.
        let root = match kind {
            Kind::Experiment => Root::Experiment(connected.find::<Experiment>(name).await?),
            _ => Root::Rollout(connected.find::<Rollout>(name).await?),
        };
        let color = !self.no_color && screen::has_color();
        if self.watch {
            return watched::watch(&connected, &root, name, color).await;
        }
        let objects = objects(&connected, name).await?;
        let style = Style { color, now: Clock::system().now(), width: screen::size().map(|size| size.columns) };
        print!("{}", draw(&root, &objects, style));
        Ok(ExitCode::SUCCESS)
    }
}

/// Shows what was just created, as it changes.
pub async fn watch_new(connected: &Connected, kind: &str, name: &str) -> anyhow::Result<ExitCode> {
    let root = match kind {
        "Experiment" => Root::Experiment(connected.find::<Experiment>(name).await?),
        _ => Root::Rollout(connected.find::<Rollout>(name).await?),
    };
    watched::watch(connected, &root, name, screen::has_color()).await
}

async fn objects(connected: &Connected, name: &str) -> anyhow::Result<Objects> {
    Ok(Objects {
        replica_sets: list::<ReplicaSet>(connected, name).await?,
        pods: list(connected, name).await?,
        analysis_runs: list::<AnalysisRun>(connected, name).await?,
        experiments: list::<Experiment>(connected, name).await?,
        jobs: optional(connected).await,
    })
}

async fn list<K: Known>(connected: &Connected, name: &str) -> anyhow::Result<Vec<K>> {
    let mut listed = connected.api::<K>().list(&ListParams::default()).await;
    if let Ok(list) = &mut listed {
        list.items.sort_by_key(|object| object.meta().name.clone());
    }
    listed.map(|list| list.items).map_err(|error| connected.explain::<K>(error, name))
}

/// Jobs only add to the picture: who may not see them still sees the rest.
async fn optional<K: Known>(connected: &Connected) -> Vec<K> {
    let listed = connected.api::<K>().list(&ListParams::default()).await;
    listed.map(|list| list.items).unwrap_or_default()
}
