//! The built page in a real Chromium, served by the built server.
#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

use std::path::{Path, PathBuf};

pub use anywhere::{Screen, newer_page};
pub use line::Line;
pub use page::{ELSEWHERE, Page, Where, creature, expected, expected_series};

mod anywhere;
mod keeping;
mod line;
mod making;
mod models;
mod page;
mod pictures;
mod small;

/// Where `cargo xtask build` puts the programs and the page.
pub fn dist() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist")
}
