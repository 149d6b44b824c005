//! Sources at random: soups of tokens, well-formed calls, and expressions that are likely to have a value.

use proptest::prelude::*;

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

pub(super) fn soup() -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(TOKENS), 0..40).prop_map(|tokens| tokens.join(" "))
}

/// Calls that are well formed, so that more of them reach the evaluation.
pub(super) fn call() -> impl Strategy<Value = String> {
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

/// Expressions whose types fit more often than not, so that most of them have a value.
pub(super) fn typed() -> impl Strategy<Value = String> {
    fn one_of(texts: &[&'static str]) -> BoxedStrategy<String> {
        proptest::sample::select(texts.to_vec()).prop_map(str::to_owned).boxed()
    }
    fn fill(template: &'static str, parts: Vec<BoxedStrategy<String>>) -> BoxedStrategy<String> {
        let fill =
            move |parts: Vec<String>| parts.iter().fold(template.to_owned(), |text, part| text.replacen('%', part, 1));
        parts.prop_map(fill).boxed()
    }
    fn number(depth: u32) -> BoxedStrategy<String> {
        let leaf =
            one_of(&["1", "0", "-7", "2.5", "3", "1e9", "result.a", "result.l[0]", "len(result.s)", "(0/0)", "(1/0)"]);
        if depth == 0 {
            return leaf;
        }
        let (n, l, t, b) = (number(depth - 1), list(depth - 1), text(depth - 1), boolean(depth - 1));
        prop_oneof![
            leaf,
            fill("(% + %)", vec![n.clone(), n.clone()]),
            fill("(% - %)", vec![n.clone(), n.clone()]),
            fill("(% * %)", vec![n.clone(), n.clone()]),
            fill("(% / %)", vec![n.clone(), n.clone()]),
            fill("(% ** %)", vec![n.clone(), n.clone()]),
            fill("int(%) \u{25} int(%)", vec![n.clone(), n.clone()]),
            fill("-%", vec![n.clone()]),
            fill("(% ? % : %)", vec![b.clone(), n.clone(), n.clone()]),
            fill("len(%)", vec![l.clone()]),
            fill("len(%)", vec![t.clone()]),
            fill("sum(%)", vec![l.clone()]),
            fill("sum(%, # * 2)", vec![l.clone()]),
            fill("max(%)", vec![l.clone()]),
            fill("min(%, %)", vec![l.clone(), n.clone()]),
            fill("mean(%)", vec![l.clone()]),
            fill("median(%)", vec![l.clone()]),
            fill("reduce(%, # + #acc, %)", vec![l.clone(), n.clone()]),
            fill("count(%, # > %)", vec![l.clone(), n.clone()]),
            fill("findIndex(%, # > %)", vec![l.clone(), n.clone()]),
            fill("%[0]", vec![l.clone()]),
            fill("last(%)", vec![l.clone()]),
            fill("abs(%)", vec![n.clone()]),
            fill("round(%)", vec![n.clone()]),
            fill("floor(%)", vec![n.clone()]),
            fill("asInt(string(int(%)))", vec![n.clone()]),
            fill("asFloat(string(%))", vec![n.clone()]),
            fill("indexOf(%, %)", vec![t.clone(), t]),
            fill("bitxor(int(%), int(%))", vec![n.clone(), n.clone()]),
            fill("bitshl(int(%), abs(int(%)))", vec![n.clone(), n.clone()]),
            fill("(let v = %; v + v)", vec![n.clone()]),
            fill("(result.none ?? %)", vec![n.clone()]),
            fill("fromJSON(toJSON({a: %}))?.a", vec![n]),
        ]
        .boxed()
    }
    fn text(depth: u32) -> BoxedStrategy<String> {
        let leaf = one_of(&["'a'", "'é,b'", "''", "result.s", "' a b '", "\"x\\ty\"", "'1.5'"]);
        if depth == 0 {
            return leaf;
        }
        let (n, l, t) = (number(depth - 1), list(depth - 1), text(depth - 1));
        prop_oneof![
            leaf,
            fill("(% + %)", vec![t.clone(), t.clone()]),
            fill("string(%)", vec![n.clone()]),
            fill("string(%)", vec![l.clone()]),
            fill("toJSON(%)", vec![l.clone()]),
            fill("type(%)", vec![l]),
            fill("upper(%)", vec![t.clone()]),
            fill("trim(%, %)", vec![t.clone(), t.clone()]),
            fill("replace(%, %, %)", vec![t.clone(), t.clone(), t.clone()]),
            fill("repeat(%, abs(int(%) \u{25} 4))", vec![t.clone(), n.clone()]),
            fill("join(split(%, %), %)", vec![t.clone(), t.clone(), t.clone()]),
            fill("join(splitAfter(%, ',', int(%)), '-')", vec![t.clone(), n]),
            fill("fromBase64(toBase64(%))", vec![t.clone()]),
            fill("trimPrefix(%, %)", vec![t.clone(), t]),
        ]
        .boxed()
    }
    fn boolean(depth: u32) -> BoxedStrategy<String> {
        let leaf = one_of(&["true", "false", "result.m.k", "isNil(result)", "result.none == nil"]);
        if depth == 0 {
            return leaf;
        }
        let (n, l, t, b) = (number(depth - 1), list(depth - 1), text(depth - 1), boolean(depth - 1));
        prop_oneof![
            leaf,
            fill("% < %", vec![n.clone(), n.clone()]),
            fill("(% == %)", vec![n.clone(), n.clone()]),
            fill("(% == %)", vec![l.clone(), l.clone()]),
            fill("(% != %)", vec![t.clone(), t.clone()]),
            fill("(% > %)", vec![t.clone(), t.clone()]),
            fill("(% in %)", vec![n.clone(), l.clone()]),
            fill("(% not in %)", vec![t.clone(), l.clone()]),
            fill("(% && %)", vec![b.clone(), b.clone()]),
            fill("(% || %)", vec![b.clone(), b.clone()]),
            fill("not %", vec![b]),
            fill("all(%, # > %)", vec![l.clone(), n.clone()]),
            fill("any(%, # == %)", vec![l.clone(), n.clone()]),
            fill("none(%, # < 0) && none(%, # > 9)", vec![l.clone(), l]),
            fill("(% contains %)", vec![t.clone(), t.clone()]),
            fill("(% matches '[a-c]+|^.$')", vec![t]),
            fill("isNaN(float(%))", vec![n]),
        ]
        .boxed()
    }
    fn list(depth: u32) -> BoxedStrategy<String> {
        let leaf = one_of(&[
            "[1, 2]",
            "[]",
            "result.n",
            "1..4",
            "[2.5, -1, 3]",
            "result.l",
            "['a', 'b']",
            "split('a,b', ',')",
        ]);
        if depth == 0 {
            return leaf;
        }
        let (n, l, t, b) = (number(depth - 1), list(depth - 1), text(depth - 1), boolean(depth - 1));
        prop_oneof![
            leaf,
            fill("[%, %]", vec![n.clone(), n.clone()]),
            fill("[%, %]", vec![n.clone(), t]),
            fill("filter(%, # > %)", vec![l.clone(), n.clone()]),
            fill("filter(%, {%})", vec![l.clone(), b.clone()]),
            fill("map(%, # * 2)", vec![l.clone()]),
            fill("map(%, {% + #index})", vec![l.clone(), n.clone()]),
            fill("sort(%)", vec![l.clone()]),
            fill("sortBy(%, -#, 'desc')", vec![l.clone()]),
            fill("uniq(concat(%, %))", vec![l.clone(), l.clone()]),
            fill("reverse(%)", vec![l.clone()]),
            fill("flatten([%, %])", vec![l.clone(), l.clone()]),
            fill("take(%, 2)", vec![l.clone()]),
            fill("%[1:]", vec![l.clone()]),
            fill("%[int(%):int(%)]", vec![l.clone(), n.clone(), n]),
            fill("values(groupBy(%, 1))[0]", vec![l.clone()]),
            fill("(% ? % : %)", vec![b, l.clone(), l]),
        ]
        .boxed()
    }
    prop_oneof![number(3), text(3), boolean(3), list(3)]
}
