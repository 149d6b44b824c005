//! The commands, one file each. A new command is a new file and one line in the table below.

mod abort;
pub mod connect;
mod controller;
mod crds;
mod demo;
mod get;
mod in_process;
pub mod lint;
pub mod manifest;
mod pause;
mod phase;
mod promote;
mod retry;
mod sandbox;
mod status;
mod tree;
mod undo;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

/// Progressive delivery for Kubernetes: releases in small, observed, reversible steps.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, propagate_version = true, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Makes the enum of commands and its dispatch from one table.
macro_rules! commands {
    ($($variant:ident($type:ty)),+ $(,)?) => {
        // There is one of these in a process.
        #[allow(clippy::large_enum_variant)]
        #[derive(Debug, clap::Subcommand)]
        enum Command {
            $($variant($type)),+
        }

        impl Command {
            async fn run(self) -> anyhow::Result<ExitCode> {
                match self {
                    $(Self::$variant(command) => command.run().await),+
                }
            }
        }
    };
}

commands! {
    Abort(abort::Abort),
    Controller(controller::Controller),
    Crds(crds::Crds),
    Demo(demo::Demo),
    Get(get::Get),
    Lint(lint::Lint),
    Pause(pause::Pause),
    Promote(promote::Promote),
    Retry(retry::Retry),
    Sandbox(sandbox::Sandbox),
    Status(status::Status),
    Undo(undo::Undo),
}

/// The definition of the command line: what the manual's commands and its list of flags are checked against.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses the command line and runs the command. Also serves as the kubectl plugin `kubectl tidegate` when the binary is
/// called `kubectl-tidegate`.
pub async fn run() -> ExitCode {
    let cli = Cli::parse();
    match cli.command.run().await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
