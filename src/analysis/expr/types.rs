//! What is known about a value before the evaluation: Go checks against the types in the environment, so that
//! `result == 5` is an error when the result is a string.

use std::fmt;
use std::sync::Arc;

use super::functions::EnvFunction;
use super::value::{MapKind, Slice, Value};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Type {
    /// Nothing is known.
    Unknown,
    /// `interface {}`: anything, but known to be declared so. Differs from [`Type::Unknown`] in messages only.
    Any,
    Nil,
    Bool,
    Int,
    /// What `asInt` returns.
    Int64,
    Float,
    String,
    Time,
    Duration,
    Zone,
    /// The element's type may be known better than the slice says.
    Array(Slice, Option<Arc<Type>>),
    Map(MapKind),
    Function(EnvFunction),
    /// A built-in that is used as a value.
    BuiltinFunction,
}

/// Go's kinds, for the places where only these are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TypeKind {
    Invalid,
    Interface,
    Bool,
    Int,
    Int64,
    Float,
    String,
    Struct,
    Pointer,
    Slice,
    Map,
    Function,
}

/// What an operator accepts in one place when the other side is unknown.
#[derive(Debug, Clone, Copy)]
pub(super) enum Accepts {
    Bool,
    String,
    Integer,
    Number,
    Map,
    Array,
    Time,
    Duration,
}

impl Type {
    pub(super) fn of(value: &Value) -> Self {
        match value {
            Value::Nil => Self::Nil,
            Value::Bool(_) => Self::Bool,
            Value::Int(_) => Self::Int,
            Value::Float(_) => Self::Float,
            Value::String(_) => Self::String,
            Value::List(list) => Self::Array(list.slice, None),
            Value::Map(map) => Self::Map(map.kind),
            Value::Time(_) => Self::Time,
            Value::Duration(_) => Self::Duration,
            Value::Zone(_) => Self::Zone,
            Value::Function(function) => Self::Function(*function),
        }
    }

    pub(super) fn array_of(element: Type) -> Self {
        Self::Array(Slice::Any, Some(Arc::new(element)))
    }

    pub(super) const ARRAY: Self = Self::Array(Slice::Any, None);

    pub(super) fn kind(&self) -> TypeKind {
        match self {
            Self::Unknown | Self::Nil => TypeKind::Invalid,
            Self::Any => TypeKind::Interface,
            Self::Bool => TypeKind::Bool,
            Self::Int => TypeKind::Int,
            Self::Int64 | Self::Duration => TypeKind::Int64,
            Self::Float => TypeKind::Float,
            Self::String => TypeKind::String,
            Self::Time => TypeKind::Struct,
            Self::Zone => TypeKind::Pointer,
            Self::Array(..) => TypeKind::Slice,
            Self::Map(_) => TypeKind::Map,
            Self::Function(_) | Self::BuiltinFunction => TypeKind::Function,
        }
    }

    pub(super) fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown | Self::Any)
    }

    pub(super) fn is_nil(&self) -> bool {
        *self == Self::Nil
    }

    pub(super) fn is_bool(&self) -> bool {
        *self == Self::Bool
    }

    pub(super) fn is_string(&self) -> bool {
        *self == Self::String
    }

    pub(super) fn is_integer(&self) -> bool {
        matches!(self, Self::Int | Self::Int64)
    }

    pub(super) fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Int64 | Self::Float)
    }

    pub(super) fn is_array(&self) -> bool {
        matches!(self, Self::Array(..))
    }

    pub(super) fn is_map(&self) -> bool {
        matches!(self, Self::Map(_))
    }

    /// The type of an element of a list or of a value of a map.
    pub(super) fn element(&self) -> Self {
        match self {
            Self::Array(_, Some(element)) => Self::clone(element),
            Self::Array(slice, None) => slice.element(),
            Self::Map(MapKind::Groups) => Self::ARRAY,
            Self::Map(_) => Self::Any,
            _ => Self::Unknown,
        }
    }

    pub(super) fn key(&self) -> Self {
        match self {
            Self::Map(MapKind::Strings) => Self::String,
            Self::Map(MapKind::Any | MapKind::Groups) => Self::Any,
            _ => Self::Unknown,
        }
    }

    pub(super) fn assignable_to(&self, other: &Self) -> bool {
        if self.is_nil() {
            return matches!(
                other.kind(),
                TypeKind::Interface | TypeKind::Pointer | TypeKind::Function | TypeKind::Map | TypeKind::Slice
            );
        }
        match (self, other) {
            (Self::Unknown, _) | (_, Self::Unknown | Self::Nil) => false,
            (_, Self::Any) => true,
            (Self::Array(a, _), Self::Array(b, _)) => a == b,
            _ => self == other,
        }
    }

    pub(super) fn comparable_to(&self, other: &Self) -> bool {
        self.is_unknown()
            || other.is_unknown()
            || self.is_nil()
            || other.is_nil()
            || self.is_number() && other.is_number()
            || self.is_array() && other.is_array()
            || self.assignable_to(other)
    }

    pub(super) fn is_any_of(&self, accepted: &[Accepts]) -> bool {
        accepted.iter().any(|accepts| match accepts {
            Accepts::Bool => self.is_bool(),
            Accepts::String => self.is_string(),
            Accepts::Integer => self.is_integer(),
            Accepts::Number => self.is_number(),
            Accepts::Map => self.is_map(),
            Accepts::Array => self.is_array(),
            Accepts::Time => *self == Self::Time,
            Accepts::Duration => *self == Self::Duration,
        })
    }

    /// Whether one side or both are unknown, and what is known is acceptable.
    pub(super) fn maybe_compatible(&self, other: &Self, accepted: &[Accepts]) -> bool {
        match (self.is_unknown(), other.is_unknown()) {
            (true, true) => true,
            (true, false) => other.is_any_of(accepted),
            (false, true) => self.is_any_of(accepted),
            (false, false) => false,
        }
    }

    /// The type of the sum of two numbers.
    pub(super) fn promote(&self, other: &Self) -> Self {
        if *self == Self::Float || *other == Self::Float { Self::Float } else { Self::Int }
    }

    /// As the reflect package prints a type that may be missing, in messages of the built-ins.
    pub(super) fn reflected(&self) -> String {
        match self {
            Self::Nil => "%!s(<nil>)".into(),
            Self::Unknown => Self::Any.to_string(),
            known => known.to_string(),
        }
    }
}

impl Slice {
    pub(super) fn element(self) -> Type {
        match self {
            Self::Any => Type::Any,
            Self::Ints | Self::Bytes => Type::Int,
            Self::Floats => Type::Float,
            Self::Strings => Type::String,
            Self::Pairs => Type::ARRAY,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown | Self::Nil => "unknown",
            Self::Any => "interface {}",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Int64 => "int64",
            Self::Float => "float64",
            Self::String => "string",
            Self::Time => "time.Time",
            Self::Duration => "time.Duration",
            Self::Zone => "*time.Location",
            Self::Array(slice, _) => slice.type_name(),
            Self::Map(kind) => kind.type_name(),
            Self::Function(function) => function.signature(),
            Self::BuiltinFunction => "func(...interface {}) (interface {}, error)",
        })
    }
}
