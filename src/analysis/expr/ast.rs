//! The syntax tree, as an arena: nodes refer to each other by index, so that dropping a long chain cannot recurse.

use std::sync::Arc;

use super::builtins::Builtin;
use super::types::Type;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeId(u32);

impl NodeId {
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Children always precede their parent, so that a walk in index order is a post-order walk.
#[derive(Debug, Default)]
pub(super) struct Ast {
    nodes: Vec<Node>,
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub kind: Kind,
    /// Offset in characters into the source: where errors of this node point to.
    pub at: usize,
    /// Levels of recursion that walking this node takes.
    pub depth: usize,
    /// Known after the check.
    pub ty: Type,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Nil,
    Identifier(Arc<str>),
    Int(i64),
    Float(f64),
    Bool(bool),
    Str(Arc<str>),
    Bytes(Arc<[u8]>),
    Unary {
        op: UnaryOp,
        word: &'static str,
        operand: NodeId,
    },
    Binary {
        op: BinaryOp,
        word: &'static str,
        left: NodeId,
        right: NodeId,
    },
    /// Where an optional access that met nil jumps to.
    Chain(NodeId),
    Member {
        base: NodeId,
        property: NodeId,
        optional: bool,
        method: bool,
    },
    Slice {
        base: NodeId,
        from: Option<NodeId>,
        to: Option<NodeId>,
    },
    Call {
        callee: NodeId,
        arguments: Vec<NodeId>,
    },
    Builtin(BuiltinCall),
    Predicate(NodeId),
    /// `#`, `#index`, `#acc`.
    Pointer(Arc<str>),
    Let {
        name: Arc<str>,
        value: NodeId,
        body: NodeId,
    },
    Sequence(Vec<NodeId>),
    Conditional {
        condition: NodeId,
        then: NodeId,
        otherwise: NodeId,
    },
    Array(Vec<NodeId>),
    Map(Vec<(NodeId, NodeId)>),
    /// `sum([a, b, c])`, which Go turns into `a + (b + c)`.
    SumOf(Vec<NodeId>),
    /// `x in ["a", "b"]`, which Go turns into a look-up in a set of strings.
    InStrings {
        needle: NodeId,
        set: Arc<[Arc<str>]>,
    },
}

#[derive(Debug, Clone)]
pub(super) struct BuiltinCall {
    pub builtin: Builtin,
    pub arguments: Vec<NodeId>,
    /// `find` in place of `filter(..)[0]`: finding nothing is an error.
    pub throws: bool,
    /// `count` may stop here.
    pub threshold: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnaryOp {
    Not,
    Plus,
    Minus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BinaryOp {
    Pipe,
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
    In,
    Matches,
    Contains,
    StartsWith,
    EndsWith,
    Range,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
    Coalesce,
}

impl BinaryOp {
    pub(super) fn is_comparison(self) -> bool {
        matches!(self, Self::Less | Self::LessOrEqual | Self::More | Self::MoreOrEqual)
    }

    pub(super) fn may_follow_not(self) -> bool {
        matches!(self, Self::In | Self::Matches | Self::Contains | Self::StartsWith | Self::EndsWith)
    }
}

impl Ast {
    pub(super) fn add(&mut self, kind: Kind, at: usize) -> NodeId {
        let depth = self.depth_of(&kind);
        self.nodes.push(Node { kind, at, depth, ty: Type::Unknown });
        // The parser refuses more than 10,000 nodes.
        NodeId((self.nodes.len() - 1) as u32)
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.nodes.len() as u32).map(NodeId)
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.index()]
    }

    pub(super) fn kind(&self, id: NodeId) -> &Kind {
        &self.node(id).kind
    }

    pub(super) fn ty(&self, id: NodeId) -> &Type {
        &self.node(id).ty
    }

    /// The operators of a chain like `a || b || c`, outermost first, and its leftmost operand: they are walked in a
    /// loop, so that a long chain takes one level only.
    pub(super) fn left_spine(&self, id: NodeId) -> (Vec<NodeId>, NodeId) {
        let mut operators = Vec::new();
        let mut current = id;
        while let Kind::Binary { left, .. } = self.kind(current) {
            operators.push(current);
            current = *left;
        }
        (operators, current)
    }

    fn depth_of(&self, kind: &Kind) -> usize {
        let depth = |id: &NodeId| self.node(*id).depth;
        let deepest = |ids: &[NodeId]| ids.iter().map(depth).max().unwrap_or(0);
        match kind {
            Kind::Nil
            | Kind::Identifier(_)
            | Kind::Int(_)
            | Kind::Float(_)
            | Kind::Bool(_)
            | Kind::Str(_)
            | Kind::Bytes(_)
            | Kind::Pointer(_) => 1,
            Kind::Binary { left, right, .. } => depth(left).max(1 + depth(right)),
            Kind::Unary { operand: inner, .. } | Kind::Chain(inner) | Kind::Predicate(inner) => 1 + depth(inner),
            Kind::InStrings { needle, .. } => 1 + depth(needle),
            Kind::Member { base, property, .. } => 1 + depth(base).max(depth(property)),
            Kind::Slice { base, from, to } => {
                1 + depth(base).max(from.as_ref().map_or(0, depth)).max(to.as_ref().map_or(0, depth))
            }
            Kind::Call { callee, arguments } => 1 + depth(callee).max(deepest(arguments)),
            Kind::Builtin(call) => 1 + deepest(&call.arguments),
            Kind::Let { value, body, .. } => 1 + depth(value).max(depth(body)),
            Kind::Sequence(nodes) | Kind::Array(nodes) | Kind::SumOf(nodes) => 1 + deepest(nodes),
            Kind::Conditional { condition, then, otherwise } => {
                1 + depth(condition).max(depth(then)).max(depth(otherwise))
            }
            Kind::Map(pairs) => 1 + pairs.iter().map(|(key, value)| depth(key).max(depth(value))).max().unwrap_or(0),
        }
    }
}
