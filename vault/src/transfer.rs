//! What is stored, taken to another vault as it lies there: keys wrapped, blobs and artifacts sealed.
//!
//! The rule of this file: nothing is opened or sealed here, so whoever carries the bytes needs no key,
//! and learns nothing from them.

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};

use crate::artifacts::is_plain;
use crate::{ByteStream, Error, StoredObject, Vault, objects::Listed};

/// The value that tells whether a master key is the right one. Each vault makes its own.
pub const MASTER_CHECK: &str = "keys/master.json";

/// There as long as the vault is being filled.
const IMPORTING: &str = "importing.json";

/// How much of an object is asked for together with its size.
const TAIL: u64 = 1024 * 1024;

impl Vault {
    /// Every wrapped key, and the mark of every shredded one, in no order.
    pub fn stored_keys(&self) -> stream::BoxStream<'static, Result<StoredObject, Error>> {
        let listed = self.objects().list_all("keys");
        listed
            .map_ok(|Listed { name, size, modified }| StoredObject { name, size, modified })
            .boxed()
    }

    /// Reads a key, a blob or an artifact as it is stored: its size and its bytes. `None` when it
    /// certainly is not there.
    pub async fn read_stored(&self, name: &str) -> Result<Option<(u64, ByteStream)>, Error> {
        check_name(name)?;
        let Some(object) = self.objects().open(name, TAIL).await? else { return Ok(None) };
        let (size, window) = (object.size, self.objects().window());
        let name = name.to_owned();
        let stream =
            stream::try_unfold((object, name, 0), move |(object, name, from)| async move {
                let to = size.min(from + window);
                if from == to {
                    return Ok(None);
                }
                let bytes = object.read(from..to).await?;
                let bytes = bytes.ok_or_else(|| Error::Changed { name: name.clone() })?;
                Ok(Some((bytes, (object, name, to))))
            });
        Ok(Some((size, stream.boxed())))
    }

    /// Stores a key as it was stored elsewhere.
    ///
    /// # Errors
    /// [`Error::Taken`] when there is another one of that name.
    pub async fn put_stored_key(&self, name: &str, bytes: Bytes) -> Result<(), Error> {
        check_name(name)?;
        if !self.objects().create(name, bytes.clone()).await?
            && self.objects().read(name).await? != Some(bytes)
        {
            return Err(Error::Taken { name: name.to_owned() });
        }
        Ok(())
    }

    /// Stores a blob or an artifact as it was stored elsewhere, over what has that name now.
    pub async fn put_stored<E: From<Error>>(
        &self,
        name: &str,
        body: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<(), E> {
        check_name(name)?;
        let mut upload = self.objects().begin().await?;
        let mut body = std::pin::pin!(body);
        while let Some(bytes) = body.try_next().await? {
            upload = upload.write(vec![bytes]).await?;
        }
        Ok(upload.finish(name).await?)
    }

    /// Says that the vault is being filled, until [`Vault::end_import`]. What `from` says is kept as long.
    pub async fn begin_import(&self, from: &str) -> Result<(), Error> {
        self.objects().replace(IMPORTING, Bytes::copy_from_slice(from.as_bytes())).await
    }

    /// Says that the vault is filled.
    pub async fn end_import(&self) -> Result<(), Error> {
        self.objects().delete(IMPORTING).await
    }

    /// What [`Vault::begin_import`] was told, where no end followed it.
    pub async fn unfinished_import(&self) -> Result<Option<String>, Error> {
        let found = self.objects().read(IMPORTING).await?;
        Ok(found.map(|text| String::from_utf8_lossy(&text).into_owned()))
    }
}

/// Refuses what is no name of a key, a blob or an artifact: it may come from a file that anybody wrote.
fn check_name(name: &str) -> Result<(), Error> {
    let is_of_a_kind = matches!(name.split_once('/'), Some(("keys" | "blobs" | "artifacts", _)));
    if is_of_a_kind && name.len() <= 600 && is_plain(name) {
        Ok(())
    } else {
        Err(Error::InvalidName(name.to_owned()))
    }
}
