//! Reading the words of a step, one after the other.

use anyhow::{Context, Result, bail};
use jiff::SignedDuration;
use std::time::Duration;
use tidegate::api::duration::GoDuration;

/// The words that have not been read yet. A text in double quotes is one word.
#[derive(Clone, Debug)]
pub struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { rest: text.trim() }
    }

    /// The next word, if there is one.
    pub fn optional(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() {
            return None;
        }
        let quoted = self.rest.strip_prefix('"').and_then(|rest| rest.split_once('"'));
        let (word, rest) = quoted.unwrap_or_else(|| self.rest.split_once(' ').unwrap_or((self.rest, "")));
        self.rest = rest.trim_start();
        Some(word)
    }

    /// The next word.
    ///
    /// # Errors
    /// There is none; `what` says what it should have been.
    pub fn word(&mut self, what: &str) -> Result<&'a str> {
        self.optional().with_context(|| format!("{what} is missing"))
    }

    /// Takes these words if they come next.
    pub fn take(&mut self, words: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(words) else { return false };
        if !rest.is_empty() && !rest.starts_with(' ') {
            return false;
        }
        self.rest = rest.trim_start();
        true
    }

    /// Takes these words.
    ///
    /// # Errors
    /// Others come next.
    pub fn expect(&mut self, words: &str) -> Result<()> {
        if self.take(words) { Ok(()) } else { bail!("{words:?} was expected before {:?}", self.rest) }
    }

    /// The next word as a number.
    ///
    /// # Errors
    /// It is none.
    pub fn number(&mut self) -> Result<i64> {
        let word = self.word("a number")?;
        word.parse().with_context(|| format!("{word:?} is not a number"))
    }

    /// The next word as a duration.
    ///
    /// # Errors
    /// It is none.
    pub fn duration(&mut self) -> Result<Duration> {
        let word = self.word("a duration")?;
        duration(word)
    }

    /// # Errors
    /// There are further words.
    pub fn end(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { bail!("{:?} was not expected", self.rest) }
    }
}

/// A duration as Kubernetes users write it, such as `1m30s`.
///
/// # Errors
/// It is none, or negative.
pub fn duration(text: &str) -> Result<Duration> {
    let parsed: GoDuration = text.parse().map_err(|error| anyhow::anyhow!("{text:?} is not a duration: {error}"))?;
    Duration::try_from(SignedDuration::from(parsed)).with_context(|| format!("{text:?} is negative"))
}
