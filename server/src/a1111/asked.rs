//! What a client asks for, and what of it there is here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kosmosg::protocol::{GenerateSettings, Lora, MAX_REQUEST_PICTURES};
use kosmosg::sampler::SamplerKind;
use kosmosg::wire;
use serde::Deserialize;

use super::flag::Flag;
use super::options::Options;
use super::{by_title, read};
use crate::bundles::Bundles;
use crate::error::Error;
use crate::order::{Wanted, any_seed, check_length};

/// What leaves the choice of a sampler or scheduler to the server.
pub(super) const AUTOMATIC: &str = "Automatic";
/// The scheduler that one of the samplers has.
pub(super) const KARRAS: &str = "Karras";
/// A sampler that many clients ask for unless told otherwise. It adds noise and has no twin here; the nearest one takes its
/// place.
const EULER_A: &str = "Euler a";

/// What a request says, of what has a meaning here or would change the picture elsewhere. Clients send every field, unset ones
/// as null.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    prompt: Option<String>,
    negative_prompt: Option<String>,
    seed: Option<i64>,
    steps: Option<usize>,
    cfg_scale: Option<f64>,
    width: Option<u32>,
    height: Option<u32>,
    pub(super) batch_size: Option<u64>,
    n_iter: Option<u64>,
    sampler_name: Option<String>,
    sampler_index: Option<String>,
    scheduler: Option<String>,
    pub(super) send_images: Option<bool>,
    #[serde(deserialize_with = "wire::optional_list::<_, _, MAX_REQUEST_PICTURES>")]
    pub(super) init_images: Option<Vec<String>>,
    pub(super) denoising_strength: Option<f64>,
    mask: Flag,
    enable_hr: Flag,
    script_name: Flag,
    tiling: Flag,
    restore_faces: Flag,
    subseed_strength: Flag,
    styles: Flag,
    override_settings: Option<Options>,
}

impl Asked {
    /// Reads the body of `POST /sdapi/v1/txt2img` and `img2img`.
    ///
    /// # Errors
    /// It is none.
    pub fn read(body: &[u8]) -> Result<Self, Error> {
        read(body)
    }

    /// What it asks for; of the model that was `chosen` before, unless it names one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn wanted(&self, chosen: Option<String>, bundles: &Bundles) -> Result<Wanted, Error> {
        for (Flag(is_set), what) in [
            (self.enable_hr, "enable_hr: this server has no second pass"),
            (self.mask, "mask: this model edits by words and takes no mask"),
            (self.script_name, "script_name: this server has no scripts"),
            (self.tiling, "tiling: the edges of this model's pictures do not fit together"),
            (self.restore_faces, "restore_faces: this server has no second model for faces"),
            (self.subseed_strength, "subseed_strength: this server does not mix seeds"),
            (self.styles, "styles: this server has none; write their words in the prompt"),
        ] {
            if is_set {
                return Err(Error::invalid(what));
            }
        }
        let title = self.override_settings.as_ref().and_then(|options| options.sd_model_checkpoint.as_ref());
        let model = title.map(|title| by_title(bundles, title)).transpose()?.or(chosen);
        let sampler = sampler(self.sampler_name(), self.scheduler.as_deref())?;
        let pictures = self.init_images.iter().flatten().map(|picture| decode(picture)).collect::<Result<_, _>>()?;
        let seed = self.seed.and_then(|seed| u64::try_from(seed).ok()).unwrap_or_else(any_seed);
        let (prompt, loras) = loras_in(self.prompt.as_deref().unwrap_or_default())?;
        Ok(Wanted {
            model,
            prompt,
            pictures,
            negative: self.negative_prompt.clone().unwrap_or_default(),
            settings: GenerateSettings {
                seed,
                picture: 0,
                sampler,
                steps: self.steps,
                guidance: self.cfg_scale,
                width: self.width,
                height: self.height,
            },
            loras,
            count: self.batch_size.unwrap_or(1).saturating_mul(self.n_iter.unwrap_or(1)),
        })
    }

    fn sampler_name(&self) -> Option<&str> {
        let names = [&self.sampler_name, &self.sampler_index];
        names.into_iter().flatten().map(String::as_str).find(|name| !name.is_empty())
    }

    /// What is done in another way than it says.
    pub(super) fn warnings(&self) -> Vec<&'static str> {
        match self.sampler_name() {
            Some(name) if name.eq_ignore_ascii_case(EULER_A) => {
                vec!["Euler a adds noise, which this server does not; Euler took its place"]
            }
            _ => Vec::new(),
        }
    }
}

/// A picture in base64, perhaps as an address of the form `data:`.
pub(super) fn decode(picture: &str) -> Result<Vec<u8>, Error> {
    let data =
        picture.strip_prefix("data:").and_then(|address| address.split_once(',')).map_or(picture, |(_, data)| data);
    STANDARD.decode(data.trim()).map_err(|error| Error::invalid(format!("a picture is no base64: {error}")))
}

/// A prompt's words, and the LoRAs that it asks for. A LoRA may have two strengths, of which the second is the U-Net's; the first
/// is then that of a text encoder that there is not here.
fn loras_in(prompt: &str) -> Result<(String, Vec<Lora>), Error> {
    check_length(prompt)?;
    let (mut words, mut loras, mut rest) = (String::new(), Vec::new(), prompt);
    while let Some((before, (asked, after))) =
        rest.split_once("<lora:").and_then(|(before, tag)| Some((before, tag.split_once('>')?)))
    {
        let mut fields = asked.split(':');
        let name = fields.next().unwrap_or_default().to_owned();
        let scale = fields.next_back().unwrap_or("1");
        let scale = scale.trim().parse().map_err(|_| {
            Error::invalid(format!("the strength of the LoRA {name:?} is {scale:?}, expected a number"))
        })?;
        loras.push(Lora { name, scale });
        words += before;
        rest = after;
    }
    Ok((words + rest, loras))
}

/// The sampler of that name over the noise levels of that scheduler; none is left to the model.
fn sampler(name: Option<&str>, scheduler: Option<&str>) -> Result<Option<SamplerKind>, Error> {
    let is_called =
        |name: &str, kind: SamplerKind| [kind.label(), kind.name()].iter().any(|own| own.eq_ignore_ascii_case(name));
    let kind = match name {
        None => None,
        Some(name) if name.eq_ignore_ascii_case(AUTOMATIC) => None,
        Some(name) if name.eq_ignore_ascii_case(EULER_A) => Some(SamplerKind::Euler),
        Some(name) => Some(SamplerKind::ALL.into_iter().find(|&kind| is_called(name, kind)).ok_or_else(|| {
            let names = SamplerKind::ALL.map(SamplerKind::label).join(", ");
            Error::not_found(format!("Sampler not found: there is no {name:?}; choose one of {names}"))
        })?),
    };
    match scheduler {
        None | Some("") => Ok(kind),
        Some(scheduler) if scheduler.eq_ignore_ascii_case(AUTOMATIC) => Ok(kind),
        Some(scheduler) if scheduler.eq_ignore_ascii_case(KARRAS) => match kind {
            None | Some(SamplerKind::DpmppTwoM | SamplerKind::DpmppTwoMKarras) => {
                Ok(Some(SamplerKind::DpmppTwoMKarras))
            }
            Some(other) => Err(Error::invalid(format!(
                "scheduler: {KARRAS} goes with {}, not with {}",
                SamplerKind::DpmppTwoM.label(),
                other.label()
            ))),
        },
        Some(other) => Err(Error::invalid(format!("scheduler: there is no {other:?}; choose {AUTOMATIC} or {KARRAS}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sampler_is_the_one_that_was_asked_for() {
        use SamplerKind::{DpmppTwoM, DpmppTwoMKarras, Euler};
        for (name, scheduler, expected) in [
            (None, None, None),
            (Some("Automatic"), Some("automatic"), None),
            (Some("Euler"), Some(""), Some(Euler)),
            (Some("Euler a"), Some("Automatic"), Some(Euler)),
            (Some("dpmpp-2m"), None, Some(DpmppTwoM)),
            (Some("DPM++ 2M"), Some("karras"), Some(DpmppTwoMKarras)),
            (Some("DPM++ 2M Karras"), Some("Automatic"), Some(DpmppTwoMKarras)),
            (None, Some("Karras"), Some(DpmppTwoMKarras)),
        ] {
            assert_eq!(sampler(name, scheduler).unwrap(), expected, "{name:?} {scheduler:?}");
        }
        for (name, scheduler, complaint) in [
            ("Heun", None, "there is no \"Heun\"; choose one of DPM++ 2M, DPM++ 2M Karras, DDIM, PLMS, Euler, UniPC"),
            ("Euler", Some("Karras"), "Karras goes with DPM++ 2M, not with Euler"),
            ("DPM++ 2M", Some("Exponential"), "there is no \"Exponential\"; choose Automatic or Karras"),
        ] {
            let error = sampler(Some(name), scheduler).unwrap_err();
            assert!(error.body().message.contains(complaint), "{}", error.body());
        }
    }

    #[test]
    fn loras_are_no_words() {
        let found = |prompt: &str| loras_in(prompt).unwrap();
        let lora = |name: &str, scale| Lora { name: name.into(), scale };
        assert_eq!(found("a cat<lora:wool:0.8>"), ("a cat".into(), vec![lora("wool", 0.8)]));
        let both = found("<lora:a b>a <i> in <lora:silk:1:-0.5>the snow");
        assert_eq!(both, ("a <i> in the snow".into(), vec![lora("a b", 1.0), lora("silk", -0.5)]));
        for words in ["a cat", "a <i>", "<lora:wool", "lora:wool:1>", ""] {
            assert_eq!(found(words), (words.into(), vec![]));
        }
        let error = loras_in("<lora:wool:much>").unwrap_err();
        assert!(error.body().message.contains("is \"much\", expected a number"), "{}", error.body());
    }
}
