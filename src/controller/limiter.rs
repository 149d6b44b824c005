//! A token bucket: how many requests a second we send.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Lets `burst` requests through at once and `qps` a second in the long run, in the order in which they ask.
#[derive(Debug)]
pub struct Limiter {
    /// Time between two requests in the long run.
    interval: Duration,
    /// How far requests may be ahead of that.
    slack: Duration,
    /// When the next request would be due if all came at the long-run rate.
    due: Mutex<Instant>,
}

impl Limiter {
    /// No limit when `qps` is not positive; a burst of 0 counts as 1.
    pub fn new(qps: f64, burst: u32) -> Self {
        let interval = if qps > 0.0 { Duration::from_secs_f64(1.0 / qps) } else { Duration::ZERO };
        let slack = interval * burst.saturating_sub(1);
        Self { interval, slack, due: Mutex::new(Instant::now()) }
    }

    /// Waits for the permission to send one request. Who gives up waiting has used it nevertheless.
    pub async fn acquire(&self) {
        let at = {
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let mine = (*due).max(now);
            *due = mine + self.interval;
            mine.checked_sub(self.slack).map_or(now, |at| at.max(now))
        };
        if at > Instant::now() {
            tokio::time::sleep_until(at).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_then_the_rate_then_a_burst_again() {
        let limiter = Limiter::new(10.0, 5);
        let start = Instant::now();
        for _ in 0..5 {
            limiter.acquire().await;
        }
        assert!(start.elapsed() < Duration::from_millis(2), "{:?}", start.elapsed());
        for _ in 0..10 {
            limiter.acquire().await;
        }
        let elapsed = start.elapsed();
        assert!((Duration::from_millis(990)..Duration::from_millis(1020)).contains(&elapsed), "{elapsed:?}");
        tokio::time::advance(Duration::from_secs(60)).await;
        let start = Instant::now();
        for _ in 0..5 {
            limiter.acquire().await;
        }
        assert!(start.elapsed() < Duration::from_millis(2), "{:?}", start.elapsed());
        limiter.acquire().await;
        assert!(start.elapsed() > Duration::from_millis(90), "{:?}", start.elapsed());
    }
}
