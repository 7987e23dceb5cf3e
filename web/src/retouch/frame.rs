//! The square that the model sees of a picture.

/// Most times that a picture is enlarged.
const CLOSEST: f64 = 12.0;

/// A square, in pixels of the picture. It may be larger than the picture's shorter side: then white stands beside it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frame {
    /// Its left edge.
    pub x: f64,
    /// Its upper edge.
    pub y: f64,
    /// Its side.
    pub side: f64,
}

impl Frame {
    /// The middle square: what the model sees of a picture that nobody has framed.
    pub fn middle((width, height): (u32, u32)) -> Self {
        let (width, height) = (f64::from(width), f64::from(height));
        let side = width.min(height);
        Self { x: (width - side) / 2.0, y: (height - side) / 2.0, side }
    }

    /// The least square around the whole picture.
    pub fn whole(size: (u32, u32)) -> Self {
        Self::middle(size).with_side(f64::from(size.0.max(size.1)), size)
    }

    /// The square moved by so many pixels, as far as there is picture.
    pub fn moved(self, dx: f64, dy: f64, (width, height): (u32, u32)) -> Self {
        let place = |at: f64, length: u32| {
            let room = f64::from(length) - self.side;
            if room <= 0.0 { room / 2.0 } else { at.clamp(0.0, room) }
        };
        Self { x: place(self.x + dx, width), y: place(self.y + dy, height), ..self }
    }

    /// A square around the same middle, with another side, as far as that is of use.
    pub fn with_side(self, side: f64, size: (u32, u32)) -> Self {
        let (least, most) = limits(size);
        let side = side.clamp(least, most);
        let shift = (self.side - side) / 2.0;
        Self { x: self.x + shift, y: self.y + shift, side }.moved(0.0, 0.0, size)
    }

    /// How close the picture is seen: 0 for the whole, 1 for the closest, steps of the same factor between.
    pub fn zoom(self, size: (u32, u32)) -> f64 {
        let (least, most) = limits(size);
        (most / self.side).ln() / (most / least).ln()
    }

    /// The square of that [`Frame::zoom`] around the same middle.
    pub fn zoomed(self, zoom: f64, size: (u32, u32)) -> Self {
        let (least, most) = limits(size);
        self.with_side(most * (least / most).powf(zoom), size)
    }

    /// The same square when left becomes right.
    pub fn mirrored(self, (width, _): (u32, u32)) -> Self {
        Self { x: f64::from(width) - self.x - self.side, ..self }
    }

    /// The same square of a picture with so many times as many pixels.
    pub fn scaled(self, times: f64) -> Self {
        Self { x: self.x * times, y: self.y * times, side: self.side * times }
    }
}

/// The least and the largest side.
fn limits((width, height): (u32, u32)) -> (f64, f64) {
    let (short, long) = (f64::from(width.min(height)), f64::from(width.max(height)));
    ((short / CLOSEST).max(1.0).min(short), long)
}

#[cfg(test)]
mod tests {
    use kosmosg::noise::Rng;

    use super::*;

    #[test]
    fn the_middle_is_what_the_model_takes() {
        assert_eq!(Frame::middle((30, 20)), Frame { x: 5.0, y: 0.0, side: 20.0 });
        assert_eq!(Frame::whole((30, 20)), Frame { x: 0.0, y: -5.0, side: 30.0 });
        assert_eq!(Frame::middle((1, 1)), Frame { x: 0.0, y: 0.0, side: 1.0 });
    }

    #[test]
    fn wherever_it_is_moved_it_shows_as_much_picture_as_it_can() {
        let mut rng = Rng::new(3, 0);
        for _ in 0..2000 {
            let size = (1 + rng.below(400) as u32, 1 + rng.below(400) as u32);
            let mut frame = Frame::middle(size);
            for _ in 0..5 {
                let by = |rng: &mut Rng| rng.below(500) as f64 - 250.0;
                frame = frame.moved(by(&mut rng), by(&mut rng), size);
                frame = frame.zoomed(rng.below(101) as f64 / 100.0, size);
                for (at, length) in [(frame.x, size.0), (frame.y, size.1)] {
                    let room = f64::from(length) - frame.side;
                    assert!(at >= room.min(0.0) - 1e-9 && at <= room.max(0.0) + 1e-9, "{frame:?} in {size:?}");
                }
                assert!(frame.side >= 1.0 - 1e-9 && frame.side <= f64::from(size.0.max(size.1)) + 1e-9);
            }
        }
    }

    #[test]
    fn zoom_and_side_say_the_same() {
        let size = (300, 200);
        for zoom in [0.0, 0.25, 0.5, 1.0] {
            let frame = Frame::middle(size).zoomed(zoom, size);
            assert!((frame.zoom(size) - zoom).abs() < 1e-9);
        }
        let there = Frame::middle(size).moved(-20.0, 0.0, size);
        assert_eq!(there.mirrored(size).mirrored(size), there);
    }
}
