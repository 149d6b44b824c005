//! The built-ins that work on strings. What they make is charged to the budget before it is made.

use super::budget::Budget;
use super::builtins::Builtin;
use super::operators::{as_string, conversion, to_int};
use super::value::{Slice, Value};

pub(super) fn call(builtin: Builtin, arguments: Vec<Value>, budget: &mut Budget) -> Result<Value, String> {
    if builtin == Builtin::Join {
        return join(&arguments, budget);
    }
    let text = as_string(&arguments[0])?;
    budget.scan(text.len())?;
    let second = || as_string(&arguments[1]).map(|text| &**text);
    let optional = |default| match arguments.get(1) {
        Some(argument) => as_string(argument).map(|text| &**text),
        None => Ok(default),
    };
    let made = match builtin {
        Builtin::Trim => match arguments.get(1) {
            None => text.trim(),
            Some(cut) => {
                let cut = as_string(cut)?;
                text.trim_matches(|c| cut.contains(c))
            }
        },
        Builtin::TrimPrefix => {
            let prefix = optional(" ")?;
            text.strip_prefix(prefix).unwrap_or(text)
        }
        Builtin::TrimSuffix => {
            let suffix = optional(" ")?;
            text.strip_suffix(suffix).unwrap_or(text)
        }
        Builtin::Upper => return owned(text.chars().map(|c| single(c, c.to_uppercase())).collect(), budget),
        Builtin::Lower => return owned(text.chars().map(|c| single(c, c.to_lowercase())).collect(), budget),
        Builtin::Split => return split(text, second()?, arguments.get(2), false, budget),
        Builtin::SplitAfter => return split(text, second()?, arguments.get(2), true, budget),
        Builtin::Replace => return replace(text, second()?, as_string(&arguments[2])?, arguments.get(3), budget),
        Builtin::Repeat => return repeat(text, to_int(&arguments[1])?, budget),
        Builtin::IndexOf => return Ok(position(text.find(second()?))),
        Builtin::LastIndexOf => return Ok(position(text.rfind(second()?))),
        Builtin::HasPrefix => return Ok(Value::Bool(text.starts_with(second()?))),
        Builtin::HasSuffix => return Ok(Value::Bool(text.ends_with(second()?))),
        Builtin::ToBase64 => {
            budget.bytes(text.len().div_ceil(3) * 4)?;
            return Ok(Value::string(encode_base64(text.as_bytes())));
        }
        Builtin::FromBase64 => {
            budget.bytes(text.len())?;
            return Ok(Value::string(String::from_utf8_lossy(&decode_base64(text.as_bytes())?)));
        }
        other => return Err(format!("unknown builtin {}", other.name())),
    };
    budget.bytes(made.len())?;
    Ok(Value::string(made))
}

fn owned(text: String, budget: &mut Budget) -> Result<Value, String> {
    budget.bytes(text.len())?;
    Ok(Value::string(text))
}

/// Go changes case character by character: one that would become several stays.
fn single(original: char, mut changed: impl Iterator<Item = char>) -> char {
    match (changed.next(), changed.next()) {
        (Some(c), None) => c,
        _ => original,
    }
}

fn position(found: Option<usize>) -> Value {
    Value::Int(found.map_or(-1, |position| position as i64))
}

/// `limit`: no more parts than this, all of them where it is negative, none where it is zero.
fn split(
    text: &str,
    separator: &str,
    limit: Option<&Value>,
    after: bool,
    budget: &mut Budget,
) -> Result<Value, String> {
    let limit = match limit.map(to_int).transpose()? {
        Some(limit) if limit >= 0 => limit as usize,
        _ => usize::MAX,
    };
    let mut parts = Vec::new();
    let mut rest = text;
    while parts.len() < limit {
        let end = match separator {
            // Every character is a part; nothing is left behind the last one.
            "" => rest.chars().next().map(char::len_utf8).filter(|length| *length < rest.len()),
            _ => rest.find(separator),
        };
        budget.uncounted(1)?;
        match end {
            Some(end) if parts.len() + 1 < limit => {
                let next = end + separator.len();
                parts.push(&rest[..if after { next } else { end }]);
                rest = &rest[next..];
            }
            _ => {
                if !(rest.is_empty() && separator.is_empty()) {
                    parts.push(rest);
                }
                break;
            }
        }
    }
    budget.bytes(text.len())?;
    Ok(Value::list_of(Slice::Strings, parts.into_iter().map(Value::string).collect()))
}

fn replace(text: &str, old: &str, new: &str, limit: Option<&Value>, budget: &mut Budget) -> Result<Value, String> {
    let limit = match limit.map(to_int).transpose()? {
        Some(limit) if limit >= 0 => limit as usize,
        _ => usize::MAX,
    };
    let count = text.matches(old).count().min(limit);
    budget.bytes(text.len().saturating_add(count.saturating_mul(new.len())))?;
    Ok(Value::string(text.replacen(old, new, limit)))
}

fn repeat(text: &str, count: i64, budget: &mut Budget) -> Result<Value, String> {
    let Ok(count) = usize::try_from(count) else {
        return Err(format!("invalid argument for repeat (expected positive integer, got {count})"));
    };
    if count > 1_000_000 {
        return budget.elements(usize::MAX).map(|()| Value::Nil);
    }
    budget.elements(text.len().saturating_mul(count))?;
    Ok(Value::string(text.repeat(count)))
}

fn join(arguments: &[Value], budget: &mut Budget) -> Result<Value, String> {
    let glue = match arguments.get(1) {
        Some(glue) => as_string(glue)?,
        None => "",
    };
    let list = match &arguments[0] {
        Value::List(list) if matches!(list.slice, Slice::Any | Slice::Strings) => list,
        Value::Nil => return Err("invalid argument for join (type %!s(<nil>))".into()),
        other => return Err(format!("invalid argument for join (type {})", other.type_name())),
    };
    let mut joined = String::new();
    for (position, item) in list.items.iter().enumerate() {
        let Value::String(item) = item else { return Err(conversion(item, "string")) };
        let glue = if position > 0 { glue } else { "" };
        budget.step()?;
        budget.bytes(glue.len() + item.len())?;
        joined.push_str(glue);
        joined.push_str(item);
    }
    Ok(Value::string(joined))
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn encode_base64(bytes: &[u8]) -> String {
    let mut encoded = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for position in 0..4 {
            let sextet = (group >> (18 - 6 * position) & 63) as usize;
            encoded.push(if position <= chunk.len() { char::from(ALPHABET[sextet]) } else { '=' });
        }
    }
    encoded
}

/// Standard alphabet with padding; line ends are ignored.
fn decode_base64(text: &[u8]) -> Result<Vec<u8>, String> {
    let illegal = |position: usize| format!("illegal base64 data at input byte {position}");
    let mut decoded = Vec::with_capacity(text.len() / 4 * 3);
    let mut group = 0u32;
    let mut digits = 0;
    let mut padding = 0;
    for (position, byte) in text.iter().enumerate() {
        match byte {
            b'\r' | b'\n' => continue,
            b'=' if digits >= 2 && digits + padding < 4 => padding += 1,
            _ if padding > 0 => return Err(illegal(position.saturating_sub(1))),
            byte => {
                let sextet = ALPHABET.iter().position(|c| c == byte).ok_or_else(|| illegal(position))?;
                group = group << 6 | sextet as u32;
                digits += 1;
            }
        }
        if digits + padding == 4 {
            let bytes = (group << (6 * padding)).to_be_bytes();
            decoded.extend_from_slice(&bytes[1..4 - padding]);
            if padding == 0 {
                (group, digits) = (0, 0);
            } else {
                // Only line ends may follow.
                let rest = text[position + 1..].iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
                return rest.map_or(Ok(decoded), |rest| Err(illegal(position + 1 + rest)));
            }
        }
    }
    match (digits, padding) {
        (0, _) => Ok(decoded),
        (_, 0) => Err(illegal(text.len() - digits)),
        _ => Err(illegal(text.len())),
    }
}
