//! Where bytes lie: a local folder, or any object store.
//!
//! The rule of this file: `Ok` means that it will still be there after a power cut. The local
//! store of `object_store` never syncs, so the local folder is our own ([`crate::durable`]).

use std::{ops::Range, path::Path, sync::Arc};

use bytes::Bytes;
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use object_store::{
    GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, WriteMultipart, path::Path as Key,
};
use uuid::Uuid;

use crate::{
    Error,
    durable::{self, Folder, Unfinished},
};

/// How much of a file is read at once.
const READ_CHUNK: u64 = 128 * 1024;
/// How many parts of an upload may be on their way to an object store.
const PARTS_IN_FLIGHT: usize = 4;
/// Where an object store keeps what has no name yet.
const UNFINISHED: &str = "unfinished";
/// Unfinished objects older than this belong to nobody: several nodes share an object store.
const ABANDONED_AFTER_HOURS: u64 = 24;

/// A stream of bytes out of the vault.
pub type ByteStream = BoxStream<'static, Result<Bytes, Error>>;

/// The store under the vault.
#[derive(Clone)]
pub(crate) enum Objects {
    /// Our own durable files.
    Local(Arc<Folder>),
    /// An object store that is durable by itself, such as S3.
    Remote(Arc<dyn ObjectStore>),
}

impl Objects {
    /// Opens a local folder.
    pub(crate) async fn local(root: &Path) -> Result<Objects, Error> {
        let root = root.to_owned();
        let folder =
            blocking(move || Folder::open(&root).map_err(|error| Error::io(&root, error))).await?;
        Ok(Objects::Local(Arc::new(folder)))
    }

    /// Takes an object store, and removes what was abandoned in it.
    pub(crate) async fn remote(store: Arc<dyn ObjectStore>) -> Result<Objects, Error> {
        let mut unfinished = store.list(Some(&Key::from(UNFINISHED)));
        while let Some(object) = unfinished.try_next().await.map_err(Error::store)? {
            let age = std::time::SystemTime::now()
                .duration_since(object.last_modified.into())
                .unwrap_or_default();
            if age.as_secs() > ABANDONED_AFTER_HOURS * 3600 {
                absent_as_none(store.delete(&object.location).await)?;
            }
        }
        drop(unfinished);
        Ok(Objects::Remote(store))
    }

    /// Stores bytes under a name unless it is taken; says whether it did.
    pub(crate) async fn create(&self, name: &str, bytes: Bytes) -> Result<bool, Error> {
        match self {
            Objects::Local(folder) => {
                on_folder(folder, name, move |folder, name| folder.create(name, bytes)).await
            }
            Objects::Remote(store) => {
                let options = PutOptions::from(PutMode::Create);
                match store.put_opts(&Key::from(name), bytes.into(), options).await {
                    Ok(_) => Ok(true),
                    Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
                    Err(error) => Err(Error::store(error)),
                }
            }
        }
    }

    /// Stores bytes under a name, over what has that name now.
    pub(crate) async fn replace(&self, name: &str, bytes: Bytes) -> Result<(), Error> {
        match self {
            Objects::Local(folder) => {
                on_folder(folder, name, move |folder, name| folder.replace(name, bytes)).await
            }
            Objects::Remote(store) => {
                store.put(&Key::from(name), bytes.into()).await.map_err(Error::store)?;
                Ok(())
            }
        }
    }

    /// Reads a whole object; `None` when it certainly is not there.
    pub(crate) async fn read(&self, name: &str) -> Result<Option<Bytes>, Error> {
        match self {
            Objects::Local(folder) => on_folder(folder, name, Folder::read).await,
            Objects::Remote(store) => match absent_as_none(store.get(&Key::from(name)).await)? {
                Some(found) => found.bytes().await.map(Some).map_err(Error::store),
                None => Ok(None),
            },
        }
    }

    /// The size of an object; `None` when it certainly is not there.
    pub(crate) async fn size(&self, name: &str) -> Result<Option<u64>, Error> {
        match self {
            Objects::Local(folder) => on_folder(folder, name, Folder::size).await,
            Objects::Remote(store) => {
                Ok(absent_as_none(store.head(&Key::from(name)).await)?.map(|found| found.size))
            }
        }
    }

    /// Reads a part of an object that should have exactly `size` bytes.
    pub(crate) async fn stream(
        &self,
        name: &str,
        size: u64,
        range: Range<u64>,
    ) -> Result<Stored, Error> {
        match self {
            Objects::Local(folder) => {
                let Some((file, found)) = on_folder(folder, name, Folder::open_file).await? else {
                    return Ok(Stored::Absent);
                };
                if found != size {
                    return Ok(Stored::OtherSize);
                }
                let path = folder.path(name);
                Ok(Stored::Bytes(
                    stream::try_unfold((Arc::new(file), range), move |(file, range)| {
                        let path = path.clone();
                        async move {
                            if range.is_empty() {
                                return Ok(None);
                            }
                            let length = READ_CHUNK.min(range.end - range.start);
                            let (reader, offset) = (file.clone(), range.start);
                            let bytes = blocking(move || {
                                durable::read_at(&reader, offset, length as usize)
                                    .map_err(|error| Error::io(&path, error))
                            })
                            .await?;
                            Ok(Some((bytes, (file, range.start + length..range.end))))
                        }
                    })
                    .boxed(),
                ))
            }
            Objects::Remote(store) => {
                // Asked first: a store may refuse a range of an object that was cut short.
                match self.size(name).await? {
                    None => return Ok(Stored::Absent),
                    Some(found) if found != size => return Ok(Stored::OtherSize),
                    Some(_) if range.is_empty() => {
                        return Ok(Stored::Bytes(stream::empty().boxed()));
                    }
                    Some(_) => {}
                }
                let options = GetOptions::new().with_range(Some(range));
                let found = store.get_opts(&Key::from(name), options).await;
                Ok(match absent_as_none(found)? {
                    Some(found) => Stored::Bytes(found.into_stream().map_err(Error::store).boxed()),
                    None => Stored::Absent,
                })
            }
        }
    }

    /// Removes an object, for good; it is no error when it is not there.
    pub(crate) async fn delete(&self, name: &str) -> Result<(), Error> {
        match self {
            Objects::Local(folder) => on_folder(folder, name, Folder::delete).await,
            Objects::Remote(store) => {
                absent_as_none(store.delete(&Key::from(name)).await).map(|_| ())
            }
        }
    }

    /// Removes all objects below a name, for good.
    pub(crate) async fn delete_all(&self, name: &str) -> Result<(), Error> {
        match self {
            Objects::Local(folder) => on_folder(folder, name, Folder::delete_all).await,
            Objects::Remote(store) => {
                let mut found = store.list(Some(&Key::from(name)));
                while let Some(object) = found.try_next().await.map_err(Error::store)? {
                    absent_as_none(store.delete(&object.location).await)?;
                }
                Ok(())
            }
        }
    }

    /// The names of objects directly below a name, in no order.
    pub(crate) async fn list(&self, name: &str) -> Result<Vec<String>, Error> {
        match self {
            Objects::Local(folder) => on_folder(folder, name, Folder::list).await,
            Objects::Remote(store) => {
                let found = store.list_with_delimiter(Some(&Key::from(name))).await;
                let names = found.map_err(Error::store)?.objects.into_iter();
                Ok(names.filter_map(|o| o.location.filename().map(str::to_owned)).collect())
            }
        }
    }

    /// Begins an object whose name is not known yet.
    pub(crate) async fn begin(&self) -> Result<Upload, Error> {
        match self {
            Objects::Local(folder) => {
                let unfinished = on_folder(folder, UNFINISHED, |folder, _| folder.begin()).await?;
                Ok(Upload::Local(folder.clone(), unfinished))
            }
            Objects::Remote(store) => {
                let key = Key::from(format!("{UNFINISHED}/{}", Uuid::now_v7()));
                let parts = store.put_multipart(&key).await.map_err(Error::store)?;
                let writer = Some(WriteMultipart::new(parts));
                Ok(Upload::Remote(RemoteUpload { store: store.clone(), key, writer }))
            }
        }
    }
}

/// What a read found.
pub(crate) enum Stored {
    /// The object, and these are its bytes.
    Bytes(ByteStream),
    /// Certainly nothing.
    Absent,
    /// An object that is shorter or longer than it was.
    OtherSize,
}

/// An object that is being written. Dropped before it is finished, it leaves nothing.
pub(crate) enum Upload {
    /// A file without its name.
    Local(Arc<Folder>, Unfinished),
    /// Parts on their way.
    Remote(RemoteUpload),
}

impl Upload {
    /// Writes more bytes at the end.
    pub(crate) async fn write(self, chunks: Vec<Bytes>) -> Result<Upload, Error> {
        match self {
            Upload::Local(folder, mut unfinished) => {
                let unfinished = on_folder(&folder, UNFINISHED, move |_, _| {
                    unfinished.write(&chunks).map(|()| unfinished)
                })
                .await?;
                Ok(Upload::Local(folder, unfinished))
            }
            Upload::Remote(mut upload) => {
                let writer = upload.writer.as_mut().expect("taken only by finish and drop");
                for chunk in chunks {
                    writer.wait_for_capacity(PARTS_IN_FLIGHT).await.map_err(Error::store)?;
                    writer.put(chunk);
                }
                Ok(Upload::Remote(upload))
            }
        }
    }

    /// Gives the object its name, over what has that name now.
    pub(crate) async fn finish(self, name: &str) -> Result<(), Error> {
        match self {
            Upload::Local(folder, unfinished) => {
                on_folder(&folder, name, move |folder, name| folder.finish(unfinished, name)).await
            }
            Upload::Remote(mut upload) => {
                let writer = upload.writer.take().expect("taken only here and by drop");
                writer.finish().await.map_err(Error::store)?;
                let copied = upload.store.copy(&upload.key, &Key::from(name)).await;
                let cleared = upload.store.delete(&upload.key).await;
                copied.map_err(Error::store)?;
                absent_as_none(cleared).map(|_| ())
            }
        }
    }
}

/// Parts on their way to an object store.
pub(crate) struct RemoteUpload {
    store: Arc<dyn ObjectStore>,
    key: Key,
    writer: Option<WriteMultipart>,
}

impl Drop for RemoteUpload {
    fn drop(&mut self) {
        if let (Some(writer), Ok(runtime)) =
            (self.writer.take(), tokio::runtime::Handle::try_current())
        {
            // Parts that stay are never seen as an object, and a lifecycle rule of the store ends them.
            runtime.spawn(writer.abort());
        }
    }
}

/// Runs file work where it may block; a panic in it is a panic here.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Error::Stopping),
    }
}

async fn on_folder<T: Send + 'static>(
    folder: &Arc<Folder>,
    name: &str,
    work: impl FnOnce(&Folder, &str) -> std::io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    let (folder, name) = (folder.clone(), name.to_owned());
    blocking(move || work(&folder, &name).map_err(|error| Error::io(&folder.path(&name), error)))
        .await
}

fn absent_as_none<T>(outcome: object_store::Result<T>) -> Result<Option<T>, Error> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(Error::store(error)),
    }
}
