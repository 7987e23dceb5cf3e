//! Eyes, mouth and cheeks, around the middle between the eyes.

use super::body::INK;
use super::creature::{Creature, Eyes};
use super::raster::{Canvas, Point, Rgb, around, at, hex, mix};
use super::shape::{capsule, circle, rounded_box};

const EYE_WHITE: Rgb = hex(0xffffff);
const PUPIL: Rgb = hex(0x1d1630);
const BLUSH: Rgb = hex(0xff7896);

/// Draws the face; the frame's origin lies between the eyes.
pub fn draw(canvas: &mut Canvas, creature: &Creature) {
    let line_width = 0.03 + 0.4 * canvas.pixel();
    match creature.eyes {
        Eyes::Round => {
            pair_of_eyes(canvas, line_width);
            laugh(canvas, at(0.0, 0.33), 0.19, line_width);
        }
        Eyes::One => {
            canvas.outlined(around(at(0.0, -0.04), 0.42, 0.42), EYE_WHITE, INK, line_width, |p| {
                circle(p, at(0.0, -0.04), 0.4)
            });
            canvas.fill(around(at(0.0, 0.0), 0.24, 0.24), PUPIL, |p| circle(p, at(0.0, 0.0), 0.23));
            canvas.fill(around(at(-0.08, -0.09), 0.1, 0.1), EYE_WHITE, |p| circle(p, at(-0.08, -0.09), 0.085));
            smile(canvas, at(0.0, 0.42), 0.18, line_width);
        }
        Eyes::Sleepy => {
            pair_of_eyes(canvas, line_width);
            // Lids that hang lower outside look tired; level ones would look cross.
            let lid = mix(creature.colour.rgb(), INK, 0.2);
            canvas.fill(around(at(0.0, -0.05), 0.56, 0.25), lid, |p| {
                circle(p.folded(), at(0.31, 0.0), 0.25).max(p.y - 0.02 - 0.3 * (p.x.abs() - 0.31))
            });
            canvas.fill(around(at(0.0, 0.02), 0.66, 0.18), INK, |p| {
                capsule(p.folded(), at(0.1, -0.04), at(0.55, 0.1), 0.015 + line_width * 0.5)
            });
            canvas.fill(around(at(0.0, 0.43), 0.12, 0.12), INK, |p| circle(p, at(0.0, 0.43), 0.09));
        }
        Eyes::Sunglasses => {
            let lens = |p: Point| rounded_box(p.folded(), at(0.33, 0.02), 0.27, 0.21, 0.12);
            let bridge = |p: Point| rounded_box(p, at(0.0, -0.12), 0.62, 0.06, 0.04);
            canvas.fill(around(at(0.0, 0.0), 0.72, 0.32), INK, |p| (lens(p) - line_width).min(bridge(p)));
            canvas.fill(around(at(0.0, 0.0), 0.62, 0.25), hex(0x343a63), lens);
            let glint = |p: Point| {
                capsule(p, at(-0.42, 0.08), at(-0.3, -0.08), 0.045).min(capsule(
                    p,
                    at(0.24, 0.08),
                    at(0.36, -0.08),
                    0.045,
                ))
            };
            canvas.fill(around(at(0.0, 0.0), 0.5, 0.2), hex(0xc9d4ff), glint);
            smile(canvas, at(0.0, 0.36), 0.22, line_width);
        }
    }
}

/// Draws rosy cheeks where the body is; the frame's origin lies between the eyes.
pub fn blush(canvas: &mut Canvas, body: impl Fn(Point) -> f32) {
    let brush = canvas.brush();
    canvas.paint(around(at(0.0, 0.33), 0.7, 0.16), |p| {
        (BLUSH, 0.7 * brush.coverage(circle(p.folded(), at(0.53, 0.33), 0.12).max(body(p))))
    });
}

fn pair_of_eyes(canvas: &mut Canvas, line_width: f32) {
    canvas.outlined(around(at(0.0, 0.0), 0.6, 0.28), EYE_WHITE, INK, line_width, |p| {
        circle(p.folded(), at(0.31, 0.0), 0.25)
    });
    canvas.fill(around(at(0.0, 0.03), 0.46, 0.18), PUPIL, |p| circle(p.folded(), at(0.28, 0.03), 0.15));
    canvas.fill(around(at(-0.04, -0.04), 0.4, 0.1), EYE_WHITE, |p| {
        circle(p, at(-0.33, -0.03), 0.055).min(circle(p, at(0.23, -0.03), 0.055))
    });
}

/// A closed mouth: the lower part of a circle.
fn smile(canvas: &mut Canvas, middle: Point, width: f32, line_width: f32) {
    let half_line = 0.5 * line_width + 0.01;
    let centre = at(middle.x, middle.y - width * 0.4);
    canvas.fill(around(middle, width + 0.1, width + 0.1), INK, |p| {
        (circle(p, centre, width).abs() - half_line).max(middle.y - width * 0.1 - p.y)
    });
}

/// An open mouth with a tongue.
fn laugh(canvas: &mut Canvas, top: Point, width: f32, line_width: f32) {
    let mouth = |p: Point| circle(p, top, width).max(top.y - p.y);
    canvas.outlined(around(top, width, width), hex(0x8c1f45), INK, 0.7 * line_width, mouth);
    canvas.fill(around(top, width, width), hex(0xff7d90), |p| {
        mouth(p).max(circle(p, at(top.x, top.y + width), width * 0.55))
    });
}
