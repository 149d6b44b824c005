//! Records of releases in words: for the terminal, and as Markdown.

use std::fmt::Write;

use super::table::{at, seconds};
use crate::api::analysis::AnalysisPhase;
use crate::api::release::{Analysis, Attempt, Release, Verdict, Version};
use crate::cli::phase::{UNDER_WAY, mark};
use crate::cli::tree::{Style, duration, wrapped};

/// Columns of the labels.
const LABEL: usize = 13;

/// Draws the records, one below the other. `by` is the client that wrote the present abort.
pub fn draw(rollout: &str, releases: &[Release], by: Option<&str>, style: Style) -> String {
    let drawn = releases.iter().enumerate().map(|(index, release)| {
        let by = by.filter(|_| index == 0);
        one(rollout, release, by, style)
    });
    drawn.collect::<Vec<_>>().join("\n")
}

fn one(rollout: &str, release: &Release, by: Option<&str>, style: Style) -> String {
    let mut text = String::new();
    let outcome = outcome(release);
    let marked = format!("{} {outcome}", outcome_mark(release));
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{rollout}, revision {}: {}",
        release.version.revision,
        style.paint(outcome_mark(release), &marked)
    );
    for (label, value) in facts(release, by, style) {
        let room = style.width.map_or(usize::MAX, |width| width.saturating_sub(LABEL).max(LABEL));
        for (index, part) in wrapped(&value, room).into_iter().enumerate() {
            let label = if index == 0 { label } else { "" };
            let _ = writeln!(text, "{}", style.fit(&format!("{label:<LABEL$}{part}")));
        }
    }
    if !release.analyses.is_empty() {
        text.push('\n');
    }
    let name = release.analyses.iter().flat_map(|analysis| &analysis.metrics).map(|metric| metric.name.chars().count());
    let columns = name.max().unwrap_or(0);
    for analysis in &release.analyses {
        let status = format!("{} {}", phase_mark(analysis.phase), phase(analysis.phase));
        let painted = style.paint(phase_mark(analysis.phase), &status);
        let _ = writeln!(text, "{} {painted} ({})", analysis.of, analysis.name);
        said(&mut text, "  ", &analysis.message, style);
        for metric in &analysis.metrics {
            let mark = phase_mark(metric.phase);
            let padding = " ".repeat(columns - metric.name.chars().count());
            let before = format!("  {mark} {}{padding}  ", metric.name);
            let found = found(metric);
            let indent = before.chars().count();
            let room = style.width.map_or(usize::MAX, |width| width.saturating_sub(indent).max(24));
            let mut parts = wrapped(&found, room).into_iter();
            let first = parts.next().unwrap_or_default();
            let line = format!("  {} {}{padding}  {first}", style.paint(mark, mark), metric.name);
            let _ = writeln!(text, "{}", line.trim_end());
            for part in parts {
                let _ = writeln!(text, "{}{part}", " ".repeat(indent));
            }
        }
    }
    if release.cut {
        text.push_str("(what did not fit into the record is missing)\n");
    }
    text
}

fn said(text: &mut String, indent: &str, what: &str, style: Style) {
    let room = style.width.map_or(usize::MAX, |width| width.saturating_sub(indent.len()).max(24));
    for part in wrapped(what, room) {
        let _ = writeln!(text, "{indent}{part}");
    }
}

/// The records as Markdown: a heading each, a table of facts, a table of verdicts.
pub fn markdown(rollout: &str, releases: &[Release]) -> String {
    let style = Style { color: false, now: jiff::Timestamp::UNIX_EPOCH, width: None };
    let mut text = String::new();
    for (index, release) in releases.iter().enumerate() {
        let gap = if index > 0 { "\n" } else { "" };
        let _ = writeln!(text, "{gap}### {rollout}, revision {}: {}\n", release.version.revision, outcome(release));
        text.push_str("| | |\n|---|---|\n");
        for (label, value) in facts(release, None, style) {
            let _ = writeln!(text, "| {label} | {} |", cell(&value));
        }
        if release.analyses.is_empty() {
            continue;
        }
        text.push_str("\n| analysis | metric | verdict | found |\n|---|---|---|---|\n");
        for analysis in &release.analyses {
            let message = cell(&analysis.message);
            let _ = writeln!(text, "| {} `{}` | | {} | {message} |", analysis.of, analysis.name, phase(analysis.phase));
            for metric in &analysis.metrics {
                let found = cell(&found(metric));
                let _ = writeln!(text, "| | {} | {} | {found} |", cell(&metric.name), phase(metric.phase));
            }
        }
        if release.cut {
            text.push_str("\nWhat did not fit into the record is missing.\n");
        }
    }
    text
}

/// What the record says of the release as a whole.
fn facts(release: &Release, by: Option<&str>, style: Style) -> Vec<(&'static str, String)> {
    let mut facts = vec![("Released", version(&release.version))];
    facts.extend(release.from.as_ref().map(|from| ("Stable was", version(from))));
    facts.extend(release.began.as_ref().map(|began| ("Began", at(began.0))));
    let waited = match release.waited {
        0 => String::new(),
        seconds => format!(", {} of them waiting for somebody", duration(seconds)),
    };
    let took = seconds(release).map(|seconds| format!("after {}", duration(seconds)));
    match &release.ended {
        Some(ended) => {
            let took = took.map(|took| format!(", {took}{waited}")).unwrap_or_default();
            facts.push(("Ended", format!("{}{took}", at(ended.0))));
        }
        None => {
            let lasts = release.began.as_ref().map(|began| style.now.duration_since(began.0).as_secs());
            let lasts = lasts.filter(|_| style.now != jiff::Timestamp::UNIX_EPOCH);
            facts.extend(lasts.map(|lasts| ("Takes", format!("{} so far{waited}", duration(lasts)))));
        }
    }
    facts.push((if release.outcome.is_empty() { "Now" } else { "Why" }, why(release, by)));
    if let Some(done) = release.done {
        let weight = release.weight.map(|weight| format!(", at weight {weight}")).unwrap_or_default();
        facts.push(("Steps", format!("{done} of {} done{weight}", release.steps)));
    } else if let Some(weight) = release.weight {
        facts.push(("Weight", weight.to_string()));
    }
    for (index, attempt) in release.earlier.iter().enumerate() {
        facts.push((if index == 0 { "Before that" } else { "" }, before(attempt)));
    }
    facts
}

fn before(attempt: &Attempt) -> String {
    let ended = attempt.ended.as_ref().map(|ended| at(ended.0)).unwrap_or_default();
    let why = if attempt.why.is_empty() { "by hand" } else { &attempt.why };
    format!("{} {ended}: {why}", attempt.outcome)
}

fn why(release: &Release, by: Option<&str>) -> String {
    let aborted = release.outcome == "Aborted";
    match (release.why.as_str(), by) {
        ("", Some(by)) if aborted => format!("by hand, with {by}"),
        ("", _) => "by hand".to_owned(),
        (why, _) => why.to_owned(),
    }
}

/// `web=shop/web:v2 (revision 7, 6d5f8c9b7)`
fn version(version: &Version) -> String {
    let images = if version.images.is_empty() { "images not known".to_owned() } else { version.images.join(", ") };
    format!("{images} (revision {}, {})", version.revision, version.hash)
}

/// The value or the sentence, and how often it was measured.
fn found(metric: &Verdict) -> String {
    let marks = ["✔", "✖", "?", "⚠"].into_iter().zip(metric.counts).filter(|(_, count)| *count > 0);
    let counts: Vec<String> = marks.map(|(mark, count)| format!("{mark} {count}")).collect();
    let dry = if metric.dry { "dry run" } else { "" };
    let parts = [counts.join(" "), metric.found.split_whitespace().collect::<Vec<_>>().join(" "), dry.to_owned()];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}

pub fn outcome(release: &Release) -> &str {
    if release.outcome.is_empty() { "under way" } else { &release.outcome }
}

/// Of a good end, a bad one, one that somebody has chosen, and of none yet.
pub fn outcome_mark(release: &Release) -> &'static str {
    match release.outcome.as_str() {
        "Promoted" | "FastPromoted" => "✔",
        "Aborted" => "✖",
        "" => UNDER_WAY,
        _ => "•",
    }
}

fn phase(phase: AnalysisPhase) -> &'static str {
    if phase == AnalysisPhase::None { "Pending" } else { phase.as_str() }
}

fn phase_mark(phase: AnalysisPhase) -> &'static str {
    if phase == AnalysisPhase::Running { UNDER_WAY } else { mark(phase.as_str()) }
}

/// Of a Markdown table.
pub fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

/// The analyses of a release in a few words: `3 Successful, 1 Failed`.
pub fn tally(analyses: &[Analysis]) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for analysis in analyses {
        let phase = phase(analysis.phase);
        match counts.iter_mut().find(|(known, _)| *known == phase) {
            Some((_, count)) => *count += 1,
            None => counts.push((phase, 1)),
        }
    }
    counts.into_iter().map(|(phase, count)| format!("{count} {phase}")).collect::<Vec<_>>().join(", ")
}
