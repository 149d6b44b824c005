//! The AnalysisRun machine: arguments, templates, conditions, counting, phases. Pure.

pub mod expr;
