use serde_json::{Value, json};

use super::records::{self, Known};
use super::{table, text};
use crate::api::release::Release;
use crate::cli::tree::Style;

const NOW: &str = "2026-01-01T01:00:00Z";

fn style() -> Style {
    Style { color: false, now: NOW.parse().unwrap(), width: Some(100) }
}

fn aborted() -> Value {
    json!({
        "v": 1, "revision": 3, "hash": "newer", "images": ["web=shop/web:v3"],
        "from": {"revision": 2, "hash": "older", "images": ["web=shop/web:v2"]},
        "outcome": "Aborted", "why": "Background analysis phase error/failed: Metric \"errors\" assessed Failed: canary 23 of 1,204 requests failed",
        "began": "2026-01-01T00:00:00Z", "ended": "2026-01-01T00:04:30Z", "waited": 70,
        "done": 1, "steps": 4, "weight": 5,
        "analyses": [
            {"name": "web-newer-3", "of": "Background", "phase": "Failed", "metrics": [
                {"name": "errors", "phase": "Failed", "counts": [3, 1, 0, 0],
                 "found": "canary 23 of 1,204 requests failed, stable 11 of 22,871: 40 times the rate, at least 19 times with 99% confidence; seen after 2 min 10 s"},
                {"name": "slow-requests", "phase": "Successful", "counts": [4, 0, 0, 0], "found": "[0.91]", "dry": true},
            ]},
        ],
        "earlier": [{"outcome": "Aborted", "ended": "2025-12-31T23:00:00Z"}],
    })
}

fn known(status: Value, annotations: Value) -> Known {
    let owner = json!([{"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "web", "uid": "u", "controller": true}]);
    let set = |hash: &str, revision: &str, image: &str, mut annotations: Value| {
        annotations["rollout.argoproj.io/revision"] = revision.into();
        serde_json::from_value(json!({
            "metadata": {"name": format!("web-{hash}"), "labels": {"rollouts-pod-template-hash": hash},
                "annotations": annotations, "ownerReferences": owner},
            "spec": {"selector": {}, "template": {"spec": {"containers": [{"name": "web", "image": image}]}}},
        }))
        .unwrap()
    };
    let rollout = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout",
        "metadata": {"name": "web", "uid": "u", "generation": 1},
        "spec": {"strategy": {"canary": {"steps": [{"setWeight": 5}, {"pause": {}}]}}},
        "status": status,
    });
    Known {
        rollout: serde_json::from_value(rollout).unwrap(),
        replica_sets: vec![
            set("older", "2", "shop/web:v2", json!({})),
            set("newest", "4", "shop/web:v4", annotations.clone()),
            set("elsewhere", "5", "shop/web:v5", annotations),
        ],
        analysis_runs: Vec::new(),
        experiments: Vec::new(),
    }
}

fn record(value: Value) -> Release {
    Release::parse(&value.to_string()).unwrap()
}

#[test]
fn a_record_is_told_with_its_numbers() {
    let drawn = text::draw("web", &[record(aborted())], Some("argocd-server"), style());
    let expected = "\
web, revision 3: ✖ Aborted
Released     web=shop/web:v3 (revision 3, newer)
Stable was   web=shop/web:v2 (revision 2, older)
Began        2026-01-01 00:00:00 UTC
Ended        2026-01-01 00:04:30 UTC, after 4m30s, 70s of them waiting for somebody
Why          Background analysis phase error/failed: Metric \"errors\" assessed Failed: canary 23 of
             1,204 requests failed
Steps        1 of 4 done, at weight 5
Before that  Aborted 2025-12-31 23:00:00 UTC: by hand

Background ✖ Failed (web-newer-3)
  ✖ errors         ✔ 3 ✖ 1, canary 23 of 1,204 requests failed, stable 11 of 22,871: 40 times the
                   rate, at least 19 times with 99% confidence; seen after 2 min 10 s
  ✔ slow-requests  ✔ 4, [0.91], dry run
";
    assert_eq!(drawn, expected, "\n{drawn}");
    assert!(drawn.lines().all(|line| line.chars().count() <= 100));
}

#[test]
fn markdown_is_a_heading_and_two_tables() {
    let mut release = record(aborted());
    release.why = "a | b".to_owned();
    release.analyses[0].metrics.truncate(1);
    let text = text::markdown("web", &[release]);
    assert!(
        text.starts_with("### web, revision 3: Aborted\n\n| | |\n|---|---|\n| Released | web=shop/web:v3"),
        "{text}"
    );
    assert!(text.contains("| Why | a \\| b |\n"), "{text}");
    assert!(text.contains("| | errors | Failed | ✔ 3 ✖ 1, canary 23 of 1,204 requests failed, stable"), "{text}");
}

#[test]
fn an_abort_by_hand_says_with_what() {
    let mut release = record(aborted());
    release.why = String::new();
    let drawn = text::draw("web", std::slice::from_ref(&release), Some("argocd-server"), style());
    assert!(drawn.contains("Why          by hand, with argocd-server\n"), "{drawn}");
    let mut known = known(json!({"abort": true}), json!({}));
    known.rollout.metadata.managed_fields = serde_json::from_value(json!([
        {"manager": "rollouts-controller", "fieldsV1": {"f:status": {"f:phase": {}}}},
        {"manager": "argocd-server", "fieldsV1": {"f:status": {"f:abort": {}}}},
    ]))
    .unwrap();
    assert_eq!(records::who_aborted(&known.rollout), Some("argocd-server"));
    known.rollout.status.as_mut().unwrap().abort = false;
    assert_eq!(records::who_aborted(&known.rollout), None);
}

#[test]
fn the_records_of_status_and_replica_sets_are_one_list() {
    let mut before = aborted();
    before["revision"] = 2.into();
    before["ended"] = "2025-12-30T00:00:00Z".into();
    let carried = json!({"tidegate.io/release-before": before.to_string()});
    let status = json!({"lastRelease": aborted().to_string(), "stableRS": "older", "currentPodHash": "older"});
    let all = records::all(&known(status, carried), NOW.parse().unwrap());
    assert_eq!(all.iter().map(|release| release.version.revision).collect::<Vec<_>>(), [3, 2]);
    let expected = "\
REVISION  OUTCOME    BEGAN                    TOOK   ANALYSES  RELEASED
3         ✖ Aborted  2026-01-01 00:00:00 UTC  4m30s  1 Failed  web=shop/web:v3
";
    assert_eq!(table::text(&all[..1], style()), expected);
}

#[test]
fn what_is_under_way_is_said() {
    let status = json!({
        "observedGeneration": "1", "phase": "Paused", "message": "CanaryPauseStep", "controllerPause": true,
        "pauseConditions": [{"reason": "CanaryPauseStep", "startTime": "2026-01-01T00:50:00Z"}],
        "stableRS": "older", "currentPodHash": "newest", "currentStepIndex": 1,
        "duration": {"rolloutStartedAt": "2026-01-01T00:48:00Z", "manualPauseStartedAt": "2026-01-01T00:50:00Z"},
        "lastRelease": aborted().to_string(),
    });
    let all = records::all(&known(status, json!({})), NOW.parse().unwrap());
    assert_eq!(all.len(), 2);
    let drawn = text::draw("web", &all[..1], None, style());
    let expected = "\
web, revision 4: ◌ under way
Released     web=shop/web:v4 (revision 4, newest)
Stable was   web=shop/web:v2 (revision 2, older)
Began        2026-01-01 00:48:00 UTC
Takes        12m so far, 10m of them waiting for somebody
Now          Paused - CanaryPauseStep
Steps        1 of 2 done
";
    assert_eq!(drawn, expected, "\n{drawn}");
}
