//! A pod in words: what it does, and what a bad one waits for.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

use super::Style;

/// How a pod is, in the words of `kubectl get pods`.
pub(super) struct Told {
    pub status: String,
    pub ready: usize,
    pub total: usize,
    pub restarts: i32,
    /// Why it is not as it should be.
    pub why: Option<String>,
}

impl Told {
    pub fn is_good(&self) -> bool {
        self.why.is_none() && self.ready == self.total && self.restarts == 0
    }
}

/// Seconds that a pod may take to become ready before it is said what it waits for.
const PATIENCE: i64 = 15;

pub(super) fn told(pod: &Pod, style: Style) -> Told {
    let status = pod.status.clone().unwrap_or_default();
    let containers = status.container_statuses.clone().unwrap_or_default();
    let init = status.init_container_statuses.clone().unwrap_or_default();
    let total = pod.spec.as_ref().map_or(containers.len(), |spec| spec.containers.len());
    let ready = containers.iter().filter(|container| container.ready).count();
    let restarts = containers.iter().map(|container| container.restart_count).sum();
    let phase = status.phase.clone().unwrap_or_else(|| "Pending".to_owned());
    let finished = phase == "Succeeded" || phase == "Failed";
    let initializing = init.iter().find_map(|container| init_trouble(container, &init));
    let trouble = initializing.or_else(|| containers.iter().find_map(trouble));
    let unmet = |condition: &str| {
        let found =
            status.conditions.iter().flatten().find(|found| found.type_ == condition && found.status == "False");
        found.map(|found| found.message.clone().or_else(|| found.reason.clone()).unwrap_or_default())
    };
    let (told, why) = if pod.metadata.deletion_timestamp.is_some() {
        ("Terminating".to_owned(), None)
    } else if let Some((reason, why)) = trouble {
        (reason, why)
    } else if finished {
        let reason = status.reason.clone();
        (
            reason.unwrap_or_else(|| if phase == "Succeeded" { "Completed".to_owned() } else { phase }),
            status.message.clone(),
        )
    } else if let Some(why) = unmet("PodScheduled") {
        (phase, Some(why))
    } else {
        let gates = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
        let gate = gates.map(|gate| gate.condition_type.clone()).find(|gate| {
            !status.conditions.iter().flatten().any(|found| found.type_ == *gate && found.status == "True")
        });
        let is_young = pod.metadata.creation_timestamp.as_ref().is_some_and(|at| style.since(at.0) < PATIENCE);
        let unready = containers.iter().find(|container| !container.ready).map(unready);
        let why = unready.or_else(|| gate.map(|gate| format!("readiness gate {gate} is not met")));
        (phase, why.filter(|_| !is_young))
    };
    Told { status: told, ready, total, restarts, why }
}

/// What is wrong with a container, in a word and at length.
fn trouble(container: &ContainerStatus) -> Option<(String, Option<String>)> {
    let state = container.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.clone().unwrap_or_else(|| "Waiting".to_owned());
        // A container that is being created is no trouble yet.
        let why = match reason.as_str() {
            "ContainerCreating" | "PodInitializing" => None,
            _ => waiting.message.clone().or_else(|| container.last_state.as_ref().and_then(exit)),
        };
        return Some((reason, why.map(|why| format!("{}: {why}", container.name))));
    }
    let terminated = state.terminated.as_ref()?;
    let reason = terminated.reason.clone().unwrap_or_else(|| format!("ExitCode:{}", terminated.exit_code));
    (terminated.exit_code != 0).then(|| (reason, exit(state).map(|why| format!("{}: {why}", container.name))))
}

fn init_trouble(container: &ContainerStatus, all: &[ContainerStatus]) -> Option<(String, Option<String>)> {
    let state = container.state.as_ref()?;
    if state.terminated.as_ref().is_some_and(|terminated| terminated.exit_code == 0)
        || (state.running.is_some() && container.started == Some(true))
    {
        return None;
    }
    if let Some((reason, why)) = trouble(container).filter(|(reason, _)| reason != "PodInitializing") {
        return Some((format!("Init:{reason}"), why));
    }
    let is_done = |container: &&ContainerStatus| {
        container.state.as_ref().and_then(|state| state.terminated.as_ref()).is_some_and(|ended| ended.exit_code == 0)
    };
    Some((format!("Init:{}/{}", all.iter().filter(is_done).count(), all.len()), None))
}

fn unready(container: &ContainerStatus) -> String {
    let running = container.state.as_ref().is_some_and(|state| state.running.is_some());
    let last = container.last_state.as_ref().and_then(exit).map(|exit| format!(", before that {exit}"));
    let what = match (running, container.started) {
        (true, Some(false)) => "has not started yet",
        (true, _) => "is not ready: its readiness probe does not succeed",
        (false, _) => "does not run yet",
    };
    format!("{} {what}{}", container.name, last.unwrap_or_default())
}

/// `OOMKilled, exit code 137`
fn exit(state: &ContainerState) -> Option<String> {
    let terminated = state.terminated.as_ref()?;
    let code = format!("exit code {}", terminated.exit_code);
    let reason = terminated.reason.clone().filter(|reason| reason != "Error");
    Some(reason.map_or(code.clone(), |reason| format!("{reason}, {code}")))
}
