//! `test`: everything that is tested on the real control plane: the CRDs, the chart's rights, the scenarios, and
//! what happens when things break in the middle of a release.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, TypeMeta};
use kube::{Api, Client};
use serde_json::json;
use tidegate::clock::Clock;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::scenarios::{FLAGS, How, play};
use super::{backtest, suites};
use crate::apply;
use crate::audit::{AuditEvent, Mark};
use crate::chart::{self, RELEASE};
use crate::cluster::{ADMIN, CONTROLLER, ClusterOptions};
use crate::controller::Controller;
use crate::environment::{Environment, EnvironmentOptions};
use crate::storm::{self, StormOptions};
use crate::suite;
use crate::tally::Tally;
use crate::tools::{Part, Tools};

/// What the namespaces of the tests of rights begin with.
const RIGHTS_NAMESPACES: &str = "rights-";
/// How long a controller that lacks a right may take to ask for it.
const DENIED: Duration = Duration::from_secs(45);
/// `make storm` has a longer one.
const STORM: StormOptions = StormOptions { length: Duration::from_secs(120), seed: 1 };

/// Of history; `tidegate-e2e backtest` has a month.
const DAYS: i64 = 1;

#[derive(Debug, clap::Args)]
pub struct Test {
    #[command(flatten)]
    how: How,
}

impl Test {
    pub async fn run(self, folder: &Path) -> Result<()> {
        let mut tally = Tally::default();
        let tested = self.test(folder, &mut tally).await;
        tally.end_after(tested)
    }

    async fn test(self, folder: &Path, tally: &mut Tally) -> Result<()> {
        Tools::find(&[Part::Helm])?;
        let cluster = ClusterOptions { audited_reads: true, ..ClusterOptions::default() };
        let options = EnvironmentOptions { cluster, ..EnvironmentOptions::full() };
        let environment = Environment::start(folder, options).await?;
        tally.test("crds_are_taken_by_client_side_apply", crds(&environment, &["apply"])).await;
        let server_side = crds(&environment, &["apply", "--server-side", "--force-conflicts"]);
        tally.test("crds_are_taken_by_server_side_apply", server_side).await;
        tally.test("crds_are_explained", explained(&environment)).await;
        chart::install(&environment.tools, &environment.client).await?;
        rights(&environment, folder, tally).await?;
        chart::install(&environment.tools, &environment.client).await?;

        let audit = environment.cluster.audit();
        let mark = audit.mark();
        play(environment, folder, &[], self.how, tally).await?;
        tally.test("the_charts_rights_are_enough", async { nothing_denied(&audit.since(mark)?) }).await;
        for (name, options, tests) in suites() {
            tally.absorb(suite::run(&folder.join(name), options, &tests).await?);
        }
        let past = folder.join("backtest");
        tally.test("analyses_are_tried_on_the_past_of_a_real_prometheus", backtest::check(&past, DAYS)).await;
        tally.test("releases_end_well_in_a_storm", storm::run(&folder.join("storm"), STORM)).await;
        Ok(())
    }
}

async fn crds(environment: &Environment, verb: &[&str]) -> Result<()> {
    let folder = chart::workspace().join("crds");
    kubectl(environment.cluster.kubectl(ADMIN).args(verb).arg("-f").arg(folder)).await.map(drop)
}

async fn explained(environment: &Environment) -> Result<()> {
    for (path, word) in [
        ("rollouts.spec.strategy.canary.steps", "setWeight"),
        ("rollouts.spec.template.spec.containers", "readinessProbe"),
        ("rollouts.status", "currentStepIndex"),
        ("analysisruns.spec.metrics.provider.prometheus", "query"),
    ] {
        let explained = async || {
            let text = kubectl(environment.cluster.kubectl(ADMIN).args(["explain", path])).await?;
            ensure!(text.contains(word), "kubectl explain {path} says nothing of {word}:\n{text}");
            Ok(())
        };
        // The API server publishes a schema some seconds after its CRD.
        let deadline = Instant::now() + Duration::from_secs(30);
        while let Err(error) = explained().await {
            if Instant::now() > deadline {
                return Err(error);
            }
            sleep(Duration::from_millis(500)).await;
        }
    }
    Ok(())
}

async fn kubectl(command: &mut Command) -> Result<String> {
    let output = command.output().await.context("running kubectl")?;
    if !output.status.success() {
        bail!("{:?}: {}", command.as_std(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A role, reduced to its rules.
struct Rules {
    role: &'static str,
    cluster: bool,
    rules: Vec<PolicyRule>,
}

/// For each rule of the chart: without it, the controller is denied something that the rule grants.
async fn rights(environment: &Environment, folder: &Path, tally: &mut Tally) -> Result<()> {
    let client = &environment.client;
    let cluster_role = Api::<ClusterRole>::all(client.clone()).get("tidegate").await?;
    let leader = Api::<Role>::namespaced(client.clone(), RELEASE).get("tidegate-leader").await?;
    let roles = [
        Rules { role: "tidegate", cluster: true, rules: cluster_role.rules.unwrap_or_default() },
        Rules { role: "tidegate-leader", cluster: false, rules: leader.rules.unwrap_or_default() },
    ];
    let folder = folder.join("rights");
    std::fs::create_dir_all(&folder).context("creating the folder of the controllers")?;
    for role in &roles {
        for (index, rule) in role.rules.iter().enumerate() {
            let name = format!("{}-{index}", role.role);
            let namespace = format!("{RIGHTS_NAMESPACES}{name}");
            let what = rule.resources.clone().unwrap_or_default().join(",");
            let denied = denied_without(environment, &folder, role, index, &namespace);
            tally.test(&format!("the_rule_for_{what}_is_needed"), denied).await;
        }
        set_rules(client, role, &role.rules).await?;
    }
    Ok(())
}

async fn denied_without(
    environment: &Environment,
    folder: &Path,
    role: &Rules,
    index: usize,
    namespace: &str,
) -> Result<()> {
    let client = &environment.client;
    let removed = role.rules[index].clone();
    let rest: Vec<_> = role.rules.iter().enumerate().filter(|(at, _)| *at != index).map(|(_, it)| it.clone()).collect();
    set_rules(client, role, &rest).await?;
    // The authorizer follows a change of roles within moments.
    sleep(Duration::from_millis(300)).await;
    // The next controller has to make its own.
    let leases = Api::<Lease>::namespaced(client.clone(), RELEASE);
    leases.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    let audit = environment.cluster.audit();
    let mark: Mark = audit.mark();
    let controller = Controller::start(&environment.cluster, folder, CONTROLLER, FLAGS)?;
    apply::object(client, "", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}))
        .await?;
    apply::yaml(client, namespace, EVERYTHING).await?;
    let deadline = Instant::now() + DENIED;
    let mut released = false;
    let outcome = loop {
        let events = audit.since(mark)?;
        if events.iter().any(|event| is_denied(event) && grants(&removed, event)) {
            break Ok(());
        }
        if Instant::now() > deadline {
            let denied = denied(&events);
            let log = controller.log().unwrap_or_default();
            let end: Vec<&str> = log.lines().rev().take(10).collect();
            break Err(anyhow::anyhow!("nothing was denied but {denied:?}; the controller says {end:#?}"));
        }
        // Once the first release is out, a second one makes use of the rest.
        released = released || release(client, namespace).await?;
        sleep(Duration::from_millis(200)).await;
    };
    controller.stop().await;
    // What is left of it would keep the next controllers busy.
    Api::<Namespace>::all(client.clone()).delete(namespace, &DeleteParams::background()).await?;
    outcome
}

/// Sets a new image once the Rollout is Healthy, and restarts another one. Answers whether it has.
async fn release(client: &Client, namespace: &str) -> Result<bool> {
    let types = TypeMeta { api_version: "argoproj.io/v1alpha1".to_owned(), kind: "Rollout".to_owned() };
    let (resource, _) = apply::kind(client, &types).await?;
    let rollouts: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    if rollouts.get("web").await?.data["status"]["phase"] != "Healthy" {
        return Ok(false);
    }
    let patch =
        json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "example/web:green"}]);
    let patch = serde_json::from_value(patch).context("a replacement is a JSON patch")?;
    rollouts.patch("web", &PatchParams::default(), &Patch::Json::<()>(patch)).await?;
    let restart = json!({"spec": {"restartAt": Clock::system().now().to_string()}});
    rollouts.patch("porter", &PatchParams::default(), &Patch::Merge(restart)).await?;
    Ok(true)
}

async fn set_rules(client: &Client, role: &Rules, rules: &[PolicyRule]) -> Result<()> {
    let (patch, params) = (Patch::Merge(json!({"rules": rules})), PatchParams::default());
    if role.cluster {
        Api::<ClusterRole>::all(client.clone()).patch(role.role, &params, &patch).await?;
    } else {
        Api::<Role>::namespaced(client.clone(), RELEASE).patch(role.role, &params, &patch).await?;
    }
    Ok(())
}

fn is_denied(event: &AuditEvent) -> bool {
    event.user.username == CONTROLLER && event.response_status.as_ref().is_some_and(|status| status.code == 403)
}

/// Whether the rule would have allowed it.
fn grants(rule: &PolicyRule, event: &AuditEvent) -> bool {
    let object = event.object_ref.clone().unwrap_or_default();
    let resource = if object.subresource.is_empty() {
        object.resource
    } else {
        format!("{}/{}", object.resource, object.subresource)
    };
    rule.resources.iter().flatten().any(|granted| *granted == resource) && rule.verbs.contains(&event.verb)
}

/// What the controller was denied, each once.
fn denied(events: &[AuditEvent]) -> BTreeSet<String> {
    events.iter().filter(|event| is_denied(event)).map(AuditEvent::what).collect()
}

fn nothing_denied(events: &[AuditEvent]) -> Result<()> {
    // A namespace that is going away refuses what is created in it, by the same code; those tests are over.
    let is_over = |event: &AuditEvent| {
        event.object_ref.as_ref().is_some_and(|object| object.namespace.starts_with(RIGHTS_NAMESPACES))
    };
    let events: Vec<_> = events.iter().filter(|event| !is_over(event)).cloned().collect();
    let denied = denied(&events);
    ensure!(denied.is_empty(), "the controller was denied {denied:?}");
    ensure!(
        events.iter().any(|event| event.user.username == CONTROLLER),
        "the audit log has nothing of the controller"
    );
    Ok(())
}

/// A Rollout that uses everything that the chart has a rule for.
const EVERYTHING: &str = include_str!("rights.yaml");

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_rule_is_found_by_what_it_would_have_allowed() {
        let rule = PolicyRule {
            resources: Some(vec!["rollouts/status".to_owned()]),
            verbs: vec!["patch".to_owned()],
            ..Default::default()
        };
        let event = |subresource: &str, verb: &str| -> AuditEvent {
            let event: Value = json!({
                "verb": verb,
                "user": {"username": CONTROLLER},
                "objectRef": {"resource": "rollouts", "subresource": subresource},
                "responseStatus": {"code": 403},
                "requestReceivedTimestamp": "2026-01-01T00:00:00Z",
                "stageTimestamp": "2026-01-01T00:00:00Z",
            });
            serde_json::from_value(event).unwrap()
        };
        assert!(is_denied(&event("status", "patch")) && grants(&rule, &event("status", "patch")));
        assert!(!grants(&rule, &event("", "patch")));
        assert!(!grants(&rule, &event("status", "update")));
    }
}
