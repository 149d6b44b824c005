//! The rewritings of Go's optimizer that can be observed: what they skip raises no error, and what they compute from
//! literals costs nothing.

use std::sync::Arc;

use super::ast::{Ast, BinaryOp, BuiltinCall, Kind, NodeId, UnaryOp};
use super::builtins::Builtin;
use super::types::Type;
use super::{ErrorKind, Failure};

/// Each loop visits children before parents, since that is the order of the arena.
pub(super) fn optimize(ast: &mut Ast) -> Result<(), Failure> {
    for id in ast.ids() {
        in_strings(ast, id);
    }
    for id in ast.ids() {
        fold(ast, id)?;
    }
    for rewrite in [filter_length, filter_end, combine_predicates, sum_of_range, sum_of_list, sum_of_map, count] {
        for id in ast.ids() {
            rewrite(ast, id);
        }
    }
    Ok(())
}

/// The node keeps its position and its type.
fn replace(ast: &mut Ast, id: NodeId, kind: Kind) {
    ast.node_mut(id).kind = kind;
}

fn replace_typed(ast: &mut Ast, id: NodeId, kind: Kind, ty: Type) {
    replace(ast, id, kind);
    ast.node_mut(id).ty = ty;
}

fn in_strings(ast: &mut Ast, id: NodeId) {
    let Kind::Binary { op: BinaryOp::In, left, right, .. } = *ast.kind(id) else { return };
    let Kind::Array(items) = ast.kind(right) else { return };
    let strings: Option<Vec<Arc<str>>> = items
        .iter()
        .map(|item| match ast.kind(*item) {
            Kind::Str(text) => Some(text.clone()),
            _ => None,
        })
        .collect();
    match strings {
        Some(mut set) if !set.is_empty() => {
            set.sort();
            replace(ast, id, Kind::InStrings { needle: left, set: set.into() });
        }
        _ => {}
    }
}

fn fold(ast: &mut Ast, id: NodeId) -> Result<(), Failure> {
    match ast.kind(id).clone() {
        Kind::Unary { op, operand, .. } => {
            let folded = match (op, ast.kind(operand)) {
                (UnaryOp::Minus, Kind::Int(int)) => Kind::Int(int.wrapping_neg()),
                (UnaryOp::Minus, Kind::Float(float)) => Kind::Float(-float),
                (UnaryOp::Plus, number @ (Kind::Int(_) | Kind::Float(_))) => number.clone(),
                (UnaryOp::Not, Kind::Bool(bool)) => Kind::Bool(!bool),
                _ => return Ok(()),
            };
            replace_literal(ast, id, folded);
        }
        Kind::Binary { op: op @ (BinaryOp::And | BinaryOp::Or), left, right, .. } => {
            // What makes the other side decide: true for `and`, false for `or`.
            let neutral = op == BinaryOp::And;
            let literal = |id: NodeId| match ast.kind(id) {
                Kind::Bool(bool) => Some(*bool),
                _ => None,
            };
            match (literal(left), literal(right)) {
                (Some(bool), _) if bool == neutral => replace(ast, id, ast.kind(right).clone()),
                (_, Some(bool)) if bool == neutral => replace(ast, id, ast.kind(left).clone()),
                (None, None) => {}
                _ => replace_literal(ast, id, Kind::Bool(!neutral)),
            }
        }
        Kind::Binary { op, left, right, .. } => {
            if let (BinaryOp::Modulo, Kind::Int(_), Kind::Int(0)) = (op, ast.kind(left), ast.kind(right)) {
                return Err(Failure::new(ErrorKind::Type, ast.node(id).at, "integer divide by zero"));
            }
            if let Some(folded) = fold_literals(op, ast.kind(left), ast.kind(right)) {
                replace_literal(ast, id, folded);
            }
        }
        Kind::Builtin(outer) if outer.builtin == Builtin::Filter => {
            let Kind::Builtin(inner) = ast.kind(outer.arguments[0]).clone() else { return Ok(()) };
            if inner.builtin != Builtin::Filter {
                return Ok(());
            }
            if let Some(predicate) = join_predicates(ast, inner.arguments[1], outer.arguments[1], BinaryOp::And) {
                let arguments = vec![inner.arguments[0], predicate];
                replace(ast, id, Kind::Builtin(BuiltinCall { arguments, ..outer }));
            }
        }
        _ => {}
    }
    Ok(())
}

fn replace_literal(ast: &mut Ast, id: NodeId, kind: Kind) {
    let ty = match kind {
        Kind::Int(_) => Type::Int,
        Kind::Float(_) => Type::Float,
        Kind::Bool(_) => Type::Bool,
        _ => Type::String,
    };
    replace_typed(ast, id, kind, ty);
}

fn fold_literals(op: BinaryOp, left: &Kind, right: &Kind) -> Option<Kind> {
    use BinaryOp::{Add, Divide, Equal, Modulo, Multiply, Power, Subtract};
    if let (Kind::Int(a), Kind::Int(b)) = (left, right) {
        match op {
            Add => return Some(Kind::Int(a.wrapping_add(*b))),
            Subtract => return Some(Kind::Int(a.wrapping_sub(*b))),
            Multiply => return Some(Kind::Int(a.wrapping_mul(*b))),
            Modulo => return Some(Kind::Int(a.wrapping_rem(*b))),
            Equal => return Some(Kind::Bool(a == b)),
            _ => {}
        }
    }
    match (op, left, right) {
        // The length of what is folded is bounded by that of the source.
        (Add, Kind::Str(a), Kind::Str(b)) => return Some(Kind::Str(format!("{a}{b}").into())),
        (Equal, Kind::Str(a), Kind::Str(b)) => return Some(Kind::Bool(a == b)),
        (Equal, Kind::Bool(a), Kind::Bool(b)) => return Some(Kind::Bool(a == b)),
        _ => {}
    }
    let number = |kind: &Kind| match kind {
        Kind::Int(int) => Some(*int as f64),
        Kind::Float(float) => Some(*float),
        _ => None,
    };
    let (a, b) = (number(left)?, number(right)?);
    Some(Kind::Float(match op {
        Add => a + b,
        Subtract => a - b,
        Multiply => a * b,
        Divide => a / b,
        Power => a.powf(b),
        _ => return None,
    }))
}

/// A predicate that asks both; `None` where one is no predicate, or where the tree would grow too deep.
fn join_predicates(ast: &mut Ast, first: NodeId, second: NodeId, op: BinaryOp) -> Option<NodeId> {
    let (Kind::Predicate(left), Kind::Predicate(right)) = (ast.kind(first).clone(), ast.kind(second).clone()) else {
        return None;
    };
    // Go gives these nodes no position.
    let both = ast.add(Kind::Binary { op, word: "", left, right }, 0);
    let predicate = ast.add(Kind::Predicate(both), 0);
    (ast.node(predicate).depth < super::MAX_DEPTH).then_some(predicate)
}

fn builtin_of(ast: &Ast, id: NodeId, builtin: Builtin, arguments: usize) -> Option<BuiltinCall> {
    match ast.kind(id) {
        Kind::Builtin(call) if call.builtin == builtin && call.arguments.len() == arguments => Some(call.clone()),
        _ => None,
    }
}

/// `len(filter(..))` counts.
fn filter_length(ast: &mut Ast, id: NodeId) {
    let Some(length) = builtin_of(ast, id, Builtin::Len, 1) else { return };
    if let Some(filter) = builtin_of(ast, length.arguments[0], Builtin::Filter, 2) {
        replace(ast, id, Kind::Builtin(BuiltinCall { builtin: Builtin::Count, ..filter }));
    }
}

/// The first or last element of a filter is found without looking at the rest.
fn filter_end(ast: &mut Ast, id: NodeId) {
    let (list, builtin, throws) = match ast.kind(id) {
        Kind::Member { base, property, optional: false, .. } => match ast.kind(*property) {
            Kind::Int(0) => (*base, Builtin::Find, true),
            Kind::Int(-1) => (*base, Builtin::FindLast, true),
            _ => return,
        },
        Kind::Builtin(call) if call.arguments.len() == 1 => match call.builtin {
            Builtin::First => (call.arguments[0], Builtin::Find, false),
            Builtin::Last => (call.arguments[0], Builtin::FindLast, false),
            _ => return,
        },
        _ => return,
    };
    if let Some(filter) = builtin_of(ast, list, Builtin::Filter, 2) {
        replace(ast, id, Kind::Builtin(BuiltinCall { builtin, throws, ..filter }));
    }
}

/// `all(x, p) && all(x, q)` walks the list once.
fn combine_predicates(ast: &mut Ast, id: NodeId) {
    let Kind::Binary { op, left, right, .. } = *ast.kind(id) else { return };
    let (builtin, inner) = match (ast.kind(left), op) {
        (Kind::Builtin(call), BinaryOp::And) if call.builtin == Builtin::All => (Builtin::All, BinaryOp::And),
        (Kind::Builtin(call), BinaryOp::Or) if call.builtin == Builtin::Any => (Builtin::Any, BinaryOp::Or),
        (Kind::Builtin(call), BinaryOp::And) if call.builtin == Builtin::None => (Builtin::None, BinaryOp::Or),
        _ => return,
    };
    let (Some(a), Some(b)) = (builtin_of(ast, left, builtin, 2), builtin_of(ast, right, builtin, 2)) else { return };
    if !same_source(ast, a.arguments[0], b.arguments[0]) {
        return;
    }
    if let Some(predicate) = join_predicates(ast, a.arguments[1], b.arguments[1], inner) {
        let arguments = vec![a.arguments[0], predicate];
        replace(ast, id, Kind::Builtin(BuiltinCall { arguments, ..a }));
    }
}

/// Whether two nodes are the same path into the environment; other equal texts are left alone.
fn same_source(ast: &Ast, a: NodeId, b: NodeId) -> bool {
    match (ast.kind(a), ast.kind(b)) {
        (Kind::Identifier(a), Kind::Identifier(b)) => a == b,
        (Kind::Str(a), Kind::Str(b)) => a == b,
        (Kind::Int(a), Kind::Int(b)) => a == b,
        (Kind::Pointer(a), Kind::Pointer(b)) => a == b,
        (
            Kind::Member { base: base_a, property: property_a, .. },
            Kind::Member { base: base_b, property: property_b, .. },
        ) => same_source(ast, *property_a, *property_b) && same_source(ast, *base_a, *base_b),
        _ => false,
    }
}

/// `sum(1..n)` and `reduce(1..n, # + #acc)` are computed.
fn sum_of_range(ast: &mut Ast, id: NodeId) {
    let Kind::Builtin(call) = ast.kind(id).clone() else { return };
    if !matches!(call.builtin, Builtin::Sum | Builtin::Reduce) {
        return;
    }
    let Kind::Binary { op: BinaryOp::Range, left, right, .. } = *ast.kind(call.arguments[0]) else { return };
    let (Kind::Int(first), Kind::Int(last)) = (ast.kind(left).clone(), ast.kind(right).clone()) else { return };
    if last < first {
        return;
    }
    let count = last.wrapping_sub(first).wrapping_add(1);
    let sum = count.wrapping_mul(first.wrapping_add(last)).wrapping_div(2);
    let literal = |id: NodeId| match ast.kind(id) {
        Kind::Int(int) => Some(*int),
        _ => None,
    };
    let pointer = |id: NodeId, name: &str| matches!(ast.kind(id), Kind::Pointer(pointer) if &**pointer == name);
    let body = call.arguments.get(1).and_then(|predicate| match ast.kind(*predicate) {
        Kind::Predicate(body) => Some(*body),
        _ => None,
    });
    let total = match (call.builtin, body.map(|body| (body, ast.kind(body)))) {
        (Builtin::Sum, None) => Some(sum),
        (Builtin::Sum, Some((body, _))) if pointer(body, "") => Some(sum),
        (Builtin::Sum, Some((_, Kind::Binary { op, left, right, .. }))) => {
            let (constant, element_first) = match (pointer(*left, ""), pointer(*right, "")) {
                (true, _) => (literal(*right), true),
                (_, true) => (literal(*left), false),
                _ => (None, false),
            };
            constant.and_then(|constant| match op {
                BinaryOp::Multiply => Some(constant.wrapping_mul(sum)),
                BinaryOp::Add => Some(sum.wrapping_add(count.wrapping_mul(constant))),
                BinaryOp::Subtract if element_first => Some(sum.wrapping_sub(count.wrapping_mul(constant))),
                BinaryOp::Subtract => Some(count.wrapping_mul(constant).wrapping_sub(sum)),
                _ => None,
            })
        }
        (Builtin::Reduce, Some((_, Kind::Binary { op: BinaryOp::Add, left, right, .. })))
            if pointer(*left, "") && pointer(*right, "acc") || pointer(*left, "acc") && pointer(*right, "") =>
        {
            match call.arguments.get(2) {
                None => Some(sum),
                Some(initial) => literal(*initial).map(|initial| initial.wrapping_add(sum)),
            }
        }
        _ => None,
    };
    if let Some(total) = total {
        replace_literal(ast, id, Kind::Int(total));
    }
}

fn sum_of_list(ast: &mut Ast, id: NodeId) {
    let Some(sum) = builtin_of(ast, id, Builtin::Sum, 1) else { return };
    let Kind::Array(items) = ast.kind(sum.arguments[0]).clone() else { return };
    // To Go a list of literals is a constant by now.
    if items.len() >= 2 && !items.iter().all(|item| is_literal(ast, *item)) {
        replace(ast, id, Kind::SumOf(items));
    }
}

fn is_literal(ast: &Ast, id: NodeId) -> bool {
    matches!(ast.kind(id), Kind::Int(_) | Kind::Float(_) | Kind::Str(_) | Kind::Bool(_))
}

/// `sum(map(list, f))` is `sum(list, f)`.
fn sum_of_map(ast: &mut Ast, id: NodeId) {
    let Some(sum) = builtin_of(ast, id, Builtin::Sum, 1) else { return };
    if let Some(map) = builtin_of(ast, sum.arguments[0], Builtin::Map, 2) {
        replace(ast, id, Kind::Builtin(BuiltinCall { builtin: Builtin::Sum, ..map }));
    }
}

/// A count that is compared with a literal stops when the outcome is clear.
fn count(ast: &mut Ast, id: NodeId) {
    let Kind::Binary { op, left, right, .. } = *ast.kind(id) else { return };
    let Some(count) = builtin_of(ast, left, Builtin::Count, 2) else { return };
    let Kind::Int(limit) = *ast.kind(right) else { return };
    match (op, limit) {
        (BinaryOp::More, 0) | (BinaryOp::MoreOrEqual, 1) => {
            replace(ast, id, Kind::Builtin(BuiltinCall { builtin: Builtin::Any, ..count }));
        }
        (BinaryOp::More | BinaryOp::LessOrEqual, 1..) => set_threshold(ast, left, count, limit.saturating_add(1)),
        (BinaryOp::MoreOrEqual | BinaryOp::Less, 2..) => set_threshold(ast, left, count, limit),
        _ => {}
    }
}

fn set_threshold(ast: &mut Ast, id: NodeId, count: BuiltinCall, threshold: i64) {
    replace(ast, id, Kind::Builtin(BuiltinCall { threshold: Some(threshold), ..count }));
}
