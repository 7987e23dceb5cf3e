//! What the tests that span crates share.

pub mod browser;
pub mod memory;
pub mod models;
pub mod reference;
