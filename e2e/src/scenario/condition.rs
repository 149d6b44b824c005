//! What can be waited for, expected, or held.
//!
//! | condition | holds when |
//! |---|---|
//! | `phase is PHASE` | a client that knows the rules of status sees this phase: an older spec's phase does not count |
//! | `step is N` | `status.currentStepIndex` |
//! | `message says "TEXT"` | `status.message` contains it |
//! | `TYPE is STATUS`, `TYPE is STATUS because REASON` | a condition, such as `Progressing is False because RolloutAborted` |
//! | `weight is N` | the canary's recorded weight, `status.canary.weights.canary.weight` |
//! | `route NAME sends N to SERVICE` | an HTTPRoute's weight in every rule that knows the Service and another one |
//! | `route NAME has N rules` | |
//! | `virtualservice NAME sends N to DESTINATION` | the same of Istio; the destination is a host or a subset |
//! | `virtualservice NAME has N routes` | for HTTP |
//! | `subset SUBSET of NAME selects rN` | of a DestinationRule |
//! | `destinationrule NAME is released` | no subset selects a revision, and no Rollout has marked it as its own |
//! | `ingress NAME sends N` | the canary weight of an ingress-nginx Ingress |
//! | `rN has M pods` | the N-th ReplicaSet that was made wants M pods and has them, all available |
//! | `rN wants M pods` | its `spec.replicas` |
//! | `rN is gone` | it was deleted |
//! | `rN keeps M pods` | at least M pods are available |
//! | `rN has lost M pods` | of its pods, M were deleted since the beginning |
//! | `pods of rN have KEY=VALUE`, `pods of rN lack KEY` | as a label or as an annotation; every one of them, and there is one |
//! | `deployment NAME wants N pods` | its `spec.replicas` |
//! | `service NAME selects rN` | |
//! | `there are N replicasets`, `there are N analysisruns`, `there are N experiments` | of all |
//! | `experiment NAME is PHASE`, `run NAME is PHASE` | NAME as traces have it; a run is an AnalysisRun |
//! | `run NAME is gone` | it was deleted |
//! | `run NAME has M measurements` | of all of its metrics, those that are kept |
//! | `template NAME has M pods`, `template NAME wants M pods` | the newest ReplicaSet of an Experiment's template |
//! | `step analysis is PHASE`, and `background`, `pre-promotion`, `post-promotion` | as the Rollout's status says |
//! | `the autoscaler sees N pods` | `status.HPAReplicas` |
//! | `event REASON` | such an event was there since the last step that did something |
//!
//! Several are joined by `and`.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::trace::{Kind, State, hash_of};
use super::words::Words;

/// One or more conditions that hold together.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition(Vec<Term>);

#[derive(Clone, Debug, PartialEq)]
enum Term {
    Phase(String),
    Step(i64),
    Message(String),
    Type { name: String, status: String, reason: Option<String> },
    Weight(i64),
    Route { kind: Kind, name: String, weight: i64, to: String },
    Rules { kind: Kind, name: String, count: usize },
    Subset { rule: String, name: String, revision: usize },
    Released { rule: String },
    Ingress { name: String, weight: i64 },
    Pods { revision: usize, count: i64, there: bool },
    Gone { revision: usize },
    Keeps { revision: usize, count: i64 },
    Lost { revision: usize, count: usize },
    Metadata { revision: usize, key: String, value: Option<String> },
    Deployment { name: String, count: i64 },
    Service { name: String, revision: usize },
    Count { kind: Kind, count: usize },
    Analysis { strategy: &'static str, field: &'static str, phase: String },
    Autoscaler(i64),
    Experiment { name: String, phase: String },
    Run { name: String, phase: String },
    RunGone { name: String },
    Measurements { name: String, count: usize },
    Template { name: String, count: i64, there: bool },
    Event(String),
}

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(words: &mut Words<'_>) -> Result<Self> {
        let mut terms = vec![Term::parse(words)?];
        while words.take("and") {
            terms.push(Term::parse(words)?);
        }
        Ok(Self(terms))
    }

    /// Whether it holds; `events` are the reasons of those that count.
    pub fn holds(&self, state: &State, events: &[String]) -> bool {
        self.0.iter().all(|term| term.holds(state, events))
    }
}

impl Term {
    fn parse(words: &mut Words<'_>) -> Result<Self> {
        Ok(match words.word("a condition")? {
            "phase" => words.expect("is").and_then(|()| text(words)).map(Self::Phase)?,
            "step" if words.take("analysis is") => {
                Self::Analysis { strategy: "canary", field: "currentStepAnalysisRunStatus", phase: text(words)? }
            }
            "background" => {
                words.expect("analysis is")?;
                Self::Analysis { strategy: "canary", field: "currentBackgroundAnalysisRunStatus", phase: text(words)? }
            }
            when @ ("pre-promotion" | "post-promotion") => {
                words.expect("analysis is")?;
                let field = match when {
                    "pre-promotion" => "prePromotionAnalysisRunStatus",
                    _ => "postPromotionAnalysisRunStatus",
                };
                Self::Analysis { strategy: "blueGreen", field, phase: text(words)? }
            }
            "the" => {
                words.expect("autoscaler sees")?;
                let count = words.number()?;
                words.expect("pods").map(|()| Self::Autoscaler(count))?
            }
            "step" => words.expect("is").and_then(|()| words.number()).map(Self::Step)?,
            "message" => words.expect("says").and_then(|()| text(words)).map(Self::Message)?,
            "weight" => words.expect("is").and_then(|()| words.number()).map(Self::Weight)?,
            kind @ ("route" | "virtualservice") => {
                let (kind, rules) = match kind {
                    "route" => (Kind::Route, "rules"),
                    _ => (Kind::VirtualService, "routes"),
                };
                let name = text(words)?;
                if words.take("has") {
                    let count = usize::try_from(words.number()?).context("a count is not negative")?;
                    words.expect(rules)?;
                    return Ok(Self::Rules { kind, name, count });
                }
                words.expect("sends")?;
                let weight = words.number()?;
                words.expect("to")?;
                Self::Route { kind, name, weight, to: text(words)? }
            }
            "subset" => {
                let name = text(words)?;
                words.expect("of")?;
                let rule = text(words)?;
                words.expect("selects")?;
                Self::Subset { rule, name, revision: revision(words.word("rN")?)? }
            }
            "destinationrule" => {
                let rule = text(words)?;
                words.expect("is released").map(|()| Self::Released { rule })?
            }
            "ingress" => {
                let name = text(words)?;
                words.expect("sends")?;
                Self::Ingress { name, weight: words.number()? }
            }
            "service" => {
                let name = text(words)?;
                words.expect("selects")?;
                Self::Service { name, revision: revision(words.word("rN")?)? }
            }
            "there" => {
                words.expect("are")?;
                let count = usize::try_from(words.number()?).context("a count is not negative")?;
                let kind = match words.word("what there are")? {
                    "replicasets" => Kind::ReplicaSet,
                    "analysisruns" => Kind::AnalysisRun,
                    "experiments" => Kind::Experiment,
                    other => bail!("{other:?} cannot be counted"),
                };
                Self::Count { kind, count }
            }
            "pods" => {
                words.expect("of")?;
                let revision = revision(words.word("rN")?)?;
                if words.take("lack") {
                    return Ok(Self::Metadata { revision, key: text(words)?, value: None });
                }
                words.expect("have")?;
                let pair = text(words)?;
                let (key, value) = pair.split_once('=').context("KEY=VALUE is expected")?;
                Self::Metadata { revision, key: key.to_owned(), value: Some(value.to_owned()) }
            }
            "deployment" => {
                let name = text(words)?;
                words.expect("wants")?;
                let count = words.number()?;
                words.expect("pods")?;
                Self::Deployment { name, count }
            }
            "event" => Self::Event(text(words)?),
            "experiment" => {
                let name = text(words)?;
                words.expect("is")?;
                Self::Experiment { name, phase: text(words)? }
            }
            "run" => {
                let name = text(words)?;
                if words.take("has") {
                    let count = usize::try_from(words.number()?).context("a count is not negative")?;
                    words.expect("measurements")?;
                    return Ok(Self::Measurements { name, count });
                }
                words.expect("is")?;
                if words.take("gone") { Self::RunGone { name } } else { Self::Run { name, phase: text(words)? } }
            }
            "template" => {
                let name = text(words)?;
                let (count, there) = pods(words)?;
                Self::Template { name, count, there }
            }
            name if revision(name).is_ok() => {
                let revision = revision(name)?;
                if words.take("is gone") {
                    return Ok(Self::Gone { revision });
                }
                if words.take("has lost") {
                    let count = usize::try_from(words.number()?).context("a count is not negative")?;
                    if !words.take("pod") {
                        words.expect("pods")?;
                    }
                    return Ok(Self::Lost { revision, count });
                }
                if words.take("keeps") {
                    let count = words.number()?;
                    if !words.take("pod") {
                        words.expect("pods")?;
                    }
                    return Ok(Self::Keeps { revision, count });
                }
                let (count, there) = pods(words)?;
                Self::Pods { revision, count, there }
            }
            name if name.starts_with(|first: char| first.is_ascii_uppercase()) => {
                words.expect("is")?;
                let status = text(words)?;
                let reason = if words.take("because") { Some(text(words)?) } else { None };
                Self::Type { name: name.to_owned(), status, reason }
            }
            other => bail!("{other:?} does not begin a condition"),
        })
    }

    fn holds(&self, state: &State, events: &[String]) -> bool {
        let rollout = state.rollout();
        let status = &rollout["status"];
        match self {
            Self::Phase(phase) => client_phase(rollout) == phase,
            Self::Step(step) => status["currentStepIndex"].as_i64() == Some(*step),
            Self::Message(text) => status["message"].as_str().is_some_and(|message| message.contains(text.as_str())),
            Self::Type { name, status: wanted, reason } => {
                let mut conditions = status["conditions"].as_array().into_iter().flatten();
                conditions.any(|condition| {
                    condition["type"] == name.as_str()
                        && condition["status"] == wanted.as_str()
                        && reason.as_ref().is_none_or(|reason| condition["reason"] == reason.as_str())
                })
            }
            Self::Weight(weight) => status["canary"]["weights"]["canary"]["weight"].as_i64() == Some(*weight),
            Self::Route { kind, name, weight, to } => {
                let backends =
                    rules(state.object(*kind, name)).into_iter().filter(|backends| backends.len() > 1).flatten();
                let mut weights = backends.filter(|(backend, _)| backend == to).map(|(_, weight)| weight);
                weights.next().is_some_and(|first| first == *weight && weights.all(|other| other == *weight))
            }
            Self::Rules { kind, name, count } => rules(state.object(*kind, name)).len() == *count,
            Self::Subset { rule, name, revision } => {
                let subsets = state.object(Kind::DestinationRule, rule)["spec"]["subsets"].as_array().cloned();
                let subset = subsets.into_iter().flatten().find(|subset| subset["name"] == name.as_str());
                let hash = subset.as_ref().and_then(|subset| hash_of_labels(&subset["labels"]));
                hash.is_some() && hash == state.replica_set(*revision).map(hash_of)
            }
            Self::Released { rule } => {
                let rule = state.object(Kind::DestinationRule, rule);
                let mut subsets = rule["spec"]["subsets"].as_array().into_iter().flatten();
                rule["metadata"]["annotations"]["argo-rollouts.argoproj.io/managed-by-rollouts"].is_null()
                    && subsets.all(|subset| hash_of_labels(&subset["labels"]).is_none())
            }
            Self::Ingress { name, weight } => {
                let annotations = &state.object(Kind::Ingress, name)["metadata"]["annotations"];
                annotations["nginx.ingress.kubernetes.io/canary-weight"].as_str() == Some(weight.to_string().as_str())
            }
            Self::Pods { revision, count, there } => {
                state.replica_set(*revision).is_some_and(|set| has_pods(set, *count, *there))
            }
            Self::Template { name, count, there } => {
                state.template(name).is_some_and(|set| has_pods(set, *count, *there))
            }
            Self::Experiment { name, phase } => {
                state.experiment(name).is_some_and(|experiment| experiment["status"]["phase"] == phase.as_str())
            }
            Self::Run { name, phase } => state.run(name).is_some_and(|run| run["status"]["phase"] == phase.as_str()),
            Self::RunGone { name } => state.run(name).is_none(),
            Self::Measurements { name, count } => state.run(name).is_some_and(|run| {
                let results = run["status"]["metricResults"].as_array().into_iter().flatten();
                results.map(|result| result["measurements"].as_array().map_or(0, Vec::len)).sum::<usize>() == *count
            }),
            Self::Keeps { revision, count } => state
                .replica_set(*revision)
                .is_some_and(|set| set["status"]["availableReplicas"].as_i64().unwrap_or(0) >= *count),
            Self::Lost { revision, count } => state.lost(*revision) == *count,
            Self::Metadata { revision, key, value } => {
                let found = |pod: &Value, field: &str| pod["metadata"][field][key.as_str()].as_str().map(str::to_owned);
                let holds = |pod: &Value| {
                    let found = found(pod, "labels").or_else(|| found(pod, "annotations"));
                    found == *value
                };
                state.pods(*revision).next().is_some() && state.pods(*revision).all(holds)
            }
            Self::Deployment { name, count } => {
                state.object(Kind::Deployment, name)["spec"]["replicas"].as_i64() == Some(*count)
            }
            Self::Gone { revision } => state.has_seen(*revision) && state.replica_set(*revision).is_none(),
            Self::Service { name, revision } => {
                let selected =
                    state.object(Kind::Service, name)["spec"]["selector"]["rollouts-pod-template-hash"].as_str();
                let set = state.replica_set(*revision);
                selected.is_some() && selected == set.map(hash_of)
            }
            Self::Count { kind, count } => state.count(*kind) == *count,
            Self::Analysis { strategy, field, phase } => status[*strategy][*field]["status"] == phase.as_str(),
            Self::Autoscaler(count) => status["HPAReplicas"].as_i64() == Some(*count),
            Self::Event(reason) => events.contains(reason),
        }
    }
}

fn hash_of_labels(labels: &Value) -> Option<&str> {
    labels["rollouts-pod-template-hash"].as_str()
}

/// Where each rule of an HTTPRoute, or each HTTP route of a VirtualService, leads, with the weights.
fn rules(object: &Value) -> Vec<Vec<(String, i64)>> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let gateway = list(&object["spec"]["rules"]).into_iter().map(|rule| {
        let pair =
            |it: &Value| (it["name"].as_str().unwrap_or_default().to_owned(), it["weight"].as_i64().unwrap_or(1));
        list(&rule["backendRefs"]).iter().map(pair).collect()
    });
    let mesh = list(&object["spec"]["http"]).into_iter().map(|route| {
        let pair = |it: &Value| {
            let to = &it["destination"];
            let to = to["subset"].as_str().or(to["host"].as_str()).unwrap_or_default();
            (to.to_owned(), it["weight"].as_i64().unwrap_or(0))
        };
        list(&route["route"]).iter().map(pair).collect()
    });
    gateway.chain(mesh).collect()
}

/// The phase as the kubectl plugin and Argo CD see it.
pub fn client_phase(rollout: &Value) -> &str {
    let status = &rollout["status"];
    let generation = rollout["metadata"]["generation"].as_i64().unwrap_or(0);
    let observed = status["observedGeneration"].as_str().and_then(|text| text.parse::<i64>().ok());
    if observed.is_none_or(|observed| observed < generation) {
        return "Progressing";
    }
    let pauses = status["pauseConditions"].as_array().is_some_and(|pauses| !pauses.is_empty());
    if status["controllerPause"] == true && !pauses && rollout["spec"]["paused"] != true {
        return "Progressing";
    }
    status["phase"].as_str().unwrap_or_default()
}

/// `has 3 pods` or `wants 3 pods`: how many, and whether they are all there.
fn pods(words: &mut Words<'_>) -> Result<(i64, bool)> {
    let there = words.take("has");
    if !there {
        words.expect("wants")?;
    }
    let count = words.number()?;
    if !words.take("pod") {
        words.expect("pods")?;
    }
    Ok((count, there))
}

fn has_pods(set: &Value, count: i64, there: bool) -> bool {
    let number = |field: &Value| field.as_i64().unwrap_or(0) == count;
    let reached = ["replicas", "availableReplicas"].iter().all(|field| number(&set["status"][*field]));
    number(&set["spec"]["replicas"]) && (!there || reached)
}

fn text(words: &mut Words<'_>) -> Result<String> {
    words.word("a word").map(str::to_owned)
}

fn revision(word: &str) -> Result<usize> {
    let number = word.strip_prefix('r').and_then(|number| number.parse().ok());
    number.filter(|number| *number > 0).with_context(|| format!("{word:?} is not rN"))
}
