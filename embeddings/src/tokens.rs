//! Counting a document's tokens once instead of once per try. The one rule: a count is what the tokenizer would say of that piece
//! alone; where that cannot be known from the whole, the tokenizer is asked.

use text_splitter::ChunkSizer;
use tokenizers::Tokenizer;

/// A document is read in pieces of about this many bytes: the tokenizer keeps a hundred bytes for every token of what it reads.
const PIECE_BYTES: usize = 1 << 16;

/// White space that every part of the tokenizer takes for white space: no token reaches across it. (Rarer kinds are removed by its
/// normaliser, which joins what stood beside them.)
const SPACES: [char; 4] = [' ', '\n', '\t', '\r'];

/// Counts the tokens of parts of one text.
pub(crate) struct TokenCounter<'a> {
    tokenizer: &'a Tokenizer,
    text: &'a str,
    /// The byte every token starts at.
    starts: Vec<usize>,
}

impl<'a> TokenCounter<'a> {
    /// Reads the whole text. If the tokenizer cannot, it is asked for every part.
    pub(crate) fn new(tokenizer: &'a Tokenizer, text: &'a str) -> Self {
        match starts(tokenizer, text) {
            Ok(starts) => Self { tokenizer, text, starts },
            Err(_) => Self { tokenizer, text: "", starts: Vec::new() },
        }
    }

    /// The bytes of the text that `part` is, if it is a part of it and no token reaches across its ends.
    fn place(&self, part: &str) -> Option<(usize, usize)> {
        let start = (part.as_ptr() as usize).checked_sub(self.text.as_ptr() as usize)?;
        let end = start + part.len();
        let (before, after) = (self.text.get(..start)?, self.text.get(end..)?);
        let opens = before.is_empty() || before.ends_with(SPACES) || part.starts_with(SPACES);
        let closes = after.is_empty() || after.starts_with(SPACES) || part.ends_with(SPACES);
        (opens && closes).then_some((start, end))
    }
}

impl ChunkSizer for TokenCounter<'_> {
    fn size(&self, part: &str) -> usize {
        match self.place(part) {
            Some((start, end)) => {
                self.starts.partition_point(|token| *token < end)
                    - self.starts.partition_point(|token| *token < start)
            }
            // What cannot be read is as long as can be, so that it is cut further.
            None => self
                .tokenizer
                .encode_fast(part, false)
                .map_or(usize::MAX, |encoding| encoding.len()),
        }
    }
}

/// The byte that every token of the text starts at.
fn starts(tokenizer: &Tokenizer, text: &str) -> tokenizers::Result<Vec<usize>> {
    let mut starts = Vec::new();
    let mut first = 0;
    while first < text.len() {
        let after = text[first..]
            .char_indices()
            .find(|(at, next)| *at >= PIECE_BYTES && SPACES.contains(next));
        let piece = &text[first..after.map_or(text.len(), |(at, _)| first + at)];
        let encoding = tokenizer.encode(piece, false)?;
        starts.extend(encoding.get_offsets().iter().map(|(start, _)| first + start));
        first += piece.len();
    }
    Ok(starts)
}

#[cfg(test)]
#[path = "../tests/model/directory.rs"]
mod directory;

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::directory::model_directory;
    use super::*;

    static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
        let mut tokenizer = Tokenizer::from_file(model_directory().join("tokenizer.json"))
            .expect("the model's own file");
        tokenizer
            .with_padding(None)
            .with_truncation(None)
            .expect("no truncation is always allowed");
        tokenizer
    });

    #[test]
    fn long_texts_are_read_in_pieces_without_a_seam() {
        let text = "naïve antidisestablishmentarianism, 東京 [SEP] 🦊\r\n".repeat(5000);
        let counter = TokenCounter::new(&TOKENIZER, &text);
        assert!(text.len() > 4 * PIECE_BYTES);
        assert_eq!(counter.size(&text), TOKENIZER.encode_fast(text.as_str(), false).unwrap().len());
    }

    proptest! {
        #[test]
        fn a_part_has_as_many_tokens_as_the_tokenizer_says(
            text in "([a-zA-Zäéß]{1,9}|[ \n\t\r.,#*'-]|[東京🦊\u{85}\u{b}\u{a0}\u{301}\u{200b}]|\\[SEP\\]|[0-9]{1,5}){0,60}",
            cuts in proptest::collection::vec((0.0..1.0_f64, 0.0..1.0_f64), 20),
        ) {
            let counter = TokenCounter::new(&TOKENIZER, &text);
            let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
            for (one, other) in cuts {
                let place = |share: f64| places[(share * places.len() as f64) as usize];
                let part = &text[place(one.min(other))..place(one.max(other))];
                prop_assert_eq!(counter.size(part), TOKENIZER.encode_fast(part, false).unwrap().len(), "{:?} of {:?}", part, text);
            }
        }
    }
}
