//! What becomes of each command of a group, given what the log holds.
//!
//! The rule of this file: it asks nobody. Commands are taken in their order, and each sees what
//! those before it in the group have done.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

use crate::envelope;
use crate::group::{Head, Outcome, Request};
use crate::{RecordedEvent, StreamId};

/// What the log is known, or believed, to hold.
pub(super) struct Known {
    /// Where it ends.
    pub head: Head,
    /// The lengths of the group's streams. One that is not here is believed to be as long as its
    /// first command expects.
    pub lengths: HashMap<StreamId, u64>,
    /// The events of those of the group's commands that are stored.
    pub stored: HashMap<Uuid, Vec<Arc<RecordedEvent>>>,
}

/// What becomes of a command.
enum Verdict {
    /// It is to be stored: its events have their places.
    Fresh,
    /// It is the same command as an earlier one of the group that is to be stored.
    SameAs(usize),
    /// The log has answered it already.
    Settled(Outcome),
}

/// What becomes of a group.
pub(super) struct Plan {
    verdicts: Vec<Verdict>,
    /// Where the log will end.
    pub head: Head,
    /// The streams' lengths afterwards.
    pub lengths: HashMap<StreamId, u64>,
}

impl Plan {
    /// Gives every command that fits its place.
    pub fn new(group: &mut [Request], known: Known) -> Plan {
        let Known { head, mut lengths, stored } = known;
        let mut head = head.now();
        let mut first_of: HashMap<Uuid, usize> = HashMap::new();
        let mut verdicts = Vec::with_capacity(group.len());
        for (index, request) in group.iter_mut().enumerate() {
            let command = request.events()[0].command_id;
            let length =
                lengths.get(request.stream()).copied().unwrap_or_else(|| request.believed());
            verdicts.push(if let Some(stored) = stored.get(&command) {
                Verdict::Settled(request.repeated(stored.clone()))
            } else if let Some(first) = first_of.get(&command) {
                Verdict::SameAs(*first)
            } else if request.is_stale_at(length) {
                Verdict::Settled(request.conflict(length))
            } else {
                request.place(&mut head, length);
                first_of.insert(command, index);
                lengths.insert(request.stream().clone(), length + request.events().len() as u64);
                Verdict::Fresh
            });
        }
        Plan { verdicts, head, lengths }
    }

    /// Whether no command was refused or found stored.
    pub fn is_all_fresh(&self) -> bool {
        !self.verdicts.iter().any(|verdict| matches!(verdict, Verdict::Settled(_)))
    }

    /// The events that are to be stored, in order.
    pub fn fresh<'a>(&'a self, group: &'a [Request]) -> impl Iterator<Item = &'a RecordedEvent> {
        let fresh = self.verdicts.iter().zip(group);
        fresh
            .filter(|(verdict, _)| matches!(verdict, Verdict::Fresh))
            .flat_map(|(_, request)| request.events())
    }

    /// The outcomes, in order, once the fresh events are stored.
    pub fn carried_out(self, group: &mut [Request]) -> Vec<Outcome> {
        let mut outcomes: Vec<Outcome> = Vec::with_capacity(group.len());
        for (verdict, request) in self.verdicts.into_iter().zip(group) {
            let outcome = match verdict {
                Verdict::Fresh => Ok(request.stored()),
                Verdict::Settled(outcome) => outcome,
                Verdict::SameAs(first) => {
                    let stored = outcomes[first].as_ref().map(|appended| appended.events.clone());
                    request.repeated(stored.unwrap_or_default())
                }
            };
            outcomes.push(outcome);
        }
        outcomes
    }
}

/// The columns of the rows of a group, as the server takes them.
#[derive(Default)]
pub(super) struct Columns<'a> {
    pub aggregate_types: Vec<&'a str>,
    pub aggregate_ids: Vec<&'a str>,
    pub sequences: Vec<i64>,
    pub event_types: Vec<&'a str>,
    pub commands: Vec<Option<Uuid>>,
    pub envelopes: Vec<String>,
}

impl<'a> Columns<'a> {
    /// Of events, each with its command's id where it is the command's first.
    pub fn of(events: impl Iterator<Item = (&'a RecordedEvent, Option<Uuid>)>) -> Columns<'a> {
        let mut columns = Columns::default();
        for (event, command) in events {
            columns.aggregate_types.push(event.stream.category());
            columns.aggregate_ids.push(event.stream.id());
            columns.sequences.push(event.sequence as i64);
            columns.event_types.push(&event.event_type);
            columns.commands.push(command);
            columns.envelopes.push(envelope::canonical(event));
        }
        columns
    }
}
