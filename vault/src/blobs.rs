//! Blobs: bytes too long for an event, named by a keyed hash of their content.
//!
//! The rule of this file: a blob is complete, synced and has its name, or there is nothing; what is
//! read of it, in whole or in part, was checked before it is answered; and nobody without the
//! product's key can tell what the content is, neither from the name nor from what is stored
//! (see [`crate::blocks`]).

use std::{mem, ops::Range, pin::pin, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::{
    ByteStream, Error, Opened, Place, PutError, Vault,
    blocks::{self, Opener, Sealer},
    cipher::{self, Secret},
    objects::{Object, blocking},
};

/// How much of a body is gathered before it is hashed, sealed and written, in one go.
const BATCH: usize = 512 * 1024;
/// A blob that takes no more than this in the store is fetched in one go.
const IN_ONE_GO: u64 = 1024 * 1024;
/// How often a blob is opened anew that others write over and over while it is read.
const ATTEMPTS: usize = 5;

/// A blob of a product: its name and its size.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BlobRef {
    /// HMAC-SHA256 of the content under a subkey of the product's key, 64 hexadecimal digits.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
}

impl Vault {
    /// Stores a body, streamed, as a blob of the product. On `Ok` it is on the disk; otherwise
    /// nothing of it is. The same content twice is one blob.
    ///
    /// The product's key (`product-<uuid>`) must exist.
    pub async fn put_blob<E>(
        &self,
        product: Uuid,
        body: impl Stream<Item = Result<Bytes, E>>,
        limit: u64,
    ) -> Result<BlobRef, PutError<E>> {
        let limit = limit.min(self.objects().longest());
        let mut hash = self.blob_hash(product).await?;
        let mut sealer = Sealer::new()?;
        let mut upload = self.objects().begin().await?;
        let mut body = pin!(body);
        let (mut size, mut batch, mut batched) = (0_u64, Vec::new(), 0);
        loop {
            let chunk = body.next().await.transpose().map_err(PutError::Body)?;
            let ended = chunk.is_none();
            if let Some(chunk) = chunk {
                size = size.saturating_add(chunk.len() as u64);
                if size > limit {
                    return Err(PutError::TooLarge { limit });
                }
                batched += chunk.len();
                batch.push(chunk);
            }
            if batched >= BATCH || (ended && batched > 0) {
                // Hashing and sealing share the bytes, not the thread.
                let chunks = mem::take(&mut batch);
                batched = 0;
                let hashing = update(hash, chunks.clone());
                let sealing = seal(sealer, chunks);
                let sealed;
                (hash, (sealer, sealed)) = futures::try_join!(hashing, sealing)?;
                upload = upload.write(sealed).await?;
            }
            if ended {
                break;
            }
        }
        let name = hex::encode(hash.finalize().into_bytes());
        let blob = BlobRef { name, size };
        let wrapping = self.blob_wrapping(product).await?;
        let last = sealer.finish(&wrapping, &associated_data(product, &blob))?;
        upload = upload.write(last).await?;
        // Over one of the same name: it has the same content, if it was not damaged meanwhile.
        upload.finish(&object_name(product, &blob)?).await?;
        Ok(blob)
    }

    /// The blob that a body would be. Nothing is stored.
    ///
    /// The product's key (`product-<uuid>`) must exist.
    pub async fn name_blob<E>(
        &self,
        product: Uuid,
        body: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<BlobRef, PutError<E>> {
        let mut hash = self.blob_hash(product).await?;
        let mut body = pin!(body);
        let mut size = 0_u64;
        while let Some(chunk) = body.next().await.transpose().map_err(PutError::Body)? {
            size = size.saturating_add(chunk.len() as u64);
            hash = update(hash, vec![chunk]).await?;
        }
        Ok(BlobRef { name: hex::encode(hash.finalize().into_bytes()), size })
    }

    /// Reads a blob, or a range of it, as a stream. Every byte of it was checked: where the blob is
    /// not what its name says, the stream ends in [`Error::Corrupt`] before that.
    pub async fn get_blob(
        &self,
        product: Uuid,
        blob: &BlobRef,
        range: Option<Range<u64>>,
    ) -> Result<ByteStream, Error> {
        let name = object_name(product, blob)?;
        // Asked first, whatever is stored: without the product's key its blobs are no more.
        let hash = self.blob_hash(product).await?;
        let wanted = range.unwrap_or(0..blob.size);
        if wanted.start > wanted.end || wanted.end > blob.size {
            let Range { start, end } = wanted;
            return Err(Error::InvalidRange { start, end, size: blob.size });
        }
        let reader = BlobReader { vault: self.clone(), product, blob: blob.clone(), name };
        Ok(match reader.open().await? {
            Content::Sealed(object, opener) => reader.sealed(object, opener, wanted),
            Content::Plain(object) => reader.plain(object, hash, wanted),
        })
    }

    /// Reads a whole blob of at most `max` bytes into memory, checked against its name.
    pub async fn blob_bytes(
        &self,
        product: Uuid,
        blob: &BlobRef,
        max: u64,
    ) -> Result<Bytes, Error> {
        if blob.size > max {
            return Err(Error::TooLong { size: blob.size, max });
        }
        let mut stream = self.get_blob(product, blob, None).await?;
        let mut bytes = BytesMut::with_capacity(blob.size as usize);
        while let Some(chunk) = stream.try_next().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }

    /// Whether a blob is there; one that was set aside as garbage is brought back.
    pub async fn has_blob(&self, product: Uuid, blob: &BlobRef) -> Result<bool, Error> {
        let name = object_name(product, blob)?;
        // A byte of its end: a store has no range of none.
        Ok(self.objects().open(&name, 1).await?.is_some() || self.bring_back(&name).await?)
    }

    /// Removes a blob, for good. The caller knows that nothing else of the product names it: the
    /// same content is one blob.
    pub async fn delete_blob(&self, product: Uuid, blob: &BlobRef) -> Result<(), Error> {
        self.remove(&object_name(product, blob)?).await
    }

    /// Removes all blobs of a product, for good.
    pub async fn delete_blobs(&self, product: Uuid) -> Result<(), Error> {
        self.objects().delete_all(&format!("blobs/{product}")).await?;
        self.objects().delete_all(&format!("garbage/blobs/{product}")).await
    }

    /// Seals bytes as [`Vault::seal`] does, and keeps them as a blob of the product: for payloads
    /// that are too long for an event. The reference is to the sealed bytes.
    pub async fn put_sealed_blob(
        &self,
        product: Uuid,
        key_id: &str,
        place: &Place<'_>,
        plaintext: &[u8],
    ) -> Result<BlobRef, Error> {
        let key = self.keys().get(key_id).await?;
        let sealed = Bytes::from(cipher::encrypt(&key, &place.associated_data(key_id), plaintext)?);
        let limit = sealed.len() as u64;
        let body = stream::iter([Ok::<_, Error>(sealed)]);
        self.put_blob(product, body, limit).await.map_err(|error| match error {
            PutError::Vault(error) | PutError::Body(error) => error,
            PutError::TooLarge { limit } => Error::TooLong { size: limit, max: limit },
        })
    }

    /// Opens what [`Vault::put_sealed_blob`] has kept, of at most `max` sealed bytes.
    pub async fn get_sealed_blob(
        &self,
        product: Uuid,
        key_id: &str,
        blob: &BlobRef,
        place: &Place<'_>,
        max: u64,
    ) -> Result<Opened, Error> {
        let Some(key) = self.keys().find(key_id).await? else { return Ok(Opened::Shredded) };
        if !self.key_exists(&product_key(product)).await? {
            return Ok(Opened::Shredded);
        }
        let sealed = self.blob_bytes(product, blob, max).await?;
        cipher::decrypt(&key, &place.associated_data(key_id), &sealed)
            .map(Opened::Clear)
            .ok_or_else(|| Error::SealRefused { key_id: key_id.to_owned() })
    }

    async fn blob_hash(&self, product: Uuid) -> Result<Hmac<Sha256>, Error> {
        let subkey = self.derive(&product_key(product), "blob-names").await?;
        Ok(Hmac::new_from_slice(subkey.as_slice()).expect("HMAC takes keys of any length"))
    }

    async fn blob_wrapping(&self, product: Uuid) -> Result<Secret, Error> {
        let subkey = self.derive(&product_key(product), "blob-contents").await?;
        Ok(Secret::init_with_mut(|key| key.copy_from_slice(subkey.as_slice())))
    }
}

/// What a blob was found to be.
enum Content {
    /// Sealed in blocks.
    Sealed(Object, Arc<Opener>),
    /// As it was uploaded: from before blobs were sealed.
    Plain(Object),
}

/// A blob that is being read.
struct BlobReader {
    vault: Vault,
    product: Uuid,
    blob: BlobRef,
    name: String,
}

impl BlobReader {
    fn corrupt(&self) -> Error {
        Error::Corrupt { name: self.blob.name.clone() }
    }

    /// Finds the blob, and tells by its size how it is stored.
    async fn open(&self) -> Result<Content, Error> {
        let stored = blocks::stored_size(self.blob.size);
        let tail = if stored <= IN_ONE_GO { stored } else { blocks::END };
        let objects = self.vault.objects();
        let object = match objects.open(&self.name, tail).await? {
            // It may have been set aside as garbage, and be wanted now.
            None if self.vault.bring_back(&self.name).await? => {
                objects.open(&self.name, tail).await?
            }
            found => found,
        };
        let object = object.ok_or_else(|| Error::BlobMissing { name: self.blob.name.clone() })?;
        if object.size == self.blob.size {
            return Ok(Content::Plain(object));
        }
        if object.size != stored {
            return Err(self.corrupt());
        }
        let wrapping = self.vault.blob_wrapping(self.product).await?;
        let end = object.tail.len().checked_sub(blocks::END as usize);
        let opener = end.and_then(|end| {
            let associated = associated_data(self.product, &self.blob);
            Opener::of_end(&object.tail[end..], &wrapping, &associated)
        });
        let opener = Arc::new(opener.ok_or_else(|| self.corrupt())?);
        Ok(Content::Sealed(object, opener))
    }

    /// Reads sealed blocks, window by window.
    fn sealed(self, object: Object, opener: Arc<Opener>, range: Range<u64>) -> ByteStream {
        let state = (self, object, opener, range);
        stream::try_unfold(state, |(reader, mut object, mut opener, range)| async move {
            if range.is_empty() {
                return Ok(None);
            }
            let window = reader.vault.objects().window();
            let (blocks, place) = blocks::covering(&range, reader.blob.size, window);
            for _ in 0..ATTEMPTS {
                let Some(sealed) = object.read(place.clone()).await? else {
                    // Written again since it was opened: the same content, under another key.
                    match reader.open().await? {
                        Content::Sealed(now, its) => (object, opener) = (now, its),
                        Content::Plain(_) => return Err(reader.corrupt()),
                    }
                    continue;
                };
                let (first, wanted, opening) = (blocks.start, range.clone(), opener.clone());
                let part = blocking(move || {
                    Ok(opening
                        .open(first, &sealed)
                        .map(|clear| Opener::part(first, clear, &wanted)))
                });
                let part = part.await?.ok_or_else(|| reader.corrupt())?;
                let rest = range.start + part.len() as u64..range.end;
                return Ok(Some((part, (reader, object, opener, rest))));
            }
            Err(reader.corrupt())
        })
        .boxed()
    }

    /// Reads plain bytes. They are all read, whatever was asked for, because only all of them tell
    /// whether they are what the name says; the last of what was asked for waits for that.
    fn plain(self, object: Object, hash: Hmac<Sha256>, range: Range<u64>) -> ByteStream {
        if range.is_empty() && self.blob.size > 0 {
            return stream::empty().boxed();
        }
        let state = (self, object, hash, range, 0_u64, Bytes::new());
        stream::try_unfold(
            state,
            |(reader, object, mut hash, range, mut read, mut held)| async move {
                while read < reader.blob.size {
                    let window = reader.vault.objects().window();
                    let place = read..(read + window).min(reader.blob.size);
                    let bytes =
                        object.read(place.clone()).await?.ok_or_else(|| reader.corrupt())?;
                    hash = update(hash, vec![bytes.clone()]).await?;
                    read = place.end;
                    let (start, end) = (range.start.max(place.start), range.end.min(place.end));
                    if start < end {
                        let part = bytes
                            .slice((start - place.start) as usize..(end - place.start) as usize);
                        let ready = mem::replace(&mut held, part);
                        if !ready.is_empty() {
                            return Ok(Some((ready, (reader, object, hash, range, read, held))));
                        }
                    }
                }
                let found = hex::encode(hash.clone().finalize().into_bytes());
                if !bool::from(found.as_bytes().ct_eq(reader.blob.name.as_bytes())) {
                    return Err(reader.corrupt());
                }
                let last = mem::take(&mut held);
                Ok((!last.is_empty()).then_some((last, (reader, object, hash, range, read, held))))
            },
        )
        .boxed()
    }
}

/// What the end of a blob is bound to.
fn associated_data(product: Uuid, blob: &BlobRef) -> Vec<u8> {
    let size = blob.size.to_be_bytes();
    cipher::associated_data(&[b"prodgy blob v1", product.as_bytes(), blob.name.as_bytes(), &size])
}

/// The id of a product's data key, which its blobs stand under.
pub fn product_key(product: Uuid) -> String {
    format!("product-{product}")
}

/// Where a blob lies. Names come from the log, and are not trusted to be names.
pub(crate) fn object_name(product: Uuid, blob: &BlobRef) -> Result<String, Error> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if blob.name.len() != 64 || !blob.name.bytes().all(is_digit) {
        return Err(Error::InvalidName(blob.name.clone()));
    }
    Ok(format!("blobs/{product}/{}/{}", &blob.name[..2], blob.name))
}

async fn update(mut hash: Hmac<Sha256>, chunks: Vec<Bytes>) -> Result<Hmac<Sha256>, Error> {
    blocking(move || {
        chunks.iter().for_each(|chunk| hash.update(chunk));
        Ok(hash)
    })
    .await
}

async fn seal(mut sealer: Sealer, chunks: Vec<Bytes>) -> Result<(Sealer, Vec<Bytes>), Error> {
    blocking(move || {
        let sealed = sealer.seal(&chunks);
        Ok((sealer, sealed))
    })
    .await
}
