//! What was found, in words.

use std::fmt::Write;

pub use crate::cli::units::span;

use crate::analysis::calibrate::{Calibration, HORIZONS, Replay, Split, WEIGHTS};
use crate::cli::units::{count, percent, plural};

pub fn draw(selector: &str, found: &Calibration, weight: f64, template: &str) -> String {
    let mut text = format!("{selector}\n");
    let mut fact = |label: &str, value: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{label:<13}{value}");
    };
    let gaps = found.minutes - found.seen;
    let gaps =
        if gaps > 0 { format!(", {} without any request or sample", plural(gaps, "minute")) } else { String::new() };
    fact("Looked at", format!("{}{gaps}", span(found.minutes as f64 * 60.0)));
    let pods = found.pods.map_or("pods are not told apart".to_owned(), |pods| plural(pods, "pod"));
    let [low, middle, high] = found.requests_per_minute;
    fact("Requests", format!("{} a minute (90% of them {} to {}), {pods}", count(middle), count(low), count(high)));
    let [low, middle, high] = found.hourly_failure_rates.map(percent);
    fact(
        "Failures",
        format!("{} of all (by the hour {middle}, 80% of them {low} to {high})", percent(found.failure_rate)),
    );
    let together = &found.dispersion;
    let how = match (together.hours, together.by) {
        (0, _) => "assumed: too few failures to measure it".to_owned(),
        (hours, Split::Pods) => format!("between pods, in {}", plural(hours, "hour")),
        (hours, Split::Minutes) => format!("between neighbouring minutes, in {}", plural(hours, "hour")),
    };
    fact("Together", format!("{:.1} failures (up to {:.1}), {how}", together.median, together.high));
    if let Some(spread) = found.spread {
        fact("Pods differ", format!("by {}, for good", percent(spread)));
    }
    let proposed = &found.proposed;
    let _ = writeln!(
        text,
        "\nThe smallest change that the judge sees with a margin of {}, by weight and horizon:\n",
        percent(proposed.margin)
    );
    let mut row = format!("{:<8}", "");
    for horizon in HORIZONS {
        let _ = write!(row, "{:>10}", span(horizon));
    }
    let _ = writeln!(text, "{row}");
    for weight in WEIGHTS {
        let mut row = format!("{:<8}", percent(weight));
        for it in found.detectable.iter().filter(|it| it.weight == weight) {
            let _ = write!(row, "{:>10}", times(it.ratio));
        }
        let _ = writeln!(text, "{row}");
    }
    text.push('\n');
    let how = match found.replay.by {
        Split::Pods => "one pod against the others",
        Split::Minutes => "each minute against the next, since pods are not told apart",
    };
    let _ = writeln!(text, "Stable against stable ({how}):");
    for replay in [&found.replay, &found.replay_without_margin] {
        let _ = writeln!(text, "  margin {:<6}{}", format!("{}:", percent(replay.margin)), verdicts(replay));
    }
    let _ = writeln!(
        text,
        "\nAt a weight of {} this finds {} within {}:\n\n{template}",
        percent(weight),
        proposed.ratio.map_or("nothing".to_owned(), |ratio| format!("a {} change", times(Some(ratio)))),
        span(proposed.horizon),
    );
    // One line feed at the end is enough.
    format!("{}\n", text.trim_end())
}

fn verdicts(replay: &Replay) -> String {
    format!(
        "judged {}, {} called worse (each wrongly), {} safe, {} undecided",
        plural(replay.analyses, "time"),
        count(replay.alarms as u64),
        count(replay.safe as u64),
        count(replay.undecided as u64)
    )
}

fn times(ratio: Option<f64>) -> String {
    match ratio {
        None => "-".to_owned(),
        Some(ratio) if ratio < 10.0 => format!("{ratio:.1}x"),
        Some(ratio) => format!("{ratio:.0}x"),
    }
}
