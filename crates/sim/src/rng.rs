//! Chance: one seeded stream for everything, so that a seed is a whole history.

use std::cell::Cell;
use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood 2014): 64 bits of state are plenty for choosing faults.
#[derive(Debug)]
pub struct Rng(Cell<u64>);

impl Rng {
    /// A stream for this seed.
    pub fn new(seed: u64) -> Self {
        Rng(Cell::new(seed ^ 0x6b75_6265_7374_7261))
    }

    /// The next 64 bits.
    pub fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 when `bound` is 0. (The bias of the remainder does not matter here.)
    pub fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    /// True in `per_100k` of 100 000 cases; draws nothing when that is 0.
    pub fn chance(&self, per_100k: u32) -> bool {
        per_100k > 0 && self.below(100_000) < u64::from(per_100k)
    }

    /// A duration in `[least, most]`, in milliseconds.
    pub fn between(&self, least: Duration, most: Duration) -> Duration {
        let span = most.saturating_sub(least).as_millis() as u64;
        least + Duration::from_millis(self.below(span + 1))
    }

    /// One of the items; the slice must not be empty.
    pub fn pick<'a, T>(&self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }

    /// Fills the buffer.
    pub fn fill(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}
