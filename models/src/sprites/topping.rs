//! What creatures wear, around the point where it sits on the head, about 1 wide.

use super::body::INK;
use super::creature::Topping;
use super::raster::{Canvas, Point, around, at, hex};
use super::shape::{capsule, circle, ellipse, polygon, rounded_box};

/// Draws what grows out of the head, before the body: horns and antennas.
pub fn draw_behind(canvas: &mut Canvas, topping: Topping, line_width: f32) {
    match topping {
        Topping::Horns => {
            let horn = |p: Point| {
                let q = p.folded();
                polygon(
                    q,
                    &[
                        at(0.22, 0.25),
                        at(0.3, -0.12),
                        at(0.52, -0.28),
                        at(0.62, -0.52),
                        at(0.78, -0.2),
                        at(0.74, 0.1),
                        at(0.6, 0.4),
                    ],
                ) - 0.03
            };
            canvas.outlined(around(at(0.0, -0.06), 0.82, 0.52), hex(0xfff0cf), INK, line_width, horn);
        }
        Topping::Antennas => {
            let stalk = |p: Point| capsule(p.folded(), at(0.16, 0.2), at(0.42, -0.32), 0.035);
            canvas.outlined(around(at(0.0, -0.1), 0.5, 0.4), INK, INK, line_width * 0.6, stalk);
            let end = |p: Point| circle(p.folded(), at(0.44, -0.38), 0.16);
            canvas.outlined(around(at(0.0, -0.38), 0.62, 0.18), hex(0xc8ff4d), INK, line_width, end);
        }
        _ => {}
    }
}

/// Draws what is put on the head, after the body.
pub fn draw_on_top(canvas: &mut Canvas, topping: Topping, line_width: f32) {
    match topping {
        Topping::Crown => {
            let crown = |p: Point| {
                let q = p.folded();
                polygon(
                    q,
                    &[at(-0.1, 0.12), at(0.44, 0.12), at(0.52, -0.4), at(0.25, -0.16), at(0.0, -0.5), at(-0.1, -0.3)],
                ) - 0.02
            };
            canvas.outlined(around(at(0.0, -0.2), 0.6, 0.4), hex(0xffcf24), INK, line_width, crown);
            canvas.fill(around(at(0.0, -0.05), 0.12, 0.12), hex(0xe8294a), |p| circle(p, at(0.0, -0.05), 0.1));
        }
        Topping::Hat => {
            let hat = |p: Point| {
                rounded_box(p, at(0.0, -0.28), 0.36, 0.34, 0.06).min(rounded_box(p, at(0.0, 0.05), 0.62, 0.09, 0.08))
            };
            canvas.outlined(around(at(0.0, -0.25), 0.64, 0.42), hex(0x4a4763), INK, line_width, hat);
            canvas.fill(around(at(0.0, -0.1), 0.36, 0.1), hex(0xe8385a), |p| {
                rounded_box(p, at(0.0, -0.11), 0.36, 0.08, 0.0)
            });
        }
        Topping::Bow => {
            let loops = |p: Point| polygon(p.folded(), &[at(0.0, -0.08), at(0.5, -0.38), at(0.56, 0.2)]) - 0.06;
            canvas.outlined(around(at(0.0, -0.08), 0.64, 0.4), hex(0xf0309a), INK, line_width, loops);
            canvas.outlined(around(at(0.0, -0.08), 0.2, 0.2), hex(0xff7cc4), INK, line_width * 0.8, |p| {
                circle(p, at(0.0, -0.08), 0.13)
            });
        }
        Topping::Flower => {
            let petals = |p: Point| {
                let q = at(p.x.abs(), p.y + 0.2);
                circle(q, at(0.0, -0.27), 0.17).min(circle(q, at(0.26, -0.08), 0.17)).min(circle(
                    q,
                    at(0.16, 0.22),
                    0.17,
                ))
            };
            let leaf = |p: Point| ellipse(p.folded(), at(0.36, 0.08), 0.2, 0.1);
            canvas.outlined(around(at(0.0, 0.08), 0.58, 0.12), hex(0x58b84a), INK, line_width, leaf);
            canvas.outlined(around(at(0.0, -0.2), 0.46, 0.46), hex(0xffffff), INK, line_width, petals);
            canvas.fill(around(at(0.0, -0.2), 0.17, 0.17), hex(0xffc21f), |p| circle(p, at(0.0, -0.2), 0.15));
        }
        _ => {}
    }
}
