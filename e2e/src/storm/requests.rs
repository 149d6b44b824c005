//! Real requests to every Rollout that the gateway serves, and which of them were lost.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use super::fleet::{self, Kind};
use crate::http::Http;
use crate::load::{Load, LoadOptions, Record};
use crate::wait::until;

/// Requests a second to each Rollout.
const RATE: f64 = 8.0;
/// Longer than a busy machine takes for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The loads on all of them.
pub struct Requests {
    loads: BTreeMap<String, (Duration, Load)>,
}

/// A request that was lost.
#[derive(Clone, Debug)]
pub struct Lost {
    pub rollout: String,
    /// When it was due and when it had failed, since the start of the record.
    pub from: Duration,
    pub to: Duration,
    pub status: Option<u16>,
    pub version: Option<String>,
}

impl Requests {
    /// Waits until all are served, and starts.
    ///
    /// # Errors
    /// One is not served within a minute.
    pub async fn start(url: &str, recorded: Instant) -> Result<Self> {
        let http = Http::default();
        let mut loads = BTreeMap::new();
        let names = fleet::names().into_iter();
        for name in names.filter(|name| Kind::of(name).is_some_and(Kind::is_served)) {
            let host = fleet::host(&name);
            until(&format!("the gateway serves {name}"), Duration::from_secs(60), async || {
                Ok(http.get(url, Some(&host), TIMEOUT).await?.status().is_success())
            })
            .await?;
            let options = LoadOptions { url: url.to_owned(), host, rate: RATE, timeout: TIMEOUT };
            loads.insert(name, (recorded.elapsed(), Load::start(options)));
            // Not all in the same moment.
            sleep(Duration::from_millis(9)).await;
        }
        Ok(Self { loads })
    }

    /// Ends the loads. How many requests there were, and those that were lost.
    ///
    /// # Errors
    /// A load panicked.
    pub async fn stop(self) -> Result<(usize, Vec<Lost>)> {
        let (mut sent, mut lost) = (0, Vec::new());
        for (name, (started, load)) in self.loads {
            let records = load.stop().await?;
            sent += records.len();
            lost.extend(records.iter().filter(|record| !record.is_ok()).map(|record| record.lost(&name, started)));
        }
        Ok((sent, lost))
    }
}

impl Record {
    fn lost(&self, rollout: &str, started: Duration) -> Lost {
        let from = started + self.due;
        let version = self.version.as_deref().map(str::to_owned);
        Lost { rollout: rollout.to_owned(), from, to: from + self.latency, status: self.status, version }
    }
}
