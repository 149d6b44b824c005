use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::analysis::expr::oracle::{assert_up_to_date, cases};

const CASES: &str = include_str!("cases.tsv");

/// Go prints what stands before this, here its type is told.
const NOT_FILTERED: &str = " is not array or slice and cannot be filtered";

fn answer(path: &str, document: &str) -> Result<Value, JsonPathError> {
    let document: Value = serde_json::from_str(document).unwrap();
    let found = JsonPath::parse(path)?.find(&document)?;
    Ok(found.into_iter().map(|set| set.into_iter().map(Cow::into_owned).collect::<Value>()).collect())
}

#[test]
fn finds_what_go_finds() {
    let mut wrong = Vec::new();
    for case in cases(CASES) {
        let found = answer(case.source, case.input);
        let same = match &found {
            Ok(found) => serde_json::from_str::<Value>(case.outcome).is_ok_and(|recorded| recorded == *found),
            Err(JsonPathError::Find(message)) if case.message.ends_with(NOT_FILTERED) => {
                message.ends_with(NOT_FILTERED)
            }
            Err(error) => case.outcome == "error" && error.to_string() == case.message,
        };
        // Go's panic on a document that is null is no example to follow.
        let same = same || case.message.starts_with("panic: ");
        if !same {
            wrong.push(format!(
                "{} in {}\n    Go:   {} {}\n    here: {found:?}",
                case.source, case.input, case.outcome, case.message
            ));
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

/// The recording itself is what Go answers today.
#[test]
fn the_recording_is_up_to_date() {
    assert_up_to_date("jsonpath", CASES);
}

#[test]
fn members_come_in_the_order_of_their_names() {
    let found = answer("{.*}", r#"{"b": 2, "a": 1}"#);
    assert_eq!(found, Ok(json!([[1, 2]])));
}

#[test]
fn large_paths_and_results_are_refused() {
    let document = format!("{}{}", "[".repeat(60), "]".repeat(60));
    let limited = |path: &str| {
        let start = Instant::now();
        let found = answer(path, &document);
        assert!(matches!(found, Err(JsonPathError::Limit(_))), "{path:.40}: {found:?}");
        assert!(start.elapsed() < Duration::from_secs(10), "{path:.40}");
    };
    limited(&"{.a}".repeat(10_000));
    limited(&format!("{}{}", "{range}".repeat(100), "{end}".repeat(100)));
    limited(&format!("{{{}}}", "[*,*,*]".repeat(50)));
    limited(&format!("{}{{$}}", "{range [*,*,*]}".repeat(30)));
}

#[test]
fn nested_filters_are_limited() {
    let nested = format!("{{{}'a'{}}}", "[?(".repeat(1000), ")]".repeat(1000));
    assert!(JsonPath::parse(&nested).is_err());
    let quoted = format!("{{{}@.a{}}}", "[?(\")]\"".repeat(1000), ")]".repeat(1000));
    assert!(JsonPath::parse(&quoted).is_err());
}

const TOKENS: &[&str] = &[
    "{",
    "}",
    "{",
    "}",
    "{.a}",
    "{range .a[*]}",
    "{end}",
    "$",
    "@",
    ".",
    "..",
    "*",
    "a",
    "b",
    "x",
    "[",
    "]",
    "[0]",
    "[-1]",
    "[*]",
    "[0:2]",
    "[::2]",
    "[?(",
    ")]",
    "==",
    "!=",
    "<",
    ">",
    "=",
    "'a'",
    "\"b\"",
    "'",
    "\"",
    "\\",
    ",",
    ":",
    " ",
    "1",
    "1.5",
    "-2",
    "true",
    "é",
    "\n",
    "['a']",
    "['a','b']",
    "[?(@.x == 'y')]",
    "[?(@.x)]",
    "text",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_soup_of_tokens_panics(tokens in proptest::collection::vec(proptest::sample::select(TOKENS), 0..30)) {
        let document = json!({"a": [{"x": "y"}, {"x": 1}, "é", null, [1, 2, [3]]], "b": {"a": {"b": true}}});
        let source = tokens.concat();
        let start = Instant::now();
        let _ = answer(&source, &document.to_string());
        prop_assert!(start.elapsed() < Duration::from_secs(10), "{}", source);
    }

    #[test]
    fn no_text_panics(source in "\\PC{0,40}") {
        let _ = answer(&format!("{{{source}}}"), r#"{"a": [1]}"#);
    }
}
