//! Changing a picture of the sentence: what it shows, cut out or not, drawn upon, and what of it the model sees.
//!
//! A [`Retouch`] is one visit to the picture's dialog, with undo of its own. What comes out is another picture, so that
//! undo in the sentence brings the old one back.

use std::rc::Rc;

pub use cutout::{CutOut, Edge};
pub use frame::Frame;
pub use sheet::{Area, Colour, Sheet};

mod cutout;
mod frame;
mod sheet;

/// Bytes of pixels that undo may hold.
const MOST_BYTES: usize = 96 << 20;
/// Most changes that are remembered.
const LONGEST: usize = 200;

/// A picture that is being changed. See the [module documentation](self).
#[derive(Debug, Clone)]
pub struct Retouch {
    now: Moment,
    past: Vec<Moment>,
    future: Vec<Moment>,
    /// What goes on, so that its steps are one change.
    going_on: Option<Going>,
}

/// The pixels, shared while they stay the same, and the square that the model is to see.
#[derive(Debug, Clone)]
struct Moment {
    sheet: Rc<Sheet>,
    frame: Frame,
}

/// A change of many steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Going {
    /// The square is moved or zoomed.
    Framing,
    /// The tolerance is tried out.
    Cutting,
    /// A line is drawn.
    Drawing,
}

impl Retouch {
    /// A picture as it came.
    pub fn new(sheet: Sheet) -> Self {
        let frame = Frame::middle(sheet.size());
        let now = Moment { sheet: Rc::new(sheet), frame };
        Self { now, past: Vec::new(), future: Vec::new(), going_on: None }
    }

    /// The pixels as they are.
    pub fn sheet(&self) -> &Rc<Sheet> {
        &self.now.sheet
    }

    /// The square that the model sees.
    pub fn frame(&self) -> Frame {
        self.now.frame
    }

    /// Whether there is something to undo.
    pub fn can_undo(&self) -> bool {
        !self.past.is_empty()
    }

    /// Whether there is something to redo.
    pub fn can_redo(&self) -> bool {
        !self.future.is_empty()
    }

    /// Goes back by a change.
    pub fn undo(&mut self) {
        self.going_on = None;
        if let Some(before) = self.past.pop() {
            self.future.push(std::mem::replace(&mut self.now, before));
        }
    }

    /// Takes an undo back.
    pub fn redo(&mut self) {
        self.going_on = None;
        if let Some(after) = self.future.pop() {
            self.past.push(std::mem::replace(&mut self.now, after));
        }
    }

    /// Puts other pixels in the place of these.
    pub fn replace(&mut self, sheet: Sheet) {
        self.remember(None);
        self.now = Moment { frame: Frame::middle(sheet.size()), sheet: Rc::new(sheet) };
    }

    /// The same picture with more pixels, the same times as many in both directions: paper for a line, which is the same
    /// change.
    pub fn enlarge(&mut self, sheet: Sheet) {
        self.remember(Some(Going::Drawing));
        let times = f64::from(sheet.size().0) / f64::from(self.sheet().size().0);
        self.now = Moment { sheet: Rc::new(sheet), frame: self.now.frame.scaled(times) };
    }

    /// Left becomes right.
    pub fn mirror(&mut self) {
        self.remember(None);
        self.now.frame = self.now.frame.mirrored(self.sheet().size());
        self.now.sheet = Rc::new(self.sheet().mirrored());
    }

    /// Everything becomes white.
    pub fn clear(&mut self) {
        self.remember(None);
        let (width, height) = self.sheet().size();
        self.now.sheet = Rc::new(Sheet::white(width, height));
    }

    /// Has the model see another square; what follows without [`Retouch::settle`] is the same change.
    pub fn set_frame(&mut self, frame: Frame) {
        if frame != self.now.frame {
            self.remember(Some(Going::Framing));
            self.now.frame = frame;
        }
    }

    /// Puts white in the place of the background, and returns how much of the picture stays, from 0 to 1. Another
    /// tolerance right after this is tried on the same picture.
    pub fn cut_out(&mut self, how: &CutOut) -> f64 {
        self.remember(Some(Going::Cutting));
        let whole = self.past.last().map_or(&self.now.sheet, |before| &before.sheet);
        let (sheet, kept) = how.apply(whole);
        self.now.sheet = Rc::new(sheet);
        kept
    }

    /// Draws a line from a place to another, in pixels of the picture, and returns what changed; what follows without
    /// [`Retouch::settle`] is the same change.
    pub fn draw(&mut self, from: (f64, f64), to: (f64, f64), radius: f64, colour: Colour) -> Area {
        self.remember(Some(Going::Drawing));
        Rc::make_mut(&mut self.now.sheet).line(from, to, radius, colour)
    }

    /// Fills what has one colour around a place.
    pub fn fill(&mut self, at: (f64, f64), colour: Colour) {
        self.remember(Some(Going::Drawing));
        Rc::make_mut(&mut self.now.sheet).fill(at, colour);
        self.settle();
    }

    /// What comes next is another change.
    pub fn settle(&mut self) {
        self.going_on = None;
    }

    fn remember(&mut self, going: Option<Going>) {
        if going.is_some() && self.going_on == going {
            return;
        }
        self.going_on = going;
        self.past.push(self.now.clone());
        self.future.clear();
        while self.past.len() > LONGEST || self.bytes() > MOST_BYTES && self.past.len() > 1 {
            self.past.remove(0);
        }
    }

    /// Bytes of pixels that undo holds.
    fn bytes(&self) -> usize {
        let before = [None].into_iter().chain(self.past.iter().map(Some));
        let other = |(before, moment): &(Option<&Moment>, &Moment)| {
            before.is_none_or(|before| !Rc::ptr_eq(&before.sheet, &moment.sheet))
        };
        before.zip(&self.past).filter(other).map(|(_, moment)| moment.sheet.rgba().len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: Colour = [200, 0, 0];

    #[test]
    fn a_line_is_one_change_and_every_change_is_taken_back() {
        let mut retouch = Retouch::new(Sheet::white(64, 32));
        let mut seen = vec![Sheet::clone(retouch.sheet())];
        for step in 0..5 {
            retouch.draw((10.0 + f64::from(step), 10.0), (11.0 + f64::from(step), 10.0), 2.0, RED);
        }
        retouch.settle();
        seen.push(Sheet::clone(retouch.sheet()));
        retouch.mirror();
        seen.push(Sheet::clone(retouch.sheet()));
        retouch.fill((40.0, 20.0), [0, 0, 200]);
        seen.push(Sheet::clone(retouch.sheet()));
        retouch.cut_out(&CutOut::default());
        retouch.cut_out(&CutOut { tolerance: 0.9, ..CutOut::default() });
        retouch.clear();

        for _ in 0..2 {
            retouch.undo();
        }
        for before in seen.iter().rev() {
            assert!(**retouch.sheet() == *before);
            retouch.undo();
        }
        assert!(!retouch.can_undo());
        while retouch.can_redo() {
            retouch.redo();
        }
        assert!(**retouch.sheet() == Sheet::white(64, 32));
    }

    #[test]
    fn another_tolerance_is_tried_on_the_whole_picture() {
        let mut retouch = Retouch::new(Sheet::white(40, 40));
        retouch.draw((20.0, 20.0), (20.0, 20.0), 8.0, RED);
        retouch.settle();
        let whole = retouch.sheet().clone();
        let all = retouch.cut_out(&CutOut { tolerance: 1.0, ..CutOut::default() });
        let some = retouch.cut_out(&CutOut { tolerance: 0.2, ..CutOut::default() });
        assert!(all < 0.01 && some > 0.1, "{all} {some}");
        retouch.undo();
        assert!(*retouch.sheet() == whole);
    }

    #[test]
    fn the_square_goes_with_the_picture() {
        let mut retouch = Retouch::new(Sheet::white(100, 50));
        let left = retouch.frame().moved(-25.0, 0.0, (100, 50));
        retouch.set_frame(left);
        retouch.mirror();
        assert_eq!(retouch.frame(), Frame { x: 50.0, y: 0.0, side: 50.0 });
        retouch.enlarge(Sheet::white(200, 100));
        assert_eq!(retouch.frame(), Frame { x: 100.0, y: 0.0, side: 100.0 });
        retouch.draw((1.0, 1.0), (2.0, 2.0), 3.0, RED);
        retouch.undo();
        assert_eq!((retouch.sheet().size(), retouch.frame().side), ((100, 50), 50.0));
        retouch.replace(Sheet::white(30, 30));
        assert_eq!(retouch.frame(), Frame::middle((30, 30)));
    }

    #[test]
    fn undo_holds_no_more_than_it_may() {
        let mut retouch = Retouch::new(Sheet::white(2048, 2048));
        for _ in 0..20 {
            retouch.clear();
        }
        assert!(retouch.bytes() <= MOST_BYTES && retouch.can_undo());
    }
}
