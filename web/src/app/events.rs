//! What happens to the page, what it has done about it, and what it is at.

use kosmosg::bundle::Manifest;
use kosmosg::denoise::DenoiseState;
use kosmosg::placement::Place;
use kosmosg::prompt::PromptDocument;
use kosmosg::protocol::{Health, JobCreated, JobEvent, JobRequest, JobStatus};

use super::job::Order;
use super::models::{Deed, Offer};
use super::places::{Adapter, Choice};
use super::remote::Refusal;
use super::results::{Look, Made};
use super::saved::SavedJob;
use crate::messages::{Envelope, Reply, Request, Room};
use crate::report::{Browser, NoGpu};

/// A worker, by what it computes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Processor {
    /// The processor.
    Cpu,
    /// The GPU.
    Gpu,
}

/// How far a worker is.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum WorkerState {
    /// Not started.
    #[default]
    Off,
    /// Its program is being loaded.
    Starting,
    /// The model is being loaded.
    Loading {
        /// Bytes so far.
        bytes: u64,
        /// Bytes in all.
        of: u64,
    },
    /// It can be used.
    Ready {
        /// Its device, for people.
        device: String,
        /// Names of kernels that compute wrong numbers there and are not used.
        wrong_kernels: Vec<String>,
    },
    /// It cannot be used, and why.
    Broken(String),
}

/// What the page is at.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Phase {
    /// Nothing.
    #[default]
    Idle,
    /// A job.
    Running,
    /// A job is done.
    Done {
        /// How long it took.
        seconds: f64,
        /// Where it ended.
        place: Place,
    },
    /// A job, or the start of the page, failed.
    Failed {
        /// What happened.
        message: String,
        /// Where the job can go on.
        remedies: Vec<Choice>,
    },
    /// The person cancelled the job.
    Cancelled,
}

/// Something that happened.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are what their types say")]
pub enum Event {
    /// The page opens; `model` is the kept one of an earlier visit, `loading` one whose loading did not come to an end.
    Open { model: Option<String>, loading: Option<String> },
    /// The built-in bundle's manifest is there; its files are below the address `base`.
    Manifest { base: String, manifest: Box<Manifest> },
    /// The built-in bundle's manifest cannot be had.
    NoManifest { why: Refusal },
    /// What the browser says about GPU and memory.
    Device { adapter: Option<Adapter>, cpu_memory_bytes: u64 },
    /// What the server says about itself, if there is one.
    Server(Option<Health>),
    /// What models the server offers, or why it does not say.
    Offered(Result<Vec<Offer>, Refusal>),
    /// The person wants something of a model.
    Model(Deed),
    /// The room that this browser has, when it was asked again.
    Room(Room),
    /// Who keeps the models said something.
    Keeper(Box<Envelope<Reply>>),
    /// The program that keeps the models could not be loaded or ended.
    KeeperDied { why: String },
    /// For tests: the next run on this device is to fail before a step.
    FailAtStep(usize),
    /// The person chose a place.
    Choose(Choice),
    /// The person wants a picture.
    Make(Box<Order>),
    /// The page before it was reloaded has left a job, and orders that waited.
    Resume { job: Option<Box<SavedJob>>, waiting: Vec<Order> },
    /// The person does not want the picture any more that is being made; the next one follows.
    Cancel,
    /// A finished picture was put on the shelf, or the browser does not keep it.
    Stored,
    /// The person wants no picture any more.
    CancelAll,
    /// The person does not want an order any more that waits: its ticket.
    Withdraw(u64),
    /// The person looks at a picture.
    Look(Look),
    /// The sentence is another one now.
    Wrote { prompt: Box<PromptDocument>, negative: String },
    /// There is no WebGPU: why, and in which browser.
    NoGpu { why: NoGpu, browser: Browser },
    /// The person wants a failed job to go on.
    GoOn(Choice),
    /// A worker said something.
    Worker { processor: Processor, message: Box<Envelope<Reply>>, data: Vec<Vec<u8>> },
    /// A worker's program could not be loaded or ended.
    WorkerDied { processor: Processor, why: String },
    /// The server took a job, or did not.
    Posted { request: u64, answer: Result<JobCreated, Refusal> },
    /// Something happened to a job on the server.
    Remote { id: String, event: Box<JobEvent> },
    /// The state of a job on the server.
    RemoteState { id: String, state: Box<DenoiseState> },
    /// The picture of a job on the server.
    RemotePicture { id: String, png: Vec<u8> },
    /// The events of a job on the server come, for the first time or again.
    ServerCame { id: String },
    /// They come no more. The browser tries by itself to have them again.
    ServerWent { id: String },
    /// What the server says of a job that it was asked for, or why it does not.
    Told { id: String, answer: Result<JobStatus, Refusal> },
    /// The time of an [`Effect::Wait`] is over.
    Waited { request: u64 },
}

/// Something to do in the browser.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "there are a few of these at a time")]
#[expect(missing_docs, reason = "the fields are what their types say")]
pub enum Effect {
    /// Start a worker's program.
    Start(Processor),
    /// End a worker's program.
    Stop(Processor),
    /// Say something to a worker.
    Send { processor: Processor, message: Envelope<Request>, data: Vec<Vec<u8>> },
    /// Start the program that keeps the models.
    StartKeeper,
    /// Say something to it.
    Keep(Envelope<Request>),
    /// End the program that keeps the models.
    StopKeeper,
    /// Fetch the built-in bundle's manifest.
    OpenBuiltIn,
    /// Show what the bundle does when nobody says otherwise.
    ShowDefaults(Box<Manifest>),
    /// Remember which kept model is in use.
    RememberModel(Option<String>),
    /// Remember which kept model is being loaded, until that has come to an end.
    MarkLoading(Option<String>),
    /// Ask the server what models it offers.
    ListModels,
    /// Give a job to the server.
    Post { request: u64, job: JobRequest },
    /// Listen to a job on the server.
    Follow { id: String },
    /// Ask the server in a moment what has become of a job.
    Ask { id: String },
    /// Say when so much time is over.
    Wait { request: u64, milliseconds: f64 },
    /// Fetch the state of a job on the server.
    FetchState { id: String },
    /// Fetch the picture of a job on the server.
    FetchPicture { id: String },
    /// Cancel a job on the server and listen to it no more.
    Delete { id: String },
    /// Show how it looks by now.
    Preview(Vec<u8>),
    /// Keep a picture, to be shown when the person looks at it.
    Picture(Box<Made>),
    /// Let go of a picture.
    Forget(u64),
    /// Remember the person's choice.
    Remember(Choice),
}

impl Processor {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Cpu, Self::Gpu];

    pub(super) fn other(self) -> Self {
        match self {
            Processor::Cpu => Processor::Gpu,
            Processor::Gpu => Processor::Cpu,
        }
    }

    /// The worker's name, by which its program knows what to load.
    pub fn name(self) -> &'static str {
        match self {
            Processor::Cpu => "cpu",
            Processor::Gpu => "gpu",
        }
    }

    pub(super) fn place(self) -> Place {
        match self {
            Processor::Cpu => Place::DeviceCpu,
            Processor::Gpu => Place::DeviceGpu,
        }
    }

    pub(super) fn engine(self) -> &'static str {
        match self {
            Processor::Cpu => "burn on CPU, in the page",
            Processor::Gpu => "burn on WebGPU",
        }
    }
}
