//! What models make of [tasks](super::task).

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context as _, ensure};
use kosmosg::bundle::{Folder, Manifest};
use kosmosg::clip_text::ClipText;
use kosmosg::condition::Condition;
use kosmosg::config::ClipTextConfig;
use kosmosg::engine::{Engine, Tensor};
use kosmosg::picture::Picture;
use kosmosg::pipeline::Pipeline;
use kosmosg::protocol::GenerateSettings;
use kosmosg::tokenizer::Tokenizer;
use kosmosg::vae::VaeEncoder;
use kosmosg::weights::{load, load_except};
use rayon::ThreadPoolBuilder;

use super::task::Task;
use crate::sprites;

/// A bundle that answers.
pub struct Answerer<E: Engine> {
    pipeline: Pipeline<E>,
    device: E::Device,
    folder: Folder,
}

impl<E: Engine> Answerer<E>
where
    E::Device: Sync,
    Pipeline<E>: Sync,
    ClipText<E>: Sync,
    VaeEncoder<E>: Sync,
{
    /// Loads a bundle.
    ///
    /// # Errors
    /// Any [`BundleError`](kosmosg::bundle::BundleError).
    pub fn load(folder: Folder, device: &E::Device) -> anyhow::Result<Self> {
        Ok(Self { pipeline: Pipeline::load(&folder, device)?, device: device.clone(), folder })
    }

    /// The bundle's manifest.
    pub fn manifest(&self) -> &Manifest {
        self.folder.manifest()
    }

    /// The sizes of the text encoder, which has to have the language model's words: a bundle has one tokenizer.
    ///
    /// # Errors
    /// There is none, or it has words of its own.
    pub fn text_encoder(&self) -> anyhow::Result<&ClipTextConfig> {
        let networks = &self.manifest().networks;
        let text = networks.text.as_ref().context("the bundle has no text encoder")?;
        let (theirs, words) = (text.vocab_size, networks.kosmosg.mllm.vocab_size);
        ensure!(
            theirs == words,
            "the text encoder has {theirs} words and the language model {words}: nothing in the bundle tells which words the \
             text encoder's are, so it cannot be told captions"
        );
        Ok(text)
    }

    /// The picture of each task, from its words and pictures. Task `i` has the noise of `seed` and `i`.
    ///
    /// # Errors
    /// The engine failed.
    pub fn prompts(
        &self,
        tasks: &[Task],
        seed: u64,
        threads: usize,
        done: impl Fn() + Sync,
    ) -> anyhow::Result<Vec<Picture>> {
        let condition = |task: &Task| {
            let condition = self.pipeline.encoder.encode(&task.prompt, &task.pictures, "");
            pollster::block_on(condition).with_context(|| format!("prompt `{}`", task.prompt.to_text()))
        };
        self.generate(tasks, seed, threads, condition, done)
    }

    /// The same from the whole scene in words, by the text encoder that the U-Net was trained with: what the frozen U-Net
    /// could do at best.
    ///
    /// # Errors
    /// Those of [`text_encoder`](Self::text_encoder), or the engine failed.
    pub fn captions(
        &self,
        tasks: &[Task],
        seed: u64,
        threads: usize,
        done: impl Fn() + Sync,
    ) -> anyhow::Result<Vec<Picture>> {
        let (manifest, config) = (self.manifest(), self.text_encoder()?);
        let text = load(&self.folder.part("text")?, &self.device, |weights| {
            ClipText::<E>::new(&weights.at("text_model"), config)
        })?;
        let kosmosg = &manifest.networks.kosmosg;
        let tokenizer = Tokenizer::from_json(&self.folder.tokenizer()?, kosmosg.mllm.vocab_size, &kosmosg.special)?;
        let encode = |caption: &str| -> anyhow::Result<(Vec<f32>, [usize; 3])> {
            let encoded = text.forward(&text_tokens(tokenizer.encode(caption), config), 1);
            let shape = encoded.shape();
            Ok((pollster::block_on(encoded.to_host())?, shape))
        };
        let (uncond, [_, tokens, width]) = encode("")?;
        let condition = |task: &Task| {
            let (cond, _) = encode(&task.caption)?;
            Ok(Condition { tokens, width, cond, uncond: uncond.clone() })
        };
        self.generate(tasks, seed, threads, condition, done)
    }

    /// Each task's scene, drawn, through the autoencoder and back: what no denoiser could better.
    ///
    /// # Errors
    /// The bundle's autoencoder cannot encode, or the engine failed.
    pub fn autoencoded(&self, tasks: &[Task], threads: usize, done: impl Fn() + Sync) -> anyhow::Result<Vec<Picture>> {
        let (config, shape) = (&self.manifest().networks.vae, self.manifest().latent_shape());
        let is_decoder = |name: &str| name.starts_with("decoder.") || name.starts_with("post_quant_conv.");
        let vae = load_except(&self.folder.part("vae")?, &self.device, is_decoder, |weights| {
            VaeEncoder::<E>::new(weights, config)
        })?;
        let size = shape[1] * config.downscale();
        side_by_side(tasks, threads, |_, task| {
            let pixels = sprites::draw(&task.scene, size as u32).pixels_for_vae(size as u32);
            let latents = vae.latents(Tensor::from_host(pixels, [1, 3, size, size], &self.device));
            let latents = pollster::block_on(latents.to_host())?;
            let picture = pollster::block_on(self.pipeline.decoder.decode(latents, shape))?;
            done();
            Ok(picture)
        })
    }

    fn generate(
        &self,
        tasks: &[Task],
        seed: u64,
        threads: usize,
        condition: impl Fn(&Task) -> anyhow::Result<Condition> + Sync,
        done: impl Fn() + Sync,
    ) -> anyhow::Result<Vec<Picture>> {
        let settings = GenerateSettings { seed, ..GenerateSettings::default() };
        side_by_side(tasks, threads, |i, task| {
            let condition = condition(task)?;
            let picture = self.pipeline.generate_from(&condition, &settings, i as u64, |_, _| {});
            let picture = pollster::block_on(picture)?;
            done();
            Ok(picture)
        })
    }
}

/// A caption's words as a text encoder takes them: `<s>`, the words, and `</s>` up to the longest length.
///
/// # Panics
/// If there are too many words.
pub(crate) fn text_tokens(words: Vec<u32>, text: &ClipTextConfig) -> Vec<u32> {
    let mut tokens = [vec![text.bos_token_id], words].concat();
    assert!(tokens.len() < text.max_position_embeddings, "a caption of {} words was not made to fit", tokens.len() - 1);
    tokens.resize(text.max_position_embeddings, text.eos_token_id);
    tokens
}

/// `work` of every task, in order, on so many threads: one small picture keeps one busy and no more.
fn side_by_side<R: Send>(
    tasks: &[Task],
    threads: usize,
    work: impl Fn(usize, &Task) -> anyhow::Result<R> + Sync,
) -> anyhow::Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let worker = || -> anyhow::Result<Vec<(usize, R)>> {
        let pool = ThreadPoolBuilder::new().num_threads(1).build()?;
        pool.install(|| {
            let mut results = Vec::new();
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let Some(task) = tasks.get(i) else { return Ok(results) };
                results.push((i, work(i, task)?));
            }
        })
    };
    let results = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(worker)).collect();
        let results = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
        results.collect::<anyhow::Result<Vec<_>>>()
    })?;
    let mut results: Vec<_> = results.into_iter().flatten().collect();
    results.sort_by_key(|(i, _)| *i);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}
