//! The power goes while writing: what was not synced is gone, or is there in part.

use std::time::Duration;

use tempfile::TempDir;

use crate::shim::{Kept, PowerCut};
use crate::writer::{Mode, Said, Writer, faults, send_again};

const ROUNDS: u64 = 8;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_all_unsynced_writes_are() {
    survives(|_| Kept::Nothing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_some_unsynced_writes_are() {
    survives(|round| Kept::Some(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(round + 1))).await;
}

async fn survives(kept: impl Fn(u64) -> Kept) {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let mut disk = PowerCut::over(&data);
    let log = data.join("events.db");
    let mut all: Vec<Said> = Vec::new();
    for round in 0..ROUNDS {
        let writer = Writer::start(&log, Mode::Sound, |command| {
            disk.guard(command);
        });
        all.push(writer.kill_after(Duration::from_millis(150 + round * 97 % 400)));
        disk.cut(kept(round));
        let found = faults(&log, &all.iter().collect::<Vec<_>>()).await;
        assert!(found.is_empty(), "round {round}: {found:#?}");

        // The next round starts from what this leaves; it was not written under the shim.
        send_again(&log, all.last_mut().unwrap()).await;
        disk.take_as_synced();
    }
    let acknowledged: usize = all.iter().map(|said| said.acknowledged.len()).sum();
    println!("{acknowledged} commands acknowledged");
    assert!(acknowledged > 500, "only {acknowledged} commands: the test hardly tested");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_without_a_sync_is_caught() {
    let folder = TempDir::new().unwrap();
    for round in 0..ROUNDS {
        let data = folder.path().join(round.to_string());
        let mut disk = PowerCut::over(&data);
        let log = data.join("events.db");
        let writer = Writer::start(&log, Mode::DoesNotSync, |command| {
            disk.guard(command);
        });
        let said = writer.kill_after(Duration::from_millis(200 + 50 * round));
        disk.cut(Kept::Nothing);
        let found = faults(&log, &[&said]).await;
        // Once in a while all was synced just now, by a checkpoint: then there is nothing to lose.
        if found.iter().any(|fault| fault.contains("was acknowledged and is lost")) {
            return;
        }
    }
    panic!("in {ROUNDS} rounds no missing sync was caught");
}

/// The shim itself drops what it says it drops: a name without its folder's sync, bytes without
/// their file's.
#[test]
fn the_shim_keeps_what_was_synced_and_nothing_else() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("old"), "as it was").unwrap();
    std::fs::write(data.join("removed"), "removed without a sync").unwrap();
    let mut disk = PowerCut::over(&data);
    let script = r#"
import os
def put(path, text, sync=True):
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.write(file, text)
    if sync: os.fsync(file)
    os.close(file)
def sync(path):
    folder = os.open(path, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
put('old', b'changed', sync=False)
os.unlink('removed')
os.mkdir('named'); sync('.')
put('named/synced', b'kept')
put('named/halfway', b'kept')
sync('named')
put('named/nameless', b'its folder was not synced')
file = os.open('named/halfway', os.O_WRONLY | os.O_APPEND); os.write(file, b' and more'); os.close(file)
put('named/temporary', b'renamed'); os.rename('named/temporary', 'named/renamed'); sync('named')
put('named/empty', b'never synced', sync=False); sync('named')
os.rename('named/synced', 'named/moved')
os.mkdir('unnamed'); put('unnamed/file', b'its folder has no name'); sync('unnamed')
os.mkdir('late'); put('late/file', b'kept'); sync('late'); put('late/other', b'no name'); sync('.')
os.mkdir('last')
"#;
    let mut python = std::process::Command::new("python3");
    assert!(disk.guard(python.args(["-c", script]).current_dir(&data)).status().unwrap().success());

    disk.cut(Kept::Nothing);

    let mut left = Vec::new();
    list(&data, &data, &mut left);
    left.sort();
    let nameless = "its folder was not synced";
    let expected = [
        ("late/file", "kept"),
        ("named/empty", ""),
        ("named/halfway", "kept"),
        ("named/nameless", nameless),
        ("named/renamed", "renamed"),
        ("named/synced", "kept"),
        ("old", "as it was"),
        ("unnamed/file", "its folder has no name"),
    ];
    assert_eq!(left, expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
}

/// The shim itself does what a negative control tells it: it lies, is full for some files alone, and
/// cuts the power at a given sync.
#[test]
fn the_shim_lies_is_full_and_cuts_where_it_is_told_to() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir_all(data.join("believed")).unwrap();
    let mut disk = PowerCut::over(&data);
    let script = r#"
import errno, os
def put(path, text):
    file = os.open(path, os.O_CREAT | os.O_WRONLY)
    try: os.write(file, text)
    except OSError as error: text = errno.errorcode[error.errno].encode()
    os.fsync(file)
    os.close(file)
    folder = os.open(os.path.dirname(path) or '.', os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
    print(text.decode(), flush=True)
put('honest', b'1')
put('believed/file', b'2')
put('full', b'3')
put('late', b'4')
"#;
    let run = |disk: &PowerCut, at_sync: &str| {
        let mut python = std::process::Command::new("python3");
        let python = disk.guard(python.args(["-c", script]).current_dir(&data));
        python.env("POWER_CUT_AT_SYNC", at_sync).output().unwrap()
    };
    disk.lie_about("believed");
    disk.fill_for("full", 0);

    let output = run(&disk, "0");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "1\n2\nENOSPC\n4\n");
    disk.cut(Kept::Nothing);
    let mut left = Vec::new();
    list(&data, &data, &mut left);
    left.sort();
    let owned = |(name, text): (&str, &str)| (name.to_owned(), text.to_owned());
    assert_eq!(left, [("full", ""), ("honest", "1"), ("late", "4")].map(owned));

    // After a cut it is honest again. The fourth sync is that of the second file's name.
    std::fs::remove_file(data.join("honest")).unwrap();
    std::fs::remove_file(data.join("late")).unwrap();
    disk.take_as_synced();
    let output = run(&disk, "4");
    assert!(!output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "1\n");
    disk.cut(Kept::Nothing);
    let mut left = Vec::new();
    list(&data, &data, &mut left);
    left.sort();
    assert_eq!(left, [("full", ""), ("honest", "1")].map(owned));
}

fn list(root: &std::path::Path, folder: &std::path::Path, left: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            list(root, &path, left);
        } else {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            left.push((name, std::fs::read_to_string(&path).unwrap()));
        }
    }
}
