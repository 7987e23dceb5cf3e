//! Which device and server get which stage.

use std::collections::BTreeMap;

use serde_json::json;

use super::Place::{DeviceCpu, DeviceGpu, Server as OnServer};
use super::{
    Device, Failure, FailureKind, Gpu, ModelSize, Placement, PlacementError, Server, Situation, Stage, StageSize, Wish,
    place,
};
use crate::bundle::{Manifest, Planned};
use crate::config::activations::tests::stable_diffusion;
use crate::config::{Activations, KosmosGConfig};
use crate::encoder::EncoderNetworks;
use crate::engine::blueprint;
use crate::schedule::SchedulerConfig;
use crate::unet::UNet;
use crate::vae::VaeDecoder;
use crate::weights::DType;

const MB: u64 = 1_000_000;
const NO_WEBGPU: Result<Gpu, &str> = Err("this browser offers no WebGPU");

/// A model whose encoder, U-Net and autoencoder have weights of this many MB.
fn model(megabytes: [u64; 3]) -> ModelSize {
    let [encode, denoise, decode] = megabytes.map(|size| size * MB);
    let activations = Activations::default();
    let stage = |memory_bytes| StageSize { memory_bytes, largest_tensor_bytes: memory_bytes / 10, activations };
    ModelSize { encode: stage(encode), denoise: stage(denoise), decode: stage(decode) }
}

/// A GPU with the least that WebGPU promises.
fn gpu(memory_mb: u64) -> Result<Gpu, &'static str> {
    let (max_buffer_size, max_storage_buffer_binding_size) = (256 << 20, 128 << 20);
    Ok(Gpu { max_buffer_size, max_storage_buffer_binding_size, memory_bytes: memory_mb * MB })
}

/// The published model with its matrices in that form, of the sizes that its networks have; the autoencoder has f16.
fn published(form: DType) -> ModelSize {
    let (unet, vae) = stable_diffusion();
    let kosmosg = KosmosGConfig::published();
    let part = |weights: BTreeMap<String, Vec<usize>>, form: DType| {
        let loaded = |(name, shape): (String, Vec<usize>)| {
            let dtype = if shape.len() == 2 { form } else { DType::F16 };
            Planned { name, shape, dtype }.loaded_bytes()
        };
        let sizes: Vec<_> = weights.into_iter().map(loaded).collect();
        let (all, largest): (u64, _) = (sizes.iter().sum(), sizes.iter().max().copied().unwrap_or(0));
        json!({ "files": [], "bytes": 0, "memory_bytes": all, "largest_tensor_bytes": largest })
    };
    let encoder = blueprint::weights(|weights| EncoderNetworks::new(weights, &kosmosg)).unwrap();
    let json = json!({
        "format": 1, "name": "", "family": "kosmos-g", "picture_size": 512, "licence": "", "origin": "",
        "scheduler": SchedulerConfig::stable_diffusion(),
        "defaults": { "sampler": "dpmpp-2m", "steps": 25, "guidance": 6.0 },
        "tokenizer": { "name": "tokenizer.json", "bytes": 1, "sha256": "" },
        "parts": {
            "vision": part(BTreeMap::new(), form),
            "mllm": part(encoder, form),
            "aligner": part(BTreeMap::new(), form),
            "unet": part(blueprint::weights(|weights| UNet::new(weights, &unet)).unwrap(), form),
            "vae": part(blueprint::weights(|weights| VaeDecoder::new(weights, &vae)).unwrap(), DType::F16),
        },
        "networks": { "kosmosg": kosmosg, "unet": unet, "vae": vae },
    });
    ModelSize::of(&Manifest::from_json(&serde_json::to_vec(&json).unwrap()).unwrap()).unwrap()
}

/// Limits as WebGPU tells them, and memory as the page estimates it: half of what the browser tells of the device's. Whether
/// there is f16 is no input: see [`Gpu`].
#[test]
fn the_published_model_finds_its_place_on_real_devices() {
    let (q4, f16) = (published(DType::Q4_0), published(DType::F16));
    let integrated =
        Gpu { max_buffer_size: 1 << 30, max_storage_buffer_binding_size: 1 << 30, memory_bytes: 1000 * MB };
    let discrete =
        Gpu { max_buffer_size: 4 << 30, max_storage_buffer_binding_size: (2 << 30) - 4, memory_bytes: 4000 * MB };
    let fits = "Drawing the picture runs on this device's GPU: it needs 3.7 GB, which fit.";
    for (device, model, gpu, cpu_mb, served, why_served, alone, why_alone) in [
        ("laptop of 128 MiB", q4, gpu(4000), 3000, [DeviceGpu; 3], fits, Some([DeviceGpu; 3]), fits),
        ("the same without f16", q4, gpu(4000), 3000, [DeviceGpu; 3], fits, Some([DeviceGpu; 3]), fits),
        ("discrete of 4 GiB", q4, Ok(discrete), 3000, [DeviceGpu; 3], fits, Some([DeviceGpu; 3]), fits),
        (
            "discrete of 4 GiB, a model of f16",
            f16,
            Ok(discrete),
            3000,
            [OnServer; 3],
            "Reading the sentence runs on the server's GPU: it needs 8.8 GB and this GPU has about 4.0 GB, and it needs \
             8.8 GB and this page has about 3.0 GB.",
            None,
            "Reading the sentence can run nowhere: it needs 8.8 GB and this GPU has about 4.0 GB",
        ),
        (
            "integrated of 1 GiB",
            q4,
            Ok(integrated),
            1000,
            [OnServer; 3],
            "it needs 2.1 GB and this GPU has about 1.0 GB",
            None,
            "Reading the sentence can run nowhere: it needs 2.1 GB and this GPU has about 1.0 GB",
        ),
        (
            "phone",
            q4,
            gpu(2000),
            2000,
            [OnServer; 3],
            "Reading the sentence runs on the server's GPU: it needs 2.1 GB and this GPU has about 2.0 GB, and it needs \
             2.1 GB and this page has about 2.0 GB.",
            None,
            "Reading the sentence can run nowhere: it needs 2.1 GB and this GPU has about 2.0 GB, and it needs 2.1 GB and \
             this page has about 2.0 GB. Start kosmosg-server",
        ),
        (
            "no WebGPU",
            q4,
            NO_WEBGPU,
            3000,
            [OnServer; 3],
            "Reading the sentence runs on the server's GPU: this browser offers no WebGPU.",
            None,
            "Drawing the picture can run nowhere: this browser offers no WebGPU, and it needs 3.7 GB",
        ),
    ] {
        for (server, places, why) in [(server(true), Some(served), why_served), (None, alone, why_alone)] {
            let of_device = Device { gpu, cpu_memory_bytes: cpu_mb * MB };
            let (wish, not_here, failures) = (Wish::Auto, vec![], vec![]);
            let (found, said) = match place(&Situation { model, device: of_device, server, wish, not_here, failures }) {
                Ok(Placement { encode, denoise, decode }) => {
                    let placed = [encode, denoise, decode];
                    (Some(placed.each_ref().map(|placed| placed.place)), placed.map(|placed| placed.reason).join(" "))
                }
                Err(error) => (None, error.to_string()),
            };
            assert_eq!(found, places, "{device}: {said}");
            assert!(said.contains(why), "{device}: {said}");
        }
    }
}

/// A picture of 512 by 512 pixels, with guidance.
#[test]
fn what_is_computed_counts() {
    let sizes = published(DType::Q4_0);
    let largest = |size: StageSize| size.activations.largest_bytes >> 20;
    assert_eq!([sizes.encode, sizes.denoise, sizes.decode].map(largest), [0, 80, 16]);
    let small = Gpu { max_buffer_size: 64 << 20, max_storage_buffer_binding_size: 64 << 20, memory_bytes: 400 * MB };
    let mut model = model(TINY);
    let mut denoise = |gpu| {
        let device = Device { gpu: Ok(gpu), cpu_memory_bytes: 1000 * MB };
        model.denoise.activations = sizes.denoise.activations;
        let (server, wish, not_here, failures) = (None, Wish::Auto, vec![], vec![]);
        place(&Situation { model, device, server, wish, not_here, failures }).unwrap().denoise.reason
    };
    let reason = denoise(small);
    assert!(reason.contains("processor: a tensor of 83 MB does not fit into this GPU's buffers of 67 MB"), "{reason}");
    let reason = denoise(Gpu { max_buffer_size: 1 << 30, max_storage_buffer_binding_size: 1 << 30, ..small });
    assert!(reason.contains("processor: it needs 408 MB and this GPU has about 400 MB"), "{reason}");
    // One computes at a time, beside the weights of all.
    let [weights, peak] = [45 * MB, sizes.denoise.activations.peak_bytes];
    assert_eq!(model.together(&Stage::ALL), weights + peak);
}

fn server(reachable: bool) -> Option<Server> {
    Some(Server { reachable, device: "cuda:0".into() })
}

fn failure(place: super::Place, kind: FailureKind) -> Vec<Failure> {
    vec![Failure { place, kind }]
}

const TINY: [u64; 3] = [20, 20, 5];
/// Stable Diffusion 1.5 behind a small encoder.
const LARGE: [u64; 3] = [200, 3400, 330];
/// The published model.
const PUBLISHED: [u64; 3] = [7600, 3400, 330];

#[test]
fn every_stage_has_its_place_and_its_reason() {
    let up = server(true);
    let down = server(false);
    let none = || vec![];
    let lost = || failure(DeviceGpu, FailureKind::Lost);
    let fits = [DeviceGpu; 3];
    let tells = [
        // model, GPU, server, wish, not_here: vec![], failures → places, in the U-Net's reason
        (TINY, gpu(1000), &None, Wish::Auto, none(), fits, "this device's GPU: it needs 25 MB, which fit"),
        (TINY, gpu(1000), &up, Wish::Auto, none(), fits, "this device's GPU"),
        (TINY, NO_WEBGPU, &None, Wish::Auto, none(), [DeviceCpu; 3], "processor: this browser offers no WebGPU."),
        (TINY, NO_WEBGPU, &up, Wish::Auto, none(), [DeviceCpu; 3], "no WebGPU"),
        (
            TINY,
            gpu(1000),
            &up,
            Wish::Server,
            none(),
            [DeviceGpu, OnServer, OnServer],
            "the server's GPU: you chose it.",
        ),
        (TINY, NO_WEBGPU, &up, Wish::Server, none(), [DeviceCpu, OnServer, OnServer], "you chose it"),
        (TINY, gpu(1000), &up, Wish::ThisDevice, none(), fits, "this device's GPU"),
        (TINY, gpu(1000), &up, Wish::Auto, lost(), [OnServer; 3], "it has read the sentence"),
        (TINY, gpu(1000), &down, Wish::Auto, lost(), [DeviceCpu; 3], "this device's GPU went away"),
        (TINY, gpu(1000), &up, Wish::ThisDevice, lost(), [DeviceCpu; 3], "this device's GPU went away"),
        (LARGE, gpu(1000), &up, Wish::Auto, none(), [DeviceGpu, OnServer, OnServer], "a tensor of 340 MB does not fit"),
        (LARGE, gpu(1000), &None, Wish::Auto, none(), [DeviceGpu, DeviceCpu, DeviceGpu], "; this takes minutes."),
        (LARGE, NO_WEBGPU, &up, Wish::Auto, none(), [DeviceCpu, OnServer, OnServer], "no WebGPU"),
        (PUBLISHED, gpu(8000), &up, Wish::Auto, none(), [OnServer; 3], "it has read the sentence"),
        (PUBLISHED, gpu(8000), &up, Wish::Server, none(), [OnServer; 3], "it has read the sentence"),
    ];
    for (sizes, gpu, server, wish, failures, places, reason) in tells {
        let device = Device { gpu, cpu_memory_bytes: 6000 * MB };
        let situation =
            Situation { model: model(sizes), device, server: server.clone(), wish, not_here: vec![], failures };
        let placement = place(&situation).unwrap_or_else(|error| panic!("{situation:?}: {error}"));
        let found = [&placement.encode, &placement.denoise, &placement.decode].map(|placed| placed.place);
        assert_eq!(found, places, "{situation:?}");
        assert!(placement.denoise.reason.contains(reason), "{reason}: {}", placement.denoise.reason);
    }
}

#[test]
fn what_fits_nowhere_says_what_to_do() {
    let small = Device { gpu: gpu(1000), cpu_memory_bytes: 1000 * MB };
    let refuse = |model, device: &Device, server, wish, failures| {
        place(&Situation { model, device: device.clone(), server, wish, not_here: vec![], failures }).unwrap_err()
    };
    let error = refuse(model(LARGE), &small, None, Wish::Auto, vec![]);
    assert_eq!(
        error.to_string(),
        "Drawing the picture can run nowhere: a tensor of 340 MB does not fit into this GPU's buffers of 134 MB, and it needs \
         4.2 GB and this page has about 1.0 GB. Start kosmosg-server and open its page, or choose a smaller model."
    );
    let error = refuse(model(LARGE), &small, server(true), Wish::ThisDevice, vec![]);
    assert!(matches!(&error, PlacementError::NotOnDevice { .. }), "{error}");
    assert!(error.to_string().ends_with("Choose Server, or a smaller model."), "{error}");
    let error = refuse(model(TINY), &small, server(false), Wish::Server, vec![]);
    assert_eq!(error, PlacementError::ServerUnreachable);
    let gone = failure(OnServer, FailureKind::Lost);
    assert_eq!(refuse(model(TINY), &small, server(true), Wish::Server, gone), PlacementError::ServerUnreachable);
    let cpu_only = Device { gpu: NO_WEBGPU, ..small };
    let error = refuse(model(TINY), &cpu_only, None, Wish::Auto, failure(DeviceCpu, FailureKind::OutOfMemory));
    assert!(error.to_string().contains("this device's processor ran out of memory"), "{error}");
}

#[test]
fn a_lost_server_leaves_the_device() {
    let device = Device { gpu: gpu(1000), cpu_memory_bytes: 1000 * MB };
    let failures = failure(OnServer, FailureKind::Lost);
    let situation =
        Situation { model: model(TINY), device, server: server(true), wish: Wish::Auto, not_here: vec![], failures };
    assert_eq!(place(&situation).unwrap().denoise.place, DeviceGpu);
}

#[test]
fn a_job_ends_where_every_place_has_failed() {
    let device = Device { gpu: gpu(1000), cpu_memory_bytes: 1000 * MB };
    let (model, server) = (model(TINY), server(true));
    let mut situation = Situation { model, device, server, wish: Wish::Auto, not_here: vec![], failures: vec![] };
    let mut tried = Vec::new();
    let error = loop {
        match place(&situation) {
            Ok(placement) => {
                tried.push(placement.denoise.place);
                situation.failures.push(Failure { place: placement.denoise.place, kind: FailureKind::OutOfMemory });
            }
            Err(error) => break error.to_string(),
        }
    };
    assert_eq!(tried, [DeviceGpu, OnServer, DeviceCpu]);
    for failed in ["this device's GPU ran", "this device's processor ran", "the server ran out of memory"] {
        assert!(error.contains(failed), "{error}");
    }
}

#[test]
fn a_reason_names_the_processors_failure() {
    let reason = |gpu, cpu_memory_bytes, failures| {
        let device = Device { gpu, cpu_memory_bytes };
        let situation = Situation {
            model: model(TINY),
            device,
            server: server(true),
            wish: Wish::Auto,
            not_here: vec![],
            failures,
        };
        place(&situation).unwrap().encode.reason
    };
    let failed = reason(NO_WEBGPU, 1000 * MB, failure(DeviceCpu, FailureKind::TooSlow));
    assert!(failed.ends_with("no WebGPU, and this device's processor was too slow."), "{failed}");
    let not_started = reason(NO_WEBGPU, 0, vec![]);
    assert!(not_started.ends_with("and the program for this device's processor did not start."), "{not_started}");
}

#[test]
fn what_was_not_fetched_runs_on_the_server_or_not_at_all() {
    let device = Device { gpu: gpu(1000), cpu_memory_bytes: 1000 * MB };
    let not_here = vec![Stage::Denoise, Stage::Decode];
    let (model, server, failures) = (model(TINY), server(true), vec![]);
    let mut situation = Situation { model, device, server, wish: Wish::Auto, not_here, failures };
    let placement = place(&situation).unwrap();
    assert_eq!([placement.encode.place, placement.denoise.place], [DeviceGpu, OnServer]);
    assert!(placement.denoise.reason.contains("did not fetch that part"), "{}", placement.denoise.reason);
    situation.server = None;
    let error = place(&situation).unwrap_err().to_string();
    assert!(error.starts_with("Drawing the picture can run nowhere: this device did not fetch"), "{error}");
}
