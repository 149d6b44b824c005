//! Reading manifests: files, folders and standard input, several documents each, `List` objects taken apart.

use std::borrow::Cow;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use serde_path_to_error::Segment;

/// The largest file that is read, in bytes.
const LIMIT: u64 = 16 << 20;
/// Of one object that are told.
const MOST_ERRORS: usize = 50;

/// One object of a manifest, and where it stands.
#[derive(Clone, Debug)]
pub struct Object {
    pub source: Source,
    pub value: Value,
}

/// A document of a file.
#[derive(Clone, Debug)]
pub struct Source {
    pub file: String,
    /// Counted from 1; `None` when the file has just one.
    pub document: Option<usize>,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        self.document.map_or(Ok(()), |document| write!(f, " (document {document})"))
    }
}

impl Object {
    pub fn kind(&self) -> &str {
        self.value["kind"].as_str().unwrap_or_default()
    }

    pub fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or_default()
    }

    pub fn is(&self, group: &str, kind: &str) -> bool {
        let api_version = self.value["apiVersion"].as_str().unwrap_or_default();
        api_version.split_once('/').map_or("", |(group, _)| group) == group && self.kind() == kind
    }

    /// The typed object, and the paths of fields that it does not have.
    ///
    /// # Errors
    /// Everything that has a wrong type, and then the fields that it does not have.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<(T, Vec<String>), Vec<String>> {
        let mut value = Cow::Borrowed(&self.value);
        let mut errors = Vec::new();
        loop {
            let mut unknown = Vec::new();
            let mut track = serde_path_to_error::Track::new();
            let deserializer = serde_path_to_error::Deserializer::new(value.as_ref(), &mut track);
            let decoded = serde_ignored::deserialize(deserializer, |path| {
                unknown.push(field_path(&path.to_string()));
            });
            // The types carry these two in their name.
            unknown.retain(|path| path != "apiVersion" && path != "kind");
            match decoded {
                Ok(object) if errors.is_empty() => return Ok((object, unknown)),
                Ok(_) => {
                    errors.extend(unknown.iter().map(|path| format!("{path}: unknown field")));
                    return Err(errors);
                }
                Err(error) => {
                    let (path, error) = (track.path(), error.to_string());
                    // What is missing may be what was taken out.
                    if !errors.is_empty() && error.starts_with("missing field") {
                        return Err(errors);
                    }
                    let is_whole = path.iter().next().is_none();
                    errors.push(if is_whole { error } else { format!("{path}: {error}") });
                    // What else is wrong shows without it.
                    if errors.len() == MOST_ERRORS || !take_out(value.to_mut(), &path) {
                        return Err(errors);
                    }
                }
            }
        }
    }
}

/// Takes out what cannot be decoded, if anything is there. An item leaves an empty one: the paths of the others stay what they are.
fn take_out(value: &mut Value, path: &serde_path_to_error::Path) -> bool {
    let mut segments: Vec<&Segment> = path.iter().collect();
    let Some(last) = segments.pop() else { return false };
    let parent = segments.into_iter().try_fold(value, |value, segment| match segment {
        Segment::Map { key } => value.get_mut(key),
        Segment::Seq { index } => value.get_mut(*index),
        Segment::Enum { .. } | Segment::Unknown => None,
    });
    match (parent, last) {
        (Some(Value::Object(fields)), Segment::Map { key }) => fields.remove(key).is_some(),
        (Some(Value::Array(items)), Segment::Seq { index }) => {
            let empty = || Value::Object(Map::new());
            items.get_mut(*index).is_some_and(|item| std::mem::replace(item, empty()) != empty())
        }
        _ => false,
    }
}

/// `spec.strategy.?.steps.0.x`, as serde_ignored writes a path, in the way of Kubernetes: `spec.strategy.steps[0].x`.
fn field_path(path: &str) -> String {
    let mut field_path = String::new();
    for part in path.split('.').filter(|part| *part != "?") {
        if part.bytes().all(|byte| byte.is_ascii_digit()) {
            field_path.push_str(&format!("[{part}]"));
        } else {
            if !field_path.is_empty() {
                field_path.push('.');
            }
            field_path.push_str(part);
        }
    }
    field_path
}

/// All objects of the given files and folders (`*.yaml`, `*.yml`, `*.json`, not below them); `-` is standard input.
pub fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<Object>> {
    let mut objects = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            let mut text = String::new();
            std::io::stdin().take(LIMIT).read_to_string(&mut text).context("cannot read standard input")?;
            objects.extend(parse("standard input", &text)?);
        } else if path.is_dir() {
            for file in files(path)? {
                objects.extend(read_file(&file)?);
            }
        } else {
            objects.extend(read_file(path)?);
        }
    }
    Ok(objects)
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if path.is_file() && ["yaml", "yml", "json"].contains(&extension) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Path) -> anyhow::Result<Vec<Object>> {
    let name = path.display().to_string();
    let length = std::fs::metadata(path).with_context(|| format!("cannot read {name}"))?.len();
    if length > LIMIT {
        bail!("{name} has {length} bytes; manifests of at most {LIMIT} bytes are read");
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    parse(&name, &text)
}

/// The objects of a YAML or JSON text.
pub fn parse(name: &str, text: &str) -> anyhow::Result<Vec<Object>> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|error| anyhow::anyhow!("{name} is not YAML: {error}"))?;
    let single = documents.len() == 1;
    let mut objects = Vec::new();
    for (index, document) in documents.into_iter().enumerate() {
        let source = Source { file: name.to_owned(), document: (!single).then_some(index + 1) };
        flatten(document, &source, &mut objects);
    }
    Ok(objects)
}

fn flatten(mut document: Value, source: &Source, objects: &mut Vec<Object>) {
    if document.is_null() {
        return;
    }
    let is_list = document["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
    match document.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) if is_list => {
            for item in items {
                flatten(item, source, objects);
            }
        }
        items => {
            if let Some(items) = items {
                document["items"] = items;
            }
            objects.push(Object { source: source.clone(), value: document });
        }
    }
}
