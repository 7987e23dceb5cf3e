//! The page as a person uses it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use kosmosg::noise::Rng;
use kosmosg::picture::Picture;
use kosmosg_models::sprites::{Creature, Split, portrait};
use serde_json::{Value, json};
use thirtyfour::WindowHandle;
use thirtyfour::prelude::*;

use super::dist;
use crate::server::free_port;

const CREATURE: u64 = 5;
const GUIDANCE: f64 = 4.0;

/// Drops data behind the sentence's last letter; `from` is what of the page is dragged, if it is.
const DROP: &str = "function drop(data, from) {
    const prompt = document.querySelector('#prompt');
    const range = document.createRange();
    range.selectNodeContents(prompt);
    const box = [prompt, range].map(of => [...of.getClientRects()].at(-1)).filter(Boolean).at(-1);
    const at = { bubbles: true, cancelable: true, dataTransfer: data,
        clientX: box.right, clientY: box.top + box.height / 2 };
    from?.dispatchEvent(new DragEvent('dragstart', at));
    prompt.dispatchEvent(new DragEvent('dragover', at));
    prompt.dispatchEvent(new DragEvent('drop', at));
    from?.dispatchEvent(new DragEvent('dragend', at));
}
";

/// A name that leads here, and that browsers trust as little as any other's on the network.
pub const ELSEWHERE: &str = "kosmos.test";
/// How long to wait for a worker's reply.
const MOST: Duration = Duration::from_secs(1800);
/// How long to wait for what takes no computing.
pub(super) const SHORT: Duration = Duration::from_secs(30);
/// Where a person wants the picture made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// In the page, on the CPU.
    Cpu,
    /// In the page, over WebGPU.
    Gpu,
    /// The U-Net on the server.
    Server,
}

impl Where {
    /// Its name in the page's address.
    pub fn name(self) -> &'static str {
        self.id().trim_start_matches("where-")
    }

    /// The choice's element.
    fn id(self) -> &'static str {
        match self {
            Where::Cpu => "where-cpu",
            Where::Gpu => "where-gpu",
            Where::Server => "where-server",
        }
    }
}

/// A tab of a Chromium of its own.
pub struct Page {
    pub(super) driver: WebDriver,
    chromedriver: Child,
    /// Where chromedriver listens.
    port: u16,
    _profile: tempfile::TempDir,
}

impl Page {
    /// Opens the page and waits until the model is loaded.
    pub async fn open(address: &str) -> Self {
        let page = Self::launch().await;
        page.visit(address).await;
        page.wait_for_state("ready", Duration::from_secs(120)).await;
        page
    }

    /// An empty tab.
    pub async fn launch() -> Self {
        let port = free_port();
        let chromedriver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .spawn()
            .expect("chromedriver is installed");
        let profile = tempfile::tempdir().unwrap();
        let mut capabilities = DesiredCapabilities::chrome();
        for argument in [
            "--headless=new",
            "--no-sandbox",
            "--enable-unsafe-webgpu",
            "--use-webgpu-adapter=swiftshader",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            &format!("--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1"),
            "--window-size=1200,900",
            &format!("--user-data-dir={}", profile.path().display()),
        ] {
            capabilities.add_arg(argument).unwrap();
        }
        let url = format!("http://127.0.0.1:{port}");
        let begin = Instant::now();
        let driver = loop {
            match WebDriver::new(&url, capabilities.clone()).await {
                Ok(driver) => break driver,
                Err(error) if begin.elapsed() > Duration::from_secs(30) => panic!("{error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        };
        driver.set_script_timeout(Duration::from_secs(900)).await.unwrap();
        Self { driver, chromedriver, port, _profile: profile }
    }

    /// Opens the page and waits until it takes input.
    pub async fn visit(&self, address: &str) {
        self.driver.goto(address).await.unwrap();
        let begin = Instant::now();
        // The last thing that the program does when it starts.
        while self.script("return 'kosmosg' in window", vec![]).await != json!(true) {
            assert!(begin.elapsed() < Duration::from_secs(60), "the page takes input");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Opens the address of a pairing and takes it; then the page comes.
    pub async fn pair(&self, address: &str) {
        self.driver.goto(address).await.unwrap();
        self.driver.find(By::Css("button")).await.unwrap().click().await.unwrap();
        self.wait_for_state("ready", Duration::from_secs(120)).await;
    }

    /// The process that the whole browser descends from.
    pub fn process(&self) -> u32 {
        self.chromedriver.id()
    }

    /// Waits until everything is kept for when there is no network: then the service worker takes the page over.
    pub async fn wait_until_kept(&self, patience: Duration) {
        let begin = Instant::now();
        let is_kept = "return navigator.serviceWorker.controller !== null";
        while self.script(is_kept, vec![]).await != json!(true) {
            assert!(begin.elapsed() < patience, "kept for when there is no network within {patience:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Empties the browser's own cache of what it fetched; what the service worker keeps stays.
    pub async fn clear_cache(&self) {
        self.driver.cdp().send_raw("Network.clearBrowserCache", json!({})).await.unwrap();
    }

    /// Opens the page again and waits until the model is loaded.
    pub async fn reload(&self) {
        self.driver.refresh().await.unwrap();
        self.wait_for_state("ready", Duration::from_secs(120)).await;
    }

    /// Types `a … on the beach` and drops a creature's picture into the gap; sets everything else.
    pub async fn write_sentence(&self, seed: u64, steps: usize) {
        let prompt = self.driver.find(By::Css("#prompt")).await.unwrap();
        prompt.click().await.unwrap();
        let clear = "document.querySelector('#prompt').replaceChildren();
            document.querySelector('#prompt').dispatchEvent(new InputEvent('input', { bubbles: true }))";
        self.script(clear, vec![]).await;
        prompt.send_keys("a ").await.unwrap();
        let png = creature().to_png(None);
        let drop = "
            const file = new File([new Uint8Array(arguments[0])], 'creature.png', { type: 'image/png' });
            const data = new DataTransfer();
            data.items.add(file);
            drop(data, null);";
        self.script(&[DROP, drop].concat(), vec![json!(png)]).await;
        self.wait_for_pictures(1).await;
        prompt.send_keys(Key::End + "").await.unwrap();
        prompt.send_keys(" on the beach").await.unwrap();
        assert_eq!(self.sentence().await, "a <i> on the beach");
        self.type_into("#seed", &seed.to_string()).await;
        self.type_into("#guidance", &GUIDANCE.to_string()).await;
        self.set_steps(steps).await;
    }

    /// Sets the number of steps.
    pub async fn set_steps(&self, steps: usize) {
        self.script("document.querySelector('#steps').max = arguments[0]", vec![json!(steps.max(100))]).await;
        self.type_into("#steps", &steps.to_string()).await;
    }

    /// The sentence as it stands in the editor, a chip as `<i>`.
    pub async fn sentence(&self) -> String {
        let read = "return [...document.querySelector('#prompt').childNodes]
            .map(node => node.classList?.contains('chip') ? '<i>' : node.textContent).join('').replace(/\\u200B/g, '')
            .replace(/\\u00A0/g, ' ')";
        self.script(read, vec![]).await.as_str().unwrap().to_owned()
    }

    /// Whether a place can be chosen.
    pub async fn offers(&self, place: Where) -> bool {
        self.driver.find(By::Id(place.id())).await.unwrap().is_enabled().await.unwrap()
    }

    /// Chooses where the picture is made, and waits until that place is ready.
    pub async fn choose(&self, place: Where) {
        let begin = Instant::now();
        while !self.offers(place).await {
            assert!(begin.elapsed() < Duration::from_secs(30), "{place:?} can be chosen");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.script("document.getElementById(arguments[0]).click()", vec![json!(place.id())]).await;
        self.wait_for_ready(Duration::from_secs(300)).await;
    }

    /// Asks for a picture, and waits until it is being made.
    pub async fn start(&self) {
        self.driver.find(By::Id("generate")).await.unwrap().click().await.unwrap();
        self.wait_for_state("running", Duration::from_secs(20)).await;
    }

    /// Generates, and returns the picture that the page then shows.
    pub async fn generate(&self, patience: Duration) -> Picture {
        self.start().await;
        self.wait_for_state("done", patience).await;
        self.picture().await
    }

    /// The picture that the page shows.
    pub async fn picture(&self) -> Picture {
        let fetch = "
            const done = arguments[arguments.length - 1];
            const picture = await fetch(document.querySelector('#picture').src);
            done([...new Uint8Array(await picture.arrayBuffer())]);";
        let body = format!("(async () => {{ {} }})()", fetch.replace("arguments", "args"));
        let script = format!("const args = arguments; {body}");
        let bytes = self.driver.execute_async(script, vec![]).await.unwrap();
        let bytes: Vec<u8> = serde_json::from_value(bytes.json().clone()).unwrap();
        Picture::decode(&bytes).unwrap()
    }

    /// Clicks what a selector finds first.
    pub async fn click(&self, css: &str) {
        self.script("document.querySelector(arguments[0]).click()", vec![json!(css)]).await;
    }

    /// Clicks twice, as one does with a mouse, in the middle of what a selector finds first.
    pub async fn double_click(&self, css: &str) {
        let element = self.driver.find(By::Css(css)).await.unwrap();
        self.driver.action_chain().double_click_element(&element).perform().await.unwrap();
    }

    /// Presses keys in an element, one after the other.
    pub async fn press(&self, css: &str, keys: &[Key]) {
        let keys: String = keys.iter().map(Key::value).collect();
        self.driver.find(By::Css(css)).await.unwrap().send_keys(keys).await.unwrap();
    }

    /// Takes the last change back, with the keyboard.
    pub async fn undo(&self, css: &str) {
        self.driver.find(By::Css(css)).await.unwrap().send_keys(Key::Control + "z").await.unwrap();
    }

    /// Drags the sentence's first picture behind its last letter.
    pub async fn drag_first_picture_to_end(&self) {
        let drag = "drop(new DataTransfer(), document.querySelector('#prompt .chip'))";
        self.script(&[DROP, drag].concat(), vec![]).await;
    }

    /// Chooses a file of these bytes in the file dialog.
    pub async fn pick(&self, bytes: &[u8], name: &str) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        // What is hidden takes no keys.
        self.script("document.querySelector('#files').hidden = false", vec![]).await;
        let field = self.driver.find(By::Css("#files")).await.unwrap();
        field.send_keys(file.to_str().unwrap()).await.unwrap();
        // The page reads the file when it comes to it.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    /// Opens the page in another tab, which is the one that is seen from then on, and returns the one before.
    pub async fn new_tab(&self, address: &str) -> WindowHandle {
        let before = self.driver.window().await.unwrap();
        let tab = self.driver.new_tab().await.unwrap();
        self.driver.switch_to_window(tab).await.unwrap();
        self.visit(address).await;
        before
    }

    /// Sees another tab from then on.
    pub async fn back_to(&self, tab: WindowHandle) {
        self.driver.switch_to_window(tab).await.unwrap();
    }

    /// Waits until the sentence has so many pictures.
    pub async fn wait_for_pictures(&self, count: usize) {
        let chips = "return document.querySelectorAll('#prompt .chip').length";
        let are_there = || async { self.script(chips, vec![]).await == json!(count) };
        self.wait_until(&format!("{count} pictures"), SHORT, are_there).await;
    }

    /// Waits until an element says something.
    pub async fn wait_for_text(&self, css: &str, text: &str) {
        self.wait_for_text_within(css, text, SHORT).await;
    }

    /// The same, longer.
    pub async fn wait_for_text_within(&self, css: &str, text: &str, patience: Duration) {
        self.wait_until(text, patience, || async { self.text(css).await.contains(text) }).await;
    }

    /// Waits until a picture to come is shown while it is being made.
    pub async fn wait_for_preview(&self) {
        let shown = "const picture = document.querySelector('#picture');
            return !picture.hidden && picture.src.startsWith('blob:') && picture.hasAttribute('data-preview')";
        self.wait_until("a preview", SHORT, || async { self.script(shown, vec![]).await == json!(true) }).await;
    }

    pub(super) async fn wait_until<F: Future<Output = bool>>(
        &self,
        what: &str,
        patience: Duration,
        is_so: impl Fn() -> F,
    ) {
        let begin = Instant::now();
        while !is_so().await {
            assert!(begin.elapsed() < patience, "{what}; the page says {}", self.said().await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until that many steps are done.
    pub async fn wait_for_step(&self, step: usize, patience: Duration) {
        let begin = Instant::now();
        let done = || async {
            let value = self.script("return document.querySelector('#progress').value", vec![]).await;
            let steps = self.script("return +document.querySelector('#steps').value", vec![]).await;
            value.as_f64().unwrap_or(0.0) * steps.as_f64().unwrap_or(0.0) >= step as f64
        };
        while !done().await {
            assert!(begin.elapsed() < patience, "step {step} within {patience:?}; the page says {}", self.said().await);
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// Waits until the page says of itself that it is in this state; fails if it says that something failed.
    pub async fn wait_for_state(&self, state: &str, patience: Duration) {
        let begin = Instant::now();
        while self.state().await != state {
            let said = self.said().await;
            assert!(
                begin.elapsed() < patience,
                "{state} within {patience:?}; the page is {} and says {said}",
                self.state().await
            );
            assert!(state == "failed" || self.state().await != "failed", "the page failed: {said}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the place chosen last has its model loaded.
    async fn wait_for_ready(&self, patience: Duration) {
        let begin = Instant::now();
        while !matches!(self.state().await.as_str(), "ready" | "done" | "failed") {
            assert!(begin.elapsed() < patience, "ready within {patience:?}; the page says {}", self.said().await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Sends a request to one of the page's workers and returns its last reply.
    pub async fn ask(&self, worker: &str, request: &str, data: &[&Vec<u8>]) -> Value {
        self.script("window.heap = []", vec![]).await;
        for bytes in data {
            // Numbers in JSON are slow for megabytes; characters of base64 are not.
            let text = base64(bytes);
            let push = "const text = atob(arguments[0]); const bytes = new Uint8Array(text.length);
                for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i); window.heap.push(bytes.buffer)";
            self.script(push, vec![json!(text)]).await;
        }
        let ask = "window.reply = null; kosmosg.ask(arguments[0], arguments[1], window.heap).then(
                reply => { window.reply = reply.json; },
                error => { window.reply = JSON.stringify({ error: String(error) }); })";
        self.script(ask, vec![json!(worker), json!(request)]).await;
        let begin = Instant::now();
        loop {
            if let Some(reply) = self.script("return window.reply", vec![]).await.as_str() {
                return serde_json::from_str(reply).unwrap();
            }
            assert!(begin.elapsed() < MOST, "{request}: no reply within {MOST:?}; the page says {}", self.said().await);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// What an element says.
    pub async fn text(&self, css: &str) -> String {
        self.driver.find(By::Css(css)).await.unwrap().text().await.unwrap()
    }

    /// Ends the browser.
    pub async fn close(self) {
        self.driver.clone().quit().await.unwrap();
    }

    /// Puts a text into a field.
    pub async fn type_into(&self, css: &str, value: &str) {
        let set = "const field = document.querySelector(arguments[0]); field.value = arguments[1];
            for (const kind of ['input', 'change']) field.dispatchEvent(new Event(kind, { bubbles: true }))";
        self.script(set, vec![json!(css), json!(value)]).await;
    }

    async fn state(&self) -> String {
        let state = self.script("return document.querySelector('#app')?.dataset.state ?? ''", vec![]).await;
        state.as_str().unwrap_or_default().to_owned()
    }

    async fn said(&self) -> String {
        let said = "return ['#status', '#notice', '#moved', '#where-line', '#model-line', '#model-trouble']
            .map(css => document.querySelector(css)?.textContent ?? '').join(' | ')";
        self.script(said, vec![]).await.as_str().unwrap_or_default().to_owned()
    }

    pub(super) async fn script(&self, script: &str, arguments: Vec<Value>) -> Value {
        self.driver.execute(script, arguments).await.unwrap().json().clone()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // Killed, chromedriver leaves its Chromium behind; asked, it ends both, and then the line.
        if let Ok(mut line) = TcpStream::connect(("127.0.0.1", self.port)) {
            line.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            // Whatever goes wrong here, it is killed next.
            let _ = line.write_all(b"GET /shutdown HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let _ = line.read_to_end(&mut Vec::new());
        }
        // It may have ended already.
        if self.chromedriver.kill().is_ok() {
            self.chromedriver.wait().unwrap();
        }
    }
}

/// What the command line makes of the same sentence.
pub fn expected(seed: u64, steps: usize) -> Picture {
    expected_series(seed, steps, 1).remove(0)
}

/// The same, so many pictures of one seed. Tests of one program share them.
pub fn expected_series(seed: u64, steps: usize, count: usize) -> Vec<Picture> {
    type Series = Arc<OnceLock<Vec<Picture>>>;
    static MADE: Mutex<BTreeMap<[u64; 3], Series>> = Mutex::new(BTreeMap::new());
    let key = [seed, steps as u64, count as u64];
    let series = MADE.lock().unwrap().entry(key).or_default().clone();
    series.get_or_init(|| generate(seed, steps, count)).clone()
}

fn generate(seed: u64, steps: usize, count: usize) -> Vec<Picture> {
    let folder = tempfile::tempdir().unwrap();
    let (image, output) = (folder.path().join("creature.png"), folder.path().join("out.png"));
    std::fs::write(&image, creature().to_png(None)).unwrap();
    let status = Command::new(dist().join(format!("kosmosg{}", std::env::consts::EXE_SUFFIX)))
        .args(["generate", "--json", "--prompt", "a <i> on the beach", "--seed", &seed.to_string()])
        .args(["--steps", &steps.to_string(), "--guidance", &GUIDANCE.to_string(), "--count", &count.to_string()])
        .args([Path::new("--image"), &image, Path::new("--output"), &output])
        .stdout(Stdio::null())
        .status();
    assert!(status.unwrap().success());
    let file = |number: usize| match count {
        1 => output.clone(),
        _ => folder.path().join(format!("out-{}.png", number + 1)),
    };
    (0..count).map(|number| Picture::decode(&std::fs::read(file(number)).unwrap()).unwrap()).collect()
}

/// A creature that no model was trained on.
pub fn creature() -> Picture {
    portrait(&Creature::sample(&mut Rng::new(CREATURE, 0), Split::HeldOut), 64)
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
