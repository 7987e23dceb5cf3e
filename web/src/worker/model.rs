//! A bundle, fetched and loaded, and what it does.

use std::cell::Cell;
use std::rc::Rc;

use kosmosg::bundle::{BundleError, Manifest, Tensors};
use kosmosg::condition::{Condition, ConditionError};
use kosmosg::denoise::DenoiseState;
use kosmosg::encoder::{EncodeError, Encoder, EncoderParts};
use kosmosg::engine::EngineError;
use kosmosg::engine::burn::{Burn, BurnDevice};
use kosmosg::picture::Picture;
use kosmosg::pipeline::{Decoder, Denoiser, PreparedCondition, StepError};
use kosmosg::prompt::PromptDocument;

use super::device;
use crate::js;
use crate::messages::{Fault, Reply};
use crate::pace::Pace;

/// A request that failed.
pub struct Failure {
    pub fault: Fault,
    pub message: String,
}

/// A loaded bundle.
pub struct Model {
    manifest: Manifest,
    device: BurnDevice,
    device_name: &'static str,
    encoder: Encoder<Burn>,
    denoiser: Denoiser<Burn>,
    decoder: Decoder<Burn>,
}

impl Model {
    /// Fetches the bundle below the address `base` and loads it; `report` hears bytes so far and in all.
    pub async fn load(base: &str, manifest: Manifest, report: impl Fn(u64, u64)) -> Result<Self, Failure> {
        let (device, device_name) = device::open().await?;
        let fetch = Fetch::new(base, &manifest, report);
        // All at once; the browser decides how many it really fetches together.
        let (tokenizer, vision, mllm, aligner, unet, vae) = futures::try_join!(
            fetch.file(&manifest.tokenizer.name, &manifest.tokenizer.sha256),
            fetch.part("vision"),
            fetch.part("mllm"),
            fetch.part("aligner"),
            fetch.part("unet"),
            fetch.part("vae"),
        )?;
        manifest.tokenizer.check(&tokenizer)?;
        let parts = EncoderParts { vision, mllm, aligner };
        let encoder = Encoder::load(&manifest, &tokenizer, parts, &device)?;
        let denoiser = Denoiser::load(&manifest, &unet, &device)?;
        let decoder = Decoder::load(&manifest, &vae, &device)?;
        Ok(Self { manifest, device, device_name, encoder, denoiser, decoder })
    }

    /// What it runs on, for people.
    pub fn device_name(&self) -> &'static str {
        self.device_name
    }

    /// The condition of a prompt; `files` are its pictures.
    pub async fn encode(
        &self,
        prompt: &PromptDocument,
        files: &[Vec<u8>],
        negative: &str,
    ) -> Result<Condition, Failure> {
        let named = |(number, file): (usize, &Vec<u8>)| {
            let number = number + 1;
            picture(file).map_err(|failure| Failure {
                message: format!("picture number {number}: {}", failure.message),
                ..failure
            })
        };
        let pictures: Vec<_> = files.iter().enumerate().map(named).collect::<Result<_, _>>()?;
        let condition = self.encoder.encode(prompt, &pictures, negative).await?;
        let wrong = |error: ConditionError| Failure { fault: Fault::WrongNumbers, message: error.to_string() };
        condition.validate(self.manifest.condition_shape()).map_err(wrong)?;
        Ok(condition)
    }

    /// A run that goes on from a state, for tests only as far as `fail_at_step`.
    pub fn run(
        self: Rc<Self>,
        condition: &Condition,
        state: DenoiseState,
        fail_at_step: Option<usize>,
    ) -> Result<Run, Failure> {
        let unusable = |message: String| Failure { fault: Fault::Prompt, message };
        condition.validate(self.manifest.condition_shape()).map_err(|error| unusable(error.to_string()))?;
        let settings = state.settings();
        let shape = [settings.channels, settings.height, settings.width];
        if shape != self.manifest.latent_shape() {
            let expected = self.manifest.latent_shape();
            return Err(unusable(format!("the picture's latents are {shape:?}; this model's are {expected:?}")));
        }
        let condition = self.denoiser.prepare(condition);
        let foreseen = state.latents().to_vec();
        Ok(Run { model: self, condition, state, foreseen, pace: Pace::default(), fail_at_step })
    }

    async fn decode(&self, latents: &[f32]) -> Result<Picture, Failure> {
        Ok(self.decoder.decode(latents.to_vec(), self.manifest.latent_shape()).await?)
    }
}

/// A picture on its way.
pub struct Run {
    model: Rc<Model>,
    condition: PreparedCondition<Burn>,
    state: DenoiseState,
    /// The finished latents as the last step foresaw them.
    foreseen: Vec<f32>,
    pace: Pace,
    fail_at_step: Option<usize>,
}

impl Run {
    /// Does a step; `None` if all are done.
    pub async fn step(&mut self) -> Result<Option<Reply>, Failure> {
        if self.state.is_done() {
            return Ok(None);
        }
        if self.fail_at_step == Some(self.state.step()) {
            device::lose(&self.model.device)?;
        }
        let started = js::now_ms();
        self.foreseen = self.model.denoiser.step(&mut self.state, &self.condition).await?;
        let seconds = (js::now_ms() - started) / 1000.0;
        self.pace.step(seconds);
        Ok(Some(Reply::Step { state: self.state.clone(), seconds }))
    }

    /// A preview, if one is due, and its PNG file.
    pub async fn preview(&mut self) -> Result<Option<(Reply, Vec<u8>)>, Failure> {
        if self.state.is_done() {
            return Ok(None);
        }
        let started = js::now_ms();
        let manifest = &self.model.manifest;
        let guess =
            manifest.preview_factors().and_then(|factors| factors.picture(&self.foreseen, manifest.latent_shape()));
        let picture = match guess {
            Some(picture) => picture,
            None if self.pace.affords_preview() => self.model.decode(&self.foreseen).await?,
            None => return Ok(None),
        };
        let png = picture.to_png(None);
        let seconds = (js::now_ms() - started) / 1000.0;
        self.pace.preview(seconds);
        Ok(Some((Reply::Preview { seconds }, png)))
    }

    /// The finished picture.
    pub async fn picture(&self) -> Result<Picture, Failure> {
        self.model.decode(self.state.latents()).await
    }
}

/// A picture from its file.
pub fn picture(file: &[u8]) -> Result<Picture, Failure> {
    Picture::decode(file).map_err(|error| Failure { fault: Fault::Prompt, message: error.to_string() })
}

/// Fetches a bundle's files and counts their bytes.
struct Fetch<'a, R> {
    base: &'a str,
    manifest: &'a Manifest,
    report: R,
    bytes: Cell<u64>,
    of: u64,
}

impl<'a, R: Fn(u64, u64)> Fetch<'a, R> {
    fn new(base: &'a str, manifest: &'a Manifest, report: R) -> Self {
        let of =
            manifest.tokenizer.bytes + ALL.iter().filter_map(|part| Some(manifest.part(part).ok()?.bytes)).sum::<u64>();
        Self { base, manifest, report, bytes: Cell::new(0), of }
    }

    async fn part(&self, name: &str) -> Result<Tensors, Failure> {
        let files = self.manifest.part(name)?.files.iter().map(|file| self.file(&file.name, &file.sha256));
        let mut contents = futures::future::try_join_all(files).await?.into_iter();
        self.manifest.read_part(name, |_| Ok(contents.next().expect("the contents of each file")))
    }

    /// With the hash in its address, what the service worker keeps under an address never changes.
    async fn file(&self, name: &str, sha256: &str) -> Result<Vec<u8>, Failure> {
        let address = format!("{}{name}?v={}", self.base, sha256.get(..16).unwrap_or(sha256));
        let contents = js::fetch(&address)
            .await
            .map_err(|why| Failure { fault: Fault::Bundle, message: crate::texts::cannot_fetch(name, &why) })?;
        self.bytes.set(self.bytes.get() + contents.len() as u64);
        (self.report)(self.bytes.get(), self.of);
        Ok(contents)
    }
}

const ALL: [&str; 5] = ["vision", "mllm", "aligner", "unet", "vae"];

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let fault = match error {
            EngineError::OutOfMemory { .. } => Fault::OutOfMemory,
            EngineError::DeviceLost { .. } => Fault::DeviceLost,
            _ => Fault::Device,
        };
        Self { fault, message: error.to_string() }
    }
}

impl From<BundleError> for Failure {
    fn from(error: BundleError) -> Self {
        Self { fault: Fault::Bundle, message: error.to_string() }
    }
}

impl From<EncodeError> for Failure {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::Engine(error) => error.into(),
            error => Self { fault: Fault::Prompt, message: error.to_string() },
        }
    }
}

impl From<StepError> for Failure {
    fn from(error: StepError) -> Self {
        match error {
            StepError::Engine(error) => error.into(),
            error => Self { fault: Fault::WrongNumbers, message: error.to_string() },
        }
    }
}
