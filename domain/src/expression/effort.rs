//! How much one evaluation may take: all that it is allowed, or a little, to find out whether it is worth a
//! thread of its own.
//!
//! The rule of this file: whatever would take more than a little is as if it had not been tried.

use std::cell::Cell;

use serde_json::Value;

use super::Variable;

/// What all CEL expressions of such a try may spend: less than a millisecond.
const LITTLE: i64 = 32 * 1024;

/// What an expression costs at least.
const EACH: i64 = 1024;

/// How many bytes of values they may see, which are converted first.
const LITTLE_SEEN: usize = 64 * 1024;

thread_local! {
    /// What is left of a little, less than nothing once it was not enough; none where all is allowed.
    static LEFT: Cell<Option<i64>> = const { Cell::new(None) };
}

/// Does work whose evaluations are all cheap. None where they are not: then the work is to be done where it is
/// in nobody's way, and what it said here counts for nothing.
pub fn at_little_cost<T>(work: impl FnOnce() -> T) -> Option<T> {
    /// However the work ends.
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            LEFT.set(None);
        }
    }
    let _restore = Restore;
    LEFT.set(Some(LITTLE));
    let result = work();
    LEFT.get().is_some_and(|left| left >= 0).then_some(result)
}

/// What a CEL expression may spend now, of a full budget.
pub(super) fn budget(full: i64) -> i64 {
    LEFT.get().unwrap_or(full)
}

/// Takes down what an expression has left of its budget.
pub(super) fn account(left: i64) {
    if is_little() {
        LEFT.set(Some(left - EACH));
    }
}

/// Says that it takes more than a little.
pub(super) fn exceed() {
    account(-1);
}

pub(super) fn is_little() -> bool {
    LEFT.get().is_some()
}

/// Whether these values are few enough to be looked at for little.
pub(super) fn is_little_to_see(variables: &[Variable<'_>]) -> bool {
    let mut left = LITTLE_SEEN;
    variables.iter().all(|(_, value)| fits(value, &mut left))
}

fn fits(value: &Value, left: &mut usize) -> bool {
    let own = 16 + value.as_str().map_or(0, str::len);
    match left.checked_sub(own) {
        Some(rest) => *left = rest,
        None => return false,
    }
    match value {
        Value::Array(items) => items.iter().all(|item| fits(item, left)),
        Value::Object(object) => object.iter().all(|(key, item)| {
            *left = left.saturating_sub(key.len());
            fits(item, left)
        }),
        _ => true,
    }
}
