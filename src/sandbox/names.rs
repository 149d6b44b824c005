//! What is wrong with names: of objects, of finalizers, and of what a request takes an object for.

use serde_json::Value;

use super::resource::Resource;
use super::status::{self, FieldError, Refusal};
use super::write::Target;

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

/// What is wrong with the name of a label, an annotation or a finalizer; the part before a slash is not looked at.
pub(super) fn qualified_name_error(field: &str, name: &str) -> Option<FieldError> {
    let part = name.rsplit('/').next().unwrap_or_default();
    let edge = |c: char| c.is_ascii_alphanumeric();
    let good = part.starts_with(edge) && part.ends_with(edge) && part.chars().all(|c| edge(c) || "-_.".contains(c));
    (!good).then(|| FieldError::invalid(field, &name.into(), QUALIFIED))
}

/// Whether an update makes the object when it is not there.
pub(super) fn may_be_made_by_update(target: &Target) -> bool {
    matches!(&*target.resource.key, "services" | "endpoints" | "events" | "leases.coordination.k8s.io")
}

/// What is wrong with a name that is to be a label of the DNS.
pub(super) fn label_errors(field: &str, name: &str) -> Option<FieldError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let good = name.starts_with(plain) && name.ends_with(plain) && name.chars().all(|c| plain(c) || c == '-');
    (!good).then(|| FieldError::invalid(field, &name.into(), LABEL))
}

/// What is wrong with the finalizers of a built-in object: all but Kubernetes' own have a domain.
pub(super) fn finalizer_name_errors(object: &Value) -> Vec<FieldError> {
    const STANDARD: [&str; 3] = ["foregroundDeletion", "orphan", "kubernetes"];
    let finalizers = object["metadata"]["finalizers"].as_array();
    let mut errors = Vec::new();
    for (index, finalizer) in finalizers.into_iter().flatten().enumerate() {
        let name = finalizer.as_str().unwrap_or_default();
        errors.extend(qualified_name_error("metadata.finalizers", name));
        if !name.contains('/') && !STANDARD.contains(&name) {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(format!("metadata.finalizers[{index}]"), finalizer, detail));
        }
    }
    errors
}

/// A patch means another object than the one that is there.
pub(super) fn uid_is_fixed(target: &Target, wanted: &str) -> Refusal {
    let error = || FieldError::invalid("metadata.uid", &wanted.into(), "field is immutable");
    // Both the metadata and the kind are checked, and both say so.
    status::invalid(&target.resource, &target.name, &[error(), error()])
}

/// Why an update of another object than the one that is there conflicts.
pub(super) fn uid_mismatch(target: &Target, wanted: &str, actual: &str, dry_run: bool) -> String {
    let resource = &target.resource;
    let folder = match &*resource.key {
        "services" | "endpoints" => {
            format!("services/{}", if &*resource.key == "services" { "specs" } else { "endpoints" })
        }
        "ingresses.networking.k8s.io" => "ingress".to_owned(),
        _ if resource.custom => format!("{}/{}", resource.group, resource.plural),
        _ => resource.plural.clone(),
    };
    let namespace = if target.namespace.is_empty() { String::new() } else { format!("/{}", target.namespace) };
    // A dry run asks the storage in a way of its own.
    let root = if dry_run { "" } else { "/registry" };
    format!(
        "StorageError: invalid object, Code: 4, Key: {root}/{folder}{namespace}/{}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {wanted}, UID in object meta: {actual}",
        target.name
    )
}

/// What is wrong with the replicas that the scale subresource reads.
pub(super) fn scale_errors(target: &Target, object: &Value) -> Option<FieldError> {
    let scale = target.version()?.scale.as_ref()?;
    let field = scale.spec_replicas.replace('/', ".");
    match object.pointer(&scale.spec_replicas)? {
        Value::Number(number) if number.as_i64().is_some_and(|number| number < 0) => {
            Some(FieldError::invalid_shown(field, &number.to_string(), "should be a non-negative integer"))
        }
        Value::String(text) => {
            let detail = format!("{field} accessor error: {text} is of the type string, expected int64");
            Some(FieldError::invalid_shown(field, "0", &detail))
        }
        _ => None,
    }
}

pub(super) fn finalizer_errors(object: &Value, existing: &Value) -> Vec<FieldError> {
    if existing["metadata"]["deletionTimestamp"].is_null() {
        return Vec::new();
    }
    let of = |object: &Value| -> Vec<String> {
        let list = object["metadata"]["finalizers"].as_array();
        list.into_iter().flatten().filter_map(|name| name.as_str().map(Into::into)).collect()
    };
    let before = of(existing);
    let new: Vec<String> =
        of(object).into_iter().filter(|name| !before.contains(name)).map(|name| format!("\"{name}\"")).collect();
    if new.is_empty() {
        return Vec::new();
    }
    let detail = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        new.join(", ")
    );
    // Both the metadata and the kind are checked, and both say so.
    vec![FieldError::forbidden("metadata.finalizers", &detail); 2]
}

pub(super) fn name_errors(resource: &Resource, name: &str) -> Vec<FieldError> {
    // RBAC names may be any path segment.
    let (label, limit, detail): (bool, usize, &str) = match &*resource.key {
        key if key.ends_with(".rbac.authorization.k8s.io") => return Vec::new(),
        "services" => (
            true,
            63,
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
        ),
        "namespaces" => (true, 63, LABEL),
        _ => (
            false,
            253,
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ),
    };
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_label =
        |part: &str| part.starts_with(plain) && part.ends_with(plain) && part.chars().all(|c| plain(c) || c == '-');
    let starts = &*resource.key != "services" || name.starts_with(|c: char| c.is_ascii_lowercase());
    let good = starts && if label { is_label(name) } else { name.split('.').all(is_label) };
    let detail =
        if label && name.contains('.') && &*resource.key == "namespaces" { "must not contain dots" } else { detail };
    let mut errors = Vec::new();
    if name.len() > limit {
        let detail = format!("must be no more than {limit} characters");
        errors.push(FieldError::invalid("metadata.name", &name.into(), &detail));
    }
    if !good {
        errors.push(FieldError::invalid("metadata.name", &name.into(), detail));
    }
    errors
}
