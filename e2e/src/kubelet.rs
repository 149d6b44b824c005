//! A stand-in for the kubelets of a few nodes, and for the scheduler.
//!
//! It binds every pod to a node, gives it an address of its own, serves HTTP on its container ports ([`pod`]),
//! reports it running and then ready, runs the commands of pods that are to end (those of Jobs) and reports their exit
//! codes, and takes pods that are being deleted away once they have drained. A pod becomes ready after the delay of the
//! kubelet's options or of the pod itself (see [`pod`]) or the `initialDelaySeconds` of a readiness probe, whichever is
//! later, and only while its readiness gates are true.
//!
//! One watch feeds one small task a pod, and the API calls of all tasks together are bounded, so that thousands of pods
//! cost little.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Container, Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tidegate::clock::Clock;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::apply;
use crate::job;
use crate::namespace::HOST;
use crate::pod::{self, Behaviour, ImageBehaviour, PodServer, ReadyAfter};

/// What may be chosen about the kubelets.
#[derive(Clone, Debug)]
pub struct KubeletOptions {
    /// How many nodes there are.
    pub nodes: usize,
    /// From running to ready, for pods that do not say it themselves.
    pub ready_after: Duration,
    /// How long a pod that serves goes on to serve after its deletion, as a preStop sleep would have it. A pod with a
    /// `preStop.sleep` of its own has that.
    pub drain: Duration,
    /// A pod that becomes ready within this time of its start is reported running and ready in one write, not two. It
    /// saves a quarter of what a pod costs the API server, which a bench may want; zero is what real kubelets do.
    pub silent_start: Duration,
    /// How many API calls may be under way at once.
    pub concurrency: usize,
}

impl Default for KubeletOptions {
    fn default() -> Self {
        Self {
            nodes: 3,
            ready_after: Duration::from_millis(200),
            drain: Duration::from_secs(2),
            silent_start: Duration::ZERO,
            concurrency: 32,
        }
    }
}

/// The running kubelets. Dropping it stops them and every pod at once, and leaves the objects as they are.
#[derive(Debug)]
pub struct Kubelet {
    images: watch::Sender<Images>,
    _tasks: JoinSet<()>,
}

/// How the pods of images behave, by namespace and tag.
type Images = BTreeMap<(String, String), ImageBehaviour>;

impl Kubelet {
    /// Makes the nodes and starts to look after pods. Its log and the output of Job pods go to the folder `pods` of `folder`.
    ///
    /// # Errors
    /// The nodes cannot be made.
    pub async fn start(client: Client, folder: &Path, options: KubeletOptions) -> Result<Self> {
        let folder = folder.join("pods");
        std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        for number in 0..options.nodes {
            create_node(&client, number).await?;
        }
        let log = folder.join("kubelet.log");
        let log = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let (images, read_images) = watch::channel(Images::new());
        let shared = Shared {
            images: read_images,
            log,
            calls: Semaphore::new(options.concurrency),
            addresses: Mutex::new(Addresses::default()),
            bound: AtomicUsize::new(0),
            clock: Clock::system(),
            client,
            folder,
            options,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(look_after_pods(Arc::new(shared)));
        Ok(Self { images, _tasks: tasks })
    }

    /// Changes how all pods of a namespace behave whose image has this tag, those that run included.
    pub fn set_image(&self, namespace: &str, tag: &str, behaviour: ImageBehaviour) {
        let key = (namespace.to_owned(), tag.to_owned());
        self.images.send_modify(|images| {
            images.insert(key, behaviour);
        });
    }
}

/// What all pods share.
struct Shared {
    client: Client,
    folder: PathBuf,
    options: KubeletOptions,
    calls: Semaphore,
    addresses: Mutex<Addresses>,
    images: watch::Receiver<Images>,
    log: File,
    /// How many pods were bound, so that they go to the nodes in turn.
    bound: AtomicUsize,
    clock: Clock,
}

/// The pod is gone, or is not the one that we knew.
#[derive(Debug)]
struct Gone;

async fn look_after_pods(shared: Arc<Shared>) {
    let mut pods: HashMap<String, watch::Sender<Arc<Pod>>> = HashMap::new();
    let mut listed = HashSet::new();
    let mut tasks = JoinSet::new();
    let mut events = watcher(Api::<Pod>::all(shared.client.clone()), watcher::Config::default()).boxed();
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            Some(_) = tasks.join_next() => continue,
        };
        match event {
            Some(Ok(Event::Apply(pod) | Event::InitApply(pod))) => {
                let uid = pod.uid().unwrap_or_default();
                listed.insert(uid.clone());
                let pod = Arc::new(pod);
                match pods.get(&uid).filter(|known| !known.is_closed()) {
                    Some(known) => {
                        known.send_replace(pod);
                    }
                    None if has_work(&pod) => {
                        let (sender, observed) = watch::channel(pod);
                        pods.insert(uid, sender);
                        let shared = shared.clone();
                        tasks.spawn(async move {
                            let _ = PodTask { shared, observed }.run().await;
                        });
                    }
                    None => {}
                }
            }
            Some(Ok(Event::Delete(pod))) => {
                pods.remove(&pod.uid().unwrap_or_default());
            }
            Some(Ok(Event::Init)) => listed.clear(),
            Some(Ok(Event::InitDone)) => pods.retain(|uid, _| listed.contains(uid)),
            // The stream recovers by itself; a pause of our own, because the API server may be down for a while.
            Some(Err(_)) => sleep(Duration::from_millis(200)).await,
            None => return,
        }
    }
}

/// Whether there is something to do for a pod that is not known yet.
fn has_work(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let gated = pod.spec.as_ref().is_some_and(|spec| spec.scheduling_gates.iter().flatten().next().is_some());
    is_terminating(pod) || !gated && !matches!(phase, Some("Succeeded" | "Failed"))
}

fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// One pod's life, from binding to deletion.
struct PodTask {
    shared: Arc<Shared>,
    observed: watch::Receiver<Arc<Pod>>,
}

impl PodTask {
    async fn run(mut self) -> Result<(), Gone> {
        let pod = self.observed.borrow_and_update().clone();
        if !is_terminating(&pod) {
            let spec = pod.spec.as_ref().ok_or(Gone)?;
            if spec.node_name.is_none() {
                self.bind(&pod).await?;
            }
            let address = Address::take(&self.shared);
            if spec.restart_policy.as_deref().is_none_or(|policy| policy == "Always") {
                self.serve(address.ip).await?;
            } else {
                self.run_to_completion(&pod, address.ip).await?;
            }
        }
        self.remove().await
    }

    async fn bind(&self, pod: &Pod) -> Result<(), Gone> {
        let node = self.shared.bound.fetch_add(1, Ordering::Relaxed) % self.shared.options.nodes.max(1);
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod.name_any(), "namespace": pod.namespace(), "uid": pod.uid()},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node_name(node)},
        });
        let (api, name, post) = (&self.api(pod), &pod.name_any(), &PostParams::default());
        let binding = &binding;
        self.call(|| async move {
            match api.create_subresource::<_, Value>("binding", name, post, binding).await {
                // It is bound already: the answer to an earlier call was lost.
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
                answer => answer.map(drop),
            }
        })
        .await
    }

    /// Serves until the pod is to be deleted, and then until it has drained.
    async fn serve(&mut self, address: Ipv4Addr) -> Result<(), Gone> {
        let pod = self.observed.borrow().clone();
        let started = Instant::now();
        let start_time = self.now();
        let ports = ports(&pod);
        let server = match PodServer::start(&pod.name_any(), address, &ports, self.behaviour(&pod)).await {
            Ok(server) => server,
            Err(error) => {
                let waiting = json!({"waiting": {"reason": "CrashLoopBackOff", "message": format!("{error:#}")}});
                let status = self.status(&pod, "Running", address, &start_time, &[], |_| (false, waiting.clone()));
                self.report(&pod, status).await?;
                return self.until_deleted().await;
            }
        };
        let mut reported = None;
        let mut images = self.shared.images.clone();
        loop {
            images.mark_unchanged();
            let pod = self.observed.borrow_and_update().clone();
            if is_terminating(&pod) {
                break;
            }
            let behaviour = self.behaviour(&pod);
            let delay = self.ready_delay(&pod, &behaviour);
            let ready_at = delay.map(|delay| started + delay);
            let containers = behaviour.ready && ready_at.is_some_and(|at| at <= Instant::now());
            let waits = behaviour.ready && !containers && ready_at.is_some();
            server.behave(behaviour);
            let wanted = (containers, containers && gates_open(&pod));
            let silent =
                reported.is_none() && waits && delay.is_some_and(|delay| delay <= self.shared.options.silent_start);
            if reported != Some(wanted) && !silent {
                let conditions = [("ContainersReady", wanted.0), ("Ready", wanted.1)];
                let running = json!({"running": {"startedAt": start_time}});
                let status =
                    self.status(&pod, "Running", address, &start_time, &conditions, |_| (containers, running.clone()));
                self.report(&pod, status).await?;
                reported = Some(wanted);
            }
            tokio::select! {
                changed = self.observed.changed() => changed.map_err(|_| Gone)?,
                Ok(()) = images.changed() => {}
                () = sleep_until(ready_at.unwrap_or(started)), if waits => {}
            }
        }
        if !ports.is_empty() && reported.is_some_and(|(_, ready)| ready) {
            let drain = self.drain(&self.observed.borrow());
            sleep(drain).await;
        }
        server.stop().await;
        Ok(())
    }

    fn behaviour(&self, pod: &Pod) -> Behaviour {
        let behaviour = Behaviour::of(pod);
        let key = (pod.namespace().unwrap_or_default(), pod::image_tag(pod).unwrap_or_default().to_owned());
        match self.shared.images.borrow().get(&key) {
            Some(image) => behaviour.of_image(*image),
            None => behaviour,
        }
    }

    /// When the pod is to be ready, counted from its start; `None` for never.
    fn ready_delay(&self, pod: &Pod, behaviour: &Behaviour) -> Option<Duration> {
        let own = match behaviour.ready_after {
            ReadyAfter::Never => return None,
            ReadyAfter::Delay(delay) => delay,
            ReadyAfter::Default => self.shared.options.ready_after,
        };
        let probes = containers(pod).iter().filter_map(|container| container.readiness_probe.as_ref());
        let seconds = probes.filter_map(|probe| probe.initial_delay_seconds).max().unwrap_or(0);
        Some(own.max(Duration::from_secs(u64::try_from(seconds).unwrap_or(0))))
    }

    fn drain(&self, pod: &Pod) -> Duration {
        let sleeps = containers(pod).iter().filter_map(|container| {
            container.lifecycle.as_ref()?.pre_stop.as_ref()?.sleep.as_ref()?.seconds.try_into().ok()
        });
        let drain = sleeps.max().map_or(self.shared.options.drain, Duration::from_secs);
        let grace = pod.metadata.deletion_grace_period_seconds.and_then(|seconds| seconds.try_into().ok());
        drain.min(Duration::from_secs(grace.unwrap_or(30)))
    }

    /// Runs the containers' commands, and reports how they ended.
    async fn run_to_completion(&mut self, pod: &Pod, address: Ipv4Addr) -> Result<(), Gone> {
        let start_time = self.now();
        let running = json!({"running": {"startedAt": start_time}});
        let ready = [("ContainersReady", true), ("Ready", true)];
        let status = self.status(pod, "Running", address, &start_time, &ready, |_| (true, running.clone()));
        self.report(pod, status).await?;

        let restarts = pod.spec.as_ref().is_some_and(|spec| spec.restart_policy.as_deref() == Some("OnFailure"));
        let ends = {
            let mut commands = Vec::new();
            for container in containers(pod) {
                commands.push(self.run_container(pod, container, address, restarts));
            }
            tokio::select! {
                ends = join_all(commands) => ends,
                gone = until_terminating(self.observed.clone()) => return gone,
            }
        };
        let phase = if ends.iter().all(|(code, _)| *code == 0) { "Succeeded" } else { "Failed" };
        let finished = self.now();
        let over = [("ContainersReady", false), ("Ready", false)];
        let status = self.status(pod, phase, address, &start_time, &over, |index| {
            let (code, message) = &ends[index];
            let reason = if *code == 0 { "Completed" } else { "Error" };
            let end = json!({
                "exitCode": code, "reason": reason, "message": message,
                "startedAt": start_time, "finishedAt": finished,
            });
            (false, json!({"terminated": end}))
        });
        self.report(pod, status).await?;
        self.until_deleted().await
    }

    async fn run_container(
        &self,
        pod: &Pod,
        container: &Container,
        address: Ipv4Addr,
        restarts: bool,
    ) -> (i32, String) {
        loop {
            let (client, folder) = (&self.shared.client, &self.shared.folder);
            let end = match job::start(client, pod, container, &address.to_string(), folder).await {
                Ok(mut process) => process.wait().await,
                Err(error) => Err(error),
            };
            let end = match end {
                // A program that a signal ended has no code; 137 is what a container runtime makes of SIGKILL.
                Ok(status) => (status.code().unwrap_or(137), String::new()),
                Err(error) => (128, format!("{error:#}")),
            };
            if end.0 == 0 || !restarts {
                return end;
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    async fn until_deleted(&self) -> Result<(), Gone> {
        until_terminating(self.observed.clone()).await
    }

    /// Removes the object of a pod that has ended.
    async fn remove(&self) -> Result<(), Gone> {
        let pod = self.observed.borrow().clone();
        let delete = DeleteParams {
            preconditions: Some(Preconditions { uid: pod.uid(), resource_version: None }),
            ..DeleteParams::default().grace_period(0)
        };
        let (api, name, delete) = (&self.api(&pod), &pod.name_any(), &delete);
        self.call(|| async move { api.delete(name, delete).await.map(drop) }).await
    }

    fn status(
        &self,
        pod: &Pod,
        phase: &str,
        address: Ipv4Addr,
        start_time: &str,
        conditions: &[(&str, bool)],
        state: impl Fn(usize) -> (bool, Value),
    ) -> Value {
        let now = self.now();
        let condition = |name: &str, value: bool, since: &str| {
            let reason = (!value).then_some(if phase == "Succeeded" { "PodCompleted" } else { "ContainersNotReady" });
            let value = if value { "True" } else { "False" };
            json!({"type": name, "status": value, "reason": reason, "lastTransitionTime": since})
        };
        let always = ["Initialized", "PodScheduled"].into_iter().map(|name| condition(name, true, start_time));
        let changed = conditions.iter().map(|(name, value)| condition(name, *value, &now));
        let conditions: Vec<_> = always.chain(changed).collect();
        let containers: Vec<_> = containers(pod)
            .iter()
            .enumerate()
            .map(|(index, container)| {
                let (ready, state) = state(index);
                json!({
                    "name": container.name,
                    "image": container.image,
                    "imageID": container.image,
                    "ready": ready,
                    "started": ready || phase == "Running",
                    "restartCount": 0,
                    "state": state,
                })
            })
            .collect();
        json!({
            "phase": phase,
            "hostIP": HOST,
            "hostIPs": [{"ip": HOST}],
            "podIP": address,
            "podIPs": [{"ip": address}],
            "startTime": start_time,
            "conditions": conditions,
            "containerStatuses": containers,
        })
    }

    async fn report(&self, pod: &Pod, status: Value) -> Result<(), Gone> {
        // The uid makes the API server refuse the patch for a pod that was replaced by one of the same name. Conditions
        // are merged by type, so that those of readiness gates stay.
        let patch = &Patch::Strategic(json!({"metadata": {"uid": pod.uid()}, "status": status}));
        let (api, name, parameters) = (&self.api(pod), &pod.name_any(), &PatchParams::default());
        self.call(|| async move { api.patch_status(name, parameters, patch).await.map(drop) }).await
    }

    /// Makes an API call, and makes it again until it is answered.
    async fn call<F>(&self, mut call: impl FnMut() -> F) -> Result<(), Gone>
    where
        F: Future<Output = kube::Result<()>>,
    {
        let mut pause = Duration::from_millis(50);
        loop {
            {
                // The semaphore is never closed; if it were, there would be no bound.
                let _permit = self.shared.calls.acquire().await;
                match timeout(Duration::from_secs(10), call()).await {
                    Ok(Ok(())) => return Ok(()),
                    Ok(Err(kube::Error::Api(status))) if status.code == 404 => return Err(Gone),
                    // Another pod has the name, or the object changed under the API server's own hands.
                    Ok(Err(kube::Error::Api(status))) if status.code == 409 => {}
                    Ok(Err(error)) => {
                        let pod = self.observed.borrow().name_any();
                        // Nothing is lost if it cannot be logged.
                        let _ = writeln!(&self.shared.log, "{} pod {pod}: {error}; trying again", self.now());
                    }
                    Err(_) => {}
                }
            }
            sleep(pause).await;
            if self.observed.has_changed().is_err() {
                return Err(Gone);
            }
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    fn api(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.shared.client.clone(), &pod.namespace().unwrap_or_default())
    }

    fn now(&self) -> String {
        self.shared.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }
}

async fn until_terminating(mut observed: watch::Receiver<Arc<Pod>>) -> Result<(), Gone> {
    observed.wait_for(|pod| is_terminating(pod)).await.map(drop).map_err(|_| Gone)
}

fn gates_open(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_deref()).unwrap_or_default();
    gates.iter().all(|gate| {
        conditions.iter().any(|condition| condition.type_ == gate.condition_type && condition.status == "True")
    })
}

fn containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().map_or(&[], |spec| &spec.containers)
}

fn ports(pod: &Pod) -> Vec<u16> {
    let ports = containers(pod).iter().flat_map(|container| container.ports.iter().flatten());
    let tcp = ports.filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"));
    tcp.filter_map(|port| u16::try_from(port.container_port).ok()).collect()
}

async fn create_node(client: &Client, number: usize) -> Result<()> {
    let name = node_name(number);
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {
        "name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"},
    }});
    apply::object(client, "", node).await?;
    let capacity = json!({"cpu": "64", "memory": "256Gi", "pods": "10000"});
    let status = json!({"status": {
        "capacity": capacity,
        "allocatable": capacity,
        "addresses": [{"type": "InternalIP", "address": HOST}, {"type": "Hostname", "address": name}],
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "stand-in"}],
    }});
    Api::<Node>::all(client.clone())
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
        .await
        .with_context(|| format!("reporting {name} ready"))?;
    Ok(())
}

fn node_name(number: usize) -> String {
    format!("node-{number}")
}

/// The addresses of pods: 10.64.1.0 to 10.64.255.255, in turn.
#[derive(Default)]
struct Addresses {
    next: u16,
    taken: HashSet<u16>,
}

struct Address {
    shared: Arc<Shared>,
    number: u16,
    ip: Ipv4Addr,
}

impl Address {
    fn take(shared: &Arc<Shared>) -> Self {
        let mut addresses = shared.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        // In turn, so that an address is not used again while someone may still send to its old owner. With more than
        // 65,000 pods two would share one, and the second could not listen.
        for _ in 0..u16::MAX {
            addresses.next = addresses.next.checked_add(1).unwrap_or(256).max(256);
            if !addresses.taken.contains(&addresses.next) {
                break;
            }
        }
        let number = addresses.next;
        addresses.taken.insert(number);
        let [third, fourth] = number.to_be_bytes();
        Self { shared: shared.clone(), number, ip: Ipv4Addr::new(10, 64, third, fourth) }
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        self.shared.addresses.lock().unwrap_or_else(PoisonError::into_inner).taken.remove(&self.number);
    }
}
