//! In which form each weight of a bundle is stored, and bundles in another form.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use clap::ValueEnum as _;
use kosmosg::bundle::{Existing, Folder, Manifest, Planned, Stored, Writer};
use kosmosg::verify::relative_error;
use kosmosg::weights::{DType, HostTensor};
use serde::Serialize;

/// Forms of a bundle's weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Quant {
    /// As exact as computing is.
    F32,
    /// Matrices and tables in blocks of 8 bits, the rest as f16 has it.
    #[value(name = "q8_0")]
    Q8_0,
    /// Matrices in blocks of 4 bits, tables in 8, the rest as f16 has it.
    #[value(name = "q4_0")]
    Q4_0,
    /// 16 bits; norms and biases in 32.
    F16,
    /// The language model's matrices from the fifth layer on in blocks of 4 bits, the others and tables in 8.
    Mixed,
}

impl Quant {
    /// How a tensor of a part is stored. Norms and biases stay exact, since they are few; kernels of convolutions have 16 bits at
    /// least, and so has all of the autoencoder, which shows every error. Tables, where an error is not averaged over a
    /// product's many, have 8, and in a mix so have the language model's first layers, whose errors go through all others:
    /// `docs/published.md` has what that gains.
    pub fn form(self, part: &str, name: &str, shape: &[usize]) -> DType {
        let unpacked = if self == Self::F32 { DType::F32 } else { DType::F16 };
        let packed = match self {
            _ if part == "vae" => unpacked,
            Self::F32 | Self::F16 => unpacked,
            Self::Q4_0 if !is_table(name) => DType::Q4_0,
            Self::Mixed if part == "mllm" && !is_table(name) && !is_early(name) => DType::Q4_0,
            Self::Q8_0 | Self::Q4_0 | Self::Mixed => DType::Q8_0,
        };
        match shape {
            [] | [_] => DType::F32,
            [_, row] if name.ends_with(".weight") && row % packed.block() == 0 => packed,
            _ => unpacked,
        }
    }

    /// A bundle's name that tells this form from others: `name` with the form after it, in the place of the one that it ends with.
    pub fn named(self, name: &str) -> String {
        let ending = |form: Self| match form {
            Self::F32 => ", 32 bit",
            Self::F16 => ", 16 bit",
            Self::Q8_0 => ", 8 bit",
            Self::Q4_0 => ", 4 bit",
            Self::Mixed => ", 4 and 8 bit",
        };
        let bare = Self::value_variants().iter().find_map(|&form| name.strip_suffix(ending(form)));
        format!("{}{}", bare.unwrap_or(name), ending(self))
    }
}

/// A tensor in the form that is planned for it.
///
/// # Errors
/// Its numbers are too large for that form.
pub fn packed(tensor: &HostTensor, planned: &Planned) -> anyhow::Result<HostTensor> {
    let Planned { name, dtype, .. } = planned;
    let cannot = || format!("tensor `{name}` cannot be stored so; --quant f32 keeps all numbers");
    tensor.to_dtype(*dtype).with_context(cannot)
}

/// How a tensor changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// The part that it belongs to.
    pub part: String,
    /// Its name.
    pub name: String,
    /// How it is stored now.
    pub form: String,
    /// Bytes before and after.
    pub bytes: [u64; 2],
    /// `‖after − before‖ / ‖before‖`
    pub error: f64,
}

/// Writes the bundle `out` with the weights of another one in other forms, tensor by tensor.
///
/// # Errors
/// The bundle cannot be read, is damaged or is `out` itself, or the new one cannot be written.
pub fn quantize(
    bundle: &Folder,
    quant: Quant,
    out: &Path,
    existing: Existing,
    mut changed: impl FnMut(Change),
) -> anyhow::Result<Manifest> {
    let (from, to) = (fs::canonicalize(bundle.dir()), fs::canonicalize(out));
    ensure!(
        !from.is_ok_and(|from| to.is_ok_and(|to| from == to)),
        "{} is the bundle that is read; name another folder",
        out.display()
    );
    existing.check(out)?;
    // What is damaged would be vouched for by the new manifest.
    bundle.check()?;
    let manifest = bundle.manifest();
    let basis = serde_json::to_string(&(manifest, format!("{quant:?}")))?;
    let mut writer = Writer::create(out, &basis, existing)?;
    for part in manifest.parts.keys() {
        let stored = bundle.stored(part)?;
        let planned = |(name, Stored { located, .. }): (&String, &Stored)| Planned {
            name: name.clone(),
            shape: located.shape.clone(),
            dtype: quant.form(part, name, &located.shape),
        };
        let plan: Vec<_> = stored.tensors().iter().map(planned).collect();
        writer.part(part, &plan, |planned| {
            let tensor = stored.read(&planned.name)?;
            let packed = packed(&tensor, planned)?;
            changed(Change {
                part: part.clone(),
                name: planned.name.clone(),
                form: format!("{:?}", planned.dtype),
                bytes: [tensor.bytes().len() as u64, packed.bytes().len() as u64],
                error: relative_error(&packed.to_f32(), &tensor.to_f32()),
            });
            anyhow::Ok(packed)
        })?;
    }
    let tokenizer = bundle.tokenizer()?;
    Ok(writer.finish(Manifest { name: quant.named(&manifest.name), ..manifest.clone() }, &tokenizer)?)
}

/// Whether it is of one of the language model's first layers.
fn is_early(name: &str) -> bool {
    const EARLY: usize = 4;
    let layer = name.strip_prefix("gpt_model.decoder.layers.").and_then(|rest| rest.split('.').next());
    layer.and_then(|layer| layer.parse::<usize>().ok()).is_some_and(|layer| layer < EARLY)
}

/// Whether it is a table of learned rows.
fn is_table(name: &str) -> bool {
    name.rsplit('.').nth(1).is_some_and(|module| module.contains("embed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_the_form_once() {
        assert_eq!(Quant::Q8_0.named("KOSMOS-G"), "KOSMOS-G, 8 bit");
        assert_eq!(Quant::Mixed.named("KOSMOS-G, 8 bit"), "KOSMOS-G, 4 and 8 bit");
        assert_eq!(Quant::Q4_0.named("KOSMOS-G, 4 and 8 bit"), "KOSMOS-G, 4 bit");
    }

    #[test]
    fn only_matrices_of_whole_blocks_are_packed_tightly() {
        let form = |name, shape: &[usize]| Quant::Q8_0.form("unet", name, shape);
        assert_eq!(form("encoder.layers.0.mlp.fc1.weight", &[512, 128]), DType::Q8_0);
        assert_eq!(form("encoder.layers.0.mlp.fc1.weight", &[512, 100]), DType::F16);
        assert_eq!(form("unet.time_embedding.linear_1.weight", &[384, 96]), DType::Q8_0);
        assert_eq!(form("gpt_model.decoder.embed_tokens.weight", &[167, 192]), DType::Q8_0);
        let of_layer = |quant: Quant, layer: usize| {
            quant.form("mllm", &format!("gpt_model.decoder.layers.{layer}.ffn.fc1.weight"), &[512, 128])
        };
        assert_eq!([0, 3, 4, 23].map(|layer| of_layer(Quant::Q4_0, layer)), [DType::Q4_0; 4]);
        let mixed = [0, 3, 4, 23].map(|layer| of_layer(Quant::Mixed, layer));
        assert_eq!(mixed, [DType::Q8_0, DType::Q8_0, DType::Q4_0, DType::Q4_0]);
        for quant in [Quant::Q4_0, Quant::Mixed] {
            assert_eq!(quant.form("mllm", "img_connector.dense.weight", &[512, 128]), DType::Q4_0);
            assert_eq!(quant.form("mllm", "gpt_model.decoder.embed_tokens.weight", &[167, 192]), DType::Q8_0);
        }
        assert_eq!(Quant::F16.form("mllm", "gpt_model.decoder.embed_tokens.weight", &[167, 192]), DType::F16);
        assert_eq!(form("aligner.encoder_query", &[40, 128]), DType::F16);
        assert_eq!(form("conv_in.weight", &[64, 8, 3, 3]), DType::F16);
        assert_eq!(form("conv_in.bias", &[64]), DType::F32);
        assert_eq!(Quant::F16.form("vae", "decoder.conv_in.weight", &[64, 8, 3, 3]), DType::F16);
        assert_eq!(Quant::F32.form("vae", "decoder.conv_in.weight", &[64, 8, 3, 3]), DType::F32);
        assert_eq!(Quant::F32.form("unet", "time_embedding.linear_1.weight", &[384, 96]), DType::F32);
    }
}
