//! The index against brute force. Random vectors say nothing about meaning; they are here to find the nearest among.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::random::unit_vectors;

fn id(number: u64) -> Uuid {
    Uuid::from_u64_pair(0, number)
}

fn dot(one: &[f32], other: &[f32]) -> f32 {
    let products = one.iter().zip(other).map(|(one, other)| f64::from(*one) * f64::from(*other));
    products.sum::<f64>() as f32
}

/// The plain answer: all scores, sorted.
fn brute_force(
    contents: &BTreeMap<Uuid, Vec<Vec<f32>>>,
    query: &[f32],
    limit: usize,
) -> Vec<(Uuid, u32)> {
    let mut all: Vec<(f32, Uuid, u32)> = contents
        .iter()
        .flat_map(|(document, vectors)| {
            (0..).zip(vectors).map(|(chunk, vector)| (dot(query, vector), *document, chunk))
        })
        .collect();
    all.sort_by(|one, other| {
        other.0.total_cmp(&one.0).then((one.1, one.2).cmp(&(other.1, other.2)))
    });
    all.into_iter().take(limit).map(|(_, document, chunk)| (document, chunk)).collect()
}

fn found(index: &VectorIndex, query: &[f32], limit: usize) -> Vec<(Uuid, u32)> {
    index
        .search(query, limit, None, None)
        .into_iter()
        .map(|hit| (hit.document, hit.chunk))
        .collect()
}

#[test]
fn ten_nearest_of_ten_thousand_are_those_of_brute_force() {
    let mut index = VectorIndex::new(384);
    let mut contents = BTreeMap::new();
    for (number, vectors) in (0..).zip(unit_vectors(10_000, 384, 1).chunks(7)) {
        index.add(id(number), vectors);
        contents.insert(id(number), vectors.to_vec());
    }
    let mut same = 0;
    let queries = unit_vectors(50, 384, 2);
    for query in &queries {
        let expected = brute_force(&contents, query, 10);
        same += found(&index, query, 10).iter().filter(|hit| expected.contains(hit)).count();
    }
    let recall = same as f64 / (10 * queries.len()) as f64;
    assert!(recall >= 0.99, "recall@10 is {recall}");
}

/// Texts are alike in groups; so are these.
fn grouped(count: usize, seed: u64) -> Vec<Vec<f32>> {
    let centres = unit_vectors(500, 384, 9);
    let places = (0..count).map(|place| (place * 7919 + seed as usize) % centres.len());
    let noise = unit_vectors(count, 384, seed);
    let mixed = places.zip(noise).map(|(centre, noise)| {
        let sum: Vec<f32> =
            centres[centre].iter().zip(noise).map(|(one, other)| one + other * 0.8).collect();
        let length = dot(&sum, &sum).sqrt();
        sum.into_iter().map(|number| number / length).collect()
    });
    mixed.collect()
}

#[test]
fn the_look_at_the_signs_overlooks_next_to_nothing_and_obeys_what_is_named() {
    let mut index = VectorIndex::new(384);
    let mut contents = BTreeMap::new();
    for (number, vectors) in (0..).zip(grouped(40_000, 1).chunks(8)) {
        index.add(id(number), vectors);
        contents.insert(id(number), vectors.to_vec());
    }
    // Some go again, too few to move the rest together.
    for number in (0..5_000).step_by(10) {
        assert!(index.remove(id(number)) && contents.remove(&id(number)).is_some());
    }
    assert!(index.len() > 10 * FEWEST_LIKELY && index.scales.len() > index.len());
    let half: Vec<Uuid> = contents.keys().copied().filter(|id| id.as_u128() % 4 != 1).collect();
    let some: BTreeMap<_, _> = half.iter().map(|id| (*id, contents[id].clone())).collect();
    assert!(some.len() * 8 > 10 * FEWEST_LIKELY);
    let queries = grouped(25, 2);
    let mut same = [0; 2];
    for query in &queries {
        for (place, (among, contents)) in
            [(None, &contents), (Some(&half[..]), &some)].into_iter().enumerate()
        {
            let expected = brute_force(contents, query, 10);
            let hits = index.search(query, 10, None, among);
            assert!(hits.iter().all(|hit| contents.contains_key(&hit.document)));
            same[place] +=
                hits.iter().filter(|hit| expected.contains(&(hit.document, hit.chunk))).count();
        }
    }
    for same in same {
        let recall = same as f64 / (10 * queries.len()) as f64;
        assert!(recall >= 0.99, "recall@10 is {recall}");
    }
}

#[test]
fn a_score_is_the_cosine_and_the_least_score_holds() {
    let vectors = unit_vectors(300, 384, 3);
    let mut index = VectorIndex::new(384);
    index.add(id(1), &vectors);
    let hits = index.search(&vectors[42], 5, Some(0.9), None);
    assert_eq!(hits.len(), 1);
    assert_eq!((hits[0].document, hits[0].chunk), (id(1), 42));
    assert!((hits[0].score - 1.0).abs() < 3e-4);
    assert_eq!(index.score(&vectors[42], id(1), 42), Some(hits[0].score));
    assert_eq!(index.score(&vectors[42], id(1), 300), None);
    assert_eq!(index.score(&vectors[42], id(2), 0), None);
}

#[test]
fn documents_that_are_not_admitted_leave_their_places_to_others() {
    let vectors = unit_vectors(1000, 32, 4);
    let mut index = VectorIndex::new(32);
    for (number, vector) in (0..).zip(&vectors) {
        index.add(id(number), std::slice::from_ref(vector));
    }
    // One that is not there, and one twice: neither matters.
    let odd: Vec<Uuid> = (1..2000).step_by(2).chain([7]).map(id).collect();
    let hits = index.search(&vectors[0], 20, None, Some(&odd));
    assert_eq!(hits.len(), 20);
    assert!(hits.iter().all(|hit| odd.contains(&hit.document)));
    assert!(hits.windows(2).all(|pair| pair[0] != pair[1]));
    assert!(index.search(&vectors[0], 20, None, Some(&[])).is_empty());
    assert!(index.search(&vectors[0], 0, None, None).is_empty());
}

#[test]
fn equal_scores_are_ordered_by_document_and_chunk_whatever_the_order_they_came_in() {
    let same = unit_vectors(1, 16, 5).remove(0);
    let answers: Vec<_> = [[3, 1, 2], [2, 3, 1]]
        .iter()
        .map(|order| {
            let mut index = VectorIndex::new(16);
            for number in order {
                index.add(id(*number), &vec![same.clone(); 40]);
            }
            found(&index, &same, 60)
        })
        .collect();
    let expected: Vec<_> =
        (0..40).map(|chunk| (id(1), chunk)).chain((0..20).map(|chunk| (id(2), chunk))).collect();
    assert_eq!(answers, [expected.clone(), expected]);
}

#[test]
fn an_empty_index_finds_nothing() {
    let mut index = VectorIndex::new(8);
    assert!(index.is_empty() && found(&index, &[0.0; 8], 5).is_empty());
    index.add(id(1), &[]);
    assert!(index.is_empty() && found(&index, &[0.0; 8], 5).is_empty());
    assert!(index.remove(id(1)) && !index.remove(id(1)));
}

#[test]
fn removed_rows_are_reclaimed() {
    let mut index = VectorIndex::new(8);
    for number in 0..4 {
        index.add(id(number), &unit_vectors(1000, 8, number));
    }
    index.remove(id(1));
    index.remove(id(3));
    assert_eq!((index.len(), index.scales.len()), (2000, 2000));
    let rests: usize = index.rests.pieces().iter().map(|piece| piece.len()).sum();
    let nibbles: usize = index.nibbles.pieces().iter().map(|piece| piece.len()).sum();
    assert_eq!((nibbles, rests), (2000 * row_bytes(8), 4000 * row_bytes(8)));
    let bits = index.present.iter().map(|bits| bits.count_ones());
    assert_eq!(bits.sum::<u32>(), 2000);
    let query = &unit_vectors(1000, 8, 2)[123];
    assert_eq!(found(&index, query, 1), [(id(2), 123)]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn adding_replacing_and_removing_leave_what_brute_force_finds(
        steps in proptest::collection::vec((0_u64..12, 0_usize..400), 1..40),
        seed: u64,
    ) {
        let mut index = VectorIndex::new(24);
        let mut contents = BTreeMap::new();
        for (step, (document, rows)) in steps.into_iter().enumerate() {
            // A third of the steps remove.
            if rows % 3 == 0 {
                prop_assert_eq!(index.remove(id(document)), contents.remove(&id(document)).is_some());
            } else {
                let vectors = unit_vectors(rows, 24, seed.wrapping_add(step as u64));
                index.add(id(document), &vectors);
                contents.insert(id(document), vectors);
            }
            prop_assert_eq!(index.len(), contents.values().map(Vec::len).sum::<usize>());
        }
        for query in unit_vectors(3, 24, seed ^ 1) {
            let hits = index.search(&query, 3, None, None);
            let expected = brute_force(&contents, &query, 3);
            prop_assert_eq!(hits.len(), expected.len());
            for (hit, (document, chunk)) in hits.iter().zip(expected) {
                // What is closer together than the grain of a score may change places.
                let is = dot(&query, &contents[&hit.document][hit.chunk as usize]);
                let best = dot(&query, &contents[&document][chunk as usize]);
                prop_assert!((hit.score - is).abs() < 1e-3, "{} is {}", hit.score, is);
                prop_assert!((is - best).abs() < 1e-3, "{} instead of {}", is, best);
            }
        }
    }
}
