//! Reading the past of a Prometheus: few requests, two at a time, each within its limits, and gently.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use futures::StreamExt as _;
use jiff::Timestamp;

use super::history::Answers;
use crate::providers::{Past, PastError, Shape, Whole};
use crate::sandbox::prometheus::RecordedSeries;

/// Requests under way at once.
const AT_ONCE: usize = 2;
/// Values of a series in one answer. Prometheus allows 11,000.
const MOST_POINTS: i64 = 10_000;
/// Samples of this stretch in one answer, in milliseconds, if they fit.
const LONGEST: i64 = 86_400_000;
/// It gets no shorter than this.
const SHORTEST: i64 = 60_000;
/// Samples that are held in memory: 16 bytes each.
const MOST_SAMPLES: usize = 40_000_000;
/// How long to wait before asking again. Whoever is not there after the last is taken to be away.
const PATIENCE: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8)];

/// Something that is to be read. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq)]
pub enum Want {
    /// The values of a query, at `from` and each step on.
    Values { query: String, from: i64, to: i64, step: i64 },
    /// The samples of series.
    Samples { selector: String, from: i64, to: i64 },
}

/// What was read.
#[derive(Debug, Default)]
pub struct Fetched {
    pub answers: BTreeMap<String, Answers>,
    pub series: Vec<RecordedSeries>,
    pub notes: Vec<String>,
    pub requests: usize,
}

/// Reads all. `progress` is told which part of it has been read.
///
/// # Errors
/// Prometheus refuses a query, stays away, or has more than can be held in memory.
pub async fn fetch(past: &Past, wants: &[Want], progress: &(dyn Fn(f64) + Sync)) -> anyhow::Result<Fetched> {
    let reader = Reader {
        past,
        total: wants.iter().map(Want::length).sum::<i64>().max(1),
        read: AtomicI64::new(0),
        requests: AtomicUsize::new(0),
        samples: AtomicUsize::new(0),
        fits: wants.iter().map(|_| AtomicI64::new(i64::MAX)).collect(),
        warnings: Mutex::default(),
        progress,
    };
    let mut shapes = Vec::new();
    for want in wants {
        shapes.push(reader.shape(want).await?);
    }
    let parts =
        wants.iter().enumerate().flat_map(|(index, want)| want.parts(want.most()).map(move |part| (index, part)));
    let parts: Vec<(usize, Want)> = parts.collect();
    let mut reading = futures::stream::iter(parts.into_iter().map(|(index, part)| {
        let reader = &reader;
        async move { (index, reader.part(index, part).await) }
    }))
    .buffer_unordered(AT_ONCE);
    let mut found: Vec<Vec<Whole>> = wants.iter().map(|_| Vec::new()).collect();
    while let Some((index, read)) = reading.next().await {
        found[index].extend(read.with_context(|| format!("asking for {}", wants[index].text()))?);
    }
    drop(reading);
    let mut fetched = Fetched { requests: reader.requests.into_inner(), ..Fetched::default() };
    for ((want, shape), found) in wants.iter().zip(shapes).zip(found) {
        match want {
            Want::Values { query, from, to, step } => {
                let answers = Answers { shape, start: *from, end: *to, step: *step, series: joined(found) };
                fetched.answers.insert(query.clone(), answers);
            }
            Want::Samples { .. } => fetched.series.extend(joined(found)),
        }
    }
    fetched.notes = reader.warnings.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(fetched)
}

/// The parts of series put together, in the order of time.
fn joined(found: Vec<Whole>) -> Vec<RecordedSeries> {
    let mut series: BTreeMap<BTreeMap<String, String>, Vec<(i64, f64)>> = BTreeMap::new();
    for Whole { labels, samples } in found {
        series.entry(labels).or_default().extend(samples);
    }
    let sorted = series.into_iter().map(|(labels, mut samples)| {
        samples.sort_by_key(|(at, _)| *at);
        // Both ends of a range belong to it before Prometheus 3.
        samples.dedup_by_key(|(at, _)| *at);
        RecordedSeries { labels, samples }
    });
    sorted.collect()
}

struct Reader<'a> {
    past: &'a Past,
    /// Milliseconds of all wants together.
    total: i64,
    read: AtomicI64,
    requests: AtomicUsize,
    samples: AtomicUsize,
    /// For each want, the longest stretch that may fit into an answer.
    fits: Vec<AtomicI64>,
    warnings: Mutex<Vec<String>>,
    progress: &'a (dyn Fn(f64) + Sync),
}

impl Reader<'_> {
    async fn shape(&self, want: &Want) -> anyhow::Result<Shape> {
        let Want::Values { query, to, .. } = want else { return Ok(Shape::Matrix) };
        let asked = self.patiently(|| self.past.shape(query, instant(*to))).await;
        match asked.with_context(|| format!("asking for {}", want.text()))? {
            shape @ (Shape::Scalar | Shape::Vector) => Ok(shape),
            Shape::Matrix => bail!("{} yields a range of samples, which cannot be tried", want.text()),
            Shape::Text => bail!("{} yields a text, which no condition can judge", want.text()),
        }
    }

    /// Reads a part, in smaller ones if it is too much at once.
    async fn part(&self, index: usize, part: Want) -> anyhow::Result<Vec<Whole>> {
        let mut found = Vec::new();
        // The next one last.
        let mut open = vec![part];
        while let Some(part) = open.pop() {
            let fits = self.fits[index].load(Ordering::Relaxed);
            if part.length() > fits && part.shortest() < part.length() {
                let parts: Vec<Want> = part.parts(fits.max(part.shortest())).collect();
                open.extend(parts.into_iter().rev());
                continue;
            }
            match self.patiently(|| self.once(&part)).await {
                Ok((series, warning)) => {
                    let samples: usize = series.iter().map(|series| series.samples.len()).sum();
                    if self.samples.fetch_add(samples, Ordering::Relaxed) + samples > MOST_SAMPLES {
                        bail!("there are more than {MOST_SAMPLES} samples: try a shorter time, or fewer series");
                    }
                    if let Some(warning) = warning {
                        self.warn(warning);
                    }
                    found.extend(series);
                    let read = self.read.fetch_add(part.length(), Ordering::Relaxed) + part.length();
                    (self.progress)(read as f64 / self.total as f64);
                }
                Err(PastError::TooMuch(_)) if part.length() > part.shortest() => {
                    let half = (part.length() / 2).max(part.shortest());
                    self.fits[index].fetch_min(half, Ordering::Relaxed);
                    open.push(part);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(found)
    }

    async fn once(&self, part: &Want) -> Result<(Vec<Whole>, Option<String>), PastError> {
        match part {
            Want::Values { query, from, to, step } => {
                self.past.values(query, instant(*from), instant(*to), *step).await
            }
            Want::Samples { selector, from, to } => self.past.samples(selector, (to - from).max(1), instant(*to)).await,
        }
    }

    /// Asks again, ever later, while nobody is there.
    async fn patiently<T, F: Future<Output = Result<T, PastError>>>(
        &self,
        ask: impl Fn() -> F,
    ) -> Result<T, PastError> {
        for pause in PATIENCE {
            self.requests.fetch_add(1, Ordering::Relaxed);
            match ask().await {
                Err(PastError::Later(_)) => tokio::time::sleep(pause).await,
                answer => return answer,
            }
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        ask().await
    }

    fn warn(&self, warning: String) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        let note = format!("Prometheus warns: {warning}");
        if warnings.len() < 10 && !warnings.contains(&note) {
            warnings.push(note);
        }
    }
}

impl Want {
    fn text(&self) -> &str {
        match self {
            Self::Values { query: text, .. } | Self::Samples { selector: text, .. } => text,
        }
    }

    /// Milliseconds.
    fn length(&self) -> i64 {
        match self {
            // The first value is worth a step, too.
            Self::Values { from, to, step, .. } => to - from + step,
            Self::Samples { from, to, .. } => to - from,
        }
    }

    /// What is asked for at once, at most.
    fn most(&self) -> i64 {
        match self {
            Self::Values { step, .. } => step.saturating_mul(MOST_POINTS),
            Self::Samples { .. } => LONGEST,
        }
    }

    /// What is asked for at once, at least.
    fn shortest(&self) -> i64 {
        match self {
            Self::Values { step, .. } => *step,
            Self::Samples { .. } => SHORTEST,
        }
    }

    /// Parts of at most that length, which make up the whole.
    fn parts(&self, most: i64) -> impl Iterator<Item = Want> + use<> {
        let whole = self.clone();
        // Values are apart by whole steps.
        let most = (most - most % self.shortest().min(most)).max(1);
        let count = (self.length().max(1) - 1) / most + 1;
        (0..count).map(move |number| match &whole {
            Self::Values { query, from, to, step } => {
                let from = from + number * most;
                Self::Values { query: query.clone(), from, to: (*to).min(from + most - step), step: *step }
            }
            Self::Samples { selector, from, to } => {
                let from = from + number * most;
                Self::Samples { selector: selector.clone(), from, to: (*to).min(from + most) }
            }
        })
    }
}

fn instant(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_up_the_whole() {
        let values = |from, to| Want::Values { query: "up".to_owned(), from, to, step: 10 };
        let samples = |from, to| Want::Samples { selector: "up".to_owned(), from, to };
        let parts = |want: Want, most| want.parts(most).collect::<Vec<_>>();
        assert_eq!(parts(values(0, 95), 40), [values(0, 30), values(40, 70), values(80, 95)]);
        assert_eq!(parts(values(0, 95), 47), parts(values(0, 95), 40));
        assert_eq!(parts(values(5, 5), 100), [values(5, 5)]);
        let long = parts(samples(0, 200_000), 60_000);
        assert_eq!(
            long,
            [samples(0, 60_000), samples(60_000, 120_000), samples(120_000, 180_000), samples(180_000, 200_000)]
        );
        // Everything together is as long as the whole.
        assert_eq!(parts(values(0, 95), 40).iter().map(Want::length).sum::<i64>(), values(0, 95).length());
    }
}
