//! The command line: one binary, `prodgy`.
//!
//! The rule of this file: exit 0 when it was done, 1 when it failed, 2 for bad usage. Logs go to
//! stderr, answers to stdout.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::{Parser, Subcommand};
use commands::{Ask, Collection, Commands, NewUser};
use domain::user::Asker;
use domain::{Email, Name, Role};
use eventlog::{EventStore, Position};
use indicatif::{ProgressBar, ProgressStyle};
use projections::{Status, Views};
use secrecy::SecretString;

use crate::config::Config;
use crate::config::arguments::{Arguments, CommonArguments, ServingArguments};
use crate::serve::{DataDir, open_log, open_vault, serve};
use crate::{blobs, demo, export, healthcheck, import, keys, logs};

/// How many events one read of the log brings.
const BATCH: usize = 1_000;

/// How often a line says how far long work is.
const LINE: Duration = Duration::from_secs(1);

/// What helps a read model that stopped.
const STOPPED: &str = "the others are what the log makes of them; this one goes on once a version of prodgy that \
                       understands the event is started";

/// How often a spinner turns.
const TURN: Duration = Duration::from_millis(100);

/// How often `events tail` looks for more.
const LOOK: Duration = Duration::from_millis(250);

/// Prodgy: the event-sourced backend for AI-agent workspaces.
#[derive(Debug, Parser)]
#[command(name = "prodgy", version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve(ServingArguments),
    /// Run the server on a data directory with a sample workspace, and say how to use it.
    Demo(ServingArguments),
    /// The embedding model.
    #[command(subcommand)]
    Model(ModelCommand),
    /// The people of the organization.
    #[command(subcommand)]
    Users(UsersCommand),
    /// The read models.
    #[command(subcommand)]
    Projections(ProjectionsCommand),
    /// The log of events.
    #[command(subcommand)]
    Events(EventsCommand),
    /// Write the log, and the keys and files that it names, into one file. Runs beside a server; run again,
    /// it goes on where it was cut off.
    Export {
        /// The file to make.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Leave files and what was made of them out: for a move that leaves --blobs where it is.
        #[arg(long)]
        without_files: bool,
        #[command(flatten)]
        common: CommonArguments,
    },
    /// Fill an empty instance from the file of an export, exactly: the same events at the same positions.
    /// Run again, it goes on where it was cut off.
    Import {
        /// The file.
        file: PathBuf,
        /// Only see whether the file is whole, and its master key at hand.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        common: CommonArguments,
    },
    /// Files and what was made of them, beside the log.
    #[command(subcommand)]
    Blobs(BlobsCommand),
    /// The keys that seal what is not to be read by others.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Ask the server at --listen whether it lives: exit code 0 if so. For health checks.
    Healthcheck(ServingArguments),
    /// Print the OpenAPI document.
    Openapi(CommonArguments),
}

#[derive(Debug, Subcommand)]
enum ModelCommand {
    /// Download an embedding model into the hub's cache.
    Fetch {
        /// Its name on the hub, as intfloat/e5-small-v2; all-MiniLM-L6-v2 without one. It is used where --model-dir
        /// names it.
        model: Option<String>,
        #[command(flatten)]
        common: CommonArguments,
    },
}

#[derive(Debug, Subcommand)]
enum UsersCommand {
    /// Make a user. Not while a server runs on the same data directory: use POST /api/users there.
    Create {
        /// The address that the user signs in with.
        #[arg(long, value_parser = Email::parse)]
        email: Email,
        /// What the user may do: owner, admin, member or viewer.
        #[arg(long)]
        role: Role,
        /// The user's name.
        #[arg(long, value_parser = Name::parse)]
        name: Option<Name>,
        /// Read the password from standard input instead of asking for it.
        #[arg(long)]
        password_stdin: bool,
        #[command(flatten)]
        common: CommonArguments,
    },
}

#[derive(Debug, Subcommand)]
enum ProjectionsCommand {
    /// Say where each read model stands.
    List(CommonArguments),
    /// Throw the read models away and fill them anew. Not while a server runs on the same data
    /// directory: use POST /api/projections/NAME/rebuild there, as for `search`, which is in files of its own.
    Rebuild {
        /// The read model; they share one file, so all are refilled.
        name: String,
        #[command(flatten)]
        common: CommonArguments,
    },
    /// Rebuild the read models in memory and compare, all but `search`. Runs beside a server.
    Verify(CommonArguments),
}

#[derive(Debug, Subcommand)]
enum EventsCommand {
    /// Print events as JSON lines, and go on with those that come. Runs beside a server.
    Tail {
        /// Begin after this position; without it, with the last 10.
        #[arg(long)]
        after: Option<u64>,
        /// End when there is no more.
        #[arg(long)]
        no_follow: bool,
        #[command(flatten)]
        common: CommonArguments,
    },
}

#[derive(Debug, Subcommand)]
enum BlobsCommand {
    /// Take away what no event names: first aside, and at a later run for good. Runs beside a server.
    Gc {
        /// Only say what would be done.
        #[arg(long)]
        dry_run: bool,
        /// Leave what was stored, or set aside, less long ago than this: uploads are not named yet.
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = blobs::time_span)]
        older_than: Duration,
        #[command(flatten)]
        common: CommonArguments,
    },
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Put every data key under a new master key: one that is made now, or that of PRODGY_NEW_MASTER_KEY.
    /// Not while a server runs, on any node; run again, it goes on where it was cut off.
    RotateMaster(CommonArguments),
}

/// Runs the command line.
pub async fn run() -> ExitCode {
    let command = Cli::parse().command;
    let config = match Config::load(command.arguments()) {
        Ok(config) => config,
        Err(error) => {
            eprint_line(&format!("prodgy: {:#}", anyhow!(error)));
            return ExitCode::from(2);
        }
    };
    if let Err(error) = logs::start(config.log_format, config.log_filter()) {
        eprint_line(&format!("prodgy: logs cannot be written: {error}"));
    }
    match carry_out(command, config).await {
        Ok(code) => code,
        Err(error) => {
            eprint_line(&format!("prodgy: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

impl Command {
    fn arguments(&self) -> &Arguments {
        match self {
            Command::Serve(ServingArguments(arguments))
            | Command::Demo(ServingArguments(arguments))
            | Command::Healthcheck(ServingArguments(arguments)) => arguments,
            Command::Model(ModelCommand::Fetch { common: CommonArguments(arguments), .. })
            | Command::Users(UsersCommand::Create { common: CommonArguments(arguments), .. })
            | Command::Projections(
                ProjectionsCommand::List(CommonArguments(arguments))
                | ProjectionsCommand::Rebuild { common: CommonArguments(arguments), .. }
                | ProjectionsCommand::Verify(CommonArguments(arguments)),
            )
            | Command::Events(EventsCommand::Tail { common: CommonArguments(arguments), .. })
            | Command::Export { common: CommonArguments(arguments), .. }
            | Command::Import { common: CommonArguments(arguments), .. }
            | Command::Blobs(BlobsCommand::Gc { common: CommonArguments(arguments), .. })
            | Command::Keys(KeysCommand::RotateMaster(CommonArguments(arguments)))
            | Command::Openapi(CommonArguments(arguments)) => arguments,
        }
    }
}

fn eprint_line(text: &str) {
    // Nothing is left to do where not even this can be written.
    let _ = writeln!(std::io::stderr(), "{text}");
}

async fn carry_out(command: Command, config: Config) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(_) => serve(config, None).await?,
        Command::Demo(_) => {
            serve(config, Some(Box::new(|app, address| Box::pin(demo::prepare(app, address)))))
                .await?;
        }
        Command::Model(ModelCommand::Fetch { model, .. }) => {
            let folder = embeddings::fetch(model.as_deref(), embeddings::show_progress()).await?;
            print_line(&folder.display().to_string())?;
        }
        Command::Users(UsersCommand::Create { email, role, name, password_stdin, .. }) => {
            create_user(&config, email, role, name, password_stdin).await?;
        }
        Command::Projections(ProjectionsCommand::List(_)) => list_projections(&config).await?,
        Command::Projections(ProjectionsCommand::Rebuild { name, .. }) => {
            rebuild(&config, &name).await?
        }
        Command::Projections(ProjectionsCommand::Verify(_)) => return verify(&config).await,
        Command::Events(EventsCommand::Tail { after, no_follow, .. }) => {
            tail(&config, after, !no_follow).await?
        }
        Command::Export { out, without_files, .. } => {
            print_line(&export::export(&config, &out, !without_files).await?)?;
        }
        Command::Import { file, dry_run, .. } => {
            print_line(&import::import(&config, &file, dry_run).await?)?;
        }
        Command::Blobs(BlobsCommand::Gc { dry_run, older_than, .. }) => {
            blobs::collect(&config, Collection { older_than, dry_run }).await?
        }
        Command::Keys(KeysCommand::RotateMaster(_)) => {
            print_line(&keys::rotate_master(&config).await?)?;
        }
        Command::Healthcheck(_) => healthcheck::check(config.listen).await?,
        Command::Openapi(_) => {
            print_line(&serde_json::to_string_pretty(&crate::router::document())?)?
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print_line(text: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{text}")
}

async fn create_user(
    config: &Config,
    email: Email,
    role: Role,
    name: Option<Name>,
    from_stdin: bool,
) -> anyhow::Result<()> {
    let password = read_password(from_stdin)?;
    let _lock = DataDir::new(&config.data_dir).lock()?;
    let log = open_log(config, false).await?;
    let commands = Commands::open(log.clone(), open_vault(config).await?).await?;
    let boot = commands.boot().await?;
    let ask = Ask::once("command line", boot.organization, None);
    let new = NewUser { email, name, role, password };
    let done = commands.create_user(new, Asker::Operator, &ask).await?;
    log.close().await;
    print_line(&format!("made user {}", done.stream.id()))?;
    Ok(())
}

fn read_password(from_stdin: bool) -> anyhow::Result<SecretString> {
    if from_stdin {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .context("the password cannot be read from standard input")?;
        return Ok(SecretString::from(text.trim_end_matches(['\r', '\n']).to_owned()));
    }
    if !std::io::stdin().is_terminal() {
        bail!("there is no terminal to ask for a password: pass it with --password-stdin");
    }
    let first = rpassword::prompt_password("password: ")?;
    let second = rpassword::prompt_password("once more: ")?;
    if first != second {
        bail!("the two passwords differ: try again");
    }
    Ok(SecretString::from(first))
}

async fn list_projections(config: &Config) -> anyhow::Result<()> {
    let log = open_log(config, true).await?;
    let head = log.head().await?;
    let folder = DataDir::new(&config.data_dir).views();
    let statuses = projections::standings(&folder, head).map_err(no_views)?;
    print_line(&format!("{:<16} {:>7} {:>12} {:>8}  state", "name", "version", "position", "lag"))?;
    for Status { name, version, position, lag, state, stopped, .. } in statuses {
        let state = serde_json::to_value(state)?;
        let why = stopped.map(|stopped| format!(" ({})", stopped.error)).unwrap_or_default();
        let state = state.as_str().unwrap_or_default();
        print_line(&format!("{name:<16} {version:>7} {position:>12} {lag:>8}  {state}{why}"))?;
    }
    Ok(())
}

fn no_views(error: projections::Error) -> anyhow::Error {
    match error {
        projections::Error::NotReady => {
            anyhow!(
                "there are no read models of this version here: start `prodgy serve` once, or check --data-dir"
            )
        }
        other => other.into(),
    }
}

async fn rebuild(config: &Config, name: &str) -> anyhow::Result<()> {
    if name == "search" {
        bail!(
            "search has files of its own and is filled by a server: start one, then POST /api/projections/search/rebuild; or \
             remove {} before it starts",
            DataDir::new(&config.data_dir).search().display()
        );
    }
    if !projections::read_models().iter().any(|model| model.name() == name) {
        bail!("there is no read model {name}: `prodgy projections list` names them");
    }
    let folders = DataDir::new(&config.data_dir);
    // It says that no server runs here.
    let _lock = folders.lock()?;
    let log = open_log(config, false).await?;
    let folder = folders.views();
    std::fs::create_dir_all(&folder)?;
    projections::discard(&folder)?;
    let head = log.head().await?;
    let views = Views::open(&folder, log.clone())?;
    let mut applied = views.watch();
    let bar = bar(head)?;
    let mut clock = tokio::time::interval(LINE);
    while views.position() < head {
        tokio::select! {
            _ = applied.changed() => {}
            _ = clock.tick() => if bar.is_none() { report(&views.statuses(), head)? },
        }
        if let Some(bar) = &bar {
            bar.set_position(views.position().0);
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    report(&views.statuses(), head)?;
    views.close().await;
    log.close().await;
    // One that stopped does not keep the others from the head.
    match stopped(&folder, head)?.as_slice() {
        [] => Ok(()),
        stopped => bail!("{}\n{STOPPED}", stopped.join("\n")),
    }
}

/// The read models that stopped, as is stored with them.
fn stopped(folder: &Path, head: Position) -> anyhow::Result<Vec<String>> {
    let standings = projections::standings(folder, head).map_err(no_views)?;
    let told = standings.into_iter().filter_map(|Status { name, stopped, .. }| {
        let projections::Stopped { position, error, .. } = stopped?;
        Some(format!("read model {name} stopped after position {position}: {error}"))
    });
    Ok(told.collect())
}

/// Shows long work to a person; elsewhere plain lines do.
fn bar(head: Position) -> anyhow::Result<Option<ProgressBar>> {
    if !std::io::stderr().is_terminal() {
        return Ok(None);
    }
    let style = ProgressStyle::with_template("{bar:30} position {pos} of {len} {per_sec} {eta}")?;
    Ok(Some(ProgressBar::new(head.0).with_style(style)))
}

fn report(statuses: &[Status], head: Position) -> std::io::Result<()> {
    let Some(status) = statuses.first() else { return Ok(()) };
    print_line(&format!(
        "position {} of {head}, {:.0} events a second",
        status.position, status.rate
    ))
}

async fn verify(config: &Config) -> anyhow::Result<ExitCode> {
    let log = open_log(config, true).await?;
    let folder = DataDir::new(&config.data_dir).views();
    // How far it is nobody can see; that it goes on is shown to a person.
    let turning = ProgressBar::new_spinner().with_message("rebuilding in memory, and comparing");
    turning.enable_steady_tick(TURN);
    let verdict = projections::verify(&folder, log.as_ref()).await;
    turning.finish_and_clear();
    let verdict = verdict.map_err(no_views)?;
    let stopped = stopped(&folder, verdict.position)?;
    for told in &stopped {
        print_line(told)?;
    }
    match verdict.difference {
        None if !stopped.is_empty() => {
            print_line(STOPPED)?;
            Ok(ExitCode::FAILURE)
        }
        None => {
            print_line(&format!(
                "the read models are what the log makes of them, up to position {}",
                verdict.position
            ))?;
            Ok(ExitCode::SUCCESS)
        }
        Some((stored, rebuilt)) => {
            print_line(&format!("the read models differ at position {}:", verdict.position))?;
            print_line(&format!("  stored:  {stored}\n  rebuilt: {rebuilt}"))?;
            print_line(
                "rebuild them: `prodgy projections rebuild NAME`, or POST /api/projections/NAME/rebuild",
            )?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The position behind which the newest `count` events lie, or all where there are fewer. Positions
/// need not be dense: it looks back farther until there are enough.
async fn before_last(log: &dyn EventStore, count: usize) -> Result<Position, eventlog::Error> {
    let head = log.head().await?;
    let mut back = count as u64;
    loop {
        let after = Position(head.0.saturating_sub(back));
        let events = log.read_after(after, BATCH).await?;
        match events.len().checked_sub(count) {
            Some(0) => return Ok(after),
            Some(more) => return Ok(events[more - 1].position),
            None if after == Position::START => return Ok(after),
            None => back = back.saturating_mul(2),
        }
    }
}

async fn tail(config: &Config, after: Option<u64>, follow: bool) -> anyhow::Result<()> {
    let log = open_log(config, true).await?;
    let mut position = match after {
        Some(position) => Position(position),
        None => before_last(log.as_ref(), 10).await?,
    };
    loop {
        let events = log.read_after(position, BATCH).await?;
        for event in &events {
            print_line(&serde_json::to_string(event.as_ref())?)?;
            position = event.position;
        }
        if events.is_empty() {
            if !follow {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
