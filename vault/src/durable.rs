//! Files that are on the disk before anyone is told so.
//!
//! The rule of this file: `Ok` means that the bytes, the name, and every folder that was made for
//! it have been synced, and that a file is never seen half-written.

use std::{
    collections::HashSet,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use bytes::Bytes;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::objects::Listed;

/// How many folders are remembered as synced; beyond that they are synced once more.
const MAX_KNOWN_FOLDERS: usize = 16_384;

/// The folder of unfinished files.
pub(crate) const UNFINISHED: &str = "unfinished";

/// A file that is being written. Dropped before it has its name, it is removed.
pub(crate) struct Unfinished {
    path: PathBuf,
    file: File,
    renamed: bool,
}

impl Unfinished {
    fn create(path: PathBuf) -> io::Result<Unfinished> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Unfinished { path, file, renamed: false })
    }

    /// Writes more bytes at the end.
    pub(crate) fn write(&mut self, chunks: &[Bytes]) -> io::Result<()> {
        chunks.iter().try_for_each(|chunk| self.file.write_all(chunk))
    }

    /// Gives the file its name, over what has that name now.
    fn replace(mut self, name: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, name)?;
        self.renamed = true;
        sync_folder(parent(name))
    }

    /// Gives the file its name unless the name is taken; says whether it did.
    ///
    /// A link, because a rename would replace a file that someone else creates in the same moment.
    fn create_as(self, name: &Path) -> io::Result<bool> {
        self.file.sync_all()?;
        let created = match fs::hard_link(&self.path, name) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(error),
        };
        // Also when it was there: whoever made it may not have come this far yet.
        sync_folder(parent(name))?;
        Ok(created)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.renamed {
            // What cannot be removed now is removed when the store is opened next.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Creates a file with these bytes unless it exists; says whether it did. For single files that
/// lie outside a [`Folder`].
pub(crate) fn create_file(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    create_folders(parent(path))?;
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.new", Uuid::now_v7()));
    let mut unfinished = Unfinished::create(path.with_file_name(name))?;
    unfinished.file.write_all(bytes)?;
    unfinished.create_as(path)
}

/// Gives a file the name of another one in its folder, in whose place it comes.
pub(crate) fn rename_file(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)?;
    sync_folder(parent(to))
}

/// A store of files below one folder, named by relative paths with `/`.
pub(crate) struct Folder {
    root: PathBuf,
    /// Folders whose own entry in their parent is known to be synced.
    known: Mutex<HashSet<PathBuf>>,
    /// Held, shared, as long as the store is open: see [`Folder::clear_unfinished`].
    _lock: File,
}

impl Folder {
    /// Opens the store, making its folder where there is none, and removes what a crash has left.
    pub(crate) fn open(root: &Path) -> io::Result<Folder> {
        create_folders(root)?;
        // Whoever made the folder may not have synced it. A parent that may not be read by us was
        // not made by us.
        match sync_folder(parent(root)) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            outcome => outcome?,
        }
        let unfinished = root.join(UNFINISHED);
        create_folders(&unfinished)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(unfinished.join("lock"))?;
        // Only who is alone may clear: another process could be writing. The lock goes with the
        // process that held it, however it ended.
        if lock.try_lock().is_ok() {
            Folder::clear_unfinished(&unfinished)?;
            lock.unlock()?;
        }
        lock.lock_shared()?;
        Ok(Folder { root: root.to_owned(), known: Mutex::default(), _lock: lock })
    }

    fn clear_unfinished(folder: &Path) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name != "lock") {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// The path of a name, for messages and for use.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Begins a file whose name is not known yet.
    pub(crate) fn begin(&self) -> io::Result<Unfinished> {
        Unfinished::create(self.root.join(UNFINISHED).join(Uuid::now_v7().to_string()))
    }

    /// Gives a finished file its name, over what has that name now.
    pub(crate) fn finish(&self, unfinished: Unfinished, name: &str) -> io::Result<()> {
        let path = self.path(name);
        self.ensure_folder(parent(&path))?;
        unfinished.replace(&path)
    }

    /// Stores bytes under a name, over what has that name now.
    pub(crate) fn replace(&self, name: &str, bytes: Bytes) -> io::Result<()> {
        let mut unfinished = self.begin()?;
        unfinished.write(&[bytes])?;
        self.finish(unfinished, name)
    }

    /// Stores bytes under a name unless it is taken; says whether it did. On `Ok(false)` too, what
    /// has the name is on the disk.
    pub(crate) fn create(&self, name: &str, bytes: Bytes) -> io::Result<bool> {
        let path = self.path(name);
        self.ensure_folder(parent(&path))?;
        if path.try_exists()? {
            // Whoever made it may not have synced its name yet; its bytes were synced before that.
            sync_folder(parent(&path))?;
            return Ok(false);
        }
        let mut unfinished = self.begin()?;
        unfinished.write(&[bytes])?;
        unfinished.create_as(&path)
    }

    /// Reads a whole file; `None` when it certainly is not there.
    pub(crate) fn read(&self, name: &str) -> io::Result<Option<Bytes>> {
        absent_as_none(fs::read(self.path(name)).map(Bytes::from))
    }

    /// Opens a file for reading, with its size; `None` when it certainly is not there.
    pub(crate) fn open_file(&self, name: &str) -> io::Result<Option<(File, u64)>> {
        absent_as_none(File::open(self.path(name)).and_then(|file| {
            let size = file.metadata()?.len();
            Ok((file, size))
        }))
    }

    /// Removes a file, for good; it is no error when it is not there.
    pub(crate) fn delete(&self, name: &str) -> io::Result<()> {
        let path = self.path(name);
        match absent_as_none(fs::remove_file(&path))? {
            Some(()) => sync_folder(parent(&path)),
            // It may have been removed a moment ago, and not be synced yet.
            None => absent_as_none(sync_folder(parent(&path))).map(|_| ()),
        }
    }

    /// Removes a folder with all that is in it, for good.
    pub(crate) fn delete_all(&self, name: &str) -> io::Result<()> {
        let path = self.path(name);
        let removed = absent_as_none(fs::remove_dir_all(&path));
        self.known.lock().retain(|known| !known.starts_with(&path));
        removed?;
        absent_as_none(sync_folder(parent(&path))).map(|_| ())
    }

    /// The names of the files directly in a folder, in no order.
    pub(crate) fn list(&self, name: &str) -> io::Result<Vec<String>> {
        let Some(entries) = absent_as_none(fs::read_dir(self.path(name)))? else {
            return Ok(Vec::new());
        };
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    /// The files directly in a folder, and the folders in it, by their names below the store.
    pub(crate) fn list_one(&self, name: &str) -> io::Result<(Vec<Listed>, Vec<String>)> {
        let (mut files, mut folders) = (Vec::new(), Vec::new());
        let Some(entries) = absent_as_none(fs::read_dir(self.path(name)))? else {
            return Ok((files, folders));
        };
        for entry in entries {
            let entry = entry?;
            let name = format!("{name}/{}", entry.file_name().to_string_lossy());
            // Gone since the folder was read: somebody else removed it.
            let Some(metadata) = absent_as_none(entry.metadata())? else { continue };
            if metadata.is_dir() {
                folders.push(name);
            } else {
                files.push(Listed { name, size: metadata.len(), modified: metadata.modified()? });
            }
        }
        Ok((files, folders))
    }

    /// Moves a file to another name, unless it was written after `cutoff`; says whether it did.
    pub(crate) fn move_older(&self, from: &str, to: &str, cutoff: SystemTime) -> io::Result<bool> {
        let path = self.path(from);
        let modified = absent_as_none(fs::metadata(&path).and_then(|found| found.modified()))?;
        if modified.is_none_or(|modified| modified > cutoff) {
            return Ok(false);
        }
        self.rename(from, to)
    }

    /// Moves a file to another name, over what has that name now, and lets it count as written now;
    /// says whether it was there.
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<bool> {
        let (from, to) = (self.path(from), self.path(to));
        // The time first: with an old one, what has just been moved would be taken for long moved.
        let touched = absent_as_none(File::open(&from).and_then(|file| {
            file.set_modified(SystemTime::now())?;
            file.sync_all()
        }))?;
        if touched.is_none() {
            return Ok(false);
        }
        self.ensure_folder(parent(&to))?;
        if absent_as_none(fs::rename(&from, &to))?.is_none() {
            return Ok(false);
        }
        // The new name before the old one's absence: a cut may leave both, never neither.
        sync_folder(parent(&to))?;
        absent_as_none(sync_folder(parent(&from)))?;
        Ok(true)
    }

    /// Makes a folder and all above it, and sees to it that each is synced.
    ///
    /// That a folder exists is not enough: a neighbour may have made it and not have synced it.
    fn ensure_folder(&self, folder: &Path) -> io::Result<()> {
        if folder == self.root || self.known.lock().contains(folder) {
            return Ok(());
        }
        self.ensure_folder(parent(folder))?;
        create_folder(folder)?;
        sync_folder(parent(folder))?;
        let mut known = self.known.lock();
        if known.len() >= MAX_KNOWN_FOLDERS {
            known.clear();
        }
        known.insert(folder.to_owned());
        Ok(())
    }
}

/// Reads `length` bytes at `offset`; an end of the file before that is an error.
pub(crate) fn read_at(file: &File, offset: u64, length: usize) -> io::Result<Bytes> {
    let mut buffer = vec![0; length];
    file.read_exact_at(&mut buffer, offset)?;
    Ok(Bytes::from(buffer))
}

/// Makes the folders that are missing, synced, down to this one.
fn create_folders(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    create_folders(parent(folder))?;
    create_folder(folder)?;
    sync_folder(parent(folder))
}

fn create_folder(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        outcome => outcome,
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The folder of a path; that of a bare name is the current one.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

fn absent_as_none<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
