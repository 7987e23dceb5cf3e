//! The sentence while it is being written: pictures are single characters in a text.
//!
//! [`PromptDocument`] is what a prompt means; a [`Draft`] is the same with positions, which an editor needs: one unit for
//! every character and one for every picture. The page's editable region is a view of it.

use std::ops::Range;

use kosmosg::prompt::{ImageRef, PromptDocument, PromptItem};
use kosmosg::protocol::MAX_REQUEST_BYTES;

use crate::composition::sentence;
use crate::texts;

/// Stands in a draft's text for a picture: Unicode's object replacement character.
pub const PICTURE: char = '\u{FFFC}';

/// Most pictures of a sentence.
pub const MAX_SENTENCE_PICTURES: usize = 10;

/// What closes a word without being a part of it.
const CLOSING: &str = ",.;:!?)]}\"”’»…،؛؟。、！？，";

/// A prompt with positions. See the [module documentation](self).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Draft {
    /// Characters, [`PICTURE`] for each of `images`, never a line break.
    units: Vec<char>,
    images: Vec<ImageRef>,
}

/// A stretch of a draft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Words; never empty, never two in a row.
    Words(String),
    /// A picture.
    Picture(&'a ImageRef),
}

impl Draft {
    /// Words without pictures. Line breaks become spaces, and what cannot be typed is left out.
    pub fn words(words: &str) -> Self {
        let unit = |c: char| if c.is_whitespace() { ' ' } else { c };
        let typed = |c: &char| !matches!(*c, PICTURE | '\r' | '\u{200B}' | '\u{FEFF}');
        Self { units: words.chars().filter(typed).map(unit).collect(), images: Vec::new() }
    }

    /// A picture without words.
    pub fn picture(image: ImageRef) -> Self {
        Self { units: vec![PICTURE], images: vec![image] }
    }

    /// The draft of a document.
    pub fn from_document(document: &PromptDocument) -> Self {
        let mut draft = Self::default();
        for item in document.items() {
            draft.push(match item {
                PromptItem::Text(words) => Self::words(words),
                PromptItem::Image(image) => Self::picture(image.clone()),
            });
        }
        draft
    }

    /// What it means.
    pub fn to_document(&self) -> PromptDocument {
        PromptDocument::new(self.pieces().into_iter().map(|piece| match piece {
            Piece::Words(words) => PromptItem::Text(words),
            Piece::Picture(image) => PromptItem::Image(image.clone()),
        }))
    }

    /// Number of units: characters and pictures.
    pub fn len(&self) -> usize {
        self.units.len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// Whether there is nothing that a picture could be made of.
    pub fn is_blank(&self) -> bool {
        self.units.iter().all(|unit| unit.is_whitespace())
    }

    /// Whether the unit at `at` is a picture.
    pub fn is_picture(&self, at: usize) -> bool {
        self.units.get(at) == Some(&PICTURE)
    }

    /// Its pictures in order.
    pub fn images(&self) -> &[ImageRef] {
        &self.images
    }

    /// Why it cannot take the place of `before`, for people: it has more pictures than a sentence may have, or larger ones.
    /// `bytes` says how large a picture's file is.
    pub fn refusal(&self, before: &Self, bytes: impl Fn(usize) -> usize) -> Option<String> {
        let sum = |draft: &Self| draft.images.iter().map(|image| bytes(image.picture)).sum::<usize>();
        if self.images.len() > before.images.len().max(MAX_SENTENCE_PICTURES) {
            return Some(texts::too_many_pictures(MAX_SENTENCE_PICTURES));
        }
        (sum(self) > sum(before).max(MAX_REQUEST_BYTES)).then(|| texts::PICTURES_TOO_LARGE.into())
    }

    /// The only picture of a stretch that is nothing but a picture.
    pub fn only_picture(&self, range: &Range<usize>) -> Option<&ImageRef> {
        let (start, end) = self.clamp(range);
        (end - start == 1 && self.is_picture(start)).then(|| &self.images[self.pictures_in(0, start).end])
    }

    /// Where a picture stands: at `unit`, if it still does, or where it stands first.
    pub fn find(&self, picture: usize, unit: usize) -> Option<usize> {
        let is_it = |unit: &usize| self.only_picture(&(*unit..unit + 1)).is_some_and(|image| image.picture == picture);
        Some(unit).filter(is_it).or_else(|| (0..self.len()).find(is_it))
    }

    /// Its words, each picture by its name; an article stands once where sentence and name both have one.
    pub fn spoken(&self) -> String {
        sentence(&self.to_document())
    }

    /// Its stretches in order.
    pub fn pieces(&self) -> Vec<Piece<'_>> {
        let mut pieces = Vec::new();
        let mut images = self.images.iter();
        for &unit in &self.units {
            if unit == PICTURE {
                pieces.extend(images.next().map(Piece::Picture));
            } else if let Some(Piece::Words(words)) = pieces.last_mut() {
                words.push(unit);
            } else {
                pieces.push(Piece::Words(unit.into()));
            }
        }
        pieces
    }

    /// Adds another draft at the end.
    pub fn push(&mut self, other: Self) {
        self.units.extend(other.units);
        self.images.extend(other.images);
    }

    /// A stretch by its units; what lies beyond the end is left out.
    pub fn slice(&self, range: Range<usize>) -> Self {
        let (start, end) = self.clamp(&range);
        Self { units: self.units[start..end].to_vec(), images: self.images[self.pictures_in(start, end)].to_vec() }
    }

    /// Puts `other` in the place of a stretch and returns where it ends: the caret's place.
    pub fn replace(&mut self, range: Range<usize>, other: Self) -> usize {
        let (start, end) = self.clamp(&range);
        let caret = start + other.len();
        let pictures = self.pictures_in(start, end);
        self.images.splice(pictures, other.images);
        self.units.splice(start..end, other.units);
        caret
    }

    /// Like [`Draft::replace`], with a space on each side where a word would touch: for what is dropped or picked rather
    /// than typed.
    pub fn insert_spaced(&mut self, range: Range<usize>, other: Self) -> usize {
        let (start, end) = self.clamp(&range);
        let touches = |unit: Option<&char>| unit.is_some_and(|c| c.is_alphanumeric() || *c == PICTURE);
        let has_space = |unit: Option<&char>| unit.is_none_or(|c| c.is_whitespace());
        let before = start.checked_sub(1).and_then(|at| self.units.get(at));
        let needs_before = touches(before) || before.is_some_and(|c| matches!(c, ',' | '.' | ';' | ':' | '!' | '?'));
        let needs_before = needs_before && !has_space(other.units.first());
        let needs_after = touches(self.units.get(end)) && !has_space(other.units.last());
        let mut spaced = Self::words(if needs_before { " " } else { "" });
        spaced.push(other);
        if needs_after {
            spaced.push(Self::words(" "));
        }
        self.replace(start..end, spaced)
    }

    /// Moves a stretch into the place of another, which may be empty, and returns where it ends.
    pub fn move_to(&mut self, range: Range<usize>, to: Range<usize>) -> usize {
        let (start, end) = self.clamp(&range);
        let is_there = if to.is_empty() { (start..=end).contains(&to.start) } else { to.start < end && start < to.end };
        if is_there {
            return end;
        }
        let stretch = self.slice(start..end);
        let gone = self.take_out(start..end);
        let to = if to.start >= end { to.start - gone..to.end - gone } else { to };
        self.insert_spaced(to, stretch)
    }

    /// Where the word ends that a unit lies in: there a picture cuts nothing apart. The unit itself, if it lies in none.
    pub fn word_end(&self, at: usize) -> usize {
        (at..self.len()).find(|&at| !self.is_in_word(at)).unwrap_or(self.len())
    }

    /// The place nearest to a unit at which a picture cuts no word apart; of two that are as near, the later one.
    pub fn nearest_gap(&self, at: usize) -> usize {
        let at = at.min(self.len());
        let before = (0..=at).rev().find(|&at| !self.is_in_word(at)).unwrap_or(0);
        let after = self.word_end(at);
        if at - before < after - at { before } else { after }
    }

    /// Where units of the sentence as it was `before` are in this one. What was typed at a place lies behind it; of a stretch
    /// that was changed itself, its end is left.
    pub fn follow(&self, before: &Self, units: Range<usize>) -> Range<usize> {
        let (start, end) = before.clamp(&units);
        let followed = self.place_of(before, start)..self.place_of(before, end);
        let has_stayed = self.slice(followed.clone()) == before.slice(start..end);
        if has_stayed { followed } else { followed.end..followed.end }
    }

    /// The document with its pictures numbered from 0 in order, and for each of them the number it had.
    pub fn numbered(&self) -> (PromptDocument, Vec<usize>) {
        let mut draft = self.clone();
        let numbers = draft.images.iter().map(|image| image.picture).collect();
        for (number, image) in draft.images.iter_mut().enumerate() {
            image.picture = number;
        }
        (draft.to_document(), numbers)
    }

    /// Takes a stretch out, with one of the two spaces that would stand side by side then, and returns how many units went.
    fn take_out(&mut self, range: Range<usize>) -> usize {
        let (start, end) = self.clamp(&range);
        let is_space = |at: Option<usize>| at.and_then(|at| self.units.get(at)).is_some_and(|c| c.is_whitespace());
        let is_doubled = is_space(start.checked_sub(1)) && is_space(Some(end));
        let end = end + usize::from(is_doubled);
        self.replace(start..end, Self::default());
        end - start
    }

    /// Whether a picture at that unit would cut a word apart: what lies between white space and pictures, without the
    /// punctuation that closes it. Scripts without spaces have no words that could be told.
    fn is_in_word(&self, at: usize) -> bool {
        let is_of_word = |c: char| !c.is_whitespace() && c != PICTURE;
        let before = at.checked_sub(1).and_then(|at| self.units.get(at));
        let (Some(&before), Some(&after)) = (before, self.units.get(at)) else { return false };
        let mut rest = self.units[at..].iter().take_while(|&&c| is_of_word(c));
        is_of_word(before)
            && is_of_word(after)
            && !(has_no_spaces(before) || has_no_spaces(after))
            && !rest.all(|&c| CLOSING.contains(c))
    }

    /// Where a unit of the sentence as it was `before` is in this one: what is the same at both ends has stayed.
    fn place_of(&self, before: &Self, unit: usize) -> usize {
        let same = |(a, b): &(&char, &char)| a == b;
        let start = self.units.iter().zip(&before.units).take_while(same).count();
        if unit <= start {
            return unit;
        }
        let ends = self.units[start..].iter().rev().zip(before.units[start..].iter().rev());
        let end = ends.take_while(same).count();
        self.len() - end.min(before.len() - unit)
    }

    fn clamp(&self, range: &Range<usize>) -> (usize, usize) {
        let end = range.end.min(self.len());
        (range.start.min(end), end)
    }

    /// Which of the pictures lie between two units.
    fn pictures_in(&self, start: usize, end: usize) -> Range<usize> {
        let count = |units: &[char]| units.iter().filter(|&&unit| unit == PICTURE).count();
        let before = count(&self.units[..start]);
        before..before + count(&self.units[start..end])
    }
}

/// Whether a character's script is written without spaces between words: Chinese, Japanese.
fn has_no_spaces(c: char) -> bool {
    matches!(c, '\u{3040}'..='\u{30FF}' | '\u{3400}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}' | '\u{20000}'..='\u{3FFFF}')
}

#[cfg(test)]
mod tests {
    use kosmosg::noise::Rng;

    use super::*;

    fn image(picture: usize) -> ImageRef {
        ImageRef { picture, name: format!("picture {picture}") }
    }

    /// `1` to `9` are pictures, the rest is words.
    fn draft(text: &str) -> Draft {
        let mut draft = Draft::default();
        for c in text.chars() {
            draft.push(match c.to_digit(10) {
                Some(digit) => Draft::picture(image(digit as usize)),
                None => Draft::words(&c.to_string()),
            });
        }
        draft
    }

    fn random(rng: &mut Rng) -> Draft {
        let n = rng.below(12);
        draft(&(0..n).map(|_| *rng.pick(&['a', 'ß', ' ', '🙂', '<', '1', '2', '3'])).collect::<String>())
    }

    #[test]
    fn drafts_and_documents_say_the_same() {
        let mut rng = Rng::new(1, 0);
        for _ in 0..2000 {
            let draft = random(&mut rng);
            assert_eq!(Draft::from_document(&draft.to_document()), draft);
            assert_eq!(draft.to_document().images().cloned().collect::<Vec<_>>(), draft.images());
        }
    }

    #[test]
    fn a_stretch_cut_out_and_put_back_changes_nothing() {
        let mut rng = Rng::new(2, 0);
        for _ in 0..2000 {
            let before = random(&mut rng);
            let start = rng.below(before.len() + 1);
            let end = start + rng.below(before.len() - start + 1);
            let stretch = before.slice(start..end);
            let mut after = before.clone();
            assert_eq!(after.replace(start..end, Draft::default()), start);
            assert_eq!(after.len() + stretch.len(), before.len());
            assert_eq!(after.replace(start..start, stretch), end);
            assert_eq!(after, before);
        }
    }

    #[test]
    fn what_is_dropped_does_not_touch_words() {
        let dropped = |text: &str, at: usize| {
            let mut changed = draft(text);
            let caret = changed.insert_spaced(at..at, draft("9"));
            (changed, caret)
        };
        assert_eq!(dropped("a beach", 2), (draft("a 9 beach"), 4));
        assert_eq!(dropped("a  beach", 2), (draft("a 9 beach"), 3));
        assert_eq!(dropped("a ", 2), (draft("a 9"), 3));
        assert_eq!(dropped("", 0), (draft("9"), 1));
        assert_eq!(dropped("1, here", 1), (draft("1 9, here"), 3));
    }

    #[test]
    fn what_brings_a_space_gets_no_other() {
        let mut changed = draft("a beach");
        assert_eq!((changed.insert_spaced(1..1, draft(" 9 ")), changed), (4, draft("a 9  beach")));
        let mut changed = draft("sea");
        assert_eq!((changed.insert_spaced(3..3, draft(" 9")), changed), (5, draft("sea 9")));
    }

    #[test]
    fn pictures_can_be_moved() {
        let moved = |text: &str, at: usize, to: Range<usize>| {
            let mut changed = draft(text);
            changed.move_to(at..at + 1, to);
            changed
        };
        assert_eq!(moved("1 and 2", 0, 7..7), draft(" and 2 1"));
        assert_eq!(moved("1 and 2", 6, 0..0), draft("2 1 and "));
        assert_eq!(moved("1 and 2", 6, 7..7), draft("1 and 2"));
        // The two spaces of where it stood become one.
        assert_eq!(moved("a 1 on the beach", 2, 16..16), draft("a on the beach 1"));
        assert_eq!(moved("a 1 b", 2, 4..4), draft("a 1 b"));
        assert_eq!(moved("a 1 b", 2, 1..1), draft("a 1 b"));
        assert_eq!(moved("the sea 1 here", 8, 0..0), draft("1 the sea here"));
        // Onto another picture, which goes.
        assert_eq!(moved("1 and 2", 0, 6..7), draft(" and 1"));
        assert_eq!(moved("a 1 and 2", 2, 8..9), draft("a and 1"));
        assert_eq!(moved("2 and a 1 b", 8, 0..1), draft("1 and a b"));
        assert_eq!(moved("12", 0, 1..2), draft("1"));
        assert_eq!(moved("a 1 b", 2, 2..3), draft("a 1 b"));
    }

    #[test]
    fn pictures_cut_no_words_apart() {
        let places = |text: &str| {
            let draft = draft(text);
            let (ends, gaps): (Vec<_>, Vec<_>) =
                (0..=draft.len()).map(|at| (draft.word_end(at), draft.nearest_gap(at))).unzip();
            (ends, gaps)
        };
        assert_eq!(places("the sea"), (vec![0, 3, 3, 3, 4, 7, 7, 7], vec![0, 0, 3, 3, 4, 4, 7, 7]));
        // Between two pictures, and at a picture, nothing is cut.
        assert_eq!(places("1a2"), (vec![0, 1, 2, 3], vec![0, 1, 2, 3]));
        // Punctuation closes a word, and is a part of it within.
        assert_eq!(places("b, it's").1, [0, 1, 2, 3, 3, 7, 7, 7]);
        assert_eq!(places("it’s.").0, [0, 4, 4, 4, 4, 5]);
        // Letters of other scripts, marks that hang on letters, and emoji of several characters.
        for word in ["חתול", "кошка", "बिल्ली", "γάτα", "👩\u{200D}🚀", "e\u{301}te\u{301}"]
        {
            let n = word.chars().count();
            assert!(places(word).0[1..n].iter().all(|&end| end == n), "{word}");
            assert!(places(word).1.iter().all(|&gap| gap == 0 || gap == n), "{word}");
        }
        // Where there are no spaces, there is no telling.
        assert_eq!(places("海の猫").1, [0, 1, 2, 3]);
        assert_eq!(draft("").nearest_gap(7), 0);
        assert_eq!(draft("sea").word_end(7), 3);
    }

    #[test]
    fn places_are_found_in_a_sentence_that_is_written_on() {
        let followed = |before: &str, units: Range<usize>, now: &str| draft(now).follow(&draft(before), units);
        assert_eq!(followed("a ", 2..2, "a "), 2..2);
        assert_eq!(followed("a ", 2..2, "a on the beach"), 2..2);
        assert_eq!(followed("a  beach", 2..2, "a  wide beach"), 2..2);
        assert_eq!(followed("a beach", 2..2, "on a beach"), 5..5);
        assert_eq!(followed("a 1 beach", 2..3, "on a 1 beach"), 5..6);
        // What was selected was typed over, or all of it is another sentence.
        assert_eq!(followed("abcd", 1..3, "axd"), 2..2);
        assert_eq!(followed("abcd", 2..2, "xyz 1"), 5..5);
        assert_eq!(followed("abcd", 2..2, ""), 0..0);
        let mut rng = Rng::new(3, 0);
        for _ in 0..2000 {
            let (before, now) = (random(&mut rng), random(&mut rng));
            let units = now.follow(&before, 0..rng.below(before.len() + 2));
            assert!(units.start <= units.end && units.end <= now.len());
            let at = rng.below(before.len() + 1);
            assert_eq!(before.follow(&before, at..at), at..at);
        }
    }

    #[test]
    fn pictures_are_numbered_in_order() {
        let (document, numbers) = draft("a 3 and 1 and 3").numbered();
        assert_eq!(numbers, [3, 1, 3]);
        assert_eq!(document.images().map(|image| image.picture).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(document.to_text(), "a <i> and <i> and <i>");
    }

    #[test]
    fn a_picture_is_found_where_it_stands() {
        let sentence = draft("a 3 and 1 and 3");
        assert_eq!(sentence.only_picture(&(2..3)).map(|image| image.picture), Some(3));
        assert_eq!(sentence.only_picture(&(8..9)).map(|image| image.picture), Some(1));
        for range in [2..2, 2..4, 0..1, 99..100] {
            assert_eq!(sentence.only_picture(&range), None);
        }
        assert_eq!(
            [(3, 14), (3, 5), (1, 0), (7, 0)].map(|(n, at)| sentence.find(n, at)),
            [Some(14), Some(2), Some(8), None]
        );
        assert_eq!(sentence.spoken(), "a picture 3 and picture 1 and picture 3");
    }

    #[test]
    fn an_article_is_spoken_once() {
        let spoken = |words: &str, name: &str| {
            let mut draft = Draft::words(words);
            draft.push(Draft::picture(ImageRef { picture: 0, name: name.into() }));
            draft.spoken()
        };
        assert_eq!(spoken("a ", "a blue star"), "a blue star");
        assert_eq!(spoken("Here is The ", "a blue star"), "Here is The blue star");
        assert_eq!(spoken("with ", "a blue star"), "with a blue star");
        assert_eq!(spoken("", "a blue star"), "a blue star");
        assert_eq!(spoken("a ", "a"), "a a");
    }

    #[test]
    fn ten_pictures_are_enough() {
        let refusal = |before: &str, after: &str, bytes| draft(after).refusal(&draft(before), |_| bytes);
        let (ten, more) = ("1".repeat(10), "1 ".repeat(11));
        let too_many = Some(texts::too_many_pictures(10));
        assert_eq!((refusal("", &ten, 1), refusal(&ten, &more, 1), refusal(&more, &more, 1)), (None, too_many, None));
        let half = MAX_REQUEST_BYTES / 2;
        assert_eq!((refusal("1", "12", half), refusal("123", "12", half + 1)), (None, None));
        assert_eq!(refusal("1", "12", half + 1).as_deref(), Some(texts::PICTURES_TOO_LARGE));
    }

    #[test]
    fn only_what_can_be_typed_gets_in() {
        assert_eq!(Draft::words("a\r\nb\u{FFFC}\u{200B}c\td").to_document().to_text(), "a bc d");
        assert!(draft("  ").is_blank() && !draft(" 1").is_blank());
    }
}
