//! Each checker fires on a violation that was planted, and on nothing else.

use serde_json::{Value, json};

use super::super::faults::Fault;
use super::super::fleet::REPLICAS;
use super::super::history::Resource;
use super::super::users::End;
use super::end::missing;
use super::*;

const DELAY: Duration = Duration::from_secs(3);

/// A Rollout with the versions `blue` and `green`, all pods of which are ready.
struct Story {
    rollout: &'static str,
    at: Duration,
    changes: Vec<Change>,
}

impl Story {
    fn begin(rollout: &'static str) -> Self {
        let mut story = Self { rollout, at: Duration::ZERO, changes: Vec::new() };
        for hash in ["blue", "green"] {
            story.size(hash, REPLICAS);
            (0..REPLICAS).for_each(|number| story.pod(hash, number, true));
        }
        for (service, hash) in [("stable", "blue"), ("canary", "green")] {
            story.selects(service, hash);
            story.endpoints(service, REPLICAS);
        }
        story.weight(0);
        story.status(json!({"phase": "Healthy", "stableRS": "blue", "currentPodHash": "green"}));
        story
    }

    fn write(&mut self, resource: Resource, name: String, object: Value) {
        let revision = self.changes.len() as u64;
        let object = Some(resource.reduce(&object));
        self.changes.push(Change { at: self.at, revision, resource, name, object });
    }

    fn later(&mut self, seconds: f64) {
        self.at += Duration::from_secs_f64(seconds);
    }

    fn size(&mut self, hash: &str, replicas: i64) {
        let object = json!({"metadata": labels(hash), "spec": {"replicas": replicas}});
        self.write(Resource::ReplicaSet, format!("{}-{hash}", self.rollout), object);
    }

    fn pod(&mut self, hash: &str, number: i64, ready: bool) {
        let status = json!({"conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]});
        let object = json!({"metadata": labels(hash), "status": status});
        self.write(Resource::Pod, format!("{}-{hash}-{number}", self.rollout), object);
    }

    fn selects(&mut self, service: &str, hash: &str) {
        let object = json!({"spec": {"selector": {"rollouts-pod-template-hash": hash}}});
        self.write(Resource::Service, format!("{}-{service}", self.rollout), object);
    }

    fn endpoints(&mut self, service: &str, ready: i64) {
        let name = format!("{}-{service}", self.rollout);
        let endpoints: Vec<Value> = (0..ready).map(|_| json!({"conditions": {"ready": true}})).collect();
        let labels = json!({"labels": {"kubernetes.io/service-name": name}});
        let object = json!({"metadata": labels, "endpoints": endpoints});
        self.write(Resource::EndpointSlice, format!("{name}-x"), object);
    }

    fn weight(&mut self, canary: i64) {
        let backend =
            |service: &str, weight: i64| json!({"name": format!("{}-{service}", self.rollout), "weight": weight});
        let backends = match Kind::of(self.rollout) {
            Some(Kind::BlueGreen) => json!([backend("stable", 100)]),
            _ => json!([backend("stable", 100 - canary), backend("canary", canary)]),
        };
        self.write(Resource::Route, self.rollout.to_owned(), json!({"spec": {"rules": [{"backendRefs": backends}]}}));
    }

    fn status(&mut self, mut status: Value) {
        status["observedGeneration"] = json!("1");
        self.write(
            Resource::Rollout,
            self.rollout.to_owned(),
            json!({"metadata": {"generation": 1}, "status": status}),
        );
    }

    fn promises(&self, outages: &[Outage]) -> Vec<&'static str> {
        let violations = judge(&self.changes, Circumstances { delay: DELAY, outages });
        violations.iter().map(|violation| violation.promise).collect()
    }
}

fn labels(hash: &str) -> Value {
    json!({"labels": {"rollouts-pod-template-hash": hash}})
}

#[test]
fn a_good_release_breaks_nothing() {
    let mut story = Story::begin("gateway-1");
    for weight in [25, 50, 100] {
        story.weight(weight);
        story.later(1.0);
    }
    story.status(json!({"phase": "Healthy", "stableRS": "green", "currentPodHash": "green"}));
    story.selects("stable", "green");
    story.weight(0);
    story.later(3.1);
    story.size("blue", 0);
    assert_eq!(story.promises(&[]), [""; 0]);
}

#[test]
fn a_weight_without_pods_is_seen() {
    let mut story = Story::begin("gateway-1");
    (0..3).for_each(|number| story.pod("green", number, false));
    story.weight(25);
    assert_eq!(story.promises(&[]), [""; 0], "one pod carries 25%");
    story.weight(50);
    assert_eq!(story.promises(&[]), ["S1"]);
}

#[test]
fn a_weight_without_endpoints_is_seen_once_it_lasts() {
    for (seconds, expected) in [(1.0, &[][..]), (3.0, &["S1"])] {
        let mut story = Story::begin("gateway-1");
        story.endpoints("canary", 0);
        story.weight(25);
        story.later(seconds);
        story.endpoints("canary", REPLICAS);
        assert_eq!(story.promises(&[]), expected, "for {seconds} s");
    }
}

#[test]
fn a_switch_to_an_incomplete_version_is_seen() {
    let mut story = Story::begin("bluegreen-1");
    story.pod("green", 0, false);
    story.selects("stable", "green");
    assert_eq!(story.promises(&[]), ["S1"]);
}

#[test]
fn a_version_that_goes_before_the_delay_is_over_is_seen() {
    for (seconds, expected) in [(1.0, &["S2"][..]), (3.1, &[])] {
        let mut story = Story::begin("gateway-1");
        story.weight(50);
        story.later(5.0);
        story.weight(0);
        story.later(seconds);
        story.size("green", 1);
        assert_eq!(story.promises(&[]), expected, "{seconds} s later");
    }
}

#[test]
fn a_weight_that_rises_after_an_abort_is_seen() {
    let outage = Outage { what: Fault::ApiServerPaused, from: Duration::ZERO, to: Duration::from_secs(60) };
    for (seconds, outages, expected) in [(3.0, &[][..], &["S3"][..]), (1.0, &[], &[]), (3.0, &[outage], &[])] {
        let mut story = Story::begin("gateway-1");
        story.status(json!({"phase": "Degraded", "stableRS": "blue", "currentPodHash": "green", "abort": true}));
        story.later(seconds);
        story.weight(25);
        assert_eq!(story.promises(outages), expected, "{seconds} s later");
    }
}

#[test]
fn a_stable_that_was_never_there_is_seen() {
    let mut story = Story::begin("basic-1");
    story.pod("green", 0, false);
    story.pod("green", 1, false);
    story.size("green", 1);
    story.status(json!({"phase": "Healthy", "stableRS": "green", "currentPodHash": "green"}));
    assert_eq!(story.promises(&[]), ["S7", "S4"]);
}

#[test]
fn pods_that_are_missing_are_seen() {
    let mut story = Story::begin("nginx-1");
    for hash in ["blue", "green"] {
        (0..REPLICAS).for_each(|number| story.pod(hash, number, false));
    }
    assert!(story.promises(&[]).contains(&"S7"));
}

#[test]
fn an_end_is_complete_or_says_what_is_missing() {
    let mut story = Story::begin("gateway-1");
    story.status(json!({"phase": "Degraded", "stableRS": "blue", "currentPodHash": "green", "abort": true}));
    let state = |story: &Story| {
        let mut state = State::default();
        story.changes.iter().for_each(|change| state.apply(change));
        state
    };
    let what = missing("gateway-1", &state(&story), End::Either);
    assert_eq!(what.as_deref(), Some("gateway-1-green wants 4 pods"));
    story.size("green", 0);
    let mut ended = state(&story);
    ended.pods.retain(|_, pod| pod.hash == "blue");
    assert_eq!(missing("gateway-1", &ended, End::Either), None);
    assert!(missing("gateway-1", &ended, End::Healthy).is_some_and(|what| what.contains("Degraded")));
}
