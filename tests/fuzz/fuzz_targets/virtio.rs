//! A virtio device that does what the input says, against every driver and both ring formats (`drivers::virtio::script`).
//!
//! With cargo-fuzz, which wants a nightly compiler or `RUSTC_BOOTSTRAP=1`, in the directory tests/fuzz: `cargo fuzz run --fuzz-dir . virtio`. With any compiler, there:
//! `cargo run --release -- FILE...` plays inputs from files, `cargo run --release -- --random COUNT [SEED]` inputs
//! by chance, without the evolution.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|script: &[u8]| drivers::virtio::script::run(script));

#[cfg(not(fuzzing))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        None => return Err("usage: virtio FILE... | --random COUNT [SEED]".into()),
        Some("--random") => {
            let count: u64 = arguments.next().ok_or("--random COUNT")?.parse()?;
            let seed: u64 = arguments.next().map_or(Ok(1), |seed| seed.parse())?;
            for number in 0..count {
                let input = random(seed.wrapping_mul(count).wrapping_add(number));
                if std::panic::catch_unwind(|| drivers::virtio::script::run(&input)).is_err() {
                    std::fs::write("crash", &input)?;
                    return Err("a promise was broken; the input is in the file `crash`".into());
                }
            }
            println!("{count} inputs");
        }
        Some(first) => {
            for file in std::iter::once(first.to_owned()).chain(arguments) {
                drivers::virtio::script::run(&std::fs::read(&file)?);
                println!("{file}");
            }
        }
    }
    Ok(())
}

/// An input by chance (xorshift64*).
#[cfg(not(fuzzing))]
fn random(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    };
    let len = next() % 1500;
    (0..len).map(|_| next() as u8).collect()
}
