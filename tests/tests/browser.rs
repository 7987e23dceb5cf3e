//! The page in a real Chromium: what a person does, and what a person then sees.
#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

use std::path::Path;
use std::time::Duration;

use kosmosg::noise;
use kosmosg_models::verify::read;
use kosmosg_tests::browser::{Page, Where, expected};
use kosmosg_tests::client::Client;
use kosmosg_tests::server::Server;
use thirtyfour::Key;

#[path = "browser/anywhere.rs"]
mod anywhere;
#[path = "browser/keeping.rs"]
mod keeping;
#[path = "browser/making.rs"]
mod making;
#[path = "browser/pictures.rs"]
mod pictures;

/// The page's pictures and the command line's differ less than this, in dB of PSNR.
const SAME_PICTURE: f64 = 40.0;
/// Chromium's WebGPU runs on the processor here: correct, but slow.
const GPU_PATIENCE: Duration = Duration::from_secs(600);
const PATIENCE: Duration = Duration::from_secs(120);
const STEPS: usize = 5;
/// So many that there is time to do something in the middle.
const MANY_STEPS: usize = 250;
const SEED: u64 = 11;

#[tokio::test(flavor = "multi_thread")]
async fn a_creature_dropped_into_a_sentence_comes_out_on_every_device() {
    let server = Server::start().await;
    let expected = expected(SEED, STEPS);
    let page = Page::open(&server.address("/")).await;
    page.write_sentence(SEED, STEPS).await;
    for (place, patience) in [(Where::Cpu, PATIENCE), (Where::Server, PATIENCE), (Where::Gpu, GPU_PATIENCE)] {
        page.choose(place).await;
        let picture = page.generate(patience).await;
        let psnr = picture.psnr(&expected);
        assert!(psnr >= SAME_PICTURE, "{place:?}: {psnr:.1} dB");
        // Not somewhere else because it failed here.
        let (status, moved) = (page.text("#status").await, page.text("#moved").await);
        let made_there = match place {
            Where::Cpu => "on this device's processor",
            Where::Gpu => "on this device's GPU",
            Where::Server => "on the server",
        };
        assert!(status.contains(made_there) && moved.is_empty(), "{place:?}: {status} {moved}");
    }
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_fails_in_the_middle_hands_over_to_the_server() {
    let server = Server::start().await;
    let expected = expected(SEED, STEPS);
    for (place, name, patience) in [(Where::Cpu, "processor", PATIENCE), (Where::Gpu, "GPU", GPU_PATIENCE)] {
        let page = Page::open(&server.address("/?fail-at-step=2")).await;
        page.write_sentence(SEED, STEPS).await;
        page.choose(place).await;
        let psnr = page.generate(patience).await.psnr(&expected);
        assert!(psnr >= SAME_PICTURE, "{place:?}: {psnr:.1} dB");
        let said = page.text("#moved").await;
        let told = format!("Stopped after step 2 on this device's {name} (it went away), continued on the server.");
        assert_eq!(said, told, "the page says where it went on, and why");
        page.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_away_loses_nothing() {
    let mut server = Server::start().await;
    let page = at_step(8, Where::Server, &server).await;
    server.stop();
    page.wait_for_state("failed", PATIENCE).await;
    assert_eq!(page.sentence().await, "a <i> on the beach");
    let said = page.text("#status").await.to_lowercase();
    assert!(said.contains("server"), "the page names what failed: {said:?}");
    page.click("#go-on-cpu").await;
    page.wait_for_state("done", PATIENCE).await;
    let psnr = page.picture().await.psnr(&expected(SEED, MANY_STEPS));
    assert!(psnr >= SAME_PICTURE, "{psnr:.1} dB");
    let moved = page.text("#moved").await;
    let step = moved.split_whitespace().find_map(|word| word.parse::<usize>().ok());
    assert!(step.is_some_and(|step| step >= 4), "steps that were done are not done again: {moved}");
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_started_again_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("jobs.sqlite");
    let arguments = ["--store", store.to_str().unwrap()];
    let mut server = Server::with(&arguments).await;
    let page = at_step(8, Where::Server, &server).await;
    server.stop();
    page.wait_for_text("#status", "The server is away").await;
    assert_eq!(page.sentence().await, "a <i> on the beach");
    let _server = server.again(&arguments).await;
    page.wait_for_state("done", PATIENCE).await;
    let psnr = page.picture().await.psnr(&expected(SEED, MANY_STEPS));
    assert!(psnr >= SAME_PICTURE, "{psnr:.1} dB");
    let (status, moved) = (page.text("#status").await, page.text("#moved").await);
    assert!(status.contains("on the server") && moved.is_empty(), "{status} {moved}");
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_the_server_does_not_know_is_told_how_to_pair() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.json");
    let file = ["--tokens", file.to_str().unwrap()];
    let token = |task: &[&str]| {
        let output = Server::command().arg("token").args(task).args(file).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let admin = token(&["add", "admin", "--role", "admin"]);
    let server = Server::with(&[&["--store", "memory", "--access", "token"], &file[..]].concat()).await;
    let page = Page::launch().await;
    page.visit(&server.address("/")).await;
    let hint = "open the link on this device";
    page.wait_for_text("#pairing", hint).await;
    page.wait_for_text("#status", "The server does not know this device").await;

    // The link of a device that is paired, as it says.
    let path = Client::of(server.address("")).open_pairing(&admin, "use").await;
    page.pair(&server.address(&path)).await;
    assert_eq!(page.text("#pairing").await, "");
    page.write_sentence(SEED, STEPS).await;
    page.choose(Where::Server).await;
    let psnr = page.generate(PATIENCE).await.psnr(&expected(SEED, STEPS));
    assert!(psnr >= SAME_PICTURE, "{psnr:.1} dB");

    // It may not let others in.
    page.click("#device summary").await;
    page.wait_for_text("#device-facts", "GPU").await;
    assert!(!page.sees("#invite").await);

    // Its token is taken back.
    token(&["remove", "device 1"]);
    page.click("#generate").await;
    page.wait_for_text("#pairing", hint).await;
    page.wait_for_state("failed", PATIENCE).await;
    assert_eq!(page.sentence().await, "a <i> on the beach");
    page.click("#go-on-cpu").await;
    page.wait_for_state("done", PATIENCE).await;
    page.close().await;

    // An administrator's device lets another one in.
    let path = Client::of(server.address("")).open_pairing(&admin, "admin").await;
    let first = Page::launch().await;
    first.pair(&server.address(&path)).await;
    first.click("#device summary").await;
    first.wait_for("#invite").await;
    first.click("#invite").await;
    first.wait_for("#invitation").await;
    let link = first.text("#invite-link").await;
    assert!(link.starts_with(&server.address("/pair?code=")), "{link}");
    assert_ne!(first.property("#invite-picture", "naturalWidth").await, "0");
    let second = Page::launch().await;
    second.pair(&link).await;
    assert_eq!(second.text("#pairing").await, "");
    first.close().await;
    second.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_choice_in_the_middle_takes_the_picture_along() {
    let server = Server::start().await;
    let page = at_step(3, Where::Cpu, &server).await;
    page.click("#where-server").await;
    page.wait_for_state("done", PATIENCE).await;
    let psnr = page.picture().await.psnr(&expected(SEED, MANY_STEPS));
    assert!(psnr >= SAME_PICTURE, "{psnr:.1} dB");
    let (status, moved) = (page.text("#status").await, page.text("#moved").await);
    assert!(status.contains("on the server") && moved.contains("continued on the server"), "{status} {moved}");
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_are_moved_and_deleted_like_words() {
    let server = Server::start().await;
    let page = Page::open(&server.address("/")).await;
    page.write_sentence(SEED, STEPS).await;
    // Behind the picture, and back over it.
    page.press("#prompt", &[Key::Home, Key::Right, Key::Right, Key::Right, Key::Backspace]).await;
    assert_eq!(page.sentence().await, "a  on the beach");
    page.undo("#prompt").await;
    assert_eq!(page.sentence().await, "a <i> on the beach");
    page.drag_first_picture_to_end().await;
    assert_eq!(page.sentence().await, "a on the beach <i>");
    page.undo("#prompt").await;
    page.click("#creatures .creature").await;
    page.wait_for_pictures(2).await;
    page.pick(b"this is no picture", "letter.txt").await;
    page.wait_for_text("#notice", "letter.txt").await;
    page.wait_for_pictures(2).await;
    page.pick(&[0x89, b'P', b'N', b'G', 13, 10, 26, 10, 0], "torn.png").await;
    page.wait_for_text("#notice", "torn.png is damaged").await;
    page.wait_for_pictures(2).await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_picture_leaves_everything_as_it_was() {
    let server = Server::start().await;
    let page = at_step(5, Where::Cpu, &server).await;
    page.wait_for_preview().await;
    // Whoever does not see it hears how far it is, not at every step.
    page.wait_for_text("#told", &format!("Step {} of {MANY_STEPS}", MANY_STEPS.div_ceil(4))).await;
    page.click("#cancel").await;
    page.wait_for_state("ready", PATIENCE).await;
    assert_eq!(page.sentence().await, "a <i> on the beach");
    page.set_steps(STEPS).await;
    // The second click of a double click orders nothing more.
    page.double_click("#generate").await;
    page.wait_for_state("done", PATIENCE).await;
    let psnr = page.picture().await.psnr(&expected(SEED, STEPS));
    assert!(psnr >= SAME_PICTURE, "{psnr:.1} dB");
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_first_visit_the_page_needs_no_network() {
    let mut server = Server::start().await;
    let page = Page::open(&server.address("/")).await;
    page.wait_until_kept(PATIENCE).await;
    server.stop();
    // Otherwise it could be that cache which brings the page.
    page.clear_cache().await;
    page.reload().await;
    assert!(!page.offers(Where::Server).await, "there is no server any more");
    page.write_sentence(SEED, STEPS).await;
    page.choose(Where::Cpu).await;
    let psnr = page.generate(PATIENCE).await.psnr(&expected(SEED, STEPS));
    assert!(psnr >= SAME_PICTURE, "{psnr:.1} dB");
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_seed_is_the_same_noise_everywhere() {
    let server = Server::start().await;
    let page = Page::open(&server.address("/")).await;
    for (seed, stream, count) in [(0, 0, 1), (1, 0, 2048), (u64::MAX, 7, 4097)] {
        let request = format!(r#"{{"noise_hash":{{"seed":{seed},"stream":{stream},"count":{count}}}}}"#);
        let reply = page.ask("cpu", &request, &[]).await;
        assert_eq!(reply["noise_hash"]["hash"], noise::fingerprint(&noise::gaussian(seed, stream, count)));
    }
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webgpu_agrees_with_the_public_implementations() {
    let server = Server::start().await;
    let page = Page::open(&server.address("/")).await;
    page.choose(Where::Gpu).await;
    // This GPU has no numbers of 16 bits. What it refuses must not disturb what follows.
    let reply = page.ask("gpu", r#"{"test_kernels":{"impossible":true}}"#, &[]).await;
    let rows = reply["verified"]["rows"].as_array().unwrap_or_else(|| panic!("{reply}"));
    for row in rows {
        let is_refused = row["tensor"].as_str().unwrap().ends_with("activations of 16");
        assert_eq!(row["error"].as_f64().unwrap() > 1.0, is_refused, "{row}");
    }
    assert_eq!(rows.len(), 4);
    for (fixture, comparisons) in [("kosmosg", 22), ("sd", 21)] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(fixture);
        let files = read(&dir).unwrap();
        let names: Vec<&String> = files.keys().collect();
        let request = serde_json::json!({ "verify": { "files": names } }).to_string();
        let reply = page.ask("gpu", &request, &files.values().collect::<Vec<_>>()).await;
        let rows = reply["verified"]["rows"].as_array().unwrap_or_else(|| panic!("{fixture}: {reply}"));
        assert_eq!(rows.len(), comparisons, "{fixture}");
        for row in rows {
            // An error that is not finite arrives as null.
            let error = row["error"].as_f64().unwrap_or(f64::INFINITY);
            assert!(error <= 1e-4, "{fixture}: {row}");
        }
    }
    page.close().await;
}

/// A page that has done so many of a picture's many steps.
async fn at_step(step: usize, place: Where, server: &Server) -> Page {
    let page = Page::open(&server.address("/")).await;
    page.write_sentence(SEED, MANY_STEPS).await;
    page.choose(place).await;
    page.start().await;
    page.wait_for_step(step, PATIENCE).await;
    page
}
