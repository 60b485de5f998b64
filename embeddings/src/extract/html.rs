//! HTML into Markdown. The one rule: what a reader of the page would not see is left out.

use std::sync::Arc;

use htmd::element_handler::{HandlerResult, Handlers};
use htmd::{Element, HtmlToMarkdown, Node};
use parking_lot::Mutex;

use super::output::Output;
use super::{Document, rows};
use crate::error::ExtractError;

/// Stand in the text for the ends of table cells, heading cells and rows, until the table is written.
const CELL: char = '\u{1}';
const HEADING: char = '\u{2}';
const ROW: char = '\u{3}';

/// Elements that are not read.
const UNSEEN: [&str; 10] = [
    "script", "style", "noscript", "template", "svg", "iframe", "object", "canvas", "select",
    "button",
];

/// Deeper nesting is refused: the conversion recurses, and a page made to overflow the stack would take the server with it.
const MAX_DEPTH: usize = 256;

/// More elements open at once are refused before parsing, whose time grows with their square. Twice the depth, because pages forget
/// to close what a parser then closes for them.
const MAX_OPEN: usize = 2 * MAX_DEPTH;

/// Elements that have no end tag, or are closed by the next of their kind.
const SELF_CLOSING: [&str; 31] = [
    "area", "base", "body", "br", "col", "colgroup", "dd", "dt", "embed", "head", "hr", "html",
    "img", "input", "li", "link", "meta", "optgroup", "option", "p", "param", "rp", "rt", "source",
    "tbody", "td", "tfoot", "th", "thead", "tr", "wbr",
];

/// The page's text as Markdown, and its title.
pub(super) fn document(html: &str, mut out: Output) -> Result<Document, ExtractError> {
    let malformed = |reason: String| ExtractError::malformed("HTML", reason);
    let html = html.replace([CELL, HEADING, ROW], " ");
    let html = html.as_str();
    let title = Arc::new(Mutex::new(None));
    let seen_title = Arc::clone(&title);
    if opens_more_than(html, MAX_OPEN) {
        return Err(malformed(format!("more than {MAX_OPEN} of its elements are open at once")));
    }
    let converter = HtmlToMarkdown::builder()
        .skip_tags(UNSEEN.to_vec())
        .add_handler(
            vec!["title"],
            move |handlers: &dyn Handlers, element: Element| -> Option<HandlerResult> {
                let text = handlers.walk_children(element.node).content.trim().to_owned();
                seen_title.lock().get_or_insert(text);
                None
            },
        )
        .add_handler(vec!["th"], |handlers: &dyn Handlers, element: Element| {
            ended(handlers, &element, HEADING)
        })
        .add_handler(vec!["td"], |handlers: &dyn Handlers, element: Element| {
            ended(handlers, &element, CELL)
        })
        .add_handler(vec!["tr"], |handlers: &dyn Handlers, element: Element| {
            ended(handlers, &element, ROW)
        })
        .add_handler(vec!["thead"], |handlers: &dyn Handlers, element: Element| {
            let content = handlers.walk_children(element.node).content;
            Some(content.replace(CELL, &HEADING.to_string()).into())
        })
        .add_handler(vec!["table"], table)
        .build();
    let tree = converter.html_to_tree(html).map_err(|error| malformed(error.to_string()))?;
    if is_deeper_than(&tree, MAX_DEPTH) {
        return Err(malformed(format!("its elements are nested more than {MAX_DEPTH} deep")));
    }
    // Cells that no table holds.
    let text = converter.tree_to_markdown(&tree).replace([CELL, HEADING, ROW], "\n");
    out.push(text.trim_end())?;
    let title = title.lock().take();
    Ok(out.document(true, title))
}

/// The text of a part of a table, and a sign that it ends.
fn ended(handlers: &dyn Handlers, element: &Element, end: char) -> Option<HandlerResult> {
    let mut content = handlers.walk_children(element.node).content;
    content.push(end);
    Some(content.into())
}

/// A table as rows that keep their headings. (What is inside a table has been written by then: see [`ended`].)
fn table(handlers: &dyn Handlers, element: Element) -> Option<HandlerResult> {
    let content = handlers.walk_children(element.node).content;
    let mut has_headings = false;
    let mut table: Vec<Vec<String>> = Vec::new();
    for row in content.split(ROW).map(str::trim).filter(|row| !row.is_empty()) {
        if table.is_empty() {
            let is_heading = |end| end == HEADING;
            has_headings = row.contains(is_heading) && !row.contains(CELL);
        }
        let cells = row.trim_end_matches([CELL, HEADING]).split([CELL, HEADING]);
        let even = |cell: &str| cell.split_whitespace().collect::<Vec<_>>().join(" ");
        table.push(cells.map(even).collect());
    }
    // The whole text is measured in the end, and a page has no more cells than bytes.
    let mut out = Output::new(usize::MAX);
    rows::table(&mut out, &table, has_headings).ok()?;
    let text = out.document(true, None).text;
    Some(format!("\n\n{}\n\n", text.trim()).into())
}

/// Whether more than `limit` elements are open anywhere, as far as their tags tell.
fn opens_more_than(html: &str, limit: usize) -> bool {
    let mut open = 0_usize;
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        if let Some(comment) = rest.strip_prefix("!--") {
            rest = comment.split_once("-->").map_or("", |(_, after)| after);
            continue;
        }
        let (closes, tag) = rest.strip_prefix('/').map_or((false, rest), |tag| (true, tag));
        let length =
            tag.find(|character: char| !character.is_ascii_alphanumeric()).unwrap_or(tag.len());
        let name = tag[..length].to_ascii_lowercase();
        if name.is_empty() || SELF_CLOSING.contains(&name.as_str()) {
            continue;
        }
        if closes {
            open = open.saturating_sub(1);
        } else if name == "script" || name == "style" {
            // What is inside is no markup: `a<b` opens nothing.
            let ends = |(at, _): &(usize, &str)| {
                let found = tag.as_bytes().get(at + 2..at + 2 + length);
                found.is_some_and(|found| found.eq_ignore_ascii_case(name.as_bytes()))
            };
            rest = tag.match_indices("</").find(ends).map_or("", |(at, _)| &tag[at + 2 + length..]);
        } else {
            open += 1;
            if open > limit {
                return true;
            }
        }
    }
    false
}

/// Whether the tree has more levels than `limit`, found without recursion.
fn is_deeper_than(tree: &std::rc::Rc<Node>, limit: usize) -> bool {
    let mut level = vec![std::rc::Rc::clone(tree)];
    for _ in 0..limit {
        level = level.iter().flat_map(|node| node.children.borrow().clone()).collect();
        if level.is_empty() {
            return false;
        }
    }
    true
}
