//! The promises, over random worlds.

use super::*;

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
    fn a_workload_gives_up_only_what_is_made_up_for(state in states(), replicas in 1..=8_i32, unreported in 0..8_usize) {
        let mut world = world(&state);
        // One whose size is not reported yet, and of which no earlier one is known, makes up for nothing.
        world.replica_sets.get_mut(unreported).into_iter().for_each(|one| one.generation += 1);
        let revisions = revisions(&world, &state);
        let traffic = Traffic::observe(&world, STABLE, CANARY, &[]);
        let keeps = workload_keeps(&world, &revisions, &traffic, replicas);
        let own: i32 = (0..4).filter(|one| *one != unreported).map(|one| state.kept(one)).sum();
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

    let switched = !promoted && before.canary.now != after.canary.now && after.canary.now == Some(before.new);
    let weighs = before.pending || before.routes.iter().flat_map(Lagging::all).any(|weight| weight > 0);
    if switched && !before.routes.is_empty() && weighs && before.kept(0) > 0 {
        return Err("S3: the new version has got a weight that no step has given it".to_owned());
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
        created: 0,
        delete: BTreeSet::new(),
        // A Service that still leads to another version is switched when it has no weight.
        split: routed.then(|| Split::new(if state.canary.now == Some(selected) { weight } else { 0 }, 100)),
        services: [
            (STABLE.to_owned(), format!("h{}", if stable == 0 { selected } else { 0 })),
            (CANARY.to_owned(), format!("h{selected}")),
        ]
        .into(),
        managed: BTreeSet::new(),
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
