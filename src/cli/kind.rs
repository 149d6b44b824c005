//! The words that name objects: `NAME`, `KIND NAME`, `KIND/NAME`, and the kinds' short names.

use anyhow::bail;

/// A kind that commands are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Rollout,
    Experiment,
    AnalysisRun,
}

impl Kind {
    /// What users may call it, the name that messages use first.
    pub fn words(self) -> &'static [&'static str] {
        match self {
            Self::Rollout => &["rollout", "rollouts", "ro"],
            Self::Experiment => &["experiment", "experiments", "exp"],
            Self::AnalysisRun => &["analysisrun", "analysisruns", "ar"],
        }
    }

    /// The kind of `word` among those that a command knows.
    pub fn of(word: &str, known: &[Self]) -> Option<Self> {
        known.iter().copied().find(|kind| kind.words().contains(&word))
    }
}

/// The kind and the names in `NAME…`, `KIND NAME…` or `KIND/NAME…`. Without a kind it is `otherwise`; where that is absent,
/// too, a kind is needed. A single word is always a name: a Rollout may be called `rollout`.
pub fn named<'a>(words: &'a [String], known: &[Kind], otherwise: Option<Kind>) -> anyhow::Result<(Kind, Vec<&'a str>)> {
    let first = words.first().map_or("", String::as_str);
    let (kind, names) = match first.split_once('/') {
        Some((word, _)) => (Some(kind(word, known)?), words),
        None => match Kind::of(first, known) {
            Some(found) if words.len() > 1 => (Some(found), &words[1..]),
            _ => (otherwise, words),
        },
    };
    let Some(kind) = kind else {
        bail!("{first:?} is no kind: one of {} is needed, and then names", all(known));
    };
    let name = |word: &'a String| match word.split_once('/') {
        Some((prefix, name)) if kind.words().contains(&prefix) => Ok(name),
        Some((prefix, _)) => bail!("{prefix:?} is not another word for {}", kind.words()[0]),
        None => Ok(word.as_str()),
    };
    Ok((kind, names.iter().map(name).collect::<anyhow::Result<_>>()?))
}

/// The one name of a command that takes one.
pub fn one<'a>(words: &'a [String], known: &[Kind], otherwise: Option<Kind>) -> anyhow::Result<(Kind, &'a str)> {
    match named(words, known, otherwise)? {
        (kind, names) if names.len() == 1 => Ok((kind, names[0])),
        (_, names) if otherwise.is_some() && !names.is_empty() => {
            bail!("{:?} is no kind; known: {}", names[0], all(known))
        }
        _ => bail!("one name is needed"),
    }
}

/// The name of the Rollout in `NAME`, `rollout NAME` or `rollout/NAME`.
pub fn rollout(words: &[String]) -> anyhow::Result<&str> {
    one(words, &[Kind::Rollout], Some(Kind::Rollout)).map(|(_, name)| name)
}

fn kind(word: &str, known: &[Kind]) -> anyhow::Result<Kind> {
    match Kind::of(word, known) {
        Some(kind) => Ok(kind),
        None => bail!("kind {word:?} is not known here; known: {}", all(known)),
    }
}

fn all(kinds: &[Kind]) -> String {
    kinds.iter().map(|kind| kind.words()[0]).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_named_as_users_of_kubectl_name_them() {
        let known = [Kind::Rollout, Kind::Experiment];
        let read = |text: &str, otherwise| {
            let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
            let read = named(&words, &known, otherwise);
            read.map(|(kind, names)| format!("{} {}", kind.words()[0], names.join(" ")))
                .unwrap_or_else(|error| format!("error: {error}"))
        };
        for (text, expected) in [
            ("web", "rollout web"),
            ("rollout", "rollout rollout"),
            ("rollout web", "rollout web"),
            ("ro web api", "rollout web api"),
            ("exp one", "experiment one"),
            ("experiment/one experiment/two", "experiment one two"),
            ("rollout/web", "rollout web"),
            ("rollout/web exp/one", "error: \"exp\" is not another word for rollout"),
            ("service/web", "error: kind \"service\" is not known here; known: rollout, experiment"),
        ] {
            assert_eq!(read(text, Some(Kind::Rollout)), expected);
        }
        assert_eq!(
            read("web", None),
            "error: \"web\" is no kind: one of rollout, experiment is needed, and then names"
        );
        let two = ["service".to_owned(), "web".to_owned()];
        let error = one(&two, &known, Some(Kind::Rollout)).unwrap_err().to_string();
        assert_eq!(error, "\"service\" is no kind; known: rollout, experiment");
    }
}
