//! candle's own BERT on the same weights: the independent answer that ours is held against, and the baseline of the benchmark.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use tokenizers::Tokenizer;

/// The stock model.
pub struct Stock {
    model: BertModel,
    tokenizer: Tokenizer,
}

impl Stock {
    pub fn load(directory: &Path) -> Self {
        let config: Config =
            serde_json::from_slice(&std::fs::read(directory.join("config.json")).unwrap()).unwrap();
        let mut tokenizer = Tokenizer::from_file(directory.join("tokenizer.json")).unwrap();
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(Some(tokenizers::TruncationParams {
                max_length: 256,
                ..Default::default()
            }))
            .unwrap();
        let weights = std::fs::read(directory.join("model.safetensors")).unwrap();
        let weights =
            VarBuilder::from_buffered_safetensors(weights, DType::F32, &Device::Cpu).unwrap();
        Self { model: BertModel::load(weights, &config).unwrap(), tokenizer }
    }

    /// One text's vector: mean of the last states, length one.
    pub fn embed(&self, text: &str) -> Vec<f32> {
        let encoding = self.tokenizer.encode(text, true).unwrap();
        let tokens = Tensor::new(encoding.get_ids(), &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        let kinds = tokens.zeros_like().unwrap();
        let states = self.model.forward(&tokens, &kinds, None).unwrap();
        let mean: Vec<f32> = states.mean(1).unwrap().squeeze(0).unwrap().to_vec1().unwrap();
        let length = mean.iter().map(|number| number * number).sum::<f32>().sqrt();
        mean.into_iter().map(|number| number / length).collect()
    }
}
