//! Where the programs are that `e2e/tools/install` installs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A part that `e2e/tools/install` knows by this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// etcd, kube-apiserver, kube-controller-manager
    Controlplane,
    /// Traefik
    Traefik,
    /// The CRDs of Gateway API
    GatewayApi,
    /// Prometheus and promtool
    Prometheus,
    /// helm and kubectl
    Helm,
    /// `kubectl-argo-rollouts`, Argo Rollouts' kubectl plugin
    ArgoPlugin,
}

impl Part {
    /// The name that the install script knows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Controlplane => "controlplane",
            Self::Traefik => "traefik",
            Self::GatewayApi => "gateway-api",
            Self::Prometheus => "prometheus",
            Self::Helm => "helm",
            Self::ArgoPlugin => "argo-plugin",
        }
    }
}

/// The cache folder, of which the parts that were asked for are installed.
#[derive(Clone, Debug)]
pub struct Tools {
    directory: PathBuf,
}

impl Tools {
    /// Finds the folder and checks that the `parts` are in it as this checkout wants them.
    ///
    /// # Errors
    /// Names the parts that are missing and the command that installs them.
    pub fn find(parts: &[Part]) -> Result<Self> {
        let script = script();
        let directory = run(Command::new(&script).arg("--dir"))?;
        let missing = run(Command::new(&script).arg("--check").args(parts.iter().map(|part| part.name())))?;
        if !missing.is_empty() {
            let missing = missing.split_whitespace().collect::<Vec<_>>().join(" ");
            bail!("not installed in {directory}: {missing}. Run: e2e/tools/install {missing}");
        }
        Ok(Self { directory: directory.into() })
    }

    /// The path of a program or folder of a part.
    pub fn path(&self, part: Part, name: &str) -> PathBuf {
        self.directory.join(part.name()).join(name)
    }

    /// The machine's kubectl, or else the one that was installed beside helm.
    pub fn kubectl(&self) -> PathBuf {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .map(|folder| folder.join("kubectl"))
            .find(|file| file.is_file())
            .unwrap_or_else(|| self.path(Part::Helm, "kubectl"))
    }
}

/// Installs the `parts` that are missing, as `e2e/tools/install` does; it reports on stderr.
///
/// # Errors
/// A part could not be installed, for example because Go is not on the machine.
pub fn install(parts: &[Part]) -> Result<()> {
    let status = Command::new(script())
        .args(parts.iter().map(|part| part.name()))
        .status()
        .context("starting e2e/tools/install")?;
    if !status.success() {
        bail!("e2e/tools/install could not install everything");
    }
    Ok(())
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/install")
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("running {:?}", command.get_program()))?;
    // 3 is the answer "something is missing"; the list of it is on stdout.
    if !output.status.success() && output.status.code() != Some(3) {
        bail!("{:?}: {}", command.get_program(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
