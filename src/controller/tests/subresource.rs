//! Where the status of AnalysisRuns and Experiments is written: their definitions may have a status subresource or not.

use kube::core::Status;

use super::*;

const RUNS: &str = "analysisruns.argoproj.io";
const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";

fn run(name: &str) -> Value {
    let metric = json!({
        "name": "errors", "successCondition": "result.errors < 1", "provider": {"web": {"url": "http://errors.example/"}},
    });
    json!({"metadata": {"name": name}, "spec": {"metrics": [metric]}})
}

/// Gives the status of AnalysisRuns a subresource, or takes it away.
fn define(cluster: &Cluster, subresources: Value) {
    let definitions = cluster.server.manager("test");
    let mut versions = definitions.get(DEFINITIONS, "", RUNS).unwrap()["spec"]["versions"].clone();
    versions[0]["subresources"] = subresources;
    let patch = Patch::Merge(json!({"spec": {"versions": versions}}));
    definitions.patch(DEFINITIONS, "", RUNS, &patch).unwrap();
}

async fn phase_after(cluster: &Cluster, name: &str) -> Value {
    cluster.create(RUNS, run(name));
    sleep(Duration::from_secs(10)).await;
    cluster.get(RUNS, name)["status"]["phase"].clone()
}

/// How many patches went to a part of runs.
fn patches(cluster: &Cluster, subresource: &str) -> usize {
    let calls = cluster.calls.calls.lock().unwrap();
    let is = |call: &Call| call.resource == RUNS && call.verb == "patch" && call.subresource == subresource;
    calls.iter().filter(|(_, call)| is(call)).count()
}

#[tokio::test(start_paused = true)]
async fn a_status_without_a_subresource_is_written_to_the_object() {
    // A real API server answers 404 for it; proxies and other servers have been seen to answer 405.
    for code in [404, 405] {
        let cluster = Cluster::new();
        *cluster.web.answer.lock().unwrap() = json!({"errors": 0});
        if code == 405 {
            *cluster.calls.before.lock().unwrap() = Some(Box::new(|call| {
                let status = call.resource == RUNS && call.subresource == "status";
                let refusal =
                    Status::failure("the server does not allow this method", "MethodNotAllowed").with_code(405);
                if status { Fault::Refuse(Box::new(refusal)) } else { Fault::None }
            }));
        }
        let running = cluster.run(one_replica_set);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(phase_after(&cluster, "first").await, "Successful", "{code}");
        assert_eq!(phase_after(&cluster, "second").await, "Successful", "{code}");
        assert_eq!(patches(&cluster, "status"), 1, "{code}: it is tried once, and remembered");
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_definition_may_get_a_status_subresource_and_lose_it() {
    let cluster = Cluster::new();
    *cluster.web.answer.lock().unwrap() = json!({"errors": 0});
    let running = cluster.run(one_replica_set);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(phase_after(&cluster, "without").await, "Successful");
    define(&cluster, json!({"status": {}}));
    assert_eq!(phase_after(&cluster, "with").await, "Successful");
    define(&cluster, json!({}));
    assert_eq!(phase_after(&cluster, "without-again").await, "Successful");
    running.stop().await;
}
