//! Sessions from outside: tokens of an OIDC issuer that the operator trusts.
//!
//! The rule of this file: a token is verified once and remembered until it runs out; whether its user may
//! still do anything is asked of the read models at every request, as for any other session.

mod known;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::http::header::USER_AGENT;
use axum::http::request::Parts;
use chrono::{DateTime, Utc};
use commands::jwt::{
    self, ASYMMETRIC, Download, Expected, Header, KeyLimits, KeySet, KeySource, TokenError,
    Verified,
};
use commands::{Actor, Ask, OutsideIdentity, Whom};
use domain::{Email, Name, Role, derived_id};
use reqwest::Url;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::app::App;
use crate::caller::metadata_of;
use crate::config::{KeysPlace, OidcSettings};
use crate::http::{ClientAddress, Problem, RequestContext};
use known::{KnownSession, KnownSessions};

/// How long keys are believed. They are read again each hour, so that one that the issuer takes back is
/// not good for long, and within a minute for one that is new.
const LIMITS: KeyLimits = KeyLimits {
    fresh_for: Duration::from_secs(3_600),
    kept_for: Duration::from_secs(5 * 24 * 3_600),
    reread_after: Duration::from_secs(60),
    retry_after: Duration::from_secs(10),
    time_limit: Duration::from_secs(5),
    size_limit: 1_024 * 1_024,
};

/// Kinds of tokens that are sessions. Another one (of a sign-out, bound to a key) is for something else.
const KINDS: [&str; 3] = ["jwt", "at+jwt", "application/at+jwt"];

/// The longest subject.
const LONGEST_SUBJECT: usize = 255;

/// An outside issuer whose tokens are sessions.
pub struct Oidc {
    expected: Expected,
    keys: KeySet,
    email_claim: String,
    subject_claim: String,
    provision: Option<Role>,
    known: KnownSessions,
}

/// What a session from outside was found to be.
#[derive(Clone, Copy, Debug)]
pub struct Outside {
    /// The user.
    pub user: Uuid,
    /// The session.
    pub session: Uuid,
}

/// What a request says of its client.
struct Client {
    context: RequestContext,
    address: Option<IpAddr>,
    user_agent: Option<String>,
}

impl Oidc {
    /// The issuer that the operator named, if there is one. Nothing is read yet.
    ///
    /// # Errors
    /// It is not said whom its tokens must be for, or the certificates of this machine cannot be read.
    pub fn new(settings: &OidcSettings) -> anyhow::Result<Option<Oidc>> {
        let OidcSettings { issuer, audiences, keys, email_claim, subject_claim, provision } =
            settings.clone();
        let Some(issuer) = issuer else {
            if !audiences.is_empty() || keys.is_some() || provision.is_some() {
                tracing::warn!(
                    "something of an outside issuer is configured, and no oidc_issuer: set it, or nobody signs in there"
                );
            }
            return Ok(None);
        };
        if audiences.is_empty() {
            bail!(
                "an oidc_issuer is configured, and no oidc_audience: set it, or tokens that are for others would be \
                 good here"
            );
        }
        let source = match keys {
            Some(KeysPlace::Address(url)) => KeySource::Address(url),
            Some(KeysPlace::File(path)) => KeySource::File(path),
            None => KeySource::Discovery { document: discovery(&issuer)?, issuer: issuer.clone() },
        };
        let download = Download::trusted().context(
            "the certificates of this machine cannot be read: install the package ca-certificates",
        )?;
        Ok(Some(Oidc {
            expected: Expected { issuers: vec![issuer], audiences, algorithms: ASYMMETRIC },
            keys: KeySet::new(source, LIMITS, download),
            email_claim,
            subject_claim,
            provision,
            known: KnownSessions::default(),
        }))
    }

    /// Reads the keys of the issuer, and says what came of it.
    pub async fn warm_up(&self) {
        let issuer = self.issuer();
        match self.keys.warm_up().await {
            Ok(keys) => tracing::info!(issuer, keys, "the outside issuer's tokens are sessions"),
            Err(why) => tracing::warn!(
                issuer,
                why,
                "the outside issuer cannot be asked for its keys: nobody can sign in there until it can"
            ),
        }
    }

    /// Whether a token says that it is from this issuer.
    pub fn is_named_by(&self, token: &str) -> bool {
        jwt::claimed_issuer(token).is_some_and(|issuer| issuer == self.issuer())
    }

    fn issuer(&self) -> &str {
        self.expected.issuers.first().map_or("", String::as_str)
    }

    async fn verify(&self, token: &str) -> Result<(OutsideIdentity, DateTime<Utc>), TokenError> {
        let wrong = |claim: &str| TokenError::Claim(claim.to_owned());
        let kind = Header::read(token)?.kind;
        if kind.is_some_and(|kind| !KINDS.contains(&kind.as_str())) {
            return Err(wrong("typ"));
        }
        let verified = jwt::verify(token, &self.expected, &self.keys).await?;
        // A token of a sign-out (OIDC Back-Channel Logout), and one that is only good together with a key
        // (RFC 7800), which the bearer has not shown.
        for claim in ["events", "cnf"] {
            if verified.claims.contains_key(claim) {
                return Err(wrong(claim));
            }
        }
        let identity = self.identity(&verified)?;
        let expires_at = DateTime::from_timestamp(verified.expires_at(), 0);
        Ok((identity, expires_at.ok_or_else(|| wrong("exp"))?))
    }

    fn identity(&self, verified: &Verified) -> Result<OutsideIdentity, TokenError> {
        let subject = verified.text(&self.subject_claim)?;
        if subject.len() > LONGEST_SUBJECT {
            return Err(TokenError::Claim(self.subject_claim.clone()));
        }
        let is_verified = match verified.claims.get(&format!("{}_verified", self.email_claim)) {
            Some(Value::Bool(is_verified)) => *is_verified,
            // Some issuers write it so.
            Some(Value::String(text)) => text == "true",
            _ => false,
        };
        let email = verified.text(&self.email_claim).ok().filter(|_| is_verified);
        Ok(OutsideIdentity {
            issuer: self.issuer().to_owned(),
            subject: subject.to_owned(),
            email: email.and_then(|email| Email::parse(email).ok()),
            name: verified.text("name").ok().and_then(|name| Name::parse(name).ok()),
        })
    }
}

fn discovery(issuer: &str) -> anyhow::Result<Url> {
    let document = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    Url::parse(&document).context("PRODGY_OIDC_ISSUER is no address")
}

/// The session that a token of the issuer is. The first time that it comes, its user is found, or made,
/// and the session is written.
///
/// # Errors
/// 401 for a token that is not good, or nobody's; 503 while it cannot be known.
pub async fn session_of(
    app: &App,
    oidc: &Oidc,
    token: &str,
    parts: &Parts,
) -> Result<Outside, Problem> {
    let digest: [u8; 32] = Sha256::digest(token).into();
    let now = Utc::now();
    if let Some(outside) = oidc.known.get(&digest, now) {
        return Ok(outside);
    }
    let (identity, expires_at) = oidc.verify(token).await.map_err(|why| refused(&why))?;
    let client = Client::of(parts)?;
    let user = user_of(app, oidc, &identity, &digest, &client).await?;
    let ask = client.ask(app, Actor::User(user), &digest, "session").await?;
    let started =
        app.commands.start_outside_session(user, &identity.issuer, &digest, expires_at, &ask).await;
    let (session, done) = started.map_err(nobodys)?;
    app.applied(&done).await?;
    let outside = Outside { user, session };
    oidc.known.keep(digest, KnownSession { outside, expires_at });
    Ok(outside)
}

/// The user of an identity, found, linked or made.
async fn user_of(
    app: &App,
    oidc: &Oidc,
    identity: &OutsideIdentity,
    digest: &[u8; 32],
    client: &Client,
) -> Result<Uuid, Problem> {
    let identify = || app.commands.identify(identity, oidc.provision.is_some());
    let (user, done) = match (identify().await.map_err(nobodys)?, oidc.provision) {
        (Whom::Known(user), _) => return Ok(user),
        (Whom::ByEmail { user, instead_of }, _) => {
            let ask = client.ask(app, Actor::User(user), digest, "link").await?;
            (user, app.commands.link_identity(user, instead_of, identity, &ask).await)
        }
        (Whom::New(user), Some(role)) => {
            let ask = client.ask(app, Actor::System("oidc"), digest, "make").await?;
            (user, app.commands.make_outside_user(user, identity, role, &ask).await)
        }
        (Whom::New(_), None) => return Err(Problem::bug("nobody is to be made")),
    };
    match done {
        Ok(done) => app.applied(&done).await.map(|_| user),
        // Another request of the same person may have been faster.
        Err(error) => match identify().await {
            Ok(Whom::Known(user)) => Ok(user),
            _ => Err(nobodys(error)),
        },
    }
}

impl Client {
    fn of(parts: &Parts) -> Result<Client, Problem> {
        let context = parts.extensions.get::<RequestContext>().cloned();
        let user_agent = parts.headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
        Ok(Client {
            context: context.ok_or_else(|| Problem::bug("the request has no context"))?,
            address: parts.extensions.get::<ClientAddress>().map(|address| address.0),
            user_agent: user_agent.map(crate::caller::cut),
        })
    }

    /// What a command carries that a token makes happen: once for each token.
    async fn ask(
        &self,
        app: &App,
        actor: Actor,
        digest: &[u8; 32],
        what: &str,
    ) -> Result<Ask, Problem> {
        let organization = app.organization;
        let client = (self.address, self.user_agent.as_deref());
        let metadata = metadata_of(app, &self.context, actor, organization, None, client).await?;
        Ok(Ask {
            metadata: Arc::new(metadata),
            command_id: derived_id(&[b"outside token", digest, what.as_bytes()]),
            repeatable: true,
            request_hash: None,
            if_match: None,
        })
    }
}

/// A token that is not good: its sender hears no more than that.
fn refused(why: &TokenError) -> Problem {
    let problem = match why {
        TokenError::KeysUnavailable => Problem::unavailable(
            "issuer_unavailable",
            "the issuer of this token cannot be asked for its keys now: try again in a moment",
            LIMITS.retry_after,
        ),
        _ => crate::caller::session_invalid(),
    };
    problem.recorded_as(why.code())
}

/// A good token that is no user's.
fn nobodys(error: commands::Error) -> Problem {
    match error {
        commands::Error::Refused { code, .. } => crate::caller::session_invalid().recorded_as(code),
        other => other.into(),
    }
}
