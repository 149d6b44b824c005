//! Answers as text, without what legitimately differs between two servers.
//!
//! | in the answer | in the text |
//! |---|---|
//! | uids | `uid-1`, `uid-2`, … as they appear |
//! | resourceVersions of objects | `v1`, `v2`, … in their order: equal ones stay equal, later ones greater |
//! | resourceVersions of lists, of objects with generated names, and of what was waited for; continue tokens | `some`, `TOKEN`: that there is one |
//! | instants, addresses, node names, node ports | `TIME`, `IP`, `NODE`, `PORT` |
//! | names made from `generateName`, hashes of pod templates | the prefix with `~`, `HASH`; lists with such names are ordered by their text |
//! | the status of a pod that a kubelet has | its phase and whether it is ready |
//! | the generation of an EndpointSlice, the managers of endpoints, the time that triggered a change | left out: they count what its controller saw in between |
//! | the order of several wrong fields, or of several managers in a conflict | by name: the real server's changes from time to time |
//! | the descriptions of a table's columns, ages | left out, `AGE` |
//! | the order of `managedFields` | by operation, manager and version: the server's own order depends on the second |

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::run::Answer;
use super::script::{Script, shown};

/// The requests of a script with their answers.
pub fn text(script: &Script, namespace: &str, answers: &[Answer]) -> String {
    let mut normal = Normal::of(script, namespace, answers);
    let mut text = format!("# {}\n", script.title);
    for (request, answer) in script.requests.iter().zip(answers).filter(|(request, _)| !request.unseen) {
        let _ = writeln!(text, "\n{}", request.line());
        let _ = writeln!(text, "{}{}", answer.code, normal.body(&answer.body));
        for warning in &answer.warnings {
            let _ = writeln!(text, "  warning {}", normal.string(warning));
        }
    }
    text
}

/// What is known of the names and numbers of a run.
#[derive(Default)]
struct Normal {
    namespace: String,
    versions: BTreeMap<u64, usize>,
    uids: BTreeMap<String, String>,
    /// Names and hashes to be replaced, the longest first.
    names: Vec<(String, String)>,
}

impl Normal {
    fn of(script: &Script, namespace: &str, answers: &[Answer]) -> Self {
        let mut normal = Self { namespace: namespace.to_owned(), ..Self::default() };
        let mut versions = BTreeSet::new();
        let mut names = BTreeSet::new();
        for (request, answer) in script.requests.iter().zip(answers).filter(|(request, _)| !request.unseen) {
            // When controllers wrote what was waited for is a matter of their speed.
            let waited = !request.until.is_empty();
            each_object(&answer.body, &mut |object| {
                let meta = &object["metadata"];
                let text = |field: &str| meta[field].as_str().unwrap_or_default();
                for label in ["pod-template-hash", "controller-revision-hash"] {
                    if let Some(hash) = meta["labels"][label].as_str() {
                        names.insert((hash.to_owned(), "HASH".to_owned()));
                    }
                }
                let (name, prefix) = (text("name"), text("generateName"));
                if !prefix.is_empty() && name.starts_with(prefix) {
                    names.insert((name.to_owned(), format!("{prefix}~")));
                    normal.uids.insert(text("uid").to_owned(), "uid~".to_owned());
                } else if let (false, Ok(version)) = (waited, text("resourceVersion").parse::<u64>()) {
                    versions.insert(version);
                }
            });
        }
        normal.versions = versions.into_iter().enumerate().map(|(at, version)| (version, at + 1)).collect();
        normal.names = names.into_iter().collect();
        normal.names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        normal
    }

    fn body(&mut self, body: &Value) -> String {
        match body {
            Value::Array(events) => {
                let mut text = String::new();
                for event in events {
                    let _ = write!(text, "\n  {}", event["type"].as_str().unwrap_or_default());
                    let mut object = event["object"].clone();
                    if event["type"] == "BOOKMARK" {
                        object["metadata"]["resourceVersion"] = "some".into();
                    }
                    if object.is_object() {
                        text += &indented(&self.object(&object));
                    }
                }
                text
            }
            Value::Object(fields) if fields.contains_key("items") => {
                let mut head = fields.clone();
                let items = head.remove("items").unwrap_or_default();
                let items = items.as_array().map_or(&[][..], Vec::as_slice);
                let generated = items.iter().any(|item| item["metadata"].get("generateName").is_some());
                // The items of built-in kinds do not say their kind.
                let of_pods = fields["kind"] == "PodList";
                let items: Vec<Value> =
                    items.iter().cloned().map(|item| if of_pods { pod(item) } else { item }).collect();
                let mut order: Vec<&Value> = items.iter().collect();
                if generated {
                    // Without numbers, which come with the order.
                    order.sort_by_key(|item| Self { uids: self.uids.clone(), ..self.unnumbered() }.object(item));
                }
                if let Some(version) = head.get_mut("metadata").and_then(|meta| meta.get_mut("resourceVersion")) {
                    // It moves with what others do.
                    *version = "some".into();
                }
                let mut text = self.object(&head.into());
                for item in order {
                    let _ = write!(text, "\n  -{}", indented(&self.object(item)));
                }
                text
            }
            Value::Object(_) => self.object(body),
            Value::String(text) => format!(" {}", self.string(text)),
            other => format!(" {other}"),
        }
    }

    fn unnumbered(&self) -> Self {
        Self { namespace: self.namespace.clone(), names: self.names.clone(), ..Self::default() }
    }

    /// An object, one line a field.
    fn object(&mut self, object: &Value) -> String {
        let Value::Object(fields) = object else { return format!(" {object}") };
        let mut fields = fields.clone();
        let word = |fields: &mut Map<String, Value>, name: &str| {
            fields.remove(name).and_then(|it| it.as_str().map(str::to_owned)).unwrap_or_default()
        };
        let (kind, version) = (word(&mut fields, "kind"), word(&mut fields, "apiVersion"));
        match kind.as_str() {
            "Pod" => fields = pod(Value::Object(fields)).as_object().cloned().unwrap_or_default(),
            "Status" => sort_causes(&mut fields),
            "Table" => table(&mut fields),
            _ => {}
        }
        let mut text = format!(" {kind} {}", self.string(&version));
        controllers_speed(&kind, &mut fields);
        let managers =
            fields.get_mut("metadata").and_then(Value::as_object_mut).map(|meta| meta.remove("managedFields"));
        for (name, value) in &fields {
            let value = self.value(name, value);
            let _ = write!(text, "\n    {name}: {value}");
        }
        let entries = managers.flatten();
        let mut lines: Vec<String> =
            entries.iter().filter_map(Value::as_array).flatten().map(|it| self.manager(it)).collect();
        lines.sort();
        for line in lines {
            let _ = write!(text, "\n    managed by {line}");
        }
        text
    }

    fn manager(&mut self, entry: &Value) -> String {
        let of = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        let part = of("subresource");
        let part = if part.is_empty() { part } else { format!("/{part}") };
        let fields = self.value("", &entry["fieldsV1"]);
        let version = self.string(&of("apiVersion"));
        format!("{} {}{part} {version}: {fields}", of("operation"), of("manager"))
    }

    fn value(&mut self, name: &str, value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let of = |name: &str, value: &Value, it: &mut Self| (it.string(name), it.value(name, value));
                fields.iter().map(|(name, value)| of(name, value, self)).collect::<Map<_, _>>().into()
            }
            Value::Array(items) => items.iter().map(|item| self.value(name, item)).collect(),
            Value::String(text) => match name {
                "resourceVersion" => match text.parse::<u64>().ok().and_then(|version| self.versions.get(&version)) {
                    Some(rank) => format!("v{rank}").into(),
                    None => "some".into(),
                },
                "continue" if !text.is_empty() => "TOKEN".into(),
                "nodeName" | "hostIP" => "NODE".into(),
                _ => self.string(text).into(),
            },
            Value::Number(_) if matches!(name, "nodePort" | "healthCheckNodePort") => "PORT".into(),
            other => other.clone(),
        }
    }

    fn string(&mut self, text: &str) -> String {
        let mut text = text.replace(&self.namespace, "$ns");
        for (name, shown) in &self.names {
            text = text.replace(name, shown);
        }
        let mut normal = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some(first) = rest.chars().next() {
            let taken = if let Some(length) = uid_length(rest) {
                let next = format!("uid-{}", self.uids.values().filter(|it| *it != "uid~").count() + 1);
                normal += self.uids.entry(rest[..length].to_owned()).or_insert(next);
                length
            } else if let Some(length) = instant_length(rest) {
                normal += "TIME";
                length
            } else if let Some(length) =
                address_length(rest).filter(|_| !normal.ends_with(|c: char| c.is_ascii_digit()))
            {
                normal += "IP";
                length
            } else if let Some(number) =
                rest.strip_prefix("node-").filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
            {
                normal += "NODE";
                rest.len() - number.trim_start_matches(|c: char| c.is_ascii_digit()).len()
            } else if let Some((lead, length)) = version_length(rest) {
                let version = rest[lead..length].parse::<u64>().ok();
                normal += &rest[..lead];
                match version.and_then(|version| self.versions.get(&version)) {
                    Some(rank) => normal += &format!("v{rank}"),
                    None => normal += "N",
                }
                length
            } else {
                normal.push(first);
                first.len_utf8()
            };
            rest = &rest[taken..];
        }
        normal
    }
}

/// Calls back for every object of an answer that is not a list.
fn each_object(body: &Value, see: &mut impl FnMut(&Value)) {
    match body {
        Value::Array(events) => {
            events
                .iter()
                .filter(|event| event["type"] != "BOOKMARK")
                .for_each(|event| each_object(&event["object"], see));
        }
        Value::Object(fields) => match (fields.get("items"), fields.get("rows")) {
            (Some(Value::Array(items)), _) => items.iter().for_each(&mut *see),
            (_, Some(Value::Array(rows))) => rows.iter().for_each(|row| see(&row["object"])),
            _ => see(body),
        },
        _ => {}
    }
}

/// Takes out what depends on how fast the endpoints controllers are.
fn controllers_speed(kind: &str, fields: &mut Map<String, Value>) {
    let slice = kind == "EndpointSlice" || fields.contains_key("addressType");
    let Some(Value::Object(meta)) = fields.get_mut("metadata") else { return };
    if slice {
        meta.remove("generation");
    }
    if slice || meta.get("labels").is_some_and(|labels| labels.get("endpoints.kubernetes.io/managed-by").is_some()) {
        // Whether the annotation below was there when the manager wrote is in its fields.
        meta.remove("managedFields");
    }
    let trigger = "endpoints.kubernetes.io/last-change-trigger-time";
    let Some(Value::Object(annotations)) = meta.get_mut("annotations") else { return };
    if annotations.remove(trigger).is_some() {
        let none_left = annotations.is_empty();
        if none_left {
            meta.remove("annotations");
        }
    }
}

/// Nobody can tell which of several wrong fields the real server finds first.
fn sort_causes(fields: &mut Map<String, Value>) {
    if let Some(Value::String(message)) = fields.get_mut("message") {
        let (head, rest) = message.split_once("conflicts: ").unwrap_or((message, ""));
        let mut managers: Vec<&str> =
            rest.split("conflicts with ").filter(|part| !part.is_empty()).map(str::trim_end).collect();
        if managers.len() > 1 {
            managers.sort_unstable();
            *message = format!("{head}conflicts: {}", managers.join("; "));
        }
    }
    let causes = fields.get_mut("details").and_then(|details| details["causes"].as_array_mut());
    let Some(causes) = causes.filter(|causes| causes.len() > 1) else { return };
    let shown = |cause: &Value| format!("{}: {}", shown(&cause["field"]), shown(&cause["message"]));
    let listed = |causes: &[Value]| {
        let mut all: Vec<String> = causes.iter().map(shown).collect();
        all.dedup();
        format!("[{}]", all.join(", "))
    };
    let before = listed(causes);
    causes.sort_by_key(shown);
    let after = listed(causes);
    if let Some(Value::String(message)) = fields.get_mut("message") {
        *message = message.replace(&before, &after);
    }
}

/// A table without the descriptions of its columns, which are prose, the version of its list, and ages.
fn table(fields: &mut Map<String, Value>) {
    if let Some(Value::Array(columns)) = fields.get_mut("columnDefinitions") {
        for column in columns.iter_mut().filter_map(Value::as_object_mut) {
            column.remove("description");
        }
    }
    let rows = fields.get_mut("rows").and_then(Value::as_array_mut).into_iter().flatten();
    for cell in rows.filter_map(|row| row["cells"].as_array_mut()).flatten() {
        let age = cell.as_str().and_then(|text| text.strip_suffix('s')).is_some_and(|text| text.parse::<u32>().is_ok());
        if age {
            *cell = "AGE".into();
        }
    }
    if let Some(version) = fields.get_mut("metadata").and_then(|meta| meta.get_mut("resourceVersion")) {
        *version = "some".into();
    }
}

fn pod(mut pod: Value) -> Value {
    if let Value::Object(fields) = &mut pod {
        pod_status(fields);
    }
    pod
}

fn pod_status(fields: &mut Map<String, Value>) {
    let kubelets = fields.get("spec").is_some_and(|spec| spec["nodeName"].is_string());
    if let Some(status) = fields.get_mut("status").filter(|_| kubelets) {
        let conditions = status["conditions"].as_array();
        let ready = conditions.into_iter().flatten().any(|it| it["type"] == "Ready" && it["status"] == "True");
        *status = json!({"phase": status["phase"], "ready": ready});
        // Which fields it owns is the kubelet's affair.
        if let Some(Value::Array(entries)) = fields.get_mut("metadata").and_then(|meta| meta.get_mut("managedFields")) {
            entries.retain(|entry| entry["subresource"] != "status");
        }
    }
}

fn indented(text: &str) -> String {
    text.replace('\n', "\n  ")
}

/// The length of the uid that a text begins with.
fn uid_length(text: &str) -> Option<usize> {
    let head = text.get(..36)?;
    let fits = head.bytes().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    fits.then_some(36)
}

/// The length of the instant that a text begins with: `2026-01-01T00:00:00Z`, with or without a fraction.
fn instant_length(text: &str) -> Option<usize> {
    let head = text.get(..19)?;
    let fits = head.bytes().enumerate().all(|(at, byte)| match at {
        4 | 7 => byte == b'-',
        10 => byte == b'T',
        13 | 16 => byte == b':',
        _ => byte.is_ascii_digit(),
    });
    let end = text[19..].find('Z').filter(|at| text[19..19 + at].bytes().all(|b| b == b'.' || b.is_ascii_digit()))?;
    fits.then_some(20 + end)
}

/// The length of the address of a pod or service that a text begins with.
fn address_length(text: &str) -> Option<usize> {
    let end = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
    let parts: Vec<&str> = text[..end].trim_end_matches('.').split('.').collect();
    let fits = parts.len() == 4 && parts[0] == "10" && parts.iter().all(|part| part.parse::<u8>().is_ok());
    fits.then(|| text[..end].trim_end_matches('.').len())
}

/// Where the resourceVersion begins and ends that a message begins with.
fn version_length(text: &str) -> Option<(usize, usize)> {
    const LEADS: [&str; 6] = [
        r#"resourceVersion\":\""#,
        "ResourceVersion in the precondition (",
        "ResourceVersion in record (",
        "resource version: ",
        "current: ",
        "list is too old: ",
    ];
    let lead = LEADS.iter().find(|lead| text.starts_with(**lead))?.len();
    let digits = text[lead..].bytes().take_while(u8::is_ascii_digit).count();
    (digits > 0).then_some((lead, lead + digits))
}

#[cfg(test)]
mod tests {
    use super::super::script::parse;
    use super::*;

    #[test]
    fn what_differs_by_nature_is_left_out_and_the_rest_is_kept() {
        let script = &parse("# t\n\nGET configmaps/a\nGET configmaps\n").unwrap()[0];
        let run = |ns: &str, uid: &str, versions: [&str; 2], time: &str| {
            let map = |version: &str| {
                json!({"kind": "ConfigMap", "apiVersion": "v1", "data": {"at": "10.1.2.3", "port": "80"},
                "metadata": {"namespace": ns, "uid": uid, "resourceVersion": version, "creationTimestamp": time}})
            };
            let list = json!({"kind": "List", "metadata": {"resourceVersion": "999"}, "items": [map(versions[1])]});
            let answer = |body| Answer { code: 200, warnings: Vec::new(), body };
            text(script, ns, &[answer(map(versions[0])), answer(list)])
        };
        let one = run("f-1", "00000000-0000-4000-8000-000000000001", ["5", "9"], "2026-01-01T00:00:00Z");
        let other = run("f-2", "10000000-0000-4000-8000-000000000001", ["17", "33"], "2026-01-02T00:00:00.123Z");
        assert_eq!(one, other);
        assert!(
            one.contains(
                r#"metadata: {"creationTimestamp":"TIME","namespace":"$ns","resourceVersion":"v1","uid":"uid-1"}"#
            ),
            "{one}"
        );
        // An object that did not move is not one that did.
        let still = run("f-2", "10000000-0000-4000-8000-000000000001", ["17", "17"], "2026-01-02T00:00:00Z");
        assert_ne!(one, still);
    }
}
