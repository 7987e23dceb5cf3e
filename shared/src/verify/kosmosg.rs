//! Vision tower, resampler, language model, AlignerNet, CLIP's text model, and the losses of stages 1 and 2.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::{Cases, Files, RUN, Tolerance, VerifyError, in_config, json, malformed, tensors};
use crate::aligner::AlignerDecoder;
use crate::bundle::Tensors;
use crate::clip_text::ClipText;
use crate::config::{ClipTextConfig, KosmosGConfig, SpecialTokens};
use crate::encoder::{EncoderNetworks, is_redundant};
use crate::engine::{Engine, Tensor};
use crate::loss;
use crate::mllm::TokenBatch;
use crate::weights::{Store, WeightError, Weights, load, load_except};

/// A fixture's networks, not yet on an engine.
pub struct KosmosGFixture {
    /// Sizes.
    pub config: KosmosGConfig,
    /// All weights in the published names.
    pub weights: Tensors,
    /// CLIP's text model, if there is one.
    pub text: Option<(ClipTextConfig, Tensors)>,
}

#[derive(Deserialize)]
struct ConfigFile {
    config: KosmosGConfig,
}

impl KosmosGFixture {
    /// Reads `config.json`, `model.safetensors` and the folder `text_encoder`.
    ///
    /// # Errors
    /// [`VerifyError`] that names the file.
    pub fn read(files: &Files) -> Result<Self, VerifyError> {
        let ConfigFile { config } = json(files, "config.json")?;
        config.validate().map_err(in_config("config.json"))?;
        let text = files.contains_key(TEXT_CONFIG).then(|| text_model(files)).transpose()?;
        Ok(Self { config, weights: tensors(files, "model.safetensors")?, text })
    }

    /// Both halves of the networks: what inference uses, and AlignerNet's N, which a bundle does not have.
    ///
    /// # Errors
    /// A [`WeightError`] that names the tensor.
    pub fn networks<E: Engine>(
        &self,
        store: &dyn Store<E>,
        device: &E::Device,
    ) -> Result<(EncoderNetworks<E>, Option<AlignerDecoder<E>>), WeightError> {
        let config = &self.config;
        let has_decoder = self.weights.keys().any(|name| name.starts_with("aligner.decoder"));
        let decoder =
            |weights: &Weights<'_, E>| AlignerDecoder::new(&weights.at("aligner"), &config.aligner, config.mllm.dim);
        let build = |weights: &Weights<'_, E>| {
            Ok((EncoderNetworks::new(weights, config)?, has_decoder.then(|| decoder(weights)).transpose()?))
        };
        load_except(store, device, is_redundant, build)
    }
}

/// Compares everything in a fixture of [`Form::KosmosG`](super::Form::KosmosG) but gradients, each network within
/// `tolerance`.
///
/// # Errors
/// [`VerifyError`] if files are missing or malformed, weights do not fit, or the engine fails.
pub async fn kosmosg<E: Engine>(files: &Files, device: &E::Device, tolerance: f64) -> Result<Cases, VerifyError> {
    kosmosg_cases::<E>(&KosmosGFixture::read(files)?, files, device, &|_| tolerance).await
}

/// Compares what networks of some weights compute with a fixture's cases: the fixture's own weights, or those that a bundle
/// made of them.
///
/// # Errors
/// Those of [`kosmosg`].
pub async fn kosmosg_cases<E: Engine>(
    fixture: &KosmosGFixture,
    files: &Files,
    device: &E::Device,
    tolerance: Tolerance<'_>,
) -> Result<Cases, VerifyError> {
    let (encoder, decoder) = fixture.networks::<E>(&fixture.weights, device)?;
    let config = &fixture.config;
    let mut cases = Cases::read(files)?;
    // Who can compute gradients compares them afterwards.
    [ALIGN_GRADIENTS, LM_GRADIENTS].into_iter().for_each(|prefix| cases.leave(prefix));
    let names: BTreeSet<String> =
        [".hidden", ".logits", ".condition"].iter().flat_map(|suffix| cases.stems(suffix)).collect();
    for case in names {
        let tokens = format!("{case}.tokens");
        let batch = match case.as_str() {
            "null" if !cases.has(&tokens) => {
                let &SpecialTokens { bos, pad, .. } = &config.special;
                TokenBatch { tokens: vec![bos], image_mask: vec![false], batch: 1, pad }
            }
            _ => token_batch(&cases, &tokens, config)?,
        };
        let pixels = format!("{case}.pixels");
        check_places(&cases, &pixels, &batch, config)?;
        // What everything up to the language model depends on.
        let mut parts = vec!["mllm"];
        let images = match cases.has(&pixels) {
            true => {
                parts.push("vision");
                let features = encoder.vision.forward(cases.tensor(&pixels, pixel_shape(config), device)?);
                compare(&mut cases, format!("{case}.vision_features"), &features, tolerance(&["vision"])).await?;
                let images = encoder.resampler.forward(features);
                compare(&mut cases, format!("{case}.image_embeddings"), &images, tolerance(&parts)).await?;
                Some(images)
            }
            false => None,
        };
        let hidden = encoder.mllm.forward(&batch, images)?;
        compare(&mut cases, format!("{case}.hidden"), &hidden, tolerance(&parts)).await?;
        if cases.has(&format!("{case}.logits")) {
            let logits = encoder.mllm.logits(hidden.clone())?;
            compare(&mut cases, format!("{case}.logits"), &logits, tolerance(&parts)).await?;
        }
        let condition = encoder.aligner.forward(hidden, &batch.padding());
        parts.push("aligner");
        compare(&mut cases, format!("{case}.condition"), &condition, tolerance(&parts)).await?;
    }
    if cases.has("lm.loss") {
        let loss = lm_loss(&cases, &encoder, config, device)?;
        cases.compare("lm.loss", &loss, RUN.max(tolerance(&["vision", "mllm"]))).await?;
    }
    if let Some(text) = &fixture.text
        && cases.has("align.clip_tokens")
    {
        clip_text::<E>(&mut cases, text, device, tolerance(&["text"])).await?;
    }
    let Some(decoder) = decoder else {
        cases.leave("align.");
        return Ok(cases);
    };
    if cases.has("align.mse_loss") || cases.has("align.rec_loss") {
        let (mse, rec) = align_losses(&cases, &encoder, &decoder, config, device)?;
        let tolerance = RUN.max(tolerance(&["mllm", "aligner"]));
        compare(&mut cases, "align.mse_loss".into(), &mse, tolerance).await?;
        compare(&mut cases, "align.rec_loss".into(), &rec, tolerance).await?;
    }
    Ok(cases)
}

/// What the names of stage 1's gradients begin with.
pub const LM_GRADIENTS: &str = "lm.grad.";
/// What the names of stage 2's gradients begin with.
pub const ALIGN_GRADIENTS: &str = "align.grad.";

/// Stage 2's two losses, `[1]` each, on the fixture's batch of texts.
///
/// # Errors
/// [`VerifyError`] if an input is missing.
pub fn align_losses<E: Engine>(
    cases: &Cases,
    encoder: &EncoderNetworks<E>,
    decoder: &AlignerDecoder<E>,
    config: &KosmosGConfig,
    device: &E::Device,
) -> Result<(Tensor<E, 1>, Tensor<E, 1>), VerifyError> {
    let batch = token_batch(cases, "align.tokens", config)?;
    if batch.image_mask.contains(&true) {
        return Err(malformed("align.image_mask", "places of pictures, expected words only".into()));
    }
    let shape = [Some(batch.batch), Some(config.aligner.queries), Some(config.aligner.dim)];
    let clip = cases.tensor("align.clip_embeddings", shape, device)?;
    let hidden = encoder.mllm.forward(&batch, None)?;
    let condition = encoder.aligner.forward(hidden.clone(), &batch.padding());
    let reconstructed = decoder.forward(condition.clone(), batch.len());
    Ok(loss::align(condition, clip, reconstructed, hidden))
}

/// Stage 1's loss, `[1]`, on the fixture's batch: each token predicts the next.
///
/// # Errors
/// [`VerifyError`] if an input is missing.
pub fn lm_loss<E: Engine>(
    cases: &Cases,
    encoder: &EncoderNetworks<E>,
    config: &KosmosGConfig,
    device: &E::Device,
) -> Result<Tensor<E, 1>, VerifyError> {
    let batch = token_batch(cases, "batch.tokens", config)?;
    let (rows, length) = (batch.batch, batch.len());
    let inputs = TokenBatch {
        tokens: batch.tokens.chunks(length).flat_map(|row| &row[..length - 1]).copied().collect(),
        image_mask: batch.image_mask.chunks(length).flat_map(|row| &row[..length - 1]).copied().collect(),
        ..batch
    };
    check_places(cases, "batch.pixels", &inputs, config)?;
    let targets: Vec<u32> = batch.tokens.chunks(length).flat_map(|row| &row[1..]).copied().collect();
    let (counted, shape) = cases.integers("lm.loss_mask")?;
    let counted: Vec<bool> = counted.iter().map(|&x| x != 0).collect();
    if shape != [rows, length - 1] || !counted.contains(&true) {
        let detail = format!("shape {shape:?}, expected [{rows}, {}] and something that counts", length - 1);
        return Err(malformed("lm.loss_mask", detail));
    }
    let images = match cases.has("batch.pixels") {
        true => Some(encoder.embed_pictures(cases.tensor("batch.pixels", pixel_shape(config), device)?)),
        false => None,
    };
    let logits = encoder.mllm.logits(encoder.mllm.forward(&inputs, images)?)?;
    Ok(loss::cross_entropy(logits, &targets, &counted))
}

const TEXT_CONFIG: &str = "text_encoder/config.json";

/// The text model in `text_encoder`.
fn text_model(files: &Files) -> Result<(ClipTextConfig, Tensors), VerifyError> {
    let config: ClipTextConfig = json(files, TEXT_CONFIG)?;
    config.validate().map_err(in_config(TEXT_CONFIG))?;
    Ok((config, tensors(files, "text_encoder/model.safetensors")?))
}

async fn clip_text<E: Engine>(
    cases: &mut Cases,
    (config, weights): &(ClipTextConfig, Tensors),
    device: &E::Device,
    tolerance: f64,
) -> Result<(), VerifyError> {
    let text = load(weights, device, |weights| ClipText::<E>::new(weights, config))?;
    let (tokens, [batch, _]) = cases.tokens("align.clip_tokens", config.vocab_size, config.max_position_embeddings)?;
    cases.compare("align.clip_embeddings", &text.forward(&tokens, batch), tolerance).await
}

fn token_batch(cases: &Cases, name: &str, config: &KosmosGConfig) -> Result<TokenBatch, VerifyError> {
    let (tokens, [batch, _]) = cases.tokens(name, config.mllm.vocab_size, config.max_tokens())?;
    let mask = name.replace(".tokens", ".image_mask");
    let image_mask: Vec<bool> = match cases.integers(&mask) {
        Ok((mask, _)) => mask.iter().map(|&x| x != 0).collect(),
        Err(_) => vec![false; tokens.len()],
    };
    if image_mask.len() != tokens.len() {
        return Err(malformed(&mask, format!("{} values for {} tokens", image_mask.len(), tokens.len())));
    }
    Ok(TokenBatch { tokens, image_mask, batch, pad: config.special.pad })
}

/// Pixels of any number of pictures.
fn pixel_shape(config: &KosmosGConfig) -> [Option<usize>; 4] {
    let side = Some(config.vision.image_size);
    [None, Some(3), side, side]
}

/// Whether a batch has as many picture places as the tensor `pixels`, if there is one, has pictures for.
fn check_places(cases: &Cases, pixels: &str, batch: &TokenBatch, config: &KosmosGConfig) -> Result<(), VerifyError> {
    let pictures = match cases.has(pixels) {
        true => cases.numbers(pixels)?.1.first().copied().unwrap_or(0),
        false => 0,
    };
    let (places, latents) = (batch.image_mask.iter().filter(|&&image| image).count(), config.connector.latent_queries);
    match places == pictures * latents {
        true => Ok(()),
        false => Err(malformed(pixels, format!("{pictures} pictures of {latents} embeddings for {places} places"))),
    }
}

/// Compares if the fixture has that tensor: a batch, for one, comes with its end result only.
async fn compare<E: Engine, const D: usize>(
    cases: &mut Cases,
    name: String,
    ours: &Tensor<E, D>,
    tolerance: f64,
) -> Result<(), VerifyError> {
    match cases.has(&name) {
        true => cases.compare(&name, ours, tolerance).await,
        false => Ok(()),
    }
}
