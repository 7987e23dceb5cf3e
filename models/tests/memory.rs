//! What training keeps in memory. The allocator that counts it counts for the whole process, so this is a test alone.
#![allow(clippy::unwrap_used, reason = "what cannot be unwrapped here has failed the test")]

use kosmosg::engine::burn::BurnDevice;
use kosmosg_models::train::{TrainConfig, measure};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

#[test]
fn blocks_that_are_computed_again_take_less_memory() {
    let [kept, again] = [false, true].map(|checkpointing| {
        let mut config = TrainConfig::read("tiny".as_ref(), &[]).unwrap();
        let training = &mut config.decoder.training;
        (training.batch, training.parts, training.checkpointing) = (64, 1, checkpointing);
        config.decoder.draws = 1;
        MEMORY.reset_peak_usage();
        let before = MEMORY.current_usage();
        measure(&config, 1, &BurnDevice::cpu().training()).unwrap();
        MEMORY.peak_usage() - before
    });
    assert!(again * 3 < kept * 2, "{again} bytes, and {kept} without");
}
