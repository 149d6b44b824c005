//! Durations in the syntax of the Go language (`300ms`, `1.5h`, `2m30s`).
