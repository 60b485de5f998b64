//! The kernels against the plain formulas, with every instruction set that is here.

use half::f16;

use super::*;
use crate::processor::all as processors;
use crate::random::numbers;

fn assert_close(ours: &[f32], plain: &[f64], tolerance: f64) {
    assert_eq!(ours.len(), plain.len());
    for (index, (ours, plain)) in ours.iter().zip(plain).enumerate() {
        assert!((f64::from(*ours) - plain).abs() <= tolerance, "{ours} is not {plain}, at {index}");
    }
}

/// The error function by its Maclaurin series.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

/// Runs a function of vectors over numbers.
struct Each<'a, Function>(&'a mut [f32], Function);

trait Elementwise {
    fn apply<S: Simd>(&self, simd: S, x: S::f32s) -> S::f32s;
}

struct Gelu;
impl Elementwise for Gelu {
    #[inline(always)]
    fn apply<S: Simd>(&self, simd: S, x: S::f32s) -> S::f32s {
        gelu(simd, x)
    }
}

struct Exp;
impl Elementwise for Exp {
    #[inline(always)]
    fn apply<S: Simd>(&self, simd: S, x: S::f32s) -> S::f32s {
        exp(simd, x)
    }
}

impl<Function: Elementwise> WithSimd for Each<'_, Function> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for x in S::as_mut_simd_f32s(self.0).0 {
            *x = self.1.apply(simd, *x);
        }
    }
}

#[test]
fn gelu_is_exact_to_single_precision() {
    let inputs: Vec<f32> = (-512..512).map(|step| step as f32 / 100.0).collect();
    let plain: Vec<f64> = inputs
        .iter()
        .map(|x| f64::from(*x))
        .map(|x| 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)))
        .collect();
    for processor in processors() {
        let mut ours = inputs.clone();
        processor.dispatch(Each(&mut ours, Gelu));
        assert_close(&ours, &plain, 1e-6);
    }
}

#[test]
fn exp_is_exact_to_single_precision_and_vanishes_far_below_zero() {
    let inputs: Vec<f32> = (0..1024).map(|step| step as f32 / -12.0).chain([-1e9; 16]).collect();
    for processor in processors() {
        let mut ours = inputs.clone();
        processor.dispatch(Each(&mut ours, Exp));
        for (x, ours) in inputs.iter().zip(ours) {
            let plain = f64::from(*x).exp();
            assert!((f64::from(ours) - plain).abs() <= plain * 4e-7 + 2e-38, "e^{x} is not {ours}");
        }
    }
}

#[test]
fn attention_is_the_softmax_of_scores_over_values_for_any_length() {
    const HIDDEN: usize = 64;
    const HEAD: usize = 32;
    for processor in processors() {
        let mut scratch = AttentionScratch::default();
        // From long to short: nothing of a longer sequence may be left over.
        for length in [131, 33, 32, 31, 12, 7, 5, 3, 1] {
            let (queries, keys, values) = (
                numbers(length * HIDDEN, 5),
                numbers(length * HIDDEN, 6),
                numbers(length * HIDDEN, 7),
            );
            let mut plain = vec![0.0; length * HIDDEN];
            for (head, position) in (0..HIDDEN / HEAD)
                .flat_map(|head| (0..length).map(move |position| (head, position)))
            {
                let row =
                    |other: usize| other * HIDDEN + head * HEAD..other * HIDDEN + (head + 1) * HEAD;
                let weights: Vec<f64> = (0..length)
                    .map(|other| {
                        let pairs = queries[row(position)].iter().zip(&keys[row(other)]);
                        pairs
                            .map(|(query, key)| f64::from(*query) * f64::from(*key))
                            .sum::<f64>()
                            .exp()
                    })
                    .collect();
                let total: f64 = weights.iter().sum();
                for (other, weight) in weights.iter().enumerate() {
                    for (out, value) in plain[row(position)].iter_mut().zip(&values[row(other)]) {
                        *out += weight / total * f64::from(*value);
                    }
                }
            }
            let mut ours = queries.clone();
            let scratch = &mut scratch;
            processor.dispatch(Attention {
                queries: &mut ours,
                keys: &keys,
                values: &values,
                hidden: HIDDEN,
                head_size: HEAD,
                scratch,
            });
            assert_close(&ours, &plain, 1e-5);
        }
    }
}

#[test]
fn normalised_rows_have_the_asked_mean_and_spread() {
    const COLUMNS: usize = 128;
    let (bias, weight, shift) = (numbers(COLUMNS, 8), numbers(COLUMNS, 9), numbers(COLUMNS, 10));
    let rows = numbers(3 * COLUMNS, 11);
    let mut plain = Vec::new();
    for row in rows.chunks_exact(COLUMNS) {
        let row: Vec<f64> = row
            .iter()
            .zip(&bias)
            .map(|(value, bias)| f64::from(*value) + f64::from(*bias))
            .collect();
        let mean = row.iter().sum::<f64>() / COLUMNS as f64;
        let variance = row.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / COLUMNS as f64;
        let scaled = row.iter().zip(&weight).zip(&shift);
        plain.extend(scaled.map(|((value, weight), shift)| {
            (value - mean) / (variance + 1e-12).sqrt() * f64::from(*weight) + f64::from(*shift)
        }));
    }
    for processor in processors() {
        let mut ours = rows.clone();
        processor.dispatch(Normalize {
            rows: &mut ours,
            bias: &bias,
            weight: &weight,
            shift: &shift,
            epsilon: 1e-12,
        });
        assert_close(&ours, &plain, 1e-5);
    }
}

#[test]
fn every_number_of_half_precision_is_widened_exactly() {
    for bits in 0..=u16::MAX {
        let half = f16::from_bits(bits);
        if half.is_finite() {
            assert_eq!(widen(bits).to_bits(), half.to_f32().to_bits(), "{bits:#x}");
        }
    }
}
