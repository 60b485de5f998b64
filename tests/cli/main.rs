//! The command line from outside: exit codes, what goes to stdout, what to stderr.
#![expect(clippy::unwrap_used, reason = "tests")]

mod demo;
mod model;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tests::support::{PASSWORD, TestApp, prodgy};

fn run(folder: &Path, arguments: &[&str]) -> Output {
    prodgy(folder, arguments).stdin(Stdio::null()).output().unwrap()
}

fn run_with_input(folder: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = prodgy(folder, arguments);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn folder_of(app: &TestApp) -> std::path::PathBuf {
    app.data_dir().parent().unwrap().to_owned()
}

#[test]
fn help_names_every_command() {
    let folder = tempfile::tempdir().unwrap();

    let help = run(folder.path(), &["--help"]);
    assert_eq!(help.status.code(), Some(0), "{help:?}");
    for command in [
        "serve",
        "demo",
        "model",
        "users",
        "projections",
        "events",
        "blobs",
        "keys",
        "healthcheck",
        "openapi",
    ] {
        assert!(stdout(&help).contains(command), "{command}: {}", stdout(&help));
    }
    let serve = run(folder.path(), &["serve", "--help"]);
    for option in ["--listen", "--data-dir", "--event-store", "--config", "PRODGY_LISTEN"] {
        assert!(stdout(&serve).contains(option), "{option}: {}", stdout(&serve));
    }
    let version = run(folder.path(), &["--version"]);
    assert!(stdout(&version).starts_with("prodgy "), "{version:?}");
    assert!(!folder.path().join("data").exists(), "asking for help made a data directory");
}

#[test]
fn bad_usage_exits_2_and_says_what_is_right() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        &[][..],
        &["dance"],
        &["serve", "--nonsense"],
        &["serve", "--listen", "nowhere"],
        &["serve", "--event-store", "mysql://localhost/prodgy"],
        &["serve", "--event-store", "postgres://localhost:port/prodgy"],
        &["serve", "--config", "/nonexistent/prodgy.toml"],
        &["users", "create", "--email", "ada@example.com", "--role", "queen", "--password-stdin"],
        &["users", "create", "--role", "admin"],
        &["projections", "rebuild"],
        &["events", "tail", "--after", "soon"],
        &["blobs", "gc", "--older-than", "yesterday"],
        &["serve", "--blobs", "s3://"],
    ] {
        let output = run(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{arguments:?}: {output:?}");
    }
    assert!(!folder.path().join("data").exists());
}

#[test]
fn what_needs_a_data_directory_says_so_where_there_is_none() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        &["projections", "list"][..],
        &["projections", "verify"],
        &["events", "tail", "--no-follow"],
    ] {
        let output = run(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        assert!(stderr(&output).contains("--data-dir"), "{arguments:?}: {}", stderr(&output));
    }
}

#[tokio::test]
async fn a_user_who_is_made_on_the_command_line_signs_in() {
    let mut app = TestApp::spawn().await;
    let folder = folder_of(&app);
    let arguments = [
        "users",
        "create",
        "--email",
        "ada@example.com",
        "--role",
        "admin",
        "--name",
        "Ada",
        "--password-stdin",
    ];

    let busy = run_with_input(&folder, &arguments, PASSWORD);
    assert_eq!(busy.status.code(), Some(1), "{busy:?}");
    assert!(stderr(&busy).contains("in use by another prodgy"), "{}", stderr(&busy));

    app.stop();
    let made = run_with_input(&folder, &arguments, &format!("{PASSWORD}\n"));
    assert_eq!(made.status.code(), Some(0), "{made:?}");
    assert!(stdout(&made).starts_with("made user "), "{made:?}");
    let again = run_with_input(&folder, &arguments, PASSWORD);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    let short =
        ["users", "create", "--email", "bob@example.com", "--role", "viewer", "--password-stdin"];
    assert_eq!(run_with_input(&folder, &short, "short").status.code(), Some(1));
    for output in [&made, &again] {
        assert!(!stderr(output).contains(PASSWORD) && !stdout(output).contains(PASSWORD));
    }

    app.start();
    let ada = app.login("ada@example.com", PASSWORD).await;
    let me = ada.get("/api/auth/me").await.expect_status(200);
    assert_eq!(me.data()["role"], "admin");
}

#[tokio::test]
async fn read_models_are_listed_verified_and_rebuilt() {
    let mut app = TestApp::spawn().await;
    let folder = folder_of(&app);
    let product = app.product().await;
    app.token(&product, &[]).await;

    // Beside the server.
    let listed = run(&folder, &["projections", "list"]);
    assert_eq!(listed.status.code(), Some(0), "{listed:?}");
    for name in ["agent", "product", "api_token", "audit_log"] {
        assert!(
            stdout(&listed).lines().any(|line| line.starts_with(name)),
            "{name}: {}",
            stdout(&listed)
        );
    }
    let verified = run(&folder, &["projections", "verify"]);
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    let refused = run(&folder, &["projections", "rebuild", "product"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");

    app.stop();
    let unknown = run(&folder, &["projections", "rebuild", "nonsense"]);
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
    assert!(stderr(&unknown).contains("projections list"), "{}", stderr(&unknown));
    let search = run(&folder, &["projections", "rebuild", "search"]);
    assert_eq!(search.status.code(), Some(1), "{search:?}");
    assert!(stderr(&search).contains("/api/projections/search/rebuild"), "{}", stderr(&search));
    let rebuilt = run(&folder, &["projections", "rebuild", "product"]);
    assert_eq!(rebuilt.status.code(), Some(0), "{rebuilt:?}");
    let verified = run(&folder, &["projections", "verify"]);
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    assert!(stdout(&verified).contains("are what the log makes of them"), "{verified:?}");

    app.start();
    app.get(&format!("/api/products/{}", product.id)).await.expect_status(200);
}

#[tokio::test]
async fn a_read_model_that_was_tampered_with_does_not_verify() {
    let mut app = TestApp::spawn().await;
    app.product().await;
    app.stop();
    let changed = rusqlite::Connection::open(app.views_file())
        .unwrap()
        .execute("update product set name = 'Forged'", [])
        .unwrap();
    assert_eq!(changed, 1);

    let output = run(&folder_of(&app), &["projections", "verify"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        stdout(&output).contains("Forged") && stdout(&output).contains("rebuild"),
        "{}",
        stdout(&output)
    );
}

#[tokio::test]
async fn no_command_touches_a_data_directory_of_a_newer_version() {
    let mut app = TestApp::spawn().await;
    let folder = folder_of(&app);
    app.stop();
    let log = app.data_dir().join("events.db");
    let version = |change: i64| {
        let log = rusqlite::Connection::open(&log).unwrap();
        let known: i64 = log.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        log.pragma_update(None, "user_version", known + change).unwrap();
    };

    version(1);
    for arguments in [
        &["projections", "list"][..],
        &["projections", "verify"],
        &["projections", "rebuild", "product"],
        &["events", "tail", "--no-follow"],
        &["users", "create", "--email", "ada@example.com", "--role", "admin", "--password-stdin"],
    ] {
        let output = run_with_input(&folder, arguments, PASSWORD);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        assert!(stderr(&output).contains("upgrade prodgy"), "{arguments:?}: {}", stderr(&output));
    }
    version(-1);
    app.start();
}

#[tokio::test]
async fn the_log_is_printed_as_json_lines() {
    let app = TestApp::spawn().await;
    let folder = folder_of(&app);
    let product = app.product().await;

    let output = run(&folder, &["events", "tail", "--after", "0", "--no-follow"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = stdout(&output);
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let positions: Vec<u64> =
        events.iter().map(|event| event["position"].as_u64().unwrap()).collect();
    assert_eq!(positions, (1..=events.len() as u64).collect::<Vec<_>>());
    assert!(text.contains("product.created.v1") && text.contains(&product.id), "{text}");

    let head = events.len().to_string();
    assert_eq!(stdout(&run(&folder, &["events", "tail", "--after", &head, "--no-follow"])), "");
    let last = run(&folder, &["events", "tail", "--no-follow"]);
    assert_eq!(stdout(&last).lines().count(), events.len().min(10));
}

#[tokio::test]
async fn the_printed_document_is_the_served_one() {
    let app = TestApp::spawn().await;

    let output = run(&folder_of(&app), &["openapi"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed, app.get("/swagger.json").await.body);
}

#[test]
fn a_first_start_without_a_password_shows_one_once() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("prodgy.toml");
    std::fs::write(&config, "listen = \"127.0.0.1:0\"\nadmin_email = \"ada@example.com\"\n")
        .unwrap();
    let start = || {
        let mut command = prodgy(folder.path(), &["serve", "--config", config.to_str().unwrap()]);
        command
            .env_remove("PRODGY_ADMIN_EMAIL")
            .env_remove("PRODGY_ADMIN_PASSWORD")
            .stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let mut lines =
            std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
        let mut said = Vec::new();
        for line in lines.by_ref() {
            let line = line.unwrap();
            let is_last = line.starts_with("listening on http://127.0.0.1:");
            said.push(line);
            if is_last {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        said
    };

    let first = start();
    assert_eq!(first[0], "first user: ada@example.com");
    assert!(first[1].contains("shown this once: "), "{first:?}");
    let second = start();
    assert_eq!(second.len(), 1, "{second:?}");
}

#[test]
fn a_hub_that_does_not_answer_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let mut command = prodgy(folder.path(), &["model", "fetch"]);
    // Port 9 discards: nobody listens there.
    let output =
        command.env("HF_ENDPOINT", "http://127.0.0.1:9").env("HF_HOME", &cache).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("scripts/fetch-model"), "{}", stderr(&output));
    assert_eq!(json!(stdout(&output)), "");
}

#[tokio::test]
async fn a_health_check_says_by_its_exit_code_whether_the_server_lives() {
    let mut app = TestApp::spawn().await;
    let folder = folder_of(&app);
    let address = app.base().trim_start_matches("http://").to_owned();
    let check = || run(&folder, &["healthcheck", "--listen", &address]);
    let output = check();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    app.stop();
    let output = check();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("/healthz does not answer"), "{}", stderr(&output));
}

#[tokio::test]
async fn garbage_is_collected_beside_a_running_server() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let file = app.text_file(&product, "kept.txt", "kept").await;
    app.wait_ready(&file).await;
    let output = run(&folder_of(&app), &["blobs", "gc", "--older-than", "0s"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = stdout(&output);
    assert!(said.contains("2 objects") && said.contains("named by the log, and kept"), "{said}");
    let path = format!("/api/knowledge-base/storage/file/{file}/download");
    assert_eq!(app.get(&path).await.expect_status(200).text(), "kept");
}

#[tokio::test]
async fn another_master_key_takes_over_while_no_server_runs() {
    let mut app = TestApp::spawn().await;
    let product = app.product().await;
    let file = app.text_file(&product, "kept.txt", "kept").await;
    app.wait_ready(&file).await;
    let path = format!("/api/knowledge-base/storage/file/{file}/download");
    let key_file = app.data_dir().join("master.key");
    let old = fs::read_to_string(&key_file).unwrap();

    let busy = run(&folder_of(&app), &["keys", "rotate-master"]);
    assert_eq!(busy.status.code(), Some(1), "{busy:?}");
    assert!(stderr(&busy).contains("in use by another prodgy"), "{busy:?}");
    assert_eq!(fs::read_to_string(&key_file).unwrap(), old);

    assert!(app.stop().success(), "{}", app.stderr());
    let rotated = run(&folder_of(&app), &["keys", "rotate-master"]);
    assert_eq!(rotated.status.code(), Some(0), "{rotated:?}");
    assert!(stdout(&rotated).contains("under the new master key"), "{rotated:?}");
    let new = fs::read_to_string(&key_file).unwrap();
    assert_ne!(new, old);
    assert!(!app.data_dir().join("master.key.new").exists());
    app.start();
    assert_eq!(app.get(&path).await.expect_status(200).text(), "kept");

    // Where the key comes from the environment, so does the new one.
    assert!(app.stop().success(), "{}", app.stderr());
    fs::remove_file(&key_file).unwrap();
    let rotate = |next: Option<&str>| {
        let mut command = prodgy(&folder_of(&app), &["keys", "rotate-master"]);
        command.env("PRODGY_MASTER_KEY", new.trim());
        next.into_iter().for_each(|next| {
            command.env("PRODGY_NEW_MASTER_KEY", next);
        });
        command.output().unwrap()
    };
    let missing = rotate(None);
    assert_eq!(missing.status.code(), Some(1), "{missing:?}");
    assert!(stderr(&missing).contains("PRODGY_NEW_MASTER_KEY"), "{missing:?}");
    let rotated = rotate(Some(old.trim()));
    assert_eq!(rotated.status.code(), Some(0), "{rotated:?}");
    fs::write(&key_file, &old).unwrap();
    app.start();
    assert_eq!(app.get(&path).await.expect_status(200).text(), "kept");
}
