//! What users write and read: the five kinds of `argoproj.io/v1alpha1`, their defaults and validation.

pub mod duration;
pub mod pod_template;
