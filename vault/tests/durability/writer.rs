//! The process that is killed, and the check of what it left behind.
//!
//! It is this test binary, started again: several tasks make keys, seal, put blobs and artifacts,
//! and shred, and say so after each `Ok`.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        mpsc::{self, Receiver},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::stream;
use object_store::local::LocalFileSystem;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use vault::{BlobRef, Error, MasterKey, Opened, Place, PutError, Sealed, Vault};

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const FOLDER: &str = "VAULT_WRITER_FOLDER";
const MODE: &str = "VAULT_WRITER_MODE";
const TASKS: usize = 4;
const PLACE: Place<'_> = Place {
    organization: Uuid::nil(),
    stream: "user-0193",
    event_type: "user.created.v1",
    field: "email",
};

/// What the writer writes to.
#[derive(Clone, Copy, Debug)]
pub enum Mode {
    /// The local vault, as the product does.
    Sound,
    /// The local store of `object_store`, which never syncs.
    DoesNotSync,
}

/// What was answered with `Ok`, or was not.
#[derive(Debug, Serialize, Deserialize)]
pub enum Said {
    Sealed { sealed: Sealed, text: String },
    Stored { product: Uuid, blob: BlobRef },
    Kept { artifact: String },
    Shredded { sealed: Sealed },
    Failed { why: String },
}

/// A writer at work.
pub struct Writer {
    child: Child,
    lines: Receiver<Said>,
    said: Vec<Said>,
}

impl Writer {
    /// Starts a writer; `prepare` may put something under the process.
    pub fn start(folder: &Path, mode: Mode, prepare: impl FnOnce(&mut Command)) -> Writer {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["writer::writes_until_it_is_killed", "--exact", "--nocapture"])
            .env(FOLDER, folder)
            .env(MODE, format!("{mode:?}"))
            .stdout(Stdio::piped());
        prepare(&mut command);
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            // Only whole lines were said: the last may have been cut by the kill.
            let said = |line: String| serde_json::from_str(line.split_once("said ")?.1).ok();
            let mut said = output.lines().map_while(Result::ok).filter_map(said);
            said.try_for_each(|said| sender.send(said))
        });
        Writer { child, lines, said: Vec::new() }
    }

    /// Waits until it says something like this.
    pub fn wait_for(&mut self, like_this: impl Fn(&Said) -> bool) {
        loop {
            let said = self.lines.recv().expect("the writer is at work");
            let found = like_this(&said);
            self.said.push(said);
            if found {
                return;
            }
        }
    }

    /// Lets it work, then kills it as nothing can be caught. Answers with all that it said.
    pub fn kill_after(mut self, time: Duration) -> Vec<Said> {
        // A machine at work elsewhere may be slow to start it.
        self.wait_for(|_| true);
        std::thread::sleep(time);
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.said.extend(self.lines);
        self.said
    }
}

/// Not a test of its own: the process that is started and killed.
#[tokio::test(flavor = "multi_thread")]
async fn writes_until_it_is_killed() {
    let (Ok(folder), Ok(mode)) = (std::env::var(FOLDER), std::env::var(MODE)) else { return };
    let master = MasterKey::parse(KEY).unwrap();
    let vault = if mode == format!("{:?}", Mode::Sound) {
        Vault::local(Path::new(&folder), master).await.unwrap()
    } else {
        let store = LocalFileSystem::new_with_prefix(folder).unwrap();
        Vault::remote(Arc::new(store), master).await.unwrap()
    };
    let tasks = (0..TASKS).map(|_| tokio::spawn(write(vault.clone())));
    futures::future::join_all(tasks).await;
}

async fn write(vault: Vault) {
    loop {
        if let Err(error) = write_once(&vault).await {
            say(&Said::Failed { why: error.to_string() });
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn write_once(vault: &Vault) -> Result<(), Error> {
    let product = Uuid::now_v7();
    let key = format!("product-{product}");
    vault.create_key(&key).await?;
    let text = product.to_string();
    say(&Said::Sealed { sealed: vault.seal(&key, &PLACE, text.as_bytes()).await?, text });

    let chunk = Bytes::from(product.as_bytes().repeat(150));
    let length = product.as_bytes()[15] as usize;
    let body = stream::iter((0..length).map(|_| Ok::<_, Error>(chunk.clone())));
    let put = vault.put_blob(product, body, u64::MAX).await;
    let blob = put.map_err(|error| match error {
        PutError::Vault(error) | PutError::Body(error) => error,
        PutError::TooLarge { .. } => unreachable!("there is no limit"),
    })?;
    say(&Said::Stored { product, blob });

    let artifact = format!("tests/{product}");
    vault.put_artifact(&key, &artifact, artifact.as_bytes()).await?;
    say(&Said::Kept { artifact });

    let erased = format!("user-{product}");
    vault.create_key(&erased).await?;
    let sealed = vault.seal(&erased, &PLACE, b"erased").await?;
    vault.shred_key(&erased).await?;
    say(&Said::Shredded { sealed });
    Ok(())
}

fn say(said: &Said) {
    // One write a line: lines of several tasks must not be mixed, and none may wait in a buffer.
    let line = format!("said {}\n", serde_json::to_string(said).unwrap());
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

/// Opens what a writer left, and lists what is not as it was said, or is only half there.
pub async fn faults(folder: &Path, said: &[Said]) -> Vec<String> {
    let vault = match Vault::local(folder, MasterKey::parse(KEY).unwrap()).await {
        Ok(vault) => vault,
        Err(error) => return vec![format!("the vault does not open: {error}")],
    };
    let mut faults = Vec::new();
    for said in said {
        let held = match said {
            Said::Sealed { sealed, text } => vault.open(sealed, &PLACE).await.map(|opened| {
                opened.clear().is_some_and(|clear| clear.as_slice() == text.as_bytes())
            }),
            Said::Stored { product, blob } => {
                vault.blob_bytes(*product, blob, u64::MAX).await.map(|_| true)
            }
            Said::Kept { artifact } => {
                vault.get_artifact(artifact).await.map(|found| found.is_some_and(|f| f == artifact))
            }
            Said::Shredded { sealed } => {
                vault.open(sealed, &PLACE).await.map(|opened| opened == Opened::Shredded)
            }
            Said::Failed { .. } => Ok(true),
        };
        match held {
            Ok(true) => {}
            Ok(false) => faults.push(format!("{said:?} is lost")),
            Err(error) => faults.push(format!("{said:?} is unreadable: {error}")),
        }
    }
    let mut paths = Vec::new();
    files(folder, &mut paths);
    for path in paths {
        if let Err(error) = whole(&vault, folder, &path).await {
            faults.push(format!("{} is not whole: {error}", path.display()));
        }
    }
    faults
}

/// Whatever has a name is whole, said or not, and what had none is gone.
async fn whole(vault: &Vault, folder: &Path, path: &Path) -> Result<(), Error> {
    let name = path.strip_prefix(folder).unwrap().to_str().unwrap();
    let invalid = || Error::InvalidName(name.to_owned());
    let parts: Vec<&str> = name.split('/').collect();
    match parts.as_slice() {
        ["unfinished", "lock"] | ["keys", "master.json"] => {}
        ["keys", file] if file.ends_with(".shredded") => {}
        ["keys", file] => {
            let id = file.strip_suffix(".json").ok_or_else(invalid)?;
            vault.key_exists(id).await?;
        }
        ["blobs", product, _, file] => {
            let product = product.parse().map_err(|_| invalid())?;
            // Without the end of 73 bytes and the tag of each block of 128 KiB.
            let sealed = path.metadata().unwrap().len().checked_sub(73).ok_or_else(invalid)?;
            let size = sealed - sealed.div_ceil(131_072 + 16) * 16;
            let blob = BlobRef { name: (*file).to_owned(), size };
            vault.blob_bytes(product, &blob, u64::MAX).await?;
        }
        ["artifacts", artifact @ ..] => {
            let name = artifact.join("/");
            let found = vault.get_artifact(&name).await?.unwrap_or_default();
            if found != name {
                return Err(invalid());
            }
        }
        _ => return Err(invalid()),
    }
    Ok(())
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}
