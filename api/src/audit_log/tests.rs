//! What an export makes of values that others have chosen.

use super::*;

#[track_caller]
fn is_written(cell: &str, written: &str) {
    let line = csv_line(&[cell.to_owned(), "next".to_owned()]).unwrap();
    assert_eq!(String::from_utf8(line).unwrap(), format!("{written},next\n"));
}

#[test]
fn no_cell_of_an_export_is_a_formula() {
    is_written("=HYPERLINK(A1)", "'=HYPERLINK(A1)");
    is_written("+1", "'+1");
    is_written("-1", "'-1");
    is_written("@SUM(A1)", "'@SUM(A1)");
    is_written("\t=1", "'\t=1");
    is_written("\r=1", "\"'\r=1\"");
}

#[test]
fn other_cells_of_an_export_are_as_they_were_said() {
    is_written("Mozilla/5.0 (X11; =1)", "Mozilla/5.0 (X11; =1)");
    is_written("a=1", "a=1");
    is_written("", "");
}
