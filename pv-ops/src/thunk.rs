//! What stands behind a call site: instructions, a Rust function behind a register-saving thunk, or a plain function.
//! Neighbours: `call` (the site that calls this), `table` (`Op`, what the macros here make), `native` (the user).

/// An op that is a few instructions: `instruction!(irq_disable: "cli" => [0xfa])`.
/// The text gives the out-of-line body that runs until the site is patched, and the number of instructions; the bytes
/// are what is patched in. A test holds the one against the other.
macro_rules! instruction {
    ($op:ident: $text:literal => [$($byte:literal),* $(,)?]) => {{
        // Of the op's own name, for the sake of a debugger.
        #[unsafe(naked)]
        unsafe extern "sysv64" fn $op() {
            core::arch::naked_asm!($text, "ret")
        }
        $crate::table::Op::<$crate::ops::op::$op>::inline($op, const { &$crate::table::Inline::new($text, [$($byte),*]) })
    }};
}

/// An op of class `call` that is an ordinary function with the op's signature.
macro_rules! function {
    ($op:ident => $body:path) => {
        $crate::table::Op::<$crate::ops::op::$op>::function($body)
    };
}

/// An op of class `keep` or `pure` whose body is a Rust function with the op's signature: the thunk moves the
/// arguments from the site's registers to the System V ones, calls, moves the result back and restores every other
/// register, so that the site costs the compiler nothing (Linux's PV_CALLEE_SAVE idea).
///
/// Frame: rbp chain (for backtraces), then rax, rcx, rdx, rsi, rdi, r8..r11 from rbp-8 downwards, 16-aligned.
macro_rules! thunk {
    ($op:ident => $body:path) => {{
        #[unsafe(naked)]
        unsafe extern "sysv64" fn thunk() {
            core::arch::naked_asm!(
                "push rbp",
                "mov rbp, rsp",
                "push rax",
                "push rcx",
                "push rdx",
                "push rsi",
                "push rdi",
                "push r8",
                "push r9",
                "push r10",
                "push r11",
                "sub rsp, 8",
                save_vector_registers!(),
                ".if {arguments} == 1", // rax
                "mov rdi, rax",
                ".elseif {arguments} == 2", // rcx
                "mov rdi, rcx",
                ".elseif {arguments} == 3", // rcx, edx:eax
                "mov edi, ecx",
                "shl rdx, 32",
                "mov esi, eax",
                "or rsi, rdx",
                ".elseif {arguments} == 4", // rdx, rax
                "mov rdi, rdx",
                "mov rsi, rax",
                ".elseif {arguments} == 5", // rax, rcx
                "mov rdi, rax",
                "mov rsi, rcx",
                ".elseif {arguments} == 6", // rdx
                "mov rdi, rdx",
                ".endif",
                "call {body}",
                ".if {result} == 1", // rax
                "mov [rbp - 8], rax",
                ".elseif {result} == 2", // edx:eax
                "mov ecx, eax",
                "shr rax, 32",
                "mov [rbp - 8], rcx",
                "mov [rbp - 24], rax",
                ".elseif {result} == 3", // eax:ebx:ecx:edx from rax = ebx:eax, rdx = edx:ecx
                "mov ecx, eax",
                "shr rax, 32",
                "mov [rbp - 8], rcx",
                "mov rbx, rax",
                "mov ecx, edx",
                "shr rdx, 32",
                "mov [rbp - 16], rcx",
                "mov [rbp - 24], rdx",
                ".endif",
                restore_vector_registers!(),
                "lea rsp, [rbp - 72]",
                "pop r11",
                "pop r10",
                "pop r9",
                "pop r8",
                "pop rdi",
                "pop rsi",
                "pop rdx",
                "pop rcx",
                "pop rax",
                "pop rbp",
                "ret",
                body = sym $body,
                arguments = const <$crate::ops::op::$op as $crate::table::Declared>::ARGUMENTS as u8,
                result = const <$crate::ops::op::$op as $crate::table::Declared>::RESULT as u8,
            )
        }
        // The body has the op's signature.
        const _: <$crate::ops::op::$op as $crate::table::Declared>::Function = $body;
        $crate::table::Op::<$crate::ops::op::$op>::call(thunk)
    }};
}

/// Where code may use vector registers (tests in a host process; the guest's target is soft-float), a thunk keeps
/// those too, since its site says nothing of them.
#[cfg(target_feature = "sse2")]
macro_rules! save_vector_registers {
    () => {
        concat!(
            "sub rsp, 256\n",
            "movups [rsp + 0], xmm0\n",
            "movups [rsp + 16], xmm1\n",
            "movups [rsp + 32], xmm2\n",
            "movups [rsp + 48], xmm3\n",
            "movups [rsp + 64], xmm4\n",
            "movups [rsp + 80], xmm5\n",
            "movups [rsp + 96], xmm6\n",
            "movups [rsp + 112], xmm7\n",
            "movups [rsp + 128], xmm8\n",
            "movups [rsp + 144], xmm9\n",
            "movups [rsp + 160], xmm10\n",
            "movups [rsp + 176], xmm11\n",
            "movups [rsp + 192], xmm12\n",
            "movups [rsp + 208], xmm13\n",
            "movups [rsp + 224], xmm14\n",
            "movups [rsp + 240], xmm15\n",
        )
    };
}
#[cfg(target_feature = "sse2")]
macro_rules! restore_vector_registers {
    () => {
        concat!(
            "movups xmm0, [rsp + 0]\n",
            "movups xmm1, [rsp + 16]\n",
            "movups xmm2, [rsp + 32]\n",
            "movups xmm3, [rsp + 48]\n",
            "movups xmm4, [rsp + 64]\n",
            "movups xmm5, [rsp + 80]\n",
            "movups xmm6, [rsp + 96]\n",
            "movups xmm7, [rsp + 112]\n",
            "movups xmm8, [rsp + 128]\n",
            "movups xmm9, [rsp + 144]\n",
            "movups xmm10, [rsp + 160]\n",
            "movups xmm11, [rsp + 176]\n",
            "movups xmm12, [rsp + 192]\n",
            "movups xmm13, [rsp + 208]\n",
            "movups xmm14, [rsp + 224]\n",
            "movups xmm15, [rsp + 240]\n",
        )
    };
}
#[cfg(not(target_feature = "sse2"))]
macro_rules! save_vector_registers {
    () => {
        ""
    };
}
#[cfg(not(target_feature = "sse2"))]
macro_rules! restore_vector_registers {
    () => {
        ""
    };
}
