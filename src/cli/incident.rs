//! `tidegate incident`: what was known of incidents, kept in files.

use std::process::ExitCode;

use super::backtest::record::Record;

/// Keep incidents as tests of analyses
#[derive(Debug, clap::Args)]
pub struct Incident {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Record(Record),
}

impl Incident {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self.what {
            What::Record(record) => record.run().await,
        }
    }
}
