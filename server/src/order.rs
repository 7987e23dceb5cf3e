//! What other interfaces have in common: pictures of one prompt, which the client waits for.

use std::future::ready;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use axum::body::Bytes;
use futures::{Stream, StreamExt, stream};
use kosmosg::picture::{Filter, Picture, Recipe};
use kosmosg::prompt::{ImageRef, MAX_TEXT_BYTES, PromptDocument, PromptError, PromptItem};
use kosmosg::protocol::{GenerateSettings, JobEvent, JobRequest, Lora, PictureFile};
use tracing::Instrument as _;

use crate::admission::check;
use crate::app::Shared;
use crate::bundles::{Bundle, Bundles};
use crate::desk::Desk;
use crate::error::{self, Error};
use crate::jobs::{Hold, Job, Owner};
use crate::work::{Goal, Work};

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
    ordered: Arc<Ordered>,
    pixels: [u32; 2],
    /// How the first picture is made.
    recipe: Option<Recipe>,
}

/// The jobs of an order.
type Ordered = Vec<Arc<Job>>;

/// The orders that clients wait for.
#[derive(Debug, Default)]
pub(crate) struct Orders(Mutex<Vec<(Owner, Weak<Ordered>)>>);

impl Orders {
    /// The jobs that an owner waits for, and those of the same orders that are done.
    pub(crate) fn of(&self, owner: &Owner) -> Vec<Arc<Job>> {
        let orders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let theirs = orders.iter().filter(|(other, _)| other == owner).filter_map(|(_, order)| order.upgrade());
        theirs.flat_map(|order| order.to_vec()).collect()
    }

    fn add(&self, owner: Owner, order: &Order) {
        let mut orders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        orders.retain(|(_, order)| order.strong_count() > 0);
        orders.push((owner, Arc::downgrade(&order.ordered)));
    }
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
        check_length(&prompt)?;
        let prompt = document(&prompt, pictures.len())?;
        let pictures = pictures.into_iter().map(PictureFile).collect();
        check(JobRequest::Generate { bundle, prompt, pictures, negative, settings, loras }, bundles)
    }
}

impl Shared {
    /// Queues a job for each picture of what `read` finds in the request. What comes with it is for the answer: nothing large,
    /// since many may wait.
    ///
    /// # Errors
    /// What is wrong with it, or that the queue is full.
    pub(crate) async fn order<T: Send + 'static>(
        &self,
        owner: Owner,
        read: impl FnOnce(&Bundles) -> Result<(Wanted, T), Error> + Send + 'static,
    ) -> Result<(Order, T), Error> {
        self.admits(&owner).await?;
        let check = move |bundles: &Bundles| {
            let (wanted, rest) = read(bundles)?;
            let (count, seed) = (wanted.count, wanted.settings.seed);
            Ok((wanted.check(bundles)?, count, seed, rest))
        };
        let (first, count, seed, rest) = self.check(check).await?;
        let shared = self.clone();
        let queue = async move {
            let (jobs, bundle) = (shared.app.jobs.clone(), Arc::clone(&first.model.bundle));
            let (pixels, recipe) = (first.pixels(), first.recipe(&shared.app.engine.engine));
            let mut order = Order { jobs, bundle, ordered: Arc::default(), pixels, recipe };
            for index in 0..count {
                let work = first.with_seed(seed.wrapping_add(index));
                // Those that are queued go again if a later one is refused.
                let (job, _) = shared.submit(owner.clone(), work, Hold::Waiting).await?;
                Arc::make_mut(&mut order.ordered).push(job);
            }
            shared.orders.add(owner, &order);
            Ok(order)
        };
        // If the client hangs up meanwhile, this goes on to an order that nobody takes, and that cancels its jobs.
        let order = tokio::spawn(queue.in_current_span()).await.map_err(Error::internal)??;
        Ok((order, rest))
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

    /// What there is of the picture of that index, PNG, with how it was to be made; none before its first steps.
    pub async fn so_far(&self, index: usize) -> Option<Bytes> {
        let preview = self.ordered.get(index)?.preview()?;
        let recipe = self.recipe.clone();
        let recipe = recipe.map(|recipe| Recipe { seed: recipe.seed.wrapping_add(index as u64), ..recipe });
        Some(at_size(preview, self.pixels, recipe).await)
    }

    /// The pictures, PNG, once all are done; none of what somebody cancelled.
    ///
    /// # Errors
    /// One failed.
    pub async fn pictures(&self) -> Result<Vec<(&Job, Option<Bytes>)>, Error> {
        let mut pictures = Vec::new();
        for job in &*self.ordered {
            match events(job).fold(None, async |_, event| Some(event)).await {
                Some(JobEvent::Done { .. }) => pictures.push((&**job, Some(self.picture(job).await?))),
                Some(JobEvent::Cancelled) => pictures.push((&**job, None)),
                Some(JobEvent::Failed { error }) => return Err(Error::of_job(error)),
                _ => return Err(Error::internal("a job's story has no end")),
            }
        }
        Ok(pictures)
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        for job in self.ordered.iter().filter(|job| !job.has_ended()) {
            self.jobs.let_go(job);
        }
    }
}

/// What happens to a job, to its end. If the server's comes first, it fails for who waits.
pub fn events(job: &Arc<Job>) -> impl Stream<Item = JobEvent> + Send + use<> {
    let left = Arc::clone(job);
    let end = async move { (!left.has_ended()).then(|| JobEvent::Failed { error: error::stopping() }) };
    Arc::clone(job).follow(0).map(|(_, event)| event).chain(stream::once(end).filter_map(ready))
}

/// A preview in the size of the picture, which clients expect; it is as small as its latents.
pub async fn at_size(png: Vec<u8>, pixels: [u32; 2], recipe: Option<Recipe>) -> Bytes {
    let png = Bytes::from(png);
    let preview = png.clone();
    let resize = move || {
        Picture::decode(&preview).ok().map(|picture| picture.covering(pixels, Filter::Bicubic).to_png(recipe.as_ref()))
    };
    // Where it disturbs nobody.
    tokio::task::spawn_blocking(resize).await.ok().flatten().map_or(png, Bytes::from)
}

/// Refuses a prompt that is too long before it is taken apart: in memory, its parts may be many times as large as itself.
pub(crate) fn check_length(prompt: &str) -> Result<(), Error> {
    match prompt.len() {
        bytes if bytes > MAX_TEXT_BYTES => Err(Error::invalid(PromptError::TooMuchText { bytes })),
        _ => Ok(()),
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

    /// How the picture is made, if the words are known here.
    fn recipe(&self, engine: &str) -> Option<Recipe> {
        let Goal::Prompt { prompt, negative, .. } = &self.goal else { return None };
        let words = (prompt.clone(), negative.clone());
        Some(self.model.recipe(self.state.settings(), words, self.pixels(), engine))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn previews_come_in_the_size_of_the_picture() {
        let preview = |width, height| {
            let rgb = (0..3 * width * height).map(|i| (i * 7) as u8).collect();
            Picture::new(width, height, rgb).unwrap()
        };
        for (latents, pixels) in [([4, 4], [32, 32]), ([9, 4], [72, 32]), ([4, 9], [32, 72])] {
            let png = preview(latents[0], latents[1]).to_png(None);
            let large = Picture::decode(&at_size(png, pixels, None).await).unwrap();
            assert_eq!([large.width(), large.height()], pixels);
        }
        // What is all of one colour stays so to its edges.
        let grey = Picture::new(5, 2, vec![90; 30]).unwrap();
        let large = Picture::decode(&at_size(grey.to_png(None), [40, 16], None).await).unwrap();
        assert!(large.rgb().iter().all(|&byte| byte == 90));
        assert_eq!(at_size(b"no picture".to_vec(), [8, 8], None).await, "no picture");
    }
}
