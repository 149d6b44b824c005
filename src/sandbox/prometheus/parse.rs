//! From the text of a PromQL query to its tree.

use super::QueryError;

/// A query, or a part of one.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expr {
    Number(f64),
    Text(String),
    Selector(Selector),
    Call { function: String, args: Vec<Expr> },
    Aggregate { operator: Aggregation, grouping: Grouping, of: Box<Expr> },
    Binary { operator: Operator, returns_bool: bool, matching: Grouping, left: Box<Expr>, right: Box<Expr> },
    Negated(Box<Expr>),
}

/// Series by their labels.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Selector {
    pub(super) matchers: Vec<Matcher>,
    /// In milliseconds; `None` for the present value.
    pub(super) range: Option<i64>,
    /// In milliseconds.
    pub(super) offset: i64,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Matcher {
    pub(super) label: String,
    pub(super) kind: MatchKind,
    pub(super) value: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum MatchKind {
    Equal,
    NotEqual,
    Matches,
    MatchesNot,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Aggregation {
    Sum,
    Avg,
    Max,
    Min,
    Count,
}

/// The labels that count: those of `by` and `on`, or all but those of `without` and `ignoring`.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Grouping {
    Only(Vec<String>),
    Without(Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    And,
    Or,
    Unless,
}

impl Operator {
    pub(super) fn compares(self) -> bool {
        use Operator::*;
        matches!(self, Equal | NotEqual | Less | LessOrEqual | Greater | GreaterOrEqual)
    }

    pub(super) fn is_of_sets(self) -> bool {
        matches!(self, Operator::And | Operator::Or | Operator::Unless)
    }

    fn precedence(self) -> u8 {
        use Operator::*;
        match self {
            Or => 1,
            And | Unless => 2,
            Equal | NotEqual | Less | LessOrEqual | Greater | GreaterOrEqual => 3,
            Add | Subtract => 4,
            Multiply | Divide | Modulo => 5,
            Power => 6,
        }
    }
}

/// Between multiplication and power, as in Prometheus: `-2 ^ 2` is -4.
const NEGATION: u8 = 5;
/// Queries nested deeper than this are refused.
const DEPTH: usize = 64;

/// Reads a query.
pub(super) fn parse(text: &str) -> Result<Expr, QueryError> {
    let mut parser = Parser { tokens: lex(text)?, at: 0, depth: 0 };
    let expr = parser.expression(0)?;
    match parser.peek() {
        Token::End => Ok(expr),
        other => Err(unexpected(other)),
    }
}

/// The selectors in an expression, in their order.
pub(super) fn collect<'a>(expr: &'a Expr, selectors: &mut Vec<&'a Selector>) {
    match expr {
        Expr::Number(_) | Expr::Text(_) => {}
        Expr::Selector(selector) => selectors.push(selector),
        Expr::Call { args, .. } => args.iter().for_each(|arg| collect(arg, selectors)),
        Expr::Aggregate { of, .. } => collect(of, selectors),
        Expr::Negated(inner) => collect(inner, selectors),
        Expr::Binary { left, right, .. } => {
            collect(left, selectors);
            collect(right, selectors);
        }
    }
}

/// Series that a query looks at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selected {
    /// A selector of them, without range and offset.
    pub selector: String,
    /// How far the query looks back for their samples, in milliseconds.
    pub reach: i64,
}

/// What a query looks at.
///
/// # Errors
/// The query cannot be read, or has something in it that is not evaluated here.
pub fn selected(query: &str) -> Result<Vec<Selected>, QueryError> {
    let expr = parse(query)?;
    let mut selectors = Vec::new();
    collect(&expr, &mut selectors);
    let selected = selectors.into_iter().map(|selector| Selected {
        selector: selector.to_string(),
        reach: selector.range.unwrap_or(super::eval::LOOKBACK).saturating_add(selector.offset.max(0)),
    });
    Ok(selected.collect())
}

impl std::fmt::Display for Selector {
    /// The series, without range and offset.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let is_name = |it: &&Matcher| it.label == "__name__" && it.kind == MatchKind::Equal;
        let name = self.matchers.iter().find(is_name).filter(|name| is_metric_name(&name.value));
        f.write_str(name.map_or("", |name| name.value.as_str()))?;
        let rest: Vec<String> = self
            .matchers
            .iter()
            .filter(|it| !name.is_some_and(|name| std::ptr::eq(name, *it)))
            .map(Matcher::to_string)
            .collect();
        if name.is_none() || !rest.is_empty() { write!(f, "{{{}}}", rest.join(",")) } else { Ok(()) }
    }
}

impl std::fmt::Display for Matcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = match self.kind {
            MatchKind::Equal => "=",
            MatchKind::NotEqual => "!=",
            MatchKind::Matches => "=~",
            MatchKind::MatchesNot => "!~",
        };
        let value = self.value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\t', "\\t");
        write!(f, "{}{sign}\"{value}\"", self.label)
    }
}

fn is_metric_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
    bytes.next().is_some_and(|first| word(first) && !first.is_ascii_digit()) && bytes.all(word)
}

/// Reads a duration such as `1h30m`, as milliseconds.
pub(super) fn duration(text: &str) -> Option<i64> {
    let (mut total, mut rest) = (0_i64, text);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: i64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = match &rest[..letters] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            "y" => 365 * 86_400_000,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(unit)?)?;
        rest = &rest[letters..];
    }
    (!text.is_empty()).then_some(total)
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(String),
    Number(f64),
    Duration(i64),
    Text(String),
    Sign(&'static str),
    End,
}

/// Longer signs first, so that `>=` is not read as `>`.
const SIGNS: [&str; 24] = [
    "==", "!=", "=~", "!~", ">=", "<=", "(", ")", "{", "}", "[", "]", ",", "+", "-", "*", "/", "%", "^", "=", ">", "<",
    ":", "@",
];

fn lex(text: &str) -> Result<Vec<Token>, QueryError> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if first.is_whitespace() {
            rest = &rest[first.len_utf8()..];
        } else if first == '#' {
            rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
        } else if first.is_ascii_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
            tokens.push(Token::Name(rest[..end].to_owned()));
            rest = &rest[end..];
        } else if first.is_ascii_digit() || first == '.' {
            let (token, length) = number(rest)?;
            tokens.push(token);
            rest = &rest[length..];
        } else if matches!(first, '"' | '\'' | '`') {
            let (string, length) = string(rest, first)?;
            tokens.push(Token::Text(string));
            rest = &rest[length..];
        } else {
            let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign));
            let sign = sign.ok_or_else(|| QueryError::syntax(format!("unexpected character {first:?}")))?;
            tokens.push(Token::Sign(sign));
            rest = &rest[sign.len()..];
        }
    }
    Ok(tokens)
}

/// A number or a duration, and how many bytes it takes.
fn number(text: &str) -> Result<(Token, usize), QueryError> {
    let bytes = text.as_bytes();
    let mut end = bytes.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'.').count();
    let mantissa = bytes.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.').count();
    let exponent = matches!(bytes.get(mantissa), Some(b'e' | b'E'));
    if exponent && end == mantissa + 1 && matches!(bytes.get(end), Some(b'+' | b'-')) {
        end += 1 + bytes[end + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    }
    let word = &text[..end];
    let token = word.parse().map(Token::Number).ok().or_else(|| duration(word).map(Token::Duration));
    token
        .map(|token| (token, end))
        .ok_or_else(|| QueryError::syntax(format!("bad number or duration syntax: {word:?}")))
}

fn string(text: &str, quote: char) -> Result<(String, usize), QueryError> {
    let mut string = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return Ok((string, at + 1));
        }
        if c != '\\' || quote == '`' {
            string.push(c);
            continue;
        }
        match chars.next() {
            Some((_, 'n')) => string.push('\n'),
            Some((_, 't')) => string.push('\t'),
            Some((_, c @ ('\\' | '"' | '\''))) => string.push(c),
            _ => return Err(QueryError::syntax("unknown escape sequence in a string".to_owned())),
        }
    }
    Err(QueryError::syntax("unterminated quoted string".to_owned()))
}

fn unexpected(token: &Token) -> QueryError {
    QueryError::syntax(match token {
        Token::End => "unexpected end of input".to_owned(),
        Token::Name(name) => format!("unexpected identifier {name:?}"),
        Token::Number(number) => format!("unexpected number {number}"),
        Token::Duration(_) => "unexpected duration".to_owned(),
        Token::Text(text) => format!("unexpected string {text:?}"),
        Token::Sign(sign) => format!("unexpected {sign:?}"),
    })
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).unwrap_or(&Token::End)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn takes(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Token::Sign(found) if *found == sign);
        self.at += usize::from(found);
        found
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Token::Name(found) if found.eq_ignore_ascii_case(word));
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), QueryError> {
        if self.takes(sign) { Ok(()) } else { Err(unexpected(self.peek())) }
    }

    fn expression(&mut self, least: u8) -> Result<Expr, QueryError> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(QueryError::syntax("the query is nested too deeply".to_owned()));
        }
        let mut left = self.unary()?;
        while let Some(operator) = self.operator().filter(|operator| operator.precedence() > least) {
            self.at += 1;
            let returns_bool = operator.compares() && self.takes_word("bool");
            let matching = self.matching()?;
            // Power is the only operator that groups from the right.
            let precedence = operator.precedence();
            let least = if operator == Operator::Power { precedence - 1 } else { precedence };
            let right = self.expression(least)?;
            left = Expr::Binary { operator, returns_bool, matching, left: left.into(), right: right.into() };
        }
        self.depth -= 1;
        Ok(left)
    }

    fn operator(&self) -> Option<Operator> {
        Some(match self.peek() {
            Token::Sign("+") => Operator::Add,
            Token::Sign("-") => Operator::Subtract,
            Token::Sign("*") => Operator::Multiply,
            Token::Sign("/") => Operator::Divide,
            Token::Sign("%") => Operator::Modulo,
            Token::Sign("^") => Operator::Power,
            Token::Sign("==") => Operator::Equal,
            Token::Sign("!=") => Operator::NotEqual,
            Token::Sign("<") => Operator::Less,
            Token::Sign("<=") => Operator::LessOrEqual,
            Token::Sign(">") => Operator::Greater,
            Token::Sign(">=") => Operator::GreaterOrEqual,
            Token::Name(name) if name.eq_ignore_ascii_case("and") => Operator::And,
            Token::Name(name) if name.eq_ignore_ascii_case("or") => Operator::Or,
            Token::Name(name) if name.eq_ignore_ascii_case("unless") => Operator::Unless,
            _ => return None,
        })
    }

    fn matching(&mut self) -> Result<Grouping, QueryError> {
        let matching = if self.takes_word("on") {
            Grouping::Only(self.labels()?)
        } else if self.takes_word("ignoring") {
            Grouping::Without(self.labels()?)
        } else {
            Grouping::Without(Vec::new())
        };
        for many in ["group_left", "group_right"] {
            if self.takes_word(many) {
                return Err(QueryError::unsupported(many));
            }
        }
        Ok(matching)
    }

    fn unary(&mut self) -> Result<Expr, QueryError> {
        if self.takes("-") {
            return Ok(Expr::Negated(self.expression(NEGATION)?.into()));
        }
        if self.takes("+") {
            return self.expression(NEGATION);
        }
        let primary = self.primary()?;
        self.suffixes(primary)
    }

    fn primary(&mut self) -> Result<Expr, QueryError> {
        match self.next() {
            Token::Number(number) => Ok(Expr::Number(number)),
            Token::Text(text) => Ok(Expr::Text(text)),
            Token::Sign("(") => {
                let inner = self.expression(0)?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Sign("{") => Ok(selector(self.matchers(None)?)),
            Token::Name(name) => self.named(name),
            other => Err(unexpected(&other)),
        }
    }

    fn named(&mut self, name: String) -> Result<Expr, QueryError> {
        let follows = self.peek().clone();
        match name.to_ascii_lowercase().as_str() {
            "inf" => return Ok(Expr::Number(f64::INFINITY)),
            "nan" => return Ok(Expr::Number(f64::NAN)),
            lower => {
                let groups = matches!(&follows, Token::Name(word) if word == "by" || word == "without");
                if (groups || follows == Token::Sign("("))
                    && let Some(operator) = aggregation(lower)?
                {
                    return self.aggregate(operator);
                }
            }
        }
        if self.takes("(") {
            let mut args = Vec::new();
            while !self.takes(")") {
                args.push(self.expression(0)?);
                if !self.takes(",") {
                    self.expect(")")?;
                    break;
                }
            }
            return Ok(Expr::Call { function: name, args });
        }
        if self.takes("{") {
            return Ok(selector(self.matchers(Some(name))?));
        }
        Ok(selector(vec![Matcher { label: "__name__".to_owned(), kind: MatchKind::Equal, value: name }]))
    }

    fn aggregate(&mut self, operator: Aggregation) -> Result<Expr, QueryError> {
        let before = self.grouping()?;
        self.expect("(")?;
        let of = Box::new(self.expression(0)?);
        self.expect(")")?;
        let grouping = match before {
            Some(before) => before,
            None => self.grouping()?.unwrap_or(Grouping::Only(Vec::new())),
        };
        Ok(Expr::Aggregate { operator, grouping, of })
    }

    fn grouping(&mut self) -> Result<Option<Grouping>, QueryError> {
        if self.takes_word("by") {
            return Ok(Some(Grouping::Only(self.labels()?)));
        }
        if self.takes_word("without") {
            return Ok(Some(Grouping::Without(self.labels()?)));
        }
        Ok(None)
    }

    fn labels(&mut self) -> Result<Vec<String>, QueryError> {
        self.expect("(")?;
        let mut labels = Vec::new();
        while !self.takes(")") {
            match self.next() {
                Token::Name(label) => labels.push(label),
                other => return Err(unexpected(&other)),
            }
            if !self.takes(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(labels)
    }

    /// What stands between braces, the opening one already taken.
    fn matchers(&mut self, name: Option<String>) -> Result<Vec<Matcher>, QueryError> {
        let named = name.map(|value| Matcher { label: "__name__".to_owned(), kind: MatchKind::Equal, value });
        let mut matchers: Vec<Matcher> = named.into_iter().collect();
        while !self.takes("}") {
            let label = match self.next() {
                Token::Name(label) => label,
                other => return Err(unexpected(&other)),
            };
            let kind = match self.next() {
                Token::Sign("=") => MatchKind::Equal,
                Token::Sign("!=") => MatchKind::NotEqual,
                Token::Sign("=~") => MatchKind::Matches,
                Token::Sign("!~") => MatchKind::MatchesNot,
                other => return Err(unexpected(&other)),
            };
            match self.next() {
                Token::Text(value) => matchers.push(Matcher { label, kind, value }),
                other => return Err(unexpected(&other)),
            }
            if !self.takes(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(matchers)
    }

    /// A range and an offset after a selector.
    fn suffixes(&mut self, mut expr: Expr) -> Result<Expr, QueryError> {
        if self.takes("[") {
            let Expr::Selector(selector) = &mut expr else { return Err(QueryError::unsupported("a subquery")) };
            match self.next() {
                Token::Duration(range) if range > 0 => selector.range = Some(range),
                other => return Err(unexpected(&other)),
            }
            if self.takes(":") {
                return Err(QueryError::unsupported("a subquery"));
            }
            self.expect("]")?;
        }
        if self.takes_word("offset") {
            let sign = if self.takes("-") { -1 } else { 1 };
            match (&mut expr, self.next()) {
                (Expr::Selector(selector), Token::Duration(offset)) => selector.offset = sign * offset,
                (_, other) => return Err(unexpected(&other)),
            }
        }
        if self.takes("@") {
            return Err(QueryError::unsupported("the @ modifier"));
        }
        Ok(expr)
    }
}

fn selector(matchers: Vec<Matcher>) -> Expr {
    Expr::Selector(Selector { matchers, range: None, offset: 0 })
}

fn aggregation(name: &str) -> Result<Option<Aggregation>, QueryError> {
    Ok(Some(match name {
        "sum" => Aggregation::Sum,
        "avg" => Aggregation::Avg,
        "max" => Aggregation::Max,
        "min" => Aggregation::Min,
        "count" => Aggregation::Count,
        "topk" | "bottomk" | "quantile" | "stddev" | "stdvar" | "group" | "count_values" | "limitk" | "limit_ratio" => {
            return Err(QueryError::unsupported(name));
        }
        _ => return Ok(None),
    }))
}
