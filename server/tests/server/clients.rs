//! What programs hear that speak OpenAI's or AUTOMATIC1111's interface.

use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kosmosg::picture::{Picture, Recipe};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tower::ServiceExt;

use crate::support::{STEPS, Server, Setup, bytes_of, json_of, until};

const OPENAI: &str = "/v1/images/generations";
const A1111: &str = "/sdapi/v1/txt2img";

/// Sends a request, whose client waits beside the test.
pub fn waits(server: &Server, path: &str, body: &Value) -> JoinHandle<Response<Body>> {
    let request = Request::post(path).body(Body::from(body.to_string())).unwrap();
    let answer = server.router.clone().oneshot(request);
    tokio::spawn(async { answer.await.unwrap() })
}

/// A request for a stream with a picture on the way.
pub fn streamed() -> Value {
    json!({ "prompt": "a", "steps": STEPS, "stream": true, "partial_images": 1 })
}

#[tokio::test]
async fn a_stream_tells_of_the_servers_end() {
    let folder = tempfile::tempdir().unwrap();
    let server = Setup { store: Some(folder.path().join("jobs.sqlite")), ..Setup::default() }.start().await;
    let response = server.post_to(OPENAI, streamed().to_string()).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    server.steps(2);
    server.until_in_step(3).await;
    server.app.jobs.close();
    let text = String::from_utf8(bytes_of(response).await.to_vec()).unwrap();
    assert!(text.contains("event: image_generation.partial_image"), "{text}");
    assert!(text.contains("event: error") && text.contains("the server is stopping"), "{text}");
}

#[tokio::test]
async fn pictures_by_their_addresses_are_for_any_page() {
    let server = Server::start();
    let body = json!({ "prompt": "a", "steps": STEPS, "response_format": "url" }).to_string();
    let request = Request::post(OPENAI).header("host", "localhost").body(body.into()).unwrap();
    server.steps(STEPS);
    let answer: Value = json_of(server.send(request).await).await;
    let url = answer["data"][0]["url"].as_str().unwrap();
    let picture = server.get(url.strip_prefix("http://localhost").unwrap()).await;
    assert_eq!(picture.status(), StatusCode::OK);
    assert_eq!(picture.headers()["cross-origin-resource-policy"], "cross-origin");
    assert_eq!(picture.headers()[header::CACHE_CONTROL], "private");
}

#[tokio::test]
async fn progress_is_that_of_the_whole_order() {
    let server = Server::start();
    let progress = async |query: &str| server.get(&format!("/sdapi/v1/progress{query}")).await;
    let idle: Value = json_of(progress("").await).await;
    assert_eq!((&idle["progress"], &idle["state"]["job_count"]), (&json!(0.0), &json!(0)));
    let client = waits(&server, A1111, &json!({ "prompt": "a", "steps": STEPS, "n_iter": 2 }));
    until(async || server.app.jobs.own().counts() == (1, 1)).await;
    for (steps, begun, share, ended) in [(2, 3, 2.0 / 6.0, 0), (2, 5, 4.0 / 6.0, 1)] {
        server.steps(steps);
        server.until_in_step(begun).await;
        let whole: Value = json_of(progress("").await).await;
        assert!((whole["progress"].as_f64().unwrap() - share).abs() < 1e-9, "{whole}");
        assert_eq!((&whole["state"]["job_no"], &whole["state"]["job_count"]), (&json!(ended), &json!(2)));
    }
    server.steps(2);
    let answer: Value = json_of(client.await.unwrap()).await;
    assert_eq!(answer["images"].as_array().unwrap().len(), 2);
    for query in ["?skip_current_image=False", "?skip_current_image=1", "?skip_current_image=true"] {
        assert_eq!(progress(query).await.status(), StatusCode::OK, "{query}");
    }
    let error: Value = json_of(progress("?skip_current_image=perhaps").await).await;
    assert_eq!(error["detail"], "skip_current_image is perhaps; choose true or false");
}

#[tokio::test]
async fn an_interrupted_picture_has_its_size_and_its_recipe() {
    let server = Server::start();
    let asked =
        json!({ "prompt": "a<lora:wool:1>", "seed": 7, "steps": STEPS, "width": 64, "height": 32, "n_iter": 2 });
    let client = waits(&server, A1111, &asked);
    server.steps(2);
    server.until_in_step(3).await;
    assert_eq!(server.post_to("/sdapi/v1/interrupt", "").await.status(), StatusCode::OK);
    let answer: Value = json_of(client.await.unwrap()).await;
    let png = STANDARD.decode(answer["images"][0].as_str().unwrap()).unwrap();
    let picture = Picture::decode(&png).unwrap();
    assert_eq!((picture.width(), picture.height()), (64, 32));
    // Of the second there is nothing yet.
    let info: Value = serde_json::from_str(answer["info"].as_str().unwrap()).unwrap();
    assert_eq!((&info["seed"], &info["all_seeds"], &info["prompt"]), (&json!(7), &json!([7]), &json!("a")));
    let recipe = Recipe::read(&png).unwrap().unwrap();
    assert_eq!((recipe.seed, recipe.steps, recipe.width, recipe.height), (7, STEPS, 64, 32));
    assert_eq!((recipe.adapters.len(), &info["infotexts"]), (1, &json!([recipe.parameters()])));
}

#[tokio::test]
async fn what_is_off_may_be_said_and_what_is_missing_is_refused() {
    let server = Server::start();
    let ask = async |field: &str, value: Value| {
        let mut body = json!({ "prompt": "a", "steps": STEPS });
        body[field] = value;
        server.post_to(A1111, body.to_string()).await
    };
    let missing = [
        ("enable_hr", json!(true), vec![json!(false), json!(null)]),
        ("mask", json!("AAAA"), vec![json!(""), json!(null)]),
        ("script_name", json!("X/Y/Z plot"), vec![json!(""), json!("None"), json!(null)]),
        ("tiling", json!(true), vec![json!(false), json!(null)]),
        ("restore_faces", json!(true), vec![json!(false), json!(null)]),
        ("subseed_strength", json!(0.5), vec![json!(0), json!(0.0), json!(-1), json!(null)]),
        ("styles", json!(["dark"]), vec![json!([]), json!(null)]),
    ];
    for (field, asked, off) in missing {
        let response = ask(field, asked).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{field}");
        let error: Value = json_of(response).await;
        assert!(error["detail"].as_str().unwrap().starts_with(&format!("{field}: ")), "{error}");
        for value in off {
            server.steps(STEPS);
            assert_eq!(ask(field, value.clone()).await.status(), StatusCode::OK, "{field}: {value}");
        }
    }
    let error: Value = json_of(ask("sampler_name", json!("Heun")).await).await;
    assert!(error["detail"].as_str().unwrap().contains("choose one of DPM++ 2M, "), "{error}");
    // What many clients ask for is done in another way, which the answer says.
    for (sampler, warnings) in [("Euler a", 1), ("Euler", 0)] {
        server.steps(STEPS);
        let answer: Value = json_of(ask("sampler_name", json!(sampler)).await).await;
        let info: Value = serde_json::from_str(answer["info"].as_str().unwrap()).unwrap();
        assert_eq!((&info["sampler_name"], info["warnings"].as_array().unwrap().len()), (&json!("Euler"), warnings));
    }
}

#[tokio::test]
async fn what_would_grow_in_memory_is_refused() {
    let server = Server::start();
    let complaint = async |path: &str, body: Value| {
        let response = server.post_to(path, body.to_string()).await;
        assert!(response.status().is_client_error());
        String::from_utf8(bytes_of(response).await.to_vec()).unwrap()
    };
    let said = complaint("/sdapi/v1/img2img", json!({ "prompt": "a", "init_images": vec![""; 33] })).await;
    assert!(said.contains("at most 32 are"), "{said}");
    for (path, prompt) in [(A1111, "<lora:a>"), (A1111, "<i>"), (OPENAI, "<i>")] {
        let said = complaint(path, json!({ "prompt": prompt.repeat(30_000) })).await;
        assert!(said.contains("at most 65536 are allowed"), "{path}: {said}");
    }
}

#[tokio::test]
async fn an_answer_does_not_keep_what_is_large() {
    let server = Server::start();
    server.steps(2 * STEPS);
    let picture = STANDARD.encode(Picture::new(2, 3, vec![200; 18]).unwrap().to_png(None));
    let mut body = json!({ "prompt": "a", "steps": STEPS, "init_images": [picture], "include_init_images": true });
    let answer: Value = json_of(server.post_to("/sdapi/v1/img2img", body.to_string()).await).await;
    assert_eq!((&answer["parameters"]["prompt"], &answer["parameters"]["init_images"]), (&json!("a"), &Value::Null));
    body["alwayson_scripts"] = "x".repeat(2 << 20).into();
    let answer: Value = json_of(server.post_to("/sdapi/v1/img2img", body.to_string()).await).await;
    assert_eq!(answer["parameters"], json!({}));
}
