//! Reads Python's pickles without running them.
//!
//! A pickle is a program for a small stack machine that may call any function of any module. This machine has the stack, but calls
//! nothing: what a pickle would call is written down as a [`Node::Call`] of a name, if the name is [known to be harmless](is_known),
//! and refused otherwise. Source: CPython's `pickletools`.

use std::collections::BTreeMap;
use std::str::FromStr;

/// Position of a [`Node`] in its [`Pickle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(u32);

/// A value, with other values by their position: values may contain themselves.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// `None`
    None,
    /// `True` or `False`
    Bool(bool),
    /// A whole number; those that need more than 64 bits are never needed and become their nearest.
    Int(i64),
    /// A number.
    Float(f64),
    /// A text.
    Text(String),
    /// Bytes, of which only the number is kept.
    Bytes(usize),
    /// A list, tuple or set.
    List(Vec<Id>),
    /// A dictionary, in order.
    Dict(Vec<(Id, Id)>),
    /// A class or function: `module.name`.
    Name(String),
    /// What a call of a class or function would give.
    Call(Box<Call>),
    /// Something outside of the pickle, by what names it.
    Outside(Id),
}

/// A call of a class or function, and what would be done with the result.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// What is called.
    pub name: Id,
    /// With what.
    pub arguments: Id,
    /// What is set on it, as on a dictionary.
    pub items: Vec<(Id, Id)>,
    /// Its attributes.
    pub state: Option<Id>,
}

/// What a pickle holds.
#[derive(Debug)]
pub struct Pickle {
    nodes: Vec<Node>,
    root: Id,
    /// Bytes that it took.
    pub length: usize,
}

/// Why a pickle is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PickleError {
    /// It names something that is not known to be harmless.
    #[error(
        "it asks Python to call `{name}`, which no checkpoint of weights needs: this is refused, and nothing was run. If the file is \
         from a source that you trust, save its weights anew"
    )]
    Refused {
        /// `module.name`
        name: String,
    },
    /// It is damaged, or of a form that checkpoints do not have.
    #[error("the pickle is damaged at byte {at}: {what}")]
    Damaged {
        /// Position.
        at: usize,
        /// What was found there.
        what: String,
    },
}

/// Most values that are read: a full checkpoint with its optimizer has some ten thousand.
const MOST_NODES: usize = 1 << 21;

/// Names that may stand in a checkpoint: they build tensors and settings. Their own code is not run either; what each stands for
/// is known here, or does not matter.
const KNOWN: &[&str] = &[
    "argparse.Namespace",
    "collections.Counter",
    "collections.OrderedDict",
    "collections.defaultdict",
    "builtins.bool",
    "builtins.bytearray",
    "builtins.complex",
    "builtins.dict",
    "builtins.float",
    "builtins.frozenset",
    "builtins.int",
    "builtins.list",
    "builtins.set",
    "builtins.slice",
    "builtins.str",
    "builtins.tuple",
    "datetime.timedelta",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "numpy.ndarray",
    "pathlib.PosixPath",
    "torch.Size",
    "torch.device",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch.storage.TypedStorage",
    "torch.storage.UntypedStorage",
    "torch.storage._load_from_bytes",
    "torch.serialization._get_layout",
];

/// Packages whose names are settings: a checkpoint's configuration names the classes that it was made by.
const SETTINGS: &[&str] = &["fairseq.", "omegaconf.", "torchscale.", "typing.", "unilm."];

/// Types of numbers.
const TYPES: &[&str] =
    &["bfloat16", "bool", "float16", "float32", "float64", "int16", "int32", "int64", "int8", "strided", "uint8"];

/// Whether a name may stand in a checkpoint.
fn is_known(name: &str) -> bool {
    let is_of_torch = |rest: &str| TYPES.contains(&rest) || rest.ends_with("Storage") && !rest.contains('.');
    KNOWN.contains(&name)
        || SETTINGS.iter().any(|package| name.starts_with(package))
        || name.strip_prefix("torch.").is_some_and(is_of_torch)
}

impl Pickle {
    /// Reads the pickle that `bytes` begin with.
    ///
    /// # Errors
    /// [`PickleError`].
    pub fn read(bytes: &[u8]) -> Result<Self, PickleError> {
        let mut machine =
            Machine { bytes, at: 0, nodes: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: BTreeMap::new() };
        let root = machine.run()?;
        Ok(Self { nodes: machine.nodes, root, length: machine.at })
    }

    /// The value that the pickle is.
    pub fn root(&self) -> Id {
        self.root
    }

    /// All values, in the order in which they came up.
    pub fn ids(&self) -> impl Iterator<Item = Id> {
        (0..self.nodes.len() as u32).map(Id)
    }

    /// A value.
    pub fn node(&self, id: Id) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// A text.
    pub fn text(&self, id: Id) -> Option<&str> {
        match self.node(id) {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number.
    pub fn int(&self, id: Id) -> Option<i64> {
        match *self.node(id) {
            Node::Int(int) => Some(int),
            Node::Bool(bool) => Some(bool.into()),
            _ => None,
        }
    }

    /// The items of a list, tuple or set, or of a `torch.Size`.
    pub fn list(&self, id: Id) -> Option<&[Id]> {
        match self.node(id) {
            Node::List(items) => Some(items),
            Node::Call(call) if self.name(call.name) == Some("torch.Size") => {
                let Node::List(arguments) = self.node(call.arguments) else { return None };
                let &[items] = arguments.as_slice() else { return None };
                match self.node(items) {
                    Node::List(items) => Some(items),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// A class or function.
    pub fn name(&self, id: Id) -> Option<&str> {
        match self.node(id) {
            Node::Name(name) => Some(name),
            _ => None,
        }
    }

    /// The entries of a dictionary, or of an object that is used as one or has attributes.
    pub fn entries(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.node(id) {
            Node::Dict(entries) => Some(entries),
            Node::Call(call) => match call.state {
                Some(state) if call.items.is_empty() => match self.node(state) {
                    Node::Dict(entries) => Some(entries),
                    _ => None,
                },
                _ => Some(&call.items),
            },
            _ => None,
        }
    }

    /// What an entry of a dictionary or attribute of an object holds.
    pub fn get(&self, id: Id, key: &str) -> Option<Id> {
        self.entries(id)?.iter().find(|(name, _)| self.text(*name) == Some(key)).map(|(_, value)| *value)
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: BTreeMap<u64, Id>,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Id, PickleError> {
        loop {
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
                b'N' => self.push(Node::None)?,
                0x88 => self.push(Node::Bool(true))?,
                0x89 => self.push(Node::Bool(false))?,
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
                b'I' => {
                    let node = match self.line()? {
                        "00" => Node::Bool(false),
                        "01" => Node::Bool(true),
                        text => Node::Int(self.number(text)?),
                    };
                    self.push(node)?;
                }
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
                    let name = format!("{}.{}", self.line()?, self.line()?);
                    self.push_name(name)?;
                }
                0x93 => {
                    let parts = self.pops(2)?;
                    let [module, name] = [0, 1].map(|i| match &self.nodes[parts[i].0 as usize] {
                        Node::Text(text) => Some(text.as_str()),
                        _ => None,
                    });
                    let name = module.zip(name).map(|(module, name)| format!("{module}.{name}"));
                    let name = name.ok_or_else(|| self.damaged("a name that is no text"))?;
                    self.push_name(name)?;
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

    fn push_name(&mut self, name: String) -> Result<(), PickleError> {
        // What Python 2 wrote.
        let name = name.replacen("__builtin__.", "builtins.", 1);
        if is_known(&name) { self.push(Node::Name(name)) } else { Err(PickleError::Refused { name }) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_all_protocols_are_read() {
        // `pickle.dumps({"a": [1, -2, 3.5, None, True], "b": (1, 2)}, protocol)` for protocols 0, 2 and 4.
        let old = b"(dp0\nVa\np1\n(lp2\nI1\naI-2\naF3.5\naNaI01\nasVb\np3\n(I1\nI2\ntp4\ns.".as_slice();
        let two = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01J\xfe\xff\xff\xffG@\x0c\x00\x00\x00\x00\x00\x00N\x88eX\x01\x00\x00\x00bq\x03K\x01K\x02\x86q\x04u.";
        let four = b"\x80\x04\x95%\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94]\x94(K\x01J\xfe\xff\xff\xffG@\x0c\x00\x00\x00\x00\x00\x00N\x88e\x8c\x01b\x94K\x01K\x02\x86\x94u.";
        for bytes in [old, two.as_slice(), four.as_slice()] {
            let pickle = Pickle::read(bytes).unwrap();
            assert_eq!(pickle.length, bytes.len());
            let a = pickle.list(pickle.get(pickle.root(), "a").unwrap()).unwrap();
            let nodes: Vec<_> = a.iter().map(|&id| pickle.node(id).clone()).collect();
            assert_eq!(nodes, [Node::Int(1), Node::Int(-2), Node::Float(3.5), Node::None, Node::Bool(true)]);
            let b = pickle.list(pickle.get(pickle.root(), "b").unwrap()).unwrap();
            assert_eq!(b.iter().map(|&id| pickle.int(id)).collect::<Vec<_>>(), [Some(1), Some(2)]);
        }
    }

    #[test]
    fn objects_have_attributes() {
        // `pickle.dumps(argparse.Namespace(layers=24), 2)`
        let bytes = b"\x80\x02cargparse\nNamespace\nq\x00)\x81q\x01}q\x02X\x06\x00\x00\x00layersq\x03K\x18sb.";
        let pickle = Pickle::read(bytes).unwrap();
        assert_eq!(pickle.int(pickle.get(pickle.root(), "layers").unwrap()), Some(24));
    }

    #[test]
    fn large_numbers_become_their_nearest() {
        for (bytes, int) in [
            (b"\x8a\x02\x00\x80.".as_slice(), -32768),
            (b"\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x00.", i64::MAX),
            (b"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\xff.", i64::MIN),
            (b"\x8a\x00.", 0),
        ] {
            let pickle = Pickle::read(bytes).unwrap();
            assert_eq!(pickle.int(pickle.root()), Some(int), "{bytes:?}");
        }
    }

    #[test]
    fn what_would_run_is_refused_by_name() {
        for (bytes, name) in [
            (b"cos\nsystem\n(S'true'\ntR.".as_slice(), "os.system"),
            (b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.", "posix.system"),
            (b"c__builtin__\neval\n(S'1'\ntR.", "builtins.eval"),
            (b"ctorch.hub\nload\n(S'x'\ntR.", "torch.hub.load"),
            (b"ctorch\nload\n.", "torch.load"),
        ] {
            assert_eq!(Pickle::read(bytes).unwrap_err(), PickleError::Refused { name: name.to_owned() });
        }
    }

    #[test]
    fn damage_is_an_error_wherever_it_is() {
        let whole = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01K\x02eu.";
        for length in 0..whole.len() {
            assert!(Pickle::read(&whole[..length]).is_err(), "{length}");
        }
        for bytes in [
            b".".as_slice(),
            b"N0.",
            b"K\x01K\x02s.",
            b"]K\x01s.",
            b"(K\x01d.",
            b"h\x07.",
            b"K\x01)R.",
            b"K\x01}b.",
            b"X\xff\xff\xff\xffa.",
            b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffa.",
            b"i.",
        ] {
            assert!(matches!(Pickle::read(bytes), Err(PickleError::Damaged { .. })), "{bytes:?}");
        }
        // Values within values, as deep as it goes.
        let deep = [vec![b')'; 1], vec![0x85; 1_000_000], vec![b'.']].concat();
        assert_eq!(Pickle::read(&deep).unwrap().length, deep.len());
        let many = [vec![b'N'; MOST_NODES + 1], vec![b'.']].concat();
        assert!(Pickle::read(&many).unwrap_err().to_string().contains("more than"));
    }
}
