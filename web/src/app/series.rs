//! Several pictures of one order: more of the same, or a grid over one or two settings.

use kosmosg::protocol::GenerateSettings;
use kosmosg::sampler::SamplerKind;
use serde::{Deserialize, Serialize};

use crate::texts;

/// Most pictures of an order.
pub const MAX_ORDER_PICTURES: usize = 16;
const STEPS: std::ops::RangeInclusive<usize> = 1..=100;
const GUIDANCE: std::ops::RangeInclusive<f64> = 1.0..=15.0;
/// Values that an axis is suggested with.
const SUGGESTED: u64 = 4;

/// Which pictures an order makes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Series {
    /// So many of the same seed, numbered as the command line numbers them.
    Count(u64),
    /// One for each combination of values.
    Grid(Grid),
}

impl Default for Series {
    fn default() -> Self {
        Self::Count(1)
    }
}

impl Series {
    /// How each picture is made, where `first` says what is the same for all.
    pub fn takes(&self, first: &GenerateSettings) -> Vec<GenerateSettings> {
        match self {
            Series::Count(count) => {
                let picture =
                    |number| GenerateSettings { picture: first.picture.saturating_add(number), ..first.clone() };
                (0..*count).map(picture).collect()
            }
            Series::Grid(grid) => grid.takes(first),
        }
    }
}

/// A table of pictures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    /// What differs from left to right.
    pub columns: Axis,
    /// What differs from top to bottom.
    pub rows: Option<Axis>,
}

impl Grid {
    /// A grid.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn new(columns: Axis, rows: Option<Axis>) -> Result<Self, String> {
        let grid = Self { columns, rows };
        if grid.rows.as_ref().is_some_and(|rows| rows.kind == grid.columns.kind) {
            return Err(texts::GRID_OF_ONE.into());
        }
        match grid.len() {
            pictures if pictures > MAX_ORDER_PICTURES => Err(texts::grid_too_large(pictures, MAX_ORDER_PICTURES)),
            _ => Ok(grid),
        }
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.columns.values.len() * self.rows.as_ref().map_or(1, |rows| rows.values.len())
    }

    /// Whether there is no picture; there always is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn takes(&self, first: &GenerateSettings) -> Vec<GenerateSettings> {
        let across =
            |settings: GenerateSettings| self.columns.values.iter().map(move |value| value.set(settings.clone()));
        match &self.rows {
            None => across(first.clone()).collect(),
            Some(rows) => rows.values.iter().flat_map(|value| across(value.set(first.clone()))).collect(),
        }
    }
}

/// A setting that a grid varies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AxisKind {
    /// The seed.
    Seed,
    /// The guidance scale.
    Guidance,
    /// The number of steps.
    Steps,
    /// The sampler.
    Sampler,
}

impl AxisKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Seed, Self::Guidance, Self::Steps, Self::Sampler];

    /// Its name in the page's elements.
    pub fn name(self) -> &'static str {
        match self {
            AxisKind::Seed => "seed",
            AxisKind::Guidance => "guidance",
            AxisKind::Steps => "steps",
            AxisKind::Sampler => "sampler",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What people call it.
    pub fn label(self) -> &'static str {
        match self {
            AxisKind::Seed => texts::SEED,
            AxisKind::Guidance => texts::GUIDANCE,
            AxisKind::Steps => texts::STEPS,
            AxisKind::Sampler => texts::SAMPLER,
        }
    }

    /// Values to begin with, as a person would write them.
    pub fn suggestion(self, settings: &GenerateSettings) -> String {
        match self {
            AxisKind::Seed => {
                let seed = settings.seed;
                (0..SUGGESTED).map(|more| seed.saturating_add(more).to_string()).collect::<Vec<_>>().join(", ")
            }
            AxisKind::Guidance => "2, 4, 6, 8".into(),
            AxisKind::Steps => "10, 20, 40".into(),
            AxisKind::Sampler => {
                // So many that four values of something else go with them.
                let all = SamplerKind::ALL.map(SamplerKind::name);
                all[..SUGGESTED as usize].join(", ")
            }
        }
    }

    fn value(self, text: &str) -> Option<Value> {
        match self {
            AxisKind::Seed => text.parse().ok().map(Value::Seed),
            AxisKind::Guidance => text.parse().ok().filter(|guidance| GUIDANCE.contains(guidance)).map(Value::Guidance),
            AxisKind::Steps => text.parse().ok().filter(|steps| STEPS.contains(steps)).map(Value::Steps),
            AxisKind::Sampler => text.to_ascii_lowercase().parse().ok().map(Value::Sampler),
        }
    }
}

/// A setting and the values that it takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Axis {
    kind: AxisKind,
    values: Vec<Value>,
}

impl Axis {
    /// Reads values as a person writes them: between commas or spaces.
    ///
    /// # Errors
    /// What is wrong with them, for people.
    pub fn parse(kind: AxisKind, text: &str) -> Result<Self, String> {
        let mut values = Vec::new();
        for word in text.split([',', ';', ' ']).filter(|word| !word.is_empty()) {
            let value = kind.value(word).ok_or_else(|| texts::no_value(kind.label(), word))?;
            if !values.contains(&value) {
                values.push(value);
            }
        }
        if values.is_empty() { Err(texts::no_values(kind.label())) } else { Ok(Self { kind, values }) }
    }

    /// What people call it.
    pub fn label(&self) -> &'static str {
        self.kind.label()
    }

    /// Its values, for people.
    pub fn values(&self) -> Vec<String> {
        self.values.iter().map(Value::text).collect()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Value {
    Seed(u64),
    Guidance(f64),
    Steps(usize),
    Sampler(SamplerKind),
}

impl Value {
    fn text(&self) -> String {
        match self {
            Value::Seed(seed) => seed.to_string(),
            Value::Guidance(guidance) => guidance.to_string(),
            Value::Steps(steps) => steps.to_string(),
            Value::Sampler(sampler) => sampler.name().to_owned(),
        }
    }

    fn set(&self, settings: GenerateSettings) -> GenerateSettings {
        match *self {
            Value::Seed(seed) => GenerateSettings { seed, ..settings },
            Value::Guidance(guidance) => GenerateSettings { guidance: Some(guidance), ..settings },
            Value::Steps(steps) => GenerateSettings { steps: Some(steps), ..settings },
            Value::Sampler(sampler) => GenerateSettings { sampler: Some(sampler), ..settings },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> GenerateSettings {
        GenerateSettings { seed: 7, picture: 2, steps: Some(20), ..GenerateSettings::default() }
    }

    #[test]
    fn pictures_of_one_seed_are_numbered_from_the_first() {
        let takes = Series::Count(3).takes(&settings());
        assert_eq!(takes.iter().map(|take| (take.seed, take.picture)).collect::<Vec<_>>(), [(7, 2), (7, 3), (7, 4)]);
    }

    #[test]
    fn a_grid_goes_row_by_row() {
        let axis = |kind, text| Axis::parse(kind, text).unwrap();
        let grid = Grid::new(axis(AxisKind::Seed, "1, 2 3"), Some(axis(AxisKind::Guidance, "2.5; 4"))).unwrap();
        let takes = Series::Grid(grid.clone()).takes(&settings());
        let made: Vec<_> = takes.iter().map(|take| (take.seed, take.guidance.unwrap())).collect();
        assert_eq!(made, [(1, 2.5), (2, 2.5), (3, 2.5), (1, 4.0), (2, 4.0), (3, 4.0)]);
        assert!(takes.iter().all(|take| take.steps == Some(20) && take.picture == 2));
        assert_eq!((grid.len(), grid.columns.values()), (6, vec!["1".into(), "2".into(), "3".into()]));
    }

    #[test]
    fn what_is_suggested_can_be_read() {
        for kind in AxisKind::ALL {
            let axis = Axis::parse(kind, &kind.suggestion(&settings())).unwrap();
            assert!(axis.values.len() >= 3, "{kind:?}");
            assert_eq!(AxisKind::from_name(kind.name()), Some(kind));
        }
    }

    #[test]
    fn what_makes_no_grid_is_told() {
        let error = |kind, text: &str| Axis::parse(kind, text).unwrap_err();
        assert!(error(AxisKind::Steps, "10, many").contains("many"));
        assert!(error(AxisKind::Steps, "0").contains('0'));
        assert!(error(AxisKind::Guidance, "NaN").contains("NaN"));
        assert!(error(AxisKind::Sampler, "best").contains("best"));
        assert!(error(AxisKind::Seed, " , ").contains(texts::SEED));
        let seeds = |text| Axis::parse(AxisKind::Seed, text).unwrap();
        assert_eq!(Grid::new(seeds("1"), Some(seeds("2"))).unwrap_err(), texts::GRID_OF_ONE);
        let many = (0..17).map(|seed| seed.to_string()).collect::<Vec<_>>().join(" ");
        assert!(Grid::new(seeds(&many), None).unwrap_err().contains("17"));
        assert_eq!(Grid::new(seeds("1 1 1"), None).unwrap().len(), 1, "a value counts once");
    }
}
