//! What an operator looks at: `/healthz`, `/readyz`, `/metrics`, and the document of the API.

use serde_json::json;

use super::support::{TestApp, eventually, workspace};

#[tokio::test]
async fn a_started_server_lives_and_becomes_ready() {
    let app = TestApp::spawn().await;
    let nobody = app.nobody();

    assert_eq!(nobody.get("/healthz").await.status, 200);
    let ready = eventually("the server is not ready", async || {
        Some(nobody.get("/readyz").await).filter(|reply| reply.status == 200)
    });
    let ready = ready.await;
    let checks = ready.data()["checks"].as_array().unwrap();
    assert!(checks.iter().all(|check| check["ok"] == true), "{ready:?}");
    assert!(checks.iter().any(|check| check["name"] == "embedding_model"), "{ready:?}");
}

#[tokio::test]
async fn without_a_model_the_server_is_not_ready_and_says_why() {
    let app = TestApp::spawn_with(&[
        ("PRODGY_MODEL_DIR", "/nonexistent/model"),
        ("HF_HOME", "/nonexistent/cache"),
        ("HOME", "/nonexistent/home"),
        ("HF_ENDPOINT", "http://127.0.0.1:9"),
    ])
    .await;

    eventually("what is missing is not said", async || {
        let reply = app.nobody().get("/readyz").await;
        assert_eq!(reply.status, 503);
        reply.text().contains("prodgy model fetch").then_some(())
    })
    .await;

    let product = app.product().await;
    let body = serde_json::json!({ "query": "anything", "product_id": product.id });
    let reply = app.post("/api/knowledge-base/embeddings", body).await;
    assert_eq!(reply.status, 503, "{reply:?}");
    assert!(reply.text().contains("model"), "{reply:?}");

    // What is uploaded meanwhile is kept, and waits.
    let file = app.text_file(&product, "note.txt", "kept until the model is there").await;
    let path = format!("/api/knowledge-base/storage/file/{file}");
    assert_eq!(app.get(&path).await.expect_status(200).data()["status"], "processing");
}

#[tokio::test]
async fn what_is_wrong_with_the_model_is_said_once_until_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let app = TestApp::spawn_with(&[("PRODGY_MODEL_DIR", folder.path().to_str().unwrap())]).await;
    let ready_says = async |what: &str| {
        eventually(&format!("/readyz does not say {what}"), async || {
            app.nobody().get("/readyz").await.text().contains(what).then_some(())
        })
        .await;
    };
    // Under their names when they are whole: the server looks at any time.
    let put = |name: &str, bytes: &[u8]| {
        let whole = folder.path().join("whole");
        std::fs::write(&whole, bytes).unwrap();
        std::fs::rename(whole, folder.path().join(name)).unwrap();
    };
    let real =
        |name: &str| std::fs::read(workspace().join("models/all-MiniLM-L6-v2").join(name)).unwrap();

    ready_says("missing").await;
    for name in ["model.safetensors", "tokenizer.json", "config.json"] {
        put(name, b"no model");
    }
    ready_says("config.json is damaged").await;
    put("config.json", &real("config.json"));
    ready_says("tokenizer.json is damaged").await;
    for name in ["model.safetensors", "tokenizer.json"] {
        put(name, &real(name));
    }
    eventually("the model is not picked up", async || {
        (app.nobody().get("/readyz").await.status == 200).then_some(())
    })
    .await;

    let log = app.stderr();
    let said = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    assert_eq!(said("the embedding model is missing"), 1, "{log}");
    assert_eq!(said("config.json is damaged"), 1, "{log}");
    assert_eq!(said("tokenizer.json is damaged"), 1, "{log}");
}

#[tokio::test]
async fn metrics_say_how_far_each_read_model_is_behind() {
    let app = TestApp::spawn().await;
    app.product().await;
    eventually("they are behind", async || {
        let shown = app.get("/api/projections").await.expect_status(200).data().clone();
        let metrics = app.nobody().get("/metrics").await.expect_status(200).text();
        let is_told = |status: &serde_json::Value| {
            let name = status["name"].as_str().unwrap();
            metrics.contains(&format!("prodgy_projection_lag{{projection=\"{name}\"}} 0\n"))
        };
        shown.as_array().unwrap().iter().all(is_told).then_some(())
    })
    .await;
}

#[tokio::test]
async fn metrics_count_requests_by_route_and_never_name_an_id() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    app.get(&format!("/api/products/{}", product.id)).await.expect_status(200);

    let metrics = app.nobody().get("/metrics").await.expect_status(200).text();
    assert!(metrics.contains("prodgy_http_requests_total"), "{metrics}");
    assert!(metrics.contains("/api/products/{productId}"), "{metrics}");
    assert!(!metrics.contains(&product.id), "an id in a label grows without bound: {metrics}");
}

#[tokio::test]
async fn the_document_and_its_pages_come_from_the_binary() {
    let app = TestApp::spawn().await;

    let document = app.nobody().get("/swagger.json").await.expect_status(200);
    assert!(
        document.body["openapi"].as_str().unwrap().starts_with("3.1"),
        "{}",
        document.body["openapi"]
    );
    let page = app.nobody().get("/swagger/").await.expect_status(200).text();
    assert!(page.contains("swagger-ui"), "{page}");
    assert!(!page.contains("https://"), "nothing is loaded from elsewhere: {page}");
}

#[tokio::test]
async fn the_schema_of_a_manifest_is_there_for_everybody() {
    let app = TestApp::spawn().await;

    let reply = app.nobody().get("/schemas/agent-manifest.json").await.expect_status(200);
    assert_eq!(reply.header("content-type"), "application/schema+json");
    assert_eq!(reply.body["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(reply.body["properties"]["manifest"]["const"], "prodgy.agent/1");
}

#[tokio::test]
async fn an_unknown_path_and_a_wrong_method_are_problems() {
    let app = TestApp::spawn().await;

    app.get("/api/nothing-here").await.expect_problem(404, "route_not_found");
    let reply = app.delete("/api/products").await.expect_problem(405, "method_not_allowed");
    assert!(reply.header("allow").contains("GET"), "{reply:?}");
}

#[tokio::test]
async fn another_model_than_the_files_were_embedded_by_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        let from = workspace().join("models/all-MiniLM-L6-v2").join(name);
        std::os::unix::fs::symlink(from, folder.path().join(name)).unwrap();
    }
    let settings = [("PRODGY_MODEL_DIR", folder.path().to_str().unwrap())];
    let mut app = TestApp::spawn_with(&settings).await;
    let product = app.product().await;
    let text = "The gate opens at six.";
    let file = app.text_file(&product, "gate.txt", text).await;
    app.wait_ready(&file).await;
    let ask = async |app: &TestApp, mode: &str| {
        let question = json!({ "query": "gate opens", "product_id": product.id, "mode": mode });
        app.post("/api/knowledge-base/embeddings", question).await
    };
    ask(&app, "vector").await.expect_status(200);

    // The same weights used in another manner make other vectors.
    let prompts = folder.path().join("config_sentence_transformers.json");
    std::fs::write(&prompts, r#"{ "prompts": { "query": "query: " } }"#).unwrap();
    app.restart();
    eventually("the model is not refused", async || {
        (ask(&app, "vector").await.error() == "model_unusable").then_some(())
    })
    .await;
    let reply = ask(&app, "vector").await.expect_status(503);
    assert!(reply.text().contains("embedded by another model"), "{reply:?}");
    app.nobody().get("/readyz").await.expect_status(503);
    let found = ask(&app, "full_text").await.expect_status(200);
    assert_eq!(found.data()[0]["text"], text, "words are found all the same");

    std::fs::remove_file(&prompts).unwrap();
    app.restart();
    assert!(app.finds(&product, "When can I come in?", text).await);
}

#[tokio::test]
async fn a_model_that_does_not_fit_is_named_while_files_wait_for_one_that_does() {
    let folder = tempfile::tempdir().unwrap();
    let real =
        |name: &str| std::fs::read(workspace().join("models/all-MiniLM-L6-v2").join(name)).unwrap();
    // Under their names when they are whole: the server looks at any time.
    let put = |name: &str, bytes: &[u8]| {
        let whole = folder.path().join("whole");
        std::fs::write(&whole, bytes).unwrap();
        std::fs::rename(whole, folder.path().join(name)).unwrap();
    };
    let weights = real("model.safetensors");
    put("model.safetensors", &weights[..weights.len() / 2]);
    for name in ["config.json", "tokenizer.json"] {
        put(name, &real(name));
    }
    let app = TestApp::spawn_with(&[("PRODGY_MODEL_DIR", folder.path().to_str().unwrap())]).await;
    let product = app.product().await;
    let text = "The lock keeper goes home at eight.";
    let file = app.text_file(&product, "lock.txt", text).await;
    let is_told_and_waited_for = async |what: &str| {
        eventually(&format!("/readyz does not say {what}"), async || {
            let reply = app.nobody().get("/readyz").await;
            assert_eq!(reply.status, 503, "{reply:?}");
            reply.text().contains(what).then_some(())
        })
        .await;
        let path = format!("/api/knowledge-base/storage/file/{file}");
        assert_eq!(app.get(&path).await.expect_status(200).data()["status"], "processing");
        app.nobody().get("/healthz").await.expect_status(200);
        let words =
            json!({ "query": "lock keeper", "product_id": product.id, "mode": "full_text" });
        app.post("/api/knowledge-base/embeddings", words).await.expect_status(200);
    };
    is_told_and_waited_for("model.safetensors is damaged").await;

    // Weights of other dimensions than the configuration says.
    let mut config: serde_json::Value = serde_json::from_slice(&real("config.json")).unwrap();
    config["hidden_size"] = json!(256);
    put("config.json", config.to_string().as_bytes());
    put("model.safetensors", &weights);
    is_told_and_waited_for("256").await;

    // A tokenizer that knows words of which the weights know nothing.
    let mut tokenizer: serde_json::Value = serde_json::from_slice(&real("tokenizer.json")).unwrap();
    let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    let known = vocabulary.len();
    vocabulary.extend((0..10).map(|more| (format!("word{more}"), json!(known + more))));
    put("tokenizer.json", tokenizer.to_string().as_bytes());
    put("config.json", &real("config.json"));
    is_told_and_waited_for("tokenizer.json is of another model").await;

    put("tokenizer.json", &real("tokenizer.json"));
    app.wait_ready(&file).await;
    assert!(app.finds(&product, "When does the keeper leave?", text).await);
    app.nobody().get("/readyz").await.expect_status(200);
}
