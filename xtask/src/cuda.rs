//! Server and command line for NVIDIA GPUs. candle's kernels are compiled by nvcc, for the one kind of GPU that is named;
//! burn's, which train, where they run.

use std::env;
use std::iter::once;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Error, Result, ensure};

use crate::{NATIVE, PROGRAMS, cargo_command, run_command, to_dist};

#[cfg(target_os = "linux")]
mod wheels;

const NO_CAPABILITY: &str = "which GPU is it for? Give its compute capability, such as --capability 90: 75 is Turing, 86 \
                             Ampere, 89 Ada, 90 Hopper, 120 Blackwell";

/// Builds server and command line into `dist/`, under names that end in `-cuda`.
pub fn build(
    toolkit: Option<PathBuf>,
    capability: Option<String>,
    flash_attention: bool,
    training: bool,
) -> Result<()> {
    let capability = capability.map_or_else(capability_here, Ok)?;
    let features = features(&capability, flash_attention)?;
    let toolkit = match installed(toolkit)? {
        Some(folder) => folder,
        None => assembled()?,
    };
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(once(toolkit.join("bin")).chain(env::split_paths(&path)))?;
    let build = |packages: &[&str], features: &str| {
        let mut build = cargo_command();
        build.arg("build").args(packages).args(["--bins", "--features", features]);
        // The build scripts of candle's dependencies look for nvcc in different ways.
        build.env("PATH", &path).env("CUDA_HOME", &toolkit).env("NVCC", nvcc(&toolkit));
        run_command(build.env("CUDA_COMPUTE_CAP", &capability))
    };
    build(&NATIVE, features)?;
    for program in PROGRAMS {
        to_dist(program, &format!("{program}-cuda"))?;
    }
    if training {
        // candle links CUDA's libraries, burn loads those that it finds; cudarc, the crate for both, does but one of them.
        build(&["--release", "--package", "kosmosg-models"], "burn-cuda")?;
        to_dist("kosmosg", "kosmosg-train-cuda")?;
        println!(
            "dist/kosmosg-train-cuda needs CUDA's nvvm/libdevice where it runs, as in CUDA_PATH={}",
            toolkit.display()
        );
    }
    if cfg!(target_os = "linux") {
        let libraries = toolkit.join("lib64");
        println!(
            "dist/*-cuda take CUDA's libraries from where the system has them, or LD_LIBRARY_PATH={}",
            libraries.display()
        );
    }
    Ok(())
}

fn features(capability: &str, flash_attention: bool) -> Result<&'static str> {
    if !flash_attention {
        return Ok("kosmosg-server/cuda,kosmosg-models/cuda");
    }
    let enough = capability.parse::<u32>().is_ok_and(|capability| capability >= 80);
    ensure!(
        enough,
        "FlashAttention's kernels need compute capability 80 or more, not {capability}; leave out --flash-attention"
    );
    Ok("kosmosg-server/flash-attention,kosmosg-models/flash-attention")
}

/// A compute capability as compilers take it: 90 for 9.0.
pub fn capability(text: &str) -> Result<String, String> {
    let digits = text.trim().replace('.', "");
    let is_one = (2..=3).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_one { Ok(digits) } else { Err(format!("{text:?} is no compute capability, such as 90 or 9.0")) }
}

/// That of this computer's first GPU, which is what `--device cuda` computes on.
fn capability_here() -> Result<String> {
    let query = Command::new("nvidia-smi").args(["--query-gpu=compute_cap", "--format=csv,noheader"]).output();
    let text = query.context("there is no nvidia-smi to ask").context(NO_CAPABILITY)?.stdout;
    let text = String::from_utf8_lossy(&text);
    capability(text.lines().next().unwrap_or_default()).map_err(Error::msg).context("nvidia-smi").context(NO_CAPABILITY)
}

/// The folder of the toolkit that is `asked` for, or of one that is installed.
fn installed(asked: Option<PathBuf>) -> Result<Option<PathBuf>> {
    if let Some(folder) = asked {
        // Programs that are started elsewhere look for it.
        let folder = std::path::absolute(folder)?;
        ensure!(nvcc(&folder).exists(), "there is no {}; --toolkit is the folder above bin", nvcc(&folder).display());
        return Ok(Some(folder));
    }
    let told = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os).map(PathBuf::from);
    Ok(told.chain(["/usr/local/cuda".into()]).find(|folder| nvcc(folder).exists()))
}

/// A toolkit of NVIDIA's packages for Python.
fn assembled() -> Result<PathBuf> {
    #[cfg(target_os = "linux")]
    return wheels::assemble(&crate::target_dir()?.join("cuda"));
    #[cfg(not(target_os = "linux"))]
    anyhow::bail!(
        "there is no nvcc; install NVIDIA's CUDA toolkit, and name its folder with --toolkit if it is not found"
    );
}

fn nvcc(toolkit: &Path) -> PathBuf {
    toolkit.join("bin").join(format!("nvcc{}", env::consts::EXE_SUFFIX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flash_attention_is_refused_where_it_does_not_run() {
        assert!(features("120", true).unwrap().contains("flash-attention"));
        assert!(!features("75", false).unwrap().contains("flash-attention"));
        assert!(features("75", true).unwrap_err().to_string().contains("not 75"));
    }

    #[test]
    fn capabilities_are_read_in_both_forms() {
        assert_eq!(capability("9.0\n").unwrap(), "90");
        assert_eq!(capability("120").unwrap(), "120");
        for text in
            ["", "9", "[N/A]", "sm_90", "NVIDIA-SMI has failed because it couldn't communicate with the driver."]
        {
            assert!(capability(text).is_err(), "{text}");
        }
    }
}
