use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::*;
use crate::api::pod_template::HashForm;
use crate::plan::Failure;
use crate::rollout::world::{ReplicaSetStatus, Settings, Templates};

fn template(image: &str) -> PodTemplate {
    let container = json!({ "name": "web", "image": image, "resources": {} });
    json!({ "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [container] } }).into()
}

fn rollout(spec: Value, status: Value) -> Rollout {
    let mut rollout = json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": { "name": "web", "namespace": "shop", "uid": "r", "annotations": { "team": "shop" } },
        "spec": { "strategy": { "canary": {} } },
        "status": status,
    });
    json_patch::merge(&mut rollout["spec"], &spec);
    serde_json::from_value(rollout).unwrap()
}

fn world(rollout: Rollout, replica_sets: Vec<ReplicaSet>) -> World {
    World {
        now: Timestamp::UNIX_EPOCH,
        rollout: Arc::new(rollout),
        pods: None,
        workload: None,
        replica_sets,
        services: BTreeMap::new(),
        routes: BTreeMap::new(),
        gone: BTreeMap::new(),
        analysis_runs: Vec::new(),
        experiments: Vec::new(),
        templates: Templates::default(),
        failures: Vec::new(),
        settings: Settings::default(),
    }
}

/// A ReplicaSet of the Rollout, created `age` seconds after the beginning, of that revision too.
fn replica_set(hash: &str, image: &str, age: i64) -> ReplicaSet {
    let template = template(image).with_label(names::POD_TEMPLATE_HASH, hash);
    ReplicaSet {
        name: format!("web-{hash}"),
        uid: format!("uid-{hash}"),
        resource_version: "7".to_owned(),
        created: Timestamp::UNIX_EPOCH + SignedDuration::from_secs(age),
        deleting: false,
        labels: template.labels().clone(),
        annotations: [(names::REVISION.to_owned(), age.to_string())].into(),
        controller: Some("r".to_owned()),
        generation: 1,
        selector: LabelSelector::default(),
        min_ready_seconds: 0,
        // As the API server stores it.
        template: Arc::new(template.defaulted().into()),
        replicas: 0,
        status: ReplicaSetStatus { observed_generation: 1, ..Default::default() },
    }
}

fn selector() -> LabelSelector {
    serde_json::from_value(json!({ "matchLabels": { "app": "web" } })).unwrap()
}

fn find<T>(world: &World, image: &str, then: impl FnOnce(&Revisions<'_>, Desired<'_>) -> T) -> T {
    let (template, selector) = (template(image), selector());
    let desired = Desired { template: &template, selector: &selector };
    then(&Revisions::find(world, desired), desired)
}

fn hash(image: &str) -> String {
    template(image).hash(None)
}

#[test]
fn the_roles_of_replica_sets() {
    let [one, two, three] = ["1", "2", "3"].map(hash);
    let sets = vec![
        replica_set(&one, "1", 1),
        replica_set(&two, "2", 2),
        replica_set(&three, "3", 3),
        replica_set("zero", "0", 0),
    ];
    let world = world(rollout(json!({}), json!({ "stableRS": two, "currentPodHash": three })), sets);
    find(&world, "3", |revisions, _| {
        let names =
            |all: &mut dyn Iterator<Item = &ReplicaSet>| all.map(|one| one.hash().to_owned()).collect::<Vec<_>>();
        assert_eq!(revisions.hash, three);
        assert_eq!(names(&mut revisions.all()), [&two, &three, &one, "zero"]);
        assert!(!revisions.is_fully_promoted());
        assert_eq!(revisions.number(), 3);
    });
    find(&world, "2", |revisions, _| {
        assert!(revisions.is_fully_promoted());
        assert_eq!(revisions.all().count(), 4);
        assert_eq!(revisions.number(), 4, "a revision that comes back is the newest");
    });
    find(&world, "4", |revisions, _| {
        assert!(revisions.new.is_none());
        assert_eq!((revisions.hash.clone(), revisions.number()), (hash("4"), 4));
    });
}

#[test]
fn a_takeover_makes_no_new_revision() {
    let today = hash("1");
    let older = template("1").hash_as(HashForm::Until1_8, None);
    assert_ne!(today, older);
    let status = |current: &str| json!({ "currentPodHash": current, "stableRS": current });
    for (what, current, labels, expected) in [
        ("labelled by 1.8", &older, vec![&older], &older),
        ("labelled by 1.9", &today, vec![&today], &today),
        ("twins, the older one current", &older, vec![&older, &today], &older),
        ("twins, the younger one current", &today, vec![&older, &today], &today),
    ] {
        let sets = labels.iter().zip(1..).map(|(hash, age)| replica_set(hash, "1", age)).collect();
        let world = world(rollout(json!({}), status(current)), sets);
        find(&world, "1", |revisions, _| {
            assert_eq!(&revisions.hash, expected, "{what}");
            assert!(revisions.is_fully_promoted(), "{what}");
        });
    }
    // A hash that nothing of ours computes, with metadata that was injected into the pods.
    let mut strange = replica_set("strange", "1", 1);
    let injected = Metadata { labels: [("role".to_owned(), "canary".to_owned())].into(), ..Metadata::default() };
    strange.template = Arc::new(strange.template.with_metadata(&injected.labels, &injected.annotations));
    strange.annotations.insert(names::EPHEMERAL_METADATA.to_owned(), json!(injected).to_string());
    let world = world(rollout(json!({}), status("strange")), vec![strange]);
    find(&world, "1", |revisions, _| assert_eq!(revisions.hash, "strange"));
    find(&world, "2", |revisions, _| assert!(revisions.new.is_none()));
}

#[test]
fn orphans_are_adopted_and_strangers_left_alone() {
    let mut orphan = replica_set(&hash("1"), "1", 1);
    orphan.controller = None;
    let mut other = replica_set("other", "2", 2);
    other.controller = Some("somebody".to_owned());
    let mut left = replica_set("left", "3", 3);
    left.labels.insert("app".to_owned(), "api".to_owned());
    let mut unlabelled = replica_set("x", "4", 4);
    unlabelled.labels.remove(names::POD_TEMPLATE_HASH);
    let world = world(rollout(json!({}), json!({})), vec![orphan, other, left, unlabelled]);
    find(&world, "1", |revisions, _| {
        assert_eq!(revisions.all().count(), 1);
        assert_eq!(revisions.new.map(|new| new.name.clone()), Some(format!("web-{}", hash("1"))));
        let actions: Vec<_> = claim(&world, revisions).iter().map(ToString::to_string).collect();
        assert_eq!(
            actions,
            [
                format!("patch ReplicaSet shop/web-{}: adopted", hash("1")),
                "patch ReplicaSet shop/web-left: released: the selector no longer matches".to_owned(),
            ]
        );
    });
}

#[test]
fn a_new_replica_set_is_what_argo_rollouts_would_create() {
    let spec = json!({
        "minReadySeconds": 5,
        "strategy": { "canary": {
            "antiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {} },
            "canaryMetadata": { "labels": { "role": "canary" } },
        } },
    });
    let status = json!({ "stableRS": "old", "currentPodHash": "old" });
    let mut rollout = rollout(spec, status);
    rollout.annotations_mut().insert(names::LAST_APPLIED.to_owned(), "{}".to_owned());
    rollout.annotations_mut().insert(names::REVISION.to_owned(), "3".to_owned());
    let world = world(rollout, vec![replica_set("old", "1", 3)]);
    let new = hash("2");
    let body = find(&world, "2", |revisions, desired| match create(&world, revisions, desired) {
        Action::Create { object, body } => {
            assert_eq!(object.to_string(), format!("ReplicaSet shop/web-{new}"));
            body
        }
        other => panic!("{other}"),
    });
    let term = json!({
        "labelSelector": { "matchExpressions": [
            { "key": "rollouts-pod-template-hash", "operator": "In", "values": ["old"] },
        ] },
        "namespaces": ["shop"],
        "topologyKey": "kubernetes.io/hostname",
    });
    let expected = json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": format!("web-{new}"),
            "namespace": "shop",
            "labels": { "app": "web", "rollouts-pod-template-hash": new },
            "annotations": {
                "team": "shop",
                "rollout.argoproj.io/revision": "4",
                "rollout.argoproj.io/ephemeral-metadata": r#"{"labels":{"role":"canary"}}"#,
            },
            "ownerReferences": [{
                "apiVersion": "argoproj.io/v1alpha1",
                "kind": "Rollout",
                "name": "web",
                "uid": "r",
                "controller": true,
                "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "replicas": 0,
            "minReadySeconds": 5,
            "selector": { "matchLabels": { "app": "web", "rollouts-pod-template-hash": new } },
            "template": {
                "metadata": { "labels": { "app": "web", "rollouts-pod-template-hash": new, "role": "canary" } },
                "spec": {
                    "containers": [{ "name": "web", "image": "2", "resources": {} }],
                    "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [term] } },
                },
            },
        },
    });
    assert_eq!(body, expected);
}

#[test]
fn what_was_created_is_found_again() {
    for preferred in [true, false] {
        let anti_affinity = match preferred {
            true => json!({ "preferredDuringSchedulingIgnoredDuringExecution": { "weight": 50 } }),
            false => json!({ "requiredDuringSchedulingIgnoredDuringExecution": {} }),
        };
        let metadata = json!({ "annotations": { "trial": "yes" } });
        let canary = json!({ "antiAffinity": anti_affinity, "canaryMetadata": metadata });
        let rollout = rollout(json!({ "strategy": { "canary": canary } }), json!({ "stableRS": "old" }));
        let mut world = world(rollout, vec![replica_set("old", "1", 1)]);
        let action = find(&world, "2", |revisions, desired| create(&world, revisions, desired));
        let Action::Create { body, .. } = action else { panic!("{action}") };
        // Under a label that no hash leads to, so that only the template can tell.
        let mut created = replica_set("foreign", "2", 2);
        let stored: PodTemplate = body["spec"]["template"].clone().into();
        created.template = Arc::new(stored.with_label(names::POD_TEMPLATE_HASH, "foreign").defaulted().into());
        created.annotations = serde_json::from_value(body["metadata"]["annotations"].clone()).unwrap();
        world.replica_sets.push(created);
        find(&world, "2", |revisions, _| assert_eq!(revisions.hash, "foreign", "preferred: {preferred}"));
    }
}

#[test]
fn a_taken_name_counts_as_a_collision() {
    let name = format!("web-{}", hash("1"));
    let refused = |error: &str| Failure {
        object: ObjectRef::new(REPLICA_SET, "shop", &name),
        action: FailedAction::Create,
        error: error.to_owned(),
        refused: true,
    };
    let mut world = world(rollout(json!({}), json!({})), Vec::new());
    let count = |world: &World| find(world, "1", |revisions, _| collision(world, revisions));
    assert_eq!(count(&world), None);
    world.failures = vec![refused("exceeded quota")];
    assert_eq!(count(&world), None);
    world.failures = vec![refused(&format!("replicasets.apps {name:?} already exists"))];
    assert_eq!(count(&world), Some(1));
    world.rollout = Arc::new(rollout(json!({}), json!({ "collisionCount": 1 })));
    assert_eq!(count(&world), None, "with the count the name is another");
}

#[test]
fn an_existing_replica_set_is_brought_up_to_date_but_for_its_pods() {
    let spec = json!({
        "minReadySeconds": 9,
        "strategy": { "canary": { "antiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": { "weight": 1 } } } },
    });
    let one = hash("1");
    let mut back = replica_set(&one, "1", 1);
    back.annotations.insert(names::REVISION_HISTORY.to_owned(), "-1".to_owned());
    let term = json!({ "weight": 1, "podAffinityTerm": {
        "labelSelector": { "matchExpressions": [
            { "key": "rollouts-pod-template-hash", "operator": "In", "values": ["older"] },
        ] },
    } });
    let mut template = (*back.template).clone().to_value();
    template["spec"]["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] = json!([term]);
    back.template = Arc::new(template.into());
    let world = world(rollout(spec, json!({ "stableRS": "two" })), vec![back, replica_set("two", "2", 2)]);
    let action = find(&world, "1", |revisions, _| update(&world, revisions)).unwrap();
    let Action::MergePatch { object, patch, what } = action else { panic!("{action}") };
    assert_eq!(what, "revision 3, minReadySeconds 9, anti-affinity");
    assert_eq!(object.resource_version.as_deref(), Some("7"), "lists are replaced");
    assert_eq!(
        patch["metadata"],
        json!({ "annotations": {
            "team": "shop",
            "rollout.argoproj.io/revision": "3",
            "rollout.argoproj.io/revision-history": "-1,1",
        } })
    );
    assert_eq!(patch["spec"]["minReadySeconds"], 9);
    assert_eq!(
        patch.pointer(
            "/spec/template/spec/affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution/0/podAffinityTerm\
             /labelSelector/matchExpressions/0/values"
        ),
        Some(&json!(["two"]))
    );
    let action = find(&world, "1", |revisions, _| annotate_rollout(&world, revisions)).unwrap();
    assert_eq!(action.to_string(), "patch Rollout shop/web: revision 3");

    let mut settled = replica_set(&one, "1", 1);
    settled.annotations.insert("team".to_owned(), "shop".to_owned());
    let world = self::world(rollout(json!({}), json!({ "stableRS": one })), vec![settled]);
    assert_eq!(find(&world, "1", |revisions, _| update(&world, revisions)), None);
}

#[test]
fn the_oldest_idle_revisions_go_first() {
    let at = |seconds| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
    let sets = |change: &dyn Fn(&mut Vec<ReplicaSet>)| {
        let mut sets: Vec<_> = (1..=5).map(|age| replica_set(&format!("h{age}"), &age.to_string(), age)).collect();
        change(&mut sets);
        let world = world(rollout(json!({ "revisionHistoryLimit": 2 }), json!({ "stableRS": "h5" })), sets);
        World { now: at(3600), ..world }
    };
    let gone = |world: World| {
        let gone = find(&world, "5", |revisions, _| beyond_history(&mut Draft::new(&world), revisions));
        Vec::from_iter(gone)
    };
    assert_eq!(gone(sets(&|_| {})), ["web-h1", "web-h2"]);
    assert_eq!(gone(sets(&|sets| sets[0].replicas = 1)), ["web-h2"]);
    assert_eq!(gone(sets(&|sets| sets[1].status.replicas = 1)), ["web-h1"]);
    assert_eq!(gone(sets(&|sets| sets[0].generation = 2)), ["web-h2"]);
    let young = sets(&|_| {});
    let after = |seconds| World { now: at(seconds), ..young.clone() };
    assert_eq!(gone(after(61)), ["web-h1"], "what made the other may still be on its way");
    assert_eq!(gone(after(62)), ["web-h1", "web-h2"]);
}
