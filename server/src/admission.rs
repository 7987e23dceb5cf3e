//! From a request's bytes to [`Work`]: everything that can be known to be wrong is refused here, before it waits.

use std::sync::Arc;

use kosmosg::denoise::{DenoiseError, DenoiseSettings, DenoiseState};
use kosmosg::picture::{Filter, Picture};
use kosmosg::prompt::{PromptDocument, PromptError};
use kosmosg::protocol::{JobRequest, PictureFile};

use crate::bundles::{Bundle, Bundles};
use crate::error::Error;
use crate::work::{Goal, Work};

/// Most pictures of a prompt.
pub const MAX_PICTURES: usize = 32;
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
    match request {
        JobRequest::Denoise { bundle, condition, state } => {
            let bundle = Arc::clone(bundles.get(&bundle)?);
            condition.validate(bundle.manifest().condition_shape()).map_err(Error::invalid)?;
            check(state.settings(), &bundle)?;
            Ok(Work { bundle, goal: Goal::Condition(condition), state })
        }
        JobRequest::Generate { bundle, prompt, pictures, negative, settings } => {
            let bundle = Arc::clone(bundles.get(&bundle)?);
            let settings = bundle.manifest().denoise_settings(&settings, 0);
            check(&settings, &bundle)?;
            let state = DenoiseState::new(settings, bundle.schedule()).map_err(Error::invalid)?;
            check_prompt(&prompt, pictures.len(), &negative, &bundle)?;
            let size = bundle.manifest().networks.kosmosg.vision.image_size as u32;
            let pictures = pictures.iter().enumerate().map(|(index, file)| read_picture(index, file, size));
            let goal = Goal::Prompt { prompt, pictures: pictures.collect::<Result<_, _>>()?, negative };
            Ok(Work { bundle, goal, state })
        }
    }
}

fn check(settings: &DenoiseSettings, bundle: &Bundle) -> Result<(), Error> {
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

fn check_prompt(prompt: &PromptDocument, pictures: usize, negative: &str, bundle: &Bundle) -> Result<(), Error> {
    if pictures > MAX_PICTURES {
        return Err(Error::invalid(format!("{pictures} pictures; at most {MAX_PICTURES} are allowed")));
    }
    prompt.check_pictures(pictures).map_err(Error::invalid)?;
    if !(0..pictures).all(|picture| prompt.images().any(|place| place.picture == picture)) {
        return Err(Error::invalid(PromptError::PictureCount { pictures, places: prompt.images().count() }));
    }
    let config = &bundle.manifest().networks.kosmosg;
    for text in [prompt, &PromptDocument::from_words(negative)] {
        let sequence = bundle.tokenizer().sequence(text, config.connector.latent_queries, config.max_tokens());
        sequence.map_err(Error::invalid)?;
    }
    Ok(())
}

/// The picture as the encoder will see it. Resizing it there once more changes nothing.
fn read_picture(index: usize, file: &PictureFile, size: u32) -> Result<Picture, Error> {
    let picture = Picture::decode(&file.0);
    let picture = picture.map_err(|error| Error::invalid(format!("picture number {}: {error}", index + 1)))?;
    Ok(picture.square(size, Filter::Bicubic))
}
