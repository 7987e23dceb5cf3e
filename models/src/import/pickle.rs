//! Reads Python's pickles without running them.
//!
//! A pickle is a program for a small stack machine that may call any function of any module. This machine has the stack, but calls
//! nothing: what a pickle would call is written down as a [`Node::Call`] of a name, if the name is [known to be harmless](machine),
//! and refused otherwise. Source: CPython's `pickletools`.

use machine::Machine;

mod known;
mod machine;

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

impl Pickle {
    /// Reads the pickle that `bytes` begin with.
    ///
    /// # Errors
    /// [`PickleError`].
    pub fn read(bytes: &[u8]) -> Result<Self, PickleError> {
        let mut machine = Machine::new(bytes);
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

#[cfg(test)]
mod tests {
    use super::machine::MOST_NODES;
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
    fn what_checkpoints_name_is_known() {
        for name in [
            // Of Stable Diffusion's.
            "pytorch_lightning.callbacks.model_checkpoint\nModelCheckpoint",
            // `typing.Dict[str, Any]` in OmegaConf's, and `b"\xff"`, `b""`, `int`, `range` in all, by protocol 2.
            "_operator\ngetitem",
            "_codecs\nencode",
            "__builtin__\nbytes",
            "__builtin__\nlong",
            "__builtin__\nunicode",
            "__builtin__\ntype",
            "__builtin__\nobject",
            "__builtin__\nxrange",
            "builtins\nrange",
            // Of fairseq's, by its versions.
            "argparse\nNamespace",
            "fairseq.data.dictionary\nDictionary",
            "fairseq.dataclass.configs\nFairseqConfig",
            "fairseq.logging.meters\nAverageMeter",
            "fairseq.models.transformer_lm\nTransformerLanguageModelConfig",
            "unilm.models.kosmosg\nKosmosGModelConfig",
            "omegaconf.dictconfig\nDictConfig",
            "omegaconf.base\nContainerMetadata",
            "omegaconf.nodes\nAnyNode",
            "typing\nAny",
            "numpy.core.multiarray\nscalar",
            "torch\nHalfStorage",
        ] {
            let pickle = Pickle::read(format!("c{name}\n(S'x'\ntR.").as_bytes()).unwrap();
            assert!(matches!(pickle.node(pickle.root()), Node::Call(_)), "{name}");
        }
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
            (b"\x80\x04\x8c\x0dfairseq.utils\x8c\x09os.system\x93.", "fairseq.utils.os.system"),
            (b"cfairseq.utils\nimport_user_module\n.", "fairseq.utils.import_user_module"),
            (b"comegaconf\nos.XNode\n.", "omegaconf.os.XNode"),
            (b"ctyping\nos.system\n.", "typing.os.system"),
            (b"ctorch._utils\n_rebuild_tensor.x\n.", "torch._utils._rebuild_tensor.x"),
            (b"ctorch\n_utils._rebuild_tensor\n.", "torch._utils._rebuild_tensor"),
            (b"ctorch\nhub.xStorage\n.", "torch.hub.xStorage"),
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
        // The same constant any number of times is one value.
        let constants = [b'N', 0x88, 0x89].repeat(1000);
        assert_eq!(Pickle::read(&[&constants[..], b"."].concat()).unwrap().nodes.len(), 3);
        // Values, marks, the same value again, and the same value remembered.
        for (first, again) in [(b']', b']'), (b'N', b'N'), (b'(', b'('), (b'N', b'2'), (b'N', 0x94)] {
            let many = [vec![first], vec![again; MOST_NODES + 1], vec![b'.']].concat();
            let error = Pickle::read(&many).unwrap_err().to_string();
            assert!(error.contains("more than"), "{again}: {error}");
        }
    }
}
