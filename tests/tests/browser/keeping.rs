//! Pictures are kept and bring their recipes along; sentence and job outlive a reload.

use std::time::Duration;

use kosmosg::noise::Rng;
use kosmosg::picture::Picture;
use kosmosg_tests::browser::{Page, Where, expected};
use kosmosg_tests::server::Server;
use thirtyfour::Key;

const PATIENCE: Duration = Duration::from_secs(120);
/// The page's pictures and the command line's differ less than this, in dB of PSNR.
const SAME_PICTURE: f64 = 40.0;
const STEPS: usize = 5;
/// So many that there is time to reload in the middle.
const MANY_STEPS: usize = 250;
const SEED: u64 = 11;

async fn with_sentence(server: &Server, steps: usize, place: Where) -> Page {
    let page = Page::open(&server.address("/")).await;
    page.write_sentence(SEED, steps).await;
    page.choose(place).await;
    page
}

/// A picture whose file is too large for a link, and small in small.
fn large() -> Vec<u8> {
    let mut rng = Rng::new(1, 0);
    let pixels =
        (0..160 * 160).flat_map(|at| [at % 160, at / 160, 90].map(|value: u32| value as u8 + rng.below(8) as u8));
    Picture::new(160, 160, pixels.collect()).unwrap().to_png(None)
}

/// Has the person write something else, with other settings.
async fn forget(page: &Page) {
    page.click("#examples .example:nth-of-type(2)").await;
    page.wait_for_pictures(2).await;
    page.type_into("#seed", "99").await;
    page.type_into("#negative", "rain").await;
    page.set_steps(STEPS + 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_picture_is_made_again_exactly() {
    let server = Server::start().await;
    let page = with_sentence(&server, STEPS, Where::Cpu).await;
    page.type_into("#negative", "dark").await;
    // A number is taken exactly; the slider goes as near as it can, and back.
    page.type_into("#guidance-slider", "7.5").await;
    assert_eq!(page.value("#guidance").await, "7.5");
    page.type_into("#guidance", "99").await;
    assert_eq!((page.value("#guidance").await, page.value("#guidance-slider").await), ("15".into(), "15".into()));
    page.type_into("#guidance", "4.3").await;
    assert_eq!(page.value("#guidance-slider").await, "4.5");
    let picture = page.generate(PATIENCE).await;
    page.wait_for_kept(1).await;
    forget(&page).await;
    page.type_into("#guidance", "9").await;
    page.open_kept(0).await;
    let settings = page.text("#viewer-settings").await;
    for setting in ["dark", "4.3", &SEED.to_string()] {
        assert!(settings.contains(setting), "{settings}");
    }
    page.click("#viewer-use-prompt").await;
    page.wait_for_pictures(1).await;
    assert_eq!(page.sentence().await, "a <i> on the beach");
    assert_eq!((page.value("#seed").await, page.value("#negative").await), (SEED.to_string(), "dark".into()));
    assert_eq!(page.generate(PATIENCE).await, picture);
    // All of it is still there after a reload.
    page.reload().await;
    page.wait_for_kept(2).await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_file_restores_everything() {
    let server = Server::start().await;
    let page = with_sentence(&server, STEPS, Where::Server).await;
    let picture = page.generate(PATIENCE).await;
    let file = page.bytes_behind("#save").await;
    page.close().await;

    let page = Page::open(&server.address("/")).await;
    page.choose(Where::Server).await;
    page.pick(&file, "saved.png").await;
    page.wait_for_text("#offer-line", "brings its recipe").await;
    page.click("#offer-restore").await;
    page.wait_for_pictures(1).await;
    assert_eq!(page.sentence().await, "a <i> on the beach");
    assert_eq!(page.generate(PATIENCE).await, picture);

    // A damaged recipe is told, and the picture put in all the same.
    let mut damaged = file;
    let at = damaged.windows(8).position(|window| window == b"kosmosg\0").unwrap();
    damaged[at + 40] ^= 1;
    page.pick(&damaged, "damaged.png").await;
    page.wait_for_text("#offer-line", "is damaged").await;
    page.wait_for_pictures(2).await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_brings_the_recipe() {
    let server = Server::start().await;
    let page = with_sentence(&server, STEPS, Where::Cpu).await;
    let picture = page.generate(PATIENCE).await;
    let link = page.copied_link().await;
    page.wait_for_text("#offer-line", "Copied. The link brings the sentence").await;
    assert!(link.len() < 8000, "{} letters", link.len());

    // Safari writes no WebP, and gives a PNG instead.
    page.run(
        "const { convertToBlob } = OffscreenCanvas.prototype;
        OffscreenCanvas.prototype.convertToBlob = function (options) {
            window.written = options.type;
            return convertToBlob.call(this, options.type === 'image/webp' ? {} : options);
        }",
    )
    .await;
    page.pick(&large(), "large.png").await;
    page.wait_for_pictures(2).await;
    page.generate(PATIENCE).await;
    page.copied_link().await;
    page.wait_for_text("#offer-line", "One picture travels in small").await;
    assert_eq!(page.run("return window.written").await, "image/jpeg");
    page.close().await;

    let page = Page::open(&link).await;
    page.wait_for_pictures(1).await;
    assert_eq!(page.sentence().await, "a <i> on the beach");
    assert!(!page.is_usable("#undo").await, "there was nothing before");
    assert!(!page.address().await.contains('#'), "a reload does not bring it again");
    page.choose(Where::Cpu).await;
    assert_eq!(page.generate(PATIENCE).await, picture);
    page.close().await;

    let page = Page::open(&server.address("/#recipe=broken")).await;
    page.wait_for_text("#offer-line", "The link is damaged").await;
    page.wait_for_pictures(1).await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_takes_a_sentences_place_can_be_undone() {
    let server = Server::start().await;
    let page = with_sentence(&server, STEPS, Where::Cpu).await;
    page.generate(PATIENCE).await;
    let link = page.copied_link().await;
    forget(&page).await;
    tokio::time::sleep(PAUSE).await;
    // Otherwise only the address' end would change.
    page.run("location.href = 'about:blank'").await;
    tokio::time::sleep(PAUSE).await;
    page.visit(&link).await;
    page.wait_for_text("#notice", "Undo brings your sentence back.").await;
    assert_eq!(page.sentence().await, "a <i> on the beach");
    page.click("#undo").await;
    page.wait_for_pictures(2).await;
    assert_eq!(page.sentence().await, "a <i> and a <i> in the forest");
    assert_eq!(page.text("#notice").await, "");
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_are_deleted_exported_and_taken_in() {
    let server = Server::start().await;
    let page = with_sentence(&server, STEPS, Where::Cpu).await;
    page.generate(PATIENCE).await;
    page.type_into("#seed", "12").await;
    page.generate(PATIENCE).await;
    page.wait_for_kept(2).await;
    page.wait_for_tiles(2).await;
    page.type_into("#gallery-search", "no such words").await;
    page.wait_for_tiles(0).await;
    page.type_into("#gallery-search", "BEACH").await;
    page.wait_for_tiles(2).await;
    let zip = page.exported().await;

    page.open_kept(0).await;
    page.click("#viewer-delete").await;
    page.wait_for_text("#undo-line", "The picture is deleted.").await;
    page.wait_for_tiles(1).await;
    // What was deleted before can still be brought back, together with what is deleted now.
    page.open_kept(0).await;
    page.click("#viewer-delete").await;
    page.wait_for_text("#undo-line", "2 pictures are deleted.").await;
    page.wait_for_tiles(0).await;
    page.click("#bring-back").await;
    page.wait_for_tiles(2).await;

    page.import(&zip, "pictures.zip").await;
    page.wait_for_text("#gallery-line", "2 were here already").await;
    // That stays when the pictures are shown anew.
    page.click("#gallery-select").await;
    page.click("#gallery-select").await;
    assert!(page.text("#gallery-line").await.contains("2 were here already"));
    assert_eq!(page.text("#gallery-found").await, "2 pictures match.");
    page.open_kept(0).await;
    page.click("#viewer-delete").await;
    page.wait_for_tiles(1).await;
    page.import(&zip, "pictures.zip").await;
    page.wait_for_tiles(2).await;
    page.import(b"no zip", "letter.zip").await;
    page.wait_for_text("#gallery-line", "letter.zip was not taken in").await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keyboard_does_not_lose_its_place_among_the_pictures() {
    let server = Server::start().await;
    let page = with_sentence(&server, STEPS, Where::Cpu).await;
    page.click("#count-2").await;
    page.generate(PATIENCE).await;
    page.wait_for_kept(2).await;
    page.open_kept(0).await;
    page.focus("#viewer-next").await;
    page.press_here(Key::Enter).await;
    page.wait_for("#viewer-next:disabled").await;
    assert_eq!(page.focused().await, "viewer-previous");
    page.press_here(Key::Left).await;
    page.wait_for("#viewer-previous:disabled").await;
    assert_eq!(page.focused().await, "viewer-next");
    page.click("#viewer-close").await;

    page.click("#gallery-select").await;
    page.click(".kept").await;
    page.wait_for_text("#gallery-delete", "Delete 1").await;
    page.focus("#gallery-delete").await;
    page.press_here(Key::Enter).await;
    page.wait_for_tiles(1).await;
    assert_eq!(page.focused().await, "bring-back");
    page.press_here(Key::Enter).await;
    page.wait_for_tiles(2).await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_pictures_weigh_no_more_than_a_few() {
    let server = Server::start().await;
    let page = with_sentence(&server, STEPS, Where::Cpu).await;
    page.generate(PATIENCE).await;
    page.wait_for_kept(1).await;
    page.multiply_kept(2000).await;
    page.reload().await;
    page.wait_for_kept(2000).await;
    let few = async || {
        let tiles = page.tiles().await;
        assert!((1..=200).contains(&tiles), "{tiles} tiles in the document");
    };
    let tile = async |words: &str| page.wait_for(&format!(".kept[title='{words}'] img[src]")).await;
    page.run("document.querySelector('#gallery').scrollIntoView()").await;
    tile("number 1").await;
    few().await;
    // The keyboard comes to all of them, and they to the document.
    page.focus(".kept[tabindex='0']").await;
    for (key, words) in
        [(Key::End, "number 2000"), (Key::Left, "number 1999"), (Key::Home, "number 1"), (Key::Right, "number 2")]
    {
        page.press_here(key).await;
        tile(words).await;
        assert_eq!(page.run("return document.activeElement.title").await, words);
        few().await;
    }
    // A tile that is scrolled away is come back to.
    page.run("scrollTo(0, document.documentElement.scrollHeight)").await;
    tile("number 2000").await;
    page.press_here(Key::Right).await;
    tile("number 3").await;
    assert_eq!(page.run("return document.activeElement.title").await, "number 3");
    page.type_into("#gallery-search", "1999").await;
    page.wait_for_tiles(1).await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sentence_outlives_a_reload() {
    let server = Server::start().await;
    let page = with_sentence(&server, STEPS, Where::Cpu).await;
    page.type_into("#negative", "rain").await;
    // It is kept when there is a pause.
    tokio::time::sleep(Duration::from_millis(800)).await;
    page.reload().await;
    page.wait_for_pictures(1).await;
    assert_eq!(page.sentence().await, "a <i> on the beach");
    assert_eq!((page.value("#seed").await, page.value("#negative").await), (SEED.to_string(), "rain".into()));
    assert_eq!(page.value("#steps").await, STEPS.to_string());
    page.type_into("#negative", "").await;
    let psnr = page.generate(PATIENCE).await.psnr(&expected(SEED, STEPS));
    assert!(psnr >= SAME_PICTURE, "{psnr:.1} dB");
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_outlives_a_reload() {
    let server = Server::start().await;
    for place in [Where::Cpu, Where::Server] {
        let page = with_sentence(&server, MANY_STEPS, place).await;
        page.start().await;
        page.wait_for_step(20, PATIENCE).await;
        page.reload_at_once().await;
        page.wait_for_state("running", PATIENCE).await;
        // Another tab has its own work.
        let first = page.new_tab(&server.address("/")).await;
        page.wait_for_state("ready", PATIENCE).await;
        page.back_to(first).await;
        page.wait_for_state("done", PATIENCE).await;
        let psnr = page.picture().await.psnr(&expected(SEED, MANY_STEPS));
        assert!(psnr >= SAME_PICTURE, "{place:?}: {psnr:.1} dB");
        page.wait_for_kept(1).await;
        page.close().await;
    }
}

/// A pause after which the sentence is kept, and what closed tabs have left is tidied.
const PAUSE: Duration = Duration::from_millis(1500);

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicated_tab_has_the_pictures_too() {
    let server = Server::start().await;
    let page = with_sentence(&server, STEPS, Where::Cpu).await;
    let names = page.picture_names().await;
    tokio::time::sleep(PAUSE).await;
    page.duplicate().await;
    for _ in 0..2 {
        page.wait_for_pictures(1).await;
        assert_eq!((page.sentence().await.as_str(), page.picture_names().await), ("a <i> on the beach", names.clone()));
        tokio::time::sleep(PAUSE).await;
        page.reload().await;
    }
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_tab_goes_on_with_what_a_closed_one_has_left() {
    let server = Server::start().await;
    let page = with_sentence(&server, MANY_STEPS, Where::Cpu).await;
    let names = page.picture_names().await;
    // What an open one is at is its own.
    let first = page.new_tab(&server.address("/")).await;
    page.wait_for_pictures(1).await;
    assert_ne!(page.picture_names().await, names);
    page.back_to(first).await;
    page.start().await;
    page.wait_for_step(20, PATIENCE).await;
    page.close_tab().await;
    tokio::time::sleep(PAUSE).await;

    page.new_tab(&server.address("/")).await;
    page.wait_for("#prompt .chip[title='creature']").await;
    assert_eq!((page.sentence().await.as_str(), page.picture_names().await), ("a <i> on the beach", names.clone()));
    page.wait_for_state("done", PATIENCE).await;
    let psnr = page.picture().await.psnr(&expected(SEED, MANY_STEPS));
    assert!(psnr >= SAME_PICTURE, "{psnr:.1} dB");

    page.new_tab(&server.address("/")).await;
    page.wait_for_pictures(1).await;
    assert_ne!(page.picture_names().await, names, "one of them goes on with it");
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tab_that_is_used_for_long_keeps_its_pictures() {
    let server = Server::start().await;
    let page = Page::launch().await;
    page.run_first("sessionStorage.tab ??= `${(Date.now() - 20 * 864e5).toString(16)}-1`").await;
    page.visit(&server.address("/")).await;
    page.write_sentence(SEED, STEPS).await;
    let names = page.picture_names().await;
    tokio::time::sleep(PAUSE).await;

    // Its page was closed when another tab tidies.
    page.run("location.href = 'about:blank'").await;
    let first = page.new_tab(&server.address("/")).await;
    tokio::time::sleep(PAUSE).await;
    let other = page.new_tab(&server.address("/")).await;
    page.back_to(first.clone()).await;
    page.visit(&server.address("/")).await;
    page.wait_for_text("#prompt", "on the beach").await;
    assert_eq!(page.picture_names().await, names);

    // It has been open ever since.
    page.back_to(other).await;
    page.run_first("const { now } = Date; Date.now = () => now() + 20 * 864e5").await;
    page.reload().await;
    tokio::time::sleep(PAUSE).await;
    page.back_to(first).await;
    page.reload().await;
    page.wait_for_text("#prompt", "on the beach").await;
    assert_eq!(page.picture_names().await, names);
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sentence_that_there_is_no_room_for_is_told_and_kept_later() {
    let server = Server::start().await;
    let page = Page::launch().await;
    page.run_first(
        "const { open } = IDBFactory.prototype;
         IDBFactory.prototype.open = function (...named) {
           const request = open.apply(this, named);
           request.addEventListener('success', () => { window.database = request.result });
           return request;
         }",
    )
    .await;
    page.limit_storage(&server.address(""), Some(1)).await;
    page.visit(&server.address("/")).await;
    page.write_sentence(SEED, STEPS).await;
    let names = page.picture_names().await;
    page.wait_for_text("#gallery-trouble", "there is no room").await;
    page.limit_storage(&server.address(""), None).await;
    // As the browser does when its disk fails; the page opens it again.
    page.run("database.close()").await;
    page.click("#count-2").await;
    tokio::time::sleep(PAUSE).await;
    page.reload().await;
    page.wait_for_text("#prompt", "on the beach").await;
    assert_eq!(page.picture_names().await, names);
    page.close().await;
}
