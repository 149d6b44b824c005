//! Secret values: where a run gets them, and how they are kept out of everything that is written.

use std::collections::BTreeMap;
use std::fmt;

use crate::api::analysis::SecretKeyRef;

/// The values of the Secret keys that a run's arguments refer to, read live from the run's namespace.
///
/// They exist in memory only, for one decision. Neither `Debug` nor any other way of printing shows them.
#[derive(Clone, Default)]
pub struct Secrets(BTreeMap<(String, String), Result<String, String>>);

impl Secrets {
    /// Adds what was read for a reference: the value, or why there is none, in words that hold no secret.
    pub fn insert(&mut self, reference: &SecretKeyRef, value: Result<String, String>) {
        self.0.insert((reference.name.clone(), reference.key.clone()), value);
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Replaces secret values by `*****`.
#[derive(Clone, Default)]
pub struct Redactor(Vec<String>);

impl Redactor {
    pub fn redact(&self, _text: &str) -> String {
        todo!()
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} secrets)", self.0.len())
    }
}
