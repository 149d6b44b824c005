//! What is shown while a release goes out: a view that redraws itself on a terminal, a line a second elsewhere.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _, stdout};
use std::time::Duration;

use crate::load::{Counts, Summary};
use crate::shop::{Pods, State};

const BAR: usize = 40;
const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "31";
const BOLD: &str = "1";

/// The view.
pub struct View {
    terminal: bool,
    colours: bool,
    /// Lines that the next drawing replaces.
    drawn: usize,
}

impl View {
    pub fn new() -> Self {
        let terminal = stdout().is_terminal();
        Self { terminal, colours: terminal && std::env::var_os("NO_COLOR").is_none(), drawn: 0 }
    }

    /// A line that stays.
    pub fn say(&mut self, text: &str) {
        self.drawn = 0;
        println!("{text}");
    }

    /// The heading of what is shown next.
    pub fn title(&mut self, text: &str) {
        self.drawn = 0;
        println!("\n{}", self.paint(BOLD, text));
    }

    /// The last drawing stays.
    pub fn end(&mut self) {
        self.drawn = 0;
        println!();
    }

    /// Shows how the release of `version` stands, and what became of the last second's requests.
    pub fn show(&mut self, elapsed: Duration, version: &str, state: &State, second: &Summary) {
        if !self.terminal {
            println!("{}", line(elapsed, state, second));
            return;
        }
        let block = self.block(elapsed, version, state, second);
        let mut out = String::new();
        if self.drawn > 0 {
            let _ = write!(out, "\x1b[{}A", self.drawn);
        }
        for line in &block {
            // What was there before may have been longer.
            let _ = writeln!(out, "\x1b[2K{line}");
        }
        self.drawn = block.len();
        print!("{out}");
        // A terminal that has gone away is no reason to stop measuring.
        let _ = stdout().flush();
    }

    fn block(&self, elapsed: Duration, version: &str, state: &State, second: &Summary) -> Vec<String> {
        let (stable, canary) = state.weights;
        let filled = usize::try_from(canary).unwrap_or(0) * BAR / 100;
        let colour = match state.phase.as_str() {
            "Healthy" => GREEN,
            "Degraded" => RED,
            _ => YELLOW,
        };
        let bar =
            format!("{}{}", self.paint(GREEN, &"█".repeat(BAR - filled)), self.paint(YELLOW, &"█".repeat(filled)));
        let mut lines = vec![
            format!(
                "  {:>5.1} s   {}   step {} of {}   {}",
                elapsed.as_secs_f64(),
                self.paint(colour, &state.phase),
                state.step.0,
                state.step.1,
                short(&state.message)
            ),
            format!("  weights   {bar}  {stable} : {canary}"),
        ];
        let mut versions: BTreeMap<&str, (Pods, Counts)> = BTreeMap::new();
        for (name, pods) in &state.pods {
            versions.entry(name).or_default().0 = *pods;
        }
        for (name, counts) in &second.versions {
            versions.entry(name).or_default().1 = counts.clone();
        }
        for name in ["blue", "green", "red", ""] {
            let (pods, counts) = versions.remove(name).unwrap_or_default();
            if name.is_empty() && counts.sent == 0 {
                lines.push(String::new());
                continue;
            }
            let wanted = usize::try_from(pods.wanted).unwrap_or(0);
            let ready = usize::try_from(pods.ready).unwrap_or(0);
            let dots = format!("{}{}", "●".repeat(ready), "○".repeat(wanted.saturating_sub(ready)));
            let mark = if name == version { "▶" } else { " " };
            let name = if name.is_empty() { "no pod" } else { name };
            let failed = format!("{:>3} failed ({:.1}%)", counts.failed, percent(&counts));
            let failed = if counts.failed > 0 { self.paint(RED, &failed) } else { failed };
            lines.push(format!("  {mark} {name:<7} {dots:<12} {:>4} requests/s {failed}", counts.sent));
        }
        let analysis = state.analysis.as_ref().map(|analysis| {
            let colour = if matches!(analysis.phase.as_str(), "Failed" | "Error") { RED } else { GREEN };
            format!("{}   {}", self.paint(colour, &analysis.phase), last(&analysis.values, 6))
        });
        lines.push(format!("  analysis  {}", analysis.unwrap_or_default()));
        lines
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// One line for a file or a pipe.
fn line(elapsed: Duration, state: &State, second: &Summary) -> String {
    let mut text = format!(
        "{:>5.1} s  {:<11} step {}/{}  weights {:>3}:{:<3}",
        elapsed.as_secs_f64(),
        state.phase,
        state.step.0,
        state.step.1,
        state.weights.0,
        state.weights.1
    );
    let names = state.pods.iter().filter(|(_, pods)| pods.wanted > 0 || pods.ready > 0).map(|(name, _)| name.as_str());
    let names: std::collections::BTreeSet<&str> = names.chain(second.versions.keys().map(String::as_str)).collect();
    for name in names {
        let pods = state.pods.get(name).copied().unwrap_or_default();
        let counts = second.versions.get(name).cloned().unwrap_or_default();
        let shown = if name.is_empty() { "(no pod)" } else { name };
        let _ = write!(
            text,
            "  {shown} {}/{} pods {:>3} req {} failed",
            pods.ready, pods.wanted, counts.sent, counts.failed
        );
    }
    if let Some(analysis) = &state.analysis {
        let _ = write!(text, "  analysis {} {}", analysis.phase, last(&analysis.values, 4));
    }
    if !state.message.is_empty() {
        let _ = write!(text, "  {}", short(&state.message));
    }
    text
}

/// The newest measured values, each as a percentage.
fn last(values: &[String], count: usize) -> String {
    let shown = &values[values.len().saturating_sub(count)..];
    let number = |value: &String| value.trim_matches(['[', ']']).parse::<f64>().ok();
    let shown: Vec<String> = shown
        .iter()
        .map(|value| number(value).map_or(value.clone(), |value| format!("{:.1}%", value * 100.0)))
        .collect();
    shown.join(" ")
}

fn percent(counts: &Counts) -> f64 {
    100.0 * counts.failed as f64 / counts.sent.max(1) as f64
}

fn short(message: &str) -> String {
    const MOST: usize = 90;
    if message.chars().count() <= MOST {
        message.to_owned()
    } else {
        message.chars().take(MOST).chain(['…']).collect()
    }
}
