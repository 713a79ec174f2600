//! `doctor`: what is found on this machine, what is missing, what each platform needs.

use std::fs::OpenOptions;
use std::path::Path;

use anyhow::Result;

use crate::host::packages::{self, CLIPPY, GDB, NETWORK, Need};
use crate::host::{paths, progress};
use crate::image;
use crate::qemu::Platform;
use crate::toolchain::{Kind, Toolchain};
use crate::{nested, xen};

/// Prints one line per thing; the exit code tells whether every platform can run.
///
/// # Errors
/// None: what is wrong is what it prints.
pub fn run() -> Result<u8> {
    // Told once, here; the checks below are quick.
    let _quiet = progress::Step::new("looking around");
    let mut complete = true;
    match Toolchain::look() {
        Ok(choice) => {
            let how = match choice.kind {
                Kind::Prebuilt => "ships the guest target",
                Kind::PrivateSysroot => "with a private sysroot",
            };
            let candidate = &choice.candidate;
            println!(
                "ok       toolchain: {} {} at {}, {how}",
                candidate.name,
                candidate.version.id(),
                candidate.sysroot.display()
            );
        }
        Err(refusals) => {
            complete = false;
            for refusal in refusals {
                println!("missing  toolchain: {refusal}");
            }
        }
    }
    for platform in Platform::ALL {
        let missing: Vec<Need> =
            image::needs(platform).into_iter().filter(|need| need.find().is_none()).collect();
        let name = platform.name();
        if missing.is_empty() {
            println!(
                "ok       {name}: {}",
                image::needs(platform).iter().map(|need| need.what).collect::<Vec<_>>().join(" ")
            );
        } else {
            complete = false;
            let list: Vec<String> =
                missing.iter().map(|need| format!("{} (package {})", need.what, need.package)).collect();
            println!("missing  {name}: {}", list.join(", "));
        }
    }
    let network = NETWORK.map(|need| (need, "tests of the network, which install it"));
    let others = [(GDB, "`gdb`"), (CLIPPY, "`clippy` with the distribution's compiler")];
    for (need, purpose) in others.into_iter().chain(network) {
        match need.find() {
            Some(path) => println!("ok       {}: for {purpose}", path.display()),
            None => println!("optional {} is not there (package {}): for {purpose}", need.what, need.package),
        }
    }
    println!(
        "{}",
        kvm().map_or_else(
            |why| format!("optional --accel kvm: {why}"),
            |how| format!("ok       --accel kvm: {how}")
        )
    );
    println!("ok       cache: {}", paths::cache_directory().display());
    let builders = paths::cache_directory().join("image-builder");
    let built = builders.is_dir();
    println!(
        "{} disk image builder: {}",
        if built { "ok      " } else { "optional" },
        if built { "built" } else { "built on first use, about 5 minutes" }
    );
    println!("{}", xen());
    println!("{}", nested_kvm());
    if !complete && !packages::is_root() {
        println!("         `cargo run` says what to install");
    }
    Ok(u8::from(!complete))
}

/// What there is of the Xen rig.
fn xen() -> String {
    let Some(rig) = xen::Rig::look() else {
        return "optional Xen rig: assembled on first use, from 100 MB of Debian's packages".into();
    };
    match rig.describe() {
        Err(error) => format!("missing  Xen rig: {error:#}"),
        Ok(versions) if xen::Dom0::is_saved(&rig) => format!("ok       Xen rig: {versions}; dom0 is saved"),
        Ok(versions) => format!("ok       Xen rig: {versions}; dom0 is booted once on first use"),
    }
}

/// What there is of the rig of nested KVM.
fn nested_kvm() -> String {
    let Some(rig) = nested::Rig::look() else {
        return "optional rig of nested KVM: assembled on first use, from 70 MB of Debian's packages".into();
    };
    match rig.describe() {
        Err(error) => format!("missing  rig of nested KVM: {error:#}"),
        Ok(versions) if nested::Host::is_saved(&rig) => {
            format!("ok       rig of nested KVM: {versions}; its Linux is saved")
        }
        Ok(versions) => {
            format!("ok       rig of nested KVM: {versions}; its Linux is booted once on first use")
        }
    }
}

/// Whether guests can use the host's KVM: what it is, or why not.
///
/// # Errors
/// The reason, for a reader.
pub fn kvm() -> Result<&'static str, String> {
    let device = Path::new("/dev/kvm");
    if !device.exists() {
        return Err("there is no /dev/kvm".into());
    }
    match OpenOptions::new().read(true).write(true).open(device) {
        Err(error) => Err(format!("/dev/kvm does not open: {error}")),
        Ok(_) if is_kvm_pvm() => {
            Ok("/dev/kvm opens; a kvm-pvm host, which emulates guests that do not register with it")
        }
        Ok(_) => Ok("/dev/kvm opens"),
    }
}

/// Whether KVM runs guests by page tables instead of by processor extensions (the module kvm_pvm).
pub fn is_kvm_pvm() -> bool {
    Path::new("/sys/module/kvm_pvm").exists()
}
