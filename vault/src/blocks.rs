//! How a blob lies in the store: in blocks, each sealed by itself, and behind them the key to them.
//!
//! The rule of this file: no byte leaves it that was not checked, whether a blob is read whole or in
//! part. The key of a blob is of this blob alone and is wrapped by its product's, for its product,
//! name and size; so a block of another blob, of another place, or of an older content does not open,
//! and without the product's key there is nothing to read.
//!
//! ```text
//! block 0 ‖ tag   block 1 ‖ tag   …   last block ‖ tag   format ‖ nonce ‖ wrapped key ‖ tag
//! ```

use std::ops::Range;

use bytes::Bytes;
use secrecy::{ExposeSecret, ExposeSecretMut};

use crate::{
    Error,
    cipher::{self, BlockCipher, KEY_LENGTH, Secret, TAG_LENGTH},
};

/// The content of a block: what is read at least, for a range of one byte.
const BLOCK: u64 = 128 * 1024;
/// A block with its tag.
const SEALED_BLOCK: u64 = BLOCK + TAG_LENGTH as u64;
/// The first byte of the end.
const FORMAT: u8 = 1;
/// What lies behind the blocks.
pub(crate) const END: u64 = 1 + cipher::sealed_length(KEY_LENGTH) as u64;

/// How long a blob of this size is in the store.
pub(crate) fn stored_size(size: u64) -> u64 {
    size + size.div_ceil(BLOCK) * TAG_LENGTH as u64 + END
}

/// Which sealed blocks hold a range of the content, at most `window` bytes of them: their numbers,
/// and where they lie.
pub(crate) fn covering(range: &Range<u64>, size: u64, window: u64) -> (Range<u64>, Range<u64>) {
    let first = range.start / BLOCK;
    let last = range.end.div_ceil(BLOCK).min(first + (window / BLOCK).max(1));
    let end = (last * SEALED_BLOCK).min(stored_size(size) - END);
    (first..last, first * SEALED_BLOCK..end)
}

/// Seals the blocks of a blob that is being written.
pub(crate) struct Sealer {
    key: Secret,
    cipher: BlockCipher,
    index: u64,
    block: Vec<u8>,
}

impl Sealer {
    pub(crate) fn new() -> Result<Sealer, Error> {
        let key = cipher::random_secret()?;
        let cipher = BlockCipher::new(&key);
        Ok(Sealer { key, cipher, index: 0, block: Vec::new() })
    }

    /// Takes more content, and answers the blocks that are full.
    pub(crate) fn seal(&mut self, chunks: &[Bytes]) -> Vec<Bytes> {
        let mut sealed = Vec::new();
        for chunk in chunks {
            let mut chunk = chunk.as_ref();
            while !chunk.is_empty() {
                let room = BLOCK as usize - self.block.len();
                let (taken, rest) = chunk.split_at(chunk.len().min(room));
                if self.block.is_empty() {
                    self.block.reserve_exact(SEALED_BLOCK as usize);
                }
                self.block.extend_from_slice(taken);
                chunk = rest;
                if self.block.len() == BLOCK as usize {
                    sealed.push(self.close_block());
                }
            }
        }
        sealed
    }

    /// Answers what is left: the last block, and the end, which names what this is.
    pub(crate) fn finish(
        mut self,
        wrapping: &Secret,
        associated: &[u8],
    ) -> Result<Vec<Bytes>, Error> {
        let mut last = Vec::new();
        if !self.block.is_empty() {
            last.push(self.close_block());
        }
        let mut end = vec![FORMAT];
        end.extend(cipher::encrypt(wrapping, associated, self.key.expose_secret())?);
        last.push(Bytes::from(end));
        Ok(last)
    }

    fn close_block(&mut self) -> Bytes {
        let mut block = std::mem::take(&mut self.block);
        self.cipher.seal(self.index, &mut block);
        self.index += 1;
        Bytes::from(block)
    }
}

/// Opens the blocks of a blob.
pub(crate) struct Opener(BlockCipher);

impl Opener {
    /// Reads the end of a blob; `None` when it is not the end of the blob that `associated` names.
    pub(crate) fn of_end(end: &[u8], wrapping: &Secret, associated: &[u8]) -> Option<Opener> {
        let (&FORMAT, wrapped) = end.split_first()? else { return None };
        let clear = cipher::decrypt(wrapping, associated, wrapped)?;
        let mut key = Secret::default();
        key.expose_secret_mut().copy_from_slice(clear.get(..KEY_LENGTH)?);
        (clear.len() == KEY_LENGTH).then(|| Opener(BlockCipher::new(&key)))
    }

    /// Opens the blocks from this number on; `None` when any of them is not what was stored.
    pub(crate) fn open(&self, first: u64, sealed: &[u8]) -> Option<Vec<u8>> {
        let mut clear = Vec::with_capacity(sealed.len());
        for (index, block) in (first..).zip(sealed.chunks(SEALED_BLOCK as usize)) {
            self.0.open(index, block, &mut clear)?;
        }
        Some(clear)
    }

    /// The part of opened blocks that was asked for.
    pub(crate) fn part(first: u64, clear: Vec<u8>, range: &Range<u64>) -> Bytes {
        let begin = first * BLOCK;
        let end = range.end.min(begin + clear.len() as u64);
        Bytes::from(clear).slice((range.start - begin) as usize..(end - begin) as usize)
    }
}

#[cfg(test)]
mod tests;
