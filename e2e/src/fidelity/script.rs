//! The text of a request script: parsed, and printed so that it can be parsed again.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

/// Requests that one client sends, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    /// What it shows, in one line; unique.
    pub title: String,
    /// Why it matters; may be empty.
    pub about: String,
    pub requests: Vec<Request>,
}

/// One request and what to keep of its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub verb: Verb,
    /// A path, or what stands for one; see [`resolve`].
    pub path: String,
    /// The request is sent again until this holds.
    pub until: Vec<Condition>,
    pub headers: Vec<(String, String)>,
    /// YAML; empty for none.
    pub body: String,
    /// Whether its answer is not compared: it prepares the rest.
    pub unseen: bool,
    /// Names for parts of the answer.
    pub keeps: Vec<(String, String)>,
}

/// What is sent, and with which type of patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Get,
    Post,
    Put,
    Delete,
    Merge,
    Json,
    Strategic,
    Apply,
    /// Watches until an event about the object `last`.
    Watch,
}

/// What an answer must be like.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    Code(u16),
    /// A part of the answer is this.
    Is(String, String),
    /// A part of the answer is there.
    Has(String),
    /// The answer has not changed for a while.
    Settled,
}

const VERBS: [(&str, Verb); 9] = [
    ("GET", Verb::Get),
    ("POST", Verb::Post),
    ("PUT", Verb::Put),
    ("DELETE", Verb::Delete),
    ("MERGE", Verb::Merge),
    ("JSON", Verb::Json),
    ("STRATEGIC", Verb::Strategic),
    ("APPLY", Verb::Apply),
    ("WATCH", Verb::Watch),
];

/// The scripts of a file.
///
/// # Errors
/// The file cannot be read, or is not made of scripts; the line is named.
pub fn read(file: &Path) -> Result<Vec<Script>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    parse(&text).with_context(|| format!("in {}", file.display()))
}

/// The scripts of a text.
///
/// # Errors
/// It is not made of scripts; the line is named.
pub fn parse(text: &str) -> Result<Vec<Script>> {
    let mut scripts: Vec<Script> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        parse_line(&mut scripts, line).with_context(|| format!("line {}: {line}", number + 1))?;
    }
    for script in &mut scripts {
        script.about = script.about.trim().to_owned();
        ensure!(!script.requests.is_empty(), "\"{}\" has no requests", script.title);
    }
    Ok(scripts)
}

fn parse_line(scripts: &mut Vec<Script>, line: &str) -> Result<()> {
    if let Some(title) = line.strip_prefix("# ") {
        scripts.push(Script { title: title.to_owned(), about: String::new(), requests: Vec::new() });
        return Ok(());
    }
    let script = scripts.last_mut().context("a script begins with its title, \"# …\"")?;
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    if let Some((_, verb)) = VERBS.iter().find(|(name, _)| *name == word) {
        script.requests.push(Request::parse(*verb, rest)?);
        return Ok(());
    }
    match script.requests.last_mut() {
        _ if line.trim().is_empty() => {}
        None => {
            script.about += line;
            script.about += "\n";
        }
        Some(request) if line.starts_with("    ") => {
            request.body += &line[4..];
            request.body += "\n";
        }
        Some(request) if line == "unseen" => request.unseen = true,
        Some(request) if word == "keep" => {
            let (name, part) = rest.split_once(" = ").context("keep NAME = PART")?;
            request.keeps.push((name.to_owned(), part.to_owned()));
        }
        Some(request) if word == "with" => {
            let (name, value) = rest.split_once(": ").context("with HEADER: VALUE")?;
            request.headers.push((name.to_owned(), value.to_owned()));
        }
        Some(_) => bail!("neither a request nor a part of one"),
    }
    Ok(())
}

impl Request {
    fn parse(verb: Verb, rest: &str) -> Result<Self> {
        let (path, until) = rest.split_once(" until ").map_or((rest, ""), |(path, until)| (path, until));
        let conditions = until.split(" and ").filter(|condition| !condition.is_empty()).map(Condition::parse);
        Ok(Self {
            verb,
            path: path.to_owned(),
            until: conditions.collect(),
            headers: Vec::new(),
            body: String::new(),
            unseen: false,
            keeps: Vec::new(),
        })
    }

    /// Another request, without the rest.
    pub fn new(verb: Verb, path: impl Into<String>) -> Self {
        Self {
            verb,
            path: path.into(),
            until: Vec::new(),
            headers: Vec::new(),
            body: String::new(),
            unseen: false,
            keeps: Vec::new(),
        }
    }

    /// The same with a body.
    pub fn body(mut self, body: &Value) -> Self {
        self.body = format!("{body}\n");
        self
    }

    /// The same, keeping a part of its answer.
    pub fn keep(mut self, name: &str, part: &str) -> Self {
        self.keeps.push((name.to_owned(), part.to_owned()));
        self
    }
}

impl Condition {
    fn parse(text: &str) -> Self {
        if text == "settled" {
            return Self::Settled;
        }
        if let Ok(code) = text.parse() {
            return Self::Code(code);
        }
        match text.split_once('=') {
            Some((part, value)) => Self::Is(part.to_owned(), value.to_owned()),
            None => Self::Has(text.to_owned()),
        }
    }

    /// Whether an answer satisfies it, given the one before.
    pub fn holds(&self, code: u16, body: &Value) -> bool {
        match self {
            Self::Code(wanted) => *wanted == code,
            Self::Is(path, wanted) => part(body, path).is_some_and(|value| shown(value) == *wanted),
            Self::Has(path) => part(body, path).is_some(),
            Self::Settled => true,
        }
    }
}

/// A part of an answer: `status.replicas`, `items.0.metadata.name`, or a JSON pointer.
pub fn part<'a>(body: &'a Value, path: &str) -> Option<&'a Value> {
    let pointer = if path.starts_with('/') { path.to_owned() } else { format!("/{}", path.replace('.', "/")) };
    body.pointer(&pointer)
}

/// A value as text: strings as they are, everything else as JSON.
pub fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The API version, kind, scope (`c` for cluster) of what may be named without a path.
const KINDS: &[(&str, &str, &str, &str)] = &[
    ("configmaps", "v1", "ConfigMap", ""),
    ("endpoints", "v1", "Endpoints", ""),
    ("events", "v1", "Event", ""),
    ("limitranges", "v1", "LimitRange", ""),
    ("namespaces", "v1", "Namespace", "c"),
    ("nodes", "v1", "Node", "c"),
    ("pods", "v1", "Pod", ""),
    ("podtemplates", "v1", "PodTemplate", ""),
    ("replicationcontrollers", "v1", "ReplicationController", ""),
    ("secrets", "v1", "Secret", ""),
    ("serviceaccounts", "v1", "ServiceAccount", ""),
    ("services", "v1", "Service", ""),
    ("customresourcedefinitions", "apiextensions.k8s.io/v1", "CustomResourceDefinition", "c"),
    ("daemonsets", "apps/v1", "DaemonSet", ""),
    ("deployments", "apps/v1", "Deployment", ""),
    ("replicasets", "apps/v1", "ReplicaSet", ""),
    ("statefulsets", "apps/v1", "StatefulSet", ""),
    ("horizontalpodautoscalers", "autoscaling/v2", "HorizontalPodAutoscaler", ""),
    ("cronjobs", "batch/v1", "CronJob", ""),
    ("jobs", "batch/v1", "Job", ""),
    ("leases", "coordination.k8s.io/v1", "Lease", ""),
    ("endpointslices", "discovery.k8s.io/v1", "EndpointSlice", ""),
    ("ingresses", "networking.k8s.io/v1", "Ingress", ""),
    ("networkpolicies", "networking.k8s.io/v1", "NetworkPolicy", ""),
    ("poddisruptionbudgets", "policy/v1", "PodDisruptionBudget", ""),
    ("clusterroles", "rbac.authorization.k8s.io/v1", "ClusterRole", "c"),
    ("roles", "rbac.authorization.k8s.io/v1", "Role", ""),
    ("rolebindings", "rbac.authorization.k8s.io/v1", "RoleBinding", ""),
    ("priorityclasses", "scheduling.k8s.io/v1", "PriorityClass", "c"),
    ("rollouts", "argoproj.io/v1alpha1", "Rollout", ""),
    ("analysisruns", "argoproj.io/v1alpha1", "AnalysisRun", ""),
    ("analysistemplates", "argoproj.io/v1alpha1", "AnalysisTemplate", ""),
    ("experiments", "argoproj.io/v1alpha1", "Experiment", ""),
    ("virtualservices", "networking.istio.io/v1alpha3", "VirtualService", ""),
];

/// The whole path, and the `apiVersion` and `kind` that a body without them gets.
///
/// A path that begins with `/` is taken as it is. `RESOURCE/NAME/SUBRESOURCE?QUERY` stands for one in the script's
/// namespace, and gives its body a type unless that is a subresource's. `boats` are those of the group `$ns.example.com`.
///
/// # Errors
/// There is no such resource.
pub fn resolve(path: &str, namespace: &str) -> Result<(String, Option<Map<String, Value>>)> {
    if path.starts_with('/') {
        return Ok((path.to_owned(), None));
    }
    let end = path.find(['/', '?']).unwrap_or(path.len());
    let resource = &path[..end];
    let boats = format!("{namespace}.example.com/v1");
    let (version, kind, scope) = if resource == "boats" {
        (boats.as_str(), "Boat", "")
    } else {
        let known = KINDS.iter().find(|(plural, ..)| *plural == resource);
        let (_, version, kind, scope) = known.with_context(|| format!("no resource {resource}"))?;
        (*version, *kind, *scope)
    };
    let root = if version.contains('/') { "apis" } else { "api" };
    let inside = if scope == "c" { String::new() } else { format!("/namespaces/{namespace}") };
    let part = path.split('?').next().unwrap_or_default().matches('/').count() > 1;
    let of_object = !part || path.contains("/status");
    let types = of_object.then(|| {
        [("apiVersion".to_owned(), Value::from(version)), ("kind".to_owned(), Value::from(kind))].into_iter().collect()
    });
    Ok((format!("/{root}/{version}{inside}/{path}"), types))
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# {}", self.title)?;
        if !self.about.is_empty() {
            writeln!(f, "{}", self.about)?;
        }
        writeln!(f)?;
        self.requests.iter().try_for_each(|request| writeln!(f, "{request}"))
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.line())?;
        for (name, value) in &self.headers {
            write!(f, "\nwith {name}: {value}")?;
        }
        if self.unseen {
            f.write_str("\nunseen")?;
        }
        for line in self.body.lines() {
            write!(f, "\n    {line}")?;
        }
        for (name, part) in &self.keeps {
            write!(f, "\nkeep {name} = {part}")?;
        }
        Ok(())
    }
}

impl Request {
    /// Its first line.
    pub fn line(&self) -> String {
        let verb = VERBS.iter().find(|(_, verb)| *verb == self.verb).map_or("", |(name, _)| name);
        let until: Vec<String> = self.until.iter().map(ToString::to_string).collect();
        let until = if until.is_empty() { String::new() } else { format!(" until {}", until.join(" and ")) };
        format!("{verb} {}{until}", self.path)
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "{code}"),
            Self::Is(part, value) => write!(f, "{part}={value}"),
            Self::Has(part) => f.write_str(part),
            Self::Settled => f.write_str("settled"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_printed_as_it_is_read() {
        let text = "# A title\nWhy.\n\nPOST configmaps\nwith Accept: x\nunseen\n    {metadata: {name: a}}\nkeep v = metadata.uid\nGET configmaps/a until 404 and status.x=1\n";
        let scripts = parse(text).unwrap();
        assert_eq!(scripts[0].requests[1].until, [Condition::Code(404), Condition::Is("status.x".into(), "1".into())]);
        assert_eq!(parse(&scripts[0].to_string()).unwrap(), scripts);
        for (wrong, why) in
            [("GET x", "begins with its title"), ("# a\nGET x\nkeep", "keep NAME"), ("# a\nwhy", "no requests")]
        {
            let error = format!("{:#}", parse(wrong).unwrap_err());
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn short_paths_stand_for_whole_ones() {
        for (short, whole, kind) in [
            ("configmaps", "/api/v1/namespaces/x/configmaps", Some("ConfigMap")),
            ("namespaces/y", "/api/v1/namespaces/y", Some("Namespace")),
            ("rollouts/a/status?x=y", "/apis/argoproj.io/v1alpha1/namespaces/x/rollouts/a/status?x=y", Some("Rollout")),
            ("deployments/a/scale", "/apis/apps/v1/namespaces/x/deployments/a/scale", None),
            ("/version", "/version", None),
        ] {
            let (path, types) = resolve(short, "x").unwrap();
            assert_eq!((path.as_str(), types.as_ref().and_then(|it| it["kind"].as_str())), (whole, kind));
        }
    }
}
