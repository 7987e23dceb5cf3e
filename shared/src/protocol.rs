//! What page and server say to each other, as JSON.
//!
//! | request | answer |
//! |---|---|
//! | `GET /health` | [`Health`] |
//! | `GET /api/bundles` | list of [`BundleEntry`] |
//! | `GET /api/loras` | list of names that a [`Lora`] may have |
//! | `GET /models/NAME/FILE` | a bundle's file; byte ranges are served |
//! | `POST /api/jobs` with [`JobRequest`] | 202 and [`JobCreated`] |
//! | `GET /api/jobs/ID/events` | server-sent events, each a [`JobEvent`] |
//! | `GET /api/jobs/ID` | [`JobStatus`] |
//! | `GET /api/jobs/ID/result` | the picture, PNG |
//! | `GET /api/jobs/ID/state` | the last [`DenoiseState`], until the job has ended |
//! | `DELETE /api/jobs/ID` | 204; the job stops before its next step |
//!
//! Every failure is an [`ApiError`] with a fitting status.

use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::denoise::DenoiseState;
use crate::prompt::PromptDocument;
use crate::sampler::SamplerKind;
use crate::wire;

/// Largest body of a request: ten photographs and then some.
pub const MAX_REQUEST_BYTES: usize = 64 << 20;
/// Most pictures of a request.
pub const MAX_REQUEST_PICTURES: usize = 32;
/// Most LoRAs of a request.
pub const MAX_LORAS: usize = 8;

/// Work for the server: `{"denoise": {…}}` or `{"generate": {…}}`. The kind comes first, so that what follows is read as
/// what it is; a field beside the others would have all of them kept in a form many times larger until it is met.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[allow(clippy::large_enum_variant, reason = "there is one of these per request; in wasm it is not large")]
pub enum JobRequest {
    /// Go on from a state: before the first step, or in the middle of a run that began elsewhere.
    Denoise {
        /// Name of the bundle whose U-Net the state belongs to.
        bundle: String,
        /// Version of that U-Net: [`Part::sha256`](crate::bundle::Part::sha256) of the part `unet`. A page may be older than
        /// its server's models, and another U-Net would make something else of the same state.
        unet: String,
        /// What to denoise towards.
        condition: Condition,
        /// Where to go on.
        state: DenoiseState,
        /// What changes the U-Net.
        #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "wire::list::<_, _, MAX_LORAS>")]
        loras: Vec<Lora>,
    },
    /// All of it, for devices that cannot encode.
    Generate {
        /// Name of the bundle.
        bundle: String,
        /// Words and picture places.
        #[cfg_attr(feature = "openapi", schema(value_type = Vec<crate::prompt::PromptItem>))]
        prompt: PromptDocument,
        /// The pictures in order: PNG, JPEG or WebP files in base64.
        #[serde(default, deserialize_with = "wire::list::<_, _, MAX_REQUEST_PICTURES>")]
        pictures: Vec<PictureFile>,
        /// What to steer away from; empty for nothing.
        #[serde(default)]
        negative: String,
        /// How.
        settings: GenerateSettings,
        /// What changes the U-Net.
        #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "wire::list::<_, _, MAX_LORAS>")]
        loras: Vec<Lora>,
    },
}

impl JobRequest {
    /// Name of the bundle that it is for.
    pub fn bundle(&self) -> &str {
        let (Self::Denoise { bundle, .. } | Self::Generate { bundle, .. }) = self;
        bundle
    }

    /// What changes the bundle's U-Net.
    pub fn loras(&self) -> &[Lora] {
        let (Self::Denoise { loras, .. } | Self::Generate { loras, .. }) = self;
        loras
    }
}

/// A picture file in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, content_encoding = "base64"))]
#[serde(transparent)]
pub struct PictureFile(#[serde(with = "crate::wire::bytes")] pub Vec<u8>);

/// A LoRA that the server has, and how strongly it changes the U-Net.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Lora {
    /// Its file's name without the ending.
    pub name: String,
    /// 1 as it was trained, 0 not at all.
    pub scale: f32,
}

/// How to make a picture; what is missing is the bundle's default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GenerateSettings {
    /// Seed of the noise.
    pub seed: u64,
    /// Which picture of that seed, from 0: each has its own noise.
    #[serde(default, skip_serializing_if = "is_first")]
    pub picture: u64,
    /// Sampler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampler: Option<SamplerKind>,
    /// Denoising steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// Guidance scale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance: Option<f64>,
    /// Pixels in a row; a multiple of what the autoencoder takes as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Number of rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
}

fn is_first(picture: &u64) -> bool {
    *picture == 0
}

/// Answer to a new job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobCreated {
    /// Name of the job in every later request; hard to guess.
    pub id: String,
    /// Jobs that come first.
    pub position: usize,
}

/// Something that happened to a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum JobEvent {
    /// It waits; `position` jobs come first.
    Queued {
        /// Jobs that come first.
        position: usize,
        /// Seconds until its turn, as far as the server can tell yet.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds: Option<f64>,
    },
    /// The prompt is being encoded.
    Encoding,
    /// A step is done.
    Step {
        /// Evaluations done.
        step: usize,
        /// Evaluations in all.
        of: usize,
        /// Seconds since the job began to run.
        seconds: f64,
    },
    /// How it looks by now.
    Preview {
        /// Evaluations done.
        step: usize,
        /// A small PNG in base64.
        #[serde(with = "crate::wire::bytes")]
        #[cfg_attr(feature = "openapi", schema(value_type = String, content_encoding = "base64"))]
        png: Vec<u8>,
    },
    /// The picture is there.
    Done {
        /// Seconds from the job's beginning to its end.
        seconds: f64,
    },
    /// It cannot be done.
    Failed {
        /// Why, and what to do.
        error: ApiError,
    },
    /// Somebody cancelled it.
    Cancelled,
}

impl JobEvent {
    /// Whether nothing comes after it.
    pub fn is_last(&self) -> bool {
        matches!(self, JobEvent::Done { .. } | JobEvent::Failed { .. } | JobEvent::Cancelled)
    }
}

/// A job as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobStatus {
    /// Its name.
    pub id: String,
    /// The last thing that happened, previews left out.
    pub last: JobEvent,
}

/// A bundle that the server has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BundleEntry {
    /// Name in requests: its folder's.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// Size of all the files that a picture needs.
    pub bytes: u64,
    /// Size of those of them that encoding a prompt needs.
    #[serde(default)]
    pub encoder_bytes: u64,
    /// Version of its U-Net, as in [`JobRequest::Denoise`]: two bundles may have the same name for people.
    #[serde(default)]
    pub unet: String,
}

/// How the server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Health {
    /// The program's version.
    pub version: String,
    /// The engine's name.
    pub engine: String,
    /// The device, for people: `cpu`, `cuda:0`.
    pub device: String,
    /// Jobs waiting.
    pub queued: usize,
    /// Jobs that may wait.
    pub capacity: usize,
}

/// A failure, for people and for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[error("{message}")]
pub struct ApiError {
    /// What kind.
    pub code: ErrorCode,
    /// What, where, and what to do.
    pub message: String,
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request is wrong; the same again will fail again.
    Invalid,
    /// No such job, bundle or file.
    NotFound,
    /// Who asks is not known, or may not.
    Unauthorized,
    /// The request is larger than the server takes.
    TooLarge,
    /// The queue is full; later may work.
    Busy,
    /// The result is not there yet.
    NotReady,
    /// The job's time was over before it was done.
    TimedOut,
    /// The server failed.
    Internal,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_begins_with_its_kind() {
        let settings = GenerateSettings { seed: 1, ..GenerateSettings::default() };
        let pictures = vec![PictureFile(vec![1, 2, 3])];
        let (bundle, prompt, negative) = ("tiny".into(), PromptDocument::default(), String::new());
        let loras = Vec::new();
        let request = JobRequest::Generate { bundle, prompt, pictures, negative, settings, loras };
        let json = serde_json::to_string(&request).unwrap();
        let expected =
            r#"{"generate":{"bundle":"tiny","prompt":[],"pictures":["AQID"],"negative":"","settings":{"seed":1}}}"#;
        assert_eq!(json, expected);
        assert!(
            matches!(serde_json::from_str(&json), Ok(JobRequest::Generate { pictures, .. }) if pictures.len() == 1)
        );
    }

    #[test]
    fn loras_travel_with_their_strength() {
        let with =
            |loras: &str| format!(r#"{{"generate":{{"bundle":"tiny","prompt":[],"settings":{{"seed":1}},{loras}}}}}"#);
        let one = r#"{"name":"wool","scale":0.7}"#;
        let request: JobRequest = serde_json::from_str(&with(&format!(r#""loras":[{one}]"#))).unwrap();
        assert!(serde_json::to_string(&request).unwrap().contains(one));
        let many = format!(r#""loras":[{}{one}]"#, format!("{one},").repeat(MAX_LORAS));
        let error = serde_json::from_str::<JobRequest>(&with(&many)).unwrap_err().to_string();
        assert!(error.contains("at most 8 are"), "{error}");
    }
}
