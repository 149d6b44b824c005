//! Kubernetes quantities (`100m`, `1.5Gi`, `1e3`) with the canonical texts that the hash of a template depends on.

use std::cmp::Ordering;

/// A decimal number, in whole nanos, and how its user likes to see it written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Quantity {
    /// The number is `unscaled` · 10^`scale`.
    unscaled: i128,
    scale: i64,
    format: Format,
    /// The text it was read from, where Kubernetes gives that back instead of the canonical form.
    written: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    DecimalExponent,
    BinarySi,
    DecimalSi,
}

/// In the words of Kubernetes' API machinery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Number,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

const NANO: i64 = -9;
const MILLI: i64 = -3;
/// So many digits, and two more for a suffix, fit an i128.
const MAX_DIGITS: usize = 36;
/// Kubernetes handles numbers of more digits differently.
const MAX_SHORT_DIGITS: usize = 18;
const DECIMAL_SUFFIXES: [(&str, i64); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY_SUFFIXES: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

impl Quantity {
    pub(super) const ZERO: Self = Self { unscaled: 0, scale: 0, format: Format::DecimalSi, written: None };

    pub(super) fn parse(text: &str) -> Result<Self, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::Format);
        }
        let (negative, unsigned) = match text.as_bytes()[0] {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (whole, rest) = digits(unsigned.trim_start_matches('0'));
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => digits(rest),
            None => ("", rest),
        };
        if !is_suffix(suffix) {
            return Err(QuantityError::Format);
        }
        let number = format!("{}{fraction}", if whole.is_empty() { "0" } else { whole });
        if number.len() > MAX_DIGITS {
            return Err(QuantityError::Number);
        }
        let magnitude: i128 = number.parse().map_err(|_| QuantityError::Number)?;
        let unit = Unit::of(suffix).ok_or(QuantityError::Suffix)?;
        if !unsigned.starts_with(|c: char| c.is_ascii_digit()) && fraction.is_empty() && !unit.is_short(&number, "") {
            return Err(QuantityError::Number);
        }
        let written = unit.keeps(&number, fraction, magnitude).then(|| text.to_owned());
        let mut quantity =
            Self { unscaled: magnitude, scale: -(fraction.len() as i64), format: unit.format(), written };
        match unit {
            Unit::Decimal { exponent, .. } => quantity.scale += exponent,
            Unit::Binary { exponent } => quantity.shift(exponent),
        }
        quantity.round_up(NANO);
        if negative {
            quantity.unscaled = -quantity.unscaled;
        }
        Ok(quantity)
    }

    /// What the API server does to every amount in a resource list.
    pub(super) fn rounded_to_milli(mut self) -> Self {
        self.round_up(MILLI);
        self
    }

    /// As Kubernetes writes it back.
    pub(super) fn text(&self) -> String {
        match &self.written {
            Some(text) => text.clone(),
            None => self.canonical(self.format),
        }
    }

    /// A text that is the same for all quantities of the same value.
    pub(super) fn value_text(&self) -> String {
        self.canonical(Format::DecimalExponent)
    }

    pub(super) fn is_negative(&self) -> bool {
        self.unscaled < 0
    }

    pub(super) fn is_integer(&self) -> bool {
        self.normal().1 >= 0
    }

    /// By value.
    pub(super) fn compare(&self, other: &Self) -> Ordering {
        let (left, left_scale) = self.normal();
        let (right, right_scale) = other.normal();
        let scale = left_scale.min(right_scale);
        match (times_ten_to(left, left_scale - scale), times_ten_to(right, right_scale - scale)) {
            (Some(left), Some(right)) => left.cmp(&right),
            // The one that is too large to be written out is the further one from zero.
            (None, _) => left.cmp(&0),
            (_, None) => 0.cmp(&right),
        }
    }

    fn shift(&mut self, exponent: u32) {
        let limit = i128::from(i64::MAX);
        // A fraction has few digits, or the product would not fit; both cases are far beyond the limit.
        let product = self.unscaled.checked_mul(1i128 << exponent);
        match product.filter(|product| product / ten_to(-self.scale).unwrap_or(i128::MAX) < limit) {
            Some(product) => self.unscaled = product,
            None => (self.unscaled, self.scale) = (limit, 0),
        }
    }

    /// Away from zero, to a multiple of 10^`scale`.
    fn round_up(&mut self, scale: i64) {
        if self.scale >= scale {
            return;
        }
        self.written = None;
        let (quotient, remainder) = match ten_to(scale - self.scale) {
            Some(divisor) => (self.unscaled / divisor, self.unscaled % divisor),
            None => (0, self.unscaled),
        };
        self.unscaled = quotient + remainder.signum();
        self.scale = scale;
    }

    /// The number without trailing zeros, and its power of ten.
    fn normal(&self) -> (i128, i64) {
        let (mut unscaled, mut scale) = (self.unscaled, self.scale);
        if unscaled == 0 {
            return (0, 0);
        }
        while unscaled % 10 == 0 {
            unscaled /= 10;
            scale += 1;
        }
        (unscaled, scale)
    }

    fn canonical(&self, format: Format) -> String {
        let (mut number, mut exponent) = self.normal();
        if number == 0 {
            return "0".to_owned();
        }
        if format == Format::BinarySi
            && exponent >= 0
            && let Some(mut whole) = times_ten_to(number, exponent)
            && whole.abs() >= 1024
        {
            let mut suffix = "";
            for (larger, _) in BINARY_SUFFIXES {
                if whole % 1024 != 0 {
                    break;
                }
                whole /= 1024;
                suffix = larger;
            }
            return format!("{whole}{suffix}");
        }
        while exponent % 3 != 0 {
            number *= 10;
            exponent -= 1;
        }
        match format {
            Format::DecimalExponent if exponent == 0 => number.to_string(),
            Format::DecimalExponent => format!("{number}e{exponent}"),
            // Kubernetes, too, writes no suffix where it has none.
            Format::DecimalSi | Format::BinarySi => {
                let suffix = DECIMAL_SUFFIXES.iter().find(|(_, power)| *power == exponent);
                format!("{number}{}", suffix.map_or("", |(suffix, _)| suffix))
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Unit {
    Decimal { exponent: i64, format: Format },
    Binary { exponent: u32 },
}

impl Unit {
    fn of(suffix: &str) -> Option<Self> {
        if let Some((_, exponent)) = DECIMAL_SUFFIXES.iter().find(|(known, _)| *known == suffix) {
            return Some(Self::Decimal { exponent: *exponent, format: Format::DecimalSi });
        }
        if let Some((_, exponent)) = BINARY_SUFFIXES.iter().find(|(known, _)| *known == suffix) {
            return Some(Self::Binary { exponent: *exponent });
        }
        let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
        Some(Self::Decimal { exponent: exponent.into(), format: Format::DecimalExponent })
    }

    fn format(self) -> Format {
        match self {
            Self::Decimal { format, .. } => format,
            Self::Binary { .. } => Format::BinarySi,
        }
    }

    /// Whether Kubernetes takes the short way, without big numbers, which differs in what it keeps and in what it refuses.
    fn is_short(self, number: &str, fraction: &str) -> bool {
        match self {
            Self::Decimal { exponent, .. } => {
                number.len() <= MAX_SHORT_DIGITS && exponent - fraction.len() as i64 >= NANO
            }
            Self::Binary { exponent } => fraction.is_empty() && number.len() + exponent as usize * 3 / 10 <= 14,
        }
    }

    /// Whether Kubernetes takes the text for canonical already. It looks only roughly (`+1` and `010` pass), and since
    /// the text ends up in the hash, so must we.
    fn keeps(self, number: &str, fraction: &str, magnitude: i128) -> bool {
        self.is_short(number, fraction)
            && match self {
                Self::Decimal { exponent, .. } => {
                    let scale = exponent - fraction.len() as i64;
                    scale % 3 == 0 && !number.ends_with("000") && !number.starts_with('0')
                }
                Self::Binary { .. } => magnitude % 8 != 0,
            }
    }
}

fn is_suffix(text: &str) -> bool {
    let rest = text.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['+', '-']).unwrap_or(rest);
    rest.bytes().all(|byte| byte.is_ascii_digit())
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn ten_to(power: i64) -> Option<i128> {
    10i128.checked_pow(u32::try_from(power).ok()?)
}

fn times_ten_to(number: i128, power: i64) -> Option<i128> {
    number.checked_mul(ten_to(power)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_as_kubernetes_does() {
        // Those that the recorded templates do not already hold.
        for (text, written) in [
            ("0", "0"),
            ("-0", "0"),
            ("00", "0"),
            ("1.5Gi", "1536Mi"),
            ("0.1", "100m"),
            ("100e-3", "100e-3"),
            ("1e-12", "1e-9"),
            ("-1n", "-1n"),
            ("-0.1n", "-1n"),
            ("1000E", "1"),
            ("9223372036854775807Ei", "9223372036854775807"),
            ("99999999999999999999.5Ki", "9223372036854775807"),
            ("-9Ei", "-9223372036854775807"),
            ("1e2000000000", "100e1999999998"),
        ] {
            assert_eq!(Quantity::parse(text).unwrap().text(), written, "{text}");
        }
    }

    #[test]
    fn refuses_what_kubernetes_refuses() {
        for (text, error) in [
            ("", QuantityError::Format),
            ("1 Gi", QuantityError::Format),
            ("1,5", QuantityError::Format),
            ("1.2.3", QuantityError::Format),
            ("ä", QuantityError::Format),
            ("500MB", QuantityError::Format),
            ("1gi", QuantityError::Format),
            ("1mi", QuantityError::Suffix),
            ("e-12", QuantityError::Number),
            ("-Pi", QuantityError::Number),
            ("1e", QuantityError::Suffix),
            ("1K", QuantityError::Suffix),
        ] {
            assert_eq!(Quantity::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn compares_by_value() {
        let quantity = |text| Quantity::parse(text).unwrap();
        for (left, right, order) in [
            ("1", "1000m", Ordering::Equal),
            ("1Gi", "1024Mi", Ordering::Equal),
            ("1Gi", "1G", Ordering::Greater),
            ("-1", "1n", Ordering::Less),
            ("1e100", "1", Ordering::Greater),
            ("1", "-1e100", Ordering::Greater),
            ("1", "1e100", Ordering::Less),
        ] {
            assert_eq!(quantity(left).compare(&quantity(right)), order, "{left} {right}");
        }
        assert_eq!(quantity("1024Mi").value_text(), quantity("1073741824").value_text());
    }
}
