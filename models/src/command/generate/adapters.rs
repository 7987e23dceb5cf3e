//! LoRAs and a ControlNet, as the command line names them.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, bail};
use kosmosg::bundle::{Manifest, Tensors};
use kosmosg::config::UNetConfig;
use kosmosg::controlnet::{Control, ControlNet};
use kosmosg::engine::Engine;
use kosmosg::weights::{load, lora, safetensors};

use crate::command::read_picture;

/// What changes or accompanies a model's U-Net.
#[derive(Debug, clap::Args)]
pub struct Adapters {
    /// A LoRA of the U-Net, in diffusers' or kohya's form, and its strength [default: 1].
    #[arg(long = "lora", value_name = "FILE[:SCALE]")]
    loras: Vec<Lora>,
    /// A ControlNet in diffusers' form: config.json and diffusion_pytorch_model.safetensors.
    #[arg(long, value_name = "DIR", requires = "control")]
    controlnet: Option<PathBuf>,
    /// The picture that the ControlNet follows, such as edges or a pose.
    #[arg(long, value_name = "FILE", requires = "controlnet")]
    control: Option<PathBuf>,
    /// How closely the ControlNet's picture is followed.
    #[arg(long, value_name = "SCALE", default_value_t = 1.0)]
    control_scale: f32,
}

#[derive(Debug, Clone, PartialEq)]
struct Lora {
    file: PathBuf,
    scale: f32,
}

impl FromStr for Lora {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (file, scale) = match text.rsplit_once(':').map(|(file, scale)| (file, scale.parse())) {
            Some((file, Ok(scale))) => (file, scale),
            _ => (text, 1.0),
        };
        match f32::is_finite(scale) {
            true => Ok(Self { file: file.into(), scale }),
            false => Err(format!("the strength of {file} is {scale}, expected a number")),
        }
    }
}

impl Adapters {
    /// Merges all LoRAs into the U-Net's weights.
    pub fn merge(&self, unet: &mut Tensors) -> anyhow::Result<()> {
        for Lora { file, scale } in &self.loras {
            lora::merge_file(unet, read(file)?, *scale).with_context(|| file.display().to_string())?;
        }
        Ok(())
    }

    /// The ControlNet with its picture, if one is asked for, for latents of `[height, width]`.
    pub fn control<E: Engine>(
        &self,
        manifest: &Manifest,
        latents: [usize; 2],
        device: &E::Device,
    ) -> anyhow::Result<Option<Control<E>>> {
        let (Some(dir), Some(picture)) = (&self.controlnet, &self.control) else { return Ok(None) };
        let file = dir.join("config.json");
        let config: UNetConfig = serde_json::from_slice(&read(&file)?).with_context(|| file.display().to_string())?;
        config.validate_controlnet().with_context(|| file.display().to_string())?;
        if !manifest.networks.unet.takes_controlnet(&config) || config.conditioning_channels.unwrap_or(3) != 3 {
            bail!("{}: its sizes are not those of the U-Net of {}", file.display(), manifest.name);
        }
        let weights = dir.join("diffusion_pytorch_model.safetensors");
        let tensors = safetensors::read(&weights.display().to_string(), read(&weights)?)?;
        let controlnet = load(&tensors, device, |weights| ControlNet::new(weights, &config));
        let controlnet = controlnet.with_context(|| weights.display().to_string())?;
        let picture = read_picture(picture)?;
        Ok(Some(Control::new(controlnet, &picture, latents, self.control_scale, device)))
    }

    /// What a recipe says about them.
    pub fn names(&self) -> Vec<String> {
        let name = |path: &Path| path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let loras = self.loras.iter().map(|Lora { file, scale }| lora::label(&name(file), *scale));
        let controlnet = self.controlnet.iter().map(|dir| format!("controlnet {} × {}", name(dir), self.control_scale));
        loras.chain(controlnet).collect()
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strength_follows_the_last_colon() {
        let lora = |text: &str| text.parse::<Lora>();
        assert_eq!(lora("a.safetensors").unwrap(), Lora { file: "a.safetensors".into(), scale: 1.0 });
        assert_eq!(lora("a.safetensors:0.5").unwrap(), Lora { file: "a.safetensors".into(), scale: 0.5 });
        assert_eq!(lora("C:a.safetensors").unwrap(), Lora { file: "C:a.safetensors".into(), scale: 1.0 });
        assert!(lora("a:nan").unwrap_err().contains("strength"));
    }
}
