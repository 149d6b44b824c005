//! What a client sees of objects: whole, metadata only, or as the rows of a table.

mod builtin;
mod path;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::http;
use super::resource::Column;
use super::write::Target;

/// How a client wants objects shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Whole,
    Metadata,
    /// As a table; the rows carry what `includeObject` asks for.
    Table(Include),
}

/// How much of its object a row carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Include {
    None,
    Metadata,
    Object,
}

impl View {
    /// Reads an `Accept` header and the `includeObject` parameter. The first form that is understood wins.
    pub(super) fn accepted(accept: &str, include: &str) -> Self {
        for range in accept.split(',') {
            let mut parameters = range.split(';').map(str::trim).skip(1);
            let shape = parameters.find_map(|parameter| parameter.strip_prefix("as="));
            match shape {
                Some("PartialObjectMetadata" | "PartialObjectMetadataList") => return View::Metadata,
                Some("Table") => {
                    return View::Table(match include {
                        "None" => Include::None,
                        "Object" => Include::Object,
                        _ => Include::Metadata,
                    });
                }
                None => return View::Whole,
                Some(_) => {}
            }
        }
        View::Whole
    }

    /// One object as it is shown.
    pub(super) fn object(self, target: &Target, object: &Arc<Value>, now: Timestamp) -> Arc<Value> {
        match self {
            View::Whole => object.clone(),
            View::Metadata => Arc::new(metadata_only(object)),
            View::Table(include) => {
                let meta = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                Arc::new(table(target, std::slice::from_ref(object), include, &meta, now))
            }
        }
    }

    /// The same as JSON.
    pub(super) fn text(self, target: &Target, object: &Arc<Value>, now: Timestamp) -> String {
        match self {
            View::Metadata => {
                let kind = r#""kind":"PartialObjectMetadata""#;
                format!(r#"{{"apiVersion":"meta.k8s.io/v1",{kind},"metadata":{}}}"#, http::text(&object["metadata"]))
            }
            View::Whole | View::Table(_) => http::text(&self.object(target, object, now)),
        }
    }

    /// A bookmark as a watch shows it.
    pub(super) fn bookmark(self, mut object: Value) -> Value {
        match self {
            View::Whole => object,
            View::Metadata => {
                object["kind"] = "PartialObjectMetadata".into();
                object["apiVersion"] = "meta.k8s.io/v1".into();
                object
            }
            View::Table(_) => json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1",
                "metadata": {"resourceVersion": object["metadata"]["resourceVersion"]}, "columnDefinitions": null,
                "rows": [{"cells": null, "object": metadata_only(&object)}]}),
        }
    }
}

/// Objects as a table.
pub(super) fn table(target: &Target, objects: &[Arc<Value>], include: Include, meta: &Value, now: Timestamp) -> Value {
    let own = target.version().map_or(&[][..], |version| version.columns.as_slice());
    let columns = columns(&target.resource.key, own, target.resource.custom);
    let definitions: Vec<Value> = columns
        .iter()
        .map(|column| {
            json!({"name": column.name, "type": column.kind, "format": column.format,
                "description": column.description, "priority": column.priority})
        })
        .collect();
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let cells: Vec<Value> = columns.iter().map(|column| cell(column, object, now)).collect();
            let carried = match include {
                Include::None => Value::Null,
                Include::Metadata => metadata_only(object),
                Include::Object => (**object).clone(),
            };
            json!({"cells": cells, "object": carried})
        })
        .collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta,
        "columnDefinitions": definitions, "rows": rows})
}

fn metadata_only(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

fn columns(key: &str, own: &[Column], custom: bool) -> Vec<Column> {
    let mut columns = vec![column("Name", "string", "name", ".metadata.name", 0)];
    let rest = if custom { own.to_vec() } else { builtin::columns(key) };
    if rest.is_empty() {
        columns.push(column("Age", "date", "", ".metadata.creationTimestamp", 0));
    }
    columns.extend(rest);
    columns
}

fn column(name: &str, kind: &str, format: &str, path: &str, priority: i64) -> Column {
    Column {
        name: name.to_owned(),
        kind: kind.to_owned(),
        format: format.to_owned(),
        description: String::new(),
        priority,
        path: path.to_owned(),
    }
}

fn cell(column: &Column, object: &Value, now: Timestamp) -> Value {
    if let Some(name) = column.path.strip_prefix('=') {
        return builtin::cell(name, object, now);
    }
    let found = path::find(&column.path, object);
    match (column.kind.as_str(), found.as_slice()) {
        ("date", [Value::String(text), ..]) => age(text, now).into(),
        ("date", _) => "<unknown>".into(),
        (_, []) => Value::Null,
        ("integer" | "number" | "boolean", [one, ..]) => (*one).clone(),
        (_, [Value::String(text)]) => text.as_str().into(),
        (_, several) => {
            let shown = |value: &&Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            several.iter().map(shown).collect::<Vec<_>>().join(",").into()
        }
    }
}

/// The time since a timestamp, as kubectl shows it.
pub(super) fn age(timestamp: &str, now: Timestamp) -> String {
    let Ok(then) = timestamp.parse::<Timestamp>() else { return "<invalid>".into() };
    duration(now.as_second() - then.as_second())
}

/// A number of seconds, as kubectl shows it.
fn duration(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{big_unit}") } else { format!("{big}{big_unit}{small}{small_unit}") }
    };
    match seconds {
        i64::MIN..-1 => "<invalid>".into(),
        -1..=0 => "0s".into(),
        1..120 => format!("{seconds}s"),
        120..600 => two(seconds / MINUTE, "m", seconds % MINUTE, "s"),
        600..10_800 => format!("{}m", seconds / MINUTE),
        10_800..28_800 => two(seconds / HOUR, "h", seconds % HOUR / MINUTE, "m"),
        28_800..172_800 => format!("{}h", seconds / HOUR),
        172_800..691_200 => two(seconds / DAY, "d", seconds % DAY / HOUR, "h"),
        691_200..63_072_000 => format!("{}d", seconds / DAY),
        63_072_000..252_288_000 => two(seconds / YEAR, "y", seconds % YEAR / DAY, "d"),
        _ => format!("{}y", seconds / YEAR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_kubectl_shows_them() {
        for (seconds, shown) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (150, "2m30s"),
            (900, "15m"),
            (3 * 3600 + 60, "3h1m"),
            (10 * 3600, "10h"),
            (3 * 86_400, "3d"),
            (30 * 86_400, "30d"),
            (800 * 86_400, "2y70d"),
        ] {
            assert_eq!(duration(seconds), shown);
        }
    }

    #[test]
    fn accept_headers_choose_the_view() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(View::accepted(table, "Object"), View::Table(Include::Object));
        assert_eq!(View::accepted("application/json", ""), View::Whole);
        let metadata = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        assert_eq!(View::accepted(metadata, ""), View::Metadata);
    }
}
