//! Reading manifests: files, folders and standard input, several documents each, `List` objects taken apart.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The largest file that is read, in bytes.
const LIMIT: u64 = 16 << 20;

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
    pub fn decode<T: DeserializeOwned>(&self) -> Result<(T, Vec<String>), String> {
        let mut unknown = Vec::new();
        let mut track = serde_path_to_error::Track::new();
        let deserializer = serde_path_to_error::Deserializer::new(&self.value, &mut track);
        let decoded = serde_ignored::deserialize(deserializer, |path| {
            unknown.push(field_path(&path.to_string()));
        });
        match decoded {
            Ok(object) => {
                // The types carry these two in their name.
                unknown.retain(|path| path != "apiVersion" && path != "kind");
                Ok((object, unknown))
            }
            Err(error) => Err(format!("{}: {error}", track.path())),
        }
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
