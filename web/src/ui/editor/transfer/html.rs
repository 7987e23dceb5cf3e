//! HTML that other programs bring, as words and pictures. It is read in a document of its own, which shows, loads and runs
//! nothing.

use wasm_bindgen::JsCast;
use web_sys::{DomParser, Element, HtmlImageElement, Node, SupportedType, Text};

use crate::clipboard::{self, Part};

/// What is not for people.
const UNSEEN: [&str; 6] = ["SCRIPT", "STYLE", "TITLE", "TEMPLATE", "NOSCRIPT", "HEAD"];
/// What has words of its own line.
const LINES: [&str; 10] = ["P", "DIV", "BR", "LI", "TR", "TD", "H1", "H2", "H3", "H4"];

/// Words and those pictures whose files are inside; and the address and name of the first picture whose file is elsewhere.
pub fn read(html: &str) -> (Vec<Part>, Option<(String, String)>) {
    let parsed = DomParser::new().and_then(|parser| parser.parse_from_string(html, SupportedType::TextHtml));
    let Some(body) = parsed.ok().and_then(|document| document.body()) else { return Default::default() };
    // What else a program put around a copied sentence is no part of it.
    let own = body.query_selector(&format!("[{}]", clipboard::MARK)).ok().flatten();
    let mut found = Found { is_own: own.is_some(), parts: Vec::new(), elsewhere: None };
    found.walk(own.as_ref().unwrap_or(&body));
    found.finish()
}

struct Found {
    is_own: bool,
    parts: Vec<Part>,
    elsewhere: Option<(String, String)>,
}

impl Found {
    fn walk(&mut self, node: &Node) {
        let children = node.child_nodes();
        for child in (0..children.length()).filter_map(|i| children.get(i)) {
            if let Some(text) = child.dyn_ref::<Text>() {
                self.say(&text.data());
            } else if let Some(image) = child.dyn_ref::<HtmlImageElement>() {
                self.show(image);
            } else if let Some(element) = child.dyn_ref::<Element>() {
                let name = element.tag_name();
                if UNSEEN.contains(&name.as_str()) {
                    continue;
                }
                self.walk(element);
                if LINES.contains(&name.as_str()) {
                    self.say(" ");
                }
            }
        }
    }

    fn say(&mut self, words: &str) {
        match self.parts.last_mut() {
            Some(Part::Words(before)) => before.push_str(words),
            _ => self.parts.push(Part::Words(words.into())),
        }
    }

    fn show(&mut self, image: &HtmlImageElement) {
        let name = image.alt();
        match clipboard::file_in(&image.src()) {
            Some(file) => self.parts.push(Part::Picture { name, file }),
            None => self.elsewhere = self.elsewhere.take().or_else(|| Some((image.src(), name))),
        }
    }

    fn finish(mut self) -> (Vec<Part>, Option<(String, String)>) {
        if !self.is_own {
            let count = self.parts.len();
            for (number, part) in self.parts.iter_mut().enumerate() {
                let Part::Words(words) = part else { continue };
                let mut plain = clipboard::collapsed(words);
                if number == 0 {
                    plain = plain.trim_start_matches(' ').into();
                }
                if number + 1 == count {
                    plain = plain.trim_end_matches(' ').into();
                }
                *words = plain;
            }
        }
        (self.parts, self.elsewhere)
    }
}
