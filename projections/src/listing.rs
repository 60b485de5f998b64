//! Lists: a window onto a table, newest first, with an exact total up to a bound.
//!
//! The rule of this file: every listed table has a unique `position` (that of the event that made
//! the row), which is both the order and the cursor.

use rusqlite::types::ToSql;
use rusqlite::{Connection, Row};

use crate::Error;

/// Up to where totals are counted exactly.
pub const TOTAL_CAP: u64 = 10_000;

/// Which part of a list is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// How many rows are passed over.
    pub offset: u64,
    /// How many rows are wanted at most.
    pub size: u64,
    /// Only rows after the one with this position, in the order of the list.
    pub cursor: Option<u64>,
}

impl Window {
    /// The first `size` rows.
    pub fn first(size: u64) -> Window {
        Window { offset: 0, size, cursor: None }
    }
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing<T> {
    /// The rows.
    pub items: Vec<T>,
    /// How many rows there are in the whole list, at most [`TOTAL_CAP`].
    pub total: u64,
    /// There are more than `total`.
    pub total_is_capped: bool,
    /// From where the list goes on behind `items`; none at its end.
    pub cursor: Option<u64>,
}

impl<T> Listing<T> {
    /// The same part, each row turned into something else.
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> Listing<U> {
        Listing {
            items: self.items.into_iter().map(change).collect(),
            total: self.total,
            total_is_capped: self.total_is_capped,
            cursor: self.cursor,
        }
    }
}

/// A query of a list: `SELECT {columns} FROM {from} WHERE {conditions}`.
pub(crate) struct Query<'a> {
    columns: &'a str,
    from: &'a str,
    /// The column that is the order and the cursor.
    position: &'a str,
    conditions: Vec<&'a str>,
    values: Vec<Box<dyn ToSql>>,
}

impl<'a> Query<'a> {
    /// `position` is the qualified name of the ordering column.
    pub(crate) fn new(columns: &'a str, from: &'a str, position: &'a str) -> Query<'a> {
        Query { columns, from, position, conditions: vec![], values: vec![] }
    }

    /// Adds a condition with one `?`.
    pub(crate) fn and(mut self, condition: &'a str, value: impl ToSql + 'static) -> Self {
        self.conditions.push(condition);
        self.values.push(Box::new(value));
        self
    }

    /// Adds a condition with one `?`, if there is a value for it.
    pub(crate) fn and_if(self, condition: &'a str, value: Option<impl ToSql + 'static>) -> Self {
        match value {
            Some(value) => self.and(condition, value),
            None => self,
        }
    }

    /// Adds a condition with a `?` for each of these values.
    pub(crate) fn and_all<const N: usize>(
        mut self,
        condition: &'a str,
        values: [Box<dyn ToSql>; N],
    ) -> Self {
        self.conditions.push(condition);
        self.values.extend(values);
        self
    }

    fn condition(&self) -> String {
        if self.conditions.is_empty() { "1".to_owned() } else { self.conditions.join(" AND ") }
    }

    fn sql(&self, window: Window) -> String {
        let Query { columns, from, position, .. } = self;
        let conditions = self.condition();
        let cursor =
            window.cursor.map(|cursor| format!(" AND {position} < {cursor}")).unwrap_or_default();
        format!(
            "SELECT {columns}, {position} FROM {from} WHERE {conditions}{cursor} ORDER BY {position} DESC LIMIT {} OFFSET {}",
            window.size + 1,
            window.offset,
        )
    }

    /// How SQLite goes about it.
    #[cfg(test)]
    pub(crate) fn plan(&self, db: &Connection, window: Window) -> Result<String, Error> {
        let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {}", self.sql(window)))?;
        let bound: Vec<&dyn ToSql> = self.values.iter().map(AsRef::as_ref).collect();
        let steps = statement.query_map(&bound[..], |row| row.get::<_, String>(3))?;
        Ok(steps.collect::<Result<Vec<_>, _>>()?.join("\n"))
    }

    /// Runs the query.
    pub(crate) fn list<T>(
        self,
        db: &Connection,
        window: Window,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Listing<T>, Error> {
        let bound: Vec<&dyn ToSql> = self.values.iter().map(AsRef::as_ref).collect();
        let mut statement = db.prepare_cached(&self.sql(window))?;
        let last = statement.column_count() - 1;
        let mut rows = statement.query(&bound[..])?;
        let mut items = Vec::new();
        let mut next = None;
        let mut positions = 0_u64;
        while let Some(row) = rows.next()? {
            if items.len() as u64 == window.size {
                next = Some(positions);
                break;
            }
            positions = row.get(last)?;
            items.push(read(row)?);
        }
        let is_whole =
            next.is_none() && window.cursor.is_none() && (window.offset == 0 || !items.is_empty());
        let counted = if is_whole {
            window.offset + items.len() as u64
        } else {
            let sql = format!(
                "SELECT count(*) FROM (SELECT 1 FROM {} WHERE {} LIMIT {})",
                self.from,
                self.condition(),
                TOTAL_CAP + 1
            );
            db.prepare_cached(&sql)?.query_row(&bound[..], |row| row.get(0))?
        };
        Ok(Listing {
            items,
            total: counted.min(TOTAL_CAP),
            total_is_capped: counted > TOTAL_CAP,
            cursor: next,
        })
    }
}
