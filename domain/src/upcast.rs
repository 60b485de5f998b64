//! Old shapes: how an event that was written by an earlier version becomes today's.
//!
//! The rule of this file: a line is added, never edited and never removed. What is on disk stays as
//! it is; it is lifted each time it is read.

use serde_json::Value;

/// Lifts one version of an event to the next one.
pub struct Upcaster {
    /// The name on disk that is lifted, as `agent.renamed.v1`.
    pub from: &'static str,
    /// The name it has afterwards, as `agent.renamed.v2`. It may be lifted again.
    pub to: &'static str,
    /// The payload's new shape.
    pub lift: fn(Value) -> Value,
}

/// What it was that asking the assistant again did not help against, when its failures did not say so. Beside these
/// were the refusals of a language model's server.
const LASTING_CHAT_FAILURES: [&str; 14] = [
    "address_refused",
    "answer_crashed",
    "chat_run_cancelled",
    "filters_invalid",
    "llm_answer_empty",
    "llm_answer_not_json",
    "llm_answer_not_valid",
    "llm_answer_too_large",
    "llm_key_invalid",
    "llm_key_refused",
    "llm_model_missing",
    "llm_not_configured",
    "llm_protocol_error",
    "product_not_found",
];

/// Every old shape there is.
pub const UPCASTERS: &[Upcaster] = &[
    // What a step was told was not kept then.
    Upcaster {
        from: "execution.step_started.v1",
        to: "execution.step_started.v2",
        lift: |payload| payload,
    },
    // Whether a failure passes was not kept then: it is tried again, as it was then.
    Upcaster {
        from: "execution.step_failed.v1",
        to: "execution.step_failed.v2",
        lift: |mut payload| {
            if let Some(fields) = payload.as_object_mut() {
                fields.insert("transient".to_owned(), Value::Bool(true));
            }
            payload
        },
    },
    // Of like attempts the first one's request was kept then.
    Upcaster {
        from: "access_log.rejected.v1",
        to: "access_log.rejected.v2",
        lift: |mut payload| {
            let attempts = payload.get_mut("attempts").and_then(Value::as_array_mut);
            for attempt in attempts.into_iter().flatten().filter_map(Value::as_object_mut) {
                if let Some(id) = attempt.remove("request_id") {
                    attempt.insert("request_ids".to_owned(), Value::Array(vec![id]));
                }
            }
            payload
        },
    },
    // Whether asking again may help was not kept then: its code says it.
    Upcaster {
        from: "chat_run.failed.v1",
        to: "chat_run.failed.v2",
        lift: |mut payload| {
            if let Some(fields) = payload.as_object_mut() {
                let code = fields.get("code").and_then(Value::as_str).unwrap_or_default();
                let is_refused = code.strip_prefix("llm_status_").is_some_and(|status| {
                    status.starts_with('4') && !["408", "425", "429"].contains(&status)
                });
                let is_lasting = is_refused || LASTING_CHAT_FAILURES.contains(&code);
                fields.insert("transient".to_owned(), Value::Bool(!is_lasting));
            }
            payload
        },
    },
];

#[cfg(test)]
mod tests;
