//! Who may do what.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kosmosg::picture::Picture;
use kosmosg::protocol::{ApiError, ErrorCode, JobCreated, JobEvent, PictureFile};
use kosmosg_server::access::{Access, Role, TokenError, Tokens};
use kosmosg_server::admission::check;
use kosmosg_server::hosts::{Hosts, parse_name};
use kosmosg_server::jobs::{Hold, Owner};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{STEPS, Server, assert_error, bytes_of, denoise, is_private, json_of};

/// The server's address for other devices.
const ELSEWHERE: &str = "https://192.168.1.9:8443";

/// A server that asks for a token, and tokens of an administrator and of two that make pictures.
struct Closed {
    server: Server,
    tokens: [String; 3],
}

impl Closed {
    fn start() -> Self {
        Self::with_rate(NonZeroU32::MAX)
    }

    fn with_rate(per_minute: NonZeroU32) -> Self {
        let mut tokens = Tokens::open(None).unwrap();
        let mut add = |name, role| tokens.add(name, role).unwrap();
        let shown = [add("admin", Role::Admin), add("one", Role::Use), add("two", Role::Use)];
        let access = Arc::new(Access::with_tokens(tokens, per_minute));
        let server = Server::with(|app| {
            app.access = access;
            app.reached_at = Some(ELSEWHERE.into());
        });
        Self { server, tokens: shown }
    }

    async fn send(&self, who: usize, method: Method, path: &str, body: impl Into<Body>) -> Response<Body> {
        let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
        let request = request.header(header::AUTHORIZATION, format!("Bearer {}", self.tokens[who]));
        self.server.send(request.body(body.into()).unwrap()).await
    }
}

#[tokio::test]
async fn without_a_token_only_the_page_and_the_health_are_open() {
    let Closed { server, tokens } = Closed::start();
    let closed = ["/api/bundles", "/api/jobs/1", "/api/tokens", "/models/small/unet.gguf", "/metrics", "/api/nothing"];
    for path in closed {
        let response = server.get(path).await;
        // A browser would ask for a password in front of the page.
        assert_eq!(challenges(&response), ["Bearer realm=\"kosmosg\""]);
        assert_error(response, StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, "asks for a token").await;
    }
    // In the form of each interface.
    let openai: Value = json_of(server.get("/v1/models").await).await;
    assert_eq!(openai["error"]["type"], "authentication_error");
    let a1111 = server.get("/sdapi/v1/options").await;
    assert_eq!(challenges(&a1111).last().unwrap(), &"Basic realm=\"kosmosg\"");
    let a1111: Value = json_of(a1111).await;
    assert!(a1111["detail"].as_str().unwrap().contains("asks for a token"));
    for path in ["/", "/health", "/health/live", "/health/ready", "/pair"] {
        assert!(server.get(path).await.status().is_success(), "{path}");
    }

    let basic = format!("Basic {}", STANDARD.encode(format!("anyone:{}", tokens[1])));
    let bearer = format!("bearer {}", tokens[1]);
    let cookie = format!("other=1; kosmosg={}", tokens[1]);
    for (name, value) in [("authorization", &basic), ("authorization", &bearer), ("cookie", &cookie)] {
        assert_eq!(server.get_with("/api/bundles", &[(name, value)]).await.status(), StatusCode::OK, "{value}");
    }
    for value in ["Bearer", "Bearer ", "Bearer x", "Basic x", "Digest x", &format!("Bearer {}x", tokens[1])] {
        let response = server.get_with("/api/bundles", &[("authorization", value)]).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{value}");
    }
}

fn challenges(response: &Response<Body>) -> Vec<&str> {
    response.headers().get_all(header::WWW_AUTHENTICATE).iter().map(|value| value.to_str().unwrap()).collect()
}

#[tokio::test]
async fn a_job_is_its_owners_alone() {
    let closed = Closed::start();
    let body = || serde_json::to_vec(&denoise(0)).unwrap();
    let job: JobCreated = json_of(closed.send(1, Method::POST, "/api/jobs", body()).await).await;
    let path = format!("/api/jobs/{}", job.id);
    for (who, expected) in [(2, StatusCode::NOT_FOUND), (0, StatusCode::NOT_FOUND), (1, StatusCode::OK)] {
        for path in [path.clone(), format!("{path}/state")] {
            assert_eq!(closed.send(who, Method::GET, &path, "").await.status(), expected, "{who} {path}");
        }
    }
    for end in ["/events", "/result"] {
        assert_eq!(closed.send(2, Method::GET, &format!("{path}{end}"), "").await.status(), StatusCode::NOT_FOUND);
    }
    assert_eq!(closed.send(2, Method::DELETE, &path, "").await.status(), StatusCode::NOT_FOUND);
    // Nor does another's interrupt reach it.
    assert_eq!(closed.send(2, Method::POST, "/sdapi/v1/interrupt", "").await.status(), StatusCode::OK);
    closed.server.steps(STEPS);
    let events = bytes_of(closed.send(1, Method::GET, &format!("{path}/events"), "").await).await;
    let last = JobEvent::Done { seconds: 0.0 };
    assert!(String::from_utf8_lossy(&events).contains("\"event\":\"done\""), "{last:?}");
    // One key of two owners names two jobs.
    let mut ids = Vec::new();
    for who in [1, 2] {
        let request =
            Request::post("/api/jobs").header("content-type", "application/json").header("idempotency-key", "k");
        let request = request.header(header::AUTHORIZATION, format!("Bearer {}", closed.tokens[who]));
        let created: JobCreated = json_of(closed.server.send(request.body(body().into()).unwrap()).await).await;
        ids.push(created.id);
    }
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn administrators_give_and_take_tokens() {
    let closed = Closed::start();
    let new = json!({ "name": "guest" }).to_string();
    let refused = closed.send(1, Method::POST, "/api/tokens", new.clone()).await;
    assert_error(refused, StatusCode::FORBIDDEN, ErrorCode::Unauthorized, "only an administrator").await;
    assert_eq!(closed.send(1, Method::GET, "/api/tokens", "").await.status(), StatusCode::FORBIDDEN);
    assert_eq!(closed.send(1, Method::DELETE, "/api/tokens/two", "").await.status(), StatusCode::FORBIDDEN);
    assert_eq!(closed.send(1, Method::POST, "/api/pairing", "{}").await.status(), StatusCode::FORBIDDEN);

    let response = closed.send(0, Method::POST, "/api/tokens", new.clone()).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let made: Value = json_of(response).await;
    let authorization = format!("Bearer {}", made["token"].as_str().unwrap());
    let works = async || closed.server.get_with("/api/bundles", &[("authorization", &authorization)]).await.status();
    assert_eq!(works().await, StatusCode::OK);
    let again = closed.send(0, Method::POST, "/api/tokens", new).await;
    assert_error(again, StatusCode::BAD_REQUEST, ErrorCode::Invalid, "there is a token called").await;
    let listed =
        String::from_utf8(bytes_of(closed.send(0, Method::GET, "/api/tokens", "").await).await.to_vec()).unwrap();
    assert!(listed.contains(r#"{"name":"guest","role":"use"}"#) && !listed.contains("sha256"), "{listed}");
    assert_eq!(closed.send(0, Method::DELETE, "/api/tokens/guest", "").await.status(), StatusCode::NO_CONTENT);
    assert_eq!(works().await, StatusCode::UNAUTHORIZED);
    assert_eq!(closed.send(0, Method::DELETE, "/api/tokens/guest", "").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_device_pairs_itself_once() {
    let closed = Closed::start();
    let opened: Value = json_of(closed.send(0, Method::POST, "/api/pairing", "{}").await).await;
    let (path, code) = (opened["path"].as_str().unwrap(), opened["code"].as_str().unwrap());
    let page = closed.server.get(path).await;
    assert!(page.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().starts_with("default-src 'none'"));
    let html = String::from_utf8(bytes_of(page).await.to_vec()).unwrap();
    assert!(html.contains(&format!("value='{code}'")), "{html}");
    let pair = async |code: &str| {
        let request = Request::post("/pair").header("content-type", "application/x-www-form-urlencoded");
        closed.server.send(request.body(format!("code={code}").into()).unwrap()).await
    };
    assert_eq!(pair("WRONGCODE2").await.status(), StatusCode::FORBIDDEN);
    let paired = pair(&code.to_lowercase()).await;
    assert_eq!((paired.status(), &paired.headers()[header::LOCATION]), (StatusCode::SEE_OTHER, &"/".parse().unwrap()));
    let cookie = paired.headers()[header::SET_COOKIE].to_str().unwrap().to_owned();
    assert!(cookie.contains("HttpOnly; SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap();
    assert_eq!(closed.server.get_with("/api/bundles", &[("cookie", cookie)]).await.status(), StatusCode::OK);
    assert_eq!(pair(code).await.status(), StatusCode::FORBIDDEN, "a code works once");

    // Whoever guesses has few tries.
    let opened: Value = json_of(closed.send(0, Method::POST, "/api/pairing", "{}").await).await;
    for _ in 0..20 {
        pair("WRONGCODE2").await;
    }
    assert_eq!(pair(opened["code"].as_str().unwrap()).await.status(), StatusCode::FORBIDDEN);
    // What comes with the address does not become markup.
    let html = bytes_of(closed.server.get("/pair?code='%3E%3Cscript%3E").await).await;
    assert!(!String::from_utf8_lossy(&html).contains("<script"));
}

#[tokio::test]
async fn who_sends_codes_keeps_nobody_waiting() {
    let closed = Closed::start();
    let endless =
        || Body::from_stream(futures::stream::pending::<Result<axum::body::Bytes, std::convert::Infallible>>());
    let mut strangers: Vec<_> =
        (0..20).map(|_| Box::pin(closed.server.send(Request::post("/pair").body(endless()).unwrap()))).collect();
    for stranger in &mut strangers {
        assert!(futures::poll!(stranger).is_pending());
    }
    let job = closed.send(1, Method::POST, "/api/jobs", serde_json::to_vec(&denoise(0)).unwrap()).await;
    assert_eq!(job.status(), StatusCode::ACCEPTED);
    let long =
        closed.server.send(Request::post("/pair").body(format!("code={}", "A".repeat(2000)).into()).unwrap()).await;
    assert_error(long, StatusCode::BAD_REQUEST, ErrorCode::Invalid, "no form with a code").await;
}

#[tokio::test]
async fn another_token_of_the_same_name_is_another_owner() {
    let mut closed = Closed::start();
    let body = serde_json::to_vec(&denoise(0)).unwrap();
    let job: JobCreated = json_of(closed.send(1, Method::POST, "/api/jobs", body).await).await;
    let path = format!("/api/jobs/{}", job.id);
    assert_eq!(closed.send(1, Method::GET, &path, "").await.status(), StatusCode::OK);
    assert_eq!(closed.send(0, Method::DELETE, "/api/tokens/one", "").await.status(), StatusCode::NO_CONTENT);
    let made = closed.send(0, Method::POST, "/api/tokens", json!({ "name": "one" }).to_string()).await;
    closed.tokens[1] = json_of::<Value>(made).await["token"].as_str().unwrap().to_owned();
    assert_eq!(closed.send(1, Method::GET, &path, "").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_removed_token_takes_its_jobs_along() {
    let closed = Closed::start();
    let send = async |who| {
        let body = serde_json::to_vec(&denoise(who as u64)).unwrap();
        json_of::<JobCreated>(closed.send(who, Method::POST, "/api/jobs", body).await).await.id
    };
    let running = send(1).await;
    closed.server.until_in_step(1).await;
    send(1).await;
    let other = send(2).await;
    let stream = closed.send(1, Method::GET, &format!("/api/jobs/{running}/events"), "").await;
    let owner = Owner::with_token(closed.server.app.access.tokens().list()[1].id());
    let jobs = async || closed.server.app.jobs.of(&owner).await.unwrap().len();
    assert_eq!(jobs().await, 2);
    assert_eq!(closed.send(0, Method::DELETE, "/api/tokens/one", "").await.status(), StatusCode::NO_CONTENT);
    assert_eq!(jobs().await, 0);
    let heard = bytes_of(stream).await;
    assert!(String::from_utf8_lossy(&heard).contains("\"event\":\"cancelled\""), "{heard:?}");
    // Another's go on.
    closed.server.steps(1 + STEPS);
    let heard = bytes_of(closed.send(2, Method::GET, &format!("/api/jobs/{other}/events"), "").await).await;
    assert!(String::from_utf8_lossy(&heard).contains("\"event\":\"done\""), "{heard:?}");
}

#[tokio::test]
async fn a_token_that_a_command_removes_takes_its_jobs_along() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.json");
    let mut command = Tokens::open(Some(&path)).unwrap();
    command.add("laptop", Role::Use).unwrap();
    let running = Arc::new(Access::with_tokens(Tokens::open(Some(&path)).unwrap(), NonZeroU32::MAX));
    let server = Server::with(|app| app.access = Arc::clone(&running));
    let owner = Owner::with_token(command.list()[0].id());
    let work = check(denoise(0), &server.app.bundles).unwrap();
    let (job, _) = server.app.jobs.submit(owner, work, Hold::Name).await.unwrap();
    running.dismiss_removed(&server.app.jobs).await;
    assert!(!job.has_ended());
    command.remove("laptop").unwrap();
    running.dismiss_removed(&server.app.jobs).await;
    assert_eq!(job.last(), JobEvent::Cancelled);
}

#[tokio::test]
async fn each_may_ask_so_often() {
    let closed = Closed::with_rate(NonZeroU32::new(2).unwrap());
    let post = async |who| closed.send(who, Method::POST, "/api/jobs", "{}").await;
    assert_eq!(post(1).await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(post(1).await.status(), StatusCode::BAD_REQUEST);
    let refused = post(1).await;
    let wait: u64 = refused.headers()[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait));
    assert_error(refused, StatusCode::TOO_MANY_REQUESTS, ErrorCode::Busy, "too many requests").await;
    assert_eq!(post(2).await.status(), StatusCode::BAD_REQUEST, "others may");
    assert_eq!(closed.send(1, Method::GET, "/api/bundles", "").await.status(), StatusCode::OK, "looking is free");
}

#[tokio::test]
async fn a_name_that_is_not_the_servers_is_refused() {
    let server = Server::start();
    for (host, status) in [
        ("127.0.0.1:8080", StatusCode::OK),
        ("localhost", StatusCode::OK),
        ("evil.example:8080", StatusCode::MISDIRECTED_REQUEST),
    ] {
        assert_eq!(server.get_with("/health", &[("host", host)]).await.status(), status, "{host}");
    }
    let refused = server.get_with("/api/bundles", &[("host", "evil.example")]).await;
    assert_error(refused, StatusCode::MISDIRECTED_REQUEST, ErrorCode::Invalid, "start it with --name evil.example")
        .await;
    // What it advises works.
    let headers = [("host", "Box.local:8095")];
    let refused: ApiError = json_of(server.get_with("/api/bundles", &headers).await).await;
    let name = parse_name(refused.message.rsplit(' ').next().unwrap()).unwrap();
    assert_eq!(name, "box.local", "{refused}");
    let server = Server::with(|app| app.hosts = Hosts::with(&[name]));
    assert_eq!(server.get_with("/api/bundles", &headers).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_pairing_has_its_address_as_a_picture() {
    let closed = Closed::start();
    let open = async |host: Option<&str>| {
        let request =
            Request::post("/api/pairing").header(header::AUTHORIZATION, format!("Bearer {}", closed.tokens[0]));
        let request = host.into_iter().fold(request, |request, host| request.header(header::HOST, host));
        json_of::<Value>(closed.server.send(request.body("{}".into()).unwrap()).await).await
    };
    let opened = open(Some("192.168.1.5:8443")).await;
    let code = opened["code"].as_str().unwrap();
    assert_eq!(opened["address"], format!("http://192.168.1.5:8443/pair?code={code}"));
    let PictureFile(png) = serde_json::from_value(opened["picture"].clone()).unwrap();
    let picture = Picture::decode(&png).unwrap();
    // Version 3 has 29 modules a side, with four light ones around them; three corners have a dark ring of seven.
    let side = picture.width();
    assert_eq!((side, picture.height()), (8 * 37, 8 * 37));
    let is_dark = |x: u32, y: u32| picture.rgb()[3 * (y * side + x) as usize] == 0;
    let row = |x: u32, y: u32| (0..9).map(|module| is_dark(8 * (x + module), 8 * y)).collect::<Vec<_>>();
    let ring = [false, true, true, true, true, true, true, true, false];
    assert_eq!([row(3, 4), row(25, 4), row(3, 26)], [ring; 3].map(Vec::from));
    assert_eq!(row(3, 3), [false; 9]);

    // Whoever sits at the server lets others in all the same.
    let opened = open(Some("localhost:8443")).await;
    assert!(opened["address"].as_str().unwrap().starts_with(&format!("{ELSEWHERE}/pair?code=")), "{opened}");

    let opened = open(None).await;
    assert!(opened["path"].as_str().unwrap().starts_with("/pair?code=") && opened.get("address").is_none(), "{opened}");
}

#[tokio::test]
async fn a_code_of_a_command_pairs_with_the_server_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.json");
    let access = Arc::new(Access::with_tokens(Tokens::open(Some(&path)).unwrap(), NonZeroU32::MAX));
    let server = Server::with(|app| app.access = Arc::clone(&access));
    let code = Tokens::open(Some(&path)).unwrap().pair(Role::Admin).unwrap();
    let kept = folder.path().join("tokens.pairing");
    assert!(is_private(&kept) && !std::fs::read_to_string(&kept).unwrap().contains(&code));
    let pair =
        async |code: &str| server.send(Request::post("/pair").body(format!("code={code}").into()).unwrap()).await;
    assert_eq!(pair("WRONGCODE2").await.status(), StatusCode::FORBIDDEN);
    assert_eq!(pair(&code).await.status(), StatusCode::SEE_OTHER);
    assert_eq!(pair(&code).await.status(), StatusCode::FORBIDDEN, "a code works once");
    assert_eq!((access.tokens().list()[0].role, kept.exists()), (Role::Admin, false));

    // One that is old does not work, nor one from the future.
    let text = |until: u64| {
        let sha256: String = Sha256::digest("CODE").iter().map(|byte| format!("{byte:02x}")).collect();
        json!({ "sha256": sha256, "role": "use", "until": until, "tries": 0 }).to_string()
    };
    for until in [0, u64::MAX] {
        std::fs::write(&kept, text(until)).unwrap();
        let refused = String::from_utf8(bytes_of(pair("CODE").await).await.to_vec()).unwrap();
        assert!(refused.contains("no code is open"), "{refused}");
    }
}

#[test]
fn tokens_are_kept_as_hashes_and_change_while_the_server_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/tokens.json");
    let mut command = Tokens::open(Some(&path)).unwrap();
    let running = Access::with_tokens(Tokens::open(Some(&path)).unwrap(), NonZeroU32::MAX);
    assert!(running.tokens().list().is_empty());
    let token = command.add("laptop", Role::Use).unwrap();
    assert_eq!(running.tokens().list()[0].name, "laptop");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains(&token) && token.len() == 43, "{text}");
    assert!(is_private(&path));
    command.remove("laptop").unwrap();
    assert!(running.tokens().list().is_empty());
    assert!(matches!(command.remove("laptop"), Err(TokenError::Unknown(_))));
    assert!(matches!(command.add("<b>", Role::Use), Err(TokenError::Name)));
    std::fs::write(&path, "{").unwrap();
    assert!(matches!(Tokens::open(Some(&path)), Err(TokenError::Json { .. })));
}

#[cfg(unix)]
#[test]
fn the_file_of_tokens_stays_the_servers_when_root_changes_it() {
    use std::os::unix::fs::{MetadataExt, chown};
    let folder = tempfile::tempdir().unwrap();
    if folder.path().metadata().unwrap().uid() != 0 {
        // Only root can play both.
        return;
    }
    let path = folder.path().join("tokens.json");
    chown(folder.path(), Some(1234), Some(1235)).unwrap();
    let mut tokens = Tokens::open(Some(&path)).unwrap();
    let owner = || (path.metadata().unwrap().uid(), path.metadata().unwrap().gid());
    tokens.add("one", Role::Use).unwrap();
    assert_eq!(owner(), (1234, 1235), "as its folder");
    chown(&path, Some(4321), Some(1235)).unwrap();
    tokens.add("two", Role::Use).unwrap();
    assert_eq!(owner(), (4321, 1235), "as the file before");
    assert!(is_private(&path));
}

#[test]
fn a_file_of_tokens_that_cannot_be_read_is_told_of_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.json");
    let running = Access::with_tokens(Tokens::open(Some(&path)).unwrap(), NonZeroU32::MAX);
    let log = Arc::new(std::fs::File::create(folder.path().join("log")).unwrap());
    let subscriber = tracing_subscriber::fmt().with_writer(log).finish();
    let told = || std::fs::read_to_string(folder.path().join("log")).unwrap().matches("is damaged").count();
    tracing::subscriber::with_default(subscriber, || {
        std::fs::write(&path, "{").unwrap();
        (0..3).for_each(|_| drop(running.tokens()));
        assert_eq!(told(), 1);
        std::fs::write(&path, "[]").unwrap();
        drop(running.tokens());
        std::fs::write(&path, "{{").unwrap();
        std::fs::File::open(&path).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        drop(running.tokens());
        assert_eq!(told(), 2, "it is news again");
    });
}

#[tokio::test]
async fn who_comes_through_a_proxy_is_not_here() {
    let asked = async |access: Access, header: (&str, &str)| {
        let server = Server::with(|app| app.access = Arc::new(access));
        server.get_with("/api/tokens", &[header]).await
    };
    for header in [("forwarded", "for=192.0.2.7"), ("x-forwarded-for", "192.0.2.7"), ("x-real-ip", "192.0.2.7")] {
        let refused = asked(Access::here(NonZeroU32::MAX), header).await;
        assert_error(refused, StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, "came through a proxy").await;
        assert_eq!(asked(Access::open(NonZeroU32::MAX), header).await.status(), StatusCode::OK, "as it was told");
    }
    let here = asked(Access::here(NonZeroU32::MAX), ("host", "localhost")).await;
    assert_eq!(here.status(), StatusCode::OK);
}

#[tokio::test]
async fn every_answer_keeps_other_sites_out() {
    let server = Server::start();
    for path in ["/health", "/", "/pair", "/api/bundles", "/models/small/unet.gguf", "/nothing"] {
        let response = server.get(path).await;
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-embedder-policy", "require-corp"),
        ] {
            assert_eq!(response.headers()[name], value, "{path}");
        }
        assert!(response.headers().contains_key(header::CONTENT_SECURITY_POLICY), "{path}");
    }
}

#[tokio::test]
async fn only_sites_that_are_allowed_reach_from_the_open_internet_into_a_home() {
    let server = Server::with(|app| app.allowed_origins = vec!["https://friend.example".parse().unwrap()]);
    for (origin, is_let_in) in [("https://friend.example", true), ("https://evil.example", false)] {
        let preflight = Request::options("/api/jobs").header(header::ORIGIN, origin);
        let preflight = preflight.header("access-control-request-method", "POST");
        let preflight = preflight.header("access-control-request-private-network", "true");
        let answer = server.send(preflight.body(Body::empty()).unwrap()).await;
        // A browser asks for both.
        let says = |name: &str| answer.headers().contains_key(name);
        let lets_in = says("access-control-allow-private-network") && says("access-control-allow-origin");
        assert_eq!(lets_in, is_let_in, "{origin}");
    }
}

#[tokio::test]
async fn pages_of_other_sites_change_nothing() {
    let server = Server::with(|app| app.allowed_origins = vec!["https://friend.example".parse().unwrap()]);
    let post = async |path: &str, origin: Option<&str>| {
        let mut request = Request::post(path).header("host", "localhost:8080").header("content-type", "text/plain");
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        server.send(request.body("{}".into()).unwrap()).await
    };
    for path in ["/api/jobs", "/api/tokens", "/v1/images/generations", "/v1/images/edits", "/sdapi/v1/txt2img", "/pair"]
    {
        for origin in ["https://evil.example", "null", "http://localhost:9090", "https://friend.example.evil.example"] {
            let refused = post(path, Some(origin)).await;
            assert_error(refused, StatusCode::FORBIDDEN, ErrorCode::Unauthorized, "may not use this server").await;
        }
    }
    // Its own page, one that is allowed, and programs, which say no origin.
    for origin in [Some("http://localhost:8080"), Some("https://friend.example"), None] {
        assert_ne!(post("/v1/images/generations", origin).await.status(), StatusCode::FORBIDDEN, "{origin:?}");
    }
    let cancel = Request::delete("/api/jobs/1").header("host", "localhost").header("origin", "https://evil.example");
    assert_eq!(server.send(cancel.body(Body::empty()).unwrap()).await.status(), StatusCode::FORBIDDEN);
}
