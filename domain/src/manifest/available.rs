//! What of the grammar this version runs.
//!
//! The rule of this file: what cannot run is refused when an agent is installed, and not found out
//! when it is executed. It is one list: who teaches the run time something adds it here.

use serde_json::Value;

use super::control;
use crate::refusal::Fault;
use crate::step::StepKind;
use crate::trigger::TriggerKind;
use crate::values::Object;

/// The steps that run.
const STEPS: &[StepKind] = &[
    StepKind::KnowledgeSearch,
    StepKind::KnowledgeIngest,
    StepKind::Answer,
    StepKind::HttpRequest,
    StepKind::IntegrationCall,
    StepKind::Condition,
    StepKind::Transform,
    StepKind::Wait,
];

/// The triggers that fire.
const TRIGGERS: &[TriggerKind] =
    &[TriggerKind::Manual, TriggerKind::Schedule, TriggerKind::Event, TriggerKind::Webhook];

/// Of what can be said of any step (`when`, `foreach`, `retry`, `timeout`, `on_error`), what is obeyed.
const STEP_FIELDS: &[&str] = &["when", "foreach", "retry", "timeout", "on_error"];

/// Of what `limits` can say, what is obeyed.
const LIMITS: &[&str] = &["timeout", "queue_timeout", "concurrency"];

/// Of the newer parts of `requires` (`model`), what is obeyed.
const REQUIREMENTS: &[&str] = &["model"];

impl StepKind {
    /// Whether this version runs steps of this kind.
    pub fn runs(self) -> bool {
        STEPS.contains(&self)
    }
}

impl TriggerKind {
    /// Whether this version listens to triggers of this kind.
    pub fn runs(self) -> bool {
        TRIGGERS.contains(&self)
    }
}

/// What a document asks for that does not run in this version.
pub(super) fn missing(document: &Object) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut complain = |pointer: String, code: &'static str, message: String| {
        faults.push(Fault::new(pointer, code, message));
    };
    let not_yet = |field: &str| format!("`{field}` is not obeyed in this version: leave it out");

    let limits = document.get("limits").and_then(Value::as_object).into_iter().flatten();
    for (limit, _) in limits.filter(|(limit, _)| !LIMITS.contains(&limit.as_str())) {
        complain(format!("/limits/{limit}"), "field_not_available", not_yet(limit));
    }
    let requires_model = document.get("requires").is_some_and(|it| it.get("model").is_some());
    if requires_model && !REQUIREMENTS.contains(&"model") {
        complain("/requires/model".to_owned(), "field_not_available", not_yet("model"));
    }
    for (index, trigger) in items(document, "triggers") {
        let kind = serde_json::from_value::<TriggerKind>(trigger["type"].clone());
        if let Some(kind) = kind.ok().filter(|kind| !kind.runs()) {
            let message = format!(
                "triggers of type `{}` do not run in this version: leave it out, and execute the \
                 agent's manual trigger from outside",
                kind.as_str()
            );
            complain(format!("/triggers/{index}/type"), "trigger_type_not_available", message);
        }
    }
    for (index, step) in items(document, "steps") {
        let name = step["type"].as_str().unwrap_or_default();
        let is_later = StepKind::LATER.contains(&name);
        if is_later || StepKind::parse(name).is_some_and(|kind| !kind.runs()) {
            let message =
                format!("steps of type `{name}` do not run in this version: leave it out");
            complain(format!("/steps/{index}/type"), "step_type_not_available", message);
        }
        let said = control::FIELDS.into_iter().filter(|field| step.get(field).is_some());
        for field in said.filter(|field| !STEP_FIELDS.contains(field)) {
            let pointer = format!("/steps/{index}/{field}");
            complain(pointer, "field_not_available", not_yet(field));
        }
    }
    faults
}

/// The objects of a list, with their places.
fn items<'a>(
    document: &'a Object,
    field: &str,
) -> impl Iterator<Item = (usize, &'a Value)> + use<'a> {
    let items = document.get(field).and_then(Value::as_array).into_iter().flatten();
    items.enumerate().filter(|(_, item)| item.is_object())
}
