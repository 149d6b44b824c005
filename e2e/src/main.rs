use std::process::ExitCode;

use clap::Parser;
use tidegate_e2e::commands::Command;
use tidegate_e2e::namespace;

/// Runs Tidegate on a real control plane, a real gateway and a real Prometheus, on this machine, without containers.
#[derive(Parser)]
#[command(name = "tidegate-e2e", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match namespace::run_inside(|scratch| arguments.command.run(scratch)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
