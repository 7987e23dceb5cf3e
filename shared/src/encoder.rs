//! From a prompt of words and pictures to a condition: vision tower, resampler, language model, AlignerNet.

use std::sync::{Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

use crate::aligner::Aligner;
use crate::bundle::{BundleError, Folder, Manifest};
use crate::condition::Condition;
use crate::config::KosmosGConfig;
use crate::engine::{Engine, EngineError, Tensor};
use crate::mllm::{Mllm, TokenBatch};
use crate::picture::Picture;
use crate::prompt::{PromptDocument, PromptError, PromptSequence};
use crate::protocol::MAX_REQUEST_PICTURES;
use crate::resampler::{Resampler, ResamplerSizes};
use crate::tokenizer::Tokenizer;
use crate::vision::VisionTower;
use crate::weights::{Store, WeightError, Weights, load_except};

/// Everything before the decoder.
#[derive(Debug)]
pub struct Encoder<E: Engine> {
    tokenizer: Tokenizer,
    networks: EncoderNetworks<E>,
    config: KosmosGConfig,
    device: E::Device,
    recent: Mutex<Recent<E>>,
}

/// What an [`Encoder`] computed lately and is likely to be asked for again: people change the words around a picture, and
/// hardly ever what they steer away from.
#[derive(Debug, Clone)]
struct Recent<E: Engine> {
    /// Pictures, the latest first.
    pictures: Vec<Embedded<E>>,
    /// A negative prompt and its condition.
    negative: Option<(PromptSequence, Vec<f32>)>,
}

/// A picture as the language model takes it.
#[derive(Debug, Clone)]
struct Embedded<E: Engine> {
    /// SHA-256 of what the vision tower saw.
    digest: [u8; 32],
    /// Embeddings `[1, L, D]`.
    embeddings: Tensor<E, 3>,
}

impl<E: Engine> Recent<E> {
    const fn nothing() -> Self {
        Self { pictures: Vec::new(), negative: None }
    }
}

/// The networks of an [`Encoder`].
#[derive(Debug, Clone)]
pub struct EncoderNetworks<E: Engine> {
    /// Vision tower.
    pub vision: VisionTower<E>,
    /// Resampler.
    pub resampler: Resampler<E>,
    /// Language model.
    pub mllm: Mllm<E>,
    /// AlignerNet's M.
    pub aligner: Aligner<E>,
}

/// Why a prompt could not be encoded.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The prompt cannot be made into a sequence.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The words' embeddings stayed in a file that cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightError),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// The weights of an encoder, part by part.
pub struct EncoderParts<'a, E: Engine> {
    /// `vision`.
    pub vision: &'a dyn Store<E>,
    /// `mllm`: language model and resampler.
    pub mllm: &'a dyn Store<E>,
    /// `aligner`.
    pub aligner: &'a dyn Store<E>,
}

/// Names of the parts that an encoder is made of.
pub const PARTS: [&str; 3] = ["vision", "mllm", "aligner"];

/// Tensors that the published checkpoint carries and the forward pass does not use.
pub fn is_redundant(name: &str) -> bool {
    name.ends_with("self_attn_sope.scale")
        || name.ends_with("embed_positions._float_tensor")
        || name.contains(".attn.in_proj_")
        || name.contains(".attn.out_proj.")
}

impl<E: Engine> EncoderNetworks<E> {
    /// Reads the networks from the published names.
    ///
    /// # Errors
    /// A [`WeightError`] that names the tensor.
    pub fn new(weights: &Weights<'_, E>, config: &KosmosGConfig) -> Result<Self, WeightError> {
        Ok(Self {
            vision: VisionTower::new(&weights.at("img_model.visual"), &config.vision)?,
            resampler: Self::resampler(weights, config)?,
            mllm: Mllm::new(&weights.at("gpt_model.decoder"), &config.mllm)?,
            aligner: Aligner::new(&weights.at("aligner"), &config.aligner, config.mllm.dim)?,
        })
    }

    /// Reads the resampler alone.
    ///
    /// # Errors
    /// A [`WeightError`] that names the tensor.
    pub fn resampler(weights: &Weights<'_, E>, config: &KosmosGConfig) -> Result<Resampler<E>, WeightError> {
        let sizes = ResamplerSizes {
            vision_width: config.vision.width,
            dim: config.mllm.dim,
            heads: config.connector.heads.unwrap_or(config.mllm.heads),
            latent_queries: config.connector.latent_queries,
        };
        Resampler::new(&weights.at("img_connector"), sizes)
    }

    /// The resampler's embeddings `[N, L, D]` of pictures `[N, 3, S, S]`, normalised as CLIP's.
    pub fn embed_pictures(&self, pixels: Tensor<E, 4>) -> Tensor<E, 3> {
        self.resampler.forward(self.vision.forward(pixels))
    }

    /// Conditions `[B, queries, d]` of a batch of sequences whose pictures are `images` `[N, L, D]`.
    ///
    /// # Errors
    /// As of [`Mllm::forward`].
    pub fn condition(&self, batch: &TokenBatch, images: Option<Tensor<E, 3>>) -> Result<Tensor<E, 3>, WeightError> {
        Ok(self.aligner.forward(self.mllm.forward(batch, images)?, &batch.padding()))
    }
}

impl<E: Engine> Encoder<E> {
    /// Builds the encoder of a bundle.
    ///
    /// # Errors
    /// [`BundleError`] if the tokenizer or a part does not fit the manifest.
    pub fn load(
        manifest: &Manifest,
        tokenizer: &[u8],
        parts: EncoderParts<'_, E>,
        device: &E::Device,
    ) -> Result<Self, BundleError> {
        let config = &manifest.networks.kosmosg;
        let tokenizer =
            Tokenizer::from_json(tokenizer, config.mllm.vocab_size, &config.special).map_err(BundleError::Tokenizer)?;
        let EncoderParts { vision, mllm, aligner } = parts;
        let vision = load_except(vision, device, is_redundant, |weights| {
            VisionTower::new(&weights.at("img_model.visual"), &config.vision)
        });
        let language = load_except(mllm, device, is_redundant, |weights| {
            let mllm = Mllm::new(&weights.at("gpt_model.decoder"), &config.mllm)?;
            Ok((EncoderNetworks::resampler(weights, config)?, mllm))
        });
        let aligner = load_except(aligner, device, is_redundant, |weights| {
            Aligner::new(&weights.at("aligner"), &config.aligner, config.mllm.dim)
        });
        let in_part = |part: &str| {
            let part = part.to_owned();
            move |source| BundleError::Weights { part, source }
        };
        let (resampler, mllm) = language.map_err(in_part("mllm"))?;
        let networks = EncoderNetworks {
            vision: vision.map_err(in_part("vision"))?,
            resampler,
            mllm,
            aligner: aligner.map_err(in_part("aligner"))?,
        };
        let config = config.clone();
        Ok(Self { tokenizer, networks, config, device: device.clone(), recent: Mutex::new(Recent::nothing()) })
    }

    /// The encoder of a bundle in a folder.
    ///
    /// # Errors
    /// Any [`BundleError`].
    pub fn open(folder: &Folder, device: &E::Device) -> Result<Self, BundleError> {
        let [vision, mllm, aligner] = PARTS.map(|part| folder.part(part));
        let parts = EncoderParts { vision: &vision?, mllm: &mllm?, aligner: &aligner? };
        Self::load(folder.manifest(), &folder.tokenizer()?, parts, device)
    }

    /// The condition of a prompt, whose places show `pictures`, and of a negative prompt (empty for none).
    ///
    /// # Errors
    /// [`EncodeError::Prompt`] if a place shows a picture that is not there or the prompt is too long; else what failed.
    pub async fn encode(
        &self,
        prompt: &PromptDocument,
        pictures: &[Picture],
        negative: &str,
    ) -> Result<Condition, EncodeError> {
        let latents = self.config.connector.latent_queries;
        let longest = self.config.max_tokens();
        prompt.check_pictures(pictures.len())?;
        let sequence = self.tokenizer.sequence(prompt, latents, longest)?;
        let negative = self.tokenizer.sequence(&PromptDocument::from_words(negative), latents, longest)?;
        let Recent { pictures: mut embedded, negative: known } = self.recent().clone();
        let mut images = Vec::new();
        for place in prompt.images() {
            let picture = self.embed(&pictures[place.picture], &mut embedded);
            images.push(picture.embeddings.clone());
            embedded.insert(0, picture);
        }
        embedded.truncate(MAX_REQUEST_PICTURES);
        let images = (!images.is_empty()).then(|| Tensor::cat(images, 0));
        let cond = self.networks.condition(&self.batch(sequence), images)?;
        let [_, tokens, width] = cond.shape();
        let cond = cond.to_host().await?;
        let uncond = match known.filter(|(known, _)| *known == negative) {
            Some((_, condition)) => condition,
            None => self.networks.condition(&self.batch(negative.clone()), None)?.to_host().await?,
        };
        let condition = Condition { tokens, width, cond, uncond };
        // Only now it is known whether anything failed on the way. What is not finite might come of what was remembered.
        let is_sound = condition.validate([tokens, width]).is_ok();
        let now = Recent { pictures: embedded, negative: Some((negative, condition.uncond.clone())) };
        *self.recent() = if is_sound { now } else { Recent::nothing() };
        Ok(condition)
    }

    /// A picture's embeddings, taken out of `known` if they are there. Each is computed alone, so that they are the same to the
    /// last bit whatever stands beside it.
    fn embed(&self, picture: &Picture, known: &mut Vec<Embedded<E>>) -> Embedded<E> {
        let size = self.config.vision.image_size;
        let pixels = picture.pixels_for_encoder(size as u32);
        let digest = Sha256::digest(bytemuck::cast_slice(&pixels)).into();
        match known.iter().position(|other| other.digest == digest) {
            Some(at) => known.remove(at),
            None => {
                let pixels = Tensor::from_host(pixels, [1, 3, size, size], &self.device);
                Embedded { digest, embeddings: self.networks.embed_pictures(pixels) }
            }
        }
    }

    fn recent(&self) -> MutexGuard<'_, Recent<E>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn batch(&self, sequence: PromptSequence) -> TokenBatch {
        let PromptSequence { tokens, image_mask } = sequence;
        TokenBatch { tokens, image_mask, batch: 1, pad: self.config.special.pad }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use pollster::block_on;

    use super::*;
    use crate::engine::burn::{Burn, BurnDevice};

    fn encoder() -> Encoder<Burn> {
        let folder = Folder::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tiny")).unwrap();
        Encoder::open(&folder, &BurnDevice::cpu()).unwrap()
    }

    fn encode(encoder: &Encoder<Burn>, text: &str, shades: &[u8], negative: &str) -> Condition {
        let pictures: Vec<_> = shades.iter().map(|&shade| Picture::new(8, 8, vec![shade; 192]).unwrap()).collect();
        let prompt = PromptDocument::from_text(text, pictures.len()).unwrap();
        block_on(encoder.encode(&prompt, &pictures, negative)).unwrap()
    }

    #[test]
    fn what_was_encoded_lately_is_not_computed_again() {
        let encoder = encoder();
        let first = encode(&encoder, "a <i> and a <i>", &[20, 200], "");
        assert_eq!(encode(&encoder, "a <i> and a <i>", &[20, 200], ""), first);
        // If it were computed again, what is changed here would not show.
        for picture in &mut encoder.recent().pictures {
            picture.embeddings = picture.embeddings.clone().affine(0.0, 0.0);
        }
        encoder.recent().negative.as_mut().unwrap().1.fill(0.5);
        let changed = encode(&encoder, "a <i> and a <i>", &[20, 200], "");
        assert_ne!(changed.cond, first.cond);
        assert!(changed.uncond.iter().all(|&x| x == 0.5));
        let other = encode(&encoder, "a <i> and a <i>", &[21, 201], "red");
        assert!(other.cond != changed.cond && other.uncond != changed.uncond);
    }

    #[test]
    fn what_is_not_finite_is_forgotten() {
        let encoder = encoder();
        let first = encode(&encoder, "a <i>", &[20], "");
        for picture in &mut encoder.recent().pictures {
            picture.embeddings = picture.embeddings.clone().affine(f32::NAN, 0.0);
        }
        assert!(encode(&encoder, "a <i>", &[20], "").cond[0].is_nan());
        assert_eq!(encode(&encoder, "a <i>", &[20], ""), first);
    }

    #[test]
    fn what_was_encoded_before_changes_no_bit() {
        let encoders = [encoder(), encoder()];
        encode(&encoders[0], "a <i> and a <i>", &[20, 200], "blue");
        for (text, shades) in [("a <i> in the snow", &[200][..]), ("<i> <i> <i>", &[200, 90, 200]), ("a star", &[])] {
            let [after, fresh] = encoders.each_ref().map(|encoder| encode(encoder, text, shades, "red"));
            assert_eq!(after, fresh, "{text}");
        }
    }

    #[test]
    fn only_so_many_pictures_are_remembered() {
        let encoder = encoder();
        for shade in 0..MAX_REQUEST_PICTURES as u8 + 3 {
            encode(&encoder, "<i>", &[shade], "");
        }
        assert_eq!(encoder.recent().pictures.len(), MAX_REQUEST_PICTURES);
    }
}
