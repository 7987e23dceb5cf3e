//! A checkpoint as fairseq writes it by `torch.save`: a zip file with a pickle and a file for each tensor.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::Context as _;
use kosmosg::config::KosmosGConfig;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::{Shapes, numbers};

/// Writes random weights of these shapes.
pub(super) fn write(
    path: &Path,
    config: &KosmosGConfig,
    shapes: &Shapes,
    seed: u64,
    mut progress: impl FnMut(&str),
) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    let mut zip = ZipWriter::new(BufWriter::new(File::create(path).with_context(cannot)?));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut entry = |name: &str, bytes: &[u8]| -> anyhow::Result<()> {
        zip.start_file(format!("checkpoint_final/{name}"), stored).with_context(cannot)?;
        zip.write_all(bytes).with_context(cannot)
    };
    entry("data.pkl", &pickle(config, shapes))?;
    entry("byteorder", b"little")?;
    for (i, (name, shape)) in shapes.iter().enumerate() {
        progress(name);
        entry(&format!("data/{i}"), &numbers(name, shape, seed))?;
    }
    entry("version", b"3\n")?;
    zip.finish().and_then(|mut file| Ok(file.flush()?)).with_context(cannot)
}

/// The checkpoint's dictionary; protocol 2.
fn pickle(config: &KosmosGConfig, shapes: &Shapes) -> Vec<u8> {
    let mut out = Pickler(vec![0x80, 2]);
    out.dictionary(|out| {
        out.entry("args", |out| out.0.push(b'N'));
        out.entry("cfg", |out| {
            out.dictionary(|out| {
                out.entry("model", |out| {
                    out.dictionary(|out| {
                        out.entry("_name", |out| out.text("kosmosg_xl"));
                        out.entry("decoder_layers", |out| out.int(config.mllm.layers));
                        out.entry("decoder_embed_dim", |out| out.int(config.mllm.dim));
                        out.entry("decoder_attention_heads", |out| out.int(config.mllm.heads));
                        out.entry("decoder_ffn_embed_dim", |out| out.int(config.mllm.ffn_dim));
                        out.entry("latent_query_num", |out| out.int(config.connector.latent_queries));
                    });
                });
                out.entry("task", |out| {
                    out.dictionary(|out| {
                        out.entry("image_token_length", |out| out.int(config.connector.latent_queries));
                    });
                });
            });
        });
        out.entry("model", |out| {
            out.dictionary(|out| {
                for (i, (name, shape)) in shapes.iter().enumerate() {
                    out.entry(name, |out| out.tensor(i, shape));
                }
            });
        });
    });
    out.0.push(b'.');
    out.0
}

struct Pickler(Vec<u8>);

impl Pickler {
    fn dictionary(&mut self, entries: impl FnOnce(&mut Self)) {
        self.0.extend(b"}(");
        entries(self);
        self.0.push(b'u');
    }

    fn entry(&mut self, name: &str, value: impl FnOnce(&mut Self)) {
        self.text(name);
        value(self);
    }

    fn text(&mut self, text: &str) {
        self.0.push(b'X');
        self.0.extend((text.len() as u32).to_le_bytes());
        self.0.extend(text.as_bytes());
    }

    fn int(&mut self, int: usize) {
        self.0.push(b'J');
        self.0.extend((int as i32).to_le_bytes());
    }

    /// `_rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())`
    fn tensor(&mut self, key: usize, shape: &[usize]) {
        let mut strides = vec![1; shape.len()];
        for dim in (1..shape.len()).rev() {
            strides[dim - 1] = strides[dim] * shape[dim];
        }
        self.0.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        self.text("storage");
        self.0.extend(b"ctorch\nHalfStorage\n");
        self.text(&key.to_string());
        self.text("cpu");
        self.int(shape.iter().product());
        self.0.extend(b"tQ");
        self.int(0);
        for sizes in [shape, &strides] {
            self.0.push(b'(');
            sizes.iter().for_each(|&size| self.int(size));
            self.0.push(b't');
        }
        self.0.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
}
