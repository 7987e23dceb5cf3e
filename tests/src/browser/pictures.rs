//! Pictures of the sentence: the clipboard, and the dialog in which they are changed.

use std::time::Duration;

use serde_json::{Value, json};
use thirtyfour::prelude::*;

use super::page::{Page, SHORT};

/// Drops a file on an element at a point of the window, as another program's.
const DROP_FILE: &str = "function drop([name, bytes], target, x, y) {
    const data = new DataTransfer();
    data.items.add(new File([new Uint8Array(bytes)], name, { type: 'image/png' }));
    const at = { bubbles: true, cancelable: true, dataTransfer: data, clientX: x, clientY: y };
    for (const kind of ['dragover', 'drop']) target.dispatchEvent(new DragEvent(kind, at));
}
";

impl Page {
    /// Pastes texts by their types, and files by name and contents, as another program would have copied them.
    pub async fn paste(&self, texts: &[(&str, &str)], files: &[(&str, &[u8])]) {
        self.focus("#prompt").await;
        self.paste_into("#prompt", texts, files).await;
    }

    /// The same where a selector finds something first.
    pub async fn paste_into(&self, css: &str, texts: &[(&str, &str)], files: &[(&str, &[u8])]) {
        let paste = "const data = new DataTransfer();
            for (const [kind, text] of arguments[0]) data.setData(kind, text);
            for (const [name, bytes] of arguments[1]) {
                data.items.add(new File([new Uint8Array(bytes)], name, { type: 'image/png' }));
            }
            const paste = { clipboardData: data, bubbles: true, cancelable: true };
            document.querySelector(arguments[2]).dispatchEvent(new ClipboardEvent('paste', paste));";
        self.script(paste, vec![json!(texts), json!(files), json!(css)]).await;
    }

    /// Copies the whole sentence and returns what is on the clipboard then, by type.
    pub async fn copy_all(&self) -> Vec<(String, String)> {
        let copy = "const prompt = document.querySelector('#prompt');
            prompt.focus();
            getSelection().selectAllChildren(prompt);
            const data = new DataTransfer();
            prompt.dispatchEvent(new ClipboardEvent('copy', { clipboardData: data, bubbles: true, cancelable: true }));
            return [...data.types].map(kind => [kind, data.getData(kind)])";
        serde_json::from_value(self.script(copy, vec![]).await).unwrap()
    }

    /// Selects the whole sentence and deletes it.
    pub async fn empty_sentence(&self) {
        let prompt = self.driver.find(By::Css("#prompt")).await.unwrap();
        prompt.click().await.unwrap();
        prompt.send_keys(Key::Control + "a").await.unwrap();
        prompt.send_keys(Key::Delete + "").await.unwrap();
        self.wait_for_pictures(0).await;
    }

    /// Presses keys wherever the focus is.
    pub async fn press_there(&self, keys: &str) {
        self.driver.action_chain().send_keys(keys).perform().await.unwrap();
    }

    /// Selects one unit more to the right, wherever the caret is.
    pub async fn select_next(&self) {
        let right = Key::Right.value().to_string();
        let chain = self.driver.action_chain().key_down(Key::Shift).send_keys(right).key_up(Key::Shift);
        chain.perform().await.unwrap();
    }

    /// Takes the last change back with the keyboard, wherever the focus is.
    pub async fn undo_there(&self) {
        let chain = self.driver.action_chain().key_down(Key::Control).send_keys("z").key_up(Key::Control);
        chain.perform().await.unwrap();
    }

    /// The id of what has the focus.
    pub async fn focused(&self) -> String {
        let id = self.script("return document.activeElement?.id ?? ''", vec![]).await;
        id.as_str().unwrap_or_default().to_owned()
    }

    /// Brings the focus to what a selector finds.
    pub async fn focus(&self, css: &str) {
        self.script("document.querySelector(arguments[0]).focus()", vec![json!(css)]).await;
    }

    /// The names of the sentence's pictures.
    pub async fn picture_names(&self) -> Vec<String> {
        let names = "return [...document.querySelectorAll('#prompt .chip')].map(chip => chip.title)";
        serde_json::from_value(self.script(names, vec![]).await).unwrap()
    }

    /// Width, height, and a pixel of the sentence's picture with that number, as it is shown; the pixel's place is in
    /// shares of width and height.
    pub async fn picture_pixel(&self, number: usize, x: f64, y: f64) -> (u64, u64, [u8; 3]) {
        let script = "const done = arguments[arguments.length - 1];
            const image = document.querySelectorAll('#prompt .chip img')[arguments[0]];
            image.decode().then(() => {
                const canvas = document.createElement('canvas');
                [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
                const context = canvas.getContext('2d');
                context.drawImage(image, 0, 0);
                const at = [Math.floor(arguments[1] * canvas.width), Math.floor(arguments[2] * canvas.height)];
                done([canvas.width, canvas.height, [...context.getImageData(...at, 1, 1).data].slice(0, 3)]);
            })";
        let read = self.driver.execute_async(script, vec![json!(number), json!(x), json!(y)]).await.unwrap();
        serde_json::from_value(read.json().clone()).unwrap()
    }

    /// Waits until the dialog for pictures is open, or closed.
    pub async fn wait_for_retouch(&self, is_open: bool) {
        let open = "return document.querySelector('#retouch').open";
        let is_so = || async { self.script(open, vec![]).await == Value::Bool(is_open) };
        self.wait_until(&format!("the dialog is open: {is_open}"), SHORT, is_so).await;
        // What follows is done when the browser comes to it.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    /// Whether the address of a picture still leads to its bytes.
    pub async fn leads_somewhere(&self, address: &str) -> bool {
        let script = "const done = arguments[arguments.length - 1];
            fetch(arguments[0]).then(() => done(true), () => done(false))";
        self.driver.execute_async(script, vec![json!(address)]).await.unwrap().json() == &json!(true)
    }

    /// The addresses of the sentence's pictures.
    pub async fn picture_addresses(&self) -> Vec<String> {
        let addresses = "return [...document.querySelectorAll('#prompt .chip img')].map(image => image.src)";
        serde_json::from_value(self.script(addresses, vec![]).await).unwrap()
    }

    /// Whether an element can be seen and used.
    pub async fn is_usable(&self, css: &str) -> bool {
        let usable = "const element = document.querySelector(arguments[0]);
            return !element.disabled && element.checkVisibility()";
        self.script(usable, vec![json!(css)]).await == json!(true)
    }

    /// Clicks with the mouse what a selector finds first.
    pub async fn click_with_mouse(&self, css: &str) {
        self.driver.find(By::Css(css)).await.unwrap().click().await.unwrap();
    }

    /// Drops a file onto what a selector finds first.
    pub async fn drop_onto(&self, css: &str, name: &str, bytes: &[u8]) {
        let script = "const target = document.querySelector(arguments[1]);
            const box = target.getBoundingClientRect();
            drop(arguments[0], target, box.left + box.width / 2, box.top + box.height / 2)";
        self.script(&[DROP_FILE, script].concat(), vec![json!((name, bytes)), json!(css)]).await;
    }

    /// Drops a file before a letter of the sentence's first words.
    pub async fn drop_at_letter(&self, letter: usize, name: &str, bytes: &[u8]) {
        let script = "const prompt = document.querySelector('#prompt');
            const words = [...prompt.childNodes].find(node => node.nodeType === Node.TEXT_NODE);
            const range = document.createRange();
            range.setStart(words, arguments[1]);
            range.setEnd(words, arguments[1] + 1);
            const box = range.getBoundingClientRect();
            drop(arguments[0], prompt, box.left + 1, box.top + box.height / 2)";
        self.script(&[DROP_FILE, script].concat(), vec![json!((name, bytes)), json!(letter)]).await;
    }

    /// Chooses a file in a field, as its dialog would.
    pub async fn choose_file(&self, css: &str, name: &str, bytes: &[u8]) {
        let script = "const [css, [name, bytes]] = arguments;
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], name, { type: 'image/png' }));
            const field = document.querySelector(css);
            field.files = data.files;
            field.dispatchEvent(new Event('change', { bubbles: true }))";
        self.script(script, vec![json!(css), json!((name, bytes))]).await;
    }

    /// Opens a link that brings this recipe.
    pub async fn open_recipe(&self, recipe: &Value) {
        let script = "const [recipe, done] = arguments;
            const deflated = new Blob([JSON.stringify(recipe)]).stream().pipeThrough(new CompressionStream('deflate-raw'));
            new Response(deflated).arrayBuffer().then(buffer => {
                const text = btoa(String.fromCharCode(...new Uint8Array(buffer)));
                location.hash = 'recipe=' + text.replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
                done();
            })";
        self.driver.execute_async(script, vec![recipe.clone()]).await.unwrap();
    }

    /// Waits until the sentence's pictures have these names.
    pub async fn wait_for_names(&self, names: &[&str]) {
        self.wait_until(&format!("{names:?}"), SHORT, || async { self.picture_names().await == names }).await;
    }
}
