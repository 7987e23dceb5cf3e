//! How good pictures of the [world of sprites](crate::sprites) are.

use kosmosg::noise::Rng;
use kosmosg::picture::Picture;
use serde::Serialize;

use crate::sprites::{self, Scene, Split};
use question::Question;
use score::Seen;

pub mod answer;
pub mod fid;
pub mod judge;
pub mod question;
pub mod score;
pub mod task;

/// How often a judge is right about one thing in drawn pictures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Accuracy {
    /// What it is asked.
    pub what: &'static str,
    /// Answers that are right.
    pub right: usize,
    /// Answers.
    pub count: usize,
}

/// A judge's accuracy on drawn scenes with creatures that nobody was taught with.
///
/// # Errors
/// Those of `see`.
pub fn accuracy<F>(seed: u64, see: impl Fn(&[Picture]) -> Result<Vec<Seen>, F>) -> Result<Vec<Accuracy>, F> {
    const SCENES: u64 = 3000;
    let scene = |i| Scene::sample(&mut Rng::new(seed, (6 << 32) + i), Split::HeldOut);
    let scenes: Vec<_> = (0..SCENES).map(scene).collect();
    let pictures: Vec<_> = scenes.iter().map(|scene| sprites::draw(scene, judge::PICTURE_SIZE as u32)).collect();
    let mut all: Vec<Accuracy> = Vec::new();
    for (scene, (reading, _)) in scenes.iter().zip(see(&pictures)?) {
        for question in Question::all() {
            let (what, Some(answer)) = (question.name(), question.answer(scene)) else { continue };
            let at = all.iter().position(|accuracy| accuracy.what == what).unwrap_or_else(|| {
                all.push(Accuracy { what, right: 0, count: 0 });
                all.len() - 1
            });
            all[at].count += 1;
            all[at].right += usize::from(reading.answer(question) == Some(answer));
        }
    }
    Ok(all)
}
