//! Regular expressions in the syntax of Go (RE2).

use regex::bytes::{Regex, RegexBuilder};

use super::budget::Budget;

/// Bytes of a compiled program; compiling one of this size takes some milliseconds.
const SIZE_LIMIT: usize = 1 << 20;
/// The price of compiling one, so that a predicate cannot compile thousands.
const COMPILE_STEPS: usize = 200_000;
/// Go's limit for `{n}`.
const MAX_REPEAT: u32 = 1000;

#[derive(Debug)]
pub(super) struct Pattern(Regex);

impl Pattern {
    pub(super) fn is_match(&self, text: &[u8]) -> bool {
        self.0.is_match(text)
    }
}

pub(super) fn compile(expression: &str, budget: &mut Budget) -> Result<Pattern, String> {
    budget.steps(COMPILE_STEPS)?;
    let translated = translate(expression).map_err(|reason| format!("error parsing regexp: {reason}"))?;
    RegexBuilder::new(&translated).size_limit(SIZE_LIMIT).dfa_size_limit(SIZE_LIMIT).build().map(Pattern).map_err(
        |error| {
            let reason = match error {
                regex::Error::CompiledTooBig(_) => "expression too large".to_owned(),
                // The last line tells what is wrong, the others draw where.
                other => other.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
            };
            format!("error parsing regexp: {reason}: `{expression}`")
        },
    )
}

/// Where the two dialects differ: Go's `\d`, `\w`, `\s` and `\b` know ASCII only, `\Q…\E` quotes, `{` may stand for
/// itself, and in a class `[`, `&`, `~` and `-` do.
fn translate(expression: &str) -> Result<String, String> {
    let mut out = String::with_capacity(expression.len());
    let mut chars = expression.chars();
    let mut rest = expression;
    let mut in_class = false;
    let mut class_start = false;
    while let Some(c) = chars.next() {
        rest = &rest[c.len_utf8()..];
        let at_start = std::mem::take(&mut class_start);
        match c {
            '\\' => {
                let Some(escaped) = chars.next() else {
                    return Err("trailing backslash at end of expression: ``".into());
                };
                rest = &rest[escaped.len_utf8()..];
                match escaped {
                    'd' => out.push_str(if in_class { "0-9" } else { "[0-9]" }),
                    'D' => out.push_str("[^0-9]"),
                    'w' => out.push_str(if in_class { "0-9A-Za-z_" } else { "[0-9A-Za-z_]" }),
                    'W' => out.push_str("[^0-9A-Za-z_]"),
                    's' => out.push_str(if in_class { "\\t\\n\\x0c\\r " } else { "[\\t\\n\\x0c\\r ]" }),
                    'S' => out.push_str("[^\\t\\n\\x0c\\r ]"),
                    'b' if !in_class => out.push_str("(?-u:\\b)"),
                    'B' if !in_class => out.push_str("(?-u:\\B)"),
                    'Q' if !in_class => {
                        let (literal, after) = rest.split_once("\\E").unwrap_or((rest, ""));
                        out.push_str(&regex::escape(literal));
                        rest = after;
                        chars = rest.chars();
                    }
                    'A' | 'z' | 'a' | 'f' | 't' | 'n' | 'r' | 'v' => {
                        out.push('\\');
                        out.push(escaped);
                    }
                    'x' | 'p' | 'P' => {
                        let braced = rest.starts_with('{').then(|| rest.find('}')).flatten();
                        let (argument, after) = rest.split_at(braced.map_or(0, |end| end + 1));
                        out.push('\\');
                        out.push(escaped);
                        out.push_str(argument);
                        rest = after;
                        chars = rest.chars();
                    }
                    '0'..='7' => {
                        let octal: String = std::iter::once(escaped)
                            .chain(rest.chars().take(2))
                            .take_while(|c| c.is_digit(8))
                            .collect();
                        // Go reads an octal escape only if it starts with 0 or has more than one digit.
                        if escaped != '0' && octal.len() < 2 {
                            return Err(format!("invalid escape sequence: `\\{escaped}`"));
                        }
                        let code = u32::from_str_radix(&octal, 8).unwrap_or(0);
                        out.push_str(&format!("\\x{{{code:x}}}"));
                        for _ in 1..octal.len() {
                            rest = chars.next().map_or(rest, |c| &rest[c.len_utf8()..]);
                        }
                    }
                    punctuation if punctuation.is_ascii_punctuation() => {
                        out.push_str(&regex::escape(&punctuation.to_string()));
                    }
                    other => return Err(format!("invalid escape sequence: `\\{other}`")),
                }
            }
            '[' if !in_class => {
                in_class = true;
                class_start = true;
                out.push('[');
            }
            '^' if in_class && at_start && out.ends_with('[') => {
                out.push('^');
                class_start = true;
            }
            // A bracket that comes first stands for itself.
            ']' if in_class && at_start => out.push_str("\\]"),
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '[' => match rest.strip_prefix(':').and_then(|name| name.split_once(":]")) {
                Some((name, after)) if name.chars().all(|c| c.is_ascii_alphabetic() || c == '^') => {
                    out.push_str(&format!("[:{name}:]"));
                    rest = after;
                    chars = rest.chars();
                }
                _ => out.push_str("\\["),
            },
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(c);
            }
            '{' if !in_class => match repetition(rest) {
                Some((_, too_many)) if too_many => {
                    let written = &rest[..rest.find('}').map_or(rest.len(), |end| end + 1)];
                    return Err(format!("invalid repeat count: `{{{written}`"));
                }
                Some(_) => out.push('{'),
                None => out.push_str("\\{"),
            },
            c => out.push(c),
        }
    }
    Ok(out)
}

/// Whether `n}`, `n,}` or `n,m}` follows, and whether a number in it is above Go's limit.
fn repetition(rest: &str) -> Option<(&str, bool)> {
    let (inside, _) = rest.split_once('}')?;
    let (low, high) = inside.split_once(',').unwrap_or((inside, ""));
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    if low.is_empty() || !digits(low) || !digits(high) {
        return None;
    }
    let too_many = [low, high].iter().any(|n| !n.is_empty() && n.parse::<u32>().map_or(true, |n| n > MAX_REPEAT));
    Some((inside, too_many))
}
