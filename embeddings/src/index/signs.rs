//! Vectors in a bit a number, its sign, for a first look at all of them. The one rule: what is as near as what is kept is kept too, so
//! that the order of the rows decides nothing.

use pulp::{Simd, WithSimd};

/// The distance of what is not to be found.
pub(super) const FAR: u16 = u16::MAX;

/// The words of a row of this many numbers.
pub(super) fn words(dimensions: usize) -> usize {
    dimensions.div_ceil(64)
}

/// Appends the signs of a vector.
pub(super) fn sign(vector: &[f32], rows: &mut Vec<u64>) {
    rows.extend(vector.chunks(64).map(|numbers| {
        let bits = (0..).zip(numbers);
        bits.fold(0, |word, (place, number)| word | u64::from(*number >= 0.0) << place)
    }));
}

/// In how many signs a query differs from rows.
pub(super) struct Distances<'a> {
    pub(super) query: &'a [u64],
    pub(super) rows: &'a [u64],
    /// One per row.
    pub(super) distances: &'a mut [u16],
}

impl WithSimd for Distances<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { query, rows, distances } = self;
        // The lengths of the common models, which the compiler unrolls; 384, 512, 768 and 1,024 numbers.
        match query.len() {
            6 => fixed::<6>(query, rows, distances),
            8 => fixed::<8>(query, rows, distances),
            12 => fixed::<12>(query, rows, distances),
            16 => fixed::<16>(query, rows, distances),
            width => {
                for (row, distance) in rows.chunks_exact(width.max(1)).zip(distances) {
                    *distance = differing(row, query);
                }
            }
        }
    }
}

#[inline(always)]
fn fixed<const WIDTH: usize>(query: &[u64], rows: &[u64], distances: &mut [u16]) {
    let Some(query) = query.first_chunk::<WIDTH>() else { return };
    for (row, distance) in rows.as_chunks::<WIDTH>().0.iter().zip(distances) {
        *distance = differing(row, query);
    }
}

#[inline(always)]
fn differing(row: &[u64], query: &[u64]) -> u16 {
    row.iter().zip(query).map(|(one, other)| (one ^ other).count_ones() as u16).sum()
}

/// Into how many steps a number of a query is cut for a closer look at signs: four bits.
const STEPS: f32 = 15.0;

/// A query for a closer look at signs: a word of each row's bits, by the bits of its own numbers.
pub(super) struct Planes {
    /// Four words for each word of a row.
    planes: Vec<[u64; 4]>,
}

impl Planes {
    pub(super) fn new(query: &[f32]) -> Self {
        let greatest = query.iter().fold(f32::MIN_POSITIVE, |most, number| most.max(number.abs()));
        let planes = query.chunks(64).map(|numbers| {
            let mut planes = [0_u64; 4];
            for (place, number) in numbers.iter().enumerate() {
                let step = ((number / greatest + 1.0) / 2.0 * STEPS).round() as u64;
                for (bit, plane) in planes.iter_mut().enumerate() {
                    *plane |= (step >> bit & 1) << place;
                }
            }
            planes
        });
        Self { planes: planes.collect() }
    }

    /// What the numbers of the query come to with the signs of a row; up to a factor and a constant of the query.
    #[inline(always)]
    fn of(&self, row: &[u64]) -> i32 {
        let (mut sum, mut positive) = (0, 0);
        for (word, planes) in row.iter().zip(&self.planes) {
            positive += word.count_ones();
            for (bit, plane) in planes.iter().enumerate() {
                sum += (word & plane).count_ones() << bit;
            }
        }
        2 * sum as i32 - STEPS as i32 * positive as i32
    }
}

/// Of these rows, the best by [`Planes`], so many at least.
pub(super) struct Sift<'a> {
    pub(super) planes: &'a Planes,
    pub(super) rows: &'a [u64],
    pub(super) of: Vec<u32>,
    pub(super) count: usize,
}

impl WithSimd for Sift<'_> {
    type Output = Vec<u32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Vec<u32> {
        let Self { planes, rows, mut of, count } = self;
        if of.len() <= count || count == 0 {
            return of;
        }
        let width = planes.planes.len();
        let sums: Vec<i32> =
            of.iter().map(|row| planes.of(&rows[*row as usize * width..][..width])).collect();
        let mut ordered = sums.clone();
        let least = *ordered.select_nth_unstable_by(count - 1, |one, other| other.cmp(one)).1;
        let mut sums = sums.into_iter();
        of.retain(|_| sums.next().is_some_and(|sum| sum >= least));
        of
    }
}

/// The rows that are nearest, so many at least.
pub(super) fn nearest(distances: &[u16], dimensions: usize, count: usize) -> Vec<u32> {
    // Two tables, since the same place of one is written again and again.
    let mut tables = [vec![0_u32; dimensions + 1], vec![0_u32; dimensions + 1]];
    for (place, distance) in distances.iter().enumerate() {
        if let Some(times) = tables[place % 2].get_mut(usize::from(*distance)) {
            *times += 1;
        }
    }
    let mut kept = 0;
    let mut last = dimensions;
    for (distance, (one, other)) in tables[0].iter().zip(&tables[1]).enumerate() {
        kept += (one + other) as usize;
        if kept >= count {
            last = distance;
            break;
        }
    }
    let mut rows = Vec::with_capacity(kept);
    for (block, distances) in (0..).step_by(64).zip(distances.chunks(64)) {
        // Most blocks have none.
        if distances.iter().fold(FAR, |least, distance| least.min(*distance)) as usize <= last {
            let near = (block..).zip(distances).filter(|(_, near)| usize::from(**near) <= last);
            rows.extend(near.map(|(row, _)| row));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processor::Processor;
    use crate::random::unit_vectors;

    #[test]
    fn a_distance_is_how_many_signs_differ() {
        for dimensions in [1, 63, 64, 65, 384, 512, 768, 1000, 1024] {
            let vectors = unit_vectors(20, dimensions, 1);
            let mut rows = Vec::new();
            vectors.iter().for_each(|vector| sign(vector, &mut rows));
            for processor in [Processor::detect(), Processor::Other(pulp::Arch::new())] {
                let mut distances = vec![0; vectors.len()];
                processor.dispatch(Distances {
                    query: &rows[..words(dimensions)],
                    rows: &rows,
                    distances: &mut distances,
                });
                let plain = vectors.iter().map(|vector| {
                    let pairs = vector.iter().zip(&vectors[0]);
                    pairs.filter(|(one, other)| (**one >= 0.0) != (**other >= 0.0)).count() as u16
                });
                assert_eq!(distances, plain.collect::<Vec<_>>(), "{dimensions}");
            }
        }
    }

    #[test]
    fn a_closer_look_at_signs_is_the_dot_product_with_them_within_its_grain() {
        for dimensions in [5, 64, 384, 1000] {
            let vectors = unit_vectors(50, dimensions, 2);
            let mut rows = Vec::new();
            vectors.iter().for_each(|vector| sign(vector, &mut rows));
            let planes = Planes::new(&vectors[0]);
            let greatest = vectors[0].iter().fold(0.0_f32, |most, number| most.max(number.abs()));
            let whole: f32 = vectors[0].iter().sum();
            for (row, vector) in rows.chunks(words(dimensions)).zip(&vectors) {
                let signed = vector
                    .iter()
                    .zip(&vectors[0])
                    .map(|(sign, number)| if *sign >= 0.0 { *number } else { -number });
                let exact: f32 = signed.sum();
                let close = planes.of(row) as f32 / STEPS * greatest * 2.0 - whole;
                let grain = dimensions as f32 * greatest / STEPS * 2.0;
                assert!((close - exact).abs() <= grain, "{close} is not {exact} ({dimensions})");
            }
            let all: Vec<u32> = (0..50).collect();
            let sift = |count| {
                let (planes, rows) = (&planes, &rows[..]);
                Processor::detect().dispatch(Sift { planes, rows, of: all.clone(), count })
            };
            assert_eq!(sift(50), all);
            assert!(sift(3).len() >= 3 && sift(3).contains(&0));
        }
    }

    #[test]
    fn all_that_are_as_near_as_the_last_are_kept() {
        let distances = [3, 1, FAR, 2, 2, 3, 2];
        assert_eq!(nearest(&distances, 64, 2), [1, 3, 4, 6]);
        assert_eq!(nearest(&distances, 64, 1), [1]);
        assert_eq!(nearest(&distances, 64, 5), [0, 1, 3, 4, 5, 6]);
        assert_eq!(nearest(&distances, 64, 7), [0, 1, 3, 4, 5, 6]);
        assert_eq!(nearest(&[], 64, 7), [0; 0]);
    }
}
