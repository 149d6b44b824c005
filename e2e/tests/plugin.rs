//! The kubectl plugin against the sandbox, over HTTP and in real time. The harness' test does the same on a real control plane.

use std::path::PathBuf;
use std::sync::Arc;

use tidegate::clock::Clock;
use tidegate::controller::{self, settings::Settings};
use tidegate::providers::http::Network;
use tidegate::providers::{JobTarget, Providers};
use tidegate::sandbox::Cluster;
use tidegate_e2e::plugin;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_works_on_the_sandbox() {
    let cluster = Cluster::builder().start();
    let serving = cluster.serve("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let folder = Folder(std::env::temp_dir().join(format!("tidegate-plugin-{}", std::process::id())));
    std::fs::create_dir_all(&folder.0).unwrap();
    let kubeconfig = folder.0.join("kubeconfig");
    std::fs::write(&kubeconfig, serving.kubeconfig("default")).unwrap();
    let client = cluster.client("default");
    let jobs = JobTarget { client: client.clone(), namespace: None, other_cluster: false };
    let providers = Providers::new(Arc::new(Network::new()), jobs, Clock::system(), None);
    let running = tokio::spawn(controller::run(
        client.clone(),
        providers,
        Clock::system(),
        Settings::default(),
        std::future::pending(),
    ));
    for (name, program) in plugin::programs().unwrap() {
        let tried = plugin::try_everything(name, &program, &client, &kubeconfig, &folder.0).await;
        tried.unwrap_or_else(|error| panic!("{name}: {error:?}"));
    }
    running.abort();
}

/// A folder that goes when the test ends.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
