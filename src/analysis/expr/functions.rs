//! The functions that Argo Rollouts adds to the language.

use super::types::Type;
use super::value::Value;

/// A function of the environment. `isNil` and `default` judge the metric's result, whatever their argument is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvFunction {
    AsInt,
    AsFloat,
    IsNaN,
    IsInf,
    IsNil,
    Default,
}

impl EnvFunction {
    pub(super) const ALL: [(&'static str, Self); 6] = [
        ("asInt", Self::AsInt),
        ("asFloat", Self::AsFloat),
        ("isNaN", Self::IsNaN),
        ("isInf", Self::IsInf),
        ("isNil", Self::IsNil),
        ("default", Self::Default),
    ];

    pub(super) fn signature(self) -> &'static str {
        match self {
            Self::AsInt => "func(interface {}) int64",
            Self::AsFloat => "func(interface {}) float64",
            Self::IsNaN | Self::IsInf => "func(float64) bool",
            Self::IsNil => "func(interface {}) bool",
            Self::Default => "func(interface {}, interface {}) interface {}",
        }
    }

    pub(super) fn parameters(self) -> &'static [Type] {
        match self {
            Self::AsInt | Self::AsFloat | Self::IsNil => &[Type::Any],
            Self::IsNaN | Self::IsInf => &[Type::Float],
            Self::Default => &[Type::Any, Type::Any],
        }
    }

    pub(super) fn returns(self) -> Type {
        match self {
            Self::AsInt => Type::Int64,
            Self::AsFloat => Type::Float,
            Self::IsNaN | Self::IsInf | Self::IsNil => Type::Bool,
            Self::Default => Type::Any,
        }
    }

    pub(super) fn call(self, arguments: &[Value], result: &Value) -> Result<Value, String> {
        let expected = self.parameters().len();
        if arguments.len() != expected {
            return Err(format!("invalid number of arguments: expected {expected}, got {}", arguments.len()));
        }
        let argument = &arguments[0];
        Ok(match self {
            Self::AsInt => Value::Int(as_int(argument)?),
            Self::AsFloat => Value::Float(as_float(argument)?),
            Self::IsNaN => Value::Bool(float(argument)?.is_nan()),
            Self::IsInf => Value::Bool(float(argument)?.is_infinite()),
            Self::IsNil => Value::Bool(result.is_nil()),
            Self::Default if result.is_nil() => arguments[1].clone(),
            Self::Default => result.clone(),
        })
    }
}

fn float(value: &Value) -> Result<f64, String> {
    match value {
        Value::Float(float) => Ok(*float),
        Value::Nil => Err("interface conversion: interface {} is nil, not float64".into()),
        other => Err(format!("interface conversion: interface {{}} is {}, not float64", other.type_name())),
    }
}

fn as_int(value: &Value) -> Result<i64, String> {
    match value {
        Value::Int(int) => Ok(*int),
        Value::Float(float) => Ok(truncate(*float)),
        Value::String(text) => parse_int(text).map_err(|reason| number_error("ParseInt", text, reason)),
        other => Err(unsupported("asInt", other)),
    }
}

fn as_float(value: &Value) -> Result<f64, String> {
    match value {
        Value::Int(int) => Ok(*int as f64),
        Value::Float(float) => Ok(*float),
        Value::String(text) => parse_float(text).map_err(|reason| number_error("ParseFloat", text, reason)),
        other => Err(unsupported("asFloat", other)),
    }
}

fn unsupported(function: &str, value: &Value) -> String {
    let text = value.print(&mut super::budget::Budget::new()).unwrap_or_default();
    format!("{function}() not supported on {} {text}", value.type_name())
}

fn number_error(function: &str, text: &str, reason: &str) -> String {
    format!("strconv.{function}: parsing {}: {reason}", super::lexer::quote(text))
}

/// A float as an integer, as Go does it on amd64: what does not fit is the smallest integer.
pub(super) fn truncate(float: f64) -> i64 {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if (-LIMIT..LIMIT).contains(&float) { float as i64 } else { i64::MIN }
}

pub(super) fn parse_int(text: &str) -> Result<i64, &'static str> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    text.parse::<i64>().map_err(|error| match error.kind() {
        PosOverflow | NegOverflow => "value out of range",
        _ => "invalid syntax",
    })
}

pub(super) fn parse_float(text: &str) -> Result<f64, &'static str> {
    match text.parse::<f64>() {
        Ok(value) if value.is_infinite() && text.contains(|c: char| c.is_ascii_digit()) => Err("value out of range"),
        Ok(value) => Ok(value),
        Err(_) => Err("invalid syntax"),
    }
}
