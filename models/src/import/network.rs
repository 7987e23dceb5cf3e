//! The sizes of KOSMOS-G's networks, from the tensors of its checkpoint and what its configuration says.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use kosmosg::config::{
    AlignerConfig, ClipTextConfig, ConnectorConfig, KosmosGConfig, MllmConfig, SpecialTokens, UNetConfig, VaeConfig,
    VisionConfig,
};
use serde::Deserialize;

use super::pickle::{Id, Pickle};
use super::source::{Shapes, places};

/// Sizes as a file says them: `{"config": {"mllm": …}}`.
#[derive(Debug, Deserialize)]
pub struct Given {
    /// Those of KOSMOS-G.
    pub config: KosmosGConfig,
    /// The denoiser of a decoder in one file, as diffusers writes it.
    pub unet: Option<UNetConfig>,
    /// Its autoencoder.
    pub vae: Option<VaeConfig>,
    /// Its text encoder, as transformers writes it.
    pub text: Option<ClipTextConfig>,
}

/// Reads such a file.
///
/// # Errors
/// The file cannot be read, or says no sizes that networks can have.
pub fn read(path: &Path) -> anyhow::Result<Given> {
    let json = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut given: Given =
        serde_json::from_slice(&json).with_context(|| format!("{} says no sizes", path.display()))?;
    given.config.validate().with_context(|| path.display().to_string())?;
    // As many as the others need not be said.
    let aligner = &mut given.config.aligner;
    aligner.sequence_layers = aligner.sequence_layers.filter(|&layers| layers != aligner.layers);
    Ok(given)
}

/// The sizes of the networks with these tensors. Numbers of heads show in no tensor: those of the language model are in the
/// checkpoint's `settings`, the others are `known` or, for networks of the published sizes, the published ones. Nor do layers that
/// are missing at the end: there have to be as many as the settings say, or else as are `known` or published.
///
/// # Errors
/// A tensor that tells a size is missing, sizes that are known are others, or a number of heads is nowhere.
pub fn sizes(
    shapes: &Shapes<'_>,
    settings: Option<&Settings<'_>>,
    special: &SpecialTokens,
    known: Option<&KosmosGConfig>,
) -> anyhow::Result<KosmosGConfig> {
    let published = KosmosGConfig::published();
    let [vocab_size, dim] = shape(shapes, "gpt_model.decoder.embed_tokens.weight")?;
    let [ffn_dim, _] = shape(shapes, "gpt_model.decoder.layers.0.ffn.fc1.weight")?;
    let [width, _, patch_size, _] = shape(shapes, "img_model.visual.conv1.weight")?;
    let [positions, _] = shape(shapes, "img_model.visual.positional_embedding")?;
    let [mlp, _] = shape(shapes, "img_model.visual.transformer.resblocks.0.mlp.c_fc.weight")?;
    let [latent_queries, _] = shape(shapes, "img_connector.latent_query")?;
    let [queries, aligner_dim] = shape(shapes, "aligner.encoder_query")?;
    let [aligner_ffn_dim, _] = shape(shapes, "aligner.encoder.layers.0.ffn.fc1.weight")?;
    let [max_positions, _] = shape(shapes, "aligner.encoder_proj.embed_positions.weight")?;
    let side = (positions.saturating_sub(1)).isqrt();
    ensure!(side * side + 1 == positions, "the vision tower has {positions} positions, which is no square and one");
    let aligner_layers = places(shapes, "aligner.encoder.layers");
    let sequence_layers = places(shapes, "aligner.encoder_proj.layers");
    let mut config = KosmosGConfig {
        mllm: MllmConfig { vocab_size, dim, layers: places(shapes, "gpt_model.decoder.layers"), heads: 0, ffn_dim },
        vision: VisionConfig {
            image_size: side * patch_size,
            patch_size,
            width,
            layers: places(shapes, "img_model.visual.transformer.resblocks"),
            heads: 0,
            mlp_ratio: mlp / width.max(1),
        },
        connector: ConnectorConfig { latent_queries, heads: None },
        aligner: AlignerConfig {
            dim: aligner_dim,
            layers: aligner_layers,
            sequence_layers: (sequence_layers != aligner_layers).then_some(sequence_layers),
            heads: 0,
            ffn_dim: aligner_ffn_dim,
            queries,
            max_positions,
        },
        special: special.clone(),
    };
    let told = settings.and_then(|settings| settings.size("decoder_attention_heads"));
    let given = known.unwrap_or(&published);
    // Where they are found: in the checkpoint, in the given sizes, or in those of the published model if it is as wide.
    let heads = |what: &str, told: Option<usize>, width: usize, [given_width, given]: [usize; 2]| {
        if let (Some(told), Some(_)) = (told, known) {
            ensure!(told == given, "the checkpoint says {told} heads of the {what}, the given sizes say {given}");
        }
        told.or((known.is_some() || width == given_width).then_some(given)).with_context(|| {
            format!(
                "the checkpoint does not say how many heads the {what} has, and its sizes are not the published ones; \
                 give them with --network config.json"
            )
        })
    };
    config.mllm.heads = heads("language model", told, dim, [given.mllm.dim, given.mllm.heads])?;
    config.vision.heads = heads("vision tower", None, width, [given.vision.width, given.vision.heads])?;
    config.aligner.heads = heads("aligner", None, aligner_dim, [given.aligner.dim, given.aligner.heads])?;
    config.connector.heads = known.and_then(|known| known.connector.heads);
    if let Some(known) = known
        && *known != config
    {
        bail!("the tensors have other sizes than --network says:\n  tensors: {config:?}\n  given:   {known:?}");
    }
    config.validate().context("the checkpoint's networks cannot be")?;
    if known.is_none() {
        check_whole(&config, settings)?;
    }
    Ok(config)
}

/// Refuses networks that are not of the sizes in the settings, or of fewer layers than the published ones of their widths: layers
/// that are missing at the end show in no tensor.
fn check_whole(config: &KosmosGConfig, settings: Option<&Settings<'_>>) -> anyhow::Result<()> {
    const OTHERWISE: &str =
        "some are missing; or if that is how it was made, give its sizes with --network config.json";
    let KosmosGConfig { mllm, vision, connector, aligner, .. } = config;
    let published = KosmosGConfig::published();
    let told = |name| settings.and_then(|settings| settings.size(name));
    for (name, found) in [
        ("decoder_layers", mllm.layers),
        ("decoder_embed_dim", mllm.dim),
        ("decoder_ffn_embed_dim", mllm.ffn_dim),
        ("latent_query_num", connector.latent_queries),
        ("image_token_length", connector.latent_queries),
    ] {
        let told = told(name).unwrap_or(found);
        ensure!(told == found, "the checkpoint's settings say {name} {told}, its tensors {found}: {OTHERWISE}");
    }
    let sequence_layers = aligner.sequence_layers.unwrap_or(aligner.layers);
    let published_mllm = told("decoder_layers").unwrap_or(published.mllm.layers);
    for (what, [width, published_width], [layers, published_layers]) in [
        ("language model", [mllm.dim, published.mllm.dim], [mllm.layers, published_mllm]),
        ("vision tower", [vision.width, published.vision.width], [vision.layers, published.vision.layers]),
        ("aligner", [aligner.dim, published.aligner.dim], [aligner.layers, published.aligner.layers]),
        ("aligner's sequence", [aligner.dim, published.aligner.dim], [sequence_layers, published.aligner.layers]),
    ] {
        ensure!(
            width != published_width || layers == published_layers,
            "the {what} has {layers} layers, the published one of its width {published_layers}: {OTHERWISE}"
        );
    }
    Ok(())
}

/// The shape of a tensor that tells sizes.
fn shape<const D: usize>(shapes: &Shapes<'_>, name: &str) -> anyhow::Result<[usize; D]> {
    let shape = *shapes.get(name).with_context(|| missing(shapes, name))?;
    shape.try_into().with_context(|| format!("tensor `{name}` has shape {shape:?}, expected {D} dimensions"))
}

fn missing(shapes: &Shapes<'_>, name: &str) -> String {
    let has = |beginning: &str| shapes.keys().any(|name| name.starts_with(beginning));
    match (has("gpt_model."), has("aligner.")) {
        (false, _) => format!("tensor `{name}` is missing: this is no checkpoint of KOSMOS-G"),
        (true, false) => {
            format!("tensor `{name}` is missing: this is a checkpoint of stage 1, before there is an AlignerNet")
        }
        (true, true) => format!("tensor `{name}` is missing"),
    }
}

/// The settings in a fairseq checkpoint: plain dictionaries, OmegaConf's or argparse's.
#[derive(Debug)]
pub struct Settings<'a>(pub &'a Pickle);

impl Settings<'_> {
    /// A size by its name.
    fn size(&self, name: &str) -> Option<usize> {
        let root = self.0.root();
        let sections = ["model", "task"].map(|section| self.field(self.field(root, "cfg")?, section));
        let sections = sections.into_iter().chain([self.field(root, "args")]).flatten();
        let value = sections.into_iter().find_map(|section| self.field(section, name))?;
        let value = self.0.get(value, "_val").unwrap_or(value);
        usize::try_from(self.0.int(value)?).ok()
    }

    fn field(&self, of: Id, name: &str) -> Option<Id> {
        self.0.get(of, name).or_else(|| self.0.get(self.0.get(of, "_content")?, name))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kosmosg::encoder::EncoderNetworks;
    use kosmosg::engine::blueprint;

    use super::*;

    /// The sizes that the published tensors tell without those whose names begin so.
    fn sizes_without(
        beginning: &str,
        settings: Option<&[u8]>,
        known: Option<&KosmosGConfig>,
    ) -> Result<KosmosGConfig, String> {
        let published = KosmosGConfig::published();
        let tensors: BTreeMap<String, Vec<usize>> =
            blueprint::weights(|weights| EncoderNetworks::new(weights, &published)).unwrap();
        let left = tensors.iter().filter(|(name, _)| !name.starts_with(beginning));
        let shapes = left.map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
        let settings = settings.map(|pickle| Pickle::read(pickle).unwrap());
        let settings = settings.as_ref().map(Settings);
        sizes(&shapes, settings.as_ref(), &published.special, known).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn layers_that_are_missing_at_the_end_are_missed() {
        let published = KosmosGConfig::published();
        assert_eq!(sizes_without("none", None, None), Ok(published.clone()));
        for (beginning, what) in [
            ("gpt_model.decoder.layers.23.", "language model has 23 layers"),
            ("img_model.visual.transformer.resblocks.23.", "vision tower has 23 layers"),
            ("aligner.encoder.layers.11.", "aligner has 11 layers"),
            ("aligner.encoder_proj.layers.11.", "aligner's sequence has 11 layers"),
        ] {
            let error = sizes_without(beginning, None, None).unwrap_err();
            assert!(error.contains(what) && error.contains("--network"), "{error}");
        }
        let mut meant = published;
        meant.mllm.layers = 23;
        assert_eq!(sizes_without("gpt_model.decoder.layers.23.", None, Some(&meant)), Ok(meant.clone()));
    }

    #[test]
    fn a_checkpoints_settings_are_held_against_its_tensors() {
        let settings = |section: &str, name: &str, size: usize| {
            format!("(dVcfg\n(dV{section}\n(dV{name}\nI{size}\nsss.").into_bytes()
        };
        for (section, name, size) in [
            ("model", "decoder_layers", 24),
            ("model", "decoder_embed_dim", 2048),
            ("model", "decoder_ffn_embed_dim", 8192),
            ("model", "latent_query_num", 64),
            ("task", "image_token_length", 64),
        ] {
            assert_eq!(sizes_without("none", Some(&settings(section, name, size)), None).err(), None);
            let error = sizes_without("none", Some(&settings(section, name, size + 1)), None).unwrap_err();
            assert!(error.contains(&format!("{name} {}, its tensors {size}", size + 1)), "{error}");
        }
        // Whoever knows better has the last word.
        let published = KosmosGConfig::published();
        let wrong = settings("model", "decoder_layers", 6);
        assert_eq!(sizes_without("none", Some(&wrong), Some(&published)), Ok(published.clone()));
        // Fewer layers are no error if the settings say so.
        let fewer = settings("model", "decoder_layers", 23);
        assert_eq!(sizes_without("gpt_model.decoder.layers.23.", Some(&fewer), None).unwrap().mllm.layers, 23);
    }

    #[test]
    fn as_many_layers_as_the_others_may_be_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sizes.json");
        let mut config = KosmosGConfig::published();
        for (layers, read_as) in [(12, None), (0, Some(0))] {
            config.aligner.sequence_layers = Some(layers);
            std::fs::write(&path, serde_json::json!({ "config": config }).to_string()).unwrap();
            assert_eq!(read(&path).unwrap().config.aligner.sequence_layers, read_as);
        }
    }
}
