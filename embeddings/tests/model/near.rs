//! From which cosine on a passage has something to do with a question, whatever the model.

use super::{directory::model_directory, *};

/// Questions, a passage that answers each, and one that does not.
const ASKED: [(&str, &str, &str); 6] = [
    (
        "How much vacation do I get?",
        "Employees may take twenty-five days of paid leave each year.",
        "Bicycles stand behind the house, cars in the garage below it.",
    ),
    (
        "Where do I leave my bike?",
        "Bicycles stand behind the house, cars in the garage below it.",
        "The database is copied to another data centre every night at two.",
    ),
    (
        "When are backups made?",
        "The database is copied to another data centre every night at two.",
        "Employees may take twenty-five days of paid leave each year.",
    ),
    (
        "Who buys the coffee?",
        "Fresh coffee beans are bought on Mondays by whoever drank the last cup.",
        "The lift is out of order until the end of the month.",
    ),
    (
        "Does the elevator work?",
        "The lift is out of order until the end of the month.",
        "Lunch is served from noon until two in the canteen.",
    ),
    (
        "When can I eat at noon?",
        "Lunch is served from noon until two in the canteen.",
        "Fresh coffee beans are bought on Mondays by whoever drank the last cup.",
    ),
];

/// The same weights used in another manner: the first token is the vector.
fn of_first_token() -> Embedder {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::copy(model_directory().join(file), folder.path().join(file)).unwrap();
    }
    std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
    let pooling = r#"{ "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false }"#;
    std::fs::write(folder.path().join("1_Pooling/config.json"), pooling).unwrap();
    Embedder::new(Model::load(folder.path()).unwrap(), 2)
}

#[tokio::test]
async fn what_answers_is_near_and_what_does_not_is_not() {
    // The second manner is not what the weights were trained for: one answer is too far away.
    for (embedder, least) in [(embedder(), 6), (of_first_token(), 5)] {
        let near = embedder.near().await.unwrap();
        assert_eq!(embedder.near().await.unwrap(), near, "it is measured once");
        let mut found = 0;
        for (question, answer, other) in ASKED {
            let asked = embedder.embed_query(question).await.unwrap();
            let texts = vec![answer.to_owned(), other.to_owned()];
            let passages = embedder.embed_passages(texts).await.unwrap();
            found += usize::from(cosine(&asked, &passages[0]) >= near);
            let far = cosine(&asked, &passages[1]);
            assert!(far < near, "{question}: {far} of {near}");
        }
        assert!(found >= least, "{found} of {} answers are near", ASKED.len());
    }
}
