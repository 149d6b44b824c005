//! The plots of a page: panels one below the other over the same time.

use std::fmt::Write as _;

use super::report::{Bucket, Prediction, Sample};
use crate::cli::units::span;

const WIDTH: f64 = 960.0;
/// Room for the labels of the axes, left and right of the panels.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
/// Room for how it ends, and for the numbers of the steps.
const TOP: f64 = 42.0;
const GAP: f64 = 26.0;
const LANE: f64 = 22.0;

/// All panels of a release as one drawing, labelled `title` for those who cannot see it. Writing to a String cannot fail.
pub fn plots(prediction: &Prediction, versions: (&str, &str), title: &str) -> String {
    let last = prediction.timeline.last().map_or(0.0, |sample| sample.at).max(prediction.seconds).max(0.001);
    let mut drawing = Drawing { last, y: TOP, body: String::new() };
    drawing.weight(prediction);
    drawing.pods(prediction);
    drawing.requests(prediction, versions);
    drawing.failures(prediction);
    drawing.analyses(prediction);
    drawing.time();
    let bottom = drawing.y;
    drawing.marks(prediction, bottom - 20.0);
    let height = bottom + 8.0;
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"{}\" xmlns=\"http://www.w3.org/2000/svg\">\n{}</svg>\n",
        escape(title),
        drawing.body
    )
}

struct Drawing {
    /// The last second.
    last: f64,
    /// Where the next panel begins.
    y: f64,
    body: String,
}

/// A panel's place, and the value at its top.
#[derive(Clone, Copy)]
struct Panel {
    top: f64,
    height: f64,
    most: f64,
}

impl Panel {
    fn y(self, value: f64) -> f64 {
        self.top + self.height * (1.0 - (value / self.most).clamp(0.0, 1.0))
    }
}

impl Drawing {
    fn x(&self, at: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (at / self.last).clamp(0.0, 1.0)
    }

    /// A frame with three lines and their values.
    fn panel(&mut self, title: &str, height: f64, most: f64, label: impl Fn(f64) -> String) -> Panel {
        let panel = Panel { top: self.y + 14.0, height, most };
        self.y += 14.0 + height + GAP;
        let _ = writeln!(self.body, "<text class=\"title\" x=\"{LEFT}\" y=\"{:.1}\">{title}</text>", panel.top - 4.0);
        for part in [0.0, 0.5, 1.0] {
            let (y, value) = (panel.y(most * part), label(most * part));
            let _ = writeln!(
                self.body,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0
            );
        }
        panel
    }

    /// The outline of values that hold until the next one.
    fn outline(&self, panel: Panel, points: &[(f64, f64)]) -> String {
        let mut path = String::new();
        let mut before: Option<f64> = None;
        for (at, value) in points {
            let (x, y) = (self.x(*at), panel.y(*value));
            match before {
                None => drop(write!(path, "M{x:.1} {y:.1}")),
                Some(before) if (before - y).abs() < 0.05 => {}
                Some(_) => drop(write!(path, "H{x:.1}V{y:.1}")),
            }
            before = Some(y);
        }
        let _ = write!(path, "H{:.1}", self.x(self.last));
        path
    }

    fn line(&mut self, panel: Panel, class: &str, points: &[(f64, f64)]) {
        if !points.is_empty() {
            let path = self.outline(panel, points);
            let _ = writeln!(self.body, "<path class=\"{class} line\" d=\"{path}\"/>");
        }
    }

    /// From one outline down to another, or to the bottom.
    fn area(&mut self, panel: Panel, class: &str, points: &[(f64, f64)]) {
        let Some((first, _)) = points.first() else { return };
        let path = self.outline(panel, points);
        let (bottom, first) = (panel.y(0.0), self.x(*first));
        let _ = writeln!(self.body, "<path class=\"{class} area\" d=\"{path}V{bottom:.1}H{first:.1}Z\"/>");
    }

    fn weight(&mut self, prediction: &Prediction) {
        let panel = self.panel("requests to the new version", 110.0, 100.0, |value| format!("{value:.0}%"));
        let points: Vec<(f64, f64)> =
            prediction.timeline.iter().map(|sample| (sample.at, sample.weight * 100.0)).collect();
        self.area(panel, "new", &points);
        self.line(panel, "new", &points);
    }

    fn pods(&mut self, prediction: &Prediction) {
        let most = even(prediction.most_pods.max(1) as f64);
        let panel = self.panel("ready pods", 110.0, most, |value| format!("{value:.0}"));
        let stacked = |value: &dyn Fn(&Sample) -> i64| -> Vec<(f64, f64)> {
            prediction.timeline.iter().map(|sample| (sample.at, value(sample) as f64)).collect()
        };
        let all = stacked(&|it| it.old_pods.ready + it.new_pods.ready + it.other_pods.ready);
        let changed = stacked(&|it| it.new_pods.ready + it.other_pods.ready);
        let new = stacked(&|it| it.new_pods.ready);
        self.area(panel, "old solid", &all);
        if changed != new {
            self.area(panel, "other solid", &changed);
        }
        self.area(panel, "new solid", &new);
        let there = stacked(&Sample::pods);
        self.line(panel, "there", &there);
    }

    fn requests(&mut self, prediction: &Prediction, (old, new): (&str, &str)) {
        let rate = |bucket: &Bucket, requests: u64| requests as f64 / (bucket.to - bucket.from).max(0.001);
        let stacked = |value: &dyn Fn(&Bucket) -> u64| -> Vec<(f64, f64)> {
            prediction.series.iter().map(|bucket| (bucket.from, rate(bucket, value(bucket)))).collect()
        };
        let all = stacked(&|it| it.old.requests + it.new.requests + it.unanswered);
        let top = nice(all.iter().map(|(_, rate)| *rate).fold(1.0, f64::max));
        let title = format!("requests a second: {old} below, {new} above");
        let panel = self.panel(&title, 110.0, top, short);
        self.area(panel, "bad solid", &all);
        self.area(panel, "new solid", &stacked(&|it| it.old.requests + it.new.requests));
        self.area(panel, "old solid", &stacked(&|it| it.old.requests));
    }

    fn failures(&mut self, prediction: &Prediction) {
        let rate = |bucket: &Bucket, requests: u64| requests as f64 / (bucket.to - bucket.from).max(0.001);
        let points = |value: &dyn Fn(&Bucket) -> u64| -> Vec<(f64, f64)> {
            prediction.series.iter().map(|bucket| (bucket.from, rate(bucket, value(bucket)))).collect()
        };
        let all = points(&|it| it.old.failed + it.new.failed + it.unanswered);
        let top = nice(all.iter().map(|(_, rate)| *rate).fold(0.1, f64::max));
        let panel = self.panel("failed requests a second", 80.0, top, short);
        self.area(panel, "bad solid", &all);
        self.area(panel, "old solid", &points(&|it| it.old.failed));
    }

    /// A lane for each metric: how long it was asked, and each measurement.
    fn analyses(&mut self, prediction: &Prediction) {
        for analysis in &prediction.analyses {
            for metric in &analysis.metrics {
                let (from, to) = (self.x(analysis.from), self.x(analysis.to.unwrap_or(self.last)));
                let middle = self.y + 10.0;
                let assumed = if metric.assumed { " (assumed)" } else { "" };
                let label = escape(&format!("{}: {}{assumed}", analysis.place, metric.name));
                let _ = writeln!(
                    self.body,
                    "<line class=\"run\" x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\"/>\
                     <text class=\"tick\" x=\"{from:.1}\" y=\"{:.1}\">{label}</text>",
                    middle - 7.0
                );
                for measurement in &metric.measurements {
                    let class = match measurement.phase.as_str() {
                        "Successful" if metric.assumed => "assumed",
                        "Successful" => "good",
                        "Failed" | "Error" => "bad",
                        _ => "unsure",
                    };
                    let x = self.x(measurement.at);
                    let title =
                        escape(&format!("{} {} {}", span(measurement.at), measurement.phase, measurement.value));
                    let _ = writeln!(
                        self.body,
                        "<circle class=\"{class} dot\" cx=\"{x:.1}\" cy=\"{middle:.1}\" r=\"4\"><title>{title}</title></circle>"
                    );
                }
                self.y += LANE + 6.0;
            }
        }
    }

    fn time(&mut self) {
        let step = round_step(self.last / 8.0);
        let y = self.y + 12.0;
        let mut at = 0.0;
        while at <= self.last {
            let x = self.x(at);
            let anchor = match at {
                0.0 => "start",
                _ if x > WIDTH - RIGHT - 16.0 => "end",
                _ => "middle",
            };
            let _ = writeln!(
                self.body,
                "<text class=\"tick\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
                span(at)
            );
            at += step;
        }
        self.y += 20.0;
    }

    /// Where steps begin, people promote, and how it ends.
    fn marks(&mut self, prediction: &Prediction, bottom: f64) {
        let mut room = 0.0;
        for row in &prediction.steps {
            let x = self.x(row.from);
            let title = escape(&format!("{} at {}", row.what, span(row.from)));
            let _ = writeln!(
                self.body,
                "<line class=\"step\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom:.1}\"><title>{title}</title></line>"
            );
            if let Some(step) = row.step
                && x >= room
            {
                let _ = writeln!(
                    self.body,
                    "<text class=\"number\" x=\"{:.1}\" y=\"{:.1}\">{}<title>{title}</title></text>",
                    x + 2.0,
                    TOP - 4.0,
                    step + 1
                );
                room = x + 16.0;
            }
        }
        let ends = [
            (prediction.aborted_seconds, "abort", "aborted".to_owned()),
            (Some(prediction.seconds), "end", prediction.outcome.to_string()),
        ];
        let mut y = 11.0;
        for (at, class, label) in ends {
            let Some(at) = at else { continue };
            let x = self.x(at);
            let anchor = if x > WIDTH - 140.0 { "end" } else { "start" };
            let shift = if anchor == "end" { -3.0 } else { 3.0 };
            let label = escape(&format!("{label} at {}", span(at)));
            let _ = writeln!(
                self.body,
                "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"2\" y2=\"{bottom:.1}\"/>\
                 <text class=\"{class}\" x=\"{:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{label}</text>",
                x + shift
            );
            y += 11.0;
        }
    }
}

/// The next even number, so that the middle line has a whole value.
fn even(value: f64) -> f64 {
    (value / 2.0).ceil() * 2.0
}

/// The next number of 1, 2 or 5 with zeros.
fn nice(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let digits = [1.0, 2.0, 5.0, 10.0];
    let digit = digits.into_iter().find(|digit| digit * power >= value * 0.999).unwrap_or(10.0);
    digit * power
}

/// The seconds between the labels of the time.
fn round_step(least: f64) -> f64 {
    let steps =
        [0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0];
    steps.into_iter().find(|step| *step >= least).unwrap_or_else(|| (least / 14400.0).ceil() * 14400.0)
}

fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// For text and attributes.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // Not allowed in XML at all.
            character if character.is_control() && !character.is_whitespace() => escaped.push('\u{fffd}'),
            character => escaped.push(character),
        }
    }
    escaped
}
