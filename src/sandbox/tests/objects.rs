//! Create, update, patch, and what they refuse.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, PostParams};

use super::*;

#[tokio::test(start_paused = true)]
async fn a_kube_client_works_on_it() {
    let client = server().client("default");
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let map = serde_json::from_value(json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).unwrap();
    let made = maps.create(&PostParams::default(), &map).await.unwrap();
    assert_eq!(made.metadata.creation_timestamp.unwrap().0.to_string(), "2026-01-01T00:00:00Z");
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 1);
    let kube::Error::Api(refusal) = maps.create(&PostParams::default(), &map).await.unwrap_err() else {
        panic!("not the server's refusal");
    };
    assert_eq!(said(&refusal), (409, "AlreadyExists", "configmaps \"a\" already exists"));
}

#[tokio::test(start_paused = true)]
async fn the_same_requests_give_the_same_objects() {
    let run = || {
        let access = harbour();
        access.create(BOATS, "default", json!({"metadata": {"generateName": "b-"}, "spec": {}})).unwrap();
        access.create("replicasets.apps", "default", replica_set("r")).unwrap();
        let all = [access.list(BOATS, ""), access.list("replicasets.apps", "")].concat();
        serde_json::to_string(&all.iter().map(|it| &**it).collect::<Vec<_>>()).unwrap()
    };
    assert_eq!(run(), run());
}

#[tokio::test(start_paused = true)]
async fn generation_counts_changes_of_the_spec_only() {
    let access = harbour();
    access.create(BOATS, "default", boat("a")).unwrap();
    let merge = |patch: Value| Patch::Merge(patch);
    for (what, patch, status, generation) in [
        ("a label", json!({"metadata": {"labels": {"x": "y"}}}), false, 1),
        ("the spec", json!({"spec": {"hull": "steel"}}), false, 2),
        ("the same spec", json!({"spec": {"hull": "steel"}}), false, 2),
        ("the status through the status", json!({"status": {"phase": "ok"}}), true, 2),
        ("the spec through the status", json!({"spec": {"hull": "tin"}}), true, 2),
        ("the status through the object", json!({"status": {"phase": "bad"}}), false, 2),
    ] {
        let patch = merge(patch);
        let patched = if status {
            access.patch_status(BOATS, "default", "a", &patch)
        } else {
            access.patch(BOATS, "default", "a", &patch)
        };
        assert_eq!(patched.unwrap()["metadata"]["generation"], generation, "{what}");
    }
    let boat = access.get(BOATS, "default", "a").unwrap();
    assert_eq!((&boat["spec"]["hull"], &boat["status"]["phase"]), (&json!("steel"), &json!("ok")));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_changes_nothing_is_none() {
    let access = harbour();
    let made = access.create(BOATS, "default", boat("a")).unwrap();
    let revision = access.server().revision();
    let same = access.patch(BOATS, "default", "a", &Patch::Merge(json!({"spec": {"hull": "wood"}}))).unwrap();
    assert_eq!((same, access.server().revision()), (made, revision));
}

#[tokio::test(start_paused = true)]
async fn refusals_read_as_the_real_ones() {
    let access = harbour();
    let made = access.create(BOATS, "default", boat("a")).unwrap();
    access.create("replicasets.apps", "default", replica_set("r")).unwrap();
    access.patch(BOATS, "default", "a", &Patch::Merge(json!({"spec": {"hull": "steel"}}))).unwrap();
    let update = |edit: &dyn Fn(&mut Value)| {
        let mut boat = (*made).clone();
        edit(&mut boat);
        access.update(BOATS, "default", boat).unwrap_err()
    };
    let patch =
        |key: &str, name: &str, patch: Value| access.patch(key, "default", name, &Patch::Merge(patch)).unwrap_err();
    let create = |key: &str, object: Value| access.create(key, "default", object).unwrap_err();
    let mut unselected = replica_set("s");
    unselected["spec"]["template"]["metadata"]["labels"] = json!({"app": "other"});
    for (refusal, code, reason, message) in [
        (access.get(BOATS, "default", "b").unwrap_err(), 404, "NotFound", "boats.example.com \"b\" not found"),
        (
            update(&|_| {}),
            409,
            "Conflict",
            "Operation cannot be fulfilled on boats.example.com \"a\": the object has been modified; please apply your changes to the latest version and try again",
        ),
        (
            update(&|boat| boat["metadata"]["uid"] = "other".into()),
            409,
            "Conflict",
            &format!(
                "Operation cannot be fulfilled on boats.example.com \"a\": StorageError: invalid object, Code: 4, Key: /registry/example.com/boats/default/a, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: other, UID in object meta: {}",
                made["metadata"]["uid"].as_str().unwrap()
            ),
        ),
        (
            update(&|boat| drop(boat["metadata"].as_object_mut().unwrap().remove("resourceVersion"))),
            422,
            "Invalid",
            "boats.example.com \"a\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update",
        ),
        (
            patch(BOATS, "a", json!({"spec": {"replicas": "many"}})),
            422,
            "Invalid",
            "Boat.example.com \"a\" is invalid: [spec.replicas: Invalid value: \"string\": spec.replicas in body must be of type integer: \"string\", .spec.replicas: Invalid value: 0: .spec.replicas accessor error: many is of the type string, expected int64]",
        ),
        (
            create(BOATS, json!({"metadata": {"name": "A_b"}})),
            422,
            "Invalid",
            "Boat.example.com \"A_b\" is invalid: metadata.name: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ),
        (
            create(BOATS, json!({"metadata": {}})),
            422,
            "Invalid",
            "Boat.example.com \"\" is invalid: metadata.name: Required value: name or generateName is required",
        ),
        (access.create(BOATS, "nowhere", boat("a")).unwrap_err(), 404, "NotFound", "namespaces \"nowhere\" not found"),
        (
            patch(
                "replicasets.apps",
                "r",
                json!({"spec": {"selector": {"matchLabels": {"app": null, "a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}}}}),
            ),
            422,
            "Invalid",
            "ReplicaSet.apps \"r\" is invalid: spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: field is immutable",
        ),
        (
            create("replicasets.apps", unselected),
            422,
            "Invalid",
            "ReplicaSet.apps \"s\" is invalid: spec.template.metadata.labels: Invalid value: {\"app\":\"other\"}: `selector` does not match template `labels`",
        ),
        (
            create("configmaps", json!({"metadata": {"name": "c"}, "colour": 1})),
            400,
            "BadRequest",
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"colour\"",
        ),
    ] {
        assert_eq!(said(&refusal), (code, reason, message));
    }
}

#[tokio::test(start_paused = true)]
async fn built_in_kinds_get_their_defaults() {
    let access = server().manager("test");
    let set = access.create("replicasets.apps", "default", replica_set("r")).unwrap();
    assert_eq!(set["status"], json!({"replicas": 0}));
    let pod_spec = &set["spec"]["template"]["spec"];
    assert_eq!(
        (&pod_spec["restartPolicy"], &pod_spec["containers"][0]["imagePullPolicy"]),
        (&json!("Always"), &json!("Always"))
    );
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    let service = access.create("services", "default", service).unwrap();
    assert_eq!(service["spec"]["ports"], json!([{"port": 80, "protocol": "TCP", "targetPort": 80}]));
    assert!(service["spec"]["clusterIP"].as_str().unwrap().starts_with("10.96."));
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"a": "b"}});
    let secret = access.create("secrets", "default", secret).unwrap();
    assert_eq!((&secret["data"], secret.get("stringData")), (&json!({"a": "Yg=="}), None));
}

#[tokio::test(start_paused = true)]
async fn events_have_two_names_for_everything() {
    let server = server();
    let events: Api<k8s_openapi::api::events::v1::Event> = Api::default_namespaced(server.client("default"));
    let event = json!({"metadata": {"name": "e"}, "note": "hello", "reason": "R", "type": "Normal", "action": "A",
        "regarding": {"kind": "Boat", "name": "a"}, "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "c", "reportingInstance": "i"});
    events.create(&PostParams::default(), &serde_json::from_value(event).unwrap()).await.unwrap();
    let core = server.manager("test").get("events", "default", "e").unwrap();
    assert_eq!((&core["message"], &core["involvedObject"]["name"]), (&json!("hello"), &json!("a")));
    assert_eq!(events.get("e").await.unwrap().note.as_deref(), Some("hello"));
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_changes_nothing() {
    let server = server();
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client("default"));
    let map = serde_json::from_value(json!({"metadata": {"name": "a"}})).unwrap();
    let revision = server.revision();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    assert!(maps.create(&dry, &map).await.unwrap().metadata.uid.is_some());
    assert_eq!((server.revision(), maps.get_opt("a").await.unwrap()), (revision, None));
}

#[tokio::test(start_paused = true)]
async fn pages_of_a_list_are_of_one_moment() {
    let server = server();
    let access = server.manager("test");
    for name in ["a", "b", "c"] {
        access.create("configmaps", "default", json!({"metadata": {"name": name}})).unwrap();
    }
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client("default"));
    let first = maps.list(&ListParams::default().limit(2)).await.unwrap();
    let token = first.metadata.continue_.unwrap();
    assert_eq!(first.metadata.remaining_item_count, Some(1));
    access.create("configmaps", "default", json!({"metadata": {"name": "d"}})).unwrap();
    access.delete("configmaps", "default", "c", &DeleteOptions::default()).unwrap();
    let rest = maps.list(&ListParams::default().limit(2).continue_token(&token)).await.unwrap();
    let names: Vec<_> = rest.items.iter().filter_map(|map| map.metadata.name.as_deref()).collect();
    assert_eq!(names, ["c"]);
    server.forget_history();
    access.create("configmaps", "default", json!({"metadata": {"name": "e"}})).unwrap();
    let kube::Error::Api(refusal) = maps.list(&ListParams::default().continue_token(&token)).await.unwrap_err() else {
        panic!("not the server's refusal");
    };
    assert_eq!((refusal.code, &*refusal.reason), (410, "Expired"));
}

#[tokio::test(start_paused = true)]
async fn a_fork_goes_its_own_way() {
    let base = harbour();
    base.create(BOATS, "default", boat("a")).unwrap();
    let fork = base.server().fork(base.server().clock().clone(), 2).manager("test");
    fork.delete(BOATS, "default", "a", &DeleteOptions::default()).unwrap();
    fork.create(BOATS, "default", boat("b")).unwrap();
    assert_eq!((base.list(BOATS, "").len(), fork.list(BOATS, "").len()), (1, 1));
    assert!(base.get(BOATS, "default", "a").is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_eviction_respects_the_disruption_budget() {
    let server = server();
    let access = server.manager("test");
    let pod = |name: &str| json!({"metadata": {"name": name, "labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let budget =
        json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}});
    access.create("poddisruptionbudgets.policy", "default", budget).unwrap();
    let status = json!({"status": {"disruptionsAllowed": 1, "desiredHealthy": 1, "currentHealthy": 2}});
    access.patch_status("poddisruptionbudgets.policy", "default", "b", &Patch::Merge(status)).unwrap();
    for name in ["p", "q"] {
        access.create("pods", "default", pod(name)).unwrap();
        let running = Patch::Merge(json!({"status": {"phase": "Running"}}));
        access.patch_status("pods", "default", name, &running).unwrap();
    }
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::default_namespaced(server.client("default"));
    pods.evict("p", &Default::default()).await.unwrap();
    let kube::Error::Api(refusal) = pods.evict("q", &Default::default()).await.unwrap_err() else {
        panic!("not the server's refusal");
    };
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    assert_eq!(said(&refusal), (429, "TooManyRequests", message));
    assert_eq!(access.list("pods", "default").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn clients_discover_what_is_served() {
    let access = harbour();
    let client = access.server().client("default");
    for discovery in [
        kube::Discovery::new(client.clone()).run().await.unwrap(),
        kube::Discovery::new(client.clone()).run_aggregated().await.unwrap(),
    ] {
        let boats = kube::core::GroupVersionKind::gvk("example.com", "v1", "Boat");
        let (resource, capabilities) = discovery.resolve_gvk(&boats).unwrap();
        assert_eq!(resource.plural, "boats");
        let parts: Vec<&str> = capabilities.subresources.iter().map(|(part, _)| part.plural.as_str()).collect();
        assert_eq!(parts, ["scale", "status"]);
        assert!(discovery.has_group("apps"));
    }
}
