//! Random numbers for tests and benchmarks. The one rule: the same seed gives the same numbers, and none stands for a meaning.

/// Numbers from -1 to 1 (xorshift64*, Vigna, 2016).
pub fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40) as f32 / (1 << 23) as f32 - 1.0
    })
    .take(count)
    .collect()
}

/// Vectors of length one.
pub fn unit_vectors(count: usize, dimensions: usize, seed: u64) -> Vec<Vec<f32>> {
    numbers(count * dimensions, seed)
        .chunks_exact(dimensions)
        .map(|vector| {
            let length = vector.iter().map(|number| number * number).sum::<f32>().sqrt();
            vector.iter().map(|number| number / length).collect()
        })
        .collect()
}
