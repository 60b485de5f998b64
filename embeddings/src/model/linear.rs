//! The linear layers: whole numbers of 16 bits, summed in 32. The one rule: no sum can overflow, so that all are exact and every
//! instruction set gives the same.

use pulp::{Simd, WithSimd, bytemuck};

use super::kernels::{TILE_ROWS, gelu, panel_vectors, vectors};
use crate::processor::{Kernel, Pairs};

/// The greatest number that goes into a product: 13 bits and a sign.
const GREATEST: f32 = 8191.0;

/// The most that the weights of one output may come to, signs aside: as often the greatest number still fits a sum.
const GREATEST_SUM: f64 = (i32::MAX / 8191) as f64;

/// Pairs in a cache line.
const LINE: usize = 16;

/// Rows of numbers in 16 bits, each with a scale of its own: `number ≈ whole · scale`.
#[derive(Default)]
pub(crate) struct Rows {
    /// Row-major, two numbers in each, as the products take them.
    pairs: Vec<i32>,
    /// One per row.
    scales: Vec<f32>,
}

/// Turns rows of floating-point numbers into [`Rows`]. A row's scale is that of its greatest number, so what one token's numbers
/// become does not depend on the tokens beside it.
pub(crate) struct Quantize<'a> {
    /// Row-major, `depth` wide.
    pub(crate) input: &'a [f32],
    pub(crate) depth: usize,
    pub(crate) rows: &'a mut Rows,
}

impl WithSimd for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Adding this number leaves the nearest integer in the low bits of the float.
        const ROUND: f32 = 12_582_912.0;
        let Self { input, depth, rows } = self;
        rows.pairs.resize(input.len() / 2, 0);
        rows.scales.clear();
        let whole: &mut [i16] = bytemuck::cast_slice_mut(&mut rows.pairs);
        for (row, whole) in input.chunks_exact(depth).zip(whole.chunks_exact_mut(depth)) {
            let mut size = simd.splat_f32s(0.0);
            for vector in S::as_simd_f32s(row).0 {
                size = simd.max_f32s(size, simd.abs_f32s(*vector));
            }
            let size = simd.reduce_max_f32s(size).max(f32::MIN_POSITIVE);
            rows.scales.push(size / GREATEST);
            let factor = GREATEST / size;
            for (whole, number) in whole.iter_mut().zip(row) {
                *whole = (number * factor + ROUND).to_bits() as i16;
            }
        }
    }
}

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
/// `weights` is packed: panels of `panel_width` columns, each a run of pairs of rows. A panel is used for all rows of the input, out
/// of the first-level cache. Meanwhile the panel after it is called into the second, so that a short question does not wait for the
/// memory.
pub(crate) struct Product<'a> {
    pub(crate) input: &'a Rows,
    /// Rows of the weights, which are the columns of the input.
    pub(crate) depth: usize,
    /// Packed, see above. What lies behind the matrix is the one that is used next.
    pub(crate) weights: &'a [i32],
    /// One per column of the weights.
    pub(crate) scales: &'a [f32],
    /// What becomes of the sums.
    pub(crate) then: Then<'a>,
    /// Row-major, as wide as there are columns.
    pub(crate) output: &'a mut [f32],
}

impl Kernel for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<P: Pairs>(self, pairs: P) {
        if panel_vectors::<P::Simd>() == 4 {
            self.multiply::<P, 4>(pairs);
        } else {
            self.multiply::<P, 2>(pairs);
        }
    }
}

impl Product<'_> {
    #[inline(always)]
    fn multiply<P: Pairs, const VECTORS: usize>(self, pairs: P) {
        let Self { input, depth, weights, scales, then, output } = self;
        let width = VECTORS * P::Simd::F32_LANES;
        let (rows, columns) = (input.scales.len(), scales.len());
        let size = depth / 2 * width;
        assert!(
            input.pairs.len() * 2 == rows * depth
                && output.len() == rows * columns
                && weights.len() >= columns / width * size
                && columns.is_multiple_of(width)
                && depth.is_multiple_of(2)
        );
        for index in 0..columns / width {
            let (panel, following) = weights[index * size..].split_at(size);
            let panel = Panel::<P::Simd, VECTORS> {
                input,
                weights: P::Simd::as_simd_i32s(panel).0.as_chunks::<VECTORS>().0,
                scales,
                then,
                column: index * width,
            };
            // A tile calls for a line of the following panel in each step, until all are on their way.
            let mut calls = following[..following.len().min(size)].chunks(depth / 2 * LINE);
            let mut row = 0;
            while row < rows {
                let call = calls.next().unwrap_or_default();
                row += match rows - row {
                    TILE_ROWS.. => panel.multiply::<P, TILE_ROWS>(pairs, row, call, output),
                    4.. => panel.multiply::<P, 4>(pairs, row, call, output),
                    2.. => panel.multiply::<P, 2>(pairs, row, call, output),
                    _ => panel.multiply::<P, 1>(pairs, row, call, output),
                };
            }
        }
    }
}

/// Some columns of the weights.
struct Panel<'a, S: Simd, const VECTORS: usize> {
    input: &'a Rows,
    /// One item per pair of rows of the weights.
    weights: &'a [[S::i32s; VECTORS]],
    scales: &'a [f32],
    then: Then<'a>,
    /// The first of its columns.
    column: usize,
}

impl<S: Simd, const VECTORS: usize> Panel<'_, S, VECTORS> {
    /// Does some rows of the output, in these columns. Answers how many.
    #[inline(always)]
    fn multiply<P: Pairs<Simd = S>, const ROWS: usize>(
        &self,
        pairs: P,
        row: usize,
        call: &[i32],
        output: &mut [f32],
    ) -> usize {
        let Self { input, weights, scales, then, column } = *self;
        let simd = pairs.simd();
        let (columns, here) = (scales.len(), column..column + VECTORS * S::F32_LANES);
        let sums =
            tile::<P, ROWS, VECTORS>(pairs, &input.pairs[row * weights.len()..], weights, call);
        let scales = vectors::<S, VECTORS>(&scales[here.clone()]);
        let bias = match then {
            Then::Bias(bias) | Then::BiasGelu(bias) => vectors::<S, VECTORS>(&bias[here.clone()]),
            Then::Add => [simd.splat_f32s(0.0); VECTORS],
        };
        for (offset, sums) in sums.into_iter().enumerate() {
            let row = row + offset;
            let of_row = simd.splat_f32s(input.scales[row]);
            let target = &mut output[row * columns..][here.clone()];
            let target = S::as_mut_simd_f32s(target).0;
            for vector in 0..VECTORS {
                let scale = simd.mul_f32s(of_row, scales[vector]);
                let sum = pairs.to_f32(sums[vector]);
                target[vector] = match then {
                    Then::Bias(_) => simd.mul_add_f32s(sum, scale, bias[vector]),
                    Then::BiasGelu(_) => gelu(simd, simd.mul_add_f32s(sum, scale, bias[vector])),
                    Then::Add => simd.mul_add_f32s(sum, scale, target[vector]),
                };
            }
        }
        ROWS
    }
}

/// The inner loop of everything: `sums[row] = Σₖ input[row][k] · panel[k]`, two k in a step, the sums held in registers.
#[inline(always)]
fn tile<P: Pairs, const ROWS: usize, const VECTORS: usize>(
    pairs: P,
    input: &[i32],
    panel: &[[<P::Simd as Simd>::i32s; VECTORS]],
    call: &[i32],
) -> [[<P::Simd as Simd>::i32s; VECTORS]; ROWS] {
    let simd = pairs.simd();
    let depth = panel.len();
    let rows: [&[i32]; ROWS] = std::array::from_fn(|row| &input[row * depth..][..depth]);
    let mut sums = [[simd.splat_i32s(0); VECTORS]; ROWS];
    for k in 0..depth {
        if let Some(line) = call.get(k * LINE) {
            prefetch(line);
        }
        let weights = panel[k];
        for row in 0..ROWS {
            let pair = simd.splat_i32s(rows[row][k]);
            for vector in 0..VECTORS {
                sums[row][vector] = pairs.multiply_add(pair, weights[vector], sums[row][vector]);
            }
        }
    }
    sums
}

/// Asks for a cache line that will be read soon.
#[inline(always)]
#[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "the hint has no safe form"))]
fn prefetch(line: &i32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing into the program and never faults, and the address is that of a live reference.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(line).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// A matrix in the form of [`Product`].
pub(crate) struct Packed {
    pub(crate) weights: Vec<i32>,
    /// One per output.
    pub(crate) scales: Vec<f32>,
}

/// Packs a matrix (`[output][input]`, row-major) into panels of `width` outputs, each panel a run of pairs of inputs:
/// `panel[input / 2][output][input % 2]`. Every output has a scale of its own, the finest at which its sums fit: some 11 bits and a sign
/// for its greatest weight, in models that exist.
pub(crate) fn pack(matrix: &[f32], inputs: usize, width: usize) -> Packed {
    let mut packed = Packed { weights: Vec::new(), scales: Vec::new() };
    let mut rounded = vec![[0_i16; 2]; inputs / 2 * width];
    for panel in matrix.chunks_exact(inputs * width) {
        for (output, row) in panel.chunks_exact(inputs).enumerate() {
            let sizes = row.iter().map(|weight| f64::from(weight.abs()));
            let (greatest, sum) = sizes
                .fold((0.0_f64, 0.0), |(greatest, sum), size| (greatest.max(size), sum + size));
            // Rounding adds a half at most to each.
            let room = GREATEST_SUM - inputs as f64 / 2.0;
            let scale =
                (sum / room).max(greatest / f64::from(i16::MAX)).max(f64::from(f32::MIN_POSITIVE));
            packed.scales.push(scale as f32);
            for (input, weight) in row.iter().enumerate() {
                rounded[input / 2 * width + output][input % 2] =
                    (f64::from(*weight) / scale).round() as i16;
            }
        }
        packed.weights.extend_from_slice(bytemuck::cast_slice(&rounded));
    }
    packed
}

#[cfg(test)]
#[path = "linear_tests.rs"]
mod tests;
