//! Bytes into characters: UTF-8, or UTF-16 with a byte order mark. The one rule: never lossy.

use crate::error::ExtractError;

/// The text, without its byte order mark.
pub(super) fn decode(bytes: &[u8]) -> Result<String, ExtractError> {
    let text = match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes)?,
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes)?,
        [0xef, 0xbb, 0xbf, rest @ ..] => utf8(rest, 3)?,
        _ => utf8(bytes, 0)?,
    };
    match text.find('\0') {
        Some(offset) => Err(ExtractError::NotText { offset }),
        None => Ok(text),
    }
}

fn utf8(bytes: &[u8], skipped: usize) -> Result<String, ExtractError> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        // Zero bytes say more than the first byte that is not UTF-8: this was never text.
        Err(error) => Err(match bytes.iter().position(|byte| *byte == 0) {
            Some(offset) => ExtractError::NotText { offset: offset + skipped },
            None => ExtractError::NotUtf8 { offset: error.valid_up_to() + skipped },
        }),
    }
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, ExtractError> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let mut text = String::with_capacity(bytes.len());
    let mut units = 0;
    for character in char::decode_utf16(pairs.iter().map(|pair| unit(*pair))) {
        let character = character.map_err(|_| ExtractError::NotUtf8 { offset: 2 + 2 * units })?;
        units += character.len_utf16();
        text.push(character);
    }
    if rest.is_empty() { Ok(text) } else { Err(ExtractError::NotUtf8 { offset: 1 + bytes.len() }) }
}
