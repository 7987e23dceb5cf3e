//! Where scenes are set: twelve places of a few large, flat things each, 64 units wide and high.

use kosmosg::noise::Rng;

use super::creature::attribute;
use super::raster::{Canvas, EVERYWHERE, Point, Rgb, around, at, mix};
use super::shape::{circle, ellipse};
use super::{indoors, outdoors};

attribute!(
    /// A place.
    Background {
        /// Sand, sea, sun and a palm.
        Beach = "beach",
        /// Tall trees under a dark canopy.
        Forest = "forest",
        /// White hills, firs and falling flakes.
        Snow = "snow",
        /// A big moon over dark hills.
        Night = "night",
        /// Pyramids under a hot sky.
        Desert = "desert",
        /// Towers with lit windows behind a street.
        City = "city",
        /// Light from above, seaweed and bubbles.
        Sea = "sea",
        /// Green hills, flowers and a rainbow.
        Meadow = "meadow",
        /// A wall with a window, a wooden floor.
        Room = "room",
        /// A glowing mountain and streams of lava.
        Volcano = "volcano",
        /// Lollipops and icing.
        Candy = "candy land",
        /// Grey dust, craters and a planet with a ring.
        Moon = "moon",
    }
);

/// A place as it is seen in one scene: the same things, a little moved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setting {
    /// The place.
    pub background: Background,
    /// How far the things are moved, -1 to 1.
    pub shift: f32,
    /// Whether left and right are exchanged.
    pub mirrored: bool,
}

impl Setting {
    /// A random view of a place.
    pub fn sample(rng: &mut Rng, background: Background) -> Self {
        Setting { background, shift: (2.0 * rng.uniform() - 1.0) as f32, mirrored: rng.bool(0.5) }
    }

    /// Paints the place over the whole canvas.
    pub fn draw(&self, canvas: &mut Canvas) {
        let place = match self.background {
            Background::Beach => outdoors::beach,
            Background::Forest => outdoors::forest,
            Background::Snow => outdoors::snow,
            Background::Night => outdoors::night,
            Background::Desert => outdoors::desert,
            Background::Meadow => outdoors::meadow,
            Background::Volcano => outdoors::volcano,
            Background::City => indoors::city,
            Background::Sea => indoors::sea,
            Background::Room => indoors::room,
            Background::Candy => indoors::candy,
            Background::Moon => indoors::moon,
        };
        if self.mirrored {
            canvas.mirrored(32.0, |canvas| place(canvas, self.shift));
        } else {
            place(canvas, self.shift);
        }
    }
}

/// Fills everything with a gradient that ends at the horizon.
pub(super) fn sky(canvas: &mut Canvas, top: Rgb, bottom: Rgb, horizon: f32) {
    canvas.paint(EVERYWHERE, |p| (mix(top, bottom, (p.y / horizon).clamp(0.0, 1.0)), 1.0));
}

/// Fills everything below a level line.
pub(super) fn ground(canvas: &mut Canvas, top: f32, colour: Rgb) {
    let bounds = super::raster::Bounds { top, ..EVERYWHERE };
    canvas.fill(bounds, colour, |p| top - p.y);
}

/// A round hill: the upper part of an ellipse.
pub(super) fn hill(canvas: &mut Canvas, x: f32, top: f32, half_width: f32, height: f32, colour: Rgb) {
    let centre = at(x, top + height);
    canvas.fill(around(centre, half_width, height), colour, |p| ellipse(p, centre, half_width, height));
}

/// A disc.
pub(super) fn disc(canvas: &mut Canvas, x: f32, y: f32, radius: f32, colour: Rgb) {
    canvas.fill(around(at(x, y), radius, radius), colour, |p| circle(p, at(x, y), radius));
}

/// The same small disc at several places, moved by `dx`.
pub(super) fn dots(canvas: &mut Canvas, places: &[Point], dx: f32, radius: f32, colour: Rgb) {
    for place in places {
        disc(canvas, place.x + dx, place.y, radius, colour);
    }
}

#[cfg(test)]
mod tests {
    use super::super::raster::hex;
    use super::*;

    #[test]
    fn places_look_different_and_views_of_one_alike() {
        let mut rng = Rng::new(1, 0);
        let mut view = |background| {
            let mut canvas = Canvas::new(16, 0.0, 0.0, 64.0, hex(0));
            Setting { mirrored: false, ..Setting::sample(&mut rng, background) }.draw(&mut canvas);
            canvas.into_picture()
        };
        let gap = |a: &kosmosg::picture::Picture, b: &kosmosg::picture::Picture| {
            a.rgb().iter().zip(b.rgb()).map(|(x, y)| f64::from(x.abs_diff(*y))).sum::<f64>() / a.rgb().len() as f64
        };
        assert_eq!(Background::ALL.len(), 12);
        for &a in Background::ALL {
            let (first, second) = (view(a), view(a));
            for &b in Background::ALL.iter().filter(|&&b| b != a) {
                assert!(gap(&first, &second) * 1.5 < gap(&first, &view(b)), "{a:?} and {b:?}");
            }
        }
    }
}
