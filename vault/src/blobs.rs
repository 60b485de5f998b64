//! Blobs: bytes too long for an event, named by a keyed hash of their content.
//!
//! The rule of this file: a blob is complete, synced and has its name, or there is nothing; and
//! nobody without the product's key can tell from a name what the content is.

use std::{mem, ops::Range, pin::pin};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::{
    ByteStream, Error, Opened, Place, PutError, Vault, cipher,
    objects::{Stored, blocking},
};

/// How much of a body is gathered before it is hashed and written, in one go.
const BATCH: usize = 512 * 1024;

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
        let mut hash = self.blob_hash(product).await?;
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
                // Hashing and writing share the bytes, not the thread.
                let chunks = mem::take(&mut batch);
                batched = 0;
                let hashing = update(hash, chunks.clone());
                (hash, upload) = futures::try_join!(hashing, upload.write(chunks))?;
            }
            if ended {
                break;
            }
        }
        let name = hex::encode(hash.finalize().into_bytes());
        let blob = BlobRef { name, size };
        // Over one of the same name: it has the same content, if it was not damaged meanwhile.
        upload.finish(&object_name(product, &blob)?).await?;
        Ok(blob)
    }

    /// Reads a blob, or a range of it, as a stream. A blob read whole is checked against its name:
    /// where it does not fit, the stream ends in [`Error::Corrupt`].
    pub async fn get_blob(
        &self,
        product: Uuid,
        blob: &BlobRef,
        range: Option<Range<u64>>,
    ) -> Result<ByteStream, Error> {
        let name = object_name(product, blob)?;
        // Asked even where it is not needed: without the product's key its blobs are no more.
        let hash = self.blob_hash(product).await?;
        let whole = 0..blob.size;
        let wanted = range.unwrap_or(whole.clone());
        if wanted.start > wanted.end || wanted.end > blob.size {
            let Range { start, end } = wanted;
            return Err(Error::InvalidRange { start, end, size: blob.size });
        }
        let verified = wanted == whole;
        match self.objects().stream(&name, blob.size, wanted).await? {
            Stored::Absent => Err(Error::BlobMissing { name: blob.name.clone() }),
            Stored::OtherSize => Err(Error::Corrupt { name: blob.name.clone() }),
            Stored::Bytes(bytes) if verified => Ok(verify(bytes, hash, blob.name.clone())),
            Stored::Bytes(bytes) => Ok(bytes),
        }
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

    /// Removes a blob, for good. The caller knows that nothing else of the product names it: the
    /// same content is one blob.
    pub async fn delete_blob(&self, product: Uuid, blob: &BlobRef) -> Result<(), Error> {
        self.objects().delete(&object_name(product, blob)?).await
    }

    /// Removes all blobs of a product, for good.
    pub async fn delete_blobs(&self, product: Uuid) -> Result<(), Error> {
        self.objects().delete_all(&format!("blobs/{product}")).await
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
}

fn product_key(product: Uuid) -> String {
    format!("product-{product}")
}

/// Where a blob lies. Names come from the log, and are not trusted to be names.
fn object_name(product: Uuid, blob: &BlobRef) -> Result<String, Error> {
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

/// Passes bytes on, and ends in an error when they were not what the name says.
fn verify(bytes: ByteStream, hash: Hmac<Sha256>, name: String) -> ByteStream {
    stream::try_unfold((bytes, hash), move |(mut bytes, mut hash)| {
        let name = name.clone();
        async move {
            if let Some(chunk) = bytes.try_next().await? {
                hash.update(&chunk);
                return Ok(Some((chunk, (bytes, hash))));
            }
            let found = hex::encode(hash.finalize().into_bytes());
            if bool::from(found.as_bytes().ct_eq(name.as_bytes())) {
                Ok(None)
            } else {
                Err(Error::Corrupt { name })
            }
        }
    })
    .boxed()
}
