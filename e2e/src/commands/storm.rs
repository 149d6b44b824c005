//! `storm`: many releases while everything around them breaks.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::storm::{self, StormOptions};
use crate::tools::{Part, Tools};

#[derive(Debug, clap::Args)]
pub struct Storm {
    /// How long it blows
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// What users do and when things break
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Storm {
    pub async fn run(self, folder: &Path) -> Result<()> {
        Tools::find(&[Part::Helm])?;
        storm::run(folder, StormOptions { length: Duration::from_secs(self.minutes * 60), seed: self.seed }).await
    }
}
