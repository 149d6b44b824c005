//! `tidegate set image`: a new image, and so a new revision.

use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::connect::Connection;
use super::kind;
use super::workload::Holder;

/// Change the image of a rollout
#[derive(Debug, clap::Args)]
pub struct Set {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Image(Image),
}

/// Set the image of a container; in the workload where the rollout has a workloadRef
#[derive(Debug, clap::Args)]
struct Image {
    #[command(flatten)]
    connection: Connection,
    /// The rollout: NAME, or rollout NAME; then CONTAINER=IMAGE, once or more; the container * is all of them
    #[arg(required = true, num_args = 2.., value_name = "ROLLOUT CONTAINER=IMAGE")]
    words: Vec<String>,
}

impl Set {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let What::Image(image) = self.what;
        image.run().await
    }
}

impl Image {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let first = self.words.iter().position(|word| word.contains('=')).unwrap_or(self.words.len());
        let (words, images) = self.words.split_at(first);
        let name = kind::rollout(words)?;
        let images: Vec<(&str, &str)> = images.iter().map(|word| assignment(word)).collect::<anyhow::Result<_>>()?;
        if images.is_empty() {
            bail!("CONTAINER=IMAGE is needed");
        }
        let connected = self.connection.connect().await?;
        let holder = Holder::of(&connected, &connected.rollout(name).await?, name)?;
        holder.change(|template| operations(template, holder.template, &images)).await?;
        println!("{holder} image updated");
        Ok(ExitCode::SUCCESS)
    }
}

fn assignment(word: &str) -> anyhow::Result<(&str, &str)> {
    let (container, image) = word.split_once('=').with_context(|| format!("{word:?} is not CONTAINER=IMAGE"))?;
    if container.is_empty() || image.is_empty() {
        bail!("{word:?} is not CONTAINER=IMAGE");
    }
    Ok((container, image))
}

/// The JSON patch that sets the images in a pod template that stands at `path`.
fn operations(template: &Value, path: &str, images: &[(&str, &str)]) -> anyhow::Result<Vec<Value>> {
    let mut operations = Vec::new();
    for (container, image) in images {
        let mut found = false;
        for list in ["initContainers", "containers", "ephemeralContainers"] {
            for (index, entry) in template["spec"][list].as_array().into_iter().flatten().enumerate() {
                if *container != "*" && entry["name"] != *container {
                    continue;
                }
                found = true;
                if entry["image"] != *image {
                    let path = format!("{path}/spec/{list}/{index}/image");
                    operations.push(json!({"op": "add", "path": path, "value": image}));
                }
            }
        }
        if !found {
            bail!("unable to find container named {container:?}");
        }
    }
    Ok(operations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_set_where_the_containers_are() {
        let template = json!({"spec": {
            "initContainers": [{"name": "init", "image": "init:1"}],
            "containers": [{"name": "web", "image": "web:1"}, {"name": "proxy"}],
        }});
        let paths = |images: &[(&str, &str)]| -> Vec<String> {
            let operations = operations(&template, "/spec/template", images).unwrap();
            operations.iter().map(|operation| format!("{}={}", operation["path"], operation["value"])).collect()
        };
        assert_eq!(paths(&[("web", "web:2")]), [r#""/spec/template/spec/containers/0/image"="web:2""#]);
        assert_eq!(paths(&[("proxy", "p:1"), ("init", "init:2")]).len(), 2);
        assert_eq!(paths(&[("*", "web:1")]).len(), 2, "the one that has it already is left alone");
        let error = operations(&template, "", &[("db", "db:1")]).unwrap_err().to_string();
        assert_eq!(error, "unable to find container named \"db\"");
        assert!(assignment("web:2").is_err() && assignment("=web:2").is_err());
        assert_eq!(assignment("web=host/web@sha256:a=b").unwrap(), ("web", "host/web@sha256:a=b"));
    }
}
