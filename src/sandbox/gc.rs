//! The garbage collector: what ownerReferences and namespaces ask for, as steps that run after each change.

use jiff::Timestamp;
use serde_json::Value;

use super::apply;
use super::delete::{DeleteOptions, FOREGROUND, ORPHAN, Propagation, mark_or_remove};
use super::state::{Place, State, uid_of};
use super::write::{FieldValidation, Sub, Target, WriteOptions, metadata};

/// Notes what has to be looked at after an object was changed or removed.
pub(super) fn after_change(state: &mut State, place: &Place, before: &Value) {
    let Some(uid) = uid_of(before) else { return };
    let gone = state.at(place).is_none();
    let deleting = state.at(place).is_some_and(|object| !object["metadata"]["deletionTimestamp"].is_null());
    if deleting {
        state.garbage.push_back(place.clone());
    }
    if gone || deleting {
        let dependents = state.dependents.get(uid).cloned().unwrap_or_default();
        state.garbage.extend(dependents);
    }
    if gone {
        // Owners that wait for this one.
        for owner in owner_uids(before) {
            if let Some(owner) = state.places.get(&owner).cloned() {
                state.garbage.push_back(owner);
            }
        }
        if !place.namespace.is_empty() {
            let namespace =
                Place { collection: "namespaces".into(), namespace: String::new(), name: place.namespace.clone() };
            if state.at(&namespace).is_some_and(|object| !object["metadata"]["deletionTimestamp"].is_null()) {
                state.garbage.push_back(namespace);
            }
        }
    }
}

/// Notes an object that names owners: they may be gone already.
pub(super) fn after_write(state: &mut State, place: &Place) {
    let owned = |object: &Value| object["metadata"]["ownerReferences"].as_array().is_some_and(|all| !all.is_empty());
    if state.at(place).is_some_and(|object| owned(object)) {
        state.garbage.push_back(place.clone());
    }
}

/// Looks at everything that has been noted, and at what that brings about, until nothing is left to do.
pub(super) fn collect(state: &mut State, now: Timestamp) {
    while let Some(place) = state.garbage.pop_front() {
        step(state, &place, now);
    }
}

fn step(state: &mut State, place: &Place, now: Timestamp) {
    let Some(object) = state.at(place).cloned() else { return };
    let deleting = !object["metadata"]["deletionTimestamp"].is_null();
    if deleting && &*place.collection == "namespaces" {
        return empty_namespace(state, place, &object, now);
    }
    if deleting && has_finalizer(&object, FOREGROUND) {
        return delete_dependents_first(state, place, &object, now);
    }
    if deleting && has_finalizer(&object, ORPHAN) {
        return orphan(state, place, &object, now);
    }
    if !deleting {
        follow_owners(state, place, &object, now);
    }
}

/// An object whose owners are all gone goes too; one that has others left forgets the ones that are gone.
fn follow_owners(state: &mut State, place: &Place, object: &Value, now: Timestamp) {
    let Some(references) = object["metadata"]["ownerReferences"].as_array() else { return };
    if references.is_empty() {
        return;
    }
    let (mut alive, mut leaving, mut blocked) = (Vec::new(), 0, false);
    for reference in references {
        match owner(state, reference) {
            Some(owner) if waits_for_dependents(owner) => {
                leaving += 1;
                blocked |= reference["blockOwnerDeletion"] == true;
            }
            Some(_) => alive.push(reference.clone()),
            None => {}
        }
    }
    if alive.is_empty() {
        let has_dependents = uid_of(object).is_some_and(|uid| state.dependents.contains_key(uid));
        // Under an owner that waits, dependents with dependents of their own wait for these in turn.
        let foreground = leaving > 0 && blocked && has_dependents;
        let propagation = if foreground { Propagation::Foreground } else { Propagation::Background };
        delete(state, place, object, propagation, now);
    } else if alive.len() < references.len() {
        let mut kept = object.clone();
        metadata(&mut kept).insert("ownerReferences".into(), alive.into());
        store(state, place, object, kept, now);
    }
}

fn delete_dependents_first(state: &mut State, place: &Place, object: &Value, now: Timestamp) {
    let uid = uid_of(object).unwrap_or_default().to_owned();
    let dependents = state.dependents.get(&uid).cloned().unwrap_or_default();
    let mut waiting = false;
    for dependent in dependents {
        let Some(current) = state.at(&dependent).cloned() else { continue };
        if current["metadata"]["deletionTimestamp"].is_null() {
            follow_owners(state, &dependent, &current, now);
        }
        waiting |= state.at(&dependent).is_some_and(|object| blocks(object, &uid));
    }
    if !waiting {
        drop_finalizer(state, place, FOREGROUND);
    }
}

fn orphan(state: &mut State, place: &Place, object: &Value, now: Timestamp) {
    let uid = uid_of(object).unwrap_or_default().to_owned();
    for dependent in state.dependents.get(&uid).cloned().unwrap_or_default() {
        let Some(current) = state.at(&dependent).cloned() else { continue };
        let mut released = (*current).clone();
        let meta = metadata(&mut released);
        if let Some(Value::Array(references)) = meta.get_mut("ownerReferences") {
            references.retain(|reference| reference["uid"] != uid.as_str());
            if references.is_empty() {
                meta.remove("ownerReferences");
            }
        }
        store(state, &dependent, &current, released, now);
    }
    drop_finalizer(state, place, ORPHAN);
}

fn empty_namespace(state: &mut State, place: &Place, object: &Value, now: Timestamp) {
    let inside: Vec<Place> = state.inside(&place.name);
    for content in &inside {
        let Some(current) = state.at(content).cloned() else { continue };
        if current["metadata"]["deletionTimestamp"].is_null() {
            delete(state, content, &current, Propagation::Background, now);
        }
    }
    if state.inside(&place.name).is_empty() {
        let before = object.clone();
        if object["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty) {
            state.remove(place);
            after_change(state, place, &before);
        }
    }
}

/// Stores an object without owners that it had; nobody owns these fields any longer.
fn store(state: &mut State, place: &Place, before: &Value, mut object: Value, now: Timestamp) {
    if let Some(target) = target(state, place) {
        let manager = "kube-controller-manager".to_owned();
        let options = WriteOptions { now, manager, dry_run: false, validation: FieldValidation::Ignore };
        apply::track(&target, &mut object, Some(before), &options);
    }
    state.put(place, object);
}

fn target(state: &State, place: &Place) -> Option<Target> {
    let resource = state.owner_of_collection(&place.collection)?;
    Some(Target {
        version: resource.storage.clone(),
        resource,
        namespace: place.namespace.clone(),
        name: place.name.clone(),
        sub: Sub::Whole,
    })
}

fn delete(state: &mut State, place: &Place, object: &Value, propagation: Propagation, now: Timestamp) {
    let Some(target) = target(state, place) else { return };
    let options = DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
    mark_or_remove(state, &target, &object.clone().into(), &options, now);
}

fn drop_finalizer(state: &mut State, place: &Place, finalizer: &str) {
    let Some(object) = state.at(place).cloned() else { return };
    let mut released = (*object).clone();
    let meta = metadata(&mut released);
    if let Some(Value::Array(finalizers)) = meta.get_mut("finalizers") {
        finalizers.retain(|name| name != finalizer);
        if finalizers.is_empty() {
            meta.remove("finalizers");
        }
    }
    let gone = !meta.contains_key("finalizers")
        && meta.get("deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0) == 0;
    if gone {
        state.remove(place);
    } else {
        state.put(place, released);
    }
    after_change(state, place, &object);
}

fn owner<'a>(state: &'a State, reference: &Value) -> Option<&'a Value> {
    let place = state.places.get(reference["uid"].as_str()?)?;
    state.at(place).map(|object| &**object)
}

fn waits_for_dependents(owner: &Value) -> bool {
    !owner["metadata"]["deletionTimestamp"].is_null() && has_finalizer(owner, FOREGROUND)
}

fn blocks(object: &Value, owner: &str) -> bool {
    let references = object["metadata"]["ownerReferences"].as_array();
    references.into_iter().flatten().any(|it| it["uid"] == owner && it["blockOwnerDeletion"] == true)
}

fn has_finalizer(object: &Value, finalizer: &str) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|all| all.iter().any(|name| name == finalizer))
}

fn owner_uids(object: &Value) -> Vec<String> {
    let references = object["metadata"]["ownerReferences"].as_array();
    references.into_iter().flatten().filter_map(|it| it["uid"].as_str().map(Into::into)).collect()
}
