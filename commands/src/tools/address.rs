//! Which addresses an agent may reach.
//!
//! The rule of this file: an address is judged after its name was resolved, and only those that were
//! judged are connected to. A name that has another address a moment later gains nothing by it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// The addresses that may be reached: all that are public, and the networks that are allowed besides.
#[derive(Clone, Debug, Default)]
pub struct AddressPolicy {
    allowed: Arc<[IpNet]>,
}

/// A name has no address that may be reached.
#[derive(Debug, thiserror::Error)]
#[error("it has no address that may be reached")]
pub(super) struct Refused;

impl AddressPolicy {
    /// Public addresses, and these networks.
    pub fn new(allowed: Vec<IpNet>) -> AddressPolicy {
        AddressPolicy { allowed: allowed.into() }
    }

    /// Whether an address may be reached.
    pub fn permits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let is_public = match address {
            IpAddr::V4(address) => is_public_v4(address),
            IpAddr::V6(address) => match behind_nat64(address) {
                Some(address) => return self.permits(address.into()),
                None => is_public_v6(address),
            },
        };
        is_public || self.allowed.iter().any(|network| network.contains(&address))
    }
}

/// Resolves names into addresses that may be reached, and no others.
pub(super) struct Resolver(pub(super) AddressPolicy);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = self.0.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let permitted: Vec<SocketAddr> =
                found.filter(|address| policy.permits(address.ip())).collect();
            if permitted.is_empty() {
                return Err(Refused.into());
            }
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}

/// What the registries of special addresses list, and what clouds answer their machines at.
const NOT_PUBLIC_V4: [Ipv4Net; 16] = [
    v4([0, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    // Shared with customers of a provider (CGNAT); Alibaba's metadata among them.
    v4([100, 64, 0, 0], 10),
    v4([127, 0, 0, 0], 8),
    // Azure's machines are answered here.
    v4([168, 63, 129, 16], 32),
    // Of the link; the metadata of most clouds among them.
    v4([169, 254, 0, 0], 16),
    v4([172, 16, 0, 0], 12),
    // Of protocols; Oracle's metadata among them.
    v4([192, 0, 0, 0], 24),
    v4([192, 0, 2, 0], 24),
    // The way into 6to4.
    v4([192, 88, 99, 0], 24),
    v4([192, 168, 0, 0], 16),
    v4([198, 18, 0, 0], 15),
    v4([198, 51, 100, 0], 24),
    v4([203, 0, 113, 0], 24),
    // To many at once.
    v4([224, 0, 0, 0], 4),
    v4([240, 0, 0, 0], 4),
];

/// All that is in use worldwide. What is local, private, of a link, unspecified, to many at once, or
/// an old form of an IPv4 address is outside.
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0], 3);

const NOT_PUBLIC_V6: [Ipv6Net; 4] = [
    // Of protocols; Teredo among them, which holds IPv4 addresses.
    v6([0x2001, 0, 0], 23),
    v6([0x2001, 0xdb8, 0], 32),
    // 6to4, which holds IPv4 addresses and is out of use.
    v6([0x2002, 0, 0], 16),
    v6([0x3fff, 0, 0], 20),
];

/// How a network without IPv4 reaches it: the last four bytes are the address.
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0], 96);

const fn v4(bytes: [u8; 4], length: u8) -> Ipv4Net {
    let [a, b, c, d] = bytes;
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6(segments: [u16; 3], length: u8) -> Ipv6Net {
    let [a, b, c] = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), length)
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !NOT_PUBLIC_V4.iter().any(|network| network.contains(&address))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    GLOBAL_V6.contains(&address) && !NOT_PUBLIC_V6.iter().any(|network| network.contains(&address))
}

fn behind_nat64(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [.., a, b, c, d] = address.octets();
    NAT64.contains(&address).then(|| Ipv4Addr::new(a, b, c, d))
}

#[cfg(test)]
mod tests;
