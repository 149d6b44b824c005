//! A Kubernetes Job: its success is the metric's.
//!
//! The Job's name is made from the run's uid, the metric and the number of the measurement. A measurement that was taken
//! but could not be recorded is therefore taken again with the same Job.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::core::{ApiResource, DynamicObject};
use serde_json::{Map, Value, json};

use super::{Answer, Call, Provider, Reading};
use crate::analysis::metric::ProviderKind;
use crate::api::AnalysisRun;
use crate::api::analysis::{AnalysisPhase, Measurement};
use crate::api::names;
use crate::api::providers::JobMetric;
use crate::api::resource::{JOB, POD, Resource};

/// For one request to the API server.
const TIMEOUT: Duration = Duration::from_secs(30);
/// A Job's name becomes a label of its pods.
const LONGEST_NAME: usize = 63;
/// Keys of a measurement's metadata.
const JOB_NAME: &str = "job-name";
const JOB_NAMESPACE: &str = "job-namespace";
/// Why a container waits that will not start by waiting.
const CANNOT_START: [&str; 3] = ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"];

/// Where Jobs run.
#[derive(Clone)]
pub struct JobTarget {
    pub client: kube::Client,
    /// Instead of the run's own namespace.
    pub namespace: Option<String>,
    /// Whether `client` goes to another cluster than the one with the runs.
    pub other_cluster: bool,
}

impl JobTarget {
    /// Nowhere: for those who have no cluster and measure no Jobs. Must be called within a runtime.
    pub fn nowhere() -> Self {
        let refused = |_: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("there is no cluster here"))
        };
        let client = kube::Client::new(tower::service_fn(refused), "default");
        Self { client, namespace: None, other_cluster: true }
    }
}

pub(super) struct Job;

impl Provider for Job {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Job
    }

    fn run<'a>(&'a self, call: Call<'a>, number: i32) -> BoxFuture<'a, Answer> {
        start(call, number).boxed()
    }

    fn resume<'a>(&'a self, call: Call<'a>, measurement: &'a Measurement) -> BoxFuture<'a, Answer> {
        look(call, measurement).boxed()
    }

    fn terminate<'a>(&'a self, call: Call<'a>, measurement: &'a Measurement) -> BoxFuture<'a, Answer> {
        async move {
            delete(call, measurement).await?;
            // Nobody knows how it would have ended.
            Ok(Reading::verdict(AnalysisPhase::Inconclusive))
        }
        .boxed()
    }

    fn garbage_collect<'a>(
        &'a self,
        call: Call<'a>,
        forgotten: &'a [Measurement],
    ) -> BoxFuture<'a, Result<(), String>> {
        async move {
            for measurement in forgotten {
                delete(call, measurement).await?;
            }
            Ok(())
        }
        .boxed()
    }
}

async fn start(call: Call<'_>, number: i32) -> Answer {
    let run = &call.task.run;
    let settings = call.task.metric.provider.job.as_ref().ok_or("provider.job is not set")?;
    let target = &call.services.jobs;
    let namespace = namespace(target, run);
    let body = job(settings, run, &call.task.metric.name, number, target)?;
    let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let body: DynamicObject = serde_json::from_value(body).map_err(|error| error.to_string())?;
    let jobs = objects(target, &JOB, &namespace);
    match jobs.create(&PostParams::default(), &body).within(TIMEOUT).await {
        Ok(_) => {}
        Err(Refused { code: 409, message }) => {
            let existing = jobs.get(&name).within(TIMEOUT).await.map_err(|error| error.message)?;
            let uid = existing.metadata.labels.as_ref().and_then(|labels| labels.get(names::RUN_UID));
            if uid.is_none() || uid != run.metadata.uid.as_ref() {
                return Err(message);
            }
        }
        Err(error) => return Err(error.message),
    }
    let metadata = BTreeMap::from([(JOB_NAME.to_owned(), name), (JOB_NAMESPACE.to_owned(), namespace)]);
    Ok(Reading::InFlight { metadata })
}

async fn look(call: Call<'_>, measurement: &Measurement) -> Answer {
    let (namespace, name) = reference(call, measurement)?;
    let target = &call.services.jobs;
    let job = objects(target, &JOB, &namespace).get(&name).within(TIMEOUT).await.map_err(|error| error.message)?;
    if let Some((phase, message)) = verdict(&job.data) {
        return Ok(Reading::Verdict { phase, message });
    }
    // A Job waits for ever for an image that does not exist. Pods that cannot be read say nothing.
    let uid = call.task.run.metadata.uid.clone().unwrap_or_default();
    let of_run = ListParams::default().labels(&format!("{}={uid}", names::RUN_UID));
    let pods = objects(target, &POD, &namespace).list(&of_run).within(TIMEOUT).await;
    let stuck = pods.iter().flatten().filter(|pod| owned_by(pod, &job)).find_map(|pod| cannot_start(&pod.data));
    Ok(match stuck {
        Some(message) => Reading::Verdict { phase: AnalysisPhase::Inconclusive, message },
        None => Reading::InFlight { metadata: BTreeMap::new() },
    })
}

async fn delete(call: Call<'_>, measurement: &Measurement) -> Result<(), String> {
    let (namespace, name) = reference(call, measurement)?;
    let jobs = objects(&call.services.jobs, &JOB, &namespace);
    match jobs.delete(&name, &DeleteParams::foreground()).within(TIMEOUT).await {
        Ok(_) | Err(Refused { code: 404, .. }) => Ok(()),
        Err(error) => Err(error.message),
    }
}

/// Namespace and name of a measurement's Job.
fn reference(call: Call<'_>, measurement: &Measurement) -> Result<(String, String), String> {
    let name = measurement.metadata.get(JOB_NAME).filter(|name| !name.is_empty());
    let name = name.ok_or("job metadata reference missing")?.clone();
    let namespace = measurement.metadata.get(JOB_NAMESPACE).cloned();
    Ok((namespace.unwrap_or_else(|| self::namespace(&call.services.jobs, &call.task.run)), name))
}

fn namespace(target: &JobTarget, run: &AnalysisRun) -> String {
    target.namespace.clone().or_else(|| run.metadata.namespace.clone()).unwrap_or_default()
}

/// The Job of a measurement. Its spec is the user's, but for one label of its pods.
fn job(
    settings: &JobMetric,
    run: &AnalysisRun,
    metric: &str,
    number: i32,
    target: &JobTarget,
) -> Result<Value, String> {
    let uid = run.metadata.uid.clone().unwrap_or_default();
    let own_namespace = run.metadata.namespace.clone().unwrap_or_default();
    let run_name = run.metadata.name.clone().unwrap_or_default();
    let namespace = namespace(target, run);

    let mut labels = settings.metadata.labels.clone();
    labels.insert(names::RUN_UID.to_owned(), uid.clone());
    let mut annotations = settings.metadata.annotations.clone();
    annotations.insert(names::RUN_NAME.to_owned(), run_name.clone());
    annotations.insert(names::RUN_NAMESPACE.to_owned(), own_namespace.clone());
    annotations.insert(names::METRIC_NAME.to_owned(), metric.to_owned());

    let mut spec = settings.spec.clone();
    let template = child(spec.as_object_mut().ok_or("provider.job.spec is not an object")?, "template")?;
    child(child(template, "metadata")?, "labels")?.insert(names::RUN_UID.to_owned(), uid.clone().into());

    let mut metadata = json!({
        "name": name(&uid, metric, number),
        "namespace": namespace,
        "labels": labels,
        "annotations": annotations,
    });
    // An owner elsewhere would make the garbage collector delete the Job at once.
    if !target.other_cluster && namespace == own_namespace {
        metadata["ownerReferences"] = json!([{
            "apiVersion": names::API_VERSION,
            "kind": "AnalysisRun",
            "name": run_name,
            "uid": uid,
            "controller": true,
            "blockOwnerDeletion": true,
        }]);
    }
    Ok(json!({"apiVersion": JOB.api_version(), "kind": JOB.kind, "metadata": metadata, "spec": spec}))
}

/// The object `field`, made if there is none.
fn child<'a>(object: &'a mut Map<String, Value>, field: &str) -> Result<&'a mut Map<String, Value>, String> {
    let value = object.entry(field).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().ok_or_else(|| format!("{field} in provider.job.spec is not an object"))
}

/// `UID.METRIC.NUMBER`, with as much of the metric's name as fits.
fn name(uid: &str, metric: &str, number: i32) -> String {
    let number = number.to_string();
    let room = LONGEST_NAME.saturating_sub(uid.len() + number.len() + 2);
    let metric = &metric[..metric.floor_char_boundary(room)];
    format!("{uid}.{}.{number}", metric.trim_end_matches(['-', '.']))
}

/// How the Job ended, if it has.
fn verdict(job: &Value) -> Option<(AnalysisPhase, String)> {
    let conditions = job["status"]["conditions"].as_array()?;
    conditions.iter().filter(|condition| condition["status"] == "True").find_map(|condition| {
        match condition["type"].as_str()? {
            "Complete" => Some((AnalysisPhase::Successful, String::new())),
            "Failed" => {
                let text = |field: &str| condition[field].as_str().filter(|text| !text.is_empty());
                let why: Vec<&str> = [text("reason"), text("message")].into_iter().flatten().collect();
                Some((AnalysisPhase::Failed, why.join(": ")))
            }
            _ => None,
        }
    })
}

fn owned_by(pod: &DynamicObject, job: &DynamicObject) -> bool {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    owners.any(|owner| Some(&owner.uid) == job.metadata.uid.as_ref())
}

/// Why a pod waits that will not start by waiting.
fn cannot_start(pod: &Value) -> Option<String> {
    let statuses = ["initContainerStatuses", "containerStatuses"].map(|field| pod["status"][field].as_array());
    statuses.into_iter().flatten().flatten().find_map(|status| {
        let waiting = &status["state"]["waiting"];
        let reason = waiting["reason"].as_str().filter(|reason| CANNOT_START.contains(reason))?;
        let container = status["name"].as_str().unwrap_or_default();
        let message = waiting["message"].as_str().map(|message| format!(": {message}")).unwrap_or_default();
        Some(format!("container {container} of the Job cannot start: {reason}{message}"))
    })
}

fn objects(target: &JobTarget, resource: &Resource, namespace: &str) -> Api<DynamicObject> {
    let dynamic = ApiResource {
        group: resource.group.to_owned(),
        version: resource.version.to_owned(),
        api_version: resource.api_version(),
        kind: resource.kind.to_owned(),
        plural: resource.plural.to_owned(),
    };
    Api::namespaced_with(target.client.clone(), namespace, &dynamic)
}

/// What the API server did not do.
struct Refused {
    /// 0 when it did not answer.
    code: u16,
    message: String,
}

/// A request to the API server with an end.
trait Within<T> {
    async fn within(self, limit: Duration) -> Result<T, Refused>;
}

impl<T, F: Future<Output = kube::Result<T>>> Within<T> for F {
    async fn within(self, limit: Duration) -> Result<T, Refused> {
        match tokio::time::timeout(limit, self).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) => Err(Refused { code: status.code, message: status.message.clone() }),
            Ok(Err(error)) => Err(Refused { code: 0, message: error.to_string() }),
            Err(_) => {
                let message = format!("the API server did not answer within {} s", limit.as_secs());
                Err(Refused { code: 0, message })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0b6bd1f1-3d7f-4b9c-9d5e-1f2a3b4c5d6e";

    #[test]
    fn a_name_fits_into_a_label() {
        assert_eq!(name(UID, "smoke", 3), format!("{UID}.smoke.3"));
        let long = name(UID, &"x".repeat(80), 12);
        assert_eq!(long, format!("{UID}.{}.12", "x".repeat(63 - 36 - 4)));
        assert_eq!(long.len(), 63);
        // What is cut must not end in what a part of a name may not end in.
        assert_eq!(name(UID, &format!("{}-tail-of-a-name", "x".repeat(23)), 1), format!("{UID}.{}.1", "x".repeat(23)));
    }

    #[test]
    fn a_job_ends_by_a_condition_that_is_true() {
        let verdict = |conditions: Value| verdict(&json!({"status": {"conditions": conditions}}));
        assert_eq!(
            verdict(json!([{"type": "SuccessCriteriaMet", "status": "True"}, {"type": "Complete", "status": "True"}])),
            Some((AnalysisPhase::Successful, String::new()))
        );
        assert_eq!(
            verdict(
                json!([{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "gave up"}])
            ),
            Some((AnalysisPhase::Failed, "BackoffLimitExceeded: gave up".to_owned()))
        );
        assert_eq!(
            verdict(json!([{"type": "Failed", "status": "False"}, {"type": "Suspended", "status": "True"}])),
            None
        );
        assert_eq!(super::verdict(&json!({})), None);
    }

    #[test]
    fn a_pod_that_cannot_get_its_image_is_told_apart() {
        let pod = |field: &str, reason: &str| json!({"status": {field: [{"name": "c", "state": {"waiting": {"reason": reason, "message": "no such image"}}}]}});
        let message = "container c of the Job cannot start: ErrImagePull: no such image";
        assert_eq!(cannot_start(&pod("containerStatuses", "ErrImagePull")).as_deref(), Some(message));
        assert!(cannot_start(&pod("initContainerStatuses", "InvalidImageName")).is_some());
        assert_eq!(cannot_start(&pod("containerStatuses", "ContainerCreating")), None);
        assert_eq!(cannot_start(&json!({})), None);
    }
}
