//! Metric providers, one file each: the only code that queries them.

pub mod jsonpath;
