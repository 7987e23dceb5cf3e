//! Pictures that people put into a prompt, and the recipes in them.
#![no_main]

use kosmosg::picture::Picture;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| drop(Picture::decode(bytes)));
