//! Vectors in four bits a number, for a closer look at some of them: reading memory is what a search costs, and this is an eighth of
//! f32. The one rule: an estimate only chooses who is looked at closely; it is never the answer.

use pulp::{Simd, WithSimd};

use super::rows::Rows;

/// Bytes that are worked on together, and what a row is padded to.
const LANES: usize = 32;

/// Blocks whose products are summed in 16 bits: a nibble is at most 15, a number of the query 127, and 2 · 8 · 15 · 127 = 30,480.
const BLOCKS: usize = 8;

/// The bytes that memory is read in.
const LINE: usize = 64;

/// What a nibble of zero is stored as.
const ZERO: u8 = 8;

/// The bytes of a row of this many numbers.
pub(super) fn row_bytes(dimensions: usize) -> usize {
    dimensions.div_ceil(2).next_multiple_of(LANES)
}

/// Into how many parts a rest divides the step of a nibble: it is at most half a step.
const PARTS: f32 = 254.0;

/// Appends a vector as nibbles: byte `i` holds number `i` below and the one half a vector further above; and what they leave, first
/// of the numbers below. Answers what an estimate must be multiplied by.
pub(super) fn pack(vector: &[f32], rows: &mut Vec<u8>, rests: &mut Vec<i8>) -> f32 {
    let greatest = greatest(vector);
    let steps = |index: usize| vector.get(index).map_or(0.0, |number| number * 7.0 / greatest);
    let nibble =
        |index: usize| (steps(index).round() as i8).wrapping_add_unsigned(ZERO).cast_unsigned();
    let rest = |index: usize| ((steps(index) - steps(index).round()) * PARTS).round() as i8;
    let half = vector.len().div_ceil(2);
    let padding = row_bytes(vector.len()) - half;
    rows.extend((0..half).map(|index| nibble(index) | nibble(half + index) << 4));
    rows.resize(rows.len() + padding, 0);
    for start in [0, half] {
        rests.extend((start..start + half).map(rest));
        rests.resize(rests.len() + padding, 0);
    }
    greatest / 7.0
}

/// A query, in bytes and as it is.
pub(super) struct Query {
    low: Vec<i16>,
    high: Vec<i16>,
    exact_low: Vec<f32>,
    exact_high: Vec<f32>,
    /// What [`ZERO`] adds to every sum.
    bias: i32,
}

impl Query {
    pub(super) fn new(vector: &[f32]) -> Self {
        let factor = 127.0 / greatest(vector);
        let numbers: Vec<i16> =
            vector.iter().map(|number| (number * factor).round() as i16).collect();
        let half = numbers.len().div_ceil(2);
        let bias = numbers.iter().map(|number| i32::from(*number)).sum::<i32>() * i32::from(ZERO);
        Self {
            low: padded(&numbers[..half], vector.len()),
            high: padded(&numbers[half..], vector.len()),
            exact_low: padded(&vector[..half], vector.len()),
            exact_high: padded(&vector[half..], vector.len()),
            bias,
        }
    }
}

fn padded<T: Copy + Default>(half: &[T], dimensions: usize) -> Vec<T> {
    let mut half = half.to_vec();
    half.resize(row_bytes(dimensions), T::default());
    half
}

fn greatest(vector: &[f32]) -> f32 {
    vector.iter().fold(f32::MIN_POSITIVE, |greatest, number| greatest.max(number.abs()))
}

/// The dot products of a query with rows, up to a factor per row and one for the query.
pub(super) struct Estimate<'a> {
    pub(super) query: &'a Query,
    pub(super) rows: &'a Rows<u8>,
    /// Which rows.
    pub(super) of: &'a [u32],
    /// One for each of them.
    pub(super) estimates: &'a mut [i32],
}

impl WithSimd for Estimate<'_> {
    type Output = ();

    // The loops are plain: within the dispatched function the compiler turns each `lane` into one instruction for all lanes.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { query: Query { low, high, bias, .. }, rows, of, estimates } = self;
        let (low, high) = (low.as_chunks::<LANES>().0, high.as_chunks::<LANES>().0);
        for (place, (row, estimate)) in of.iter().zip(estimates).enumerate() {
            if place % FETCHED == 0 {
                fetch(rows, &of[place..of.len().min(place + FETCHED)]);
            }
            let row = rows.row(*row as usize).as_chunks::<LANES>().0;
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

/// How many rows are fetched at once from far memory.
const FETCHED: usize = 16;

/// Touches each line of some rows, so that the processor waits for all of them at once and not for one after the other.
#[inline(always)]
fn fetch(rows: &Rows<u8>, of: &[u32]) {
    let lines = of.iter().flat_map(|row| rows.row(*row as usize).iter().step_by(LINE));
    std::hint::black_box(lines.fold(0, |seen, byte| seen | byte));
}

/// The dot product of a query with one row, up to the row's factor.
pub(super) struct Closer<'a> {
    pub(super) query: &'a Query,
    pub(super) nibbles: &'a [u8],
    pub(super) rests: &'a [i8],
}

impl WithSimd for Closer<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f32 {
        let Self { query: Query { exact_low, exact_high, .. }, nibbles, rests } = self;
        let (low_rests, high_rests) = rests.split_at(nibbles.len());
        let (low, high) = (exact_low.as_chunks::<LANES>().0, exact_high.as_chunks::<LANES>().0);
        let (low_rests, high_rests) =
            (low_rests.as_chunks::<LANES>().0, high_rests.as_chunks::<LANES>().0);
        let mut sums = [0.0_f32; LANES];
        for (block, bytes) in nibbles.as_chunks::<LANES>().0.iter().enumerate() {
            for lane in 0..LANES {
                let byte = i32::from(bytes[lane]);
                let below = (byte & 15) - i32::from(ZERO);
                let above = (byte >> 4) - i32::from(ZERO);
                let below = below as f32 + f32::from(low_rests[block][lane]) / PARTS;
                let above = above as f32 + f32::from(high_rests[block][lane]) / PARTS;
                sums[lane] += below * low[block][lane] + above * high[block][lane];
            }
        }
        sums.iter().sum()
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
                let bytes = row_bytes(dimensions);
                let (mut rows, mut rests) = (Rows::new(bytes, 4), Rows::new(2 * bytes, 4));
                let pack_one = |vector: &Vec<f32>| {
                    let (mut nibbles, mut rest) = (Vec::new(), Vec::new());
                    let scale = pack(vector, &mut nibbles, &mut rest);
                    rows.push(&nibbles);
                    rests.push(&rest);
                    scale
                };
                let scales: Vec<f32> = vectors.iter().map(pack_one).collect();
                // Backwards, to see that each is of its own row.
                let of: Vec<u32> = (0..vectors.len() as u32).rev().collect();
                let mut estimates = vec![0; vectors.len()];
                processor.dispatch(Estimate {
                    query: &query,
                    rows: &rows,
                    of: &of,
                    estimates: &mut estimates,
                });
                for (row, estimate) in of.into_iter().map(|row| row as usize).zip(estimates) {
                    let (vector, scale) = (&vectors[row], scales[row]);
                    let exact: f32 =
                        vectors[0].iter().zip(vector).map(|(one, other)| one * other).sum();
                    let closer =
                        Closer { query: &query, nibbles: rows.row(row), rests: rests.row(row) };
                    let close = processor.dispatch(closer) * scale;
                    let fine: f32 =
                        vectors[0].iter().map(|number| number.abs() * scale / PARTS / 2.0).sum();
                    assert!(
                        (close - exact).abs() <= fine + 1e-5,
                        "{close} is not {exact} ({dimensions})"
                    );
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
