//! `/metrics` after a busy day: the names, types and labels of Argo Rollouts, and what the manual lists.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use kube::core::Status;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// A metric: its type and its labels.
type Families = BTreeMap<String, (String, BTreeSet<String>)>;

/// What Argo Rollouts exports, as of 1.9, with the update durations that came later. Those of notifications are not among
/// them: nothing is sent yet. Nor are those of Go's runtime.
const ARGO: &str = "
rollout_info                                gauge     namespace name strategy traffic_router phase
rollout_info_replicas_available             gauge     namespace name
rollout_info_replicas_unavailable           gauge     namespace name
rollout_info_replicas_desired               gauge     namespace name
rollout_info_replicas_updated               gauge     namespace name
rollout_phase                               gauge     namespace name strategy phase
rollout_reconcile                           histogram namespace name
rollout_reconcile_error                     counter   namespace name
rollout_events_total                        counter   namespace name type reason
rollout_duration_seconds                    histogram status
rollout_progression_duration_seconds        histogram status
rollout_manual_pause_duration_seconds       histogram status
analysis_run_info                           gauge     namespace name phase
analysis_run_phase                          gauge     namespace name phase
analysis_run_metric_type                    gauge     namespace name metric type
analysis_run_metric_phase                   gauge     namespace name metric type dry_run phase
analysis_run_reconcile                      histogram namespace name
analysis_run_reconcile_error                counter   namespace name
analysis_template_info                      gauge     namespace name
analysis_template_metric_info               gauge     namespace name type metric
experiment_info                             gauge     namespace name phase
experiment_phase                            gauge     namespace name phase
experiment_reconcile                        histogram namespace name
experiment_reconcile_error                  counter   namespace name
controller_clientset_k8s_request_total      counter   kind namespace name verb status_code
argo_rollouts_controller_info               gauge     version
build_info                                  gauge     version goversion goarch commit
workqueue_depth                             gauge     name
workqueue_adds_total                        counter   name
workqueue_queue_duration_seconds            histogram name
workqueue_work_duration_seconds             histogram name
workqueue_unfinished_work_seconds           gauge     name
workqueue_longest_running_processor_seconds gauge     name
workqueue_retries_total                     counter   name
";

/// Reads the metrics as Prometheus does.
async fn scrape(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 200") && head.contains("text/plain; version=0.0.4"), "{head}");
    body.to_owned()
}

/// The families of a scrape, but those of the process.
fn families(text: &str) -> Families {
    let mut families = Families::new();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    for (name, type_) in types {
        families.insert(name.to_owned(), (type_.to_owned(), BTreeSet::new()));
    }
    for sample in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, rest)) = sample.split_once('{') else { continue };
        let ends = ["_bucket", "_sum", "_count"];
        let base = ends.iter().find_map(|end| name.strip_suffix(end)).filter(|base| families.contains_key(*base));
        let (_, labels) = families.get_mut(base.unwrap_or(name)).unwrap();
        let (inside, _) = rest.rsplit_once('}').unwrap();
        let names = inside.split("\",").filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
        labels.extend(names.filter(|label| label != "le"));
    }
    families.retain(|name, _| !name.starts_with("process_"));
    families
}

/// A canary with an experiment, an analysis and a pause, a blue-green, a spec that is invalid, and a server that refuses
/// the first status of each kind and breaks the first watch.
async fn busy_day(cluster: &Cluster) {
    let refused = Mutex::new(BTreeSet::new());
    *cluster.calls.before.lock().unwrap() = Some(Box::new(move |call| {
        let ours = call.verb == "patch" && call.resource.ends_with("argoproj.io");
        let status = ours && (call.resource != ROLLOUTS || call.subresource == "status");
        if status && call.name != "web" && refused.lock().unwrap().insert(call.resource.clone()) {
            return Fault::Refuse(Box::new(Status::failure("denied by a webhook", "Forbidden").with_code(403)));
        }
        let watch = call.verb == "watch" && refused.lock().unwrap().insert(call.verb.to_owned());
        if watch { Fault::Break } else { Fault::None }
    }));
    let template = json!({"metadata": {"name": "errors"}, "spec": {"metrics": [{
        "name": "errors", "successCondition": "result.errors < 1", "provider": {"web": {"url": "http://errors.example/"}},
    }]}});
    cluster.create("analysistemplates.argoproj.io", template);
    for name in ["active", "preview"] {
        let spec = json!({"selector": {"app": "shop"}, "ports": [{"port": 80}]});
        cluster.create("services", json!({"metadata": {"name": name}, "spec": spec}));
    }
    let mut shop = canary("shop");
    shop["spec"]["strategy"] =
        json!({"blueGreen": {"activeService": "active", "previewService": "preview", "autoPromotionSeconds": 5}});
    let mut broken = canary("broken");
    broken["spec"]["strategy"]["canary"]["stableService"] = "nowhere".into();
    let mut web = canary("web");
    web["spec"]["strategy"]["canary"]["steps"] = json!([
        {"experiment": {"duration": "20s", "templates": [{"name": "trial", "specRef": "canary", "replicas": 1}]}},
        {"analysis": {"templates": [{"templateName": "errors"}]}}, {"setWeight": 50}, {"pause": {"duration": 5}},
    ]);
    for rollout in [shop, broken, web] {
        cluster.create(ROLLOUTS, rollout);
    }
    sleep(Duration::from_secs(60)).await;
    let patch = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "web:2"}]);
    let patch = Patch::Json(serde_json::from_value(patch).unwrap());
    for name in ["shop", "web"] {
        cluster.server.manager("test").patch(ROLLOUTS, "default", name, &patch).unwrap();
    }
    sleep(Duration::from_secs(240)).await;
    for name in ["shop", "web"] {
        assert_eq!(cluster.status(name)["phase"], "Healthy", "{:#}", cluster.status(name));
    }
}

#[tokio::test(start_paused = true)]
async fn everything_is_exported_under_argos_names_and_listed_in_the_manual() {
    let cluster = Cluster::new();
    *cluster.web.answer.lock().unwrap() = json!({"errors": 0});
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let metrics_address = Some(([127, 0, 0, 1], port).into());
    let running = cluster.run_with(rollout::decide, Settings { metrics_address, ..Settings::default() });
    busy_day(&cluster).await;
    let text = scrape(port).await;
    let exported = families(&text);

    for line in ARGO.trim().lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        let (name, type_) = (words.next().unwrap(), words.next().unwrap());
        assert_eq!(exported.get(&name), Some(&(type_, words.collect())), "{name}\n{text}");
    }
    let page = include_str!("../../../docs/reference-metrics.md");
    let listed: Families = page.lines().filter_map(row).collect();
    let mut differences = String::new();
    for name in exported.keys().chain(listed.keys()).collect::<BTreeSet<_>>() {
        let (exported, listed) = (exported.get(name), listed.get(name));
        if exported != listed {
            writeln!(differences, "{name}: exported {exported:?}, listed {listed:?}").unwrap();
        }
    }
    assert!(differences.is_empty(), "docs/reference-metrics.md differs:\n{differences}");
    let process = text.lines().filter_map(|line| line.strip_prefix("# TYPE process_")?.split_once(' '));
    for (name, _) in process {
        assert!(page.contains(&format!("`process_{name}`")), "process_{name} is not in the manual");
    }

    for line in [
        r#"workqueue_depth{name="Rollouts"} 0"#,
        r#"workqueue_longest_running_processor_seconds{name="AnalysisRuns"} 0"#,
        r#"rollout_info{name="shop",namespace="default",phase="Completed",strategy="blueGreen",traffic_router=""} 1"#,
        r#"rollout_info{name="broken",namespace="default",phase="InvalidSpec",strategy="canary",traffic_router=""} 1"#,
        r#"rollout_info_replicas_unavailable{name="web",namespace="default"} 0"#,
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    running.stop().await;
}

/// A row of the manual's table.
fn row(line: &str) -> Option<(String, (String, BTreeSet<String>))> {
    let cells: Vec<&str> = line.strip_prefix("| `")?.split('|').map(str::trim).collect();
    let [name, type_, labels, ..] = cells.as_slice() else { return None };
    let type_ = type_.split(',').next().unwrap_or_default().to_owned();
    let labels = labels.split(", ").filter(|label| !label.is_empty()).map(str::to_owned);
    Some((name.trim_end_matches('`').to_owned(), (type_, labels.collect())))
}
