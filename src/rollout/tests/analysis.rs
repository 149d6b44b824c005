//! Updates that are judged.

use std::sync::Arc;

use serde_json::{Value, json};

use super::sim::Sim;
use super::{basic_steps, running, step_analysis};
use crate::api::analysis::AnalysisPhase;

fn analysed(strategy: Value) -> Sim {
    running(Sim::routed(strategy, 5).template("errors"))
}

#[test]
fn a_failed_analysis_aborts() {
    let mut sim = analysed(step_analysis());
    sim.image("web:v2");
    sim.run(20);
    let run = sim.status().canary.current_step_analysis_run_status.clone().unwrap().name;
    sim.judge(&run, AnalysisPhase::Failed, "Metric \"errors\" assessed Failed due to failed (1) > failureLimit (0)");
    sim.run(60);
    sim.patch("a user retries", |status| status.abort = false);
    sim.run(20);
    let retried = sim.status().canary.current_step_analysis_run_status.clone().unwrap().name;
    assert_eq!(retried, format!("{run}.1"));
    sim.judge(&retried, AnalysisPhase::Successful, "");
    sim.run(20);
    expect!(sim, "analysis_failed");
    assert_eq!(sim.status().current_step_index, Some(3));
}

#[test]
fn an_inconclusive_analysis_pauses() {
    let mut sim = analysed(step_analysis());
    sim.image("web:v2");
    sim.run(20);
    let run = sim.status().canary.current_step_analysis_run_status.clone().unwrap().name;
    sim.judge(&run, AnalysisPhase::Inconclusive, "no verdict");
    sim.run(60);
    assert_eq!((sim.status().phase.as_str(), sim.status().message.as_str()), ("Paused", "InconclusiveAnalysisRun"));
    sim.patch("a user resumes", |status| status.pause_conditions.clear());
    sim.run(10);
    let second = sim.status().canary.current_step_analysis_run_status.clone().unwrap().name;
    assert_eq!(second, format!("{run}.1"));
    sim.judge(&second, AnalysisPhase::Successful, "");
    sim.run(20);
    expect!(sim, "analysis_inconclusive");
}

#[test]
fn the_background_analysis_lasts_until_the_end() {
    let mut strategy = basic_steps();
    strategy["analysis"] = json!({"templates": [{"templateName": "errors"}], "startingStep": 2});
    let mut sim = analysed(strategy);
    sim.image("web:v2");
    sim.run(120);
    expect!(sim, "analysis_background");
    assert_eq!(sim.status().phase, "Healthy");
    assert!(sim.world.analysis_runs.iter().all(|run| run.spec.terminate));
}

/// Nobody can write what the run measures: what nothing judges is not promoted, by time or by a step's promotion.
#[test]
fn a_background_analysis_that_says_nothing_holds_the_update() {
    let mut strategy = basic_steps();
    strategy["analysis"] = json!({"templates": [{"templateName": "errors"}], "startingStep": 1});
    let mut sim = analysed(strategy);
    sim.unwritable = true;
    sim.image("web:v2");
    sim.run(60);
    let silent =
        |sim: &Sim| sim.status().message.contains(" judges nothing yet: its status is empty since it was created");
    assert_eq!(sim.status().current_step_index, Some(1));
    assert_eq!(sim.status().phase, "Paused");
    assert!(silent(&sim), "{}", sim.status().message);
    sim.patch("a user promotes", |status| status.pause_conditions.clear());
    sim.run(600);
    assert_eq!(sim.status().current_step_index, Some(1));
    assert!(silent(&sim), "{}", sim.status().message);
    sim.note("the controller may write again");
    sim.unwritable = false;
    sim.run(90);
    expect!(sim, "analysis_silent");
    assert_eq!(sim.status().phase, "Healthy");
}

#[test]
fn an_update_without_steps_waits_for_its_analysis_too() {
    for replicas in [1, 5] {
        let mut sim = analysed(json!({"analysis": {"templates": [{"templateName": "errors"}]}}));
        sim.edit("replicas", |rollout| rollout.spec.replicas = Some(replicas));
        sim.run(20);
        sim.unwritable = true;
        sim.image("web:v2");
        sim.run(60);
        assert_eq!(sim.status().stable_rs, sim.set("web:v1").hash());
        sim.patch("a user promotes fully: judged by them", |status| status.promote_full = true);
        sim.run(60);
        assert_eq!(sim.status().stable_rs, sim.set("web:v2").hash());
    }
}

/// Every metric of it is to have said something first, however short the steps are.
#[test]
fn a_background_analysis_that_has_found_nothing_yet_is_waited_for() {
    let strategy = json!({"steps": [{"setWeight": 20}], "analysis": {"templates": [{"templateName": "errors"}]}});
    for (delay, waits) in [("0s", false), ("40s", true)] {
        let mut sim = analysed(strategy.clone());
        let template = Arc::make_mut(sim.world.templates.namespaced.get_mut("errors").unwrap());
        template.metrics[0].initial_delay = Some(delay.to_owned());
        sim.measures = true;
        sim.image("web:v2");
        sim.run(39);
        let (released, message) = (sim.status().phase == "Healthy", &sim.status().message);
        assert_eq!(released, !waits, "{message}");
        let told =
            message.contains("has found nothing of metric \"errors\" yet, which is measured at 2026-01-01T00:01:");
        assert_eq!(told, waits, "{message}");
        sim.run(30);
        assert_eq!(sim.status().phase, "Healthy", "{}", sim.status().message);
    }
}

/// A pause beside an analysis is there to be analysed in.
#[test]
fn a_pause_counts_from_the_beginning_of_its_analysis_if_that_is_late() {
    for (late, promoted) in [(0, true), (15, false)] {
        let mut sim = analysed(json!({
            "steps": [{"setWeight": 20}, {"pause": {"duration": "30s"}}],
            "analysis": {"startingStep": 1, "templates": [{"templateName": "errors"}]},
        }));
        sim.measures = true;
        sim.unwritable = late > 0;
        sim.image("web:v2");
        while sim.status().current_step_index != Some(1) {
            sim.run(1);
        }
        sim.run(late);
        sim.unwritable = false;
        sim.run(32 - late);
        let status = sim.status();
        assert_eq!(status.current_step_index, Some(if promoted { 2 } else { 1 }), "{}", status.message);
        let told = status.message.contains("its analysis began at ");
        assert_eq!(told, !promoted, "{}", status.message);
        sim.run(late + 20);
        assert_eq!(sim.status().phase, "Healthy", "{}", sim.status().message);
    }
}
