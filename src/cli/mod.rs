//! The commands, one file each. A new command is a new file and one line in the table below.

mod backtest;
mod calibrate;
mod change;
mod completion;
pub mod connect;
mod controller;
mod crds;
mod create;
mod demo;
mod get;
pub mod in_process;
mod incident;
mod kind;
pub mod lint;
mod list;
pub mod manifest;
mod phase;
pub mod plan;
mod promote;
mod report;
mod sandbox;
mod screen;
mod set;
mod status;
mod tree;
mod undo;
mod units;
mod version;
mod watched;
mod workload;

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
    ($($(#[$attribute:meta])* $variant:ident($type:ty)),+ $(,)?) => {
        // There is one of these in a process.
        #[allow(clippy::large_enum_variant)]
        #[derive(Debug, clap::Subcommand)]
        enum Command {
            $($(#[$attribute])* $variant($type)),+
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
    Abort(change::Abort),
    Backtest(backtest::Backtest),
    Calibrate(calibrate::Calibrate),
    #[command(name = "__complete", hide = true)]
    Complete(completion::Complete),
    Completion(completion::Completion),
    Controller(controller::Controller),
    Crds(crds::Crds),
    Create(create::Create),
    Demo(demo::Demo),
    Get(get::Get),
    Incident(incident::Incident),
    Lint(lint::Lint),
    List(list::List),
    Pause(change::Pause),
    Plan(plan::Plan),
    Promote(promote::Promote),
    Report(report::Report),
    Restart(change::Restart),
    Retry(change::Retry),
    Sandbox(sandbox::Sandbox),
    Set(set::Set),
    Status(status::Status),
    Terminate(change::Terminate),
    Undo(undo::Undo),
    Version(version::Version),
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
