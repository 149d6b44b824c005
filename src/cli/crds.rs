//! `tidegate crds`: the CustomResourceDefinitions.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use crate::api::crd;

/// Print the CustomResourceDefinitions, or write them to a folder
#[derive(Debug, clap::Args)]
pub struct Crds {
    /// Folder to write one file per kind to; printed when absent
    #[arg(long, short)]
    output: Option<PathBuf>,
}

impl Crds {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        for (name, yaml) in crd::files() {
            match &self.output {
                Some(folder) => {
                    let path = folder.join(name);
                    std::fs::write(&path, yaml).with_context(|| format!("cannot write {}", path.display()))?;
                }
                None => println!("---\n{yaml}"),
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
