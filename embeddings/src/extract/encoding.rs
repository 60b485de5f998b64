//! Bytes into characters: what a byte order mark, the media type or the file itself names; else UTF-8; else the old encoding that
//! they look like. The one rule: never lossy, and bytes that no text has are refused.

use std::borrow::Cow;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::Encoding;

use crate::error::ExtractError;

/// How far into a page its own word about its encoding is looked for, as browsers do.
const PRESCAN_BYTES: usize = 1024;

/// The text, without its byte order mark. `label` is the encoding that the media type names.
pub(super) fn decode(bytes: &[u8], label: Option<&str>) -> Result<String, ExtractError> {
    let text = match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes)?,
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes)?,
        [0xef, 0xbb, 0xbf, rest @ ..] => match std::str::from_utf8(rest) {
            Ok(text) => text.to_owned(),
            Err(error) => {
                return Err(ExtractError::NotUtf8 { offset: error.valid_up_to() + 3 });
            }
        },
        _ => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => other(bytes, label)?,
        },
    };
    match text.find('\0') {
        Some(offset) => Err(ExtractError::NotText { offset }),
        None => Ok(text),
    }
}

/// The encoding that a page says it has: in a `meta` element, or in its XML declaration.
pub(super) fn declared(bytes: &[u8]) -> Option<String> {
    let start = &bytes[..bytes.len().min(PRESCAN_BYTES)];
    let start: String = start.iter().map(|byte| char::from(*byte).to_ascii_lowercase()).collect();
    let after = ["charset=", "encoding="]
        .iter()
        .filter_map(|word| start.find(word).map(|at| &start[at + word.len()..]))
        .next()?;
    let label = after.trim_start_matches(['"', '\'', ' ']);
    let end = label
        .find(|character: char| !(character.is_ascii_alphanumeric() || "-_:.".contains(character)));
    Some(label[..end.unwrap_or(label.len())].to_owned()).filter(|label| !label.is_empty())
}

/// Text of an encoding from before Unicode.
fn other(bytes: &[u8], label: Option<&str>) -> Result<String, ExtractError> {
    // Control characters say more than the first byte that is not UTF-8: this was never text.
    let is_control =
        |byte: &u8| *byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r' | 0x0c | 0x1b);
    if let Some(offset) = bytes.iter().position(is_control) {
        return Err(ExtractError::NotText { offset });
    }
    let utf8 = std::str::from_utf8(bytes).map_or_else(|error| error.valid_up_to(), str::len);
    // Whatever begins as UTF-8 does is UTF-8, and damaged.
    if !bytes[..utf8].is_ascii() {
        return Err(ExtractError::NotUtf8 { offset: utf8 });
    }
    let named = label.and_then(|label| Encoding::for_label(label.as_bytes()));
    // "UTF-8" is not true, or we would not be here.
    let encoding = named.filter(|named| *named != encoding_rs::UTF_8).unwrap_or_else(|| {
        let mut detector = EncodingDetector::new(Iso2022JpDetection::Allow);
        detector.feed(bytes, true);
        detector.guess(None, Utf8Detection::Deny)
    });
    let text = encoding.decode_without_bom_handling_and_without_replacement(bytes);
    text.map(Cow::into_owned).ok_or(ExtractError::NotUtf8 { offset: utf8 })
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
