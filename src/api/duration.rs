//! Durations in the syntax of the Go language (`300ms`, `1.5h`, `2m30s`).
//!
//! Three types: [`GoDuration`] is the span of time, [`DurationString`] is what a user wrote for one (decoded without
//! judging it, so that one bad text is a validation error and not an undecodable object), and [`PauseDuration`] is the
//! duration of a pause step, which may also be a number of seconds.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use jiff::SignedDuration;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::int_or_percent::IntOrString;

/// A signed span of time in nanoseconds, about ±292 years, read and printed as Go's `time.Duration` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoDuration(i64);

/// Why a text is not a duration, in the words of Go's `time` package.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    #[error("time: invalid duration {}", quote(.0))]
    Invalid(String),
    #[error("time: missing unit in duration {}", quote(.0))]
    MissingUnit(String),
    #[error("time: unknown unit {} in duration {}", quote(.unit), quote(.text))]
    UnknownUnit { unit: String, text: String },
}

impl GoDuration {
    pub const ZERO: Self = Self(0);

    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// `seconds`, or the longest duration there is of that sign.
    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds.saturating_mul(NANOS_PER_SECOND))
    }

    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Whole seconds, rounded towards zero.
    pub const fn as_secs(self) -> i64 {
        self.0 / NANOS_PER_SECOND
    }

    pub fn as_secs_f64(self) -> f64 {
        SignedDuration::from(self).as_secs_f64()
    }

    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }
}

impl From<GoDuration> for SignedDuration {
    fn from(duration: GoDuration) -> Self {
        Self::from_nanos(duration.0)
    }
}

impl FromStr for GoDuration {
    type Err = DurationError;

    /// Reads `[-+]?([0-9]*(\.[0-9]*)?unit)+` with the units `ns`, `us`, `µs`, `μs`, `ms`, `s`, `m` and `h`, or a bare
    /// `0`. Digits below a nanosecond are cut off.
    fn from_str(text: &str) -> Result<Self, DurationError> {
        let invalid = || DurationError::Invalid(text.to_owned());
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(Self::ZERO);
        }
        if rest.is_empty() {
            return Err(invalid());
        }
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let (whole, after_whole) = split_digits(rest);
            let (fraction, after_number) = match after_whole.strip_prefix('.') {
                Some(after_point) => split_digits(after_point),
                None => ("", after_whole),
            };
            if whole.is_empty() && fraction.is_empty() {
                return Err(invalid());
            }
            let whole = whole_number(whole).ok_or_else(invalid)?;
            let end = after_number.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after_number.len());
            let (unit, after_unit) = after_number.split_at(end);
            if unit.is_empty() {
                return Err(DurationError::MissingUnit(text.to_owned()));
            }
            let unit = nanos_per(unit)
                .ok_or_else(|| DurationError::UnknownUnit { unit: unit.to_owned(), text: text.to_owned() })?;
            total = whole
                .checked_mul(unit)
                .and_then(|nanos| nanos.checked_add(fraction_of(fraction, unit)))
                .filter(|nanos| *nanos <= LARGEST)
                .and_then(|nanos| nanos.checked_add(total))
                .filter(|nanos| *nanos <= LARGEST)
                .ok_or_else(invalid)?;
            rest = after_unit;
        }
        if negative {
            return Ok(Self(0i64.wrapping_sub_unsigned(total)));
        }
        i64::try_from(total).map(Self).map_err(|_| invalid())
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        match nanos {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{nanos}ns"),
            1_000..1_000_000 => write!(f, "{}µs", Decimal { value: nanos, digits: 3 }),
            1_000_000..1_000_000_000 => write!(f, "{}ms", Decimal { value: nanos, digits: 6 }),
            _ => {
                let (minutes, rest) = (nanos / (60 * SECOND), nanos % (60 * SECOND));
                if minutes >= 60 {
                    write!(f, "{}h", minutes / 60)?;
                }
                if minutes > 0 {
                    write!(f, "{}m", minutes % 60)?;
                }
                write!(f, "{}s", Decimal { value: rest, digits: 9 })
            }
        }
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for GoDuration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "GoDuration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": "string" })
    }
}

/// What a user wrote where a duration belongs: kept as it is, read when it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DurationString(pub String);

impl DurationString {
    pub fn parse(&self) -> Result<GoDuration, DurationError> {
        self.0.parse()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for DurationString {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<GoDuration> for DurationString {
    fn from(duration: GoDuration) -> Self {
        Self(duration.to_string())
    }
}

impl fmt::Display for DurationString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for DurationString {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "DurationString".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": "string" })
    }
}

/// How long a pause step lasts: an integer or a text of digits is a number of seconds, any other text a Go duration.
/// Written back as the user wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PauseDuration(pub IntOrString);

impl PauseDuration {
    /// Whole seconds. A fraction of a second is cut off, as Argo Rollouts does (`500ms` is 0), and what exceeds an
    /// int32 is as long as an int32 can say. May be negative, which validation refuses.
    pub fn seconds(&self) -> Result<i32, DurationError> {
        match &self.0 {
            IntOrString::Int(seconds) => Ok(*seconds),
            // Rust's and Go's integer syntax agree: an optional sign and decimal digits.
            IntOrString::String(text) => text.parse::<i32>().or_else(|_| {
                let seconds = text.parse::<GoDuration>()?.as_secs();
                Ok(seconds.clamp(i32::MIN.into(), i32::MAX.into()) as i32)
            }),
        }
    }
}

impl From<i32> for PauseDuration {
    fn from(seconds: i32) -> Self {
        Self(IntOrString::Int(seconds))
    }
}

impl From<&str> for PauseDuration {
    fn from(text: &str) -> Self {
        Self(IntOrString::String(text.to_owned()))
    }
}

impl fmt::Display for PauseDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl JsonSchema for PauseDuration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "PauseDuration".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        IntOrString::json_schema(generator)
    }
}

const NANOS_PER_SECOND: i64 = 1_000_000_000;
const SECOND: u64 = 1_000_000_000;
/// The magnitude of the most negative duration, which is one more than that of the longest positive one.
const LARGEST: u64 = 1 << 63;

fn nanos_per(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => SECOND,
        "m" => 60 * SECOND,
        "h" => 3600 * SECOND,
        _ => return None,
    })
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn whole_number(digits: &str) -> Option<u64> {
    if digits.is_empty() {
        return Some(0);
    }
    digits.parse().ok().filter(|number| *number <= LARGEST)
}

/// `0.digits` of `unit` in nanoseconds, with the rounding of Go: the arithmetic is in float64, and digits that no longer
/// fit an int64 are ignored.
fn fraction_of(digits: &str, unit: u64) -> u64 {
    let mut numerator: u64 = 0;
    let mut scale: f64 = 1.0;
    for digit in digits.bytes().map(|byte| u64::from(byte - b'0')) {
        if numerator > (LARGEST - 1) / 10 || numerator * 10 + digit > LARGEST {
            break;
        }
        numerator = numerator * 10 + digit;
        scale *= 10.0;
    }
    (numerator as f64 * (unit as f64 / scale)) as u64
}

/// `value` / 10^`digits` without trailing zeros.
struct Decimal {
    value: u64,
    digits: u32,
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = 10u64.pow(self.digits);
        write!(f, "{}", self.value / unit)?;
        if self.value.is_multiple_of(unit) {
            return Ok(());
        }
        let fraction = format!("{:0width$}", self.value % unit, width = self.digits as usize);
        write!(f, ".{}", fraction.trim_end_matches('0'))
    }
}

/// The text in quotes as Go's `time` package shows it: control and non-ASCII characters as the hex of their bytes.
fn quote(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='\x7f' => quoted.push(c),
            _ => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    quoted.push_str(&format!("\\x{byte:02x}"));
                }
            }
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: i64 = 1_000;
    const MS: i64 = 1_000_000;
    const S: i64 = 1_000_000_000;
    const M: i64 = 60 * S;
    const H: i64 = 60 * M;

    #[test]
    fn reads_what_go_reads() {
        // The vectors of Go's own test.
        let vectors = [
            ("0", 0),
            ("5s", 5 * S),
            ("30s", 30 * S),
            ("1478s", 1478 * S),
            ("-5s", -5 * S),
            ("+5s", 5 * S),
            ("-0", 0),
            ("+0", 0),
            ("5.0s", 5 * S),
            ("5.6s", 5 * S + 600 * MS),
            ("5.s", 5 * S),
            (".5s", 500 * MS),
            ("1.0s", S),
            ("1.00s", S),
            ("1.004s", S + 4 * MS),
            ("1.0040s", S + 4 * MS),
            ("100.00100s", 100 * S + MS),
            ("10ns", 10),
            ("11us", 11 * US),
            ("12\u{b5}s", 12 * US),
            ("12\u{3bc}s", 12 * US),
            ("13ms", 13 * MS),
            ("14s", 14 * S),
            ("15m", 15 * M),
            ("16h", 16 * H),
            ("3h30m", 3 * H + 30 * M),
            ("10.5s4m", 4 * M + 10 * S + 500 * MS),
            ("-2m3.4s", -(2 * M + 3 * S + 400 * MS)),
            ("1h2m3s4ms5us6ns", H + 2 * M + 3 * S + 4 * MS + 5 * US + 6),
            ("39h9m14.425s", 39 * H + 9 * M + 14 * S + 425 * MS),
            ("52763797000ns", 52763797000),
            ("0.3333333333333333333h", 20 * M),
            ("9007199254740993ns", (1 << 53) + 1),
            ("9223372036854775807ns", i64::MAX),
            ("9223372036854775.807us", i64::MAX),
            ("9223372036s854ms775us807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
            ("-9223372036854775.808us", i64::MIN),
            ("-9223372036s854ms775us808ns", i64::MIN),
            ("-2562047h47m16.854775808s", i64::MIN),
            ("0.100000000000000000000h", 6 * M),
            ("0.830103483285477580700h", 49 * M + 48 * S + 372539827),
        ];
        for (text, nanos) in vectors {
            assert_eq!(text.parse(), Ok(GoDuration(nanos)), "{text}");
        }
    }

    #[test]
    fn refuses_what_go_refuses_in_the_same_words() {
        let vectors = [
            ("", r#"time: invalid duration """#),
            ("3", r#"time: missing unit in duration "3""#),
            ("-", r#"time: invalid duration "-""#),
            ("s", r#"time: invalid duration "s""#),
            (".", r#"time: invalid duration ".""#),
            ("-.", r#"time: invalid duration "-.""#),
            (".s", r#"time: invalid duration ".s""#),
            ("+.s", r#"time: invalid duration "+.s""#),
            ("1d", r#"time: unknown unit "d" in duration "1d""#),
            ("5 m", r#"time: unknown unit " m" in duration "5 m""#),
            ("\u{fffd}", r#"time: invalid duration "\xef\xbf\xbd""#),
            ("a\"b\\", r#"time: invalid duration "a\"b\\""#),
            ("9223372036854775810ns", r#"time: invalid duration "9223372036854775810ns""#),
            ("9223372036854775808ns", r#"time: invalid duration "9223372036854775808ns""#),
            ("-9223372036854775809ns", r#"time: invalid duration "-9223372036854775809ns""#),
            ("9223372036854776us", r#"time: invalid duration "9223372036854776us""#),
            ("3000000h", r#"time: invalid duration "3000000h""#),
            ("9223372036854775.808us", r#"time: invalid duration "9223372036854775.808us""#),
            ("9223372036854ms775us808ns", r#"time: invalid duration "9223372036854ms775us808ns""#),
        ];
        for (text, message) in vectors {
            assert_eq!(text.parse::<GoDuration>().unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn prints_as_go_prints() {
        let vectors = [
            ("0s", 0),
            ("1ns", 1),
            ("1.1µs", 1100),
            ("2.2ms", 2200 * US),
            ("3.3s", 3300 * MS),
            ("1m0s", M),
            ("1h0m0s", H),
            ("4m5s", 4 * M + 5 * S),
            ("4m5.001s", 4 * M + 5001 * MS),
            ("5h6m7.001s", 5 * H + 6 * M + 7001 * MS),
            ("8m0.000000001s", 8 * M + 1),
            ("-1.1µs", -1100),
            ("2562047h47m16.854775807s", i64::MAX),
            ("-2562047h47m16.854775808s", i64::MIN),
        ];
        for (text, nanos) in vectors {
            assert_eq!(GoDuration(nanos).to_string(), text);
            assert_eq!(text.parse(), Ok(GoDuration(nanos)));
        }
    }

    #[test]
    fn a_pause_is_seconds_or_a_duration() {
        let seconds = |json: &str| serde_json::from_str::<PauseDuration>(json).unwrap().seconds();
        for (json, expected) in [
            ("10", 10),
            ("-1", -1),
            (r#""10""#, 10),
            (r#""1m30s""#, 90),
            (r#""1.9s""#, 1),
            (r#""500ms""#, 0),
            (r#""100000h""#, 360_000_000),
            (r#""2000000h""#, i32::MAX),
        ] {
            assert_eq!(seconds(json), Ok(expected), "{json}");
        }
        assert_eq!(seconds(r#""abc""#), Err(DurationError::Invalid("abc".into())));
        assert_eq!(seconds(r#""99999999999""#), Err(DurationError::MissingUnit("99999999999".into())));
    }

    #[test]
    fn a_pause_stays_as_the_user_wrote_it() {
        for json in ["10", r#""10""#, r#""90s""#, r#""nonsense""#] {
            let pause: PauseDuration = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&pause).unwrap(), json);
        }
    }

    #[test]
    fn travels_as_text() {
        let duration: GoDuration = serde_json::from_str(r#""90s""#).unwrap();
        assert_eq!(duration, GoDuration::from_secs(90));
        assert_eq!(serde_json::to_string(&duration).unwrap(), r#""1m30s""#);
        let written: DurationString = serde_json::from_str(r#""90s""#).unwrap();
        assert_eq!(written.parse(), Ok(duration));
        assert_eq!(serde_json::to_string(&written).unwrap(), r#""90s""#);
    }
}
