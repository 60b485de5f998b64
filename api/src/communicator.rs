//! What people say in communicators: `POST /api/communicator/webhook/{id}`, and for Teams
//! `POST /api/communicator/botframework/{id}/messages`.
//!
//! The rule of this file: a message is in the log before it is answered, and nothing is looked at that
//! was not verified. What the other side wants to hear is as short as it may be: people may see it.

use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use commands::jwt::TokenError;
use commands::{Actor, Incoming, NotHeard, OpenIntegration};
use domain::integration::IntegrationKind;
use eventlog::Position;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::access::Access;
use crate::app::App;
use crate::caller::Circumstances;
use crate::http::header::X_EVENT_POSITION;
use crate::http::openapi::{ActivityFailures, WebhookFailures};
use crate::http::problem::Aim;
use crate::http::{ClientAddress, Path, Problem};

/// The routes of communicators.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(hear)).routes(routes!(hear_teams))
}

/// What a communicator hears that wants to see that we are there. Everything else is answered with nothing.
#[derive(Serialize, ToSchema)]
struct Challenged {
    /// What it sent.
    challenge: String,
}

fn no_such_communicator() -> Problem {
    Problem::not_found(
        "communicator_not_found",
        "nobody is heard at this address: use the id of an enabled integration of a product, of type slack or google-chat; \
         one of type teams is heard at /api/communicator/botframework/{id}/messages",
    )
}

/// Hear what people say in a communicator
///
/// The id is that of a product's integration. Slack sends events and slash commands here, verified by the
/// signing secret, and Google Chat its events, verified by Google's token. They are stored, and answered with
/// nothing; what follows is said in the thread. A delivery that comes again is answered alike, and starts
/// nothing. A message of Slack that is changed or deleted is noted beside it, and starts nothing. Google Chat is understood in both
/// forms, as an app of its own and as a Workspace add-on.
#[utoipa::path(post, path = "/api/communicator/webhook/{id}", tag = "Communicators", security(()),
    extensions(("x-access" = json!(Access::Everybody))),
    params(("id" = Uuid, Path, description = "The integration")),
    request_body(content = Object, description = "Whatever the communicator sends"),
    responses((status = 200, description = "It is stored, or is none of our business", body = Challenged),
              WebhookFailures))]
async fn hear(
    State(app): State<App>,
    Path(id): Path<Uuid>,
    circumstances: Circumstances,
    address: ClientAddress,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let is_here = |kind| kind != IntegrationKind::Teams;
    hear_at(&app, id, is_here, &circumstances, address, &headers, request).await
}

/// Hear what people say in Microsoft Teams
///
/// The id is that of a product's integration of type `teams`. What the Bot Framework sends is verified by its
/// token, whose key must be endorsed for the channel; messages are stored, and answered with nothing; what
/// follows is said in the conversation. A message that is changed or deleted is noted beside it, and starts nothing. An
/// `invoke` (a button of a card, a dialog) is `501`, as of a bot that has none. Whatever else it sends is answered alike, and
/// starts nothing.
#[utoipa::path(post, path = "/api/communicator/botframework/{id}/messages", tag = "Communicators", security(()),
    extensions(("x-access" = json!(Access::Everybody))),
    params(("id" = Uuid, Path, description = "The integration")),
    request_body(content = Object, description = "An activity"),
    responses((status = 200, description = "It is stored, or is none of our business"), ActivityFailures))]
async fn hear_teams(
    State(app): State<App>,
    Path(id): Path<Uuid>,
    circumstances: Circumstances,
    address: ClientAddress,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let is_here = |kind| kind == IntegrationKind::Teams;
    hear_at(&app, id, is_here, &circumstances, address, &headers, request).await
}

async fn hear_at(
    app: &App,
    id: Uuid,
    is_here: impl Fn(IntegrationKind) -> bool,
    circumstances: &Circumstances,
    ClientAddress(address): ClientAddress,
    headers: &HeaderMap,
    request: Request,
) -> Response {
    if let Some(too_often) = app.doors.shut(id, address) {
        return too_often.into_response();
    }
    let integration = match app.commands.communicator(id).await {
        Ok(Some(integration)) if is_here(integration.kind) => integration,
        Ok(_) => return app.doors.turn_away(address, no_such_communicator()),
        Err(error) => return Problem::from(error).into_response(),
    };
    let aim = Aim { product: integration.product, resource: ("integration", id) };
    let answer = |body| hear_from(app, &integration, circumstances, headers, body);
    app.doors.let_in(aim, address, request, commands::MAX_MESSAGE_BYTES, answer).await
}

async fn hear_from(
    app: &App,
    integration: &OpenIntegration,
    circumstances: &Circumstances,
    headers: &HeaderMap,
    body: Vec<u8>,
) -> Result<Response, Problem> {
    let heard = app.tools.connectors.hear(integration, headers, &body).await.map_err(refused)?;
    Ok(match heard {
        Incoming::Challenge(challenge) => Json(Challenged { challenge }).into_response(),
        Incoming::Nothing => nothing(integration.kind),
        Incoming::Unknown(_) => {
            return Err(Problem::not_implemented(
                "invoke_not_supported",
                "nothing is done here at once: say it in a message to the bot",
            ));
        }
        Incoming::Revised(revision) => {
            let (organization, product) = (integration.organization, integration.product);
            let ask =
                circumstances.ask_as(app, Actor::Anonymous, organization, product, &[]).await?;
            let done = app.commands.revise_message(integration, *revision, &ask).await?;
            let answer = nothing(integration.kind);
            match done {
                Some(done) => at(done.position(), answer),
                // It was of a message that nobody heard.
                None => answer,
            }
        }
        Incoming::Message(message) => {
            let (organization, product) = (integration.organization, integration.product);
            let ask =
                circumstances.ask_as(app, Actor::Anonymous, organization, product, &[]).await?;
            let done = app.commands.receive_message(integration, *message, &ask).await?;
            at(done.position(), nothing(integration.kind))
        }
    })
}

/// An answer that says how far in the log what was heard is.
fn at(position: Position, mut answer: Response) -> Response {
    answer.headers_mut().insert(X_EVENT_POSITION, HeaderValue::from(position.0));
    answer
}

/// What is heard back where nothing is said at once.
fn nothing(kind: IntegrationKind) -> Response {
    match kind {
        // An empty object is no message; no body at all is one that cannot be read.
        IntegrationKind::GoogleChat => Json(serde_json::json!({})).into_response(),
        _ => StatusCode::OK.into_response(),
    }
}

fn refused(why: NotHeard) -> Problem {
    let detail = why.to_string();
    match why {
        NotHeard::NotVerified(_) => Problem::unauthenticated("signature_invalid", detail),
        NotHeard::BadToken { why: TokenError::KeysUnavailable, .. } => Problem::unavailable(
            "issuer_unavailable",
            "the keys that this token is signed with cannot be read now: send it again in a moment",
            Duration::from_secs(15),
        )
        .recorded_as(TokenError::KeysUnavailable.code()),
        NotHeard::BadToken { why, is_forbidden: true } => {
            Problem::forbidden("token_refused", detail).recorded_as(why.code())
        }
        NotHeard::BadToken { why, is_forbidden: false } => {
            Problem::unauthenticated("token_refused", detail).recorded_as(why.code())
        }
        NotHeard::Malformed(_) => Problem::malformed("body_malformed", detail),
        NotHeard::NotHere(_) => no_such_communicator(),
    }
}
