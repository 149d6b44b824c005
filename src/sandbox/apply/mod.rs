//! Who owns which field: managedFields, and server-side apply.

mod fields;
mod merge;

use kube::core::response::StatusCause;
use serde_json::{Value, json};

use super::schema::Schema;
use super::status::{self, Refusal};
use super::write::{Sub, Target, WriteOptions, metadata};
use fields::{Difference, FieldSet, compare, owned};
use merge::merge;

/// Notes in the managedFields that a create or an update changed fields.
pub(super) fn track(target: &Target, object: &mut Value, existing: Option<&Value>, options: &WriteOptions) {
    let schema = target.schema();
    let mut entries = entries_before(object, existing);
    if existing.is_some() && entries.is_empty() {
        // An object that nobody owned anything of is not tracked until it is applied.
        metadata(object).remove("managedFields");
        return;
    }
    let nothing = if target.resource.custom { Value::Null } else { skeleton(object) };
    let before = existing.or((!nothing.is_null()).then_some(&nothing));
    let mut difference = compare(&schema, before, Some(object));
    strip(target, &mut difference.changed);
    strip(target, &mut difference.removed);
    if !difference.is_empty() {
        hand_over(&mut entries, &difference, Entry::by_update(target, options));
    }
    store(entries, object);
}

/// The entries that an update finds: those that it carries itself, or those of the object that is there.
fn entries_before(object: &mut Value, existing: Option<&Value>) -> Vec<Value> {
    let stored = existing.and_then(|existing| existing["metadata"]["managedFields"].as_array());
    let given = match metadata(object).remove("managedFields") {
        Some(Value::Array(given)) => given,
        _ => Vec::new(),
    };
    if stored == Some(&given) {
        return given;
    }
    if given.is_empty() && existing.is_some() {
        return stored.cloned().unwrap_or_default();
    }
    // Somebody else wrote them: they are read as a server reads them.
    let read = given.iter().map(Entry::read).filter(|entry| !entry.manager.is_empty() && !entry.fields.is_empty());
    read.map(|entry| entry.to_value()).collect()
}

/// What differs belongs to `mine` from now on and to no other. Entries that have no part in it stay as they are.
fn hand_over(entries: &mut Vec<Value>, difference: &Difference, mut mine: Entry) {
    if !entries.iter().any(|entry| mine.wrote(entry)) {
        entries.push(mine.to_value());
    }
    entries.retain_mut(|value| {
        let fields = &value["fieldsV1"];
        let is_mine = mine.wrote(value);
        if !is_mine && !difference.changed.overlaps(fields) && !difference.removed.overlaps(fields) {
            return true;
        }
        let mut entry = Entry::read(value);
        entry.fields.subtract(&difference.removed);
        if !is_mine {
            entry.fields.subtract(&difference.changed);
        } else if !difference.changed.is_empty() {
            entry.fields.add(&difference.changed);
            entry.time = std::mem::take(&mut mine.time);
        }
        *value = entry.to_value();
        !entry.fields.is_empty()
    });
}

/// What a typed server compares a new built-in object with: an empty one has the structs that are not behind pointers.
fn skeleton(object: &Value) -> Value {
    const STRUCTS: [&str; 17] = [
        "/metadata",
        "/spec",
        "/status",
        "/spec/template",
        "/spec/template/metadata",
        "/spec/template/spec",
        "/spec/strategy",
        "/spec/updateStrategy",
        "/spec/jobTemplate",
        "/spec/jobTemplate/metadata",
        "/spec/jobTemplate/spec",
        "/spec/jobTemplate/spec/template",
        "/spec/jobTemplate/spec/template/metadata",
        "/spec/jobTemplate/spec/template/spec",
        "/spec/scaleTargetRef",
        "/involvedObject",
        "/source",
    ];
    const LISTS: [&str; 3] =
        ["/spec/containers", "/spec/template/spec/containers", "/spec/jobTemplate/spec/template/spec/containers"];
    let mut empty = json!({});
    if object["kind"] == "Event" {
        empty = json!({"eventTime": null, "reportingComponent": "", "reportingInstance": ""});
    }
    let found = |path: &&&str| object.pointer(path).is_some();
    for (paths, value) in [(&STRUCTS[..], json!({})), (&LISTS[..], Value::Null)] {
        for path in paths.iter().filter(found) {
            // Owners come before their parts, so that the parent is there.
            let (parent, name) = path.rsplit_once('/').unwrap_or_default();
            if let Some(parent) = empty.pointer_mut(parent) {
                parent[name] = value.clone();
            }
        }
    }
    empty
}

/// An applied configuration, merged into what is there.
///
/// The answer carries its managedFields. `live` is absent when the object is to be created.
///
/// # Errors
/// A conflict that names the managers whose fields would change, unless forced.
pub(super) fn apply(
    target: &Target,
    live: Option<&Value>,
    mut applied: Value,
    force: bool,
    options: &WriteOptions,
) -> Result<Value, Refusal> {
    let schema = target.schema();
    if applied["metadata"]["managedFields"].as_array().is_some_and(|entries| !entries.is_empty()) {
        return Err(status::bad_request("metadata.managedFields must be nil"));
    }
    metadata(&mut applied).remove("managedFields");
    let mut set = owned(&schema, &applied);
    strip(target, &mut set);
    let mut mine = Entry { operation: "Apply".into(), fields: set, ..Entry::by_update(target, options) };
    let Some(live) = live else {
        store_all(vec![mine], &mut applied);
        return Ok(applied);
    };
    let mut managers = Entry::all(live);
    if managers.is_empty() {
        // Somebody must have written what is there.
        let mut fields = compare(&schema, None, Some(live)).changed;
        strip(target, &mut fields);
        managers.push(Entry { manager: "before-first-apply".into(), fields, ..Entry::by_update(target, options) });
    }
    let before = managers.iter().position(|entry| entry.is_by_same(&mine)).map(|at| managers.remove(at));
    let mut merged = merge(&schema, live, &applied);
    if let Some(before) = &before {
        // What this manager gave up, unless somebody else owns it too.
        let mut given_up = before.fields.clone();
        given_up.subtract(&mine.fields);
        let mut keep = mine.fields.clone();
        managers.iter().for_each(|entry| keep.add(&entry.fields));
        given_up.remove_from(&keep, &schema, &mut merged);
    }
    let mut difference = compare(&schema, Some(live), Some(&merged));
    strip(target, &mut difference.changed);
    strip(target, &mut difference.removed);
    let conflicts: Vec<(String, String)> = managers
        .iter()
        .flat_map(|entry| {
            let paths = entry.fields.common(&difference.changed).paths();
            paths.into_iter().map(|path| (entry.shown(), path))
        })
        .collect();
    if !conflicts.is_empty() && !force {
        return Err(refuse(&conflicts));
    }
    for other in &mut managers {
        other.fields.subtract(&difference.changed);
        other.fields.subtract(&difference.removed);
    }
    if let Some(before) = before
        && before.fields == mine.fields
        && before.api_version == mine.api_version
        && difference.changed.is_empty()
        && difference.removed.is_empty()
    {
        mine.time = before.time;
    }
    managers.push(mine);
    store_all(managers, &mut merged);
    Ok(merged)
}

fn refuse(conflicts: &[(String, String)]) -> Refusal {
    let causes = conflicts
        .iter()
        .map(|(manager, path)| StatusCause {
            reason: "FieldManagerConflict".into(),
            message: format!("conflict with {manager}"),
            field: path.clone(),
        })
        .collect();
    let message = if let [(manager, path)] = conflicts {
        format!("Apply failed with 1 conflict: conflict with {manager}: {path}")
    } else {
        let mut sorted = conflicts.to_vec();
        sorted.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut lines = Vec::new();
        for (at, (manager, path)) in sorted.iter().enumerate() {
            if at == 0 || sorted[at - 1].0 != *manager {
                lines.push(format!("conflicts with {manager}:"));
            }
            lines.push(format!("- {path}"));
        }
        format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
    };
    status::apply_conflict(message, causes)
}

/// Nobody owns what identifies an object, what only the server writes, nor what the request cannot reach.
fn strip(target: &Target, set: &mut FieldSet) {
    if target.sub != Sub::Status && target.version().is_some_and(|version| version.status) {
        set.cut(&["f:status"]);
    }
    set.cut(&["f:apiVersion"]);
    set.cut(&["f:kind"]);
    for field in [
        "f:name",
        "f:namespace",
        "f:creationTimestamp",
        "f:selfLink",
        "f:uid",
        "f:generation",
        "f:managedFields",
        "f:resourceVersion",
        "f:deletionTimestamp",
        "f:deletionGracePeriodSeconds",
    ] {
        set.cut(&["f:metadata", field]);
    }
    set.unmark(&[]);
    set.unmark(&["f:metadata"]);
}

/// One entry of managedFields.
#[derive(Clone, Debug)]
struct Entry {
    manager: String,
    operation: String,
    api_version: String,
    time: String,
    subresource: String,
    fields: FieldSet,
}

impl Entry {
    fn by_update(target: &Target, options: &WriteOptions) -> Self {
        Self {
            manager: options.manager.clone(),
            operation: "Update".into(),
            api_version: target.resource.api_version(&target.version),
            time: options.timestamp(),
            subresource: target.sub.name().to_owned(),
            fields: FieldSet::default(),
        }
    }

    fn all(object: &Value) -> Vec<Self> {
        object["metadata"]["managedFields"].as_array().into_iter().flatten().map(Self::read).collect()
    }

    fn read(entry: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            manager: text(&entry["manager"]),
            operation: text(&entry["operation"]),
            api_version: text(&entry["apiVersion"]),
            time: text(&entry["time"]),
            subresource: text(&entry["subresource"]),
            fields: FieldSet::from_value(&entry["fieldsV1"]),
        }
    }

    /// Whether an entry is of the same update's manager.
    fn wrote(&self, entry: &Value) -> bool {
        entry["manager"] == *self.manager
            && entry["operation"] == *self.operation
            && entry["subresource"].as_str().unwrap_or_default() == self.subresource
            && entry["apiVersion"] == *self.api_version
    }

    /// Appliers are told apart by name, updaters by the version they use as well.
    fn is_by_same(&self, other: &Self) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == "Apply" || self.api_version == other.api_version)
    }

    fn shown(&self) -> String {
        let mut shown = format!("\"{}\"", self.manager);
        if !self.subresource.is_empty() {
            shown.push_str(&format!(" with subresource \"{}\"", self.subresource));
        }
        if self.operation == "Update" {
            shown.push_str(&format!(" using {}", self.api_version));
        }
        shown
    }

    fn to_value(&self) -> Value {
        let mut entry = json!({
            "manager": self.manager,
            "operation": self.operation,
            "apiVersion": self.api_version,
            "time": self.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.to_value(),
        });
        if !self.subresource.is_empty() {
            entry["subresource"] = self.subresource.as_str().into();
        }
        entry
    }
}

fn store_all(managers: Vec<Entry>, object: &mut Value) {
    store(managers.iter().filter(|entry| !entry.fields.is_empty()).map(Entry::to_value).collect(), object);
}

fn store(mut entries: Vec<Value>, object: &mut Value) {
    let key = |entry: &Value| ["operation", "time", "manager"].map(|field| entry[field].as_str().map(str::to_owned));
    if entries.len() > 1 {
        entries.sort_by_cached_key(key);
    }
    let meta = metadata(object);
    if entries.is_empty() {
        meta.remove("managedFields");
    } else {
        meta.insert("managedFields".into(), entries.into());
    }
}

impl Target {
    /// The shape of the target's objects; of those without a schema, the shape of everything.
    fn schema(&self) -> std::sync::Arc<Schema> {
        self.version().and_then(|version| version.schema.clone()).unwrap_or_else(Schema::anything)
    }
}
