//! Releases as clients see them: driven by kubectl and by the patches of Argo Rollouts' kubectl plugin, while other kubectls
//! wait for what comes next.
//!
//! Clients wait for phases that may be over in a moment: a CI step that restarts a Rollout waits for Progressing before it
//! waits for Healthy. So each phase that a release goes through has to be written, however short it is.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tidegate::clock::Clock;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Child;
use tokio::time::timeout;

use crate::apply;
use crate::chart;
use crate::cluster::{ADMIN, CONTROLLER};
use crate::controller::Controller;
use crate::environment::Environment;
use crate::plugin;
use crate::scenario::record::Recorder;
use crate::scenario::trace::Kind;
use crate::suite::Test;
use crate::wait::until;

const PATIENCE: Duration = Duration::from_secs(60);
const NAME: &str = "web";

/// All of them, as tests of an environment.
pub fn suite() -> &'static [Test] {
    &[
        ("clients_see_every_phase_of_a_canary", |environment| Box::pin(canary(environment))),
        ("clients_see_every_phase_of_a_blue_green", |environment| Box::pin(blue_green(environment))),
    ]
}

/// Aborted, tried again, promoted and restarted. The events are those of Argo Rollouts' own test of it, in its order.
async fn canary(environment: &mut Environment) -> Result<()> {
    let strategy = json!({"canary": {"maxUnavailable": 0, "steps": [{"setWeight": 50}, {"pause": {}}]}});
    let client = Client::open(environment, "clients-canary", strategy).await?;
    client.does("apply", &["", "Progressing", "Healthy"]).await?;
    client.does("set image", &["Healthy", "Progressing", "Paused"]).await?;
    client.does("abort", &["Paused", "Degraded"]).await?;
    client.says("RolloutAborted: Rollout aborted update to revision 2").await?;
    client.does("retry", &["Degraded", "Progressing", "Paused"]).await?;
    client.does("promote", &["Paused", "Progressing", "Healthy"]).await?;
    client
        .told(&[
            "RolloutAddedToInformer",
            "RolloutUpdated",
            "NewReplicaSetCreated",
            "RolloutNotCompleted",
            "ScalingReplicaSet",
            "RolloutCompleted",
            "RolloutUpdated",
            "NewReplicaSetCreated",
            "RolloutNotCompleted",
            "ScalingReplicaSet",
            "RolloutStepCompleted",
            "RolloutPaused",
            "ScalingReplicaSet",
            "RolloutAborted",
            "ScalingReplicaSet",
            "RolloutStepCompleted",
            "RolloutPaused",
            "RolloutStepCompleted",
            "RolloutResumed",
            "ScalingReplicaSet",
            "RolloutCompleted",
        ])
        .await?;
    client.does("restart", &["Healthy", "Progressing", "Healthy"]).await?;
    client.close().await
}

async fn blue_green(environment: &mut Environment) -> Result<()> {
    let client = Client::open(environment, "clients-blue-green", json!({"blueGreen": {"activeService": NAME}})).await?;
    client.does("apply", &["", "Progressing", "Healthy"]).await?;
    client.does("set image", &["Healthy", "Progressing", "Healthy"]).await?;
    client
        .told(&[
            "RolloutAddedToInformer",
            "RolloutUpdated",
            "NewReplicaSetCreated",
            "ScalingReplicaSet",
            "RolloutCompleted",
            "SwitchService",
            "RolloutUpdated",
            "NewReplicaSetCreated",
            "RolloutNotCompleted",
            "ScalingReplicaSet",
            "SwitchService",
            "RolloutCompleted",
        ])
        .await?;
    client.does("restart", &["Healthy", "Progressing", "Healthy"]).await?;
    client.close().await
}

/// Somebody with a kubectl, and what a watch has seen of the Rollout.
struct Client<'a> {
    environment: &'a Environment,
    controller: Controller,
    recorder: Recorder,
    namespace: &'static str,
    rollout: Value,
}

impl<'a> Client<'a> {
    async fn open(environment: &'a Environment, namespace: &'static str, strategy: Value) -> Result<Self> {
        chart::install(&environment.tools, &environment.client).await?;
        let client = &environment.client;
        apply::object(client, "", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}))
            .await?;
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME},
            "spec": {"selector": {"app": NAME}, "ports": [{"port": 80, "targetPort": 8080}]},
        });
        apply::object(client, namespace, service).await?;
        let rollout = json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": NAME},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": {"app": NAME}},
                "template": {"metadata": {"labels": {"app": NAME}}, "spec": {"containers": [
                    {"name": "web", "image": "example/web:blue", "ports": [{"containerPort": 8080}]},
                ]}},
                "strategy": strategy,
            },
        });
        let arguments = ["--metricsPort=0", "--healthzPort=0", "--leader-elect=false"];
        let controller = Controller::start(&environment.cluster, &environment.folder, CONTROLLER, &arguments)?;
        let recorder = Recorder::start(client, namespace, NAME).await;
        Ok(Self { environment, controller, recorder, namespace, rollout })
    }

    /// Does something, while kubectls wait for all the phases that are to follow.
    async fn does(&self, what: &str, phases: &[&str]) -> Result<()> {
        let before = self.phases().len().saturating_sub(1);
        let mut waiting = Vec::new();
        // kubectl waits only for what exists.
        let exists = !phases[0].is_empty();
        for phase in phases.iter().skip(1).filter(|phase| exists && **phase != phases[0]) {
            waiting.push((*phase, self.begin_to_wait(phase).await?));
        }
        self.act(what).await?;
        for (phase, mut kubectl) in waiting {
            let status = timeout(PATIENCE, kubectl.wait()).await.context("kubectl wait does not end")??;
            ensure!(status.success(), "{what}: kubectl waits for {phase} in vain; seen: {:?}", self.phases());
        }
        let last = phases.last().copied().unwrap_or_default();
        let seen = || self.phases().split_off(before);
        let ends = async || Ok(seen().len() >= phases.len() && seen().last().is_some_and(|phase| phase == last));
        let ended = until("the watch has seen the end", PATIENCE, ends).await;
        ended.with_context(|| format!("{what}: expected {phases:?}, seen {:?}", seen()))?;
        ensure!(seen() == phases, "{what}: expected {phases:?}, seen {:?}", seen());
        if last == "Healthy" {
            self.is_told_healthy().await?;
        }
        Ok(())
    }

    /// What kubectl and the plugin send.
    async fn act(&self, what: &str) -> Result<()> {
        let status = |patch: Value| ("--subresource=status", json!({ "status": patch }));
        let (part, patch) = match what {
            "apply" => {
                let object = self.rollout.clone();
                return apply::object(&self.environment.client, self.namespace, object).await.map(drop);
            }
            "set image" => {
                let mut containers = self.rollout["spec"]["template"]["spec"]["containers"].clone();
                containers[0]["image"] = "example/web:green".into();
                ("", json!({"spec": {"template": {"spec": {"containers": containers}}}}))
            }
            "abort" => status(json!({"abort": true})),
            "retry" => status(json!({"abort": false})),
            "promote" => status(json!({"pauseConditions": null})),
            "restart" => {
                ("", json!({"spec": {"restartAt": Clock::system().now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()}}))
            }
            _ => anyhow::bail!("nobody can {what}"),
        };
        let patch = patch.to_string();
        let mut arguments = vec!["patch", "rollout", NAME, "--type=merge", "--patch", &patch];
        arguments.extend(Some(part).filter(|part| !part.is_empty()));
        self.kubectl(&arguments).await.map(drop)
    }

    /// A kubectl that has begun to wait for a phase. `--v=6` makes it tell when it watches.
    async fn begin_to_wait(&self, phase: &str) -> Result<Child> {
        let condition = format!("--for=jsonpath={{.status.phase}}={phase}");
        let mut command = self.environment.cluster.kubectl(ADMIN);
        command.args(["wait", "rollout", NAME, "--namespace", self.namespace, "--v=6", "--timeout=60s", &condition]);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).kill_on_drop(true);
        let mut kubectl = command.spawn().context("running kubectl")?;
        let mut said = BufReader::new(kubectl.stderr.take().context("its output is piped")?);
        let watches = async {
            let mut line = String::new();
            while said.read_line(&mut line).await? > 0 {
                if line.contains("watch=true") {
                    return Ok(());
                }
                line.clear();
            }
            anyhow::bail!("kubectl wait has ended before it watched")
        };
        timeout(PATIENCE, watches).await.context("kubectl wait does not watch")??;
        // What else it says has to go somewhere.
        tokio::spawn(async move { said.read_to_end(&mut Vec::new()).await });
        Ok(kubectl)
    }

    /// The conditions that `kubectl wait` is most used with, and the plugin's `status`.
    async fn is_told_healthy(&self) -> Result<()> {
        for condition in ["Healthy", "Completed", "Available"] {
            let condition = format!("--for=condition={condition}");
            self.kubectl(&["wait", "rollout", NAME, "--timeout=60s", &condition]).await?;
        }
        for (name, program) in plugin::programs()? {
            let mut command = tokio::process::Command::new(program);
            command.args(["status", NAME, "--timeout", "60s", "--namespace", self.namespace]);
            command.env("KUBECONFIG", self.environment.cluster.kubeconfig(ADMIN)).env("HOME", &self.environment.folder);
            let output = command.output().await.with_context(|| format!("running the plugin of {name}"))?;
            let said = String::from_utf8_lossy(&output.stdout);
            ensure!(output.status.success() && said.contains("Healthy"), "status, by {name}: {said}");
        }
        Ok(())
    }

    async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.environment.cluster.kubectl(ADMIN);
        let output = command.args(arguments).args(["--namespace", self.namespace]).output().await?;
        ensure!(output.status.success(), "kubectl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The phases so far, each as often as it was begun; the first is that of a Rollout that nobody has looked at.
    fn phases(&self) -> Vec<String> {
        let changes = self.recorder.changes();
        let rollouts = changes.iter().filter(|change| change.kind == Kind::Rollout);
        let mut phases: Vec<String> =
            rollouts.map(|change| change.object["status"]["phase"].as_str().unwrap_or_default().to_owned()).collect();
        phases.dedup();
        phases
    }

    async fn says(&self, message: &str) -> Result<()> {
        let said = self.recorder.ask(0, |state, _| state.rollout()["status"]["message"].clone());
        ensure!(said == message, "the message is {said}");
        Ok(())
    }

    /// Whether these are the reasons of all events, in this order.
    async fn told(&self, reasons: &[&str]) -> Result<()> {
        let told = || self.recorder.ask(0, |_, events| events.to_vec());
        let complete = until("all events are there", PATIENCE, async || Ok(told().len() >= reasons.len())).await;
        complete.with_context(|| format!("told: {:#?}", told()))?;
        self.recorder.settle(Duration::from_secs(2), PATIENCE).await;
        ensure!(told() == reasons, "told: {:#?}\nexpected: {reasons:#?}", told());
        Ok(())
    }

    async fn close(self) -> Result<()> {
        self.controller.stop().await;
        Ok(())
    }
}
