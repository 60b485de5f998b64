//! What stands where in a list of both, and with which score.

use super::*;

fn hit(number: u32, score: f32) -> Hit {
    Hit { document: Uuid::from_u128(7), chunk: number, score }
}

fn nothing(_: &Hit) -> Option<f32> {
    None
}

/// Chunks and scores, best first.
#[track_caller]
fn assert_fused(found: &[Hit], expected: &[(u32, f32)]) {
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (hit, (chunk, score)) in found.iter().zip(expected) {
        assert_eq!(hit.chunk, *chunk, "{found:?}");
        assert!((hit.score - score).abs() < 1e-5, "{found:?}");
    }
}

#[test]
fn what_is_found_by_both_may_pass_what_is_best_by_one() {
    let by_meaning = vec![hit(1, 0.8), hit(2, 0.6)];
    let by_words = vec![hit(2, 10.0), hit(3, 5.0)];
    let found = fuse(by_meaning, by_words, |hit| (hit.chunk == 3).then_some(0.1));
    // From -1 to 0.8 it is 1.8: the second went 1.6 of it, the third 1.1, and half the words' way.
    let second = 0.8 * 1.6 / 1.8 + 0.2;
    let third = 0.8 * 1.1 / 1.8 + 0.2 * 0.5;
    assert_fused(&found, &[(2, second), (1, 0.8), (3, third)]);
}

#[test]
fn how_much_better_the_first_is_counts_and_not_only_that_it_is() {
    let words = |first: f32| vec![hit(2, first), hit(1, 9.0)];
    let meaning = || vec![hit(1, 0.5), hit(2, 0.47)];
    assert_eq!(fuse(meaning(), words(9.1), nothing)[0].chunk, 1, "a little better by words");
    assert_eq!(fuse(meaning(), words(30.0), nothing)[0].chunk, 2, "much better by words");
}

#[test]
fn a_list_alone_keeps_its_order_and_its_best_is_the_best_there_can_be() {
    let found = fuse(vec![hit(1, 0.9), hit(2, 0.4)], vec![], nothing);
    assert_fused(&found, &[(1, 0.8), (2, 0.8 * 1.4 / 1.9)]);
    let found = fuse(vec![], vec![hit(1, 4.0), hit(2, 1.0)], |_| Some(0.3));
    assert_fused(&found, &[(1, 1.0), (2, 0.85)]);
    assert_eq!(fuse(vec![], vec![], nothing), []);
}

#[test]
fn what_is_found_by_words_and_has_no_vector_is_left_out() {
    assert_eq!(fuse(vec![], vec![hit(1, 4.0)], nothing), []);
    let found = fuse(vec![hit(1, 0.5)], vec![hit(2, 4.0)], nothing);
    assert_fused(&found, &[(1, 0.8)]);
}

#[test]
fn the_least_that_there_can_be_makes_no_score_that_is_no_number() {
    let found = fuse(vec![hit(1, -1.0)], vec![hit(1, 0.0), hit(2, 0.0)], |_| Some(-1.0));
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|hit| hit.score.is_finite()), "{found:?}");
    assert_eq!((found[0].chunk, found[1].chunk), (1, 2), "alike, by their place in the file");
}
