//! `tidegate report`: the record of a release, for people: what was released, how it ended, what each analysis found.

mod records;
mod table;
#[cfg(test)]
mod tests;
mod text;

use std::process::ExitCode;

use anyhow::bail;
use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::api::ListParams;

use super::connect::{Connected, Connection, Known};
use super::tree::Style;
use super::{kind, screen};
use crate::api::release::Release;
use crate::api::{AnalysisRun, Experiment};
use crate::clock::Clock;
use records::Known as Objects;

/// Tell how a release went: what was released, how it ended, and what each analysis found
#[derive(Debug, clap::Args)]
pub struct Report {
    #[command(flatten)]
    connection: Connection,
    /// The rollout: NAME, or rollout NAME
    #[arg(required = true, num_args = 1..=2, value_name = "NAME")]
    rollout: Vec<String>,
    /// The release of this revision; by default the last one that has ended, and the one that is under way
    #[arg(long, conflicts_with = "all")]
    revision: Option<i64>,
    /// All releases that are known, the newest first
    #[arg(long)]
    all: bool,
    /// How to print it
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
    /// No colours, as $NO_COLOR has it too
    #[arg(long)]
    no_color: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// For the terminal
    Text,
    /// A list of records
    Json,
    /// For a ticket or a chat
    Markdown,
}

impl Report {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let name = kind::rollout(&self.rollout)?;
        let connected = self.connection.connect().await?;
        let objects = Objects {
            rollout: connected.rollout(name).await?,
            replica_sets: list::<ReplicaSet>(&connected, name).await?,
            analysis_runs: list::<AnalysisRun>(&connected, name).await?,
            experiments: list::<Experiment>(&connected, name).await?,
        };
        let now = Clock::system().now();
        let releases = self.chosen(records::all(&objects, now), name)?;
        match self.output {
            Output::Json => println!("{}", serde_json::to_string_pretty(&releases)?),
            Output::Markdown => {
                print!("{}", if self.all { table::markdown(&releases) } else { text::markdown(name, &releases) })
            }
            Output::Text => {
                let color = !self.no_color && screen::has_color();
                let style = Style { color, now, width: screen::size().map(|size| size.columns) };
                let by = records::who_aborted(&objects.rollout);
                print!(
                    "{}",
                    if self.all { table::text(&releases, style) } else { text::draw(name, &releases, by, style) }
                );
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Those that were asked for. `known` begins with what is under way, and then has the newest first.
    fn chosen(&self, mut known: Vec<Release>, name: &str) -> anyhow::Result<Vec<Release>> {
        if let Some(revision) = self.revision {
            let found = known.iter().position(|release| release.version.revision == revision);
            let Some(found) = found else {
                let mut revisions: Vec<String> =
                    known.iter().map(|release| release.version.revision.to_string()).collect();
                revisions.dedup();
                let revisions = if revisions.is_empty() { "none".to_owned() } else { revisions.join(", ") };
                bail!("there is no record of revision {revision} of rollout {name:?}; known: {revisions}");
            };
            return Ok(vec![known.swap_remove(found)]);
        }
        if known.is_empty() && self.output != Output::Json {
            bail!("no release of rollout {name:?} has left a record: it is left when a release ends");
        }
        if !self.all {
            let under_way = known.iter().take_while(|release| release.outcome.is_empty()).count();
            known.truncate(under_way + 1);
        }
        Ok(known)
    }
}

async fn list<K: Known>(connected: &Connected, name: &str) -> anyhow::Result<Vec<K>> {
    let listed = connected.api::<K>().list(&ListParams::default()).await;
    listed.map(|list| list.items).map_err(|error| connected.explain::<K>(error, name))
}
