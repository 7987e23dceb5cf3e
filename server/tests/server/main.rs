//! The server in process, with a runner that computes nothing: what a client can send, and what it hears.

mod files;
mod jobs;
mod refused;
mod serving;
mod support;
