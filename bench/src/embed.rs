//! Passages a second: ours beside candle's stock BERT one by one and onnxruntime f32.
//!
//! The rule of this file: the same texts, weights and cores for everybody, in turn, several times.

use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use serde_json::json;
use tokenizers::Tokenizer;

use crate::peers;
use crate::report::{Row, Scale, median, milliseconds};
use crate::texts::{Texts, embedder, model_folder};

/// The longest text that anybody takes, in tokens.
const TOKENS: usize = 256;

/// candle's own model.
struct Stock {
    model: BertModel,
    tokenizer: Tokenizer,
}

impl Stock {
    fn load(folder: &Path) -> anyhow::Result<Stock> {
        let config: Config = serde_json::from_slice(&std::fs::read(folder.join("config.json"))?)?;
        let file = folder.join("tokenizer.json");
        let mut tokenizer = Tokenizer::from_file(file).map_err(anyhow::Error::from_boxed)?;
        let truncation = tokenizers::TruncationParams { max_length: TOKENS, ..Default::default() };
        tokenizer.with_padding(None);
        tokenizer.with_truncation(Some(truncation)).map_err(anyhow::Error::from_boxed)?;
        let weights = std::fs::read(folder.join("model.safetensors"))?;
        let weights = VarBuilder::from_buffered_safetensors(weights, DType::F32, &Device::Cpu)?;
        Ok(Stock { model: BertModel::load(weights, &config)?, tokenizer })
    }

    /// One text's vector: mean of the last states, length one.
    fn embed(&self, text: &str) -> anyhow::Result<Vec<f32>> {
        let encoding = self.tokenizer.encode(text, true).map_err(anyhow::Error::from_boxed)?;
        let tokens = Tensor::new(encoding.get_ids(), &Device::Cpu)?.unsqueeze(0)?;
        let states = self.model.forward(&tokens, &tokens.zeros_like()?, None)?;
        let mean: Vec<f32> = states.mean(1)?.squeeze(0)?.to_vec1()?;
        let length = mean.iter().map(|number| number * number).sum::<f32>().sqrt();
        Ok(mean.into_iter().map(|number| number / length).collect())
    }
}

pub async fn measure(scale: Scale) -> anyhow::Result<Vec<Row>> {
    let texts = Texts::load()?;
    let passages = &texts.passages[..texts.passages.len().min(scale.pick(200, 16))];
    let questions = &texts.questions[..texts.questions.len().min(scale.pick(100, 5))];
    let stock = Stock::load(&model_folder()?)?;
    let ours = embedder()?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("passages.json");
    let handed =
        Texts { passages: passages.to_vec(), questions: questions.to_vec(), ..texts.clone() };
    std::fs::write(&file, serde_json::to_vec(&handed)?)?;
    let arguments = [
        "ort".to_owned(),
        model_folder()?.display().to_string(),
        file.display().to_string(),
        "--threads".to_owned(),
        std::thread::available_parallelism()?.to_string(),
    ];
    let [mut own, mut stocks, mut orts, mut own_question, mut ort_question]: [Vec<f64>; 5] =
        Default::default();
    stock.embed(&passages[0])?;
    ours.embed_passages(passages[..4].to_vec()).await?;
    for _ in 0..scale.pick(3, 1) {
        let few = &passages[..passages.len() / 4];
        let started = Instant::now();
        for passage in few {
            stock.embed(passage)?;
        }
        stocks.push(few.len() as f64 / started.elapsed().as_secs_f64());

        let started = Instant::now();
        ours.embed_passages(passages.to_vec()).await?;
        own.push(passages.len() as f64 / started.elapsed().as_secs_f64());
        let mut times = Vec::new();
        for question in questions {
            let started = Instant::now();
            ours.embed_query(question).await?;
            times.push(milliseconds(started.elapsed()));
        }
        own_question.push(median(&times));

        if let Some(said) = peers::run("embed.py", &arguments)? {
            orts.push(said["passages_per_s"].as_f64().context("no rate")?);
            ort_question.push(said["question_p50_ms"].as_f64().context("no time")?);
        }
    }
    let (own_median, stock_median, ort_median) = (median(&own), median(&stocks), median(&orts));
    Ok(vec![Row {
        what: format!(
            "passages a second embedded (110 tokens, {}; a question {:.1} ms)",
            texts.origin,
            median(&own_question)
        ),
        goals: ["1.5× stock candle", "1.0× onnxruntime f32"],
        ours: format!("{own_median:.1}"),
        beside: format!(
            "stock candle {stock_median:.1}; onnxruntime f32 {ort_median:.1} (a question {:.1} ms)",
            median(&ort_question)
        ),
        ratio: format!(
            "{:.2}× stock; {:.2}× onnxruntime",
            own_median / stock_median,
            own_median / ort_median
        ),
        figures: json!({
            "ours": own, "stock_candle": stocks, "onnxruntime_f32": orts,
            "question_p50_ms": own_question, "onnxruntime_question_p50_ms": ort_question,
        }),
    }])
}
