//! The recording of what Go answers, and what no recording can show: limits, and that nothing panics.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

const CASES: &str = include_str!("cases.tsv");

/// Cases whose message is in other words than Go's, by their condition.
const OTHER_WORDS: &[&str] = &[
    // The regular expressions' own messages.
    "result matches \"(\"",
    "result matches \"(?=a)\"",
    "result.a matches result.b",
    // The depth is met before the number of nodes.
    "@11000*!@true",
];

/// Cases whose outcome differs on purpose.
const OTHER_OUTCOMES: &[&str] = &[
    // Go has no limit of depth.
    "@5000*(@true@5000*)@",
];

#[derive(Debug)]
struct Case<'a> {
    condition: &'a str,
    result: &'a str,
    outcome: &'a str,
    message: &'a str,
}

fn cases() -> Vec<Case<'static>> {
    CASES
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("# "))
        .map(|line| match line.split('\t').collect::<Vec<_>>()[..] {
            [condition, result, outcome, message] => Case { condition, result, outcome, message },
            _ => panic!("a case has four fields: {line}"),
        })
        .collect()
}

/// `@3*ab@` is ababab.
fn repeated(text: &str) -> String {
    let parts: Vec<&str> = text.split('@').collect();
    let expand = |(position, part): (usize, &&str)| match (position % 2, part.split_once('*')) {
        (1, Some((count, what))) => count.parse().ok().map(|count| what.repeat(count)),
        (1, None) => None,
        _ => Some((*part).to_owned()),
    };
    parts.iter().enumerate().map(expand).collect::<Option<String>>().unwrap_or_else(|| text.to_owned())
}

fn result(given: &str) -> Value {
    match given.split_once(' ').unwrap_or((given, "")) {
        ("float", float) => Value::Float(float.parse().unwrap()),
        ("floats", floats) => Value::floats(floats.split_whitespace().map(|float| float.parse().unwrap())),
        _ => Value::from(serde_json::from_str::<serde_json::Value>(given).unwrap()),
    }
}

fn noon() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn answer(case: &Case<'_>) -> (String, String) {
    let condition = repeated(&case.condition.replace('␤', "\n"));
    let outcome = match case.result {
        "time" => evaluate_time(&condition, noon()).map(|time| time.to_string()),
        given => evaluate(&condition, &result(given), noon()).map(|bool| bool.to_string()),
    };
    match outcome {
        Ok(outcome) => (outcome, String::new()),
        Err(error) => ("error".into(), error.to_string().lines().next().unwrap_or_default().to_owned()),
    }
}

#[test]
fn answers_as_go_does() {
    let mut wrong = Vec::new();
    for case in cases() {
        let (outcome, message) = answer(&case);
        let same_outcome = outcome == case.outcome;
        let same_words = message == case.message;
        let as_listed = same_outcome != OTHER_OUTCOMES.contains(&case.condition)
            && (same_words || !same_outcome || OTHER_WORDS.contains(&case.condition));
        if !as_listed {
            wrong.push(format!(
                "{} with {}\n    Go:   {} {}\n    here: {outcome} {message}",
                case.condition, case.result, case.outcome, case.message
            ));
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

/// The recording itself is what Go answers today.
#[test]
fn the_recording_is_up_to_date() {
    crate::analysis::expr::tests::assert_recording("expr", CASES);
}

/// Feeds a recording to the oracle and expects it back unchanged. Where Go is absent this says so and checks nothing.
pub(crate) fn assert_recording(language: &str, recording: &str) {
    let oracle = concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/oracle");
    let child = Command::new("go")
        .args(["run", ".", language])
        .current_dir(oracle)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            // Straight to the terminal: the harness swallows what a passing test prints.
            let _ = writeln!(std::io::stderr(), "not run: the {language} oracle, since Go is absent ({error})");
            return;
        }
    };
    let mut stdin = child.stdin.take().unwrap();
    let input = recording.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "the oracle failed");
    let answers = String::from_utf8(output.stdout).unwrap();
    for (recorded, now) in recording.lines().zip(answers.lines()) {
        assert_eq!(recorded, now, "the recording differs from what Go answers");
    }
    assert_eq!(recording.lines().count(), answers.lines().count());
}

#[test]
fn now_is_given_and_not_read() {
    assert_eq!(evaluate_time("now()", noon()), Ok(noon()));
    assert_eq!(
        evaluate_time("now() - duration(\"1h\")", noon()).map(|time| time.to_string()).unwrap(),
        "2026-11-21T11:00:00Z"
    );
    assert_eq!(evaluate("now() == now()", &Value::Nil, noon()), Ok(true));
    assert_eq!(evaluate("string(now()) == '2026-11-21 12:00:00 +0000 UTC'", &Value::Nil, noon()), Ok(true));
}

#[test]
fn an_error_points_to_its_place() {
    let error = evaluate("true &&\n  result > 'x'", &Value::Float(5.0), noon()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Type);
    assert_eq!(error.message, "invalid operation: > (mismatched types float64 and string)");
    assert_eq!(
        error.to_string(),
        "invalid operation: > (mismatched types float64 and string) (2:10)\n |   result > 'x'\n | .........^"
    );
}

#[test]
fn nesting_is_limited_where_go_has_no_limit() {
    for (open, close) in
        [("(", ")"), ("[", "]"), ("!", ""), ("-", ""), ("len([", "])"), ("{a: ", "}"), ("1 ? 2 : ", "")]
    {
        let nested = format!("{}1{}", open.repeat(100_000 / open.len()), close.repeat(100_000 / open.len()));
        let error = evaluate(&nested, &Value::Nil, noon()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Limit, "{open}: {error}");
    }
    let parentheses = format!("{}true{}", "(".repeat(100), ")".repeat(100));
    assert_eq!(evaluate(&parentheses, &Value::Nil, noon()), Ok(true));
}

/// Each of these would run for very long, or eat the memory, without a budget.
#[test]
fn expensive_expressions_end_soon() {
    let long: Value = serde_json::json!({"list": vec![1.5; 20_000], "text": "a".repeat(1 << 20)}).into();
    let expensive = [
        "len(1..300000000) > 0",
        "reduce(1..1000, #acc + #acc, 'a') == ''",
        "len(reduce(1..100000, [#acc], 0)) > 0",
        "all(result.list, all(result.list, all(result.list, # > 0)))",
        "len(uniq(map(result.list, # * #index))) > 0",
        "map(1..1000, map(1..900, map(1..900, #)))[0] == nil",
        "all(1..1000, result.text matches 'a*a*a*a*a*a*a*a*b')",
        "all(1..100000, result.text matches string(#) + '(a{50}){20}')",
        "len(replace(result.text, 'a', result.text)) > 0",
        "reduce(1..1000, split(#acc, ''), result.text) == nil",
        "reduce(1..60, toJSON([#acc, #acc]), 'a') == ''",
        "reduce(1..60, {a: #acc, b: #acc}, 'a') == nil",
        "string(reduce(1..60, [#acc, #acc], 'a')) == ''",
        "reduce(1..60, [#acc, #acc], 'a') == reduce(1..60, [#acc, #acc], 'a')",
        "len(flatten(reduce(1..60, [#acc, #acc], 'a'))) > 0",
        "mean(reduce(1..60, [#acc, #acc], 1)) > 0",
        "max(reduce(1..60, [#acc, #acc], 1)) > 0",
        "all(1..100000, result.list == result.list)",
        "all(1..100000, -1 in result.list)",
        "all(1..900000, len(sort(result.list)) > 0)",
        "all(1..900000, len(result.list[1:]) > 0)",
        "all(1..900000, len(take(result.list, 20000)) > 0)",
        "all(1..900000, len(string(result)) > 0)",
        "all(1..900000, upper(result.text) != '')",
        "all(1..900000, len(result.text) > 0)",
        "all(1..900000, trim(result.text) != '')",
        "all(1..900000, indexOf(result.text, 'b') < 0)",
        "all(1..900000, result.text < result.text + 'b')",
        "all(1..900000, mean(result.list) > 0)",
        "all(1..900000, len(fromJSON(toJSON(result.list))) > 0)",
    ];
    for expression in expensive {
        let start = Instant::now();
        let outcome = evaluate(expression, &long, noon());
        let took = start.elapsed();
        assert!(took < Duration::from_secs(20), "{expression} took {took:?}: {outcome:?}");
    }
}

#[test]
fn nested_comparisons_are_checked_once() {
    let mut nested = "1".to_owned();
    for _ in 0..60 {
        nested = format!("0 < int({nested}) < 9 ? 1 : 2");
        nested = format!("({nested})");
    }
    let error = evaluate(&nested, &Value::Nil, noon());
    assert!(error.is_err() || error == Ok(true), "{error:?}");
}

/// Pieces that soups of tokens are made of.
const TOKENS: &[&str] = &[
    "result",
    "result.a",
    "result[0]",
    "#",
    "#acc",
    "#index",
    ".a",
    "?.",
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    ",",
    ";",
    ":",
    "?",
    "??",
    "|",
    "..",
    "+",
    "-",
    "*",
    "/",
    "%",
    "**",
    "^",
    "==",
    "!=",
    "<",
    ">",
    "<=",
    ">=",
    "&&",
    "||",
    "!",
    "and",
    "or",
    "not",
    "in",
    "matches",
    "contains",
    "startsWith",
    "endsWith",
    "let",
    "=",
    "if",
    "else",
    "x",
    "true",
    "false",
    "nil",
    "0",
    "1",
    "-1",
    "2.5",
    "1e9",
    "0x10",
    "9223372036854775807",
    "'a'",
    "\"b\"",
    "`c`",
    "b'd'",
    "'('",
    "''",
    "'1h'",
    "'é'",
    "$env",
    "len(",
    "all(",
    "any(",
    "filter(",
    "map(",
    "reduce(",
    "count(",
    "sum(",
    "sortBy(",
    "groupBy(",
    "find(",
    "string(",
    "int(",
    "float(",
    "split(",
    "replace(",
    "repeat(",
    "join(",
    "toJSON(",
    "fromJSON(",
    "date(",
    "duration(",
    "now()",
    "timezone(",
    "max(",
    "min(",
    "mean(",
    "median(",
    "first(",
    "last(",
    "get(",
    "take(",
    "keys(",
    "values(",
    "toPairs(",
    "fromPairs(",
    "reverse(",
    "uniq(",
    "concat(",
    "flatten(",
    "sort(",
    "bitshl(",
    "bitushr(",
    "asInt(",
    "asFloat(",
    "isNaN(",
    "default(",
    "trim(",
    "upper(",
    "fromBase64(",
    "toBase64(",
    "type(",
    "abs(",
    "round(",
    "1..9",
    "all(result, # ",
    "map(1..3, ",
    ")",
    ")",
    ")",
    "[1, 2]",
    "{a: 1}",
    "['a', 'b']",
    "result.s",
    "/* c */",
    "// d\n",
    "\\",
    "\"",
    "'",
    "@",
    "é",
    "\n",
];

fn soup() -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(TOKENS), 0..40).prop_map(|tokens| tokens.join(" "))
}

/// Calls that are well formed, so that more of them reach the evaluation.
fn call() -> impl Strategy<Value = String> {
    let leaf = proptest::sample::select(vec![
        "result",
        "result.a",
        "result.s",
        "result.l",
        "result.m",
        "#",
        "#index",
        "1",
        "-7",
        "2.5",
        "0",
        "'a'",
        "'é,b'",
        "nil",
        "true",
        "[1, 2]",
        "[]",
        "{a: 1}",
        "now()",
        "duration('1h')",
        "1..4",
        "['b', 'a']",
        "result.none",
        "(0/0)",
        "(1/0)",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(5, 40, 3, |inner| {
        let functions: Vec<&str> =
            TOKENS.iter().copied().filter(|token| token.ends_with('(') && token.len() > 1).collect();
        let operators = vec![
            "+",
            "-",
            "*",
            "/",
            "%",
            "**",
            "==",
            "!=",
            "<",
            ">",
            "<=",
            ">=",
            "&&",
            "||",
            "??",
            "in",
            "not in",
            "matches",
            "contains",
            "startsWith",
            "..",
        ];
        prop_oneof![
            (proptest::sample::select(functions), proptest::collection::vec(inner.clone(), 0..4))
                .prop_map(|(function, arguments)| format!("{function}{})", arguments.join(", "))),
            (inner.clone(), proptest::sample::select(operators), inner.clone())
                .prop_map(|(left, operator, right)| format!("({left} {operator} {right})")),
            (inner.clone(), inner.clone()).prop_map(|(base, index)| format!("({base})[{index}]")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(base, from, to)| format!("({base})[{from}:{to}]")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            (inner.clone(), inner).prop_map(|(value, body)| format!("(let v = {value}; {body})")),
        ]
    })
}

fn soup_result() -> Value {
    let json = serde_json::json!({"a": 5, "s": "héllo", "l": [3, 1.5, "x", null, [2]], "m": {"k": true}});
    json.into()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_soup_of_tokens_panics(source in soup()) {
        let start = Instant::now();
        let _ = evaluate(&source, &soup_result(), noon());
        prop_assert!(start.elapsed() < Duration::from_secs(20), "{}", source);
    }

    #[test]
    fn no_call_panics(source in call()) {
        let start = Instant::now();
        let _ = evaluate(&source, &soup_result(), noon());
        prop_assert!(start.elapsed() < Duration::from_secs(20), "{}", source);
    }

    #[test]
    fn no_text_panics(source in "\\PC{0,60}") {
        let _ = evaluate(&source, &soup_result(), noon());
    }
}
