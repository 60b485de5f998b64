//! Chance that can be had again: whatever a test leaves to it follows from a seed, which is printed.

/// The seed of this run, printed so that a failure can be run again: `PRODGY_TEST_SEED=<number>`.
pub fn seed() -> u64 {
    let given = std::env::var("PRODGY_TEST_SEED").ok();
    let seed = given.map_or_else(
        || uuid::Uuid::new_v4().as_u64_pair().1,
        |text| text.parse().expect("PRODGY_TEST_SEED is a number"),
    );
    eprintln!("PRODGY_TEST_SEED={seed}");
    seed
}

/// Numbers that look random (SplitMix64: the same on every machine).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The numbers of a seed.
    pub fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `below`.
    pub fn pick(&mut self, below: usize) -> usize {
        (self.number() % below as u64) as usize
    }

    /// So many bytes that nothing shortens.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.number().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}
