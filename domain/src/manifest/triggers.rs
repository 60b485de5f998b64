//! The triggers of a manifest.
//!
//! The rule of this file: every agent can be started by hand, whatever else starts it.

use std::collections::BTreeSet;

use serde_json::Map;

use super::{IntegrationSlot, complete};
use crate::expression::holds_expression;
use crate::reader::Reader;
use crate::schema::Schema;
use crate::trigger::{Setting, TriggerKind};
use crate::values::Object;

/// The key of the manual trigger that every agent has.
pub const MANUAL_TRIGGER: &str = "manual";

/// The most triggers of a manifest that are not manual: each is listened to.
pub const MAX_TRIGGERS: usize = 100;

/// What starts an agent.
#[derive(Clone, Debug, PartialEq)]
pub struct TriggerSpec {
    /// Its id in the manifest.
    pub key: String,
    /// What it listens to.
    pub kind: TriggerKind,
    /// What its kind needs to know, as it is written; [`Setting::parse`] reads it.
    pub configuration: Object,
    /// What its kind needs to know, as it was read.
    pub setting: Setting,
}

impl TriggerSpec {
    fn manual(key: String) -> TriggerSpec {
        let (kind, setting) = (TriggerKind::Manual, Setting::Manual);
        TriggerSpec { key, kind, configuration: Map::new(), setting }
    }
}

/// `inputs` is the schema of what an execution works on, `slots` are those of integrations.
pub(super) fn read_triggers(
    read: &mut Reader<'_>,
    inputs: Option<&Schema>,
    slots: &[IntegrationSlot],
) -> Vec<TriggerSpec> {
    let mut triggers = Vec::new();
    let mut taken = BTreeSet::new();
    let mut is_manual = false;
    for mut trigger in read.objects("triggers") {
        let key = trigger.new_key("id", &mut taken, "trigger_id_duplicate");
        let kind = trigger.required_text("type").and_then(|kind| read_kind(&mut trigger, &kind));
        is_manual |= kind == Some(TriggerKind::Manual);
        if let Some(kind) = kind {
            let mut configuration = trigger.document.clone();
            configuration.retain(|field, _| field != "id" && field != "type");
            match Setting::parse(kind, &configuration) {
                Ok(setting) => {
                    check_input(&mut trigger, &setting, inputs);
                    if let Setting::Message(message) = &setting {
                        trigger.add(message.check_slot(slots).into_iter());
                    }
                    triggers.extend(key.map(|key| TriggerSpec {
                        key,
                        kind,
                        configuration,
                        setting,
                    }));
                }
                Err(faults) => trigger.add(faults.into_iter()),
            }
        }
        read.take(trigger);
    }
    let listening = triggers.iter().filter(|trigger| trigger.kind != TriggerKind::Manual).count();
    read.require(listening <= MAX_TRIGGERS, "/triggers", "triggers_count", || {
        format!(
            "an agent has at most {MAX_TRIGGERS} schedules, events, webhooks and messages: leave some out"
        )
    });
    if triggers.is_empty() || !is_manual {
        let place = triggers.iter().position(|trigger| trigger.key == MANUAL_TRIGGER);
        if let Some(place) = place {
            let message = "every agent has a manual trigger, and this is its id: choose another";
            read.fault(&format!("/triggers/{place}/id"), "trigger_id_reserved", message);
        } else {
            triggers.push(TriggerSpec::manual(MANUAL_TRIGGER.to_owned()));
        }
    }
    triggers
}

/// The kinds that a manifest may name.
fn read_kind(trigger: &mut Reader<'_>, kind: &str) -> Option<TriggerKind> {
    match kind {
        "manual" => Some(TriggerKind::Manual),
        "schedule" => Some(TriggerKind::Schedule),
        "event" => Some(TriggerKind::Event),
        "webhook" => Some(TriggerKind::Webhook),
        "message" => Some(TriggerKind::Message),
        _ => {
            let message = format!(
                "there is no trigger of type `{kind}`: use one of manual, schedule, event, webhook and message"
            );
            trigger.fault("/type", "trigger_type_unknown", message);
            None
        }
    }
}

/// An input that nobody computes is known to be wrong before the first firing. One that is missing
/// is none to judge: the trigger may be replaced before it fires.
fn check_input(trigger: &mut Reader<'_>, setting: &Setting, inputs: Option<&Schema>) {
    let Some(input) = setting.input().filter(|input| !holds_expression(input)) else { return };
    if let Err(faults) = complete(inputs, Some(input.clone())) {
        trigger.add(faults.into_iter().map(|mut fault| {
            fault.code = "input_invalid";
            fault.within("/input")
        }));
    }
}
