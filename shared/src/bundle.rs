//! Bundles: how weights travel.
//!
//! A bundle is a folder with a `bundle.json`, the [`Manifest`], a tokenizer, and GGUF files. Each part of the model
//! (`vision`, `mllm`, `aligner`, `unet`, `vae`, `text`, `controlnet-…`) is one or more files, so that a device can take the
//! parts that it runs and leave the rest.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::{ClipTextConfig, ConfigError, KosmosGConfig, UNetConfig, VaeConfig};
use crate::denoise::DenoiseSettings;
use crate::digest::sha256;
use crate::json::Json;
use crate::placement::Stage;
use crate::preview::PreviewFactors;
use crate::protocol::GenerateSettings;
use crate::sampler::SamplerKind;
use crate::schedule::{NoiseSchedule, SchedulerConfig};
use crate::tokenizer::TokenizerError;
use crate::weights::{HostTensor, WeightError, gguf};

pub use folder::Folder;
pub use stored::{ReadAt, Stored, StoredPart};
pub use writer::{Existing, Planned, Writer, write};

mod folder;
mod stored;
mod writer;

/// The version of the form that this program writes and reads.
pub const FORMAT: u32 = 1;
/// Name of the manifest's file.
pub const MANIFEST: &str = "bundle.json";

/// Weights by name.
pub type Tensors = BTreeMap<String, HostTensor>;

/// `bundle.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// A name for people.
    pub name: String,
    /// Which networks it is made of.
    pub family: Family,
    /// Side of the square pictures that it makes by default, in pixels.
    pub picture_size: usize,
    /// The networks' sizes.
    pub networks: Networks,
    /// The noise schedule, as diffusers writes it.
    pub scheduler: SchedulerConfig,
    /// What to use when nobody says otherwise.
    pub defaults: Defaults,
    /// How latents look; see [`Manifest::preview_factors`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<PreviewFactors>,
    /// The tokenizer, in the form of the tokenizers crate.
    pub tokenizer: PartFile,
    /// Terms of use.
    pub licence: String,
    /// Where the weights come from.
    pub origin: String,
    /// The parts by name.
    pub parts: BTreeMap<String, Part>,
}

/// What a bundle is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// KOSMOS-G before a Stable Diffusion 1.5 decoder.
    KosmosG,
}

/// The networks' sizes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Networks {
    /// Vision tower, resampler, language model and AlignerNet.
    pub kosmosg: KosmosGConfig,
    /// U-Net.
    pub unet: UNetConfig,
    /// Autoencoder.
    pub vae: VaeConfig,
    /// CLIP's text model, if the bundle has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<ClipTextConfig>,
}

/// What to use when nobody says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Defaults {
    /// Sampler.
    pub sampler: SamplerKind,
    /// Denoising steps.
    pub steps: usize,
    /// Guidance scale.
    pub guidance: f64,
}

/// A part of the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its files, which together hold its tensors.
    pub files: Vec<PartFile>,
    /// Size of the files together.
    pub bytes: u64,
    /// Memory that its weights take when loaded.
    pub memory_bytes: u64,
    /// The largest of its tensors when loaded: a device's buffers must hold that much.
    pub largest_tensor_bytes: u64,
}

/// What of a bundle somebody needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All before the U-Net: from a prompt to a condition.
    Encoder,
    /// All that a picture takes.
    Picture,
}

impl Scope {
    /// What can be done with it.
    pub fn stages(self) -> &'static [Stage] {
        match self {
            Scope::Encoder => &[Stage::Encode],
            Scope::Picture => &Stage::ALL,
        }
    }
}

/// A file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartFile {
    /// Name within the folder.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 in lower-case hexadecimal.
    pub sha256: String,
}

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Where a bundle is to be, something is that stays.
    #[error("{} {why}", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
        /// What is there, and what to do.
        why: String,
    },
    /// The manifest cannot be understood.
    #[error("{MANIFEST}: {detail}")]
    Manifest {
        /// What is wrong.
        detail: String,
    },
    /// The tokenizer's file cannot be used.
    #[error(transparent)]
    Tokenizer(TokenizerError),
    /// The bundle lacks a part.
    #[error("the bundle has no part `{part}`; it has {}", has.join(", "))]
    NoPart {
        /// The part asked for.
        part: String,
        /// The parts that are there.
        has: Vec<String>,
    },
    /// A file is not what the manifest says.
    #[error("{file} is corrupt: {detail}; fetch it again")]
    Corrupt {
        /// The file.
        file: String,
        /// What differs.
        detail: String,
    },
    /// The weights do not fit the networks.
    #[error("part `{part}`: {source}")]
    Weights {
        /// The part.
        part: String,
        /// What does not fit.
        source: WeightError,
    },
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// [`BundleError::Manifest`] if it is not one, is of another version, names files outside its folder, or says sizes that
    /// no networks have.
    pub fn from_json(file: &[u8]) -> Result<Self, BundleError> {
        let malformed = |detail: String| BundleError::Manifest { detail };
        let json = Json::parse(file).map_err(|error| malformed(error.to_string()))?;
        // Another format may have other fields, or none of ours.
        match json.get("format") {
            Some(&Json::Whole(format)) if format == u64::from(FORMAT) => {}
            Some(Json::Whole(format)) => {
                return Err(malformed(format!("format {format}; this program reads format {FORMAT}")));
            }
            _ => return Err(malformed("missing field `format`".into())),
        }
        let manifest: Self = json.to().map_err(|error| malformed(error.to_string()))?;
        for PartFile { name, .. } in manifest.all_files() {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            if name.starts_with('.') || !name.chars().all(plain) {
                return Err(malformed(format!("file name {name:?} is not a plain name")));
            }
        }
        manifest.networks.validate().map_err(|error| malformed(error.within("networks").to_string()))?;
        let (side, downscale) = (manifest.picture_size, manifest.networks.vae.downscale());
        if side == 0 || !side.is_multiple_of(downscale) {
            return Err(malformed(format!("picture_size is {side}, expected a multiple of {downscale} pixels")));
        }
        let usual = manifest.denoise_settings(&GenerateSettings::default(), 0);
        usual.validate().map_err(|error| malformed(format!("picture_size or defaults: {error}")))?;
        Ok(manifest)
    }

    /// The part called `name`.
    ///
    /// # Errors
    /// [`BundleError::NoPart`].
    pub fn part(&self, name: &str) -> Result<&Part, BundleError> {
        self.parts
            .get(name)
            .ok_or_else(|| BundleError::NoPart { part: name.to_owned(), has: self.parts.keys().cloned().collect() })
    }

    /// The tokenizer and the files of the parts that a scope needs; parts that are missing have none.
    pub fn files(&self, scope: Scope) -> impl Iterator<Item = &PartFile> {
        let names = scope.stages().iter().flat_map(|stage| stage.parts());
        let parts = names.filter_map(|&part| self.parts.get(part));
        [&self.tokenizer].into_iter().chain(parts.flat_map(|part| &part.files))
    }

    /// The tokenizer and the files of all parts.
    pub(super) fn all_files(&self) -> impl Iterator<Item = &PartFile> {
        [&self.tokenizer].into_iter().chain(self.parts.values().flat_map(|part| &part.files))
    }

    /// The tensors of the part called `name` from the contents of its files, which `read` has.
    ///
    /// # Errors
    /// [`BundleError::NoPart`], [`BundleError::Corrupt`] or [`BundleError::Weights`]; what `read` fails with.
    pub fn read_part<F: From<BundleError>>(
        &self,
        name: &str,
        mut read: impl FnMut(&PartFile) -> Result<Vec<u8>, F>,
    ) -> Result<Tensors, F> {
        let mut tensors = Tensors::new();
        for file in &self.part(name)?.files {
            let bytes = read(file)?;
            file.check(&bytes)?;
            let in_part = |source| BundleError::Weights { part: name.to_owned(), source };
            for (tensor, numbers) in gguf::read(&file.name, &bytes).map_err(in_part)? {
                if tensors.contains_key(&tensor) {
                    let detail = format!("tensor `{tensor}` is in an earlier file too");
                    return Err(in_part(WeightError::Malformed { what: file.name.clone(), detail }).into());
                }
                tensors.insert(tensor, numbers);
            }
        }
        Ok(tensors)
    }

    /// Shape of a picture's latents at the default size: channels, height, width.
    pub fn latent_shape(&self) -> [usize; 3] {
        let side = self.picture_size / self.networks.vae.downscale();
        [self.networks.vae.latent_channels, side, side]
    }

    /// The noise schedule.
    ///
    /// # Errors
    /// [`BundleError::Manifest`] if its settings make no schedule.
    pub fn schedule(&self) -> Result<NoiseSchedule, BundleError> {
        NoiseSchedule::from_config(&self.scheduler)
            .map_err(|error| BundleError::Manifest { detail: format!("scheduler: {error}") })
    }

    /// What is asked for, filled up with the defaults, for a request's picture number `picture`, counted from the
    /// one that is asked for. Of width and height what
    /// makes no whole latent is left out; [`DenoiseSettings::validate`] refuses what is left of too little.
    pub fn denoise_settings(&self, asked: &GenerateSettings, picture: u64) -> DenoiseSettings {
        let [channels, height, width] = self.latent_shape();
        let latents =
            |pixels: Option<u32>, usual| pixels.map_or(usual, |pixels| pixels as usize / self.networks.vae.downscale());
        let (height, width) = (latents(asked.height, height), latents(asked.width, width));
        DenoiseSettings {
            sampler: asked.sampler.unwrap_or(self.defaults.sampler),
            steps: asked.steps.unwrap_or(self.defaults.steps),
            guidance: asked.guidance.unwrap_or(self.defaults.guidance),
            seed: asked.seed,
            picture: asked.picture.saturating_add(picture),
            channels,
            height,
            width,
        }
    }

    /// How this autoencoder's latents look: its own factors, or Stable Diffusion's where there are as many channels.
    pub fn preview_factors(&self) -> Option<PreviewFactors> {
        let stable_diffusion = Some(PreviewFactors::stable_diffusion());
        let channels = self.networks.vae.latent_channels;
        self.preview.clone().or(stable_diffusion.filter(|factors| factors.weights.len() == channels))
    }

    /// What the decoder takes as a condition: tokens and width.
    pub fn condition_shape(&self) -> [usize; 2] {
        [self.networks.kosmosg.aligner.queries, self.networks.kosmosg.aligner.dim]
    }
}

impl Networks {
    /// Whether there can be networks of these sizes, and each can take what the one before it gives.
    ///
    /// # Errors
    /// [`ConfigError`] for the first setting that cannot be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let Self { kosmosg, unet, vae, text } = self;
        kosmosg.validate().map_err(|error| error.within("kosmosg"))?;
        unet.validate().map_err(|error| error.within("unet"))?;
        vae.validate().map_err(|error| error.within("vae"))?;
        if let Some(text) = text {
            text.validate().map_err(|error| error.within("text"))?;
        }
        for (setting, found, like, expected) in [
            ("unet.cross_attention_dim", unet.cross_attention_dim, "kosmosg.aligner.dim", kosmosg.aligner.dim),
            ("unet.in_channels", unet.in_channels, "vae.latent_channels", vae.latent_channels),
            ("unet.out_channels", unet.out_channels, "vae.latent_channels", vae.latent_channels),
        ] {
            if found != expected {
                return Err(ConfigError::new(setting, found, format_args!("{expected}, as {like} is")));
            }
        }
        Ok(())
    }
}

impl Part {
    /// The part's version: its file's SHA-256, or the SHA-256 of its files' SHA-256s in order if there are several.
    pub fn sha256(&self) -> String {
        match self.files.as_slice() {
            [file] => file.sha256.clone(),
            files => sha256(files.iter().map(|file| file.sha256.as_str()).collect::<String>().as_bytes()),
        }
    }
}

impl PartFile {
    /// The entry of a file with these contents.
    pub fn new(name: &str, contents: &[u8]) -> Self {
        Self { name: name.to_owned(), bytes: contents.len() as u64, sha256: sha256(contents) }
    }

    /// Whether these are the file's contents.
    ///
    /// # Errors
    /// [`BundleError::Corrupt`].
    pub fn check(&self, contents: &[u8]) -> Result<(), BundleError> {
        let corrupt = |detail| BundleError::Corrupt { file: self.name.clone(), detail };
        if contents.len() as u64 != self.bytes {
            return Err(corrupt(format!("{} bytes, expected {}", contents.len(), self.bytes)));
        }
        let found = sha256(contents);
        if found != self.sha256 {
            return Err(corrupt(format!("SHA-256 {found}, expected {}", self.sha256)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn manifest(changes: &[(&str, Value)]) -> Result<Manifest, BundleError> {
        let mut json = json!({
            "format": 1, "name": "test", "family": "kosmos-g", "picture_size": 64,
            "networks": {
                "kosmosg": KosmosGConfig::published(),
                "unet": {
                    "block_out_channels": [32], "layers_per_block": 1, "down_block_types": ["DownBlock2D"],
                    "up_block_types": ["UpBlock2D"], "cross_attention_dim": 768,
                },
                "vae": { "block_out_channels": [32, 32], "layers_per_block": 1 },
            },
            "scheduler": SchedulerConfig::stable_diffusion(),
            "defaults": { "sampler": "dpmpp-2m", "steps": 10, "guidance": 3.0 },
            "tokenizer": PartFile::new("tokenizer.json", b""),
            "licence": "", "origin": "",
            "parts": { "unet": { "files": [], "bytes": 0, "memory_bytes": 0, "largest_tensor_bytes": 0 } },
        });
        for (pointer, value) in changes {
            *json.pointer_mut(pointer).unwrap() = value.clone();
        }
        Manifest::from_json(&serde_json::to_vec(&json).unwrap())
    }

    #[test]
    fn sizes_that_do_not_fit_are_named() {
        assert!(manifest(&[]).is_ok());
        for (pointer, value, complaint) in [
            (
                "/networks/kosmosg/vision/patch_size",
                json!(0),
                "networks.kosmosg.vision.patch_size is 0, expected a divisor",
            ),
            ("/networks/unet/block_out_channels", json!([]), "networks.unet.block_out_channels has 0 entries"),
            (
                "/networks/unet/cross_attention_dim",
                json!(8),
                "cross_attention_dim is 8, expected 768, as kosmosg.aligner.dim is",
            ),
            ("/networks/vae/block_out_channels", json!(vec![32; 99]), "expected 1 to 16"),
            ("/picture_size", json!(0), "picture_size is 0, expected a multiple of 2 pixels"),
            ("/picture_size", json!(63), "picture_size is 63"),
            ("/picture_size", json!(1 << 20), "picture_size or defaults: latents of 4 × 524288"),
        ] {
            let error = manifest(&[(pointer, value)]).unwrap_err().to_string();
            assert!(error.starts_with("bundle.json: ") && error.contains(complaint), "{error}");
        }
    }

    #[test]
    fn a_tensor_in_two_files_is_an_error() {
        let tensors = Tensors::from([("x".to_owned(), HostTensor::from_f32(vec![1], &[1.0]))]);
        let file = gguf::write(&tensors);
        let files = [PartFile::new("a.gguf", &file), PartFile::new("b.gguf", &file)];
        let read = |files: &[PartFile]| {
            let manifest = manifest(&[("/parts/unet/files", json!(files))]).unwrap();
            manifest.read_part("unet", |_| Ok::<_, BundleError>(file.clone()))
        };
        assert_eq!(read(&files[..1]).unwrap().len(), 1);
        let error = read(&files).unwrap_err().to_string();
        assert_eq!(error, "part `unet`: b.gguf: tensor `x` is in an earlier file too");
    }

    #[test]
    fn a_part_has_one_version() {
        let [a, b] = ["a", "b"].map(|name| PartFile::new(name, name.as_bytes()));
        let version = |files: &[&PartFile]| {
            let files = files.iter().map(|&file| file.clone()).collect();
            Part { files, bytes: 0, memory_bytes: 0, largest_tensor_bytes: 0 }.sha256()
        };
        assert_eq!(version(&[&a]), a.sha256);
        assert_ne!(version(&[&a, &b]), version(&[&b, &a]));
    }
}
