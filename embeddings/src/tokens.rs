//! Counting a document's tokens once instead of once per try. The one rule: a count is what the tokenizer would say of that piece
//! alone; where that cannot be known from the whole, the tokenizer is asked.

use text_splitter::ChunkSizer;
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper, Tokenizer};

/// A document is read in pieces of about this many bytes: the tokenizer keeps a hundred bytes for every token of what it reads.
const PIECE_BYTES: usize = 1 << 16;

/// What has no edge for so many bytes is no word: it is read in pieces, and is longer than whatever a model reads.
const LONGEST_WORD: usize = 1 << 20;

/// White space that every part of the tokenizer takes for white space: no token reaches across it. (Rarer kinds are removed by its
/// normaliser, which joins what stood beside them.)
const SPACES: [char; 4] = [' ', '\n', '\t', '\r'];

/// Punctuation beside that of ASCII that BERT's tokenizers make a token of its own: what is written without spaces has these.
const MARKS: [char; 12] = ['。', '，', '、', '！', '？', '；', '：', '「', '」', '（', '）', '…'];

/// Characters beside which no token reaches: a text that has no spaces has edges all the same, or would be counted anew at
/// every look at a part of it.
struct Edges {
    /// Punctuation is a token of its own.
    has_marks: bool,
    /// What stands in the names of special tokens, as `[SEP]`, which are read before all else.
    except: Vec<char>,
}

impl Edges {
    fn of(tokenizer: &Tokenizer) -> Self {
        let is_of_bert =
            matches!(tokenizer.get_normalizer(), Some(NormalizerWrapper::BertNormalizer(_)))
                && matches!(
                    tokenizer.get_pre_tokenizer(),
                    Some(PreTokenizerWrapper::BertPreTokenizer(_))
                );
        let special = tokenizer.get_added_tokens_decoder();
        let except = special.values().flat_map(|token| token.content.chars()).collect();
        Self { has_marks: is_of_bert, except }
    }

    fn has(&self, sign: char) -> bool {
        let is_mark = || sign.is_ascii_punctuation() || MARKS.contains(&sign);
        SPACES.contains(&sign) || (self.has_marks && is_mark() && !self.except.contains(&sign))
    }
}

/// Counts the tokens of parts of one text.
pub(crate) struct TokenCounter<'a> {
    tokenizer: &'a Tokenizer,
    edges: Edges,
    text: &'a str,
    /// The byte every token starts at.
    starts: Vec<usize>,
}

impl<'a> TokenCounter<'a> {
    /// Reads the whole text. If the tokenizer cannot, it is asked for every part.
    pub(crate) fn new(tokenizer: &'a Tokenizer, text: &'a str) -> Self {
        let edges = Edges::of(tokenizer);
        match starts(tokenizer, &edges, text) {
            Ok(starts) => Self { tokenizer, edges, text, starts },
            Err(_) => Self { tokenizer, edges, text: "", starts: Vec::new() },
        }
    }

    /// The byte of the text that `part` starts at, if it is a part of it.
    fn place(&self, part: &str) -> Option<usize> {
        let start = (part.as_ptr() as usize).checked_sub(self.text.as_ptr() as usize)?;
        self.text.get(start..start + part.len()).map(|_| start)
    }

    /// Whether no token reaches across this byte of the text.
    fn is_seam(&self, at: usize) -> bool {
        let (before, after) = self.text.split_at(at);
        let is_edge = |sign| self.edges.has(sign);
        before.is_empty()
            || after.is_empty()
            || before.ends_with(is_edge)
            || after.starts_with(is_edge)
    }

    /// The number of tokens between two bytes of the text that no token reaches across.
    fn counted(&self, start: usize, end: usize) -> usize {
        let before = |byte| self.starts.partition_point(|token| *token < byte);
        before(end) - before(start)
    }

    /// What the tokenizer says. What cannot be read is as long as can be, so that it is cut further.
    fn ask(&self, part: &str) -> usize {
        match part.len() {
            0 => 0,
            length if length > LONGEST_WORD => usize::MAX,
            _ => self.tokenizer.encode_fast(part, false).map_or(usize::MAX, |it| it.len()),
        }
    }
}

impl ChunkSizer for TokenCounter<'_> {
    fn size(&self, part: &str) -> usize {
        let Some(start) = self.place(part) else { return self.ask(part) };
        // Only the first and the last word may have been torn by the cut: what is between them was counted.
        let is_edge = |sign| self.edges.has(sign);
        let first = match self.is_seam(start) {
            true => 0,
            false => part.find(is_edge).unwrap_or(part.len()),
        };
        let last = match self.is_seam(start + part.len()) {
            true => part.len(),
            false => part.rfind(is_edge).unwrap_or(0),
        };
        if first > last {
            return self.ask(part);
        }
        let between = self.counted(start + first, start + last);
        self.ask(&part[..first]).saturating_add(between).saturating_add(self.ask(&part[last..]))
    }
}

/// The byte that every token of the text starts at.
fn starts(tokenizer: &Tokenizer, edges: &Edges, text: &str) -> tokenizers::Result<Vec<usize>> {
    let mut starts = Vec::new();
    let mut first = 0;
    while first < text.len() {
        let after = text[first..]
            .char_indices()
            .find(|(at, next)| *at >= PIECE_BYTES && (edges.has(*next) || *at >= LONGEST_WORD));
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

    #[test]
    fn a_word_without_end_is_read_in_pieces_and_fits_nowhere() {
        let text = "[".repeat(LONGEST_WORD + PIECE_BYTES);
        let counter = TokenCounter::new(&TOKENIZER, &text);
        assert_eq!(counter.size(&text), text.len());
        assert_eq!(counter.size(&text[1..]), usize::MAX);
        assert_eq!(counter.size(&text[1..3]), 2);
    }

    #[test]
    fn what_has_no_spaces_is_read_once_all_the_same() {
        for unit in ["iVBORw0KGgo+AAA/", "（東京、", ">a,"] {
            let text = unit.repeat((LONGEST_WORD + PIECE_BYTES) / unit.len());
            let mut counter = TokenCounter::new(&TOKENIZER, &text);
            let start = unit.chars().next().map_or(0, char::len_utf8);
            let part = &text[start..];
            let all = TOKENIZER.encode_fast(unit, false).unwrap().len() * (text.len() / unit.len());
            let torn = counter.size(part);
            assert!((all - 6..=all + 6).contains(&torn), "{unit}: {torn} of {all}");
            // What was counted wrongly stays so: nothing but the ends is asked for.
            counter.starts.clear();
            assert!(counter.size(part) < 10, "{unit}: it was read again");
        }
    }

    #[test]
    fn a_tokenizer_that_joins_across_punctuation_has_no_edges_but_spaces() {
        let mut other = TOKENIZER.clone();
        other.with_pre_tokenizer(None::<PreTokenizerWrapper>);
        let text = ">a,".repeat(100);
        let counter = TokenCounter::new(&other, &text);
        assert!(!counter.edges.has('>') && counter.edges.has(' '));
        let part = &text[1..200];
        assert_eq!(counter.size(part), other.encode_fast(part, false).unwrap().len());
    }

    #[test]
    fn of_a_part_only_the_torn_words_at_its_ends_are_read_again() {
        let text = format!("{}antidisestablishment", ">> word ".repeat(1000));
        let mut counter = TokenCounter::new(&TOKENIZER, &text);
        // What was counted wrongly stays so: nothing but the ends is asked for.
        counter.starts.retain(|start| *start < 100 || *start > text.len() - 100);
        let part = &text[1..text.len() - 1];
        let whole = TOKENIZER.encode_fast(part, false).unwrap().len();
        assert!(counter.size(part) < whole - 1000, "all of it was read again");
    }

    proptest! {
        #[test]
        fn a_part_has_as_many_tokens_as_the_tokenizer_says(
            text in "([a-zA-Zäéß]{1,9}|[ \n\t\r.,#*'+/=<>-]|[。，、！？；：「」（）…]|\\[|\\]|[東京🦊\u{85}\u{b}\u{a0}\u{301}\u{200b}]|\\[SEP\\]|[0-9]{1,5}){0,60}",
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
