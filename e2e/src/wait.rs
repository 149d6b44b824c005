//! Waiting for something to become true, with an end.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::{Instant, sleep};

/// Asks again and again, with short pauses, until the answer is true.
///
/// # Errors
/// It was not true `within` that time: `what` names it, and the condition's last error, if it had one, is the cause. An
/// error is not final, because a server that is asked may be down for a while.
pub async fn until(what: &str, within: Duration, mut condition: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + within;
    loop {
        let answer = condition().await;
        if matches!(answer, Ok(true)) {
            return Ok(());
        }
        if Instant::now() > deadline {
            answer.with_context(|| format!("not within {within:?}: {what}"))?;
            bail!("not within {within:?}: {what}");
        }
        sleep(Duration::from_millis(25)).await;
    }
}
