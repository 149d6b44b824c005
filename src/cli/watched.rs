//! A picture that follows its objects.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use futures::stream::{BoxStream, SelectAll, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::time::Instant;

use super::connect::{Connected, Known};
use super::screen::{self, Screen};
use super::tree::{Objects, Root, Style, draw, duration};
use crate::api::{AnalysisRun, Experiment, Rollout};
use crate::clock::Clock;

/// A burst of changes makes one picture.
const BURST: Duration = Duration::from_millis(100);
/// Ages and countdowns go on though nothing happens.
const TICK: Duration = Duration::from_secs(1);

/// Shows the object until the user stops it, nobody reads any more, or it is deleted.
pub async fn watch(connected: &Connected, root: &Root, name: &str, color: bool) -> anyhow::Result<ExitCode> {
    let mut namespace = Namespace::default();
    let mut changes = changes(connected, root);
    let clock = Clock::system();
    let mut screen = Screen::open()?;
    let mut stop = std::pin::pin!(tokio::signal::ctrl_c());
    let mut seen = false;
    loop {
        let changed = tokio::select! {
            _ = &mut stop => return Ok(ExitCode::SUCCESS),
            change = tokio::time::timeout(TICK, changes.next()) => change.ok().flatten(),
        };
        let is_new = changed.is_some();
        namespace.take(changed, name, clock.now());
        let until = Instant::now() + BURST;
        while let Ok(Some(change)) = tokio::time::timeout_at(until, changes.next()).await {
            namespace.take(Some(change), name, clock.now());
        }
        // Without a terminal, a picture that differs only in its ages is not worth printing.
        if !namespace.is_listed() || !(is_new || screen.is_live()) {
            continue;
        }
        let size = screen::size();
        let style = Style { color, now: clock.now(), width: size.map(|size| size.columns) };
        let Some(picture) = namespace.picture(root, style) else {
            if seen {
                bail!("{name:?} has been deleted");
            }
            continue;
        };
        seen = true;
        if screen.show(&picture, size).is_err() {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// What is known of the namespace.
#[derive(Default)]
struct Namespace {
    rollouts: Kept<Rollout>,
    experiments: Kept<Experiment>,
    replica_sets: Kept<ReplicaSet>,
    pods: Kept<Pod>,
    analysis_runs: Kept<AnalysisRun>,
    jobs: Kept<Job>,
    /// Kinds of which everything has been seen.
    listed: usize,
    /// Since when the API server does not answer, and what it said.
    trouble: Option<(Timestamp, String)>,
}

/// The objects of one kind, by name.
struct Kept<K> {
    objects: BTreeMap<String, K>,
    /// What a list that is under way has shown so far. Until its end the objects stay: none seems deleted meanwhile.
    listing: Option<BTreeSet<String>>,
}

impl<K> Default for Kept<K> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), listing: None }
    }
}

/// Kinds without which there is no picture; Jobs may be out of the user's sight.
const NEEDED: usize = 5;

/// What one watch tells, ready to be taken over.
type Change = Box<dyn FnOnce(&mut Namespace, Timestamp) + Send>;

impl Namespace {
    fn take(&mut self, change: Option<Change>, name: &str, now: Timestamp) {
        if let Some(change) = change {
            change(self, now);
            // Of the many Rollouts of a namespace one is looked at.
            self.rollouts.objects.retain(|found, _| found == name);
        }
    }

    fn is_listed(&self) -> bool {
        self.listed >= NEEDED
    }

    fn picture(&self, root: &Root, style: Style) -> Option<String> {
        let root = match root {
            Root::Rollout(rollout) => Root::Rollout(self.rollouts.objects.get(&rollout.name_any())?.clone()),
            Root::Experiment(experiment) => {
                Root::Experiment(self.experiments.objects.get(&experiment.name_any())?.clone())
            }
        };
        let objects = Objects {
            replica_sets: self.replica_sets.all(),
            pods: self.pods.all(),
            analysis_runs: self.analysis_runs.all(),
            experiments: self.experiments.all(),
            jobs: self.jobs.all(),
        };
        let picture = draw(&root, &objects, style);
        Some(match &self.trouble {
            Some((since, what)) => {
                let ago = duration(style.now.as_second() - since.as_second());
                let line = style.fit(&format!("⚠ not connected for {ago}: {what}"));
                format!("{line}\n\n{picture}")
            }
            None => picture,
        })
    }
}

fn changes(connected: &Connected, root: &Root) -> SelectAll<BoxStream<'static, Change>> {
    let mut all = SelectAll::new();
    match root {
        Root::Rollout(_) => all.push(of::<Rollout>(connected, true, |namespace| &mut namespace.rollouts)),
        // An experiment has no Rollout above it in its picture; the count of kinds is the same.
        Root::Experiment(_) => all.push(
            futures::stream::once(async { Box::new(|namespace: &mut Namespace, _| namespace.listed += 1) as Change })
                .boxed(),
        ),
    }
    all.push(of(connected, true, |namespace| &mut namespace.experiments));
    all.push(of(connected, true, |namespace| &mut namespace.replica_sets));
    all.push(of(connected, true, |namespace| &mut namespace.pods));
    all.push(of(connected, true, |namespace| &mut namespace.analysis_runs));
    all.push(of(connected, false, |namespace| &mut namespace.jobs));
    all
}

/// The changes of one kind; a failure is retried with a growing pause.
fn of<K: Known + Send + Sync + 'static>(
    connected: &Connected,
    needed: bool,
    kept: fn(&mut Namespace) -> &mut Kept<K>,
) -> BoxStream<'static, Change> {
    let events = watcher(connected.api::<K>(), watcher::Config::default()).default_backoff();
    let mut first = needed;
    events
        .map(move |event| -> Change {
            let is_first = first && matches!(event, Ok(Event::InitDone));
            first &= !is_first;
            Box::new(move |namespace, now| {
                match event {
                    Ok(event) => {
                        kept(namespace).take(event);
                        namespace.trouble = None;
                    }
                    Err(error) if needed && namespace.trouble.is_none() => {
                        namespace.trouble = Some((now, error.to_string()));
                    }
                    Err(_) => {}
                }
                namespace.listed += usize::from(is_first);
            })
        })
        .boxed()
}

impl<K: ResourceExt + Clone> Kept<K> {
    fn all(&self) -> Vec<K> {
        self.objects.values().cloned().collect()
    }

    fn take(&mut self, event: Event<K>) {
        match event {
            Event::Init => self.listing = Some(BTreeSet::new()),
            Event::Apply(object) => {
                self.objects.insert(object.name_any(), object);
            }
            Event::InitApply(object) => {
                self.listing.get_or_insert_default().insert(object.name_any());
                self.objects.insert(object.name_any(), object);
            }
            Event::InitDone => {
                if let Some(listed) = self.listing.take() {
                    self.objects.retain(|name, _| listed.contains(name));
                }
            }
            Event::Delete(object) => {
                self.objects.remove(&object.name_any());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_in_between_hides_nothing_and_forgets_what_is_gone() {
        let pod = |name: &str| Pod {
            metadata: kube::api::ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
            ..Pod::default()
        };
        let mut pods = Kept::default();
        for event in [Event::Apply(pod("a")), Event::Apply(pod("b")), Event::Init, Event::InitApply(pod("b"))] {
            pods.take(event);
        }
        assert_eq!(pods.all().len(), 2);
        pods.take(Event::InitDone);
        assert_eq!(pods.all().iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["b"]);
    }
}
