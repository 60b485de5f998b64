//! Vectors in a bit a number, its sign, for a first look at all of them: how much of the question's numbers stands where a vector has
//! the same sign. The one rule: what is as near as what is kept is kept too, so that the order of the rows decides nothing.
//!
//! Thirty-two rows lie in each other, four numbers of a row in a nibble, so that one instruction looks up what four numbers of thirty-two
//! rows come to (the layout of "Quicker ADC", André, Kermarrec and Le Scouarnec, 2018).

use std::num::NonZero;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use pulp::bytemuck;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::rows::Rows;
use crate::processor::{Kernel, Pairs, Processor};

/// How many rows lie in each other.
pub(super) const BLOCK: usize = 32;

/// Eight numbers of a block's rows: the first four in the first sixteen bytes, of row `i` in the lower half of byte `i`, of row
/// `i + 16` in the upper one.
pub(super) type Slice = [u8; BLOCK];

/// How many numbers are in a slice.
const NUMBERS: usize = 8;

/// A piece has so many blocks, to the power of two.
const PIECE: u32 = 7;

/// The greatest entry of a table, and how many of them fit a byte together.
const MOST: usize = 31;
const TOGETHER: usize = 8;

/// The signs of all rows.
#[derive(Clone, Debug)]
pub(super) struct Signs {
    blocks: Rows<Slice>,
    len: usize,
}

/// The place of a number within a block: its slice, and the byte and the bit there.
fn place(row: usize, number: usize) -> (usize, usize, usize) {
    let (row, within) = (row % BLOCK, number % NUMBERS);
    (number / NUMBERS, within / 4 * 16 + row % 16, within % 4 + row / 16 * 4)
}

impl Signs {
    /// None yet, of vectors of that length.
    pub(super) fn new(dimensions: usize) -> Self {
        Self { blocks: Rows::new(dimensions.div_ceil(NUMBERS), PIECE), len: 0 }
    }

    /// Adds those of a vector.
    pub(super) fn push(&mut self, vector: &[f32]) {
        self.add(vector.iter().map(|number| *number >= 0.0));
    }

    /// Those of some rows alone, in that order.
    pub(super) fn only(&self, rows: impl Iterator<Item = usize>, dimensions: usize) -> Self {
        let mut some = Self::new(dimensions);
        for row in rows {
            let block = self.blocks.row(row / BLOCK);
            some.add((0..dimensions).map(|number| {
                let (slice, byte, bit) = place(row, number);
                block[slice][byte] >> bit & 1 == 1
            }));
        }
        some
    }

    fn add(&mut self, signs: impl Iterator<Item = bool>) {
        if self.len.is_multiple_of(BLOCK) {
            self.blocks.push(&vec![[0; BLOCK]; self.blocks.width()]);
        }
        let block = self.blocks.row_mut(self.len / BLOCK);
        for (number, sign) in signs.enumerate() {
            let (slice, byte, bit) = place(self.len, number);
            block[slice][byte] |= u8::from(sign) << bit;
        }
        self.len += 1;
    }

    /// Of the rows that `admitted` has a bit for, the nearest to a query, so many at least, in no order.
    pub(super) fn nearest(
        &self,
        query: &[f32],
        admitted: Vec<u32>,
        wanted: usize,
        processor: Processor,
    ) -> Vec<u32> {
        let search = Search::new(tables(query), self.blocks.pieces(), admitted, wanted, processor);
        let under_way = UnderWay::begin();
        if under_way.is_alone
            && search.pieces.len() >= FEWEST_TO_SHARE
            && let Some(helpers) = &*HELPERS
        {
            (0..helpers.current_num_threads()).for_each(|_| search.ask_for_help(helpers));
        }
        search.finish()
    }
}

/// How many pieces there are at least where other threads help: with fewer it is over before they are awake.
const FEWEST_TO_SHARE: usize = 8;

/// How many threads help at most.
const MOST_HELPERS: usize = 3;

/// The threads that help: one for each processor but that of the one who asks. None where there is one processor, or
/// the system has no threads left.
static HELPERS: LazyLock<Option<ThreadPool>> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    let count = (processors - 1).min(MOST_HELPERS);
    let named = |number| format!("search-helper-{number}");
    let build = || ThreadPoolBuilder::new().num_threads(count).thread_name(named).build().ok();
    (count > 0).then(build).flatten()
});

/// Notes that a search is under way. Where there are several, each has its own processor, and none needs help.
struct UnderWay {
    is_alone: bool,
}

static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

impl UnderWay {
    fn begin() -> UnderWay {
        UnderWay { is_alone: UNDER_WAY.fetch_add(1, Ordering::Relaxed) == 0 }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A look at all pieces, each by whoever comes first. Nobody is waited for: a helper that is not awake yet, or does not
/// get on, is done without.
struct Search {
    tables: Vec<Slice>,
    pieces: Vec<Arc<Vec<Slice>>>,
    admitted: Vec<u32>,
    wanted: usize,
    processor: Processor,
    /// The first piece that nobody has begun.
    next: AtomicUsize,
    /// What a row must come to, as far as anybody knows.
    least: AtomicU16,
    /// The pieces that helpers have done, and what they found there.
    helped: Mutex<Vec<(usize, Vec<Found>)>>,
}

/// What a row comes to, and the row.
type Found = (u16, u32);

impl Search {
    fn new(
        tables: Vec<Slice>,
        pieces: &[Arc<Vec<Slice>>],
        admitted: Vec<u32>,
        wanted: usize,
        processor: Processor,
    ) -> Arc<Search> {
        Arc::new(Search {
            tables,
            pieces: pieces.to_vec(),
            admitted,
            wanted,
            processor,
            next: AtomicUsize::new(0),
            least: AtomicU16::new(0),
            helped: Mutex::default(),
        })
    }

    fn ask_for_help(self: &Arc<Self>, helpers: &ThreadPool) {
        let search = self.clone();
        helpers.spawn(move || search.help());
    }

    fn help(&self) {
        let mut nearest = Nearest::new(self.wanted, &self.tables);
        while let Some(piece) = self.claim() {
            self.look_at(piece, &mut nearest);
            let found = std::mem::take(&mut nearest.found);
            self.helped.lock().push((piece, found));
        }
    }

    /// The nearest rows, in no order.
    fn finish(&self) -> Vec<u32> {
        let mut nearest = Nearest::new(self.wanted, &self.tables);
        let mut is_missing = vec![true; self.pieces.len()];
        while let Some(piece) = self.claim() {
            self.look_at(piece, &mut nearest);
            is_missing[piece] = false;
        }
        for (piece, found) in std::mem::take(&mut *self.helped.lock()) {
            is_missing[piece] = false;
            found.into_iter().for_each(|(sum, row)| nearest.add(row, sum));
        }
        // What a helper has begun, and has not done yet.
        let missing = is_missing.iter().enumerate().filter(|(_, is_missing)| **is_missing);
        missing.for_each(|(piece, _)| self.look_at(piece, &mut nearest));
        nearest.rows()
    }

    fn claim(&self) -> Option<usize> {
        let piece = self.next.fetch_add(1, Ordering::Relaxed);
        (piece < self.pieces.len()).then_some(piece)
    }

    fn look_at(&self, piece: usize, nearest: &mut Nearest) {
        let (blocks, first) = (&self.pieces[piece], piece << PIECE);
        let count = blocks.len() / self.tables.len().max(1);
        let admitted = self.admitted.get(first..).unwrap_or_default();
        let admitted = &admitted[..count.min(admitted.len())];
        nearest.first = (first * BLOCK) as u32;
        nearest.raise(self.least.load(Ordering::Relaxed));
        self.processor.run(Look { tables: &self.tables, blocks, admitted, nearest });
        self.least.fetch_max(nearest.least, Ordering::Relaxed);
    }
}

/// What four numbers of a query come to for each pattern of four signs: the sizes of those that have the sign of the pattern; in whole
/// numbers, for each slice.
fn tables(query: &[f32]) -> Vec<Slice> {
    let slices = query.len().div_ceil(NUMBERS);
    let size = |four: &[f32]| four.iter().map(|number| number.abs()).sum::<f32>();
    let greatest = query.chunks(4).map(size).fold(f32::MIN_POSITIVE, f32::max);
    // Four roundings may add two, and all tables together must fit sixteen bits.
    let most = MOST.min(usize::from(u16::MAX) / (2 * slices.max(1))).saturating_sub(2);
    let factor = most as f32 / greatest;
    let table = |numbers: &[f32]| {
        let mut table = [0; BLOCK];
        for (place, entry) in table.iter_mut().enumerate() {
            let (half, pattern) = (place / 16, place % 16);
            let four = numbers.iter().skip(half * 4).take(4).enumerate();
            let alike = four.filter(|(bit, number)| (pattern >> bit & 1 == 1) == (**number >= 0.0));
            *entry = alike.map(|(_, number)| (number.abs() * factor).round() as u8).sum();
        }
        table
    };
    query.chunks(NUMBERS).map(table).collect()
}

/// The nearest rows so far, and as near as what.
struct Nearest {
    wanted: usize,
    /// The row that the piece begins with.
    first: u32,
    /// What a row must come to.
    least: u16,
    /// How many came to at least that.
    count: usize,
    /// How many came to what.
    times: Vec<u32>,
    /// Some that were near enough when they were found.
    found: Vec<Found>,
}

impl Nearest {
    fn new(wanted: usize, tables: &[Slice]) -> Self {
        let most = |half: &[u8]| usize::from(half.iter().copied().max().unwrap_or(0));
        let most: usize = tables.iter().map(|table| most(&table[..16]) + most(&table[16..])).sum();
        Self {
            wanted: wanted.max(1),
            first: 0,
            least: 0,
            count: 0,
            times: vec![0; most + 1],
            found: Vec::with_capacity(4 * wanted),
        }
    }

    /// Takes over what others have found out that a row must come to.
    fn raise(&mut self, least: u16) {
        while self.least < least {
            self.count -= self.times[usize::from(self.least)] as usize;
            self.least += 1;
        }
    }

    /// Takes a row in; one that does not come to enough is none.
    fn add(&mut self, row: u32, sum: u16) {
        if sum < self.least {
            return;
        }
        self.found.push((sum, row));
        self.times[usize::from(sum)] += 1;
        self.count += 1;
        loop {
            let last = self.times[usize::from(self.least)] as usize;
            if self.count - last < self.wanted {
                break;
            }
            self.count -= last;
            self.least += 1;
        }
    }

    fn rows(self) -> Vec<u32> {
        let near = self.found.into_iter().filter(|(sum, _)| *sum >= self.least);
        near.map(|(_, row)| row).collect()
    }
}

/// Looks at some blocks.
struct Look<'a> {
    tables: &'a [Slice],
    blocks: &'a [Slice],
    /// A bit for each row of each block.
    admitted: &'a [u32],
    nearest: &'a mut Nearest,
}

impl Kernel for Look<'_> {
    type Output = ();

    #[inline(always)]
    fn run<P: Pairs>(self, pairs: P) {
        let Self { tables, blocks, admitted, nearest } = self;
        let blocks = blocks.chunks_exact(tables.len().max(1));
        for ((place, block), admitted) in (0..).zip(blocks).zip(admitted) {
            if *admitted == 0 {
                continue;
            }
            let sums = sums(pairs, tables, block);
            let mut near = pairs.at_least(sums, nearest.least) & admitted;
            while near != 0 {
                let row = near.trailing_zeros();
                near &= near - 1;
                nearest.add(nearest.first + place * BLOCK as u32 + row, sums[row as usize]);
            }
        }
    }
}

/// What each row of a block comes to.
#[inline(always)]
fn sums<P: Pairs>(pairs: P, tables: &[Slice], block: &[Slice]) -> [u16; BLOCK] {
    let mut totals = Totals::default();
    let ((whole, rest), (tables, rest_tables)) =
        (block.as_chunks::<TOGETHER>(), tables.as_chunks::<TOGETHER>());
    for (slices, tables) in whole.iter().zip(tables) {
        totals.add(pairs, slices, tables);
    }
    totals.add(pairs, rest, rest_tables);
    totals.rows()
}

/// Of the rows below sixteen and of the others.
#[derive(Default)]
struct Totals {
    /// Two rows in each number, as if they were one.
    both: [[u16; 16]; 2],
    /// The odd one of them.
    odd: [[u16; 16]; 2],
}

impl Totals {
    /// Adds what so many slices come to as fit a byte together.
    #[inline(always)]
    fn add<P: Pairs>(&mut self, pairs: P, slices: &[Slice], tables: &[Slice]) {
        let mut few = [[0_u8; BLOCK]; 2];
        for (slice, table) in slices.iter().zip(tables) {
            let (mut below, mut above) = (*slice, *slice);
            for lane in 0..BLOCK {
                below[lane] &= 15;
                above[lane] >>= 4;
            }
            let (below, above) = (pairs.pick(*table, below), pairs.pick(*table, above));
            for lane in 0..BLOCK {
                few[0][lane] = few[0][lane].wrapping_add(below[lane]);
                few[1][lane] = few[1][lane].wrapping_add(above[lane]);
            }
        }
        for half in 0..2 {
            let few: [u16; 16] = bytemuck::cast(few[half]);
            for lane in 0..16 {
                let few = few[lane].to_le();
                self.both[half][lane] = self.both[half][lane].wrapping_add(few);
                self.odd[half][lane] = self.odd[half][lane].wrapping_add(few >> 8);
            }
        }
    }

    /// What each row comes to.
    #[inline(always)]
    fn rows(self) -> [u16; BLOCK] {
        let mut sums = [0; BLOCK];
        for half in 0..2 {
            for lane in 0..8 {
                let odd = self.odd[half][lane].wrapping_add(self.odd[half][lane + 8]);
                let both = self.both[half][lane].wrapping_add(self.both[half][lane + 8]);
                sums[half * 16 + 2 * lane] = both.wrapping_sub(odd << 8);
                sums[half * 16 + 2 * lane + 1] = odd;
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processor;
    use crate::random::unit_vectors;

    /// What a vector comes to, number by number.
    fn plain(tables: &[Slice], vector: &[f32]) -> u16 {
        let fours = vector.chunks(4).enumerate().map(|(place, four)| {
            let bits = (0..).zip(four);
            let pattern =
                bits.fold(0, |bits, (bit, number)| bits | usize::from(*number >= 0.0) << bit);
            u16::from(tables[place / 2][place % 2 * 16 + pattern])
        });
        fours.sum()
    }

    #[test]
    fn what_a_row_comes_to_is_the_sum_of_its_tables_on_every_processor() {
        for dimensions in [1, 4, 5, 24, 63, 64, 65, 384, 1000, 1024, 5000] {
            let vectors = unit_vectors(70, dimensions, 1);
            let mut signs = Signs::new(dimensions);
            vectors.iter().for_each(|vector| signs.push(vector));
            for query in [&vectors[0], &vec![1.0; dimensions]] {
                let tables = tables(query);
                let mut expected: Vec<(u16, u32)> =
                    vectors.iter().map(|vector| plain(&tables, vector)).zip(0..).collect();
                expected.sort_by_key(|(sum, _)| std::cmp::Reverse(*sum));
                let least = expected[4].0;
                let mut expected: Vec<u32> =
                    expected.iter().filter(|(sum, _)| *sum >= least).map(|(_, row)| *row).collect();
                expected.sort_unstable();
                for processor in processor::all() {
                    let all = vec![u32::MAX, u32::MAX, (1 << 6) - 1];
                    assert_eq!(signs.nearest(query, all, 5, processor), expected, "{dimensions}");
                }
            }
        }
    }

    #[test]
    fn helpers_change_nothing_whether_they_get_on_or_not() {
        let vectors = unit_vectors(20_000, 24, 4);
        let mut signs = Signs::new(24);
        vectors.iter().for_each(|vector| signs.push(vector));
        let all = vec![u32::MAX; 20_000 / BLOCK];
        for (wanted, query) in [1, 100, 5_000, 30_000].into_iter().zip(&vectors) {
            let sums = vectors.iter().map(|vector| plain(&tables(query), vector));
            let sums: Vec<u16> = sums.collect();
            let mut ranked = sums.clone();
            ranked.sort_unstable_by(|one, other| other.cmp(one));
            let least = ranked.get(wanted - 1).copied().unwrap_or(0);
            let near = sums.iter().zip(0..).filter(|(sum, _)| **sum >= least);
            let expected: Vec<u32> = near.map(|(_, row)| row).collect();
            for stuck in 0..3 {
                let processor = Processor::detect();
                let pieces = signs.blocks.pieces();
                let search = Search::new(tables(query), pieces, all.clone(), wanted, processor);
                assert_eq!(search.pieces.len(), 5);
                // They have begun a piece each, and go no further.
                (0..stuck).for_each(|_| assert!(search.claim().is_some()));
                let mut found = std::thread::scope(|scope| {
                    (0..3).for_each(|_| drop(scope.spawn(|| search.help())));
                    search.finish()
                });
                found.sort_unstable();
                assert_eq!(found, expected, "{wanted} of them, {stuck} stuck");
            }
        }
    }

    #[test]
    fn what_a_row_comes_to_is_the_dot_product_with_its_signs_within_the_grain_of_the_tables() {
        let vectors = unit_vectors(50, 384, 2);
        let tables = tables(&vectors[0]);
        let own = plain(&tables, &vectors[0]);
        let whole: f32 = vectors[0].iter().map(|number| number.abs()).sum();
        for vector in &vectors {
            let alike = vector.iter().zip(&vectors[0]);
            let alike = alike.filter(|(one, other)| (**one >= 0.0) == (**other >= 0.0));
            let exact: f32 = alike.map(|(_, number)| number.abs()).sum();
            let close = f32::from(plain(&tables, vector)) / f32::from(own) * whole;
            assert!((close - exact).abs() < 0.05 * whole, "{close} is not {exact}");
        }
    }

    #[test]
    fn all_that_are_as_near_as_the_last_are_kept_whatever_their_order() {
        let near = |sums: &[u16], wanted| {
            let mut nearest = Nearest::new(wanted, &[[9; BLOCK]]);
            for (row, sum) in (0..).zip(sums) {
                nearest.add(row, *sum);
            }
            nearest.rows()
        };
        let sums = [3, 9, 0, 8, 8, 3, 8];
        assert_eq!(near(&sums, 2), [1, 3, 4, 6]);
        assert_eq!(near(&sums, 1), [1]);
        assert_eq!(near(&sums, 5), [0, 1, 3, 4, 5, 6]);
        assert_eq!(near(&sums, 7), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(near(&sums, 9), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(near(&[], 7), [0; 0]);
    }

    #[test]
    fn rows_without_a_bit_are_not_looked_at_and_only_some_can_be_kept() {
        let vectors = unit_vectors(200, 40, 3);
        let mut signs = Signs::new(40);
        vectors.iter().for_each(|vector| signs.push(vector));
        let admitted = vec![0, 1 << 3 | 1 << 31, 0, 1];
        let found = signs.nearest(&vectors[0], admitted, 10, Processor::detect());
        assert_eq!(found, [35, 63, 96]);

        let some = signs.only([199, 35, 0].into_iter(), 40);
        let mut expected = Signs::new(40);
        [199, 35, 0].iter().for_each(|row: &usize| expected.push(&vectors[*row]));
        assert_eq!(some.blocks.row(0), expected.blocks.row(0));
        assert_eq!(some.len, 3);
    }
}
