//! `smoke`: does the harness itself work? No controller takes part.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::batch::v1::Job;
use kube::Api;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::apply;
use crate::environment::{Environment, EnvironmentOptions};
use crate::gateway::{GATEWAY_NAME, GATEWAY_NAMESPACE, Gateway};
use crate::load::{Load, LoadOptions, Summary};
use crate::wait::until;

const NAMESPACE: &str = "smoke";
const HOST: &str = "smoke.example";
const PORT: u16 = 8080;
const STABLE: &str = "stable";
const CANARY: &str = "canary";
/// How long anything may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub struct Smoke {
    /// Requests a second
    #[arg(long, default_value_t = 150.0)]
    rate: f64,
    /// Pods of each version
    #[arg(long, default_value_t = 3)]
    replicas: u32,
    /// For how long each split is measured, in seconds
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

impl Smoke {
    pub async fn run(self, folder: &Path) -> Result<()> {
        let started = Instant::now();
        let environment = Environment::start(folder, EnvironmentOptions::full()).await?;
        println!("environment up after {:.1} s", started.elapsed().as_secs_f64());
        let client = &environment.client;
        let gateway = environment.gateway.as_ref().context("the full environment has a gateway")?;

        let deployed = Instant::now();
        apply::object(client, "", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}))
            .await?;
        for version in [STABLE, CANARY] {
            apply::object(client, NAMESPACE, replica_set(version, self.replicas)).await?;
            apply::object(client, NAMESPACE, service(version)).await?;
        }
        apply::object(client, NAMESPACE, route(90, 10)).await?;
        self.wait_for_replicas(&environment).await?;
        println!("{} pods ready after {:.1} s", self.replicas * 2, deployed.elapsed().as_secs_f64());

        let load = Load::start(LoadOptions {
            url: gateway.url(),
            host: HOST.to_owned(),
            rate: self.rate,
            timeout: Duration::from_secs(5),
        });
        self.wait_for_split(&load, 10.0).await?;
        let first = self.measure(&load).await?;
        apply::object(client, NAMESPACE, route(50, 50)).await?;
        let changed = load.elapsed();
        self.wait_for_split(&load, 50.0).await?;
        let propagated = first_difference(&load, changed, 50.0);
        let second = self.measure(&load).await?;
        // The canary goes away under traffic: its pods drain, so that nothing may fail.
        apply::object(client, NAMESPACE, route(100, 0)).await?;
        self.wait_for_split(&load, 0.0).await?;
        apply::object(client, NAMESPACE, replica_set(CANARY, 0)).await?;
        let third = self.measure(&load).await?;
        println!("weights 90/10:  {}", describe(&first));
        println!(
            "weights 50/50:  {}  (seen at the latest {:.1} s after the change)",
            describe(&second),
            propagated.as_secs_f64()
        );
        println!("weights 100/0:  {}", describe(&third));
        let routed = load.elapsed();
        let records = load.stop().await?;
        let first_answer =
            records.iter().filter(|record| record.is_ok()).map(|record| record.due).min().unwrap_or(routed);
        let failed = records.iter().filter(|record| record.due > first_answer && !record.is_ok()).count();
        println!("{} requests, {failed} failed after the route was programmed", records.len());

        for version in [STABLE, CANARY] {
            let label = Gateway::service_label(NAMESPACE, version, PORT);
            let prometheus = environment.prometheus.as_ref().context("the full environment has a Prometheus")?;
            let samples =
                prometheus.query(&format!("sum(traefik_service_requests_total{{service=\"{label}\"}})")).await?;
            let total = samples.first().with_context(|| format!("Prometheus knows no {label}"))?.value;
            println!("prometheus: {label} answered {total}");
            let seen = records.iter().filter(|record| record.version.as_deref() == Some(version)).count();
            // The last scrape may be a second old.
            ensure!((total - seen as f64).abs() <= self.rate * 2.0, "prometheus saw {total}, the load saw {seen}");
        }

        for (name, script, succeeds) in [("good", "test \"$WORD\" = word", true), ("bad", "exit 3", false)] {
            let took = self.run_job(&environment, name, script, succeeds).await?;
            println!("job {name}: {} after {:.1} s", if succeeds { "Complete" } else { "Failed" }, took.as_secs_f64());
        }

        for (name, usage) in environment.usage()? {
            let megabytes = |bytes: u64| bytes as f64 / 1e6;
            println!(
                "{name:24} {:6.2} s CPU  {:5.0} MB now  {:5.0} MB peak",
                usage.cpu.as_secs_f64(),
                megabytes(usage.resident),
                megabytes(usage.peak)
            );
        }
        environment.stop().await;
        println!("everything stopped after {:.1} s", started.elapsed().as_secs_f64());

        ensure!(failed == 0, "{failed} requests failed");
        for (summary, weight) in [(&first, 10.0), (&second, 50.0), (&third, 0.0)] {
            let share = canary_percent(summary);
            ensure!((share - weight).abs() <= 3.0, "{share:.1}% of the requests reached the canary at weight {weight}");
        }
        Ok(())
    }

    async fn wait_for_replicas(&self, environment: &Environment) -> Result<()> {
        let replica_sets: Api<ReplicaSet> = Api::namespaced(environment.client.clone(), NAMESPACE);
        until("the pods are ready", PATIENCE, async || {
            let sets = try_join_all([STABLE, CANARY].map(|name| replica_sets.get(name))).await?;
            let wanted = i32::try_from(self.replicas).ok();
            Ok(sets.iter().all(|set| set.status.as_ref().and_then(|status| status.available_replicas) == wanted))
        })
        .await
    }

    /// Waits until the last second's requests were split like that.
    async fn wait_for_split(&self, load: &Load, percent: f64) -> Result<()> {
        until(&format!("{percent}% of the requests reach the canary"), PATIENCE, async || {
            let now = load.elapsed();
            let summary = load.summary(now.saturating_sub(Duration::from_secs(1))..now);
            let settled = summary.all.sent > 0 && summary.all.failed == 0;
            Ok(settled && (canary_percent(&summary) - percent).abs() <= 5.0)
        })
        .await
    }

    async fn measure(&self, load: &Load) -> Result<Summary> {
        let from = load.elapsed();
        sleep(Duration::from_secs(self.seconds)).await;
        Ok(load.summary(from..load.elapsed()))
    }

    async fn run_job(&self, environment: &Environment, name: &str, script: &str, succeeds: bool) -> Result<Duration> {
        let started = Instant::now();
        apply::object(&environment.client, NAMESPACE, job(name, script)).await?;
        let jobs: Api<Job> = Api::namespaced(environment.client.clone(), NAMESPACE);
        let wanted = if succeeds { "Complete" } else { "Failed" };
        until(&format!("job {name} is {wanted}"), PATIENCE, async || {
            let job = jobs.get(name).await?;
            let conditions = job.status.and_then(|status| status.conditions).unwrap_or_default();
            Ok(conditions.iter().any(|condition| condition.type_ == wanted && condition.status == "True"))
        })
        .await?;
        Ok(started.elapsed())
    }
}

/// How long after `changed` the first tenth of a second came in which the canary had the wanted percentage or more.
fn first_difference(load: &Load, changed: Duration, percent: f64) -> Duration {
    let step = Duration::from_millis(100);
    let mut at = changed;
    while at < load.elapsed() && canary_percent(&load.summary(at..at + step)) < percent - 15.0 {
        at += step;
    }
    at + step - changed
}

fn canary_percent(summary: &Summary) -> f64 {
    let canary = summary.versions.get(CANARY).map_or(0, |counts| counts.sent);
    100.0 * canary as f64 / summary.all.sent.max(1) as f64
}

fn describe(summary: &Summary) -> String {
    let all = &summary.all;
    let milliseconds = |share| all.latency(share).as_secs_f64() * 1e3;
    format!(
        "{:4} requests, {:4.1}% to the canary, {} failed, {:.1} ms median, {:.1} ms p99",
        all.sent,
        canary_percent(summary),
        all.failed,
        milliseconds(0.5),
        milliseconds(0.99),
    )
}

fn replica_set(version: &str, replicas: u32) -> Value {
    let labels = json!({"app": "smoke", "version": version});
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": version},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{
                    "name": "web",
                    "image": format!("example/web:{version}"),
                    "ports": [{"containerPort": PORT}],
                }]},
            },
        },
    })
}

fn service(version: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": version},
        "spec": {"selector": {"app": "smoke", "version": version}, "ports": [{"port": PORT}]},
    })
}

fn route(stable: u32, canary: u32) -> Value {
    let backend = |name, weight: u32| json!({"name": name, "port": PORT, "weight": weight});
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "smoke"},
        "spec": {
            "parentRefs": [{"name": GATEWAY_NAME, "namespace": GATEWAY_NAMESPACE}],
            "hostnames": [HOST],
            "rules": [{"backendRefs": [backend(STABLE, stable), backend(CANARY, canary)]}],
        },
    })
}

fn job(name: &str, script: &str) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
        "spec": {
            "backoffLimit": 0,
            "template": {"spec": {
                "restartPolicy": "Never",
                "containers": [{
                    "name": "main", "image": "example/none",
                    "env": [{"name": "WORD", "value": "word"}],
                    "command": ["sh", "-c", script],
                }],
            }},
        },
    })
}
