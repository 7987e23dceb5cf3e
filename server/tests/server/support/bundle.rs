//! A bundle without weights, and LoRAs without any.

use std::path::Path;

use kosmosg::bundle::{MANIFEST, Manifest, PartFile};
use kosmosg::config::SpecialTokens;
use kosmosg::schedule::SchedulerConfig;
use kosmosg::tokenizer::{Piece, PieceKind, Vocabulary};
use serde_json::json;

/// Name of the test bundle.
pub const BUNDLE: &str = "small";

/// Names of the LoRAs beside it.
pub const LORAS: [&str; 2] = ["silk", "wool"];

/// Contents of the test bundle's part `unet`.
pub fn unet_file() -> Vec<u8> {
    (0..1000).map(|index| index as u8).collect()
}

/// Writes it into a folder of models, beside a file that is nobody's business.
pub fn write_bundle(models: &Path) {
    let dir = models.join(BUNDLE);
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(models.join("secret.txt"), "not for the world").unwrap();
    std::fs::write(dir.join("notes.txt"), "not in the manifest").unwrap();
    let piece = |text: &str, kind| Piece { text: text.into(), score: -1.0, kind };
    let special = ["<s>", "<pad>", "</s>", "<unk>", "<image>", "</image>"];
    let words = ["▁", "▁a", "▁and"].map(|text| piece(text, PieceKind::Normal));
    let tokenizer = Vocabulary {
        pieces: special.map(|text| piece(text, PieceKind::Special)).into_iter().chain(words).collect(),
        unk: 3,
        charsmap: Vec::new(),
        add_dummy_prefix: true,
        remove_extra_whitespaces: true,
        space: '▁',
    };
    let tokenizer = tokenizer.to_json();
    let unet = unet_file();
    let special = SpecialTokens { bos: 0, pad: 1, eos: 2, unk: 3, boi: 4, eoi: 5 };
    let manifest = json!({
        "format": 1,
        "name": "A small one",
        "family": "kosmos-g",
        "picture_size": 32,
        "networks": {
            "kosmosg": {
                "mllm": { "vocab_size": 9, "dim": 8, "layers": 1, "heads": 1, "ffn_dim": 8 },
                "vision": { "image_size": 8, "patch_size": 4, "width": 8, "layers": 1, "heads": 1, "mlp_ratio": 1 },
                "connector": { "latent_queries": 2 },
                "aligner": { "dim": 8, "layers": 1, "heads": 1, "ffn_dim": 8, "queries": 3, "max_positions": 34 },
                "special": special,
            },
            "unet": {
                "block_out_channels": [8],
                "layers_per_block": 1,
                "down_block_types": ["DownBlock2D"],
                "up_block_types": ["UpBlock2D"],
                "cross_attention_dim": 8,
                "norm_num_groups": 4,
            },
            "vae": { "block_out_channels": [8, 8, 8, 8], "layers_per_block": 1, "norm_num_groups": 4 },
        },
        "scheduler": SchedulerConfig::stable_diffusion(),
        "defaults": { "sampler": "dpmpp-2m", "steps": 20, "guidance": 5.0 },
        "tokenizer": PartFile::new("tokenizer.json", &tokenizer),
        "licence": "none",
        "origin": "a test",
        "parts": {
            "unet": {
                "files": [PartFile::new("unet.gguf", &unet)],
                "bytes": unet.len(),
                "memory_bytes": 0,
                "largest_tensor_bytes": 0,
            },
        },
    });
    let manifest = serde_json::to_vec(&manifest).unwrap();
    Manifest::from_json(&manifest).unwrap();
    std::fs::write(dir.join(MANIFEST), manifest).unwrap();
    std::fs::write(dir.join("tokenizer.json"), tokenizer).unwrap();
    std::fs::write(dir.join("unet.gguf"), unet).unwrap();
    let loras = models.join("loras");
    std::fs::create_dir(&loras).unwrap();
    std::fs::write(loras.join("notes.txt"), "no LoRA").unwrap();
    for name in LORAS {
        std::fs::write(loras.join(format!("{name}.safetensors")), name).unwrap();
    }
}
