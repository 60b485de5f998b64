//! The arithmetic of the forward pass beside its linear layers: attention, layer norm, GELU. The one rule: every kernel is written once, for
//! vectors of any width (see [`crate::processor`]).

use pulp::{Simd, WithSimd};

use crate::processor::Processor;

/// Rows of a product that are worked on together: 6 rows × 4 vectors of sums leave room in 32 registers for what is multiplied.
pub(crate) const TILE_ROWS: usize = 6;

/// Columns of a weight matrix that lie together (see `linear::Product`).
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
pub(crate) const fn panel_vectors<S: Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { 4 } else { 2 }
}

/// The inner loop of attention: `sums[row] += Σₖ input[row][k] · panel[k]`, the sums held in registers.
#[inline(always)]
fn tile<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    input: &[f32],
    stride: usize,
    panel: &[[S::f32s; VECTORS]],
    mut sums: [[S::f32s; VECTORS]; ROWS],
) -> [[S::f32s; VECTORS]; ROWS] {
    let depth = panel.len();
    let rows: [&[f32]; ROWS] = std::array::from_fn(|row| &input[row * stride..][..depth]);
    for k in 0..depth {
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

/// Reads a slice of exactly `VECTORS` vectors.
#[inline(always)]
pub(crate) fn vectors<S: Simd, const VECTORS: usize>(slice: &[f32]) -> [S::f32s; VECTORS] {
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
        let sums = tile(simd, rows, hidden, keys, zero);
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
        let sums = tile(simd, scores, padded, values, zero);
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
pub(crate) fn gelu<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
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
