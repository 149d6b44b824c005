//! `backtest`: days of one service in a real Prometheus, and `tidegate backtest` and `tidegate calibrate` over them.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};
use tidegate::clock::Clock;
use tokio::process::Command;
use tokio::time::Instant;

use crate::controller::binary;
use crate::prometheus::Prometheus;
use crate::tools::{Part, Tools};

/// Between two scrapes.
const SCRAPE: i64 = 15;
const PODS: usize = 3;
/// What a month of history may take.
const MOST: Duration = Duration::from_secs(120);

const THRESHOLD: &str = r#"
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: {name: success-rate}
spec:
  args: [{name: service}]
  metrics:
  - name: success-rate
    initialDelay: 1m
    interval: 30s
    failureLimit: 3
    successCondition: result[0] >= 0.95
    provider:
      prometheus:
        query: >-
          sum(rate(http_requests_total{service="{{args.service}}",code!~"5.."}[2m]))
          / sum(rate(http_requests_total{service="{{args.service}}"}[2m]))
"#;

/// One pod against the others.
const JUDGED: &str = r#"
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: {name: judged}
spec:
  metrics:
  - name: errors
    compare:
      canary:
        total: http_requests_total{pod="web-0"}
        errors: http_requests_total{pod="web-0",code=~"5.."}
      stable:
        total: http_requests_total{pod=~"web-[1-9]"}
        errors: http_requests_total{pod=~"web-[1-9]",code=~"5.."}
"#;

#[derive(Debug, clap::Args)]
pub struct Backtest {
    /// Days of history
    #[arg(long, default_value_t = 30)]
    days: i64,
}

impl Backtest {
    pub async fn run(self, folder: &Path) -> Result<()> {
        check(folder, self.days).await
    }
}

/// Fills a Prometheus with so many days of a service that was broken for half an hour, and tries analyses on them. What is recorded of
/// the incident ends as it does live, and a calibration finds what the days were made with.
///
/// # Errors
/// Something is not as it must be, or takes too long.
pub async fn check(folder: &Path, days: i64) -> Result<()> {
    let tools = Tools::find(&[Part::Prometheus])?;
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    // The head of the database is not written by hand: it begins after what is.
    let now = Clock::system().now().as_second() - 4 * 3600;
    let to = now - now.rem_euclid(3600);
    let from = to - days * 86_400;
    let broken = to - 8 * 3600;
    let filled = Instant::now();
    fill(&tools, folder, from, to, broken..broken + 1800).await?;
    println!("{days} days of history written in {:.1} s", filled.elapsed().as_secs_f64());
    let prometheus = Prometheus::start(&tools, folder, &[]).await?;
    let instant = |second: i64| Ok::<_, anyhow::Error>(Timestamp::from_second(second)?.to_string());
    for (name, text) in [("threshold.yaml", THRESHOLD), ("judged.yaml", JUDGED)] {
        std::fs::write(folder.join(name), text).with_context(|| format!("writing {name}"))?;
    }
    let incident = format!("{}/{}", instant(broken)?, instant(broken + 1800)?);
    let url = prometheus.url();
    let asked = ["--prometheus", &url, "--arg", "service=web"];
    let (first, last) = (instant(from + 3600)?, instant(to)?);
    let window = ["--from", &first, "--to", &last];
    for template in ["threshold.yaml", "judged.yaml"] {
        let began = Instant::now();
        let mut words = vec!["backtest", "-f", template, "--incident", &incident, "-o", "json"];
        words.extend(asked.iter().chain(&window));
        let report: Value = serde_json::from_str(&tidegate(folder, &words).await?).context("reading the report")?;
        let took = began.elapsed();
        let tested = &report["tested"][0];
        let runs = tested["runs"].as_array().map_or(0, Vec::len);
        println!(
            "{template}: {runs} runs over {days} days in {:.1} s, {} requests, {} of {} quiet runs stopped, incident seen after {} s",
            took.as_secs_f64(),
            report["requests"],
            tested["quiet"]["stopped"],
            tested["quiet"]["runs"],
            tested["incidents"][0]["firstSeconds"],
        );
        ensure!(report["exact"] == true && runs as i64 > days * 280 - 30, "{template}: {runs} runs, {report:.300}");
        if template == "threshold.yaml" {
            ensure!(tested["incidents"][0]["detected"] == true, "the incident was missed");
            ensure!(tested["quiet"]["stopped"] == 0, "a quiet run stopped: {}", tested["alarms"]);
        } else {
            // All pods fail alike: nothing is held against one of them.
            ensure!(tested["incidents"][0]["detected"] == false, "one pod was blamed for what all had");
        }
        ensure!(took < MOST, "{template} took {:.0} s", took.as_secs_f64());
    }
    recorded(folder, &asked, broken).await?;
    calibrated(folder, &url, days).await?;
    prometheus.stop().await;
    Ok(())
}

/// Records the incident, and tries on the file alone what was tried on the server: the template itself, and one whose query can
/// only be computed from the series.
async fn recorded(folder: &Path, asked: &[&str], broken: i64) -> Result<()> {
    let (from, to) = (Timestamp::from_second(broken)?.to_string(), Timestamp::from_second(broken + 1800)?.to_string());
    let mut words =
        vec!["incident", "record", "-f", "threshold.yaml", "--name", "broken", "--from", &from, "--to", &to];
    words.extend(asked);
    let said = tidegate(folder, &words).await?;
    ensure!(said.contains("as expected"), "{said}");
    let changed = THRESHOLD.replace("[2m]", "[150s]").replace("interval: 30s", "interval: 35s");
    std::fs::write(folder.join("changed.yaml"), changed).context("writing changed.yaml")?;
    for template in ["threshold.yaml", "changed.yaml"] {
        // A window of one run, which begins with the incident.
        let mut words =
            vec!["backtest", "-f", template, "--from", &from, "--to", &to, "--duration", "30m", "-o", "json"];
        words.extend(asked);
        let live: Value = serde_json::from_str(&tidegate(folder, &words).await?)?;
        let words = ["backtest", "-f", template, "--incidents", "incidents", "-o", "json"];
        let file: Value = serde_json::from_str(&tidegate(folder, &words).await?)?;
        let (live, file) = (&live["tested"][0]["runs"][0], &file["incidents"][0]["tested"][0]);
        ensure!(live["phase"] == file["phase"] && live["seconds"] == file["seconds"], "{template}: {live} and {file}");
    }
    Ok(())
}

/// Finds what the history was made with, and proposes a template that is one.
async fn calibrated(folder: &Path, url: &str, days: i64) -> Result<()> {
    let began = Instant::now();
    let window = format!("{days}d");
    let words = [
        "calibrate",
        "--prometheus",
        url,
        "--total",
        r#"http_requests_total{service="web"}"#,
        "--errors",
        r#"http_requests_total{service="web",code=~"5.."}"#,
        "--window",
        &window,
        "-o",
    ];
    let asked = |form: &'static str| words.into_iter().chain([form]).collect::<Vec<_>>();
    let found: Value =
        serde_json::from_str(&tidegate(folder, &asked("json")).await?).context("reading the calibration")?;
    let took = began.elapsed();
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let (replay, proposed) = (&found["replay"], &found["proposed"]);
    println!(
        "calibrate: {days} days in {:.1} s: {} requests a minute of {} pods, {:.2}% fail, {:.2} together; stable against stable {} \
         of {} called worse; a {:.1}-fold change within {} s at a margin of {}",
        took.as_secs_f64(),
        found["requestsPerMinute"][1],
        found["pods"],
        number(&found["failureRate"]) * 100.0,
        number(&found["dispersion"]["median"]),
        replay["alarms"],
        replay["analyses"],
        number(&proposed["ratio"]),
        proposed["horizon"],
        proposed["margin"],
    );
    let within = |what: &str, value: &Value, range: std::ops::RangeInclusive<f64>| {
        ensure!(range.contains(&number(value)), "{what} is {value}, and not within {range:?}");
        Ok(())
    };
    ensure!(found["pods"] == PODS, "{} pods", found["pods"]);
    // Each pod has 200 requests in 15 seconds, and the more or less of day and night.
    within("the requests a minute", &found["requestsPerMinute"][1], 1_400.0..=3_400.0)?;
    within("the failure rate", &found["failureRate"], 0.009..=0.04)?;
    within("the usual failure rate", &found["hourlyFailureRates"][1], 0.009..=0.011)?;
    // They were drawn one by one.
    within("how many fail together", &found["dispersion"]["median"], 1.0..=1.5)?;
    within(
        "how often stable is called worse",
        &json!(number(&replay["alarms"]) / number(&replay["analyses"])),
        0.0..=0.01,
    )?;
    within("the change that can be seen", &proposed["ratio"], 1.1..=2.0)?;
    std::fs::write(folder.join("calibrated.yaml"), tidegate(folder, &asked("yaml")).await?)
        .context("writing calibrated.yaml")?;
    tidegate(folder, &["lint", "-f", "calibrated.yaml"]).await?;
    let text = tidegate(folder, &asked("text")).await?;
    ensure!(text.contains("Stable against stable (one pod against the others)"), "{text}");
    ensure!(took < MOST, "it took {:.0} s", took.as_secs_f64());
    Ok(())
}

async fn tidegate(folder: &Path, words: &[&str]) -> Result<String> {
    let output = Command::new(binary()?).args(words).current_dir(folder).output().await.context("running tidegate")?;
    // 3 says that an incident was missed, which may be right.
    if !matches!(output.status.code(), Some(0 | 3)) {
        bail!("{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Writes blocks of the database: requests of each pod, of which one in a hundred fails, and half while it is broken.
async fn fill(tools: &Tools, folder: &Path, from: i64, to: i64, broken: std::ops::Range<i64>) -> Result<()> {
    let path = folder.join("history.txt");
    let mut file = BufWriter::new(File::create(&path).with_context(|| format!("creating {}", path.display()))?);
    writeln!(file, "# TYPE http_requests counter")?;
    for pod in 0..PODS {
        let mut dice = fastrand::Rng::with_seed(pod as u64);
        let mut counts = [0_u64; 2];
        let mut lines = [String::new(), String::new()];
        for number in 0..(to - from) / SCRAPE {
            let at = from + number * SCRAPE;
            // More by day than by night.
            let day = (at.rem_euclid(86_400) as f64 / 86_400.0 * std::f64::consts::TAU).sin();
            for _ in 0..(200.0 - 80.0 * day) as u64 {
                counts[usize::from(dice.f64() < if broken.contains(&at) { 0.5 } else { 0.01 })] += 1;
            }
            for ((lines, count), code) in lines.iter_mut().zip(counts).zip(["200", "500"]) {
                // Writing to a String cannot fail.
                let _ = writeln!(
                    lines,
                    "http_requests_total{{service=\"web\",pod=\"web-{pod}\",code=\"{code}\"}} {count} {at}"
                );
            }
        }
        for lines in lines {
            file.write_all(lines.as_bytes())?;
        }
    }
    writeln!(file, "# EOF")?;
    file.flush().context("writing the history")?;
    let data = folder.join("prometheus").join("data");
    std::fs::create_dir_all(&data).with_context(|| format!("creating {}", data.display()))?;
    let mut promtool = Command::new(tools.path(Part::Prometheus, "promtool"));
    // One block for two days at most, so that there are few.
    promtool.args(["tsdb", "create-blocks-from", "--max-block-duration=48h", "openmetrics"]).arg(&path).arg(&data);
    let output = promtool.output().await.context("running promtool")?;
    ensure!(output.status.success(), "promtool: {}", String::from_utf8_lossy(&output.stderr));
    std::fs::remove_file(&path).context("removing the history's text")
}
