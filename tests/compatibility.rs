//! `docs/compatibility.md` is true: it has every field of our kinds, what it calls refused is refused and what it calls the
//! same is not, and every scenario and test that it leans on exists.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use regex::Regex;
use serde_json::{Value, json};
use tidegate::cli::{lint, manifest};

const VERDICTS: [&str; 5] = ["same", "safer, because ", "other, because ", "opt-in", "not yet"];
/// Kinds that validation sees; AnalysisRuns are made by the controller from templates.
const VALIDATED: [&str; 3] = ["Rollout", "AnalysisTemplate", "ClusterAnalysisTemplate"];

/// A line of a table.
struct Row {
    /// The kinds whose fields it names; none when it is about a behaviour.
    kinds: Vec<String>,
    /// Fields, such as `spec.template.*`; or a behaviour in words.
    what: Vec<String>,
    verdict: String,
    shown_by: Vec<String>,
    line: usize,
}

/// A field without fields of its own, in an object that has nothing else beside what must be there.
struct Leaf {
    path: String,
    object: Value,
}

#[test]
fn every_row_says_how_it_is_and_what_shows_it() {
    for row in rows() {
        let place = format!("docs/compatibility.md:{}", row.line);
        assert!(
            VERDICTS.iter().any(|verdict| row.verdict.starts_with(verdict)),
            "{place}: {:?} is none of {VERDICTS:?}",
            row.verdict
        );
        let evident = row.verdict == "not yet" || !row.shown_by.is_empty();
        assert!(evident, "{place}: no scenario and no test shows this");
        for shown_by in &row.shown_by {
            assert!(exists(shown_by), "{place}: there is no scenario and no file {shown_by}");
        }
    }
}

#[test]
fn every_field_is_there_once_and_no_other() {
    let rows = rows();
    for (kind, leaves) in kinds() {
        let mut used = BTreeSet::new();
        let mut missing = Vec::new();
        for leaf in &leaves {
            match row_of(&rows, &kind, &leaf.path) {
                Some((row, named)) => drop(used.insert((row.line, named.to_owned()))),
                None => missing.push(leaf.path.as_str()),
            }
        }
        assert!(missing.is_empty(), "docs/compatibility.md does not name these fields of {kind}: {missing:#?}");
        for row in rows.iter().filter(|row| row.kinds.contains(&kind)) {
            for named in &row.what {
                let found = used.contains(&(row.line, named.clone()));
                assert!(
                    found,
                    "docs/compatibility.md:{}: {kind} has no field {named}, or another row has it",
                    row.line
                );
            }
        }
    }
}

#[test]
fn what_is_not_there_yet_is_refused_and_nothing_else() {
    let rows = rows();
    let (mut refused, mut accepted) = (0, 0);
    for (kind, leaves) in kinds().into_iter().filter(|(kind, _)| VALIDATED.contains(&kind.as_str())) {
        for leaf in leaves {
            let Some((row, _)) = row_of(&rows, &kind, &leaf.path) else { continue };
            let errors = errors(&kind, leaf.object);
            let not_yet = errors.iter().any(|error| error.contains(" yet"));
            let place = format!("docs/compatibility.md:{}: {} of {kind}", row.line, leaf.path);
            if row.verdict == "not yet" {
                assert!(not_yet, "{place} is not refused: {errors:#?}");
                refused += 1;
            } else {
                assert!(!not_yet, "{place} is refused: {errors:#?}");
                accepted += 1;
            }
        }
    }
    assert!(accepted > 300, "only {accepted} fields were looked at, and {refused} refused");
}

/// What lint says about an object that has only this field beside what it must have.
fn errors(kind: &str, field: Value) -> Vec<String> {
    let mut object = match kind {
        "Rollout" => json!({"spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "web"}]},
            },
            "strategy": {"canary": {}},
        }}),
        _ => json!({"spec": {"metrics": [{"name": "a"}]}}),
    };
    merge(&mut object, field);
    if let Some(metric) = object.pointer_mut("/spec/metrics/0")
        && metric["provider"].is_null()
    {
        metric["provider"] = json!({"prometheus": {"address": "http://prometheus", "query": "up"}});
    }
    object["apiVersion"] = "argoproj.io/v1alpha1".into();
    object["kind"] = kind.into();
    object["metadata"] = json!({"name": "web"});
    lint::check(&manifest::parse("field", &object.to_string()).unwrap()).errors
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(into), Value::Array(from)) if !into.is_empty() => {
            for (item, value) in into.iter_mut().zip(from) {
                merge(item, value);
            }
        }
        (into, from) => *into = from,
    }
}

/// The row that names a field, or the nearest field above it with `.*`; and by which name.
fn row_of<'a>(rows: &'a [Row], kind: &str, path: &str) -> Option<(&'a Row, &'a str)> {
    let named = rows.iter().filter(|row| row.kinds.iter().any(|of| of == kind));
    let named = named.flat_map(|row| row.what.iter().map(move |what| (row, what.as_str())));
    let covers = |what: &str| match what.strip_suffix(".*") {
        Some(above) => path.strip_prefix(above).is_some_and(|rest| rest.starts_with('.') || rest.starts_with("[]")),
        None => what == path,
    };
    named.filter(|(_, what)| covers(what)).max_by_key(|(_, what)| what.len())
}

/// A file, or a scenario by its name; `takeover-*` is any that begins so.
fn exists(evidence: &str) -> bool {
    if evidence.contains('/') {
        return root().join(evidence).exists();
    }
    let folder = root().join("e2e/scenarios");
    match evidence.strip_suffix('*') {
        Some(beginning) => {
            let mut files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name());
            files.any(|name| {
                name.to_str().is_some_and(|name| name.starts_with(beginning) && name.ends_with(".scenario"))
            })
        }
        None => folder.join(format!("{evidence}.scenario")).exists(),
    }
}

/// The rows of the tables that have three columns. A heading such as `### Rollout` names the kinds of what is below.
fn rows() -> Vec<Row> {
    let quoted = Regex::new("`([^`]+)`").unwrap();
    let quoted = |cell: &str| quoted.captures_iter(cell).map(|found| found[1].to_owned()).collect::<Vec<_>>();
    let page = std::fs::read_to_string(root().join("docs/compatibility.md")).unwrap();
    let known: BTreeSet<String> = kinds().into_iter().map(|(kind, _)| kind).collect();
    let (mut rows, mut kinds) = (Vec::new(), Vec::new());
    for (number, line) in page.lines().enumerate() {
        if line.starts_with('#') {
            let words = line.trim_start_matches(['#', ' ']).split(", ").map(str::to_owned);
            kinds = words.filter(|word| known.contains(word)).collect();
            continue;
        }
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [what, verdict, shown_by] = cells.as_slice() else { continue };
        if !line.starts_with("| ") || *what == "field" || *what == "what" {
            continue;
        }
        let what = if kinds.is_empty() { vec![(*what).to_owned()] } else { quoted(what) };
        let (kinds, verdict) = (kinds.clone(), (*verdict).to_owned());
        rows.push(Row { kinds, what, verdict, shown_by: quoted(shown_by), line: number + 1 });
    }
    assert!(rows.len() > 50, "docs/compatibility.md has changed its form: {} rows found", rows.len());
    rows
}

/// The kinds of our API and the fields of their specs, from the CRDs.
fn kinds() -> Vec<(String, Vec<Leaf>)> {
    let folder = root().join("crds");
    let mut kinds = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let crd = &manifest::parse("crd", &text).unwrap()[0].value;
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap().to_owned();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let leaves = leaves("spec", schema);
        let leaves = leaves.into_iter().map(|leaf| Leaf { object: json!({"spec": leaf.object}), ..leaf }).collect();
        kinds.push((kind, leaves));
    }
    kinds.sort_by(|a, b| a.0.cmp(&b.0));
    kinds
}

fn leaves(path: &str, schema: &Value) -> Vec<Leaf> {
    if schema["type"] == "array" {
        let inner = leaves(&format!("{path}[]"), &schema["items"]);
        return inner.into_iter().map(|leaf| Leaf { object: json!([leaf.object]), ..leaf }).collect();
    }
    let Some(properties) = schema["properties"].as_object() else {
        return vec![Leaf { path: path.to_owned(), object: sample(path, schema) }];
    };
    let required = |but: &str| {
        let names = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let others = names.filter(move |name| *name != but);
        others.map(|name| (name.to_owned(), sample(name, &properties[name]))).collect::<serde_json::Map<_, _>>()
    };
    let mut found = Vec::new();
    for (name, schema) in properties {
        for leaf in leaves(&format!("{path}.{name}"), schema) {
            let mut object = required(name);
            object.insert(name.clone(), leaf.object);
            found.push(Leaf { object: object.into(), ..leaf });
        }
    }
    found
}

/// Some value that a field may have.
fn sample(path: &str, schema: &Value) -> Value {
    let lasts = ["duration", "interval", "initialDelay", "Timeout", "timeout"].iter().any(|end| path.ends_with(end));
    match schema["type"].as_str() {
        Some("boolean") => true.into(),
        Some("integer" | "number") => 1.into(),
        Some("array") => json!([sample(path, &schema["items"])]),
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let fields = required.map(|name| (name.to_owned(), sample(name, &schema["properties"][name])));
            match schema["additionalProperties"].as_object() {
                Some(_) => json!({"a": sample(path, &schema["additionalProperties"])}),
                None if schema["properties"].is_null() => json!({"a": "b"}),
                None => Value::Object(fields.collect()),
            }
        }
        Some("string") if schema["format"] == "date-time" => "2026-01-01T00:00:00Z".into(),
        Some("string") if schema["enum"].is_array() => schema["enum"][0].clone(),
        Some("string") if lasts => "10s".into(),
        Some("string") => "x".into(),
        _ if schema["x-kubernetes-int-or-string"] == true => 1.into(),
        _ => json!({"a": "b"}),
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
