//! A picture in the dialog, as it is drawn upon, moved and written.

use std::rc::Rc;

use kosmosg::prompt::ImageRef;
use web_sys::{CanvasRenderingContext2d, HtmlCanvasElement};

use super::super::bitmap;
use super::super::editor::Editor;
use super::radio;
use super::view::View;
use crate::retouch::{Area, Colour, Frame, Retouch, Sheet};
use crate::texts;

/// A picture whose shorter side has fewer pixels gets more when it is drawn upon: a line would be steps otherwise.
const COARSE: u32 = 384;
/// Longest side of what comes out, if it is another than what went in.
const LONGEST: f64 = 1024.0;
const WHITE: Colour = [255; 3];

/// A picture in the dialog.
pub struct Work {
    /// The number of the picture that it is to replace, and where that stands; none if it is new.
    pub(super) replaced: Option<(usize, usize)>,
    /// What it was called.
    pub(super) name: String,
    pub(super) retouch: Retouch,
    /// Its pixels, for drawing them.
    pub(super) canvas: (HtmlCanvasElement, CanvasRenderingContext2d),
    /// Files that came with pixels which may be here still: those need not be written anew.
    pub(super) files: Vec<(Rc<Sheet>, String, Rc<Vec<u8>>)>,
    /// Fingers, pen or mouse on the picture, and where, in shares of what is seen.
    pub(super) pointers: Vec<(i32, (f64, f64))>,
    /// Where the keyboard's brush is, in pixels of the picture, and whether it is down.
    pub(super) brush: Option<((f64, f64), bool)>,
}

/// What one draws with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tool {
    Brush,
    Eraser,
    Fill,
}

impl Work {
    /// Draws or fills, as is chosen, from a place to another in pixels of the picture.
    pub(super) fn apply(&mut self, from: (f64, f64), to: (f64, f64)) {
        let (width, height) = self.retouch.sheet().size();
        let short = width.min(height);
        let times = COARSE.div_ceil(short).min(bitmap::LONGEST_SHEET / width.max(height)).max(1);
        if short < COARSE
            && times > 1
            && let Some(larger) = bitmap::enlarged(self.retouch.sheet(), times)
        {
            self.retouch.enlarge(larger);
            self.refresh();
            let scaled = |(x, y): (f64, f64)| (x * f64::from(times), y * f64::from(times));
            self.brush = self.brush.map(|(at, is_down)| (scaled(at), is_down));
            return self.apply(scaled(from), scaled(to));
        }
        let radius = radius(self.retouch.frame());
        match tool() {
            Tool::Fill => {
                self.retouch.fill(to, colour());
                self.refresh();
            }
            tool => {
                let colour = if tool == Tool::Eraser { WHITE } else { colour() };
                let area = self.retouch.draw(from, to, radius, colour);
                self.put(area);
            }
        }
    }

    /// Moves the square against one finger, or zooms it between two.
    pub(super) fn drag(&mut self, before: &[(i32, (f64, f64))], view: &View) {
        let (frame, size) = (self.retouch.frame(), self.retouch.sheet().size());
        let centre = |pointers: &[(i32, (f64, f64))]| {
            let used = &pointers[..pointers.len().min(2)];
            let sum = used.iter().fold((0.0, 0.0), |(x, y), (_, at)| (x + at.0, y + at.1));
            (sum.0 / used.len() as f64, sum.1 / used.len() as f64)
        };
        let spread = |pointers: &[(i32, (f64, f64))]| match pointers {
            [(_, a), (_, b), ..] => (a.0 - b.0).hypot(a.1 - b.1).max(0.01),
            _ => 1.0,
        };
        let frame = frame.with_side(frame.side * spread(before) / spread(&self.pointers), size);
        let from = view.place_of(centre(before), frame, true);
        let to = view.place_of(centre(&self.pointers), frame, true);
        self.retouch.set_frame(frame.moved(from.0 - to.0, from.1 - to.1, size));
    }

    /// Puts all pixels into the canvas.
    pub(super) fn refresh(&mut self) {
        let sheet = self.retouch.sheet();
        if (self.canvas.0.width(), self.canvas.0.height()) != sheet.size() {
            self.canvas.0.set_width(sheet.size().0);
            self.canvas.0.set_height(sheet.size().1);
        }
        self.put(sheet.area());
    }

    pub(super) fn put(&self, area: Area) {
        bitmap::put(&self.canvas.1, self.retouch.sheet(), area);
    }

    /// The picture as it is to stand in the sentence. `None` if there is no memory for it.
    pub(super) async fn image(&self, name: &str, editor: &Editor) -> Option<ImageRef> {
        let sheet = self.retouch.sheet();
        let (frame, middle) = (self.retouch.frame(), Frame::middle(sheet.size()));
        // What the model would see anyway is left as it is.
        let is_framed = frame != middle;
        let known = self.files.iter().find(|(pixels, ..)| Rc::ptr_eq(pixels, sheet)).filter(|_| !is_framed);
        if let Some((_, mime, file)) = known {
            return Some(editor.pictures.add(name, mime, file.to_vec()));
        }
        const PNG: &str = "image/png";
        let png = if is_framed {
            let side = frame.side.round().clamp(1.0, LONGEST) as u32;
            bitmap::encode(&bitmap::square_of(&self.canvas.0, frame, side)?, PNG).await?
        } else {
            bitmap::encode(&self.canvas.0, PNG).await?
        };
        Some(editor.pictures.add(name, PNG, png))
    }
}

/// The brush's radius, in pixels of the picture.
pub(super) fn radius(frame: Frame) -> f64 {
    radio("[name=retouch-size]:checked").value().parse().unwrap_or(0.016) * frame.side
}

pub(super) fn middle(frame: Frame) -> (f64, f64) {
    (frame.x + frame.side / 2.0, frame.y + frame.side / 2.0)
}

pub(super) fn tool() -> Tool {
    match radio("[name=retouch-tool]:checked").value().as_str() {
        "eraser" => Tool::Eraser,
        "fill" => Tool::Fill,
        _ => Tool::Brush,
    }
}

fn colour() -> Colour {
    let number = radio("[name=retouch-colour]:checked").value().parse().unwrap_or(0);
    texts::COLOURS.get(number).map_or([0; 3], |(_, colour)| *colour)
}
