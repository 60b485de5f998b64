//! Which vector instructions this machine has. The one rule: a kernel is written once, for vectors of any width, and the widest that
//! the processor has is picked at run time (AVX-512, AVX2, NEON, or plain numbers).
//!
//! Everything that a kernel calls must be `#[inline(always)]`: what is not inlined into it is compiled without the wide instructions.

#[cfg(target_arch = "x86_64")]
use pulp::Simd;
use pulp::WithSimd;

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
    pub(crate) fn dispatch<Kernel: WithSimd>(self, kernel: Kernel) -> Kernel::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => simd.vectorize(Call { kernel, simd }),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => simd.vectorize(Call { kernel, simd }),
            Self::Other(arch) => arch.dispatch(kernel),
        }
    }
}

/// Glue between a token's own `vectorize` (which takes a closure-like object) and a kernel.
#[cfg(target_arch = "x86_64")]
struct Call<Kernel, S> {
    kernel: Kernel,
    simd: S,
}

#[cfg(target_arch = "x86_64")]
impl<Kernel: WithSimd, S: Simd> pulp::NullaryFnOnce for Call<Kernel, S> {
    type Output = Kernel::Output;

    #[inline(always)]
    fn call(self) -> Self::Output {
        self.kernel.with_simd(self.simd)
    }
}
