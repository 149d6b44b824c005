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

use std::collections::BTreeMap;
use std::fmt::Write;

use jiff::Timestamp;
use serde_json::Value;

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

/// The objects of a namespace at one time, and what they are called in a trace.
#[derive(Clone, Debug)]
pub struct State {
    namespace: String,
    rollout: String,
    objects: BTreeMap<(Kind, String), Value>,
    /// ReplicaSets by name, in the order in which they were made: the first is `r1`.
    replica_sets: Vec<String>,
    /// How many ReplicaSets Experiments have made.
    trials: usize,
    /// How many pods were deleted, by the name of their ReplicaSet.
    lost: BTreeMap<String, usize>,
    /// A hash and what stands for it, the longest first.
    names: Vec<(String, String)>,
}

impl State {
    pub fn new(namespace: &str, rollout: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            rollout: rollout.to_owned(),
            objects: BTreeMap::new(),
            replica_sets: Vec::new(),
            trials: 0,
            lost: BTreeMap::new(),
            names: Vec::new(),
        }
    }

    /// The Rollout that the scenario is about; null if there is none.
    pub fn rollout(&self) -> &Value {
        self.object(Kind::Rollout, &self.rollout)
    }

    /// An object; null if there is none.
    pub fn object(&self, kind: Kind, name: &str) -> &Value {
        self.objects.get(&(kind, name.to_owned())).unwrap_or(&Value::Null)
    }

    /// The N-th ReplicaSet that was made, counted from 1, if it is still there.
    pub fn replica_set(&self, number: usize) -> Option<&Value> {
        let name = self.replica_sets.get(number.checked_sub(1)?)?;
        self.objects.get(&(Kind::ReplicaSet, name.clone()))
    }

    /// The pods of the N-th ReplicaSet that are not about to go.
    pub fn pods(&self, number: usize) -> impl Iterator<Item = &Value> {
        let set = number.checked_sub(1).and_then(|index| self.replica_sets.get(index));
        let pods = self.objects.iter().filter(|((kind, _), _)| *kind == Kind::Pod).map(|(_, pod)| pod);
        pods.filter(move |pod| {
            set.is_some_and(|set| owner(pod) == set) && pod["metadata"]["deletionTimestamp"].is_null()
        })
    }

    /// How many pods the N-th ReplicaSet has lost so far.
    pub fn lost(&self, number: usize) -> usize {
        let set = number.checked_sub(1).and_then(|index| self.replica_sets.get(index));
        set.and_then(|set| self.lost.get(set)).copied().unwrap_or(0)
    }

    /// Whether there has been an N-th ReplicaSet.
    pub fn has_seen(&self, number: usize) -> bool {
        (1..=self.replica_sets.len()).contains(&number)
    }

    /// The name of an object that has this name in traces.
    pub fn real_name(&self, kind: Kind, name: &str) -> String {
        let mut names = self.objects.keys().filter(|(of, _)| *of == kind).map(|(_, real)| real);
        names.find(|real| self.plain(real) == name).cloned().unwrap_or_else(|| name.to_owned())
    }

    /// An Experiment by its name in traces.
    pub fn experiment(&self, name: &str) -> Option<&Value> {
        self.called(Kind::Experiment, name)
    }

    /// An AnalysisRun by its name in traces.
    pub fn run(&self, name: &str) -> Option<&Value> {
        self.called(Kind::AnalysisRun, name)
    }

    fn called(&self, kind: Kind, name: &str) -> Option<&Value> {
        let mut objects = self.objects.iter().filter(|((of, _), _)| *of == kind);
        objects.find(|((_, real), _)| self.plain(real) == name).map(|(_, object)| object)
    }

    /// The newest ReplicaSet of an Experiment's template.
    pub fn template(&self, name: &str) -> Option<&Value> {
        let sets = self.objects.iter().filter(|((kind, _), set)| *kind == Kind::ReplicaSet && of_experiment(set));
        let sets = sets.map(|(_, set)| set).filter(|set| set["metadata"]["annotations"][TEMPLATE] == name);
        sets.max_by_key(|set| text(&set["metadata"]["creationTimestamp"]).to_owned())
    }

    /// How many objects of a kind there are.
    pub fn count(&self, kind: Kind) -> usize {
        self.objects.keys().filter(|(of, _)| *of == kind).count()
    }

    /// Takes a change in, and answers what a user would notice of it.
    pub fn apply(&mut self, change: &Change) -> Vec<Line> {
        let name = text(&change.object["metadata"]["name"]).to_owned();
        let key = (change.kind, name.clone());
        if change.kind == Kind::ReplicaSet && !self.replica_sets.contains(&name) && self.is_mine(&change.object) {
            self.replica_sets.push(name.clone());
            let hash = hash_of(&change.object);
            if !hash.is_empty() {
                self.names.push((hash.to_owned(), format!("r{}", self.replica_sets.len())));
            }
        }
        if change.kind == Kind::Pod && change.deleted {
            *self.lost.entry(owner(&change.object).to_owned()).or_default() += 1;
        }
        let before = self.objects.get(&key).cloned();
        if change.kind == Kind::ReplicaSet && before.is_none() && of_experiment(&change.object) {
            self.trials += 1;
            self.names.push((hash_of(&change.object).to_owned(), format!("x{}", self.trials)));
        }
        let after = (!change.deleted).then(|| change.object.clone());
        let lines = self.lines(change.kind, &name, before.as_ref(), after.as_ref());
        match after {
            Some(object) => drop(self.objects.insert(key, object)),
            None => drop(self.objects.remove(&key)),
        }
        lines
    }

    /// The state in one line.
    pub fn summary(&self) -> String {
        let rollout = self.rollout();
        let status = &rollout["status"];
        let mut parts = vec![phase(status, true)];
        parts.extend(step(rollout));
        for number in 1..=self.replica_sets.len() {
            let Some(set) = self.replica_set(number) else { continue };
            let count = |value: &Value| value.as_i64().unwrap_or(0);
            let (wanted, available) = (count(&set["spec"]["replicas"]), count(&set["status"]["availableReplicas"]));
            let stable = if status["stableRS"] == hash_of(set) { " stable" } else { "" };
            parts.push(format!("r{number}{stable} {available}/{wanted}"));
        }
        for ((kind, name), object) in &self.objects {
            match kind {
                Kind::Experiment => {
                    parts.push(format!("experiment {name} {}", text(&object["status"]["phase"])));
                }
                Kind::ReplicaSet if of_experiment(object) => {
                    let size = object["spec"]["replicas"].as_i64().unwrap_or(1);
                    let available = object["status"]["availableReplicas"].as_i64().unwrap_or(0);
                    parts.push(format!("{name} {available}/{size}"));
                }
                Kind::Route => parts.push(format!("route {name} {}", route(object))),
                Kind::VirtualService => parts.push(format!("virtualservice {name} {}", virtual_service(object))),
                Kind::DestinationRule => parts.push(format!("destinationrule {name} {}", subsets(object))),
                Kind::Ingress => parts.extend(canary_weight(object).map(|weight| format!("ingress {name} {weight}"))),
                _ => {}
            }
        }
        self.plain(&parts.join("; "))
    }

    /// Without hashes and times.
    pub fn plain(&self, message: &str) -> String {
        let mut message = message.to_owned();
        for (_, pod) in self.objects.keys().filter(|(kind, _)| *kind == Kind::Pod) {
            message = message.replace(pod.as_str(), "<pod>");
        }
        for (hash, name) in &self.names {
            message = message.replace(hash, name);
        }
        without_times(&without_parse_error(&message))
    }

    fn is_mine(&self, replica_set: &Value) -> bool {
        let owners = replica_set["metadata"]["ownerReferences"].as_array();
        owners.into_iter().flatten().any(|owner| owner["kind"] == "Rollout" && owner["name"] == self.rollout.as_str())
    }

    fn lines(&self, kind: Kind, name: &str, before: Option<&Value>, after: Option<&Value>) -> Vec<Line> {
        match kind {
            Kind::Rollout => {
                let what = format!("rollout {name}");
                let mut lines = self.differences(&what, rollout_facets, before, after);
                if let Some(after) = after {
                    let mut conditions = self.differences(&what, condition_facets, before, Some(after));
                    conditions.iter_mut().for_each(|line| line.lane = Lane::Conditions);
                    lines.extend(conditions);
                }
                lines
            }
            Kind::ReplicaSet => self.replica_set_lines(name, before, after),
            Kind::Service => {
                let mut lines = self.differences(&format!("service {name}"), service_facets, before, after);
                if after.or(before).is_some_and(of_experiment) {
                    lines = self.of_trial(lines);
                }
                lines
            }
            Kind::Experiment => {
                let lines = self.differences(&format!("experiment {name}"), experiment_facets, before, after);
                self.of_trial(lines)
            }
            Kind::Route => self.differences(&format!("route {name}"), |it| vec![("", Some(route(it)))], before, after),
            Kind::Ingress => {
                let facets =
                    |ingress: &Value| vec![("", canary_weight(ingress).map(|it| format!("canary weight {it}")))];
                self.differences(&format!("ingress {name}"), facets, before, after)
            }
            Kind::VirtualService => {
                let facets = |it: &Value| vec![("", Some(virtual_service(it)))];
                self.differences(&format!("virtualservice {name}"), facets, before, after)
            }
            Kind::DestinationRule => {
                let manager = |it: &Value| {
                    it["metadata"]["annotations"][MANAGED_BY].as_str().map(|by| format!("managed by {by}"))
                };
                let facets = |it: &Value| vec![("subsets", Some(subsets(it))), ("manager", manager(it))];
                self.differences(&format!("destinationrule {name}"), facets, before, after)
            }
            Kind::Deployment => match (before.map(size), after.map(size)) {
                (Some(before), Some(after)) if before != after => {
                    let scaling = Some((before, after));
                    vec![Line { scaling, ..Line::of(format!("deployment {name}: scaled")) }]
                }
                _ => Vec::new(),
            },
            Kind::Pod => Vec::new(),
            Kind::AnalysisRun => {
                let name = self.plain(name);
                let mut lines = self.differences(&format!("analysis {name}"), analysis_facets, before, after);
                if after.or(before).is_some_and(of_experiment) {
                    return self.of_trial(lines);
                }
                lines.iter_mut().for_each(|line| line.lane = Lane::Analysis);
                lines
            }
            Kind::Event => self.event_lines(before, after),
        }
    }

    /// What is said anew about an object.
    fn differences(
        &self,
        what: &str,
        facets: impl Fn(&Value) -> Vec<(&'static str, Option<String>)>,
        before: Option<&Value>,
        after: Option<&Value>,
    ) -> Vec<Line> {
        let Some(after) = after else { return vec![Line::of(format!("{what}: deleted"))] };
        let known = before.map(&facets).unwrap_or_default();
        let said = |name: &str| known.iter().find(|(of, _)| *of == name).and_then(|(_, text)| text.clone());
        let mut lines = Vec::new();
        for (name, text) in facets(after) {
            if said(name) == text {
                continue;
            }
            let text = text.unwrap_or_else(|| format!("no {name}"));
            lines.push(Line::of(format!("{what}: {}", self.plain(&text))));
        }
        lines
    }

    /// Lines about what belongs to an Experiment.
    fn of_trial(&self, mut lines: Vec<Line>) -> Vec<Line> {
        for line in &mut lines {
            line.lane = Lane::Experiments;
            line.text = self.plain(&line.text);
        }
        lines
    }

    fn replica_set_lines(&self, name: &str, before: Option<&Value>, after: Option<&Value>) -> Vec<Line> {
        let number = self.replica_sets.iter().position(|known| known == name);
        let Some(number) = number else {
            if !after.or(before).is_some_and(of_experiment) {
                // A ReplicaSet of somebody else.
                return Vec::new();
            }
            return self.of_trial(self.scaling_lines(&format!("pods {name}"), before, after));
        };
        self.scaling_lines(&format!("r{}", number + 1), before, after)
    }

    /// What happens to a ReplicaSet.
    fn scaling_lines(&self, called: &str, before: Option<&Value>, after: Option<&Value>) -> Vec<Line> {
        let Some(after) = after else { return vec![Line::of(format!("{called}: deleted"))] };
        let note = |set: &Value, key: &str| set["metadata"]["annotations"][key].as_str().map(str::to_owned);
        let revision = |set: &Value| note(set, REVISION);
        let deadline = |set: &Value| note(set, "scale-down-deadline").is_some();
        let metadata = |set: &Value| note(set, "rollout.argoproj.io/ephemeral-metadata").unwrap_or("none".to_owned());
        let far = |set: &Value| self.plain(&keeps_off(set));
        let Some(before) = before else {
            // The ReplicaSets of Experiments have none.
            let number = revision(after).map_or_else(String::new, |number| format!(" as revision {number},"));
            let mut created = format!("{called}: created{number} size {}", size(after));
            if metadata(after) != "none" {
                created.push_str(&format!(", pods with {}", metadata(after)));
            }
            if !far(after).is_empty() {
                created.push_str(&format!(", off the nodes of {}", far(after)));
            }
            return vec![Line::of(created)];
        };
        let mut lines = Vec::new();
        if metadata(before) != metadata(after) {
            lines.push(Line::of(format!("{called}: metadata of pods {}", metadata(after))));
        }
        if far(before) != far(after) {
            lines.push(Line::of(format!("{called}: off the nodes of {}", far(after))));
        }
        if revision(before) != revision(after) {
            lines.push(Line::of(format!("{called}: is now revision {}", revision(after).unwrap_or_default())));
        }
        if size(before) != size(after) {
            let scaling = Some((size(before), size(after)));
            lines.push(Line { scaling, ..Line::of(format!("{called}: scaled")) });
        }
        if deadline(before) != deadline(after) {
            let what = if deadline(after) { "is to be scaled down later" } else { "is not to be scaled down later" };
            lines.push(Line::of(format!("{called}: {what}")));
        }
        lines
    }

    fn event_lines(&self, before: Option<&Value>, after: Option<&Value>) -> Vec<Line> {
        let Some(event) = after else { return Vec::new() };
        let about = &event["involvedObject"];
        let (kind, name) = (text(&about["kind"]), text(&about["name"]));
        let (lane, who) = match kind {
            "Rollout" if name == self.rollout => (Lane::Events, String::new()),
            "Rollout" => (Lane::Events, format!("{name}: ")),
            "AnalysisRun" => (Lane::AnalysisEvents, format!("{}: ", self.plain(name))),
            "Experiment" => (Lane::ExperimentEvents, format!("{}: ", self.plain(name))),
            _ => return Vec::new(),
        };
        let count = |event: &Value| event["count"].as_i64().or(event["series"]["count"].as_i64()).unwrap_or(1);
        let times = count(event) - before.map_or(0, count);
        let warning = event["type"] == "Warning";
        let mark = if warning { "Warning " } else { "" };
        let message = self.plain(text(&event["message"])).replace(&format!("{}/", self.namespace), "");
        let (message, scaling) = match scaling(&message) {
            Some((what, scaling)) => (what, Some(scaling)),
            None => (message, None),
        };
        let text = format!("{who}{mark}{}: {message}", text(&event["reason"]));
        let line = Line { lane, text, scaling, warning };
        // An event that is counted up has happened again.
        vec![line; usize::try_from(times).unwrap_or(0).min(100)]
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

fn rollout_facets(rollout: &Value) -> Vec<(&'static str, Option<String>)> {
    let status = &rollout["status"];
    let hash = |field: &str, what: &str| {
        let hash = status[field].as_str().filter(|hash| !hash.is_empty());
        hash.map(|hash| format!("{what} {hash}"))
    };
    let blue_green = |field: &str, what: &str| {
        let hash = status["blueGreen"][field].as_str().filter(|hash| !hash.is_empty());
        hash.map(|hash| format!("{what} {hash}"))
    };
    let weights = &status["canary"]["weights"];
    let weight = |who: &str| weights[who]["weight"].as_i64().unwrap_or(0);
    let asked = &rollout["spec"]["restartAt"];
    let restart = (!asked.is_null() && *asked != status["restartedAt"]).then(|| "restart asked for".to_owned());
    let recorded = || format!("weights: canary {}, stable {}", weight("canary"), weight("stable"));
    vec![
        ("current revision", hash("currentPodHash", "current revision")),
        ("step", status["currentStepIndex"].as_i64().map(|index| format!("step {index}"))),
        ("abort", (status["abort"] == true).then(|| "aborted".to_owned())),
        ("weights", weights.is_object().then(recorded)),
        ("active revision", blue_green("activeSelector", "active revision")),
        ("preview revision", blue_green("previewSelector", "preview revision")),
        ("full preview", (status["blueGreen"]["scaleUpPreviewCheckPoint"] == true).then(|| "full preview".to_owned())),
        ("stable revision", hash("stableRS", "stable revision")),
        ("pause", pauses(status)),
        ("restart", restart),
        ("phase", status["phase"].is_string().then(|| phase(status, false))),
    ]
}

fn condition_facets(rollout: &Value) -> Vec<(&'static str, Option<String>)> {
    let names = ["InvalidSpec", "Paused", "Progressing", "Completed", "Healthy"];
    names.map(|name| (name, condition(&rollout["status"], name))).to_vec()
}

fn pauses(status: &Value) -> Option<String> {
    let pauses = status["pauseConditions"].as_array().filter(|pauses| !pauses.is_empty())?;
    let reasons: Vec<_> = pauses.iter().map(|pause| text(&pause["reason"])).collect();
    Some(format!("pause {}", reasons.join(", ")))
}

fn step(rollout: &Value) -> Option<String> {
    let index = rollout["status"]["currentStepIndex"].as_i64()?;
    let count = rollout["spec"]["strategy"]["canary"]["steps"].as_array().map_or(0, Vec::len);
    Some(format!("step {index} of {count}"))
}

fn phase(status: &Value, with_message: bool) -> String {
    let (phase, message) = (text(&status["phase"]), text(&status["message"]));
    if message.is_empty() || phase == "Progressing" && !with_message {
        return phase.to_owned();
    }
    format!("{phase}: {message}")
}

fn condition(status: &Value, name: &str) -> Option<String> {
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    let condition = conditions.find(|condition| condition["type"] == name)?;
    let (value, reason) = (text(&condition["status"]), text(&condition["reason"]));
    let progressing = ["NewReplicaSetCreated", "FoundNewReplicaSet", "ReplicaSetUpdated", "ReplicaSetNotAvailable"];
    if progressing.contains(&reason) {
        return Some(format!("{name}={value}"));
    }
    Some(format!("{name}={value} {reason}"))
}

fn size(object: &Value) -> i64 {
    object["spec"]["replicas"].as_i64().unwrap_or(1)
}

/// The name of what controls an object.
fn owner(object: &Value) -> &str {
    let owners = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    owners.map(|owner| text(&owner["name"])).next().unwrap_or_default()
}

/// The hashes of the revisions whose nodes the pods of a ReplicaSet avoid, and how strictly.
fn keeps_off(replica_set: &Value) -> String {
    let rules = &replica_set["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"];
    let mut texts = Vec::new();
    for (field, term, how) in [
        ("requiredDuringSchedulingIgnoredDuringExecution", "", "required"),
        ("preferredDuringSchedulingIgnoredDuringExecution", "/podAffinityTerm", "preferred"),
    ] {
        for rule in rules[field].as_array().into_iter().flatten() {
            let expression = rule.pointer(&format!("{term}/labelSelector/matchExpressions/0")).unwrap_or(&Value::Null);
            if expression["key"] == HASH {
                texts.push(format!("{} ({how})", text(&expression["values"][0])));
            }
        }
    }
    texts.join(", ")
}

fn service_facets(service: &Value) -> Vec<(&'static str, Option<String>)> {
    let hash = service["spec"]["selector"][HASH].as_str();
    vec![("revision selected", Some(hash.map_or("selects no revision".to_owned(), |hash| format!("selects {hash}"))))]
}

/// The weights of each rule, in the order of the route.
fn route(route: &Value) -> String {
    let rules = route["spec"]["rules"].as_array().cloned().unwrap_or_default();
    let rules: Vec<String> = rules
        .iter()
        .map(|rule| {
            let backends = rule["backendRefs"].as_array().into_iter().flatten();
            let backends = backends
                .map(|backend| format!("{} {}", text(&backend["name"]), backend["weight"].as_i64().unwrap_or(1)));
            let filters = rule["filters"].as_array().into_iter().flatten().filter(|it| it["type"] == "RequestMirror");
            let mirrors = filters.map(|filter| {
                let mirror = &filter["requestMirror"];
                let percent = mirror["percent"].as_i64().unwrap_or(100);
                format!("{percent}% mirrored to {}", text(&mirror["backendRef"]["name"]))
            });
            let header = |header: &Value| format!("{}={}", text(&header["name"]), text(&header["value"]));
            let headers = rule["matches"].as_array().into_iter().flatten();
            let headers = headers.flat_map(|one| one["headers"].as_array().into_iter().flatten()).map(header);
            format!("{}{}", only(headers.collect()), backends.chain(mirrors).collect::<Vec<_>>().join(", "))
        })
        .collect();
    rules.join(" | ")
}

/// The destinations of each route with their weights, in the order of the object.
fn virtual_service(object: &Value) -> String {
    let routes =
        ["http", "tls", "tcp"].into_iter().flat_map(|kind| object["spec"][kind].as_array().into_iter().flatten());
    let routes = routes.map(|route| {
        let to = |destination: &Value| {
            destination["subset"].as_str().unwrap_or_else(|| text(&destination["host"])).to_owned()
        };
        let destinations = route["route"].as_array().into_iter().flatten();
        let destinations =
            destinations.map(|it| format!("{} {}", to(&it["destination"]), it["weight"].as_i64().unwrap_or(0)));
        let percent = &route["mirrorPercentage"]["value"];
        let mirror = route["mirror"].is_object().then(|| format!("{percent}% mirrored to {}", to(&route["mirror"])));
        let header = |(name, value): (&String, &Value)| {
            let value = value.as_object().and_then(|value| value.values().next()).map_or("", text);
            format!("{name}={value}")
        };
        let headers = route["match"].as_array().into_iter().flatten();
        let headers = headers.flat_map(|one| one["headers"].as_object().into_iter().flatten()).map(header);
        let name = route["name"].as_str().map_or(String::new(), |name| format!("{name}: "));
        format!("{name}{}{}", only(headers.collect()), destinations.chain(mirror).collect::<Vec<_>>().join(", "))
    });
    routes.collect::<Vec<_>>().join(" | ")
}

/// What requests must have for a rule.
fn only(headers: Vec<String>) -> String {
    if headers.is_empty() { String::new() } else { format!("[{}] ", headers.join(", ")) }
}

/// The revision of each subset.
fn subsets(rule: &Value) -> String {
    let subsets = rule["spec"]["subsets"].as_array().into_iter().flatten();
    let subsets =
        subsets.map(|it| format!("{} {}", text(&it["name"]), it["labels"][HASH].as_str().unwrap_or("no revision")));
    subsets.collect::<Vec<_>>().join(", ")
}

fn canary_weight(ingress: &Value) -> Option<&str> {
    ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/canary-weight"].as_str()
}

fn analysis_facets(run: &Value) -> Vec<(&'static str, Option<String>)> {
    let status = &run["status"];
    let phase = status["phase"].as_str().map(|phase| match text(&status["message"]) {
        "" => phase.to_owned(),
        message => format!("{phase}: {message}"),
    });
    vec![("", Some(phase.unwrap_or_else(|| "created".to_owned()))), ("termination", terminated(run))]
}

fn experiment_facets(experiment: &Value) -> Vec<(&'static str, Option<String>)> {
    let mut facets = analysis_facets(experiment);
    facets.push(("InvalidSpec", condition(&experiment["status"], "InvalidSpec")));
    facets
}

/// Whether an Experiment controls the object.
fn of_experiment(object: &Value) -> bool {
    let owners = object["metadata"]["ownerReferences"].as_array();
    owners.into_iter().flatten().any(|owner| owner["kind"] == "Experiment")
}

fn terminated(run: &Value) -> Option<String> {
    (run["spec"]["terminate"] == true).then(|| "told to end".to_owned())
}

/// The hash of a ReplicaSet.
pub fn hash_of(replica_set: &Value) -> &str {
    text(&replica_set["metadata"]["labels"][HASH])
}

/// Splits `… from 1 to 3`.
fn scaling(message: &str) -> Option<(String, (i64, i64))> {
    let (what, sizes) = message.rsplit_once(" from ")?;
    let (from, to) = sizes.split_once(" to ")?;
    Some((what.to_owned(), (from.parse().ok()?, to.parse().ok()?)))
}

fn without_parse_error(message: &str) -> String {
    const BEFORE: &str = "invalid parameter \"query\": ";
    let Some((before, after)) = message.split_once(BEFORE) else { return message.to_owned() };
    let rest = after.find('"').map_or("", |end| &after[end..]);
    format!("{before}{BEFORE}<parse error>{rest}")
}

fn without_times(message: &str) -> String {
    let mut plain = String::new();
    for (index, word) in message.split(' ').enumerate() {
        if index > 0 {
            plain.push(' ');
        }
        let core = word.trim_matches(|edge: char| !edge.is_ascii_alphanumeric());
        if core.len() > 10 && core.parse::<Timestamp>().is_ok() {
            plain.push_str(&word.replace(core, "<time>"));
        } else {
            plain.push_str(word);
        }
    }
    plain
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The trace with all events at its end, each list in its order. Events are written by a task of their own: on a busy
/// machine one may come after the next step has begun, and that means nothing.
pub fn with_events_apart(trace: &str) -> String {
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
    for (heading, events) in lists {
        rest.push_str(&format!("{heading}\n{}\n", events.join("\n")));
    }
    rest
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
        let in_time = with_events_apart(&trace(&format!("{one}{two}"), ""));
        assert_eq!(in_time, with_events_apart(&trace(one, two)));
        assert_ne!(in_time, with_events_apart(&trace(two, one)));
        assert_ne!(in_time, with_events_apart(&trace(one, "")));
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
