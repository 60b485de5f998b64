//! What every suite of the vault uses, wherever the vault is.

use std::{
    convert::Infallible,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::{Stream, stream};
use uuid::Uuid;
use vault::Place;
pub use vault::product_key;

pub fn place(field: &str) -> Place<'_> {
    Place {
        organization: Uuid::from_u128(7),
        stream: "user-0193",
        event_type: "user.created.v1",
        field,
    }
}

/// A body in chunks of this size.
pub fn body(bytes: &[u8], chunk: usize) -> impl Stream<Item = Result<Bytes, Infallible>> + use<> {
    let chunks: Vec<_> = bytes.chunks(chunk).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
    stream::iter(chunks)
}

/// Bytes that repeat nowhere soon.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// The time so long ago.
pub fn ago(time: Duration) -> SystemTime {
    SystemTime::now() - time
}
