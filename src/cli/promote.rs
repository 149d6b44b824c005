//! `tidegate promote`: past a pause, past a step, or all the way.

use std::process::ExitCode;

use anyhow::bail;
use serde_json::{Value, json};

use super::connect::Connection;
use super::kind;
use crate::api::Rollout;
use crate::api::analysis::AnalysisPhase;

/// Promote a rollout: end its pause, or skip the current step; with --full go all the way
#[derive(Debug, clap::Args)]
pub struct Promote {
    #[command(flatten)]
    connection: Connection,
    /// The rollout: NAME, or rollout NAME
    #[arg(required = true, num_args = 1..=2)]
    rollout: Vec<String>,
    /// Skip all remaining steps, pauses and analysis
    #[arg(long)]
    full: bool,
    /// Skip the current step (the same as no flag when the rollout is not paused)
    #[arg(long, short = 'c', conflicts_with_all = ["full", "skip_all_steps"])]
    skip_current_step: bool,
    /// Skip the remaining steps
    #[arg(long, short = 'a', conflicts_with = "full")]
    skip_all_steps: bool,
}

/// What is promoted.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Extent {
    Next,
    CurrentStep,
    AllSteps,
    Full,
}

impl Promote {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let name = kind::rollout(&self.rollout)?;
        let connected = self.connection.connect().await?;
        let rollout = connected.rollout(name).await?;
        let extent = match (self.full, self.skip_all_steps, self.skip_current_step) {
            (true, _, _) => Extent::Full,
            (_, true, _) => Extent::AllSteps,
            (_, _, true) => Extent::CurrentStep,
            _ => Extent::Next,
        };
        let (spec, status) = patches(&rollout, extent)?;
        if let Some(patch) = status {
            connected.patch_status(name, &patch).await?;
        }
        if let Some(patch) = spec {
            connected.patch::<Rollout>(name, &patch).await?;
        }
        println!("rollout '{name}' {}", if extent == Extent::Full { "fully promoted" } else { "promoted" });
        Ok(ExitCode::SUCCESS)
    }
}

/// The patches of the spec and of the status.
fn patches(rollout: &Rollout, extent: Extent) -> anyhow::Result<(Option<Value>, Option<Value>)> {
    let spec = rollout.spec.paused.then(|| json!({"spec": {"paused": false}}));
    let status = rollout.status.clone().unwrap_or_default();
    let steps = rollout.spec.strategy.canary.as_ref().map_or(0, |canary| canary.steps.len() as i32);
    let index = status.current_step_index.unwrap_or(0);
    let next = (index + 1).min(steps);
    let paused = !status.pause_conditions.is_empty();
    let step_run = status.canary.current_step_analysis_run_status.as_ref();
    let inconclusive = status.controller_pause && step_run.is_some_and(|run| run.status == AnalysisPhase::Inconclusive);
    let status = match extent {
        Extent::Full if status.current_pod_hash == status.stable_rs => None,
        Extent::Full => Some(json!({"status": {"promoteFull": true}})),
        Extent::CurrentStep | Extent::AllSteps if rollout.spec.strategy.blue_green.is_some() => {
            bail!("a blue-green rollout has no steps to skip: use --full")
        }
        Extent::CurrentStep | Extent::AllSteps if steps == 0 => bail!("the rollout has no steps to skip"),
        Extent::CurrentStep => Some(json!({"status": {"pauseConditions": null, "currentStepIndex": next}})),
        Extent::AllSteps => Some(json!({"status": {"pauseConditions": null, "currentStepIndex": steps}})),
        Extent::Next if paused && inconclusive => {
            Some(json!({"status": {"pauseConditions": null, "controllerPause": false, "currentStepIndex": next}}))
        }
        Extent::Next if paused => Some(json!({"status": {"pauseConditions": null}})),
        Extent::Next if steps > 0 && index < steps => {
            Some(json!({"status": {"pauseConditions": null, "currentStepIndex": next}}))
        }
        Extent::Next => None,
    };
    Ok((spec, status))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout(spec: Value, status: Value) -> Rollout {
        let mut object = json!({
            "metadata": {"name": "web"},
            "spec": {"strategy": {"canary": {"steps": [{"setWeight": 5}, {"pause": {}}]}}},
            "status": status,
        });
        json_patch::merge(&mut object["spec"], &spec);
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn each_extent_writes_what_the_controller_understands() {
        let pause = json!({"reason": "CanaryPauseStep", "startTime": "2026-01-01T00:00:00Z"});
        let paused = json!({"pauseConditions": [pause], "controllerPause": true, "currentStepIndex": 1});
        let mut inconclusive = paused.clone();
        inconclusive["canary"] = json!({"currentStepAnalysisRunStatus": {"name": "run", "status": "Inconclusive"}});
        let none = json!({});
        for (spec, status, extent, expected) in [
            (&none, &paused, Extent::Next, (None, Some(json!({"pauseConditions": null})))),
            (
                &none,
                &inconclusive,
                Extent::Next,
                (None, Some(json!({"pauseConditions": null, "controllerPause": false, "currentStepIndex": 2}))),
            ),
            (&none, &none, Extent::Next, (None, Some(json!({"pauseConditions": null, "currentStepIndex": 1})))),
            (&none, &json!({"currentStepIndex": 2}), Extent::Next, (None, None)),
            (
                &json!({"paused": true}),
                &json!({"currentPodHash": "b", "stableRS": "a"}),
                Extent::Full,
                (Some(json!({"paused": false})), Some(json!({"promoteFull": true}))),
            ),
            (&none, &json!({"currentPodHash": "a", "stableRS": "a"}), Extent::Full, (None, None)),
            (
                &none,
                &paused,
                Extent::CurrentStep,
                (None, Some(json!({"pauseConditions": null, "currentStepIndex": 2}))),
            ),
            (&none, &none, Extent::AllSteps, (None, Some(json!({"pauseConditions": null, "currentStepIndex": 2})))),
        ] {
            let (spec_patch, status_patch) = patches(&rollout(spec.clone(), status.clone()), extent).unwrap();
            let found =
                (spec_patch.map(|patch| patch["spec"].clone()), status_patch.map(|patch| patch["status"].clone()));
            assert_eq!(found, expected, "{extent:?} of {status}");
        }
    }
}
