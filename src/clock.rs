//! The one place where wall-clock time enters the program.

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
    Tokio { epoch: Timestamp, start: Instant },
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that shows `epoch` now and follows tokio's clock from here on.
    pub fn starting_at(epoch: Timestamp) -> Self {
        Self(Source::Tokio { epoch, start: Instant::now() })
    }

    /// The present instant.
    #[allow(clippy::disallowed_methods)] // this is the one place that may ask the system
    pub fn now(&self) -> Timestamp {
        match self.0 {
            Source::System => Timestamp::now(),
            Source::Tokio { epoch, start } => {
                let elapsed: Duration = start.elapsed();
                // A simulation that outlives the range of timestamps (the year 9999) stays at its end.
                SignedDuration::try_from(elapsed)
                    .ok()
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
}
