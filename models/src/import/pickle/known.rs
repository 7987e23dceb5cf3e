//! What a pickle may name: everything else is refused.

/// Names that may stand in a checkpoint: they build tensors and settings. Their own code is not run either; what each stands for
/// is known here, or does not matter.
const KNOWN: &[&str] = &[
    "_codecs.encode",
    "_operator.getitem",
    "argparse.Namespace",
    "collections.Counter",
    "collections.OrderedDict",
    "collections.defaultdict",
    "builtins.bool",
    "builtins.bytearray",
    "builtins.bytes",
    "builtins.complex",
    "builtins.dict",
    "builtins.float",
    "builtins.frozenset",
    "builtins.int",
    "builtins.list",
    "builtins.long",
    "builtins.object",
    "builtins.range",
    "builtins.set",
    "builtins.slice",
    "builtins.str",
    "builtins.tuple",
    "builtins.type",
    "builtins.unicode",
    "builtins.xrange",
    "datetime.timedelta",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "numpy.ndarray",
    "pathlib.PosixPath",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "torch.Size",
    "torch.device",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch.storage.TypedStorage",
    "torch.storage.UntypedStorage",
    "typing.Any",
    "typing.Dict",
    "typing.List",
    "typing.Optional",
    "typing.Tuple",
    "typing.Union",
];

/// What settings and statistics are made of, by the package: classes whose names end so.
const SETTINGS: &[(&str, &[&str])] = &[
    ("fairseq", &["Config", "Dictionary", "Meter"]),
    ("omegaconf", &["Config", "Metadata", "Node"]),
    ("torchscale", &["Config"]),
    ("unilm", &["Config"]),
];

/// Types of numbers.
const TYPES: &[&str] =
    &["bfloat16", "bool", "float16", "float32", "float64", "int16", "int32", "int64", "int8", "strided", "uint8"];

/// Whether a name of a module may stand in a checkpoint. One with a dot would reach into what the module has imported.
pub(super) fn is_known(module: &str, name: &str) -> bool {
    let package = module.split('.').next().unwrap_or_default();
    let is_setting = |(of, endings): &(&str, &[&str])| *of == package && endings.iter().any(|end| name.ends_with(end));
    let is_of_torch = || module == "torch" && (TYPES.contains(&name) || name.ends_with("Storage"));
    !name.contains('.')
        && (KNOWN.iter().any(|known| known.rsplit_once('.') == Some((module, name)))
            || SETTINGS.iter().any(is_setting)
            || is_of_torch())
}
