//! The JSON that Go would write for a template: the text that Argo Rollouts hashes.
//!
//! Go decodes into structs and writes those back: fields in the order of their declaration, unknown ones gone, some
//! empty ones left out and others not. The table of the structs is generated (`e2e/oracle/podtemplate`) from the k8s.io/api
//! version that Argo Rollouts 1.9 is built with.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use jiff::Timestamp;
use serde_json::Value;

use super::quantity::Quantity;

pub(super) const GO_TYPES: &str = include_str!("go_types.json");

/// What varies in the writing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Style {
    /// Libraries before 0.34 wrote a zero time as null instead of leaving it out.
    pub(super) zero_times: bool,
    /// Equal values become equal texts: quantities by value, an empty list as none.
    pub(super) by_value: bool,
}

/// What encoding/json does with a Go type.
#[derive(Debug)]
pub(super) enum Kind {
    String,
    Bool,
    Int,
    IntOrString,
    Quantity,
    Time,
    Raw,
    Struct(usize),
    Pointer(Box<Kind>),
    List(Box<Kind>),
    Map(Box<Kind>),
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    omit_empty: bool,
    omit_zero: bool,
}

#[derive(Debug)]
pub(super) struct Struct {
    pub(super) name: &'static str,
    pub(super) fields: Vec<Field>,
}

pub(super) struct Types {
    structs: Vec<Struct>,
    pod_template: Kind,
}

/// Every struct that a PodTemplateSpec consists of.
pub(super) static TYPES: LazyLock<Types> = LazyLock::new(Types::load);

/// `template` as Go would write it.
pub(super) fn encode(template: &Value, style: Style) -> Vec<u8> {
    let mut writer = Writer { out: Vec::with_capacity(1024), style };
    writer.value(&TYPES.pod_template, Some(template));
    writer.out
}

impl Types {
    pub(super) fn pod_template(&self) -> &Kind {
        &self.pod_template
    }

    pub(super) fn get(&self, index: usize) -> &Struct {
        &self.structs[index]
    }

    fn load() -> Self {
        // The table is part of this program, and a test loads it.
        let table: BTreeMap<&'static str, Vec<&'static str>> = serde_json::from_str(GO_TYPES).expect("a valid table");
        let index_of = |name: &str| table.keys().position(|key| *key == name).expect("a type of the table");
        let structs = table
            .iter()
            .map(|(name, fields)| Struct {
                name,
                fields: fields.iter().map(|text| Field::read(text, &index_of)).collect(),
            })
            .collect();
        Self { structs, pod_template: Kind::Struct(index_of("PodTemplateSpec")) }
    }
}

impl Field {
    fn read(text: &'static str, index_of: &impl Fn(&str) -> usize) -> Self {
        let mut words = text.split(' ');
        let (name, kind) = words.next().zip(words.next()).expect("a name and a kind");
        let flags = words.next().unwrap_or_default();
        let kind = Kind::read(kind, index_of);
        Self { name, kind, omit_empty: flags.contains('o'), omit_zero: flags.contains('z') }
    }
}

impl Kind {
    fn read(text: &str, index_of: &impl Fn(&str) -> usize) -> Self {
        let inner = |text| Box::new(Self::read(text, index_of));
        if let Some(text) = text.strip_prefix('*') {
            return Self::Pointer(inner(text));
        }
        if let Some(text) = text.strip_prefix("[]") {
            return Self::List(inner(text));
        }
        if let Some(text) = text.strip_prefix("{}") {
            return Self::Map(inner(text));
        }
        match text {
            "string" => Self::String,
            "bool" => Self::Bool,
            "int32" | "int64" => Self::Int,
            "intOrString" => Self::IntOrString,
            "quantity" => Self::Quantity,
            "time" => Self::Time,
            "raw" => Self::Raw,
            name => Self::Struct(index_of(name)),
        }
    }

    /// Whether `value` can be decoded into this type. What cannot is as good as not written: the API server's schema
    /// refuses it before it gets here.
    fn accepts(&self, value: &Value) -> bool {
        match self {
            Self::Pointer(inner) => inner.accepts(value),
            Self::String | Self::Time => value.is_string(),
            Self::Bool => value.is_boolean(),
            Self::Int => integer(value).is_some(),
            Self::IntOrString => value.is_string() || integer(value).is_some(),
            Self::Quantity => quantity(value).is_some(),
            Self::Raw => !value.is_null(),
            Self::Struct(_) | Self::Map(_) => value.is_object(),
            Self::List(_) => value.is_array(),
        }
    }

    /// Why a value that is not null cannot be decoded into this type.
    pub(super) fn refusal(&self, value: &Value) -> Option<String> {
        if self.accepts(value) {
            return None;
        }
        Some(match self {
            Self::Pointer(inner) => return inner.refusal(value),
            Self::String | Self::Time | Self::Raw => "must be a string".to_owned(),
            Self::Bool => "must be true or false".to_owned(),
            Self::Int => "must be an integer".to_owned(),
            Self::IntOrString => "must be an integer or a string".to_owned(),
            Self::Quantity => match value.as_str().map(Quantity::parse) {
                Some(Err(error)) => error.to_string(),
                _ => "must be a quantity".to_owned(),
            },
            Self::Struct(_) | Self::Map(_) => "must be an object".to_owned(),
            Self::List(_) => "must be a list".to_owned(),
        })
    }

    fn is_empty(&self, value: Option<&Value>) -> bool {
        match (self, value) {
            (Self::Struct(_) | Self::Quantity | Self::Time | Self::Raw | Self::IntOrString, _) => false,
            (_, None) => true,
            (Self::Pointer(_), Some(_)) => false,
            (_, Some(Value::String(text))) => text.is_empty(),
            (_, Some(Value::Array(list))) => list.is_empty(),
            (_, Some(Value::Object(map))) => map.is_empty(),
            (_, Some(Value::Bool(value))) => !value,
            (_, Some(value)) => integer(value) == Some(0),
        }
    }
}

struct Writer {
    out: Vec<u8>,
    style: Style,
}

impl Writer {
    /// `None` is the type's zero value.
    fn value(&mut self, kind: &Kind, value: Option<&Value>) {
        let value = value.filter(|value| kind.accepts(value));
        match kind {
            Kind::Pointer(inner) => match value {
                Some(value) => self.value(inner, Some(value)),
                None => self.text("null"),
            },
            Kind::String => self.string(value.and_then(Value::as_str).unwrap_or_default()),
            Kind::Bool => self.text(if value == Some(&Value::Bool(true)) { "true" } else { "false" }),
            Kind::Int => self.text(&value.and_then(integer).unwrap_or_default().to_string()),
            Kind::IntOrString => match value.and_then(Value::as_str) {
                Some(text) => self.string(text),
                None => self.text(&value.and_then(integer).unwrap_or_default().to_string()),
            },
            Kind::Quantity => {
                let quantity = value.and_then(quantity).unwrap_or(Quantity::ZERO);
                self.string(&if self.style.by_value { quantity.value_text() } else { quantity.text() });
            }
            Kind::Time => match value.and_then(Value::as_str).and_then(|text| text.parse::<Timestamp>().ok()) {
                Some(time) => self.string(&time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
                None => self.text("null"),
            },
            Kind::Raw => self.text(&value.map_or("null".to_owned(), Value::to_string)),
            Kind::List(inner) => match value.and_then(Value::as_array) {
                Some(list) if !(list.is_empty() && self.style.by_value) => {
                    self.separated('[', ']', list, |writer, element| writer.value(inner, Some(element)));
                }
                _ => self.text("null"),
            },
            Kind::Map(inner) => match value.and_then(Value::as_object) {
                Some(map) => self.separated('{', '}', map, |writer, (key, element)| {
                    writer.string(key);
                    writer.text(":");
                    writer.value(inner, Some(element));
                }),
                None => self.text("null"),
            },
            Kind::Struct(index) => {
                let fields = TYPES.get(*index).fields.iter().filter_map(|field| {
                    let value = value.and_then(|value| value.get(field.name));
                    let value = value.filter(|value| field.kind.accepts(value));
                    let omitted = (field.omit_empty && field.kind.is_empty(value))
                        || (field.omit_zero && value.is_none() && !self.style.zero_times);
                    (!omitted).then_some((field, value))
                });
                let fields: Vec<_> = fields.collect();
                self.separated('{', '}', fields, |writer, (field, value)| {
                    writer.string(field.name);
                    writer.text(":");
                    writer.value(&field.kind, value);
                });
            }
        }
    }

    fn separated<T>(
        &mut self,
        open: char,
        close: char,
        items: impl IntoIterator<Item = T>,
        write: impl Fn(&mut Self, T),
    ) {
        self.out.push(open as u8);
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.text(",");
            }
            write(self, item);
        }
        self.out.push(close as u8);
    }

    fn text(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn string(&mut self, text: &str) {
        self.text("\"");
        for c in text.chars() {
            match c {
                '"' => self.text("\\\""),
                '\\' => self.text("\\\\"),
                '\x08' => self.text("\\b"),
                '\x0c' => self.text("\\f"),
                '\n' => self.text("\\n"),
                '\r' => self.text("\\r"),
                '\t' => self.text("\\t"),
                '\0'..='\x1f' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                    self.text(&format!("\\u{:04x}", u32::from(c)));
                }
                _ => self.text(c.encode_utf8(&mut [0; 4])),
            }
        }
        self.text("\"");
    }
}

fn integer(value: &Value) -> Option<i64> {
    let number = value.as_number()?;
    // A number that came through a float, as YAML's `80.0`.
    let whole = |float: f64| (float.fract() == 0.0 && float.abs() < 2f64.powi(53)).then_some(float as i64);
    number.as_i64().or_else(|| number.as_f64().and_then(whole))
}

fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text.trim()).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}
