//! Bundles and the page.

use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use kosmosg::bundle::{MANIFEST, PartFile};
use kosmosg::protocol::{BundleEntry, ErrorCode};
use kosmosg_server::bundles::Bundles;

use crate::support::{BUNDLE, Server, assert_error, bytes_of, json_of, unet_file};

const UNET: &str = "/models/small/unet.gguf";

#[tokio::test]
async fn bundles_are_listed() {
    let server = Server::start();
    let entries: Vec<BundleEntry> = json_of(server.get("/api/bundles").await).await;
    let [BundleEntry { id, name, bytes, encoder_bytes, unet }] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!((id.as_str(), name.as_str()), (BUNDLE, "A small one"));
    assert_eq!(*bytes, encoder_bytes + unet_file().len() as u64);
    assert_eq!(*unet, kosmosg::digest::sha256(&unet_file()));
}

#[tokio::test]
async fn a_bundle_alone_is_found_too() {
    let server = Server::start();
    let bundles = Bundles::open(&server.models.path().join(BUNDLE)).unwrap();
    assert_eq!(bundles.entries().len(), 1);
    let empty = tempfile::tempdir().unwrap();
    let message = Bundles::open(empty.path()).unwrap_err().to_string();
    assert!(message.contains("has no bundle that can be used"), "{message}");
    std::fs::create_dir(empty.path().join("broken")).unwrap();
    std::fs::write(empty.path().join("broken/bundle.json"), "{}").unwrap();
    let message = Bundles::open(empty.path()).unwrap_err().to_string();
    assert!(message.contains("missing field `format`"), "{message}");
    let named = tempfile::tempdir().unwrap();
    std::fs::create_dir(named.path().join("a name")).unwrap();
    std::fs::write(named.path().join("a name/bundle.json"), "{}").unwrap();
    let message = Bundles::open(named.path()).unwrap_err().to_string();
    assert!(message.contains("a name: the folder's name is the model's name in addresses"), "{message}");
    let tokenizer = server.models.path().join(BUNDLE).join("tokenizer.json");
    let contents = std::fs::read(&tokenizer).unwrap();
    let other = b"[]".to_vec();
    std::fs::write(&tokenizer, &other).unwrap();
    let manifest = server.models.path().join(BUNDLE).join(MANIFEST);
    let [found, expected] = [&contents, &other].map(|contents| PartFile::new("tokenizer.json", contents));
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
    assert_eq!(json["tokenizer"]["sha256"], found.sha256);
    json["tokenizer"] = serde_json::to_value(expected).unwrap();
    std::fs::write(&manifest, json.to_string()).unwrap();
    let message = Bundles::open(server.models.path()).unwrap_err().to_string();
    assert!(message.contains("small: tokenizer.json cannot be read"), "{message}");
    let message = Bundles::open(&empty.path().join("nowhere")).unwrap_err().to_string();
    assert!(message.contains("nowhere"), "{message}");
}

#[tokio::test]
async fn a_file_comes_whole_or_in_ranges() {
    let server = Server::start();
    let contents = unet_file();
    let whole = server.get(UNET).await;
    assert_eq!(whole.status(), StatusCode::OK);
    assert_eq!(whole.headers()[header::ACCEPT_RANGES], "bytes");
    let tag = whole.headers()[header::ETAG].to_str().unwrap().to_owned();
    assert_eq!(bytes_of(whole).await, contents);

    for (range, expected, content_range) in [
        ("bytes=0-0", &contents[..1], "bytes 0-0/1000"),
        ("bytes=100-299", &contents[100..300], "bytes 100-299/1000"),
        ("bytes=990-", &contents[990..], "bytes 990-999/1000"),
        ("bytes=-5", &contents[995..], "bytes 995-999/1000"),
    ] {
        let part = server.get_with(UNET, &[("range", range)]).await;
        assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT, "{range}");
        assert_eq!(part.headers()[header::CONTENT_RANGE], content_range);
        assert_eq!(bytes_of(part).await, expected);
    }
    let beyond = server.get_with(UNET, &[("range", "bytes=1000-1001")]).await;
    assert_eq!(beyond.headers()[header::CONTENT_RANGE], "bytes */1000");
    assert_error(beyond, StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::Invalid, "ends before").await;

    // An address with the contents' hash never leads to anything else.
    let immutable =
        |response: Response<Body>| response.headers()[header::CACHE_CONTROL].to_str().unwrap().contains("immutable");
    let version = &tag[1..17];
    assert!(immutable(server.get(&format!("{UNET}?v={version}")).await));
    assert!(!immutable(server.get(&format!("{UNET}?v={}", "0".repeat(16))).await));
    assert!(!immutable(server.get(UNET).await));

    let known = server.get_with(UNET, &[("if-none-match", &tag)]).await;
    assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
    // The range of another version would not fit.
    for (version, status) in [(tag.as_str(), StatusCode::PARTIAL_CONTENT), ("\"other\"", StatusCode::OK)] {
        let part = server.get_with(UNET, &[("range", "bytes=0-0"), ("if-range", version)]).await;
        assert_eq!(part.status(), status);
    }
    let head = server.send(Request::head(UNET).body(Body::empty()).unwrap()).await;
    assert_eq!(head.headers()[header::CONTENT_LENGTH], "1000");
    assert!(bytes_of(head).await.is_empty());
}

#[tokio::test]
async fn only_what_the_manifest_names_is_served() {
    let server = Server::start();
    assert_eq!(server.get("/models/small/bundle.json").await.status(), StatusCode::OK);
    assert_eq!(server.get("/models/small/tokenizer.json").await.status(), StatusCode::OK);
    for path in [
        "/models/small/notes.txt",
        "/models/small/../secret.txt",
        "/models/small/..%2fsecret.txt",
        "/models/small/%2e%2e%2fsecret.txt",
        "/models/small/..%5csecret.txt",
        "/models/../models/small/secret.txt",
        "/models/%2e%2e/secret.txt",
        "/models/./secret.txt",
        "/models/small/%2fetc%2fpasswd",
        "/models//etc/passwd",
        "/models/small/unet.gguf%00",
        "/models/small/%ff",
        "/models/other/unet.gguf",
    ] {
        let response = server.get(path).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        assert!(!bytes_of(response).await.windows(7).any(|part| part == b"not for"), "{path}");
    }
    std::fs::remove_file(server.models.path().join(BUNDLE).join("unet.gguf")).unwrap();
    assert_error(server.get(UNET).await, StatusCode::NOT_FOUND, ErrorCode::NotFound, "missing on the server").await;
}

#[tokio::test]
async fn the_page_is_served_with_its_headers() {
    let page = tempfile::tempdir().unwrap();
    let write = |name: &str, contents: &str| std::fs::write(page.path().join(name), contents).unwrap();
    write("index.html", "<!doctype html>");
    write("sw.js", "// worker");
    std::fs::create_dir(page.path().join("0011223344556677")).unwrap();
    write("0011223344556677/ui_bg.wasm", "plain");
    write("0011223344556677/ui_bg.wasm.br", "smaller");
    std::fs::write(page.path().parent().unwrap().join("outside-page.txt"), "outside").unwrap();
    let server = Server::with(|app| app.page = Some(page.path().to_owned()));

    let index = server.get("/").await;
    assert_eq!(index.status(), StatusCode::OK);
    assert_eq!(index.headers()[header::CONTENT_TYPE], "text/html");
    assert_eq!(index.headers()[header::CACHE_CONTROL], "no-cache");
    let policy = index.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.contains("script-src 'self' 'wasm-unsafe-eval';"), "{policy}");
    assert_eq!(index.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    assert_eq!(bytes_of(index).await, "<!doctype html>");
    assert_eq!(server.get("/sw.js").await.headers()[header::CACHE_CONTROL], "no-cache");

    let wasm = "/0011223344556677/ui_bg.wasm";
    for (accept, body) in [("gzip, deflate, br", "smaller"), ("identity", "plain")] {
        let response = server.get_with(wasm, &[("accept-encoding", accept)]).await;
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/wasm");
        assert_eq!(response.headers()[header::CACHE_CONTROL], "public, max-age=31536000, immutable");
        assert_eq!(response.headers()[header::VARY], "accept-encoding");
        assert_eq!(bytes_of(response).await, body);
    }
    for path in ["/missing.js", "/0011223344556677/gone.js", "/../outside-page.txt", "/%2e%2e/outside-page.txt"] {
        let response = server.get(path).await;
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-cache");
        assert_error(response, StatusCode::NOT_FOUND, ErrorCode::NotFound, "there is nothing at").await;
    }
    // The routes come first.
    assert_eq!(server.get("/health").await.headers()[header::CONTENT_TYPE], "application/json");
    assert_error(server.get("/api/x").await, StatusCode::NOT_FOUND, ErrorCode::NotFound, "/api/x").await;
}

#[tokio::test]
async fn other_sites_are_let_in_by_name_only() {
    let preflight = |origin: &str| {
        let request = Request::options("/api/jobs").header("origin", origin);
        let request = request.header("access-control-request-method", "POST");
        request.header("access-control-request-headers", "content-type").body(Body::empty()).unwrap()
    };
    let friend = "https://page.example";
    let server = Server::with(|app| app.allowed_origins = vec![HeaderValue::from_static("https://page.example")]);
    let allowed = server.send(preflight(friend)).await;
    assert_eq!(allowed.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], friend);
    let headers = allowed.headers()[header::ACCESS_CONTROL_ALLOW_HEADERS].to_str().unwrap();
    for name in ["authorization", "content-type", "last-event-id", "idempotency-key"] {
        assert!(headers.split(',').any(|allowed| allowed == name), "{name}: {headers}");
    }
    let stranger = server.send(preflight("https://stranger.example")).await;
    assert!(!stranger.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
    let server = Server::start();
    assert!(!server.send(preflight(friend)).await.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
}
