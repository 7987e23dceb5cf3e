//! Kernels on slices of f32 that both engines run on the CPU: on all threads, in vector instructions, in one pass over
//! memory where that can be. Derivatives stand beside what they are of.

#![cfg_attr(not(feature = "autodiff"), allow(dead_code, reason = "derivatives serve training only"))]

pub mod activation;
pub mod attention;
pub mod conv;
pub mod functions;
pub mod linear;
pub mod matrix;
pub mod norm;
pub mod packed;
pub mod parallel;
pub mod vector;
