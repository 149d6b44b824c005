//! The guard is judged from outside: a data plane that may still follow whatever was there within the propagation delay,
//! and promises that are counted in pods and weights. The checker shares no code with the guard.

mod blue_green;
mod experiments;
mod holds;
mod promises;

use std::sync::Arc;

use jiff::SignedDuration;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::api::Rollout;
use crate::api::resource::HTTP_ROUTE;
use crate::rollout::world::{Observed, Pod, ReplicaSetStatus, Settings, Templates};
use crate::traffic::gateway_api::GatewayApiRouter;
use crate::traffic::{Context, Router, Wanted, former};

const STABLE: &str = "web-stable";
const CANARY: &str = "web-canary";

/// What is there, and what it was so recently that traffic may still follow it.
#[derive(Clone, Debug, PartialEq)]
struct Lagging<T> {
    now: T,
    before: Vec<T>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Pods {
    spec: i32,
    available: i32,
}

/// A cluster with one Rollout: revision 0 is stable, `new` is the new one, which may be stable too.
#[derive(Clone, Debug, PartialEq)]
struct State {
    replicas: i32,
    surge: i32,
    unavailable: i32,
    aborted: bool,
    /// Whether the Services swap, so that nobody calls that of the canary by its name.
    takes_turns: bool,
    canary_size: Option<i32>,
    new: usize,
    pods: [Pods; 4],
    /// The revision that each Service selects; none selects all.
    stable: Lagging<Option<usize>>,
    canary: Lagging<Option<usize>>,
    /// The weight of the canary in each route; empty without traffic routing.
    routes: Vec<Lagging<i32>>,
    /// Whether no gateway has reported on the routes.
    pending: bool,
}

#[derive(Clone, Debug)]
enum Write {
    Size(usize, i32),
    Stable(usize),
    Canary(usize),
    Route(usize, i32),
}

impl<T: Clone> Lagging<T> {
    fn new(now: T, before: Option<T>) -> Self {
        Self { now, before: before.into_iter().collect() }
    }

    fn all(&self) -> impl Iterator<Item = T> + '_ {
        std::iter::once(&self.now).chain(&self.before).cloned()
    }

    fn set(&mut self, now: T) {
        let before = std::mem::replace(&mut self.now, now);
        self.before.push(before);
    }
}

impl State {
    fn kept(&self, one: usize) -> i32 {
        self.pods[one].available.min(self.pods[one].spec)
    }

    /// Every way in which the data plane may send traffic: route, selection of stable, of canary, weight of the canary.
    fn views(&self) -> impl Iterator<Item = (usize, Option<usize>, Option<usize>, i32)> + '_ {
        self.routes.iter().enumerate().flat_map(move |(route, weights)| {
            let unknown = if self.pending { &[0, 100][..] } else { &[] };
            weights.all().chain(unknown.iter().copied()).flat_map(move |weight| {
                let stable = self.stable.all();
                stable.flat_map(move |stable| self.canary.all().map(move |canary| (route, stable, canary, weight)))
            })
        })
    }

    /// Percentage of the traffic that a view sends to one revision alone.
    fn share(&self, one: usize, stable: Option<usize>, canary: Option<usize>, weight: i32) -> i32 {
        let alone = (0..4).all(|other| other == one || self.pods[other] == Pods::default());
        let hits = |selection: Option<usize>| selection == Some(one) || selection.is_none() && alone;
        i32::from(hits(canary)) * weight + i32::from(hits(stable)) * (100 - weight)
    }

    /// The largest weight that may reach a revision as the canary.
    fn to_canary(&self, one: usize) -> i32 {
        let hits = self.views().filter(|view| view.2 == Some(one));
        hits.map(|(_, _, _, weight)| weight).max().unwrap_or(0)
    }

    /// The user's own size of the canary counts as enough for any weight.
    fn chosen(&self, one: usize, pods: i32) -> i32 {
        match self.canary_size {
            Some(size) if one == self.new && one != 0 && pods > 0 => pods.min(size.max(1)),
            _ => pods,
        }
    }

    fn ready(&self, one: usize, share: i32) -> i32 {
        self.chosen(one, ceil(share * (self.replicas - self.unavailable), 100).max(1))
    }

    /// The largest weight that the pods behind a selection carry.
    fn carried(&self, selection: Option<usize>) -> i32 {
        match selection {
            Some(one) => (1..=100).rev().find(|share| self.kept(one) >= self.ready(one, *share)).unwrap_or(0),
            None => {
                let pods: i32 = (0..4).map(|one| self.kept(one)).sum();
                let enough = |share: i32| pods >= ceil(share * (self.replicas - self.unavailable), 100).max(1);
                (1..=100).rev().find(|share| enough(*share)).unwrap_or(0)
            }
        }
    }

    fn make(&mut self, write: &Write) {
        match *write {
            Write::Size(one, size) => self.pods[one].spec = size,
            Write::Stable(one) => self.stable.set(Some(one)),
            Write::Canary(one) => self.canary.set(Some(one)),
            Write::Route(route, weight) => self.routes[route].set(weight),
        }
    }

    fn with(&self, writes: &[Write]) -> Self {
        let mut state = self.clone();
        writes.iter().for_each(|write| state.make(write));
        state
    }

    /// Time passes: the data plane catches up, and pods become available.
    fn pass_time(&mut self) {
        for one in &mut self.pods {
            one.available = one.spec;
        }
        self.stable.before.clear();
        self.canary.before.clear();
        self.routes.iter_mut().for_each(|route| route.before.clear());
        self.pending = false;
    }
}

fn ceil(share: i32, of: i32) -> i32 {
    (share + of - 1) / of
}

fn name(one: usize) -> String {
    format!("web-h{one}")
}

/// What the guard admits, and the writes that its caller would make of it.
fn decide(state: &State, proposal: &Proposal) -> (Admitted, Vec<Write>) {
    decide_in(state, world(state), proposal)
}

fn decide_in(state: &State, world: World, proposal: &Proposal) -> (Admitted, Vec<Write>) {
    let revisions = revisions(&world, state);
    let routers: &[&dyn Router] = if state.routes.is_empty() { &[] } else { &[&GatewayApiRouter] };
    let traffic = Traffic::observe(&world, STABLE, CANARY, routers);
    let admitted = admit(&world, &revisions, &traffic, proposal.clone());

    let mut writes = Vec::new();
    for one in 0..4 {
        if let Some(Action::Scale { to, from, .. }) = admitted.scale(&world, &world.replica_sets[one], BTreeMap::new())
            && to != from
        {
            writes.push(Write::Size(one, to));
        }
    }
    let number = |hash: &str| hash[1..].parse().unwrap();
    for (service, hash) in &admitted.services {
        let one = number(hash);
        match service.as_str() {
            STABLE if state.stable.now != Some(one) => writes.push(Write::Stable(one)),
            CANARY if state.canary.now != Some(one) => writes.push(Write::Canary(one)),
            _ => {}
        }
    }
    let context = Context {
        rollout: &world.rollout,
        stable_service: STABLE,
        canary_service: CANARY,
        services: &world.services,
        experiment_services: &BTreeMap::new(),
        routes: &world.routes,
    };
    for (router, split) in routers.iter().zip(&admitted.splits) {
        let Some(split) = split else { continue };
        for action in router.edit(&context, Wanted::only(split)).unwrap() {
            let Action::JsonPatch { object, patch, .. } = action else { panic!("{action}") };
            let mut route = (*world.routes[&object.object].object).clone();
            json_patch::patch(&mut route, &patch).unwrap();
            let index: usize = object.object.name["route-".len()..].parse().unwrap();
            let weight = weight_of(&route);
            if weight != state.routes[index].now {
                writes.push(Write::Route(index, weight));
            }
        }
    }
    (admitted, writes)
}

fn weight_of(route: &Value) -> i32 {
    let backends = route["spec"]["rules"][0]["backendRefs"].as_array().unwrap();
    let canary = backends.iter().find(|backend| backend["name"] == CANARY).unwrap();
    i32::try_from(canary["weight"].as_i64().unwrap()).unwrap()
}

fn world(state: &State) -> World {
    let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
    let since = |lagging: bool| now - SignedDuration::from_secs(if lagging { 2 } else { 5 });
    let mut canary = json!({
        "stableService": STABLE,
        "canaryService": CANARY,
        "maxSurge": state.surge,
        "maxUnavailable": state.unavailable,
        "steps": [{ "setCanaryScale": { "matchTrafficWeight": true } }],
    });
    if state.takes_turns {
        canary["pingPong"] = json!({ "pingService": STABLE, "pongService": CANARY });
    }
    if let Some(size) = state.canary_size {
        canary["steps"] = json!([{ "setCanaryScale": { "replicas": size } }]);
        canary["abortScaleDownDelaySeconds"] = 0.into();
    }
    if !state.routes.is_empty() {
        let routes: Vec<_> = (0..state.routes.len()).map(|one| json!({ "name": format!("route-{one}") })).collect();
        canary["trafficRouting"] = json!({ "gatewayAPI": { "httpRoutes": routes, "disableInProgressLabel": true } });
    }
    let rollout = json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": { "name": "web", "namespace": "shop", "uid": "r" },
        "spec": { "replicas": state.replicas, "strategy": { "canary": canary } },
        "status": { "abort": state.aborted, "stableRS": "h0", "currentPodHash": format!("h{}", state.new) },
    });
    let mut rollout: Rollout = serde_json::from_value(rollout).unwrap();
    let routes = former::text(&former::with_current(&rollout));
    rollout.metadata.annotations = Some([(names::ROUTES.to_owned(), routes)].into());
    let service = |name: &str, service: &Lagging<Option<usize>>| {
        let selector = |of: Option<usize>| {
            let hash = of.map(|one| (names::POD_TEMPLATE_HASH.to_owned(), format!("h{one}")));
            [("app".to_owned(), "web".to_owned())].into_iter().chain(hash).collect()
        };
        let object = Service {
            name: name.to_owned(),
            uid: name.to_owned(),
            selector: selector(service.now),
            selected: service.before.last().copied().map(selector),
            ..Default::default()
        };
        (name.to_owned(), Observed { object, since: since(!service.before.is_empty()) })
    };
    let route = |(index, weights): (usize, &Lagging<i32>)| {
        let name = format!("route-{index}");
        let conditions: Vec<_> = ["Accepted", "ResolvedRefs"]
            .iter()
            .map(|type_| json!({ "type": type_, "status": "True", "observedGeneration": 1 }))
            .collect();
        let parents = if state.pending { json!([]) } else { json!([{ "conditions": conditions }]) };
        let object = json!({
            "metadata": { "name": name, "uid": name, "resourceVersion": "1", "generation": 1 },
            "spec": { "rules": [{ "backendRefs": [
                { "name": STABLE, "weight": 100 - weights.now },
                { "name": CANARY, "weight": weights.now },
            ] }] },
            "status": { "parents": parents },
        });
        let since = since(!weights.before.is_empty());
        (ObjectRef::new(HTTP_ROUTE, "shop", name), Observed { object: Arc::new(object), since })
    };
    World {
        now,
        rollout: Arc::new(rollout),
        pods: None,
        workload: None,
        replica_sets: (0..4).map(|one| replica_set(one, state.pods[one], now)).collect(),
        services: [service(STABLE, &state.stable), service(CANARY, &state.canary)].into(),
        routes: state.routes.iter().enumerate().map(route).collect(),
        gone: BTreeMap::new(),
        analysis_runs: Vec::new(),
        experiments: Vec::new(),
        templates: Templates::default(),
        failures: Vec::new(),
        settings: Settings::default(),
    }
}

fn replica_set(one: usize, pods: Pods, created: Timestamp) -> ReplicaSet {
    let labels = BTreeMap::from([
        ("app".to_owned(), "web".to_owned()),
        (names::POD_TEMPLATE_HASH.to_owned(), format!("h{one}")),
    ]);
    ReplicaSet {
        name: name(one),
        uid: name(one),
        resource_version: "1".to_owned(),
        created,
        deleting: false,
        template: Arc::new(json!({ "metadata": { "labels": labels } }).into()),
        labels,
        annotations: BTreeMap::new(),
        controller: Some("r".to_owned()),
        generation: 1,
        selector: Default::default(),
        min_ready_seconds: 0,
        replicas: pods.spec,
        status: ReplicaSetStatus {
            replicas: pods.spec.max(pods.available),
            ready: pods.available,
            available: pods.available,
            observed_generation: 1,
            least: 0,
            failure: None,
        },
    }
}

fn revisions<'a>(world: &'a World, state: &State) -> Revisions<'a> {
    let all = &world.replica_sets;
    Revisions {
        new: Some(&all[state.new]),
        stable: Some(&all[0]),
        others: (1..4).rev().filter(|one| *one != state.new).map(|one| &all[one]).collect(),
        hash: format!("h{}", state.new),
        adopt: Vec::new(),
        release: Vec::new(),
    }
}

// ---- random states and proposals ----

fn states() -> impl Strategy<Value = State> {
    let pods = || (0..=6, 0..=7).prop_map(|(spec, available)| Pods { spec, available });
    let few = || prop_oneof![2 => Just(Pods::default()), 1 => pods()];
    let sizes =
        (0..=6_i32, 0..=2_i32, 0..=2_i32, any::<(bool, bool)>(), prop::option::weighted(0.2, 0..=3_i32), 0..4_usize);
    let service = || (prop::option::weighted(0.85, 0..4_usize), prop::option::weighted(0.3, 0..4_usize));
    let route = || (prop_oneof![Just(0), 0..=100, Just(100)], prop::option::weighted(0.3, 0..=100));
    let traffic = (service(), service(), prop::collection::vec(route(), 0..=2), prop::bool::weighted(0.1));
    (sizes, (pods(), pods(), few(), few()), traffic).prop_map(|(sizes, pods, (stable, canary, routes, pending))| {
        let (replicas, surge, unavailable, (aborted, takes_turns), canary_size, new) = sizes;
        let pods = [pods.0, pods.1, pods.2, pods.3];
        // The guard itself has kept the pods of what a Service has selected until just now.
        let lagging = |(now, before): (Option<usize>, Option<usize>)| {
            Lagging::new(now, before.filter(|one| pods[*one] != Pods::default()).map(Some))
        };
        // Nor has it let stable's Service select a revision that was to be aborted.
        let stable = match (aborted && new != 0, stable) {
            (true, (now, before)) => (now.filter(|one| *one != new), before.filter(|one| *one != new)),
            (false, stable) => stable,
        };
        let unavailable = if surge == 0 { unavailable.max(1) } else { unavailable };
        State {
            replicas,
            surge,
            unavailable: unavailable.min(replicas),
            aborted,
            takes_turns: takes_turns && !routes.is_empty(),
            canary_size: canary_size.filter(|_| !routes.is_empty()),
            new,
            pods,
            stable: lagging(stable),
            canary: lagging(canary),
            pending: pending && !routes.is_empty(),
            routes: routes.into_iter().map(|(now, before)| Lagging::new(now, before)).collect(),
        }
    })
}

fn proposals() -> impl Strategy<Value = Proposal> {
    let hash = || (0..4_usize).prop_map(|one| format!("h{one}"));
    let replicas = prop::collection::btree_map((0..4_usize).prop_map(name), 0..=7, 0..=4);
    let split = prop::option::of(prop_oneof![Just(0), 0..=100, Just(100)].prop_map(|canary| Split::new(canary, 100)));
    let services = (prop::option::of(hash()), prop::option::of(hash()));
    let managed = prop::collection::btree_set(Just("beta".to_owned()), 0..=1);
    (replicas, split, services, managed).prop_map(|(replicas, split, (stable, canary), managed)| Proposal {
        managed,
        replicas,
        created: 0,
        delete: BTreeSet::new(),
        split,
        services: [(STABLE, stable), (CANARY, canary)]
            .into_iter()
            .filter_map(|(name, hash)| Some((name.to_owned(), hash?)))
            .collect(),
    })
}

fn size(one: usize, pods: i32) -> Proposal {
    Proposal { replicas: [(name(one), pods)].into(), ..Proposal::default() }
}

fn switch(service: &str, one: usize) -> Proposal {
    Proposal { services: [(service.to_owned(), format!("h{one}"))].into(), ..Proposal::default() }
}
