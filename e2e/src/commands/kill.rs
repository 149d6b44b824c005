//! `kill`: releases in which the controller is killed, what they need is taken away, or the gateway is slow.

use std::path::Path;

use anyhow::Result;

use super::suites;
use crate::disruption;
use crate::environment::{Environment, EnvironmentOptions};
use crate::suite;
use crate::tally::Tally;

#[derive(Debug, clap::Args)]
pub struct Kill {
    /// Only kill the controller, at the moments of this seed; may be given several times
    #[arg(long)]
    seed: Vec<u64>,
    /// Only the tests whose names contain one of these words
    words: Vec<String>,
}

impl Kill {
    pub async fn run(self, folder: &Path) -> Result<()> {
        if self.seed.is_empty() {
            let is_chosen = |name: &str| self.words.is_empty() || self.words.iter().any(|word| name.contains(word));
            let mut tally = Tally::default();
            for (name, options, mut tests) in suites() {
                tests.retain(|(name, _)| is_chosen(name));
                if !tests.is_empty() {
                    tally.absorb(suite::run(&folder.join(name), options, &tests).await?);
                }
            }
            return tally.end();
        }
        let mut tally = Tally::default();
        for seed in self.seed {
            // The shops of one run are in the way of the next.
            let folder = folder.join(seed.to_string());
            let mut environment = Environment::start(&folder, EnvironmentOptions::full()).await?;
            tally.test(&format!("seed {seed}"), disruption::killed(&mut environment, seed)).await;
            environment.stop().await;
        }
        tally.end()
    }
}
