//! A bundle, loaded, and what it does.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use kosmosg::bundle::{BundleError, Manifest, PartFile, ReadAt, StoredPart, Tensors};
use kosmosg::condition::{Condition, ConditionError};
use kosmosg::denoise::DenoiseState;
use kosmosg::encoder::{EncodeError, Encoder, EncoderParts};
use kosmosg::engine::EngineError;
use kosmosg::engine::burn::{Burn, BurnDevice};
use kosmosg::picture::Picture;
use kosmosg::pipeline::{Decoder, Denoiser, PreparedCondition, StepError};
use kosmosg::placement::{ModelSize, Stage};
use kosmosg::prompt::{PromptDocument, PromptError, PromptItem};
use kosmosg::tokenizer::Tokenizer;
use kosmosg::weights::Store;

use super::device;
use super::files::KeptFiles;
use crate::js;
use crate::messages::{Fault, Reading, Reply, Source};
use crate::pace::Pace;

/// Time between two reports of progress, in milliseconds.
const REPORT_MS: f64 = 50.0;

/// A request that failed.
pub struct Failure {
    pub fault: Fault,
    pub message: String,
}

/// A bundle, whose stages are loaded when they are first needed, or all at once if they have room side by side.
pub struct Model {
    manifest: Manifest,
    device: BurnDevice,
    device_name: &'static str,
    files: Files,
    has_room: bool,
    /// Memory for what the decoder computes, in bytes.
    decoder_room: u64,
    /// For reading what is being written; the encoder, which comes and goes, has its own.
    tokenizer: Option<Tokenizer>,
    encoder: Loaded<Encoder<Burn>>,
    denoiser: Loaded<Denoiser<Burn>>,
    decoder: Loaded<Decoder<Burn>>,
}

/// A stage's networks, if they are loaded.
type Loaded<T> = RefCell<Option<Rc<T>>>;

/// Hears how many bytes of a stage are loaded, and of how many.
pub type Report = Rc<dyn Fn(u64, u64)>;

/// Where a bundle's files are.
enum Files {
    /// Below an address.
    Server { base: String },
    /// In this browser's storage.
    Kept(Arc<KeptFiles>),
}

/// The weights of a part.
enum Part {
    Fetched(Tensors),
    Stored(StoredPart),
}

impl Model {
    /// Opens a bundle. Its stages are loaded now if they have room in so many bytes of memory.
    pub async fn open(source: Source, manifest: Manifest, memory_bytes: u64, report: Report) -> Result<Self, Failure> {
        let (device, device_name) = device::open().await?;
        let files = match source {
            Source::Server { base } => Files::Server { base },
            Source::Kept { key } => Files::Kept(KeptFiles::open(&key, &manifest).await?),
        };
        let here: Vec<_> = Stage::ALL.into_iter().filter(|stage| files.have(&manifest, stage.parts())).collect();
        let size = ModelSize::of(&manifest)?;
        let has_room = size.together(&here) <= memory_bytes;
        // The decoder computes where the others' weights leave room, or are not.
        let beside = if has_room { &here[..] } else { &[Stage::Decode] };
        let weights: u64 = beside.iter().map(|&stage| size.of_stage(stage).memory_bytes).sum();
        let decoder_room = memory_bytes.saturating_sub(weights);
        let (encoder, denoiser, decoder) = Default::default();
        let tokenizer = None;
        let mut model = Self {
            manifest,
            device,
            device_name,
            files,
            has_room,
            decoder_room,
            tokenizer,
            encoder,
            denoiser,
            decoder,
        };
        // Without it nothing is told of what is being written; whoever encodes is told what is wrong with it.
        model.tokenizer = model.load_tokenizer().await.ok();
        if has_room {
            let has = |stage| here.contains(&stage);
            let progress = model.progress(&here, report);
            // All at once; the browser decides how many files it really fetches together.
            let (encoder, denoiser, decoder) = futures::try_join!(
                if_wanted(has(Stage::Encode), model.load_encoder(&progress)),
                if_wanted(has(Stage::Denoise), model.load_denoiser(&progress)),
                if_wanted(has(Stage::Decode), model.load_decoder(&progress)),
            )?;
            model.files.tell(None);
            model.encoder.replace(encoder);
            model.denoiser.replace(denoiser);
            model.decoder.replace(decoder);
        }
        Ok(model)
    }

    async fn encoder(&self, report: Report) -> Result<Rc<Encoder<Burn>>, Failure> {
        self.load(&self.encoder, Stage::Encode, report, async |progress| self.load_encoder(progress).await).await
    }

    async fn denoiser(&self, report: Report) -> Result<Rc<Denoiser<Burn>>, Failure> {
        self.load(&self.denoiser, Stage::Denoise, report, async |progress| self.load_denoiser(progress).await).await
    }

    async fn decoder(&self) -> Result<Rc<Decoder<Burn>>, Failure> {
        let unheard = Rc::new(|_, _| {});
        self.load(&self.decoder, Stage::Decode, unheard, async |progress| self.load_decoder(progress).await).await
    }

    /// What `place` holds, which `load` loads if it is not there.
    async fn load<T>(
        &self,
        place: &Loaded<T>,
        stage: Stage,
        report: Report,
        load: impl AsyncFnOnce(&Progress) -> Result<T, Failure>,
    ) -> Result<Rc<T>, Failure> {
        if let Some(loaded) = place.borrow().clone() {
            return Ok(loaded);
        }
        self.make_room();
        let progress = self.progress(&[stage], report);
        let loaded = load(&progress).await;
        self.files.tell(None);
        let loaded = Rc::new(loaded?);
        place.replace(Some(loaded.clone()));
        Ok(loaded)
    }

    /// Lets go of what is loaded where stages have no room side by side.
    fn make_room(&self) {
        if !self.has_room {
            drop((self.encoder.take(), self.denoiser.take(), self.decoder.take()));
            self.device.free_unused();
        }
    }

    async fn load_tokenizer(&self) -> Result<Tokenizer, Failure> {
        let unheard = self.progress(&[], Rc::new(|_, _| {}));
        let config = &self.manifest.networks.kosmosg;
        let json = self.files.file(&self.manifest.tokenizer, &unheard).await;
        self.files.tell(None);
        let tokenizer = Tokenizer::from_json(&json?, config.mllm.vocab_size, &config.special);
        Ok(tokenizer.map_err(BundleError::Tokenizer)?)
    }

    async fn load_encoder(&self, progress: &Progress) -> Result<Encoder<Burn>, Failure> {
        let tokenizer = &self.manifest.tokenizer;
        let (tokenizer, vision, mllm, aligner) = futures::try_join!(
            self.files.file(tokenizer, progress),
            self.files.part(&self.manifest, "vision", progress),
            self.files.part(&self.manifest, "mllm", progress),
            self.files.part(&self.manifest, "aligner", progress),
        )?;
        let parts = EncoderParts { vision: vision.store(), mllm: mllm.store(), aligner: aligner.store() };
        Ok(Encoder::load(&self.manifest, &tokenizer, parts, &self.device)?)
    }

    async fn load_denoiser(&self, progress: &Progress) -> Result<Denoiser<Burn>, Failure> {
        let unet = self.files.part(&self.manifest, "unet", progress).await?;
        Ok(Denoiser::load(&self.manifest, unet.store(), &self.device)?)
    }

    async fn load_decoder(&self, progress: &Progress) -> Result<Decoder<Burn>, Failure> {
        let vae = self.files.part(&self.manifest, "vae", progress).await?;
        Ok(Decoder::load(&self.manifest, vae.store(), &self.device)?.within(self.decoder_room))
    }

    fn progress(&self, stages: &[Stage], report: Report) -> Rc<Progress> {
        let parts = stages.iter().flat_map(|stage| stage.parts());
        let of = parts.filter_map(|part| Some(self.manifest.part(part).ok()?.bytes)).sum();
        let progress = Rc::new(Progress { report, bytes: Cell::new(0), of, reported_ms: Cell::new(0.0) });
        let heard = progress.clone();
        self.files.tell(Some(Rc::new(move |bytes| heard.add(bytes))));
        progress
    }

    /// Names of kernels that compute wrong numbers here and are not used.
    pub fn wrong_kernels(&self) -> Vec<String> {
        self.device.wrong_kernels().iter().map(|&name| name.to_owned()).collect()
    }

    /// What it runs on, for people.
    pub fn device_name(&self) -> &'static str {
        self.device_name
    }

    /// What the model reads of a prompt and a negative prompt; none where it has no tokenizer.
    pub fn read(&self, prompt: &PromptDocument, negative: &str) -> Option<Reading> {
        let tokenizer = self.tokenizer.as_ref()?;
        let config = &self.manifest.networks.kosmosg;
        let tokens =
            |document: &PromptDocument| match tokenizer.sequence(document, config.connector.latent_queries, usize::MAX)
            {
                Ok(sequence) => sequence.tokens.len(),
                Err(PromptError::TooLong { tokens, .. }) => tokens,
                // So much text that nobody counts.
                Err(_) => usize::MAX,
            };
        let words = prompt.items().iter().filter_map(|item| match item {
            PromptItem::Text(words) => Some(words.as_str()),
            PromptItem::Image(_) => None,
        });
        let negative_tokens = tokens(&PromptDocument::from_words(negative));
        let text = words.chain([negative]).collect::<Vec<_>>().join(" ");
        let unknown = if prompt.check_length().is_ok() { tokenizer.unknown_words(&text) } else { Vec::new() };
        Some(Reading { tokens: tokens(prompt), negative_tokens, longest: config.max_tokens(), unknown })
    }

    /// The condition of a prompt; `files` are its pictures.
    pub async fn encode(
        &self,
        prompt: &PromptDocument,
        files: &[Vec<u8>],
        negative: &str,
        report: Report,
    ) -> Result<Condition, Failure> {
        let named = |(number, file): (usize, &Vec<u8>)| {
            let number = number + 1;
            picture(file).map_err(|failure| Failure {
                message: format!("picture number {number}: {}", failure.message),
                ..failure
            })
        };
        let pictures: Vec<_> = files.iter().enumerate().map(named).collect::<Result<_, _>>()?;
        let encoder = self.encoder(report).await?;
        let condition = encoder.encode(prompt, &pictures, negative).await?;
        let wrong = |error: ConditionError| Failure { fault: Fault::WrongNumbers, message: error.to_string() };
        condition.validate(self.manifest.condition_shape()).map_err(wrong)?;
        Ok(condition)
    }

    /// A run that goes on from a state, for tests only as far as `fail_at_step`.
    pub async fn run(
        self: Rc<Self>,
        condition: &Condition,
        state: DenoiseState,
        fail_at_step: Option<usize>,
        report: Report,
    ) -> Result<Run, Failure> {
        let unusable = |message: String| Failure { fault: Fault::Prompt, message };
        condition.validate(self.manifest.condition_shape()).map_err(|error| unusable(error.to_string()))?;
        let settings = state.settings();
        let shape = [settings.channels, settings.height, settings.width];
        if shape != self.manifest.latent_shape() {
            let expected = self.manifest.latent_shape();
            return Err(unusable(format!("the picture's latents are {shape:?}; this model's are {expected:?}")));
        }
        let denoiser = self.denoiser(report).await?;
        let condition = denoiser.prepare(condition);
        let foreseen = state.latents().to_vec();
        Ok(Run { model: self, denoiser, condition, state, foreseen, pace: Pace::default(), fail_at_step })
    }

    async fn decode(&self, latents: &[f32]) -> Result<Picture, Failure> {
        Ok(self.decoder().await?.decode(latents.to_vec(), self.manifest.latent_shape()).await?)
    }
}

/// What is loaded, if it is wanted.
async fn if_wanted<T>(
    is_wanted: bool,
    loading: impl Future<Output = Result<T, Failure>>,
) -> Result<Option<Rc<T>>, Failure> {
    if is_wanted { loading.await.map(|loaded| Some(Rc::new(loaded))) } else { Ok(None) }
}

/// A picture on its way.
pub struct Run {
    model: Rc<Model>,
    denoiser: Rc<Denoiser<Burn>>,
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
        self.foreseen = self.denoiser.step(&mut self.state, &self.condition).await?;
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
        if !self.pace.affords_preview() {
            return Ok(None);
        }
        let guess =
            manifest.preview_factors().and_then(|factors| factors.picture(&self.foreseen, manifest.latent_shape()));
        let picture = match guess {
            Some(picture) => picture,
            // Where it has no room beside the U-Net, it would take the U-Net's.
            None if self.model.has_room => self.model.decode(&self.foreseen).await?,
            None => return Ok(None),
        };
        let png = picture.to_png(None);
        let seconds = (js::now_ms() - started) / 1000.0;
        self.pace.preview(seconds);
        Ok(Some((Reply::Preview { seconds }, png)))
    }

    /// The finished picture.
    pub async fn picture(self) -> Result<Picture, Failure> {
        let Self { model, denoiser, condition, state, .. } = self;
        drop((denoiser, condition));
        model.decode(state.latents()).await
    }
}

/// A picture from its file.
pub fn picture(file: &[u8]) -> Result<Picture, Failure> {
    Picture::decode(file).map_err(|error| Failure { fault: Fault::Prompt, message: error.to_string() })
}

impl Part {
    fn store(&self) -> &dyn Store<Burn> {
        match self {
            Part::Fetched(tensors) => tensors,
            Part::Stored(part) => part,
        }
    }
}

impl Files {
    /// Whether parts are there.
    fn have(&self, manifest: &Manifest, parts: &[&str]) -> bool {
        match self {
            Files::Server { .. } => true,
            Files::Kept(files) => parts.iter().all(|part| files.have(manifest, part)),
        }
    }

    fn tell(&self, heard: Option<Rc<dyn Fn(u64)>>) {
        if let Files::Kept(files) = self {
            files.tell(heard);
        }
    }

    async fn part(&self, manifest: &Manifest, name: &str, progress: &Progress) -> Result<Part, Failure> {
        match self {
            Files::Kept(files) => Ok(Part::Stored(StoredPart::open(manifest, name, files.clone())?)),
            Files::Server { .. } => {
                let files = manifest.part(name)?.files.iter().map(|file| self.file(file, progress));
                let mut contents = futures::future::try_join_all(files).await?.into_iter();
                let next = |_: &PartFile| Ok::<_, BundleError>(contents.next().expect("the contents of each file"));
                Ok(Part::Fetched(manifest.read_part(name, next)?))
            }
        }
    }

    async fn file(&self, file: &PartFile, progress: &Progress) -> Result<Vec<u8>, Failure> {
        let contents = match self {
            Files::Kept(files) => files.read_at(&file.name, 0, file.bytes)?,
            Files::Server { base } => {
                // With the hash in its address, what the service worker keeps under an address never changes.
                let PartFile { name, sha256, .. } = file;
                let address = format!("{base}{name}?v={}", sha256.get(..16).unwrap_or(sha256));
                let unreachable =
                    |why: String| Failure { fault: Fault::Bundle, message: crate::texts::cannot_fetch(name, &why) };
                let contents = js::fetch(&address).await.map_err(unreachable)?;
                progress.add(contents.len() as u64);
                contents
            }
        };
        file.check(&contents)?;
        Ok(contents)
    }
}

/// Bytes that are loaded so far.
struct Progress {
    report: Report,
    bytes: Cell<u64>,
    of: u64,
    reported_ms: Cell<f64>,
}

impl Progress {
    fn add(&self, bytes: u64) {
        self.bytes.set(self.bytes.get() + bytes);
        if self.bytes.get() >= self.of || js::now_ms() - self.reported_ms.get() >= REPORT_MS {
            self.reported_ms.set(js::now_ms());
            (self.report)(self.bytes.get().min(self.of), self.of);
        }
    }
}

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
