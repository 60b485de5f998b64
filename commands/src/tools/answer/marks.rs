//! Marks of citations in an answer, while it is written: `[1]`, `[1, 2]`.
//!
//! The rule of this file: what is passed on never vanishes later. What may become a mark is held back until it
//! is known to be one; a mark of a passage that there is not is left out, and the others are numbered
//! in the order in which they are first met.

use super::numbers_in;

/// The longest mark, in bytes. What is longer is text.
const LONGEST: usize = 64;

/// The longest white space before a mark that is held back with it.
const MOST_SPACE: usize = 64;

/// Passes an answer on with its marks put right.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    passages: usize,
    /// The passages that are cited, from 1, in the order of their new numbers.
    cited: Vec<usize>,
    /// White space, and the beginning of what may be a mark.
    held: String,
    /// Something was passed on.
    has_begun: bool,
    code: Code,
}

/// Where code begins and ends: brackets in it are no marks.
#[derive(Debug, Default)]
struct Code {
    /// How many backticks stand together just now.
    ticks: usize,
    /// How many opened the code that is being read.
    open: Option<usize>,
    is_after_newline: bool,
}

impl Code {
    /// Takes in a character, and says whether it stands in code.
    fn holds(&mut self, sign: char) -> bool {
        if sign == '`' {
            self.ticks += 1;
            return true;
        }
        if self.ticks > 0 {
            self.open = match self.open {
                Some(opened) if opened == self.ticks => None,
                Some(opened) => Some(opened),
                None => Some(self.ticks),
            };
            self.ticks = 0;
        }
        // Code in a line ends with its paragraph, whether it was closed or not.
        let is_blank_line = sign == '\n' && self.is_after_newline;
        self.is_after_newline = sign == '\n';
        if is_blank_line && self.open.is_some_and(|opened| opened < 3) {
            self.open = None;
        }
        self.open.is_some()
    }
}

impl Marks {
    /// Of an answer from so many passages.
    pub(crate) fn of(passages: usize) -> Marks {
        Marks { passages, ..Marks::default() }
    }

    /// Takes in a piece, and answers what can be passed on. What is held back at the end, white space or a mark
    /// that was cut off, is none of the answer.
    pub(crate) fn push(&mut self, piece: &str) -> String {
        let mut out = String::new();
        for sign in piece.chars() {
            if self.code.holds(sign) {
                self.release(&mut out);
                self.pass(sign, &mut out);
            } else {
                self.take(sign, &mut out);
            }
        }
        out
    }

    /// The passages that were cited, from 1; the first is `[1]` in what was passed on, and so on.
    pub(crate) fn cited(&self) -> &[usize] {
        &self.cited
    }

    fn take(&mut self, sign: char, out: &mut String) {
        match self.held.find('[') {
            Some(start) => match sign {
                ']' => self.decide(start, out),
                '0'..='9' | ',' | ' ' if self.held.len() - start < LONGEST => self.held.push(sign),
                _ => {
                    self.release(out);
                    self.take(sign, out);
                }
            },
            None if sign == '[' => self.held.push(sign),
            None if sign.is_whitespace() => {
                if self.held.len() > MOST_SPACE {
                    self.release(out);
                }
                self.held.push(sign);
            }
            None => {
                self.release(out);
                self.pass(sign, out);
            }
        }
    }

    /// A whole mark is held, save its last bracket.
    fn decide(&mut self, start: usize, out: &mut String) {
        let Some(numbers) = numbers_in(&self.held[start + 1..]) else {
            self.held.push(']');
            return self.release(out);
        };
        let passages = self.passages;
        let known: Vec<String> = numbers
            .into_iter()
            .filter(|number| (1..=passages).contains(number))
            .map(|number| self.renumbered(number).to_string())
            .collect();
        self.held.truncate(start);
        if known.is_empty() {
            // With the spaces before it; but not with the end of a line.
            if !self.held.contains('\n') {
                self.held.clear();
            }
            return;
        }
        self.release(out);
        out.push_str(&format!("[{}]", known.join(", ")));
        self.has_begun = true;
    }

    fn renumbered(&mut self, number: usize) -> usize {
        if let Some(place) = self.cited.iter().position(|known| *known == number) {
            return place + 1;
        }
        self.cited.push(number);
        self.cited.len()
    }

    /// Passes on what was held back; not the white space that an answer begins with.
    fn release(&mut self, out: &mut String) {
        let held = std::mem::take(&mut self.held);
        let held = if self.has_begun { held.as_str() } else { held.trim_start() };
        self.has_begun |= !held.is_empty();
        out.push_str(held);
    }

    fn pass(&mut self, sign: char, out: &mut String) {
        self.has_begun = true;
        out.push(sign);
    }
}

/// A text of somebody else's, without what looks like marks: they would cite what it does not mean.
pub(crate) fn unmarked(text: &str) -> String {
    Marks::of(0).push(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer as it is passed on, in pieces of so many characters, and what it cites.
    fn passed_on(text: &str, passages: usize, size: usize) -> (String, Vec<usize>) {
        let mut marks = Marks::of(passages);
        let signs: Vec<char> = text.chars().collect();
        let mut whole = String::new();
        for piece in signs.chunks(size) {
            let piece = marks.push(&piece.iter().collect::<String>());
            whole.push_str(&piece);
        }
        (whole, marks.cited().to_vec())
    }

    #[test]
    fn marks_are_numbered_as_they_come_and_invented_ones_are_left_out() {
        let cases = [
            ("It is so [2]. And so [1][2].", "It is so [1]. And so [2][1].", vec![2, 1]),
            ("See [3, 9, 1].", "See [1, 2].", vec![3, 1]),
            ("Nobody knows why [7].", "Nobody knows why.", vec![]),
            ("Nobody[0] knows [12, 13] why.", "Nobody knows why.", vec![]),
            ("One.\n[9] Two.", "One.\n Two.", vec![]),
            ("[9] Two.", "Two.", vec![]),
            ("  Two [1]  \n", "Two [1]", vec![1]),
            (
                "A [note] and [1; 2] and [] and [1x].",
                "A [note] and [1; 2] and [] and [1x].",
                vec![],
            ),
            ("[[1]] stays", "[[1]] stays", vec![1]),
            ("Cut off [1", "Cut off", vec![]),
            ("Read `x[7]` [1], then ``y[`0]`` [8].", "Read `x[7]` [1], then ``y[`0]``.", vec![1]),
            ("```\na[7]\n\nb[8]\n``` [7]", "```\na[7]\n\nb[8]\n```", vec![]),
            ("A lone ` tick [1]\n\nand on [9].", "A lone ` tick [1]\n\nand on.", vec![]),
            ("Ünïcode — “yes” [2]…", "Ünïcode — “yes” [1]…", vec![2]),
        ];
        for (text, expected, cited) in cases {
            for size in [1, 2, 3, 7, 1_000] {
                let shown = passed_on(text, 3, size);
                assert_eq!(shown, (expected.to_owned(), cited.clone()), "{text:?} by {size}");
            }
        }
    }

    #[test]
    fn nothing_is_held_back_for_long() {
        let mut marks = Marks::of(3);
        let long = format!("[{}", "1".repeat(500));
        assert!(marks.push(&long).len() >= 500 - LONGEST);
        assert!(Marks::of(3).push(&format!("a{}", " ".repeat(500))).len() >= 400);
    }

    #[test]
    fn what_others_mark_is_not_taken_over() {
        assert_eq!(unmarked("Cats sleep.[2] Dogs [3] bark [sic]."), "Cats sleep. Dogs bark [sic].");
    }
}
