//! A backtest as a person reads it on a terminal.

use std::fmt::Write as _;

use jiff::tz::TimeZone;

use super::report::{Incident, Report, Tested};
use super::times::{Window, shown};
use crate::cli::screen::{BOLD, DIM, GREEN, LEVELS, RED, YELLOW, painted};
use crate::cli::units::{count, percent, plural, span};

/// Columns of the timeline.
const COLUMNS: usize = 64;
/// False alarms that are told one by one.
const TOLD: usize = 5;

/// The whole report. Writing to a String cannot fail.
pub fn text(report: &Report, color: bool) -> String {
    let page = Page { color };
    let mut text = String::new();
    page.head(report, &mut text);
    page.verdicts(report, &mut text);
    page.incidents(report, &mut text);
    for tested in &report.tested {
        page.timeline(report, tested, &mut text);
    }
    for tested in &report.tested {
        page.alarms(report, tested, &mut text);
    }
    text
}

struct Page {
    color: bool,
}

impl Page {
    fn paint(&self, code: u8, text: &str) -> String {
        painted(self.color, code, text)
    }

    fn head(&self, report: &Report, text: &mut String) {
        let names: Vec<&str> = report.tested.iter().map(|tested| tested.name.as_str()).collect();
        let window = Window { from: report.from, to: report.to };
        let _ = writeln!(text, "{}\n", self.paint(BOLD, &format!("{}: {window} UTC", names.join(" against "))));
        let longest = report.tested.iter().map(|tested| tested.duration_seconds).fold(0.0, f64::max);
        let starts = report.tested.first().map_or(0, |tested| tested.runs.len());
        let _ = writeln!(
            text,
            "runs      {} starts, one every {}, each for {} at most",
            count(starts as u64),
            span(report.every_seconds),
            span(longest)
        );
        let how = if report.exact {
            "exactly as they would have been".to_owned()
        } else {
            format!("to {}: a measurement between two has the older value", span(report.step_seconds))
        };
        let _ = writeln!(text, "values    {how} ({} to Prometheus)", plural(report.requests, "request"));
        for (index, note) in report.notes.iter().enumerate() {
            let _ = writeln!(text, "{:<9} {note}", if index == 0 { "note" } else { "" });
        }
        text.push('\n');
    }

    fn verdicts(&self, report: &Report, text: &mut String) {
        let quiet = if report.incidents.is_empty() { "of all" } else { "of quiet time" };
        let mut rows: Vec<Vec<String>> = vec![
            vec![String::new()],
            vec!["Successful".to_owned()],
            vec!["Failed".to_owned()],
            vec!["Error".to_owned()],
            vec!["Inconclusive".to_owned()],
            vec![format!("stopped, {quiet}")],
            vec!["  with 95% confidence".to_owned()],
            vec![format!("held, {quiet}")],
        ];
        for tested in &report.tested {
            let all = tested.runs.len().max(1) as f64;
            let of = |number: usize| match number {
                0 => "0".to_owned(),
                number => format!("{} ({})", count(number as u64), percent(number as f64 / all)),
            };
            let (verdicts, quiet) = (&tested.verdicts, &tested.quiet);
            let [low, high] = quiet.between;
            let held = quiet.inconclusive as f64 / quiet.runs.max(1) as f64;
            let cells = [
                tested.name.clone(),
                of(verdicts.successful),
                of(verdicts.failed),
                of(verdicts.error),
                of(verdicts.inconclusive),
                format!("{} of {}", count(quiet.stopped as u64), count(quiet.runs as u64)),
                format!("{} to {}", percent(low), percent(high)),
                format!("{} ({})", count(quiet.inconclusive as u64), percent(held)),
            ];
            for (row, cell) in rows.iter_mut().zip(cells) {
                row.push(cell);
            }
        }
        // One template needs no name over its column.
        let skipped = usize::from(report.tested.len() == 1);
        let table = aligned(&rows[skipped..]);
        for (line, row) in table.iter().zip(&rows[skipped..]) {
            let code = match row.first().map(String::as_str) {
                Some("") => DIM,
                Some(label) if label.starts_with("stopped") => BOLD,
                _ => 0,
            };
            let line = if code == 0 { line.clone() } else { self.paint(code, line) };
            let _ = writeln!(text, "{line}");
        }
        let several = report.tested.iter().any(|tested| tested.quiet.independent_runs + 0.5 < tested.quiet.runs as f64);
        if several {
            let fit = report.tested.iter().map(|tested| tested.quiet.independent_runs).fold(f64::INFINITY, f64::min);
            let note = format!(
                "(runs overlap: the interval counts the {} that fit in one after the other)",
                count(fit as u64)
            );
            let _ = writeln!(text, "{}", self.paint(DIM, &note));
        }
    }

    fn incidents(&self, report: &Report, text: &mut String) {
        if report.incidents.is_empty() {
            return;
        }
        text.push('\n');
        let mut head = vec!["INCIDENT".to_owned()];
        for tested in &report.tested {
            head.push(if report.tested.len() == 1 { "VERDICT".to_owned() } else { tested.name.clone() });
            head.extend(["FIRST AFTER", "MEDIAN", "RUNS STOPPED"].map(str::to_owned));
        }
        let mut rows = vec![head];
        for (index, window) in report.incidents.iter().enumerate() {
            let mut row = vec![window.to_string()];
            for incident in report.tested.iter().filter_map(|tested| tested.incidents.get(index)) {
                let seconds = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), span);
                row.extend([
                    word(incident).to_owned(),
                    seconds(incident.first_seconds),
                    seconds(incident.median_seconds),
                    format!("{} of {}", incident.stopped, incident.runs),
                ]);
            }
            rows.push(row);
        }
        for (index, line) in aligned(&rows).into_iter().enumerate() {
            let line = match index {
                0 => self.paint(DIM, &line),
                _ => line
                    .replace("detected", &self.paint(GREEN, "detected"))
                    .replace("missed", &self.paint(RED, "missed"))
                    .replace("not tried", &self.paint(YELLOW, "not tried")),
            };
            let _ = writeln!(text, "{line}");
        }
    }

    /// Which share of the runs that began in a stretch stopped, and which were held.
    fn timeline(&self, report: &Report, tested: &Tested, text: &mut String) {
        let (from, to) = (report.from.as_second(), report.to.as_second());
        let column = |second: i64| {
            let share = (second - from) as f64 / (to - from).max(1) as f64;
            ((share.max(0.0) * COLUMNS as f64) as usize).min(COLUMNS - 1)
        };
        let mut runs = [0_usize; COLUMNS];
        let (mut stopped, mut held) = ([0_usize; COLUMNS], [0_usize; COLUMNS]);
        for run in &tested.runs {
            let at = column(run.at.as_second());
            runs[at] += 1;
            stopped[at] += usize::from(matches!(run.phase, "Failed" | "Error"));
            held[at] += usize::from(run.phase == "Inconclusive");
        }
        let bars = |some: &[usize; COLUMNS]| -> String {
            let level = |(some, all): (&usize, &usize)| match (*some, *all) {
                (_, 0) => ' ',
                (0, _) => '·',
                (some, all) => LEVELS[(some * 8).div_ceil(all).clamp(1, 8) - 1],
            };
            some.iter().zip(&runs).map(level).collect()
        };
        let mut known = [' '; COLUMNS];
        for window in &report.incidents {
            let (first, last) = (column(window.from.as_second()), column(window.to.as_second() - 1));
            known[first..=last].fill('▀');
        }
        let known: String = known.iter().collect();
        text.push('\n');
        let title = if report.tested.len() > 1 { tested.name.clone() } else { String::new() };
        if !title.is_empty() {
            let _ = writeln!(text, "{}", self.paint(BOLD, &title));
        }
        let mut line = |label: &str, chart: &str, code: u8| {
            let _ = writeln!(text, "{}", format!("{label:<9} {}", self.paint(code, chart)).trim_end());
        };
        line("stopped", &bars(&stopped), RED);
        if held.iter().any(|held| *held > 0) {
            line("held", &bars(&held), YELLOW);
        }
        if !report.incidents.is_empty() {
            line("incidents", &known, DIM);
        }
        let form = if to - from > 2 * 86_400 { "%b %-d" } else { "%b %-d %H:%M" };
        let day = |instant: jiff::Timestamp| instant.to_zoned(TimeZone::UTC).strftime(form).to_string();
        let (first, last) = (day(report.from), day(report.to));
        let axis = format!("{first}{last:>width$}", width = COLUMNS.saturating_sub(first.chars().count()));
        line("", &axis, DIM);
    }

    fn alarms(&self, report: &Report, tested: &Tested, text: &mut String) {
        if tested.alarms.is_empty() {
            return;
        }
        let what = if report.incidents.is_empty() { "Stopped" } else { "False alarms" };
        let of = if report.tested.len() > 1 { format!(" of {}", tested.name) } else { String::new() };
        let _ = writeln!(text, "\n{what}{of}");
        for alarm in tested.alarms.iter().take(TOLD) {
            let starts = if alarm.runs == 1 {
                format!("1 run, begun {}", shown(alarm.from))
            } else {
                let window = Window { from: alarm.from, to: alarm.to };
                format!("{}, begun {window}", plural(alarm.runs, "run"))
            };
            let _ = writeln!(text, "  {starts}\n    {}", self.paint(DIM, &alarm.why));
        }
        if tested.alarms.len() > TOLD {
            let _ = writeln!(text, "  and {} more (-o json has all)", count((tested.alarms.len() - TOLD) as u64));
        }
    }
}

fn word(incident: &Incident) -> &'static str {
    match (incident.detected, incident.runs) {
        (true, _) => "detected",
        (false, 0) => "not tried",
        (false, _) => "missed",
    }
}

/// Rows whose columns begin at the same place.
pub(super) fn aligned(rows: &[Vec<String>]) -> Vec<String> {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (index, cell) in row.iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(index) {
                Some(widest) => *widest = width.max(*widest),
                None => widths.push(width),
            }
        }
    }
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}
