//! What a client sees of objects: whole, metadata only, or as the rows of a table.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::write::Target;

/// How a client wants objects shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Whole,
    Metadata,
}

impl View {
    /// Reads an `Accept` header. The first form that is understood wins.
    pub(super) fn accepted(accept: &str) -> Self {
        for range in accept.split(',') {
            let mut parameters = range.split(';').map(str::trim).skip(1);
            let shape = parameters.find_map(|parameter| parameter.strip_prefix("as="));
            match shape {
                Some("PartialObjectMetadata" | "PartialObjectMetadataList") => return View::Metadata,
                None => return View::Whole,
                Some(_) => {}
            }
        }
        View::Whole
    }

    pub(super) fn object(self, _target: &Target, object: &Arc<Value>, _now: Timestamp) -> Arc<Value> {
        match self {
            View::Whole => object.clone(),
            View::Metadata => Arc::new(metadata_only(object)),
        }
    }

    pub(super) fn event(self, target: &Target, object: &Arc<Value>, now: Timestamp) -> Arc<Value> {
        self.object(target, object, now)
    }

    pub(super) fn bookmark(self, mut object: Value) -> Value {
        if self == View::Metadata {
            object["kind"] = "PartialObjectMetadata".into();
            object["apiVersion"] = "meta.k8s.io/v1".into();
        }
        object
    }
}

fn metadata_only(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}
