//! Photographs of the page in few bytes: at most 256 colours, chosen by median cut.

use std::collections::BTreeMap;
use std::path::Path;

const COLOURS: usize = 256;

/// Writes a PNG file's picture into another with few colours.
pub fn shrink(png: &[u8], file: &Path) {
    let mut decoder = png::Decoder::new(std::io::Cursor::new(png));
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut pixels).unwrap();
    let channels = frame.color_type.samples();
    let colours: Vec<[u8; 3]> = pixels.chunks_exact(channels).map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();

    let mut counts = BTreeMap::<[u8; 3], usize>::new();
    colours.iter().for_each(|&colour| *counts.entry(colour).or_default() += 1);
    let (palette, places) = palette(counts.into_iter().collect());
    let places: Vec<u8> = colours.iter().map(|colour| places[colour]).collect();

    let writer = std::io::BufWriter::new(std::fs::File::create(file).unwrap());
    let mut encoder = png::Encoder::new(writer, frame.width, frame.height);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_palette(palette.concat());
    encoder.set_compression(png::Compression::High);
    // Neighbouring places in a palette have nothing to do with each other.
    encoder.set_filter(png::Filter::NoFilter);
    encoder.write_header().unwrap().write_image_data(&places).unwrap();
}

/// A colour and how many pixels have it.
type Counted = ([u8; 3], usize);

/// The palette, and the place of each colour in it.
fn palette(colours: Vec<Counted>) -> (Vec<[u8; 3]>, BTreeMap<[u8; 3], u8>) {
    let mut boxes = vec![colours];
    while boxes.len() < COLOURS {
        // The box that costs most: wide, and seen by many pixels. A square root keeps small things in colour.
        let cost = |colours: &Vec<Counted>| {
            let pixels: usize = colours.iter().map(|(_, count)| count).sum();
            f64::from(widest(colours).1) * (pixels as f64).sqrt()
        };
        let costliest = (0..boxes.len()).max_by(|&a, &b| cost(&boxes[a]).total_cmp(&cost(&boxes[b]))).unwrap_or(0);
        let (channel, width) = widest(&boxes[costliest]);
        if width == 0 {
            break;
        }
        let mut lower = boxes.swap_remove(costliest);
        lower.sort_by_key(|(colour, _)| colour[channel]);
        let (low, high) = (lower[0].0[channel], lower[lower.len() - 1].0[channel]);
        let middle = low + (high - low) / 2;
        let upper = lower.split_off(lower.partition_point(|(colour, _)| colour[channel] <= middle));
        boxes.extend([lower, upper]);
    }
    let mut places = BTreeMap::new();
    for (place, colours) in boxes.iter().enumerate() {
        places.extend(colours.iter().map(|(colour, _)| (*colour, place as u8)));
    }
    (boxes.iter().map(|colours| mean(colours)).collect(), places)
}

/// The channel in which a box is widest, and how wide.
fn widest(colours: &[Counted]) -> (usize, u8) {
    let width = |channel: usize| {
        let values = || colours.iter().map(|(colour, _)| colour[channel]);
        values().max().unwrap_or(0) - values().min().unwrap_or(0)
    };
    (0..3).map(|channel| (channel, width(channel))).max_by_key(|&(_, width)| width).unwrap_or((0, 0))
}

fn mean(colours: &[Counted]) -> [u8; 3] {
    let pixels: usize = colours.iter().map(|(_, count)| count).sum();
    [0, 1, 2].map(|channel| {
        let sum: usize = colours.iter().map(|(colour, count)| usize::from(colour[channel]) * count).sum();
        (sum / pixels.max(1)) as u8
    })
}
