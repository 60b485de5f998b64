//! Between the paging of HTTP and the windows of the read models.

use projections::{Listing, Window};

use crate::http::{ListQuery, ListReply, Problem, Total};

/// The window that a request asks for.
///
/// # Errors
/// 400 for a cursor that is not of this list.
pub fn window<F>(query: &ListQuery<F>) -> Result<Window, Problem> {
    Ok(Window { offset: query.offset(), size: u64::from(query.size()), cursor: query.cursor()? })
}

/// How long the whole list is, and from where it goes on.
pub fn total<F, T>(query: &ListQuery<F>, listing: &Listing<T>) -> Total {
    // The cursor is for lists too long for page numbers.
    match listing.total_is_capped {
        true => growing_total(query, listing),
        false => Total::exact(listing.total),
    }
}

/// As [`total`], for a list that grows at its beginning while it is read: there is always a cursor, since by
/// page numbers what was read already would come again.
pub fn growing_total<F, T>(query: &ListQuery<F>, listing: &Listing<T>) -> Total {
    let total = match listing.total_is_capped {
        true => Total::capped(listing.total),
        false => Total::exact(listing.total),
    };
    total.with_cursor(listing.cursor.map(|position| query.cursor_after(&position)))
}

/// Answers the asked part of a list that is whole in memory.
pub fn part<F, T>(query: &ListQuery<F>, message: &'static str, all: Vec<T>) -> ListReply<T> {
    let total = Total::exact(all.len() as u64);
    let offset = usize::try_from(query.offset()).unwrap_or(usize::MAX);
    let part = all.into_iter().skip(offset).take(query.size() as usize).collect();
    query.reply(message, part, total)
}
