//! Random numbers that have the same bits everywhere: in the page, on the server and on the command line.
//!
//! The generator is Philox4x32-10 (Salmon et al., *Parallel random numbers: as easy as 1, 2, 3*, SC 2011): block number
//! and stream go in, four random words come out, and nothing else is remembered. So any value can be computed alone, a
//! longer draw begins with the shorter one, and a generator's whole state is its seed, stream and position.
//! Normal values come from Box–Muller in f64 on `libm`, since platforms disagree about the last bits of `sin` and `ln`.

use serde::{Deserialize, Serialize};

use crate::digest::sha256;

/// A counter-based random generator, independent for each pair of seed and stream.
///
/// It can be written down with serde and continues where it stood.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Rng {
    seed: u64,
    stream: u64,
    /// Number of 32-bit words drawn so far.
    position: u64,
    /// The block that `position` lies in, if it is already computed.
    #[serde(skip)]
    block: Option<[u32; WORDS]>,
}

impl Rng {
    /// The generator of `seed` and `stream` at its first word.
    pub fn new(seed: u64, stream: u64) -> Self {
        Self { seed, stream, position: 0, block: None }
    }

    /// The next 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        let word = (self.position % WORDS as u64) as usize;
        if word == 0 {
            self.block = None;
        }
        let (seed, stream, index) = (self.seed, self.stream, self.position / WORDS as u64);
        let block = self.block.get_or_insert_with(|| block(seed, stream, index));
        self.position = self.position.wrapping_add(1);
        block[word]
    }

    /// The next 64 random bits, the low word drawn first.
    pub fn next_u64(&mut self) -> u64 {
        let low = u64::from(self.next_u32());
        low | u64::from(self.next_u32()) << 32
    }

    /// A uniform value in `[0, 1)`, in steps of 2⁻⁵³.
    pub fn uniform(&mut self) -> f64 {
        unit(self.next_u64())
    }

    /// A whole number below `n`, each exactly equally likely (Lemire's multiplication with rejection).
    ///
    /// # Panics
    /// When `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0, "there is no number below 0");
        let n = n as u64;
        let rejected = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(n);
            if product as u64 >= rejected {
                return (product >> 64) as usize;
            }
        }
    }

    /// True with the given probability.
    pub fn bool(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// One of the items, each equally likely.
    ///
    /// # Panics
    /// When there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// Puts the items in random order, each order equally likely.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// A value of the standard normal distribution. It costs four words, so that the position tells the whole state.
    pub fn gaussian(&mut self) -> f64 {
        let (radius, angle) = (self.next_u64(), self.next_u64());
        box_muller(radius, angle)[0]
    }
}

/// Two generators are equal when they will draw the same.
impl PartialEq for Rng {
    fn eq(&self, other: &Self) -> bool {
        (self.seed, self.stream, self.position) == (other.seed, other.stream, other.position)
    }
}

impl Eq for Rng {}

/// `n` values of the standard normal distribution: the noise that sampling starts from.
///
/// Streams of one seed are independent of each other, say one for each picture of a request.
pub fn gaussian(seed: u64, stream: u64, n: usize) -> Vec<f32> {
    let pair = |index| {
        let [a, b, c, d] = block(seed, stream, index).map(u64::from);
        box_muller(a | b << 32, c | d << 32)
    };
    (0..n.div_ceil(2) as u64).flat_map(pair).map(|value| value as f32).take(n).collect()
}

/// SHA-256 of the values' little-endian bytes, in hex: equal exactly when all bits are.
pub fn fingerprint(values: &[f32]) -> String {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    sha256(&bytes)
}

/// Words of a Philox block.
const WORDS: usize = 4;

/// Block `index` of the words of `seed` and `stream`.
fn block(seed: u64, stream: u64, index: u64) -> [u32; WORDS] {
    let halves = |value: u64| [value as u32, (value >> 32) as u32];
    let ([i0, i1], [s0, s1]) = (halves(index), halves(stream));
    philox4x32_10([i0, i1, s0, s1], halves(seed))
}

fn philox4x32_10(mut counter: [u32; WORDS], mut key: [u32; 2]) -> [u32; WORDS] {
    for _ in 0..10 {
        let a = u64::from(counter[0]) * 0xD251_1F53;
        let b = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

/// The top 53 bits as a value in `[0, 1)`.
fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// Two independent standard normal values from two times 64 random bits.
fn box_muller(radius_bits: u64, angle_bits: u64) -> [f64; 2] {
    // 1 - u lies in (0, 1], where the logarithm is finite.
    let radius = libm::sqrt(-2.0 * libm::log(1.0 - unit(radius_bits)));
    let angle = std::f64::consts::TAU * unit(angle_bits);
    [radius * libm::cos(angle), radius * libm::sin(angle)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_matches_the_known_answers_of_random123() {
        let cases = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox4x32_10(counter, key), expected);
        }
    }

    #[test]
    fn a_generator_counts_blocks_of_its_stream() {
        let mut rng = Rng { position: 4 * 5, ..Rng::new(1, 2) };
        assert_eq!([(); 4].map(|()| rng.next_u32()), philox4x32_10([5, 0, 2, 0], [1, 0]));
        assert_eq!([(); 4].map(|()| rng.next_u32()), philox4x32_10([6, 0, 2, 0], [1, 0]));
        assert_eq!(rng.position, 28);
        assert_eq!(Rng::new(0, 0).next_u64(), 0xe169_c58d_6627_e8d5);
    }

    #[test]
    fn it_continues_where_it_was_written_down() {
        for drawn in 0..9 {
            let mut rng = Rng::new(7, 3);
            for _ in 0..drawn {
                rng.next_u32();
            }
            let text = serde_json::to_string(&rng).unwrap();
            let mut copy: Rng = serde_json::from_str(&text).unwrap();
            assert_eq!(copy, rng);
            assert_eq!([(); 5].map(|()| copy.next_u32()), [(); 5].map(|()| rng.next_u32()));
        }
    }

    #[test]
    fn seeds_and_streams_differ() {
        let first = |seed, stream| Rng::new(seed, stream).next_u64();
        assert_ne!(first(1, 0), first(0, 1));
        assert_ne!(first(1, 0), first(1, 1));
        assert_ne!(first(0, 0), first(1 << 32, 0));
    }

    #[test]
    fn uniform_values_have_the_moments_of_the_uniform_distribution() {
        let mut rng = Rng::new(1, 2);
        let values: Vec<f64> = (0..200_000).map(|_| rng.uniform()).collect();
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        assert!((mean - 0.5).abs() < 0.003, "{mean}");
        assert!((variance - 1.0 / 12.0).abs() < 0.001, "{variance}");
        assert!(values.iter().all(|v| (0.0..1.0).contains(v)));
    }

    #[test]
    fn below_reaches_every_number_equally_often() {
        let mut rng = Rng::new(3, 0);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[rng.below(7)] += 1;
        }
        // Five standard deviations of a count.
        assert!(counts.iter().all(|&count| count.abs_diff(10_000) < 463), "{counts:?}");
        assert_eq!(rng.below(1), 0);
    }

    #[test]
    fn shuffle_reaches_every_order_and_pick_every_item() {
        let mut rng = Rng::new(4, 0);
        let mut orders = std::collections::BTreeMap::new();
        for _ in 0..6_000 {
            let mut items = ['a', 'b', 'c'];
            rng.shuffle(&mut items);
            *orders.entry(items).or_insert(0u32) += 1;
        }
        assert_eq!(orders.len(), 6);
        assert!(orders.values().all(|&count| count.abs_diff(1_000) < 150), "{orders:?}");
        let picked: std::collections::BTreeSet<_> = (0..50).map(|_| *rng.pick(&[1, 2, 3])).collect();
        assert_eq!(picked.len(), 3);
        assert!((0..100).all(|_| rng.bool(1.0) && !rng.bool(0.0)));
    }

    #[test]
    fn gaussian_values_have_the_moments_of_the_normal_distribution() {
        let values = gaussian(5, 0, 200_000);
        let moment = |k| values.iter().map(|&v| f64::from(v).powi(k)).sum::<f64>() / values.len() as f64;
        assert!(moment(1).abs() < 0.01, "{}", moment(1));
        assert!((moment(2) - 1.0).abs() < 0.015, "{}", moment(2));
        assert!(moment(3).abs() < 0.04, "{}", moment(3));
        assert!((moment(4) - 3.0).abs() < 0.1, "{}", moment(4));
        let neighbours = values.chunks(2).map(|pair| f64::from(pair[0] * pair[1])).sum::<f64>() / 1e5;
        assert!(neighbours.abs() < 0.015, "{neighbours}");
    }

    #[test]
    fn a_longer_draw_begins_with_the_shorter_one() {
        let long = gaussian(6, 1, 101);
        for n in [0, 1, 2, 50] {
            assert_eq!(gaussian(6, 1, n), long[..n]);
        }
        assert_eq!(Rng::new(6, 1).gaussian() as f32, long[0]);
        assert_ne!(gaussian(6, 2, 101), long);
    }

    /// The page's test compares with the same number.
    #[test]
    fn noise_keeps_its_bits() {
        let noise = gaussian(42, 0, 4 * 64 * 64);
        assert_eq!(fingerprint(&noise), "bff3b907b892162da256b17b8270919e3e1c1ce74a4f97dfbcb14b6525eeb913");
        assert_eq!(fingerprint(&[]), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
