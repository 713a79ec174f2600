//! What only a running guest can show of interrupts and exceptions.
#![forbid(unsafe_code)]
#![cfg(all(feature = "self-test", target_os = "none"))]

use super::{Error, allocate, apic, counts, dispatch, message, send, vectors};
use crate::{
    backtrace::Backtrace,
    cpu::{self, gdt, port::Ports, probe},
    hypervisor, symbols,
    sync::IrqState,
};
use alloc::{format, sync::Arc};
use core::sync::atomic::{AtomicU32, Ordering};

/// Waits until `count` is `wanted`, as long as any self-IPI may take. Returns what it was at last.
fn wait_for(count: &AtomicU32, wanted: u32) -> u32 {
    for _ in 0..10_000_000 {
        if count.load(Ordering::Acquire) >= wanted {
            break;
        }
        core::hint::spin_loop();
    }
    count.load(Ordering::Acquire)
}

/// A vector of its own that counts.
fn counting_vector() -> (u8, Arc<AtomicU32>) {
    let count = Arc::new(AtomicU32::new(0));
    let counted = count.clone();
    let handler = move || {
        counted.fetch_add(1, Ordering::Release);
    };
    (allocate("self-test", handler).expect("a free vector"), count)
}

kernel_test! {
    fn an_interrupt_to_itself_arrives() {
        if apic::local().is_none() { crate::skip!("no local APIC") }
        let (vector, count) = counting_vector();
        for sent in 1..=100 {
            send(cpu::current(), vector);
            assert_eq!(wait_for(&count, sent), sent);
        }
        let counted = counts().find(|count| count.vector == vector).expect("counted");
        assert_eq!((counted.name, counted.total), ("self-test", 100));
    }
}

kernel_test! {
    /// One that waits when the handler returns is handled then, and takes no more of the stack than the one before.
    fn interrupts_that_cause_the_next_do_not_pile_up() {
        // More than the stack has room for, were each to leave something there.
        const CHAIN: u32 = 5_000;
        if apic::local().is_none() { crate::skip!("no local APIC") }
        let count = Arc::new(AtomicU32::new(0));
        let (counted, own) = (count.clone(), Arc::new(AtomicU32::new(0)));
        let vector_of = own.clone();
        let handler = move || {
            if counted.fetch_add(1, Ordering::Release) + 1 < CHAIN {
                send(cpu::current(), vector_of.load(Ordering::Relaxed) as u8);
            }
        };
        let vector = allocate("self-test", handler).expect("a free vector");
        own.store(vector.into(), Ordering::Relaxed);
        send(cpu::current(), vector);
        assert_eq!(wait_for(&count, CHAIN), CHAIN);
    }
}

kernel_test! {
    /// A message names any CPU that it can: with more bits for that, CPUs of large APIC IDs too.
    fn a_message_reaches_the_cpu_that_it_names() {
        const PRESENT: u8 = 0x4d;
        let ports = Ports::MESSAGES;
        if ports.read_u8(0x60c) != PRESENT || apic::local().is_none() {
            crate::skip!("nothing here sends messages");
        }
        for cpu in cpu::percpu::all() {
            let (came, by) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(u32::MAX)));
            let (counted, seen) = (came.clone(), by.clone());
            let message = message(cpu, "self-test", move || {
                seen.store(cpu::current().id(), Ordering::Relaxed);
                counted.fetch_add(1, Ordering::Release);
            });
            if cpu.apic_id() > 255 && !(hypervisor::services().has_long_message_ids)() {
                assert_eq!(message, Err(Error::NoMessages), "for the CPU of APIC ID {}", cpu.apic_id());
                continue;
            }
            let message = message.expect("a message");
            let address = (message.address as u32).to_le_bytes();
            (0x608..).zip(address).for_each(|(port, byte)| ports.write_u8(port, byte));
            ports.write_u8(0x60c, message.data as u8);
            let start = pv_ops::monotonic_ns();
            while came.load(Ordering::Acquire) == 0 && pv_ops::monotonic_ns() < start + 2_000_000_000 {
                pv_ops::sched_yield();
            }
            assert_eq!((came.load(Ordering::Acquire), by.load(Ordering::Relaxed)), (1, cpu.id()));
        }
    }
}

kernel_test! {
    fn a_disabled_cpu_takes_the_interrupt_once_it_is_enabled() {
        if apic::local().is_none() { crate::skip!("no local APIC") }
        let (vector, count) = counting_vector();
        let irq = IrqState::disable();
        send(cpu::current(), vector);
        for _ in 0..100_000 {
            core::hint::spin_loop();
        }
        assert_eq!(count.load(Ordering::Acquire), 0, "held back");
        drop(irq);
        assert_eq!(wait_for(&count, 1), 1);
    }
}

kernel_test! {
    fn all_handlers_of_a_vector_are_called() {
        if apic::local().is_none() { crate::skip!("no local APIC") }
        let (vector, count) = counting_vector();
        let second = count.clone();
        dispatch::handle(vector, "self-test", move || {
            second.fetch_add(10, Ordering::Release);
        });
        send(cpu::current(), vector);
        assert_eq!(wait_for(&count, 11), 11);
    }
}

kernel_test! {
    fn a_probed_fault_is_survived() {
        let before = cpu::current().interrupts(vectors::PAGE_FAULT);
        // Between the direct map and the heap nothing is mapped.
        assert_eq!(probe::read_frame(crate::mm::layout::HUGE - 4096), None);
        assert_eq!(cpu::current().interrupts(vectors::PAGE_FAULT), before + 1);
        let frame = probe::frame_pointer();
        assert!(probe::read_frame(frame).is_some());
        assert_eq!(probe::read_frame(frame + 1), None, "misaligned");
    }
}

kernel_test! {
    fn a_probed_register_that_exists_is_read() {
        const MSR_EFER: u32 = 0xc000_0080;
        let efer = probe::read_msr(MSR_EFER).expect("EFER");
        assert_eq!(efer >> 8 & 1, 1, "long mode");
    }
}

kernel_test! {
    fn a_code_address_has_its_function_name() {
        if symbols::table().is_none() { crate::skip!("the image has no symbol table") }
        let (name, offset) = symbols::lookup(send as *const () as u64).expect("a symbol");
        assert_eq!((name, offset), ("kernel::irq::send", 0));
    }
}

kernel_test! {
    fn a_backtrace_leads_back_to_the_start_of_the_kernel() {
        let text = format!("{}", Backtrace::here());
        assert!(text.lines().count() >= 2, "{text}");
        if symbols::table().is_some() {
            assert!(text.contains("kernel::start::"), "{text}");
        }
    }
}

kernel_test! {
    fn the_cpu_runs_on_the_kernels_segments() {
        if gdt::code_selector() & 3 != 0 {
            crate::skip!("the kernel runs in ring 3, on its hypervisor's segments");
        }
        assert_eq!(gdt::code_selector() & !3, gdt::KERNEL_CODE);
    }
}
