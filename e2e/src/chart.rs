//! Tidegate's own Helm chart, rendered by a real Helm and applied without its Deployment: the controller runs outside.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kube::Client;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::apply;
use crate::tools::{Part, Tools};

/// The release and its namespace, so that the chart's service account is [`crate::cluster::CONTROLLER`].
pub const RELEASE: &str = "tidegate";

/// What is applied of the chart, beside the CRDs.
const KINDS: &[&str] = &["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];

/// The folder of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Renders the chart's documents.
///
/// # Errors
/// Helm is not installed, or refuses the chart.
pub async fn render(tools: &Tools) -> Result<Vec<Value>> {
    let output = Command::new(tools.path(Part::Helm, "helm"))
        .args(["template", RELEASE])
        .arg(workspace().join("charts/tidegate"))
        .args(["--namespace", RELEASE])
        .output()
        .await
        .context("running helm")?;
    if !output.status.success() {
        bail!("helm template: {}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8(output.stdout).context("what helm printed")?;
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).context("parsing what helm printed")?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// Applies the CRDs, and the chart's service account and rights.
///
/// # Errors
/// As [`render`]; or the API server refuses something.
pub async fn install(tools: &Tools, client: &Client) -> Result<()> {
    apply::crds(client, &workspace().join("crds")).await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": RELEASE}});
    apply::object(client, "", namespace).await?;
    for document in render(tools).await? {
        if document["kind"].as_str().is_some_and(|kind| KINDS.contains(&kind)) {
            apply::object(client, RELEASE, document).await?;
        }
    }
    Ok(())
}
