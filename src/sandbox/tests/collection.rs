//! Deletion and what it brings about.

use super::*;

fn with(propagation: Propagation) -> DeleteOptions {
    DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() }
}

/// A boat that owns a ReplicaSet that owns a pod.
fn fleet() -> Scoped {
    let access = harbour();
    let boat = access.create(BOATS, "default", boat("a")).unwrap();
    let set = access.create("replicasets.apps", "default", owned_by(replica_set("r"), "Boat", &boat, true)).unwrap();
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    access.create("pods", "default", owned_by(pod, "ReplicaSet", &set, true)).unwrap();
    access
}

fn left(access: &Scoped) -> Vec<String> {
    let all = [BOATS, "replicasets.apps", "pods"].into_iter().flat_map(|key| access.list(key, ""));
    all.map(|object| object["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn dependents_follow_their_owner() {
    for (propagation, remain) in
        [(Propagation::Background, vec![]), (Propagation::Foreground, vec![]), (Propagation::Orphan, vec!["r", "p"])]
    {
        let access = fleet();
        access.delete(BOATS, "default", "a", &with(propagation)).unwrap();
        assert_eq!(left(&access), remain, "{propagation:?}");
    }
    let access = fleet();
    access.delete(BOATS, "default", "a", &with(Propagation::Orphan)).unwrap();
    assert!(access.get("replicasets.apps", "default", "r").unwrap()["metadata"].get("ownerReferences").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_foreground_deletion_waits_for_what_blocks_it() {
    let access = fleet();
    access.edit("pods", "default", "p", |pod| pod["metadata"]["finalizers"] = json!(["x.io/hold"])).unwrap();
    let boat = access.delete(BOATS, "default", "a", &with(Propagation::Foreground)).unwrap();
    assert_eq!(boat["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    assert_eq!(boat["metadata"]["generation"], 2);
    assert_eq!(left(&access), ["a", "r", "p"]);
    access.edit("pods", "default", "p", |pod| pod["metadata"]["finalizers"] = json!([])).unwrap();
    assert_eq!(left(&access), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_object_with_a_dead_owner_is_collected() {
    let access = harbour();
    let boat = access.create(BOATS, "default", boat("a")).unwrap();
    access.delete(BOATS, "default", "a", &DeleteOptions::default()).unwrap();
    access.create("replicasets.apps", "default", owned_by(replica_set("r"), "Boat", &boat, true)).unwrap();
    assert_eq!(left(&access), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn finalizers_keep_an_object_until_the_last_is_gone() {
    let access = harbour();
    let mut held = boat("a");
    held["metadata"]["finalizers"] = json!(["x.io/one", "x.io/two"]);
    access.create(BOATS, "default", held).unwrap();
    let waits = access.delete(BOATS, "default", "a", &DeleteOptions::default()).unwrap();
    assert_eq!(waits["metadata"]["deletionTimestamp"], "2026-01-01T00:00:00Z");
    let set = |finalizers: Value| {
        access.patch(BOATS, "default", "a", &Patch::Merge(json!({"metadata": {"finalizers": finalizers}})))
    };
    assert_eq!(
        said(&set(json!(["x.io/one", "x.io/new"])).unwrap_err()),
        (
            422,
            "Invalid",
            "Boat.example.com \"a\" is invalid: metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"x.io/new\"}"
        )
    );
    set(json!(["x.io/two"])).unwrap();
    assert!(access.get(BOATS, "default", "a").is_ok());
    set(Value::Null).unwrap();
    assert_eq!(access.get(BOATS, "default", "a").unwrap_err().code, 404);
}

#[tokio::test(start_paused = true)]
async fn preconditions_protect() {
    let access = harbour();
    let boat = access.create(BOATS, "default", boat("a")).unwrap();
    let uid = boat["metadata"]["uid"].as_str().unwrap();
    let other = DeleteOptions { uid: Some("other".into()), ..DeleteOptions::default() };
    let refusal = access.delete(BOATS, "default", "a", &other).unwrap_err();
    let message = format!(
        "Operation cannot be fulfilled on Boat.example.com \"a\": the UID in the precondition (other) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
    );
    assert_eq!(said(&refusal), (409, "Conflict", &*message));
    let version = DeleteOptions { resource_version: Some("1".into()), ..DeleteOptions::default() };
    assert_eq!(access.delete(BOATS, "default", "a", &version).unwrap_err().code, 409);
    let right = DeleteOptions { uid: Some(uid.into()), ..DeleteOptions::default() };
    assert!(access.delete(BOATS, "default", "a", &right).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_running_pod_has_a_grace_period() {
    let access = fleet();
    access.bind("default", "p", "node").unwrap();
    let pod = access.delete("pods", "default", "p", &DeleteOptions::default()).unwrap();
    assert_eq!(pod["metadata"]["deletionTimestamp"], "2026-01-01T00:00:30Z");
    assert_eq!(pod["metadata"]["deletionGracePeriodSeconds"], 30);
    let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    access.delete("pods", "default", "p", &now).unwrap();
    assert_eq!(left(&access), ["a", "r"]);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_takes_its_content_along() {
    let access = fleet();
    access.create("namespaces", "", json!({"metadata": {"name": "n"}})).unwrap();
    let mut held = boat("x");
    held["metadata"]["finalizers"] = json!(["x.io/hold"]);
    access.create(BOATS, "n", held).unwrap();
    access.create("configmaps", "n", json!({"metadata": {"name": "c"}})).unwrap();
    access.delete("namespaces", "", "n", &DeleteOptions::default()).unwrap();
    let namespace = access.get("namespaces", "", "n").unwrap();
    assert_eq!((&namespace["status"]["phase"], access.list("configmaps", "n").len()), (&json!("Terminating"), 0));
    let refusal = access.create("configmaps", "n", json!({"metadata": {"name": "d"}})).unwrap_err();
    assert_eq!((refusal.code, &*refusal.reason), (403, "Forbidden"));
    access.edit(BOATS, "n", "x", |boat| boat["metadata"]["finalizers"] = json!([])).unwrap();
    assert_eq!(access.get("namespaces", "", "n").unwrap_err().code, 404);
    assert_eq!(left(&access), ["a", "r", "p"]);
}
