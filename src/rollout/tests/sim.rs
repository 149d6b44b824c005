//! A cluster in miniature: it carries plans out, makes pods available after a while, and tells what happened as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::api::analysis::{AnalysisPhase, AnalysisRun, AnalysisTemplateSpec};
use crate::api::common::Condition;
use crate::api::resource::{self, HTTP_ROUTE, INGRESS, ObjectRef};
use crate::api::rollout::{Rollout, RolloutStatus};
use crate::plan::{Action, Failure, Plan};
use crate::rollout::decide;
use crate::rollout::world::{Observed, ReplicaSet, ReplicaSetStatus, Service, Settings, Templates, World};

/// Plans that one instant may take; more is a hot loop.
const MOST_PLANS: usize = 20;

pub struct Sim {
    pub world: World,
    start: Timestamp,
    /// Seconds from the creation of a pod to its being available.
    pub pod_seconds: i64,
    /// Image of which no pod ever becomes available.
    pub broken: Option<&'static str>,
    /// Whether the gateway refuses routes.
    pub refuses: bool,
    /// Whether the gateway looks at no route.
    pub slow: bool,
    /// Whether what has failed succeeds when it is tried again.
    pub heals: bool,
    /// Whether nothing can be written to the status of AnalysisRuns.
    pub unwritable: bool,
    /// Whether AnalysisRuns say when they began, and measure successes from then on.
    pub measures: bool,
    /// State of the chance by which the controller dies within a plan: some of its writes are made, the status is not.
    pub chance: Option<u64>,
    /// Services that the Rollout neither names nor manages.
    strangers: BTreeMap<String, Observed<Service>>,
    /// When the pods of each ReplicaSet were made.
    pods: BTreeMap<String, Vec<Timestamp>>,
    wake: Option<Timestamp>,
    version: u64,
    trace: String,
    /// Writes so far: objects, status, events.
    pub writes: [usize; 3],
    /// Reasons of all events.
    pub events: Vec<String>,
}

impl Sim {
    pub fn new(strategy: Value, replicas: i32) -> Self {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let rollout: Rollout = serde_json::from_value(json!({
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Rollout",
            "metadata": {
                "name": "web", "namespace": "shop", "uid": "rollout-uid", "resourceVersion": "1", "generation": 1,
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "web", "image": "web:v1"}]},
                },
                "strategy": {"canary": strategy},
            },
        }))
        .unwrap();
        let world = World {
            now: start,
            rollout: Arc::new(rollout),
            pods: None,
            workload: None,
            replica_sets: Vec::new(),
            services: BTreeMap::new(),
            routes: BTreeMap::new(),
            gone: BTreeMap::new(),
            analysis_runs: Vec::new(),
            experiments: Vec::new(),
            templates: Templates::default(),
            failures: Vec::new(),
            settings: Settings::default(),
        };
        Self {
            world,
            start,
            pod_seconds: 5,
            broken: None,
            refuses: false,
            slow: false,
            heals: false,
            unwritable: false,
            measures: false,
            chance: None,
            strangers: BTreeMap::new(),
            pods: BTreeMap::new(),
            wake: None,
            version: 1,
            trace: String::new(),
            writes: [0; 3],
            events: Vec::new(),
        }
    }

    /// Blue-green, with an active and a preview Service.
    pub fn blue_green(mut strategy: Value, replicas: i32) -> Self {
        strategy["activeService"] = "active".into();
        strategy["previewService"] = "preview".into();
        let mut sim = Self::new(json!({}), replicas);
        Arc::make_mut(&mut sim.world.rollout).spec.strategy =
            serde_json::from_value(json!({ "blueGreen": strategy })).unwrap();
        sim.serve(&["active", "preview"]);
        sim
    }

    /// With two Services and a route of the Gateway API.
    pub fn routed(mut strategy: Value, replicas: i32) -> Self {
        strategy["trafficRouting"] = json!({"gatewayAPI": {"httpRoute": "web"}});
        let mut sim = Self::served(strategy, replicas);
        let route = json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "route-uid", "resourceVersion": "1", "generation": 1},
            "spec": {"rules": [{"backendRefs": [
                {"name": "stable", "port": 80, "weight": 100}, {"name": "canary", "port": 80, "weight": 0},
            ]}]},
        });
        let reference = ObjectRef::new(HTTP_ROUTE, "shop", "web");
        sim.world.routes.insert(reference, Observed { object: Arc::new(route), since: sim.start });
        sim
    }

    /// The same, the Services taking turns.
    pub fn ping_pong(mut strategy: Value, replicas: i32) -> Self {
        strategy["pingPong"] = json!({"pingService": "stable", "pongService": "canary"});
        let mut sim = Self::routed(strategy, replicas);
        let canary = Arc::make_mut(&mut sim.world.rollout).spec.strategy.canary.as_mut().unwrap();
        canary.stable_service.clear();
        canary.canary_service.clear();
        sim
    }

    /// With two Services and ingress-nginx, the Services named where published examples have them.
    pub fn ingress(mut strategy: Value, replicas: i32) -> Self {
        let nginx = json!({"stableIngress": "web", "stableService": "stable", "canaryService": "canary"});
        strategy["trafficRouting"] = json!({"nginx": nginx});
        let mut sim = Self::served(strategy, replicas);
        let canary = &mut Arc::make_mut(&mut sim.world.rollout).spec.strategy.canary.as_mut().unwrap();
        canary.stable_service.clear();
        canary.canary_service.clear();
        let ingress = json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "ingress-uid", "resourceVersion": "1"},
            "spec": {"ingressClassName": "nginx", "rules": [{"host": "web.example", "http": {"paths": [
                {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "stable", "port": {"number": 80}}}},
            ]}}]},
        });
        let reference = ObjectRef::new(INGRESS, "shop", "web");
        sim.world.routes.insert(reference, Observed { object: Arc::new(ingress), since: sim.start });
        sim
    }

    /// With two Services and no router.
    pub fn served(mut strategy: Value, replicas: i32) -> Self {
        strategy["stableService"] = "stable".into();
        strategy["canaryService"] = "canary".into();
        let mut sim = Self::new(strategy, replicas);
        sim.serve(&["stable", "canary"]);
        sim
    }

    /// There are Services of these names.
    pub fn serve(&mut self, names: &[&str]) {
        for name in names {
            let object = Service {
                name: (*name).to_owned(),
                uid: format!("{name}-uid"),
                resource_version: "1".to_owned(),
                selector: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
                ports: vec![("http".to_owned(), 80)],
                ..Service::default()
            };
            self.world.services.insert((*name).to_owned(), Observed { object, since: self.start });
        }
    }

    /// The hash that a Service selects; empty when it selects none. One that nobody names any more counts, too.
    pub fn selected(&self, service: &str) -> &str {
        let service = self.world.services.get(service).or_else(|| self.strangers.get(service)).unwrap();
        service.object.selector.get(crate::api::names::POD_TEMPLATE_HASH).map_or("", String::as_str)
    }

    /// Available pods behind a Service.
    pub fn behind(&self, service: &str) -> i32 {
        let hash = self.selected(service);
        let selected = self.world.replica_sets.iter().filter(|set| hash.is_empty() || set.hash() == hash);
        selected.map(|set| set.status.available).sum()
    }

    /// A template whose runs end as [`Sim::judge`] says.
    pub fn template(mut self, name: &str) -> Self {
        let spec: AnalysisTemplateSpec = serde_json::from_value(json!({
            "metrics": [{"name": "errors", "interval": "10s", "count": 3, "successCondition": "result < 0.05",
                "provider": {"prometheus": {"address": "http://prometheus", "query": "up"}}}],
        }))
        .unwrap();
        self.world.templates.namespaced.insert(name.to_owned(), Arc::new(spec));
        self
    }

    /// Begins the trace anew.
    pub fn forget(&mut self) {
        self.trace.clear();
        self.writes = [0; 3];
        self.events.clear();
    }

    /// Says in the trace what the user or the world does.
    pub fn note(&mut self, what: &str) {
        writeln!(self.trace, "\n== {what}").unwrap();
    }

    /// A user changes the spec.
    pub fn edit(&mut self, what: &str, change: impl FnOnce(&mut Rollout)) {
        self.note(what);
        let rollout = Arc::make_mut(&mut self.world.rollout);
        change(rollout);
        rollout.metadata.generation = rollout.metadata.generation.map(|generation| generation + 1);
    }

    /// A user deletes a Service.
    pub fn delete(&mut self, service: &str) {
        self.note(&format!("Service {service} is deleted"));
        self.world.services.remove(service);
        self.world.gone.insert(ObjectRef::new(resource::SERVICE, "shop", service), self.world.now);
    }

    pub fn image(&mut self, image: &str) {
        let image = image.to_owned();
        self.edit(&format!("the image becomes {image}"), |rollout| {
            let mut template = rollout.spec.template.clone().unwrap().to_value();
            template["spec"]["containers"][0]["image"] = image.into();
            rollout.spec.template = Some(template.into());
        });
    }

    /// A user changes the status, as `kubectl argo rollouts` does.
    pub fn patch(&mut self, what: &str, change: impl FnOnce(&mut RolloutStatus)) {
        self.note(what);
        change(Arc::make_mut(&mut self.world.rollout).status.get_or_insert_default());
    }

    /// An unfinished analysis run gets a result.
    pub fn judge(&mut self, name: &str, phase: AnalysisPhase, message: &str) {
        self.note(&format!("AnalysisRun {name} becomes {phase}"));
        let run = self.world.analysis_runs.iter_mut().find(|run| run.metadata.name.as_deref() == Some(name)).unwrap();
        let status = Arc::make_mut(run).status.get_or_insert_default();
        status.phase = phase;
        status.message = message.to_owned();
    }

    pub fn status(&self) -> &RolloutStatus {
        self.world.rollout.status.as_ref().unwrap()
    }

    /// The ReplicaSet of an image.
    pub fn set(&self, image: &str) -> &ReplicaSet {
        self.world.replica_sets.iter().find(|set| image_of(set) == image).unwrap()
    }

    /// Weight of the canary in the route.
    pub fn weight(&self) -> i64 {
        let route = &self.world.routes[&ObjectRef::new(HTTP_ROUTE, "shop", "web")].object;
        let backends = route["spec"]["rules"][0]["backendRefs"].as_array().unwrap();
        backends.iter().find(|backend| backend["name"] == "canary").unwrap()["weight"].as_i64().unwrap()
    }

    /// Lets so many seconds pass.
    pub fn run(&mut self, seconds: i64) {
        let end = self.world.now + SignedDuration::from_secs(seconds);
        loop {
            self.settle();
            let pods = self.pods.values().flatten().map(|made| *made + SignedDuration::from_secs(self.pod_seconds));
            let next = pods.chain(self.wake).filter(|at| *at > self.world.now).min();
            match next.filter(|at| *at <= end) {
                Some(next) => self.world.now = next,
                None => break,
            }
        }
        self.world.now = end;
    }

    /// Decides until nothing is left to do at this instant.
    pub fn settle(&mut self) {
        for _ in 0..MOST_PLANS {
            self.observe();
            let plan = self.told(decide(&self.world));
            assert_eq!(
                format!("{plan:?}"),
                format!("{:?}", self.told(decide(&self.world))),
                "the same World, the same plan"
            );
            self.wake = plan.wake.filter(|wake| *wake > self.world.now);
            let changed = Some(&plan.status) != self.world.rollout.status.as_ref();
            let due = plan.wake.is_some_and(|wake| wake <= self.world.now);
            if !changed && plan.actions.is_empty() && plan.events.is_empty() {
                assert!(!due || self.world.failures.is_empty(), "a wake-up without anything to do: {plan}");
                return;
            }
            self.print(&plan);
            let reacts = due || !plan.actions.is_empty() || !plan.events.is_empty();
            let done = self.execute(plan);
            assert!(
                reacts || !done || self.rests(),
                "nothing would wake it to go on: {}\n{}",
                decide(&self.world),
                self.tail()
            );
        }
        panic!("a hot loop:\n{}", self.trace);
    }

    /// Gives a ReplicaSet and all that names it another hash.
    pub fn relabel(&mut self, from: &str, to: &str) {
        let key = crate::api::names::POD_TEMPLATE_HASH;
        for set in self.world.replica_sets.iter_mut().filter(|set| set.hash() == from) {
            let name = set.name.replace(from, to);
            let pods = self.pods.remove(&set.name).unwrap_or_default();
            self.pods.insert(name.clone(), pods);
            set.name = name;
            set.labels.insert(key.to_owned(), to.to_owned());
            set.selector.match_labels.get_or_insert_default().insert(key.to_owned(), to.to_owned());
            set.template = Arc::new(set.template.with_label(key, to));
        }
        for service in self.world.services.values_mut() {
            if service.object.selector.get(key).is_some_and(|hash| hash == from) {
                service.object.selector.insert(key.to_owned(), to.to_owned());
            }
        }
    }

    /// Decides and executes once.
    pub fn once(&mut self) {
        self.observe();
        let plan = self.told(decide(&self.world));
        self.print(&plan);
        self.execute(plan);
    }

    /// The plan with the events that are told of it.
    fn told(&self, mut plan: Plan<RolloutStatus>) -> Plan<RolloutStatus> {
        plan.events.retain(|event| {
            let of = event.of.as_ref();
            self.succeeds(|failure| {
                of.is_some_and(|(object, kind)| failure.object == *object && failure.action == *kind)
            })
        });
        plan
    }

    fn print(&mut self, plan: &Plan<RolloutStatus>) {
        let at = self.world.now.duration_since(self.start).as_secs();
        let mut text = plan.to_string();
        // A wake-up at once follows from what is written.
        text = text.lines().filter(|line| !line.ends_with(&format!("wake at {}", self.world.now))).fold(
            String::new(),
            |mut text, line| {
                text.push_str(line);
                text.push('\n');
                text
            },
        );
        let status = &plan.status;
        write!(self.trace, "[{at}s] {text}").unwrap();
        if Some(status) == self.world.rollout.status.as_ref() {
            return;
        }
        write!(self.trace, "  -> {}", status.phase).unwrap();
        if !status.message.is_empty() {
            write!(self.trace, " ({})", status.message).unwrap();
        }
        if let Some(index) = status.current_step_index {
            write!(self.trace, ", step {index}").unwrap();
        }
        if let Some(weights) = &status.canary.weights {
            write!(self.trace, ", weight {}", weights.canary.weight).unwrap();
        }
        let counts =
            [status.replicas, status.updated_replicas, status.available_replicas].map(|count| count.to_string());
        writeln!(self.trace, ", pods/updated/available {}", counts.join("/")).unwrap();
        let before = self.world.rollout.status.clone().unwrap_or_default();
        let said = |condition: &Condition| format!("{}={}/{}", condition.type_, condition.status, condition.reason);
        let before: Vec<String> = before.conditions.iter().map(said).collect();
        let news: Vec<String> = status.conditions.iter().map(said).filter(|said| !before.contains(said)).collect();
        if !news.is_empty() {
            writeln!(self.trace, "     {}", news.join(" ")).unwrap();
        }
    }

    /// What controllers of Kubernetes and the gateway do in no time.
    fn observe(&mut self) {
        let (now, pod_seconds, broken) = (self.world.now, self.pod_seconds, self.broken);
        let named = self.world.rollout.spec.strategy.services();
        let concerns = |name: &String, service: &mut Observed<Service>| {
            named.contains(name.as_str()) || service.object.annotations.contains_key(crate::api::names::MANAGED_BY)
        };
        self.world.services.append(&mut self.strangers);
        self.strangers = self.world.services.extract_if(.., |name, service| !concerns(name, service)).collect();
        for set in &mut self.world.replica_sets {
            let pods = self.pods.entry(set.name.clone()).or_default();
            pods.resize(usize::try_from(set.replicas).unwrap(), now);
            let ready = |made: &&Timestamp| now.duration_since(**made).as_secs() >= pod_seconds;
            let ready = if broken == Some(&*image_of(set)) { 0 } else { pods.iter().filter(ready).count() as i32 };
            set.status = ReplicaSetStatus {
                replicas: set.replicas,
                ready,
                available: ready,
                observed_generation: set.generation,
                least: 0,
                failure: None,
            };
        }
        for (reference, route) in &mut self.world.routes {
            if reference.resource != HTTP_ROUTE || self.slow {
                continue;
            }
            let route = Arc::make_mut(&mut route.object);
            let status = if self.refuses { "False" } else { "True" };
            let condition = |type_: &str| {
                json!({"type": type_, "status": status, "reason": "Said", "message": "so",
                "observedGeneration": route["metadata"]["generation"]})
            };
            route["status"] = json!({"parents": [{"parentRef": {"name": "public"},
                "conditions": [condition("Accepted"), condition("ResolvedRefs")]}]});
        }
        for run in &mut self.world.analysis_runs {
            if self.unwritable {
                break;
            }
            let run = Arc::make_mut(run);
            let status = run.status.get_or_insert_default();
            if run.spec.terminate && !status.phase.completed() {
                status.phase = AnalysisPhase::Successful;
                status.message = "Run Terminated".to_owned();
            } else if status.phase == AnalysisPhase::None {
                status.phase = AnalysisPhase::Running;
            }
            if self.measures && status.phase == AnalysisPhase::Running {
                measure(run, now);
            }
        }
    }

    /// Whether an action succeeds that has failed or not.
    fn succeeds(&self, action: impl Fn(&Failure) -> bool) -> bool {
        self.heals || !self.world.failures.iter().any(action)
    }

    /// Whether nothing is to be done now, before anybody else has reacted to what was.
    fn rests(&self) -> bool {
        let plan = decide(&self.world);
        plan.actions.is_empty() && Some(&plan.status) == self.world.rollout.status.as_ref()
    }

    /// Does what a plan says; whether all of it.
    fn execute(&mut self, plan: Plan<RolloutStatus>) -> bool {
        let dies = self.flip(4);
        for action in &plan.actions {
            if dies && self.flip(2) {
                continue;
            }
            self.writes[0] += 1;
            self.stands_on_routes(action);
            if self.succeeds(|failure| action.is(&failure.object, failure.action)) {
                self.carry_out(action);
            }
        }
        if dies {
            writeln!(self.trace, "  (the controller died)").unwrap();
            return false;
        }
        self.writes[2] += plan.events.len();
        self.events.extend(plan.events.into_iter().map(|event| event.reason));
        if self.world.rollout.status.as_ref() != Some(&plan.status) {
            self.writes[1] += 1;
            Arc::make_mut(&mut self.world.rollout).status = Some(plan.status);
        }
        true
    }

    /// A Service is switched to a version only with all of the routes as they were seen.
    fn stands_on_routes(&self, action: &Action) {
        let (by, action): (&[_], _) = match action {
            Action::Confirmed { by, action } => (by, action.as_ref()),
            action => (&[], action),
        };
        let Action::MergePatch { object, patch, .. } = action else { return };
        let is_switch = patch["spec"]["selector"][crate::api::names::POD_TEMPLATE_HASH].is_string();
        if is_switch && object.object.resource == resource::SERVICE {
            let confirmed =
                |route: &ObjectRef| by.iter().any(|basis| basis.object == *route && basis.resource_version.is_some());
            assert!(self.world.routes.keys().all(confirmed), "{action} stands on {by:?}");
        }
    }

    /// The last of the trace.
    pub fn tail(&self) -> &str {
        let at = self.trace.len().saturating_sub(6000);
        &self.trace[self.trace.ceil_char_boundary(at)..]
    }

    /// True by a chance of one in `of`.
    fn flip(&mut self, of: u64) -> bool {
        let Some(state) = &mut self.chance else { return false };
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) % of == 0
    }

    fn carry_out(&mut self, action: &Action) {
        self.version += 1;
        let version = self.version.to_string();
        let now = self.world.now;
        match action {
            Action::Create { object, body } if object.resource == resource::REPLICA_SET => {
                self.world.replica_sets.push(replica_set(object, body, now, &version));
                self.world.replica_sets.sort_by(|a, b| a.name.cmp(&b.name));
            }
            Action::Create { object, body } if object.resource != resource::ANALYSIS_RUN => {
                let mut body = body.clone();
                body["metadata"]["uid"] = object.name.clone().into();
                body["metadata"]["resourceVersion"] = version.into();
                body["metadata"]["generation"] = 1.into();
                self.world.routes.insert(object.clone(), Observed { object: Arc::new(body), since: now });
            }
            Action::Create { body, .. } => {
                let mut run: AnalysisRun = serde_json::from_value(body.clone()).unwrap();
                run.metadata.uid = run.metadata.name.clone();
                run.metadata.creation_timestamp = Some(crate::api::common::time(now));
                self.world.analysis_runs.push(Arc::new(run));
                self.world.analysis_runs.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
            }
            Action::Scale { replica_set, from, to, annotations, .. } => {
                let set = self.replica_set(&replica_set.object.name);
                assert_eq!(set.replicas, *from);
                set.replicas = *to;
                set.generation += 1;
                set.resource_version = version;
                for (key, value) in annotations {
                    match value {
                        Some(value) => set.annotations.insert(key.clone(), value.clone()),
                        None => set.annotations.remove(key),
                    };
                }
            }
            Action::MergePatch { object, patch, .. } => self.merge(&object.object, patch, version),
            Action::JsonPatch { object, patch, .. } => {
                let route = self.world.routes.get_mut(&object.object).unwrap();
                let value = Arc::make_mut(&mut route.object);
                json_patch::patch(value, patch).unwrap();
                value["metadata"]["generation"] = (value["metadata"]["generation"].as_i64().unwrap_or(1) + 1).into();
                value["metadata"]["resourceVersion"] = version.into();
                route.since = now;
            }
            Action::Confirmed { action, .. } => self.carry_out(action),
            // No test here restarts pods.
            Action::Evict { .. } => {}
            Action::Delete { object, .. } => {
                let name = &object.object.name;
                self.world.replica_sets.retain(|set| set.name != *name);
                self.world.analysis_runs.retain(|run| run.metadata.name.as_ref() != Some(name));
            }
        }
    }

    fn merge(&mut self, object: &ObjectRef, patch: &Value, version: String) {
        let now = self.world.now;
        match object.resource {
            resource::REPLICA_SET => {
                let set = self.replica_set(&object.name);
                merge_map(&mut set.annotations, &patch["metadata"]["annotations"]);
                set.resource_version = version;
            }
            resource::SERVICE => {
                let service = self.world.services.get_mut(&object.name).unwrap();
                merge_map(&mut service.object.annotations, &patch["metadata"]["annotations"]);
                merge_map(&mut service.object.selector, &patch["spec"]["selector"]);
                service.object.resource_version = version;
                service.since = now;
            }
            resource::ROLLOUT => {
                let rollout = Arc::make_mut(&mut self.world.rollout);
                let annotations = rollout.metadata.annotations.get_or_insert_default();
                merge_map(annotations, &patch["metadata"]["annotations"]);
            }
            resource::ANALYSIS_RUN => {
                let runs = &mut self.world.analysis_runs;
                let run = runs.iter_mut().find(|run| run.metadata.name.as_ref() == Some(&object.name)).unwrap();
                Arc::make_mut(run).spec.terminate = patch["spec"]["terminate"] == true;
            }
            _ => {
                let route = self.world.routes.get_mut(object).unwrap();
                let value = Arc::make_mut(&mut route.object);
                json_patch::merge(value, patch);
                value["metadata"]["generation"] = (value["metadata"]["generation"].as_i64().unwrap_or(1) + 1).into();
                value["metadata"]["resourceVersion"] = version.into();
                route.since = now;
            }
        }
    }

    fn replica_set(&mut self, name: &str) -> &mut ReplicaSet {
        self.world.replica_sets.iter_mut().find(|set| set.name == name).unwrap()
    }

    /// Compares the trace with the committed text; rewrites that when `UPDATE_EXPECT` is set.
    pub fn expect(&self, name: &str, expected: &str) {
        let writes = self.writes;
        let text =
            format!("{}\n{} writes of objects, {} of status, {} events\n", self.trace, writes[0], writes[1], writes[2]);
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            let path = format!("{}/src/rollout/tests/{name}.txt", env!("CARGO_MANIFEST_DIR"));
            std::fs::write(path, text).unwrap();
        } else {
            assert!(
                text == expected,
                "{name} went differently; run with UPDATE_EXPECT=1 and look at the diff:\n{text}"
            );
        }
    }
}

/// What a run has measured by now that has worked since it was first looked at.
fn measure(run: &mut AnalysisRun, now: Timestamp) {
    let status = run.status.get_or_insert_default();
    let started = status.started_at.get_or_insert_with(|| crate::api::common::time(now)).0;
    for metric in &run.spec.metrics {
        let seconds =
            |text: &Option<String>| text.as_ref().map_or(0, |text| text.trim_end_matches('s').parse().unwrap());
        let interval = seconds(&metric.interval);
        let first = started + SignedDuration::from_secs(seconds(&metric.initial_delay));
        if now < first {
            continue;
        }
        let more = now.duration_since(first).as_secs() / interval;
        let last = (first + SignedDuration::from_secs(more * interval)).to_string();
        let result = json!({
            "name": metric.name, "phase": "Running", "count": more + 1, "successful": more + 1,
            "measurements": [{"phase": "Successful", "startedAt": last, "finishedAt": last}],
        });
        status.metric_results.retain(|result| result.name != metric.name);
        status.metric_results.push(serde_json::from_value(result).unwrap());
    }
}

pub fn image_of(set: &ReplicaSet) -> String {
    set.template.containers().next().unwrap().image().to_owned()
}

fn replica_set(object: &ObjectRef, body: &Value, now: Timestamp, version: &str) -> ReplicaSet {
    let map = |value: &Value| serde_json::from_value(value.clone()).unwrap_or_default();
    ReplicaSet {
        name: object.name.clone(),
        uid: format!("{}-uid", object.name),
        resource_version: version.to_owned(),
        created: now,
        deleting: false,
        labels: map(&body["metadata"]["labels"]),
        annotations: map(&body["metadata"]["annotations"]),
        controller: Some("rollout-uid".to_owned()),
        generation: 1,
        selector: serde_json::from_value(body["spec"]["selector"].clone()).unwrap(),
        min_ready_seconds: 0,
        template: Arc::new(body["spec"]["template"].clone().into()),
        replicas: body["spec"]["replicas"].as_i64().unwrap_or(1) as i32,
        status: ReplicaSetStatus::default(),
    }
}

fn merge_map(map: &mut BTreeMap<String, String>, patch: &Value) {
    for (key, value) in patch.as_object().into_iter().flatten() {
        match value.as_str() {
            Some(value) => map.insert(key.clone(), value.to_owned()),
            None => map.remove(key),
        };
    }
}
