//! Structural schemas: the shape of an object, read once from JSON, used to prune, default, validate and merge.

mod builtin;
mod check;
mod shape;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use regex::Regex;
use serde_json::Value;

pub(super) use builtin::{definitions, of_kind};
pub(super) use check::check;
pub(super) use shape::{prune, set_defaults};

/// The shape of a value.
#[derive(Clone, Debug, Default)]
pub(super) struct Schema {
    pub(super) kind: Kind,
    pub(super) nullable: bool,
    /// Unknown fields are kept.
    pub(super) open: bool,
    /// There are rules in CEL, here or below; set on whole custom resources.
    pub(super) has_rules: bool,
    /// A whole object with apiVersion, kind and metadata of its own.
    pub(super) embedded: bool,
    pub(super) properties: BTreeMap<String, Arc<Schema>>,
    /// The shape of the values of a map.
    pub(super) values: Option<Arc<Schema>>,
    pub(super) items: Option<Arc<Schema>>,
    pub(super) list: List,
    /// The fields of this object have one owner, as a whole.
    pub(super) atomic: bool,
    pub(super) required: Vec<String>,
    pub(super) default: Option<Value>,
    /// Bounds and enumerations; boxed, since most values have none.
    pub(super) bounds: Option<Box<Bounds>>,
}

/// The JSON type of a value.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Kind {
    #[default]
    Any,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    IntOrString,
}

/// Who owns the items of a list, and how patches find them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum List {
    /// The list has one owner, and a patch replaces it.
    #[default]
    Atomic,
    /// Each value has its own owner.
    Set,
    /// Each item has its own owner; these fields tell items apart.
    Map(Vec<String>),
}

/// What a value must satisfy beyond its type.
#[derive(Clone, Debug, Default)]
pub(super) struct Bounds {
    pub(super) allowed: Vec<Value>,
    pub(super) minimum: Option<(f64, bool)>,
    pub(super) maximum: Option<(f64, bool)>,
    pub(super) min_length: Option<usize>,
    pub(super) max_length: Option<usize>,
    pub(super) pattern: Option<Pattern>,
    pub(super) min_items: Option<usize>,
    pub(super) max_items: Option<usize>,
    pub(super) min_properties: Option<usize>,
    pub(super) max_properties: Option<usize>,
    pub(super) multiple_of: Option<f64>,
    /// An instant as in RFC 3339.
    pub(super) date_time: bool,
    /// Messages of the rules that say that the value never changes.
    pub(super) immutable: Vec<String>,
    pub(super) forms: Forms,
}

/// Schemas that a value must satisfy all, some, one or none of.
#[derive(Clone, Debug, Default)]
pub(super) struct Forms {
    pub(super) all: Vec<Schema>,
    pub(super) any: Vec<Schema>,
    pub(super) one: Vec<Schema>,
    pub(super) not: Option<Box<Schema>>,
}

/// A regular expression, compiled when it is first needed: most of a large definition's never are.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    text: String,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    fn new(text: &str) -> Self {
        Self { text: text.to_owned(), compiled: OnceLock::new() }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether a text matches somewhere. A pattern that cannot be compiled matches everything.
    pub(super) fn matches(&self, text: &str) -> bool {
        let compiled = self.compiled.get_or_init(|| Regex::new(&self.text).ok());
        compiled.as_ref().is_none_or(|regex| regex.is_match(text))
    }
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Any => "",
            Kind::Object => "object",
            Kind::Array => "array",
            Kind::String => "string",
            Kind::Integer => "integer",
            Kind::Number => "number",
            Kind::Boolean => "boolean",
            Kind::IntOrString => "integer,string",
        }
    }
}

impl Schema {
    /// Reads a custom resource's schema. The whole object's own fields (apiVersion, kind, metadata) are added.
    pub(super) fn custom(json: &Value) -> Self {
        let mut schema = Self::read(json, &mut |_| None);
        schema.kind = Kind::Object;
        schema.has_rules = has_rules(json);
        schema.wrap();
        schema
    }

    /// The shape of everything: nothing is known, nothing is refused.
    pub(super) fn anything() -> Arc<Schema> {
        static ANYTHING: OnceLock<Arc<Schema>> = OnceLock::new();
        ANYTHING.get_or_init(|| Arc::new(Schema { open: true, ..Schema::default() })).clone()
    }

    /// Gives a whole object the fields that every object has.
    fn wrap(&mut self) {
        let string = Arc::new(Schema { kind: Kind::String, ..Schema::default() });
        self.properties.insert("apiVersion".into(), string.clone());
        self.properties.insert("kind".into(), string);
        self.properties.insert("metadata".into(), builtin::object_meta());
    }

    /// Reads JSON schema; `refer` resolves a `$ref`.
    fn read(json: &Value, refer: &mut dyn FnMut(&str) -> Option<Arc<Schema>>) -> Self {
        let flag = |key: &str| json[key] == true;
        let kind = match json["type"].as_str() {
            _ if flag("x-kubernetes-int-or-string") => Kind::IntOrString,
            Some("object") => Kind::Object,
            Some("array") => Kind::Array,
            Some("string") => Kind::String,
            Some("integer") => Kind::Integer,
            Some("number") => Kind::Number,
            Some("boolean") => Kind::Boolean,
            _ => Kind::Any,
        };
        let properties: BTreeMap<String, Arc<Schema>> = json["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, property)| (name.clone(), Self::read_ref(property, refer)))
            .collect();
        let values = match &json["additionalProperties"] {
            Value::Object(_) => Some(Self::read_ref(&json["additionalProperties"], refer)),
            Value::Bool(true) => Some(Self::anything()),
            _ => None,
        };
        let keys = || texts(&json["x-kubernetes-list-map-keys"]);
        let list = match json["x-kubernetes-list-type"].as_str() {
            Some("map") => List::Map(keys()),
            Some("set") => List::Set,
            _ => List::Atomic,
        };
        let mut schema = Self {
            nullable: flag("nullable"),
            open: flag("x-kubernetes-preserve-unknown-fields") || kind == Kind::Any,
            embedded: flag("x-kubernetes-embedded-resource"),
            has_rules: false,
            items: json["items"].is_object().then(|| Self::read_ref(&json["items"], refer)),
            list,
            atomic: json["x-kubernetes-map-type"] == "atomic",
            required: texts(&json["required"]),
            default: json.get("default").cloned(),
            bounds: Bounds::read(json),
            kind,
            properties,
            values,
        };
        if schema.embedded {
            schema.wrap();
        }
        schema
    }

    fn read_ref(json: &Value, refer: &mut dyn FnMut(&str) -> Option<Arc<Schema>>) -> Arc<Schema> {
        match json["$ref"].as_str() {
            Some(name) => refer(name).unwrap_or_else(Self::anything),
            None => Arc::new(Self::read(json, refer)),
        }
    }

    /// The shape of a field of an object or a map.
    pub(super) fn field(&self, name: &str) -> Option<&Arc<Schema>> {
        self.properties.get(name).or(self.values.as_ref())
    }
}

impl Forms {
    fn is_empty(&self) -> bool {
        self.all.is_empty() && self.any.is_empty() && self.one.is_empty() && self.not.is_none()
    }
}

impl Bounds {
    fn read(json: &Value) -> Option<Box<Self>> {
        let size = |key: &str| json[key].as_u64().and_then(|size| usize::try_from(size).ok());
        let limit = |key: &str, exclusive: &str| Some((json[key].as_f64()?, json[exclusive] == true));
        let rules = json["x-kubernetes-validations"].as_array().into_iter().flatten();
        let immutable = rules.filter(|rule| {
            let text = rule["rule"].as_str().unwrap_or_default();
            let plain: String = text.chars().filter(|c| !c.is_whitespace()).collect();
            plain == "self==oldSelf"
        });
        // What is referred to in them has no meaning of its own here.
        let forms = |key: &str| -> Vec<Schema> {
            let all = json[key].as_array().into_iter().flatten();
            all.map(|form| Schema::read(form, &mut |_| None)).collect()
        };
        let forms = Forms {
            all: forms("allOf"),
            any: forms("anyOf"),
            one: forms("oneOf"),
            not: json["not"].is_object().then(|| Box::new(Schema::read(&json["not"], &mut |_| None))),
        };
        let bounds = Self {
            multiple_of: json["multipleOf"].as_f64(),
            date_time: json["format"] == "date-time",
            allowed: json["enum"].as_array().cloned().unwrap_or_default(),
            minimum: limit("minimum", "exclusiveMinimum"),
            maximum: limit("maximum", "exclusiveMaximum"),
            min_length: size("minLength"),
            max_length: size("maxLength"),
            pattern: json["pattern"].as_str().map(Pattern::new),
            min_items: size("minItems"),
            max_items: size("maxItems"),
            min_properties: size("minProperties"),
            max_properties: size("maxProperties"),
            immutable: immutable
                .map(|rule| rule["message"].as_str().unwrap_or("failed rule: self == oldSelf").to_owned())
                .collect(),
            forms,
        };
        let any = !bounds.allowed.is_empty()
            || bounds.minimum.is_some()
            || bounds.maximum.is_some()
            || bounds.min_length.is_some()
            || bounds.max_length.is_some()
            || bounds.pattern.is_some()
            || bounds.min_items.is_some()
            || bounds.max_items.is_some()
            || bounds.min_properties.is_some()
            || bounds.max_properties.is_some()
            || bounds.multiple_of.is_some()
            || bounds.date_time
            || !bounds.immutable.is_empty()
            || !bounds.forms.is_empty();
        any.then(|| Box::new(bounds))
    }
}

fn has_rules(json: &Value) -> bool {
    match json {
        Value::Object(fields) => {
            fields.iter().any(|(name, value)| name == "x-kubernetes-validations" || has_rules(value))
        }
        Value::Array(items) => items.iter().any(has_rules),
        _ => false,
    }
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(Into::into)).collect()
}

/// Where a value is in its object. Printed only when something is wrong there.
#[derive(Clone, Copy)]
pub(super) enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl std::fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field(Path::Root, name) => f.write_str(name),
            Path::Field(parent, name) => write!(f, "{parent}.{name}"),
            Path::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}
