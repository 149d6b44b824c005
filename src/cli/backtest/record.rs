//! `tidegate incident record`: keeps what Prometheus knew around an incident.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};

use super::fetch::{Want, fetch};
use super::history::{Coverage, History, widest};
use super::progress::Progress;
use super::recording::{Head, Incident};
use super::subject::{Query, Subject};
use super::times::{self, Instant, Window};
use super::{Chosen, PAST_OF_COUNTERS, past, suite, units, values};
use crate::clock::Clock;
use crate::sandbox::prometheus::selected;

/// Milliseconds before an incident that are kept at least: a later template may look back further than today's.
const PAST: i64 = 15 * 60_000;
/// Beyond what a query looks back, so that the first sample that it needs is there.
const SPARE: i64 = 5 * 60_000;

/// Keep what Prometheus knew around an incident in a file, as a test for tidegate backtest --incidents
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The run that is expected to end so begins with the incident and is told to stop when it ends. Times are UTC:
2026-10-03T10:00, 2026-10-03T10:00:00+02:00, or how long ago, such as 3h.")]
pub struct Record {
    #[command(flatten)]
    templates: Chosen,
    /// The Prometheus that is asked; the one that the template names when absent
    #[arg(long, value_name = "URL")]
    prometheus: Option<String>,
    /// When it began
    #[arg(long, value_name = "TIME", value_parser = times::instant)]
    from: Instant,
    /// When it ended
    #[arg(long, value_name = "TIME", value_parser = times::instant)]
    to: Instant,
    /// Its name
    #[arg(long)]
    name: String,
    /// What happened, for those who read the file
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
    /// How a run should end
    #[arg(long, value_name = "PHASE", default_value = "Failed",
          value_parser = ["Failed", "Successful", "Inconclusive", "Error"])]
    expect: String,
    /// After how long at most
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    within: Option<Duration>,
    /// Further series to keep, such as http_requests_total{service="web"}; may be repeated
    #[arg(long, value_name = "SELECTOR")]
    also: Vec<String>,
    /// The file; incidents/NAME.json when absent
    #[arg(long, short = 'o', value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Record {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let path = match &self.output {
            Some(path) => path.clone(),
            None if self.name.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c))
                && !self.name.starts_with('.') =>
            {
                PathBuf::from("incidents").join(format!("{}.json", self.name))
            }
            None => bail!("{:?} is no name of a file: say which, by --output", self.name),
        };
        let choice = self.templates.choice(true);
        let subject = Subject::read(&choice)?;
        let now = Clock::system().now();
        let window = Window { from: self.from.at(now), to: self.to.at(now).min(now) };
        if window.from >= window.to {
            bail!("the incident ends before it begins");
        }
        let past = past(self.prometheus.as_deref(), std::slice::from_ref(&subject))?;
        let Plan { wants, coverage, mut notes } = self.plan(&subject, window)?;
        let progress = Progress::new();
        let fetched = fetch(&past, &wants, &|share| progress.show("reading history", share)).await;
        progress.end();
        let fetched = fetched?;
        notes.splice(0..0, subject.notes.iter().cloned());
        notes.extend(fetched.notes);
        if fetched.series.is_empty() {
            notes.push(
                "no series were found: are the labels right, and does Prometheus still know that time?".to_owned(),
            );
        }
        let kept = |(name, _): &&(String, String)| !subject.secret_arguments.contains(name);
        let head = Head {
            name: self.name.clone(),
            note: self.note.clone(),
            window,
            expect: self.expect.clone(),
            within_seconds: self.within.map(|within| within.as_secs_f64()),
            template: subject.name.clone(),
            arguments: choice.arguments.iter().filter(kept).cloned().collect::<BTreeMap<_, _>>(),
        };
        let incident = Incident::new(head, &fetched.answers, &fetched.series, &coverage);
        let bytes = incident.write(&path)?;
        let samples: usize = fetched.series.iter().map(|series| series.samples.len()).sum();
        println!(
            "{}: {} series and {} of {window}, {} KiB",
            path.display(),
            units::count(fetched.series.len() as u64),
            units::plural(samples, "sample"),
            units::count(bytes.div_ceil(1024)),
        );
        for note in notes {
            println!("note: {note}");
        }
        let history = Arc::new(History::new(fetched.answers, fetched.series, coverage));
        let (name, expect) = (subject.name.clone(), self.expect);
        let run = tokio::task::spawn_blocking(move || suite::once(&subject, &history, &incident)).await??;
        let verdict = format!("{name}: {} after {}", run.phase, units::span(run.seconds()));
        if run.phase.as_str() == expect {
            println!("{verdict}, as expected");
        } else {
            println!("{verdict}, and not {expect}: tidegate backtest --incidents fails until a template ends so");
        }
        if !run.message.is_empty() {
            println!("  {}", run.message);
        }
        Ok(ExitCode::SUCCESS)
    }

    fn plan(&self, subject: &Subject, window: Window) -> anyhow::Result<Plan> {
        let (first, last) = (window.from.as_millisecond(), window.to.as_millisecond());
        let mut notes = Vec::new();
        let mut selectors = subject.counters();
        let mut before = if selectors.is_empty() { PAST } else { PAST_OF_COUNTERS };
        let beat = subject.beat().max(1000);
        let mut wants = Vec::new();
        for query in subject.queries()? {
            match selected(&query.text) {
                Ok(looked_at) => {
                    let reach = i64::try_from(query.reach.as_millis()).unwrap_or(0);
                    let furthest = looked_at.iter().map(|it| it.reach).max().unwrap_or(0);
                    before = before.max(reach.saturating_add(furthest).saturating_add(SPARE));
                    selectors.extend(looked_at.into_iter().map(|it| it.selector));
                }
                Err(error) => notes.push(only_answers(&query, &error.to_string())),
            }
            wants.push(values(&query, first, last, beat));
        }
        for selector in &self.also {
            selected(selector).with_context(|| format!("--also {selector}"))?;
            selectors.push(selector.clone());
        }
        let coverage = Coverage { selectors: widest(selectors), from: first.saturating_sub(before), to: last };
        let samples = coverage.selectors.iter().map(|selector| Want::Samples {
            selector: selector.clone(),
            from: coverage.from,
            to: coverage.to,
        });
        wants.extend(samples);
        Ok(Plan { wants, coverage, notes })
    }
}

/// What to read.
struct Plan {
    wants: Vec<Want>,
    coverage: Coverage,
    notes: Vec<String>,
}

fn only_answers(query: &Query, why: &str) -> String {
    format!(
        "the query of metric {} can only be replayed as it stands: {why}. Changed, it must be recorded anew",
        query.metric
    )
}
