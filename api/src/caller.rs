//! Who calls: credentials, rights, and the circumstances that a command carries.
//!
//! The rule of this file: a handler gets a [`Caller`] and must ask it for a right before anything
//! else; what belongs to another tenant or product is not found.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, USER_AGENT};
use axum::http::request::Parts;
use chrono::Utc;
use commands::{Actor, Ask};
use domain::{Role, Scope, Timestamp, TokenPrefix};
use eventlog::Metadata;
use ipnet::IpNet;
use projections::api_token::ApiToken;
use projections::product::Product;
use projections::{api_token, product, session};
use rusqlite::Connection;
use uuid::Uuid;

use crate::access::Right;
use crate::app::App;
use crate::http::header::X_API_TOKEN;
use crate::http::{ClientAddress, Idempotency, IfMatch, Problem, RequestContext};
use crate::known_tokens::Known;

/// The longest user agent that is kept.
const USER_AGENT_LENGTH: usize = 512;

/// Who calls.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The tenant.
    pub organization: Uuid,
    /// What it was let in with.
    pub credential: Credential,
}

/// What a caller was let in with.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A user's session.
    Session {
        /// The user.
        user: Uuid,
        /// The session.
        session: Uuid,
        /// What the user may do now.
        role: Role,
    },
    /// An API token.
    Token {
        /// The token.
        token: Uuid,
        /// The product that it opens, as it was found when the token was looked at.
        product: Box<Product>,
        /// What it may do.
        scopes: Vec<Scope>,
    },
}

/// Who was seen to call, for those who record requests: filled in as soon as it is known, whether
/// the caller is let in or not.
#[derive(Clone, Debug, Default)]
pub struct Witness(Arc<OnceLock<Seen>>);

/// What a [`Witness`] saw.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Who.
    pub actor: Actor,
    /// The tenant.
    pub organization: Uuid,
    /// The product of an API token.
    pub product: Option<Uuid>,
    /// It was let in.
    pub is_let_in: bool,
}

impl Witness {
    fn saw(&self, seen: Seen) {
        // The first sight counts: a request has one credential.
        let _ = self.0.set(seen);
    }

    /// Who was seen, if anybody was.
    pub fn seen(&self) -> Option<Seen> {
        self.0.get().copied()
    }
}

impl Caller {
    /// Who acts.
    pub fn actor(&self) -> Actor {
        match &self.credential {
            Credential::Session { user, .. } => Actor::User(*user),
            Credential::Token { token, .. } => Actor::Token(*token),
        }
    }

    /// Lets the caller go on if it has the right.
    ///
    /// # Errors
    /// 403 otherwise.
    pub fn need(&self, right: Right) -> Result<(), Problem> {
        let rule = right.rule();
        match &self.credential {
            Credential::Session { role, .. } if *role >= rule.role => Ok(()),
            Credential::Session { .. } => Err(Problem::forbidden(
                "role_insufficient",
                format!("this takes the role {}: ask an admin of your organization", rule.role),
            )),
            Credential::Token { scopes, .. } => match rule.scope {
                Some(scope) if scopes.contains(&scope) => Ok(()),
                Some(scope) => Err(Problem::forbidden(
                    "scope_missing",
                    format!(
                        "this takes the scope {scope}: give it to the token, or use another token"
                    ),
                )),
                None => Err(Problem::forbidden(
                    "session_required",
                    "this takes a user session: sign in at /api/auth/login and send the access token",
                )),
            },
        }
    }

    /// The user and the session of the caller.
    ///
    /// # Errors
    /// 403 for an API token.
    pub fn session(&self) -> Result<(Uuid, Uuid, Role), Problem> {
        match &self.credential {
            Credential::Session { user, session, role } => Ok((*user, *session, *role)),
            Credential::Token { .. } => Err(Problem::forbidden(
                "session_required",
                "this takes a user session: sign in at /api/auth/login and send the access token",
            )),
        }
    }

    /// The product that an API token is bound to.
    pub fn bound_product(&self) -> Option<Uuid> {
        match &self.credential {
            Credential::Token { product, .. } => Some(product.id),
            Credential::Session { .. } => None,
        }
    }

    /// A product that the caller may see. Everything inside a product is reached through here.
    ///
    /// # Errors
    /// 404 when there is none of that id, or it is not the caller's.
    pub fn product(&self, app: &App, id: Uuid) -> Result<Product, Problem> {
        let found = match &self.credential {
            Credential::Token { product, .. } => {
                (product.id == id).then(|| product.as_ref().clone())
            }
            Credential::Session { .. } => app.read(|db| product::get(db, id))?,
        };
        found.filter(|product| product.organization == self.organization).ok_or_else(|| {
            Problem::not_found(
                "product_not_found",
                "there is no such product: list the products to see which there are",
            )
        })
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Caller, Problem> {
        let witness = parts.extensions.get::<Witness>().cloned().unwrap_or_default();
        match presented(&parts.headers)? {
            None => Err(Problem::unauthenticated(
                "credential_missing",
                "send an API token in X-API-Token, or an API token or access token as Authorization: Bearer",
            )),
            Some(Presented::Token(token)) => {
                let address = parts.extensions.get::<ClientAddress>().map(|address| address.0);
                by_token(app, token, address, &witness).await
            }
            Some(Presented::Jwt(jwt)) => by_jwt(app, jwt, &witness),
        }
    }
}

impl OptionalFromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Option<Caller>, Problem> {
        match presented(&parts.headers)? {
            None => Ok(None),
            Some(_) => {
                <Caller as FromRequestParts<App>>::from_request_parts(parts, app).await.map(Some)
            }
        }
    }
}

enum Presented<'a> {
    Token(&'a str),
    Jwt(&'a str),
}

fn presented(headers: &HeaderMap) -> Result<Option<Presented<'_>>, Problem> {
    let malformed = || {
        Problem::unauthenticated(
            "credential_malformed",
            "the credential cannot be read: send one of X-API-Token: prodgy_… or Authorization: Bearer …",
        )
    };
    if let Some(value) = headers.get(X_API_TOKEN) {
        let token = value.to_str().map_err(|_| malformed())?;
        return Ok(Some(Presented::Token(token.trim())));
    }
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let text = value.to_str().map_err(|_| malformed())?;
    let (scheme, credential) = text.split_once(' ').ok_or_else(malformed)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(malformed());
    }
    let credential = credential.trim();
    Ok(Some(if credential.starts_with(TokenPrefix::START) {
        Presented::Token(credential)
    } else {
        Presented::Jwt(credential)
    }))
}

async fn by_token(
    app: &App,
    secret: &str,
    address: Option<IpAddr>,
    witness: &Witness,
) -> Result<Caller, Problem> {
    let refused = |code, detail| Err(Problem::unauthenticated(code, detail));
    let hash = app.commands.token_hash(secret);
    let now = Utc::now();
    let now_text = projections::stored_time(now);
    let Some(known) = look_up(app, hash, &now_text)? else {
        return refused("token_invalid", "no API token is like this: check it, or make a new one");
    };
    let token = &known.token;
    let seen = |is_let_in| Seen {
        actor: Actor::Token(token.id),
        organization: token.organization,
        product: Some(token.product_id),
        is_let_in,
    };
    let product = match check_token(app, &known, &now_text, address).await {
        Ok(product) => Box::new(product),
        Err(problem) => {
            witness.saw(seen(false));
            return Err(problem);
        }
    };
    witness.saw(seen(true));
    let scopes = token.scopes.clone();
    let credential = Credential::Token { token: token.id, product, scopes };
    Ok(Caller { organization: token.organization, credential })
}

/// A token by the keyed hash of its secret, with its product.
fn look_up(app: &App, hash: String, now: &str) -> Result<Option<Arc<Known>>, Problem> {
    let position = app.views.position();
    if let Some(known) = app.known_tokens.get(position, &hash) {
        return Ok(Some(known));
    }
    let with_product = |db: &Connection, token: ApiToken| {
        let product = product::get(db, token.product_id)?;
        Ok(Arc::new(Known { token, product }))
    };
    let current = app.read(|db| {
        api_token::by_secret(db, &hash)?.map(|token| with_product(db, token)).transpose()
    })?;
    if let Some(known) = current {
        app.known_tokens.keep(position, hash, known.clone());
        return Ok(Some(known));
    }
    // A secret that was replaced is good for a time only, so it is looked up every time.
    app.read(|db| {
        let previous = api_token::by_previous_secret(db, &hash, now)?;
        previous.map(|token| with_product(db, token)).transpose()
    })
}

/// Lets a token in that is good, now and from there. Answers its product.
async fn check_token(
    app: &App,
    Known { token, product }: &Known,
    now: &str,
    address: Option<IpAddr>,
) -> Result<Product, Problem> {
    let refused = |code, detail| Err(Problem::unauthenticated(code, detail));
    let has_run_out = token.expires_at.as_deref().is_some_and(|expires_at| expires_at <= now);
    match token.status.as_str() {
        "revoked" => return refused("token_revoked", "this API token was revoked: make a new one"),
        "expired" => return refused("token_expired", "this API token has expired: renew it"),
        _ if has_run_out => {
            // Nobody had noticed yet: now it is in the log.
            let expires_at = token.expires_at.as_deref().unwrap_or_default();
            let expired = app.commands.expire_api_token(
                token.id,
                token.organization,
                token.product_id,
                expires_at,
            );
            if let Ok(done) = expired.await {
                app.applied(&done).await?;
            }
            return refused("token_expired", "this API token has expired: renew it");
        }
        "inactive" => {
            return refused("token_inactive", "this API token is switched off: switch it on again");
        }
        _ => {}
    }
    let Some(product) = product else {
        return refused(
            "product_deleted",
            "the product of this API token was deleted: use a token of another one",
        );
    };
    let networks: Vec<IpNet> =
        token.allowed_ips.iter().filter_map(|network| network.parse().ok()).collect();
    let is_from_there = |address: IpAddr| networks.iter().any(|network| network.contains(&address));
    if !networks.is_empty() && !address.is_some_and(is_from_there) {
        return Err(Problem::forbidden(
            "address_not_allowed",
            "this API token may not be used from this address: add it to the token's allowed_ips",
        ));
    }
    Ok(product.clone())
}

fn by_jwt(app: &App, jwt: &str, witness: &Witness) -> Result<Caller, Problem> {
    let refused = || {
        Problem::unauthenticated(
            "session_invalid",
            "the access token is not good (any more): refresh it, or sign in again",
        )
    };
    let claims = app.session_keys.verify(jwt).ok_or_else(refused)?;
    let seen = |is_let_in| Seen {
        actor: Actor::User(claims.sub),
        organization: claims.org,
        product: None,
        is_let_in,
    };
    let found = app.read(|db| session::active(db, claims.sid))?;
    let Some(active) =
        found.filter(|active| active.user == claims.sub && active.organization == claims.org)
    else {
        witness.saw(seen(false));
        return Err(refused());
    };
    witness.saw(seen(true));
    let credential =
        Credential::Session { user: active.user, session: claims.sid, role: active.role };
    Ok(Caller { organization: active.organization, credential })
}

/// The circumstances of a request that changes something.
#[derive(Clone, Debug)]
pub struct Circumstances {
    context: RequestContext,
    idempotency: Idempotency,
    if_match: IfMatch,
    address: Option<IpAddr>,
    user_agent: Option<String>,
}

impl FromRequestParts<App> for Circumstances {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Circumstances, Problem> {
        let address = parts.extensions.get::<ClientAddress>().map(|address| address.0);
        let agent = parts.headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
        let user_agent = agent.map(|agent| agent.chars().take(USER_AGENT_LENGTH).collect());
        let context = RequestContext::from_request_parts(parts, app).await?;
        Ok(Circumstances {
            context,
            idempotency: Idempotency::from_request_parts(parts, app).await?,
            if_match: IfMatch::from_request_parts(parts, app).await?,
            address,
            user_agent,
        })
    }
}

impl Circumstances {
    /// What a command of `caller` carries: in a product, for a request with this body.
    ///
    /// # Errors
    /// The vault fails.
    pub async fn ask(
        &self,
        app: &App,
        caller: &Caller,
        product: Option<Uuid>,
        body: &[&[u8]],
    ) -> Result<Ask, Problem> {
        self.ask_as(
            app,
            caller.actor(),
            caller.organization,
            product.or(caller.bound_product()),
            body,
        )
        .await
    }

    /// As [`Circumstances::ask`], for a caller without a credential.
    ///
    /// # Errors
    /// The vault fails.
    pub async fn ask_as(
        &self,
        app: &App,
        actor: Actor,
        organization: Uuid,
        product: Option<Uuid>,
        body: &[&[u8]],
    ) -> Result<Ask, Problem> {
        let (address, user_agent) = app
            .commands
            .seal_client(organization, actor, product, self.address, self.user_agent.as_deref())
            .await?;
        let is_repeatable = self.idempotency.key().is_some();
        Ok(Ask {
            metadata: Arc::new(Metadata {
                organization,
                product,
                actor: actor.to_string(),
                correlation: self.context.correlation,
                causation: None,
                request_id: Some(self.context.request_id.to_string()),
                traceparent: Some(self.context.traceparent.to_string()),
                address,
                user_agent,
            }),
            command_id: self.idempotency.command_id(organization, &actor.to_string()),
            repeatable: is_repeatable,
            request_hash: is_repeatable
                .then(|| app.commands.request_hash(&self.idempotency.digest(body))),
            if_match: self.if_match.sequences(),
        })
    }

    /// 412 unless the state that the client means is the one at `sequence`.
    ///
    /// # Errors
    /// As said.
    pub fn check(&self, sequence: u64) -> Result<(), Problem> {
        self.if_match.check(sequence)
    }
}

/// The present moment, as the domain counts it.
pub fn now() -> Timestamp {
    Timestamp::from(Utc::now())
}
