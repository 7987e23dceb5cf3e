//! Instructions: a scene, words that ask for one change, and the scene after it.

use kosmosg::noise::Rng;

use super::background::Background;
use super::caption::{fill, text};
use super::creature::{Body, Colour, Creature, Eyes, Pattern, Split, Topping};
use super::figure::Stand;
use super::grammar::{Detail, describe};
use super::scene::{Actor, Scene, Style};
use super::words::article;

/// What an instruction changes; `actor` is an index in [`Scene::actors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Change {
    /// A creature's main colour.
    Colour { actor: usize, colour: Colour },
    /// A creature's coat.
    Pattern { actor: usize, pattern: Pattern, second: Option<Colour> },
    /// What a creature wears.
    Topping { actor: usize, topping: Topping },
    /// A creature's eyes.
    Eyes { actor: usize, eyes: Eyes },
    /// A creature's silhouette.
    Body { actor: usize, body: Body },
    /// The place.
    Background(Background),
    /// The style.
    Style(Style),
    /// What the only creature stands on.
    Stand(Option<Stand>),
    /// One more creature, at this index in the target.
    Add { actor: usize },
    /// One creature less, at this index in the source.
    Remove { actor: usize },
}

/// One instruction with the scenes before and after it.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    /// Before.
    pub source: Scene,
    /// What is asked for.
    pub instruction: String,
    /// After: the source with nothing but [`Self::change`] done to it.
    pub target: Scene,
    /// What is different.
    pub change: Change,
}

const COLOUR: &[&str] = &["make {it} {value}", "paint {it} {value}", "turn {it} {value}", "change {it} to {value}"];
const GIVE: &[&str] = &["give {it} {value}", "add {value} to {it}"];
const PUT_ON: &[&str] = &["give {it} {value}", "add {value} to {it}", "put {value} on {it}"];
const TAKE_OFF: &[&str] = &["remove the {value} from {it}", "take the {value} off {it}"];
const UNDRESS: &[&str] = &["remove the {value}", "take off the {value}"];
const TURN_INTO: &[&str] = &["turn {it} into {value}", "make {it} {value}"];
const MOVE: &[&str] = &["move {all} {value}", "put {all} {value}", "show {all} {value}"];
const PLACE: &[&str] = &["change the background to {value}"];
const SKETCH: &[&str] = &["turn it into a pencil sketch", "make it a sketch", "draw it in pencil"];
const SUNSET: &[&str] = &["turn it into a sunset picture", "make it sunset", "put it in the evening light"];
const PLAIN: &[&str] = &["turn it into a photo", "make it a normal photo"];
const STAND_ON: &[&str] = &["put {it} on {value}", "put {it} on top of {value}"];
const STEP_DOWN: &[&str] = &["remove the {value}", "take {it} off the {value}", "put {it} on the ground"];
const ADD: &[&str] = &["add {value}", "add {value} {side}"];
const REMOVE: &[&str] = &["remove {it}", "take {it} away"];
const ONES: &[&[&str]] =
    &[&["it"], &["the left one", "the right one"], &["the left one", "the middle one", "the right one"]];
const SIDES: &[&[&str]] = &[&[""], &["on the left", "on the right"], &["on the left", "in the middle", "on the right"]];

/// Words that instructions use outside of their templates.
pub(super) const PHRASES: &[&str] = &["the", "plain", "them", "it", "to", "into"];

/// Every template of this module.
pub(super) fn templates() -> impl Iterator<Item = &'static str> {
    let lists = [
        COLOUR, GIVE, PUT_ON, TAKE_OFF, UNDRESS, TURN_INTO, MOVE, PLACE, SKETCH, SUNSET, PLAIN, STAND_ON, STEP_DOWN,
        ADD, REMOVE,
    ];
    lists.into_iter().chain(ONES.iter().copied()).chain(SIDES.iter().copied()).flatten().copied()
}

impl Edit {
    /// A random scene and a random change to it; all creatures before and after belong to `split`.
    pub fn sample(rng: &mut Rng, split: Split) -> Self {
        loop {
            let mut source = Scene::sample(rng, split);
            let attempt = match rng.below(12) {
                8 => background(rng, &mut source),
                9 => style(rng, &mut source),
                10 => stand(rng, &mut source),
                11 => company(rng, &mut source),
                kind => attribute(rng, &mut source, kind),
            };
            let Some((change, target, instruction)) = attempt else { continue };
            let belongs = |scene: &Scene| scene.actors.iter().all(|actor| actor.creature.split() == split);
            if belongs(&target) && target != source {
                return Edit { source, instruction, target, change };
            }
        }
    }
}

/// A change, the scene after it and the words for it; `None` if the scene does not allow it.
type Attempt = Option<(Change, Scene, String)>;

fn attribute(rng: &mut Rng, source: &mut Scene, kind: usize) -> Attempt {
    if source.style == Style::Sketch {
        // Grey on grey, most of these changes could not be seen.
        source.style = Style::Plain;
    }
    let (count, actor) = (source.actors.len(), rng.below(source.actors.len()));
    let old = source.actors[actor].creature;
    let other = Creature::sample(rng, Split::Train);
    let (change, templates, value) = match kind {
        0 | 1 => {
            (old.second != Some(other.colour)).then_some(())?;
            let words = rng.pick(other.colour.words()).to_string();
            (Change::Colour { actor, colour: other.colour }, COLOUR, words)
        }
        2 => {
            let (pattern, second) = (other.pattern, other.second);
            (second != Some(old.colour)).then_some(())?;
            let change = Change::Pattern { actor, pattern, second };
            match second {
                Some(second) => (change, GIVE, format!("{} {}", rng.pick(second.words()), rng.pick(pattern.words()))),
                None if old.pattern == Pattern::Plain => return None,
                None if rng.bool(0.5) => (change, &COLOUR[..1], "plain".into()),
                None => (change, without(count), rng.pick(old.pattern.words()).to_string()),
            }
        }
        3..=5 => {
            let topping = if rng.bool(0.3) { Topping::Nothing } else { other.topping };
            let change = Change::Topping { actor, topping };
            match topping.words() {
                [] if old.topping == Topping::Nothing => return None,
                [] => (change, without(count), old.topping.name().into()),
                words => (change, PUT_ON, rng.pick(words).to_string()),
            }
        }
        6 => {
            let templates = if other.eyes == Eyes::Sunglasses { PUT_ON } else { &GIVE[..1] };
            (Change::Eyes { actor, eyes: other.eyes }, templates, rng.pick(other.eyes.words()).to_string())
        }
        _ => {
            let noun = rng.pick(other.body.words());
            (Change::Body { actor, body: other.body }, TURN_INTO, format!("{} {noun}", article(noun)))
        }
    };
    let mut target = source.clone();
    apply(&mut target.actors[actor].creature, change);
    let one = refer(rng, &source.actors, actor);
    Some((change, target, say(rng, templates, &[("it", &one), ("value", &value)])))
}

/// Does one of the changes to a creature's attributes.
fn apply(creature: &mut Creature, change: Change) {
    match change {
        Change::Colour { colour, .. } => creature.colour = colour,
        Change::Pattern { pattern, second, .. } => (creature.pattern, creature.second) = (pattern, second),
        Change::Topping { topping, .. } => creature.topping = topping,
        Change::Eyes { eyes, .. } => creature.eyes = eyes,
        Change::Body { body, .. } => creature.body = body,
        Change::Background(_) | Change::Style(_) | Change::Stand(_) | Change::Add { .. } | Change::Remove { .. } => {}
    }
}

fn background(rng: &mut Rng, source: &mut Scene) -> Attempt {
    let background = *rng.pick(Background::ALL);
    let mut target = source.clone();
    target.setting.background = background;
    let all = if source.actors.len() == 1 { "it" } else { "them" };
    let (templates, value) =
        if rng.bool(0.3) { (PLACE, background.noun()) } else { (MOVE, *rng.pick(background.places())) };
    Some((Change::Background(background), target, say(rng, templates, &[("all", all), ("value", value)])))
}

fn style(rng: &mut Rng, source: &mut Scene) -> Attempt {
    let style = *rng.pick(Style::ALL);
    // A sketch keeps no colours that could be brought back.
    let (before, templates) = match style {
        Style::Plain => (Style::Sunset, PLAIN),
        Style::Sketch => (source.style, SKETCH),
        Style::Sunset => (Style::Plain, SUNSET),
    };
    source.style = before;
    let target = Scene { style, ..source.clone() };
    Some((Change::Style(style), target, rng.pick(templates).to_string()))
}

fn stand(rng: &mut Rng, source: &mut Scene) -> Attempt {
    let [actor] = source.actors[..] else { return None };
    let mut target = source.clone();
    let (stand, templates, value) = match actor.stand {
        Some(stand) if rng.bool(0.5) => (None, STEP_DOWN, stand.name()),
        _ => {
            let stand = *rng.pick(Stand::ALL);
            (Some(stand), STAND_ON, *rng.pick(stand.words()))
        }
    };
    target.actors[0].stand = stand;
    Some((Change::Stand(stand), target, say(rng, templates, &[("it", "it"), ("value", value)])))
}

/// One creature comes or goes; the others stay where they are.
fn company(rng: &mut Rng, source: &mut Scene) -> Attempt {
    let count = source.actors.len();
    if count < 2 {
        return None;
    }
    let actor = rng.below(count);
    let mut fewer = source.clone();
    let who = fewer.actors.remove(actor);
    if rng.bool(0.5) {
        let one = refer(rng, &source.actors, actor);
        return Some((Change::Remove { actor }, fewer, say(rng, REMOVE, &[("it", &one)])));
    }
    let words = describe(rng, &who.creature, Detail::Full);
    let value = format!("{} {words}", article(&words));
    let instruction = say(rng, ADD, &[("value", &value), ("side", SIDES[count - 1][actor])]);
    let target = std::mem::replace(source, fewer);
    Some((Change::Add { actor }, target, instruction))
}

/// Names one creature among those in a scene: by its shape if no other has it, or by its place.
fn refer(rng: &mut Rng, actors: &[Actor], actor: usize) -> String {
    let body = actors[actor].creature.body;
    let only = actors.iter().filter(|other| other.creature.body == body).count() == 1;
    if actors.len() > 1 && only && rng.bool(0.5) {
        return format!("the {}", body.name());
    }
    ONES[actors.len() - 1][actor].into()
}

/// How something is taken from a creature that may have company.
fn without(count: usize) -> &'static [&'static str] {
    if count == 1 { UNDRESS } else { TAKE_OFF }
}

fn say(rng: &mut Rng, templates: &[&str], parts: &[(&str, &str)]) -> String {
    let parts: Vec<_> = parts.iter().map(|(name, words)| (*name, text(words))).collect();
    super::caption::Caption { spans: fill(rng.pick::<&str>(templates), &parts) }.text()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::words::{vocabulary, words};
    use super::*;

    /// The source with the change done to it, all else as it was; `None` where the target brings something new.
    fn expected(edit: &Edit) -> Scene {
        let mut scene = edit.source.clone();
        match edit.change {
            Change::Background(background) => scene.setting.background = background,
            Change::Style(style) => scene.style = style,
            Change::Stand(stand) => scene.actors[0].stand = stand,
            Change::Add { actor } => scene.actors.insert(actor, edit.target.actors[actor]),
            Change::Remove { actor } => drop(scene.actors.remove(actor)),
            Change::Colour { actor, .. }
            | Change::Pattern { actor, .. }
            | Change::Topping { actor, .. }
            | Change::Eyes { actor, .. }
            | Change::Body { actor, .. } => apply(&mut scene.actors[actor].creature, edit.change),
        }
        scene
    }

    #[test]
    fn edits_change_only_what_they_say() {
        let mut kinds = HashSet::new();
        for seed in 0..2000 {
            let edit = Edit::sample(&mut Rng::new(seed, 0), Split::Train);
            assert_eq!(expected(&edit), edit.target, "{}", edit.instruction);
            assert_ne!(edit.source, edit.target, "{}", edit.instruction);
            kinds.insert(std::mem::discriminant(&edit.change));
        }
        assert_eq!(kinds.len(), 10, "some kind of change never comes");
    }

    #[test]
    fn instructions_use_the_vocabulary() {
        let known: HashSet<String> = vocabulary().into_iter().collect();
        for seed in 0..3000 {
            let edit = Edit::sample(&mut Rng::new(seed, 1), Split::Train);
            assert!(words(&edit.instruction).iter().all(|word| known.contains(word)), "{}", edit.instruction);
            assert!(!edit.instruction.contains(['{', '}']) && !edit.instruction.contains("  "), "{}", edit.instruction);
        }
    }

    #[test]
    fn both_sides_keep_to_their_split() {
        for split in [Split::Train, Split::HeldOut] {
            for seed in 0..100 {
                let edit = Edit::sample(&mut Rng::new(seed, 2), split);
                let all = edit.source.actors.iter().chain(&edit.target.actors);
                assert!(all.into_iter().all(|actor| actor.creature.split() == split), "{}", edit.instruction);
            }
        }
    }
}
