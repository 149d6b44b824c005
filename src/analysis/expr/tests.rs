//! The recording of what Go answers, and what no recording can show: limits, and that nothing panics.

mod soup;

use std::fmt::Write as _;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use self::soup::{call, soup, typed};
use super::oracle::{Case, assert_up_to_date, cases};
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
    let condition = repeated(&case.source.replace('␤', "\n"));
    let outcome = match case.input {
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
    for case in cases(CASES) {
        let (outcome, message) = answer(&case);
        let same_outcome = outcome == case.outcome;
        let same_words = message == case.message;
        let as_listed = same_outcome != OTHER_OUTCOMES.contains(&case.source)
            && (same_words || !same_outcome || OTHER_WORDS.contains(&case.source));
        if !as_listed {
            wrong.push(format!(
                "{} with {}\n    Go:   {} {}\n    here: {outcome} {message}",
                case.source, case.input, case.outcome, case.message
            ));
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

/// The recording itself is what Go answers today.
#[test]
fn the_recording_is_up_to_date() {
    assert_up_to_date("expr", CASES);
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
    let parentheses = format!("{}true{}", "(".repeat(90), ")".repeat(90));
    assert_eq!(evaluate(&parentheses, &Value::Nil, noon()), Ok(true));
}

/// At the limit of depth, in half of what a thread has by default.
#[test]
fn the_deepest_expressions_fit_half_a_stack() {
    let nested: [(&str, &str); 12] = [
        ("(", ")"),
        ("[", "][0]"),
        ("map([1], ", ")"),
        ("max(", ", 1)"),
        ("{a: ", "}.a"),
        ("(let v = 1; ", ")"),
        ("(true ? ", " : 0)"),
        ("result?.[", "]"),
        ("1 + (", ")"),
        ("sum([result, result, result, result, ", "])"),
        ("all(result, # > 0) && all(result, ", " > 0)"),
        ("filter(filter(result, # > 0), ", " > 0)"),
    ];
    for (open, close) in nested {
        let deepest = |levels: usize| format!("{}1{}", open.repeat(levels), close.repeat(levels));
        let levels = (1..=MAX_DEPTH).rev().find(|levels| check_syntax(&deepest(*levels)).is_ok()).unwrap();
        assert!(levels > 30, "{open}: {levels}");
        let evaluate = move || evaluate_value(&deepest(levels), &Environment::condition(soup_result(), noon()));
        let _ = std::thread::Builder::new().stack_size(1 << 20).spawn(evaluate).unwrap().join().unwrap();
    }
    let deep_value = "reduce(1..150, [#acc], 0)";
    for source in
        [format!("string({deep_value})"), format!("toJSON({deep_value})"), format!("{deep_value} == {deep_value}")]
    {
        let evaluate = move || evaluate_value(&source, &Environment::condition(Value::Nil, noon())).unwrap();
        std::thread::Builder::new().stack_size(1 << 20).spawn(evaluate).unwrap().join().unwrap();
    }
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
        let start = processor_time();
        let outcome = evaluate(expression, &long, noon());
        let took = processor_time() - start;
        assert!(took < Duration::from_secs(20), "{expression} took {took:?}: {outcome:?}");
    }
}

/// The processor time of this thread: what else the machine does is no fault of an expression. Elsewhere than on Linux the
/// time of day.
fn processor_time() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat");
    let nanoseconds = statistics.ok().and_then(|text| text.split(' ').next()?.parse().ok());
    nanoseconds.map_or_else(|| START.elapsed(), Duration::from_nanos)
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

fn soup_result() -> Value {
    let json = serde_json::json!({"a": 5, "s": "héllo", "l": [3, 1.5, "x", null, [2]], "m": {"k": true}});
    json.into()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_soup_of_tokens_panics(source in soup()) {
        let start = processor_time();
        let _ = evaluate(&source, &soup_result(), noon());
        prop_assert!(processor_time() - start < Duration::from_secs(20), "{}", source);
    }

    #[test]
    fn no_call_panics(source in call()) {
        let start = processor_time();
        let _ = evaluate(&source, &soup_result(), noon());
        prop_assert!(processor_time() - start < Duration::from_secs(20), "{}", source);
    }

    #[test]
    fn no_typed_expression_panics(source in typed()) {
        let _ = evaluate(&source, &soup_result(), noon());
    }

    #[test]
    fn no_text_panics(source in "\\PC{0,60}") {
        let _ = evaluate(&source, &soup_result(), noon());
    }
}

/// Some thousand expressions at random, always the same: what they yield here, Go is asked to confirm.
#[test]
fn random_expressions_have_the_value_that_go_gives_them() {
    let input = r#"{"a": 5, "s": "héllo", "l": [3, 1.5, "x", null, [2]], "m": {"k": true}, "n": [4, 2, 9]}"#;
    let environment = Environment::condition(result(input), noon());
    let mut runner = TestRunner::deterministic();
    let sources = prop_oneof![1 => call(), 7 => typed()];
    let mut recording = String::new();
    let mut values = 0;
    for _ in 0..4000 {
        let source = sources.new_tree(&mut runner).unwrap().current();
        // Go's clock and zones, the random order of its maps, and its last bit of a power are its own.
        if ["now(", "zone(", "keys(", "values(", "toPairs(", "**", "\n"].iter().any(|own| source.contains(own)) {
            continue;
        }
        let (printed, outcome) = match evaluate_value(&format!("string({source})"), &environment) {
            Ok(Value::String(printed)) => (lexer::quote(&printed), "true"),
            _ => ("''".to_owned(), "error"),
        };
        values += usize::from(outcome == "true");
        writeln!(recording, "string({source}) == {printed}\t{input}\t{outcome}\t").unwrap();
    }
    assert!(values > 1000, "{values} expressions have a value");
    let Some(answers) = oracle::ask("expr", &recording) else { return };
    for (here, go) in cases(&recording).zip(cases(&answers)) {
        let go_panics = go.message.starts_with("panic: ");
        assert!(go_panics || here.outcome == go.outcome, "{}\n    Go: {} {}", here.source, go.outcome, go.message);
    }
}
