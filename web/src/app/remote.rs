//! How the page gets on with its server.

use kosmosg::bundle::Part;
use kosmosg::placement::Place;
use kosmosg::protocol::{ApiError, JobCreated, JobEvent, JobStatus};

use super::job::{Line, Moved};
use super::{App, Choice, Doing, Effect, Job, Offer, Phase};
use crate::pace::Pace;
use crate::texts;

/// While the server denoises, its state is fetched every so many steps: what is lost if it goes away.
const STEPS_BETWEEN_STATES: usize = 4;
/// How long a server that is away is waited for; also how long nothing may be heard of a job before the server is asked.
pub const PATIENCE_MS: f64 = 30_000.0;

/// Why the server did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It cannot be reached.
    #[error("{}", texts::SERVER_UNREACHABLE)]
    Away,
    /// It was reached, and has not answered for too long.
    #[error("{}", texts::SERVER_SILENT)]
    Silent,
    /// It does not know this device.
    #[error("{}", texts::NOT_PAIRED)]
    Stranger,
    /// It does not have what was asked for.
    #[error("{0}")]
    Missing(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl Refusal {
    /// What an answer says that is no success.
    pub fn of(status: u16, status_text: &str, body: &[u8]) -> Self {
        let error = kosmosg::json::read::<ApiError>(body);
        match (status, error) {
            (401, _) => Self::Stranger,
            // Something before the server may answer in its place, that it is not there.
            (502..=504, Err(_)) => Self::Away,
            (404, Ok(error)) => Self::Missing(error.message),
            (_, Ok(error)) => Self::Other(error.message),
            (_, Err(_)) => Self::Other(format!("{status} {status_text}")),
        }
    }
}

impl App {
    /// Whether the server does not know this device.
    pub fn is_stranger(&self) -> bool {
        self.is_stranger
    }

    /// Whether there is no server that works for this device.
    pub fn misses_server(&self) -> bool {
        self.places.server.is_none() || self.is_stranger
    }

    /// Whether the present job is the server's job of that name.
    pub fn follows(&self, id: &str) -> bool {
        self.phase == Phase::Running && self.job.as_ref().is_some_and(|job| job.remote.as_deref() == Some(id))
    }

    /// Whether the server that has the present job is waited for.
    pub fn waits_for_server(&self) -> bool {
        let waits = |job: &Job| job.remote.is_some() && matches!(job.line, Line::Away(_));
        self.phase == Phase::Running && self.job.as_ref().is_some_and(waits)
    }

    pub(super) fn offered(&mut self, answer: Result<Vec<Offer>, Refusal>) {
        let was_stranger = self.is_stranger;
        self.recognize(&answer);
        // What could not be begun for that reason only can be now; with a picture, the person says where it goes on.
        if was_stranger && !self.is_stranger && self.job.is_none() {
            self.go_on(Choice::Auto);
        }
        match answer {
            Ok(offers) => self.models.offered = offers,
            Err(Refusal::Silent) => {
                self.models.trouble.get_or_insert(texts::sentence(texts::SERVER_SILENT));
            }
            // A page without a server has its own models.
            Err(_) => {}
        }
    }

    pub(super) fn post(&mut self) {
        let request = self.number();
        let bundle = self.models.id_on_server().unwrap_or_default();
        let (Some(job), Some(manifest)) = (&mut self.job, &self.manifest) else { return };
        job.request = request;
        if let Some(id) = job.remote.clone() {
            // It has the job already. Whether it is back will be seen.
            return self.listen(id, Line::Away(self.now_ms));
        }
        job.doing = Doing::Sending;
        let unet = manifest.part("unet").map_or(String::new(), Part::sha256);
        self.effects.push(Effect::Post { request, job: job.for_server(&bundle, &unet) });
    }

    pub(super) fn posted(&mut self, request: u64, answer: Result<JobCreated, Refusal>) {
        self.recognize(&answer);
        let Some(job) = self.job.as_mut().filter(|job| job.request == request && self.phase == Phase::Running) else {
            self.effects.extend(answer.ok().map(|JobCreated { id, .. }| Effect::Delete { id }));
            return;
        };
        match answer {
            Ok(JobCreated { id, position }) => {
                job.doing = Doing::Queued { position, seconds: None };
                job.remote = Some(id.clone());
                self.listen(id, Line::Heard(self.now_ms));
            }
            Err(refusal @ (Refusal::Away | Refusal::Silent)) => {
                self.server_failed(texts::not_sent(&refusal.to_string()));
            }
            Err(refusal) => self.server_failed(refusal.to_string()),
        }
    }

    /// Listens to the job that the server has.
    pub(super) fn listen(&mut self, id: String, line: Line) {
        let Some(job) = &mut self.job else { return };
        (job.line, job.pace, job.pace_from) = (line, Pace::default(), None);
        let wait = Effect::Wait { request: job.request, milliseconds: PATIENCE_MS };
        self.effects.extend([Effect::Follow { id }, wait]);
    }

    /// Something was heard of the job.
    pub(super) fn hear(&mut self) {
        if let Some(job) = &mut self.job {
            job.line = Line::Heard(self.now_ms);
        }
    }

    /// The line to the server stands.
    pub(super) fn server_came(&mut self) {
        self.hear();
        if let Some(job) = &mut self.job {
            job.pace_from = None;
        }
    }

    /// The line to the server broke, or it has ended.
    pub(super) fn server_went(&mut self) {
        if let Some(job) = &mut self.job
            && matches!(job.line, Line::Heard(_))
        {
            job.line = Line::Away(self.now_ms);
        }
    }

    /// Some time has passed since the server was given the job.
    pub(super) fn waited(&mut self, request: u64) {
        let Some(job) = self.job.as_mut().filter(|job| job.request == request && self.phase == Phase::Running) else {
            return;
        };
        let Some(id) = job.remote.clone() else { return };
        match job.line {
            Line::Away(since) if self.now_ms >= since + PATIENCE_MS => {
                return self.server_failed(texts::SERVER_GONE.into());
            }
            Line::Heard(at) if self.now_ms >= at + PATIENCE_MS => {
                // Not every line that is dead is told to be.
                job.line = Line::Heard(self.now_ms);
                self.effects.push(Effect::Ask { id });
            }
            _ => {}
        }
        let (Line::Heard(from) | Line::Away(from)) = job.line;
        self.effects.push(Effect::Wait { request, milliseconds: from + PATIENCE_MS - self.now_ms });
    }

    /// What the server says of the job, when asked.
    pub(super) fn told(&mut self, id: String, answer: Result<JobStatus, Refusal>) {
        self.recognize(&answer);
        let Some(job) = &mut self.job else { return };
        match answer {
            Ok(JobStatus { last, .. }) if last.is_last() => self.remote(id, last),
            Ok(_) => match job.line {
                Line::Heard(_) => self.hear(),
                Line::Away(_) => self.effects.push(Effect::Follow { id }),
            },
            Err(Refusal::Away | Refusal::Silent) => {
                self.server_went();
                self.effects.push(Effect::Ask { id });
            }
            Err(Refusal::Missing(_)) => {
                job.remote = None;
                self.server_failed(texts::JOB_FORGOTTEN.into());
            }
            Err(refusal) => self.server_failed(refusal.to_string()),
        }
    }

    pub(super) fn remote(&mut self, id: String, event: JobEvent) {
        let Some(job) = &mut self.job else { return };
        match event {
            JobEvent::Queued { position, seconds } => job.doing = Doing::Queued { position, seconds },
            JobEvent::Encoding => job.doing = Doing::Encoding(Place::Server),
            JobEvent::Step { step, of, seconds } => {
                let (first, before) = *job.pace_from.get_or_insert((step, seconds));
                job.pace = Pace::default();
                job.pace.steps(step.saturating_sub(first), seconds - before);
                job.doing = Doing::Denoising { place: Place::Server, step, of };
                if step % STEPS_BETWEEN_STATES == 0 && step < of {
                    self.effects.push(Effect::FetchState { id });
                }
            }
            JobEvent::Preview { png, .. } => self.effects.push(Effect::Preview(png)),
            JobEvent::Done { .. } => {
                job.doing = Doing::Fetching;
                self.effects.push(Effect::FetchPicture { id });
            }
            JobEvent::Failed { error } => {
                job.remote = None;
                self.server_failed(error.message);
            }
            JobEvent::Cancelled => {
                self.phase = Phase::Cancelled;
                self.next();
            }
        }
    }

    fn server_failed(&mut self, message: String) {
        if let Some(job) = &mut self.job {
            job.moved = Some(Moved { from: Place::Server, step: job.state.step(), why: None });
        }
        self.fail(message, self.remedies(Some(Place::Server)));
    }

    /// Notes whether the server knows this device.
    fn recognize<T>(&mut self, answer: &Result<T, Refusal>) {
        match answer {
            Ok(_) => self.is_stranger = false,
            Err(Refusal::Stranger) => self.is_stranger = true,
            Err(_) => {}
        }
    }
}
