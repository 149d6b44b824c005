//! Server-side apply and the ownership of fields.

use super::*;

fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec})
}

fn base() -> Value {
    json!({"replicas": 1, "selector": {"matchLabels": {"app": "d"}}, "template": {"metadata": {"labels": {"app": "d"}},
        "spec": {"containers": [{"name": "main", "image": "a", "ports": [{"containerPort": 80}]}]}}})
}

fn apply(server: &ApiServer, manager: &str, spec: Value, force: bool) -> Result<Arc<Value>, Refusal> {
    server.manager(manager).apply("deployments.apps", "default", deployment(spec), force)
}

fn owner_of<'a>(object: &'a Value, pointer: &str) -> Vec<&'a str> {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    let owners = entries.iter().filter(|entry| entry["fieldsV1"].pointer(pointer).is_some());
    owners.filter_map(|entry| entry["manager"].as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn conflicts_name_the_other_manager() {
    let server = server();
    apply(&server, "one", base(), false).unwrap();
    let mut other = base();
    other["replicas"] = 3.into();
    let refusal = apply(&server, "two", other.clone(), false).unwrap_err();
    assert_eq!(
        said(&refusal),
        (409, "Conflict", "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas")
    );
    let cause = &refusal.details.as_ref().unwrap().causes[0];
    assert_eq!(
        (&*cause.reason, &*cause.message, &*cause.field),
        ("FieldManagerConflict", "conflict with \"one\"", ".spec.replicas")
    );
    other["template"]["spec"]["containers"][0]["image"] = "b".into();
    let refusal = apply(&server, "two", other.clone(), false).unwrap_err();
    assert_eq!(
        refusal.message,
        "Apply failed with 2 conflicts: conflicts with \"one\":\n- .spec.replicas\n- .spec.template.spec.containers[name=\"main\"].image"
    );
    let forced = apply(&server, "two", other, true).unwrap();
    assert_eq!(forced["spec"]["replicas"], 3);
    assert_eq!(owner_of(&forced, "/f:spec/f:replicas"), ["two"]);
    assert_eq!(owner_of(&forced, "/f:spec/f:selector"), ["one", "two"]);
}

#[tokio::test(start_paused = true)]
async fn what_an_applier_gives_up_goes_unless_another_owns_it() {
    let server = server();
    let mut spec = base();
    spec["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]);
    spec["template"]["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "side", "image": "s"}));
    spec["minReadySeconds"] = 5.into();
    apply(&server, "one", spec.clone(), false).unwrap();
    let mut shared = base();
    shared["minReadySeconds"] = 5.into();
    apply(&server, "two", shared, false).unwrap();
    let mut less = base();
    less["template"]["spec"]["containers"][0]["env"] = json!([{"name": "B", "value": "2"}]);
    let object = apply(&server, "one", less, false).unwrap();
    let containers = object["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 1);
    assert_eq!(containers[0]["env"], json!([{"name": "B", "value": "2"}]));
    assert_eq!(object["spec"]["minReadySeconds"], 5);
}

#[tokio::test(start_paused = true)]
async fn an_update_takes_the_fields_that_it_changes() {
    let server = server();
    apply(&server, "one", base(), false).unwrap();
    let scale = Patch::Merge(json!({"spec": {"replicas": 7}}));
    let object = server.manager("hpa").patch("deployments.apps", "default", "d", &scale).unwrap();
    assert_eq!(owner_of(&object, "/f:spec/f:replicas"), ["hpa"]);
    let refusal = apply(&server, "one", base(), false).unwrap_err();
    assert_eq!(refusal.message, "Apply failed with 1 conflict: conflict with \"hpa\" using apps/v1: .spec.replicas");
    // The applier that leaves the field out gives it away, and it stays.
    let mut without = base();
    without.as_object_mut().unwrap().remove("replicas");
    assert_eq!(apply(&server, "one", without, false).unwrap()["spec"]["replicas"], 7);
}

#[tokio::test(start_paused = true)]
async fn applying_the_same_again_writes_nothing() {
    let server = server();
    let first = apply(&server, "one", base(), false).unwrap();
    tokio::time::advance(std::time::Duration::from_secs(5)).await;
    assert_eq!(apply(&server, "one", base(), false).unwrap(), first);
}

#[tokio::test(start_paused = true)]
async fn lists_of_custom_resources_merge_by_their_keys() {
    let access = harbour();
    let server = access.server();
    let crew = |crew: Value| json!({"apiVersion": "example.com/v1", "kind": "Boat", "metadata": {"name": "a"}, "spec": {"crew": crew}});
    let sail = |manager: &str, list: Value| server.manager(manager).apply(BOATS, "default", crew(list), false);
    sail("one", json!([{"name": "ann", "rank": "captain"}])).unwrap();
    let both = sail("two", json!([{"name": "bob", "rank": "mate"}])).unwrap();
    assert_eq!(both["spec"]["crew"].as_array().unwrap().len(), 2);
    let refusal = sail("two", json!([{"name": "ann", "rank": "cook"}])).unwrap_err();
    assert_eq!(refusal.message, "Apply failed with 1 conflict: conflict with \"one\": .spec.crew[name=\"ann\"].rank");
    assert_eq!(sail("two", json!([])).unwrap()["spec"]["crew"], json!([{"name": "ann", "rank": "captain"}]));
}

#[tokio::test(start_paused = true)]
async fn the_status_has_owners_of_its_own() {
    let access = harbour();
    let made = access.create(BOATS, "default", boat("a")).unwrap();
    assert_eq!(owner_of(&made, "/f:spec/f:hull"), ["test"]);
    let status = Patch::Merge(json!({"status": {"phase": "ok"}}));
    let object = access.patch_status(BOATS, "default", "a", &status).unwrap();
    let entry = &object["metadata"]["managedFields"][1];
    assert_eq!((&entry["subresource"], &entry["operation"]), (&json!("status"), &json!("Update")));
    assert_eq!(entry["fieldsV1"], json!({"f:status": {".": {}, "f:phase": {}}}));
}
