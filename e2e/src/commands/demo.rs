//! `demo`: a good release and a bad one on a real control plane, with a real gateway and a real Prometheus under real
//! requests, and what they cost, measured from outside.

mod figures;
mod view;

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::chart;
use crate::cluster::CONTROLLER;
use crate::controller::Controller;
use crate::environment::{Environment, EnvironmentOptions};
use crate::load::Load;
use crate::shop::{Shop, ShopOptions, State};
use crate::wait::until;

use figures::{Bad, Good, Release};
use view::View;

/// The three versions, in the order of their release.
const FIRST: &str = "blue";
const GOOD: &str = "green";
const BAD: &str = "red";

/// How long a release may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, clap::Args)]
pub struct Demo {
    /// Requests a second
    #[arg(long, default_value_t = 150.0)]
    rate: f64,
    /// Pods of the application
    #[arg(long, default_value_t = 5)]
    replicas: i32,
    /// The share of requests that the bad release fails, 0 to 1
    #[arg(long, default_value_t = 0.1)]
    error_rate: f64,
    /// Seconds that a release waits at 20% and at 50%
    #[arg(long, default_value_t = 8)]
    pause: u32,
}

impl Demo {
    pub async fn run(self, folder: &Path) -> Result<()> {
        let view = &mut View::new();
        let started = Instant::now();
        view.say("Starting etcd, kube-apiserver, kube-controller-manager, Traefik and Prometheus …");
        let environment = Environment::start(folder, EnvironmentOptions::full()).await?;
        chart::install(&environment.tools, &environment.client).await?;
        let controller = Controller::start(&environment.cluster, folder, CONTROLLER, ARGUMENTS)?;
        let options = ShopOptions { replicas: self.replicas, pause: self.pause, ..ShopOptions::default() };
        let shop = Shop::open(&environment, options, FIRST).await?;
        view.say(&format!(
            "Up after {:.0} s, with the shop's first version on {} pods. The controller runs under its chart's own permissions.",
            started.elapsed().as_secs_f64(),
            self.replicas
        ));
        let load = shop.load(&environment, self.rate)?;
        warm_up(&load).await?;

        view.title(&format!("A good release: {FIRST} → {GOOD}, under {} requests a second", self.rate));
        let good = self.release(view, &shop, &environment, &load, (GOOD, 0.0), |state| {
            state.phase == "Healthy"
                && state.stable == GOOD
                && state.pods.get(FIRST).is_none_or(|pods| pods.wanted == 0)
        });
        let good = good.await?;
        view.title(&format!("A bad release: {GOOD} → {BAD}, which fails {}% of its requests", self.error_rate * 100.0));
        let bad = self.release(view, &shop, &environment, &load, (BAD, self.error_rate), |state| {
            state.phase == "Degraded" && state.weights.1 == 0
        });
        let bad = bad.await?;
        view.end();

        let load_started = load.started_at();
        let records = load.stop().await?;
        let good = Good::measure(&good, &records);
        let bad = Bad::measure(&bad, &shop, &records, load_started)?;
        let broken = figures::report(&self, &shop, &good, &bad);
        if let Some(peak) = controller.usage().ok().map(|usage| usage.peak) {
            println!("The controller took {:.0} MB at most.", peak as f64 / 1e6);
        }
        if !broken.is_empty() {
            let log = controller.log().unwrap_or_default();
            eprintln!("the controller's log:\n{log}");
        }
        controller.stop().await;
        environment.stop().await;
        if !broken.is_empty() {
            bail!("broken: {}", broken.join("; "));
        }
        Ok(())
    }

    /// Releases a version, shows how it goes, and goes on until a while after it has ended: what is lost may be lost late.
    async fn release(
        &self,
        view: &mut View,
        shop: &Shop,
        environment: &Environment,
        load: &Load,
        (version, error_rate): (&str, f64),
        ended: impl Fn(&State) -> bool,
    ) -> Result<Release> {
        let audit = environment.cluster.audit();
        let mark = audit.mark();
        let began = load.elapsed();
        shop.release(version, error_rate).await?;
        let mut tick = interval(Duration::from_millis(250));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut end = None;
        for number in 0_u32.. {
            tick.tick().await;
            let now = load.elapsed();
            let state = shop.state().await?;
            if end.is_none() && ended(&state) {
                end = Some(now);
            }
            let over = end.is_some_and(|end| now > end + Duration::from_secs(4));
            if number % 4 == 0 || over {
                view.show(now - began, version, &state, &load.summary(now.saturating_sub(Duration::from_secs(1))..now));
            }
            if over {
                break;
            }
            if now > began + PATIENCE {
                bail!("the release of {version} has not ended within {PATIENCE:?}: {state:?}");
            }
        }
        let ended = end.unwrap_or(began);
        Ok(Release { requests: began..load.elapsed(), ended, events: audit.since(mark)? })
    }
}

/// No ports: pods have addresses of their own, but a controller listens on all of them.
const ARGUMENTS: &[&str] = &["--metricsPort=0", "--healthzPort=0", "--namespace=tidegate"];

async fn warm_up(load: &Load) -> Result<()> {
    until("the gateway answers for the shop", Duration::from_secs(60), async || {
        let now = load.elapsed();
        let second = load.summary(now.saturating_sub(Duration::from_secs(1))..now);
        Ok(second.all.sent > 0 && second.all.failed == 0)
    })
    .await
}
