//! The condition language of metrics: an evaluator that is observably equal to Go's `github.com/expr-lang/expr` v1.17.8
//! in the environment that Argo Rollouts gives it.
//!
//! A source goes through [`parser`], [`checker`] (against the types of the actual result, which is why `result == 5` is an
//! error and not false when the result is a string), [`optimize`] and [`eval`]. `cases.tsv` records what Go answers.
//!
//! An expression comes from whoever may create an AnalysisTemplate, and its result from whoever answers for a provider.
//! So nothing here panics, overflows the stack, allocates without bound or runs for long: sources, nodes, nesting,
//! elements, bytes and steps are all limited, and a limit that is met is an error like any other.
//!
//! What Go does and this does not: methods of times and durations (`now().Unix()`), expressions nested deeper than
//! [`MAX_DEPTH`], the last bit of a power, and strings that are no UTF-8 (half of a character is replaced).

mod ast;
mod budget;
mod builtins;
mod checker;
mod eval;
mod functions;
mod json;
mod lexer;
mod library;
mod operators;
mod optimize;
mod parser;
mod pattern;
mod text;
mod time;
mod types;
mod value;

#[cfg(test)]
pub(crate) mod oracle;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;

use self::budget::Budget;
pub use self::functions::EnvFunction;
use self::types::Type;
use self::value::{Key, MapKind};
pub use self::value::{List, Map, Value};

/// Nesting of an expression. At this depth parser, check and evaluation each take less than half of the 2 MiB stack that a
/// thread has, in a debug build too; a test holds them to that.
pub const MAX_DEPTH: usize = 96;
/// Nesting of a value: more than the 128 that serde_json lets a document have.
pub const MAX_VALUE_DEPTH: usize = 160;
/// Nodes of an expression: Go's limit.
pub const MAX_NODES: usize = 10_000;
/// Bytes of an expression.
pub const MAX_SOURCE: usize = 256 << 10;

/// Whether a metric's result meets a condition. `now` is what the built-in `now()` returns.
///
/// # Errors
/// Where Go has one: a syntax error, a type mismatch, a failure of the evaluation, or a value that is no bool.
pub fn evaluate(condition: &str, result: &Value, now: Timestamp) -> Result<bool, ExprError> {
    match evaluate_value(condition, &Environment::condition(result.clone(), now))? {
        Value::Bool(bool) => Ok(bool),
        other => Err(ExprError::unexpected("bool", &other)),
    }
}

/// A time expression, such as the start of a range query: `now() - duration("1h")`.
pub fn evaluate_time(source: &str, now: Timestamp) -> Result<Timestamp, ExprError> {
    match evaluate_value(source, &Environment::time(now))? {
        Value::Time(time) => Ok(time.timestamp()),
        other => Err(ExprError::unexpected("time.Time", &other)),
    }
}

/// Any expression.
pub fn evaluate_value(source: &str, environment: &Environment) -> Result<Value, ExprError> {
    run(source, environment).map_err(|failure| failure.bind(source))
}

/// Whether a source is an expression at all. Types are not checked: they depend on the result.
pub fn check_syntax(source: &str) -> Result<(), ExprError> {
    parser::parse(source).map(|_| ()).map_err(|failure| failure.bind(source))
}

fn run(source: &str, environment: &Environment) -> Result<Value, Failure> {
    let mut budget = Budget::new();
    let (mut ast, root) = parser::parse(source)?;
    checker::check(&mut ast, root, environment, &mut budget)?;
    optimize::optimize(&mut ast)?;
    eval::evaluate(&ast, root, environment, &mut budget)
}

/// What an expression can refer to.
#[derive(Debug, Clone)]
pub struct Environment {
    /// `None`: a time expression, which has no result and fewer functions.
    result: Option<Value>,
    now: Timestamp,
}

impl Environment {
    /// `result` and the functions that Argo Rollouts adds for conditions.
    pub fn condition(result: Value, now: Timestamp) -> Self {
        Self { result: Some(result), now }
    }

    /// That of the start and end of a range query.
    pub fn time(now: Timestamp) -> Self {
        Self { result: None, now }
    }

    fn now(&self) -> Timestamp {
        self.now
    }

    fn result(&self) -> &Value {
        self.result.as_ref().unwrap_or(&Value::Nil)
    }

    fn value_of(&self, name: &str) -> Option<Value> {
        if name == "result" {
            return self.result.clone();
        }
        let (_, function) = EnvFunction::ALL.into_iter().find(|(function, _)| *function == name)?;
        let in_time_expressions = matches!(function, EnvFunction::IsNaN | EnvFunction::IsInf);
        (self.result.is_some() || in_time_expressions).then_some(Value::Function(function))
    }

    fn type_of(&self, name: &str) -> Option<Type> {
        self.value_of(name).as_ref().map(Type::of)
    }

    /// `$env`.
    fn as_map(&self) -> Value {
        let names = EnvFunction::ALL.into_iter().map(|(name, _)| name).chain(["result"]);
        let entries: BTreeMap<Key, Value> =
            names.filter_map(|name| Some((Key::String(name.into()), self.value_of(name)?))).collect();
        Value::map(MapKind::Strings, entries).unwrap_or(Value::Nil)
    }
}

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExprError {
    pub kind: ErrorKind,
    /// What is wrong, in Go's words. Argo Rollouts shows only this.
    pub message: String,
    /// Where, if it is at a place.
    pub position: Option<Position>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    Syntax,
    /// Found before the evaluation.
    Type,
    Runtime,
    /// Too long, too deep, too costly.
    Limit,
    /// Evaluated, but not to what was wanted.
    Result,
}

/// A place in a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// From one.
    pub line: usize,
    /// In characters, from one.
    pub column: usize,
    /// The text of the line.
    pub text: String,
}

impl fmt::Display for ExprError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(Position { line, column, text }) = &self.position {
            write!(f, " ({line}:{column})\n | {}\n | {:.>width$}", text.replace('\t', " "), "^", width = column)?;
        }
        Ok(())
    }
}

impl std::error::Error for ExprError {}

impl ExprError {
    fn unexpected(wanted: &str, value: &Value) -> Self {
        let message = format!("expected {wanted}, but got {}", value.type_name());
        Self { kind: ErrorKind::Result, message, position: None }
    }
}

/// An error before it is bound to the source.
#[derive(Debug)]
struct Failure {
    kind: ErrorKind,
    at: usize,
    message: String,
}

impl Failure {
    fn new(kind: ErrorKind, at: usize, message: impl Into<String>) -> Self {
        Self { kind, at, message: message.into() }
    }

    fn bind(self, source: &str) -> ExprError {
        let before: String = source.chars().take(self.at).collect();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let text = source[line_start..].lines().next().unwrap_or_default();
        // Go shows no place in an empty line.
        let position = (!text.is_empty()).then(|| Position {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            text: text.to_owned(),
        });
        ExprError { kind: self.kind, message: self.message, position }
    }
}
