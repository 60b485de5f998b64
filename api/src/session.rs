//! Signing in, staying signed in, signing out: `/api/auth`, and the public keys of the signatures.
//!
//! The rule of this file: an answer that holds a credential may be kept by nobody on the way, and an
//! `Idempotency-Key` means nothing here, since a credential is never shown twice.

use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CACHE_CONTROL;
use commands::{Actor, Ask, Grant, Refreshed};
use domain::session::SessionError;
use projections::{organization, session, user};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::access::Access;
use crate::answers::Nothing;
use crate::app::App;
use crate::caller::{Caller, Circumstances};
use crate::http::openapi::{
    IfNoneMatchParam, MinPositionParam, PublicFailures, ReadFailures, SignInFailures, WriteFailures,
};
use crate::http::problem::Aim;
use crate::http::reply::Envelope;
use crate::http::{ETag, IfNoneMatch, Json, OptionalJson, Problem, Reply};
use crate::user::{UserView, shown};

/// The routes that try a secret which a person chose, or trade one; they stand behind the stricter rate
/// limit.
pub fn sign_in_router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(sign_in))
        .routes(routes!(refresh_session))
        .routes(routes!(change_own_password))
}

/// The routes of those who are in, and the public keys.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(sign_out))
        .routes(routes!(who_am_i))
        .routes(routes!(public_keys))
}

/// Who signs in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Login {
    /// The address of the user.
    #[schema(example = "ada@example.com")]
    email: String,
    /// The password of the user.
    #[schema(value_type = String, format = Password, write_only)]
    #[serde(deserialize_with = "crate::user::secret")]
    password: SecretString,
}

/// How a session goes on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Refresh {
    /// The refresh token of the last answer.
    #[schema(value_type = String, write_only)]
    #[serde(deserialize_with = "crate::user::secret")]
    refresh_token: SecretString,
}

/// A change of one's own password.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PasswordChange {
    /// The password until now.
    #[schema(value_type = String, format = Password, write_only)]
    #[serde(deserialize_with = "crate::user::secret")]
    current_password: SecretString,
    /// The password from now on.
    #[schema(value_type = String, format = Password, write_only, min_length = 8, max_length = 256)]
    #[serde(deserialize_with = "crate::user::secret")]
    new_password: SecretString,
}

/// The two tokens of a session.
#[derive(Serialize, ToSchema)]
struct Tokens {
    /// Sent as `Authorization: Bearer …`: a JWT signed with one of the keys of
    /// `/.well-known/jwks.json`.
    access_token: String,
    /// Good once, at `/api/auth/refresh`. Used a second time, it ends the session.
    refresh_token: String,
    /// Always `Bearer`.
    #[schema(value_type = String, example = "Bearer")]
    token_type: &'static str,
    /// In how many seconds the access token runs out.
    expires_in: i64,
}

/// Who is signed in.
#[derive(Debug, Serialize, ToSchema)]
struct Me {
    /// The user.
    user: UserView,
    /// The tenant of the user.
    organization: organization::Organization,
    /// What the user may do: `owner`, `admin`, `member` or `viewer`.
    role: String,
}

/// A session that is over.
#[derive(Debug, Serialize, ToSchema)]
struct SignedOut {
    /// What its id was.
    session_id: Uuid,
}

/// Sessions that are over.
#[derive(Debug, Serialize, ToSchema)]
struct SessionsEnded {
    /// How many there were, this one included.
    sessions_ended: usize,
}

/// Public keys (RFC 7517).
#[derive(Debug, Serialize, ToSchema)]
struct JwkSet {
    /// The keys.
    keys: Vec<Jwk>,
}

/// A public key that verifies access tokens (RFC 8037).
#[derive(Debug, Serialize, ToSchema)]
struct Jwk {
    /// Always `OKP`.
    #[schema(value_type = String, example = "OKP")]
    kty: &'static str,
    /// Always `Ed25519`.
    #[schema(value_type = String, example = "Ed25519")]
    crv: &'static str,
    /// Always `sig`.
    #[serde(rename = "use")]
    #[schema(value_type = String, example = "sig")]
    purpose: &'static str,
    /// Always `EdDSA`.
    #[schema(value_type = String, example = "EdDSA")]
    alg: &'static str,
    /// Its name in the header of an access token.
    kid: String,
    /// The key.
    x: String,
}

/// Sign in
///
/// The access token opens the API for some minutes; the refresh token gets the next one.
#[utoipa::path(post, path = "/api/auth/login", tag = "Auth and sessions", security(()),
    extensions(("x-access" = json!(Access::Everybody))),
    responses((status = 200, description = "A session", body = Envelope<Tokens>), SignInFailures))]
async fn sign_in(
    State(app): State<App>,
    circumstances: Circumstances,
    body: Json<Login>,
) -> Result<Reply<Tokens>, Problem> {
    let Login { email, password } = body.read()?;
    let user = app.commands.authenticate(&email, password, app.organization).await?;
    let ask = unrepeated(&app, &circumstances, user).await?;
    let grant = app.commands.start_session(user, app.refresh_ttl, &ask).await?;
    granted(&app, grant, "Signed in").await
}

/// Stay signed in
///
/// Trades the refresh token for the next two tokens. A refresh token is good once: one that comes a
/// second time has been copied, so it ends the session, and its access tokens stop at once.
#[utoipa::path(post, path = "/api/auth/refresh", tag = "Auth and sessions", security(()),
    extensions(("x-access" = json!(Access::Everybody))),
    responses((status = 200, description = "The session goes on", body = Envelope<Tokens>), SignInFailures))]
async fn refresh_session(
    State(app): State<App>,
    circumstances: Circumstances,
    body: Json<Refresh>,
) -> Result<Reply<Tokens>, Problem> {
    use secrecy::ExposeSecret;
    let Refresh { refresh_token } = body.read()?;
    let token = refresh_token.expose_secret();
    match refresh(&app, &circumstances, token).await {
        Ok(reply) => Ok(reply),
        Err(problem) => match app.commands.named_holder_of(token).await? {
            Some(user) => Err(problem.aimed_at(Aim { product: None, resource: ("user", user) })),
            None => Err(problem),
        },
    }
}

async fn refresh(
    app: &App,
    circumstances: &Circumstances,
    token: &str,
) -> Result<Reply<Tokens>, Problem> {
    let user = app.commands.holder_of(token).await?;
    let ask = unrepeated(app, circumstances, user).await?;
    match app.commands.refresh(token, app.refresh_ttl, &ask).await? {
        Refreshed::Granted(grant) => granted(app, grant, "Session refreshed").await,
        Refreshed::Reused(done) => {
            // Only then do the access tokens of the session stop.
            app.applied(&done).await?;
            Err(commands::Error::refused(&SessionError::Ended).into())
        }
    }
}

/// Sign out
///
/// Ends the session of the access token: its refresh token and its access tokens stop at once.
#[utoipa::path(post, path = "/api/auth/logout", tag = "Auth and sessions",
    extensions(("x-access" = json!(Access::Session))),
    request_body = Option<Nothing>,
    responses((status = 200, description = "Signed out", body = Envelope<SignedOut>), WriteFailures))]
async fn sign_out(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    body: OptionalJson<Nothing>,
) -> Result<Reply<SignedOut>, Problem> {
    let Nothing {} = body.read()?;
    let (user, session_id, _) = caller.session()?;
    let ask = unrepeated(&app, &circumstances, user).await?;
    let done = app.commands.sign_out(session_id, &ask).await?;
    let position = app.applied(&done).await?;
    Ok(Reply::ok("Signed out", SignedOut { session_id }).position(position))
}

/// Who am I
///
/// The user of the access token, its organization and its role. The `ETag` is that of the user.
#[utoipa::path(get, path = "/api/auth/me", tag = "Auth and sessions",
    extensions(("x-access" = json!(Access::Session))), params(MinPositionParam, IfNoneMatchParam),
    responses((status = 200, description = "Who is signed in", body = Envelope<Me>),
              (status = 304, description = "The client has it already"), ReadFailures))]
async fn who_am_i(
    State(app): State<App>,
    caller: Caller,
    known: IfNoneMatch,
) -> Result<Reply<Me>, Problem> {
    let (user, _, role) = caller.session()?;
    let (user, organization) =
        app.read(|db| Ok((user::get(db, user)?, organization::get(db, caller.organization)?)))?;
    let (Some(user), Some(organization)) = (user, organization) else {
        return Err(Problem::not_found(
            "user_not_found",
            "the user was deleted in the meantime: sign in as another",
        ));
    };
    let etag = ETag::of_sequence(user.sequence);
    let me = Me { user: shown(&app, user).await?, organization, role: role.to_string() };
    Ok(Reply::ok("Who is signed in", me).etag_unless_known(&etag, &known))
}

/// Change the own password
///
/// Every session of the user ends, this one too: sign in with the new password.
#[utoipa::path(post, path = "/api/auth/password", tag = "Auth and sessions",
    extensions(("x-access" = json!(Access::Session))),
    responses((status = 200, description = "The password was changed", body = Envelope<SessionsEnded>), WriteFailures))]
async fn change_own_password(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    body: Json<PasswordChange>,
) -> Result<Reply<SessionsEnded>, Problem> {
    let (user, _, _) = caller.session()?;
    let PasswordChange { current_password, new_password } = body.read()?;
    let ask = unrepeated(&app, &circumstances, user).await?;
    let sessions = app.read(|db| session::of_user(db, user))?.len();
    let done = app.commands.change_own_password(user, current_password, new_password, &ask).await?;
    app.applied(&done).await?;
    let (_, position) = app.erased(|db| Ok(!session::outdated_of(db, user)?.is_empty())).await?;
    let ended = SessionsEnded { sessions_ended: sessions };
    Ok(Reply::ok("Password changed: sign in again", ended).position(position))
}

/// The public keys of the sessions
///
/// With these anybody can verify an access token, as a JWK set (RFC 7517).
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "Auth and sessions", security(()),
    extensions(("x-access" = json!(Access::Everybody))),
    responses((status = 200, description = "The keys", body = JwkSet), PublicFailures))]
async fn public_keys(State(app): State<App>) -> impl axum::response::IntoResponse {
    let key = |(kid, x): (&str, &str)| Jwk {
        kty: "OKP",
        crv: "Ed25519",
        purpose: "sig",
        alg: "EdDSA",
        kid: kid.to_owned(),
        x: x.to_owned(),
    };
    let keys = JwkSet { keys: app.session_keys.public_keys().map(key).collect() };
    ([(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"))], axum::Json(keys))
}

/// What a command of `user` about its own sessions carries. It is a new one each time, and no state of
/// a resource is meant by it.
async fn unrepeated(app: &App, circumstances: &Circumstances, user: Uuid) -> Result<Ask, Problem> {
    let ask = circumstances.ask_as(app, Actor::User(user), app.organization, None, &[]).await?;
    Ok(Ask {
        command_id: Uuid::now_v7(),
        repeatable: false,
        request_hash: None,
        if_match: None,
        ..ask
    })
}

async fn granted(app: &App, grant: Grant, message: &'static str) -> Result<Reply<Tokens>, Problem> {
    let position = app.applied(&grant.done).await?;
    let tokens = Tokens {
        access_token: app.session_keys.sign(&grant, app.access_ttl)?,
        refresh_token: grant.refresh_token,
        token_type: "Bearer",
        expires_in: app.access_ttl.num_seconds(),
    };
    Ok(Reply::ok(message, tokens).position(position).secret())
}
