//! One creature with its shadow and what it stands on, put together from its parts.

use super::body::{self, INK};
use super::creature::{Body, Creature, Topping, attribute};
use super::raster::{Canvas, Point, around, at, hex};
use super::shape::{ellipse, rounded_box};
use super::{face, topping};

attribute!(
    /// A thing to stand on.
    Stand {
        /// Grey stone.
        Rock = "rock",
        /// Cream with pink icing.
        Cake = "cake",
        /// A cut trunk.
        Log = "log",
        /// Red with a white zigzag.
        Drum = "drum",
    }
);

/// How high a stand is, in half body heights.
pub const STAND_HEIGHT: f32 = 0.62;

/// What a creature covers at most, in half body heights around the body's middle, toppings and lines included.
pub const EXTENT: super::raster::Bounds = super::raster::Bounds { left: -1.15, top: -1.62, right: 1.15, bottom: 1.1 };

/// Draws a creature; the frame's origin is the body's middle, its unit half the body's height.
pub fn draw(canvas: &mut Canvas, creature: &Creature) {
    let line_width = 0.045 + 0.6 * canvas.pixel();
    let anatomy = creature.body.anatomy();
    canvas
        .inside(anatomy.crest, anatomy.head_size, |canvas| topping::draw_behind(canvas, creature.topping, line_width));
    body::draw(canvas, creature, line_width);
    if creature.body == Body::Cat && creature.topping == Topping::Horns {
        // Behind the ears they would be lost.
        canvas.inside(at(0.0, -0.62), 0.62, |canvas| topping::draw_behind(canvas, creature.topping, line_width));
    }
    canvas.inside(anatomy.face, anatomy.face_size, |canvas| {
        let Point { x, y } = anatomy.face;
        let size = anatomy.face_size;
        face::blush(canvas, |p| creature.body.distance(at(x + p.x * size, y + p.y * size)) / size);
        face::draw(canvas, creature);
    });
    canvas.inside(anatomy.head, anatomy.head_size, |canvas| topping::draw_on_top(canvas, creature.topping, line_width));
}

/// Draws the shadow of a creature that stands at the frame's origin.
pub fn draw_shadow(canvas: &mut Canvas) {
    let brush = canvas.brush();
    canvas.paint(around(at(0.0, 0.0), 0.95, 0.2), |p| {
        (hex(0x1a1030), 0.32 * brush.coverage(ellipse(p, at(0.0, 0.0), 0.9, 0.15)))
    });
}

/// Draws a thing to stand on; the frame's origin is the middle of its foot.
pub fn draw_stand(canvas: &mut Canvas, stand: Stand) {
    let line_width = 0.045 + 0.6 * canvas.pixel();
    let middle = at(0.0, -0.5 * STAND_HEIGHT);
    let bounds = around(middle, 1.1, 0.5);
    let block = |p: Point| rounded_box(p, at(0.0, -0.27), 0.9, 0.33, 0.1);
    match stand {
        Stand::Rock => {
            let rock = |p: Point| ellipse(p, at(0.0, 0.0), 1.05, 0.7).max(p.y - 0.06).max(-0.62 - p.y);
            canvas.outlined(bounds, hex(0x9a9dab), INK, line_width, rock);
            canvas.fill(bounds, hex(0xc6c9d4), |p| ellipse(p, at(-0.35, -0.32), 0.35, 0.16));
        }
        Stand::Cake => {
            canvas.outlined(bounds, hex(0xf6d9a0), INK, line_width, block);
            canvas.fill(bounds, hex(0xff8fb8), |p| {
                let drip = ((p.x + 2.0) % 0.45 - 0.225).abs();
                block(p).max(p.y + 0.42 - (0.17 - drip).max(0.0) * 1.6)
            });
            canvas.fill(bounds, hex(0xb5703f), |p| block(p).max((p.y + 0.1).abs() - 0.06));
        }
        Stand::Log => {
            canvas.outlined(bounds, hex(0x9c6a3f), INK, line_width, block);
            let end = |p: Point| ellipse(p, at(0.72, -0.27), 0.26, 0.33);
            canvas.outlined(bounds, hex(0xe9c68f), INK, 0.6 * line_width, end);
            canvas.fill(bounds, hex(0xb98550), |p| ellipse(p, at(0.72, -0.27), 0.13, 0.17).abs() - 0.035);
            canvas.fill(bounds, hex(0x744a2a), |p| {
                rounded_box(p, at(-0.3, -0.2), 0.35, 0.04, 0.03).min(rounded_box(p, at(-0.5, -0.38), 0.22, 0.04, 0.03))
            });
        }
        Stand::Drum => {
            canvas.outlined(bounds, hex(0xd9343f), INK, line_width, block);
            canvas.fill(bounds, hex(0xfff4e0), |p| {
                let zigzag = (((p.x + 2.0) % 0.5 - 0.25).abs() - 0.125) * 1.3;
                block(p).max((p.y + 0.25 - zigzag).abs() - 0.06)
            });
            canvas.fill(bounds, hex(0xffcf4a), |p| block(p).max(0.25 - (p.y + 0.27).abs()));
        }
    }
}
