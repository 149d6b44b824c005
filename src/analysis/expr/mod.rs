//! The condition language of metrics: a subset-compatible evaluator of Go's expr-lang.
