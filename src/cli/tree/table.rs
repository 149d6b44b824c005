//! Rows into columns, as wide as the terminal allows.

use std::fmt::Write;

use super::Style;
use crate::cli::phase::{UNDER_WAY, mark};

/// One line of the tree, and what is below it.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    /// With the icon of its kind before it.
    pub name: String,
    pub kind: &'static str,
    pub status: String,
    /// Whether it is still under way, though its status sounds good: a run that is `Running`, a pod that is not ready.
    pub pending: bool,
    pub age: String,
    pub info: String,
    pub children: Vec<Node>,
}

/// A line before it is laid out: the branches that lead to the node, and the node.
struct Line<'a> {
    stem: String,
    /// What stands below the stem where the node goes on.
    below: String,
    node: &'a Node,
}

const HEAD: [&str; 5] = ["NAME", "KIND", "STATUS", "AGE", "INFO"];
/// Columns that the info should have at least.
const INFO: usize = 16;
/// Columns that a name keeps when it is shortened.
const NAME: usize = 20;

/// Draws the tree. Where it is wider than the terminal, the kinds go first (the icons tell them as well), then names are
/// shortened in their middle, the info goes on in further lines, and what is still too long is cut off.
pub(super) fn tree(root: &Node, style: Style) -> String {
    let mut lines = Vec::new();
    flatten(root, String::new(), String::new(), &mut lines);
    let width = |cell: &dyn Fn(&Line<'_>) -> usize, head: &str| {
        lines.iter().map(cell).max().unwrap_or(0).max(head.chars().count())
    };
    let mut name = width(&|line| line.stem.chars().count() + line.node.name.chars().count(), HEAD[0]);
    let mut kind = width(&|line| line.node.kind.chars().count(), HEAD[1]);
    let status = width(&|line| marked(line.node).chars().count(), HEAD[2]);
    let age = width(&|line| line.node.age.chars().count(), HEAD[3]);
    if let Some(terminal) = style.width {
        let info = width(&|line| line.node.info.chars().count(), HEAD[4]).min(INFO);
        let needed =
            |name: usize, kind: usize| name + 2 + kind + if kind > 0 { 2 } else { 0 } + status + 2 + age + 2 + info;
        if needed(name, kind) > terminal {
            kind = 0;
        }
        name = name.min(name.saturating_sub(needed(name, kind).saturating_sub(terminal)).max(NAME));
    }
    let before_info = name + 2 + kind + if kind > 0 { 2 } else { 0 } + status + 2 + age + 2;
    let room = style.width.map_or(usize::MAX, |terminal| terminal.saturating_sub(before_info));
    let mut text = String::new();
    let mut put = |cells: [String; 4], mark: &str, info: &str| {
        let [name_cell, kind_cell, status_cell, age_cell] = cells;
        let kind_cell = if kind > 0 { format!("{}  ", pad(&kind_cell, kind)) } else { String::new() };
        let before = format!("{}  {kind_cell}", pad(&name_cell, name));
        let after = format!("  {}  {info}", pad(&age_cell, age));
        // Cut to the terminal before it is painted: the codes have no width.
        let whole = format!("{before}{}{after}", pad(&status_cell, status));
        let whole = style.fit(whole.trim_end());
        let painted = match whole.strip_prefix(&before) {
            Some(rest) => match rest.strip_prefix(&status_cell) {
                Some(rest) if !status_cell.is_empty() => {
                    format!("{before}{}{rest}", style.paint(mark, &status_cell))
                }
                _ => whole.clone(),
            },
            None => whole.clone(),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{painted}");
    };
    put([HEAD[0], HEAD[1], HEAD[2], HEAD[3]].map(str::to_owned), "", HEAD[4]);
    for Line { stem, below, node } in &lines {
        let free = name.saturating_sub(stem.chars().count());
        let cells =
            [format!("{stem}{}", shorten(&node.name, free)), node.kind.to_owned(), marked(node), node.age.clone()];
        let mut info = wrapped(&node.info, if room < INFO { usize::MAX } else { room }).into_iter();
        put(cells, node.mark(), &info.next().unwrap_or_default());
        for more in info {
            put([below.clone(), String::new(), String::new(), String::new()], "", &more);
        }
    }
    text
}

fn flatten<'a>(node: &'a Node, stem: String, below: String, lines: &mut Vec<Line<'a>>) {
    let trunk = if node.children.is_empty() { "" } else { "│" };
    lines.push(Line { stem, below: format!("{below}{trunk}"), node });
    for (index, child) in node.children.iter().enumerate() {
        let (branch, trunk) = if index + 1 == node.children.len() { ("└─", "  ") } else { ("├─", "│ ") };
        flatten(child, format!("{below}{branch}"), format!("{below}{trunk}"), lines);
    }
}

impl Node {
    fn mark(&self) -> &'static str {
        if self.pending { UNDER_WAY } else { mark(&self.status) }
    }
}

fn marked(node: &Node) -> String {
    if node.status.is_empty() { String::new() } else { format!("{} {}", node.mark(), node.status) }
}

/// The text in lines of at most `width` characters, broken between words; a word that is longer stays whole.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.chars().count())))
}

/// The text with its middle left out where it is too long: the icon and the last characters tell names apart.
fn shorten(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width || width < 6 {
        return text.chars().take(width.max(1)).collect();
    }
    let front = (width - 1) / 3;
    let back = width - 1 - front;
    let start: String = text.chars().take(front).collect();
    let end: String = text.chars().skip(length - back).collect();
    format!("{start}…{end}")
}
