//! The three patches that change an object: JSON patch, JSON merge patch and strategic merge patch.

mod strategic;

use serde_json::Value;

use super::resource::Resource;
use super::schema::Schema;
use super::status::{self, Refusal};

/// A patch of an object.
#[derive(Clone, Debug)]
pub enum Patch {
    /// RFC 6902: a list of operations.
    Json(Vec<json_patch::PatchOperation>),
    /// RFC 7396: what is given replaces what is there, null removes.
    Merge(Value),
    /// Kubernetes' own: as a merge patch, but known lists are merged by their keys.
    Strategic(Value),
}

impl Patch {
    /// The object that results.
    pub(super) fn apply(&self, resource: &Resource, version: &str, object: &Value) -> Result<Value, Refusal> {
        let mut object = object.clone();
        match self {
            Patch::Json(operations) => json_patch::patch_unsafe(&mut object, operations).map_err(|error| {
                let mut refusal = status::bad_request(error.to_string());
                refusal.code = 422;
                refusal.reason = "Invalid".into();
                refusal.message = format!("the server rejected our request due to an error in our request: {error}");
                refusal
            })?,
            Patch::Merge(patch) => json_patch::merge(&mut object, patch),
            Patch::Strategic(patch) => {
                if resource.custom {
                    let accepted =
                        "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
                    return Err(status::unsupported_media_type(accepted));
                }
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
            Patch::Json(operations) => json_patch::patch_unsafe(&mut scale, operations)
                .map_err(|error| status::bad_request(error.to_string()))?,
            Patch::Merge(patch) | Patch::Strategic(patch) => json_patch::merge(&mut scale, patch),
        }
        Ok(scale)
    }
}
