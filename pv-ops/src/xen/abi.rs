//! Commands, structs and numbers of Xen's public headers (`xen/include/public`), in our own words.
//! What belongs to one service alone stands with it (`event_channel`, `grant_table`, `shared_info`); what a struct
//! must look like is asserted below each. Neighbour: `hypercall` (the numbers of the hypercalls themselves).

use core::mem::offset_of;

/// The calling domain itself, where a domain is asked for (xen.h).
pub const DOMID_SELF: u16 = 0x7ff0;

/// Commands of `sched_op` (sched.h).
pub mod sched {
    /// Gives the processor away, and stays runnable.
    #[doc(alias = "SCHEDOP_yield")]
    pub const YIELD: u32 = 0;
    /// Sleeps until an event comes; unmasks events.
    #[doc(alias = "SCHEDOP_block")]
    pub const BLOCK: u32 = 1;
    /// Ends the domain; [`Shutdown`].
    #[doc(alias = "SCHEDOP_shutdown")]
    pub const SHUTDOWN: u32 = 2;
    /// Sleeps until one of some channels, let through or not, has an event; [`Poll`].
    #[doc(alias = "SCHEDOP_poll")]
    pub const POLL: u32 = 3;
    /// Reasons (`SHUTDOWN_*`).
    #[doc(alias = "SHUTDOWN_poweroff")]
    pub const REASON_POWER_OFF: u32 = 0;
    /// Restart, please.
    #[doc(alias = "SHUTDOWN_reboot")]
    pub const REASON_REBOOT: u32 = 1;
    /// To be saved. The call returns in the next life: 0; or 1 if it was not to be.
    #[doc(alias = "SHUTDOWN_suspend")]
    pub const REASON_SUSPEND: u32 = 2;
    /// The guest died.
    #[doc(alias = "SHUTDOWN_crash")]
    pub const REASON_CRASH: u32 = 3;

    /// Which channels, and how long.
    #[repr(C)]
    #[derive(Clone, Copy, Debug)]
    #[doc(alias = "sched_poll")]
    pub struct Poll {
        /// Address of their numbers.
        pub ports: u64,
        /// How many there are.
        pub nr_ports: u32,
        /// None.
        pub _pad: u32,
        /// The end in system time, nanoseconds; 0 is never.
        pub timeout: u64,
    }
    const _: () = assert!(size_of::<Poll>() == 24);

    /// Why the domain ends.
    #[repr(C)]
    #[derive(Clone, Copy, Debug)]
    #[doc(alias = "sched_shutdown")]
    pub struct Shutdown {
        /// One of `REASON_*`, or any number below 256 for the toolstack to show.
        pub reason: u32,
    }
}

/// Commands of `vcpu_op` (vcpu.h).
pub mod vcpu {
    /// Gives a virtual CPU its first state (PV: `vcpu_guest_context`).
    #[doc(alias = "VCPUOP_initialise")]
    pub const INITIALISE: u32 = 0;
    /// Lets it run.
    #[doc(alias = "VCPUOP_up")]
    pub const UP: u32 = 1;
    /// Whether it runs; an error if there is no such virtual CPU.
    #[doc(alias = "VCPUOP_is_up")]
    pub const IS_UP: u32 = 3;
    /// Moves its `vcpu_info` into memory of the guest, once for all; [`RegisterVcpuInfo`].
    #[doc(alias = "VCPUOP_register_vcpu_info")]
    pub const REGISTER_VCPU_INFO: u32 = 10;

    /// Where.
    #[repr(C)]
    #[derive(Clone, Copy, Debug)]
    #[doc(alias = "vcpu_register_vcpu_info")]
    pub struct RegisterVcpuInfo {
        /// The frame, by Xen's number.
        pub mfn: u64,
        /// The place in it: the struct crosses no page.
        pub offset: u32,
        /// None.
        pub _rsvd: u32,
    }
    const _: () = assert!(size_of::<RegisterVcpuInfo>() == 16);

    /// Takes a virtual CPU off.
    #[doc(alias = "VCPUOP_down")]
    pub const DOWN: u32 = 2;
    /// Has Xen tell how the virtual CPU is scheduled; [`RegisterRunstateMemoryArea`].
    #[doc(alias = "VCPUOP_register_runstate_memory_area")]
    pub const REGISTER_RUNSTATE_MEMORY_AREA: u32 = 5;
    /// Stops the tick that Xen begins with.
    #[doc(alias = "VCPUOP_stop_periodic_timer")]
    pub const STOP_PERIODIC_TIMER: u32 = 7;
    /// Arms `VIRQ_TIMER` once; [`SetSingleshotTimer`].
    #[doc(alias = "VCPUOP_set_singleshot_timer")]
    pub const SET_SINGLESHOT_TIMER: u32 = 8;
    /// Disarms it.
    #[doc(alias = "VCPUOP_stop_singleshot_timer")]
    pub const STOP_SINGLESHOT_TIMER: u32 = 9;
    /// Interrupts a virtual CPU even where it holds events back.
    #[doc(alias = "VCPUOP_send_nmi")]
    pub const SEND_NMI: u32 = 11;

    /// Where Xen tells it.
    #[repr(C)]
    #[derive(Clone, Copy, Debug)]
    #[doc(alias = "vcpu_register_runstate_memory_area")]
    pub struct RegisterRunstateMemoryArea {
        /// Virtual address of a `struct vcpu_runstate_info`.
        pub address: u64,
    }

    /// When `VIRQ_TIMER` shall come.
    #[repr(C)]
    #[derive(Clone, Copy, Debug)]
    #[doc(alias = "vcpu_set_singleshot_timer")]
    pub struct SetSingleshotTimer {
        /// Deadline in system time, nanoseconds.
        pub timeout_abs_ns: u64,
        /// 0: a past deadline fires at once.
        pub flags: u32,
        /// None.
        pub _pad: u32,
    }
    const _: () = assert!(size_of::<SetSingleshotTimer>() == 16);
}

/// Commands of `memory_op` (memory.h).
pub mod memory {
    use super::offset_of;

    /// Takes memory from the domain; [`Reservation`]. Answers how many extents.
    #[doc(alias = "XENMEM_decrease_reservation")]
    pub const DECREASE_RESERVATION: u32 = 1;
    /// Gives the domain memory; [`Reservation`]. Answers how many extents.
    #[doc(alias = "XENMEM_populate_physmap")]
    pub const POPULATE_PHYSMAP: u32 = 6;
    /// Puts a special page at a frame number of the guest; [`AddToPhysmap`].
    #[doc(alias = "XENMEM_add_to_physmap")]
    pub const ADD_TO_PHYSMAP: u32 = 7;
    /// The domain's own memory map; [`MemoryMap`].
    #[doc(alias = "XENMEM_memory_map")]
    pub const MEMORY_MAP: u32 = 9;

    /// The page of shared info.
    #[doc(alias = "XENMAPSPACE_shared_info")]
    pub const SPACE_SHARED_INFO: u32 = 0;
    /// A page of the grant table, by its index.
    #[doc(alias = "XENMAPSPACE_grant_table")]
    pub const SPACE_GRANT_TABLE: u32 = 1;

    /// Which memory is taken or given.
    #[repr(C)]
    #[derive(Clone, Copy, Debug)]
    #[doc(alias = "xen_memory_reservation")]
    pub struct Reservation {
        /// The place of a list of frame numbers: of the machine where a PV guest gives, else of the guest. Out, where a
        /// PV guest gets: the machine's.
        pub extent_start: u64,
        /// How many.
        pub nr_extents: u64,
        /// An extent has 2^this frames.
        pub extent_order: u32,
        /// None.
        pub mem_flags: u32,
        /// Whose.
        pub domid: u16,
    }
    const _: () = assert!(size_of::<Reservation>() == 32 && offset_of!(Reservation, domid) == 24);

    /// Which page, and where.
    #[repr(C)]
    #[derive(Clone, Copy, Debug)]
    #[doc(alias = "xen_add_to_physmap")]
    pub struct AddToPhysmap {
        /// Whose memory.
        pub domid: u16,
        /// Only for ranges.
        pub size: u16,
        /// One of `SPACE_*`.
        pub space: u32,
        /// Which page of that space.
        pub index: u64,
        /// The frame number where it shall be.
        pub gpfn: u64,
    }
    const _: () = assert!(size_of::<AddToPhysmap>() == 24 && offset_of!(AddToPhysmap, gpfn) == 16);

    /// A place for the memory map.
    #[repr(C)]
    #[derive(Clone, Copy, Debug)]
    #[doc(alias = "xen_memory_map")]
    pub struct MemoryMap {
        /// In: how many entries fit; out: how many there are.
        pub nr_entries: u32,
        /// None.
        pub _pad: u32,
        /// The place: [`E820Entry`]s.
        pub buffer: u64,
    }
    const _: () = assert!(size_of::<MemoryMap>() == 16 && offset_of!(MemoryMap, buffer) == 8);

    /// A region as the BIOS call E820h tells it.
    #[repr(C, packed)]
    #[derive(Clone, Copy, Debug, Default)]
    #[doc(alias = "e820entry")]
    pub struct E820Entry {
        /// Physical address.
        pub addr: u64,
        /// Bytes.
        pub size: u64,
        /// ACPI's number of the kind.
        pub kind: u32,
    }
    const _: () = assert!(size_of::<E820Entry>() == 20);
}

/// Commands of `hvm_op` (hvm/hvm_op.h) and parameters (hvm/params.h).
pub mod hvm {
    use super::offset_of;

    /// Sets a parameter; [`Param`].
    #[doc(alias = "HVMOP_set_param")]
    pub const SET_PARAM: u32 = 0;
    /// Reads a parameter; [`Param`].
    #[doc(alias = "HVMOP_get_param")]
    pub const GET_PARAM: u32 = 1;

    /// How events reach the guest: [`callback_vector`].
    #[doc(alias = "HVM_PARAM_CALLBACK_IRQ")]
    pub const CALLBACK_IRQ: u32 = 0;
    /// Frame of the xenstore ring.
    #[doc(alias = "HVM_PARAM_STORE_PFN")]
    pub const STORE_PFN: u32 = 1;
    /// Its event channel.
    #[doc(alias = "HVM_PARAM_STORE_EVTCHN")]
    pub const STORE_EVTCHN: u32 = 2;
    /// Frame of the console ring.
    #[doc(alias = "HVM_PARAM_CONSOLE_PFN")]
    pub const CONSOLE_PFN: u32 = 17;
    /// Its event channel.
    #[doc(alias = "HVM_PARAM_CONSOLE_EVTCHN")]
    pub const CONSOLE_EVTCHN: u32 = 18;

    /// The value of [`CALLBACK_IRQ`] that lets events come as this vector
    /// (`HVM_PARAM_CALLBACK_TYPE_VECTOR`).
    pub const fn callback_vector(vector: u8) -> u64 {
        2 << 56 | vector as u64
    }

    /// A parameter.
    #[repr(C)]
    #[derive(Clone, Copy, Debug)]
    #[doc(alias = "xen_hvm_param")]
    pub struct Param {
        /// Whose.
        pub domid: u16,
        /// None.
        pub _pad: u16,
        /// Which.
        pub index: u32,
        /// Its value.
        pub value: u64,
    }
    const _: () = assert!(size_of::<Param>() == 16 && offset_of!(Param, value) == 8);
}

/// Commands of `console_io` (xen.h).
pub mod console {
    /// Writes text to Xen's console.
    #[doc(alias = "CONSOLEIO_write")]
    pub const WRITE: u32 = 0;
    /// Reads what was typed there.
    #[doc(alias = "CONSOLEIO_read")]
    pub const READ: u32 = 1;
}

/// Commands of `xen_version` (version.h).
pub mod version {
    use super::offset_of;

    /// Major and minor number in one word.
    #[doc(alias = "XENVER_version")]
    pub const VERSION: u32 = 0;
    /// [`FeatureInfo`].
    #[doc(alias = "XENVER_get_features")]
    pub const GET_FEATURES: u32 = 6;

    /// A word of feature bits (features.h).
    #[repr(C)]
    #[derive(Clone, Copy, Debug, Default)]
    #[doc(alias = "xen_feature_info")]
    pub struct FeatureInfo {
        /// In: which word.
        pub submap_idx: u32,
        /// Out: the bits.
        pub submap: u32,
    }
    const _: () = assert!(size_of::<FeatureInfo>() == 8 && offset_of!(FeatureInfo, submap) == 4);

    /// The domain is dom0 (features.h).
    #[doc(alias = "XENFEAT_dom0")]
    pub const FEATURE_DOM0: u32 = 11;
}
