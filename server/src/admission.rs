//! From a request's bytes to [`Work`]: everything that can be known to be wrong is refused here, before it waits.

use std::sync::Arc;

use kosmosg::denoise::{DenoiseError, DenoiseSettings, DenoiseState};
use kosmosg::picture::{Filter, Picture, PictureError};
use kosmosg::prompt::PromptDocument;
use kosmosg::protocol::{GenerateSettings, JobRequest, MAX_REQUEST_PICTURES, PictureFile};

use crate::bundles::{Bundle, Bundles};
use crate::error::Error;
use crate::work::{Goal, Model, Work};

/// Most pixels of a picture. One in 16 bits a colour takes sixteen bytes of each pixel while it is turned.
pub const MAX_PICTURE_PIXELS: u64 = 32_000_000;
/// Most pixels of a request's pictures together: twenty photographs of 12 megapixels, which take some seconds to decode.
pub const MAX_PIXELS: u64 = 240_000_000;
/// Largest guidance scale.
pub const MAX_GUIDANCE: f64 = 100.0;
/// Largest picture, in multiples of the number of pixels that the bundle makes by default.
pub const MAX_AREA: usize = 4;

/// Checks the body of `POST /api/jobs`. It takes its time: pictures are decoded.
///
/// # Errors
/// What is wrong with it, as 400 or 404.
pub fn admit(body: &[u8], bundles: &Bundles) -> Result<Work, Error> {
    let request = serde_json::from_slice(body)
        .map_err(|error| Error::invalid(format!("the request is not a job that this server understands: {error}")))?;
    check(request, bundles)
}

/// Checks a request.
///
/// # Errors
/// What is wrong with it, as 400 or 404.
pub fn check(request: JobRequest, bundles: &Bundles) -> Result<Work, Error> {
    match request {
        JobRequest::Denoise { bundle, unet, condition, state, loras } => {
            let bundle = Arc::clone(bundles.get(&bundle)?);
            let manifest = bundle.manifest();
            if unet != bundle.unet() {
                let message = "the page and the server have different versions of model";
                return Err(Error::invalid(format!("{message} {}; reload the page", bundle.id())));
            }
            if *state.schedule() != manifest.scheduler {
                let message = "the state was begun under another noise schedule than that of model";
                return Err(Error::invalid(format!("{message} {}; start the picture again", bundle.id())));
            }
            condition.validate(manifest.condition_shape()).map_err(Error::invalid)?;
            check_settings(state.settings(), &bundle)?;
            let model = Model { bundle, loras: bundles.loras().choose(loras)? };
            Ok(Work { model, goal: Goal::Condition(condition), state })
        }
        JobRequest::Generate { bundle, prompt, pictures, negative, settings, loras } => {
            let bundle = Arc::clone(bundles.get(&bundle)?);
            check_size(&settings, &bundle)?;
            let settings = bundle.manifest().denoise_settings(&settings, 0);
            check_settings(&settings, &bundle)?;
            let state = DenoiseState::new(settings, bundle.schedule()).map_err(Error::invalid)?;
            check_prompt(&prompt, pictures.len(), &negative, &bundle)?;
            let size = bundle.manifest().networks.kosmosg.vision.image_size as u32;
            let model = Model { bundle, loras: bundles.loras().choose(loras)? };
            let goal = Goal::Prompt { prompt, pictures: read_pictures(&pictures, size, MAX_PIXELS)?, negative };
            Ok(Work { model, goal, state })
        }
    }
}

fn check_settings(settings: &DenoiseSettings, bundle: &Bundle) -> Result<(), Error> {
    let DenoiseSettings { guidance, channels, height, width, .. } = *settings;
    settings.validate().map_err(|error: DenoiseError| Error::invalid(error))?;
    if !(0.0..=MAX_GUIDANCE).contains(&guidance) {
        return Err(Error::invalid(format!("guidance scale is {guidance}; choose 0 to {MAX_GUIDANCE}")));
    }
    let [expected, usual_height, usual_width] = bundle.manifest().latent_shape();
    if channels != expected {
        let message = format!("the state has {channels} channels, but the U-Net of {} takes {expected}", bundle.id());
        return Err(Error::invalid(message));
    }
    let most = MAX_AREA * usual_height * usual_width;
    if height * width > most {
        let message = format!("latents of {height} × {width} are too large for this server: at most {most} in all");
        return Err(Error::invalid(message));
    }
    Ok(())
}

/// Width and height in pixels.
fn check_size(settings: &GenerateSettings, bundle: &Bundle) -> Result<(), Error> {
    let unit = bundle.manifest().networks.vae.downscale() as u32;
    for (name, pixels) in [("width", settings.width), ("height", settings.height)] {
        if let Some(pixels) = pixels.filter(|&pixels| pixels == 0 || pixels % unit != 0) {
            return Err(Error::invalid(format!("the {name} is {pixels}; choose a multiple of {unit}")));
        }
    }
    let side = bundle.manifest().picture_size as u64;
    let size = |pixels: Option<u32>| pixels.map_or(side, u64::from);
    let (width, height, most) = (size(settings.width), size(settings.height), MAX_AREA as u64 * side * side);
    if width * height > most {
        let message =
            format!("a picture of {width} × {height} is too large for {}: at most {most} pixels", bundle.id());
        return Err(Error::invalid(message));
    }
    Ok(())
}

fn check_prompt(prompt: &PromptDocument, pictures: usize, negative: &str, bundle: &Bundle) -> Result<(), Error> {
    if pictures > MAX_REQUEST_PICTURES {
        return Err(Error::invalid(format!("{pictures} pictures; at most {MAX_REQUEST_PICTURES} are allowed")));
    }
    let places = prompt.images().count();
    if places > MAX_REQUEST_PICTURES {
        return Err(Error::invalid(format!("{places} places of pictures; at most {MAX_REQUEST_PICTURES} are allowed")));
    }
    prompt.check_pictures(pictures).map_err(Error::invalid)?;
    prompt.check_all_shown(pictures).map_err(Error::invalid)?;
    let config = &bundle.manifest().networks.kosmosg;
    for text in [prompt, &PromptDocument::from_words(negative)] {
        let sequence = bundle.tokenizer().sequence(text, config.connector.latent_queries, config.max_tokens());
        sequence.map_err(Error::invalid)?;
    }
    Ok(())
}

/// The pictures as the encoder will see them, if they have no more than `budget` pixels together. Resizing them there once
/// more changes nothing.
fn read_pictures(files: &[PictureFile], size: u32, budget: u64) -> Result<Vec<Picture>, Error> {
    let mut left = budget;
    let read = |(index, file): (usize, &PictureFile)| {
        let picture = Picture::decode_within(&file.0, left.min(MAX_PICTURE_PIXELS)).map_err(|error| match error {
            PictureError::TooLarge { .. } if left < MAX_PICTURE_PIXELS => Error::invalid(format!(
                "the pictures up to number {} have more than {budget} pixels together; make them smaller first",
                index + 1
            )),
            error => Error::invalid(format!("picture number {}: {error}", index + 1)),
        })?;
        left -= u64::from(picture.width()) * u64::from(picture.height());
        Ok(picture.square(size, Filter::Bicubic))
    };
    files.iter().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    #[test]
    fn pictures_share_one_budget() {
        let picture = Picture::new(10, 10, vec![7; 300]).unwrap();
        let files = vec![PictureFile(picture.to_png(None)); 3];
        assert_eq!(read_pictures(&files, 4, 300).unwrap(), vec![picture.square(4, Filter::Bicubic); 3]);
        let error = read_pictures(&files, 4, 299).unwrap_err().into_response();
        let body = pollster::block_on(axum::body::to_bytes(error.into_body(), 1000)).unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(text.contains("the pictures up to number 3 have more than 299 pixels together"), "{text}");
    }
}
