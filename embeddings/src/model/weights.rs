//! The model's weights in the form the forward pass reads them. The one rule: matrices are held once, packed, in 16 bits with a
//! scale for every output; what the file gave is dropped.

use candle_core::safetensors::SliceSafetensors;
use candle_core::{DType, Device};
use half::f16;
use half::slice::HalfFloatSliceExt;
use serde::Deserialize;

use super::kernels::panel_width;
use super::linear::pack;
use crate::error::ModelError;
use crate::processor::Processor;

/// The part of `config.json` that shapes the forward pass.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Config {
    pub(crate) model_type: String,
    pub(crate) hidden_act: String,
    pub(crate) hidden_size: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) layer_norm_eps: f32,
    pub(crate) max_position_embeddings: usize,
    pub(crate) num_attention_heads: usize,
    pub(crate) num_hidden_layers: usize,
    pub(crate) vocab_size: usize,
    #[serde(default = "two")]
    type_vocab_size: usize,
    pad_token_id: Option<usize>,
    position_embedding_type: Option<String>,
}

fn two() -> usize {
    2
}

/// The architectures that are one and the same but for names and the numbers of positions.
const ARCHITECTURES: [&str; 3] = ["bert", "roberta", "xlm-roberta"];

impl Config {
    pub(crate) fn head_size(&self) -> usize {
        self.hidden_size / self.num_attention_heads.max(1)
    }

    /// The row of the first position: RoBERTa keeps those before it for padding.
    fn first_position(&self) -> usize {
        if self.model_type == "bert" { 0 } else { self.pad_token_id.unwrap_or(1) + 1 }
    }

    /// How many positions there are.
    pub(crate) fn positions(&self) -> usize {
        self.max_position_embeddings.saturating_sub(self.first_position())
    }

    /// What the kernels take for granted.
    fn check(&self, max_tokens: usize) -> Result<(), String> {
        if !ARCHITECTURES.contains(&self.model_type.as_str()) {
            let known = ARCHITECTURES.join(", ");
            return Err(format!("its architecture is {}, known are {known}", self.model_type));
        }
        let head_size = self.head_size();
        let faults = [
            (
                self.position_embedding_type.as_ref().is_some_and(|kind| kind != "absolute"),
                "position_embedding_type is not absolute",
            ),
            (self.type_vocab_size == 0, "type_vocab_size is zero"),
            (self.hidden_act != "gelu", "hidden_act is not gelu"),
            (
                self.hidden_size == 0 || !self.hidden_size.is_multiple_of(64),
                "hidden_size is not a multiple of 64",
            ),
            (
                !self.intermediate_size.is_multiple_of(self.hidden_size.max(1)),
                "intermediate_size is not a multiple of hidden_size",
            ),
            (
                head_size * self.num_attention_heads != self.hidden_size,
                "the heads do not share hidden_size evenly",
            ),
            (!head_size.is_multiple_of(32), "the width of a head is not a multiple of 32"),
            (
                self.positions() < max_tokens || max_tokens < 8,
                "it has no room for a passage: max_position_embeddings or max_seq_length is too small",
            ),
        ];
        match faults.iter().find(|(fault, _)| *fault) {
            Some((_, message)) => Err((*message).to_owned()),
            None => Ok(()),
        }
    }
}

/// All weights.
pub(crate) struct Weights {
    pub(crate) config: Config,
    pub(crate) processor: Processor,
    /// One row per token, half precision.
    pub(crate) words: Vec<u16>,
    /// One row per position, with the first token type's row added: no text here is a second one.
    pub(crate) positions: Vec<f32>,
    pub(crate) embedding_norm: Norm,
    pub(crate) layers: Vec<Layer>,
    /// All packed matrices in the order of their use.
    pub(crate) matrices: Vec<i32>,
}

/// One encoder layer of BERT (Devlin et al., 2018). Every matrix is square blocks of `hidden × hidden`: the feed-forward part,
/// `intermediate` wide, is done block by block, so that what lies between its two halves is never whole in memory.
pub(crate) struct Layer {
    /// Query (with the attention's 1/√d in it), key, value.
    pub(crate) projections: [Linear; 3],
    pub(crate) attention_output: Linear,
    pub(crate) attention_norm: Norm,
    /// Columns of the first half with the rows of the second half that they feed.
    pub(crate) feed_forward: Vec<(Linear, Matrix)>,
    pub(crate) feed_forward_bias: Vec<f32>,
    pub(crate) output_norm: Norm,
}

/// A matrix that is packed for `linear::Product`.
pub(crate) struct Matrix {
    /// Where in [`Weights::matrices`] it starts.
    pub(crate) start: usize,
    /// One per output.
    pub(crate) scales: Vec<f32>,
}

/// A square matrix and the bias after it.
pub(crate) struct Linear {
    pub(crate) weights: Matrix,
    pub(crate) bias: Vec<f32>,
}

/// The two vectors of a layer norm.
pub(crate) struct Norm {
    pub(crate) weight: Vec<f32>,
    pub(crate) shift: Vec<f32>,
}

impl Weights {
    /// Reads and packs the tensors of a safetensors file.
    pub(crate) fn read(
        config: Config,
        safetensors: &[u8],
        max_tokens: usize,
    ) -> Result<Self, ModelError> {
        config.check(max_tokens).map_err(ModelError::Unsupported)?;
        let file = File::read(safetensors)?;
        let processor = Processor::detect();
        let mut packer = Packer { width: panel_width(processor), packed: Vec::new() };
        let (hidden, vocabulary) = (config.hidden_size, config.vocab_size);

        let words =
            halves(&file.tensor("embeddings.word_embeddings.weight", &[vocabulary, hidden])?);
        let mut positions = file.tensor(
            "embeddings.position_embeddings.weight",
            &[config.max_position_embeddings, hidden],
        )?;
        let types = file
            .tensor("embeddings.token_type_embeddings.weight", &[config.type_vocab_size, hidden])?;
        positions.drain(..config.first_position() * hidden);
        for row in positions.chunks_exact_mut(hidden) {
            for (position, kind) in row.iter_mut().zip(&types) {
                *position += kind;
            }
        }
        positions.truncate(max_tokens * hidden);

        let embedding_norm = file.norm("embeddings.LayerNorm", hidden)?;
        let layers = (0..config.num_hidden_layers)
            .map(|index| file.layer(&format!("encoder.layer.{index}"), &config, &mut packer))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            config,
            processor,
            words,
            positions,
            embedding_norm,
            layers,
            matrices: packer.packed,
        })
    }
}

/// The file, by tensor name.
struct File<'a> {
    tensors: SliceSafetensors<'a>,
    /// What stands before every name: a model that was saved with a head has its architecture's name there.
    prefix: &'static str,
}

impl<'a> File<'a> {
    fn read(safetensors: &'a [u8]) -> Result<Self, ModelError> {
        let tensors = SliceSafetensors::new(safetensors).map_err(ModelError::weights)?;
        let starts = |prefix: &&str| {
            tensors.get(&format!("{prefix}embeddings.word_embeddings.weight")).is_ok()
        };
        // Where it is under none, the error is about the plain name.
        let prefix = ["", "bert.", "roberta."].into_iter().find(starts).unwrap_or("");
        Ok(Self { tensors, prefix })
    }

    /// One tensor as f32, of exactly this shape.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let name = format!("{}{name}", self.prefix);
        let tensor = self.tensors.load(&name, &Device::Cpu).map_err(ModelError::weights)?;
        if tensor.dims() != shape {
            return Err(ModelError::Unsupported(format!(
                "{name} has shape {:?}, expected {shape:?}",
                tensor.dims()
            )));
        }
        let numbers =
            tensor.to_dtype(DType::F32).and_then(|tensor| tensor.flatten_all()?.to_vec1::<f32>());
        numbers.map_err(ModelError::weights)
    }

    fn norm(&self, name: &str, hidden: usize) -> Result<Norm, ModelError> {
        Ok(Norm {
            weight: self.tensor(&format!("{name}.weight"), &[hidden])?,
            shift: self.tensor(&format!("{name}.bias"), &[hidden])?,
        })
    }

    /// A square linear layer, its weights and bias multiplied by `factor`.
    fn linear(
        &self,
        name: &str,
        hidden: usize,
        factor: f32,
        packer: &mut Packer,
    ) -> Result<Linear, ModelError> {
        let mut weights = self.tensor(&format!("{name}.weight"), &[hidden, hidden])?;
        let mut bias = self.tensor(&format!("{name}.bias"), &[hidden])?;
        weights.iter_mut().chain(&mut bias).for_each(|number| *number *= factor);
        Ok(Linear { weights: packer.pack(&weights, hidden, 0, 0, hidden), bias })
    }

    fn layer(&self, name: &str, config: &Config, packer: &mut Packer) -> Result<Layer, ModelError> {
        let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
        let scale = 1.0 / (config.head_size() as f32).sqrt();
        let mut linear =
            |part: &str, factor| self.linear(&format!("{name}.{part}"), hidden, factor, packer);
        let projections = [
            linear("attention.self.query", scale)?,
            linear("attention.self.key", 1.0)?,
            linear("attention.self.value", 1.0)?,
        ];
        let attention_output = linear("attention.output.dense", 1.0)?;

        let up =
            self.tensor(&format!("{name}.intermediate.dense.weight"), &[intermediate, hidden])?;
        let up_bias = self.tensor(&format!("{name}.intermediate.dense.bias"), &[intermediate])?;
        let down = self.tensor(&format!("{name}.output.dense.weight"), &[hidden, intermediate])?;
        let feed_forward = (0..intermediate)
            .step_by(hidden)
            .map(|first| {
                let weights = packer.pack(&up, hidden, first, 0, hidden);
                let bias = up_bias[first..first + hidden].to_vec();
                (Linear { weights, bias }, packer.pack(&down, intermediate, 0, first, hidden))
            })
            .collect();

        Ok(Layer {
            projections,
            attention_output,
            attention_norm: self.norm(&format!("{name}.attention.output.LayerNorm"), hidden)?,
            feed_forward,
            feed_forward_bias: self.tensor(&format!("{name}.output.dense.bias"), &[hidden])?,
            output_norm: self.norm(&format!("{name}.output.LayerNorm"), hidden)?,
        })
    }
}

/// Puts matrices into the form of `linear::Product`, one behind the other.
struct Packer {
    /// Of a panel.
    width: usize,
    packed: Vec<i32>,
}

impl Packer {
    /// Packs a square block of a row-major matrix as stored (`[output][input]`, `stride` wide).
    fn pack(
        &mut self,
        matrix: &[f32],
        stride: usize,
        first_output: usize,
        first_input: usize,
        size: usize,
    ) -> Matrix {
        let block: Vec<f32> = matrix[first_output * stride..]
            .chunks_exact(stride)
            .take(size)
            .flat_map(|row| &row[first_input..first_input + size])
            .copied()
            .collect();
        let packed = pack(&block, size, self.width);
        let start = self.packed.len();
        self.packed.extend(packed.weights);
        Matrix { start, scales: packed.scales }
    }
}

/// Numbers in half precision, as bits.
fn halves(numbers: &[f32]) -> Vec<u16> {
    let mut halves = vec![f16::ZERO; numbers.len()];
    halves.convert_from_f32_slice(numbers);
    halves.into_iter().map(f16::to_bits).collect()
}
