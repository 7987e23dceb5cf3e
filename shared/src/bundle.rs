//! Bundles: how weights travel.
//!
//! A bundle is a folder with a `bundle.json`, the [`Manifest`], a tokenizer, and GGUF files. Each part of the model
//! (`vision`, `mllm`, `aligner`, `unet`, `vae`, `text`, `controlnet-…`) is one or more files, so that a device can take the
//! parts that it runs and leave the rest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::{ClipTextConfig, KosmosGConfig, UNetConfig, VaeConfig};
use crate::denoise::DenoiseSettings;
use crate::preview::PreviewFactors;
use crate::protocol::GenerateSettings;
use crate::sampler::SamplerKind;
use crate::schedule::{NoiseSchedule, SchedulerConfig};
use crate::weights::{HostTensor, WeightError, gguf};

/// The version of the form that this program writes and reads.
pub const FORMAT: u32 = 1;
/// Name of the manifest's file.
pub const MANIFEST: &str = "bundle.json";
/// Files of a part are split at this size, so that a page can fetch them one by one.
const MAX_FILE_BYTES: usize = 256 << 20;

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
    /// Memory that its weights take when loaded, as 32-bit floats.
    pub memory_bytes: u64,
    /// The largest of its tensors when loaded: a device's buffers must hold that much.
    pub largest_tensor_bytes: u64,
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
    /// The manifest cannot be understood.
    #[error("{MANIFEST}: {detail}")]
    Manifest {
        /// What is wrong.
        detail: String,
    },
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
    /// [`BundleError::Manifest`] if it is not one, is of another version, or names files outside its folder.
    pub fn from_json(json: &[u8]) -> Result<Self, BundleError> {
        let malformed = |detail: String| BundleError::Manifest { detail };
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let Version { format } = serde_json::from_slice(json).map_err(|error| malformed(error.to_string()))?;
        if format != FORMAT {
            return Err(malformed(format!("format {format}; this program reads format {FORMAT}")));
        }
        let manifest: Self = serde_json::from_slice(json).map_err(|error| malformed(error.to_string()))?;
        let files = manifest.parts.values().flat_map(|part| &part.files).chain([&manifest.tokenizer]);
        for PartFile { name, .. } in files {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            if name.starts_with('.') || !name.chars().all(plain) {
                return Err(malformed(format!("file name {name:?} is not a plain name")));
            }
        }
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

    /// The tensors of the part called `name` from the contents of its files, in the manifest's order.
    ///
    /// # Errors
    /// [`BundleError::NoPart`], [`BundleError::Corrupt`] or [`BundleError::Weights`].
    pub fn read_part(&self, name: &str, contents: Vec<Vec<u8>>) -> Result<Tensors, BundleError> {
        let mut tensors = Tensors::new();
        for (file, bytes) in self.part(name)?.files.iter().zip(contents) {
            file.check(&bytes)?;
            let part = gguf::read(&file.name, bytes);
            tensors.extend(part.map_err(|source| BundleError::Weights { part: name.to_owned(), source })?);
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

    /// What is asked for, filled up with the defaults, for a request's picture number `picture`.
    pub fn denoise_settings(&self, asked: &GenerateSettings, picture: u64) -> DenoiseSettings {
        let [channels, height, width] = self.latent_shape();
        DenoiseSettings {
            sampler: asked.sampler.unwrap_or(self.defaults.sampler),
            steps: asked.steps.unwrap_or(self.defaults.steps),
            guidance: asked.guidance.unwrap_or(self.defaults.guidance),
            seed: asked.seed,
            picture,
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

/// A bundle in a folder of this machine.
#[derive(Debug, Clone)]
pub struct Folder {
    dir: PathBuf,
    manifest: Manifest,
}

impl Folder {
    /// Opens a bundle; weights are read when asked for.
    ///
    /// # Errors
    /// [`BundleError::Io`] or [`BundleError::Manifest`].
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, BundleError> {
        let dir = dir.into();
        let manifest = Manifest::from_json(&read_file(&dir.join(MANIFEST))?)?;
        Ok(Self { dir, manifest })
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The tensors of the part called `name`.
    ///
    /// # Errors
    /// Any [`BundleError`].
    pub fn part(&self, name: &str) -> Result<Tensors, BundleError> {
        let files = &self.manifest.part(name)?.files;
        let contents = files.iter().map(|file| read_file(&self.dir.join(&file.name)));
        self.manifest.read_part(name, contents.collect::<Result<_, _>>()?)
    }

    /// The tokenizer's JSON.
    ///
    /// # Errors
    /// [`BundleError::Io`] or [`BundleError::Corrupt`].
    pub fn tokenizer(&self) -> Result<Vec<u8>, BundleError> {
        let file = &self.manifest.tokenizer;
        let contents = read_file(&self.dir.join(&file.name))?;
        file.check(&contents)?;
        Ok(contents)
    }
}

/// Writes a bundle into the folder `dir`, which it makes, and returns its manifest. `draft` says everything but files.
///
/// # Errors
/// [`BundleError::Io`].
pub fn write(
    dir: &Path,
    draft: Manifest,
    tokenizer: &[u8],
    parts: &BTreeMap<String, Tensors>,
) -> Result<Manifest, BundleError> {
    std::fs::create_dir_all(dir).map_err(|source| BundleError::Io { path: dir.to_owned(), source })?;
    let mut manifest =
        Manifest { tokenizer: PartFile::new("tokenizer.json", tokenizer), parts: BTreeMap::new(), ..draft };
    write_file(&dir.join("tokenizer.json"), tokenizer)?;
    for (name, tensors) in parts {
        let shards = split(tensors);
        let mut files = Vec::with_capacity(shards.len());
        for (i, shard) in shards.iter().enumerate() {
            let file_name = match shards.len() {
                1 => format!("{name}.gguf"),
                n => format!("{name}-{:05}-of-{n:05}.gguf", i + 1),
            };
            let contents = gguf::write(shard);
            write_file(&dir.join(&file_name), &contents)?;
            files.push(PartFile::new(&file_name, &contents));
        }
        let loaded = |tensor: &HostTensor| tensor.shape().iter().product::<usize>() as u64 * 4;
        let part = Part {
            bytes: files.iter().map(|file| file.bytes).sum(),
            memory_bytes: tensors.values().map(loaded).sum(),
            largest_tensor_bytes: tensors.values().map(loaded).max().unwrap_or(0),
            files,
        };
        manifest.parts.insert(name.clone(), part);
    }
    let json = serde_json::to_vec_pretty(&manifest).expect("a manifest is plain data");
    write_file(&dir.join(MANIFEST), &json)?;
    Ok(manifest)
}

/// Tensors in groups of at most [`MAX_FILE_BYTES`], a larger tensor alone.
fn split(tensors: &Tensors) -> Vec<Tensors> {
    let mut shards = vec![Tensors::new()];
    let mut bytes = 0;
    for (name, tensor) in tensors {
        if bytes > 0 && bytes + tensor.bytes().len() > MAX_FILE_BYTES {
            shards.push(Tensors::new());
            bytes = 0;
        }
        bytes += tensor.bytes().len();
        shards.last_mut().expect("there is a first shard").insert(name.clone(), tensor.clone());
    }
    shards
}

fn sha256(contents: &[u8]) -> String {
    Sha256::digest(contents).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read_file(path: &Path) -> Result<Vec<u8>, BundleError> {
    std::fs::read(path).map_err(|source| BundleError::Io { path: path.to_owned(), source })
}

fn write_file(path: &Path, contents: &[u8]) -> Result<(), BundleError> {
    std::fs::write(path, contents).map_err(|source| BundleError::Io { path: path.to_owned(), source })
}
