//! What the demo shows: a live picture on a terminal, lines elsewhere.

use std::fmt::Write as _;
use std::io::Write as _;

use jiff::Timestamp;

use crate::cli::screen::{BOLD, GREEN, RED, painted};
use crate::sandbox::traffic::Counts;

/// Columns of the bar that shows the split.
const BAR: usize = 50;
/// Characters of the status message that are shown.
const MESSAGE: usize = 56;
/// Measurements that are shown.
const MARKS: usize = 30;

/// One instant of the release.
pub struct Picture {
    pub now: Timestamp,
    pub phase: String,
    pub message: String,
    pub step: i64,
    pub steps: i64,
    pub versions: Vec<Version>,
    pub total: Counts,
    pub measured: Vec<Measured>,
}

/// One version and the traffic that it gets.
pub struct Version {
    pub name: String,
    pub role: &'static str,
    pub ready: i64,
    pub pods: i64,
    /// Share of the traffic, 0..=1.
    pub weight: f64,
    /// Requests in a second.
    pub rate: f64,
    /// Share of failures, 0..=1.
    pub errors: Option<f64>,
}

/// One measurement of the analysis.
pub struct Measured {
    /// None when it was neither a success nor a failure.
    pub passed: Option<bool>,
    pub value: String,
}

/// Draws pictures, one over the other on a terminal.
pub struct View {
    live: bool,
    color: bool,
    began: Timestamp,
    /// Lines of the last picture.
    drawn: usize,
    /// What was printed last, when lines are printed.
    last: String,
}

impl View {
    pub fn new(live: bool, color: bool, began: Timestamp) -> Self {
        Self { live, color, began, drawn: 0, last: String::new() }
    }

    /// A sentence of the story. It stays above the pictures.
    pub fn say(&mut self, text: &str) {
        self.wipe();
        println!("\n{}", self.paint(BOLD, text));
    }

    /// Leaves the last picture where it is.
    pub fn close(&mut self) {
        self.drawn = 0;
    }

    pub fn draw(&mut self, picture: &Picture) {
        if !self.live {
            return self.print(picture);
        }
        let text = self.frame(picture);
        let lines = text.lines().count();
        let mut out = std::io::stdout().lock();
        let up = if self.drawn > 0 { format!("\x1b[{}A", self.drawn) } else { String::new() };
        let text = text.replace('\n', "\x1b[K\n");
        // A closed terminal is no reason to stop the story half-way: it ends by itself.
        let _ = write!(out, "{up}{text}\x1b[J");
        let _ = out.flush();
        self.drawn = lines;
    }

    fn wipe(&mut self) {
        if self.drawn > 0 {
            print!("\x1b[{}A\x1b[J", self.drawn);
            self.drawn = 0;
        }
    }

    /// One line when something has changed that is worth one.
    fn print(&mut self, picture: &Picture) {
        let versions: Vec<String> = picture
            .versions
            .iter()
            .filter(|version| version.role != "old")
            .map(|version| {
                format!("{} {} {:.0}% ({} pods)", version.role, version.name, version.weight * 100.0, version.ready)
            })
            .collect();
        let line =
            format!("step {}/{}  {:<46}  {}", picture.step, picture.steps, versions.join(", "), self.status(picture));
        if line != self.last {
            let failed = picture.total.failures();
            println!(
                "{:>5.1} s  {line}  [{} requests, {failed} failed]",
                self.elapsed(picture),
                picture.total.requests()
            );
            self.last = line;
        }
    }

    fn elapsed(&self, picture: &Picture) -> f64 {
        picture.now.duration_since(self.began).as_secs_f64()
    }

    fn status(&self, picture: &Picture) -> String {
        let message: String = picture.message.chars().take(MESSAGE).collect();
        if message.is_empty() { picture.phase.clone() } else { format!("{}: {message}", picture.phase) }
    }

    fn frame(&self, picture: &Picture) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let color = match picture.phase.as_str() {
            "Healthy" => 32,
            "Degraded" => 31,
            "Paused" => 33,
            _ => 36,
        };
        let _ = writeln!(
            text,
            "\n  {:>5.1} s   step {}/{}   {}\n",
            self.elapsed(picture),
            picture.step,
            picture.steps,
            self.paint(color, &self.status(picture))
        );
        let _ = writeln!(text, "  {}", self.bar(picture));
        let _ = writeln!(text, "\n  VERSION  ROLE     PODS    WEIGHT   REQUESTS    ERRORS");
        for version in &picture.versions {
            let errors = version.errors.map_or_else(|| "-".to_owned(), |errors| format!("{:.1}%", errors * 100.0));
            let errors = format!("{errors:>7}");
            let errors =
                if version.errors.is_some_and(|errors| errors > 0.02) { self.paint(RED, &errors) } else { errors };
            let _ = writeln!(
                text,
                "  {:<7}  {:<7}  {:>2}/{:<2}  {:>6.0}%  {:>7.0}/s  {errors}",
                version.name,
                version.role,
                version.ready,
                version.pods,
                version.weight * 100.0,
                version.rate,
            );
        }
        for _ in picture.versions.len()..3 {
            text.push('\n');
        }
        let _ = writeln!(text, "\n  success-rate ≥ 0.95   {}", self.marks(picture));
        let _ = writeln!(
            text,
            "  all requests          {} sent, {} failed",
            picture.total.requests(),
            picture.total.failures()
        );
        text
    }

    /// The split as a bar: stable, then canary.
    fn bar(&self, picture: &Picture) -> String {
        let canary: f64 =
            picture.versions.iter().filter(|version| version.role == "canary").map(|version| version.weight).sum();
        let failing =
            picture.versions.iter().any(|version| version.role == "canary" && version.errors.is_some_and(|e| e > 0.02));
        let columns = ((canary * BAR as f64).round() as usize).max(usize::from(canary > 0.0));
        let stable = self.paint(GREEN, &"█".repeat(BAR - columns));
        format!("{stable}{}", self.paint(if failing { 31 } else { 33 }, &"▒".repeat(columns)))
    }

    fn marks(&self, picture: &Picture) -> String {
        let Some(newest) = picture.measured.last() else { return "not measured yet".to_owned() };
        let from = picture.measured.len().saturating_sub(MARKS);
        let mut marks = String::new();
        for measured in &picture.measured[from..] {
            marks.push_str(&match measured.passed {
                Some(true) => self.paint(GREEN, "✔"),
                Some(false) => self.paint(RED, "✖"),
                None => "·".to_owned(),
            });
        }
        let value = newest.value.parse::<f64>().map_or_else(|_| "no data".to_owned(), |value| format!("{value:.3}"));
        format!("{marks} {value}")
    }

    fn paint(&self, code: u8, text: &str) -> String {
        painted(self.color, code, text)
    }
}
