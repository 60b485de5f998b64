//! The workers: order, fairness, giving up. Times are printed, never asserted.

use std::time::{Duration, Instant};

use embeddings::Embedder;

use crate::model;

/// Passages as an ingestion brings them.
fn passages(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| {
            format!("Passage {number} speaks of its own number at some length. ").repeat(8)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_overtake_a_long_ingestion() {
    let embedder = Embedder::new(model(), 1);
    let ingestion = tokio::spawn({
        let embedder = embedder.clone();
        async move { embedder.embed_passages(passages(60)).await }
    });
    let mut waits: Vec<Duration> = Vec::new();
    for _ in 0..10 {
        let start = Instant::now();
        embedder.embed_query("How long does a question wait?").await.unwrap();
        waits.push(start.elapsed());
    }
    assert!(
        !ingestion.is_finished(),
        "all questions were answered while the passages were still being done"
    );
    assert_eq!(ingestion.await.unwrap().unwrap().len(), 60);
    waits.sort();
    println!(
        "a question during an ingestion: p50 {:?}, longest {:?}",
        waits[waits.len() / 2],
        waits[waits.len() - 1]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ingestion_gets_on_though_the_questions_do_not_end() {
    let embedder = Embedder::new(model(), 1);
    let mut askers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let embedder = embedder.clone();
        askers.spawn(async move {
            for _ in 0..40 {
                embedder.embed_query("Is there more to ask?").await.unwrap();
            }
        });
    }
    // They have begun: from here on there are always some in line.
    embedder.embed_query("Has it begun?").await.unwrap();
    let ingestion = tokio::spawn({
        let embedder = embedder.clone();
        async move { embedder.embed_passages(passages(3)).await }
    });
    askers.join_next().await.unwrap().unwrap();
    assert!(ingestion.is_finished(), "the questions starve the passages");
    assert_eq!(ingestion.await.unwrap().unwrap().len(), 3);
}

#[tokio::test]
async fn passages_come_back_in_their_order() {
    let embedder = Embedder::new(model(), 3);
    let mut texts = passages(20);
    texts.insert(3, String::new());
    texts.insert(7, "word ".repeat(2000));
    let together = embedder.embed_passages(texts.clone()).await.unwrap();
    assert_eq!(together.len(), texts.len());
    for (text, vector) in texts.iter().zip(&together) {
        let alone = embedder.embed_query(text).await.unwrap();
        assert_eq!(&alone, vector, "{text:?}");
    }
    assert!(embedder.embed_passages(Vec::new()).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_ingestion_given_up_makes_room() {
    let embedder = Embedder::new(model(), 1);
    // Polled once, so that it is queued, then dropped.
    let given_up =
        tokio::time::timeout(Duration::from_millis(1), embedder.embed_passages(passages(10_000)))
            .await;
    assert!(given_up.is_err());
    // Ten thousand passages would take minutes; the test runner's patience is shorter.
    embedder.embed_passages(passages(2)).await.unwrap();
}
