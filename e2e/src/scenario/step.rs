//! What a step can say.
//!
//! | step | does |
//! |---|---|
//! | `apply` and YAML below, or `apply FILE` | applies manifests as `kubectl apply --server-side` does; FILE is in `manifests/` |
//! | `set image CONTAINER=IMAGE` | as `kubectl argo rollouts set image` |
//! | `patch KIND NAME` and YAML below | a JSON merge patch, NAME as traces have it; `patch status of KIND NAME` patches the status subresource |
//! | `promote`, `promote fully`, `skip the step`, `abort`, `retry`, `pause`, `resume` | the patches of the kubectl plugin |
//! | `restart` | all pods that are there, as `kubectl argo rollouts restart` does |
//! | `undo`, `undo to revision N` | the pod template of an earlier revision, as the kubectl plugin copies it |
//! | `scale to N` | through the scale subresource, as an HPA does |
//! | `delete KIND NAME` | |
//! | `wait until CONDITION within DURATION` | |
//! | `expect CONDITION` | it holds now |
//! | `expect no request was lost` | of those that are sent: every one was answered by a pod |
//! | `hold DURATION`, `hold DURATION while CONDITION` | lets time pass |
//! | `make pods of TAG err PERCENT%`, `… never ready`, `… ready after DURATION`, `… well` | all pods of that image tag, running ones too |
//! | `send N requests a second to HOST` | through the gateway, until the end |
//! | `make the gateway refuse route NAME`, `make the gateway accept route NAME` | by a `sectionName` that no listener has; it says so in the route's status |
//! | `stop Prometheus`, `start Prometheus` | |
//! | `kill the controller`, `start the controller` | |
//! | `forbid the controller to write KIND`, `allow the controller to write KIND` | as when its ClusterRole loses `update` and `patch`; in the sandbox only |
//! | `exchange the controller` | kills it and starts the other one of the two that `tidegate-e2e hand-over` knows |
//! | `save FILE` | writes what is there to FILE in `manifests/`; see [`super::snapshot`] |
//!
//! In manifests, `${NOW-5s}` and `${NOW+5s}` are instants, `${NAMESPACE}` and `${PROMETHEUS}` stand for the namespace of the scenario and the address of
//! Prometheus, and `${UID}` in an owner reference for the uid of the Rollout. [`super::condition`] lists the conditions.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::condition::Condition;
use super::words::Words;

/// A step, understood.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Manifests, as YAML.
    Apply(String),
    SetImage {
        container: String,
        image: String,
    },
    /// A merge patch, as YAML.
    Patch {
        kind: String,
        name: String,
        patch: String,
        status: bool,
    },
    Promote,
    PromoteFully,
    SkipStep,
    Abort,
    Retry,
    Pause,
    Resume,
    Restart,
    Undo {
        /// The one before the present one if `None`.
        revision: Option<i64>,
    },
    Scale(i64),
    Delete {
        kind: String,
        name: String,
    },
    Wait {
        condition: Condition,
        within: Duration,
    },
    Expect(Condition),
    ExpectNoLoss,
    Hold {
        time: Duration,
        condition: Option<Condition>,
    },
    Behave {
        /// The tag of the image.
        tag: String,
        behaviour: Behaviour,
    },
    Send {
        rate: u32,
        host: String,
    },
    Accept {
        route: String,
        accept: bool,
    },
    Prometheus(Switch),
    Controller(Switch),
    /// Whether the controller may write objects of this kind (`analysisruns.argoproj.io`).
    Writes {
        kind: String,
        to: Switch,
    },
    Exchange,
    /// Into a file in `manifests/`.
    Save(String),
}

/// How the pods of an image behave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Behaviour {
    Well,
    /// The share of requests that are answered with 500, 0 to 1.
    Err(f64),
    NeverReady,
    ReadyAfter(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    On,
    Off,
}

impl Action {
    /// Understands a step; `block` is what is indented below it.
    ///
    /// # Errors
    /// It is not understood.
    pub fn parse(text: &str, block: &str) -> Result<Self> {
        let words = &mut Words::new(text);
        let action = match words.word("a verb")? {
            "apply" => Self::Apply(match words.optional() {
                Some(file) => read_manifest(file)?,
                None => block.to_owned(),
            }),
            "set" => {
                words.expect("image")?;
                let pair = words.word("CONTAINER=IMAGE")?;
                let (container, image) = pair.split_once('=').context("CONTAINER=IMAGE is expected")?;
                Self::SetImage { container: container.to_owned(), image: image.to_owned() }
            }
            "patch" => {
                let status = words.take("status of");
                let (kind, name) = object(words)?;
                Self::Patch { kind, name, patch: block.to_owned(), status }
            }
            "promote" if words.take("fully") => Self::PromoteFully,
            "promote" => Self::Promote,
            "skip" => words.expect("the step").map(|()| Self::SkipStep)?,
            "abort" => Self::Abort,
            "retry" => Self::Retry,
            "pause" => Self::Pause,
            "resume" => Self::Resume,
            verb @ ("forbid" | "allow") => {
                words.expect("the controller to write")?;
                let to = if verb == "allow" { Switch::On } else { Switch::Off };
                Self::Writes { kind: words.word("a kind")?.to_owned(), to }
            }
            "exchange" => words.expect("the controller").map(|()| Self::Exchange)?,
            "save" => Self::Save(words.word("a file")?.to_owned()),
            "restart" => Self::Restart,
            "undo" if words.take("to revision") => Self::Undo { revision: Some(words.number()?) },
            "undo" => Self::Undo { revision: None },
            "scale" => words.expect("to").and_then(|()| words.number()).map(Self::Scale)?,
            "delete" => {
                let (kind, name) = object(words)?;
                Self::Delete { kind, name }
            }
            "wait" => {
                words.expect("until")?;
                let condition = Condition::parse(words)?;
                words.expect("within")?;
                Self::Wait { condition, within: words.duration()? }
            }
            "expect" if words.take("no request was lost") => Self::ExpectNoLoss,
            "expect" => Self::Expect(Condition::parse(words)?),
            "hold" => {
                let time = words.duration()?;
                let condition = if words.take("while") { Some(Condition::parse(words)?) } else { None };
                Self::Hold { time, condition }
            }
            "make" if words.take("the gateway") => {
                let accept = words.take("accept");
                if !accept {
                    words.expect("refuse")?;
                }
                words.expect("route")?;
                Self::Accept { route: words.word("a route")?.to_owned(), accept }
            }
            "make" => {
                words.expect("pods of")?;
                let tag = words.word("the tag of an image")?.to_owned();
                Self::Behave { tag, behaviour: behaviour(words)? }
            }
            "send" => {
                let rate = u32::try_from(words.number()?).context("a rate is positive")?;
                words.expect("requests a second to")?;
                Self::Send { rate, host: words.word("a host")?.to_owned() }
            }
            "stop" => words.expect("Prometheus").map(|()| Self::Prometheus(Switch::Off))?,
            "start" if words.take("Prometheus") => Self::Prometheus(Switch::On),
            "start" => words.expect("the controller").map(|()| Self::Controller(Switch::On))?,
            "kill" => words.expect("the controller").map(|()| Self::Controller(Switch::Off))?,
            other => bail!("{other:?} is not the verb of a step"),
        };
        words.end()?;
        let takes_block = matches!(action, Self::Apply(_) | Self::Patch { .. });
        ensure!(takes_block || block.trim().is_empty(), "nothing may be indented below this step");
        Ok(action)
    }

    /// Whether it changes something, rather than looking at it.
    pub fn acts(&self) -> bool {
        !matches!(self, Self::Wait { .. } | Self::Expect(_) | Self::ExpectNoLoss | Self::Hold { .. })
    }
}

fn object(words: &mut Words<'_>) -> Result<(String, String)> {
    Ok((words.word("a kind")?.to_owned(), words.word("a name")?.to_owned()))
}

fn behaviour(words: &mut Words<'_>) -> Result<Behaviour> {
    if words.take("err") {
        let percent = words.word("a percentage")?;
        let number = percent.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
        let number = number.filter(|number| (0.0..=100.0).contains(number));
        return Ok(Behaviour::Err(number.with_context(|| format!("{percent:?} is not a percentage"))? / 100.0));
    }
    if words.take("never ready") {
        return Ok(Behaviour::NeverReady);
    }
    if words.take("ready after") {
        return Ok(Behaviour::ReadyAfter(words.duration()?));
    }
    words.expect("well").map(|()| Behaviour::Well)
}

fn read_manifest(name: &str) -> Result<String> {
    let file = super::folder().join("manifests").join(name);
    std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))
}
