//! What a trace says of one object.

use serde_json::Value;

use super::HASH;

pub fn rollout_facets(rollout: &Value) -> Vec<(&'static str, Option<String>)> {
    let status = &rollout["status"];
    let hash = |field: &str, what: &str| {
        let hash = status[field].as_str().filter(|hash| !hash.is_empty());
        hash.map(|hash| format!("{what} {hash}"))
    };
    let blue_green = |field: &str, what: &str| {
        let hash = status["blueGreen"][field].as_str().filter(|hash| !hash.is_empty());
        hash.map(|hash| format!("{what} {hash}"))
    };
    let weights = &status["canary"]["weights"];
    let weight = |who: &str| weights[who]["weight"].as_i64().unwrap_or(0);
    let asked = &rollout["spec"]["restartAt"];
    let restart = (!asked.is_null() && *asked != status["restartedAt"]).then(|| "restart asked for".to_owned());
    let recorded = || format!("weights: canary {}, stable {}", weight("canary"), weight("stable"));
    vec![
        ("current revision", hash("currentPodHash", "current revision")),
        ("step", status["currentStepIndex"].as_i64().map(|index| format!("step {index}"))),
        ("abort", (status["abort"] == true).then(|| "aborted".to_owned())),
        ("weights", weights.is_object().then(recorded)),
        ("active revision", blue_green("activeSelector", "active revision")),
        ("preview revision", blue_green("previewSelector", "preview revision")),
        ("full preview", (status["blueGreen"]["scaleUpPreviewCheckPoint"] == true).then(|| "full preview".to_owned())),
        ("stable revision", hash("stableRS", "stable revision")),
        ("pause", pauses(status)),
        ("restart", restart),
        ("phase", status["phase"].is_string().then(|| phase(status, false))),
    ]
}

pub fn condition_facets(rollout: &Value) -> Vec<(&'static str, Option<String>)> {
    let names = ["InvalidSpec", "Paused", "Progressing", "Completed", "Healthy"];
    names.map(|name| (name, condition(&rollout["status"], name))).to_vec()
}

pub fn pauses(status: &Value) -> Option<String> {
    let pauses = status["pauseConditions"].as_array().filter(|pauses| !pauses.is_empty())?;
    let reasons: Vec<_> = pauses.iter().map(|pause| text(&pause["reason"])).collect();
    Some(format!("pause {}", reasons.join(", ")))
}

pub fn step(rollout: &Value) -> Option<String> {
    let index = rollout["status"]["currentStepIndex"].as_i64()?;
    let count = rollout["spec"]["strategy"]["canary"]["steps"].as_array().map_or(0, Vec::len);
    Some(format!("step {index} of {count}"))
}

pub fn phase(status: &Value, with_message: bool) -> String {
    let (phase, message) = (text(&status["phase"]), text(&status["message"]));
    if message.is_empty() || phase == "Progressing" && !with_message {
        return phase.to_owned();
    }
    format!("{phase}: {message}")
}

pub fn condition(status: &Value, name: &str) -> Option<String> {
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    let condition = conditions.find(|condition| condition["type"] == name)?;
    let (value, reason) = (text(&condition["status"]), text(&condition["reason"]));
    let progressing = ["NewReplicaSetCreated", "FoundNewReplicaSet", "ReplicaSetUpdated", "ReplicaSetNotAvailable"];
    if progressing.contains(&reason) {
        return Some(format!("{name}={value}"));
    }
    Some(format!("{name}={value} {reason}"))
}

pub fn size(object: &Value) -> i64 {
    object["spec"]["replicas"].as_i64().unwrap_or(1)
}

/// The name of what controls an object.
pub fn owner(object: &Value) -> &str {
    let owners = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    owners.map(|owner| text(&owner["name"])).next().unwrap_or_default()
}

/// The hashes of the revisions whose nodes the pods of a ReplicaSet avoid, and how strictly.
pub fn keeps_off(replica_set: &Value) -> String {
    let rules = &replica_set["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"];
    let mut texts = Vec::new();
    for (field, term, how) in [
        ("requiredDuringSchedulingIgnoredDuringExecution", "", "required"),
        ("preferredDuringSchedulingIgnoredDuringExecution", "/podAffinityTerm", "preferred"),
    ] {
        for rule in rules[field].as_array().into_iter().flatten() {
            let expression = rule.pointer(&format!("{term}/labelSelector/matchExpressions/0")).unwrap_or(&Value::Null);
            if expression["key"] == HASH {
                texts.push(format!("{} ({how})", text(&expression["values"][0])));
            }
        }
    }
    texts.join(", ")
}

pub fn service_facets(service: &Value) -> Vec<(&'static str, Option<String>)> {
    let hash = service["spec"]["selector"][HASH].as_str();
    vec![("revision selected", Some(hash.map_or("selects no revision".to_owned(), |hash| format!("selects {hash}"))))]
}

/// The weights of each rule, in the order of the route.
pub fn route(route: &Value) -> String {
    let rules = route["spec"]["rules"].as_array().cloned().unwrap_or_default();
    let rules: Vec<String> = rules
        .iter()
        .map(|rule| {
            let backends = rule["backendRefs"].as_array().into_iter().flatten();
            let backends = backends
                .map(|backend| format!("{} {}", text(&backend["name"]), backend["weight"].as_i64().unwrap_or(1)));
            let filters = rule["filters"].as_array().into_iter().flatten().filter(|it| it["type"] == "RequestMirror");
            let mirrors = filters.map(|filter| {
                let mirror = &filter["requestMirror"];
                let percent = mirror["percent"].as_i64().unwrap_or(100);
                format!("{percent}% mirrored to {}", text(&mirror["backendRef"]["name"]))
            });
            let header = |header: &Value| format!("{}={}", text(&header["name"]), text(&header["value"]));
            let headers = rule["matches"].as_array().into_iter().flatten();
            let headers = headers.flat_map(|one| one["headers"].as_array().into_iter().flatten()).map(header);
            format!("{}{}", only(headers.collect()), backends.chain(mirrors).collect::<Vec<_>>().join(", "))
        })
        .collect();
    rules.join(" | ")
}

/// The destinations of each route with their weights, in the order of the object.
pub fn virtual_service(object: &Value) -> String {
    let routes =
        ["http", "tls", "tcp"].into_iter().flat_map(|kind| object["spec"][kind].as_array().into_iter().flatten());
    let routes = routes.map(|route| {
        let to = |destination: &Value| {
            destination["subset"].as_str().unwrap_or_else(|| text(&destination["host"])).to_owned()
        };
        let destinations = route["route"].as_array().into_iter().flatten();
        let destinations =
            destinations.map(|it| format!("{} {}", to(&it["destination"]), it["weight"].as_i64().unwrap_or(0)));
        let percent = &route["mirrorPercentage"]["value"];
        let mirror = route["mirror"].is_object().then(|| format!("{percent}% mirrored to {}", to(&route["mirror"])));
        let header = |(name, value): (&String, &Value)| {
            let value = value.as_object().and_then(|value| value.values().next()).map_or("", text);
            format!("{name}={value}")
        };
        let headers = route["match"].as_array().into_iter().flatten();
        let headers = headers.flat_map(|one| one["headers"].as_object().into_iter().flatten()).map(header);
        let name = route["name"].as_str().map_or(String::new(), |name| format!("{name}: "));
        format!("{name}{}{}", only(headers.collect()), destinations.chain(mirror).collect::<Vec<_>>().join(", "))
    });
    routes.collect::<Vec<_>>().join(" | ")
}

/// What requests must have for a rule.
pub fn only(headers: Vec<String>) -> String {
    if headers.is_empty() { String::new() } else { format!("[{}] ", headers.join(", ")) }
}

/// The revision of each subset.
pub fn subsets(rule: &Value) -> String {
    let subsets = rule["spec"]["subsets"].as_array().into_iter().flatten();
    let subsets =
        subsets.map(|it| format!("{} {}", text(&it["name"]), it["labels"][HASH].as_str().unwrap_or("no revision")));
    subsets.collect::<Vec<_>>().join(", ")
}

pub fn canary_weight(ingress: &Value) -> Option<&str> {
    ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/canary-weight"].as_str()
}

pub fn analysis_facets(run: &Value) -> Vec<(&'static str, Option<String>)> {
    let status = &run["status"];
    let phase = status["phase"].as_str().map(|phase| match text(&status["message"]) {
        "" => phase.to_owned(),
        message => format!("{phase}: {message}"),
    });
    vec![("", Some(phase.unwrap_or_else(|| "created".to_owned()))), ("termination", terminated(run))]
}

pub fn experiment_facets(experiment: &Value) -> Vec<(&'static str, Option<String>)> {
    let mut facets = analysis_facets(experiment);
    facets.push(("InvalidSpec", condition(&experiment["status"], "InvalidSpec")));
    facets
}

/// Whether an Experiment controls the object.
pub fn of_experiment(object: &Value) -> bool {
    let owners = object["metadata"]["ownerReferences"].as_array();
    owners.into_iter().flatten().any(|owner| owner["kind"] == "Experiment")
}

pub fn terminated(run: &Value) -> Option<String> {
    (run["spec"]["terminate"] == true).then(|| "told to end".to_owned())
}

/// The hash of a ReplicaSet.
pub fn hash_of(replica_set: &Value) -> &str {
    text(&replica_set["metadata"]["labels"][HASH])
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
