//! The server in process, with a runner that computes nothing: what a client can send, and what it hears.
#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

mod access;
#[cfg(feature = "candle")]
mod arguments;
mod clients;
mod files;
mod fleet;
mod interface;
mod jobs;
mod lasting;
mod loras;
#[cfg(feature = "candle")]
mod memory;
#[cfg(feature = "candle")]
mod model;
mod refused;
mod serving;
mod support;
mod tls;
mod together;
