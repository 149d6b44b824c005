//! The JSONPath dialect of Kubernetes (`{$.data.ok}`), as the web provider uses it.
