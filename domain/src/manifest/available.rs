//! What of the grammar this version runs.
//!
//! The rule of this file: what cannot run is refused when an agent is installed, and not found out
//! when it is executed. It is one list: who teaches the run time something takes it off here.

use serde_json::Value;

use crate::refusal::Fault;
use crate::step::StepKind;
use crate::trigger::TriggerKind;
use crate::values::Object;

impl TriggerKind {
    /// Whether this version listens to triggers of this kind.
    pub fn runs(self) -> bool {
        self != TriggerKind::Message
    }
}

/// What a document asks for that does not run in this version.
pub(super) fn missing(document: &Object) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (index, trigger) in items(document, "triggers") {
        let kind = serde_json::from_value::<TriggerKind>(trigger["type"].clone());
        if let Some(kind) = kind.ok().filter(|kind| !kind.runs()) {
            let message = format!(
                "triggers of type `{}` do not run in this version: leave it out, and execute the \
                 agent's manual trigger from outside",
                kind.as_str()
            );
            let pointer = format!("/triggers/{index}/type");
            faults.push(Fault::new(pointer, "trigger_type_not_available", message));
        }
    }
    for (index, step) in items(document, "steps") {
        let name = step["type"].as_str().unwrap_or_default();
        if StepKind::LATER.contains(&name) {
            let message =
                format!("steps of type `{name}` do not run in this version: leave it out");
            let pointer = format!("/steps/{index}/type");
            faults.push(Fault::new(pointer, "step_type_not_available", message));
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
