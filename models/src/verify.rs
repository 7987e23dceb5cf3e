//! `kosmosg verify`: a folder of numbers from public implementations against ours.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};
use kosmosg::bundle::{Folder, Networks, Tensors};
use kosmosg::encoder;
use kosmosg::engine::burn::train::{backward, track};
use kosmosg::engine::burn::{Burn, BurnDevice};
use kosmosg::engine::candle::{Candle, CandleDevice};
use kosmosg::engine::{Engine, Tensor};
use kosmosg::prompt::PromptDocument;
use kosmosg::tokenizer::Tokenizer;
use kosmosg::verify::{
    self, ALIGN_GRADIENTS, Cases, Files, Form, KosmosGFixture, LM_GRADIENTS, NETWORK, RUN, Row, StableDiffusionFixture,
    align_losses, kosmosg_cases, lm_loss, preprocess, stable_diffusion, stable_diffusion_cases,
};
use kosmosg::weights::{DType, HostTensor, Parameter, Store, WeightError};
use serde::Deserialize;

use crate::sentencepiece;

/// What computes our numbers.
#[derive(Debug, Clone)]
pub enum On {
    /// burn, which the page and training use.
    Burn(BurnDevice),
    /// candle, which the server uses.
    Candle(CandleDevice),
}

/// Compares everything in the folder `dir`, of whichever form.
///
/// # Errors
/// The folder is of no known form, files are missing or malformed, or the engine fails.
pub fn folder(dir: &Path, on: &On) -> anyhow::Result<(Form, Vec<Row>)> {
    let files = read(dir).with_context(|| format!("reading {}", dir.display()))?;
    let Some(form) = Form::of(&files) else {
        bail!(
            "{} is no fixture: expected config.json, model.safetensors and cases.safetensors (KOSMOS-G), \
             unet/config.json and cases.safetensors (Stable Diffusion), cases.json and cases.safetensors with pictures \
             (preprocessing), or sentencepiece.bpe.model and dict.txt (tokenizer)",
            dir.display()
        );
    };
    let rows = match (form, on) {
        (Form::KosmosG, On::Burn(device)) => {
            let mut cases = pollster::block_on(verify::kosmosg::<Burn>(&files, device, NETWORK))?;
            let mut compare = |prefix| gradients(&files, &mut cases, prefix, device);
            [LM_GRADIENTS, ALIGN_GRADIENTS].into_iter().try_for_each(&mut compare)?;
            [cases.into_rows(), prompts(&files)?].concat()
        }
        (Form::KosmosG, On::Candle(device)) => {
            let cases = pollster::block_on(verify::kosmosg::<Candle>(&files, device, NETWORK))?;
            [cases.into_rows(), prompts(&files)?].concat()
        }
        (Form::StableDiffusion, On::Burn(device)) => {
            pollster::block_on(stable_diffusion::<Burn>(&files, device, NETWORK, true))?.into_rows()
        }
        (Form::StableDiffusion, On::Candle(device)) => {
            pollster::block_on(stable_diffusion::<Candle>(&files, device, NETWORK, true))?.into_rows()
        }
        (Form::Preprocess, _) => preprocess(&files)?.into_rows(),
        (Form::Tokenizer, _) => token_ids(&files)?,
    };
    Ok((form, rows))
}

/// Compares what a bundle's networks compute with the cases of a fixture that they were made of, as closely as the weights are
/// kept: the encoder and the text model with KOSMOS-G's cases, U-Net and autoencoder with Stable Diffusion's, and sampling runs
/// too where a `cases.json` lies beside those.
///
/// # Errors
/// The bundle or the cases are missing or malformed, or of other sizes, or the engine fails.
pub fn bundle(dir: &Path, cases: &Path, on: &On) -> anyhow::Result<Vec<Row>> {
    let bundle = Folder::open(dir)?;
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let mut files = Files::from([("cases.safetensors".to_owned(), read(cases)?)]);
    let runs = cases.with_file_name("cases.json");
    if runs.exists() {
        files.insert("cases.json".to_owned(), read(&runs)?);
    }
    let cases = match on {
        On::Burn(device) => pollster::block_on(cases_of::<Burn>(&bundle, &files, device)),
        On::Candle(device) => pollster::block_on(cases_of::<Candle>(&bundle, &files, device)),
    }?;
    Ok(cases.into_rows())
}

async fn cases_of<E: Engine>(bundle: &Folder, files: &Files, device: &E::Device) -> anyhow::Result<Cases> {
    let Networks { kosmosg, unet, vae, text } = bundle.manifest().networks.clone();
    let mut tolerances = BTreeMap::new();
    let mut part = |name: &'static str| {
        let weights = bundle.part(name)?;
        tolerances.insert(name, tolerance_of(&weights));
        anyhow::Ok(weights)
    };
    if Cases::read(files)?.has("unet.sample") {
        let scheduler = Some(bundle.manifest().scheduler.clone());
        let fixture = StableDiffusionFixture { unet: (unet, part("unet")?), vae: Some((vae, part("vae")?)), scheduler };
        let runs = files.contains_key("cases.json");
        let tolerance = coarsest(&tolerances);
        let mut cases = stable_diffusion_cases::<E>(&fixture, files, device, &tolerance, runs).await?;
        // No bundle has these of the fixture.
        ["controlnet.", "lora."].into_iter().for_each(|prefix| cases.leave(prefix));
        return Ok(cases);
    }
    let mut weights = Tensors::new();
    for name in encoder::PARTS {
        weights.extend(part(name)?);
    }
    let text = text.map(|config| Ok::<_, anyhow::Error>((config, part("text")?))).transpose()?;
    let fixture = KosmosGFixture { config: kosmosg, weights, text };
    Ok(kosmosg_cases::<E>(&fixture, files, device, &coarsest(&tolerances)).await?)
}

/// The largest error of what several parts compute together: that of the coarsest of them.
fn coarsest(tolerances: &BTreeMap<&str, f64>) -> impl Fn(&[&str]) -> f64 {
    |parts| parts.iter().map(|part| tolerances[part]).fold(0.0, f64::max)
}

/// How closely a part computes that has these weights, as a relative error: the errors of its forms add up as variances do, each by
/// its share of the numbers.
fn tolerance_of(weights: &Tensors) -> f64 {
    let (mut sum, mut numbers) = (0.0, 0.0);
    for tensor in weights.values() {
        let share = tensor.shape().iter().product::<usize>() as f64;
        sum += share * tolerance_of_form(tensor).powi(2);
        numbers += share;
    }
    (sum / f64::max(numbers, 1.0)).sqrt().max(NETWORK)
}

/// How closely a network computes all of whose weights are kept so. Rounding of 2⁻¹¹, of 1/254 and of 1/16 of the largest number of
/// a block adds up over layers.
fn tolerance_of_form(tensor: &HostTensor) -> f64 {
    // What was imported from 16 bits has lost the others, however it is kept.
    let is_of = |dtype| tensor.to_dtype(dtype).is_ok_and(|kept| kept.to_f32() == tensor.to_f32());
    match tensor.dtype() {
        DType::F32 if tensor.shape().len() < 2 => NETWORK,
        DType::F32 if is_of(DType::Bf16) => 5e-2,
        DType::F32 if !is_of(DType::F16) => NETWORK,
        DType::F32 | DType::F16 => 5e-3,
        DType::Bf16 | DType::Q8_0 => 5e-2,
        DType::Q4_0 => 0.5,
    }
}

/// All files below `dir` by their path within it.
///
/// # Errors
/// A file or folder cannot be read.
pub fn read(dir: &Path) -> anyhow::Result<Files> {
    let mut files = Files::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_none_or(|extension| extension != "pt") {
                let name = path.strip_prefix(dir)?.components().map(|part| part.as_os_str().to_string_lossy());
                let name = name.collect::<Vec<_>>().join("/");
                files.insert(name, std::fs::read(&path).with_context(|| path.display().to_string())?);
            }
        }
    }
    Ok(files)
}

/// Gradients of stage 1's or stage 2's loss, with respect to the weights that the fixture has them of.
fn gradients(files: &Files, cases: &mut Cases, prefix: &str, device: &BurnDevice) -> anyhow::Result<()> {
    let names: Vec<String> =
        cases.stems("").iter().filter_map(|name| name.strip_prefix(prefix)).map(str::to_owned).collect();
    if names.is_empty() {
        return Ok(());
    }
    let fixture = KosmosGFixture::read(files)?;
    let device = device.clone().training();
    let store = Tracking(
        fixture
            .weights
            .iter()
            .map(|(name, tensor)| {
                let flat = track(tensor.to_f32(), &device).0;
                (name.clone(), Parameter::Device(flat, tensor.shape().to_vec()))
            })
            .collect(),
    );
    let (encoder, decoder) = fixture.networks::<Burn>(&store, &device)?;
    let loss = match prefix {
        LM_GRADIENTS => lm_loss(cases, &encoder, &fixture.config, &device)?,
        _ => {
            let decoder = decoder.as_ref().context("model.safetensors has no tensors of AlignerNet's N")?;
            let (mse, rec) = align_losses(cases, &encoder, decoder, &fixture.config, &device)?;
            mse + rec
        }
    };
    let mut gradients = backward(&loss);
    for name in names {
        let expected = format!("{prefix}{name}");
        let found = store.0.get(&name).and_then(|parameter| match parameter {
            Parameter::Device(flat, shape) => Some((gradients.take(&Tensor(flat.clone()))?, shape)),
            Parameter::Host(_) => None,
        });
        match found {
            Some((gradient, shape)) => {
                cases.compare_numbers(&expected, &pollster::block_on(gradient.to_host())?, shape, RUN)?;
            }
            // There is no such weight, or the loss does not depend on it.
            None => cases.fail(&expected),
        }
    }
    Ok(())
}

struct Tracking(BTreeMap<String, Parameter<Burn>>);

impl Store<Burn> for Tracking {
    fn get(&self, name: &str, _shape: &[usize]) -> Result<Option<Parameter<Burn>>, WeightError> {
        Ok(self.0.get(name).cloned())
    }

    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
}

#[derive(Deserialize)]
struct TokenCases {
    vocab_size: usize,
    image_token_length: usize,
    specials: BTreeMap<String, u32>,
    cases: Vec<TokenCase>,
}

#[derive(Deserialize)]
struct TokenCase {
    prompt: String,
    ids: Vec<u32>,
    image_mask: Vec<u8>,
}

/// [`token_ids`], if there is something to compare them with.
fn prompts(files: &Files) -> anyhow::Result<Vec<Row>> {
    if files.contains_key("prompts.json") { token_ids(files) } else { Ok(vec![]) }
}

/// Token ids and image masks of prompts, exactly.
fn token_ids(files: &Files) -> anyhow::Result<Vec<Row>> {
    let file = |name| files.get(name).with_context(|| format!("{name} is missing"));
    let (model, dictionary) = (file("sentencepiece.bpe.model")?, file("dict.txt")?);
    let list = ["prompts.json", "cases.json"].into_iter().find_map(|name| files.get(name));
    let list: TokenCases = serde_json::from_slice(list.context("prompts.json or cases.json is missing")?)?;
    let converted = sentencepiece::convert(model, std::str::from_utf8(dictionary)?)?;
    let mut rows = Vec::new();
    let mut exact = |name: String, same: bool| {
        rows.push(Row::new(name, if same { 0.0 } else { f64::INFINITY }, 0.0));
    };
    exact("vocab_size".into(), converted.vocab_size == list.vocab_size);
    let special = &converted.special;
    for (name, id) in [
        ("<s>", special.bos),
        ("<pad>", special.pad),
        ("</s>", special.eos),
        ("<unk>", special.unk),
        ("<image>", special.boi),
        ("</image>", special.eoi),
    ] {
        exact(name.into(), list.specials.get(name) == Some(&id));
    }
    // Through the file that a bundle carries, as every user's prompts go.
    let json = converted.vocabulary.to_json();
    let tokenizer = Tokenizer::from_json(&json, converted.vocab_size, special)?;
    for case in &list.cases {
        let places = case.prompt.matches("<i>").count();
        let document = PromptDocument::from_text(&case.prompt, places)?;
        let sequence = tokenizer.sequence(&document, list.image_token_length, usize::MAX)?;
        let mask: Vec<u8> = sequence.image_mask.iter().map(|&image| image.into()).collect();
        exact(format!("{:?}", case.prompt), sequence.tokens == case.ids && mask == case.image_mask);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_coarse_tensor_loosens_little() {
        let numbers: Vec<f32> = (0..1024).map(|i| (i as f32).sin()).collect();
        let tensor = HostTensor::from_f32(vec![32, 32], &numbers);
        let part = |forms: [DType; 100]| {
            let tensors = forms.into_iter().enumerate();
            tolerance_of(&tensors.map(|(i, form)| (i.to_string(), tensor.to_dtype(form).unwrap())).collect())
        };
        assert_eq!(part([DType::F32; 100]), NETWORK);
        assert!((part([DType::Q4_0; 100]) - 0.5).abs() < 1e-9);
        let mut mixed = [DType::F32; 100];
        mixed[7] = DType::Q4_0;
        assert!((part(mixed) - 0.05).abs() < 1e-3);
        // However it is kept now, it has 16 bits.
        let rounded = tensor.to_dtype(DType::F16).unwrap().to_dtype(DType::F32).unwrap();
        assert_eq!(tolerance_of_form(&rounded), 5e-3);
    }
}
