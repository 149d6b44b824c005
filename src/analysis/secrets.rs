//! Secret values: where a run gets them, and how they are kept out of everything that is written.

use std::collections::BTreeMap;
use std::fmt;

use crate::api::analysis::SecretKeyRef;

/// The values of the Secret keys that a run's arguments refer to, read live from the run's namespace.
///
/// They exist in memory only, for one decision. Neither `Debug` nor any other way of printing shows them.
#[derive(Clone, Default)]
pub struct Secrets(BTreeMap<(String, String), Result<String, String>>);

/// Replaces secret values by `*****`.
#[derive(Clone, Default)]
pub struct Redactor {
    /// Longest first, so that no part of a value stays when another is contained in it.
    hidden: Vec<String>,
}

impl Secrets {
    /// Adds what was read for a reference: the value, or why there is none, in words that hold no secret.
    ///
    /// An error makes the run end with phase Error, as Argo Rollouts has it. A caller that expects to read the Secret
    /// in a moment tries again instead.
    pub fn insert(&mut self, reference: &SecretKeyRef, value: Result<String, String>) {
        self.0.insert((reference.name.clone(), reference.key.clone()), value);
    }

    pub(super) fn value(&self, reference: &SecretKeyRef) -> Result<&str, String> {
        match self.0.get(&(reference.name.clone(), reference.key.clone())) {
            Some(Ok(value)) => Ok(value),
            Some(Err(problem)) => Err(problem.clone()),
            None => Err("it was not read".to_owned()),
        }
    }

    pub(super) fn redactor(&self) -> Redactor {
        Redactor::new(self.0.values().flatten().map(String::as_str))
    }
}

impl Redactor {
    /// Hides these values, also where they are trimmed, escaped as in JSON or percent-encoded as in a URL.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut hidden: Vec<String> = values
            .into_iter()
            .flat_map(|value| {
                let json = serde_json::Value::from(value).to_string();
                let json = json[1..json.len() - 1].to_owned();
                [value.to_owned(), value.trim().to_owned(), json, percent_encoded(value)]
            })
            .filter(|value| !value.is_empty())
            .collect();
        hidden.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        hidden.dedup();
        Self { hidden }
    }

    pub fn redact(&self, text: &str) -> String {
        self.hidden.iter().fold(text.to_owned(), |text, secret| {
            if text.contains(secret) { text.replace(secret, "*****") } else { text }
        })
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} values)", self.hidden.len())
    }
}

fn percent_encoded(value: &str) -> String {
    value.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_hidden_however_it_is_written() {
        let redactor = Redactor::new(["p@ss \"word\"\n", "", "p@ss"]);
        for (text, redacted) in [
            ("no secret", "no secret"),
            ("p@ss \"word\"\n!", "*****!"),
            ("with key p@ss \"word\" refused", "with key ***** refused"),
            (r#"{"key":"p@ss \"word\"\n"}"#, r#"{"key":"*****"}"#),
            ("http://x/?k=p%40ss%20%22word%22%0A&a=1", "http://x/?k=*****&a=1"),
            ("p@ss p@ss", "***** *****"),
        ] {
            assert_eq!(redactor.redact(text), redacted);
        }
    }

    #[test]
    fn printing_shows_no_secret() {
        let mut secrets = Secrets::default();
        secrets.insert(&SecretKeyRef { name: "keys".into(), key: "token".into() }, Ok("s3cret".into()));
        let shown = format!("{secrets:?} {:?}", secrets.redactor());
        assert!(shown.contains("token") && !shown.contains("s3cret"), "{shown}");
    }
}
