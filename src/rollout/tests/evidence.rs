//! What a release leaves behind.

use serde_json::json;

use super::sim::Sim;
use super::{basic_steps, running, step_analysis};
use crate::api::analysis::AnalysisPhase;
use crate::api::release::Release;

fn last(sim: &Sim) -> Release {
    Release::parse(sim.status().last_release.as_deref().expect("a release has ended")).unwrap()
}

/// What is kept with the ReplicaSet of an image: the release before.
fn carried(sim: &Sim, image: &str) -> Option<Release> {
    Release::parse(sim.set(image).annotations.get(crate::api::names::RELEASE_BEFORE)?)
}

fn analysed() -> Sim {
    running(Sim::routed(step_analysis(), 5).template("errors"))
}

#[test]
fn a_first_deployment_and_a_promotion_leave_their_records() {
    let mut sim = running(Sim::routed(basic_steps(), 5));
    let first = last(&sim);
    assert_eq!((first.outcome.as_str(), first.why.as_str(), &first.from), ("Promoted", "Initial deploy", &None));
    assert_eq!((first.version.revision, first.version.images), (1, vec!["web=web:v1".to_owned()]));
    sim.image("web:v2");
    sim.run(5);
    assert_eq!(carried(&sim, "web:v2"), Some(last(&sim)), "the record goes on with the next version");
    assert_eq!(last(&sim).version.revision, 1);
    sim.run(300);
    let second = last(&sim);
    assert_eq!((second.outcome.as_str(), second.version.revision), ("Promoted", 2));
    assert!(second.why.starts_with("Completed all "), "{}", second.why);
    assert_eq!(second.from.unwrap().images, ["web=web:v1"]);
    assert!(second.ended.unwrap() > second.began.unwrap());
    assert_eq!((second.done, second.weight), (None, None));
}

#[test]
fn an_abort_leaves_the_verdict_and_a_retry_remembers_it() {
    let mut sim = analysed();
    sim.image("web:v2");
    sim.run(20);
    let run = sim.status().canary.current_step_analysis_run_status.clone().unwrap().name;
    let why = "Metric \"errors\" assessed Failed due to failed (1) > failureLimit (0)";
    sim.judge(&run, AnalysisPhase::Failed, why);
    sim.run(60);
    let aborted = last(&sim);
    assert_eq!(aborted.outcome, "Aborted");
    assert_eq!(aborted.why, format!("Step-based analysis phase error/failed: {why}"));
    assert_eq!((aborted.analyses.len(), aborted.analyses[0].of.as_str()), (1, "Step 2"));
    assert_eq!((aborted.analyses[0].phase, aborted.analyses[0].message.as_str()), (AnalysisPhase::Failed, why));
    assert_eq!((aborted.done, aborted.weight), (Some(1), Some(20)));

    sim.patch("a user retries", |status| status.abort = false);
    sim.run(20);
    let retried = sim.status().canary.current_step_analysis_run_status.clone().unwrap().name;
    sim.judge(&retried, AnalysisPhase::Successful, "");
    sim.run(30);
    sim.patch("a user promotes", |status| status.pause_conditions.clear());
    sim.run(60);
    let promoted = last(&sim);
    assert_eq!((promoted.outcome.as_str(), promoted.version.revision), ("Promoted", 2));
    let names: Vec<&str> = promoted.analyses.iter().map(|analysis| analysis.name.as_str()).collect();
    assert_eq!(names, [retried], "those of this attempt");
    assert_eq!(promoted.earlier.len(), 1);
    assert_eq!((&promoted.earlier[0].outcome, &promoted.earlier[0].why), (&aborted.outcome, &aborted.why));
}

#[test]
fn who_ends_a_release_by_hand_is_told_from_what_does() {
    let mut sim = running(Sim::routed(json!({"steps": [{"setWeight": 20}, {"pause": {}}]}), 5));
    sim.image("web:v2");
    sim.run(100);
    sim.patch("a user aborts", |status| status.abort = true);
    sim.run(60);
    assert_eq!((last(&sim).outcome.as_str(), last(&sim).why.as_str()), ("Aborted", ""));
    assert!(last(&sim).waited >= 90, "{}", last(&sim).waited);
    sim.image("web:v3");
    sim.run(20);
    sim.patch("a user promotes", |status| status.promote_full = true);
    sim.run(60);
    assert_eq!((last(&sim).outcome.as_str(), last(&sim).why.as_str()), ("FastPromoted", "Full promotion requested"));
}

#[test]
fn a_superseded_release_and_one_that_is_undone_leave_theirs() {
    let mut sim = running(Sim::routed(json!({"steps": [{"setWeight": 20}, {"pause": {}}]}), 5));
    sim.image("web:v2");
    sim.run(60);
    sim.image("web:v3");
    sim.run(60);
    let superseded = last(&sim);
    assert_eq!((superseded.outcome.as_str(), superseded.why.as_str()), ("Superseded", "by revision 3"));
    assert_eq!((superseded.version.revision, superseded.weight), (2, Some(20)));
    assert_eq!(carried(&sim, "web:v3"), Some(superseded.clone()));
    assert_eq!(carried(&sim, "web:v2").unwrap().version.revision, 1);
    sim.image("web:v1");
    sim.run(60);
    let undone = last(&sim);
    assert_eq!(
        (undone.outcome.as_str(), undone.why.as_str()),
        ("RolledBack", "back to the stable version, as revision 4")
    );
    assert_eq!((undone.version.revision, &undone.began), (3, &superseded.ended));
    assert_eq!(carried(&sim, "web:v1"), Some(undone), "with the write that gives it its new revision");
}

#[test]
fn what_had_ended_under_another_controller_leaves_nothing() {
    let mut sim = running(Sim::routed(basic_steps(), 5));
    sim.patch("as another controller left it", |status| (status.duration, status.last_release) = (None, None));
    sim.run(60);
    assert_eq!(sim.status().last_release, None);
}

#[test]
fn a_release_costs_no_write_for_its_record() {
    let writes = |forgets: bool| {
        let mut sim = running(Sim::routed(basic_steps(), 5));
        if forgets {
            sim.patch("no record", |status| status.last_release = None);
        }
        sim.forget();
        sim.image("web:v2");
        sim.run(300);
        sim.writes
    };
    assert_eq!(writes(true), writes(false));
}
