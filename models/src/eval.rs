//! How good pictures of the [world of sprites](crate::sprites) are.

pub mod judge;
pub mod question;
