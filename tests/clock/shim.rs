//! A clock that a test sets forward, under a whole server: what would take days happens while it watches.
//!
//! The rule of this file: [`Clock::settings`] are those of one server, over all of its starts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

/// The clock of a server. The crate that includes it needs `tempfile`, and the machine `cc`.
pub struct Clock(TempDir);

impl Clock {
    /// A clock that is right.
    pub fn new() -> Clock {
        let clock = Clock(tempfile::tempdir().expect("a folder"));
        clock.set_ahead(Duration::ZERO);
        let source = Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("a package"))
            .join("../tests/clock/shim.c");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(clock.shim())
            .arg(source)
            .arg("-ldl")
            .status();
        assert!(
            compiled.is_ok_and(|status| status.success()),
            "cc compiles the shim: is it installed?"
        );
        clock
    }

    /// What a server has in its environment that goes by this clock.
    pub fn settings(&self) -> [(String, String); 2] {
        let text = |path: PathBuf| path.into_os_string().into_string().expect("a path in UTF-8");
        [("LD_PRELOAD".into(), text(self.shim())), ("CLOCK_AHEAD".into(), text(self.ahead()))]
    }

    /// Sets the clock, also of a server that runs: this far ahead of the real one.
    pub fn set_ahead(&self, ahead: Duration) {
        let seconds = i64::try_from(ahead.as_secs()).expect("it fits");
        // In place: the file is mapped.
        let file = fs::File::options().create(true).truncate(false).write(true).open(self.ahead());
        let written =
            file.and_then(|mut file| std::io::Write::write_all(&mut file, &seconds.to_ne_bytes()));
        written.expect("the clock can be set");
    }

    fn shim(&self) -> PathBuf {
        self.0.path().join("shim.so")
    }

    fn ahead(&self) -> PathBuf {
        self.0.path().join("ahead")
    }
}
