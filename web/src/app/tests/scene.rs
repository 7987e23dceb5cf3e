//! A page, and what happens to it.

use kosmosg::condition::Condition;
use kosmosg::placement::Gpu;
use kosmosg::prompt::PromptDocument;
use kosmosg::protocol::{GenerateSettings, Health, JobCreated, JobEvent, JobRequest, PictureFile};

use super::super::*;
use crate::messages::{Fault, Reply};

pub const NOW: f64 = 1000.0;

pub fn manifest() -> Manifest {
    let part = |n: u64| serde_json::json!({ "files": [], "bytes": n, "memory_bytes": n, "largest_tensor_bytes": n });
    let json = serde_json::json!({
        "format": 1,
        "name": "test",
        "family": "kosmos-g",
        "picture_size": 16,
        "networks": {
            "kosmosg": kosmosg::config::KosmosGConfig::published(),
            "unet": {
                "in_channels": 4, "out_channels": 4, "block_out_channels": [32], "layers_per_block": 1,
                "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"], "cross_attention_dim": 768,
                "attention_head_dim": 8
            },
            "vae": { "block_out_channels": [32, 32], "layers_per_block": 1 }
        },
        "scheduler": kosmosg::schedule::SchedulerConfig::stable_diffusion(),
        "defaults": { "sampler": "dpmpp-2m", "steps": 10, "guidance": 3.0 },
        "tokenizer": { "name": "tokenizer.json", "bytes": 1, "sha256": "" },
        "licence": "", "origin": "",
        "parts": { "vision": part(1), "mllm": part(1), "aligner": part(1), "unet": part(1), "vae": part(1) }
    });
    Manifest::from_json(&serde_json::to_vec(&json).unwrap()).unwrap()
}

pub fn health() -> Health {
    let (engine, device) = ("candle".into(), "cpu".into());
    Health { version: "1".into(), engine, device, queued: 0, capacity: 4 }
}

/// A worker is ready.
pub fn ready(device: &str, wrong_kernels: &[&str]) -> Reply {
    let wrong_kernels = wrong_kernels.iter().map(|&name| name.to_owned()).collect();
    Reply::Ready { device: device.into(), seconds: 1.0, wrong_kernels }
}

pub fn adapter() -> Adapter {
    let limits = Gpu { max_buffer_size: 1 << 30, max_storage_buffer_binding_size: 1 << 30, memory_bytes: 1 << 30 };
    Adapter { limits, is_emulated: false }
}

pub fn order() -> Order {
    Order {
        prompt: PromptDocument::from_text("a <i> on the beach", 1).unwrap(),
        pictures: vec![PictureFile(vec![1, 2, 3])],
        negative: String::new(),
        settings: GenerateSettings { seed: 7, ..GenerateSettings::default() },
        series: Series::default(),
    }
}

pub fn condition() -> Condition {
    Condition { tokens: 1, width: 2, cond: vec![0.5; 2], uncond: vec![0.0; 2] }
}

/// A page, and the effects of its last event.
pub struct Scene {
    pub app: App,
    pub effects: Vec<Effect>,
    pub now_ms: f64,
}

impl Scene {
    /// A page with a server or none, whose processor's worker is ready.
    pub fn new(server: Option<Health>) -> Self {
        let mut scene = Self { app: App::default(), effects: Vec::new(), now_ms: NOW };
        scene.happens(Event::Device { adapter: None, cpu_memory_bytes: 1 << 30 });
        scene.happens(Event::Server(server));
        scene.happens(Event::Manifest { base: "http://here/".into(), manifest: Box::new(manifest()) });
        assert!(matches!(scene.effects[..], [Effect::ShowDefaults(_), Effect::Start(Processor::Cpu)]));
        scene
    }

    pub fn ready(server: Option<Health>) -> Self {
        let mut scene = Self::new(server);
        scene.load();
        scene
    }

    pub fn load(&mut self) {
        self.says(LOAD, Reply::Started);
        let here = Source::Server { base: "http://here/".into() };
        assert!(matches!(&self.request(), Request::Load { source, .. } if *source == here));
        self.says(LOAD, ready("CPU", &[]));
    }

    pub fn happens(&mut self, event: Event) {
        self.effects = self.app.update(self.now_ms, event);
    }

    pub fn says(&mut self, request: u64, body: Reply) {
        self.hears(Processor::Cpu, request, body);
    }

    pub fn hears(&mut self, processor: Processor, request: u64, body: Reply) {
        let message = Box::new(Envelope { request, body });
        self.happens(Event::Worker { processor, message, data: vec![vec![9]] });
    }

    /// The GPU's worker is loaded.
    pub fn load_gpu(&mut self) {
        self.hears(Processor::Gpu, LOAD, Reply::Started);
        self.hears(Processor::Gpu, LOAD, ready("WebGPU", &[]));
    }

    pub fn waits(&mut self, seconds: f64) {
        self.now_ms += seconds * 1000.0;
    }

    /// The worker answers the job's present request.
    pub fn answers(&mut self, body: Reply) {
        self.says(self.job().request, body);
    }

    pub fn fails(&mut self, fault: Fault) {
        self.answers(Reply::Failed { fault, message: "why".into() });
    }

    pub fn job(&self) -> &Job {
        self.app.job.as_ref().unwrap()
    }

    /// The one request that was sent to the worker.
    pub fn request(&self) -> Request {
        let mut sent = self.effects.iter().filter_map(|effect| match effect {
            Effect::Send { message, .. } => Some(message.body.clone()),
            _ => None,
        });
        sent.next().unwrap()
    }

    /// Begins a job and encodes it, if it is not known from the one before.
    pub fn encode(&mut self) {
        self.happens(Event::Make(Box::new(order())));
        if self.job().condition.is_none() {
            self.answers(Reply::Encoded { condition: condition() });
        }
    }

    /// Does steps on the worker.
    pub fn steps(&mut self, steps: usize) {
        (0..steps).for_each(|_| self.step(Processor::Cpu, 0.5));
    }

    pub fn step(&mut self, processor: Processor, seconds: f64) {
        let mut state = self.job().state.clone();
        state.advance(&vec![0.1; state.settings().latent_len()]).unwrap();
        self.hears(processor, self.job().request, Reply::Step { state, seconds });
    }

    /// The server takes the job and says something.
    pub fn server_takes(&mut self) -> JobRequest {
        let (request, job) = match &self.effects[..] {
            [Effect::Post { request, job }] => (*request, job.clone()),
            effects => panic!("{effects:?}"),
        };
        self.happens(Event::Posted { request, answer: Ok(JobCreated { id: "x".into(), position: 0 }) });
        assert!(matches!(&self.effects[..], [Effect::Follow { id }, Effect::Wait { .. }] if id == "x"));
        job
    }

    pub fn server_says(&mut self, event: JobEvent) {
        self.happens(Event::Remote { id: "x".into(), event: Box::new(event) });
    }
}
