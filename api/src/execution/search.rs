//! Looking for a text in executions. Their texts are sealed in the read model, so they are opened
//! one after the other, newest first.
//!
//! The rule of this file: one request does a bounded amount of work, and says when that was not all.

use domain::Payload;
use projections::execution::{self, Filter, SealedPayload};
use projections::{Listing, Window};
use uuid::Uuid;

use super::{Execution, Texts, show};
use crate::app::App;
use crate::http::Problem;

/// How many executions one request looks at.
const ROWS: usize = 10_000;

/// How many bytes of texts that lie outside the read model one request opens.
const LONG_TEXTS: u64 = 64 * 1024 * 1024;

/// How many executions one read brings.
const BATCH: u64 = 250;

/// The executions of an agent that hold a text, newest first.
pub(super) async fn search(
    app: &App,
    agent: Uuid,
    filter: &Filter,
    text: &str,
    window: Window,
) -> Result<Listing<Execution>, Problem> {
    let needle = Needle::new(text);
    let (mut items, mut found, mut last_shown) = (Vec::new(), 0_u64, None);
    let (mut rows, mut long_texts, mut cursor) = (0_usize, 0_u64, window.cursor);
    let is_whole = loop {
        let part = Window { offset: 0, size: BATCH, cursor };
        let part = app.read(|db| execution::list(db, agent, filter, part))?;
        for row in part.items {
            cursor = Some(row.position);
            rows += 1;
            long_texts += length_outside(&row);
            let texts = Texts::open(app, &row).await?;
            if !needle.is_in(&row, &texts) {
                continue;
            }
            if found >= window.offset && (items.len() as u64) < window.size {
                last_shown = cursor;
                items.push(show(row, texts));
            }
            found += 1;
        }
        if part.cursor.is_none() {
            break true;
        }
        if rows >= ROWS || long_texts >= LONG_TEXTS {
            break false;
        }
        // Opening is work for the processor: others get their turn.
        tokio::task::yield_now().await;
    };
    let is_full = items.len() as u64 == window.size;
    // A full page may have left some behind that were found; else all that was looked at is shown.
    let cursor = if is_full { last_shown } else { cursor };
    Ok(Listing {
        items,
        total: found,
        total_is_capped: !is_whole,
        cursor: cursor.filter(|_| !is_whole),
    })
}

fn length_outside(row: &execution::Execution) -> u64 {
    let message = row.error.as_ref().and_then(|failure| failure.message.as_ref());
    let texts = [Some(&row.input), row.output.as_ref(), message];
    let length = |text: &SealedPayload| match &text.payload {
        Payload::Sealed(_) => 0,
        Payload::Blob { size, .. } => *size,
    };
    texts.into_iter().flatten().map(length).sum()
}

/// What is looked for.
struct Needle {
    text: String,
    /// As it stands inside JSON, where that differs.
    escaped: Option<String>,
}

impl Needle {
    fn new(text: &str) -> Needle {
        let text = text.to_lowercase();
        let json = serde_json::Value::String(text.clone()).to_string();
        let escaped = json[1..json.len() - 1].to_owned();
        Needle { escaped: Some(escaped).filter(|escaped| *escaped != text), text }
    }

    fn is_in(&self, row: &execution::Execution, texts: &Texts) -> bool {
        let ids = [Some(row.id), row.trigger, Some(row.version_id)];
        let code = row.error.as_ref().map(|failure| &failure.code);
        ids.into_iter().flatten().any(|id| id.to_string().contains(&self.text))
            || [code, texts.error.as_ref()].into_iter().flatten().any(|text| self.is_in_text(text))
            || [&texts.input, &texts.output].into_iter().flatten().any(|json| self.is_in_json(json))
    }

    fn is_in_text(&self, text: &str) -> bool {
        text.to_lowercase().contains(&self.text)
    }

    fn is_in_json(&self, json: &str) -> bool {
        let json = json.to_lowercase();
        json.contains(&self.text)
            || self.escaped.as_ref().is_some_and(|escaped| json.contains(escaped))
    }
}

#[cfg(test)]
mod tests {
    //! What counts as holding a text.

    use super::*;

    #[test]
    fn a_text_is_found_in_json_in_any_case_and_with_its_quotes() {
        let json = r#"{"query":"He said \"ÄTHER\"\nand left","n":12}"#;
        for text in ["äther", "SAID \"äther\"\nAND", "\"n\":12", "query"] {
            assert!(Needle::new(text).is_in_json(json), "{text:?}");
        }
        assert!(!Needle::new("ether").is_in_json(json));
    }
}
