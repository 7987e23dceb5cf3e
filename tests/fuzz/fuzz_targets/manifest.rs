//! What a bundle says of itself, which a page may fetch from anywhere.
#![no_main]

use kosmosg::bundle::{Manifest, Scope};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = Manifest::from_json(bytes) {
        assert!(manifest.files(Scope::Picture).all(|file| !file.name.contains('/')));
        drop(manifest.schedule());
        drop(manifest.preview_factors());
    }
});
