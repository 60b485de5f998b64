//! One way of asking the other sides that speak HTTP, whatever they are.
//!
//! The rule of this file: a server that says to wait is waited for, shortly here and longer by whoever
//! calls; redirects are not followed, so that no secret goes where it was not meant to.

use std::time::{Duration, Instant};

use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LINK, LOCATION,
    USER_AGENT,
};
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;
use url::{Host, Url, form_urlencoded};

use super::{Connectors, Told, told};
use crate::OpenIntegration;
use crate::policies::ToolError;
use crate::tools::address::Refused;
use crate::tools::transport::{causes, may_pass, retry_after, root_cause, until_reset};

/// The longest wait that is waited for here, and how often.
const PATIENCE: Duration = Duration::from_secs(20);
const TRIES: u32 = 3;

/// How much of an answer is read.
const LARGEST: usize = 8 * 1024 * 1024;

/// How much of what the other side says about a failure is passed on.
const SHOWN: usize = 300;

/// The API of an integration.
pub(super) struct Api<'a> {
    pub(super) connectors: &'a Connectors,
    pub(super) integration: &'a OpenIntegration,
}

/// What is asked.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: Vec<(HeaderName, String)>,
    pub(super) body: Option<Sent>,
}

/// What is sent along.
#[derive(Clone)]
pub(super) enum Sent {
    Json(Value),
    Form(Vec<(String, String)>),
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// JSON, or a text where it is none.
    pub(super) body: Value,
}

impl Request {
    pub(super) fn new(method: Method, url: Url) -> Request {
        Request { method, url, headers: Vec::new(), body: None }
    }

    pub(super) fn header(self, name: &'static str, value: impl Into<String>) -> Request {
        self.named(HeaderName::from_static(name), value)
    }

    pub(super) fn named(mut self, name: HeaderName, value: impl Into<String>) -> Request {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn json(self, body: Value) -> Request {
        Request { body: Some(Sent::Json(body)), ..self }
    }

    pub(super) fn form(self, fields: &[(&str, &str)]) -> Request {
        let fields = fields.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        Request { body: Some(Sent::Form(fields.collect())), ..self }
    }
}

impl Api<'_> {
    /// An address below one of the configuration. The parts are put in as they are: none of them can lead
    /// out of its place.
    pub(super) fn url(&self, field: &str, path: &[&str]) -> Result<Url, ToolError> {
        below(told(self.integration, field).unwrap_or_default(), path)
    }

    /// Asks, and answers whatever the other side did, save that it was not to be asked now.
    ///
    /// # Errors
    /// It cannot be reached, or does not want to be asked so often.
    pub(super) async fn send(&self, request: &Request) -> Result<Answer, ToolError> {
        let mut tries = 1;
        loop {
            self.wait_till_open().await?;
            let answer = self.send_once(request).await?;
            let Some(wait) = asked_to_wait(answer.status, &answer.headers) else {
                return Ok(answer);
            };
            self.close_for(wait);
            if tries == TRIES || wait > PATIENCE {
                return Err(too_often(wait));
            }
            tries += 1;
        }
    }

    /// As [`Api::send`]; an answer that is no success is an error that says what to do.
    ///
    /// # Errors
    /// As said.
    pub(super) async fn ask(&self, request: &Request) -> Result<Answer, ToolError> {
        let answer = self.send(request).await?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        Err(self.refused(request, &answer))
    }

    /// Remembers that the other side does not want to be asked for so long.
    pub(super) fn close_for(&self, wait: Duration) {
        let now = Instant::now();
        let mut state = self.connectors.state.lock();
        state.closed.retain(|_, until| *until > now);
        state.closed.insert(Told::of(self.integration), now + wait);
    }

    /// Waits until the other side wants to be asked again, if that is soon.
    pub(super) async fn wait_till_open(&self) -> Result<(), ToolError> {
        let told = Told::of(self.integration);
        let closed = self.connectors.state.lock().closed.get(&told).copied();
        let Some(wait) = closed.and_then(|until| until.checked_duration_since(Instant::now()))
        else {
            return Ok(());
        };
        if wait > PATIENCE {
            return Err(too_often(wait));
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }

    async fn execute(&self, request: &Request) -> Result<Response, ToolError> {
        let literal = match request.url.host() {
            Some(Host::Ipv4(address)) => Some(address.into()),
            Some(Host::Ipv6(address)) => Some(address.into()),
            Some(Host::Domain(_)) | None => None,
        };
        if literal.is_some_and(|address| !self.connectors.policy.permits(address)) {
            return Err(address_refused(&request.url));
        }
        let mut sent = reqwest::Request::new(request.method.clone(), request.url.clone());
        let headers = sent.headers_mut();
        let fixed = [
            (ACCEPT, "application/json"),
            (ACCEPT_ENCODING, "identity"),
            (USER_AGENT, concat!("prodgy/", env!("CARGO_PKG_VERSION"))),
        ];
        for (name, value) in fixed {
            headers.insert(name, HeaderValue::from_static(value));
        }
        for (name, value) in &request.headers {
            let mut value = HeaderValue::try_from(value).map_err(|_| header_invalid())?;
            value.set_sensitive(true);
            headers.insert(name.clone(), value);
        }
        match &request.body {
            None => {}
            Some(Sent::Json(json)) => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                *sent.body_mut() = Some(json.to_string().into());
            }
            Some(Sent::Form(fields)) => {
                let form =
                    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
                let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
                headers.insert(CONTENT_TYPE, form_type);
                *sent.body_mut() = Some(form.into());
            }
        }
        let response = self.connectors.client.execute(sent).await;
        response.map_err(|error| not_sent(&error, &request.url))
    }

    async fn send_once(&self, request: &Request) -> Result<Answer, ToolError> {
        read(self.execute(request).await?, &request.url).await
    }

    /// Asks for bytes, which are not read yet.
    ///
    /// # Errors
    /// It cannot be reached, does not want to be asked so often, or does not give them.
    pub(super) async fn open(&self, request: &Request) -> Result<Response, ToolError> {
        self.wait_till_open().await?;
        let response = self.execute(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let answer = read(response, &request.url).await?;
        if let Some(wait) = asked_to_wait(answer.status, &answer.headers) {
            self.close_for(wait);
            return Err(too_often(wait));
        }
        Err(self.refused(request, &answer))
    }

    /// Why the other side did not do it, in words that help.
    pub(super) fn refused(&self, request: &Request, answer: &Answer) -> ToolError {
        let (status, side) = (answer.status, host(&request.url));
        let said = self.said(&answer.body);
        if status.is_redirection() {
            let to = answer.headers.get(LOCATION).and_then(|to| to.to_str().ok());
            let to = to.and_then(|to| request.url.join(to).ok()).map(|to| host(&to));
            let message = format!(
                "{side} leads on to {}, and a secret is not taken there: mend the address or the name",
                to.unwrap_or_else(|| "nowhere".to_owned())
            );
            return ToolError::lasting("redirected", message);
        }
        let (code, message) = match status.as_u16() {
            401 => (
                "unauthorized",
                format!(
                    "{side} does not know the credential ({status}){said}: it is mistyped, was revoked or has \
                     expired; give the integration another"
                ),
            ),
            403 => (
                "forbidden",
                format!(
                    "{side} knows the credential, which may not do this ({status}){said}: give it the right"
                ),
            ),
            404 | 410 => (
                "not_found",
                format!(
                    "{side} has no such thing, or hides it from this credential ({status}){said}: check names \
                     and address"
                ),
            ),
            400 | 409 | 413 | 415 | 422 => {
                ("rejected", format!("{side} does not take this ({status}){said}"))
            }
            500..=599 => (
                "unavailable",
                format!("{side} has a trouble of its own ({status}){said}: try again in a moment"),
            ),
            _ => {
                ("unexpected_answer", format!("{side} answered {status}{said}: check the address"))
            }
        };
        let make = if may_pass(status) { ToolError::passing } else { ToolError::lasting };
        make(code, message).after(retry_after(&answer.headers))
    }

    /// What the other side says about a failure, cut short, without secrets.
    fn said(&self, body: &Value) -> String {
        let places = ["/message", "/error/message", "/error_description", "/error", "/detail"];
        let text = places.iter().find_map(|place| body.pointer(place)?.as_str());
        let veil = self.connectors.veil(self.integration);
        let text = text.map(|text| veil.text(text)).unwrap_or_default();
        let text: String = text.chars().filter(|sign| !sign.is_control()).take(SHOWN).collect();
        if text.is_empty() { text } else { format!(", and says: {text}") }
    }
}

/// The whole of an answer, which must not be large.
async fn read(mut response: Response, url: &Url) -> Result<Answer, ToolError> {
    let (status, headers) = (response.status(), response.headers().clone());
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| cut_off(&error, url))? {
        if bytes.len() + chunk.len() > LARGEST {
            let message =
                format!("the answer of {} is larger than {LARGEST} bytes: ask for less", host(url));
            return Err(ToolError::lasting("answer_too_large", message));
        }
        bytes.extend_from_slice(&chunk);
    }
    let body = serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
    Ok(Answer { status, headers, body })
}

pub(super) fn cut_off(error: &reqwest::Error, url: &Url) -> ToolError {
    let message = format!("the answer of {} broke off: {}", host(url), root_cause(error));
    ToolError::passing("cut_off", message)
}

/// An address below another one.
pub(crate) fn below(base: &str, path: &[&str]) -> Result<Url, ToolError> {
    let invalid = || {
        let message = "the address of the integration is none: mend its configuration";
        ToolError::lasting("address_invalid", message)
    };
    let mut url = Url::parse(base).map_err(|_| invalid())?;
    url.path_segments_mut().map_err(|()| invalid())?.pop_if_empty().extend(path);
    Ok(url)
}

/// How long the other side asks to wait: by its status, or by what GitHub says of its limits.
pub(super) fn asked_to_wait(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    let wait = retry_after(headers);
    let is_used_up = || headers.get("x-ratelimit-remaining").is_some_and(|left| left == "0");
    match status {
        StatusCode::TOO_MANY_REQUESTS => {
            wait.or_else(|| until_reset(headers)).or(Some(Duration::from_secs(1)))
        }
        StatusCode::FORBIDDEN if wait.is_some() => wait,
        StatusCode::FORBIDDEN if is_used_up() => until_reset(headers),
        _ => None,
    }
}

fn too_often(wait: Duration) -> ToolError {
    let message = format!(
        "the other side was asked too often, and wants to be asked again in {} s: let the step be tried again \
         (`retry`), or ask less often",
        wait.as_secs().max(1)
    );
    ToolError::passing("rate_limited", message).after(Some(wait))
}

/// Where the next page is, as the header `Link` says.
pub(super) fn next_page(headers: &HeaderMap, from: &Url) -> Option<Url> {
    let links = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    for link in links.flat_map(|links| links.split(',')) {
        let mut parts = link.split(';').map(str::trim);
        let address = parts.next()?.strip_prefix('<').and_then(|it| it.strip_suffix('>'));
        let is_next = parts.any(|part| part == "rel=\"next\"" || part == "rel=next");
        if let (Some(address), true) = (address, is_next) {
            // A secret is sent along: only to where it went before.
            return from.join(address).ok().filter(|url| url.origin() == from.origin());
        }
    }
    None
}

/// The server of an address: the rest may hold a secret.
pub(super) fn host(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => "the server".to_owned(),
    }
}

fn header_invalid() -> ToolError {
    let message = "what the integration was told cannot stand in a header: it holds a line break or a sign that \
                   no header may hold";
    ToolError::lasting("header_invalid", message)
}

fn address_refused(url: &Url) -> ToolError {
    ToolError::lasting("address_refused", refused_address(&host(url)))
}

pub(in crate::tools) fn refused_address(side: &str) -> String {
    format!(
        "{side} is not on the public Internet, and is not asked: whoever runs this server can allow its network by \
         the setting http_allow"
    )
}

fn not_sent(error: &reqwest::Error, url: &Url) -> ToolError {
    let side = host(url);
    if causes(error).any(|cause| cause.is::<Refused>()) {
        return address_refused(url);
    }
    if error.is_timeout() {
        let message =
            format!("{side} did not answer in time: check the address, and the way to it");
        return ToolError::passing("timed_out", message);
    }
    let told: Vec<String> =
        causes(error).map(|cause| cause.to_string().to_ascii_lowercase()).collect();
    let says =
        |words: &[&str]| told.iter().any(|text| words.iter().any(|word| text.contains(word)));
    let why = root_cause(error);
    if says(&["dns error", "failed to lookup"]) {
        let message = format!("there is no server called {side}: check its name ({why})");
        return ToolError::passing("dns_failed", message);
    }
    if says(&["certificate", "corrupt message", "handshake", "tls"]) {
        let message = format!(
            "the connection to {side} is not to be trusted: check its certificate, and that the address begins with \
             what it speaks, http:// or https:// ({why})"
        );
        return ToolError::lasting("tls_failed", message);
    }
    let message =
        format!("{side} cannot be reached: check the address, and whether it is up ({why})");
    ToolError::passing("unreachable", message)
}
