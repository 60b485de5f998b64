//! What a read model writes with: a connection that keeps the statements of a batch at hand.
//!
//! The rule of this file: a statement is found by where its text lies in the program. The connection's own
//! cache finds it by the text, which it hashes, copies and compares for each event: a tenth of a replay.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};

use rusqlite::{CachedStatement, Connection, Statement};

/// The tables of a file, while some events are taken in. It reads as a [`Connection`] does.
pub struct Writer<'c> {
    connection: &'c Connection,
    /// Those that nobody uses just now.
    statements: RefCell<HashMap<*const str, CachedStatement<'c>>>,
}

/// A statement of a [`Writer`], which gets it back.
pub struct Kept<'w, 'c> {
    writer: &'w Writer<'c>,
    sql: &'static str,
    /// There until it is dropped.
    statement: Option<CachedStatement<'c>>,
}

impl<'c> Writer<'c> {
    /// Writes with `connection`, in whatever transaction that is.
    pub(crate) fn new(connection: &'c Connection) -> Writer<'c> {
        Writer { connection, statements: RefCell::default() }
    }

    /// As [`Connection::prepare_cached`], for a text that is part of the program.
    ///
    /// # Errors
    /// The text is no SQL of these tables.
    pub fn prepare_cached(&self, sql: &'static str) -> rusqlite::Result<Kept<'_, 'c>> {
        let kept = self.statements.borrow_mut().remove(&std::ptr::from_ref(sql));
        let statement = match kept {
            Some(statement) => statement,
            None => self.connection.prepare_cached(sql)?,
        };
        Ok(Kept { writer: self, sql, statement: Some(statement) })
    }
}

impl Deref for Writer<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

impl<'c> Deref for Kept<'_, 'c> {
    type Target = Statement<'c>;

    fn deref(&self) -> &Statement<'c> {
        self.statement.as_ref().expect("a statement until it is dropped")
    }
}

impl<'c> DerefMut for Kept<'_, 'c> {
    fn deref_mut(&mut self) -> &mut Statement<'c> {
        self.statement.as_mut().expect("a statement until it is dropped")
    }
}

impl Drop for Kept<'_, '_> {
    fn drop(&mut self) {
        if let Some(statement) = self.statement.take() {
            self.writer.statements.borrow_mut().insert(self.sql, statement);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSERT: &str = "INSERT INTO number VALUES (?1)";

    fn sum(db: &Connection) -> i64 {
        db.query_row("SELECT total(value) FROM number", [], |row| row.get::<_, f64>(0)).unwrap()
            as i64
    }

    #[test]
    fn a_statement_is_used_again_and_by_two_at_once() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE number (value INTEGER)").unwrap();
        let writer = Writer::new(&connection);
        for number in 0..3 {
            writer.prepare_cached(INSERT).unwrap().execute([number]).unwrap();
        }
        assert_eq!(writer.statements.borrow().len(), 1);
        {
            let mut one = writer.prepare_cached(INSERT).unwrap();
            let mut other = writer.prepare_cached(INSERT).unwrap();
            one.execute([10]).unwrap();
            other.execute([20]).unwrap();
        }
        assert_eq!(sum(&writer), 33);
        assert_eq!(writer.statements.borrow().len(), 1, "one of two alike is kept");
    }

    #[test]
    fn what_failed_leaves_nothing_behind_for_the_next() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE number (value INTEGER UNIQUE)").unwrap();
        let writer = Writer::new(&connection);
        assert!(writer.prepare_cached("INSERT INTO nothing VALUES (?1)").is_err());
        writer.prepare_cached(INSERT).unwrap().execute([1]).unwrap();
        assert!(writer.prepare_cached(INSERT).unwrap().execute([1]).is_err());
        writer.prepare_cached(INSERT).unwrap().execute([2]).unwrap();
        assert_eq!(sum(&writer), 3);
    }

    #[test]
    fn a_statement_outlives_a_change_of_the_tables() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE number (value INTEGER)").unwrap();
        let writer = Writer::new(&connection);
        writer.prepare_cached(INSERT).unwrap().execute([1]).unwrap();
        writer.execute_batch("CREATE INDEX by_value ON number (value); BEGIN").unwrap();
        writer.prepare_cached(INSERT).unwrap().execute([2]).unwrap();
        writer.execute_batch("COMMIT").unwrap();
        assert_eq!(sum(&writer), 3);
    }
}
