//! `tidegate create`: objects from files, and analysis runs from templates.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};

use super::connect::{Connected, Connection};
use super::manifest::{self, Object};
use super::{get, lint};
use crate::analysis::spec;
use crate::analysis::templates::Templates;
use crate::api::analysis::{AnalysisRunSpec, AnalysisTemplateSpec, Argument};
use crate::api::resource::{ANALYSIS_RUN, ANALYSIS_TEMPLATE, CLUSTER_ANALYSIS_TEMPLATE, EXPERIMENT, ROLLOUT, Resource};
use crate::api::steps::TemplateRef;
use crate::api::{AnalysisTemplate, ClusterAnalysisTemplate, names};

/// Create a rollout, an experiment, an analysis template or an analysis run
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_precedence_over_arg = true)]
pub struct Create {
    #[command(flatten)]
    connection: Connection,
    /// File or folder with manifests, or - for standard input; may be repeated
    #[arg(long = "filename", short = 'f')]
    filename: Vec<PathBuf>,
    /// Show the rollout or experiment as it changes
    #[arg(long, short)]
    watch: bool,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    #[command(name = "analysisrun", visible_alias = "ar")]
    AnalysisRun(Run),
}

/// Create an analysis run from an analysis template
#[derive(Debug, clap::Args)]
struct Run {
    #[command(flatten)]
    connection: Connection,
    /// The template, by its name in the cluster
    #[arg(long, required_unless_present = "from_file", conflicts_with = "from_file")]
    from: Option<String>,
    /// The template, in a file
    #[arg(long)]
    from_file: Option<PathBuf>,
    /// The template is a ClusterAnalysisTemplate
    #[arg(long)]
    global: bool,
    /// Name of the run
    #[arg(long)]
    name: Option<String>,
    /// What the name of the run begins with; that of the template and a dash when absent
    #[arg(long, conflicts_with = "name")]
    generate_name: Option<String>,
    /// Value of an argument, as NAME=VALUE; may be repeated
    #[arg(long = "argument", short = 'a')]
    arguments: Vec<String>,
    /// Instance id of the controller that is to run it
    #[arg(long)]
    instance_id: Option<String>,
}

impl Create {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        if let Some(What::AnalysisRun(run)) = self.what {
            return run.create().await;
        }
        if self.filename.is_empty() {
            bail!("--filename is needed, or analysisrun");
        }
        let objects = manifest::read(&self.filename)?;
        if self.watch && objects.len() != 1 {
            bail!("--watch needs one object, there are {}", objects.len());
        }
        // All of them first: of a file with a mistake nothing is created.
        let resources: Vec<Resource> = objects.iter().map(checked).collect::<anyhow::Result<_>>()?;
        let connected = self.connection.connect().await?;
        for (object, resource) in objects.iter().zip(resources) {
            let name = create(&connected, resource, object.value.clone()).await?;
            if self.watch {
                return get::watch_new(&connected, resource.kind, &name).await;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The kind of an object that is ours and has no field that nobody reads.
fn checked(object: &Object) -> anyhow::Result<Resource> {
    let known = [ROLLOUT, EXPERIMENT, ANALYSIS_TEMPLATE, CLUSTER_ANALYSIS_TEMPLATE, ANALYSIS_RUN];
    let Some(resource) = known.into_iter().find(|resource| object.is(resource.group, resource.kind)) else {
        let kinds = known.map(|resource| resource.kind).join(", ");
        bail!("{}: {} is not created here; known: {kinds}", object.source, object.kind());
    };
    match lint::shape(object).as_slice() {
        [] => Ok(resource),
        errors => bail!("{}", errors.join("\n")),
    }
}

/// Creates the object, says so, and answers with its name.
async fn create(connected: &Connected, resource: Resource, mut value: Value) -> anyhow::Result<String> {
    let gvk = GroupVersionKind::gvk(resource.group, resource.version, resource.kind);
    let kind = ApiResource::from_gvk_with_plural(&gvk, resource.plural);
    let namespace = value["metadata"]["namespace"].as_str().unwrap_or(&connected.namespace).to_owned();
    let api: Api<DynamicObject> = if resource == CLUSTER_ANALYSIS_TEMPLATE {
        Api::all_with(connected.client.clone(), &kind)
    } else {
        value["metadata"]["namespace"] = json!(namespace);
        Api::namespaced_with(connected.client.clone(), &namespace, &kind)
    };
    let object: DynamicObject = serde_json::from_value(value).context("an object with kind and metadata")?;
    let created = match api.create(&PostParams::default(), &object).await {
        Ok(created) => created,
        Err(kube::Error::Api(status)) => bail!("{}", status.message),
        Err(error) => return Err(error).context("the cluster cannot be reached"),
    };
    let name = created.metadata.name.unwrap_or_default();
    println!("{}.{}/{name} created", resource.kind.to_lowercase(), resource.group);
    Ok(name)
}

impl Run {
    async fn create(self) -> anyhow::Result<ExitCode> {
        let arguments = self.arguments.iter().map(|text| argument(text)).collect::<anyhow::Result<Vec<_>>>()?;
        let connected = self.connection.connect().await?;
        let (template, templates) = match &self.from_file {
            Some(path) => from_file(path, self.global)?,
            None => {
                let name = self.from.clone().unwrap_or_default();
                let templates = from_cluster(&connected, &name, self.global).await?;
                (name, templates)
            }
        };
        let spec = run_spec(&template, self.global, &arguments, &templates)?;
        let mut metadata = match (&self.name, &self.generate_name) {
            (Some(name), _) => json!({"name": name}),
            (None, Some(prefix)) => json!({"generateName": prefix}),
            (None, None) => json!({"generateName": format!("{template}-")}),
        };
        if let Some(id) = &self.instance_id {
            metadata["labels"] = json!({names::INSTANCE_ID: id});
        }
        let object =
            json!({"apiVersion": names::API_VERSION, "kind": ANALYSIS_RUN.kind, "metadata": metadata, "spec": spec});
        create(&connected, ANALYSIS_RUN, object).await?;
        Ok(ExitCode::SUCCESS)
    }
}

fn argument(text: &str) -> anyhow::Result<Argument> {
    let (name, value) = text.split_once('=').with_context(|| format!("--argument {text:?} is not NAME=VALUE"))?;
    Ok(Argument { name: name.to_owned(), value: Some(value.to_owned()), value_from: None })
}

fn run_spec(
    template: &str,
    cluster_scope: bool,
    arguments: &[Argument],
    templates: &Templates,
) -> anyhow::Result<AnalysisRunSpec> {
    let reference = TemplateRef { template_name: template.to_owned(), cluster_scope };
    Ok(spec::from_templates(&[reference], arguments, &[], &[], templates)?)
}

/// The template of a file, and its name. It may stand beside others that it refers to.
fn from_file(path: &PathBuf, global: bool) -> anyhow::Result<(String, Templates)> {
    let objects = manifest::read(std::slice::from_ref(path))?;
    let templates = lint::templates(&objects);
    let kind = if global { CLUSTER_ANALYSIS_TEMPLATE } else { ANALYSIS_TEMPLATE };
    let Some(first) = objects.iter().find(|object| object.is(kind.group, kind.kind)) else {
        bail!("{}: there is no {} in it", path.display(), kind.kind);
    };
    checked(first)?;
    Ok((first.name().to_owned(), templates))
}

/// The template, and all that it refers to.
async fn from_cluster(connected: &Connected, name: &str, global: bool) -> anyhow::Result<Templates> {
    let mut templates = Templates::default();
    let mut pending = vec![TemplateRef { template_name: name.to_owned(), cluster_scope: global }];
    while let Some(TemplateRef { template_name: name, cluster_scope }) = pending.pop() {
        let known = if cluster_scope { &templates.cluster } else { &templates.namespaced };
        if known.contains_key(&name) {
            continue;
        }
        let spec = if cluster_scope {
            let api: Api<ClusterAnalysisTemplate> = Api::all(connected.client.clone());
            let found = api.get(&name).await;
            found.map_err(|error| connected.explain::<ClusterAnalysisTemplate>(error, &name))?.spec.0
        } else {
            connected.find::<AnalysisTemplate>(&name).await?.spec
        };
        pending.extend(spec.templates.iter().cloned());
        insert(&mut templates, cluster_scope, name, spec);
    }
    Ok(templates)
}

fn insert(templates: &mut Templates, cluster_scope: bool, name: String, spec: AnalysisTemplateSpec) {
    let map: &mut BTreeMap<String, Arc<AnalysisTemplateSpec>> =
        if cluster_scope { &mut templates.cluster } else { &mut templates.namespaced };
    map.insert(name, Arc::new(spec));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_gets_the_arguments_that_the_template_leaves_open() {
        let template: AnalysisTemplateSpec = serde_json::from_value(json!({
            "args": [{"name": "service"}, {"name": "limit", "value": "0.95"}],
            "metrics": [{"name": "rate", "provider": {"prometheus": {"query": "x"}}}],
        }))
        .unwrap();
        let mut templates = Templates::default();
        insert(&mut templates, false, "rate".to_owned(), template);
        let error = run_spec("rate", false, &[], &templates).unwrap_err().to_string();
        assert_eq!(error, "args.service was not resolved");
        let spec = run_spec("rate", false, &[argument("service=web=1").unwrap()], &templates).unwrap();
        let values: Vec<_> = spec.args.iter().map(|arg| (arg.name.as_str(), arg.value.as_deref())).collect();
        assert_eq!(values, [("service", Some("web=1")), ("limit", Some("0.95"))]);
        assert_eq!(spec.metrics.len(), 1);
        assert!(argument("service").is_err());
    }

    #[test]
    fn what_nobody_would_read_is_not_created() {
        let told = |text: &str| {
            let objects = manifest::parse("x.yaml", text).unwrap();
            checked(&objects[0]).map(|resource| resource.kind.to_owned()).unwrap_or_else(|error| error.to_string())
        };
        assert_eq!(told("{apiVersion: argoproj.io/v1alpha1, kind: Rollout, metadata: {name: a}, spec: {}}"), "Rollout");
        let error = told("{apiVersion: argoproj.io/v1alpha1, kind: Rollout, metadata: {name: a}, spec: {replica: 1}}");
        assert_eq!(error, "x.yaml: Rollout a: spec.replica: unknown field");
        assert!(told("{apiVersion: v1, kind: Service, metadata: {name: a}}").contains("is not created here"));
    }
}
