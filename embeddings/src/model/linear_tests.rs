//! Quantising and products against the plain formulas, with every instruction set that is here.

use proptest::prelude::*;

use super::super::kernels::panel_width;
use super::*;
use crate::processor::{Processor, all};
use crate::random::numbers;

fn quantized(processor: Processor, input: &[f32], depth: usize) -> Rows {
    let mut rows = Rows::default();
    processor.dispatch(Quantize { input, depth, rows: &mut rows });
    rows
}

fn whole(rows: &Rows) -> &[i16] {
    bytemuck::cast_slice(&rows.pairs)
}

/// The sums of a product as they are before any scale: exact, in the order of the output.
fn sums(rows: &Rows, packed: &Packed, depth: usize, width: usize) -> Vec<i64> {
    let columns = packed.scales.len();
    (0..rows.scales.len() * columns)
        .map(|at| {
            let (row, column) = (at / columns, at % columns);
            let (panel, lane) = (column / width, column % width);
            (0..depth)
                .map(|k| {
                    let pair = packed.weights[panel * depth / 2 * width + k / 2 * width + lane];
                    let weight: [i16; 2] = bytemuck::cast(pair);
                    i64::from(whole(rows)[row * depth + k]) * i64::from(weight[k % 2])
                })
                .sum()
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_product_is_the_sum_of_products_for_any_number_of_rows(
        rows in 0_usize..28,
        depth in (1_usize..7).prop_map(|blocks| blocks * 64),
        columns in (1_usize..4).prop_map(|blocks| blocks * 64),
        seed in 0_u64..1000,
    ) {
        let input = numbers(rows * depth, seed);
        let matrix = numbers(columns * depth, seed + 1);
        let bias = numbers(columns, seed + 2);
        let before = numbers(rows * columns, seed + 3);
        for processor in all() {
            let width = panel_width(processor);
            let packed = pack(&matrix, depth, width);
            let input = quantized(processor, &input, depth);
            let plain: Vec<f64> = sums(&input, &packed, depth, width)
                .into_iter()
                .enumerate()
                .map(|(at, sum)| {
                    let (row, column) = (at / columns, at % columns);
                    sum as f64 * f64::from(input.scales[row]) * f64::from(packed.scales[column])
                })
                .collect();
            let run = |then| {
                let mut output = before.clone();
                processor.run(Product {
                    input: &input,
                    depth,
                    weights: &packed.weights,
                    scales: &packed.scales,
                    then,
                    output: &mut output,
                });
                output
            };
            let biases = bias.repeat(rows);
            for (then, start) in [(Then::Bias(&bias), &biases), (Then::Add, &before)] {
                for (at, (ours, plain)) in run(then).iter().zip(&plain).enumerate() {
                    let plain = plain + f64::from(start[at]);
                    let near = (f64::from(*ours) - plain).abs() <= 1e-5 * (1.0 + plain.abs());
                    prop_assert!(near, "{ours} is not {plain}, at {at} with {processor:?}");
                }
            }
        }
    }

    #[test]
    fn a_row_becomes_whole_numbers_of_its_own_scale(
        rows in 1_usize..6,
        size in -30_f32..30.0,
        seed in 0_u64..1000,
    ) {
        const DEPTH: usize = 128;
        let mut input = numbers(rows * DEPTH, seed);
        // One row is far from the others in size: they must not feel it.
        input[..DEPTH].iter_mut().for_each(|number| *number *= size.exp2());
        for processor in all() {
            let quantized = quantized(processor, &input, DEPTH);
            for (row, (input, whole)) in input
                .chunks_exact(DEPTH)
                .zip(whole(&quantized).chunks_exact(DEPTH))
                .enumerate()
            {
                let greatest = input.iter().fold(0.0_f32, |size, number| size.max(number.abs()));
                for (number, whole) in input.iter().zip(whole) {
                    let error = (number - f32::from(*whole) * quantized.scales[row]).abs();
                    prop_assert!(error <= greatest * 7e-5, "{number} became {whole}");
                }
            }
        }
    }
}

#[test]
fn every_instruction_set_makes_the_same_whole_numbers() {
    const DEPTH: usize = 192;
    let input = numbers(7 * DEPTH, 21);
    let plain = quantized(Processor::Other(pulp::Arch::Scalar), &input, DEPTH);
    for processor in all() {
        let rows = quantized(processor, &input, DEPTH);
        assert_eq!((rows.pairs, rows.scales), (plain.pairs.clone(), plain.scales.clone()));
    }
}

#[test]
fn the_greatest_sums_fit() {
    // Numbers and weights all at their limits, in the depths of models that exist and one beyond them; and one weight alone.
    for depth in [64, 384, 768, 1024, 4096] {
        let input = [vec![1.0; depth], vec![-1.0; depth]].concat();
        let mut matrix = vec![-1.0; 64 * depth];
        matrix[1..depth].fill(0.0);
        for processor in all() {
            let packed = pack(&matrix, depth, panel_width(processor));
            let rows = quantized(processor, &input, depth);
            let mut output = vec![0.0; 2 * 64];
            processor.run(Product {
                input: &rows,
                depth,
                weights: &packed.weights,
                scales: &packed.scales,
                then: Then::Add,
                output: &mut output,
            });
            for (at, sum) in output.iter().enumerate() {
                let sign = if at < 64 { -1.0 } else { 1.0 };
                let size = if at % 64 == 0 { 1.0 } else { depth as f32 };
                // Weights that are all alike leave the fewest bits for each.
                let near = (sum * sign / size - 1.0).abs() < 0.01;
                assert!(near, "{sum} of {depth} at {at} with {processor:?}");
            }
        }
    }
}

#[test]
fn nothing_becomes_nothing() {
    for processor in all() {
        let rows = quantized(processor, &[0.0; 128], 64);
        assert!(whole(&rows).iter().all(|number| *number == 0));
        assert!(rows.scales.iter().all(|scale| scale.is_finite()));
    }
    let packed = pack(&[0.0; 64 * 64], 64, 16);
    assert!(packed.scales.len() == 64 && packed.weights.iter().all(|weight| *weight == 0));
    assert!(packed.scales.iter().all(|scale| scale.is_finite()));
}
