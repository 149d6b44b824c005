//! Jobs against an API server that keeps what it is sent.

use super::*;

/// What an API server keeps of Jobs and pods, by path.
async fn api_server(objects: Arc<Mutex<BTreeMap<String, Value>>>) -> Server {
    let status = |code: u16, reason: &str, message: &str| {
        let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": message});
        (StatusCode::from_u16(code).unwrap(), body.to_string()).into_response()
    };
    Server::new(move |seen| {
        let mut objects = objects.lock().unwrap();
        let path = seen.uri.path().to_owned();
        match seen.method {
            Method::POST => {
                let mut body: Value = serde_json::from_str(&seen.body).unwrap();
                let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
                if objects.contains_key(&path) {
                    return status(409, "AlreadyExists", "jobs.batch already exists");
                }
                body["metadata"]["uid"] = "job-uid".into();
                objects.insert(path, body.clone());
                (StatusCode::CREATED, body.to_string()).into_response()
            }
            Method::DELETE => match objects.remove(&path) {
                Some(body) => body.to_string().into_response(),
                None => status(404, "NotFound", "not found"),
            },
            _ if path.ends_with("/pods") => {
                let items: Vec<&Value> =
                    objects.iter().filter(|(key, _)| key.contains("/pods/")).map(|(_, pod)| pod).collect();
                json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
                    .to_string()
                    .into_response()
            }
            _ => match objects.get(&path) {
                Some(body) => body.to_string().into_response(),
                None => status(404, "NotFound", "jobs.batch \"x\" not found"),
            },
        }
    })
    .await
}

struct Jobs {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    providers: Providers,
    server: Server,
    world: RunWorld,
}

impl Jobs {
    async fn new() -> Self {
        let objects: Arc<Mutex<BTreeMap<String, Value>>> = Arc::default();
        let server = api_server(objects.clone()).await;
        let providers = providers_with(client_of(&server.url("")), None);
        let spec = json!({
            "backoffLimit": 0,
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"restartPolicy": "Never", "unknownField": {"kept": true}}},
        });
        let job = json!({"spec": spec, "metadata": {"labels": {"team": "shop"}, "annotations": {"note": "x"}}});
        let world = world(json!({"metrics": [{"name": "smoke", "interval": "1m", "provider": {"job": job}}]}));
        Self { objects, providers, server, world }
    }

    fn path(number: u32) -> String {
        format!("/apis/batch/v1/namespaces/ns/jobs/{UID}.smoke.{number}")
    }

    fn edit(&self, path: &str, edit: impl FnOnce(&mut Value)) {
        edit(self.objects.lock().unwrap().get_mut(path).unwrap());
    }

    /// A decision, its tasks, and what follows.
    async fn step(&mut self, second: i64) -> Measurement {
        self.world.now = Clock::system().now() + SignedDuration::from_secs(second);
        let outcomes = self.providers.carry_out(tasks(&self.world)).await;
        let plan = crate::analysis::machine::conclude(&self.world, outcomes);
        let mut run = (*self.world.run).clone();
        let measurement = plan.status.metric_results[0].measurements.last().unwrap().clone();
        run.status = Some(plan.status);
        self.world.run = Arc::new(run);
        measurement
    }
}

#[tokio::test]
async fn a_job_is_created_as_the_user_wrote_it_and_followed_to_its_end() {
    let mut jobs = Jobs::new().await;
    let measurement = jobs.step(0).await;
    assert_eq!((measurement.phase, measurement.finished_at), (Running, None));
    assert_eq!(measurement.metadata["job-name"], format!("{UID}.smoke.1"));
    assert_eq!(measurement.metadata["job-namespace"], "ns");
    let created = jobs.objects.lock().unwrap()[&Jobs::path(1)].clone();
    assert_eq!(
        created,
        json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {
                "name": format!("{UID}.smoke.1"), "namespace": "ns", "uid": "job-uid",
                "labels": {"team": "shop", "analysisrun.argoproj.io/uid": UID},
                "annotations": {
                    "note": "x", "analysisrun.argoproj.io/name": "run", "analysisrun.argoproj.io/namespace": "ns",
                    "analysisrun.argoproj.io/metric-name": "smoke",
                },
                "ownerReferences": [{
                    "apiVersion": "argoproj.io/v1alpha1", "kind": "AnalysisRun", "name": "run", "uid": UID,
                    "controller": true, "blockOwnerDeletion": true,
                }],
            },
            "spec": {
                "backoffLimit": 0,
                "template": {
                    "metadata": {"labels": {"a": "b", "analysisrun.argoproj.io/uid": UID}},
                    "spec": {"restartPolicy": "Never", "unknownField": {"kept": true}},
                },
            },
        })
    );
    assert_eq!(jobs.step(1).await.phase, Running);
    jobs.edit(&Jobs::path(1), |job| job["status"] = json!({"conditions": [{"type": "Complete", "status": "True"}]}));
    let measurement = jobs.step(2).await;
    assert_eq!(measurement.phase, Successful);
    assert!(measurement.finished_at.is_some());
    assert_eq!(measurement.metadata["job-name"], format!("{UID}.smoke.1"));

    // The next one has the next number, and its failure says why.
    jobs.step(120).await;
    let failed =
        json!({"conditions": [{"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "late"}]});
    jobs.edit(&Jobs::path(2), |job| job["status"] = failed);
    let measurement = jobs.step(121).await;
    assert_eq!((measurement.phase, measurement.message.as_str()), (Failed, "DeadlineExceeded: late"));
}

#[tokio::test]
async fn a_measurement_that_was_lost_finds_its_job_again_but_not_anothers() {
    let mut jobs = Jobs::new().await;
    let lost = jobs.world.clone();
    jobs.step(0).await;
    jobs.world = lost.clone();
    assert_eq!(jobs.step(0).await.phase, Running);
    assert_eq!(jobs.objects.lock().unwrap().len(), 1);

    jobs.edit(&Jobs::path(1), |job| job["metadata"]["labels"] = json!({}));
    jobs.world = lost;
    let measurement = jobs.step(0).await;
    assert_eq!((measurement.phase, measurement.message.as_str()), (Error, "jobs.batch already exists"));
}

#[tokio::test]
async fn a_job_that_is_cut_off_is_deleted_and_nobody_knows_how_it_would_have_ended() {
    let mut jobs = Jobs::new().await;
    jobs.step(0).await;
    let mut run = (*jobs.world.run).clone();
    run.spec.terminate = true;
    jobs.world.run = Arc::new(run);
    let measurement = jobs.step(1).await;
    assert_eq!((measurement.phase, measurement.message.as_str()), (Inconclusive, "Metric Terminated"));
    assert!(jobs.objects.lock().unwrap().is_empty());
    let delete = jobs.server.seen().into_iter().find(|seen| seen.method == Method::DELETE).unwrap();
    assert!(delete.body.contains("\"propagationPolicy\":\"Foreground\""), "{}", delete.body);
    assert_eq!(jobs.world.run.status.as_ref().unwrap().phase, Inconclusive);
}

#[tokio::test]
async fn a_job_that_cannot_get_its_image_or_is_gone_ends() {
    let mut jobs = Jobs::new().await;
    jobs.step(0).await;
    let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": "back-off"}});
    let pod = |owner: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "ns", "ownerReferences": [
                {"apiVersion": "batch/v1", "kind": "Job", "name": "x", "uid": owner},
            ]},
            "status": {"containerStatuses": [{"name": "main", "state": waiting}]},
        })
    };
    let path = "/api/v1/namespaces/ns/pods/p".to_owned();
    jobs.objects.lock().unwrap().insert(path.clone(), pod("another"));
    assert_eq!(jobs.step(1).await.phase, Running);
    jobs.objects.lock().unwrap().insert(path, pod("job-uid"));
    let measurement = jobs.step(2).await;
    assert_eq!(measurement.phase, Inconclusive);
    assert_eq!(measurement.message, "container main of the Job cannot start: ImagePullBackOff: back-off");

    let mut jobs = Jobs::new().await;
    jobs.step(0).await;
    jobs.objects.lock().unwrap().clear();
    let measurement = jobs.step(1).await;
    assert_eq!((measurement.phase, measurement.message.as_str()), (Error, "jobs.batch \"x\" not found"));
}

#[tokio::test]
async fn jobs_that_are_forgotten_are_deleted() {
    let mut jobs = Jobs::new().await;
    let mut run = (*jobs.world.run).clone();
    run.spec.measurement_retention = serde_json::from_value(json!([{"metricName": "smoke", "limit": 1}])).unwrap();
    jobs.world.run = Arc::new(run);
    let done = json!({"conditions": [{"type": "Complete", "status": "True"}]});
    jobs.step(0).await;
    jobs.edit(&Jobs::path(1), |job| job["status"] = done);
    jobs.step(1).await;
    jobs.step(120).await;
    let left: Vec<String> = jobs.objects.lock().unwrap().keys().cloned().collect();
    assert_eq!(left, [Jobs::path(2)]);
}

#[tokio::test]
async fn a_job_elsewhere_has_no_owner_here() {
    for (namespace, other_cluster, created_in) in [(Some("jobs"), false, "jobs"), (None, true, "ns")] {
        let mut jobs = Jobs::new().await;
        let client = client_of(&jobs.server.url(""));
        let target = JobTarget { client, namespace: namespace.map(str::to_owned), other_cluster };
        jobs.providers = Providers::new(Arc::new(Network::new()), target, Clock::system(), None);
        let measurement = jobs.step(0).await;
        assert_eq!(measurement.metadata["job-namespace"], created_in);
        let objects = jobs.objects.lock().unwrap();
        let job = objects.values().next().unwrap();
        assert_eq!(
            (&job["metadata"]["namespace"], &job["metadata"]["ownerReferences"]),
            (&json!(created_in), &Value::Null)
        );
    }
}
