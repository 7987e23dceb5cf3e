//! A server that goes away and comes back, or does not know this device.

use kosmosg::bundle::Scope;
use kosmosg::protocol::{ApiError, ErrorCode, JobCreated, JobEvent, JobStatus};

use super::super::remote::PATIENCE_MS;
use super::super::*;
use super::scene::{Scene, health, manifest, order};
use crate::messages::{Fault, Reply, Supply};

const PATIENCE: f64 = PATIENCE_MS / 1000.0;

impl Scene {
    /// A page whose server has done so many steps of a picture.
    fn followed(step: usize) -> Self {
        let mut scene = Self::ready(Some(health()));
        scene.happens(Event::Choose(Choice::Server));
        scene.encode();
        scene.server_takes();
        scene.happens(Event::ServerCame { id: "x".into() });
        scene.server_says(JobEvent::Step { step, of: 10, seconds: 1.0 });
        scene
    }

    fn server_goes(&mut self) {
        self.happens(Event::ServerWent { id: "x".into() });
    }

    fn server_comes(&mut self) {
        self.happens(Event::ServerCame { id: "x".into() });
    }

    fn told(&mut self, answer: Result<JobEvent, Refusal>) {
        let answer = answer.map(|last| JobStatus { id: "x".into(), last });
        self.happens(Event::Told { id: "x".into(), answer });
    }

    /// So much time passes, and the page is told so.
    fn has_waited(&mut self, seconds: f64) {
        self.waits(seconds);
        self.happens(Event::Waited { request: self.job().request });
    }

    fn failure(&self) -> (&str, &[Choice]) {
        match self.app.phase() {
            Phase::Failed { message, remedies } => (message, remedies),
            phase => panic!("{phase:?}"),
        }
    }

    fn is_nothing_deleted(&self) -> bool {
        self.effects.iter().all(|effect| !matches!(effect, Effect::Delete { .. }))
    }
}

#[test]
fn a_server_that_comes_back_goes_on() {
    let mut scene = Scene::followed(5);
    scene.server_goes();
    assert!(scene.effects.is_empty(), "the browser connects again by itself");
    assert_eq!((scene.app.state(), scene.app.status().as_str()), ("running", texts::SERVER_AWAY));
    assert_eq!(scene.app.progress(), Some((5, 10)), "what is done stays done");
    scene.waits(20.0);
    // It fails to again and again.
    scene.server_goes();
    scene.server_comes();
    assert_eq!(scene.app.status(), "Step 5 of 10");
    // Its seconds begin anew with it.
    scene.server_says(JobEvent::Step { step: 5, of: 10, seconds: 0.5 });
    scene.server_says(JobEvent::Step { step: 6, of: 10, seconds: 1.5 });
    assert_eq!(scene.app.status(), "Step 6 of 10 · 4.0 s left");
    // The time that was waited then counts no more.
    scene.has_waited(PATIENCE - 20.0);
    assert!(scene.app.follows("x"));
}

#[test]
fn a_server_that_stays_away_can_be_waited_for_further() {
    let mut scene = Scene::followed(5);
    scene.server_goes();
    scene.has_waited(PATIENCE - 1.0);
    let [Effect::Wait { milliseconds, .. }] = scene.effects[..] else { panic!("{:?}", scene.effects) };
    assert_eq!(milliseconds, 1000.0);
    scene.has_waited(1.0);
    assert_eq!(scene.failure(), (texts::SERVER_GONE, &[Choice::Cpu, Choice::Server][..]));
    assert!(scene.is_nothing_deleted(), "it keeps the job");
    scene.happens(Event::GoOn(Choice::Server));
    assert!(matches!(&scene.effects[..], [Effect::Follow { id }, Effect::Wait { .. }] if id == "x"));
    assert_eq!(scene.app.status(), texts::SERVER_AWAY);
    scene.server_comes();
    scene.server_says(JobEvent::Done { seconds: 1.0 });
    assert!(matches!(&scene.effects[..], [Effect::FetchPicture { .. }]));
}

#[test]
fn this_device_goes_on_where_the_server_went_away() {
    let mut scene = Scene::followed(4);
    assert!(matches!(&scene.effects[..], [Effect::FetchState { .. }]));
    let mut state = scene.job().state.clone();
    state.advance(&vec![0.1; state.settings().latent_len()]).unwrap();
    scene.happens(Event::RemoteState { id: "x".into(), state: Box::new(state) });
    scene.server_goes();
    scene.has_waited(PATIENCE);
    scene.happens(Event::GoOn(Choice::Cpu));
    // Now nobody would ever fetch its picture.
    assert!(scene.effects.iter().any(|effect| matches!(effect, Effect::Delete { id } if id == "x")));
    assert!(matches!(scene.request(), Request::Denoise { state, .. } if state.step() == 1));
    scene.server_comes();
    assert!(!scene.app.waits_for_server());
}

#[test]
fn another_picture_takes_the_place_of_one_that_is_waited_for() {
    let mut scene = Scene::followed(5);
    scene.server_goes();
    scene.has_waited(PATIENCE);
    scene.happens(Event::Make(Box::new(order())));
    assert!(matches!(&scene.effects[..], [Effect::Delete { id }, Effect::Post { .. }] if id == "x"));
}

#[test]
fn why_the_events_ended_is_asked() {
    let ended = || {
        let mut scene = Scene::followed(5);
        scene.told(Err(Refusal::Away));
        assert!(matches!(&scene.effects[..], [Effect::Ask { id }] if id == "x"));
        assert!(scene.app.waits_for_server());
        scene
    };
    let mut scene = ended();
    scene.told(Ok(JobEvent::Encoding));
    assert!(matches!(&scene.effects[..], [Effect::Follow { id }] if id == "x"));

    let mut scene = ended();
    scene.told(Ok(JobEvent::Done { seconds: 1.0 }));
    assert!(matches!(&scene.effects[..], [Effect::FetchPicture { .. }]));
    // An answer that never comes whole does not keep the person waiting for ever.
    scene.told(Err(Refusal::Silent));
    scene.told(Ok(JobEvent::Done { seconds: 1.0 }));
    scene.has_waited(PATIENCE);
    assert_eq!(scene.failure().0, texts::SERVER_GONE);

    // A job that is not there any more is sent again.
    let mut scene = ended();
    scene.told(Err(Refusal::Missing("no such job".into())));
    assert_eq!(scene.failure(), (texts::JOB_FORGOTTEN, &[Choice::Cpu, Choice::Server][..]));
    scene.happens(Event::GoOn(Choice::Server));
    assert!(scene.effects.iter().any(|effect| matches!(effect, Effect::Post { .. })));
}

#[test]
fn a_server_that_says_nothing_is_asked() {
    let mut scene = Scene::followed(5);
    scene.has_waited(PATIENCE);
    assert!(matches!(&scene.effects[..], [Effect::Ask { .. }, Effect::Wait { .. }]));
    assert!(!scene.app.waits_for_server());
    // A step may take that long.
    scene.told(Ok(JobEvent::Step { step: 5, of: 10, seconds: 1.0 }));
    assert!(scene.effects.is_empty() && scene.app.follows("x"));
    scene.has_waited(PATIENCE);
    scene.told(Err(Refusal::Silent));
    assert_eq!(scene.app.status(), texts::SERVER_AWAY);
    scene.has_waited(PATIENCE);
    assert_eq!(scene.failure().0, texts::SERVER_GONE);
}

#[test]
fn a_job_that_does_not_reach_the_server_is_told() {
    for (refusal, why) in [(Refusal::Away, "cannot be reached"), (Refusal::Silent, "does not answer")] {
        let mut scene = Scene::ready(Some(health()));
        scene.happens(Event::Choose(Choice::Server));
        scene.encode();
        let request = scene.job().request;
        scene.happens(Event::Posted { request, answer: Err(refusal) });
        let (message, remedies) = scene.failure();
        assert!(message.contains(why), "{message}");
        assert_eq!(remedies, [Choice::Cpu, Choice::Server]);
    }
    let mut scene = Scene::ready(Some(health()));
    scene.happens(Event::Offered(Err(Refusal::Away)));
    assert_eq!(scene.app.models().trouble, None, "a page may have no server");
    scene.happens(Event::Offered(Err(Refusal::Silent)));
    assert_eq!(scene.app.models().trouble, Some(texts::sentence(texts::SERVER_SILENT)));
}

#[test]
fn a_device_that_the_server_does_not_know_is_told_until_it_does() {
    // From the first visit on, on which there is no model yet either.
    let mut scene = Scene { app: App::default(), effects: Vec::new(), now_ms: 0.0 };
    scene.happens(Event::Device { adapter: None, cpu_memory_bytes: 1 << 30 });
    scene.happens(Event::Server(Some(health())));
    scene.happens(Event::NoManifest { why: Refusal::Stranger });
    scene.happens(Event::Offered(Err(Refusal::Stranger)));
    assert!(scene.app.is_stranger());
    assert_eq!(scene.failure(), (texts::NOT_PAIRED, &[Choice::Auto][..]));
    scene.happens(Event::GoOn(Choice::Auto));
    assert!(matches!(scene.effects[..], [Effect::ListModels, Effect::OpenBuiltIn]));
    scene.happens(Event::Offered(Ok(Vec::new())));
    assert!(!scene.app.is_stranger());
    scene.happens(Event::Manifest { base: "http://here/".into(), manifest: Box::new(manifest()) });
    scene.load();
    assert_eq!(scene.app.state(), "ready");

    // Its token was taken back later.
    scene.happens(Event::Choose(Choice::Server));
    scene.encode();
    let request = scene.job().request;
    scene.happens(Event::Posted { request, answer: Err(Refusal::Stranger) });
    assert!(scene.app.is_stranger());
    assert_eq!(scene.failure(), (texts::NOT_PAIRED, &[Choice::Cpu, Choice::Server][..]));
    scene.happens(Event::GoOn(Choice::Server));
    let request = scene.job().request;
    scene.happens(Event::Posted { request, answer: Ok(JobCreated { id: "x".into(), position: 0 }) });
    assert!(!scene.app.is_stranger());
    // And while the job is there.
    scene.told(Err(Refusal::Stranger));
    assert!(scene.app.is_stranger() && scene.is_nothing_deleted());
    assert_eq!(scene.failure().0, texts::NOT_PAIRED);
}

#[test]
fn a_model_that_is_not_given_may_mean_that_the_device_is_not_known() {
    let mut scene = Scene::ready(Some(health()));
    let (supply, scope) = (Supply::Address("http://here/".into()), Scope::Picture);
    scene.happens(Event::Model(Deed::Install(supply, scope)));
    let request = scene.app.models().task.as_ref().unwrap().request;
    let body = Reply::Failed { fault: Fault::Bundle, message: texts::NOT_PAIRED.into() };
    scene.happens(Event::Keeper(Box::new(Envelope { request, body })));
    assert!(matches!(scene.effects.last(), Some(Effect::ListModels)));
}

#[test]
fn answers_are_told_apart() {
    let error = |code, message: &str| serde_json::to_vec(&ApiError { code, message: message.into() }).unwrap();
    let unauthorized = error(ErrorCode::Unauthorized, "this server asks for a token");
    assert_eq!(Refusal::of(401, "Unauthorized", &unauthorized), Refusal::Stranger);
    let missing = error(ErrorCode::NotFound, "no such job");
    assert_eq!(Refusal::of(404, "Not Found", &missing), Refusal::Missing("no such job".into()));
    // A page that is served by something else.
    assert_eq!(Refusal::of(404, "Not Found", b"<html>"), Refusal::Other("404 Not Found".into()));
    // What stands before the server, and the server itself.
    assert_eq!(Refusal::of(502, "Bad Gateway", b"<html>"), Refusal::Away);
    let stopping = error(ErrorCode::Busy, "the server is stopping");
    assert_eq!(Refusal::of(503, "", &stopping), Refusal::Other("the server is stopping".into()));
}

#[test]
fn a_server_that_was_chosen_is_chosen_again_when_it_comes() {
    let mut scene = Scene::new(None);
    scene.happens(Event::Choose(Choice::Server));
    scene.happens(Event::Server(None));
    assert!(scene.app.places().choice == Choice::Auto && scene.app.misses_server());
    scene.happens(Event::Server(Some(health())));
    assert!(scene.app.places().choice == Choice::Server && !scene.app.misses_server());
    // Unless the person has chosen something else meanwhile.
    scene.happens(Event::Server(None));
    scene.happens(Event::Choose(Choice::Cpu));
    scene.happens(Event::Server(Some(health())));
    assert_eq!(scene.app.places().choice, Choice::Cpu);
}

#[test]
fn what_a_stranger_could_not_begin_begins_when_the_server_knows_it() {
    let mut scene = Scene { app: App::default(), effects: Vec::new(), now_ms: 0.0 };
    scene.happens(Event::Server(Some(health())));
    scene.happens(Event::NoManifest { why: Refusal::Stranger });
    assert!(scene.app.misses_server());
    scene.happens(Event::Offered(Ok(Vec::new())));
    assert!(matches!(scene.effects[..], [Effect::OpenBuiltIn]));
    assert!(!scene.app.misses_server());
}
