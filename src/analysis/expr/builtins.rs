//! The standard built-ins: their names, and what the type check knows about their arguments.

use super::parser::Argument::{self, Expression, OptionalExpression, OptionalPredicate, Predicate};
use super::types::{Type, TypeKind};
use super::value::{MapKind, Slice};

macro_rules! builtins {
    ($($variant:ident = $name:literal),* $(,)?) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Builtin { $($variant),* }

        impl Builtin {
            pub(super) fn named(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)*
                    _ => None,
                }
            }

            pub(super) fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

builtins! {
    All = "all", None = "none", Any = "any", One = "one", Filter = "filter", Map = "map", Find = "find",
    FindIndex = "findIndex", FindLast = "findLast", FindLastIndex = "findLastIndex", Count = "count", Sum = "sum",
    GroupBy = "groupBy", SortBy = "sortBy", Reduce = "reduce",
    Len = "len", Type = "type", Abs = "abs", Ceil = "ceil", Floor = "floor", Round = "round", Int = "int",
    Float = "float", String = "string", Trim = "trim", TrimPrefix = "trimPrefix", TrimSuffix = "trimSuffix",
    Upper = "upper", Lower = "lower", Split = "split", SplitAfter = "splitAfter", Replace = "replace",
    Repeat = "repeat", Join = "join", IndexOf = "indexOf", LastIndexOf = "lastIndexOf", HasPrefix = "hasPrefix",
    HasSuffix = "hasSuffix", Max = "max", Min = "min", Mean = "mean", Median = "median", ToJson = "toJSON",
    FromJson = "fromJSON", ToBase64 = "toBase64", FromBase64 = "fromBase64", Now = "now", Duration = "duration",
    Date = "date", Timezone = "timezone", First = "first", Last = "last", Get = "get", Take = "take", Keys = "keys",
    Values = "values", ToPairs = "toPairs", FromPairs = "fromPairs", Reverse = "reverse", Uniq = "uniq",
    Concat = "concat", Flatten = "flatten", Sort = "sort", BitAnd = "bitand", BitOr = "bitor", BitXor = "bitxor",
    BitNand = "bitnand", BitShl = "bitshl", BitShr = "bitshr", BitUshr = "bitushr", BitNot = "bitnot",
}

/// The parameters and the result of one way to call a function.
pub(super) type Overload = (&'static [Type], Type);

const STRINGS: Type = Type::Array(Slice::Strings, None);
const INTS: Type = Type::Array(Slice::Ints, None);
const FLOATS: Type = Type::Array(Slice::Floats, None);

impl Builtin {
    /// How the arguments of a built-in that takes a predicate are read.
    pub(super) fn predicate_arguments(self) -> Option<&'static [Argument]> {
        Some(match self {
            Self::All
            | Self::None
            | Self::Any
            | Self::One
            | Self::Filter
            | Self::Map
            | Self::Find
            | Self::FindIndex
            | Self::FindLast
            | Self::FindLastIndex
            | Self::GroupBy => &[Expression, Predicate],
            Self::Count | Self::Sum => &[Expression, OptionalPredicate],
            Self::SortBy | Self::Reduce => &[Expression, Predicate, OptionalExpression],
            _ => return None,
        })
    }

    /// The ways to call a built-in with fixed types, in Go's order: the last one names the error.
    pub(super) fn overloads(self) -> Option<&'static [Overload]> {
        const S: Type = Type::String;
        const I: Type = Type::Int;
        const ANY: Type = Type::Any;
        const LIST: Type = Type::ARRAY;
        Some(match self {
            Self::Type | Self::String | Self::ToJson => &[(&[ANY], S)],
            Self::Trim => &[(&[S], S), (&[S, S], S)],
            Self::TrimPrefix | Self::TrimSuffix => &[(&[S, S], S), (&[S], S)],
            Self::Upper | Self::Lower | Self::ToBase64 | Self::FromBase64 => &[(&[S], S)],
            Self::Split | Self::SplitAfter => &[(&[S, S], STRINGS), (&[S, S, I], STRINGS)],
            Self::Replace => &[(&[S, S, S, I], S), (&[S, S, S], S)],
            Self::Repeat => &[(&[S, I], S)],
            Self::Join => &[(&[STRINGS, S], S), (&[LIST, S], S), (&[LIST], S), (&[STRINGS, S], S), (&[STRINGS], S)],
            Self::IndexOf | Self::LastIndexOf => &[(&[S, S], I)],
            Self::HasPrefix | Self::HasSuffix => &[(&[S, S], Type::Bool)],
            Self::FromJson => &[(&[S], ANY)],
            Self::Duration => &[(&[S], Type::Duration)],
            Self::Timezone => &[(&[S], Type::Zone)],
            Self::Sort => &[
                (&[LIST, S], LIST),
                (&[INTS, S], LIST),
                (&[FLOATS, S], LIST),
                (&[STRINGS, S], LIST),
                (&[LIST], LIST),
                (&[FLOATS], LIST),
                (&[STRINGS], LIST),
                (&[INTS], LIST),
            ],
            Self::BitAnd | Self::BitOr | Self::BitXor | Self::BitNand | Self::BitShl | Self::BitShr | Self::BitUshr => {
                &[(&[I, I], I)]
            }
            Self::BitNot => &[(&[I], I)],
            _ => return None,
        })
    }

    /// Judges the arguments of a built-in that looks at them one by one.
    pub(super) fn validate(self, arguments: &[Type]) -> Result<Type, String> {
        let name = self.name();
        let one = || match arguments {
            [argument] => Ok(argument),
            _ => Err(format!("invalid number of arguments (expected 1, got {})", arguments.len())),
        };
        match self {
            Self::Len => {
                let argument = one()?;
                match argument.kind() {
                    TypeKind::Map | TypeKind::Slice | TypeKind::String | TypeKind::Interface => Ok(Type::Int),
                    _ => Err(format!("invalid argument for len (type {})", argument.reflected())),
                }
            }
            Self::Abs => numeric(name, one()?).cloned(),
            Self::Ceil | Self::Floor | Self::Round => numeric(name, one()?).map(|_| Type::Float),
            Self::Int | Self::Float => {
                let argument = one()?;
                if !argument.is_string() {
                    numeric(name, argument)?;
                }
                Ok(if self == Self::Int { Type::Int } else { Type::Float })
            }
            Self::Max | Self::Min | Self::Mean | Self::Median => {
                let first = arguments.first().ok_or_else(|| format!("not enough arguments to call {name}"))?;
                for argument in arguments {
                    match argument.kind() {
                        TypeKind::Interface | TypeKind::Slice => return Ok(Type::Any),
                        _ => numeric(name, argument)?,
                    };
                }
                Ok(first.clone())
            }
            Self::Now => match arguments {
                [] | [Type::Zone] => Ok(Type::Time),
                _ => Err(format!("invalid number of arguments (expected 0, got {})", arguments.len())),
            },
            Self::Date => {
                if arguments.is_empty() {
                    return Err("invalid number of arguments (expected at least 1, got 0)".into());
                }
                let rest = arguments.len() - usize::from(arguments[0] == Type::Zone);
                match rest {
                    0..=3 => Ok(Type::Time),
                    _ => Err(format!("invalid number of arguments (expected at most 3, got {rest})")),
                }
            }
            Self::First | Self::Last => match one()? {
                Type::Array(slice, _) => Ok(slice.element()),
                Type::Any => Ok(Type::Any),
                other => Err(format!("cannot get {name} element from {}", other.reflected())),
            },
            Self::Take => match arguments {
                [list, count] => {
                    array(list, || format!("cannot take from {}", list.reflected()))?;
                    match count.kind() {
                        TypeKind::Interface | TypeKind::Int | TypeKind::Int64 => Ok(match list {
                            // What was known of the elements beyond the slice's type is forgotten.
                            Type::Array(slice, _) => Type::Array(*slice, None),
                            other => other.clone(),
                        }),
                        _ => Err(format!("cannot take {} elements", count.reflected())),
                    }
                }
                _ => Err(format!("invalid number of arguments (expected 2, got {})", arguments.len())),
            },
            Self::Keys | Self::Values | Self::ToPairs => {
                let argument = one()?;
                match argument.kind() {
                    TypeKind::Interface | TypeKind::Map => Ok(Type::ARRAY),
                    _ if self == Self::ToPairs => Err(format!("cannot transform {} to pairs", argument.reflected())),
                    _ => Err(format!("cannot get {name} from {}", argument.reflected())),
                }
            }
            Self::FromPairs => {
                let argument = one()?;
                array(argument, || format!("cannot transform {} from pairs", argument.reflected()))?;
                Ok(Type::Map(MapKind::Any))
            }
            Self::Reverse | Self::Uniq | Self::Flatten => {
                let argument = one()?;
                array(argument, || format!("cannot {name} {}", argument.reflected()))?;
                Ok(Type::ARRAY)
            }
            Self::Concat => {
                if arguments.is_empty() {
                    return Err("invalid number of arguments (expected at least 1, got 0)".into());
                }
                for argument in arguments {
                    array(argument, || format!("cannot concat {}", argument.reflected()))?;
                }
                Ok(Type::ARRAY)
            }
            _ => Err(format!("unknown builtin {name}")),
        }
    }
}

fn numeric<'a>(name: &str, argument: &'a Type) -> Result<&'a Type, String> {
    match argument.kind() {
        TypeKind::Int | TypeKind::Int64 | TypeKind::Float | TypeKind::Interface => Ok(argument),
        _ => Err(format!("invalid argument for {name} (type {})", argument.reflected())),
    }
}

fn array(argument: &Type, error: impl FnOnce() -> String) -> Result<(), String> {
    match argument.kind() {
        TypeKind::Interface | TypeKind::Slice => Ok(()),
        _ => Err(error()),
    }
}
