//! What `tidegate plan` foresees is what the scenarios see: the same steps, the same weights, in the same order.

use std::path::Path;
use std::time::Duration;

use tidegate::cli::manifest;
use tidegate::cli::plan::{Circumstances, Outcome, Release, Wish, plan};
use tidegate::sandbox::workloads::Behaviour;
use tidegate_e2e::scenario::{Scenario, sandbox};

/// Each: what stands before the Rollout, the name of the application there, and the strategy.
const RELEASES: [(&str, &str, &str); 4] = [
    (
        "gateway.yaml",
        "web",
        "canary: {stableService: web-stable, canaryService: web-canary, trafficRouting: {gatewayAPI: {httpRoute: web}}, \
         steps: [{setWeight: 10}, {pause: {duration: 30s}}, {setCanaryScale: {weight: 50}}, {setWeight: 40}, \
         {setCanaryScale: {matchTrafficWeight: true}}, {pause: {duration: 5s}}, {setWeight: 100}]}",
    ),
    (
        "nginx.yaml",
        "web-app",
        "canary: {stableService: web-app-stable, canaryService: web-app-canary, trafficRouting: {nginx: {stableIngress: web-app}}, \
         steps: [{setWeight: 5}, {pause: {duration: 1m}}, {setWeight: 50}, {pause: {duration: 10}}]}",
    ),
    (
        "istio.yaml",
        "web",
        "canary: {stableService: web-stable, canaryService: web-canary, dynamicStableScale: true, \
         trafficRouting: {istio: {virtualService: {name: web, routes: [primary]}}}, \
         steps: [{setWeight: 25}, {pause: {duration: 20s}}, {setWeight: 75}, {pause: {duration: 20s}}]}",
    ),
    (
        "gateway.yaml",
        "web",
        "canary: {steps: [{setWeight: 25}, {pause: {duration: 15s}}, {setWeight: 50}, {pause: {duration: 15s}}]}",
    ),
];

fn rollout(app: &str, strategy: &str, image: &str) -> String {
    format!(
        "apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nmetadata: {{name: web}}\nspec:\n  replicas: 4\n  \
         selector: {{matchLabels: {{app: {app}}}}}\n  template:\n    metadata: {{labels: {{app: {app}}}}}\n    \
         spec: {{containers: [{{name: web, image: \"example/web:{image}\", ports: [{{containerPort: 8080}}]}}]}}\n  \
         strategy:\n    {strategy}\n"
    )
}

/// The indices of the steps, and the weights of the canary up to the whole; without a router there are none.
#[derive(Debug, PartialEq)]
struct Sequence {
    steps: Vec<usize>,
    weights: Vec<i64>,
}

impl Sequence {
    fn of(mut steps: Vec<usize>, mut weights: Vec<i64>, count: usize) -> Self {
        steps.dedup();
        steps.retain(|step| *step < count);
        weights.dedup();
        let whole = weights.iter().position(|weight| *weight == 100).map_or(weights.len(), |whole| whole + 1);
        weights.truncate(whole);
        weights.retain(|weight| *weight > 0);
        Self { steps, weights }
    }
}

/// As the trace of a scenario has it.
fn seen(objects: &str, app: &str, strategy: &str, count: usize) -> Sequence {
    let folder = std::env::temp_dir().join(format!("tidegate-plan-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let indented = rollout(app, strategy, "blue").replace('\n', "\n    ");
    let text = format!(
        "# A release\n\nworlds: sandbox\n\n- apply {objects}\n- apply\n    {}\n- wait until phase is Healthy within 60s\n\n\
         - set image web=example/web:green\n- wait until phase is Progressing within 10s\n\
         - wait until phase is Healthy within 600s\n",
        indented.trim_end()
    );
    let file = folder.join("planned.scenario");
    std::fs::write(&file, text).unwrap();
    let scenarios = Scenario::read(&file);
    std::fs::remove_dir_all(&folder).unwrap();
    let scenario = scenarios.unwrap().remove(0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let trace = runtime.block_on(sandbox::play(&scenario)).unwrap();
    let (_, release) = trace.split_once("- set image").unwrap();
    let told: Vec<&str> = release.lines().filter_map(|line| line.trim().strip_prefix("rollout web: ")).collect();
    let numbers = |before: &str| -> Vec<i64> {
        let rests = told.iter().filter_map(|line| line.strip_prefix(before));
        rests.filter_map(|rest| rest.split(',').next()?.parse().ok()).collect()
    };
    let steps = numbers("step ").into_iter().map(|step| usize::try_from(step).unwrap()).collect();
    Sequence::of(steps, numbers("weights: canary "), count)
}

/// As the plan has it.
fn planned(objects: &str, app: &str, strategy: &str) -> (Sequence, usize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/manifests");
    let objects = std::fs::read_to_string(folder.join(objects)).unwrap().replace("${NAMESPACE}", "planned");
    let text = format!("{objects}\n---\n{}", rollout(app, strategy, "green"));
    let objects = manifest::parse("web.yaml", &text).unwrap();
    let pods =
        Behaviour { ready_after: Duration::from_millis(200), start_after: Duration::ZERO, ..Behaviour::default() };
    let circumstances = Circumstances {
        rate: 10.0,
        pods,
        promote_after: Duration::from_secs(60),
        scrape_interval: Duration::ZERO,
        give_up_after: Duration::from_secs(3600),
        seed: 1,
        in_detail: true,
    };
    let wish = Wish { namespace: Some("planned".to_owned()), ..Wish::default() };
    let report = plan(&objects, &wish, &[Release::healthy()], &circumstances, 1, &|_, _| {}).unwrap();
    let prediction = &report.releases[0];
    assert_eq!(prediction.outcome, Outcome::Completed, "{prediction:?}");
    let count = report.rollout.steps.len();
    let steps = prediction.steps.iter().filter_map(|row| row.step).collect();
    let weights = prediction.timeline.iter().map(|sample| (sample.weight * 100.0).round() as i64);
    let weights = if report.rollout.router.is_some() { weights.collect() } else { Vec::new() };
    (Sequence::of(steps, weights, count), count)
}

#[test]
fn a_plan_has_the_steps_and_weights_that_a_release_then_has() {
    for (objects, app, strategy) in RELEASES {
        let (planned, count) = planned(objects, app, strategy);
        assert_eq!(planned.steps, (0..count).collect::<Vec<_>>(), "{objects}");
        assert_eq!(planned, seen(objects, app, strategy, count), "{objects} {strategy}");
    }
}
