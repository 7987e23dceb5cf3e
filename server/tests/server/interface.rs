//! The document of the interface, and the page to read it.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use serde_json::Value;

use crate::support::{Server, bytes_of, json_of};

#[tokio::test]
async fn everything_in_the_document_is_there() {
    let server = Server::start();
    let document: Value = json_of(server.get("/api/openapi.json").await).await;
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 12, "{:?}", paths.keys());
    for (path, methods) in paths {
        for method in methods.as_object().unwrap().keys() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let request = Request::builder().method(&method).uri(path.replace(['{', '}'], "")).body(Body::empty());
            let response = server.send(request.unwrap()).await;
            assert_ne!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
            let text = String::from_utf8_lossy(&bytes_of(response).await).into_owned();
            assert!(!text.contains("there is nothing at"), "{method} {path}");
        }
    }
    // Any may be asked under a name that is not the server's; what is kept may be out of reach.
    for (path, methods) in paths {
        for (method, about) in methods.as_object().unwrap() {
            let has = |status: &str| about["responses"].get(status).is_some();
            assert!(has("4XX"), "{method} {path}");
            assert!(has("5XX") || has("503") || !path.contains("/jobs"), "{method} {path}");
        }
    }
    // What travels is described as it travels.
    let schemas = &document["components"]["schemas"];
    let state = &schemas["DenoiseState"]["properties"];
    assert_eq!(state["latents"]["type"], "string");
    assert!(state.get("sampler").is_none() && state.get("settings").is_some());
    let kinds = schemas["JobRequest"]["oneOf"].as_array().unwrap();
    assert!(["denoise", "generate"].iter().all(|kind| kinds.iter().any(|one| one["properties"].get(*kind).is_some())));
    assert_eq!(document["components"]["securitySchemes"]["token"]["scheme"], "bearer");
}

#[tokio::test]
async fn the_page_to_read_it_comes_from_here() {
    let server = Server::start();
    let page = server.get("/api/docs/").await;
    assert_eq!(page.status(), StatusCode::OK);
    assert!(page.headers()[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/html"));
    let html = String::from_utf8(bytes_of(page).await.to_vec()).unwrap();
    let sources = html.split(['"', '\'']).filter(|text| [".js", ".css", ".png"].iter().any(|end| text.ends_with(end)));
    let sources: Vec<_> = sources.map(|source| source.trim_start_matches("./").to_owned()).collect();
    assert!(sources.len() >= 3, "{html}");
    for source in sources {
        assert!(!source.contains("//"), "{source} comes from elsewhere");
        assert_eq!(server.get(&format!("/api/docs/{source}")).await.status(), StatusCode::OK, "{source}");
    }
}

#[tokio::test]
async fn both_addresses_of_the_interface_work() {
    let server = Server::start();
    for prefix in ["/api", "/api/v1"] {
        let bundles: Value = json_of(server.get(&format!("{prefix}/bundles")).await).await;
        assert_eq!(bundles[0]["id"], "small");
    }
}
