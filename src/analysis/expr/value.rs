//! The values of the language, with the distinctions that Go makes and its messages show.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use jiff::Zoned;
use jiff::tz::TimeZone;

use super::budget::{Budget, TOO_DEEP};
use super::functions::EnvFunction;
use crate::api::duration::GoDuration;

/// A value: a metric's result, or what an expression yields.
///
/// Cheap to clone. All numbers of a JSON document are floats, as in Go.
#[derive(Debug, Clone)]
pub enum Value {
    Nil,
    Bool(bool),
    Int(i64),
    /// May be NaN or infinite.
    Float(f64),
    String(Arc<str>),
    List(Arc<List>),
    Map(Arc<Map>),
    Time(Arc<Zoned>),
    Duration(GoDuration),
    Zone(TimeZone),
    Function(EnvFunction),
}

/// A Go slice: the element type shows in messages and in what the type check knows.
#[derive(Debug)]
pub struct List {
    pub(super) slice: Slice,
    pub(super) items: Vec<Value>,
    depth: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slice {
    /// `[]any`
    Any,
    /// `[]int`
    Ints,
    /// `[]float64`
    Floats,
    /// `[]string`
    Strings,
    /// `[]byte`; the items are [`Value::Int`]
    Bytes,
    /// `[][2]any`
    Pairs,
}

#[derive(Debug)]
pub struct Map {
    pub(super) kind: MapKind,
    pub(super) entries: BTreeMap<Key, Value>,
    depth: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MapKind {
    /// `map[string]any`
    Strings,
    /// `map[any]any`
    Any,
    /// `map[any][]any`
    Groups,
}

/// A key of a map, in the order in which Go prints them. Floats are kept as their bits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Nil,
    Int(i64),
    Float(FloatKey),
    Bool(bool),
    String(Arc<str>),
    Duration(i64),
    Time(jiff::Timestamp),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct FloatKey(f64);

impl Ord for FloatKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // +0 makes the two zeros one key.
        (self.0 + 0.0).total_cmp(&(other.0 + 0.0))
    }
}

impl PartialOrd for FloatKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for FloatKey {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for FloatKey {}

impl Key {
    /// `None` for what Go cannot hash.
    pub(super) fn of(value: &Value) -> Option<Self> {
        Some(match value {
            Value::Nil => Self::Nil,
            Value::Bool(bool) => Self::Bool(*bool),
            Value::Int(int) => Self::Int(*int),
            Value::Float(float) => Self::Float(FloatKey(*float)),
            Value::String(string) => Self::String(string.clone()),
            Value::Duration(duration) => Self::Duration(duration.as_nanos()),
            Value::Time(time) => Self::Time(time.timestamp()),
            Value::List(_) | Value::Map(_) | Value::Zone(_) | Value::Function(_) => return None,
        })
    }

    pub(super) fn value(&self) -> Value {
        match self {
            Self::Nil => Value::Nil,
            Self::Int(int) => Value::Int(*int),
            Self::Float(FloatKey(float)) => Value::Float(*float),
            Self::Bool(bool) => Value::Bool(*bool),
            Self::String(string) => Value::String(string.clone()),
            Self::Duration(nanos) => Value::Duration(GoDuration::from_nanos(*nanos)),
            Self::Time(time) => Value::Time(Arc::new(time.to_zoned(TimeZone::UTC))),
        }
    }
}

impl Value {
    /// A list of numbers that is typed as such, as Go's Prometheus provider makes it: its elements are known to be floats,
    /// so that `result[0] == "5"` is an error and not false.
    pub fn floats(items: impl IntoIterator<Item = f64>) -> Self {
        Self::list_of(Slice::Floats, items.into_iter().map(Self::Float).collect())
    }

    /// A slice of scalars, which cannot be too deep.
    pub(super) fn list_of(slice: Slice, items: Vec<Value>) -> Self {
        Self::List(Arc::new(List { slice, items, depth: 1 }))
    }

    pub(super) fn string(text: impl AsRef<str>) -> Self {
        Self::String(text.as_ref().into())
    }

    pub(super) fn list(items: Vec<Value>) -> Result<Self, String> {
        Self::list_with(Slice::Any, items)
    }

    pub(super) fn list_with(slice: Slice, items: Vec<Value>) -> Result<Self, String> {
        let depth = deeper(items.iter())?;
        Ok(Self::List(Arc::new(List { slice, items, depth })))
    }

    pub(super) fn map(kind: MapKind, entries: BTreeMap<Key, Value>) -> Result<Self, String> {
        let depth = deeper(entries.values())?;
        Ok(Self::Map(Arc::new(Map { kind, entries, depth })))
    }

    fn depth(&self) -> usize {
        match self {
            Self::List(list) => list.depth,
            Self::Map(map) => map.depth,
            _ => 0,
        }
    }

    /// The Go type, as `%T` prints it.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Nil => "<nil>",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::String(_) => "string",
            Self::List(list) => list.slice.type_name(),
            Self::Map(map) => map.kind.type_name(),
            Self::Time(_) => "time.Time",
            Self::Duration(_) => "time.Duration",
            Self::Zone(_) => "*time.Location",
            Self::Function(function) => function.signature(),
        }
    }

    /// The Go kind, as messages of the reflect package name it.
    pub(super) fn kind_name(&self) -> &'static str {
        match self {
            Self::Nil => "invalid",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::String(_) => "string",
            Self::List(_) => "slice",
            Self::Map(_) => "map",
            Self::Time(_) => "struct",
            Self::Duration(_) => "int64",
            Self::Zone(_) => "ptr",
            Self::Function(_) => "func",
        }
    }

    pub(super) fn is_nil(&self) -> bool {
        matches!(self, Self::Nil)
    }

    /// The number, whatever its type; durations are none.
    pub(super) fn as_number(&self) -> Option<f64> {
        match self {
            Self::Int(int) => Some(*int as f64),
            Self::Float(float) => Some(*float),
            _ => None,
        }
    }

    /// What `%v` prints, charged to the budget.
    pub(super) fn print(&self, budget: &mut Budget) -> Result<String, String> {
        let mut out = String::new();
        self.print_into(&mut out, budget)?;
        Ok(out)
    }

    fn print_into(&self, out: &mut String, budget: &mut Budget) -> Result<(), String> {
        budget.step()?;
        let before = out.len();
        match self {
            Self::Nil => out.push_str("<nil>"),
            Self::Bool(bool) => write_to(out, bool),
            Self::Int(int) => write_to(out, int),
            Self::Float(float) => out.push_str(&print_float(*float)),
            Self::String(string) => out.push_str(string),
            Self::List(list) => {
                out.push('[');
                for (position, item) in list.items.iter().enumerate() {
                    if position > 0 {
                        out.push(' ');
                    }
                    item.print_into(out, budget)?;
                }
                out.push(']');
            }
            Self::Map(map) => {
                out.push_str("map[");
                for (position, (key, value)) in map.entries.iter().enumerate() {
                    if position > 0 {
                        out.push(' ');
                    }
                    key.value().print_into(out, budget)?;
                    out.push(':');
                    value.print_into(out, budget)?;
                }
                out.push(']');
            }
            Self::Time(time) => out.push_str(&super::time::print(time)),
            Self::Duration(duration) => write_to(out, duration),
            Self::Zone(zone) => out.push_str(zone.iana_name().unwrap_or("UTC")),
            Self::Function(function) => out.push_str(function.signature()),
        }
        budget.bytes(out.len() - before)
    }

    /// Whether two values are equal: numbers by value, lists element by element.
    pub(super) fn equals(&self, other: &Self, budget: &mut Budget) -> Result<bool, String> {
        budget.step()?;
        Ok(match (self, other) {
            (Self::Nil, Self::Nil) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Int(_) | Self::Float(_), Self::Int(_) | Self::Float(_)) => self.as_number() == other.as_number(),
            (Self::String(a), Self::String(b)) => {
                budget.scan(a.len().min(b.len()))?;
                a == b
            }
            (Self::Time(a), Self::Time(b)) => a.timestamp() == b.timestamp(),
            (Self::Duration(a), Self::Duration(b)) => a == b,
            (Self::List(a), Self::List(b)) => {
                if a.items.len() != b.items.len() || !a.slice.comparable_with(b.slice) {
                    return Ok(false);
                }
                for (a, b) in a.items.iter().zip(&b.items) {
                    if !a.equals(b, budget)? {
                        return Ok(false);
                    }
                }
                true
            }
            // Maps are compared by reflection: an int is not a float there.
            (Self::Map(_), Self::Map(_)) => self.deep_equals(other, budget)?,
            (Self::Function(a), Self::Function(b)) => a == b,
            (Self::Zone(a), Self::Zone(b)) => a == b,
            _ => false,
        })
    }

    /// Go's `reflect.DeepEqual`.
    fn deep_equals(&self, other: &Self, budget: &mut Budget) -> Result<bool, String> {
        budget.step()?;
        match (self, other) {
            (Self::Int(_), Self::Float(_)) | (Self::Float(_), Self::Int(_)) => Ok(false),
            (Self::List(a), Self::List(b)) => {
                if a.slice != b.slice || a.items.len() != b.items.len() {
                    return Ok(false);
                }
                for (a, b) in a.items.iter().zip(&b.items) {
                    if !a.deep_equals(b, budget)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Self::Map(a), Self::Map(b)) => {
                if a.kind != b.kind || a.entries.len() != b.entries.len() {
                    return Ok(false);
                }
                for ((key_a, a), (key_b, b)) in a.entries.iter().zip(&b.entries) {
                    if key_a != key_b || !a.deep_equals(b, budget)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            _ => self.equals(other, budget),
        }
    }
}

impl Slice {
    pub(super) fn type_name(self) -> &'static str {
        match self {
            Self::Any => "[]interface {}",
            Self::Ints => "[]int",
            Self::Floats => "[]float64",
            Self::Strings => "[]string",
            Self::Bytes => "[]uint8",
            Self::Pairs => "[][2]interface {}",
        }
    }

    /// `[]int` and `[]float64` are never equal in Go, not even when both are empty.
    fn comparable_with(self, other: Self) -> bool {
        self == other || (self == Self::Any && other != Self::Pairs) || (other == Self::Any && self != Self::Pairs)
    }
}

impl MapKind {
    pub(super) fn type_name(self) -> &'static str {
        match self {
            Self::Strings => "map[string]interface {}",
            Self::Any => "map[interface {}]interface {}",
            Self::Groups => "map[interface {}][]interface {}",
        }
    }
}

/// One more than the deepest of these. Values deeper than the limit are refused, so that neither printing, comparing nor
/// dropping one can overflow the stack.
fn deeper<'a>(children: impl Iterator<Item = &'a Value>) -> Result<usize, String> {
    let depth = 1 + children.map(Value::depth).max().unwrap_or(0);
    if depth > super::MAX_VALUE_DEPTH {
        return Err(TOO_DEEP.into());
    }
    Ok(depth)
}

fn write_to(out: &mut String, value: impl fmt::Display) {
    // Writing to a String cannot fail.
    let _ = write!(out, "{value}");
}

/// `%v` of a float: the shortest digits that read back, with an exponent below 1e-4 and from 1e6 on.
pub(super) fn print_float(float: f64) -> String {
    if float.is_nan() {
        return "NaN".into();
    }
    if float.is_infinite() {
        return if float > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    match float.abs() {
        0.0 => (if float.is_sign_negative() { "-0" } else { "0" }).into(),
        magnitude if (1e-4..1e6).contains(&magnitude) => float.to_string(),
        _ => print_exponent(float),
    }
}

/// `1e+21`, `1.5e-07`: an exponent of at least two digits with its sign.
pub(super) fn print_exponent(float: f64) -> String {
    let text = format!("{float:e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            let (sign, digits) = match exponent.strip_prefix('-') {
                Some(digits) => ('-', digits),
                None => ('+', exponent),
            };
            format!("{mantissa}e{sign}{digits:0>2}")
        }
        None => text,
    }
}

/// Deeper than [`super::MAX_VALUE_DEPTH`] is cut to nil; serde_json itself refuses documents deeper than 128.
impl From<&serde_json::Value> for Value {
    fn from(json: &serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Nil,
            serde_json::Value::Bool(bool) => Self::Bool(*bool),
            serde_json::Value::Number(number) => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            serde_json::Value::String(string) => Self::string(string),
            serde_json::Value::Array(items) => Self::list(items.iter().map(Self::from).collect()).unwrap_or(Self::Nil),
            serde_json::Value::Object(fields) => {
                let entries = fields.iter().map(|(key, value)| (Key::String(key.as_str().into()), Self::from(value)));
                Self::map(MapKind::Strings, entries.collect()).unwrap_or(Self::Nil)
            }
        }
    }
}

impl From<serde_json::Value> for Value {
    fn from(json: serde_json::Value) -> Self {
        Self::from(&json)
    }
}

impl From<f64> for Value {
    fn from(float: f64) -> Self {
        Self::Float(float)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::string(text)
    }
}
