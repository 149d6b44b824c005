//! What users write and read: the five kinds of `argoproj.io/v1alpha1`, their defaults and validation.

pub mod duration;
pub mod field_error;
pub mod int_or_percent;
pub mod pod_template;
