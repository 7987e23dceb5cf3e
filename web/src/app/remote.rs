//! How the page gets on with its server.

use kosmosg::bundle::Part;
use kosmosg::placement::Place;
use kosmosg::protocol::{JobCreated, JobEvent};

use super::job::Moved;
use super::{App, Doing, Effect, Phase};
use crate::pace::Pace;

/// While the server denoises, its state is fetched every so many steps: what is lost if it goes away.
const STEPS_BETWEEN_STATES: usize = 4;

impl App {
    pub(super) fn post(&mut self) {
        let request = self.number();
        let bundle = self.models.id_on_server().unwrap_or_default();
        let (Some(job), Some(manifest)) = (&mut self.job, &self.manifest) else { return };
        (job.request, job.doing) = (request, Doing::Sending);
        let unet = manifest.part("unet").map_or(String::new(), Part::sha256);
        self.effects.push(Effect::Post { request, job: job.for_server(&bundle, &unet) });
    }

    pub(super) fn posted(&mut self, request: u64, answer: Result<JobCreated, String>) {
        let Some(job) = self.job.as_mut().filter(|job| job.request == request && self.phase == Phase::Running) else {
            self.effects.extend(answer.ok().map(|JobCreated { id, .. }| Effect::Delete { id }));
            return;
        };
        match answer {
            Ok(JobCreated { id, position }) => {
                job.doing = Doing::Queued { position, seconds: None };
                job.remote = Some(id.clone());
                job.pace = Pace::default();
                self.effects.push(Effect::Follow { id });
            }
            Err(message) => self.server_failed(message),
        }
    }

    /// Whether the present job is the server's job of that name.
    pub fn follows(&self, id: &str) -> bool {
        self.phase == Phase::Running && self.job.as_ref().is_some_and(|job| job.remote.as_deref() == Some(id))
    }

    pub(super) fn remote(&mut self, id: String, event: JobEvent) {
        let Some(job) = &mut self.job else { return };
        match event {
            JobEvent::Queued { position, seconds } => job.doing = Doing::Queued { position, seconds },
            JobEvent::Encoding => job.doing = Doing::Encoding(Place::Server),
            JobEvent::Step { step, of, seconds } => {
                job.pace = Pace::default();
                let began_at = job.moved.map_or(0, |moved| moved.step);
                job.pace.steps(step.saturating_sub(began_at), seconds);
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
            JobEvent::Failed { error } => self.server_failed(error.message),
            JobEvent::Cancelled => self.phase = Phase::Cancelled,
        }
    }

    pub(super) fn server_failed(&mut self, message: String) {
        if let Some(job) = &mut self.job {
            job.moved = Some(Moved { from: Place::Server, step: job.state.step(), why: None });
        }
        self.fail(message, self.remedies(Some(Place::Server)));
    }
}
