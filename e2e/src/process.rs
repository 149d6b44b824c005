//! A program that the harness started: its log, its end, what it used.

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// How long a program has between SIGTERM and SIGKILL. Every program here ends within a second when it is healthy.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running program, in a process group of its own. Dropping it kills the group.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    group: Pid,
    log: PathBuf,
}

/// What a process has used since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Time on a CPU, user and system, in steps of 10 ms.
    pub cpu: Duration,
    /// Resident memory now, in bytes.
    pub resident: u64,
    /// The most memory that was ever resident, in bytes.
    pub peak: u64,
}

impl Process {
    /// Starts `command`; what it prints is appended to `<folder>/<name>.log`.
    ///
    /// # Errors
    /// The log cannot be written or the program cannot be started.
    pub fn spawn(name: &str, command: &mut Command, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("opening {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("duplicating the log's file")?)
            .stderr(file)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {name}: {:?}", command.as_std().get_program()))?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).context("a started process has an id")?;
        Ok(Self { name: name.to_owned(), child, group: Pid::from_raw(group), log })
    }

    /// The process id, as the namespace sees it.
    pub fn id(&self) -> i32 {
        self.group.as_raw()
    }

    /// The file that holds what the program printed.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Waits until `probe` answers true.
    ///
    /// # Errors
    /// The program ended, or `within` has passed; the end of its log is in the message.
    pub async fn ready<F>(&mut self, within: Duration, mut probe: impl FnMut() -> F) -> Result<()>
    where
        F: Future<Output = bool>,
    {
        let deadline = Instant::now() + within;
        while !probe().await {
            if let Some(status) = self.child.try_wait().context("asking for a child's status")? {
                bail!("{} ended with {status}:\n{}", self.name, self.log_tail());
            }
            if Instant::now() > deadline {
                bail!("{} was not ready within {within:?}:\n{}", self.name, self.log_tail());
            }
            sleep(Duration::from_millis(25)).await;
        }
        Ok(())
    }

    /// Whether the program has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until the program ends by itself.
    ///
    /// # Errors
    /// The system does not say how it ended.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().await.with_context(|| format!("waiting for {}", self.name))
    }

    /// Sends a signal to the program and all of its group.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        killpg(self.group, signal).with_context(|| format!("sending {signal} to {}", self.name))
    }

    /// Ends the program with SIGTERM, or with SIGKILL if it has not ended after ten seconds.
    pub async fn stop(mut self) {
        let _ = killpg(self.group, Signal::SIGTERM);
        if timeout(PATIENCE, self.child.wait()).await.is_err() {
            eprintln!("{} did not end within {PATIENCE:?} of SIGTERM", self.name);
        }
        self.kill().await;
    }

    /// Ends the program and all of its group with SIGKILL, at once.
    pub async fn kill(mut self) {
        let _ = killpg(self.group, Signal::SIGKILL);
        let _ = self.child.wait().await;
    }

    /// What the process itself (not its children) has used.
    ///
    /// # Errors
    /// It has ended.
    pub fn usage(&self) -> Result<Usage> {
        let folder = PathBuf::from(format!("/proc/{}", self.group));
        let stat = fs::read_to_string(folder.join("stat")).with_context(|| format!("{} has ended", self.name))?;
        let status = fs::read_to_string(folder.join("status")).with_context(|| format!("{} has ended", self.name))?;
        parse_usage(&stat, &status).with_context(|| format!("{}: unexpected form of {}", self.name, folder.display()))
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // `id` is known until the child has been waited for; afterwards the number may belong to someone else.
        if self.child.id().is_some() {
            let _ = killpg(self.group, Signal::SIGKILL);
        }
    }
}

/// Reads `/proc/<id>/stat` and `/proc/<id>/status`.
fn parse_usage(stat: &str, status: &str) -> Option<Usage> {
    // The second field is the command in parentheses and may hold anything. The fields 14 and 15 are user and system
    // time in units of USER_HZ, which is 100 on every Linux that this runs on.
    let after_command = &stat[stat.rfind(')')? + 1..];
    let mut ticks = after_command.split_whitespace().skip(11).map(str::parse::<u64>);
    let ticks = ticks.next()?.ok()? + ticks.next()?.ok()?;
    let kilobytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    Some(Usage {
        cpu: Duration::from_millis(ticks * 10),
        resident: kilobytes("VmRSS:")? * 1024,
        peak: kilobytes("VmHWM:")? * 1024,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_from_proc() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 25 0 0 20 0 1 0 100 1 1";
        let status = "Name:\ta) b\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        let expected = Usage { cpu: Duration::from_millis(1750), resident: 1 << 20, peak: 2 << 20 };
        assert_eq!(parse_usage(stat, status), Some(expected));
        assert_eq!(parse_usage("7 (a) S", status), None);
    }
}
