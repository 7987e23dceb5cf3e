//! Many pictures side by side in one.

use kosmosg::noise::Rng;
use kosmosg::picture::Picture;

use super::creature::Split;
use super::scene::{Scene, draw};

/// A contact sheet of random scenes, each of `size`×`size` pixels and `zoom` times enlarged.
pub fn sheet(rng: &mut Rng, split: Split, columns: usize, rows: usize, size: u32, zoom: usize) -> Picture {
    let pictures: Vec<Picture> = (0..columns * rows).map(|_| draw(&Scene::sample(rng, split), size)).collect();
    contact_sheet(&pictures, columns, zoom)
}

/// Pictures of one size in rows of `columns`, `zoom` times enlarged with sharp pixels; white where none is left.
///
/// # Panics
/// If there is no picture, if sizes differ, or if `columns` or `zoom` is 0.
pub fn contact_sheet(pictures: &[Picture], columns: usize, zoom: usize) -> Picture {
    let (width, height) = (pictures[0].width() as usize, pictures[0].height() as usize);
    let (sheet_width, sheet_height) = (columns * width * zoom, pictures.len().div_ceil(columns) * height * zoom);
    let mut rgb = vec![255; sheet_width * sheet_height * 3];
    for (index, picture) in pictures.iter().enumerate() {
        assert_eq!(
            (picture.width() as usize, picture.height() as usize),
            (width, height),
            "picture {index} has another size"
        );
        let (left, top) = (index % columns * width * zoom, index / columns * height * zoom);
        for y in 0..height * zoom {
            for x in 0..width * zoom {
                let from = 3 * (y / zoom * width + x / zoom);
                let to = 3 * ((top + y) * sheet_width + left + x);
                rgb[to..to + 3].copy_from_slice(&picture.rgb()[from..from + 3]);
            }
        }
    }
    Picture::new(sheet_width as u32, sheet_height as u32, rgb).expect("the sheet has the size that it was made for")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_holds_its_pictures_enlarged() {
        let sheet = sheet(&mut Rng::new(3, 0), Split::Train, 3, 2, 32, 2);
        assert_eq!((sheet.width(), sheet.height()), (192, 128));
        let first = draw(&Scene::sample(&mut Rng::new(3, 0), Split::Train), 32);
        for (x, y) in [(0, 0), (9, 4), (31, 31)] {
            let from = 3 * (y * 32 + x);
            for (dx, dy) in [(0, 0), (1, 1)] {
                let to = 3 * ((2 * y + dy) * 192 + 2 * x + dx);
                assert_eq!(sheet.rgb()[to..to + 3], first.rgb()[from..from + 3]);
            }
        }
    }

    #[test]
    fn a_row_that_is_not_full_ends_white() {
        let picture = Picture::new(1, 1, vec![7, 8, 9]).expect("one pixel");
        let sheet = contact_sheet(&[picture.clone(), picture.clone(), picture], 2, 1);
        assert_eq!(sheet.rgb(), [7, 8, 9, 7, 8, 9, 7, 8, 9, 255, 255, 255]);
    }
}
