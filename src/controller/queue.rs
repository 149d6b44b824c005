//! The work queue: which objects are to be decided about, and when.
//!
//! An object is in it once, however many events name it, and is never handed out twice at a time: what comes in while it
//! is being decided makes it due again afterwards. Failures delay an object, and only that one; an event from outside
//! (a user's abort) cuts the delay short.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::api::resource::ObjectRef;

use super::telemetry::QueueCounts;

/// What the queues are called in metrics: as Argo Rollouts calls them.
pub const ROLLOUTS: &str = "Rollouts";
pub const ANALYSIS_RUNS: &str = "AnalysisRuns";
pub const EXPERIMENTS: &str = "Experiments";

/// The first delay after a failure. Short, since most failures are passing ones (a webhook that restarts, an object of
/// the user's that is applied a moment later).
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// No object is left alone for longer: who repairs the cause sees the effect within a minute, and an object that cannot
/// be helped costs one decision a minute.
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// The same where users wait to be safe.
const LONGEST_URGENT_DELAY: Duration = Duration::from_secs(5);

/// A queue of objects, shared by all who add and all who work.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    counts: QueueCounts,
    /// One permit for each object that has become due.
    due: Notify,
}

/// When a worker that has decided about an object wants to see it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// When something happens to it.
    Idle,
    /// At this time, if nothing happens before.
    At(Instant),
    /// Likewise, but the decision has not been made yet: earlier failures still count.
    Wait(Instant),
    /// Something failed: after a delay that doubles with each failure in a row.
    Retry,
    /// Likewise, but soon: an abort has not been carried out.
    RetrySoon,
}

impl Next {
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Retry | Self::RetrySoon)
    }
}

/// How busy a queue is at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Objects that are due, those that are being decided and became due again included.
    pub waiting: usize,
    /// For how long the running decisions have been running, together.
    pub unfinished: Duration,
    /// For how long the longest of them.
    pub longest: Duration,
}

#[derive(Debug)]
struct State {
    ready: VecDeque<ObjectRef>,
    timers: BTreeSet<(Instant, ObjectRef)>,
    items: BTreeMap<ObjectRef, Item>,
    random: fastrand::Rng,
}

#[derive(Debug, Default)]
struct Item {
    ready: bool,
    /// It was added while it was running.
    again: bool,
    /// Since when it has been due.
    due_since: Option<Instant>,
    /// Since when it has been decided about.
    running_since: Option<Instant>,
    timer: Option<Instant>,
    /// The timer is the delay after a failure.
    delayed: bool,
    /// Something has happened before that delay was over: a failure now says nothing about how long to wait.
    early: bool,
    /// The timer is the longest that it waits before it can be decided about.
    waits: bool,
    /// In a row.
    failures: u32,
}

impl Queue {
    /// An empty queue; `seed` determines the jitter.
    pub fn new(seed: u64, counts: QueueCounts) -> Self {
        let state = State {
            ready: VecDeque::new(),
            timers: BTreeSet::new(),
            items: BTreeMap::new(),
            random: fastrand::Rng::with_seed(seed),
        };
        Self { state: Mutex::new(state), counts, due: Notify::new() }
    }

    /// Something has happened that concerns the object: it is due now.
    pub fn add(&self, object: &ObjectRef) {
        if self.state().add(object, &self.counts) {
            self.due.notify_one();
        }
    }

    /// A write of ours has been seen. Like [`Queue::add`], but it does not cut short the delay after a failure: else an
    /// object whose status we write at each failure would drive itself.
    pub fn add_own(&self, object: &ObjectRef) {
        let mut state = self.state();
        if !state.items.get(object).is_some_and(|item| item.delayed) && state.add(object, &self.counts) {
            self.due.notify_one();
        }
    }

    /// Something has been seen that is no reason to decide, and for which a decision may be waiting.
    pub fn add_if_waiting(&self, object: &ObjectRef) {
        let mut state = self.state();
        let waits = state.items.get(object).is_some_and(|item| item.waits || item.running_since.is_some());
        if waits && state.add(object, &self.counts) {
            self.due.notify_one();
        }
    }

    /// The next object that is due; waits for it. It is not handed out again before [`Queue::done`].
    pub async fn next(&self) -> ObjectRef {
        loop {
            let timer = {
                let mut state = self.state();
                let more = state.promote(Instant::now(), &self.counts);
                if let Some(object) = state.take(&self.counts) {
                    // Another worker may be needed for the rest.
                    if more || !state.ready.is_empty() {
                        self.due.notify_one();
                    }
                    return object;
                }
                state.timers.first().map(|(at, _)| *at)
            };
            let notified = self.due.notified();
            match timer {
                Some(at) => {
                    tokio::select! {
                        biased;
                        () = notified => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => notified.await,
            }
        }
    }

    /// An object that was handed out has been decided about.
    pub fn done(&self, object: &ObjectRef, next: Next) {
        self.state().done(object, next, &self.counts);
        // Whoever waits looks at the timers again.
        self.due.notify_one();
    }

    /// Forgets an object that is no more.
    pub fn forget(&self, object: &ObjectRef) {
        let mut state = self.state();
        if let Some(timer) = state.items.get_mut(object).and_then(|item| item.timer.take()) {
            state.timers.remove(&(timer, object.clone()));
        }
        if state.items.get(object).is_some_and(|item| !item.ready && item.running_since.is_none()) {
            state.items.remove(object);
        }
    }

    /// How much waits for a worker, and what the workers are at.
    pub fn load(&self) -> Load {
        let state = self.state();
        let running = || state.items.values().filter_map(|item| item.running_since).map(|since| since.elapsed());
        Load {
            waiting: state.items.values().filter(|item| item.due_since.is_some()).count(),
            unfinished: running().sum(),
            longest: running().max().unwrap_or_default(),
        }
    }

    /// What has been counted since the start.
    pub fn counts(&self) -> &QueueCounts {
        &self.counts
    }

    /// How many times in a row the object has failed.
    pub fn failures(&self, object: &ObjectRef) -> u32 {
        self.state().items.get(object).map_or(0, |item| item.failures)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, and if something did, the state would still be consistent enough.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether a worker is needed for it.
    fn add(&mut self, object: &ObjectRef, counts: &QueueCounts) -> bool {
        let item = self.items.entry(object.clone()).or_default();
        if let Some(timer) = item.timer.take() {
            self.timers.remove(&(timer, object.clone()));
        }
        item.early |= std::mem::take(&mut item.delayed);
        item.waits = false;
        if item.due_since.is_none() {
            item.due_since = Some(Instant::now());
            counts.adds.inc();
        }
        if item.running_since.is_some() {
            item.again = true;
            return false;
        }
        if std::mem::replace(&mut item.ready, true) {
            return false;
        }
        self.ready.push_back(object.clone());
        true
    }

    /// Makes everything due whose time has come; whether that was anything.
    fn promote(&mut self, now: Instant, counts: &QueueCounts) -> bool {
        let mut any = false;
        while self.timers.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, object)) = self.timers.pop_first() {
                if let Some(item) = self.items.get_mut(&object) {
                    item.delayed = false;
                }
                any |= self.add(&object, counts);
            }
        }
        any
    }

    fn take(&mut self, counts: &QueueCounts) -> Option<ObjectRef> {
        let object = self.ready.pop_front()?;
        let item = self.items.entry(object.clone()).or_default();
        item.ready = false;
        item.running_since = Some(Instant::now());
        if let Some(since) = item.due_since.take() {
            counts.waited.observe(since.elapsed().as_secs_f64());
        }
        Some(object)
    }

    fn done(&mut self, object: &ObjectRef, next: Next, counts: &QueueCounts) {
        let Some(item) = self.items.get_mut(object) else { return };
        if let Some(since) = item.running_since.take() {
            counts.worked.observe(since.elapsed().as_secs_f64());
        }
        let failed = next.is_failure();
        if failed {
            counts.retries.inc();
        }
        let early = std::mem::take(&mut item.early);
        item.failures = match next {
            Next::Idle | Next::At(_) => 0,
            Next::Wait(_) => item.failures,
            Next::Retry | Next::RetrySoon if early => item.failures.max(1),
            Next::Retry | Next::RetrySoon => item.failures.saturating_add(1),
        };
        if std::mem::take(&mut item.again) {
            item.early = failed;
            self.add(object, counts);
            return;
        }
        let at = match next {
            Next::Idle => {
                self.items.remove(object);
                return;
            }
            Next::At(at) => at,
            Next::Wait(at) => {
                item.waits = true;
                at
            }
            Next::Retry | Next::RetrySoon => {
                item.delayed = true;
                let doublings = (item.failures - 1).min(16);
                let longest = if next == Next::RetrySoon { LONGEST_URGENT_DELAY } else { LONGEST_DELAY };
                let delay = longest.min(FIRST_DELAY * 2_u32.pow(doublings));
                // Between half and all of it, so that objects that failed together do not come back together.
                Instant::now() + delay.mul_f64(0.5 + self.random.f64() / 2.0)
            }
        };
        item.timer = Some(at);
        self.timers.insert((at, object.clone()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::api::resource::ROLLOUT;

    use super::super::telemetry::Telemetry;
    use super::*;

    fn object(name: &str) -> ObjectRef {
        ObjectRef::new(ROLLOUT, "shop", name)
    }

    fn queue(seed: u64) -> Queue {
        Queue::new(seed, Telemetry::new().queue("Rollouts"))
    }

    async fn next(queue: &Queue, within: Duration) -> Option<String> {
        tokio::time::timeout(within, queue.next()).await.ok().map(|object| object.name)
    }

    const SOON: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn an_object_is_queued_once_and_decided_once_at_a_time() {
        let queue = queue(1);
        for name in ["a", "b", "a"] {
            queue.add(&object(name));
        }
        assert_eq!(queue.load().waiting, 2);
        assert_eq!(next(&queue, SOON).await.as_deref(), Some("a"));
        queue.add(&object("a"));
        assert_eq!(next(&queue, SOON).await.as_deref(), Some("b"));
        assert_eq!(next(&queue, SOON).await, None, "a is still being decided");
        queue.done(&object("a"), Next::Idle);
        assert_eq!(next(&queue, SOON).await.as_deref(), Some("a"), "it was added meanwhile");
        queue.done(&object("a"), Next::Idle);
        assert_eq!(next(&queue, SOON).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wake_up_comes_at_its_time_and_only_once() {
        let queue = queue(1);
        queue.add(&object("a"));
        next(&queue, SOON).await;
        queue.done(&object("a"), Next::At(Instant::now() + Duration::from_secs(30)));
        assert_eq!(next(&queue, Duration::from_secs(29)).await, None);
        assert_eq!(next(&queue, Duration::from_secs(2)).await.as_deref(), Some("a"));
        queue.done(&object("a"), Next::At(Instant::now() + Duration::from_secs(30)));
        queue.add(&object("a"));
        assert_eq!(next(&queue, SOON).await.as_deref(), Some("a"), "an event comes before the wake-up");
        queue.done(&object("a"), Next::Idle);
        assert_eq!(next(&queue, Duration::from_secs(3600)).await, None, "and replaces it");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_delay_their_object_up_to_a_minute() {
        let queue = queue(7);
        queue.add(&object("a"));
        let mut delays = Vec::new();
        for _ in 0..14 {
            let before = Instant::now();
            queue.next().await;
            delays.push(before.elapsed());
            queue.done(&object("a"), Next::Retry);
        }
        for (failures, delay) in delays.iter().enumerate().skip(1) {
            let full = LONGEST_DELAY.min(FIRST_DELAY * 2_u32.pow(failures as u32 - 1));
            let lowest = full / 2;
            assert!(*delay >= lowest && *delay <= full + SOON, "{failures} failures: {delay:?}");
        }
        queue.add(&object("b"));
        assert_eq!(next(&queue, SOON).await.as_deref(), Some("b"), "others are not delayed");
        queue.add_own(&object("a"));
        assert_eq!(next(&queue, Duration::from_secs(1)).await, None, "our own write does not end the delay");
        queue.add(&object("a"));
        assert_eq!(next(&queue, SOON).await.as_deref(), Some("a"), "an event from outside does");
        queue.done(&object("a"), Next::Idle);
        assert_eq!(queue.failures(&object("a")), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_wants_to_be_safe_waits_five_seconds_at_most() {
        let queue = queue(7);
        queue.add(&object("a"));
        for failures in 0..14 {
            let before = Instant::now();
            queue.next().await;
            assert!(before.elapsed() <= LONGEST_URGENT_DELAY + SOON, "{failures} failures: {:?}", before.elapsed());
            queue.done(&object("a"), Next::RetrySoon);
        }
        assert_eq!(queue.failures(&object("a")), 14);
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_before_its_delay_is_over_does_not_wait_longer_for_it() {
        let queue = queue(7);
        queue.add(&object("a"));
        for _ in 0..5 {
            queue.next().await;
            queue.done(&object("a"), Next::Retry);
        }
        for _ in 0..20 {
            queue.add(&object("a"));
            assert_eq!(next(&queue, SOON).await.as_deref(), Some("a"), "an event");
            queue.done(&object("a"), Next::Retry);
        }
        assert_eq!(queue.failures(&object("a")), 5);
        // While it is decided about, too.
        queue.next().await;
        queue.add(&object("a"));
        queue.done(&object("a"), Next::Retry);
        queue.next().await;
        queue.done(&object("a"), Next::Retry);
        assert_eq!(queue.failures(&object("a")), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_reason_to_decide_wakes_only_what_waits_for_it() {
        let queue = queue(1);
        let later = Instant::now() + Duration::from_secs(30);
        queue.add(&object("a"));
        next(&queue, SOON).await;
        queue.done(&object("a"), Next::At(later));
        queue.add_if_waiting(&object("a"));
        queue.add_if_waiting(&object("never seen"));
        assert_eq!(next(&queue, SOON).await, None);
        queue.add(&object("a"));
        next(&queue, SOON).await;
        queue.done(&object("a"), Next::Wait(later));
        queue.add_if_waiting(&object("a"));
        assert_eq!(next(&queue, SOON).await.as_deref(), Some("a"), "it could not be decided about before");
        queue.add_if_waiting(&object("a"));
        queue.done(&object("a"), Next::Wait(later));
        assert_eq!(next(&queue, SOON).await.as_deref(), Some("a"), "it may have looked too early");
    }

    /// As the metrics of client-go's queues count.
    #[tokio::test(start_paused = true)]
    async fn what_waits_and_works_is_counted() {
        let queue = queue(1);
        queue.add(&object("a"));
        queue.add(&object("a"));
        tokio::time::advance(Duration::from_secs(2)).await;
        next(&queue, SOON).await;
        queue.add(&object("a"));
        queue.add(&object("b"));
        next(&queue, SOON).await;
        tokio::time::advance(Duration::from_secs(3)).await;
        let seconds = Duration::from_secs;
        assert_eq!(queue.load(), Load { waiting: 1, unfinished: seconds(6), longest: seconds(3) });
        queue.done(&object("a"), Next::Retry);
        queue.done(&object("b"), Next::Idle);
        assert_eq!(queue.load(), Load { waiting: 1, ..Load::default() });
        let counts = queue.counts();
        assert_eq!((counts.adds.get(), counts.retries.get()), (3, 1));
        assert_eq!((counts.waited.get_sample_count(), counts.waited.get_sample_sum()), (2, 2.0));
        assert_eq!((counts.worked.get_sample_count(), counts.worked.get_sample_sum()), (2, 6.0));
    }

    #[tokio::test(start_paused = true)]
    async fn every_worker_gets_work() {
        let queue = Arc::new(queue(1));
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move { queue.next().await.name })
            })
            .collect();
        tokio::task::yield_now().await;
        for name in ["a", "b", "c"] {
            queue.add(&object(name));
        }
        let mut names = Vec::new();
        for worker in workers {
            names.push(worker.await.unwrap());
        }
        names.sort();
        assert_eq!(names, ["a", "b", "c"]);
    }
}
