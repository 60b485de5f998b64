//! HTML into Markdown. The one rule: what a reader of the page would not see is left out.

use std::sync::Arc;

use htmd::element_handler::{HandlerResult, Handlers};
use htmd::{Element, HtmlToMarkdown, Node};
use parking_lot::Mutex;

use super::Document;
use crate::error::ExtractError;

/// Elements that are not read.
const UNSEEN: [&str; 10] = [
    "script", "style", "noscript", "template", "svg", "iframe", "object", "canvas", "select",
    "button",
];

/// Deeper nesting is refused: the conversion recurses, and a page made to overflow the stack would take the server with it.
const MAX_DEPTH: usize = 256;

/// The page's text as Markdown, and its title.
pub(super) fn document(html: &str) -> Result<Document, ExtractError> {
    let malformed = |reason: String| ExtractError::Malformed { format: "HTML", reason };
    let title = Arc::new(Mutex::new(None));
    let seen_title = Arc::clone(&title);
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
        .build();
    let tree = converter.html_to_tree(html).map_err(|error| malformed(error.to_string()))?;
    if is_deeper_than(&tree, MAX_DEPTH) {
        return Err(malformed(format!("its elements are nested more than {MAX_DEPTH} deep")));
    }
    let text = converter.tree_to_markdown(&tree);
    let title = title.lock().take().filter(|title| !title.is_empty());
    Ok(Document { text, markdown: true, title })
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
