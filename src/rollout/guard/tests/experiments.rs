//! The weights of experiments, over random worlds.

use super::*;

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
