//! The page's icon as PNG files, for systems that take no SVG.
//!
//! The drawing is a grid of coloured cells, each written in the SVG as a run `M x y h WIDTH v1 h-WIDTH z`; so every size that is
//! a whole number of pixels a cell is exact.

use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Cells along an edge.
const CELLS: usize = 16;
/// The page's paper, behind icons that have no transparency.
const PAPER: [u8; 4] = [0xfb, 0xf6, 0xec, 0xff];
const NOTHING: [u8; 4] = [0; 4];

/// A file to make: its name, its pixels along an edge, and how many of them a cell has.
///
/// A maskable icon may lose everything outside the circle of four fifths of its size, so the drawing is smaller there.
const ICONS: [(&str, usize, usize, [u8; 4]); 5] = [
    ("icon-192.png", 192, 12, NOTHING),
    ("icon-512.png", 512, 32, NOTHING),
    ("maskable-192.png", 192, 9, PAPER),
    ("maskable-512.png", 512, 24, PAPER),
    ("apple-touch-icon.png", 180, 9, PAPER),
];

/// Writes the icons that an SVG stands for into a folder.
pub fn write(svg: &str, out: &Path) -> Result<()> {
    let cells = cells(svg)?;
    for (name, size, scale, background) in ICONS {
        let file = out.join(name);
        let pixels = pixels(&cells, size, scale, background);
        std::fs::write(&file, png(&pixels, size)?).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// Colour of each cell, row after row.
fn cells(svg: &str) -> Result<[[u8; 4]; CELLS * CELLS]> {
    let mut cells = [NOTHING; CELLS * CELLS];
    for path in svg.split("<path ").skip(1) {
        let attribute = |name: &str| {
            let rest = path.split_once(&format!("{name}=\"")).map(|(_, rest)| rest);
            rest.and_then(|rest| rest.split_once('"')).map(|(value, _)| value).with_context(|| format!("no {name}"))
        };
        let colour = attribute("fill")?;
        let colour = colour.strip_prefix('#').and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let [_, red, green, blue] = colour.context("a fill is no #rrggbb")?.to_be_bytes();
        for run in attribute("d")?.split('M').skip(1) {
            let (x, y, width) = read_run(run).with_context(|| format!("{run:?} is no run of cells"))?;
            ensure!(x + width <= CELLS && y < CELLS, "{run:?} leaves the grid");
            cells[y * CELLS + x..][..width].fill([red, green, blue, 0xff]);
        }
    }
    Ok(cells)
}

/// Column, row and width of `x y h WIDTH v1 h-WIDTH z`.
fn read_run(run: &str) -> Option<(usize, usize, usize)> {
    let (x, rest) = run.split_once(' ')?;
    let (y, rest) = rest.split_once('h')?;
    let (width, rest) = rest.split_once('v')?;
    let run = (x.parse().ok()?, y.parse().ok()?, width.parse().ok()?);
    (rest.trim() == format!("1h-{}z", run.2)).then_some(run)
}

fn pixels(cells: &[[u8; 4]], size: usize, scale: usize, background: [u8; 4]) -> Vec<u8> {
    let margin = (size - CELLS * scale) / 2;
    let at = |x: usize, y: usize| {
        let cell = |pixel: usize| pixel.checked_sub(margin).map(|pixel| pixel / scale).filter(|&cell| cell < CELLS);
        let cell = cell(x).zip(cell(y)).map(|(x, y)| cells[y * CELLS + x]);
        cell.filter(|&cell| cell != NOTHING).unwrap_or(background)
    };
    (0..size * size).flat_map(|pixel| at(pixel % size, pixel / size)).collect()
}

fn png(pixels: &[u8], size: usize) -> Result<Vec<u8>> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, size as u32, size as u32);
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_compression(png::Compression::High);
    encoder.write_header()?.write_image_data(pixels)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SVG: &str = include_str!("../../web/static/icon.svg");

    #[test]
    fn the_drawing_is_read_cell_by_cell() {
        let cells = cells(SVG).unwrap();
        assert_eq!(cells[0], NOTHING);
        assert_eq!(cells[CELLS + 5], [0xd9, 0x57, 0x2b, 0xff]);
        assert_eq!(cells[7 * CELLS + 5], [0x2b, 0x1a, 0x14, 0xff]);
        for wrong in ["<path fill=\"#000000\" d=\"M15 1h2v1h-2z\"/>", "<path fill=\"#000000\" d=\"M1 1h2v2h-2z\"/>"] {
            assert!(super::cells(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_mask_takes_nothing_of_the_drawing() {
        let cells = cells(SVG).unwrap();
        for (name, size, scale, background) in ICONS {
            assert!(CELLS * scale <= size, "{name}");
            let pixels = pixels(&cells, size, scale, background);
            assert_eq!(pixels.len(), size * size * 4);
            let half = size as f64 / 2.0;
            for (number, pixel) in pixels.chunks_exact(4).enumerate().filter(|(_, pixel)| *pixel != background) {
                let (x, y) = ((number % size) as f64 + 0.5 - half, (number / size) as f64 + 0.5 - half);
                let is_safe = x.hypot(y) <= 0.4 * size as f64;
                assert!(background == NOTHING || is_safe, "{name}: {pixel:?} at {x} {y}");
            }
        }
    }
}
