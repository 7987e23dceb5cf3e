//! Pixels to draw upon: lines with smooth edges, and areas of one colour.

/// Red, green and blue.
pub type Colour = [u8; 3];

/// What white paper is.
const WHITE: [u8; 4] = [255; 4];
/// Colours that differ by no more than this in red, green and blue are one area: so much that the smooth edges of lines
/// belong to it.
const SAME_AREA: u8 = 100;

/// An opaque picture: what was transparent lies on white, as the model takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sheet {
    width: u32,
    height: u32,
    rgba: Vec<u8>,
}

/// A rectangle of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// Its left edge.
    pub x: u32,
    /// Its upper edge.
    pub y: u32,
    /// Pixels in a row.
    pub width: u32,
    /// Number of rows.
    pub height: u32,
}

impl Sheet {
    /// White paper.
    pub fn white(width: u32, height: u32) -> Self {
        Self { width, height, rgba: WHITE.repeat(width as usize * height as usize) }
    }

    /// A picture of red, green, blue and opacity for each pixel, on white. `None` unless there are as many as it takes.
    pub fn on_white(width: u32, height: u32, mut rgba: Vec<u8>) -> Option<Self> {
        if rgba.is_empty() || rgba.len() as u64 != 4 * u64::from(width) * u64::from(height) {
            return None;
        }
        for pixel in rgba.as_chunks_mut().0 {
            let &mut [red, green, blue, alpha] = pixel;
            if alpha < 255 {
                *pixel = over(WHITE, [red, green, blue], f32::from(alpha) / 255.0);
            }
        }
        Some(Self { width, height, rgba })
    }

    /// Width and height.
    pub fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// Red, green, blue and 255 of each pixel, row by row.
    pub fn rgba(&self) -> &[u8] {
        &self.rgba
    }

    /// The pixels.
    pub fn pixels(&self) -> &[[u8; 4]] {
        self.rgba.as_chunks().0
    }

    /// The whole of it.
    pub fn area(&self) -> Area {
        Area { x: 0, y: 0, width: self.width, height: self.height }
    }

    /// The bytes of an area.
    pub fn part(&self, area: Area) -> Vec<u8> {
        let rows = self.rgba.chunks_exact(4 * self.width as usize).skip(area.y as usize).take(area.height as usize);
        let columns = 4 * area.x as usize..4 * (area.x + area.width) as usize;
        rows.flat_map(|row| &row[columns.clone()]).copied().collect()
    }

    /// A picture of the same size with other pixels.
    pub(super) fn with(&self, pixel: impl Fn(usize, [u8; 4]) -> [u8; 4]) -> Self {
        let rgba = self.pixels().iter().enumerate().flat_map(|(at, &before)| pixel(at, before)).collect();
        Self { rgba, ..*self }
    }

    /// Left becomes right.
    pub fn mirrored(&self) -> Self {
        let rows = self.pixels().chunks_exact(self.width as usize);
        Self { rgba: rows.flat_map(|row| row.iter().rev()).flatten().copied().collect(), ..*self }
    }

    /// Draws a line with round ends and returns what it may have changed.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), radius: f64, colour: Colour) -> Area {
        let span = |a: f64, b: f64, length: u32| {
            let edge = |at: f64| at.clamp(0.0, f64::from(length)) as u32;
            (edge((a.min(b) - radius - 1.0).floor()), edge((a.max(b) + radius + 1.0).ceil()))
        };
        let (left, right) = span(from.0, to.0, self.width);
        let (top, bottom) = span(from.1, to.1, self.height);
        let (width, pixels) = (self.width as usize, self.rgba.as_chunks_mut().0);
        for y in top..bottom {
            for x in left..right {
                let distance = distance((f64::from(x) + 0.5, f64::from(y) + 0.5), from, to);
                let cover = (radius + 0.5 - distance).clamp(0.0, 1.0) as f32;
                if cover > 0.0 {
                    let pixel = &mut pixels[y as usize * width + x as usize];
                    *pixel = over(*pixel, colour, cover);
                }
            }
        }
        Area { x: left, y: top, width: right - left, height: bottom - top }
    }

    /// Gives another colour to the pixels around a place that have about its colour. Nothing outside of the picture.
    pub fn fill(&mut self, (x, y): (f64, f64), colour: Colour) {
        let is_inside = x >= 0.0 && y >= 0.0 && x < f64::from(self.width) && y < f64::from(self.height);
        if !is_inside {
            return;
        }
        let start = y as usize * self.width as usize + x as usize;
        let area = self.pixels()[start];
        let is_same = |pixel: [u8; 4]| pixel.iter().zip(area).all(|(a, b)| a.abs_diff(b) <= SAME_AREA);
        let mut is_filled = vec![false; self.pixels().len()];
        let filled = flood(self.size(), [start], &mut is_filled, |_, at| is_same(self.pixels()[at]));
        let pixels: &mut [[u8; 4]] = self.rgba.as_chunks_mut().0;
        for at in filled {
            pixels[at] = [colour[0], colour[1], colour[2], 255];
        }
    }
}

/// Marks the starts, and from them on every neighbour above, below, left and right that `goes` lets in: it is asked with
/// the pixel from which and the pixel to which. What was marked before is a wall. Returns the pixels that are marked now.
pub(super) fn flood(
    (width, height): (u32, u32),
    starts: impl IntoIterator<Item = usize>,
    is_in: &mut [bool],
    goes: impl Fn(usize, usize) -> bool,
) -> Vec<usize> {
    let (width, height) = (width as usize, height as usize);
    let mut found: Vec<usize> =
        starts.into_iter().filter(|&start| !std::mem::replace(&mut is_in[start], true)).collect();
    let mut done = 0;
    while let Some(&at) = found.get(done) {
        done += 1;
        let (x, y) = (at % width, at / width);
        let neighbours = [
            (x > 0, at.wrapping_sub(1)),
            (x + 1 < width, at + 1),
            (y > 0, at.wrapping_sub(width)),
            (y + 1 < height, at + width),
        ];
        for (exists, next) in neighbours {
            if exists && !is_in[next] && goes(at, next) {
                is_in[next] = true;
                found.push(next);
            }
        }
    }
    found
}

/// A colour over a pixel, from 0, not at all, to 1, covering it.
pub(super) fn over(under: [u8; 4], colour: Colour, cover: f32) -> [u8; 4] {
    let mix = |i: usize| (f32::from(under[i]) + (f32::from(colour[i]) - f32::from(under[i])) * cover).round() as u8;
    [mix(0), mix(1), mix(2), 255]
}

/// Distance of a point from a line between two others.
fn distance((x, y): (f64, f64), from: (f64, f64), to: (f64, f64)) -> f64 {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let length = dx * dx + dy * dy;
    let along = if length == 0.0 { 0.0 } else { ((x - from.0) * dx + (y - from.1) * dy) / length };
    let along = along.clamp(0.0, 1.0);
    (x - from.0 - along * dx).hypot(y - from.1 - along * dy)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLACK: Colour = [0; 3];
    const BLUE: Colour = [0, 0, 250];

    fn colour(sheet: &Sheet, x: usize, y: usize) -> Colour {
        let [red, green, blue, alpha] = sheet.pixels()[y * sheet.width as usize + x];
        assert_eq!(alpha, 255);
        [red, green, blue]
    }

    #[test]
    fn what_is_transparent_lies_on_white() {
        let sheet = Sheet::on_white(3, 1, vec![9, 9, 9, 255, 9, 9, 9, 0, 0, 100, 200, 51]).unwrap();
        assert_eq!(sheet.rgba(), [9, 9, 9, 255, 255, 255, 255, 255, 204, 224, 244, 255]);
        assert_eq!(Sheet::on_white(2, 1, vec![0; 4]), None);
        assert_eq!(Sheet::on_white(0, 5, Vec::new()), None);
        assert_eq!(sheet.mirrored().pixels()[2], sheet.pixels()[0]);
        assert_eq!(sheet.mirrored().mirrored(), sheet);
    }

    #[test]
    fn a_line_is_as_wide_as_its_brush_and_says_what_it_changed() {
        let mut sheet = Sheet::white(40, 20);
        let before = sheet.clone();
        let area = sheet.line((10.0, 10.0), (30.0, 10.0), 3.0, BLACK);
        assert_eq!([(5, 10), (20, 8), (20, 11), (31, 10)].map(|(x, y)| colour(&sheet, x, y)[0]), [255, 0, 0, 0]);
        assert_eq!([(20, 6), (20, 13), (35, 10)].map(|(x, y)| colour(&sheet, x, y)[0]), [255; 3]);
        for (at, (new, old)) in sheet.pixels().iter().zip(before.pixels()).enumerate() {
            let (x, y) = (at as u32 % 40, at as u32 / 40);
            let is_in = (area.x..area.x + area.width).contains(&x) && (area.y..area.y + area.height).contains(&y);
            assert!(is_in || new == old);
        }
        assert_eq!(sheet.part(Area { x: 20, y: 10, width: 1, height: 1 }), [0, 0, 0, 255]);
    }

    #[test]
    fn lines_may_leave_the_paper() {
        let mut sheet = Sheet::white(8, 8);
        for (from, to) in [((-100.0, 4.0), (100.0, 4.0)), ((3.0, -50.0), (3.0, -40.0)), ((9e9, 9e9), (9e9, 9e9))] {
            let area = sheet.line(from, to, 1.0, BLACK);
            assert!(area.x + area.width <= 8 && area.y + area.height <= 8);
        }
        sheet.fill((-1.0, 3.0), BLUE);
        sheet.fill((8.0, 3.0), BLUE);
        assert!(sheet.pixels().iter().all(|pixel| pixel[0] == pixel[2]));
    }

    #[test]
    fn a_ring_is_filled_up_to_its_line_and_nothing_leaks() {
        let mut sheet = Sheet::white(60, 60);
        let at = |step: u32| (f64::from(step) / 32.0 * std::f64::consts::TAU).sin_cos();
        for step in 0..32 {
            let place = |(sin, cos): (f64, f64)| (30.0 + 20.0 * cos, 30.0 + 20.0 * sin);
            sheet.line(place(at(step)), place(at(step + 1)), 1.5, BLACK);
        }
        sheet.fill((30.0, 30.0), BLUE);
        assert_eq!((colour(&sheet, 30, 30), colour(&sheet, 45, 30)), (BLUE, BLUE));
        assert_eq!((colour(&sheet, 2, 2), colour(&sheet, 50, 30)[2]), ([255; 3], 0));
        // No light seam is left inside of the ring.
        assert!((30..51).all(|x| colour(&sheet, x, 30)[0] < 160));
    }
}
