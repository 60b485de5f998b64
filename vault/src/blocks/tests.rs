//! What was sealed opens, and nothing else does.

use super::*;

const NAME: &[u8] = b"name";

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|byte| (byte % 251) as u8).collect()
}

fn sealed(wrapping: &Secret, content: &[u8], chunk: usize) -> Vec<u8> {
    let mut sealer = Sealer::new().unwrap();
    let chunks: Vec<Bytes> = content.chunks(chunk).map(Bytes::copy_from_slice).collect();
    let mut stored = sealer.seal(&chunks);
    stored.extend(sealer.finish(wrapping, NAME).unwrap());
    stored.concat()
}

fn opened(wrapping: &Secret, stored: &[u8], size: u64, range: Range<u64>) -> Option<Vec<u8>> {
    let end = stored.len().checked_sub(END as usize)?;
    let opener = Opener::of_end(&stored[end..], wrapping, NAME)?;
    let (blocks, place) = covering(&range, size, u64::MAX);
    let clear = opener.open(blocks.start, &stored[place.start as usize..place.end as usize])?;
    Some(Opener::part(blocks.start, clear, &range).to_vec())
}

#[test]
fn every_length_around_a_block_reads_whole_and_in_part() {
    let wrapping = cipher::random_secret().unwrap();
    let block = BLOCK as usize;
    for length in [0, 1, block - 1, block, block + 1, 3 * block, 3 * block + 7] {
        let content = content(length);
        let stored = sealed(&wrapping, &content, 1000);
        assert_eq!(stored.len() as u64, stored_size(length as u64));
        for (start, end) in [(0, length), (length / 2, length), (length / 3, length / 2)] {
            let part = opened(&wrapping, &stored, length as u64, start as u64..end as u64);
            assert_eq!(part.unwrap(), content[start..end], "{start}..{end} of {length}");
        }
    }
}

#[test]
fn a_window_holds_whole_blocks_and_always_one() {
    let size = 10 * BLOCK;
    assert_eq!(covering(&(5..size), size, 1), (0..1, 0..SEALED_BLOCK));
    let (blocks, place) = covering(&(BLOCK + 5..size), size, 4 * BLOCK + 1);
    assert_eq!((blocks, place), (1..5, SEALED_BLOCK..5 * SEALED_BLOCK));
    let (blocks, place) = covering(&(size - 1..size), size, u64::MAX);
    assert_eq!((blocks, place.end), (9..10, stored_size(size) - END));
}

#[test]
fn a_changed_a_moved_and_a_foreign_block_do_not_open() {
    let wrapping = cipher::random_secret().unwrap();
    let content = content(2 * BLOCK as usize);
    let stored = sealed(&wrapping, &content, 4096);
    let whole = 0..2 * BLOCK;
    for bit in [0, 7, SEALED_BLOCK as usize * 8 - 1, stored.len() * 8 - 1] {
        let mut changed = stored.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(opened(&wrapping, &changed, 2 * BLOCK, whole.clone()).is_none(), "bit {bit}");
    }
    let (first, rest) = stored.split_at(SEALED_BLOCK as usize);
    let (second, end) = rest.split_at(SEALED_BLOCK as usize);
    let moved = [second, first, end].concat();
    assert!(opened(&wrapping, &moved, 2 * BLOCK, whole.clone()).is_none());
    let other = sealed(&wrapping, &content, 4096);
    let foreign = [&other[..SEALED_BLOCK as usize], second, end].concat();
    assert!(opened(&wrapping, &foreign, 2 * BLOCK, whole.clone()).is_none());
    let other_key = cipher::random_secret().unwrap();
    assert!(opened(&other_key, &stored, 2 * BLOCK, whole).is_none());
}
