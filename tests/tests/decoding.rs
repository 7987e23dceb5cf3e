//! The decoder where memory or precision is short.
#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

use kosmosg::bundle::Folder;
use kosmosg::engine::candle::{Candle, CandleDevice};
use kosmosg::engine::{Engine, EngineError, Tensor};
use kosmosg::noise::Rng;
use kosmosg::picture::Picture;
use kosmosg::pipeline::Decoder;
use kosmosg::vae::VaeEncoder;
use kosmosg::vae::tiles::TILE;
use kosmosg::weights::load_except;
use kosmosg_models::sprites::{Creature, Split, portrait};
use kosmosg_tests::models;
use pollster::block_on;

/// A tile's normalisations have the mean and variance of that tile: a picture of several is a little brighter here and darker
/// there than the one decoded at once. 48 dB are measured.
const ALIKE: f64 = 44.0;
/// The same of tiles of a quarter of the size: 36 dB are measured.
const COARSE: f64 = 34.0;
/// How many times as much the colours of neighbours may differ across a seam as they do in the picture decoded at once: 1.08 at
/// most are measured.
const SEAM: f64 = 1.15;
/// Pixels of a latent in the built-in model.
const SCALE: usize = 8;

fn folder() -> Folder {
    Folder::open(models::built_in()).unwrap()
}

/// Latents of a picture of so many by so many, with their shape.
fn latents(side: usize) -> (Vec<f32>, [usize; 3]) {
    let creature = Creature::sample(&mut Rng::new(3, 0), Split::HeldOut);
    let pixels = portrait(&creature, (SCALE * side) as u32).pixels_for_vae((SCALE * side) as u32);
    let (folder, device) = (folder(), CandleDevice::cpu());
    let config = &folder.manifest().networks.vae;
    let decoder = |name: &str| name.starts_with("decoder.") || name.starts_with("post_quant_conv.");
    let encoder: VaeEncoder<Candle> =
        load_except(&folder.part("vae").unwrap(), &device, decoder, |weights| VaeEncoder::new(weights, config))
            .unwrap();
    let latents = encoder.latents(Tensor::from_host(pixels, [1, 3, SCALE * side, SCALE * side], &device));
    (block_on(latents.to_host()).unwrap(), [config.latent_channels, side, side])
}

fn decode(decoder: &Decoder<Candle>, (latents, shape): &(Vec<f32>, [usize; 3])) -> Result<Picture, EngineError> {
    block_on(decoder.decode(latents.clone(), *shape))
}

#[test]
fn without_memory_for_the_whole_it_decodes_in_tiles() {
    let device = CandleDevice::cpu();
    let decoder = Decoder::<Candle>::open(&folder(), &device).unwrap();
    let latents = latents(80);
    device.faults().set(usize::MAX);
    let whole = decode(&decoder, &latents).unwrap();
    let operations = usize::MAX - device.faults().left();

    let in_tiles = |operation| {
        device.faults().set(operation);
        decode(&decoder, &latents).unwrap()
    };
    let tiled = in_tiles(1);
    let psnr = tiled.psnr(&whole);
    println!("{psnr:.1} dB");
    assert!(psnr >= ALIKE, "{psnr:.1} dB");
    // Wherever it fails, reading the numbers back included, the same follows.
    for operation in [operations / 2, operations] {
        assert_eq!(in_tiles(operation), tiled, "operation {operation}");
    }
    // Across the first of what two tiles share, and after the last of it.
    for seam in [SCALE * TILE * 3 / 4, SCALE * TILE] {
        for axis in [Axis::Columns, Axis::Rows] {
            let (found, expected) = (axis.step(&tiled, seam), axis.step(&whole, seam));
            println!("{axis:?} {seam}: {found:.3} {expected:.3}");
            assert!(found <= expected * SEAM, "{axis:?} before and after {seam}: {found:.3}, expected {expected:.3}");
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Axis {
    Columns,
    Rows,
}

impl Axis {
    /// How much the colours of that line and the one before differ, of 255.
    fn step(self, picture: &Picture, line: usize) -> f64 {
        let side = picture.width() as usize;
        let at = |line: usize, i: usize| match self {
            Axis::Columns => i / 3 * side * 3 + line * 3 + i % 3,
            Axis::Rows => line * side * 3 + i,
        };
        let byte = |line, i| f64::from(picture.rgb()[at(line, i)]);
        (0..3 * side).map(|i| (byte(line, i) - byte(line - 1, i)).abs()).sum::<f64>() / (3 * side) as f64
    }
}

#[test]
fn where_the_whole_has_no_room_tiles_that_have_are_made_at_once() {
    let device = CandleDevice::cpu();
    let folder = folder();
    let decoder = Decoder::<Candle>::open(&folder, &device).unwrap();
    let latents = latents(40);
    let whole = decode(&decoder, &latents).unwrap();
    let config = &folder.manifest().networks.vae;
    let within = |side: usize| {
        let room = config.decoder_activations([side, side]).peak_bytes;
        decode(&decoder.clone().within(room), &latents).unwrap()
    };
    assert_eq!(within(40), whole);
    let [large, small] = [within(39), within(31)];
    println!("{:.1} dB, {:.1} dB", large.psnr(&whole), small.psnr(&whole));
    assert!(large.psnr(&whole) > small.psnr(&whole) && small.psnr(&whole) >= COARSE, "no larger tile than has room");
    // Below the smallest there is nothing to choose.
    assert_eq!(within(1), small);
}

#[test]
fn what_is_no_larger_than_a_tile_needs_its_memory() {
    let device = CandleDevice::cpu();
    let decoder = Decoder::<Candle>::open(&folder(), &device).unwrap();
    let latents = latents(8);
    let whole = decode(&decoder, &latents).unwrap();
    device.faults().set(9);
    let error = decode(&decoder, &latents).unwrap_err();
    assert!(matches!(error, EngineError::OutOfMemory { .. }), "{error}");
    assert_eq!(decode(&decoder, &latents).unwrap(), whole);
}

#[test]
fn numbers_too_large_for_f16_are_decoded_in_f32() {
    let (mut numbers, shape) = latents(8);
    let full = Decoder::<Candle>::open(&folder(), &CandleDevice::cpu()).unwrap();
    let half = CandleDevice::cpu().in_f16();
    assert!(Candle::in_full_precision(&half).is_some() && Candle::in_full_precision(&CandleDevice::cpu()).is_none());
    let decoder = Decoder::<Candle>::open(&folder(), &half).unwrap();
    let plain = (numbers.clone(), shape);
    let psnr = decode(&decoder, &plain).unwrap().psnr(&decode(&full, &plain).unwrap());
    println!("f16: {psnr:.1} dB");
    assert!(psnr.is_finite() && psnr > 40.0, "{psnr:.1} dB: it is decoded in f16 where that can be");

    numbers.iter_mut().for_each(|number| *number *= 1e5);
    let large = (numbers, shape);
    let psnr = decode(&decoder, &large).unwrap().psnr(&decode(&full, &large).unwrap());
    println!("f32: {psnr:.1} dB");
    assert!(psnr > 60.0, "{psnr:.1} dB");
    // Where there is nothing to load it from again, that is said.
    let folder = folder();
    let alone = Decoder::<Candle>::load(folder.manifest(), &folder.part("vae").unwrap(), &half).unwrap();
    let error = decode(&alone, &large).unwrap_err().to_string();
    assert!(error.contains("decoding latents of [16, 8, 8]: a pixel is"), "{error}");
}
