//! How the C library's allocator keeps what films free, so that the memory of the daemon stays what it is for years.

/// What is freed of this size or more goes back to the system at once. A film's gray values and the network's smaller
/// intermediates stay below it: to have their pages made anew for every film costs more than to keep them.
const RETURNED_BYTES: libc::c_int = 16 << 20;

/// Has large buffers returned to the system when they are freed, always. glibc does so too, but only until the first of
/// them is freed: then it raises its threshold to that size (at most 32 MiB) and keeps all smaller ones in the arena of
/// whichever thread freed them, whose holes fit the next film or do not. The same 126 films between mutated ones left the
/// process at 252 to 286 MiB so, and leave it at 228 to 239 MiB with a threshold that stays.
///
/// # Safety
/// No other thread may run yet: mallopt(3) is "MT-Unsafe init".
#[expect(unsafe_code, reason = "glibc has no other door to this")]
pub unsafe fn return_large_buffers() {
    #[cfg(target_env = "gnu")]
    // SAFETY: M_MMAP_THRESHOLD takes any size up to 32 MiB; the caller vouches for the threads.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, RETURNED_BYTES);
    }
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    /// glibc puts 16 bytes before a buffer: one with pages of its own begins there, one within an arena hardly ever.
    const OFFSET_IN_PAGE: usize = 16;

    #[test]
    #[expect(unsafe_code, reason = "the setting is made without a lock")]
    fn a_large_buffer_has_its_own_pages_even_after_larger_ones_were_freed() {
        // SAFETY: other tests run beside this one, but what they read meanwhile is one aligned number.
        unsafe { return_large_buffers() };
        drop(vec![1u8; 30 << 20]);
        for mebibytes in [17, 19, 23, 29] {
            let buffer = vec![1u8; mebibytes << 20];
            assert_eq!(buffer.as_ptr().addr() % 4096, OFFSET_IN_PAGE, "{mebibytes} MiB are in an arena");
        }
        let small = [vec![1u8; 9 << 20], vec![1u8; 10 << 20], vec![1u8; 11 << 20]];
        assert!(
            small.iter().any(|buffer| buffer.as_ptr().addr() % 4096 != OFFSET_IN_PAGE),
            "the pages of what a film needs are made anew for each"
        );
    }
}
