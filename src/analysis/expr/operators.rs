//! What the operators do with two values, and what they say of those they cannot work with.

use std::cmp::Ordering;
use std::sync::Arc;

use super::ast::BinaryOp;
use super::budget::Budget;
use super::functions::truncate;
use super::time;
use super::value::{Key, MapKind, Slice, Value};
use crate::api::duration::GoDuration;

/// `<`, `>`, `<=`, `>=`: numbers, strings, times and durations with their like. NaN compares false.
pub(super) fn compare(op: BinaryOp, word: &str, a: &Value, b: &Value, budget: &mut Budget) -> Result<bool, String> {
    let ordering = match (a, b) {
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::String(a), Value::String(b)) => {
            budget.scan(a.len().min(b.len()))?;
            Some(a.cmp(b))
        }
        (Value::Time(a), Value::Time(b)) => Some(a.timestamp().cmp(&b.timestamp())),
        (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
        _ => match (a.as_number(), b.as_number()) {
            (Some(a), Some(b)) => a.partial_cmp(&b),
            _ => return Err(invalid(word, a, b)),
        },
    };
    Ok(ordering.is_some_and(|ordering| match op {
        BinaryOp::Less => ordering == Ordering::Less,
        BinaryOp::More => ordering == Ordering::Greater,
        BinaryOp::LessOrEqual => ordering != Ordering::Greater,
        _ => ordering != Ordering::Less,
    }))
}

pub(super) fn less(a: &Value, b: &Value, budget: &mut Budget) -> Result<bool, String> {
    compare(BinaryOp::Less, "<", a, b, budget)
}

pub(super) fn add(a: &Value, b: &Value, budget: &mut Budget) -> Result<Value, String> {
    Ok(match (a, b) {
        (Value::Int(a), Value::Int(b)) => Value::Int(a.wrapping_add(*b)),
        (Value::String(a), Value::String(b)) => {
            budget.bytes(a.len() + b.len())?;
            Value::String([&**a, &**b].concat().into())
        }
        (Value::Time(time), Value::Duration(span)) | (Value::Duration(span), Value::Time(time)) => {
            time::shift(time, span.as_nanos())?
        }
        (Value::Duration(a), Value::Duration(b)) => nanos(a.as_nanos().wrapping_add(b.as_nanos())),
        _ => return floats("+", a, b, |a, b| a + b),
    })
}

pub(super) fn subtract(a: &Value, b: &Value) -> Result<Value, String> {
    Ok(match (a, b) {
        (Value::Int(a), Value::Int(b)) => Value::Int(a.wrapping_sub(*b)),
        (Value::Time(a), Value::Time(b)) => nanos(time::between(a, b)),
        (Value::Time(time), Value::Duration(span)) => time::shift(time, span.as_nanos().wrapping_neg())?,
        (Value::Duration(a), Value::Duration(b)) => nanos(a.as_nanos().wrapping_sub(b.as_nanos())),
        _ => return floats("-", a, b, |a, b| a - b),
    })
}

pub(super) fn multiply(a: &Value, b: &Value) -> Result<Value, String> {
    let plain = |value: &Value| match value {
        Value::Duration(span) => Some(span.as_nanos()),
        Value::Int(int) => Some(*int),
        _ => None,
    };
    match (a, b, plain(a), plain(b)) {
        (Value::Int(a), Value::Int(b), ..) => Ok(Value::Int(a.wrapping_mul(*b))),
        (_, _, Some(a), Some(b)) => Ok(nanos(a.wrapping_mul(b))),
        (Value::Duration(span), Value::Float(factor), ..) | (Value::Float(factor), Value::Duration(span), ..) => {
            Ok(Value::Float(span.as_nanos() as f64 * factor))
        }
        _ => floats("*", a, b, |a, b| a * b),
    }
}

pub(super) fn divide(a: &Value, b: &Value) -> Result<Value, String> {
    floats("/", a, b, |a, b| a / b)
}

pub(super) fn modulo(a: &Value, b: &Value) -> Result<Value, String> {
    match (a, b) {
        (Value::Int(_), Value::Int(0)) => Err("runtime error: integer divide by zero".into()),
        (Value::Int(a), Value::Int(b)) => Ok(Value::Int(a.wrapping_rem(*b))),
        _ => Err(invalid("%", a, b)),
    }
}

pub(super) fn power(a: &Value, b: &Value) -> Result<Value, String> {
    Ok(Value::Float(to_float(a)?.powf(to_float(b)?)))
}

pub(super) fn negate(value: &Value) -> Result<Value, String> {
    match value {
        Value::Int(int) => Ok(Value::Int(int.wrapping_neg())),
        Value::Float(float) => Ok(Value::Float(-float)),
        other => Err(format!("invalid operation: - {}", other.type_name())),
    }
}

/// `from..to`, both included.
pub(super) fn range(from: &Value, to: &Value, budget: &mut Budget) -> Result<Value, String> {
    let (from, to) = (to_int(from)?, to_int(to)?);
    let size = to.wrapping_sub(from).wrapping_add(1).max(0);
    budget.elements(usize::try_from(size).unwrap_or(usize::MAX))?;
    Ok(Value::list_of(Slice::Ints, (0..size).map(|offset| Value::Int(from.wrapping_add(offset))).collect()))
}

/// `needle in haystack`.
pub(super) fn contained(needle: &Value, haystack: &Value, budget: &mut Budget) -> Result<bool, String> {
    match haystack {
        Value::Nil => Ok(false),
        Value::List(list) => {
            for item in &list.items {
                if item.equals(needle, budget)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Value::Map(map) => Ok(map.entries.contains_key(&map_key(map.kind, needle)?)),
        Value::Time(_) => match needle {
            Value::String(_) => Ok(false),
            other => Err(format!("cannot use {} as field name of time.Time", other.type_name())),
        },
        other => Err(format!("operator \"in\" not defined on {}", other.type_name())),
    }
}

/// `base[key]` and `base.key`.
pub(super) fn fetch(base: &Value, key: &Value, budget: &mut Budget) -> Result<Value, String> {
    let item = |length: usize| -> Result<usize, String> {
        let index = to_int(key)?;
        let index = if index < 0 { index.wrapping_add(length as i64) } else { index };
        usize::try_from(index)
            .ok()
            .filter(|index| *index < length)
            .ok_or_else(|| format!("index out of range: {index} (array length is {length})"))
    };
    match base {
        Value::List(list) => Ok(list.items[item(list.items.len())?].clone()),
        // One byte, as in Go.
        Value::String(text) => Ok(Value::Int(i64::from(text.as_bytes()[item(text.len())?]))),
        Value::Map(map) => Ok(map.entries.get(&map_key(map.kind, key)?).cloned().unwrap_or(Value::Nil)),
        other => Err(format!("cannot fetch {} from {}", key.print(budget)?, other.type_name())),
    }
}

pub(super) fn map_key(kind: MapKind, key: &Value) -> Result<Key, String> {
    match (kind, key) {
        (MapKind::Strings, Value::String(key)) => Ok(Key::String(key.clone())),
        (MapKind::Strings, Value::Nil) => Ok(Key::String("".into())),
        (MapKind::Strings, other) => {
            Err(format!("reflect.Value.MapIndex: value of type {} is not assignable to type string", other.type_name()))
        }
        (MapKind::Any | MapKind::Groups, key) => hash(key),
    }
}

pub(super) fn hash(key: &Value) -> Result<Key, String> {
    Key::of(key).ok_or_else(|| format!("hash of unhashable type: {}", key.type_name()))
}

/// `base[from:to]`. A string is cut at bytes; half a character becomes the replacement character.
pub(super) fn slice(base: &Value, from: &Value, to: &Value, budget: &mut Budget) -> Result<Value, String> {
    let length = match base {
        Value::List(list) => list.items.len(),
        Value::String(text) => text.len(),
        _ => return Err(format!("cannot slice {}", from.print(budget)?)),
    };
    let bound = |value: &Value| -> Result<usize, String> {
        let bound = to_int(value)?;
        let bound = if bound < 0 { bound.saturating_add(length as i64).max(0) } else { bound };
        Ok(usize::try_from(bound).unwrap_or(usize::MAX))
    };
    let (from, to) = (bound(from)?, bound(to)?.min(length));
    let from = from.min(to);
    match base {
        Value::String(text) => {
            budget.bytes(to - from)?;
            Ok(Value::String(String::from_utf8_lossy(&text.as_bytes()[from..to]).into()))
        }
        Value::List(list) => {
            budget.uncounted(to - from)?;
            Value::list_with(list.slice, list.items[from..to].to_vec())
        }
        _ => Ok(Value::Nil),
    }
}

pub(super) fn to_int(value: &Value) -> Result<i64, String> {
    match value {
        Value::Int(int) => Ok(*int),
        Value::Float(float) => Ok(truncate(*float)),
        other => Err(format!("invalid operation: int({})", other.type_name())),
    }
}

pub(super) fn to_float(value: &Value) -> Result<f64, String> {
    value.as_number().ok_or_else(|| format!("invalid operation: float({})", value.type_name()))
}

/// A value that Go asserts to be of a type.
pub(super) fn as_bool(value: &Value) -> Result<bool, String> {
    match value {
        Value::Bool(bool) => Ok(*bool),
        other => Err(conversion(other, "bool")),
    }
}

pub(super) fn as_string(value: &Value) -> Result<&Arc<str>, String> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(conversion(other, "string")),
    }
}

pub(super) fn conversion(value: &Value, wanted: &str) -> String {
    let found = if value.is_nil() { "nil" } else { value.type_name() };
    format!("interface conversion: interface {{}} is {found}, not {wanted}")
}

fn floats(word: &str, a: &Value, b: &Value, operation: impl Fn(f64, f64) -> f64) -> Result<Value, String> {
    match (a.as_number(), b.as_number()) {
        (Some(x), Some(y)) => Ok(Value::Float(operation(x, y))),
        _ => Err(invalid(word, a, b)),
    }
}

fn nanos(nanos: i64) -> Value {
    Value::Duration(GoDuration::from_nanos(nanos))
}

fn invalid(word: &str, a: &Value, b: &Value) -> String {
    format!("invalid operation: {} {word} {}", a.type_name(), b.type_name())
}
