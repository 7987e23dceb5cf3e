//! What a pickle says, without running it.
#![no_main]

use libfuzzer_sys::fuzz_target;

// Without the rest of its crate, which would take both engines along.
#[path = "../../../models/src/import"]
#[allow(dead_code, unreachable_pub, reason = "a checkpoint's reader asks for more")]
mod import {
    pub mod pickle;
}

fuzz_target!(|bytes: &[u8]| drop(import::pickle::Pickle::read(bytes)));
