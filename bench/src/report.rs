//! What a measurement says, and how it is printed: a JSON line for programs, a table row for people.
//!
//! The rule of this file: a figure never goes without the load that the machine had meanwhile.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// What the documentation quotes.
    Full,
    /// A few seconds, to see that everything works. Its figures mean nothing.
    Quick,
}

impl Scale {
    /// One of two sizes.
    pub fn pick<T>(self, full: T, quick: T) -> T {
        match self {
            Scale::Full => full,
            Scale::Quick => quick,
        }
    }
}

/// One row of the table.
pub struct Row {
    /// What was measured.
    pub what: String,
    /// What it should reach at least, and what would be splendid.
    pub goals: [&'static str; 2],
    /// What was measured of ours.
    pub ours: String,
    /// What was measured beside it.
    pub beside: String,
    /// How the two compare.
    pub ratio: String,
    /// Every figure, for programs.
    pub figures: Value,
}

/// A measurement that is under way.
pub struct Clock {
    name: &'static str,
    load: f64,
    began: chrono::DateTime<chrono::Utc>,
}

impl Clock {
    /// Looks at the machine before a measurement.
    pub fn start(name: &'static str) -> Clock {
        eprintln!("measuring {name}, load average {:.1}", load());
        Clock { name, load: load(), began: chrono::Utc::now() }
    }

    /// Prints a JSON line for each row, and gives the rows of the table.
    pub fn finish(self, rows: Vec<Row>) -> Vec<String> {
        let load = format!("{:.1} → {:.1}", self.load, load());
        let table = |row: Row| {
            println!(
                "{}",
                json!({
                    "measurement": self.name, "what": row.what, "began": self.began, "load": load,
                    "figures": row.figures,
                })
            );
            let [floor, stretch] = row.goals;
            let Row { what, ours, beside, ratio, .. } = row;
            format!("| {what} | {floor} | {stretch} | {ours} | {beside} | {ratio} | {load} |")
        };
        rows.into_iter().map(table).collect()
    }
}

/// The head of the table.
pub const HEAD: &str = "| what | at least | stretch | ours | beside | ratio | load |\n\
                        | --- | --- | --- | --- | --- | --- | --- |";

/// The machine's load average of the last minute; that of a machine that does not tell is not a
/// number.
pub fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(f64::NAN)
}

/// The one in the middle; of none, not a number.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What ninety-nine in a hundred do not exceed; of none, not a number.
pub fn p99(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() * 99 / 100).copied().unwrap_or(f64::NAN)
}

/// Milliseconds.
pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A number of things with its thousands apart, as `12,345`.
pub fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        let _ = write!(text, "{digit}");
    }
    text
}
