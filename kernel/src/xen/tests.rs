//! What only a guest of Xen can show: grants and xenstore in earnest.
#![forbid(unsafe_code)]

crate::kernel_test! {
    /// Pages and channels of drivers go back, and no grant is left.
    fn what_a_driver_takes_goes_back_when_it_is_dropped() {
        use drivers::xen::{Access, Channel, DomainId, Shared};
        let Some(hypervisor) = super::hypervisor() else { crate::skip!("no grant table here") };
        let channels = crate::irq::event_channel::channels().len();
        for _ in 0..3 {
            let page = Shared::new(&hypervisor, DomainId(0), Access::ReadWrite).unwrap();
            let other = Shared::new(&hypervisor, DomainId(0), Access::ReadOnly).unwrap();
            assert_ne!(page.grant(), other.grant());
            page.write(100, b"granted");
            let channel = Channel::new(&hypervisor, DomainId(0), alloc::boxed::Box::new(|| ())).unwrap();
            assert_eq!(crate::irq::event_channel::channels().len(), channels + 1);
            channel.notify();
        }
        assert_eq!(crate::irq::event_channel::channels().len(), channels);
    }
}

crate::kernel_test! {
    /// After a restore a driver drops what it had; the number may be another's by then.
    fn a_channel_of_an_earlier_life_is_left_alone() {
        use drivers::xen::{DomainId, Port};
        let Some(hypervisor) = super::hypervisor() else { crate::skip!("no grant table here") };
        let port = hypervisor.bind(DomainId(0), alloc::boxed::Box::new(|| ())).unwrap();
        let is_open = || crate::irq::event_channel::channels().iter().any(|(open, ..)| open.0 == port.number);
        hypervisor.close(Port { life: port.life.wrapping_sub(1), ..port });
        assert!(is_open());
        hypervisor.close(port);
        assert!(!is_open());
    }
}

crate::kernel_test! {
    /// Many requests at the same time, a transaction and a watch, with the toolstack's own xenstored.
    async fn xenstore_answers_many_at_the_same_time() {
        use alloc::{format, string::ToString, vec::Vec};
        use drivers::xen::xenstore::{Changed, Transaction};
        const NONE: Transaction = Transaction::NONE;
        let Some(store) = super::xenstore() else { crate::skip!("no xenstore here") };
        let id: u32 = store.read(NONE, "domid").await.unwrap().trim().parse().unwrap();
        assert_ne!(id, 0);
        let asked: Vec<_> = (0..20)
            .map(|number| {
                let store = store.clone();
                crate::task::spawn(async move {
                    let path = format!("data/pliant-test/{number}");
                    store.write(NONE, &path, &number.to_string()).await.unwrap();
                    store.read(NONE, &path).await.unwrap()
                })
            })
            .collect();
        for (number, answer) in asked.into_iter().enumerate() {
            assert_eq!(answer.await, number.to_string());
        }
        let mut watch = store.watch("data/pliant-test").await.unwrap();
        assert_eq!(watch.next().await.unwrap(), Changed::Path("data/pliant-test".into()));
        let sum = store
            .transaction(|transaction| {
                let store = &store;
                async move {
                    let names = store.directory(transaction, "data/pliant-test").await?;
                    store.write(transaction, "data/pliant-test/count", &names.len().to_string()).await?;
                    Ok(names.len())
                }
            })
            .await
            .unwrap();
        assert_eq!(sum, 20);
        assert_eq!(watch.next().await.unwrap(), Changed::Path("data/pliant-test/count".into()));
        store.remove(NONE, "data/pliant-test").await.unwrap();
        assert_eq!(store.find(NONE, "data/pliant-test").await.unwrap(), None);
    }
}

crate::kernel_test! {
    /// What was stolen in some time is no more than that time.
    fn no_more_time_is_stolen_than_passes() {
        if !crate::irq::event_channel::is_up() {
            crate::skip!("no Xen here");
        }
        let (start, mut before) = (crate::time::now(), pv_ops::steal_ns(0));
        let first = before;
        while start.elapsed().as_millis() < 20 {
            pv_ops::sched_yield();
            let now = pv_ops::steal_ns(0);
            assert!(now >= before, "{now} after {before}");
            before = now;
        }
        let (stolen, elapsed) = (before - first, start.elapsed().as_nanos());
        assert!(u128::from(stolen) <= elapsed, "{stolen} ns stolen in {elapsed} ns");
    }
}

crate::kernel_test! {
    /// Nobody sleeps on a lock that is free, for ever on one that is not, or through a kick.
    fn who_waits_for_a_lock_goes_on() {
        use core::sync::atomic::AtomicU8;
        if !crate::irq::event_channel::is_up() {
            crate::skip!("no event channels here");
        }
        let cpu = crate::cpu::current().id();
        for kicked in [false, true] {
            for seen in [1, 2] {
                if kicked {
                    pv_ops::lock_kick(cpu);
                }
                pv_ops::lock_wait(&AtomicU8::new(1), seen);
            }
        }
        pv_ops::lock_kick(pv_ops::MAX_CPUS as u32);
        pv_ops::lock_kick(u32::MAX);
    }
}
