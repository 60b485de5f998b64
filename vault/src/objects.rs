//! Where bytes lie: a local folder, or any object store.
//!
//! The rule of this file: `Ok` means that it will still be there after a power cut. The local
//! store of `object_store` never syncs, so the local folder is our own ([`crate::durable`]).

use std::{fs::File, ops::Range, path::Path, path::PathBuf, sync::Arc, time::SystemTime};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};

use crate::{
    Error,
    durable::{self, Folder, Unfinished},
    remote::{Remote, RemoteObject, RemoteUpload},
};

/// How much of a local file is read at once.
const LOCAL_WINDOW: u64 = 512 * 1024;
/// How much of an object is asked for at once: no request outlasts a slow reader of the whole.
const REMOTE_WINDOW: u64 = 4 * 1024 * 1024;

/// A stream of bytes out of the vault.
pub type ByteStream = BoxStream<'static, Result<Bytes, Error>>;

/// The store under the vault.
#[derive(Clone)]
pub(crate) enum Objects {
    /// Our own durable files.
    Local(Arc<Folder>),
    /// An object store that is durable by itself, such as S3.
    Remote(Remote),
}

/// An object as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) modified: SystemTime,
}

impl Objects {
    /// Opens a local folder.
    pub(crate) async fn local(root: &Path) -> Result<Objects, Error> {
        let root = root.to_owned();
        let folder =
            blocking(move || Folder::open(&root).map_err(|error| Error::io(&root, error))).await?;
        Ok(Objects::Local(Arc::new(folder)))
    }

    /// The largest object that can be stored.
    pub(crate) fn longest(&self) -> u64 {
        match self {
            Objects::Local(_) => u64::MAX,
            Objects::Remote(_) => Remote::LONGEST,
        }
    }

    /// How much is read at once.
    pub(crate) fn window(&self) -> u64 {
        match self {
            Objects::Local(_) => LOCAL_WINDOW,
            Objects::Remote(_) => REMOTE_WINDOW,
        }
    }

    /// Stores bytes under a name unless it is taken; says whether it did. Of many who do so at
    /// once, on one node or several, one does.
    pub(crate) async fn create(&self, name: &str, bytes: Bytes) -> Result<bool, Error> {
        match self {
            Objects::Local(folder) => {
                on_folder(folder, name, move |folder, name| folder.create(name, bytes)).await
            }
            Objects::Remote(remote) => remote.create(name, bytes).await,
        }
    }

    /// Stores bytes under a name, over what has that name now.
    pub(crate) async fn replace(&self, name: &str, bytes: Bytes) -> Result<(), Error> {
        match self {
            Objects::Local(folder) => {
                on_folder(folder, name, move |folder, name| folder.replace(name, bytes)).await
            }
            Objects::Remote(remote) => remote.replace(name, bytes).await,
        }
    }

    /// Reads a whole object; `None` when it certainly is not there.
    pub(crate) async fn read(&self, name: &str) -> Result<Option<Bytes>, Error> {
        match self {
            Objects::Local(folder) => on_folder(folder, name, Folder::read).await,
            Objects::Remote(remote) => remote.read(name).await,
        }
    }

    /// Opens an object for reading, and reads its last bytes, at most `tail` of them; `None` when it
    /// certainly is not there.
    pub(crate) async fn open(&self, name: &str, tail: u64) -> Result<Option<Object>, Error> {
        match self {
            Objects::Local(folder) => {
                let path = folder.path(name);
                on_folder(folder, name, move |folder, name| {
                    let Some((file, size)) = folder.open_file(name)? else { return Ok(None) };
                    let length = size.min(tail);
                    let tail = durable::read_at(&file, size - length, length as usize)?;
                    let source = Source::Local(Arc::new(file), path);
                    Ok(Some(Object { size, tail, source }))
                })
                .await
            }
            Objects::Remote(remote) => {
                let opened = remote.open(name, tail).await?;
                Ok(opened.map(|(size, tail, object)| Object {
                    size,
                    tail,
                    source: Source::Remote(object),
                }))
            }
        }
    }

    /// Removes an object, for good; it is no error when it is not there.
    pub(crate) async fn delete(&self, name: &str) -> Result<(), Error> {
        match self {
            Objects::Local(folder) => on_folder(folder, name, Folder::delete).await,
            Objects::Remote(remote) => remote.delete(name).await,
        }
    }

    /// Removes all objects below a name, for good.
    pub(crate) async fn delete_all(&self, name: &str) -> Result<(), Error> {
        match self {
            Objects::Local(folder) => on_folder(folder, name, Folder::delete_all).await,
            Objects::Remote(remote) => remote.delete_all(name).await,
        }
    }

    /// The names of objects directly below a name, in no order.
    pub(crate) async fn list(&self, name: &str) -> Result<Vec<String>, Error> {
        match self {
            Objects::Local(folder) => on_folder(folder, name, Folder::list).await,
            Objects::Remote(remote) => remote.list(name).await,
        }
    }

    /// Every object below a name, however deep, in no order.
    pub(crate) fn list_all(&self, name: &str) -> BoxStream<'static, Result<Listed, Error>> {
        match self {
            Objects::Local(folder) => {
                let (folder, first) = (folder.clone(), vec![name.to_owned()]);
                // One folder at a time: a store may hold more names than memory should.
                stream::try_unfold(first, move |mut folders| {
                    let store = folder.clone();
                    async move {
                        let Some(next) = folders.pop() else { return Ok(None) };
                        let (files, below) = on_folder(&store, &next, Folder::list_one).await?;
                        folders.extend(below);
                        Ok::<_, Error>(Some((stream::iter(files.into_iter().map(Ok)), folders)))
                    }
                })
                .try_flatten()
                .boxed()
            }
            Objects::Remote(remote) => remote.list_all(name),
        }
    }

    /// Moves an object to another name, unless it was written after `cutoff`; says whether it did.
    /// The other name's time is that of the move.
    ///
    /// At every moment at least one of the two names is there. Somebody who writes the first name
    /// meanwhile may find it gone, and its content under the other.
    pub(crate) async fn move_older(
        &self,
        from: &str,
        to: &str,
        cutoff: SystemTime,
    ) -> Result<bool, Error> {
        match self {
            Objects::Local(folder) => {
                let to = to.to_owned();
                on_folder(folder, from, move |folder, from| folder.move_older(from, &to, cutoff))
                    .await
            }
            Objects::Remote(remote) => remote.move_older(from, to, cutoff).await,
        }
    }

    /// Moves an object to another name, over what has that name now; says whether it was there.
    /// Its time is that of the move.
    pub(crate) async fn rename(&self, from: &str, to: &str) -> Result<bool, Error> {
        match self {
            Objects::Local(folder) => {
                let to = to.to_owned();
                on_folder(folder, from, move |folder, from| folder.rename(from, &to)).await
            }
            Objects::Remote(remote) => remote.rename(from, to).await,
        }
    }

    /// Begins an object whose name is not known yet.
    pub(crate) async fn begin(&self) -> Result<Upload, Error> {
        match self {
            Objects::Local(folder) => {
                let unfinished =
                    on_folder(folder, durable::UNFINISHED, |folder, _| folder.begin()).await?;
                Ok(Upload::Local(folder.clone(), unfinished))
            }
            Objects::Remote(remote) => Ok(Upload::Remote(remote.begin())),
        }
    }
}

/// An object that was opened for reading.
pub(crate) struct Object {
    /// Its size.
    pub(crate) size: u64,
    /// Its last bytes.
    pub(crate) tail: Bytes,
    source: Source,
}

enum Source {
    Local(Arc<File>, PathBuf),
    Remote(RemoteObject),
}

impl Object {
    /// Reads a part of it; `None` when it is no longer the one that was opened.
    pub(crate) async fn read(&self, range: Range<u64>) -> Result<Option<Bytes>, Error> {
        let in_tail = self.size - self.tail.len() as u64;
        if range.start >= in_tail {
            let part = (range.start - in_tail) as usize..(range.end - in_tail) as usize;
            return Ok(Some(self.tail.slice(part)));
        }
        match &self.source {
            Source::Local(file, path) => {
                let (file, path) = (file.clone(), path.clone());
                let length = (range.end - range.start) as usize;
                blocking(move || {
                    let read = durable::read_at(&file, range.start, length);
                    read.map(Some).map_err(|error| Error::io(&path, error))
                })
                .await
            }
            Source::Remote(object) => object.read(range).await,
        }
    }
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
                let unfinished = on_folder(&folder, durable::UNFINISHED, move |_, _| {
                    unfinished.write(&chunks).map(|()| unfinished)
                })
                .await?;
                Ok(Upload::Local(folder, unfinished))
            }
            Upload::Remote(mut upload) => {
                upload.write(chunks).await?;
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
            Upload::Remote(upload) => upload.finish(name).await,
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
