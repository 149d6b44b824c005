//! The process runs itself again inside namespaces of its own: user, network, process and mount.
//!
//! Inside, every address of 10.64.0.0/16 is local, so that pods have addresses of their own (an API server refuses
//! 127.0.0.0/8 in EndpointSlices); nothing leaks out, and several runs can go on side by side. The inner process is
//! process 1 of its namespace: when it ends, the kernel kills all that it started.
//!
//! ```text
//! outer ──► setpriv --pdeathsig KILL unshare --kill-child ──► inner, process 1
//! ```
//!
//! Whichever of the three is killed, those to its right are killed by the kernel. A SIGINT or SIGTERM to the outer process
//! is passed on to the inner one, which then stops what it started in an orderly way.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

/// The address of the machine inside the namespace: the node's, the control plane's and the gateway's.
pub const HOST: &str = "10.64.0.1";

/// Tells the inner process that it is the inner one, and where it may write.
const SCRATCH: &str = "TIDEGATE_E2E_SCRATCH";
/// Where the scratch folder is made, if not in the system's temporary folder.
const SCRATCH_PARENT: &str = "TIDEGATE_E2E_DIR";
const SCRATCH_PREFIX: &str = "tidegate-e2e-";

/// Calls `body` inside the namespaces, with an empty folder for its files.
///
/// The folder is removed after a success and kept after a failure, for its logs, until a later run.
///
/// # Errors
/// The namespaces cannot be made, or what `body` answers.
pub fn run_inside(body: impl FnOnce(PathBuf) -> Result<()>) -> Result<ExitCode> {
    match std::env::var_os(SCRATCH) {
        Some(scratch) => {
            run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
            run(Command::new("ip").args(["addr", "add", &format!("{HOST}/16"), "dev", "lo"]))?;
            body(scratch.into()).map(|()| ExitCode::SUCCESS)
        }
        None => outer(),
    }
}

fn outer() -> Result<ExitCode> {
    let parent = std::env::var_os(SCRATCH_PARENT).map_or_else(std::env::temp_dir, PathBuf::from);
    remove_left_over(&parent);
    let scratch = parent.join(format!("{SCRATCH_PREFIX}{}", std::process::id()));
    fs::create_dir_all(&scratch).with_context(|| format!("creating {}", scratch.display()))?;
    let status = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting tokio")?
        .block_on(supervise(&scratch))?;
    if status.success() {
        fs::remove_dir_all(&scratch).with_context(|| format!("removing {}", scratch.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    if fs::read_dir(&scratch).is_ok_and(|mut entries| entries.next().is_some()) {
        eprintln!("logs are in {}", scratch.display());
    }
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// Runs the inner process and passes signals on to it.
///
/// This must run on the main thread: the signal that a child gets at its parent's death is sent when the *thread* ends.
async fn supervise(scratch: &Path) -> Result<ExitStatus> {
    let mut interrupt = signal(SignalKind::interrupt()).context("watching for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("watching for SIGTERM")?;
    let mut child = tokio::process::Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .args(["unshare", "--map-root-user", "--net", "--mount-proc", "--pid", "--fork", "--kill-child", "--"])
        .arg(std::env::current_exe().context("finding the own executable")?)
        .args(std::env::args_os().skip(1))
        .env(SCRATCH, scratch)
        .spawn()
        .context("starting setpriv and unshare (package util-linux)")?;
    let unshare = child.id().context("unshare has just been started")?;
    loop {
        let received = tokio::select! {
            status = child.wait() => return status.context("waiting for the inner process"),
            _ = interrupt.recv() => Signal::SIGINT,
            _ = terminate.recv() => Signal::SIGTERM,
        };
        if let Some(inner) = first_child(unshare) {
            // It may have ended in between, which `wait` reports next.
            let _ = kill(inner, received);
        }
    }
}

fn first_child(of: u32) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok().map(Pid::from_raw)
}

/// Removes the folders of runs that failed or were killed.
fn remove_left_over(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(process) = name.to_str().and_then(|name| name.strip_prefix(SCRATCH_PREFIX)) else { continue };
        if process.parse::<u32>().is_ok() && !Path::new("/proc").join(process).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("running {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}
