//! The public keys of an outside issuer: where they are read, and how long they are believed.
//!
//! The rule of this file: keys are read when they are needed, by one at a time, and not again at once:
//! neither an issuer that is down nor tokens that name keys of their own make us ask it over and over.
//! The last good keys stay good for a while when it cannot be asked.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::io::AsyncReadExt;
use url::{Host, Url};

use super::{Header, TokenError};
use crate::tools::address::AddressPolicy;

/// The most keys of one issuer.
const MOST: usize = 200;

/// Where the keys of an issuer are.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// In a file.
    File(PathBuf),
    /// At this address: a key set (RFC 7517), or a map of X.509 certificates by key id.
    Address(Url),
    /// Where the discovery document at this address says (OpenID Connect Discovery 1.0). It must be this
    /// issuer's.
    Discovery {
        /// The document.
        document: Url,
        /// The issuer.
        issuer: String,
    },
}

/// How long keys are believed, and how often they are read.
#[derive(Clone, Copy, Debug)]
pub struct KeyLimits {
    /// After this time they are read again.
    pub fresh_for: Duration,
    /// So long they are believed when they cannot be read again.
    pub kept_for: Duration,
    /// For a key that is not known they are read again at most once in this time.
    pub reread_after: Duration,
    /// After a failure they are not read for this time.
    pub retry_after: Duration,
    /// How long reading may take.
    pub time_limit: Duration,
    /// The longest document, in bytes.
    pub size_limit: usize,
}

impl Default for KeyLimits {
    /// What the Bot Framework asks for, and no other issuer minds: read once a day, kept for five at most,
    /// and read for an unknown key at most once an hour.
    fn default() -> KeyLimits {
        KeyLimits {
            fresh_for: Duration::from_secs(24 * 3_600),
            kept_for: Duration::from_secs(5 * 24 * 3_600),
            reread_after: Duration::from_secs(3_600),
            retry_after: Duration::from_secs(15),
            time_limit: Duration::from_secs(5),
            size_limit: 1_024 * 1_024,
        }
    }
}

/// A public key of an issuer.
#[derive(Clone, Debug)]
pub struct PublicKey {
    /// Its name.
    pub id: Option<String>,
    /// The channels that it speaks for (Bot Framework).
    pub endorsements: Vec<String>,
    /// The one algorithm that it is for, if it says so.
    algorithm: Option<Algorithm>,
    pub(super) key: DecodingKey,
}

/// How documents are fetched.
#[derive(Clone, Debug)]
pub struct Download {
    client: reqwest::Client,
    /// Which addresses may be asked; all, where the operator of the server named them.
    policy: Option<AddressPolicy>,
}

impl Download {
    /// For addresses that the operator of this server named: they may be in its own network.
    ///
    /// # Errors
    /// The certificates of this machine cannot be read.
    pub fn trusted() -> reqwest::Result<Download> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .user_agent(concat!("prodgy/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(5))
            .build()?;
        Ok(Download { client, policy: None })
    }

    /// By a client that judges addresses, for those that a user named.
    pub fn judged(client: reqwest::Client, policy: AddressPolicy) -> Download {
        Download { client, policy: Some(policy) }
    }

    async fn get(&self, url: &Url, size_limit: usize) -> Result<Vec<u8>, String> {
        let literal = match url.host() {
            Some(Host::Ipv4(address)) => Some(address.into()),
            Some(Host::Ipv6(address)) => Some(address.into()),
            Some(Host::Domain(_)) | None => None,
        };
        if let (Some(address), Some(policy)) = (literal, &self.policy)
            && !policy.permits(address)
        {
            return Err(format!("{url} is not on the public Internet"));
        }
        let answer = self.client.get(url.clone()).header("accept", "application/json").send().await;
        let mut answer = answer.map_err(|error| {
            format!("{url} cannot be reached ({})", crate::tools::root_cause(&error))
        })?;
        if answer.status() != reqwest::StatusCode::OK {
            return Err(format!("{url} answers {}", answer.status()));
        }
        let mut bytes = Vec::new();
        loop {
            match answer.chunk().await {
                Ok(Some(chunk)) if bytes.len() + chunk.len() <= size_limit => bytes.extend(chunk),
                Ok(Some(_)) => return Err(format!("{url} answers more than {size_limit} bytes")),
                Ok(None) => return Ok(bytes),
                Err(_) => return Err(format!("the answer of {url} broke off")),
            }
        }
    }
}

/// The keys of one issuer. Cheap to clone.
#[derive(Clone)]
pub struct KeySet(Arc<Parts>);

struct Parts {
    source: KeySource,
    limits: KeyLimits,
    download: Download,
    known: Mutex<Known>,
    /// Held while keys are read.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    keys: Vec<Arc<PublicKey>>,
    read_at: Option<Instant>,
    /// When they were last read for a key that was not known.
    reread_at: Option<Instant>,
    failed_at: Option<Instant>,
}

/// What is known of a key.
struct Look {
    key: Option<Arc<PublicKey>>,
    /// The keys should be read (again) before it is said that there is none, or soon.
    is_due: bool,
}

impl KeySet {
    /// The keys of an issuer; nothing is read yet.
    pub fn new(source: KeySource, limits: KeyLimits, download: Download) -> KeySet {
        let (known, turn) = Default::default();
        KeySet(Arc::new(Parts { source, limits, download, known, turn }))
    }

    /// Reads the keys if they were not read yet.
    ///
    /// # Errors
    /// Why they cannot be read.
    pub async fn warm_up(&self) -> Result<usize, String> {
        let _turn = self.0.turn.lock().await;
        let is_read = self.0.known.lock().read_at.is_some();
        if !is_read {
            self.read(false, Instant::now()).await?;
        }
        Ok(self.0.known.lock().keys.len())
    }

    /// The key that a token names.
    pub(super) async fn find(&self, header: &Header) -> Result<Arc<PublicKey>, TokenError> {
        self.find_at(header, Instant::now()).await
    }

    async fn find_at(&self, header: &Header, now: Instant) -> Result<Arc<PublicKey>, TokenError> {
        match self.look(header, now) {
            Look { key: Some(key), is_due: false } => return Ok(key),
            Look { key: Some(key), is_due: true } => {
                // It is good enough until a newer one is there.
                let this = self.clone();
                tokio::spawn(async move {
                    if let Ok(_turn) = this.0.turn.try_lock() {
                        let _ = this.read(false, now).await;
                    }
                });
                return Ok(key);
            }
            Look { key: None, is_due: false } => return Err(self.missing()),
            Look { key: None, is_due: true } => {}
        }
        let _turn = self.0.turn.lock().await;
        // Somebody may have read them while this one waited for its turn.
        let look = self.look(header, now);
        if let (None, true) = (&look.key, look.is_due) {
            let is_reread = self.0.known.lock().read_at.is_some();
            let _ = self.read(is_reread, now).await;
            return self.look(header, now).key.ok_or_else(|| self.missing());
        }
        look.key.ok_or_else(|| self.missing())
    }

    fn look(&self, header: &Header, now: Instant) -> Look {
        let known = self.0.known.lock();
        let limits = &self.0.limits;
        let is_within = |since: Option<Instant>, limit: Duration| {
            since.is_some_and(|since| now.saturating_duration_since(since) < limit)
        };
        let key = is_within(known.read_at, limits.kept_for).then(|| pick(&known.keys, header));
        let key = key.flatten();
        let is_fresh = is_within(known.read_at, limits.fresh_for);
        let may_ask = !is_within(known.failed_at, limits.retry_after);
        let may_reread = !is_within(known.reread_at, limits.reread_after);
        let is_due = may_ask && (!is_fresh || (key.is_none() && may_reread));
        Look { key, is_due }
    }

    /// Why a key was not found.
    fn missing(&self) -> TokenError {
        let known = self.0.known.lock();
        match (known.read_at, known.failed_at) {
            (Some(_), None) => TokenError::KeyUnknown,
            _ => TokenError::KeysUnavailable,
        }
    }

    async fn read(&self, is_reread: bool, now: Instant) -> Result<(), String> {
        let limit = self.0.limits.time_limit;
        let read = tokio::time::timeout(limit, self.fetch()).await;
        let read =
            read.unwrap_or_else(|_| Err(format!("no answer within {} s", limit.as_secs_f64())));
        let mut known = self.0.known.lock();
        match read {
            Ok(keys) => {
                if known.failed_at.take().is_some() {
                    tracing::info!(source = %self.0.source, "the keys of an issuer can be read again");
                }
                known.keys = keys;
                known.read_at = Some(now);
                if is_reread {
                    known.reread_at = Some(now);
                }
                Ok(())
            }
            Err(why) => {
                known.failed_at = Some(now);
                tracing::warn!(source = %self.0.source, why, "the keys of an issuer cannot be read");
                Err(why)
            }
        }
    }

    async fn fetch(&self) -> Result<Vec<Arc<PublicKey>>, String> {
        let limit = self.0.limits.size_limit;
        let document = match &self.0.source {
            KeySource::File(path) => read_file(path, limit).await?,
            KeySource::Address(url) => self.0.download.get(url, limit).await?,
            KeySource::Discovery { document, issuer } => {
                let discovered = self.0.download.get(document, limit).await?;
                let url = discover(&discovered, document, issuer)?;
                self.0.download.get(&url, limit).await?
            }
        };
        let keys = parse(&document)?;
        if keys.is_empty() {
            return Err("there is no key in it that can verify a signature".to_owned());
        }
        Ok(keys)
    }
}

impl std::fmt::Display for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KeySource::File(path) => write!(f, "{}", path.display()),
            KeySource::Address(url) | KeySource::Discovery { document: url, .. } => {
                write!(f, "{url}")
            }
        }
    }
}

async fn read_file(path: &PathBuf, limit: usize) -> Result<Vec<u8>, String> {
    let wrong = |error: std::io::Error| format!("{} cannot be read: {error}", path.display());
    let file = tokio::fs::File::open(path).await.map_err(wrong)?;
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes).await.map_err(wrong)?;
    if bytes.len() > limit {
        return Err(format!("{} is longer than {limit} bytes", path.display()));
    }
    Ok(bytes)
}

/// Where a discovery document says that the keys are.
fn discover(document: &[u8], from: &Url, issuer: &str) -> Result<Url, String> {
    #[derive(Deserialize)]
    struct Discovered {
        issuer: String,
        jwks_uri: String,
    }

    let found: Discovered = serde_json::from_slice(document)
        .map_err(|_| format!("{from} holds no issuer and no jwks_uri"))?;
    if found.issuer != issuer {
        return Err(format!("{from} is of the issuer {:?}, and not of {issuer:?}", found.issuer));
    }
    let url = Url::parse(&found.jwks_uri).ok().filter(|url| {
        // What came by a safe way must not lead to an unsafe one.
        url.scheme() == "https" || (url.scheme() == "http" && from.scheme() == "http")
    });
    url.ok_or_else(|| format!("the jwks_uri of {from} is no address that can be trusted"))
}

/// The keys of a key set (RFC 7517), or of a map of X.509 certificates in PEM by key id. What cannot verify
/// a signature is left out.
fn parse(document: &[u8]) -> Result<Vec<Arc<PublicKey>>, String> {
    let members: Map<String, Value> =
        serde_json::from_slice(document).map_err(|_| "it is no JSON object".to_owned())?;
    let keys: Vec<PublicKey> = match members.get("keys") {
        Some(Value::Array(keys)) => keys.iter().take(MOST).filter_map(of_jwk).collect(),
        Some(_) => return Err("its `keys` is no list".to_owned()),
        None => members.into_iter().take(MOST).filter_map(of_certificate).collect(),
    };
    Ok(keys.into_iter().map(Arc::new).collect())
}

fn of_jwk(jwk: &Value) -> Option<PublicKey> {
    #[derive(Deserialize)]
    struct Said {
        #[serde(rename = "use")]
        purpose: Option<String>,
        key_ops: Option<Vec<String>>,
        alg: Option<String>,
        kid: Option<String>,
        #[serde(default)]
        endorsements: Vec<String>,
    }

    let said = Said::deserialize(jwk).ok()?;
    let is_for_signatures = said.purpose.is_none_or(|purpose| purpose == "sig")
        && said.key_ops.is_none_or(|operations| operations.iter().any(|it| it == "verify"));
    if !is_for_signatures {
        return None;
    }
    let algorithm = match said.alg {
        Some(name) => Some(Algorithm::from_str(&name).ok()?),
        None => None,
    };
    let key = DecodingKey::from_jwk(&Jwk::deserialize(jwk).ok()?).ok()?;
    // A shared secret in a set of public keys is none.
    let is_public = key.family() != AlgorithmFamily::Hmac;
    is_public.then_some(PublicKey { id: said.kid, endorsements: said.endorsements, algorithm, key })
}

fn of_certificate((id, certificate): (String, Value)) -> Option<PublicKey> {
    // The map is what is believed: that a certificate is in it, and not what it says of itself.
    let key = DecodingKey::from_rsa_pem(certificate.as_str()?.as_bytes()).ok()?;
    Some(PublicKey { id: Some(id), endorsements: Vec::new(), algorithm: None, key })
}

/// The key that a token names, among those that can have signed it. A token that names none is taken where
/// there is one such key.
fn pick(keys: &[Arc<PublicKey>], header: &Header) -> Option<Arc<PublicKey>> {
    let fits = |key: &&Arc<PublicKey>| {
        key.key.family() == header.algorithm.family()
            && key.algorithm.is_none_or(|algorithm| algorithm == header.algorithm)
    };
    let mut fitting = keys.iter().filter(fits);
    match &header.key_id {
        Some(id) => fitting.find(|key| key.id.as_ref() == Some(id)).cloned(),
        None => match (fitting.next(), fitting.next()) {
            (Some(only), None) => Some(only.clone()),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests;
