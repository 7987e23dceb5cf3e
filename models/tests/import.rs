//! What `kosmosg import` makes of the published forms, and what it says to files that are none.
#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kosmosg::bundle::{BundleError, Existing, Folder, Planned, Writer};
use kosmosg::weights::{DType, HostTensor, safetensors as reader};
use kosmosg_models::import::source::{self, Source as _};
use kosmosg_models::import::stable_diffusion::StableDiffusion;
use kosmosg_models::import::torch::TorchFile;
use safetensors::tensor::{Dtype, TensorView};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

fn kosmosg(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kosmosg")).args(arguments).output().unwrap()
}

/// The arguments of an import of the small networks, with some of them otherwise.
fn import_arguments(out: &Path, changes: &[(&str, &Path)]) -> Vec<String> {
    let kosmosg_files = fixtures().join("kosmosg");
    let mut arguments = BTreeMap::from([
        ("--checkpoint", kosmosg_files.join("model.safetensors")),
        ("--spm", kosmosg_files.join("sentencepiece.bpe.model")),
        ("--dict", kosmosg_files.join("dict.txt")),
        ("--network", kosmosg_files.join("config.json")),
        ("--decoder", fixtures().join("sd")),
        ("-o", out.to_owned()),
    ]);
    arguments.extend(changes.iter().map(|(name, path)| (*name, path.to_path_buf())));
    let arguments = arguments.into_iter().flat_map(|(name, path)| [name.to_owned(), path.to_str().unwrap().to_owned()]);
    ["import".to_owned()].into_iter().chain(arguments).collect()
}

fn import(out: &Path, changes: &[(&str, &Path)]) -> Output {
    let arguments = import_arguments(out, changes);
    kosmosg(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Imports what must be refused, and returns what is said.
fn complaint(changes: &[(&str, &Path)]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("bundle");
    let output = import(&out, changes);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(!said.contains("panicked") && !out.exists(), "{said}");
    said
}

fn tensors(path: &Path) -> BTreeMap<String, HostTensor> {
    reader::read("fixture", fs::read(path).unwrap()).unwrap()
}

fn write(path: &Path, tensors: &BTreeMap<String, HostTensor>) {
    let bytes: Vec<_> = tensors.iter().map(|(name, tensor)| (name, tensor.shape(), tensor.to_f32())).collect();
    let bytes: Vec<_> = bytes
        .into_iter()
        .map(|(name, shape, numbers)| {
            (name, shape, numbers.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>())
        })
        .collect();
    let views =
        bytes.iter().map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap()));
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn both_forms_of_torch_are_read() {
    let values = fs::read(fixtures().join("torch/values.json")).unwrap();
    let values: BTreeMap<String, (Vec<usize>, Vec<f64>)> = serde_json::from_slice(&values).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let big = dir.path().join("big.pt");
    fs::write(&big, repacked(&fixtures().join("torch/new.pt"), big_endian)).unwrap();
    for path in [fixtures().join("torch/new.pt"), fixtures().join("torch/old.pt"), big] {
        let file = TorchFile::open(&path).unwrap().tensors().unwrap();
        assert_eq!(file.shapes().into_keys().collect::<Vec<_>>(), values.keys().collect::<Vec<_>>());
        for (name, (shape, numbers)) in &values {
            let tensor = file.read(name).unwrap();
            let numbers: Vec<f32> = numbers.iter().map(|&number| number as f32).collect();
            assert_eq!((tensor.shape(), tensor.to_f32()), (&shape[..], numbers), "{name} of {}", path.display());
        }
    }
}

/// A zip file with its entries changed.
fn repacked(path: &Path, change: impl Fn(&str, Vec<u8>) -> Vec<u8>) -> Vec<u8> {
    let mut zip = ZipArchive::new(fs::File::open(path).unwrap()).unwrap();
    let mut out = ZipWriter::new(Cursor::new(Vec::new()));
    for i in 0..zip.len() {
        let mut entry = zip.by_index(i).unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let name = entry.name().unwrap().into_owned();
        out.start_file(&name, SimpleFileOptions::default().compression_method(CompressionMethod::Stored)).unwrap();
        out.write_all(&change(&name, bytes)).unwrap();
    }
    out.finish().unwrap().into_inner()
}

/// What torch writes on a machine of the other order. The fixture's storages are of numbers of 4 bytes, but for a few.
fn big_endian(name: &str, mut bytes: Vec<u8>) -> Vec<u8> {
    if name.ends_with("/byteorder") {
        return b"big".to_vec();
    }
    let size = match (name.rsplit_once("/data/"), bytes.len()) {
        (None, _) => return bytes,
        // Two halves, two bfloats, and two doubles or a count.
        (_, 4) if bytes != 7f32.to_le_bytes() && bytes != 4f32.to_le_bytes() => 2,
        (_, 16 | 8) => 8,
        _ => 4,
    };
    bytes.chunks_exact_mut(size).for_each(<[u8]>::reverse);
    bytes
}

#[test]
fn what_is_no_checkpoint_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let new = fixtures().join("torch/new.pt");
    let with_pickle =
        |pickle: &[u8]| repacked(&new, |name, bytes| if name.ends_with("data.pkl") { pickle.to_vec() } else { bytes });
    let whole = fs::read(&new).unwrap();
    let old = fs::read(fixtures().join("torch/old.pt")).unwrap();
    for (path, why) in [
        (file("system.pt", &with_pickle(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.")), "`os.system`"),
        (file("text.pt", b"weights"), "no file that torch.save wrote"),
        (file("empty.pt", b""), "no file that torch.save wrote"),
        (file("cut.pt", &whole[..whole.len() / 2]), "zip file is damaged"),
        (file("cut-old.pt", &old[..old.len() - 40]), "truncated"),
        (
            file("no-pickle.pt", &repacked(&new, |name, bytes| if name.ends_with(".pkl") { vec![] } else { bytes })),
            "damaged",
        ),
        (file("list.pt", &with_pickle(b"\x80\x02].")), "no dictionary"),
        (file("numbers.pt", &with_pickle(b"\x80\x02}X\x01\x00\x00\x00aK\x01s.")), "no tensors"),
        (fixtures().join("torch/sparse.pt"), "_rebuild_sparse_tensor"),
        (fixtures().join("torch/repeated.pt"), "more numbers than its storage"),
        (dir.path().join("absent.pt"), "cannot read"),
    ] {
        let said = complaint(&[("--checkpoint", &path)]);
        assert!(said.contains(why), "{}: {said}", path.display());
    }
    let mut compressed = ZipWriter::new(Cursor::new(Vec::new()));
    compressed.start_file("x/data.pkl", SimpleFileOptions::default()).unwrap();
    compressed.write_all(b"\x80\x02}.").unwrap();
    let mut compressed = compressed.finish().unwrap().into_inner();
    // Deflated, say both of its headers.
    for (signature, at) in [(b"PK\x03\x04", 8), (b"PK\x01\x02", 10)] {
        let start = compressed.windows(4).position(|window| window == signature).unwrap();
        compressed[start + at] = 8;
    }
    let said = complaint(&[("--checkpoint", &file("compressed.pt", &compressed))]);
    assert!(said.contains("compressed"), "{said}");
}

/// How a bundle compares with a fixture's cases.
fn verify(bundle: &Path, fixture: &str) -> (Option<i32>, Vec<serde_json::Value>) {
    let cases = fixtures().join(fixture).join("cases.safetensors");
    let output = kosmosg(&["verify", bundle.to_str().unwrap(), "--cases", cases.to_str().unwrap(), "--json"]);
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

/// Imports a checkpoint, compares it, and returns what was said.
fn imported_has_the_published_numbers(out: &Path, checkpoint: &Path) -> String {
    let decoder = decoder_with_text(out.parent().unwrap());
    let output = import(out, &[("--checkpoint", checkpoint), ("--decoder", &decoder)]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("aligner.decoder… (") && said.contains("aligner.decoder_query"), "{said}");
    let bundle = Folder::open(out).unwrap();
    assert_eq!(bundle.manifest().name, "KOSMOS-G, 8 bit");
    let published = tensors(&fixtures().join("kosmosg/model.safetensors"));
    for part in ["vision", "mllm", "aligner"] {
        for (name, tensor) in bundle.part(part).unwrap() {
            let expected = published[&name].to_f32();
            let norm = |numbers: &mut dyn Iterator<Item = f32>| numbers.map(|x| x * x).sum::<f32>().sqrt();
            let error = norm(&mut tensor.to_f32().iter().zip(&expected).map(|(a, b)| a - b));
            assert!(error <= 0.01 * norm(&mut expected.iter().copied()), "{name}: {error}");
        }
    }
    assert!(!out.with_extension("unfinished").exists());
    let (code, rows) = verify(out, "kosmosg");
    assert_eq!(code, Some(0), "{rows:?}");
    let conditions = rows.iter().filter(|row| row["tensor"].as_str().unwrap().ends_with(".condition"));
    assert!(conditions.clone().count() >= 3 && conditions.clone().all(|row| row["cosine"].as_f64().unwrap() > 0.999));
    assert!(rows.iter().any(|row| row["tensor"] == "align.clip_embeddings"), "the text encoder was not compared");
    let (code, rows) = verify(out, "sd");
    assert_eq!(code, Some(0), "{rows:#?}");
    for name in ["unet.noise_pred", "vae.decoded", "vae.mean", "sample.ddim.5", "sample.image"] {
        let row = rows.iter().find(|row| row["tensor"] == name).expect(name);
        assert!(row["cosine"].as_f64().unwrap() > 0.99, "{row}");
    }
    said
}

#[test]
fn an_imported_bundle_has_the_published_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("bundle");
    // The tensors alone, as stage 2 has them: with the text encoder that it aligns with.
    let mut stage_2 = tensors(&fixtures().join("kosmosg/model.safetensors"));
    for (name, tensor) in tensors(&fixtures().join("kosmosg/text_encoder/model.safetensors")) {
        stage_2.insert(format!("aligner.clip_encoder.text_model.{name}"), tensor);
    }
    let path = dir.path().join("stage2.safetensors");
    write(&path, &stage_2);
    let said = imported_has_the_published_numbers(&dir.path().join("tensors"), &path);
    assert!(said.contains("aligner.clip_encoder… ("), "{said}");
    // A training checkpoint of fairseq, in 16 bits.
    imported_has_the_published_numbers(&out, &fixtures().join("kosmosg/checkpoint.pt"));
    let cases = fixtures().join("kosmosg/cases.safetensors");

    // The autoencoder and the tables stay as they are; all else is smaller, and further off.
    let smaller = dir.path().join("smaller");
    let [from, to] = [&out, &smaller].map(|path| path.to_str().unwrap());
    let output =
        kosmosg(&["quantize", from, "--quant", "q4_0", "-o", to, "--cases", cases.to_str().unwrap(), "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let conditions = said["condition_cosine"].as_object().unwrap();
    assert!(
        conditions.len() >= 3 && conditions.values().all(|cosine| (0.8..0.9999).contains(&cosine.as_f64().unwrap()))
    );
    for tensor in said["tensors"].as_array().unwrap() {
        let (error, form) = (tensor["error"].as_f64().unwrap(), tensor["form"].as_str().unwrap());
        assert_eq!(error > 0.0, form == "Q4_0", "{tensor}");
        assert!(error < 0.15, "{tensor}");
    }
    let [before, after] = [&out, &smaller].map(|dir| Folder::open(dir).unwrap().manifest().parts["mllm"].bytes);
    assert!(after < before);
    assert_eq!(Folder::open(&smaller).unwrap().manifest().name, "KOSMOS-G, 4 bit");
    for fixture in ["kosmosg", "sd"] {
        let (code, rows) = verify(&smaller, fixture);
        assert_eq!(code, Some(0), "{rows:#?}");
    }
    let output = kosmosg(&["verify", to]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("--cases"));
}

/// Whatever is said of a bundle's precision, what is not the fixture's is noticed.
#[test]
fn another_tensor_than_the_cases_were_made_with_fails() {
    let dir = tempfile::tempdir().unwrap();
    let decoder = decoder_with_text(dir.path());
    let file = decoder.join("vae/diffusion_pytorch_model.safetensors");
    let mut vae = tensors(&file);
    let last = vae.get_mut("decoder.conv_out.weight").unwrap();
    *last = HostTensor::from_f32(last.shape().to_vec(), &last.to_f32().iter().map(|x| x * 1.2).collect::<Vec<_>>());
    write(&file, &vae);
    let out = dir.path().join("bundle");
    assert!(import(&out, &[("--decoder", &decoder), ("--quant", Path::new("f16"))]).status.success());
    let (code, rows) = verify(&out, "sd");
    let failed = rows.iter().filter(|row| row["error"].as_f64() > row["tolerance"].as_f64());
    let failed: Vec<_> = failed.map(|row| row["tensor"].as_str().unwrap()).collect();
    assert_eq!((code, &failed[..]), (Some(1), &["vae.decoded", "sample.image"][..]));
}

#[test]
fn one_file_in_the_authors_names_is_the_same_decoder() {
    let dir = tempfile::tempdir().unwrap();
    let names = fs::read(fixtures().join("single-file.json")).unwrap();
    let names: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_slice(&names).unwrap();
    let mut single = BTreeMap::new();
    for (folder, names) in &names {
        for (name, tensor) in tensors(&fixtures().join("sd").join(folder).join("diffusion_pytorch_model.safetensors")) {
            let is_map = name.contains("mid_block.attentions.0.to_") && folder == "vae";
            let shape = if is_map && tensor.shape().len() == 2 {
                [tensor.shape(), &[1, 1]].concat()
            } else {
                tensor.shape().to_vec()
            };
            single.insert(names[&name].clone(), tensor.reshape(shape).unwrap());
        }
    }
    // The text encoder, as transformers 5 writes it, and then as older versions did.
    let text = fixtures().join("kosmosg/text_encoder");
    let of_text = |name: &str| format!("cond_stage_model.transformer.{name}");
    for (name, tensor) in tensors(&text.join("model.safetensors")) {
        single.insert(of_text(&format!("text_model.{name}")), tensor);
    }
    let unneeded = ["text_model.embeddings.position_ids", "text_projection.weight", "logit_scale"].map(of_text);
    for name in unneeded.into_iter().chain(["model_ema.decay".to_owned()]) {
        single.insert(name, HostTensor::from_f32(vec![1], &[1.0]));
    }
    let path = dir.path().join("v1.safetensors");
    write(&path, &single);
    let said = complaint(&[("--decoder", &path)]);
    assert!(said.contains("`unet` has widths [16, 32, 32, 32]") && said.contains("--network"), "{said}");

    let json = |path: PathBuf| serde_json::from_slice::<serde_json::Value>(&fs::read(path).unwrap()).unwrap();
    let mut sizes = json(fixtures().join("kosmosg/config.json"));
    for (part, folder) in [("unet", fixtures().join("sd/unet")), ("vae", fixtures().join("sd/vae")), ("text", text)] {
        sizes[part] = json(folder.join("config.json"));
    }
    let network = dir.path().join("sizes.json");
    fs::write(&network, sizes.to_string()).unwrap();
    let [one, several] = ["one", "several"].map(|name| dir.path().join(name));
    let output = import(&one, &[("--decoder", &path), ("--network", &network)]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("cond_stage_model.transformer… (3 tensors)") && said.contains("model_ema.decay"), "{said}");
    let output = import(&several, &[("--decoder", &decoder_with_text(dir.path()))]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let [one, several] = [one, several].map(|out| Folder::open(out).unwrap().manifest().clone());
    assert_eq!(one.networks, several.networks);
    assert_eq!(one.parts, several.parts);
    assert!(one.parts.contains_key("text"));
}

/// A folder of diffusers with a text encoder.
fn decoder_with_text(dir: &Path) -> PathBuf {
    let decoder = dir.join("decoder");
    for name in ["sd/unet", "sd/vae", "sd/scheduler", "kosmosg/text_encoder"] {
        let from = fixtures().join(name);
        copy(&from, &decoder.join(from.file_name().unwrap()));
    }
    decoder
}

/// The published folder says the first and last words of no tokenizer that there is.
#[test]
fn the_ends_of_clips_texts_are_put_right() {
    let dir = tempfile::tempdir().unwrap();
    let decoder = decoder_with_text(dir.path());
    let config = decoder.join("text_encoder/config.json");
    let ends = |words: u32| {
        let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        (json["vocab_size"], json["bos_token_id"], json["eos_token_id"]) = (words.into(), 0.into(), 2.into());
        fs::write(&config, json.to_string()).unwrap();
        let text = StableDiffusion::open(&decoder, None).unwrap().text.unwrap().config;
        (text.bos_token_id, text.eos_token_id)
    };
    assert_eq!(ends(49_408), (49_406, 49_407));
    assert_eq!(ends(99), (0, 2));
}

#[test]
fn weights_in_several_files_are_one_network() {
    let dir = tempfile::tempdir().unwrap();
    let unet = dir.path().join("unet");
    fs::create_dir(&unet).unwrap();
    for name in ["vae", "scheduler"] {
        copy(&fixtures().join("sd").join(name), &dir.path().join(name));
    }
    fs::copy(fixtures().join("sd/unet/config.json"), unet.join("config.json")).unwrap();
    let all = tensors(&fixtures().join("sd/unet/diffusion_pytorch_model.safetensors"));
    let middle = all.keys().nth(all.len() / 2).unwrap().clone();
    let (first, second): (BTreeMap<_, _>, BTreeMap<_, _>) = all.into_iter().partition(|(name, _)| *name < middle);
    let mut map = BTreeMap::new();
    for (file, tensors) in [("a.safetensors", &first), ("b.safetensors", &second)] {
        write(&unet.join(file), tensors);
        map.extend(tensors.keys().map(|name| (name.clone(), file)));
    }
    let index = unet.join("diffusion_pytorch_model.safetensors.index.json");
    fs::write(&index, serde_json::json!({ "weight_map": map }).to_string()).unwrap();
    let out = dir.path().join("bundle");
    let output = import(&out, &[("--decoder", dir.path())]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(Folder::open(&out).unwrap().part("unet").unwrap().len(), map.len());

    fs::write(&index, r#"{"weight_map": {"conv_in.weight": "../a.safetensors"}}"#).unwrap();
    let said = complaint(&[("--decoder", dir.path())]);
    assert!(said.contains("no file beside it"), "{said}");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

#[test]
fn what_does_not_fit_together_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let all = tensors(&fixtures().join("kosmosg/model.safetensors"));
    let changed = |name: &str, change: &dyn Fn(&mut BTreeMap<String, HostTensor>)| {
        let mut tensors = all.clone();
        change(&mut tensors);
        let path = dir.path().join(name).with_extension("safetensors");
        write(&path, &tensors);
        path
    };
    let norm = "gpt_model.decoder.layer_norm.bias";
    let nan = changed("nan", &|tensors| {
        let mut numbers = tensors[norm].to_f32();
        numbers[3] = f32::NAN;
        tensors.insert(norm.to_owned(), HostTensor::from_f32(vec![numbers.len()], &numbers));
    });
    let large = "gpt_model.decoder.layers.0.ffn.fc1.weight";
    let too_large = changed("too_large", &|tensors| {
        let mut numbers = tensors[large].to_f32();
        numbers[3] = 1e30;
        tensors.insert(large.to_owned(), HostTensor::from_f32(tensors[large].shape().to_vec(), &numbers));
    });
    let missing = changed("missing", &|tensors| _ = tensors.remove(norm));
    let strange = changed("strange", &|tensors| {
        tensors.insert("aligner.encoder.gate".to_owned(), HostTensor::from_f32(vec![1], &[0.0]));
    });
    let first_stage = changed("stage1", &|tensors| tensors.retain(|name, _| !name.starts_with("aligner.")));
    let dictionary = dir.path().join("dict.txt");
    fs::write(&dictionary, fs::read_to_string(fixtures().join("kosmosg/dict.txt")).unwrap() + "\nzebra 1\n").unwrap();
    for (change, why) in [
        (("--checkpoint", nan.as_path()), "number 3 is NaN"),
        (("--checkpoint", &too_large), "`gpt_model.decoder.layers.0.ffn.fc1.weight` cannot be stored so; --quant f32"),
        (("--checkpoint", &missing), "`gpt_model.decoder.layer_norm.bias` is missing"),
        (("--checkpoint", &strange), "`aligner.encoder.gate` is unexpected"),
        (("--checkpoint", &first_stage), "stage 1"),
        (("--dict", &dictionary), "do not belong together"),
        (("--decoder", &fixtures().join("sd-sizes")), "cross_attention_dim"),
        (("--decoder", &fixtures().join("kosmosg/model.safetensors")), "no checkpoint of Stable Diffusion"),
        (("--network", &fixtures().join("sd/unet/config.json")), "says no sizes"),
    ] {
        let said = complaint(&[change]);
        assert!(said.contains(why), "{change:?}: {said}");
    }
    // As they are, such numbers can be kept; until they are to be smaller.
    let [exact, smaller] = ["exact", "smaller"].map(|name| dir.path().join(name));
    let output = import(&exact, &[("--checkpoint", &too_large), ("--quant", Path::new("f32"))]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = kosmosg(&["quantize", exact.to_str().unwrap(), "--quant", "q4_0", "-o", smaller.to_str().unwrap()]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains(large) && said.contains("reach 1e30"), "{said}");
    assert!(!smaller.exists());
}

/// What no sampler can follow is to be known before gigabytes are written.
#[test]
fn a_schedule_that_is_not_supported_is_refused_first() {
    let dir = tempfile::tempdir().unwrap();
    let decoder = decoder_with_text(dir.path());
    let path = decoder.join("scheduler/scheduler_config.json");
    let mut scheduler: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    scheduler["rescale_betas_zero_snr"] = true.into();
    fs::write(&path, scheduler.to_string()).unwrap();
    let output = import(&dir.path().join("bundle"), &[("--decoder", &decoder)]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("rescale_betas_zero_snr"), "{said}");
    assert!(!dir.path().join("bundle.unfinished").exists());
}

#[test]
fn damaged_safetensors_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let header = |json: &str, data: usize| {
        let path = dir.path().join("x.safetensors");
        let bytes = [&(json.len() as u64).to_le_bytes(), json.as_bytes(), &vec![0; data]].concat();
        fs::write(&path, bytes).unwrap();
        source::open(&path).err().map(|error| format!("{error:#}")).unwrap_or_default()
    };
    let tensor = |start: usize, end: usize| format!(r#"{{"dtype":"F32","shape":[2],"data_offsets":[{start},{end}]}}"#);
    assert_eq!(header(&format!(r#"{{"a":{}}}"#, tensor(0, 8)), 8), "");
    assert!(header(&format!(r#"{{"a":{}}}"#, tensor(0, 8)), 7).contains("truncated"));
    assert!(header(&format!(r#"{{"a":{},"b":{}}}"#, tensor(0, 8), tensor(4, 12)), 12).contains("no safetensors"));
    assert!(header(&format!(r#"{{"a":{}}}"#, tensor(8, 0)), 8).contains("no safetensors"));
    assert!(
        header(r#"{"a":{"dtype":"F32","shape":[18446744073709551615,9],"data_offsets":[0,8]}}"#, 8)
            .contains("no safetensors")
    );
    assert!(header("{", 0).contains("no safetensors"));
    let path = dir.path().join("huge.safetensors");
    fs::write(&path, u64::MAX.to_le_bytes()).unwrap();
    assert!(format!("{:#}", source::open(&path).err().unwrap()).contains("header"));
}

/// As the published files are imported at full size: a checkpoint that torch could have written, with its own words.
#[test]
fn made_up_checkpoints_are_imported() {
    let dir = tempfile::tempdir().unwrap();
    let made = dir.path().join("made");
    let network = fixtures().join("kosmosg/config.json");
    let made_up = |out: &Path| {
        let [network, out] = [&network, out].map(|path| path.to_str().unwrap());
        kosmosg(&["synth", "--preset", "kosmos-g", "--seed", "3", "--network", network, "-o", out])
    };
    assert!(made_up(&made).status.success());
    // Real weights have the same names.
    let checkpoint = made.join("checkpoint_final.pt");
    fs::write(&checkpoint, "real").unwrap();
    let output = made_up(&made);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("made is not empty"));
    assert_eq!(fs::read(&checkpoint).unwrap(), b"real");
    fs::remove_dir_all(&made).unwrap();
    assert!(made_up(&made).status.success());
    let out = dir.path().join("bundle");
    let [checkpoint, spm, dict] =
        ["checkpoint_final.pt", "sentencepiece.bpe.model", "dict.txt"].map(|name| made.join(name));
    let output = import(&out, &[("--checkpoint", &checkpoint), ("--spm", &spm), ("--dict", &dict)]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let picture = dir.path().join("x.png");
    let [bundle, picture] = [&out, &picture].map(|path| path.to_str().unwrap());
    let output = kosmosg(&["generate", "--bundle", bundle, "--prompt", "a baba", "--steps", "2", "-o", picture]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn sizes_that_are_not_looked_at_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("made");
    let output = kosmosg(&["synth", "--preset", "sd15", "--network", "nowhere.json", "-o", out.to_str().unwrap()]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("--network") && !out.exists(), "{said}");
}

/// Nobody takes the half of a checkpoint for a whole one.
#[cfg(unix)]
#[test]
fn an_interrupted_synth_leaves_no_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let network = fixtures().join("kosmosg/config.json");
    // The system ends the program while it writes the checkpoint, its only large file.
    let command = format!("ulimit -f 100; exec {} \"$@\"", env!("CARGO_BIN_EXE_kosmosg"));
    let made_up = ["synth", "--preset", "kosmos-g", "--network", network.to_str().unwrap(), "-o"];
    let stopped =
        Command::new("bash").args(["-c", &command, "kosmosg"]).args(made_up).arg(dir.path()).output().unwrap();
    assert!(!stopped.status.success());
    assert!(dir.path().join("dict.txt").exists() && !dir.path().join("checkpoint_final.pt").exists());
}

/// Whoever is stopped half-way can go on, and nobody takes the half for a bundle.
#[cfg(unix)]
#[test]
fn an_interrupted_import_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("bundle");
    // The system ends a program whose file grows beyond this: after some parts, before the largest.
    let command = format!("ulimit -f 600; exec {} \"$@\"", env!("CARGO_BIN_EXE_kosmosg"));
    let decoder = decoder_with_text(dir.path());
    let arguments = import_arguments(&out, &[("--decoder", &decoder)]);
    let stop = || {
        let stopped = Command::new("bash").args(["-c", &command, "kosmosg"]).args(&arguments).output().unwrap();
        assert!(!stopped.status.success());
    };
    let resume = || {
        let output = kosmosg(&arguments.iter().map(String::as_str).chain(["--resume"]).collect::<Vec<_>>());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let written = |path: PathBuf| fs::metadata(path).and_then(|metadata| metadata.modified()).unwrap();
    let unfinished = dir.path().join("bundle.unfinished");
    stop();
    assert!(unfinished.join("unfinished.json").exists() && !out.exists());
    let before = written(unfinished.join("aligner.gguf"));
    resume();
    assert_eq!(written(out.join("aligner.gguf")), before, "the finished file was written again");
    assert!(!unfinished.exists() && !out.join("unfinished.json").exists());

    let anew = dir.path().join("anew");
    assert!(import(&anew, &[("--decoder", &decoder)]).status.success());
    assert_eq!(Folder::open(&anew).unwrap().manifest(), Folder::open(&out).unwrap().manifest());

    // With another file in the decoder's folder, all begins again.
    fs::remove_dir_all(&out).unwrap();
    stop();
    let before = written(unfinished.join("aligner.gguf"));
    let weights = decoder.join("vae/diffusion_pytorch_model.safetensors");
    fs::write(&weights, fs::read(&weights).unwrap()).unwrap();
    resume();
    assert_ne!(written(out.join("aligner.gguf")), before, "a file of another import was kept");

    // What is there is replaced only by who says so.
    let output = import(&out, &[("--decoder", &decoder)]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("bundle is a bundle already"), "{said}");
    let before = written(out.join("aligner.gguf"));
    let output = kosmosg(&arguments.iter().map(String::as_str).chain(["--force"]).collect::<Vec<_>>());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_ne!(written(out.join("aligner.gguf")), before);
}

#[test]
fn only_what_the_same_writer_left_whole_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let unfinished = dir.path().join("bundle.unfinished");
    let (file, state) = (unfinished.join("a.gguf"), unfinished.join("unfinished.json"));
    let planned = Planned { name: "x".into(), shape: vec![2], dtype: DType::F32 };
    let is_written_again = |basis: &str| {
        let existing = Existing { resume: true, replace: false };
        let mut writer = Writer::create(&dir.path().join("bundle"), basis, existing).unwrap();
        let mut is_read = false;
        let read = |_: &Planned| {
            is_read = true;
            Ok::<_, BundleError>(HostTensor::from_f32(vec![2], &[1.0, 2.0]))
        };
        writer.part("a", std::slice::from_ref(&planned), read).unwrap();
        is_read
    };
    assert_eq!([is_written_again("x"), is_written_again("x")], [true, false]);
    let whole = fs::read(&file).unwrap();
    let mut changed = whole.clone();
    changed[whole.len() - 1] ^= 1;
    for contents in [&whole[1..], &changed] {
        fs::write(&file, contents).unwrap();
        assert!(is_written_again("x"));
    }
    fs::remove_file(&file).unwrap();
    assert_eq!([is_written_again("x"), is_written_again("y"), is_written_again("y")], [true, true, false]);
    let older = fs::read_to_string(&state).unwrap().replacen(env!("CARGO_PKG_VERSION"), "0.0.0-old", 1);
    fs::write(&state, older).unwrap();
    assert!(is_written_again("y"));
    assert_eq!(fs::read(&file).unwrap(), whole);
}
