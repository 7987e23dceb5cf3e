//! What the tests that span crates share.

pub mod browser;
pub mod client;
pub mod load;
pub mod memory;
pub mod models;
pub mod redis;
pub mod reference;
pub mod server;
