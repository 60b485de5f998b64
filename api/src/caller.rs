//! Who calls: credentials, rights, and the circumstances that a command carries.
//!
//! The rule of this file: a handler gets a [`Caller`] that the gate has let in, with the right that the
//! route asks for; what belongs to another tenant or product is not found.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, USER_AGENT};
use axum::http::request::Parts;
use chrono::{TimeDelta, Utc};
use commands::jwt::SKEW;
use commands::{Actor, Ask};
use domain::{Role, Scope, Timestamp, TokenPrefix};
use eventlog::Metadata;
use ipnet::IpNet;
use projections::api_token::ApiToken;
use projections::product::Product;
use projections::{api_token, product, session};
use rusqlite::Connection;
use uuid::Uuid;

use crate::access::Access;
use crate::app::App;
use crate::http::header::X_API_TOKEN;
use crate::http::{ClientAddress, Idempotency, IfMatch, Problem, RequestContext};
use crate::known_tokens::Known;
use crate::oidc;

/// The longest user agent that is kept.
const USER_AGENT_LENGTH: usize = 512;

/// How often at most it is looked whether a caller may go on.
const LOOK: Duration = Duration::from_millis(250);

/// Who calls.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The tenant.
    pub organization: Uuid,
    /// What it was let in with.
    pub credential: Credential,
    witness: Witness,
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
        /// The keyed hash of what was presented.
        hash: String,
        /// From where it was presented.
        address: Option<IpAddr>,
    },
}

/// Who was seen to call, and in which product, for those who record requests: filled in as soon as it is
/// known, whether the caller is let in or not.
#[derive(Clone, Debug, Default)]
pub struct Witness(Arc<Sight>);

#[derive(Debug, Default)]
struct Sight {
    seen: OnceLock<Seen>,
    product: OnceLock<Uuid>,
}

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
        let _ = self.0.seen.set(seen);
    }

    fn saw_product(&self, product: Uuid) {
        // The first one counts: what a request is about it looks for first.
        let _ = self.0.product.set(product);
    }

    /// Who was seen, if anybody was.
    pub fn seen(&self) -> Option<Seen> {
        self.0.seen.get().copied()
    }

    /// The product that the caller was found to see, if there was one.
    pub fn product(&self) -> Option<Uuid> {
        self.0.product.get().copied()
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

    /// Reads the credential of a request, and finds who presents it.
    ///
    /// # Errors
    /// 401 for no credential, or one that is not good; 403 for an API token from where it may not come; 503
    /// while the read models do not know who that is.
    pub async fn authenticate(app: &App, parts: &Parts) -> Result<Caller, Problem> {
        let witness = parts.extensions.get::<Witness>().cloned().unwrap_or_default();
        app.must_have_started()?;
        match presented(&parts.headers)? {
            None => Err(Problem::unauthenticated(
                "credential_missing",
                "send an API token in X-API-Token, or an API token or access token as Authorization: Bearer",
            )),
            Some(Presented::Token(token)) => {
                let address = parts.extensions.get::<ClientAddress>().map(|address| address.0);
                by_token(app, token, address, &witness).await
            }
            Some(Presented::Jwt(jwt)) => by_jwt(app, jwt, parts, &witness).await,
        }
    }

    /// Waits until the caller may no longer do what it was let in for, in this product if there is one,
    /// and says why: for answers that go on for as long as it may.
    pub async fn refused(self, app: App, access: Access, product: Option<Uuid>) -> Problem {
        let mut applied = app.views.watch();
        loop {
            // Before the look: what is applied in between is then seen as a change.
            applied.mark_unchanged();
            let may = self.again(&app).await.and_then(|now| {
                now.need(access)?;
                product.map_or(Ok(()), |product| now.product(&app, product).map(|_| ()))
            });
            if let Err(problem) = may {
                return problem;
            }
            // A busy log must not make every open stream look at every event.
            tokio::time::sleep(LOOK).await;
            if applied.changed().await.is_err() {
                // The read models end with the server, and so does what waits here.
                return std::future::pending().await;
            }
        }
    }

    /// The same caller as it is now.
    async fn again(&self, app: &App) -> Result<Caller, Problem> {
        let nobody_looks = Witness::default();
        match &self.credential {
            Credential::Session { user, session, .. } => {
                by_session(app, *session, *user, self.organization, &nobody_looks)
            }
            Credential::Token { hash, address, .. } => {
                by_hash(app, hash.clone(), *address, &nobody_looks).await
            }
        }
    }

    /// Lets the caller go on if it may do what a route asks.
    ///
    /// # Errors
    /// 403 otherwise; 401 where only an API token will do.
    pub fn need(&self, access: Access) -> Result<(), Problem> {
        match (access, &self.credential) {
            (Access::Everybody, _)
            | (Access::Session, Credential::Session { .. })
            | (Access::ApiToken, Credential::Token { .. }) => Ok(()),
            (Access::Session, Credential::Token { .. }) => Err(session_required()),
            (Access::ApiToken, Credential::Session { .. }) => Err(Problem::unauthenticated(
                "token_required",
                "this takes an API token: send it in X-API-Token, or as Authorization: Bearer",
            )),
            (Access::Has(right), Credential::Session { role, .. }) => {
                let least = right.rule().role;
                if *role >= least {
                    return Ok(());
                }
                Err(Problem::forbidden(
                    "role_insufficient",
                    format!("this takes the role {least}: ask an admin of your organization"),
                ))
            }
            (Access::Has(right), Credential::Token { scopes, .. }) => match right.rule().scope {
                Some(scope) if scopes.contains(&scope) => Ok(()),
                Some(scope) => Err(Problem::forbidden(
                    "scope_missing",
                    format!(
                        "this takes the scope {scope}: give it to the token, or use another token"
                    ),
                )),
                None => Err(session_required()),
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
            Credential::Token { .. } => Err(session_required()),
        }
    }

    /// The product that an API token is bound to.
    pub fn bound_product(&self) -> Option<Uuid> {
        match &self.credential {
            Credential::Token { product, .. } => Some(product.id),
            Credential::Session { .. } => None,
        }
    }

    /// The product that a log is narrowed to: the one that a request names, and an API token's own in any
    /// case. A session may name one that was deleted: its history stays.
    ///
    /// # Errors
    /// 404 where an API token names another product than its own.
    pub fn narrowed(&self, named: Option<Uuid>) -> Result<Option<Uuid>, Problem> {
        match (self.bound_product(), named) {
            (Some(own), Some(named)) if own != named => Err(product_not_found()),
            (own, named) => Ok(own.or(named)),
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
            Credential::Session { .. } => {
                app.stands_on(&["product"])?;
                app.read(|db| product::get(db, id))?
            }
        };
        let product = found
            .filter(|product| product.organization == self.organization)
            .ok_or_else(product_not_found)?;
        self.witness.saw_product(product.id);
        Ok(product)
    }
}

/// There is no such product, or it is not the caller's.
pub fn product_not_found() -> Problem {
    Problem::not_found(
        "product_not_found",
        "there is no such product: list the products to see which there are",
    )
}

fn session_required() -> Problem {
    Problem::forbidden(
        "session_required",
        "this takes a user session: sign in at /api/auth/login and send the access token",
    )
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
    let Some(hash) = app.commands.token_hash(secret) else {
        return Err(Problem::unauthenticated(
            "token_invalid",
            "this is not a whole API token, or it was mistyped: copy all of it again",
        ));
    };
    by_hash(app, hash, address, witness).await
}

async fn by_hash(
    app: &App,
    hash: String,
    address: Option<IpAddr>,
    witness: &Witness,
) -> Result<Caller, Problem> {
    let refused = |code, detail| Err(Problem::unauthenticated(code, detail));
    app.stands_on(&["api_token", "product"])?;
    let now = Utc::now();
    let now_text = projections::stored_time(now);
    let Some(known) = look_up(app, &hash, &now_text)? else {
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
    let credential = Credential::Token { token: token.id, product, scopes, hash, address };
    Ok(Caller { organization: token.organization, credential, witness: witness.clone() })
}

/// A token by the keyed hash of its secret, with its product.
fn look_up(app: &App, hash: &str, now: &str) -> Result<Option<Arc<Known>>, Problem> {
    let position = app.views.position();
    if let Some(known) = app.known_tokens.get(position, hash) {
        return Ok(Some(known));
    }
    let with_product = |db: &Connection, token: ApiToken| {
        let product = product::get(db, token.product_id)?;
        Ok(Arc::new(Known { token, product }))
    };
    let current = app.read(|db| {
        api_token::by_secret(db, hash)?.map(|token| with_product(db, token)).transpose()
    })?;
    if let Some(known) = current {
        app.known_tokens.keep(position, hash.to_owned(), known.clone());
        return Ok(Some(known));
    }
    // A secret that was replaced is good for a time only, so it is looked up every time.
    app.read(|db| {
        let previous = api_token::by_previous_secret(db, hash, now)?;
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

async fn by_jwt(app: &App, jwt: &str, parts: &Parts, witness: &Witness) -> Result<Caller, Problem> {
    if let Some(claims) = app.session_keys.verify(jwt) {
        return by_session(app, claims.sid, claims.sub, claims.org, witness);
    }
    match &app.oidc {
        Some(oidc) if oidc.is_named_by(jwt) => {
            let outside = oidc::session_of(app, oidc, jwt, parts).await?;
            by_session(app, outside.session, outside.user, app.organization, witness)
        }
        _ => Err(session_invalid()),
    }
}

fn by_session(
    app: &App,
    session: Uuid,
    user: Uuid,
    organization: Uuid,
    witness: &Witness,
) -> Result<Caller, Problem> {
    app.stands_on(&["session", "user"])?;
    let actor = Actor::User(user);
    let seen = |is_let_in| Seen { actor, organization, product: None, is_let_in };
    let found = app.read(|db| session::active(db, session))?;
    let now = projections::stored_time(Utc::now() - TimeDelta::seconds(SKEW as i64));
    let found = found.filter(|active| {
        let is_over = active.over_at.as_ref().is_some_and(|over_at| *over_at <= now);
        active.user == user && active.organization == organization && !is_over
    });
    let Some(active) = found else {
        witness.saw(seen(false));
        return Err(session_invalid());
    };
    witness.saw(seen(true));
    Ok(Caller {
        organization,
        credential: Credential::Session { user, session, role: active.role },
        witness: witness.clone(),
    })
}

/// A session that is not good; its sender hears no more than that.
pub fn session_invalid() -> Problem {
    Problem::unauthenticated(
        "session_invalid",
        "the access token is not good (any more): refresh it, or sign in again",
    )
}

/// As much of a user agent as is kept.
pub fn cut(user_agent: &str) -> String {
    user_agent.chars().take(USER_AGENT_LENGTH).collect()
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
        let user_agent = agent.map(cut);
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
        let client = (self.address, self.user_agent.as_deref());
        let metadata =
            metadata_of(app, &self.context, actor, organization, product, client).await?;
        Ok(Ask {
            metadata: Arc::new(metadata),
            command_id: self.idempotency.command_id(organization, &actor.to_string()),
            repeatable: self.is_repeatable(),
            request_hash: self.request_hash(app, body),
            if_match: self.if_match.sequences(),
        })
    }

    /// Whether the request has an `Idempotency-Key`.
    fn is_repeatable(&self) -> bool {
        self.idempotency.key().is_some()
    }

    /// What a repetition of this request would have to say too; nothing where it cannot be repeated.
    pub fn request_hash(&self, app: &App, body: &[&[u8]]) -> Option<String> {
        self.is_repeatable().then(|| app.commands.request_hash(&self.idempotency.digest(body)))
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

/// The metadata of what follows from a request: who asks, and from where, sealed.
///
/// # Errors
/// The vault fails.
pub async fn metadata_of(
    app: &App,
    context: &RequestContext,
    actor: Actor,
    organization: Uuid,
    product: Option<Uuid>,
    (address, user_agent): (Option<IpAddr>, Option<&str>),
) -> Result<Metadata, Problem> {
    let (address, user_agent) =
        app.commands.seal_client(organization, actor, product, address, user_agent).await?;
    Ok(Metadata {
        organization,
        product,
        actor: actor.to_string(),
        correlation: context.correlation,
        causation: None,
        request_id: Some(context.request_id.to_string()),
        traceparent: Some(context.traceparent.to_string()),
        address,
        user_agent,
    })
}
