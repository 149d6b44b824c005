//! Random scripts: any requests about a few objects, so that their writes meet.
//!
//! No controller writes to these objects (statefulsets, for example, have none here), so that what an answer says depends on
//! the requests alone; families of owners and dependents are looked at once the garbage collector has settled.

use fastrand::Rng;
use serde_json::{Value, json};

use super::script::{Condition, Request, Script, Verb};

/// How many requests a script has, families apart.
const LENGTH: usize = 25;

/// The script of a seed. The same seed, the same script.
pub fn script(seed: u64) -> Script {
    let mut random = Random { rng: Rng::with_seed(seed), requests: Vec::new() };
    if seed.is_multiple_of(8) {
        random.family();
    } else {
        random.anything();
    }
    Script { title: format!("Random requests of seed {seed}"), about: String::new(), requests: random.requests }
}

/// A smaller script that fails as well: requests are left out as long as it `fails`.
pub async fn minimised(script: &Script, mut fails: impl AsyncFnMut(&Script) -> bool) -> Script {
    let mut least = script.clone();
    let mut at = least.requests.len();
    while at > 0 {
        at -= 1;
        if least.requests.len() == 1 {
            break;
        }
        let mut fewer = least.clone();
        let removed = fewer.requests.remove(at);
        // What a later request takes from its answer would be missing.
        let needed = |(name, _): &(String, String)| {
            let word = format!("${name}");
            let keeps = |request: &Request| request.keeps.iter().any(|(kept, _)| kept == name);
            fewer.requests.iter().any(|request| request.body.contains(&word) || request.path.contains(&word))
                && !fewer.requests.iter().any(keeps)
        };
        if removed.keeps.iter().any(needed) {
            continue;
        }
        if fails(&fewer).await {
            least = fewer;
        }
    }
    least
}

struct Random {
    rng: Rng,
    requests: Vec<Request>,
}

const KINDS: [&str; 6] = ["configmaps", "rollouts", "statefulsets", "services", "ingresses", "leases"];
const MANAGERS: [&str; 3] = ["kubectl", "argocd-controller", "helm"];

impl Random {
    fn anything(&mut self) {
        // A few kinds a script, or its objects would hardly meet.
        let kinds = [self.of(&KINDS), self.of(&KINDS)];
        self.requests.push(
            Request::new(Verb::Post, "configmaps")
                .body(&json!({"metadata": {"name": "first"}}))
                .keep("start", "metadata.resourceVersion"),
        );
        for name in ["a", "b"] {
            let known = Request::new(Verb::Get, format!("{}/{name}", kinds[0]));
            self.requests.push(
                known.keep(&format!("v{name}"), "metadata.resourceVersion").keep(&format!("u{name}"), "metadata.uid"),
            );
        }
        while self.requests.len() < LENGTH {
            let kind = self.of(&kinds);
            let request = self.request(kind);
            self.requests.push(request);
        }
        for kind in kinds {
            self.requests.push(Request::new(Verb::Get, kind));
        }
        let last = Request::new(Verb::Post, "configmaps").body(&json!({"metadata": {"name": "last"}}));
        self.requests.push(last);
        self.requests.push(Request::new(Verb::Watch, "configmaps?resourceVersion=$start"));
    }

    fn request(&mut self, kind: &str) -> Request {
        let name = self.name();
        let one = format!("{kind}/{name}");
        match self.rng.u32(..100) {
            0..18 => {
                let body = self.object(kind, Some(name));
                Request::new(Verb::Post, self.query(kind)).body(&body)
            }
            18..26 => {
                let mut body = self.object(kind, Some(name));
                match self.rng.u32(..4) {
                    0 => {}
                    1 => body["metadata"]["uid"] = format!("$u{name}").into(),
                    _ => body["metadata"]["resourceVersion"] = format!("$v{name}").into(),
                }
                Request::new(Verb::Put, self.query(&one)).body(&body)
            }
            26..40 => {
                let body = self.changes(kind);
                Request::new(Verb::Merge, self.query(&one)).body(&body)
            }
            40..50 => {
                let body = self.changes(kind);
                Request::new(Verb::Strategic, self.query(&one)).body(&body)
            }
            50..60 => {
                let operations: Vec<Value> = (0..1 + self.rng.usize(..2)).map(|_| self.operation(kind)).collect();
                Request::new(Verb::Json, self.query(&one)).body(&operations.into())
            }
            60..76 => {
                let body = self.object(kind, Some(name));
                let force = if self.rng.bool() { "&force=true" } else { "" };
                let manager = self.of(&MANAGERS);
                Request::new(Verb::Apply, format!("{one}?fieldManager={manager}{force}")).body(&body)
            }
            76..84 => self.status(kind, &one),
            84..88 => Request::new(Verb::Delete, one).body(&self.deletion(name)),
            88..93 => Request::new(Verb::Get, one)
                .keep(&format!("v{name}"), "metadata.resourceVersion")
                .keep(&format!("u{name}"), "metadata.uid"),
            93..96 => self.scale(&one),
            _ => {
                let selector =
                    self.of(&["app=web", "app!=web", "tier", "!tier", "app in (web,api)", "app notin (web),tier"]);
                let limit = self.of(&["", "&limit=1", "&limit=2"]);
                Request::new(Verb::Get, format!("{kind}?labelSelector={selector}{limit}"))
            }
        }
    }

    fn query(&mut self, path: &str) -> String {
        match self.rng.u32(..10) {
            0 => format!("{path}?fieldManager=helm"),
            1 => format!("{path}?fieldManager=kubectl&fieldValidation=Strict"),
            2 => format!("{path}?dryRun=All"),
            _ => path.to_owned(),
        }
    }

    fn status(&mut self, kind: &str, one: &str) -> Request {
        let status = match kind {
            "statefulsets" => {
                json!({"replicas": self.rng.i32(0..4), "conditions": [{"type": self.of(&["A", "B"]), "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
            }
            "rollouts" => {
                json!({"phase": self.of(&["Healthy", "Paused"]), "currentStepIndex": self.rng.i32(0..3), "abort": self.rng.bool()})
            }
            _ => json!({"loadBalancer": {}}),
        };
        // To apply the status of a Service that is not there would make the Service.
        let verb = match kind {
            "services" => Verb::Merge,
            _ => self.of(&[Verb::Merge, Verb::Merge, Verb::Apply, Verb::Strategic]),
        };
        let query = if verb == Verb::Apply { "?fieldManager=argocd-controller&force=true" } else { "" };
        let mut body = json!({"status": status});
        if kind != "rollouts" && self.rng.u32(..4) == 0 {
            body["metadata"]["labels"]["seen"] = "yes".into();
        }
        Request::new(verb, format!("{one}/status{query}")).body(&body)
    }

    fn scale(&mut self, one: &str) -> Request {
        let path = format!("{one}/scale");
        // Never the same number twice: whether a write of what is there moves the object depends on the second.
        let replicas = if self.rng.u32(..5) == 0 { -1 } else { i64::try_from(self.requests.len()).unwrap_or(0) + 4 };
        match self.rng.u32(..3) {
            0 => Request::new(Verb::Get, path),
            _ => Request::new(Verb::Merge, path).body(&json!({"spec": {"replicas": replicas}})),
        }
    }

    fn deletion(&mut self, name: &str) -> Value {
        match self.rng.u32(..5) {
            0 => json!({"preconditions": {"uid": format!("$u{name}")}}),
            1 => json!({"preconditions": {"resourceVersion": format!("$v{name}")}}),
            2 => json!({"propagationPolicy": "Background"}),
            3 => json!({"dryRun": ["All"]}),
            _ => json!({}),
        }
    }

    /// A whole object of a kind; now and then one that is refused.
    fn object(&mut self, kind: &str, name: Option<&str>) -> Value {
        let mut object = self.content(kind);
        let meta = self.metadata();
        if let Some(fields) = meta.as_object().filter(|fields| !fields.is_empty()) {
            object["metadata"] = fields.clone().into();
        }
        if let Some(name) = name {
            object["metadata"]["name"] = name.into();
        }
        object
    }

    /// A part of an object, as patches have it: with nulls.
    fn changes(&mut self, kind: &str) -> Value {
        let mut changes = if self.rng.bool() { self.content(kind) } else { json!({}) };
        let mut meta = self.metadata();
        if self.rng.u32(..4) == 0 {
            let field = self.of(&["app", "tier"]);
            meta["labels"][field] = Value::Null;
        }
        if self.rng.u32(..8) == 0 {
            meta["annotations"] = Value::Null;
        }
        if !meta.as_object().is_none_or(serde_json::Map::is_empty) {
            changes["metadata"] = meta;
        }
        changes
    }

    fn metadata(&mut self) -> Value {
        let mut meta = json!({});
        for _ in 0..self.rng.u32(..3) {
            match self.rng.u32(..8) {
                0..3 => meta["labels"]["app"] = self.of(&["web", "api", ""]).into(),
                3..5 => meta["labels"]["tier"] = self.of(&["front", "back"]).into(),
                5..7 => meta["annotations"][self.of(&["note", "example.com/by"])] = self.of(&["x", "y"]).into(),
                _ => meta["finalizers"] = json!([self.of(&["example.com/hold", "example.com/keep"])]),
            }
        }
        meta
    }

    fn content(&mut self, kind: &str) -> Value {
        let word = |it: &mut Self| it.of(&["one", "two", "three"]);
        match kind {
            "configmaps" => match self.rng.u32(..4) {
                0 => json!({"data": {"a": word(self), "b": word(self)}}),
                1 => json!({"data": {"c": word(self)}}),
                2 => json!({"data": {"a": word(self)}, "immutable": self.rng.u32(..4) == 0}),
                _ => json!({}),
            },
            "rollouts" => {
                let image = word(self);
                let mut spec = json!({"replicas": self.rng.i32(0..4), "selector": {"matchLabels": {"app": "web"}},
                    "template": {"metadata": {"labels": {"app": "web"}},
                        "spec": {"containers": [{"name": "web", "image": format!("web:{image}")}]}},
                    "strategy": {"canary": {"steps": [{"setWeight": 20}, {"pause": {}}]}}});
                match self.rng.u32(..6) {
                    0 => spec["strategy"] = json!({"blueGreen": {"activeService": word(self)}}),
                    1 => spec["strategy"]["canary"]["steps"] = json!([{"setWeight": 50}]),
                    2 => spec["paused"] = self.rng.bool().into(),
                    3 => spec["minReadySeconds"] = 3.into(),
                    4 => spec["replicas"] = (-1).into(),
                    _ => {}
                }
                json!({"spec": spec})
            }
            "statefulsets" => {
                let name = self.of(&["web", "side"]);
                let container = json!({"name": name, "image": format!("web:{}", word(self))});
                let mut containers = vec![container];
                if self.rng.bool() {
                    containers[0]["env"] = json!([{"name": word(self), "value": word(self)}]);
                }
                if self.rng.u32(..3) == 0 {
                    containers[0]["ports"] =
                        json!([{"containerPort": if name == "web" { 8080 } else { 8081 }, "name": name}]);
                }
                if self.rng.u32(..4) == 0 {
                    containers[0]["readinessProbe"] = json!({"httpGet": {"port": 8080}});
                }
                if self.rng.u32(..5) == 0 {
                    containers.push(json!({"name": "log", "image": "log"}));
                }
                json!({"spec": {"serviceName": "web", "replicas": self.rng.i32(0..4), "selector": {"matchLabels": {"app": "web"}},
                    "template": {"metadata": {"labels": {"app": self.of(&["web", "web", "web", "web", "web", "api"])}}, "spec": {"containers": containers}}}})
            }
            "services" => {
                let mut ports = vec![json!({"port": self.of(&[80, 81]), "name": self.of(&["http", "web"])})];
                if self.rng.u32(..3) == 0 {
                    ports.push(json!({"port": 9090, "name": "metrics", "targetPort": "metrics"}));
                }
                json!({"spec": {"ports": ports, "selector": {"app": word(self)}}})
            }
            "ingresses" => {
                let path = json!({"path": "/", "pathType": "Prefix", "backend": {"service": {"name": word(self), "port": {"number": 80}}}});
                json!({"spec": {"rules": [{"host": format!("{}.example.com", word(self)), "http": {"paths": [path]}}]}})
            }
            _ => json!({"spec": {"holderIdentity": word(self), "leaseDurationSeconds": self.rng.i32(1..60)}}),
        }
    }

    fn operation(&mut self, kind: &str) -> Value {
        let (field, value) = match kind {
            "configmaps" => ("/data/a", json!("four")),
            "rollouts" | "statefulsets" => ("/spec/replicas", json!(self.rng.i32(0..4))),
            "services" => ("/spec/selector/app", json!("four")),
            "ingresses" => ("/spec/rules/0/host", json!("four.example.com")),
            _ => ("/spec/holderIdentity", json!("four")),
        };
        match self.rng.u32(..7) {
            0 => json!({"op": "add", "path": field, "value": value}),
            1 => json!({"op": "replace", "path": field, "value": value}),
            2 => json!({"op": "test", "path": field, "value": value}),
            3 => json!({"op": "add", "path": "/metadata/labels", "value": {"app": "web"}}),
            4 => json!({"op": "remove", "path": "/metadata/labels/app"}),
            5 => json!({"op": "add", "path": "/metadata/annotations/example.com~1by", "value": "json"}),
            _ => json!({"op": "replace", "path": "/metadata/labels/tier", "value": "middle"}),
        }
    }

    /// Owners and dependents, of which some are deleted in some way.
    fn family(&mut self) {
        let size = self.rng.usize(3..7);
        let mut roots = Vec::new();
        for child in 0..size {
            let mut owners = Vec::new();
            for owner in 0..child {
                // Who has several owners has roots only: else it is a race what the collector sees of them.
                let alone = owners.is_empty() || roots.contains(&owner);
                if alone && self.rng.u32(..3) == 0 {
                    owners.push(json!({"apiVersion": "v1", "kind": "ConfigMap", "name": format!("m{owner}"),
                        "uid": format!("$m{owner}"), "blockOwnerDeletion": self.rng.bool()}));
                    if !roots.contains(&owner) {
                        break;
                    }
                }
            }
            if owners.is_empty() {
                roots.push(child);
            }
            let mut meta = json!({"name": format!("m{child}")});
            if !owners.is_empty() {
                meta["ownerReferences"] = owners.into();
            }
            if self.rng.u32(..5) == 0 {
                meta["finalizers"] = json!(["example.com/hold"]);
            }
            self.requests.push(
                Request::new(Verb::Post, "configmaps")
                    .body(&json!({"metadata": meta}))
                    .keep(&format!("m{child}"), "metadata.uid"),
            );
        }
        self.settle();
        for _ in 0..self.rng.usize(1..3) {
            let policy = self.of(&["Foreground", "Background", "Orphan"]);
            let path = format!("configmaps/m{}", self.rng.usize(..size));
            self.requests.push(Request::new(Verb::Delete, path).body(&json!({"propagationPolicy": policy})));
            self.settle();
        }
        for member in 0..size {
            if self.rng.bool() {
                let patch = json!({"metadata": {"finalizers": null}});
                let mut release = Request::new(Verb::Merge, format!("configmaps/m{member}")).body(&patch);
                // In which order the collector wrote to the members is its affair.
                release.until.push(Condition::Has("metadata".to_owned()));
                self.requests.push(release);
            }
        }
        self.settle();
    }

    fn settle(&mut self) {
        let mut list = Request::new(Verb::Get, "configmaps");
        list.until.push(Condition::Settled);
        self.requests.push(list);
    }

    fn name(&mut self) -> &'static str {
        self.of(&["a", "b"])
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.rng.usize(..choices.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_script_that_can_be_printed_and_read() {
        for seed in 0..100 {
            let one = script(seed);
            assert_eq!(super::super::script::parse(&one.to_string()).unwrap(), std::slice::from_ref(&one));
            assert_eq!(one, script(seed));
        }
    }

    #[tokio::test]
    async fn the_least_script_that_fails_is_found() {
        let whole = script(3);
        let wanted = [whole.requests[4].clone(), whole.requests[9].clone()];
        let least = minimised(&whole, async |script| wanted.iter().all(|it| script.requests.contains(it))).await;
        assert!(least.requests.len() <= 3, "{least}");
    }
}
