//! KurrentDB's protocol, as far as the double speaks it: servers, no clients.
//!
//! The rule of this file: it holds what the `.proto` files say, and nothing else.
#![allow(clippy::all, missing_docs, reason = "generated from the protocol's definition")]

/// What the services share.
pub mod shared {
    tonic::include_proto!("event_store.client");

    /// Appending and reading.
    pub mod streams {
        tonic::include_proto!("event_store.client.streams");
    }

    /// Who leads a cluster.
    pub mod gossip {
        tonic::include_proto!("event_store.client.gossip");
    }

    /// What a server can do.
    pub mod server_features {
        tonic::include_proto!("event_store.client.server_features");
    }
}

pub use shared::{gossip, server_features, streams};
