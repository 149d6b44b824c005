//! From the text of a scenario to its steps.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::step::Action;

/// A scenario as it was written.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub file: PathBuf,
    /// The file's name without its extension, and the variant; also the namespace that it runs in.
    pub name: String,
    pub title: String,
    /// Whether it runs on the real cluster as well.
    pub real: bool,
    /// Whether it runs alone on the real cluster.
    pub alone: bool,
    /// What stands in the place of `${VARIANT}`, if the scenario has variants.
    pub variant: Option<String>,
    /// How many times shorter durations are on the real cluster.
    pub pace: u32,
    /// The Rollout that the steps are about.
    pub rollout: String,
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Clone, Debug)]
pub struct Step {
    /// The line in the file, counted from 1.
    pub line: usize,
    /// As it was written, without what is indented below it.
    pub text: String,
    pub action: Action,
}

impl Scenario {
    /// Reads a file: one scenario, or one for each of its variants.
    ///
    /// # Errors
    /// It cannot be read, or is not a scenario; the line is named.
    pub fn read(file: &Path) -> Result<Vec<Self>> {
        let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        let variants = text.lines().find_map(|line| line.strip_prefix("variants: "));
        let parse = |variant| Self::parse(file, &text, variant).with_context(|| format!("in {}", file.display()));
        match variants {
            Some(variants) => variants.split(", ").map(|variant| parse(Some(variant))).collect(),
            None => Ok(vec![parse(None)?]),
        }
    }

    fn parse(file: &Path, text: &str, variant: Option<&str>) -> Result<Self> {
        let name = file.file_stem().and_then(|stem| stem.to_str()).context("a file without a name")?;
        // A namespace has no dots in its name.
        let name = variant.map_or(name.to_owned(), |variant| format!("{name}-{}", variant.replace('.', "-")));
        let filled_in = |text: &str| variant.map_or(text.to_owned(), |variant| text.replace("${VARIANT}", variant));
        let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line)).peekable();
        let title = lines.next().and_then(|(_, line)| line.strip_prefix("# "));
        let title = title.context("the first line is not a title (`# …`)")?.to_owned();
        let mut scenario = Self {
            file: file.to_owned(),
            name,
            title,
            real: false,
            alone: false,
            variant: variant.map(str::to_owned),
            pace: 1,
            rollout: "web".to_owned(),
            steps: Vec::new(),
        };
        while let Some((number, line)) = lines.next() {
            let Some(text) = line.strip_prefix("- ") else {
                scenario.header(line).with_context(|| format!("line {number}"))?;
                continue;
            };
            let mut block = Vec::new();
            while let Some((_, below)) = lines.next_if(|(_, below)| below.starts_with("  ") || below.is_empty()) {
                block.push(below);
            }
            let block = filled_in(&dedent(&block));
            let action = Action::parse(&filled_in(text), &block).with_context(|| format!("line {number}: {line}"))?;
            scenario.steps.push(Step { line: number, text: text.to_owned(), action });
        }
        ensure!(!scenario.steps.is_empty(), "there are no steps");
        Ok(scenario)
    }

    /// Takes a header line in; prose is left alone.
    fn header(&mut self, line: &str) -> Result<()> {
        let Some((key, value)) = line.split_once(": ") else { return Ok(()) };
        match key {
            "worlds" => match value {
                "sandbox" => self.real = false,
                "sandbox, real" => self.real = true,
                _ => bail!("{value:?} is neither \"sandbox\" nor \"sandbox, real\""),
            },
            "alone" => self.alone = value == "yes",
            "pace" => self.pace = value.parse().ok().filter(|pace| *pace > 0).context("pace is a positive number")?,
            "rollout" => self.rollout = value.to_owned(),
            _ => {}
        }
        Ok(())
    }
}

/// Takes the common indentation away.
fn dedent(lines: &[&str]) -> String {
    let indentation = |line: &&str| line.len() - line.trim_start().len();
    let common = lines.iter().filter(|line| !line.trim().is_empty()).map(indentation).min().unwrap_or(0);
    let mut text: Vec<&str> = lines.iter().map(|line| line.get(common..).unwrap_or_default()).collect();
    while text.last().is_some_and(|line| line.is_empty()) {
        text.pop();
    }
    text.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# A title\n\nSome prose: and more.\n\nworlds: sandbox, real\npace: 60\n\n- apply\n    a: 1\n\n    b: 2\n\nProse.\n- abort\n";

    #[test]
    fn steps_stand_between_prose() {
        let scenario = Scenario::parse(Path::new("x/some-name.scenario"), TEXT, None).unwrap();
        assert_eq!((scenario.name.as_str(), scenario.title.as_str()), ("some-name", "A title"));
        assert_eq!((scenario.real, scenario.pace), (true, 60));
        let steps: Vec<_> = scenario.steps.iter().map(|step| (step.line, step.action.clone())).collect();
        assert_eq!(steps, [(8, Action::Apply("a: 1\n\nb: 2".to_owned())), (14, Action::Abort)]);
    }

    #[test]
    fn what_is_not_understood_is_named_with_its_line() {
        let error = Scenario::parse(Path::new("x"), "# T\n\n- abort it\n", None).unwrap_err();
        assert_eq!(format!("{error:#}"), "line 3: - abort it: \"it\" was not expected");
        let error = Scenario::parse(Path::new("x"), "# T\n- wait until phase is Healthy\n", None).unwrap_err();
        assert_eq!(format!("{error:#}"), "line 2: - wait until phase is Healthy: \"within\" was expected before \"\"");
    }
}
