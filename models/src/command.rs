//! One file a subcommand: its arguments, and what it prints.

pub mod generate;
pub mod info;
pub mod sprite;
pub mod train;
pub mod verify;

use std::path::PathBuf;

/// The built-in bundle, from the project's own folder or from where the command was built.
fn default_bundle() -> PathBuf {
    let here = PathBuf::from("models/tiny");
    if here.exists() { here } else { PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tiny")) }
}
