//! How well pictures answer [tasks](super::task), as a judge sees it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::fid::frechet_distance;
use super::question::{Attribute, Question, Reading};
use super::task::{Kind, Task};

/// What a judge sees in a picture, and its features of it.
pub type Seen = (Reading, Vec<f32>);

/// One row of the benchmark's table. All but the last are shares of 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Row {
    /// [`Kind::Subject`]: attributes of the creature that its picture shows, right on average.
    pub subject_fidelity: f64,
    /// The same: all of them right.
    pub exact_subject: f64,
    /// The same: what the words ask for (place, style, stand, new colour or topping), right on average.
    pub text_fidelity: f64,
    /// [`Kind::Pair`]: two creatures, each in its place with its shape and main colour.
    pub both_subjects: f64,
    /// [`Kind::Trio`]: the same, in the place that the third picture shows.
    pub three_pictures: f64,
    /// [`Kind::Edit`]: the change is there, and place, style, number, shapes and main colours are as they should be.
    pub edit_success: f64,
    /// The same, and everything else that can be seen is as it should be too: patterns and their colours, toppings,
    /// eyes, stand.
    pub edit_exact: f64,
    /// [`Kind::Words`]: Fréchet distance of the judge's features to those of drawn pictures.
    pub fid: f64,
}

impl Row {
    /// From what was seen in the picture of each task. `drawn` are features of pictures as they should be.
    ///
    /// # Panics
    /// If there are not as many pictures as tasks, or a kind has no task.
    pub fn new(tasks: &[Task], seen: &[Seen], drawn: &[Vec<f32>]) -> Self {
        assert_eq!(tasks.len(), seen.len(), "a picture for each task");
        let of = |kind| {
            tasks
                .iter()
                .zip(seen)
                .filter(move |(task, _)| task.kind == kind)
                .map(|(task, (reading, _))| (task, reading))
        };
        let words = tasks.iter().zip(seen).filter(|(task, _)| task.kind == Kind::Words);
        let features: Vec<_> = words.map(|(_, (_, features))| features.clone()).collect();
        let all = |task: &Task, reading: &Reading, questions: &[Question]| right(task, reading, questions) == 1.0;
        let pair = |task: &Task, reading: &Reading| {
            let of = |index| [Attribute::Body, Attribute::Colour].map(|attribute| (index, attribute));
            let questions = (0..2).flat_map(of);
            let questions = questions.map(|(index, attribute)| Question::Creature { count: 2, index, attribute });
            all(task, reading, &questions.chain([Question::Count]).collect::<Vec<_>>())
        };
        Self {
            subject_fidelity: mean(of(Kind::Subject).map(|(task, reading)| right(task, reading, &task.shown))),
            exact_subject: share(of(Kind::Subject).map(|(task, reading)| all(task, reading, &task.shown))),
            text_fidelity: mean(of(Kind::Subject).map(|(task, reading)| right(task, reading, &task.asked))),
            both_subjects: share(of(Kind::Pair).map(|(task, reading)| pair(task, reading))),
            three_pictures: share(
                of(Kind::Trio)
                    .map(|(task, reading)| pair(task, reading) && all(task, reading, &[Question::Background])),
            ),
            edit_success: share(
                of(Kind::Edit)
                    .map(|(task, reading)| all(task, reading, &task.asked) && all(task, reading, &task.shown)),
            ),
            edit_exact: share(
                of(Kind::Edit).map(|(task, reading)| all(task, reading, &Question::all().collect::<Vec<_>>())),
            ),
            fid: frechet_distance(&features, drawn),
        }
    }

    /// All columns but the last, in order.
    fn shares(&self) -> [f64; 7] {
        [
            self.subject_fidelity,
            self.exact_subject,
            self.text_fidelity,
            self.both_subjects,
            self.three_pictures,
            self.edit_success,
            self.edit_exact,
        ]
    }
}

/// Where a model's answers are right: by kind of task, the share of right readings of each thing that its pictures show and,
/// as `asked`, of what its words ask for.
pub fn details(tasks: &[Task], seen: &[Seen]) -> BTreeMap<&'static str, BTreeMap<&'static str, f64>> {
    let mut counts: BTreeMap<_, BTreeMap<_, (usize, usize)>> = BTreeMap::new();
    for (task, (reading, _)) in tasks.iter().zip(seen) {
        let of_kind = counts.entry(task.kind.name()).or_default();
        let asked = task
            .asked
            .iter()
            .map(|question| (if task.kind == Kind::Words { question.name() } else { "asked" }, question));
        for (name, question) in asked.chain(task.shown.iter().map(|question| (question.name(), question))) {
            if let Some(answer) = question.answer(&task.scene) {
                let (right, count) = of_kind.entry(name).or_default();
                *right += usize::from(reading.answer(*question) == Some(answer));
                *count += 1;
            }
        }
    }
    let shares = |counts: BTreeMap<_, (usize, usize)>| {
        counts.into_iter().map(|(name, (right, count))| (name, right as f64 / count as f64)).collect()
    };
    counts.into_iter().map(|(kind, counts)| (kind, shares(counts))).collect()
}

/// The share of those questions that the scene answers, which a reading answers alike; 1 of none.
fn right(task: &Task, reading: &Reading, questions: &[Question]) -> f64 {
    let answers = questions.iter().filter_map(|&question| Some((question, question.answer(&task.scene)?)));
    let answers: Vec<_> = answers.map(|(question, answer)| reading.answer(question) == Some(answer)).collect();
    if answers.is_empty() { 1.0 } else { share(answers.into_iter()) }
}

fn share(of: impl Iterator<Item = bool>) -> f64 {
    mean(of.map(|right| f64::from(u8::from(right))))
}

fn mean(of: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = of.fold((0.0, 0), |(sum, count), x| (sum + x, count + 1));
    sum / f64::from(count)
}

/// The rows as a Markdown table.
pub fn markdown(rows: &[(String, Row)]) -> String {
    let mut table = String::from(
        "| | subject fidelity | exact subject | text fidelity | both subjects | three pictures | edit success | edit exact | FID |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for (name, row) in rows {
        let shares: String = row.shares().map(|share| format!(" {share:.3} |")).concat();
        let _ = writeln!(table, "| {name} |{shares} {:.1} |", row.fid);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::task::tasks;
    use super::*;

    /// The scores of someone who knows the scene, except where `mistakes` say so.
    fn seen(task: &Task, mistakes: impl Fn(Question) -> bool) -> Seen {
        let mut scores = Vec::new();
        for question in Question::all() {
            let start = scores.len();
            scores.resize(start + question.answers(), 0.0);
            if let Some(answer) = question.answer(&task.scene) {
                let answer = if mistakes(question) { (answer + 1) % question.answers() } else { answer };
                scores[start + answer] = 1.0;
            }
        }
        (Reading::new(&scores), vec![scores[0], scores[1]])
    }

    #[test]
    fn each_column_sees_its_own_mistakes() {
        let tasks = tasks(1, 6, 38);
        let row = |mistakes: fn(Question) -> bool| {
            let seen: Vec<_> = tasks.iter().map(|task| seen(task, mistakes)).collect();
            let features: Vec<_> = seen.iter().map(|(_, features)| features.clone()).collect();
            Row::new(&tasks, &seen, &features)
        };
        let perfect = row(|_| false);
        assert_eq!(perfect.shares(), [1.0; 7]);
        assert!(perfect.fid < 0.1, "{}", perfect.fid);

        let blind = row(|question| question == Question::Background);
        assert_eq!((blind.subject_fidelity, blind.both_subjects), (1.0, 1.0));
        assert!(blind.text_fidelity < 0.5 && blind.three_pictures == 0.0 && blind.edit_success == 0.0);

        let eyeless = row(|question| matches!(question, Question::Creature { attribute: Attribute::Eyes, .. }));
        assert!(eyeless.subject_fidelity > 0.7 && eyeless.subject_fidelity < 0.9);
        assert_eq!((eyeless.exact_subject, eyeless.both_subjects, eyeless.text_fidelity), (0.0, 1.0, 1.0));
        assert!(eyeless.edit_success > 0.5 && eyeless.edit_success < 1.0);
        assert_eq!(eyeless.edit_exact, 0.0);

        let swapped = row(|question| matches!(question, Question::Creature { count: 2, index: 0, .. }));
        assert_eq!((swapped.exact_subject, swapped.both_subjects, swapped.three_pictures), (1.0, 0.0, 0.0));
    }

    #[test]
    fn a_table_has_a_line_for_each_row() {
        let row = Row {
            subject_fidelity: 0.5,
            exact_subject: 0.25,
            text_fidelity: 1.0,
            both_subjects: 0.125,
            three_pictures: 0.0,
            edit_success: 0.1,
            edit_exact: 0.0625,
            fid: 12.34,
        };
        let table = markdown(&[("drawn".into(), row), ("chance".into(), row)]);
        assert_eq!(table.lines().count(), 4);
        assert!(table.contains("| chance | 0.500 | 0.250 | 1.000 | 0.125 | 0.000 | 0.100 | 0.062 | 12.3 |"), "{table}");
    }
}
