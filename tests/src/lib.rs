//! What the tests that span crates share.

pub mod reference;
