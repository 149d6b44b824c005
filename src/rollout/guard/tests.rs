//! The guard is judged from outside: a data plane that may still follow whatever was there within the propagation delay,
//! and promises that are counted in pods and weights. The checker shares no code with the guard.

mod blue_green;

use std::sync::Arc;

use jiff::SignedDuration;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::api::resource::HTTP_ROUTE;
use crate::rollout::world::{Observed, Pod, ReplicaSetStatus, Settings, Templates};
use crate::traffic::gateway_api::GatewayApiRouter;
use crate::traffic::{Context, Router, Wanted};

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

// ---- promises ----

/// Every subset of the admitted writes, so also every prefix, keeps the promises.
fn check_all_subsets(state: &State, proposal: &Proposal) -> Result<(), TestCaseError> {
    let (admitted, writes) = decide(state, proposal);
    check_holds(proposal, &admitted, state)?;
    for subset in 0..1_u32 << writes.len() {
        let chosen: Vec<_> =
            writes.iter().enumerate().filter(|(bit, _)| subset & (1 << bit) != 0).map(|(_, write)| write).collect();
        let mut after = state.clone();
        chosen.iter().for_each(|write| after.make(write));
        if let Err(broken) = check(state, &after, &writes) {
            prop_assert!(false, "{broken}\n{chosen:?}\n{:#?}", admitted.holds);
        }
    }
    Ok(())
}

fn check(before: &State, after: &State, all: &[Write]) -> Result<(), String> {
    let sum = |pods: &dyn Fn(usize) -> i32| (0..4).map(pods).sum::<i32>();
    let fewest = before.replicas - before.unavailable;

    // S7: by our doing, not by pods that fail meanwhile.
    let kept = sum(&|one| after.pods[one].available.min(after.pods[one].spec));
    let had = sum(&|one| before.kept(one));
    if kept < fewest.min(had) {
        return Err(format!("S7: {kept} available of {had}, floor {fewest}"));
    }
    let specified = sum(&|one| after.pods[one].spec);
    if before.routes.is_empty() && specified > (before.replicas + before.surge).max(sum(&|one| before.pods[one].spec)) {
        return Err(format!("S7: {specified} pods specified"));
    }

    // S3
    let promoted = before.new == 0;
    if before.aborted && !promoted {
        for (one, other) in before.routes.iter().zip(&after.routes) {
            if other.now > one.now {
                return Err(format!("S3: weight {} after {}", other.now, one.now));
            }
        }
        if after.to_canary(before.new) > before.to_canary(before.new) {
            return Err("S3: more traffic to an aborted canary".to_owned());
        }
        if !before.routes.is_empty()
            && after.stable.now == Some(before.new)
            && after.routes.iter().any(|one| one.now < 100)
        {
            return Err("S3: an aborted canary became stable".to_owned());
        }
    }

    for one in 0..4 {
        let (spec, size) = (before.pods[one].spec, after.pods[one].spec);
        // S1, S2: what loses pods keeps those that traffic needs.
        if size < spec && before.replicas > 0 {
            for (_, stable, canary, weight) in after.views() {
                let share = before.share(one, stable, canary, weight);
                let needed = before.chosen(one, ceil(share * before.replicas, 100)).min(spec);
                if size < needed {
                    return Err(format!("S2: revision {one} scaled to {size}, {share}% may reach it"));
                }
            }
            let by_name = if before.takes_turns { None } else { Some(&after.canary) };
            let services = std::iter::once(&after.stable).chain(by_name);
            let selected = services.flat_map(Lagging::all).any(|selection| selection == Some(one));
            let old = one != 0 && one != before.new;
            let least = if before.routes.is_empty() { 1 } else { spec };
            let waiting = before.pods[0].spec == 0 || before.pods[before.new].spec == 0;
            let together = specified.max(sum(&|one| before.with(all).pods[one].spec));
            // Unless the next revision could not get its first pod otherwise.
            let full = before.routes.is_empty() && waiting && together + 1 >= before.replicas + before.surge;
            if old && selected && size < least && !full {
                return Err(format!("S2: old revision {one} scaled to {size} while a Service selects it"));
            }
        }
        // S1: what gets more traffic has the pods for it. With no replicas wanted, nothing is to be served.
        for (route, stable, canary, weight) in after.views().filter(|_| before.replicas > 0) {
            let share = before.share(one, stable, canary, weight);
            let had = before.views().filter(|view| view.0 == route);
            let had = had.map(|(_, stable, canary, weight)| before.share(one, stable, canary, weight)).max();
            let kept = after.pods[one].available.min(after.pods[one].spec);
            if share <= had.unwrap_or(0) || kept >= before.ready(one, share) {
                continue;
            }
            // Down is allowed as far as the canary has no pods for more, even if stable has too few.
            let lowered = weight < before.routes[route].now && stable.is_none_or(|stable| stable == one);
            let hopeless = before.carried(before.canary.now) <= weight;
            if lowered && (hopeless || before.aborted && stable != before.stable.now) {
                continue;
            }
            // Away from a hash without a single pod is allowed whatever the other has.
            let lost = |service: &Lagging<Option<usize>>, selection: Option<usize>| {
                selection == Some(one)
                    && service.before.is_empty()
                    && service.now != selection
                    && service.now.is_some_and(|now| before.kept(now) == 0)
            };
            if lost(&before.stable, stable) || lost(&before.canary, canary) {
                continue;
            }
            return Err(format!("S1: {share}% may reach revision {one} with {kept} pods"));
        }
    }
    Ok(())
}

/// Nothing is dropped in silence, and weights sum to their total.
fn check_holds(proposal: &Proposal, admitted: &Admitted, state: &State) -> Result<(), TestCaseError> {
    let held = |what: &str| admitted.holds.iter().any(|hold| hold.what.contains(what) && !hold.why.is_empty());
    for (name, size) in &proposal.replicas {
        prop_assert!(admitted.replicas[name] == *size || held(name), "{name}");
    }
    for name in proposal.services.keys() {
        prop_assert!(admitted.services.contains_key(name) || held(name), "{name}");
    }
    for allowed in &admitted.managed {
        let selects = state.canary.now.is_none_or(|one| one == state.new);
        let able = selects && (0..4).any(|one| state.kept(one) > 0) && (!state.aborted || state.new == 0);
        prop_assert!(allowed.is_empty() || able, "a header route to nobody: {allowed:?}");
        prop_assert!(allowed == &proposal.managed || held("route beta is not made"));
    }
    for split in &admitted.splits {
        prop_assert!(*split == proposal.split || held("weight of the canary"), "{split:?}");
        if let Some(split) = split {
            prop_assert_eq!(split.canary + split.stable, 100);
        }
    }
    let shrinking =
        (0..4).filter(|one| admitted.replicas.get(&name(*one)).is_some_and(|to| *to < state.pods[*one].spec));
    for one in shrinking {
        let confirmed: Vec<_> = admitted.confirm[&name(one)].iter().map(|basis| basis.object.name.as_str()).collect();
        prop_assert!(confirmed.contains(&STABLE) && confirmed.contains(&CANARY), "{confirmed:?}");
        prop_assert_eq!(confirmed.contains(&"route-0"), !state.routes.is_empty());
    }
    Ok(())
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

// ---- the world that a state stands for ----

fn name(one: usize) -> String {
    format!("web-h{one}")
}

/// What the guard admits, and the writes that its caller would make of it.
fn decide(state: &State, proposal: &Proposal) -> (Admitted, Vec<Write>) {
    let world = world(state);
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
    let service = |name: &str, service: &Lagging<Option<usize>>| {
        let mut selector = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        selector.extend(service.now.map(|one| (names::POD_TEMPLATE_HASH.to_owned(), format!("h{one}"))));
        let object = Service { name: name.to_owned(), uid: name.to_owned(), selector, ..Default::default() };
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
        rollout: Arc::new(serde_json::from_value(rollout).unwrap()),
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

/// The world with all pods listed, every one of them made long ago.
fn listed(state: &State) -> World {
    let mut world = world(state);
    let pods = (0..4).flat_map(|one| (0..state.pods[one].available).map(move |index| (one, index)));
    let pods = pods.map(|(one, index)| Pod {
        name: format!("{}-{index}", name(one)),
        uid: format!("{}-{index}", name(one)),
        controller: name(one),
        created: world.now,
        over: false,
        ready_since: Some(world.now),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    });
    world.pods = Some(pods.collect());
    world
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
        delete: BTreeSet::new(),
        split,
        services: [(STABLE, stable), (CANARY, canary)]
            .into_iter()
            .filter_map(|(name, hash)| Some((name.to_owned(), hash?)))
            .collect(),
    })
}

/// What strategies ask for in the end: a canary of some weight, a promoted one, or stable alone again.
fn goal(state: &State, weight: i32, dynamic: bool) -> Proposal {
    let weight = if state.aborted || state.new == 0 { 0 } else { weight };
    let routed = !state.routes.is_empty();
    let (canary, stable) = match (routed, state.canary_size) {
        (true, Some(size)) if weight > 0 => (size.max(1), state.replicas),
        // With dynamicStableScale stable has no more pods than its weight needs, once the weight goes to the new version.
        (true, _) if dynamic && state.canary.now == Some(state.new) => {
            (ceil(weight * state.replicas, 100), ceil((100 - weight) * state.replicas, 100))
        }
        (true, _) => (ceil(weight * state.replicas, 100), state.replicas),
        (false, _) => replicas::ideal_split(state.replicas, weight, 100, state.surge),
    };
    let mut sizes: BTreeMap<_, _> = (0..4).map(|one| (name(one), 0)).collect();
    if state.new != 0 {
        sizes.insert(name(state.new), canary);
    }
    sizes.insert(name(0), stable);
    let selected = if weight == 0 || canary == 0 { 0 } else { state.new };
    Proposal {
        replicas: sizes,
        delete: BTreeSet::new(),
        split: routed.then(|| Split::new(weight, 100)),
        services: [
            (STABLE.to_owned(), format!("h{}", if stable == 0 { selected } else { 0 })),
            (CANARY.to_owned(), format!("h{selected}")),
        ]
        .into(),
        managed: BTreeSet::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_subset_of_what_is_admitted_keeps_the_promises(state in states(), proposal in proposals()) {
        check_all_subsets(&state, &proposal)?;
    }

    #[test]
    fn evictions_leave_what_traffic_and_the_floor_need(state in states(), proposal in proposals()) {
        let world = listed(&state);
        let revisions = revisions(&world, &state);
        let routers: &[&dyn Router] = if state.routes.is_empty() { &[] } else { &[&GatewayApiRouter] };
        let traffic = Traffic::observe(&world, STABLE, CANARY, routers);
        let admitted = admit(&world, &revisions, &traffic, proposal.clone());
        let mut allowance = evictions(&world, &revisions, &traffic, &admitted);
        let mut after = state.clone();
        for pod in world.pods.iter().flatten() {
            let one = (0..4).find(|one| name(*one) == pod.controller).unwrap();
            if allowance.take(&world.replica_sets[one], pod, world.now) {
                after.pods[one].available -= 1;
            }
        }
        if after == state {
            return Ok(());
        }
        let (_, writes) = decide(&state, &proposal);
        let shrinks = writes.iter().any(|write| matches!(*write, Write::Size(one, to) if to < state.pods[one].spec));
        prop_assert!(!shrinks, "evictions beside {writes:?}");
        let kept: i32 = (0..4).map(|one| after.kept(one)).sum();
        prop_assert!(kept >= state.replicas - state.unavailable, "S7: {kept} left");
        for one in (0..4).filter(|_| state.replicas > 0) {
            // A missing pod counts the same whether it serves the present routes or those that are about to be.
            for view in state.views().chain(state.with(&writes).views()) {
                let (_, stable, canary, weight) = view;
                let need = state.chosen(one, ceil(state.share(one, stable, canary, weight) * state.replicas, 100));
                let least = need - need * state.unavailable / state.replicas;
                let lost = after.kept(one) < state.kept(one);
                prop_assert!(!lost || after.kept(one) >= least, "S1: {} of {least} pods of {one}", after.kept(one));
            }
        }
    }

    #[test]
    fn a_workload_gives_up_only_what_is_made_up_for(state in states(), replicas in 1..=8_i32) {
        let world = world(&state);
        let revisions = revisions(&world, &state);
        let traffic = Traffic::observe(&world, STABLE, CANARY, &[]);
        let keeps = workload_keeps(&world, &revisions, &traffic, replicas);
        let own: i32 = (0..4).map(|one| state.kept(one)).sum();
        let left = keeps.pods.min(replicas);
        prop_assert!(own + left >= state.replicas.min(own + replicas), "{own} + {left}");
        prop_assert!(left == replicas || own >= 1, "{keeps:?}");
        let lags = !state.stable.before.is_empty() || !state.canary.before.is_empty();
        prop_assert!(left > 0 || !lags, "traffic may still go there: {keeps:?}");
    }

    #[test]
    fn every_sound_goal_is_reached_and_safely(mut state in states(), weight in 0..=100, dynamic: bool) {
        if state.replicas == 0 {
            (state.replicas, state.unavailable) = (1, 1);
        }
        let mut proposal = Proposal::default();
        for _ in 0..40 {
            proposal = goal(&state, weight, dynamic);
            check_all_subsets(&state, &proposal)?;
            let (admitted, writes) = decide(&state, &proposal);
            if writes.is_empty() && admitted.holds.is_empty() {
                return Ok(());
            }
            state = state.with(&writes);
            state.pass_time();
        }
        prop_assert!(false, "stuck: {:#?}
{proposal:#?}
{state:#?}", decide(&state, &proposal));
    }
}

// ---- what a user would read ----

/// Ten replicas: stable in full, revision 1 with `pods`, the canary Service on it, and `weight` in one route.
fn canary_at(weight: i32, pods: i32) -> State {
    let available = |count| Pods { spec: count, available: count };
    State {
        replicas: 10,
        surge: 3,
        unavailable: 2,
        aborted: false,
        takes_turns: false,
        canary_size: None,
        new: 1,
        pods: [available(10), available(pods), Pods::default(), Pods::default()],
        stable: Lagging::new(Some(0), None),
        canary: Lagging::new(Some(1), None),
        routes: vec![Lagging::new(weight, None)],
        pending: false,
    }
}

fn weight(canary: i32) -> Proposal {
    Proposal { split: Some(Split::new(canary, 100)), ..Proposal::default() }
}

fn size(one: usize, pods: i32) -> Proposal {
    Proposal { replicas: [(name(one), pods)].into(), ..Proposal::default() }
}

fn switch(service: &str, one: usize) -> Proposal {
    Proposal { services: [(service.to_owned(), format!("h{one}"))].into(), ..Proposal::default() }
}

fn told(state: &State, proposal: &Proposal) -> String {
    decide(state, proposal).0.holds.iter().map(|hold| format!("{hold}\n")).collect()
}

#[test]
fn a_superseded_canary_stays_until_nothing_follows_the_old_ways() {
    let mut state = canary_at(20, 2);
    state.new = 2;
    let down = size(1, 0);
    assert_eq!(told(&state, &down), "ReplicaSet web-h1 stays at 2: 20 of 100 of the traffic may still reach it\n",);
    state.routes[0].now = 0;
    assert_eq!(
        told(&state, &down),
        "ReplicaSet web-h1 stays at 2: Service web-canary may still send traffic to it\n",
        "also without any weight"
    );
    state.pods[2] = Pods { spec: 2, available: 2 };
    state.canary.set(Some(2));
    let told = told(&state, &down);
    assert!(told.contains("(until 2026-01-01T12:00:03Z)"), "five seconds after the Service was switched: {told}");
    state.canary.before.clear();
    assert_eq!(decide(&state, &down).0.replicas[&name(1)], 0);
}

#[test]
fn a_weight_waits_for_the_pods_behind_it() {
    for (pods, canary_size, wanted, admitted) in [
        (2, None, 20, true),
        (1, None, 20, false),
        (4, None, 50, true),
        (3, None, 50, false),
        (8, None, 100, true),
        (1, Some(1), 100, true),
        (0, Some(0), 20, false),
        (0, None, 1, false),
    ] {
        let state = State { canary_size, ..canary_at(0, pods) };
        let split = decide(&state, &weight(wanted)).0.splits[0].clone();
        assert_eq!(split.is_some(), admitted, "{wanted}% with {pods} pods and setCanaryScale {canary_size:?}");
    }
    assert_eq!(
        told(&canary_at(10, 1), &weight(50)),
        "the weight of the canary stays at 10: ReplicaSet web-h1 has 1 available pods and needs 4 for a weight of 50\n"
    );
    let mut elsewhere = canary_at(0, 5);
    elsewhere.canary.now = Some(0);
    assert_eq!(
        told(&elsewhere, &weight(50)),
        "the weight of the canary stays at 0: Service web-canary does not select ReplicaSet web-h1 yet\n"
    );
}

#[test]
fn an_abort_takes_off_the_canary_what_stable_can_bear() {
    for (stable, canary, left) in [(10, 5, 0), (8, 5, 0), (7, 5, 13), (4, 5, 50), (0, 5, 50), (1, 0, 0), (0, 0, 0)] {
        let mut state = State { aborted: true, ..canary_at(50, 5) };
        state.pods[0].available = stable;
        state.pods[1].available = canary;
        let split = decide(&state, &weight(0)).0.splits[0].as_ref().map_or(50, |split| split.canary);
        assert_eq!(split, left, "stable {stable}, canary {canary} available");
    }
}

#[test]
fn an_abort_needs_neither_the_canary_service_nor_a_gateway() {
    let mut state = State { aborted: true, pending: true, ..canary_at(25, 3) };
    state.canary.before.push(None);
    let mut world = world(&state);
    world.services.remove(CANARY);
    let revisions = revisions(&world, &state);
    let traffic = Traffic::observe(&world, STABLE, CANARY, &[&GatewayApiRouter]);
    assert_eq!(admit(&world, &revisions, &traffic, weight(0)).splits, [Some(Split::new(0, 100))]);
}

#[test]
fn a_service_that_was_deleted_may_still_lead_to_its_pods() {
    let state = State { aborted: true, ..canary_at(0, 2) };
    let mut world = world(&state);
    world.services.remove(CANARY);
    for (seconds, left) in [(2, 2), (5, 0)] {
        let canary = ObjectRef::new(SERVICE, "shop", CANARY);
        world.gone = [(canary, world.now - SignedDuration::from_secs(seconds))].into();
        let revisions = revisions(&world, &state);
        let traffic = Traffic::observe(&world, STABLE, CANARY, &[&GatewayApiRouter]);
        let admitted = admit(&world, &revisions, &traffic, size(1, 0));
        assert_eq!(admitted.replicas[&name(1)], left, "after {seconds} s");
        let told: Vec<_> = admitted.holds.iter().map(ToString::to_string).collect();
        let expected = "ReplicaSet web-h1 stays at 2: Service web-canary may still send traffic to it \
                        (until 2026-01-01T12:00:03Z)";
        assert_eq!(told, if left == 0 { vec![] } else { vec![expected] });
    }
}

#[test]
fn a_route_that_was_deleted_may_still_give_its_weight() {
    let state = canary_at(0, 2);
    let mut world = world(&state);
    for (seconds, left) in [(2, 2), (5, 0)] {
        let other = ObjectRef::new(HTTP_ROUTE, "shop", "selected");
        world.gone = [(other, world.now - SignedDuration::from_secs(seconds))].into();
        let revisions = revisions(&world, &state);
        let traffic = Traffic::observe(&world, STABLE, CANARY, &[&GatewayApiRouter]);
        assert_eq!(admit(&world, &revisions, &traffic, size(1, 0)).replicas[&name(1)], left, "after {seconds} s");
    }
}

#[test]
fn what_cannot_be_read_holds_every_pod_that_it_may_reach() {
    let state = canary_at(20, 2);
    let mut world = world(&state);
    world.routes.clear();
    let revisions = revisions(&world, &state);
    let traffic = Traffic::observe(&world, STABLE, CANARY, &[&GatewayApiRouter]);
    let admitted = admit(&world, &revisions, &traffic, size(1, 0));
    assert_eq!(admitted.replicas[&name(1)], 2);
    let hold = admitted.holds[0].to_string();
    assert_eq!(hold, "ReplicaSet web-h1 stays at 2: traffic may still reach it: HTTPRoute shop/route-0 does not exist");
}

#[test]
fn a_service_is_switched_to_pods_that_carry_its_weight() {
    for (pods, stable, weight, holds) in [
        (8, 10, 20, ""),
        (7, 10, 20, "Service web-stable keeps its selector: ReplicaSet web-h1 has 7 available pods and needs 8\n"),
        // Nothing is lost where nothing is.
        (1, 0, 20, ""),
        // A Service without weight may go anywhere.
        (1, 10, 100, ""),
    ] {
        let mut state = canary_at(weight, pods);
        state.pods[0].available = stable;
        assert_eq!(told(&state, &switch(STABLE, 1)), holds, "{pods} pods, {stable} of stable, weight {weight}");
    }
}

#[test]
fn the_last_pod_behind_a_plain_service_goes_only_to_make_room() {
    for (surge, unavailable, left) in [(1, 0, 1), (0, 1, 0)] {
        let mut state = State { replicas: 1, surge, unavailable, new: 2, routes: Vec::new(), ..canary_at(0, 1) };
        state.pods[0] = Pods::default();
        assert_eq!(decide(&state, &size(1, 0)).0.replicas[&name(1)], left, "maxSurge {surge}");
    }
}

#[test]
fn only_old_revisions_without_pods_are_deleted() {
    let mut state = canary_at(0, 1);
    state.pods[2] = Pods { spec: 0, available: 1 };
    let proposal = Proposal { delete: (0..4).map(name).collect(), ..Proposal::default() };
    assert_eq!(decide(&state, &proposal).0.delete, BTreeSet::from([name(3)]));
    assert_eq!(
        told(&state, &proposal),
        "ReplicaSet web-h0 is not deleted: it is no old revision of this Rollout\n\
         ReplicaSet web-h1 is not deleted: it is no old revision of this Rollout\n\
         ReplicaSet web-h2 is not deleted: it still has 1 pods\n"
    );
}

#[test]
fn scaling_is_annotated() {
    let state = canary_at(0, 2);
    let world = world(&state);
    let admitted = Admitted { replicas: [(name(1), 0), (name(0), 10)].into(), ..Admitted::default() };
    let mut old = world.replica_sets[1].clone();
    old.annotations.insert(names::SCALE_DOWN_DEADLINE.to_owned(), "2026-01-01T12:00:00Z".to_owned());
    let action = admitted.scale(&world, &old, BTreeMap::new()).unwrap();
    assert_eq!(
        action.to_string(),
        "scale ReplicaSet shop/web-h1 from 2 to 0, rollout.argoproj.io/desired-replicas=10, scale-down-deadline removed"
    );
    let same = admitted.scale(&world, &world.replica_sets[0], BTreeMap::new()).unwrap();
    assert_eq!(
        same.to_string(),
        "scale ReplicaSet shop/web-h0 from 10 to 10, rollout.argoproj.io/desired-replicas=10",
        "Argo Rollouts takes a wrong desired-replicas for a change of spec.replicas"
    );
    let mut right = world.replica_sets[0].clone();
    right.annotations.insert(names::DESIRED_REPLICAS.to_owned(), "10".to_owned());
    assert_eq!(admitted.scale(&world, &right, BTreeMap::new()), None);
}

#[test]
fn a_weight_waits_for_a_switched_service_to_be_followed() {
    let mut state = canary_at(0, 2);
    state.new = 2;
    state.pods[2] = Pods { spec: 5, available: 5 };
    state.canary.set(Some(2));
    assert_eq!(
        told(&state, &weight(50)),
        "the weight of the canary stays at 0: ReplicaSet web-h1 has 2 available pods and needs 4 for a weight of 50 \
         (until 2026-01-01T12:00:03Z)\n",
        "the superseded canary may still get it"
    );
    state.canary.before.clear();
    assert_eq!(told(&state, &weight(50)), "");
}

#[test]
fn services_that_are_switched_together_are_carried_together() {
    let both = |pods| {
        let mut state = canary_at(20, 2);
        state.new = 2;
        state.pods[2] = Pods { spec: 8, available: pods };
        let services = [(STABLE, 2), (CANARY, 2)].map(|(name, one)| (name.to_owned(), format!("h{one}")));
        let proposal = Proposal { services: services.into(), ..Proposal::default() };
        decide(&state, &proposal).0.services.len()
    };
    assert_eq!(both(7), 0, "seven carry 80, and seven carry 20, but not 100");
    assert_eq!(both(8), 2);
}

#[test]
fn a_header_route_needs_a_canary_and_keeps_it() {
    let route = Proposal { managed: BTreeSet::from(["beta".to_owned()]), ..Proposal::default() };
    let allowed = |state: &State| !decide(state, &route).0.managed[0].is_empty();
    assert!(allowed(&canary_at(0, 1)));
    assert!(!allowed(&State { aborted: true, ..canary_at(0, 1) }), "after an abort nothing leads to the canary anew");
    let mut starting = canary_at(0, 1);
    starting.pods[1].available = 0;
    assert_eq!(told(&starting, &route), "route beta is not made: Service web-canary has no available pods\n");
    let mut elsewhere = canary_at(0, 1);
    elsewhere.canary.now = Some(0);
    assert_eq!(
        told(&elsewhere, &route),
        "route beta is not made: Service web-canary does not select ReplicaSet web-h1 yet\n"
    );

    // While the route is there the canary keeps a pod, whatever its weight.
    let state = canary_at(0, 2);
    let mut world = world(&state);
    let rule = json!({"name": "beta", "backendRefs": [{"name": CANARY, "port": 80}]});
    for observed in world.routes.values_mut() {
        let mut route = (*observed.object).clone();
        route["spec"]["rules"].as_array_mut().unwrap().insert(0, rule.clone());
        observed.object = Arc::new(route);
    }
    let routing = json!({"managedRoutes": [{"name": "beta"}]});
    let rollout = Arc::make_mut(&mut world.rollout);
    let routing: crate::api::traffic_routing::TrafficRouting = serde_json::from_value(routing).unwrap();
    let present = rollout.spec.strategy.canary.as_mut().unwrap().traffic_routing.as_mut().unwrap();
    present.managed_routes = routing.managed_routes;
    let revisions = revisions(&world, &state);
    let traffic = Traffic::observe(&world, STABLE, CANARY, &[&GatewayApiRouter]);
    let admitted = admit(&world, &revisions, &traffic, size(1, 0));
    assert_eq!(admitted.replicas[&name(1)], 1);
    assert_eq!(admitted.holds[0].to_string(), "ReplicaSet web-h1 stays at 1: header or mirror routes lead to it");
    // It may stay under an abort: it goes when the strategy says so, at once.
    assert_eq!(admit(&world, &revisions, &traffic, route).managed[0].len(), 1);
}

// ---- experiments ----

proptest! {
    #[test]
    fn an_experiment_gets_weight_only_with_all_of_its_pods(
        state in states(),
        canary in 0..=100_i32,
        templates in prop::collection::vec((0..=60_i32, 0..=2_i32, 0..=3_usize), 0..=3),
    ) {
        let mut world = world(&state);
        let statuses = ["Progressing", "Running", "Successful", "Failed"];
        let statuses: Vec<Value> = templates
            .iter()
            .enumerate()
            .map(|(index, (_, available, status))| json!({
                "name": index.to_string(), "serviceName": format!("trial-{index}"),
                "status": statuses[*status], "availableReplicas": available,
            }))
            .collect();
        let experiment = json!({"metadata": {"name": "trial"}, "spec": {}, "status": {"templateStatuses": statuses}});
        world.experiments.push(Arc::new(serde_json::from_value(experiment).unwrap()));
        let revisions = revisions(&world, &state);
        let routers: Vec<&dyn Router> = if state.routes.is_empty() { vec![] } else { vec![&GatewayApiRouter] };
        let traffic = Traffic::observe(&world, STABLE, CANARY, &routers);
        let additional: BTreeMap<String, i32> =
            templates.iter().enumerate().map(|(index, (weight, ..))| (format!("trial-{index}"), *weight)).collect();
        let split = Split { additional: additional.clone(), ..Split::new(canary, 100) };
        let admitted = admit(&world, &revisions, &traffic, Proposal { split: Some(split), ..Proposal::default() });
        for split in admitted.splits.iter().flatten() {
            prop_assert_eq!(split.stable + split.canary + split.additional.values().sum::<i32>(), 100);
            prop_assert!(split.stable >= 0 && split.canary >= 0);
            for (service, weight) in &split.additional {
                let index: usize = service["trial-".len()..].parse().unwrap();
                let (wanted, available, status) = templates[index];
                prop_assert!(!(state.aborted && state.new != 0), "an aborted update gives traffic to an experiment");
                prop_assert!(status == 1 && available > 0, "{} has no pods", service);
                prop_assert_eq!(*weight, wanted);
            }
            for service in additional.keys().filter(|service| !split.additional.contains_key(*service)) {
                let told = admitted.holds.iter().any(|hold| hold.what.contains(service.as_str()));
                prop_assert!(told, "{} waits and nobody is told", service);
            }
        }
    }
}
