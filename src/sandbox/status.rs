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

/// A creation carried a resourceVersion.
pub(super) fn version_on_create() -> Refusal {
    Box::new(failure(500, "", "resourceVersion should not be set on objects to be created".into()))
}

/// An update carried no resourceVersion although its kind demands one.
pub(super) fn version_required(resource: &Resource, name: &str) -> Refusal {
    let error = FieldError::invalid("metadata.resourceVersion", &0.into(), "must be specified for an update");
    let mut refusal = invalid(resource, name, &[error]);
    // Storage names the resource where validation names the kind.
    refusal.message = format!(
        "{} \"{name}\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update",
        resource.qualified()
    );
    if let Some(details) = &mut refusal.details {
        details.kind = resource.plural.clone();
    }
    refusal
}

/// A watch began at what is no version.
pub(super) fn unreadable_version(text: &str) -> Refusal {
    let why = format!("strconv.ParseUint: parsing \"{text}\": invalid syntax");
    Box::new(failure(500, "", format!("resourceVersion: Invalid value: \"{text}\": {why}")))
}

/// A pod cannot be bound.
pub(super) fn unbindable(pod: &str, why: &str) -> Refusal {
    let message = format!("Operation cannot be fulfilled on pods/binding \"{pod}\": {why}");
    let details = StatusDetails { name: pod.to_owned(), kind: "pods/binding".into(), ..no_details() };
    Box::new(failure(409, "Conflict", message).with_details(details))
}

/// The Scale of a built-in kind asks for fewer than no replicas.
pub(super) fn negative_scale(name: &str, wanted: i64) -> Refusal {
    let error = FieldError::invalid("spec.replicas", &wanted.into(), "must be greater than or equal to 0");
    let message = format!("Scale.autoscaling \"{name}\" is invalid: {error}");
    let cause = StatusCause { reason: error.reason.into(), message: error.body, field: error.field };
    let (name, group, kind) = (name.to_owned(), "autoscaling".into(), "Scale".into());
    let details = StatusDetails { name, group, kind, causes: vec![cause], ..no_details() };
    Box::new(failure(422, "Invalid", message).with_details(details))
}

/// A deletion's precondition does not hold.
pub(super) fn precondition(resource: &Resource, name: &str, why: &str) -> Refusal {
    let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", resource.qualified_kind());
    let mut refusal = on_object(409, "Conflict", resource, name, message);
    if let Some(details) = &mut refusal.details {
        details.kind = resource.kind.clone();
    }
    refusal
}

/// A patch led to an object that cannot be decoded strictly.
pub(super) fn unpatchable(patched: &Value, why: &str) -> Refusal {
    let shown = Value::from(patched.to_string());
    let error = FieldError::invalid("patch", &shown, why);
    let message = format!(" \"\" is invalid: {error}");
    let cause = StatusCause { reason: "FieldValueInvalid".into(), message: error.body, field: "patch".into() };
    Box::new(failure(422, "Invalid", message).with_details(StatusDetails { causes: vec![cause], ..no_details() }))
}

/// The parameters of a request, such as `PatchOptions`, are wrong.
pub(super) fn bad_options(kind: &str, error: FieldError) -> Refusal {
    let message = format!("{kind}.meta.k8s.io \"\" is invalid: {error}");
    let cause = StatusCause { reason: error.reason.into(), message: error.body, field: error.field };
    let (group, kind) = ("meta.k8s.io".into(), kind.to_owned());
    let details = StatusDetails { group, kind, causes: vec![cause], ..no_details() };
    Box::new(failure(422, "Invalid", message).with_details(details))
}

/// The body of a patch is of no type of patch.
pub(super) fn not_a_patch() -> Refusal {
    let status = failure(415, "UnsupportedMediaType", "415: Unsupported Media Type".into());
    Box::new(status.with_details(no_details()))
}

/// The object is there, and waits to go.
pub(super) fn still_exists(resource: &Resource, name: &str) -> Refusal {
    let mut refusal = already_exists(resource, name);
    refusal.message = format!("object is being deleted: {}", refusal.message);
    refusal
}

/// Nothing is created in a namespace that is going away.
pub(super) fn namespace_terminating(resource: &Resource, name: &str, namespace: &str) -> Refusal {
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let mut refusal = forbidden(resource, name, &why);
    if let Some(details) = &mut refusal.details {
        details.causes.push(StatusCause {
            reason: "NamespaceTerminating".into(),
            message: format!("namespace {namespace} is being terminated"),
            field: "metadata.namespace".into(),
        });
    }
    refusal
}

/// An applied configuration has fields that its kind does not have, or names an item twice.
pub(super) fn untypeable(why: &str) -> Refusal {
    Box::new(failure(500, "", format!("failed to create typed patch object {why}")))
}

/// A JSON patch could not be applied.
pub(super) fn patch_failed() -> Refusal {
    let message = "the server rejected our request due to an error in our request";
    Box::new(failure(422, "Invalid", message.into()).with_details(no_details()))
}

/// A watch or an exact list asked for a version that the history no longer has.
pub(super) fn expired(message: String) -> Refusal {
    Box::new(failure(410, "Expired", message))
}

/// A read asked for a version that has not been reached yet.
pub(super) fn too_large_version(asked: u64, current: u64) -> Refusal {
    let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
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
        let body = format!("Too many: {actual}: must have at most {max} item{}", if max == 1 { "" } else { "s" });
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
    /// Whether rules in CEL are not looked at because of this.
    pub(super) fn blocks_rules(&self) -> bool {
        matches!(
            self.reason,
            "FieldValueTypeInvalid"
                | "FieldValueRequired"
                | "FieldValueNotSupported"
                | "FieldValueTooLong"
                | "FieldValueTooMany"
        )
    }

    pub(super) fn rules_unchecked() -> Self {
        let detail = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
        Self::invalid_shown("", "null", detail)
    }

    /// A wrong type as the decoder of a built-in kind reports it.
    pub(super) fn as_decoding(&self, kind: &str) -> String {
        let found = self.body.split('"').nth(1).unwrap_or_default();
        let found = match found {
            "integer" => "number",
            "boolean" => "bool",
            other => other,
        };
        let wanted = self.body.split("of type ").nth(1).and_then(|rest| rest.split(':').next()).unwrap_or_default();
        format!("json: cannot unmarshal {found} into Go struct field {kind}.{} of type {wanted}", self.field)
    }

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
    let kind = resource.qualified_kind();
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
    let mut details = json!({"name": name, "kind": resource.plural, "uid": uid});
    if !resource.group.is_empty() {
        details["group"] = resource.group.as_str().into();
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
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
