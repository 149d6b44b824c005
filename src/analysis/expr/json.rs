//! `fromJSON` and `toJSON`, the latter in Go's indented layout.

use super::budget::Budget;
use super::value::{Key, MapKind, Slice, Value, print_exponent};

pub(super) fn parse(text: &str, budget: &mut Budget) -> Result<Value, String> {
    // An element takes two bytes of text at least.
    budget.scan(text.len())?;
    budget.uncounted(text.len() / 2)?;
    let json: serde_json::Value = serde_json::from_str(text).map_err(|error| match error.is_eof() {
        true => "unexpected end of JSON input".to_owned(),
        false => error.to_string(),
    })?;
    Ok(Value::from(&json))
}

pub(super) fn print(value: &Value, budget: &mut Budget) -> Result<String, String> {
    let mut out = String::new();
    write(value, 0, &mut out, budget)?;
    Ok(out)
}

fn write(value: &Value, level: usize, out: &mut String, budget: &mut Budget) -> Result<(), String> {
    budget.step()?;
    let before = out.len();
    match value {
        Value::Nil => out.push_str("null"),
        Value::Bool(bool) => out.push_str(&bool.to_string()),
        Value::Int(int) => out.push_str(&int.to_string()),
        Value::Float(float) => out.push_str(&number(*float)?),
        Value::String(text) => quote(text, out),
        Value::Duration(duration) => out.push_str(&duration.as_nanos().to_string()),
        Value::Time(time) => quote(&super::time::rfc3339(time), out),
        Value::List(list) if list.slice == Slice::Bytes => {
            return Err("bytes cannot be written as JSON".into());
        }
        Value::List(list) if list.items.is_empty() => out.push_str("[]"),
        Value::List(list) => {
            out.push('[');
            for (position, item) in list.items.iter().enumerate() {
                start_line(position > 0, level + 1, out, budget)?;
                write(item, level + 1, out, budget)?;
            }
            start_line(false, level, out, budget)?;
            out.push(']');
        }
        Value::Map(map) if map.kind != MapKind::Strings => {
            return Err(format!("json: unsupported type: {}", value.type_name()));
        }
        Value::Map(map) if map.entries.is_empty() => out.push_str("{}"),
        Value::Map(map) => {
            out.push('{');
            for (position, (key, item)) in map.entries.iter().enumerate() {
                start_line(position > 0, level + 1, out, budget)?;
                if let Key::String(key) = key {
                    quote(key, out);
                }
                out.push_str(": ");
                write(item, level + 1, out, budget)?;
            }
            start_line(false, level, out, budget)?;
            out.push('}');
        }
        Value::Zone(_) => out.push_str("{}"),
        Value::Function(function) => return Err(format!("json: unsupported type: {}", function.signature())),
    }
    budget.bytes(out.len() - before)
}

fn start_line(comma: bool, level: usize, out: &mut String, budget: &mut Budget) -> Result<(), String> {
    budget.bytes(2 * level)?;
    if comma {
        out.push(',');
    }
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", level));
    Ok(())
}

fn number(float: f64) -> Result<String, String> {
    if !float.is_finite() {
        return Err(format!("json: unsupported value: {}", super::value::print_float(float)));
    }
    let magnitude = float.abs();
    if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        // Go writes e-09 as e-9.
        return Ok(print_exponent(float).replace("e-0", "e-"));
    }
    Ok(float.to_string())
}

/// Escapes what HTML would take for markup, as Go does.
fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}
