//! The real model, on its real weights. The one rule: nothing here makes up a vector.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod directory;
mod golden;
mod near;
mod others;
mod stock;
mod workers;

use directory::model_directory;
use embeddings::{Document, Embedder, MAX_TOKENS, Model, ModelError};

fn model() -> Model {
    Model::load(&model_directory()).unwrap()
}

fn embedder() -> Embedder {
    Embedder::new(model(), 2)
}

fn cosine(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}

fn document(text: String, markdown: bool) -> Document {
    Document { text, markdown, ..Document::default() }
}

#[test]
fn the_model_says_what_it_is() {
    let model = model();
    assert_eq!((model.name(), model.dimensions()), ("all-MiniLM-L6-v2", 384));
    assert_eq!(model.revision().len(), 64);
    assert_eq!(model.count_tokens("Hello, world!").unwrap(), 6);
}

#[test]
fn a_missing_model_says_how_to_get_one() {
    let error = Model::load(std::path::Path::new("/nowhere")).unwrap_err();
    assert!(matches!(error, ModelError::Missing { .. }));
    let message = error.to_string();
    assert!(
        message.contains("prodgy model fetch") && message.contains("scripts/fetch-model"),
        "{message}"
    );
}

#[test]
fn a_damaged_model_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::copy(model_directory().join(file), directory.path().join(file)).unwrap();
    }
    let refused = |file: &str, content: &[u8]| {
        let path = directory.path().join(file);
        let before = std::fs::read(&path).unwrap();
        std::fs::write(&path, content).unwrap();
        let error = Model::load(directory.path()).unwrap_err();
        std::fs::write(&path, before).unwrap();
        error
    };
    let weights = std::fs::read(directory.path().join("model.safetensors")).unwrap();
    let cut_off = refused("model.safetensors", &weights[..weights.len() / 2]);
    assert!(
        matches!(cut_off, ModelError::Damaged { file: "model.safetensors", .. }),
        "{cut_off:?}"
    );
    let no_json = refused("tokenizer.json", b"not json");
    assert!(matches!(no_json, ModelError::Damaged { file: "tokenizer.json", .. }), "{no_json:?}");
    let config = std::fs::read_to_string(directory.path().join("config.json")).unwrap();
    let another = refused("config.json", config.replace("\"gelu\"", "\"relu\"").as_bytes());
    assert!(matches!(another, ModelError::Unsupported(_)), "{another:?}");
}

#[test]
fn a_text_of_256_tokens_is_one_chunk_and_one_of_257_is_more() {
    let model = model();
    // "word" is one token; [CLS] and [SEP] make 256.
    let fits = ["word"; MAX_TOKENS - 2].join(" ");
    assert_eq!(model.count_tokens(&fits).unwrap(), MAX_TOKENS);
    let sentences = format!("{}. ", ["word"; 9].join(" ")).repeat(26);
    for markdown in [false, true] {
        assert_eq!(model.chunk(&document(fits.clone(), markdown)).len(), 1);
        assert!(model.chunk(&document(format!("{fits} word"), markdown)).len() > 1);
        assert!(model.chunk(&document(sentences.clone(), markdown)).len() > 1);
    }
}

#[test]
fn no_chunk_is_longer_than_the_model_reads() {
    let model = model();
    let prose = std::fs::read_to_string("src/index.rs").unwrap();
    for text in
        [prose, "x".repeat(5000), "東京タワー".repeat(300), "🦊".repeat(900), "a\n\n".repeat(700)]
    {
        let count = text.chars().filter(|character| !character.is_whitespace()).count();
        for markdown in [false, true] {
            let chunks = model.chunk(&document(text.clone(), markdown));
            for chunk in &chunks {
                let tokens = model.count_tokens(&chunk.text).unwrap();
                assert!(tokens <= MAX_TOKENS, "{tokens} tokens in {:?}", chunk.text);
            }
            let kept: usize = chunks
                .iter()
                .map(|chunk| {
                    chunk.text.chars().filter(|character| !character.is_whitespace()).count()
                })
                .sum();
            assert_eq!(kept, count);
        }
    }
}

#[tokio::test]
async fn what_is_meant_alike_lies_close() {
    let embedder = embedder();
    let passages = [
        "To choose a new password, open Settings and follow the link in the e-mail.",
        "Quarterly revenue grew by twelve percent.",
        "The mitochondrion is the powerhouse of the cell.",
    ];
    let vectors = embedder.embed_passages(passages.map(str::to_owned).to_vec()).await.unwrap();
    for (question, answer) in [
        ("How do I reset my login?", 0),
        ("Did the company earn more money?", 1),
        ("biology of energy", 2),
    ] {
        let question = embedder.embed_query(question).await.unwrap();
        let scores: Vec<f32> = vectors.iter().map(|vector| cosine(&question, vector)).collect();
        let best =
            (0..scores.len()).max_by(|one, other| scores[*one].total_cmp(&scores[*other])).unwrap();
        assert_eq!(best, answer, "{scores:?}");
    }
}
