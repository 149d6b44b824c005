//! Pod templates, kept exactly as the user wrote them.
//!
//! A template is opaque JSON: what this program does not know survives it. What it needs to know is read through views
//! ([`PodTemplate::containers`], [`PodTemplate::labels`]), and the few changes it makes (labels, annotations) leave the
//! rest alone.
//!
//! There are three templates in memory for each Rollout, so they are kept as text: parsed, the same JSON takes more than ten
//! times the memory. What every decision asks of a template is kept beside it, once it has been asked for.

mod defaults;
mod equality;
mod go_json;
mod image;
pub mod names;
mod quantity;
mod resources;
mod schema;
#[cfg(test)]
mod tests;
mod validation;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use self::go_json::Style;
use super::field_error::FieldError;

pub use self::equality::semantically_equal;
pub use self::schema::{job_spec_schema, pod_template_schema};

/// A core/v1 PodTemplateSpec. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PodTemplate(Arc<Kept>);

#[derive(Debug)]
struct Kept {
    /// JSON, with sorted keys and without spaces.
    text: Box<str>,
    labels: OnceLock<BTreeMap<String, String>>,
    annotations: OnceLock<BTreeMap<String, String>>,
    /// As Argo Rollouts 1.9 computes it, without collisions.
    hash: OnceLock<String>,
    errors: OnceLock<Vec<FieldError>>,
}

/// What a template says about one container.
#[derive(Clone, Debug, PartialEq)]
pub struct Container(Value);

/// A port that a container names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerPort<'a> {
    pub name: Option<&'a str>,
    /// As written, so possibly out of range.
    pub container_port: i64,
    /// `TCP` unless written.
    pub protocol: &'a str,
}

/// Which library wrote the JSON that a hash is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashForm {
    /// Argo Rollouts 1.9 and later.
    Current,
    /// Argo Rollouts 1.8 and earlier: every metadata starts with `"creationTimestamp":null`. A template with fields that
    /// Kubernetes got after that release hashes differently there, because the release did not know them.
    Until1_8,
}

/// What two templates may differ in and still be the same revision.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ignoring<'a> {
    /// The metadata that was injected into the ReplicaSet's template, from its annotation.
    pub ephemeral_labels: Option<&'a BTreeMap<String, String>>,
    pub ephemeral_annotations: Option<&'a BTreeMap<String, String>>,
}

impl PodTemplate {
    /// Null: the user wrote no template.
    pub fn is_absent(&self) -> bool {
        &*self.0.text == "null"
    }

    /// The template, parsed anew.
    pub fn to_value(&self) -> Value {
        // The text was written from a value, and is never changed.
        serde_json::from_str(&self.0.text).expect("the text of a value")
    }

    pub fn labels(&self) -> &BTreeMap<String, String> {
        self.0.labels.get_or_init(|| self.metadata_map("labels"))
    }

    pub fn annotations(&self) -> &BTreeMap<String, String> {
        self.0.annotations.get_or_init(|| self.metadata_map("annotations"))
    }

    pub fn containers(&self) -> impl Iterator<Item = Container> {
        self.container_list("containers")
    }

    pub fn init_containers(&self) -> impl Iterator<Item = Container> {
        self.container_list("initContainers")
    }

    /// Whether there may be rules that keep pods apart; a look at the text, much cheaper than at the rules.
    pub fn may_have_anti_affinity(&self) -> bool {
        self.0.text.contains("\"podAntiAffinity\"")
    }

    /// This template with one label more (or with another value).
    #[must_use]
    pub fn with_label(&self, key: &str, value: &str) -> Self {
        self.with_metadata(&BTreeMap::from([(key.to_owned(), value.to_owned())]), &BTreeMap::new())
    }

    /// This template with `labels` and `annotations` added; they win over what is there.
    #[must_use]
    pub fn with_metadata(&self, labels: &BTreeMap<String, String>, annotations: &BTreeMap<String, String>) -> Self {
        let mut template = self.to_value();
        for (field, added) in [("labels", labels), ("annotations", annotations)] {
            if added.is_empty() {
                continue;
            }
            let metadata = object(&mut template).entry("metadata").or_insert(Value::Null);
            let map = object(object(metadata).entry(field).or_insert(Value::Null));
            map.extend(added.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))));
        }
        template.into()
    }

    /// This template without one label.
    #[must_use]
    pub fn without_label(&self, key: &str) -> Self {
        self.without_metadata([key], [])
    }

    /// This template without these labels and annotations. A map that becomes empty goes too.
    #[must_use]
    pub fn without_metadata<'a>(
        &self,
        labels: impl IntoIterator<Item = &'a str>,
        annotations: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let mut template = self.to_value();
        if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
            remove_keys(metadata, "labels", labels);
            remove_keys(metadata, "annotations", annotations);
        }
        template.into()
    }

    /// The value of the label that marks this template's revision, as Argo Rollouts 1.9 computes it.
    pub fn hash(&self, collision_count: Option<i32>) -> String {
        let plain = || self.hash_as(HashForm::Current, None);
        match collision_count {
            None => self.0.hash.get_or_init(plain).clone(),
            Some(_) => self.hash_as(HashForm::Current, collision_count),
        }
    }

    pub fn hash_as(&self, form: HashForm, collision_count: Option<i32>) -> String {
        let style = Style { zero_times: form == HashForm::Until1_8, ..Style::default() };
        fnv_hash(&go_json::encode(&self.to_value(), style), collision_count)
    }

    /// The template as the API server would store it inside a ReplicaSet: with every default of core/v1.
    pub fn defaulted(&self) -> Value {
        defaults::defaulted(&self.to_value())
    }

    /// What core/v1 would refuse in this template. Paths are relative to the template (`spec.containers[0].image`).
    pub fn validate(&self) -> &[FieldError] {
        self.0.errors.get_or_init(|| validation::validate(&self.to_value()))
    }

    /// The paths of fields that Kubernetes 1.34 does not know: spelling mistakes, or fields of a later version. They are
    /// not part of the hash, and the API server drops them.
    pub fn unknown_fields(&self) -> Vec<String> {
        validation::unknown_fields(&self.to_value())
    }

    fn metadata_map(&self, field: &str) -> BTreeMap<String, String> {
        match self.to_value().pointer_mut(&format!("/metadata/{field}")).map(Value::take) {
            Some(Value::Object(map)) => {
                map.into_iter().filter_map(|(key, value)| Some((key, value.as_str()?.to_owned()))).collect()
            }
            _ => BTreeMap::new(),
        }
    }

    fn container_list(&self, field: &str) -> impl Iterator<Item = Container> {
        let list = match self.to_value().pointer_mut(&format!("/spec/{field}")).map(Value::take) {
            Some(Value::Array(list)) => list,
            _ => Vec::new(),
        };
        list.into_iter().map(Container)
    }
}

impl Container {
    /// Empty if missing.
    pub fn name(&self) -> &str {
        self.0.get("name").and_then(Value::as_str).unwrap_or_default()
    }

    /// Empty if missing.
    pub fn image(&self) -> &str {
        self.0.get("image").and_then(Value::as_str).unwrap_or_default()
    }

    pub fn ports(&self) -> impl Iterator<Item = ContainerPort<'_>> {
        self.0.get("ports").and_then(Value::as_array).into_iter().flatten().map(|port| ContainerPort {
            name: port.get("name").and_then(Value::as_str).filter(|name| !name.is_empty()),
            container_port: port.get("containerPort").and_then(Value::as_i64).unwrap_or_default(),
            protocol: port.get("protocol").and_then(Value::as_str).filter(|name| !name.is_empty()).unwrap_or("TCP"),
        })
    }

    /// All of the container, as written.
    pub fn as_value(&self) -> &Value {
        &self.0
    }
}

/// FNV-1a of `bytes`, then of the collision count if there is one, in an alphabet without vowels.
pub fn fnv_hash(bytes: &[u8], collision_count: Option<i32>) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let fnv1a = |sum: u32, byte: &u8| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let mut sum = bytes.iter().fold(0x811c_9dc5, fnv1a);
    if let Some(count) = collision_count {
        // The count as four bytes of a buffer of eight.
        sum = count.to_le_bytes().iter().chain(&[0; 4]).fold(sum, fnv1a);
    }
    // A digit's byte, not its value, is what counts.
    sum.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    // It was one, or was made one above.
    value.as_object_mut().expect("an object")
}

fn remove_keys<'a>(metadata: &mut Map<String, Value>, field: &str, keys: impl IntoIterator<Item = &'a str>) {
    let Some(map) = metadata.get_mut(field).and_then(Value::as_object_mut) else { return };
    for key in keys {
        map.remove(key);
    }
    if map.is_empty() {
        metadata.remove(field);
    }
}

impl PartialEq for PodTemplate {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text
    }
}

impl Default for PodTemplate {
    fn default() -> Self {
        Value::Null.into()
    }
}

impl From<Value> for PodTemplate {
    fn from(value: Value) -> Self {
        Self(Arc::new(Kept {
            text: value.to_string().into(),
            labels: OnceLock::new(),
            annotations: OnceLock::new(),
            hash: OnceLock::new(),
            errors: OnceLock::new(),
        }))
    }
}

impl Serialize for PodTemplate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_value().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PodTemplate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self::from)
    }
}

impl JsonSchema for PodTemplate {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "PodTemplate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // A constant of this program, which a test walks through.
        Schema::try_from(pod_template_schema()).expect("an object")
    }
}
