//! `tidegate backtest`: how an analysis would have ended, had it been run in the past.
//!
//! ```text
//! files ──► subject ──► wants ──► fetch (Prometheus) ──► history ──► replay (the real machine, from every start) ──► score ──► text, JSON
//!                                 recording (a file) ──┘                                       └──► suite (of incidents) ──► text, JSON, JUnit
//! ```

mod fetch;
mod history;
mod progress;
pub(super) mod record;
mod recording;
mod replay;
mod report;
mod score;
mod subject;
mod suite;
mod text;
mod times;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use jiff::{SignedDuration, Timestamp};

use self::fetch::{Want, fetch};
use self::history::{Coverage, History, widest};
use self::progress::Progress;
use self::report::Report;
use self::subject::{Choice, Subject, common};
use self::times::{Instant, Window};
use super::screen;
use super::units;
use crate::api::providers::Prometheus as Settings;
use crate::clock::Clock;
use crate::providers::http::Network;
use crate::providers::{JobTarget, Past, Providers};

/// An incident was missed, or a recorded one did not end as it should.
const MISSED: u8 = 3;
/// There were more false alarms than allowed.
const FALSE_ALARMS: u8 = 4;
/// Milliseconds between the values of a query, at least, unless the user wants more of them.
const SHORTEST_STEP: i64 = 5_000;
/// What a comparison looks at before its run, in milliseconds: an hour, and what was known before that.
const PAST_OF_COUNTERS: i64 = (3600 + 600 + 60) * 1000;
/// Runs of one backtest.
const MOST_RUNS: i64 = 1_000_000;

/// Try an analysis on the past: how it would have ended, had it begun then
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Times are UTC: 2026-10-03, 2026-10-03T10:00, 2026-10-03T10:00:00+02:00, or how long ago, such as 30d or 12h.

Exit codes: 0 all is well, 1 the manifests are not right or Prometheus does not answer, 2 a wrong flag,
3 an incident was missed (a recorded one: did not end as expected), 4 more false alarms than --max-false-alarms.")]
pub struct Backtest {
    #[command(flatten)]
    templates: Chosen,
    /// Another file or folder with templates, to compare with
    #[arg(long, value_name = "FILE", num_args = 1..)]
    against: Vec<PathBuf>,
    /// The Prometheus that is asked; the one that the template names when absent
    #[arg(long, value_name = "URL", conflicts_with = "incidents")]
    prometheus: Option<String>,
    /// When the first run begins
    #[arg(long, value_name = "TIME", value_parser = times::instant, required_unless_present = "incidents")]
    from: Option<Instant>,
    /// When the last run ends
    #[arg(long, value_name = "TIME", value_parser = times::instant, default_value = "now")]
    to: Instant,
    /// How often a run begins
    #[arg(long, value_name = "DURATION", value_parser = units::duration, default_value = "5m")]
    every: Duration,
    /// Between two values of a query; what every measurement falls on, but at least 5s, when absent
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    step: Option<Duration>,
    /// When a run is told to stop; as long as its metrics take, or 30m if they never end, when absent
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    duration: Option<Duration>,
    /// A time in which something was wrong, as FROM/TO; may be repeated
    #[arg(long = "incident", value_name = "WINDOW", value_parser = times::window, conflicts_with = "incidents")]
    known: Vec<Window>,
    /// Share of the runs in quiet time that may stop a release, such as 1%
    #[arg(long, value_name = "SHARE", value_parser = units::share, conflicts_with = "incidents")]
    max_false_alarms: Option<f64>,
    /// Try recorded incidents instead: a folder with files of tidegate incident record
    #[arg(long, value_name = "FOLDER")]
    incidents: Option<PathBuf>,
    /// With recorded incidents, write a report for CI as well
    #[arg(long, value_name = "FILE", requires = "incidents")]
    junit: Option<PathBuf>,
    /// The form of the output
    #[arg(long, short = 'o', value_name = "FORM", value_enum, default_value_t = Form::Text)]
    output: Form,
}

/// Templates in files, with their arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Chosen {
    /// Templates to run, as one analysis; all that the files have when absent
    #[arg(value_name = "TEMPLATE")]
    templates: Vec<String>,
    /// File or folder with templates, and a Rollout that says names and arguments, or - for standard input; may be repeated
    #[arg(long = "filename", short = 'f', required = true, num_args = 1)]
    filename: Vec<PathBuf>,
    /// Value of an argument, as NAME=VALUE; may be repeated
    #[arg(long = "arg", short = 'a', value_name = "NAME=VALUE", value_parser = subject::argument)]
    arguments: Vec<(String, String)>,
    /// The namespace whose requests a comparison counts; that of the templates when absent
    #[arg(long, short = 'n')]
    namespace: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    Text,
    Json,
}

impl Chosen {
    fn choice(&self, asks: bool) -> Choice {
        Choice {
            files: self.filename.clone(),
            templates: self.templates.clone(),
            arguments: self.arguments.clone(),
            namespace: self.namespace.clone(),
            asks,
            told_apart: false,
        }
    }
}

impl Backtest {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let choices = self.choices();
        if let Some(folder) = &self.incidents {
            let files = suite::files(folder)?;
            let suite = tokio::task::spawn_blocking(move || suite::run(&files, &choices)).await??;
            if let Some(file) = &self.junit {
                std::fs::write(file, suite.junit()).with_context(|| format!("cannot write {}", file.display()))?;
            }
            match self.output {
                Form::Text => print!("{}", suite.text(screen::has_color())),
                Form::Json => println!("{}", serde_json::to_string_pretty(&suite)?),
            }
            return Ok(if suite.passed() { ExitCode::SUCCESS } else { ExitCode::from(MISSED) });
        }
        let subjects: Vec<Subject> = choices.iter().map(Subject::read).collect::<anyhow::Result<_>>()?;
        let report = self.report(subjects).await?;
        match self.output {
            Form::Text => print!("{}", text::text(&report, screen::has_color())),
            Form::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        }
        let too_many = self.max_false_alarms.is_some_and(|most| report.false_alarms() > most);
        Ok(match (report.missed(), too_many) {
            (true, _) => ExitCode::from(MISSED),
            (false, true) => ExitCode::from(FALSE_ALARMS),
            (false, false) => ExitCode::SUCCESS,
        })
    }

    fn choices(&self) -> Vec<Choice> {
        let told_apart = !self.against.is_empty();
        let choice = Choice { told_apart, ..self.templates.choice(self.incidents.is_none()) };
        let other = Choice { files: self.against.clone(), templates: Vec::new(), ..choice.clone() };
        if self.against.is_empty() { vec![choice] } else { vec![choice, other] }
    }

    async fn report(&self, subjects: Vec<Subject>) -> anyhow::Result<Report> {
        let now = Clock::system().now();
        let from = self.from.context("--from is needed")?.at(now);
        let window = Window { from, to: self.to.at(now).min(now) };
        let course = Course::new(&subjects, window, self.every, self.step, self.duration, &self.known)?;
        let past = past(self.prometheus.as_deref(), &subjects)?;
        let progress = Progress::new();
        let fetched = fetch(&past, &course.wants(&subjects)?, &|share| progress.show("reading history", share)).await?;
        let mut notes: Vec<String> = Vec::new();
        for note in subjects.iter().flat_map(|subject| &subject.notes).chain(&course.notes).chain(&fetched.notes) {
            if !notes.contains(note) {
                notes.push(note.clone());
            }
        }
        let coverage = course.coverage(&subjects);
        let history = Arc::new(History::new(fetched.answers, fetched.series, coverage));
        // It takes all processors for as long as it takes.
        let (known, requests) = (self.known.clone(), fetched.requests);
        let tried = tokio::task::spawn_blocking(move || {
            let (all, done) = (course.starts.len() * subjects.len(), AtomicUsize::new(0));
            let told = |runs: usize| {
                let done = done.fetch_add(runs, Ordering::Relaxed) + runs;
                progress.show("trying       ", done as f64 / all.max(1) as f64);
            };
            let tested = subjects.iter().zip(&course.lasts).map(|(subject, lasts)| {
                let runs = replay::replay(subject, &history, &course.starts, *lasts, &told).context("no runtime")?;
                Ok(score::score(subject, &runs, &known, course.every, *lasts))
            });
            let tested: anyhow::Result<Vec<_>> = tested.collect();
            progress.end();
            tested.map(|tested| (course, tested))
        });
        let (course, tested) = tried.await??;
        Ok(Report {
            version: 1,
            from: course.window.from,
            to: course.window.to,
            every_seconds: course.every.as_secs_f64(),
            step_seconds: course.step as f64 / 1000.0,
            exact: course.exact,
            incidents: self.known.clone(),
            requests,
            notes,
            tested,
        })
    }
}

/// Which Prometheus is asked, and how.
fn past(address: Option<&str>, subjects: &[Subject]) -> anyhow::Result<Past> {
    let of_template = subjects.first().map(|subject| subject.settings.clone()).unwrap_or_default();
    if address.is_none() && of_template.address.as_deref().unwrap_or_default().is_empty() {
        bail!("--prometheus is needed: the template names no address");
    }
    let settings = match address {
        Some(_) => Settings { address: None, ..of_template },
        None => of_template,
    };
    let transport = Arc::new(Network::new());
    let providers = Providers::new(transport, JobTarget::nowhere(), Clock::system(), address.map(str::to_owned));
    Ok(Past::new(providers, settings))
}

/// When runs begin and end.
struct Course {
    window: Window,
    starts: Vec<Timestamp>,
    every: SignedDuration,
    /// For each subject, how long a run takes at most.
    lasts: Vec<SignedDuration>,
    /// Milliseconds between two values of a query.
    step: i64,
    exact: bool,
    notes: Vec<String>,
}

impl Course {
    fn new(
        subjects: &[Subject],
        window: Window,
        every: Duration,
        step: Option<Duration>,
        duration: Option<Duration>,
        known: &[Window],
    ) -> anyhow::Result<Self> {
        let every = SignedDuration::from_secs(i64::try_from(every.as_secs()).unwrap_or(i64::MAX));
        if every.is_zero() {
            bail!("--every is at least 1s");
        }
        let given = duration.map(|duration| SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX));
        let lasts: Vec<SignedDuration> = subjects.iter().map(|it| given.unwrap_or_else(|| it.lasts())).collect();
        let longest = lasts.iter().max().copied().unwrap_or_default();
        let last = window.to.checked_sub(longest).ok().filter(|last| *last >= window.from);
        let Some(last) = last else {
            bail!("{window} is shorter than a run, which takes {}", units::span(longest.as_secs_f64()));
        };
        if let Some(outside) = known.iter().find(|it| it.from >= window.to || it.to <= window.from) {
            bail!("the incident {outside} is not between --from and --to");
        }
        let count = last.duration_since(window.from).as_secs() / every.as_secs() + 1;
        if count > MOST_RUNS {
            bail!("there are {count} runs; at most {MOST_RUNS} are tried: let them begin less often, by --every");
        }
        let start = |number: i64| window.from.checked_add(SignedDuration::from_secs(every.as_secs() * number));
        let starts: Vec<Timestamp> = (0..count).filter_map(|number| start(number).ok()).collect();
        // Every measurement falls on it.
        let beat = subjects.iter().map(Subject::beat).fold(every.as_secs() * 1000, common);
        let step = match step {
            Some(step) => i64::try_from(step.as_millis()).unwrap_or(i64::MAX).max(1),
            None => beat.max(SHORTEST_STEP),
        };
        let mut notes = Vec::new();
        for (subject, lasts) in subjects.iter().zip(&lasts) {
            for asked in &subject.asked {
                if asked.lasts().is_some_and(|needed| needed > *lasts) {
                    notes.push(format!(
                        "metric {} takes longer than --duration: a run that is told to stop before is Successful unless \
                         something has failed",
                        asked.metric.name
                    ));
                }
            }
        }
        Ok(Self { window, starts, every, lasts, step, exact: beat % step == 0, notes })
    }

    /// From the first start to the last end, in milliseconds since 1970.
    fn reach(&self) -> (i64, i64) {
        let longest = self.lasts.iter().max().copied().unwrap_or_default();
        let first = self.starts.first().copied().unwrap_or(self.window.from).as_millisecond();
        let last = self.starts.last().copied().unwrap_or(self.window.from).as_millisecond();
        (first, last.saturating_add(i64::try_from(longest.as_millis()).unwrap_or(i64::MAX)))
    }

    fn wants(&self, subjects: &[Subject]) -> anyhow::Result<Vec<Want>> {
        let (first, last) = self.reach();
        let mut wants: Vec<Want> = Vec::new();
        for subject in subjects {
            for query in subject.queries()? {
                let want = values(&query, first, last, self.step);
                match wants.iter_mut().find(|known| same_query(known, &want)) {
                    Some(known) => *known = earlier(known.clone(), want),
                    None => wants.push(want),
                }
            }
        }
        let Coverage { selectors, from, to } = self.coverage(subjects);
        wants.extend(selectors.into_iter().map(|selector| Want::Samples { selector, from, to }));
        Ok(wants)
    }

    /// The counters of comparisons.
    fn coverage(&self, subjects: &[Subject]) -> Coverage {
        let (first, last) = self.reach();
        let selectors = widest(subjects.iter().flat_map(Subject::counters).collect());
        Coverage { selectors, from: first.saturating_sub(PAST_OF_COUNTERS), to: last }
    }
}

/// The values of a query from the first run to the end of the last, on the beat of their starts.
fn values(query: &subject::Query, first: i64, last: i64, step: i64) -> Want {
    let reach = i64::try_from(query.reach.as_millis()).unwrap_or(0).max(0);
    let before = (reach + step - 1) / step * step;
    Want::Values { query: query.text.clone(), from: first.saturating_sub(before), to: last, step }
}

fn same_query(a: &Want, b: &Want) -> bool {
    matches!((a, b), (Want::Values { query: a, .. }, Want::Values { query: b, .. }) if a == b)
}

fn earlier(a: Want, b: Want) -> Want {
    match (&a, &b) {
        (Want::Values { from: first, .. }, Want::Values { from: second, .. }) if second < first => b,
        _ => a,
    }
}
