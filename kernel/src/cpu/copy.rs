//! `memcpy`, which compilers call for every copy that they do not spell out (C17 §7.24.2.1).
//!
//! The one of `compiler_builtins` is three `rep movs`: they take some tens of cycles to begin, and under QEMU's TCG each
//! round of them is a jump. Words, four at a time, are quicker for the short copies that a kernel makes most, and under TCG for
//! all; only on hardware, and from some kilobytes on, would `rep movs` overtake them.

#[cfg(target_os = "none")]
use core::arch::naked_asm;

/// Copies `len` bytes from `from` to `to`, which do not overlap, or are the same; returns `to`.
///
/// # Safety
/// `len` bytes can be read at `from` and written at `to`.
#[cfg(target_os = "none")]
#[unsafe(naked)]
// SAFETY: the name is the one that the compiler calls, and this does what it expects of it; `compiler_builtins` has its own
// only where there is no other (it is a weak symbol there).
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // rdi: to, rsi: from, rdx: len. Beside these only rax, rcx, r8, r9, r10 and r11 are touched, which callers expect.
    naked_asm!(
        "mov rax, rdi",
        "cmp rdx, 16",
        "jb 3f",
        // The last 16 bytes are read before anything is written, and written last; they may overlap what is before.
        "mov r8, [rsi + rdx - 16]",
        "mov r9, [rsi + rdx - 8]",
        "lea r10, [rdi + rdx - 16]",
        "sub rdx, 32",
        "jbe 2f",
        "1:",
        "mov rcx, [rsi]",
        "mov r11, [rsi + 8]",
        "mov [rdi], rcx",
        "mov [rdi + 8], r11",
        "mov rcx, [rsi + 16]",
        "mov r11, [rsi + 24]",
        "mov [rdi + 16], rcx",
        "mov [rdi + 24], r11",
        "add rsi, 32",
        "add rdi, 32",
        "sub rdx, 32",
        "ja 1b",
        "2:",
        // 32 bytes at most are left, the last 16 of which are in registers.
        "add rdx, 16",
        "jle 4f",
        "mov rcx, [rsi]",
        "mov r11, [rsi + 8]",
        "mov [rdi], rcx",
        "mov [rdi + 8], r11",
        "4:",
        "mov [r10], r8",
        "mov [r10 + 8], r9",
        "ret",
        // Less than 16: two words, which may overlap, of the largest size that fits.
        "3:",
        "cmp edx, 8",
        "jb 5f",
        "mov rcx, [rsi]",
        "mov r8, [rsi + rdx - 8]",
        "mov [rdi], rcx",
        "mov [rdi + rdx - 8], r8",
        "ret",
        "5:",
        "cmp edx, 4",
        "jb 6f",
        "mov ecx, [rsi]",
        "mov r8d, [rsi + rdx - 4]",
        "mov [rdi], ecx",
        "mov [rdi + rdx - 4], r8d",
        "ret",
        "6:",
        "test edx, edx",
        "jz 7f",
        // One to three: the first, the middle one, the last.
        "movzx ecx, byte ptr [rsi]",
        "movzx r8d, byte ptr [rsi + rdx - 1]",
        "mov r9d, edx",
        "shr r9d, 1",
        "movzx r10d, byte ptr [rsi + r9]",
        "mov [rdi], cl",
        "mov [rdi + r9], r10b",
        "mov [rdi + rdx - 1], r8b",
        "7:",
        "ret",
    )
}

crate::kernel_test! {
    /// Every length, at every place within a word, and nothing beside.
    fn a_copy_is_the_bytes_and_no_others() {
        let from: alloc::vec::Vec<u8> = (0..600usize).map(|at| (at * 7 + at / 256) as u8).collect();
        for len in (0..300).chain([511, 512, 513]) {
            for (a, b) in [(0, 0), (1, 0), (0, 3), (5, 7), (8, 1)] {
                let mut to = alloc::vec![0xee; 600];
                let (source, target) = (&from[a..a + len], &mut to[b..b + len]);
                core::hint::black_box(target).copy_from_slice(core::hint::black_box(source));
                assert!(to[..b].iter().chain(&to[b + len..]).all(|byte| *byte == 0xee), "{len} bytes, {a} to {b}");
                assert!(to[b..b + len].iter().eq(&from[a..a + len]), "{len} bytes, {a} to {b}");
            }
        }
    }
}
