//! What is on the cluster before a release: the user's own objects, and what had to be made up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::questions::{self, Questions};
use super::report::Subject;
use super::route::{self, Way};
use crate::api::Rollout;
use crate::api::names::GROUP;
use crate::cli::manifest::Object;
use crate::cli::units::plural;
use crate::sandbox::traffic::Target;

/// The tag of what runs before the release.
const OLD_TAG: &str = "before-this-plan";

/// Kinds that a release may need; others are left out.
const NEEDED: [&str; 17] = [
    "Service",
    "Secret",
    "ConfigMap",
    "Deployment",
    "ReplicaSet",
    "PodTemplate",
    "PodDisruptionBudget",
    "Ingress",
    "Gateway",
    "HTTPRoute",
    "GRPCRoute",
    "TCPRoute",
    "TLSRoute",
    "VirtualService",
    "DestinationRule",
    "AnalysisTemplate",
    "ClusterAnalysisTemplate",
];

/// What to plan, of what the files have.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// The Rollout's name; the only one when absent.
    pub name: Option<String>,
    /// Of objects that name none.
    pub namespace: Option<String>,
    /// Instead of the manifest's.
    pub replicas: Option<i32>,
}

/// A cluster before a release.
#[derive(Clone, Debug)]
pub struct Setting {
    pub subject: Subject,
    /// What to apply, in this order.
    pub objects: Vec<Value>,
    pub namespaces: BTreeSet<String>,
    pub notes: Vec<String>,
    pub target: Target,
    /// Where the pod template is.
    pub template: Template,
    pub new_image: String,
    pub questions: Questions,
    /// For each step whether it is a pause that only a person ends.
    pub waits: Vec<bool>,
    /// Whether a blue-green release waits for a person.
    pub promoted_by_hand: bool,
    /// How long pods may stay that are no longer needed.
    pub longest_delay: Duration,
}

/// The object with the pod template, and the patch that begins the release.
#[derive(Clone, Debug)]
pub struct Template {
    pub resource: &'static str,
    pub name: String,
    pub release: Value,
}

/// The objects by kind, namespace and name.
pub(super) struct Cast {
    pub objects: BTreeMap<(String, String, String), Value>,
    pub notes: Vec<String>,
    pub namespace: String,
}

impl Setting {
    /// Reads the objects, which `tidegate lint` has nothing against.
    ///
    /// # Errors
    /// There is no such Rollout, or something that it refers to is missing and cannot be made up.
    pub fn of(objects: &[Object], wish: &Wish) -> anyhow::Result<Self> {
        let object = chosen(objects, wish.name.as_deref())?;
        let name = object.name().to_owned();
        let default = wish.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let namespace = object.value["metadata"]["namespace"].as_str().unwrap_or(&default).to_owned();
        let mut cast = Cast::of(objects, &namespace);
        let mut value = cleaned(&object.value, &namespace);
        if let Some(replicas) = wish.replicas {
            value["spec"]["replicas"] = replicas.into();
        } else if value["spec"]["replicas"].is_null() {
            cast.notes.push("spec.replicas is not set, so there is 1 pod; --replicas says otherwise".to_owned());
        }
        if value["spec"]["paused"] == true {
            cast.notes.push("spec.paused is true: nothing would be released; the plan takes it for false".to_owned());
            value["spec"]["paused"] = false.into();
        }
        let rollout: Rollout = serde_json::from_value(value.clone()).context("reading the Rollout")?;
        missing_templates(&rollout, &cast)?;
        let way = route::make_up(&rollout, &value, &mut cast)?;
        let questions = questions::of(&rollout, &mut cast)?;
        let (template, new_image) = prepare(&mut value, &mut cast, &name)?;
        let others = objects.iter().filter(|object| object.is(GROUP, "Experiment")).count();
        if others > 0 {
            cast.notes.push(format!("{} left out: they are no part of a release", plural(others, "Experiment")));
        }
        let strategy = &value["spec"]["strategy"];
        let steps = strategy["canary"]["steps"].as_array().cloned().unwrap_or_default();
        let Way { target, router } = way;
        let delay = |strategy: &str, field: &str| value["spec"]["strategy"][strategy][field].as_u64();
        let delays = ["scaleDownDelaySeconds", "abortScaleDownDelaySeconds"];
        let delays =
            delays.into_iter().flat_map(|field| ["canary", "blueGreen"].map(|strategy| delay(strategy, field)));
        let longest = delays.flatten().max().unwrap_or(0).max(30);
        Ok(Self {
            subject: Subject {
                namespace: namespace.clone(),
                name: name.clone(),
                strategy: if strategy["blueGreen"].is_object() { "blueGreen" } else { "canary" },
                router,
                replicas: rollout.spec.desired_replicas(),
                steps: steps.iter().map(title).collect(),
            },
            waits: steps.iter().map(|step| step["pause"].is_object() && step["pause"]["duration"].is_null()).collect(),
            promoted_by_hand: strategy["blueGreen"]["autoPromotionEnabled"] == false
                && strategy["blueGreen"]["autoPromotionSeconds"].as_i64().unwrap_or(0) == 0,
            namespaces: cast.objects.keys().map(|(_, namespace, _)| namespace.clone()).chain([namespace]).collect(),
            objects: cast.objects.into_values().chain([value]).collect(),
            notes: cast.notes,
            target,
            template,
            new_image,
            questions,
            longest_delay: Duration::from_secs(longest.min(3600)),
        })
    }
}

impl Cast {
    fn of(objects: &[Object], namespace: &str) -> Self {
        let mut cast = Self { objects: BTreeMap::new(), notes: Vec::new(), namespace: namespace.to_owned() };
        for object in objects.iter().filter(|object| NEEDED.contains(&object.kind())) {
            let value = cleaned(&object.value, namespace);
            cast.add(value);
        }
        cast
    }

    pub fn add(&mut self, object: Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &object["metadata"];
        let key = (text(&object["kind"]), text(&metadata["namespace"]), text(&metadata["name"]));
        self.objects.insert(key, object);
    }

    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<&Value> {
        self.objects.get(&(kind.to_owned(), namespace.to_owned(), name.to_owned()))
    }

    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |((of, _, _), _)| of == kind).map(|(_, object)| object)
    }

    pub fn has(&self, kind: &str, name: &str) -> bool {
        self.get(kind, &self.namespace, name).is_some()
    }
}

/// The Rollout that is meant.
fn chosen<'a>(objects: &'a [Object], name: Option<&str>) -> anyhow::Result<&'a Object> {
    let rollouts: Vec<&Object> = objects.iter().filter(|object| object.is(GROUP, "Rollout")).collect();
    let names = || rollouts.iter().map(|rollout| rollout.name()).collect::<Vec<_>>().join(", ");
    match (name, rollouts.as_slice()) {
        (_, []) => bail!("there is no Rollout among the files"),
        (None, [one]) => Ok(one),
        (None, _) => bail!("there are several Rollouts among the files, name one of them: {}", names()),
        (Some(name), _) => {
            let found = rollouts.iter().find(|rollout| rollout.name() == name);
            found.copied().with_context(|| format!("there is no Rollout {name} among the files, only: {}", names()))
        }
    }
}

/// As somebody would apply it: without what a server has added.
fn cleaned(object: &Value, namespace: &str) -> Value {
    let mut object = object.clone();
    let cluster_wide = object["kind"] == "ClusterAnalysisTemplate";
    if let Some(object) = object.as_object_mut() {
        object.remove("status");
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for field in [
            "creationTimestamp",
            "generation",
            "managedFields",
            "ownerReferences",
            "resourceVersion",
            "selfLink",
            "uid",
        ] {
            metadata.remove(field);
        }
        if !cluster_wide {
            metadata.entry("namespace").or_insert_with(|| namespace.into());
        }
    }
    object
}

/// Templates cannot be made up: what they ask is what is planned.
fn missing_templates(rollout: &Rollout, cast: &Cast) -> anyhow::Result<()> {
    let mut missing = Vec::new();
    for (path, analysis) in questions::analyses(rollout) {
        for template in analysis.templates {
            let name = &template.template_name;
            let found = match template.cluster_scope {
                true => cast.of_kind("ClusterAnalysisTemplate").any(|it| it["metadata"]["name"] == *name),
                false => cast.has("AnalysisTemplate", name),
            };
            if !found {
                missing.push(format!("{path}: template {name:?} is not among the files"));
            }
        }
    }
    if !missing.is_empty() {
        bail!("{}", missing.join("\n"));
    }
    Ok(())
}

/// Lets the older version run first, and says how the newer one comes.
fn prepare(rollout: &mut Value, cast: &mut Cast, name: &str) -> anyhow::Result<(Template, String)> {
    let reference = rollout["spec"]["workloadRef"].clone();
    if !reference.is_object() {
        let containers = &mut rollout["spec"]["template"]["spec"]["containers"];
        let (new, image) = aged(containers).context("the Rollout's pod template has no container with an image")?;
        let release = json!({"spec": {"template": {"spec": {"containers": new}}}});
        return Ok((Template { resource: "rollouts.argoproj.io", name: name.to_owned(), release }, image));
    }
    let text = |field: &str| reference[field].as_str().unwrap_or_default().to_owned();
    let (kind, workload) = (text("kind"), text("name"));
    let (resource, nested) = match kind.as_str() {
        "Deployment" => ("deployments.apps", true),
        "ReplicaSet" => ("replicasets.apps", true),
        "PodTemplate" => ("podtemplates", false),
        _ => bail!("spec.workloadRef: {kind} is no kind that can be referred to"),
    };
    let key = (kind.clone(), cast.namespace.clone(), workload.clone());
    let Some(object) = cast.objects.get_mut(&key) else {
        bail!("spec.workloadRef: {kind} {workload} is not among the files");
    };
    let template = if nested { &mut object["spec"]["template"] } else { &mut object["template"] };
    let aged = aged(&mut template["spec"]["containers"]);
    let (new, image) = aged.with_context(|| format!("{kind} {workload} has no container with an image"))?;
    let template = json!({"template": {"spec": {"containers": new}}});
    let release = if nested { json!({"spec": template}) } else { template };
    Ok((Template { resource, name: workload, release }, image))
}

/// Gives the first container the image of the older version. The answer is the containers as they were, and their image.
fn aged(containers: &mut Value) -> Option<(Value, String)> {
    let new = containers.clone();
    let image = containers[0]["image"].as_str().filter(|image| !image.is_empty())?.to_owned();
    let named = image.split('@').next().unwrap_or(&image);
    let (path, last) = named.rsplit_once('/').map_or(("", named), |(path, last)| (path, last));
    let last = last.split(':').next().unwrap_or(last);
    let old = if path.is_empty() { format!("{last}:{OLD_TAG}") } else { format!("{path}/{last}:{OLD_TAG}") };
    containers[0]["image"] = old.into();
    Some((new, image))
}

/// A step in words: its field and what it asks for.
fn title(step: &Value) -> String {
    let names = |list: &Value, field: &str| {
        let names = list.as_array().into_iter().flatten().filter_map(|it| it[field].as_str());
        names.collect::<Vec<_>>().join(", ")
    };
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let Some((field, value)) = step.as_object().and_then(|step| step.iter().find(|(_, value)| !value.is_null())) else {
        return "nothing".to_owned();
    };
    match field.as_str() {
        "setWeight" => format!("setWeight {value}"),
        "pause" => match &value["duration"] {
            Value::Null => "pause until promoted".to_owned(),
            // A plain number is seconds.
            duration if plain(duration).bytes().all(|byte| byte.is_ascii_digit()) => {
                format!("pause {}s", plain(duration))
            }
            duration => format!("pause {}", plain(duration)),
        },
        "analysis" => format!("analysis {}", names(&value["templates"], "templateName")),
        "experiment" => {
            let duration = value["duration"].as_str().map(|duration| format!(" {duration}")).unwrap_or_default();
            format!("experiment{duration} ({})", names(&value["templates"], "name"))
        }
        "setCanaryScale" => match (&value["weight"], &value["replicas"]) {
            (Value::Null, Value::Null) => "setCanaryScale as traffic".to_owned(),
            (Value::Null, replicas) => format!("setCanaryScale {replicas} pods"),
            (weight, _) => format!("setCanaryScale {weight}%"),
        },
        field => format!("{field} {}", value["name"].as_str().unwrap_or_default()).trim_end().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_version_has_another_image_of_the_same_name() {
        for (new, old) in [
            ("web", "web:before-this-plan"),
            ("web:v2", "web:before-this-plan"),
            ("localhost:5000/shop/web:v2", "localhost:5000/shop/web:before-this-plan"),
            ("ghcr.io/shop/web@sha256:0123", "ghcr.io/shop/web:before-this-plan"),
        ] {
            let mut containers = json!([{"name": "web", "image": new}, {"name": "proxy", "image": "proxy:1"}]);
            let (newer, image) = aged(&mut containers).unwrap();
            assert_eq!((containers[0]["image"].as_str(), image.as_str()), (Some(old), new));
            assert_eq!((newer[0]["image"].as_str(), containers[1]["image"].as_str()), (Some(new), Some("proxy:1")));
        }
        assert!(aged(&mut json!([])).is_none());
    }

    #[test]
    fn steps_are_told_in_their_own_words() {
        for (step, expected) in [
            (json!({"setWeight": 20}), "setWeight 20"),
            (json!({"pause": {}}), "pause until promoted"),
            (json!({"pause": {"duration": "10m"}}), "pause 10m"),
            (json!({"pause": {"duration": 30}}), "pause 30s"),
            (json!({"analysis": {"templates": [{"templateName": "a"}, {"templateName": "b"}]}}), "analysis a, b"),
            (json!({"experiment": {"duration": "1m", "templates": [{"name": "trial"}]}}), "experiment 1m (trial)"),
            (json!({"setCanaryScale": {"weight": 25}}), "setCanaryScale 25%"),
            (json!({"setCanaryScale": {"matchTrafficWeight": true}}), "setCanaryScale as traffic"),
            (json!({"setHeaderRoute": {"name": "beta"}}), "setHeaderRoute beta"),
        ] {
            assert_eq!(title(&step), expected);
        }
    }
}
