//! What keeps read models: the file they live in, the runner that fills it, and rebuilding it
//! beside the one in use.

mod file;
mod model;
mod pool;
mod runner;
mod status;
mod views;

pub use file::dump;
pub use model::{ReadModel, stored_time};
pub use status::{State, Status, Stopped};
pub use views::{Verdict, Views, discard, standings, verify};
