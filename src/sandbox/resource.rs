//! What the server serves: one entry a resource, with its versions and subresources.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::schema::Schema;

/// A kind of object that the server stores and serves.
///
/// Its key names it everywhere in the sandbox, in kubectl's notation: `pods`, `replicasets.apps`,
/// `rollouts.argoproj.io`.
#[derive(Clone, Debug)]
pub struct Resource {
    /// `plural.group`, or the plural alone for the core group.
    pub key: Arc<str>,
    /// The API group, empty for the core group.
    pub group: String,
    /// The kind of one object.
    pub kind: String,
    /// The kind of a list of objects.
    pub list_kind: String,
    /// The name in paths.
    pub plural: String,
    /// The name that kubectl prints and accepts for one object.
    pub singular: String,
    /// Abbreviations that kubectl accepts.
    pub short_names: Vec<String>,
    /// Groups of resources that kubectl accepts, such as `all`.
    pub categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Whether a CustomResourceDefinition made it.
    pub custom: bool,
    /// The served versions, the preferred one first.
    pub versions: Vec<Version>,
    /// The version that objects are stored in.
    pub storage: String,
    /// The collection that holds the objects: the key, unless two groups serve the same objects.
    pub collection: Arc<str>,
    /// What built-in code must know of this kind.
    pub traits: Traits,
    /// What was stored after this revision has this shape.
    pub(super) since: u64,
}

/// One served version of a resource.
#[derive(Clone, Debug)]
pub struct Version {
    /// Such as `v1alpha1`.
    pub name: String,
    /// Whether `/status` is served.
    pub status: bool,
    /// Where `/scale` finds its fields, if it is served.
    pub scale: Option<Scale>,
    /// The shape of an object.
    pub(super) schema: Option<Arc<Schema>>,
    /// The schema as a CustomResourceDefinition's author wrote it, for OpenAPI.
    pub(super) published: Option<Arc<Value>>,
    /// The columns that `kubectl get` shows.
    pub(super) columns: Vec<Column>,
}

/// The paths of a scale subresource, as JSON pointers.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    /// The wanted replicas.
    pub spec_replicas: String,
    /// The observed replicas.
    pub status_replicas: String,
    /// The label selector, as a string or as a LabelSelector.
    pub selector: Option<String>,
}

/// A column of `kubectl get`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) format: String,
    pub(super) description: String,
    pub(super) priority: i64,
    pub(super) path: String,
}

/// How a built-in kind differs from a custom one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traits {
    /// `metadata.generation` counts changes of the spec.
    pub generation: bool,
    /// An update without resourceVersion is accepted.
    pub unconditional_update: bool,
    /// A deletion answers with the object instead of a Status.
    pub returns_deleted: bool,
    /// A deletion orphans the dependents unless told otherwise.
    pub orphans: bool,
    /// The same objects under the names that `events.k8s.io` gives to their fields.
    pub events_view: bool,
}

impl Resource {
    /// `plural.group` as error messages print it.
    pub(super) fn qualified(&self) -> &str {
        &self.key
    }

    /// `Kind.group` as error messages print it.
    pub(super) fn qualified_kind(&self) -> String {
        if self.group.is_empty() { self.kind.clone() } else { format!("{}.{}", self.kind, self.group) }
    }

    /// `group/version`, or the version alone for the core group.
    pub(super) fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() { version.to_owned() } else { format!("{}/{version}", self.group) }
    }

    pub(super) fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.name == name)
    }

    /// Whether a stored object has all defaults and nothing unknown: the schema may have become another one since.
    pub(super) fn has_shaped(&self, object: &Value) -> bool {
        let version = object["metadata"]["resourceVersion"].as_str().and_then(|version| version.parse::<u64>().ok());
        version.is_some_and(|version| version > self.since)
    }

    /// The version that objects are stored in, or the preferred one when that is not served.
    pub(super) fn stored(&self) -> Option<&Version> {
        self.version(&self.storage).or(self.versions.first())
    }

    /// A stored object as this version shows it.
    pub(super) fn present(&self, version: &str, object: &Arc<Value>) -> Arc<Value> {
        let as_stored = version == self.storage && !self.traits.events_view;
        if as_stored { object.clone() } else { Arc::new(self.converted_out(version, (**object).clone())) }
    }

    fn converted_out(&self, version: &str, mut object: Value) -> Value {
        if self.traits.events_view {
            rename(&mut object, &EVENT_FIELDS);
        }
        if let Value::Object(fields) = &mut object {
            self.stamp(version, fields);
        }
        object
    }

    /// An object of this version as it is stored.
    pub(super) fn to_storage(&self, mut object: Value) -> Value {
        if self.traits.events_view {
            rename(&mut object, &EVENT_FIELDS.map(|(core, events)| (events, core)));
            object["apiVersion"] = "v1".into();
            object["kind"] = "Event".into();
        } else if let Value::Object(fields) = &mut object {
            self.stamp(&self.storage, fields);
        }
        object
    }

    /// Writes the type of an object into it, unless it is there.
    pub(super) fn stamp(&self, version: &str, fields: &mut Map<String, Value>) {
        let api_version = self.api_version(version);
        for (field, value) in [("apiVersion", &api_version), ("kind", &self.kind)] {
            if fields.get(field).and_then(Value::as_str) != Some(value) {
                fields.insert(field.to_owned(), value.as_str().into());
            }
        }
    }
}

/// The fields of an Event under their core names and their `events.k8s.io` names.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn rename(object: &mut Value, names: &[(&str, &str)]) {
    let Value::Object(fields) = object else { return };
    for (from, to) in names {
        if let Some(value) = fields.remove(*from) {
            fields.insert((*to).to_owned(), value);
        }
    }
}
