//! Where expressions are evaluated.
//!
//! The rule of this file: what takes next to nothing is done where it is asked for, since going elsewhere costs
//! more; the rest is done where it is in nobody's way. It is work for the processor, and it may crash.

use std::panic::AssertUnwindSafe;

use domain::expression;

/// The work crashed: a fault of this server.
pub(crate) struct Crashed;

/// Does work that evaluates expressions; twice, from the beginning, if it takes more than a little.
///
/// # Errors
/// It crashed.
pub(crate) async fn evaluated<T: Send + 'static>(
    work: impl Fn() -> T + Send + 'static,
) -> Result<T, Crashed> {
    match at_once(&work)? {
        Some(result) => Ok(result),
        None => tokio::task::spawn_blocking(work).await.map_err(|_| Crashed),
    }
}

/// Does work that evaluates expressions, here and now. None where that takes more than a little.
///
/// # Errors
/// It crashed.
pub(crate) fn at_once<T>(work: impl FnOnce() -> T) -> Result<Option<T>, Crashed> {
    let here = AssertUnwindSafe(|| expression::at_little_cost(work));
    std::panic::catch_unwind(here).map_err(|_| Crashed)
}
