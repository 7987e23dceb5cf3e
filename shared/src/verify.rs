//! Our numbers against numbers that the public implementations computed.
//!
//! A *fixture* is a folder of a small network, inputs, and expected outputs, in one of four forms; see [`Form`]. The files
//! come as bytes, so that the page can verify its own engine too.

use std::collections::BTreeMap;

use crate::bundle::Tensors;
use crate::engine::{Engine, EngineError, Tensor};
use crate::weights::{WeightError, safetensors};

mod kosmosg;
mod preprocess;
mod sd;

pub use kosmosg::{KosmosGFixture, align_losses, kosmosg};
pub use preprocess::preprocess;
pub use sd::stable_diffusion;

/// Largest relative error of one network on an engine that computes in f32.
pub const NETWORK: f64 = 1e-5;
/// Largest relative error of a whole sampling run, a loss or a gradient.
pub const RUN: f64 = 1e-4;
/// Largest relative error of pixels after resizing.
pub const PIXELS: f64 = 2e-3;

/// Contents of a fixture's files by their path within the folder, `/` between its parts.
pub type Files = BTreeMap<String, Vec<u8>>;

/// What a fixture is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Vision tower, resampler, language model, AlignerNet and CLIP's text model: `model.safetensors` in the published
    /// names, `config.json`, `cases.safetensors`, `text_encoder/`.
    KosmosG,
    /// U-Net, autoencoder, ControlNet, LoRA and samplers: diffusers' folders, `cases.safetensors`, `cases.json`.
    StableDiffusion,
    /// Pictures and the pixel values that the networks take: `cases.json`, `cases.safetensors`, picture files.
    Preprocess,
    /// Prompts and their token ids: `sentencepiece.bpe.model`, `dict.txt`, `cases.json` or `prompts.json`.
    Tokenizer,
}

impl Form {
    /// The form of a folder with these files.
    pub fn of(files: &Files) -> Option<Self> {
        let has = |name: &str| files.contains_key(name);
        if has("model.safetensors") && has("cases.safetensors") && has("config.json") {
            Some(Form::KosmosG)
        } else if has("unet/config.json") && has("cases.safetensors") {
            Some(Form::StableDiffusion)
        } else if has("sentencepiece.bpe.model") && has("dict.txt") {
            Some(Form::Tokenizer)
        } else if has("cases.json") && has("cases.safetensors") {
            Some(Form::Preprocess)
        } else {
            None
        }
    }
}

/// One comparison.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Row {
    /// The fixture's name for the tensor.
    pub tensor: String,
    /// `‖ours − theirs‖ / ‖theirs‖`; infinite where the shapes differ.
    pub error: f64,
    /// The largest error allowed.
    pub tolerance: f64,
}

impl Row {
    /// Whether the error is within the tolerance.
    pub fn passed(&self) -> bool {
        self.error <= self.tolerance
    }
}

/// Why a fixture could not be compared at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// A file that its form has is missing.
    #[error("{0} is missing")]
    MissingFile(String),
    /// A file cannot be understood.
    #[error("{file}: {detail}")]
    Malformed {
        /// The file.
        file: String,
        /// What is wrong.
        detail: String,
    },
    /// Weights or cases do not fit.
    #[error(transparent)]
    Weights(#[from] WeightError),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Expected tensors, and the comparisons made with them so far.
pub struct Cases {
    floats: Tensors,
    integers: BTreeMap<String, safetensors::Integers>,
    rows: Vec<Row>,
}

impl Cases {
    /// Reads the fixture's `cases.safetensors`.
    ///
    /// # Errors
    /// [`VerifyError`] if it is missing or malformed.
    pub fn read(files: &Files) -> Result<Self, VerifyError> {
        let bytes = file(files, "cases.safetensors")?;
        Ok(Self {
            floats: safetensors::read("cases.safetensors", bytes.to_vec())?,
            integers: safetensors::read_integers("cases.safetensors", bytes)?,
            rows: Vec::new(),
        })
    }

    /// Names of the expected tensors that end in `suffix`, without it.
    pub fn stems(&self, suffix: &str) -> Vec<String> {
        self.floats.keys().filter_map(|name| name.strip_suffix(suffix)).map(str::to_owned).collect()
    }

    /// Whether there is a tensor of numbers of that name.
    pub fn has(&self, name: &str) -> bool {
        self.floats.contains_key(name)
    }

    /// Numbers and shape of an input.
    ///
    /// # Errors
    /// [`WeightError::Missing`].
    pub fn numbers(&self, name: &str) -> Result<(Vec<f32>, Vec<usize>), VerifyError> {
        let tensor = self.floats.get(name).ok_or_else(|| missing(name))?;
        Ok((tensor.to_f32(), tensor.shape().to_vec()))
    }

    /// An input on the device.
    ///
    /// # Errors
    /// [`WeightError::Missing`] or [`WeightError::Malformed`] if its rank is not `D`.
    pub fn tensor<E: Engine, const D: usize>(
        &self,
        name: &str,
        device: &E::Device,
    ) -> Result<Tensor<E, D>, VerifyError> {
        let (numbers, shape) = self.numbers(name)?;
        let shape = <[usize; D]>::try_from(shape).map_err(|shape| WeightError::Malformed {
            what: name.to_owned(),
            detail: format!("shape {shape:?}, expected {D} dimensions"),
        })?;
        Ok(Tensor::from_host(numbers, shape, device))
    }

    /// An input of whole numbers that are not negative, with its shape.
    ///
    /// # Errors
    /// [`WeightError::Missing`] or [`WeightError::Malformed`].
    pub fn integers(&self, name: &str) -> Result<(Vec<u32>, Vec<usize>), VerifyError> {
        let (shape, numbers) = self.integers.get(name).ok_or_else(|| missing(name))?;
        let numbers = numbers.iter().map(|&x| u32::try_from(x)).collect::<Result<_, _>>();
        let numbers =
            numbers.map_err(|_| WeightError::Malformed { what: name.to_owned(), detail: "a number below 0".into() })?;
        Ok((numbers, shape.clone()))
    }

    /// Compares a tensor with the expected one of that name.
    ///
    /// # Errors
    /// [`WeightError::Missing`] if nothing of that name is expected; [`EngineError`].
    pub async fn compare<E: Engine, const D: usize>(
        &mut self,
        name: &str,
        ours: &Tensor<E, D>,
        tolerance: f64,
    ) -> Result<(), VerifyError> {
        let numbers = ours.to_host().await?;
        self.compare_numbers(name, &numbers, &ours.shape(), tolerance)
    }

    /// The same for numbers on the host.
    ///
    /// # Errors
    /// [`WeightError::Missing`] if nothing of that name is expected.
    pub fn compare_numbers(
        &mut self,
        name: &str,
        ours: &[f32],
        shape: &[usize],
        tolerance: f64,
    ) -> Result<(), VerifyError> {
        let (theirs, expected) = self.numbers(name)?;
        let error = if shape == expected { relative_error(ours, &theirs) } else { f64::INFINITY };
        self.rows.push(Row { tensor: name.to_owned(), error, tolerance });
        Ok(())
    }

    /// Gives the last comparison another name: the same expectation may be met in several ways.
    pub fn relabel(&mut self, tensor: &str) {
        if let Some(row) = self.rows.last_mut() {
            row.tensor = tensor.to_owned();
        }
    }

    /// All comparisons.
    pub fn into_rows(self) -> Vec<Row> {
        self.rows
    }
}

/// `‖ours − theirs‖ / ‖theirs‖`; not a number counts as infinite.
pub fn relative_error(ours: &[f32], theirs: &[f32]) -> f64 {
    let norm = |xs: &mut dyn Iterator<Item = f64>| xs.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut ours.iter().zip(theirs).map(|(&a, &b)| f64::from(a) - f64::from(b)));
    let size = norm(&mut theirs.iter().map(|&x| f64::from(x)));
    let error = if size > 0.0 { difference / size } else { difference };
    if error.is_nan() { f64::INFINITY } else { error }
}

fn file<'a>(files: &'a Files, name: &str) -> Result<&'a [u8], VerifyError> {
    files.get(name).map(Vec::as_slice).ok_or_else(|| VerifyError::MissingFile(name.to_owned()))
}

fn json<T: serde::de::DeserializeOwned>(files: &Files, name: &str) -> Result<T, VerifyError> {
    let malformed = |error: serde_json::Error| VerifyError::Malformed { file: name.into(), detail: error.to_string() };
    serde_json::from_slice(file(files, name)?).map_err(malformed)
}

fn tensors(files: &Files, name: &str) -> Result<Tensors, VerifyError> {
    Ok(safetensors::read(name, file(files, name)?.to_vec())?)
}

fn missing(name: &str) -> VerifyError {
    WeightError::Missing { name: name.to_owned(), expected: vec![] }.into()
}
