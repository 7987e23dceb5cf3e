//! What one sees of a picture in the dialog: the square that the model sees and, when it is being framed, a little of what
//! lies around.

use web_sys::{CanvasRenderingContext2d, HtmlCanvasElement};

use super::super::dom;
use crate::retouch::Frame;

/// How much lies around the square on each side, as a share of the whole view.
const AROUND: f64 = 0.1;
/// Pixels of a picture that are seen this much larger are seen as squares.
const PIXELATED: f64 = 3.0;

/// A square canvas. See the [module documentation](self).
pub struct View {
    canvas: HtmlCanvasElement,
    context: CanvasRenderingContext2d,
}

impl View {
    /// Takes a canvas over.
    pub fn new(canvas: HtmlCanvasElement) -> Self {
        let context = canvas.get_context("2d").ok().flatten().expect("a canvas draws in two dimensions");
        let context = wasm_bindgen::JsCast::dyn_into(context).expect("that is what draws in two dimensions");
        Self { canvas, context }
    }

    /// The canvas.
    pub fn canvas(&self) -> &HtmlCanvasElement {
        &self.canvas
    }

    /// Brings the keyboard here.
    pub fn focus(&self) {
        dom::focus(&self.canvas);
    }

    /// Has a pointer heard also when it leaves.
    pub fn capture(&self, pointer: i32) {
        // A pointer that is gone already needs no hearing.
        let _ = self.canvas.set_pointer_capture(pointer);
    }

    /// A point of the window in shares of the view.
    pub fn share_at(&self, x: i32, y: i32) -> (f64, f64) {
        let place = self.canvas.get_bounding_client_rect();
        let share = |at: i32, from: f64, length: f64| (f64::from(at) - from) / length.max(1.0);
        (share(x, place.left(), place.width()), share(y, place.top(), place.height()))
    }

    /// The pixel of the picture at a share of the view.
    pub fn place_of(&self, (x, y): (f64, f64), frame: Frame, is_framing: bool) -> (f64, f64) {
        let around = if is_framing { AROUND } else { 0.0 };
        let place = |share: f64, from: f64| from + (share - around) / (1.0 - 2.0 * around) * frame.side;
        (place(x, frame.x), place(y, frame.y))
    }

    /// Shows a picture; `brush` is where the keyboard's brush is, its radius, and whether it is down.
    pub fn show(
        &self,
        picture: &HtmlCanvasElement,
        frame: Frame,
        is_framing: bool,
        brush: Option<((f64, f64), f64, bool)>,
    ) {
        let sharpness = dom::window().device_pixel_ratio();
        let side = (f64::from(self.canvas.client_width()) * sharpness).round().max(1.0);
        if f64::from(self.canvas.width()) != side || f64::from(self.canvas.height()) != side {
            self.canvas.set_width(side as u32);
            self.canvas.set_height(side as u32);
        }
        let margin = if is_framing { (AROUND * side).round() } else { 0.0 };
        let inner = side - 2.0 * margin;
        let scale = inner / frame.side;
        let place = |x: f64, y: f64| (margin + (x - frame.x) * scale, margin + (y - frame.y) * scale);
        let context = &self.context;
        context.set_fill_style_str("#b9aea2");
        context.fill_rect(0.0, 0.0, side, side);
        context.set_fill_style_str("#fff");
        context.fill_rect(margin, margin, inner, inner);
        context.set_image_smoothing_enabled(scale < PIXELATED);
        let (left, top) = place(0.0, 0.0);
        let (width, height) = (f64::from(picture.width()) * scale, f64::from(picture.height()) * scale);
        // A canvas with pixels can be drawn.
        let _ = context.draw_image_with_html_canvas_element_and_dw_and_dh(picture, left, top, width, height);
        if is_framing {
            // What the model does not see lies in shadow.
            context.set_fill_style_str("rgb(38 30 24 / 62%)");
            context.fill_rect(0.0, 0.0, side, margin);
            context.fill_rect(0.0, side - margin, side, margin);
            context.fill_rect(0.0, margin, margin, inner);
            context.fill_rect(side - margin, margin, margin, inner);
            context.set_line_width(2.0 * sharpness);
            context.set_stroke_style_str("#fff");
            context.stroke_rect(margin, margin, inner, inner);
        }
        if let Some(((x, y), radius, is_down)) = brush {
            let (x, y) = place(x, y);
            for (colour, width) in
                [("#fff", if is_down { 6.0 } else { 4.0 }), ("#1b1714", if is_down { 3.0 } else { 1.5 })]
            {
                context.begin_path();
                // A radius that is not negative.
                let _ = context.arc(x, y, (radius * scale).max(4.0 * sharpness), 0.0, std::f64::consts::TAU);
                context.set_stroke_style_str(colour);
                context.set_line_width(width * sharpness);
                context.stroke();
            }
        }
    }
}
