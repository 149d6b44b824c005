//! A steady load of real requests, and what became of each: the figures that are measured from outside.
//!
//! The load is open: request *n* is due at *n* / rate after the start, whether the earlier ones have been answered or not,
//! and its latency counts from when it was due. So a server that stalls is seen as it would be by its users.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use tidegate::clock::Clock;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::http::Http;
use crate::pod::VERSION_HEADER;

/// What is sent.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The URL of every request.
    pub url: String,
    /// The Host header, by which a gateway finds the route.
    pub host: String,
    /// Requests a second.
    pub rate: f64,
    /// A request without an answer after this time has failed.
    pub timeout: Duration,
}

/// What became of one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// When it was due, since the start of the load.
    pub due: Duration,
    /// From when it was due to the end of the answer.
    pub latency: Duration,
    /// The status of the answer; `None` if there was no answer at all.
    pub status: Option<u16>,
    /// The version that answered, if it was a pod that did.
    pub version: Option<Arc<str>>,
}

impl Record {
    /// Whether the answer's status was below 500. (A gateway that knows no such route says 404, which is a failure too.)
    pub fn is_ok(&self) -> bool {
        self.status.is_some_and(|status| status < 500 && status != 404)
    }
}

/// Requests, counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    pub sent: usize,
    pub ok: usize,
    pub failed: usize,
    /// The latencies of all, in ascending order.
    pub latencies: Vec<Duration>,
}

/// The requests of a stretch of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    pub all: Counts,
    /// By the version that answered. Requests that no pod answered are under `""`.
    pub versions: BTreeMap<String, Counts>,
}

/// A running load. Dropping it stops it.
#[derive(Debug)]
pub struct Load {
    started: Instant,
    started_at: Timestamp,
    records: Arc<Mutex<Vec<Record>>>,
    sender: JoinSet<()>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Load {
    /// Starts to send, at once.
    pub fn start(options: LoadOptions) -> Self {
        let records = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let started = Instant::now();
        let mut sender = JoinSet::new();
        sender.spawn(send(options, started, records.clone(), stopped));
        Self { started, started_at: Clock::system().now(), records, sender, stop: Some(stop) }
    }

    /// The time since the start, which is what [`Record::due`] counts in.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The time of day of the start.
    pub fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// Every request that has ended so far, in the order in which they ended.
    pub fn records(&self) -> Vec<Record> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The requests that were due in a stretch of time and have ended.
    pub fn summary(&self, due: Range<Duration>) -> Summary {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        summarize(records.iter().filter(|record| due.contains(&record.due)))
    }

    /// A summary of each second, the present one included.
    pub fn seconds(&self) -> Vec<Summary> {
        let mut seconds: Vec<Vec<Record>> = Vec::new();
        for record in self.records() {
            // As many seconds as a program runs fit into memory.
            let second = usize::try_from(record.due.as_secs()).unwrap_or(usize::MAX);
            if seconds.len() <= second {
                seconds.resize_with(second + 1, Vec::new);
            }
            seconds[second].push(record);
        }
        seconds.iter().map(summarize).collect()
    }

    /// Stops to send, waits for the answers that are due, and answers every request's record.
    ///
    /// # Errors
    /// A task of the load panicked.
    pub async fn stop(mut self) -> Result<Vec<Record>> {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        while let Some(ended) = self.sender.join_next().await {
            ended?;
        }
        Ok(self.records())
    }
}

/// Counts some requests.
pub fn summarize<'a>(records: impl IntoIterator<Item = &'a Record>) -> Summary {
    let mut summary = Summary::default();
    for record in records {
        let version = record.version.as_deref().unwrap_or_default().to_owned();
        for counts in [&mut summary.all, summary.versions.entry(version).or_default()] {
            counts.sent += 1;
            counts.ok += usize::from(record.is_ok());
            counts.failed += usize::from(!record.is_ok());
            counts.latencies.push(record.latency);
        }
    }
    for counts in summary.versions.values_mut().chain([&mut summary.all]) {
        counts.latencies.sort_unstable();
    }
    summary
}

impl Counts {
    /// The latency that the given share (0 to 1) of the requests did not exceed; zero if there were none.
    pub fn latency(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        // Both are small and not negative.
        let index = (share.clamp(0.0, 1.0) * last as f64).round() as usize;
        self.latencies.get(index).copied().unwrap_or_default()
    }
}

async fn send(
    options: LoadOptions,
    started: Instant,
    records: Arc<Mutex<Vec<Record>>>,
    mut stop: tokio::sync::oneshot::Receiver<()>,
) {
    let http = Http::default();
    let options = Arc::new(options);
    let mut requests = JoinSet::new();
    // One version is one allocation.
    let mut versions: BTreeMap<String, Arc<str>> = BTreeMap::new();
    let mut sent = 0_u32;
    // Kept apart from the schedule, so that ended requests are taken in even when none is due.
    let mut collect = interval(Duration::from_millis(20));
    collect.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let due = Duration::from_secs_f64(f64::from(sent) / options.rate);
        tokio::select! {
            biased;
            _ = &mut stop => break,
            () = sleep_until(started + due) => {
                requests.spawn(request(http.clone(), options.clone(), started, due));
                sent += 1;
            }
            _ = collect.tick() => {}
        }
        while let Some(Ok(record)) = requests.try_join_next() {
            keep(&records, &mut versions, record);
        }
    }
    while let Some(ended) = requests.join_next().await {
        if let Ok(record) = ended {
            keep(&records, &mut versions, record);
        }
    }
}

async fn request(http: Http, options: Arc<LoadOptions>, started: Instant, due: Duration) -> (Record, Option<String>) {
    let answer = http.get(&options.url, Some(&options.host), options.timeout).await;
    let latency = started.elapsed().saturating_sub(due);
    let (status, version) = match answer {
        Ok(answer) => {
            let version = answer.headers().get(VERSION_HEADER).and_then(|value| value.to_str().ok());
            (Some(answer.status().as_u16()), version.map(str::to_owned))
        }
        Err(_) => (None, None),
    };
    (Record { due, latency, status, version: None }, version)
}

fn keep(
    records: &Mutex<Vec<Record>>,
    versions: &mut BTreeMap<String, Arc<str>>,
    (mut record, version): (Record, Option<String>),
) {
    record.version =
        version.map(|version| versions.entry(version).or_insert_with_key(|version| version.as_str().into()).clone());
    records.lock().unwrap_or_else(PoisonError::into_inner).push(record);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_version() {
        let record = |status, version: Option<&str>, milliseconds| Record {
            due: Duration::ZERO,
            latency: Duration::from_millis(milliseconds),
            status,
            version: version.map(Arc::from),
        };
        let records = [
            record(Some(200), Some("blue"), 3),
            record(Some(500), Some("green"), 2),
            record(Some(200), Some("blue"), 1),
            record(None, None, 9),
        ];
        let summary = summarize(&records);
        assert_eq!((summary.all.sent, summary.all.ok, summary.all.failed), (4, 2, 2));
        assert_eq!(summary.versions["green"].failed, 1);
        assert_eq!(summary.versions["blue"].latencies, [1, 3].map(Duration::from_millis));
        assert_eq!(summary.versions[""].sent, 1);
        assert_eq!(summary.all.latency(1.0), Duration::from_millis(9));
        assert_eq!(Counts::default().latency(0.5), Duration::ZERO);
    }
}
