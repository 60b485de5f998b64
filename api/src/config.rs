//! The configuration of every command: defaults, then a TOML file, then the environment, then the
//! command line; the later word counts.
//!
//! The one rule: a setting is one row of [`table::SETTINGS`], from which come its flag, its
//! variable, its key in the file, its default and its line in `docs/configuration.md`; and it is
//! read in one place, `Config::resolve`.
//!
//! Faults name the place that the value came from and never the value: some hold secrets.

pub mod arguments;
pub mod sources;
pub mod table;

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use axum::http::HeaderValue;
use clap::ValueEnum;
use domain::Role;
use embeddings::ExtractLimits;
use ipnet::IpNet;
use reqwest::Url;
use secrecy::SecretString;
use tracing_subscriber::EnvFilter;
use vault::S3Address;

use crate::http::client::{ForwardedHeader, TrustedProxies};
use crate::logs::LogFormat;
use arguments::Arguments;
use sources::Sources;

/// What a command needs to know to do its work.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything is kept that is not kept elsewhere.
    pub data_dir: PathBuf,
    /// Where the log is kept.
    pub event_store: EventStoreAddress,
    /// Where blobs, artifacts and data keys are kept; `None` is the vault's place in the data
    /// directory.
    pub blobs: Option<BlobsAddress>,
    /// What seals all data keys; `None` is the key file in the data directory.
    pub master_key: Option<SecretString>,
    /// Where the embedding models are looked for first.
    pub model_dir: Vec<PathBuf>,
    /// Threads that embed; `None` is one for each core.
    pub embedding_workers: Option<NonZeroUsize>,
    /// What reading the text of one file may take.
    pub extraction: ExtractLimits,
    /// The address to listen on.
    pub listen: SocketAddr,
    /// How clients reach this server, without a slash at the end.
    pub public_url: Option<String>,
    /// The first owner's address.
    pub admin_email: Option<String>,
    /// The first owner's password; `None` makes one and prints it once.
    pub admin_password: Option<SecretString>,
    /// Origins whose pages may call the API.
    pub cors_origins: Vec<HeaderValue>,
    /// Whose word about a client's address is believed.
    pub trusted_proxies: TrustedProxies,
    /// Requests a second for each credential, or address without one; 0 is no limit.
    pub rate_limit_per_second: u32,
    /// Deliveries a second for each address at each webhook and communicator; 0 is no limit.
    pub webhook_limit_per_second: u32,
    /// Sign-ins and refreshes a minute for each address; 0 is no limit.
    pub sign_in_limit_per_minute: u32,
    /// The longest body of an ordinary request.
    pub body_limit_bytes: usize,
    /// The longest body of an upload.
    pub upload_limit_bytes: usize,
    /// The longest that an ordinary request may take.
    pub request_timeout: Duration,
    /// The longest that requests under way may hold up the end.
    pub shutdown_timeout: Duration,
    /// How long an access token is good.
    pub access_token_ttl: Duration,
    /// How long a refresh token is good.
    pub refresh_token_ttl: Duration,
    /// Executions that run at once.
    pub agent_workers: usize,
    /// Executions of one product that run at once; `None` is half of them.
    pub agent_workers_per_product: Option<usize>,
    /// The outside issuer whose tokens are sessions too.
    pub oidc: OidcSettings,
    /// Networks that agents may reach although they are not public.
    pub http_allow: Vec<IpNet>,
    /// The base address of the chat model; `None` is to do without.
    pub llm_url: Option<Url>,
    /// The model that is asked where a step names none.
    pub llm_model: Option<String>,
    /// What lets in at the chat model.
    pub llm_api_key: Option<SecretString>,
    /// The longest that a chat model may send nothing.
    pub llm_idle_timeout: Duration,
    /// How a log line looks.
    pub log_format: LogFormat,
    /// Which lines are logged; checked when it was read.
    log: String,
}

/// Where a log is kept, as `eventlog::open` reads it. It may hold a password.
#[derive(Clone, PartialEq, Eq)]
pub struct EventStoreAddress(String);

impl EventStoreAddress {
    /// The address itself, not to be shown.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for EventStoreAddress {
    /// A path is shown, and of anything else only what kind of store it is.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (kind, rest) = self.0.split_once(':').unwrap_or_default();
        let shown = if kind == "sqlite" { rest } else { "…" };
        write!(formatter, "{kind}:{shown}")
    }
}

/// Where blobs, artifacts and data keys are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobsAddress {
    /// A folder of this machine.
    Folder(PathBuf),
    /// A bucket of S3, or of what speaks as it does. What else it needs is in the environment.
    S3(S3Address),
}

/// An outside issuer whose tokens are sessions too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OidcSettings {
    /// The issuer, as its tokens name it; `None` is to do without.
    pub issuer: Option<String>,
    /// Whom its tokens must be for: one of these.
    pub audiences: Vec<String>,
    /// Where its keys are; `None` is where its discovery document says.
    pub keys: Option<KeysPlace>,
    /// The claim that holds the e-mail address.
    pub email_claim: String,
    /// The claim that says who it is.
    pub subject_claim: String,
    /// What a user may do who is made at the first sign-in; `None` is to make none.
    pub provision: Option<Role>,
}

/// Where the keys of an issuer are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysPlace {
    /// At an address.
    Address(Url),
    /// In a file.
    File(PathBuf),
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value that is none for its setting.
    #[error("{place}: {reason}")]
    Invalid {
        /// Where the value came from.
        place: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A key that is no setting.
    #[error("`{key}` in {}: there is no such setting; those that there are: {known}", path.display())]
    UnknownKey {
        /// The key.
        key: String,
        /// The file it is in.
        path: PathBuf,
        /// All keys.
        known: String,
    },
    /// The file cannot be read.
    #[error("cannot read the configuration file {}; check the path given by --config", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{}, line {line}: this is not TOML: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

impl Config {
    /// Reads the file and the environment of this process, under the arguments it was given.
    pub fn load(arguments: &Arguments) -> Result<Config, ConfigError> {
        Self::resolve(arguments, |name| std::env::var_os(name))
    }

    /// Which lines are logged.
    pub fn log_filter(&self) -> EnvFilter {
        EnvFilter::new(&self.log)
    }

    fn resolve(
        arguments: &Arguments,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Config, ConfigError> {
        let from = Sources::gather(arguments, environment)?;
        let data_dir: PathBuf = from.required("data-dir", path)?;
        let networks = from.list("trusted-proxies", network)?;
        let header = from.required("forwarded-header", choice::<ForwardedHeader>)?;
        Ok(Config {
            event_store: from
                .optional("event-store", event_store)?
                .unwrap_or_else(|| in_data_dir(&data_dir)),
            blobs: from.optional("blobs", blobs)?,
            master_key: from.secret("master-key"),
            model_dir: from.list("model-dir", path)?,
            embedding_workers: from.optional("embedding-workers", parsed("a number from 1"))?,
            extraction: ExtractLimits {
                time: from.required("extraction-seconds", seconds(1..=86_400))?,
                memory_bytes: from
                    .required("extraction-memory-bytes", number(16_777_216..=1 << 40))?,
                output_bytes: from.required("extraction-output-bytes", number(1_024..=1 << 32))?,
            },
            listen: from.required(
                "listen",
                parsed("an address and a port, as 127.0.0.1:8080 or [::1]:8080"),
            )?,
            public_url: from.optional("public-url", public_url)?,
            admin_email: from.optional("admin-email", email)?,
            admin_password: from.secret("admin-password"),
            cors_origins: from.list("cors-origins", origin)?,
            trusted_proxies: TrustedProxies::new(networks, header),
            rate_limit_per_second: from.required("rate-limit-per-second", number(0..=1_000_000))?,
            webhook_limit_per_second: from
                .required("webhook-limit-per-second", number(0..=1_000_000))?,
            sign_in_limit_per_minute: from
                .required("sign-in-limit-per-minute", number(0..=1_000_000))?,
            body_limit_bytes: from.required("body-limit-bytes", number(1_024..=1 << 30))?,
            upload_limit_bytes: from.required("upload-limit-bytes", number(1_024..=1 << 40))?,
            request_timeout: from.required("request-timeout-seconds", seconds(1..=3_600))?,
            shutdown_timeout: from.required("shutdown-timeout-seconds", seconds(0..=3_600))?,
            access_token_ttl: from.required("access-token-seconds", seconds(1..=86_400))?,
            refresh_token_ttl: from.required("refresh-token-seconds", seconds(1..=31_536_000))?,
            agent_workers: from.required("agent-workers", number(1..=10_000))?,
            agent_workers_per_product: from
                .optional("agent-workers-per-product", number(1..=10_000))?,
            oidc: OidcSettings {
                issuer: from.optional("oidc-issuer", issuer)?,
                audiences: from.list("oidc-audience", word)?,
                keys: from.optional("oidc-jwks", keys_place)?,
                email_claim: from.required("oidc-email-claim", word)?,
                subject_claim: from.required("oidc-subject-claim", word)?,
                provision: from.optional("oidc-provision", provision)?,
            },
            http_allow: from.list("http-allow", network)?,
            llm_url: from.optional("llm-url", llm_url)?,
            llm_model: from.optional("llm-model", llm_model)?,
            llm_api_key: from.secret("llm-api-key"),
            llm_idle_timeout: from.required("llm-idle-timeout-seconds", seconds(1..=3_600))?,
            log_format: from.required("log-format", choice::<LogFormat>)?,
            log: from.required("log", log_filter)?,
            data_dir,
        })
    }
}

// Each of the functions below reads one kind of value; what it says of a bad one ends the sentence
// that begins with the value's place.

fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("a path is missing".to_owned()) } else { Ok(text.into()) }
}

fn parsed<T: FromStr>(expected: &'static str) -> impl Fn(&str) -> Result<T, String> {
    move |text| text.parse().map_err(|_| format!("must be {expected}"))
}

fn number<T: FromStr + TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<T, String> {
    move |text| {
        let number = text.parse::<u64>().ok().filter(|number| range.contains(number));
        number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| {
            format!("must be a whole number from {} to {}", range.start(), range.end())
        })
    }
}

fn seconds(range: RangeInclusive<u64>) -> impl Fn(&str) -> Result<Duration, String> {
    let number = number::<u64>(range);
    move |text| number(text).map(Duration::from_secs)
}

fn choice<T: ValueEnum>(text: &str) -> Result<T, String> {
    T::from_str(text, false).map_err(|_| {
        let values = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let names: Vec<String> = values.map(|value| value.get_name().to_owned()).collect();
        format!("must be one of {}", names.join(", "))
    })
}

fn event_store(text: &str) -> Result<EventStoreAddress, String> {
    eventlog::check_address(text).map_err(|error| error.to_string())?;
    Ok(EventStoreAddress(text.to_owned()))
}

fn in_data_dir(data_dir: &Path) -> EventStoreAddress {
    EventStoreAddress(format!("sqlite:{}", data_dir.join("events.db").display()))
}

fn blobs(text: &str) -> Result<BlobsAddress, String> {
    if text.starts_with("s3:") {
        return text.parse().map(BlobsAddress::S3).map_err(|error: vault::Error| error.to_string());
    }
    let folder = text.strip_prefix("file://").map(Path::new);
    let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.map(|folder| BlobsAddress::Folder(folder.to_owned()));
    folder.ok_or_else(|| "must be file://DIR or s3://BUCKET/PREFIX".to_owned())
}

fn public_url(text: &str) -> Result<String, String> {
    let url = Url::parse(text).ok().filter(|url| {
        let is_web = matches!(url.scheme(), "http" | "https");
        is_web && url.query().is_none() && url.fragment().is_none() && url.password().is_none()
    });
    let url = url.ok_or("must be a web address, as https://prodgy.example.org")?;
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn llm_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok().filter(|url| {
        let is_web = matches!(url.scheme(), "http" | "https");
        is_web && url.fragment().is_none() && url.username().is_empty() && url.password().is_none()
    });
    url.ok_or_else(|| {
        "must be a web address without a user name, as https://api.openai.com/v1; the key is PRODGY_LLM_API_KEY"
            .to_owned()
    })
}

/// A web address that is safe: another one only on this very machine.
fn safe_url(text: &str) -> Option<Url> {
    Url::parse(text).ok().filter(|url| {
        let is_here = match url.host_str() {
            Some("localhost") => true,
            Some(host) => {
                let host = host.trim_start_matches('[').trim_end_matches(']');
                host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
            }
            None => false,
        };
        let is_safe = url.scheme() == "https" || (url.scheme() == "http" && is_here);
        is_safe && url.fragment().is_none() && url.username().is_empty() && url.password().is_none()
    })
}

fn issuer(text: &str) -> Result<String, String> {
    // As it stands: issuers are compared letter by letter, a slash at the end too.
    match safe_url(text) {
        Some(url) if url.query().is_none() => Ok(text.to_owned()),
        _ => Err("must be the issuer as its tokens name it, as https://login.example.org; http:// only on this machine"
            .to_owned()),
    }
}

fn keys_place(text: &str) -> Result<KeysPlace, String> {
    if !text.contains("://") {
        return path(text).map(KeysPlace::File);
    }
    safe_url(text).map(KeysPlace::Address).ok_or_else(|| {
        "must be a file, or an address as https://login.example.org/keys; http:// only on this machine"
            .to_owned()
    })
}

fn word(text: &str) -> Result<String, String> {
    let word = text.trim();
    if word.is_empty() { Err("a name is missing".to_owned()) } else { Ok(word.to_owned()) }
}

fn provision(text: &str) -> Result<Role, String> {
    let role = text.parse().ok().filter(|role| *role != Role::Owner);
    role.ok_or_else(|| "must be viewer, member or admin; only owners make owners".to_owned())
}

fn llm_model(text: &str) -> Result<String, String> {
    let name = text.trim();
    if name.is_empty() { Err("a name is missing".to_owned()) } else { Ok(name.to_owned()) }
}

fn email(text: &str) -> Result<String, String> {
    let (name, domain) = text.rsplit_once('@').unwrap_or_default();
    if name.is_empty() || domain.is_empty() {
        return Err("must be an e-mail address, as ada@example.org".to_owned());
    }
    Ok(text.to_owned())
}

fn origin(text: &str) -> Result<HeaderValue, String> {
    let is_origin = Url::parse(text).is_ok_and(|url| url.origin().ascii_serialization() == text);
    if text == "*" || is_origin {
        return HeaderValue::try_from(text).map_err(|error| error.to_string());
    }
    Err("must be * or origins without a path, as https://app.example.org".to_owned())
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse()
        .ok()
        .or_else(address)
        .ok_or_else(|| "must be addresses or networks, as 10.0.0.0/8, 192.0.2.7".to_owned())
}

fn log_filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| {
        format!("must be a level or directives, as info or warn,api=debug: {error}")
    })
}

#[cfg(test)]
mod tests;
