//! All releases, one line each.

use std::fmt::Write;

use jiff::Timestamp;

use super::text::{cell, outcome, outcome_mark, tally};
use crate::api::release::Release;
use crate::cli::tree::{Style, duration};

const HEAD: [&str; 6] = ["REVISION", "OUTCOME", "BEGAN", "TOOK", "ANALYSES", "RELEASED"];

pub fn text(releases: &[Release], style: Style) -> String {
    let rows: Vec<[String; 6]> = releases.iter().map(row).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0).max(HEAD[column].len())
    };
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let line = |cells: &[String; 6]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| {
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            format!("{cell}{padding}")
        });
        style.fit(padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    let mut text = format!("{}\n", line(&HEAD.map(str::to_owned)));
    for (release, row) in releases.iter().zip(&rows) {
        // Painted once it is cut to the terminal: the codes have no width.
        let painted = line(row).replacen(&row[1], &style.paint(outcome_mark(release), &row[1]), 1);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{painted}");
    }
    text
}

pub fn markdown(releases: &[Release]) -> String {
    let heads = HEAD.map(str::to_lowercase);
    let mut text = format!("| {} |\n|{}\n", heads.join(" | "), "---|".repeat(HEAD.len()));
    for row in releases.iter().map(row) {
        let _ = writeln!(text, "| {} |", row.map(|text| cell(&text)).join(" | "));
    }
    text
}

fn row(release: &Release) -> [String; 6] {
    [
        release.version.revision.to_string(),
        format!("{} {}", outcome_mark(release), outcome(release)),
        release.began.as_ref().map_or("-".to_owned(), |began| at(began.0)),
        seconds(release).map_or("-".to_owned(), duration),
        match tally(&release.analyses) {
            none if none.is_empty() => "-".to_owned(),
            tally => tally,
        },
        release.version.images.join(", "),
    ]
}

/// Seconds that the release took, if both ends are known.
pub fn seconds(release: &Release) -> Option<i64> {
    Some(release.ended.as_ref()?.0.duration_since(release.began.as_ref()?.0).as_secs())
}

/// `2026-01-01 12:00:00 UTC`
pub fn at(at: Timestamp) -> String {
    at.strftime("%F %T UTC").to_string()
}
