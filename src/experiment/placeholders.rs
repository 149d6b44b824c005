//! What the arguments of an experiment's analyses may refer to: `{{templates.NAME.podTemplateHash}}`,
//! `{{templates.NAME.replicaset.name}}`, `{{experiment.availableAt}}` and `{{experiment.finishedAt}}`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::analysis::Argument;
use crate::api::duration::GoDuration;

use super::draft::Draft;
use super::{replica_sets, status};

/// The arguments with every placeholder replaced.
///
/// # Errors
/// A placeholder that has no value, in words.
pub(super) fn resolve(draft: &Draft<'_>, args: &[Argument]) -> Result<Vec<Argument>, String> {
    let values = values(draft);
    args.iter()
        .map(|argument| {
            let value = argument.value.as_deref().map(|text| replace(text, &values)).transpose()?;
            Ok(Argument { value, ..argument.clone() })
        })
        .collect()
}

fn values(draft: &Draft<'_>) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for template in &draft.experiment.spec.templates {
        if let Some(replica_set) = replica_sets::find(draft.world, template) {
            values.insert(format!("templates.{}.podTemplateHash", template.name), replica_set.hash().to_owned());
            values.insert(format!("templates.{}.replicaset.name", template.name), replica_set.name.clone());
        }
    }
    if let Some(Time(available)) = draft.status.available_at {
        values.insert("experiment.availableAt".to_owned(), available.to_string());
        if let Some(end) = status::end(draft) {
            values.insert("experiment.finishedAt".to_owned(), end.to_string());
        }
    }
    values
}

fn replace(text: &str, values: &BTreeMap<String, String>) -> Result<String, String> {
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (tag, after) = after.split_once("}}").ok_or_else(|| format!("`{{{{` without `}}}}` in `{text}`"))?;
        let value = values.get(tag.trim()).ok_or_else(|| format!("failed to resolve {{{{{tag}}}}}"))?;
        replaced.push_str(before);
        replaced.push_str(value);
        rest = after;
    }
    replaced.push_str(rest);
    Ok(replaced)
}

/// A duration of the spec; none when there is none. One that cannot be read has been refused.
pub(super) fn duration(text: Option<&str>) -> Option<GoDuration> {
    text.filter(|text| !text.is_empty())?.parse().ok()
}
