//! Deletion: preconditions, propagation, finalizers, grace.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::crd;
use super::gc;
use super::state::{State, uid_of};
use super::status::{self, FieldError, Refusal};
use super::write::{Target, metadata, seconds};

/// The finalizer that keeps an owner until its blocking dependents are gone.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer that keeps an owner until its dependents are released.
pub(super) const ORPHAN: &str = "orphan";

/// What becomes of the dependents of a deleted object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// The object goes at once, its dependents afterwards.
    Background,
    /// The dependents go first; the object waits for those that block it.
    Foreground,
    /// The dependents stay, without this owner.
    Orphan,
}

/// How to delete.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeleteOptions {
    /// Delete only the object with this uid.
    pub uid: Option<String>,
    /// Delete only the object in this version.
    pub resource_version: Option<String>,
    /// What becomes of the dependents; the kind's default if absent.
    pub propagation: Option<Propagation>,
    /// Seconds that a pod has to end; the pod's own if absent.
    pub grace_period_seconds: Option<i64>,
    /// Check everything, change nothing.
    pub dry_run: bool,
}

impl DeleteOptions {
    /// Reads the body of a deletion.
    pub(super) fn from_body(body: &Value) -> Result<Self, Refusal> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        if body["propagationPolicy"].is_string() && body["orphanDependents"].is_boolean() {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            let error = FieldError::invalid("propagationPolicy", &body["propagationPolicy"], why);
            return Err(status::bad_options("DeleteOptions", error));
        }
        let propagation = match body["propagationPolicy"].as_str() {
            None => match body["orphanDependents"].as_bool() {
                Some(true) => Some(Propagation::Orphan),
                Some(false) => Some(Propagation::Background),
                None => None,
            },
            Some(policy) => Some(Propagation::parse(policy)?),
        };
        Ok(Self {
            uid: text(&body["preconditions"]["uid"]),
            resource_version: text(&body["preconditions"]["resourceVersion"]),
            propagation,
            grace_period_seconds: body["gracePeriodSeconds"].as_i64(),
            dry_run: body["dryRun"].as_array().is_some_and(|all| !all.is_empty()),
        })
    }
}

impl Propagation {
    pub(super) fn parse(policy: &str) -> Result<Self, Refusal> {
        match policy {
            "Background" => Ok(Self::Background),
            "Foreground" => Ok(Self::Foreground),
            "Orphan" => Ok(Self::Orphan),
            other => {
                let known = ["Foreground", "Background", "Orphan", "nil"].map(str::to_owned);
                let error = FieldError::not_supported("propagationPolicy", &other.into(), &known);
                Err(status::bad_options("DeleteOptions", error))
            }
        }
    }
}

/// What a deletion did.
#[derive(Debug)]
pub(super) enum Deleted {
    /// The object is gone; this is its last state.
    Gone(Arc<Value>),
    /// The object waits for finalizers or its grace period.
    Waits(Arc<Value>),
}

/// Deletes an object, or marks it for deletion.
pub(super) fn delete(
    state: &mut State,
    target: &Target,
    options: &DeleteOptions,
    now: Timestamp,
) -> Result<Deleted, Refusal> {
    let existing = target.existing(state)?;
    check_preconditions(target, &existing, options)?;
    let deleted = mark_or_remove(state, target, &existing, options, now);
    if !options.dry_run {
        gc::collect(state, now);
    }
    Ok(deleted)
}

fn check_preconditions(target: &Target, existing: &Value, options: &DeleteOptions) -> Result<(), Refusal> {
    let actual = uid_of(existing).unwrap_or_default();
    if let Some(wanted) = options.uid.as_deref().filter(|wanted| *wanted != actual) {
        let why = format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({actual}). The object might have been deleted and then recreated"
        );
        return Err(status::precondition(&target.resource, &target.name, &why));
    }
    let version = existing["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    if let Some(wanted) = options.resource_version.as_deref().filter(|wanted| *wanted != version) {
        let why = format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({version}). The object might have been modified"
        );
        return Err(status::precondition(&target.resource, &target.name, &why));
    }
    Ok(())
}

/// Deletes without looking at preconditions, and without collecting the dependents.
pub(super) fn mark_or_remove(
    state: &mut State,
    target: &Target,
    existing: &Arc<Value>,
    options: &DeleteOptions,
    now: Timestamp,
) -> Deleted {
    let place = target.place();
    let mut object = (**existing).clone();
    let mut finalizers: Vec<Value> = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    let propagation = options.propagation.or(target.resource.traits.orphans.then_some(Propagation::Orphan));
    if let Some(propagation) = propagation {
        finalizers.retain(|finalizer| finalizer != FOREGROUND && finalizer != ORPHAN);
        match propagation {
            Propagation::Foreground => finalizers.push(FOREGROUND.into()),
            Propagation::Orphan => finalizers.push(ORPHAN.into()),
            Propagation::Background => {}
        }
    }
    let grace = grace(target, existing, options);
    let is_namespace = &*target.resource.key == "namespaces";
    if grace == 0 && finalizers.is_empty() && !is_namespace {
        if options.dry_run {
            return Deleted::Gone(existing.clone());
        }
        let last = state.remove(&place).unwrap_or_else(|| existing.clone());
        crd::after_delete(state, &target.resource, &target.name);
        gc::after_change(state, &place, existing);
        return Deleted::Gone(if &*target.resource.key == "pods" { ended(&last, now) } else { last });
    }
    let meta = metadata(&mut object);
    if finalizers.is_empty() {
        meta.remove("finalizers");
    } else {
        meta.insert("finalizers".into(), finalizers.into());
    }
    let pending = meta.get("deletionGracePeriodSeconds").and_then(Value::as_i64);
    let pending = pending.or(is_namespace.then_some(0).filter(|_| meta.contains_key("deletionTimestamp")));
    if pending.is_none_or(|pending| grace < pending) {
        let at = now.checked_add(SignedDuration::from_secs(grace)).unwrap_or(now);
        meta.insert("deletionTimestamp".into(), seconds(at).into());
        if !is_namespace {
            meta.insert("deletionGracePeriodSeconds".into(), grace.into());
        }
        if pending.is_none()
            && let Some(generation) = meta.get("generation").and_then(Value::as_i64)
        {
            meta.insert("generation".into(), (generation + 1).into());
        }
    }
    if is_namespace {
        object["status"] = json!({"phase": "Terminating"});
    }
    if options.dry_run || object == **existing {
        return Deleted::Waits(Arc::new(object));
    }
    let object = state.put(&place, object);
    gc::after_change(state, &place, existing);
    Deleted::Waits(object)
}

/// A pod that went at once, as the answer shows it.
fn ended(pod: &Value, now: Timestamp) -> Arc<Value> {
    let mut pod = pod.clone();
    let meta = metadata(&mut pod);
    meta.insert("deletionGracePeriodSeconds".into(), 0.into());
    if !meta.contains_key("deletionTimestamp") {
        meta.insert("deletionTimestamp".into(), seconds(now).into());
        let generation = meta.get("generation").and_then(Value::as_i64).unwrap_or(1) + 1;
        meta.insert("generation".into(), generation.into());
    }
    Arc::new(pod)
}

/// Seconds until a pod may go. A pod that never ran anywhere, or is through, goes at once; so does everything else.
fn grace(target: &Target, existing: &Value, options: &DeleteOptions) -> i64 {
    if &*target.resource.key != "pods" {
        return 0;
    }
    let phase = existing["status"]["phase"].as_str().unwrap_or_default();
    let scheduled = existing["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    if !scheduled || matches!(phase, "Succeeded" | "Failed") {
        return 0;
    }
    let own = existing["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
    options.grace_period_seconds.unwrap_or(own).max(0)
}
