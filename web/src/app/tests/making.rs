//! Several pictures, one after the other.

use kosmosg::prompt::{ImageRef, PromptDocument, PromptItem};
use kosmosg::protocol::{GenerateSettings, JobCreated, JobEvent, JobRequest, PictureFile};

use super::super::results::MOST_RESULTS;
use super::super::*;
use super::scene::{Scene, adapter, condition, health, manifest, order};
use crate::messages::{Fault, Reading, Reply};
use crate::report::{Browser, NoGpu};

fn several(pictures: u64) -> Order {
    Order { series: Series::Count(pictures), ..order() }
}

fn with_seed(seed: u64) -> Order {
    let mut order = order();
    order.settings.seed = seed;
    order
}

fn words(words: &str) -> Event {
    Event::Wrote { prompt: Box::new(PromptDocument::from_words(words)), negative: String::new() }
}

fn picture(effect: &Effect) -> Option<&Made> {
    if let Effect::Picture(made) = effect { Some(made) } else { None }
}

impl Scene {
    fn orders(&mut self, order: Order) {
        self.happens(Event::Make(Box::new(order)));
    }

    /// The picture that is being made is there.
    fn makes(&mut self) {
        self.answers(Reply::Picture);
    }

    /// A picture from the first order to the last step.
    fn makes_one(&mut self) {
        self.encode();
        self.makes();
    }

    fn waits_in_line(&self) -> Vec<u64> {
        self.app.waiting().map(|waiting| waiting.order.settings.seed).collect()
    }

    /// The one picture that has just been made.
    pub(super) fn made(&self) -> &Made {
        let made: Vec<_> = self.effects.iter().filter_map(picture).collect();
        assert_eq!(made.len(), 1, "{:?}", self.effects);
        made[0]
    }

    fn numbers(&self) -> Vec<u64> {
        self.app.results().list().iter().map(|outcome| outcome.number).collect()
    }
}

#[test]
fn what_was_just_encoded_is_not_encoded_again() {
    let mut scene = Scene::ready(None);
    scene.makes_one();
    scene.orders(with_seed(8));
    assert!(matches!(scene.request(), Request::Denoise { .. }), "another seed");
    scene.makes();
    for other in [
        Order { prompt: PromptDocument::from_text("a <i> in the snow", 1).unwrap(), ..order() },
        Order { pictures: vec![PictureFile(vec![1, 2, 4])], ..order() },
        Order { negative: "red".into(), ..order() },
    ] {
        scene.orders(other);
        assert!(matches!(scene.request(), Request::Encode { .. }), "{:?}", scene.job().order);
        scene.answers(Reply::Encoded { condition: condition() });
        scene.makes();
    }
    // Another place, or another model, has its own.
    scene.makes_one();
    scene.happens(Event::Device { adapter: Some(adapter()), cpu_memory_bytes: 1 << 30 });
    scene.happens(Event::Choose(Choice::Gpu));
    scene.load_gpu();
    scene.orders(order());
    assert!(matches!(scene.request(), Request::Encode { .. }));
    scene.happens(Event::Cancel);
    scene.happens(Event::Choose(Choice::Cpu));
    scene.happens(Event::Manifest { base: "http://here/".into(), manifest: Box::new(manifest()) });
    scene.orders(order());
    assert!(matches!(scene.request(), Request::Encode { .. }));
}

#[test]
fn several_pictures_are_numbered_and_encoded_once() {
    let mut scene = Scene::ready(None);
    scene.orders(several(3));
    scene.answers(Reply::Encoded { condition: condition() });
    for number in 0..3 {
        let request = scene.request();
        let Request::Denoise { state, recipe, .. } = request else { panic!("{request:?}") };
        assert_eq!((state.settings().picture, recipe.picture, state.settings().seed), (number, number, 7));
        scene.steps(5);
        assert_eq!(scene.app.progress(), Some((number as usize * 10 + 5, 30)));
        let said = scene.app.status();
        assert!(said.starts_with(&format!("Picture {} of 3 · Step 5 of 10", number + 1)), "{said}");
        scene.waits(1.0);
        scene.makes();
        assert_eq!((scene.made().number, scene.made().recipe.picture), (number + 1, number));
    }
    assert_eq!(scene.app.status(), "3 pictures made in 3.0 s on this device's processor.");
    assert_eq!((scene.app.state(), scene.numbers()), ("done", vec![3, 2, 1]));
}

#[test]
fn the_time_left_is_that_of_all_pictures() {
    let mut scene = Scene::ready(None);
    scene.orders(several(2));
    scene.answers(Reply::Encoded { condition: condition() });
    scene.steps(4);
    assert_eq!(scene.app.status(), "Picture 1 of 2 · Step 4 of 10 · 8.0 s left");
}

#[test]
fn a_grid_says_where_each_picture_stands() {
    let mut scene = Scene::ready(None);
    let axis = |kind, values| Axis::parse(kind, values).unwrap();
    let grid = Grid::new(axis(AxisKind::Steps, "3, 4"), Some(axis(AxisKind::Seed, "1, 2"))).unwrap();
    scene.orders(Order { series: Series::Grid(grid), ..order() });
    scene.answers(Reply::Encoded { condition: condition() });
    let mut made = Vec::new();
    for _ in 0..4 {
        let Request::Denoise { state, .. } = scene.request() else { panic!() };
        made.push((state.settings().steps, state.settings().seed));
        scene.makes();
    }
    assert_eq!(made, [(3, 1), (4, 1), (3, 2), (4, 2)]);
    let results = scene.app.results();
    assert_eq!(results.sheet().unwrap().cells, [Some(1), Some(2), Some(3), Some(4)]);
    assert_eq!(results.shown().unwrap().place, "steps 4, seed 2");
}

#[test]
fn a_grid_that_cannot_be_made_is_told_before_its_first_picture() {
    let mut scene = Scene::ready(None);
    let mut order = order();
    order.settings.guidance = Some(f64::NAN);
    scene.orders(order);
    assert_eq!((scene.app.state(), scene.effects.len()), ("failed", 0));
}

#[test]
fn what_is_ordered_meanwhile_waits_for_its_turn() {
    let mut scene = Scene::ready(None);
    scene.encode();
    scene.orders(with_seed(8));
    scene.orders(with_seed(9));
    assert!(scene.effects.is_empty());
    assert_eq!(scene.waits_in_line(), [8, 9]);
    assert!(scene.app.has_used(7) && scene.app.has_used(9) && !scene.app.has_used(10));
    let ticket = scene.app.waiting().next().unwrap().ticket;
    scene.happens(Event::Withdraw(ticket));
    assert_eq!(scene.waits_in_line(), [9]);
    scene.makes();
    assert_eq!((scene.app.state(), scene.app.seed()), ("running", Some(9)));
    assert!(matches!(scene.request(), Request::Denoise { .. }));
    scene.makes();
    assert_eq!((scene.app.state(), scene.numbers()), ("done", vec![2, 1]));
}

#[test]
fn cancelling_one_begins_the_next_and_cancelling_all_begins_none() {
    let mut scene = Scene::ready(None);
    scene.encode();
    (8..12).for_each(|seed| scene.orders(with_seed(seed)));
    let request = scene.job().request;
    scene.happens(Event::Cancel);
    let [Effect::Send { message: cancel, .. }, Effect::Send { message: next, .. }] = &scene.effects[..] else {
        panic!("{:?}", scene.effects)
    };
    assert_eq!((cancel.request, &cancel.body), (request, &Request::Cancel));
    assert!(matches!(next.body, Request::Denoise { .. }));
    assert_eq!((scene.app.seed(), scene.waits_in_line()), (Some(8), vec![9, 10, 11]));
    scene.happens(Event::CancelAll);
    assert_eq!((scene.app.status().as_str(), scene.waits_in_line().len()), (texts::CANCELLED, 0));
}

#[test]
fn a_sentence_in_words_has_no_article_twice() {
    let picture = |name: &str| PromptItem::Image(ImageRef { picture: 0, name: name.into() });
    let text = |words: &str| PromptItem::Text(words.into());
    let sentence = |items: Vec<PromptItem>| Order { prompt: PromptDocument::new(items), ..order() }.sentence();
    assert_eq!(
        sentence(vec![text("A "), picture("a red cat"), text(" and "), picture("a star")]),
        "A red cat and a star"
    );
    assert_eq!(sentence(vec![picture("cat.png"), text(" the end")]), "cat.png the end");
}

#[test]
fn the_line_has_an_end() {
    let mut scene = Scene::ready(None);
    scene.encode();
    (0..30).for_each(|seed| scene.orders(with_seed(seed)));
    assert_eq!(scene.waits_in_line().len(), 20);
    assert!(!scene.app.takes_orders());
}

#[test]
fn a_sentence_that_cannot_be_read_does_not_stop_those_that_wait() {
    let mut scene = Scene::ready(None);
    scene.orders(order());
    scene.orders(with_seed(8));
    scene.fails(Fault::Prompt);
    assert_eq!((scene.app.state(), scene.app.seed()), ("running", Some(8)));
    assert_eq!(scene.app.left_out(), Some("“a  on the beach” was left out. Why."));
    scene.answers(Reply::Encoded { condition: condition() });
    scene.makes();
    assert_eq!(scene.app.state(), "done");
    scene.orders(order());
    assert_eq!(scene.app.left_out(), None);
}

#[test]
fn a_device_that_fails_keeps_those_that_wait() {
    let mut scene = Scene::ready(None);
    scene.happens(Event::Choose(Choice::Cpu));
    scene.encode();
    scene.orders(with_seed(8));
    scene.orders(with_seed(9));
    scene.fails(Fault::OutOfMemory);
    assert_eq!((scene.app.state(), scene.waits_in_line()), ("failed", vec![8, 9]));
    // It goes on itself,
    scene.happens(Event::GoOn(Choice::Cpu));
    assert!(matches!(scene.request(), Request::Denoise { .. }));
    scene.fails(Fault::OutOfMemory);
    // or is left out.
    scene.happens(Event::Cancel);
    assert_eq!((scene.app.seed(), scene.waits_in_line()), (Some(8), vec![9]));
    scene.fails(Fault::OutOfMemory);
    // Another order comes after those that wait.
    scene.orders(with_seed(10));
    assert_eq!((scene.app.seed(), scene.waits_in_line()), (Some(9), vec![10]));
    scene.fails(Fault::OutOfMemory);
    scene.happens(Event::CancelAll);
    assert_eq!((scene.app.state(), scene.waits_in_line().len()), ("failed", 0), "it can still go on");
}

#[test]
fn a_lost_device_is_left_for_all_pictures_of_an_order() {
    let mut scene = Scene::ready(None);
    scene.happens(Event::Device { adapter: Some(adapter()), cpu_memory_bytes: 1 << 30 });
    scene.orders(several(2));
    scene.load_gpu();
    scene.hears(Processor::Gpu, scene.job().request, Reply::Encoded { condition: condition() });
    let fault = Reply::Failed { fault: Fault::DeviceLost, message: "lost".into() };
    scene.hears(Processor::Gpu, scene.job().request, fault);
    scene.makes();
    assert!(matches!(scene.effects[..], [Effect::Picture(_), Effect::Send { processor: Processor::Cpu, .. }]));
    assert!(matches!(scene.request(), Request::Denoise { .. }), "what was encoded still counts");
}

#[test]
fn several_pictures_are_made_on_the_server() {
    let mut scene = Scene::ready(Some(health()));
    scene.happens(Event::Choose(Choice::Server));
    scene.orders(several(2));
    scene.answers(Reply::Encoded { condition: condition() });
    for number in 0..2 {
        let post = scene.effects.iter().position(|effect| matches!(effect, Effect::Post { .. })).unwrap();
        let id = format!("job {number}");
        let Effect::Post { request, job } = scene.effects.swap_remove(post) else { panic!() };
        let JobRequest::Denoise { state, .. } = job else { panic!() };
        assert_eq!(state.settings().picture, number);
        scene.happens(Event::Posted { request, answer: Ok(JobCreated { id: id.clone(), position: 0 }) });
        scene.happens(Event::Remote { id: id.clone(), event: Box::new(JobEvent::Done { seconds: 1.0 }) });
        scene.happens(Event::RemotePicture { id, png: vec![5] });
        assert_eq!(scene.made().number, number + 1);
    }
    assert_eq!(scene.app.state(), "done");
}

#[test]
fn a_server_that_encodes_is_told_which_picture_is_meant() {
    let mut scene = Scene::new(Some(health()));
    scene.says(LOAD, Reply::Started);
    scene.orders(Order { settings: GenerateSettings { picture: 3, ..order().settings }, ..order() });
    scene.says(LOAD, Reply::Failed { fault: Fault::Bundle, message: "corrupt".into() });
    scene.effects.remove(0);
    assert!(matches!(scene.server_takes(), JobRequest::Generate { settings, .. } if settings.picture == 3));
}

#[test]
fn orders_before_the_model_are_made_one_after_the_other() {
    let mut scene = Scene { app: App::default(), effects: Vec::new(), now_ms: 0.0 };
    scene.happens(Event::Device { adapter: None, cpu_memory_bytes: 1 << 30 });
    scene.orders(with_seed(1));
    scene.orders(with_seed(2));
    scene.happens(Event::NoManifest { why: Refusal::Away });
    assert_eq!((scene.app.state(), scene.waits_in_line()), ("failed", vec![2]));
    scene.orders(with_seed(3));
    assert_eq!((scene.app.state(), scene.waits_in_line()), ("failed", vec![2]), "it says the same again");
    scene.happens(Event::GoOn(Choice::Auto));
    let manifest = Box::new(manifest());
    scene.happens(Event::Manifest { base: "http://here/".into(), manifest });
    assert_eq!((scene.app.state(), scene.app.seed()), ("running", Some(2)));
}

#[test]
fn results_can_be_gone_through() {
    let mut scene = Scene::ready(None);
    (0..3).for_each(|_| scene.makes_one());
    let shown = |scene: &Scene| scene.app.results().shown().map(|outcome| outcome.number);
    assert_eq!(shown(&scene), Some(3));
    scene.happens(Event::Look(Look::Newer));
    assert_eq!(shown(&scene), Some(3));
    scene.happens(Event::Look(Look::Older));
    scene.happens(Event::Look(Look::Older));
    scene.happens(Event::Look(Look::Older));
    assert_eq!(shown(&scene), Some(1));
    // Whoever looks at something else meanwhile is left alone.
    scene.encode();
    assert!(scene.app.is_live());
    scene.happens(Event::Look(Look::At(2)));
    scene.makes();
    assert_eq!((shown(&scene), scene.numbers()), (Some(2), vec![4, 3, 2, 1]));
    scene.encode();
    scene.makes();
    assert_eq!(shown(&scene), Some(5));
}

#[test]
fn two_results_are_compared() {
    let mut scene = Scene::ready(None);
    scene.makes_one();
    scene.happens(Event::Look(Look::Compare));
    assert_eq!(scene.app.results().other(), None, "there is none");
    (0..2).for_each(|_| scene.makes_one());
    let pair = |scene: &Scene| {
        let results = scene.app.results();
        (results.shown().map(|shown| shown.number), results.other().map(|other| other.number))
    };
    scene.happens(Event::Look(Look::Compare));
    assert_eq!(pair(&scene), (Some(3), Some(2)));
    scene.happens(Event::Look(Look::At(1)));
    assert_eq!(pair(&scene), (Some(3), Some(1)));
    scene.happens(Event::Look(Look::At(3)));
    assert_eq!(pair(&scene), (Some(3), Some(1)), "not with itself");
    scene.happens(Event::Look(Look::Compare));
    assert_eq!(pair(&scene), (Some(3), None));
}

#[test]
fn the_oldest_results_are_let_go_of() {
    let mut scene = Scene::ready(None);
    scene.makes_one();
    scene.happens(Event::Look(Look::At(1)));
    for _ in 1..MOST_RESULTS {
        scene.makes_one();
    }
    scene.happens(Event::Look(Look::At(1)));
    scene.encode();
    scene.happens(Event::Look(Look::At(1)));
    scene.makes();
    assert!(scene.effects.iter().any(|effect| matches!(effect, Effect::Forget(1))), "{:?}", scene.effects);
    assert_eq!(scene.app.results().shown().unwrap().number, MOST_RESULTS as u64 + 1);
    assert_eq!(scene.numbers().len(), MOST_RESULTS);
}

#[test]
fn what_the_model_reads_is_asked_when_it_is_there() {
    let mut scene = Scene::new(None);
    scene.happens(words("a dragonfly"));
    assert!(scene.effects.is_empty());
    scene.load();
    let Request::Tokenize { prompt, .. } = scene.request() else { panic!() };
    assert_eq!(prompt.to_text(), "a dragonfly");
    let reading = Reading { tokens: 3, longest: 2, unknown: vec!["dragonfly".into()], ..Reading::default() };
    scene.says(scene.app.requests, Reply::Tokenized { reading: reading.clone() });
    assert_eq!(scene.app.reading(), Some(&reading));
    assert!(scene.app.is_too_long(&prompt, ""));
    assert!(!scene.app.is_too_long(&PromptDocument::new([PromptItem::Text("a".into())]), ""));
    scene.happens(words("a dragonfly"));
    assert!(scene.effects.is_empty(), "it is known");
    // An answer to what is no more asked is none.
    scene.happens(words("a cat"));
    let asked = scene.app.requests;
    scene.happens(words("a cat and"));
    scene.says(asked, Reply::Tokenized { reading: Reading { longest: 9, ..Reading::default() } });
    assert_eq!(scene.app.reading(), Some(&reading));
    scene.happens(words(""));
    assert_eq!(scene.app.reading(), None);
}

#[test]
fn what_makes_the_gpu_slow_at_first_is_told() {
    let mut scene = Scene::ready(None);
    scene.happens(Event::Device { adapter: Some(adapter()), cpu_memory_bytes: 1 << 30 });
    scene.orders(several(2));
    assert!(scene.app.status().contains(texts::STARTING_PROGRAM), "{}", scene.app.status());
    scene.hears(Processor::Gpu, LOAD, Reply::Started);
    assert!(scene.app.status().contains(texts::PREPARING_GPU), "{}", scene.app.status());
    scene.hears(Processor::Gpu, LOAD, super::scene::ready("WebGPU", &[]));
    assert!(scene.app.status().contains(texts::ENCODING_FIRST), "{}", scene.app.status());
    scene.hears(Processor::Gpu, scene.job().request, Reply::Encoded { condition: condition() });
    assert!(scene.app.status().contains(texts::STEPPING_FIRST), "{}", scene.app.status());
    scene.step(Processor::Gpu, 9.0);
    assert_eq!(scene.app.status(), "Picture 1 of 2 · Step 1 of 10");
    scene.step(Processor::Gpu, 1.0);
    assert_eq!(scene.app.status(), "Picture 1 of 2 · Step 2 of 10 · 18 s left");
    scene.hears(Processor::Gpu, scene.job().request, Reply::Picture);
    assert!(scene.app.status().contains("Step 0 of 10"), "{}", scene.app.status());
}

#[test]
fn a_gpu_that_is_not_used_is_not_said_to_be_missing() {
    let mut scene = Scene::ready(Some(health()));
    let emulated = Adapter { is_emulated: true, ..adapter() };
    let devices = [(Some(emulated), texts::GPU_IS_EMULATED), (None, texts::NO_WEBGPU)];
    for (adapter, why) in devices {
        // Where the processor has no room either, the server's reason says it too.
        for cpu_memory_bytes in [1 << 30, 1] {
            scene.happens(Event::Device { adapter: adapter.clone(), cpu_memory_bytes });
            assert!(scene.app.explanation()[0].contains(why), "{:?}", scene.app.explanation());
        }
    }
    scene.happens(Event::NoGpu { why: NoGpu::NoAdapter, browser: Browser::Chromium });
    assert!(scene.app.explanation()[0].contains(texts::NO_GPU_FOUND), "{:?}", scene.app.explanation());
}

#[test]
fn an_address_that_keeps_webgpu_away_is_named() {
    let mut scene = Scene::ready(None);
    assert_eq!(scene.app.refusal(Choice::Gpu).as_deref(), Some(texts::NO_GPU));
    scene.happens(Event::NoGpu { why: NoGpu::NotSecure, browser: Browser::Chromium });
    assert_eq!(scene.app.refusal(Choice::Gpu).as_deref(), Some(texts::about::NOT_SECURE));
    assert!(scene.app.explanation()[0].contains(texts::ADDRESS_IS_INSECURE), "{:?}", scene.app.explanation());
}

#[test]
fn whoever_compares_is_not_interrupted_by_what_waited() {
    let mut scene = Scene::ready(None);
    (0..2).for_each(|_| scene.makes_one());
    scene.encode();
    scene.orders(with_seed(3));
    scene.happens(Event::Look(Look::Compare));
    scene.makes();
    assert_eq!((scene.app.state(), scene.app.seed()), ("running", Some(3)), "the next one has begun");
    assert!(scene.app.results().other().is_some() && !scene.app.is_live());
    // What is ordered while nothing is being made is looked at.
    scene.happens(Event::CancelAll);
    scene.encode();
    assert!(scene.app.results().other().is_none() && scene.app.is_live());
}
