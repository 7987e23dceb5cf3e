//! The sentence while it is being written: pictures are single characters in a text.
//!
//! [`PromptDocument`] is what a prompt means; a [`Draft`] is the same with positions, which an editor needs: one unit for
//! every character and one for every picture. The page's editable region is a view of it.

use std::ops::Range;

use kosmosg::prompt::{ImageRef, PromptDocument, PromptItem};

/// Stands in a draft's text for a picture: Unicode's object replacement character.
pub const PICTURE: char = '\u{FFFC}';

/// Most pictures of a sentence.
pub const MAX_PICTURES: usize = 10;

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

    /// Whether it has more pictures than a sentence may have.
    pub fn is_too_full(&self) -> bool {
        self.images.len() > MAX_PICTURES
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

    /// Its words, each picture by its name.
    pub fn spoken(&self) -> String {
        let words = |piece: Piece<'_>| match piece {
            Piece::Words(words) => words,
            Piece::Picture(image) => image.name.clone(),
        };
        self.pieces().into_iter().map(words).collect()
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
        let before = start.checked_sub(1).and_then(|at| self.units.get(at));
        let needs_before = touches(before) || before.is_some_and(|c| matches!(c, ',' | '.' | ';' | ':'));
        let needs_after = touches(self.units.get(end));
        let mut spaced = Self::words(if needs_before { " " } else { "" });
        spaced.push(other);
        if needs_after {
            spaced.push(Self::words(" "));
        }
        self.replace(start..end, spaced)
    }

    /// Moves a stretch so that it stands where `to` is now, and returns where it ends.
    pub fn move_to(&mut self, range: Range<usize>, to: usize) -> usize {
        let (start, end) = self.clamp(&range);
        if (start..=end).contains(&to) {
            return end;
        }
        let stretch = self.slice(start..end);
        self.replace(start..end, Self::default());
        let to = if to > end { to - (end - start) } else { to };
        self.insert_spaced(to..to, stretch)
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
    fn pictures_can_be_moved() {
        let moved = |text: &str, at: usize, to: usize| {
            let mut changed = draft(text);
            changed.move_to(at..at + 1, to);
            changed
        };
        assert_eq!(moved("1 and 2", 0, 7), draft(" and 2 1"));
        assert_eq!(moved("1 and 2", 6, 0), draft("2 1 and "));
        assert_eq!(moved("1 and 2", 6, 7), draft("1 and 2"));
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
    fn ten_pictures_are_enough() {
        assert!(!draft(&"1".repeat(10)).is_too_full() && draft(&"1 ".repeat(11)).is_too_full());
    }

    #[test]
    fn only_what_can_be_typed_gets_in() {
        assert_eq!(Draft::words("a\r\nb\u{FFFC}\u{200B}c\td").to_document().to_text(), "a bc d");
        assert!(draft("  ").is_blank() && !draft(" 1").is_blank());
    }
}
