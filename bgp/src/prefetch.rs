//! Hints to the processor.
#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "there is no safe name for this instruction")
)]

/// Asks for something that will be looked at soon. Unlike a look, nothing waits for it.
pub(crate) fn prefetch<T>(soon: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint about memory that is ours; it changes nothing that a program can see.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(soon).cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = soon;
}
