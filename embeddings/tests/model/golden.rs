//! Our vectors against the reference implementation's, stored with the script that made them, and against candle's own model.

use crate::directory::model_directory;
use crate::stock::Stock;
use crate::{cosine, embedder};

/// Closer than this and no ranking can tell them apart.
const CLOSE: f32 = 0.9999;

#[derive(serde::Deserialize)]
struct Reference {
    sentences: Vec<Sentence>,
}

#[derive(serde::Deserialize)]
struct Sentence {
    text: String,
    vector: Vec<f32>,
}

#[tokio::test]
async fn vectors_are_those_of_sentence_transformers() {
    let reference: Reference =
        serde_json::from_str(include_str!("../../golden/reference.json")).unwrap();
    let texts = reference.sentences.iter().map(|sentence| sentence.text.clone()).collect();
    let ours = embedder().embed_passages(texts).await.unwrap();
    let mut worst = 1.0_f32;
    for (Sentence { text, vector }, ours) in reference.sentences.iter().zip(ours) {
        let similarity = cosine(&ours, vector);
        worst = worst.min(similarity);
        assert!(similarity >= CLOSE, "{similarity} for {text:?}");
    }
    println!("the least cosine is {worst}");
}

#[tokio::test]
async fn vectors_are_those_of_candles_own_model_at_every_length() {
    let stock = Stock::load(&model_directory());
    let words = "the quick brown fox jumps over 13 lazy dogs, naïvely; 東京タワー прыгает — don't antidisestablishmentarianism 🦊 ";
    let mut texts: Vec<String> =
        (0..24).map(|length| words.repeat(4).chars().take(length * length).collect()).collect();
    texts.push(words.repeat(12));
    let ours = embedder().embed_passages(texts.clone()).await.unwrap();
    let (mut worst, mut sum) = (1.0_f32, 0.0);
    for (text, ours) in texts.iter().zip(ours) {
        let similarity = cosine(&ours, &stock.embed(text));
        worst = worst.min(similarity);
        sum += similarity;
        assert!(similarity >= CLOSE, "{similarity} for {text:?}");
    }
    println!("the mean cosine is {}, the least {worst}", sum / texts.len() as f32);
}

#[tokio::test]
async fn a_text_has_the_same_vector_alone_and_among_others() {
    let embedder = embedder();
    let texts: Vec<String> =
        (1..30).map(|words| vec!["fairly short text"; words].join(", ")).collect();
    let together = embedder.embed_passages(texts.clone()).await.unwrap();
    for (text, together) in texts.iter().zip(together) {
        let alone = embedder.embed_query(text).await.unwrap();
        assert_eq!(alone, together, "{text:?}");
        assert!((cosine(&alone, &alone) - 1.0).abs() < 1e-5, "the length is one");
    }
}
