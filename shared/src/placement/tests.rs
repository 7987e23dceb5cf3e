//! Which device and server get which stage.

use super::Place::{DeviceCpu, DeviceGpu, Server as OnServer};
use super::{Device, Failure, FailureKind, Gpu, ModelSize, PlacementError, Server, Situation, StageSize, Wish, place};

const MB: u64 = 1_000_000;

/// A model whose encoder, U-Net and autoencoder have weights of this many MB.
fn model(megabytes: [u64; 3]) -> ModelSize {
    let [encode, denoise, decode] = megabytes.map(|size| size * MB);
    let stage = |memory_bytes| StageSize { memory_bytes, largest_tensor_bytes: memory_bytes / 10 };
    ModelSize { encode: stage(encode), denoise: stage(denoise), decode: stage(decode) }
}

fn gpu(memory_mb: u64) -> Option<Gpu> {
    let (max_buffer_size, max_storage_buffer_binding_size) = (256 * MB, 128 * MB);
    Some(Gpu { max_buffer_size, max_storage_buffer_binding_size, memory_bytes: memory_mb * MB })
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
        (TINY, None, &None, Wish::Auto, none(), [DeviceCpu; 3], "processor: this browser offers no WebGPU."),
        (TINY, None, &up, Wish::Auto, none(), [DeviceCpu; 3], "no WebGPU"),
        (
            TINY,
            gpu(1000),
            &up,
            Wish::Server,
            none(),
            [DeviceGpu, OnServer, OnServer],
            "the server's GPU: you chose it.",
        ),
        (TINY, None, &up, Wish::Server, none(), [DeviceCpu, OnServer, OnServer], "you chose it"),
        (TINY, gpu(1000), &up, Wish::ThisDevice, none(), fits, "this device's GPU"),
        (TINY, gpu(1000), &up, Wish::Auto, lost(), [OnServer; 3], "it has read the sentence"),
        (TINY, gpu(1000), &down, Wish::Auto, lost(), [DeviceCpu; 3], "this device's GPU went away"),
        (TINY, gpu(1000), &up, Wish::ThisDevice, lost(), [DeviceCpu; 3], "this device's GPU went away"),
        (LARGE, gpu(1000), &up, Wish::Auto, none(), [DeviceGpu, OnServer, OnServer], "a tensor of 340 MB does not fit"),
        (LARGE, gpu(1000), &None, Wish::Auto, none(), [DeviceGpu, DeviceCpu, DeviceGpu], "; this takes minutes."),
        (LARGE, None, &up, Wish::Auto, none(), [DeviceCpu, OnServer, OnServer], "no WebGPU"),
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
        "Drawing the picture can run nowhere: a tensor of 340 MB does not fit into this GPU's buffers of 128 MB, and it needs \
         4.2 GB and this page has about 1.0 GB. Start kosmosg-server and open its page, or choose a smaller model."
    );
    let error = refuse(model(LARGE), &small, server(true), Wish::ThisDevice, vec![]);
    assert!(matches!(&error, PlacementError::NotOnDevice { .. }), "{error}");
    assert!(error.to_string().ends_with("Choose Server, or a smaller model."), "{error}");
    let error = refuse(model(TINY), &small, server(false), Wish::Server, vec![]);
    assert_eq!(error, PlacementError::ServerUnreachable);
    let gone = failure(OnServer, FailureKind::Lost);
    assert_eq!(refuse(model(TINY), &small, server(true), Wish::Server, gone), PlacementError::ServerUnreachable);
    let cpu_only = Device { gpu: None, ..small };
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
    let failed = reason(None, 1000 * MB, failure(DeviceCpu, FailureKind::TooSlow));
    assert!(failed.ends_with("no WebGPU, and this device's processor was too slow."), "{failed}");
    let not_started = reason(None, 0, vec![]);
    assert!(not_started.ends_with("and the program for this device's processor did not start."), "{not_started}");
}

#[test]
fn what_was_not_fetched_runs_on_the_server_or_not_at_all() {
    let device = Device { gpu: gpu(1000), cpu_memory_bytes: 1000 * MB };
    let not_here = vec![super::Stage::Denoise, super::Stage::Decode];
    let (model, server, failures) = (model(TINY), server(true), vec![]);
    let mut situation = Situation { model, device, server, wish: Wish::Auto, not_here, failures };
    let placement = place(&situation).unwrap();
    assert_eq!([placement.encode.place, placement.denoise.place], [DeviceGpu, OnServer]);
    assert!(placement.denoise.reason.contains("did not fetch that part"), "{}", placement.denoise.reason);
    situation.server = None;
    let error = place(&situation).unwrap_err().to_string();
    assert!(error.starts_with("Drawing the picture can run nowhere: this device did not fetch"), "{error}");
}
