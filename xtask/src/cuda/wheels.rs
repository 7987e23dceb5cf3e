//! A CUDA toolkit from NVIDIA's packages for Python. They hold a toolkit's files but for some names that linkers ask for.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::run;

/// The packages, all of one release.
const WHEELS: [&str; 8] = [
    "nvidia-cublas==13.0.*",
    "nvidia-cuda-cccl==13.0.*",
    "nvidia-cuda-crt==13.0.*",
    "nvidia-cuda-nvcc==13.0.*",
    "nvidia-cuda-nvrtc==13.0.*",
    "nvidia-cuda-runtime==13.0.*",
    "nvidia-curand==10.4.0.*",
    "nvidia-nvvm==13.0.*",
];
/// Where they install themselves, below Python's folder of packages.
const PLACE: &str = "nvidia/cu13";

/// Installs the packages into the folder `environment`, unless they are there, and makes a toolkit of them.
pub fn assemble(environment: &Path) -> Result<PathBuf> {
    eprintln!("no CUDA toolkit is installed here: taking nvcc from NVIDIA's packages for Python, 1.2 GB on the disk");
    let name = environment.to_string_lossy();
    run("python3", ["-m", "venv", &name])
        .context("install Python 3 with venv (Debian: python3-venv), or a CUDA toolkit and name it with --toolkit")?;
    let python = environment.join("bin/python");
    run(&python, ["-m", "pip", "install"].into_iter().chain(WHEELS)).with_context(|| {
        format!("the packages come from PyPI; try again, remove {name} first, or name a CUDA toolkit with --toolkit")
    })?;
    let packages =
        Command::new(&python).args(["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).output()?;
    let toolkit = Path::new(String::from_utf8(packages.stdout)?.trim()).join(PLACE);
    let libraries = toolkit.join("lib");
    ensure!(libraries.is_dir(), "NVIDIA's packages are not in {}; remove {name} and try again", toolkit.display());
    link("lib", &toolkit.join("lib64"))?;
    for library in libraries.read_dir()? {
        let library = library?.file_name();
        if let Some((name, plain)) = library.to_str().and_then(|name| Some((name, unversioned(name)?))) {
            link(name, &libraries.join(plain))?;
        }
    }
    write_driver_stub(&toolkit)?;
    Ok(toolkit)
}

/// The name that linkers look for.
fn unversioned(library: &str) -> Option<&str> {
    let end = library.find(".so.")? + ".so".len();
    library.get(..end)
}

fn link(target: &str, name: &Path) -> Result<()> {
    // An earlier call may have made it.
    if !name.is_symlink() {
        symlink(target, name).with_context(|| name.display().to_string())?;
    }
    Ok(())
}

/// Makes a library with the names of the driver's functions. The real one comes with a GPU's driver, which a computer that
/// only builds need not have.
fn write_driver_stub(toolkit: &Path) -> Result<()> {
    let header = toolkit.join("include/cuda.h");
    let header = fs::read_to_string(&header).with_context(|| header.display().to_string())?;
    let folder = toolkit.join("lib/stubs");
    fs::create_dir_all(&folder)?;
    let source = folder.join("libcuda.c");
    let functions = driver_functions(&header).into_iter().map(|name| format!("void {name}(void) {{}}\n"));
    fs::write(&source, functions.collect::<String>())?;
    let (source, library) = (source.to_string_lossy(), folder.join("libcuda.so"));
    let arguments = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", &source, "-o", &library.to_string_lossy()];
    run("cc", arguments).context("install a C compiler (Debian: build-essential)")
}

/// All that the header calls like a function of the driver: it declares some names, and replaces others by later versions.
fn driver_functions(header: &str) -> BTreeSet<&str> {
    let words = header.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
    let is_name = |word: &&str| {
        word.strip_prefix("cu").is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_uppercase()))
    };
    words.filter(is_name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_for_linkers() {
        assert_eq!(unversioned("libnvrtc-builtins.so.13.0"), Some("libnvrtc-builtins.so"));
        assert_eq!(unversioned("libcublas.so"), None);
        assert_eq!(unversioned("libcudart_static.a"), None);
    }

    #[test]
    fn a_header_names_functions_and_their_versions() {
        let header =
            "#define cuCtxCreate cuCtxCreate_v4\nCUresult CUDAAPI cuInit(unsigned int Flags);\ncudaStream_t custom;";
        assert_eq!(Vec::from_iter(driver_functions(header)), ["cuCtxCreate", "cuCtxCreate_v4", "cuInit"]);
    }
}
