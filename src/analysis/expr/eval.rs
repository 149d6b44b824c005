//! The evaluation: a walk over the checked tree within a budget.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ast::{Ast, BinaryOp, BuiltinCall, Kind, NodeId, UnaryOp};
use super::budget::{Budget, is_limit};
use super::builtins::Builtin;
use super::operators::{self, as_bool, as_string, conversion};
use super::pattern::Pattern;
use super::types::Type;
use super::value::{Key, MapKind, Slice, Value};
use super::{Environment, ErrorKind, Failure, library, pattern};

pub(super) fn evaluate(
    ast: &Ast,
    root: NodeId,
    environment: &Environment,
    budget: &mut Budget,
) -> Result<Value, Failure> {
    let mut evaluator =
        Evaluator { ast, environment, budget, variables: Vec::new(), scopes: Vec::new(), patterns: BTreeMap::new() };
    match evaluator.eval(root) {
        Ok(value) => Ok(value),
        Err(Stop::Failed(failure)) => Err(failure),
        // The parser puts every optional access into a chain.
        Err(Stop::NilInChain) => Ok(Value::Nil),
    }
}

struct Evaluator<'a> {
    ast: &'a Ast,
    environment: &'a Environment,
    budget: &'a mut Budget,
    variables: Vec<(Arc<str>, Value)>,
    scopes: Vec<Scope>,
    patterns: BTreeMap<Arc<str>, Pattern>,
}

/// The loop of one predicate.
struct Scope {
    collection: Value,
    index: usize,
    accumulator: Value,
}

enum Stop {
    Failed(Failure),
    /// An optional access met nil: the chain around it is nil.
    NilInChain,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

type Evaluated<T = Value> = Result<T, Stop>;

impl Evaluator<'_> {
    fn eval(&mut self, id: NodeId) -> Evaluated {
        let ast = self.ast;
        let step = self.budget.step();
        self.located(id, step)?;
        match ast.kind(id) {
            Kind::Nil => Ok(Value::Nil),
            Kind::Bool(bool) => Ok(Value::Bool(*bool)),
            Kind::Int(int) => Ok(Value::Int(*int)),
            Kind::Float(float) => Ok(Value::Float(*float)),
            Kind::Str(text) => Ok(Value::String(text.clone())),
            Kind::Identifier(name) => Ok(self.identifier(name)),
            Kind::Pointer(name) => self.pointer(id, name),
            Kind::Binary { .. } => self.binary_spine(id),
            Kind::Unary { op, operand, .. } => self.unary(id, *op, *operand),
            Kind::Builtin(call) if call.builtin.predicate_arguments().is_some() => self.predicate_builtin(id, call),
            Kind::Builtin(call) => self.builtin(id, call),
            Kind::Member { base, property, optional, .. } => self.member(id, *base, *property, *optional),
            Kind::Predicate(body) => self.eval(*body),
            Kind::Conditional { condition, then, otherwise } => {
                let condition = self.eval(*condition)?;
                let holds = self.located(id, as_bool(&condition))?;
                self.eval(if holds { *then } else { *otherwise })
            }
            Kind::Chain(inner) => match self.eval(*inner) {
                Err(Stop::NilInChain) => Ok(Value::Nil),
                outcome => outcome,
            },
            Kind::Let { name, value, body } => {
                let value = self.eval(*value)?;
                self.variables.push((name.clone(), value));
                let outcome = self.eval(*body);
                self.variables.pop();
                outcome
            }
            Kind::Sequence(nodes) => {
                let mut last = Value::Nil;
                for node in nodes {
                    last = self.eval(*node)?;
                }
                Ok(last)
            }
            Kind::Array(nodes) => self.array(id, nodes),
            Kind::Map(pairs) => self.map(id, pairs),
            Kind::Slice { base, from, to } => self.slice(id, *base, *from, *to),
            Kind::Call { callee, arguments } => self.call(id, *callee, arguments),
            Kind::SumOf(items) => self.sum_of(id, items),
            Kind::InStrings { needle, set } => self.in_strings(id, *needle, set),
            Kind::Bytes(bytes) => {
                let items = bytes.iter().map(|byte| Value::Int(i64::from(*byte))).collect();
                Ok(Value::list_of(Slice::Bytes, items))
            }
        }
    }

    /// An error of this node.
    fn located<T>(&self, id: NodeId, outcome: Result<T, String>) -> Evaluated<T> {
        outcome.map_err(|message| {
            let kind = if is_limit(&message) { ErrorKind::Limit } else { ErrorKind::Runtime };
            Stop::Failed(Failure::new(kind, self.ast.node(id).at, message))
        })
    }

    fn fail<T>(&self, id: NodeId, message: impl Into<String>) -> Evaluated<T> {
        self.located(id, Err(message.into()))
    }

    fn identifier(&self, name: &str) -> Value {
        match self.variables.iter().rev().find(|(variable, _)| &**variable == name) {
            Some((_, value)) => value.clone(),
            None if name == "$env" => self.environment.as_map(),
            None => self.environment.value_of(name).unwrap_or(Value::Nil),
        }
    }

    fn pointer(&self, id: NodeId, name: &str) -> Evaluated {
        // The check has refused pointers outside of predicates.
        let Some(scope) = self.scopes.last() else { return Ok(Value::Nil) };
        match (name, &scope.collection) {
            ("index", _) => Ok(Value::Int(scope.index as i64)),
            ("acc", _) => Ok(scope.accumulator.clone()),
            (_, Value::List(list)) => Ok(list.items[scope.index].clone()),
            (_, Value::String(text)) => Ok(Value::Int(i64::from(text.as_bytes()[scope.index]))),
            (_, other) => self.fail(id, format!("reflect: call of reflect.Value.Index on {} Value", other.kind_name())),
        }
    }

    fn unary(&mut self, id: NodeId, op: UnaryOp, operand: NodeId) -> Evaluated {
        let value = self.eval(operand)?;
        let outcome = match op {
            UnaryOp::Not => as_bool(&value).map(|bool| Value::Bool(!bool)),
            UnaryOp::Minus => operators::negate(&value),
            UnaryOp::Plus => Ok(value),
        };
        self.located(id, outcome)
    }

    fn binary_spine(&mut self, id: NodeId) -> Evaluated {
        let (operators, leftmost) = self.ast.left_spine(id);
        let mut value = self.eval(leftmost)?;
        for operator in operators.into_iter().rev() {
            if let Kind::Binary { op, word, left, right } = *self.ast.kind(operator) {
                let step = self.budget.step();
                self.located(operator, step)?;
                value = self.binary(operator, op, word, left, value, right)?;
            }
        }
        Ok(value)
    }

    fn binary(&mut self, id: NodeId, op: BinaryOp, word: &str, left: NodeId, a: Value, right: NodeId) -> Evaluated {
        match op {
            BinaryOp::Or | BinaryOp::And => {
                let decided = self.located(id, as_bool(&a))? == (op == BinaryOp::Or);
                return if decided { Ok(a) } else { self.eval(right) };
            }
            BinaryOp::Coalesce => return if a.is_nil() { self.eval(right) } else { Ok(a) },
            _ => {}
        }
        let b = self.eval(right)?;
        let budget = &mut *self.budget;
        let outcome = match op {
            BinaryOp::Equal | BinaryOp::NotEqual => equal(&a, &b, (self.ast.ty(left), self.ast.ty(right)), budget)
                .map(|equal| Value::Bool(equal == (op == BinaryOp::Equal))),
            BinaryOp::Less | BinaryOp::LessOrEqual | BinaryOp::More | BinaryOp::MoreOrEqual => {
                operators::compare(op, word, &a, &b, budget).map(Value::Bool)
            }
            BinaryOp::Add => operators::add(&a, &b, budget),
            BinaryOp::Subtract => operators::subtract(&a, &b),
            BinaryOp::Multiply => operators::multiply(&a, &b),
            BinaryOp::Divide => operators::divide(&a, &b),
            BinaryOp::Modulo => operators::modulo(&a, &b),
            BinaryOp::Power => operators::power(&a, &b),
            BinaryOp::Range => operators::range(&a, &b, budget),
            BinaryOp::In => operators::contained(&a, &b, budget).map(Value::Bool),
            BinaryOp::Matches => self.matches(&a, &b).map(Value::Bool),
            BinaryOp::Contains | BinaryOp::StartsWith | BinaryOp::EndsWith => {
                search(op, &a, &b, budget).map(Value::Bool)
            }
            BinaryOp::Pipe | BinaryOp::Or | BinaryOp::And | BinaryOp::Coalesce => Ok(a),
        };
        self.located(id, outcome)
    }

    fn matches(&mut self, text: &Value, expression: &Value) -> Result<bool, String> {
        if text.is_nil() || expression.is_nil() {
            return Ok(false);
        }
        let expression = as_string(expression)?;
        let bytes: Vec<u8> = match text {
            Value::String(text) => text.as_bytes().to_vec(),
            Value::List(list) if list.slice == Slice::Bytes => {
                list.items.iter().map(|item| if let Value::Int(byte) = item { *byte as u8 } else { 0 }).collect()
            }
            other => return Err(conversion(other, "[]uint8")),
        };
        if !self.patterns.contains_key(expression) {
            let compiled = pattern::compile(expression, self.budget)?;
            self.patterns.insert(expression.clone(), compiled);
        }
        self.budget.steps(bytes.len() / 4)?;
        Ok(self.patterns.get(expression).is_some_and(|pattern| pattern.is_match(&bytes)))
    }

    fn in_strings(&mut self, id: NodeId, needle: NodeId, set: &[Arc<str>]) -> Evaluated {
        let needle = self.eval(needle)?;
        let key = match &needle {
            Value::String(text) => text.clone(),
            Value::Nil => "".into(),
            other => {
                let found = other.type_name();
                let message = format!("reflect.Value.MapIndex: value of type {found} is not assignable to type string");
                return self.fail(id, message);
            }
        };
        Ok(Value::Bool(set.binary_search(&key).is_ok()))
    }

    fn member(&mut self, id: NodeId, base: NodeId, property: NodeId, optional: bool) -> Evaluated {
        let base = self.eval(base)?;
        if optional && base.is_nil() {
            return Err(Stop::NilInChain);
        }
        let property = self.eval(property)?;
        let outcome = operators::fetch(&base, &property, self.budget);
        self.located(id, outcome)
    }

    fn slice(&mut self, id: NodeId, base: NodeId, from: Option<NodeId>, to: Option<NodeId>) -> Evaluated {
        let base = self.eval(base)?;
        let to = match (to, &base) {
            (Some(to), _) => self.eval(to)?,
            (None, Value::List(list)) => Value::Int(list.items.len() as i64),
            (None, Value::String(text)) => Value::Int(text.len() as i64),
            (None, Value::Map(map)) => Value::Int(map.entries.len() as i64),
            (None, other) => {
                return self.fail(id, format!("invalid argument for len (type {})", other.type_name()));
            }
        };
        let from = match from {
            Some(from) => self.eval(from)?,
            None => Value::Int(0),
        };
        let outcome = operators::slice(&base, &from, &to, self.budget);
        self.located(id, outcome)
    }

    fn call(&mut self, id: NodeId, callee: NodeId, arguments: &[NodeId]) -> Evaluated {
        let arguments = self.eval_all(arguments)?;
        let outcome = match self.eval(callee)? {
            Value::Function(function) => function.call(&arguments, self.environment.result()),
            Value::Nil => Err("invalid operation: cannot call nil".into()),
            other => Err(format!("invalid operation: cannot call non-function of type {}", other.type_name())),
        };
        self.located(id, outcome)
    }

    fn eval_all(&mut self, nodes: &[NodeId]) -> Evaluated<Vec<Value>> {
        let mut values = Vec::with_capacity(nodes.len());
        for node in nodes {
            values.push(self.eval(*node)?);
        }
        Ok(values)
    }

    fn array(&mut self, id: NodeId, nodes: &[NodeId]) -> Evaluated {
        let items = self.eval_all(nodes)?;
        let outcome = self.budget.elements(items.len()).and_then(|()| Value::list(items));
        self.located(id, outcome)
    }

    fn map(&mut self, id: NodeId, pairs: &[(NodeId, NodeId)]) -> Evaluated {
        let mut entries = BTreeMap::new();
        // Go stores the pairs from the last to the first, so that the first of equal keys stays.
        let mut values = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            values.push((self.eval(*key)?, self.eval(*value)?));
        }
        let elements = self.budget.elements(values.len());
        self.located(id, elements)?;
        for (key, value) in values.into_iter().rev() {
            let key = self.located(id, as_string(&key).cloned())?;
            entries.insert(Key::String(key), value);
        }
        self.located(id, Value::map(MapKind::Strings, entries))
    }

    fn builtin(&mut self, id: NodeId, call: &BuiltinCall) -> Evaluated {
        let arguments = self.eval_all(&call.arguments)?;
        let outcome = library::call(call.builtin, arguments, self.environment.now(), self.budget);
        self.located(id, outcome)
    }

    fn predicate_builtin(&mut self, id: NodeId, call: &BuiltinCall) -> Evaluated {
        // The parser has seen to the first argument.
        let Some(&collection) = call.arguments.first() else { return Ok(Value::Nil) };
        let collection = self.eval(collection)?;
        let length = match &collection {
            Value::List(list) => list.items.len(),
            Value::String(text) => text.len(),
            Value::Map(map) => map.entries.len(),
            Value::Nil => return self.fail(id, "reflect: call of reflect.Value.Len on zero Value"),
            other => {
                let kind = other.kind_name();
                return self.fail(id, format!("reflect: call of reflect.Value.Len on {kind} Value"));
            }
        };
        self.scopes.push(Scope { collection, index: 0, accumulator: Value::Nil });
        let outcome = match call.builtin {
            Builtin::Reduce => self.reduce(id, call, length),
            Builtin::GroupBy => self.group_by(id, call, length),
            Builtin::SortBy => self.sort_by(id, call, length),
            Builtin::Sum => self.sum(id, call, length),
            Builtin::Map => self.map_list(id, call, length),
            Builtin::Filter => self.filter(id, call, length),
            _ => self.search_list(id, call, length),
        };
        self.scopes.pop();
        outcome
    }

    /// Points `#` at an element.
    fn point_at(&mut self, index: usize) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.index = index;
        }
    }

    /// The predicate, or the element itself where there is none.
    fn element(&mut self, id: NodeId, call: &BuiltinCall, index: usize) -> Evaluated {
        self.point_at(index);
        match call.arguments.get(1) {
            Some(predicate) => self.eval(*predicate),
            None => self.pointer(id, ""),
        }
    }

    fn holds(&mut self, id: NodeId, call: &BuiltinCall, index: usize) -> Evaluated<bool> {
        let value = self.element(id, call, index)?;
        self.located(id, as_bool(&value))
    }

    /// The built-ins that ask each element and yield no list.
    fn search_list(&mut self, id: NodeId, call: &BuiltinCall, length: usize) -> Evaluated {
        let backwards = matches!(call.builtin, Builtin::FindLast | Builtin::FindLastIndex);
        let mut count = 0;
        for position in 0..length {
            let index = if backwards { length - 1 - position } else { position };
            let holds = self.holds(id, call, index)?;
            count += i64::from(holds);
            match (call.builtin, holds) {
                (Builtin::All, false) | (Builtin::None, true) => return Ok(Value::Bool(false)),
                (Builtin::Any, true) => return Ok(Value::Bool(true)),
                (Builtin::Find | Builtin::FindLast, true) => return self.pointer(id, ""),
                (Builtin::FindIndex | Builtin::FindLastIndex, true) => return Ok(Value::Int(index as i64)),
                (Builtin::Count, true) if call.threshold.is_some_and(|threshold| count >= threshold) => break,
                _ => {}
            }
        }
        match call.builtin {
            Builtin::All | Builtin::None => Ok(Value::Bool(true)),
            Builtin::Any => Ok(Value::Bool(false)),
            Builtin::One => Ok(Value::Bool(count == 1)),
            Builtin::Count => Ok(Value::Int(count)),
            _ if call.throws => self.fail(id, "reflect: slice index out of range"),
            _ => Ok(Value::Nil),
        }
    }

    fn filter(&mut self, id: NodeId, call: &BuiltinCall, length: usize) -> Evaluated {
        let mut kept = Vec::new();
        for index in 0..length {
            if self.holds(id, call, index)? {
                kept.push(self.pointer(id, "")?);
            }
        }
        let outcome = self.budget.elements(kept.len()).and_then(|()| Value::list(kept));
        self.located(id, outcome)
    }

    fn map_list(&mut self, id: NodeId, call: &BuiltinCall, length: usize) -> Evaluated {
        let mut mapped = Vec::new();
        for index in 0..length {
            mapped.push(self.element(id, call, index)?);
        }
        let outcome = self.budget.elements(length).and_then(|()| Value::list(mapped));
        self.located(id, outcome)
    }

    fn sum(&mut self, id: NodeId, call: &BuiltinCall, length: usize) -> Evaluated {
        let mut total = Value::Int(0);
        for index in 0..length {
            let value = self.element(id, call, index)?;
            let outcome = operators::add(&value, &total, self.budget);
            total = self.located(id, outcome)?;
        }
        Ok(total)
    }

    fn sum_of(&mut self, id: NodeId, items: &[NodeId]) -> Evaluated {
        let mut items = self.eval_all(items)?;
        let mut total = items.pop().unwrap_or(Value::Int(0));
        while let Some(item) = items.pop() {
            let outcome = operators::add(&item, &total, self.budget);
            total = self.located(id, outcome)?;
        }
        Ok(total)
    }

    fn group_by(&mut self, id: NodeId, call: &BuiltinCall, length: usize) -> Evaluated {
        let mut groups: BTreeMap<Key, Vec<Value>> = BTreeMap::new();
        let room = self.budget.uncounted(length);
        self.located(id, room)?;
        for index in 0..length {
            let key = self.element(id, call, index)?;
            let key = self.located(id, operators::hash(&key))?;
            let element = self.pointer(id, "")?;
            groups.entry(key).or_default().push(element);
        }
        let lists: Result<BTreeMap<Key, Value>, String> =
            groups.into_iter().map(|(key, items)| Ok((key, Value::list(items)?))).collect();
        self.located(id, lists.and_then(|entries| Value::map(MapKind::Groups, entries)))
    }

    fn sort_by(&mut self, id: NodeId, call: &BuiltinCall, length: usize) -> Evaluated {
        let descending = match call.arguments.get(2) {
            None => false,
            Some(order) => match self.eval(*order)? {
                Value::String(order) if &*order == "asc" => false,
                Value::String(order) if &*order == "desc" => true,
                Value::String(_) => return self.fail(id, "unknown order, use asc or desc"),
                _ => return self.fail(id, "sortBy order argument must be a string"),
            },
        };
        let mut pairs = Vec::new();
        for index in 0..length {
            let value = self.element(id, call, index)?;
            pairs.push((value, self.pointer(id, "")?));
        }
        let elements = self.budget.elements(length);
        self.located(id, elements)?;
        let outcome = library::sort(pairs, descending, self.budget)
            .and_then(|sorted| Value::list(sorted.into_iter().map(|(_, element)| element).collect()));
        self.located(id, outcome)
    }

    fn reduce(&mut self, id: NodeId, call: &BuiltinCall, length: usize) -> Evaluated {
        let (first, initial) = match call.arguments.get(2) {
            Some(initial) => (0, self.eval(*initial)?),
            None if length == 0 => return self.fail(id, "reduce of empty array with no initial value"),
            None => (1, self.pointer(id, "")?),
        };
        self.accumulate(initial);
        for index in first..length {
            let value = self.element(id, call, index)?;
            self.accumulate(value);
        }
        Ok(self.scopes.last().map_or(Value::Nil, |scope| scope.accumulator.clone()))
    }

    fn accumulate(&mut self, value: Value) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.accumulator = value;
        }
    }
}

/// Go compares two values that the check knows to be integers, or strings, without looking at their types again, and so
/// fails where the check has been wrong (`max(1, 2.5) == 2`).
fn equal(a: &Value, b: &Value, types: (&Type, &Type), budget: &mut Budget) -> Result<bool, String> {
    match types {
        (Type::Int, Type::Int) => {
            for value in [b, a] {
                if !matches!(value, Value::Int(_)) {
                    return Err(conversion(value, "int"));
                }
            }
        }
        (Type::String, Type::String) => {
            as_string(b)?;
            as_string(a)?;
        }
        _ => {}
    }
    a.equals(b, budget)
}

fn search(op: BinaryOp, a: &Value, b: &Value, budget: &mut Budget) -> Result<bool, String> {
    if a.is_nil() || b.is_nil() {
        return Ok(false);
    }
    let (text, part) = (as_string(a)?, as_string(b)?);
    budget.scan(text.len())?;
    Ok(match op {
        BinaryOp::Contains => text.contains(&**part),
        BinaryOp::StartsWith => text.starts_with(&**part),
        _ => text.ends_with(&**part),
    })
}
