//! What became of a run of tests. Each is told as it ends, and those that failed once more at the end: of a long log
//! people see the end only.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

/// How many lines of an error are told again at the end; the whole of it is where the test ended.
const MOST_LINES: usize = 40;

#[derive(Debug, Default)]
pub struct Tally {
    passed: usize,
    failures: Vec<Failure>,
}

#[derive(Debug)]
struct Failure {
    name: String,
    error: String,
}

impl Tally {
    /// Waits for a test to end.
    pub async fn test(&mut self, name: &str, test: impl Future<Output = Result<()>>) {
        let started = Instant::now();
        let outcome = test.await;
        self.add("test", name, started.elapsed(), outcome);
    }

    /// Tells what became of a test that has just ended.
    pub fn add(&mut self, kind: &str, name: &str, took: Duration, outcome: Result<()>) {
        let seconds = took.as_secs_f64();
        match outcome {
            Ok(()) => {
                println!("{kind} {name} ... ok ({seconds:.1} s)");
                self.passed += 1;
            }
            Err(error) => {
                let failure = Failure { name: format!("{kind} {name}"), error: format!("{error:#}") };
                println!("{} ... FAILED ({seconds:.1} s)\n{}\n", failure.name, failure.error.trim_end());
                self.failures.push(failure);
            }
        }
    }

    /// Counts what is told already.
    pub fn absorb(&mut self, other: Self) {
        self.passed += other.passed;
        self.failures.extend(other.failures);
    }

    /// Tells the outcome of them all, also if the run did not come to its end.
    ///
    /// # Errors
    /// As [`Tally::end`].
    pub fn end_after(mut self, run: Result<()>) -> Result<()> {
        if let Err(error) = run {
            self.add("test", "the rest", Duration::ZERO, Err(error));
        }
        self.end()
    }

    /// Tells the outcome of them all.
    ///
    /// # Errors
    /// Some failed; the error names them.
    pub fn end(self) -> Result<()> {
        println!("{self}");
        if self.failures.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = self.failures.iter().map(|failure| failure.name.as_str()).collect();
        bail!("{} of {} failed: {}", names.len(), self.passed + names.len(), names.join(", "));
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failures.len())?;
        for Failure { name, error } in &self.failures {
            write!(f, "\n\n{name} FAILED")?;
            let lines: Vec<&str> = error.trim_end().lines().collect();
            for line in lines.iter().take(MOST_LINES) {
                write!(f, "\n  {line}")?;
            }
            if let Some(more) = lines.len().checked_sub(MOST_LINES).filter(|more| *more > 0) {
                write!(f, "\n  ({more} more lines above, where it ended)")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn the_end_names_what_failed_and_says_why() {
        let mut tally = Tally::default();
        tally.add("test", "good", Duration::ZERO, Ok(()));
        tally.add("scenario", "bad", Duration::ZERO, Err(anyhow!("refused").context("applying it")));
        let mut long = Tally::default();
        long.add("test", "long", Duration::ZERO, Err(anyhow!("line\n".repeat(MOST_LINES + 2))));
        tally.absorb(long);
        let lines = "\n  line".repeat(MOST_LINES);
        let told = format!(
            "1 passed, 2 failed\n\nscenario bad FAILED\n  applying it: refused\n\ntest long FAILED{lines}\n  \
             (2 more lines above, where it ended)"
        );
        assert_eq!(tally.to_string(), told);
        assert_eq!(tally.end().unwrap_err().to_string(), "2 of 3 failed: scenario bad, test long");
        assert!(Tally::default().end().is_ok());
    }
}
