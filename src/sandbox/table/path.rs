//! The JSONPath of printer columns: `.spec.x`, `['a.b']`, `[0]`, `[*]`, `[?(@.type=="Ready")]`.

use serde_json::Value;

/// The values that a path leads to. A path that cannot be read leads nowhere.
pub(super) fn find<'a>(path: &str, object: &'a Value) -> Vec<&'a Value> {
    let path = path.trim().trim_start_matches('{').trim_end_matches('}').trim_start_matches('$');
    let mut found = vec![object];
    let mut rest = path;
    while !rest.is_empty() && !found.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let Some(end) = closing(after) else { return Vec::new() };
            found = found.into_iter().flat_map(|value| index(&after[..end], value)).collect();
            rest = &after[end + 1..];
        } else {
            let after = rest.strip_prefix('.').unwrap_or(rest);
            let (name, tail) = field(after);
            if !name.is_empty() {
                found = found.into_iter().filter_map(|value| value.get(&name)).collect();
            }
            rest = tail;
        }
    }
    found.retain(|value| !value.is_null());
    found
}

/// A field's name, in which a backslash protects a dot.
fn field(path: &str) -> (String, &str) {
    let mut name = String::new();
    let mut characters = path.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => name.extend(characters.next().map(|(_, c)| c)),
            '.' | '[' => return (name, &path[at..]),
            c => name.push(c),
        }
    }
    (name, "")
}

fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (None, ']') => return Some(at),
            _ => {}
        }
    }
    None
}

fn index<'a>(inside: &str, value: &'a Value) -> Vec<&'a Value> {
    let inside = inside.trim();
    let all = || match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(fields) => fields.values().collect(),
        _ => Vec::new(),
    };
    if inside == "*" {
        return all();
    }
    if let Some(filter) = inside.strip_prefix("?(").and_then(|filter| filter.strip_suffix(')')) {
        let Some((path, wanted)) = filter.split_once("==") else { return Vec::new() };
        let wanted = wanted.trim();
        let wanted = wanted.trim_matches(['"', '\'']);
        let path = path.trim().trim_start_matches('@');
        let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let matches = |item: &&Value| find(path, item).into_iter().any(|it| shown(it) == wanted);
        return all().into_iter().filter(matches).collect();
    }
    let found = match inside.parse::<i64>() {
        Ok(at) => {
            let length = value.as_array().map_or(0, Vec::len);
            let at = if at < 0 { usize::try_from(at + length as i64).ok() } else { usize::try_from(at).ok() };
            at.and_then(|at| value.get(at))
        }
        Err(_) => value.get(inside.trim_matches(['"', '\''])),
    };
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_find() {
        let object = json!({"spec": {"a": 1, "l": [{"type": "X", "v": 2}, {"type": "Y", "v": 3}]}, "m": {"a.b": 4}});
        for (path, wanted) in [
            (".spec.a", vec![json!(1)]),
            (".spec.l[*].v", vec![json!(2), json!(3)]),
            (".spec.l[?(@.type==\"Y\")].v", vec![json!(3)]),
            (".spec.l[0].type", vec![json!("X")]),
            (".spec.l[-1].type", vec![json!("Y")]),
            (".m['a.b']", vec![json!(4)]),
            (".m.a\\.b", vec![json!(4)]),
            (".none.x", vec![]),
        ] {
            assert_eq!(find(path, &object), wanted.iter().collect::<Vec<_>>(), "{path}");
        }
    }
}
