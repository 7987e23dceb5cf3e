//! The page on other screens, in other versions, and in trouble.

use std::path::Path;

use serde_json::json;

use super::page::{Page, SHORT};
use super::{dist, small};

/// A screen and how its owner likes it.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    /// Width and height in CSS pixels.
    pub size: (u32, u32),
    /// Device pixels of each.
    pub scale: u32,
    /// Whether dark.
    pub is_dark: bool,
}

impl Screen {
    /// A desk's.
    pub const DESKTOP: Self = Self { size: (1280, 900), scale: 1, is_dark: false };
    /// A phone's.
    pub const PHONE: Self = Self { size: (360, 740), scale: 2, is_dark: false };

    /// The same in the dark.
    pub fn dark(self) -> Self {
        Self { is_dark: true, ..self }
    }
}

/// A folder with the built page in a version that differs from it in name only; the built one, if `is_newer` is not set.
pub fn newer_page(folder: &Path, is_newer: bool) {
    if !folder.join("index.html").exists() {
        copy(&dist().join("page"), folder);
    }
    if !is_newer {
        return;
    }
    let old = std::fs::read_dir(folder.join("app")).unwrap().next().unwrap().unwrap().path();
    let old_name = old.file_name().unwrap().to_str().unwrap();
    let new_name: String = old_name.chars().rev().collect();
    assert_ne!(old_name, new_name);
    std::fs::rename(&old, folder.join("app").join(&new_name)).unwrap();
    for name in ["index.html", "sw.js"] {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        let text = text.replace(old_name, &new_name).replace("CACHE = \"kosmos-", "CACHE = \"kosmos-newer-");
        std::fs::write(folder.join(name), text).unwrap();
        for suffix in ["br", "gz"] {
            std::fs::remove_file(folder.join(format!("{name}.{suffix}"))).unwrap();
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

impl Page {
    /// Shows the page on another screen.
    pub async fn show_on(&self, Screen { size: (width, height), scale, is_dark }: Screen) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": scale, "mobile": false });
        let scheme = if is_dark { "dark" } else { "light" };
        // Colours that change over some moments would be looked at in the middle.
        let still = json!({ "name": "prefers-reduced-motion", "value": "reduce" });
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }, still] });
        let cdp = self.driver.cdp();
        cdp.send_raw("Emulation.setDeviceMetricsOverride", metrics).await.unwrap();
        cdp.send_raw("Emulation.setEmulatedMedia", features).await.unwrap();
    }

    /// Has the browser pretend a preference, such as `forced-colors`.
    pub async fn prefer(&self, name: &str, value: &str) {
        let features = json!({ "features": [{ "name": name, "value": value }] });
        self.driver.cdp().send_raw("Emulation.setEmulatedMedia", features).await.unwrap();
    }

    /// Writes what a person sees now into a PNG file of few colours.
    pub async fn photograph(&self, file: &Path) {
        // A caret blinks, and a bar to scroll with is not the page.
        let still = "document.activeElement?.blur(); document.documentElement.style.scrollbarWidth = 'none'";
        self.script(still, vec![]).await;
        small::shrink(&self.driver.screenshot_as_png().await.unwrap(), file);
    }

    /// Runs a script in every page of this tab before its own, from the next one on.
    pub async fn run_first(&self, script: &str) {
        let source = json!({ "source": script });
        self.driver.cdp().send_raw("Page.addScriptToEvaluateOnNewDocument", source).await.unwrap();
    }

    /// Counts how often this tab is loaded from now on, and keeps its workers within reach; see [`loads`](Self::loads) and
    /// [`end_worker`](Self::end_worker).
    pub async fn watch(&self) {
        self.run_first(
            "sessionStorage.loads = Number(sessionStorage.loads ?? 0) + 1;
            window.workers = [];
            const Real = Worker;
            window.Worker = class extends Real { constructor(...words) { super(...words); window.workers.push(this); } }",
        )
        .await;
    }

    /// How often the tab was loaded since it is watched.
    pub async fn loads(&self) -> u64 {
        let loads = self.script("return Number(sessionStorage.loads ?? 0)", vec![]).await;
        loads.as_f64().unwrap() as u64
    }

    /// Ends the worker that was started last, as a crash does.
    pub async fn end_worker(&self) {
        let end = "const worker = window.workers.at(-1); worker.terminate();
            worker.dispatchEvent(new ErrorEvent('error', { message: 'Uncaught RuntimeError: unreachable' }))";
        self.script(end, vec![]).await;
    }

    /// Has the browser look whether there is a newer version of the page.
    pub async fn look_for_newer(&self) {
        let look = "navigator.serviceWorker.getRegistration().then(registration => registration.update())";
        self.script(look, vec![]).await;
    }

    /// Runs a script in the page, and returns what it returns.
    pub async fn run(&self, script: &str) -> serde_json::Value {
        self.script(script, vec![]).await
    }

    /// Types into an element.
    pub async fn type_keys(&self, css: &str, keys: &str) {
        self.driver.find(thirtyfour::By::Css(css)).await.unwrap().send_keys(keys).await.unwrap();
    }

    /// Bytes that the page and its workers hold in JavaScript and WebAssembly, without what is only waiting to be let go.
    pub async fn memory(&self) -> f64 {
        let measure = "const [done] = arguments;
            performance.measureUserAgentSpecificMemory().then(({ bytes }) => done(bytes), error => done(String(error)))";
        let bytes = self.driver.execute_async(measure, vec![]).await.unwrap();
        bytes.json().as_f64().unwrap()
    }

    /// What stands in a field, seen or not.
    pub async fn value(&self, css: &str) -> String {
        let value = self.script("return document.querySelector(arguments[0]).value", vec![json!(css)]).await;
        value.as_str().unwrap().to_owned()
    }

    /// Whether something is to be seen.
    pub async fn sees(&self, css: &str) -> bool {
        let sees = "return document.querySelector(arguments[0])?.checkVisibility() ?? false";
        self.script(sees, vec![json!(css)]).await == json!(true)
    }

    /// Waits until something is to be seen.
    pub async fn wait_for(&self, css: &str) {
        self.wait_until(css, SHORT, || async { self.sees(css).await }).await;
    }

    /// Opens everything that can be opened.
    pub async fn open_all(&self) {
        self.script("document.querySelectorAll('details').forEach(details => { details.open = true; })", vec![]).await;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }

    /// What axe-core, whose program this is, finds wrong with the page as it is now.
    pub async fn violations(&self, axe: &str) -> Vec<String> {
        self.script(axe, vec![]).await;
        let run = "const [done] = arguments;
            const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
            const words = ({ id, nodes }) => `${id}: ${nodes.map(node => node.target.join(' ')).join(', ')}`;
            axe.run(document, { runOnly: tags }).then(({ violations, passes }) => {
                done([...violations.map(words), ...(passes.length > 20 ? [] : ['little was looked at'])]);
            }, error => done([String(error)]))";
        let found = self.driver.execute_async(run, vec![]).await.unwrap();
        serde_json::from_value(found.json().clone()).unwrap()
    }

    /// How many CSS pixels the page is wider than its window.
    pub async fn overflow(&self) -> i64 {
        let wider = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        self.script(wider, vec![]).await.as_i64().unwrap()
    }

    /// Walks through the page with the Tab key, once round, and returns what can be used, but was not come by, and what was
    /// come by, but does not show that it has the focus.
    pub async fn walk(&self) -> Vec<String> {
        self.open_all().await;
        let mark = "document.activeElement?.blur(); scrollTo(0, 0); window.passed = new Set();
            const fields = 'a[href], button, input, select, textarea, summary, [tabindex=\"0\"], #prompt';
            window.usable = [...document.querySelectorAll(fields)].filter(field => field.checkVisibility()
                && !field.disabled && field.type !== 'file' && (field.type !== 'radio' || field.checked));
            return window.usable.length";
        let count = self.script(mark, vec![]).await.as_u64().unwrap();
        let step = "const field = document.activeElement; window.passed.add(field);
            if (field === document.body) return null;
            const marks = element => { const style = getComputedStyle(element);
                return style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0; };
            const label = field.closest('label');
            const shown = marks(field) || marks(field.nextElementSibling ?? field) || (label && marks(label));
            return shown ? null : `no focus to be seen: ${field.outerHTML.slice(0, 80)}`";
        let mut found = Vec::new();
        for _ in 0..count + 5 {
            self.driver.action_chain().send_keys(thirtyfour::Key::Tab + "").perform().await.unwrap();
            found.extend(self.script(step, vec![]).await.as_str().map(str::to_owned));
        }
        let missed = "return window.usable.filter(field => !window.passed.has(field))
            .map(field => `not come by: ${field.outerHTML.slice(0, 80)}`)";
        let missed: Vec<String> = serde_json::from_value(self.script(missed, vec![]).await).unwrap();
        found.extend(missed);
        found
    }
}
