//! `tidegate plan`: what a release would do, before anything is deployed.
//!
//! The real controller runs on the cluster in memory, in virtual time, over the user's own manifests:
//!
//! ```text
//! files ──► lint ──► setting ──► play (once in detail, or many times) ──► report ──► text, JSON, page
//! ```

mod html;
mod play;
mod predict;
mod questions;
mod release;
mod report;
mod route;
mod rows;
mod setting;
mod svg;
mod text;

#[cfg(test)]
mod tests;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;

use super::lint;
use super::manifest::{self, Object};
use super::screen;
use super::units;
use crate::sandbox::traffic::Target;
use crate::sandbox::workloads::Behaviour;

pub use play::Circumstances;
pub use release::Release;
pub use report::{Outcome, Prediction, Report};
pub use setting::Wish;

use report::Assumptions;
use setting::Setting;

/// A release was rolled back.
const ROLLED_BACK: u8 = 3;
/// A release has not come to an end: it is stuck, waits for a decision, or takes too long.
const UNDECIDED: u8 = 4;

/// Say how long a release takes and what a bad one would do, before anything is deployed
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A release is described by one or more of these, separated by commas:
  healthy            nothing is wrong (what is planned without --release)
  errors=5x          fails five times as many requests as usual; errors=10% fails one in ten
  slow=3x            answers take three times as long; slow=800ms takes so long on average
  crash-looping      exits before it is ready, again and again
  no-traffic         nobody sends any requests
  late-onset=5m      what is wrong begins so late after the release (without anything else: errors=10%)

Exit codes: 0 every release came out, 1 the manifests are not right (or something else is not), 2 a wrong flag,
3 a release was rolled back, 4 a release did not come to an end.")]
pub struct Plan {
    /// The Rollout to plan, if there are several
    #[arg(value_name = "ROLLOUT")]
    rollout: Option<String>,
    /// File or folder with manifests, or - for standard input; may be repeated
    #[arg(long = "filename", short = 'f', required = true, num_args = 1..)]
    filename: Vec<PathBuf>,
    /// What comes true of the new version, such as healthy, errors=5x or errors=10%,late-onset=5m; may be repeated
    #[arg(long = "release", value_name = "HOW", default_value = "healthy")]
    releases: Vec<Release>,
    /// How often each release is played with another seed, for statistics
    #[arg(long, value_name = "TIMES", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    repeat: u64,
    /// Requests that users send in a second
    #[arg(long, value_name = "NUMBER", default_value = "100", value_parser = rate)]
    rps: f64,
    /// The share of requests that fails without any release, such as 0.1%
    #[arg(long, value_name = "SHARE", default_value = "0.1%", value_parser = units::share)]
    error_rate: f64,
    /// The mean time of an answer
    #[arg(long, value_name = "DURATION", default_value = "50ms", value_parser = units::duration)]
    latency: Duration,
    /// From the creation of a pod until it is ready
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = units::duration)]
    ready_after: Duration,
    /// How long a release that waits for a person waits
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = units::duration)]
    promote_after: Duration,
    /// How often Prometheus scrapes; a quarter of the shortest range in the queries, at most 15s, if not given
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    scrape_interval: Option<Duration>,
    /// Pods, instead of what the manifest says
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(0..=1000))]
    replicas: Option<i32>,
    /// A release that takes longer is given up
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = units::duration)]
    give_up_after: Duration,
    /// The seed of all that is random
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// The namespace of objects that name none
    #[arg(long, short = 'n', value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// The form of the output
    #[arg(long, short = 'o', value_name = "FORM", value_enum, default_value_t = Form::Text)]
    output: Form,
    /// Write a page with plots as well
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    Text,
    Json,
    Html,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| (0.0..=1_000_000.0).contains(rate));
    rate.ok_or_else(|| format!("{text:?} is no number of requests in a second"))
}

impl Plan {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let objects = manifest::read(&self.filename)?;
        let checked = lint::check(&objects);
        for error in &checked.errors {
            eprintln!("error: {error}");
        }
        if !checked.errors.is_empty() {
            return Ok(ExitCode::FAILURE);
        }
        let (output, html) = (self.output, self.html.clone());
        // It takes a thread for as long as it takes.
        let report = tokio::task::spawn_blocking(move || self.report(&objects, &checked.warnings)).await??;
        if let Some(file) = html {
            let page = html::page(&report);
            std::fs::write(&file, page).with_context(|| format!("cannot write {}", file.display()))?;
        }
        match output {
            Form::Text => print!("{}", text::text(&report, screen::has_color())),
            Form::Json => println!("{}", serde_json::to_string_pretty(&report)?),
            Form::Html => print!("{}", html::page(&report)),
        }
        Ok(exit_code(&report))
    }

    fn report(&self, objects: &[Object], warnings: &[String]) -> anyhow::Result<Report> {
        let circumstances = Circumstances {
            rate: self.rps,
            pods: Behaviour {
                error_rate: self.error_rate,
                latency: self.latency,
                ready_after: self.ready_after,
                ..Behaviour::default()
            },
            promote_after: self.promote_after,
            scrape_interval: self.scrape_interval.unwrap_or_default(),
            give_up_after: self.give_up_after,
            seed: self.seed,
            in_detail: true,
        };
        let wish = Wish { name: self.rollout.clone(), namespace: self.namespace.clone(), replicas: self.replicas };
        let live = self.repeat > 1 && std::io::stderr().is_terminal();
        let progress = |release: &Release, done: u64| {
            if live && (done.is_multiple_of(10) || done == self.repeat) {
                let end = if done == self.repeat { "\r\x1b[K" } else { "" };
                eprint!("\r{release}: {done} of {}{end}", self.repeat);
            }
        };
        let mut report = plan(objects, &wish, &self.releases, &circumstances, self.repeat, &progress)?;
        report.notes.splice(0..0, warnings.iter().cloned());
        Ok(report)
    }
}

/// Plans the releases of a Rollout. A scrape interval of zero is replaced by one that fits the queries.
///
/// # Errors
/// Something that cannot be made up is missing, an object is refused, or the version before the release does not get ready.
pub fn plan(
    objects: &[Object],
    wish: &Wish,
    releases: &[Release],
    circumstances: &Circumstances,
    repeat: u64,
    progress: &(dyn Fn(&Release, u64) + Sync),
) -> anyhow::Result<Report> {
    let setting = Setting::of(objects, wish)?;
    let mut circumstances = circumstances.clone();
    if circumstances.scrape_interval.is_zero() {
        circumstances.scrape_interval = setting.questions.scrape_interval;
    }
    let pods = &mut circumstances.pods;
    pods.start_after = pods.start_after.min(pods.ready_after);
    let predicted = releases
        .iter()
        .map(|release| predict::predict(&setting, release, &circumstances, repeat, &|done| progress(release, done)));
    let releases: Vec<Prediction> = predicted.collect::<anyhow::Result<_>>()?;
    let mut notes = setting.notes.clone();
    notes.extend(unheard(&releases));
    Ok(Report {
        version: 1,
        rollout: setting.subject.clone(),
        assumptions: Assumptions {
            requests_per_second: circumstances.rate,
            target: place(&setting.target),
            error_rate: circumstances.pods.error_rate,
            latency_seconds: circumstances.pods.latency.as_secs_f64(),
            ready_after_seconds: circumstances.pods.ready_after.as_secs_f64(),
            promote_after_seconds: circumstances.promote_after.as_secs_f64(),
            scrape_interval_seconds: circumstances.scrape_interval.as_secs_f64(),
            seed: circumstances.seed,
            answers: setting.questions.assumed.iter().map(|assumption| assumption.answer.clone()).collect(),
        },
        notes,
        releases,
    })
}

/// Metrics that never found any data, though there was some.
fn unheard(releases: &[Prediction]) -> Vec<String> {
    let mut notes = Vec::new();
    for prediction in releases.iter().filter(|prediction| prediction.requests.new.requests > 0) {
        for metric in prediction.analyses.iter().flat_map(|analysis| &analysis.metrics) {
            let empty = |value: &str| matches!(value, "" | "[]" | "[NaN]" | "NaN");
            let asked = !metric.assumed && metric.provider == "prometheus" && !metric.measurements.is_empty();
            if asked && metric.measurements.iter().all(|it| empty(&it.value)) {
                let note = format!(
                    "metric {} found no data in any of its measurements: look at the labels of its query, and at \
                     --namespace and --scrape-interval",
                    metric.name
                );
                if !notes.contains(&note) {
                    notes.push(note);
                }
            }
        }
    }
    notes
}

fn place(target: &Target) -> String {
    match target {
        Target::Host { host, path, .. } if path == "/" => host.clone(),
        Target::Host { host, path, .. } => format!("{host}{path}"),
        Target::Route(name) => format!("route {}", name.name),
        Target::Service(name) => format!("Service {}", name.name),
    }
}

fn exit_code(report: &Report) -> ExitCode {
    let has = |outcomes: &[Outcome]| report.releases.iter().any(|release| outcomes.contains(&release.outcome));
    if has(&[Outcome::Stuck, Outcome::Waiting, Outcome::Unfinished]) {
        ExitCode::from(UNDECIDED)
    } else if has(&[Outcome::RolledBack]) {
        ExitCode::from(ROLLED_BACK)
    } else {
        ExitCode::SUCCESS
    }
}
