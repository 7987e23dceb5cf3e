//! Our numbers against numbers that the public implementations computed.
//!
//! A *fixture* is a folder of a small network, inputs, and expected outputs, in one of four forms; see [`Form`]. The files
//! come as bytes, so that the page can verify its own engine too.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::bundle::Tensors;
use crate::config::ConfigError;
use crate::engine::{Engine, EngineError, Tensor};
use crate::weights::{WeightError, safetensors};

mod kosmosg;
mod preprocess;
mod sd;

pub use kosmosg::{ALIGN_GRADIENTS, KosmosGFixture, LM_GRADIENTS, align_losses, kosmosg, kosmosg_cases, lm_loss};
pub use preprocess::preprocess;
pub use sd::{StableDiffusionFixture, stable_diffusion, stable_diffusion_cases};

/// Largest relative error of one network on an engine that computes in f32.
pub const NETWORK: f64 = 1e-5;
/// Largest relative error of a whole sampling run, a loss or a gradient.
pub const RUN: f64 = 1e-4;
/// Largest relative error of pixels after resizing.
pub const PIXELS: f64 = 2e-3;

/// The largest error of what is computed with some parts of a bundle, by their names.
pub type Tolerance<'a> = &'a dyn Fn(&[&str]) -> f64;

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
    /// `‖ours − theirs‖ / ‖theirs‖`; infinite where the shapes differ or nothing of ours is like it.
    pub error: f64,
    /// The largest error allowed.
    pub tolerance: f64,
    /// Cosine of the angle between ours and theirs, where there are numbers of both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cosine: Option<f64>,
}

impl Row {
    /// A comparison that has no angle.
    pub fn new(tensor: impl Into<String>, error: f64, tolerance: f64) -> Self {
        Self { tensor: tensor.into(), error, tolerance, cosine: None }
    }

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
    /// Names of the floats that were an input or an expectation, or may be left out.
    used: RefCell<BTreeSet<String>>,
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
            used: RefCell::default(),
        })
    }

    /// Names of the expected tensors that end in `suffix`, without it.
    pub fn stems(&self, suffix: &str) -> Vec<String> {
        self.floats.keys().filter_map(|name| name.strip_suffix(suffix)).map(str::to_owned).collect()
    }

    /// Whether there is a tensor of that name, of numbers or of whole ones.
    pub fn has(&self, name: &str) -> bool {
        self.floats.contains_key(name) || self.integers.contains_key(name)
    }

    /// Numbers and shape of an input.
    ///
    /// # Errors
    /// [`WeightError::Missing`].
    pub fn numbers(&self, name: &str) -> Result<(Vec<f32>, Vec<usize>), VerifyError> {
        let tensor = self.floats.get(name).ok_or_else(|| missing(name))?;
        self.used.borrow_mut().insert(name.to_owned());
        Ok((tensor.to_f32(), tensor.shape().to_vec()))
    }

    /// An input on the device, of the shape that the network takes; `None` for a size that is the fixture's to choose.
    ///
    /// # Errors
    /// [`WeightError::Missing`], or [`WeightError::Malformed`] if its shape is another.
    pub fn tensor<E: Engine, const D: usize>(
        &self,
        name: &str,
        shape: [Option<usize>; D],
        device: &E::Device,
    ) -> Result<Tensor<E, D>, VerifyError> {
        let (numbers, found) = self.numbers(name)?;
        let fits = |sizes: &[usize; D]| {
            sizes
                .iter()
                .zip(shape)
                .all(|(&size, expected)| size > 0 && expected.is_none_or(|expected| size == expected))
        };
        match <[usize; D]>::try_from(found.as_slice()).ok().filter(fits) {
            Some(sizes) => Ok(Tensor::from_host(numbers, sizes, device)),
            None => {
                let sizes = shape.map(|size| size.map_or_else(|| "any".to_owned(), |size| size.to_string()));
                Err(malformed(name, format!("shape {found:?}, expected [{}]", sizes.join(", "))))
            }
        }
    }

    /// An input of whole numbers that are not negative, with its shape.
    ///
    /// # Errors
    /// [`WeightError::Missing`] or [`WeightError::Malformed`].
    pub fn integers(&self, name: &str) -> Result<(Vec<u32>, Vec<usize>), VerifyError> {
        let (shape, numbers) = self.integers.get(name).ok_or_else(|| missing(name))?;
        let numbers = numbers.iter().map(|&x| u32::try_from(x)).collect::<Result<_, _>>();
        let numbers = numbers.map_err(|_| malformed(name, "a number below 0 or beyond 32 bits".into()))?;
        Ok((numbers, shape.clone()))
    }

    /// A row of timesteps, written as whole numbers or not.
    ///
    /// # Errors
    /// [`WeightError::Missing`] or [`WeightError::Malformed`].
    fn timesteps(&self, name: &str) -> Result<Vec<f32>, VerifyError> {
        match self.floats.contains_key(name) {
            true => Ok(self.numbers(name)?.0),
            false => Ok(self.integers(name)?.0.into_iter().map(|timestep| timestep as f32).collect()),
        }
    }

    /// Token ids `[B, T]` below `vocabulary`, at most `longest` of them in a row.
    ///
    /// # Errors
    /// [`WeightError::Missing`] or [`WeightError::Malformed`].
    fn tokens(&self, name: &str, vocabulary: usize, longest: usize) -> Result<(Vec<u32>, [usize; 2]), VerifyError> {
        let (tokens, shape) = self.integers(name)?;
        let (batch, length) = match shape.as_slice() {
            &[batch, length] if batch * length > 0 => (batch, length),
            _ => return Err(malformed(name, format!("shape {shape:?}, expected rows of tokens"))),
        };
        if length > longest {
            return Err(malformed(name, format!("{length} tokens in a row; the network takes at most {longest}")));
        }
        match tokens.iter().find(|&&token| token as usize >= vocabulary) {
            Some(token) => Err(malformed(name, format!("token {token} is not below {vocabulary}"))),
            None => Ok((tokens, [batch, length])),
        }
    }

    /// Allows tensors to stay unused whose names begin with `prefix`: they are for another comparison.
    pub fn leave(&mut self, prefix: &str) {
        let names = self.floats.keys().filter(|name| name.starts_with(prefix)).cloned();
        self.used.get_mut().extend(names);
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
        let is_like = shape == expected;
        let error = if is_like { relative_error(ours, &theirs) } else { f64::INFINITY };
        let cosine = is_like.then(|| cosine(ours, &theirs)).filter(|cosine| cosine.is_finite());
        self.rows.push(Row { cosine, ..Row::new(name, error, tolerance) });
        Ok(())
    }

    /// Gives the last comparison another name: the same expectation may be met in several ways.
    pub fn relabel(&mut self, tensor: &str) {
        if let Some(row) = self.rows.last_mut() {
            row.tensor = tensor.to_owned();
        }
    }

    /// A comparison that cannot be made has failed.
    pub fn fail(&mut self, name: &str) {
        self.used.get_mut().insert(name.to_owned());
        self.rows.push(Row::new(name, f64::INFINITY, 0.0));
    }

    /// All comparisons. A tensor that nothing was compared with is a failed one: a fixture that expects more than is
    /// known here does not pass.
    pub fn into_rows(self) -> Vec<Row> {
        let used = self.used.into_inner();
        let unused = self.floats.into_keys().filter(|name| !used.contains(name));
        let failed = unused.map(|tensor| Row::new(tensor, f64::INFINITY, 0.0));
        self.rows.into_iter().chain(failed).collect()
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

/// The cosine of the angle between two vectors.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn file<'a>(files: &'a Files, name: &str) -> Result<&'a [u8], VerifyError> {
    files.get(name).map(Vec::as_slice).ok_or_else(|| VerifyError::MissingFile(name.to_owned()))
}

fn json<T: serde::de::DeserializeOwned>(files: &Files, name: &str) -> Result<T, VerifyError> {
    serde_json::from_slice(file(files, name)?).map_err(|error| unusable(name, error))
}

/// For a file whose contents make no sense.
fn unusable(file: &str, detail: impl ToString) -> VerifyError {
    VerifyError::Malformed { file: file.to_owned(), detail: detail.to_string() }
}

/// For a configuration of impossible sizes.
fn in_config(file: &'static str) -> impl Fn(ConfigError) -> VerifyError {
    move |error| unusable(file, error)
}

fn tensors(files: &Files, name: &str) -> Result<Tensors, VerifyError> {
    Ok(safetensors::read(name, file(files, name)?.to_vec())?)
}

fn missing(name: &str) -> VerifyError {
    WeightError::Missing { name: name.to_owned(), expected: None }.into()
}

fn malformed(name: &str, detail: String) -> VerifyError {
    WeightError::Malformed { what: name.to_owned(), detail }.into()
}

#[cfg(test)]
mod tests;
