//! What the page and a worker say to each other.
//!
//! A message is an [`Envelope`] as JSON and, beside it, binary data that changes hands without a copy: pictures and
//! tensors. A worker says [`Reply::Started`] when it listens, [`Reply::Ready`] when the model is loaded, and carries out
//! one request after the other; [`Request::Cancel`] is heard between two denoising steps.

use kosmosg::bundle::{Manifest, Scope};
use kosmosg::condition::Condition;
use kosmosg::denoise::DenoiseState;
use kosmosg::picture::Recipe;
use kosmosg::prompt::PromptDocument;
use kosmosg::verify::Row;
use serde::{Deserialize, Serialize};

/// A message and which request it belongs to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope<T> {
    /// Number of the request: chosen by the page, and the same in every reply to it.
    pub request: u64,
    /// The message.
    pub body: T,
}

/// From the page to a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::large_enum_variant, reason = "there is one of these per job")]
pub enum Request {
    /// Open a bundle, and load it if it has room. Answered by [`Reply::Loading`] and [`Reply::Ready`].
    Load {
        /// Where its files are.
        source: Source,
        /// Its manifest.
        manifest: Manifest,
        /// Memory that it may take: an estimate.
        memory_bytes: u64,
    },
    /// Encode a prompt. Binary data: its pictures' files, in order. Answered by [`Reply::Encoded`].
    Encode {
        /// Words and picture places.
        prompt: PromptDocument,
        /// What to steer away from; empty for nothing.
        negative: String,
    },
    /// Go on from a state to the picture. Answered by [`Reply::Step`], [`Reply::Preview`] and [`Reply::Picture`].
    Denoise {
        /// What to denoise towards.
        condition: Condition,
        /// Where to go on.
        state: DenoiseState,
        /// What the picture's file will say.
        recipe: Recipe,
        /// For tests: fail, as a device does that is lost, before this step.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fail_at_step: Option<usize>,
    },
    /// Cut a prompt into tokens. Answered by [`Reply::Tokenized`] at once, also between two steps of a picture.
    Tokenize {
        /// Words and picture places.
        prompt: PromptDocument,
        /// What to steer away from; empty for nothing.
        negative: String,
    },
    /// Stop the request of the same number before its next step. Answered by [`Reply::Cancelled`], if it still runs.
    Cancel,
    /// The fingerprint of some noise. Answered by [`Reply::NoiseHash`].
    NoiseHash {
        /// Seed.
        seed: u64,
        /// Stream.
        stream: u64,
        /// How many values.
        count: usize,
    },
    /// How much memory the worker's program has. Answered by [`Reply::Memory`].
    Memory,
    /// Time a linear map. Answered by [`Reply::Measured`].
    Measure {
        /// Rows of the input.
        rows: usize,
        /// Columns of the input, and of the output.
        size: [usize; 2],
        /// How its weights are stored.
        packing: Packing,
        /// How often.
        times: usize,
    },
    /// What models this browser keeps. Answered by [`Reply::Kept`].
    Kept,
    /// Bring a model, or the rest of it, to this browser. Beside it, for [`Supply::Files`], the files. Answered by
    /// [`Reply::Installing`] and [`Reply::Kept`].
    Install {
        /// Where it comes from.
        supply: Supply,
        /// What of it.
        scope: Scope,
    },
    /// Compare the digests of a kept model's files. Answered by [`Reply::Installing`] and [`Reply::Kept`].
    Check {
        /// Which.
        key: String,
    },
    /// Remove a kept model. Answered by [`Reply::Kept`].
    Remove {
        /// Which.
        key: String,
    },
    /// Compare what this worker's kernels compute with what the processor computes. Answered by [`Reply::Verified`].
    TestKernels {
        /// For tests: also those that the GPU has not what it takes for, which its driver refuses.
        impossible: bool,
    },
    /// Compare this worker's engine with a fixture of the public implementations' numbers (see [`kosmosg::verify`]).
    /// Binary data: the fixture's files. Answered by [`Reply::Verified`].
    Verify {
        /// The files' paths within the fixture, in the order of the data.
        files: Vec<String>,
    },
}

/// From a worker to the page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::large_enum_variant, reason = "there is one of these per step")]
pub enum Reply {
    /// It listens.
    Started,
    /// Part of the bundle is there.
    Loading {
        /// Bytes so far.
        bytes: u64,
        /// Bytes in all.
        of: u64,
    },
    /// The model is loaded.
    Ready {
        /// The device that it runs on, for people.
        device: String,
        /// How long fetching and loading took.
        seconds: f64,
        /// Names of kernels that compute wrong numbers there and are not used.
        #[serde(default)]
        wrong_kernels: Vec<String>,
    },
    /// A prompt is encoded.
    Encoded {
        /// The result.
        condition: Condition,
    },
    /// What the model reads of a prompt.
    Tokenized {
        /// That.
        reading: Reading,
    },
    /// A step is done.
    Step {
        /// Where any engine can go on.
        state: DenoiseState,
        /// How long the step took.
        seconds: f64,
    },
    /// How it looks by now. Binary data: a PNG file.
    Preview {
        /// How long making it took.
        seconds: f64,
    },
    /// The picture. Binary data: a PNG file.
    Picture,
    /// The request was cancelled.
    Cancelled,
    /// The request failed.
    Failed {
        /// Whose fault it is.
        fault: Fault,
        /// Why, and what to do.
        message: String,
    },
    /// The worker's program has ended and answers no more.
    Died {
        /// The program's last words.
        message: String,
    },
    /// The program's memory; it never gets less.
    Memory {
        /// Bytes.
        bytes: u64,
    },
    /// How long each run took.
    Measured {
        /// Seconds.
        seconds: Vec<f64>,
    },
    /// A model is on its way, or being checked.
    Installing {
        /// Its name, for people.
        name: String,
        /// Bytes so far.
        bytes: u64,
        /// Bytes in all.
        of: u64,
        /// How they come.
        flow: Flow,
    },
    /// What a model's digests say. [`Reply::Kept`] follows.
    Checked {
        /// How many files are whole and right.
        right: usize,
        /// How many there are in all.
        of: usize,
        /// Those that are whole and wrong.
        wrong: Vec<String>,
    },
    /// The models that this browser keeps.
    Kept {
        /// All of them, whole or not.
        models: Vec<KeptModel>,
        /// The room there is, if the browser tells.
        room: Option<Room>,
    },
    /// The fingerprint.
    NoiseHash {
        /// SHA-256 in hex.
        hash: String,
    },
    /// The comparisons.
    Verified {
        /// One for each expected tensor, or each kernel.
        rows: Vec<Row>,
    },
}

impl Reply {
    /// Whether the request is over.
    pub fn is_last(&self) -> bool {
        use Reply::{Checked, Installing, Loading, Preview, Step};
        !matches!(self, Loading { .. } | Installing { .. } | Checked { .. } | Step { .. } | Preview { .. })
    }
}

/// How a model's bytes come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flow {
    /// Those that are there already are read again.
    #[default]
    Checks,
    /// They come for the first time.
    Comes,
    /// Nothing comes for some seconds now.
    Stalls,
}

/// What a model reads of a prompt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// Tokens of the prompt, those of its pictures included.
    pub tokens: usize,
    /// Tokens of the negative prompt.
    pub negative_tokens: usize,
    /// Most tokens that the model takes of either.
    pub longest: usize,
    /// Words of both that the model does not know.
    pub unknown: Vec<String>,
}

impl Reading {
    /// Whether the model cannot take it.
    pub fn is_too_long(&self) -> bool {
        self.tokens.max(self.negative_tokens) > self.longest
    }
}

/// Where a bundle's files are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// On a server.
    Server {
        /// An absolute address that ends in a slash.
        base: String,
    },
    /// In this browser's storage.
    Kept {
        /// Its key there.
        key: String,
    },
}

/// How the weights of a linear map are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Packing {
    /// 32-bit floats.
    F32,
    /// Blocks of 8 bits.
    #[serde(rename = "q8_0")]
    Q8_0,
    /// Blocks of 4 bits.
    #[serde(rename = "q4_0")]
    Q4_0,
}

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Supply {
    /// An absolute address that ends in a slash.
    Address(String),
    /// Files that the person chose.
    Files,
}

/// A model in this browser's storage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeptModel {
    /// Its key there.
    pub key: String,
    /// Its manifest.
    pub manifest: Manifest,
    /// The address that it comes from; none if from files.
    pub address: Option<String>,
    /// What of it is wanted.
    pub scope: Scope,
    /// Bytes of that which are there.
    pub bytes: u64,
    /// Bytes of that in all.
    pub of: u64,
    /// What of it can be used: all of that is there and was checked.
    pub here: Option<Scope>,
}

impl KeptModel {
    /// Whether all that is wanted is there.
    pub fn is_whole(&self) -> bool {
        self.here == Some(self.scope)
    }
}

/// How much a browser keeps for a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// Bytes that are taken.
    pub used: u64,
    /// Bytes that may be taken.
    pub most: u64,
}

/// Whose fault a failure is: it decides who may try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The prompt or one of its pictures: nobody can do it.
    Prompt,
    /// The bundle cannot be fetched or does not fit: this page cannot do it.
    Bundle,
    /// The device has no more memory.
    OutOfMemory,
    /// The device is gone.
    DeviceLost,
    /// The device computes nonsense.
    WrongNumbers,
    /// Anything else on the device.
    Device,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_way() {
        let requests = [
            Request::Encode { prompt: PromptDocument::from_text("a <i>", 1).unwrap(), negative: "blurry".into() },
            Request::Cancel,
            // A seed beyond 2⁵³ must not become a rounded number on the way.
            Request::NoiseHash { seed: u64::MAX, stream: 1, count: 10 },
        ];
        for (number, body) in requests.into_iter().enumerate() {
            let envelope = Envelope { request: number as u64, body };
            let json = serde_json::to_string(&envelope).unwrap();
            assert_eq!(serde_json::from_str::<Envelope<Request>>(&json).unwrap(), envelope);
        }
        let json = r#"{"request":7,"body":{"failed":{"fault":"device_lost","message":"gone"}}}"#;
        let envelope: Envelope<Reply> = serde_json::from_str(json).unwrap();
        assert_eq!(envelope.body, Reply::Failed { fault: Fault::DeviceLost, message: "gone".into() });
        assert!(envelope.body.is_last());
    }
}
