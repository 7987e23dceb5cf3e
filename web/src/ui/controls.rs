//! Seed, steps, guidance, sampler, negative prompt and place.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use kosmosg::bundle::Manifest;
use kosmosg::protocol::GenerateSettings;
use kosmosg::sampler::SamplerKind;
use wasm_bindgen::JsCast;
use web_sys::{Element, Event, HtmlElement, HtmlInputElement, HtmlSelectElement};

use super::dom;
use crate::app::{App, Choice, Phase};
use crate::composition::Dials;
use crate::texts;

/// What the browser remembers the choice under.
const WHERE: &str = "where";

/// The controls beside the sentence.
pub struct Controls {
    seed: HtmlInputElement,
    lock: HtmlInputElement,
    steps: Dial,
    guidance: Dial,
    sampler: HtmlSelectElement,
    negative: HtmlInputElement,
    /// Whether they show the bundle's defaults or what the person made of them; before that they mean nothing.
    have_defaults: Cell<bool>,
    /// What is to be restored once they do.
    restored: RefCell<Option<Dials>>,
    /// The number of the first picture among those of the seed; a restored one need not be the first.
    first: Rc<Cell<u64>>,
}

impl Controls {
    /// Takes the controls over; `chosen` hears the person's choice of a place.
    pub fn new(chosen: impl Fn(Choice) + Clone + 'static) -> Self {
        let controls = Self {
            seed: dom::by_id("seed"),
            lock: dom::by_id("lock"),
            steps: Dial::new("steps"),
            guidance: Dial::new("guidance"),
            sampler: dom::by_id("sampler"),
            negative: dom::by_id("negative"),
            have_defaults: Cell::new(false),
            restored: RefCell::default(),
            first: Rc::default(),
        };
        controls.listen(chosen);
        controls.roll();
        controls
    }

    /// The negative prompt.
    pub fn negative(&self) -> String {
        self.negative.value().trim().to_owned()
    }

    /// Seed, steps, guidance and sampler as they stand.
    pub fn settings(&self) -> GenerateSettings {
        if !self.have_defaults.get() {
            let Dials { steps, guidance, sampler, .. } = self.restored.borrow().clone().unwrap_or_default();
            return GenerateSettings { seed: self.seed(), steps, guidance, sampler, ..GenerateSettings::default() };
        }
        GenerateSettings {
            seed: self.seed(),
            steps: self.steps.value().map(|steps| steps.round() as usize),
            guidance: self.guidance.value(),
            sampler: self.sampler.value().parse().ok(),
            ..GenerateSettings::default()
        }
    }

    /// How many pictures are wanted.
    pub fn count(&self) -> u64 {
        let chosen = dom::document().query_selector("input[name=count]:checked").ok().flatten();
        let chosen = chosen.and_then(|chosen| chosen.dyn_into::<HtmlInputElement>().ok());
        chosen.and_then(|chosen| chosen.value().parse().ok()).unwrap_or(1)
    }

    /// The number of the first picture among those of the seed.
    pub fn first(&self) -> u64 {
        self.first.get()
    }

    /// Takes another seed if this one is used already, unless the person wants to keep it: it would make the same.
    pub fn renew_seed(&self, is_used: impl Fn(u64) -> bool) {
        if !self.lock.checked() && is_used(self.seed()) {
            self.roll();
        }
    }

    /// Keeps a seed.
    pub fn lock_seed(&self, seed: u64) {
        self.seed.set_value(&seed.to_string());
        self.lock.set_checked(true);
    }

    /// Takes over what the bundle does when nobody says otherwise.
    pub fn set_defaults(&self, manifest: &Manifest) {
        let defaults = manifest.defaults;
        self.have_defaults.set(true);
        self.steps.set(defaults.steps as f64);
        self.guidance.set(defaults.guidance);
        self.sampler.set_value(defaults.sampler.name());
        if let Some(dials) = self.restored.take() {
            self.restore(&dials);
        }
    }

    /// All of them as they stand.
    pub fn dials(&self) -> Dials {
        let GenerateSettings { steps, guidance, sampler, .. } = self.settings();
        let negative = self.negative();
        let (seed, lock, count, first) = (self.seed.value(), self.lock.checked(), self.count(), self.first());
        Dials { seed, lock, steps, guidance, sampler, negative, count, first }
    }

    /// Sets them all, exactly, even to what nobody would be let type.
    pub fn restore(&self, dials: &Dials) {
        self.seed.set_value(&dials.seed);
        self.lock.set_checked(dials.lock);
        self.first.set(dials.first);
        let count = dom::document().get_element_by_id(&format!("count-{}", dials.count));
        if let Some(count) = count.and_then(|count| count.dyn_into::<HtmlInputElement>().ok()) {
            count.set_checked(true);
        }
        self.negative.set_value(&dials.negative);
        if !self.have_defaults.get() {
            *self.restored.borrow_mut() = Some(dials.clone());
            return;
        }
        let steps = dials.steps.map(|steps| steps as f64);
        for (dial, value) in [(&self.steps, steps), (&self.guidance, dials.guidance)] {
            if let Some(value) = value {
                dial.set(value);
            }
        }
        if let Some(sampler) = dials.sampler {
            self.sampler.set_value(sampler.name());
        }
    }

    /// Shows which places there are, and which is chosen.
    pub fn show(&self, app: &App) {
        for choice in Choice::ALL {
            let radio: HtmlInputElement = dom::by_id(&format!("where-{}", choice.name()));
            radio.set_checked(app.places().choice == choice);
            radio.set_disabled(!app.places().offers(choice));
            if let Some(label) = radio.parent_element() {
                dom::set_attribute(&label, "title", &app.refusal(choice).unwrap_or_default());
            }
        }
        let line: HtmlElement = dom::by_id("where-line");
        dom::set_text(&line, &app.explanation().join(" "));
        self.show_refusals(app);
        let text = match app.phase() {
            Phase::Running => texts::GENERATE_NEXT.to_owned(),
            _ => texts::generate(self.count()),
        };
        dom::set_text(&dom::by_id::<HtmlElement>("generate"), &text);
    }

    /// Says why places are greyed out.
    fn show_refusals(&self, app: &App) {
        let names =
            [(Choice::Gpu, texts::WHERE_GPU), (Choice::Cpu, texts::WHERE_CPU), (Choice::Server, texts::WHERE_SERVER)];
        let refusal = |(choice, name)| Some(texts::place_refused(name, &texts::sentence(&app.refusal(choice)?)));
        let refusals: Vec<_> = names.into_iter().filter_map(refusal).collect();
        dom::show("refusals", !refusals.is_empty());
        let list: HtmlElement = dom::by_id("refusal-list");
        let text = refusals.join("\n");
        if list.get_attribute("data-text").unwrap_or_default() != text {
            dom::set_attribute(&list, "data-text", &text);
            list.set_text_content(None);
            for refusal in refusals {
                let entry: HtmlElement = dom::create("li", "");
                entry.set_text_content(Some(&refusal));
                list.append_child(&entry).expect("an element of the page takes children");
            }
        }
    }

    /// A number is the seed itself; other words are turned into one, the same each time.
    fn seed(&self) -> u64 {
        let text = self.seed.value();
        text.trim().parse().unwrap_or_else(|_| {
            // FNV-1a.
            text.bytes()
                .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
        })
    }

    fn roll(&self) {
        roll(&self.seed, &self.first);
    }

    fn listen(&self, chosen: impl Fn(Choice) + Clone + 'static) {
        for kind in SamplerKind::ALL {
            let option: Element = dom::create("option", "");
            dom::set_attribute(&option, "value", kind.name());
            option.set_text_content(Some(kind.label()));
            self.sampler.append_child(&option).expect("a list takes options");
        }
        // A seed that was typed is meant.
        let (lock, first) = (self.lock.clone(), self.first.clone());
        dom::on(&self.seed, "input", move |_: Event| {
            lock.set_checked(true);
            first.set(0);
        });
        let (seed, lock, first) = (self.seed.clone(), self.lock.clone(), self.first.clone());
        dom::on(&dom::by_id::<HtmlElement>("dice"), "click", move |_: Event| {
            lock.set_checked(false);
            roll(&seed, &first);
        });
        for choice in Choice::ALL {
            let radio: HtmlInputElement = dom::by_id(&format!("where-{}", choice.name()));
            let chosen = chosen.clone();
            dom::on(&radio, "change", move |_: Event| chosen(choice));
            // Whoever touches a place that is greyed out wants to know why.
            if let Some(label) = radio.parent_element() {
                dom::on(&label, "click", move |_: Event| {
                    if radio.disabled() {
                        dom::set_flag(&dom::by_id::<HtmlElement>("refusals"), "open", true);
                    }
                });
            }
        }
        dom::on(&dom::by_id::<HtmlElement>("where-change"), "click", move |_: Event| {
            let chosen = dom::document().query_selector("input[name=where]:checked").ok().flatten();
            if let Some(chosen) = chosen.and_then(|chosen| chosen.dyn_into::<HtmlInputElement>().ok()) {
                dom::focus(&chosen);
            }
        });
    }
}

/// The choice of an earlier visit.
pub fn remembered_choice() -> Option<Choice> {
    Choice::from_name(&dom::remembered(WHERE)?)
}

/// Remembers the choice for later visits.
pub fn remember_choice(choice: Choice) {
    dom::remember(WHERE, choice.name());
}

/// Takes another seed, and begins with the first of its pictures.
fn roll(seed: &HtmlInputElement, first: &Cell<u64>) {
    first.set(0);
    seed.set_value(&((js_sys::Math::random() * 1e9) as u64).to_string());
}

/// A number: a field that takes it exactly, and a slider.
#[derive(Clone)]
struct Dial {
    field: HtmlInputElement,
    slider: HtmlInputElement,
}

impl Dial {
    fn new(id: &str) -> Self {
        let dial = Self { field: dom::by_id(id), slider: dom::by_id(&format!("{id}-slider")) };
        let moved = dial.clone();
        dom::on(&dial.slider, "input", move |_: Event| moved.field.set_value(&moved.slider.value()));
        for event in ["input", "change"] {
            let typed = dial.clone();
            dom::on(&dial.field, event, move |_: Event| match typed.value() {
                // Half a number is not to be put right while it is typed.
                Some(value) if event == "input" => typed.slider.set_value_as_number(value),
                Some(value) => typed.set(value),
                None if event == "change" => typed.set(typed.slider.value_as_number()),
                None => {}
            });
        }
        dial
    }

    /// What it says, within its bounds; none where that is no number.
    fn value(&self) -> Option<f64> {
        let (value, [min, max]) = (self.field.value_as_number(), self.bounds(f64::NAN));
        value.is_finite().then(|| value.max(min).min(max))
    }

    /// Sets it, also beyond its bounds.
    fn set(&self, value: f64) {
        let [min, max] = self.bounds(value);
        self.field.set_min(&min.min(value).to_string());
        self.field.set_max(&max.max(value).to_string());
        self.field.set_value(&value.to_string());
        self.slider.set_value_as_number(value);
    }

    /// The least and the most; `other` for one that there is none of.
    fn bounds(&self, other: f64) -> [f64; 2] {
        [self.field.min(), self.field.max()].map(|bound| bound.parse().unwrap_or(other))
    }
}
