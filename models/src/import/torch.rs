//! Reads what `torch.save` wrote: a [pickle](super::pickle) that is not run, and storages of numbers, of which one tensor at a time is
//! in memory. Both forms: the zip file, and the one that came before it.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use kosmosg::weights::{DType, HostTensor};
use zip::{CompressionMethod, ZipArchive};

use super::pickle::{Id, Node, Pickle};
use super::source::{Bytes, Float, Shapes, Source};

/// A file that `torch.save` wrote.
pub struct TorchFile {
    bytes: Bytes,
    pickle: Pickle,
    /// Where the bytes of each storage begin, and how many there are, by its key.
    storages: BTreeMap<String, (u64, u64)>,
    is_big_endian: bool,
}

/// No pickle of a checkpoint is longer.
const LONGEST_PICKLE: u64 = 1 << 26;
/// What a file of the older form begins with, as a pickled number.
const MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

impl TorchFile {
    /// Reads all but the numbers.
    ///
    /// # Errors
    /// The file cannot be read, is no such file, is damaged, or asks for something that no checkpoint needs.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let bytes = Bytes::open(path)?;
        let beginning = bytes.read(0, bytes.length.min(512))?;
        let file = if beginning.starts_with(b"PK\x03\x04") {
            Self::open_zip(bytes)
        } else if beginning.starts_with(MAGIC) {
            Self::open_old(bytes)
        } else if beginning.get(257..262) == Some(b"ustar") {
            bail!("{} is a tar file, as torch wrote before 2017: load it in torch and save it anew", path.display())
        } else {
            bail!("{} is no file that torch.save wrote", path.display())
        };
        file.with_context(|| format!("cannot read the checkpoint {}", path.display()))
    }

    fn open_zip(bytes: Bytes) -> anyhow::Result<Self> {
        let mut zip = ZipArchive::new(BufReader::new(bytes.file())).context("the zip file is damaged")?;
        let mut places = BTreeMap::new();
        for i in 0..zip.len() {
            let entry = zip.by_index_raw(i).context("the zip file is damaged")?;
            let name = entry.name().context("the zip file is damaged")?.into_owned();
            ensure!(
                entry.compression() == CompressionMethod::Stored && !entry.encrypted(),
                "`{name}` is compressed, which torch.save never does: unpack the file and pack it again without"
            );
            let start = entry.data_start().with_context(|| format!("`{name}` has no place in the zip file"))?;
            ensure!(
                start.checked_add(entry.size()).is_some_and(|end| end <= bytes.length),
                "ends inside `{name}`; the file is truncated"
            );
            places.insert(name, (start, entry.size()));
        }
        let pickled = places.iter().find_map(|(name, place)| Some((name.strip_suffix("data.pkl")?.to_owned(), *place)));
        let (folder, (start, length)) = pickled.context("the zip file has no data.pkl")?;
        ensure!(length <= LONGEST_PICKLE, "data.pkl has {length} bytes, which no checkpoint's has");
        let pickle = Pickle::read(&bytes.read(start, length)?)?;
        let is_big_endian = match places.get(&format!("{folder}byteorder")) {
            Some(&(start, length)) => bytes.read(start, length.min(6))? == b"big",
            None => false,
        };
        let folder = format!("{folder}data/");
        let storage = |(name, place): (String, _)| Some((name.strip_prefix(&folder)?.to_owned(), place));
        let storages = places.into_iter().filter_map(storage).collect();
        Ok(Self { bytes, pickle, storages, is_big_endian })
    }

    fn open_old(bytes: Bytes) -> anyhow::Result<Self> {
        let beginning = bytes.read(0, bytes.length.min(LONGEST_PICKLE))?;
        let mut at = 0;
        let mut next = || {
            let pickle = Pickle::read(&beginning[at..])?;
            at += pickle.length;
            anyhow::Ok(pickle)
        };
        let (_magic, version, system) = (next()?, next()?, next()?);
        ensure!(version.int(version.root()) == Some(1001), "its protocol is none that torch has");
        let order = system.get(system.root(), "little_endian");
        let is_big_endian = order.and_then(|order| system.int(order)) == Some(0);
        let (pickle, keys) = (next()?, next()?);
        let kinds = storage_kinds(&pickle)?;
        let mut start = at as u64;
        let mut storages = BTreeMap::new();
        for &key in keys.list(keys.root()).context("it does not list its storages")? {
            let key = keys.text(key).context("a storage has no name")?;
            let count = bytes.read(start, 8)?.try_into().expect("8 bytes");
            let count = if is_big_endian { u64::from_be_bytes(count) } else { u64::from_le_bytes(count) };
            let kind = kinds.get(key).with_context(|| format!("no tensor is in storage {key}"))?;
            let length = count.checked_mul(kind.size() as u64);
            let length =
                length.filter(|length| (start + 8).checked_add(*length).is_some_and(|end| end <= bytes.length));
            let length = length.with_context(|| format!("ends inside storage {key}; the file is truncated"))?;
            storages.insert(key.to_owned(), (start + 8, length));
            start += 8 + length;
        }
        Ok(Self { bytes, pickle, storages, is_big_endian })
    }

    /// What was saved.
    pub fn pickle(&self) -> &Pickle {
        &self.pickle
    }

    /// The tensors of a checkpoint: of its `model` or `state_dict`, if it has one, or of itself.
    ///
    /// # Errors
    /// A tensor of a form that is not read, or none at all.
    pub fn tensors(self) -> anyhow::Result<TorchTensors> {
        let root = self.pickle.root();
        let inner = ["model", "state_dict"].into_iter().find_map(|key| self.pickle.get(root, key));
        let state = inner.unwrap_or(root);
        let entries = self.pickle.entries(state).context("the checkpoint holds no dictionary of tensors")?;
        let mut places = BTreeMap::new();
        for &(name, value) in entries {
            let Some(name) = self.pickle.text(name) else { continue };
            let place = place(&self.pickle, value).with_context(|| format!("tensor `{name}`"))?;
            if let Some(place) = place {
                self.check(&place).with_context(|| format!("tensor `{name}`"))?;
                places.insert(name.to_owned(), place);
            }
        }
        ensure!(!places.is_empty(), "{} holds no tensors of floating-point numbers", self.bytes.path.display());
        Ok(TorchTensors { file: self, places })
    }

    /// Whether a tensor lies within its storage.
    fn check(&self, place: &Place) -> anyhow::Result<()> {
        let Place { float, shape, strides, offset, storage } = place;
        let &(_, bytes) =
            self.storages.get(storage).with_context(|| format!("storage {storage} is not in the file"))?;
        let numbers = bytes / float.size() as u64;
        let count = shape.iter().try_fold(1u64, |count, &size| count.checked_mul(size as u64));
        let count = count.with_context(|| format!("shape {shape:?} is too large"))?;
        ensure!(
            count <= numbers,
            "shape {shape:?} has more numbers than its storage, {numbers}: copy it before it is saved"
        );
        let reach = shape.iter().zip(strides).try_fold(*offset as u64, |last, (&size, &stride)| {
            last.checked_add((size.max(1) as u64 - 1).checked_mul(stride as u64)?)
        });
        ensure!(
            count == 0 || reach.is_some_and(|last| last < numbers),
            "shape {shape:?} with strides {strides:?} from {offset} reaches past its storage of {numbers} numbers"
        );
        Ok(())
    }
}

/// Where a tensor of floating-point numbers lies.
#[derive(Debug, Clone, PartialEq)]
struct Place {
    float: Float,
    shape: Vec<usize>,
    /// In numbers, as `offset` is.
    strides: Vec<usize>,
    offset: usize,
    storage: String,
}

/// What a storage holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Floats(Float),
    /// Whole numbers of so many bytes: counters and tables of positions, which are made anew.
    Whole(usize),
}

impl Kind {
    fn size(self) -> usize {
        match self {
            Self::Floats(float) => float.size(),
            Self::Whole(size) => size,
        }
    }
}

/// The kind and key of a storage outside of the pickle.
fn storage(pickle: &Pickle, outside: Id) -> anyhow::Result<(Kind, String)> {
    let Node::Outside(id) = pickle.node(outside) else { bail!("its storage is inside the pickle") };
    let parts = pickle.list(*id).unwrap_or_default();
    let &[tag, kind, key, ..] = parts else { bail!("its storage has no name") };
    ensure!(pickle.text(tag) == Some("storage"), "its storage is none of torch's");
    let name = pickle.name(kind).context("its storage is of no type")?;
    let kind = match name.strip_prefix("torch.").and_then(|name| name.strip_suffix("Storage")) {
        Some("Double") => Kind::Floats(Float::Double),
        Some("Float") => Kind::Floats(Float::Stored(DType::F32)),
        Some("Half") => Kind::Floats(Float::Stored(DType::F16)),
        Some("BFloat16") => Kind::Floats(Float::Stored(DType::Bf16)),
        Some("Long") => Kind::Whole(8),
        Some("Int") => Kind::Whole(4),
        Some("Short") => Kind::Whole(2),
        Some("Char" | "Byte" | "Bool") => Kind::Whole(1),
        _ => bail!("its numbers are {name}; known are Double, Float, Half, BFloat16 and whole numbers"),
    };
    if let Some(&view) = parts.get(5)
        && !matches!(pickle.node(view), Node::None)
    {
        bail!("its storage is a view of another one, as torch wrote before 2017: load it in torch and save it anew");
    }
    let key = match pickle.node(key) {
        Node::Text(key) => key.clone(),
        Node::Int(key) => key.to_string(),
        _ => bail!("its storage has no key"),
    };
    Ok((kind, key))
}

/// The kinds of all storages.
fn storage_kinds(pickle: &Pickle) -> anyhow::Result<BTreeMap<String, Kind>> {
    let outside = pickle.ids().filter(|&id| matches!(pickle.node(id), Node::Outside(_)));
    outside.map(|id| storage(pickle, id).map(|(kind, key)| (key, kind))).collect()
}

/// Where a value's numbers lie; `None` if it is no tensor, or one of whole numbers.
fn place(pickle: &Pickle, value: Id) -> anyhow::Result<Option<Place>> {
    let Node::Call(call) = pickle.node(value) else { return Ok(None) };
    let name = pickle.name(call.name).unwrap_or_default();
    let arguments = pickle.list(call.arguments).unwrap_or_default();
    let (outside, offset, size, stride) = match (name, arguments) {
        ("torch._utils._rebuild_parameter", &[data, ..]) if matches!(pickle.node(data), Node::Call(_)) => {
            // A parameter of a parameter would be no work of torch's.
            let Node::Call(inner) = pickle.node(data) else { return Ok(None) };
            ensure!(pickle.name(inner.name) != Some(name), "a parameter within a parameter");
            return place(pickle, data);
        }
        ("torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2", &[outside, offset, size, stride, ..]) => {
            (outside, offset, size, stride)
        }
        (name, _) if name.starts_with("torch._utils.") => bail!("it is made by {name} in a way that is not known"),
        _ => return Ok(None),
    };
    let (kind, storage) = storage(pickle, outside)?;
    let Kind::Floats(float) = kind else { return Ok(None) };
    let size_of = |id: &Id| pickle.int(*id).and_then(|int| usize::try_from(int).ok());
    let sizes = |id: Id| pickle.list(id)?.iter().map(size_of).collect::<Option<Vec<_>>>();
    let (shape, strides, offset) = (sizes(size), sizes(stride), size_of(&offset));
    let (Some(shape), Some(strides), Some(offset)) = (shape, strides, offset) else {
        bail!("its shape or place is no list of numbers from 0")
    };
    ensure!(shape.len() == strides.len(), "it has shape {shape:?} and strides {strides:?}");
    Ok(Some(Place { float, shape, strides, offset, storage }))
}

/// The tensors of a file that `torch.save` wrote.
pub struct TorchTensors {
    file: TorchFile,
    places: BTreeMap<String, Place>,
}

impl TorchTensors {
    /// The file that they are in.
    pub fn file(&self) -> &TorchFile {
        &self.file
    }
}

impl Source for TorchTensors {
    fn shapes(&self) -> Shapes<'_> {
        self.places.iter().map(|(name, place)| (name.as_str(), place.shape.as_slice())).collect()
    }

    fn read(&self, name: &str) -> anyhow::Result<HostTensor> {
        let TorchFile { bytes, storages, is_big_endian, .. } = &self.file;
        let missing = || format!("{} has no tensor `{name}`", bytes.path.display());
        let Place { float, shape, strides, offset, storage } = self.places.get(name).with_context(missing)?;
        let (size, (start, _)) = (float.size(), storages[storage]);
        let last = shape.iter().zip(strides).map(|(&size, &stride)| size.saturating_sub(1) * stride).sum::<usize>();
        let count = shape.iter().product::<usize>();
        let length = if count == 0 { 0 } else { (last + 1) * size };
        let mut numbers = bytes.read(start + (offset * size) as u64, length as u64)?;
        if !is_row_major(shape, strides) {
            numbers = gather(&numbers, size, shape, strides);
        }
        if *is_big_endian {
            numbers.chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
        float.tensor(shape.clone(), numbers).with_context(|| format!("{}: `{name}`", bytes.path.display()))
    }

    fn files(&self) -> Vec<&Path> {
        vec![&self.file.bytes.path]
    }
}

/// Whether numbers lie one after the other; the stride of a dimension of one does not matter.
fn is_row_major(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(&size, &stride)| {
        let is_expected = size <= 1 || stride == expected;
        expected *= size;
        is_expected
    })
}

/// The numbers of a view, one after the other.
fn gather(numbers: &[u8], size: usize, shape: &[usize], strides: &[usize]) -> Vec<u8> {
    let count = shape.iter().product::<usize>();
    let mut gathered = Vec::with_capacity(count * size);
    let mut index = vec![0; shape.len()];
    for _ in 0..count {
        let at = index.iter().zip(strides).map(|(i, stride)| i * stride).sum::<usize>() * size;
        gathered.extend_from_slice(&numbers[at..at + size]);
        for (i, &size) in index.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < size {
                break;
            }
            *i = 0;
        }
    }
    gathered
}
