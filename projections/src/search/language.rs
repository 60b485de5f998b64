//! The words of a text as the full text knows them: cut, in small letters, down to their stems.
//!
//! The rule of this file: a text and a question are cut by the same code, so that what is marked in
//! a passage is what was found.

use std::collections::{BTreeMap, HashMap, HashSet};

use tantivy::tokenizer::{
    AsciiFoldingFilter, Language, LowerCaser, RemoveLongFilter, Stemmer, StopWordFilter,
    TextAnalyzer, Token, TokenStream, Tokenizer,
};
use whatlang::{Detector, Lang};

/// Longer words are none: encoded data, mostly. In bytes.
const LONGEST_WORD: usize = 64;

/// How much of a text says which language it is in, in bytes.
const SAMPLE: usize = 4_000;

/// Every language with a stemmer: its ISO 639-1 code, its ISO 639-3 code, its name.
const LANGUAGES: [(&str, &str, &str, Language, Option<Lang>); 18] = [
    ("ar", "ara", "arabic", Language::Arabic, Some(Lang::Ara)),
    ("da", "dan", "danish", Language::Danish, Some(Lang::Dan)),
    ("nl", "nld", "dutch", Language::Dutch, Some(Lang::Nld)),
    ("en", "eng", "english", Language::English, Some(Lang::Eng)),
    ("fi", "fin", "finnish", Language::Finnish, Some(Lang::Fin)),
    ("fr", "fra", "french", Language::French, Some(Lang::Fra)),
    ("de", "deu", "german", Language::German, Some(Lang::Deu)),
    ("el", "ell", "greek", Language::Greek, Some(Lang::Ell)),
    ("hu", "hun", "hungarian", Language::Hungarian, Some(Lang::Hun)),
    ("it", "ita", "italian", Language::Italian, Some(Lang::Ita)),
    ("no", "nor", "norwegian", Language::Norwegian, Some(Lang::Nob)),
    ("pt", "por", "portuguese", Language::Portuguese, Some(Lang::Por)),
    ("ro", "ron", "romanian", Language::Romanian, Some(Lang::Ron)),
    ("ru", "rus", "russian", Language::Russian, Some(Lang::Rus)),
    ("es", "spa", "spanish", Language::Spanish, Some(Lang::Spa)),
    ("sv", "swe", "swedish", Language::Swedish, Some(Lang::Swe)),
    ("ta", "tam", "tamil", Language::Tamil, Some(Lang::Tam)),
    ("tr", "tur", "turkish", Language::Turkish, Some(Lang::Tur)),
];

/// Which language's stems a file has: the one that is said of it, else the one that its text is in,
/// else English; `None` where that is a language whose stems are not known.
pub(super) fn of_file(said: Option<&str>, text: &str) -> Option<Language> {
    if let Some(said) = said {
        let said = said.trim().to_lowercase();
        let code = said.split(['-', '_']).next().unwrap_or_default();
        let known = LANGUAGES.iter().find(|(two, three, name, ..)| {
            [two, three].contains(&&code) || said == *name || (code == "nb" && *two == "no")
        });
        if let Some((.., language, _)) = known {
            return Some(*language);
        }
    }
    let sample = &text[..text.floor_char_boundary(SAMPLE)];
    match Detector::new().detect(sample) {
        Some(found) if found.is_reliable() => LANGUAGES
            .iter()
            .find(|(.., detected)| *detected == Some(found.lang()))
            .map(|(.., language, _)| *language),
        _ => Some(Language::English),
    }
}

/// A word of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// Its stem.
    pub(super) stem: String,
    /// Where it stands, in bytes.
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Cuts texts into words, in every language.
pub(super) struct Words {
    all: HashMap<Option<Language>, TextAnalyzer>,
    /// Without words that stand in every text.
    telling: HashMap<Option<Language>, TextAnalyzer>,
}

impl Words {
    pub(super) fn new() -> Words {
        let languages = LANGUAGES.iter().map(|(.., language, _)| Some(*language)).chain([None]);
        let analyzers = |telling: bool| {
            languages.clone().map(|language| (language, analyzer(language, telling))).collect()
        };
        Words { all: analyzers(false), telling: analyzers(true) }
    }

    /// Every word of a text, in its order.
    pub(super) fn of(&self, text: &str, language: Option<Language>) -> Vec<Word> {
        cut(&self.all, text, language)
    }

    /// The stems that a question is found by in texts of these languages, and how often it says each:
    /// without the words that stand in every text, unless it has no others.
    pub(super) fn of_question(
        &self,
        text: &str,
        languages: &HashSet<Option<Language>>,
    ) -> BTreeMap<String, u32> {
        let telling = stems(&self.telling, text, languages);
        if telling.is_empty() { stems(&self.all, text, languages) } else { telling }
    }
}

/// A stem that several languages have is said as often as the one says it that says it most.
fn stems(
    analyzers: &HashMap<Option<Language>, TextAnalyzer>,
    text: &str,
    languages: &HashSet<Option<Language>>,
) -> BTreeMap<String, u32> {
    let mut most = BTreeMap::new();
    for language in languages {
        let mut times: HashMap<String, u32> = HashMap::new();
        for word in cut(analyzers, text, *language) {
            *times.entry(word.stem).or_default() += 1;
        }
        for (stem, times) in times {
            let most = most.entry(stem).or_default();
            *most = times.max(*most);
        }
    }
    most
}

fn cut(
    analyzers: &HashMap<Option<Language>, TextAnalyzer>,
    text: &str,
    language: Option<Language>,
) -> Vec<Word> {
    let Some(analyzer) = analyzers.get(&language) else { return Vec::new() };
    let mut words = Vec::new();
    analyzer.clone().token_stream(text).process(&mut |token| {
        words.push(Word {
            stem: token.text.clone(),
            start: token.offset_from,
            end: token.offset_to,
        });
    });
    words
}

fn analyzer(language: Option<Language>, telling: bool) -> TextAnalyzer {
    let mut builder = TextAnalyzer::builder(Cutter::default())
        .dynamic()
        .filter_dynamic(RemoveLongFilter::limit(LONGEST_WORD))
        .filter_dynamic(LowerCaser);
    if let Some(language) = language {
        if telling && let Some(filter) = StopWordFilter::new(language) {
            builder = builder.filter_dynamic(filter);
        }
        builder = builder.filter_dynamic(Stemmer::new(language));
    }
    builder.filter_dynamic(AsciiFoldingFilter).build()
}

/// Runs of letters and digits; where words are written without spaces, each character.
#[derive(Clone, Default)]
struct Cutter {
    token: Token,
}

struct Cuts<'a> {
    text: &'a str,
    at: usize,
    token: &'a mut Token,
}

impl Tokenizer for Cutter {
    type TokenStream<'a> = Cuts<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> Cuts<'a> {
        self.token.reset();
        Cuts { text, at: 0, token: &mut self.token }
    }
}

impl TokenStream for Cuts<'_> {
    fn advance(&mut self) -> bool {
        let rest = &self.text[self.at..];
        let Some((skipped, first)) = rest.char_indices().find(|(_, c)| c.is_alphanumeric()) else {
            return false;
        };
        let word = &rest[skipped..];
        let length = if is_word_alone(first) {
            first.len_utf8()
        } else {
            let ends = |c: char| !(c.is_alphanumeric() || is_mark(c)) || is_word_alone(c);
            word.find(ends).unwrap_or(word.len())
        };
        let start = self.at + skipped;
        self.at = start + length;
        self.token.position = self.token.position.wrapping_add(1);
        (self.token.offset_from, self.token.offset_to) = (start, self.at);
        self.token.text.clear();
        self.token.text.push_str(&word[..length]);
        true
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}

/// Accents that are characters of their own.
fn is_mark(character: char) -> bool {
    ('\u{300}'..='\u{36f}').contains(&character)
}

/// Of a script without spaces between words: Chinese, Japanese, Thai, Lao, Khmer, Burmese.
fn is_word_alone(character: char) -> bool {
    matches!(character,
        '\u{0e00}'..='\u{0eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}'
        | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stems(text: &str, language: Option<Language>) -> Vec<String> {
        Words::new().of(text, language).into_iter().map(|word| word.stem).collect()
    }

    #[test]
    fn words_lose_their_endings_in_their_language() {
        let same = [
            (Language::English, "Databases", "database"),
            (Language::German, "Häuser", "Haus"),
            (Language::Spanish, "trabajadores", "trabajador"),
            (Language::French, "continuellement", "continuelle"),
            (Language::Russian, "книги", "книга"),
        ];
        for (language, one, other) in same {
            assert_eq!(stems(one, Some(language)), stems(other, Some(language)), "{one}");
        }
        assert_ne!(stems("Häuser", None), stems("Haus", None));
    }

    #[test]
    fn a_text_without_spaces_is_cut_into_characters_and_the_rest_into_words() {
        assert_eq!(stems("Rust で書く v2.0", None), ["rust", "で", "書", "く", "v2", "0"]);
    }

    #[test]
    fn words_know_where_they_stand() {
        let words = Words::new().of("El niño, dos niños", Some(Language::Spanish));
        let places: Vec<_> = words.iter().map(|word| (word.start, word.end)).collect();
        assert_eq!(places, [(0, 2), (3, 8), (10, 13), (14, 20)]);
        assert_eq!(words[1].stem, words[3].stem);
    }

    #[test]
    fn a_language_is_believed_by_code_or_name_and_else_detected() {
        let german =
            "Der Urlaub wird mit der Leitung des Teams abgesprochen, und zwar einen Monat vorher.";
        for said in ["de", "DE", "de-AT", "deu", "German"] {
            assert_eq!(of_file(Some(said), "holidays"), Some(Language::German), "{said}");
        }
        assert_eq!(of_file(None, german), Some(Language::German));
        assert_eq!(of_file(Some("whatever"), german), Some(Language::German));
        assert_eq!(of_file(None, "404"), Some(Language::English));
        let japanese = "私はこの図書館で毎日日本語の本を読んでいます。";
        assert_eq!(of_file(None, japanese), None);
    }

    #[test]
    fn a_question_keeps_little_words_only_where_it_has_no_others() {
        let words = Words::new();
        let english = HashSet::from([Some(Language::English)]);
        let stems = |text: &str| words.of_question(text, &english);
        let said = [("matter".to_owned(), 2), ("what".to_owned(), 1)];
        assert_eq!(stems("what is the matter with matters"), BTreeMap::from(said));
        assert_eq!(stems("to be or not to be").len(), 4);
    }
}
