//! Refusals in kube-apiserver's own words: reason, code, message and details.

use kube::core::Status;
use kube::core::response::{StatusCause, StatusDetails, StatusSummary};
use serde_json::{Value, json};

use super::resource::Resource;

/// Why the server refused a request: the `Status` object that a client receives.
pub type Refusal = Box<Status>;

fn failure(code: u16, reason: &str, message: String) -> Status {
    Status {
        status: Some(StatusSummary::Failure),
        code,
        message,
        metadata: None,
        reason: reason.to_owned(),
        details: None,
    }
}

fn no_details() -> StatusDetails {
    StatusDetails {
        name: String::new(),
        group: String::new(),
        kind: String::new(),
        uid: String::new(),
        causes: Vec::new(),
        retry_after_seconds: 0,
    }
}

fn about(resource: &Resource, name: &str) -> StatusDetails {
    StatusDetails {
        name: name.to_owned(),
        group: resource.group.clone(),
        kind: resource.plural.clone(),
        ..no_details()
    }
}

fn on_object(code: u16, reason: &str, resource: &Resource, name: &str, message: String) -> Refusal {
    Box::new(failure(code, reason, message).with_details(about(resource, name)))
}

pub(super) fn not_found(resource: &Resource, name: &str) -> Refusal {
    on_object(404, "NotFound", resource, name, format!("{} \"{name}\" not found", resource.qualified()))
}

/// The answer for a path that no resource is served under.
pub(super) fn no_such_path() -> Refusal {
    let status = failure(404, "NotFound", "the server could not find the requested resource".into());
    Box::new(status.with_details(no_details()))
}

pub(super) fn already_exists(resource: &Resource, name: &str) -> Refusal {
    let message = format!("{} \"{name}\" already exists", resource.qualified());
    on_object(409, "AlreadyExists", resource, name, message)
}

pub(super) fn conflict(resource: &Resource, name: &str, why: &str) -> Refusal {
    let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", resource.qualified());
    on_object(409, "Conflict", resource, name, message)
}

/// The body carried a resourceVersion that is not the stored one.
pub(super) fn stale(resource: &Resource, name: &str) -> Refusal {
    let why = "the object has been modified; please apply your changes to the latest version and try again";
    conflict(resource, name, why)
}

pub(super) fn forbidden(resource: &Resource, name: &str, why: &str) -> Refusal {
    let message = format!("{} \"{name}\" is forbidden: {why}", resource.qualified());
    on_object(403, "Forbidden", resource, name, message)
}

pub(super) fn bad_request(message: impl Into<String>) -> Refusal {
    Box::new(failure(400, "BadRequest", message.into()))
}

pub(super) fn internal(message: &str) -> Refusal {
    Box::new(failure(500, "InternalError", format!("Internal error occurred: {message}")))
}

pub(super) fn method_not_allowed() -> Refusal {
    let message = "the server does not allow this method on the requested resource";
    Box::new(failure(405, "MethodNotAllowed", message.into()).with_details(no_details()))
}

pub(super) fn unsupported_media_type(accepted: &str) -> Refusal {
    let message =
        format!("the body of the request was in an unknown format - accepted media types include: {accepted}");
    Box::new(failure(415, "UnsupportedMediaType", message))
}

/// A watch or an exact list asked for a version that the history no longer has.
pub(super) fn expired(message: String) -> Refusal {
    Box::new(failure(410, "Expired", message))
}

/// A read asked for a version that has not been reached yet.
pub(super) fn too_large_version(asked: u64, current: u64) -> Refusal {
    let message = format!("Too large resource version: {asked}, current: {current}");
    let cause = StatusCause {
        reason: "ResourceVersionTooLarge".into(),
        message: "Too large resource version".into(),
        field: String::new(),
    };
    let details = StatusDetails { causes: vec![cause], retry_after_seconds: 1, ..no_details() };
    Box::new(failure(504, "Timeout", message).with_details(details))
}

pub(super) fn too_many_requests(message: &str, cause: Option<StatusCause>) -> Refusal {
    let details = StatusDetails { causes: cause.into_iter().collect(), ..no_details() };
    Box::new(failure(429, "TooManyRequests", message.to_owned()).with_details(details))
}

/// Server-side apply met fields of other managers.
pub(super) fn apply_conflict(message: String, causes: Vec<StatusCause>) -> Refusal {
    let details = StatusDetails { causes, ..no_details() };
    Box::new(failure(409, "Conflict", message).with_details(details))
}

/// One thing that is wrong with one field, as apimachinery's `field.Error` prints it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FieldError {
    pub(super) field: String,
    reason: &'static str,
    body: String,
}

impl FieldError {
    pub(super) fn required(field: impl Into<String>, detail: &str) -> Self {
        Self::new(field, "FieldValueRequired", with_detail("Required value".into(), detail))
    }

    pub(super) fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        let body = with_detail(format!("Invalid value: {}", shown(value)), detail);
        Self::new(field, "FieldValueInvalid", body)
    }

    /// An invalid value that prints as `shown`, for values that Go prints in a way of its own.
    pub(super) fn invalid_shown(field: impl Into<String>, shown: &str, detail: &str) -> Self {
        let body = with_detail(format!("Invalid value: {shown}"), detail);
        Self::new(field, "FieldValueInvalid", body)
    }

    /// A value of the wrong JSON type.
    pub(super) fn wrong_type(field: impl Into<String>, shown: &str, detail: &str) -> Self {
        let body = with_detail(format!("Invalid value: {shown}"), detail);
        Self::new(field, "FieldValueTypeInvalid", body)
    }

    pub(super) fn not_supported(field: impl Into<String>, value: &Value, supported: &[String]) -> Self {
        let supported: Vec<String> = supported.iter().map(|s| format!("\"{s}\"")).collect();
        let body = format!("Unsupported value: {}: supported values: {}", shown(value), supported.join(", "));
        Self::new(field, "FieldValueNotSupported", body)
    }

    pub(super) fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self::new(field, "FieldValueForbidden", with_detail("Forbidden".into(), detail))
    }

    pub(super) fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self::new(field, "FieldValueDuplicate", format!("Duplicate value: {}", shown(value)))
    }

    pub(super) fn too_many(field: impl Into<String>, actual: usize, max: usize) -> Self {
        let body = format!("Too many: {actual}: must have at most {max} items");
        Self::new(field, "FieldValueTooMany", body)
    }

    pub(super) fn too_long(field: impl Into<String>, max: usize) -> Self {
        Self::new(field, "FieldValueTooLong", format!("Too long: may not be more than {max} bytes"))
    }

    fn new(field: impl Into<String>, reason: &'static str, body: String) -> Self {
        Self { field: field.into(), reason, body }
    }
}

impl FieldError {
    pub(super) fn is_wrong_type(&self) -> bool {
        self.reason == "FieldValueTypeInvalid"
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let field = if self.field.is_empty() { "<nil>" } else { &self.field };
        write!(f, "{field}: {}", self.body)
    }
}

fn with_detail(head: String, detail: &str) -> String {
    if detail.is_empty() { head } else { format!("{head}: {detail}") }
}

/// A value as Go's field errors print it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "\"null\"".into(),
        other => other.to_string(),
    }
}

/// All that is wrong with an object, as one refusal.
pub(super) fn invalid(resource: &Resource, name: &str, errors: &[FieldError]) -> Refusal {
    let mut parts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    parts.dedup();
    let list = if let [one] = parts.as_slice() { one.clone() } else { format!("[{}]", parts.join(", ")) };
    let kind =
        if resource.group.is_empty() { resource.kind.clone() } else { format!("{}.{}", resource.kind, resource.group) };
    let causes = errors
        .iter()
        .map(|error| StatusCause {
            reason: error.reason.to_owned(),
            message: error.body.clone(),
            field: if error.field.is_empty() { "<nil>".into() } else { error.field.clone() },
        })
        .collect();
    let details = StatusDetails {
        name: name.to_owned(),
        group: resource.group.clone(),
        kind: resource.kind.clone(),
        causes,
        ..no_details()
    };
    let status = failure(422, "Invalid", format!("{kind} \"{name}\" is invalid: {list}"));
    Box::new(status.with_details(details))
}

/// What a deletion that is over answers.
pub(super) fn deleted(resource: &Resource, name: &str, uid: &str) -> Value {
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {"name": name, "group": resource.group, "kind": resource.plural, "uid": uid},
    })
}

/// A refusal as the JSON object that goes over the wire.
pub(super) fn to_value(status: &Status) -> Value {
    let mut value = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}});
    // A Status holds strings and numbers only, which always serialize.
    if let (Value::Object(all), Ok(Value::Object(fields))) = (&mut value, serde_json::to_value(status)) {
        all.extend(fields);
    }
    value
}
