//! Rows of tables as text: one paragraph per row, one `heading: value` line per cell, so that every chunk still knows what its
//! numbers mean. The one rule: no cell is lost, whatever the length of its row.

use super::Landmark;
use super::output::Output;
use crate::error::ExtractError;

/// Writes a row as a paragraph, under its number if it has one: cells with their columns, headings by column. Answers whether there
/// was anything in it.
pub(super) fn write<'a, Cell: AsRef<str>>(
    out: &mut Output,
    heading: impl Fn(usize) -> Option<&'a str>,
    cells: impl IntoIterator<Item = (usize, Cell)>,
    number: Option<u32>,
) -> Result<bool, ExtractError> {
    let mut any = false;
    for (column, cell) in cells {
        let value = cell.as_ref().trim();
        if value.is_empty() {
            continue;
        }
        if !any {
            out.paragraph()?;
            if let Some(number) = number {
                out.mark(Landmark::Row(number));
            }
            any = true;
        }
        if let Some(heading) = heading(column).map(str::trim).filter(|heading| !heading.is_empty())
        {
            out.push(heading)?;
            out.push(": ")?;
        }
        out.push(value)?;
        out.push("\n")?;
    }
    Ok(any)
}

/// Writes a small table of a document: its first row is its headings, if `has_headings`.
pub(super) fn table(
    out: &mut Output,
    rows: &[Vec<String>],
    has_headings: bool,
) -> Result<(), ExtractError> {
    out.paragraph()?;
    match rows {
        [headings, rows @ ..] if has_headings && !rows.is_empty() => {
            for row in rows {
                let heading = |column: usize| headings.get(column).map(String::as_str);
                write(out, heading, row.iter().enumerate(), None)?;
            }
        }
        rows => {
            for row in rows {
                let cells: Vec<&str> =
                    row.iter().map(|cell| cell.trim()).filter(|cell| !cell.is_empty()).collect();
                if !cells.is_empty() {
                    out.push(&cells.join(" | "))?;
                    out.push("\n")?;
                }
            }
        }
    }
    out.paragraph()
}
