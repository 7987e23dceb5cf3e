//! Several pictures, one after the other, and what a person does with them.

use std::time::Duration;

use kosmosg_tests::browser::{Page, Where, expected_series};
use kosmosg_tests::server::Server;
use thirtyfour::Key;

const PATIENCE: Duration = Duration::from_secs(120);
const STEPS: usize = 5;
/// So many that there is time to do something in the middle.
const MANY_STEPS: usize = 200;
const SEED: u64 = 11;
/// The page's pictures and the command line's differ less than this, in dB of PSNR.
const SAME_PICTURE: f64 = 40.0;

async fn with_sentence(server: &Server, steps: usize) -> Page {
    let page = Page::open(&server.address("/")).await;
    page.write_sentence(SEED, steps).await;
    page.choose(Where::Cpu).await;
    page
}

#[tokio::test(flavor = "multi_thread")]
async fn several_pictures_are_those_of_the_command_line() {
    let server = Server::start().await;
    let expected = expected_series(SEED, STEPS, 2);
    let page = with_sentence(&server, STEPS).await;
    page.click("#count-2").await;
    assert_eq!(page.text("#generate").await, "Make 2 pictures");
    for (place, first) in [(Where::Cpu, 1), (Where::Server, 3)] {
        page.choose(place).await;
        // A seed that was typed is kept.
        page.generate(PATIENCE).await;
        for (number, expected) in (first..).zip(&expected) {
            page.look_at(number).await;
            let psnr = page.picture().await.psnr(expected);
            assert!(psnr >= SAME_PICTURE, "{place:?}, picture {number}: {psnr:.1} dB");
        }
    }
    let name = page.attribute("#save", "download").await;
    assert_eq!(name, format!("kosmos-{SEED}-1.png"), "what is looked at is saved");
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_ordered_meanwhile_is_made_next() {
    let server = Server::start().await;
    let page = with_sentence(&server, MANY_STEPS).await;
    page.start().await;
    page.set_steps(STEPS).await;
    page.click("#generate").await;
    page.press("#prompt", &[Key::Enter]).await;
    page.click("#generate").await;
    assert_eq!(page.orders_in_line().await, 3);
    page.click("#queue-list li:last-child button").await;
    assert_eq!(page.orders_in_line().await, 2);
    // Only the one that is being made.
    page.click("#cancel").await;
    page.wait_for_state("done", PATIENCE).await;
    assert_eq!((page.orders_in_line().await, page.results().await), (0, vec![2, 1]));
    page.set_steps(MANY_STEPS).await;
    page.start().await;
    page.click("#generate").await;
    page.click("#cancel-all").await;
    page.wait_for_state("ready", PATIENCE).await;
    assert_eq!((page.orders_in_line().await, page.results().await), (0, vec![2, 1]));
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_fails_keeps_those_that_wait() {
    let mut server = Server::start().await;
    let page = Page::open(&server.address("/?fail-at-step=20")).await;
    page.write_sentence(SEED, MANY_STEPS).await;
    page.choose(Where::Cpu).await;
    server.stop();
    page.start().await;
    page.set_steps(STEPS).await;
    page.click("#generate").await;
    page.wait_for_state("failed", PATIENCE).await;
    page.focus("#generate").await;
    page.press_here(Key::Escape).await;
    assert_eq!((page.orders_in_line().await, page.attribute("#app", "data-state").await.as_str()), (1, "failed"));
    page.click("#leave-out").await;
    page.wait_for_state("done", PATIENCE).await;
    assert_eq!((page.orders_in_line().await, page.results().await), (0, vec![1]));
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pictures_of_a_visit_can_be_gone_through_and_compared() {
    let server = Server::start().await;
    let page = with_sentence(&server, STEPS).await;
    page.click("#count-3").await;
    page.generate(PATIENCE).await;
    assert_eq!(page.results().await, [3, 2, 1]);
    let newest = page.picture().await;
    page.press("#results [aria-current]", &[Key::Right]).await;
    assert_eq!(page.looked_at().await, Some(2));
    assert!(page.picture().await.psnr(&newest) < SAME_PICTURE, "it is another picture");

    let place = page.property("#keep", "offsetTop").await;
    page.click("#compare").await;
    assert_eq!(page.property("#keep", "offsetTop").await, place, "nothing else comes under the pointer");
    page.look_at(3).await;
    page.wait_for_text("#compare-line", "Left: picture 2. Right: picture 3.").await;
    page.press_here(Key::Right).await;
    assert_eq!(page.property("#cut", "value").await, "51");
    page.press_here(Key::Escape).await;
    assert_eq!((page.text("#compare-line").await.as_str(), page.focused().await.as_str()), ("", "compare"));

    // The same noise, another sentence.
    page.click("#same-seed").await;
    page.wait_for_state("done", PATIENCE).await;
    let psnr = page.picture().await.psnr(&expected_series(SEED, STEPS, 2)[1]);
    assert!(psnr >= SAME_PICTURE, "{psnr:.1} dB");
    // The button goes while a picture is being made.
    page.set_steps(MANY_STEPS).await;
    page.focus("#same-seed").await;
    page.press_here(Key::Enter).await;
    page.wait_for_state("running", PATIENCE).await;
    assert_eq!(page.focused().await, "cancel");
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grid_is_shown_with_its_labels() {
    let server = Server::start().await;
    let page = with_sentence(&server, STEPS).await;
    page.type_into("#columns", "steps").await;
    page.type_into("#columns-values", "3, 5").await;
    page.type_into("#rows", "guidance").await;
    page.type_into("#rows-values", "2, 20").await;
    page.click("#make-grid").await;
    assert_eq!(page.property("#grid-notice", "textContent").await, "Guidance cannot be 20.");
    page.type_into("#rows-values", "2, 4").await;
    page.click("#make-grid").await;
    page.wait_for_state("running", PATIENCE).await;
    page.wait_for_state("done", PATIENCE).await;
    let table = page.text("#sheet-table").await;
    for label in ["steps 3", "steps 5", "guidance 2", "guidance 4"] {
        assert!(table.contains(label), "{table}");
    }
    // The sentence was written for these settings.
    page.click("#sheet-table [data-cell='3']").await;
    let psnr = page.picture().await.psnr(&expected_series(SEED, STEPS, 1)[0]);
    assert!(psnr >= SAME_PICTURE, "{psnr:.1} dB");
    assert_eq!(page.attribute("#save-sheet", "hidden").await, "null");
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn words_that_the_model_does_not_know_are_told_before_a_picture_is_made() {
    let server = Server::start().await;
    let page = with_sentence(&server, STEPS).await;
    page.wait_for_text("#reading-line", "of 254 tokens").await;
    page.press("#prompt", &[Key::End]).await;
    page.type_on(" beside a dragonfly").await;
    page.wait_for_text("#unknown", "The model does not know “dragonfly”.").await;
    page.type_on(&" red".repeat(260)).await;
    page.wait_for_text("#unknown", "Too long").await;
    page.click("#generate").await;
    page.wait_for_text("#notice", "Take out words or pictures.").await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_place_is_greyed_out_can_be_read() {
    let mut server = Server::start().await;
    let page = Page::open(&server.address("/")).await;
    page.wait_until_kept(PATIENCE).await;
    server.stop();
    page.reload().await;
    page.wait_for_text("#refusals", "Why are some greyed out?").await;
    page.click("#refusals summary").await;
    page.wait_for_text("#refusal-list", "Server: This page came without a server, or").await;
    page.click("#where-change").await;
    assert_eq!(page.focused().await, "where-auto");
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_later_is_found_and_chosen_again() {
    let arguments = ["--store", "memory"];
    let mut server = Server::with(&arguments).await;
    let page = Page::open(&server.address("/")).await;
    page.wait_until_kept(PATIENCE).await;
    page.choose(Where::Server).await;
    for is_online in [true, false] {
        server.stop();
        page.reload().await;
        page.wait_for("label:has(#where-auto:checked)").await;
        assert!(!page.offers(Where::Server).await);
        server = server.again(&arguments).await;
        if is_online {
            page.run("dispatchEvent(new Event('online'))").await;
        } else {
            page.run("document.dispatchEvent(new Event('visibilitychange'))").await;
        }
        page.wait_for("label:has(#where-server:checked:enabled)").await;
    }
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn escape_in_a_field_is_not_meant_for_the_picture() {
    let server = Server::start().await;
    let page = with_sentence(&server, MANY_STEPS).await;
    page.start().await;
    for field in ["#seed", "#count-1"] {
        page.focus(field).await;
        page.press_here(Key::Escape).await;
        assert_eq!(page.attribute("#app", "data-state").await, "running", "{field}");
    }
    // Nor at a picture of the sentence, the first time.
    page.click_with_mouse("#prompt .chip").await;
    page.wait_for("#chip-tools").await;
    page.press_here(Key::Escape).await;
    assert_eq!(page.attribute("#app", "data-state").await, "running");
    page.wait_for("body:has(#chip-tools[hidden])").await;
    page.press_here(Key::Escape).await;
    page.wait_for_state("ready", PATIENCE).await;
    page.close().await;
}
