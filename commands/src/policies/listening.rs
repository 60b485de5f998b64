//! Since when a trigger that fires by itself listens: one answer for schedules and events.

use std::sync::Arc;

use domain::agent::AgentEvent;
use eventlog::RecordedEvent;
use uuid::Uuid;

use crate::Error;
use crate::execute::decode_event;

/// The event of a trigger's stream or its agent's since which both are as they are, and the version is the
/// active one that the trigger belongs to, if it belongs to one: what was before starts nothing.
///
/// # Errors
/// A stored event does not load.
pub(super) fn since<'a>(
    own: &'a [Arc<RecordedEvent>],
    agents: &'a [Arc<RecordedEvent>],
    version: Option<Uuid>,
) -> Result<Option<&'a Arc<RecordedEvent>>, Error> {
    let mut since: Option<&Arc<RecordedEvent>> = None;
    for event in own.iter().chain(agents) {
        let begins = match event.event_type.as_str() {
            "trigger.created.v1" | "trigger.changed.v1" | "trigger.enabled.v1"
            | "agent.enabled.v1" => true,
            "agent.version_activated.v1" => match decode_event(event)? {
                AgentEvent::VersionActivated { version_id } => version == Some(version_id),
                _ => false,
            },
            _ => false,
        };
        if begins && since.is_none_or(|since| since.position < event.position) {
            since = Some(event);
        }
    }
    Ok(since)
}
