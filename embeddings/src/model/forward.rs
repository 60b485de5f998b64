//! The forward pass: tokens in, one vector of unit length per sequence out. The one rule: sequences of any lengths lie end to end
//! in one matrix, so that no arithmetic is spent on padding.

use super::kernels::{Attention, AttentionScratch, Normalize, Product, Then, panel_width, widen};
use super::weights::{Linear, Norm, Packed, Weights};

/// The matrices of a forward pass, kept between passes. One per thread.
#[derive(Default)]
pub(crate) struct Scratch {
    /// One row per token: what flows from layer to layer.
    states: Vec<f32>,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    panel: Vec<f32>,
    attention: AttentionScratch,
}

impl Weights {
    /// Embeds sequences of token ids. `between` is called after every layer: a worker does there what cannot wait.
    pub(crate) fn forward(
        &self,
        sequences: &[Vec<u32>],
        scratch: &mut Scratch,
        between: &mut dyn FnMut(),
    ) -> Vec<Vec<f32>> {
        let hidden = self.config.hidden_size;
        self.embed_tokens(sequences, &mut scratch.states);
        let size = scratch.states.len();
        for matrix in [&mut scratch.queries, &mut scratch.keys, &mut scratch.values] {
            matrix.resize(size, 0.0);
        }
        scratch.panel.resize(hidden * panel_width(self.processor), 0.0);
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
        let Scratch { states, queries, keys, values, panel, attention } = scratch;

        for (linear, output) in layer.projections.iter().zip([&mut *queries, keys, values]) {
            self.linear(states, linear, Then::Bias(&linear.bias), output, panel);
        }
        let mut first = 0;
        for tokens in sequences {
            let rows = first..first + tokens.len() * hidden;
            first = rows.end;
            self.processor.dispatch(Attention {
                queries: &mut queries[rows.clone()],
                keys: &keys[rows.clone()],
                values: &values[rows],
                hidden,
                head_size: self.config.head_size(),
                scratch: attention,
            });
        }
        let output = &layer.attention_output;
        self.linear(queries, output, Then::Add, states, panel);
        self.normalize(states, &output.bias, &layer.attention_norm);

        // The states are still read by the next block while the sums grow, so the sums grow in a copy of them: the residual.
        let (sums, between) = (queries, keys);
        sums.copy_from_slice(states);
        for (up, down) in &layer.feed_forward {
            self.linear(states, up, Then::BiasGelu(&up.bias), between, panel);
            self.product(between, down, Then::Add, sums, panel);
        }
        self.normalize(sums, &layer.feed_forward_bias, &layer.output_norm);
        std::mem::swap(states, sums);
    }

    fn linear(
        &self,
        input: &[f32],
        linear: &Linear,
        then: Then<'_>,
        output: &mut [f32],
        panel: &mut [f32],
    ) {
        self.product(input, &linear.weights, then, output, panel);
    }

    fn product(
        &self,
        input: &[f32],
        weights: &Packed,
        then: Then<'_>,
        output: &mut [f32],
        panel: &mut [f32],
    ) {
        let hidden = self.config.hidden_size;
        self.processor.dispatch(Product {
            input,
            depth: hidden,
            weights: &self.matrices[weights.0..],
            then,
            output,
            columns: hidden,
            panel,
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

/// The mean of the rows, scaled to length one ("Sentence-BERT", Reimers and Gurevych, 2019: mean pooling).
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
