//! Manifests written as YAML.
//!
//! The rule of this file: YAML is another way to write the JSON of a manifest, and nothing more.
//! What JSON has no word for, or what two readers could take for two things, is refused: keys that
//! are there twice, keys that are no texts, tags of somebody's own, several documents, numbers
//! without end.

use serde_json::Value;
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy};

use super::MAX_BYTES;
use crate::refusal::Fault;

/// The largest text: YAML takes more room than the JSON it means, above all with comments.
const MAX_TEXT_BYTES: usize = 4 * MAX_BYTES;

/// The JSON that a YAML text means.
///
/// # Errors
/// Its first fault, with line and column.
pub fn from_yaml(text: &str) -> Result<Value, Fault> {
    if text.len() > MAX_TEXT_BYTES {
        let message =
            format!("the text is longer than {} KiB: leave something out", MAX_TEXT_BYTES / 1024);
        return Err(fault(&message));
    }
    // Deep brackets are a level of the parser's own stack for each of them.
    stacker::grow(STACK_BYTES, || serde_saphyr::from_str_with_options(text, options()))
        .map_err(|error| explain(&error))
}

const STACK_BYTES: usize = 8 * 1024 * 1024;

fn options() -> serde_saphyr::Options {
    let budget = serde_saphyr::budget! {
        max_documents: 1,
        max_depth: 64,
        max_nodes: 50_000,
        max_events: 200_000,
        max_aliases: 1000,
        max_anchors: 200,
        max_total_scalar_bytes: MAX_TEXT_BYTES,
        max_recorded_anchor_bytes: MAX_TEXT_BYTES,
    };
    serde_saphyr::options! {
        budget: budget,
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Merge,
        strict_booleans: true,
        ignore_binary_tag_for_string: true,
        reject_unsupported_tags: true,
        reject_tagged_field_names: true,
        non_finite_float_policy: NonFiniteFloatPolicy::Reject,
        with_snippet: false,
    }
}

fn explain(error: &serde_saphyr::Error) -> Fault {
    let error = error.without_snippet();
    fault(&error.to_string())
}

fn fault(message: &str) -> Fault {
    Fault::new("", "yaml_invalid", format!("this is not YAML that means JSON: {message}"))
}

#[cfg(test)]
mod tests;
