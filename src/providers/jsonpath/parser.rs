//! From the text of a path to its nodes. Go reads a path with a scanner and hands parts of it, again in braces, to new
//! scanners; what its users observe (`['a.b']` is two fields, `[a,b]` is split before quotes are seen) follows from that,
//! and so it is done here.

use serde_json::Value;

use super::{JsonPathError, MAX_DEPTH};

#[derive(Debug, Clone)]
pub(super) enum Node {
    /// What stands in one pair of braces.
    List(Vec<Node>),
    Text(String),
    /// A number or bool.
    Literal(Value),
    Field(String),
    Array(Bounds),
    Wildcard,
    Recursive,
    Union(Vec<Vec<Node>>),
    Filter {
        left: Vec<Node>,
        operator: String,
        right: Vec<Node>,
    },
    /// `range`, `end`, or a word that fails when it is evaluated.
    Identifier(String),
}

/// `[from:to:step]`; an index is a slice of one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub from: Option<i64>,
    pub to: Option<i64>,
    /// There was no colon: `to` is one more than `from`.
    pub to_is_derived: bool,
    pub step: Option<i64>,
}

type Parsed<T> = Result<T, JsonPathError>;

fn syntax<T>(message: impl Into<String>) -> Parsed<T> {
    Err(JsonPathError::Syntax(message.into()))
}

/// Text and the lists between braces.
pub(super) fn parse(text: &str, depth: usize) -> Parsed<Vec<Node>> {
    if depth > MAX_DEPTH {
        return Err(JsonPathError::Limit(format!("filters are nested deeper than {MAX_DEPTH} levels")));
    }
    let mut nodes = Vec::new();
    let mut rest = text;
    loop {
        let (before, action) = match rest.split_once('{') {
            Some((before, action)) => (before, Some(action)),
            None => (rest, None),
        };
        if !before.is_empty() {
            nodes.push(Node::Text(before.to_owned()));
        }
        let Some(action) = action else { return Ok(nodes) };
        let mut scanner = Scanner { text: action, pos: 0, depth, nodes: Vec::new() };
        scanner.action()?;
        rest = &action[scanner.pos..];
        nodes.push(Node::List(scanner.nodes));
    }
}

/// A part of a path as if it stood in braces of its own.
fn parse_part(text: &str, depth: usize) -> Parsed<Vec<Node>> {
    match parse(&format!("{{{text}}}"), depth + 1)?.into_iter().next() {
        Some(Node::List(nodes)) => Ok(nodes),
        _ => Ok(Vec::new()),
    }
}

struct Scanner<'a> {
    /// From behind the opening brace on.
    text: &'a str,
    pos: usize,
    depth: usize,
    nodes: Vec<Node>,
}

impl<'a> Scanner<'a> {
    /// Reads up to and with the closing brace.
    fn action(&mut self) -> Parsed<()> {
        loop {
            if self.accept("}") {
                return Ok(());
            } else if self.accept("[?(") {
                self.filter()?;
                continue;
            } else if self.accept("..") {
                self.recursive()?;
                continue;
            }
            match self.peek() {
                None | Some('\r' | '\n') => return syntax("unclosed action"),
                Some(' ' | '@' | '$') => self.pos += 1,
                Some('[') => {
                    self.pos += 1;
                    self.array()?;
                }
                Some(quote @ ('"' | '\'')) => self.quoted(quote)?,
                Some('.') => {
                    self.pos += 1;
                    self.field();
                }
                Some(c) if c == '+' || c == '-' || c.is_numeric() => self.number()?,
                Some(c) if is_word(c) => self.identifier(),
                Some(c) => {
                    return syntax(format!("unrecognized character in action: U+{:04X} '{c}'", c as u32));
                }
            }
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.pos..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.pos += c.len_utf8();
        Some(c)
    }

    fn accept(&mut self, prefix: &str) -> bool {
        let accepted = self.rest().starts_with(prefix);
        self.pos += if accepted { prefix.len() } else { 0 };
        accepted
    }

    /// Whether the character before the last one is a backslash, which escapes the last one.
    fn escaped(&self) -> bool {
        self.pos >= 2 && self.text.as_bytes()[self.pos - 2] == b'\\'
    }

    fn identifier(&mut self) {
        let rest = self.rest();
        let word = &rest[..rest.find(is_terminator).unwrap_or(rest.len())];
        self.pos += word.len();
        self.nodes.push(match word {
            "true" => Node::Literal(Value::Bool(true)),
            "false" => Node::Literal(Value::Bool(false)),
            _ => Node::Identifier(word.to_owned()),
        });
    }

    fn recursive(&mut self) -> Parsed<()> {
        if matches!(self.nodes.last(), Some(Node::Recursive)) {
            return syntax("invalid multiple recursive descent");
        }
        self.nodes.push(Node::Recursive);
        if self.peek().is_some_and(is_word) {
            self.field();
        }
        Ok(())
    }

    fn number(&mut self) -> Parsed<()> {
        let rest = self.rest();
        let sign = usize::from(rest.starts_with(['+', '-']));
        let digits = rest[sign..].find(|c: char| c != '.' && !c.is_numeric()).unwrap_or(rest.len() - sign);
        let text = &rest[..sign + digits];
        self.pos += text.len();
        let value = match text.parse::<i64>() {
            Ok(int) => Value::from(int),
            Err(_) => match text.parse::<f64>() {
                Ok(float) if float.is_finite() => Value::from(float),
                _ => return syntax(format!("cannot parse number {text}")),
            },
        };
        self.nodes.push(Node::Literal(value));
        Ok(())
    }

    /// Behind the point. A backslash takes away the meaning of the character that follows it.
    fn field(&mut self) {
        let mut name = String::new();
        while let Some(c) = self.peek() {
            if c == '\\' {
                self.pos += 1;
                name.extend(self.next().filter(|c| *c != '\\'));
            } else if is_terminator(c) {
                break;
            } else {
                self.pos += c.len_utf8();
                name.push(c);
            }
        }
        self.nodes.push(if name == "*" { Node::Wildcard } else { Node::Field(name) });
    }

    fn array(&mut self) -> Parsed<()> {
        let rest = self.rest();
        let end = match rest.find([']', '\n']) {
            Some(end) if rest[end..].starts_with(']') => end,
            _ => return syntax("unterminated array"),
        };
        let text = &rest[..end];
        self.pos += end + 1;
        if text.contains(',') {
            let parts: Parsed<Vec<Vec<Node>>> =
                text.split(',').map(|part| parse_part(&format!("[{}]", part.trim_matches(' ')), self.depth)).collect();
            self.nodes.push(Node::Union(parts?));
            return Ok(());
        }
        let key = text.strip_prefix('\'').and_then(|text| text.strip_suffix('\''));
        if let Some(key) = key.filter(|key| !key.contains('\'')) {
            self.nodes.extend(parse_part(&format!(".{key}"), self.depth)?);
            return Ok(());
        }
        self.nodes.push(Node::Array(bounds(if text == "*" { ":" } else { text })?));
        Ok(())
    }

    /// Behind `[?(`.
    fn filter(&mut self) -> Parsed<()> {
        let start = self.pos;
        let mut quote = None;
        let mut closed = false;
        loop {
            match self.next() {
                None | Some('\n') => return syntax("unterminated filter"),
                Some(c @ ('"' | '\'')) => match quote {
                    None => quote = Some(c),
                    Some(quote) if quote == c && !self.escaped() => closed = true,
                    Some(_) => {}
                },
                Some(')') if quote.is_some() == closed => break,
                Some(_) => {}
            }
        }
        let text = &self.text[start..self.pos - 1];
        if self.next() != Some(']') {
            return syntax("unclosed array expect ]");
        }
        let filter = match comparison(text) {
            Some((left, operator, right)) => Node::Filter {
                left: parse_part(left, self.depth)?,
                operator: operator.to_owned(),
                right: parse_part(right, self.depth)?,
            },
            None => {
                Node::Filter { left: parse_part(text, self.depth)?, operator: "exists".to_owned(), right: Vec::new() }
            }
        };
        self.nodes.push(filter);
        Ok(())
    }

    fn quoted(&mut self, quote: char) -> Parsed<()> {
        let start = self.pos;
        self.pos += 1;
        loop {
            match self.next() {
                None | Some('\n') => return syntax("unterminated quoted string"),
                Some(c) if c == quote && !self.escaped() => break,
                Some(_) => {}
            }
        }
        let literal = &self.text[start..self.pos];
        match unquote(&literal[1..literal.len() - 1], quote) {
            Some(text) => self.nodes.push(Node::Text(text)),
            None => return syntax(format!("unquote string {literal} error invalid syntax")),
        }
        Ok(())
    }
}

/// `left operator right`: the first run of `!<>=` that something precedes and something follows.
fn comparison(text: &str) -> Option<(&str, &str, &str)> {
    let is_operator = |c: char| matches!(c, '!' | '<' | '>' | '=');
    let start = text.find(is_operator).filter(|start| *start > 0)?;
    let length = text[start..].find(|c: char| !is_operator(c)).unwrap_or(text.len() - start);
    let (operator, right) = text[start..].split_at(length);
    match right {
        // The last sign of a longer run is then the right side.
        "" if length > 1 => Some((&text[..start], &operator[..length - 1], &operator[length - 1..])),
        "" => None,
        _ => Some((&text[..start], operator, right)),
    }
}

fn bounds(text: &str) -> Parsed<Bounds> {
    let invalid = || syntax(format!("invalid array index {text}"));
    let parts: Vec<&str> = text.split(':').collect();
    let well_formed = |part: &&str| part.strip_prefix('-').unwrap_or(part).chars().all(|c| c.is_ascii_digit());
    if parts.len() > 3 || !parts.iter().all(well_formed) {
        return invalid();
    }
    let number = |part: Option<&&str>| match part {
        None | Some(&"") => Ok(None),
        Some(part) => match part.parse::<i64>() {
            Ok(number) => Ok(Some(number)),
            Err(_) => syntax(format!("array index {part} is not a number")),
        },
    };
    let from = number(parts.first())?;
    let to_is_derived = parts.len() == 1;
    let to = if to_is_derived { Some(from.unwrap_or(0).saturating_add(1)) } else { number(parts.get(1))? };
    Ok(Bounds { from, to, to_is_derived, step: number(parts.get(2))? })
}

/// The content of a string literal as Go's `strconv` reads it.
fn unquote(content: &str, quote: char) -> Option<String> {
    let mut text = String::new();
    let mut chars = content.chars();
    while let Some(c) = chars.next() {
        if c == quote {
            return None;
        }
        if c != '\\' {
            text.push(c);
            continue;
        }
        let c = match chars.next()? {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '\\' => '\\',
            c if c == quote => c,
            'x' => code(&mut chars, 16, 2, 0)?,
            'u' => code(&mut chars, 16, 4, 0)?,
            'U' => code(&mut chars, 16, 8, 0)?,
            c => code(&mut chars, 8, 2, c.to_digit(8)?)?,
        };
        text.push(c);
    }
    Some(text)
}

fn code(chars: &mut std::str::Chars<'_>, base: u32, count: usize, first: u32) -> Option<char> {
    let code =
        (0..count).try_fold(first, |code, _| code.checked_mul(base)?.checked_add(chars.next()?.to_digit(base)?))?;
    char::from_u32(code)
}

/// Where a word ends.
fn is_terminator(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n' | '.' | ',' | '[' | ']' | '$' | '@' | '{' | '}')
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphabetic() || c.is_numeric()
}
