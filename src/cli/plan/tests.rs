//! Plans as text and JSON, in `pictures/`: `UPDATE_PICTURES=1 cargo test --lib cli::plan` writes them anew, and then they
//! are to be looked at.

use std::path::Path;

use super::*;

const DEMO: &str = include_str!("../demo/manifest.yaml");
const BLUE_GREEN: &str = include_str!("manifests/blue-green.yaml");
const EXPERIMENT: &str = include_str!("manifests/experiment.yaml");

fn circumstances(ready_after: &str) -> Circumstances {
    Circumstances {
        rate: 200.0,
        pods: Behaviour {
            error_rate: 0.001,
            latency: Duration::from_millis(50),
            ready_after: units::duration(ready_after).unwrap(),
            ..Behaviour::default()
        },
        promote_after: Duration::from_secs(60),
        scrape_interval: Duration::ZERO,
        give_up_after: Duration::from_secs(3600),
        seed: 1,
        in_detail: true,
    }
}

fn planned(manifest: &str, releases: &[&str], circumstances: &Circumstances, repeat: u64) -> anyhow::Result<Report> {
    let objects = manifest::parse("web.yaml", manifest).unwrap();
    assert_eq!(lint::check(&objects).errors, Vec::<String>::new());
    let releases: Vec<Release> = releases.iter().map(|release| release.parse().unwrap()).collect();
    plan(&objects, &Wish::default(), &releases, circumstances, repeat, &|_, _| {})
}

/// The JSON, with the first of the many values that plots are drawn from.
fn json(report: &Report) -> String {
    let mut value = serde_json::to_value(report).unwrap();
    for release in value["releases"].as_array_mut().unwrap() {
        for field in ["timeline", "series"] {
            release[field].as_array_mut().unwrap().truncate(2);
        }
        for metric in
            release["analyses"].as_array_mut().unwrap().iter_mut().flat_map(|it| it["metrics"].as_array_mut().unwrap())
        {
            metric["measurements"].as_array_mut().unwrap().truncate(2);
        }
    }
    serde_json::to_string_pretty(&value).unwrap() + "\n"
}

#[track_caller]
fn looks(name: &str, drawn: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/plan/pictures").join(name);
    if std::env::var_os("UPDATE_PICTURES").is_some() {
        std::fs::write(&path, drawn).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(drawn == expected, "{name} looks different:\n{drawn}");
}

#[test]
fn the_demo_is_planned() {
    let report = planned(DEMO, &["healthy", "errors=10%", "crash-looping"], &circumstances("1s"), 1).unwrap();
    looks("demo.txt", &text::text(&report, false));
    looks("demo.json", &json(&report));
    let outcomes: Vec<Outcome> = report.releases.iter().map(|release| release.outcome).collect();
    assert_eq!(outcomes[..2], [Outcome::Completed, Outcome::RolledBack]);
    let bad = &report.releases[1];
    assert!(bad.requests.failed < bad.rolling_update.failed, "{bad:?}");
    let page = html::page(&report);
    assert!(page.starts_with("<!DOCTYPE html>") && page.matches("<svg").count() == 3, "{page}");
    assert_eq!(unclosed(&page), Vec::<&str>::new());
    // A name, not an address: nothing is fetched.
    let page_alone = page.replace("http://www.w3.org/2000/svg", "");
    for reference in ["://", "src=", "href=", "url(", "@import", "<script", "<link", "<iframe"] {
        assert!(!page_alone.contains(reference), "the page refers to something else by {reference}");
    }
    if let Some(file) = std::env::var_os("PLAN_PAGE") {
        std::fs::write(file, page).unwrap();
    }
}

/// The elements that are not closed, or not in their order.
fn unclosed(page: &str) -> Vec<&str> {
    let mut open = Vec::new();
    let tags = page.split('<').skip(1).filter_map(|rest| rest.split_once('>')).map(|(tag, _)| tag);
    for tag in tags.filter(|tag| !tag.starts_with('!') && !tag.ends_with('/')) {
        let name = tag.split_whitespace().next().unwrap_or_default();
        match name.strip_prefix('/') {
            None if ["meta", "br"].contains(&name) => {}
            None => open.push(name),
            Some(closed) if open.last() == Some(&closed) => drop(open.pop()),
            Some(_) => open.push(name),
        }
    }
    open
}

/// A step that is over at once has done what it says, though the gateway follows after it.
#[test]
fn a_step_without_length_has_its_own_weight() {
    let report = planned(DEMO, &["healthy"], &circumstances("10s"), 1).unwrap();
    let row = report.releases[0].steps.iter().find(|row| row.what == "setWeight 10").unwrap();
    assert!(row.to - row.from < 0.1, "{row:?}");
    assert_eq!(row.weight, 0.1, "{row:?}");
}

#[test]
fn a_blue_green_release_is_planned() {
    let report = planned(BLUE_GREEN, &["healthy", "errors=20%"], &circumstances("5s"), 1).unwrap();
    looks("blue-green.txt", &text::text(&report, false));
    looks("blue-green.json", &json(&report));
    let [good, bad] = report.releases.as_slice() else { panic!("two were asked for") };
    assert_eq!((good.outcome, bad.outcome), (Outcome::Completed, Outcome::RolledBack));
    let smoke = &good.analyses[0].metrics[0];
    assert!(smoke.assumed && smoke.asks == "http://smoke.shop/run", "{smoke:?}");
}

#[test]
fn an_experiment_and_a_background_analysis_are_planned() {
    let report = planned(EXPERIMENT, &["healthy"], &circumstances("10s"), 1).unwrap();
    looks("experiment.txt", &text::text(&report, false));
    looks("experiment.json", &json(&report));
    assert_eq!(report.releases[0].outcome, Outcome::Completed);
    assert_eq!(report.releases[0].promotions.len(), 1);
    let answer = &report.assumptions.answers[0];
    assert!(answer.why.contains("container_cpu_usage_seconds_total"), "{answer:?}");
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let report = |seed: u64| {
        let circumstances = Circumstances { seed, ..circumstances("1s") };
        serde_json::to_value(planned(DEMO, &["errors=3%"], &circumstances, 3).unwrap()).unwrap()
    };
    let (one, same, other) = (report(7), report(7), report(8));
    assert_eq!(one.to_string(), same.to_string());
    assert_ne!(one["releases"][0]["requests"], other["releases"][0]["requests"]);
}

#[test]
fn repetitions_tell_how_often_a_good_release_is_rolled_back() {
    // So few requests fail that the share among so few tells nothing.
    let noisy = Circumstances { rate: 20.0, ..circumstances("1s") };
    let noisy = Circumstances { pods: Behaviour { error_rate: 0.08, ..noisy.pods.clone() }, ..noisy };
    let report = planned(DEMO, &["healthy"], &noisy, 8).unwrap();
    let repeated = report.releases[0].repeated.as_ref().unwrap();
    assert_eq!(repeated.completed + repeated.rolled_back + repeated.other, 8);
    assert!(repeated.rolled_back > 0, "{repeated:?}");
    assert!(repeated.rolled_back_between[0] < repeated.rolled_back_between[1]);
}

#[test]
fn other_releases_end_as_they_must() {
    let outcome = |manifest: &str, release: &str| {
        let report = planned(manifest, &[release], &circumstances("1s"), 1).unwrap();
        let prediction = report.releases[0].clone();
        (prediction.outcome, prediction)
    };
    let (end, late) = outcome(DEMO, "errors=30%,late-onset=10s");
    assert!(end == Outcome::RolledBack && late.seconds > 10.0, "{end:?} {}", late.seconds);
    // Latency is not asked for.
    assert_eq!(outcome(DEMO, "slow=3s").0, Outcome::Completed);
    let (end, quiet) = outcome(DEMO, "no-traffic");
    assert_eq!((end, quiet.requests.new.requests), (Outcome::Waiting, 0));
    assert!(quiet.why.is_some());
}

/// Requests that nobody here understands are told, and their answers are not taken for a verdict.
#[test]
fn what_cannot_be_answered_is_assumed_and_said() {
    let strange = DEMO.replace("nginx_ingress_controller_requests{", "my_requests{");
    let report = planned(&strange, &["errors=50%"], &circumstances("1s"), 1).unwrap();
    assert_eq!(report.releases[0].outcome, Outcome::Completed);
    let shown = text::text(&report, false);
    assert!(shown.contains("nothing here exports the metric my_requests"), "{shown}");
    assert!(shown.contains("all assumed to be good"), "{shown}");
    // The labels are known, and never have such values.
    let elsewhere = DEMO.replace("{{args.service-name}}-canary-", "nobody-");
    let report = planned(&elsewhere, &["healthy"], &circumstances("1s"), 1).unwrap();
    assert!(report.notes.iter().any(|note| note.contains("metric success-rate found no data")), "{:?}", report.notes);
}

#[test]
fn what_is_missing_is_told_or_made_up() {
    let without = |kind: &str| {
        let documents = DEMO.split("---\n").filter(|document| !document.contains(&format!("kind: {kind}\n")));
        documents.collect::<Vec<_>>().join("---\n")
    };
    let error = planned(&without("AnalysisTemplate"), &["healthy"], &circumstances("1s"), 1).unwrap_err();
    let expected = "spec.strategy.canary.analysis: template \"success-rate\" is not among the files";
    assert_eq!(error.to_string(), expected);
    let report = planned(&without("Service"), &["healthy"], &circumstances("1s"), 1).unwrap();
    let services = ["web-app-canary", "web-app-stable"];
    assert_eq!(report.notes, services.map(|it| format!("Service {it} is not among the files: made up, with port 80")));
    assert_eq!(report.releases[0].outcome, Outcome::Completed);
    let report = planned(&without("Ingress"), &["errors=10%"], &circumstances("1s"), 1).unwrap();
    assert_eq!(report.notes, ["Ingress web-app is not among the files: made up, for web-app.example"]);
    assert_eq!(report.releases[0].outcome, Outcome::RolledBack);
}

#[test]
fn one_of_several_rollouts_is_chosen() {
    let two = format!("{DEMO}\n---\n{EXPERIMENT}");
    let objects = manifest::parse("both.yaml", &two).unwrap();
    let chosen = |name: Option<&str>| Setting::of(&objects, &Wish { name: name.map(str::to_owned), ..Wish::default() });
    let error = chosen(None).unwrap_err().to_string();
    assert!(error.contains("several Rollouts") && error.contains("web-app, search"), "{error}");
    assert!(chosen(Some("third")).unwrap_err().to_string().contains("no Rollout third"));
    assert_eq!(chosen(Some("search")).unwrap().subject.name, "search");
}

#[test]
fn a_page_shows_what_users_wrote_as_text() {
    assert_eq!(svg::escape("<a href=\"x\">&\u{1}"), "&lt;a href=&quot;x&quot;&gt;&amp;\u{fffd}");
}
