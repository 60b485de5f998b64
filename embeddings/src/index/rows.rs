//! Rows of numbers, all of one width, in pieces. The one rule: what is there is not moved when more comes, and no more is taken than
//! a piece has room for: a vector that grows by doubling would hold twice what it needs, and both while it grows.
//! Whoever else reads a piece keeps it as it was.

use std::sync::Arc;

/// Of how many parts of a piece there is room at first: many knowledge bases are small.
const FIRST: usize = 256;

#[derive(Clone, Debug)]
pub(super) struct Rows<T> {
    width: usize,
    /// How many rows a piece has: two to the power of this.
    power: u32,
    pieces: Vec<Arc<Vec<T>>>,
    len: usize,
}

impl<T: Copy> Rows<T> {
    /// None yet, of that width, and in pieces of two to that power.
    pub(super) fn new(width: usize, power: u32) -> Self {
        Self { width, power, pieces: Vec::new(), len: 0 }
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// The piece of a row, and where in it the row begins.
    #[inline(always)]
    fn place(&self, row: usize) -> (usize, usize) {
        (row >> self.power, (row & ((1 << self.power) - 1)) * self.width)
    }

    /// Adds a row.
    pub(super) fn push(&mut self, row: &[T]) {
        debug_assert_eq!(row.len(), self.width);
        let whole = self.width << self.power;
        if self.place(self.len).1 == 0 {
            self.pieces.push(Arc::default());
        }
        if let Some(piece) = self.pieces.last_mut().map(Arc::make_mut) {
            if piece.len() == piece.capacity() {
                let first = (whole / FIRST).max(self.width);
                piece.reserve_exact(piece.len().max(first).min(whole - piece.len()));
            }
            piece.extend_from_slice(row);
        }
        self.len += 1;
    }

    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> &[T] {
        let (piece, start) = self.place(row);
        &self.pieces[piece][start..][..self.width]
    }

    pub(super) fn row_mut(&mut self, row: usize) -> &mut [T] {
        let (piece, start) = self.place(row);
        &mut Arc::make_mut(&mut self.pieces[piece])[start..][..self.width]
    }

    /// All rows, some at a time, in their order.
    pub(super) fn pieces(&self) -> &[Arc<Vec<T>>] {
        &self.pieces
    }

    /// Writes a row over one before it.
    pub(super) fn move_back(&mut self, from: usize, to: usize) {
        let (from, to) = (self.place(from), self.place(to));
        if from.0 == to.0 {
            let piece = Arc::make_mut(&mut self.pieces[from.0]);
            piece.copy_within(from.1..from.1 + self.width, to.1);
        } else {
            let (before, after) = self.pieces.split_at_mut(from.0);
            let before = &mut Arc::make_mut(&mut before[to.0])[to.1..][..self.width];
            before.copy_from_slice(&after[0][from.1..][..self.width]);
        }
    }

    /// Forgets all but the first.
    pub(super) fn truncate(&mut self, len: usize) {
        let (piece, end) = self.place(len);
        self.pieces.truncate(if end == 0 { piece } else { piece + 1 });
        if let Some(last) = self.pieces.get_mut(piece).map(Arc::make_mut) {
            last.truncate(end);
            last.shrink_to_fit();
        }
        self.len = len.min(self.len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stay_where_they_are_until_they_are_moved_back() {
        const PIECE: usize = 512;
        let mut rows = Rows::new(3, 9);
        let row = |number: usize| [number as u32, 1, number as u32 * 2];
        for number in 0..2 * PIECE + 5 {
            rows.push(&row(number));
        }
        assert_eq!((rows.len, rows.pieces().len()), (2 * PIECE + 5, 3));
        assert!((0..rows.len).all(|number| rows.row(number) == row(number)));
        assert!(rows.pieces.iter().all(|piece| piece.capacity() <= PIECE * 3));
        assert!(rows.pieces[2].capacity() < 10 * 3);

        for number in PIECE - 2..PIECE + 2 {
            rows.move_back(number + PIECE, number);
        }
        rows.truncate(PIECE + 2);
        let is = |number: usize| if number < PIECE - 2 { number } else { number + PIECE };
        assert!((0..PIECE + 2).all(|number| rows.row(number) == row(is(number))));
        assert_eq!((rows.len, rows.pieces().len()), (PIECE + 2, 2));

        rows.push(&row(7));
        rows.row_mut(PIECE + 2)[1] = 9;
        assert_eq!(rows.row(PIECE + 2), [7, 9, 14]);
        rows.truncate(PIECE);
        rows.push(&row(8));
        assert_eq!((rows.row(PIECE), rows.len), (&row(8)[..], PIECE + 1));
        rows.truncate(0);
        assert_eq!((rows.len, rows.pieces().len()), (0, 0));
    }
}
