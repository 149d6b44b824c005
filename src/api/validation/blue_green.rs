//! The rules of the blue-green strategy.

use super::{anti_affinity, not_negative};
use crate::api::blue_green::BlueGreenStrategy;
use crate::api::field_error::{FieldError, FieldPath};
use crate::api::rollout::RolloutSpec;

pub(super) fn check(spec: &RolloutSpec, strategy: &BlueGreenStrategy, at: &FieldPath, errors: &mut Vec<FieldError>) {
    if strategy.active_service == strategy.preview_service {
        let detail = "the active service must be set and differ from the preview service";
        errors.push(FieldError::invalid(at.child("activeService"), strategy.active_service.as_str(), detail));
    }
    if let Some(limit) = strategy.scale_down_delay_revision_limit
        && limit > spec.revision_history_limit()
    {
        let detail = format!("must not be greater than revisionHistoryLimit ({})", spec.revision_history_limit());
        errors.push(FieldError::invalid(at.child("scaleDownDelayRevisionLimit"), limit, detail));
    }
    for (field, value) in [
        ("previewReplicaCount", strategy.preview_replica_count),
        ("autoPromotionSeconds", Some(strategy.auto_promotion_seconds)),
        ("scaleDownDelaySeconds", strategy.scale_down_delay_seconds),
        ("abortScaleDownDelaySeconds", strategy.abort_scale_down_delay_seconds),
    ] {
        not_negative(value, &at.child(field), errors);
    }
    anti_affinity(strategy.anti_affinity.as_ref(), &at.child("antiAffinity"), errors);
}
