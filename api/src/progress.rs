//! How far long work on the command line is: a bar on a terminal, plain lines elsewhere.
//!
//! The rule of this file: it goes to stderr, so that what a command answers can be read by a program.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

/// How often a plain line says how far it is.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// What is shown.
pub struct Shown {
    bar: Option<ProgressBar>,
    last_line: Instant,
    in_bytes: bool,
}

impl Shown {
    /// Shows numbers.
    pub fn counting() -> anyhow::Result<Shown> {
        Shown::new("{msg:18} {bar:40} {human_pos}/{human_len}", false)
    }

    /// Shows bytes.
    pub fn in_bytes() -> anyhow::Result<Shown> {
        Shown::new("{msg:18} {bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}", true)
    }

    fn new(template: &str, in_bytes: bool) -> anyhow::Result<Shown> {
        let style = ProgressStyle::with_template(template)?;
        let bar = std::io::stderr().is_terminal();
        let bar = bar.then(|| ProgressBar::no_length().with_style(style));
        Ok(Shown { bar, last_line: Instant::now(), in_bytes })
    }

    /// Says how far something is, and of how much, where that is known.
    pub fn show(&mut self, what: &'static str, done: u64, of: Option<u64>) {
        if let Some(bar) = &self.bar {
            bar.set_message(what);
            bar.set_length(of.unwrap_or(done));
            bar.set_position(done);
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            let amount = |amount: u64| match self.in_bytes {
                true => HumanBytes(amount).to_string(),
                false => amount.to_string(),
            };
            let of = of.map(|of| format!(" of {}", amount(of))).unwrap_or_default();
            // Nothing is left to do where not even this can be written.
            let _ = writeln!(std::io::stderr(), "{what}: {}{of}", amount(done));
        }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
