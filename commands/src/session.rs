//! Sessions: signing in, rotating refresh tokens, signing out, and the signatures of access tokens.
//!
//! The rule of this file: an access token is a JWT (RFC 7519) signed with Ed25519 (RFC 8037), good
//! for minutes; a refresh token is good once (RFC 9700, section 4.14), and a second use ends its family.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use domain::session::{EndReason, Session, SessionCommand, SessionError, SessionEvent};
use domain::user::User;
use domain::values::derived_id;
use domain::{Email, Timestamp};
use ed25519_dalek::pkcs8::DecodePrivateKey;
use ed25519_dalek::{SigningKey, VerifyingKey};
use eventlog::StreamId;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::execute::decode_event;
use crate::secrets::random_text;
use crate::{Ask, Commands, Done, Error};

/// Who issues access tokens.
const ISSUER: &str = "prodgy";
/// Whom they are for.
const AUDIENCE: &str = "prodgy-api";
/// How many seconds clocks may differ.
const LEEWAY: u64 = 5;

/// What an access token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who issued it.
    pub iss: String,
    /// Whom it is for.
    pub aud: String,
    /// The user.
    pub sub: Uuid,
    /// The session.
    pub sid: Uuid,
    /// The tenant.
    pub org: Uuid,
    /// When it was issued, in seconds.
    pub iat: i64,
    /// From when on it is good, in seconds.
    pub nbf: i64,
    /// Until when it is good, in seconds.
    pub exp: i64,
    /// Its own id.
    pub jti: Uuid,
}

/// One key that signs sessions.
pub struct SessionKey {
    id: String,
    encoding: EncodingKey,
    decoding: DecodingKey,
    public: String,
}

impl SessionKey {
    /// Reads a key from its PKCS#8 document.
    pub(crate) fn new(id: String, document: &[u8]) -> Result<SessionKey, Error> {
        let signing = SigningKey::from_pkcs8_der(document)
            .map_err(|error| Error::Crypto(format!("the signing key cannot be read: {error}")))?;
        let public = public_key_text(&signing.verifying_key());
        let decoding = DecodingKey::from_ed_components(&public)
            .map_err(|error| Error::Crypto(format!("the public key cannot be read: {error}")))?;
        Ok(SessionKey { id, encoding: EncodingKey::from_ed_der(document), decoding, public })
    }
}

/// The public half of a key as a JWK writes it.
pub(crate) fn public_key_text(key: &VerifyingKey) -> String {
    URL_SAFE_NO_PAD.encode(key.as_bytes())
}

/// The keys that sign sessions; the last one signs, all of them are believed.
pub struct SessionKeys {
    keys: Vec<SessionKey>,
}

impl SessionKeys {
    pub(crate) fn new(keys: Vec<SessionKey>) -> Result<SessionKeys, Error> {
        if keys.is_empty() {
            return Err(Error::Crypto("the instance has no key that signs sessions".into()));
        }
        Ok(SessionKeys { keys })
    }

    /// The public keys: the id of each, and the key as a JWK writes it (its member `x`).
    pub fn public_keys(&self) -> impl Iterator<Item = (&str, &str)> {
        self.keys.iter().map(|key| (key.id.as_str(), key.public.as_str()))
    }

    /// Signs an access token for a session.
    ///
    /// # Errors
    /// The signature fails.
    pub fn sign(&self, grant: &Grant, ttl: TimeDelta) -> Result<String, Error> {
        let key =
            self.keys.last().ok_or_else(|| Error::Crypto("there is no key to sign with".into()))?;
        let now = Utc::now().timestamp();
        let claims = Claims {
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            sub: grant.user,
            sid: grant.session,
            org: grant.organization,
            iat: now,
            nbf: now,
            exp: now + ttl.num_seconds(),
            jti: Uuid::now_v7(),
        };
        let header = Header { kid: Some(key.id.clone()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, &claims, &key.encoding)
            .map_err(|error| Error::Crypto(format!("the access token cannot be signed: {error}")))
    }

    /// What an access token says, if we signed it, it is for us, and it is its time.
    pub fn verify(&self, token: &str) -> Option<Claims> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        let key = self.keys.iter().find(|key| Some(&key.id) == header.kid.as_ref())?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY;
        Some(jsonwebtoken::decode::<Claims>(token, &key.decoding, &validation).ok()?.claims)
    }
}

/// A session that was started or went on.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The user.
    pub user: Uuid,
    /// The session.
    pub session: Uuid,
    /// The tenant.
    pub organization: Uuid,
    /// Good once, for the next access token.
    pub refresh_token: String,
    /// What it led to in the log.
    pub done: Done,
}

/// What came of a refresh token.
#[derive(Clone, Debug)]
pub enum Refreshed {
    /// The session goes on.
    Granted(Grant),
    /// The token had been used before: somebody has a copy, so the session was ended.
    Reused(Done),
}

impl Commands {
    /// The user whom an address and a password belong to.
    ///
    /// # Errors
    /// [`Error::BadCredentials`], which takes as long for an unknown address as for a wrong password.
    pub async fn authenticate(
        &self,
        email: &str,
        password: SecretString,
        organization: Uuid,
    ) -> Result<Uuid, Error> {
        let user = match Email::parse(email) {
            Ok(email) => self.user_by_email(&email).await?,
            Err(_) => None,
        };
        let hash = match user {
            Some(user) => self.password_hash_of(user, organization).await?,
            None => None,
        };
        let fits = self.secrets.password_fits(password, hash).await?;
        user.filter(|_| fits).ok_or(Error::BadCredentials { user })
    }

    /// Starts a session of a user who has proved to be that user.
    ///
    /// # Errors
    /// Log or vault fail.
    pub async fn start_session(
        &self,
        user: Uuid,
        ttl: TimeDelta,
        ask: &Ask,
    ) -> Result<Grant, Error> {
        let session = Uuid::now_v7();
        let refresh_token = new_refresh_token(session)?;
        let start = SessionCommand::Start {
            user,
            refresh_hash: self.secrets.refresh(&refresh_token),
            expires_at: Timestamp::from(Utc::now() + ttl),
        };
        let done = self.execute::<Session>(session, start, ask).await?;
        Ok(Grant { user, session, organization: ask.organization(), refresh_token, done })
    }

    /// Starts the session that a token of an outside issuer is, of the user whom it was found to be.
    /// `token` is its hash. The same token is the same session.
    ///
    /// # Errors
    /// The session has ended; log or vault fail.
    pub async fn start_outside_session(
        &self,
        user: Uuid,
        issuer: &str,
        token: &[u8; 32],
        expires_at: DateTime<Utc>,
        ask: &Ask,
    ) -> Result<(Uuid, Done), Error> {
        let session = derived_id(&[b"outside session", token]);
        let start = SessionCommand::StartOutside {
            user,
            issuer: issuer.to_owned(),
            expires_at: Timestamp::from(expires_at),
        };
        Ok((session, self.execute::<Session>(session, start, ask).await?))
    }

    /// The user whose session a refresh token says it is of. Whether the token is good is not looked
    /// at: that is for [`Commands::refresh`].
    ///
    /// # Errors
    /// There is no such session, or it is over, or its user is gone or has another password.
    pub async fn holder_of(&self, refresh_token: &str) -> Result<Uuid, Error> {
        let session = session_of(refresh_token)?;
        let user = match self.load::<Session>(&StreamId::new("session", session)).await?.0 {
            Session::Active { user, .. } => user,
            Session::Ended { .. } => return Err(Error::refused(&SessionError::Ended)),
            Session::Missing => return Err(Error::refused(&SessionError::TokenUnknown)),
        };
        match self.load::<User>(&StreamId::new("user", user)).await?.0 {
            User::Active { .. } if !self.is_outdated(session, user).await? => Ok(user),
            User::Active { .. } | User::Missing | User::Deleted | User::Erased => {
                Err(Error::refused(&SessionError::Ended))
            }
        }
    }

    /// The user whose session a refresh token names, good or not; none where it names no session.
    ///
    /// # Errors
    /// The log fails.
    pub async fn named_holder_of(&self, refresh_token: &str) -> Result<Option<Uuid>, Error> {
        let Ok(session) = session_of(refresh_token) else { return Ok(None) };
        Ok(match self.load::<Session>(&StreamId::new("session", session)).await?.0 {
            Session::Active { user, .. } | Session::Ended { user, .. } => Some(user),
            Session::Missing => None,
        })
    }

    /// Whether a session is from before its user's password was changed.
    async fn is_outdated(&self, session: Uuid, user: Uuid) -> Result<bool, Error> {
        let changed = self.password_changed_at(user).await?;
        let started = self.log.read_stream(&StreamId::new("session", session), 0, 1).await?;
        Ok(started.first().is_some_and(|started| Some(started.position) < changed))
    }

    /// Trades a refresh token for the next one. One that was used before ends its family.
    ///
    /// # Errors
    /// The token is not the family's last, or the family has ended.
    pub async fn refresh(
        &self,
        token: &str,
        ttl: TimeDelta,
        ask: &Ask,
    ) -> Result<Refreshed, Error> {
        let session = session_of(token)?;
        let user = self.holder_of(token).await?;
        let refresh_token = new_refresh_token(session)?;
        let now = Utc::now();
        let command = SessionCommand::Refresh {
            presented_hash: self.secrets.refresh(token),
            new_hash: self.secrets.refresh(&refresh_token),
            now: Timestamp::from(now),
            expires_at: Timestamp::from(now + ttl),
        };
        let done = self.execute::<Session>(session, command, ask).await?;
        for event in &done.events {
            if let SessionEvent::Ended { .. } = decode_event::<SessionEvent>(event)? {
                return Ok(Refreshed::Reused(done));
            }
        }
        let organization = ask.organization();
        Ok(Refreshed::Granted(Grant { user, session, organization, refresh_token, done }))
    }

    /// Ends a session.
    ///
    /// # Errors
    /// There is none of that id.
    pub async fn sign_out(&self, session: Uuid, ask: &Ask) -> Result<Done, Error> {
        self.execute::<Session>(session, SessionCommand::End { reason: EndReason::Logout }, ask)
            .await
    }
}

/// A refresh token names its session, so that it is found without a read model.
fn new_refresh_token(session: Uuid) -> Result<String, Error> {
    Ok(format!("{session}.{}", random_text()?))
}

fn session_of(refresh_token: &str) -> Result<Uuid, Error> {
    refresh_token
        .split_once('.')
        .and_then(|(session, _)| session.parse().ok())
        .ok_or_else(|| Error::refused(&SessionError::TokenUnknown))
}
