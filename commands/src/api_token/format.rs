//! How an API token is written: `prodgy_`, 43 random letters and digits, and 6 more that check them.
//!
//! The rule of this file: whether a text can be a token is told by the text alone, so that a mistyped one
//! is refused before anything is looked up, and a scanner of secrets needs nobody's help.

use domain::TokenPrefix;

use crate::Error;
use crate::secrets::{ALPHANUMERIC, random_alphanumeric};

/// How many random letters and digits a token has: 256 bits.
const RANDOM: usize = 43;

/// How many letters and digits a CRC-32 takes.
const CHECK: usize = 6;

/// How many letters and digits a token had before it had any that check it.
const UNCHECKED: usize = 40;

/// A new token.
///
/// # Errors
/// The system gives no randomness.
pub(super) fn new_token() -> Result<String, Error> {
    let random = random_alphanumeric(RANDOM)?;
    Ok(format!("{}{random}{}", TokenPrefix::START, check_of(&random)))
}

/// Whether a text can be a token that was made here: it is whole, and nothing in it was mistyped.
pub(super) fn is_well_written(text: &str) -> bool {
    let Some(behind) = text.strip_prefix(TokenPrefix::START) else { return false };
    if !behind.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return false;
    }
    match behind.len() {
        UNCHECKED => true,
        length if length == RANDOM + CHECK => {
            let (random, check) = behind.split_at(RANDOM);
            check_of(random) == check
        }
        _ => false,
    }
}

/// The CRC-32 (IEEE) of a text as letters and digits, the highest place first.
fn check_of(random: &str) -> String {
    let mut rest = crc32fast::hash(random.as_bytes()) as usize;
    let mut check = [0; CHECK];
    for place in check.iter_mut().rev() {
        *place = ALPHANUMERIC[rest % ALPHANUMERIC.len()];
        rest /= ALPHANUMERIC.len();
    }
    check.into_iter().map(char::from).collect()
}

#[cfg(test)]
mod tests;
