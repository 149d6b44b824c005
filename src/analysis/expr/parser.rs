//! From tokens to the tree: a Pratt parser with Go's precedences and messages.

use super::ast::{Ast, BinaryOp, BuiltinCall, Kind, NodeId, UnaryOp};
use super::builtins::Builtin;
use super::lexer::{Lexer, Token, TokenKind, byte_values};
use super::{ErrorKind, Failure, MAX_DEPTH, MAX_NODES, MAX_SOURCE};

pub(super) fn parse(source: &str) -> Result<(Ast, NodeId), Failure> {
    if source.len() > MAX_SOURCE {
        let message = format!("expression is longer than {MAX_SOURCE} bytes");
        return Err(Failure::new(ErrorKind::Limit, 0, message));
    }
    let mut lexer = Lexer::new(source);
    let current = lexer.next_token()?;
    let mut parser = Parser { lexer, current, stash: None, ast: Ast::default(), predicates: 0, nesting: 0 };
    let root = parser.sequence()?;
    match parser.current.kind {
        TokenKind::Eof => Ok((parser.ast, root)),
        _ => Err(parser.unexpected()),
    }
}

struct Parser {
    lexer: Lexer,
    current: Token,
    /// A token that was read too early, after a `not` that belongs to an outer expression.
    stash: Option<Token>,
    ast: Ast,
    /// How many predicates enclose the current token: only there do `#` and `.field` stand for the element.
    predicates: usize,
    nesting: usize,
}

type Parsed<T = NodeId> = Result<T, Failure>;

const PRECEDENCE_NOT: u32 = 50;
const PRECEDENCE_SIGN: u32 = 90;

fn binary_operator(token: &Token) -> Option<(BinaryOp, &'static str, u32)> {
    if token.kind != TokenKind::Operator {
        return None;
    }
    Some(match token.text.as_str() {
        "|" => (BinaryOp::Pipe, "|", 0),
        "or" => (BinaryOp::Or, "or", 10),
        "||" => (BinaryOp::Or, "||", 10),
        "and" => (BinaryOp::And, "and", 15),
        "&&" => (BinaryOp::And, "&&", 15),
        "==" => (BinaryOp::Equal, "==", 20),
        "!=" => (BinaryOp::NotEqual, "!=", 20),
        "<" => (BinaryOp::Less, "<", 20),
        ">" => (BinaryOp::More, ">", 20),
        ">=" => (BinaryOp::MoreOrEqual, ">=", 20),
        "<=" => (BinaryOp::LessOrEqual, "<=", 20),
        "in" => (BinaryOp::In, "in", 20),
        "matches" => (BinaryOp::Matches, "matches", 20),
        "contains" => (BinaryOp::Contains, "contains", 20),
        "startsWith" => (BinaryOp::StartsWith, "startsWith", 20),
        "endsWith" => (BinaryOp::EndsWith, "endsWith", 20),
        ".." => (BinaryOp::Range, "..", 25),
        "+" => (BinaryOp::Add, "+", 30),
        "-" => (BinaryOp::Subtract, "-", 30),
        "*" => (BinaryOp::Multiply, "*", 60),
        "/" => (BinaryOp::Divide, "/", 60),
        "%" => (BinaryOp::Modulo, "%", 60),
        "**" => (BinaryOp::Power, "**", 100),
        "^" => (BinaryOp::Power, "^", 100),
        "??" => (BinaryOp::Coalesce, "??", 500),
        _ => return None,
    })
}

impl Parser {
    fn sequence(&mut self) -> Parsed {
        let at = self.current.at;
        let first = self.expression(0)?;
        let mut nodes = vec![first];
        while self.at_operator(";") {
            self.advance()?;
            if self.current.kind == TokenKind::Eof {
                break;
            }
            nodes.push(self.expression(0)?);
        }
        match nodes.len() {
            1 => Ok(first),
            _ => self.node(Kind::Sequence(nodes), at),
        }
    }

    fn expression(&mut self, precedence: u32) -> Parsed {
        self.nesting += 1;
        if self.nesting > MAX_DEPTH {
            return Err(self.too_deep());
        }
        let node = match precedence {
            0 if self.at_operator("let") => self.variable_declaration(),
            0 if self.at_operator("if") => self.conditional_if(),
            0 => self.binary(0).and_then(|condition| self.ternary(condition)),
            _ => self.binary(precedence),
        };
        self.nesting -= 1;
        node
    }

    fn binary(&mut self, precedence: u32) -> Parsed {
        let mut left = self.primary()?;
        let mut after_coalesce = false;
        loop {
            let negated = self.at_operator("not");
            if negated {
                let not = self.current.clone();
                self.advance()?;
                match binary_operator(&self.current) {
                    Some((op, _, binding)) if op.may_follow_not() => {
                        if binding < precedence {
                            self.stash = Some(std::mem::replace(&mut self.current, not));
                            return Ok(left);
                        }
                    }
                    _ => return Err(self.unexpected()),
                }
            }
            let Some((op, word, binding)) = binary_operator(&self.current) else { return Ok(left) };
            if binding < precedence {
                return Ok(left);
            }
            let at = self.current.at;
            self.advance()?;
            if op == BinaryOp::Pipe {
                let name = self.current.clone();
                self.expect(TokenKind::Identifier, None)?;
                left = self.call(&name, vec![left])?;
                after_coalesce = false;
                continue;
            }
            if after_coalesce && op != BinaryOp::Coalesce {
                let message = format!(
                    "Operator ({word}) and coalesce expressions (??) cannot be mixed. Wrap either by parentheses."
                );
                return Err(Failure::new(ErrorKind::Syntax, at, message));
            }
            after_coalesce = op == BinaryOp::Coalesce;
            if op.is_comparison() {
                left = self.comparison(left, op, word, at, binding)?;
                continue;
            }
            let right_associative = op == BinaryOp::Power;
            let right = self.expression(if right_associative { binding } else { binding + 1 })?;
            left = self.node(Kind::Binary { op, word, left, right }, at)?;
            if negated {
                left = self.node(Kind::Unary { op: UnaryOp::Not, word: "not", operand: left }, at)?;
            }
        }
    }

    /// `a < b < c` means `a < b && b < c`.
    fn comparison(
        &mut self,
        mut left: NodeId,
        mut op: BinaryOp,
        mut word: &'static str,
        mut at: usize,
        precedence: u32,
    ) -> Parsed {
        let mut all: Option<NodeId> = None;
        loop {
            let right = self.expression(precedence + 1)?;
            let comparison = self.node(Kind::Binary { op, word, left, right }, at)?;
            let chain = match all {
                None => comparison,
                Some(all) => {
                    self.node(Kind::Binary { op: BinaryOp::And, word: "&&", left: all, right: comparison }, at)?
                }
            };
            match binary_operator(&self.current) {
                Some((next, next_word, _)) if next.is_comparison() => (op, word) = (next, next_word),
                _ => return Ok(chain),
            }
            at = self.current.at;
            self.advance()?;
            all = Some(chain);
            left = right;
        }
    }

    fn variable_declaration(&mut self) -> Parsed {
        self.advance()?;
        let name = self.current.clone();
        self.expect(TokenKind::Identifier, None)?;
        self.expect(TokenKind::Operator, Some("="))?;
        let value = self.expression(0)?;
        self.expect(TokenKind::Operator, Some(";"))?;
        let body = self.sequence()?;
        self.node(Kind::Let { name: name.text.into(), value, body }, name.at)
    }

    fn conditional_if(&mut self) -> Parsed {
        self.advance()?;
        let condition = self.expression(0)?;
        let then = self.block()?;
        self.expect(TokenKind::Operator, Some("else"))?;
        // Through `expression`, which guards the depth of a long chain of `else if`.
        let otherwise = if self.at_operator("if") { self.expression(0)? } else { self.block()? };
        // Go gives this node no position.
        self.node(Kind::Conditional { condition, then, otherwise }, 0)
    }

    fn block(&mut self) -> Parsed {
        self.expect(TokenKind::Bracket, Some("{"))?;
        let body = self.sequence()?;
        self.expect(TokenKind::Bracket, Some("}"))?;
        Ok(body)
    }

    fn ternary(&mut self, mut node: NodeId) -> Parsed {
        while self.at_operator("?") {
            self.advance()?;
            let then = if self.at_operator(":") { node } else { self.expression(0)? };
            self.expect(TokenKind::Operator, Some(":"))?;
            let otherwise = self.expression(0)?;
            node = self.node(Kind::Conditional { condition: node, then, otherwise }, self.current.at)?;
        }
        Ok(node)
    }

    fn primary(&mut self) -> Parsed {
        let at = self.current.at;
        if self.current.kind == TokenKind::Operator {
            let unary = match self.current.text.as_str() {
                "not" => Some((UnaryOp::Not, "not", PRECEDENCE_NOT)),
                "!" => Some((UnaryOp::Not, "!", PRECEDENCE_NOT)),
                "-" => Some((UnaryOp::Minus, "-", PRECEDENCE_SIGN)),
                "+" => Some((UnaryOp::Plus, "+", PRECEDENCE_SIGN)),
                _ => None,
            };
            if let Some((op, word, precedence)) = unary {
                self.advance()?;
                let operand = self.expression(precedence)?;
                let node = self.node(Kind::Unary { op, word, operand }, at)?;
                return self.postfix(node);
            }
        }
        if self.at_bracket("(") {
            self.advance()?;
            let inner = self.sequence()?;
            self.expect(TokenKind::Bracket, Some(")"))?;
            return self.postfix(inner);
        }
        if self.predicates > 0 && (self.at_operator("#") || self.at_operator(".")) {
            let mut name = String::new();
            if self.at_operator("#") {
                self.advance()?;
                if self.current.kind == TokenKind::Identifier {
                    name = self.current.text.clone();
                    self.advance()?;
                }
            }
            let node = self.node(Kind::Pointer(name.into()), at)?;
            return self.postfix(node);
        }
        if self.at_operator("::") {
            self.advance()?;
            let name = self.current.clone();
            self.expect(TokenKind::Identifier, None)?;
            let node = self.call(&name, Vec::new())?;
            return self.postfix(node);
        }
        self.operand()
    }

    fn operand(&mut self) -> Parsed {
        let token = self.current.clone();
        let node = match token.kind {
            TokenKind::Identifier => {
                self.advance()?;
                match token.text.as_str() {
                    "true" => return self.node(Kind::Bool(true), token.at),
                    "false" => return self.node(Kind::Bool(false), token.at),
                    "nil" => return self.node(Kind::Nil, token.at),
                    _ if self.at_bracket("(") => self.call(&token, Vec::new())?,
                    name => self.node(Kind::Identifier(name.into()), token.at)?,
                }
            }
            // A number takes no postfix: `1[0]` is a syntax error.
            TokenKind::Number => {
                self.advance()?;
                let kind = self.number(&token.text)?;
                return self.node(kind, token.at);
            }
            TokenKind::String => {
                self.advance()?;
                self.node(Kind::Str(token.text.into()), token.at)?
            }
            TokenKind::Bytes => {
                self.advance()?;
                self.node(Kind::Bytes(byte_values(&token.text).into()), token.at)?
            }
            _ if self.at_bracket("[") => self.array(token.at)?,
            _ if self.at_bracket("{") => self.map(token.at)?,
            _ => return Err(self.unexpected()),
        };
        self.postfix(node)
    }

    fn number(&self, text: &str) -> Parsed<Kind> {
        let digits = text.replace('_', "");
        let lower = digits.to_lowercase();
        let prefixed = |prefix: &str| lower.strip_prefix(prefix);
        let (what, value) = if let Some(hex) = prefixed("0x") {
            ("hex", i64::from_str_radix(hex, 16))
        } else if lower.contains(['.', 'e']) {
            return match digits.parse::<f64>() {
                Ok(value) if value.is_finite() => Ok(Kind::Float(value)),
                Ok(_) => Err(self.bad_number("float", "ParseFloat", &digits, "value out of range")),
                Err(_) => Err(self.bad_number("float", "ParseFloat", &digits, "invalid syntax")),
            };
        } else if let Some(binary) = prefixed("0b") {
            ("binary", i64::from_str_radix(binary, 2))
        } else if let Some(octal) = prefixed("0o") {
            ("octal", i64::from_str_radix(octal, 8))
        } else {
            ("integer", digits.parse::<i64>())
        };
        value.map(Kind::Int).map_err(|error| {
            let reason = match error.kind() {
                std::num::IntErrorKind::PosOverflow => "value out of range",
                _ => "invalid syntax",
            };
            self.bad_number(what, "ParseInt", &digits, reason)
        })
    }

    fn bad_number(&self, what: &str, function: &str, digits: &str, reason: &str) -> Failure {
        self.error(format!("invalid {what} literal: strconv.{function}: parsing \"{digits}\": {reason}"))
    }

    fn call(&mut self, name: &Token, arguments: Vec<NodeId>) -> Parsed {
        match Builtin::named(&name.text) {
            Some(builtin) => {
                let arguments = match builtin.predicate_arguments() {
                    Some(shape) => self.predicate_arguments(shape, arguments)?,
                    None => self.arguments(arguments)?,
                };
                let call = BuiltinCall { builtin, arguments, throws: false, threshold: None };
                self.node(Kind::Builtin(call), name.at)
            }
            None => {
                let callee = self.node(Kind::Identifier(name.text.as_str().into()), name.at)?;
                let arguments = self.arguments(arguments)?;
                self.node(Kind::Call { callee, arguments }, name.at)
            }
        }
    }

    /// `given` holds what a pipe has put in the first place.
    fn arguments(&mut self, given: Vec<NodeId>) -> Parsed<Vec<NodeId>> {
        let from_pipe = given.len();
        let mut arguments = given;
        self.expect(TokenKind::Bracket, Some("("))?;
        while !self.at_bracket(")") {
            if arguments.len() > from_pipe {
                self.expect(TokenKind::Operator, Some(","))?;
            }
            if self.at_bracket(")") {
                break;
            }
            arguments.push(self.expression(0)?);
        }
        self.expect(TokenKind::Bracket, Some(")"))?;
        Ok(arguments)
    }

    fn predicate_arguments(&mut self, shape: &[Argument], given: Vec<NodeId>) -> Parsed<Vec<NodeId>> {
        let shape = &shape[given.len().min(shape.len())..];
        let mut arguments = given;
        self.expect(TokenKind::Bracket, Some("("))?;
        for (position, argument) in shape.iter().enumerate() {
            if self.at_bracket(")") {
                match argument {
                    Argument::OptionalExpression | Argument::OptionalPredicate => break,
                    Argument::Expression | Argument::Predicate => {
                        return Err(self.error(format!("expected at least {} arguments", shape.len())));
                    }
                }
            }
            if position > 0 {
                self.expect(TokenKind::Operator, Some(","))?;
            }
            arguments.push(match argument {
                Argument::Expression | Argument::OptionalExpression => self.expression(0)?,
                Argument::Predicate | Argument::OptionalPredicate => self.predicate()?,
            });
        }
        if self.at_operator(",") {
            self.advance()?;
        }
        self.expect(TokenKind::Bracket, Some(")"))?;
        Ok(arguments)
    }

    fn predicate(&mut self) -> Parsed {
        let at = self.current.at;
        self.predicates += 1;
        let body = if self.at_bracket("{") {
            self.advance()?;
            self.sequence()?
        } else {
            let body = self.expression(0)?;
            if self.at_operator(";") {
                return Err(self.error("wrap predicate with brackets { and }"));
            }
            self.predicates -= 1;
            return self.node(Kind::Predicate(body), at);
        };
        self.predicates -= 1;
        self.expect(TokenKind::Bracket, Some("}"))?;
        self.node(Kind::Predicate(body), at)
    }

    fn array(&mut self, at: usize) -> Parsed {
        self.advance()?;
        let mut nodes = Vec::new();
        while !self.at_bracket("]") {
            if !nodes.is_empty() {
                self.expect(TokenKind::Operator, Some(","))?;
                if self.at_bracket("]") {
                    break;
                }
            }
            nodes.push(self.expression(0)?);
        }
        self.advance()?;
        self.node(Kind::Array(nodes), at)
    }

    fn map(&mut self, at: usize) -> Parsed {
        self.advance()?;
        let mut pairs = Vec::new();
        while !self.at_bracket("}") {
            if !pairs.is_empty() {
                self.expect(TokenKind::Operator, Some(","))?;
                if self.at_bracket("}") {
                    break;
                }
                if self.at_operator(",") {
                    return Err(self.unexpected());
                }
            }
            let key = match self.current.kind {
                TokenKind::Number | TokenKind::String | TokenKind::Identifier => {
                    let key = self.node(Kind::Str(self.current.text.as_str().into()), self.current.at)?;
                    self.advance()?;
                    key
                }
                _ if self.at_bracket("(") => self.expression(0)?,
                _ => {
                    return Err(self.error(format!(
                        "a map key must be a quoted string, a number, a identifier, or an expression enclosed in \
                         parentheses (unexpected token {})",
                        self.current
                    )));
                }
            };
            self.expect(TokenKind::Operator, Some(":"))?;
            let value = self.expression(0)?;
            pairs.push((key, value));
        }
        self.advance()?;
        self.node(Kind::Map(pairs), at)
    }

    fn postfix(&mut self, mut node: NodeId) -> Parsed {
        loop {
            let optional = self.at_operator("?.");
            if optional || self.at_operator(".") {
                self.advance()?;
                node = match optional && self.at_bracket("[") {
                    true => self.index_or_slice(node, true)?,
                    false => self.field(node, optional)?,
                };
            } else if self.at_bracket("[") {
                node = self.index_or_slice(node, false)?;
            } else {
                return Ok(node);
            }
        }
    }

    fn field(&mut self, base: NodeId, optional: bool) -> Parsed {
        let name = self.current.clone();
        self.advance()?;
        let is_name = match name.kind {
            TokenKind::Identifier => true,
            // Words like `not` and `matches` are good names of a field.
            TokenKind::Operator => name.text.chars().all(|c| c == '_' || c.is_alphanumeric()),
            _ => false,
        };
        if !is_name {
            return Err(self.error("expected name"));
        }
        let property = self.node(Kind::Str(name.text.as_str().into()), name.at)?;
        // `a?.b.c` is one chain: a nil anywhere makes all of it nil.
        let chained = match self.ast.kind(base) {
            Kind::Chain(inner) => Some(*inner),
            _ => None,
        };
        let base = chained.unwrap_or(base);
        let method = self.at_bracket("(");
        let mut node = self.node(Kind::Member { base, property, optional, method }, name.at)?;
        if method {
            let arguments = self.arguments(Vec::new())?;
            node = self.node(Kind::Call { callee: node, arguments }, name.at)?;
        }
        match chained.is_some() || optional {
            true => self.node(Kind::Chain(node), name.at),
            false => Ok(node),
        }
    }

    fn index_or_slice(&mut self, base: NodeId, optional: bool) -> Parsed {
        let at = self.current.at;
        self.advance()?;
        let from = if self.at_operator(":") { None } else { Some(self.expression(0)?) };
        let node = if self.at_operator(":") {
            self.advance()?;
            let to = if self.at_bracket("]") { None } else { Some(self.expression(0)?) };
            self.node(Kind::Slice { base, from, to }, at)?
        } else {
            // Without a `from` the current token is a colon.
            let Some(property) = from else { return Err(self.unexpected()) };
            let node = self.node(Kind::Member { base, property, optional, method: false }, at)?;
            if optional { self.node(Kind::Chain(node), at)? } else { node }
        };
        self.expect(TokenKind::Bracket, Some("]"))?;
        Ok(node)
    }

    fn node(&mut self, kind: Kind, at: usize) -> Parsed {
        if self.ast.len() >= MAX_NODES {
            let message = "compilation failed: expression exceeds maximum allowed nodes";
            return Err(Failure::new(ErrorKind::Limit, self.current.at, message));
        }
        let id = self.ast.add(kind, at);
        if self.ast.node(id).depth > MAX_DEPTH {
            return Err(self.too_deep());
        }
        Ok(id)
    }

    fn at_operator(&self, text: &str) -> bool {
        self.current.is(TokenKind::Operator, text)
    }

    fn at_bracket(&self, text: &str) -> bool {
        self.current.is(TokenKind::Bracket, text)
    }

    fn advance(&mut self) -> Parsed<()> {
        self.current = match self.stash.take() {
            Some(token) => token,
            None => self.lexer.next_token()?,
        };
        Ok(())
    }

    fn expect(&mut self, kind: TokenKind, text: Option<&str>) -> Parsed<()> {
        if self.current.kind == kind && text.is_none_or(|text| self.current.text == text) {
            return self.advance();
        }
        Err(self.unexpected())
    }

    fn unexpected(&self) -> Failure {
        self.error(format!("unexpected token {}", self.current))
    }

    fn error(&self, message: impl Into<String>) -> Failure {
        Failure::new(ErrorKind::Syntax, self.current.at, message)
    }

    fn too_deep(&self) -> Failure {
        let message = format!("expression is nested deeper than {MAX_DEPTH} levels");
        Failure::new(ErrorKind::Limit, self.current.at, message)
    }
}

/// What a built-in with a predicate takes in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Argument {
    Expression,
    Predicate,
    OptionalExpression,
    OptionalPredicate,
}
