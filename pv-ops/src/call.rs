//! The call site of an op: six bytes of indirect call, padding, and a record that tells the patcher about it.
//! Neighbours: `ops` (declares registers), `patch` (rewrites the site), `sites` (reads the records).
//!
//! Every operand is a named register, so that a patched site is exactly the bare instruction: no move into place,
//! and nothing clobbered but the op's result and the arithmetic flags. A `call` op follows the System V convention
//! instead: it costs the caller its caller-saved registers, which is right for what is done rarely.
//!
//! No site says `nostack`: the call needs the stack, even where the patched instruction does not.

/// Instructions of a call site and its record; operands `table`, `slot`, `pad`, `op`, `length`.
/// The record's address is relative to the record, so it needs no dynamic relocation anywhere.
macro_rules! call_site {
    () => {
        concat!(
            "771: call qword ptr [rip + {table} + {slot}]\n",
            ".skip {pad}, 0x90\n",
            ".pushsection pv_sites, \"aR\", @progbits\n",
            ".balign 4\n",
            ".long 771b - .\n",
            ".short {op}\n",
            ".byte {length}, 0\n",
            ".popsection",
        )
    };
}

/// One call site of op `$op`: `site!(class op [clobbers] ["reg" = word, ..] [result])`.
macro_rules! site {
    // The asm block itself, with the operands that every site has.
    (@asm $op:ident [$($before:literal)?] [$($after:literal)?] $($operands:tt)*) => {
        // SAFETY:
        // 1. The table holds, for this op, either code that keeps all registers but those named here (`Op` is made
        //    only by `instruction!` and `thunk!`, or by `function!` for a `call` op, which names clobber_abi), or a
        //    `ud2` that does not return.
        // 2. What the op does to the machine is the contract of the wrapper around this block.
        unsafe {
            core::arch::asm!(
                $($before,)?
                call_site!(),
                $($after,)?
                $($operands)*
                table = sym $crate::table::TABLE,
                slot = const $crate::ops::op::$op::INDEX * 8,
                pad = const $crate::table::SITE_LENGTHS[$crate::ops::op::$op::INDEX] - $crate::table::CALL_LENGTH,
                length = const $crate::table::SITE_LENGTHS[$crate::ops::op::$op::INDEX],
                op = const $crate::ops::op::$op::INDEX,
            )
        }
    };
    (pure $op:ident [] ["rax" = $value:expr] ["rax"]) => {{
        let result: u64;
        site!(@asm $op [] [] inlateout("rax") $value => result, options(pure, readonly),);
        result
    }};
    (keep $op:ident [] ["rax" = $leaf:expr, "rcx" = $subleaf:expr] ["eax:ebx:ecx:edx"]) => {{
        let (eax, ebx, ecx, edx): (u64, u64, u64, u64);
        // LLVM keeps rbx for itself: it is carried around the site in another register.
        site!(@asm $op ["mov {rbx}, rbx"] ["xchg {rbx}, rbx"]
            rbx = out(reg) ebx, inlateout("rax") $leaf => eax, inlateout("rcx") $subleaf => ecx, lateout("rdx") edx,);
        core::arch::x86_64::CpuidResult { eax: eax as u32, ebx: ebx as u32, ecx: ecx as u32, edx: edx as u32 }
    }};
    (keep $op:ident [] ["rcx" = $msr:expr, "edx:eax" = $value:expr] []) => {{
        let value: u64 = $value;
        site!(@asm $op [] [] in("rcx") $msr, in("rax") value as u32, in("rdx") (value >> 32) as u32,)
    }};
    (keep $op:ident [$($clobber:tt)*] [$($reg:tt = $value:expr),*] []) => {
        site!(@asm $op [] [] $(in($reg) $value,)* $(lateout($clobber) _,)*)
    };
    (keep $op:ident [$($clobber:tt)*] [$($reg:tt = $value:expr),*] ["rax"]) => {{
        let result: u64;
        site!(@asm $op [] [] $(in($reg) $value,)* $(lateout($clobber) _,)* lateout("rax") result,);
        result
    }};
    (keep $op:ident [] [$($reg:tt = $value:expr),*] ["edx:eax"]) => {{
        let (low, high): (u64, u64);
        site!(@asm $op [] [] $(in($reg) $value,)* lateout("rax") low, lateout("rdx") high,);
        u64::from(high as u32) << 32 | u64::from(low as u32)
    }};
    (call $op:ident [] [$($reg:tt = $value:expr),*] []) => {
        site!(@asm $op [] [] $(in($reg) $value,)* clobber_abi("sysv64"),)
    };
    (call $op:ident [] [$($reg:tt = $value:expr),*] ["rax"]) => {{
        let result: u64;
        site!(@asm $op [] [] $(in($reg) $value,)* lateout("rax") result, clobber_abi("sysv64"),);
        result
    }};
}

/// The typed function around a call site; its safety and visibility are those of the declaration.
macro_rules! wrapper {
    // A jump site has no Rust caller: see `iret!`.
    (jump $($rest:tt)*) => {};
    ($class:ident $name:ident $docs:tt $clobbers:tt [$vis:vis safe] $args:tt $result:tt) => {
        wrapper! { @fn $class $name $docs $clobbers [$vis] $args $result }
    };
    ($class:ident $name:ident $docs:tt $clobbers:tt [$vis:vis unsafe] $args:tt $result:tt) => {
        wrapper! { @fn $class $name $docs $clobbers [$vis unsafe] $args $result }
    };
    (@fn $class:ident $name:ident [$($doc:literal)*] $clobbers:tt [$($qualifier:tt)*] [$($arg:ident: $ty:ty => $reg:tt),*] []) => {
        $(#[doc = $doc])*
        #[inline(always)]
        $($qualifier)* fn $name($($arg: $ty),*) {
            site!($class $name $clobbers [$($reg = $crate::word::Argument::into_word($arg)),*] [])
        }
    };
    (@fn $class:ident $name:ident [$($doc:literal)*] $clobbers:tt [$($qualifier:tt)*] [$($arg:ident: $ty:ty => $reg:tt),*] [$ret:ty => "eax:ebx:ecx:edx"]) => {
        $(#[doc = $doc])*
        #[inline(always)]
        $($qualifier)* fn $name($($arg: $ty),*) -> $ret {
            site!($class $name $clobbers [$($reg = $crate::word::Argument::into_word($arg)),*] ["eax:ebx:ecx:edx"])
        }
    };
    (@fn $class:ident $name:ident [$($doc:literal)*] $clobbers:tt [$($qualifier:tt)*] [$($arg:ident: $ty:ty => $reg:tt),*] [$ret:ty => $out:tt]) => {
        $(#[doc = $doc])*
        #[inline(always)]
        $($qualifier)* fn $name($($arg: $ty),*) -> $ret {
            $crate::word::Answer::from_word(
                site!($class $name $clobbers [$($reg = $crate::word::Argument::into_word($arg)),*] [$out])
            )
        }
    };
}

/// Assembly text of the return from an interrupt: a jump site, for entry code in `naked_asm!` or `global_asm!`.
///
/// The stack pointer is at the frame that the CPU (or the backend's entry) pushed: RIP, CS, RFLAGS, RSP, SS.
/// Natively the site becomes `iretq` (SDM vol. 2A, IRET). It is op 0 of the table, so it needs no slot offset.
#[macro_export]
macro_rules! iret {
    () => {
        "771: jmp qword ptr [rip + pv_ops_table]\n\
         .pushsection pv_sites, \"aR\", @progbits\n\
         .balign 4\n\
         .long 771b - .\n\
         .short 0\n\
         .byte 6, 0\n\
         .popsection\n"
    };
}
