//! Our numbers against those of the public implementations, on both engines.
#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

use std::path::Path;

use kosmosg_models::verify::{EngineName, folder};

/// Compares a fixture and demands that all of at least `comparisons` agree.
fn agrees(fixture: &str, engine: EngineName, comparisons: usize) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(fixture);
    let (_, rows) = folder(&dir, engine).unwrap();
    let failed: Vec<_> = rows.iter().filter(|row| !row.passed()).collect();
    assert!(failed.is_empty(), "{fixture} on {engine:?}: {failed:#?}");
    assert!(rows.len() >= comparisons, "{fixture} on {engine:?}: only {} comparisons", rows.len());
}

#[test]
fn kosmosg_on_burn() {
    agrees("kosmosg", EngineName::Burn, 34);
}

#[test]
fn kosmosg_on_candle() {
    agrees("kosmosg", EngineName::Candle, 30);
}

#[test]
fn stable_diffusion_on_burn() {
    agrees("sd", EngineName::Burn, 44);
}

#[test]
fn stable_diffusion_on_candle() {
    agrees("sd", EngineName::Candle, 44);
}

#[test]
fn preprocessing() {
    agrees("preprocess", EngineName::Burn, 10);
}

#[test]
fn a_folder_that_is_no_fixture_is_an_error() {
    let error = folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), EngineName::Burn).unwrap_err();
    assert!(error.to_string().contains("is no fixture"), "{error}");
}
