//! What the store does with folders, leftovers and a disk that is full.

use tempfile::TempDir;

use super::*;

fn store() -> (TempDir, Folder) {
    let parent = TempDir::new().unwrap();
    let folder = Folder::open(&parent.path().join("store")).unwrap();
    (parent, folder)
}

fn unfinished(folder: &Folder) -> Vec<String> {
    let mut names = folder.list(UNFINISHED).unwrap();
    names.retain(|name| name != "lock");
    names
}

/// A file on a disk that has no room: the kernel's own.
fn on_a_full_disk(folder: &Folder) -> Unfinished {
    let mut unfinished = folder.begin().unwrap();
    unfinished.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
    unfinished
}

#[test]
fn a_full_disk_is_named_and_leaves_nothing() {
    let (_parent, folder) = store();
    let mut file = on_a_full_disk(&folder);
    let error = file.write(&[Bytes::from_static(b"text")]).unwrap_err();
    assert_eq!(unfinished(&folder).len(), 1);
    drop(file);
    assert!(unfinished(&folder).is_empty());
    let error = crate::Error::io(&folder.path("blobs/a"), error);
    assert!(matches!(error, crate::Error::DiskFull), "{error:?}");
    assert_eq!(error.to_string(), "the disk is full: free some space, nothing was stored");
}

#[test]
fn a_file_that_cannot_be_synced_gets_no_name() {
    let (_parent, folder) = store();
    for create in [true, false] {
        let mut file = folder.begin().unwrap();
        // Syncing what is no file fails, as syncing to a broken disk does.
        file.file = OpenOptions::new().write(true).open("/dev/null").unwrap();
        let name = folder.path("name");
        let outcome = if create { file.create_as(&name).map(|_| ()) } else { file.replace(&name) };
        assert!(outcome.is_err());
        assert!(!name.exists());
        assert!(unfinished(&folder).is_empty());
    }
}

#[test]
fn a_name_that_is_taken_is_kept() {
    let (_parent, folder) = store();
    assert!(folder.create("a/b", Bytes::from_static(b"first")).unwrap());
    assert!(!folder.create("a/b", Bytes::from_static(b"second")).unwrap());
    // Also where both have looked before either had made it.
    let mut late = folder.begin().unwrap();
    late.write(&[Bytes::from_static(b"third")]).unwrap();
    assert!(!late.create_as(&folder.path("a/b")).unwrap());
    assert_eq!(folder.read("a/b").unwrap().unwrap(), "first");
    folder.replace("a/b", Bytes::from_static(b"fourth")).unwrap();
    assert_eq!(folder.read("a/b").unwrap().unwrap(), "fourth");
    assert!(unfinished(&folder).is_empty());
}

#[test]
fn a_folder_that_was_removed_is_made_again() {
    let (_parent, folder) = store();
    folder.replace("a/b/c", Bytes::from_static(b"text")).unwrap();
    folder.delete_all("a").unwrap();
    assert!(folder.read("a/b/c").unwrap().is_none());
    folder.replace("a/b/c", Bytes::from_static(b"text")).unwrap();
    assert_eq!(folder.read("a/b/c").unwrap().unwrap(), "text");
}

#[test]
fn more_folders_than_are_remembered_are_no_harm() {
    let (_parent, folder) = store();
    let fill = (0..MAX_KNOWN_FOLDERS).map(|number| PathBuf::from(number.to_string()));
    folder.known.lock().extend(fill);
    folder.replace("a/b", Bytes::from_static(b"text")).unwrap();
    assert!(folder.known.lock().len() < MAX_KNOWN_FOLDERS);
    assert_eq!(folder.read("a/b").unwrap().unwrap(), "text");
}

#[test]
fn absence_is_not_mistaken_for_an_error_nor_an_error_for_absence() {
    let (_parent, folder) = store();
    assert!(folder.read("a/b").unwrap().is_none());
    assert!(folder.open_file("a/b").unwrap().is_none());
    assert!(folder.list("a").unwrap().is_empty());
    folder.delete("a/b").unwrap();
    // A file where a folder should be: the file below it is not certainly absent.
    folder.replace("a", Bytes::from_static(b"text")).unwrap();
    assert!(folder.read("a/b").is_err());
    assert!(folder.delete("a/b").is_err());
    assert!(folder.replace("a/b", Bytes::new()).is_err());
    assert!(unfinished(&folder).is_empty());
}

#[test]
fn a_relative_path_has_the_current_folder_above_it() {
    assert_eq!(parent(Path::new("data")), Path::new("."));
    assert_eq!(parent(Path::new("data/vault")), Path::new("data"));
    assert_eq!(parent(Path::new("/")), Path::new("/"));
}
