//! Folders that outlive a power cut.
//!
//! The rule of this file: `Ok` means that the name of every folder that was made for it is on the
//! disk. A folder that is only made is gone after a power cut, with all that was synced in it.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;

/// Makes a folder where there is none, and those above it.
///
/// # Errors
/// A folder cannot be made, or not be synced.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    make_missing(folder)?;
    // Whoever made it may not have synced it. Where the parent may not be read by us, it was not us.
    match sync_folder(parent(folder)) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        outcome => outcome,
    }
}

fn make_missing(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    make_missing(parent(folder))?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => {}
        outcome => outcome?,
    }
    sync_folder(parent(folder))
}

/// Syncs the names in a folder.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The folder of a path; that of a bare name is the current one.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}
