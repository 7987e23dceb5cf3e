//! Which model the page works with.

use kosmosg::bundle::{PartFile, Scope};
use kosmosg::placement::{Place, Stage};
use kosmosg::protocol::BundleEntry;

use super::super::*;
use super::scene::{Scene, adapter, condition, health, manifest, order, ready};
use crate::messages::{Fault, Flow, KeptModel, Reply, Room, Supply};

const ADDRESS: &str = "http://here/models/large/";

fn kept(scope: Scope, is_whole: bool) -> KeptModel {
    let mut manifest = Manifest { name: "Large".into(), ..manifest() };
    manifest.parts.get_mut("unet").unwrap().files = vec![PartFile::new("unet.gguf", b"large")];
    let (bytes, here) = if is_whole { (100, Some(scope)) } else { (40, None) };
    KeptModel { key: "k".into(), manifest, address: Some(ADDRESS.into()), scope, bytes, of: 100, here }
}

fn offer() -> Offer {
    let entry =
        BundleEntry { id: "large".into(), name: "Large".into(), bytes: 100, encoder_bytes: 60, unet: String::new() };
    Offer { entry, address: ADDRESS.into() }
}

impl Scene {
    fn keeper_says(&mut self, request: u64, body: Reply) {
        self.happens(Event::Keeper(Box::new(Envelope { request, body })));
    }

    fn keeps(&mut self, request: u64, models: Vec<KeptModel>) {
        self.keeper_says(request, Reply::Kept { models, room: None });
    }

    /// The request that was sent to who keeps the models.
    fn kept_request(&self) -> Envelope<Request> {
        let mut sent = self.effects.iter().filter_map(|effect| match effect {
            Effect::Keep(message) => Some(message.clone()),
            _ => None,
        });
        sent.next().unwrap_or_else(|| panic!("{:?}", self.effects))
    }

    /// A page that works with a kept model.
    fn with_kept(scope: Scope, server: Option<kosmosg::protocol::Health>) -> Self {
        let mut scene = Self { app: App::default(), effects: Vec::new(), now_ms: 0.0 };
        scene.happens(Event::Device { adapter: None, cpu_memory_bytes: 1 << 30 });
        scene.happens(Event::Server(server));
        scene.happens(Event::Offered(Ok(vec![offer()])));
        scene.happens(Event::Open { model: Some("k".into()), loading: None });
        assert!(matches!(scene.effects[..], [Effect::StartKeeper]), "nothing else before it is known what is kept");
        scene.keeper_says(0, Reply::Started);
        let Envelope { request, body } = scene.kept_request();
        assert_eq!(body, Request::Kept);
        scene.keeps(request, vec![kept(scope, true)]);
        scene
    }

    fn labels(&self, name: &str) -> Vec<String> {
        let rows = self.app.models().rows();
        let row = rows.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("{rows:?}"));
        row.deeds.iter().map(|(label, _)| label.clone()).collect()
    }
}

#[test]
fn the_model_of_the_last_visit_is_used_again() {
    let mut scene = Scene::with_kept(Scope::Picture, None);
    assert!(scene.effects.iter().any(|effect| matches!(effect, Effect::Start(Processor::Cpu))));
    assert!(scene.effects.iter().all(|effect| !matches!(effect, Effect::OpenBuiltIn)));
    scene.says(LOAD, Reply::Started);
    let Request::Load { source, memory_bytes, .. } = scene.request() else { panic!("{:?}", scene.effects) };
    assert_eq!((source, memory_bytes), (Source::Kept { key: "k".into() }, 1 << 30));
    // The built-in one's manifest, asked for before, comes late.
    scene.happens(Event::Manifest { base: "http://here/".into(), manifest: Box::new(manifest()) });
    assert_eq!(scene.app.manifest().unwrap().name, "Large");
}

#[test]
fn a_model_that_is_gone_gives_way_to_the_built_in_one() {
    let mut scene = Scene::with_kept(Scope::Picture, None);
    scene.app = App::default();
    scene.happens(Event::Open { model: Some("k".into()), loading: None });
    scene.keeper_says(0, Reply::Started);
    let Envelope { request, .. } = scene.kept_request();
    scene.keeps(request, vec![kept(Scope::Picture, false)]);
    assert!(matches!(scene.effects[..], [Effect::RememberModel(None), Effect::OpenBuiltIn]), "{:?}", scene.effects);
    assert!(scene.app.models().trouble.is_some());
    // A browser that keeps nothing says so only to whoever wants to keep something.
    scene.app = App::default();
    scene.happens(Event::Open { model: None, loading: None });
    assert!(matches!(scene.effects[..], [Effect::OpenBuiltIn, Effect::StartKeeper]));
    scene.keeper_says(0, Reply::Started);
    let Envelope { request, .. } = scene.kept_request();
    scene.keeper_says(request, Reply::Failed { fault: Fault::Bundle, message: "no files here".into() });
    assert_eq!(scene.app.models().trouble, None);
    scene.happens(Event::Model(Deed::Install(Supply::Address(ADDRESS.into()), Scope::Picture)));
    let Envelope { request, .. } = scene.kept_request();
    scene.keeper_says(request, Reply::Failed { fault: Fault::Bundle, message: "no files here".into() });
    assert_eq!(scene.app.models().trouble.as_deref(), Some("No files here."));
}

#[test]
fn fetching_tells_how_far_it_is_and_can_be_paused() {
    let mut scene = Scene::ready(None);
    scene.happens(Event::Offered(Ok(vec![offer()])));
    assert_eq!(scene.labels("Large"), ["Fetch (0 kB)", "Only the part that reads (0 kB)"]);
    scene.happens(Event::Model(Deed::Install(Supply::Address(ADDRESS.into()), Scope::Picture)));
    assert!(matches!(scene.effects[..], [Effect::StartKeeper]));
    scene.keeper_says(0, Reply::Started);
    let Envelope { request, .. } = scene.kept_request();
    assert!(scene.labels("Large").is_empty(), "one thing at a time");
    let installing = |bytes, flow| Reply::Installing { name: "Large".into(), bytes, of: 1000, flow };
    scene.keeper_says(request, installing(0, Flow::Comes));
    scene.waits(2.0);
    scene.keeper_says(request, installing(400, Flow::Comes));
    let task = scene.app.models().task.clone().unwrap();
    assert_eq!((task.bytes, task.speed, task.seconds_left()), (400, Some(200.0), Some(3.0)));
    // Neither what does not come nor what was there before has a speed.
    for flow in [Flow::Stalls, Flow::Checks, Flow::Checks, Flow::Comes] {
        scene.waits(1.0);
        scene.keeper_says(request, installing(500, flow));
        assert_eq!(scene.app.models().task.as_ref().unwrap().speed, None, "{flow:?}");
    }
    scene.happens(Event::Model(Deed::Stop));
    assert_eq!(scene.kept_request(), Envelope { request, body: Request::Cancel });
    scene.keeper_says(request, Reply::Cancelled);
    assert_eq!(scene.app.models().task, None);
    let Envelope { request, body } = scene.kept_request();
    assert_eq!(body, Request::Kept);
    scene.keeps(request, vec![kept(Scope::Picture, false)]);
    assert_eq!(scene.labels("Large"), [texts::GO_ON_FETCHING, texts::CHECK, texts::REMOVE]);
}

#[test]
fn what_a_check_found_is_told_until_something_else_is_done() {
    let mut scene = Scene::with_kept(Scope::Picture, None);
    for (right, wrong, told) in [
        (6, vec![], "All 6 files are right."),
        (4, vec![], "4 of 6 files are here and right."),
        (5, vec!["unet.gguf".into()], "Damaged, and to be fetched again: unet.gguf."),
    ] {
        scene.happens(Event::Model(Deed::Check("k".into())));
        assert_eq!(scene.app.models().told, None);
        let Envelope { request, .. } = scene.kept_request();
        scene.keeper_says(request, Reply::Checked { right, of: 6, wrong });
        scene.keeps(request, vec![kept(Scope::Picture, true)]);
        assert_eq!(scene.app.models().told.as_deref(), Some(told));
    }
}

#[test]
fn the_room_is_known_as_it_was_told_last() {
    let mut scene = Scene::ready(None);
    let room = |used| Room { used, most: 100 };
    scene.happens(Event::Room(room(1)));
    scene.happens(Event::Room(room(24)));
    assert_eq!(scene.app.models().room, Some(room(24)));
}

#[test]
fn a_model_from_files_that_the_server_offers_too_is_listed_once() {
    let mut scene = Scene::with_kept(Scope::Picture, None);
    let from_files = |scope, is_whole| KeptModel { address: None, ..kept(scope, is_whole) };
    for (model, times) in [
        (from_files(Scope::Picture, true), 1),
        // The rest can still be fetched.
        (from_files(Scope::Picture, false), 2),
        (from_files(Scope::Encoder, true), 2),
        (KeptModel { of: 101, ..from_files(Scope::Picture, true) }, 2),
    ] {
        scene.keeps(0, vec![model.clone()]);
        let rows = scene.app.models().rows();
        assert_eq!(rows.iter().filter(|row| row.name == "Large").count(), times, "{model:?}");
    }
}

#[test]
fn what_was_not_fetched_is_the_servers() {
    let mut scene = Scene::with_kept(Scope::Encoder, Some(health()));
    assert_eq!(scene.app.place_of(Stage::Encode), Ok(Place::DeviceCpu));
    assert_eq!(scene.app.place_of(Stage::Denoise), Ok(Place::Server));
    scene.load_kept();
    scene.happens(Event::Make(Box::new(order())));
    scene.answers(Reply::Loading { bytes: 10, of: 60 });
    assert_eq!(scene.app.status(), texts::loading(10, 60));
    scene.answers(Reply::Encoded { condition: condition() });
    let [Effect::Post { job, .. }] = &scene.effects[..] else { panic!("{:?}", scene.effects) };
    assert!(serde_json::to_string(job).unwrap().contains(r#""bundle":"large""#), "the server's own name for it");
    // A server that does not have it is of no use.
    scene.happens(Event::Cancel);
    scene.happens(Event::Offered(Ok(Vec::new())));
    let error = scene.app.place_of(Stage::Denoise).unwrap_err();
    assert!(error.contains("did not fetch that part"), "{error}");
}

#[test]
fn the_rest_of_the_present_model_is_taken_up() {
    let mut scene = Scene::with_kept(Scope::Encoder, None);
    scene.load_kept();
    let install = Deed::Install(Supply::Address(ADDRESS.into()), Scope::Picture);
    scene.happens(Event::Model(install.clone()));
    let Envelope { request, .. } = scene.kept_request();
    scene.keeps(request, vec![kept(Scope::Picture, true)]);
    assert!(matches!(scene.effects[..], [Effect::Stop(_), .., Effect::Start(_)]), "{:?}", scene.effects);
    assert_eq!(scene.app.place_of(Stage::Denoise), Ok(Place::DeviceCpu));

    // Not under a picture that is being made.
    let mut scene = Scene::with_kept(Scope::Encoder, Some(health()));
    scene.load_kept();
    scene.encode();
    scene.happens(Event::Model(install));
    let Envelope { request, .. } = scene.kept_request();
    scene.keeps(request, vec![kept(Scope::Picture, true)]);
    assert!(scene.effects.is_empty() && scene.app.state() == "running");
    assert_eq!(scene.labels("Large"), [texts::USE, texts::CHECK, texts::REMOVE]);
}

#[test]
fn an_encoder_whose_rest_is_on_its_way_can_be_used() {
    let mut scene = Scene::with_kept(Scope::Encoder, Some(health()));
    scene.app = App::default();
    scene.happens(Event::Open { model: Some("k".into()), loading: None });
    scene.keeper_says(0, Reply::Started);
    let Envelope { request, .. } = scene.kept_request();
    let half = KeptModel { here: Some(Scope::Encoder), ..kept(Scope::Picture, false) };
    scene.keeps(request, vec![half]);
    assert_eq!((scene.app.models().trouble.as_deref(), scene.app.manifest().unwrap().name.as_str()), (None, "Large"));
    assert_eq!(scene.app.models().not_here(), [Stage::Denoise, Stage::Decode]);
    assert_eq!(scene.labels("Large"), [texts::GO_ON_FETCHING, texts::CHECK, texts::REMOVE]);
}

#[test]
fn changing_the_model_ends_what_runs_and_loads_anew() {
    let mut scene = Scene::with_kept(Scope::Picture, None);
    scene.load_kept();
    scene.encode();
    scene.happens(Event::Model(Deed::Use(None)));
    let stops = scene.effects.iter().filter(|effect| matches!(effect, Effect::Stop(_))).count();
    assert_eq!(stops, 1);
    assert!(matches!(scene.effects.last(), Some(Effect::OpenBuiltIn)));
    assert_eq!(scene.app.state(), "loading");
    // What is asked for in the meantime waits for the model.
    scene.happens(Event::Make(Box::new(order())));
    scene.happens(Event::Manifest { base: "http://here/".into(), manifest: Box::new(manifest()) });
    scene.load();
    assert!(matches!(scene.request(), Request::Encode { .. }));
    // Removing the model that is in use goes back to the built-in one first.
    scene.happens(Event::Model(Deed::Use(Some("k".into()))));
    scene.happens(Event::Model(Deed::Remove("k".into())));
    assert!(scene.app.models().current.is_none());
    assert_eq!(scene.kept_request().body, Request::Remove { key: "k".into() });
}

#[test]
fn a_large_model_is_loaded_only_where_it_is_used() {
    let mut scene = Scene::with_kept(Scope::Picture, None);
    scene.happens(Event::Model(Deed::Use(None)));
    scene.happens(Event::Device { adapter: Some(adapter()), cpu_memory_bytes: 1 << 30 });
    scene.happens(Event::Model(Deed::Use(Some("k".into()))));
    let started: Vec<_> = scene.effects.iter().filter(|effect| matches!(effect, Effect::Start(_))).collect();
    assert!(matches!(started[..], [Effect::Start(Processor::Gpu)]), "{:?}", scene.effects);
    scene.hears(Processor::Gpu, LOAD, Reply::Started);
    scene.hears(Processor::Gpu, LOAD, Reply::Loading { bytes: 1_000_000, of: 4_000_000 });
    let loading = ("loading", texts::loading(1_000_000, 4_000_000));
    assert_eq!((scene.app.state(), scene.app.status()), loading);
    scene.load_gpu();
    assert_eq!((scene.app.state(), scene.app.status().as_str()), ("ready", texts::READY));
    // Another one is started when it is needed.
    scene.happens(Event::WorkerDied { processor: Processor::Gpu, why: "gone".into() });
    assert_eq!(scene.app.state(), "ready");
    scene.happens(Event::Make(Box::new(order())));
    assert!(scene.effects.iter().any(|effect| matches!(effect, Effect::Start(Processor::Gpu))), "{:?}", scene.effects);
    scene.happens(Event::Cancel);
    // Two copies of it would be one too many.
    scene.happens(Event::Choose(Choice::Cpu));
    assert!(matches!(scene.effects[1..], [Effect::Stop(Processor::Gpu), Effect::Start(Processor::Cpu)]));
}

#[test]
fn a_job_of_a_kept_model_goes_on_after_a_reload() {
    let mut scene = Scene::with_kept(Scope::Picture, None);
    scene.load_kept();
    scene.encode();
    let mut saver = Saver::default();
    let [mut order, mut condition, mut progress] = [const { None }; 3];
    for save in saver.look(&scene.app, scene.now_ms) {
        match save {
            Save::Order(json) => order = Some(json),
            Save::Condition(json) => condition = Some(json),
            Save::Progress(json) => progress = Some(json),
            Save::Waiting(_) | Save::Over => {}
        }
    }
    let job = SavedJob::from_json(&order.unwrap(), condition.as_deref(), &progress.unwrap()).map(Box::new);

    let mut scene = Scene { app: App::default(), effects: Vec::new(), now_ms: 0.0 };
    scene.happens(Event::Open { model: Some("k".into()), loading: None });
    scene.keeper_says(0, Reply::Started);
    let Envelope { request, .. } = scene.kept_request();
    // What was left is found before it is known which models are.
    scene.happens(Event::Device { adapter: None, cpu_memory_bytes: 1 << 30 });
    scene.happens(Event::Resume { job: job.clone(), waiting: Vec::new() });
    scene.keeps(request, vec![kept(Scope::Picture, true)]);
    assert_eq!(scene.app.state(), "running");
    scene.load_kept();
    assert!(matches!(scene.request(), Request::Denoise { .. }), "{:?}", scene.effects);

    // With another model, it is kept for its own one, and so is what waits behind it.
    let mut scene = Scene::with_kept(Scope::Picture, None);
    scene.happens(Event::Model(Deed::Use(None)));
    scene.happens(Event::Resume { job, waiting: vec![super::scene::order()] });
    scene.happens(Event::Manifest { base: "http://here/".into(), manifest: Box::new(manifest()) });
    assert_eq!((scene.app.state(), scene.app.status().as_str()), ("failed", texts::JOB_OF_OTHER_MODEL));
    assert_eq!(scene.app.waiting().len(), 1);
    let saves = saver_of_a_new_page(&scene);
    assert!(matches!(&saves[..], [Save::Waiting(_)]), "{saves:?}");
    scene.happens(Event::Model(Deed::Use(Some("k".into()))));
    scene.load_kept();
    assert!(matches!(scene.request(), Request::Denoise { .. }), "{:?}", scene.effects);
}

fn saver_of_a_new_page(scene: &Scene) -> Vec<Save> {
    Saver::default().look(&scene.app, scene.now_ms)
}

#[test]
fn a_model_that_ended_the_page_is_not_loaded_again() {
    let mut scene = Scene::with_kept(Scope::Picture, None);
    scene.says(LOAD, Reply::Started);
    assert!(matches!(&scene.effects[..], [Effect::Send { .. }, Effect::MarkLoading(Some(key))] if key == "k"));
    scene.says(LOAD, ready("CPU", &[]));
    assert!(matches!(scene.effects[..], [Effect::MarkLoading(None)]), "{:?}", scene.effects);
    let opened = |loading: Option<&str>| {
        let mut scene = Scene { app: App::default(), effects: Vec::new(), now_ms: 0.0 };
        scene.happens(Event::Open { model: Some("k".into()), loading: loading.map(str::to_owned) });
        scene
    };
    let scene = opened(Some("k"));
    let forgotten = [Effect::RememberModel(None), Effect::MarkLoading(None), Effect::OpenBuiltIn, Effect::StartKeeper];
    assert_eq!(format!("{:?}", scene.effects), format!("{forgotten:?}"));
    assert_eq!(scene.app.models().trouble.as_deref(), Some(texts::MODEL_NOT_LOADED));
    for loading in [None, Some(""), Some("other")] {
        assert!(matches!(opened(loading).effects[..], [Effect::StartKeeper]));
    }
}

#[test]
fn the_servers_bundle_is_known_by_its_unet() {
    let mut scene = Scene::with_kept(Scope::Encoder, Some(health()));
    let unet = scene.app.unet();
    let offer = |id: &str, unet: &str, address: &str| {
        let entry = BundleEntry { id: id.into(), unet: unet.into(), ..offer().entry };
        Offer { entry, address: address.into() }
    };
    let [f16, twin] = ["f16", "twin"].map(|id| offer(id, &unet, "http://there/"));
    let (other, own) = (offer("q4", "another", "http://there/"), offer("own", &unet, ADDRESS));
    for (offers, id) in [
        (vec![other.clone(), f16.clone(), twin], Some("f16")),
        (vec![other.clone(), f16, own], Some("own")),
        (vec![other], None),
    ] {
        scene.happens(Event::Offered(Ok(offers)));
        assert_eq!(scene.app.models().id_on_server().as_deref(), id);
    }
}

#[test]
fn a_large_model_that_the_gpu_cannot_load_is_loaded_elsewhere() {
    let mut scene = Scene::with_kept(Scope::Picture, None);
    scene.happens(Event::Device { adapter: Some(adapter()), cpu_memory_bytes: 1 << 30 });
    scene.hears(Processor::Gpu, LOAD, Reply::Failed { fault: Fault::OutOfMemory, message: "no room".into() });
    assert!(scene.effects.iter().any(|effect| matches!(effect, Effect::Start(Processor::Cpu))), "{:?}", scene.effects);
    assert_eq!(scene.app.state(), "loading");
    scene.load_kept();
    assert_eq!(scene.app.state(), "ready");
}

#[test]
fn nothing_is_waited_for_where_the_server_encodes() {
    let mut scene = Scene::with_kept(Scope::Picture, Some(health()));
    scene.happens(Event::Device { adapter: None, cpu_memory_bytes: 0 });
    assert_eq!((scene.app.state(), scene.app.status().as_str()), ("ready", texts::READY));
}

impl Scene {
    fn load_kept(&mut self) {
        self.says(LOAD, Reply::Started);
        self.says(LOAD, ready("CPU", &[]));
    }
}
