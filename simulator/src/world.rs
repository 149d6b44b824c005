//! A cluster with its controllers, and what people and nature do to it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tidegate::cli::in_process;
use tidegate::clock::Clock;
use tidegate::controller::{self, settings::Settings};
use tidegate::providers::{JobTarget, Providers};
use tidegate::sandbox::cluster::Cluster;
use tidegate::sandbox::traffic::{self, Conduct, Load, Target};
use tidegate::sandbox::workloads::Behaviour;
use tidegate::sandbox::{Change, DeleteOptions, Faults, Patch, Scoped};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::base::Base;
use crate::faults::{Command, Injector};
use crate::metrics::Provider;
use crate::observe::{
    DESTINATION_RULES, HASH, HOST, HTTP_ROUTES, Log, NAMESPACE, REPLICA_SETS, ROLLOUTS, ROUTING, SERVICES, SLICES,
    Seen, VIRTUAL_SERVICES, View,
};
use crate::purity;
use crate::script::{Edit, Fault, Metrics, Millis, Router, Script, User, Version, What, When};

/// When every life begins: any instant will do, if only it is the same.
const EPOCH: &str = "2026-01-05T08:00:00Z";
/// From a crash until the next controller starts.
const RESTART: Duration = Duration::from_secs(1);
/// How long a leader that has lost its lease unnoticed goes on after it woke up.
const LAST_DEEDS: Duration = Duration::from_secs(5);
/// Requests of users in a second: what lasts for 20 ms loses one.
const RATE: f64 = 50.0;
/// How long gateways take to follow when nothing is wrong.
const PROPAGATION: Duration = Duration::from_millis(100);

/// A cluster in which a script comes true.
pub struct World {
    pub cluster: Arc<Cluster>,
    pub log: Arc<Log>,
    pub injector: Arc<Injector>,
    base: &'static Base,
    /// As the base scenario has it.
    strategy: Value,
    controllers: Mutex<Controllers>,
    provider: Provider,
    /// What the controllers' clocks show.
    clock: Clock,
    /// By how many milliseconds they are wrong.
    wrong_by: AtomicI64,
    seed: u64,
    start: Instant,
}

#[derive(Default)]
struct Controllers {
    started: u32,
    running: BTreeMap<String, JoinHandle<()>>,
}

impl World {
    /// The cluster with the base scenario's objects, the controller, and whoever makes the script come true.
    ///
    /// # Errors
    /// A base scenario that is refused.
    pub fn start(script: &Script, base: &'static Base, with_trace: bool) -> anyhow::Result<Arc<Self>> {
        // A constant that is a time.
        let epoch: Timestamp = EPOCH.parse()?;
        let clock = Clock::starting_at(epoch);
        let server = in_process::server(&clock, script.seed);
        // No promise depends on who owns which field.
        server.track_fields(false);
        let traffic = traffic::Settings {
            // Requests are counted whenever anything changes: between changes they all go the same way.
            tick: Duration::from_secs(600),
            propagation: PROPAGATION,
            ..traffic::Settings::default()
        };
        let cluster = Cluster::builder().seed(script.seed).server(server).traffic(traffic).start();
        let cluster = Arc::new(cluster);
        let usual = cluster.default_behaviour();
        cluster.set_default_behaviour(Behaviour { ready_after: Duration::from_millis(1200), ..usual });
        let usual = cluster.default_behaviour();
        cluster.set_image(SICK, Behaviour { never_ready: true, ..usual });
        let log = Log::new(cluster.clone(), with_trace);
        let (commands, received) = mpsc::unbounded_channel();
        let injector = Injector::new(log.clone(), &script.faults, commands);
        cluster.server().set_faults(injector.clone());
        cluster.apply(base.manifest)?;
        log.look_at_user();
        let world = Arc::new(Self {
            provider: Provider::new(log.clone()),
            clock: clock.independent(),
            wrong_by: AtomicI64::new(0),
            strategy: log.ask(|view| view.rollout()["spec"]["strategy"].clone()),
            cluster,
            log,
            injector,
            base,
            controllers: Mutex::default(),
            seed: script.seed,
            start: Instant::now(),
        });
        world.start_controller();
        tokio::spawn(world.clone().supervise(received));
        tokio::spawn(world.clone().watch());
        for fault in script.faults.iter().filter(|fault| !crate::faults::is_of_api(&fault.what)) {
            if let When::At(at) = fault.when {
                tokio::spawn(world.clone().befall(fault.clone(), at));
            }
        }
        Ok(world)
    }

    /// Users send their requests from now on, if a route leads them anywhere.
    pub fn send(&self) {
        if !self.log.ask(View::is_routed) {
            return;
        }
        self.cluster.send("users", Load { target: Target::host(HOST), rate: RATE });
    }

    /// Ends the controllers. What they had done stays.
    pub fn stop(&self) {
        self.controllers().running.values().for_each(JoinHandle::abort);
        // The server would hold the log, which holds the server.
        self.cluster.server().set_faults(Arc::new(Nothing));
    }

    /// Whether all controllers that should run do.
    pub fn runs(&self) -> bool {
        self.controllers().running.values().all(|task| !task.is_finished())
    }

    /// Everything that was made to go wrong is right again.
    pub fn heal(&self) {
        self.injector.relent();
        self.provider.set(None);
        self.set_clock(-self.wrong_by.swap(0, Ordering::Relaxed));
        self.cluster.set_gateway(None, Conduct::Follows);
        self.cluster.set_quota(NAMESPACE, None);
        self.cluster.set_node("node-1", true);
        for tag in TAGS {
            self.cluster.set_image(tag, self.cluster.default_behaviour());
        }
    }

    fn set_clock(&self, by: i64) {
        if by != 0 {
            self.clock.jump(SignedDuration::from_millis(by));
            self.log.note(Seen::ClockSet);
        }
    }

    fn controllers(&self) -> MutexGuard<'_, Controllers> {
        self.controllers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start_controller(&self) {
        let mut controllers = self.controllers();
        controllers.started += 1;
        let agent = format!("controller-{}", controllers.started);
        let client = self.cluster.server().client_of(NAMESPACE, &agent);
        let jobs = JobTarget { client: client.clone(), namespace: None, other_cluster: false };
        let clock = self.clock.clone();
        let providers = Providers::in_virtual_time(Arc::new(self.provider.clone()), jobs, clock.clone(), None);
        let settings = Settings {
            seed: self.seed.wrapping_add(u64::from(controllers.started)),
            // Few are enough for one Rollout.
            rollout_workers: 2,
            analysis_workers: 3,
            experiment_workers: 2,
            ..Settings::default()
        };
        let task = tokio::spawn(async move {
            // Why it ended is told by its silence: the life looks whether it still runs.
            let never = std::future::pending();
            let _ = controller::run_deciding(client, providers, clock, settings, purity::decide, never).await;
        });
        controllers.running.insert(agent, task);
    }

    fn end_controller(&self, agent: &str) {
        self.injector.kill(agent);
        if let Some(task) = self.controllers().running.remove(agent) {
            task.abort();
        }
    }

    async fn supervise(self: Arc<Self>, mut commands: mpsc::UnboundedReceiver<Command>) {
        while let Some(command) = commands.recv().await {
            match command {
                Command::Crashed { agent } => {
                    self.end_controller(&agent);
                    sleep(RESTART).await;
                    // Unless a successor of a paused one is there already.
                    if self.controllers().running.is_empty() {
                        self.start_controller();
                    }
                }
                Command::Befalls(what) => self.clone().befalls(what),
                Command::Paused { agent, until } => {
                    // One that stands still again after it has lost its lease has a successor already.
                    let alone = self.controllers().running.keys().all(|one| *one == agent);
                    if alone {
                        self.start_controller();
                    }
                    let world = self.clone();
                    tokio::spawn(async move {
                        sleep_until(world.start + Duration::from_millis(until) + LAST_DEEDS).await;
                        world.end_controller(&agent);
                        if world.controllers().running.is_empty() {
                            world.start_controller();
                        }
                    });
                }
            }
        }
    }

    /// Looks at every change, and when gateways have followed it.
    async fn watch(self: Arc<Self>) {
        let mut changes = self.cluster.server().subscribe();
        loop {
            let follow = PROPAGATION + Duration::from_millis(1);
            let unsettled = self.log.ask(|view| view.router > view.now);
            let longest = if unsettled { Duration::from_secs(1) } else { Duration::from_secs(600) };
            match tokio::time::timeout(longest, changes.next()).await {
                Ok(None) => return,
                Err(_) => {
                    self.log.look();
                    continue;
                }
                Ok(Some(change)) => {
                    let mut leads = leads_users(&change);
                    while let Some(change) = changes.try_next() {
                        leads |= leads_users(&change);
                    }
                    self.log.look();
                    if leads {
                        let log = self.log.clone();
                        tokio::spawn(async move {
                            sleep(follow).await;
                            log.look();
                        });
                    }
                }
            }
        }
    }

    /// Lets something go wrong now.
    pub fn befalls(self: Arc<Self>, what: What) {
        let at = Millis(self.log.now());
        tokio::spawn(self.befall(Fault::new(When::At(at), what), at));
    }

    /// Lets a fault happen at its time, and end at its own.
    async fn befall(self: Arc<Self>, fault: Fault, at: Millis) {
        sleep_until(self.start + Duration::from_millis(at.0)).await;
        self.log.note(Seen::Struck(fault.clone()));
        self.strike(&fault.what).await;
        self.log.look();
    }

    async fn strike(&self, what: &What) {
        let lasts = |time: &Millis| sleep(Duration::from_millis(time.0));
        match what {
            What::Clock(by) => {
                self.wrong_by.fetch_add(*by, Ordering::Relaxed);
                self.set_clock(*by);
            }
            What::Metrics(mood, time) => {
                self.provider.set(Some(*mood));
                lasts(time).await;
                self.provider.set(None);
            }
            What::Router(router, time) => {
                self.cluster.set_gateway(None, conduct(*router));
                lasts(time).await;
                self.cluster.set_gateway(None, Conduct::Follows);
            }
            What::User(user) => self.user(user).await,
            What::Evict(version) => {
                let pod = self.pod_of(*version);
                if let Some(pod) = pod {
                    // It may be gone already.
                    let _ = self.cluster.evict(NAMESPACE, &pod);
                }
            }
            What::Quota(time) => {
                let pods = self.admin().list("pods", NAMESPACE).len();
                self.cluster.set_quota(NAMESPACE, Some(pods));
                lasts(time).await;
                self.cluster.set_quota(NAMESPACE, None);
            }
            What::Unready(version, time) => {
                let Some(tag) = self.log.ask(|view| tag_of(view, *version)) else { return };
                let usual = self.cluster.default_behaviour();
                self.cluster.set_image(&tag, Behaviour { never_ready: true, ..usual.clone() });
                lasts(time).await;
                self.cluster.set_image(&tag, usual);
            }
            What::Node(time) => {
                self.cluster.set_node("node-1", false);
                lasts(time).await;
                self.cluster.set_node("node-1", true);
            }
            What::Behind(delay, time) => {
                self.cluster.set_replica_sets_behind(Duration::from_millis(delay.0));
                lasts(time).await;
                self.cluster.set_replica_sets_behind(Duration::ZERO);
            }
            What::Endpoints(delay, time) => {
                self.cluster.set_endpoints_delay(Duration::from_millis(delay.0));
                lasts(time).await;
                self.cluster.set_endpoints_delay(tidegate::sandbox::workloads::Settings::default().endpoints_delay);
            }
            What::Edit(edit) => self.edit(*edit),
            What::Outage(answer, time) => self.injector.refuse_writes(*answer, *time),
            _ => {}
        }
    }

    fn admin(&self) -> Scoped {
        self.cluster.user()
    }

    fn pod_of(&self, version: Version) -> Option<String> {
        let hash = self.log.ask(|view| hash_of(view, version))?;
        let pods = self.admin().list("pods", NAMESPACE);
        let pod = pods
            .iter()
            .find(|pod| pod["metadata"]["labels"][HASH] == *hash && pod["metadata"]["deletionTimestamp"].is_null())?;
        pod["metadata"]["name"].as_str().map(str::to_owned)
    }

    /// Somebody else's edit.
    fn edit(&self, edit: Edit) {
        let admin = self.admin();
        let meshed = self.log.ask(|view| view.object(VIRTUAL_SERVICES, "web").is_some());
        let route = if meshed { VIRTUAL_SERVICES } else { HTTP_ROUTES };
        let done = match edit {
            // Its weights are nobody's but the users': who breaks it has to mend it.
            Edit::Route if !self.routes_traffic() => return,
            Edit::Route => admin.edit(route, NAMESPACE, "web", |route| {
                let weights = if meshed { "/spec/http/0/route" } else { "/spec/rules/0/backendRefs" };
                for backend in route.pointer_mut(weights).and_then(Value::as_array_mut).into_iter().flatten() {
                    let weight = backend["weight"].as_i64().unwrap_or(100);
                    backend["weight"] = (100 - weight).into();
                }
            }),
            Edit::Service if self.log.ask(|view| view.object(DESTINATION_RULES, "web").is_some()) => {
                admin.edit(DESTINATION_RULES, NAMESPACE, "web", |rule| {
                    forget_hash(&mut rule["spec"]["subsets"][0]["labels"])
                })
            }
            Edit::Service => {
                let service = if self.is_blue_green() { "web-active" } else { "web-stable" };
                admin.edit(SERVICES, NAMESPACE, service, |service| forget_hash(&mut service["spec"]["selector"]))
            }
            Edit::Note => {
                let note = |route: &mut Value| route["metadata"]["annotations"]["example.com/note"] = "seen".into();
                admin.edit(route, NAMESPACE, "web", note)
            }
        };
        // Not every base scenario has the object.
        drop(done);
        self.log.look_at_user();
    }

    /// What a user does, by kubectl and the plugin's commands. What makes no sense at the moment is left.
    pub async fn user(&self, user: &User) {
        self.log.note(Seen::User(user.clone()));
        let admin = self.admin();
        let rollout = self.log.ask(|view| view.rollout().clone());
        let status = |patch: Value| {
            drop(admin.patch_status(ROLLOUTS, NAMESPACE, "web", &Patch::Merge(json!({"status": patch}))))
        };
        let spec = |patch: Value| drop(admin.patch(ROLLOUTS, NAMESPACE, "web", &Patch::Merge(json!({"spec": patch}))));
        match user {
            User::Release(tag) => self.release(tag),
            User::Undo => {
                let stable = self.log.ask(|view| tag_of(view, Version::Stable));
                if let Some(tag) = stable {
                    self.release(&tag);
                }
            }
            User::Abort => status(json!({"abort": true})),
            User::Retry => status(json!({"abort": false})),
            User::Promote => {
                let state = &rollout["status"];
                let steps = rollout["spec"]["strategy"]["canary"]["steps"].as_array().map_or(0, Vec::len);
                let index = state["currentStepIndex"].as_u64().and_then(|it| usize::try_from(it).ok()).unwrap_or(0);
                let paused = !state["pauseConditions"].is_null();
                let next = (index + 1).min(steps);
                let inconclusive = state["canary"]["currentStepAnalysisRunStatus"]["status"] == "Inconclusive";
                if paused && inconclusive && state["controllerPause"] == true {
                    status(json!({"pauseConditions": null, "controllerPause": false, "currentStepIndex": next}));
                } else if paused {
                    status(json!({"pauseConditions": null}));
                } else if steps > 0 && index < steps {
                    status(json!({"pauseConditions": null, "currentStepIndex": next}));
                }
                if rollout["spec"]["paused"] == true {
                    spec(json!({"paused": false}));
                }
            }
            User::PromoteFull => {
                if rollout["status"]["currentPodHash"] != rollout["status"]["stableRS"] {
                    status(json!({"promoteFull": true}));
                }
                if rollout["spec"]["paused"] == true {
                    spec(json!({"paused": false}));
                }
            }
            User::Pause => spec(json!({"paused": true})),
            User::Resume => spec(json!({"paused": false})),
            User::Scale(replicas) => spec(json!({"replicas": replicas})),
            User::Restart => {
                let now = self.cluster.server().clock().now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
                spec(json!({"restartAt": now}));
            }
            User::Steps => {
                if !rollout["spec"]["strategy"]["canary"].is_null() {
                    let steps = json!([
                        {"setWeight": 10}, {"pause": {"duration": "5s"}}, {"setWeight": 60}, {"pause": {"duration": "5s"}},
                    ]);
                    spec(json!({"strategy": {"canary": {"steps": steps}}}));
                }
            }
            User::Swap => self.swap(&rollout),
            User::Break => spec(json!({"minReadySeconds": 5, "progressDeadlineSeconds": 1})),
            User::Delete => self.delete_and_apply(&rollout).await,
        }
        self.log.look_at_user();
    }

    fn release(&self, tag: &str) {
        let (resource, image) = (self.base.template_in, format!("example/web:{tag}"));
        let set = |object: &mut Value| object["spec"]["template"]["spec"]["containers"][0]["image"] = image.into();
        // It is being deleted by somebody.
        let _ = self.admin().edit(resource, NAMESPACE, "web", set);
    }

    /// Canary becomes blue-green with the same Services, and becomes what it was.
    fn swap(&self, rollout: &Value) {
        let has_services = self.log.ask(|view| view.all(SERVICES).any(|(name, _)| name == "web-stable"));
        let is_original = rollout["spec"]["strategy"]["canary"].is_null() == self.is_blue_green();
        let strategy = match (is_original, self.is_blue_green()) {
            (false, _) => self.strategy.clone(),
            (true, true) => json!({"canary": {"steps": [{"setWeight": 50}, {"pause": {"duration": "5s"}}]}}),
            (true, false) if has_services => {
                json!({"blueGreen": {"activeService": "web-stable", "previewService": "web-canary"}})
            }
            (true, false) => return,
        };
        let _ = self.admin().edit(ROLLOUTS, NAMESPACE, "web", |rollout| rollout["spec"]["strategy"] = strategy);
    }

    /// Whether the Rollout moves the route at present.
    fn routes_traffic(&self) -> bool {
        self.log.ask(|view| !view.rollout()["spec"]["strategy"]["canary"]["trafficRouting"].is_null())
    }

    /// Whether the strategy is not the one that the base scenario began with.
    pub fn is_swapped(&self) -> bool {
        let rollout = self.log.ask(|view| view.rollout().clone());
        !rollout.is_null() && rollout["spec"]["strategy"]["canary"].is_null() != self.is_blue_green()
    }

    fn is_blue_green(&self) -> bool {
        !self.strategy["blueGreen"].is_null()
    }

    async fn delete_and_apply(&self, rollout: &Value) {
        let _ = self.admin().delete(ROLLOUTS, NAMESPACE, "web", &DeleteOptions::default());
        self.log.look_at_user();
        sleep(Duration::from_secs(5)).await;
        let metadata = json!({"name": "web", "labels": rollout["metadata"]["labels"]});
        let again = json!({
            "apiVersion": rollout["apiVersion"], "kind": "Rollout", "metadata": metadata, "spec": rollout["spec"],
        });
        let _ = self.admin().create(ROLLOUTS, NAMESPACE, again);
    }

    /// The user takes back what has made the spec an invalid one.
    pub fn mend(&self) {
        let broken = self.log.ask(|view| view.rollout()["spec"]["progressDeadlineSeconds"] == 1);
        if broken {
            let valid = json!({"spec": {"minReadySeconds": null, "progressDeadlineSeconds": null}});
            drop(self.admin().patch(ROLLOUTS, NAMESPACE, "web", &Patch::Merge(valid)));
            self.log.look_at_user();
        }
    }

    /// The metric provider's answers from now on.
    pub fn set_metrics(&self, mood: Option<Metrics>) {
        self.provider.set(mood);
    }
}

/// Takes the version out of what pods must have.
fn forget_hash(labels: &mut Value) {
    if let Some(labels) = labels.as_object_mut() {
        labels.remove(HASH);
    }
}

/// Whether gateways follow what has changed.
fn leads_users(change: &Change) -> bool {
    ROUTING.contains(&&*change.resource) || &*change.resource == SLICES
}

/// No faults.
struct Nothing;

impl Faults for Nothing {}

/// The tag of an image whose pods are never ready.
const SICK: &str = "sick";

/// The tags of images that scripts release.
pub const TAGS: [&str; 6] = ["blue", "green", "red", "gold", "grey", "final"];

fn conduct(router: Router) -> Conduct {
    match router {
        Router::Slow(delay) => Conduct::Slow(Duration::from_millis(delay.0)),
        Router::Late(delay) => Conduct::Late(Duration::from_millis(delay.0)),
        Router::Lies => Conduct::Lies,
        Router::Silent => Conduct::Silent,
        Router::Refuses => Conduct::Refuses { reason: "NotAllowedByListeners".to_owned(), message: String::new() },
    }
}

fn hash_of(view: &View, version: Version) -> Option<String> {
    let status = &view.rollout()["status"];
    let hash = match version {
        Version::Stable => &status["stableRS"],
        Version::Canary => &status["currentPodHash"],
    };
    hash.as_str().filter(|hash| !hash.is_empty()).map(str::to_owned)
}

/// The tag of a version's image.
pub fn tag_of(view: &View, version: Version) -> Option<String> {
    let hash = hash_of(view, version)?;
    let set = view.own_sets().find(|set| set.hash == hash)?;
    tag_of_set(view, set.name)
}

/// The tag of a ReplicaSet's image.
pub fn tag_of_set(view: &View, set: &str) -> Option<String> {
    let image = view.object(REPLICA_SETS, set)?["spec"]["template"]["spec"]["containers"][0]["image"].as_str()?;
    image.rsplit_once(':').map(|(_, tag)| tag.to_owned())
}
