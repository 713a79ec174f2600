//! The handshake (VirtIO 1.3 §3.1.1).
#![forbid(unsafe_code)]

use std::vec;

use crate::{
    error::{Error, Field},
    virtio::{
        DeviceId, Features, Init, Status,
        fake::{FakeDevice, FakeHal},
        queue::Queue,
        transport::read_config,
    },
};

fn device() -> FakeDevice {
    FakeDevice::new(DeviceId::ENTROPY, Features::TRANSPORT | Features::from_bits_retain(0b11), 8, vec![0; 4])
}

#[test]
fn a_device_runs_when_both_sides_agree_on_what_both_know() {
    let (device, hal) = (device(), FakeHal::default());
    device.registers().offers |= 1 << 60;
    let mut init = Init::begin(device.transport(), Features::from_bits_retain(0b10)).unwrap();
    assert_eq!(init.features(), Features::TRANSPORT | Features::from_bits_retain(0b10));
    assert_eq!(device.registers().chosen, init.features().bits());
    let _queue: Queue<()> = init.queue(0, &hal).unwrap();
    assert!(!device.registers().status.contains(Status::DRIVER_OK), "not before its queues are known");
    drop(init.finish());
    let all = Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK | Status::DRIVER_OK;
    assert_eq!(device.registers().status, all);
}

#[test]
fn a_device_without_version_1_is_given_up() {
    let device = device();
    device.registers().offers = 0b11;
    let error = Init::begin(device.transport(), Features::empty()).err();
    assert_eq!(error, Some(Error::NotModern { offered: 0b11 }));
    assert!(device.registers().status.contains(Status::FAILED));
}

#[test]
fn a_device_that_refuses_what_it_offers_is_given_up() {
    let device = device();
    device.registers().refuses = true;
    let error = Init::begin(device.transport(), Features::empty()).err();
    assert_eq!(error, Some(Error::FeaturesRefused { chosen: Features::TRANSPORT.bits() }));
}

#[test]
fn a_reset_that_does_not_end_is_not_waited_for() {
    let device = device();
    device.registers().is_stuck = true;
    let error = Init::begin(device.transport(), Features::empty()).err();
    assert!(matches!(error, Some(Error::ResetStuck { status: 2, .. })), "{error:?}");
}

#[test]
fn a_missing_queue_is_an_error() {
    let (device, hal) = (device(), FakeHal::default());
    device.registers().queue_size = 0;
    let mut init = Init::begin(device.transport(), Features::empty()).unwrap();
    assert!(matches!(init.queue::<()>(0, &hal), Err(Error::BadQueue { index: 0, found: 0, .. })));
}

/// §2.5.1: a configuration that changes while it is read is read again, and not for ever.
#[test]
fn a_restless_configuration_is_not_believed() {
    let device = device();
    device.registers().is_restless = true;
    let transport = device.transport();
    let result = read_config(&*transport, |transport| Ok(transport.config_u32(0)));
    assert!(matches!(result, Err(Error::BadConfig { field: &Field { name: "generation", .. }, .. })));
}
