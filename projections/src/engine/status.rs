//! What is known of a read model from outside: where it stands and how it fares.

use eventlog::Position;
use serde::Serialize;

/// How a read model fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It follows the log.
    Running,
    /// It is being filled for the first time; answers are not complete yet.
    CatchingUp,
    /// It follows the log, and is built anew beside that.
    Rebuilding,
    /// It met an event that it cannot take in, and waits for a repair.
    Stopped,
}

/// The event that stopped a read model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Stopped {
    /// Its position in the log.
    pub position: u64,
    /// Its type, as `agent.installed.v1`.
    pub event_type: String,
    /// What went wrong.
    pub error: String,
}

/// Where a read model stands.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Status {
    /// Its name, as `agent`.
    pub name: String,
    /// Its version; a new one refills it.
    pub version: u32,
    /// The last position that it has taken in.
    pub position: u64,
    /// How many positions it is behind the log.
    pub lag: u64,
    /// How it fares.
    pub state: State,
    /// Events a second, over its last busy stretch.
    pub rate: f64,
    /// How far a rebuild has come, 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rebuild_percent: Option<u8>,
    /// What stopped it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stopped>,
}

impl Status {
    /// Counts how many positions it is behind a log that goes up to `head`.
    pub fn measure(&mut self, head: Position) {
        self.lag = head.0.saturating_sub(self.position);
    }

    /// The status of a model that has taken everything in up to `position`.
    pub(crate) fn at(name: &str, version: u32, position: Position) -> Status {
        Status {
            name: name.to_owned(),
            version,
            position: position.0,
            lag: 0,
            state: State::CatchingUp,
            rate: 0.0,
            rebuild_percent: None,
            stopped: None,
        }
    }
}
