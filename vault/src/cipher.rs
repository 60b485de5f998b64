//! The one cipher of the vault: XChaCha20-Poly1305, with a random nonce in front, or, for the blocks of
//! a blob under its own key, with their number as the nonce.
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
/// The bytes of a tag.
pub(crate) const TAG_LENGTH: usize = 16;

/// A key in memory: wiped when dropped, never printed.
pub(crate) type Secret = SecretBox<[u8; KEY_LENGTH]>;

/// Thirty-two fresh random bytes.
pub(crate) fn random_secret() -> Result<Secret, Error> {
    let mut outcome = Ok(());
    let secret = Secret::init_with_mut(|bytes| outcome = getrandom::fill(bytes));
    outcome.map_err(Error::Random)?;
    Ok(secret)
}

/// How long [`encrypt`] makes a text of this length.
pub(crate) const fn sealed_length(length: usize) -> usize {
    NONCE_LENGTH + length + TAG_LENGTH
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

/// Seals numbered blocks under a key that seals nothing else: the number is the nonce.
pub(crate) struct BlockCipher(XChaCha20Poly1305);

impl BlockCipher {
    pub(crate) fn new(key: &Secret) -> BlockCipher {
        BlockCipher(XChaCha20Poly1305::new(key.expose_secret().into()))
    }

    /// Seals a block where it lies, and puts its tag behind it.
    pub(crate) fn seal(&self, index: u64, block: &mut Vec<u8>) {
        let tag = self
            .0
            .encrypt_inout_detached(&block_nonce(index), &[], block.as_mut_slice().into())
            .expect("the cipher takes 256 GiB, more than fits in memory here");
        block.extend_from_slice(&tag);
    }

    /// Opens a block and puts its content behind `clear`; `None` when anything at all differs.
    pub(crate) fn open(&self, index: u64, sealed: &[u8], clear: &mut Vec<u8>) -> Option<()> {
        let (body, tag) = sealed.split_last_chunk::<TAG_LENGTH>()?;
        let start = clear.len();
        clear.extend_from_slice(body);
        let content = &mut clear[start..];
        self.0
            .decrypt_inout_detached(&block_nonce(index), &[], content.into(), &Tag::from(*tag))
            .ok()
    }
}

fn block_nonce(index: u64) -> XNonce {
    let mut nonce = [0; NONCE_LENGTH];
    nonce[NONCE_LENGTH - 8..].copy_from_slice(&index.to_be_bytes());
    XNonce::from(nonce)
}
