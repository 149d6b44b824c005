//! `tidegate get`: the picture of a rollout, once or as it changes.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use futures::stream::{SelectAll, StreamExt};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Resource, ResourceExt};

use super::connect::{Connected, Connection, rollout_name};
use super::tree::{Picture, Style, draw};
use crate::api::{AnalysisRun, Rollout};
use crate::clock::Clock;

/// The pause between two pictures, so that a burst of changes is one.
const REDRAW: Duration = Duration::from_millis(200);

/// Show a rollout as a tree of its revisions, pods and analysis runs
#[derive(Debug, clap::Args)]
pub struct Get {
    #[command(flatten)]
    connection: Connection,
    /// The rollout: NAME, or rollout NAME
    #[arg(required = true, num_args = 1..=2)]
    rollout: Vec<String>,
    /// Keep showing it as it changes
    #[arg(long, short)]
    watch: bool,
    /// No colours
    #[arg(long)]
    no_color: bool,
}

impl Get {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let name = rollout_name(&self.rollout)?;
        let connected = self.connection.connect().await?;
        let rollout = connected.rollout(name).await?;
        let color = !self.no_color && std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        if self.watch {
            return watch(&connected, name, color).await;
        }
        print!("{}", draw(&picture(&connected, rollout).await?, Style { color, now: Clock::system().now() }));
        Ok(ExitCode::SUCCESS)
    }
}

async fn picture(connected: &Connected, rollout: Rollout) -> anyhow::Result<Picture> {
    let name = rollout.name_any();
    let explain = |error| connected.explain(error, &name);
    let all = ListParams::default();
    let client = || connected.client.clone();
    let replica_sets =
        Api::<ReplicaSet>::namespaced(client(), &connected.namespace).list(&all).await.map_err(explain)?;
    let pods = Api::<Pod>::namespaced(client(), &connected.namespace).list(&all).await.map_err(explain)?;
    let runs = Api::<AnalysisRun>::namespaced(client(), &connected.namespace).list(&all).await.map_err(explain)?;
    let objects = Objects {
        rollout: Some(rollout),
        replica_sets: by_name(replica_sets.items),
        pods: by_name(pods.items),
        analysis_runs: by_name(runs.items),
    };
    Ok(objects.picture().unwrap_or_default())
}

fn by_name<K: ResourceExt>(objects: Vec<K>) -> BTreeMap<String, K> {
    objects.into_iter().map(|object| (object.name_any(), object)).collect()
}

/// What is known of the namespace.
#[derive(Default)]
struct Objects {
    rollout: Option<Rollout>,
    replica_sets: BTreeMap<String, ReplicaSet>,
    pods: BTreeMap<String, Pod>,
    analysis_runs: BTreeMap<String, AnalysisRun>,
}

/// A change of it.
enum Change {
    Rollout(Box<watcher::Event<Rollout>>),
    ReplicaSet(Box<watcher::Event<ReplicaSet>>),
    Pod(Box<watcher::Event<Pod>>),
    AnalysisRun(Box<watcher::Event<AnalysisRun>>),
}

impl Objects {
    /// The rollout and what it owns; nothing when it is gone.
    fn picture(&self) -> Option<Picture> {
        let rollout = self.rollout.clone()?;
        let uid = rollout.metadata.uid.clone();
        let replica_sets: Vec<ReplicaSet> = owned(&self.replica_sets, std::slice::from_ref(&uid));
        let owners: Vec<Option<String>> =
            replica_sets.iter().map(|replica_set| replica_set.metadata.uid.clone()).collect();
        let pods = owned(&self.pods, &owners);
        let analysis_runs = owned(&self.analysis_runs, &[uid]);
        Some(Picture { rollout, replica_sets, pods, analysis_runs })
    }

    fn apply(&mut self, name: &str, change: Change) {
        match change {
            Change::Rollout(event) => match *event {
                watcher::Event::Apply(rollout) | watcher::Event::InitApply(rollout) if rollout.name_any() == name => {
                    self.rollout = Some(rollout);
                }
                watcher::Event::Delete(rollout) if rollout.name_any() == name => self.rollout = None,
                _ => {}
            },
            Change::ReplicaSet(event) => keep(&mut self.replica_sets, *event),
            Change::Pod(event) => keep(&mut self.pods, *event),
            Change::AnalysisRun(event) => keep(&mut self.analysis_runs, *event),
        }
    }
}

fn owned<K: ResourceExt + Clone>(objects: &BTreeMap<String, K>, owners: &[Option<String>]) -> Vec<K> {
    let is_owned = |object: &&K| {
        let references = object.owner_references().iter();
        references.into_iter().any(|owner| owners.iter().flatten().any(|uid| *uid == owner.uid))
    };
    objects.values().filter(is_owned).cloned().collect()
}

fn keep<K: ResourceExt>(objects: &mut BTreeMap<String, K>, event: watcher::Event<K>) {
    match event {
        watcher::Event::Init => objects.clear(),
        watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
            objects.insert(object.name_any(), object);
        }
        watcher::Event::Delete(object) => {
            objects.remove(&object.name_any());
        }
        watcher::Event::InitDone => {}
    }
}

type Changes = futures::stream::BoxStream<'static, Change>;

/// The changes of one kind; a failure is retried with a growing pause.
fn changes<K>(connected: &Connected, wrap: fn(Box<watcher::Event<K>>) -> Change) -> Changes
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let api: Api<K> = Api::namespaced(connected.client.clone(), &connected.namespace);
    let events = watcher(api, watcher::Config::default()).default_backoff();
    events.filter_map(move |event| async move { event.ok().map(|event| wrap(Box::new(event))) }).boxed()
}

async fn watch(connected: &Connected, name: &str, color: bool) -> anyhow::Result<ExitCode> {
    let clock = Clock::system();
    let mut objects = Objects::default();
    let mut changes = SelectAll::from_iter([
        changes(connected, Change::Rollout),
        changes(connected, Change::ReplicaSet),
        changes(connected, Change::Pod),
        changes(connected, Change::AnalysisRun),
    ]);
    let mut seen = false;
    loop {
        let until = tokio::time::Instant::now() + REDRAW;
        while let Ok(change) = tokio::time::timeout_at(until, changes.next()).await {
            let Some(change) = change else { bail!("the watch ended") };
            objects.apply(name, change);
        }
        match objects.picture() {
            Some(picture) => {
                seen = true;
                let drawn = draw(&picture, Style { color, now: clock.now() });
                // Home, the picture with each line cleared to its end, and the rest of the screen cleared.
                let drawn = drawn.replace('\n', "\x1b[K\n");
                let mut out = std::io::stdout().lock();
                write!(out, "\x1b[H{drawn}\x1b[J")?;
                out.flush()?;
            }
            None if seen => bail!("rollout '{name}' has been deleted"),
            None => {}
        }
    }
}
