//! What every request passes on its way to its handler: who calls, whether they may, and whether the
//! route knows the parameters. Only then is anything else of a request looked at.
//!
//! The rule of this file: what a route asks is read from the OpenAPI document, so that what clients
//! are told and what is enforced are one thing, and no handler can forget it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{FromRequestParts, MatchedPath, Request};
use axum::http::Method;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::{OpenApi, PathItem, RefOr};

use crate::access::Access;
use crate::app::App;
use crate::caller::Caller;
use crate::http::Problem;
use crate::http::query::Pairs;

/// Where the document says what an operation asks of its caller.
const ACCESS: &str = "x-access";

/// What the routes say of themselves, by the template of their path.
#[derive(Clone, Debug)]
pub struct Gate(Arc<HashMap<String, Vec<Rules>>>);

/// What one operation says of itself.
#[derive(Debug)]
struct Rules {
    method: Method,
    access: Access,
    /// The names of its query parameters.
    parameters: Vec<String>,
}

/// A route does not say, or not clearly, who may call it.
#[derive(Debug, thiserror::Error)]
#[error("{method} {path} must say who may call it, in {ACCESS}")]
pub struct Unguarded {
    method: Method,
    path: String,
}

impl Gate {
    /// The gate of the routes in a document.
    ///
    /// # Errors
    /// One of them does not say who may call it.
    pub fn new(document: &OpenApi) -> Result<Gate, Unguarded> {
        let rules = document.paths.paths.iter().map(|(path, item)| {
            let rules = operations(item).map(|(method, operation)| {
                Rules::new(&method, operation)
                    .ok_or_else(|| Unguarded { method, path: path.clone() })
            });
            Ok((path.clone(), rules.collect::<Result<_, _>>()?))
        });
        Ok(Gate(Arc::new(rules.collect::<Result<_, _>>()?)))
    }

    /// The rules of a request; none where no route answers its method.
    fn rules(&self, parts: &Parts) -> Option<&Rules> {
        let path = parts.extensions.get::<MatchedPath>()?.as_str();
        // As the document writes it.
        let path =
            if path.contains("{*") { path.replace("{*", "{").into() } else { Cow::Borrowed(path) };
        // axum answers HEAD by the handler of GET.
        let method = if parts.method == Method::HEAD { &Method::GET } else { &parts.method };
        self.0.get(path.as_ref())?.iter().find(|rules| rules.method == *method)
    }
}

impl Rules {
    fn new(method: &Method, operation: &Operation) -> Option<Rules> {
        let access = operation.extensions.as_ref()?.get(ACCESS)?;
        let parameters = operation.parameters.iter().flatten().filter_map(|parameter| {
            let RefOr::T(parameter) = parameter else { return None };
            let is_query = parameter.parameter_in == ParameterIn::Query;
            is_query.then(|| parameter.name.clone())
        });
        Some(Rules {
            method: method.clone(),
            access: serde_json::from_value(access.clone()).ok()?,
            parameters: parameters.collect(),
        })
    }

    /// The caller, if it may call; none where nobody is asked who they are.
    async fn admit(&self, app: &App, parts: &mut Parts) -> Result<Option<Caller>, Problem> {
        if self.access == Access::Everybody {
            return Ok(None);
        }
        let caller = Caller::authenticate(app, parts).await?;
        caller.need(self.access)?;
        Ok(Some(caller))
    }

    fn check_parameters(&self, parts: &Parts) -> Result<(), Problem> {
        let pairs = Pairs::parse(parts.uri.query().unwrap_or_default())?;
        pairs.check_names(&[&self.parameters])
    }
}

fn operations(item: &PathItem) -> impl Iterator<Item = (Method, &Operation)> {
    let all = [
        (Method::GET, &item.get),
        (Method::POST, &item.post),
        (Method::PUT, &item.put),
        (Method::PATCH, &item.patch),
        (Method::DELETE, &item.delete),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}

/// The layer: lets a request through to its handler, or answers in its place.
pub async fn pass(
    app: &App,
    gate: &Gate,
    request: Request,
    next: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    let (mut parts, body) = request.into_parts();
    // What no route answers is said so further in.
    if let Some(rules) = gate.rules(&parts) {
        match rules.admit(app, &mut parts).await {
            Ok(None) => {}
            Ok(Some(caller)) => {
                parts.extensions.insert(caller);
            }
            Err(problem) => return problem.into_response(),
        }
        if let Err(problem) = rules.check_parameters(&parts) {
            return problem.into_response();
        }
    }
    next(Request::from_parts(parts, body)).await
}

/// Who calls, as the gate has let them in.
impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Caller, Problem> {
        let caller = parts.extensions.remove::<Caller>();
        caller.ok_or_else(|| Problem::bug("nobody was let in: does the route say who may call it?"))
    }
}

/// The layer of what is not in the document, and takes no query parameters.
pub async fn without_parameters(request: Request, next: Next) -> Response {
    let pairs = Pairs::parse(request.uri().query().unwrap_or_default());
    match pairs.and_then(|pairs| pairs.check_names::<&str>(&[])) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}
