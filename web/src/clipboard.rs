//! A copied stretch of the sentence, with its pictures inside, so that it can be pasted into another tab, on another day,
//! and into other programs; and what is meant by what other programs copy.

use kosmosg::prompt::{ImageRef, PromptDocument, PromptItem};
use kosmosg::protocol::PictureFile;
use serde::{Deserialize, Serialize};

use crate::draft::Draft;
use crate::picture_file::Format;

/// The type of [`Copied::to_json`] on the clipboard.
pub const TYPE: &str = "application/x-kosmosg-prompt";
/// Marks the HTML of [`Copied::to_html`]: the white space in it is as it was typed.
pub const MARK: &str = "data-kosmosg-prompt";

/// A copied stretch of the sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    document: PromptDocument,
    /// Their files, numbered as in the document.
    pictures: Vec<PictureFile>,
}

/// A stretch of what is pasted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Words.
    Words(String),
    /// A picture.
    Picture {
        /// What it is called; may be empty.
        name: String,
        /// Its file, which may be anything.
        file: Vec<u8>,
    },
}

impl Copied {
    /// A stretch of the sentence; `files` are those of its pictures in order.
    pub fn new(draft: &Draft, files: Vec<PictureFile>) -> Self {
        Self { document: draft.numbered().0, pictures: files }
    }

    /// For this page's own editor.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("words and bytes can be written as JSON")
    }

    /// Reads it back, which may be anything. `None` if it is something else, or a picture is missing.
    pub fn from_json(json: &str) -> Option<Self> {
        let copied: Self = kosmosg::json::read(json.as_bytes()).ok()?;
        copied.document.check_pictures(copied.pictures.len()).ok()?;
        Some(copied)
    }

    /// For everybody's editors: words, and pictures with their files inside.
    pub fn to_html(&self) -> String {
        let mut html = format!("<span {MARK}>");
        for item in self.document.items() {
            match item {
                PromptItem::Text(words) => html += &escaped(words),
                PromptItem::Image(ImageRef { picture, name }) => {
                    let Some(file) = self.pictures.get(*picture) else { continue };
                    html += &format!("<img src=\"{}\" alt=\"{}\">", data_address(file), escaped(name));
                }
            }
        }
        html + "</span>"
    }

    /// For editors of words.
    pub fn to_text(&self) -> String {
        self.document.to_text()
    }

    /// Its stretches in order.
    pub fn into_parts(self) -> Vec<Part> {
        let part = |item: &PromptItem| match item {
            PromptItem::Text(words) => Part::Words(words.clone()),
            PromptItem::Image(ImageRef { picture, name }) => {
                Part::Picture { name: name.clone(), file: self.pictures[*picture].0.clone() }
            }
        };
        self.document.items().iter().map(part).collect()
    }
}

/// An address that holds a file itself.
fn data_address(file: &PictureFile) -> String {
    let mime = Format::of(&file.0).unwrap_or(Format::Png).mime();
    let json = serde_json::to_string(file).expect("bytes can be written as JSON");
    format!("data:{mime};base64,{}", json.trim_matches('"'))
}

/// The file that an address holds itself. `None` if it does not, or holds no picture.
pub fn file_in(address: &str) -> Option<Vec<u8>> {
    let (kind, data) = address.trim().strip_prefix("data:")?.split_once(',')?;
    if !kind.starts_with("image/") || !kind.ends_with(";base64") {
        return None;
    }
    // Base64 has nothing that JSON would understand otherwise, and what has is refused there.
    let file: PictureFile = kosmosg::json::read(format!("\"{data}\"").as_bytes()).ok()?;
    Some(file.0)
}

/// Words as they stand in HTML.
fn escaped(words: &str) -> String {
    let mut html = String::with_capacity(words.len());
    for c in words.chars() {
        match c {
            '&' => html += "&amp;",
            '<' => html += "&lt;",
            '>' => html += "&gt;",
            '"' => html += "&quot;",
            c => html.push(c),
        }
    }
    html
}

/// Words of a page, in which white space of any length is one space.
pub fn collapsed(words: &str) -> String {
    let mut collapsed = String::with_capacity(words.len());
    for c in words.chars() {
        // The space that does not break is meant as it is.
        let is_space = c.is_whitespace() && c != '\u{A0}';
        if !is_space {
            collapsed.push(c);
        } else if !collapsed.ends_with(' ') {
            collapsed.push(' ');
        }
    }
    collapsed
}

/// Whether files are meant where there are words too.
///
/// Office programs give an image of the words beside them: then the words are meant. File managers give the files' names or
/// addresses, and browsers the address of a picture: then the files are.
pub fn means_files(words: &str, files: &[String]) -> bool {
    let names = |line: &str| {
        let last = line.rsplit(['/', '\\']).next().unwrap_or_default();
        is_address(line) || files.iter().any(|file| file == last)
    };
    !files.is_empty() && lines(words).all(names)
}

/// Whether words say no more than where a picture is, if anything.
pub fn means_picture(words: &str) -> bool {
    lines(words).all(is_address)
}

fn lines(words: &str) -> impl Iterator<Item = &str> {
    words.lines().map(str::trim).filter(|line| !line.is_empty())
}

fn is_address(line: &str) -> bool {
    let scheme = line.split_once(':').map_or("", |(scheme, _)| scheme);
    matches!(scheme, "file" | "http" | "https" | "blob" | "data") && !line.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use kosmosg::noise::Rng;

    use super::*;
    use crate::draft::Piece;

    /// A draft, and the files of its pictures.
    fn random(rng: &mut Rng) -> (Draft, Vec<PictureFile>) {
        let words = ["a ", "ß", "  ", "🙂", "<i>", "&amp;", "\"'>", r"\<i>", "<img src=x>", "שלום", "\u{A0}"];
        let mut draft = Draft::default();
        let mut files = Vec::new();
        for _ in 0..rng.below(10) {
            if rng.below(3) == 0 {
                // Numbers within the visit say nothing to another.
                let name: &&str = rng.pick(&words);
                let name = name.trim().to_owned();
                draft.push(Draft::picture(ImageRef { picture: rng.below(1000), name }));
                files.push(PictureFile((0..rng.below(40)).map(|_| rng.below(256) as u8).collect()));
            } else {
                let words: &&str = rng.pick(&words);
                draft.push(Draft::words(words));
            }
        }
        (draft, files)
    }

    /// The stretches that a copy should have.
    fn parts(draft: &Draft, files: &[PictureFile]) -> Vec<Part> {
        let mut files = files.iter();
        let part = |piece: Piece<'_>| match piece {
            Piece::Words(words) => Part::Words(words),
            Piece::Picture(image) => Part::Picture { name: image.name.clone(), file: files.next().unwrap().0.clone() },
        };
        draft.pieces().into_iter().map(part).collect()
    }

    /// Reads the HTML as a browser does, as far as it is of our own making.
    fn read_html(html: &str) -> Vec<Part> {
        let plain = |html: &str| {
            let words = html.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
            words.replace("&amp;", "&")
        };
        let inner = html.strip_prefix(&format!("<span {MARK}>")).unwrap();
        let mut rest = inner.strip_suffix("</span>").unwrap();
        let mut parts = Vec::new();
        while !rest.is_empty() {
            if let Some(tag) = rest.strip_prefix("<img src=\"") {
                let (address, tag) = tag.split_once('"').unwrap();
                let (name, after) = tag.strip_prefix(" alt=\"").unwrap().split_once("\">").unwrap();
                assert!(!name.contains('"'), "{html}");
                parts.push(Part::Picture { name: plain(name), file: file_in(address).unwrap() });
                rest = after;
            } else {
                let (words, after) = rest.split_at(rest.find('<').unwrap_or(rest.len()));
                assert!(!words.is_empty(), "markup of another kind: {html}");
                parts.push(Part::Words(plain(words)));
                rest = after;
            }
        }
        parts
    }

    #[test]
    fn every_form_brings_words_and_pictures_back() {
        let mut rng = Rng::new(5, 0);
        for _ in 0..3000 {
            let (draft, files) = random(&mut rng);
            let copied = Copied::new(&draft, files.clone());
            let expected = parts(&draft, &files);
            let read = Copied::from_json(&copied.to_json()).unwrap();
            assert_eq!(read, copied);
            assert_eq!(read.into_parts(), expected);
            assert_eq!(read_html(&copied.to_html()), expected);
            let text = copied.to_text();
            let document = PromptDocument::from_text(&text, files.len()).unwrap();
            assert_eq!(Draft::from_document(&document).len(), draft.len(), "{text}");
        }
    }

    #[test]
    fn draft_and_document_and_copy_say_the_same() {
        let mut rng = Rng::new(6, 0);
        for _ in 0..2000 {
            let (draft, files) = random(&mut rng);
            assert_eq!(Draft::from_document(&draft.to_document()), draft);
            let (document, numbers) = draft.numbered();
            assert_eq!(numbers.len(), files.len());
            assert_eq!(Draft::from_document(&document).to_document().to_text(), draft.to_document().to_text());
            let json = Copied::new(&draft, files.clone()).to_json();
            let again = Copied::from_json(&json).unwrap();
            assert_eq!(again, Copied::new(&Draft::from_document(&document), files));
        }
    }

    #[test]
    fn what_is_no_copy_of_a_sentence_is_none() {
        for json in ["", "{}", "[]", "null", r#"{"document":[],"pictures":[7]}"#] {
            assert_eq!(Copied::from_json(json), None, "{json}");
        }
        let missing = r#"{"document":[{"image":{"picture":1}}],"pictures":["AQID"]}"#;
        assert_eq!(Copied::from_json(missing), None);
        assert!(Copied::from_json(&missing.replace("\"picture\":1", "\"picture\":0")).is_some());
    }

    #[test]
    fn only_addresses_that_hold_pictures_bring_some() {
        assert_eq!(file_in(" data:image/gif;base64,AQID"), Some(vec![1, 2, 3]));
        for address in [
            "data:text/html;base64,AQID",
            "data:image/svg+xml,%3Csvg/%3E",
            "data:image/png;base64,A\",\"B",
            "data:image/png;base64",
            "https://example.org/a.png",
            "file:///C:/word.png",
            "",
        ] {
            assert_eq!(file_in(address), None, "{address}");
        }
    }

    #[test]
    fn white_space_of_pages_is_one_space() {
        assert_eq!(collapsed("\n  a \t b\u{A0} c\n"), " a b\u{A0} c ");
        assert_eq!(collapsed(""), "");
    }

    #[test]
    fn words_with_their_own_image_are_words() {
        let files = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let meant = |words: &str, names: &[&str]| means_files(words, &files(names));
        // Word, Excel and PowerPoint bring an image of the words.
        assert!(!meant("a cat on the beach", &["image.png"]));
        assert!(!meant("1\t2\n3\t4", &["image.png"]));
        assert!(!meant("see https://example.org for more", &["image.png"]));
        // Browsers, file managers of Linux, of macOS and of Windows.
        assert!(meant("", &["image.png"]) && meant(" \r\n", &["image.png"]));
        assert!(meant("https://example.org/cat.png?size=2", &["image.png"]));
        assert!(meant("file:///home/me/a%20cat.jpg\nfile:///home/me/dog.jpg", &["a cat.jpg", "dog.jpg"]));
        assert!(meant("/home/me/a cat.jpg", &["a cat.jpg"]));
        assert!(meant("a cat.jpg\ndog.jpg", &["a cat.jpg", "dog.jpg"]));
        assert!(meant(r"C:\me\cat.jpg", &["cat.jpg"]));
        assert!(!meant("a cat", &[]) && !meant("", &[]));
        assert!(means_picture("blob:http://localhost/1\n") && means_picture("") && !means_picture("a cat"));
    }
}
