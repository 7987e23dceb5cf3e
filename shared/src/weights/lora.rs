//! LoRA: low-rank updates of a network's linear maps and convolutions, merged into its weights before it loads.
//!
//! `W + scale · alpha / rank · up · down`. Two forms are read: diffusers' (`unet.MODULE.lora_A.weight` or
//! `unet.MODULE.lora.down.weight`) and kohya's (`lora_unet_MODULE.lora_down.weight`, the module's dots written as `_`).
//! Source: arXiv 2106.09685.

use std::collections::BTreeMap;

use super::{HostTensor, WeightError, safetensors};

/// Tensors by name.
type Tensors = BTreeMap<String, HostTensor>;

/// Suffixes of the down, up and alpha tensors in each spelling.
const SPELLINGS: [[&str; 2]; 3] = [
    [".lora_A.weight", ".lora_B.weight"],
    [".lora.down.weight", ".lora.up.weight"],
    [".lora_down.weight", ".lora_up.weight"],
];

/// Parts of a pipeline that KOSMOS-G does not have: their updates have nothing to change.
const TEXT_ENCODERS: [&str; 3] = ["text_encoder.", "text_encoder_2.", "lora_te"];

/// What a recipe says of the LoRA in the file called `file`.
pub fn label(file: &str, scale: f32) -> String {
    format!("lora {file} × {scale}")
}

/// Merges a LoRA's safetensors `file` into the U-Net's `weights` with strength `scale`.
///
/// # Errors
/// What [`merge`] fails with, and [`WeightError::Malformed`] if the file is none or changes nothing.
pub fn merge_file(weights: &mut Tensors, file: Vec<u8>, scale: f32) -> Result<(), WeightError> {
    const WHAT: &str = "the LoRA";
    if merge(weights, &safetensors::read(WHAT, file)?, scale)? == 0 {
        let detail = "it changes nothing of a U-Net: it has no tensors like *.lora_down.weight".into();
        return Err(WeightError::Malformed { what: WHAT.into(), detail });
    }
    Ok(())
}

/// Merges the updates of `lora` into the U-Net's `weights` with strength `scale`, and returns how many modules changed.
///
/// # Errors
/// [`WeightError`] if an update has no module in the U-Net, lacks one of its halves or does not fit the module's shape.
/// `weights` may then be changed in part.
pub fn merge(weights: &mut Tensors, lora: &Tensors, scale: f32) -> Result<usize, WeightError> {
    let modules: BTreeMap<String, String> = weights
        .keys()
        .filter_map(|name| name.strip_suffix(".weight"))
        .map(|module| (module.replace('.', "_"), format!("{module}.weight")))
        .collect();
    let mut merged = 0;
    let mut unknown = Vec::new();
    for (name, down) in lora.iter().filter(|(name, _)| !TEXT_ENCODERS.iter().any(|part| name.starts_with(part))) {
        let Some((stem, up_suffix)) = SPELLINGS.iter().find_map(|[down, up]| Some((name.strip_suffix(down)?, up)))
        else {
            let update =
                |suffix: &str| SPELLINGS.iter().any(|[down, _]| lora.contains_key(&replace(name, suffix, down)));
            if !(update(".alpha") || SPELLINGS.iter().any(|[_, up]| update(up))) {
                unknown.push(name.clone());
            }
            continue;
        };
        let module = stem.strip_prefix("unet.").or(stem.strip_prefix("lora_unet_")).unwrap_or(stem).replace('.', "_");
        let Some(target) = modules.get(&module) else {
            unknown.push(name.clone());
            continue;
        };
        let up_name = format!("{stem}{up_suffix}");
        let up = lora.get(&up_name).ok_or_else(|| WeightError::Missing { name: up_name.clone(), expected: None })?;
        let rank = down.shape().first().copied().unwrap_or(0).max(1) as f32;
        let alpha = lora.get(&format!("{stem}.alpha")).and_then(|alpha| alpha.to_f32().first().copied());
        let factor = scale * alpha.map_or(1.0, |alpha| alpha / rank);
        let weight = weights.get_mut(target).expect("the names of `modules` come from `weights`");
        *weight = add_product(weight, &up_name, up, down, factor)?;
        merged += 1;
    }
    if unknown.is_empty() { Ok(merged) } else { Err(WeightError::Unexpected { names: unknown }) }
}

fn replace(name: &str, suffix: &str, by: &str) -> String {
    name.strip_suffix(suffix).map(|stem| format!("{stem}{by}")).unwrap_or_default()
}

/// `weight + factor · up · down`: `up` `[out, rank, 1…]`, `down` `[rank, in, …]`, `weight` `[out, in, …]`.
fn add_product(
    weight: &HostTensor,
    name: &str,
    up: &HostTensor,
    down: &HostTensor,
    factor: f32,
) -> Result<HostTensor, WeightError> {
    let outputs = weight.shape().first().copied().unwrap_or(0);
    let inputs: usize = weight.shape().iter().skip(1).product();
    let rank = down.shape().first().copied().unwrap_or(0);
    // An update of rank 0 is none, and a network has no weight without numbers.
    let fits = rank * inputs * outputs > 0
        && up.shape().iter().product::<usize>() == outputs * rank
        && up.shape().first() == Some(&outputs)
        && down.shape().iter().product::<usize>() == rank * inputs;
    if !fits {
        let expected = vec![outputs, rank];
        return Err(WeightError::Shape { name: name.to_owned(), expected, found: up.shape().to_vec() });
    }
    let (up, down) = (up.to_f32(), down.to_f32());
    let mut sum = weight.to_f32();
    for (row, up) in sum.chunks_exact_mut(inputs).zip(up.chunks_exact(rank)) {
        for (&up, down) in up.iter().zip(down.chunks_exact(inputs)) {
            for (x, down) in row.iter_mut().zip(down) {
                *x += factor * up * down;
            }
        }
    }
    Ok(HostTensor::from_f32(weight.shape().to_vec(), &sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensors(entries: &[(&str, &[usize], &[f32])]) -> Tensors {
        entries.iter().map(|(name, shape, x)| ((*name).into(), HostTensor::from_f32(shape.to_vec(), x))).collect()
    }

    fn weights() -> Tensors {
        tensors(&[("mid.0.to_k.weight", &[2, 2], &[1.0, 2.0, 3.0, 4.0])])
    }

    #[test]
    fn both_forms_add_the_scaled_product() {
        let diffusers = tensors(&[
            ("unet.mid.0.to_k.lora_A.weight", &[1, 2], &[1.0, 10.0]),
            ("unet.mid.0.to_k.lora_B.weight", &[2, 1], &[2.0, 3.0]),
        ]);
        let kohya = tensors(&[
            ("lora_unet_mid_0_to_k.lora_down.weight", &[1, 2], &[1.0, 10.0]),
            ("lora_unet_mid_0_to_k.lora_up.weight", &[2, 1], &[4.0, 6.0]),
            ("lora_unet_mid_0_to_k.alpha", &[], &[0.5]),
            ("lora_te_text_model_encoder.lora_down.weight", &[1, 1], &[1.0]),
        ]);
        for lora in [diffusers, kohya] {
            let mut weights = weights();
            assert_eq!(merge(&mut weights, &lora, 0.5), Ok(1));
            assert_eq!(weights["mid.0.to_k.weight"].to_f32(), [2.0, 12.0, 4.5, 19.0]);
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let stray = tensors(&[("unet.other.lora_A.weight", &[1, 2], &[1.0, 1.0])]);
        let half = tensors(&[("unet.mid.0.to_k.lora_A.weight", &[1, 2], &[1.0, 1.0])]);
        let misshapen = tensors(&[
            ("unet.mid.0.to_k.lora_A.weight", &[1, 3], &[1.0, 1.0, 1.0]),
            ("unet.mid.0.to_k.lora_B.weight", &[2, 1], &[1.0, 1.0]),
        ]);
        let empty = tensors(&[
            ("unet.mid.0.to_k.lora_A.weight", &[0, 2], &[]),
            ("unet.mid.0.to_k.lora_B.weight", &[2, 0], &[]),
        ]);
        assert!(matches!(merge(&mut weights(), &empty, 1.0), Err(WeightError::Shape { .. })));
        let error = merge(&mut weights(), &half, 1.0).unwrap_err().to_string();
        assert_eq!(error, "tensor `unet.mid.0.to_k.lora_B.weight` is missing");
        let mut scalar = tensors(&[("mid.0.to_k.weight", &[], &[1.0])]);
        assert!(matches!(merge(&mut scalar, &misshapen, 1.0), Err(WeightError::Shape { .. })));
        assert!(matches!(merge(&mut weights(), &stray, 1.0), Err(WeightError::Unexpected { .. })));
        assert!(matches!(merge(&mut weights(), &half, 1.0), Err(WeightError::Missing { .. })));
        assert!(matches!(merge(&mut weights(), &misshapen, 1.0), Err(WeightError::Shape { .. })));
    }
}
