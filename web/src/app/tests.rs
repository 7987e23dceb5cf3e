//! The behaviour of the page, without a browser.

use kosmosg::protocol::{JobCreated, JobEvent, JobRequest};

use super::*;
use crate::messages::{Fault, Reply};

use scene::{NOW, Scene, adapter, condition, health, manifest, order, ready};

mod making;
mod models;
mod remote;
mod saved;
mod scene;

#[test]
fn a_picture_is_made_on_this_device() {
    let mut scene = Scene::ready(None);
    assert_eq!(scene.app.state(), "ready");
    scene.happens(Event::Make(Box::new(order())));
    assert!(matches!(&scene.effects[..], [Effect::Send { data, .. }] if *data == [[1, 2, 3]]));
    assert!(matches!(scene.request(), Request::Encode { .. }));
    scene.answers(Reply::Encoded { condition: condition() });
    assert!(matches!(scene.request(), Request::Denoise { state, .. } if state.settings().seed == 7));
    scene.steps(4);
    assert_eq!((scene.app.state(), scene.app.progress()), ("running", Some((4, 10))));
    assert_eq!(scene.app.status(), "Step 4 of 10 · 3.0 s left");
    scene.answers(Reply::Picture);
    assert_eq!((scene.app.state(), scene.app.seed()), ("done", Some(7)));
    assert_eq!(scene.app.description(), "a  on the beach");
    assert!(matches!(&scene.effects[..], [Effect::Picture(made)] if made.png == [9]));
}

#[test]
fn an_order_before_the_model_is_there_waits_for_it() {
    let mut scene = Scene::new(None);
    assert_eq!(scene.app.state(), "loading");
    scene.happens(Event::Make(Box::new(order())));
    assert!(scene.effects.is_empty());
    assert_eq!(scene.app.state(), "running");
    scene.load();
    assert!(matches!(scene.request(), Request::Encode { .. }));
}

#[test]
fn a_chosen_server_gets_condition_and_first_state() {
    let mut scene = Scene::ready(Some(health()));
    scene.happens(Event::Choose(Choice::Server));
    scene.encode();
    let job = scene.server_takes();
    assert!(matches!(job, JobRequest::Denoise { state, .. } if state.step() == 0));
    scene.server_says(JobEvent::Step { step: 10, of: 10, seconds: 1.0 });
    scene.server_says(JobEvent::Done { seconds: 1.0 });
    assert!(matches!(&scene.effects[..], [Effect::FetchPicture { .. }]));
    scene.happens(Event::RemotePicture { id: "x".into(), png: vec![5] });
    assert_eq!(scene.app.state(), "done");
    let made = scene.made();
    assert_eq!((made.number, made.recipe.seed, made.png.as_slice()), (1, 7, [5].as_slice()));
}

#[test]
fn the_server_goes_on_where_the_device_failed() {
    let mut scene = Scene::ready(Some(health()));
    scene.encode();
    scene.steps(6);
    scene.fails(Fault::DeviceLost);
    let job = scene.server_takes();
    assert!(matches!(job, JobRequest::Denoise { state, .. } if state.step() == 6));
    let moved = "Stopped after step 6 on this device's processor (it went away), continued on the server.";
    assert_eq!(scene.app.moved().unwrap(), moved);
}

#[test]
fn a_device_that_failed_alone_can_go_on_when_the_person_says_so() {
    let mut scene = Scene::ready(None);
    scene.happens(Event::Choose(Choice::Cpu));
    scene.encode();
    scene.steps(3);
    scene.fails(Fault::OutOfMemory);
    assert_eq!(scene.app.state(), "failed");
    scene.happens(Event::GoOn(Choice::Cpu));
    assert!(matches!(scene.request(), Request::Denoise { state, .. } if state.step() == 3));
}

#[test]
fn a_chosen_gpu_is_loaded_before_a_picture_is_wanted() {
    let mut scene = Scene::ready(None);
    scene.happens(Event::Device { adapter: Some(adapter()), cpu_memory_bytes: 1 << 30 });
    assert!(scene.effects.is_empty());
    scene.happens(Event::Choose(Choice::Gpu));
    assert!(matches!(scene.effects[..], [Effect::Remember(Choice::Gpu), Effect::Start(Processor::Gpu)]));
    assert_eq!(scene.app.state(), "loading");
    scene.happens(Event::Choose(Choice::Cpu));
    assert_eq!(scene.app.state(), "ready");
}

#[test]
fn a_device_that_cannot_encode_sends_the_whole_prompt() {
    let mut scene = Scene::new(Some(health()));
    scene.says(LOAD, Reply::Started);
    scene.happens(Event::Make(Box::new(order())));
    scene.says(LOAD, Reply::Failed { fault: Fault::Bundle, message: "corrupt".into() });
    let stop = scene.effects.remove(0);
    assert!(matches!(stop, Effect::Stop(Processor::Cpu)));
    let job = scene.server_takes();
    assert!(matches!(job, JobRequest::Generate { pictures, .. } if pictures.len() == 1));
}

#[test]
fn a_prompt_that_cannot_be_read_goes_nowhere_else() {
    let mut scene = Scene::ready(Some(health()));
    scene.happens(Event::Make(Box::new(order())));
    scene.fails(Fault::Prompt);
    assert_eq!((scene.app.state(), scene.app.status().as_str()), ("failed", "Why."));
    assert!(scene.effects.is_empty());
    scene.encode();
    assert_eq!(scene.app.state(), "running");
}

#[test]
fn a_full_queue_is_told_and_this_device_can_do_it() {
    let mut scene = Scene::ready(Some(health()));
    scene.happens(Event::Choose(Choice::Server));
    scene.encode();
    let request = scene.job().request;
    scene.happens(Event::Posted { request, answer: Err(Refusal::Other("The queue is full.".into())) });
    assert_eq!(scene.app.status(), "The queue is full.");
    scene.happens(Event::GoOn(Choice::Cpu));
    assert!(matches!(scene.request(), Request::Denoise { .. }));
}

#[test]
fn a_gpu_that_failed_is_not_used_again() {
    let mut scene = Scene::ready(None);
    scene.happens(Event::Device { adapter: Some(adapter()), cpu_memory_bytes: 1 << 30 });
    scene.happens(Event::Make(Box::new(order())));
    assert!(matches!(scene.effects[..], [Effect::Start(Processor::Gpu)]));
    scene.load_gpu();
    // Whatever it was, the program that had it keeps failing with it.
    let body = Reply::Failed { fault: Fault::OutOfMemory, message: "no memory".into() };
    scene.hears(Processor::Gpu, scene.job().request, body);
    // The rest goes to the processor, whose worker is there; the GPU's program can only start anew.
    assert!(matches!(
        scene.effects[..],
        [Effect::Stop(Processor::Gpu), Effect::Send { processor: Processor::Cpu, .. }]
    ));
    // Nor does the job go back there when the processor fails too.
    scene.fails(Fault::DeviceLost);
    assert_eq!((scene.app.state(), scene.effects.len()), ("failed", 0));
}

#[test]
fn wrong_numbers_are_not_gone_on_with() {
    let mut scene = Scene::ready(None);
    scene.happens(Event::Device { adapter: Some(adapter()), cpu_memory_bytes: 1 << 30 });
    scene.happens(Event::Make(Box::new(order())));
    scene.load_gpu();
    scene.hears(Processor::Gpu, scene.job().request, Reply::Encoded { condition: condition() });
    scene.step(Processor::Gpu, 0.5);
    let body = Reply::Failed { fault: Fault::WrongNumbers, message: "NaN".into() };
    scene.hears(Processor::Gpu, scene.job().request, body);
    assert!(matches!(scene.request(), Request::Encode { .. }));
    assert_eq!(scene.job().state.step(), 0);
}

#[test]
fn a_place_chosen_in_the_middle_takes_over() {
    let mut scene = Scene::ready(Some(health()));
    scene.happens(Event::Choose(Choice::Cpu));
    scene.encode();
    scene.steps(3);
    let (state, request) = (scene.job().state.clone(), scene.job().request);
    scene.happens(Event::Choose(Choice::Cpu));
    assert!(matches!(scene.effects[..], [Effect::Remember(Choice::Cpu)]), "it is there already");
    scene.happens(Event::Choose(Choice::Server));
    let is_cancel = |effect: &Effect| matches!(effect, Effect::Send { message, .. } if message.body == Request::Cancel && message.request == request);
    assert!(scene.effects.iter().any(is_cancel), "{:?}", scene.effects);
    scene.effects.retain(|effect| matches!(effect, Effect::Post { .. }));
    assert!(matches!(scene.server_takes(), JobRequest::Denoise { state: sent, .. } if sent == state));
    assert!(scene.app.moved().unwrap().contains("after step 3"), "{:?}", scene.app.moved());

    // And back: from the last state that the server told.
    scene.server_says(JobEvent::Step { step: 5, of: 10, seconds: 1.0 });
    scene.happens(Event::Choose(Choice::Cpu));
    assert!(scene.effects.iter().any(|effect| matches!(effect, Effect::Delete { id } if id == "x")));
    assert!(matches!(scene.request(), Request::Denoise { state: sent, .. } if sent == state));
}

#[test]
fn a_remembered_server_that_is_not_there_is_not_waited_for() {
    let mut scene = Scene::new(None);
    scene.happens(Event::Choose(Choice::Server));
    scene.happens(Event::Server(None));
    assert_eq!(scene.app.places().choice, Choice::Auto);
    assert!(scene.effects.is_empty(), "what the person chose is remembered for when it is back");
    scene.load();
    scene.encode();
    assert!(matches!(scene.request(), Request::Denoise { .. }));
}

#[test]
fn a_device_that_is_too_slow_hands_over_to_the_server() {
    let slow = |server, choice| {
        let mut scene = Scene::ready(server);
        scene.happens(Event::Choose(choice));
        scene.encode();
        scene.step(Processor::Cpu, 60.0);
        assert!(scene.effects.is_empty());
        scene.step(Processor::Cpu, 40.0);
        scene
    };
    let mut scene = slow(Some(health()), Choice::Auto);
    let stopped = scene.effects.remove(0);
    assert!(matches!(stopped, Effect::Send { message, .. } if message.body == Request::Cancel));
    assert!(matches!(scene.server_takes(), JobRequest::Denoise { state, .. } if state.step() == 2));
    let moved = "Stopped after step 2 on this device's processor (it was too slow), continued on the server.";
    assert_eq!(scene.app.moved().unwrap(), moved);
    assert!(slow(Some(health()), Choice::Cpu).effects.is_empty());
    assert!(slow(None, Choice::Auto).effects.is_empty());
}

#[test]
fn a_model_that_cannot_be_fetched_is_told_and_tried_again() {
    let mut scene = Scene::new(None);
    scene.says(LOAD, Reply::Started);
    scene.says(LOAD, Reply::Failed { fault: Fault::Bundle, message: "unet.gguf could not be fetched".into() });
    assert_eq!((scene.app.state(), scene.app.status().as_str()), ("failed", "unet.gguf could not be fetched."));
    let again =
        |scene: &Scene| matches!(scene.app.phase(), Phase::Failed { remedies, .. } if *remedies == [Choice::Auto]);
    assert!(again(&scene));
    // An order says the same.
    scene.happens(Event::Make(Box::new(order())));
    assert_eq!(scene.app.status(), "unet.gguf could not be fetched.");
    assert!(again(&scene));
    scene.waits(60.0);
    scene.happens(Event::GoOn(Choice::Auto));
    assert!(matches!(scene.effects[..], [Effect::Start(Processor::Cpu)]));
    scene.load();
    scene.answers(Reply::Encoded { condition: condition() });
    scene.waits(5.0);
    scene.answers(Reply::Picture);
    assert_eq!(scene.app.status(), "Made in 5.0 s on this device's processor.");
}

#[test]
fn an_order_before_the_manifest_is_there_waits_for_it() {
    let early = || {
        let mut scene = Scene { app: App::default(), effects: Vec::new(), now_ms: NOW };
        scene.happens(Event::Device { adapter: None, cpu_memory_bytes: 1 << 30 });
        scene.happens(Event::Make(Box::new(order())));
        assert_eq!((scene.app.state(), scene.app.status().as_str()), ("running", texts::WAITING_FOR_MODEL));
        scene
    };
    let there = || Event::Manifest { base: "http://here/".into(), manifest: Box::new(manifest()) };
    let mut scene = early();
    scene.happens(there());
    scene.load();
    assert!(matches!(scene.request(), Request::Encode { .. }));

    let mut scene = early();
    scene.happens(Event::Cancel);
    scene.happens(there());
    assert!(scene.app.job.is_none());

    let mut scene = early();
    scene.happens(Event::NoManifest { why: Refusal::Other("404".into()) });
    let said = scene.app.status();
    assert!(said.contains("404"), "{said}");
    scene.happens(Event::Make(Box::new(order())));
    assert_eq!(scene.app.status(), said);
}

#[test]
fn a_worker_that_dies_is_started_again_and_goes_on() {
    let mut scene = Scene::ready(None);
    scene.encode();
    scene.steps(2);
    scene.happens(Event::WorkerDied { processor: Processor::Cpu, why: "unreachable".into() });
    assert!(matches!(scene.effects[..], [Effect::Stop(Processor::Cpu)]));
    assert_eq!(scene.app.state(), "failed");
    scene.happens(Event::GoOn(Choice::Cpu));
    assert!(matches!(scene.effects[..], [Effect::Start(Processor::Cpu)]));
    scene.load();
    assert!(matches!(scene.request(), Request::Denoise { state, .. } if state.step() == 2));
}

#[test]
fn a_cancelled_job_is_told_to_stop_and_forgotten() {
    let mut scene = Scene::ready(Some(health()));
    scene.encode();
    let request = scene.job().request;
    scene.happens(Event::Cancel);
    assert!(matches!(&scene.effects[..], [Effect::Send { message, .. }] if message.request == request));
    assert_eq!(scene.request(), Request::Cancel);
    scene.says(request, Reply::Picture);
    assert!(scene.effects.is_empty());
    assert_eq!(scene.app.status(), texts::CANCELLED);

    scene.happens(Event::Choose(Choice::Server));
    scene.encode();
    scene.server_takes();
    scene.happens(Event::Cancel);
    assert!(matches!(&scene.effects[..], [Effect::Delete { id }] if id == "x"));
    scene.server_says(JobEvent::Done { seconds: 1.0 });
    assert!(scene.effects.is_empty());
}

#[test]
fn a_job_that_arrives_after_it_was_cancelled_is_deleted() {
    let mut scene = Scene::ready(Some(health()));
    scene.happens(Event::Choose(Choice::Server));
    scene.encode();
    let request = scene.job().request;
    scene.happens(Event::Cancel);
    assert!(scene.effects.is_empty());
    scene.happens(Event::Posted { request, answer: Ok(JobCreated { id: "y".into(), position: 0 }) });
    assert!(matches!(&scene.effects[..], [Effect::Delete { id }] if id == "y"));
}

#[test]
fn the_page_says_where_everything_runs_and_why() {
    let mut scene = Scene::ready(Some(health()));
    scene.happens(Event::Choose(Choice::Cpu));
    assert_eq!(scene.app.explanation(), ["Everything runs on this device's processor: you chose the processor."]);
    scene.happens(Event::Choose(Choice::Server));
    let lines = scene.app.explanation();
    assert_eq!(lines.len(), 3);
    assert!(lines[1].contains("Drawing the picture runs on the server's processor: you chose it"), "{lines:?}");
    scene.happens(Event::Server(None));
    assert!(scene.app.explanation()[0].contains("on this device"), "{:?}", scene.app.explanation());
    assert_eq!(scene.app.refusal(Choice::Server).as_deref(), Some(texts::NO_SERVER));
}

#[test]
fn kernels_that_compute_wrong_numbers_are_named() {
    let mut scene = Scene::ready(None);
    scene.happens(Event::Device { adapter: Some(adapter()), cpu_memory_bytes: 1 << 30 });
    scene.happens(Event::Choose(Choice::Gpu));
    scene.hears(Processor::Gpu, LOAD, Reply::Started);
    scene.hears(Processor::Gpu, LOAD, ready("WebGPU", &["linear map of 4 bits"]));
    let lines = scene.app.explanation();
    assert!(lines.last().unwrap().contains("wrong numbers with linear map of 4 bits"), "{lines:?}");
}

#[test]
fn impossible_settings_are_told() {
    let mut scene = Scene::ready(None);
    let mut order = order();
    order.settings.steps = Some(0);
    scene.happens(Event::Make(Box::new(order)));
    assert_eq!(scene.app.state(), "failed");
    assert!(scene.app.status().contains("steps"), "{}", scene.app.status());
}
