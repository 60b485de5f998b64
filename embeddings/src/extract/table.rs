//! CSV and TSV into text: one paragraph per row, one `heading: value` line per cell, so that every chunk still knows what its
//! numbers mean. The one rule: no cell is lost, whatever the length of its row.

use csv::{ReaderBuilder, StringRecord};

use super::format::Format;
use crate::error::ExtractError;

/// The rows of the table as paragraphs. The first row is the headings.
pub(super) fn text(format: Format, text: &str) -> Result<String, ExtractError> {
    let delimiter = match format {
        Format::Tsv => b'\t',
        _ => comma_or_semicolon(text),
    };
    let mut rows = ReaderBuilder::new()
        .delimiter(delimiter)
        .has_headers(false)
        .flexible(true)
        .from_reader(text.as_bytes());
    let mut records = rows.records();
    let read = |record: Result<StringRecord, csv::Error>| {
        record.map_err(|error| ExtractError::Malformed {
            format: format.name(),
            reason: error.to_string(),
        })
    };
    let Some(headings) =
        records.next().transpose().map_or_else(|error| read(Err(error)).map(Some), Ok)?
    else {
        return Ok(String::new());
    };
    let mut out = String::with_capacity(text.len() * 2);
    let mut any = false;
    for record in records {
        let record = read(record)?;
        let before = out.len();
        for (index, value) in record.iter().map(str::trim).enumerate() {
            if value.is_empty() {
                continue;
            }
            match headings.get(index).map(str::trim).filter(|heading| !heading.is_empty()) {
                Some(heading) => out.extend([heading, ": ", value, "\n"]),
                None => out.extend([value, "\n"]),
            }
        }
        if out.len() > before {
            out.push('\n');
            any = true;
        }
    }
    if !any {
        out = headings.iter().collect::<Vec<_>>().join("\n");
    }
    out.truncate(out.trim_end().len());
    Ok(out)
}

/// Spreadsheets write semicolons where the comma is the decimal sign.
fn comma_or_semicolon(text: &str) -> u8 {
    let heading = text.lines().next().unwrap_or_default();
    if heading.contains(';') && !heading.contains(',') { b';' } else { b',' }
}
