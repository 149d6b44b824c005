//! The guard over random blue-green worlds: an active Service with all of the traffic, a preview Service with none, and one
//! that the strategy has ceased to name, of which nobody knows. Before it was a blue-green it may have been a canary, whose
//! route still gives the preview Service a weight.

use super::*;

const ACTIVE: &str = "web-active";
const PREVIEW: &str = "web-preview";
const LEFT: &str = "web-left";

#[derive(Clone, Debug, PartialEq)]
struct State {
    replicas: i32,
    aborted: bool,
    new: usize,
    pods: [Pods; 4],
    active: Lagging<Option<usize>>,
    preview: Lagging<Option<usize>>,
    left: Option<Lagging<Option<usize>>>,
    /// The weight that a former route gives the preview Service; the active one has the rest.
    route: Option<Lagging<i32>>,
}

#[derive(Clone, Debug)]
enum Write {
    Size(usize, i32),
    Active(usize),
    Preview(usize),
    Route(i32),
}

impl State {
    fn make(&mut self, write: &Write) {
        match *write {
            Write::Size(one, size) => self.pods[one].spec = size,
            Write::Active(one) => self.active.set(Some(one)),
            Write::Preview(one) => self.preview.set(Some(one)),
            Write::Route(weight) => self.route.as_mut().unwrap().set(weight),
        }
    }

    /// The largest share of users that the former route may still send to the preview Service: any, while it settles.
    fn to_preview(&self) -> i32 {
        let Some(route) = &self.route else { return 0 };
        if route.before.is_empty() { route.now } else { 100 }
    }

    /// The largest share that the pods behind a selection can carry.
    fn carried(&self, selection: Option<usize>) -> i32 {
        (self.kept(selection) * 100 / self.replicas.max(1)).min(100)
    }

    /// The revisions with pods behind a selection.
    fn behind(&self, selection: Option<usize>) -> Vec<usize> {
        let selected = |one: &usize| selection.is_none_or(|selected| selected == *one);
        (0..4).filter(|one| selected(one) && self.pods[*one] != Pods::default()).collect()
    }

    /// Pods that answer behind a selection.
    fn kept(&self, selection: Option<usize>) -> i32 {
        let kept = |one: usize| self.pods[one].available.min(self.pods[one].spec);
        selection.map_or_else(|| (0..4).map(kept).sum(), kept)
    }

    fn pass_time(&mut self) {
        for one in &mut self.pods {
            one.available = one.spec;
        }
        self.active.before.clear();
        self.preview.before.clear();
        self.left.iter_mut().for_each(|left| left.before.clear());
        self.route.iter_mut().for_each(|route| route.before.clear());
    }
}

/// Every subset of the admitted writes, so also every prefix, keeps the promises.
fn check_all_subsets(state: &State, proposal: &Proposal) -> Result<(), TestCaseError> {
    let (admitted, writes) = decide(state, proposal);
    let held = |what: &str| admitted.holds.iter().any(|hold| hold.what.contains(what) && !hold.why.is_empty());
    for (name, size) in &proposal.replicas {
        prop_assert!(admitted.replicas[name] == *size || held(name), "{name}");
    }
    for name in proposal.services.keys() {
        prop_assert!(admitted.services.contains_key(name) || held(name), "{name}");
    }
    for subset in 0..1_u32 << writes.len() {
        let chosen: Vec<_> =
            writes.iter().enumerate().filter(|(bit, _)| subset & (1 << bit) != 0).map(|(_, write)| write).collect();
        let mut after = state.clone();
        chosen.iter().for_each(|write| after.make(write));
        if let Err(broken) = check(state, &after) {
            prop_assert!(false, "{broken}\n{chosen:?}\n{:#?}", admitted.holds);
        }
    }
    Ok(())
}

fn check(before: &State, after: &State) -> Result<(), String> {
    if before.replicas == 0 {
        return Ok(());
    }
    // By whatever users may still be led, they find as many pods as are wanted, or as many as there were.
    let selections = after.active.all().chain(after.left.iter().flat_map(Lagging::all));
    for selection in selections {
        let (had, kept) = (before.kept(selection), after.kept(selection));
        if kept < had.min(before.replicas) {
            return Err(format!("{kept} of {had} pods are left behind {selection:?}"));
        }
    }
    // The users that a former route leads to the preview Service find the pods that they need, or as many as there were.
    if before.to_preview() > 0 {
        let need = |share: i32| ceil(share * before.replicas, 100);
        for selection in after.preview.all() {
            let (had, kept) = (before.kept(selection), after.kept(selection));
            if kept < had.min(need(before.to_preview())) {
                return Err(format!("{kept} of {had} pods are left behind the preview Service, {selection:?}"));
            }
        }
        let (had, kept) = (before.kept(before.preview.now), after.kept(after.preview.now));
        let nothing_lost = had == 0 && before.preview.now.is_some() && before.preview.before.is_empty();
        if after.preview.now != before.preview.now && kept < need(before.to_preview()) && !nothing_lost {
            return Err(format!("{}% of the users go to {kept} pods", before.to_preview()));
        }
    }
    // It is put back as far as the active version can bear, and never the other way.
    if let (Some(before_route), Some(after_route)) = (&before.route, &after.route)
        && before_route.now != after_route.now
    {
        // Whoever follows a selection of no pods at all has lost nothing by more users.
        let nobody = |selection: &Option<usize>| selection.is_some_and(|one| before.pods[one] == Pods::default());
        let selections = before.active.all().filter(|selection| !nobody(selection));
        let active = selections.map(|selection| before.carried(selection)).min().unwrap_or(0);
        let active = if before.aborted { before.carried(before.active.now) } else { active };
        let least = (100 - active).min(before.carried(before.preview.now));
        // Where both Services lead to the same pods, nobody moves.
        let moves = before.behind(before.active.now) != before.behind(before.preview.now);
        if after_route.now > before_route.now || moves && after_route.now < least {
            return Err(format!("the weight goes from {} to {}", before_route.now, after_route.now));
        }
    }
    // Users are led to other pods only if these are no fewer than wanted, or than they had.
    if after.active.now != before.active.now {
        let (had, kept) = (before.kept(before.active.now), after.kept(after.active.now));
        let least = before.active.now.map_or(before.replicas, |_| had.min(before.replicas));
        if kept < least {
            return Err(format!("users go from {had} pods to {kept}"));
        }
        if before.aborted && before.new != 0 && after.active.now == Some(before.new) {
            return Err("users go to a version that was aborted".to_owned());
        }
    }
    Ok(())
}

fn decide(state: &State, proposal: &Proposal) -> (Admitted, Vec<Write>) {
    let world = world(state);
    let revisions = Revisions {
        new: Some(&world.replica_sets[state.new]),
        stable: Some(&world.replica_sets[0]),
        others: (1..4).rev().filter(|one| *one != state.new).map(|one| &world.replica_sets[one]).collect(),
        hash: format!("h{}", state.new),
        adopt: Vec::new(),
        release: Vec::new(),
    };
    let traffic = Traffic::observe(&world, "", "", &[]);
    let admitted = admit(&world, &revisions, &traffic, proposal.clone());
    let mut writes = Vec::new();
    for split in admitted.left.iter().flatten() {
        if state.route.as_ref().is_some_and(|route| route.now != split.canary) {
            writes.push(Write::Route(split.canary));
        }
    }
    for one in 0..4 {
        let scaled = admitted.scale(&world, &world.replica_sets[one], BTreeMap::new());
        if let Some(Action::Scale { replica_set, to, from, .. }) = scaled
            && to != from
        {
            let confirm = admitted.confirm.get(&replica_set.object.name).cloned().unwrap_or_default();
            assert!(to > from || confirm.iter().any(|basis| basis.object.name == ACTIVE), "{confirm:?}");
            writes.push(Write::Size(one, to));
        }
    }
    for (service, hash) in &admitted.services {
        let one = hash[1..].parse().unwrap();
        match service.as_str() {
            ACTIVE if state.active.now != Some(one) => writes.push(Write::Active(one)),
            PREVIEW if state.preview.now != Some(one) => writes.push(Write::Preview(one)),
            _ => {}
        }
    }
    (admitted, writes)
}

fn world(state: &State) -> World {
    let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
    let rollout = json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": { "name": "web", "namespace": "shop", "uid": "r" },
        "spec": {
            "replicas": state.replicas,
            "strategy": { "blueGreen": { "activeService": ACTIVE, "previewService": PREVIEW } },
        },
        "status": { "abort": state.aborted, "stableRS": "h0", "currentPodHash": format!("h{}", state.new) },
    });
    let service = |name: &str, service: &Lagging<Option<usize>>| {
        let mut selector = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        selector.extend(service.now.map(|one| (names::POD_TEMPLATE_HASH.to_owned(), format!("h{one}"))));
        let object = Service { name: name.to_owned(), uid: name.to_owned(), selector, ..Default::default() };
        let age = if service.before.is_empty() { 5 } else { 2 };
        (name.to_owned(), Observed { object, since: now - SignedDuration::from_secs(age) })
    };
    let mut services = BTreeMap::from([service(ACTIVE, &state.active), service(PREVIEW, &state.preview)]);
    services.extend(state.left.as_ref().map(|left| {
        let (name, mut service) = service(LEFT, left);
        service.object.annotations.insert(names::MANAGED_BY.to_owned(), "web".to_owned());
        (name, service)
    }));
    let mut rollout: Rollout = serde_json::from_value(rollout).unwrap();
    let routes = state.route.as_ref().map(|weight| {
        let routing = json!({ "gatewayAPI": { "httpRoute": "former" } });
        let piece = json!({ "stableService": ACTIVE, "canaryService": PREVIEW, "trafficRouting": routing });
        rollout.metadata.annotations = Some([(names::ROUTES.to_owned(), json!([piece]).to_string())].into());
        let conditions = ["Accepted", "ResolvedRefs"].map(|type_| json!({ "type": type_, "status": "True" }));
        let object = json!({
            "spec": { "rules": [{ "backendRefs": [
                { "name": ACTIVE, "weight": 100 - weight.now },
                { "name": PREVIEW, "weight": weight.now },
            ] }] },
            "status": { "parents": [{ "conditions": conditions }] },
        });
        let since = now - SignedDuration::from_secs(if weight.before.is_empty() { 5 } else { 2 });
        (ObjectRef::new(HTTP_ROUTE, "shop", "former"), Observed { object: Arc::new(object), since })
    });
    World {
        now,
        rollout: Arc::new(rollout),
        pods: None,
        workload: None,
        replica_sets: (0..4).map(|one| replica_set(one, state.pods[one], now)).collect(),
        services,
        gone: BTreeMap::new(),
        routes: routes.into_iter().collect(),
        analysis_runs: Vec::new(),
        experiments: Vec::new(),
        templates: Templates::default(),
        failures: Vec::new(),
        settings: Settings::default(),
    }
}

fn states() -> impl Strategy<Value = State> {
    let pods = || (0..=6, 0..=7).prop_map(|(spec, available)| Pods { spec, available });
    let few = || prop_oneof![2 => Just(Pods::default()), 1 => pods()];
    let service = || (prop::option::weighted(0.85, 0..4_usize), prop::option::weighted(0.3, 0..4_usize));
    let all_pods = (pods(), pods(), few(), few());
    let weight = || prop_oneof![Just(0), Just(25), Just(60), Just(100)];
    let route = prop::option::weighted(0.5, (weight(), prop::option::weighted(0.3, weight())));
    let services = (service(), service(), prop::option::weighted(0.3, service()), route);
    (0..=6_i32, any::<bool>(), 0..4_usize, all_pods, services).prop_map(
        |(replicas, aborted, new, pods, (active, preview, left, route))| {
            let lagging = |(now, before): (Option<usize>, Option<usize>)| Lagging::new(now, before.map(Some));
            State {
                replicas,
                aborted,
                new,
                pods: [pods.0, pods.1, pods.2, pods.3],
                active: lagging(active),
                preview: lagging(preview),
                left: left.map(lagging),
                route: route.map(|(now, before)| Lagging::new(now, before)),
            }
        },
    )
}

fn proposals() -> impl Strategy<Value = Proposal> {
    let hash = || (0..4_usize).prop_map(|one| format!("h{one}"));
    let replicas = prop::collection::btree_map((0..4_usize).prop_map(name), 0..=7, 0..=4);
    (replicas, prop::option::of(hash()), prop::option::of(hash())).prop_map(|(replicas, active, preview)| Proposal {
        replicas,
        services: [(ACTIVE, active), (PREVIEW, preview)]
            .into_iter()
            .filter_map(|(name, hash)| Some((name.to_owned(), hash?)))
            .collect(),
        ..Proposal::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_subset_of_what_is_admitted_keeps_the_promises(state in states(), proposal in proposals()) {
        check_all_subsets(&state, &proposal)?;
    }

    /// One version with all of the pods and all of the users, and nothing beside it.
    #[test]
    fn every_version_is_reached_and_safely(mut state in states(), back in any::<bool>()) {
        (state.replicas, state.left) = (state.replicas.max(1), None);
        let target = if back || state.aborted { 0 } else { state.new };
        let sizes = (0..4).map(|one| (name(one), if one == target { state.replicas } else { 0 }));
        let proposal = Proposal {
            replicas: sizes.collect(),
            services: [ACTIVE, PREVIEW].map(|name| (name.to_owned(), format!("h{target}"))).into(),
            ..Proposal::default()
        };
        for _ in 0..10 {
            check_all_subsets(&state, &proposal)?;
            let (admitted, writes) = decide(&state, &proposal);
            if writes.is_empty() && admitted.holds.is_empty() {
                prop_assert_eq!(state.to_preview(), 0);
                return Ok(());
            }
            writes.iter().for_each(|write| state.make(write));
            state.pass_time();
        }
        prop_assert!(false, "stuck: {:#?}\n{state:#?}", decide(&state, &proposal));
    }
}

/// Four replicas: stable in full with all users, and revision 1 with `pods`, of which all but `crashed` are available.
fn update(pods: i32, crashed: i32) -> State {
    let available = |count| Pods { spec: count, available: count };
    State {
        replicas: 4,
        aborted: false,
        new: 1,
        pods: [available(4), Pods { spec: pods, available: pods - crashed }, Pods::default(), Pods::default()],
        active: Lagging::new(Some(0), None),
        preview: Lagging::new(Some(1), None),
        left: None,
        route: None,
    }
}

fn told(state: &State, proposal: &Proposal) -> String {
    decide(state, proposal).0.holds.iter().map(|hold| format!("{hold}\n")).collect()
}

#[test]
fn users_go_to_as_many_pods_as_they_have() {
    let switch = switch(ACTIVE, 1);
    assert_eq!(told(&update(4, 0), &switch), "");
    assert_eq!(
        told(&update(4, 1), &switch),
        "Service web-active keeps its selector: ReplicaSet web-h1 has 3 available pods and needs 4\n"
    );
    let mut ruins = update(4, 1);
    ruins.pods[0].available = 2;
    assert_eq!(told(&ruins, &switch), "");
    ruins.aborted = true;
    assert_eq!(told(&ruins, &switch), "Service web-active keeps its selector: the update was aborted\n");
}

#[test]
fn old_pods_stay_until_the_switch_is_followed() {
    let mut state = update(4, 0);
    let down = size(0, 0);
    let stays = "ReplicaSet web-h0 stays at 4: Service web-active may still send traffic to it";
    assert_eq!(told(&state, &down), format!("{stays}\n"));
    state.active.set(Some(1));
    assert_eq!(told(&state, &down), format!("{stays} (until 2026-01-01T12:00:03Z)\n"));
    state.active.before.clear();
    assert_eq!(told(&state, &down), "");
}

#[test]
fn a_preview_holds_no_pods_and_a_service_left_behind_holds_all() {
    let mut state = update(4, 0);
    let down = size(1, 0);
    assert_eq!(told(&state, &down), "");
    state.left = Some(Lagging::new(Some(1), None));
    assert_eq!(told(&state, &down), "ReplicaSet web-h1 stays at 4: Service web-left may still send traffic to it\n");
}

#[test]
fn a_preview_that_a_former_route_leads_to_is_no_preview() {
    let mut state = update(0, 0);
    (state.new, state.preview, state.route) = (1, Lagging::new(Some(0), None), Some(Lagging::new(25, None)));
    let switch = switch(PREVIEW, 1);
    let keeps = "Service web-preview keeps its selector: ReplicaSet web-h1 has 0 available pods and needs 1\n";
    assert_eq!(told(&state, &switch), keeps);
    let (_, writes) = decide(&state, &switch);
    assert!(matches!(writes[..], [Write::Route(0)]), "{writes:?}");
    state.make(&writes[0]);
    assert_eq!(
        told(&state, &switch),
        "Service web-preview keeps its selector: ReplicaSet web-h1 has 0 available pods and needs 4 \
         (until 2026-01-01T12:00:03Z)\n"
    );
    state.pass_time();
    assert_eq!(told(&state, &switch), "");
}
