//! The built-in model on both engines: the same seed makes the same picture, and a run can change engines at any step.
#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

use std::sync::LazyLock;

use kosmosg::bundle::Folder;
use kosmosg::condition::Condition;
use kosmosg::denoise::{DenoiseSettings, DenoiseState};
use kosmosg::encoder::{self, Encoder, EncoderParts};
use kosmosg::engine::Engine;
use kosmosg::engine::burn::{Burn, BurnDevice};
use kosmosg::engine::candle::{Candle, CandleDevice};
use kosmosg::noise::Rng;
use kosmosg::picture::Picture;
use kosmosg::pipeline::{Pipeline, Request};
use kosmosg::prompt::PromptDocument;
use kosmosg::protocol::GenerateSettings;
use kosmosg::sampler::SamplerKind;
use kosmosg_models::sprites::{Creature, Split, portrait};
use kosmosg_tests::models;
use pollster::block_on;

/// In f16, of 11 bits, a picture differs less than this: one looks twice to see it.
const NEARLY_THE_SAME: f64 = 30.0;
/// Pictures of two engines differ less than this, in dB of PSNR: less than anyone can see.
const SAME_PICTURE: f64 = 45.0;

fn folder() -> Folder {
    Folder::open(models::built_in()).unwrap()
}

static BURN: LazyLock<Pipeline<Burn>> = LazyLock::new(|| Pipeline::load(&folder(), &BurnDevice::cpu()).unwrap());
static CANDLE: LazyLock<Pipeline<Candle>> = LazyLock::new(|| Pipeline::load(&folder(), &CandleDevice::cpu()).unwrap());

fn request(seed: u64, sampler: SamplerKind, steps: usize) -> Request {
    let creature = Creature::sample(&mut Rng::new(seed, 0), Split::HeldOut);
    Request {
        prompt: PromptDocument::from_text("a <i> on the beach", 1).unwrap(),
        pictures: vec![portrait(&creature, 64)],
        negative: String::new(),
        settings: GenerateSettings { seed, sampler: Some(sampler), steps: Some(steps), ..GenerateSettings::default() },
    }
}

fn assert_same(what: &str, a: &Picture, b: &Picture) {
    let psnr = a.psnr(b);
    assert!(psnr >= SAME_PICTURE, "{what}: {psnr:.1} dB");
}

#[test]
fn both_engines_make_the_same_picture() {
    for sampler in SamplerKind::ALL {
        let request = request(7, sampler, 8);
        let burn = block_on(BURN.generate(&request, 0, |_, _| {})).unwrap();
        let candle = block_on(CANDLE.generate(&request, 0, |_, _| {})).unwrap();
        assert_same(sampler.name(), &burn, &candle);
    }
}

#[test]
fn f16_makes_nearly_the_same_picture() {
    let pipeline = Pipeline::<Candle>::load(&folder(), &CandleDevice::cpu().in_f16()).unwrap();
    let request = request(7, SamplerKind::DpmppTwoM, 8);
    let half = block_on(pipeline.generate(&request, 0, |_, _| {})).unwrap();
    let psnr = half.psnr(&block_on(CANDLE.generate(&request, 0, |_, _| {})).unwrap());
    println!("{psnr:.1} dB");
    assert!(psnr >= NEARLY_THE_SAME, "{psnr:.1} dB");
}

#[test]
fn a_run_can_change_engines_at_any_step() {
    SamplerKind::ALL.into_iter().for_each(|sampler| changes_engines_at_any_step(sampler, 4));
}

fn changes_engines_at_any_step(sampler: SamplerKind, count: usize) {
    let request = request(3, sampler, count);
    let whole = block_on(BURN.generate(&request, 0, |_, _| {})).unwrap();
    let condition = block_on(BURN.encoder.encode(&request.prompt, &request.pictures, "")).unwrap();
    let start = BURN.start(&request.settings, 0).unwrap();
    for stop in 0..=start.evaluations() {
        let half = steps(&BURN, start.clone(), &condition, stop);
        let done = steps(&CANDLE, sent(&half), &condition, start.evaluations());
        assert_same(&format!("{sampler} from burn to candle at step {stop}"), &decode(&CANDLE, &done), &whole);

        let half = steps(&CANDLE, start.clone(), &condition, stop);
        let done = steps(&BURN, sent(&half), &condition, start.evaluations());
        assert_same(&format!("{sampler} from candle to burn at step {stop}"), &decode(&BURN, &done), &whole);
    }
}

/// A state as the other side receives it.
fn sent(state: &DenoiseState) -> DenoiseState {
    serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap()
}

#[test]
fn seeds_and_pictures_of_a_request_differ() {
    let request = request(7, SamplerKind::Ddim, 4);
    let first = block_on(BURN.generate(&request, 0, |_, _| {})).unwrap();
    let again = block_on(BURN.generate(&request, 0, |_, _| {})).unwrap();
    let second = block_on(BURN.generate(&request, 1, |_, _| {})).unwrap();
    assert_eq!(first, again, "the same request makes the same bits");
    assert!(first.psnr(&second) < 30.0, "each picture of a request has its own noise");
}

#[test]
fn a_model_that_stays_in_its_files_is_the_same() {
    let copy = tempfile::tempdir().unwrap();
    models::copy(&models::built_in(), copy.path()).unwrap();
    let folder = Folder::open(copy.path()).unwrap();
    let manifest = folder.manifest();
    let [vision, mllm, aligner] = encoder::PARTS.map(|part| folder.stored(part).unwrap());
    let tokenizer = folder.tokenizer().unwrap();
    let load = || {
        let parts = EncoderParts { vision: &vision, mllm: &mllm, aligner: &aligner };
        Encoder::<Burn>::load(manifest, &tokenizer, parts, &BurnDevice::cpu())
    };
    let encoder = load().unwrap();
    let Request { prompt, pictures, .. } = request(7, SamplerKind::Ddim, 4);
    let encode = |encoder: &Encoder<Burn>| block_on(encoder.encode(&prompt, &pictures, "blurry"));
    let expected = encode(&BURN.encoder).unwrap();
    assert_eq!(encode(&encoder).unwrap(), expected);

    // Only the words' embeddings are still needed.
    std::fs::remove_file(copy.path().join("aligner.gguf")).unwrap();
    assert_eq!(encode(&encoder).unwrap(), expected);
    std::fs::remove_file(copy.path().join("mllm.gguf")).unwrap();
    let error = encode(&encoder).unwrap_err().to_string();
    assert!(error.contains("embed_tokens.weight` cannot be read: ") && error.contains("mllm.gguf"), "{error}");
    let error = load().unwrap_err().to_string();
    assert!(error.starts_with("part `mllm`: tensor `"), "{error}");
}

fn steps<E: Engine>(pipeline: &Pipeline<E>, mut state: DenoiseState, condition: &Condition, to: usize) -> DenoiseState {
    let condition = pipeline.denoiser.prepare(condition);
    while state.step() < to {
        block_on(pipeline.denoiser.step(&mut state, &condition)).unwrap();
    }
    state
}

fn decode<E: Engine>(pipeline: &Pipeline<E>, state: &DenoiseState) -> Picture {
    let DenoiseSettings { channels, height, width, .. } = *state.settings();
    block_on(pipeline.decoder.decode(state.latents().to_vec(), [channels, height, width])).unwrap()
}
