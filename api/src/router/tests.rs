//! That what stands around the routes sees how a request ends, however it ends.

use chrono::TimeDelta;
use commands::Commands;
use commands::tools::{ToolSettings, Tools};
use domain::access_log::AccessLogEvent;
use eventlog::{EventStore, SqliteOptions, SqliteStore};
use projections::Views;
use projections::search::Search;
use tempfile::TempDir;
use tokio::sync::watch;
use vault::{MasterKey, Vault};

use super::*;
use crate::app::{Parts, Start};
use crate::http::testing::{local, post_json, send};
use crate::webhook::Doors;

#[tokio::test]
async fn a_request_whose_handler_panics_is_on_record_as_failed() {
    let folder = TempDir::new().unwrap();
    let app = app(&folder).await;
    let gate = Gate::new(&document()).unwrap();
    let way = Way { app: app.clone(), gate, is_openai: false, limit: None, body: None, time: None };
    let broken = axum::routing::post(async || -> Response { panic!("a handler") });
    let routes = Router::new().route("/api/auth/login", broken);
    let routes = routes.layer(around(Arc::new(way), walk));
    let whole = local(layers::dress(routes, Settings::default()));

    let request = post_json("/api/auth/login", "{}");
    send(&whole, request).await.problem(500, "internal");

    let position = app.commands.record_rejections(&app.rejections).await.unwrap();
    let events = app.log.read_after(Position(position.0 - 1), 1).await.unwrap();
    let AccessLogEvent::Rejected { attempts } =
        domain::event::decode(&events[0].event_type, &events[0].data).unwrap();
    let [attempt] = &attempts[..] else { panic!("{attempts:#?}") };
    assert_eq!((attempt.status, attempt.code.as_str()), (500, "internal"));
    assert_eq!((attempt.path.as_str(), attempt.request_ids.len()), ("/api/auth/login", 1));
}

/// An application in a folder, without a model and without process managers.
async fn app(folder: &TempDir) -> App {
    let folder = folder.path();
    let log = SqliteStore::open(&folder.join("events.db"), SqliteOptions::default()).unwrap();
    let log: Arc<dyn EventStore> = Arc::new(log);
    let master = MasterKey::generate().unwrap();
    let vault = Vault::local(&folder.join("vault"), master).await.unwrap();
    let commands = Commands::open(log.clone(), vault.clone()).await.unwrap();
    let boot = commands.boot().await.unwrap();
    let views = Views::open(&folder.join("views"), log.clone()).unwrap();
    let search = Search::open(&folder.join("search"), log.clone(), vault, views.clone()).unwrap();
    let embedder = watch::channel(None).1;
    App::new(Parts {
        commands,
        log,
        views,
        start: Start::at(Position(0)),
        search,
        session_keys: boot.session_keys,
        oidc: None,
        organization: boot.organization,
        tools: Arc::new(Tools::new(ToolSettings::default(), embedder.clone()).unwrap()),
        embedder,
        models: watch::channel(Vec::new()).1,
        model_trouble: watch::channel(None).1,
        uses: Default::default(),
        known_tokens: Default::default(),
        rejections: Default::default(),
        rebuilds: Default::default(),
        ends: Default::default(),
        doors: Doors::new(None),
        executor: Default::default(),
        shutdown: Default::default(),
        access_ttl: TimeDelta::minutes(1),
        refresh_ttl: TimeDelta::minutes(1),
        upload_limit: 0,
        spool: folder.to_owned(),
    })
}
