//! Carrying a plan out: the only code that writes to the cluster on behalf of decisions.

use std::time::Duration;

use futures::future::join_all;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::api::resource::{DEPLOYMENT, ObjectRef};
use crate::plan::{Action, Basis, FailedAction, Failure};

use super::Shell;
use super::api::{CallError, PatchKind, Written};
use super::envelope::{Meta, Object};
use super::expectations::What;

/// The object that is decided about, in the version that the decision saw. Our own writes move the version on, so that
/// the status is written on top of them and of nothing else.
#[derive(Clone, Debug)]
pub struct Subject {
    pub reference: ObjectRef,
    pub uid: String,
    pub resource_version: String,
}

/// What came of the actions of a plan.
#[derive(Debug, Default)]
pub struct Outcome {
    pub failures: Vec<Failure>,
    /// Something was not as the decision had seen it: it has to be made again.
    pub outdated: bool,
    /// What was carried out.
    pub done: Vec<(ObjectRef, FailedAction)>,
    /// What may have been carried out.
    pub in_doubt: Vec<(ObjectRef, FailedAction)>,
}

/// Carries out the actions in order, also after one has failed. Those that have failed in this very pass (`blocked`) are
/// not tried again.
pub async fn actions(shell: &Shell, subject: &mut Subject, actions: &[Action], blocked: &[Failure]) -> Outcome {
    let mut outcome = Outcome::default();
    for action in actions {
        let object = action.object();
        if let Some(failure) = blocked.iter().find(|failure| action.is(&failure.object, failure.action)) {
            outcome.failures.push(failure.clone());
            continue;
        }
        match carry_out(shell, subject, action).await {
            Ok(()) => outcome.done.push((object.clone(), action.kind())),
            Err(CallError::Conflict(why)) => {
                debug!(object = %subject.reference, action = %action, why, "outdated");
                shell.telemetry.conflicts.inc();
                outcome.outdated = true;
            }
            Err(CallError::Busy(why)) => {
                debug!(object = %subject.reference, action = %action, why, "put off");
                outcome.outdated = true;
            }
            Err(error) => {
                warn!(object = %subject.reference, action = %action, %error, "an action failed");
                if matches!(error, CallError::Unanswered(_)) {
                    shell.expectations.note(&subject.reference, object, What::Reread);
                    outcome.in_doubt.push((object.clone(), action.kind()));
                }
                let refused = matches!(error, CallError::Refused { .. } | CallError::AlreadyExists(_));
                let (action, error) = (action.kind(), error.to_string());
                let failure = Failure { object: object.clone(), action, error, refused };
                outcome.failures.push(failure);
            }
        }
    }
    outcome
}

/// What a decision changes in a status.
pub struct Change {
    /// The status that the decision saw.
    pub old: Value,
    /// The merge patch from there.
    pub patch: Value,
}

impl Change {
    /// None when the statuses are equal.
    pub fn between<S: Serialize + PartialEq>(old: &S, new: &S) -> Option<Self> {
        if old == new {
            return None;
        }
        let old = value(old);
        let patch = difference(&old, value(new))?;
        Some(Self { old, patch })
    }
}

/// Changes the status by a merge patch, under the version that the decision saw.
pub async fn status(shell: &Shell, subject: &mut Subject, changes: &Value) -> Result<(), CallError> {
    let patch = json!({
        "metadata": {"uid": subject.uid, "resourceVersion": subject.resource_version},
        "status": changes,
    });
    let reference = &subject.reference;
    match write_status(shell, subject, &patch).await {
        Ok(written) => {
            let reference = reference.clone();
            wrote(shell, subject, &reference, &written);
            Ok(())
        }
        Err(error) => {
            match &error {
                CallError::Conflict(_) => {
                    shell.telemetry.conflicts.inc();
                    shell.expectations.note(reference, reference, What::Reread);
                }
                CallError::Unanswered(_) | CallError::NotFound(_) => {
                    shell.expectations.note(reference, reference, What::Reread);
                }
                _ => {}
            }
            Err(error)
        }
    }
}

/// A status as it is written.
pub fn value<S: Serialize>(status: &S) -> Value {
    // Serializing types of the API cannot fail: their keys are strings.
    serde_json::to_value(status).unwrap_or_default()
}

/// Writes to the status subresource, or to the object itself where its definition has none.
///
/// Argo Rollouts' definitions, and ours like them, give AnalysisRuns and Experiments none; others may. Which it is cannot be
/// seen but by trying: what has a subresource takes a write to the object and leaves the status as it is.
async fn write_status(shell: &Shell, subject: &Subject, patch: &Value) -> Result<Written, CallError> {
    let reference = &subject.reference;
    if shell.lacks_status(reference.resource) {
        let written = shell.api.patch(reference, "", PatchKind::Merge, patch).await?;
        // A patch that changes something and makes no new version was not taken: there is a subresource by now.
        if written.resource_version != subject.resource_version {
            return Ok(written);
        }
        shell.remember_status(reference.resource, true);
    }
    let written = shell.api.patch(reference, "status", PatchKind::Merge, patch).await;
    // The object may be gone, too; then it takes no write either.
    let Err(error @ (CallError::NotFound(_) | CallError::Refused { code: 405, .. })) = written else { return written };
    let written = shell.api.patch(reference, "", PatchKind::Merge, patch).await?;
    if written.resource_version == subject.resource_version {
        // There is a subresource: the 404 has passed (of a proxy, of a definition that was being replaced).
        return Err(error);
    }
    shell.remember_status(reference.resource, false);
    Ok(written)
}

async fn carry_out(shell: &Shell, subject: &mut Subject, action: &Action) -> Result<(), CallError> {
    match action {
        Action::Create { object, body } => create(shell, subject, object, body).await,
        Action::Scale { replica_set, from, to, annotations } => {
            let (kind, patch) = if replica_set.resource_version.is_some() {
                let mut patch = json!({"spec": {"replicas": to}});
                if !annotations.is_empty() {
                    patch["metadata"]["annotations"] = json!(annotations);
                }
                (PatchKind::Merge, under(replica_set, patch))
            } else {
                let known = annotations_of(shell, &replica_set.object);
                (PatchKind::Json, scale_patch(replica_set, *from, *to, annotations, &known))
            };
            // Of a Deployment nothing but its size is ours to write.
            let subresource = if replica_set.object.resource == DEPLOYMENT { "scale" } else { "" };
            patch_object(shell, subject, replica_set, subresource, kind, &patch).await
        }
        Action::MergePatch { object, patch, .. } => {
            let basis = on_top(subject, object);
            patch_object(shell, subject, &basis, "", PatchKind::Merge, &under(&basis, patch.clone())).await
        }
        Action::JsonPatch { object, patch, .. } => {
            let basis = on_top(subject, object);
            let mut operations = vec![json!({"op": "test", "path": "/metadata/uid", "value": basis.uid})];
            if let Some(version) = &basis.resource_version {
                operations.push(json!({"op": "test", "path": "/metadata/resourceVersion", "value": version}));
            }
            if let Ok(Value::Array(more)) = serde_json::to_value(patch) {
                operations.extend(more);
            }
            patch_object(shell, subject, &basis, "", PatchKind::Json, &Value::Array(operations)).await
        }
        Action::Evict { pod, .. } => match shell.api.evict(&pod.object, &pod.uid).await {
            // It has gone by itself, or is another one by now.
            Ok(()) | Err(CallError::NotFound(_) | CallError::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        },
        Action::Delete { object, .. } => match shell.api.delete(&object.object, &object.uid).await {
            Ok(()) | Err(CallError::NotFound(_)) => {
                let gone = What::Gone { uid: object.uid.clone() };
                shell.expectations.note(&subject.reference, &object.object, gone);
                Ok(())
            }
            Err(error) => Err(outdated(shell, subject, &object.object, error)),
        },
        Action::Confirmed { by, action } => {
            confirm(shell, subject, by).await?;
            Box::pin(carry_out(shell, subject, action)).await
        }
    }
}

async fn create(shell: &Shell, subject: &mut Subject, object: &ObjectRef, body: &Value) -> Result<(), CallError> {
    match shell.api.create(object, body).await {
        Ok(written) => {
            wrote(shell, subject, object, &written);
            Ok(())
        }
        Err(CallError::AlreadyExists(why)) => {
            let wanted = body["metadata"]["ownerReferences"].as_array().into_iter().flatten();
            let wanted =
                wanted.filter(|owner| owner["controller"] == json!(true)).find_map(|owner| owner["uid"].as_str());
            let existing = shell.api.read_metadata(object).await?;
            let owner = existing.controller().map(|owner| owner.uid.as_str());
            if owner.is_some() && owner == wanted {
                let written = Written { uid: existing.uid, resource_version: existing.resource_version };
                wrote(shell, subject, object, &written);
                return Ok(());
            }
            let owner = existing.controller().map_or_else(
                || "has no owner".to_owned(),
                |owner| format!("belongs to {} {} ({})", owner.kind, owner.name, owner.uid),
            );
            Err(CallError::AlreadyExists(format!("{why}: the existing one {owner}")))
        }
        Err(error) => Err(error),
    }
}

/// How long reading may take of what an action stands on, and how often it is read again when it took longer.
const FRESH: Duration = Duration::from_secs(1);
const REFRESH: usize = 2;

/// Reads live what an action stands on; a conflict when any of it has changed.
///
/// An answer that the server put off for a second (429) leaves the others a second old. Then all are read again; but a
/// server that always takes so long must not keep an action from being carried out for ever.
async fn confirm(shell: &Shell, subject: &Subject, bases: &[Basis]) -> Result<(), CallError> {
    let mut read = Vec::new();
    for _ in 0..=REFRESH {
        let began = Instant::now();
        read = join_all(bases.iter().map(|basis| shell.api.read_metadata(&basis.object))).await;
        shell.telemetry.live_reads.inc_by(bases.len() as u64);
        if began.elapsed() < FRESH || read.iter().any(Result::is_err) {
            break;
        }
    }
    for (basis, read) in bases.iter().zip(read) {
        let changed = match read {
            Ok(Meta { uid, resource_version, .. }) => {
                uid != basis.uid || basis.resource_version.as_ref().is_some_and(|seen| *seen != resource_version)
            }
            Err(CallError::NotFound(_)) => true,
            Err(error) => return Err(error),
        };
        if changed {
            shell.expectations.note(&subject.reference, &basis.object, What::Reread);
            return Err(CallError::Conflict(format!("{} has changed since it was observed", basis.object)));
        }
    }
    Ok(())
}

async fn patch_object(
    shell: &Shell,
    subject: &mut Subject,
    basis: &Basis,
    subresource: &str,
    kind: PatchKind,
    patch: &Value,
) -> Result<(), CallError> {
    match shell.api.patch(&basis.object, subresource, kind, patch).await {
        Ok(written) => {
            wrote(shell, subject, &basis.object, &written);
            Ok(())
        }
        Err(error) => Err(outdated(shell, subject, &basis.object, error)),
    }
}

/// An object that is gone or has changed is read again before the next decision, which is due at once.
fn outdated(shell: &Shell, subject: &Subject, object: &ObjectRef, error: CallError) -> CallError {
    match error {
        CallError::Conflict(why) | CallError::NotFound(why) => {
            shell.expectations.note(&subject.reference, object, What::Reread);
            CallError::Conflict(why)
        }
        error => error,
    }
}

fn wrote(shell: &Shell, subject: &mut Subject, object: &ObjectRef, written: &Written) {
    let what = if written.resource_version.is_empty() {
        What::Reread
    } else {
        What::Version(written.resource_version.clone())
    };
    shell.expectations.note(&subject.reference, object, what);
    if *object == subject.reference && !written.resource_version.is_empty() {
        subject.resource_version.clone_from(&written.resource_version);
    }
}

/// The basis of a write; that of the decided object itself is always the version that was seen, and our writes since.
fn on_top(subject: &Subject, basis: &Basis) -> Basis {
    if basis.object == subject.reference {
        Basis { resource_version: Some(subject.resource_version.clone()), ..basis.clone() }
    } else {
        basis.clone()
    }
}

/// A merge patch with its preconditions.
fn under(basis: &Basis, mut patch: Value) -> Value {
    let Some(object) = patch.as_object_mut() else { return patch };
    let metadata = object.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.insert("uid".into(), basis.uid.clone().into());
        if let Some(version) = &basis.resource_version {
            metadata.insert("resourceVersion".into(), version.clone().into());
        }
    }
    patch
}

fn annotations_of(shell: &Shell, replica_set: &ObjectRef) -> Vec<String> {
    match shell.index().entry_of(replica_set).map(|entry| &entry.object) {
        Some(Object::ReplicaSet(replica_set)) => replica_set.annotations.keys().cloned().collect(),
        _ => Vec::new(),
    }
}

/// A JSON patch that scales only from what was observed, whatever else (its status) has changed since.
fn scale_patch(
    replica_set: &Basis,
    from: i32,
    to: i32,
    annotations: &std::collections::BTreeMap<String, Option<String>>,
    known: &[String],
) -> Value {
    let mut patch = vec![
        json!({"op": "test", "path": "/metadata/uid", "value": replica_set.uid}),
        json!({"op": "test", "path": "/spec/replicas", "value": from}),
        json!({"op": "replace", "path": "/spec/replicas", "value": to}),
    ];
    if known.is_empty() && annotations.values().any(Option::is_some) {
        patch.push(json!({"op": "add", "path": "/metadata/annotations", "value": {}}));
    }
    for (key, value) in annotations {
        let path = format!("/metadata/annotations/{}", key.replace('~', "~0").replace('/', "~1"));
        match value {
            Some(value) => patch.push(json!({"op": "add", "path": path, "value": value})),
            None if known.contains(key) => patch.push(json!({"op": "remove", "path": path})),
            None => {}
        }
    }
    Value::Array(patch)
}

/// The merge patch that leads from `old` to `new`; none when they are equal.
pub fn difference(old: &Value, new: Value) -> Option<Value> {
    let (before, after) = match (old, new) {
        (Value::Object(before), Value::Object(after)) => (before, after),
        (old, new) => return (*old != new).then_some(new),
    };
    let mut patch: Map<String, Value> =
        before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key.clone(), Value::Null)).collect();
    for (key, value) in after {
        let change = match before.get(&key) {
            Some(earlier) => difference(earlier, value),
            None => Some(value),
        };
        patch.extend(change.map(|change| (key, change)));
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::api::resource::REPLICA_SET;

    use super::*;

    #[test]
    fn a_status_patch_holds_what_changed_and_nothing_else() {
        let old = json!({"phase": "Progressing", "abort": true, "canary": {"weights": {"canary": 1}, "x": 1}, "list": [1, 2]});
        let new =
            json!({"phase": "Healthy", "canary": {"weights": {"canary": 2}, "x": 1}, "list": [1], "stableRS": "a"});
        let patch = difference(&old, new.clone()).unwrap();
        let expected = json!({"phase": "Healthy", "abort": null, "canary": {"weights": {"canary": 2}}, "list": [1], "stableRS": "a"});
        assert_eq!(patch, expected);
        let mut patched = old.clone();
        json_patch::merge(&mut patched, &patch);
        assert_eq!(patched, new);
        assert_eq!(difference(&new, new.clone()), None);
    }

    #[test]
    fn scaling_tests_what_it_stands_on() {
        let basis =
            Basis { object: ObjectRef::new(REPLICA_SET, "shop", "web-1"), uid: "u".into(), resource_version: None };
        let annotations = BTreeMap::from([
            ("a/b".to_owned(), Some("5".to_owned())),
            ("gone".to_owned(), None),
            ("never".to_owned(), None),
        ]);
        let patch = scale_patch(&basis, 3, 5, &annotations, &["gone".to_owned(), "a/b".to_owned()]);
        let mut object = json!({
            "metadata": {"uid": "u", "annotations": {"gone": "x", "a/b": "3", "kept": "y"}}, "spec": {"replicas": 3},
        });
        let operations: json_patch::Patch = serde_json::from_value(patch).unwrap();
        json_patch::patch(&mut object, &operations).unwrap();
        assert_eq!(
            object,
            json!({"metadata": {"uid": "u", "annotations": {"a/b": "5", "kept": "y"}}, "spec": {"replicas": 5}})
        );
        assert!(json_patch::patch(&mut object, &operations).is_err(), "it is not at 3 any more");
        let bare = scale_patch(&basis, 0, 1, &annotations, &[]);
        let mut object = json!({"metadata": {"uid": "u"}, "spec": {"replicas": 0}});
        json_patch::patch(&mut object, &serde_json::from_value::<json_patch::Patch>(bare).unwrap()).unwrap();
        assert_eq!(object["metadata"]["annotations"], json!({"a/b": "5"}));
    }

    #[test]
    fn a_merge_patch_carries_its_preconditions() {
        let basis = Basis {
            object: ObjectRef::new(REPLICA_SET, "shop", "web-1"),
            uid: "u".into(),
            resource_version: Some("7".into()),
        };
        let patch = under(&basis, json!({"metadata": {"labels": {"a": "b"}}}));
        assert_eq!(patch, json!({"metadata": {"labels": {"a": "b"}, "uid": "u", "resourceVersion": "7"}}));
    }
}
