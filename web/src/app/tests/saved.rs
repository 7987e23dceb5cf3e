//! A job that outlives the page.

use kosmosg::protocol::JobEvent;

use super::super::saved::{Save, SavedJob, Saver};
use super::super::*;
use super::scene::{Scene, condition, health, order};
use crate::messages::{Fault, Reply};

/// What a browser has kept of a job.
#[derive(Default)]
struct Kept {
    saver: Saver,
    order: Option<String>,
    condition: Option<String>,
    progress: Option<String>,
    waiting: Option<String>,
    writes: usize,
}

impl Kept {
    fn look(&mut self, scene: &Scene) {
        for save in self.saver.look(&scene.app, scene.now_ms) {
            self.writes += 1;
            match save {
                Save::Order(json) => {
                    (self.order, self.condition, self.progress) = (Some(json), None, None);
                }
                Save::Condition(json) => self.condition = Some(json),
                Save::Progress(json) => self.progress = Some(json),
                Save::Waiting(json) => self.waiting = Some(json),
                Save::Over => (self.order, self.condition, self.progress) = (None, None, None),
            }
        }
    }

    fn job(&self) -> Option<SavedJob> {
        SavedJob::from_json(self.order.as_ref()?, self.condition.as_deref(), self.progress.as_ref()?)
    }

    fn waiting(&self) -> Vec<Order> {
        self.waiting.as_ref().map_or(Vec::new(), |json| serde_json::from_str(json).unwrap())
    }

    /// The page is opened again.
    fn reload(&self, scene: &mut Scene) {
        scene.happens(Event::Resume { job: self.job().map(Box::new), waiting: self.waiting() });
    }
}

/// A page that has done so many steps, one a second, and what is kept of it.
fn at_step(steps: usize) -> (Scene, Kept) {
    let (mut scene, mut kept) = (Scene::ready(None), Kept::default());
    scene.happens(Event::Make(Box::new(order())));
    kept.look(&scene);
    scene.answers(Reply::Encoded { condition: condition() });
    kept.look(&scene);
    for _ in 0..steps {
        scene.waits(1.0);
        scene.steps(1);
        kept.look(&scene);
    }
    (scene, kept)
}

#[test]
fn a_job_goes_on_after_a_reload() {
    let (_, kept) = at_step(5);
    // The page's clock begins anew, and the model is loaded again.
    let mut scene = Scene::new(None);
    kept.reload(&mut scene);
    assert_eq!(scene.app.state(), "running");
    scene.load();
    let Request::Denoise { state, condition: sent, recipe, .. } = scene.request() else {
        panic!("{:?}", scene.effects)
    };
    assert_eq!((state.step(), sent, recipe.seed), (4, condition(), 7));
    scene.waits(6.0);
    scene.answers(Reply::Picture);
    assert_eq!(scene.app.status(), "Made in 10 s on this device's processor.", "4 s before and 6 s after");
    let made = scene.effects.iter().find_map(|effect| match effect {
        Effect::Picture(made) => Some(made),
        _ => None,
    });
    let made = made.unwrap();
    assert_eq!((made.recipe.seed, made.order.pictures.len(), made.place), (7, 1, "on this device's processor"));
    assert_eq!(made.seconds, 10.0);
}

#[test]
fn little_is_written() {
    let (mut scene, mut kept) = at_step(0);
    assert_eq!(kept.writes, 4, "order and noise, condition and that it is there");
    for _ in 0..4 {
        scene.waits(0.3);
        scene.steps(1);
        kept.look(&scene);
    }
    assert_eq!(kept.writes, 4);
    scene.waits(2.0);
    scene.steps(1);
    kept.look(&scene);
    kept.look(&scene);
    assert_eq!(kept.writes, 5);
    scene.answers(Reply::Picture);
    kept.look(&scene);
    assert!(kept.job().is_some() && kept.writes == 5, "until the picture is kept, it may be lost");
    scene.happens(Event::Stored);
    kept.look(&scene);
    assert!(kept.job().is_none(), "what is done is not done again");
    kept.look(&scene);
    assert_eq!(kept.writes, 6);
}

#[test]
fn a_job_waits_for_the_model() {
    let (_, kept) = at_step(3);
    let mut scene = Scene { app: App::default(), effects: Vec::new(), now_ms: 0.0 };
    scene.happens(Event::Device { adapter: None, cpu_memory_bytes: 1 << 30 });
    kept.reload(&mut scene);
    assert_eq!((scene.app.state(), scene.app.status().as_str()), ("running", texts::WAITING_FOR_MODEL));
    let mut later = Kept::default();
    later.look(&scene);
    assert_eq!(later.writes, 0, "what is kept stays until it is taken up");
    let manifest = super::scene::manifest();
    scene.happens(Event::Manifest { base: "http://here/".into(), manifest: Box::new(manifest) });
    scene.load();
    assert!(matches!(scene.request(), Request::Denoise { state, .. } if state.step() == 2));

    // Or it is cancelled before.
    let mut scene = Scene { app: App::default(), effects: Vec::new(), now_ms: 0.0 };
    kept.reload(&mut scene);
    scene.happens(Event::Cancel);
    assert_eq!(scene.app.status(), texts::CANCELLED);
    assert!(scene.app.resumed.is_none());
}

#[test]
fn nothing_is_written_once_what_was_left_is_over() {
    let (_, mut kept) = at_step(3);
    let mut scene = Scene::ready(None);
    kept.reload(&mut scene);
    scene.happens(Event::Cancel);
    kept.saver = Saver::default();
    kept.look(&scene);
    assert!(kept.job().is_none());
    let writes = kept.writes;
    kept.look(&scene);
    assert_eq!(kept.writes, writes);
}

#[test]
fn a_servers_job_is_listened_to_again() {
    let (mut scene, mut kept) = (Scene::ready(Some(health())), Kept::default());
    scene.happens(Event::Choose(Choice::Server));
    scene.encode();
    kept.look(&scene);
    scene.server_takes();
    kept.look(&scene);
    scene.server_says(JobEvent::Step { step: 3, of: 10, seconds: 1.0 });
    kept.look(&scene);

    let mut scene = Scene::new(None);
    kept.reload(&mut scene);
    assert!(matches!(&scene.effects[..], [Effect::Follow { id }, Effect::Wait { .. }] if id == "x"));
    assert!(scene.app.follows("x"));
    scene.server_says(JobEvent::Done { seconds: 1.0 });
    assert!(matches!(&scene.effects[..], [Effect::FetchPicture { .. }]));

    // A server that has forgotten it leaves it to this device.
    let mut scene = Scene::new(None);
    kept.reload(&mut scene);
    scene.happens(Event::Told { id: "x".into(), answer: Err(Refusal::Missing("gone".into())) });
    assert_eq!(scene.app.state(), "failed");
    scene.happens(Event::GoOn(Choice::Cpu));
    scene.load();
    assert!(matches!(scene.request(), Request::Denoise { .. }));

    // So is one that came before there was a model.
    let mut scene = Scene { app: App::default(), effects: Vec::new(), now_ms: 0.0 };
    kept.reload(&mut scene);
    scene.happens(Event::NoManifest { why: Refusal::Away });
    scene.happens(Event::GoOn(Choice::Auto));
    let manifest = Box::new(super::scene::manifest());
    scene.happens(Event::Manifest { base: "http://here/".into(), manifest });
    assert!(scene.app.follows("x"));

    // Nobody fetches it any more.
    let mut scene = Scene::ready(None);
    scene.happens(Event::Make(Box::new(order())));
    kept.reload(&mut scene);
    assert!(matches!(&scene.effects[..], [Effect::Delete { id }] if id == "x"));
}

#[test]
fn a_job_that_ends_the_page_again_and_again_asks_first() {
    let (_, kept) = at_step(5);
    let (mut scene, mut again) = (Scene::new(None), Kept::default());
    kept.reload(&mut scene);
    again.look(&scene);
    // The tab ends before another step is done.
    let mut scene = Scene::ready(None);
    again.reload(&mut scene);
    assert_eq!((scene.app.state(), scene.app.status().as_str()), ("failed", texts::JOB_LEFT));
    assert!(scene.effects.is_empty());
    scene.happens(Event::GoOn(Choice::Cpu));
    assert!(matches!(scene.request(), Request::Denoise { state, .. } if state.step() == 4));
}

#[test]
fn a_job_that_had_failed_asks_first() {
    let (mut scene, mut kept) = at_step(3);
    scene.fails(Fault::OutOfMemory);
    kept.look(&scene);
    let mut scene = Scene::ready(None);
    kept.reload(&mut scene);
    assert_eq!((scene.app.state(), scene.job().state.step()), ("failed", 3), "with the last step");
}

#[test]
fn a_job_of_another_model_is_not_gone_on_with() {
    let (_, kept) = at_step(3);
    let mut saved = kept.job().unwrap();
    let mut order: serde_json::Value = serde_json::from_str(kept.order.as_ref().unwrap()).unwrap();
    order["unet"] = "other".into();
    saved.order = serde_json::from_value(order).unwrap();
    let mut scene = Scene::ready(None);
    scene.happens(Event::Resume { job: Some(Box::new(saved)), waiting: Vec::new() });
    assert_eq!((scene.app.state(), scene.app.status().as_str()), ("failed", texts::JOB_OF_OTHER_MODEL));
    assert!(scene.effects.is_empty() && scene.app.resumed.is_some(), "its own model may be chosen yet");
    scene.encode();
    assert_eq!((scene.app.state(), scene.app.resumed.is_some()), ("running", false));
}

#[test]
fn parts_that_do_not_belong_together_are_no_job() {
    let (_, kept) = at_step(5);
    let (order, progress) = (kept.order.as_ref().unwrap(), kept.progress.as_ref().unwrap());
    assert!(SavedJob::from_json(order, None, progress).is_none());
    assert!(SavedJob::from_json("{}", kept.condition.as_deref(), progress).is_none());
    let other = progress.replacen("\"number\":1", "\"number\":2", 1);
    assert!(SavedJob::from_json(order, kept.condition.as_deref(), &other).is_none());
}

#[test]
fn what_waits_and_which_picture_is_made_outlive_a_reload() {
    let (mut scene, mut kept) = (Scene::ready(None), Kept::default());
    scene.happens(Event::Make(Box::new(Order { series: Series::Count(3), ..order() })));
    scene.happens(Event::Make(Box::new(order())));
    kept.look(&scene);
    scene.answers(Reply::Encoded { condition: condition() });
    scene.answers(Reply::Picture);
    scene.happens(Event::Stored);
    kept.look(&scene);
    let mut scene = Scene::ready(None);
    kept.reload(&mut scene);
    let job = scene.job();
    assert_eq!((job.at, job.takes.len(), job.state.settings().picture, scene.app.waiting().len()), (1, 3, 1, 1));
    for _ in 0..3 {
        assert_eq!(scene.app.state(), "running");
        scene.answers(Reply::Picture);
        scene.app.unkept = 0;
        if matches!(scene.request(), Request::Encode { .. }) {
            break;
        }
    }
    assert_eq!(scene.app.waiting().len(), 0, "the next order has begun");
    kept.look(&scene);
    assert!(kept.waiting().is_empty());

    // Whoever was faster loses nothing of it.
    let mut scene = Scene::ready(None);
    scene.happens(Event::Make(Box::new(order())));
    let (mut kept_again, saved) = (Kept::default(), kept.job());
    kept_again.look(&scene);
    scene.happens(Event::Resume { job: saved.map(Box::new), waiting: vec![order()] });
    assert_eq!(scene.app.waiting().len(), 2);
}
