//! What other interfaces have in common: pictures of one prompt, which the client waits for.

use std::sync::Arc;

use axum::body::Bytes;
use futures::{Stream, StreamExt};
use kosmosg::picture::{Filter, Picture};
use kosmosg::prompt::{ImageRef, PromptDocument, PromptItem};
use kosmosg::protocol::{GenerateSettings, JobEvent, JobRequest, Lora, PictureFile};

use crate::admission::check;
use crate::app::Shared;
use crate::bundles::{Bundle, Bundles};
use crate::desk::Desk;
use crate::error::Error;
use crate::jobs::{Job, Owner};
use crate::work::Work;

/// Most pictures of one request.
pub const MAX_COUNT: u64 = 10;

/// What a client asks for.
#[derive(Debug)]
pub struct Wanted {
    /// Name of a bundle; none is the first.
    pub model: Option<String>,
    /// Words. Each `<i>` in them is the place of a picture, in order; without any, the pictures come first.
    pub prompt: String,
    /// Picture files.
    pub pictures: Vec<Vec<u8>>,
    /// What to steer away from; empty for nothing.
    pub negative: String,
    /// How the first is made; each further one has the next seed.
    pub settings: GenerateSettings,
    /// What changes the U-Net.
    pub loras: Vec<Lora>,
    /// How many.
    pub count: u64,
}

/// Jobs that a client waits for. They are cancelled when it goes.
#[derive(Debug)]
pub struct Order {
    jobs: Desk,
    bundle: Arc<Bundle>,
    ordered: Vec<Arc<Job>>,
    pixels: [u32; 2],
}

impl Wanted {
    /// Checks it, and gives the work of the first picture.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(self, bundles: &Bundles) -> Result<Work, Error> {
        let Self { model, prompt, pictures, negative, settings, loras, count } = self;
        if !(1..=MAX_COUNT).contains(&count) {
            return Err(Error::invalid(format!("{count} pictures; choose 1 to {MAX_COUNT}")).of("n"));
        }
        let bundle = bundles.get_or_first(model.as_deref())?.id().to_owned();
        let prompt = document(&prompt, pictures.len())?;
        let pictures = pictures.into_iter().map(PictureFile).collect();
        check(JobRequest::Generate { bundle, prompt, pictures, negative, settings, loras }, bundles)
    }
}

impl Shared {
    /// Queues a job for each picture.
    ///
    /// # Errors
    /// What is wrong with it, or that the queue is full.
    pub(crate) async fn order(&self, owner: Owner, wanted: Wanted) -> Result<Order, Error> {
        self.admits().await?;
        let (count, seed) = (wanted.count, wanted.settings.seed);
        let first = self.check(move |bundles| wanted.check(bundles)).await?;
        let mut order = Order {
            jobs: self.app.jobs.clone(),
            bundle: Arc::clone(&first.model.bundle),
            ordered: Vec::new(),
            pixels: first.pixels(),
        };
        for index in 0..count {
            let work = first.with_seed(seed.wrapping_add(index));
            // Those that are queued go again if a later one is refused.
            order.ordered.push(self.submit(owner.clone(), work, None).await?.0);
        }
        Ok(order)
    }
}

impl Order {
    /// The model.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Width and height of the pictures.
    pub fn pixels(&self) -> [u32; 2] {
        self.pixels
    }

    /// The jobs, in order.
    pub fn jobs(&self) -> &[Arc<Job>] {
        &self.ordered
    }

    /// The picture of a job that is done, PNG.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn picture(&self, job: &Job) -> Result<Bytes, Error> {
        let png = self.jobs.picture(job).await.map_err(Error::store)?;
        png.ok_or_else(|| Error::internal("a job is done and has no picture"))
    }

    /// The pictures, PNG, once all are done; none of what somebody cancelled.
    ///
    /// # Errors
    /// One failed.
    pub async fn pictures(&self) -> Result<Vec<(&Job, Option<Bytes>)>, Error> {
        let mut pictures = Vec::new();
        for job in &self.ordered {
            match events(job).fold(None, async |_, event| Some(event)).await {
                Some(JobEvent::Done { .. }) => pictures.push((&**job, Some(self.picture(job).await?))),
                Some(JobEvent::Cancelled) => pictures.push((&**job, None)),
                Some(JobEvent::Failed { error }) => return Err(Error::of_job(error)),
                _ => return Err(Error::stopping()),
            }
        }
        Ok(pictures)
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        for job in self.ordered.iter().filter(|job| !job.last().is_last()) {
            self.jobs.cancel(job);
        }
    }
}

/// What happens to a job, to its end.
pub fn events(job: &Arc<Job>) -> impl Stream<Item = JobEvent> + Send + use<> {
    Arc::clone(job).follow(0).map(|(_, event)| event)
}

/// A preview in the size of the picture, which clients expect; it is as small as its latents.
pub fn at_size(png: Vec<u8>, [width, height]: [u32; 2]) -> Vec<u8> {
    match Picture::decode(&png) {
        Ok(picture) if width == height => picture.square(width, Filter::Bicubic).to_png(None),
        _ => png,
    }
}

/// The words, with the pictures where they say, else before them: *picture, instruction* is the form that editing was trained
/// in.
fn document(prompt: &str, pictures: usize) -> Result<PromptDocument, Error> {
    match pictures {
        0 => Ok(PromptDocument::from_words(prompt)),
        _ => match PromptDocument::from_text(prompt, pictures) {
            Ok(document) => Ok(document),
            Err(_) if PromptDocument::from_text(prompt, 0).is_ok() => {
                let images = (0..pictures).map(|picture| PromptItem::Image(ImageRef { picture, name: String::new() }));
                Ok(PromptDocument::new(images.chain([PromptItem::Text(format!(" {prompt}"))])))
            }
            Err(error) => Err(Error::invalid(error)),
        },
    }
}

/// A seed for a client that has none.
pub fn any_seed() -> u64 {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_or(0, |()| u32::from_le_bytes(bytes).into())
}

impl Work {
    /// Width and height of the picture.
    fn pixels(&self) -> [u32; 2] {
        let pixels = |latents: usize| (latents * self.model.bundle.manifest().networks.vae.downscale()) as u32;
        [pixels(self.state.settings().width), pixels(self.state.settings().height)]
    }
}
