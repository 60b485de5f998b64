//! Which format a file has. The one rule: name, media type and content must not contradict each other.

use std::io::Cursor;

use super::package::Package;
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
    Xml,
    Pdf,
    Docx,
    Pptx,
    Xlsx,
    Xls,
    Ods,
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
            Self::Xml => "XML",
            Self::Pdf => "PDF",
            Self::Docx => "DOCX",
            Self::Pptx => "PPTX",
            Self::Xlsx => "XLSX",
            Self::Xls => "XLS",
            Self::Ods => "ODS",
        }
    }

    /// What a file of this format is called in a sentence.
    fn described(self) -> &'static str {
        match self {
            Self::Pdf => "a PDF document",
            Self::Docx => "a Word document (DOCX)",
            Self::Pptx => "a PowerPoint presentation (PPTX)",
            Self::Xlsx => "an Excel workbook (XLSX)",
            Self::Xls => "an old Excel workbook (XLS)",
            Self::Ods => "an OpenDocument spreadsheet (ODS)",
            other => other.name(),
        }
    }

    /// Whether it is made of characters.
    pub(super) fn is_text(self) -> bool {
        self.is_plain() || matches!(self, Self::Html | Self::Xml)
    }

    /// Whether reading it takes no more than one walk over its characters, whatever they are.
    pub(super) fn is_plain(self) -> bool {
        matches!(
            self,
            Self::Text | Self::Markdown | Self::Csv | Self::Tsv | Self::Json | Self::JsonLines
        )
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
            "xml" | "rss" | "atom" => Self::Xml,
            "pdf" => Self::Pdf,
            "docx" | "docm" | "dotx" => Self::Docx,
            "pptx" | "pptm" | "ppsx" | "potx" => Self::Pptx,
            "xlsx" | "xlsm" | "xltx" => Self::Xlsx,
            "xls" => Self::Xls,
            "ods" => Self::Ods,
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
            "application/xml" | "text/xml" => Self::Xml,
            "application/pdf" | "application/x-pdf" => Self::Pdf,
            "application/vnd.oasis.opendocument.spreadsheet" => Self::Ods,
            other => {
                let office = "application/vnd.openxmlformats-officedocument.";
                return match other.strip_prefix(office)?.split('.').next()? {
                    "wordprocessingml" => Some(Self::Docx),
                    "presentationml" => Some(Self::Pptx),
                    "spreadsheetml" => Some(Self::Xlsx),
                    _ => None,
                };
            }
        })
    }
}

/// The first bytes of formats that are not text.
const SIGNATURES: [(&[u8], &str); 15] = [
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF87a", "a GIF image"),
    (b"GIF89a", "a GIF image"),
    (b"RIFF", "a RIFF file (WebP, WAV or AVI)"),
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

const PDF: &[u8] = b"%PDF-";
const ZIP: &[u8] = b"PK\x03\x04";
const EMPTY_ZIP: &[u8] = b"PK\x05\x06";
const COMPOUND: &[u8] = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1";

/// How much may stand before the first bytes of a PDF, as readers of PDF allow.
const BEFORE_PDF: usize = 1024;

/// What a content that is not text is.
enum Found {
    /// Something that can be read.
    Readable(Format),
    /// Something else.
    Other(String),
}

impl Found {
    fn described(&self) -> String {
        match self {
            Self::Readable(format) => format.described().to_owned(),
            Self::Other(found) => found.clone(),
        }
    }
}

/// Whether it takes more than a glance at its first bytes to tell what a file is.
pub(super) fn is_container(bytes: &[u8]) -> bool {
    [ZIP, COMPOUND].iter().any(|first| bytes.starts_with(first))
}

/// The content, if it is not text.
fn found(claimed: Option<Format>, bytes: &[u8]) -> Result<Option<Found>, ExtractError> {
    let pdf = if claimed.is_some_and(Format::is_text) { 0 } else { BEFORE_PDF };
    if bytes[..bytes.len().min(pdf + PDF.len())].windows(PDF.len()).any(|first| first == PDF) {
        return Ok(Some(Found::Readable(Format::Pdf)));
    }
    if bytes.starts_with(EMPTY_ZIP) {
        return Ok(Some(Found::Other("an empty ZIP archive".to_owned())));
    }
    if bytes.starts_with(ZIP) {
        return Ok(Some(archive(bytes)));
    }
    if bytes.starts_with(COMPOUND) {
        return compound(bytes).map(Some);
    }
    let signature = SIGNATURES.iter().find(|(first, _)| bytes.starts_with(first));
    Ok(signature.map(|(_, found)| Found::Other((*found).to_owned())))
}

/// What kind of document a ZIP archive is.
fn archive(bytes: &[u8]) -> Found {
    let archive = || Found::Other("a ZIP archive".to_owned());
    let Ok(mut package) = Package::open(bytes) else {
        return Found::Other("a damaged ZIP archive".to_owned());
    };
    if let Some(kind) = package.start_of("mimetype") {
        return match kind.trim() {
            "application/vnd.oasis.opendocument.spreadsheet" => Found::Readable(Format::Ods),
            "application/epub+zip" => Found::Other("an EPUB book".to_owned()),
            kind if kind.contains("opendocument.text") => {
                Found::Other("an OpenDocument text (ODT)".to_owned())
            }
            kind if kind.contains("opendocument.presentation") => {
                Found::Other("an OpenDocument presentation (ODP)".to_owned())
            }
            _ => archive(),
        };
    }
    let Some(types) = package.start_of("[Content_Types].xml") else { return archive() };
    let has = |kinds: &[&str]| kinds.iter().any(|kind| types.contains(kind));
    if has(&[
        "wordprocessingml.document.main+",
        "wordprocessingml.template.main+",
        "ms-word.document.macroEnabled.main+",
    ]) {
        Found::Readable(Format::Docx)
    } else if has(&[
        "presentationml.presentation.main+",
        "presentationml.slideshow.main+",
        "presentationml.template.main+",
        "ms-powerpoint.presentation.macroEnabled.main+",
    ]) {
        Found::Readable(Format::Pptx)
    } else if has(&[
        "spreadsheetml.sheet.main+",
        "spreadsheetml.template.main+",
        "ms-excel.sheet.macroEnabled.main+",
    ]) {
        Found::Readable(Format::Xlsx)
    } else if has(&["ms-excel.sheet.binary.macroEnabled.main"]) {
        Found::Other("a binary Excel workbook (XLSB)".to_owned())
    } else {
        archive()
    }
}

/// What kind of document a compound file is: what Office wrote before 2007, and writes where there is a password.
fn compound(bytes: &[u8]) -> Result<Found, ExtractError> {
    let Ok(file) = cfb::CompoundFile::open(Cursor::new(bytes)) else {
        return Ok(Found::Other("a damaged Office document".to_owned()));
    };
    let has = |name: &str| file.exists(format!("/{name}"));
    if has("EncryptedPackage") {
        return Err(ExtractError::PasswordProtected { format: "Office document".to_owned() });
    }
    Ok(if has("Workbook") || has("Book") {
        Found::Readable(Format::Xls)
    } else if has("WordDocument") {
        Found::Other("an old Word document (DOC)".to_owned())
    } else if has("PowerPoint Document") {
        Found::Other("an old PowerPoint presentation (PPT)".to_owned())
    } else {
        Found::Other("a compound file".to_owned())
    })
}

/// The format by name and media type, unless the content or the two of them contradict it.
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
        .filter(|media_type| !SAY_NOTHING.contains(&media_type.as_str()));
    let by_name = extension.as_deref().and_then(Format::of_extension);
    let by_type = media_type.as_deref().and_then(Format::of_media_type);

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
            return Err(ExtractError::mismatch(named.name(), found));
        }
    };
    match (claimed, found(claimed, bytes)?) {
        (Some(expected), Some(Found::Readable(found))) if expected == found => Ok(found),
        (None, Some(Found::Readable(found))) => Ok(found),
        (Some(expected), Some(found)) => {
            Err(ExtractError::mismatch(expected.name(), found.described()))
        }
        (Some(expected), None) if !expected.is_text() => {
            let found = if bytes.is_empty() { "empty" } else { "something else" };
            Err(ExtractError::mismatch(expected.name(), found))
        }
        (Some(format), None) => match media_type.filter(|_| by_type.is_none()) {
            Some(other) if contradicts(&other) => {
                Err(ExtractError::mismatch(format.name(), format!("sent as {other}")))
            }
            _ => Ok(format),
        },
        (None, Some(Found::Other(found))) => Err(ExtractError::UnsupportedFormat { found }),
        // README, LICENSE, Makefile; source code, when the client says that it is text.
        (None, None) if extension.is_none() && media_type.is_none() => Ok(Format::Text),
        (None, None) => match (media_type, extension) {
            (Some(media_type), _) if media_type.ends_with("+xml") && !contradicts(&media_type) => {
                Ok(Format::Xml)
            }
            (Some(media_type), _) if media_type.starts_with("text/") => Ok(Format::Text),
            (_, Some(extension)) => Err(ExtractError::UnsupportedFormat {
                found: format!("a file of type .{extension}"),
            }),
            (Some(media_type), None) => Err(ExtractError::UnsupportedFormat { found: media_type }),
            (None, None) => Ok(Format::Text),
        },
    }
}

/// Whether a file may be readable, as far as its name and media type tell.
///
/// # Errors
/// Neither is of a format that is read.
pub fn check_format(file_name: &str, media_type: Option<&str>) -> Result<(), ExtractError> {
    match detect(file_name, media_type, b"") {
        Err(error @ ExtractError::UnsupportedFormat { .. }) => Err(error),
        // Whatever else there is to say takes its bytes.
        _ => Ok(()),
    }
}

/// The encoding that a media type names, as `iso-8859-1`.
pub(super) fn charset(media_type: &str) -> Option<&str> {
    let parameters = media_type.split(';').skip(1).map(str::trim);
    let named = parameters.filter_map(|parameter| parameter.split_once('='));
    let mut charsets = named.filter(|(name, _)| name.eq_ignore_ascii_case("charset"));
    charsets.next().map(|(_, label)| label.trim_matches('"'))
}

/// Media types that are no word about a file: programs send them for whatever they do not know, Windows for every sheet, and some
/// for what is packed inside.
const SAY_NOTHING: [&str; 6] = [
    "",
    "application/octet-stream",
    "application/vnd.ms-excel",
    "application/zip",
    "application/x-zip-compressed",
    "application/x-ole-storage",
];

/// Media types that no readable file is sent with.
fn contradicts(media_type: &str) -> bool {
    ["image/", "audio/", "video/", "font/"].iter().any(|family| media_type.starts_with(family))
        || media_type == "application/gzip"
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
        Format::Xml if !start.starts_with('<') && !start.is_empty() => "text without any markup",
        _ => return Ok(()),
    };
    Err(ExtractError::mismatch(format.name(), found))
}

/// Whether there is anything like a tag.
fn holds_markup(text: &str) -> bool {
    text.as_bytes()
        .windows(2)
        .any(|pair| pair[0] == b'<' && (pair[1].is_ascii_alphabetic() || pair[1] == b'!'))
}
