//! What is refused, with a message that says why, and never reaches the queue.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode, header};
use futures::stream;
use kosmosg::denoise::{DenoiseSettings, DenoiseState};
use kosmosg::picture::Picture;
use kosmosg::prompt::PromptDocument;
use kosmosg::protocol::{ErrorCode, GenerateSettings, Health, JobRequest, MAX_REQUEST_BYTES, PictureFile};
use kosmosg::schedule::{NoiseSchedule, PredictionType, SchedulerConfig};
use serde_json::Value;
use tokio::time::timeout;

use crate::support::{
    BUNDLE, STEPS, Server, assert_error, bytes_of, condition, denoise, denoise_from, generate, json_of, settings,
    state, state_of,
};

#[tokio::test]
async fn unknown_jobs() {
    let server = Server::start();
    let unknown = "0123456789abcdef0123456789abcdef";
    for id in [unknown, "1", "+123456789abcdef0123456789abcdef", "..", "%ff", "0123456789ABCDEF0123456789ABCDEF"] {
        for path in ["", "/events", "/result", "/state"] {
            let response = server.get(&format!("/api/jobs/{id}{path}")).await;
            assert_error(response, StatusCode::NOT_FOUND, ErrorCode::NotFound, "no such job").await;
        }
        assert_eq!(server.delete(&format!("/api/jobs/{id}")).await, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn unknown_addresses_and_methods() {
    let server = Server::start();
    for path in ["/api/nothing", "/api/jobs/1/2/3", "/models/small", "/nothing"] {
        assert_error(server.get(path).await, StatusCode::NOT_FOUND, ErrorCode::NotFound, "there is").await;
    }
    let request = Request::put("/api/jobs").body(Body::empty()).unwrap();
    assert_error(server.send(request).await, StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Invalid, "method").await;
}

#[tokio::test]
async fn what_is_no_job() {
    let server = Server::start();
    for (body, complaint) in [
        ("", "EOF"),
        ("{", "EOF"),
        ("[]", "expected value"),
        (r#"{"explode":{}}"#, "unknown variant `explode`, expected `denoise` or `generate`"),
        (r#"{"denoise":{"bundle":"small"}}"#, "missing field `unet`"),
        (r#"{"generate":{"bundle":"small","prompt":[{"sound":"x"}],"settings":{"seed":1}}}"#, "sound"),
        (r#"{"generate":{"bundle":"small","prompt":[],"settings":{"seed":-1}}}"#, "-1"),
        (r#"{"generate":{"bundle":"small","prompt":[],"settings":{"seed":1,"sampler":"best"}}}"#, "best"),
        (r#"{"generate":{"bundle":"small","prompt":[],"pictures":["?"],"settings":{"seed":1}}}"#, "base64"),
    ] {
        assert_error(server.post(body).await, StatusCode::BAD_REQUEST, ErrorCode::Invalid, complaint).await;
    }
    let form = Request::post("/api/jobs").header("content-type", "text/plain").body(Body::from("{}")).unwrap();
    let response = server.send(form).await;
    assert_error(response, StatusCode::UNSUPPORTED_MEDIA_TYPE, ErrorCode::Invalid, "application/json").await;
    assert_still_works(&server).await;
}

#[tokio::test]
async fn an_unknown_bundle() {
    let server = Server::start();
    let JobRequest::Denoise { unet, condition, state, loras, .. } = denoise(0) else { unreachable!() };
    let request = JobRequest::Denoise { bundle: "../small".into(), unet, condition, state, loras };
    let response = server.post(serde_json::to_vec(&request).unwrap()).await;
    assert_error(response, StatusCode::NOT_FOUND, ErrorCode::NotFound, "there is small").await;
}

#[tokio::test]
async fn numbers_that_are_none() {
    let server = Server::start();
    let mut wrong = condition();
    wrong.uncond[7] = f32::NAN;
    let request = denoise_from(wrong, state(0));
    refused(&server, &request, "`uncond` has a number that is not finite at position 7").await;

    // A state cannot be made with such numbers, so the wire's are changed: 64 times infinity.
    let mut request = serde_json::to_value(denoise(0)).unwrap();
    request["denoise"]["state"]["latents"] = "AACAfwAAgH8AAIB/".repeat(64 / 3).into();
    refused_json(&server, &request, "63 values, expected 64").await;
    request["denoise"]["state"]["latents"] = format!("{}AACAfw==", "AACAfwAAgH8AAIB/".repeat(64 / 3)).into();
    refused_json(&server, &request, "inf at position 0").await;
    request["denoise"]["state"]["latents"] = "AACAfwA=".into();
    refused_json(&server, &request, "not a whole number of f32").await;
    assert_still_works(&server).await;
}

#[tokio::test]
async fn tensors_of_another_size() {
    let server = Server::start();
    let mut wrong = condition();
    (wrong.tokens, wrong.width) = (8, 3);
    let request = denoise_from(wrong, state(0));
    refused(&server, &request, "takes [3, 8]").await;
    let mut short = condition();
    short.cond.pop();
    let request = denoise_from(short, state(0));
    refused(&server, &request, "`cond` has 23 numbers, expected 24").await;

    for (settings, complaint) in [
        (DenoiseSettings { channels: 5, ..settings(0) }, "5 channels, but the U-Net of small takes 4"),
        (DenoiseSettings { height: 65, ..settings(0) }, "latents of 65 × 4 are too large"),
        (DenoiseSettings { guidance: 1e9, ..settings(0) }, "choose 0 to 100"),
        (DenoiseSettings { guidance: -1.0, ..settings(0) }, "choose 0 to 100"),
    ] {
        refused(&server, &denoise_from(condition(), state_of(settings)), complaint).await;
    }
    for (pointer, value, complaint) in [
        ("/denoise/state/step", 4, "at step 4, but it has only 3"),
        ("/denoise/state/settings/steps", 0, "0 steps; choose 1 to 1000"),
        ("/denoise/state/settings/steps", 100_000, "choose 1 to 1000"),
        ("/denoise/state/settings/height", 100_000, "at most 64 channels, 1024 on a side"),
        ("/denoise/state/settings/width", 0, "none of them 0"),
        ("/denoise/state/schedule/num_train_timesteps", 1u64 << 40, "1099511627776"),
    ] {
        let mut request = serde_json::to_value(denoise(0)).unwrap();
        *request.pointer_mut(pointer).unwrap() = value.into();
        refused_json(&server, &request, complaint).await;
    }
    assert_still_works(&server).await;
}

#[tokio::test]
async fn prompts_and_pictures_that_do_not_fit() {
    let server = Server::start();
    let picture = Picture::new(40, 30, (0..3600).map(|i| (i * i) as u8).collect()).unwrap().to_png(None);
    let truncated = PictureFile(picture[..picture.len() / 2].to_vec());
    let picture = PictureFile(picture);
    let text = "a <i> and <i>";
    let settings = GenerateSettings { seed: 1, ..GenerateSettings::default() };
    let steps = GenerateSettings { steps: Some(0), ..settings.clone() };
    let guidance = GenerateSettings { guidance: Some(101.0), ..settings.clone() };
    let long = "a ".repeat(40);
    let endless = "a".repeat(70_000);
    for (text, pictures, settings, complaint) in [
        (
            text,
            vec![picture.clone(), truncated],
            &settings,
            "picture number 2: the PNG picture is damaged: it is cut off",
        ),
        (text, vec![picture.clone(), PictureFile(vec![])], &settings, "picture number 2: the picture file is empty"),
        (text, vec![claims(60_000), picture.clone()], &settings, "60000 x 60000, and at most 32000000 pixels"),
        (text, vec![picture.clone(), claims(2000)], &settings, "picture number 2: the PNG picture is damaged"),
        (
            text,
            vec![PictureFile(b"GIF89a".to_vec()), picture.clone()],
            &settings,
            "picture number 1: the picture's format is GIF",
        ),
        (text, vec![picture.clone()], &settings, "picture number 2, but 1 picture given"),
        (text, vec![picture.clone(); 3], &settings, "picture number 3 is nowhere in the prompt"),
        (text, vec![picture.clone(); 33], &settings, "at most 32 are"),
        (&endless, vec![], &settings, "the text has 70000 bytes, and at most 65536 are allowed"),
        (&long, vec![], &settings, "41 tokens, and at most 32 are allowed"),
        ("a", vec![], &steps, "choose 1 to 1000"),
        ("a", vec![], &guidance, "guidance scale is 101"),
    ] {
        let places = text.matches("<i>").count();
        let request = JobRequest::Generate {
            bundle: BUNDLE.into(),
            prompt: PromptDocument::from_text(text, places).unwrap(),
            pictures,
            negative: String::new(),
            settings: settings.clone(),
            loras: Vec::new(),
        };
        refused(&server, &request, complaint).await;
    }
    let JobRequest::Generate { bundle, prompt, pictures, settings, loras, .. } = generate() else { unreachable!() };
    let request = JobRequest::Generate { bundle, prompt, pictures, negative: long, settings, loras };
    refused(&server, &request, "41 tokens").await;
    assert_still_works(&server).await;
}

/// A PNG file that says it is a square of that side, and ends.
fn claims(side: u32) -> PictureFile {
    let mut bytes = Vec::new();
    let mut writer = png::Encoder::new(&mut bytes, side, side).write_header().unwrap();
    writer.write_chunk(png::chunk::IDAT, &[0x78, 0x9c, 1, 1, 0, 0xfe, 0xff, 0]).unwrap();
    drop(writer);
    PictureFile(bytes)
}

#[tokio::test]
async fn another_version_of_the_model() {
    let server = Server::start();
    let message = "the page and the server have different versions of model small; reload the page";
    let mut request = denoise(0);
    let JobRequest::Denoise { unet, .. } = &mut request else { unreachable!() };
    *unet = format!("{}0", &unet[1..]);
    refused(&server, &request, message).await;

    let velocity =
        SchedulerConfig { prediction_type: PredictionType::VPrediction, ..SchedulerConfig::stable_diffusion() };
    let state = DenoiseState::new(settings(0), &NoiseSchedule::from_config(&velocity).unwrap()).unwrap();
    let request = denoise_from(condition(), state);
    refused(&server, &request, "under another noise schedule than that of model small").await;
    assert_still_works(&server).await;
}

#[tokio::test]
async fn a_body_that_does_not_arrive() {
    let endless = || Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
    let time = Duration::from_millis(50);
    let server = Server::with(|app| app.bounds.form_time = time);
    let response = server.send(Request::post("/pair").body(endless()).unwrap()).await;
    assert_error(response, StatusCode::REQUEST_TIMEOUT, ErrorCode::TooLarge, "did not arrive within 0.05 s").await;
    let server = Server::with(|app| app.bounds.arrival_time = time);
    let response = server.post(endless()).await;
    assert_error(response, StatusCode::REQUEST_TIMEOUT, ErrorCode::TooLarge, "did not arrive within 0.05 s").await;
    assert_still_works(&server).await;

    // As many as may only begin to send; whoever comes then is told so, and the next after they have gone is served.
    let server = Server::start();
    let mut arriving: Vec<_> = (0..8).map(|_| Box::pin(server.post(endless()))).collect();
    for request in &mut arriving {
        assert!(timeout(Duration::from_millis(1), request).await.is_err());
    }
    let crowded = server.post("{}").await;
    assert_eq!(crowded.headers()[header::RETRY_AFTER], "2");
    assert_error(crowded, StatusCode::TOO_MANY_REQUESTS, ErrorCode::Busy, "reading other requests").await;
    drop(arriving);
    assert_still_works(&server).await;
}

#[tokio::test]
async fn one_owner_does_not_have_all_places_for_bodies() {
    let server = Server::start();
    let from = |host: u8, body: Body| {
        let request = Request::post("/api/jobs").header("content-type", "application/json");
        let address = ConnectInfo(SocketAddr::from(([10, 0, 0, host], 1)));
        Box::pin(server.send(request.extension(address).body(body).unwrap()))
    };
    let endless = || Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
    let mut arriving: Vec<_> = (0..3).map(|_| from(1, endless())).collect();
    for request in &mut arriving {
        assert!(timeout(Duration::from_millis(1), request).await.is_err());
    }
    let crowded = from(1, "{}".into()).await;
    assert_error(crowded, StatusCode::TOO_MANY_REQUESTS, ErrorCode::Busy, "reading other requests, or yours").await;
    assert_eq!(from(2, "{}".into()).await.status(), StatusCode::BAD_REQUEST, "it was read");
}

#[test]
fn a_body_that_waits_for_its_check_keeps_its_place() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let server = Server::start();
        // Nothing can be checked meanwhile.
        let (go_on, waits) = std::sync::mpsc::channel::<()>();
        let blocker = tokio::task::spawn_blocking(move || waits.recv());
        let body = serde_json::to_vec(&denoise(0)).unwrap();
        let mut arrived: Vec<_> = (0..8).map(|_| Box::pin(server.post(body.clone()))).collect();
        for request in &mut arrived {
            assert!(timeout(Duration::from_millis(10), request).await.is_err());
        }
        let crowded = timeout(Duration::from_secs(10), server.post(body.clone())).await.unwrap();
        assert_error(crowded, StatusCode::TOO_MANY_REQUESTS, ErrorCode::Busy, "reading other requests").await;
        go_on.send(()).unwrap();
        blocker.await.unwrap().unwrap();
        assert_eq!(arrived.remove(0).await.status(), StatusCode::ACCEPTED);
    });
}

#[tokio::test]
async fn a_body_that_is_too_large() {
    let server = Server::start();
    let announced = Request::post("/api/jobs").header("content-type", "application/json");
    let announced = announced.header("content-length", MAX_REQUEST_BYTES + 1);
    let pending = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
    let response = server.send(announced.body(pending).unwrap()).await;
    assert_error(response, StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::TooLarge, "more than 64 MiB").await;
    let response = server.post(vec![b' '; MAX_REQUEST_BYTES + 1]).await;
    assert_error(response, StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::TooLarge, "more than 64 MiB").await;
    assert_still_works(&server).await;
}

async fn refused(server: &Server, request: &JobRequest, complaint: &str) {
    refused_json(server, &serde_json::to_value(request).unwrap(), complaint).await;
}

async fn refused_json(server: &Server, request: &Value, complaint: &str) {
    let response = server.post(serde_json::to_vec(request).unwrap()).await;
    assert_error(response, StatusCode::BAD_REQUEST, ErrorCode::Invalid, complaint).await;
}

/// Nothing waits, and the next job is done.
async fn assert_still_works(server: &Server) {
    assert_eq!(json_of::<Health>(server.get("/health").await).await.queued, 0);
    let job = server.submit(&generate()).await;
    server.steps(STEPS);
    server.events(&job.id).await;
    let result = server.get(&format!("/api/jobs/{}/result", job.id)).await;
    assert_eq!(result.status(), StatusCode::OK);
    assert!(Picture::decode(&bytes_of(result).await).is_ok());
}
