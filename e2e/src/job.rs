//! Runs the command of a container as a local process, for the pods of Jobs.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, Pod, Secret};
use kube::{Api, Client, ResourceExt};
use tokio::process::Command;

use crate::process::Process;

/// Starts the container's command. There are no images here: `command` must name a program of this machine.
///
/// # Errors
/// The container has no command, it cannot be started, or a variable refers to something that is not there.
pub async fn start(client: &Client, pod: &Pod, container: &Container, address: &str, folder: &Path) -> Result<Process> {
    let variables = variables(client, pod, container, address).await?;
    let words: Vec<_> =
        container.command.iter().chain(&container.args).flatten().map(|word| expand(word, &variables)).collect();
    let (program, arguments) = words.split_first().context("a container without a command cannot be run here")?;
    let name = format!("{}-{}-{}", pod.namespace().unwrap_or_default(), pod.name_any(), container.name);
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOSTNAME", pod.name_any())
        .envs(&variables);
    Process::spawn(&name, &mut command, folder)
}

async fn variables(
    client: &Client,
    pod: &Pod,
    container: &Container,
    address: &str,
) -> Result<BTreeMap<String, String>> {
    let mut variables = BTreeMap::new();
    for variable in container.env.iter().flatten() {
        let value = value(client, pod, variable, address)
            .await
            .with_context(|| format!("variable {} of container {}", variable.name, container.name))?;
        let value = expand(&value, &variables);
        variables.insert(variable.name.clone(), value);
    }
    Ok(variables)
}

async fn value(client: &Client, pod: &Pod, variable: &EnvVar, address: &str) -> Result<String> {
    let namespace = pod.namespace().unwrap_or_default();
    let Some(source) = &variable.value_from else {
        return Ok(variable.value.clone().unwrap_or_default());
    };
    if let Some(reference) = &source.secret_key_ref {
        let secret = Api::<Secret>::namespaced(client.clone(), &namespace).get(&reference.name).await?;
        let value = secret.data.as_ref().and_then(|data| data.get(&reference.key));
        let value = value.with_context(|| format!("secret {} has no key {}", reference.name, reference.key))?;
        return String::from_utf8(value.0.clone()).context("a secret that is not UTF-8");
    }
    if let Some(reference) = &source.config_map_key_ref {
        let map = Api::<ConfigMap>::namespaced(client.clone(), &namespace).get(&reference.name).await?;
        let value = map.data.as_ref().and_then(|data| data.get(&reference.key));
        return value.cloned().with_context(|| format!("config map {} has no key {}", reference.name, reference.key));
    }
    let path = source.field_ref.as_ref().map(|field| field.field_path.as_str()).unwrap_or_default();
    match path {
        "metadata.name" => Ok(pod.name_any()),
        "metadata.namespace" => Ok(namespace),
        "metadata.uid" => Ok(pod.uid().unwrap_or_default()),
        "status.podIP" => Ok(address.to_owned()),
        _ => anyhow::bail!("{path:?} is not a source that is known here"),
    }
}

/// Replaces `$(NAME)` by the variable's value, and `$$` by `$`; what is not known stays as it is.
fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        rest = &rest[at..];
        let name = rest.strip_prefix("$(").and_then(|tail| tail.split_once(')'));
        let known = name.and_then(|(name, tail)| Some((variables.get(name)?, tail)));
        if let Some(tail) = rest.strip_prefix("$$") {
            result.push('$');
            rest = tail;
        } else if let Some((value, tail)) = known {
            result.push_str(value);
            rest = tail;
        } else {
            result.push('$');
            rest = &rest[1..];
        }
    }
    result + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_expanded_as_kubernetes_does() {
        let variables = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        let cases = [("$(A)x", "1x"), ("$$(A)", "$(A)"), ("$(B) $A", "$(B) $A"), ("$(A", "$(A"), ("é$(A)$", "é1$")];
        for (text, expected) in cases {
            assert_eq!(expand(text, &variables), expected, "{text}");
        }
    }
}
