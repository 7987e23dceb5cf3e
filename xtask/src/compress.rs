//! Compresses a folder's files, as small as it gets, which takes minutes; so what came of a file is kept for the next time.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::files::{files_below, hex};

/// Files that are worth compressing.
const TEXTUAL: [&str; 7] = ["css", "html", "js", "json", "svg", "wasm", "webmanifest"];
/// Ends of the names of compressed files.
const FORMS: [(&str, Form); 2] = [("br", brotli), ("gz", gzip)];

type Form = fn(&[u8]) -> Result<Vec<u8>>;

/// Puts `.br` and `.gz` beside what compresses in `folder`. `kept` holds those of the last time by the hash of what they are
/// made of, and then those of this time.
pub fn compress(folder: &Path, kept: &Path) -> Result<()> {
    fs::create_dir_all(kept).with_context(|| kept.display().to_string())?;
    let mut used = BTreeSet::new();
    for file in files_below(folder)?.into_iter().filter(|file| has_end(file, &TEXTUAL)) {
        let contents = fs::read(&file)?;
        let hash = hex(&Sha256::digest(&contents));
        for (end, form) in FORMS {
            let known = kept.join(format!("{hash}.{end}"));
            if !known.exists() {
                // A build that is interrupted leaves nothing under that name.
                let fresh = kept.join("new");
                fs::write(&fresh, form(&contents)?)?;
                fs::rename(&fresh, &known)?;
            }
            let beside = compressed(&file, end);
            fs::copy(&known, &beside).with_context(|| beside.display().to_string())?;
            used.insert(known);
        }
    }
    for old in files_below(kept)?.into_iter().filter(|file| !used.contains(file)) {
        fs::remove_file(&old).with_context(|| old.display().to_string())?;
    }
    Ok(())
}

/// The compressed file beside another.
pub fn compressed(file: &Path, end: &str) -> PathBuf {
    PathBuf::from(format!("{}.{end}", file.display()))
}

/// Whether this is one of the files that stand beside another.
pub fn is_compressed(file: &Path) -> bool {
    has_end(file, &FORMS.map(|(end, _)| end))
}

fn has_end(file: &Path, ends: &[&str]) -> bool {
    file.extension().is_some_and(|end| ends.iter().any(|known| end == *known))
}

fn brotli(contents: &[u8]) -> Result<Vec<u8>> {
    let mut writer = brotli::CompressorWriter::new(Vec::new(), 1 << 16, 11, 24);
    writer.write_all(contents)?;
    Ok(writer.into_inner())
}

fn gzip(contents: &[u8]) -> Result<Vec<u8>> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    writer.write_all(contents)?;
    Ok(writer.finish()?)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_was_compressed_is_kept_while_it_is_used() {
        let [folder, kept] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let names = |folder: &Path| {
            let names = files_below(folder).unwrap().into_iter();
            names.map(|file| file.file_name().unwrap().to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        let page = folder.path().join("page.html");
        fs::write(&page, "a page").unwrap();
        fs::write(folder.path().join("picture.png"), "a picture").unwrap();
        compress(folder.path(), kept.path()).unwrap();
        assert_eq!(names(folder.path()), ["page.html", "page.html.br", "page.html.gz", "picture.png"]);
        let (mut br, mut gz) = (Vec::new(), Vec::new());
        let open = |end: &str| fs::File::open(compressed(&page, end)).unwrap();
        brotli::Decompressor::new(open("br"), 4096).read_to_end(&mut br).unwrap();
        flate2::read::GzDecoder::new(open("gz")).read_to_end(&mut gz).unwrap();
        assert_eq!([br, gz], [b"a page", b"a page"]);

        // What is kept is taken; what nothing needs goes.
        let first = names(kept.path());
        fs::write(kept.path().join(&first[0]), "taken").unwrap();
        compress(folder.path(), kept.path()).unwrap();
        assert_eq!(fs::read(compressed(&page, "br")).unwrap(), b"taken");
        fs::write(&page, "another page").unwrap();
        compress(folder.path(), kept.path()).unwrap();
        let second = names(kept.path());
        assert_eq!(second.len(), 2);
        assert!(second.iter().all(|name| !first.contains(name)), "{first:?} {second:?}");
    }
}
