//! The natural places. `shift` runs from -1 to 1 and moves things by a few units.

use super::background::{disc, dots, ground, hill, sky};
use super::raster::{Canvas, Point, Rgb, around, at, hex};
use super::shape::{capsule, circle, ellipse, polygon, rounded_box};

pub fn beach(canvas: &mut Canvas, shift: f32) {
    sky(canvas, hex(0x74cdf7), hex(0xd3f2fd), 30.0);
    disc(canvas, 12.0 + 3.0 * shift, 11.0, 6.0, hex(0xfff1a1));
    ground(canvas, 29.0, hex(0x2f9bd9));
    ground(canvas, 34.0, hex(0x4fb8e6));
    canvas.fill(around(at(32.0, 48.0), 60.0, 11.0), hex(0xf3fbff), |p| ellipse(p, at(28.0, 64.0), 70.0, 25.5));
    canvas.fill(around(at(32.0, 52.0), 60.0, 13.0), hex(0xf6dc9c), |p| ellipse(p, at(28.0, 65.0), 70.0, 25.0));
    let x = 55.0 + 2.0 * shift;
    let trunk = |p: Point| {
        capsule(p, at(x + 3.0, 46.0), at(x + 1.5, 30.0), 1.6).min(capsule(p, at(x + 1.5, 30.0), at(x - 1.0, 17.0), 1.4))
    };
    canvas.fill(around(at(x, 31.0), 6.0, 17.0), hex(0xa8713f), trunk);
    let leaves = |p: Point| {
        let q = at(p.x - x + 1.0, p.y - 16.0);
        let f = at(q.x.abs(), q.y);
        let side = ellipse(f, at(6.0, 0.5), 6.5, 2.2).min(capsule(f, at(2.0, 1.0), at(9.0, 6.5), 1.8));
        side.min(capsule(f, at(1.0, 0.0), at(5.0, -5.0), 1.8))
    };
    canvas.fill(around(at(x - 1.0, 16.0), 13.0, 9.0), hex(0x3da35d), leaves);
}

pub fn forest(canvas: &mut Canvas, shift: f32) {
    sky(canvas, hex(0x8fcf9a), hex(0xd2efc0), 40.0);
    for (x, top) in [(8.0, 20.0), (22.0, 16.0), (40.0, 18.0), (56.0, 15.0)] {
        fir(canvas, x - 2.0 * shift, top, 11.0, 46.0, hex(0x6bb583));
    }
    ground(canvas, 43.0, hex(0x5f9e4a));
    for x in [5.0, 59.0] {
        let x = x + 2.5 * shift;
        canvas.fill(around(at(x, 30.0), 4.0, 20.0), hex(0x7a4c30), |p| rounded_box(p, at(x, 30.0), 3.0, 19.0, 1.0));
    }
    let canopy = |p: Point| {
        let q = at((p.x - 3.0 * shift + 64.0) % 16.0 - 8.0, p.y);
        circle(q, at(0.0, 6.0), 9.5).min(6.0 - (9.0 - p.y).min(12.0))
    };
    canvas.fill(around(at(32.0, 6.0), 40.0, 11.0), hex(0x2c7048), canopy);
    for x in [4.0, 60.0] {
        disc(canvas, x + 2.5 * shift, 15.0, 10.0, hex(0x2c7048));
    }
    hill(canvas, 32.0 + 4.0 * shift, 50.0, 60.0, 16.0, hex(0x77b858));
}

/// A fir of three tiers.
fn fir(canvas: &mut Canvas, x: f32, top: f32, half_width: f32, bottom: f32, colour: Rgb) {
    let height = bottom - top;
    let tier = |p: Point, from: f32, to: f32, width: f32| {
        polygon(
            p,
            &[
                at(x, top + from * height),
                at(x - width * half_width, top + to * height),
                at(x + width * half_width, top + to * height),
            ],
        )
    };
    let tiers = |p: Point| tier(p, 0.0, 0.42, 0.6).min(tier(p, 0.2, 0.7, 0.8)).min(tier(p, 0.45, 1.0, 1.0));
    canvas.fill(around(at(x, top + 0.5 * height), half_width, 0.5 * height), colour, tiers);
}

pub fn snow(canvas: &mut Canvas, shift: f32) {
    sky(canvas, hex(0x9fc6ea), hex(0xdcecf8), 40.0);
    hill(canvas, 14.0 + 3.0 * shift, 34.0, 34.0, 24.0, hex(0xcfe0f2));
    for (x, top) in [(51.0, 14.0), (60.0, 22.0)] {
        fir(canvas, x + 2.0 * shift, top, 9.0, 44.0, hex(0x3f7f78));
        fir(canvas, x + 2.0 * shift, top, 4.5, top + 13.0, hex(0xf7fbff));
    }
    hill(canvas, 36.0 - 3.0 * shift, 41.0, 62.0, 40.0, hex(0xf7fbff));
    let flakes = [
        at(6.0, 6.0),
        at(17.0, 16.0),
        at(27.0, 5.0),
        at(38.0, 13.0),
        at(47.0, 4.0),
        at(9.0, 27.0),
        at(30.0, 26.0),
        at(58.0, 9.0),
    ];
    dots(canvas, &flakes, 2.0 * shift, 1.3, hex(0xffffff));
}

pub fn night(canvas: &mut Canvas, shift: f32) {
    sky(canvas, hex(0x161d52), hex(0x3d4fa3), 46.0);
    let x = 49.0 + 3.0 * shift;
    disc(canvas, x, 13.0, 9.5, hex(0x39468f));
    disc(canvas, x, 13.0, 7.0, hex(0xfff4c4));
    disc(canvas, x + 3.0, 11.5, 1.6, hex(0xeadba0));
    disc(canvas, x - 2.0, 15.5, 1.2, hex(0xeadba0));
    let stars = [at(6.0, 8.0), at(16.0, 19.0), at(23.0, 6.0), at(33.0, 14.0), at(8.0, 31.0), at(58.0, 29.0)];
    dots(canvas, &stars, 2.0 * shift, 1.0, hex(0xfff6d0));
    hill(canvas, 10.0 + 3.0 * shift, 37.0, 32.0, 20.0, hex(0x2b3a78));
    hill(canvas, 54.0 + 3.0 * shift, 39.0, 30.0, 20.0, hex(0x2b3a78));
    hill(canvas, 32.0, 45.0, 64.0, 30.0, hex(0x3f6a82));
}

pub fn desert(canvas: &mut Canvas, shift: f32) {
    sky(canvas, hex(0xffb95c), hex(0xffecb8), 42.0);
    disc(canvas, 52.0 - 3.0 * shift, 11.0, 6.5, hex(0xfff7cf));
    for (x, top, half) in [(45.0, 24.0, 16.0), (17.0, 16.0, 22.0)] {
        let x = x + 3.0 * shift;
        let corners = [at(x, top), at(x - half, 46.0), at(x + half, 46.0)];
        let shade = [at(x, top), at(x + 0.25 * half, 46.0), at(x + half, 46.0)];
        canvas.fill(around(at(x, 31.0), half, 16.0), hex(0xe3a754), |p| polygon(p, &corners));
        canvas.fill(around(at(x, 31.0), half, 16.0), hex(0xc58742), |p| polygon(p, &shade));
    }
    hill(canvas, 50.0, 40.0, 50.0, 30.0, hex(0xf0c272));
    hill(canvas, 14.0 + 4.0 * shift, 44.0, 54.0, 30.0, hex(0xf7d188));
}

pub fn meadow(canvas: &mut Canvas, shift: f32) {
    sky(canvas, hex(0x7cc8ff), hex(0xd8f1ff), 40.0);
    let centre = at(30.0 + 3.0 * shift, 42.0);
    for (radius, colour) in [(32.0, 0xff8a80), (28.5, 0xffd76e), (25.0, 0x8fdc8a), (21.5, 0x86b6ff)] {
        canvas.fill(around(centre, radius, radius), hex(colour), |p| (circle(p, centre, radius - 1.75).abs()) - 1.75);
    }
    hill(canvas, 8.0 - 3.0 * shift, 37.0, 34.0, 24.0, hex(0x6cc24a));
    hill(canvas, 52.0 - 3.0 * shift, 35.0, 30.0, 24.0, hex(0x6cc24a));
    hill(canvas, 32.0, 43.0, 66.0, 34.0, hex(0x8fdb57));
    let flowers = [at(6.0, 51.0), at(58.0, 50.0), at(22.0, 48.5), at(45.0, 60.5), at(12.0, 61.0)];
    dots(canvas, &flowers, 2.0 * shift, 2.0, hex(0xffffff));
    dots(canvas, &flowers, 2.0 * shift, 0.9, hex(0xffc928));
}

pub fn volcano(canvas: &mut Canvas, shift: f32) {
    sky(canvas, hex(0x45203f), hex(0xd9603f), 44.0);
    let x = 34.0 + 4.0 * shift;
    for (dx, y, radius) in [(-6.0, 6.0, 5.0), (2.0, 3.0, 6.5), (9.0, 7.0, 5.0)] {
        disc(canvas, x + dx, y, radius, hex(0x6d4a5c));
    }
    let mountain = [at(x - 7.0, 15.0), at(x + 7.0, 15.0), at(x + 29.0, 47.0), at(x - 29.0, 47.0)];
    canvas.fill(around(at(x, 31.0), 29.0, 17.0), hex(0x4a2f3d), |p| polygon(p, &mountain));
    let lava = |p: Point| {
        let streams = capsule(p, at(x - 3.0, 17.0), at(x - 10.0, 38.0), 1.9).min(capsule(
            p,
            at(x + 3.0, 17.0),
            at(x + 13.0, 42.0),
            1.9,
        ));
        streams.min(capsule(p, at(x, 16.0), at(x + 1.0, 30.0), 1.9)).min(rounded_box(p, at(x, 15.5), 7.5, 2.0, 1.8))
    };
    canvas.fill(around(at(x, 29.0), 17.0, 17.0), hex(0xff8a1f), lava);
    ground(canvas, 44.0, hex(0x7a4a48));
    canvas.fill(around(at(x, 61.5), 64.0, 3.5), hex(0xff8a1f), |p| ellipse(p, at(x, 65.0), 46.0, 4.5));
}
