//! Places in the sentence for what is still being read or fetched, while the person may write on.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::{Rc, Weak};

use super::Editor;
use crate::draft::Draft;

/// A place in the sentence that is held for what is to come there.
pub struct Place(Rc<RefCell<Held>>);

/// The sentence as it was when this was looked at last, and the units of it.
struct Held {
    before: Draft,
    units: Range<usize>,
}

/// The places that are held.
#[derive(Default)]
pub struct Places(RefCell<Vec<Weak<RefCell<Held>>>>);

impl Editor {
    /// Holds the place of what is selected, or of the caret, or where it was last.
    pub fn hold(&self) -> Place {
        self.hold_units(self.last.borrow().clone())
    }

    /// Holds the place of some units.
    pub(super) fn hold_units(&self, units: Range<usize>) -> Place {
        let held = Rc::new(RefCell::new(Held { before: self.draft(), units }));
        let mut places = self.places.0.borrow_mut();
        places.retain(|place| place.strong_count() > 0);
        places.push(Rc::downgrade(&held));
        Place(held)
    }

    /// The units that a place has by now.
    pub(super) fn units_of(&self, place: &Place) -> Range<usize> {
        let held = place.0.borrow();
        self.draft().follow(&held.before, held.units.clone())
    }

    /// Puts something into a place, with no word cut apart or touched, and the caret behind it; whoever has gone on writing
    /// elsewhere goes on there. `false` if it would be too many pictures.
    pub(super) fn fill(&self, place: &Place, with: Draft) -> bool {
        let before = self.draft();
        let at = self.units_of(place);
        let units = whole(&before, at.clone());
        let mut draft = before.clone();
        let end = draft.insert_spaced(units.clone(), with);
        let moved = |unit: usize| match unit {
            unit if unit < units.start => unit,
            unit if unit < units.end => end,
            unit => unit - units.end + end,
        };
        let last = self.last.borrow().clone();
        let caret = if last == at { end } else { moved(last.end) };
        if !self.change(draft.clone(), caret) {
            return false;
        }
        // What was asked for later comes behind it, although nothing was typed between them.
        let mut is_earlier = true;
        for other in self.places.0.borrow().iter().filter_map(Weak::upgrade) {
            if Rc::ptr_eq(&other, &place.0) {
                is_earlier = false;
                continue;
            }
            let mut other = other.borrow_mut();
            let at = whole(&before, before.follow(&other.before, other.units.clone()));
            let stays = is_earlier && at.end <= units.start;
            let at = if stays { at } else { moved(at.start)..moved(at.end) };
            *other = Held { before: draft.clone(), units: at };
        }
        true
    }
}

/// Units of a draft in whose place a picture cuts no word apart: those that are selected, or the end of the word.
fn whole(draft: &Draft, units: Range<usize>) -> Range<usize> {
    if !units.is_empty() {
        return units;
    }
    let end = draft.word_end(units.start);
    end..end
}
