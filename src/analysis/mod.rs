//! The AnalysisRun machine: arguments, templates, conditions, counting, phases. Pure.

mod args;
mod assess;
pub mod calibrate;
pub mod compare;
pub mod conditions;
pub mod expr;
pub mod judge;
pub mod machine;
pub mod metric;
pub mod secrets;
pub mod spec;
pub mod templates;
