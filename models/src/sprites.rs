//! The world that the built-in model is trained on: creatures of independent attributes in twelve places.
//!
//! Everything is drawn and worded by this program, so the truth of every picture is known: it can teach a model and
//! judge it. All of it is deterministic by seed.

pub mod background;
pub mod caption;
pub mod creature;
pub mod edit;
pub mod grammar;
pub mod scene;
pub mod words;

mod body;
mod face;
mod figure;
mod indoors;
mod outdoors;
mod raster;
mod shape;
mod sheet;
mod topping;

pub use background::{Background, Setting};
pub use caption::{Article, Caption, Piece, Shown, Span, Wording};
pub use creature::{Body, Colour, Creature, Eyes, Pattern, Split, Topping};
pub use edit::{Change, Edit};
pub use figure::Stand;
pub use grammar::{Detail, caption};
pub use scene::{Actor, Backdrop, Scene, Style, cutout, draw, portrait};
pub use sheet::{contact_sheet, sheet};
pub use words::{vocabulary, words};
