//! Starting and stopping the server: the wiring of every room.
//!
//! The rule of this file: what is started here is stopped here, in the opposite order; the last line
//! of a start on stdout says where the server listens.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::serve::ListenerExt;
use chrono::TimeDelta;
use commands::Commands;
use commands::policies::{Pending, PendingSchedule, Policies, Reading, Workers};
use commands::tools::answer::chat::ChatServer;
use commands::tools::{ToolSettings, Tools};
use embeddings::Extractor;
use eventlog::EventStore;
use projections::Views;
use projections::search::Search;
use projections::trigger::KnownSchedule;
use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use vault::{MasterKey, Vault, s3_environment};

use crate::app::{App, Parts, Start};
use crate::config::{BlobsAddress, Config};
use crate::http::finish::LeftAlone;
use crate::http::layers::Settings;
use crate::http::rate_limit::RateLimit;
use crate::http::small_reads::SmallReads;
use crate::metrics::Metrics;
use crate::model::Looking;
use crate::oidc::Oidc;
use crate::router::{self, Dress};
use crate::webhook::Doors;

/// How often pending uses and refused attempts are written, and expired tokens noticed.
const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// The first user's address, where nobody gave one.
const FIRST_USER: &str = "admin@example.com";

/// How long a start waits for its read models, and then for the search index, before it listens all the same: until the
/// read models are there it lets nobody in.
const WARM_UP: Duration = Duration::from_secs(1);

/// The folders and files of a data directory.
pub struct DataDir(PathBuf);

impl DataDir {
    /// The data directory at `path`.
    pub fn new(path: impl Into<PathBuf>) -> DataDir {
        DataDir(path.into())
    }

    /// The read models.
    pub fn views(&self) -> PathBuf {
        self.0.join("views")
    }

    /// The full-text index.
    pub fn search(&self) -> PathBuf {
        self.0.join("search")
    }

    /// Keys, blobs and artifacts.
    pub fn vault(&self) -> PathBuf {
        self.0.join("vault")
    }

    /// Uploads of which it is not known yet whether they are good; nothing in it outlives a start.
    pub fn spool(&self) -> PathBuf {
        self.0.join("spool")
    }

    /// The master key, where the environment names none.
    pub fn master_key(&self) -> PathBuf {
        self.0.join("master.key")
    }

    /// Where the master key is that is about to take over.
    pub fn new_master_key(&self) -> PathBuf {
        self.0.join("master.key.new")
    }

    /// Makes the directory, where there is none, and keeps other processes from writing in it: a
    /// log on a server is open to many, the read models beside it are not. The lock is the operating
    /// system's, and ends with whoever holds it.
    ///
    /// # Errors
    /// Another process holds it, or it cannot be made.
    pub fn lock(&self) -> anyhow::Result<File> {
        let path = self.0.display();
        eventlog::make_folder(&self.0)
            .with_context(|| format!("{path} cannot be made: choose another --data-dir"))?;
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.0.join("lock"))
            .with_context(|| format!("{path} cannot be written: choose another --data-dir"))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => {
                bail!(
                    "{path} is in use by another prodgy: stop that one, or choose another --data-dir"
                )
            }
            Err(std::fs::TryLockError::Error(error)) => Err(error.into()),
        }
    }
}

/// Makes a folder that holds nothing.
fn make_empty(folder: &Path) -> anyhow::Result<()> {
    let emptied = match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        emptied => emptied,
    };
    emptied
        .and_then(|()| std::fs::create_dir_all(folder))
        .with_context(|| format!("{} cannot be emptied", folder.display()))
}

/// Opens the event log that the configuration names.
///
/// # Errors
/// It is in use, of a newer version, or cannot be opened.
pub async fn open_log(config: &Config, read_only: bool) -> anyhow::Result<Arc<dyn EventStore>> {
    Ok(eventlog::open(config.event_store.expose(), read_only).await?)
}

/// Opens the vault that the configuration names, with the master key of the environment or of its
/// file in the data directory.
///
/// # Errors
/// The master key is wrong or missing, the vault cannot be opened, or is not filled yet.
pub async fn open_vault(config: &Config) -> anyhow::Result<Vault> {
    let vault = open_vault_as_it_is(config).await?;
    if let Some(file) = vault.unfinished_import().await? {
        bail!("an import was cut off: run it again to finish it (`prodgy import {file}`)");
    }
    Ok(vault)
}

/// As [`open_vault`], also where an import was begun and not ended.
///
/// # Errors
/// The master key is wrong or missing, or the vault cannot be opened.
pub async fn open_vault_as_it_is(config: &Config) -> anyhow::Result<Vault> {
    let folders = DataDir::new(&config.data_dir);
    let key_file = folders.master_key();
    let folder = folders.vault();
    let blobs = config.blobs.clone().unwrap_or(BlobsAddress::Folder(folder));
    let (vault, is_new) = match (&blobs, given_master_key(config)?) {
        (BlobsAddress::Folder(folder), Some(key)) => (Vault::local(folder, key).await?, false),
        (BlobsAddress::Folder(folder), None) => {
            Vault::local_with_key_file(folder, &key_file).await?
        }
        (BlobsAddress::S3(address), Some(key)) => {
            (Vault::s3(address, &s3_environment(), key).await?, false)
        }
        (BlobsAddress::S3(address), None) => {
            Vault::s3_with_key_file(address, &s3_environment(), &key_file).await?
        }
    };
    if is_new {
        tracing::warn!(
            file = %key_file.display(),
            "a master key was made: without it nothing sealed can be read, so keep a copy in a safe place, or pass \
             PRODGY_MASTER_KEY"
        );
    }
    Ok(vault)
}

/// The master key of the environment or of its file, where there is one.
///
/// # Errors
/// What is there is none.
pub fn master_key(config: &Config) -> anyhow::Result<Option<MasterKey>> {
    match given_master_key(config)? {
        Some(key) => Ok(Some(key)),
        None => Ok(MasterKey::load(&DataDir::new(&config.data_dir).master_key())?),
    }
}

/// The master key of the environment, where there is one.
///
/// # Errors
/// What is there is none.
pub fn given_master_key(config: &Config) -> Result<Option<MasterKey>, vault::Error> {
    config.master_key.as_ref().map(|key| MasterKey::parse(key.expose_secret())).transpose()
}

/// Called when the server is ready, before it says where it listens.
pub type OnReady = Box<
    dyn FnOnce(App, SocketAddr) -> futures::future::BoxFuture<'static, anyhow::Result<()>> + Send,
>;

/// Runs the server until it is told to stop.
///
/// # Errors
/// It cannot start.
pub async fn serve(config: Config, on_ready: Option<OnReady>) -> anyhow::Result<()> {
    let metrics = Metrics::install()?;
    let folders = DataDir::new(&config.data_dir);
    let _lock = folders.lock()?;
    let log = open_log(&config, false).await?;
    // The lock of the log says that no other server uses the folder.
    make_empty(&folders.spool())?;
    let vault = open_vault(&config).await?;
    let commands = Commands::open(log.clone(), vault.clone()).await?;
    let warming_up = tokio::spawn(warm_up(vault.clone()));
    let boot = commands.boot().await?;
    first_admin(&commands, &config, boot.organization).await?;

    let head = log.head().await?;
    let views = Views::open(&folders.views(), log.clone())?;
    let search = Search::open(&folders.search(), log.clone(), vault, views.clone())?;
    let shutdown = CancellationToken::new();
    let model = Looking::start(
        config.model_dir.clone(),
        config.embedding_workers,
        &search,
        shutdown.clone(),
    );
    let tools = Tools::new(tool_settings(&config), model.embedder.clone()).context(
        "the certificates of this machine cannot be read: install the package ca-certificates",
    )?;
    let app = App::new(Parts {
        commands: commands.clone(),
        log: log.clone(),
        views: views.clone(),
        start: Start::at(head),
        search: search.clone(),
        session_keys: boot.session_keys,
        oidc: Oidc::new(&config.oidc)?,
        organization: boot.organization,
        embedder: model.embedder,
        models: model.models,
        model_trouble: model.trouble,
        tools: Arc::new(tools),
        uses: Default::default(),
        known_tokens: Default::default(),
        rejections: Default::default(),
        rebuilds: Default::default(),
        ends: Default::default(),
        doors: Doors::new(RateLimit::per_door(
            config.webhook_limit_per_second,
            Duration::from_secs(1),
        )),
        executor: Default::default(),
        shutdown: shutdown.clone(),
        access_ttl: TimeDelta::from_std(config.access_token_ttl)?,
        refresh_ttl: TimeDelta::from_std(config.refresh_token_ttl)?,
        upload_limit: config.upload_limit_bytes as u64,
        spool: folders.spool(),
    });
    tokio::spawn(app.ends.clone().follow(log.clone(), views.clone(), shutdown.clone()));
    let extractor = Extractor::of_this_program(config.extraction)
        .context("the program itself cannot be found: start it by its whole path")?;
    let asking = app.clone();
    tokio::spawn(async move {
        if let Some(oidc) = &asking.oidc {
            oidc.warm_up().await;
        }
    });
    let starting = start_policies(app.clone(), extractor, workers(&config), shutdown.clone());
    let policies = tokio::spawn(starting);
    let housekeeping = tokio::spawn(keep_house(app.clone(), metrics.clone(), shutdown.clone()));

    views.reached(head, WARM_UP).await;
    search.caught_up(head, WARM_UP).await;
    let listener = TcpListener::bind(config.listen).await.with_context(|| {
        format!("{} cannot be listened on: choose another --listen", config.listen)
    })?;
    let address = listener.local_addr()?;
    let left_alone = LeftAlone::default();
    let router = router::build(app.clone(), dress(&config, metrics, left_alone.clone()))?;
    let stopping = shutdown.clone();
    let server = tokio::spawn(async move {
        let listener = SmallReads(listener).tap_io(|stream| {
            let _ = stream.0.set_nodelay(true);
        });
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        axum::serve(listener, service).with_graceful_shutdown(stopping.cancelled_owned()).await
    });
    if let Some(on_ready) = on_ready {
        on_ready(app.clone(), address).await?;
    }
    announce(address)?;

    stop_signal().await?;
    tracing::info!("stopping: no new requests, running work is finished or handed back");
    shutdown.cancel();
    warming_up.abort();
    let ended = async {
        let _ = server.await;
        left_alone.ended().await;
    };
    if tokio::time::timeout(config.shutdown_timeout, ended).await.is_err() {
        tracing::warn!("some requests did not end in time and are cut");
    }
    if let Ok(Some(policies)) = policies.await {
        policies.stop().await;
    }
    let _ = housekeeping.await;
    if let Err(error) = commands.record_uses(&app.uses, None).await {
        tracing::error!(%error, "uses of API tokens could not be written");
    }
    if let Err(error) = commands.record_rejections(&app.rejections).await {
        tracing::error!(%error, "refused attempts could not be written");
    }
    search.close().await;
    views.close().await;
    log.close().await;
    tracing::info!("stopped");
    Ok(())
}

fn announce(address: SocketAddr) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "listening on http://{address}")?;
    stdout.flush()
}

fn dress(config: &Config, metrics: Metrics, left_alone: LeftAlone) -> Dress {
    Dress {
        settings: Settings {
            cors_origins: config.cors_origins.clone(),
            trusted_proxies: config.trusted_proxies.clone(),
            left_alone,
        },
        limit: RateLimit::per_credential(config.rate_limit_per_second, Duration::from_secs(1)),
        sign_in_limit: RateLimit::per_address(
            config.sign_in_limit_per_minute,
            Duration::from_secs(60),
        ),
        body_limit: config.body_limit_bytes,
        timeout: config.request_timeout,
        metrics,
    }
}

fn tool_settings(config: &Config) -> ToolSettings {
    let chat = config.llm_url.clone().map(|url| ChatServer {
        url,
        model: config.llm_model.clone(),
        api_key: config.llm_api_key.clone(),
        idle_timeout: config.llm_idle_timeout,
    });
    if chat.is_none() && (config.llm_model.is_some() || config.llm_api_key.is_some()) {
        tracing::warn!(
            "a chat model or its key is configured, and no llm_url: set it, or llm.answer asks none"
        );
    }
    let upload_limit = Some(config.upload_limit_bytes as u64);
    let chat_idle_timeout = Some(config.llm_idle_timeout);
    ToolSettings { http_allow: config.http_allow.clone(), chat, chat_idle_timeout, upload_limit }
}

/// Makes the first user, where there is none yet, and says how to sign in.
async fn first_admin(
    commands: &Commands,
    config: &Config,
    organization: Uuid,
) -> anyhow::Result<()> {
    let email = config.admin_email.as_deref().unwrap_or(FIRST_USER);
    let made = commands.make_first_admin(organization, email, config.admin_password.clone()).await;
    let Some(admin) = made.context(
        "the first user cannot be made: check PRODGY_ADMIN_EMAIL and PRODGY_ADMIN_PASSWORD",
    )?
    else {
        return Ok(());
    };
    if let Some(password) = admin.made_password {
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "first user: {}", admin.email)?;
        writeln!(stdout, "its password, shown this once: {password}")?;
    }
    Ok(())
}

/// Reads the data keys into memory: a store may be far away, or be away later.
async fn warm_up(vault: Vault) {
    if let Err(error) = vault.warm_up().await {
        tracing::warn!(%error, "not all data keys could be read yet: each is when it is needed");
    }
}

fn workers(config: &Config) -> Workers {
    let all = config.agent_workers;
    Workers { all, per_product: config.agent_workers_per_product.unwrap_or(all.div_ceil(2)) }
}

/// Starts the process managers as soon as the read models know what was left undone.
async fn start_policies(
    app: App,
    extractor: Extractor,
    workers: Workers,
    stop: CancellationToken,
) -> Option<Policies> {
    let mut applied = app.views.watch();
    let unfinished = loop {
        match app.views.read(projections::unfinished) {
            Ok(unfinished) => break unfinished,
            Err(error) if !matches!(error, projections::Error::NotReady) => {
                tracing::error!(%error, "process managers cannot start");
                return None;
            }
            Err(_) => tokio::select! {
                changed = applied.changed() => changed.ok()?,
                () = stop.cancelled() => return None,
            },
        }
    };
    let pending = Pending {
        position: unfinished.position,
        files: unfinished.files,
        executions: unfinished.executions,
        bulk_stops: unfinished.bulk_stops,
        products: unfinished.products,
        agents: unfinished.agents,
        users: [unfinished.outdated_users, unfinished.deleted_users].concat(),
        deleted_products: unfinished.deleted_products,
        deleted_knowledge_bases: unfinished.deleted_knowledge_bases,
        erasing_files: unfinished.erasing_files,
        integrations: unfinished.integrations,
        deliveries: unfinished.deliveries,
        conversations: unfinished.conversations,
        chat_runs: unfinished.chat_runs,
        schedules: unfinished
            .schedules
            .into_iter()
            .map(|KnownSchedule { trigger, product, firings, sequence }| PendingSchedule {
                trigger,
                product,
                firings,
                sequence,
            })
            .collect(),
        listeners: unfinished.listeners,
    };
    let policies = Policies::start(
        app.commands.clone(),
        Reading { embedder: app.embedder.clone(), models: app.models.clone(), extractor },
        Arc::new(app.clone()),
        app.tools.clone(),
        Arc::new(app.clone()),
        pending,
        workers,
    );
    app.executor.get_or_init(|| policies.executor());
    Some(policies)
}

/// Writes what is pending, and notices what has expired, now and then.
async fn keep_house(app: App, metrics: Metrics, stop: CancellationToken) {
    let metrics = tokio::spawn(metrics.keep_up());
    let mut clock = tokio::time::interval(HOUSEKEEPING);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = clock.tick() => {}
            () = stop.cancelled() => break,
        }
        if let Err(error) = app.commands.record_uses(&app.uses, None).await {
            tracing::warn!(%error, "uses of API tokens could not be written yet");
        }
        if let Err(error) = app.commands.record_rejections(&app.rejections).await {
            tracing::warn!(%error, "refused attempts could not be written yet");
        }
        crate::api_token::expire_due(&app).await;
        crate::memory::give_back();
    }
    metrics.abort();
}

/// `SIGTERM` or `SIGINT`.
async fn stop_signal() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
