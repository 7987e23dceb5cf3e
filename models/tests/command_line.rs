//! The command as people meet it: what it prints, what it writes, and what it says to bad input.
#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kosmosg::bundle::{self, Folder};
use kosmosg::picture::{Picture, Recipe};
use kosmosg::weights::HostTensor;

fn kosmosg(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kosmosg")).args(arguments).output().unwrap()
}

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tiny")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs a command that must fail, and returns what it says.
fn complaint(arguments: &[&str]) -> String {
    let output = kosmosg(arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

#[test]
fn a_creature_becomes_a_picture_with_its_recipe() {
    let dir = tempfile::tempdir().unwrap();
    let (creature, out) = (dir.path().join("creature.png"), dir.path().join("out.png"));
    let drawn = kosmosg(&["sprite", "--held-out", "--seed", "7", "-o", text(&creature)]);
    assert!(drawn.status.success());
    let made = kosmosg(&[
        "generate",
        "--prompt",
        "a <i> on the beach",
        "--image",
        text(&creature),
        "-o",
        text(&out),
        "--seed",
        "3",
        "--steps",
        "4",
        "--json",
    ]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let said: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    assert_eq!(said["pictures"][0]["recipe"]["seed"], 3);
    let png = std::fs::read(&out).unwrap();
    assert_eq!(Picture::decode(&png).unwrap().width(), 64);
    let recipe = Recipe::read(&png).unwrap().unwrap();
    assert_eq!((recipe.seed, recipe.steps, recipe.prompt.to_text().as_str()), (3, 4, "a <i> on the beach"));
}

#[test]
fn pictures_and_places_must_match() {
    let said = complaint(&["generate", "--prompt", "a <i> and a <i>", "-o", "x.png"]);
    assert!(said.contains("0 pictures") && said.contains('2'), "{said}");
}

#[test]
fn bad_pictures_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("good.png");
    assert!(kosmosg(&["sprite", "-o", text(&good)]).status.success());
    let bytes = std::fs::read(&good).unwrap();
    let truncated = dir.path().join("truncated.png");
    std::fs::write(&truncated, &bytes[..bytes.len() / 2]).unwrap();
    let lying = dir.path().join("lying.png");
    std::fs::write(&lying, b"this is no picture").unwrap();
    for bad in [&truncated, &lying, &dir.path().join("absent.png")] {
        let said = complaint(&["generate", "--prompt", "<i>", "--image", text(bad), "-o", "x.png"]);
        assert!(said.contains(text(bad)), "{said}");
    }
}

#[test]
fn a_prompt_that_is_too_long_says_by_how_much() {
    let prompt = "a red ball ".repeat(400);
    let said = complaint(&["generate", "--prompt", &prompt, "-o", "x.png"]);
    assert!(said.contains("tokens") && said.contains("at most"), "{said}");
}

#[test]
fn damaged_bundles_say_what_is_wrong() {
    let tiny = Folder::open(tiny()).unwrap();
    let manifest = tiny.manifest().clone();
    let parts: BTreeMap<_, _> = manifest.parts.keys().map(|name| (name.clone(), tiny.part(name).unwrap())).collect();
    let tokenizer = tiny.tokenizer().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let say =
        |name: &str| complaint(&["generate", "--prompt", "x", "--bundle", text(&dir.path().join(name)), "-o", "x.png"]);
    let write = |name: &str, change: &dyn Fn(&mut bundle::Tensors)| {
        let mut parts = parts.clone();
        change(parts.get_mut("unet").unwrap());
        bundle::write(&dir.path().join(name), manifest.clone(), &tokenizer, &parts).unwrap();
    };

    write("missing", &|unet| drop(unet.remove("conv_in.weight")));
    assert!(say("missing").contains("`conv_in.weight` is missing"));
    write("extra", &|unet| drop(unet.insert("stray".into(), HostTensor::from_f32(vec![1], &[0.0]))));
    assert!(say("extra").contains("unexpected: `stray`"));
    write("misshapen", &|unet| drop(unet.insert("conv_in.bias".into(), HostTensor::from_f32(vec![1], &[0.0]))));
    let said = say("misshapen");
    assert!(said.contains("`conv_in.bias` has shape [1]"), "{said}");

    write("corrupt", &|_| ());
    let file = dir.path().join("corrupt/unet.gguf");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert!(say("corrupt").contains("unet.gguf is corrupt"));
    std::fs::write(&file, []).unwrap();
    assert!(say("corrupt").contains("0 bytes"));
    assert!(say("absent").contains("bundle.json"));
}

#[test]
fn info_lists_the_parts() {
    let output = kosmosg(&["info", text(&tiny()), "--check"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for part in ["vision", "mllm", "aligner", "unet", "vae"] {
        assert!(said.contains(part), "{said}");
    }
    assert!(said.contains("all files are as the manifest says"));
}
