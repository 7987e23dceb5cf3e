//! The page's companion: serves the page and the bundles, and denoises for devices that cannot.
//!
//! A request becomes [`work::Work`] only when everything in it was checked ([`admission`]). It waits in a bounded queue
//! ([`jobs`]) for the one thread that owns the models ([`worker`], [`inference`]). [`app::router`] is all of it as a
//! service, so that tests run it in process; [`serving`] brings it to the network. Programs that speak OpenAI's or AUTOMATIC1111's interface are understood too.

pub mod a1111;
pub mod access;
pub mod admission;
mod api;
pub mod app;
pub mod bundles;
pub mod desk;
pub mod error;
pub mod fleet;
pub mod hosts;
pub mod inference;
pub mod jobs;
pub mod loras;
pub mod metrics;
pub mod openai;
pub mod openapi;
pub mod order;
pub mod page;
pub mod pairing;
pub mod serving;
mod shares;
pub mod tls;
pub mod work;
pub mod worker;
