//! The built page in a real Chromium, served by the built server.
#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

use std::path::{Path, PathBuf};

pub use line::Line;
pub use page::{Page, Where, creature, expected};

mod line;
mod models;
mod page;
mod pictures;

/// Where `cargo xtask build` puts the programs and the page.
pub fn dist() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist")
}
