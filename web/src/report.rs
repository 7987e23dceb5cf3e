//! What this device and its browser can do, in plain words: for the page, and as a text for those who mend it.
//!
//! No sentence, no picture and no address of a model belongs here.

use kosmosg::protocol::Health;

use crate::app::WorkerState;
use crate::messages::Room;
use crate::texts::{self, about};

/// What there is to tell.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// Folder of the page's programs, whose name is a hash of them.
    pub programs: String,
    /// What the browser calls itself.
    pub user_agent: String,
    /// Whether the page came in a way that browsers trust: encrypted, or from this device.
    pub is_secure: bool,
    /// The GPU, or why there is none; `None` while the browser is asked.
    pub gpu: Option<Result<GpuFacts, NoGpu>>,
    /// The device's memory in bytes, as far as the browser tells.
    pub memory_bytes: Option<f64>,
    /// How many threads the processor runs at once.
    pub threads: Option<f64>,
    /// What the browser keeps for the page.
    pub room: Option<Room>,
    /// Whether it has promised not to remove it by itself.
    pub is_persisted: Option<bool>,
    /// Whether the page is kept for when there is no network.
    pub offline: Offline,
    /// The server, if there is one.
    pub server: Option<Health>,
    /// The model's name.
    pub model: String,
    /// The processor's worker and the GPU's.
    pub workers: [WorkerState; 2],
    /// The last test of the GPU.
    pub test: Option<Test>,
    /// Size of the window in CSS pixels, and device pixels for each.
    pub window: (f64, f64, f64),
}

/// A WebGPU adapter, as the browser describes it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GpuFacts {
    /// Vendor, architecture and whatever else it tells.
    pub name: String,
    /// Whether it is a program on the processor.
    pub is_emulated: bool,
    /// Whether it computes with 16 bits.
    pub has_f16: bool,
    /// Bytes of the largest buffer.
    pub max_buffer_size: u64,
    /// Bytes of the largest buffer that a computation can read.
    pub max_storage_buffer_binding_size: u64,
}

/// Why there is no WebGPU.
#[derive(Debug, Clone, PartialEq)]
pub enum NoGpu {
    /// The page came over a line that browsers do not trust.
    NotSecure,
    /// The browser has none.
    NotOffered,
    /// It finds no GPU for it.
    NoAdapter,
    /// Asking failed.
    Failed(String),
}

impl NoGpu {
    /// What to do about it, in that browser.
    pub fn words(&self, browser: Browser) -> String {
        match (self, browser) {
            (Self::NotSecure, _) => about::NOT_SECURE.into(),
            (Self::NotOffered, Browser::Chromium) => about::NOT_IN_CHROMIUM.into(),
            (Self::NotOffered, Browser::Firefox) => about::NOT_IN_FIREFOX.into(),
            (Self::NotOffered, Browser::Safari) => about::NOT_IN_SAFARI.into(),
            (Self::NotOffered, Browser::Other) => texts::NO_GPU.into(),
            (Self::NoAdapter, Browser::Chromium) => [about::NO_ADAPTER, about::SEE_CHROME].join(" "),
            (Self::NoAdapter, Browser::Firefox) => [about::NO_ADAPTER, about::SEE_FIREFOX].join(" "),
            (Self::NoAdapter, _) => about::NO_ADAPTER.into(),
            (Self::Failed(why), _) => about::gpu_failed(why),
        }
    }
}

/// Whether the page works without a network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Offline {
    /// Browsers keep no page that came over a line which they do not trust.
    #[default]
    Never,
    /// It is being kept.
    Coming,
    /// It does.
    Ready,
    /// It could not be kept.
    Failed,
}

/// A test of what the GPU computes.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// It is under way.
    Running,
    /// So many kernels compute what the processor computes, and these do not.
    Done {
        /// How many do.
        right: usize,
        /// Names of those that do not.
        wrong: Vec<String>,
    },
    /// It came to no end, and why.
    Failed(String),
}

/// A browser, as far as advice depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Browser {
    /// Chrome, Edge, and others that are made of Chromium.
    Chromium,
    /// Firefox.
    Firefox,
    /// Safari, and every browser on an iPhone or iPad.
    Safari,
    /// Anything else.
    Other,
}

impl Browser {
    /// The browser that calls itself so.
    pub fn of(user_agent: &str) -> Self {
        let has = |word: &str| user_agent.contains(word);
        match () {
            // All browsers there are Safari inside.
            () if has("iPhone") || has("iPad") => Self::Safari,
            () if has("Firefox/") => Self::Firefox,
            () if has("Chrome/") || has("Chromium/") => Self::Chromium,
            () if has("Safari/") => Self::Safari,
            () => Self::Other,
        }
    }
}

impl Facts {
    /// All of it: what it is about, and what there is to say.
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        vec![
            (about::GPU, self.gpu_line()),
            (about::PROCESSOR, self.processor_line()),
            (about::STORAGE, self.storage_line()),
            (about::OFFLINE, self.offline_line().into()),
            (about::SERVER, self.server.as_ref().map_or(about::NO_SERVER.into(), server)),
            (about::MODEL, format!("{}{}", self.model, self.workers_line())),
            (about::VERSION, self.version()),
        ]
    }

    /// The most important of it, in a few words.
    pub fn summary(&self) -> String {
        let gpu = match &self.gpu {
            Some(Ok(gpu)) if gpu.is_emulated => about::EMULATED_SHORT,
            Some(Ok(_)) => about::GPU_SHORT,
            Some(Err(_)) => about::NO_GPU_SHORT,
            None => return String::new(),
        };
        let offline = (self.offline == Offline::Ready).then_some(about::OFFLINE_SHORT);
        let server = self.server.as_ref().map(|_| about::SERVER_SHORT);
        [Some(gpu), offline, server].into_iter().flatten().collect::<Vec<_>>().join(" · ")
    }

    /// All of it as a text.
    pub fn text(&self) -> String {
        let mut lines: Vec<_> = self.rows().iter().map(|(name, words)| format!("{name}: {words}")).collect();
        lines.extend(self.test_line().map(|test| format!("{}: {test}", about::TEST)));
        let (width, height, pixels) = self.window;
        lines.push(format!("{}: {width} × {height}, {pixels}", about::WINDOW));
        lines.push(format!("{}: {}", about::BROWSER, self.user_agent));
        lines.join("\n")
    }

    fn version(&self) -> String {
        format!("{} ({})", env!("CARGO_PKG_VERSION"), self.programs)
    }

    fn gpu_line(&self) -> String {
        match &self.gpu {
            None => about::ASKING.into(),
            Some(Ok(gpu)) => {
                let limits = [gpu.max_buffer_size, gpu.max_storage_buffer_binding_size].map(texts::size);
                let kind = if gpu.is_emulated { about::EMULATED } else { about::FOUND };
                about::gpu(kind, &gpu.name, &limits, gpu.has_f16)
            }
            Some(Err(why)) => why.words(Browser::of(&self.user_agent)),
        }
    }

    /// What came of the last test.
    pub fn test_line(&self) -> Option<String> {
        Some(match self.test.as_ref()? {
            Test::Running => texts::TESTING_GPU.into(),
            Test::Done { right, wrong } if wrong.is_empty() => about::right(*right),
            Test::Done { wrong, .. } => texts::wrong_kernels(wrong),
            Test::Failed(why) => texts::sentence(why),
        })
    }

    fn processor_line(&self) -> String {
        let threads = self.threads.map_or(about::UNKNOWN_THREADS.into(), about::threads);
        let memory = self.memory_bytes.map_or(about::UNKNOWN_MEMORY.into(), about::memory);
        format!("{threads}, {memory}")
    }

    fn storage_line(&self) -> String {
        let room = self.room.map_or(texts::NO_STORAGE.into(), |room| texts::room(room.used, room.most));
        match self.is_persisted {
            Some(true) => format!("{room} {}", about::PERSISTED),
            Some(false) => format!("{room} {}", about::NOT_PERSISTED),
            None => room,
        }
    }

    fn offline_line(&self) -> &'static str {
        match self.offline {
            Offline::Never if self.is_secure => about::OFFLINE_NEVER,
            Offline::Never => about::OFFLINE_NOT_SECURE,
            Offline::Coming => about::OFFLINE_COMING,
            Offline::Ready => about::OFFLINE_READY,
            Offline::Failed => about::OFFLINE_FAILED,
        }
    }

    fn workers_line(&self) -> String {
        let name = |index| if index == 0 { about::ON_CPU } else { about::ON_GPU };
        let workers = self.workers.iter().enumerate().filter_map(|(index, worker)| {
            let words = match worker {
                WorkerState::Off => return None,
                WorkerState::Starting | WorkerState::Loading { .. } => about::LOADING.into(),
                WorkerState::Ready { wrong_kernels, .. } if !wrong_kernels.is_empty() => wrong_kernels.join(", "),
                WorkerState::Ready { .. } => about::READY.into(),
                WorkerState::Broken(why) => why.clone(),
            };
            Some(format!("; {}: {words}", name(index)))
        });
        workers.collect()
    }
}

fn server(health: &Health) -> String {
    about::server(&health.version, &health.engine, &health.device, health.queued, health.capacity)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHROME: &str =
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36";
    const IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/120.0 Mobile/15E148 Safari/604.1";

    fn facts() -> Facts {
        let gpu = GpuFacts {
            name: "nvidia ada".into(),
            has_f16: true,
            max_buffer_size: 4 << 30,
            max_storage_buffer_binding_size: 2 << 30,
            ..GpuFacts::default()
        };
        let (version, engine, device) = ("1.2.3".into(), "candle".into(), "cuda:0".into());
        Facts {
            programs: "0123456789abcdef".into(),
            user_agent: CHROME.into(),
            is_secure: true,
            gpu: Some(Ok(gpu)),
            memory_bytes: Some(8e9),
            threads: Some(12.0),
            room: Some(Room { used: 21_000_000, most: 2_000_000_000 }),
            is_persisted: Some(false),
            offline: Offline::Ready,
            server: Some(Health { version, engine, device, queued: 1, capacity: 8 }),
            model: "Built in".into(),
            workers: [WorkerState::Off, WorkerState::Broken("no memory".into())],
            test: None,
            window: (360.0, 740.0, 2.0),
        }
    }

    fn row(facts: &Facts, name: &str) -> String {
        facts.rows().into_iter().find(|(row, _)| *row == name).unwrap().1
    }

    #[test]
    fn a_device_that_can_do_everything_says_so() {
        let facts = facts();
        assert_eq!(facts.summary(), "GPU · works offline · server");
        let gpu = row(&facts, about::GPU);
        for words in ["nvidia ada", "4.29 GB", "2.15 GB", "16 bits"] {
            assert!(gpu.contains(words), "{words}: {gpu}");
        }
        assert!(row(&facts, about::MODEL).contains("on the GPU: no memory"), "{}", row(&facts, about::MODEL));
        let text = facts.text();
        for words in ["1.2.3", "cuda:0", "0123456789abcdef", CHROME, "360 × 740", "12 threads", "8 GB"] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }

    #[test]
    fn a_missing_gpu_comes_with_what_to_do() {
        let line = |why: NoGpu, user_agent: &str| {
            let facts = Facts { gpu: Some(Err(why)), user_agent: user_agent.into(), ..facts() };
            assert_eq!(facts.summary(), "no GPU · works offline · server");
            row(&facts, about::GPU)
        };
        // The address is the reason, whatever the browser.
        for browser in [CHROME, IPHONE, ""] {
            assert!(line(NoGpu::NotSecure, browser).contains("https://"));
        }
        assert!(line(NoGpu::NotOffered, IPHONE).contains("Safari has WebGPU from version 26"));
        assert!(line(NoGpu::NotOffered, "Mozilla/5.0 Gecko/20100101 Firefox/120.0").contains("Firefox"));
        assert_eq!(line(NoGpu::NotOffered, "Lynx"), texts::NO_GPU);
        assert!(line(NoGpu::NoAdapter, CHROME).contains("chrome://gpu"));
        assert!(line(NoGpu::Failed("oops".into()), CHROME).contains("oops"));
    }

    #[test]
    fn a_test_names_what_is_wrong() {
        let line = |test| Facts { test: Some(test), ..facts() }.test_line().unwrap();
        assert!(line(Test::Done { right: 6, wrong: Vec::new() }).contains('6'));
        assert!(line(Test::Done { right: 5, wrong: vec!["linear map".into()] }).contains("linear map"));
        assert_eq!(line(Test::Failed("the GPU went away".into())), "The GPU went away.");
        let tested = Facts { test: Some(Test::Done { right: 6, wrong: Vec::new() }), ..facts() };
        assert!(tested.text().contains(about::TEST) && !facts().text().contains(about::TEST));
    }

    #[test]
    fn a_page_that_cannot_be_kept_says_why() {
        let line = |offline, is_secure| row(&Facts { offline, is_secure, ..facts() }, about::OFFLINE);
        assert!(line(Offline::Never, false).contains("https://"));
        assert!(!line(Offline::Never, true).contains("https://"));
        assert!(line(Offline::Failed, true).contains("room"));
        assert_eq!(Facts::default().summary(), "");
    }
}
