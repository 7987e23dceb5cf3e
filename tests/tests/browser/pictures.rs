//! The sentence's pictures: changed, drawn, copied, pasted, and how many there may be.

use kosmosg::picture::Picture;
use std::time::Duration;

use kosmosg_tests::browser::{Page, Where};
use kosmosg_tests::server::Server;
use serde_json::json;
use thirtyfour::Key;

const RED: [u8; 3] = [200, 40, 30];
const SKY: [u8; 3] = [120, 170, 190];
const WHITE: [u8; 3] = [255; 3];

/// A red square in the middle of a wide picture of the sky.
fn wide() -> Vec<u8> {
    let is_thing = |x: u32, y: u32| (50..70).contains(&x) && (20..40).contains(&y);
    let pixels = (0..60).flat_map(|y| (0..120).flat_map(move |x| if is_thing(x, y) { RED } else { SKY }));
    Picture::new(120, 60, pixels.collect()).unwrap().to_png(None)
}

/// A picture of one colour.
fn plain(colour: [u8; 3]) -> Vec<u8> {
    Picture::new(8, 8, colour.repeat(64)).unwrap().to_png(None)
}

/// A page whose sentence is the wide picture.
async fn open(server: &Server) -> Page {
    let page = Page::open(&server.address("/")).await;
    page.wait_for_pictures(1).await;
    page.empty_sentence().await;
    page.pick(&wide(), "sky.png").await;
    page.wait_for_pictures(1).await;
    page
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_is_framed_cut_out_and_renamed_and_undo_brings_it_back() {
    let server = Server::start().await;
    let page = open(&server).await;
    // With the keyboard alone: select it, change it.
    page.press("#prompt", &[Key::Home]).await;
    page.focus("#prompt").await;
    page.select_next().await;
    page.wait_for_text("#told", "Sky is selected").await;
    assert!(page.is_usable("#chip-change").await);
    page.press_there(&Key::Enter.value().to_string()).await;
    page.wait_for_retouch(true).await;
    assert_eq!(page.focused().await, "retouch-view");
    page.click("#retouch-whole").await;
    page.click("[name=retouch-tab][value=cut]").await;
    page.click("#retouch-edge").await;
    page.click("#retouch-mirror").await;
    page.type_into("#retouch-name", "a red square").await;
    page.click("#retouch-done").await;
    page.wait_for_retouch(false).await;
    assert_eq!(page.focused().await, "prompt");
    assert_eq!(page.picture_names().await, ["a red square"]);
    // The whole of it is a square now, the background white.
    assert_eq!(page.picture_pixel(0, 0.5, 0.5).await, (120, 120, RED));
    assert_eq!(page.picture_pixel(0, 0.1, 0.5).await.2, WHITE);

    page.focus("#generate").await;
    page.undo_there().await;
    assert_eq!(page.picture_names().await, ["sky"]);
    assert_eq!(page.picture_pixel(0, 0.1, 0.5).await, (120, 60, SKY));
    assert!(page.is_usable("#redo").await);
    page.click("#redo").await;
    assert_eq!(page.picture_names().await, ["a red square"]);
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_name_leaves_the_file_as_it_is() {
    let server = Server::start().await;
    let page = open(&server).await;
    page.double_click("#prompt .chip").await;
    page.wait_for_retouch(true).await;
    page.type_into("#retouch-name", "evening").await;
    page.press("#retouch-name", &[Key::Enter]).await;
    page.wait_for_retouch(false).await;
    assert_eq!(page.picture_names().await, ["evening"]);
    assert_eq!(page.picture_pixel(0, 0.5, 0.5).await, (120, 60, RED));
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_can_be_drawn_with_the_keyboard() {
    let server = Server::start().await;
    let page = open(&server).await;
    page.click("#draw").await;
    page.wait_for_retouch(true).await;
    // The brush goes down in the middle, and to the right.
    page.focus("#retouch-view").await;
    page.press_there(" ").await;
    for _ in 0..5 {
        page.press_there(&Key::Right.value().to_string()).await;
    }
    page.press_there(" ").await;
    page.click("#retouch-done").await;
    page.wait_for_retouch(false).await;
    page.wait_for_pictures(2).await;
    assert_eq!(page.picture_names().await, ["sky", "my drawing"]);
    let (width, height, ink) = page.picture_pixel(1, 0.55, 0.5).await;
    assert_eq!((width, height), (512, 512));
    assert!(ink.iter().all(|&value| value < 60), "{ink:?}");
    assert_eq!(page.picture_pixel(1, 0.2, 0.2).await.2, WHITE);

    // White paper is no picture.
    page.click("#draw").await;
    page.wait_for_retouch(true).await;
    page.click("#retouch-done").await;
    page.wait_for_retouch(false).await;
    page.wait_for_pictures(2).await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_sentence_has_its_pictures_also_in_another_visit() {
    let server = Server::start().await;
    let page = open(&server).await;
    page.press("#prompt", &[Key::End]).await;
    page.press_there(" & <b>sea</b>").await;
    let copied = page.copy_all().await;
    page.reload().await;
    page.wait_for_pictures(1).await;
    for kinds in [&["application/x-kosmosg-prompt", "text/html", "text/plain"][..], &["text/html", "text/plain"]] {
        page.empty_sentence().await;
        let texts: Vec<(&str, &str)> = copied.iter().map(|(kind, text)| (kind.as_str(), text.as_str())).collect();
        let texts: Vec<_> = texts.into_iter().filter(|(kind, _)| kinds.contains(kind)).collect();
        assert_eq!(texts.len(), kinds.len());
        page.paste(&texts, &[]).await;
        page.wait_for_pictures(1).await;
        assert_eq!(page.sentence().await, "<i> & <b>sea</b>");
        assert_eq!(page.picture_names().await, ["sky"]);
        assert_eq!(page.picture_pixel(0, 0.5, 0.5).await, (120, 60, RED));
    }
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_other_programs_copy_is_taken_as_it_is_meant() {
    let server = Server::start().await;
    let page = open(&server).await;
    page.empty_sentence().await;
    let image = plain(RED);
    // An office program brings an image of the words.
    page.paste(&[("text/plain", "words of a table"), ("text/html", "<b>words</b>")], &[("image.png", &image)]).await;
    assert_eq!(page.sentence().await, "words of a table");
    page.empty_sentence().await;
    // A browser brings the address of the image.
    page.paste(&[("text/html", "<img src='https://example.org/a.png'>")], &[("image.png", &image)]).await;
    page.wait_for_pictures(1).await;
    page.empty_sentence().await;
    page.paste(&[("text/html", "<img src='https://example.org/a.png'>")], &[]).await;
    page.wait_for_text("#notice", "lies on another page").await;
    page.wait_for_pictures(0).await;

    // What is pasted nowhere is meant for the sentence; what is pasted into a field is not.
    page.focus("#generate").await;
    page.paste_into("#generate", &[], &[("red.png", &image)]).await;
    page.wait_for_names(&["red"]).await;
    page.paste_into("#negative", &[("text/plain", "dark")], &[]).await;
    page.click("#draw").await;
    page.wait_for_retouch(true).await;
    page.paste_into("body", &[], &[("red.png", &image)]).await;
    page.click("#retouch-cancel").await;
    page.wait_for_retouch(false).await;
    assert_eq!(page.sentence().await, "<i>");

    // An input method ends its work first.
    let compose = "const prompt = document.querySelector('#prompt');
        prompt.dispatchEvent(new CompositionEvent('compositionstart', { bubbles: true }));
        prompt.append(' runs')";
    let end =
        "document.querySelector('#prompt').dispatchEvent(new CompositionEvent('compositionend', { bubbles: true }))";
    page.run(compose).await;
    page.click_with_mouse(".creature").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(page.sentence().await, "<i> runs");
    page.run(end).await;
    page.wait_for_pictures(2).await;
    page.run(compose).await;
    page.click("#generate").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_ne!(page.attribute("#app", "data-state").await, "running");
    page.run(end).await;
    page.wait_for("#app:is([data-state=running], [data-state=done])").await;
    assert!(page.sentence().await.ends_with(" runs"), "{}", page.sentence().await);
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_pictures_are_enough_and_the_eleventh_changes_nothing() {
    let server = Server::start().await;
    let page = open(&server).await;
    let pictures: Vec<Vec<u8>> = (0..12).map(|shade| plain([20 * shade, 90, 90])).collect();
    let files: Vec<(&str, &[u8])> = pictures.iter().map(|picture| ("colour.png", picture.as_slice())).collect();
    page.run(
        "const { createObjectURL: make, revokeObjectURL: drop } = URL; window.held = 0;
         URL.createObjectURL = blob => { held += 1; return make.call(URL, blob) };
         URL.revokeObjectURL = address => { held -= 1; drop.call(URL, address) }",
    )
    .await;
    page.paste(&[], &files).await;
    page.wait_for_pictures(10).await;
    page.wait_for_text("#notice", "10 pictures at most").await;
    assert_eq!(page.run("return held").await, 9, "what is left out is let go of");
    let sentence = page.sentence().await;
    // What there is no room for is not begun.
    page.run("document.querySelector('#notice').hidden = true").await;
    page.click("#draw").await;
    page.wait_for_text("#notice", "10 pictures at most").await;
    page.wait_for_retouch(false).await;
    assert_eq!(page.sentence().await, sentence);

    // Where the room went in the meantime, a drawing stays where it is.
    page.press("#prompt", &[Key::End, Key::Backspace]).await;
    page.wait_for_pictures(9).await;
    page.click("#draw").await;
    page.wait_for_retouch(true).await;
    page.press_there(" ").await;
    page.choose_file("#files", "late.png", &plain(RED)).await;
    page.wait_for_pictures(10).await;
    page.click("#retouch-done").await;
    page.wait_for_text("#retouch-notice", "10 pictures at most").await;
    assert_eq!(page.run("return held").await, 10);
    assert!(page.is_usable("#retouch-undo").await);
    let leave = "const leave = new Event('beforeunload', { cancelable: true }); dispatchEvent(leave);
        return leave.defaultPrevented";
    assert_eq!(page.run(leave).await, true, "who leaves the page is asked");
    page.run("window.confirm = () => true").await;
    page.click("#retouch-cancel").await;
    page.wait_for_retouch(false).await;
    assert_eq!(page.run(leave).await, false);
    // All nine came at once, and go at once.
    for pictures in [9, 10, 1] {
        page.undo("#prompt").await;
        page.wait_for_pictures(pictures).await;
    }
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_that_nothing_brings_back_is_let_go_of() {
    let server = Server::start().await;
    let page = open(&server).await;
    page.paste(&[], &[("red.png", &plain(RED))]).await;
    page.wait_for_pictures(2).await;
    let addresses = page.picture_addresses().await;
    page.undo("#prompt").await;
    page.wait_for_pictures(1).await;
    assert!(page.leads_somewhere(&addresses[1]).await, "redo would bring it back");
    page.press("#prompt", &[Key::End]).await;
    page.press_there("!").await;
    assert!(!page.leads_somewhere(&addresses[1]).await);
    assert!(page.leads_somewhere(&addresses[0]).await);
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn words_from_right_to_left_have_pictures_too() {
    let server = Server::start().await;
    let page = open(&server).await;
    page.empty_sentence().await;
    page.press("#prompt", &[Key::End]).await;
    page.press_there("חתול ").await;
    page.pick(&plain(RED), "red.png").await;
    page.wait_for_pictures(1).await;
    // From the right to the left over the word, its space and the picture; then the picture is taken out.
    page.press("#prompt", &[Key::Home]).await;
    page.focus("#prompt").await;
    for _ in 0..6 {
        page.press_there(&Key::Left.value().to_string()).await;
    }
    page.press_there(&Key::Backspace.value().to_string()).await;
    page.wait_for_pictures(0).await;
    assert_eq!(page.sentence().await, "חתול ");
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drawing_is_not_lost_unasked() {
    let server = Server::start().await;
    let page = open(&server).await;
    page.click("#draw").await;
    page.wait_for_retouch(true).await;
    page.focus("#retouch-view").await;
    page.press_there(&format!(" {} ", Key::Right.value())).await;
    page.run("window.asked = 0; window.confirm = () => { window.asked += 1; return window.asked > 4 }").await;
    let escape = Key::Escape.value().to_string();
    for times in 1..=3 {
        page.press_there(&escape).await;
        page.wait_for_retouch(true).await;
        assert!(page.is_usable("#retouch-undo").await);
        assert_eq!(page.run("return window.asked").await, times);
        // What is pressed while nothing has the focus is meant for the dialog too.
        page.run("document.activeElement.blur()").await;
    }
    // As a phone's way back does it the second time.
    page.run("document.querySelector('#retouch').close()").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    page.wait_for_retouch(true).await;
    assert!(page.is_usable("#retouch-undo").await);
    assert_eq!(page.run("return window.asked").await, 4);
    page.press_there(&escape).await;
    page.wait_for_retouch(false).await;
    assert_eq!(page.picture_names().await, ["sky"]);
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_that_did_not_come_along_is_replaced_where_it_stands() {
    let server = Server::start().await;
    let page = open(&server).await;
    let place = json!({ "image": { "picture": 0, "name": "sea" } });
    let prompt = json!([{ "text": "a " }, place, { "text": " here" }]);
    page.open_recipe(&json!({ "version": 1, "prompt": prompt, "pictures": ["missing"], "dials": {} })).await;
    page.wait_for_text("#notice", "did not come along").await;
    page.wait_for_names(&["missing: sea"]).await;

    page.run("HTMLInputElement.prototype.click = function () { window.chooser = this.id }").await;
    page.click_with_mouse("#prompt .chip").await;
    page.wait_for("#chip-change").await;
    page.click("#chip-change").await;
    assert_eq!(page.run("return window.chooser").await, "retouch-file");
    page.choose_file("#retouch-file", "red.png", &plain(RED)).await;
    page.wait_for_names(&["red"]).await;
    assert_eq!((page.sentence().await.as_str(), page.focused().await.as_str()), ("a <i> here", "prompt"));

    page.undo_there().await;
    page.wait_for_names(&["missing: sea"]).await;
    page.drop_onto("#prompt .chip", "sky.png", &plain(SKY)).await;
    page.wait_for_names(&["sky"]).await;
    assert_eq!(page.sentence().await, "a <i> here");
    // The dialog of a picture that is there opens, and its chooser is its own again.
    page.double_click("#prompt .chip").await;
    page.wait_for_retouch(true).await;
    page.choose_file("#retouch-file", "red.png", &plain(RED)).await;
    page.wait_for("#retouch-undo:enabled").await;
    page.click("#retouch-done").await;
    page.wait_for_retouch(false).await;
    page.wait_for_names(&["red"]).await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_typed_after_a_click_on_a_creature_comes_behind_it() {
    let server = Server::start().await;
    let page = Page::launch().await;
    // The creatures' files are as slow as a network may be.
    page.run_first(
        "const [real, held] = [window.fetch, []];
        let isHeld = true;
        window.release = () => { isHeld = false; held.splice(0).forEach(go => go()); };
        window.fetch = (address, ...rest) => isHeld && /creatures\\/.*png$/.test(address)
            ? new Promise(go => held.push(go)).then(() => real(address, ...rest)) : real(address, ...rest)",
    )
    .await;
    page.visit(&server.address("/")).await;
    page.wait_for(".creature").await;
    page.type_keys("#prompt", "a ").await;
    page.click_with_mouse(".creature:nth-of-type(1)").await;
    assert_eq!(page.focused().await, "prompt");
    page.press_there(" and a ").await;
    page.click_with_mouse(".creature:nth-of-type(2)").await;
    page.press_there(" run").await;
    assert_eq!(page.sentence().await, "a  and a  run");
    page.run("release()").await;
    page.wait_for_pictures(2).await;
    page.press_there("!").await;
    assert_eq!(page.sentence().await, "a <i> and a <i> run!");
    let creatures = "return [...document.querySelectorAll('.creature')].slice(0, 2).map(entry => entry.title)";
    assert_eq!(json!(page.picture_names().await), page.run(creatures).await);

    // Once they are there, a creature comes at once, and the caret behind it.
    let click = "const entry = document.querySelector('.creature');
        entry.dispatchEvent(new PointerEvent('click', { pointerType: 'mouse', bubbles: true }));
        return [document.activeElement.id, document.querySelectorAll('#prompt .chip').length]";
    assert_eq!(page.run(click).await, json!(["prompt", 3]));
    page.press_there(" far").await;
    assert_eq!(page.sentence().await, "a <i> and a <i> run! <i> far");
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selected_picture_is_clicked_again() {
    let server = Server::start().await;
    let page = open(&server).await;
    page.press("#prompt", &[Key::End]).await;
    page.press_there(" here").await;
    for _ in 0..3 {
        page.click_with_mouse("#prompt .chip").await;
        // Slower than a double click.
        tokio::time::sleep(Duration::from_millis(800)).await;
        assert_eq!(page.run("return getSelection().rangeCount").await, 1);
        assert!(page.is_usable("#chip-change").await);
    }
    page.press_there("x").await;
    assert_eq!(page.sentence().await, "x here");
    // Whatever takes the caret away, typing goes on where it was.
    page.run("getSelection().removeAllRanges()").await;
    page.press_there("y").await;
    assert_eq!(page.sentence().await, "xy here");
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_come_between_words() {
    let server = Server::start().await;
    let page = open(&server).await;
    let left = Key::Left.value().to_string();
    for (letter, sentence) in [(9, "on the <i> beach"), (11, "on the beach <i>")] {
        page.empty_sentence().await;
        page.press_there("on the beach").await;
        page.drop_at_letter(letter, "red.png", &plain(RED)).await;
        page.wait_for_pictures(1).await;
        assert_eq!(page.sentence().await, sentence);
    }
    page.empty_sentence().await;
    page.press_there("on the beach").await;
    page.press_there(&left.repeat(3)).await;
    page.pick(&plain(RED), "red.png").await;
    page.wait_for_pictures(1).await;
    assert_eq!(page.sentence().await, "on the beach <i>");
    page.press("#prompt", &[Key::Home]).await;
    page.press_there(&Key::Right.value().to_string()).await;
    page.paste(&[], &[("sky.png", &plain(SKY))]).await;
    page.wait_for_names(&["sky", "red"]).await;
    assert_eq!(page.sentence().await, "on <i> the beach <i>");
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn undo_brings_a_deleted_picture_back_while_it_can() {
    let server = Server::start().await;
    let page = Page::open(&server.address("/")).await;
    page.write_sentence(11, 5).await;
    page.choose(Where::Cpu).await;
    page.generate(Duration::from_secs(120)).await;
    page.wait_for_kept(1).await;
    page.open_kept(0).await;
    page.click("#viewer-delete").await;
    page.wait_for_text("#undo-line", "The picture is deleted.").await;
    page.focus("#generate").await;
    page.undo_there().await;
    page.wait_for_kept(1).await;
    assert_eq!(page.sentence().await, "a <i> on the beach");
    // Then it is the sentence's turn.
    page.focus("#generate").await;
    page.undo_there().await;
    assert_ne!(page.sentence().await, "a <i> on the beach");
    page.wait_for_text("#told", "Undone.").await;
    page.close().await;
}
