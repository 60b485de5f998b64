//! What a message trigger listens to: which communicator, which channel, which messages.
//!
//! The rule of this file: who says nothing hears everything that people say to the product.

use std::collections::BTreeSet;

use serde_json::Value;
use uuid::Uuid;

use super::setting::read_input;
use crate::expression::{Cel, Place};
use crate::integration::IntegrationKind;
use crate::manifest::IntegrationSlot;
use crate::reader::Reader;
use crate::refusal::Fault;

/// The longest name of a channel.
const MAX_CHANNEL: usize = 200;

/// What a message trigger listens to.
#[derive(Clone, Debug, PartialEq)]
pub struct MessageFilter {
    /// Through which communicator people speak.
    pub from: Source,
    /// In which channel; in any without it.
    pub channel: Option<String>,
    /// Which messages start an execution; all of them without it.
    pub filter: Option<Cel>,
    /// The input of the execution, with its expressions; the message without it.
    pub input: Option<Value>,
}

/// Through which communicator people speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Any of the product's.
    Any,
    /// The one in a slot of the manifest; any of the slot's kinds where it is bound to none.
    Slot(String),
    /// The one of this id.
    Integration(Uuid),
}

pub(super) fn read(read: &mut Reader<'_>) -> Option<MessageFilter> {
    read.only(&["slot", "integration", "channel", "match", "input"]);
    let slot = read.text("slot");
    let integration = read.text("integration").and_then(|text| {
        let id = text.parse::<Uuid>().ok();
        read.require(id.is_some(), "/integration", "integration_invalid", || {
            "`integration` is the id of an integration, a UUID".to_owned()
        });
        id
    });
    let both = read.document.contains_key("slot") && read.document.contains_key("integration");
    read.require(!both, "/integration", "fields_exclude_each_other", || {
        "`slot` and `integration` exclude each other: keep one".to_owned()
    });
    let from = match (slot, integration) {
        (Some(slot), _) => Source::Slot(slot),
        (None, Some(id)) => Source::Integration(id),
        (None, None) => Source::Any,
    };
    let channel = read.text("channel");
    let fits = channel.as_ref().is_none_or(|it| (1..=MAX_CHANNEL).contains(&it.chars().count()));
    read.require(fits, "/channel", "channel_invalid", || {
        format!("a channel is named by its id, of 1 to {MAX_CHANNEL} characters, as C0123456789")
    });
    let filter = read.document.get("match").and_then(|filter| {
        Cel::parse(filter, Place::Message, &BTreeSet::new())
            .map_err(|faults| read.add(faults.into_iter().map(|fault| fault.within("/match"))))
            .ok()
    });
    let input = read_input(read, Place::Message);
    Some(MessageFilter { from, channel, filter, input })
}

impl MessageFilter {
    /// The fault that can be known from the slots of the manifest.
    pub fn check_slot(&self, slots: &[IntegrationSlot]) -> Option<Fault> {
        let Source::Slot(name) = &self.from else { return None };
        let Some(slot) = slots.iter().find(|known| known.slot == *name) else {
            let message = format!(
                "the manifest has no integration slot `{name}`: add it to requires.integrations"
            );
            return Some(Fault::new("/slot", "slot_unknown", message));
        };
        let is_one = |kind: &String| {
            IntegrationKind::parse(kind).is_some_and(IntegrationKind::is_communicator)
        };
        if slot.kinds.iter().all(is_one) {
            return None;
        }
        let message = format!(
            "nobody talks through everything that the slot `{name}` lets in: narrow its kinds to slack, google-chat \
             and teams"
        );
        Some(Fault::new("/slot", "slot_not_of_communicators", message))
    }
}
