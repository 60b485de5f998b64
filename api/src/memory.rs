//! Memory that is no longer needed. The one rule: what an idle server does not need, the system has back.

/// Gives the system back what was freed: the allocator would keep it until something else is freed, and an idle server frees nothing.
pub fn give_back() {
    #[expect(unsafe_code, reason = "the allocator is written in C")]
    // SAFETY: it takes no pointer, and may be called on any thread at any time.
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}
