//! Whoever changes the linker script wants everything linked anew: cargo does not watch what its flags name.

fn main() {
    println!("cargo::rerun-if-changed=link.ld");
}
