//! Where in the log which time is, and where events begin: the server can be asked neither.
//!
//! The rule of this file: a time is one position, even where the server's clock was set back: the
//! last one before the first event that is later. So the marks are made from the log's start on,
//! one behind the other, and each knows the latest time before it.
//!
//! A position is a place in the server's file, and it reads from the place of an event only. Every
//! position that was answered is one; what a caller made up (`head - 10`) is looked for between
//! the marks.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;

use super::reader::Reader;
use crate::{Error, Position, RecordedEvent};

/// Events between two marks.
const PAGE: usize = 1000;

/// Marks at every thousandth event, as far as the log was gone through.
#[derive(Default)]
pub(super) struct Calendar {
    marks: Mutex<Vec<Mark>>,
}

#[derive(Clone, Copy)]
struct Mark {
    position: Position,
    /// The latest time of any event up to here.
    latest: DateTime<Utc>,
}

impl Mark {
    const START: Mark = Mark { position: Position::START, latest: DateTime::<Utc>::MIN_UTC };
}

impl Calendar {
    /// The last position that was committed at or before a time.
    pub async fn position_at(
        &self,
        reader: &Reader,
        time: DateTime<Utc>,
    ) -> Result<Position, Error> {
        let mut mark = self.last(|mark| mark.latest <= time);
        loop {
            let page = reader.after(mark.position, PAGE).await?;
            let mut latest = mark.latest;
            let mut position = mark.position;
            for event in &page {
                latest = latest.max(event.time);
                if latest > time {
                    return Ok(position);
                }
                position = event.position;
            }
            if page.is_empty() {
                return Ok(position);
            }
            let next = Mark { position, latest };
            self.add(mark, next, page.len());
            mark = next;
        }
    }

    /// Events behind a position that is no event's own.
    pub async fn after(
        &self,
        reader: &Reader,
        after: Position,
        limit: usize,
    ) -> Result<Vec<Arc<RecordedEvent>>, Error> {
        let newest = reader.newest().await?.position;
        if newest <= after {
            return Ok(Vec::new());
        }
        let mut mark = self.last(|mark| mark.position <= after);
        if newest.0 - after.0 < after.0 - mark.position.0 {
            // Nearer to the end.
            let Some(first) = reader.first_behind(after).await? else { return Ok(Vec::new()) };
            return reader.at(first, limit).await;
        }
        loop {
            let page = reader.after(mark.position, PAGE).await?;
            let Some(last) = page.last() else { return Ok(Vec::new()) };
            if let Some(first) = page.iter().find(|event| event.position > after) {
                return reader.at(first.position, limit).await;
            }
            let latest = page.iter().map(|event| event.time).fold(mark.latest, DateTime::max);
            let next = Mark { position: last.position, latest };
            self.add(mark, next, page.len());
            mark = next;
        }
    }

    /// The last mark that is early enough. Both of a mark's values only grow.
    fn last(&self, is_early: impl Fn(&Mark) -> bool) -> Mark {
        let marks = self.marks.lock();
        match marks.partition_point(is_early) {
            0 => Mark::START,
            count => marks[count - 1],
        }
    }

    /// Adds a mark behind the last one, unless somebody else did, or the page was the log's last.
    fn add(&self, last: Mark, next: Mark, events: usize) {
        let mut marks = self.marks.lock();
        let is_next = marks.last().map_or(Position::START, |mark| mark.position) == last.position;
        if is_next && events == PAGE {
            marks.push(next);
        }
    }
}
