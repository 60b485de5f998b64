//! Generations of embeddings: a second model embeds the files beside the first, is compared, activated, and
//! left again.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Product, TestApp, eventually, workspace};

const GATE: &str = "The gate opens at six.";
const LUNCH: &str = "Lunch is served from noon until two in the canteen.";
const GENERATIONS: &str = "/api/generations";

/// A directory of the model's weights, which are used in this manner.
fn model(folder: &Path, pooling: Option<&str>) -> String {
    std::fs::create_dir_all(folder).unwrap();
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        let from = workspace().join("models/all-MiniLM-L6-v2").join(name);
        std::os::unix::fs::symlink(from, folder.join(name)).unwrap();
    }
    if let Some(pooling) = pooling {
        std::fs::create_dir(folder.join("1_Pooling")).unwrap();
        std::fs::write(folder.join("1_Pooling/config.json"), pooling).unwrap();
    }
    folder.to_str().unwrap().to_owned()
}

/// Two models of the same weights: one takes the mean of all tokens, the other the first token alone, so that
/// their vectors say nothing of each other.
fn two_models(folder: &Path) -> (String, String) {
    let first = r#"{ "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false }"#;
    (model(&folder.join("mean"), None), model(&folder.join("first-token"), Some(first)))
}

async fn generations(app: &TestApp) -> Vec<Value> {
    let listed = app.get(GENERATIONS).await.expect_status(200);
    listed.data().as_array().unwrap().clone()
}

/// A generation by its model's name.
async fn named(app: &TestApp, model: &str) -> Value {
    let found = generations(app).await.into_iter().find(|it| it["model"] == model);
    found.unwrap_or_else(|| panic!("no generation by {model}"))
}

fn at(generation: &Value, verb: &str) -> String {
    format!("{GENERATIONS}/{}{verb}", generation["model_revision"].as_str().unwrap())
}

async fn complete(app: &TestApp, model: &str) -> Value {
    eventually("the generation is not complete", async || {
        let found = named(app, model).await;
        (found["state"] == "complete" && found["progress"] == 100).then_some(found)
    })
    .await
}

/// The best passage, and how near it is.
async fn ask(app: &TestApp, product: &Product, query: &str) -> (String, f64) {
    let question = json!({ "query": query, "product_id": product.id, "mode": "vector" });
    let found = app.post("/api/knowledge-base/embeddings", question).await.expect_status(200);
    let best = &found.data()[0];
    (best["text"].as_str().unwrap_or_default().to_owned(), best["score"].as_f64().unwrap_or(0.0))
}

#[tokio::test]
async fn a_second_model_is_built_compared_activated_and_left_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mean, first) = two_models(folder.path());
    let mut app = TestApp::spawn_with(&[("PRODGY_MODEL_DIR", &format!("{mean},{first}"))]).await;
    let product = app.product().await;
    let gate = app.text_file(&product, "gate.txt", GATE).await;
    let lunch = app.text_file(&product, "lunch.txt", LUNCH).await;
    let before = app.wait_ready(&gate).await["model_revision"].clone();
    app.wait_ready(&lunch).await;
    let by_mean = ask(&app, &product, "When can I come in?").await;
    assert_eq!(by_mean.0, GATE);

    let other = eventually("the second model is not loaded", async || {
        generations(&app).await.into_iter().find(|it| it["model"] == "first-token")
    })
    .await;
    assert_eq!((&other["state"], &other["active"]), (&json!("available"), &json!(false)));
    assert_eq!(other["files"], json!({ "done": 0, "failed": 0, "total": 2 }));
    let active = named(&app, "mean").await;
    assert_eq!((&active["active"], &active["model_revision"]), (&json!(true), &before));
    app.post_empty(&at(&other, "/activate")).await.expect_problem(404, "generation_not_found");
    app.delete(&at(&active, "")).await.expect_problem(409, "generation_active");
    let unknown = app.post(GENERATIONS, json!({ "model": "nobody's" })).await;
    unknown.expect_problem(422, "model_unknown");

    // Begun, it embeds what is there, and what comes later too.
    let begun = app.post(GENERATIONS, json!({ "model": "first-token" })).await.expect_status(201);
    assert_eq!(begun.header("location"), at(&other, ""));
    app.post(GENERATIONS, json!({ "model": "first-token" }))
        .await
        .expect_problem(409, "generation_begun");
    let done = complete(&app, "first-token").await;
    assert_eq!(done["files"], json!({ "done": 2, "failed": 0, "total": 2 }));
    assert_eq!((&done["eta_seconds"], &done["chunks"]["done"]), (&json!(0), &json!(2)));
    let later = app.text_file(&product, "later.txt", "Trains to the coast leave at nine.").await;
    app.wait_ready(&later).await;
    eventually("a new file is not in every generation", async || {
        (named(&app, "first-token").await["files"]["done"] == 3).then_some(())
    })
    .await;
    // Nothing that people find has changed.
    assert_eq!(ask(&app, &product, "When can I come in?").await, by_mean);

    // Compared.
    let evaluate = format!("/api/knowledge-base/{}/evaluate", product.knowledge_base);
    let questions = json!([{ "query": "When can I come in?", "expected": [gate] }]);
    let evaluated =
        |generation: &Value| json!({ "questions": questions, "generation": generation });
    for (generation, name) in [(&before, "mean"), (&other["model_revision"], "first-token")] {
        let made = app.post(&evaluate, evaluated(generation)).await.expect_status(201);
        let made = made.data();
        assert_eq!((&made["generation"]["model"], &made["file_count"]), (&json!(name), &json!(3)));
        assert_eq!(&made["generation"]["model_revision"], generation);
    }
    let unknown = app.post(&evaluate, evaluated(&json!("nobody's"))).await;
    unknown.expect_problem(422, "generation_unknown");

    // Activated, by one event.
    let activated = app.post_empty(&at(&other, "/activate")).await.expect_status(200);
    assert_eq!(
        (&activated.data()["active"], &activated.data()["loaded"]),
        (&json!(true), &json!(true))
    );
    let by_first = ask(&app, &product, "When can I come in?").await;
    assert_ne!(by_first.1, by_mean.1, "another model measures otherwise");
    let shown =
        app.get(&format!("/api/knowledge-base/storage/file/{gate}")).await.expect_status(200);
    assert_eq!(shown.data()["model_revision"], other["model_revision"]);
    let events = app.get("/api/events?type=generation.activated.v1").await.expect_status(200);
    assert_eq!(events.data().as_array().unwrap().len(), 2, "one of what was there before, one now");
    let newest = app.text_file(&product, "newest.txt", "The lift is out of order.").await;
    let newest = app.wait_ready(&newest).await;
    assert_eq!(newest["model_revision"], other["model_revision"]);
    let by_first = ask(&app, &product, "When can I come in?").await;

    // It stays so, and the read models are what the log makes of them.
    app.restart();
    eventually("the models are not loaded", async || {
        (generations(&app).await.iter().all(|it| it["loaded"] == true)).then_some(())
    })
    .await;
    assert_eq!(ask(&app, &product, "When can I come in?").await, by_first);

    // Back again, with what came in the meantime.
    eventually("the first generation is not kept up", async || {
        (named(&app, "mean").await["files"]["done"] == 4).then_some(())
    })
    .await;
    app.post_empty(&at(&active, "/activate")).await.expect_status(200);
    assert_eq!(ask(&app, &product, "When can I come in?").await, by_mean);
    assert_eq!(ask(&app, &product, "Does the elevator work?").await.0, "The lift is out of order.");

    let made_by = |app: &TestApp, generation: &Value| {
        let ending = format!("-{}", generation["model_revision"].as_str().unwrap());
        let folder = app.data_dir().join(format!("vault/artifacts/{}", product.id));
        let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_str().unwrap().ends_with(&ending)).count()
    };
    assert_eq!((made_by(&app, &active), made_by(&app, &other)), (4, 4));
    app.delete(&at(&other, "")).await.expect_status(200);
    app.delete(&at(&other, "")).await.expect_problem(404, "generation_not_found");
    assert_eq!(named(&app, "first-token").await["state"], "available");
    // What it had made is gone, also where the server is cut off meanwhile; and then it can be begun again.
    app.kill();
    app.start();
    eventually("what a removed generation had made is stored still", async || {
        (made_by(&app, &other) == 0).then_some(())
    })
    .await;
    assert_eq!(made_by(&app, &active), 4);
    eventually("it cannot be begun again", async || {
        let begun = app.post(GENERATIONS, json!({ "model": "first-token" })).await;
        let is_early = ["generation_being_removed", "model_unknown"].contains(&begun.error());
        (!is_early).then(|| begun.expect_status(201))
    })
    .await;
    complete(&app, "first-token").await;
    assert_eq!(made_by(&app, &other), 4);
    let events = app.get("/api/events?type=generation.cleared.v1").await.expect_status(200);
    assert_eq!(events.data().as_array().unwrap().len(), 1);
    app.verified();
}

#[tokio::test]
async fn a_server_whose_model_was_replaced_embeds_its_files_by_the_new_one_and_serves_words_until_then()
 {
    let folder = tempfile::tempdir().unwrap();
    let (mean, first) = two_models(folder.path());
    let used = folder.path().join("used");
    std::os::unix::fs::symlink(&mean, &used).unwrap();
    let used_path = used.to_str().unwrap();
    let mut app = TestApp::spawn_with(&[("PRODGY_MODEL_DIR", used_path)]).await;
    let product = app.product().await;
    let gate = app.text_file(&product, "gate.txt", GATE).await;
    app.wait_ready(&gate).await;
    app.stop();
    std::fs::remove_file(&used).unwrap();
    std::os::unix::fs::symlink(&first, &used).unwrap();
    app.start();
    let question = |mode| json!({ "query": "gate opens", "product_id": product.id, "mode": mode });
    let search = "/api/knowledge-base/embeddings";
    eventually("the new model is not loaded", async || {
        let reply = app.post(search, question("vector")).await;
        (reply.error() == "model_unusable").then_some(())
    })
    .await;
    let waits = app.text_file(&product, "waits.txt", LUNCH).await;
    // Its name is that of its folder.
    app.post(GENERATIONS, json!({ "model": "used" })).await.expect_status(201);
    let done = complete(&app, "used").await;
    let found = app.post(search, question("full_text")).await.expect_status(200);
    assert_eq!(found.data()[0]["text"], GATE);
    let old = generations(&app).await.into_iter().find(|it| it["active"] == true).unwrap();
    assert_eq!((&old["loaded"], &old["model"]), (&json!(false), &json!("unknown")));

    app.post_empty(&at(&done, "/activate")).await.expect_status(200);

    app.post(search, question("vector")).await.expect_status(200);
    let waited = app.wait_ready(&waits).await;
    assert_eq!(waited["model_revision"], done["model_revision"]);
    app.post_empty(&at(&old, "/activate")).await.expect_problem(409, "model_missing");
}

#[tokio::test]
async fn a_generation_that_a_kill_cut_off_goes_on_and_embeds_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (mean, first) = two_models(folder.path());
    let mut app = TestApp::spawn_with(&[("PRODGY_MODEL_DIR", &format!("{mean},{first}"))]).await;
    let product = app.product().await;
    let mut files = Vec::new();
    for number in 0..40 {
        let text = format!("Note {number}. {LUNCH} {}", GATE.repeat(40));
        files.push(app.text_file(&product, &format!("{number}.txt"), &text).await);
    }
    for file in &files {
        app.wait_ready(file).await;
    }
    app.post(GENERATIONS, json!({ "model": "first-token" })).await.expect_status(201);
    let mut kills = 0;
    for wanted in [5, 15, 30] {
        eventually("nothing is embedded", async || {
            (named(&app, "first-token").await["files"]["done"].as_u64() >= Some(wanted))
                .then_some(())
        })
        .await;
        let state = named(&app, "first-token").await["state"].clone();
        kills += u32::from(state == "building");
        app.kill();
        app.start();
    }
    assert!(kills > 0, "it was complete before the first kill");
    complete(&app, "first-token").await;
    let page = app.get("/api/events?type=file.embedded.v1&limit=1000").await.expect_status(200);
    let events = page.data().as_array().unwrap().iter();
    let mut embedded: Vec<String> =
        events.map(|event| event["subject"].as_str().unwrap().to_owned()).collect();
    embedded.sort();
    let mut wanted: Vec<String> = files.iter().map(|file| format!("file-{file}")).collect();
    wanted.sort();
    assert_eq!(embedded, wanted, "each file once");
}

#[tokio::test]
async fn a_search_during_a_switch_is_answered_by_one_model_or_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let (mean, first) = two_models(folder.path());
    let app = TestApp::spawn_with(&[("PRODGY_MODEL_DIR", &format!("{mean},{first}"))]).await;
    let product = app.product().await;
    for (name, text) in [("gate.txt", GATE), ("lunch.txt", LUNCH)] {
        let file = app.text_file(&product, name, text).await;
        app.wait_ready(&file).await;
    }
    let question = "When can I come in?";
    let by_mean = ask(&app, &product, question).await;
    app.post(GENERATIONS, json!({ "model": "first-token" })).await.expect_status(201);
    let other = complete(&app, "first-token").await;
    let active = named(&app, "mean").await;
    app.post_empty(&at(&other, "/activate")).await.expect_status(200);
    let by_first = ask(&app, &product, question).await;
    assert_ne!(by_first.1, by_mean.1, "another model measures otherwise");

    let is_over = std::sync::atomic::AtomicBool::new(false);
    let client = async || {
        let mut answers = Vec::new();
        while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
            answers.push(ask(&app, &product, question).await);
        }
        answers
    };
    let switch = async || {
        for generation in [&active, &other].into_iter().cycle().take(16) {
            app.post_empty(&at(generation, "/activate")).await.expect_status(200);
            ask(&app, &product, question).await;
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let (one, two, three, ()) = tokio::join!(client(), client(), client(), switch());

    for answer in [one, two, three].concat() {
        assert!(
            answer == by_mean || answer == by_first,
            "{answer:?} is neither {by_mean:?} nor {by_first:?}"
        );
    }
}
