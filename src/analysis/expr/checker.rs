//! The type check. It knows the types of the environment's values, and so refuses before the evaluation what Go refuses.

use std::sync::Arc;

use super::ast::{Ast, BinaryOp, BuiltinCall, Kind, NodeId, UnaryOp};
use super::budget::Budget;
use super::builtins::Builtin;
use super::types::{Accepts, Type, TypeKind};
use super::{Environment, ErrorKind, Failure, pattern};

pub(super) fn check(
    ast: &mut Ast,
    root: NodeId,
    environment: &Environment,
    budget: &mut Budget,
) -> Result<(), Failure> {
    let checked = vec![false; ast.len()];
    Checker { ast, environment, budget, checked, variables: Vec::new(), predicates: Vec::new() }.visit(root)?;
    Ok(())
}

struct Checker<'a> {
    ast: &'a mut Ast,
    environment: &'a Environment,
    budget: &'a mut Budget,
    /// A node can have two parents (`a < b < c`): without this, nesting such chains would take exponential time.
    checked: Vec<bool>,
    variables: Vec<(Arc<str>, Type)>,
    predicates: Vec<Scope>,
}

/// What `#`, `#index` and `#acc` mean in a predicate.
struct Scope {
    collection: Type,
    index: bool,
    accumulator: bool,
}

type Checked<T = Type> = Result<T, Failure>;

impl Checker<'_> {
    fn visit(&mut self, id: NodeId) -> Checked {
        if self.checked[id.index()] {
            return Ok(self.ast.ty(id).clone());
        }
        let ty = self.infer(id)?;
        self.ast.node_mut(id).ty = ty.clone();
        self.checked[id.index()] = true;
        Ok(ty)
    }

    fn infer(&mut self, id: NodeId) -> Checked {
        Ok(match self.ast.kind(id).clone() {
            Kind::Nil => Type::Nil,
            Kind::Identifier(name) => self.identifier(id, &name)?,
            Kind::Int(_) => Type::Int,
            Kind::Float(_) => Type::Float,
            Kind::Bool(_) => Type::Bool,
            Kind::Str(_) => Type::String,
            Kind::Bytes(_) => Type::Array(super::value::Slice::Bytes, None),
            Kind::Unary { op, word, operand } => self.unary(id, op, word, operand)?,
            Kind::Binary { .. } => self.binary_spine(id)?,
            Kind::Chain(inner) => self.visit(inner)?,
            Kind::Member { base, property, optional, method } => self.member(id, base, property, optional, method)?,
            Kind::Slice { base, from, to } => self.slice(id, base, from, to)?,
            Kind::Call { callee, arguments } => self.call(id, callee, &arguments)?,
            Kind::Builtin(call) => self.builtin(id, &call)?,
            Kind::Predicate(body) => self.visit(body)?,
            Kind::Pointer(name) => self.pointer(id, &name)?,
            Kind::Let { name, value, body } => self.variable(id, name, value, body)?,
            Kind::Sequence(nodes) => {
                let mut last = Type::Unknown;
                for node in nodes {
                    last = self.visit(node)?;
                }
                last
            }
            Kind::Conditional { condition, then, otherwise } => self.conditional(condition, then, otherwise)?,
            Kind::Array(nodes) => self.array(&nodes)?,
            Kind::Map(pairs) => {
                for (key, value) in pairs {
                    self.visit(key)?;
                    self.visit(value)?;
                }
                Type::Map(super::value::MapKind::Strings)
            }
            // Made by the rewriting that follows the check.
            Kind::InStrings { .. } | Kind::SumOf(_) => Type::Unknown,
        })
    }

    fn error<T>(&self, id: NodeId, message: impl Into<String>) -> Checked<T> {
        Err(Failure::new(ErrorKind::Type, self.ast.node(id).at, message))
    }

    fn identifier(&self, id: NodeId, name: &str) -> Checked {
        if let Some((_, ty)) = self.variables.iter().rev().find(|(variable, _)| &**variable == name) {
            return Ok(ty.clone());
        }
        if name == "$env" {
            return Ok(Type::Unknown);
        }
        match self.environment.type_of(name) {
            Some(ty) => Ok(ty),
            None if Builtin::named(name).is_some() => Ok(Type::BuiltinFunction),
            None => self.error(id, format!("unknown name {name}")),
        }
    }

    fn unary(&mut self, id: NodeId, op: UnaryOp, word: &str, operand: NodeId) -> Checked {
        let ty = self.visit(operand)?;
        match op {
            UnaryOp::Not if ty.is_bool() || ty.is_unknown() => Ok(Type::Bool),
            UnaryOp::Plus | UnaryOp::Minus if ty.is_number() => Ok(ty),
            UnaryOp::Plus | UnaryOp::Minus if ty.is_unknown() => Ok(Type::Unknown),
            _ => self.error(id, format!("invalid operation: {word} (mismatched type {ty})")),
        }
    }

    fn binary_spine(&mut self, id: NodeId) -> Checked {
        let (operators, leftmost) = self.ast.left_spine(id);
        let mut ty = self.visit(leftmost)?;
        for operator in operators.into_iter().rev() {
            if let Kind::Binary { op, word, right, .. } = *self.ast.kind(operator) {
                let right_type = self.visit(right)?;
                ty = self.binary(operator, op, word, &ty, right, &right_type)?;
                self.ast.node_mut(operator).ty = ty.clone();
                self.checked[operator.index()] = true;
            }
        }
        Ok(ty)
    }

    fn binary(&mut self, id: NodeId, op: BinaryOp, word: &str, l: &Type, right: NodeId, r: &Type) -> Checked {
        use Accepts::{Array, Bool, Duration, Integer, Map, Number, String, Time};
        let numbers = l.is_number() && r.is_number();
        let strings = l.is_string() && r.is_string();
        let found = match op {
            BinaryOp::Equal | BinaryOp::NotEqual if l.comparable_to(r) => Some(Type::Bool),
            BinaryOp::Or | BinaryOp::And if l.is_bool() && r.is_bool() || l.maybe_compatible(r, &[Bool]) => {
                Some(Type::Bool)
            }
            BinaryOp::Less | BinaryOp::More | BinaryOp::LessOrEqual | BinaryOp::MoreOrEqual => {
                let same = numbers || strings || *l == *r && matches!(l, Type::Time | Type::Duration);
                (same || l.maybe_compatible(r, &[Number, String, Time, Duration])).then_some(Type::Bool)
            }
            BinaryOp::Subtract => match (l, r) {
                _ if numbers => Some(l.promote(r)),
                (Type::Time, Type::Time) | (Type::Duration, Type::Duration) => Some(Type::Duration),
                (Type::Time, Type::Duration) => Some(Type::Time),
                _ => l.maybe_compatible(r, &[Number, Time, Duration]).then_some(Type::Unknown),
            },
            BinaryOp::Multiply => match (l, r) {
                _ if numbers => Some(l.promote(r)),
                (Type::Duration, Type::Duration) => Some(Type::Duration),
                (Type::Duration, number) | (number, Type::Duration) if number.is_number() => Some(Type::Duration),
                _ => l.maybe_compatible(r, &[Number, Duration]).then_some(Type::Unknown),
            },
            BinaryOp::Divide | BinaryOp::Power => (numbers || l.maybe_compatible(r, &[Number])).then_some(Type::Float),
            BinaryOp::Modulo => {
                (l.is_integer() && r.is_integer() || l.maybe_compatible(r, &[Integer])).then_some(Type::Int)
            }
            BinaryOp::Add => match (l, r) {
                _ if numbers => Some(l.promote(r)),
                _ if strings => Some(Type::String),
                (Type::Time, Type::Duration) | (Type::Duration, Type::Time) => Some(Type::Time),
                (Type::Duration, Type::Duration) => Some(Type::Duration),
                _ => l.maybe_compatible(r, &[Number, String, Time, Duration]).then_some(Type::Unknown),
            },
            BinaryOp::In => self.contained(id, l, r, &[String, Array, Map])?,
            BinaryOp::Matches => {
                if let Kind::Str(text) = self.ast.kind(right).clone()
                    && let Err(message) = pattern::compile(&text, self.budget)
                {
                    return self.error(id, message);
                }
                let bytes = *l == Type::Array(super::value::Slice::Bytes, None);
                (strings || bytes && r.is_string() || l.maybe_compatible(r, &[String])).then_some(Type::Bool)
            }
            BinaryOp::Contains | BinaryOp::StartsWith | BinaryOp::EndsWith => {
                (strings || l.maybe_compatible(r, &[String])).then_some(Type::Bool)
            }
            BinaryOp::Range => (l.is_integer() && r.is_integer() || l.maybe_compatible(r, &[Integer]))
                .then(|| Type::array_of(Type::Int)),
            BinaryOp::Coalesce => Some(match (l.is_nil(), r.is_nil()) {
                (true, _) => r.clone(),
                (false, true) => l.clone(),
                (false, false) if r.assignable_to(l) => l.clone(),
                (false, false) => Type::Unknown,
            }),
            _ => None,
        };
        match found {
            Some(ty) => Ok(ty),
            None => self.error(id, format!("invalid operation: {word} (mismatched types {l} and {r})")),
        }
    }

    fn contained(&self, id: NodeId, l: &Type, r: &Type, accepted: &[Accepts]) -> Checked<Option<Type>> {
        if r.is_map() {
            let key = r.key();
            if !l.is_unknown() && !l.assignable_to(&key) {
                return self.error(id, format!("cannot use {l} as type {key} in map key"));
            }
            return Ok(Some(Type::Bool));
        }
        if r.is_array() {
            let element = r.element();
            if !l.comparable_to(&element) {
                return self.error(id, format!("cannot use {l} as type {element} in array"));
            }
            return Ok(Some(Type::Bool));
        }
        let unclear = r.is_unknown()
            || *r == Type::Time && (l.is_string() || l.is_unknown())
            || l.is_unknown() && r.is_any_of(accepted);
        Ok(unclear.then_some(Type::Bool))
    }

    fn member(&mut self, id: NodeId, base: NodeId, property: NodeId, optional: bool, method: bool) -> Checked {
        let name = match self.ast.kind(property) {
            Kind::Str(name) => Some(name.clone()),
            _ => None,
        };
        if matches!(self.ast.kind(base), Kind::Identifier(name) if &**name == "$env") {
            return match name {
                None => self.visit(property).map(|_| Type::Unknown),
                Some(name) => match self.environment.type_of(&name) {
                    Some(ty) => Ok(ty),
                    None if optional => Ok(Type::Unknown),
                    None => self.error(id, format!("unknown name {name}")),
                },
            };
        }
        let base_type = self.visit(base)?;
        let property_type = self.visit(property)?;
        if base_type.is_unknown() {
            return Ok(Type::Unknown);
        }
        match (&base_type, &name) {
            (Type::Nil, Some(name)) => return self.error(id, format!("type nil has no field {name}")),
            (Type::Map(_), _) => {
                if !property_type.assignable_to(&base_type.key()) && !property_type.is_unknown() {
                    let message = format!("cannot use {property_type} to get an element from {base_type}");
                    return self.error(property, message);
                }
                return Ok(base_type.element());
            }
            (Type::Array(..), _) => {
                if !property_type.is_integer() && !property_type.is_unknown() {
                    let message = format!("array elements can only be selected using an integer (got {property_type})");
                    return self.error(property, message);
                }
                return Ok(base_type.element());
            }
            _ => {}
        }
        match name {
            Some(name) => {
                let what = if method { "method" } else { "field" };
                self.error(id, format!("type {base_type} has no {what} {name}"))
            }
            None => self.error(id, format!("type {base_type}[{property_type}] is undefined")),
        }
    }

    fn slice(&mut self, id: NodeId, base: NodeId, from: Option<NodeId>, to: Option<NodeId>) -> Checked {
        let ty = self.visit(base)?;
        if !ty.is_string() && !ty.is_array() && !ty.is_unknown() {
            return self.error(id, format!("cannot slice {ty}"));
        }
        for bound in [from, to].into_iter().flatten() {
            let bound_type = self.visit(bound)?;
            // Go does not look at the bounds when it does not know what is sliced.
            if !ty.is_unknown() && !bound_type.is_integer() && !bound_type.is_unknown() {
                return self.error(bound, format!("non-integer slice index {bound_type}"));
            }
        }
        Ok(if ty.is_unknown() { Type::Unknown } else { ty })
    }

    fn call(&mut self, id: NodeId, callee: NodeId, arguments: &[NodeId]) -> Checked {
        let name: Arc<str> = match self.ast.kind(callee) {
            Kind::Identifier(name) => name.clone(),
            Kind::Member { property, .. } => match self.ast.kind(*property) {
                Kind::Str(name) => name.clone(),
                _ => "function".into(),
            },
            _ => "function".into(),
        };
        if &*name == "$env" && matches!(self.ast.kind(callee), Kind::Identifier(_)) {
            return self.error(id, "map[string]interface {} is not callable");
        }
        match self.visit(callee)? {
            ty if ty.is_unknown() => {
                // Go does not look at the arguments; their types are needed all the same.
                for argument in arguments {
                    self.visit(*argument)?;
                }
                Ok(Type::Unknown)
            }
            Type::Nil => self.error(id, format!("{name} is nil; cannot call nil as function")),
            Type::Function(function) => {
                self.arguments(&name, (function.parameters(), function.returns()), arguments, id)
            }
            ty => self.error(id, format!("{ty} is not callable")),
        }
    }

    fn arguments(
        &mut self,
        name: &str,
        (parameters, returns): (&[Type], Type),
        arguments: &[NodeId],
        id: NodeId,
    ) -> Checked {
        let wrong_count = match arguments.len().cmp(&parameters.len()) {
            std::cmp::Ordering::Less => Some("not enough"),
            std::cmp::Ordering::Greater => Some("too many"),
            std::cmp::Ordering::Equal => None,
        };
        if let Some(wrong) = wrong_count {
            for argument in arguments {
                self.visit(*argument)?;
            }
            return self.error(id, format!("{wrong} arguments to call {name}"));
        }
        for (argument, parameter) in arguments.iter().zip(parameters) {
            let ty = self.visit(*argument)?;
            if *parameter == Type::Float && ty.is_integer() {
                self.make_float(*argument);
                continue;
            }
            if parameter.is_integer() && ty.is_integer() {
                continue;
            }
            if ty.is_nil() && parameter.kind() != TypeKind::Interface {
                let message = format!("cannot use nil as argument (type {parameter}) to call {name}");
                return self.error(*argument, message);
            }
            if !ty.is_nil() && !ty.is_unknown() && !ty.assignable_to(parameter) {
                // The blank at the end is Go's.
                let message = format!("cannot use {ty} as argument (type {parameter}) to call {name} ");
                return self.error(*argument, message);
            }
        }
        Ok(returns)
    }

    /// Turns the literals of an integer argument into floats, as a Go compiler does with constants.
    fn make_float(&mut self, id: NodeId) {
        match *self.ast.kind(id) {
            Kind::Int(int) => {
                let node = self.ast.node_mut(id);
                node.kind = Kind::Float(int as f64);
                node.ty = Type::Float;
            }
            Kind::Unary { operand, .. } => self.make_float(operand),
            Kind::Binary { op: BinaryOp::Add | BinaryOp::Subtract | BinaryOp::Multiply, left, right, .. } => {
                self.make_float(left);
                self.make_float(right);
            }
            _ => {}
        }
    }

    fn builtin(&mut self, id: NodeId, call: &BuiltinCall) -> Checked {
        let builtin = call.builtin;
        if builtin.predicate_arguments().is_some() {
            return self.predicate_builtin(id, call);
        }
        if builtin == Builtin::Get {
            return self.get(id, &call.arguments);
        }
        if let Some(overloads) = builtin.overloads() {
            // First of all, so that an error inside of an argument is met once and not once for each overload.
            for argument in &call.arguments {
                self.visit(*argument)?;
            }
            let mut outcome = self.error(id, format!("no matching overload for {}", builtin.name()));
            for (parameters, returns) in overloads {
                outcome = self.arguments(builtin.name(), (parameters, returns.clone()), &call.arguments, id);
                if outcome.is_ok() {
                    break;
                }
            }
            return outcome;
        }
        let mut types = Vec::with_capacity(call.arguments.len());
        for argument in &call.arguments {
            let ty = self.visit(*argument)?;
            types.push(if ty.is_unknown() { Type::Any } else { ty });
        }
        builtin.validate(&types).or_else(|message| self.error(id, message))
    }

    fn predicate_builtin(&mut self, id: NodeId, call: &BuiltinCall) -> Checked {
        let builtin = call.builtin;
        let Some(&list) = call.arguments.first() else {
            return self.error(id, format!("not enough arguments to call {}", builtin.name()));
        };
        let collection = self.visit(list)?;
        if !collection.is_array() && !collection.is_unknown() {
            let name = builtin.name();
            return self.error(list, format!("builtin {name} takes only array (got {collection})"));
        }
        let element = if collection.is_unknown() { Type::Unknown } else { collection.element() };
        let Some(&predicate) = call.arguments.get(1) else {
            return Ok(if builtin == Builtin::Count { Type::Int } else { element });
        };
        self.predicates.push(Scope {
            collection: collection.clone(),
            index: matches!(builtin, Builtin::Map | Builtin::Reduce),
            accumulator: builtin == Builtin::Reduce,
        });
        let outcome = self.visit(predicate)?;
        self.predicates.pop();
        if let (Builtin::SortBy | Builtin::Reduce, Some(&third)) = (builtin, call.arguments.get(2)) {
            let ty = self.visit(third)?;
            if builtin == Builtin::SortBy && !ty.is_string() && !ty.is_unknown() {
                return self.error(third, format!("sortBy order argument must be a string (got {ty})"));
            }
        }
        // A predicate that is literally nil is, to Go, a function without a result.
        if outcome.is_nil() {
            let inputs = if builtin == Builtin::Reduce { "two" } else { "one" };
            return match builtin {
                Builtin::Sum => self.error(id, format!("unknown builtin {}", builtin.name())),
                _ => self.error(predicate, format!("predicate should has {inputs} input and one output param")),
            };
        }
        let must_be_bool = matches!(
            builtin,
            Builtin::All
                | Builtin::None
                | Builtin::Any
                | Builtin::One
                | Builtin::Filter
                | Builtin::Count
                | Builtin::Find
                | Builtin::FindLast
                | Builtin::FindIndex
                | Builtin::FindLastIndex
        );
        if must_be_bool && !outcome.is_bool() && !outcome.is_unknown() {
            return self.error(predicate, format!("predicate should return boolean (got {outcome})"));
        }
        Ok(match builtin {
            Builtin::Filter if collection.is_unknown() => Type::ARRAY,
            Builtin::Filter => Type::array_of(element),
            Builtin::Map => Type::array_of(outcome),
            Builtin::Count | Builtin::FindIndex | Builtin::FindLastIndex => Type::Int,
            Builtin::Sum if outcome.is_unknown() => Type::Any,
            Builtin::Sum | Builtin::Reduce => outcome,
            Builtin::Find | Builtin::FindLast => element,
            Builtin::GroupBy => Type::Map(super::value::MapKind::Groups),
            Builtin::SortBy => collection,
            _ => Type::Bool,
        })
    }

    fn get(&mut self, id: NodeId, arguments: &[NodeId]) -> Checked {
        let &[base, property] = arguments else {
            return self.error(id, format!("invalid number of arguments (expected 2, got {})", arguments.len()));
        };
        let base_type = self.visit(base)?;
        let property_type = self.visit(property)?;
        if matches!(self.ast.kind(base), Kind::Identifier(name) if &**name == "$env") {
            return Ok(match self.ast.kind(property) {
                Kind::Str(name) => self.environment.type_of(name).unwrap_or(Type::Unknown),
                _ => Type::Unknown,
            });
        }
        match &base_type {
            ty if ty.is_unknown() => Ok(Type::Unknown),
            Type::Array(..) if !property_type.is_integer() && !property_type.is_unknown() => {
                self.error(property, format!("non-integer slice index {property_type}"))
            }
            Type::Map(_) if !property_type.assignable_to(&base_type.key()) && !property_type.is_unknown() => {
                self.error(property, format!("cannot use {property_type} to get an element from {base_type}"))
            }
            Type::Array(..) | Type::Map(_) => Ok(base_type.element()),
            _ => self.error(base, format!("type {base_type} does not support indexing")),
        }
    }

    fn pointer(&self, id: NodeId, name: &str) -> Checked {
        let Some(scope) = self.predicates.last() else {
            return self.error(id, "cannot use pointer accessor outside predicate");
        };
        match name {
            "" if scope.collection.is_unknown() => Ok(Type::Unknown),
            "" => Ok(scope.collection.element()),
            "index" if scope.index => Ok(Type::Int),
            "acc" if scope.accumulator => Ok(Type::Unknown),
            _ => self.error(id, format!("unknown pointer #{name}")),
        }
    }

    fn variable(&mut self, id: NodeId, name: Arc<str>, value: NodeId, body: NodeId) -> Checked {
        let redeclared = if self.environment.type_of(&name).is_some() {
            Some("")
        } else if Builtin::named(&name).is_some() {
            Some("builtin ")
        } else if self.variables.iter().any(|(variable, _)| *variable == name) {
            Some("variable ")
        } else {
            None
        };
        if let Some(what) = redeclared {
            return self.error(id, format!("cannot redeclare {what}{name}"));
        }
        let ty = self.visit(value)?;
        self.variables.push((name, ty));
        let body = self.visit(body)?;
        self.variables.pop();
        Ok(body)
    }

    fn conditional(&mut self, condition: NodeId, then: NodeId, otherwise: NodeId) -> Checked {
        let ty = self.visit(condition)?;
        if !ty.is_bool() && !ty.is_unknown() {
            return self.error(condition, format!("non-bool expression (type {ty}) used as condition"));
        }
        let then = self.visit(then)?;
        let otherwise = self.visit(otherwise)?;
        Ok(match (then.is_nil(), otherwise.is_nil()) {
            (true, _) => otherwise,
            (false, true) => then,
            (false, false) if then.assignable_to(&otherwise) => {
                let (a, b) = (then.element(), otherwise.element());
                match then.is_array() && otherwise.is_array() && !(a.assignable_to(&b) && b.assignable_to(&a)) {
                    true => Type::ARRAY,
                    false => then,
                }
            }
            (false, false) => Type::Unknown,
        })
    }

    fn array(&mut self, nodes: &[NodeId]) -> Checked {
        let mut previous: Option<Type> = None;
        let mut same = true;
        for node in nodes {
            let ty = self.visit(*node)?;
            same &= previous.as_ref().is_none_or(|previous| previous.kind() == ty.kind());
            previous = Some(ty);
        }
        Ok(match same {
            true => Type::array_of(previous.unwrap_or(Type::Unknown)),
            false => Type::ARRAY,
        })
    }
}
