//! Our numbers against those of the public implementations, on both engines.
#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

use std::path::{Path, PathBuf};

use kosmosg::engine::burn::BurnDevice;
use kosmosg::engine::candle::{Candle, CandleDevice};
use kosmosg::verify::{Files, VerifyError, kosmosg, stable_diffusion};
use kosmosg_models::verify::{On, folder, read};
use pollster::block_on;

fn dir(fixture: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(fixture)
}

fn burn() -> On {
    On::Burn(BurnDevice::cpu())
}

fn candle() -> On {
    On::Candle(CandleDevice::cpu())
}

/// Compares a fixture and demands that all of at least `comparisons` agree.
fn agrees(fixture: &str, on: &On, comparisons: usize) {
    let (_, rows) = folder(&dir(fixture), on).unwrap();
    let failed: Vec<_> = rows.iter().filter(|row| !row.passed()).collect();
    assert!(failed.is_empty(), "{fixture} on {on:?}: {failed:#?}");
    assert!(rows.len() >= comparisons, "{fixture} on {on:?}: only {} comparisons", rows.len());
}

#[test]
fn kosmosg_on_burn() {
    agrees("kosmosg", &burn(), 34);
}

#[test]
fn kosmosg_on_candle() {
    agrees("kosmosg", &candle(), 30);
}

#[test]
fn stable_diffusion_on_burn() {
    agrees("sd", &burn(), 44);
}

#[test]
fn stable_diffusion_on_candle() {
    agrees("sd", &candle(), 44);
}

#[test]
fn stable_diffusion_in_other_sizes() {
    agrees("sd-sizes", &burn(), 30);
    agrees("sd-sizes", &candle(), 30);
}

#[test]
fn preprocessing() {
    agrees("preprocess", &burn(), 10);
}

#[test]
fn a_folder_that_is_no_fixture_is_an_error() {
    let error = folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &burn()).unwrap_err();
    assert!(error.to_string().contains("is no fixture"), "{error}");
}

/// A fixture's error once `from` in one of its files is `to`.
fn refused(files: &Files, file: &str, from: &str, to: &str) -> String {
    let mut files = files.clone();
    let text = String::from_utf8(files[file].clone()).unwrap();
    let changed = text.replacen(from, to, 1);
    assert_ne!(changed, text, "{file} has no {from}");
    files.insert(file.to_owned(), changed.into_bytes());
    let device = CandleDevice::cpu();
    let compared: Result<_, VerifyError> = match files.contains_key("config.json") {
        true => block_on(kosmosg::<Candle>(&files, &device, 1.0)),
        false => block_on(stable_diffusion::<Candle>(&files, &device, 1.0, true)),
    };
    compared.map(|_| ()).expect_err(to).to_string()
}

#[test]
fn sizes_and_settings_that_cannot_be_are_errors() {
    let files = read(&dir("kosmosg")).unwrap();
    for (from, to, complaint) in [
        (r#""patch_size": 14"#, r#""patch_size": 0"#, "config.json: vision.patch_size is 0"),
        (r#""heads": 4"#, r#""heads": 5"#, "config.json: mllm.heads is 5"),
        (r#""latent_queries": 8"#, r#""latent_queries": 9"#, "expected [9, 64]"),
    ] {
        let error = refused(&files, "config.json", from, to);
        assert!(error.contains(complaint), "{error}");
    }
    let files = read(&dir("sd")).unwrap();
    for (file, from, to, complaint) in [
        ("unet/config.json", r#""norm_num_groups": 8"#, r#""norm_num_groups": 0"#, "norm_num_groups is 0"),
        ("unet/config.json", r#""act_fn": "silu""#, r#""act_fn": "gelu""#, "unet/config.json: act_fn is \"gelu\""),
        ("unet/config.json", r#""in_channels": 4"#, r#""in_channels": 5"#, "expected [16, 5, 3, 3]"),
        ("unet/config.json", r#""layers_per_block": 1"#, r#""layers_per_block": [1, 1]"#, "has 2 entries, expected 4"),
        (
            "vae/config.json",
            r#""shift_factor": null"#,
            r#""shift_factor": 0.1"#,
            "vae/config.json: shift_factor is 0.1",
        ),
        ("controlnet/config.json", r#""rgb""#, r#""bgr""#, "controlnet_conditioning_channel_order is \"bgr\""),
        (
            "controlnet/config.json",
            r#""layers_per_block": 1"#,
            r#""layers_per_block": 2"#,
            "its sizes are not those of",
        ),
    ] {
        let error = refused(&files, file, from, to);
        assert!(error.contains(complaint), "{error}");
    }
}
