//! The editable region as a view of a [`Draft`]: reading it, writing it, and where the caret stands.
//!
//! A picture is an element that cannot be edited, a chip. Browsers only put a caret where there is text, so an invisible
//! character stands wherever a chip has no words beside it; it is no unit of the draft.

use js_sys::Array;
use kosmosg::prompt::ImageRef;
use wasm_bindgen::JsCast;
use web_sys::{Element, HtmlElement, HtmlImageElement, Node, Text};

use super::dom;
use super::pictures::Pictures;
use crate::draft::{Draft, Piece};
use crate::texts;

/// Where a caret can stand beside a chip.
const FOOTHOLD: &str = "\u{200B}";
const CHIP: &str = "chip";
const NUMBER: &str = "data-picture";

/// What stands in the region.
pub fn read(region: &HtmlElement, pictures: &Pictures) -> Draft {
    let mut draft = Draft::default();
    for leaf in leaves(region) {
        draft.push(leaf.draft(pictures));
    }
    draft
}

/// Puts a draft into the region, unless it already stands there like this: `false` then, and the caret is where it was.
pub fn write(region: &HtmlElement, draft: &Draft, pictures: &Pictures) -> bool {
    dom::set_flag(region, "data-empty", draft.is_empty());
    let wanted = wanted(draft);
    let children = region.child_nodes();
    let is_there = children.length() as usize == wanted.len()
        && wanted.iter().enumerate().all(|(i, want)| children.get(i as u32).is_some_and(|node| want.is(&node)));
    if !is_there {
        let nodes: Array = wanted.iter().map(|want| want.node(pictures)).collect();
        region.replace_children_with_node(&nodes);
    }
    !is_there
}

/// The unit at which a place in the document lies; places outside of the region are its end.
pub fn unit_at(region: &HtmlElement, node: &Node, offset: u32, pictures: &Pictures) -> usize {
    let mut units = 0;
    for leaf in leaves(region) {
        let leaf_node = leaf.node();
        if let (true, Leaf::Words(text)) = (leaf_node.is_same_node(Some(node)), &leaf) {
            return units + Draft::words(&text.substring_data(0, offset).unwrap_or_default()).len();
        }
        if leaf_node.contains(Some(node)) {
            return units + usize::from(offset > 0);
        }
        if !comes_before(leaf_node, node, offset) {
            break;
        }
        units += leaf.draft(pictures).len();
    }
    units
}

/// The place in the document of a unit: a text and an offset in it.
pub fn place_of(region: &HtmlElement, unit: usize, pictures: &Pictures) -> (Node, u32) {
    let mut units = 0;
    let mut last = None;
    for leaf in leaves(region) {
        let length = leaf.draft(pictures).len();
        if let Leaf::Words(text) = &leaf {
            let content = text.data();
            if unit <= units + length {
                return (text.clone().into(), utf16_offset(&content, unit - units));
            }
            last = Some((text.clone().into(), content.encode_utf16().count() as u32));
        }
        units += length;
    }
    last.unwrap_or_else(|| (region.clone().into(), region.child_nodes().length()))
}

/// The chip around or at a node.
pub fn chip_at(node: &Node) -> Option<Element> {
    let element = node.dyn_ref::<Element>().cloned().or_else(|| node.parent_element())?;
    element.closest(".chip").ok()?
}

/// The chip at a unit, if there is a picture.
pub fn chip_of(region: &HtmlElement, unit: usize, pictures: &Pictures) -> Option<Element> {
    let mut at = 0;
    for leaf in leaves(region) {
        if let Leaf::Chip(chip) = &leaf
            && at == unit
        {
            return Some(chip.clone());
        }
        at += leaf.draft(pictures).len();
    }
    None
}

/// Where a caret at that unit stands between left and right, if the browser tells.
pub fn caret_x(region: &HtmlElement, unit: usize, pictures: &Pictures) -> Option<f64> {
    let (node, offset) = place_of(region, unit, pictures);
    let range = dom::document().create_range().ok()?;
    range.set_start(&node, offset).ok()?;
    range.collapse_with_to_start(true);
    let place = range.get_bounding_client_rect();
    (place.height() > 0.0).then(|| place.left())
}

/// Marks the chips of some units as selected.
pub fn mark_selected(region: &HtmlElement, units: std::ops::Range<usize>, pictures: &Pictures) {
    let mut unit = 0;
    for leaf in leaves(region) {
        if let Leaf::Chip(chip) = &leaf {
            dom::set_flag(chip, "data-selected", units.contains(&unit));
        }
        unit += leaf.draft(pictures).len();
    }
}

/// A node of the region that means something.
enum Leaf {
    Words(Text),
    Chip(Element),
}

impl Leaf {
    fn node(&self) -> &Node {
        match self {
            Leaf::Words(text) => text,
            Leaf::Chip(chip) => chip,
        }
    }

    fn draft(&self, pictures: &Pictures) -> Draft {
        match self {
            Leaf::Words(text) => Draft::words(&text.data()),
            Leaf::Chip(chip) => number_of(chip).and_then(|n| pictures.get(n)).map_or(Draft::default(), Draft::picture),
        }
    }
}

/// The leaves of the region in order. Browsers may nest them after edits of their own.
fn leaves(region: &Node) -> Vec<Leaf> {
    let mut found = Vec::new();
    let children = region.child_nodes();
    for node in (0..children.length()).filter_map(|i| children.get(i)) {
        match node.dyn_into::<Text>() {
            Ok(text) => found.push(Leaf::Words(text)),
            Err(node) => match node.dyn_into::<Element>() {
                Ok(chip) if number_of(&chip).is_some() => found.push(Leaf::Chip(chip)),
                Ok(element) => found.extend(leaves(&element)),
                Err(_) => {}
            },
        }
    }
    found
}

/// A child of the region as [`write`] makes it.
enum Want {
    Words(String),
    Foothold,
    Chip(ImageRef),
}

fn wanted(draft: &Draft) -> Vec<Want> {
    let mut wanted = Vec::new();
    for piece in draft.pieces() {
        match piece {
            Piece::Words(words) => wanted.push(Want::Words(words)),
            Piece::Picture(image) => {
                if !matches!(wanted.last(), Some(Want::Words(_))) {
                    wanted.push(Want::Foothold);
                }
                wanted.push(Want::Chip(image.clone()));
            }
        }
    }
    if let Some(Want::Chip(_)) = wanted.last() {
        wanted.push(Want::Foothold);
    }
    wanted
}

impl Want {
    fn is(&self, node: &Node) -> bool {
        match self {
            Want::Words(words) => node.dyn_ref::<Text>().is_some_and(|text| text.data() == *words),
            Want::Foothold => node.dyn_ref::<Text>().is_some_and(|text| text.data() == FOOTHOLD),
            Want::Chip(image) => node.dyn_ref::<Element>().and_then(number_of) == Some(image.picture),
        }
    }

    fn node(&self, pictures: &Pictures) -> Node {
        match self {
            Want::Words(words) => dom::document().create_text_node(words).into(),
            Want::Foothold => dom::document().create_text_node(FOOTHOLD).into(),
            Want::Chip(image) => chip(image, pictures).into(),
        }
    }
}

fn chip(image: &ImageRef, pictures: &Pictures) -> Element {
    let chip: Element = dom::create("span", CHIP);
    dom::set_attribute(&chip, NUMBER, &image.picture.to_string());
    dom::set_attribute(&chip, "contenteditable", "false");
    dom::set_attribute(&chip, "draggable", "true");
    dom::set_attribute(&chip, "role", "img");
    dom::set_attribute(&chip, "aria-label", &texts::picture_label(&image.name));
    dom::set_attribute(&chip, "title", &image.name);
    let shown: HtmlImageElement = dom::create("img", "");
    shown.set_alt("");
    shown.set_draggable(false);
    shown.set_src(&pictures.address(image.picture).unwrap_or_default());
    chip.append_child(&shown).expect("a new element takes children");
    chip
}

fn number_of(chip: &Element) -> Option<usize> {
    chip.get_attribute(NUMBER)?.parse().ok()
}

/// Whether `leaf` lies before the place `offset` of another node.
fn comes_before(leaf: &Node, node: &Node, offset: u32) -> bool {
    let boundary = if node.contains(Some(leaf)) { node.child_nodes().get(offset) } else { Some(node.clone()) };
    match boundary {
        None => true,
        Some(boundary) => boundary.compare_document_position(leaf) & Node::DOCUMENT_POSITION_PRECEDING != 0,
    }
}

/// The offset, as the document counts, of a unit in a text.
fn utf16_offset(text: &str, unit: usize) -> u32 {
    let mut offset = 0;
    let mut units = 0;
    for c in text.chars() {
        let counts = !Draft::words(c.encode_utf8(&mut [0; 4])).is_empty();
        if counts && units == unit {
            break;
        }
        units += usize::from(counts);
        offset += c.len_utf16() as u32;
    }
    offset
}
