//! Silhouettes, coats and feet. A body fills about -1..1 in both directions; feet end at y = 1.

use super::creature::{Body, Colour, Creature, Pattern};
use super::raster::{Canvas, Point, Rgb, around, at, hex, mix};
use super::shape::{capsule, circle, ellipse, heart, melted, polygon, rounded_box, star};

/// Where the parts of a body are.
#[derive(Clone, Copy, Debug)]
pub struct Anatomy {
    /// Where a topping sits.
    pub head: Point,
    /// Where horns and antennas grow, behind the body.
    pub crest: Point,
    /// The topping's size; 1 suits a body of full width.
    pub head_size: f32,
    /// The middle between the eyes.
    pub face: Point,
    /// The face's size; 1 suits a body of full width.
    pub face_size: f32,
    /// Distance of each foot from the middle, if there are feet.
    pub feet: Option<f32>,
    /// The middle of the shine.
    pub shine: Point,
}

/// The line around everything on a creature.
pub const INK: Rgb = hex(0x2a1f3a);

impl Colour {
    /// How the colour is painted.
    pub const fn rgb(self) -> Rgb {
        hex(match self {
            Colour::Red => 0xe53541,
            Colour::Orange => 0xff8f1f,
            Colour::Yellow => 0xffdd3c,
            Colour::Green => 0x5cb83c,
            Colour::Teal => 0x2fd0c4,
            Colour::Blue => 0x2f6be8,
            Colour::Purple => 0x8f4fd6,
            Colour::Pink => 0xff8cc6,
            Colour::Brown => 0x8a5532,
            Colour::White => 0xfaf8f2,
        })
    }
}

impl Body {
    /// Where the parts of this body are.
    pub const fn anatomy(self) -> Anatomy {
        let usual = Anatomy {
            head: at(0.0, -0.9),
            crest: at(0.0, -0.9),
            head_size: 1.0,
            face: at(0.0, -0.12),
            face_size: 1.0,
            feet: Some(0.38),
            shine: at(-0.5, -0.5),
        };
        match self {
            Body::Ball => usual,
            Body::Ghost => Anatomy { face: at(0.0, -0.2), feet: None, shine: at(-0.42, -0.55), ..usual },
            Body::Box => Anatomy { head: at(0.0, -0.8), crest: at(0.0, -0.86), shine: at(-0.5, -0.52), ..usual },
            Body::Star => Anatomy {
                head: at(0.0, -0.78),
                crest: at(0.0, -0.72),
                head_size: 0.8,
                face: at(0.0, -0.06),
                face_size: 0.78,
                feet: None,
                shine: at(-0.2, -0.42),
            },
            Body::Mushroom => Anatomy { face: at(0.0, 0.22), face_size: 0.85, shine: at(-0.45, -0.48), ..usual },
            Body::Cat => Anatomy {
                head: at(0.0, -0.56),
                crest: at(0.0, -0.76),
                face: at(0.0, 0.0),
                shine: at(-0.55, -0.22),
                ..usual
            },
            Body::Heart => {
                Anatomy { head: at(0.0, -0.55), crest: at(0.0, -0.8), feet: None, shine: at(-0.56, -0.5), ..usual }
            }
            Body::Cloud => Anatomy {
                head: at(0.1, -0.62),
                crest: at(0.0, -0.6),
                face: at(0.0, 0.06),
                feet: None,
                shine: at(-0.45, -0.2),
                ..usual
            },
            Body::Cactus => Anatomy {
                head: at(0.0, -0.92),
                crest: at(0.0, -0.9),
                head_size: 0.85,
                face: at(0.0, -0.32),
                face_size: 0.8,
                feet: Some(0.24),
                shine: at(-0.24, -0.68),
            },
            Body::Fish => Anatomy {
                head: at(-0.2, -0.66),
                crest: at(-0.2, -0.72),
                head_size: 0.9,
                face: at(-0.26, -0.06),
                face_size: 0.92,
                feet: Some(0.3),
                shine: at(-0.62, -0.36),
            },
        }
    }

    /// Signed distance to the silhouette, without feet.
    pub fn distance(self, p: Point) -> f32 {
        let q = p.folded();
        match self {
            Body::Ball => circle(p, at(0.0, -0.02), 0.9),
            Body::Ghost => {
                let dome = circle(p, at(0.0, -0.2), 0.74).min(rounded_box(p, at(0.0, 0.2), 0.74, 0.46, 0.08));
                let hem = circle(q, at(0.5, 0.7), 0.24).min(circle(p, at(0.0, 0.7), 0.24));
                let arms = capsule(q, at(0.6, 0.22), at(0.84, 0.14), 0.13);
                melted(dome.min(hem), arms, 0.1)
            }
            Body::Box => rounded_box(p, at(0.0, 0.02), 0.82, 0.84, 0.16),
            Body::Star => star(at(p.x, p.y - 0.06), 0.92, 0.62) - 0.12,
            Body::Mushroom => {
                let stem = rounded_box(p, at(0.0, 0.35), 0.6, 0.57, 0.28);
                let cap = ellipse(p, at(0.0, -0.1), 1.02, 0.84).max(p.y + 0.02 - 0.06 * q.x);
                stem.min(cap)
            }
            Body::Cat => {
                let ear = polygon(q, &[at(0.2, -0.5), at(0.72, -0.9), at(0.82, -0.05)]) - 0.07;
                melted(ellipse(p, at(0.0, 0.18), 0.94, 0.74), ear, 0.08)
            }
            Body::Heart => heart(at(p.x / 1.6, (p.y - 0.96) / 1.6)) * 1.6 - 0.05,
            Body::Cloud => {
                let sides = circle(q, at(0.63, 0.36), 0.4).min(rounded_box(p, at(0.0, 0.46), 0.7, 0.3, 0.28));
                let top = circle(p, at(-0.38, -0.02), 0.46).min(circle(p, at(0.28, -0.12), 0.56));
                sides.min(top)
            }
            Body::Cactus => {
                let arm = |from: f32, to: f32, x: f32| {
                    capsule(p, at(0.5 * x, from), at(x, from), 0.16).min(capsule(p, at(x, from), at(x, to), 0.19))
                };
                let arms = arm(0.38, -0.2, -0.8).min(arm(0.2, -0.5, 0.8));
                melted(capsule(p, at(0.0, -0.44), at(0.0, 0.5), 0.46), arms, 0.08)
            }
            Body::Fish => {
                let q = at(p.x, (p.y - 0.06).abs());
                let tail = polygon(q, &[at(0.36, 0.0), at(0.98, 0.56), at(0.82, 0.0)]) - 0.06;
                let fin = polygon(p, &[at(-0.1, -0.5), at(0.46, -0.82), at(0.42, -0.2)]) - 0.05;
                melted(ellipse(p, at(-0.2, 0.08), 0.78, 0.74), tail.min(fin), 0.1)
            }
        }
    }
}

impl Pattern {
    /// Signed distance to what the second colour covers.
    fn distance(self, p: Point) -> f32 {
        // Less than half each, so that main and second colour can be told apart.
        match self {
            Pattern::Plain => f32::MAX,
            Pattern::Stripes => wave(p.y + 0.03, 0.28) + 0.04,
            Pattern::Spots => {
                // Staggered rows: shifting every other row by half a step keeps neighbours apart.
                let row = (p.y / 0.46).round();
                let shift = if row.rem_euclid(2.0) == 1.0 { 0.31 } else { 0.0 };
                let x = (p.x - shift) - ((p.x - shift) / 0.62).round() * 0.62;
                at(x, p.y - row * 0.46).length() - 0.17
            }
            Pattern::Checks => {
                let (x, y) = (wave(p.x, 0.44), wave(p.y + 0.09, 0.44));
                let near = x.abs().min(y.abs());
                (if (x < 0.0) == (y < 0.0) { -near } else { near }) + 0.02
            }
            Pattern::Pants => 0.42 - p.y + 0.12 * (1.0 - p.x.abs()).max(0.0),
        }
    }
}

/// Draws feet and body: outline, coat, a darker rim below right and a shine above left.
pub fn draw(canvas: &mut Canvas, creature: &Creature, line_width: f32) {
    let (body, main) = (creature.body, creature.colour.rgb());
    let anatomy = body.anatomy();
    let line = mix(INK, main, 0.12);
    if let Some(spread) = anatomy.feet {
        let shade =
            mix(creature.second.filter(|_| creature.pattern == Pattern::Pants).map_or(main, Colour::rgb), INK, 0.3);
        let foot = move |p: Point| ellipse(p.folded(), at(spread, 0.87), 0.24, 0.14);
        canvas.outlined(around(at(0.0, 0.87), spread + 0.3, 0.16), shade, line, line_width, foot);
    }
    let brush = canvas.brush();
    canvas.paint(around(at(0.0, 0.0), 1.25, 1.25), |p| {
        let d = body.distance(p);
        let opacity = brush.coverage(d - line_width);
        if opacity == 0.0 {
            return (line, 0.0);
        }
        let mut colour = coat(creature, p, |d| brush.coverage(d));
        let rim = body.distance(at(p.x + 0.12, p.y + 0.17));
        colour = mix(colour, hex(0x35206a), 0.22 * brush.coverage(-rim));
        let shine = ellipse(p, anatomy.shine, 0.17, 0.13);
        colour = mix(colour, hex(0xffffff), 0.6 * brush.coverage(shine));
        (mix(line, colour, brush.coverage(d)), opacity)
    });
    if body == Body::Cat {
        let ear = |p: Point| polygon(p.folded(), &[at(0.42, -0.5), at(0.68, -0.72), at(0.72, -0.32)]);
        canvas.fill(around(at(0.0, -0.5), 0.9, 0.4), mix(main, hex(0xff5f8f), 0.55), ear);
    }
}

/// The coat's colour at a place.
fn coat(creature: &Creature, p: Point, coverage: impl Fn(f32) -> f32) -> Rgb {
    let main = creature.colour.rgb();
    let stem = if creature.body == Body::Mushroom { coverage(0.04 + 0.06 * p.x.abs() - p.y) } else { 0.0 };
    let ground = mix(main, hex(0xfff3dc), 0.72 * stem);
    let Some(second) = creature.second else { return ground };
    let amount = coverage(creature.pattern.distance(p));
    // A mushroom's pattern is its cap's; only pants reach the stem.
    let amount = if creature.pattern == Pattern::Pants { amount } else { amount * (1.0 - stem) };
    mix(ground, second.rgb(), amount)
}

/// Distance to bands as wide as the gaps between them: a full period is twice `width`, a band lies around 0.
fn wave(v: f32, width: f32) -> f32 {
    let period = 2.0 * width;
    (v - (v / period).round() * period).abs() - width * 0.5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_stay_in_their_box_and_carry_their_parts() {
        for &body in Body::ALL {
            let anatomy = body.anatomy();
            assert!(body.distance(anatomy.face) < -0.2, "{body:?}: the face is off the body");
            assert!(body.distance(at(anatomy.head.x, anatomy.head.y + 0.15)) < 0.0, "{body:?}: the topping floats");
            assert!(body.distance(anatomy.shine) < -0.1, "{body:?}: the shine is off the body");
            for i in -20..=20 {
                let v = i as f32 / 20.0 * 1.2;
                for edge in [at(-1.09, v), at(1.09, v), at(v, -1.09), at(v, 1.05)] {
                    assert!(body.distance(edge) > 0.0, "{body:?} reaches {edge:?}");
                }
            }
        }
    }

    #[test]
    fn silhouettes_differ() {
        let mask = |body: Body| -> Vec<bool> {
            let place = |i: usize| at((i % 28) as f32 / 13.5 - 1.0, (i / 28) as f32 / 13.5 - 1.0);
            (0..28 * 28).map(|i| body.distance(place(i)) < 0.0).collect()
        };
        for (i, &a) in Body::ALL.iter().enumerate() {
            for &b in &Body::ALL[..i] {
                let differing = mask(a).iter().zip(mask(b)).filter(|(x, y)| **x != *y).count();
                assert!(differing > 70, "{a:?} and {b:?} differ in {differing} of 784 pixels");
            }
        }
    }
}
