//! Workbooks (XLSX, XLS, ODS) into text, as [`super::rows`] writes rows. The one rule: a sheet is read cell by cell where the format
//! allows it, so that a cell in the last corner of a sheet costs no more than another.

use std::io::Cursor;

use calamine::{
    Data, DataRef, DataType, ExcelDateTime, Ods, OdsError, Reader, SheetType, Xls, XlsError, Xlsx,
    XlsxError,
};

use super::format::Format;
use super::output::Output;
use super::{Document, Landmark, rows};
use crate::error::ExtractError;

/// The sheets, one after the other, each under its name.
pub(super) fn document(
    format: Format,
    bytes: &[u8],
    mut out: Output,
) -> Result<Document, ExtractError> {
    let file = Cursor::new(bytes);
    match format {
        Format::Xlsx => {
            let fault = |error: XlsxError| match error {
                XlsxError::Password => protected(format),
                XlsxError::Io(_) | XlsxError::Zip(_) => {
                    ExtractError::malformed(format.name(), error)
                }
                _ => damaged(format),
            };
            let mut book = Xlsx::new(file).map_err(fault)?;
            for name in names(book.sheets_metadata()) {
                let mut sheet = Sheet::begin(&mut out, &name)?;
                let mut cells = match book.worksheet_cells_reader(&name) {
                    Err(XlsxError::NotAWorksheet(_)) => continue,
                    cells => cells.map_err(fault)?,
                };
                while let Some(cell) = cells.next_cell().map_err(fault)? {
                    let (row, column) = cell.get_position();
                    sheet.cell(&mut out, row, column, Value::of_ref(cell.get_value()))?;
                }
                sheet.end(&mut out)?;
            }
        }
        Format::Xls => {
            let fault = |error: XlsError| match error {
                XlsError::Password => protected(format),
                _ => damaged(format),
            };
            let mut book = Xls::new(file).map_err(fault)?;
            for name in names(book.sheets_metadata()) {
                let range = book.worksheet_range(&name).map_err(fault)?;
                Sheet::whole(&mut out, &name, &range)?;
            }
        }
        _ => {
            let fault = |error: OdsError| match error {
                OdsError::Password => protected(format),
                OdsError::Io(_) | OdsError::Zip(_) => ExtractError::malformed(format.name(), error),
                _ => damaged(format),
            };
            let mut book = Ods::new(file).map_err(fault)?;
            for name in names(book.sheets_metadata()) {
                let range = book.worksheet_range(&name).map_err(fault)?;
                Sheet::whole(&mut out, &name, &range)?;
            }
        }
    }
    Ok(out.document(false, None))
}

/// Without a word out of the workbook: why a file could not be read is kept for ever.
fn damaged(format: Format) -> ExtractError {
    ExtractError::malformed(format.name(), "a part of it is damaged, or not as the format has it")
}

fn protected(format: Format) -> ExtractError {
    ExtractError::PasswordProtected { format: format!("{} workbook", format.name()) }
}

/// The names of the sheets that hold cells, in the order of the workbook.
fn names(sheets: &[calamine::Sheet]) -> Vec<String> {
    let sheets = sheets.iter().filter(|sheet| sheet.typ == SheetType::WorkSheet);
    sheets.map(|sheet| sheet.name.clone()).collect()
}

/// A cell as text, and whether it was text before.
struct Value {
    text: String,
    is_text: bool,
}

impl Value {
    fn of_ref(data: &DataRef<'_>) -> Value {
        match data {
            DataRef::SharedString(text) => Value { text: (*text).to_owned(), is_text: true },
            other => Value::of(&Data::from(other.clone())),
        }
    }

    fn of(data: &Data) -> Value {
        let is_text = data.is_string();
        let text = match data {
            Data::Empty => String::new(),
            Data::Int(number) => number.to_string(),
            Data::Float(number) => number.to_string(),
            Data::String(text) | Data::DateTimeIso(text) | Data::DurationIso(text) => text.clone(),
            Data::Bool(is_true) => is_true.to_string(),
            Data::DateTime(time) => date(time),
            Data::Error(error) => error.to_string(),
        };
        Value { text, is_text }
    }
}

/// A day without its midnight, a duration without a day.
fn date(time: &ExcelDateTime) -> String {
    if time.is_duration() {
        let seconds = time.as_duration().map_or(0, |duration| duration.num_seconds());
        return format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    }
    match time.as_datetime() {
        Some(at) if at.time() == chrono::NaiveTime::MIN => at.date().to_string(),
        Some(at) => at.to_string(),
        None => time.as_f64().to_string(),
    }
}

/// A sheet that is being written.
///
/// Its headings are its first row of two cells or more, if they are all text; what stands above (as a title does) is written as it
/// is.
struct Sheet {
    headings: Option<Row>,
    has_rows: bool,
    number: u32,
    row: Row,
    is_text: bool,
}

/// The cells of a row that hold something, by their columns, which may be few and far between.
type Row = Vec<(usize, String)>;

impl Sheet {
    fn begin(out: &mut Output, name: &str) -> Result<Sheet, ExtractError> {
        out.paragraph()?;
        out.mark(Landmark::Sheet(name.to_owned()));
        out.push(name)?;
        out.push("\n")?;
        Ok(Sheet { headings: None, has_rows: false, number: 0, row: Vec::new(), is_text: true })
    }

    /// Writes a sheet that is in memory.
    fn whole(
        out: &mut Output,
        name: &str,
        range: &calamine::Range<Data>,
    ) -> Result<(), ExtractError> {
        let mut sheet = Sheet::begin(out, name)?;
        let (first_row, first_column) = range.start().unwrap_or_default();
        for (row, column, data) in range.used_cells() {
            let row = first_row.saturating_add(u32::try_from(row).unwrap_or(u32::MAX));
            let column = first_column.saturating_add(u32::try_from(column).unwrap_or(u32::MAX));
            sheet.cell(out, row, column, Value::of(data))?;
        }
        sheet.end(out)
    }

    /// Takes the next cell; rows and columns are counted from 0.
    fn cell(
        &mut self,
        out: &mut Output,
        row: u32,
        column: u32,
        value: Value,
    ) -> Result<(), ExtractError> {
        if value.text.trim().is_empty() {
            return Ok(());
        }
        let number = row.saturating_add(1);
        if number != self.number {
            self.write(out)?;
            self.number = number;
        }
        self.is_text &= value.is_text;
        self.row.push((column as usize, value.text));
        Ok(())
    }

    fn end(&mut self, out: &mut Output) -> Result<(), ExtractError> {
        self.write(out)?;
        // A sheet of nothing but headings.
        match self.headings.take() {
            Some(headings) if !self.has_rows => {
                rows::write(out, |_| None, headings, None).map(drop)
            }
            _ => Ok(()),
        }
    }

    fn write(&mut self, out: &mut Output) -> Result<(), ExtractError> {
        let row = std::mem::take(&mut self.row);
        let is_text = std::mem::replace(&mut self.is_text, true);
        if self.headings.is_none() && !self.has_rows && row.len() > 1 && is_text {
            self.headings = Some(row);
            return Ok(());
        }
        let headings = self.headings.as_deref().unwrap_or_default();
        let heading = |column| {
            let place = headings.binary_search_by_key(&column, |(column, _)| *column).ok()?;
            Some(headings[place].1.as_str())
        };
        // What stands alone above the headings is a title, and no row of the table.
        let is_title = row.len() == 1 && self.headings.is_none();
        let any = rows::write(out, heading, row, Some(self.number))?;
        self.has_rows |= any && !is_title;
        Ok(())
    }
}
