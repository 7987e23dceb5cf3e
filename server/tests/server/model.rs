//! The server with its real engine on the built-in model.

use std::path::{Path, PathBuf};

use axum::http::StatusCode;
use kosmosg::bundle::{BundleError, Folder, Tensors};
use kosmosg::engine::candle::{Candle, CandleDevice};
use kosmosg::noise::gaussian;
use kosmosg::picture::{Picture, Recipe};
use kosmosg::pipeline::{Pipeline, Request};
use kosmosg::prompt::PromptDocument;
use kosmosg::protocol::{ErrorCode, GenerateSettings, JobEvent, JobRequest, PictureFile};
use kosmosg::weights::lora;
use kosmosg_server::inference::Inference;
use kosmosg_server::worker::Worker;
use safetensors::tensor::{Dtype, TensorView};

use crate::support::{Server, bytes_of, with_loras};

/// Pictures that differ less than this, in dB of PSNR, are the same to everyone.
const SAME_PICTURE: f64 = 45.0;
/// Pictures that differ more than this are not.
const ANOTHER_PICTURE: f64 = 35.0;
/// What stepping with others may change of a picture, in dB of PSNR.
const SAME_IN_COMPANY: f64 = 60.0;

/// A server whose worker computes, and its models: the built-in one, and a copy with another byte in its U-Net; two LoRAs of the
/// built-in one, and one of another U-Net.
fn server() -> Server {
    server_on(CandleDevice::cpu())
}

/// The same on another device.
pub fn server_on(device: CandleDevice) -> Server {
    let models = tempfile::tempdir().unwrap();
    for name in ["tiny", "damaged"] {
        let to = models.path().join(name);
        std::fs::create_dir(&to).unwrap();
        for file in tiny().read_dir().unwrap().map(|entry| entry.unwrap().path()) {
            std::fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
        }
    }
    let unet = models.path().join("damaged/unet.gguf");
    let mut bytes = std::fs::read(&unet).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(unet, bytes).unwrap();
    let loras = models.path().join("loras");
    std::fs::create_dir(&loras).unwrap();
    for (name, module) in [("wool", "attn2.to_v"), ("silk", "attn1.to_out.0")] {
        let module = format!("mid_block.attentions.0.transformer_blocks.0.{module}");
        std::fs::write(loras.join(format!("{name}.safetensors")), lora_of(&module)).unwrap();
    }
    let foreign = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/sd/lora/kohya.safetensors");
    std::fs::copy(foreign, loras.join("foreign.safetensors")).unwrap();

    Server::of(models, |jobs| Worker::start(jobs, 4, move || Inference::<Candle>::new(device)).unwrap())
}

/// A LoRA of one of the built-in U-Net's modules: a safetensors file in diffusers' form.
fn lora_of(module: &str) -> Vec<u8> {
    let unet = Folder::open(tiny()).unwrap().part("unet").unwrap();
    let &[output, input] = unet[&format!("{module}.weight")].shape() else { panic!("a matrix") };
    let bytes = |length| gaussian(3, 0, length).into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
    let halves = [("lora_A", vec![1, input], bytes(input)), ("lora_B", vec![output, 1], bytes(output))];
    let views = halves.iter().map(|(half, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap();
        (format!("unet.{module}.{half}.weight"), view)
    });
    safetensors::serialize(views, None).unwrap()
}

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tiny")
}

pub fn request() -> Request {
    let rgb = (0..90 * 70).flat_map(|i| [i % 90 * 2, i / 70 * 2, 128].map(|value| value as u8)).collect();
    Request {
        prompt: PromptDocument::from_text("a <i> on the beach", 1).unwrap(),
        pictures: vec![Picture::new(90, 70, rgb).unwrap()],
        negative: "dark".into(),
        settings: GenerateSettings { seed: 5, steps: Some(4), ..GenerateSettings::default() },
    }
}

fn job(bundle: &str) -> JobRequest {
    job_of(bundle, request())
}

pub fn job_of(bundle: &str, Request { prompt, pictures, negative, settings }: Request) -> JobRequest {
    let pictures = pictures.iter().map(|picture| PictureFile(picture.to_png(None))).collect();
    JobRequest::Generate { bundle: bundle.into(), prompt, pictures, negative, settings, loras: Vec::new() }
}

async fn picture(server: &Server, bundle: &str) -> (Picture, Option<Recipe>) {
    let job = server.submit(&job(bundle)).await;
    picture_of(server, &job.id).await
}

async fn picture_of(server: &Server, id: &str) -> (Picture, Option<Recipe>) {
    let (_, last) = server.events(id).await.pop().unwrap();
    assert!(matches!(last, JobEvent::Done { .. }), "{last:?}");
    let response = server.get(&format!("/api/jobs/{id}/result")).await;
    assert_eq!(response.status(), StatusCode::OK);
    let png = bytes_of(response).await;
    (Picture::decode(&png).unwrap(), Recipe::read(&png).unwrap())
}

#[tokio::test]
async fn a_prompt_becomes_the_pipelines_own_picture() {
    let (ours, recipe) = picture(&server(), "tiny").await;
    let pipeline = Pipeline::<Candle>::load(&Folder::open(tiny()).unwrap(), &CandleDevice::cpu()).unwrap();
    let theirs = pollster::block_on(pipeline.generate(&request(), 0, |_, _| {})).unwrap();
    let psnr = ours.psnr(&theirs);
    assert!(psnr >= SAME_PICTURE, "{psnr:.1} dB");
    assert_eq!(recipe, Some(pipeline.recipe(&request(), 0, &theirs)));
}

#[tokio::test]
async fn a_picture_is_the_same_in_company() {
    let server = server();
    let request = |seed: u64| {
        let steps = Some(3 + seed as usize % 3);
        let guidance = (seed != 2).then_some(1.0 + seed as f64);
        let settings = GenerateSettings { seed, steps, guidance, ..GenerateSettings::default() };
        Request { settings, ..request() }
    };
    // All are there before the first is loaded.
    let mut ids = Vec::new();
    for seed in 0..5 {
        ids.push(server.submit(&job_of("tiny", request(seed))).await.id);
    }
    let pipeline = Pipeline::<Candle>::load(&Folder::open(tiny()).unwrap(), &CandleDevice::cpu()).unwrap();
    for (seed, id) in ids.iter().enumerate() {
        let (ours, _) = picture_of(&server, id).await;
        let alone = pollster::block_on(pipeline.generate(&request(seed as u64), 0, |_, _| {})).unwrap();
        let psnr = ours.psnr(&alone);
        assert!(psnr >= SAME_IN_COMPANY, "{seed}: {psnr:.1} dB");
    }
    let metrics = String::from_utf8(bytes_of(server.get("/metrics").await).await.to_vec()).unwrap();
    let number = |name: &str| -> f64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().parse().unwrap()
    };
    let (steps, evaluations) = (number("kosmosg_step_jobs_sum"), number("kosmosg_step_jobs_count"));
    assert!(steps > evaluations, "{steps} steps in {evaluations} evaluations: nobody had company");
}

#[tokio::test]
async fn a_damaged_model_fails_alone() {
    let server = server();
    let failed = server.submit(&job("damaged")).await;
    let (_, last) = server.events(&failed.id).await.pop().unwrap();
    let JobEvent::Failed { error } = last else { panic!("{last:?}") };
    assert_eq!(error.code, ErrorCode::Internal);
    assert!(error.message.contains("the server cannot load this model"), "{error}");
    let (made, _) = picture(&server, "tiny").await;
    assert_eq!(made.width(), 64);
}

#[tokio::test]
async fn each_job_has_its_own_loras() {
    let server = server();
    let sets: [&[(&str, f32)]; 4] = [&[], &[("wool", 2.0)], &[("wool", 1.0), ("silk", -0.5)], &[("wool", 2.0)]];
    let mut ids = Vec::new();
    for set in sets {
        ids.push(server.submit(&with_loras(job("tiny"), set)).await.id);
    }
    let mut pictures = Vec::new();
    for (set, id) in sets.into_iter().zip(&ids) {
        let (ours, recipe) = picture_of(&server, id).await;
        let change = |unet: &mut Tensors| {
            for (name, scale) in set {
                let file = std::fs::read(server.models.path().join(format!("loras/{name}.safetensors"))).unwrap();
                lora::merge_file(unet, file, *scale).unwrap();
            }
            Ok::<_, BundleError>(())
        };
        let folder = Folder::open(tiny()).unwrap();
        let pipeline = Pipeline::<Candle>::load_with(&folder, &CandleDevice::cpu(), change).unwrap();
        let alone = pollster::block_on(pipeline.generate(&request(), 0, |_, _| {})).unwrap();
        let psnr = ours.psnr(&alone);
        assert!(psnr >= SAME_IN_COMPANY, "{set:?}: {psnr:.1} dB");
        assert_eq!(recipe.unwrap().adapters.len(), set.len());
        pictures.push(ours);
    }
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        let psnr = pictures[one].psnr(&pictures[other]);
        assert!(psnr <= ANOTHER_PICTURE, "{:?} and {:?}: {psnr:.1} dB", sets[one], sets[other]);
    }
}

#[tokio::test]
async fn a_lora_of_another_model_fails_alone() {
    let server = server();
    let failed = server.submit(&with_loras(job("tiny"), &[("foreign", 1.0)])).await;
    let (_, last) = server.events(&failed.id).await.pop().unwrap();
    let JobEvent::Failed { error } = last else { panic!("{last:?}") };
    assert_eq!(error.code, ErrorCode::Invalid);
    assert!(error.message.starts_with("the LoRA foreign does not fit this model: tensor"), "{error}");
    picture(&server, "tiny").await;
}
