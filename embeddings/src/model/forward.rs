//! The forward pass: tokens in, one vector of unit length per sequence out. The one rule: sequences of any lengths lie end to end
//! in one matrix, so that no arithmetic is spent on padding.

use super::kernels::{Attention, AttentionScratch, Normalize, widen};
use super::linear::{Product, Quantize, Rows, Then};
use super::manner::Pooling;
use super::weights::{Matrix, Norm, Weights};

/// The matrices of a forward pass, kept between passes. One per thread.
#[derive(Default)]
pub(crate) struct Scratch {
    /// One row per token: what flows from layer to layer.
    states: Vec<f32>,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    /// What goes into a linear layer.
    rows: Rows,
    /// The same, of a part of the feed-forward block.
    part: Rows,
    attention: AttentionScratch,
}

impl Weights {
    /// Embeds sequences of token ids. `between` is called after every layer: a worker does there what cannot wait.
    pub(crate) fn forward(
        &self,
        sequences: &[Vec<u32>],
        pooling: Pooling,
        scratch: &mut Scratch,
        between: &mut dyn FnMut(),
    ) -> Vec<Vec<f32>> {
        let hidden = self.config.hidden_size;
        self.embed_tokens(sequences, &mut scratch.states);
        let size = scratch.states.len();
        for matrix in [&mut scratch.queries, &mut scratch.keys, &mut scratch.values] {
            matrix.resize(size, 0.0);
        }
        for layer in 0..self.layers.len() {
            self.layer(layer, sequences, scratch);
            between();
        }
        let mut first = 0;
        sequences
            .iter()
            .map(|tokens| {
                let rows = &scratch.states[first..first + tokens.len() * hidden];
                first += rows.len();
                let rows = match pooling {
                    Pooling::Mean => rows,
                    Pooling::First => &rows[..hidden],
                };
                mean_of_unit_length(rows, hidden)
            })
            .collect()
    }

    /// Word, position and token type of every token, summed and normalised.
    fn embed_tokens(&self, sequences: &[Vec<u32>], states: &mut Vec<f32>) {
        let hidden = self.config.hidden_size;
        states.clear();
        for tokens in sequences {
            for (token, position) in tokens.iter().zip(self.positions.chunks_exact(hidden)) {
                let word = &self.words[*token as usize * hidden..][..hidden];
                states.extend(
                    word.iter().zip(position).map(|(word, position)| widen(*word) + position),
                );
            }
        }
        let no_bias = vec![0.0; hidden];
        self.normalize(states, &no_bias, &self.embedding_norm);
    }

    fn layer(&self, index: usize, sequences: &[Vec<u32>], scratch: &mut Scratch) {
        let layer = &self.layers[index];
        let hidden = self.config.hidden_size;
        let Scratch { states, queries, keys, values, rows, part, attention } = scratch;

        self.quantize(states, rows);
        for (linear, output) in layer.projections.iter().zip([&mut *queries, keys, values]) {
            self.product(rows, &linear.weights, Then::Bias(&linear.bias), output);
        }
        let mut first = 0;
        for tokens in sequences {
            let part = first..first + tokens.len() * hidden;
            first = part.end;
            self.processor.dispatch(Attention {
                queries: &mut queries[part.clone()],
                keys: &keys[part.clone()],
                values: &values[part],
                hidden,
                head_size: self.config.head_size(),
                scratch: attention,
            });
        }
        let output = &layer.attention_output;
        self.quantize(queries, rows);
        self.product(rows, &output.weights, Then::Add, states);
        self.normalize(states, &output.bias, &layer.attention_norm);

        // The parts all read the same states, in whole numbers; the sums grow on the states themselves, which are the residual.
        self.quantize(states, rows);
        let between = queries;
        for (up, down) in &layer.feed_forward {
            self.product(rows, &up.weights, Then::BiasGelu(&up.bias), between);
            self.quantize(between, part);
            self.product(part, down, Then::Add, states);
        }
        self.normalize(states, &layer.feed_forward_bias, &layer.output_norm);
    }

    fn quantize(&self, input: &[f32], rows: &mut Rows) {
        self.processor.dispatch(Quantize { input, depth: self.config.hidden_size, rows });
    }

    fn product(&self, input: &Rows, matrix: &Matrix, then: Then<'_>, output: &mut [f32]) {
        self.processor.run(Product {
            input,
            depth: self.config.hidden_size,
            weights: &self.matrices[matrix.start..],
            scales: &matrix.scales,
            then,
            output,
        });
    }

    fn normalize(&self, rows: &mut [f32], bias: &[f32], norm: &Norm) {
        let epsilon = self.config.layer_norm_eps;
        self.processor.dispatch(Normalize {
            rows,
            bias,
            weight: &norm.weight,
            shift: &norm.shift,
            epsilon,
        });
    }
}

/// The mean of the rows, scaled to length one.
fn mean_of_unit_length(rows: &[f32], hidden: usize) -> Vec<f32> {
    let mut sum = vec![0.0_f32; hidden];
    for row in rows.chunks_exact(hidden) {
        for (sum, value) in sum.iter_mut().zip(row) {
            *sum += value;
        }
    }
    let length = sum.iter().map(|value| value * value).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    sum.iter_mut().for_each(|value| *value /= length);
    sum
}
