//! The arithmetic of the forward pass: matrix product, attention, layer norm, GELU. The one rule: every kernel is written once, for
//! vectors of any width (see [`crate::processor`]).

use pulp::{Simd, WithSimd};

use crate::processor::Processor;

/// Rows of a product that are worked on together: 6 rows × 4 vectors of sums leave room in 32 registers for what is multiplied.
const TILE_ROWS: usize = 6;

/// Columns of a weight matrix that lie together (see [`Product`]).
pub(crate) fn panel_width(processor: Processor) -> usize {
    processor.dispatch(PanelWidth)
}

struct PanelWidth;

impl WithSimd for PanelWidth {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        panel_vectors::<S>() * S::F32_LANES
    }
}

/// Vectors in a row of a tile: as many as the registers hold beside [`TILE_ROWS`].
#[inline(always)]
const fn panel_vectors<S: Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { 4 } else { 2 }
}

/// Numbers of half precision in a cache line.
const LINE: usize = 32;

/// What a product does with its sums.
#[derive(Clone, Copy)]
pub(crate) enum Then<'a> {
    /// `output = input · weights + bias`
    Bias(&'a [f32]),
    /// `output = gelu(input · weights + bias)`
    BiasGelu(&'a [f32]),
    /// `output += input · weights`
    Add,
}

/// `output ← input · weights`, the linear layer of every kind.
///
/// `weights` is packed: panels of [`panel_width`] columns, each a run of `depth` rows, in half precision. A panel is
/// widened to f32 once into `panel` (it then lies in the second-level cache) and used for all rows of the input. Meanwhile the
/// panel after it is called into the cache, so that a short question does not wait for the memory.
pub(crate) struct Product<'a> {
    /// Row-major, `depth` wide.
    pub(crate) input: &'a [f32],
    /// Rows of the weights, which are the columns of the input.
    pub(crate) depth: usize,
    /// Packed, see above. What lies behind the matrix is the one that is used next.
    pub(crate) weights: &'a [u16],
    /// What becomes of the sums.
    pub(crate) then: Then<'a>,
    /// Row-major, `columns` wide.
    pub(crate) output: &'a mut [f32],
    /// Columns of the weights and of the output.
    pub(crate) columns: usize,
    /// Scratch space of `depth × panel_width`.
    pub(crate) panel: &'a mut [f32],
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if panel_vectors::<S>() == 4 { self.run::<S, 4>(simd) } else { self.run::<S, 2>(simd) }
    }
}

impl Product<'_> {
    #[inline(always)]
    fn run<S: Simd, const VECTORS: usize>(self, simd: S) {
        let Self { input, depth, weights, then, output, columns, panel } = self;
        let width = VECTORS * S::F32_LANES;
        let rows = input.len() / depth;
        assert!(
            output.len() == rows * columns
                && weights.len() >= depth * columns
                && columns.is_multiple_of(width)
        );

        for index in 0..columns / width {
            let panel = &mut panel[..depth * width];
            let (packed, following) = weights[index * depth * width..].split_at(depth * width);
            for (wide, half) in panel.iter_mut().zip(packed) {
                *wide = widen(*half);
            }
            let weights = S::as_simd_f32s(panel).0.as_chunks::<VECTORS>().0;
            let panel =
                Panel::<S, VECTORS> { input, weights, then, columns, column: index * width };
            // Every tile calls for as many lines of the following panel as it has steps, until all are on their way.
            let mut calls = following[..following.len().min(depth * width)].chunks(depth * LINE);
            let mut row = 0;
            while row < rows {
                let call = calls.next().unwrap_or_default();
                row += match rows - row {
                    TILE_ROWS.. => panel.multiply::<TILE_ROWS>(simd, row, call, output),
                    4.. => panel.multiply::<4>(simd, row, call, output),
                    2.. => panel.multiply::<2>(simd, row, call, output),
                    _ => panel.multiply::<1>(simd, row, call, output),
                };
            }
        }
    }
}

/// Some columns of the weights, widened.
struct Panel<'a, S: Simd, const VECTORS: usize> {
    input: &'a [f32],
    /// One item per row of the weights.
    weights: &'a [[S::f32s; VECTORS]],
    then: Then<'a>,
    columns: usize,
    /// The first of its columns.
    column: usize,
}

impl<S: Simd, const VECTORS: usize> Panel<'_, S, VECTORS> {
    /// Does some rows of the output, in these columns. Answers how many.
    #[inline(always)]
    fn multiply<const ROWS: usize>(
        &self,
        simd: S,
        row: usize,
        call: &[u16],
        output: &mut [f32],
    ) -> usize {
        let Self { input, weights, then, columns, column } = *self;
        let width = VECTORS * S::F32_LANES;
        let input = &input[row * weights.len()..];
        let zero = [simd.splat_f32s(0.0); VECTORS];
        let start = match then {
            Then::Bias(bias) | Then::BiasGelu(bias) => {
                vectors::<S, VECTORS>(&bias[column..column + width])
            }
            Then::Add => zero,
        };
        let tile = tile(simd, input, weights.len(), weights, call, [start; ROWS]);
        for (offset, sums) in tile.into_iter().enumerate() {
            let target = &mut output[(row + offset) * columns + column..][..width];
            for (target, sum) in S::as_mut_simd_f32s(target).0.iter_mut().zip(sums) {
                *target = match then {
                    Then::Bias(_) => sum,
                    Then::BiasGelu(_) => gelu(simd, sum),
                    Then::Add => simd.add_f32s(*target, sum),
                };
            }
        }
        ROWS
    }
}

/// The inner loop of everything: `sums[row] += Σₖ input[row][k] · panel[k]`, the sums held in registers.
#[inline(always)]
fn tile<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    input: &[f32],
    stride: usize,
    panel: &[[S::f32s; VECTORS]],
    call: &[u16],
    mut sums: [[S::f32s; VECTORS]; ROWS],
) -> [[S::f32s; VECTORS]; ROWS] {
    let depth = panel.len();
    let rows: [&[f32]; ROWS] = std::array::from_fn(|row| &input[row * stride..][..depth]);
    for k in 0..depth {
        if let Some(line) = call.get(k * LINE) {
            prefetch(line);
        }
        let weights = panel[k];
        for row in 0..ROWS {
            let value = simd.splat_f32s(rows[row][k]);
            for vector in 0..VECTORS {
                sums[row][vector] = simd.mul_add_f32s(value, weights[vector], sums[row][vector]);
            }
        }
    }
    sums
}

/// Asks for a cache line that will be read soon.
#[inline(always)]
#[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "the hint has no safe form"))]
fn prefetch(line: &u16) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing into the program and never faults, and the address is that of a live reference.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(line).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// Reads a slice of exactly `VECTORS` vectors.
#[inline(always)]
fn vectors<S: Simd, const VECTORS: usize>(slice: &[f32]) -> [S::f32s; VECTORS] {
    let vectors = S::as_simd_f32s(slice).0;
    std::array::from_fn(|index| vectors[index])
}

/// Self-attention of one sequence, all heads ("Attention Is All You Need", Vaswani et al., 2017): `softmax(q·kᵀ)·v`, where the
/// factor 1/√d is part of the query's weights. The result takes the place of the queries.
pub(crate) struct Attention<'a> {
    /// Row-major, `hidden` wide, as are the next two; head `h` is columns `h × head_size ..`.
    pub(crate) queries: &'a mut [f32],
    pub(crate) keys: &'a [f32],
    pub(crate) values: &'a [f32],
    pub(crate) hidden: usize,
    pub(crate) head_size: usize,
    /// Scratch space, grown as needed.
    pub(crate) scratch: &'a mut AttentionScratch,
}

/// What [`Attention`] writes for itself, kept between calls.
#[derive(Default)]
pub(crate) struct AttentionScratch {
    keys: Vec<f32>,
    values: Vec<f32>,
    scores: Vec<f32>,
}

impl WithSimd for Attention<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { queries, keys, values, hidden, head_size, scratch } = self;
        let length = queries.len() / hidden;
        // Keys in panels of two vectors; the columns beyond the length are masked before the softmax.
        let width = 2 * S::F32_LANES;
        let padded = length.next_multiple_of(width);
        let AttentionScratch { keys: key_panels, values: value_panels, scores } = scratch;
        key_panels.clear();
        key_panels.resize(padded * head_size, 0.0);
        value_panels.clear();
        value_panels.resize(padded * head_size, 0.0);
        scores.clear();
        scores.resize(TILE_ROWS * padded, 0.0);

        for head in 0..hidden / head_size {
            let first = head * head_size;
            for position in 0..length {
                let row = position * hidden + first;
                let (panel, lane) = (position / width, position % width);
                for (k, key) in keys[row..row + head_size].iter().enumerate() {
                    key_panels[(panel * head_size + k) * width + lane] = *key;
                }
                for (panel, values) in values[row..row + head_size].chunks_exact(width).enumerate()
                {
                    value_panels[(panel * padded + position) * width..][..width]
                        .copy_from_slice(values);
                }
            }
            let keys = S::as_simd_f32s(key_panels).0.as_chunks::<2>().0;
            let values = S::as_simd_f32s(value_panels).0.as_chunks::<2>().0;
            let mut position = 0;
            while position < length {
                let rows = &mut queries[position * hidden + first..];
                position += match length - position {
                    TILE_ROWS.. => attend::<S, TILE_ROWS>(
                        simd, rows, hidden, head_size, keys, values, scores, length,
                    ),
                    4.. => {
                        attend::<S, 4>(simd, rows, hidden, head_size, keys, values, scores, length)
                    }
                    2.. => {
                        attend::<S, 2>(simd, rows, hidden, head_size, keys, values, scores, length)
                    }
                    _ => {
                        attend::<S, 1>(simd, rows, hidden, head_size, keys, values, scores, length)
                    }
                };
            }
        }
    }
}

/// Some rows of one head: scores, softmax, the weighted mean of the values, back into the rows. Answers how many rows it did.
#[inline(always)]
#[expect(
    clippy::too_many_arguments,
    reason = "one call site per tile height; a struct would only rename them"
)]
fn attend<S: Simd, const ROWS: usize>(
    simd: S,
    rows: &mut [f32],
    hidden: usize,
    head_size: usize,
    keys: &[[S::f32s; 2]],
    values: &[[S::f32s; 2]],
    scores: &mut [f32],
    length: usize,
) -> usize {
    let width = 2 * S::F32_LANES;
    let padded = keys.len() / head_size * width;
    let zero = [[simd.splat_f32s(0.0); 2]; ROWS];
    for (panel, keys) in keys.chunks_exact(head_size).enumerate() {
        let sums = tile(simd, rows, hidden, keys, &[], zero);
        for (row, sums) in sums.into_iter().enumerate() {
            S::as_mut_simd_f32s(&mut scores[row * padded + panel * width..][..width])
                .0
                .copy_from_slice(&sums);
        }
    }
    let mut inverse = [0.0; ROWS];
    for (row, inverse) in inverse.iter_mut().enumerate() {
        let scores = &mut scores[row * padded..][..padded];
        scores[length..].fill(f32::MIN);
        *inverse = 1.0 / exponentials(simd, S::as_mut_simd_f32s(scores).0);
    }
    for (panel, values) in values.chunks_exact(padded).enumerate() {
        let sums = tile(simd, scores, padded, values, &[], zero);
        for (row, sums) in sums.into_iter().enumerate() {
            let factor = simd.splat_f32s(inverse[row]);
            let target = S::as_mut_simd_f32s(&mut rows[row * hidden + panel * width..][..width]).0;
            for (target, sum) in target.iter_mut().zip(sums) {
                *target = simd.mul_f32s(sum, factor);
            }
        }
    }
    ROWS
}

/// `exp(score - greatest)` in place, and their sum.
#[inline(always)]
fn exponentials<S: Simd>(simd: S, scores: &mut [S::f32s]) -> f32 {
    let mut greatest = simd.splat_f32s(f32::MIN);
    for score in scores.iter() {
        greatest = simd.max_f32s(greatest, *score);
    }
    let greatest = simd.splat_f32s(simd.reduce_max_f32s(greatest));
    let mut sum = simd.splat_f32s(0.0);
    for score in scores {
        *score = exp(simd, simd.sub_f32s(*score, greatest));
        sum = simd.add_f32s(sum, *score);
    }
    simd.reduce_sum_f32s(sum)
}

/// Layer normalisation of every row, in place, after adding `bias` ("Layer Normalization", Ba, Kiros and Hinton, 2016).
pub(crate) struct Normalize<'a> {
    pub(crate) rows: &'a mut [f32],
    /// What the linear layer before has not added.
    pub(crate) bias: &'a [f32],
    pub(crate) weight: &'a [f32],
    pub(crate) shift: &'a [f32],
    pub(crate) epsilon: f32,
}

impl WithSimd for Normalize<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let columns = self.weight.len();
        let bias = S::as_simd_f32s(self.bias).0;
        let weight = S::as_simd_f32s(self.weight).0;
        let shift = S::as_simd_f32s(self.shift).0;
        let share = 1.0 / columns as f32;
        for row in self.rows.chunks_exact_mut(columns) {
            let row = S::as_mut_simd_f32s(row).0;
            let mut sum = simd.splat_f32s(0.0);
            for (value, bias) in row.iter_mut().zip(bias) {
                *value = simd.add_f32s(*value, *bias);
                sum = simd.add_f32s(sum, *value);
            }
            let mean = simd.splat_f32s(simd.reduce_sum_f32s(sum) * share);
            let mut squares = simd.splat_f32s(0.0);
            for value in row.iter_mut() {
                *value = simd.sub_f32s(*value, mean);
                squares = simd.mul_add_f32s(*value, *value, squares);
            }
            let variance = simd.reduce_sum_f32s(squares) * share;
            let factor = simd.splat_f32s(1.0 / (variance + self.epsilon).sqrt());
            for ((value, weight), shift) in row.iter_mut().zip(weight).zip(shift) {
                *value = simd.mul_add_f32s(simd.mul_f32s(*value, factor), *weight, *shift);
            }
        }
    }
}

/// The exact GELU, `x·Φ(x)` ("Gaussian Error Linear Units", Hendrycks and Gimpel, 2016), with the error function of Abramowitz
/// and Stegun 7.1.26, which is off by at most 1.5e-7.
#[inline(always)]
fn gelu<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let one = simd.splat_f32s(1.0);
    let size = simd.abs_f32s(x);
    let z = simd.mul_f32s(size, simd.splat_f32s(std::f32::consts::FRAC_1_SQRT_2));
    let t = simd.div_f32s(one, simd.mul_add_f32s(z, simd.splat_f32s(0.327_591_1), one));
    let mut polynomial = simd.splat_f32s(1.061_405_4);
    for coefficient in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        polynomial = simd.mul_add_f32s(polynomial, t, simd.splat_f32s(coefficient));
    }
    let square = simd.mul_f32s(z, z);
    // 1 - erf(z), for z ≥ 0.
    let rest = simd.mul_f32s(
        simd.mul_f32s(polynomial, t),
        exp(simd, simd.sub_f32s(simd.splat_f32s(0.0), square)),
    );
    // x·Φ(x) is x less x/2·rest above zero and x/2·rest below: max(x, 0) - |x|/2·rest in one.
    let half = simd.mul_f32s(size, simd.splat_f32s(0.5));
    simd.sub_f32s(simd.max_f32s(x, simd.splat_f32s(0.0)), simd.mul_f32s(half, rest))
}

/// `eˣ` for x ≤ 0 (what softmax and GELU ask for), with a relative error of about 2e-7: `2ⁿ·eʳ`, eʳ by the polynomial of
/// Cephes' `expf`.
#[inline(always)]
fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    // Adding this number leaves the nearest integer in the low bits of the float.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = simd.max_f32s(x, simd.splat_f32s(-87.0));
    let shifted =
        simd.mul_add_f32s(x, simd.splat_f32s(std::f32::consts::LOG2_E), simd.splat_f32s(ROUND));
    let n = simd.sub_f32s(shifted, simd.splat_f32s(ROUND));
    let r = simd.mul_add_f32s(n, simd.splat_f32s(-LN_2_HIGH), x);
    let r = simd.mul_add_f32s(n, simd.splat_f32s(-LN_2_LOW), r);
    let mut polynomial = simd.splat_f32s(1.987_569_1e-4);
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5, 1.0, 1.0] {
        polynomial = simd.mul_add_f32s(polynomial, r, simd.splat_f32s(coefficient));
    }
    let exponent =
        simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(23));
    let power = simd.add_u32s(exponent, simd.splat_u32s(127 << 23));
    simd.mul_f32s(polynomial, simd.transmute_f32s_u32s(power))
}

/// A number of half precision (IEEE 754 binary16, finite) as f32, exactly, in steps that vectorise: the exponent is moved over
/// and corrected by a multiplication, which also sets subnormal numbers right.
#[inline(always)]
pub(crate) fn widen(half: u16) -> f32 {
    const CORRECTION: f32 = f32::from_bits((127 + 112) << 23);
    let size = f32::from_bits((half as u32 & 0x7fff) << 13) * CORRECTION;
    f32::from_bits(size.to_bits() | (half as u32 & 0x8000) << 16)
}

#[cfg(test)]
#[path = "kernels_tests.rs"]
mod tests;
