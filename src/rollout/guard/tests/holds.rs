//! What a user would read of what has to wait.

use super::*;

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
fn a_service_that_led_nowhere_gets_no_weight_before_everybody_follows_it() {
    // It selected the third revision, which has pods or not.
    for (pods, waits) in [(0, true), (5, false)] {
        let mut state = canary_at(0, 5);
        state.canary = Lagging::new(Some(1), Some(Some(2)));
        state.pods[2] = Pods { spec: pods, available: pods };
        let split = decide(&state, &weight(30)).0.splits[0].clone();
        assert_eq!(split.is_none(), waits, "{pods} pods: {}", told(&state, &weight(30)));
    }
}

#[test]
fn a_stable_service_that_led_nowhere_gets_the_traffic_when_everybody_follows_it() {
    // Revision 1 was promoted, and the Service selected the old one until just now, which has pods or not.
    for (pods, waits) in [(0, true), (10, false)] {
        let mut state = State { new: 0, ..canary_at(100, 0) };
        (state.stable, state.canary) = (Lagging::new(Some(0), Some(Some(1))), Lagging::new(Some(0), None));
        state.pods[1] = Pods { spec: pods, available: pods };
        let split = decide(&state, &weight(0)).0.splits[0].clone();
        assert_eq!(split.is_none(), waits, "{pods} pods: {}", told(&state, &weight(0)));
        let aborted = State { aborted: true, ..state };
        assert!(decide(&aborted, &weight(0)).0.splits[0].is_some(), "an abort does not wait");
    }
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
fn users_are_not_sent_back_at_the_end_of_an_update() {
    // The second revision is stable now, and every request goes through the Service of the canary.
    let mut state = State { new: 0, ..canary_at(100, 10) };
    state.stable = Lagging::new(Some(1), None);
    state.canary = Lagging::new(Some(0), None);
    assert_eq!(
        told(&state, &weight(0)),
        "the weight of the canary stays at 100: Service web-stable does not select ReplicaSet web-h0 yet\n"
    );
    state.stable.now = Some(0);
    assert_eq!(decide(&state, &weight(0)).0.splits, [Some(Split::new(0, 100))]);
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
fn a_service_with_a_weight_is_not_switched_to_a_version_on_trial() {
    // The update to revision 1 has just ended: its weight is still that of the canary. Revision 2 has all of its pods.
    let mut state = State { new: 2, ..canary_at(100, 10) };
    state.pods[2] = Pods { spec: 10, available: 10 };
    let held = "Service web-canary keeps its selector: it may still lead traffic to another version than web-h2";
    assert_eq!(told(&state, &switch(CANARY, 2)), format!("{held}\n"));
    state.routes[0] = Lagging::new(0, Some(100));
    assert!(told(&state, &switch(CANARY, 2)).starts_with(&format!("{held} (until ")), "gateways may lag");
    state.routes[0] = Lagging::new(0, None);
    assert_eq!(told(&state, &switch(CANARY, 2)), "");
    // Stable in ruins cannot take the weight back, and the new version may be the cure.
    state.routes[0] = Lagging::new(50, None);
    assert_eq!(told(&state, &switch(CANARY, 2)), format!("{held}\n"));
    state.pods[0].available = 0;
    assert_eq!(told(&state, &switch(CANARY, 2)), "");
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
fn pods_of_a_size_that_is_not_reported_yet_are_not_counted_on() {
    // Stable went down to 6 and is back at 8; of the 8 that it still reports two are gone.
    let mut state = State { aborted: true, routes: Vec::new(), ..canary_at(0, 4) };
    state.pods[0] = Pods { spec: 8, available: 8 };
    let unreported = |one: usize, least: i32, state: &State| {
        let mut world = world(state);
        world.replica_sets[one].generation += 1;
        world.replica_sets[one].status.least = least;
        world
    };
    let down = size(1, 1);
    assert_eq!(decide(&state, &down).0.replicas[&name(1)], 1);
    let (admitted, _) = decide_in(&state, unreported(0, 6, &state), &down);
    assert_eq!(admitted.replicas[&name(1)], 2);
    assert_eq!(admitted.holds[0].to_string(), "ReplicaSet web-h1 stays at 2: 8 pods must stay available");
    // Those of the one that shrinks may all be there.
    let (admitted, _) = decide_in(&state, unreported(1, 0, &state), &size(1, 3));
    assert_eq!(admitted.replicas[&name(1)], 4);

    let state = canary_at(0, 5);
    let (admitted, _) = decide_in(&state, unreported(1, 3, &state), &weight(30));
    assert_eq!(
        admitted.holds[0].to_string(),
        "the weight of the canary stays at 0: ReplicaSet web-h1 has not reported its pods yet"
    );
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
fn beside_a_replica_set_that_is_made_there_is_less_room() {
    let state = State { surge: 2, routes: Vec::new(), pods: [Pods { spec: 10, available: 10 }; 4], ..canary_at(0, 0) };
    let state = State { pods: [state.pods[0], Pods::default(), Pods::default(), Pods::default()], ..state };
    for (created, size) in [(0, 12), (1, 11), (2, 10), (3, 10)] {
        let proposal = Proposal { created, ..super::size(0, 12) };
        assert_eq!(decide(&state, &proposal).0.replicas[&name(0)], size, "beside {created}");
    }
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
