//! A small painter: shapes are signed distances, edges are one pixel soft, nothing but IEEE arithmetic.
//!
//! Only `+ - * /` and square roots are used, so a seed draws the same bytes on every machine.

use kosmosg::picture::Picture;

/// Red, green and blue, each 0 to 255, as they are stored in a file (blending is done there, too).
pub type Rgb = [f32; 3];

/// A colour from its hexadecimal form, `0xRRGGBB`.
pub const fn hex(code: u32) -> Rgb {
    [(code >> 16 & 255) as f32, (code >> 8 & 255) as f32, (code & 255) as f32]
}

/// `a` moved towards `b` by the share `t`.
pub fn mix(a: Rgb, b: Rgb, t: f32) -> Rgb {
    [0, 1, 2].map(|i| a[i] + (b[i] - a[i]) * t)
}

/// A place on the canvas in the current frame's units; y grows downwards.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// To the right.
    pub x: f32,
    /// Downwards.
    pub y: f32,
}

/// Short for [`Point`].
pub const fn at(x: f32, y: f32) -> Point {
    Point { x, y }
}

impl Point {
    /// The vector from `other` to `self`.
    pub fn from(self, other: Point) -> Point {
        at(self.x - other.x, self.y - other.y)
    }

    /// The same place in a picture folded at the vertical axis: shapes with two equal halves need only one.
    pub fn folded(self) -> Point {
        at(self.x.abs(), self.y)
    }

    /// Distance to the origin.
    pub fn length(self) -> f32 {
        (self.x * self.x + self.y * self.y).sqrt()
    }
}

/// The box outside of which a shape has nothing to paint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Left edge.
    pub left: f32,
    /// Upper edge.
    pub top: f32,
    /// Right edge.
    pub right: f32,
    /// Lower edge.
    pub bottom: f32,
}

/// Everything that a canvas shows.
pub const EVERYWHERE: Bounds = Bounds { left: -1e4, top: -1e4, right: 1e4, bottom: 1e4 };

/// The box around `centre`, `half_width` and `half_height` to each side.
pub const fn around(centre: Point, half_width: f32, half_height: f32) -> Bounds {
    Bounds {
        left: centre.x - half_width,
        top: centre.y - half_height,
        right: centre.x + half_width,
        bottom: centre.y + half_height,
    }
}

/// Where a frame's origin lies on the canvas and how many pixels one of its units spans (negative: mirrored).
#[derive(Clone, Copy, Debug)]
struct Frame {
    origin: Point,
    scale: Point,
}

/// Turns a distance into the share of a pixel that a shape covers.
#[derive(Clone, Copy, Debug)]
pub struct Brush {
    pixels_per_unit: f32,
}

impl Brush {
    /// How much of a pixel a shape covers whose edge is `distance` away (negative inside), 0 to 1.
    pub fn coverage(self, distance: f32) -> f32 {
        (0.5 - distance * self.pixels_per_unit).clamp(0.0, 1.0)
    }
}

/// A square picture in the making, painted in the units of a frame.
#[derive(Clone, Debug)]
pub struct Canvas {
    size: usize,
    frame: Frame,
    pixels: Vec<Rgb>,
}

impl Canvas {
    /// A canvas of `size`×`size` pixels, filled with `paper`, that shows the square of `side` units from (`left`, `top`).
    pub fn new(size: u32, left: f32, top: f32, side: f32, paper: Rgb) -> Self {
        let scale = size as f32 / side;
        let frame = Frame { origin: at(-left * scale, -top * scale), scale: at(scale, scale) };
        Canvas { size: size as usize, frame, pixels: vec![paper; (size * size) as usize] }
    }

    /// Paints in a frame inside the current one: its origin at `origin`, its unit `unit` of the current units long.
    pub fn inside(&mut self, origin: Point, unit: f32, paint: impl FnOnce(&mut Canvas)) {
        self.framed(origin, at(unit, unit), paint);
    }

    /// Paints left and right exchanged around the vertical line through `axis`.
    pub fn mirrored(&mut self, axis: f32, paint: impl FnOnce(&mut Canvas)) {
        self.framed(at(2.0 * axis, 0.0), at(-1.0, 1.0), paint);
    }

    fn framed(&mut self, origin: Point, unit: Point, paint: impl FnOnce(&mut Canvas)) {
        let Frame { origin: old, scale } = self.frame;
        let outer = self.frame;
        self.frame = Frame {
            origin: at(old.x + origin.x * scale.x, old.y + origin.y * scale.y),
            scale: at(scale.x * unit.x, scale.y * unit.y),
        };
        paint(self);
        self.frame = outer;
    }

    /// One pixel's side in the current frame's units.
    pub fn pixel(&self) -> f32 {
        1.0 / self.frame.scale.y
    }

    /// The soft edge of the current frame, for painting that mixes several shapes at once.
    pub fn brush(&self) -> Brush {
        Brush { pixels_per_unit: self.frame.scale.y }
    }

    /// Lays over every pixel in `bounds` the colour and opacity (0 to 1) that `paint` gives for its middle.
    pub fn paint(&mut self, bounds: Bounds, paint: impl Fn(Point) -> (Rgb, f32)) {
        let Frame { origin, scale } = self.frame;
        let columns = span(bounds.left, bounds.right, origin.x, scale.x, self.size);
        for row in span(bounds.top, bounds.bottom, origin.y, scale.y, self.size) {
            let y = (row as f32 + 0.5 - origin.y) / scale.y;
            for column in columns.clone() {
                let (colour, opacity) = paint(at((column as f32 + 0.5 - origin.x) / scale.x, y));
                if opacity > 0.0 {
                    let pixel = &mut self.pixels[row * self.size + column];
                    *pixel = mix(*pixel, colour, opacity);
                }
            }
        }
    }

    /// Fills the shape of a signed `distance` (negative inside) with one colour.
    pub fn fill(&mut self, bounds: Bounds, colour: Rgb, distance: impl Fn(Point) -> f32) {
        let brush = self.brush();
        self.paint(bounds, |p| (colour, brush.coverage(distance(p))));
    }

    /// Fills a shape and draws a line of `width` around it, outside its edge.
    pub fn outlined(&mut self, bounds: Bounds, colour: Rgb, line: Rgb, width: f32, distance: impl Fn(Point) -> f32) {
        let brush = self.brush();
        let Bounds { left, top, right, bottom } = bounds;
        let grown = Bounds { left: left - width, top: top - width, right: right + width, bottom: bottom + width };
        self.paint(grown, |p| {
            let d = distance(p);
            (mix(line, colour, brush.coverage(d)), brush.coverage(d - width))
        });
    }

    /// Replaces each pixel by what `change` makes of it, of its right and of its lower neighbour.
    pub fn filter(&mut self, change: impl Fn(Point, Rgb, Rgb, Rgb) -> Rgb) {
        let size = self.size;
        for row in 0..size {
            for column in 0..size {
                let here = self.pixels[row * size + column];
                let right = self.pixels[row * size + (column + 1).min(size - 1)];
                let below = self.pixels[(row + 1).min(size - 1) * size + column];
                let place = at((column as f32 + 0.5) / size as f32, (row as f32 + 0.5) / size as f32);
                self.pixels[row * size + column] = change(place, here, right, below);
            }
        }
    }

    /// The finished picture, 8 bits a channel.
    pub fn into_picture(self) -> Picture {
        let rgb = self.pixels.iter().flatten().map(|v| (v + 0.5).clamp(0.0, 255.0) as u8).collect();
        Picture::new(self.size as u32, self.size as u32, rgb).expect("a canvas has size × size pixels")
    }
}

/// The pixels whose soft edge may be touched by what lies between `low` and `high` on one axis.
fn span(low: f32, high: f32, origin: f32, scale: f32, size: usize) -> std::ops::Range<usize> {
    let (a, b) = (origin + low * scale, origin + high * scale);
    let limit = |v: f32| v.clamp(0.0, size as f32) as usize;
    limit(a.min(b) - 1.0)..limit((a.max(b) + 2.0).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::super::shape::circle;
    use super::*;

    #[test]
    fn a_disc_has_its_area_and_soft_edges() {
        let mut canvas = Canvas::new(40, 0.0, 0.0, 20.0, hex(0));
        canvas.fill(around(at(10.0, 10.0), 5.0, 5.0), hex(0xffffff), |p| circle(p, at(10.0, 10.0), 5.0));
        let area: f32 = canvas.pixels.iter().map(|p| p[0] / 255.0).sum::<f32>() / 4.0;
        assert!((area - 78.54).abs() < 0.5, "{area}");
    }

    #[test]
    fn a_mirrored_frame_exchanges_left_and_right() {
        let dot = |canvas: &mut Canvas| canvas.fill(EVERYWHERE, hex(0xff0000), |p| circle(p, at(2.0, 3.0), 1.0));
        let mut plain = Canvas::new(16, 0.0, 0.0, 8.0, hex(0));
        let mut mirrored = plain.clone();
        dot(&mut plain);
        mirrored.mirrored(4.0, dot);
        for row in 0..16 {
            for column in 0..16 {
                assert_eq!(plain.pixels[row * 16 + column], mirrored.pixels[row * 16 + 15 - column]);
            }
        }
    }
}
