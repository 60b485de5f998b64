//! The address of the client, seen through the proxies that the operator trusts.
//!
//! The one rule: a forwarded address is believed only as far as an unbroken chain of trusted
//! proxies vouches for it, so it is read from the right.
//!
//! Which header those proxies write is configuration (`X-Forwarded-For`, or RFC 7239 `Forwarded`):
//! a proxy passes on the other one as the client sent it, and believing both would let clients
//! choose their address.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts, Request};
use axum::http::header::FORWARDED;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderName};
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Problem;
use super::header::X_FORWARDED_FOR;

/// The address that a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

impl ClientAddress {
    /// The address that the layer has found.
    pub(super) fn of(extensions: &Extensions) -> Result<Self, Problem> {
        let address = extensions.get().copied();
        address.ok_or_else(|| Problem::bug("the request has no address: is the layer missing?"))
    }
}

/// Whose word about a client's address is believed, and in which header.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Arc<(Vec<IpNet>, ForwardedHeader)>);

/// The header in which trusted proxies write where a request came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedHeader {
    /// `X-Forwarded-For: client, proxy`
    #[default]
    XForwardedFor,
    /// `Forwarded: for=client, for=proxy` (RFC 7239)
    Forwarded,
}

impl TrustedProxies {
    /// Trusts the proxies of these networks to write this header.
    pub fn new(networks: Vec<IpNet>, header: ForwardedHeader) -> Self {
        TrustedProxies(Arc::new((networks, header)))
    }

    /// The client behind a connection: the first address, from the right, that is no proxy of ours.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.trusts(client) {
            return client;
        }
        for hop in self.hops(headers).iter().rev() {
            // What cannot be read ("unknown", a made-up name) ends what is vouched for.
            let Some(address) = hop else { return client };
            client = *address;
            if !self.trusts(client) {
                return client;
            }
        }
        client
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.0.iter().any(|network| network.contains(&address))
    }

    fn hops(&self, headers: &HeaderMap) -> Vec<Option<IpAddr>> {
        match self.0.1 {
            ForwardedHeader::XForwardedFor => {
                elements(headers, &X_FORWARDED_FOR).map(parse_node).collect()
            }
            ForwardedHeader::Forwarded => elements(headers, &FORWARDED)
                .map(|element| {
                    let parameters = element.split(';').filter_map(|part| part.split_once('='));
                    let mut named_for =
                        parameters.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for"));
                    parse_node(named_for.next()?.1.trim().trim_matches('"'))
                })
                .collect(),
        }
    }
}

/// The layer: puts the [`ClientAddress`] where handlers and other layers find it.
pub async fn find_address(
    proxies: &TrustedProxies,
    mut request: Request,
    next: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    let Some(ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<SocketAddr>>() else {
        return Problem::bug("no peer address: serve with connect info").into_response();
    };
    let address = ClientAddress(proxies.client(peer.ip(), request.headers()));
    request.extensions_mut().insert(address);
    next(request).await
}

impl<S: Send + Sync> FromRequestParts<S> for ClientAddress {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        ClientAddress::of(&parts.extensions)
    }
}

/// The elements of a list header over all its lines; `""` for a line that is not text.
fn elements<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let lines = headers.get_all(name).iter().map(|line| line.to_str().unwrap_or_default());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.
fn parse_node(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().or_else(|_| text.parse().map(|a: SocketAddr| a.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests;
