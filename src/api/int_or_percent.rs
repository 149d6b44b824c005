//! Values that are a number or a text: `maxSurge: 1`, `maxSurge: 25%`, `targetPort: http`.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Kubernetes' `IntOrString`: a 32-bit integer or any text, written back as it was read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged, expecting = "an integer of 32 bits or a string")]
pub enum IntOrString {
    Int(i32),
    String(String),
}

/// Which way a percentage of a small number goes when it does not come out even.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    Up,
    Down,
}

/// Why a value is neither a number nor a percentage, in the words of Kubernetes' API machinery.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScaleError {
    #[error("invalid value for IntOrString: invalid type: string is not a percentage")]
    NotAPercentage,
    #[error("invalid value for IntOrString: invalid value {value:?}: not an integer")]
    NotANumber { value: String },
}

impl IntOrString {
    /// The number, or that percentage of `total`. A text must be an integer followed by `%`.
    pub fn scaled(&self, total: i32, round: Round) -> Result<i32, ScaleError> {
        match self {
            Self::Int(number) => Ok(*number),
            Self::String(text) => {
                let percent = text.strip_suffix('%').ok_or(ScaleError::NotAPercentage)?;
                percentage(text, percent, total, round)
            }
        }
    }

    /// As [`scaled`](Self::scaled), but a text is a percentage with or without its `%`: Argo Rollouts reads `maxSurge`
    /// and `maxUnavailable` so, and its own default for both is the text `25`.
    pub fn scaled_leniently(&self, total: i32, round: Round) -> Result<i32, ScaleError> {
        match self {
            Self::Int(number) => Ok(*number),
            Self::String(text) => percentage(text, &text.replace('%', ""), total, round),
        }
    }

    /// Whether this is a text that ends in `%`.
    pub fn is_percentage(&self) -> bool {
        matches!(self, Self::String(text) if text.ends_with('%'))
    }

    /// The value as JSON, as an error message shows it.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Int(number) => (*number).into(),
            Self::String(text) => text.as_str().into(),
        }
    }
}

impl From<i32> for IntOrString {
    fn from(number: i32) -> Self {
        Self::Int(number)
    }
}

impl From<&str> for IntOrString {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl fmt::Display for IntOrString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => number.fmt(f),
            Self::String(text) => text.fmt(f),
        }
    }
}

impl JsonSchema for IntOrString {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "IntOrString".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "x-kubernetes-int-or-string": true })
    }
}

fn percentage(text: &str, percent: &str, total: i32, round: Round) -> Result<i32, ScaleError> {
    let percent: i64 = percent.parse().map_err(|_| ScaleError::NotANumber { value: text.to_owned() })?;
    let hundredths = i128::from(percent) * i128::from(total);
    let scaled = match round {
        Round::Up => -(-hundredths).div_euclid(100),
        Round::Down => hundredths.div_euclid(100),
    };
    Ok(scaled.clamp(i32::MIN.into(), i32::MAX.into()) as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_is_of_the_total() {
        for (value, total, up, down) in [
            ("25%", 10, 3, 2),
            ("25%", 4, 1, 1),
            ("1%", 1, 1, 0),
            ("0%", 7, 0, 0),
            ("150%", 3, 5, 4),
            ("100%", i32::MAX, i32::MAX, i32::MAX),
            ("-25%", 10, -2, -3),
        ] {
            let value = IntOrString::from(value);
            assert_eq!(value.scaled(total, Round::Up), Ok(up), "{value}");
            assert_eq!(value.scaled(total, Round::Down), Ok(down), "{value}");
        }
        assert_eq!(IntOrString::Int(7).scaled(2, Round::Up), Ok(7));
    }

    #[test]
    fn a_bare_text_is_a_percentage_only_where_argo_takes_it_for_one() {
        let bare = IntOrString::from("25");
        assert_eq!(bare.scaled(10, Round::Up), Err(ScaleError::NotAPercentage));
        assert_eq!(bare.scaled_leniently(10, Round::Up), Ok(3));
        assert_eq!(IntOrString::from("25%").scaled_leniently(10, Round::Down), Ok(2));
        assert_eq!(IntOrString::Int(25).scaled_leniently(10, Round::Down), Ok(25));
        for text in ["", "%", "a%", "1.5%"] {
            let error = IntOrString::from(text).scaled_leniently(10, Round::Up).unwrap_err();
            assert_eq!(error, ScaleError::NotANumber { value: text.into() });
        }
    }

    #[test]
    fn json_is_a_number_or_a_text() {
        for json in ["1", "-3", r#""25%""#, r#""http""#] {
            let value: IntOrString = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&value).unwrap(), json);
        }
        for json in ["1.5", "true", "4294967296", "null", "{}"] {
            let error = serde_json::from_str::<IntOrString>(json).unwrap_err().to_string();
            assert!(error.contains("an integer of 32 bits or a string"), "{error}");
        }
    }
}
