//! Cutting something out of its background: the paper trains on cut-outs.
//!
//! The background's colours are those that the picture's border has much of. From the border on, what has about these
//! colours is taken away, also where it slowly becomes another colour, as a wall in light and shadow does.

use super::sheet::{Sheet, flood, over};

/// Most colours that a background is taken to have.
const COLOURS: usize = 4;
/// Share of the border that is worth a colour of its own.
const WORTH_A_COLOUR: f64 = 0.1;
/// Distance within which two pixels of the border have one colour.
const SAME_COLOUR: f32 = 28.0;
/// What is left of the background as specks is smaller than this share of the picture.
const SPECK: f64 = 0.002;
/// Holes that are smaller are noise.
const HOLE: f64 = 0.0005;

/// How a cut-out is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CutOut {
    /// How far from the background's colours still is background: from 0, only these, to 1.
    pub tolerance: f32,
    /// How its edge looks.
    pub edge: Edge,
    /// Whether background is also looked for where it does not touch the border, such as between arm and body.
    pub has_holes: bool,
}

/// The edge of a cut-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// It fades away over a few pixels.
    Soft,
    /// As the scissors go.
    Sharp,
}

impl Default for CutOut {
    fn default() -> Self {
        Self { tolerance: 0.3, edge: Edge::Soft, has_holes: false }
    }
}

impl CutOut {
    /// The cut-out on white, and the share of the picture that it takes.
    pub fn apply(&self, sheet: &Sheet) -> (Sheet, f64) {
        let is_kept = self.mask(sheet);
        let kept = is_kept.iter().filter(|&&is_kept| is_kept).count() as f64 / is_kept.len() as f64;
        let cover: Vec<f32> = match self.edge {
            Edge::Sharp => is_kept.iter().map(|&is_kept| f32::from(u8::from(is_kept))).collect(),
            Edge::Soft => fade(&is_kept, sheet.size()),
        };
        let cut = sheet.with(|at, [red, green, blue, _]| over([255; 4], [red, green, blue], cover[at]));
        (cut, kept)
    }

    /// Which pixels stay.
    fn mask(&self, sheet: &Sheet) -> Vec<bool> {
        let (size, pixels) = (sheet.size(), sheet.pixels());
        let background = background(sheet);
        let distances: Vec<f32> = pixels
            .iter()
            .map(|&pixel| background.iter().map(|&colour| distance(pixel, colour)).fold(f32::INFINITY, f32::min))
            .collect();
        let most = 5.0 + 230.0 * self.tolerance * self.tolerance;
        let goes = |from: usize, to: usize| {
            distances[to] <= most || distances[to] <= 2.0 * most && distance(pixels[from], pixels[to]) <= most / 5.0
        };
        let mut is_background = vec![false; pixels.len()];
        flood(size, border(size).filter(|&at| distances[at] <= most), &mut is_background, goes);
        if self.has_holes {
            let least = (HOLE * pixels.len() as f64).ceil() as usize;
            let holes = pieces(size, &is_background, |at| distances[at] <= 0.7 * most);
            for hole in holes.into_iter().filter(|hole| hole.len() >= least) {
                flood(size, hole, &mut is_background, goes);
            }
        }
        let islands = pieces(size, &is_background, |_| true);
        let largest = islands.iter().map(Vec::len).max().unwrap_or_default();
        // All of it may be small: stars in a sky.
        let least = ((SPECK * pixels.len() as f64) as usize).min(largest / 4);
        for at in islands.into_iter().filter(|island| island.len() < least).flatten() {
            is_background[at] = true;
        }
        is_background.into_iter().map(|is_background| !is_background).collect()
    }
}

/// The colours that the border has much of; at least one.
fn background(sheet: &Sheet) -> Vec<[u8; 4]> {
    let pixels: Vec<[u8; 4]> = border(sheet.size()).map(|at| sheet.pixels()[at]).collect();
    let enough = (WORTH_A_COLOUR * pixels.len() as f64).ceil() as usize;
    let mut rest = pixels;
    let mut colours = Vec::new();
    while colours.len() < COLOURS && (colours.is_empty() || rest.len() >= enough) && !rest.is_empty() {
        // A few of them are tried as the centre; all would be as many comparisons as there are pairs.
        let step = rest.len().div_ceil(64);
        let near = |centre: [u8; 4]| rest.iter().filter(move |&&pixel| distance(pixel, centre) <= SAME_COLOUR);
        let centre = rest.iter().copied().step_by(step).max_by_key(|&centre| near(centre).count()).unwrap_or([255; 4]);
        let (mut sums, mut count) = ([0_usize; 4], 0);
        for pixel in near(centre) {
            (0..4).for_each(|i| sums[i] += usize::from(pixel[i]));
            count += 1;
        }
        if !colours.is_empty() && count < enough {
            break;
        }
        colours.push(sums.map(|sum| (sum / count.max(1)) as u8));
        rest.retain(|&pixel| distance(pixel, centre) > SAME_COLOUR);
    }
    colours
}

/// The pixels of the border.
fn border((width, height): (u32, u32)) -> impl Iterator<Item = usize> {
    let (width, height) = (width as usize, height as usize);
    let rows = (0..width).flat_map(move |x| [x, (height - 1) * width + x]);
    rows.chain((0..height).flat_map(move |y| [y * width, y * width + width - 1]))
}

/// How different two colours look. Brightness counts less than hue: shadows are no other thing.
fn distance(a: [u8; 4], b: [u8; 4]) -> f32 {
    let [red, green, blue] = [0, 1, 2].map(|i| f32::from(a[i]) - f32::from(b[i]));
    let brightness = 0.3 * red + 0.6 * green + 0.1 * blue;
    let (orange, lime) = (red - blue, green - 0.5 * (red + blue));
    (0.5 * brightness * brightness + 0.4 * orange * orange + 0.6 * lime * lime).sqrt()
}

/// What hangs together of the pixels that are not in `but` and for which `is_part` says so.
fn pieces(size: (u32, u32), but: &[bool], is_part: impl Fn(usize) -> bool) -> Vec<Vec<usize>> {
    let mut is_seen: Vec<bool> = but.iter().enumerate().map(|(at, &is_out)| is_out || !is_part(at)).collect();
    let mut found = Vec::new();
    for start in 0..but.len() {
        if !is_seen[start] {
            found.push(flood(size, [start], &mut is_seen, |_, _| true));
        }
    }
    found
}

/// How much of each pixel is covered when the edge fades to the inside, so that no rim of the background stays.
fn fade(is_kept: &[bool], (width, height): (u32, u32)) -> Vec<f32> {
    let radius = (width.max(height) / 300).max(1) as usize;
    let (width, height) = (width as usize, height as usize);
    let mut cover: Vec<f32> = is_kept.iter().map(|&is_kept| f32::from(u8::from(is_kept))).collect();
    for row in cover.chunks_exact_mut(width) {
        blur(row, 1, radius);
    }
    for x in 0..width {
        blur(&mut cover[x..(height - 1) * width + x + 1], width, radius);
    }
    for (cover, &is_kept) in cover.iter_mut().zip(is_kept) {
        *cover = if is_kept { (2.0 * *cover - 1.0).clamp(0.0, 1.0) } else { 0.0 };
    }
    cover
}

/// The means of neighbours, `step` values apart; the first and the last go on forever.
fn blur(values: &mut [f32], step: usize, radius: usize) {
    let line: Vec<f32> = values.iter().copied().step_by(step).collect();
    let at = |i: isize| line[i.clamp(0, line.len() as isize - 1) as usize];
    let radius = radius as isize;
    let mut sum: f32 = (-radius..=radius).map(at).sum();
    for (i, value) in values.iter_mut().step_by(step).enumerate() {
        *value = sum / (2 * radius + 1) as f32;
        sum += at(i as isize + radius + 1) - at(i as isize - radius);
    }
}

#[cfg(test)]
mod tests {
    use kosmosg::noise::Rng;

    use super::*;

    const SIDE: u32 = 120;
    const SHARP: CutOut = CutOut { tolerance: 0.3, edge: Edge::Sharp, has_holes: false };

    /// A picture of a function of the place.
    fn picture(colour: impl Fn(i32, i32) -> [u8; 3]) -> Sheet {
        let side = SIDE as i32;
        let pixels = (0..side * side).flat_map(|at| {
            let [red, green, blue] = colour(at % side, at / side);
            [red, green, blue, 255]
        });
        Sheet::on_white(SIDE, SIDE, pixels.collect()).unwrap()
    }

    fn is_in_disc(x: i32, y: i32, radius: i32) -> bool {
        (x - 60).pow(2) + (y - 60).pow(2) < radius.pow(2)
    }

    /// Share of the pixels about which the cut-out is right.
    fn agreement(how: &CutOut, sheet: &Sheet, is_thing: impl Fn(i32, i32) -> bool) -> f64 {
        let mask = how.mask(sheet);
        let side = SIDE as i32;
        let right = |&at: &i32| mask[at as usize] == is_thing(at % side, at / side);
        (0..side * side).filter(right).count() as f64 / mask.len() as f64
    }

    #[test]
    fn a_disc_on_noise_is_cut_out() {
        let noise: Vec<i32> = {
            let mut rng = Rng::new(7, 0);
            (0..SIDE * SIDE).map(|_| rng.below(17) as i32 - 8).collect()
        };
        let sheet = picture(|x, y| {
            let colour = if is_in_disc(x, y, 35) { [200, 60, 40] } else { [120, 170, 190] };
            colour.map(|value| (value + noise[(y * SIDE as i32 + x) as usize]) as u8)
        });
        let share = agreement(&SHARP, &sheet, |x, y| is_in_disc(x, y, 35));
        assert!(share > 0.999, "{share}");
    }

    #[test]
    fn a_wall_in_light_and_shadow_is_background() {
        let sheet = picture(|x, y| {
            let light = 90 + x;
            if is_in_disc(x, y, 30) { [30, 120, 40] } else { [light as u8, (light - 10) as u8, (light - 30) as u8] }
        });
        let share = agreement(&SHARP, &sheet, |x, y| is_in_disc(x, y, 30));
        assert!(share > 0.995, "{share}");
    }

    #[test]
    fn sky_and_sand_are_both_background() {
        let sheet = picture(|x, y| match (is_in_disc(x, y, 30), y < 60) {
            (true, _) => [120, 40, 140],
            (_, true) => [140, 190, 240],
            (_, false) => [230, 210, 150],
        });
        assert_eq!(agreement(&SHARP, &sheet, |x, y| is_in_disc(x, y, 30)), 1.0);
    }

    #[test]
    fn holes_are_cut_out_when_they_are_wanted_and_specks_always() {
        let sheet = picture(|x, y| {
            let is_ring = is_in_disc(x, y, 40) && !is_in_disc(x, y, 15);
            if is_ring || (x, y) == (5, 5) { [40, 40, 200] } else { [250, 250, 250] }
        });
        assert_eq!(agreement(&SHARP, &sheet, |x, y| is_in_disc(x, y, 40)), 1.0);
        let holes = CutOut { has_holes: true, ..SHARP };
        assert_eq!(agreement(&holes, &sheet, |x, y| is_in_disc(x, y, 40) && !is_in_disc(x, y, 15)), 1.0);
    }

    #[test]
    fn more_tolerance_never_leaves_more() {
        let mut rng = Rng::new(8, 0);
        let noise: Vec<u8> = (0..SIDE * SIDE).map(|_| rng.below(256) as u8).collect();
        let sheet = picture(|x, y| {
            let value = noise[(y / 8 * SIDE as i32 + x / 8) as usize];
            [value, value / 2, 255 - value]
        });
        let kept = |tolerance: f32| SHARP.mask_of(&sheet, tolerance);
        let shares: Vec<usize> = (0..=10).map(|step| kept(step as f32 / 10.0)).collect();
        assert!(shares.is_sorted_by(|a, b| a >= b), "{shares:?}");
    }

    #[test]
    fn a_soft_edge_leaves_no_rim_and_what_is_inside_as_it_is() {
        let thing = [10, 90, 30];
        let sheet = picture(|x, y| if is_in_disc(x, y, 35) { thing } else { [0, 0, 0] });
        let (cut, kept) = CutOut { tolerance: 0.2, ..CutOut::default() }.apply(&sheet);
        assert!((kept - std::f64::consts::PI * 35.0 * 35.0 / 14400.0).abs() < 0.01, "{kept}");
        let at = |x: usize, y: usize| cut.pixels()[y * SIDE as usize + x];
        assert_eq!((at(60, 60), at(2, 2)), ([10, 90, 30, 255], [255; 4]));
        let edge: Vec<u8> = (20..30).map(|x| at(x, 60)[1]).collect();
        assert!(edge.is_sorted_by(|a, b| a >= b) && edge.iter().any(|&value| value > 91 && value < 254), "{edge:?}");
    }

    #[test]
    fn nothing_breaks_on_the_smallest_pictures() {
        for (width, height) in [(1, 1), (1, 7), (7, 1), (2, 2)] {
            let (cut, kept) = CutOut::default().apply(&Sheet::white(width, height));
            assert_eq!((cut.size(), kept), ((width, height), 0.0));
        }
    }

    impl CutOut {
        fn mask_of(self, sheet: &Sheet, tolerance: f32) -> usize {
            Self { tolerance, ..self }.mask(sheet).into_iter().filter(|&is_kept| is_kept).count()
        }
    }
}
