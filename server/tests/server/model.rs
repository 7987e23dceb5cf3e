//! The server with its real engine on the built-in model.

use std::path::{Path, PathBuf};

use axum::http::StatusCode;
use kosmosg::bundle::Folder;
use kosmosg::engine::candle::{Candle, CandleDevice};
use kosmosg::picture::{Picture, Recipe};
use kosmosg::pipeline::{Pipeline, Request};
use kosmosg::prompt::PromptDocument;
use kosmosg::protocol::{ErrorCode, GenerateSettings, JobEvent, JobRequest, PictureFile};
use kosmosg_server::inference::Inference;
use kosmosg_server::worker::Worker;

use crate::support::{Server, bytes_of};

/// Pictures that differ less than this, in dB of PSNR, are the same to everyone.
const SAME_PICTURE: f64 = 45.0;
/// What stepping with others may change of a picture, in dB of PSNR.
const SAME_IN_COMPANY: f64 = 60.0;

/// A server whose worker computes, and its models: the built-in one, and a copy with another byte in its U-Net.
fn server() -> Server {
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

    Server::of(models, |jobs| Worker::start(jobs, 4, || Inference::<Candle>::new(CandleDevice::cpu())).unwrap())
}

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tiny")
}

fn request() -> Request {
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

fn job_of(bundle: &str, Request { prompt, pictures, negative, settings }: Request) -> JobRequest {
    let pictures = pictures.iter().map(|picture| PictureFile(picture.to_png(None))).collect();
    JobRequest::Generate { bundle: bundle.into(), prompt, pictures, negative, settings }
}

async fn picture(server: &Server, bundle: &str) -> (Picture, Option<Recipe>) {
    let job = server.submit(&job(bundle)).await;
    let (_, last) = server.events(&job.id).await.pop().unwrap();
    assert!(matches!(last, JobEvent::Done { .. }), "{last:?}");
    let response = server.get(&format!("/api/jobs/{}/result", job.id)).await;
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
        server.events(id).await;
        let png = bytes_of(server.get(&format!("/api/jobs/{id}/result")).await).await;
        let alone = pollster::block_on(pipeline.generate(&request(seed as u64), 0, |_, _| {})).unwrap();
        let psnr = Picture::decode(&png).unwrap().psnr(&alone);
        assert!(psnr >= SAME_IN_COMPANY, "{seed}: {psnr:.1} dB");
    }
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
