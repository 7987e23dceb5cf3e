//! `kosmosg verify`: a folder of numbers from public implementations against ours.

use std::path::Path;

use anyhow::{Context, bail};
use kosmosg::bundle::{Folder, Tensors};
use kosmosg::encoder;
use kosmosg::engine::Tensor;
use kosmosg::engine::burn::train::{backward, track};
use kosmosg::engine::burn::{Burn, BurnDevice};
use kosmosg::engine::candle::{Candle, CandleDevice};
use kosmosg::prompt::PromptDocument;
use kosmosg::tokenizer::Tokenizer;
use kosmosg::verify::{
    self, ALIGN_GRADIENTS, Cases, Files, Form, KosmosGFixture, LM_GRADIENTS, NETWORK, RUN, Row, align_losses, cases_of,
    lm_loss, preprocess, stable_diffusion,
};
use kosmosg::weights::{DType, Parameter, Store, WeightError};
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

/// Compares what a bundle's encoder computes with the cases of a fixture that it was made of, as closely as its weights are kept.
///
/// # Errors
/// The bundle or the cases are missing or malformed, or of other sizes, or the engine fails.
pub fn bundle(dir: &Path, cases: &Path, on: &On) -> anyhow::Result<Vec<Row>> {
    let bundle = Folder::open(dir)?;
    let mut weights = Tensors::new();
    for part in encoder::PARTS {
        weights.extend(bundle.part(part)?);
    }
    let coarsest = weights.values().map(|tensor| tolerance_of(tensor.dtype())).fold(NETWORK, f64::max);
    let fixture = KosmosGFixture { config: bundle.manifest().networks.kosmosg.clone(), weights };
    let contents = std::fs::read(cases).with_context(|| format!("cannot read {}", cases.display()))?;
    let files = Files::from([("cases.safetensors".to_owned(), contents)]);
    let cases = match on {
        On::Burn(device) => pollster::block_on(cases_of::<Burn>(&fixture, &files, device, coarsest)),
        On::Candle(device) => pollster::block_on(cases_of::<Candle>(&fixture, &files, device, coarsest)),
    }?;
    Ok(cases.into_rows())
}

/// How closely a network computes whose weights are kept so, as a relative error. Rounding of 2⁻¹¹, of 1/254 and of 1/16 of the
/// largest number of a block adds up over layers.
fn tolerance_of(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => NETWORK,
        DType::F16 => 5e-3,
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

struct Tracking(std::collections::BTreeMap<String, Parameter<Burn>>);

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
    specials: std::collections::BTreeMap<String, u32>,
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
