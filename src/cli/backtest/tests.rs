//! The real machine over histories whose end is known for every start.

use std::collections::BTreeMap;
use std::sync::Mutex;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::json;

use super::history::Answers;
use super::replay::{Run, replay};
use super::*;
use crate::api::analysis::AnalysisPhase::{self, Error, Failed, Inconclusive, Successful};
use crate::cli::in_process::{Question, When, respond};
use crate::providers::Shape;
use crate::providers::http::{HttpError, Request, Response, Transport};
use crate::sandbox::prometheus::{Prometheus, QueryError, RecordedSeries};

const MINUTE: i64 = 60;
/// The history begins here.
const EPOCH: i64 = 1_790_000_040;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(EPOCH + second).unwrap()
}

fn subject(metric: serde_json::Value) -> Subject {
    let template = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "AnalysisTemplate", "metadata": {"name": "tried"},
        "spec": {"metrics": [metric]},
    });
    // A folder of its own for each test's thread.
    let file = std::env::temp_dir().join(format!(
        "tidegate-backtest-{}-{:?}.json",
        std::process::id(),
        std::thread::current().id()
    ));
    std::fs::write(&file, template.to_string()).unwrap();
    let choice = Choice {
        files: vec![file.clone()],
        templates: vec![],
        arguments: vec![],
        namespace: None,
        asks: true,
        told_apart: false,
    };
    let subject = Subject::read(&choice);
    std::fs::remove_file(&file).unwrap();
    subject.unwrap()
}

/// A threshold on a query `good`, with other fields.
fn threshold(fields: serde_json::Value) -> Subject {
    let mut metric = json!({
        "name": "rate", "successCondition": "result[0] >= 0.95", "provider": {"prometheus": {"query": "good"}},
    });
    metric.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    subject(metric)
}

/// Every ten seconds for so many minutes what `value` says of the second.
fn history(minutes: i64, value: impl Fn(i64) -> Option<f64>) -> Arc<History> {
    let millis = |second: i64| (EPOCH + second) * 1000;
    let samples = (0..=minutes * 6).filter_map(|step| Some((millis(step * 10), value(step * 10)?)));
    let series = vec![RecordedSeries { labels: BTreeMap::new(), samples: samples.collect() }];
    let answers =
        Answers { shape: Shape::Vector, start: millis(0), end: millis(minutes * MINUTE), step: 10_000, series };
    Arc::new(History::new([("good".to_owned(), answers)].into(), Vec::new(), Coverage::default()))
}

fn runs(subject: &Subject, history: &Arc<History>, starts: impl Iterator<Item = i64>, minutes: i64) -> Vec<Run> {
    let starts: Vec<Timestamp> = starts.map(at).collect();
    replay(subject, history, &starts, SignedDuration::from_mins(minutes), &|_| {}).unwrap()
}

/// Bad from minute 100 to 110: of measurements each half minute after the first minute, the second bad one stops the run.
#[tokio::test]
async fn every_start_has_the_end_that_it_would_have_had() {
    let bad = |second: i64| (100 * MINUTE..110 * MINUTE).contains(&second);
    let history = history(240, |second| Some(if bad(second) { 0.5 } else { 1.0 }));
    let subject = threshold(json!({"initialDelay": "1m", "interval": "30s", "failureLimit": 1}));
    let runs = runs(&subject, &history, (0..200).map(|minute| minute * MINUTE), 30);
    assert_eq!(runs.len(), 200);
    for (run, start) in runs.iter().zip((0..200).map(|minute| minute * MINUTE)) {
        let measured = (0..).map(|number| start + MINUTE + number * 30).take_while(|time| *time <= start + 30 * MINUTE);
        let second_bad = measured.filter(|time| bad(*time)).nth(1);
        let (phase, end) = second_bad.map_or((Successful, start + 30 * MINUTE), |time| (Failed, time));
        assert_eq!((run.started, run.phase, run.ended), (at(start), phase, at(end)), "{start}");
        assert_eq!(run.cut_off, phase == Successful);
        if phase == Failed {
            let message = "Metric \"rate\" assessed Failed due to failed (2) > failureLimit (1)";
            assert_eq!((run.message.as_str(), run.metric.as_deref()), (message, Some("rate")));
        }
    }
}

#[tokio::test]
async fn odd_answers_end_runs_as_the_controller_would_end_them() {
    type Value = fn(i64) -> Option<f64>;
    let gap: Value = |second| (!(300..400).contains(&second)).then_some(1.0);
    let always: Value = |_| Some(1.0);
    for (what, fields, value, phase, ended) in [
        // Five errors in a row, ten seconds apart.
        ("nothing", json!({"interval": "1m"}), (|_| None) as Value, Error, 40),
        ("a gap of 100 s", json!({"interval": "1m"}), gap, Error, 340),
        ("a gap that is borne", json!({"interval": "1m", "consecutiveErrorLimit": 20}), gap, Successful, 600),
        ("NaN", json!({"interval": "1m"}), |_| Some(f64::NAN), Failed, 0),
        ("infinity", json!({"interval": "1m", "count": 3}), |_| Some(f64::INFINITY), Successful, 120),
        ("once", json!({"initialDelay": "90s"}), always, Successful, 90),
        ("three", json!({"interval": "20s", "count": 3}), always, Successful, 40),
        (
            "neither",
            json!({"interval": "1m", "failureCondition": "result[0] < 0.5", "inconclusiveLimit": 2}),
            |second| Some(if second < 120 { 1.0 } else { 0.7 }),
            Inconclusive,
            240,
        ),
        (
            "a query that is not known",
            json!({"provider": {"prometheus": {"query": "rate(other[1m])"}}}),
            always,
            Error,
            40,
        ),
    ] {
        let run = runs(&threshold(fields), &history(20, value), std::iter::once(0), 10).remove(0);
        assert_eq!((run.phase, run.ended), (phase, at(ended)), "{what}: {}", run.message);
    }
}

/// Canary and stable, scraped every 15 s; from minute 60 to 90 the canary fails one request in five.
fn counters() -> Vec<RecordedSeries> {
    // What a scrape counts has happened before it.
    let bad = |second: i64| (60 * MINUTE + 1..=90 * MINUTE).contains(&second);
    let series = |version: &str, code: &str, growth: &dyn Fn(i64) -> f64| {
        let labels = [("__name__", "hits"), ("version", version), ("code", code)];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut value = 0.0;
        let samples = (-90 * 4..180 * 4).map(|number: i64| {
            value += growth(number * 15);
            ((EPOCH + number * 15) * 1000, value)
        });
        RecordedSeries { labels: labels.into(), samples: samples.collect() }
    };
    vec![
        series("stable", "200", &|_| 900.0),
        series("stable", "500", &|second| f64::from(u8::from(second % 60 == 0))),
        series("canary", "200", &|second| if bad(second) { 80.0 } else { 100.0 }),
        series("canary", "500", &|second| if bad(second) { 20.0 } else { f64::from(u8::from(second % 600 == 0)) }),
    ]
}

#[tokio::test]
async fn the_judge_sees_in_the_past_what_it_would_have_seen() {
    let of = |version: &str| {
        json!({
            "total": format!("hits{{version=\"{version}\"}}"),
            "errors": format!("hits{{version=\"{version}\",code=~\"5..\"}}"),
        })
    };
    let compare = json!({"canary": of("canary"), "stable": of("stable"), "horizon": "20m", "dispersion": 1});
    let subject = subject(json!({"name": "errors", "compare": compare}));
    let selectors = widest(subject.counters());
    assert_eq!(selectors.len(), 2, "{selectors:?}");
    let coverage = Coverage { selectors, from: (EPOCH - 90 * MINUTE) * 1000, to: (EPOCH + 180 * MINUTE) * 1000 };
    let history = Arc::new(History::new(BTreeMap::new(), counters(), coverage));
    subject.answerable(&history, at(0)).unwrap();
    let runs = runs(&subject, &history, (0..26).map(|number| number * 5 * MINUTE), 22);
    for run in &runs {
        let start = run.started.as_second() - EPOCH;
        // It looks ten seconds after each full minute; the first is not judged.
        let sees = |minute: i64| (60 * MINUTE..90 * MINUTE).contains(&(minute - MINUTE));
        let looks = (2..=21).map(|number| start + number * MINUTE);
        let first = looks.into_iter().find(|end| sees(*end));
        match first {
            Some(end) => assert_eq!((run.phase, run.ended), (Failed, at(end + 10)), "{start}: {}", run.message),
            None => assert_eq!(
                (run.phase, run.ended),
                (Successful, at(start + 21 * MINUTE + 10)),
                "{start}: {}",
                run.message
            ),
        }
    }
    assert!(
        runs[12].message.contains("canary") && runs[12].metric.as_deref() == Some("errors"),
        "{}",
        runs[12].message
    );
}

/// A Prometheus that answers from series, as long as it is not asked for too much.
struct Server {
    prometheus: Prometheus,
    /// Values or seconds in one answer.
    most: i64,
    /// Requests that are turned away before the first that is answered.
    busy: Mutex<usize>,
    asked: Mutex<Vec<i64>>,
}

impl Transport for Server {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, HttpError>> {
        let mut busy = self.busy.lock().unwrap();
        if *busy > 0 {
            *busy -= 1;
            return async { Ok(Response { status: 503, body: "starting".into() }) }.boxed();
        }
        let Question { query, when } = Question::of(&request);
        let size = match when {
            When::At(_) => {
                let range = query.split(['[', ']']).nth(1).and_then(|it| it.strip_suffix("ms")?.parse::<i64>().ok());
                range.map_or(1, |millis| millis / 1000)
            }
            When::Between { start, end, step } => {
                end.unwrap().duration_since(start.unwrap()).as_secs() / step.as_secs() as i64 + 1
            }
        };
        self.asked.lock().unwrap().push(size);
        let answer = match when {
            _ if size > self.most => {
                let message = "query processing would load too many samples into memory in query execution".to_owned();
                Err(QueryError { kind: "execution", message })
            }
            When::At(at) => self.prometheus.query(&query, at.unwrap()),
            When::Between { start, end, step } => {
                self.prometheus.query_range(&query, start.unwrap(), end.unwrap(), step)
            }
        };
        async move { Ok(respond(answer)) }.boxed()
    }
}

fn server(most: i64, busy: usize) -> (Arc<Server>, Past) {
    let server =
        Server { prometheus: Prometheus::recorded(counters()), most, busy: Mutex::new(busy), asked: Mutex::default() };
    let server = Arc::new(server);
    let providers = Providers::new(server.clone(), JobTarget::nowhere(), Clock::system(), Some("http://p".to_owned()));
    (server, Past::new(providers, Settings::default()))
}

fn wants() -> Vec<Want> {
    let (from, to) = (EPOCH * 1000, (EPOCH + 120 * MINUTE) * 1000);
    let values = |query: &str| Want::Values { query: query.to_owned(), from, to, step: 10_000 };
    vec![
        values("sum(rate(hits{code='200'}[1m]))"),
        values("scalar(sum(hits))"),
        Want::Samples { selector: "hits{code='500'}".to_owned(), from, to },
    ]
}

#[tokio::test(start_paused = true)]
async fn what_is_too_much_at_once_is_read_in_parts() {
    let mut read = Vec::new();
    for (most, busy) in [(10_000, 0), (300, 3)] {
        let (server, past) = server(most, busy);
        let progress = Mutex::new(0.0);
        let fetched = fetch(&past, &wants(), &|share| *progress.lock().unwrap() = share).await.unwrap();
        assert!((*progress.lock().unwrap() - 1.0).abs() < 1e-9);
        let asked = server.asked.lock().unwrap().clone();
        assert!(asked.iter().filter(|size| **size > most).count() <= 15, "{asked:?}");
        read.push((fetched.answers, fetched.series));
        let requests = asked.len() + busy;
        assert_eq!(fetched.requests, requests);
        assert!(if most == 10_000 { requests == 5 } else { requests > 10 }, "{asked:?}");
    }
    assert_eq!(read[0], read[1]);
    let (answers, series) = &read[0];
    assert_eq!(answers["scalar(sum(hits))"].shape, Shape::Scalar);
    assert_eq!(answers["sum(rate(hits{code='200'}[1m]))"].series[0].samples.len(), 721);
    assert_eq!((series.len(), series[0].samples.len()), (2, 480));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_told_with_its_query() {
    let values =
        |query: &str| Want::Values { query: query.to_owned(), from: EPOCH * 1000, to: EPOCH * 1000, step: 10_000 };
    for (most, busy, query, problem) in [
        (10_000, 0, "hits[5m]", "hits[5m] yields a range of samples"),
        (10_000, 0, "'text'", "'text' yields a text"),
        (10_000, 0, "sum(rate(", "asking for sum(rate(: bad_data: invalid parameter"),
        (10_000, 9, "sum(hits)", "asking for sum(hits): server_error: server error: 503"),
        (0, 0, "sum(hits)", "asking for sum(hits): execution: query processing would load too many samples"),
    ] {
        let (_, past) = server(most, busy);
        let error = fetch(&past, &[values(query)], &|_| {}).await.unwrap_err();
        assert!(format!("{error:#}").contains(problem), "{query}: {error:#}");
    }
}

#[test]
fn a_course_lies_on_the_beat_of_its_measurements() {
    let window = Window { from: at(0), to: at(120 * MINUTE) };
    let subjects = [threshold(json!({"initialDelay": "1m", "interval": "45s", "count": 5}))];
    let course = |every: u64, step: Option<u64>, duration: Option<u64>, known: &[Window]| {
        let seconds = |seconds: u64| Duration::from_secs(seconds);
        Course::new(&subjects, window, seconds(every), step.map(seconds), duration.map(seconds), known)
    };
    let plain = course(300, None, None, &[]).unwrap();
    assert_eq!((plain.step, plain.exact, plain.starts.len()), (5000, true, 23));
    assert_eq!(plain.lasts, [SignedDuration::from_secs(60 + 4 * 45 + 120)]);
    let coarse = course(300, Some(30), Some(60), &[]).unwrap();
    assert_eq!((coarse.exact, coarse.notes.len(), coarse.starts.len()), (false, 1, 24));
    assert!(!course(7, None, None, &[]).unwrap().exact);
    for (every, duration, known, problem) in [
        (0, None, vec![], "--every is at least 1s"),
        (300, Some(7201), vec![], "is shorter than a run"),
        (300, None, vec![Window { from: at(7200), to: at(7300) }], "is not between --from and --to"),
    ] {
        let error = course(every, None, duration, &known).err().unwrap().to_string();
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn what_ends_well_is_told_as_what_does_not() {
    let phases: [AnalysisPhase; 4] = [Successful, Failed, Error, Inconclusive];
    let run = |number: i64| Run {
        started: at(number * 300),
        ended: at(number * 300 + 100),
        phase: phases[if number < 40 { 0 } else { (number as usize - 40) % 4 }],
        message: "why".to_owned(),
        metric: None,
        cut_off: false,
    };
    let runs: Vec<Run> = (0..80).map(run).collect();
    let known = [Window { from: at(76 * 300), to: at(79 * 300) }];
    let every = SignedDuration::from_secs(300);
    let subject = threshold(json!({"count": 3, "interval": "30s"}));
    let tested = score::score(&subject, &runs, &known, every, every);
    let report = Report {
        version: 1,
        from: at(0),
        to: at(80 * 300),
        every_seconds: 300.0,
        step_seconds: 5.0,
        exact: true,
        incidents: known.to_vec(),
        requests: 7,
        notes: vec!["something".to_owned()],
        tested: vec![tested.clone(), tested],
    };
    assert!(!report.missed() && (report.false_alarms() - 18.0 / 77.0).abs() < 1e-9);
    let plain = text::text(&report, false);
    let colored = text::text(&report, true);
    let pattern = regex::Regex::new("\x1b\\[[0-9]+m").unwrap();
    assert_eq!(pattern.replace_all(&colored, ""), plain);
    for expected in ["stopped, of quiet time", "detected", "and 4 more", "incidents", "held", "note      something"] {
        assert!(plain.contains(expected), "{expected} is not in\n{plain}");
    }
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["tested"][0]["runs"][41]["phase"], "Failed");
    assert_eq!(json["tested"][0]["incidents"][0]["firstSeconds"], 400.0);
}
