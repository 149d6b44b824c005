//! The JSONPath dialect of Kubernetes (`{$.data.ok}`), as the web provider uses it: observably equal to
//! `k8s.io/client-go/util/jsonpath` v0.34 without `AllowMissingKeys`, on documents whose numbers are all floats.
//!
//! Two of its properties surprise: a number in a filter must be written as a float (`@.x == 1.0`), since an integer is not
//! comparable with a float, and a filter fails as a whole when one element lacks the field that it looks at.
//!
//! A path comes from a user and the document from a stranger, so paths, nesting and results are limited.

mod parser;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value;

use self::parser::{Bounds, Node};

/// Bytes of a path.
pub const MAX_PATH: usize = 16 << 10;
/// Nesting of filters and of ranges.
pub const MAX_DEPTH: usize = 32;
/// Values that the steps of one path may yield together: `{..*..*..*}` grows with the power of the document.
pub const MAX_RESULTS: usize = 1_000_000;

/// A parsed path, or a template with several: text outside of braces is a result of its own.
#[derive(Debug, Clone)]
pub struct JsonPath {
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonPathError {
    /// The path is none.
    #[error("{0}")]
    Syntax(String),
    /// The path does not fit the document.
    #[error("{0}")]
    Find(String),
    /// The path, or what it yields, is too large.
    #[error("{0}")]
    Limit(String),
}

/// What one action or text yields.
pub type Results<'a> = Vec<Cow<'a, Value>>;

impl JsonPath {
    /// # Errors
    /// What is no path is [`JsonPathError::Syntax`], in Go's words.
    pub fn parse(path: &str) -> Result<Self, JsonPathError> {
        if path.len() > MAX_PATH {
            return Err(JsonPathError::Limit(format!("path is longer than {MAX_PATH} bytes")));
        }
        Ok(Self { nodes: parser::parse(path, 0)? })
    }

    /// One set of results for each action and each text, in their order; a range yields those of each of its rounds.
    /// Members of an object come in the order of their names (in Go: in any).
    ///
    /// # Errors
    /// A key that is missing, an index out of bounds, a value of the wrong type.
    pub fn find<'a>(&self, document: &'a Value) -> Result<Vec<Results<'a>>, JsonPathError> {
        let mut finder = Finder { ranges: 0, range_begins: false, range_ends: 0, last_end: None, results: 0 };
        finder.find(&self.nodes, 0, Cow::Borrowed(document))
    }
}

struct Finder {
    /// Ranges around the current node.
    ranges: usize,
    /// The node just evaluated was a `range`.
    range_begins: bool,
    /// `end`s that have been met and not yet been acted upon.
    range_ends: usize,
    /// Where the last of them is.
    last_end: Option<usize>,
    results: usize,
}

/// A failure, with what was there when it happened: Go's filter for existence goes by that.
struct Stop<'a> {
    values: Results<'a>,
    error: JsonPathError,
}

type Walked<'a> = Result<Results<'a>, Stop<'a>>;

fn stop<'a>(values: Results<'a>, message: impl Into<String>) -> Stop<'a> {
    Stop { values, error: JsonPathError::Find(message.into()) }
}

impl Finder {
    /// Evaluates the nodes from `first` on, up to the `end` of the range that they are in.
    fn find<'a>(
        &mut self,
        nodes: &[Node],
        first: usize,
        document: Cow<'a, Value>,
    ) -> Result<Vec<Results<'a>>, JsonPathError> {
        let mut all = Vec::new();
        let mut position = first;
        while let Some(node) = nodes.get(position) {
            let results = self.walk(vec![document.clone()], node).map_err(|stop| stop.error)?;
            if self.range_ends > 0 && self.range_ends <= self.ranges {
                self.range_ends -= 1;
                self.last_end = Some(position);
                break;
            }
            position += 1;
            if !std::mem::take(&mut self.range_begins) {
                all.push(results);
                continue;
            }
            self.ranges += 1;
            if self.ranges > MAX_DEPTH {
                return Err(JsonPathError::Limit(format!("ranges are nested deeper than {MAX_DEPTH} levels")));
            }
            if results.is_empty() {
                // To find the end; what it yields is dropped, but it can fail.
                self.find(nodes, position, Cow::Owned(Value::Null))?;
            }
            for value in results {
                all.extend(self.find(nodes, position, value)?);
            }
            self.ranges -= 1;
            if let Some(end) = self.last_end.filter(|end| *end >= position) {
                position = end + 1;
            }
        }
        Ok(all)
    }

    fn walk<'a>(&mut self, input: Results<'a>, node: &Node) -> Walked<'a> {
        let output = match node {
            Node::List(nodes) => self.list(input, nodes)?,
            Node::Text(text) => vec![Cow::Owned(Value::String(text.clone()))],
            Node::Literal(value) => input.iter().map(|_| Cow::Owned(value.clone())).collect(),
            Node::Field(name) => field(input, name)?,
            Node::Array(bounds) => array(input, bounds)?,
            Node::Wildcard => input.iter().flat_map(children).collect(),
            Node::Recursive => {
                let mut found = Vec::new();
                self.recurse(input, &mut found)?;
                found
            }
            Node::Union(lists) => {
                let mut found = Vec::new();
                for nodes in lists {
                    match self.list(input.clone(), nodes) {
                        Ok(values) => found.extend(values),
                        Err(failed) => return Err(Stop { values: input, ..failed }),
                    }
                }
                found
            }
            Node::Filter { left, operator, right } => self.filter(input, left, operator, right)?,
            Node::Identifier(name) => self.identifier(input, name)?,
        };
        self.count(output.len())?;
        Ok(output)
    }

    fn count<'a>(&mut self, found: usize) -> Result<(), Stop<'a>> {
        self.results += 1 + found;
        if self.results > MAX_RESULTS {
            let error = JsonPathError::Limit(format!("path yields more than {MAX_RESULTS} values"));
            return Err(Stop { values: Vec::new(), error });
        }
        Ok(())
    }

    fn list<'a>(&mut self, mut values: Results<'a>, nodes: &[Node]) -> Walked<'a> {
        for node in nodes {
            values = self.walk(values, node)?;
        }
        Ok(values)
    }

    fn identifier<'a>(&mut self, input: Results<'a>, name: &str) -> Walked<'a> {
        match name {
            "range" => {
                self.range_begins = true;
                Ok(input)
            }
            "end" if self.ranges > 0 => {
                self.range_ends += 1;
                Ok(Vec::new())
            }
            "end" => Err(stop(Vec::new(), "not in range, nothing to end")),
            _ => Err(stop(input, format!("unrecognized identifier {name}"))),
        }
    }

    /// Everything that has children, parents first. The document's depth is limited by its parser.
    fn recurse<'a>(&mut self, input: Results<'a>, found: &mut Results<'a>) -> Result<(), Stop<'a>> {
        for value in input {
            let children = children(&value);
            if !children.is_empty() {
                self.count(children.len())?;
                found.push(value);
                self.recurse(children, found)?;
            }
        }
        Ok(())
    }

    fn filter<'a>(&mut self, input: Results<'a>, left: &[Node], operator: &str, right: &[Node]) -> Walked<'a> {
        let mut found = Vec::new();
        for value in &input {
            let Value::Array(_) = &**value else {
                // Go prints the value; a document can be large, and secret.
                let message = format!("{} is not array or slice and cannot be filtered", type_name(value));
                return Err(stop(input.clone(), message));
            };
            for element in children(value) {
                let lefts = self.list(vec![element.clone()], left);
                if operator == "exists" {
                    // Whatever went wrong: what counts is whether something is left.
                    let left = match lefts {
                        Ok(values) => values,
                        Err(Stop { error: error @ JsonPathError::Limit(_), values }) => {
                            return Err(Stop { values, error });
                        }
                        Err(Stop { values, .. }) => values,
                    };
                    if !left.is_empty() {
                        found.push(element);
                    }
                    continue;
                }
                let Some(a) = single(lefts, &input)? else { continue };
                let rights = self.list(vec![element.clone()], right);
                let Some(b) = single(rights, &input)? else { continue };
                if compare(operator, a, b).map_err(|message| stop(found.clone(), message))? {
                    found.push(element);
                }
            }
        }
        Ok(found)
    }
}

/// The one value that a side of a comparison has, if it has any.
fn single<'a>(side: Walked<'a>, input: &Results<'a>) -> Result<Option<Cow<'a, Value>>, Stop<'a>> {
    let mut values = side.map_err(|failed| Stop { values: input.clone(), ..failed })?;
    match values.len() {
        0 | 1 => Ok(values.pop()),
        _ => Err(stop(input.clone(), "can only compare one element at a time")),
    }
}

/// The elements of an array, the values of an object, and, as in Go, the bytes of a string.
fn children<'a>(value: &Cow<'a, Value>) -> Results<'a> {
    match value {
        Cow::Borrowed(Value::Array(items)) => items.iter().map(Cow::Borrowed).collect(),
        Cow::Borrowed(Value::Object(fields)) => fields.values().map(Cow::Borrowed).collect(),
        Cow::Owned(Value::Array(items)) => items.iter().cloned().map(Cow::Owned).collect(),
        Cow::Owned(Value::Object(fields)) => fields.values().cloned().map(Cow::Owned).collect(),
        other => match &**other {
            Value::String(text) => text.bytes().map(|byte| Cow::Owned(Value::from(byte))).collect(),
            _ => Vec::new(),
        },
    }
}

fn field<'a>(input: Results<'a>, name: &str) -> Walked<'a> {
    if input.is_empty() {
        return Ok(input);
    }
    let found: Results<'a> = input
        .into_iter()
        .filter_map(|value| match value {
            Cow::Borrowed(value) => value.as_object()?.get(name).map(Cow::Borrowed),
            Cow::Owned(value) => value.as_object()?.get(name).cloned().map(Cow::Owned),
        })
        .collect();
    match found.is_empty() {
        true => Err(stop(found, format!("{name} is not found"))),
        false => Ok(found),
    }
}

fn array<'a>(input: Results<'a>, bounds: &Bounds) -> Walked<'a> {
    let mut found = Vec::new();
    for value in &input {
        let length = match &**value {
            Value::Array(items) => items.len() as i64,
            Value::Null => continue,
            other => return Err(stop(input.clone(), format!("{} is not array or slice", type_name(other)))),
        };
        let from = match bounds.from {
            Some(from) if from < 0 => from.saturating_add(length),
            Some(from) => from,
            None => 0,
        };
        let to = match bounds.to {
            // `[-1]` is read as `[-1:0]`.
            Some(0) if bounds.to_is_derived => length,
            Some(to) if to < 0 => to.saturating_add(length),
            Some(to) => to,
            None => length,
        };
        if from == to {
            return Ok(found);
        }
        let out_of_bounds = |index: i64| format!("array index out of bounds: index {index}, length {length}");
        let message = if from >= length || from < 0 {
            out_of_bounds(from)
        } else if to > length || to < 0 {
            out_of_bounds(to - 1)
        } else if from > to {
            format!("starting index {from} is greater than ending index {to}")
        } else if bounds.step.is_some_and(|step| step <= 0) {
            "step must be > 0".to_owned()
        } else {
            String::new()
        };
        if !message.is_empty() {
            return Err(stop(input.clone(), message));
        }
        // All of them have been found to be in 0..=length, or above zero.
        let (skip, take) = (from as usize, (to - from) as usize);
        let step = bounds.step.map_or(1, |step| usize::try_from(step).unwrap_or(usize::MAX));
        found.extend(children(value).into_iter().skip(skip).take(take).step_by(step));
    }
    Ok(found)
}

fn compare(operator: &str, a: Cow<'_, Value>, b: Cow<'_, Value>) -> Result<bool, String> {
    let known = ["<", ">", "==", "!=", "<=", ">="].contains(&operator);
    if !known {
        return Err(format!("unrecognized filter operator {operator}"));
    }
    let (kind_a, kind_b) =
        (kind(a.as_ref(), matches!(a, Cow::Owned(_)))?, kind(b.as_ref(), matches!(b, Cow::Owned(_)))?);
    if kind_a != kind_b {
        return Err("incompatible types for comparison".into());
    }
    let ordering = match (a.as_ref(), b.as_ref()) {
        (Value::Number(a), Value::Number(b)) if kind_a == Kind::Float => {
            a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Less)
        }
        (Value::Number(a), Value::Number(b)) => a.as_i64().cmp(&b.as_i64()),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) if matches!(operator, "==" | "!=") => a.cmp(b),
        _ => return Err(BAD_TYPE.into()),
    };
    Ok(match operator {
        "<" => ordering.is_lt(),
        ">" => ordering.is_gt(),
        "<=" => ordering.is_le(),
        ">=" => ordering.is_ge(),
        "!=" => ordering.is_ne(),
        _ => ordering.is_eq(),
    })
}

const BAD_TYPE: &str = "invalid type for comparison";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool,
    Int,
    Float,
    String,
}

/// A number of the document is a float even if it is whole. It is always borrowed, and what the path makes (its literals,
/// the bytes of strings) is always owned.
fn kind(value: &Value, made_by_path: bool) -> Result<Kind, String> {
    match value {
        Value::Bool(_) => Ok(Kind::Bool),
        Value::Number(number) if made_by_path && !number.is_f64() => Ok(Kind::Int),
        Value::Number(_) => Ok(Kind::Float),
        Value::String(_) => Ok(Kind::String),
        Value::Null | Value::Array(_) | Value::Object(_) => Err(BAD_TYPE.into()),
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
