//! The recordings of what Go answers, for the tests of the two languages that are Go's.

use std::io::Write as _;
use std::process::{Command, Stdio};

/// One line of a recording: two inputs, the outcome, and the message of an error.
#[derive(Debug)]
pub(crate) struct Case<'a> {
    pub(crate) source: &'a str,
    pub(crate) input: &'a str,
    pub(crate) outcome: &'a str,
    pub(crate) message: &'a str,
}

pub(crate) fn cases(recording: &str) -> impl Iterator<Item = Case<'_>> {
    recording.lines().filter(|line| !line.is_empty() && !line.starts_with("# ")).map(|line| {
        match line.split('\t').collect::<Vec<_>>()[..] {
            [source, input, outcome, message] => Case { source, input, outcome, message },
            _ => panic!("a case has four fields: {line}"),
        }
    })
}

/// Feeds a recording to the oracle and expects it back unchanged. Where Go is absent this says so and checks nothing.
pub(crate) fn assert_up_to_date(language: &str, recording: &str) {
    let Some(answers) = ask(language, recording) else { return };
    for (recorded, now) in recording.lines().zip(answers.lines()) {
        assert_eq!(recorded, now, "the recording differs from what Go answers");
    }
    assert_eq!(recording.lines().count(), answers.lines().count());
}

/// The recording with Go's answers, or nothing where Go is absent, which is said.
pub(crate) fn ask(language: &str, recording: &str) -> Option<String> {
    let child = Command::new("go")
        .args(["run", ".", language])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/oracle"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            // Not through the print macros: the harness swallows what a passing test prints with them.
            let _ = writeln!(std::io::stderr(), "not run: the {language} oracle, since Go is absent ({error})");
            return None;
        }
    };
    let mut stdin = child.stdin.take().unwrap();
    let input = recording.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the oracle failed");
    writer.join().unwrap().unwrap();
    Some(String::from_utf8(output.stdout).unwrap())
}
