//! The objects of a run, and what a user would notice of each of their changes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::facets::*;
use super::{Change, Kind, Lane, Line, MANAGED_BY, REVISION, TEMPLATE};

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
        without_times(&without_counts(&without_parse_error(&message)))
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

/// By how much worse the canary is at least.
const BOUNDS: [&str; 2] = ["at least N times with", "more than N times stable's rate with"];
/// By how much on the whole; nothing is said of that where not one request to stable has failed.
const RATIO: &str = "N times the rate, ";

/// The judge's sentences, whose numbers no two runs in real time share.
fn without_counts(message: &str) -> String {
    let begin = message
        .match_indices("canary ")
        .find(|(at, words)| message[at + words.len()..].starts_with(|it: char| it.is_ascii_digit()));
    let Some((begin, _)) = begin.filter(|_| message.contains(" requests ")) else { return message.to_owned() };
    // In a summary there is more behind it.
    let end = message[begin..].find("; step ").map_or(message.len(), |end| begin + end);
    let mut plain = message[..begin].to_owned();
    let mut in_number = false;
    for it in message[begin..end].chars() {
        let goes_on = in_number && matches!(it, ',' | '.');
        if it.is_ascii_digit() && !in_number {
            plain.push('N');
        } else if !it.is_ascii_digit() && !goes_on {
            // A number does not end with a comma.
            plain.push(it);
        }
        in_number = it.is_ascii_digit() || goes_on;
    }
    // How sure the judge is when it is sure enough, depends on which requests fail.
    let plain = plain.replace(RATIO, "");
    let plain = BOUNDS.iter().fold(plain, |plain, bound| plain.replace(bound, "<bound> with"));
    without_length(&plain) + &message[end..]
}

/// `seen after 1 min 5 s` in one world is `seen after 58 s` in the other.
fn without_length(message: &str) -> String {
    const AFTER: &str = "seen after ";
    let Some((before, length)) = message.split_once(AFTER) else { return message.to_owned() };
    let rest = length.find(';').map_or("", |end| &length[end..]);
    format!("{before}{AFTER}<time>{rest}")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_chance_says_of_a_verdict_is_left_out() {
        let said = |how: &str| {
            without_counts(&format!(
                "assessed Failed: canary 23 of 1,204 requests failed, stable 11 of 22,871: {how} with 99% confidence; seen \
                 after 58 s; step 0 of 2"
            ))
        };
        let plain = "assessed Failed: canary N of N requests failed, stable N of N: <bound> with N% confidence; seen after \
                     <time>; step 0 of 2";
        for how in ["at least 8 times", "more than 1.25 times stable's rate"] {
            assert_eq!(said(how), plain);
            assert_eq!(said(&format!("40 times the rate, {how}")), plain);
        }
        assert_ne!(said("more than stable"), plain);
    }
}
