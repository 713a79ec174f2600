//! `pv_ops!`: makes of the declarations in `ops` everything that follows from them.
//! Neighbours: `ops` (the one user), `call` (`wrapper!`, the function around a site), `table` (the types used here).

/// Takes the declarations of all ops and makes of them `PvOps`, the list `OPS`, marker types and the wrappers.
macro_rules! pv_ops {
    ($(
        $(#[doc = $group_doc:literal])*
        $group:ident { $(
            $(#[doc = $doc:literal])*
            $class:ident $vis:vis $safety:ident fn $name:ident
                ( $($arg:ident : $ty:ty => $reg:tt),* ) $(-> $ret:ty => $out:tt)? $(clobbers[$($clobber:tt),*])? ;
        )* }
    )*) => {
        /// A backend's body for every op. `PvOps { eoi: .., ..native::OPS }` reads as what differs from native.
        #[repr(C)]
        #[derive(Clone, Copy)]
        pub struct PvOps { $($(
            $(#[doc = $doc])*
            pub $name: $crate::table::Op<op::$name>,
        )*)* }

        impl PvOps {
            pub(crate) const fn bodies(&self) -> [$crate::table::Body; $crate::table::COUNT] {
                [$($( self.$name.erase(), )*)*]
            }
        }

        /// Every op, in the order of the table.
        pub const OPS: &[$crate::table::OpInfo] = &[$($(
            $crate::table::OpInfo {
                name: stringify!($name),
                group: stringify!($group),
                class: class!($class),
            },
        )*)*];

        /// A type for every op, of the op's own name: makes a body for one op unfit for another.
        #[expect(non_camel_case_types, reason = "an op's type has the op's name")]
        pub mod op {
            use $crate::{table::{Declared, Class}, word::*};
            use super::*;
            #[repr(usize)]
            enum Index { $($( $name, )*)* }
            $($(
                #[doc = concat!("The op [`", stringify!($name), "`](super::PvOps::", stringify!($name), ").")]
                #[derive(Clone, Copy, Debug)]
                pub struct $name;
                impl $name {
                    pub(crate) const INDEX: usize = Index::$name as usize;
                }
                impl Declared for $name {
                    type Function = function_type!([$($ty),*] [$($ret)?]);
                    const CLASS: Class = class!($class);
                    const ARGUMENTS: $crate::table::Arguments = arguments!($($reg)*);
                    const RESULT: $crate::table::Outcome = outcome!($($out)?);
                }
            )*)*
        }

        $($(
            wrapper! {
                $class $name [$($doc)*] [$($($clobber)*)?] [$vis $safety] [$($arg: $ty => $reg),*] [$($ret => $out)?]
            }
        )*)*
    };
}

macro_rules! class {
    (keep) => {
        $crate::table::Class::Keep
    };
    (pure) => {
        $crate::table::Class::Pure
    };
    (call) => {
        $crate::table::Class::Call
    };
    (jump) => {
        $crate::table::Class::Jump
    };
}

macro_rules! function_type {
    ([$($ty:ty),*] []) => { unsafe extern "sysv64" fn($(<$ty as Typed>::Abi),*) };
    ([$($ty:ty),*] [$ret:ty]) => { unsafe extern "sysv64" fn($(<$ty as Typed>::Abi),*) -> <$ret as Typed>::Abi };
}

macro_rules! arguments {
    () => {
        $crate::table::Arguments::SystemV
    };
    ("rdi") => {
        $crate::table::Arguments::SystemV
    };
    ("rdi" "rsi") => {
        $crate::table::Arguments::SystemV
    };
    ("rdi" "rsi" "rdx") => {
        $crate::table::Arguments::SystemV
    };
    ("rax") => {
        $crate::table::Arguments::Rax
    };
    ("rcx") => {
        $crate::table::Arguments::Rcx
    };
    ("rcx" "edx:eax") => {
        $crate::table::Arguments::RcxEdxEax
    };
    ("rdx" "rax") => {
        $crate::table::Arguments::RdxRax
    };
    ("rdx") => {
        $crate::table::Arguments::Rdx
    };
    ("rax" "rdi" "rcx" "rdx" "rsi") => {
        $crate::table::Arguments::Hypercall
    };
    ("rax" "rcx") => {
        $crate::table::Arguments::RaxRcx
    };
}

macro_rules! outcome {
    () => {
        $crate::table::Outcome::Nothing
    };
    ("rax") => {
        $crate::table::Outcome::Rax
    };
    ("edx:eax") => {
        $crate::table::Outcome::EdxEax
    };
    ("eax:ebx:ecx:edx") => {
        $crate::table::Outcome::EaxEbxEcxEdx
    };
}
