//! Create, update and patch: what happens to an object between the request and the store.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::patch::Patch;
use super::resource::{Resource, Version};
use super::schema::{Path, check, prune, set_defaults};
use super::state::{Place, State, uid_of};
use super::status::{self, FieldError, Refusal};
use super::{apply, crd, gc, names, strategy};

/// Which object of which resource a request is about.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) resource: Arc<Resource>,
    pub(super) version: String,
    /// Empty for cluster-scoped resources, and for requests across namespaces.
    pub(super) namespace: String,
    /// Empty for requests about a collection.
    pub(super) name: String,
    pub(super) sub: Sub,
}

/// The part of an object that a request is about.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Sub {
    /// The object, all but its status.
    #[default]
    Whole,
    /// The status alone.
    Status,
    /// The replicas, by way of a Scale.
    Scale,
}

/// How a write is to be carried out.
#[derive(Clone, Debug)]
pub(super) struct WriteOptions {
    pub(super) now: Timestamp,
    pub(super) manager: String,
    pub(super) dry_run: bool,
    pub(super) validation: FieldValidation,
}

/// What happens to fields that the schema does not know.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// Who notes in the managedFields what a write changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Ownership {
    /// The write is an update: its manager becomes the owner of what differs.
    ByUpdate,
    /// The object carries the right managedFields already.
    Settled,
}

/// The outcome of a write.
#[derive(Debug)]
pub(super) struct Written {
    /// The object as it is stored.
    pub(super) object: Arc<Value>,
    pub(super) created: bool,
    pub(super) warnings: Vec<String>,
}

impl Sub {
    pub(super) fn name(self) -> &'static str {
        match self {
            Sub::Whole => "",
            Sub::Status => "status",
            Sub::Scale => "scale",
        }
    }
}

impl Target {
    pub(super) fn place(&self) -> Place {
        Place {
            collection: self.resource.collection.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }

    pub(super) fn version(&self) -> Option<&Version> {
        self.resource.version(&self.version)
    }

    pub(super) fn existing(&self, state: &State) -> Result<Arc<Value>, Refusal> {
        let found = state.object(&self.resource.collection, &self.namespace, &self.name);
        found.cloned().ok_or_else(|| status::not_found(&self.resource, &self.name))
    }
}

impl WriteOptions {
    /// The present second as metadata carries it.
    pub(super) fn timestamp(&self) -> String {
        seconds(self.now)
    }
}

/// An instant as metadata carries it: RFC 3339 in whole seconds.
pub(super) fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Creates an object.
pub(super) fn create(
    state: &mut State,
    target: &Target,
    object: Value,
    options: &WriteOptions,
) -> Result<Written, Refusal> {
    create_owned(state, target, object, Ownership::ByUpdate, options)
}

fn create_owned(
    state: &mut State,
    target: &Target,
    object: Value,
    ownership: Ownership,
    options: &WriteOptions,
) -> Result<Written, Refusal> {
    let mut object = admissible(target, object)?;
    let resource = &target.resource;
    check_namespace(state, target, object["metadata"]["name"].as_str().unwrap_or_default())?;
    let meta = metadata(&mut object);
    if meta.get("resourceVersion").and_then(Value::as_str).is_some_and(|version| !version.is_empty()) {
        return Err(status::version_on_create());
    }
    let name = match text(meta, "name") {
        Some(name) => name.to_owned(),
        None => match text(meta, "generateName") {
            // A real server keeps 58 characters of the prefix, so that the name fits a label.
            Some(prefix) => format!("{}{}", prefix.chars().take(58).collect::<String>(), state.next_suffix()),
            None => {
                let error = FieldError::required("metadata.name", "name or generateName is required");
                return Err(status::invalid(resource, "", &[error]));
            }
        },
    };
    let target = &Target { name: name.clone(), ..target.clone() };
    let taken = state.object(&resource.collection, &target.namespace, &name).cloned();
    let meta = metadata(&mut object);
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"] {
        meta.remove(field);
    }
    meta.insert("name".into(), name.clone().into());
    if resource.namespaced {
        meta.insert("namespace".into(), target.namespace.clone().into());
    } else {
        meta.remove("namespace");
    }
    meta.insert("uid".into(), state.next_uid().into());
    meta.insert("creationTimestamp".into(), options.timestamp().into());
    if resource.custom || resource.traits.generation {
        meta.insert("generation".into(), 1.into());
    }
    let (mut object, warnings) = shape(target, object, None, options)?;
    strategy::prepare_create(target, &mut object, options);
    let mut errors = names::name_errors(resource, &name);
    errors.extend(strategy::validate(resource, &object, None));
    if !errors.is_empty() {
        return Err(status::invalid(resource, &name, &errors));
    }
    if let Some(taken) = taken {
        let goes = !taken["metadata"]["deletionTimestamp"].is_null();
        return Err(if goes { status::still_exists(resource, &name) } else { status::already_exists(resource, &name) });
    }
    crd::prepare(resource, &mut object, None, options);
    if ownership == Ownership::ByUpdate {
        metadata(&mut object).remove("managedFields");
        if state.tracks_fields {
            apply::track(target, &mut object, None, options);
        }
    }
    // What the server gives out is nobody's.
    strategy::allocate(state, resource, &mut object);
    if options.dry_run {
        return Ok(Written { object: Arc::new(resource.to_storage(object)), created: true, warnings });
    }
    let object = state.put(&target.place(), resource.to_storage(object));
    crd::after_write(state, resource, &object);
    gc::after_write(state, &target.place());
    gc::collect(state, options.now);
    Ok(Written { object, created: true, warnings })
}

/// Replaces an object.
pub(super) fn update(
    state: &mut State,
    target: &Target,
    object: Value,
    options: &WriteOptions,
) -> Result<Written, Refusal> {
    let object = admissible(target, object)?;
    let existing = match target.existing(state) {
        Err(_) if target.sub == Sub::Whole && names::may_be_made_by_update(target) => {
            if let Some(wanted) = uid_of(&object).filter(|uid| !uid.is_empty()) {
                let why = names::uid_mismatch(target, wanted, "", options.dry_run);
                return Err(status::conflict(&target.resource, &target.name, &why));
            }
            let mut object = object;
            metadata(&mut object).remove("resourceVersion");
            return create(state, &Target { name: String::new(), ..target.clone() }, object, options);
        }
        existing => existing?,
    };
    if let (Some(wanted), Some(actual)) = (uid_of(&object).filter(|uid| !uid.is_empty()), uid_of(&existing))
        && wanted != actual
    {
        let why = names::uid_mismatch(target, wanted, actual, options.dry_run);
        return Err(status::conflict(&target.resource, &target.name, &why));
    }
    let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    if version.is_empty() && !target.resource.traits.unconditional_update {
        return Err(status::version_required(&target.resource, &target.name));
    }
    replace(state, target, &existing, object, Ownership::ByUpdate, options)
}

/// Patches an object.
pub(super) fn patch(
    state: &mut State,
    target: &Target,
    patch: &Patch,
    options: &WriteOptions,
) -> Result<Written, Refusal> {
    patch.check(&target.resource)?;
    let existing = target.existing(state)?;
    let presented = target.resource.present(&target.version, &existing);
    let patched = patch.apply(&target.resource, &target.version, &presented)?;
    let patched = admissible(target, patched)?;
    // A write to the status of a custom resource looks at nothing else.
    let looked_at = target.sub == Sub::Whole || !target.resource.custom;
    if let (true, Some(wanted), Some(actual)) = (looked_at, uid_of(&patched), uid_of(&existing))
        && wanted != actual
    {
        return Err(names::uid_is_fixed(target, wanted));
    }
    // Only strict decoding refuses a patched object as a bad request.
    let shown = (options.validation == FieldValidation::Strict).then(|| patched.clone());
    replace(state, target, &existing, patched, Ownership::ByUpdate, options).map_err(|refusal| {
        let why = refusal.message.find("strict decoding error").and_then(|at| refusal.message.get(at..));
        match (shown, why) {
            (Some(patched), Some(why)) if refusal.code == 400 => status::unpatchable(&patched, why),
            _ => refusal,
        }
    })
}

/// Applies a configuration: creates the object, or merges it into what is there.
pub(super) fn apply(
    state: &mut State,
    target: &Target,
    applied: Value,
    force: bool,
    options: &WriteOptions,
) -> Result<Written, Refusal> {
    let mut applied = admissible(target, applied)?;
    let named = applied["metadata"]["name"].as_str().is_some_and(|name| !name.is_empty());
    let has_status = target.version().is_some_and(|version| version.status);
    if let Value::Object(fields) = &mut applied {
        // What the request cannot reach is not applied.
        match target.sub {
            Sub::Status => fields.retain(|name, _| !matches!(name.as_str(), "spec" | "data")),
            _ if has_status => drop(fields.remove("status")),
            _ => {}
        }
    }
    strip(&target.resource, &mut applied);
    let lenient = WriteOptions { validation: FieldValidation::Warn, ..options.clone() };
    let (applied, unknown) = decode(target, applied, None, &lenient)?;
    if let Some(field) = unknown.first().and_then(|warning| warning.split('"').nth(1)) {
        let namespace = applied["metadata"]["namespace"].as_str().unwrap_or_default();
        let version = target.resource.api_version(&target.version);
        let why = format!(
            "({namespace}/{}; {version}, Kind={}): .{field}: field not declared in schema",
            target.name, target.resource.kind
        );
        return Err(status::untypeable(&why));
    }
    let existing = state.object(&target.resource.collection, &target.namespace, &target.name).cloned();
    let wanted = uid_of(&applied).unwrap_or_default().to_owned();
    match &existing {
        None if !wanted.is_empty() && target.sub == Sub::Whole => {
            let why =
                format!("uid mismatch: the provided object specified uid {wanted}, and no existing object was found");
            return Err(status::conflict(&target.resource, &target.name, &why));
        }
        Some(existing) if !wanted.is_empty() && uid_of(existing) != Some(wanted.as_str()) => {
            return Err(names::uid_is_fixed(target, &wanted));
        }
        _ => {}
    }
    match existing {
        Some(existing) => {
            let presented = target.resource.present(&target.version, &existing);
            let merged = apply::apply(target, Some(&presented), applied, force, options)?;
            replace(state, target, &existing, merged, Ownership::Settled, options)
        }
        None if target.sub == Sub::Status => Err(status::not_found(&target.resource, &target.name)),
        None if !named => {
            let what = format!("the name of the object ({} based on URL)", target.name);
            Err(status::bad_request(format!("{what} was undeterminable: name must be provided")))
        }
        None => {
            let mut object = apply::apply(target, None, applied, force, options)?;
            metadata(&mut object).insert("name".into(), target.name.clone().into());
            metadata(&mut object).remove("resourceVersion");
            let target = Target { name: String::new(), ..target.clone() };
            create_owned(state, &target, object, Ownership::Settled, options)
        }
    }
}

/// Stores `object` in place of `existing`, if that is allowed and a change.
pub(super) fn replace(
    state: &mut State,
    target: &Target,
    existing: &Arc<Value>,
    mut object: Value,
    ownership: Ownership,
    options: &WriteOptions,
) -> Result<Written, Refusal> {
    let resource = &target.resource;
    let presented = resource.present(&target.version, existing);
    let meta = metadata(&mut object);
    if let Some(version) = text(meta, "resourceVersion")
        && Some(version) != presented["metadata"]["resourceVersion"].as_str()
    {
        return Err(status::stale(resource, &target.name));
    }
    keep_system_metadata(meta, &presented);
    isolate(target, &mut object, &presented);
    let (mut object, warnings) = shape(target, object, Some(&presented), options)?;
    strategy::prepare_update(target, &mut object, &presented);
    let mut errors = names::finalizer_errors(&object, &presented);
    errors.extend(strategy::validate(resource, &object, Some(&presented)));
    if !errors.is_empty() {
        return Err(status::invalid(resource, &target.name, &errors));
    }
    crd::prepare(resource, &mut object, Some(&presented), options);
    if strategy::bumps_generation(resource, target.version(), &object, &presented) {
        let generation = presented["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
        metadata(&mut object).insert("generation".into(), generation.into());
    }
    if ownership == Ownership::ByUpdate {
        apply::track(target, &mut object, Some(&presented), options);
    }
    let object = resource.to_storage(object);
    if object == **existing {
        return Ok(Written { object: existing.clone(), created: false, warnings });
    }
    if options.dry_run {
        return Ok(Written { object: Arc::new(object), created: false, warnings });
    }
    let place = target.place();
    let object = if is_released(&object) {
        // The last finalizer is gone: this update is the end of the object, and not a version of it.
        state.remove(&place);
        crd::after_delete(state, resource, &target.name);
        Arc::new(object)
    } else {
        let object = state.put(&place, object);
        crd::after_write(state, resource, &object);
        object
    };
    gc::after_change(state, &place, existing);
    gc::after_write(state, &place);
    gc::collect(state, options.now);
    Ok(Written { object, created: false, warnings })
}

/// Whether nothing keeps a deleted object any longer.
fn is_released(object: &Value) -> bool {
    let meta = &object["metadata"];
    !meta["deletionTimestamp"].is_null()
        && meta["finalizers"].as_array().is_none_or(Vec::is_empty)
        && meta["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && object.pointer("/spec/finalizers").and_then(Value::as_array).is_none_or(Vec::is_empty)
}

/// The object of a request's body, after the checks that need no stored object.
pub(super) fn admissible(target: &Target, mut object: Value) -> Result<Value, Refusal> {
    let resource = &target.resource;
    let Value::Object(fields) = &mut object else {
        return Err(status::bad_request("the body must be a JSON object"));
    };
    let api_version = resource.api_version(&target.version);
    let (given_version, given_kind) = (fields.get("apiVersion"), fields.get("kind"));
    let same = |given: Option<&Value>, wanted: &str| given.and_then(Value::as_str).is_none_or(|given| given == wanted);
    if !same(given_version, &api_version) || !same(given_kind, &resource.kind) {
        let shown = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        return Err(status::bad_request(format!(
            "{} in version \"{}\" cannot be handled as a {}: the object provided is unrecognized (must be of type {}, apiVersion {api_version})",
            shown(given_kind),
            shown(given_version),
            resource.kind,
            resource.kind,
        )));
    }
    resource.stamp(&target.version, fields);
    match fields.get("metadata") {
        None | Some(Value::Null) => drop(fields.insert("metadata".into(), Value::Object(Map::new()))),
        Some(Value::Object(_)) => {}
        Some(_) => return Err(status::bad_request("metadata must be an object")),
    }
    let meta = metadata(&mut object);
    let namespace = text(meta, "namespace");
    if resource.namespaced && namespace.is_some_and(|namespace| namespace != target.namespace) {
        return Err(status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if !target.name.is_empty()
        && let Some(name) = text(meta, "name")
        && name != target.name
    {
        return Err(status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            target.name
        )));
    }
    Ok(object)
}

fn check_namespace(state: &State, target: &Target, name: &str) -> Result<(), Refusal> {
    if !target.resource.namespaced {
        return Ok(());
    }
    let Some(namespace) = state.object("namespaces", "", &target.namespace) else {
        let namespaces = state.resource("namespaces").unwrap_or(&target.resource);
        return Err(status::not_found(namespaces, &target.namespace));
    };
    if namespace["metadata"]["deletionTimestamp"].is_null() {
        return Ok(());
    }
    Err(status::namespace_terminating(&target.resource, name, &target.namespace))
}

/// Drops what the schema does not know; what is as in `old` is known. The second part of the answer is warnings.
fn decode(
    target: &Target,
    mut object: Value,
    old: Option<&Value>,
    options: &WriteOptions,
) -> Result<(Value, Vec<String>), Refusal> {
    let Some(schema) = target.version().and_then(|version| version.schema.as_ref()) else {
        return Ok((object, Vec::new()));
    };
    let mut unknown = Vec::new();
    prune(schema, &mut object, old, &Path::Root, &mut unknown);
    let unknown: Vec<String> = unknown.iter().map(|field| format!("unknown field \"{field}\"")).collect();
    match options.validation {
        FieldValidation::Strict if !unknown.is_empty() => {
            let why = format!("strict decoding error: {}", unknown.join(", "));
            Err(status::bad_request(undecodable(target, &why)))
        }
        FieldValidation::Warn => Ok((object, unknown)),
        FieldValidation::Strict | FieldValidation::Ignore => Ok((object, Vec::new())),
    }
}

/// Prunes, defaults and validates by the schema. The second part of the answer is warnings.
fn shape(
    target: &Target,
    mut object: Value,
    existing: Option<&Value>,
    options: &WriteOptions,
) -> Result<(Value, Vec<String>), Refusal> {
    let resource = &target.resource;
    let shaped = existing.filter(|existing| target.resource.has_shaped(existing));
    let Some(schema) = target.version().and_then(|version| version.schema.as_ref()) else {
        return Ok((object, Vec::new()));
    };
    tidy(resource, &mut object);
    let (mut object, warnings) = decode(target, object, shaped, options)?;
    set_defaults(schema, &mut object, shaped);
    let mut errors = Vec::new();
    check(schema, &object, existing, &Path::Root, &mut errors);
    if !resource.custom {
        // Decoding refuses wrong types; the rest of a built-in kind's rules is its strategy's.
        errors.retain(FieldError::is_wrong_type);
        if let Some(error) = errors.first() {
            return Err(status::bad_request(undecodable(target, &error.as_decoding(&resource.kind))));
        }
    } else {
        errors.extend(names::scale_errors(target, &object));
        if errors.iter().any(FieldError::blocks_rules) && schema.has_rules {
            errors.push(FieldError::rules_unchecked());
        }
    }
    if !errors.is_empty() {
        return Err(status::invalid(resource, &target.name, &errors));
    }
    Ok((object, warnings))
}

fn undecodable(target: &Target, why: &str) -> String {
    let kind = &target.resource.kind;
    format!("{kind} in version \"{}\" cannot be handled as a {kind}: {why}", target.version)
}

/// Drops what a typed server drops when it decodes: nulls, and empty lists and maps in the metadata.
fn tidy(resource: &Resource, object: &mut Value) {
    strip(resource, object);
    let empty = |value: &Value| match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    metadata(object).retain(|_, value| !empty(value));
    if let (false, Some(fields)) = (resource.custom, object.as_object_mut()) {
        fields.retain(|name, value| !matches!(name.as_str(), "data" | "binaryData") || !empty(value));
    }
}

fn strip(resource: &Resource, object: &mut Value) {
    if resource.custom {
        strip_nulls(&mut object["metadata"]);
    } else {
        strip_nulls(object);
    }
}

fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

/// What no update may change: it is what it was.
fn keep_system_metadata(meta: &mut Map<String, Value>, existing: &Value) {
    let before = &existing["metadata"];
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "resourceVersion",
    ] {
        match before.get(field) {
            Some(value) if meta.get(field) == Some(value) => {}
            Some(value) => drop(meta.insert(field.into(), value.clone())),
            None => drop(meta.remove(field)),
        }
    }
    meta.remove("selfLink");
}

/// A write to the status subresource changes nothing but the status, and a write to the object changes no status.
fn isolate(target: &Target, object: &mut Value, existing: &Value) {
    let has_status = target.version().is_some_and(|version| version.status);
    if target.sub == Sub::Status {
        // Built-in kinds let a status write touch labels and annotations; custom ones do not.
        let editable: &[&str] = if target.resource.custom {
            &["managedFields"]
        } else {
            &["managedFields", "labels", "annotations", "finalizers"]
        };
        keep(metadata(object), &existing["metadata"], editable);
        if let Value::Object(fields) = object {
            keep(fields, existing, &["status", "metadata"]);
        }
    } else if has_status && let Value::Object(fields) = object {
        match existing.get("status") {
            Some(status) => drop(fields.insert("status".into(), status.clone())),
            None => drop(fields.remove("status")),
        }
    }
}

/// All fields but `free` ones become what they were. Most are that already.
fn keep(fields: &mut Map<String, Value>, before: &Value, free: &[&str]) {
    fields.retain(|name, _| free.contains(&name.as_str()) || before.get(name).is_some());
    for (name, value) in before.as_object().into_iter().flatten() {
        if !free.contains(&name.as_str()) && fields.get(name) != Some(value) {
            fields.insert(name.clone(), value.clone());
        }
    }
}

/// The metadata of an object that [`admissible`] has passed, or that the store holds.
pub(super) fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    if !object["metadata"].is_object() {
        object["metadata"] = Value::Object(Map::new());
    }
    match &mut object["metadata"] {
        Value::Object(meta) => meta,
        // The line above has just made it one.
        _ => unreachable!("metadata is an object"),
    }
}

fn text<'a>(meta: &'a Map<String, Value>, field: &str) -> Option<&'a str> {
    meta.get(field).and_then(Value::as_str).filter(|text| !text.is_empty())
}
