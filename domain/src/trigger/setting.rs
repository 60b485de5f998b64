//! What a trigger's kind needs to know: a schedule's pattern, an event's filter, how a
//! webhook is verified, to whom people speak.
//!
//! The rule of this file: a configuration is read here, wherever it comes from: a manifest, a
//! request, or the log.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::DateTime;
use serde_json::Value;

use super::TriggerKind;
use super::message::{self, MessageFilter};
use super::webhook::{self, Webhook};
use crate::expression::{self, Cel, Place};
use crate::reader::Reader;
use crate::refusal::Fault;
use crate::schedule::{MAX_JITTER, Missed, Overlap, Schedule, parse_cron, parse_zone};
use crate::values::{Object, Timestamp};

/// The deepest that executions may start each other through events.
pub const MAX_DEPTH: u64 = 16;

/// How deep executions start each other through events when it is not told.
pub const DEFAULT_DEPTH: u32 = 4;

/// What a trigger listens to, with all it needs to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting {
    /// A person or a program says so.
    Manual,
    /// The clock.
    Schedule {
        /// When.
        schedule: Box<Schedule>,
        /// The input of the execution, with its expressions; `{}` without it.
        input: Option<Value>,
    },
    /// Another event of the log.
    Event {
        /// Which.
        filter: Cel,
        /// An event at the end of this many executions that events started, one because of the other,
        /// starts none.
        max_depth: u32,
        /// The input of the execution, with its expressions; without it `{"event": …}` where the
        /// agent's inputs know an event, otherwise `{}`.
        input: Option<Value>,
    },
    /// A delivery from outside.
    Webhook(Box<Webhook>),
    /// A message in a communicator.
    Message(Box<MessageFilter>),
}

impl Setting {
    /// Reads the configuration of a trigger.
    ///
    /// # Errors
    /// Its faults, with JSON pointers into the configuration.
    pub fn parse(kind: TriggerKind, configuration: &Object) -> Result<Setting, Vec<Fault>> {
        let mut read = Reader::new(configuration);
        let setting = match kind {
            TriggerKind::Manual => {
                read.only(&[]);
                Some(Setting::Manual)
            }
            TriggerKind::Schedule => read_schedule(&mut read),
            TriggerKind::Event => read_event(&mut read),
            TriggerKind::Webhook => {
                webhook::read(&mut read).map(|webhook| Setting::Webhook(Box::new(webhook)))
            }
            TriggerKind::Message => {
                message::read(&mut read).map(|message| Setting::Message(Box::new(message)))
            }
        };
        match setting {
            Some(setting) if read.faults.is_empty() => Ok(setting),
            _ => Err(read.faults),
        }
    }

    /// The input that it gives an execution, with its expressions.
    pub fn input(&self) -> Option<&Value> {
        match self {
            Setting::Manual => None,
            Setting::Schedule { input, .. } | Setting::Event { input, .. } => input.as_ref(),
            Setting::Webhook(webhook) => webhook.input.as_ref(),
            Setting::Message(message) => message.input.as_ref(),
        }
    }
}

fn read_schedule(read: &mut Reader<'_>) -> Option<Setting> {
    read.only(&["cron", "tz", "missed", "overlap", "jitter", "start", "end", "input"]);
    let cron = read.required_text("cron");
    let pattern = cron.as_deref().map(parse_cron);
    if let Some(Err(message)) = &pattern {
        read.fault("/cron", "cron_invalid", message);
    }
    let zone = read.text("tz").unwrap_or_else(|| "UTC".to_owned());
    let zone = parse_zone(&zone).map_err(|message| read.fault("/tz", "tz_unknown", message)).ok();
    let missed = [("skip", Missed::Skip), ("last", Missed::Last), ("all", Missed::All)];
    let overlap = [
        ("allow", Overlap::Allow),
        ("skip", Overlap::Skip),
        ("queue", Overlap::Queue),
        ("cancel_running", Overlap::CancelRunning),
    ];
    let missed = read.choice("missed", &missed).unwrap_or_default();
    let overlap = read.choice("overlap", &overlap).unwrap_or_default();
    let jitter = read.duration("jitter", Duration::ZERO, MAX_JITTER).unwrap_or_default();
    let (start, end) = (read_time(read, "start"), read_time(read, "end"));
    if let (Some(start), Some(end)) = (start, end) {
        read.require(*start < *end, "/end", "end_before_start", || {
            "the schedule ends before it starts: mend `start` or `end`".to_owned()
        });
    }
    let input = read_input(read, Place::ScheduleInput);
    let mut schedule = Box::new(Schedule::new(&cron?, zone?).ok()?);
    schedule.missed = missed;
    schedule.overlap = overlap;
    schedule.jitter = jitter;
    schedule.start = start;
    schedule.end = end;
    Some(Setting::Schedule { schedule, input })
}

fn read_event(read: &mut Reader<'_>) -> Option<Setting> {
    read.only(&["match", "max_depth", "input"]);
    let filter = match read.document.get("match") {
        Some(filter) => Cel::parse(filter, Place::Match, &BTreeSet::new())
            .map_err(|faults| read.add(faults.into_iter().map(|fault| fault.within("/match"))))
            .ok(),
        None => {
            let message =
                "`match` is missing: say which events, as `event.type == 'file.indexed.v1'`";
            read.fault("/match", "field_missing", message);
            None
        }
    };
    let max_depth =
        read.integer("max_depth", 1, MAX_DEPTH).map_or(DEFAULT_DEPTH, |depth| depth as u32);
    let input = read_input(read, Place::EventInput);
    Some(Setting::Event { filter: filter?, max_depth, input })
}

pub(super) fn read_input(read: &mut Reader<'_>, place: Place) -> Option<Value> {
    let input = read.document.get("input")?;
    let faults = expression::check(input, place, &BTreeSet::new());
    read.add(faults.into_iter().map(|fault| fault.within("/input")));
    Some(input.clone())
}

fn read_time(read: &mut Reader<'_>, field: &str) -> Option<Timestamp> {
    let text = read.text(field)?;
    let time = DateTime::parse_from_rfc3339(&text).ok();
    read.require(time.is_some(), &format!("/{field}"), "time_invalid", || {
        "write a time with its zone, as 2026-01-31T09:00:00Z".to_owned()
    });
    time.map(|time| Timestamp::from(time.to_utc()))
}

#[cfg(test)]
mod tests;
