//! The three patches that change an object: JSON patch, JSON merge patch and strategic merge patch.

mod strategic;

use json_patch::{AddOperation, PatchOperation};
use serde_json::Value;

use super::resource::Resource;
use super::schema::Schema;
use super::status::{self, Refusal};

/// A patch of an object.
#[derive(Clone, Debug)]
pub enum Patch {
    /// RFC 6902: a list of operations.
    Json(Vec<PatchOperation>),
    /// RFC 7396: what is given replaces what is there, null removes.
    Merge(Value),
    /// Kubernetes' own: as a merge patch, but known lists are merged by their keys.
    Strategic(Value),
}

impl Patch {
    /// Refuses a type of patch that the kind does not know.
    pub(super) fn check(&self, resource: &Resource) -> Result<(), Refusal> {
        if resource.custom && matches!(self, Patch::Strategic(_)) {
            let accepted = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
            return Err(status::unsupported_media_type(accepted));
        }
        Ok(())
    }

    /// The object that results.
    pub(super) fn apply(&self, resource: &Resource, version: &str, object: &Value) -> Result<Value, Refusal> {
        let mut object = object.clone();
        match self {
            Patch::Json(operations) => apply_json(&mut object, operations)?,
            Patch::Merge(patch) => json_patch::merge(&mut object, patch),
            Patch::Strategic(patch) => {
                let schema = resource.version(version).and_then(|version| version.schema.clone());
                strategic::merge(&schema.unwrap_or_else(Schema::anything), &mut object, patch);
            }
        }
        Ok(object)
    }

    /// The scale that results; a Scale has no lists, so that a strategic patch of it is a merge patch.
    pub(super) fn apply_to_scale(&self, scale: &Value) -> Result<Value, Refusal> {
        let mut scale = scale.clone();
        match self {
            Patch::Json(operations) => apply_json(&mut scale, operations)?,
            Patch::Merge(patch) | Patch::Strategic(patch) => json_patch::merge(&mut scale, patch),
        }
        Ok(scale)
    }
}

fn apply_json(object: &mut Value, operations: &[PatchOperation]) -> Result<(), Refusal> {
    for operation in operations {
        // The server's library replaces what is not there by adding it.
        let adds = match operation {
            PatchOperation::Replace(it) if object.pointer(it.path.as_str()).is_none() => {
                Some(PatchOperation::Add(AddOperation { path: it.path.clone(), value: it.value.clone() }))
            }
            _ => None,
        };
        let operation = adds.as_ref().unwrap_or(operation);
        json_patch::patch_unsafe(object, std::slice::from_ref(operation)).map_err(|_| status::patch_failed())?;
    }
    Ok(())
}
