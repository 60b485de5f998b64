//! A power cut, and a full disk, under a whole child process.
//!
//! The rule of this file: after [`PowerCut::cut`] the folder holds what was synced, and nothing else.
//!
//! Include it in a test crate and use it like this; the crate needs `tempfile` and the machine `cc`:
//!
//! ```ignore
//! #[path = "../../../tests/power_cut/shim.rs"]
//! mod shim;
//!
//! let mut disk = PowerCut::over(&data_dir);      // what is there now, counts as synced
//! let mut child = disk.guard(Command::new(prodgy).args(["serve", "--data-dir"]).arg(&data_dir)).spawn()?;
//! // … write through it, note what it acknowledged …
//! child.kill()?; child.wait()?;
//! disk.cut(Kept::Nothing);                       // data_dir is now what the power cut left
//! // start it again, guarded by the same `disk`, and look for everything that was acknowledged
//! ```
//!
//! Everything below the folder is guarded: log, blobs and keys of a data directory together. A file
//! that was written, and a name that was made, removed or renamed, is there after the cut only if
//! the file, or its folder, was synced. Between two processes on the same folder there must be a
//! `cut` (or a `take_as_synced`): what the first had not synced is not known to the second. Folders
//! are not to be renamed.
//!
//! [`PowerCut::fill`] makes the disk full for a running child, [`PowerCut::make_room`] ends it.
//! [`PowerCut::lie_about`] makes a disk that says it has synced what it has not: the negative control
//! of a program that syncs everything. The variable `POWER_CUT_AT_SYNC` of the child cuts the power
//! at the so many-th sync that it asks for, counted from 1: the child is killed then.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// What a power cut leaves of the writes that were not synced. A disk may have written any of them.
#[derive(Clone, Copy, Debug)]
pub enum Kept {
    /// None.
    Nothing,
    /// Some blocks of them and some names, by the throw of a die with this seed.
    Some(u64),
}

/// A disk that can lose its power.
pub struct PowerCut {
    data: PathBuf,
    shadow: TempDir,
}

impl PowerCut {
    /// Guards a folder (made, if it is not there). What it holds now counts as synced.
    pub fn over(data: &Path) -> PowerCut {
        fs::create_dir_all(data).expect("the guarded folder can be made");
        let data = data.canonicalize().expect("the guarded folder has a path");
        // Beside the data, so that both are on one file system.
        let beside = data.parent().expect("the guarded folder is not the root");
        let shadow = TempDir::new_in(beside).expect("a shadow folder can be made");
        let disk = PowerCut { data, shadow };
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(disk.shim())
            .arg(
                Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap())
                    .join("../tests/power_cut/shim.c"),
            )
            .args(["-ldl", "-lpthread"])
            .status();
        assert!(
            compiled.is_ok_and(|status| status.success()),
            "cc compiles the shim: is it installed?"
        );
        disk.take_as_synced();
        disk
    }

    /// Makes a command run on this disk.
    pub fn guard<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("LD_PRELOAD", self.shim())
            .env("POWER_CUT_DATA", &self.data)
            .env("POWER_CUT_SHADOW", self.shadow.path())
    }

    /// Cuts the power. The process must be dead: this is what it finds when it starts again.
    pub fn cut(&mut self, kept: Kept) {
        if let Kept::Some(seed) = kept {
            let mut chance = Chance { files: self.files(), state: seed | 1 };
            chance.keep_some(&self.tree(), &self.data);
        }
        fs::remove_dir_all(&self.data).expect("the guarded folder can be emptied");
        copy(&self.tree(), &self.data);
        self.take_as_synced();
    }

    /// From now on the disk takes so many more bytes and is full then.
    pub fn fill(&self, bytes_left: u64) {
        self.fill_for("", bytes_left);
    }

    /// As [`PowerCut::fill`], for files alone that have this text in their path below the folder:
    /// for a test of what happens when just these come too late for the last bytes.
    pub fn fill_for(&self, part_of_path: &str, bytes_left: u64) {
        self.tell("space", &format!("{bytes_left} {part_of_path}"));
    }

    /// From now on, until the cut, what has this text in its path below the folder is not synced
    /// when that is asked for.
    pub fn lie_about(&self, part_of_path: &str) {
        self.tell("lies", part_of_path);
    }

    /// Tells the running child something. In one step: it may look at any moment.
    fn tell(&self, name: &str, text: &str) {
        let path = self.shadow.path().join(name);
        let fresh = path.with_extension("new");
        fs::write(&fresh, text).expect("the shadow can be written");
        fs::rename(&fresh, path).expect("the shadow can be written");
    }

    /// The disk has room again.
    pub fn make_room(&self) {
        fs::remove_file(self.shadow.path().join("space")).expect("the disk was full");
    }

    fn shim(&self) -> PathBuf {
        self.shadow.path().join("shim.so")
    }

    fn files(&self) -> PathBuf {
        self.shadow.path().join("files")
    }

    fn tree(&self) -> PathBuf {
        self.shadow.path().join("tree")
    }

    /// Begins anew: what the folder holds now counts as synced. For a test that wrote to it itself,
    /// or killed a process without cutting the power.
    pub fn take_as_synced(&self) {
        for kind in ["tree", "files", "folders"] {
            let folder = self.shadow.path().join(kind);
            if folder.exists() {
                fs::remove_dir_all(&folder).expect("the old shadow can be removed");
            }
            fs::create_dir(&folder).expect("the shadow can be made");
        }
        // Nothing has this in its path: the disk is honest again.
        self.lie_about("\n");
        copy(&self.data, &self.tree());
        link(&self.data, &self.tree(), &self.files());
    }
}

fn entries(folder: &Path) -> Vec<(std::ffi::OsString, bool)> {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries
        .map(|entry| entry.expect("a folder can be read"))
        .map(|entry| (entry.file_name(), entry.file_type().expect("an entry has a type").is_dir()))
        .collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for (name, is_folder) in entries(from) {
        let (from, to) = (from.join(&name), to.join(&name));
        if is_folder {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        }
    }
}

/// Gives each file of the tree its second name: the inode of the file that it is the shadow of.
fn link(data: &Path, tree: &Path, files: &Path) {
    for (name, is_folder) in entries(data) {
        let (data, tree) = (data.join(&name), tree.join(&name));
        if is_folder {
            link(&data, &tree, files);
        } else {
            let inode = fs::metadata(&data).expect("a guarded file can be looked at").ino();
            fs::hard_link(&tree, files.join(inode.to_string())).expect("a shadow can be linked");
        }
    }
}

/// What a disk may have written of what it was not told to sync: the same for the same seed.
struct Chance {
    /// The synced bytes of each file, by the file's inode.
    files: PathBuf,
    state: u64,
}

impl Chance {
    /// Mixes into what was synced some of what was not.
    fn keep_some(&mut self, synced: &Path, now: &Path) {
        let names: BTreeSet<_> = entries(synced).into_iter().chain(entries(now)).collect();
        for (name, is_folder) in names {
            let is_scratch = name.to_string_lossy().ends_with("-shm");
            let (synced, now) = (synced.join(&name), now.join(&name));
            if is_folder {
                if !synced.exists() && self.throw() {
                    fs::create_dir(&synced).expect("a folder can be made");
                }
                if synced.exists() && now.exists() {
                    self.keep_some(&synced, &now);
                }
            } else if now.exists() {
                if !is_scratch {
                    self.keep_some_of_file(&synced, &now);
                }
            } else if self.throw() {
                fs::remove_file(&synced).expect("a name can be removed");
            }
        }
    }

    fn keep_some_of_file(&mut self, synced: &Path, now: &Path) {
        let inode = |path: &Path| fs::metadata(path).map(|status| status.ino()).ok();
        let bytes = self.files.join(inode(now).unwrap_or_default().to_string());
        if !bytes.exists() {
            return;
        }
        if inode(synced) != inode(&bytes) {
            // The name is new, or a rename gave it to another file: that happens whole or not at all.
            if !self.throw() {
                return;
            }
            let _ = fs::remove_file(synced);
            fs::hard_link(&bytes, synced).expect("a name can be given");
        }
        self.mix(synced, now);
    }

    /// Takes each block of a file as it was synced or as it was written last.
    fn mix(&mut self, synced: &Path, now: &Path) {
        const BLOCK: usize = 512;
        let mut bytes = fs::read(synced).expect("a shadow can be read");
        let written = fs::read(now).expect("a guarded file can be read");
        if written.len() != bytes.len() && self.throw() {
            bytes.resize(written.len(), 0);
        }
        for (block, written) in bytes.chunks_mut(BLOCK).zip(written.chunks(BLOCK)) {
            if self.throw() {
                let length = block.len().min(written.len());
                block[..length].copy_from_slice(&written[..length]);
            }
        }
        fs::write(synced, bytes).expect("a shadow can be written");
    }

    /// A coin (xorshift).
    fn throw(&mut self) -> bool {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state & 0x100 != 0
    }
}
