//! What makes a creature: six independent attributes, 103,600 combinations, a tenth of them held out of training.

use kosmosg::noise::Rng;

/// A plain enumeration with its values in a fixed order and a word for each.
macro_rules! attribute {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$value_doc])* $value),+ }

        impl $name {
            /// Every value, in the order that a classifier numbers them.
            pub const ALL: &[$name] = &[$($name::$value),+];

            /// The position in [`Self::ALL`].
            pub const fn index(self) -> usize {
                self as usize
            }

            /// One plain word or two for it.
            pub const fn name(self) -> &'static str {
                match self { $($name::$value => $word),+ }
            }
        }
    };
}
pub(super) use attribute;

attribute!(
    /// The silhouette.
    Body {
        /// A ball on two feet.
        Ball = "ball",
        /// A dome with a wavy hem that floats.
        Ghost = "ghost",
        /// A cube seen from the front.
        Box = "box",
        /// Five rounded points.
        Star = "star",
        /// A wide cap on a pale stem.
        Mushroom = "mushroom",
        /// A round head with pointed ears.
        Cat = "cat",
        /// Two lobes and a tip.
        Heart = "heart",
        /// A heap of puffs.
        Cloud = "cloud",
        /// A trunk with two raised arms.
        Cactus = "cactus",
        /// A round body with a tail fin.
        Fish = "fish",
    }
);

attribute!(
    /// A colour of a coat, main or second.
    Colour {
        /// Signal red.
        Red = "red",
        /// Bright orange.
        Orange = "orange",
        /// Sunny yellow.
        Yellow = "yellow",
        /// Grass green.
        Green = "green",
        /// Blue-green, light.
        Teal = "teal",
        /// Strong blue.
        Blue = "blue",
        /// Violet.
        Purple = "purple",
        /// Candy pink.
        Pink = "pink",
        /// Chocolate.
        Brown = "brown",
        /// Nearly white.
        White = "white",
    }
);

attribute!(
    /// Where the second colour goes.
    Pattern {
        /// Nowhere: one colour only.
        Plain = "plain",
        /// Level bands.
        Stripes = "stripes",
        /// Big dots.
        Spots = "spots",
        /// A chessboard.
        Checks = "checks",
        /// The lower third, like a pair of pants.
        Pants = "pants",
    }
);

attribute!(
    /// What sits on the head.
    Topping {
        /// Nothing.
        Nothing = "nothing",
        /// Golden, with a red stone.
        Crown = "crown",
        /// A dark top hat with a red band.
        Hat = "hat",
        /// A magenta bow.
        Bow = "bow",
        /// Two ivory horns.
        Horns = "horns",
        /// Two stalks with bright ends.
        Antennas = "antennas",
        /// A daisy.
        Flower = "flower",
    }
);

attribute!(
    /// How it looks at you.
    Eyes {
        /// Two big round ones.
        Round = "round eyes",
        /// A single huge one.
        One = "one eye",
        /// Half closed, with heavy lids.
        Sleepy = "sleepy eyes",
        /// Behind sunglasses.
        Sunglasses = "sunglasses",
    }
);

/// Which creatures may appear: those to learn from, or those kept for judging.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// Nine combinations in ten.
    Train,
    /// The others, never drawn for training.
    HeldOut,
}

/// One creature: a combination of attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Creature {
    /// Its silhouette.
    pub body: Body,
    /// Its main colour.
    pub colour: Colour,
    /// How its coat is patterned.
    pub pattern: Pattern,
    /// The pattern's colour: never the main one; `None` exactly when the coat is plain.
    pub second: Option<Colour>,
    /// What it wears on its head.
    pub topping: Topping,
    /// Its eyes.
    pub eyes: Eyes,
}

/// Patterns with a second colour for one main colour, and the plain coat.
const COATS: usize = 1 + (Pattern::ALL.len() - 1) * (Colour::ALL.len() - 1);

impl Creature {
    /// How many different creatures there are.
    pub const COUNT: usize = Body::ALL.len() * Colour::ALL.len() * COATS * Topping::ALL.len() * Eyes::ALL.len();

    /// Draws each attribute on its own, evenly, until the combination belongs to `split`.
    pub fn sample(rng: &mut Rng, split: Split) -> Self {
        loop {
            let colour = *rng.pick(Colour::ALL);
            let pattern = *rng.pick(Pattern::ALL);
            let others: Vec<Colour> = Colour::ALL.iter().copied().filter(|&c| c != colour).collect();
            let second = (pattern != Pattern::Plain).then(|| *rng.pick(&others));
            let (body, topping, eyes) = (*rng.pick(Body::ALL), *rng.pick(Topping::ALL), *rng.pick(Eyes::ALL));
            let creature = Creature { body, colour, pattern, second, topping, eyes };
            if creature.split() == split {
                return creature;
            }
        }
    }

    /// The combination's number, below [`Self::COUNT`].
    ///
    /// # Panics
    /// If a patterned coat has no second colour.
    pub fn index(&self) -> usize {
        let coat = match self.pattern {
            Pattern::Plain => 0,
            pattern => {
                let second = self.second.expect("a patterned coat has a second colour").index();
                let rank = second - usize::from(second > self.colour.index());
                1 + (pattern.index() - 1) * (Colour::ALL.len() - 1) + rank
            }
        };
        let shape = self.body.index() * Colour::ALL.len() + self.colour.index();
        ((shape * COATS + coat) * Topping::ALL.len() + self.topping.index()) * Eyes::ALL.len() + self.eyes.index()
    }

    /// The creature of a number, or `None` from [`Self::COUNT`] on.
    pub fn from_index(index: usize) -> Option<Self> {
        let (rest, eyes) = (index / Eyes::ALL.len(), Eyes::ALL[index % Eyes::ALL.len()]);
        let (rest, topping) = (rest / Topping::ALL.len(), Topping::ALL[rest % Topping::ALL.len()]);
        let (rest, coat) = (rest / COATS, rest % COATS);
        let colour = Colour::ALL[rest % Colour::ALL.len()];
        let body = *Body::ALL.get(rest / Colour::ALL.len())?;
        let (pattern, second) = match coat.checked_sub(1) {
            None => (Pattern::Plain, None),
            Some(coat) => {
                let rank = coat % (Colour::ALL.len() - 1);
                let second = rank + usize::from(rank >= colour.index());
                (Pattern::ALL[1 + coat / (Colour::ALL.len() - 1)], Some(Colour::ALL[second]))
            }
        };
        Some(Creature { body, colour, pattern, second, topping, eyes })
    }

    /// Whether this combination is one of the tenth that training never sees.
    pub fn is_held_out(&self) -> bool {
        // SplitMix64's finalizer: neighbours in number share nothing in the hash.
        let mut z = (self.index() as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).is_multiple_of(10)
    }

    /// The split that this combination belongs to.
    pub fn split(&self) -> Split {
        if self.is_held_out() { Split::HeldOut } else { Split::Train }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn there_are_enough_of_everything() {
        assert_eq!(Creature::COUNT, 103_600);
        assert_eq!((Body::ALL.len(), Colour::ALL.len(), Pattern::ALL.len()), (10, 10, 5));
        assert_eq!((Topping::ALL.len(), Eyes::ALL.len()), (7, 4));
    }

    #[test]
    fn every_number_is_one_creature() {
        let all: HashSet<Creature> = (0..Creature::COUNT).filter_map(Creature::from_index).collect();
        assert_eq!(all.len(), Creature::COUNT);
        assert!((0..Creature::COUNT).all(|i| Creature::from_index(i).is_some_and(|c| c.index() == i)));
        assert!(all.iter().all(|c| c.second != Some(c.colour)));
        assert_eq!(Creature::from_index(Creature::COUNT), None);
    }

    #[test]
    fn a_tenth_is_held_out_in_every_attribute() {
        let held: Vec<Creature> =
            (0..Creature::COUNT).filter_map(Creature::from_index).filter(Creature::is_held_out).collect();
        let share = held.len() as f64 / Creature::COUNT as f64;
        assert!((share - 0.1).abs() < 0.005, "{share}");
        for &body in Body::ALL {
            let share = held.iter().filter(|c| c.body == body).count() as f64 / (Creature::COUNT / 10) as f64;
            assert!((share - 0.1).abs() < 0.02, "{body:?}: {share}");
        }
    }

    #[test]
    fn splits_do_not_meet() {
        let mut rng = Rng::new(5, 0);
        for _ in 0..2000 {
            assert!(!Creature::sample(&mut rng, Split::Train).is_held_out());
            assert!(Creature::sample(&mut rng, Split::HeldOut).is_held_out());
        }
    }
}
