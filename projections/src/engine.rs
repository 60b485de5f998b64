//! What keeps read models: the files they live in, the runner that fills it, and rebuilding it
//! beside the one in use.

mod file;
mod generation;
mod halt;
mod model;
mod pool;
mod runner;
mod status;
mod views;
mod writer;

pub use halt::Halt;
pub use model::{ReadModel, stored_time};
pub use status::{State, Status, Stopped};
pub use views::{Verdict, Views, discard, standings, verify};
pub use writer::{Kept, Writer};

/// How many events are taken in in one transaction.
const BATCH: usize = 2_000;

#[cfg(test)]
mod tests;
