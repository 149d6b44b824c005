//! Label selectors and field selectors.

use serde_json::Value;

use super::resource::Resource;
use super::status::{Refusal, bad_request};

/// A label selector: all requirements must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LabelSelector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq)]
struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    In,
    NotIn,
    Exists,
    Absent,
}

impl LabelSelector {
    /// Parses the form that queries use: `app=x,tier!=y,env in (a,b),!old`.
    ///
    /// # Errors
    /// A bad request that names the part that could not be read.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let mut requirements = Vec::new();
        for part in split_outside_parentheses(text) {
            let part = part.trim();
            if !part.is_empty() {
                requirements.push(Requirement::parse(part).ok_or_else(|| bad_request(unreadable(part)))?);
            }
        }
        Ok(Self(requirements))
    }

    /// A selector from an object: a LabelSelector (`matchLabels`, `matchExpressions`) or a plain map of labels.
    ///
    /// An absent or malformed selector selects nothing.
    pub fn of(selector: &Value) -> Option<Self> {
        let fields = selector.as_object()?;
        let mut requirements = Vec::new();
        let structured = fields.contains_key("matchLabels") || fields.contains_key("matchExpressions");
        let labels = if structured { fields.get("matchLabels").and_then(Value::as_object) } else { Some(fields) };
        for (key, value) in labels.into_iter().flatten() {
            let values = vec![value.as_str()?.to_owned()];
            requirements.push(Requirement { key: key.clone(), operator: Operator::In, values });
        }
        for expression in fields.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let operator = match expression["operator"].as_str()? {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::Absent,
                _ => return None,
            };
            let values = expression["values"].as_array().into_iter().flatten();
            requirements.push(Requirement {
                key: expression["key"].as_str()?.to_owned(),
                operator,
                values: values.filter_map(|value| value.as_str().map(Into::into)).collect(),
            });
        }
        Some(Self(requirements))
    }

    /// Whether an object's labels satisfy the selector.
    pub fn matches(&self, object: &Value) -> bool {
        self.matches_labels(object.pointer("/metadata/labels").unwrap_or(&Value::Null))
    }

    /// Whether a map of labels satisfies the selector.
    pub fn matches_labels(&self, labels: &Value) -> bool {
        self.0.iter().all(|requirement| requirement.holds(labels.get(&requirement.key).and_then(Value::as_str)))
    }

    /// The selector in the form that queries use.
    pub fn to_query(&self) -> String {
        let parts: Vec<String> = self.0.iter().map(Requirement::to_query).collect();
        parts.join(",")
    }
}

impl Requirement {
    fn parse(part: &str) -> Option<Self> {
        let make = |key: &str, operator, values: Vec<String>| {
            let key = key.trim();
            if values.iter().any(|value| value.contains(char::is_whitespace)) {
                return None;
            }
            let plain = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
            plain.then(|| Self { key: key.to_owned(), operator, values })
        };
        if let Some(key) = part.strip_prefix('!') {
            return make(key, Operator::Absent, Vec::new());
        }
        if let Some((key, value)) = part.split_once("!=") {
            return make(key, Operator::NotIn, vec![value.trim().to_owned()]);
        }
        if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            return make(key, Operator::In, vec![value.trim().to_owned()]);
        }
        if let Some(head) = part.strip_suffix(')') {
            let (head, values) = head.split_once('(')?;
            let (key, operator) = head.trim().split_once(char::is_whitespace)?;
            let operator = match operator.trim() {
                "in" => Operator::In,
                "notin" => Operator::NotIn,
                _ => return None,
            };
            return make(key, operator, values.split(',').map(|value| value.trim().to_owned()).collect());
        }
        make(part, Operator::Exists, Vec::new())
    }

    fn holds(&self, label: Option<&str>) -> bool {
        let listed = |label: &str| self.values.iter().any(|value| value == label);
        match self.operator {
            Operator::In => label.is_some_and(listed),
            Operator::NotIn => !label.is_some_and(listed),
            Operator::Exists => label.is_some(),
            Operator::Absent => label.is_none(),
        }
    }

    fn to_query(&self) -> String {
        match (self.operator, self.values.as_slice()) {
            (Operator::In, [value]) => format!("{}={value}", self.key),
            (Operator::NotIn, [value]) => format!("{}!={value}", self.key),
            (Operator::In, values) => format!("{} in ({})", self.key, values.join(",")),
            (Operator::NotIn, values) => format!("{} notin ({})", self.key, values.join(",")),
            (Operator::Exists, _) => self.key.clone(),
            (Operator::Absent, _) => format!("!{}", self.key),
        }
    }
}

/// Why a requirement cannot be read, as far as that can be told by its beginning and end.
fn unreadable(part: &str) -> String {
    let words: Vec<&str> = part.split_whitespace().collect();
    match words.as_slice() {
        [first, ..] if first.starts_with('=') => "found '=', expected: !, identifier, or 'end of string'".into(),
        [_, "in" | "notin"] => "unable to parse requirement: found '' expected: '('".into(),
        [first, second, ..] if first.contains('=') => format!("found '{second}', expected: ',' or 'end of string'"),
        _ => format!("unable to parse requirement: {part}"),
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// A field selector: all terms must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct FieldSelector(Vec<(String, bool, String)>);

impl FieldSelector {
    /// Parses `metadata.name=x,status.phase!=Failed`. Which fields a kind supports is for [`FieldSelector::check`] to say.
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        let mut terms = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let term = part
                .split_once("!=")
                .map(|(field, value)| (field, false, value))
                .or_else(|| part.split_once("==").map(|(field, value)| (field, true, value)))
                .or_else(|| part.split_once('=').map(|(field, value)| (field, true, value)));
            let Some((field, equal, value)) = term else {
                return Err(bad_request(format!("invalid selector: '{text}'; can't understand '{part}'")));
            };
            terms.push((format!("/{}", field.replace('.', "/")), equal, value.to_owned()));
        }
        Ok(Self(terms))
    }

    /// Refuses fields by which objects of this kind are not found.
    pub(super) fn check(&self, resource: &Resource) -> Result<(), Refusal> {
        let more: &[&str] = match &*resource.key {
            "pods" => &[
                "spec.nodeName",
                "spec.restartPolicy",
                "spec.schedulerName",
                "spec.serviceAccountName",
                "spec.hostNetwork",
                "status.phase",
                "status.podIP",
                "status.nominatedNodeName",
            ],
            "events" => &[
                "involvedObject.kind",
                "involvedObject.namespace",
                "involvedObject.name",
                "involvedObject.uid",
                "involvedObject.apiVersion",
                "involvedObject.resourceVersion",
                "involvedObject.fieldPath",
                "reason",
                "reportingComponent",
                "source",
                "type",
            ],
            "namespaces" => &["status.phase"],
            "nodes" => &["spec.unschedulable"],
            "secrets" => &["type"],
            "services" => &["spec.clusterIP", "spec.type"],
            "replicasets.apps" => &["status.replicas"],
            "jobs.batch" => &["status.successful"],
            _ => &[],
        };
        for (pointer, ..) in &self.0 {
            let field = pointer.trim_start_matches('/').replace('/', ".");
            if !matches!(field.as_str(), "metadata.name" | "metadata.namespace") && !more.contains(&field.as_str()) {
                return Err(bad_request(if resource.custom || !more.is_empty() {
                    format!("field label not supported: {field}")
                } else {
                    format!("\"{field}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
                }));
            }
        }
        Ok(())
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(pointer, equal, wanted)| {
            let is = match object.pointer(pointer) {
                Some(Value::String(text)) => text == wanted,
                Some(Value::Null) | None => wanted.is_empty(),
                Some(other) => {
                    let shown = other.to_string();
                    shown == *wanted
                }
            };
            is == *equal
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn label_selectors_select() {
        let labels = json!({"app": "web", "tier": "front"});
        for (selector, selected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app=web,tier=back", false),
            ("app!=api", true),
            ("missing!=x", true),
            ("app in (web, api)", true),
            ("app in (api),tier", false),
            ("app notin (api,db),tier", true),
            ("missing notin (a)", true),
            ("tier", true),
            ("!tier", false),
            ("!missing", true),
        ] {
            let parsed = LabelSelector::parse(selector).unwrap();
            assert_eq!(parsed.matches_labels(&labels), selected, "{selector}");
            let again = LabelSelector::parse(&parsed.to_query()).unwrap();
            assert_eq!(again.matches_labels(&labels), selected, "{selector} printed as {}", parsed.to_query());
        }
        assert_eq!(LabelSelector::parse("a b").unwrap_err().code, 400);
        let of = LabelSelector::of(&json!({"matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "In", "values": ["front", "back"]}]}));
        assert_eq!(of.unwrap().to_query(), "app=web,tier in (front,back)");
    }

    #[test]
    fn field_selectors_select() {
        let pod = json!({"metadata": {"name": "a", "namespace": "x"}, "spec": {}, "status": {"phase": "Running"}});
        for (selector, selected) in [
            ("metadata.name=a", true),
            ("metadata.name!=a", false),
            ("status.phase!=Failed,metadata.namespace==x", true),
            ("spec.nodeName=", true),
        ] {
            assert_eq!(FieldSelector::parse(selector).unwrap().matches(&pod), selected, "{selector}");
        }
    }
}
