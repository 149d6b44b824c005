//! A day with the kubectl plugin: every command of `kubectl argo rollouts`, by Argo Rollouts' own program or by ours, with
//! what a user must see after it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::apply;
use crate::tools::{Part, Tools};
use crate::wait::until;

const PATIENCE: Duration = Duration::from_secs(60);

/// The plugin that is tried.
#[derive(Clone, Debug)]
pub struct Plugin {
    program: PathBuf,
    kubeconfig: PathBuf,
    namespace: String,
    /// Where it finds its files.
    folder: PathBuf,
}

/// The programs that there are: our own, and Argo Rollouts' where it is installed.
///
/// # Errors
/// Our own has not been built.
pub fn programs() -> Result<Vec<(&'static str, PathBuf)>> {
    let mut programs = vec![("tidegate", crate::controller::binary()?)];
    match Tools::find(&[Part::ArgoPlugin]) {
        Ok(tools) => programs.push(("argo", tools.path(Part::ArgoPlugin, "kubectl-argo-rollouts"))),
        Err(error) => eprintln!("NOT RUN with the plugin of Argo Rollouts, because {error:#}"),
    }
    Ok(programs)
}

/// Does everything once, in a namespace of its own on a cluster on which a controller runs.
///
/// # Errors
/// A command did not do or say what it should have.
pub async fn try_everything(
    name: &str,
    program: &Path,
    client: &Client,
    kubeconfig: &Path,
    folder: &Path,
) -> Result<()> {
    let namespace = format!("plugin-{name}");
    apply::object(client, "", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}))
        .await?;
    let folder = folder.join(&namespace);
    std::fs::create_dir_all(&folder).context("creating a folder for manifests")?;
    for (file, text) in [("web.yaml", WEB), ("check.yaml", CHECK), ("pair.yaml", PAIR)] {
        std::fs::write(folder.join(file), text).context("writing a manifest")?;
    }
    let plugin = Plugin { program: program.to_owned(), kubeconfig: kubeconfig.to_owned(), namespace, folder };
    let cluster = Cluster { client: client.clone(), namespace: plugin.namespace.clone() };
    releases(&plugin, &cluster).await?;
    undoing(&plugin, &cluster).await?;
    analysis_runs(&plugin, &cluster).await?;
    experiments(&plugin, &cluster).await?;
    restarting(&plugin, &cluster).await
}

async fn releases(plugin: &Plugin, cluster: &Cluster) -> Result<()> {
    plugin.says("lint -f web.yaml", &[]).await?;
    plugin.says("create -f web.yaml", &["rollout.argoproj.io/web created"]).await?;
    plugin.says("status web --timeout 60s", &["Healthy"]).await?;
    plugin.says("list rollouts", &["NAME", "SET-WEIGHT", "web", "Canary", "Healthy", "6/6", "100"]).await?;
    plugin.says("list rollouts -A --name web", &["NAMESPACE", &plugin.namespace]).await?;
    plugin
        .says("get rollout web --no-color", &["✔ Healthy", "revision:1", "example/web:blue (stable)", "ready:1/1"])
        .await?;

    plugin.says("set image web web=example/web:green", &["rollout \"web\" image updated"]).await?;
    cluster.at_step(1).await?;
    plugin.says("status web --watch=false", &["Paused - CanaryPauseStep"]).await?;
    let seen = ["॥ Paused", "CanaryPauseStep", "example/web:green (canary)", "revision:2", "1/6", "25"];
    plugin.says("get rollout web --no-color", &seen).await?;
    plugin.says("promote web", &["rollout 'web' promoted"]).await?;
    cluster.at_step(3).await?;

    plugin.says("pause web", &["rollout 'web' paused"]).await?;
    cluster.reaches("rollouts", "web", "/spec/paused", &json!(true)).await?;
    plugin.says("promote web", &["rollout 'web' promoted"]).await?;
    cluster.at_step(5).await?;
    cluster.reaches("rollouts", "web", "/spec/paused", &json!(false)).await?;

    plugin.says("abort web", &["rollout 'web' aborted"]).await?;
    cluster.reaches("rollouts", "web", "/status/phase", &json!("Degraded")).await?;
    plugin
        .fails("status web --timeout 60s", &["Degraded - RolloutAborted: Rollout aborted update to revision 2"])
        .await?;
    plugin.says("retry rollout web", &["rollout 'web' retried"]).await?;
    cluster.at_step(1).await?;
    plugin.says("promote web --full", &["rollout 'web' fully promoted"]).await?;
    plugin.says("status web --timeout 90s", &["Healthy"]).await?;
    cluster.reaches("rollouts", "web", "/status/canary/weights", &Value::Null).await
}

async fn undoing(plugin: &Plugin, cluster: &Cluster) -> Result<()> {
    let image = "/spec/template/spec/containers/0/image";
    plugin.says("undo web", &["rollout 'web' und"]).await?;
    cluster.reaches("rollouts", "web", image, &json!("example/web:blue")).await?;
    cluster.at_step(1).await?;
    // Back to what is stable: no steps.
    plugin.says("set image web *=example/web:green", &["image updated"]).await?;
    plugin.says("status web --timeout 90s", &["Healthy"]).await?;
    plugin.says("undo web --to-revision 3", &["rollout 'web' und"]).await?;
    cluster.reaches("rollouts", "web", image, &json!("example/web:blue")).await?;
    plugin.fails("undo web --to-revision 99", &["unable to find specified revision 99 in history"]).await?;
    plugin.says("promote web --full", &["fully promoted"]).await?;
    plugin.says("status web --timeout 90s", &["Healthy"]).await
}

async fn analysis_runs(plugin: &Plugin, cluster: &Cluster) -> Result<()> {
    plugin.says("create -f check.yaml", &["analysistemplate.argoproj.io/check created"]).await?;
    plugin.fails("create analysisrun --from check --name run", &["args.seconds was not resolved"]).await?;
    let create = "create analysisrun --from check --name run -a seconds=600";
    plugin.says(create, &["analysisrun.argoproj.io/run created"]).await?;
    cluster.reaches("analysisruns", "run", "/status/phase", &json!("Running")).await?;
    plugin.says("terminate analysisrun run", &["'run' terminated"]).await?;
    cluster.reaches("analysisruns", "run", "/status/phase", &json!("Inconclusive")).await?;
    let from_file = "create analysisrun --from-file check.yaml --generate-name short- -a seconds=0";
    plugin.says(from_file, &["analysisrun.argoproj.io/short-", "created"]).await
}

async fn experiments(plugin: &Plugin, cluster: &Cluster) -> Result<()> {
    plugin.says("create -f pair.yaml", &["experiment.argoproj.io/pair created"]).await?;
    plugin.says("list experiments", &["NAME", "DURATION", "pair", "45m"]).await?;
    plugin.says("get experiment pair --no-color", &["pair", "Experiment"]).await?;
    plugin.says("terminate experiment pair", &["experiment 'pair'"]).await?;
    cluster.reaches("experiments", "pair", "/spec/terminate", &json!(true)).await?;
    plugin.says("retry experiment pair", &["experiment 'pair' retried"]).await
}

async fn restarting(plugin: &Plugin, cluster: &Cluster) -> Result<()> {
    plugin.says("restart web --in 1h", &["rollout 'web' restarts in 1h"]).await?;
    let at = cluster.field("rollouts", "web", "/spec/restartAt").await?;
    ensure!(at.as_str().is_some_and(|at| at.ends_with('Z')), "spec.restartAt is {at}");
    plugin.fails("promote nothing", &["\"nothing\" not found"]).await?;
    plugin.says("version", &["v"]).await?;
    for shell in ["bash", "zsh", "fish", "powershell"] {
        plugin.says(&format!("completion {shell}"), &["comp"]).await?;
    }
    Ok(())
}

impl Plugin {
    async fn says(&self, words: &str, wanted: &[&str]) -> Result<()> {
        self.run(words, true, wanted).await
    }

    async fn fails(&self, words: &str, wanted: &[&str]) -> Result<()> {
        self.run(words, false, wanted).await
    }

    async fn run(&self, words: &str, succeeds: bool, wanted: &[&str]) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.args(words.split(' ')).current_dir(&self.folder);
        if !["lint", "version", "completion"].iter().any(|local| words.starts_with(local)) {
            command.args(["--namespace", &self.namespace]);
        }
        // Both write below their home.
        command.env("KUBECONFIG", &self.kubeconfig).env("HOME", &self.folder).kill_on_drop(true);
        let output = tokio::time::timeout(PATIENCE * 2, command.output()).await;
        let output = output.with_context(|| format!("{words}: no end"))?.with_context(|| words.to_owned())?;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        ensure!(output.status.success() == succeeds, "{words}: {}:\n{text}", output.status);
        if let Some(missing) = wanted.iter().find(|wanted| !text.contains(**wanted)) {
            bail!("{words}: does not say {missing:?} but:\n{text}");
        }
        Ok(())
    }
}

/// The cluster as it really is.
struct Cluster {
    client: Client,
    namespace: String,
}

impl Cluster {
    async fn field(&self, plural: &str, name: &str, pointer: &str) -> Result<Value> {
        let kind = match plural {
            "rollouts" => "Rollout",
            "analysisruns" => "AnalysisRun",
            _ => "Experiment",
        };
        let gvk = GroupVersionKind::gvk("argoproj.io", "v1alpha1", kind);
        let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        let object = serde_json::to_value(api.get(name).await?)?;
        Ok(object.pointer(pointer).cloned().unwrap_or(Value::Null))
    }

    async fn reaches(&self, plural: &str, name: &str, pointer: &str, wanted: &Value) -> Result<()> {
        until(&format!("{plural} {name}: {pointer} is {wanted}"), PATIENCE, async || {
            let found = self.field(plural, name, pointer).await?;
            // What is false is not written.
            Ok(found == *wanted || (found.is_null() && *wanted == json!(false)))
        })
        .await
    }

    /// Waits until the Rollout pauses at this step.
    async fn at_step(&self, step: i32) -> Result<()> {
        until(&format!("rollout web pauses at step {step}"), PATIENCE, async || {
            let status = self.field("rollouts", "web", "/status").await?;
            Ok(status["phase"] == "Paused"
                && status["currentStepIndex"] == step
                && !status["pauseConditions"].is_null())
        })
        .await
    }
}

const WEB: &str = r#"apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata:
  name: web
spec:
  replicas: 6
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - name: web
        image: example/web:blue
        ports: [{containerPort: 8080}]
  strategy:
    canary:
      steps:
      - setWeight: 25
      - pause: {}
      - setWeight: 50
      - pause: {}
      - setWeight: 75
      - pause: {}
"#;

const CHECK: &str = r#"apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata:
  name: check
spec:
  args:
  - name: seconds
  metrics:
  - name: check
    provider:
      job:
        spec:
          backoffLimit: 0
          template:
            metadata: {annotations: {"sandbox.tidegate.io/run-for": "{{args.seconds}}s"}}
            spec:
              restartPolicy: Never
              containers:
              - {name: check, image: "example/check:1", command: [sleep, "{{args.seconds}}"]}
"#;

const PAIR: &str = r#"apiVersion: argoproj.io/v1alpha1
kind: Experiment
metadata:
  name: pair
spec:
  duration: 45m
  templates:
  - name: one
    replicas: 1
    selector:
      matchLabels: {app: pair, version: one}
    template:
      metadata:
        labels: {app: pair, version: one}
      spec:
        containers:
        - name: web
          image: example/web:blue
          ports: [{containerPort: 8080}]
"#;
