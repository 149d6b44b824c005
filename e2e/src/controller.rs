//! `tidegate controller` as a child process that can be killed and started again.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use crate::cluster::Cluster;
use crate::process::{Process, Usage};

/// A controller outside of the cluster, as one user of it.
#[derive(Debug)]
pub struct Controller {
    program: PathBuf,
    arguments: Vec<String>,
    folder: PathBuf,
    process: Option<Process>,
}

impl Controller {
    /// Starts the workspace's own `tidegate controller` as `user`, with further arguments.
    ///
    /// Pods listen on their own addresses, and a controller on all: give it ports that no pod uses.
    ///
    /// # Errors
    /// The binary is not beside the present one, or cannot be started.
    pub fn start(cluster: &Cluster, folder: &Path, user: &str, arguments: &[&str]) -> Result<Self> {
        let kubeconfig = cluster.kubeconfig(user).display().to_string();
        let arguments = ["controller", "--kubeconfig", &kubeconfig].into_iter().chain(arguments.iter().copied());
        Self::start_program(binary()?, folder, arguments.map(str::to_owned).collect())
    }

    /// Starts any program in the controller's place, for example a peer to compare with.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_program(program: PathBuf, folder: &Path, arguments: Vec<String>) -> Result<Self> {
        let mut controller = Self { program, arguments, folder: folder.to_owned(), process: None };
        controller.restart()?;
        Ok(controller)
    }

    /// Kills it with SIGKILL.
    pub async fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill().await;
        }
    }

    /// Starts it again after it was killed. Its log goes on in the same file.
    ///
    /// # Errors
    /// It is running, or cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        if self.is_running() {
            bail!("the controller is running");
        }
        let mut command = Command::new(&self.program);
        self.process = Some(Process::spawn("controller", command.args(&self.arguments), &self.folder)?);
        Ok(())
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    /// What it has used since it was last started.
    ///
    /// # Errors
    /// It does not run.
    pub fn usage(&self) -> Result<Usage> {
        self.process.as_ref().context("the controller does not run")?.usage()
    }

    /// What it has printed, in all of its lives.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn log(&self) -> Result<String> {
        let file = self.folder.join("controller.log");
        std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))
    }

    /// Ends it with SIGTERM.
    pub async fn stop(mut self) {
        if let Some(process) = self.process.take() {
            process.stop().await;
        }
    }
}

/// The `tidegate` binary of the same build as this program: beside it, or one folder up for a test's executable.
///
/// # Errors
/// It has not been built.
pub fn binary() -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding the own executable")?;
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("tidegate"))
        .find(|file| file.is_file())
        .with_context(|| format!("no tidegate binary beside {}: build it with cargo build", own.display()))
}
