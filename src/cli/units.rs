//! Shares and durations as people write and read them, and how certain a share is.

pub use crate::analysis::judge::words::grouped as count;

use std::time::Duration;

use jiff::SignedDuration;

use crate::api::duration::GoDuration;

/// `10%` or `0.1`.
pub fn share(text: &str) -> Result<f64, String> {
    let (number, of) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    let share = number.trim().parse::<f64>().ok().map(|number| number / of);
    share.filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| format!("{text:?} is no share such as 10% or 0.1"))
}

/// A duration as Go writes it: `1m30s`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration such as 30s or 1m30s");
    let duration = SignedDuration::from(text.parse::<GoDuration>().map_err(|_| wrong())?);
    Duration::try_from(duration).map_err(|_| wrong())
}

/// `12.3 s`, `4 min 10 s`, `2 h 05 min`: three digits tell enough.
pub fn span(seconds: f64) -> String {
    let tenths = (seconds * 10.0).round() / 10.0;
    if tenths < 60.0 {
        return if tenths.fract() == 0.0 { format!("{tenths:.0} s") } else { format!("{tenths:.1} s") };
    }
    let whole = seconds.round() as u64;
    if whole < 3600 {
        return match whole % 60 {
            0 => format!("{} min", whole / 60),
            rest => format!("{} min {rest:02} s", whole / 60),
        };
    }
    let minutes = (seconds / 60.0).round() as u64;
    match minutes % 60 {
        0 => format!("{} h", minutes / 60),
        rest => format!("{} h {rest:02} min", minutes / 60),
    }
}

/// A share in percent, with as many digits as tell something.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let text = if percent >= 10.0 || percent == 0.0 {
        format!("{percent:.0}")
    } else if percent >= 1.0 {
        format!("{percent:.1}")
    } else {
        format!("{percent:.2}")
    };
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}%")
}

/// `1 step`, `2 steps`.
pub fn plural(number: usize, noun: &str) -> String {
    format!("{} {noun}{}", count(number as u64), if number == 1 { "" } else { "s" })
}

/// Wilson's interval of a share with 95% confidence: good for shares near 0 and 1, too.
pub fn wilson(hits: f64, of: f64) -> [f64; 2] {
    const Z: f64 = 1.959_963_984_540_054;
    let (n, p) = (of, hits / of);
    let middle = p + Z * Z / (2.0 * n);
    let spread = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let whole = 1.0 + Z * Z / n;
    let [low, high] = [(middle - spread) / whole, (middle + spread) / whole];
    // What was never seen is not excluded; what was always seen is not either.
    [if hits == 0.0 { 0.0 } else { low.max(0.0) }, if hits == of { 1.0 } else { high.min(1.0) }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_read_them() {
        let spans = [0.0, 12.34, 59.96, 60.0, 250.0, 3600.0, 7500.0].map(span);
        assert_eq!(spans, ["0 s", "12.3 s", "1 min", "1 min", "4 min 10 s", "1 h", "2 h 05 min"]);
        assert_eq!([0.0, 0.0005, 0.05, 0.125, 1.0].map(percent), ["0%", "0.05%", "5%", "12%", "100%"]);
        assert_eq!([7, 1000, 1_234_567].map(count), ["7", "1,000", "1,234,567"]);
        assert_eq!((plural(1, "step"), plural(1000, "release")), ("1 step".to_owned(), "1,000 releases".to_owned()));
    }

    #[test]
    fn shares_and_durations_are_read() {
        assert_eq!((share("10%"), share("0.1"), share("0.5 %")), (Ok(0.1), Ok(0.1), Ok(0.005)));
        assert!(share("120%").is_err() && share("-1").is_err() && share("x").is_err());
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert!(duration("90").is_err() && duration("-5s").is_err());
    }

    #[test]
    fn the_interval_of_a_share_is_wilsons() {
        // Newcombe (1998), table I.
        let [low, high] = wilson(81.0, 263.0);
        assert!((low - 0.2553).abs() < 1e-4 && (high - 0.3662).abs() < 1e-4, "{low} {high}");
        let [low, high] = wilson(0.0, 20.0);
        assert!(low == 0.0 && (high - 0.1611).abs() < 1e-4, "{low} {high}");
    }
}
