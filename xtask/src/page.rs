//! Builds the page: three WebAssembly modules and everything around them, as a folder that any server can serve.
//!
//! ```text
//! index.html  sw.js  manifest.webmanifest  icon.svg  icon-SIZE.png  maskable-SIZE.png  apple-touch-icon.png
//! app/HASH/   programs and styles; the hash is of their contents, so caches may keep them for ever
//! models/     bundles
//! creatures/  the palette
//! screenshots/  what a system shows of the page before it is installed
//! ```
//! What compresses has a `.br` and a `.gz` beside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use wasm_bindgen_cli_support::Bindgen;

use crate::compress::{compress, compressed, is_compressed};
use crate::files::{files_below, hex};
use crate::{cargo_command, icon};

/// The interface's texts, which the shell names.
#[path = "../../web/src/texts.rs"]
#[expect(dead_code, reason = "the shell has no use for the texts that are made at run time")]
mod texts;

/// The modules: the crate's program and feature, which is also the name of the file.
pub const MODULES: [&str; 3] = ["ui", "worker-cpu", "worker-gpu"];
/// What they are compiled for.
pub const TARGET: &str = "wasm32-unknown-unknown";
/// Leaves the WebGPU module out, whose build takes minutes, for work on the rest of the page.
const WITHOUT_GPU: &str = "KOSMOSG_WITHOUT_GPU";
/// Every visit waits for the interface: it takes no more than this, compressed.
const MOST_UI_KB: u64 = 300;
/// The styles in the order in which they hold: what comes later goes before.
const STYLES: [&str; 9] =
    ["page", "sentence", "choices", "stage", "models", "retouch", "device", "gallery", "preferences"];

/// Builds the page into the folder `out`, which holds nothing but its `creatures/`. What was [compressed](compress) stays in
/// `kept`.
pub fn build(out: &Path, kept: &Path) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    install_target()?;
    let app = out.join("app");
    let fresh = app.join("new");
    fs::create_dir_all(&fresh)?;
    for module in MODULES {
        if module == "worker-gpu" && std::env::var_os(WITHOUT_GPU).is_some() {
            eprintln!("{WITHOUT_GPU} is set: the page will have no WebGPU");
            continue;
        }
        bind(&compile(root, module)?, module, &fresh)?;
    }
    let from = root.join("web/static");
    for file in ["app.js", "worker.js"] {
        fs::copy(from.join(file), fresh.join(file)).with_context(|| format!("web/static/{file}"))?;
    }
    fs::write(fresh.join("style.css"), styles(&from.join("style"))?)?;
    let version = version(&fresh)?;
    fs::rename(&fresh, app.join(&version))?;

    let assets = [("ASSETS", format!("app/{version}/"))];
    write_shell(&root.join("index.html"), &out.join("index.html"), &assets)?;
    write_shell(&from.join("manifest.webmanifest"), &out.join("manifest.webmanifest"), &[])?;
    fs::copy(from.join("icon.svg"), out.join("icon.svg"))?;
    icon::write(&fs::read_to_string(from.join("icon.svg"))?, out)?;
    copy_screenshots(&root.join("docs"), &out.join("screenshots"))?;
    copy_bundle(&root.join("models/tiny"), &out.join("models/tiny"))?;
    write_service_worker(&from.join("sw.js"), out)?;
    compress(out, kept)?;
    for module in files_below(&app)?.iter().filter(|file| file.extension().is_some_and(|end| end == "wasm")) {
        let kilobytes = |file: &Path| fs::metadata(file).map(|file| file.len().div_ceil(1000));
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        let (whole, packed) = (kilobytes(module)?, kilobytes(&compressed(module, "br"))?);
        eprintln!("{name}: {whole} kB, {packed} kB compressed");
        ensure!(name != "ui_bg.wasm" || packed <= MOST_UI_KB, "the interface may take {MOST_UI_KB} kB compressed");
    }
    Ok(())
}

/// Installs what WebAssembly is compiled with. rustup does so by itself only when it installs the whole toolchain.
pub fn install_target() -> Result<()> {
    let libraries = Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).output()?;
    if Path::new(String::from_utf8_lossy(&libraries.stdout).trim()).exists() {
        return Ok(());
    }
    let status = Command::new("rustup").args(["target", "add", TARGET]).status();
    let status =
        status.with_context(|| format!("the target {TARGET} is missing, and there is no rustup to install it"))?;
    ensure!(status.success(), "`rustup target add {TARGET}` failed");
    Ok(())
}

/// The profile of cargo that a module is built with.
pub fn profile(module: &str) -> &'static str {
    if module == "ui" { "wasm-ui" } else { "wasm" }
}

/// Compiles one of the page's modules, and returns its path.
fn compile(root: &Path, name: &str) -> Result<PathBuf> {
    let output = cargo_command()
        .current_dir(root)
        .args(["build", "--package", "kosmosg-web", "--bin", name, "--profile", profile(name)])
        .args(["--target", TARGET, "--features", name])
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "building the page's module `{name}` failed");
    let messages = String::from_utf8(output.stdout)?;
    let files = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut files = files.flat_map(|message| message["filenames"].as_array().cloned().unwrap_or_default());
    let module = files.find_map(|file| file.as_str().filter(|path| path.ends_with(".wasm")).map(PathBuf::from));
    let module = module.with_context(|| format!("cargo built no module `{name}`"))?;
    // So the linker names an export that first runs all that libraries register, each time it is called.
    const RUNS_CONSTRUCTORS: &[u8] = b".command_export";
    let runs_constructors = fs::read(&module)?.windows(RUNS_CONSTRUCTORS.len()).any(|name| name == RUNS_CONSTRUCTORS);
    ensure!(!runs_constructors, "`{name}` must call `__wasm_call_ctors` once, or each call from JavaScript does");
    Ok(module)
}

/// Makes `NAME.js` and `NAME_bg.wasm` of a module.
fn bind(module: &Path, name: &str, into: &Path) -> Result<()> {
    Bindgen::new()
        .input_path(module)
        .out_name(name)
        .web(true)?
        .typescript(false)
        .omit_default_module_path(false)
        .remove_name_section(true)
        .remove_producers_section(true)
        .generate(into)
        .with_context(|| format!("wasm-bindgen on the page's module `{name}`"))
}

/// All styles in one, so that they are asked for once.
fn styles(folder: &Path) -> Result<String> {
    let read = |name| {
        let file = folder.join(name).with_extension("css");
        fs::read_to_string(&file).with_context(|| file.display().to_string())
    };
    STYLES.map(read).into_iter().collect()
}

/// A hash of a folder's files.
fn version(folder: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    for file in files_below(folder)? {
        hash.update(file.strip_prefix(folder)?.to_string_lossy().as_bytes());
        hash.update(fs::read(&file)?);
    }
    Ok(hex(&hash.finalize())[..16].to_owned())
}

/// Fills the double braces of a file with texts and other values.
fn write_shell(from: &Path, to: &Path, values: &[(&str, String)]) -> Result<()> {
    let source = fs::read_to_string(from).with_context(|| from.display().to_string())?;
    let mut filled = String::new();
    let mut rest = source.as_str();
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").with_context(|| format!("{}: open braces", from.display()))?;
        let text = texts::ALL.iter().find(|(known, _)| *known == name).map(|(_, text)| escape(text));
        let value = values.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
        let Some(value) = text.or(value) else { bail!("{}: nothing is called {name}", from.display()) };
        filled += before;
        filled += &value;
        rest = after;
    }
    fs::write(to, filled + rest)?;
    Ok(())
}

/// Texts are words, never markup.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Pictures of the page for its manifest, where they stand under shorter names.
fn copy_screenshots(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for (name, file) in [("desktop.png", "page.png"), ("phone.png", "page-phone-result-dark.png")] {
        fs::copy(from.join(file), to.join(name)).with_context(|| format!("docs/{file}"))?;
    }
    Ok(())
}

fn copy_bundle(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    ensure!(from.join("bundle.json").exists(), "{} holds no bundle", from.display());
    for file in files_below(from)? {
        fs::copy(&file, to.join(file.strip_prefix(from)?))?;
    }
    Ok(())
}

/// Lists the page's own files, so that it opens without a network. A model's files, which may be other ones on the server,
/// are listed there from its manifest.
fn write_service_worker(from: &Path, out: &Path) -> Result<()> {
    let mut addresses = vec!["./".to_owned()];
    let mut version = Sha256::new();
    for file in files_below(out)? {
        let name = file.strip_prefix(out)?.to_string_lossy().replace('\\', "/");
        if name == "sw.js" || is_compressed(&file) {
            continue;
        }
        let contents = fs::read(&file)?;
        let hash = hex(&Sha256::digest(&contents));
        version.update(&name);
        version.update(&hash);
        match name.as_str() {
            // It is asked for as the folder.
            "index.html" => {}
            // A store asks for them, never the page.
            name if name.starts_with("models/") || name.starts_with("screenshots/") => {}
            name => addresses.push(name.to_owned()),
        }
    }
    let source = fs::read_to_string(from)?;
    let filled = source
        .replace("__VERSION__", &hex(&version.finalize())[..16])
        .replace("__FILES__", &serde_json::to_string_pretty(&addresses)?);
    fs::write(out.join("sw.js"), filled)?;
    Ok(())
}
