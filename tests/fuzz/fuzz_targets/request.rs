//! Requests for pictures in every interface, down to the work that the queue takes.
#![no_main]

use std::sync::LazyLock;

use kosmosg_server::bundles::Bundles;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

#[path = "../../../server/tests/server/support/bundle.rs"]
#[allow(dead_code, reason = "the server's tests ask for more")]
mod bundle;
#[path = "../../../server/tests/server/support/requests.rs"]
mod requests;

/// In a folder that stays: LoRAs are read when they are asked for.
static BUNDLES: LazyLock<(Bundles, TempDir)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder for the bundle");
    bundle::write_bundle(folder.path());
    (Bundles::open(folder.path()).expect("the bundle was just written"), folder)
});

fuzz_target!(|bytes: &[u8]| {
    requests::read_in_every_interface(bytes, &BUNDLES.0);
});
