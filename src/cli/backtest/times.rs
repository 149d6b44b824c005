//! Instants and windows as people write and read them. All times are UTC unless they say otherwise.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

/// From an instant until another, which is later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Window {
    pub from: Timestamp,
    pub to: Timestamp,
}

/// An instant, or how long ago it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instant {
    At(Timestamp),
    Ago(SignedDuration),
}

impl Instant {
    /// The instant in whole seconds.
    pub fn at(self, now: Timestamp) -> Timestamp {
        let instant = match self {
            Self::At(instant) => instant,
            Self::Ago(ago) => now.checked_sub(ago).unwrap_or(Timestamp::UNIX_EPOCH),
        };
        Timestamp::from_second(instant.as_second()).unwrap_or(instant)
    }
}

/// `2026-10-03`, `2026-10-03T10:00`, `2026-10-03T10:00:00+02:00`, or `30d`, `12h`, `now` before now.
pub fn instant(text: &str) -> Result<Instant, String> {
    let wrong = || format!("{text:?} is no time such as 2026-10-03T10:00, 2026-10-03 or 30d (ago)");
    if text == "now" {
        return Ok(Instant::Ago(SignedDuration::ZERO));
    }
    if let Some(ago) = ago(text) {
        return Ok(Instant::Ago(ago));
    }
    timestamp(text).map(Instant::At).ok_or_else(wrong)
}

/// `FROM/TO`.
pub fn window(text: &str) -> Result<Window, String> {
    let wrong = || format!("{text:?} is no window such as 2026-10-03T10:00/2026-10-03T11:00");
    let (from, to) = text.split_once('/').ok_or_else(wrong)?;
    let window = Window { from: timestamp(from).ok_or_else(wrong)?, to: timestamp(to).ok_or_else(wrong)? };
    if window.from >= window.to { Err(format!("{text:?} ends before it begins")) } else { Ok(window) }
}

fn timestamp(text: &str) -> Option<Timestamp> {
    let civil = || text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok();
    text.parse::<Timestamp>().ok().or_else(|| civil().map(|zoned| zoned.timestamp()))
}

fn ago(text: &str) -> Option<SignedDuration> {
    let (number, unit) = text.split_at(text.len().checked_sub(1)?);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return None,
    };
    let number: u32 = number.parse().ok()?;
    SignedDuration::from_secs(i64::from(number)).checked_mul(seconds)
}

/// `2026-10-03 10:00`, with seconds where there are any.
pub fn shown(instant: Timestamp) -> String {
    let form = if instant.as_second() % 60 == 0 { "%Y-%m-%d %H:%M" } else { "%Y-%m-%d %H:%M:%S" };
    instant.to_zoned(TimeZone::UTC).strftime(form).to_string()
}

impl std::fmt::Display for Window {
    /// The day is told twice only if there are two.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (from, to) = (shown(self.from), shown(self.to));
        let same_day = from.split(' ').next() == to.split(' ').next();
        let to = if same_day { to.split(' ').nth(1).unwrap_or_default() } else { &to };
        write!(f, "{from} to {to}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_utc() {
        let now: Timestamp = "2026-11-01T12:00:00.5Z".parse().unwrap();
        for (text, expected) in [
            ("2026-10-03", "2026-10-03T00:00:00Z"),
            ("2026-10-03T10:00", "2026-10-03T10:00:00Z"),
            ("2026-10-03T10:00:30+02:00", "2026-10-03T08:00:30Z"),
            ("30d", "2026-10-02T12:00:00Z"),
            ("90m", "2026-11-01T10:30:00Z"),
            ("now", "2026-11-01T12:00:00Z"),
        ] {
            assert_eq!(instant(text).unwrap().at(now).to_string(), expected, "{text}");
        }
        for text in ["", "soon", "d", "-3d", "30", "2026-13-01"] {
            assert!(instant(text).is_err(), "{text}");
        }
        let same_day = window("2026-10-03T10:00/2026-10-03T11:00").unwrap();
        assert_eq!(same_day.to_string(), "2026-10-03 10:00 to 11:00");
        let two_days = window("2026-10-03T10:00:05/2026-10-04").unwrap();
        assert_eq!(two_days.to_string(), "2026-10-03 10:00:05 to 2026-10-04 00:00");
        assert!(window("2026-10-03").is_err() && window("2026-10-03/2026-10-03").is_err());
    }
}
