//! Pictures and the pixel values that go into the encoder and the autoencoder.

use serde::Deserialize;

use super::{Cases, Files, PIXELS, VerifyError, file, json, unusable};
use crate::picture::Picture;

/// Largest side of the squares that pictures are made into, in pixels.
const MAX_SIZE: u32 = 4096;

#[derive(Deserialize)]
struct Case {
    file: String,
    size: u32,
}

/// Compares everything in a fixture of [`Form::Preprocess`](super::Form::Preprocess).
///
/// # Errors
/// [`VerifyError`] if files are missing or malformed.
pub fn preprocess(files: &Files) -> Result<Cases, VerifyError> {
    let mut cases = Cases::read(files)?;
    let list: Vec<Case> = json(files, "cases.json")?;
    for Case { file: name, size } in &list {
        if !(1..=MAX_SIZE).contains(size) {
            return Err(unusable("cases.json", format!("{name} has size {size}, expected 1 to {MAX_SIZE}")));
        }
        let picture = Picture::decode(file(files, name)?).map_err(|error| unusable(name, error))?;
        let stem = name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem);
        let values = [("encoder", picture.pixels_for_encoder(*size)), ("decoder", picture.pixels_for_vae(*size))];
        for (target, pixels) in values {
            let tensor = format!("{stem}.{target}");
            if !cases.has(&tensor) {
                continue;
            }
            let (_, shape) = cases.numbers(&tensor)?;
            let side = *size as usize;
            // The fixture may have a batch dimension of one.
            let ours = [vec![1; shape.len().saturating_sub(3)], vec![3, side, side]].concat();
            cases.compare_numbers(&tensor, &pixels, &ours, PIXELS)?;
        }
    }
    Ok(cases)
}
