//! A job's work, checked: whoever holds one need not doubt it.

use std::sync::Arc;

use kosmosg::condition::Condition;
use kosmosg::denoise::DenoiseState;
use kosmosg::picture::Picture;
use kosmosg::prompt::PromptDocument;

use crate::bundles::Bundle;

/// What the worker is to do.
#[derive(Debug)]
pub struct Work {
    /// With which model.
    pub bundle: Arc<Bundle>,
    /// Towards what.
    pub goal: Goal,
    /// From where.
    pub state: DenoiseState,
}

/// What to denoise towards.
#[derive(Debug)]
pub enum Goal {
    /// Encoded elsewhere; nobody here knows the words.
    Condition(Condition),
    /// To be encoded.
    Prompt {
        /// Words and picture places.
        prompt: PromptDocument,
        /// The pictures, each already a square of the encoder's size: small, however large their files were.
        pictures: Vec<Picture>,
        /// What to steer away from; empty for nothing.
        negative: String,
    },
}
