//! `http.request`: asks a server on the web.
//!
//! The rule of this file: every address is judged before it is connected to, that of a redirect too;
//! what a step wrote for one server is not told to another; and no more of an answer is held than the
//! step allows. Messages name an address without its query, which may hold a secret.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::step::{Body, HttpCall, ReadAs};
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap,
    HeaderName, HeaderValue, LOCATION, USER_AGENT,
};
use reqwest::{Client, Method, Response, StatusCode, redirect};
use serde_json::{Map, Value, json};
use url::{Host, Url, form_urlencoded};

use super::address::{AddressPolicy, Refused, Resolver};
use super::transport::{causes, may_pass, retry_after, root_cause};
use crate::policies::ToolError;

/// How long a connection may take to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How long a connection is kept for the next request.
const IDLE_LIMIT: Duration = Duration::from_secs(20);

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What another server than the one that was meant is told: nothing that could let it in.
const TOLD_TO_OTHERS: [HeaderName; 6] =
    [ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, CONTENT_TYPE, USER_AGENT, IDEMPOTENCY_KEY];

/// Asks servers on the web.
#[derive(Clone, Debug)]
pub struct HttpTool {
    client: Client,
    policy: AddressPolicy,
}

impl HttpTool {
    /// Reaches the addresses that the policy permits. Proxies of the environment are not used: they
    /// would connect in its stead.
    ///
    /// # Errors
    /// The certificates of this machine cannot be read.
    pub fn new(policy: AddressPolicy) -> reqwest::Result<HttpTool> {
        let client = Client::builder()
            .no_proxy()
            .dns_resolver(Arc::new(Resolver(policy.clone())))
            .redirect(redirect::Policy::none())
            .referer(false)
            // The limit of a size is one of what came over the wire.
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .connect_timeout(CONNECT_LIMIT)
            .pool_idle_timeout(IDLE_LIMIT)
            .build()?;
        Ok(HttpTool { client, policy })
    }

    /// The client, for others that judge addresses as this one does.
    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Makes a request. What changes something on the other side is sent with the key, so that the
    /// server can tell a second attempt from a second wish.
    ///
    /// # Errors
    /// The address is not one that may be reached, the server cannot be reached, or its answer is not
    /// what the step expects.
    pub async fn call(&self, call: &HttpCall, idempotency_key: &str) -> Result<Value, ToolError> {
        let mut request = Outgoing::new(call, idempotency_key)?;
        let mut redirects = call.redirects;
        loop {
            let response = self.send(&request).await?;
            let Some(location) = redirection(&response).filter(|_| call.redirects > 0) else {
                return read(call, &request, response).await;
            };
            if redirects == 0 {
                let message = format!(
                    "{} led to more than {} redirects: raise `redirects`, or give the address that they lead to",
                    shown(&request.url),
                    call.redirects
                );
                return Err(ToolError::lasting("http_redirects_exceeded", message));
            }
            redirects -= 1;
            request.follow(response.status(), location)?;
        }
    }

    async fn send(&self, request: &Outgoing) -> Result<Response, ToolError> {
        // A name is judged when it is resolved; what is an address already never is.
        let literal = match request.url.host() {
            Some(Host::Ipv4(address)) => Some(address.into()),
            Some(Host::Ipv6(address)) => Some(address.into()),
            Some(Host::Domain(_)) | None => None,
        };
        if literal.is_some_and(|address| !self.policy.permits(address)) {
            return Err(address_refused(&request.url));
        }
        let mut sent = reqwest::Request::new(request.method.clone(), request.url.clone());
        *sent.headers_mut() = request.headers.clone();
        *sent.body_mut() = request.body.clone().map(Into::into);
        self.client.execute(sent).await.map_err(|error| not_sent(&error, &request.url))
    }
}

/// A request as it is sent.
struct Outgoing {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<Bytes>,
}

impl Outgoing {
    fn new(call: &HttpCall, idempotency_key: &str) -> Result<Outgoing, ToolError> {
        let mut url = Url::parse(&call.url).map_err(|error| {
            ToolError::lasting("http_url_invalid", format!("`url` is no address: {error}"))
        })?;
        if !matches!(url.scheme(), "http" | "https")
            || !url.username().is_empty()
            || url.password().is_some()
        {
            let message = "`url` begins with http:// or https:// and holds no user name: put secrets into a header";
            return Err(ToolError::lasting("http_url_invalid", message));
        }
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        let method = Method::from_bytes(call.method.as_str().as_bytes())
            .map_err(|error| ToolError::lasting("http_method_invalid", error.to_string()))?;
        let (body, content_type) = match &call.body {
            None => (None, None),
            Some(Body::Text(text)) => (Some(text.clone()), Some("text/plain; charset=utf-8")),
            Some(Body::Json(json)) => (Some(json.to_string()), Some("application/json")),
            Some(Body::Form(fields)) => {
                let form =
                    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
                (Some(form), Some("application/x-www-form-urlencoded"))
            }
        };
        let mut headers = HeaderMap::new();
        for (name, value) in &call.headers {
            let name = HeaderName::try_from(name).map_err(|_| header_invalid(name))?;
            let mut value =
                HeaderValue::try_from(value).map_err(|_| header_invalid(name.as_str()))?;
            value.set_sensitive(true);
            headers.append(name, value);
        }
        let mut default = |name: HeaderName, value: &str| {
            let value = HeaderValue::try_from(value).map_err(|_| header_invalid(name.as_str()))?;
            headers.entry(name).or_insert(value);
            Ok(())
        };
        default(ACCEPT, "*/*")?;
        default(ACCEPT_ENCODING, "identity")?;
        default(USER_AGENT, concat!("prodgy/", env!("CARGO_PKG_VERSION")))?;
        if let Some(content_type) = content_type {
            default(CONTENT_TYPE, content_type)?;
        }
        if !call.method.is_idempotent() {
            default(IDEMPOTENCY_KEY, idempotency_key)?;
        }
        Ok(Outgoing { method, url, headers, body: body.map(Bytes::from) })
    }

    /// Becomes the request that a redirect asks for, as RFC 9110 says and browsers do.
    fn follow(&mut self, status: StatusCode, location: &HeaderValue) -> Result<(), ToolError> {
        let from = shown(&self.url);
        let invalid = |why: &str| {
            let message = format!("{from} redirects to what is no address on the web: {why}");
            ToolError::lasting("http_redirect_invalid", message)
        };
        let location = location.to_str().map_err(|_| invalid("it is not text"))?;
        let mut url = self.url.join(location).map_err(|error| invalid(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(invalid("it begins with neither http:// nor https://"));
        }
        // Neither can fail on an address with a host.
        let _ = (url.set_username(""), url.set_password(None));
        if url.origin() != self.url.origin() {
            let kept = |name: &HeaderName| TOLD_TO_OTHERS.contains(name);
            let dropped: Vec<_> = self.headers.keys().filter(|name| !kept(name)).cloned().collect();
            for name in dropped {
                self.headers.remove(name);
            }
        }
        let is_to_be_got = match status {
            StatusCode::SEE_OTHER => self.method != Method::HEAD,
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => self.method == Method::POST,
            _ => false,
        };
        if is_to_be_got {
            self.method = Method::GET;
            self.body = None;
            self.headers.remove(CONTENT_TYPE);
            self.headers.remove(IDEMPOTENCY_KEY);
        }
        self.url = url;
        Ok(())
    }
}

/// Where a response leads to.
fn redirection(response: &Response) -> Option<&HeaderValue> {
    let leads_on = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    response.headers().get(LOCATION).filter(|_| leads_on)
}

/// What the step puts out.
async fn read(call: &HttpCall, request: &Outgoing, response: Response) -> Result<Value, ToolError> {
    let (status, headers) = (response.status(), response.headers().clone());
    let (url, method) = (shown(&request.url), &request.method);
    if !call.expect.contains(status.as_u16()) {
        let code = format!("http_status_{}", status.as_u16());
        let message = format!(
            "{method} {url} was answered {status}: put the status into `expect` to go on with such an answer"
        );
        let make = if may_pass(status) { ToolError::passing } else { ToolError::lasting };
        return Err(make(code, message).after(retry_after(&headers)));
    }
    let encoding = headers.get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity");
    let is_read = *method != Method::HEAD && call.response != ReadAs::Nothing;
    if encoding.is_some() && is_read {
        let message = format!(
            "{url} sent a compressed answer, which it was not asked for: leave the header \
             Accept-Encoding out, or ask another address"
        );
        return Err(ToolError::lasting("http_encoding_unsupported", message));
    }
    let bytes = match call.response {
        ReadAs::Nothing => Vec::new(),
        _ => read_bytes(response, call.max_bytes, &url).await?,
    };
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or_default().to_owned();
    let has_body = *method != Method::HEAD && !matches!(status.as_u16(), 204 | 205 | 304);
    let body = match call.response {
        ReadAs::Json if has_body => read_json(bytes, url).await?,
        ReadAs::Auto if is_json(&content_type) && !bytes.is_empty() => {
            read_json(bytes, url).await?
        }
        ReadAs::Auto if is_json(&content_type) => Value::Null,
        ReadAs::Json | ReadAs::Nothing => Value::Null,
        ReadAs::Auto | ReadAs::Text => Value::String(read_text(&bytes, &content_type)),
    };
    Ok(json!({
        "status": status.as_u16(),
        "headers": readable(&headers),
        "body": body,
        "url": request.url.as_str(),
    }))
}

async fn read_bytes(mut response: Response, limit: u64, url: &str) -> Result<Vec<u8>, ToolError> {
    let too_large = || {
        let message = format!(
            "the answer of {url} is larger than {limit} bytes: raise `max_bytes`, or ask for less"
        );
        ToolError::lasting("http_response_too_large", message)
    };
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    loop {
        let chunk = response.chunk().await.map_err(|error| {
            let message = format!("the answer of {url} broke off: {}", root_cause(&error));
            ToolError::passing("http_cut_off", message)
        })?;
        let Some(chunk) = chunk else { return Ok(bytes) };
        if (bytes.len() + chunk.len()) as u64 > limit {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
}

/// Megabytes of JSON take a while: they are read where it is in nobody's way.
async fn read_json(bytes: Vec<u8>, url: String) -> Result<Value, ToolError> {
    let read = tokio::task::spawn_blocking(move || {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        serde_json::from_slice(bytes).map_err(|error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            let message = format!(
                "the answer of {url} is not JSON ({place}): set `response` to \"text\", or ask for JSON by \
                 the header Accept"
            );
            ToolError::lasting("http_body_not_json", message)
        })
    });
    read.await.unwrap_or_else(|error| {
        let message = format!("the answer could not be read: {error}");
        Err(ToolError::lasting("http_body_not_json", message))
    })
}

/// Text in the character set that its type names, UTF-8 without one.
fn read_text(bytes: &[u8], content_type: &str) -> String {
    let mut parameters = content_type.split(';').skip(1).filter_map(|part| part.split_once('='));
    let charset = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
    let charset = charset.map(|(_, value)| value.trim().trim_matches('"').as_bytes());
    let encoding = charset.and_then(encoding_rs::Encoding::for_label);
    encoding.unwrap_or(encoding_rs::UTF_8).decode(bytes).0.into_owned()
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json") || essence == "text/json"
}

/// Headers as an object; the values of one that comes repeatedly, with commas in between.
fn readable(headers: &HeaderMap) -> Map<String, Value> {
    let mut object = Map::new();
    for name in headers.keys() {
        let values = headers.get_all(name).iter();
        let values: Vec<_> =
            values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
        object.insert(name.as_str().to_owned(), Value::String(values.join(", ")));
    }
    object
}

/// An address without what may be a secret in it.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

fn not_sent(error: &reqwest::Error, url: &Url) -> ToolError {
    if causes(error).any(|cause| cause.is::<Refused>()) {
        return address_refused(url);
    }
    if error.is_builder() {
        let message = format!("{} cannot be asked: check `url`", shown(url));
        return ToolError::lasting("http_url_invalid", message);
    }
    let message = format!(
        "{} cannot be reached: {}. Check the address, and whether the server is up",
        shown(url),
        root_cause(error)
    );
    ToolError::passing("http_unreachable", message)
}

fn address_refused(url: &Url) -> ToolError {
    let message = format!(
        "{} is not on the public Internet, and is not asked: whoever runs this server can allow its network by \
         the setting http_allow",
        shown(url)
    );
    ToolError::lasting("http_address_refused", message)
}

fn header_invalid(name: &str) -> ToolError {
    let message = format!(
        "the header `{name}` cannot be sent: its name or its value holds a line break or a sign that no header may hold"
    );
    ToolError::lasting("http_header_invalid", message)
}

#[cfg(test)]
mod tests;
