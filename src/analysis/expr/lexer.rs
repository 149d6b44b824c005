//! Tokens. Offsets count characters, as Go's messages do.

use std::fmt;

use super::{ErrorKind, Failure};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    Identifier,
    Number,
    String,
    Bytes,
    Operator,
    Bracket,
    Eof,
}

#[derive(Debug, Clone)]
pub(super) struct Token {
    pub kind: TokenKind,
    pub text: String,
    pub at: usize,
}

impl Token {
    pub(super) fn is(&self, kind: TokenKind, text: &str) -> bool {
        self.kind == kind && self.text == text
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text.as_str() {
            "" if self.kind == TokenKind::Eof => f.write_str("EOF"),
            "" => write!(f, "{:?}", self.kind),
            text => write!(f, "{:?}({})", self.kind, quote(text)),
        }
    }
}

/// Produces tokens on demand, so that a syntax error before a bad character is the one that is reported.
pub(super) struct Lexer {
    source: Vec<char>,
    start: usize,
    end: usize,
    /// A word that was read together with the `not` or `#` before it.
    pending: Option<Token>,
    done: bool,
}

impl Lexer {
    pub(super) fn new(source: &str) -> Self {
        Self { source: source.chars().collect(), start: 0, end: 0, pending: None, done: false }
    }

    pub(super) fn next_token(&mut self) -> Result<Token, Failure> {
        if let Some(token) = self.pending.take() {
            return Ok(token);
        }
        if self.done {
            return Err(Failure::new(ErrorKind::Syntax, self.end.saturating_sub(1), "unexpected end of expression"));
        }
        loop {
            self.start = self.end;
            let Some(c) = self.bump() else {
                self.done = true;
                return Ok(Token { kind: TokenKind::Eof, text: String::new(), at: self.end.saturating_sub(1) });
            };
            let kind = match c {
                c if c.is_whitespace() => continue,
                '\'' | '"' => return self.string(c, TokenKind::String),
                '`' => return self.raw_string(),
                'b' | 'B' if matches!(self.peek(), Some('\'' | '"')) => {
                    let quote = self.bump().unwrap_or('"');
                    return self.string(quote, TokenKind::Bytes);
                }
                '0'..='9' => return self.number(c),
                '.' => match self.peek() {
                    Some('0'..='9') => return self.number(c),
                    _ => {
                        self.accept(".");
                        TokenKind::Operator
                    }
                },
                '?' => self.operator(".?"),
                '|' => self.operator("|"),
                ':' => self.operator(":"),
                '&' | '!' | '=' | '*' | '<' | '>' => self.operator("&=*"),
                ',' | ';' | '%' | '+' | '-' | '^' => TokenKind::Operator,
                '(' | '[' | '{' | ')' | ']' | '}' => TokenKind::Bracket,
                '/' => {
                    if self.accept("/") {
                        while self.bump().is_some_and(|c| c != '\n') {}
                        continue;
                    }
                    if self.accept("*") {
                        self.block_comment()?;
                        continue;
                    }
                    TokenKind::Operator
                }
                '#' => {
                    self.accept("#");
                    let token = self.token(TokenKind::Operator);
                    self.start = self.end;
                    self.skip_word();
                    if self.end > self.start {
                        self.pending = Some(self.token(TokenKind::Identifier));
                    }
                    return Ok(token);
                }
                c if is_word(c) => return Ok(self.word()),
                c => {
                    let message = format!("unrecognized character: U+{:04X} '{c}'", c as u32);
                    return Err(self.failure(message));
                }
            };
            return Ok(self.token(kind));
        }
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.source.get(self.end).copied()?;
        self.end += 1;
        Some(c)
    }

    fn peek(&self) -> Option<char> {
        self.source.get(self.end).copied()
    }

    fn accept(&mut self, valid: &str) -> bool {
        let accepted = self.peek().is_some_and(|c| valid.contains(c));
        self.end += usize::from(accepted);
        accepted
    }

    fn operator(&mut self, second: &str) -> TokenKind {
        self.accept(second);
        TokenKind::Operator
    }

    fn text(&self) -> String {
        self.source[self.start..self.end].iter().collect()
    }

    fn token(&self, kind: TokenKind) -> Token {
        Token { kind, text: self.text(), at: self.start }
    }

    fn failure(&self, message: impl Into<String>) -> Failure {
        Failure::new(ErrorKind::Syntax, self.end.saturating_sub(1), message)
    }

    fn failure_at_end(&self, message: &str) -> Failure {
        Failure::new(ErrorKind::Syntax, self.end, message)
    }

    fn skip_word(&mut self) {
        while self.peek().is_some_and(is_word) {
            self.end += 1;
        }
    }

    fn word(&mut self) -> Token {
        self.skip_word();
        let mut token = self.token(TokenKind::Identifier);
        match token.text.as_str() {
            "not" => {
                token.kind = TokenKind::Operator;
                self.word_after_not();
            }
            "in" | "or" | "and" | "matches" | "contains" | "startsWith" | "endsWith" | "let" | "if" | "else" => {
                token.kind = TokenKind::Operator;
            }
            _ => {}
        }
        token
    }

    fn word_after_not(&mut self) {
        while self.accept(" ") {}
        self.start = self.end;
        let before = self.end;
        self.skip_word();
        match self.text().as_str() {
            "in" | "matches" | "contains" | "startsWith" | "endsWith" => {
                self.pending = Some(self.token(TokenKind::Operator));
            }
            _ => self.end = before,
        }
    }

    fn block_comment(&mut self) -> Result<(), Failure> {
        loop {
            match self.bump() {
                None => return Err(self.failure_at_end("unclosed comment")),
                Some('*') if self.accept("/") => return Ok(()),
                Some(_) => {}
            }
        }
    }

    fn number(&mut self, first: char) -> Result<Token, Failure> {
        let mut digits = "0123456789_";
        if first == '0' {
            if self.accept("xX") {
                digits = "0123456789abcdefABCDEF_";
            } else if self.accept("oO") {
                digits = "01234567_";
            } else if self.accept("bB") {
                digits = "01_";
            }
        }
        while self.accept(digits) {}
        let before_dot = self.end;
        if self.accept(".") {
            if self.peek() == Some('.') {
                self.end = before_dot;
                return Ok(self.token(TokenKind::Number));
            }
            while self.accept(digits) {}
        }
        if self.accept("eE") {
            self.accept("+-");
            while self.accept(digits) {}
        }
        if self.peek().is_some_and(is_word) {
            self.end += 1;
            return Err(self.failure(format!("bad number syntax: {}", quote(&self.text()))));
        }
        Ok(self.token(TokenKind::Number))
    }

    fn raw_string(&mut self) -> Result<Token, Failure> {
        let mut text = String::new();
        loop {
            match self.bump() {
                None => return Err(self.failure_at_end("literal not terminated")),
                Some('`') if self.accept("`") => text.push('`'),
                Some('`') => return Ok(Token { kind: TokenKind::String, text, at: self.start }),
                Some(c) => text.push(c),
            }
        }
    }

    /// Reads up to the closing quote, then decodes the escapes.
    fn string(&mut self, quote: char, kind: TokenKind) -> Result<Token, Failure> {
        let content = self.end;
        loop {
            match self.bump() {
                None => return Err(self.failure_at_end("literal not terminated")),
                Some('\n') => return Err(self.failure("literal not terminated")),
                Some('\\') => self.skip_escape(quote)?,
                Some(c) if c == quote => break,
                Some(_) => {}
            }
        }
        let raw: String = self.source[content..self.end - 1].iter().collect();
        let decoded = unescape(&raw.replace("\r\n", "\n").replace('\r', "\n"), kind == TokenKind::Bytes);
        let text = decoded.map_err(|message| self.failure(message))?;
        Ok(Token { kind, text, at: self.start })
    }

    fn skip_escape(&mut self, quote: char) -> Result<(), Failure> {
        match self.bump() {
            Some('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\') => Ok(()),
            Some(c) if c == quote => Ok(()),
            Some('0'..='7') => {
                self.end -= 1;
                self.skip_digits(8, 3)
            }
            Some('x') => self.skip_digits(16, 2),
            Some('u') if self.peek() == Some('{') => {
                self.end += 1;
                let first = self.end;
                while self.peek().is_some_and(|c| c.is_ascii_hexdigit()) && self.end - first < 6 {
                    self.end += 1;
                }
                match self.peek() {
                    Some('}') if self.end > first => {
                        self.end += 1;
                        Ok(())
                    }
                    _ => Err(self.failure("invalid char escape")),
                }
            }
            Some('u') => self.skip_digits(16, 4),
            Some('U') => self.skip_digits(16, 8),
            Some(_) => Err(self.failure("invalid char escape")),
            None => Err(self.failure_at_end("invalid char escape")),
        }
    }

    fn skip_digits(&mut self, base: u32, count: usize) -> Result<(), Failure> {
        for _ in 0..count {
            match self.bump() {
                Some(c) if c.is_digit(base) => {}
                Some(_) => return Err(self.failure("invalid char escape")),
                None => return Err(self.failure_at_end("invalid char escape")),
            }
        }
        Ok(())
    }
}

fn is_word(c: char) -> bool {
    c == '_' || c == '$' || c.is_alphabetic() || c.is_numeric()
}

/// Decodes escapes that [`Lexer::skip_escape`] has let pass. In a bytes literal each character of the result is one byte
/// of an escape; characters above U+007F stand for themselves and are told apart by [`byte_values`].
fn unescape(raw: &str, bytes: bool) -> Result<String, &'static str> {
    let mut out = String::with_capacity(raw.len());
    let mut chars = raw.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\\' {
            push_plain(&mut out, c, bytes);
            continue;
        }
        let escape = chars.next().ok_or(UNABLE)?;
        let code = match escape {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => 10,
            'r' => 13,
            't' => 9,
            'v' => 11,
            'x' => digits(&mut chars, 16, 2)?,
            '0'..='3' => (escape as u32 - '0' as u32) * 64 + digits(&mut chars, 8, 2)?,
            'u' | 'U' if bytes => return Err(UNABLE),
            'u' if chars.peek() == Some(&'{') => {
                let code: String = chars.by_ref().skip(1).take_while(|c| *c != '}').collect();
                u32::from_str_radix(&code, 16).map_err(|_| UNABLE)?
            }
            'u' => digits(&mut chars, 16, 4)?,
            'U' => digits(&mut chars, 16, 8)?,
            '4'..='7' => return Err(UNABLE),
            other => other as u32,
        };
        if code > 0x10FFFF {
            return Err(UNABLE);
        }
        // Go encodes a surrogate as the replacement character.
        out.push(char::from_u32(code).unwrap_or('\u{FFFD}'));
    }
    Ok(out)
}

const UNABLE: &str = "unable to unescape string";

fn digits(chars: &mut impl Iterator<Item = char>, base: u32, count: usize) -> Result<u32, &'static str> {
    let mut value = 0u32;
    for _ in 0..count {
        let digit = chars.next().and_then(|c| c.to_digit(base)).ok_or(UNABLE)?;
        value = value.checked_mul(base).and_then(|value| value.checked_add(digit)).ok_or(UNABLE)?;
    }
    Ok(value)
}

/// In a bytes literal a character is written as its UTF-8 bytes, each of which becomes one character U+0000..=U+00FF.
fn push_plain(out: &mut String, c: char, bytes: bool) {
    if bytes {
        out.extend(c.encode_utf8(&mut [0; 4]).bytes().map(char::from));
    } else {
        out.push(c);
    }
}

/// The bytes that the text of a bytes token stands for.
pub(super) fn byte_values(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect()
}

/// A string as Go quotes it.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
