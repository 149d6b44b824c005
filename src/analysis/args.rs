//! `{{args.NAME}}` in metrics, and where the values come from.

use std::collections::BTreeMap;

use serde_json::Value;

use super::secrets::Secrets;
use crate::api::analysis::{Argument, Metric};

/// Stands for a secret wherever the value does not matter, so that it need not be read.
const SECRET_PLACEHOLDER: &str = "temp-for-secret";

const OPEN: &str = "{{";
const CLOSE: &str = "}}";

/// The value of every argument of a run.
#[derive(Default)]
pub(super) struct Values(BTreeMap<String, String>);

/// Why a metric cannot get its arguments, in words that hold no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ArgsError {
    #[error("argument \"{0}\" was not supplied")]
    NotSupplied(String),
    /// `tag` is what stands between the braces.
    #[error("failed to resolve {{{{{tag}}}}}")]
    Unknown { tag: String },
    #[error("`{{{{` without `}}}}` in `{text}`")]
    Unclosed { text: String },
    #[error("secret '{secret}' of argument \"{argument}\": {problem}")]
    Secret { argument: String, secret: String, problem: String },
    #[error("with its arguments, metric '{metric}' no longer decodes: {problem}")]
    Undecodable { metric: String, problem: String },
}

impl Values {
    /// The values with a placeholder for each secret.
    pub(super) fn without_secrets(args: &[Argument]) -> Result<Self, ArgsError> {
        Self::collect(args, |_, _| Ok(SECRET_PLACEHOLDER.to_owned()))
    }

    /// The values, secrets included.
    pub(super) fn with_secrets(args: &[Argument], secrets: &Secrets) -> Result<Self, ArgsError> {
        Self::collect(args, |argument, reference| {
            secrets.value(reference).map(str::to_owned).map_err(|problem| ArgsError::Secret {
                argument: argument.to_owned(),
                secret: reference.name.clone(),
                problem,
            })
        })
    }

    fn collect(
        args: &[Argument],
        secret: impl Fn(&str, &crate::api::analysis::SecretKeyRef) -> Result<String, ArgsError>,
    ) -> Result<Self, ArgsError> {
        let mut values = BTreeMap::new();
        for arg in args {
            let reference = arg.value_from.as_ref().and_then(|from| from.secret_key_ref.as_ref());
            let value = match (reference, &arg.value) {
                (Some(reference), _) => secret(&arg.name, reference)?,
                (None, Some(value)) => value.clone(),
                (None, None) => return Err(ArgsError::NotSupplied(arg.name.clone())),
            };
            values.insert(arg.name.clone(), value);
        }
        Ok(Self(values))
    }

    /// The metric with every `{{args.NAME}}` in it replaced.
    pub(super) fn resolve(&self, metric: &Metric) -> Result<Metric, ArgsError> {
        let undecodable = |error: serde_json::Error| ArgsError::Undecodable {
            metric: metric.name.clone(),
            problem: error.to_string(),
        };
        let mut json = serde_json::to_value(metric).map_err(undecodable)?;
        self.resolve_json(&mut json)?;
        // serde_json quotes what it could not read, which may be a secret by now.
        serde_json::from_value(json).map_err(|_| ArgsError::Undecodable {
            metric: metric.name.clone(),
            problem: "a value has the wrong type".to_owned(),
        })
    }

    fn resolve_json(&self, json: &mut Value) -> Result<(), ArgsError> {
        match json {
            Value::String(text) => {
                if text.contains(OPEN) {
                    *text = self.resolve_text(text)?;
                }
            }
            Value::Array(items) => {
                for item in items {
                    self.resolve_json(item)?;
                }
            }
            Value::Object(fields) => {
                if fields.keys().any(|key| key.contains(OPEN)) {
                    let mut resolved = serde_json::Map::new();
                    for (key, value) in std::mem::take(fields) {
                        resolved.insert(self.resolve_text(&key)?, value);
                    }
                    *fields = resolved;
                }
                for value in fields.values_mut() {
                    self.resolve_json(value)?;
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        Ok(())
    }

    fn resolve_text(&self, text: &str) -> Result<String, ArgsError> {
        let mut resolved = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once(OPEN) {
            let (tag, after) = after.split_once(CLOSE).ok_or_else(|| ArgsError::Unclosed { text: text.to_owned() })?;
            let value = tag
                .trim()
                .strip_prefix("args.")
                .and_then(|name| self.0.get(name))
                .ok_or_else(|| ArgsError::Unknown { tag: tag.to_owned() })?;
            resolved.push_str(before);
            resolved.push_str(value);
            rest = after;
        }
        resolved.push_str(rest);
        Ok(resolved)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::analysis::{ArgumentSource, SecretKeyRef};

    fn metric(json: Value) -> Metric {
        serde_json::from_value(json).unwrap()
    }

    fn value(name: &str, value: &str) -> Argument {
        Argument { name: name.into(), value: Some(value.into()), value_from: None }
    }

    fn secret(name: &str) -> (Argument, SecretKeyRef) {
        let reference = SecretKeyRef { name: "keys".into(), key: name.into() };
        let from = ArgumentSource { secret_key_ref: Some(reference.clone()), field_ref: None };
        (Argument { name: name.into(), value: None, value_from: Some(from) }, reference)
    }

    #[test]
    fn every_text_of_a_metric_can_hold_arguments() {
        let values = Values::without_secrets(&[value("a", "x\"\n\\"), value("n", "5"), value("empty", "")]).unwrap();
        let resolved = values
            .resolve(&metric(json!({
                "name": "m-{{args.n}}",
                "count": "{{args.n}}",
                "interval": "{{ args.n }}s",
                "successCondition": "result == '{{args.a}}{{args.empty}}'",
                "provider": {"web": {"url": "http://{{args.a}}", "jsonBody": {"{{args.n}}": ["{{args.n}}", 1, null]}}},
            })))
            .unwrap();
        assert_eq!(
            serde_json::to_value(resolved).unwrap(),
            serde_json::to_value(metric(json!({
                "name": "m-5",
                "count": "5",
                "interval": "5s",
                "successCondition": "result == 'x\"\n\\'",
                "provider": {"web": {"url": "http://x\"\n\\", "jsonBody": {"5": ["5", 1, null]}}},
            })))
            .unwrap()
        );
    }

    #[test]
    fn a_value_is_not_searched_for_arguments_again() {
        let values = Values::without_secrets(&[value("a", "{{args.b}}"), value("b", "no")]).unwrap();
        assert_eq!(values.resolve_text("{{args.a}}").unwrap(), "{{args.b}}");
    }

    #[test]
    fn what_cannot_be_resolved_is_named() {
        let values = Values::without_secrets(&[value("a", "1")]).unwrap();
        for (text, message) in [
            ("{{args.b}}", "failed to resolve {{args.b}}"),
            ("{{ args.b }}", "failed to resolve {{ args.b }}"),
            ("{{inputs.a}}", "failed to resolve {{inputs.a}}"),
            ("{{}}", "failed to resolve {{}}"),
            ("x{{args.a", "`{{` without `}}` in `x{{args.a`"),
        ] {
            assert_eq!(values.resolve_text(text).unwrap_err().to_string(), message);
        }
        let missing = Argument { name: "b".into(), ..Argument::default() };
        let error = Values::without_secrets(&[missing]).err().unwrap();
        assert_eq!(error.to_string(), "argument \"b\" was not supplied");
    }

    #[test]
    fn secrets_are_read_only_where_asked_for() {
        let (argument, reference) = secret("token");
        let args = [argument];
        assert_eq!(Values::without_secrets(&args).unwrap().resolve_text("{{args.token}}").unwrap(), "temp-for-secret");

        let mut secrets = Secrets::default();
        let error = Values::with_secrets(&args, &secrets).err().unwrap().to_string();
        assert_eq!(error, "secret 'keys' of argument \"token\": it was not read");
        secrets.insert(&reference, Err("key 'token' does not exist in secret 'keys'".into()));
        let error = Values::with_secrets(&args, &secrets).err().unwrap().to_string();
        assert!(error.ends_with("key 'token' does not exist in secret 'keys'"), "{error}");
        secrets.insert(&reference, Ok("s3cret".into()));
        assert_eq!(Values::with_secrets(&args, &secrets).unwrap().resolve_text("{{args.token}}").unwrap(), "s3cret");
    }
}
