//! A real Prometheus that scrapes the gateway every second, as a child process.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::json;
use tokio::process::Command;

use crate::cluster::free_ports;
use crate::http::Http;
use crate::process::{Process, Usage};
use crate::tools::{Part, Tools};

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    program: PathBuf,
    folder: PathBuf,
    port: u16,
    http: Http,
    process: Option<Process>,
}

/// One series of an instant query's answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub labels: BTreeMap<String, String>,
    /// It may be NaN, as for a ratio of nothing.
    pub value: f64,
}

impl Prometheus {
    /// Starts a Prometheus that scrapes each of the `targets` (a job's name and its host and port) every second.
    ///
    /// # Errors
    /// It is not installed, or is not ready within a minute.
    pub async fn start(tools: &Tools, folder: &Path, targets: &[(&str, String)]) -> Result<Self> {
        let folder = folder.join("prometheus");
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let jobs: Vec<_> = targets
            .iter()
            .map(|(job, target)| json!({"job_name": job, "static_configs": [{"targets": [target]}]}))
            .collect();
        // JSON is YAML too.
        let config = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "scrape_configs": jobs,
        });
        fs::write(folder.join("prometheus.yml"), config.to_string()).context("writing prometheus.yml")?;
        let [port] = free_ports()?;
        let program = tools.path(Part::Prometheus, "prometheus");
        let mut prometheus = Self { program, folder, port, http: Http::default(), process: None };
        prometheus.restart().await?;
        Ok(prometheus)
    }

    /// The address that an AnalysisTemplate names.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Answers an instant query.
    ///
    /// # Errors
    /// Prometheus is not there, refuses the query, or its answer is neither a vector nor a scalar.
    pub async fn query(&self, query: &str) -> Result<Vec<Sample>> {
        let url = format!("{}/api/v1/query?query={}", self.url(), percent_encoded(query));
        let body = self.http.body(&url).await?;
        let answer: Answer = serde_json::from_slice(&body).context("decoding Prometheus' answer")?;
        let number = |(_, text): (f64, String)| text.parse().context("a sample that is not a number");
        match answer.data {
            Data::Scalar(sample) => Ok(vec![Sample { labels: BTreeMap::new(), value: number(sample)? }]),
            Data::Vector(series) => series
                .into_iter()
                .map(|series| Ok(Sample { labels: series.metric, value: number(series.value)? }))
                .collect(),
        }
    }

    /// Kills Prometheus, as a crash would. Its data stays.
    pub async fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill().await;
        }
    }

    /// Starts Prometheus after it was killed, on its old address and with its old data.
    ///
    /// # Errors
    /// It is running, or is not ready within a minute.
    pub async fn restart(&mut self) -> Result<()> {
        if self.process.is_some() {
            bail!("prometheus is running");
        }
        let mut process = Process::spawn(
            "prometheus",
            Command::new(&self.program)
                .arg(format!("--config.file={}", self.folder.join("prometheus.yml").display()))
                .arg(format!("--storage.tsdb.path={}", self.folder.join("data").display()))
                .arg(format!("--web.listen-address=127.0.0.1:{}", self.port))
                // What it is given of the past is older than the default of fifteen days.
                .arg("--storage.tsdb.retention.time=90d")
                .arg("--log.level=warn"),
            &self.folder,
        )?;
        let (http, ready) = (&self.http, format!("{}/-/ready", self.url()));
        process.ready(Duration::from_secs(60), async || http.body(&ready).await.is_ok()).await?;
        self.process = Some(process);
        Ok(())
    }

    /// What Prometheus has used, if it runs.
    pub fn usage(&self) -> Option<Usage> {
        self.process.as_ref()?.usage().ok()
    }

    /// Stops Prometheus.
    pub async fn stop(mut self) {
        if let Some(process) = self.process.take() {
            process.stop().await;
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase", tag = "resultType", content = "result")]
enum Data {
    Scalar((f64, String)),
    Vector(Vec<Series>),
}

#[derive(Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}
