//! The page.
//!
//! One crate, three WebAssembly modules, picked by feature: `ui` is the interface on the page's main thread and has no
//! engine; `worker-cpu` and `worker-gpu` are the model in a Web Worker, the first small and loaded at once, the second
//! loaded when it is used.
//!
//! What can be decided without a browser is plain Rust and tested natively: [`app`] is the whole behaviour of the page as
//! a function from an event to effects, [`draft`] the sentence that is being written, [`history`] its undo, [`clipboard`]
//! what is copied of it, [`picture_file`] and [`retouch`] its pictures as files and as pixels, [`install`] how a
//! model comes to this device, [`messages`] what page and worker say to each other, [`report`] what the page tells of
//! device and browser, [`gallery`] what is kept of finished pictures, [`recipe_file`], [`recipe_link`] and [`zip`] how they
//! travel. The `ui` and `worker` modules only carry it out.

pub mod app;
mod checksum;
pub mod clipboard;
pub mod composition;
pub mod draft;
pub mod gallery;
pub mod history;
pub mod install;
pub mod messages;
pub mod pace;
pub mod picture_file;
pub mod recipe_file;
pub mod recipe_link;
pub mod report;
pub mod retouch;
pub mod texts;
pub mod zip;

#[cfg(target_arch = "wasm32")]
mod js;
#[cfg(all(target_arch = "wasm32", feature = "ui"))]
mod ui;
#[cfg(all(target_arch = "wasm32", feature = "worker-cpu"))]
mod worker;
