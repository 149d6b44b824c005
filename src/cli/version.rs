//! `tidegate version`.

use std::process::ExitCode;

/// Print the version
#[derive(Debug, clap::Args)]
pub struct Version {
    /// The number only
    #[arg(long)]
    short: bool,
}

impl Version {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        println!("tidegate: v{}", env!("CARGO_PKG_VERSION"));
        if !self.short {
            println!("  Commit:   {}", option_env!("TIDEGATE_COMMIT").unwrap_or("unknown"));
            println!("  Platform: {}/{}", std::env::consts::OS, std::env::consts::ARCH);
        }
        Ok(ExitCode::SUCCESS)
    }
}
