//! Undo and redo of the sentence.

use crate::draft::Draft;

/// Typing without a pause longer than this is undone at once.
const PAUSE_MS: f64 = 1000.0;
/// Most changes that are remembered.
const LONGEST: usize = 500;

/// A draft and where its caret stood.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moment {
    /// The draft.
    pub draft: Draft,
    /// The caret, in units.
    pub caret: usize,
}

/// How a change came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Letter by letter; such changes are undone together.
    Typing,
    /// At once.
    Edit,
}

/// The drafts there were and, after an undo, the drafts there will be.
#[derive(Debug, Clone, Default)]
pub struct History {
    past: Vec<Moment>,
    now: Moment,
    future: Vec<Moment>,
    /// When the last change was typed; none after an edit.
    typed_ms: Option<f64>,
}

impl History {
    /// The draft and caret as they are.
    pub fn now(&self) -> &Moment {
        &self.now
    }

    /// Whether nothing has happened yet.
    pub fn is_fresh(&self) -> bool {
        self.past.is_empty() && self.future.is_empty()
    }

    /// Whether there is something to undo.
    pub fn can_undo(&self) -> bool {
        !self.past.is_empty()
    }

    /// Whether there is something to redo.
    pub fn can_redo(&self) -> bool {
        !self.future.is_empty()
    }

    /// The numbers of the pictures that undo and redo can bring back, and of those that are there now.
    pub fn pictures(&self) -> Vec<usize> {
        let mut pictures = Vec::new();
        let moments = self.past.iter().chain([&self.now]).chain(&self.future);
        for image in moments.flat_map(|moment| moment.draft.images()) {
            if !pictures.contains(&image.picture) {
                pictures.push(image.picture);
            }
        }
        pictures
    }

    /// Forgets the change that is longest ago. `false` if there is none.
    pub fn forget_oldest(&mut self) -> bool {
        let is_some = !self.past.is_empty();
        self.past.drain(..usize::from(is_some));
        is_some
    }

    /// What there is before anything has happened.
    pub fn starting(now: Moment) -> Self {
        Self { now, ..Self::default() }
    }

    /// Remembers a change, at `now_ms` of any clock.
    pub fn record(&mut self, moment: Moment, change: Change, now_ms: f64) {
        if moment.draft == self.now.draft {
            self.now.caret = moment.caret;
            return;
        }
        let typed = (change == Change::Typing).then_some(now_ms);
        let goes_on = matches!((self.typed_ms, typed), (Some(last), Some(now)) if now - last < PAUSE_MS);
        let before = std::mem::replace(&mut self.now, moment);
        if !goes_on {
            self.past.push(before);
            self.past.drain(..self.past.len().saturating_sub(LONGEST));
        }
        self.future.clear();
        self.typed_ms = typed;
    }

    /// Goes back by a change. `false` if there is none.
    pub fn undo(&mut self) -> bool {
        let Some(before) = self.past.pop() else { return false };
        self.future.push(std::mem::replace(&mut self.now, before));
        self.typed_ms = None;
        true
    }

    /// Takes an undo back. `false` if there is none.
    pub fn redo(&mut self) -> bool {
        let Some(after) = self.future.pop() else { return false };
        self.past.push(std::mem::replace(&mut self.now, after));
        self.typed_ms = None;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(words: &str) -> Moment {
        Moment { draft: Draft::words(words), caret: words.len() }
    }

    #[test]
    fn typing_is_undone_together_and_edits_alone() {
        let mut history = History::default();
        for (at, words) in [(0.0, "a"), (200.0, "a c"), (400.0, "a cat"), (5000.0, "a cat s")] {
            history.record(moment(words), Change::Typing, at);
        }
        history.record(moment("a dog"), Change::Edit, 5100.0);
        history.record(moment("a dog!"), Change::Typing, 5200.0);
        let mut seen = vec![];
        while history.undo() {
            seen.push(history.now().clone());
        }
        assert_eq!(seen, ["a dog", "a cat s", "a cat", ""].map(moment));
        while history.redo() {}
        assert_eq!(history.now(), &moment("a dog!"));
    }

    #[test]
    fn a_change_after_an_undo_has_no_future() {
        let mut history = History::default();
        history.record(moment("a"), Change::Edit, 0.0);
        history.record(moment("b"), Change::Edit, 0.0);
        assert!(history.undo());
        history.record(moment("c"), Change::Edit, 0.0);
        assert!(!history.redo());
        assert!(history.undo());
        assert_eq!(history.now(), &moment("a"));
    }

    #[test]
    fn pictures_are_known_as_long_as_they_can_come_back() {
        let picture = |picture: usize| {
            let image = kosmosg::prompt::ImageRef { picture, name: String::new() };
            Moment { draft: Draft::picture(image), caret: 1 }
        };
        let mut history = History::default();
        for number in [3, 5, 7] {
            history.record(picture(number), Change::Edit, 0.0);
        }
        let known = |history: &History| history.pictures();
        assert!(history.undo());
        assert_eq!(known(&history), [3, 5, 7]);
        history.record(picture(9), Change::Edit, 0.0);
        assert_eq!(known(&history), [3, 5, 9]);
        assert!(history.forget_oldest() && history.forget_oldest() && history.forget_oldest());
        assert_eq!(known(&history), [9]);
        assert!(!history.can_undo() && !history.can_redo() && !history.forget_oldest());
        assert!(History::starting(picture(1)).is_fresh());
    }

    #[test]
    fn moving_the_caret_is_not_a_change() {
        let mut history = History::default();
        history.record(moment("a"), Change::Edit, 0.0);
        history.record(Moment { caret: 0, ..moment("a") }, Change::Typing, 0.0);
        assert_eq!(history.now().caret, 0);
        assert!(history.undo() && !history.undo());
    }
}
