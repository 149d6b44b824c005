//! What is wrong with which field, in the words of Kubernetes' own validation.

use std::fmt;

use serde_json::Value;

/// Where a field is: `spec.template.spec.containers[0].image`. The empty path is the object itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldPath(String);

impl FieldPath {
    pub fn new(path: impl Into<String>) -> Self {
        Self(path.into())
    }

    /// The field `name` of the object at this path.
    #[must_use]
    pub fn child(&self, name: impl fmt::Display) -> Self {
        if self.0.is_empty() { Self(name.to_string()) } else { Self(format!("{}.{name}", self.0)) }
    }

    /// The element `index` of the list at this path.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// The value under `key` of the map at this path.
    #[must_use]
    pub fn key(&self, key: impl fmt::Display) -> Self {
        Self(format!("{}[{key}]", self.0))
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One thing that is wrong with one field. Displays as Kubernetes' `field.Error`:
/// `spec.replicas: Invalid value: -1: must be greater than or equal to 0`.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub struct FieldError {
    pub path: String,
    pub kind: FieldErrorKind,
    /// What would be right; may be empty.
    pub detail: String,
}

#[derive(Clone, Debug, PartialEq)]
pub enum FieldErrorKind {
    Required,
    Invalid { value: Value },
    Duplicate { value: Value },
    NotFound { value: Value },
    NotSupported { value: Value, allowed: Vec<String> },
    Forbidden,
    TooLong,
    TooMany { count: usize },
}

impl FieldError {
    pub fn required(path: impl fmt::Display, detail: impl Into<String>) -> Self {
        Self::new(path, FieldErrorKind::Required, detail)
    }

    pub fn invalid(path: impl fmt::Display, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(path, FieldErrorKind::Invalid { value: value.into() }, detail)
    }

    pub fn duplicate(path: impl fmt::Display, value: impl Into<Value>) -> Self {
        Self::new(path, FieldErrorKind::Duplicate { value: value.into() }, "")
    }

    pub fn not_found(path: impl fmt::Display, value: impl Into<Value>) -> Self {
        Self::new(path, FieldErrorKind::NotFound { value: value.into() }, "")
    }

    /// `allowed` is shown in the order given.
    pub fn not_supported<S: Into<String>>(
        path: impl fmt::Display,
        value: impl Into<Value>,
        allowed: impl IntoIterator<Item = S>,
    ) -> Self {
        let allowed = allowed.into_iter().map(Into::into).collect();
        Self::new(path, FieldErrorKind::NotSupported { value: value.into(), allowed }, "")
    }

    pub fn forbidden(path: impl fmt::Display, detail: impl Into<String>) -> Self {
        Self::new(path, FieldErrorKind::Forbidden, detail)
    }

    /// `limit` is in bytes.
    pub fn too_long(path: impl fmt::Display, limit: usize) -> Self {
        let unit = if limit == 1 { "byte" } else { "bytes" };
        Self::new(path, FieldErrorKind::TooLong, format!("may not be more than {limit} {unit}"))
    }

    pub fn too_many(path: impl fmt::Display, count: usize, limit: usize) -> Self {
        let unit = if limit == 1 { "item" } else { "items" };
        Self::new(path, FieldErrorKind::TooMany { count }, format!("must have at most {limit} {unit}"))
    }

    fn new(path: impl fmt::Display, kind: FieldErrorKind, detail: impl Into<String>) -> Self {
        Self { path: path.to_string(), kind, detail: detail.into() }
    }

    /// The same error where the object it was found in is the field `parent` of a larger one.
    #[must_use]
    pub fn under(mut self, parent: &FieldPath) -> Self {
        self.path = match self.path.as_str() {
            "" => parent.to_string(),
            path if path.starts_with('[') => format!("{parent}{path}"),
            path => parent.child(path).to_string(),
        };
        self
    }

    /// The message without the path: `Invalid value: -1: must be greater than or equal to 0`.
    pub fn body(&self) -> String {
        let mut body = match &self.kind {
            FieldErrorKind::Required => "Required value".to_owned(),
            FieldErrorKind::Forbidden => "Forbidden".to_owned(),
            FieldErrorKind::TooLong => "Too long".to_owned(),
            FieldErrorKind::TooMany { count } => format!("Too many: {count}"),
            FieldErrorKind::Invalid { value } => format!("Invalid value: {}", shown(value)),
            FieldErrorKind::Duplicate { value } => format!("Duplicate value: {}", shown(value)),
            FieldErrorKind::NotFound { value } => format!("Not found: {}", shown(value)),
            FieldErrorKind::NotSupported { value, allowed } => {
                let mut body = format!("Unsupported value: {}", shown(value));
                if !allowed.is_empty() {
                    let allowed: Vec<String> = allowed.iter().map(|value| quote(value)).collect();
                    body.push_str(": supported values: ");
                    body.push_str(&allowed.join(", "));
                }
                body
            }
        };
        if !self.detail.is_empty() {
            body.push_str(": ");
            body.push_str(&self.detail);
        }
        body
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        other => other.to_string(),
    }
}

/// The text as Go's `%q` shows it.
fn quote(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0c' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x0b' => quoted.push_str("\\v"),
            c if c.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_as_kubernetes_writes_it() {
        let image = FieldPath::new("spec").child("template").child("spec").child("containers").index(0).child("image");
        let cases = [
            (FieldError::required(&image, ""), "spec.template.spec.containers[0].image: Required value"),
            (
                FieldError::invalid("spec.replicas", -1, "must be greater than or equal to 0"),
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            ),
            (FieldError::invalid("a", "x\"y\n", "no"), r#"a: Invalid value: "x\"y\n": no"#),
            (FieldError::invalid("a", json!({"b": [1]}), ""), r#"a: Invalid value: {"b":[1]}"#),
            (FieldError::duplicate(FieldPath::new("m").key("k"), "v"), r#"m[k]: Duplicate value: "v""#),
            (
                FieldError::not_supported("p", "X", ["TCP", "UDP"]),
                r#"p: Unsupported value: "X": supported values: "TCP", "UDP""#,
            ),
            (FieldError::forbidden("p", "not now"), "p: Forbidden: not now"),
            (FieldError::too_long("p", 63), "p: Too long: may not be more than 63 bytes"),
            (FieldError::too_many("p", 3, 1), "p: Too many: 3: must have at most 1 item"),
            (FieldError::not_found("p", "v"), r#"p: Not found: "v""#),
        ];
        for (error, text) in cases {
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn moves_under_a_parent() {
        let parent = FieldPath::new("spec").child("template");
        let path = |path: &str| FieldError::required(path, "").under(&parent).path;
        assert_eq!(path("spec.containers"), "spec.template.spec.containers");
        assert_eq!(path("[0]"), "spec.template[0]");
        assert_eq!(path(""), "spec.template");
    }
}
