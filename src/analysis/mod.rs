//! The AnalysisRun machine: arguments, templates, conditions, counting, phases. Pure.

pub mod expr;
pub mod machine;
pub mod secrets;
pub mod spec;
