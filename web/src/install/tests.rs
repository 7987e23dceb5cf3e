//! Lines that break, bytes that are wrong, storage that is full.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use pollster::block_on;

use super::*;

/// Storage of so much room.
#[derive(Default)]
struct Shelf {
    bytes: RefCell<Vec<u8>>,
    room: Option<usize>,
}

impl Slot for Shelf {
    fn length(&self) -> Result<u64, Trouble> {
        Ok(self.bytes.borrow().len() as u64)
    }

    fn read(&self, at: u64, buffer: &mut [u8]) -> Result<usize, Trouble> {
        let bytes = self.bytes.borrow();
        let rest = &bytes[at as usize..];
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn write(&self, at: u64, new: &[u8]) -> Result<(), Trouble> {
        let mut bytes = self.bytes.borrow_mut();
        assert_eq!(bytes.len() as u64, at, "what arrives is appended");
        let room = self.room.unwrap_or(usize::MAX) - bytes.len();
        bytes.extend(&new[..new.len().min(room)]);
        if new.len() > room { Err(Trouble::Full) } else { Ok(()) }
    }

    fn truncate(&self, length: u64) -> Result<(), Trouble> {
        self.bytes.borrow_mut().truncate(length as usize);
        Ok(())
    }

    fn flush(&self) -> Result<(), Trouble> {
        Ok(())
    }
}

/// What happens to one request.
#[derive(Clone, Copy)]
enum Line {
    /// It breaks after so many bytes.
    Breaks(usize),
    /// It holds.
    Holds,
    /// It holds, and a bit is wrong.
    Garbles,
    /// It gives the whole file whatever was asked for.
    Whole,
    /// Nothing comes any more after so many bytes.
    Stalls(usize),
}

struct Server {
    contents: Vec<u8>,
    lines: RefCell<VecDeque<Line>>,
    opened: RefCell<Vec<u64>>,
    paused: RefCell<Vec<i32>>,
}

impl Server {
    fn new(contents: &[u8], lines: &[Line]) -> Self {
        let lines = RefCell::new(lines.iter().copied().collect());
        Self { contents: contents.to_vec(), lines, opened: RefCell::default(), paused: RefCell::default() }
    }
}

struct Pieces {
    left: VecDeque<Vec<u8>>,
    breaks: bool,
    stalls: bool,
}

impl Stream for Pieces {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Trouble> {
        match self.left.pop_front() {
            None if self.breaks => Err(Trouble::Line("no line".into())),
            None if self.stalls => std::future::pending().await,
            piece => Ok(piece),
        }
    }
}

impl Origin for Server {
    type Stream = Pieces;

    async fn open(&self, _name: &str, at: u64) -> Result<(u64, Pieces), Trouble> {
        self.opened.borrow_mut().push(at);
        let line = self.lines.borrow_mut().pop_front().unwrap_or(Line::Holds);
        let at = if matches!(line, Line::Whole) { 0 } else { at };
        let mut rest = self.contents[at as usize..].to_vec();
        if matches!(line, Line::Garbles) {
            *rest.last_mut().unwrap() ^= 1;
        }
        if let Line::Breaks(after) | Line::Stalls(after) = line {
            rest.truncate(after);
        }
        let left = rest.chunks(7).map(<[u8]>::to_vec).collect();
        Ok((at, Pieces { left, breaks: matches!(line, Line::Breaks(_)), stalls: matches!(line, Line::Stalls(_)) }))
    }

    async fn pause(&self, milliseconds: i32) {
        self.paused.borrow_mut().push(milliseconds);
    }
}

/// Hears how far it is, and stops there.
#[derive(Default)]
struct Ear {
    there: Cell<u64>,
    /// The last byte that was not there before.
    came: Cell<u64>,
    stops_at: Option<u64>,
    /// Whether it stops as soon as something is waited for.
    is_impatient: bool,
}

impl Watch for Ear {
    fn there(&self, _file: &PartFile, bytes: u64, flow: Flow) {
        self.there.set(bytes);
        if flow == Flow::Comes {
            self.came.set(bytes);
        }
    }

    fn stops(&self) -> bool {
        self.stops_at.is_some_and(|bytes| self.there.get() >= bytes)
    }

    async fn stopped(&self) {
        if !self.stops() && !self.is_impatient {
            std::future::pending().await
        }
    }
}

fn contents() -> Vec<u8> {
    (0..1000u32).map(|i| (i * i / 7) as u8).collect()
}

fn file() -> PartFile {
    PartFile::new("part.gguf", &contents())
}

#[test]
fn a_line_that_breaks_goes_on_at_the_same_byte() {
    let (shelf, ear) = (Shelf::default(), Ear::default());
    let server = Server::new(&contents(), &[Line::Breaks(100), Line::Breaks(0), Line::Breaks(0), Line::Breaks(300)]);
    block_on(fill(&file(), &shelf, &server, &ear)).unwrap();
    assert_eq!(*shelf.bytes.borrow(), contents());
    assert_eq!(*server.opened.borrow(), [0, 100, 100, 100, 400]);
    // Longer and longer, until something comes again.
    assert_eq!(*server.paused.borrow(), [500, 1000, 2000, 500]);
    assert_eq!(ear.there.get(), 1000);
}

#[test]
fn a_line_that_stays_dead_is_given_up_and_nothing_is_lost() {
    let (shelf, ear) = (Shelf::default(), Ear::default());
    let lines: Vec<_> = [Line::Breaks(400)].into_iter().chain([Line::Breaks(0); 6]).collect();
    let server = Server::new(&contents(), &lines);
    assert_eq!(block_on(fill(&file(), &shelf, &server, &ear)), Err(Trouble::Line("no line".into())));
    block_on(fill(&file(), &shelf, &server, &ear)).unwrap();
    assert_eq!(server.opened.borrow().last(), Some(&400));
    assert_eq!(*shelf.bytes.borrow(), contents());
}

#[test]
fn what_was_stopped_goes_on_where_it_was() {
    let shelf = Shelf::default();
    let server = Server::new(&contents(), &[]);
    let stops = Ear { stops_at: Some(500), ..Ear::default() };
    assert_eq!(block_on(fill(&file(), &shelf, &server, &stops)), Err(Trouble::Stopped));
    let there = shelf.bytes.borrow().len() as u64;
    assert!((500..510).contains(&there), "{there}");
    block_on(fill(&file(), &shelf, &server, &Ear::default())).unwrap();
    assert_eq!(*server.opened.borrow(), [0, there]);
    assert_eq!(*shelf.bytes.borrow(), contents());
}

#[test]
fn a_line_on_which_nothing_comes_can_be_left() {
    let (shelf, ear) = (Shelf::default(), Ear { is_impatient: true, ..Ear::default() });
    let server = Server::new(&contents(), &[Line::Stalls(70)]);
    assert_eq!(block_on(fill(&file(), &shelf, &server, &ear)), Err(Trouble::Stopped));
    assert_eq!(ear.there.get(), 70);
    block_on(fill(&file(), &shelf, &server, &Ear::default())).unwrap();
    assert_eq!(*server.opened.borrow(), [0, 70]);
    assert_eq!(*shelf.bytes.borrow(), contents());
}

#[test]
fn a_file_that_is_there_is_checked_and_not_fetched() {
    let shelf = Shelf { bytes: RefCell::new(contents()), room: None };
    let (server, ear) = (Server::new(&contents(), &[]), Ear::default());
    block_on(fill(&file(), &shelf, &server, &ear)).unwrap();
    assert!(server.opened.borrow().is_empty());
    assert_eq!((ear.there.get(), ear.came.get()), (1000, 0));
    shelf.bytes.borrow_mut()[17] ^= 4;
    block_on(fill(&file(), &shelf, &server, &Ear::default())).unwrap();
    assert_eq!(*server.opened.borrow(), [0]);
    assert_eq!(*shelf.bytes.borrow(), contents());
    shelf.bytes.borrow_mut().push(0);
    block_on(fill(&file(), &shelf, &server, &Ear::default())).unwrap();
    assert_eq!(*shelf.bytes.borrow(), contents());
}

#[test]
fn a_wrong_file_is_fetched_again_but_not_for_ever() {
    let shelf = Shelf::default();
    let server = Server::new(&contents(), &[Line::Garbles, Line::Holds]);
    block_on(fill(&file(), &shelf, &server, &Ear::default())).unwrap();
    assert_eq!(*shelf.bytes.borrow(), contents());
    let server = Server::new(&contents(), &[Line::Garbles; 3]);
    let shelf = Shelf::default();
    let wrong = Trouble::Wrong { file: "part.gguf".into() };
    assert_eq!(block_on(fill(&file(), &shelf, &server, &Ear::default())), Err(wrong.clone()));
    assert_eq!(server.opened.borrow().len(), 3);
    // Another file of which ours is only the beginning.
    let longer = Server::new(&[contents(), vec![0]].concat(), &[]);
    assert_eq!(block_on(fill(&file(), &shelf, &longer, &Ear::default())), Err(wrong));
}

#[test]
fn who_knows_no_ranges_begins_again() {
    let shelf = Shelf { bytes: RefCell::new(vec![9; 10]), room: None };
    let server = Server::new(&contents(), &[Line::Whole]);
    block_on(fill(&file(), &shelf, &server, &Ear::default())).unwrap();
    assert_eq!(*shelf.bytes.borrow(), contents());
    assert_eq!(*server.opened.borrow(), [10]);
}

#[test]
fn full_storage_says_so_and_keeps_what_it_took() {
    let shelf = Shelf { room: Some(640), ..Shelf::default() };
    let server = Server::new(&contents(), &[]);
    assert_eq!(block_on(fill(&file(), &shelf, &server, &Ear::default())), Err(Trouble::Full));
    let shelf = Shelf { bytes: shelf.bytes, room: None };
    block_on(fill(&file(), &shelf, &server, &Ear::default())).unwrap();
    assert_eq!(*server.opened.borrow(), [0, 640]);
    assert_eq!(*shelf.bytes.borrow(), contents());
}
