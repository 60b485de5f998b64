//! Which vector instructions this machine has. The one rule: a kernel is written once, for vectors of any width, and the widest that
//! the processor has is picked at run time (AVX-512, AVX2, NEON, or plain numbers).
//!
//! Everything that a kernel calls must be `#[inline(always)]`: what is not inlined into it is compiled without the wide instructions.

use std::slice;

use pulp::{Simd, WithSimd, bytemuck};

/// The instruction set in use.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Processor {
    #[cfg(target_arch = "x86_64")]
    Avx512(pulp::x86::V4),
    #[cfg(target_arch = "x86_64")]
    Avx2(pulp::x86::V3),
    Other(pulp::Arch),
}

impl Processor {
    /// The best one here.
    pub(crate) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(simd) = pulp::x86::V4::try_new() {
                return Self::Avx512(simd);
            }
            if let Some(simd) = pulp::x86::V3::try_new() {
                return Self::Avx2(simd);
            }
        }
        Self::Other(pulp::Arch::new())
    }

    /// Runs a kernel with this instruction set.
    pub(crate) fn dispatch<K: WithSimd>(self, kernel: K) -> K::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => simd.vectorize(Call { kernel, simd }),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => simd.vectorize(Call { kernel, simd }),
            Self::Other(arch) => arch.dispatch(kernel),
        }
    }

    /// Runs a kernel that multiplies whole numbers with this instruction set.
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => simd.vectorize(Run { kernel, pairs: simd }),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => simd.vectorize(Run { kernel, pairs: simd }),
            Self::Other(arch) => arch.dispatch(OnAny(kernel)),
        }
    }
}

/// What [`Processor::run`] runs.
pub(crate) trait Kernel {
    type Output;

    /// Must be `#[inline(always)]`.
    fn run<P: Pairs>(self, pairs: P) -> Self::Output;
}

/// Vector instructions on pairs of whole numbers of 16 bits, which `pulp`'s [`Simd`] does not have. A pair lies in a lane of 32 bits.
pub(crate) trait Pairs: Copy {
    /// Everything else.
    type Simd: Simd;

    fn simd(self) -> Self::Simd;

    /// Lane by lane: `sum + a₀·b₀ + a₁·b₁`.
    fn multiply_add(self, a: Lanes<Self>, b: Lanes<Self>, sum: Lanes<Self>) -> Lanes<Self>;

    /// The nearest floating-point numbers.
    fn to_f32(self, numbers: Lanes<Self>) -> <Self::Simd as Simd>::f32s;

    /// Of two tables of sixteen, one for each half, the entries at these places, all below sixteen. An entry of a table is the sum of its
    /// first and of what each bit of its place adds to that.
    fn pick(self, tables: [u8; 32], places: [u8; 32]) -> [u8; 32];

    /// A bit for each number that is not below the least.
    fn at_least(self, numbers: [u16; 32], least: u16) -> u32;
}

type Lanes<P> = <<P as Pairs>::Simd as Simd>::i32s;

/// What AVX-512 has no better instructions for than AVX2 has.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use pulp::core_arch::x86::Avx2;

    #[inline(always)]
    pub(super) fn pick(avx2: Avx2, tables: [u8; 32], places: [u8; 32]) -> [u8; 32] {
        pulp::cast!(avx2._mm256_shuffle_epi8(pulp::cast!(tables), pulp::cast!(places)))
    }

    #[inline(always)]
    pub(super) fn at_least(avx2: Avx2, numbers: [u16; 32], least: u16) -> u32 {
        let [first, second]: [[u16; 16]; 2] = pulp::cast!(numbers);
        let least = pulp::cast!([least; 16]);
        let is = |numbers: [u16; 16]| {
            let numbers = pulp::cast!(numbers);
            avx2._mm256_cmpeq_epi16(avx2._mm256_max_epu16(numbers, least), numbers)
        };
        // What is packed lies in turns: eight of the first, eight of the second.
        let both = avx2._mm256_packs_epi16(is(first), is(second));
        let both = avx2._mm256_permute4x64_epi64::<0b11_01_10_00>(both);
        avx2._mm256_movemask_epi8(both).cast_unsigned()
    }
}

#[cfg(target_arch = "x86_64")]
impl Pairs for pulp::x86::V4 {
    type Simd = Self;

    #[inline(always)]
    fn simd(self) -> Self {
        self
    }

    #[inline(always)]
    fn multiply_add(self, a: Lanes<Self>, b: Lanes<Self>, sum: Lanes<Self>) -> Lanes<Self> {
        let products = self.avx512bw._mm512_madd_epi16(pulp::cast!(a), pulp::cast!(b));
        pulp::cast!(self.avx512f._mm512_add_epi32(products, pulp::cast!(sum)))
    }

    #[inline(always)]
    fn to_f32(self, numbers: Lanes<Self>) -> <Self as Simd>::f32s {
        pulp::cast!(self.avx512f._mm512_cvtepi32_ps(pulp::cast!(numbers)))
    }

    #[inline(always)]
    fn pick(self, tables: [u8; 32], places: [u8; 32]) -> [u8; 32] {
        avx2::pick(self.avx2, tables, places)
    }

    #[inline(always)]
    fn at_least(self, numbers: [u16; 32], least: u16) -> u32 {
        avx2::at_least(self.avx2, numbers, least)
    }
}

#[cfg(target_arch = "x86_64")]
impl Pairs for pulp::x86::V3 {
    type Simd = Self;

    #[inline(always)]
    fn simd(self) -> Self {
        self
    }

    #[inline(always)]
    fn multiply_add(self, a: Lanes<Self>, b: Lanes<Self>, sum: Lanes<Self>) -> Lanes<Self> {
        let products = self.avx2._mm256_madd_epi16(pulp::cast!(a), pulp::cast!(b));
        pulp::cast!(self.avx2._mm256_add_epi32(products, pulp::cast!(sum)))
    }

    #[inline(always)]
    fn to_f32(self, numbers: Lanes<Self>) -> <Self as Simd>::f32s {
        pulp::cast!(self.avx._mm256_cvtepi32_ps(pulp::cast!(numbers)))
    }

    #[inline(always)]
    fn pick(self, tables: [u8; 32], places: [u8; 32]) -> [u8; 32] {
        avx2::pick(self.avx2, tables, places)
    }

    #[inline(always)]
    fn at_least(self, numbers: [u16; 32], least: u16) -> u32 {
        avx2::at_least(self.avx2, numbers, least)
    }
}

/// [`Pairs`] by plain numbers, for the compiler to make the best of.
#[derive(Clone, Copy)]
struct Any<S>(S);

impl<S: Simd> Pairs for Any<S> {
    type Simd = S;

    #[inline(always)]
    fn simd(self) -> S {
        self.0
    }

    #[inline(always)]
    fn multiply_add(self, a: S::i32s, b: S::i32s, mut sum: S::i32s) -> S::i32s {
        let (a, b): (&[[i16; 2]], &[[i16; 2]]) =
            (bytemuck::cast_slice(slice::from_ref(&a)), bytemuck::cast_slice(slice::from_ref(&b)));
        let sums: &mut [i32] = bytemuck::cast_slice_mut(slice::from_mut(&mut sum));
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += i32::from(a[0]) * i32::from(b[0]) + i32::from(a[1]) * i32::from(b[1]);
        }
        sum
    }

    #[inline(always)]
    fn to_f32(self, numbers: S::i32s) -> S::f32s {
        let mut floats = self.0.splat_f32s(0.0);
        let numbers: &[i32] = bytemuck::cast_slice(slice::from_ref(&numbers));
        let target: &mut [f32] = bytemuck::cast_slice_mut(slice::from_mut(&mut floats));
        for (float, number) in target.iter_mut().zip(numbers) {
            *float = *number as f32;
        }
        floats
    }

    #[inline(always)]
    fn pick(self, tables: [u8; 32], places: [u8; 32]) -> [u8; 32] {
        let mut picked = [0; 32];
        for half in [0, 16] {
            let table = &tables[half..half + 16];
            for lane in half..half + 16 {
                // Without looking up, which not every machine does for many lanes at once.
                let added = |bit: u8| {
                    let by_bit = table[1 << bit].wrapping_sub(table[0]);
                    by_bit & (places[lane] >> bit & 1).wrapping_neg()
                };
                picked[lane] = table[0]
                    .wrapping_add(added(0))
                    .wrapping_add(added(1))
                    .wrapping_add(added(2))
                    .wrapping_add(added(3));
            }
        }
        picked
    }

    #[inline(always)]
    fn at_least(self, numbers: [u16; 32], least: u16) -> u32 {
        let numbers = (0..).zip(numbers);
        numbers.fold(0, |bits, (place, number)| bits | u32::from(number >= least) << place)
    }
}

/// Glue as below, between `pulp`'s choice and a [`Kernel`].
struct OnAny<K>(K);

impl<K: Kernel> WithSimd for OnAny<K> {
    type Output = K::Output;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        self.0.run(Any(simd))
    }
}

#[cfg(target_arch = "x86_64")]
struct Run<K, P> {
    kernel: K,
    pairs: P,
}

#[cfg(target_arch = "x86_64")]
impl<K: Kernel, P: Pairs> pulp::NullaryFnOnce for Run<K, P> {
    type Output = K::Output;

    #[inline(always)]
    fn call(self) -> Self::Output {
        self.kernel.run(self.pairs)
    }
}

/// Glue between a token's own `vectorize` (which takes a closure-like object) and a kernel.
#[cfg(target_arch = "x86_64")]
struct Call<K, S> {
    kernel: K,
    simd: S,
}

#[cfg(target_arch = "x86_64")]
impl<K: WithSimd, S: Simd> pulp::NullaryFnOnce for Call<K, S> {
    type Output = K::Output;

    #[inline(always)]
    fn call(self) -> Self::Output {
        self.kernel.with_simd(self.simd)
    }
}

/// Every instruction set that is here, plain numbers among them.
#[cfg(test)]
pub(crate) fn all() -> Vec<Processor> {
    let mut processors = vec![Processor::detect(), Processor::Other(pulp::Arch::Scalar)];
    #[cfg(target_arch = "x86_64")]
    processors.extend(pulp::x86::V3::try_new().map(Processor::Avx2));
    processors
}
