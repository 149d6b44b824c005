//! `tidegate list`: the Rollouts or Experiments of a namespace, or of all, as a table.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

use anyhow::bail;
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use kube::api::{Api, ListParams};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Resource, ResourceExt};
use tokio::time::Instant;

use super::connect::{Connected, Connection, Known};
use super::kind::Kind;
use super::phase::{set_weight, shown};
use super::tree::duration;
use crate::api::common::time;
use crate::api::duration::GoDuration;
use crate::api::{Experiment, Rollout};
use crate::clock::Clock;

/// List the rollouts or the experiments of a namespace
#[derive(Debug, clap::Args)]
pub struct List {
    #[command(flatten)]
    connection: Connection,
    /// rollouts or experiments
    #[arg(default_value = "rollouts")]
    kind: String,
    /// Those of all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Print a line for each change, until Ctrl-C
    #[arg(long, short)]
    watch: bool,
    /// Only the one with this name
    #[arg(long)]
    name: Option<String>,
    /// Print the time before each line
    #[arg(long)]
    timestamps: bool,
}

/// How long lines that belong together are waited for, so that their columns are aligned.
const TOGETHER: std::time::Duration = std::time::Duration::from_millis(300);

/// A kind as a table.
trait Listed: Known + Send + 'static {
    const COLUMNS: &'static [&'static str];
    fn row(&self, now: Timestamp) -> Vec<String>;
}

impl Listed for Rollout {
    const COLUMNS: &'static [&'static str] =
        &["NAME", "STRATEGY", "STATUS", "STEP", "SET-WEIGHT", "READY", "DESIRED", "UP-TO-DATE", "AVAILABLE"];

    fn row(&self, _: Timestamp) -> Vec<String> {
        let status = self.status.clone().unwrap_or_default();
        let strategy = &self.spec.strategy;
        let (strategy, step, weight) = match (&strategy.canary, &strategy.blue_green) {
            (Some(canary), _) => {
                let steps = canary.steps.len();
                let index = status.current_step_index.filter(|_| steps > 0);
                let step = index.map(|index| format!("{index}/{steps}"));
                ("Canary", step, Some(set_weight(self).to_string()))
            }
            (None, Some(_)) => ("BlueGreen", None, None),
            (None, None) => ("unknown", None, None),
        };
        let none = || "-".to_owned();
        vec![
            self.name_any(),
            strategy.to_owned(),
            shown(self).phase,
            step.unwrap_or_else(none),
            weight.unwrap_or_else(none),
            format!("{}/{}", status.ready_replicas, status.replicas),
            self.spec.desired_replicas().to_string(),
            status.updated_replicas.to_string(),
            status.available_replicas.to_string(),
        ]
    }
}

impl Listed for Experiment {
    const COLUMNS: &'static [&'static str] = &["NAME", "STATUS", "DURATION", "REMAINING", "AGE"];

    fn row(&self, now: Timestamp) -> Vec<String> {
        let status = self.status.clone().unwrap_or_default();
        let lasts = self.spec.duration.as_ref().and_then(|text| text.parse::<GoDuration>().ok());
        let end = status
            .available_at
            .as_ref()
            .zip(lasts)
            .filter(|_| !status.phase.completed())
            .and_then(|(since, lasts)| since.0.checked_add(SignedDuration::from(lasts)).ok());
        let none = || "-".to_owned();
        let age = self.metadata.creation_timestamp.as_ref().map(|at| now.as_second() - at.0.as_second());
        let phase = status.phase.as_str();
        vec![
            self.name_any(),
            if phase.is_empty() { none() } else { phase.to_owned() },
            self.spec.duration.clone().unwrap_or_else(none),
            end.map(|end| duration(end.as_second() - now.as_second())).unwrap_or_else(none),
            age.map(duration).unwrap_or_else(none),
        ]
    }
}

impl List {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let connected = self.connection.connect().await?;
        match Kind::of(&self.kind, &[Kind::Rollout, Kind::Experiment]) {
            Some(Kind::Experiment) => self.list::<Experiment>(&connected).await,
            Some(_) => self.list::<Rollout>(&connected).await,
            None => bail!("{:?} cannot be listed; known: rollouts, experiments", self.kind),
        }
    }

    async fn list<K: Listed>(&self, connected: &Connected) -> anyhow::Result<ExitCode> {
        let api: Api<K> = if self.all_namespaces { Api::all(connected.client.clone()) } else { connected.api() };
        let clock = Clock::system();
        let field = self.name.as_ref().map(|name| format!("metadata.name={name}"));
        let parameters = ListParams { field_selector: field.clone(), ..ListParams::default() };
        let listed = api.list(&parameters).await.map_err(|error| connected.explain::<K>(error, ""))?;
        if listed.items.is_empty() && !self.watch {
            eprintln!("No resources found.");
            return Ok(ExitCode::SUCCESS);
        }
        let mut rows: Vec<(String, Vec<String>)> =
            listed.items.iter().map(|object| (key(object), self.row(object, clock.now()))).collect();
        rows.sort();
        let mut header: Vec<String> = K::COLUMNS.iter().map(|column| (*column).to_owned()).collect();
        if self.all_namespaces {
            header.insert(0, "NAMESPACE".to_owned());
        }
        if self.timestamps {
            header.insert(0, "TIMESTAMP".to_owned());
        }
        let mut table = Table::default();
        table.print(std::iter::once(&header).chain(rows.iter().map(|(_, row)| row)))?;
        if self.watch {
            self.watch(api, field, rows.into_iter().collect(), table, &clock).await?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Prints what changes, until the user stops it.
    async fn watch<K: Listed>(
        &self,
        api: Api<K>,
        field: Option<String>,
        mut known: BTreeMap<String, Vec<String>>,
        mut table: Table,
        clock: &Clock,
    ) -> anyhow::Result<()> {
        let config = watcher::Config { field_selector: field, ..watcher::Config::default() };
        let events = watcher(api, config).default_backoff();
        let mut events = std::pin::pin!(events);
        let mut stop = std::pin::pin!(tokio::signal::ctrl_c());
        loop {
            let mut event = tokio::select! {
                _ = &mut stop => return Ok(()),
                event = events.next() => event,
            };
            let mut lines = Vec::new();
            let until = Instant::now() + TOGETHER;
            while let Some(found) = event.take() {
                match found {
                    Ok(Event::Apply(object) | Event::InitApply(object)) => {
                        let row = self.row(&object, clock.now());
                        let previous = known.insert(key(&object), row.clone());
                        // The time differs always, and is no change.
                        let skip = usize::from(self.timestamps);
                        if previous.is_none_or(|previous| previous[skip..] != row[skip..]) {
                            lines.push(row);
                        }
                    }
                    Ok(Event::Delete(object)) => drop(known.remove(&key(&object))),
                    // The watch goes on by itself after a failure, with a growing pause.
                    Ok(Event::Init | Event::InitDone) | Err(_) => {}
                }
                event = tokio::time::timeout_at(until, events.next()).await.ok().flatten();
            }
            if table.print(&lines).is_err() {
                return Ok(());
            }
        }
    }

    fn row<K: Listed>(&self, object: &K, now: Timestamp) -> Vec<String> {
        let mut row = object.row(now);
        if self.all_namespaces {
            row.insert(0, object.namespace().unwrap_or_default());
        }
        if self.timestamps {
            row.insert(0, time(now).0.to_string());
        }
        row
    }
}

fn key<K: Resource>(object: &K) -> String {
    let meta = object.meta();
    format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

/// Columns that only grow, so that later lines stand below the earlier ones.
#[derive(Default)]
struct Table {
    widths: Vec<usize>,
}

impl Table {
    fn print<'a>(&mut self, rows: impl IntoIterator<Item = &'a Vec<String>> + Clone) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        for line in self.lines(rows) {
            writeln!(out, "{line}")?;
        }
        out.flush()
    }

    fn lines<'a>(&mut self, rows: impl IntoIterator<Item = &'a Vec<String>> + Clone) -> Vec<String> {
        for row in rows.clone() {
            self.widths.resize(self.widths.len().max(row.len()), 0);
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&self.widths).map(|(cell, width)| format!("{cell:<width$}  ", width = *width));
            cells.collect::<String>().trim_end().to_owned()
        };
        rows.into_iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn rollouts_and_experiments_are_rows() {
        let now = "2026-01-01T00:05:00Z".parse().unwrap();
        let rollout = |spec: Value, status: Value| -> Vec<String> {
            let meta = json!({"name": "web", "generation": 1});
            let rollout = json!({"metadata": meta, "spec": spec, "status": status});
            serde_json::from_value::<Rollout>(rollout).unwrap().row(now)
        };
        let canary = rollout(
            json!({"replicas": 5, "strategy": {"canary": {"steps": [{"setWeight": 20}, {"pause": {}}]}}}),
            json!({
                "observedGeneration": "1", "phase": "Paused", "currentStepIndex": 1, "replicas": 5,
                "readyReplicas": 5, "availableReplicas": 4, "updatedReplicas": 1,
            }),
        );
        assert_eq!(canary, ["web", "Canary", "Paused", "1/2", "20", "5/5", "5", "1", "4"]);
        let blue_green = rollout(
            json!({"strategy": {"blueGreen": {"activeService": "web"}}}),
            json!({"observedGeneration": "1", "phase": "Healthy", "replicas": 1, "readyReplicas": 1}),
        );
        assert_eq!(blue_green, ["web", "BlueGreen", "Healthy", "-", "-", "1/1", "1", "0", "0"]);
        let experiment: Experiment = serde_json::from_value(json!({
            "metadata": {"name": "pair", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"duration": "10m", "templates": []},
            "status": {"phase": "Running", "availableAt": "2026-01-01T00:01:00Z"},
        }))
        .unwrap();
        assert_eq!(experiment.row(now), ["pair", "Running", "10m", "6m", "5m"]);
    }

    #[test]
    fn columns_only_grow() {
        let rows = |names: &[&str]| -> Vec<Vec<String>> {
            names.iter().map(|name| vec![(*name).to_owned(), "x".to_owned()]).collect()
        };
        let mut table = Table::default();
        assert_eq!(table.lines(&rows(&["NAME", "long-name"])), ["NAME       x", "long-name  x"]);
        assert_eq!(table.lines(&rows(&["web"])), ["web        x"]);
    }
}
