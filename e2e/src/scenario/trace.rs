//! What a user would notice of a run, as text that two worlds agree on.
//!
//! A trace has one section for each step that does something. It lists, in the order of resourceVersions, which is the
//! order of the API server's writes:
//!
//! - of the Rollout: phase, step, stable and current revision, recorded weights, abort, and the conditions Healthy,
//!   Completed, Paused, InvalidSpec and Progressing;
//! - of ReplicaSets: created, scaled, given or relieved of a scale-down deadline, reused as another revision, deleted, the
//!   ephemeral metadata of their pods and whose nodes these avoid;
//! - of Deployments: scaled;
//! - of Services and routes: where they lead, with which weights.
//!
//! Conditions come after these, each type in its own order: what belongs together is written in one write or in two. Phases of
//! AnalysisRuns and Events are listed after these, each in their own order: they are written by other tasks of
//! the controller, so that where exactly they fall between the others means nothing. A section that ends with a wait
//! closes with the state that was reached.
//!
//! Left out or made equal, because it differs between two runs on the same cluster:
//!
//! - hashes: the N-th ReplicaSet that was made is called `rN`, the hash of the N-th one of an Experiment `xN`;
//! - which of an Experiment's templates is first: what belongs to each is listed together;
//! - names of pods;
//! - times, and durations that tell how long something took;
//! - messages while the phase is Progressing, and the reasons of Progressing that count pods; what the state says at the
//!   end of a section is kept;
//! - how many pods are ready on the way: of scalings in a row, in the same direction, only the first and last size;
//! - how Prometheus words that it cannot parse a query;
//! - an event that repeats the one before it, if it is a warning: retries come at other times.

mod facets;
mod state;

use std::collections::BTreeMap;
use std::fmt::Write;

pub use facets::hash_of;
use serde_json::Value;
pub use state::State;

const HASH: &str = "rollouts-pod-template-hash";
const MANAGED_BY: &str = "argo-rollouts.argoproj.io/managed-by-rollouts";
/// Annotation of an Experiment's ReplicaSets.
const TEMPLATE: &str = "experiment.argoproj.io/template-name";
const REVISION: &str = "rollout.argoproj.io/revision";

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Rollout,
    ReplicaSet,
    Service,
    Route,
    Ingress,
    VirtualService,
    DestinationRule,
    AnalysisRun,
    Experiment,
    Deployment,
    Pod,
    Event,
}

/// One version of an object.
#[derive(Clone, Debug)]
pub struct Change {
    pub revision: u64,
    pub kind: Kind,
    pub deleted: bool,
    pub object: Value,
}

/// A line of a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    lane: Lane,
    text: String,
    /// `text` is what comes before the sizes of a scaling.
    scaling: Option<(i64, i64)>,
    /// An event of type Warning.
    warning: bool,
}

/// What is listed apart, because its order among the rest means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    Cluster,
    Conditions,
    Experiments,
    Analysis,
    Events,
    AnalysisEvents,
    ExperimentEvents,
}

/// A step that did something.
#[derive(Clone, Debug)]
pub struct Section {
    /// As the scenario says it.
    pub text: String,
    /// The newest resourceVersion before it.
    pub after: u64,
    /// The state that was waited for.
    pub state: Option<String>,
}

impl Kind {
    pub const ALL: [Self; 12] = [
        Self::Rollout,
        Self::ReplicaSet,
        Self::Service,
        Self::Route,
        Self::Ingress,
        Self::VirtualService,
        Self::DestinationRule,
        Self::AnalysisRun,
        Self::Experiment,
        Self::Deployment,
        Self::Pod,
        Self::Event,
    ];

    /// Group, version, kind and plural.
    pub fn resource(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::Rollout => ("argoproj.io", "v1alpha1", "Rollout", "rollouts"),
            Self::ReplicaSet => ("apps", "v1", "ReplicaSet", "replicasets"),
            Self::Service => ("", "v1", "Service", "services"),
            Self::Route => ("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"),
            Self::Ingress => ("networking.k8s.io", "v1", "Ingress", "ingresses"),
            Self::VirtualService => ("networking.istio.io", "v1alpha3", "VirtualService", "virtualservices"),
            Self::DestinationRule => ("networking.istio.io", "v1alpha3", "DestinationRule", "destinationrules"),
            Self::AnalysisRun => ("argoproj.io", "v1alpha1", "AnalysisRun", "analysisruns"),
            Self::Experiment => ("argoproj.io", "v1alpha1", "Experiment", "experiments"),
            Self::Deployment => ("apps", "v1", "Deployment", "deployments"),
            Self::Pod => ("", "v1", "Pod", "pods"),
            Self::Event => ("", "v1", "Event", "events"),
        }
    }

    /// The kind with that plural.
    pub fn of(plural: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.resource().3 == plural)
    }
}

impl Line {
    fn of(text: String) -> Self {
        Self { lane: Lane::Cluster, text, scaling: None, warning: false }
    }

    /// What lines have in common that keep their order among themselves only: the type of a condition, the object or the
    /// template of an Experiment.
    fn subject(&self) -> Option<&str> {
        match self.lane {
            Lane::Conditions => self.text.split('=').next(),
            Lane::Experiments => self.text.split(": ").next(),
            Lane::ExperimentEvents => {
                let scaled = self.text.split_once(" ReplicaSet ").map(|(_, name)| name);
                Some(self.text.split('\'').nth(1).or(scaled).unwrap_or_default())
            }
            _ => None,
        }
    }

    fn print(&self) -> String {
        match self.scaling {
            Some((from, to)) => format!("{} from {from} to {to}", self.text),
            None => self.text.clone(),
        }
    }
}

/// The trace of a run.
pub fn render(title: &str, mut state: State, changes: &[Change], sections: &[Section]) -> String {
    let mut lines: Vec<Vec<Line>> = vec![Vec::new(); sections.len()];
    for change in changes {
        let index = sections.iter().rposition(|section| section.after < change.revision);
        for line in state.apply(change) {
            if let Some(section) = index.and_then(|index| lines.get_mut(index)) {
                add(section, line);
            }
        }
    }
    let mut text = format!("# {title}\n");
    for (section, lines) in sections.iter().zip(&mut lines) {
        // Stable: the order within a lane stays.
        lines.sort_by_key(|line| (line.lane, line.subject().map(str::to_owned)));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\n- {}", section.text);
        let mut lane = Lane::Cluster;
        for line in lines.iter() {
            if line.lane != lane {
                lane = line.lane;
                let heading = match lane {
                    Lane::Cluster => continue,
                    Lane::Conditions => "conditions",
                    Lane::Experiments => "experiments",
                    Lane::Analysis => "analysis",
                    Lane::Events => "events",
                    Lane::AnalysisEvents => "events of analysis runs",
                    Lane::ExperimentEvents => "events of experiments",
                };
                let _ = writeln!(text, "  {heading}");
            }
            let _ = writeln!(text, "    {}", line.print());
        }
        if let Some(state) = section.state.as_ref().filter(|state| !state.is_empty()) {
            let _ = writeln!(text, "  = {state}");
        }
    }
    text
}

/// Adds a line to its section, or to the scaling that it goes on with.
fn add(section: &mut Vec<Line>, line: Line) {
    let same_lane = |other: &&mut Line| other.lane == line.lane;
    if let Some((from, to)) = line.scaling {
        let mut run = section.iter_mut().rev().filter(same_lane).take_while(|other| other.scaling.is_some());
        let earlier = run.find(|other| other.text == line.text);
        if let Some((first, last)) = earlier.and_then(|earlier| earlier.scaling.as_mut())
            && *last == from
            && (*last > *first) == (to > from)
        {
            *last = to;
            return;
        }
    } else if line.warning && section.iter_mut().rev().find(same_lane).is_some_and(|last| *last == line) {
        return;
    }
    section.push(line);
}

/// Whether two traces tell the same. Events are written by a task of their own: on a busy machine one may come after the next
/// step has begun, and that means nothing as long as each list has its order.
pub fn is_same(expected: &str, found: &str) -> bool {
    events_apart(expected) == events_apart(found)
}

/// Whether a trace is the beginning of another one, events apart.
pub fn is_beginning(expected: &str, found: &str) -> bool {
    events_apart(expected).0.starts_with(&events_apart(found).0)
}

/// The trace without events, and the lists of events, each in its order.
fn events_apart(trace: &str) -> (String, BTreeMap<&str, Vec<&str>>) {
    let mut lists: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut rest = String::new();
    let mut list = None;
    for line in trace.lines() {
        if !line.starts_with("    ") {
            list = line.strip_prefix("  ").filter(|heading| heading.starts_with("events"));
            if list.is_some() {
                continue;
            }
        }
        match list {
            Some(heading) => lists.entry(heading).or_default().push(line),
            None => {
                rest.push_str(line);
                rest.push('\n');
            }
        }
    }
    (rest, lists)
}

/// The lines in which two texts differ, each with the section that it is in.
pub fn difference(expected: &str, found: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
    // The lengths of the longest common parts of what is left of both.
    let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] =
                if old[i] == new[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j) = (0, 0);
    let (mut section, mut shown) = ("", "");
    let mut text = String::new();
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            if new[j].starts_with("- ") {
                section = new[j];
            }
            (i, j) = (i + 1, j + 1);
            continue;
        }
        if section != shown {
            shown = section;
            let _ = writeln!(text, "  {section}");
        }
        if i < old.len() && (j == new.len() || common[i + 1][j] >= common[i][j + 1]) {
            let _ = writeln!(text, "- {}", old[i]);
            i += 1;
        } else {
            let _ = writeln!(text, "+ {}", new[j]);
            j += 1;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn change(revision: u64, kind: Kind, object: Value) -> Change {
        Change { revision, kind, deleted: false, object }
    }

    fn replica_set(hash: &str, replicas: i64) -> Value {
        json!({
            "metadata": {
                "name": format!("web-{hash}"),
                "labels": {HASH: hash},
                "annotations": {REVISION: "1"},
                "ownerReferences": [{"kind": "Rollout", "name": "web"}],
            },
            "spec": {"replicas": replicas},
        })
    }

    fn event(number: u64, kind: &str, reason: &str, message: &str) -> Value {
        json!({
            "metadata": {"name": format!("e{number}")}, "type": kind, "reason": reason, "message": message,
            "involvedObject": {"kind": "Rollout", "name": "web"},
        })
    }

    #[test]
    fn when_an_event_comes_means_nothing_but_its_order_does() {
        let trace =
            |first: &str, second: &str| format!("- a\n    x\n  events\n{first}  = A\n\n- b\n  events\n{second}  = B\n");
        let (one, two) = ("    One: 1\n", "    Two: 2\n");
        let in_time = trace(&format!("{one}{two}"), "");
        assert!(is_same(&in_time, &trace(one, two)));
        assert!(!is_same(&in_time, &trace(two, one)));
        assert!(!is_same(&in_time, &trace(one, "")));
    }

    #[test]
    fn a_trace_that_is_not_yet_whole_is_a_beginning() {
        let whole = "- a\n    x\n    y\n  events\n    One: 1\n  = A\n\n- b\n  = B\n";
        assert!(is_beginning(whole, "- a\n    x\n    y\n  = A\n"));
        assert!(is_beginning(whole, whole));
        assert!(!is_beginning(whole, "- a\n    x\n  = A\n"));
    }

    #[test]
    fn a_trace_has_what_a_user_would_notice() {
        let sections = [
            Section { text: "apply".to_owned(), after: 0, state: None },
            Section { text: "abort".to_owned(), after: 8, state: Some("Degraded".to_owned()) },
        ];
        let changes = [
            change(1, Kind::ReplicaSet, replica_set("abc", 0)),
            change(2, Kind::Event, event(1, "Normal", "ScalingReplicaSet", "Scaled up web-abc from 0 to 2")),
            change(3, Kind::ReplicaSet, replica_set("abc", 2)),
            change(4, Kind::Event, event(2, "Normal", "ScalingReplicaSet", "Scaled up web-abc from 2 to 5")),
            change(5, Kind::ReplicaSet, replica_set("abc", 5)),
            change(6, Kind::Event, event(3, "Warning", "Failed", "until 2026-01-01T00:00:00Z.")),
            change(7, Kind::Event, event(4, "Warning", "Failed", "until 2026-01-01T00:00:09Z.")),
            change(
                8,
                Kind::Rollout,
                json!({"metadata": {"name": "web"}, "status": {"phase": "Progressing", "message": "x"}}),
            ),
            change(
                9,
                Kind::Rollout,
                json!({"metadata": {"name": "web"}, "status": {"phase": "Degraded", "message": "by web-abc"}}),
            ),
        ];
        let expected = "\
# Title

- apply
    r1: created as revision 1, size 0
    r1: scaled from 0 to 5
    rollout web: Progressing
  events
    ScalingReplicaSet: Scaled up web-r1 from 0 to 5
    Warning Failed: until <time>.

- abort
    rollout web: Degraded: by web-r1
  = Degraded
";
        assert_eq!(render("Title", State::new("ns", "web"), &changes, &sections), expected);
    }

    #[test]
    fn a_difference_names_the_section() {
        let expected = "# T\n- apply\n  a\n- abort\n  b\n  c\n";
        let found = "# T\n- apply\n  a\n- abort\n  x\n  c\n";
        assert_eq!(difference(expected, found), "  - abort\n-   b\n+   x\n");
        assert_eq!(difference(found, found), "");
    }
}
