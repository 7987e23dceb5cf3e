//! The page anywhere: installed, without a network, in a newer version, on other screens, for everybody, and in trouble.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kosmosg::picture::Picture;
use kosmosg_tests::browser::{ELSEWHERE, Page, Screen, Where, expected, newer_page};
use kosmosg_tests::server::Server;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use super::{GPU_PATIENCE, MANY_STEPS, PATIENCE, SAME_PICTURE, SEED, STEPS};

/// axe-core's version, and the digest of its program.
const AXE: (&str, &str) = ("4.14.1", "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c");
/// The narrowest window in which nothing may need scrolling sideways: a desktop's at four times the size.
const NARROW: Screen = Screen { size: (320, 640), scale: 2, is_dark: false };

#[tokio::test(flavor = "multi_thread")]
async fn the_page_can_be_installed_and_says_that_it_works_offline() {
    let server = Server::start().await;
    let page = Page::open(&server.address("/")).await;
    page.wait_for_text_within("#offline", "Works offline now", PATIENCE).await;
    let manifest = json_of(&server.address("/manifest.webmanifest")).await;
    let images = ["icons", "screenshots"].map(|kind| manifest[kind].as_array().unwrap().clone());
    for image in images.concat() {
        let (file, sizes) = (image["src"].as_str().unwrap(), image["sizes"].as_str().unwrap());
        if sizes == "any" {
            continue;
        }
        let bytes = reqwest::get(server.address(&format!("/{file}"))).await.unwrap().bytes().await.unwrap();
        // Width and height stand behind the signature and the first chunk's length and name.
        let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(format!("{}x{}", number(16), number(20)), sizes, "{file}");
    }
    page.close().await;
}

async fn json_of(address: &str) -> serde_json::Value {
    serde_json::from_slice(&reqwest::get(address).await.unwrap().bytes().await.unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_version_waits_until_the_person_wants_it() {
    let folder = tempfile::tempdir().unwrap();
    newer_page(folder.path(), false);
    let served = ["--store", "memory", "--page", folder.path().to_str().unwrap()];
    let server = Server::with(&served).await;
    let page = Page::launch().await;
    page.watch().await;
    page.visit(&server.address("/")).await;
    page.wait_until_kept(PATIENCE).await;
    let first = page.new_tab(&server.address("/")).await;
    page.write_sentence(SEED, STEPS).await;
    newer_page(folder.path(), true);
    page.look_for_newer().await;
    page.wait_for("#update").await;
    // Who goes on working is not disturbed, in neither tab.
    let psnr = page.generate(PATIENCE).await.psnr(&expected(SEED, STEPS));
    assert!(psnr >= SAME_PICTURE, "{psnr:.1} dB");
    assert_eq!(page.sentence().await, "a <i> on the beach");
    page.click("#update-reload").await;
    let is_newer = "is the newer one, and says nothing";
    page.wait_for("#offline:not(:empty)").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!page.sees("#update").await, "{is_newer}");

    page.back_to(first).await;
    assert_eq!(page.loads().await, 1, "another tab is left alone");
    page.wait_for("#update").await;
    page.write_sentence(SEED, STEPS).await;
    page.choose(Where::Cpu).await;
    page.generate(PATIENCE).await;
    page.click("#update-reload").await;
    page.wait_for("#offline:not(:empty)").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(page.loads().await, 2, "it is loaded once");
    assert!(!page.sees("#update").await, "{is_newer}");
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_beside_a_newer_version_leaves_the_page_offline() {
    let folder = tempfile::tempdir().unwrap();
    newer_page(folder.path(), false);
    let mut server = Server::with(&["--store", "memory", "--page", folder.path().to_str().unwrap()]).await;
    let page = Page::open(&server.address("/")).await;
    page.wait_until_kept(PATIENCE).await;
    newer_page(folder.path(), true);
    // Where a program of the older one is missed, that is told.
    page.choose(Where::Gpu).await;
    page.wait_for_text("#status", "if there is a newer version of this page, reload it").await;
    page.wait_for("#update").await;
    page.choose(Where::Cpu).await;
    page.reload().await;
    // What is told to the older and the newer service worker takes its time.
    tokio::time::sleep(Duration::from_secs(5)).await;
    server.stop();
    page.clear_cache().await;
    page.reload().await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_there_is_no_room_for_works_all_the_same() {
    let server = Server::start().await;
    let page = Page::launch().await;
    page.watch().await;
    page.limit_storage(&server.address(""), Some(3_000_000)).await;
    page.visit(&server.address("/?where=cpu")).await;
    page.wait_for("#app[data-offline=failed]").await;
    page.click("#device summary").await;
    page.wait_for_text("#device-facts", "could not be kept").await;
    page.write_sentence(SEED, STEPS).await;
    let psnr = page.generate(PATIENCE).await.psnr(&expected(SEED, STEPS));
    assert!(psnr >= SAME_PICTURE, "{psnr:.1} dB");
    page.limit_storage(&server.address(""), None).await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_encryption_the_page_says_what_is_missing_and_works_all_the_same() {
    let server = Server::with(&["--store", "memory", "--access", "open", "--name", ELSEWHERE]).await;
    let page = Page::open(&format!("http://{ELSEWHERE}:{}/", server.port())).await;
    page.wait_for_text("#where-line", "begins with http://, browsers keep WebGPU from a page").await;
    assert!(!page.offers(Where::Gpu).await);
    page.click("#device summary").await;
    page.wait_for_text("#device-facts", "only to pages whose address begins with https://").await;
    page.write_sentence(SEED, STEPS).await;
    let psnr = page.generate(PATIENCE).await.psnr(&expected(SEED, STEPS));
    assert!(psnr >= SAME_PICTURE, "{psnr:.1} dB");
    page.wait_for_kept(1).await;
    page.reload().await;
    page.wait_for_tiles(1).await;
    assert_eq!(page.sentence().await, "a <i> on the beach");
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interface_that_breaks_says_so() {
    let server = Server::start().await;
    let page = Page::launch().await;
    page.watch().await;
    page.visit(&server.address("/")).await;
    page.write_sentence(SEED, STEPS).await;
    // Shell and program belong together: without one of its elements, the program cannot go on.
    page.click("#device summary").await;
    page.wait_for_text("#device-facts", "GPU").await;
    page.run("document.querySelector('#where-line').remove()").await;
    page.click("#where-cpu").await;
    page.wait_for_text("#crash", "This page has stopped").await;
    assert!(!page.text("#crash").await.contains("could not be loaded"));
    page.run("navigator.clipboard.writeText = async text => { window.copied = text }").await;
    page.click("#crash-copy").await;
    page.wait_for_text("#crash-told", "The report is copied.").await;
    let report = page.run("return window.copied").await.as_str().unwrap().to_owned();
    for words in ["panicked at", "Mozilla/5.0", "where-line"] {
        assert!(report.contains(words), "{words}: {report}");
    }
    assert!(!report.contains("beach"), "what the person wrote is nobody's business: {report}");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(page.loads().await, 1, "it never loads itself again");
    page.click("#crash-reload").await;
    page.wait_for_state("ready", PATIENCE).await;
    assert_eq!(page.loads().await, 2);
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_crashes_costs_at_most_a_step() {
    // Without a server, the person says where it goes on.
    let mut server = Server::start().await;
    for has_server in [true, false] {
        let page = Page::launch().await;
        page.watch().await;
        page.visit(&server.address("/?where=cpu")).await;
        page.wait_for_state("ready", PATIENCE).await;
        page.write_sentence(SEED, MANY_STEPS).await;
        if !has_server {
            server.stop();
        }
        page.start().await;
        page.wait_for_step(8, PATIENCE).await;
        page.end_worker().await;
        if !has_server {
            page.wait_for_state("failed", PATIENCE).await;
            assert_eq!(page.sentence().await, "a <i> on the beach");
            page.click("#go-on-cpu").await;
        }
        page.wait_for_state("done", PATIENCE).await;
        let psnr = page.picture().await.psnr(&expected(SEED, MANY_STEPS));
        assert!(psnr >= SAME_PICTURE, "{psnr:.1} dB");
        assert_eq!(page.loads().await, 1);
        page.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tab_in_the_background_goes_on() {
    let server = Server::start().await;
    let page = super::at_step(3, Where::Cpu, &server).await;
    let tab = page.new_tab(&server.address("/")).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    page.back_to(tab).await;
    page.wait_for_state("done", PATIENCE).await;
    let psnr = page.picture().await.psnr(&expected(SEED, MANY_STEPS));
    assert!(psnr >= SAME_PICTURE, "{psnr:.1} dB");
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gpu_is_tested_and_the_report_says_how() {
    let server = Server::start().await;
    let page = Page::open(&server.address("/")).await;
    page.click("#device summary").await;
    page.wait_for_text("#device-facts", "WebGPU, but emulated on the processor").await;
    page.click("#device-test").await;
    let right = "kernels compute what the processor computes";
    page.wait_for_text_within("#device-told", right, GPU_PATIENCE).await;
    page.run("navigator.clipboard.writeText = async text => { window.copied = text }").await;
    page.click("#copy-report").await;
    page.wait_for_text("#device-told", "The report is copied.").await;
    assert!(!page.sees("#report").await);
    let report = page.value("#report").await;
    assert_eq!(page.run("return window.copied").await, report);
    page.run("navigator.clipboard.writeText = () => Promise.reject(); document.execCommand = () => false").await;
    page.click("#copy-report").await;
    page.wait_for_text("#device-told", "Copy the marked text").await;
    assert!(page.sees("#report").await);
    for words in [right, "kosmosg-server ", "Version of the page: ", "Mozilla/5.0"] {
        assert!(report.contains(words), "{words}: {report}");
    }
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_can_use_the_page() {
    let axe = axe().await;
    let mut server = Server::start().await;
    let page = Page::open(&server.address("/?where=cpu")).await;
    // It takes connections, and says nothing.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    for state in ["empty", "working", "result", "selecting", "in large", "with bars", "retouching", "failed"] {
        // As many as there are, so that it works for as long as it is looked at.
        page.write_sentence(SEED, if state == "working" { MANY_STEPS } else { STEPS }).await;
        match state {
            "empty" => {}
            "working" => {
                page.run("document.querySelector('#count-4').checked = true").await;
                page.start().await;
            }
            "result" => drop(page.generate(PATIENCE).await),
            "selecting" => {
                page.wait_for_tiles(1).await;
                page.click("#gallery-select").await;
                page.click(".kept").await;
            }
            "in large" => {
                page.click("#gallery-select").await;
                page.open_kept(0).await;
            }
            "with bars" => {
                page.type_into("#model-address", &format!("http://{}/", silent.local_addr().unwrap())).await;
                page.click("#model-fetch").await;
                page.open_kept(0).await;
                page.click("#viewer-delete").await;
                page.wait_for("#undo-bar").await;
                page.click_with_mouse("#prompt .chip").await;
                page.open_all().await;
                for bar in ["#chip-tools", "#undo-bar", "#model-task"] {
                    page.wait_for(bar).await;
                }
            }
            "retouching" => {
                page.double_click("#prompt .chip").await;
                page.wait_for_retouch(true).await;
            }
            _ => {
                page.choose(Where::Server).await;
                page.set_steps(MANY_STEPS).await;
                page.start().await;
                page.wait_for_step(8, PATIENCE).await;
                server.stop();
                page.wait_for_state("failed", PATIENCE).await;
            }
        }
        page.open_all().await;
        let screens = match state {
            "with bars" | "retouching" => vec![Screen::PHONE, Screen::DESKTOP.dark()],
            _ => [Screen::DESKTOP, Screen::PHONE, NARROW]
                .into_iter()
                .flat_map(|screen| [screen, screen.dark()])
                .collect(),
        };
        for screen in screens {
            page.show_on(screen).await;
            let found = page.violations(axe).await;
            assert!(found.is_empty(), "{state} on {screen:?}: {found:?}");
            assert!(page.overflow().await <= 0, "{state} on {screen:?} is wider than the window");
        }
        match state {
            "working" => {
                page.click("#cancel").await;
                page.wait_for_state("ready", PATIENCE).await;
                page.run("document.querySelector('#count-1').checked = true").await;
            }
            "in large" => page.click("#viewer-close").await,
            // What is waited for is left at once.
            "with bars" => {
                page.click("#model-stop").await;
                page.wait_for("#model-fetch:enabled").await;
            }
            "retouching" => page.click("#retouch-cancel").await,
            _ => {}
        }
    }
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keyboard_reaches_everything() {
    let server = Server::start().await;
    let page = Page::open(&server.address("/")).await;
    page.write_sentence(SEED, STEPS).await;
    page.generate(PATIENCE).await;
    for screen in [Screen::DESKTOP, Screen::PHONE] {
        page.show_on(screen).await;
        let found = page.walk().await;
        assert!(found.is_empty(), "{screen:?}: {found:#?}");
    }
    page.prefer("forced-colors", "active").await;
    let found = page.walk().await;
    assert!(found.is_empty(), "forced colours: {found:#?}");
    page.prefer("prefers-reduced-motion", "reduce").await;
    page.set_steps(MANY_STEPS).await;
    page.start().await;
    let moving = page.run("return document.getAnimations().length").await;
    assert_eq!(moving, serde_json::json!(0), "nothing moves for who wants none");
    page.close().await;
}

/// axe-core's program, which is fetched once.
async fn axe() -> &'static str {
    static PROGRAM: OnceCell<String> = OnceCell::const_new();
    PROGRAM
        .get_or_init(async || {
            let (version, digest) = AXE;
            let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("axe");
            let file = folder.join(format!("axe-{version}.js"));
            if !file.exists() {
                std::fs::create_dir_all(&folder).unwrap();
                let run = |program: &str, arguments: &[&str]| {
                    let status = Command::new(program).args(arguments).current_dir(&folder).status();
                    let status = status.unwrap_or_else(|error| panic!("{program}: {error}; it is needed"));
                    assert!(status.success(), "{program} {arguments:?}");
                };
                run("npm", &["pack", "--silent", &format!("axe-core@{version}")]);
                run("tar", &["-xzf", &format!("axe-core-{version}.tgz"), "package/axe.min.js"]);
                std::fs::rename(folder.join("package/axe.min.js"), &file).unwrap();
            }
            let program = std::fs::read_to_string(&file).unwrap();
            let found: String = Sha256::digest(&program).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(found, digest, "{} is not what was looked at", file.display());
            program
        })
        .await
}

/// The pictures of the page in `docs/` can be made anew and are of this page's size. With `KOSMOSG_PHOTOGRAPHS`, the folder that they are
/// put into: `docs`, to take them over.
#[tokio::test(flavor = "multi_thread")]
async fn pictures_of_the_page_can_be_taken() {
    let spare = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = std::env::var_os("KOSMOSG_PHOTOGRAPHS").map_or(spare.path().to_owned(), |folder| root.join(folder));
    let docs = root.join("docs");
    let server = Server::start().await;
    let mut page = Page::open(&server.address("/?where=cpu")).await;
    let (desktop, phone) = (Screen::DESKTOP, Screen::PHONE);
    photograph(
        &page,
        &folder,
        &docs,
        &[("page-desktop-empty-dark", desktop.dark()), ("page-phone-empty-light", phone)],
    )
    .await;
    page.write_sentence(SEED, MANY_STEPS).await;
    page.start().await;
    page.wait_for_preview().await;
    page.wait_for_step(40, PATIENCE).await;
    photograph(
        &page,
        &folder,
        &docs,
        &[("page-desktop-working-light", desktop), ("page-phone-working-dark", phone.dark())],
    )
    .await;
    page.click("#cancel").await;
    page.wait_for_state("ready", PATIENCE).await;
    page.set_steps(30).await;
    page.generate(PATIENCE).await;
    photograph(&page, &folder, &docs, &[("page", desktop), ("page-phone-result-dark", phone.dark())]).await;
    page.close().await;
    page = super::at_step(40, Where::Server, &server).await;
    drop(server);
    page.wait_for_state("failed", PATIENCE).await;
    photograph(
        &page,
        &folder,
        &docs,
        &[("page-desktop-error-dark", desktop.dark()), ("page-phone-error-light", phone)],
    )
    .await;
    page.close().await;
}

async fn photograph(page: &Page, folder: &Path, docs: &Path, pictures: &[(&str, Screen)]) {
    for (name, screen) in pictures {
        page.show_on(*screen).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let name = format!("{name}.png");
        page.photograph(&folder.join(&name)).await;
        let [taken, shown] = [folder, docs].map(|folder| {
            let picture = std::fs::read(folder.join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
            Picture::decode(&picture).unwrap()
        });
        assert_eq!((taken.width(), taken.height()), (shown.width(), shown.height()), "{name}");
        let colours: BTreeSet<_> = taken.rgb().chunks_exact(3).collect();
        assert!(colours.len() > 30, "{name} shows nothing: {} colours", colours.len());
    }
}
