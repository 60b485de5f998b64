//! When read models are good enough to let somebody in.

use super::*;

#[test]
fn a_start_is_reached_at_its_head_and_not_before() {
    let start = Start::at(Position(7));

    assert!(!start.is_reached_by(|| Position(6)));
    assert!(start.is_reached_by(|| Position(7)));
}

#[test]
fn a_start_that_was_reached_stays_so_and_asks_no_more() {
    let start = Start::at(Position(7));
    start.is_reached_by(|| Position(8));

    // Read models that are swapped may be a little behind those before.
    assert!(start.is_reached_by(|| unreachable!("it was reached")));
}
