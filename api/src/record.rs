//! What is remembered of requests: uses of API tokens, and attempts that were refused or failed.
//!
//! The rule of this file: it looks at the answer, costs the good path one short lock, and writes
//! nothing itself.

use axum::extract::{MatchedPath, Request};
use axum::http::header::USER_AGENT;
use axum::response::Response;
use commands::{Actor, Rejection, Usage};
use projections::{
    agent, api_token, chat, conversation, delivery, evaluation, execution, file, integration,
    knowledge_base, product, trigger,
};
use uuid::Uuid;

use crate::app::App;
use crate::caller::{Seen, Witness};
use crate::http::{ClientAddress, RequestContext, problem};
use crate::shown_path::ShownPath;

/// The longest path and user agent that are kept.
const LENGTH: usize = 512;

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
    if status.is_client_error() || status.is_server_error() {
        let problem = response.extensions().get::<problem::Rejection>();
        let code = problem.map_or("rejected", |problem| problem.code);
        let aim = problem.and_then(|problem| problem.aim);
        let resource = match aim {
            Some(aim) => Some(aim.resource),
            None => resource(uri.path(), route.as_deref(), seen),
        };
        let product = seen
            .and_then(|seen| seen.product)
            .or_else(|| aim.and_then(|aim| aim.product))
            .or_else(|| witness.product())
            .or_else(|| product_of(app, seen?, resource?));
        let rejection = Rejection {
            organization: seen.map_or(app.organization, |seen| seen.organization),
            actor: seen.map_or(Actor::Anonymous, |seen| seen.actor),
            product,
            method: method.to_string(),
            resource: resource.map(|(kind, id)| (kind.to_owned(), id.to_string())),
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
fn resource(path: &str, route: Option<&str>, seen: Option<Seen>) -> Option<(&'static str, Uuid)> {
    if let Some(Seen { actor: Actor::Token(token), is_let_in: false, .. }) = seen {
        return Some(("api_token", token));
    }
    let route = route?;
    let (name, id) = route
        .split('/')
        .zip(path.split('/'))
        .filter(|(name, _)| name.starts_with('{'))
        .filter_map(|(name, value)| Some((name, value.parse::<Uuid>().ok()?)))
        .last()?;
    let kind = match name.trim_matches(['{', '}']) {
        "productId" => "product",
        "triggerId" => "trigger",
        "versionId" => "version",
        "deliveryId" => "delivery",
        "knowledgeBaseId" => "knowledge_base",
        "executionId" => "execution",
        "conversationId" => "conversation",
        "evaluationId" => "evaluation",
        "sessionId" => "chat_session",
        "runId" => "chat_run",
        _ if route.contains("/api-tokens/") => "api_token",
        _ if route.contains("/users/") => "user",
        _ if route.contains("/file/") => "file",
        _ if route.contains("/agent-base/") => "agent",
        _ if route.contains("/integrations-base/") => "integration",
        _ => return None,
    };
    Some((kind, id))
}

/// The product that a thing is in. A user who may not do what a route asks was refused before anybody looked.
fn product_of(app: &App, seen: Seen, (kind, id): (&str, Uuid)) -> Option<Uuid> {
    if !seen.is_let_in {
        return None;
    }
    let found = app.read(|db| {
        let named = match kind {
            "product" => Some(id),
            "agent" => agent::get(db, id)?.map(|agent| agent.product),
            "version" => agent::by_version(db, id)?.map(|agent| agent.product),
            "trigger" => trigger::get(db, id)?.map(|trigger| trigger.product),
            "delivery" => delivery::get(db, id)?.map(|delivery| delivery.product),
            "execution" => execution::get(db, id)?.map(|execution| execution.product),
            "file" => file::get(db, id)?.map(|file| file.product_id),
            "knowledge_base" => knowledge_base::get(db, id)?.map(|base| base.product_id),
            "evaluation" => evaluation::get(db, id)?.map(|evaluation| evaluation.product),
            "integration" => integration::get(db, id)?.and_then(|found| found.product),
            "conversation" => conversation::get(db, id)?.map(|conversation| conversation.product),
            "chat_session" => chat::get(db, id)?.map(|session| session.product),
            "chat_run" => chat::get_run(db, id)?.map(|run| run.product),
            "api_token" => api_token::get(db, id)?.map(|token| token.product_id),
            _ => None,
        };
        Ok(named.map(|id| product::get(db, id)).transpose()?.flatten())
    });
    let product = found.ok()?.filter(|product| product.organization == seen.organization)?;
    Some(product.id)
}
