//! From a prompt of words and pictures to a condition: vision tower, resampler, language model, AlignerNet.

use crate::aligner::Aligner;
use crate::bundle::{BundleError, Folder, Manifest};
use crate::condition::Condition;
use crate::config::KosmosGConfig;
use crate::engine::{Engine, EngineError, Tensor};
use crate::mllm::{Mllm, TokenBatch};
use crate::picture::Picture;
use crate::prompt::{PromptDocument, PromptError, PromptSequence};
use crate::resampler::{Resampler, ResamplerSizes};
use crate::tokenizer::Tokenizer;
use crate::vision::VisionTower;
use crate::weights::{Store, WeightError, Weights, load_except};

/// Everything before the decoder.
#[derive(Debug, Clone)]
pub struct Encoder<E: Engine> {
    tokenizer: Tokenizer,
    networks: EncoderNetworks<E>,
    config: KosmosGConfig,
    device: E::Device,
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
        Ok(Self { tokenizer, networks, config: config.clone(), device: device.clone() })
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
        let size = self.config.vision.image_size;
        let shown: Vec<&Picture> = prompt.images().map(|place| &pictures[place.picture]).collect();
        let images = (!shown.is_empty()).then(|| {
            let pixels = shown.iter().flat_map(|picture| picture.pixels_for_encoder(size as u32)).collect();
            self.networks.embed_pictures(Tensor::from_host(pixels, [shown.len(), 3, size, size], &self.device))
        });
        let cond = self.networks.condition(&self.batch(sequence), images)?;
        let uncond = self.networks.condition(&self.batch(negative), None)?;
        let [_, tokens, width] = cond.shape();
        Ok(Condition { tokens, width, cond: cond.to_host().await?, uncond: uncond.to_host().await? })
    }

    fn batch(&self, sequence: PromptSequence) -> TokenBatch {
        let PromptSequence { tokens, image_mask } = sequence;
        TokenBatch { tokens, image_mask, batch: 1, pad: self.config.special.pad }
    }
}
