//! The stack machine that a pickle is a program for, with nothing that it could call.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::known::is_known;
use super::{Call, Id, Node, PickleError};

/// Most values that are read: a full checkpoint with its optimizer has some ten thousand.
pub(super) const MOST_NODES: usize = 1 << 20;

/// Values that any number of places can share, as nothing changes them.
const CONSTANTS: [Node; 3] = [Node::None, Node::Bool(false), Node::Bool(true)];
const NONE: Id = Id(0);
const FALSE: Id = Id(1);
const TRUE: Id = Id(2);

/// What a pickle runs on.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    /// Where the next operation is.
    pub at: usize,
    /// All values so far.
    pub nodes: Vec<Node>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: BTreeMap<u64, Id>,
}

impl<'a> Machine<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, nodes: CONSTANTS.into(), stack: Vec::new(), marks: Vec::new(), memo: BTreeMap::new() }
    }

    /// Runs to the end of the pickle, and returns what it is.
    pub fn run(&mut self) -> Result<Id, PickleError> {
        loop {
            // A byte of a pickle can make these longer by several.
            if self.stack.len().max(self.marks.len()).max(self.memo.len()) > MOST_NODES {
                return Err(self.damaged(format!("more than {MOST_NODES} values at once")));
            }
            let op = self.byte()?;
            match op {
                b'.' => return self.pop(),
                0x80 => _ = self.byte()?,
                0x95 => _ = self.take(8)?,
                b'(' => self.marks.push(self.stack.len()),
                b'0' => _ = self.pop()?,
                b'1' => _ = self.above_mark()?,
                b'2' => {
                    let top = self.top()?;
                    self.stack.push(top);
                }
                b'N' => self.stack.push(NONE),
                0x88 => self.stack.push(TRUE),
                0x89 => self.stack.push(FALSE),
                b'K' => {
                    let int = self.byte()?.into();
                    self.push(Node::Int(int))?;
                }
                b'M' => {
                    let int = u16::from_le_bytes(self.array()?).into();
                    self.push(Node::Int(int))?;
                }
                b'J' => {
                    let int = i32::from_le_bytes(self.array()?).into();
                    self.push(Node::Int(int))?;
                }
                b'I' => match self.line()? {
                    "00" => self.stack.push(FALSE),
                    "01" => self.stack.push(TRUE),
                    text => {
                        let int = self.number(text)?;
                        self.push(Node::Int(int))?;
                    }
                },
                b'L' => {
                    let text = self.line()?;
                    let int = self.number(text.trim_end_matches('L'))?;
                    self.push(Node::Int(int))?;
                }
                0x8a => {
                    let length = self.byte()?.into();
                    self.push_long(length)?;
                }
                0x8b => {
                    let length = u32::from_le_bytes(self.array()?).into();
                    self.push_long(length)?;
                }
                b'F' => {
                    let text = self.line()?;
                    let float = self.number(text)?;
                    self.push(Node::Float(float))?;
                }
                b'G' => {
                    let float = f64::from_be_bytes(self.array()?);
                    self.push(Node::Float(float))?;
                }
                b'S' | b'V' => {
                    // Escapes stay as they are: no name that matters has any.
                    let text = self.line()?.trim_matches(['\'', '"']).to_owned();
                    self.push(Node::Text(text))?;
                }
                b'U' | 0x8c => {
                    let length = self.byte()?.into();
                    self.push_text(length)?;
                }
                b'T' | b'X' => {
                    let length = u32::from_le_bytes(self.array()?).into();
                    self.push_text(length)?;
                }
                0x8d => {
                    let length = u64::from_le_bytes(self.array()?);
                    self.push_text(length)?;
                }
                b'C' => {
                    let length = self.byte()?.into();
                    self.push_bytes(length)?;
                }
                b'B' => {
                    let length = u32::from_le_bytes(self.array()?).into();
                    self.push_bytes(length)?;
                }
                0x8e | 0x96 => {
                    let length = u64::from_le_bytes(self.array()?);
                    self.push_bytes(length)?;
                }
                b']' | b')' | 0x8f => self.push(Node::List(Vec::new()))?,
                b'}' => self.push(Node::Dict(Vec::new()))?,
                b'l' | b't' | 0x91 => {
                    let items = self.above_mark()?;
                    self.push(Node::List(items))?;
                }
                0x85..=0x87 => {
                    let items = self.pops(usize::from(op - 0x84))?;
                    self.push(Node::List(items))?;
                }
                b'd' => {
                    let items = self.above_mark()?;
                    let entries = self.pairs(&items)?;
                    self.push(Node::Dict(entries))?;
                }
                b'a' => {
                    let item = self.pops(1)?;
                    self.append(item)?;
                }
                b'e' | 0x90 => {
                    let items = self.above_mark()?;
                    self.append(items)?;
                }
                b's' => {
                    let entry = self.pops(2)?;
                    self.insert(&entry)?;
                }
                b'u' => {
                    let items = self.above_mark()?;
                    self.insert(&items)?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.push_name(module, name)?;
                }
                0x93 => {
                    let parts = self.pops(2)?;
                    let [module, name] = [0, 1].map(|i| match &self.nodes[parts[i].0 as usize] {
                        Node::Text(text) => Some(text.clone()),
                        _ => None,
                    });
                    let (module, name) = module.zip(name).ok_or_else(|| self.damaged("a name that is no text"))?;
                    self.push_name(&module, &name)?;
                }
                b'R' | 0x81 => {
                    let call = self.pops(2)?;
                    self.call(call[0], call[1])?;
                }
                0x92 => {
                    // Arguments by name do not matter for anything that is known.
                    let call = self.pops(3)?;
                    self.call(call[0], call[1])?;
                }
                b'b' => self.build()?,
                b'P' => {
                    let text = self.line()?.to_owned();
                    let id = self.add(Node::Text(text))?;
                    self.push(Node::Outside(id))?;
                }
                b'Q' => {
                    let id = self.pop()?;
                    self.push(Node::Outside(id))?;
                }
                b'p' => {
                    let text = self.line()?;
                    let key = self.number(text)?;
                    self.remember(key)?;
                }
                b'q' => {
                    let key = self.byte()?.into();
                    self.remember(key)?;
                }
                b'r' => {
                    let key = u32::from_le_bytes(self.array()?).into();
                    self.remember(key)?;
                }
                0x94 => {
                    let key = self.memo.len() as u64;
                    self.remember(key)?;
                }
                b'g' => {
                    let text = self.line()?;
                    let key = self.number(text)?;
                    self.recall(key)?;
                }
                b'h' => {
                    let key = self.byte()?.into();
                    self.recall(key)?;
                }
                b'j' => {
                    let key = u32::from_le_bytes(self.array()?).into();
                    self.recall(key)?;
                }
                _ => return Err(self.damaged(format!("operation {op:#04x}, which checkpoints do not have"))),
            }
        }
    }

    fn damaged(&self, what: impl Into<String>) -> PickleError {
        PickleError::Damaged { at: self.at, what: what.into() }
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], PickleError> {
        let left = &self.bytes[self.at..];
        match usize::try_from(length).ok().and_then(|length| left.get(..length)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => Err(self.damaged(format!("{length} bytes are announced, {} are left", left.len()))),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        Ok(self.take(N as u64)?.try_into().expect("a slice of that length"))
    }

    fn byte(&mut self) -> Result<u8, PickleError> {
        Ok(self.array::<1>()?[0])
    }

    /// The text up to the end of the line.
    fn line(&mut self) -> Result<&'a str, PickleError> {
        let left = &self.bytes[self.at..];
        let Some(length) = left.iter().position(|&byte| byte == b'\n') else {
            return Err(self.damaged("a line that does not end"));
        };
        self.at += length + 1;
        std::str::from_utf8(&left[..length]).map_err(|_| self.damaged("a line that is no UTF-8"))
    }

    fn number<T: FromStr>(&self, text: &str) -> Result<T, PickleError> {
        text.trim().parse().map_err(|_| self.damaged(format!("{text:?} where a number is due")))
    }

    fn add(&mut self, node: Node) -> Result<Id, PickleError> {
        if self.nodes.len() == MOST_NODES {
            return Err(self.damaged(format!("more than {MOST_NODES} values")));
        }
        self.nodes.push(node);
        Ok(Id(self.nodes.len() as u32 - 1))
    }

    fn push(&mut self, node: Node) -> Result<(), PickleError> {
        let id = self.add(node)?;
        self.stack.push(id);
        Ok(())
    }

    fn push_name(&mut self, module: &str, name: &str) -> Result<(), PickleError> {
        // What Python 2 wrote.
        let module = if module == "__builtin__" { "builtins" } else { module };
        let (is_known, name) = (is_known(module, name), format!("{module}.{name}"));
        if is_known { self.push(Node::Name(name)) } else { Err(PickleError::Refused { name }) }
    }

    fn push_text(&mut self, length: u64) -> Result<(), PickleError> {
        let text = std::str::from_utf8(self.take(length)?);
        let text = text.map_err(|_| self.damaged("a text that is no UTF-8"))?.to_owned();
        self.push(Node::Text(text))
    }

    fn push_bytes(&mut self, length: u64) -> Result<(), PickleError> {
        let length = self.take(length)?.len();
        self.push(Node::Bytes(length))
    }

    /// A whole number of `length` bytes.
    fn push_long(&mut self, length: u64) -> Result<(), PickleError> {
        let bytes = self.take(length)?;
        let is_negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
        let fill = if is_negative { 0xff } else { 0 };
        let fits = bytes.iter().skip(8).all(|&byte| byte == fill);
        let mut low = [fill; 8];
        low.iter_mut().zip(bytes).for_each(|(low, &byte)| *low = byte);
        let int = i64::from_le_bytes(low);
        self.push(Node::Int(match (fits && (int < 0) == is_negative, is_negative) {
            (true, _) => int,
            (false, false) => i64::MAX,
            (false, true) => i64::MIN,
        }))
    }

    /// Height of the stack above the last mark: what lies below belongs to others.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Id, PickleError> {
        Ok(self.pops(1)?[0])
    }

    /// The last `count` values, the first of them first.
    fn pops(&mut self, count: usize) -> Result<Vec<Id>, PickleError> {
        match self.stack.len().checked_sub(count).filter(|&left| left >= self.floor()) {
            Some(left) => Ok(self.stack.split_off(left)),
            None => Err(self.damaged("a value is taken that is not there")),
        }
    }

    fn top(&self) -> Result<Id, PickleError> {
        let is_there = self.stack.len() > self.floor();
        self.stack.last().copied().filter(|_| is_there).ok_or_else(|| self.damaged("a value is used that is not there"))
    }

    fn above_mark(&mut self) -> Result<Vec<Id>, PickleError> {
        let mark = self.marks.pop().ok_or_else(|| self.damaged("a mark is missing"))?;
        Ok(self.stack.split_off(mark))
    }

    fn pairs(&self, items: &[Id]) -> Result<Vec<(Id, Id)>, PickleError> {
        match items.as_chunks() {
            (pairs, []) => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
            _ => Err(self.damaged("a key without a value")),
        }
    }

    fn append(&mut self, items: Vec<Id>) -> Result<(), PickleError> {
        let list = self.top()?;
        match &mut self.nodes[list.0 as usize] {
            Node::List(list) => list.extend(items),
            // A list of some class; its items do not matter.
            Node::Call(_) => {}
            _ => return Err(self.damaged("items for what is no list")),
        }
        Ok(())
    }

    fn insert(&mut self, items: &[Id]) -> Result<(), PickleError> {
        let pairs = self.pairs(items)?;
        let dictionary = self.top()?;
        match &mut self.nodes[dictionary.0 as usize] {
            Node::Dict(entries) => entries.extend(pairs),
            Node::Call(call) => call.items.extend(pairs),
            _ => return Err(self.damaged("entries for what is no dictionary")),
        }
        Ok(())
    }

    fn call(&mut self, name: Id, arguments: Id) -> Result<(), PickleError> {
        if !matches!(self.nodes[name.0 as usize], Node::Name(_)) {
            return Err(self.damaged("a call of what is no class or function"));
        }
        self.push(Node::Call(Box::new(Call { name, arguments, items: Vec::new(), state: None })))
    }

    fn build(&mut self) -> Result<(), PickleError> {
        let state = self.pop()?;
        let object = self.top()?;
        match &mut self.nodes[object.0 as usize] {
            Node::Call(call) => call.state = Some(state),
            _ => return Err(self.damaged("a state for what is no object")),
        }
        Ok(())
    }

    fn remember(&mut self, key: u64) -> Result<(), PickleError> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u64) -> Result<(), PickleError> {
        let id = *self.memo.get(&key).ok_or_else(|| self.damaged(format!("value {key} was not kept")))?;
        self.stack.push(id);
        Ok(())
    }
}
