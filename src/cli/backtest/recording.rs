//! An incident in a file: what was known around it, small enough to be kept beside the templates.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::history::{Answers, Coverage, History};
use super::times::Window;
use crate::providers::Shape;
use crate::sandbox::prometheus::RecordedSeries;

/// Of the form of the files.
pub const VERSION: u64 = 1;
const KIND: &str = "TidegateIncident";
/// Bytes of a file.
const LARGEST: u64 = 64 << 20;
/// Samples of a file.
const MOST_SAMPLES: usize = 8_000_000;

/// A recorded incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Incident {
    kind: String,
    version: u64,
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    pub from: Timestamp,
    pub to: Timestamp,
    /// The phase that a run should end with which begins when the incident does.
    pub expect: String,
    /// Seconds from its beginning until it should.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within_seconds: Option<f64>,
    /// What it was recorded for: the names of templates, and their arguments.
    pub template: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub arguments: BTreeMap<String, String>,
    coverage: Covered,
    /// What Prometheus answered to the queries of the template.
    answers: Vec<Answered>,
    series: Vec<Written>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Covered {
    from: Timestamp,
    to: Timestamp,
    selectors: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answered {
    query: String,
    scalar: bool,
    from: Timestamp,
    to: Timestamp,
    step_seconds: f64,
    series: Vec<Written>,
}

/// A series. Equal neighbours are written once, with their number: `5x3` is 5 three times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Written {
    labels: BTreeMap<String, String>,
    /// Milliseconds since 1970, then the distance of each sample from the one before.
    times: String,
    values: String,
}

/// What is told of an incident beside its series.
#[derive(Clone, Debug)]
pub struct Head {
    pub name: String,
    pub note: String,
    pub window: Window,
    pub expect: String,
    pub within_seconds: Option<f64>,
    pub template: String,
    pub arguments: BTreeMap<String, String>,
}

impl Incident {
    pub fn new(
        head: Head,
        answers: &BTreeMap<String, Answers>,
        series: &[RecordedSeries],
        coverage: &Coverage,
    ) -> Self {
        let answered = |(query, answers): (&String, &Answers)| Answered {
            query: query.clone(),
            scalar: answers.shape == Shape::Scalar,
            from: instant(answers.start),
            to: instant(answers.end),
            step_seconds: answers.step as f64 / 1000.0,
            series: answers.series.iter().map(Written::of).collect(),
        };
        Self {
            kind: KIND.to_owned(),
            version: VERSION,
            name: head.name,
            note: head.note,
            from: head.window.from,
            to: head.window.to,
            expect: head.expect,
            within_seconds: head.within_seconds,
            template: head.template,
            arguments: head.arguments,
            coverage: Covered {
                from: instant(coverage.from),
                to: instant(coverage.to),
                selectors: coverage.selectors.clone(),
            },
            answers: answers.iter().map(answered).collect(),
            series: series.iter().map(Written::of).collect(),
        }
    }

    /// # Errors
    /// There is no such file, it is too large, no incident, or one of another version.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let name = path.display();
        let length = std::fs::metadata(path).with_context(|| format!("cannot read {name}"))?.len();
        if length > LARGEST {
            bail!("{name} has {length} bytes; incidents of at most {LARGEST} bytes are read");
        }
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
        Self::parse(&text).with_context(|| name.to_string())
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let json: Value = serde_json::from_str(text).context("it is not JSON")?;
        if json["kind"] != KIND {
            bail!("it is no incident: kind is not {KIND}");
        }
        if json["version"] != VERSION {
            bail!("its version is {}, and this Tidegate reads version {VERSION}: record it anew", json["version"]);
        }
        let incident: Self = serde_json::from_value(json).context("it is no whole incident")?;
        if incident.from >= incident.to {
            bail!("it ends before it begins");
        }
        if incident.answers.iter().any(|answered| answered.step_seconds.is_nan() || answered.step_seconds < 0.001) {
            bail!("the steps of its answers are too short");
        }
        Ok(incident)
    }

    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<u64> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(path, &text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(text.len() as u64)
    }

    /// What is known of it.
    ///
    /// # Errors
    /// Its series cannot be read.
    pub fn history(&self) -> anyhow::Result<History> {
        let mut left = MOST_SAMPLES;
        let mut answers = BTreeMap::new();
        for answered in &self.answers {
            let series: anyhow::Result<_> = answered.series.iter().map(|series| series.read(&mut left)).collect();
            let answers_of = Answers {
                shape: if answered.scalar { Shape::Scalar } else { Shape::Vector },
                start: answered.from.as_millisecond(),
                end: answered.to.as_millisecond(),
                // At least 1: it was checked when it was read.
                step: (answered.step_seconds * 1000.0).round().max(1.0) as i64,
                series: series?,
            };
            answers.insert(answered.query.clone(), answers_of);
        }
        let series: anyhow::Result<_> = self.series.iter().map(|series| series.read(&mut left)).collect();
        let coverage = Coverage {
            selectors: self.coverage.selectors.clone(),
            from: self.coverage.from.as_millisecond(),
            to: self.coverage.to.as_millisecond(),
        };
        Ok(History::new(answers, series?, coverage))
    }
}

impl Written {
    fn of(series: &RecordedSeries) -> Self {
        let mut before = 0;
        let times = series.samples.iter().map(|(at, _)| (at - std::mem::replace(&mut before, *at)).to_string());
        Self {
            labels: series.labels.clone(),
            times: runs(times),
            values: runs(series.samples.iter().map(|(_, value)| number(*value))),
        }
    }

    fn read(&self, left: &mut usize) -> anyhow::Result<RecordedSeries> {
        let wrong = || format!("series {:?} cannot be read", self.labels);
        let times: Vec<i64> = unrolled(&self.times, left).with_context(wrong)?;
        let values: Vec<f64> = unrolled(&self.values, left).with_context(wrong)?;
        if times.len() != values.len() {
            bail!("{}: it has {} times and {} values", wrong(), times.len(), values.len());
        }
        let mut at = 0_i64;
        let times = times.into_iter().map(|distance| {
            at = at.saturating_add(distance);
            at
        });
        Ok(RecordedSeries { labels: self.labels.clone(), samples: times.zip(values).collect() })
    }
}

/// The shortest text that is read as the same number.
fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 { format!("{value:.0}") } else { format!("{value:?}") }
}

fn runs(words: impl Iterator<Item = String>) -> String {
    let mut runs: Vec<(String, usize)> = Vec::new();
    for word in words {
        match runs.last_mut() {
            Some((last, times)) if *last == word => *times += 1,
            _ => runs.push((word, 1)),
        }
    }
    let runs = runs.into_iter().map(|(word, times)| if times == 1 { word } else { format!("{word}x{times}") });
    runs.collect::<Vec<_>>().join(" ")
}

fn unrolled<T: std::str::FromStr + Copy>(text: &str, left: &mut usize) -> anyhow::Result<Vec<T>> {
    let mut all = Vec::new();
    for word in text.split_whitespace() {
        let (number, times) = word.split_once('x').map_or((word, Ok(1)), |(number, times)| (number, times.parse()));
        let (Ok(number), Ok(times)) = (number.parse::<T>(), times) else { bail!("{word:?} is no number") };
        if times > *left {
            bail!("there are more than {MOST_SAMPLES} samples");
        }
        *left -= times;
        all.extend(std::iter::repeat_n(number, times));
    }
    Ok(all)
}

fn instant(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(samples: &[(i64, f64)]) -> RecordedSeries {
        RecordedSeries { labels: [("__name__".to_owned(), "hits".to_owned())].into(), samples: samples.to_vec() }
    }

    fn incident() -> Incident {
        let start = 1_790_000_000_000;
        let answers = Answers { shape: Shape::Scalar, start, end: start + 20_000, step: 10_000, series: Vec::new() };
        let coverage = Coverage { selectors: vec!["hits".to_owned()], from: start - 900_000, to: start + 20_000 };
        let head = Head {
            name: "outage".to_owned(),
            note: String::new(),
            window: Window { from: instant(start), to: instant(start + 20_000) },
            expect: "Failed".to_owned(),
            within_seconds: Some(5.0),
            template: "rate".to_owned(),
            arguments: [("service".to_owned(), "web".to_owned())].into(),
        };
        Incident::new(head, &[("up".to_owned(), answers)].into(), &[series(&[(start, 1.0)])], &coverage)
    }

    #[test]
    fn series_are_the_same_after_writing_and_reading() {
        let odd = [0.1, f64::INFINITY, f64::NEG_INFINITY, 1e300, 1e15, 5e-324, -0.25, 123_456_789.0, 1.0 / 3.0];
        let odd: Vec<(i64, f64)> =
            odd.iter().enumerate().map(|(index, value)| (index as i64 * 15_001, *value)).collect();
        let even: Vec<(i64, f64)> = (0..100).map(|index| (1_790_000_000_123 + index * 15_000, 7.0)).collect();
        for samples in [Vec::new(), odd, even.clone(), vec![(-5, 1.0)]] {
            let written = Written::of(&series(&samples));
            assert_eq!(written.read(&mut 1000).unwrap().samples, samples, "{written:?}");
        }
        let written = Written::of(&series(&even));
        assert_eq!((written.times.as_str(), written.values.as_str()), ("1790000000123 15000x99", "7x100"));
        let nan = Written::of(&series(&[(0, f64::NAN)])).read(&mut 10).unwrap();
        assert!(nan.samples[0].1.is_nan());
    }

    #[tokio::test]
    async fn a_file_is_read_as_it_was_written() {
        let folder = std::env::temp_dir().join(format!("tidegate-incident-{}", std::process::id()));
        let path = folder.join("deep/outage.json");
        incident().write(&path).unwrap();
        let read = Incident::read(&path).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(read, incident());
        let history = read.history().unwrap();
        assert_eq!(history.lacks("sum(rate(hits[5m]))", read.from), None);
    }

    #[tokio::test]
    async fn what_is_no_incident_of_this_version_is_refused() {
        let changed = |field: &str, value: Value| {
            let mut json = serde_json::to_value(incident()).unwrap();
            *json.pointer_mut(field).unwrap() = value;
            let parsed = Incident::parse(&json.to_string()).and_then(|incident| incident.history().map(drop));
            format!("{:#}", parsed.unwrap_err())
        };
        for (field, value, problem) in [
            ("/kind", "Rollout".into(), "it is no incident"),
            ("/version", 2.into(), "its version is 2, and this Tidegate reads version 1"),
            ("/version", Value::Null, "its version is null"),
            ("/to", "2020-01-01T00:00:00Z".into(), "it ends before it begins"),
            ("/from", "soon".into(), "it is no whole incident"),
            ("/answers/0/stepSeconds", 0.into(), "too short"),
            ("/series/0/times", "1 2".into(), "it has 2 times and 1 values"),
            ("/series/0/values", "many".into(), "\"many\" is no number"),
            ("/series/0/values", "1x99999999999".into(), "more than 8000000 samples"),
            ("/series/0/values", "1x-1".into(), "is no number"),
        ] {
            let error = changed(field, value);
            assert!(error.contains(problem), "{field}: {error}");
        }
        assert!(format!("{:#}", Incident::parse("{").unwrap_err()).contains("not JSON"));
    }
}
