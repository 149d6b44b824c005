//! The harness itself, on a real control plane: does the kubelet stand-in do a kubelet's part, and does everything that is
//! killed come back?

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tidegate_e2e::cluster::{ADMIN, CONTROLLER};
use tidegate_e2e::controller::Controller;
use tidegate_e2e::environment::{Environment, EnvironmentOptions};
use tidegate_e2e::http::Http;
use tidegate_e2e::wait::until;
use tidegate_e2e::{apply, chart, plugin, suite};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    suite::main(
        EnvironmentOptions::default(),
        &[
            ("a_pod_serves_once_it_is_ready", |environment| Box::pin(a_pod_serves_once_it_is_ready(environment))),
            ("a_pod_can_stay_unready", |environment| Box::pin(a_pod_can_stay_unready(environment))),
            ("a_readiness_gate_is_honoured", |environment| Box::pin(a_readiness_gate_is_honoured(environment))),
            ("a_deleted_pod_drains", |environment| Box::pin(a_deleted_pod_drains(environment))),
            ("a_job_runs_its_command", |environment| Box::pin(a_job_runs_its_command(environment))),
            ("the_controllers_user_may_nothing_by_itself", |environment| {
                Box::pin(the_controllers_user_may_nothing_by_itself(environment))
            }),
            ("pods_go_on_after_the_api_server_was_killed", |environment| {
                Box::pin(pods_go_on_after_the_api_server_was_killed(environment))
            }),
            ("a_killed_controller_can_be_started_again", |environment| {
                Box::pin(a_killed_controller_can_be_started_again(environment))
            }),
            ("every_command_of_the_plugin_works", |environment| {
                Box::pin(every_command_of_the_plugin_works(environment))
            }),
        ],
    )
}

async fn a_pod_serves_once_it_is_ready(environment: &mut Environment) -> Result<()> {
    let pods = pods(environment);
    let http = Http::default();
    create(environment, pod("serves", json!({"READY_AFTER_MS": "1000", "VERSION": "blue"}))).await?;
    until("the pod runs", PATIENCE, async || Ok(phase(&pods.get("serves").await?) == "Running")).await?;
    ensure!(!is_ready(&pods.get("serves").await?), "ready too early");
    let started = Instant::now();
    until("the pod is ready", PATIENCE, async || Ok(is_ready(&pods.get("serves").await?))).await?;
    ensure!(started.elapsed() > Duration::from_millis(500), "ready too early");

    let address = pods.get("serves").await?.status.and_then(|status| status.pod_ip).context("a pod without address")?;
    let url = format!("http://{address}:8080/");
    let answer = http.get(&url, None, PATIENCE).await?;
    ensure!(answer.status() == 200 && answer.headers()["x-version"] == "blue", "unexpected answer: {answer:?}");

    annotate(&pods, "serves", json!({"e2e.tidegate.dev/error-rate": "1"})).await?;
    until("the pod errs", PATIENCE, async || Ok(http.get(&url, None, PATIENCE).await?.status() == 500)).await?;
    Ok(())
}

async fn a_pod_can_stay_unready(environment: &mut Environment) -> Result<()> {
    let pods = pods(environment);
    create(environment, pod("never", json!({"READY_AFTER_MS": "never"}))).await?;
    create(environment, pod("usual", json!({}))).await?;
    until("the other pod is ready", PATIENCE, async || Ok(is_ready(&pods.get("usual").await?))).await?;
    sleep(Duration::from_millis(500)).await;
    ensure!(!is_ready(&pods.get("never").await?), "a pod that is never ready is ready");

    for (ready, text) in [(false, "false"), (true, "true")] {
        annotate(&pods, "usual", json!({"e2e.tidegate.dev/ready": text})).await?;
        until("the pod's readiness follows", PATIENCE, async || Ok(is_ready(&pods.get("usual").await?) == ready))
            .await?;
    }
    Ok(())
}

async fn a_readiness_gate_is_honoured(environment: &mut Environment) -> Result<()> {
    let pods = pods(environment);
    let mut gated = pod("gated", json!({}));
    gated["spec"]["readinessGates"] = json!([{"conditionType": "example.com/gate"}]);
    create(environment, gated).await?;
    let containers_ready = async || Ok(condition(&pods.get("gated").await?, "ContainersReady"));
    until("the containers are ready", PATIENCE, containers_ready).await?;
    ensure!(!is_ready(&pods.get("gated").await?), "ready while the gate is closed");
    let open = json!({"status": {"conditions": [{"type": "example.com/gate", "status": "True"}]}});
    pods.patch_status("gated", &PatchParams::default(), &Patch::Strategic(open)).await?;
    until("the pod is ready", PATIENCE, async || Ok(is_ready(&pods.get("gated").await?))).await?;
    ensure!(condition(&pods.get("gated").await?, "example.com/gate"), "the gate's condition was lost");
    Ok(())
}

async fn a_deleted_pod_drains(environment: &mut Environment) -> Result<()> {
    let pods = pods(environment);
    let slices: Api<EndpointSlice> = Api::default_namespaced(environment.client.clone());
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "drains"},
        "spec": {"selector": {"app": "drains"}, "ports": [{"port": 8080}]},
    });
    apply::object(&environment.client, "default", service).await?;
    create(environment, pod("drains", json!({}))).await?;
    let of_service = ListParams::default().labels("kubernetes.io/service-name=drains");
    let ready_endpoints = async || {
        let slices = slices.list(&of_service).await?;
        let endpoints = slices.items.iter().flat_map(|slice| &slice.endpoints);
        let ready = endpoints.filter_map(|endpoint| endpoint.conditions.as_ref()?.ready).filter(|ready| *ready);
        anyhow::Ok(ready.count())
    };
    until("the endpoint is ready", PATIENCE, async || Ok(ready_endpoints().await? == 1)).await?;

    let address = pods.get("drains").await?.status.and_then(|status| status.pod_ip).context("a pod without address")?;
    let (http, url) = (Http::default(), format!("http://{address}:8080/"));
    pods.delete("drains", &DeleteParams::default()).await?;
    let deleted = Instant::now();
    until("the endpoint is gone", PATIENCE, async || Ok(ready_endpoints().await? == 0)).await?;
    ensure!(http.get(&url, None, PATIENCE).await?.status() == 200, "the pod does not serve while it drains");
    until("the pod is gone", PATIENCE, async || Ok(pods.get_opt("drains").await?.is_none())).await?;
    ensure!(deleted.elapsed() > Duration::from_secs(2), "the pod was gone after {:?}", deleted.elapsed());
    ensure!(Http::default().get(&url, None, PATIENCE).await.is_err(), "a pod that is gone answers");
    Ok(())
}

async fn a_job_runs_its_command(environment: &mut Environment) -> Result<()> {
    let jobs: Api<Job> = Api::default_namespaced(environment.client.clone());
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "word"}, "stringData": {"word": "open sesame"},
    });
    apply::object(&environment.client, "default", secret).await?;
    for (name, script, outcome) in [
        ("succeeds", "test \"$WORD\" = 'open sesame'", "Complete"),
        ("fails", "exit 3", "Failed"),
        // Its pod is deleted while it runs.
        ("hangs", "sleep 600", "Failed"),
    ] {
        let job = json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
            "spec": {
                "backoffLimit": 0,
                "activeDeadlineSeconds": if name == "hangs" { 1 } else { 600 },
                "template": {"spec": {"restartPolicy": "Never", "containers": [{
                    "name": "main", "image": "none", "command": ["sh", "-c", script],
                    "env": [{"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "word", "key": "word"}}}],
                }]}},
            },
        });
        create(environment, job).await?;
        until(&format!("job {name} is {outcome}"), PATIENCE, async || {
            let conditions = jobs.get(name).await?.status.and_then(|status| status.conditions).unwrap_or_default();
            Ok(conditions.iter().any(|condition| condition.type_ == outcome && condition.status == "True"))
        })
        .await?;
    }
    Ok(())
}

async fn the_controllers_user_may_nothing_by_itself(environment: &mut Environment) -> Result<()> {
    let mark = environment.cluster.audit().mark();
    let as_controller: Api<Pod> = Api::default_namespaced(environment.cluster.client(CONTROLLER).await?);
    let refused = as_controller.list(&ListParams::default()).await;
    ensure!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 403), "{refused:?}");
    let refused = as_controller.delete("any", &DeleteParams::default()).await;
    ensure!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 403), "{refused:?}");

    // Reads are not counted, refused writes are.
    let writes = environment.cluster.audit().writes(CONTROLLER, mark)?;
    ensure!(writes == [("delete pods".to_owned(), 1)].into(), "{writes:?}");
    ensure!(environment.cluster.audit().writes(ADMIN, mark)?.is_empty(), "the admin wrote nothing");
    Ok(())
}

async fn pods_go_on_after_the_api_server_was_killed(environment: &mut Environment) -> Result<()> {
    let replica_sets: Api<ReplicaSet> = Api::default_namespaced(environment.client.clone());
    let mut template = pod("", json!({}));
    let labels = json!({"app": "survives"});
    template["metadata"]["labels"] = labels.clone();
    let replica_set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "survives"},
        "spec": {
            "replicas": 40,
            "selector": {"matchLabels": labels},
            "template": {"metadata": template["metadata"], "spec": template["spec"]},
        },
    });
    create(environment, replica_set).await?;
    // In the middle of it.
    sleep(Duration::from_millis(300)).await;
    environment.cluster.kill_api_server().await;
    environment.cluster.restart_api_server().await?;
    until("all replicas are available", PATIENCE, async || {
        let status = replica_sets.get("survives").await?.status;
        Ok(status.and_then(|status| status.available_replicas) == Some(40))
    })
    .await?;
    let addresses: std::collections::BTreeSet<_> = pods(environment)
        .list(&ListParams::default().labels("app=survives"))
        .await?
        .into_iter()
        .filter_map(|pod| pod.status?.pod_ip)
        .collect();
    ensure!(addresses.len() == 40, "two pods have the same address");
    Ok(())
}

async fn a_killed_controller_can_be_started_again(environment: &mut Environment) -> Result<()> {
    let script = "echo started; exec sleep 600";
    let arguments = ["-c", script].map(str::to_owned).to_vec();
    let mut controller = Controller::start_program("/bin/sh".into(), &environment.folder, arguments)?;
    until("it has printed", PATIENCE, async || Ok(controller.log()?.lines().count() == 1)).await?;
    controller.kill().await;
    ensure!(!controller.is_running(), "it runs after it was killed");
    controller.restart()?;
    until("it has printed again", PATIENCE, async || Ok(controller.log()?.lines().count() == 2)).await?;
    ensure!(controller.is_running() && controller.usage()?.resident > 0, "it does not run");
    controller.stop().await;
    Ok(())
}

async fn every_command_of_the_plugin_works(environment: &mut Environment) -> Result<()> {
    apply::crds(&environment.client, &chart::workspace().join("crds")).await?;
    let flags = ["--leader-elect=false", "--metricsPort=0", "--healthzPort=0"];
    let controller = Controller::start(&environment.cluster, &environment.folder, ADMIN, &flags)?;
    let kubeconfig = environment.cluster.kubeconfig(ADMIN);
    for (name, program) in plugin::programs()? {
        plugin::try_everything(name, &program, &environment.client, &kubeconfig, &environment.folder)
            .await
            .with_context(|| format!("with {name}"))?;
    }
    controller.stop().await;
    Ok(())
}

fn pod(name: &str, variables: Value) -> Value {
    let variables = variables.as_object().cloned().unwrap_or_default();
    let env: Vec<_> = variables.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [
            {"name": "web", "image": "example/web:1", "ports": [{"containerPort": 8080}], "env": env},
        ]},
    })
}

async fn create(environment: &Environment, object: Value) -> Result<()> {
    apply::object(&environment.client, "default", object).await.map(drop)
}

async fn annotate(pods: &Api<Pod>, name: &str, annotations: Value) -> Result<()> {
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
    pods.patch(name, &PatchParams::default(), &patch).await?;
    Ok(())
}

fn pods(environment: &Environment) -> Api<Pod> {
    Api::default_namespaced(environment.client.clone())
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready")
}

fn condition(pod: &Pod, name: &str) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == name && condition.status == "True")
}
