//! A plan as a person reads it on a terminal.

use std::fmt::Write as _;

use super::report::{Analysis, Metric, Outcome, Prediction, Quantiles, Report, Row};
use crate::cli::screen::{BOLD, DIM, GREEN, LEVELS, RED, YELLOW, painted};
use crate::cli::units::{count, percent, plural, span};

/// Columns of the chart.
const CHART: usize = 64;
/// Columns of the bar of a row.
const BAR: usize = 20;

/// The whole plan. Writing to a String cannot fail.
pub fn text(report: &Report, color: bool) -> String {
    let page = Page { color };
    let mut text = String::new();
    page.head(report, &mut text);
    for prediction in &report.releases {
        page.release(report, prediction, &mut text);
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
        let subject = &report.rollout;
        let strategy = if subject.strategy == "canary" { "canary" } else { "blue-green" };
        let router = match subject.router {
            Some("nginx") => " behind ingress-nginx",
            Some("gatewayAPI") => " by the Gateway API",
            Some("istio") => " by Istio",
            _ if strategy == "canary" => " by its pods",
            _ => "",
        };
        let mut title =
            format!("{}: {strategy}{router}, {}", subject.name, plural(subject.replicas.max(0) as usize, "pod"));
        if !subject.steps.is_empty() {
            let _ = write!(title, ", {}", plural(subject.steps.len(), "step"));
        }
        let _ = writeln!(text, "{}\n", self.paint(BOLD, &title));
        let assumed = &report.assumptions;
        let rows = [
            (
                "requests",
                format!(
                    "{} a second to {}, {} of them fail, {} each",
                    number(assumed.requests_per_second),
                    assumed.target,
                    percent(assumed.error_rate),
                    latency(assumed.latency_seconds)
                ),
                "--rps, --error-rate, --latency",
            ),
            ("pods", format!("ready after {}", span(assumed.ready_after_seconds)), "--ready-after"),
            ("Prometheus", format!("scrapes every {}", span(assumed.scrape_interval_seconds)), "--scrape-interval"),
            (
                "people",
                format!("promote what waits for them after {}", span(assumed.promote_after_seconds)),
                "--promote-after",
            ),
        ];
        let width = rows.iter().map(|(_, what, _)| what.chars().count()).max().unwrap_or(0);
        for (index, (subject, what, flag)) in rows.into_iter().enumerate() {
            let label = if index == 0 { "assumed" } else { "" };
            let flag = self.paint(DIM, flag);
            let _ = writeln!(text, "{label:<9} {subject:<11} {what:<width$}  {flag}");
        }
        for answer in &assumed.answers {
            let asks =
                if answer.asks.is_empty() { String::new() } else { format!("; asks {}", one_line(&answer.asks)) };
            let answer = format!("{}/{} ({}): {}", answer.template, answer.metric, answer.provider, answer.why);
            let answer = self.paint(YELLOW, &format!("good for {answer}{asks}"));
            let _ = writeln!(text, "{:<9} {:<11} {answer}", "", "answers");
        }
        for (index, note) in report.notes.iter().enumerate() {
            let label = if index == 0 { "note" } else { "" };
            let _ = writeln!(text, "{label:<9} {note}");
        }
    }

    fn release(&self, report: &Report, prediction: &Prediction, text: &mut String) {
        let (code, end) = match prediction.outcome {
            Outcome::Completed => (GREEN, "released after"),
            Outcome::RolledBack => (RED, "rolled back after"),
            Outcome::Stuck => (RED, "stuck after"),
            Outcome::Waiting => (YELLOW, "waiting for a decision after"),
            Outcome::Unfinished => (YELLOW, "not at its end after"),
        };
        let end = self.paint(code, &format!("{end} {}", span(prediction.seconds)));
        let _ = writeln!(text, "\n{} {end}\n", self.paint(BOLD, &format!("{}:", prediction.release)));
        self.rows(report, prediction, text);
        self.chart(prediction, text);
        for (index, analysis) in prediction.analyses.iter().enumerate() {
            if index == 0 {
                text.push('\n');
            }
            self.analysis(analysis, text);
        }
        text.push('\n');
        if let Some(why) = &prediction.why {
            let _ = writeln!(text, "  why        {why}");
        }
        let requests = &prediction.requests;
        let _ = writeln!(
            text,
            "  requests   {} sent, {} failed{}; the new version got {} and failed {}{}",
            count(requests.total),
            count(requests.failed),
            match requests.failed_anyway {
                0 => String::new(),
                anyway => format!(" ({} would have anyway)", count(anyway)),
            },
            count(requests.new.requests),
            count(requests.new.failed),
            match requests.unanswered {
                0 => String::new(),
                lost => format!("; {} reached no pod", count(lost)),
            }
        );
        if prediction.release != "healthy" {
            let rolling = &prediction.rolling_update;
            let _ = writeln!(
                text,
                "  otherwise  a rolling update would have failed {} in the same time, and {} a minute from then on",
                count(rolling.failed),
                count(rolling.failed_per_minute)
            );
        }
        if let Some(repeated) = &prediction.repeated {
            let of = |number: u64| format!("{} ({})", count(number), percent(number as f64 / repeated.runs as f64));
            let mut parts = Vec::new();
            if repeated.completed > 0 {
                parts.push(format!("{} released", of(repeated.completed)));
            }
            let [low, high] = repeated.rolled_back_between;
            parts.push(format!(
                "{} rolled back (between {} and {} with 95% confidence)",
                of(repeated.rolled_back),
                percent(low),
                percent(high)
            ));
            if repeated.other > 0 {
                parts.push(format!("{} neither", of(repeated.other)));
            }
            let _ = writeln!(text, "  repeated   {} times: {}", count(repeated.runs), parts.join(", "));
            let mut line = |what: &str, most: &str, quantiles: &Option<Quantiles>, shown: &dyn Fn(f64) -> String| {
                let Some(Quantiles { p10, p50, p90, max }) = quantiles else { return };
                let spread = match (p10 == max, [p10, p50, p90, max].map(|value| shown(*value))) {
                    (true, [always, ..]) => always,
                    (false, [p10, p50, p90, max]) => {
                        format!("{p50} (median; 10%: {p10}, 90%: {p90}, {most}: {max})")
                    }
                };
                let _ = writeln!(text, "             {what:<17} {spread}");
            };
            line("released after", "longest", &repeated.completed_seconds, &span);
            line("rolled back after", "longest", &repeated.rolled_back_seconds, &span);
            line("failed requests", "most", &repeated.failed_requests, &|value| count(value as u64));
        }
    }

    fn rows(&self, report: &Report, prediction: &Prediction, text: &mut String) {
        let (old, new) = versions(report);
        let steps: Vec<[String; 8]> = prediction.steps.iter().map(cells).collect();
        let other = prediction.steps.iter().any(|row| row.other_pods.there > 0);
        let head = ["", "STEP", "AT", "TAKES", "WEIGHT", old, new, "OTHER"];
        let surge = "SURGE";
        let mut widths = head.map(|head| head.chars().count());
        for row in &steps {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let line = |cells: [&str; 8], surge: &str, bar: &str| {
            let mut line = format!("  {:>w0$} {:<w1$}", cells[0], cells[1], w0 = widths[0], w1 = widths[1]);
            for (index, cell) in cells.iter().enumerate().skip(2) {
                if index < 7 || other {
                    let _ = write!(line, "  {cell:>width$}", width = widths[index]);
                }
            }
            let _ = write!(line, "  {surge:>5}");
            if !bar.is_empty() {
                let _ = write!(line, "  {bar}");
            }
            line.trim_end().to_owned()
        };
        let _ = writeln!(text, "{}", self.paint(DIM, &line(head, surge, "")));
        for (row, cells) in prediction.steps.iter().zip(&steps) {
            let surge = if row.surge > 0 { format!("+{}", row.surge) } else { String::new() };
            let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
            // There are as many cells as columns.
            let Ok(cells) = <[&str; 8]>::try_from(cells) else { continue };
            let _ = writeln!(text, "{}", line(cells, &surge, &self.bar(row.weight)));
        }
    }

    fn bar(&self, weight: f64) -> String {
        let columns = ((weight * BAR as f64).round() as usize).min(BAR);
        let columns = if weight > 0.0 { columns.max(1) } else { columns };
        format!("{}{}", self.paint(YELLOW, &"█".repeat(columns)), self.paint(DIM, &"░".repeat(BAR - columns)))
    }

    /// The weight and the pods over time.
    fn chart(&self, prediction: &Prediction, text: &mut String) {
        let last = prediction.timeline.last().map_or(0.0, |sample| sample.at).max(prediction.seconds);
        if last <= 0.0 {
            return;
        }
        let column = |at: f64| ((at / last * CHART as f64) as usize).min(CHART - 1);
        let values = |value: &dyn Fn(&super::report::Sample) -> f64| -> Vec<f64> {
            let at = |column: usize| (column as f64 + 0.5) / CHART as f64 * last;
            let sample = |column: usize| prediction.timeline.iter().rfind(|sample| sample.at <= at(column));
            (0..CHART).map(|column| sample(column).map_or(0.0, value)).collect()
        };
        let most = prediction.most_pods.max(1) as f64;
        let spark = |values: &[f64], top: f64| -> String {
            let level = |value: &f64| match value {
                value if *value <= 0.0 => ' ',
                value => LEVELS[((value / top * 8.0).ceil() as usize).clamp(1, 8) - 1],
            };
            values.iter().map(level).collect()
        };
        let mut marks = vec![' '; CHART];
        for metric in prediction.analyses.iter().flat_map(|analysis| &analysis.metrics) {
            for measurement in &metric.measurements {
                let mark = &mut marks[column(measurement.at)];
                let next = match measurement.phase.as_str() {
                    "Failed" | "Error" => '✖',
                    "Successful" if metric.assumed => 'a',
                    "Successful" => '✔',
                    _ => '·',
                };
                // The worst of a column counts.
                let rank = |mark: char| [' ', 'a', '✔', '·', '✖'].iter().position(|it| *it == mark);
                if rank(next) > rank(*mark) {
                    *mark = next;
                }
            }
        }
        let mut starts = vec![' '; CHART];
        for row in prediction.steps.iter().filter(|row| row.step.is_some()) {
            let label = row.step.map_or_else(String::new, |step| (step + 1).to_string());
            let at = column(row.from);
            let room =
                at + label.len() <= CHART && starts[at..(at + label.len()).min(CHART)].iter().all(|it| *it == ' ');
            if room && (at == 0 || starts[at - 1] == ' ') {
                starts[at..at + label.len()].iter_mut().zip(label.chars()).for_each(|(to, from)| *to = from);
            }
        }
        let starts: String = starts.into_iter().collect();
        let marks: String = marks.into_iter().collect();
        text.push('\n');
        let mut line = |name: &str, chart: String, code: u8, unit: &str| {
            if !chart.trim().is_empty() {
                let line = format!("  {name:<10} {} {unit}", self.paint(code, &chart));
                let _ = writeln!(text, "{}", line.trim_end());
            }
        };
        line("step", starts, DIM, "");
        let percents = values(&|sample| sample.weight);
        line("weight", spark(&percents, 1.0), YELLOW, "100%");
        let pods = format!("{} pods", prediction.most_pods);
        line("new pods", spark(&values(&|sample| sample.new_pods.ready as f64), most), YELLOW, &pods);
        line("other pods", spark(&values(&|sample| sample.other_pods.ready as f64), most), DIM, "");
        line("old pods", spark(&values(&|sample| sample.old_pods.ready as f64), most), GREEN, "");
        line("measured", marks, 0, "");
        let end = span(last);
        let _ = writeln!(text, "  {:<10} 0{end:>width$}", "", width = CHART - 1);
    }

    fn analysis(&self, analysis: &Analysis, text: &mut String) {
        let to = analysis.to.map_or_else(|| "its end".to_owned(), span);
        let verdict = self.phase(&analysis.phase);
        let _ = writeln!(text, "  analysis   {} from {} to {to}: {verdict}", analysis.place, span(analysis.from));
        for metric in &analysis.metrics {
            let _ = writeln!(text, "             {}: {}", metric.name, schedule(metric));
            if !metric.asks.is_empty() {
                let _ = writeln!(text, "               asks {} {}", metric.provider, one_line(&metric.asks));
            }
            let conditions =
                [("good if", &metric.success_condition, GREEN), ("bad if", &metric.failure_condition, RED)];
            let conditions = conditions.iter().filter_map(|(word, condition, code)| {
                Some(format!("{} {}", self.paint(*code, word), condition.as_deref()?))
            });
            let conditions: Vec<String> = conditions.collect();
            if !conditions.is_empty() {
                let _ = writeln!(text, "               {}", conditions.join(", "));
            }
            let _ = writeln!(text, "               {}", self.came_of(metric));
        }
    }

    fn phase(&self, phase: &str) -> String {
        let code = match phase {
            "Successful" => GREEN,
            "Failed" | "Error" => RED,
            _ => YELLOW,
        };
        self.paint(code, if phase.is_empty() { "not begun" } else { phase })
    }

    /// The measurements in numbers.
    fn came_of(&self, metric: &Metric) -> String {
        let all = &metric.measurements;
        if all.is_empty() {
            return "not measured".to_owned();
        }
        if metric.assumed {
            let measured = plural(all.len(), "measurement");
            return self.paint(YELLOW, &format!("{measured}, all assumed to be good"));
        }
        let of = |phases: &[&str]| all.iter().filter(|it| phases.contains(&it.phase.as_str())).count();
        let parts = [
            (of(&["Successful"]), "good"),
            (of(&["Failed"]), "bad"),
            (of(&["Inconclusive"]), "inconclusive"),
            (of(&["Error"]), "without an answer"),
        ];
        let parts = parts.iter().filter(|(number, _)| *number > 0);
        let mut text = format!(
            "{}: {}",
            plural(all.len(), "measurement"),
            parts.map(|(number, word)| format!("{number} {word}")).collect::<Vec<_>>().join(", ")
        );
        let values: Vec<f64> = all.iter().filter_map(|it| it.value.trim_matches(['[', ']']).parse().ok()).collect();
        let values: Vec<f64> = values.into_iter().filter(|value: &f64| value.is_finite()).collect();
        let empty = all.iter().filter(|it| matches!(it.value.as_str(), "[]" | "[NaN]" | "NaN")).count();
        if let (Some(low), Some(high)) =
            (values.iter().copied().reduce(f64::min), values.iter().copied().reduce(f64::max))
        {
            let _ = write!(text, "; values from {} to {}", short(low), short(high));
        }
        if empty > 0 {
            let _ = write!(text, "; {}", self.paint(YELLOW, &format!("{empty} found no data")));
        }
        if let Some(error) = all.iter().find(|it| it.phase == "Error" && !it.message.is_empty()) {
            let _ = write!(text, "; {}", self.paint(RED, &error.message));
        }
        text
    }
}

/// What the two versions are called.
pub(super) fn versions(report: &Report) -> (&'static str, &'static str) {
    if report.rollout.strategy == "canary" { ("STABLE", "CANARY") } else { ("OLD", "NEW") }
}

fn cells(row: &Row) -> [String; 8] {
    let pods = |pods: super::report::Pods| match (pods.ready, pods.there.max(pods.wanted)) {
        (ready, there) if ready == there => ready.to_string(),
        (ready, there) => format!("{ready}/{there}"),
    };
    [
        row.step.map_or_else(String::new, |step| (step + 1).to_string()),
        row.what.clone(),
        span(row.from),
        span(row.to - row.from),
        percent(row.weight),
        pods(row.old_pods),
        pods(row.new_pods),
        pods(row.other_pods),
    ]
}

/// When a metric is measured, in words.
pub(super) fn schedule(metric: &Metric) -> String {
    let mut text = match (&metric.interval, &metric.count) {
        (Some(interval), Some(count)) => format!("{count} times, every {interval}"),
        (Some(interval), None) => format!("every {interval}"),
        (None, Some(count)) if count != "1" => format!("{count} times"),
        (None, _) => "once".to_owned(),
    };
    if let Some(delay) = &metric.initial_delay {
        let _ = write!(text, ", the first after {delay}");
    }
    if let (Some(first), Some(last)) = (metric.measurements.first(), metric.measurements.last()) {
        let _ = write!(text, " (from {}", span(first.at));
        if last.at > first.at {
            let _ = write!(text, " to {}", span(last.at));
        }
        text.push(')');
    }
    text
}

pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn short(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

pub(super) fn number(value: f64) -> String {
    if value.fract() == 0.0 { count(value as u64) } else { format!("{value}") }
}

pub(super) fn latency(seconds: f64) -> String {
    if seconds < 1.0 { format!("{} ms", number((seconds * 1000.0).round())) } else { span(seconds) }
}
