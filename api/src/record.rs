//! What is remembered of requests: uses of API tokens, and attempts that were refused.
//!
//! The rule of this file: it looks at the answer, costs the good path one short lock, and writes
//! nothing itself.

use axum::extract::{MatchedPath, Request};
use axum::http::StatusCode;
use axum::http::header::USER_AGENT;
use axum::response::Response;
use commands::{Actor, Rejection, Usage};
use uuid::Uuid;

use crate::app::App;
use crate::caller::{Seen, Witness};
use crate::http::{ClientAddress, RequestContext, problem};
use crate::shown_path::ShownPath;

/// The longest path and user agent that are kept.
const LENGTH: usize = 512;

/// What a request without a credential was aimed at, as its handler found: it goes with the answer.
#[derive(Clone, Copy, Debug)]
pub struct Aim {
    /// The product.
    pub product: Uuid,
    /// The kind of resource, and its id.
    pub resource: (&'static str, Uuid),
}

/// Remembers what is worth remembering of a request.
pub async fn remember(
    app: &App,
    mut request: Request,
    next: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    let witness = Witness::default();
    request.extensions_mut().insert(witness.clone());
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let address = request.extensions().get::<ClientAddress>().map(|address| address.0);
    let request_id =
        request.extensions().get::<RequestContext>().map(|context| context.request_id.to_string());
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let user_agent =
        request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok()).map(cut);

    let response = next(request).await;

    let status = response.status();
    let seen = witness.seen();
    if let (
        Some(Seen {
            actor: Actor::Token(token),
            organization,
            product: Some(product),
            is_let_in: true,
        }),
        Some(route),
    ) = (seen, &route)
    {
        let (method, route) = (method.to_string(), route.clone());
        let is_much = app.uses.count(Usage {
            token,
            organization,
            product,
            method,
            route,
            status: status.as_u16(),
            address,
        });
        if is_much {
            let app = app.clone();
            tokio::spawn(async move { app.write_uses(None).await.is_ok() });
        }
    }
    if status.is_client_error() || status == StatusCode::NOT_IMPLEMENTED {
        let code = response
            .extensions()
            .get::<problem::Rejection>()
            .map_or("rejected", |rejection| rejection.code);
        let aim = response.extensions().get::<Aim>();
        let aimed_at = aim.map(|aim| (aim.resource.0.to_owned(), aim.resource.1.to_string()));
        let rejection = Rejection {
            organization: seen.map_or(app.organization, |seen| seen.organization),
            actor: seen.map_or(Actor::Anonymous, |seen| seen.actor),
            product: seen.and_then(|seen| seen.product).or(aim.map(|aim| aim.product)),
            method: method.to_string(),
            resource: aimed_at.or_else(|| resource(uri.path(), route.as_deref(), seen)),
            path: cut(&ShownPath::new(route.as_deref(), uri.path()).to_string()),
            route,
            status: status.as_u16(),
            code: code.to_owned(),
            address,
            user_agent,
        };
        app.rejections.notice(rejection, request_id);
    }
    response
}

fn cut(text: &str) -> String {
    text.chars().take(LENGTH).collect()
}

/// What a request was aimed at: the last id in its path; or the token itself that was not let in.
fn resource(path: &str, route: Option<&str>, seen: Option<Seen>) -> Option<(String, String)> {
    if let Some(Seen { actor: Actor::Token(token), is_let_in: false, .. }) = seen {
        return Some(("api_token".into(), token.to_string()));
    }
    let route = route?;
    let (name, id) = route
        .split('/')
        .zip(path.split('/'))
        .filter(|(name, _)| name.starts_with('{'))
        .filter(|(_, value)| value.parse::<uuid::Uuid>().is_ok())
        .last()?;
    let kind = match name.trim_matches(['{', '}']) {
        "productId" => "product",
        "triggerId" => "trigger",
        "versionId" => "version",
        "deliveryId" => "delivery",
        "knowledgeBaseId" => "knowledge_base",
        "executionId" => "execution",
        "conversationId" => "conversation",
        _ if route.contains("/api-tokens/") => "api_token",
        _ if route.contains("/users/") => "user",
        _ if route.contains("/file/") => "file",
        _ if route.contains("/agent-base/") => "agent",
        _ if route.contains("/integrations-base/") => "integration",
        _ => return None,
    };
    Some((kind.to_owned(), id.to_owned()))
}
