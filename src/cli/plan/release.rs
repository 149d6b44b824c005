//! What may come true of a new version: the words of `--release`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::cli::units;
use crate::sandbox::workloads::Behaviour;

/// What goes wrong when a late onset is all that is said.
const LATE_ERRORS: f64 = 0.1;

/// How a new version turns out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Release {
    /// As it was written.
    text: String,
    errors: Option<Amount>,
    slow: Option<Amount>,
    crash_looping: bool,
    pub no_traffic: bool,
    /// From the beginning of the release until it goes wrong.
    pub late_onset: Option<Duration>,
}

/// So many times the base, or a value of its own: a share of requests, or seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Amount {
    Times(f64),
    Value(f64),
}

impl Amount {
    fn of(self, base: f64) -> f64 {
        match self {
            Self::Times(times) => base * times,
            Self::Value(value) => value,
        }
    }
}

impl Release {
    /// A version with nothing wrong about it.
    pub fn healthy() -> Self {
        Self { text: "healthy".to_owned(), ..Self::default() }
    }

    pub fn is_healthy(&self) -> bool {
        *self == Self::healthy()
    }

    /// How its pods behave once what is wrong shows, where good pods behave like `base`.
    pub fn behaviour(&self, base: &Behaviour) -> Behaviour {
        let mut behaviour = base.clone();
        if let Some(errors) = self.errors {
            behaviour.error_rate = errors.of(base.error_rate).clamp(0.0, 1.0);
        }
        if let Some(slow) = self.slow {
            let seconds = slow.of(base.latency.as_secs_f64());
            behaviour.latency = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        }
        if self.crash_looping {
            // It exits before it is ready, again and again.
            behaviour.crash_after = Some(Duration::ZERO);
        }
        behaviour
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Release {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut release = Self { text: text.to_owned(), ..Self::default() };
        let parts: Vec<&str> = text.split(',').map(str::trim).collect();
        for (index, part) in parts.iter().enumerate() {
            let (word, value) = part.split_once('=').map_or((*part, None), |(word, value)| (word, Some(value)));
            if parts[..index].iter().any(|earlier| earlier.split('=').next() == Some(word)) {
                return Err(format!("{word} is said twice"));
            }
            match (word, value) {
                ("healthy", None) if parts.len() == 1 => {}
                ("healthy", None) => return Err("a healthy release has nothing else about it".to_owned()),
                ("crash-looping", None) => release.crash_looping = true,
                ("no-traffic", None) => release.no_traffic = true,
                ("errors", Some(value)) => release.errors = Some(amount(value, units::share, "5x or 10%")?),
                ("slow", Some(value)) => {
                    let seconds = |value: &str| units::duration(value).map(|duration| duration.as_secs_f64());
                    release.slow = Some(amount(value, seconds, "3x or 800ms")?);
                }
                ("late-onset", Some(value)) => release.late_onset = Some(units::duration(value)?),
                _ => {
                    return Err(format!(
                        "{part:?} is none of healthy, errors=5x, errors=10%, slow=3x, slow=800ms, crash-looping, \
                         no-traffic, late-onset=5m"
                    ));
                }
            }
        }
        if release.late_onset.is_some() && release.errors.is_none() && release.slow.is_none() && !release.crash_looping
        {
            release.errors = Some(Amount::Value(LATE_ERRORS));
        }
        Ok(release)
    }
}

fn amount(text: &str, value: impl Fn(&str) -> Result<f64, String>, examples: &str) -> Result<Amount, String> {
    let wrong = || format!("{text:?} is neither a factor nor a value, such as {examples}");
    match text.strip_suffix('x') {
        Some(times) => {
            let times = times.parse::<f64>().ok().filter(|times| times.is_finite() && *times >= 0.0);
            times.map(Amount::Times).ok_or_else(wrong)
        }
        None => value(text).map(Amount::Value).map_err(|_| wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Behaviour {
        Behaviour { error_rate: 0.01, latency: Duration::from_millis(50), ..Behaviour::default() }
    }

    #[test]
    fn words_become_behaviour() {
        let turned_out = |text: &str| {
            let release: Release = text.parse().unwrap();
            let behaviour = release.behaviour(&base());
            (behaviour.error_rate, behaviour.latency.as_millis(), behaviour.crash_after.is_some(), release.late_onset)
        };
        let minute = Some(Duration::from_secs(60));
        for (text, expected) in [
            ("healthy", (0.01, 50, false, None)),
            ("errors=5x", (0.05, 50, false, None)),
            ("errors=10%", (0.1, 50, false, None)),
            ("errors=0.2", (0.2, 50, false, None)),
            ("errors=500x", (1.0, 50, false, None)),
            ("slow=3x", (0.01, 150, false, None)),
            ("slow=800ms,errors=2x", (0.02, 800, false, None)),
            ("crash-looping", (0.01, 50, true, None)),
            ("late-onset=1m", (0.1, 50, false, minute)),
            ("slow=2x, late-onset=1m", (0.01, 100, false, minute)),
        ] {
            assert_eq!(turned_out(text), expected, "{text}");
        }
        assert!("no-traffic".parse::<Release>().unwrap().no_traffic);
        assert!("healthy".parse::<Release>().unwrap().is_healthy());
    }

    #[test]
    fn other_words_are_refused_with_what_would_be_right() {
        for (text, problem) in [
            ("broken", "\"broken\" is none of healthy, errors=5x"),
            ("errors", "is none of"),
            ("errors=many", "\"many\" is neither a factor nor a value, such as 5x or 10%"),
            ("errors=-1x", "neither"),
            ("errors=200%", "neither"),
            ("slow=soon", "such as 3x or 800ms"),
            ("healthy,errors=5x", "nothing else"),
            ("errors=5x,errors=6x", "errors is said twice"),
        ] {
            let error = text.parse::<Release>().unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
