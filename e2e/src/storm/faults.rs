//! What the storm breaks: the controller again and again, the API server and etcd now and then.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep, sleep_until};

use crate::cluster::Cluster;
use crate::controller::Controller;

/// When the API server could not be used, from the start of the record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outage {
    pub what: Fault,
    pub from: Duration,
    pub to: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    ApiServerPaused,
    ApiServerRestarted,
    EtcdRestarted,
}

/// In turn. A client of Kubernetes' own library waits longer after each broken connection, up to a minute, until it has had
/// two calm ones; a gateway that is so far behind is no longer a test of releases. So pauses, which break no connection, come
/// between the restarts.
const TURNS: [Fault; 6] = [
    Fault::ApiServerPaused,
    Fault::EtcdRestarted,
    Fault::ApiServerPaused,
    Fault::ApiServerRestarted,
    Fault::ApiServerPaused,
    Fault::ApiServerPaused,
];

/// Kills the controller until `end` and leaves it running. Answers how often.
///
/// # Errors
/// The controller ended by itself, or cannot be started.
pub async fn kill_controller(controller: &mut Controller, seed: u64, end: Instant) -> Result<u32> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut kills = 0;
    loop {
        // Often enough between two writes of one plan, and now and then long enough to get something done.
        let life = if random.bool() { 300..3_000 } else { 3_000..12_000 };
        let next = Instant::now() + Duration::from_millis(random.u64(life));
        sleep_until(next.min(end)).await;
        ensure!(controller.is_running(), "the controller has ended by itself:\n{}", controller.log()?);
        if next >= end {
            return Ok(kills);
        }
        controller.kill().await;
        kills += 1;
        sleep(Duration::from_millis(random.u64(0..1_000))).await;
        controller.restart()?;
    }
}

/// Pauses and restarts the API server and etcd until `end`.
///
/// # Errors
/// One of them does not come back.
pub async fn break_control_plane(
    cluster: &mut Cluster,
    seed: u64,
    started: Instant,
    end: Instant,
) -> Result<Vec<Outage>> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut outages = Vec::new();
    for what in TURNS.into_iter().cycle() {
        let next = Instant::now() + Duration::from_millis(random.u64(10_000..25_000));
        sleep_until(next.min(end)).await;
        if next >= end {
            break;
        }
        let from = started.elapsed();
        match what {
            Fault::ApiServerPaused => {
                cluster.pause_api_server()?;
                sleep(Duration::from_millis(random.u64(500..6_000))).await;
                cluster.resume_api_server()?;
            }
            Fault::ApiServerRestarted => {
                cluster.kill_api_server().await;
                sleep(Duration::from_millis(random.u64(0..1_000))).await;
                cluster.restart_api_server().await?;
            }
            Fault::EtcdRestarted => {
                cluster.kill_etcd().await;
                sleep(Duration::from_millis(random.u64(0..2_000))).await;
                cluster.restart_etcd().await?;
            }
        }
        outages.push(Outage { what, from, to: started.elapsed() });
    }
    Ok(outages)
}

/// How often each came.
pub fn count(outages: &[Outage]) -> BTreeMap<Fault, usize> {
    let mut counts = BTreeMap::new();
    for outage in outages {
        *counts.entry(outage.what).or_default() += 1;
    }
    counts
}
