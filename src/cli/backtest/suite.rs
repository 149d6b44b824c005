//! Recorded incidents as tests of a template: no Prometheus is needed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use serde::Serialize;

use super::history::History;
use super::recording::Incident;
use super::replay::{Run, replay};
use super::subject::{Choice, Subject};
use super::text::aligned;
use crate::cli::screen::{DIM, GREEN, RED, painted};
use crate::cli::units::{plural, span};

/// What became of all incidents.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Suite {
    /// Of this form: 1.
    pub version: u32,
    pub incidents: Vec<Case>,
}

/// One incident.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Case {
    pub name: String,
    pub expect: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within_seconds: Option<f64>,
    /// The template of `--filename`, then that of `--against`.
    pub tested: Vec<Outcome>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    pub template: String,
    pub ok: bool,
    /// None when it could not be tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// What was wrong, or what the run said.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// The files of a folder, in the order of their names.
///
/// # Errors
/// There are none.
pub fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let shown = folder.display();
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {shown}"))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {shown}"))?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    if files.is_empty() {
        bail!("there is no incident in {shown}: record one by tidegate incident record");
    }
    files.sort();
    Ok(files)
}

/// Tries each choice on each incident. Must be called where it may block.
///
/// # Errors
/// A file is no incident.
pub fn run(files: &[PathBuf], choices: &[Choice]) -> anyhow::Result<Suite> {
    let mut incidents = Vec::new();
    for file in files {
        let incident = Incident::read(file)?;
        let history = Arc::new(incident.history().with_context(|| file.display().to_string())?);
        incidents.push(Case {
            name: incident.name.clone(),
            expect: incident.expect.clone(),
            within_seconds: incident.within_seconds,
            tested: choices.iter().map(|choice| outcome(&incident, &history, choice)).collect(),
        });
    }
    Ok(Suite { version: 1, incidents })
}

fn outcome(incident: &Incident, history: &Arc<History>, choice: &Choice) -> Outcome {
    // Those of the incident are there, and whoever gives some knows better.
    let mut arguments: BTreeMap<String, String> = incident.arguments.clone();
    arguments.extend(choice.arguments.iter().cloned());
    let choice = Choice { arguments: arguments.into_iter().collect(), ..choice.clone() };
    let not_tried = |template: String, error: anyhow::Error| Outcome {
        template,
        ok: false,
        phase: None,
        seconds: None,
        message: format!("{error:#}"),
    };
    let subject = match Subject::read(&choice) {
        Ok(subject) => subject,
        // It may be the incident of an analysis with other arguments.
        Err(error) => return not_tried(incident.template.clone(), error),
    };
    let run = match once(&subject, history, incident) {
        Ok(run) => run,
        Err(error) => return not_tried(subject.name, error),
    };
    let seconds = run.seconds();
    let late = incident.within_seconds.filter(|within| seconds > *within);
    let as_expected = run.phase.as_str() == incident.expect;
    let message = match (as_expected, late) {
        (true, Some(within)) => format!("it took {}, and not at most {}", span(seconds), span(within)),
        (true, None) => run.message.clone(),
        (false, _) if run.message.is_empty() => format!("expected {}", incident.expect),
        (false, _) => format!("expected {}: {}", incident.expect, run.message),
    };
    let ok = as_expected && late.is_none();
    Outcome { template: subject.name, ok, phase: Some(run.phase.as_str()), seconds: Some(seconds), message }
}

/// The run that begins when the incident does, and ends with it at the latest.
pub fn once(subject: &Subject, history: &Arc<History>, incident: &Incident) -> anyhow::Result<Run> {
    subject.answerable(history, incident.from)?;
    let lasts = incident.to.duration_since(incident.from);
    let runs = replay(subject, history, &[incident.from], lasts, &|_| {}).context("no runtime")?;
    runs.into_iter().next().context("the run has no end")
}

impl Suite {
    /// Whether the template that is tried does with every incident what it should.
    pub fn passed(&self) -> bool {
        self.incidents.iter().all(|case| case.tested.first().is_some_and(|outcome| outcome.ok))
    }

    pub fn text(&self, color: bool) -> String {
        let head = ["INCIDENT", "TEMPLATE", "EXPECTED", "VERDICT", "AFTER", ""].map(str::to_owned).to_vec();
        let mut rows = vec![head];
        let mut ends = vec![None];
        for case in &self.incidents {
            for (index, outcome) in case.tested.iter().enumerate() {
                rows.push(vec![
                    if index == 0 { case.name.clone() } else { String::new() },
                    outcome.template.clone(),
                    case.expect.clone(),
                    outcome.phase.unwrap_or("not tried").to_owned(),
                    outcome.seconds.map_or_else(|| "-".to_owned(), span),
                    if outcome.ok { "ok" } else { "NOT OK" }.to_owned(),
                ]);
                ends.push(Some((outcome.ok, outcome.message.as_str())));
            }
        }
        let mut text = String::new();
        for (line, end) in aligned(&rows).into_iter().zip(ends) {
            match end {
                None => text.push_str(&painted(color, DIM, &line)),
                Some((ok, message)) => {
                    let (word, code) = if ok { ("ok", GREEN) } else { ("NOT OK", RED) };
                    // It stands at the end of its line.
                    text.push_str(&format!(
                        "{}{}",
                        line.strip_suffix(word).unwrap_or(&line),
                        painted(color, code, word)
                    ));
                    if !ok {
                        text.push_str(&format!("\n  {message}"));
                    }
                }
            }
            text.push('\n');
        }
        let wrong = self.incidents.iter().filter(|case| !case.tested.first().is_some_and(|it| it.ok)).count();
        text.push_str(&format!("\n{}, {wrong} not as expected\n", plural(self.incidents.len(), "incident")));
        text
    }

    /// In the form that CI systems read.
    pub fn junit(&self) -> String {
        let outcomes = || self.incidents.iter().flat_map(|case| case.tested.iter().map(move |outcome| (case, outcome)));
        let (tests, errors) = (outcomes().count(), outcomes().filter(|(_, it)| it.phase.is_none()).count());
        let failures = outcomes().filter(|(_, it)| !it.ok).count() - errors;
        let mut xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned();
        let counts = format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\"");
        xml.push_str(&format!("<testsuites {counts}>\n  <testsuite name=\"tidegate backtest\" {counts}>\n"));
        for (case, outcome) in outcomes() {
            let (name, template) = (escaped(&case.name), escaped(&outcome.template));
            xml.push_str(&format!("    <testcase name=\"{name}\" classname=\"{template}\""));
            if outcome.ok {
                xml.push_str("/>\n");
                continue;
            }
            let (tag, phase) = outcome.phase.map_or(("error", "not tried"), |phase| ("failure", phase));
            let message = escaped(&outcome.message);
            xml.push_str(&format!(">\n      <{tag} type=\"{phase}\" message=\"{message}\"/>\n    </testcase>\n"));
        }
        xml.push_str("  </testsuite>\n</testsuites>\n");
        xml
    }
}

/// A text within an attribute. What XML cannot hold at all is left out.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            '\t' => escaped.push_str("&#9;"),
            '\u{fffe}' | '\u{ffff}' => {}
            character if character.is_control() => {}
            character => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suite() -> Suite {
        let outcome = |ok: bool, phase: Option<&'static str>, message: &str| Outcome {
            template: "rate & co".to_owned(),
            ok,
            phase,
            seconds: phase.map(|_| 90.0),
            message: message.to_owned(),
        };
        let case = |name: &str, outcome| Case {
            name: name.to_owned(),
            expect: "Failed".to_owned(),
            within_seconds: None,
            tested: vec![outcome],
        };
        let incidents = vec![
            case("outage", outcome(true, Some("Failed"), "fell")),
            case("slow", outcome(false, Some("Successful"), "expected \"Failed\"\u{7} <now>\nat once")),
            case("old", outcome(false, None, "no series")),
        ];
        Suite { version: 1, incidents }
    }

    #[test]
    fn a_suite_passes_if_every_incident_does() {
        assert!(!suite().passed());
        assert!(Suite { incidents: suite().incidents[..1].to_vec(), version: 1 }.passed());
        let text = suite().text(false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "outage    rate & co  Failed    Failed      1 min 30 s  ok");
        assert_eq!(lines.last(), Some(&"3 incidents, 2 not as expected"), "{text}");
    }

    #[test]
    fn junit_is_whole_xml() {
        let xml = suite().junit();
        assert!(
            xml.contains("<testsuite name=\"tidegate backtest\" tests=\"3\" failures=\"1\" errors=\"1\">"),
            "{xml}"
        );
        assert!(xml.contains("<testcase name=\"outage\" classname=\"rate &amp; co\"/>"), "{xml}");
        let failure = "<failure type=\"Successful\" message=\"expected &quot;Failed&quot; &lt;now&gt;&#10;at once\"/>";
        assert!(xml.contains(failure) && xml.contains("<error type=\"not tried\" message=\"no series\"/>"), "{xml}");
        // Every tag that is opened is closed, in order.
        let tag = regex::Regex::new("<(/?)([a-z]+)((?: [a-z]+=\"[^\"<>]*\")*)(/?)>").unwrap();
        let mut open = Vec::new();
        let mut rest = xml.strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n").unwrap().to_owned();
        while let Some(found) = tag.captures(rest.trim_start()) {
            match (&found[1], &found[4]) {
                ("/", "") => assert_eq!(open.pop(), Some(found[2].to_owned())),
                ("", "") => open.push(found[2].to_owned()),
                ("", "/") => {}
                _ => panic!("{}", &found[0]),
            }
            rest = rest.trim_start()[found[0].len()..].to_owned();
        }
        assert!(open.is_empty() && rest.trim().is_empty(), "{open:?} {rest}");
    }
}
