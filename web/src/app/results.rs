//! The pictures of this visit: which there are, and which of them is looked at.

use std::collections::VecDeque;
use std::rc::Rc;

use kosmosg::picture::Recipe;

use super::job::Order;
use super::series::{Grid, Series};
use crate::texts;

/// Most pictures that are kept; the oldest go first.
pub const MOST_RESULTS: usize = 50;

/// A finished picture.
#[derive(Debug, Clone)]
pub struct Made {
    /// Its number in this visit, from 1; what comes later of it is called by this.
    pub number: u64,
    /// Its file, without the pictures of its sentence and, from a server, without a recipe.
    pub png: Vec<u8>,
    /// How it was made.
    pub recipe: Recipe,
    /// The order that it belongs to, with the pictures of its sentence.
    pub order: Rc<Order>,
    /// How long it took.
    pub seconds: f64,
    /// Where it was made, in words that follow "Made".
    pub place: &'static str,
}

/// What the page knows of a finished picture without its file.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Its number in this visit.
    pub number: u64,
    /// Its sentence in words.
    pub sentence: String,
    /// What a grid varied, and how it is set here; otherwise empty.
    pub place: String,
    /// Its seed.
    pub seed: u64,
    /// Which picture of the seed it is.
    pub picture: u64,
}

impl Outcome {
    /// What it shows, for those who do not see it.
    pub fn description(&self) -> String {
        let place = if self.place.is_empty() { String::new() } else { format!(" ({})", self.place) };
        texts::result_label(&self.sentence) + &place
    }

    /// The name of its file.
    pub fn file_name(&self) -> String {
        texts::picture_file_name(self.seed, self.picture)
    }
}

/// A grid, as far as it is made.
#[derive(Debug, Clone, PartialEq)]
pub struct Sheet {
    /// What differs.
    pub grid: Grid,
    /// The sentence in words.
    pub sentence: String,
    /// Numbers of its pictures, row by row.
    pub cells: Vec<Option<u64>>,
    /// So many were made before the page was opened again.
    pub before: usize,
}

/// What the person wants to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// The picture that is being made.
    Live,
    /// A finished one; while two are compared, the one to compare with.
    At(u64),
    /// The one that was made before.
    Older,
    /// The one that was made after it.
    Newer,
    /// Two at once, or one again.
    Compare,
}

/// The pictures of this visit.
#[derive(Debug, Default)]
pub struct Results {
    /// The newest first.
    list: VecDeque<Outcome>,
    made: u64,
    shown: Option<u64>,
    other: Option<u64>,
    /// Whether the person looks at something else than what is being made.
    is_elsewhere: bool,
    sheet: Option<Sheet>,
}

impl Results {
    /// All of them, the newest first.
    pub fn list(&self) -> &VecDeque<Outcome> {
        &self.list
    }

    /// The one that is shown.
    pub fn shown(&self) -> Option<&Outcome> {
        self.get(self.shown?)
    }

    /// The one that it is compared with.
    pub fn other(&self) -> Option<&Outcome> {
        self.get(self.other?)
    }

    /// Whether a picture that is being made is looked at.
    pub fn is_live(&self) -> bool {
        !self.is_elsewhere
    }

    /// The last grid.
    pub fn sheet(&self) -> Option<&Sheet> {
        self.sheet.as_ref()
    }

    fn get(&self, number: u64) -> Option<&Outcome> {
        self.list.iter().find(|outcome| outcome.number == number)
    }

    fn position(&self, number: u64) -> Option<usize> {
        self.list.iter().position(|outcome| outcome.number == number)
    }

    /// An order begins, or goes on after so many pictures of it. Who looks elsewhere or compares is left alone: it may have
    /// waited for long.
    pub(super) fn begin(&mut self, order: &Order, before: usize) {
        if let Series::Grid(grid) = &order.series {
            let cells = vec![None; grid.len()];
            self.sheet = Some(Sheet { grid: grid.clone(), sentence: order.sentence(), cells, before });
        }
    }

    /// Takes a finished picture, the one at `at` of its order. Returns its number, and that of one that is not kept any
    /// more.
    pub(super) fn add(&mut self, order: &Order, at: usize, recipe: &Recipe) -> (u64, Option<u64>) {
        self.made += 1;
        let number = self.made;
        let mut place = String::new();
        if let Series::Grid(grid) = &order.series {
            place = place_in(grid, at);
            if let Some(cell) = self.sheet.as_mut().and_then(|sheet| sheet.cells.get_mut(at)) {
                *cell = Some(number);
            }
        }
        let (seed, picture) = (recipe.seed, recipe.picture);
        self.list.push_front(Outcome { number, sentence: order.sentence(), place, seed, picture });
        if !self.is_elsewhere {
            self.shown = Some(number);
        }
        let gone = if self.list.len() > MOST_RESULTS { self.list.pop_back().map(|gone| gone.number) } else { None };
        if gone.is_some() {
            self.other.take_if(|other| Some(*other) == gone);
            if self.shown == gone {
                (self.shown, self.is_elsewhere) = (Some(number), false);
            }
            self.sheet.take_if(|sheet| sheet.cells.contains(&gone));
        }
        (number, gone)
    }

    pub(super) fn look(&mut self, look: Look) {
        let neighbour = |by: isize| {
            let at = self.shown.and_then(|shown| self.position(shown))?;
            self.list.get(at.checked_add_signed(by)?).map(|outcome| outcome.number)
        };
        match look {
            Look::Live => (self.is_elsewhere, self.other) = (false, None),
            Look::At(number) if self.get(number).is_none() => {}
            Look::At(number) if self.other.is_some() => {
                if Some(number) != self.shown {
                    self.other = Some(number);
                }
            }
            Look::At(number) => (self.shown, self.is_elsewhere) = (Some(number), true),
            Look::Older => self.go_to(neighbour(1)),
            Look::Newer => self.go_to(neighbour(-1)),
            Look::Compare if self.other.is_some() => self.other = None,
            Look::Compare => {
                self.other = neighbour(1).or(neighbour(-1));
                self.is_elsewhere |= self.other.is_some();
            }
        }
    }

    fn go_to(&mut self, number: Option<u64>) {
        if let Some(number) = number {
            (self.shown, self.other, self.is_elsewhere) = (Some(number), None, true);
        }
    }
}

/// Where a picture stands in a grid, for people.
fn place_in(grid: &Grid, at: usize) -> String {
    let columns = grid.columns.values();
    let value = |label: &str, value: Option<&String>| format!("{label} {}", value.map_or("", String::as_str));
    let column = value(grid.columns.label(), columns.get(at % columns.len()));
    let row = grid.rows.as_ref().map(|rows| value(rows.label(), rows.values().get(at / columns.len())));
    [Some(column), row].into_iter().flatten().collect::<Vec<_>>().join(", ").to_ascii_lowercase()
}
