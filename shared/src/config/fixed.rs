//! Settings that a configuration may have and that these networks have one value of.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Value, json};

/// Nothing: the place in a configuration where reading refuses, by name, a setting that would change the results. Settings
/// that change nothing, or that no weights would fit, are not looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fixed;

pub(super) fn unet<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Fixed, D::Error> {
    let supported = json!({
        "act_fn": ["silu", "swish"],
        "attention_type": ["default"],
        "center_input_sample": [false],
        "class_embeddings_concat": [false],
        "controlnet_conditioning_channel_order": ["rgb"],
        "cross_attention_norm": [null],
        "downsample_padding": [1],
        "dual_cross_attention": [false],
        "global_pool_conditions": [false],
        "mid_block_only_cross_attention": [null, false],
        "mid_block_scale_factor": [1],
        "mid_block_type": ["UNetMidBlock2DCrossAttn"],
        "num_attention_heads": [null],
        "only_cross_attention": [false],
        "resnet_out_scale_factor": [1],
        "resnet_skip_time_act": [false],
        "resnet_time_scale_shift": ["default"],
        "reverse_transformer_layers_per_block": [null],
        "time_embedding_act_fn": [null],
        "time_embedding_type": ["positional"],
        "timestep_post_act": [null],
        "transformer_layers_per_block": [1],
    });
    check(deserializer, &supported)
}

pub(super) fn vae<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Fixed, D::Error> {
    let supported = json!({
        "act_fn": ["silu", "swish"],
        "down_block_types": ["DownEncoderBlock2D"],
        "latents_mean": [null],
        "latents_std": [null],
        "shift_factor": [null, 0],
        "up_block_types": ["UpDecoderBlock2D"],
    });
    check(deserializer, &supported)
}

pub(super) fn clip_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Fixed, D::Error> {
    check(deserializer, &json!({ "layer_norm_eps": [1e-5] }))
}

/// Holds what a configuration says besides its own fields against the values that are `supported`.
fn check<'de, D: Deserializer<'de>>(deserializer: D, supported: &Value) -> Result<Fixed, D::Error> {
    for (setting, value) in BTreeMap::<String, Value>::deserialize(deserializer)? {
        let Some(values) = supported.get(&setting).and_then(Value::as_array) else { continue };
        if !is_among(&value, values) {
            let values = values.iter().map(Value::to_string).collect::<Vec<_>>().join(" or ");
            return Err(D::Error::custom(format_args!("{setting} is {value}, and only {values} is supported")));
        }
    }
    Ok(Fixed)
}

/// A list is among the values if all its entries are: one for each level.
fn is_among(value: &Value, values: &[Value]) -> bool {
    match value {
        Value::Array(each) => each.iter().all(|value| is_among(value, values)),
        Value::Number(number) => values.iter().any(|value| value.as_f64() == number.as_f64()),
        value => values.contains(value),
    }
}
