//! Users: `/api/users`, for admins.
//!
//! The rule of this file: e-mail and name are opened only to be answered, and are null once their key
//! was shredded.

use axum::extract::State;
use commands::{NewUser, UserChange};
use domain::user::Asker;
use domain::{Email, Name, Role};
use projections::user::User;
use projections::{session, user};
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::access::Right;
use crate::answers::{Deleted, deleted};
use crate::app::App;
use crate::caller::{Caller, Circumstances};
use crate::failures::bad_value;
use crate::http::openapi::{
    IdempotencyKeyParam, IfMatchParam, IfNoneMatchParam, MinPositionParam, PageParams,
    ReadFailures, WriteFailures,
};
use crate::http::page::NoFilters;
use crate::http::reply::{Envelope, ListEnvelope};
use crate::http::{ETag, IfNoneMatch, Json, ListQuery, ListReply, Path, Problem, Reply};
use crate::lists::{total, window};

/// The routes of users.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_users, create_user))
        .routes(routes!(get_user, change_user, delete_user))
        .routes(routes!(unlink_user))
}

/// A person.
#[derive(Debug, Serialize, ToSchema)]
pub struct UserView {
    /// Its id.
    pub id: Uuid,
    /// The address that it signs in with.
    pub email: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// What it may do: `owner`, `admin`, `member` or `viewer`.
    #[schema(example = "member")]
    pub role: String,
    /// Who it is at an outside issuer, if it comes with its tokens.
    pub identity: Option<OutsideIdentityView>,
    /// When it was made.
    pub created_at: String,
    /// When it was last changed.
    pub updated_at: String,
}

/// Who a user is at an outside issuer.
#[derive(Debug, Serialize, ToSchema)]
pub struct OutsideIdentityView {
    /// The issuer.
    #[schema(example = "https://login.example.org")]
    pub issuer: String,
    /// What the user is called there.
    pub subject: Option<String>,
}

/// Opens what is sealed of a user, for its answer.
///
/// # Errors
/// The vault fails.
pub async fn shown(app: &App, user: User) -> Result<UserView, Problem> {
    let vault = app.commands.vault();
    let stream = format!("user-{}", user.id);
    let email = user.email.open(vault, user.organization, &stream, "email").await?;
    let name = match &user.name {
        Some(name) => name.open(vault, user.organization, &stream, "name").await?,
        None => None,
    };
    let identity = match user.identity {
        Some((issuer, subject)) => {
            let subject = subject.open(vault, user.organization, &stream, "subject").await?;
            Some(OutsideIdentityView { issuer, subject })
        }
        None => None,
    };
    Ok(UserView {
        id: user.id,
        email,
        name,
        role: user.role.to_string(),
        identity,
        created_at: user.created_at,
        updated_at: user.updated_at,
    })
}

/// Reads a secret so that it is shown by no `Debug` and wiped from memory.
///
/// # Errors
/// It is no text.
pub fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
    String::deserialize(deserializer).map(SecretString::from)
}

fn optional_secret<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SecretString>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(SecretString::from))
}

/// What a user may do. Each may do all that the one before may.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum RoleName {
    /// Reads.
    Viewer,
    /// Works with products.
    Member,
    /// Manages users and API tokens too.
    Admin,
    /// Makes and unmakes owners too.
    Owner,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Role {
        match name {
            RoleName::Viewer => Role::Viewer,
            RoleName::Member => Role::Member,
            RoleName::Admin => Role::Admin,
            RoleName::Owner => Role::Owner,
        }
    }
}

/// A person who is to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewUserBody {
    /// The address to sign in with. Nobody else may have it.
    #[schema(format = "email", example = "ada@example.com")]
    email: String,
    /// The name of the person.
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// What the user may do. Only an owner makes owners.
    role: RoleName,
    /// The password to sign in with.
    #[schema(value_type = String, format = Password, write_only, min_length = 8, max_length = 256)]
    #[serde(deserialize_with = "secret")]
    password: SecretString,
}

/// What is to be changed of a user; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UserChangeBody {
    /// Another address to sign in with.
    #[schema(format = "email", example = "ada@example.com")]
    email: Option<String>,
    /// Another name.
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// Another role. Nobody changes their own, and only an owner makes or unmakes owners.
    role: Option<RoleName>,
    /// Another password. It ends every session of the user.
    #[schema(value_type = Option<String>, format = Password, write_only, min_length = 8, max_length = 256)]
    #[serde(default, deserialize_with = "optional_secret")]
    password: Option<SecretString>,
}

fn email(text: &str) -> Result<Email, Problem> {
    Email::parse(text).map_err(|error| bad_value("email", &error))
}

fn name(text: &str) -> Result<Name, Problem> {
    Name::parse(text).map_err(|error| bad_value("name", &error))
}

/// A user of the caller's organization.
fn of_caller(app: &App, caller: &Caller, id: Uuid) -> Result<User, Problem> {
    let found = app.read(|db| user::get(db, id))?;
    found.filter(|user| user.organization == caller.organization).ok_or_else(not_found)
}

fn not_found() -> Problem {
    Problem::not_found(
        "user_not_found",
        "there is no such user: list the users to see who there is",
    )
}

/// As whom the caller asks for a change of a user; nobody yet, for one that is to be made.
fn asker(caller: &Caller, of: Option<Uuid>) -> Result<Asker, Problem> {
    let (user, _, role) = caller.session()?;
    Ok(if of == Some(user) { Asker::Themself } else { Asker::Other(role) })
}

/// List users
///
/// Newest first.
#[utoipa::path(get, path = "/api/users", tag = "Users",
    extensions(("x-access" = json!(Right::ReadUsers))), params(PageParams, MinPositionParam),
    responses((status = 200, description = "The users", body = ListEnvelope<UserView>), ReadFailures))]
async fn list_users(
    State(app): State<App>,
    caller: Caller,
    query: ListQuery<NoFilters>,
) -> Result<ListReply<UserView>, Problem> {
    let window = window(&query)?;
    let listing = app.read(|db| user::list(db, caller.organization, window))?;
    let total = total(&query, &listing);
    let mut users = Vec::with_capacity(listing.items.len());
    for user in listing.items {
        users.push(shown(&app, user).await?);
    }
    Ok(query.reply("Users", users, total))
}

/// Make a user
#[utoipa::path(post, path = "/api/users", tag = "Users",
    extensions(("x-access" = json!(Right::WriteUsers))), params(IdempotencyKeyParam),
    responses((status = 201, description = "The new user", body = Envelope<UserView>), WriteFailures))]
async fn create_user(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    body: Json<NewUserBody>,
) -> Result<Reply<UserView>, Problem> {
    let by = asker(&caller, None)?;
    let NewUserBody { email: address, name: called, role, password } = body.read()?;
    let new = NewUser {
        email: email(&address)?,
        name: called.as_deref().map(name).transpose()?,
        role: role.into(),
        password,
    };
    let ask = circumstances.ask(&app, &caller, None, &[&body.bytes]).await?;
    let done = app.commands.create_user(new, by, &ask).await?;
    let position = app.applied(&done).await?;
    let id = done.stream_id().unwrap_or_default();
    let user = app.read_after(&done, |db| user::get(db, id)).await?.ok_or_else(not_found)?;
    let etag = ETag::of_sequence(user.sequence);
    let reply =
        Reply::created(format!("/api/users/{id}"), "User created", shown(&app, user).await?);
    Ok(reply.etag(&etag).position(position).replayed(done.replayed))
}

/// Look at a user
#[utoipa::path(get, path = "/api/users/{id}", tag = "Users",
    extensions(("x-access" = json!(Right::ReadUsers))),
    params(("id" = Uuid, Path), MinPositionParam, IfNoneMatchParam),
    responses((status = 200, description = "The user", body = Envelope<UserView>),
              (status = 304, description = "The client has it already"), ReadFailures))]
async fn get_user(
    State(app): State<App>,
    caller: Caller,
    known: IfNoneMatch,
    Path(id): Path<Uuid>,
) -> Result<Reply<UserView>, Problem> {
    let user = of_caller(&app, &caller, id)?;
    let etag = ETag::of_sequence(user.sequence);
    Ok(Reply::ok("User", shown(&app, user).await?).etag_unless_known(&etag, &known))
}

/// Change a user
#[utoipa::path(put, path = "/api/users/{id}", tag = "Users",
    extensions(("x-access" = json!(Right::WriteUsers))), params(("id" = Uuid, Path), IfMatchParam),
    responses((status = 200, description = "The user as it is now", body = Envelope<UserView>), WriteFailures))]
async fn change_user(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(id): Path<Uuid>,
    body: Json<UserChangeBody>,
) -> Result<Reply<UserView>, Problem> {
    of_caller(&app, &caller, id)?;
    let by = asker(&caller, Some(id))?;
    let UserChangeBody { email: address, name: called, role, password } = body.read()?;
    let change = UserChange {
        email: address.as_deref().map(email).transpose()?,
        name: called.as_deref().map(name).transpose()?,
        role: role.map(Role::from),
        password,
    };
    let ask = circumstances.ask(&app, &caller, None, &[&body.bytes]).await?;
    let done = app.commands.change_user(id, change, by, &ask).await?;
    app.applied(&done).await?;
    // None of them is good any more; here their ends are waited for, so that they can be read.
    let (_, position) = app.erased(|db| Ok(!session::outdated_of(db, id)?.is_empty())).await?;
    let user = app.read_after(&done, |db| user::get(db, id)).await?.ok_or_else(not_found)?;
    let etag = ETag::of_sequence(user.sequence);
    let reply = Reply::ok("User changed", shown(&app, user).await?);
    Ok(reply.etag(&etag).position(position).replayed(done.replayed))
}

/// Unlink a user from outside
///
/// It is forgotten who the user is at the OIDC issuer. Its sessions from there end at once; whoever comes from there next
/// with the user's verified address is linked anew, whatever its subject is.
#[utoipa::path(delete, path = "/api/users/{id}/identity", tag = "Users",
    extensions(("x-access" = json!(Right::WriteUsers))), params(("id" = Uuid, Path), IfMatchParam),
    responses((status = 200, description = "The user as it is now", body = Envelope<UserView>), WriteFailures))]
async fn unlink_user(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(id): Path<Uuid>,
) -> Result<Reply<UserView>, Problem> {
    of_caller(&app, &caller, id)?;
    let by = asker(&caller, Some(id))?;
    let ask = circumstances.ask(&app, &caller, None, &[]).await?;
    let done = app.commands.unlink_identities(id, by, &ask).await?;
    app.applied(&done).await?;
    let (_, position) = app.erased(|db| Ok(!session::outdated_of(db, id)?.is_empty())).await?;
    let user = app.read_after(&done, |db| user::get(db, id)).await?.ok_or_else(not_found)?;
    let etag = ETag::of_sequence(user.sequence);
    let reply = Reply::ok("User unlinked", shown(&app, user).await?);
    Ok(reply.etag(&etag).position(position).replayed(done.replayed))
}

/// Delete a user
///
/// Its sessions end at once, and its personal data can be read nowhere any more: the key that they
/// are sealed with is shredded. `202` where that takes a while: it follows in any case.
#[utoipa::path(delete, path = "/api/users/{id}", tag = "Users",
    extensions(("x-access" = json!(Right::WriteUsers))), params(("id" = Uuid, Path), IfMatchParam),
    responses((status = 200, description = "It is gone", body = Envelope<Deleted>),
              (status = 202, description = "It is gone, and what is left of it is being erased", body = Envelope<Deleted>),
              WriteFailures))]
async fn delete_user(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(id): Path<Uuid>,
) -> Result<Reply<Deleted>, Problem> {
    of_caller(&app, &caller, id)?;
    let by = asker(&caller, Some(id))?;
    let ask = circumstances.ask(&app, &caller, None, &[]).await?;
    let done = app.commands.delete_user(id, by, &ask).await?;
    app.applied(&done).await?;
    let (is_erased, position) = app.erased(|db| user::is_left(db, id)).await?;
    Ok(deleted("User deleted", id, is_erased).position(position).replayed(done.replayed))
}
