//! All stages of training on networks so small that they take seconds.
#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kosmosg::bundle::{Defaults, Existing, Folder, Manifest};
use kosmosg::config::{AlignerConfig, PerLevel};
use kosmosg::engine::burn::{Burn, BurnDevice};
use kosmosg::noise::Rng;
use kosmosg::picture::Picture;
use kosmosg::pipeline::{Pipeline, Request};
use kosmosg::prompt::PromptDocument;
use kosmosg::protocol::GenerateSettings;
use kosmosg::schedule::TimestepSpacing;
use kosmosg_models::quantize::Quant;
use kosmosg_models::sprites::{self, Backdrop, Creature, Edit, Scene, Split};
use kosmosg_models::train::{self, Stage, TrainConfig, TrainOptions};

const MINIATURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/miniature.toml");

/// The miniature with these settings of every stage's training.
fn miniature(settings: &[&str]) -> TrainConfig {
    let of_all = |setting| Stage::ALL.map(|stage| format!("{}.training.{setting}", stage.name()));
    let changes = settings.iter().flat_map(of_all).map(|change| change.parse().unwrap());
    TrainConfig::read(MINIATURE.as_ref(), &changes.collect::<Vec<_>>()).unwrap()
}

fn run(stage: Stage, run: &Path, config: &TrainConfig) -> anyhow::Result<()> {
    let device = BurnDevice::cpu().training();
    train::run(stage, &TrainOptions { config: config.clone(), run: run.to_owned(), device })
}

/// Exports to where nothing is yet.
fn export(run: &Path, config: &TrainConfig, quant: Quant, out: &Path) -> anyhow::Result<Manifest> {
    train::export(run, config, quant, out, Existing::default())
}

fn weights(run: &Path, stage: Stage) -> PathBuf {
    run.join(stage.name()).join("weights.gguf")
}

/// The columns `step` and `loss` of a stage's log.
fn losses(run: &Path, stage: Stage) -> Vec<(u64, f64)> {
    let log = fs::read_to_string(run.join(stage.name()).join("log.csv")).unwrap();
    let row = |line: &str| {
        let cells: Vec<_> = line.split(',').collect();
        (cells[0].parse().unwrap(), cells[5].parse().unwrap())
    };
    log.lines().skip(1).map(row).collect()
}

/// Copies a stage's folder to another run.
fn copy(stage: Stage, from: &Path, to: &Path) {
    copy_folder(&from.join(stage.name()), &to.join(stage.name()), false);
}

fn copy_folder(from: &Path, to: &Path, with_folders: bool) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let copy = to.join(path.file_name().unwrap());
        if path.is_file() {
            fs::copy(&path, copy).unwrap();
        } else if with_folders {
            copy_folder(&path, &copy, true);
        }
    }
}

#[test]
fn every_stage_runs_and_the_bundle_makes_pictures() {
    let dir = tempfile::tempdir().unwrap();
    let config = miniature(&[]);
    let error = run(Stage::Decoder, dir.path(), &config).unwrap_err().to_string();
    assert!(error.contains("stage vae") && error.contains("is not trained yet"), "{error}");

    for stage in Stage::ALL {
        let before: Vec<_> = Stage::ALL.map(|stage| fs::read(weights(dir.path(), stage)).ok()).into_iter().collect();
        run(stage, dir.path(), &config).unwrap();
        for (other, before) in Stage::ALL.into_iter().zip(before).filter(|(other, _)| *other != stage) {
            assert_eq!(fs::read(weights(dir.path(), other)).ok(), before, "{stage:?} changed {other:?}");
        }
    }
    only_named_parameters_changed(dir.path(), &config);
    for stage in [Stage::Vae, Stage::Decoder, Stage::Instruct] {
        let sheet = fs::read(dir.path().join(stage.name()).join("sheets/0000020.png")).unwrap();
        assert!(Picture::decode(&sheet).unwrap().width() > 8 * 32);
    }
    let prompts = fs::read_to_string(dir.path().join("instruct/sheets/prompts.txt")).unwrap();
    assert!(prompts.lines().all(|prompt| prompt.contains("<i>")) && prompts.lines().count() == 16, "{prompts}");

    let out = dir.path().join("bundle");
    let manifest = export(dir.path(), &config, Quant::Q8_0, &out).unwrap();
    check_bundle(&out, &manifest);
    what_a_run_wrote_is_known(dir.path(), &config, &out);
    a_damaged_bundle_makes_no_run(&out, &config);
    a_bundle_can_be_trained_further(&out, dir.path(), &config);
    a_bundle_of_32_bits_loses_nothing(dir.path(), &config);
    a_stage_goes_on_only_with_what_it_began_with(dir.path(), &config);
}

fn what_a_run_wrote_is_known(run: &Path, config: &TrainConfig, out: &Path) {
    let export = |replace| train::export(run, config, Quant::Q8_0, out, Existing { replace, resume: false });
    let error = export(false).unwrap_err().to_string();
    assert!(error.contains("is a bundle already") && error.contains("--force"), "{error}");
    export(true).unwrap();
    assert!(train::is_exported(run, out));
    let other = tempfile::tempdir().unwrap();
    assert!(!train::is_exported(other.path(), out) && !train::is_exported(other.path(), other.path()));
    copy_folder(out, other.path(), false);
    let mut manifest = Folder::open(out).unwrap().manifest().clone();
    manifest.name = "another".into();
    fs::write(other.path().join("bundle.json"), serde_json::to_vec_pretty(&manifest).unwrap()).unwrap();
    assert!(!train::is_exported(run, other.path()));
}

/// The last part that an import reads is bad: a whole bundle can be imported into the same run.
fn a_damaged_bundle_makes_no_run(bundle: &Path, config: &TrainConfig) {
    let dir = tempfile::tempdir().unwrap();
    let [damaged, run] = ["damaged", "run"].map(|name| dir.path().join(name));
    copy_folder(bundle, &damaged, false);
    fs::write(damaged.join("aligner.gguf"), b"bad").unwrap();
    let error = train::import(&damaged, config, &run).unwrap_err().to_string();
    assert!(error.contains("aligner.gguf is corrupt"), "{error}");
    train::import(bundle, config, &run).unwrap();
}

#[test]
fn a_stage_is_trained_by_one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let config = miniature(&["steps=1", "sheet_every=0"]);
    fs::create_dir(dir.path().join("vae")).unwrap();
    let other = fs::File::create(dir.path().join("vae/lock")).unwrap();
    other.lock().unwrap();
    let error = run(Stage::Vae, dir.path(), &config).unwrap_err().to_string();
    assert!(
        error.contains("another process trains this stage") && !weights(dir.path(), Stage::Vae).exists(),
        "{error}"
    );
    drop(other);
    run(Stage::Vae, dir.path(), &config).unwrap();
    run(Stage::Vae, dir.path(), &config).unwrap();
}

fn a_bundle_of_32_bits_loses_nothing(first: &Path, config: &TrainConfig) {
    let dir = tempfile::tempdir().unwrap();
    let [bundle, again] = ["bundle", "again"].map(|name| dir.path().join(name));
    export(first, config, Quant::F32, &bundle).unwrap();
    train::import(&bundle, config, &again).unwrap();
    for stage in [Stage::Vae, Stage::Decoder] {
        let [imported, trained] = [again.as_path(), first].map(|run| train::result(run, stage).unwrap());
        assert!(!imported.is_empty());
        assert!(imported.iter().all(|(name, tensor)| tensor.to_f32() == trained[name].to_f32()), "{}", stage.name());
    }
}

/// A run made of a bundle results in that bundle, and its stages begin with the bundle's weights.
fn a_bundle_can_be_trained_further(bundle: &Path, first: &Path, config: &TrainConfig) {
    let again = tempfile::tempdir().unwrap();
    train::import(bundle, config, again.path()).unwrap();
    for (stage, part) in [(Stage::Vae, "vae."), (Stage::Decoder, "unet."), (Stage::Decoder, "text.")] {
        let [imported, trained] = [again.path(), first].map(|run| train::result(run, stage).unwrap());
        for (name, tensor) in imported.iter().filter(|(name, _)| name.starts_with(part)) {
            let largest = trained[name].to_f32().iter().fold(0.0, |largest: f32, x| largest.max(x.abs()));
            let same = |(a, b): (&f32, &f32)| (a - b).abs() <= largest / 127.0;
            assert!(tensor.to_f32().iter().zip(&trained[name].to_f32()).all(same), "{name}");
        }
    }
    let exported = export(again.path(), config, Quant::Q8_0, &again.path().join("bundle")).unwrap();
    assert_eq!(exported.parts["unet"].bytes, Folder::open(bundle).unwrap().manifest().parts["unet"].bytes);
    let error = train::import(bundle, config, again.path()).unwrap_err().to_string();
    assert!(error.contains("a stage already"), "{error}");

    the_autoencoder_can_be_trained_on_while_its_latents_stay(again.path(), config);
    the_denoiser_can_be_trained_on_while_its_text_encoder_stays(bundle, config);

    let mut still = config.clone();
    (still.decoder.training.steps, still.decoder.training.lr) = (1, 0.0);
    run(Stage::Decoder, again.path(), &still).unwrap();
    let [ours, theirs] = [again.path(), first].map(|run| losses(run, Stage::Decoder)[0].1);
    assert!(ours < theirs, "the first loss is {ours}, and was {theirs} of random weights");
    let error = export(again.path(), config, Quant::Q8_0, &again.path().join("mixed")).unwrap_err().to_string();
    assert!(error.contains("`stages.decoder`"), "{error}");

    let mut other = config.clone();
    other.networks.unet.norm_num_groups = 8;
    let error = train::import(bundle, &other, tempfile::tempdir().unwrap().path()).unwrap_err().to_string();
    assert!(error.contains("another `networks.unet.norm_num_groups`"), "{error}");
    what_only_sampling_looks_at_may_differ(bundle, config);
}

fn what_only_sampling_looks_at_may_differ(bundle: &Path, config: &TrainConfig) {
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("bundle");
    copy_folder(bundle, &other, false);
    let import = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = Folder::open(bundle).unwrap().manifest().clone();
        change(&mut manifest);
        fs::write(other.join("bundle.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
        train::import(&other, config, tempfile::tempdir().unwrap().path()).map_err(|error| error.to_string())
    };
    import(&|manifest| {
        manifest.scheduler.timestep_spacing = Some(TimestepSpacing::Leading);
        (manifest.networks.unet.sample_size, manifest.networks.vae.sample_size) = (None, Some(256));
    })
    .unwrap();
    let error = import(&|manifest| manifest.scheduler.beta_end = 0.02).unwrap_err();
    assert!(error.contains("another `scheduler.beta_end`"), "{error}");
    let error = import(&|manifest| manifest.networks.kosmosg.connector.heads = Some(1)).unwrap_err();
    assert!(error.contains("another `networks.kosmosg.connector.heads`"), "{error}");
}

#[test]
fn prepared_files_train_what_a_bundle_began() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = miniature(&["steps=2", "sheet_every=0"]);
    Stage::ALL.iter().for_each(|&stage| run(stage, &dir.path().join("world"), &config).unwrap());
    let bundle = dir.path().join("bundle");
    export(&dir.path().join("world"), &config, Quant::Q8_0, &bundle).unwrap();

    for (kind, lines) in [("constructed", constructed()), ("editing", edits()), ("captions", captions())] {
        fs::write(dir.path().join(kind).with_extension("tsv"), lines.join("\n")).unwrap();
    }
    let data = "[data]
        tokenizer = 'bundle/tokenizer.json'
        text_tokenizer = 'bundle/tokenizer.json'
        constructed = ['constructed.tsv']
        editing = ['editing.tsv']
        captions = ['captions.tsv']
        smallest_side = 32\n";
    config = miniature(&["steps=2", "sheet_every=2"]);
    (config.text, config.vision, config.imitate, config.judge) = (None, None, None, None);
    let path = dir.path().join("files.toml");
    fs::write(&path, toml::to_string(&config).unwrap() + data).unwrap();
    let mut config = TrainConfig::read(&path, &[]).unwrap();
    let files = dir.path().join("files");
    train::import(&bundle, &config, &files).unwrap();
    for stage in Stage::ALL.into_iter().filter(|&stage| config.training(stage).is_some()) {
        run(stage, &files, &config).unwrap();
        assert!(losses(&files, stage).iter().all(|(_, loss)| loss.is_finite()));
    }
    let prompts = fs::read_to_string(files.join("instruct/sheets/prompts.txt")).unwrap();
    assert!(prompts.lines().all(|prompt| prompt.contains("<i>")), "{prompts}");
    let manifest = export(&files, &config, Quant::Q8_0, &dir.path().join("trained")).unwrap();
    check_bundle(&dir.path().join("trained"), &manifest);

    let error = run(Stage::Vision, &files, &config).unwrap_err().to_string();
    assert!(error.contains("stage vision learns from the world of sprites"), "{error}");
    let shards = |config: &mut TrainConfig, paths: &[&str]| {
        config.data.as_mut().unwrap().editing = paths.iter().map(|path| dir.path().join(path)).collect();
    };
    shards(&mut config, &[]);
    let error = run(Stage::Instruct, &files, &config).unwrap_err().to_string();
    assert!(error.contains("`editing`"), "{error}");
    shards(&mut config, &["editing.tsv", "edits-2.tsv"]);
    let error = run(Stage::Instruct, &files, &config).unwrap_err().to_string();
    assert!(error.contains("edits-2.tsv"), "{error}");
}

fn cell(picture: &Picture) -> String {
    STANDARD.encode(picture.to_png(None))
}

/// Creatures in scenes, in the published form: caption, entities, picture, cut-outs.
fn constructed() -> Vec<String> {
    let line = |seed| {
        let mut rng = Rng::new(seed, 0);
        let creature = Creature::sample(&mut rng, Split::Train);
        let scene = Scene::with_creatures(&mut rng, &[creature]);
        let description = creature.description();
        let entity = description.split(',').next().unwrap();
        let cutouts = [Backdrop::White, Backdrop::Kept].map(|backdrop| cell(&sprites::cutout(&scene, 0, backdrop, 32)));
        format!("{description}\t{entity}\t{}\t{}", cell(&sprites::draw(&scene, 32)), cutouts.join("\t"))
    };
    (0..8).map(line).chain(["a line without pictures".into()]).collect()
}

fn edits() -> Vec<String> {
    let line = |seed| {
        let edit = Edit::sample(&mut Rng::new(seed, 0), Split::Train);
        let [source, target] = [&edit.source, &edit.target].map(|scene| cell(&sprites::draw(scene, 32)));
        format!("a creature\t{}\t{source}\t{target}", edit.instruction)
    };
    (0..8).map(line).collect()
}

fn captions() -> Vec<String> {
    let line = |seed| {
        let mut rng = Rng::new(seed, 0);
        let scene = Scene::sample(&mut rng, Split::Train);
        format!("{seed}\t{}\t{}\t32\t32", sprites::caption(&scene, &mut rng), cell(&sprites::draw(&scene, 32)))
    };
    (0..8).map(line).collect()
}

/// Stage 3 changes what it is told to train, and every other parameter has the same bits as before.
fn only_named_parameters_changed(run: &Path, config: &TrainConfig) {
    let mut before = train::result(run, Stage::Lm).unwrap();
    before.extend(train::result(run, Stage::Align).unwrap());
    let after = train::result(run, Stage::Instruct).unwrap();
    let mut frozen = 0;
    for (name, tensor) in &after {
        let trained = config.instruct.trained.iter().any(|beginning| name.starts_with(beginning.as_str()));
        let same = tensor.bytes() == before[name].bytes();
        // Words that no caption had keep their rows, but no tensor stays as a whole.
        assert_eq!(same, !trained, "{name}");
        frozen += usize::from(same);
    }
    assert!(frozen > 10 && after.keys().all(|name| !name.starts_with("unet.") && !name.starts_with("vae.")));
    let aligned = train::result(run, Stage::Align).unwrap();
    assert!(aligned.keys().all(|name| name.starts_with("aligner.")));
}

fn check_bundle(dir: &Path, manifest: &Manifest) {
    let folder = Folder::open(dir).unwrap();
    assert_eq!(folder.manifest(), manifest);
    assert_eq!(manifest.parts.keys().collect::<Vec<_>>(), ["aligner", "mllm", "text", "unet", "vae", "vision"]);
    assert!(matches!(manifest.defaults, Defaults { steps: 20, guidance: 4.0, .. }));
    let preview = manifest.preview.as_ref().unwrap();
    assert!(preview.weights.len() == 4 && preview.bias.iter().all(|bias| bias.abs() < 1.0), "{preview:?}");

    let pipeline = Pipeline::<Burn>::load(&folder, &BurnDevice::cpu()).unwrap();
    let request = Request {
        prompt: PromptDocument::from_text("A red Ball and <i>, on the beach.", 1).unwrap(),
        pictures: vec![Picture::new(32, 32, vec![200; 32 * 32 * 3]).unwrap()],
        negative: String::new(),
        settings: GenerateSettings { seed: 1, steps: Some(3), ..GenerateSettings::default() },
    };
    let mut previews = 0;
    let count = |_: &_, foreseen: &[f32]| {
        previews += usize::from(preview.picture(foreseen, manifest.latent_shape()).is_some());
    };
    let picture = pollster::block_on(pipeline.generate(&request, 0, count)).unwrap();
    assert_eq!((picture.width(), picture.height(), previews), (32, 32, 3));
}

/// Its encoder keeps its bits, its latents their scale, and what was trained on them still belongs to it.
fn the_autoencoder_can_be_trained_on_while_its_latents_stay(run_dir: &Path, config: &TrainConfig) {
    let scale = || fs::read(run_dir.join("vae/config.json")).unwrap();
    let before = (train::result(run_dir, Stage::Vae).unwrap(), scale());
    let mut other = config.clone();
    other.vae.trained = Some(["vae.decoder.", "vae.post_quant_conv."].map(String::from).to_vec());
    run(Stage::Vae, run_dir, &other).unwrap();
    for (name, tensor) in train::result(run_dir, Stage::Vae).unwrap() {
        let is_kept = name.starts_with("vae.encoder.") || name.starts_with("vae.quant_conv.");
        assert_eq!(tensor.bytes() == before.0[&name].bytes(), is_kept, "{name}");
    }
    assert_eq!(scale(), before.1);
    export(run_dir, config, Quant::Q8_0, &run_dir.join("sharper")).unwrap();
}

/// What imitated the text encoder still belongs to it; what was taught through the denoiser does not.
fn the_denoiser_can_be_trained_on_while_its_text_encoder_stays(bundle: &Path, config: &TrainConfig) {
    let again = tempfile::tempdir().unwrap();
    let run_dir = again.path();
    train::import(bundle, config, run_dir).unwrap();
    let mut other = config.clone();
    other.decoder.trained = Some(vec!["unet.".to_owned()]);
    run(Stage::Decoder, run_dir, &other).unwrap();
    let export = || export(run_dir, config, Quant::Q8_0, &run_dir.join("clearer"));
    let error = export().unwrap_err().to_string();
    assert!(error.contains("stage instruct does not belong") && error.contains("`stages.decoder`"), "{error}");
    fs::remove_dir_all(run_dir.join("instruct")).unwrap();
    export().unwrap();
}

fn a_stage_goes_on_only_with_what_it_began_with(run_dir: &Path, config: &TrainConfig) {
    let refused = |change: &dyn Fn(&mut TrainConfig), stage: Stage, what: &str| {
        let mut other = config.clone();
        other.decoder.training.steps += 1;
        other.instruct.training.steps += 1;
        change(&mut other);
        let error = run(stage, run_dir, &other).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    };
    refused(&|config| config.decoder.training.seed = 9, Stage::Decoder, "another `seed`");
    let typing_error = |config: &mut TrainConfig| config.instruct.trained.push("alinger.".into());
    refused(&typing_error, Stage::Instruct, "[\"alinger.\"]");
    refused(
        &|config| config.networks.unet.norm_num_groups = 8,
        Stage::Decoder,
        "another `networks.unet.norm_num_groups`",
    );
    // Its own networks are the same, so the autoencoder may go on; then its followers may not.
    let mut longer = config.clone();
    longer.vae.training.steps += 1;
    longer.networks.unet.layers_per_block = PerLevel::All(2);
    run(Stage::Vae, run_dir, &longer).unwrap();
    refused(&|_| {}, Stage::Decoder, "another `stages.vae`");
    refused(&|_| {}, Stage::Instruct, "another `stages.vae`");
    let error = export(run_dir, config, Quant::Q8_0, &run_dir.join("mixed")).unwrap_err().to_string();
    assert!(error.contains("stage decoder does not belong") && error.contains("`stages.vae`"), "{error}");
}

#[test]
fn every_loss_falls_on_a_few_samples() {
    let dir = tempfile::tempdir().unwrap();
    // Steps, and how much of the loss may be left after them.
    for stage in Stage::ALL {
        let (steps, left) = match stage {
            Stage::Vae => (300, 0.08),
            Stage::Align | Stage::Imitate => (200, 0.08),
            Stage::Instruct => (300, 0.8),
            _ => (100, 0.02),
        };
        let [last, every] = ["steps", "checkpoint_every"].map(|setting| format!("{setting}={steps}"));
        let mut config = miniature(&["samples=2", "batch=2", "sheet_every=0", &last, &every]);
        // The frozen decoder bounds what a condition can do about its loss, and learns what it can more slowly.
        config.instruct.training.lr = 0.01;
        run(stage, dir.path(), &config).unwrap();
        let losses = losses(dir.path(), stage);
        let (first, last) = (losses[0].1, losses[losses.len() - 1].1);
        assert!(last < left * first, "{stage:?}: {first} became {last}");
    }
}

#[test]
fn an_interrupted_run_equals_one_that_ran_through() {
    let through = tempfile::tempdir().unwrap();
    let interrupted = tempfile::tempdir().unwrap();
    let [config, shorter] = ["steps=6", "steps=4"].map(|steps| miniature(&["sheet_every=0", steps]));
    for stage in Stage::ALL {
        run(stage, through.path(), &config).unwrap();
        stage_copies(stage, through.path(), interrupted.path());
        run(stage, interrupted.path(), &shorter).unwrap();
        run(stage, interrupted.path(), &config).unwrap();
        assert_eq!(losses(through.path(), stage), losses(interrupted.path(), stage), "{stage:?}");
        assert!(!through.path().join(stage.name()).join("sheets").exists(), "{stage:?} drew a sheet");
        let [a, b] = [through.path(), interrupted.path()].map(|run| train::result(run, stage).unwrap());
        for (name, tensor) in &a {
            assert_eq!(tensor.bytes(), b[name].bytes(), "{stage:?}: {name}");
        }
    }
}

/// However a process ends: here it is killed twice, some steps after a checkpoint.
#[test]
fn a_killed_run_goes_on_to_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let command = |run: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kosmosg"));
        command.args(["train", "vae", "--config", MINIATURE, "--run"]).arg(dir.path().join(run)).stderr(Stdio::null());
        for setting in ["decay='linear'", "steps=160", "checkpoint_every=40", "sheet_every=0"] {
            command.args(["--set", &format!("vae.training.{setting}")]);
        }
        command
    };
    let file = |run: &str, name: &str| dir.path().join(run).join("vae").join(name);
    let steps = || fs::read_to_string(file("killed", "log.csv")).map_or(0, |log| log.lines().count().saturating_sub(1));
    for moment in [55, 100] {
        let mut child = command("killed").spawn().unwrap();
        while steps() < moment {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed, after {} steps", steps());
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success(), "it ended before it was killed");
    }
    assert!(["killed", "through"].iter().all(|run| command(run).status().unwrap().success()));
    for name in
        ["weights.gguf", "config.json", "checkpoint-000000160/weights.gguf", "checkpoint-000000160/optimizer.gguf"]
    {
        assert!(fs::read(file("killed", name)).unwrap() == fs::read(file("through", name)).unwrap(), "{name}");
    }
    assert_eq!(losses(&dir.path().join("killed"), Stage::Vae), losses(&dir.path().join("through"), Stage::Vae));
}

/// AlignerNet without stage 2, half of it, and none: what was trained before them serves them all, and bundles of them work.
#[test]
fn the_papers_ablations_can_be_trained() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = miniature(&["steps=2", "sheet_every=0"]);
    (config.imitate, config.judge) = (None, None);
    for stage in Stage::ALL.into_iter().filter(|&stage| config.training(stage).is_some()) {
        run(stage, &dir.path().join("whole"), &config).unwrap();
    }
    config.align = None;
    let aligner = config.networks.kosmosg.aligner.clone();
    let ablations = [
        ("unaligned", aligner.clone()),
        ("half", AlignerConfig { sequence_layers: Some(0), ..aligner.clone() }),
        ("none", AlignerConfig { layers: 0, ..aligner }),
    ];
    for (name, aligner) in ablations {
        let run_dir = dir.path().join(name);
        copy_folder(&dir.path().join("whole"), &run_dir, true);
        for stage in [Stage::Align, Stage::Instruct] {
            fs::remove_dir_all(run_dir.join(stage.name())).unwrap();
        }
        config.networks.kosmosg.aligner = aligner;
        run(Stage::Instruct, &run_dir, &config).unwrap();
        let bundle = dir.path().join(format!("{name} bundle"));
        let manifest = export(&run_dir, &config, Quant::Q8_0, &bundle).unwrap();
        check_bundle(&bundle, &manifest);
        let layers = train::result(&run_dir, Stage::Instruct).unwrap();
        let has = |beginning: &str| layers.keys().any(|name| name.starts_with(beginning));
        assert_eq!(has("aligner.encoder_proj.layers."), name == "unaligned", "{name}");
        assert_eq!(has("aligner.encoder.layers."), name != "none", "{name}");
    }
}

/// In half precision all stages learn what they learn in f32, up to what such numbers lose; unless their gradients overflow at
/// first, which costs the steps in which the scale of the loss falls.
#[test]
fn lower_precision_learns_the_same() {
    const STEPS: u64 = 5;
    let config = |precision| miniature(&["steps=5", "sheet_every=0", precision]);
    let f32 = tempfile::tempdir().unwrap();
    Stage::ALL.iter().for_each(|&stage| run(stage, f32.path(), &config("precision='f32'")).unwrap());
    for (precision, tolerance, fewest) in [("precision='f16'", 0.01, 5), ("precision='bf16'", 0.05, Stage::ALL.len())] {
        let lower = tempfile::tempdir().unwrap();
        let mut without_overflow = 0;
        for stage in Stage::ALL {
            stage_copies(stage, f32.path(), lower.path());
            run(stage, lower.path(), &config(precision)).unwrap();
            let [ours, theirs] = [lower.path(), f32.path()].map(|run| losses(run, stage));
            assert_ne!(ours, theirs, "{stage:?} was not computed in {precision}");
            let progress = lower.path().join(stage.name()).join(format!("checkpoint-{STEPS:09}/progress.json"));
            let progress: serde_json::Value = serde_json::from_slice(&fs::read(progress).unwrap()).unwrap();
            let is_comparable = progress["updates"] == STEPS;
            without_overflow += usize::from(is_comparable);
            for ((step, ours), (_, theirs)) in
                ours.iter().zip(&theirs).take(if is_comparable { STEPS as usize } else { 1 })
            {
                assert!((ours / theirs - 1.0).abs() < tolerance, "{stage:?} {precision} {step}: {ours} {theirs}");
            }
        }
        assert!(without_overflow >= fewest, "{precision}: {without_overflow}");
    }
}

#[test]
fn checkpointing_computes_the_same() {
    let [kept, again] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let config = |checkpointing| miniature(&["steps=3", "sheet_every=0", checkpointing]);
    for stage in Stage::ALL {
        run(stage, kept.path(), &config("checkpointing=false")).unwrap();
        stage_copies(stage, kept.path(), again.path());
        run(stage, again.path(), &config("checkpointing=true")).unwrap();
        let [ours, theirs] = [again.path(), kept.path()].map(|run| losses(run, stage));
        for ((step, ours), (_, theirs)) in ours.iter().zip(&theirs) {
            assert!((ours / theirs - 1.0).abs() < 1e-4, "{stage:?} step {step}: {ours} instead of {theirs}");
        }
    }
}

/// Earlier stages' results for both runs, so that a difference shows in the stage that makes it.
fn stage_copies(stage: Stage, from: &Path, to: &Path) {
    Stage::ALL.into_iter().filter(|&earlier| earlier < stage).for_each(|earlier| copy(earlier, from, to));
}
