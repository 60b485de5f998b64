//! Which format a file has. The one rule: name, media type and first bytes must not contradict each other.

use crate::error::ExtractError;

/// The formats that can be read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Format {
    Text,
    Markdown,
    Html,
    Csv,
    Tsv,
    Json,
    JsonLines,
}

impl Format {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Markdown => "Markdown",
            Self::Html => "HTML",
            Self::Csv => "CSV",
            Self::Tsv => "TSV",
            Self::Json => "JSON",
            Self::JsonLines => "JSON lines",
        }
    }

    fn of_extension(extension: &str) -> Option<Self> {
        Some(match extension {
            "txt" | "text" | "log" => Self::Text,
            "md" | "markdown" | "mdown" | "mkd" => Self::Markdown,
            "html" | "htm" | "xhtml" => Self::Html,
            "csv" => Self::Csv,
            "tsv" | "tab" => Self::Tsv,
            "json" => Self::Json,
            "jsonl" | "ndjson" => Self::JsonLines,
            _ => return None,
        })
    }

    fn of_media_type(media_type: &str) -> Option<Self> {
        Some(match media_type {
            "text/markdown" | "text/x-markdown" => Self::Markdown,
            "text/html" | "application/xhtml+xml" => Self::Html,
            "text/csv" | "application/csv" => Self::Csv,
            "text/tab-separated-values" => Self::Tsv,
            "application/json" | "text/json" => Self::Json,
            "application/x-ndjson" | "application/jsonl" | "application/json-lines" => {
                Self::JsonLines
            }
            "text/plain" => Self::Text,
            _ => return None,
        })
    }
}

/// The first bytes of formats that are not text.
const SIGNATURES: [(&[u8], &str); 19] = [
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF87a", "a GIF image"),
    (b"GIF89a", "a GIF image"),
    (b"RIFF", "a RIFF file (WebP, WAV or AVI)"),
    (b"%PDF-", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive (DOCX, XLSX and ODS are ZIP archives too)"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document (DOC, XLS or PPT)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"\x7fELF", "a program"),
    (b"MZ\x90\x00", "a program"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"{\\rtf", "an RTF document"),
    (b"OggS", "an Ogg recording"),
];

/// The format by name and media type, unless the first bytes or the two of them contradict it.
pub(super) fn detect(
    file_name: &str,
    media_type: Option<&str>,
    bytes: &[u8],
) -> Result<Format, ExtractError> {
    let extension = file_name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    // What comes after `;` is a parameter; `application/octet-stream` says nothing.
    let media_type = media_type
        .map(|media_type| {
            media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
        })
        .filter(|media_type| !media_type.is_empty() && media_type != "application/octet-stream");
    let by_name = extension.as_deref().and_then(Format::of_extension);
    let by_type = media_type.as_deref().and_then(Format::of_media_type);

    let signature = SIGNATURES
        .iter()
        .find(|(first, _)| bytes.starts_with(first))
        .map(|(_, found)| (*found).to_owned());
    let claimed = match (by_name, by_type) {
        // Any text may be sent as plain text; the name knows better.
        (Some(named), None | Some(Format::Text)) => Some(named),
        (Some(Format::Text) | None, typed) => typed,
        (Some(named), Some(typed)) if named == typed => Some(named),
        // Programs know JSON lines and TSV under the names of their better known kin.
        (Some(named @ Format::JsonLines), Some(Format::Json))
        | (Some(named @ Format::Tsv), Some(Format::Csv)) => Some(named),
        (Some(named), Some(typed)) => {
            let found = format!("sent with the media type of {}", typed.name());
            return Err(ExtractError::MediaTypeMismatch { expected: named.name(), found });
        }
    };
    match (claimed, signature) {
        (Some(expected), Some(found)) => {
            Err(ExtractError::MediaTypeMismatch { expected: expected.name(), found })
        }
        (Some(format), None) => match media_type.filter(|_| by_type.is_none()) {
            Some(other) if contradicts(&other) => Err(ExtractError::MediaTypeMismatch {
                expected: format.name(),
                found: format!("sent as {other}"),
            }),
            _ => Ok(format),
        },
        (None, Some(found)) => Err(ExtractError::UnsupportedFormat { found }),
        // README, LICENSE, Makefile; source code, when the client says that it is text.
        (None, None) if extension.is_none() && media_type.is_none() => Ok(Format::Text),
        (None, None) => match (media_type, extension) {
            (Some(media_type), _)
                if media_type.starts_with("text/") && media_type != "text/xml" =>
            {
                Ok(Format::Text)
            }
            (_, Some(extension)) => Err(ExtractError::UnsupportedFormat {
                found: format!("a file of type .{extension}"),
            }),
            (Some(media_type), None) => Err(ExtractError::UnsupportedFormat { found: media_type }),
            (None, None) => Ok(Format::Text),
        },
    }
}

/// Media types that no readable file is sent with. (Spreadsheets are not among them: Windows sends CSV as one.)
fn contradicts(media_type: &str) -> bool {
    ["image/", "audio/", "video/", "font/"].iter().any(|family| media_type.starts_with(family))
        || ["application/pdf", "application/zip", "application/gzip"].contains(&media_type)
}

/// Whether the text can be what it is said to be, as far as a glance tells.
pub(super) fn check_content(format: Format, text: &str) -> Result<(), ExtractError> {
    let start: String = text.trim_start().chars().take(64).collect::<String>().to_ascii_lowercase();
    let is_page = ["<!doctype", "<html", "<?xml"].iter().any(|opening| start.starts_with(opening));
    let found = match format {
        Format::Csv | Format::Tsv | Format::Json | Format::JsonLines if is_page => {
            "an HTML or XML page"
        }
        Format::Html if !holds_markup(text) && !text.trim().is_empty() => "text without any markup",
        _ => return Ok(()),
    };
    Err(ExtractError::MediaTypeMismatch { expected: format.name(), found: found.to_owned() })
}

/// Whether there is anything like a tag.
fn holds_markup(text: &str) -> bool {
    text.as_bytes()
        .windows(2)
        .any(|pair| pair[0] == b'<' && (pair[1].is_ascii_alphabetic() || pair[1] == b'!'))
}
