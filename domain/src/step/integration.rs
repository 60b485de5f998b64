//! What a step of type `integration.call` is told, and one of type `notify`, which posts a message.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::reader::Reader;
use crate::integration::operation::{Argument, Form, Operation};
use crate::refusal::Fault;

/// What is asked, of which integration.
#[derive(Clone, Debug, PartialEq)]
pub struct IntegrationCall {
    /// Which integration.
    pub target: Target,
    /// What is asked.
    pub operation: &'static Operation,
    /// What it is told, checked.
    pub arguments: Map<String, Value>,
}

/// Which integration is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The one in a slot of the manifest.
    Slot(String),
    /// The one of this id.
    Integration(Uuid),
}

/// Where nothing could be read; it comes with a fault.
const NONE: Target = Target::Integration(Uuid::nil());

pub(super) fn read(read: &mut Reader<'_>) -> Option<IntegrationCall> {
    let target = read_target(read);
    let operation = read_operation(read)?;
    let arguments = read_arguments(read, operation, operation.name, &["operation"]);
    Some(IntegrationCall { target, operation, arguments })
}

/// What `notify` does when it is its turn.
const POST_MESSAGE: &str = "post_message";

pub(super) fn read_notify(read: &mut Reader<'_>) -> Option<IntegrationCall> {
    let target = read_target(read);
    let operation = Operation::find(POST_MESSAGE)?;
    let arguments = read_arguments(read, operation, "notify", &[]);
    Some(IntegrationCall { target, operation, arguments })
}

fn read_arguments(
    read: &mut Reader<'_>,
    operation: &'static Operation,
    name: &str,
    others: &[&'static str],
) -> Map<String, Value> {
    let mut known = vec!["slot", "integration"];
    known.extend(others);
    known.extend(operation.arguments.iter().map(|argument| argument.name));
    for field in read.with.keys().filter(|field| !known.contains(&field.as_str())) {
        let message = format!("`{name}` does not know `{field}`: leave it out");
        read.fault(field, "argument_unknown", message);
    }
    let mut arguments = Map::new();
    for argument in operation.arguments {
        let there = read.with.get(argument.name).filter(|value| !is_nothing(argument, value));
        match there {
            None if argument.required => {
                let message = format!("`{name}` needs `{}`", argument.name);
                read.fault(argument.name, "argument_missing", message);
            }
            None => {}
            Some(value) if read.is_partly_computed(value) => {}
            Some(value) => match check(argument, value) {
                Ok(()) => drop(arguments.insert(argument.name.to_owned(), value.clone())),
                Err(message) => read.fault(argument.name, "argument_mismatch", message),
            },
        }
    }
    arguments
}

/// Whether an argument is as good as left out: an expression may come to `null`, or to a list of none.
fn is_nothing(argument: &Argument, value: &Value) -> bool {
    let is_list_of_none = value.as_array().is_some_and(Vec::is_empty);
    value.is_null() || (argument.form == Form::Texts && is_list_of_none)
}

fn read_target(read: &mut Reader<'_>) -> Target {
    let there = |field: &str| read.with.get(field).is_some_and(|value| !value.is_null());
    match (there("slot"), there("integration")) {
        (true, true) => {
            let message = "`slot` and `integration` exclude each other: keep one";
            read.fault("integration", "target_unclear", message);
            NONE
        }
        (false, false) => {
            let message = "say which integration is meant: name a `slot` of requires.integrations, or the id of \
                           an `integration`";
            read.fault("slot", "target_unclear", message);
            NONE
        }
        (true, false) => match read.with["slot"].as_str() {
            Some(slot) => Target::Slot(slot.to_owned()),
            None => {
                let message = "a slot is named by a literal text: bindings are fixed when the agent is installed";
                read.fault("slot", "target_unclear", message);
                NONE
            }
        },
        (false, true) => match read.given("integration") {
            None => NONE,
            Some(value) => match value.as_str().and_then(|text| text.parse().ok()) {
                Some(id) => Target::Integration(id),
                None => {
                    let message = "`integration` is the id of an integration, a UUID";
                    read.fault("integration", "target_unclear", message);
                    NONE
                }
            },
        },
    }
}

fn read_operation(read: &mut Reader<'_>) -> Option<&'static Operation> {
    let known = read.with.get("operation").and_then(Value::as_str).and_then(Operation::find);
    if known.is_none() {
        let names: Vec<_> =
            crate::integration::operation::OPERATIONS.iter().map(|it| it.name).collect();
        let message = format!("`operation` is one of {}", names.join(", "));
        read.fault("operation", "operation_unknown", message);
    }
    known
}

fn check(argument: &Argument, value: &Value) -> Result<(), String> {
    let name = argument.name;
    let is_filled = |value: &Value| value.as_str().is_some_and(|text| !text.trim().is_empty());
    let (holds, what) = match argument.form {
        Form::Text => (is_filled(value), "a text that is not empty".to_owned()),
        Form::Texts => {
            let holds = match value {
                Value::Array(items) => items.iter().all(is_filled),
                value => is_filled(value),
            };
            (holds, "a text or a list of texts".to_owned())
        }
        Form::Integer(least, most) => {
            let holds = value.as_u64().is_some_and(|number| (least..=most).contains(&number));
            (holds, format!("a whole number from {least} to {most}"))
        }
        Form::Number(most) => {
            let most = f64::from(most);
            let holds = value.as_f64().is_some_and(|number| (0.0..=most).contains(&number));
            (holds, format!("a number from 0 to {most}"))
        }
        Form::Flag => (value.is_boolean(), "true or false".to_owned()),
        Form::Fields => {
            let holds = value.as_object().is_some_and(|fields| {
                fields.values().all(|value| !value.is_array() && !value.is_object())
            });
            (holds, "an object of texts, numbers and flags".to_owned())
        }
        Form::Any => (true, String::new()),
    };
    if holds { Ok(()) } else { Err(format!("`{name}` is {what}")) }
}

/// Finds the faults of a call that can be known from the slots of its manifest.
pub(super) fn check_slot(
    with: &Map<String, Value>,
    slots: &[crate::manifest::IntegrationSlot],
) -> Option<Fault> {
    let operation = with.get("operation").and_then(Value::as_str).and_then(Operation::find);
    check_slot_of(with, slots, operation, "/operation")
}

/// As [`check_slot`], of a step that posts a message.
pub(super) fn check_notify_slot(
    with: &Map<String, Value>,
    slots: &[crate::manifest::IntegrationSlot],
) -> Option<Fault> {
    check_slot_of(with, slots, Operation::find(POST_MESSAGE), "/slot")
}

fn check_slot_of(
    with: &Map<String, Value>,
    slots: &[crate::manifest::IntegrationSlot],
    operation: Option<&'static Operation>,
    place: &str,
) -> Option<Fault> {
    let slot = with.get("slot")?.as_str()?;
    let Some(slot) = slots.iter().find(|known| known.slot == slot) else {
        let message = format!(
            "the manifest has no integration slot `{slot}`: add it to requires.integrations"
        );
        return Some(Fault::new("/slot", "slot_unknown", message));
    };
    let operation = operation?;
    let knows = |kind: &String| operation.kinds.iter().any(|known| known.as_str() == kind);
    if slot.kinds.iter().all(knows) {
        return None;
    }
    let kinds: Vec<_> = operation.kinds.iter().map(|kind| kind.as_str()).collect();
    let message = format!(
        "`{}` is an operation of {}, and the slot lets others in: narrow its kinds",
        operation.name,
        kinds.join(", ")
    );
    Some(Fault::new(place, "operation_not_of_slot", message))
}
