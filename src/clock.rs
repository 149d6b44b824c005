//! The one place where wall-clock time enters the program.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// Tells the time of day, in steps of tokio's clock.
///
/// A real clock reads the system's time. A virtual clock starts at a fixed instant and advances exactly as tokio's
/// (possibly paused) clock does, so that an hour of simulated time passes in milliseconds and every run sees the same
/// timestamps.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Tokio { epoch: Timestamp, start: Instant, skew: Skew },
}

/// How far a virtual clock is set off from what it would show, in milliseconds.
#[derive(Clone, Debug, Default)]
struct Skew(Arc<AtomicI64>);

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that shows `epoch` now and follows tokio's clock from here on.
    pub fn starting_at(epoch: Timestamp) -> Self {
        Self(Source::Tokio { epoch, start: Instant::now(), skew: Skew::default() })
    }

    /// A clock that shows the same until one of the two is [set off](Self::jump).
    pub fn independent(&self) -> Self {
        let mut own = self.clone();
        if let Source::Tokio { skew, .. } = &mut own.0 {
            *skew = Skew(Arc::new(AtomicI64::new(skew.0.load(Ordering::Relaxed))));
        }
        own
    }

    /// Sets a virtual clock and its clones forwards or backwards, as an administrator or NTP does. The system's clock is not
    /// ours to set: there this does nothing.
    pub fn jump(&self, by: SignedDuration) {
        if let Source::Tokio { skew, .. } = &self.0 {
            let millis = i64::try_from(by.as_millis()).unwrap_or(0);
            skew.0.fetch_add(millis, Ordering::Relaxed);
        }
    }

    /// The present instant.
    #[allow(clippy::disallowed_methods)] // this is the one place that may ask the system
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => Timestamp::now(),
            Source::Tokio { epoch, start, skew } => {
                let elapsed: Duration = start.elapsed();
                let skew = SignedDuration::from_millis(skew.0.load(Ordering::Relaxed));
                // A simulation that outlives the range of timestamps (the year 9999) stays at its end.
                SignedDuration::try_from(elapsed)
                    .ok()
                    .and_then(|elapsed| elapsed.checked_add(skew))
                    .and_then(|elapsed| epoch.checked_add(elapsed).ok())
                    .unwrap_or(Timestamp::MAX)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_virtual_clock_follows_tokio() {
        let epoch = Timestamp::from_second(1_700_000_000).unwrap();
        let clock = Clock::starting_at(epoch);
        assert_eq!(clock.now(), epoch);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(clock.now().as_second(), 1_700_003_600);
    }

    #[tokio::test(start_paused = true)]
    async fn a_virtual_clock_jumps_with_its_clones_only() {
        let clock = Clock::starting_at(Timestamp::UNIX_EPOCH);
        let (clone, other) = (clock.clone(), clock.independent());
        clone.jump(SignedDuration::from_secs(-5));
        assert_eq!((clock.now().as_second(), other.now().as_second()), (-5, 0));
    }
}
