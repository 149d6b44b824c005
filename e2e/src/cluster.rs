//! A Kubernetes control plane: etcd, kube-apiserver and kube-controller-manager as child processes.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::process::Command;
use tokio::time::timeout;

use crate::audit::{self, Audit};
use crate::namespace::HOST;
use crate::process::{Process, Usage};
use crate::tools::{Part, Tools};

/// The user that the controller runs as: the service account `tidegate` of the namespace `tidegate`, so that the chart's
/// own bindings grant it what it may do.
pub const CONTROLLER: &str = "system:serviceaccount:tidegate:tidegate";
/// The user that tests act as; it may do everything.
pub const ADMIN: &str = "admin";
/// The user of the kubelet stand-in; it may do everything.
pub const KUBELET: &str = "kubelet";
/// The user of the gateway; it may do everything.
pub const GATEWAY: &str = "gateway";
const CONTROLLER_MANAGER: &str = "kube-controller-manager";

/// How long a part of the control plane may take to start on a machine that is busy.
const START: Duration = Duration::from_secs(90);

/// The controllers of kube-controller-manager that rollouts live with.
const CONTROLLERS: &[&str] = &[
    "deployment-controller",
    "disruption-controller",
    "endpoints-controller",
    "endpointslice-controller",
    "garbage-collector-controller",
    "horizontal-pod-autoscaler-controller",
    "job-controller",
    "namespace-controller",
    "replicaset-controller",
    "serviceaccount-controller",
];

/// What may be chosen about a cluster.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// The users whose writes are in the audit log.
    pub audited: Vec<&'static str>,
    /// Whether their reads are in it as well. It makes the log long.
    pub audited_reads: bool,
    /// Requests a second that each controller of kube-controller-manager may make. Kubernetes' default of 20 would make
    /// kube-controller-manager what a bench measures.
    pub controller_manager_qps: u32,
    /// Further arguments of kube-controller-manager.
    pub controller_manager_args: Vec<String>,
    /// Further arguments of kube-apiserver.
    pub api_server_args: Vec<String>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            audited: vec![CONTROLLER, ADMIN],
            audited_reads: false,
            controller_manager_qps: 500,
            controller_manager_args: Vec::new(),
            api_server_args: Vec::new(),
        }
    }
}

/// A running control plane.
#[derive(Debug)]
pub struct Cluster {
    tools: Tools,
    folder: PathBuf,
    options: ClusterOptions,
    ports: Ports,
    etcd: Option<Process>,
    api_server: Option<Process>,
    controller_manager: Option<Process>,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    etcd: u16,
    etcd_peer: u16,
    api_server: u16,
    controller_manager: u16,
}

struct User {
    name: &'static str,
    groups: &'static str,
}

const USERS: &[User] = &[
    User { name: ADMIN, groups: "system:masters" },
    User { name: KUBELET, groups: "system:masters" },
    User { name: GATEWAY, groups: "system:masters" },
    User { name: CONTROLLER_MANAGER, groups: "system:masters" },
    User { name: CONTROLLER, groups: "system:serviceaccounts,system:serviceaccounts:tidegate" },
];

impl Cluster {
    /// Starts a control plane whose files are in `folder`, and waits until it can be used.
    ///
    /// # Errors
    /// A program is not installed, or one of them ended or was not ready in time; the end of its log is in the message.
    pub async fn start(tools: &Tools, folder: &Path, options: ClusterOptions) -> Result<Self> {
        let folder = folder.join("cluster");
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let [etcd, etcd_peer, api_server, controller_manager] = free_ports()?;
        let ports = Ports { etcd, etcd_peer, api_server, controller_manager };
        let mut cluster = Self {
            tools: tools.clone(),
            folder,
            options,
            ports,
            etcd: None,
            api_server: None,
            controller_manager: None,
        };
        cluster.write_files().await?;
        cluster.start_etcd().await?;
        cluster.start_api_server().await?;
        cluster.start_controller_manager().await?;
        Ok(cluster)
    }

    /// The URL at which etcd serves its clients.
    pub fn etcd_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.etcd)
    }

    /// The URL of the API server.
    pub fn url(&self) -> String {
        format!("https://{HOST}:{}", self.ports.api_server)
    }

    /// The certificate by which clients know the API server.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("certificates/apiserver.crt")
    }

    /// A kubeconfig file for one of [`ADMIN`], [`CONTROLLER`], [`KUBELET`] and [`GATEWAY`].
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.folder.join(format!("{}.kubeconfig", file_name(user)))
    }

    /// The bearer token of a user.
    pub fn token(&self, user: &str) -> String {
        format!("{}-token", file_name(user))
    }

    /// A client that acts as the user.
    ///
    /// # Errors
    /// There is no such user.
    pub async fn client(&self, user: &str) -> Result<Client> {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig(user)).with_context(|| format!("no user {user}"))?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        // A server that is down, or a request that it refuses for its load, is to be seen, not waited for.
        config.default_retry = false;
        Ok(Client::try_from(config)?)
    }

    /// A command that runs kubectl as the user.
    pub fn kubectl(&self, user: &str) -> Command {
        let mut command = Command::new(self.tools.kubectl());
        command.env("KUBECONFIG", self.kubeconfig(user));
        command
    }

    /// The log of the audited users' writes.
    pub fn audit(&self) -> Audit {
        Audit::new(&self.folder.join("audit.log"))
    }

    /// What each of the three programs has used, by name.
    ///
    /// # Errors
    /// One of them has ended.
    pub fn usage(&self) -> Result<BTreeMap<&'static str, Usage>> {
        let processes = [
            ("etcd", &self.etcd),
            ("kube-apiserver", &self.api_server),
            (CONTROLLER_MANAGER, &self.controller_manager),
        ];
        processes
            .into_iter()
            .filter_map(|(name, process)| Some((name, process.as_ref()?)))
            .map(|(name, process)| Ok((name, process.usage()?)))
            .collect()
    }

    /// Kills the API server, as a crash would. Its data stays in etcd.
    pub async fn kill_api_server(&mut self) {
        if let Some(api_server) = self.api_server.take() {
            api_server.kill().await;
        }
    }

    /// Starts the API server again on its old address.
    ///
    /// # Errors
    /// It is still running, or it does not start.
    pub async fn restart_api_server(&mut self) -> Result<()> {
        if self.api_server.is_some() {
            bail!("the API server is running");
        }
        self.start_api_server().await
    }

    /// Stops the API server in its tracks, with SIGSTOP: its connections stay open, and it answers nothing.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause_api_server(&self) -> Result<()> {
        self.api_server.as_ref().context("the API server does not run")?.signal(Signal::SIGSTOP)
    }

    /// Lets a paused API server go on.
    ///
    /// # Errors
    /// It does not run.
    pub fn resume_api_server(&self) -> Result<()> {
        self.api_server.as_ref().context("the API server does not run")?.signal(Signal::SIGCONT)
    }

    /// Kills etcd, as a crash would. What it has acknowledged stays.
    pub async fn kill_etcd(&mut self) {
        if let Some(etcd) = self.etcd.take() {
            etcd.kill().await;
        }
    }

    /// Starts etcd again on its old address.
    ///
    /// # Errors
    /// It is still running, or it does not start.
    pub async fn restart_etcd(&mut self) -> Result<()> {
        if self.etcd.is_some() {
            bail!("etcd is running");
        }
        self.start_etcd().await
    }

    /// Stops the three programs, the last started first.
    pub async fn stop(mut self) {
        for process in [self.controller_manager.take(), self.api_server.take(), self.etcd.take()].into_iter().flatten()
        {
            process.stop().await;
        }
    }

    async fn write_files(&self) -> Result<()> {
        let write = |name: &str, content: String| {
            let file = self.folder.join(name);
            fs::write(&file, content).with_context(|| format!("writing {}", file.display()))
        };
        let mut tokens = String::new();
        for user in USERS {
            let token = self.token(user.name);
            tokens += &format!("{token},{name},{name},\"{groups}\"\n", name = user.name, groups = user.groups);
            write(&format!("{}.kubeconfig", file_name(user.name)), self.kubeconfig_content(&token))?;
        }
        write("tokens.csv", tokens)?;
        write("audit-policy.json", audit::policy(&self.options.audited, self.options.audited_reads).to_string())?;
        write("audit.log", String::new())?;
        let key = Command::new("openssl")
            .args(["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out"])
            .arg(self.folder.join("service-accounts.key"))
            .output()
            .await
            .context("running openssl, which makes the key of service accounts")?;
        if !key.status.success() {
            bail!("openssl ecparam: {}", String::from_utf8_lossy(&key.stderr));
        }
        Ok(())
    }

    /// JSON is YAML too.
    fn kubeconfig_content(&self, token: &str) -> String {
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "e2e",
            "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": "e2e"}}],
            "clusters": [{
                "name": "e2e",
                "cluster": {"server": self.url(), "certificate-authority": self.certificate()},
            }],
            "users": [{"name": "e2e", "user": {"token": token}}],
        })
        .to_string()
    }

    async fn start_etcd(&mut self) -> Result<()> {
        let client = self.etcd_url();
        let peer = format!("http://127.0.0.1:{}", self.ports.etcd_peer);
        let mut etcd = Process::spawn(
            "etcd",
            Command::new(self.tools.path(Part::Controlplane, "etcd"))
                .arg("--data-dir")
                .arg(self.folder.join("etcd"))
                .arg("--unsafe-no-fsync")
                .arg(format!("--listen-client-urls={client}"))
                .arg(format!("--advertise-client-urls={client}"))
                .arg(format!("--listen-peer-urls={peer}"))
                .arg(format!("--initial-advertise-peer-urls={peer}"))
                .arg(format!("--initial-cluster=default={peer}"))
                .args(["--log-level=warn", "--quota-backend-bytes=2147483648"]),
            &self.folder,
        )?;
        let port = self.ports.etcd;
        etcd.ready(START, async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()).await?;
        self.etcd = Some(etcd);
        Ok(())
    }

    async fn start_api_server(&mut self) -> Result<()> {
        let file = |name: &str| self.folder.join(name).display().to_string();
        let mut api_server = Process::spawn(
            "kube-apiserver",
            Command::new(self.tools.path(Part::Controlplane, "kube-apiserver"))
                .arg(format!("--etcd-servers=http://127.0.0.1:{}", self.ports.etcd))
                .arg(format!("--bind-address={HOST}"))
                .arg(format!("--advertise-address={HOST}"))
                .arg(format!("--secure-port={}", self.ports.api_server))
                .arg(format!("--cert-dir={}", file("certificates")))
                .arg("--service-account-issuer=https://localhost")
                .arg(format!("--service-account-key-file={}", file("service-accounts.key")))
                .arg(format!("--service-account-signing-key-file={}", file("service-accounts.key")))
                .arg(format!("--token-auth-file={}", file("tokens.csv")))
                .arg(format!("--audit-policy-file={}", file("audit-policy.json")))
                .arg(format!("--audit-log-path={}", file("audit.log")))
                // In megabytes. A log that is rotated would lose what came before.
                .arg("--audit-log-maxsize=4000")
                .args(["--authorization-mode=RBAC", "--service-cluster-ip-range=10.96.0.0/16"])
                // Pods here have no service account tokens mounted.
                .args(["--disable-admission-plugins=ServiceAccount", "--endpoint-reconciler-type=none"])
                .args(&self.options.api_server_args),
            &self.folder,
        )?;
        let cluster = &*self;
        api_server
            .ready(START, async || {
                // The certificate is written by the server itself, so that there is no client before that.
                let Ok(client) = cluster.client(ADMIN).await else { return false };
                // A server that is just starting may accept and not answer.
                let defaults = Api::<Namespace>::all(client.clone());
                let default = timeout(Duration::from_secs(2), defaults.get("default"));
                matches!(default.await, Ok(Ok(_))) && is_ready(client).await
            })
            .await?;
        self.api_server = Some(api_server);
        Ok(())
    }

    async fn start_controller_manager(&mut self) -> Result<()> {
        let qps = self.options.controller_manager_qps;
        let mut controller_manager = Process::spawn(
            CONTROLLER_MANAGER,
            Command::new(self.tools.path(Part::Controlplane, CONTROLLER_MANAGER))
                .arg("--kubeconfig")
                .arg(self.kubeconfig(CONTROLLER_MANAGER))
                .args(["--leader-elect=false", "--use-service-account-credentials=false", "--bind-address=127.0.0.1"])
                .arg(format!("--secure-port={}", self.ports.controller_manager))
                .arg(format!("--cert-dir={}", self.folder.join("certificates-kcm").display()))
                .arg(format!("--controllers={}", CONTROLLERS.join(",")))
                .arg(format!("--kube-api-qps={qps}"))
                .arg(format!("--kube-api-burst={}", qps * 2))
                .args(&self.options.controller_manager_args),
            &self.folder,
        )?;
        // It makes a service account in every namespace, which shows that its controllers run.
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(ADMIN).await?, "default");
        controller_manager.ready(START, async || accounts.get("default").await.is_ok()).await?;
        self.controller_manager = Some(controller_manager);
        Ok(())
    }
}

/// Ports that nobody listens on.
///
/// They are below those that the kernel gives to clients, one of which could otherwise have the port of a server that is
/// down for a moment.
///
/// # Errors
/// There are none left.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    let mut ports = [0; N];
    for port in &mut ports {
        *port = (20_000..30_000)
            .map(|_| NEXT.fetch_add(1, Ordering::Relaxed))
            .find(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok())
            .context("finding a free port")?;
    }
    Ok(ports)
}

async fn is_ready(client: Client) -> bool {
    // The path is a constant, and a request without a body can always be built.
    let request = hyper::Request::get("/readyz").body(Vec::new()).expect("a constant request");
    client.request_text(request).await.is_ok_and(|answer| answer == "ok")
}

fn file_name(user: &str) -> String {
    user.replace(':', "-")
}
