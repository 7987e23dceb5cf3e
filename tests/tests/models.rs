//! Models that a person brings to the page, in a real Chromium.
#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

use std::path::Path;
use std::time::{Duration, Instant};

use kosmosg::bundle::{Existing, Folder, MANIFEST, Manifest};
use kosmosg::condition::Condition;
use kosmosg::encoder::Encoder;
use kosmosg::engine::candle::{Candle, CandleDevice};
use kosmosg::picture::Picture;
use kosmosg::prompt::PromptDocument;
use kosmosg::verify::{cosine, relative_error};
use kosmosg_models::import::{ImportOptions, import};
use kosmosg_models::quantize::Quant;
use kosmosg_tests::browser::{Line, Page, Where, creature, expected};
use kosmosg_tests::models;
use kosmosg_tests::server::Server;
use serde_json::json;
use thirtyfour::Key;

const PATIENCE: Duration = Duration::from_secs(120);
const SAME_PICTURE: f64 = 40.0;
const STEPS: usize = 5;
const SEED: u64 = 11;
const NAME: &str = "Another one";
/// Bytes that the GPU worker's program takes at most with a small model: 8 MB are measured.
const MOST_MEMORY: f64 = 30e6;

/// A folder of the built-in bundle and, as `another`, of one that differs in name only.
fn folder_of_two() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["tiny", "another"] {
        models::copy(&models::built_in(), &folder.path().join(name)).unwrap();
    }
    let path = folder.path().join("another").join(MANIFEST);
    let mut manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    manifest["name"] = json!(NAME);
    std::fs::write(&path, manifest.to_string()).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_comes_over_a_bad_line_and_stays() {
    let folder = folder_of_two();
    let mut server = Server::of(folder.path()).await;
    let line = Line::to(server.port()).await;
    let page = Page::open(&line.address("/")).await;
    page.wait_until_kept(PATIENCE).await;

    // It breaks twice, and goes on by itself at the byte where it was.
    line.break_answers("another/unet", 3_000_000, 2);
    line.slow_down(Some(("another/unet", 3_000_000)));
    page.deed(NAME, "Fetch (").await;
    page.wait_for_text("#model-line", &format!("{NAME}: ")).await;
    page.wait_for_text("#model-line", "12 MB of").await;
    let asked = line.asked();
    let (_, begins) = asked.iter().find(|(path, _)| path.contains("another/unet")).unwrap();
    assert!(begins.len() == 3 && begins[0] == 0 && begins.is_sorted() && begins[1] > 2_000_000, "{begins:?}");
    assert!(asked.keys().all(|path| !path.contains("another/text")), "what no picture needs is not fetched: {asked:?}");

    // Nothing comes any more. Paused all the same; then the page is left in the middle.
    line.slow_down(Some(("another/unet", 500)));
    page.wait_for_text("#model-line", "no data is coming, trying again").await;
    let begin = Instant::now();
    page.click("#model-stop").await;
    page.wait_for_text("#model-list", "MB of 19 MB in this browser").await;
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    line.slow_down(Some(("another/unet", 700_000)));
    page.deed(NAME, "Go on fetching").await;
    page.wait_for_text("#model-line", "14 MB of").await;
    line.asked();
    page.reload().await;
    line.slow_down(None);
    page.deed(NAME, "Go on fetching").await;
    page.wait_until_whole(NAME).await;
    let asked = line.asked();
    let begun_at =
        |part: &str| asked.iter().find(|(path, _)| path.contains(&format!("another/{part}"))).map(|(_, at)| at[0]);
    assert!(begun_at("unet").unwrap() > 2_000_000, "what was there is not fetched again: {asked:?}");
    assert_eq!(begun_at("mllm"), None, "{asked:?}");

    // A file that storage spoilt is found and fetched again, alone.
    page.spoil("aligner.gguf").await;
    page.deed(NAME, "Check").await;
    page.wait_for_text("#model-told", "Damaged, and to be fetched again: aligner.gguf.").await;
    page.deed(NAME, "Go on fetching").await;
    page.wait_until_whole(NAME).await;
    let asked: Vec<_> = line.asked().into_keys().filter(|path| path.ends_with(".gguf")).collect();
    assert_eq!(asked, ["/models/another/aligner.gguf"]);

    // It works, also without the server, and after a reload.
    page.deed(NAME, "Use").await;
    page.wait_for_text("#model-name", NAME).await;
    server.stop();
    for visit in 0..2 {
        page.write_sentence(SEED, STEPS).await;
        page.choose(Where::Cpu).await;
        let psnr = page.generate(PATIENCE).await.psnr(&expected(SEED, STEPS));
        assert!(psnr >= SAME_PICTURE, "{psnr:.1} dB");
        if visit == 0 {
            page.reload().await;
            page.wait_for_text("#model-name", NAME).await;
        }
    }
    page.close().await;
}

/// The published forms, imported in four bits, from the server's folder to the GPU: what `cargo xtask bench --full` does at full
/// size.
#[tokio::test(flavor = "multi_thread")]
async fn four_bits_over_a_bad_line_compute_on_the_gpu_what_they_do_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    models::copy(&models::built_in(), &folder.path().join("tiny")).unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let file = |name: &str| fixtures.join("kosmosg").join(name);
    let options = ImportOptions {
        checkpoint: file("checkpoint.pt"),
        sentencepiece: file("sentencepiece.bpe.model"),
        dictionary: file("dict.txt"),
        decoder: fixtures.join("sd"),
        network: Some(file("config.json")),
        quant: Quant::Q4_0,
        existing: Existing::default(),
    };
    let small = folder.path().join("small");
    let name = import(&options, &small, |_| {}).unwrap().name;

    let server = Server::of(folder.path()).await;
    let line = Line::to(server.port()).await;
    let page = Page::open(&line.address("/")).await;
    page.wait_until_kept(PATIENCE).await;
    line.break_answers("small/mllm", 20_000, 2);
    line.asked();
    page.deed(&name, "Only the part that reads").await;
    page.wait_for_deed(&name, "Use").await;
    let asked = line.asked();
    let (_, begins) = asked.iter().find(|(path, _)| path.contains("small/mllm")).unwrap();
    assert!(begins.len() == 3 && begins.is_sorted(), "{begins:?}");
    page.deed(&name, "Use").await;
    page.wait_for_text("#model-name", &name).await;
    page.choose(Where::Gpu).await;
    page.wait_for_state("ready", PATIENCE).await;

    let (prompt, png) = (PromptDocument::from_text("a <i> on the beach", 1).unwrap(), creature().to_png(None));
    let request = json!({ "encode": { "prompt": prompt, "negative": "" } }).to_string();
    let reply = page.ask("gpu", &request, &[&png]).await;
    let found: Condition =
        serde_json::from_value(reply["encoded"]["condition"].clone()).unwrap_or_else(|_| panic!("{reply}"));
    let memory = page.ask("gpu", r#""memory""#, &[]).await["memory"]["bytes"].as_f64().unwrap();
    println!("{:.0} MB", memory / 1e6);
    page.close().await;

    let encoder = Encoder::<Candle>::open(&Folder::open(&small).unwrap(), &CandleDevice::cpu()).unwrap();
    let expected = encoder.encode(&prompt, &[Picture::decode(&png).unwrap()], "").await.unwrap();
    let (cosine, error) = (cosine(&found.cond, &expected.cond), relative_error(&found.cond, &expected.cond));
    println!("cosine {cosine:.7}, error {error:.1e}");
    // The same blocks on both: only the order of sums, and activations that some GPUs read in 16 bits, differ.
    assert!(cosine >= 0.9999 && error <= 1e-2, "cosine {cosine:.7}, error {error:.1e}");
    assert!(memory <= MOST_MEMORY, "{:.0} MB", memory / 1e6);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_encoder_alone_the_server_draws() {
    let folder = folder_of_two();
    let server = Server::of(folder.path()).await;
    let page = Page::open(&server.address("/")).await;
    page.deed(NAME, "Only the part that reads").await;
    page.deed(NAME, "Use").await;
    page.wait_for_text("#where-line", "did not fetch that part of the model").await;
    page.write_sentence(SEED, STEPS).await;
    let psnr = page.generate(PATIENCE).await.psnr(&expected(SEED, STEPS));
    assert!(psnr >= SAME_PICTURE, "{psnr:.1} dB");
    assert!(page.text("#status").await.contains("on the server"), "{}", page.text("#status").await);

    // The rest, later: then this device draws.
    page.deed(NAME, "Fetch the part that draws too").await;
    page.wait_for_text("#where-line", "Everything runs on this device").await;
    let psnr = page.generate(PATIENCE).await.psnr(&expected(SEED, STEPS));
    assert!(psnr >= SAME_PICTURE, "{psnr:.1} dB");
    assert!(page.text("#status").await.contains("on this device"), "{}", page.text("#status").await);
    page.deed(NAME, "Remove").await;
    page.wait_for_text("#model-list", "on the server").await;
    page.wait_for_text("#model-name", "The built-in one").await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_larger_than_the_room_for_it_is_not_begun() {
    const BYTES: u64 = 8_000_000_000_000;
    let folder = folder_of_two();
    let another = folder.path().join("another");
    // A file without contents takes no room on this disk.
    std::fs::File::create(another.join("unet.gguf")).unwrap().set_len(BYTES).unwrap();
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(another.join(MANIFEST)).unwrap()).unwrap();
    let unet = &mut manifest["parts"]["unet"];
    unet["bytes"] = json!(BYTES);
    unet["files"][0]["bytes"] = json!(BYTES);
    std::fs::write(another.join(MANIFEST), manifest.to_string()).unwrap();
    let server = Server::of(folder.path()).await;
    let page = Page::open(&server.address("/")).await;
    page.deed(NAME, "Fetch (8000.0").await;
    page.wait_for_text("#model-trouble", " GB more are needed, and this browser has room for").await;
    // What fits can be had, and stays of use when the rest is asked for.
    page.deed(NAME, "Only the part that reads").await;
    page.wait_for_deed(NAME, "Use").await;
    page.deed(NAME, "Fetch the part that draws too").await;
    page.wait_for_text("#model-trouble", " GB more are needed, and this browser has room for").await;
    page.wait_for_deed(NAME, "Use").await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_this_device_and_addresses_are_models_too() {
    let folder = folder_of_two();
    let server = Server::of(folder.path()).await;
    let elsewhere = Line::to(server.port()).await;
    let page = Page::open(&server.address("/")).await;
    let manifest = std::fs::read(folder.path().join("another").join(MANIFEST)).unwrap();
    let files = Manifest::from_json(&manifest).unwrap();
    let files = files.files(kosmosg::bundle::Scope::Picture).map(|file| file.name.clone());
    let mut files: Vec<_> = files.chain([MANIFEST.to_owned()]).collect();

    let missing = files.iter().position(|name| name == "vae.gguf").map(|at| files.remove(at)).unwrap();
    page.choose_folder("/models/another/", &files).await;
    page.wait_for_text("#model-trouble", "vae.gguf is not among the files").await;
    page.wait_for_deed(NAME, "Choose its folder again").await;
    files.push(missing);
    page.choose_folder("/models/another/", &files).await;
    page.wait_for_deed(NAME, "Use").await;
    page.deed(NAME, "Remove").await;
    page.wait_for_text("#model-list", "on the server").await;

    // The server's own page may fetch from anywhere; whether a server elsewhere lets it is that server's to say.
    page.type_into("#model-address", "nonsense").await;
    page.click("#model-fetch").await;
    assert!(page.property("#model-address", "validationMessage").await.starts_with("That is no address"));
    page.type_into("#model-address", &elsewhere.address("/models/another")).await;
    page.click("#model-fetch").await;
    page.wait_for_text("#model-trouble", "does not let this page fetch it").await;
    let allowing = server.beside(folder.path(), &["--allow-origin", &server.address("")]).await;
    page.type_into("#model-address", &allowing.address("/models/another/bundle.json")).await;
    page.click("#model-only-encoder").await;
    page.click("#model-fetch").await;
    page.wait_for_deed(NAME, "Fetch the part that draws too").await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_that_is_short_shared_or_emptied_is_told() {
    let folder = folder_of_two();
    let server = Server::of(folder.path()).await;
    let line = Line::to(server.port()).await;
    let page = Page::open(&line.address("/")).await;
    page.limit_storage(&line.address(""), Some(8_000_000)).await;
    page.deed(NAME, "Fetch (").await;
    page.wait_for_text("#model-trouble", "This browser has no more room").await;
    page.limit_storage(&line.address(""), None).await;

    // In two tabs at once.
    line.slow_down(Some(("another/", 1_000_000)));
    page.deed(NAME, "Go on fetching").await;
    page.wait_for_text("#model-line", "MB of 19 MB").await;
    let first = page.new_tab(&line.address("/")).await;
    page.deed(NAME, "Go on fetching").await;
    page.wait_for_text("#model-trouble", "Another tab of this page is at work on this model").await;
    page.back_to(first).await;
    line.slow_down(None);
    page.wait_until_whole(NAME).await;
    page.deed(NAME, "Use").await;
    page.wait_for_text("#model-name", NAME).await;
    page.wait_for_state("ready", PATIENCE).await;
    // What another tab works with is its own.
    let first = page.new_tab(&line.address("/")).await;
    page.wait_for_text("#model-name", NAME).await;
    page.deed("The built-in one", "Use").await;
    page.wait_for_text("#model-name", "The built-in one").await;
    page.back_to(first).await;
    page.reload().await;
    page.wait_for_text("#model-name", NAME).await;

    // The browser may take everything away.
    page.empty_storage().await;
    page.reload().await;
    page.wait_for_text("#model-name", "The built-in one").await;
    page.write_sentence(SEED, STEPS).await;
    page.generate(PATIENCE).await;
    page.deed(NAME, "Fetch (").await;
    page.wait_until_whole(NAME).await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keyboard_stays_with_a_model_that_is_fetched_checked_and_removed() {
    let folder = folder_of_two();
    let server = Server::of(folder.path()).await;
    let line = Line::to(server.port()).await;
    let page = Page::open(&line.address("/")).await;
    let press = async |label: &str| {
        page.wait_for_deed(NAME, label).await;
        page.focus(&format!("#model-list [aria-label^='{label}'][aria-label$='{NAME}']")).await;
        page.press_here(Key::Enter).await;
    };
    line.slow_down(Some(("another/", 3_000_000)));
    press("Fetch (").await;
    assert_eq!(page.focused().await, "model-stop");
    page.wait_for("#told:not(:empty)").await;
    page.press_here(Key::Enter).await;
    page.wait_for(&format!("[aria-label='Go on fetching: {NAME}']:focus")).await;
    page.wait_for_text("#told", &format!("{NAME}: ")).await;

    page.press_here(Key::Enter).await;
    line.slow_down(None);
    page.wait_for(&format!("[aria-label='Use: {NAME}']:focus")).await;
    page.wait_for_text("#told", &format!("{NAME}: 19 MB in this browser")).await;
    press("Check").await;
    page.wait_for(&format!("[aria-label='Check: {NAME}']:focus")).await;
    page.wait_for_text("#model-told", "files are right.").await;
    press("Remove").await;
    page.wait_for(&format!("[aria-label^='Fetch ('][aria-label$=': {NAME}']:focus")).await;
    page.close().await;
}
