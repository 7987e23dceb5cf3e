//! The other places: built, sunken, sweet and far away. `shift` runs from -1 to 1 and moves things by a few units.

use super::background::{disc, dots, ground, hill, sky};
use super::raster::{Canvas, Point, around, at, hex};
use super::shape::{capsule, circle, ellipse, rounded_box};

pub fn city(canvas: &mut Canvas, shift: f32) {
    sky(canvas, hex(0xb9b6ee), hex(0xffd9cf), 44.0);
    let towers = [
        (6.0, 20.0, 7.0),
        (21.0, 10.0, 7.0),
        (36.0, 22.0, 7.0),
        (50.0, 14.0, 6.5),
        (64.0, 24.0, 6.5),
        (-8.0, 28.0, 6.0),
    ];
    for (i, (x, top, half)) in towers.into_iter().enumerate() {
        let x = x + 3.0 * shift;
        let colour = if i % 2 == 0 { hex(0x7a83b5) } else { hex(0x5f6a9e) };
        let body = around(at(x, 0.5 * (top + 48.0)), half, 0.5 * (48.0 - top));
        canvas.fill(body, colour, |p| rounded_box(p, at(x, 0.5 * (top + 50.0)), half, 0.5 * (50.0 - top), 0.5));
        canvas.fill(body, hex(0xffe68a), |p| {
            let row = ((p.y - top - 4.0) / 6.5).round().max(0.0);
            rounded_box(at((p.x - x).abs(), p.y - top - 4.0 - 6.5 * row), at(3.2, 0.0), 1.5, 1.7, 0.2)
        });
    }
    ground(canvas, 46.0, hex(0xc9c6cf));
    ground(canvas, 49.5, hex(0x6b6a7c));
    canvas.fill(around(at(32.0, 60.5), 40.0, 1.2), hex(0xf3efdc), |p| {
        let x = (p.x - 3.0 * shift + 64.0) % 16.0 - 8.0;
        rounded_box(at(x, p.y), at(0.0, 60.5), 4.5, 1.1, 0.3)
    });
}

pub fn sea(canvas: &mut Canvas, shift: f32) {
    sky(canvas, hex(0x6fdcf2), hex(0x1c62b0), 56.0);
    for x in [10.0, 30.0, 52.0] {
        let x = x + 4.0 * shift;
        canvas.paint(around(at(x - 5.0, 20.0), 14.0, 22.0), |p| {
            let width = 3.0 + p.y * 0.06;
            let across = (p.x - x + p.y * 0.3).abs() - width;
            (hex(0xffffff), 0.2 * (0.5 - across).clamp(0.0, 1.0) * (1.0 - p.y / 42.0).clamp(0.0, 1.0))
        });
    }
    ground(canvas, 52.0, hex(0xcdb878));
    hill(canvas, 22.0 + 4.0 * shift, 48.0, 50.0, 20.0, hex(0xe3d196));
    for (x, top) in [(4.0, 26.0), (10.0, 34.0), (60.0, 30.0)] {
        let x = x + 2.0 * shift;
        canvas.fill(around(at(x, 0.5 * (top + 54.0)), 4.5, 0.5 * (54.0 - top) + 2.0), hex(0x2f9e6a), |p| {
            // A zigzag made smooth by its thickness: it sways once every twelve units.
            let sway = (((p.y - top) / 12.0).fract() - 0.5).abs() * 6.0 - 1.5;
            capsule(at(p.x - sway, p.y), at(x, top + 1.0), at(x, 54.0), 2.0)
        });
    }
    let coral = |p: Point| {
        let q = at(p.x - 52.0 - 2.0 * shift, p.y);
        let arms =
            capsule(q.folded(), at(0.0, 50.0), at(4.5, 43.0), 1.7).min(capsule(q, at(0.0, 54.0), at(0.0, 41.0), 1.8));
        arms.min(capsule(q.folded(), at(4.5, 43.0), at(4.5, 40.0), 1.6))
    };
    canvas.fill(around(at(52.0 + 2.0 * shift, 47.0), 8.0, 10.0), hex(0xff7f9d), coral);
    let bubbles = [at(18.0, 12.0), at(22.0, 24.0), at(45.0, 9.0), at(40.0, 20.0), at(56.0, 20.0)];
    dots(canvas, &bubbles, 2.0 * shift, 2.2, hex(0xc9f4ff));
    dots(canvas, &bubbles, 2.0 * shift, 1.3, hex(0x63bfe6));
}

pub fn room(canvas: &mut Canvas, shift: f32) {
    sky(canvas, hex(0xf8dfb6), hex(0xf8dfb6), 46.0);
    for stripe in 0..5 {
        let x = 5.0 + 13.5 * stripe as f32;
        canvas.fill(around(at(x, 22.0), 2.5, 24.0), hex(0xf2d2a2), |p| rounded_box(p, at(x, 20.0), 2.4, 30.0, 0.0));
    }
    let x = 15.0 + 3.0 * shift;
    canvas.fill(around(at(x, 16.0), 11.0, 12.0), hex(0xfffaf0), |p| rounded_box(p, at(x, 16.0), 10.5, 11.5, 1.0));
    canvas.fill(around(at(x, 16.0), 9.0, 10.0), hex(0x8fd3f7), |p| {
        rounded_box(at((p.x - x).abs(), (p.y - 16.0).abs()), at(4.6, 5.1), 3.7, 4.2, 0.3)
    });
    let x = 50.0 + 2.0 * shift;
    canvas.fill(around(at(x, 14.0), 8.0, 7.0), hex(0x9a5f3c), |p| rounded_box(p, at(x, 14.0), 7.5, 6.5, 0.6));
    canvas.fill(around(at(x, 14.0), 6.0, 5.0), hex(0xf7f0dc), |p| rounded_box(p, at(x, 14.0), 5.7, 4.7, 0.2));
    canvas.fill(around(at(x, 16.0), 6.0, 3.0), hex(0x7fc27a), |p| {
        ellipse(p, at(x - 1.0, 19.0), 6.0, 5.0).max(rounded_box(p, at(x, 14.0), 5.7, 4.7, 0.2))
    });
    ground(canvas, 43.0, hex(0xfffaf0));
    ground(canvas, 45.5, hex(0xc58a57));
    for y in [51.0, 57.0] {
        canvas.fill(around(at(32.0, y), 64.0, 0.6), hex(0xa9713f), |p| (p.y - y).abs() - 0.5);
    }
    canvas.fill(around(at(32.0, 58.0), 26.0, 5.0), hex(0xd9546a), |p| ellipse(p, at(32.0, 57.5), 25.0, 4.8));
    canvas.fill(around(at(32.0, 58.0), 26.0, 5.0), hex(0xf3a0a0), |p| ellipse(p, at(32.0, 57.5), 19.0, 3.2));
}

pub fn candy(canvas: &mut Canvas, shift: f32) {
    sky(canvas, hex(0xffb7dc), hex(0xffeaf4), 42.0);
    for (x, y, radius, colour) in [(9.0, 17.0, 8.5, 0xf25c8a), (55.0, 22.0, 7.5, 0x56c7d9), (30.0, 11.0, 6.0, 0xffb445)]
    {
        let x = x + 2.5 * shift;
        canvas.fill(around(at(x, y + 20.0), 1.0, 20.0), hex(0xffffff), |p| {
            rounded_box(p, at(x, y + 18.0), 0.9, 18.0, 0.4)
        });
        disc(canvas, x, y, radius, hex(colour));
        canvas.fill(around(at(x, y), radius, radius), hex(0xffffff), |p| {
            (circle(p, at(x, y), 0.56 * radius)).abs() - 0.11 * radius
        });
        disc(canvas, x, y, 0.2 * radius, hex(0xffffff));
    }
    hill(canvas, 12.0 + 3.0 * shift, 37.0, 28.0, 30.0, hex(0xc9a6f0));
    hill(canvas, 52.0 + 3.0 * shift, 39.0, 28.0, 30.0, hex(0xc9a6f0));
    hill(canvas, 32.0, 44.0, 70.0, 40.0, hex(0xa8ecd2));
    let drips = |p: Point| {
        let x = (p.x - 2.0 * shift + 72.0) % 12.0 - 6.0;
        capsule(at(x, p.y), at(0.0, 0.0), at(0.0, 3.5), 3.0).min(p.y - 2.5)
    };
    canvas.fill(around(at(32.0, 2.0), 64.0, 6.0), hex(0xfff6f0), drips);
    let sprinkles = [at(8.0, 52.0), at(24.0, 48.5), at(42.0, 61.0), at(57.0, 51.0), at(17.0, 61.0)];
    dots(canvas, &sprinkles, 2.0 * shift, 1.5, hex(0xff7fb0));
}

pub fn moon(canvas: &mut Canvas, shift: f32) {
    sky(canvas, hex(0x0d0b1f), hex(0x2a2150), 50.0);
    let stars =
        [at(5.0, 16.0), at(13.0, 5.0), at(28.0, 12.0), at(38.0, 4.0), at(60.0, 7.0), at(58.0, 34.0), at(5.0, 36.0)];
    dots(canvas, &stars, 2.0 * shift, 0.9, hex(0xffffff));
    let planet = at(47.0 + 3.0 * shift, 18.0);
    let ring = |p: Point| {
        let q = at(p.x - planet.x, p.y - planet.y + 0.3 * (p.x - planet.x));
        ellipse(q, at(0.0, 0.0), 15.0, 3.6).abs() - 0.9
    };
    let bounds = around(planet, 17.0, 12.0);
    canvas.fill(bounds, hex(0xd9b3ff), ring);
    disc(canvas, planet.x, planet.y, 8.5, hex(0xf08a4b));
    canvas.fill(bounds, hex(0xffb26e), |p| circle(p, planet, 8.5).max((p.y - planet.y + 2.0).abs() - 1.6));
    canvas.fill(bounds, hex(0xd9b3ff), |p| ring(p).max(planet.y - 0.3 * (p.x - planet.x) - p.y));
    hill(canvas, 32.0, 41.0, 66.0, 34.0, hex(0xb4b6c6));
    for (x, y, half) in [(8.0, 51.0, 5.0), (55.0, 49.5, 5.5), (33.0, 47.0, 4.0), (46.0, 61.0, 5.0), (16.0, 61.5, 4.5)] {
        let x = x + 2.0 * shift;
        canvas.fill(around(at(x, y), half, 2.0), hex(0x8d8fa6), |p| ellipse(p, at(x, y), half, 1.7));
    }
}
