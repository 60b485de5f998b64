//! Lengths of time as manifests write them: `30s`, `5m`, `2h`, `1d`, or several in a row, `1h30m`.
//!
//! The rule of this file: there is one way to write a length, and it has no calendar in it. A day is
//! 24 hours; there are no months, and no ISO 8601 (`PT5M`), in which a month hides.

use std::time::Duration;

/// The units, longest first, as they must follow each other.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// The most digits of a number: what they come to always fits.
const MAX_DIGITS: usize = 9;

/// The length that a text means.
///
/// # Errors
/// A sentence for a person.
pub fn parse(text: &str) -> Result<Duration, String> {
    read(text).map(Duration::from_millis).ok_or_else(|| {
        "write a length of time as a whole number with its unit, as 500ms, 30s, 5m, 2h or 1d, or \
         several from long to short, as 1h30m"
            .to_owned()
    })
}

fn read(text: &str) -> Option<u64> {
    let (mut rest, mut total, mut units) = (text, 0_u64, &UNITS[..]);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, behind) = rest.split_at(digits);
        let letters = behind.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, behind) = behind.split_at(letters);
        let place = units.iter().position(|(name, _)| *name == unit)?;
        if digits > MAX_DIGITS {
            return None;
        }
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(units[place].1)?)?;
        (rest, units) = (behind, &units[place + 1..]);
    }
    (!text.is_empty()).then_some(total)
}

/// The shortest text that means this length, down to the millisecond.
pub fn write(length: Duration) -> String {
    let mut rest = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (name, size) in UNITS {
        if rest >= size {
            text.push_str(&format!("{}{name}", rest / size));
            rest %= size;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests;
