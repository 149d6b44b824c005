//! Against what Go and the API server's own code make of the same templates (`e2e/oracle/podtemplate`).

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde_json::{Value, json};

use super::*;

const INPUTS: &str = include_str!("../../../e2e/oracle/podtemplate/inputs.json");
const ORACLE: &str = include_str!("testdata/oracle.json");

#[derive(Deserialize)]
struct Input {
    name: String,
    template: PodTemplate,
}

#[derive(Deserialize)]
struct Verdict {
    name: String,
    encoded: String,
    hash: String,
    collided: String,
    stored: Value,
}

fn cases() -> Vec<(Input, Verdict)> {
    let inputs: Vec<Input> = serde_json::from_str(INPUTS).unwrap();
    let verdicts: Vec<Verdict> = serde_json::from_str(ORACLE).unwrap();
    assert_eq!(inputs.len(), verdicts.len());
    assert!(inputs.len() >= 30);
    inputs.into_iter().zip(verdicts).collect()
}

#[test]
fn hashes_are_those_of_argo_rollouts() {
    // Two constants of Argo Rollouts' own end-to-end tests.
    let shop = |name: &str| {
        json!({
            "metadata": {"labels": {"app": name}},
            "spec": {"containers": [{
                "name": name, "image": "nginx:1.19-alpine",
                "ports": [{"name": "http", "containerPort": 80, "protocol": "TCP"}],
                "resources": {"requests": {"cpu": "5m", "memory": "16Mi"}},
            }]},
        })
    };
    assert_eq!(PodTemplate::from(shop("canary-scaledowndelay")).hash(None), "674d8cf959");
    let mut gated = shop("dynamic-stable-scale");
    gated["spec"]["readinessGates"] = json!([{"conditionType": "argoproj.io/e2e-readiness"}]);
    assert_eq!(PodTemplate::from(gated).hash(None), "6b56c8cdb4");
}

#[test]
fn json_and_hashes_are_those_of_go() {
    for (input, verdict) in cases() {
        assert_eq!(input.name, verdict.name);
        let encoded = go_json::encode(&input.template.to_value(), Style::default());
        assert_eq!(String::from_utf8(encoded).unwrap(), verdict.encoded, "{}", input.name);
        assert_eq!(input.template.hash(None), verdict.hash, "{}", input.name);
        assert_eq!(input.template.hash(Some(3)), verdict.collided, "{}", input.name);
    }
}

#[test]
fn defaults_are_those_of_the_api_server() {
    for (input, verdict) in cases() {
        assert_eq!(input.template.defaulted(), verdict.stored, "{}", input.name);
        let stored = PodTemplate::from(verdict.stored);
        assert_eq!(stored.defaulted(), stored.to_value(), "{} twice", input.name);
        assert!(semantically_equal(&input.template, &stored, Ignoring::default()), "{}", input.name);
    }
}

#[test]
fn older_releases_wrote_the_zero_time() {
    let template = PodTemplate::from(json!({
        "metadata": {"labels": {"a": "b"}},
        "spec": {"volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]},
    }));
    let encoded = go_json::encode(&template.to_value(), Style { zero_times: true, ..Style::default() });
    assert_eq!(
        String::from_utf8(encoded).unwrap(),
        r#"{"metadata":{"creationTimestamp":null,"labels":{"a":"b"}},"spec":{"volumes":[{"name":"v","ephemeral":{"volumeClaimTemplate":{"metadata":{"creationTimestamp":null},"spec":{"resources":{}}}}}],"containers":null}}"#
    );
    assert_ne!(template.hash_as(HashForm::Until1_8, None), template.hash(None));
}

#[test]
fn the_recorded_answers_are_what_go_says_today() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/oracle/podtemplate");
    if Command::new("go").arg("version").output().is_err() {
        // Past the test harness, which would swallow it.
        let _ = writeln!(io::stderr(), "NOT RUN: without Go, {} cannot be asked again", directory.display());
        return;
    }
    for (command, file, recorded) in [
        ("types", "go_types.json", go_json::GO_TYPES),
        ("oracle", "testdata/oracle.json", ORACLE),
        ("refusals", "testdata/refusals.json", include_str!("testdata/refusals.json")),
    ] {
        let output = Command::new("go").args(["run", ".", command]).current_dir(&directory).output().unwrap();
        assert!(output.status.success(), "go run . {command}: {}", String::from_utf8_lossy(&output.stderr));
        let current = output.stdout == recorded.as_bytes();
        assert!(current, "in {}: go run . {command} > ../../../src/api/pod_template/{file}", directory.display());
    }
}

#[test]
fn what_the_user_wrote_is_kept() {
    let text = r#"{"metadata":null,"spec":{"containers":[{"name":"a","unknown":{"x":1.5}}],"future":[]}}"#;
    let template: PodTemplate = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&template).unwrap(), text);
    assert!(serde_json::from_str::<PodTemplate>("null").unwrap().is_absent());
    assert!(PodTemplate::default().is_absent());
}

#[test]
fn labels_and_annotations_come_and_go() {
    let text = r#"{"spec":{}}"#;
    let template: PodTemplate = serde_json::from_str(text).unwrap();
    let labelled = template.with_label("a", "1").with_label("b", "2");
    assert_eq!(*labelled.labels(), BTreeMap::from([("a".into(), "1".into()), ("b".into(), "2".into())]));
    assert_eq!(*labelled.without_label("a").labels(), BTreeMap::from([("b".into(), "2".into())]));
    let noted = template.with_metadata(&BTreeMap::new(), &BTreeMap::from([("n".to_owned(), "x".to_owned())]));
    assert_eq!(*noted.annotations(), BTreeMap::from([("n".into(), "x".into())]));
    assert_eq!(serde_json::to_string(&noted).unwrap(), r#"{"metadata":{"annotations":{"n":"x"}},"spec":{}}"#);
}

#[test]
fn containers_are_seen() {
    let template = PodTemplate::from(json!({"spec": {
        "containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 53, "protocol": "UDP"}]}],
        "initContainers": [{"name": "b"}],
    }}));
    let container = template.containers().next().unwrap();
    assert_eq!((container.name(), container.image()), ("a", "i"));
    let ports: Vec<_> = container.ports().map(|port| (port.name, port.container_port, port.protocol)).collect();
    assert_eq!(ports, [(Some("http"), 80, "TCP"), (None, 53, "UDP")]);
    assert_eq!(template.init_containers().map(|one| one.name().to_owned()).collect::<Vec<_>>(), ["b"]);
}
