//! LoRAs by their names.

use axum::http::{Request, StatusCode};
use kosmosg::protocol::{ErrorCode, Health, JobEvent};
use serde_json::{Value, json};

use crate::support::{LORAS, STEPS, Server, Setup, assert_error, denoise, generate, json_of, with_loras};

#[tokio::test]
async fn they_are_listed_by_name_alone() {
    let server = Server::start();
    let names: Vec<String> = json_of(server.get("/api/v1/loras").await).await;
    assert_eq!(names, LORAS);
    let entries: Vec<Value> = json_of(server.get("/sdapi/v1/loras").await).await;
    let names: Vec<_> = entries.iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!(names, LORAS);
    assert_eq!(server.get("/models/loras/wool.safetensors").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_there_is_not_is_refused() {
    let server = Server::start();
    for (loras, complaint) in [
        (&[("linen", 1.0)][..], "there is no LoRA \"linen\"; there is silk, wool"),
        (&[("../loras/wool", 1.0)], "there is no LoRA"),
        (&[("wool.safetensors", 1.0)], "there is no LoRA"),
        (&[("", 1.0)], "there is no LoRA"),
        (&[("wool", 11.0)], "the strength of the LoRA \"wool\" is 11; choose -10 to 10"),
        (&[("wool", 1.0), ("silk", 1.0), ("wool", 0.5)], "the LoRA \"wool\" is asked for twice"),
        (&[("wool", 1.0); 9], "at most 8 are"),
    ] {
        for job in [denoise(0), generate()] {
            let response = server.post(serde_json::to_vec(&with_loras(job, loras)).unwrap()).await;
            assert_error(response, StatusCode::BAD_REQUEST, ErrorCode::Invalid, complaint).await;
        }
    }
    assert_eq!(json_of::<Health>(server.get("/health").await).await.queued, 0);
}

#[tokio::test]
async fn only_jobs_of_one_set_step_together() {
    let limits = kosmosg_server::jobs::Limits { waiting: 10, ..Setup::default().limits };
    let server = Setup { seats: 4, limits, ..Setup::default() }.start().await;
    let sets: [&[(&str, f32)]; 4] =
        [&[("wool", 1.0), ("silk", 0.5)], &[("silk", 0.5), ("wool", 1.0)], &[("silk", 0.6), ("wool", 1.0)], &[]];
    let mut ids = vec![server.submit(&with_loras(denoise(0), sets[0])).await.id];
    server.steps(1);
    server.until_in_step(2).await;
    for seed in 1..4 {
        ids.push(server.submit(&with_loras(denoise(seed), sets[seed as usize])).await.id);
    }
    server.steps(4 + 2 * STEPS);
    for id in &ids {
        let last = server.events(id).await.pop();
        assert!(matches!(last, Some((_, JobEvent::Done { .. }))), "{last:?}");
    }
    let expected: [&[u64]; 11] = [&[0], &[0], &[0, 1], &[1], &[1], &[2], &[2], &[2], &[3], &[3], &[3]];
    assert_eq!(*server.together.lock().unwrap(), expected);
}

#[tokio::test]
async fn automatic1111s_prompts_name_them() {
    let server = Server::start();
    let ask = async |prompt: &str| {
        let body = json!({ "prompt": prompt, "seed": 7, "steps": STEPS, "width": 32, "height": 32 }).to_string();
        let request = Request::post("/sdapi/v1/txt2img").header("content-type", "application/json");
        server.send(request.body(body.into()).unwrap()).await
    };
    server.steps(STEPS);
    let answer: Value = json_of(ask("a and<lora:wool:0.8> a").await).await;
    let info: Value = serde_json::from_str(answer["info"].as_str().unwrap()).unwrap();
    assert_eq!(info["prompt"], "a and a");
    let text = info["infotexts"][0].as_str().unwrap();
    assert!(text.contains("Adapter: lora wool.safetensors × 0.8"), "{text}");

    let refused = ask("a<lora:linen:1>").await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    let refused: Value = json_of(refused).await;
    assert!(refused["detail"].as_str().unwrap().contains("there is silk, wool"), "{refused}");
}
