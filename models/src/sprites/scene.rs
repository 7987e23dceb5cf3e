//! A picture of the world: one to three creatures in a place, and the ways to look at it.

use kosmosg::noise::Rng;
use kosmosg::picture::Picture;

use super::background::{Background, Setting};
use super::creature::{Creature, Split, attribute};
use super::figure::{self, EXTENT, STAND_HEIGHT, Stand};
use super::raster::{Canvas, at, hex, mix};

attribute!(
    /// How the whole picture is made.
    Style {
        /// In full colours.
        Plain = "plain",
        /// In pencil, grey on paper.
        Sketch = "sketch",
        /// In the red light of evening.
        Sunset = "sunset",
    }
);

/// What surrounds a creature in its cut-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backdrop {
    /// Nothing: white.
    White,
    /// What is there in the scene.
    Kept,
}

/// A creature at its place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Actor {
    /// Who it is.
    pub creature: Creature,
    /// What it stands on, if not on the ground.
    pub stand: Option<Stand>,
    /// Its middle, in units from the left; a scene is 64 wide.
    pub x: f32,
    /// Where the ground carries it, in units from the top.
    pub y: f32,
    /// Its height without topping, in units.
    pub height: f32,
}

/// One picture of the world, fully described.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// Where it is.
    pub setting: Setting,
    /// How it is painted.
    pub style: Style,
    /// Who is in it, from left to right; none for an empty place.
    pub actors: Vec<Actor>,
}

/// Width and height of a scene in its own units.
pub const SIDE: f32 = 64.0;

/// The most creatures in a scene.
pub const MAX_ACTORS: usize = 3;

impl Scene {
    /// A random scene: seven in twelve with one creature, four with two, one with three.
    pub fn sample(rng: &mut Rng, split: Split) -> Self {
        let count = match rng.below(12) {
            0..7 => 1,
            7..11 => 2,
            _ => MAX_ACTORS,
        };
        let creatures: Vec<Creature> = (0..count).map(|_| Creature::sample(rng, split)).collect();
        Self::with_creatures(rng, &creatures)
    }

    /// These creatures from left to right in a random place; at most [`MAX_ACTORS`] fit.
    ///
    /// Four scenes in five are in plain style; one creature alone stands on something in a quarter.
    pub fn with_creatures(rng: &mut Rng, creatures: &[Creature]) -> Self {
        let background = *rng.pick(Background::ALL);
        let setting = Setting::sample(rng, background);
        let style = if rng.bool(0.8) { Style::Plain } else { *rng.pick(&Style::ALL[1..]) };
        let (places, sway, height): (&[f32], f32, f32) = match creatures.len() {
            0 | 1 => (&[32.0], 7.0, 32.0),
            2 => (&[16.5, 47.5], 1.0, 26.0),
            _ => (&[11.8, 32.0, 52.2], 0.3, 19.2),
        };
        let stand = creatures.len() == 1 && rng.bool(0.25);
        let stand = stand.then(|| *rng.pick(Stand::ALL));
        let mut around = |middle: f32, reach: f32| middle + reach * (2.0 * rng.uniform() - 1.0) as f32;
        let actors = creatures.iter().zip(places).map(|(&creature, &x)| Actor {
            creature,
            stand,
            x: around(x, sway),
            y: around(58.0, 1.5),
            height: height * around(1.0, 0.04),
        });
        Scene { setting, style, actors: actors.collect() }
    }

    /// The place without anyone, in plain style.
    pub fn empty(setting: Setting) -> Self {
        Scene { setting, style: Style::Plain, actors: Vec::new() }
    }
}

impl Actor {
    /// Half the body's height: the unit in which a creature is drawn.
    fn unit(&self) -> f32 {
        0.5 * self.height
    }

    /// The body's middle, from the top.
    fn middle(&self) -> f32 {
        let stand = if self.stand.is_some() { STAND_HEIGHT } else { 0.0 };
        self.y - (1.0 + stand) * self.unit()
    }

    /// The square that its cut-out shows, moved so that it lies in the scene: left, top and side.
    fn window(&self) -> (f32, f32, f32) {
        let side = window_side() * self.unit();
        let inside = |middle: f32| (middle - 0.5 * side).clamp(0.0, SIDE - side);
        (inside(self.x), inside(self.middle() + 0.5 * (EXTENT.top + EXTENT.bottom) * self.unit()), side)
    }

    fn draw(&self, canvas: &mut Canvas) {
        let (unit, ground) = (self.unit(), at(self.x, self.y - 0.03 * self.unit()));
        canvas.inside(ground, unit, figure::draw_shadow);
        if let Some(stand) = self.stand {
            canvas.inside(ground, unit, |canvas| figure::draw_stand(canvas, stand));
        }
        canvas.inside(at(self.x, self.middle()), unit, |canvas| figure::draw(canvas, &self.creature));
    }
}

/// Draws a scene, `size`×`size` pixels (32 to 64 are meant).
pub fn draw(scene: &Scene, size: u32) -> Picture {
    draw_window(scene, size, 0.0, 0.0, SIDE)
}

/// The square around one creature of a scene, `size`×`size` pixels, always in plain style: a style belongs to a whole
/// picture, and what a person cuts out of a photo to put it into a sketch is not a sketch yet.
///
/// # Panics
/// If the scene has no creature of that index.
pub fn cutout(scene: &Scene, index: usize, backdrop: Backdrop, size: u32) -> Picture {
    let actor = &scene.actors[index];
    match backdrop {
        Backdrop::White => portrait(&actor.creature, size),
        Backdrop::Kept => {
            let (left, top, side) = actor.window();
            let plain = Scene { style: Style::Plain, ..scene.clone() };
            draw_window(&plain, size, left, top, side)
        }
    }
}

/// A creature alone on white, filling the picture of `size`×`size` pixels.
pub fn portrait(creature: &Creature, size: u32) -> Picture {
    let side = window_side();
    let mut canvas = Canvas::new(size, -0.5 * side, 0.5 * (EXTENT.top + EXTENT.bottom - side), side, hex(0xffffff));
    figure::draw(&mut canvas, creature);
    canvas.into_picture()
}

/// The side of a cut-out in half body heights: the tallest creature and a little air.
fn window_side() -> f32 {
    EXTENT.bottom - EXTENT.top + 0.1
}

fn draw_window(scene: &Scene, size: u32, left: f32, top: f32, side: f32) -> Picture {
    let mut canvas = Canvas::new(size, left, top, side, hex(0xffffff));
    scene.setting.draw(&mut canvas);
    let mut actors: Vec<&Actor> = scene.actors.iter().collect();
    actors.sort_by(|a, b| a.y.total_cmp(&b.y));
    for actor in actors {
        actor.draw(&mut canvas);
    }
    match scene.style {
        Style::Plain => {}
        Style::Sketch => canvas.filter(|_, here, right, below| {
            let grey = |c: [f32; 3]| 0.3 * c[0] + 0.59 * c[1] + 0.11 * c[2];
            let edge = (grey(here) - grey(right)).abs() + (grey(here) - grey(below)).abs();
            // Fills become nearly paper, the dark lines between them stay.
            let fill = (2.4 * (grey(here) - 27.0)).clamp(0.0, 190.0) + 0.38 * (grey(here) - 106.0).max(0.0);
            mix(hex(0x2b2b33), hex(0xfffcf2), ((fill - 0.3 * edge) / 255.0).max(0.0))
        }),
        Style::Sunset => canvas.filter(|place, here, _, _| {
            let warm = [here[0] * 0.95 + 14.0, here[1] * 0.88 + 4.0, here[2] * 0.78 + 8.0];
            mix(warm, hex(0xff6a2c), 0.06 + 0.36 * (1.0 - place.y))
        }),
    }
    canvas.into_picture()
}

#[cfg(test)]
mod tests {
    use super::super::creature::{Body, Topping};
    use super::super::figure::EXTENT;
    use super::*;

    fn scenes(count: u64) -> impl Iterator<Item = Scene> {
        (0..count).map(|seed| Scene::sample(&mut Rng::new(seed, 0), Split::Train))
    }

    #[test]
    fn a_seed_draws_the_same_picture_in_every_size() {
        for (a, b) in scenes(20).zip(scenes(20)) {
            for size in [32, 48, 64] {
                let picture = draw(&a, size);
                assert_eq!((picture.width(), picture.height()), (size, size));
                assert_eq!(picture, draw(&b, size));
            }
        }
    }

    #[test]
    fn the_world_is_the_one_that_models_were_trained_on() {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in scenes(40).flat_map(|scene| draw(&scene, 64).rgb().to_vec()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        assert_eq!(hash, WORLD, "the drawing changed: {hash:#x}; models trained before it need new training");
    }

    /// FNV-1a over forty pictures.
    const WORLD: u64 = 0xf48b_8cfa_f5cf_84a1;

    #[test]
    fn creatures_stand_inside_and_apart() {
        for scene in scenes(2000) {
            assert!((1..=MAX_ACTORS).contains(&scene.actors.len()));
            for actor in &scene.actors {
                let (unit, middle) = (actor.unit(), actor.middle());
                assert!(actor.x + EXTENT.left * unit > -0.3 && actor.x + EXTENT.right * unit < SIDE + 0.3);
                assert!(middle + EXTENT.top * unit > 0.0 && middle + EXTENT.bottom * unit < SIDE);
            }
            for pair in scene.actors.windows(2) {
                assert!(pair[0].x + pair[0].unit() < pair[1].x - pair[1].unit() + 0.5);
            }
        }
    }

    #[test]
    fn a_portrait_leaves_its_border_white() {
        let mut creature = Creature::from_index(0).expect("there are creatures");
        for &body in Body::ALL {
            for &topping in Topping::ALL {
                (creature.body, creature.topping) = (body, topping);
                let picture = portrait(&creature, 64);
                let painted = |i: usize| picture.rgb()[3 * i..3 * i + 3] != [255; 3];
                assert!((0..64).all(|i| !painted(i) && !painted(64 * 63 + i)), "{creature:?}");
                assert!((0..64).all(|i| !painted(64 * i) && !painted(64 * i + 63)), "{creature:?}");
                assert!((0..64 * 64).filter(|&i| painted(i)).count() > 900, "{creature:?}");
            }
        }
    }

    #[test]
    fn a_cut_out_contains_its_creature() {
        for scene in scenes(500) {
            for actor in &scene.actors {
                let (left, top, side) = actor.window();
                let (unit, middle) = (actor.unit(), actor.middle());
                assert!(left >= 0.0 && top >= 0.0 && left.max(top) + side <= SIDE + 1e-3);
                assert!(left <= actor.x - 1.09 * unit + 0.8 && left + side >= actor.x + 1.09 * unit - 0.8);
                assert!(top <= middle + EXTENT.top * unit + 0.1 && top + side >= middle + EXTENT.bottom * unit - 0.1);
            }
        }
        let scene = scenes(100).find(|scene| scene.actors.len() == 2).expect("some scenes have two creatures");
        let white = cutout(&scene, 1, Backdrop::White, 64);
        assert_eq!(white, portrait(&scene.actors[1].creature, 64));
        assert_ne!(white, cutout(&scene, 1, Backdrop::Kept, 64));
    }
}
