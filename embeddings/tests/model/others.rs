//! Models of other sizes and makes, small and with random weights: our vectors against candle's own BERT on the same weights, and what
//! is said of those that cannot be used.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use embeddings::{Embedder, Model, ModelError};
use serde_json::{Value, json};

use crate::cosine;

const WORDS: usize = 40;

fn config() -> Value {
    json!({
        "model_type": "bert", "hidden_act": "gelu", "hidden_size": 128, "intermediate_size": 256,
        "num_attention_heads": 2, "num_hidden_layers": 2, "layer_norm_eps": 1e-12, "vocab_size": WORDS,
        "max_position_embeddings": 48, "type_vocab_size": 2, "pad_token_id": 0, "position_embedding_type": "absolute",
        "hidden_dropout_prob": 0.0, "initializer_range": 0.02, "use_cache": true, "classifier_dropout": null,
    })
}

/// Words `w3` to `w39`, between `[CLS]` and `[SEP]`.
fn tokenizer(words: usize) -> Value {
    let named = ["[UNK]", "[CLS]", "[SEP]"].map(str::to_owned).into_iter();
    let vocabulary: HashMap<String, usize> =
        named.chain((3..words).map(|number| format!("w{number}"))).zip(0..).collect();
    let special = |name: &str, id: u32| json!({ "id": name, "ids": [id], "tokens": [name] });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null, "decoder": null,
        "pre_tokenizer": { "type": "Whitespace" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                { "SpecialToken": { "id": "[CLS]", "type_id": 0 } },
                { "Sequence": { "id": "A", "type_id": 0 } },
                { "SpecialToken": { "id": "[SEP]", "type_id": 0 } },
            ],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }],
            "special_tokens": { "[CLS]": special("[CLS]", 1), "[SEP]": special("[SEP]", 2) },
        },
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]" },
    })
}

/// Random weights, exact in half precision, so that a file of either kind holds the same.
fn weights() -> HashMap<String, Tensor> {
    let mut state = 7_u64;
    let mut tensor = |shape: &[usize], middle: f32| {
        let numbers: Vec<f32> = (0..shape.iter().product())
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                middle + ((state >> 54) as f32 - 512.0) / 2048.0
            })
            .collect();
        let tensor = Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap();
        tensor.to_dtype(DType::F16).unwrap().to_dtype(DType::F32).unwrap()
    };
    let mut all = HashMap::new();
    for (name, rows) in [("word", WORDS), ("position", 48), ("token_type", 2)] {
        all.insert(format!("embeddings.{name}_embeddings.weight"), tensor(&[rows, 128], 0.0));
    }
    let mut norms = vec!["embeddings.LayerNorm".to_owned()];
    for layer in 0..2 {
        let layer = format!("encoder.layer.{layer}");
        for (name, outputs, inputs) in [
            ("attention.self.query", 128, 128),
            ("attention.self.key", 128, 128),
            ("attention.self.value", 128, 128),
            ("attention.output.dense", 128, 128),
            ("intermediate.dense", 256, 128),
            ("output.dense", 128, 256),
        ] {
            all.insert(format!("{layer}.{name}.weight"), tensor(&[outputs, inputs], 0.0));
            all.insert(format!("{layer}.{name}.bias"), tensor(&[outputs], 0.0));
        }
        norms.push(format!("{layer}.attention.output.LayerNorm"));
        norms.push(format!("{layer}.output.LayerNorm"));
    }
    for norm in norms {
        all.insert(format!("{norm}.weight"), tensor(&[128], 1.0));
        all.insert(format!("{norm}.bias"), tensor(&[128], 0.0));
    }
    all
}

/// A directory of these files, with the weights under `prefix` in `kind`.
fn directory(files: &[(&str, Value)], prefix: &str, kind: DType) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    std::fs::create_dir(path.join("1_Pooling")).unwrap();
    let usual = [("config.json", config()), ("tokenizer.json", tokenizer(WORDS))];
    for (file, content) in usual.iter().chain(files) {
        std::fs::write(path.join(file), content.to_string()).unwrap();
    }
    let tensors: HashMap<String, Tensor> = weights()
        .into_iter()
        .map(|(name, tensor)| (format!("{prefix}{name}"), tensor.to_dtype(kind).unwrap()))
        .collect();
    candle_core::safetensors::save(&tensors, path.join("model.safetensors")).unwrap();
    directory
}

fn load(directory: &Path) -> Embedder {
    Embedder::new(Model::load(directory).unwrap(), 1)
}

/// The last states of `[CLS] words [SEP]` by candle's own model.
fn states(words: &[u32]) -> Vec<Vec<f32>> {
    let config: Config = serde_json::from_value(config()).unwrap();
    let weights = VarBuilder::from_tensors(weights(), DType::F32, &Device::Cpu);
    let model = BertModel::load(weights, &config).unwrap();
    let tokens = [&[1], words, &[2]].concat();
    let tokens = Tensor::new(tokens, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    let states = model.forward(&tokens, &tokens.zeros_like().unwrap(), None).unwrap();
    states.squeeze(0).unwrap().to_vec2().unwrap()
}

fn unit(vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|number| number * number).sum::<f32>().sqrt();
    vector.into_iter().map(|number| number / length).collect()
}

fn mean(states: &[Vec<f32>]) -> Vec<f32> {
    unit((0..128).map(|column| states.iter().map(|state| state[column]).sum()).collect())
}

#[tokio::test]
async fn a_model_of_another_size_is_the_mean_or_the_first_token_as_its_files_say() {
    let first = json!({ "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false });
    let plain = load(directory(&[], "", DType::F32).path());
    let other = load(directory(&[("1_Pooling/config.json", first)], "bert.", DType::F16).path());
    assert_eq!((plain.model().dimensions(), plain.model().max_tokens()), (128, 48));
    assert_ne!(plain.model().revision(), other.model().revision());
    for words in [vec![5], vec![9, 17, 4, 4, 30], (3..39).collect::<Vec<u32>>()] {
        let states = states(&words);
        let text = words.iter().map(|word| format!("w{word} ")).collect::<String>();
        let ours = plain.embed_query(&text).await.unwrap();
        assert!(cosine(&ours, &mean(&states)) > 0.9999, "the mean of {text}");
        let ours = other.embed_query(&text).await.unwrap();
        assert!(cosine(&ours, &unit(states[0].clone())) > 0.9999, "the first of {text}");
    }
}

#[tokio::test]
async fn questions_and_passages_have_before_them_what_the_files_say() {
    let prompts = json!({ "prompts": { "query": "w3 w4 ", "passage": "w7 " } });
    let directory = directory(&[("config_sentence_transformers.json", prompts)], "", DType::F32);
    let embedder = load(directory.path());
    let question = embedder.embed_query("w20 w21").await.unwrap();
    let passage = embedder.embed_passages(vec!["w20 w21".to_owned()]).await.unwrap().remove(0);
    for (ours, words) in [(question, &[3, 4, 20, 21][..]), (passage, &[7, 20, 21])] {
        assert!(cosine(&ours, &mean(&states(words))) > 0.9999, "{words:?}");
    }
    // With what stands before it, [CLS] and [SEP], a passage of 45 words fills the 48 positions.
    let document = |words: usize| crate::document("w9 ".repeat(words), false);
    assert_eq!(embedder.model().chunk(&document(45)).len(), 1);
    assert!(embedder.model().chunk(&document(46)).len() > 1);
}

#[test]
fn what_cannot_be_used_says_what_is_wrong() {
    let with = |name: &str, value: Value| {
        let mut config = config();
        config[name] = value;
        config
    };
    for (file, content, expected) in [
        ("config.json", with("model_type", json!("distilbert")), "its architecture is distilbert"),
        ("config.json", with("hidden_size", json!(256)), "expected [40, 256]"),
        ("tokenizer.json", tokenizer(WORDS + 1), "tokenizer.json is of another model"),
        ("modules.json", json!([{ "type": "sentence_transformers.models.Dense" }]), "Dense"),
    ] {
        let directory = directory(&[(file, content)], "", DType::F32);
        let error = Model::load(directory.path()).unwrap_err();
        assert!(matches!(error, ModelError::Unsupported(_)), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}
