//! The one cipher of the vault: XChaCha20-Poly1305 with a random nonce in front.
//!
//! The rule of this file: every byte string that is authenticated is length-prefixed, so that two
//! different lists of parts can never give the same associated data.

use chacha20poly1305::{
    Tag, XChaCha20Poly1305, XNonce,
    aead::{AeadInOut, KeyInit},
};
use secrecy::{ExposeSecret, SecretBox};
use zeroize::Zeroizing;

use crate::Error;

/// The bytes of a key.
pub(crate) const KEY_LENGTH: usize = 32;
const NONCE_LENGTH: usize = 24;
const TAG_LENGTH: usize = 16;

/// A key in memory: wiped when dropped, never printed.
pub(crate) type Secret = SecretBox<[u8; KEY_LENGTH]>;

/// Thirty-two fresh random bytes.
pub(crate) fn random_secret() -> Result<Secret, Error> {
    let mut outcome = Ok(());
    let secret = Secret::init_with_mut(|bytes| outcome = getrandom::fill(bytes));
    outcome.map_err(Error::Random)?;
    Ok(secret)
}

/// Joins parts into associated data, each behind its length.
pub(crate) fn associated_data(parts: &[&[u8]]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
    for part in parts {
        joined.extend_from_slice(&(part.len() as u64).to_be_bytes());
        joined.extend_from_slice(part);
    }
    joined
}

/// Encrypts into `nonce || ciphertext || tag`.
pub(crate) fn encrypt(key: &Secret, associated: &[u8], clear: &[u8]) -> Result<Vec<u8>, Error> {
    let mut nonce = [0; NONCE_LENGTH];
    getrandom::fill(&mut nonce).map_err(Error::Random)?;
    let mut sealed = Vec::with_capacity(NONCE_LENGTH + clear.len() + TAG_LENGTH);
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(clear);
    let tag = XChaCha20Poly1305::new(key.expose_secret().into())
        .encrypt_inout_detached(
            &XNonce::from(nonce),
            associated,
            (&mut sealed[NONCE_LENGTH..]).into(),
        )
        .expect("the cipher takes 256 GiB, more than fits in memory here");
    sealed.extend_from_slice(&tag);
    Ok(sealed)
}

/// Decrypts what [`encrypt`] made; `None` when anything at all differs.
pub(crate) fn decrypt(
    key: &Secret,
    associated: &[u8],
    sealed: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, rest) = sealed.split_first_chunk::<NONCE_LENGTH>()?;
    let (body, tag) = rest.split_last_chunk::<TAG_LENGTH>()?;
    let mut clear = Zeroizing::new(body.to_vec());
    XChaCha20Poly1305::new(key.expose_secret().into())
        .decrypt_inout_detached(
            &XNonce::from(*nonce),
            associated,
            clear.as_mut_slice().into(),
            &Tag::from(*tag),
        )
        .ok()?;
    Some(clear)
}
