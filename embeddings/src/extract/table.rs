//! CSV and TSV into text, as [`super::rows`] writes it. The one rule: the first row is the headings.

use csv::{ReaderBuilder, StringRecord};

use super::format::Format;
use super::output::Output;
use super::{Document, rows};
use crate::error::ExtractError;

/// The rows of the table as paragraphs. The first row is the headings.
pub(super) fn document(
    format: Format,
    text: &str,
    mut out: Output,
) -> Result<Document, ExtractError> {
    let delimiter = match format {
        Format::Tsv => b'\t',
        _ => comma_or_semicolon(text),
    };
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter)
        .has_headers(false)
        .flexible(true)
        .from_reader(text.as_bytes());
    let read = |record: Result<StringRecord, csv::Error>| {
        record.map_err(|error| ExtractError::malformed(format.name(), error))
    };
    let mut headings = None;
    let mut any = false;
    for (number, record) in (1_u32..).zip(reader.records()) {
        let record = read(record)?;
        match &headings {
            None => headings = Some(record.iter().map(str::to_owned).collect::<Vec<_>>()),
            Some(headings) => {
                let heading = |column: usize| headings.get(column).map(String::as_str);
                any |= rows::write(&mut out, heading, record.iter().enumerate(), Some(number))?;
            }
        }
    }
    if let (false, Some(headings)) = (any, &headings) {
        out.push(&headings.join("\n"))?;
    }
    Ok(out.document(false, None))
}

/// Spreadsheets write semicolons where the comma is the decimal sign.
fn comma_or_semicolon(text: &str) -> u8 {
    let heading = text.lines().next().unwrap_or_default();
    if heading.contains(';') && !heading.contains(',') { b';' } else { b',' }
}
