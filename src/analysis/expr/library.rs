//! What the built-ins without a predicate do.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::budget::Budget;
use super::builtins::Builtin;
use super::functions::{parse_float, parse_int, truncate};
use super::operators::{as_string, fetch, hash, less, map_key, to_int};
use super::value::{Key, List, Map, MapKind, Slice, Value};
use super::{json, text, time};
use crate::api::duration::GoDuration;

pub(super) fn call(
    builtin: Builtin,
    mut arguments: Vec<Value>,
    now: Timestamp,
    budget: &mut Budget,
) -> Result<Value, String> {
    let a = arguments.as_slice();
    match builtin {
        Builtin::Len => length(&a[0], budget),
        Builtin::Type => Ok(Value::string(type_of(&a[0]))),
        Builtin::Abs => abs(&a[0]),
        Builtin::Ceil => rounded("ceil", &a[0], f64::ceil),
        Builtin::Floor => rounded("floor", &a[0], f64::floor),
        // Half away from zero, like Go's.
        Builtin::Round => rounded("round", &a[0], f64::round),
        Builtin::Int => int(&a[0]),
        Builtin::Float => float(&a[0]),
        Builtin::String => a[0].print(budget).map(Value::string),
        Builtin::Max => extreme("max", a, budget, less),
        Builtin::Min => extreme("min", a, budget, |best, item, budget| less(item, best, budget)),
        Builtin::Mean => {
            let numbers = numbers("mean", a, budget)?;
            let sum: f64 = numbers.iter().fold(0.0, |sum, number| sum + number);
            Ok(Value::Float(if numbers.is_empty() { 0.0 } else { sum / numbers.len() as f64 }))
        }
        Builtin::Median => {
            let mut numbers = numbers("median", a, budget)?;
            // Go puts NaN first.
            numbers.sort_by(|a, b| b.is_nan().cmp(&a.is_nan()).then(a.total_cmp(b)));
            let half = numbers.len() / 2;
            Ok(Value::Float(match numbers.len() {
                0 => 0.0,
                length if length % 2 == 1 => numbers[half],
                _ => (numbers[half - 1] + numbers[half]) / 2.0,
            }))
        }
        Builtin::ToJson => json::print(&a[0], budget).map(Value::string),
        Builtin::FromJson => json::parse(as_string(&a[0])?, budget),
        Builtin::Now => Ok(time::now(now, a.first())),
        Builtin::Duration => {
            let text = as_string(&a[0])?;
            text.parse::<GoDuration>().map(Value::Duration).map_err(|error| error.to_string())
        }
        Builtin::Date => time::date(a),
        Builtin::Timezone => time::zone(as_string(&a[0])?).map(Value::Zone),
        Builtin::First => Ok(fetch(&a[0], &Value::Int(0), budget).unwrap_or(Value::Nil)),
        Builtin::Last => Ok(fetch(&a[0], &Value::Int(-1), budget).unwrap_or(Value::Nil)),
        Builtin::Get => get(&a[0], &a[1], budget),
        Builtin::Take => take(&a[0], &a[1], budget),
        Builtin::Keys => {
            let map = map("get keys from", "", &a[0])?;
            budget.uncounted(map.entries.len())?;
            Value::list(map.entries.keys().map(Key::value).collect())
        }
        Builtin::Values => {
            let map = map("get values from", "", &a[0])?;
            budget.uncounted(map.entries.len())?;
            Value::list(map.entries.values().cloned().collect())
        }
        Builtin::ToPairs => {
            let map = map("transform", " to pairs", &a[0])?;
            budget.uncounted(3 * map.entries.len())?;
            let pairs: Result<Vec<Value>, String> =
                map.entries.iter().map(|(key, value)| Value::list(vec![key.value(), value.clone()])).collect();
            Value::list_with(Slice::Pairs, pairs?)
        }
        Builtin::FromPairs => from_pairs(&a[0], budget),
        Builtin::Reverse => {
            let list = list("reverse", &a[0])?;
            budget.elements(list.items.len())?;
            Value::list(list.items.iter().rev().cloned().collect())
        }
        Builtin::Uniq => {
            let list = list("uniq", &a[0])?;
            let mut unique: Vec<Value> = Vec::new();
            'items: for item in &list.items {
                for known in &unique {
                    if item.equals(known, budget)? {
                        continue 'items;
                    }
                }
                budget.uncounted(1)?;
                unique.push(item.clone());
            }
            Value::list(unique)
        }
        Builtin::Concat => {
            let mut items = Vec::new();
            for argument in a {
                let list = list("concat", argument)?;
                budget.elements(list.items.len())?;
                items.extend(list.items.iter().cloned());
            }
            Value::list(items)
        }
        Builtin::Flatten => {
            let mut items = Vec::new();
            flatten(list("flatten", &a[0])?, &mut items, budget)?;
            Value::list(items)
        }
        Builtin::Sort => sort_list(a, budget),
        Builtin::BitAnd => bits(builtin, a, |x, y| Ok(x & y)),
        Builtin::BitOr => bits(builtin, a, |x, y| Ok(x | y)),
        Builtin::BitXor => bits(builtin, a, |x, y| Ok(x ^ y)),
        Builtin::BitNand => bits(builtin, a, |x, y| Ok(x & !y)),
        Builtin::BitShl => bits(builtin, a, |x, y| shift(y).map(|y| x.checked_shl(y).unwrap_or(0))),
        Builtin::BitShr => bits(builtin, a, |x, y| shift(y).map(|y| x >> y.min(63))),
        Builtin::BitUshr => bits(builtin, a, |x, y| shift(y).map(|y| (x as u64).checked_shr(y).unwrap_or(0) as i64)),
        Builtin::BitNot => Ok(Value::Int(!bit_operand(builtin, &a[0])?)),
        _ => text::call(builtin, std::mem::take(&mut arguments), budget),
    }
}

fn length(value: &Value, budget: &mut Budget) -> Result<Value, String> {
    Ok(Value::Int(match value {
        Value::List(list) => list.items.len(),
        Value::Map(map) => map.entries.len(),
        Value::String(text) => {
            budget.scan(text.len())?;
            text.chars().count()
        }
        other => return Err(format!("invalid argument for len (type {})", other.type_name())),
    } as i64))
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int",
        Value::Float(_) => "float",
        Value::String(_) => "string",
        Value::List(_) => "array",
        Value::Map(_) => "map",
        Value::Time(_) => "time.Time",
        Value::Duration(_) => "time.Duration",
        Value::Zone(_) => "unknown",
        Value::Function(_) => "func",
    }
}

fn abs(value: &Value) -> Result<Value, String> {
    match value {
        Value::Int(int) => Ok(Value::Int(int.wrapping_abs())),
        Value::Float(float) if *float < 0.0 => Ok(Value::Float(-float)),
        Value::Float(_) => Ok(value.clone()),
        other => Err(format!("invalid argument for abs (type {})", other.type_name())),
    }
}

fn rounded(name: &str, value: &Value, round: impl Fn(f64) -> f64) -> Result<Value, String> {
    match value {
        Value::Int(int) => Ok(Value::Float(*int as f64)),
        Value::Float(float) => Ok(Value::Float(round(*float))),
        other => Err(format!("invalid argument for {name} (type {})", other.type_name())),
    }
}

fn int(value: &Value) -> Result<Value, String> {
    match value {
        Value::Int(_) => Ok(value.clone()),
        Value::Float(float) => Ok(Value::Int(truncate(*float))),
        Value::Duration(duration) => Ok(Value::Int(duration.as_nanos())),
        Value::String(text) => parse_int(text).map(Value::Int).map_err(|_| format!("invalid operation: int({text})")),
        Value::Nil => Err("reflect: call of reflect.Value.Type on zero Value".into()),
        other => Err(format!("invalid operation: int({})", other.type_name())),
    }
}

fn float(value: &Value) -> Result<Value, String> {
    match value {
        Value::String(text) => {
            parse_float(text).map(Value::Float).map_err(|_| format!("invalid operation: float({text})"))
        }
        other => match other.as_number() {
            Some(number) => Ok(Value::Float(number)),
            None => Err(format!("invalid operation: float({})", other.type_name())),
        },
    }
}

/// The largest or smallest of all numbers, in lists of lists too; nil of none. `beaten` tells whether the best so far
/// gives way.
fn extreme(
    name: &str,
    arguments: &[Value],
    budget: &mut Budget,
    beaten: fn(&Value, &Value, &mut Budget) -> Result<bool, String>,
) -> Result<Value, String> {
    let mut best = Value::Nil;
    for argument in arguments {
        match argument {
            Value::Int(_) | Value::Float(_) | Value::Duration(_) => {
                if best.is_nil() || beaten(&best, argument, budget)? {
                    best = argument.clone();
                }
            }
            Value::List(list) => {
                for item in &list.items {
                    budget.step()?;
                    let item = match item {
                        Value::Int(_) | Value::Float(_) => item.clone(),
                        Value::List(_) => extreme(name, std::slice::from_ref(item), budget, beaten)?,
                        other => return Err(format!("invalid argument for {name} (type {})", other.type_name())),
                    };
                    if !item.is_nil() && (best.is_nil() || beaten(&best, &item, budget)?) {
                        best = item;
                    }
                }
            }
            other if arguments.len() == 1 => return Ok(other.clone()),
            other => return Err(format!("invalid argument for {name} (type {})", other.type_name())),
        }
    }
    Ok(best)
}

fn numbers(name: &str, arguments: &[Value], budget: &mut Budget) -> Result<Vec<f64>, String> {
    let mut found = Vec::new();
    collect_numbers(name, arguments, &mut found, budget)?;
    Ok(found)
}

fn collect_numbers(name: &str, values: &[Value], found: &mut Vec<f64>, budget: &mut Budget) -> Result<(), String> {
    for value in values {
        budget.step()?;
        match value {
            Value::List(list) => collect_numbers(name, &list.items, found, budget)?,
            Value::Duration(duration) => found.push(duration.as_nanos() as f64),
            other => match other.as_number() {
                Some(number) => found.push(number),
                None => return Err(format!("invalid argument for {name} (type {})", other.type_name())),
            },
        }
    }
    Ok(())
}

/// Like `base[key]`, but nil where that fails.
fn get(base: &Value, key: &Value, budget: &mut Budget) -> Result<Value, String> {
    match base {
        Value::List(_) | Value::String(_) => {
            to_int(key)?;
            Ok(fetch(base, key, budget).unwrap_or(Value::Nil))
        }
        Value::Map(map) => Ok(map.entries.get(&map_key(map.kind, key)?).cloned().unwrap_or(Value::Nil)),
        Value::Time(_) => as_string(key).map(|_| Value::Nil),
        _ => Ok(Value::Nil),
    }
}

fn take(base: &Value, count: &Value, budget: &mut Budget) -> Result<Value, String> {
    let list = match base {
        Value::List(list) => list,
        other => return Err(format!("cannot take from {}", other.kind_name())),
    };
    let count = match count {
        Value::Int(count) => *count,
        Value::Duration(count) => count.as_nanos(),
        other => return Err(format!("cannot take {} elements", other.kind_name())),
    };
    let Ok(count) = usize::try_from(count) else {
        return Err("reflect.Value.Slice: slice index out of bounds".into());
    };
    let count = count.min(list.items.len());
    budget.uncounted(count)?;
    Value::list_with(list.slice, list.items[..count].to_vec())
}

fn from_pairs(pairs: &Value, budget: &mut Budget) -> Result<Value, String> {
    let pairs = match pairs {
        Value::List(pairs) => pairs,
        Value::Nil => return Err("cannot transform <invalid reflect.Value> from pairs".into()),
        other => return Err(format!("cannot transform {} from pairs", other.print(budget)?)),
    };
    budget.uncounted(2 * pairs.items.len())?;
    let mut entries = BTreeMap::new();
    for pair in &pairs.items {
        let Value::List(list) = pair else { return Err(format!("invalid pair {}", pair.print(budget)?)) };
        let [key, value] = list.items.as_slice() else {
            return Err(format!("invalid pair length {}", pair.print(budget)?));
        };
        entries.insert(hash(key)?, value.clone());
    }
    Value::map(MapKind::Any, entries)
}

fn flatten(list: &List, items: &mut Vec<Value>, budget: &mut Budget) -> Result<(), String> {
    for item in &list.items {
        match item {
            Value::List(inner) => {
                budget.step()?;
                flatten(inner, items, budget)?;
            }
            other => {
                budget.elements(1)?;
                items.push(other.clone());
            }
        }
    }
    Ok(())
}

fn sort_list(arguments: &[Value], budget: &mut Budget) -> Result<Value, String> {
    let items = match &arguments[0] {
        Value::List(list) if !matches!(list.slice, Slice::Pairs | Slice::Bytes) => list.items.as_slice(),
        _ => &[],
    };
    let descending = match arguments.get(1) {
        None => false,
        Some(Value::String(order)) if &**order == "asc" => false,
        Some(Value::String(order)) if &**order == "desc" => true,
        Some(Value::String(order)) => return Err(format!("invalid order {order}, expected asc or desc")),
        Some(other) => {
            return Err(format!("sort order argument must be a string (got {})", other.type_name()));
        }
    };
    budget.elements(items.len())?;
    let pairs = items.iter().map(|item| (item.clone(), ())).collect();
    Value::list(sort(pairs, descending, budget)?.into_iter().map(|(item, ())| item).collect())
}

/// Sorts by the first of each pair. Merges by hand, since the comparison can fail, and can be no order (NaN), which the
/// standard library's sort answers with a panic.
pub(super) fn sort<T>(
    mut pairs: Vec<(Value, T)>,
    descending: bool,
    budget: &mut Budget,
) -> Result<Vec<(Value, T)>, String> {
    // Short runs by insertion, as Go does it: the first two that cannot be compared are then the same.
    let mut width = 12;
    for run in pairs.chunks_mut(width) {
        for end in 1..run.len() {
            for position in (1..=end).rev() {
                budget.step()?;
                if !precedes(&run[position].0, &run[position - 1].0, descending, budget)? {
                    break;
                }
                run.swap(position, position - 1);
            }
        }
    }
    while width < pairs.len() {
        let mut merged = Vec::with_capacity(pairs.len());
        let mut rest = pairs.into_iter().peekable();
        while rest.peek().is_some() {
            let left: Vec<_> = rest.by_ref().take(width).collect();
            let right: Vec<_> = rest.by_ref().take(width).collect();
            merge(left, right, descending, budget, &mut merged)?;
        }
        pairs = merged;
        width *= 2;
    }
    Ok(pairs)
}

fn merge<T>(
    left: Vec<(Value, T)>,
    right: Vec<(Value, T)>,
    descending: bool,
    budget: &mut Budget,
    merged: &mut Vec<(Value, T)>,
) -> Result<(), String> {
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some((a, _)), Some((b, _))) = (left.peek(), right.peek()) {
        budget.step()?;
        merged.extend(if precedes(b, a, descending, budget)? { right.next() } else { left.next() });
    }
    merged.extend(left);
    merged.extend(right);
    Ok(())
}

fn precedes(a: &Value, b: &Value, descending: bool, budget: &mut Budget) -> Result<bool, String> {
    if descending { less(b, a, budget) } else { less(a, b, budget) }
}

fn list<'a>(name: &str, value: &'a Value) -> Result<&'a List, String> {
    match value {
        Value::List(list) => Ok(list),
        other => Err(format!("cannot {name} {}", other.kind_name())),
    }
}

fn map<'a>(verb: &str, rest: &str, value: &'a Value) -> Result<&'a Map, String> {
    match value {
        Value::Map(map) => Ok(map),
        other => Err(format!("cannot {verb} {}{rest}", other.kind_name())),
    }
}

fn bits(
    builtin: Builtin,
    arguments: &[Value],
    operation: impl Fn(i64, i64) -> Result<i64, String>,
) -> Result<Value, String> {
    let (x, y) = (bit_operand(builtin, &arguments[0])?, bit_operand(builtin, &arguments[1])?);
    operation(x, y).map(Value::Int)
}

fn bit_operand(builtin: Builtin, value: &Value) -> Result<i64, String> {
    match value {
        Value::Int(int) => Ok(*int),
        other => Err(format!("cannot use {} as argument (type int) to call {}", other.type_name(), builtin.name())),
    }
}

fn shift(count: i64) -> Result<u32, String> {
    if count < 0 {
        return Err(format!("invalid operation: negative shift count {count} (type int)"));
    }
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}
