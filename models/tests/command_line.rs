//! The command as people meet it: what it prints, what it writes, and what it says to bad input.
#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kosmosg::bundle::{self, Existing, Folder, Tensors};
use kosmosg::picture::{Picture, Recipe};
use kosmosg::weights::HostTensor;
use safetensors::tensor::{Dtype, TensorView};

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
fn conditions_are_written_and_compared() {
    let dir = tempfile::tempdir().unwrap();
    let (creature, condition) = (dir.path().join("creature.png"), dir.path().join("condition.safetensors"));
    assert!(kosmosg(&["sprite", "-o", text(&creature)]).status.success());
    let prompt = ["encode", "--prompt", "a <i> on the beach", "--image", text(&creature)];
    let encode = |more: &[&str]| {
        let output = kosmosg(&[&prompt, more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    encode(&["-o", text(&condition)]);
    let said = encode(&["--engine", "candle", "--against", text(&condition)]);
    assert!(said.contains("cond   cosine 1.000000") && said.contains("uncond cosine 1.000000"), "{said}");
    let other = ["encode", "--prompt", "a castle", "--against", text(&condition)];
    let said = String::from_utf8(kosmosg(&other).stdout).unwrap();
    assert!(!said.contains("cond   cosine 1.000000"), "{said}");
    let said = complaint(&["encode", "--prompt", "a castle", "--against", text(&creature)]);
    assert!(said.contains("creature.png"), "{said}");
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
    let other = dir.path().join("other.png");
    std::fs::write(&other, b"this is no picture").unwrap();
    // Files that say what they are, and end.
    let claims = |name: &str, side: u32| {
        let path = dir.path().join(name);
        let mut bytes = Vec::new();
        let mut writer = png::Encoder::new(&mut bytes, side, side).write_header().unwrap();
        writer.write_chunk(png::chunk::IDAT, &[0x78, 0x9c, 1, 1, 0, 0xfe, 0xff, 0]).unwrap();
        drop(writer);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let (bomb, lying) = (claims("bomb.png", 60_000), claims("lying.png", 2000));
    for (bad, complains) in [
        (&truncated, "cut off"),
        (&other, "not a picture file"),
        (&bomb, "60000 x 60000"),
        (&lying, "damaged"),
        (&dir.path().join("absent.png"), "No such file"),
    ] {
        let said = complaint(&["generate", "--prompt", "<i>", "--image", text(bad), "-o", "x.png"]);
        assert!(said.contains(text(bad)) && said.contains(complains), "{said}");
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
    let write = |name: &str, change: &dyn Fn(&mut Tensors)| {
        let mut parts = parts.clone();
        change(parts.get_mut("unet").unwrap());
        bundle::write(&dir.path().join(name), Existing::default(), manifest.clone(), &tokenizer, &parts).unwrap();
    };

    write("missing", &|unet| drop(unet.remove("conv_in.weight")));
    assert!(say("missing").contains("`conv_in.weight` is missing"));
    write("extra", &|unet| drop(unet.insert("stray".into(), HostTensor::from_f32(vec![1], &[0.0]))));
    assert!(say("extra").contains("unexpected: `stray`"));
    write("misshapen", &|unet| drop(unet.insert("conv_in.bias".into(), HostTensor::from_f32(vec![1], &[0.0]))));
    let said = say("misshapen");
    assert!(said.contains("`conv_in.bias` has shape [1]"), "{said}");

    // Of an imported one, the text encoder has CLIP's words.
    let mut other = manifest.clone();
    other.networks.text.as_mut().unwrap().vocab_size = 49_408;
    bundle::write(&dir.path().join("words"), Existing::default(), other, &tokenizer, &parts).unwrap();
    let words = dir.path().join("words");
    let said = complaint(&["eval", "sprites", "--subjects", "2", "--ceilings", "--bundle", text(&words)]);
    assert!(said.contains("the text encoder has 49408 words"), "{said}");

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
fn what_lies_beside_a_bundle_stays() {
    let tiny = Folder::open(tiny()).unwrap();
    let parts = BTreeMap::from([("aligner".to_owned(), tiny.part("aligner").unwrap())]);
    let dir = tempfile::tempdir().unwrap();
    let beside = |name: String| dir.path().join(name);
    let (existing, tokenizer) = (Existing { replace: true, resume: false }, tiny.tokenizer().unwrap());
    let write = || bundle::write(&beside("x".into()), existing, tiny.manifest().clone(), &tokenizer, &parts);
    write().unwrap();
    std::fs::create_dir(beside("x.old".into())).unwrap();
    write().unwrap();
    let mut names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["x", "x.old"]);
    // What cannot take its place yet is kept, with what tells how to go on.
    let aside = beside(format!("x.replaced-{}", std::process::id()));
    std::fs::create_dir_all(aside.join("something")).unwrap();
    let error = write().unwrap_err().to_string();
    assert!(error.contains(text(&aside)), "{error}");
    assert!(beside("x.unfinished/unfinished.json".into()).exists() && beside("x/bundle.json".into()).exists());
}

/// Copies the built-in bundle.
fn copy_tiny(to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(tiny()).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

#[test]
fn bundles_stay_unless_they_are_to_be_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, other] = ["a", "b", "other"].map(|name| dir.path().join(name));
    copy_tiny(&a);
    copy_tiny(&b);
    let to = |out: &Path| ["quantize", text(&a), "--quant", "q4_0", "-o", text(out), "--json"].map(str::to_owned);
    let refused = |out: &Path, more: &[&str], why: &str| {
        let arguments = to(out);
        let said = complaint(&arguments.iter().map(String::as_str).chain(more.iter().copied()).collect::<Vec<_>>());
        assert!(said.contains(text(out)) && said.contains(why), "{said}");
    };
    refused(&b, &[], "is a bundle already; name another folder, or replace it with --force");
    // The recipe says it before hours of training.
    let run = dir.path().join("run");
    let said = complaint(&["train", "tiny", "--run", text(&run), "-o", text(&b)]);
    assert!(said.contains("is a bundle already") && !run.exists(), "{said}");
    // Never what is read, whatever it is called.
    refused(&a, &["--force"], "is the bundle that is read");
    #[cfg(unix)]
    {
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&a, &link).unwrap();
        refused(&link, &["--force"], "is the bundle that is read");
    }
    std::fs::write(b.join("notes.txt"), "mine").unwrap();
    refused(&b, &["--force"], "notes.txt");
    for dir in [&a, &b] {
        assert_eq!(Folder::open(dir).unwrap().manifest(), Folder::open(tiny()).unwrap().manifest());
    }
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("notes.txt"), "mine").unwrap();
    refused(&other, &["--force"], "is no bundle");

    std::fs::remove_file(b.join("notes.txt")).unwrap();
    let arguments = to(&b);
    assert!(kosmosg(&arguments.iter().map(String::as_str).chain(["--force"]).collect::<Vec<_>>()).status.success());
    assert_ne!(Folder::open(&b).unwrap().manifest().parts, Folder::open(&a).unwrap().manifest().parts);
}

#[test]
fn damage_is_not_handed_on() {
    let dir = tempfile::tempdir().unwrap();
    let [bad, out] = ["bad", "out"].map(|name| dir.path().join(name));
    copy_tiny(&bad);
    let mut bytes = std::fs::read(bad.join("unet.gguf")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(bad.join("unet.gguf"), bytes).unwrap();
    let said = complaint(&["quantize", text(&bad), "--quant", "q4_0", "-o", text(&out)]);
    assert_eq!(said, complaint(&["info", "--check", text(&bad)]));
    assert!(said.contains("unet.gguf is corrupt: SHA-256"), "{said}");
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["bad"]);
}

#[test]
fn what_is_built_in_moves_with_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("dist/kosmosg");
    std::fs::create_dir(dir.path().join("dist")).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_kosmosg"), &program).unwrap();
    // In the checkout, then beside the program: what is there is no bundle, and its place is told.
    for (models, place) in [("models", "dist/../models"), ("dist/models", "dist/models")] {
        let models = dir.path().join(models);
        std::fs::create_dir_all(models.join("tiny")).unwrap();
        std::fs::write(models.join("judge.gguf"), "").unwrap();
        for arguments in [&["generate", "--prompt", "x", "-o", "x.png"][..], &["eval", "judge"]] {
            let output = Command::new(&program).args(arguments).output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(said.contains(text(&dir.path().join(place))), "{said}");
        }
    }
}

#[test]
fn names_and_sizes_that_pictures_cannot_have_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    for (arguments, name) in [
        (&["generate", "--prompt", "x", "-o"][..], "x.jpg"),
        (&["sprite", "-o"], "x.webp"),
        (&["eval", "sprites", "--subjects", "2", "--sheet"], "x.svg"),
        (&["train", "plot", "--run", text(dir.path()), "-o"], "x.jpg"),
        (&["train", "plot", text(dir.path()), "-o"], "x.jpg"),
    ] {
        let said = complaint(&[arguments, &[text(&file(name))]].concat());
        assert!(said.contains(name) && said.contains(".png"), "{said}");
    }
    let out = file("x.PNG");
    for (size, nearest) in [("63", "56"), ("3", "8"), ("0", "8"), ("4294967295", "4294967288")] {
        let said = complaint(&["generate", "--prompt", "x", "--height", size, "-o", text(&out)]);
        assert!(said.contains(&format!("--height is {size}; choose a multiple of 8, such as {nearest}")), "{said}");
    }
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
    assert!(kosmosg(&["sprite", "-o", text(&out)]).status.success());
}

#[test]
fn loss_curves_are_put_beside_what_they_tell_of() {
    let dir = tempfile::tempdir().unwrap();
    let run = text(dir.path());
    std::fs::create_dir(dir.path().join("vae")).unwrap();
    let log = "step,samples,seconds,lr,norm,loss\n1,8,1.0,1e-3,0.5,2.0\n2,16,1.0,1e-3,0.5,1.0\n";
    std::fs::write(dir.path().join("vae/log.csv"), log).unwrap();
    assert!(kosmosg(&["train", "plot", run]).status.success());
    assert!(std::fs::read_to_string(dir.path().join("loss.svg")).unwrap().starts_with("<svg"));
    assert!(complaint(&["train", "vae", run]).contains("--run"));
}

#[test]
fn the_stage_that_is_missing_is_told_as_a_command() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("my run");
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/miniature.toml");
    let options = ["--config", text(&config), "--set", "decoder.draws=1", "--run", text(&run)];
    let said = complaint(&[&["train", "decoder"][..], &options].concat());
    let command =
        format!("`kosmosg train vae --config {} --set decoder.draws=1 --run '{}'`", text(&config), text(&run));
    assert!(said.contains(&command) && said.contains("stage vae"), "{said}");
}

#[test]
fn places_that_are_missing_are_named_before_the_work() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing/out");
    for (arguments, why) in [
        (&["generate", "--prompt", "x", "-o"][..], "there is no folder"),
        (&["encode", "--prompt", "x", "-o"], "there is no folder"),
        (&["encode", "--prompt", "x", "--against"], "No such file"),
        (&["eval", "sprites", "--subjects", "2", "--sheet"], "there is no folder"),
        (&["eval", "sprites", "--subjects", "2", "-o"], "there is no folder"),
        (&["eval", "sprites", "--subjects", "2", "--bundle"], "opening the bundle"),
    ] {
        let arguments = [arguments, &[text(&missing)]].concat();
        let output = kosmosg(&arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(text(&missing)) && said.contains(why), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty(), "{arguments:?} did something before");
    }
}

/// Writes tensors in Hugging Face's form.
fn write_safetensors(path: &Path, tensors: &Tensors) {
    let bytes: Vec<_> = tensors
        .iter()
        .map(|(name, tensor)| {
            let bytes: Vec<u8> = tensor.to_f32().iter().flat_map(|x| x.to_le_bytes()).collect();
            (name, tensor.shape().to_vec(), bytes)
        })
        .collect();
    let views =
        bytes.iter().map(|(name, shape, bytes)| (*name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// A picture of the built-in model in two steps, and its recipe, with more arguments.
fn picture_with(dir: &Path, more: &[&str]) -> (Picture, Recipe) {
    let out = dir.join("out.png");
    let common = ["generate", "--prompt", "a red ball on the beach", "--steps", "2", "-o", text(&out)];
    let made = kosmosg(&[&common, more].concat());
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let png = std::fs::read(&out).unwrap();
    (Picture::decode(&png).unwrap(), Recipe::read(&png).unwrap().unwrap())
}

fn filled(shape: &[usize], value: f32) -> HostTensor {
    HostTensor::from_f32(shape.to_vec(), &vec![value; shape.iter().product()])
}

#[test]
fn a_lora_changes_the_picture_by_its_strength() {
    let dir = tempfile::tempdir().unwrap();
    let unet = Folder::open(tiny()).unwrap().part("unet").unwrap();
    let module = "mid_block.attentions.0.transformer_blocks.0.attn2.to_v";
    let &[output, input] = unet[&format!("{module}.weight")].shape() else { panic!("a matrix") };
    let lora = dir.path().join("wool.safetensors");
    let update = Tensors::from([
        (format!("unet.{module}.lora_A.weight"), filled(&[1, input], 0.3)),
        (format!("unet.{module}.lora_B.weight"), filled(&[output, 1], 0.3)),
    ]);
    write_safetensors(&lora, &update);
    let (plain, recipe) = picture_with(dir.path(), &[]);
    assert!(recipe.adapters.is_empty());
    let (still, _) = picture_with(dir.path(), &["--lora", &format!("{}:0", text(&lora))]);
    assert_eq!(still, plain);
    let (changed, recipe) = picture_with(dir.path(), &["--lora", &format!("{}:2", text(&lora))]);
    assert_ne!(changed, plain);
    assert_eq!(recipe.adapters, ["lora wool.safetensors × 2"]);

    let update = Tensors::from([("unet.elsewhere.lora_A.weight".to_owned(), filled(&[1, 3], 1.0))]);
    write_safetensors(&lora, &update);
    let said = complaint(&["generate", "--prompt", "x", "--lora", text(&lora), "-o", "x.png"]);
    assert!(said.contains("wool.safetensors") && said.contains("unet.elsewhere"), "{said}");
    write_safetensors(&lora, &Tensors::new());
    let said = complaint(&["generate", "--prompt", "x", "--lora", text(&lora), "-o", "x.png"]);
    assert!(said.contains("changes nothing"), "{said}");
}

#[test]
fn a_controlnet_follows_its_picture() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::open(tiny()).unwrap();
    let sizes = folder.manifest().networks.unet.clone();
    // A copy of the way down, reading the picture by convolutions of one value, into outputs of one value.
    let write = |value: f32| {
        let of_encoder = ["conv_in.", "time_embedding.", "down_blocks.", "mid_block."];
        let is_of_encoder = |name: &String| of_encoder.iter().any(|part| name.starts_with(part));
        let mut tensors: Tensors =
            folder.part("unet").unwrap().into_iter().filter(|(name, _)| is_of_encoder(name)).collect();
        let mut conv = |name: String, shape: [usize; 4], value: f32| {
            tensors.insert(format!("{name}.weight"), filled(&shape, value));
            tensors.insert(format!("{name}.bias"), filled(&shape[..1], 0.0));
        };
        let embedding = |name: &str| format!("controlnet_cond_embedding.{name}");
        conv(embedding("conv_in"), [8, 3, 3, 3], 0.2);
        (0..4).for_each(|i| conv(embedding(&format!("blocks.{i}")), [8, 8, 3, 3], 0.05));
        conv(embedding("conv_out"), [sizes.block_out_channels[0], 8, 3, 3], 0.2);
        let levels = sizes.block_out_channels.len();
        let mut skips = vec![sizes.block_out_channels[0]];
        for (level, &width) in sizes.block_out_channels.iter().enumerate() {
            skips.extend(vec![width; sizes.layers_per_block.at(level) + usize::from(level + 1 < levels)]);
        }
        let middle = sizes.block_out_channels[levels - 1];
        for (i, &width) in skips.iter().enumerate() {
            conv(format!("controlnet_down_blocks.{i}"), [width, width, 1, 1], value);
        }
        conv("controlnet_mid_block".into(), [middle, middle, 1, 1], value);
        let mut config = serde_json::to_value(&sizes).unwrap();
        config["conditioning_embedding_out_channels"] = serde_json::json!([8, 8, 8]);
        std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        write_safetensors(&dir.path().join("diffusion_pytorch_model.safetensors"), &tensors);
    };
    let pictures = [7, 8].map(|seed| {
        let path = dir.path().join(format!("{seed}.png"));
        assert!(kosmosg(&["sprite", "--seed", &seed.to_string(), "-o", text(&path)]).status.success());
        path
    });
    let controlled = |picture: &Path, scale: &str| {
        let more = ["--controlnet", text(dir.path()), "--control", text(picture), "--control-scale", scale];
        picture_with(dir.path(), &more)
    };
    let (plain, _) = picture_with(dir.path(), &[]);
    write(0.0);
    assert_eq!(controlled(&pictures[0], "1").0, plain);
    write(0.01);
    let (a, recipe) = controlled(&pictures[0], "1");
    assert!(recipe.adapters[0].starts_with("controlnet ") && recipe.adapters[0].ends_with(" × 1"), "{recipe:?}");
    assert_ne!(a, plain);
    assert_ne!(controlled(&pictures[1], "1").0, a);
    assert_eq!(controlled(&pictures[0], "0").0, plain);
    let wide = ["--controlnet", text(dir.path()), "--control", text(&pictures[0]), "--width", "96", "--height", "48"];
    let (wide, _) = picture_with(dir.path(), &wide);
    assert_eq!((wide.width(), wide.height()), (96, 48));
}

#[test]
fn each_of_several_pictures_can_be_made_again_alone() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.png");
    let common = ["generate", "--prompt", "a star", "--steps", "2", "-o", text(&out)];
    assert!(kosmosg(&[&common[..], &["--count", "3"]].concat()).status.success());
    let third = std::fs::read(dir.path().join("out-3.png")).unwrap();
    assert!(kosmosg(&[&common[..], &["--picture", "2"]].concat()).status.success());
    assert_eq!(std::fs::read(&out).unwrap(), third);
    let shown = kosmosg(&["info", text(&out)]);
    let said = String::from_utf8(shown.stdout).unwrap();
    assert!(said.contains("a star") && said.contains("Batch pos: 2"), "{said}");
    let error = complaint(&["info", text(&tiny().join("bundle.json"))]);
    assert!(error.contains("bundle.json"), "{error}");
}

/// The folder of numbers with one of them changed.
#[test]
fn verify_fails_on_a_wrong_number_and_on_none() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/preprocess");
    let right = kosmosg(&["verify", text(&fixture), "--json"]);
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&right.stdout).unwrap();
    assert!(right.status.success() && rows.len() == 10);
    assert!(rows.iter().all(|row| row["error"].as_f64().unwrap() <= 1e-6 && row["tolerance"] == 2e-3), "{rows:?}");

    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(&fixture).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    let cases = dir.path().join("cases.safetensors");
    let bytes = std::fs::read(&cases).unwrap();
    let mut tensors = Tensors::new();
    for (name, view) in safetensors::SafeTensors::deserialize(&bytes).unwrap().tensors() {
        let numbers: Vec<f32> =
            view.data().chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect();
        tensors.insert(name, HostTensor::from_f32(view.shape().to_vec(), &numbers));
    }
    let (name, wrong) = tensors.iter().next().map(|(name, tensor)| (name.clone(), tensor.clone())).unwrap();
    let numbers: Vec<f32> = wrong.to_f32().iter().map(|x| x * 1.01).collect();
    tensors.insert(name.clone(), HostTensor::from_f32(wrong.shape().to_vec(), &numbers));
    write_safetensors(&cases, &tensors);
    let output = kosmosg(&["verify", text(dir.path())]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let line = said.lines().find(|line| line.ends_with("FAILED")).unwrap();
    assert!(line.starts_with(&name) && said.contains("9 passed, 1 failed"), "{said}");

    write_safetensors(&cases, &Tensors::new());
    std::fs::write(dir.path().join("cases.json"), "[]").unwrap();
    assert!(complaint(&["verify", text(dir.path())]).contains("nothing to compare"));
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
