//! Vectors in four bits a number, for a first look at all of them: reading memory is what a search costs, and this is an eighth of
//! f32. The one rule: an estimate only chooses who is looked at closely; it is never the answer.

use pulp::{Simd, WithSimd};

/// Bytes that are worked on together, and what a row is padded to.
const LANES: usize = 32;

/// Blocks whose products are summed in 16 bits: a nibble is at most 15, a number of the query 127, and 2 · 8 · 15 · 127 = 30,480.
const BLOCKS: usize = 8;

/// What a nibble of zero is stored as.
const ZERO: u8 = 8;

/// The bytes of a row of this many numbers.
pub(super) fn row_bytes(dimensions: usize) -> usize {
    dimensions.div_ceil(2).next_multiple_of(LANES)
}

/// Appends a vector as nibbles: byte `i` holds number `i` below and the one half a vector further above. Answers what an estimate
/// must be multiplied by.
pub(super) fn pack(vector: &[f32], rows: &mut Vec<u8>) -> f32 {
    let greatest = greatest(vector);
    let nibble = |index: usize| {
        let number = vector.get(index).map_or(0.0, |number| (number * 7.0 / greatest).round());
        (number as i8).wrapping_add_unsigned(ZERO).cast_unsigned()
    };
    let half = vector.len().div_ceil(2);
    rows.extend((0..half).map(|index| nibble(index) | nibble(half + index) << 4));
    rows.resize(rows.len() + row_bytes(vector.len()) - half, 0);
    greatest / 7.0
}

/// A query, in bytes.
pub(super) struct Query {
    low: Vec<i16>,
    high: Vec<i16>,
    /// What [`ZERO`] adds to every sum.
    bias: i32,
}

impl Query {
    pub(super) fn new(vector: &[f32]) -> Self {
        let factor = 127.0 / greatest(vector);
        let numbers: Vec<i16> =
            vector.iter().map(|number| (number * factor).round() as i16).collect();
        let (low, high) = numbers.split_at(numbers.len().div_ceil(2));
        let padded = |half: &[i16]| {
            let mut half = half.to_vec();
            half.resize(row_bytes(vector.len()), 0);
            half
        };
        let bias = numbers.iter().map(|number| i32::from(*number)).sum::<i32>() * i32::from(ZERO);
        Self { low: padded(low), high: padded(high), bias }
    }
}

fn greatest(vector: &[f32]) -> f32 {
    vector.iter().fold(f32::MIN_POSITIVE, |greatest, number| greatest.max(number.abs()))
}

/// The dot products of a query with rows, up to a factor per row and one for the query.
pub(super) struct Estimate<'a> {
    pub(super) query: &'a Query,
    pub(super) rows: &'a [u8],
    /// One per row.
    pub(super) estimates: &'a mut [i32],
}

impl WithSimd for Estimate<'_> {
    type Output = ();

    // The loops are plain: within the dispatched function the compiler turns each `lane` into one instruction for all lanes.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { query: Query { low, high, bias }, rows, estimates } = self;
        let (low, high) = (low.as_chunks::<LANES>().0, high.as_chunks::<LANES>().0);
        for (row, estimate) in rows.chunks_exact(low.len() * LANES).zip(estimates) {
            let row = row.as_chunks::<LANES>().0;
            let mut total = -bias;
            for ((row, low), high) in
                row.chunks(BLOCKS).zip(low.chunks(BLOCKS)).zip(high.chunks(BLOCKS))
            {
                let mut sums = [0_i16; LANES];
                for ((row, low), high) in row.iter().zip(low).zip(high) {
                    for lane in 0..LANES {
                        let byte = i16::from(row[lane]);
                        let products = (byte & 15)
                            .wrapping_mul(low[lane])
                            .wrapping_add((byte >> 4).wrapping_mul(high[lane]));
                        sums[lane] = sums[lane].wrapping_add(products);
                    }
                }
                total = sums.iter().fold(total, |total, sum| total.wrapping_add(i32::from(*sum)));
            }
            *estimate = total;
        }
    }
}

/// The dot product of two vectors.
pub(super) struct Dot<'a>(pub(super) &'a [f32], pub(super) &'a [f32]);

impl WithSimd for Dot<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let ((ones, one_rest), (others, other_rest)) =
            (S::as_simd_f32s(self.0), S::as_simd_f32s(self.1));
        let mut sum = simd.splat_f32s(0.0);
        for (one, other) in ones.iter().zip(others) {
            sum = simd.mul_add_f32s(*one, *other, sum);
        }
        simd.reduce_sum_f32s(sum)
            + one_rest.iter().zip(other_rest).map(|(one, other)| one * other).sum::<f32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processor::Processor;
    use crate::random::unit_vectors;

    #[test]
    fn an_estimate_is_the_dot_product_within_the_grain_of_the_nibbles() {
        for dimensions in [1, 2, 7, 63, 64, 65, 384, 1024] {
            let vectors = unit_vectors(40, dimensions, 1);
            let query = Query::new(&vectors[0]);
            let unit = greatest(&vectors[0]) / 127.0;
            for processor in [Processor::detect(), Processor::Other(pulp::Arch::new())] {
                let (mut rows, mut estimates) = (Vec::new(), vec![0; vectors.len()]);
                let scales: Vec<f32> =
                    vectors.iter().map(|vector| pack(vector, &mut rows)).collect();
                processor.dispatch(Estimate {
                    query: &query,
                    rows: &rows,
                    estimates: &mut estimates,
                });
                for ((vector, estimate), scale) in vectors.iter().zip(estimates).zip(scales) {
                    let exact = processor.dispatch(Dot(&vectors[0], vector));
                    // At the worst every number is off by half a step, all in the query's direction.
                    let grain: f32 =
                        vectors[0].iter().map(|number| number.abs() * scale / 2.0 + unit).sum();
                    let estimate = estimate as f32 * scale * unit;
                    assert!(
                        (estimate - exact).abs() <= grain,
                        "{estimate} is not {exact} ({dimensions})"
                    );
                }
            }
        }
    }
}
